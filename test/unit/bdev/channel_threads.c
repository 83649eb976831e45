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

FOR_EACH_MODULE(bdev_channel_threads, waiters_and_a_sleeper_on_the_descriptor_share_a_channel)
{
	struct user u[6] = { 0 };
	struct sleeper s = { 0 };

	dev_open(t, 8, 1);
	ASSERT_OK(bdev_channel_create(t->dev, &s.ch));
	ASSERT_EQ_INT(0, pthread_create(&s.thread, NULL, sleep_on_descriptor, &s));
	for (unsigned i = 0; i < ARRAY_SIZE(u); i++) {
		u[i] = (struct user){ .dev = t->dev, .ch = s.ch, .index = i };
		ASSERT_EQ_INT(0, pthread_create(&u[i].thread, NULL, write_and_read, &u[i]));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(u); i++) {
		pthread_join(u[i].thread, NULL);
		EXPECT_OK(u[i].rc);
	}
	atomic_store(&s.stop, true);
	bdev_channel_driver(s.ch)->wake(bdev_channel_driver(s.ch));
	pthread_join(s.thread, NULL);
	bdev_channel_destroy(s.ch);
	dev_close(t);
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
