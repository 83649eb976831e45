/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who owns which block: a bitmap, built at open and never stored. Clusters are the unit of
 * allocation; a cluster is free when none of its blocks is owned.
 *
 * Each write stream has an open region, whose frontier moves forward and takes what is free on its
 * way. At the end of the region the emptiest one is next (of equals the next in order), so that
 * runs stay long and the device sees sequential writes.
 *
 * Invariants, under space->lock: free_clusters, region_free and unit_used follow the bitmap;
 * reserved <= free_clusters as long as the log or a checkpoint has not taken more than was foreseen.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blob/internal.h"
#include "blob/mutation.h"

#define WORD 64u

/* ---- the bitmap ---- */

/* One bit for each free cluster of the word, at its first block. */
static uint64_t free_leads(const struct bs_space *s, uint64_t word)
{
	for (uint32_t k = 1; k < s->cluster_blocks; k <<= 1)
		word |= word >> k;
	return ~word & s->lead;
}

static void word_changed(struct bs_space *s, uint64_t w, uint64_t old, uint64_t new)
{
	int delta = __builtin_popcountll(free_leads(s, new)) -
		    __builtin_popcountll(free_leads(s, old));
	int used = __builtin_popcountll(new) - __builtin_popcountll(old);

	s->bits[w] = new;
	s->free_clusters += (uint64_t)(int64_t)delta;
	s->region_free[w / s->region_words] += (uint32_t)delta;
	s->unit_used[w * WORD / s->unit_blocks] =
		(uint16_t)(s->unit_used[w * WORD / s->unit_blocks] + used);
}

/* The part of word w that [block, end) covers. */
static uint64_t word_mask(uint64_t w, uint64_t block, uint64_t end)
{
	uint64_t mask = ~0ull;

	if (block > w * WORD)
		mask &= ~0ull << (block - w * WORD);
	if (end < (w + 1) * WORD)
		mask &= ~0ull >> ((w + 1) * WORD - end);
	return mask;
}

void bs_space_own(struct bs_space *s, uint64_t block, uint64_t count)
{
	uint64_t end = block + count;

	if (BS_MUTATE(discard_durable))
		bs_space_fresh(s, block, count);
	for (uint64_t w = block / WORD; w * WORD < end; w++) {
		uint64_t mask = word_mask(w, block, end);

		assert(!(s->bits[w] & mask));
		word_changed(s, w, s->bits[w], s->bits[w] | mask);
	}
}

void bs_space_clear(struct bs_space *s, uint64_t block, uint64_t count)
{
	uint64_t end = block + count;

	assert(count && end <= s->blocks);
	for (uint64_t w = block / WORD; w * WORD < end; w++) {
		uint64_t mask = word_mask(w, block, end);

		assert((s->bits[w] & mask) == mask);
		word_changed(s, w, s->bits[w], s->bits[w] & ~mask);
	}
}

/* First owned block in [block, end), else end. */
static uint64_t first_set(const struct bs_space *s, uint64_t block, uint64_t end)
{
	for (uint64_t w = block / WORD; w * WORD < end; w++) {
		uint64_t hit = s->bits[w] & word_mask(w, block, end);

		if (hit)
			return w * WORD + (unsigned)__builtin_ctzll(hit);
	}
	return end;
}

/* First free cluster in [block, end), else end; block at a cluster's start. */
static uint64_t first_free(const struct bs_space *s, uint64_t block, uint64_t end)
{
	for (uint64_t w = block / WORD; w * WORD < end; w++) {
		uint64_t hit = free_leads(s, s->bits[w]) & word_mask(w, block, end);

		if (hit)
			return w * WORD + (unsigned)__builtin_ctzll(hit);
	}
	return end;
}

/* ---- making ---- */

/* About a thousand regions, four thousand on very large stores: few enough to look through, large
 * enough for long runs. */
static uint64_t region_blocks(uint64_t blocks)
{
	uint64_t size = 256;

	while (size < 65536 && size * 1024 < blocks)
		size *= 2;
	while (size * 4096 < blocks)
		size *= 2;
	return size;
}

/* All of [from, s->blocks) is free, which zeroes say: nothing is written that grows with the device but a few counts. */
static void count_free(struct bs_space *s, uint64_t from)
{
	uint64_t region = (uint64_t)s->region_words * WORD, end = s->n_units * (uint64_t)s->unit_blocks;

	for (uint64_t r = from / region; r < s->n_regions && from < s->blocks; r++) {
		uint64_t clusters = (MIN((r + 1) * region, s->blocks) - MAX(r * region, from)) / s->cluster_blocks;

		s->region_free[r] = (uint32_t)clusters;
		s->free_clusters += clusters;
		if ((r + 1) * region >= s->blocks)
			break;
	}
	for (uint64_t b = s->blocks; b < end; b++) { /* the last unit's part that is not there is owned */
		s->bits[b / WORD] |= 1ull << (b % WORD);
		s->unit_used[b / s->unit_blocks]++;
	}
}

int bs_space_arrays(struct bs_space *s, uint64_t from, bool stale)
{
	uint64_t words = round_up(s->blocks, MAX((uint64_t)s->unit_blocks, WORD)) / WORD;

	s->n_regions = div_round_up(words, s->region_words);
	s->n_units = div_round_up(words * WORD, s->unit_blocks);
	s->bits = base_calloc(words, sizeof(*s->bits));
	s->region_free = base_calloc(s->n_regions, sizeof(*s->region_free));
	s->unit_used = base_calloc(s->n_units, sizeof(*s->unit_used));
	if (!s->bits || !s->region_free || !s->unit_used)
		return -ENOMEM;
	if (stale) {
		s->stale = base_calloc(words, sizeof(*s->stale));
		s->stale_region = base_calloc(s->n_regions, sizeof(*s->stale_region));
		if (!s->stale || !s->stale_region)
			return -ENOMEM;
	}
	count_free(s, from);
	return 0;
}

static void own_cluster_of(struct bs *bs, uint64_t block)
{
	bs_space_own(bs->space, round_down(block, bs->cluster_blocks), bs->cluster_blocks);
}

int bs_space_create(struct bs *bs)
{
	struct bs_space *s = base_calloc(1, sizeof(*s));
	uint32_t unit = le32_get(bs->sb.segment_blocks);

	if (!s)
		return -ENOMEM;
	pthread_mutex_init(&s->lock, NULL);
	bs->space = s;
	s->blocks = round_down(bs->blocks, bs->cluster_blocks);
	s->unit_blocks = is_pow2(unit) && unit >= WORD && unit <= 4096 ? unit : WORD;
	s->region_words = (uint32_t)(MAX(region_blocks(s->blocks), s->unit_blocks) / WORD);
	s->cluster_blocks = bs->cluster_blocks;
	for (uint32_t i = 0; i < WORD; i += bs->cluster_blocks)
		s->lead |= 1ull << i;
	if (bs_space_arrays(s, 0, bs->flags & BS_DISCARD && bdev_info(bs->dev)->discard)) {
		bs_space_destroy(bs);
		return -ENOMEM;
	}
	own_cluster_of(bs, 0);
	own_cluster_of(bs, BS_SB_COPY_BLOCK);
	for (unsigned i = 0; i < BS_STREAMS; i++)
		s->stream[i].region = s->n_regions;
	return 0;
}

void bs_space_destroy(struct bs *bs)
{
	struct bs_space *s = bs->space;

	if (!s)
		return;
	bs_space_drop_batches(s);
	pthread_mutex_destroy(&s->lock);
	free(s->bits);
	free(s->stale);
	free(s->stale_region);
	free(s->region_free);
	free(s->unit_used);
	free(s);
	bs->space = NULL;
}

int bs_space_claim(struct bs *bs, uint64_t block, uint64_t count, uint64_t *bad)
{
	struct bs_space *s = bs->space;
	uint64_t hit;

	*bad = block;
	if (!count || block >= bs->blocks || count > bs->blocks - block)
		return -EUCLEAN;
	if (block + count > s->blocks) { /* the tail that is less than a cluster is nobody's */
		*bad = s->blocks;
		return -EUCLEAN;
	}
	pthread_mutex_lock(&s->lock);
	hit = first_set(s, block, block + count);
	if (hit == block + count)
		bs_space_own(s, block, count);
	pthread_mutex_unlock(&s->lock);
	*bad = hit;
	return hit == block + count ? 0 : -EUCLEAN;
}

int bs_space_claim_meta(struct bs *bs, uint64_t block, uint64_t count, uint64_t *bad)
{
	return bs_space_claim(bs, block, count, bad);
}

/* ---- allocation ---- */

static bool open_elsewhere(const struct bs_space *s, unsigned stream, uint64_t region)
{
	for (unsigned i = 0; i < BS_STREAMS; i++)
		if (i != stream && s->stream[i].region == region)
			return true;
	return false;
}

/* Opens the emptiest region, to within a sixteenth; of equals the next in order; one that another
 * stream has open only if there is nothing else. */
static bool open_region(struct bs_space *s, unsigned stream)
{
	uint64_t best = s->n_regions, from = s->stream[stream].region;
	uint32_t full = s->region_words * (uint32_t)__builtin_popcountll(s->lead), best_score = 0;

	for (uint64_t k = 1; k <= s->n_regions; k++) {
		uint64_t r = (from + k) % s->n_regions;
		uint32_t score;

		if (!s->region_free[r])
			continue;
		score = open_elsewhere(s, stream, r)
				? 1
				: 2 + (uint32_t)((uint64_t)s->region_free[r] * 16 / full);
		if (score > best_score) {
			best_score = score;
			best = r;
		}
	}
	if (best == s->n_regions)
		return false;
	s->stream[stream].region = best;
	s->stream[stream].pos = best * s->region_words * WORD;
	return true;
}

/* Takes a run of up to want free clusters from the stream's frontier on. */
static uint64_t take_run(struct bs_space *s, unsigned stream, uint64_t want, uint64_t *block)
{
	uint32_t cb = s->cluster_blocks;

	for (;;) {
		uint64_t region = s->stream[stream].region, end, got;

		if (region < s->n_regions && s->region_free[region]) {
			end = MIN((region + 1) * s->region_words * WORD, s->blocks);
			*block = first_free(s, s->stream[stream].pos, end);
			if (*block < end) {
				end = MIN(end, *block + want * cb);
				got = (first_set(s, *block, end) - *block) / cb;
				bs_space_own(s, *block, got * cb);
				s->stream[stream].pos = *block + got * cb;
				return got;
			}
		}
		if (!open_region(s, stream))
			return 0;
	}
}

/* What is held for the blob goes first: the caller's own he gets back. */
static void consume(struct bs_space *s, struct bs_place_req *req, uint64_t used, uint64_t held)
{
	held = MIN(used, held);
	s->reserved -= used;
	req->blob->held -= held;
	req->claims -= held;
	req->reserved -= used - held;
}

int bs_space_alloc(struct bs *bs, struct bs_place_req *req, uint64_t want, uint64_t extra,
		   uint64_t *block, uint64_t *got)
{
	struct bs_space *s = bs->space;
	unsigned i = (unsigned)req->stream < BS_STREAMS ? req->stream : BS_STREAM_UNKNOWN;
	uint64_t avail, held, reserved;

	pthread_mutex_lock(&s->lock);
	held = MIN(req->blob->held, MIN(req->claims, want));
	reserved = held + MIN(req->reserved, want - held);
	assert(reserved <= s->reserved);
	avail = s->free_clusters > s->reserved - reserved
			? s->free_clusters - (s->reserved - reserved)
			: 0;
	/* A reservation holds even if the log or a checkpoint had to take more than was foreseen. */
	if (avail < reserved)
		avail = MIN(reserved, s->free_clusters);
	*got = avail ? take_run(s, i, MIN(want + extra, avail), block) : 0;
	consume(s, req, MIN(*got, reserved), held);
	pthread_mutex_unlock(&s->lock);
	return *got ? 0 : -ENOSPC;
}

bool bs_space_take_block(struct bs *bs, uint64_t block)
{
	struct bs_space *s = bs->space;
	bool was_free = false;

	pthread_mutex_lock(&s->lock);
	if (block < s->blocks && !(s->bits[block / WORD] >> (block % WORD) & 1)) {
		bs_space_own(s, block, 1);
		was_free = true;
	}
	pthread_mutex_unlock(&s->lock);
	return was_free;
}

int bs_space_alloc_meta(struct bs *bs, uint64_t blocks, bool must, uint64_t *block)
{
	struct bs_space *s = bs->space;
	uint64_t n;
	int rc = -ENOSPC;

	assert(blocks == s->unit_blocks);
	pthread_mutex_lock(&s->lock);
	n = must || s->free_clusters >= s->reserved + blocks / s->cluster_blocks ? s->n_units : 0;
	for (uint64_t k = 0; k < n; k++) {
		uint64_t u = (s->unit_hint + k) % s->n_units;

		if (s->unit_used[u])
			continue;
		s->unit_hint = u;
		*block = u * blocks;
		bs_space_own(s, *block, blocks);
		rc = 0;
		break;
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

void bs_space_free_meta(struct bs *bs, uint64_t block, uint64_t count)
{
	pthread_mutex_lock(&bs->space->lock);
	bs_space_clear(bs->space, block, count);
	bs_space_stale(bs->space, block, count);
	pthread_mutex_unlock(&bs->space->lock);
}

void bs_space_free_now(struct bs *bs, uint64_t block, uint64_t count)
{
	pthread_mutex_lock(&bs->space->lock);
	bs_space_clear(bs->space, block, count);
	pthread_mutex_unlock(&bs->space->lock);
}

bool bs_space_is_free(struct bs *bs, uint64_t block, uint64_t count)
{
	struct bs_space *s = bs->space;
	uint64_t end;
	bool free;

	pthread_mutex_lock(&s->lock);
	end = MIN(block + count, s->blocks);
	free = block < end && first_set(s, block, end) == end;
	pthread_mutex_unlock(&s->lock);
	return free;
}

/* ---- reservations ---- */

int bs_space_reserve(struct bs *bs, uint64_t clusters)
{
	struct bs_space *s = bs->space;
	int rc = -ENOSPC;

	pthread_mutex_lock(&s->lock);
	if (s->free_clusters >= s->reserved && s->free_clusters - s->reserved >= clusters) {
		s->reserved += clusters;
		rc = 0;
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

/* held >= what is really needed, which a claim counts once at least: so either held reaches the claims, or it grows as the need does. */
int bs_blob_claim(struct bs_blob *blob, bool more)
{
	struct bs_space *s = blob->bs->space;
	int rc = 0;

	pthread_mutex_lock(&s->lock);
	if (blob->held < blob->claims + more) {
		if (s->free_clusters > s->reserved) {
			s->reserved++;
			blob->held++;
		} else {
			rc = -ENOSPC;
		}
	}
	if (!rc)
		blob->claims += more;
	pthread_mutex_unlock(&s->lock);
	return rc;
}

void bs_blob_claim_also(struct bs_blob *blob)
{
	struct bs_space *s = blob->bs->space;

	pthread_mutex_lock(&s->lock);
	blob->claims++;
	pthread_mutex_unlock(&s->lock);
}

void bs_blob_unclaim(struct bs_blob *blob, uint64_t claims, bool trim)
{
	struct bs_space *s = blob->bs->space;

	pthread_mutex_lock(&s->lock);
	assert(claims <= blob->claims);
	blob->claims -= claims;
	if (trim && blob->held > blob->claims) {
		assert(blob->held - blob->claims <= s->reserved);
		s->reserved -= blob->held - blob->claims;
		blob->held = blob->claims;
	}
	pthread_mutex_unlock(&s->lock);
}

void bs_space_hold_again(struct bs_blob *blob, uint64_t clusters, uint64_t claims)
{
	struct bs_space *s = blob->bs->space;

	pthread_mutex_lock(&s->lock);
	s->reserved += clusters;
	blob->held += clusters;
	blob->claims += claims;
	pthread_mutex_unlock(&s->lock);
}

void bs_space_unreserve(struct bs *bs, uint64_t clusters)
{
	struct bs_space *s = bs->space;

	pthread_mutex_lock(&s->lock);
	assert(clusters <= s->reserved);
	s->reserved -= clusters;
	pthread_mutex_unlock(&s->lock);
}

void bs_space_get_stat(struct bs *bs, struct bs_stat *st)
{
	struct bs_space *s = bs->space;

	pthread_mutex_lock(&s->lock);
	st->free_blocks = s->free_clusters * bs->cluster_blocks;
	st->avail_blocks = s->free_clusters > s->reserved
				   ? (s->free_clusters - s->reserved) * bs->cluster_blocks
				   : 0;
	st->pending_blocks = s->pending;
	pthread_mutex_unlock(&s->lock);
}

void bs_space_rereserve(struct bs *bs, uint64_t clusters)
{
	pthread_mutex_lock(&bs->space->lock);
	bs->space->reserved += clusters;
	pthread_mutex_unlock(&bs->space->lock);
}

uint64_t bs_space_avail(struct bs *bs)
{
	struct bs_space *s = bs->space;
	uint64_t avail;

	pthread_mutex_lock(&s->lock);
	avail = s->free_clusters > s->reserved ? s->free_clusters - s->reserved : 0;
	pthread_mutex_unlock(&s->lock);
	return avail;
}
