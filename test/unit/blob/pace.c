/* SPDX-License-Identifier: BSD-2-Clause */
/* Who waits for room in the log beside checkpoints, and is let go. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "blob/ckpt.h"
#include "test/shim/test.h"
#include "test/unit/blob/rig.h"

#define ROUNDS 1000u
#define MANY 100u

static void quiet(enum base_log_level level, const char *component, const char *line, void *arg)
{
	(void)level;
	(void)component;
	(void)line;
	(void)arg;
}

static uint64_t xorshift(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	return *state ^= *state << 17;
}

/* The log at its limit, and on a device that takes nothing more. */
static void fill_log(struct rig *r, uint32_t flags)
{
	struct bdev_fault all = { .kind = BDEV_FAULT_ERROR, .op = BDEV_WRITE, .count = UINT64_MAX, .rc = -EIO };
	struct bs_txn *txn;

	rig_make(r, 64 * MiB, true);
	ASSERT_OK(rig_open(r, flags, 0));
	while (!bs_txn_try(r->bs, 0, &txn)) {
		bs_txn_cancel(txn);
		rig_create(r, 1, 30000);
		ASSERT_OK(bs_commit(r->bs, 0));
	}
	ASSERT_OK(bdev_fault_add(r->fault, &all));
}

struct other {
	struct bs *bs;
	pthread_mutex_t lock;
	pthread_cond_t moved;
	uint64_t round, done; /* begun by the test; ended by the thread */
};

static void set_round(struct other *o, uint64_t *which, uint64_t round)
{
	pthread_mutex_lock(&o->lock);
	*which = round;
	pthread_cond_broadcast(&o->moved);
	pthread_mutex_unlock(&o->lock);
}

/* False: not within so many seconds. */
static bool wait_round(struct other *o, const uint64_t *which, uint64_t round, unsigned s)
{
	struct timespec end;
	int rc = 0;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += s;
	pthread_mutex_lock(&o->lock);
	while (*which < round && !rc)
		rc = pthread_cond_clockwait(&o->moved, &o->lock, CLOCK_MONOTONIC, &end);
	pthread_mutex_unlock(&o->lock);
	return !rc;
}

static void pause_ns(uint64_t ns)
{
	uint64_t end = bs_clock_ns() + ns;

	while (bs_clock_ns() < end)
		;
}

static void *come_later(void *arg)
{
	struct other *o = arg;
	uint64_t round, state = test_seed();
	struct bs_txn *txn;

	for (round = 1; round <= ROUNDS; round++) {
		ASSERT_TRUE(wait_round(o, &o->round, round, 60));
		pause_ns(xorshift(&state) % 60000);
		EXPECT_ERR(-EIO, bs_txn_begin(o->bs, 0, &txn));
		set_round(o, &o->done, round);
	}
	return NULL;
}

/* As asynchronous callers, who are many to be let go. */
struct async {
	struct op op;
	struct bs *bs;
	_Atomic uint64_t *left;
};

static enum op_next async_step(struct op *op)
{
	struct async *a = container_of(op, struct async, op);

	if (op->step)
		return op_finish(op);
	bs_log_wait_room_start(a->bs, op);
	return op_await(op, 1, 0);
}

static void async_done(struct op *op, void *arg)
{
	struct async *a = arg;

	(void)op;
	atomic_fetch_sub(a->left, 1);
}

/* Nobody comes after these two: the second may find the checkpoint that the first has begun at any point, also at its very end. */
TEST(pace_threads, who_comes_as_a_checkpoint_that_failed_ends_gets_another)
{
	struct other o = { .lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER };
	static struct async many[MANY];
	_Atomic uint64_t left;
	struct bs_txn *txn;
	pthread_t thread;
	struct rig r;

	base_log_set_sink(quiet, NULL);
	fill_log(&r, BS_NO_SERVICE);
	o.bs = r.bs;
	ASSERT_OK(pthread_create(&thread, NULL, come_later, &o));
	for (uint64_t round = 1; round <= ROUNDS; round++) {
		set_round(&o, &o.round, round);
		atomic_store(&left, MANY);
		for (unsigned i = 0; i < MANY; i++) {
			many[i].bs = r.bs;
			many[i].left = &left;
			op_init(&many[i].op, "room", async_step, bdev_channel_driver(r.bs->log->ch), async_done, &many[i]);
			op_start(&many[i].op);
		}
		EXPECT_ERR(-EIO, bs_txn_begin(r.bs, 0, &txn));
		while (atomic_load(&left))
			bdev_poll(r.bs->log->ch);
		ASSERT_TRUE(wait_round(&o, &o.done, round, 20));
	}
	pthread_join(thread, NULL);
	base_log_set_sink(NULL, NULL);
	rig_drop(&r);
}

/* ---- beside a checkpoint that is only pretended, and lasts as long as the test says ---- */

struct pretence {
	struct rig r;
	struct bs *bs;
	struct bs_log *log;
	struct bs_pace *pace;
};

static void set_busy(struct bs *bs, bool busy)
{
	pthread_mutex_lock(&bs->ckpt->lock);
	bs->ckpt->busy = busy;
	pthread_mutex_unlock(&bs->ckpt->lock);
}

static void put_some(struct bs *bs, uint32_t flags, uint32_t bytes)
{
	static const char value[60000];
	struct bs_blob *blob;
	struct bs_txn *txn;
	uint32_t len;

	ASSERT_OK(bs_txn_try(bs, flags, &txn));
	ASSERT_OK(bs_txn_create(txn, 0, NULL, 0, &blob));
	for (unsigned i = 0; bytes; i++, bytes -= len) {
		len = MIN(bytes, (uint32_t)sizeof(value));
		ASSERT_OK(bs_txn_put(txn, blob, BS_KIND_USER, i, value, len));
	}
	bs_txn_end(txn);
	bs_blob_put(blob);
}

/* One of so much that it hardly gets on. */
static void pretend(struct pretence *t)
{
	rig_make(&t->r, 512 * MiB, true);
	ASSERT_OK(rig_open(&t->r, 0, 0));
	t->bs = t->r.bs;
	t->log = t->bs->log;
	t->pace = &t->log->pace;
	set_busy(t->bs, true);
	bs_pace_begin(t->bs, 1ull << 50);
	ASSERT_TRUE(t->pace->on);
}

static void fill_to(struct pretence *t, uint64_t length)
{
	while (bs_log_length(t->bs) < length) {
		ASSERT_OK(bs_commit(t->bs, 0));
		put_some(t->bs, BS_TXN_NOW, (uint32_t)MIN(length - bs_log_length(t->bs) + 1, 60000u));
	}
}

static void reveal(struct pretence *t)
{
	bs_pace_end(t->bs, 0);
	set_busy(t->bs, false);
	rig_drop(&t->r);
}

struct one {
	struct async a;
	uint32_t flags;
	_Atomic uint64_t left;
};

/* A transaction as an asynchronous caller does it. */
static enum op_next one_step(struct op *op)
{
	struct one *o = container_of(op, struct one, a.op);
	struct bs_txn *txn;
	int rc = bs_txn_try(o->a.bs, o->flags, &txn);

	if (rc == -EAGAIN) {
		bs_log_wait_room_start(o->a.bs, op);
		return op_await(op, 0, 0);
	}
	if (!rc)
		bs_txn_cancel(txn);
	return rc ? op_fail(op, rc) : op_finish(op);
}

static void one_start(struct one *o, struct bs *bs, uint32_t flags)
{
	o->a.bs = bs;
	o->a.left = &o->left;
	o->flags = flags;
	atomic_store(&o->left, 1);
	op_init(&o->a.op, "one", one_step, bdev_channel_driver(bs->log->ch), async_done, &o->a);
	op_start(&o->a.op);
}

static bool one_ends(struct one *o, unsigned ms)
{
	uint64_t end = bs_clock_ns() + ms * 1000000ull;

	do {
		bdev_poll(o->a.bs->log->ch);
	} while (atomic_load(&o->left) && bs_clock_ns() < end);
	return !atomic_load(&o->left);
}

static void *begin_one(void *arg)
{
	struct bs_txn *txn;

	ASSERT_OK(bs_txn_begin(arg, 0, &txn));
	bs_txn_cancel(txn);
	return NULL;
}

/* A step of the checkpoint sees somebody in the queue, who leaves it by himself. That does not keep the service thread from looking after the next. */
TEST(pace_threads, an_asynchronous_caller_has_his_turn_though_the_checkpoint_stands_still)
{
	struct pretence t;
	pthread_t thread;
	bool seen = false;
	unsigned tries = 0;
	struct one o;

	pretend(&t);
	usleep(1100000); /* the timer runs once of itself */
	while (!seen) {
		ASSERT_LT_INT(tries++, 100);
		fill_to(&t, atomic_load(&t.pace->gate));
		ASSERT_EQ_INT(0, pthread_create(&thread, NULL, begin_one, t.bs));
		for (unsigned i = 0; i < 100000 && !atomic_load(&t.pace->waiting); i++)
			sched_yield();
		bs_pace_progress(t.bs, 0, 1ull << 50);
		seen = atomic_load(&t.pace->waiting);
		pthread_join(thread, NULL);
	}
	fill_to(&t, atomic_load(&t.pace->gate));
	one_start(&o, t.bs, 0);
	EXPECT_TRUE(one_ends(&o, 3000));
	EXPECT_OK(o.a.op.rc);
	reveal(&t);
}

/* Who only waited for his turn is told no error of the checkpoint: what frees something has room beyond the limit, which the log has reached since. */
TEST(pace_threads, what_frees_something_does_not_fail_with_the_checkpoint_that_paced_it)
{
	struct pretence t;
	struct one o;

	pretend(&t);
	fill_to(&t, atomic_load(&t.log->limit) - 50000);
	one_start(&o, t.bs, BS_TXN_FREES);
	ASSERT_EQ_INT(1, atomic_load(&t.pace->waiting));
	put_some(t.bs, BS_TXN_NOW, 60000);
	ASSERT_TRUE(bs_log_length(t.bs) >= atomic_load(&t.log->limit));
	bs_pace_end(t.bs, -EIO);
	EXPECT_TRUE(one_ends(&o, 3000));
	EXPECT_OK(o.a.op.rc);
	reveal(&t);
}
