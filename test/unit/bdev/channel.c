/* SPDX-License-Identifier: BSD-2-Clause */
/* Channels from one thread: when callbacks come, the descriptor, the pool, indexes, ops. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "test/unit/bdev/devices.h"

static bool readable(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ms) == 1;
}

FOR_EACH_MODULE(bdev_channel, callbacks_come_in_a_poll_and_never_in_submit)
{
	struct tally tally = { 0 };
	struct bdev_channel *ch;
	struct bdev_io io[2];
	char *buf = buf_alloc(4096);

	dev_open(t, 0, 0);
	ch = bdev_channel_borrow(t->dev);
	bdev_io_init_buf(&io[0], BDEV_READ, buf, 0, 4096, tally_cb, &tally);
	bdev_io_init_buf(&io[1], BDEV_READ, buf, DEV_SIZE, 4096, tally_cb, &tally);
	bdev_submit(ch, &io[0]);
	bdev_submit(ch, &io[1]);
	bdev_kick(ch);
	poll(NULL, 0, 20);
	EXPECT_EQ_INT(0, tally.done);
	EXPECT_EQ_INT(2, bdev_channel_inflight(ch));
	tally_wait(ch, &tally, 2);
	EXPECT_ERR(-EINVAL, tally.rc);
	EXPECT_EQ_INT(0, bdev_channel_inflight(ch));
	bdev_channel_return(ch);
	dev_close(t);
	free(buf);
}

/* What opening has left (a controller's interrupt may come late) is gone after some polls, and does not come back. */
static bool becomes_quiet(struct bdev_channel *ch, int fd)
{
	bool yes = false;

	for (unsigned i = 0; i < 200 && !yes; i++) {
		while (bdev_poll(ch))
			;
		yes = !readable(fd, 10);
	}
	return yes;
}

FOR_EACH_MODULE(bdev_channel,
		the_descriptor_is_readable_for_completions_errors_and_wakes_and_quiet_after)
{
	struct tally tally = { 0 };
	struct bdev_channel *ch;
	struct bdev_io io;
	char *buf = buf_alloc(4096);
	int fd;

	dev_open(t, 0, 0);
	ASSERT_OK(bdev_channel_create(t->dev, &ch));
	fd = bdev_channel_fd(ch);
	ASSERT_GE_INT(fd, 0);
	EXPECT_TRUE(becomes_quiet(ch, fd));
	for (unsigned i = 0; i < 3; i++) {
		bdev_io_init_buf(&io, BDEV_READ, buf, i == 1 ? DEV_SIZE : 0, 4096, tally_cb,
				 &tally);
		bdev_submit(ch, &io);
		bdev_kick(ch);
		EXPECT_TRUE(readable(fd, 5000));
		tally_wait(ch, &tally, i + 1);
		while (bdev_poll(ch))
			;
		EXPECT_FALSE(readable(fd, 0));
	}
	/* A wake, twice over. */
	for (unsigned i = 0; i < 3; i++) {
		struct op_driver *d = bdev_channel_driver(ch);

		d->wake(d);
		d->wake(d);
		EXPECT_TRUE(readable(fd, 5000));
		while (bdev_poll(ch))
			;
		EXPECT_FALSE(readable(fd, 0));
	}
	bdev_channel_destroy(ch);
	dev_close(t);
	free(buf);
}

TEST(bdev_channel, the_pool_grows_with_its_borrowers_and_prefers_what_is_free)
{
	struct test_dev t = test_devs[0];
	struct bdev_channel *a, *b, *c, *d;

	dev_open(&t, 0, 3);
	a = bdev_channel_borrow(t.dev);
	bdev_channel_return(a);
	EXPECT_EQ_PTR(a, bdev_channel_borrow(t.dev)); /* the one this thread had */
	b = bdev_channel_borrow(t.dev);
	c = bdev_channel_borrow(t.dev);
	EXPECT_TRUE(a != b && b != c && a != c);
	d = bdev_channel_borrow(t.dev); /* all are in use: shared */
	EXPECT_TRUE(d == a || d == b || d == c);
	bdev_channel_return(d);
	bdev_channel_return(b);
	EXPECT_EQ_PTR(b, bdev_channel_borrow(t.dev));
	bdev_channel_return(a);
	bdev_channel_return(b);
	bdev_channel_return(c);
	EXPECT_EQ_PTR(t.dev, bdev_channel_bdev(a));
	dev_close(&t);
}

TEST(bdev_channel, indexes_are_small_unique_and_used_again)
{
	struct test_dev t = test_devs[0];
	struct bdev_channel *ch[300], *again;
	bool seen[256] = { 0 };
	unsigned n = 0, freed;
	int rc;

	dev_open(&t, 0, 1);
	while (!(rc = bdev_channel_create(t.dev, &ch[n]))) {
		unsigned i = bdev_channel_index(ch[n]);

		ASSERT_LT_INT(i, 256);
		ASSERT_FALSE(seen[i]);
		EXPECT_LT_INT(i, bdev_channels_end(t.dev));
		seen[i] = true;
		n++;
	}
	EXPECT_ERR(-ENOSPC, rc);
	EXPECT_EQ_INT(255, n); /* the pool has one */
	freed = bdev_channel_index(ch[100]);
	bdev_channel_destroy(ch[100]);
	EXPECT_EQ_INT(256, bdev_channels_end(t.dev)); /* it only grows */
	ASSERT_OK(bdev_channel_create(t.dev, &again));
	EXPECT_EQ_INT(freed, bdev_channel_index(again));
	ch[100] = again;
	while (n--)
		bdev_channel_destroy(ch[n]);
	dev_close(&t);
}

FOR_EACH_MODULE(bdev_channel, destroying_a_channel_waits_for_its_io)
{
	struct tally tally = { 0 };
	struct bdev_channel *ch;
	struct bdev_io io[20];
	char *buf = buf_alloc(65536);

	dev_open(t, 4, 0);
	ASSERT_OK(bdev_channel_create(t->dev, &ch));
	for (size_t i = 0; i < ARRAY_SIZE(io); i++) {
		bdev_io_init_buf(&io[i], BDEV_WRITE, buf, i * 65536, 65536, tally_cb, &tally);
		bdev_submit(ch, &io[i]);
	}
	bdev_channel_destroy(ch);
	EXPECT_EQ_INT(ARRAY_SIZE(io), tally.done);
	EXPECT_OK(tally.rc);
	dev_close(t);
	free(buf);
}

/* A callback that submits the next one, as deep as it likes. */
struct chain {
	struct bdev_io io;
	unsigned left;
	char *buf;
};

static void next_link(struct bdev_io *io, int rc)
{
	struct chain *c = container_of(io, struct chain, io);

	EXPECT_OK(rc);
	if (--c->left) {
		struct bdev_channel *ch = io->ch;

		bdev_io_init_buf(io, BDEV_READ, c->buf, c->left * 4096ull, 4096, next_link, NULL);
		bdev_submit(ch, io);
	}
}

FOR_EACH_MODULE(bdev_channel, callbacks_may_submit)
{
	struct chain c = { .left = 200, .buf = buf_alloc(4096) };
	struct bdev_channel *ch;

	dev_open(t, 0, 0);
	ch = bdev_channel_borrow(t->dev);
	bdev_io_init_buf(&c.io, BDEV_READ, c.buf, 0, 4096, next_link, NULL);
	bdev_submit(ch, &c.io);
	while (bdev_channel_inflight(ch))
		bdev_poll(ch);
	EXPECT_EQ_INT(0, c.left);
	bdev_channel_return(ch);
	dev_close(t);
	free(c.buf);
}

/* An op with children in two rounds. */
struct two_rounds {
	struct op op;
	struct bdev_channel *ch;
	struct bdev_io io[4];
	char *buf;
};

static enum op_next two_rounds_step(struct op *op)
{
	struct two_rounds *r = container_of(op, struct two_rounds, op);

	if (op->step == 2)
		return op_finish(op);
	for (unsigned i = 0; i < 4; i++) {
		bdev_io_init_buf(&r->io[i], op->step ? BDEV_READ : BDEV_WRITE, r->buf + i * 4096,
				 i * 4096ull, 4096, NULL, NULL);
		bdev_submit_child(r->ch, &r->io[i], op);
	}
	return op_await(op, op->step + 1, 0);
}

FOR_EACH_MODULE(bdev_channel, an_op_awaits_its_ios)
{
	struct two_rounds r = { .buf = buf_alloc(16384) };
	char *want = buf_alloc(16384);

	dev_open(t, 0, 0);
	r.ch = bdev_channel_borrow(t->dev);
	buf_fill(want, 16384, 9);
	memcpy(r.buf, want, 16384);
	op_init(&r.op, "two_rounds", two_rounds_step, bdev_channel_driver(r.ch), NULL, NULL);
	op_start(&r.op);
	EXPECT_OK(op_wait(&r.op));
	EXPECT_EQ_MEM(want, r.buf, 16384);
	bdev_channel_return(r.ch);
	dev_close(t);
	free(r.buf);
	free(want);
}

TEST(bdev_channel, numbers_count_what_callers_asked_for)
{
	struct test_dev t = test_devs[0];
	struct bdev_channel *own;
	struct bdev_stats s;
	char *buf = buf_alloc(4 << 20);

	dev_open(&t, 0, 0);
	ASSERT_OK(bdev_channel_create(t.dev, &own));
	ASSERT_OK(bdev_io_sync(own, BDEV_WRITE, buf, 0, 4 << 20, 0)); /* split, but one */
	bdev_channel_destroy(own);
	ASSERT_OK(dev_io(t.dev, BDEV_READ, buf + 1, 0, 8192, 0));
	ASSERT_OK(dev_io(t.dev, BDEV_DISCARD, NULL, 0, 8192, 0));
	EXPECT_ERR(-EINVAL, dev_io(t.dev, BDEV_READ, buf, 1, 8192, 0));
	bdev_get_stats(t.dev, &s);
	EXPECT_EQ_INT(1, s.writes);
	EXPECT_EQ_INT(4 << 20, s.write_bytes);
	EXPECT_EQ_INT(1, s.reads);
	EXPECT_EQ_INT(8192, s.read_bytes);
	EXPECT_EQ_INT(1, s.discards);
	EXPECT_EQ_INT(1, s.errors);
	dev_close(&t);
	free(buf);
}
