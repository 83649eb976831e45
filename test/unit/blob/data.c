/* SPDX-License-Identifier: BSD-2-Clause */
/* Data against a model: one byte for each block, since each block is written full of one byte. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "test/unit/blob/kit.h"

#define BLOCKS 1200u

struct model {
	uint8_t byte[BLOCKS]; /* as read */
	bool mapped[BLOCKS];
};

static void compare(struct bs_blob *blob, const struct model *m)
{
	uint8_t *buf = dma_alloc(256 * BS_BLOCK, BS_BLOCK), want[BS_BLOCK];
	struct bs_blob_info info;
	uint64_t mapped = 0;
	struct bs_extent e;

	for (uint64_t b = 0; b < BLOCKS; b += 256) {
		uint64_t n = MIN(256ull, BLOCKS - b);

		ASSERT_OK(kit_read(blob, b, n, buf));
		for (uint64_t i = 0; i < n; i++) {
			memset(want, m->byte[b + i], sizeof(want));
			ASSERT_EQ_MEM(want, buf + i * BS_BLOCK, BS_BLOCK);
			bs_map_lookup(blob, b + i, 1, &e);
			ASSERT_EQ_INT(m->mapped[b + i], !(e.flags & BS_RUN_HOLE));
			mapped += m->mapped[b + i];
		}
	}
	bs_blob_get_info(blob, &info);
	ASSERT_EQ_INT(mapped, info.mapped_blocks);
	dma_free(buf);
}

static void one_change(struct bs_blob *blob, struct model *m, uint64_t *seed)
{
	uint32_t block = kit_rand(seed, BLOCKS),
		 count = 1 + kit_rand(seed, kit_rand(seed, 4) ? 9 : 200);
	uint8_t byte = (uint8_t)(1 + kit_rand(seed, 255));
	uint32_t what = kit_rand(seed, 10);

	count = MIN(count, BLOCKS - block);
	if (what < 5)
		ASSERT_OK(kit_write(blob, block, count, byte, what ? 0 : BS_IO_NEW));
	else if (what < 7)
		ASSERT_OK(kit_unmap(blob, block, count));
	else if (what < 8)
		ASSERT_OK(kit_zero(blob, block, count));
	else
		ASSERT_OK(kit_prealloc(blob->bs, blob, block, count));
	for (uint32_t i = block; i < block + count; i++) {
		if (what < 5)
			m->byte[i] = byte;
		else if (what < 8)
			m->byte[i] = 0;
		m->mapped[i] = what < 5 || what >= 8 || (what == 7 && m->mapped[i]);
	}
}

static void reopen_and_compare(struct kit *kit, struct bs_blob **blob, const struct model *m,
			       bool crash)
{
	uint64_t id = bs_blob_id(*blob);
	size_t len, len2;
	uint8_t *dump = kit_dump(kit->bs, &len), *dump2;

	ASSERT_OK(bs_commit(kit->bs, 0));
	bs_blob_put(*blob);
	kit_reopen(kit, crash, 0);
	dump2 = kit_dump(kit->bs, &len2);
	ASSERT_EQ_INT(len, len2);
	ASSERT_EQ_MEM(dump, dump2, len);
	*blob = bs_blob_get(kit->bs, id);
	ASSERT_TRUE(*blob != NULL);
	compare(*blob, m);
	free(dump);
	free(dump2);
}

/* Reopening and comparing is what shows that the log says the same as memory. */
static void random_data(uint32_t cluster_size, int steps)
{
	struct kit_opts opts = { .cluster_size = cluster_size };
	struct model *m = calloc(1, sizeof(*m));
	uint64_t seed = test_seed(), used;
	struct bs_blob *blob;
	struct bs_stat st;
	struct kit kit;

	kit_open(&kit, &opts);
	blob = kit_create(kit.bs);
	for (int i = 0; i < steps; i++) {
		one_change(blob, m, &seed);
		if (i % 50 == 0)
			compare(blob, m);
	}
	compare(blob, m);
	reopen_and_compare(&kit, &blob, m, seed & 1);
	bs_get_stat(kit.bs, &st);
	used = st.used_blocks;
	/* All that is not mapped comes back, but for the empty places in clusters. */
	bs_blob_trim_ahead(blob);
	ASSERT_OK(bs_checkpoint(kit.bs));
	ASSERT_OK(bs_reclaim(kit.bs));
	bs_get_stat(kit.bs, &st);
	EXPECT_EQ_INT(used, st.used_blocks);
	EXPECT_EQ_INT(0, st.pending_blocks);
	ASSERT_OK(kit_delete(kit.bs, blob));
	ASSERT_OK(bs_reclaim(kit.bs));
	bs_get_stat(kit.bs, &st);
	EXPECT_EQ_INT(0, st.used_blocks);
	EXPECT_EQ_INT(0, st.pending_blocks);
	kit_close(&kit);
	free(m);
}

TEST(data, follows_a_model_with_clusters_of_four_blocks)
{
	random_data(0, 1500);
}

TEST(data, follows_a_model_with_clusters_of_one_block)
{
	random_data(4096, 700);
}

TEST(data, follows_a_model_with_clusters_of_sixteen_blocks)
{
	random_data(65536, 700);
}

TEST(data, a_write_of_many_pieces_needs_no_memory)
{
	struct bs_blob *blob;
	struct kit kit;
	uint8_t *buf = dma_alloc(256 * BS_BLOCK, BS_BLOCK);

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	/* 128 pieces: every second block is somewhere else. */
	for (uint64_t i = 0; i < 128; i++)
		ASSERT_OK(kit_write(blob, i * 2, 1, (uint8_t)(i + 1), 0));
	for (uint64_t i = 128; i-- > 0;)
		ASSERT_OK(kit_write(blob, i * 2 + 1, 1, (uint8_t)(i + 1), BS_IO_NEW));
	for (uint64_t i = 0; i < 128; i += 3)
		ASSERT_OK(kit_write(blob, i * 2, 1, (uint8_t)(i + 1), BS_IO_NEW));
	for (uint64_t nth = 0; nth < 4; nth++) {
		memset(buf, 0xee, 256 * BS_BLOCK);
		base_fail_alloc_after(nth);
		ASSERT_OK(kit_read(blob, 0, 256, buf));
		base_fail_alloc_after(0);
		for (uint64_t i = 0; i < 256; i++)
			ASSERT_EQ_INT(i / 2 + 1, buf[i * BS_BLOCK + 77]);
		/* In place, so nothing has to be remembered of the pieces either. */
		base_fail_alloc_after(nth);
		ASSERT_OK(kit_write_buf(blob, 0, 4, buf, 0));
		base_fail_alloc_after(0);
	}
	bs_blob_put(blob);
	kit_close(&kit);
	dma_free(buf);
}

TEST(data, one_run_is_one_device_read_and_a_fragmented_range_one_for_each_piece)
{
	uint64_t before;
	struct bs_blob *blob;
	struct kit kit;
	uint8_t *buf = dma_alloc(256 * BS_BLOCK, BS_BLOCK);

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	for (uint64_t i = 0; i < 256; i += 8)
		ASSERT_OK(kit_write(blob, i, 8, 1, 0));
	before = kit_device_stats(&kit).reads;
	ASSERT_OK(kit_read(blob, 0, 256, buf));
	EXPECT_EQ_INT(1, kit_device_stats(&kit).reads - before);
	ASSERT_OK(kit_unmap(blob, 8, 8));
	ASSERT_OK(kit_unmap(blob, 100, 20));
	before = kit_device_stats(&kit).reads;
	ASSERT_OK(kit_read(blob, 0, 256, buf));
	EXPECT_EQ_INT(3, kit_device_stats(&kit).reads - before);
	bs_blob_put(blob);
	kit_close(&kit);
	dma_free(buf);
}

TEST(data, iovecs_of_any_shape_carry_the_same_bytes)
{
	uint64_t seed = test_seed(), total = 64 * BS_BLOCK;
	uint8_t *buf = dma_alloc(total, BS_BLOCK), *back = dma_alloc(total, BS_BLOCK);
	struct bs_blob *blob;
	struct kit kit;

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	for (int round = 0; round < 60; round++) {
		struct bs_io io = { .blob = blob, .op = BS_WRITE, .length = total };
		struct iovec iov[200];
		uint64_t done = 0;

		for (uint64_t i = 0; i < total; i++)
			buf[i] = (uint8_t)kit_rand(&seed, 256);
		while (done < total) {
			uint64_t unit = round % 2 ? 512 : 4096,
				 len = unit * (1 + kit_rand(&seed, 12));

			if (io.iovcnt == 199)
				len = total - done;
			iov[io.iovcnt] = (struct iovec){ buf + done, MIN(len, total - done) };
			done += iov[io.iovcnt++].iov_len;
		}
		io.iov = iov;
		io.flags = kit_rand(&seed, 2) ? BS_IO_NEW : 0;
		ASSERT_OK(kit_unmap(blob, kit_rand(&seed, 60), 1 + kit_rand(&seed, 4)));
		ASSERT_OK(
			kit_write(blob, kit_rand(&seed, 60), 1 + kit_rand(&seed, 4), 1, BS_IO_NEW));
		ASSERT_OK(bs_io_sync(kit.bs, &io));
		ASSERT_OK(kit_read(blob, 0, 64, back));
		ASSERT_EQ_MEM(buf, back, total);
		memset(buf, 0, total);
		io.op = BS_READ;
		ASSERT_OK(bs_io_sync(kit.bs, &io));
		ASSERT_EQ_MEM(back, buf, total);
	}
	bs_blob_put(blob);
	kit_close(&kit);
	dma_free(buf);
	dma_free(back);
}

TEST(data, an_overwrite_goes_in_place_and_changes_no_metadata)
{
	struct bs_extent before, after;
	struct bs_blob *blob;
	struct kit kit;
	uint64_t lsn;

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	ASSERT_OK(kit_write(blob, 3, 4, 1, 0));
	bs_map_lookup(blob, 3, 4, &before);
	lsn = bs_lsn(kit.bs);
	ASSERT_OK(kit_write(blob, 3, 4, 2, 0));
	bs_map_lookup(blob, 3, 4, &after);
	EXPECT_EQ_INT(before.phys, after.phys);
	EXPECT_EQ_INT(lsn, bs_lsn(kit.bs));
	EXPECT_EQ_INT(2, kit_byte(blob, 6));
	ASSERT_OK(kit_write(blob, 3, 4, 3, BS_IO_NEW));
	bs_map_lookup(blob, 3, 4, &after);
	EXPECT_NE_INT(before.phys, after.phys);
	EXPECT_GT_INT(bs_lsn(kit.bs), lsn);
	EXPECT_EQ_INT(3, kit_byte(blob, 6));
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(data, preallocated_blocks_read_as_zeroes_and_are_written_where_they_are)
{
	struct bs_extent e, w;
	struct bs_blob *blob;
	struct kit kit;

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	ASSERT_OK(kit_prealloc(kit.bs, blob, 0, 100));
	bs_map_lookup(blob, 0, 100, &e);
	EXPECT_EQ_INT(100, e.count);
	EXPECT_EQ_INT(BS_RUN_UNWRITTEN, e.flags);
	EXPECT_EQ_INT(0, kit_byte(blob, 50));
	ASSERT_OK(kit_write(blob, 50, 3, 9, 0));
	bs_map_lookup(blob, 50, 100, &w);
	EXPECT_EQ_INT(e.phys + 50, w.phys);
	EXPECT_EQ_INT(3, w.count);
	EXPECT_EQ_INT(0, w.flags);
	EXPECT_EQ_INT(9, kit_byte(blob, 52));
	EXPECT_EQ_INT(0, kit_byte(blob, 53));
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(data, short_of_memory_at_any_allocation_a_write_is_whole_or_changes_nothing)
{
	struct bs_stat before, after;
	struct bs_blob *blob;
	struct kit kit;
	int rc = -ENOMEM, nth;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	blob = kit_create(kit.bs);
	for (uint64_t b = 0; b < 200; b += 7)
		ASSERT_OK(kit_write(blob, b, 2, 1, 0));
	ASSERT_OK(kit_prealloc(kit.bs, blob, 30, 9));
	bs_blob_trim_ahead(blob);
	bs_get_stat(kit.bs, &before);
	for (nth = 1; rc && nth < 50; nth++) {
		void *buf = dma_alloc(200 * BS_BLOCK, BS_BLOCK);

		memset(buf, nth, 200 * BS_BLOCK);
		base_fail_alloc_after((uint64_t)nth);
		rc = kit_write_buf(blob, 0, 200, buf, BS_IO_NEW);
		base_fail_alloc_after(0);
		dma_free(buf);
		bs_blob_trim_ahead(blob);
		bs_get_stat(kit.bs, &after);
		if (!rc)
			break;
		ASSERT_ERR(-ENOMEM, rc);
		ASSERT_EQ_INT(before.free_blocks, after.free_blocks);
		ASSERT_EQ_INT(before.lsn, after.lsn);
		ASSERT_EQ_INT(before.used_blocks, after.used_blocks);
		ASSERT_EQ_INT(1, kit_byte(blob, 7));
	}
	ASSERT_OK(rc);
	for (uint64_t b = 0; b < 200; b++)
		ASSERT_EQ_INT(nth, kit_byte(blob, b));
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(data, a_write_of_which_one_piece_fails_publishes_nothing)
{
	struct bdev_fault fail = {
		.kind = BDEV_FAULT_ERROR, .op = BDEV_WRITE, .first = 2, .count = 1, .rc = -EIO
	};
	uint8_t *buf = dma_alloc(BS_BLOCK, BS_BLOCK);
	struct bs_stat before, after;
	struct bs_blob *blob;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE, .fault = true });
	blob = kit_create(kit.bs);
	for (uint64_t b = 0; b < 40; b += 5)
		ASSERT_OK(kit_write(blob, b, 1, 1, 0));
	bs_blob_trim_ahead(blob);
	bs_get_stat(kit.bs, &before);
	ASSERT_OK(bdev_fault_add(kit.dev, &fail));
	EXPECT_ERR(-EIO, kit_write(blob, 0, 40, 2, 0));
	bs_blob_trim_ahead(blob);
	bs_get_stat(kit.bs, &after);
	EXPECT_EQ_INT(before.free_blocks, after.free_blocks);
	EXPECT_EQ_INT(before.lsn, after.lsn);
	EXPECT_EQ_INT(0, kit_byte(blob, 1));
	ASSERT_OK(kit_write(blob, 0, 40, 3, 0));
	for (uint64_t b = 0; b < 40; b++)
		ASSERT_EQ_INT(3, kit_byte(blob, b));
	bdev_fault_clear(kit.dev);
	fail = (struct bdev_fault){
		.kind = BDEV_FAULT_ERROR, .op = BDEV_READ, .count = 1, .rc = -EIO
	};
	ASSERT_OK(bdev_fault_add(kit.dev, &fail));
	EXPECT_ERR(-EIO, kit_read(blob, 3, 1, buf));
	dma_free(buf);
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(data, without_a_service_thread_publications_find_room_in_the_log_too)
{
	struct bs_blob *blob;
	struct bs_stat st;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE, .checkpoint_bytes = 1 });
	blob = kit_create(kit.bs);
	for (uint64_t i = 0; i < 70000; i++)
		ASSERT_OK(kit_write(blob, i % 50, 1, (uint8_t)(i + 1), BS_IO_NEW));
	bs_get_stat(kit.bs, &st);
	EXPECT_GE_INT(st.checkpoints, 1);
	bs_blob_put(blob);
	kit_close(&kit);
}

struct note {
	struct bs_blob *blob;
	int rc, calls;
};

static int publish_note(struct bs_txn *txn, struct bs_io *io, void *arg)
{
	struct note *n = arg;

	(void)io;
	n->calls++;
	return n->rc ? n->rc : bs_txn_header(txn, n->blob, 4096 * 5, "hi", 2);
}

TEST(data, what_the_caller_adds_is_published_with_the_write_or_nothing_is)
{
	struct iovec iov = { dma_zalloc(BS_BLOCK, BS_BLOCK), BS_BLOCK };
	struct note note = { .rc = -EINTR };
	struct bs_io io = { .op = BS_WRITE,
			    .offset = 4 * BS_BLOCK,
			    .length = BS_BLOCK,
			    .iov = &iov,
			    .iovcnt = 1,
			    .publish = publish_note,
			    .publish_arg = &note };
	struct bs_blob_info info;
	struct bs_stat before, after;
	struct kit kit;

	kit_open(&kit, NULL);
	io.blob = note.blob = kit_create(kit.bs);
	bs_get_stat(kit.bs, &before);
	EXPECT_ERR(-EINTR, bs_io_sync(kit.bs, &io));
	bs_get_stat(kit.bs, &after);
	EXPECT_EQ_INT(before.free_blocks, after.free_blocks);
	EXPECT_EQ_INT(before.lsn, after.lsn);
	note.rc = 0;
	ASSERT_OK(bs_io_sync(kit.bs, &io));
	bs_blob_get_info(io.blob, &info);
	EXPECT_EQ_INT(4096 * 5, info.size);
	EXPECT_EQ_INT(1, info.mapped_blocks);
	EXPECT_EQ_INT(io.lsn, info.lsn);
	/* In place too. */
	ASSERT_OK(bs_io_sync(kit.bs, &io));
	EXPECT_EQ_INT(3, note.calls);
	bs_blob_put(io.blob);
	kit_close(&kit);
	dma_free(iov.iov_base);
}

static void strike_second_and_last(struct bs_io *io, uint64_t *wanted, void *arg)
{
	++*(unsigned *)arg;
	wanted[0] &= ~(1ull << 1);
	wanted[0] &= ~(1ull << (io->length / BS_BLOCK - 1));
}

/* What is at blocks 0 … 5 after a write of six blocks whose second and last were given up. */
static void write_given_up(struct kit *kit, struct bs_blob *blob, uint8_t byte)
{
	static uint8_t buf[6 * BS_BLOCK] __attribute__((aligned(4096)));
	struct iovec iov = { buf, sizeof(buf) };
	unsigned asked = 0;
	struct bs_io io = { .blob = blob, .op = BS_WRITE, .length = sizeof(buf), .iov = &iov, .iovcnt = 1,
			    .wanted = strike_second_and_last, .publish_arg = &asked };

	memset(buf, byte, sizeof(buf));
	ASSERT_OK(bs_io_sync(kit->bs, &io));
	ASSERT_GE_INT(asked, 1);
}

TEST(data, blocks_given_up_before_their_place_was_chosen_are_neither_overwritten_nor_mapped)
{
	struct bs_extent e;
	struct bs_blob *blob;
	struct kit kit;

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	/* Over holes: they stay holes. */
	write_given_up(&kit, blob, 'a');
	for (uint64_t b = 0; b < 6; b++) {
		bs_map_lookup(blob, b, 1, &e);
		EXPECT_EQ_INT(b == 1 || b == 5, (e.flags & BS_RUN_HOLE) != 0);
		EXPECT_EQ_INT(b == 1 || b == 5 ? 0 : 'a', kit_byte(blob, b));
	}
	/* Over written and unwritten blocks: these keep what they are. */
	ASSERT_OK(kit_write(blob, 1, 1, 'n', 0));
	ASSERT_OK(kit_prealloc(kit.bs, blob, 5, 1));
	write_given_up(&kit, blob, 'b');
	for (uint64_t b = 0; b < 5; b++)
		EXPECT_EQ_INT(b == 1 ? 'n' : 'b', kit_byte(blob, b));
	bs_map_lookup(blob, 5, 1, &e);
	EXPECT_EQ_INT(BS_RUN_UNWRITTEN, e.flags);
	bs_blob_put(blob);
	kit_reopen(&kit, false, 0);
	blob = bs_blob_get(kit.bs, 1);
	for (uint64_t b = 0; blob && b < 6; b++)
		EXPECT_EQ_INT(b == 5 ? 0 : b == 1 ? 'n' : 'b', kit_byte(blob, b));
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(data, requests_that_make_no_sense_are_refused)
{
	char buf[16];
	struct iovec iov = { buf, BS_BLOCK };
	struct bs_io io = { .op = BS_WRITE, .length = BS_BLOCK, .iov = &iov, .iovcnt = 1 };
	struct kit kit;

	kit_open(&kit, NULL);
	io.blob = kit_create(kit.bs);
	io.offset = 1;
	EXPECT_ERR(-EINVAL, bs_io_sync(kit.bs, &io));
	io.offset = 0;
	io.length = 2 * BS_BLOCK;
	EXPECT_ERR(-EINVAL, bs_io_sync(kit.bs, &io));
	io.length = 0;
	EXPECT_ERR(-EINVAL, bs_io_sync(kit.bs, &io));
	io.length = BS_BLOCK;
	io.iovcnt = 0;
	EXPECT_ERR(-EINVAL, bs_io_sync(kit.bs, &io));
	io.iovcnt = 1;
	io.offset = (1ull << BS_RUN_BITS) * BS_BLOCK;
	EXPECT_ERR(-EFBIG, bs_io_sync(kit.bs, &io));
	bs_blob_put(io.blob);
	kit_close(&kit);
}
