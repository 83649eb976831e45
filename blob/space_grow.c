/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * More blocks for the map of used ones. What is new is worked out beforehand, where memory may be short and nobody waits: arrays of
 * the new size in which the new blocks are free. Putting them in the place of the old ones copies those over
 * that part, under space->lock, and cannot fail.
 *
 * A region keeps its size, unless there would be so many of them that looking for the emptiest takes long: then so many are put
 * together that the number is usual again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blob/internal.h"

#define WORD 64u
#define MANY_REGIONS 16384u /* four times what bs_space_create makes at most */

int bs_space_grow_prepare(struct bs *bs, uint64_t blocks, struct bs_space **out)
{
	struct bs_space *s = bs->space, *n = base_calloc(1, sizeof(*n));
	uint64_t words = s->n_units * (s->unit_blocks / WORD);

	if (!n)
		return -ENOMEM;
	n->blocks = round_down(blocks, s->cluster_blocks);
	n->cluster_blocks = s->cluster_blocks;
	n->unit_blocks = s->unit_blocks;
	n->region_words = s->region_words;
	n->lead = s->lead;
	while (div_round_up(n->blocks / WORD, n->region_words) > MANY_REGIONS)
		n->region_words *= 2;
	/* Free behind the words that are there already; the rest of those comes with the switch. */
	if (bs_space_arrays(n, words * WORD, s->stale != NULL)) {
		bs_space_grow_drop(n);
		return -ENOMEM;
	}
	*out = n;
	return 0;
}

void bs_space_grow_drop(struct bs_space *n)
{
	if (!n)
		return;
	free(n->bits);
	free(n->stale);
	free(n->stale_region);
	free(n->region_free);
	free(n->unit_used);
	free(n);
}

/* The old map's part of the new arrays. space->lock held. */
static void take_over(struct bs_space *n, const struct bs_space *s)
{
	uint64_t words = s->n_units * (s->unit_blocks / WORD);
	uint32_t k = n->region_words / s->region_words;

	memcpy(n->bits, s->bits, words * sizeof(*n->bits));
	memcpy(n->unit_used, s->unit_used, s->n_units * sizeof(*n->unit_used));
	for (uint64_t r = 0; r < s->n_regions; r++)
		n->region_free[r / k] += s->region_free[r];
	if (s->stale) {
		memcpy(n->stale, s->stale, words * sizeof(*n->stale));
		for (uint64_t r = 0; r < s->n_regions; r++)
			n->stale_region[r / k] |= s->stale_region[r];
	}
}

#define SWAP(a, b)                        \
	do {                              \
		__typeof__(a) swap_ = (a); \
		(a) = (b);                \
		(b) = swap_;              \
	} while (0)

void bs_space_grow_commit(struct bs *bs, struct bs_space *n)
{
	struct bs_space *s = bs->space;
	uint64_t words = s->n_units * (s->unit_blocks / WORD), old = s->blocks, end = MIN(n->blocks, words * WORD);
	uint32_t k = n->region_words / s->region_words;

	pthread_mutex_lock(&s->lock);
	take_over(n, s);
	for (unsigned i = 0; i < BS_STREAMS; i++)
		s->stream[i].region = s->stream[i].region == s->n_regions ? n->n_regions : s->stream[i].region / k;
	SWAP(s->bits, n->bits);
	SWAP(s->stale, n->stale);
	SWAP(s->stale_region, n->stale_region);
	SWAP(s->region_free, n->region_free);
	SWAP(s->unit_used, n->unit_used);
	s->n_regions = n->n_regions;
	s->n_units = n->n_units;
	s->region_words = n->region_words;
	s->free_clusters += n->free_clusters;
	s->blocks = n->blocks;
	if (end > old)
		bs_space_clear(s, old, end - old);
	pthread_mutex_unlock(&s->lock);
	bs_space_grow_drop(n);
}
