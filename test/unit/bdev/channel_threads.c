/* SPDX-License-Identifier: BSD-2-Clause */
/* Many threads on few channels: nobody's wake-up is lost, nobody's I/O is stranded. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "test/unit/bdev/devices.h"

#define THREADS 16
#define ROUNDS 150
#define REGION (DEV_SIZE / THREADS)

struct user {
	pthread_t thread;
	struct bdev *dev;
	struct bdev_channel *ch;
	unsigned index;
	int rc;
};

/* Writes and reads back its own part of the device, synchronously, on a channel it shares. */
static void *write_and_read(void *arg)
{
	struct user *u = arg;
	char *a = buf_alloc(8192), *b = buf_alloc(8192);

	for (unsigned i = 0; i < ROUNDS && !u->rc; i++) {
		uint64_t at = (uint64_t)u->index * REGION + (i % 32) * 8192;
		size_t len = i % 3 ? 4096 : 8192;

		buf_fill(a, len, u->index * 1000 + i);
		u->rc = bdev_io_sync(u->ch, BDEV_WRITE, a, at, len, 0);
		if (!u->rc)
			u->rc = bdev_io_sync(u->ch, BDEV_READ, b, at, len, 0);
		if (!u->rc && memcmp(a, b, len))
			u->rc = -EILSEQ;
	}
	free(a);
	free(b);
	return NULL;
}

FOR_EACH_MODULE(bdev_channel_threads, sixteen_threads_share_two_channels)
{
	struct user u[THREADS] = { 0 };
	struct bdev_channel *ch[2];

	dev_open(t, 8, 1);
	ASSERT_OK(bdev_channel_create(t->dev, &ch[0]));
	ASSERT_OK(bdev_channel_create(t->dev, &ch[1]));
	for (unsigned i = 0; i < THREADS; i++) {
		u[i] = (struct user){ .dev = t->dev, .ch = ch[i % 2], .index = i };
		ASSERT_EQ_INT(0, pthread_create(&u[i].thread, NULL, write_and_read, &u[i]));
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(u[i].thread, NULL);
		EXPECT_OK(u[i].rc);
	}
	EXPECT_EQ_INT(0, bdev_channel_inflight(ch[0]));
	bdev_channel_destroy(ch[0]);
	bdev_channel_destroy(ch[1]);
	dev_close(t);
}

static void *borrow_write_return(void *arg)
{
	struct user *u = arg;

	for (unsigned i = 0; i < 20 && !u->rc; i++) {
		struct bdev_channel *ch = bdev_channel_borrow(u->dev);
		struct user inner = { .dev = u->dev, .ch = ch, .index = u->index };
		char *buf = buf_alloc(4096);

		buf_fill(buf, 4096, i);
		u->rc = bdev_io_sync(ch, BDEV_WRITE, buf, (uint64_t)inner.index * REGION, 4096, 0);
		bdev_channel_return(ch);
		free(buf);
	}
	return NULL;
}

FOR_EACH_MODULE(bdev_channel_threads, borrowers_grow_the_pool_at_once)
{
	struct user u[THREADS] = { 0 };

	dev_open(t, 8, 3);
	for (unsigned i = 0; i < THREADS; i++) {
		u[i] = (struct user){ .dev = t->dev, .index = i };
		ASSERT_EQ_INT(0, pthread_create(&u[i].thread, NULL, borrow_write_return, &u[i]));
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(u[i].thread, NULL);
		EXPECT_OK(u[i].rc);
	}
	dev_close(t);
}

/* ---- ops that another thread completes ---- */

struct outside {
	struct op op;
	struct bdev_channel *ch;
	atomic_bool started;
	pthread_t thread;
};

static enum op_next outside_step(struct op *op)
{
	struct outside *o = container_of(op, struct outside, op);

	if (op->step == 1)
		return op_finish(op);
	op_child_begin(op);
	atomic_store(&o->started, true);
	return op_await(op, 1, 0);
}

static void *complete_outside(void *arg)
{
	struct outside *o = arg;

	while (!atomic_load(&o->started))
		sched_yield();
	op_child_done(&o->op, 0);
	return NULL;
}

struct outsider {
	pthread_t thread;
	struct bdev_channel *ch;
};

static void *wait_for_outside(void *arg)
{
	struct outsider *w = arg;

	for (unsigned i = 0; i < 40; i++) {
		struct outside o = { .ch = w->ch };

		ASSERT_EQ_INT(0, pthread_create(&o.thread, NULL, complete_outside, &o));
		op_init(&o.op, "outside", outside_step, bdev_channel_driver(w->ch), NULL, NULL);
		op_start(&o.op);
		ASSERT_OK(op_wait(&o.op));
		pthread_join(o.thread, NULL);
	}
	return NULL;
}

FOR_EACH_MODULE(bdev_channel_threads, an_op_completed_from_outside_wakes_its_waiter_beside_others)
{
	struct outsider w[4];
	struct user u[4] = { 0 };
	struct bdev_channel *ch;

	dev_open(t, 8, 1);
	ASSERT_OK(bdev_channel_create(t->dev, &ch));
	for (unsigned i = 0; i < 4; i++) {
		w[i].ch = ch;
		u[i] = (struct user){ .dev = t->dev, .ch = ch, .index = i };
		ASSERT_EQ_INT(0, pthread_create(&w[i].thread, NULL, wait_for_outside, &w[i]));
		ASSERT_EQ_INT(0, pthread_create(&u[i].thread, NULL, write_and_read, &u[i]));
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(w[i].thread, NULL);
		pthread_join(u[i].thread, NULL);
		EXPECT_OK(u[i].rc);
	}
	bdev_channel_destroy(ch);
	dev_close(t);
}

/* ---- a sleeper on the descriptor beside threads that wait ---- */

struct sleeper {
	pthread_t thread;
	struct bdev_channel *ch;
	atomic_bool stop;
};

static void *sleep_on_descriptor(void *arg)
{
	struct sleeper *s = arg;
	struct pollfd p = { .fd = bdev_channel_fd(s->ch), .events = POLLIN };

	for (;;) {
		while (bdev_poll(s->ch))
			;
		/* Only now: a wake may have been consumed by the poll. */
		if (atomic_load(&s->stop))
			break;
		poll(&p, 1, -1);
	}
	return NULL;
}

static void run_users(struct test_dev *t, struct bdev_channel *ch, void *(*what)(void *))
{
	struct user u[6] = { 0 };

	for (unsigned i = 0; i < ARRAY_SIZE(u); i++) {
		u[i] = (struct user){ .dev = t->dev, .ch = ch, .index = i };
		ASSERT_EQ_INT(0, pthread_create(&u[i].thread, NULL, what, &u[i]));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(u); i++) {
		pthread_join(u[i].thread, NULL);
		EXPECT_OK(u[i].rc);
	}
}

static void stop_sleeper(struct sleeper *s)
{
	atomic_store(&s->stop, true);
	bdev_channel_driver(s->ch)->wake(bdev_channel_driver(s->ch));
	pthread_join(s->thread, NULL);
}

FOR_EACH_MODULE(bdev_channel_threads, waiters_and_a_sleeper_on_the_descriptor_share_a_channel)
{
	struct sleeper s = { 0 };

	dev_open(t, 8, 1);
	ASSERT_OK(bdev_channel_create(t->dev, &s.ch));
	ASSERT_EQ_INT(0, pthread_create(&s.thread, NULL, sleep_on_descriptor, &s));
	run_users(t, s.ch, write_and_read);
	stop_sleeper(&s);
	bdev_channel_destroy(s.ch);
	dev_close(t);
}

static void submit_refused(struct bdev_io *io, int rc)
{
	struct bdev_io *next = io->cb_arg;

	EXPECT_OK(rc);
	bdev_submit(io->ch, next);
}

FOR_EACH_MODULE(bdev_channel_threads, what_ends_as_it_is_submitted_by_a_waiters_callback_reaches_the_descriptor)
{
	char *a = buf_alloc(4096), *b = buf_alloc(4096);
	struct tally tally = { 0 };
	struct bdev_io first, refused;
	struct bdev_channel *ch;
	struct pollfd p;

	dev_open(t, 8, 1);
	ASSERT_OK(bdev_channel_create(t->dev, &ch));
	p = (struct pollfd){ .fd = bdev_channel_fd(ch), .events = POLLIN };
	for (unsigned i = 1; i <= 20; i++) {
		bdev_io_init_buf(&refused, BDEV_READ, a, 0, 1, tally_cb, &tally);
		bdev_io_init_buf(&first, BDEV_READ, a, 0, 4096, submit_refused, &refused);
		bdev_submit(ch, &first);
		ASSERT_OK(bdev_io_sync(ch, BDEV_READ, b, 4096, 4096, 0));
		while (atomic_load(&tally.done) < i) {
			ASSERT_EQ_INT(1, poll(&p, 1, 5000));
			while (bdev_poll(ch)) /* until it is quiet */
				;
		}
	}
	EXPECT_EQ_INT(-EINVAL, tally.rc);
	bdev_channel_destroy(ch);
	dev_close(t);
	free(a);
	free(b);
}

/* ---- a channel whose waiters do the work ---- */

/* Writes that are durable when they end, and flushes; some submitted by a thread that does not come to wait. */
static void *write_durably(void *arg)
{
	struct user *u = arg;
	char *a = buf_alloc(4096), *b = buf_alloc(4096);
	struct tally t = { 0 };
	struct bdev_io io;

	for (unsigned i = 0; i < ROUNDS / 3 && !u->rc; i++) {
		uint64_t at = (uint64_t)u->index * REGION + (i % 32) * 4096;

		buf_fill(a, 4096, u->index * 1000 + i);
		if (i % 5) {
			u->rc = bdev_io_sync(u->ch, BDEV_WRITE, a, at, 4096, BDEV_FUA);
		} else {
			bdev_io_init_buf(&io, BDEV_WRITE, a, at, 4096, tally_cb, &t);
			io.opts.flags = BDEV_FUA;
			bdev_submit(u->ch, &io);
			tally_wait(u->ch, &t, i / 5 + 1);
			u->rc = t.rc;
		}
		if (!u->rc && !(i % 7))
			u->rc = bdev_io_sync(u->ch, BDEV_FLUSH, NULL, 0, 0, 0);
		if (!u->rc)
			u->rc = bdev_io_sync(u->ch, BDEV_READ, b, at, 4096, 0);
		if (!u->rc && memcmp(a, b, 4096))
			u->rc = -EILSEQ;
	}
	free(a);
	free(b);
	return NULL;
}

FOR_EACH_MODULE(bdev_channel_threads, those_that_wait_do_the_work)
{
	struct sleeper s = { 0 };

	dev_open(t, 8, 1);
	ASSERT_OK(bdev_channel_create(t->dev, &s.ch));
	bdev_channel_wait_inline(s.ch);
	for (unsigned round = 0; round < 2; round++) {
		if (round) /* else nobody polls but those that wait */
			ASSERT_EQ_INT(0, pthread_create(&s.thread, NULL, sleep_on_descriptor, &s));
		run_users(t, s.ch, write_durably);
	}
	stop_sleeper(&s);
	bdev_channel_destroy(s.ch);
	dev_close(t);
}

FOR_EACH_MODULE(bdev_channel_threads, what_waits_for_a_waiter_is_done_after_a_kick)
{
	char *a = buf_alloc(4096), *b = buf_alloc(4096);
	struct tally tally = { 0 };
	struct bdev_io write, flush;
	struct bdev_channel *ch;
	struct pollfd p;

	dev_open(t, 8, 1);
	ASSERT_OK(bdev_channel_create(t->dev, &ch));
	bdev_channel_wait_inline(ch);
	p = (struct pollfd){ .fd = bdev_channel_fd(ch), .events = POLLIN };
	buf_fill(a, 4096, 5);
	bdev_io_init_buf(&write, BDEV_WRITE, a, 8192, 4096, tally_cb, &tally);
	write.opts.flags = BDEV_FUA;
	bdev_submit(ch, &write);
	bdev_io_init_buf(&flush, BDEV_FLUSH, NULL, 0, 0, tally_cb, &tally);
	bdev_submit(ch, &flush);
	bdev_kick(ch);
	while (tally.done < 2) {
		ASSERT_EQ_INT(1, poll(&p, 1, 10000));
		bdev_poll(ch);
	}
	EXPECT_OK(tally.rc);
	ASSERT_OK(bdev_io_sync(ch, BDEV_READ, b, 8192, 4096, 0));
	EXPECT_EQ_MEM(a, b, 4096);
	bdev_channel_destroy(ch);
	dev_close(t);
	free(a);
	free(b);
}

/* A poll that goes on: a step of it waits for somebody. */
struct held {
	struct op op;
	struct op_driver *driver;
	struct outside *first; /* ended by the same poll, before */
	atomic_bool here, go;
};

static enum op_next held_step(struct op *op)
{
	struct held *h = container_of(op, struct held, op);

	if (op->step == 0) {
		op_child_begin(op);
		return op_await(op, 1, 0);
	}
	atomic_store(&h->here, true);
	while (!atomic_load(&h->go))
		poll(NULL, 0, 1);
	return op_finish(op);
}

static void *hold_a_poll(void *arg)
{
	struct held *h = arg;

	op_init(&h->op, "held", held_step, h->driver, NULL, NULL);
	op_start(&h->op);
	op_poll_enter();
	op_child_done(&h->first->op, 0);
	op_child_done(&h->op, 0);
	op_poll_leave(h->driver);
	return NULL;
}

static void *wait_until_told(void *arg)
{
	struct outside *o = arg;

	op_init(&o->op, "outside", outside_step, bdev_channel_driver(o->ch), NULL, NULL);
	op_start(&o->op);
	ASSERT_OK(op_wait(&o->op));
	atomic_store(&o->started, false);
	return NULL;
}

/* Whose op has ended may not know it yet: polling is for one that still waits. */
FOR_EACH_MODULE(bdev_channel_threads, who_leaves_leaves_the_polling_to_one_whose_op_has_not_ended)
{
	enum { POLLER, ENDED, WAITS, N };
	struct outside o[N] = { 0 };
	struct bdev_channel *ch, *other;
	struct held h = { 0 };
	pthread_t holder;

	dev_open(t, 8, 1);
	ASSERT_OK(bdev_channel_create(t->dev, &ch));
	ASSERT_OK(bdev_channel_create(t->dev, &other));
	bdev_channel_wait_inline(ch);
	for (unsigned i = 0; i < N; i++) {
		o[i].ch = ch;
		ASSERT_EQ_INT(0, pthread_create(&o[i].thread, NULL, wait_until_told, &o[i]));
		while (!atomic_load(&o[i].started))
			sched_yield();
		poll(NULL, 0, 20); /* it sleeps, one behind the other */
	}
	h.driver = bdev_channel_driver(other);
	h.first = &o[ENDED];
	ASSERT_EQ_INT(0, pthread_create(&holder, NULL, hold_a_poll, &h));
	while (!atomic_load(&h.here))
		sched_yield();
	op_child_done(&o[POLLER].op, 0);
	pthread_join(o[POLLER].thread, NULL);
	op_child_done(&o[WAITS].op, 0);
	for (unsigned i = 0; i < 5000 && atomic_load(&o[WAITS].started); i++)
		poll(NULL, 0, 1);
	EXPECT_EQ_INT(0, atomic_load(&o[WAITS].started));
	atomic_store(&h.go, true);
	pthread_join(holder, NULL);
	pthread_join(o[ENDED].thread, NULL);
	pthread_join(o[WAITS].thread, NULL);
	bdev_channel_destroy(other);
	bdev_channel_destroy(ch);
	dev_close(t);
}

FOR_EACH_MODULE(bdev_channel_threads, many_reads_begin_before_the_last_is_submitted)
{
	char *buf;
	struct tally tally = { 0 };
	struct bdev_io io[31];
	struct bdev_channel *ch;
	struct pollfd p;

	if (strcmp(t->module, "uring") != 0)
		return;
	buf = buf_alloc(ARRAY_SIZE(io) * 4096);
	dev_open(t, 64, 1);
	ASSERT_OK(bdev_channel_create(t->dev, &ch));
	p = (struct pollfd){ .fd = bdev_channel_fd(ch), .events = POLLIN };
	for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
		bdev_io_init_buf(&io[i], BDEV_READ, buf + i * 4096, i * 4096ull, 4096, tally_cb, &tally);
		bdev_submit(ch, &io[i]);
	}
	EXPECT_EQ_INT(1, poll(&p, 1, 10000)); /* and nobody has kicked */
	bdev_kick(ch);
	tally_wait(ch, &tally, ARRAY_SIZE(io));
	EXPECT_OK(tally.rc);
	bdev_channel_destroy(ch);
	dev_close(t);
	free(buf);
}

/* ---- a thread that is gone before its I/O is back ---- */

struct leaver {
	struct bdev_channel *ch;
	struct bdev_io io[32];
	struct tally tally;
	char *buf;
};

static void *submit_and_leave(void *arg)
{
	struct leaver *l = arg;

	for (unsigned i = 0; i < ARRAY_SIZE(l->io); i++) {
		bdev_io_init_buf(&l->io[i], BDEV_WRITE, l->buf, i * 65536ull, 65536, tally_cb,
				 &l->tally);
		bdev_submit(l->ch, &l->io[i]);
	}
	bdev_kick(l->ch);
	return NULL;
}

FOR_EACH_MODULE(bdev_channel_threads, io_of_a_thread_that_exits_is_done_all_the_same)
{
	struct leaver l = { .buf = buf_alloc(65536) };
	char *back = buf_alloc(65536);
	pthread_t thread;

	dev_open(t, 0, 1);
	l.ch = bdev_channel_borrow(t->dev);
	buf_fill(l.buf, 65536, 77);
	for (unsigned round = 1; round <= 4; round++) {
		ASSERT_EQ_INT(0, pthread_create(&thread, NULL, submit_and_leave, &l));
		pthread_join(thread, NULL);
		tally_wait(l.ch, &l.tally, round * ARRAY_SIZE(l.io));
		ASSERT_OK(l.tally.rc);
	}
	ASSERT_OK(bdev_io_sync(l.ch, BDEV_READ, back, 31 * 65536ull, 65536, 0));
	EXPECT_EQ_MEM(l.buf, back, 65536);
	bdev_channel_return(l.ch);
	dev_close(t);
	free(l.buf);
	free(back);
}
