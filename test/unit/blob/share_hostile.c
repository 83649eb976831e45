/* SPDX-License-Identifier: BSD-2-Clause */
/* Images whose runs share what they must not: found when the store is opened, and by the check. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "blob/device.h"
#include "blob/share.h"
#include "test/unit/blob/share_kit.h"

/* A record as only somebody else would write it. Memory is not to be trusted after it. */
static void put_run(struct bs_blob *blob, uint64_t logical, uint64_t phys, uint64_t count, unsigned flags)
{
	struct bs_run_disk disk;
	struct bs_run run;
	struct bs_rec rec = { .op = BS_REC_PUT,
			      .kind = BS_KIND_RUN,
			      .len = sizeof(disk),
			      .blob = blob->id,
			      .key = logical,
			      .value = &disk };
	struct bs_txn *txn;

	bs_run_set(&run, logical, phys, count, flags);
	bs_run_to_disk(&run, &disk);
	ASSERT_OK(bs_txn_begin(blob->bs, 0, &txn));
	ASSERT_OK(bs_txn_add(txn, &rec, 0));
	bs_txn_end(txn);
}

struct seen {
	char code[32];
	uint64_t blob;
	int n;
};

static void see(const struct bs_problem *p, void *arg)
{
	struct seen *s = arg;

	if (!s->n++) {
		snprintf(s->code, sizeof(s->code), "%s", p->code);
		s->blob = p->blob;
	}
}

/* After a crash the store is neither opened nor called sound. */
static void expect_refused(struct kit *kit, const char *code)
{
	struct bs_open_opts oo = { .size = sizeof(oo) };
	struct base_err err = { "" };
	struct seen seen = { .n = 0 };
	struct bdev *dev;
	struct bs *bs;

	ASSERT_OK(bs_commit(kit->bs, 0));
	bs_abandon(kit->bs);
	ASSERT_OK(bdev_open(kit->name, NULL, &dev, NULL));
	EXPECT_ERR(-EUCLEAN, bs_open(dev, &oo, &bs, &err));
	test_note("%s", err.text);
	EXPECT_EQ_INT(1, bs_check(dev, see, &seen, NULL, &err));
	EXPECT_STREQ(code, seen.code);
	EXPECT_NE_INT(0, seen.blob);
	bdev_close(dev);
	bdev_close(kit->keep);
}

static uint64_t place_of(struct bs_blob *blob, uint64_t block)
{
	struct bs_extent e;

	bs_map_lookup(blob, block, 1, &e);
	return e.phys;
}

/* Two blobs of ten blocks each, no service thread: nothing looks at memory behind our back. */
static void two(struct kit *kit, struct bs_blob **a, struct bs_blob **b)
{
	kit_open(kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	*a = kit_create(kit->bs);
	*b = kit_create(kit->bs);
	ASSERT_OK(kit_write(*a, 0, 10, 1, 0));
	ASSERT_OK(kit_write(*b, 0, 10, 2, 0));
}

TEST(blob_share_hostile, a_shared_run_over_one_that_is_not_is_corruption)
{
	struct bs_blob *a, *b;
	struct kit kit;

	two(&kit, &a, &b);
	put_run(b, 100, place_of(a, 9), 1, BS_RUN_SHARED);
	bs_blob_put(a);
	bs_blob_put(b);
	expect_refused(&kit, "run-overlap");
}

TEST(blob_share_hostile, two_runs_of_one_block_without_the_flag_are_corruption)
{
	struct bs_blob *a, *b;
	struct kit kit;

	two(&kit, &a, &b);
	put_run(b, 100, place_of(a, 0), 3, 0);
	bs_blob_put(a);
	bs_blob_put(b);
	expect_refused(&kit, "run-overlap");
}

TEST(blob_share_hostile, a_shared_run_over_the_log_is_corruption)
{
	struct bs_blob *a, *b;
	struct kit kit;

	two(&kit, &a, &b);
	put_run(b, 100, TAILQ_FIRST(&kit.bs->log->segments)->block + 5, 1, BS_RUN_SHARED);
	bs_blob_put(a);
	bs_blob_put(b);
	expect_refused(&kit, "run-overlap");
}

TEST(blob_share_hostile, a_flag_without_company_is_harmless)
{
	struct bs_blob *a, *b;
	struct bs_stat st;
	struct kit kit;
	uint64_t id;

	two(&kit, &a, &b);
	put_run(b, 0, place_of(b, 0), 10, BS_RUN_SHARED);
	id = bs_blob_id(b);
	bs_blob_put(a);
	bs_blob_put(b);
	ASSERT_OK(bs_commit(kit.bs, 0));
	kit_reopen(&kit, true, 0);
	b = bs_blob_get(kit.bs, id);
	ASSERT_TRUE(b != NULL);
	EXPECT_EQ_INT(2, kit_byte(b, 9));
	ASSERT_OK(kit_write(b, 9, 1, 3, 0));
	share_check(kit.bs);
	ASSERT_OK(kit_delete(kit.bs, b));
	ASSERT_OK(bs_reclaim(kit.bs));
	bs_get_stat(kit.bs, &st);
	EXPECT_EQ_INT(10, st.used_blocks);
	kit_close(&kit);
}

static void clear_feature(struct kit *kit)
{
	struct bs_sb_disk sb = kit->bs->sb;

	sb.incompat = le64_make(0);
	ASSERT_OK(bs_sb_write_sync(kit->dev, &sb));
	kit->bs->sb.incompat = le64_make(0);
}

TEST(blob_share_hostile, a_store_without_the_feature_refuses_to_share)
{
	struct bs_blob *a, *b;
	struct bs_txn *txn;
	struct kit kit;
	uint64_t id;

	two(&kit, &a, &b);
	clear_feature(&kit);
	EXPECT_ERR(-EOPNOTSUPP, bs_snapshot(kit.bs, &a, 1, true, &id));
	EXPECT_ERR(-EOPNOTSUPP, share_range(a, 0, b, 0, 1));
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	EXPECT_ERR(-EOPNOTSUPP, bs_txn_seal(txn, a, 0, NULL, 0));
	bs_txn_cancel(txn);
	bs_blob_put(a);
	bs_blob_put(b);
	kit_reopen(&kit, false, 0);
	kit_close(&kit);
}

TEST(blob_share_hostile, shared_runs_in_a_store_without_the_feature_are_corruption)
{
	struct bs_blob *a, *b, *c;
	struct kit kit;

	two(&kit, &a, &b);
	c = share_clone(a, false);
	clear_feature(&kit);
	bs_blob_put(a);
	bs_blob_put(b);
	bs_blob_put(c);
	expect_refused(&kit, "share-feature");
}

TEST(blob_share_hostile, an_unknown_feature_is_named)
{
	struct bs_open_opts oo = { .size = sizeof(oo) };
	struct base_err err = { "" };
	struct bs_sb_disk sb;
	struct bdev *dev;
	struct kit kit;
	struct bs *bs;

	kit_open(&kit, NULL);
	sb = kit.bs->sb;
	ASSERT_OK(bs_close(kit.bs));
	ASSERT_OK(bdev_open(kit.name, NULL, &dev, NULL));
	sb.incompat = le64_make(BS_INCOMPAT_KNOWN | (uint64_t)1 << 40);
	sb.generation = le64_make(le64_get(sb.generation) + 10);
	ASSERT_OK(bs_sb_write_sync(dev, &sb));
	EXPECT_ERR(-ENOTSUP, bs_open(dev, &oo, &bs, &err));
	EXPECT_TRUE(strstr(err.text, "0x10000000000") != NULL);
	bdev_close(dev);
	bdev_close(kit.keep);
}
