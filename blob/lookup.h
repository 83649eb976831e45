/* SPDX-License-Identifier: BSD-2-Clause */
/* Finding a run as data I/O does, which is why it is inline and written for few instructions. */
#ifndef BLOB_LOOKUP_H
#define BLOB_LOOKUP_H

#include <string.h>

#include "blob/internal.h"

/* A run's first word is ordered by its logical block, and at most this where that is at most block. */
static inline uint64_t bs_run_word(const struct bs_run *r)
{
	uint64_t w;

	memcpy(&w, r, sizeof(w));
	return w;
}

/* The run that has block; NULL: it is in a hole. */
static inline const struct bs_run *bs_runmap_at(const struct bs_runmap *map, uint64_t block)
{
	const struct bs_chunk *c = RB_ROOT(&map->chunks), *best = NULL;
	const uint64_t most = (block + 1) * (1ull << 24) - 1;
	const struct bs_run *r, *end;

	/* Two loops, so that not both children are loaded to take one. */
	while (c) {
		while (bs_run_word(c->run) <= most) {
			best = c;
			c = RB_RIGHT(c, node);
			if (!c)
				goto found;
		}
		c = RB_LEFT(c, node);
	}
found:
	if (__builtin_expect(!best, 0))
		return map->runs == 1 && block - map->one.logical < map->one.count ? &map->one : NULL;
	/* The last one that starts at or before block; the first does. */
	r = best->run;
	end = r + best->n;
	static_assert(BS_CHUNK_RUNS == 256, "the steps reach the last run");
#pragma GCC unroll 8
	for (int n = 128; n; n /= 2)
		if (r + n < end && bs_run_word(r + n) <= most)
			r += n;
	return block - r->logical < r->count ? r : NULL;
}

#endif
