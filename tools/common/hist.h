/* SPDX-License-Identifier: BSD-2-Clause */
/* A histogram of durations: exact below 256, within 1 % above. */
#ifndef TOOLS_HIST_H
#define TOOLS_HIST_H

#include <stdint.h>

#define HIST_LOG 7u /* of the slots in which each power of two is cut */
#define HIST_SLOTS ((64u - HIST_LOG + 1u) << HIST_LOG)

struct hist {
	uint64_t n, sum, max;
	uint64_t slot[HIST_SLOTS];
};

static inline unsigned hist_slot(uint64_t v)
{
	unsigned shift;

	if (v < 2u << HIST_LOG)
		return (unsigned)v;
	shift = 63u - (unsigned)__builtin_clzll(v) - HIST_LOG;
	return (shift << HIST_LOG) + (unsigned)(v >> shift);
}

static inline void hist_add(struct hist *h, uint64_t v)
{
	h->n++;
	h->sum += v;
	h->max = v > h->max ? v : h->max;
	h->slot[hist_slot(v)]++;
}

void hist_merge(struct hist *to, const struct hist *from);
/* The value that `part` (0 … 1) of the others do not exceed; 0 when there is none. */
uint64_t hist_quantile(const struct hist *h, double part);

#endif
