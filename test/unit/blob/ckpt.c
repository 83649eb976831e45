/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/dma.h"
#include "base/util.h"
#include "blob/device.h"
#include "test/shim/test.h"
#include "test/unit/blob/rig.h"

#define SIZE (64 * MiB)

static void expect_checkpoint(struct rig *r, int rc)
{
	EXPECT_ERR(rc, bs_checkpoint(r->bs));
}

TEST(blob_ckpt, everything_comes_back_from_the_checkpoint_alone)
{
	struct bs_stat st;
	uint32_t digest;
	struct rig r;

	rig_make(&r, 256 * MiB, true);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 16 * MiB));
	for (unsigned i = 0; i < 400; i++)
		rig_create(&r, (uint8_t)i, i % 11 == 0 ? BS_VALUE_MAX - i : i);
	ASSERT_OK(bs_commit(r.bs, 0)); /* what is not yet sealed when it begins is replayed */
	ASSERT_OK(bs_checkpoint(r.bs));
	digest = rig_digest(&r);
	bs_get_stat(r.bs, &st);
	EXPECT_EQ_INT(st.lsn, st.checkpoint_lsn);
	rig_abandon(&r);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	EXPECT_EQ_INT(digest, rig_digest(&r));
	bs_get_stat(r.bs, &st);
	EXPECT_EQ_INT(0, st.replayed_records);
	EXPECT_EQ_INT(400, st.blobs);
	rig_drop(&r);
}

TEST(blob_ckpt, an_empty_store_has_an_empty_one)
{
	struct bs_sb_disk sb;
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, 0, 0));
	rig_delete(&r, rig_create(&r, 1, 10));
	ASSERT_OK(rig_close(&r));
	rig_super(&r, &sb);
	EXPECT_EQ_INT(0, le64_get(sb.ckpt_root));
	ASSERT_OK(rig_open(&r, 0, 0));
	EXPECT_EQ_INT(2, rig_create(&r, 1, 10)); /* ids are not used again */
	rig_drop(&r);
}

TEST(blob_ckpt, it_frees_the_log_and_the_one_before)
{
	struct bs_stat first, st;
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	rig_create(&r, 1, 60000);
	ASSERT_OK(bs_checkpoint(r.bs));
	bs_get_stat(r.bs, &first);
	for (unsigned i = 0; i < 50; i++) {
		rig_delete(&r, rig_create(&r, 2, 60000));
		ASSERT_OK(bs_checkpoint(r.bs));
		bs_get_stat(r.bs, &st);
		EXPECT_LT_INT(st.log_bytes, 256 * KiB);
	}
	EXPECT_EQ_INT(first.free_blocks, st.free_blocks);
	EXPECT_EQ_INT(51, st.checkpoints);
	rig_drop(&r);
}

TEST(blob_ckpt, closing_in_order_leaves_nothing_to_replay)
{
	struct bdev_stats before, after;
	struct bs_stat st;
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, 0, 0));
	for (unsigned i = 0; i < 100; i++)
		rig_create(&r, 1, 1000);
	ASSERT_OK(rig_close(&r));
	ASSERT_OK(rig_open(&r, 0, 0));
	bs_get_stat(r.bs, &st);
	EXPECT_EQ_INT(0, st.replayed_records);
	EXPECT_EQ_INT(100, st.blobs);
	bdev_get_stats(r.base, &before);
	ASSERT_OK(rig_close(&r)); /* nothing has changed: no checkpoint, only the mark */
	bdev_get_stats(r.base, &after);
	EXPECT_EQ_INT(before.writes + 2, after.writes);
	rig_drop(&r);
}

/* ---- failures ---- */

/* A store with something in its checkpoint and something in its log. */
static uint64_t prepare(struct rig *r)
{
	uint64_t id;

	rig_make(r, SIZE, true);
	ASSERT_OK(rig_open(r, BS_NO_SERVICE, 0));
	for (unsigned i = 0; i < 60; i++)
		rig_create(r, 1, 5000);
	ASSERT_OK(bs_checkpoint(r->bs));
	id = rig_create(r, 2, 1234);
	for (unsigned i = 0; i < 60; i++)
		rig_create(r, 1, 5000);
	ASSERT_OK(bs_commit(r->bs, 0));
	return id;
}

/* Writes and flushes that one checkpoint of such a store makes. */
static uint64_t calls_of_a_checkpoint(int op)
{
	uint64_t n;
	struct rig r;

	prepare(&r);
	n = bdev_fault_seen(r.fault, op);
	ASSERT_OK(bs_checkpoint(r.bs));
	n = bdev_fault_seen(r.fault, op) - n;
	rig_drop(&r);
	return n;
}

static void fail_at(int op, uint64_t which, enum bdev_fault_kind kind)
{
	struct bdev_fault f = { .kind = kind, .op = op, .first = which, .count = 1, .rc = -EIO };
	struct bs_stat before, st;
	uint32_t digest;
	struct rig r;
	uint64_t id = prepare(&r);

	test_note("%s %llu fails", op == BDEV_WRITE ? "write" : "flush", (unsigned long long)which);
	bs_get_stat(r.bs, &before);
	digest = rig_digest(&r);
	ASSERT_OK(bdev_fault_add(r.fault, &f));
	EXPECT_ERR(-EIO, bs_checkpoint(r.bs));
	bs_get_stat(r.bs, &st);
	if (!st.frozen) { /* it only cost the new pages */
		EXPECT_EQ_INT(before.checkpoint_lsn, st.checkpoint_lsn);
		EXPECT_EQ_INT(before.free_blocks, st.free_blocks);
		EXPECT_OK(bs_checkpoint(r.bs));
	}
	rig_abandon(&r);
	ASSERT_OK(rig_open(&r, 0, 0));
	EXPECT_EQ_INT(digest, rig_digest(&r));
	EXPECT_TRUE(rig_has(&r, id, 2, 1234));
	ASSERT_OK(rig_close(&r));
	ASSERT_OK(rig_open(&r, 0, 0));
	EXPECT_EQ_INT(digest, rig_digest(&r));
	rig_drop(&r);
}

TEST(blob_ckpt, a_failure_of_any_write_of_it_loses_nothing)
{
	uint64_t n = calls_of_a_checkpoint(BDEV_WRITE);

	ASSERT_GT_INT(n, 6); /* leaves, index, two superblocks */
	for (uint64_t i = 0; i < n; i++) {
		fail_at(BDEV_WRITE, i, BDEV_FAULT_ERROR);
		fail_at(BDEV_WRITE, i, BDEV_FAULT_SHORT);
	}
}

TEST(blob_ckpt, a_failure_of_any_flush_of_it_loses_nothing)
{
	uint64_t n = calls_of_a_checkpoint(BDEV_FLUSH);

	ASSERT_EQ_INT(3, n);
	for (uint64_t i = 0; i < n; i++)
		fail_at(BDEV_FLUSH, i, BDEV_FAULT_ERROR);
}

TEST(blob_ckpt, a_failed_superblock_write_freezes)
{
	struct bdev_fault f = { .kind = BDEV_FAULT_ERROR, .op = BDEV_WRITE, .count = 1, .hi = BS_BLOCK, .rc = -EIO };
	struct bs_stat st;
	struct rig r;

	prepare(&r);
	ASSERT_OK(bdev_fault_add(r.fault, &f));
	expect_checkpoint(&r, -EIO);
	bs_get_stat(r.bs, &st);
	EXPECT_TRUE(st.frozen);
	expect_checkpoint(&r, -EROFS);
	rig_drop(&r);
}

TEST(blob_ckpt, out_of_memory_in_it_loses_nothing)
{
	uint32_t digest;
	bool failed = true;
	struct rig r;

	prepare(&r);
	digest = rig_digest(&r);
	for (uint64_t n = 1; failed; n++) {
		int rc;

		ASSERT_LT_INT(n, 1000);
		test_note("allocation %llu fails", (unsigned long long)n);
		base_fail_alloc_after(n);
		rc = bs_checkpoint(r.bs);
		base_fail_alloc_after(0);
		failed = rc != 0;
		if (failed)
			EXPECT_ERR(-ENOMEM, rc);
		rig_create(&r, 1, 10); /* lest the next have nothing to do */
	}
	rig_abandon(&r);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	EXPECT_TRUE(digest != 0);
	rig_drop(&r);
}

TEST(blob_ckpt, out_of_memory_while_opening_leaves_nothing_behind)
{
	uint64_t id, n;
	int rc = -ENOMEM;
	struct rig r;

	id = prepare(&r);
	rig_abandon(&r);
	for (n = 1; rc; n++) {
		struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_NO_SERVICE };
		struct bdev *again;

		ASSERT_LT_INT(n, 100000);
		ASSERT_OK(bdev_open(r.name, NULL, &again, NULL));
		base_fail_alloc_after(n);
		rc = bs_open(again, &opts, &r.bs, &r.err);
		base_fail_alloc_after(0);
		if (rc) {
			test_note("allocation %llu fails", (unsigned long long)n);
			EXPECT_ERR(-ENOMEM, rc);
			bdev_close(again);
		}
	}
	EXPECT_GT_INT(n, 100);
	EXPECT_TRUE(rig_has(&r, id, 2, 1234));
	rig_drop(&r);
}

TEST(blob_ckpt, an_unreadable_block_is_an_error_of_opening_and_no_more)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_NO_SERVICE };
	uint64_t id, n, failed = 0;
	int rc = -EIO;
	struct rig r;

	id = prepare(&r);
	rig_abandon(&r);
	for (n = 2; rc; n++) { /* the first two are the superblock and its copy */
		struct bdev_fault f = { .kind = BDEV_FAULT_ERROR, .op = BDEV_READ, .first = n, .count = UINT64_MAX, .rc = -EIO };
		struct bdev *again;

		ASSERT_LT_INT(n, 100);
		ASSERT_OK(bdev_open(r.name, NULL, &again, NULL));
		ASSERT_OK(bdev_fault_create(again, &r.fault));
		ASSERT_OK(bdev_fault_add(r.fault, &f));
		rc = bs_open(r.fault, &opts, &r.bs, &r.err);
		if (rc) {
			failed++;
			EXPECT_ERR(-EIO, rc);
			EXPECT_TRUE(strstr(r.err.text, "cannot read") != NULL);
			bdev_close(r.fault);
		}
	}
	EXPECT_GE_INT(failed, 4); /* root, leaves, log, its successor */
	EXPECT_TRUE(rig_has(&r, id, 2, 1234));
	rig_drop(&r);
}

TEST(blob_ckpt, a_failed_flush_of_it_freezes)
{
	struct bdev_fault f = { .kind = BDEV_FAULT_ERROR, .op = BDEV_FLUSH, .count = 1, .rc = -EIO };
	struct bs_stat st;
	struct rig r;

	prepare(&r);
	ASSERT_OK(bdev_fault_add(r.fault, &f));
	expect_checkpoint(&r, -EIO);
	bs_get_stat(r.bs, &st);
	EXPECT_TRUE(st.frozen); /* data of others may have gone with it */
	rig_drop(&r);
}

/* ---- while the store runs ---- */

struct churn {
	struct rig *r;
	_Atomic bool stop;
	_Atomic unsigned serial;
	uint64_t committed[4]; /* last id each thread has committed, and must be there */
	_Atomic int failed;
};

static void *churner(void *arg)
{
	struct churn *c = arg;
	unsigned me = atomic_fetch_add(&c->serial, 1);
	uint64_t last = 0;

	while (!atomic_load(&c->stop)) {
		uint64_t id = rig_create(c->r, (uint8_t)me, 700);

		if (bs_commit(c->r->bs, 0)) {
			atomic_store(&c->failed, 1);
			break;
		}
		c->committed[me] = id;
		if (last)
			rig_delete(c->r, last);
		last = id;
	}
	return NULL;
}

TEST(blob_ckpt_threads, checkpoints_while_writers_run_are_right_at_any_crash)
{
	for (unsigned round = 0; round < 10; round++) {
		struct churn c = { .stop = false };
		pthread_t t[4];
		struct rig r;

		rig_make(&r, SIZE, true);
		ASSERT_OK(rig_open(&r, 0, 0));
		c.r = &r;
		for (unsigned i = 0; i < 300; i++)
			rig_create(&r, 9, 3000);
		for (unsigned i = 0; i < 4; i++)
			ASSERT_OK(pthread_create(&t[i], NULL, churner, &c));
		for (unsigned i = 0; i < 3 + round; i++)
			EXPECT_OK(bs_checkpoint(r.bs));
		atomic_store(&c.stop, true);
		for (unsigned i = 0; i < 4; i++)
			pthread_join(t[i], NULL);
		EXPECT_EQ_INT(0, atomic_load(&c.failed));
		rig_abandon(&r);
		ASSERT_OK(rig_open(&r, 0, 0));
		for (unsigned i = 0; i < 4; i++)
			EXPECT_TRUE(!c.committed[i] || rig_has(&r, c.committed[i], (uint8_t)i, 700));
		for (uint64_t id = 1; id <= 300; id++)
			EXPECT_TRUE(rig_has(&r, id, 9, 3000));
		EXPECT_OK(rig_close(&r));
		EXPECT_EQ_INT(0, bs_check(r.base, NULL, NULL, NULL, &r.err));
		rig_drop(&r);
	}
}

/* ---- damage ---- */

struct problems {
	unsigned n;
	struct bs_problem first;
};

static void note_problem(const struct bs_problem *p, void *arg)
{
	struct problems *all = arg;

	if (!all->n++)
		all->first = *p;
}

static int check(struct rig *r, struct problems *all)
{
	memset(all, 0, sizeof(*all));
	return bs_check(r->base, note_problem, all, NULL, &r->err);
}

static void smash(struct rig *r, uint64_t block)
{
	uint8_t *buf = dma_alloc(BS_BLOCK, BS_BLOCK);

	rig_read(r, block, buf, 1);
	buf[3000] ^= 0x40;
	rig_write(r, block, buf, 1);
	dma_free(buf);
}

TEST(blob_check, a_sound_store_has_no_problems)
{
	struct problems all;
	struct rig r;

	prepare(&r);
	rig_abandon(&r);
	EXPECT_EQ_INT(0, check(&r, &all));
	ASSERT_OK(rig_open(&r, 0, 0));
	ASSERT_OK(rig_close(&r));
	EXPECT_EQ_INT(0, check(&r, &all));
	rig_drop(&r);
}

TEST(blob_check, damage_is_found_and_named_by_block)
{
	struct problems all;
	struct bs_sb_disk sb;
	struct rig r;

	prepare(&r);
	rig_abandon(&r);
	rig_super(&r, &sb);
	smash(&r, le64_get(sb.ckpt_root));
	EXPECT_GT_INT(check(&r, &all), 0);
	EXPECT_STREQ("checkpoint", all.first.pass);
	EXPECT_EQ_INT(le64_get(sb.ckpt_root), all.first.block);
	EXPECT_ERR(-EUCLEAN, rig_open(&r, 0, 0));
	smash(&r, le64_get(sb.ckpt_root));
	smash(&r, BS_SB_COPY_BLOCK);
	EXPECT_EQ_INT(1, check(&r, &all));
	EXPECT_STREQ("superblock-copy", all.first.code);
	EXPECT_EQ_INT(BS_SB_COPY_BLOCK, all.first.block);
	EXPECT_OK(rig_open(&r, 0, 0)); /* which mends it */
	EXPECT_OK(rig_close(&r));
	EXPECT_EQ_INT(0, check(&r, &all));
	rig_drop(&r);
}

TEST(blob_check, a_damaged_checkpoint_does_not_hide_a_damaged_log)
{
	struct bs_sb_disk sb;
	struct problems all;
	struct rig r;

	prepare(&r);
	rig_abandon(&r);
	rig_super(&r, &sb);
	smash(&r, le64_get(sb.ckpt_root));
	ASSERT_EQ_INT(1, check(&r, &all));
	smash(&r, le64_get(sb.log_segment));
	EXPECT_EQ_INT(2, check(&r, &all));
	EXPECT_STREQ("checkpoint", all.first.pass);
	rig_drop(&r);
}

TEST(blob_check, a_copy_from_another_store_is_found)
{
	struct problems all;
	struct bs_sb_disk *sb = dma_alloc(sizeof(*sb), BS_BLOCK);
	struct rig r, other;

	rig_make(&other, SIZE, true);
	rig_read(&other, BS_SB_COPY_BLOCK, sb, 1);
	prepare(&r);
	rig_abandon(&r);
	rig_write(&r, BS_SB_COPY_BLOCK, sb, 1);
	EXPECT_EQ_INT(1, check(&r, &all));
	EXPECT_EQ_INT(BS_SB_COPY_BLOCK, all.first.block);
	rig_drop(&r);
	rig_drop(&other);
	dma_free(sb);
}

TEST(blob_check, it_writes_nothing_and_hands_over_the_store)
{
	struct bdev_stats before, after;
	struct bdev *again;
	struct bs *bs;
	struct rig r;

	prepare(&r);
	rig_abandon(&r);
	bdev_get_stats(r.base, &before);
	ASSERT_OK(bdev_open(r.name, NULL, &again, NULL));
	ASSERT_EQ_INT(0, bs_check(again, NULL, NULL, &bs, &r.err));
	ASSERT_TRUE(bs != NULL);
	EXPECT_OK(bs_close(bs));
	bdev_get_stats(r.base, &after);
	EXPECT_EQ_INT(before.writes, after.writes);
	rig_drop(&r);
}

/* Two blobs whose runs name the same block: the log's frame that maps the second is changed. */
TEST(blob_check, a_block_that_two_own_is_found)
{
	struct bs_frame_disk *f = dma_alloc(BS_BLOCK, BS_BLOCK);
	struct bs_log_pos at;
	struct bs_extent a;
	struct problems all;
	struct bs_blob *blob;
	struct bs_rec rec;
	uint64_t one, two;
	uint8_t *p;
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	one = rig_create(&r, 1, 10);
	two = rig_create(&r, 1, 10);
	rig_fill(&r, one, 0, 1);
	ASSERT_OK(bs_commit(r.bs, 0));
	bs_log_get_pos(r.bs, &at);
	rig_fill(&r, two, 0, 1);
	ASSERT_OK(bs_commit(r.bs, 0));
	blob = bs_blob_get(r.bs, one);
	bs_map_lookup(blob, 0, 1, &a);
	bs_blob_put(blob);
	rig_abandon(&r);
	rig_read(&r, at.segment + at.offset, f, 1);
	p = (uint8_t *)(f + 1);
	while (bs_rec_decode(p, BS_BLOCK, SIZE / BS_BLOCK, &rec) > 0 && rec.kind != BS_KIND_RUN)
		p += bs_rec_size(rec.len);
	ASSERT_EQ_INT(BS_KIND_RUN, rec.kind);
	ASSERT_EQ_INT(two, rec.blob);
	p[sizeof(struct bs_rec_disk) + 5] = (uint8_t)a.phys;
	p[sizeof(struct bs_rec_disk) + 6] = (uint8_t)(a.phys >> 8);
	f->crc = le32_make(bs_crc_skip(bs_crc_seed(at.nonce, at.seq, at.segment + at.offset), f, BS_BLOCK,
				       offsetof(struct bs_frame_disk, crc)));
	rig_write(&r, at.segment + at.offset, f, 1);
	EXPECT_ERR(-EUCLEAN, rig_open(&r, 0, 0));
	EXPECT_EQ_INT(1, check(&r, &all));
	EXPECT_STREQ("run-overlap", all.first.code);
	EXPECT_EQ_INT(a.phys, all.first.block);
	EXPECT_EQ_INT(two, all.first.blob);
	rig_drop(&r);
	dma_free(f);
}
