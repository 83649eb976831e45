/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/dma.h"
#include "base/util.h"
#include "blob/device.h"
#include "test/shim/test.h"
#include "test/unit/blob/rig.h"

#define SIZE (64 * MiB)

static uint64_t seen(struct rig *r, int op)
{
	return bdev_fault_seen(r->fault, op);
}

static void fail_next(struct rig *r, int op, int rc)
{
	struct bdev_fault f = { .kind = BDEV_FAULT_ERROR, .op = op, .count = UINT64_MAX, .rc = rc };

	ASSERT_OK(bdev_fault_add(r->fault, &f));
}

/* ---- commits ---- */

TEST(blob_log, a_commit_of_metadata_alone_is_one_write_and_no_flush)
{
	struct rig r;
	uint64_t writes, flushes;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	writes = seen(&r, BDEV_WRITE);
	flushes = seen(&r, BDEV_FLUSH);
	rig_create(&r, 1, 100);
	rig_create(&r, 2, 100);
	ASSERT_OK(bs_commit(r.bs, 0));
	EXPECT_EQ_INT(writes + 1, seen(&r, BDEV_WRITE));
	EXPECT_EQ_INT(flushes, seen(&r, BDEV_FLUSH));
	EXPECT_EQ_INT(bs_lsn(r.bs), bs_durable_lsn(r.bs));
	ASSERT_OK(bs_commit(r.bs, 0)); /* nothing to do */
	EXPECT_EQ_INT(writes + 1, seen(&r, BDEV_WRITE));
	rig_drop(&r);
}

TEST(blob_log, data_written_before_makes_the_commit_flush_once)
{
	struct rig r;
	uint64_t writes, flushes;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	writes = seen(&r, BDEV_WRITE);
	flushes = seen(&r, BDEV_FLUSH);
	bs_log_data_written(r.bs);
	rig_create(&r, 1, 100);
	ASSERT_OK(bs_commit(r.bs, 0));
	EXPECT_EQ_INT(flushes + 1, seen(&r, BDEV_FLUSH));
	EXPECT_EQ_INT(writes + 1, seen(&r, BDEV_WRITE));
	bs_log_data_written(r.bs); /* an overwrite in place: no record, yet to be made durable */
	ASSERT_OK(bs_commit(r.bs, 0));
	EXPECT_EQ_INT(flushes + 2, seen(&r, BDEV_FLUSH));
	EXPECT_EQ_INT(writes + 1, seen(&r, BDEV_WRITE));
	rig_drop(&r);
}

static void write_page(struct rig *r, uint64_t id, uint32_t flags)
{
	static _Alignas(BS_BLOCK) uint8_t page[BS_BLOCK];
	struct iovec iov = { page, sizeof(page) };
	struct bs_io io = { .blob = bs_blob_get(r->bs, id), .op = BS_WRITE, .flags = flags, .length = sizeof(page),
			    .iov = &iov, .iovcnt = 1 };

	ASSERT_OK(bs_io_sync(r->bs, &io));
	bs_blob_put(io.blob);
}

TEST(blob_log, data_written_durably_needs_no_flush)
{
	struct rig r;
	uint64_t writes, flushes, id;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	id = rig_create(&r, 1, 100);
	ASSERT_OK(bs_commit(r.bs, 0));
	writes = seen(&r, BDEV_WRITE);
	flushes = seen(&r, BDEV_FLUSH);
	EXPECT_TRUE(bs_durable_pays(r.bs));
	write_page(&r, id, BS_IO_DURABLE); /* to a new place: there is a record of it */
	ASSERT_OK(bs_commit(r.bs, 0));
	EXPECT_EQ_INT(writes + 2, seen(&r, BDEV_WRITE));
	write_page(&r, id, BS_IO_DURABLE); /* in place */
	ASSERT_OK(bs_commit(r.bs, 0));
	EXPECT_EQ_INT(writes + 3, seen(&r, BDEV_WRITE));
	EXPECT_EQ_INT(flushes, seen(&r, BDEV_FLUSH));
	write_page(&r, id, 0);
	EXPECT_FALSE(bs_durable_pays(r.bs)); /* there is a flush to come in any case */
	ASSERT_OK(bs_commit(r.bs, 0));
	EXPECT_EQ_INT(flushes + 1, seen(&r, BDEV_FLUSH));
	EXPECT_TRUE(bs_durable_pays(r.bs));
	rig_drop(&r);
}

TEST(blob_log, without_a_volatile_cache_nothing_is_flushed)
{
	struct rig r;
	uint64_t flushes;

	rig_make(&r, SIZE, false);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	flushes = seen(&r, BDEV_FLUSH);
	bs_log_data_written(r.bs);
	rig_create(&r, 1, 100);
	ASSERT_OK(bs_commit(r.bs, 0));
	EXPECT_EQ_INT(flushes, seen(&r, BDEV_FLUSH));
	rig_drop(&r);
}

TEST(blob_log, what_was_committed_is_there_after_a_crash_and_the_rest_is_not)
{
	uint64_t a, b;
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	a = rig_create(&r, 1, 3000);
	ASSERT_OK(bs_commit(r.bs, 0));
	b = rig_create(&r, 2, 100);
	rig_abandon(&r);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	EXPECT_TRUE(rig_has(&r, a, 1, 3000));
	EXPECT_FALSE(rig_has(&r, b, 2, 100));
	EXPECT_EQ_INT(b, rig_create(&r, 3, 10));
	rig_drop(&r);
}

TEST(blob_log, many_segments_and_frames_come_back_the_same)
{
	struct bs_stat st;
	uint32_t digest;
	uint64_t lsn;
	struct rig r;

	rig_make(&r, 512 * MiB, true);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 16 * MiB));
	for (unsigned i = 0; i < 300; i++) {
		uint64_t id = rig_create(&r, (uint8_t)i, i % 7 == 0 ? BS_VALUE_MAX : 13 * i);

		if (i % 5 == 1)
			rig_delete(&r, id);
		if (i % 9 == 0)
			ASSERT_OK(bs_commit(r.bs, 0));
	}
	ASSERT_OK(bs_commit(r.bs, 0));
	digest = rig_digest(&r);
	lsn = bs_lsn(r.bs);
	bs_get_stat(r.bs, &st);
	EXPECT_GT_INT(st.log_bytes, 3 * MiB); /* a dozen segments */
	rig_abandon(&r);
	for (int again = 0; again < 3; again++) { /* replay changes nothing that replay sees */
		ASSERT_OK(rig_open(&r, again == 1 ? BS_RDONLY : BS_NO_SERVICE, 16 * MiB));
		EXPECT_EQ_INT(digest, rig_digest(&r));
		EXPECT_EQ_INT(lsn, bs_lsn(r.bs));
		rig_abandon(&r);
	}
	rig_drop(&r);
}

TEST(blob_log, a_transaction_longer_than_a_frame_comes_whole_or_not_at_all)
{
	static uint8_t value[60000];
	struct bs_blob *blob;
	struct bs_txn *txn;
	struct rig r;

	rig_make(&r, 512 * MiB, true);
	for (int torn = 0; torn < 2; torn++) {
		uint64_t id;

		ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 16 * MiB));
		id = rig_create(&r, 7, 10);
		ASSERT_OK(bs_commit(r.bs, 0));
		ASSERT_OK(bs_txn_begin(r.bs, 0, &txn));
		blob = bs_blob_get(r.bs, id);
		for (unsigned i = 0; i < 10; i++) {
			memset(value, (int)i, sizeof(value));
			ASSERT_OK(bs_txn_put(txn, blob, BS_KIND_USER, 100 + i, value, sizeof(value)));
		}
		bs_txn_end(txn);
		if (torn) { /* the first frame of it is written, the next is not */
			struct bdev_fault f = { .kind = BDEV_FAULT_ERROR, .op = BDEV_WRITE, .first = 1, .count = UINT64_MAX,
						.rc = -EIO };

			ASSERT_OK(bdev_fault_add(r.fault, &f));
		}
		EXPECT_ERR(torn ? -EIO : 0, bs_commit(r.bs, 0));
		bs_blob_put(blob);
		rig_abandon(&r);
		ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 16 * MiB));
		blob = bs_blob_get(r.bs, id);
		ASSERT_TRUE(blob != NULL);
		for (unsigned i = 0; i < 10; i++)
			EXPECT_EQ_INT(torn ? -ENOENT : 60000, bs_item_get(blob, BS_KIND_USER, 100 + i, value, sizeof(value)));
		bs_blob_put(blob);
		/* Recovery goes on behind the cut-off part; the next replay must pass it. */
		id = rig_create(&r, 9, 50);
		ASSERT_OK(bs_commit(r.bs, 0));
		rig_abandon(&r);
		ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 16 * MiB));
		EXPECT_TRUE(rig_has(&r, id, 9, 50));
		rig_abandon(&r);
	}
	rig_drop(&r);
}

/* ---- what may be torn, and what is corruption ---- */

/* Block of the log's next frame. */
static uint64_t log_end(struct rig *r)
{
	struct bs_log_pos pos;

	bs_log_get_pos(r->bs, &pos);
	return pos.segment + pos.offset;
}

static void smash(struct rig *r, uint64_t block)
{
	uint8_t *buf = dma_alloc(BS_BLOCK, BS_BLOCK);

	rig_read(r, block, buf, 1);
	buf[700] ^= 1;
	rig_write(r, block, buf, 1);
	dma_free(buf);
}

/* Three commits of one block each; their blocks. */
static void three_frames(struct rig *r, uint64_t block[3], uint64_t id[3])
{
	for (unsigned i = 0; i < 3; i++) {
		block[i] = log_end(r);
		id[i] = rig_create(r, (uint8_t)i, 2000);
		ASSERT_OK(bs_commit(r->bs, 0));
	}
}

TEST(blob_log, a_torn_last_frame_is_the_end_and_recovery_goes_on_in_its_place)
{
	uint64_t block[3], id[3], next;
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	three_frames(&r, block, id);
	rig_abandon(&r);
	smash(&r, block[2]);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	EXPECT_TRUE(rig_has(&r, id[1], 1, 2000));
	EXPECT_FALSE(rig_has(&r, id[2], 2, 2000));
	EXPECT_EQ_INT(block[2], log_end(&r));
	next = rig_create(&r, 9, 77);
	ASSERT_OK(bs_commit(r.bs, 0));
	rig_abandon(&r);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	EXPECT_TRUE(rig_has(&r, next, 9, 77));
	rig_drop(&r);
}

TEST(blob_log, a_hole_in_the_middle_is_corruption)
{
	uint64_t block[3], id[3];
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	three_frames(&r, block, id);
	rig_abandon(&r);
	smash(&r, block[1]);
	EXPECT_ERR(-EUCLEAN, rig_open(&r, BS_NO_SERVICE, 0));
	EXPECT_TRUE(strstr(r.err.text, "missing before this one") != NULL);
	smash(&r, block[1]);
	EXPECT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	rig_drop(&r);
}

TEST(blob_log, a_hole_before_the_next_segment_is_corruption)
{
	uint64_t last = 0, segment;
	struct bs_log_pos pos;
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	bs_log_get_pos(r.bs, &pos);
	segment = pos.segment;
	for (;;) {
		uint64_t at = log_end(&r);

		rig_create(&r, 1, 2000);
		ASSERT_OK(bs_commit(r.bs, 0));
		bs_log_get_pos(r.bs, &pos);
		if (pos.segment != segment)
			break;
		last = at;
	}
	rig_abandon(&r);
	ASSERT_OK(rig_open(&r, BS_RDONLY, 0));
	rig_abandon(&r);
	smash(&r, last);
	EXPECT_ERR(-EUCLEAN, rig_open(&r, BS_RDONLY, 0));
	EXPECT_TRUE(strstr(r.err.text, "missing before this segment") != NULL);
	rig_drop(&r);
}

TEST(blob_log, a_successor_header_that_never_arrived_is_the_end)
{
	uint64_t segment, id = 0, last = 0;
	struct bs_log_pos pos;
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	bs_log_get_pos(r.bs, &pos);
	segment = pos.segment;
	while (pos.segment == segment) {
		last = id;
		id = rig_create(&r, 1, 2000);
		ASSERT_OK(bs_commit(r.bs, 0));
		bs_log_get_pos(r.bs, &pos);
	}
	rig_abandon(&r);
	smash(&r, pos.segment);     /* header and first frame of the second segment */
	smash(&r, pos.segment + 1);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	EXPECT_TRUE(rig_has(&r, last, 1, 2000));
	EXPECT_FALSE(rig_has(&r, id, 1, 2000));
	id = rig_create(&r, 5, 4000);
	ASSERT_OK(bs_commit(r.bs, 0)); /* writes that header again */
	rig_abandon(&r);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	EXPECT_TRUE(rig_has(&r, id, 5, 4000));
	rig_drop(&r);
}

TEST(blob_log, frames_of_an_earlier_life_are_not_taken_for_live_ones)
{
	uint64_t block[3], id[3];
	uint8_t *old = dma_alloc(64 * BS_BLOCK, BS_BLOCK);
	struct bs_format_opts opts = { .size = sizeof(opts) };
	struct bs_sb_disk sb;
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	three_frames(&r, block, id);
	rig_abandon(&r);
	rig_read(&r, 64, old, 64);
	rig_super(&r, &sb);
	memcpy(opts.uuid, sb.uuid, 16); /* even of a store with the same uuid */
	ASSERT_OK(bs_format(r.base, &opts, NULL));
	rig_write(&r, 65, old + BS_BLOCK, 63);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	EXPECT_EQ_INT(0, bs_lsn(r.bs));
	EXPECT_FALSE(rig_has(&r, id[0], 0, 2000));
	rig_drop(&r);
	dma_free(old);
}

TEST(blob_log, recovery_flushes_before_it_writes)
{
	uint64_t block[3], id[3];
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	three_frames(&r, block, id);
	rig_abandon(&r);
	{
		struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_NO_SERVICE };
		struct bdev *again;

		ASSERT_OK(bdev_open(r.name, NULL, &again, NULL));
		ASSERT_OK(bdev_fault_create(again, &r.fault));
		fail_next(&r, BDEV_FLUSH, -EIO);
		EXPECT_ERR(-EIO, bs_open(r.fault, &opts, &r.bs, &r.err));
		EXPECT_EQ_INT(0, seen(&r, BDEV_WRITE));
		EXPECT_EQ_INT(1, seen(&r, BDEV_FLUSH));
		bdev_close(r.fault);
	}
	rig_drop(&r);
}

/* ---- freezing ---- */

static void expect_frozen(struct rig *r, uint64_t id, int rc)
{
	struct bs_stat st;
	struct bs_txn *txn;

	EXPECT_ERR(-EROFS, bs_txn_begin(r->bs, 0, &txn));
	EXPECT_ERR(-EROFS, bs_commit(r->bs, 0));
	EXPECT_ERR(-EROFS, bs_checkpoint(r->bs));
	EXPECT_TRUE(rig_has(r, id, 1, 100)); /* reads go on */
	bs_get_stat(r->bs, &st);
	EXPECT_TRUE(st.frozen);
	EXPECT_EQ_INT(rc, st.frozen_rc);
	EXPECT_ERR(rc, rig_close(r));
}

TEST(blob_log, a_failed_log_write_freezes_the_store)
{
	uint64_t id;
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, 0, 0));
	id = rig_create(&r, 1, 100);
	ASSERT_OK(bs_commit(r.bs, 0));
	fail_next(&r, BDEV_WRITE, -EIO);
	rig_create(&r, 2, 100);
	EXPECT_ERR(-EIO, bs_commit(r.bs, 0));
	bdev_fault_clear(r.fault);
	expect_frozen(&r, id, -EIO);
	rig_drop(&r);
}

TEST(blob_log, a_failed_flush_freezes_the_store_before_anything_is_logged)
{
	uint64_t id, writes;
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	id = rig_create(&r, 1, 100);
	ASSERT_OK(bs_commit(r.bs, 0));
	writes = seen(&r, BDEV_WRITE);
	fail_next(&r, BDEV_FLUSH, -ETIMEDOUT);
	bs_log_data_written(r.bs);
	rig_create(&r, 2, 100);
	EXPECT_ERR(-ETIMEDOUT, bs_commit(r.bs, 0));
	EXPECT_EQ_INT(writes, seen(&r, BDEV_WRITE));
	bdev_fault_clear(r.fault);
	expect_frozen(&r, id, -ETIMEDOUT);
	rig_drop(&r);
}

TEST(blob_log, a_commit_without_memory_fails_alone)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_NO_SERVICE };
	struct bdev *again;
	uint64_t last = 0;
	struct rig r;

	/* Without the wrapper, whose I/O would fail for lack of memory; that freezes. */
	rig_make(&r, SIZE, true);
	ASSERT_OK(bdev_open(r.name, NULL, &again, NULL));
	ASSERT_OK(bs_open(again, &opts, &r.bs, &r.err));
	for (uint64_t i = 0; i < 300; i++) { /* over several segments */
		int rc;

		last = rig_create(&r, 1, 100);
		base_fail_alloc_after(1 + i % 3);
		rc = bs_commit(r.bs, 0);
		base_fail_alloc_after(0);
		EXPECT_TRUE(rc == 0 || rc == -ENOMEM);
	}
	ASSERT_OK(bs_commit(r.bs, 0));
	rig_abandon(&r);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	EXPECT_TRUE(rig_has(&r, last, 1, 100));
	rig_drop(&r);
}

/* ---- asynchronous ---- */

struct async {
	struct op op;
	struct bs *bs;
	_Atomic int done;
};

static enum op_next async_step(struct op *op)
{
	struct async *a = container_of(op, struct async, op);

	if (op->step == 0) {
		bs_commit_start(a->bs, 0, op);
		return op_await(op, 1, 0);
	}
	return op_finish(op);
}

static void async_done(struct op *op, void *arg)
{
	struct async *a = arg;

	(void)op;
	atomic_store(&a->done, 1);
}

/* Polls the caller's channel only, as its thread would. */
static bool soon(struct bdev_channel *ch, _Atomic int *flag)
{
	for (int i = 0; i < 5000 && !atomic_load(flag); i++) {
		bdev_poll(ch);
		usleep(1000);
	}
	return atomic_load(flag);
}

TEST(blob_log, the_service_thread_drives_commits_of_those_who_do_not_poll_the_logs_channel)
{
	struct bdev_channel *ch;
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, 0, 0));
	ch = bdev_channel_borrow(r.fault);
	for (unsigned i = 0; i < 20; i++) {
		struct async a = { .bs = r.bs };

		rig_create(&r, 1, 100);
		bs_log_data_written(r.bs);
		op_init(&a.op, "test-commit", async_step, bdev_channel_driver(ch), async_done, &a);
		op_start(&a.op);
		ASSERT_TRUE(soon(ch, &a.done));
		EXPECT_OK(a.op.rc);
	}
	EXPECT_EQ_INT(bs_lsn(r.bs), bs_durable_lsn(r.bs));
	bdev_channel_return(ch);
	EXPECT_OK(rig_close(&r));
	rig_drop(&r);
}

TEST(blob_log, what_nobody_commits_is_committed_soon)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .commit_ms = 20 };
	struct bdev *again;
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(bdev_open(r.name, NULL, &again, NULL));
	ASSERT_OK(bdev_fault_create(again, &r.fault));
	ASSERT_OK(bs_open(r.fault, &opts, &r.bs, &r.err));
	for (unsigned round = 0; round < 3; round++) {
		rig_create(&r, 1, 100);
		for (int i = 0; i < 5000 && bs_durable_lsn(r.bs) != bs_lsn(r.bs); i++)
			usleep(1000);
		EXPECT_EQ_INT(bs_lsn(r.bs), bs_durable_lsn(r.bs));
	}
	rig_drop(&r);
}

/* ---- many threads ---- */

struct writers {
	struct rig *r;
	unsigned rounds;
	_Atomic unsigned next;
	uint64_t id[8][200];
};

static void *writer(void *arg)
{
	struct writers *w = arg;
	unsigned me = atomic_fetch_add(&w->next, 1);

	for (unsigned i = 0; i < w->rounds; i++) {
		w->id[me][i] = rig_create(w->r, (uint8_t)me, 500);
		EXPECT_OK(bs_commit(w->r->bs, 0));
	}
	return NULL;
}

static void run_writers(struct writers *w, unsigned threads)
{
	pthread_t t[8];

	atomic_store(&w->next, 0);
	for (unsigned i = 0; i < threads; i++)
		ASSERT_OK(pthread_create(&t[i], NULL, writer, w));
	for (unsigned i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
}

static void rig_open_slow(struct rig *r, uint32_t latency_us)
{
	struct bs_open_opts opts = { .size = sizeof(opts) };
	struct bdev *slow;

	rig_make(r, SIZE, true);
	ASSERT_OK(bdev_open(r->name, NULL, &slow, NULL));
	ASSERT_OK(bdev_delay_create(slow, latency_us, 0, &r->fault));
	ASSERT_OK(bs_open(r->fault, &opts, &r->bs, &r->err));
}

TEST(blob_log_threads, those_who_commit_together_share_writes)
{
	static struct writers w;
	struct bs_stat st;
	struct rig r;

	rig_open_slow(&r, 1000);
	w.r = &r;
	w.rounds = 30;
	run_writers(&w, 8);
	bs_get_stat(r.bs, &st);
	EXPECT_GE_INT(st.commits, 100);
	EXPECT_LT_INT(st.log_writes, 8 * 30 * 2 / 3); /* far fewer writes than commits */
	EXPECT_OK(rig_close(&r));
	rig_drop(&r);
}

/* A busy machine may keep some of them away in time: the best of some tries counts. */
TEST(blob_log_threads, those_who_are_let_go_together_come_back_into_one_write)
{
	static struct writers w;
	struct bs_stat before, after;
	uint64_t least = UINT64_MAX;
	struct rig r;

	rig_open_slow(&r, 8000);
	w.r = &r;
	w.rounds = 20;
	for (unsigned i = 0; i < 5 && least > 30; i++) {
		bs_get_stat(r.bs, &before);
		run_writers(&w, 8);
		bs_get_stat(r.bs, &after);
		least = MIN(least, after.log_writes - before.log_writes);
	}
	EXPECT_LE_INT(least, 30); /* in turns with those who come meanwhile it would be 40 */
	EXPECT_OK(rig_close(&r));
	rig_drop(&r);
}

TEST(blob_log_threads, everything_acknowledged_survives)
{
	static struct writers w;
	struct rig r;

	rig_make(&r, 128 * MiB, true);
	ASSERT_OK(rig_open(&r, 0, MiB));
	w.r = &r;
	w.rounds = 200;
	run_writers(&w, 8);
	rig_abandon(&r);
	ASSERT_OK(rig_open(&r, 0, 0));
	for (unsigned t = 0; t < 8; t++)
		for (unsigned i = 0; i < w.rounds; i++)
			ASSERT_TRUE(rig_has(&r, w.id[t][i], (uint8_t)t, 500));
	EXPECT_OK(rig_close(&r));
	rig_drop(&r);
}

static void *hog(void *arg)
{
	struct writers *w = arg;
	unsigned me = atomic_fetch_add(&w->next, 1);

	/* Much more than the log may hold, without one commit. */
	for (unsigned i = 0; i < w->rounds; i++) {
		uint64_t id = rig_create(w->r, (uint8_t)me, 30000);

		rig_delete(w->r, id);
	}
	return NULL;
}

TEST(blob_log_threads, writers_wait_at_the_limit_and_go_on)
{
	static struct writers w;
	struct bs_stat st;
	pthread_t t[4];
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, 0, 0));
	w.r = &r;
	w.rounds = 200;
	for (unsigned i = 0; i < 4; i++)
		ASSERT_OK(pthread_create(&t[i], NULL, hog, &w));
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	bs_get_stat(r.bs, &st);
	EXPECT_GT_INT(st.checkpoints, 3);
	EXPECT_LE_INT(st.log_bytes, st.log_limit + 2 * MiB);
	EXPECT_FALSE(st.frozen);
	EXPECT_OK(rig_close(&r));
	ASSERT_OK(rig_open(&r, 0, 0));
	bs_get_stat(r.bs, &st);
	EXPECT_EQ_INT(0, st.blobs);
	rig_drop(&r);
}

TEST(blob_log, without_a_service_thread_the_waiter_makes_room_itself)
{
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	for (unsigned i = 0; i < 300; i++)
		rig_delete(&r, rig_create(&r, 3, 60000));
	EXPECT_OK(rig_close(&r));
	rig_drop(&r);
}
