/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of blobs by id. */
#include <errno.h>
#include <stdlib.h>

#include "test/unit/blob/kit.h"

static struct bs_blob *find(const struct bs_idtable *t, uint64_t id, unsigned *steps)
{
	struct bs_blob *b = *bs_idtable_bucket(t, id);

	for (*steps = 1; b && b->id != id; b = b->same_bucket)
		++*steps;
	return b;
}

static struct bs_blob *blobs_new(unsigned n, uint64_t first, uint64_t stride)
{
	struct bs_blob *b = calloc(n, sizeof(*b));

	for (unsigned i = 0; b && i < n; i++)
		b[i].id = first + i * stride;
	return b;
}

#define MANY 100000u

/* Inserts many of such ids, and takes half of them out again. The longest chain. */
static unsigned fill_table(uint64_t first, uint64_t stride)
{
	struct bs_blob *b = blobs_new(MANY, first, stride);
	unsigned steps, longest = 0;
	struct bs_idtable t;

	if (!b || bs_idtable_init(&t))
		FAIL("no memory");
	for (unsigned i = 0; i < MANY; i++) {
		ASSERT_TRUE(!find(&t, b[i].id, &steps));
		bs_idtable_insert(&t, &b[i], i);
	}
	EXPECT_GE_INT(t.buckets, MANY);
	for (unsigned i = 0; i < MANY; i++) {
		ASSERT_TRUE(find(&t, b[i].id, &steps) == &b[i]);
		longest = MAX(longest, steps);
	}
	for (unsigned i = 0; i < MANY; i += 2)
		bs_idtable_remove(&t, &b[i]);
	for (unsigned i = 0; i < MANY; i++)
		ASSERT_TRUE(find(&t, b[i].id, &steps) == (i % 2 ? &b[i] : NULL));
	bs_idtable_destroy(&t);
	free(b);
	return longest;
}

/* A key that happens to suit these ids badly is one of hundreds. */
static void fill(uint64_t first, uint64_t stride)
{
	unsigned longest = fill_table(first, stride);

	for (unsigned again = 0; longest > 30 && again < 3; again++)
		longest = fill_table(first, stride);
	EXPECT_LE_INT(longest, 30);
}

TEST(blob_idtable, finds_neighbours)
{
	fill(1, 1);
}

TEST(blob_idtable, finds_ids_chosen_to_fall_into_one_bucket)
{
	fill(5, BS_IDTABLE_SEGMENT);
	fill(7, 1ull << 20);
	fill(0, 1ull << 40);
}

TEST(blob_idtable, without_memory_it_goes_on_with_longer_chains)
{
	enum { N = 4 * BS_IDTABLE_SEGMENT };
	struct bs_blob *b = blobs_new(N, 1, 1);
	struct bs_idtable t;
	unsigned steps;

	ASSERT_TRUE(b);
	base_fail_allocs_from(1);
	EXPECT_ERR(-ENOMEM, bs_idtable_init(&t));
	bs_idtable_destroy(&t);
	base_fail_allocs_from(2);
	EXPECT_ERR(-ENOMEM, bs_idtable_init(&t));
	bs_idtable_destroy(&t);
	base_fail_allocs_from(0);
	ASSERT_OK(bs_idtable_init(&t));
	base_fail_allocs_from(1);
	for (unsigned i = 0; i < N / 2; i++)
		bs_idtable_insert(&t, &b[i], i);
	base_fail_allocs_from(0);
	EXPECT_EQ_INT(BS_IDTABLE_SEGMENT, t.buckets);
	for (unsigned i = N / 2; i < N; i++)
		bs_idtable_insert(&t, &b[i], i);
	EXPECT_GT_INT(t.buckets, BS_IDTABLE_SEGMENT);
	for (unsigned i = 0; i < N; i++)
		ASSERT_TRUE(find(&t, b[i].id, &steps) == &b[i]);
	bs_idtable_destroy(&t);
	free(b);
}
