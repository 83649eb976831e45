/* SPDX-License-Identifier: BSD-2-Clause */
/* What a checkpoint costs those who work meanwhile, and how much space it and the log take. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blob/device.h"
#include "test/unit/blob/kit.h"

#define LONG_SLOT 13u /* from 4.1 ms on */

static uint64_t longer(const struct bs_hist *h)
{
	uint64_t n = 0;

	for (unsigned i = LONG_SLOT; i < BS_HIST_SLOTS; i++)
		n += h->slot[i];
	return n;
}

/* Blobs of five runs each. */
static void populate(struct bs *bs, uint64_t blobs)
{
	static const char user[72] = "as many as an inode has";

	for (uint64_t i = 0; i < blobs; i++) {
		struct bs_blob *blob;
		struct bs_txn *txn;

		ASSERT_OK(bs_txn_begin(bs, 0, &txn));
		ASSERT_OK(bs_txn_create(txn, 0, user, sizeof(user), &blob));
		for (uint64_t k = 0; k < 5; k++)
			ASSERT_OK(bs_txn_prealloc(txn, blob, k * 10, 1, BS_STREAM_LONG));
		bs_txn_end(txn);
		bs_blob_put(blob);
	}
}

struct worker {
	struct bs *bs;
	_Atomic bool *stop;
	uint64_t done;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct bs_blob *blob = kit_create(w->bs);

	for (; !atomic_load(w->stop); w->done++) {
		ASSERT_OK(kit_put(w->bs, blob, w->done % 100, "some value", 10));
		if (w->done % 50 == 0)
			ASSERT_OK(kit_write(blob, w->done % 1000, 4, 1, BS_IO_NEW));
	}
	bs_blob_put(blob);
	return NULL;
}

/* A sanitizer, or valgrind, has a time of its own. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define BLOBS 4000u
#define SLOW true
#else
#define BLOBS 40000u /* TEST_SCALE=5: a million runs */
#define SLOW false
#endif

TEST(pauses_threads, checkpoints_of_many_runs_hold_nobody_up)
{
	uint64_t blobs = test_scaled(BLOBS);
	_Atomic bool stop = false;
	struct worker w[2];
	struct bs_stat st;
	pthread_t t[2];
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .size = 8 * GiB, .cluster_size = 4096 });
	if (strncmp(kit.name, "ram:", 4))
		SKIP("needs a large sparse device");
	populate(kit.bs, blobs);
	for (int i = 0; i < 2; i++) {
		w[i] = (struct worker){ .bs = kit.bs, .stop = &stop };
		pthread_create(&t[i], NULL, work, &w[i]);
	}
	for (int i = 0; i < 3; i++)
		ASSERT_OK(bs_checkpoint(kit.bs));
	atomic_store(&stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	bs_get_stat(kit.bs, &st);
	test_note("%" PRIu64 " runs; %" PRIu64 " transactions beside %" PRIu64 " MiB of checkpoints; held %" PRIu64 " times, half below %" PRIu64
		  " us, 99.9 %% below %" PRIu64 ", longest %" PRIu64 "; waited %" PRIu64 " times, 99.9 %% below %" PRIu64 " us, longest %" PRIu64,
		  st.runs, w[0].done + w[1].done, st.checkpoint_bytes >> 20, st.held.count, bs_hist_quantile(&st.held, 0.5) / 1000,
		  bs_hist_quantile(&st.held, 0.999) / 1000, st.held.max_ns / 1000, st.waited.count,
		  bs_hist_quantile(&st.waited, 0.999) / 1000, st.waited.max_ns / 1000);
	EXPECT_GT_INT(w[0].done + w[1].done, 100);
	EXPECT_GT_INT(st.held.count, blobs / 100);
	/* The machine may take the processor from whoever holds the lock: seldom. */
	EXPECT_TRUE(SLOW || longer(&st.held) <= 5 + st.held.count / 50);
	EXPECT_TRUE(SLOW || bs_hist_quantile(&st.held, 0.9) <= 5000000);
	if (getenv("BLOBFS_VERBOSE"))
		FAIL("as asked: see the note");
	kit_close(&kit);
}

/* ---- pacing, on a device that makes a checkpoint last ---- */

#define SLOW_TURN_US 1000u
#define PUTTERS 4u

struct putter {
	struct bs *bs;
	_Atomic bool *stop;
	uint32_t bytes, done;
	bool async;
};

/* As an asynchronous caller does it. */
struct async_put {
	struct op op;
	struct putter *p;
	struct bs_blob *blob;
};

static enum op_next async_put_step(struct op *op)
{
	static const char value[60000];
	struct async_put *a = container_of(op, struct async_put, op);
	struct bs_txn *txn;
	int rc;

	if (op->step)
		return op_finish(op);
	rc = bs_txn_try(a->p->bs, 0, &txn);
	if (rc == -EAGAIN) {
		bs_log_wait_room_start(a->p->bs, op);
		return op_await(op, 0, 0);
	}
	if (!rc)
		rc = kit_end(txn, bs_txn_put(txn, a->blob, BS_KIND_USER, a->p->done % 16, value, a->p->bytes));
	return rc ? op_fail(op, rc) : op_finish(op);
}

static void *put_on(void *arg)
{
	static const char value[60000];
	struct putter *p = arg;
	struct bs_blob *blob = kit_create(p->bs);
	struct async_put a = { .p = p, .blob = blob };

	for (; !atomic_load(p->stop); p->done++) {
		if (p->async) {
			op_init(&a.op, "put", async_put_step, bdev_channel_driver(p->bs->log->ch), NULL, NULL);
			op_start(&a.op);
			ASSERT_OK(op_wait(&a.op));
		} else {
			ASSERT_OK(kit_put(p->bs, blob, p->done % 16, value, p->bytes));
		}
	}
	bs_blob_put(blob);
	return NULL;
}

/* A store on a device of so many I/Os a second, over `dev`. */
static struct bs *open_slow(const char *name, uint32_t flags)
{
	struct bs_format_opts fo = { .size = sizeof(fo) };
	struct bs_open_opts oo = { .size = sizeof(oo), .flags = flags, .checkpoint_bytes = 8 * MiB };
	struct bdev *ram, *dev;
	struct bs *bs;

	ASSERT_OK(bdev_open(name, NULL, &ram, NULL));
	ASSERT_OK(bs_format(ram, &fo, NULL));
	ASSERT_OK(bdev_delay_create(ram, 500, 1000000 / SLOW_TURN_US, &dev));
	ASSERT_OK(bs_open(dev, &oo, &bs, NULL));
	return bs;
}

/* The longest wait beside checkpoints that writers alone have asked for, and how long one takes that nobody disturbs. */
static void longest_stop(const char *name, uint32_t bytes, bool async, struct bs_stat *st, uint64_t *ckpt_ns)
{
	static const char value[60000];
	struct putter p[PUTTERS];
	pthread_t t[PUTTERS];
	_Atomic bool stop = false;
	struct bs *bs = open_slow(name, 0);
	struct bs_blob *blob = kit_create(bs);
	uint64_t since;

	/* Some metadata, so that a checkpoint has something to write: 12 MiB are about 200 pages. */
	for (uint64_t i = 0; i < 12 * MiB / sizeof(value); i++)
		ASSERT_OK(kit_put(bs, blob, i, value, sizeof(value)));
	since = bs_clock_ns();
	ASSERT_OK(bs_checkpoint(bs));
	*ckpt_ns = bs_clock_ns() - since;
	memset(&bs->pauses.stopped, 0, sizeof(bs->pauses.stopped));
	memset(&bs->pauses.woken, 0, sizeof(bs->pauses.woken));
	bs_get_stat(bs, st);
	since = st->checkpoints;
	for (unsigned i = 0; i < PUTTERS; i++) {
		p[i] = (struct putter){ .bs = bs, .stop = &stop, .bytes = bytes, .async = async && i % 2 };
		pthread_create(&t[i], NULL, put_on, &p[i]);
	}
	do {
		usleep(2000);
		bs_get_stat(bs, st);
	} while (st->checkpoints < since + 4);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < PUTTERS; i++)
		pthread_join(t[i], NULL);
	bs_get_stat(bs, st);
	bs_blob_put(blob);
	EXPECT_OK(bs_close(bs));
}

/* most: of all waits, this part is short; without pacing they last for a large part of the checkpoint. The longest depends on how long the
 * device takes for what is not pages. */
static void expect_paced(const char *name, uint32_t bytes, bool async, double most)
{
	uint64_t ckpt_ns;
	struct bs_stat st;

	longest_stop(name, bytes, async, &st, &ckpt_ns);
	test_note("%u bytes: a checkpoint takes %" PRIu64 " ms; stopped %" PRIu64 " times, 99 %% below %" PRIu64 " us, longest %" PRIu64 " us", bytes,
		  ckpt_ns / 1000000, st.stopped.count, bs_hist_quantile(&st.stopped, 0.99) / 1000, st.stopped.max_ns / 1000);
	EXPECT_GT_INT(st.stopped.count, 10);
	/* How long the log takes, and how long the machine takes then, are two things; asynchronous ones are at once where they go on. */
	EXPECT_LE_INT(st.woken.count, st.stopped.count);
	EXPECT_GT_INT(st.woken.count, 0);
	EXPECT_TRUE(SLOW || bs_hist_quantile(&st.stopped, most) <= ckpt_ns / 16);
}

TEST(pauses_threads, nobody_waits_for_a_whole_checkpoint)
{
	expect_paced("ram:512M", 60000, false, 0.5);
	expect_paced("ram:512M", 2000, false, 0.9);
}

TEST(pauses_threads, asynchronous_callers_are_paced_too)
{
	expect_paced("ram:512M", 2000, true, 0.9);
}

TEST(pauses, a_slot_says_how_long_something_took)
{
	struct bs_hist h = { .count = 10, .max_ns = 70000000, .slot = { [0] = 5, [3] = 4, [17] = 1 } };

	EXPECT_EQ_INT(1000, bs_hist_quantile(&h, 0.5));
	EXPECT_EQ_INT(8000, bs_hist_quantile(&h, 0.9));
	EXPECT_EQ_INT(70000000, bs_hist_quantile(&h, 1));
	h = (struct bs_hist){ 0 };
	EXPECT_EQ_INT(0, bs_hist_quantile(&h, 0.99));
}

TEST(pauses, transactions_that_wait_for_room_in_the_log_are_counted)
{
	static char value[60000];
	struct bs_blob *blob;
	struct bs_stat st;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE, .checkpoint_bytes = 1 });
	blob = kit_create(kit.bs);
	for (unsigned i = 0; i < 200; i++)
		ASSERT_OK(kit_put(kit.bs, blob, i % 4, value, sizeof(value)));
	bs_get_stat(kit.bs, &st);
	EXPECT_GT_INT(st.stopped.count, 0);
	EXPECT_GT_INT(st.stopped.max_ns, 0);
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(pauses, log_and_checkpoints_keep_to_their_share_of_any_device)
{
	static const struct {
		uint64_t size;
		unsigned percent;
	} cases[] = { { 64 * MiB, 10 }, { 100 * MiB, 10 }, { 128 * MiB, 10 }, { 512 * MiB, 10 }, { 1 * GiB, 10 }, { 2 * GiB, 10 }, { 4 * GiB, 5 }, { 9 * GiB, 3 },
		      { 20 * GiB, 2 }, { 200 * GiB, 2 } };

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bs_blob *blob;
		struct bs_stat st;
		struct kit kit;

		kit_open(&kit, &(struct kit_opts){ .size = cases[i].size, .flags = BS_NO_SERVICE });
		if (strncmp(kit.name, "ram:", 4))
			SKIP("needs large sparse devices");
		blob = kit_create(kit.bs);
		ASSERT_OK(kit_prealloc(kit.bs, blob, 0, 1000));
		ASSERT_OK(bs_checkpoint(kit.bs));
		bs_get_stat(kit.bs, &st);
		test_note("%" PRIu64 " MiB: %" PRIu64 " MiB for log and checkpoints", cases[i].size >> 20, st.reserve_bytes >> 20);
		EXPECT_LE_INT(st.reserve_bytes, MAX(cases[i].size * cases[i].percent / 100, cases[i].size < 2 * GiB ? 0ull : 192 * MiB));
		EXPECT_LE_INT(st.log_limit, st.reserve_bytes);
		bs_blob_put(blob);
		kit_close(&kit);
	}
}
