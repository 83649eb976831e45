/* SPDX-License-Identifier: BSD-2-Clause */
/* The histogram of durations against the sorted values themselves. */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "test/shim/test.h"
#include "tools/common/hist.h"

static struct hist h;

TEST(tools_hist, an_empty_one_says_nothing)
{
	memset(&h, 0, sizeof(h));
	EXPECT_EQ_INT(0, hist_quantile(&h, 0.5));
	EXPECT_EQ_INT(0, hist_quantile(&h, 1));
}

TEST(tools_hist, small_values_are_exact)
{
	memset(&h, 0, sizeof(h));
	for (uint64_t v = 1; v <= 200; v++)
		hist_add(&h, v);
	EXPECT_EQ_INT(200, h.n);
	EXPECT_EQ_INT(200 * 201 / 2, h.sum);
	EXPECT_EQ_INT(100, hist_quantile(&h, 0.5));
	EXPECT_EQ_INT(198, hist_quantile(&h, 0.99));
	EXPECT_EQ_INT(200, hist_quantile(&h, 1));
}

TEST(tools_hist, slots_are_in_order_and_inside)
{
	unsigned last = 0;

	for (unsigned shift = 0; shift < 64; shift++) {
		uint64_t v = 1ull << shift;

		EXPECT_GE_INT(hist_slot(v), last);
		last = hist_slot(v + (v - 1));
		ASSERT_LT_INT(last, HIST_SLOTS);
	}
	EXPECT_EQ_INT(HIST_SLOTS - 1, hist_slot(UINT64_MAX));
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

TEST(tools_hist, quantiles_are_within_one_percent)
{
	enum { N = 20000 };
	static const double parts[] = { 0.01, 0.5, 0.9, 0.99, 0.999, 1 };
	static uint64_t v[N];
	static struct hist a, b;
	uint64_t seed = test_seed();

	memset(&a, 0, sizeof(a));
	memset(&b, 0, sizeof(b));
	for (unsigned i = 0; i < N; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		v[i] = seed >> 24 >> (seed >> 8 & 31);
		hist_add(i % 3 ? &a : &b, v[i]);
	}
	hist_merge(&a, &b);
	qsort(v, N, sizeof(v[0]), by_value);
	for (unsigned i = 0; i < ARRAY_SIZE(parts); i++) {
		uint64_t want = v[(unsigned)(parts[i] * N + 0.5) - 1], got = hist_quantile(&a, parts[i]);

		EXPECT_GE_INT(got, want);
		EXPECT_LE_INT(got - want, want / 100 + 1);
	}
	EXPECT_EQ_INT(v[N - 1], hist_quantile(&a, 1));
}
