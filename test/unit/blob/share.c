/* SPDX-License-Identifier: BSD-2-Clause */
/* Blobs that share blocks: what each reads, who counts what, and when a block is free. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blob/share.h"
#include "test/unit/blob/share_kit.h"

static uint64_t used(struct bs *bs)
{
	struct bs_stat st;

	ASSERT_OK(bs_reclaim(bs));
	bs_get_stat(bs, &st);
	EXPECT_EQ_INT(0, st.pending_blocks);
	return st.used_blocks;
}

static void expect_usage(struct bs_blob *blob, uint64_t exclusive, uint64_t shared)
{
	struct bs_usage u;

	bs_blob_get_usage(blob, &u);
	EXPECT_EQ_INT(exclusive, u.exclusive);
	EXPECT_EQ_INT(shared, u.shared);
}

TEST(blob_share, a_clone_reads_the_same_and_neither_sees_what_is_written_to_the_other)
{
	struct bs_blob *a, *b;
	struct kit kit;

	kit_open(&kit, NULL);
	a = kit_create(kit.bs);
	ASSERT_OK(kit_write(a, 0, 10, 1, 0));
	ASSERT_OK(kit_write(a, 20, 5, 2, 0));
	b = share_clone(a, false);
	EXPECT_EQ_INT(1, kit_byte(b, 9));
	EXPECT_EQ_INT(0, kit_byte(b, 10));
	EXPECT_EQ_INT(2, kit_byte(b, 24));
	EXPECT_EQ_INT(15, used(kit.bs));
	expect_usage(a, 0, 15);
	expect_usage(b, 0, 15);
	ASSERT_OK(kit_write(a, 3, 1, 7, 0));
	ASSERT_OK(kit_write(b, 4, 2, 8, 0));
	ASSERT_OK(kit_unmap(b, 20, 5));
	EXPECT_EQ_INT(7, kit_byte(a, 3));
	EXPECT_EQ_INT(1, kit_byte(b, 3));
	EXPECT_EQ_INT(1, kit_byte(a, 4));
	EXPECT_EQ_INT(8, kit_byte(b, 5));
	EXPECT_EQ_INT(2, kit_byte(a, 20));
	EXPECT_EQ_INT(0, kit_byte(b, 20));
	EXPECT_EQ_INT(18, used(kit.bs));
	expect_usage(a, 8, 7);
	expect_usage(b, 3, 7);
	share_check(kit.bs);
	bs_blob_put(a);
	bs_blob_put(b);
	kit_close(&kit);
}

TEST(blob_share, a_block_is_free_when_the_last_one_has_let_it_go_in_any_order)
{
	static const uint8_t order[][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };
	struct bs_blob *blob[3];
	struct kit kit;

	kit_open(&kit, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		test_note("order %zu", i);
		blob[0] = kit_create(kit.bs);
		ASSERT_OK(kit_write(blob[0], 0, 100, 1, 0));
		blob[1] = share_clone(blob[0], true);
		ASSERT_OK(kit_write(blob[0], 50, 10, 2, 0));
		blob[2] = share_clone(blob[1], false);
		ASSERT_OK(kit_write(blob[2], 0, 10, 3, 0));
		EXPECT_EQ_INT(120, used(kit.bs));
		for (int k = 0; k < 3; k++) {
			share_check(kit.bs);
			ASSERT_OK(kit_delete(kit.bs, blob[order[i][k]]));
			used(kit.bs);
		}
		EXPECT_EQ_INT(0, used(kit.bs));
		share_check(kit.bs);
	}
	kit_close(&kit);
}

TEST(blob_share, what_is_unwritten_is_a_hole_in_the_copy)
{
	struct bs_blob *a, *b;
	struct bs_extent e;
	struct kit kit;

	kit_open(&kit, NULL);
	a = kit_create(kit.bs);
	ASSERT_OK(kit_prealloc(kit.bs, a, 0, 8));
	ASSERT_OK(kit_write(a, 2, 2, 1, 0));
	b = share_clone(a, false);
	bs_map_lookup(b, 0, 8, &e);
	EXPECT_EQ_INT(BS_RUN_HOLE, e.flags);
	EXPECT_EQ_INT(2, e.count);
	bs_map_lookup(b, 2, 8, &e);
	EXPECT_EQ_INT(BS_RUN_SHARED, e.flags);
	EXPECT_EQ_INT(2, e.count);
	/* The source's stay where they are. */
	bs_map_lookup(a, 4, 8, &e);
	EXPECT_EQ_INT(BS_RUN_UNWRITTEN, e.flags);
	ASSERT_OK(kit_write(a, 4, 1, 5, 0));
	EXPECT_EQ_INT(0, kit_byte(b, 4));
	expect_usage(a, 6, 2);
	share_check(kit.bs);
	bs_blob_put(a);
	bs_blob_put(b);
	kit_close(&kit);
}

TEST(blob_share, zeroing_a_shared_range_leaves_the_other_its_bytes)
{
	struct bs_blob *a, *b;
	struct kit kit;

	kit_open(&kit, NULL);
	a = kit_create(kit.bs);
	ASSERT_OK(kit_write(a, 0, 10, 1, 0));
	b = share_clone(a, false);
	ASSERT_OK(kit_write(a, 4, 2, 2, 0));
	ASSERT_OK(kit_zero(a, 2, 6));
	for (uint64_t i = 0; i < 10; i++) {
		EXPECT_EQ_INT(i >= 2 && i < 8 ? 0 : 1, kit_byte(a, i));
		EXPECT_EQ_INT(1, kit_byte(b, i));
	}
	share_check(kit.bs);
	bs_blob_put(a);
	bs_blob_put(b);
	kit_close(&kit);
}

TEST(blob_share, a_range_goes_to_another_place_of_the_same_blob)
{
	struct bs_blob *a;
	struct bs_txn *txn;
	struct kit kit;

	kit_open(&kit, NULL);
	a = kit_create(kit.bs);
	for (uint8_t i = 0; i < 20; i++)
		ASSERT_OK(kit_write(a, i, 1, (uint8_t)(i + 1), 0));
	EXPECT_OK(share_range(a, 0, a, 30, 10));
	EXPECT_OK(share_range(a, 5, a, 15, 5));
	EXPECT_EQ_INT(1, kit_byte(a, 30));
	EXPECT_EQ_INT(6, kit_byte(a, 15));
	EXPECT_EQ_INT(25 + 0, used(kit.bs) + 10);
	ASSERT_OK(kit_write(a, 5, 1, 99, 0));
	EXPECT_EQ_INT(6, kit_byte(a, 35));
	EXPECT_EQ_INT(6, kit_byte(a, 15));
	share_check(kit.bs);
	EXPECT_ERR(-EINVAL, share_range(a, 0, a, 9, 10));
	EXPECT_ERR(-EINVAL, share_range(a, 9, a, 0, 10));
	/* Its map as it was before the transaction is what is shared. */
	ASSERT_OK(bs_share_quiesce(kit.bs, &a, 1));
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	ASSERT_OK(bs_txn_unmap(txn, a, 0, 1));
	EXPECT_ERR(-EINVAL, bs_txn_share(txn, a, 0, a, 100, 1));
	bs_txn_cancel(txn);
	bs_share_end(a, true);
	bs_blob_put(a);
	kit_close(&kit);
}

TEST(blob_share, a_sealed_blob_keeps_its_data_and_its_size)
{
	struct bs_blob *a, *s;
	struct bs_blob_info info;
	struct bs_txn *txn;
	struct kit kit;
	uint64_t id;

	kit_open(&kit, NULL);
	a = kit_create(kit.bs);
	ASSERT_OK(kit_write(a, 0, 4, 1, 0));
	s = share_clone(a, true);
	EXPECT_ERR(-EROFS, kit_write(s, 0, 1, 9, 0));
	EXPECT_ERR(-EROFS, kit_unmap(s, 0, 1));
	EXPECT_ERR(-EROFS, kit_zero(s, 0, 1));
	EXPECT_ERR(-EROFS, kit_prealloc(kit.bs, s, 9, 1));
	EXPECT_ERR(-EROFS, share_range(a, 0, s, 0, 4));
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	EXPECT_ERR(-EROFS, bs_txn_header(txn, s, 17, NULL, 0));
	EXPECT_OK(bs_txn_header(txn, s, 0, "me", 2));
	bs_txn_end(txn);
	id = bs_blob_id(s);
	bs_blob_put(a);
	bs_blob_put(s);
	kit_reopen(&kit, false, 0);
	s = bs_blob_get(kit.bs, id);
	ASSERT_TRUE(s != NULL);
	bs_blob_get_info(s, &info);
	EXPECT_TRUE(info.sealed);
	EXPECT_EQ_MEM("me", info.user, 2);
	EXPECT_ERR(-EROFS, kit_write(s, 0, 1, 9, 0));
	EXPECT_EQ_INT(1, kit_byte(s, 3));
	/* Nothing can be overwritten in it: it can be shared at once. */
	a = kit_create(kit.bs);
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	EXPECT_OK(bs_txn_share(txn, s, 0, a, 0, UINT64_MAX));
	bs_txn_end(txn);
	ASSERT_OK(kit_delete(kit.bs, s));
	EXPECT_EQ_INT(4, used(kit.bs));
	share_check(kit.bs);
	bs_blob_put(a);
	kit_close(&kit);
}

TEST(blob_share, nothing_is_shared_while_a_write_in_place_is_on_its_way)
{
	struct bs_blob *a, *b;
	struct bs_extent e, before;
	struct bs_txn *txn;
	struct kit_io k;
	struct kit kit;
	void *buf = dma_zalloc(BS_BLOCK, BS_BLOCK);

	kit_open(&kit, NULL);
	a = kit_create(kit.bs);
	ASSERT_OK(kit_write(a, 0, 4, 1, 0));
	bs_map_lookup(a, 0, 4, &before);
	kit_start(&k, a, BS_WRITE, 1, 1, buf);
	bs_share_begin(a);
	bs_map_lookup(a, 0, 4, &e);
	EXPECT_EQ_INT(BS_RUN_SHARED, e.flags);
	ASSERT_OK(kit_write(a, 2, 1, 3, 0));
	bs_map_lookup(a, 2, 1, &e);
	EXPECT_EQ_INT(before.phys + 2, e.phys); /* not held yet */
	b = kit_create(kit.bs);
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	EXPECT_ERR(-EAGAIN, bs_txn_share(txn, a, 0, b, 0, 4));
	bs_txn_cancel(txn);
	bs_share_hold(a);
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	EXPECT_ERR(-EAGAIN, bs_txn_share(txn, a, 0, b, 0, 4));
	bs_txn_cancel(txn);
	ASSERT_OK(kit_write(a, 2, 1, 4, 0));
	bs_map_lookup(a, 2, 1, &e);
	EXPECT_NE_INT(before.phys + 2, e.phys); /* held */
	EXPECT_OK(kit_wait(&k));
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	EXPECT_OK(bs_txn_share(txn, a, 0, b, 0, 4));
	bs_txn_end(txn);
	bs_share_end(a, true);
	EXPECT_EQ_INT(1, kit_byte(b, 0));
	EXPECT_EQ_INT(0, kit_byte(b, 1));
	EXPECT_EQ_INT(4, kit_byte(b, 2));
	bs_map_lookup(a, 0, 1, &e);
	EXPECT_EQ_INT(BS_RUN_SHARED, e.flags);
	share_check(kit.bs);
	bs_blob_put(a);
	bs_blob_put(b);
	kit_close(&kit);
	dma_free(buf);
}

/* What is unwritten is written where it is though it is held; the one that is done first publishes it under the other. */
TEST(blob_share, nothing_is_shared_while_a_second_write_to_an_unwritten_block_is_on_its_way)
{
	struct bs_blob *a, *b;
	struct bs_txn *txn;
	struct kit_io k;
	struct kit kit;
	void *buf = dma_zalloc(4 * BS_BLOCK, BS_BLOCK);

	kit_open(&kit, NULL);
	a = kit_create(kit.bs);
	b = kit_create(kit.bs);
	ASSERT_OK(kit_prealloc(kit.bs, a, 0, 16));
	ASSERT_OK(bs_share_quiesce(kit.bs, &a, 1));
	kit_start(&k, a, BS_WRITE, 4, 4, buf);
	ASSERT_OK(kit_write(a, 6, 4, 1, 0));
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	EXPECT_ERR(-EAGAIN, bs_txn_share(txn, a, 0, b, 0, 16));
	EXPECT_ERR(-EAGAIN, bs_txn_share(txn, a, 7, b, 0, 1));
	EXPECT_OK(bs_txn_share(txn, a, 0, b, 0, 6));
	EXPECT_OK(bs_txn_share(txn, a, 8, b, 8, 8));
	bs_txn_cancel(txn);
	EXPECT_OK(kit_wait(&k));
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	EXPECT_OK(bs_txn_share(txn, a, 0, b, 0, 16));
	bs_txn_end(txn);
	bs_share_end(a, true);
	EXPECT_EQ_INT(0, kit_byte(b, 4));
	EXPECT_EQ_INT(1, kit_byte(b, 8));
	share_check(kit.bs);
	bs_blob_put(a);
	bs_blob_put(b);
	kit_close(&kit);
	dma_free(buf);
}

TEST(blob_share, a_write_on_its_way_does_not_come_back_over_what_was_shared_there)
{
	struct bs_blob *a, *b;
	struct kit_io k;
	struct kit kit;
	void *buf = dma_zalloc(4 * BS_BLOCK, BS_BLOCK);
	struct bs_txn *txn;

	kit_open(&kit, NULL);
	a = kit_create(kit.bs);
	ASSERT_OK(kit_write(a, 0, 4, 1, 0));
	b = share_clone(a, true);
	kit_start(&k, a, BS_WRITE, 0, 4, buf); /* to a new place */
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	ASSERT_OK(bs_txn_share(txn, b, 1, a, 0, 2));
	bs_txn_end(txn);
	EXPECT_OK(kit_wait(&k));
	EXPECT_EQ_INT(1, kit_byte(a, 0));
	EXPECT_EQ_INT(1, kit_byte(a, 1));
	EXPECT_EQ_INT(0, kit_byte(a, 2));
	EXPECT_EQ_INT(0, kit_byte(a, 3));
	share_check(kit.bs);
	bs_blob_put(a);
	bs_blob_put(b);
	kit_close(&kit);
	dma_free(buf);
}

TEST(blob_share, many_blobs_are_copied_in_one_transaction_with_their_items)
{
	struct bs_blob *blob[40], *copy;
	uint64_t ids[40];
	struct bs_stat st;
	char value[16];
	struct kit kit;

	kit_open(&kit, NULL);
	for (uint64_t i = 0; i < 40; i++) {
		blob[i] = kit_create(kit.bs);
		ASSERT_OK(kit_put(kit.bs, blob[i], i, "value", 5));
		ASSERT_OK(kit_write(blob[i], i, 3, (uint8_t)(i + 1), 0));
	}
	ASSERT_OK(bs_snapshot(kit.bs, blob, 40, true, ids));
	for (uint64_t i = 0; i < 40; i++) {
		ASSERT_OK(kit_write(blob[i], i, 3, 200, 0));
		copy = bs_blob_get(kit.bs, ids[i]);
		ASSERT_TRUE(copy != NULL);
		EXPECT_EQ_INT((int)i + 1, kit_byte(copy, i + 2));
		EXPECT_EQ_INT(5, bs_item_get(copy, BS_KIND_USER, i, value, sizeof(value)));
		bs_blob_put(copy);
		bs_blob_put(blob[i]);
	}
	bs_get_stat(kit.bs, &st);
	EXPECT_EQ_INT(80, st.blobs);
	share_check(kit.bs);
	kit_close(&kit);
}

TEST(blob_share, what_does_not_fit_into_a_transaction_is_refused_and_changes_nothing)
{
	struct bs_blob *a;
	struct bs_stat before, after;
	uint64_t id, n = 20000; /* runs: 320 KB, in a transaction of at most 256 KiB */
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .cluster_size = 4096, .size = 160 * MiB, .checkpoint_bytes = 1 });
	a = kit_create(kit.bs);
	for (uint64_t i = 0; i < n; i++)
		ASSERT_OK(kit_write(a, 2 * i, 1, 1, 0));
	bs_get_stat(kit.bs, &before);
	EXPECT_ERR(-E2BIG, bs_snapshot(kit.bs, &a, 1, false, &id));
	bs_get_stat(kit.bs, &after);
	EXPECT_EQ_INT(before.blobs, after.blobs);
	EXPECT_EQ_INT(0, after.saved_blocks);
	EXPECT_OK(kit_write(a, 0, 1, 2, 0));
	EXPECT_OK(kit_delete(kit.bs, a));
	EXPECT_EQ_INT(0, used(kit.bs));
	kit_close(&kit);
}

TEST(blob_share, without_memory_a_snapshot_changes_nothing)
{
	struct bs_blob *a, *copy;
	struct bs_stat before, after;
	uint64_t id = 0;
	struct kit kit;
	int rc = -ENOMEM, fails = 0;

	kit_open(&kit, NULL);
	a = kit_create(kit.bs);
	for (uint64_t i = 0; i < 300; i++)
		ASSERT_OK(kit_write(a, 2 * i, 1, 1, 0));
	ASSERT_OK(kit_put(kit.bs, a, 1, "item", 4));
	bs_get_stat(kit.bs, &before);
	for (int i = 1; rc && i < 5000; i++) {
		base_fail_alloc_after(i);
		rc = bs_snapshot(kit.bs, &a, 1, false, &id);
		base_fail_alloc_after(0);
		if (!rc)
			break;
		ASSERT_ERR(-ENOMEM, rc);
		fails++;
		bs_get_stat(kit.bs, &after);
		ASSERT_EQ_INT(before.lsn, after.lsn);
		ASSERT_EQ_INT(before.blobs, after.blobs);
		share_check(kit.bs);
	}
	EXPECT_OK(rc);
	EXPECT_GT_INT(fails, 10);
	copy = bs_blob_get(kit.bs, id);
	ASSERT_TRUE(copy != NULL);
	share_check(kit.bs);
	bs_blob_put(a);
	bs_blob_put(copy);
	kit_close(&kit);
}

TEST(blob_share, without_memory_to_free_it_a_block_stays_owned_until_the_store_is_opened_again)
{
	struct bs_blob *a, *b;
	struct bs_stat st;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	a = kit_create(kit.bs);
	ASSERT_OK(kit_write(a, 0, 100, 1, 0));
	b = share_clone(a, false);
	ASSERT_OK(kit_unmap(a, 10, 20));
	ASSERT_OK(kit_delete(kit.bs, b));
	ASSERT_OK(bs_commit(kit.bs, 0));
	for (int i = 0; i < 4; i++) {
		base_fail_alloc_after(1);
		bs_space_release(kit.bs);
		base_fail_alloc_after(0);
	}
	ASSERT_OK(kit_delete(kit.bs, a));
	EXPECT_EQ_INT(0, used(kit.bs));
	kit_reopen(&kit, true, 0);
	EXPECT_EQ_INT(0, used(kit.bs));
	bs_get_stat(kit.bs, &st);
	EXPECT_EQ_INT(0, st.saved_blocks);
	share_check(kit.bs);
	kit_close(&kit);
}

TEST(blob_share, on_a_full_store_a_shared_block_cannot_be_written_until_a_copy_is_deleted)
{
	struct bs_blob *a, *b;
	uint64_t n = 0;
	struct kit kit;
	int rc;

	kit_open(&kit, NULL);
	a = kit_create(kit.bs);
	while (!(rc = kit_write(a, n, 64, 1, 0)))
		n += 64;
	ASSERT_ERR(-ENOSPC, rc);
	while (!(rc = kit_write(a, n, 1, 1, 0)))
		n++;
	b = share_clone(a, true);
	EXPECT_ERR(-ENOSPC, kit_write(a, 0, 1, 2, 0));
	EXPECT_EQ_INT(1, kit_byte(a, 0));
	/* What nobody else has is given back. */
	ASSERT_OK(kit_unmap(a, 0, n));
	EXPECT_ERR(-ENOSPC, kit_write(a, 0, 1, 2, 0));
	ASSERT_OK(kit_delete(kit.bs, b));
	EXPECT_OK(kit_write(a, 0, 64, 2, 0));
	EXPECT_EQ_INT(64, used(kit.bs));
	share_check(kit.bs);
	bs_blob_put(a);
	kit_close(&kit);
}
