/* SPDX-License-Identifier: BSD-2-Clause */
/* Where blocks go, when they come back, and what is kept. Stores without a service thread: nothing
 * is freed unasked. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "test/unit/blob/kit.h"

static const struct kit_opts quiet = { .flags = BS_NO_SERVICE };

static uint64_t free_blocks(struct bs *bs)
{
	struct bs_stat st;

	bs_get_stat(bs, &st);
	return st.free_blocks;
}

static uint64_t pending_blocks(struct bs *bs)
{
	struct bs_stat st;

	bs_get_stat(bs, &st);
	return st.pending_blocks;
}

static uint64_t phys_of(struct bs_blob *blob, uint64_t block)
{
	struct bs_extent e;

	bs_map_lookup(blob, block, 1, &e);
	ASSERT_FALSE(e.flags & BS_RUN_HOLE);
	return e.phys;
}

static uint64_t runs_of(struct bs_blob *blob)
{
	struct bs_blob_info info;

	bs_blob_get_info(blob, &info);
	return info.runs;
}

static int write_stream(struct bs_blob *blob, uint64_t block, uint64_t count, enum bs_stream stream,
			uint64_t reserved)
{
	struct iovec iov = { dma_zalloc(count * BS_BLOCK, BS_BLOCK), count * BS_BLOCK };
	struct bs_io io = { .blob = blob,
			    .op = BS_WRITE,
			    .offset = block * BS_BLOCK,
			    .length = iov.iov_len,
			    .iov = &iov,
			    .iovcnt = 1,
			    .stream = stream,
			    .reserved = reserved };
	int rc = bs_io_sync(blob->bs, &io);

	dma_free(iov.iov_base);
	return rc;
}

/* ---- where ---- */

TEST(space, a_file_written_in_order_lies_in_few_long_runs_that_go_forward)
{
	struct bs_blob *blob;
	struct bs_run run[64];
	struct kit kit;
	unsigned n;

	kit_open(&kit, &(struct kit_opts){ .size = 256 * MiB, .flags = BS_NO_SERVICE });
	blob = kit_create(kit.bs);
	for (uint64_t b = 0; b < 10240; b += 16)
		ASSERT_OK(kit_write(blob, b, 16, 1, 0));
	n = bs_runmap_copy(&blob->map, 0, run, 64);
	EXPECT_LE_INT(n, 12); /* a region is 1 MiB at this size, and neighbours join */
	for (unsigned i = 1; i < n; i++)
		EXPECT_GT_INT(bs_run_phys(&run[i]), bs_run_phys(&run[i - 1]));
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(space, files_that_grow_at_the_same_time_do_not_interleave)
{
	struct bs_blob *blob[4];
	uint64_t before;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .size = 1 * GiB, .flags = BS_NO_SERVICE });
	for (int i = 0; i < 4; i++)
		blob[i] = kit_create(kit.bs);
	before = free_blocks(kit.bs);
	for (uint64_t b = 0; b < 4096; b += 4)
		for (int i = 0; i < 4; i++)
			ASSERT_OK(kit_write(blob[i], b, 4, 1, 0));
	for (int i = 0; i < 4; i++) {
		EXPECT_LE_INT(runs_of(blob[i]), 40);
		bs_blob_trim_ahead(blob[i]);
	}
	EXPECT_EQ_INT(before - 4 * 4096, free_blocks(kit.bs));
	for (int i = 0; i < 4; i++)
		bs_blob_put(blob[i]);
	kit_close(&kit);
}

TEST(space, streams_are_kept_apart)
{
	struct bs_blob *a, *b;
	uint64_t lo[2] = { UINT64_MAX, UINT64_MAX }, hi[2] = { 0, 0 };
	struct kit kit;

	kit_open(&kit, &quiet);
	a = kit_create(kit.bs);
	b = kit_create(kit.bs);
	for (uint64_t i = 0; i < 40; i++) {
		ASSERT_OK(write_stream(a, i * 8, 4, BS_STREAM_SHORT, 0));
		ASSERT_OK(write_stream(b, i * 8, 4, BS_STREAM_LONG, 0));
	}
	for (uint64_t i = 0; i < 40; i++) {
		lo[0] = MIN(lo[0], phys_of(a, i * 8));
		hi[0] = MAX(hi[0], phys_of(a, i * 8));
		lo[1] = MIN(lo[1], phys_of(b, i * 8));
		hi[1] = MAX(hi[1], phys_of(b, i * 8));
	}
	EXPECT_TRUE(hi[0] < lo[1] || hi[1] < lo[0]);
	bs_blob_put(a);
	bs_blob_put(b);
	kit_close(&kit);
}

TEST(space, the_empty_places_of_a_cluster_are_filled_by_the_blob_that_has_it)
{
	struct bs_blob *a, *b;
	uint64_t before, cluster;
	struct kit kit;

	kit_open(&kit, &quiet);
	a = kit_create(kit.bs);
	b = kit_create(kit.bs);
	before = free_blocks(kit.bs);
	ASSERT_OK(kit_write(a, 41, 1, 1, 0));
	cluster = phys_of(a, 41) - 1;
	EXPECT_EQ_INT(0, cluster % 4);
	ASSERT_OK(kit_write(b, 40, 1, 2, 0));
	ASSERT_OK(kit_write(a, 43, 1, 3, 0));
	ASSERT_OK(kit_write(a, 40, 1, 4, 0));
	ASSERT_OK(kit_prealloc(kit.bs, a, 42, 1));
	EXPECT_EQ_INT(before - 8, free_blocks(kit.bs));
	for (uint64_t i = 0; i < 4; i++)
		EXPECT_EQ_INT(cluster + i, phys_of(a, 40 + i));
	EXPECT_NE_INT(cluster, round_down(phys_of(b, 40), 4));
	EXPECT_EQ_INT(2, kit_byte(b, 40));
	bs_blob_put(a);
	bs_blob_put(b);
	kit_close(&kit);
}

/* ---- when ---- */

TEST(space, what_was_unmapped_is_free_only_when_that_is_durable)
{
	struct bs_blob *blob;
	uint64_t before;
	struct kit kit;

	kit_open(&kit, &quiet);
	blob = kit_create(kit.bs);
	before = free_blocks(kit.bs);
	ASSERT_OK(kit_write(blob, 0, 12, 1, 0));
	ASSERT_OK(bs_commit(kit.bs, 0));
	ASSERT_OK(kit_unmap(blob, 0, 12));
	EXPECT_EQ_INT(12, pending_blocks(kit.bs));
	for (int i = 0; i < 5; i++)
		EXPECT_EQ_INT(0, bs_space_release(kit.bs));
	EXPECT_EQ_INT(before - 12, free_blocks(kit.bs));
	ASSERT_OK(bs_commit(kit.bs, 0));
	EXPECT_EQ_INT(12, bs_space_release(kit.bs) + bs_space_release(kit.bs));
	EXPECT_EQ_INT(before, free_blocks(kit.bs));
	EXPECT_EQ_INT(0, pending_blocks(kit.bs));
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(space, what_was_unmapped_under_a_read_is_free_only_when_the_read_is_done)
{
	struct bdev_fault delay = {
		.kind = BDEV_FAULT_DELAY, .op = BDEV_READ, .count = 1, .delay_ms = 200
	};
	uint8_t *buf = dma_alloc(12 * BS_BLOCK, BS_BLOCK);
	struct bs_blob *blob, *other;
	struct kit_io read;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE, .fault = true });
	blob = kit_create(kit.bs);
	other = kit_create(kit.bs);
	ASSERT_OK(kit_write(blob, 0, 12, 7, 0));
	ASSERT_OK(bdev_fault_add(kit.dev, &delay));
	kit_start(&read, blob, BS_READ, 0, 12, buf);
	ASSERT_OK(kit_unmap(blob, 0, 12));
	ASSERT_OK(bs_commit(kit.bs, 0));
	for (int i = 0; i < 5; i++)
		EXPECT_EQ_INT(0, bs_space_release(kit.bs));
	EXPECT_EQ_INT(12, pending_blocks(kit.bs));
	/* Operations that begin now do not hold it up further. */
	ASSERT_OK(kit_write(other, 0, 4, 1, 0));
	ASSERT_OK(kit_wait(&read));
	for (int i = 0; i < 12; i++)
		EXPECT_EQ_INT(7, buf[i * BS_BLOCK]);
	EXPECT_EQ_INT(12, bs_space_release(kit.bs));
	bs_blob_put(blob);
	bs_blob_put(other);
	kit_close(&kit);
	dma_free(buf);
}

TEST(space, a_block_that_is_not_free_yet_is_not_filled)
{
	struct bs_blob *blob;
	uint64_t cluster;
	struct kit kit;

	kit_open(&kit, &quiet);
	blob = kit_create(kit.bs);
	ASSERT_OK(kit_write(blob, 0, 4, 1, 0));
	cluster = phys_of(blob, 0);
	ASSERT_OK(kit_unmap(blob, 1, 1));
	ASSERT_OK(kit_write(blob, 1, 1, 2, 0));
	EXPECT_NE_INT(cluster, round_down(phys_of(blob, 1), 4));
	ASSERT_OK(kit_unmap(blob, 2, 1));
	ASSERT_OK(bs_reclaim(kit.bs));
	ASSERT_OK(kit_write(blob, 2, 1, 3, 0));
	EXPECT_EQ_INT(cluster + 2, phys_of(blob, 2));
	bs_blob_put(blob);
	kit_close(&kit);
}

/* ---- how much ---- */

TEST(space, reservations_are_kept_for_those_who_made_them)
{
	struct bs_blob *blob;
	struct bs_stat st;
	struct kit kit;
	uint64_t avail;

	kit_open(&kit, &quiet);
	blob = kit_create(kit.bs);
	bs_get_stat(kit.bs, &st);
	avail = st.avail_blocks / 4;
	EXPECT_ERR(-ENOSPC, bs_reserve(kit.bs, avail + 1));
	ASSERT_OK(bs_reserve(kit.bs, avail));
	bs_get_stat(kit.bs, &st);
	EXPECT_EQ_INT(0, st.avail_blocks);
	EXPECT_EQ_INT(avail * 4, st.free_blocks);
	EXPECT_ERR(-ENOSPC, bs_reserve(kit.bs, 1));
	EXPECT_ERR(-ENOSPC, kit_write(blob, 0, 1, 1, 0));
	EXPECT_ERR(-ENOSPC, kit_prealloc(kit.bs, blob, 0, 1));
	/* Two clusters reserved, one used: the other is free for anybody. */
	ASSERT_OK(write_stream(blob, 0, 4, BS_STREAM_UNKNOWN, 2));
	bs_get_stat(kit.bs, &st);
	EXPECT_EQ_INT(4, st.avail_blocks);
	ASSERT_OK(kit_write(blob, 8, 4, 1, 0));
	EXPECT_ERR(-ENOSPC, kit_write(blob, 16, 1, 1, 0));
	/* An overwrite needs nothing, and gives back what came with it. */
	ASSERT_OK(write_stream(blob, 0, 4, BS_STREAM_UNKNOWN, 1));
	ASSERT_OK(kit_write(blob, 16, 4, 1, 0));
	bs_unreserve(kit.bs, avail - 3);
	bs_get_stat(kit.bs, &st);
	EXPECT_EQ_INT((avail - 3) * 4, st.avail_blocks);
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(space, a_write_that_fails_leaves_the_reservation_and_the_space)
{
	struct bdev_fault fail = {
		.kind = BDEV_FAULT_ERROR, .op = BDEV_WRITE, .count = 1, .rc = -EIO
	};
	struct bs_blob *blob;
	struct bs_stat st;
	struct kit kit;
	uint64_t before;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE, .fault = true });
	blob = kit_create(kit.bs);
	before = free_blocks(kit.bs);
	ASSERT_OK(bs_reserve(kit.bs, 3));
	ASSERT_OK(bdev_fault_add(kit.dev, &fail));
	EXPECT_ERR(-EIO, write_stream(blob, 0, 8, BS_STREAM_UNKNOWN, 3));
	bs_get_stat(kit.bs, &st);
	EXPECT_EQ_INT(before, st.free_blocks);
	EXPECT_EQ_INT(before, st.avail_blocks);
	EXPECT_EQ_INT(0, kit_byte(blob, 0));
	EXPECT_EQ_INT(0, st.used_blocks);
	bs_blob_put(blob);
	kit_close(&kit);
}

/* Fills the store with one blob after the other until it is full. */
static unsigned fill_store(struct bs *bs, struct bs_blob **blob, unsigned most, uint64_t blocks)
{
	unsigned n;
	int rc = 0;

	for (n = 0; !rc && n < most; n++) {
		blob[n] = kit_create(bs);
		rc = kit_write(blob[n], 0, blocks, (uint8_t)(n + 1), 0);
		if (rc) {
			EXPECT_ERR(-ENOSPC, rc);
			EXPECT_OK(kit_delete(bs, blob[n]));
			break;
		}
	}
	EXPECT_ERR(-ENOSPC, rc);
	return n;
}

static void full_store(uint32_t flags)
{
	struct bs_blob **blob = calloc(20000, sizeof(struct bs_blob *));
	uint64_t before;
	struct kit kit;
	unsigned n;

	kit_open(&kit, &(struct kit_opts){ .flags = flags });
	before = free_blocks(kit.bs);
	n = fill_store(kit.bs, blob, 20000, 5);
	EXPECT_GT_INT(n, 1000);
	EXPECT_LE_INT(free_blocks(kit.bs), 8);
	/* Nothing already there is lost, and the store can be written down and closed. */
	ASSERT_OK(bs_checkpoint(kit.bs));
	for (unsigned i = 0; i < n; i += 17)
		ASSERT_EQ_INT((uint8_t)(i + 1), kit_byte(blob[i], 4));
	for (unsigned i = 0; i < n; i++)
		bs_blob_put(blob[i]);
	kit_reopen(&kit, false, flags);
	for (unsigned i = 0; i < n; i++) {
		struct bs_blob *b = bs_blob_get(kit.bs, i + 1);

		ASSERT_TRUE(b != NULL);
		ASSERT_OK(kit_delete(kit.bs, b));
	}
	ASSERT_OK(bs_reclaim(kit.bs));
	ASSERT_OK(bs_checkpoint(kit.bs));
	EXPECT_GE_INT(free_blocks(kit.bs), before - before / 20);
	before = fill_store(kit.bs, blob, 20000, 5);
	EXPECT_GE_INT(before, n - n / 20);
	for (unsigned i = 0; i < before; i++)
		bs_blob_put(blob[i]);
	kit_close(&kit);
	free(blob);
}

TEST(space, a_full_store_refuses_writes_and_takes_deletes_and_checkpoints)
{
	full_store(0);
}

TEST(space, a_full_store_without_a_service_thread_does_so_too)
{
	full_store(BS_NO_SERVICE);
}

TEST(space, before_enospc_what_was_unmapped_is_made_free)
{
	struct bs_blob **blob = calloc(20000, sizeof(struct bs_blob *));
	struct kit kit;
	unsigned n;

	kit_open(&kit, NULL);
	n = fill_store(kit.bs, blob, 20000, 64);
	/* Nobody has committed this. */
	ASSERT_OK(kit_unmap(blob[0], 0, 64));
	ASSERT_OK(kit_write(blob[1], 1000, 60, 77, 0));
	EXPECT_EQ_INT(77, kit_byte(blob[1], 1059));
	EXPECT_EQ_INT(0, kit_byte(blob[0], 0));
	for (unsigned i = 0; i < n; i++)
		bs_blob_put(blob[i]);
	kit_close(&kit);
	free(blob);
}

TEST(space, a_fragmented_store_can_be_filled_to_the_end)
{
	struct bs_blob **blob = calloc(20000, sizeof(struct bs_blob *));
	struct bs_blob *big;
	uint64_t room, got = 0;
	struct kit kit;
	unsigned n;
	int rc = 0;

	kit_open(&kit, NULL);
	n = fill_store(kit.bs, blob, 20000, 4);
	for (unsigned i = 0; i < n; i += 2)
		ASSERT_OK(kit_delete(kit.bs, blob[i]));
	ASSERT_OK(bs_reclaim(kit.bs));
	room = free_blocks(kit.bs);
	big = kit_create(kit.bs);
	for (uint64_t b = 0; !rc; b += 64) {
		rc = kit_write(big, b, 64, (uint8_t)(b / 64 + 1), 0);
		got += rc ? 0 : 64;
	}
	EXPECT_ERR(-ENOSPC, rc);
	EXPECT_GE_INT(got + 200, room - room / 10);
	for (uint64_t b = 0; b < got; b += 64)
		ASSERT_EQ_INT((uint8_t)(b / 64 + 1), kit_byte(big, b + 63));
	bs_blob_put(big);
	for (unsigned i = 1; i < n; i += 2)
		bs_blob_put(blob[i]);
	kit_close(&kit);
	free(blob);
}

TEST(space, deleting_a_blob_of_very_many_runs_does_not_hold_the_lock)
{
	uint64_t start, took, freed = 0, n = 150000;
	struct bs_blob *blob;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){
			       .size = 1 * GiB, .cluster_size = 4096, .flags = BS_NO_SERVICE });
	blob = kit_create(kit.bs);
	for (uint64_t i = 0; i < n; i++)
		ASSERT_OK(kit_prealloc(kit.bs, blob, i * 2, 1));
	EXPECT_EQ_INT(n, runs_of(blob));
	start = test_cpu_ns();
	ASSERT_OK(kit_delete(kit.bs, blob));
	took = test_cpu_ns() - start;
	EXPECT_LT_INT(took, 2000000);
	EXPECT_EQ_INT(n, pending_blocks(kit.bs));
	ASSERT_OK(bs_commit(kit.bs, 0));
	freed += bs_space_release(kit.bs);
	EXPECT_EQ_INT(n, freed);
	kit_close(&kit);
}

TEST(space, owners_that_overlap_are_found)
{
	struct kit kit;
	uint64_t bad;

	kit_open(&kit, &quiet);
	EXPECT_OK(bs_space_claim(kit.bs, 12000, 100, &bad));
	EXPECT_ERR(-EUCLEAN, bs_space_claim(kit.bs, 11990, 20, &bad));
	EXPECT_EQ_INT(12000, bad);
	EXPECT_ERR(-EUCLEAN, bs_space_claim(kit.bs, 12099, 1, &bad));
	EXPECT_ERR(-EUCLEAN, bs_space_claim(kit.bs, 0, 1, &bad));
	EXPECT_ERR(-EUCLEAN, bs_space_claim(kit.bs, BS_SB_COPY_BLOCK, 1, &bad));
	EXPECT_ERR(-EUCLEAN, bs_space_claim(kit.bs, kit.bs->blocks, 1, &bad));
	EXPECT_ERR(-EUCLEAN, bs_space_claim(kit.bs, kit.bs->blocks - 1, 2, &bad));
	EXPECT_ERR(-EUCLEAN, bs_space_claim(kit.bs, 5, UINT64_MAX, &bad));
	bs_space_free_now(kit.bs, 12000, 100);
	kit_close(&kit);
}
