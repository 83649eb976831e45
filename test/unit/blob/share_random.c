/* SPDX-License-Identifier: BSD-2-Clause */
/* Many blobs that share blocks, against arrays: each block is full of one byte. */
#include <stdlib.h>
#include <string.h>

#include "blob/share.h"
#include "test/unit/blob/share_kit.h"

#define BLOBS 12u
#define BLOCKS 240u

struct one {
	struct bs_blob *blob; /* NULL: none */
	bool sealed;
	uint8_t byte[BLOCKS];
};
struct world {
	struct kit kit;
	uint64_t seed;
	struct one one[BLOBS];
};

static void compare(const struct one *o)
{
	uint8_t *buf = dma_alloc(BLOCKS * BS_BLOCK, BS_BLOCK), want[BS_BLOCK];

	ASSERT_OK(kit_read(o->blob, 0, BLOCKS, buf));
	for (uint64_t b = 0; b < BLOCKS; b++) {
		memset(want, o->byte[b], sizeof(want));
		ASSERT_EQ_MEM(want, buf + b * BS_BLOCK, BS_BLOCK);
	}
	dma_free(buf);
}

static void compare_all(struct world *w)
{
	for (unsigned i = 0; i < BLOBS; i++)
		if (w->one[i].blob)
			compare(&w->one[i]);
	share_check(w->kit.bs);
}

static struct one *pick(struct world *w, bool there)
{
	unsigned from = kit_rand(&w->seed, BLOBS);

	for (unsigned i = 0; i < BLOBS; i++) {
		struct one *o = &w->one[(from + i) % BLOBS];

		if ((o->blob != NULL) == there)
			return o;
	}
	return NULL;
}

static void change_data(struct world *w, struct one *o)
{
	uint32_t block = kit_rand(&w->seed, BLOCKS), count = 1 + kit_rand(&w->seed, kit_rand(&w->seed, 4) ? 6 : 80);
	uint8_t byte = (uint8_t)(1 + kit_rand(&w->seed, 255));
	uint32_t what = kit_rand(&w->seed, 10);

	if (o->sealed)
		return;
	count = MIN(count, BLOCKS - block);
	if (what < 7) {
		ASSERT_OK(kit_write(o->blob, block, count, byte, what ? 0 : BS_IO_NEW));
	} else if (what < 8) {
		ASSERT_OK(kit_unmap(o->blob, block, count));
		byte = 0;
	} else if (what < 9) {
		ASSERT_OK(kit_zero(o->blob, block, count));
		byte = 0;
	} else {
		ASSERT_OK(kit_prealloc(w->kit.bs, o->blob, block, count));
		return;
	}
	memset(o->byte + block, byte, count);
}

static void copy_range(struct world *w, struct one *from, struct one *to)
{
	uint32_t a = kit_rand(&w->seed, BLOCKS), b = kit_rand(&w->seed, BLOCKS), count = 1 + kit_rand(&w->seed, 60);

	count = MIN(count, BLOCKS - MAX(a, b));
	if (to->sealed || (from == to && a < b + count && b < a + count))
		return;
	ASSERT_OK(share_range(from->blob, a, to->blob, b, count));
	memmove(to->byte + b, from->byte + a, count);
}

/* Several at once; those that find no place in the array are deleted. */
static void group(struct world *w)
{
	struct bs_blob *blob[3];
	struct one *from[3], *o;
	uint64_t ids[3], n = 1 + kit_rand(&w->seed, 3);
	bool sealed = kit_rand(&w->seed, 2);

	for (uint64_t i = 0; i < n; i++) {
		from[i] = pick(w, true);
		if (!from[i])
			return;
		blob[i] = from[i]->blob;
	}
	ASSERT_OK(bs_snapshot(w->kit.bs, blob, n, sealed, ids));
	for (uint64_t i = 0; i < n; i++) {
		struct bs_blob *copy = bs_blob_get(w->kit.bs, ids[i]);

		ASSERT_TRUE(copy != NULL);
		o = pick(w, false);
		if (!o) {
			ASSERT_OK(kit_delete(w->kit.bs, copy));
			continue;
		}
		o->blob = copy;
		o->sealed = sealed;
		memcpy(o->byte, from[i]->byte, sizeof(o->byte));
	}
}

static void step(struct world *w)
{
	uint32_t what = kit_rand(&w->seed, 100);
	struct one *o = pick(w, what >= 5);

	if (!o)
		return;
	if (what < 5) {
		memset(o->byte, 0, sizeof(o->byte));
		o->sealed = false;
		o->blob = kit_create(w->kit.bs);
	} else if (what < 60) {
		change_data(w, o);
	} else if (what < 75) {
		group(w);
	} else if (what < 88) {
		copy_range(w, o, pick(w, true));
	} else if (what < 97) {
		ASSERT_OK(kit_delete(w->kit.bs, o->blob));
		o->blob = NULL;
	} else {
		ASSERT_OK(bs_checkpoint(w->kit.bs));
	}
}

/* What is found again is what there was, to the last run. */
static void reopen(struct world *w, bool crash)
{
	uint64_t id[BLOBS] = { 0 };
	uint8_t *dump, *again;
	size_t len, len2;

	dump = kit_dump(w->kit.bs, &len);
	ASSERT_OK(bs_commit(w->kit.bs, 0));
	for (unsigned i = 0; i < BLOBS; i++) {
		if (!w->one[i].blob)
			continue;
		id[i] = bs_blob_id(w->one[i].blob);
		bs_blob_put(w->one[i].blob);
	}
	kit_reopen(&w->kit, crash, 0);
	again = kit_dump(w->kit.bs, &len2);
	ASSERT_EQ_INT(len, len2);
	ASSERT_EQ_MEM(dump, again, len);
	for (unsigned i = 0; i < BLOBS; i++)
		w->one[i].blob = id[i] ? bs_blob_get(w->kit.bs, id[i]) : NULL;
	free(dump);
	free(again);
	compare_all(w);
}

static void random_sharing(uint32_t cluster_size, uint64_t steps)
{
	struct world *w = calloc(1, sizeof(*w));
	struct bs_stat st;

	w->seed = test_seed();
	kit_open(&w->kit, &(struct kit_opts){ .cluster_size = cluster_size });
	for (uint64_t i = 0; i < steps; i++) {
		step(w);
		if (i % 60 == 0)
			compare_all(w);
		if (i % 400 == 399)
			reopen(w, kit_rand(&w->seed, 2));
	}
	reopen(w, true);
	for (unsigned i = 0; i < BLOBS; i++)
		if (w->one[i].blob)
			ASSERT_OK(kit_delete(w->kit.bs, w->one[i].blob));
	share_check(w->kit.bs);
	bs_get_stat(w->kit.bs, &st);
	EXPECT_EQ_INT(0, st.used_blocks);
	EXPECT_EQ_INT(0, st.saved_blocks);
	EXPECT_EQ_INT(0, st.pending_blocks);
	kit_close(&w->kit);
	free(w);
}

TEST(blob_share_random, follows_arrays_with_clusters_of_a_block)
{
	random_sharing(4096, test_scaled(2500));
}

TEST(blob_share_random, follows_arrays_with_clusters_of_four_blocks)
{
	random_sharing(16384, test_scaled(2500));
}

TEST(blob_share_random, follows_arrays_with_clusters_of_sixteen_blocks)
{
	random_sharing(65536, test_scaled(2500));
}

/* ---- the tree of counts alone ---- */

#define PHYS 400u

static int gone(void *arg, uint64_t phys, uint64_t count)
{
	uint32_t *got = arg;

	for (uint64_t i = 0; i < count; i++)
		got[phys + i]++;
	return 0;
}

TEST(blob_share_random, counts_follow_an_array)
{
	uint32_t refs[PHYS + 1], before[PHYS], got[PHYS];
	uint64_t seed = test_seed(), len;
	struct bs bs = { .dev = NULL };

	ASSERT_OK(bs_share_create(&bs));
	for (uint32_t i = 0; i < PHYS; i++)
		refs[i] = 1;
	refs[PHYS] = 0;
	for (uint64_t n = 0; n < test_scaled(20000); n++) {
		uint32_t at = kit_rand(&seed, PHYS), count = 1 + kit_rand(&seed, MIN(PHYS - at, 40u));
		int ranges = 1 + (int)kit_rand(&seed, 3);

		if (kit_rand(&seed, 2)) {
			/* Prepared together, as one transaction does, and memory is short when they are counted. */
			for (int i = 0; i < ranges; i++)
				ASSERT_OK(bs_share_prepare(&bs, at, count));
			base_fail_alloc_after(1);
			for (int i = 0; i < ranges; i++)
				bs_share_inc(&bs, at, count);
			base_fail_alloc_after(0);
			bs_share_forget(&bs);
			for (uint32_t i = 0; i < count; i++)
				refs[at + i] += (uint32_t)ranges;
		} else {
			memcpy(before, refs, sizeof(before));
			memset(got, 0, sizeof(got));
			ASSERT_OK(bs_share_dec(&bs, at, count, gone, got));
			for (uint32_t i = 0; i < PHYS; i++) {
				bool in = i >= at && i < at + count;

				ASSERT_EQ_INT(in && before[i] == 1, got[i]);
				refs[i] -= in && before[i] > 1; /* one that is gone is somebody's again */
			}
		}
		for (uint32_t i = 0; i < PHYS; i += (uint32_t)len) {
			ASSERT_EQ_INT(refs[i], bs_share_refs(&bs, i, PHYS - i, &len));
			for (uint64_t k = 0; k < len; k++)
				ASSERT_EQ_INT(refs[i], refs[i + k]);
			ASSERT_TRUE(i + len == PHYS || refs[i] != refs[i + len]);
		}
	}
	bs_share_destroy(&bs);
}
