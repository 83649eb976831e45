/* SPDX-License-Identifier: BSD-2-Clause */
/* Scrubbing: what cannot be read is found and named exactly; what can be read is read once. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/dma.h"
#include "blob/device.h"
#include "test/unit/blob/kit.h"

struct seen {
	struct bs_scrub_finding f[16];
	unsigned n, calls, end_at;
};

static void see(const struct bs_scrub_finding *f, void *arg)
{
	struct seen *s = arg;

	if (s->n < ARRAY_SIZE(s->f))
		s->f[s->n] = *f;
	s->n++;
}

static int count(const struct bs_scrub_result *so_far, void *arg)
{
	struct seen *s = arg;

	EXPECT_LE_INT(so_far->findings, 16);
	return ++s->calls == s->end_at;
}

static int scrub(struct bs *bs, uint64_t rate, struct seen *seen, struct bs_scrub_result *res)
{
	struct bs_scrub_opts opts = { .size = sizeof(opts), .rate = rate, .found = see, .progress = count, .arg = seen };

	return bs_scrub(bs, &opts, res);
}

static uint64_t place_of(struct bs_blob *blob, uint64_t block)
{
	struct bs_extent e;

	bs_map_lookup(blob, block, 1, &e);
	return e.phys;
}

static void spoil(struct kit *kit, uint64_t block)
{
	struct bdev_fault f = { .kind = BDEV_FAULT_ERROR, .op = BDEV_READ, .count = UINT64_MAX, .lo = block * BS_BLOCK,
				.hi = (block + 1) * BS_BLOCK, .rc = -EIO };

	ASSERT_OK(bdev_fault_add(kit->dev, &f));
}

TEST(scrub, a_sound_store_is_read_wholly_and_once)
{
	struct kit kit;
	struct seen seen = { .n = 0 };
	struct bs_scrub_result res;
	struct bs_blob *a, *b;
	struct bs_txn *txn;
	uint64_t id;

	kit_open(&kit, NULL);
	a = kit_create(kit.bs);
	ASSERT_OK(kit_write(a, 0, 200, 1, 0));
	ASSERT_OK(kit_write(a, 5000, 60, 2, 0));
	ASSERT_OK(kit_prealloc(kit.bs, a, 300, 40));
	ASSERT_OK(bs_snapshot(kit.bs, &a, 1, true, &id));
	ASSERT_OK(bs_checkpoint(kit.bs));
	ASSERT_OK(scrub(kit.bs, 0, &seen, &res));
	EXPECT_EQ_INT(0, seen.n);
	EXPECT_EQ_INT(0, res.findings);
	EXPECT_EQ_INT(260 * BS_BLOCK, res.done_bytes);
	EXPECT_EQ_INT(300 * BS_BLOCK, res.total_bytes);
	EXPECT_LE_INT(4 * BS_BLOCK, res.meta_bytes); /* two superblocks, an index, a leaf */
	/* One of the two writes some: only that is read besides. */
	ASSERT_OK(kit_write(a, 10, 3, 3, 0));
	ASSERT_OK(scrub(kit.bs, 0, &seen, &res));
	EXPECT_EQ_INT(263 * BS_BLOCK, res.done_bytes);
	b = bs_blob_get(kit.bs, id);
	ASSERT_OK(bs_txn_begin(kit.bs, BS_TXN_FREES, &txn));
	ASSERT_OK(bs_txn_delete(txn, a));
	ASSERT_OK(bs_txn_delete(txn, b));
	bs_txn_end(txn);
	bs_blob_put(a);
	bs_blob_put(b);
	ASSERT_OK(scrub(kit.bs, 0, &seen, &res));
	EXPECT_EQ_INT(0, res.done_bytes);
	kit_close(&kit);
}

TEST(scrub, blocks_that_cannot_be_read_are_named_one_by_one)
{
	struct kit kit;
	struct seen seen = { .n = 0 };
	struct bs_scrub_result res;
	struct bs_blob *a, *b;

	kit_open(&kit, &(struct kit_opts){ .fault = true });
	a = kit_create(kit.bs);
	b = kit_create(kit.bs);
	ASSERT_OK(kit_write(a, 0, 100, 1, 0));
	ASSERT_OK(kit_write(b, 7, 100, 2, 0));
	spoil(&kit, place_of(a, 17));
	spoil(&kit, place_of(b, 106));
	ASSERT_OK(scrub(kit.bs, 0, &seen, &res));
	ASSERT_EQ_INT(2, seen.n);
	EXPECT_EQ_INT(2, res.findings);
	for (unsigned i = 0; i < 2; i++) {
		struct bs_blob *blob = i ? b : a;
		uint64_t block = i ? 106 : 17;

		EXPECT_EQ_INT(BS_SCRUB_DATA, seen.f[i].what);
		EXPECT_EQ_INT(-EIO, seen.f[i].rc);
		EXPECT_EQ_INT(bs_blob_id(blob), seen.f[i].blob);
		EXPECT_EQ_INT(block * BS_BLOCK, seen.f[i].offset);
		EXPECT_EQ_INT(place_of(blob, block), seen.f[i].block);
	}
	bdev_fault_clear(kit.dev);
	bs_blob_put(a);
	bs_blob_put(b);
	kit_close(&kit);
}

TEST(scrub, a_bad_shared_block_is_told_of_each_blob_that_has_it)
{
	struct kit kit;
	struct seen seen = { .n = 0 };
	struct bs_scrub_result res;
	struct bs_blob *a;
	uint64_t id;

	kit_open(&kit, &(struct kit_opts){ .fault = true });
	a = kit_create(kit.bs);
	ASSERT_OK(kit_write(a, 0, 50, 1, 0));
	ASSERT_OK(bs_snapshot(kit.bs, &a, 1, true, &id));
	spoil(&kit, place_of(a, 31));
	ASSERT_OK(scrub(kit.bs, 0, &seen, &res));
	ASSERT_EQ_INT(2, seen.n);
	EXPECT_EQ_INT(bs_blob_id(a), seen.f[0].blob);
	EXPECT_EQ_INT(id, seen.f[1].blob);
	EXPECT_EQ_INT(seen.f[0].block, seen.f[1].block);
	bdev_fault_clear(kit.dev);
	bs_blob_put(a);
	kit_close(&kit);
}

/* What a store in use does between two reads. */
struct meanwhile {
	struct seen seen;
	struct bs_blob *blob;
	struct kit *kit;
	bool done;
};

static void see_meanwhile(const struct bs_scrub_finding *f, void *arg)
{
	see(f, &((struct meanwhile *)arg)->seen);
}

static int scrub_beside(struct meanwhile *m, int (*progress)(const struct bs_scrub_result *, void *), struct bs_scrub_result *res)
{
	struct bs_scrub_opts opts = { .size = sizeof(opts), .rate = 64 * MiB, .found = see_meanwhile, .progress = progress, .arg = m };

	return bs_scrub(m->kit->bs, &opts, res);
}

static int write_at_900(const struct bs_scrub_result *so_far, void *arg)
{
	struct meanwhile *m = arg;

	if (so_far->done_bytes && !m->done)
		ASSERT_OK(kit_write(m->blob, 900, 1, 9, 0));
	m->done |= so_far->done_bytes != 0;
	return 0;
}

/* One of the two has other blocks by the time it is read: those it had are not taken for read. */
TEST(scrub, a_bad_shared_block_is_found_though_one_that_had_it_has_been_written_meanwhile)
{
	struct meanwhile m = { .done = false };
	struct bs_scrub_result res;
	struct bs_extent e;
	struct kit kit;
	uint64_t id;

	kit_open(&kit, &(struct kit_opts){ .fault = true });
	m.kit = &kit;
	m.blob = kit_create(kit.bs);
	for (uint64_t b = 0; b < 1024; b += 256)
		ASSERT_OK(kit_write(m.blob, b, 256, 1, 0));
	bs_map_lookup(m.blob, 0, 1024, &e);
	ASSERT_EQ_INT(1024, e.count);
	ASSERT_OK(bs_snapshot(kit.bs, &m.blob, 1, true, &id));
	spoil(&kit, place_of(m.blob, 900));
	ASSERT_OK(scrub_beside(&m, write_at_900, &res));
	EXPECT_TRUE(m.done);
	ASSERT_EQ_INT(1, m.seen.n);
	EXPECT_EQ_INT(id, m.seen.f[0].blob);
	EXPECT_EQ_INT(900 * BS_BLOCK, m.seen.f[0].offset);
	bdev_fault_clear(kit.dev);
	bs_blob_put(m.blob);
	kit_close(&kit);
}

static int grow_and_share(const struct bs_scrub_result *so_far, void *arg)
{
	struct meanwhile *m = arg;
	struct base_err err = { "" };
	struct bs_extent e;
	uint64_t id;

	if (!so_far->done_bytes || m->done)
		return 0;
	m->done = true;
	ASSERT_OK(bs_grow(m->kit->bs, 0, &err));
	m->blob = kit_create(m->kit->bs);
	for (uint64_t b = 0; b < 60 * 256; b += 256)
		ASSERT_OK(kit_write(m->blob, b, 256, 2, 0));
	bs_map_lookup(m->blob, 60 * 256 - 1, 1, &e);
	ASSERT_GT_INT(e.phys, 48 * MiB / BS_BLOCK);
	ASSERT_OK(bs_snapshot(m->kit->bs, &m->blob, 1, true, &id));
	spoil(m->kit, e.phys);
	return 0;
}

TEST(scrub, what_a_store_that_grows_meanwhile_shares_is_read_too)
{
	struct meanwhile m = { .done = false };
	struct bs_scrub_result res;
	struct bs_blob *a;
	struct kit kit;
	uint64_t id;

	kit_open(&kit, &(struct kit_opts){ .fault = true, .size = 128 * MiB, .store_size = 48 * MiB });
	m.kit = &kit;
	a = kit_create(kit.bs);
	ASSERT_OK(kit_write(a, 0, 256, 1, 0));
	ASSERT_OK(kit_write(a, 256, 256, 1, 0));
	ASSERT_OK(bs_snapshot(kit.bs, &a, 1, true, &id));
	ASSERT_OK(scrub_beside(&m, grow_and_share, &res));
	EXPECT_TRUE(m.done);
	EXPECT_GE_INT(res.done_bytes, (512 + 60 * 256) * BS_BLOCK);
	EXPECT_LE_INT(res.done_bytes, (512 + 61 * 256) * BS_BLOCK); /* what cannot be read is read for each that has it */
	EXPECT_EQ_INT(2, m.seen.n);
	bdev_fault_clear(kit.dev);
	bs_blob_put(a);
	bs_blob_put(m.blob);
	kit_close(&kit);
}

TEST(scrub, damaged_metadata_is_found_in_a_store_in_use)
{
	struct kit kit;
	struct seen seen = { .n = 0 };
	struct bs_scrub_result res;
	uint64_t root;

	kit_open(&kit, NULL);
	bs_blob_put(kit_create(kit.bs));
	ASSERT_OK(bs_checkpoint(kit.bs));
	root = le64_get(kit.bs->sb.ckpt_root);
	kit_flip(kit.dev, root, 700);
	kit_flip(kit.dev, BS_SB_COPY_BLOCK, 100);
	ASSERT_OK(scrub(kit.bs, 0, &seen, &res));
	ASSERT_EQ_INT(2, seen.n);
	EXPECT_EQ_INT(BS_SCRUB_SUPER, seen.f[0].what);
	EXPECT_EQ_INT(BS_SB_COPY_BLOCK, seen.f[0].block);
	EXPECT_EQ_INT(BS_SCRUB_PAGE, seen.f[1].what);
	EXPECT_EQ_INT(root, seen.f[1].block);
	EXPECT_EQ_INT(-EUCLEAN, seen.f[1].rc);
	/* The next checkpoint writes all of it anew. */
	bs_blob_put(kit_create(kit.bs));
	ASSERT_OK(bs_checkpoint(kit.bs));
	memset(&seen, 0, sizeof(seen));
	ASSERT_OK(scrub(kit.bs, 0, &seen, &res));
	EXPECT_EQ_INT(0, seen.n);
	kit_close(&kit);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

TEST(scrub, it_keeps_to_its_rate_and_can_be_ended)
{
	struct kit kit;
	struct seen seen = { .n = 0 };
	struct bs_scrub_result res;
	struct bs_blob *a;
	double start;

	kit_open(&kit, NULL);
	a = kit_create(kit.bs);
	for (uint64_t i = 0; i < 8; i++)
		ASSERT_OK(kit_write(a, i * 256, 256, 1, 0));
	start = seconds();
	ASSERT_OK(scrub(kit.bs, 32 * MiB, &seen, &res)); /* 8 MiB and some metadata */
	EXPECT_GE_INT((int)((seconds() - start) * 1000), 245);
	EXPECT_EQ_INT(8 * MiB, res.done_bytes);
	seen = (struct seen){ .end_at = 4 };
	EXPECT_ERR(-ECANCELED, scrub(kit.bs, 1 * MiB, &seen, &res));
	EXPECT_EQ_INT(4, seen.calls);
	EXPECT_LT_INT(res.done_bytes, 8 * MiB);
	bs_blob_put(a);
	kit_close(&kit);
}

TEST(scrub, without_memory_it_says_so_and_leaves_nothing)
{
	struct kit kit;
	struct seen seen = { .n = 0 };
	struct bs_scrub_result res;
	struct bs_blob *a;
	uint64_t id;
	int rc = -ENOMEM;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	a = kit_create(kit.bs);
	ASSERT_OK(kit_write(a, 0, 250, 1, 0));
	ASSERT_OK(bs_snapshot(kit.bs, &a, 1, true, &id));
	for (uint64_t n = 1; n < 200 && rc; n++) {
		base_fail_alloc_after(n);
		rc = scrub(kit.bs, 0, &seen, &res);
		base_fail_alloc_after(0);
		EXPECT_TRUE(!rc || rc == -ENOMEM);
	}
	EXPECT_OK(rc);
	EXPECT_EQ_INT(0, seen.n);
	bs_blob_put(a);
	kit_close(&kit);
}
