/* SPDX-License-Identifier: BSD-2-Clause */
#include "tools/common/hist.h"

#include "base/util.h"

void hist_merge(struct hist *to, const struct hist *from)
{
	to->n += from->n;
	to->sum += from->sum;
	to->max = MAX(to->max, from->max);
	for (unsigned i = 0; i < HIST_SLOTS; i++)
		to->slot[i] += from->slot[i];
}

/* The greatest value of a slot. */
static uint64_t top_of(unsigned slot)
{
	unsigned shift;

	if (slot < 2u << HIST_LOG)
		return slot;
	shift = (slot >> HIST_LOG) - 1;
	return ((((uint64_t)slot & ((1u << HIST_LOG) - 1)) + (1u << HIST_LOG) + 1) << shift) - 1;
}

uint64_t hist_quantile(const struct hist *h, double part)
{
	double want = part * (double)h->n;
	uint64_t seen = 0;

	if (!h->n)
		return 0;
	for (unsigned i = 0; i < HIST_SLOTS; i++) {
		seen += h->slot[i];
		if (seen && (double)seen >= want)
			return MIN(top_of(i), h->max);
	}
	return h->max;
}
