/* SPDX-License-Identifier: BSD-2-Clause */
/* A controller that misbehaves: every command is called back exactly once, and nothing hangs. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "nvme/internal.h"
#include "test/shim/test.h"
#include "test/unit/nvme/peer.h"

enum { N = 40 };

struct rig {
	struct peer p;
	struct nvme_ctrlr *c;
	struct nvme_qpair *q;
	char *buf;
	struct todo d[N];
};

static void rig_start(struct rig *r, uint32_t timeout_ms)
{
	struct nvme_opts o = { .size = sizeof(o), .timeout_ms = timeout_ms };

	base_log_set_sink(quiet, NULL);
	peer_start(&r->p, NULL);
	peer_attach(&r->p, &o, &r->c);
	ASSERT_OK(nvme_qpair_create(r->c, 16, &r->q));
	r->buf = nvme_alloc(N * 4096, 0);
	ASSERT_TRUE(r->buf);
	fill(r->buf, N * 4096, 3);
}

static void submit_all(struct rig *r, enum nvme_op op)
{
	for (unsigned i = 0; i < N; i++) {
		todo_init(&r->d[i], op, i * 8, 8, r->buf + i * 4096, 4096);
		nvme_submit(r->q, &r->d[i].cmd);
	}
}

/* The same, and the controller has them and does nothing. */
static void hold_all(struct rig *r, enum nvme_op op)
{
	atomic_store(&r->p.t->f.hold, true);
	submit_all(r, op);
	nvme_poll(r->q, 0);
}

/* Waits for all of them; returns how many failed, each with rc. */
static unsigned wait_all(struct rig *r, int rc)
{
	unsigned failed = 0;

	for (unsigned i = 0; i < N; i++) {
		int got = todo_wait(r->q, &r->d[i]);

		if (got) {
			EXPECT_ERR(rc, got);
			failed++;
		}
	}
	for (unsigned i = 0; i < 1000; i++)
		nvme_poll(r->q, 0);
	for (unsigned i = 0; i < N; i++)
		EXPECT_EQ_INT(1, r->d[i].calls);
	EXPECT_EQ_INT(0, nvme_outstanding(r->q));
	return failed;
}

static void rig_stop(struct rig *r)
{
	nvme_qpair_free(r->q);
	nvme_free(r->buf);
	nvme_detach(r->c);
	peer_stop(&r->p);
	base_log_set_sink(NULL, NULL);
}

TEST(nvme_error, what_may_be_repeated_is_and_what_may_not_is_not)
{
	struct rig r;

	rig_start(&r, 0);
	atomic_store(&r.p.t->f.fail_status, NVME_SC_INTERNAL);
	atomic_store(&r.p.t->f.fail, 4);
	EXPECT_OK(do_cmd(r.q, NVME_READ, 0, 8, r.buf, 4096));
	EXPECT_EQ_INT(5, atomic_load(&r.p.t->n.commands));
	atomic_store(&r.p.t->f.fail, 5);
	EXPECT_ERR(-EIO, do_cmd(r.q, NVME_READ, 0, 8, r.buf, 4096));
	EXPECT_EQ_INT(10, atomic_load(&r.p.t->n.commands));
	atomic_store(&r.p.t->f.fail_status, NVME_SC_READ_ERROR | 0x4000);
	atomic_store(&r.p.t->f.fail, 1);
	todo_init(&r.d[0], NVME_READ, 0, 8, r.buf, 4096);
	nvme_submit(r.q, &r.d[0].cmd);
	EXPECT_ERR(-EIO, todo_wait(r.q, &r.d[0]));
	EXPECT_EQ_INT(NVME_SC_READ_ERROR, r.d[0].cmd.status);
	EXPECT_EQ_INT(11, atomic_load(&r.p.t->n.commands));
	rig_stop(&r);
}

/* "The firmware is activated by a reset" is good news of one command only. */
TEST(nvme_error, what_is_no_success_of_a_read_is_an_error)
{
	static const uint16_t codes[] = { NVME_SC_FIRMWARE_CONVENTIONAL_RESET,
					  NVME_SC_FIRMWARE_SUBSYSTEM_RESET,
					  NVME_SC_FIRMWARE_CONTROLLER_RESET };
	struct rig r;

	rig_start(&r, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
		atomic_store(&r.p.t->f.fail_status, codes[i] | 0x4000);
		atomic_store(&r.p.t->f.fail, 1);
		EXPECT_ERR(-EIO, do_cmd(r.q, NVME_READ, 0, 8, r.buf, 4096));
	}
	for (uint16_t code = 1; code <= 0x7ff; code++)
		EXPECT_LT_INT(nvme_status_errno(code), 0);
	rig_stop(&r);
}

TEST(nvme_error, a_split_command_with_a_bad_part_fails_once)
{
	struct rig r;
	char *big;

	rig_start(&r, 0);
	big = nvme_alloc(4 * MiB, 0);
	ASSERT_TRUE(big);
	atomic_store(&r.p.t->f.fail_status, NVME_SC_WRITE_FAULT | 0x4000);
	atomic_store(&r.p.t->f.fail, 2);
	EXPECT_ERR(-EIO, do_cmd(r.q, NVME_WRITE, 0, 8192, big, 4 * MiB));
	EXPECT_OK(do_cmd(r.q, NVME_WRITE, 0, 8192, big, 4 * MiB));
	nvme_free(big);
	rig_stop(&r);
}

TEST(nvme_error, late_commands_are_aborted)
{
	struct rig r;

	rig_start(&r, 400);
	atomic_store(&r.p.t->f.stick, 3);
	submit_all(&r, NVME_READ);
	EXPECT_EQ_INT(3, wait_all(&r, -ETIMEDOUT));
	EXPECT_EQ_INT(3, atomic_load(&r.p.t->n.aborts));
	EXPECT_EQ_INT(1, atomic_load(&r.p.t->n.enables));
	rig_stop(&r);
}

/* Polls as seldom as allowed, or after pauses of its own; how long it took. */
static uint64_t time_it(struct rig *r, unsigned pause_ms)
{
	uint64_t start;

	for (unsigned i = 0; i < 200; i++)
		nvme_poll(r->q, 0);
	todo_init(&r->d[0], NVME_READ, 0, 8, r->buf, 4096);
	atomic_store(&r->p.t->f.stick, 1);
	start = nvme_now_ns();
	nvme_submit(r->q, &r->d[0].cmd);
	while (!r->d[0].calls && nvme_now_ns() - start < 5000000000ull) {
		nvme_poll(r->q, 0);
		nvme_sleep_us(1000 * (pause_ms ? pause_ms : (unsigned)nvme_poll_interval_ms(r->q)));
	}
	EXPECT_EQ_INT(1, r->d[0].calls);
	EXPECT_ERR(-ETIMEDOUT, r->d[0].rc);
	return nvme_now_ns() - start;
}

TEST(nvme_error, a_timeout_holds_however_seldom_is_polled)
{
	struct rig r;

	rig_start(&r, 100);
	EXPECT_LT_INT(time_it(&r, 0), 1500000000);
	EXPECT_LT_INT(time_it(&r, 5), 1500000000);
	rig_stop(&r);
}

TEST(nvme_error, lost_completions_end_in_a_reset_and_the_rest_goes_on)
{
	struct rig r;

	rig_start(&r, 400);
	atomic_store(&r.p.t->f.lose, 2);
	submit_all(&r, NVME_WRITE);
	EXPECT_EQ_INT(2, wait_all(&r, -ETIMEDOUT));
	EXPECT_EQ_INT(2, atomic_load(&r.p.t->n.enables));
	submit_all(&r, NVME_COMPARE);
	EXPECT_EQ_INT(0, wait_all(&r, 0));
	rig_stop(&r);
}

TEST(nvme_error, completions_that_come_twice_or_for_nothing_are_dropped)
{
	struct rig r;

	rig_start(&r, 0);
	atomic_store(&r.p.t->f.duplicate, 10);
	atomic_store(&r.p.t->f.wrong_cid, 10);
	submit_all(&r, NVME_WRITE);
	EXPECT_EQ_INT(0, wait_all(&r, 0));
	EXPECT_EQ_INT(20, r.q->strays);
	submit_all(&r, NVME_COMPARE);
	EXPECT_EQ_INT(0, wait_all(&r, 0));
	rig_stop(&r);
}

TEST(nvme_error, a_reset_loses_no_command)
{
	struct rig r;

	rig_start(&r, 0);
	for (int i = 0; i < 5; i++) {
		hold_all(&r, i % 2 ? NVME_COMPARE : NVME_WRITE);
		ASSERT_OK(nvme_reset(r.c));
		atomic_store(&r.p.t->f.hold, false);
		EXPECT_EQ_INT(0, wait_all(&r, 0));
	}
	EXPECT_EQ_INT(6, atomic_load(&r.p.t->n.enables));
	rig_stop(&r);
}

TEST(nvme_error, a_fatal_status_is_seen_and_reset)
{
	struct rig r;

	rig_start(&r, 800);
	atomic_store(&r.p.t->f.cfs, true);
	submit_all(&r, NVME_WRITE);
	EXPECT_EQ_INT(0, wait_all(&r, 0));
	EXPECT_EQ_INT(2, atomic_load(&r.p.t->n.enables));
	rig_stop(&r);
}

static void expect_gone(struct rig *r)
{
	struct nvme_qpair *q;

	EXPECT_EQ_INT(N, wait_all(r, -ENODEV));
	EXPECT_TRUE(nvme_failed(r->c));
	EXPECT_ERR(-ENODEV, do_cmd(r->q, NVME_READ, 0, 8, r->buf, 4096));
	EXPECT_ERR(-ENODEV, nvme_qpair_create(r->c, 0, &q));
	EXPECT_ERR(-ENODEV, nvme_reset(r->c));
	rig_stop(r);
}

TEST(nvme_error, registers_of_all_ones_mean_that_it_is_gone)
{
	struct rig r;

	rig_start(&r, 400);
	hold_all(&r, NVME_WRITE);
	atomic_store(&r.p.t->f.all_ones, true);
	expect_gone(&r);
}

TEST(nvme_error, a_server_that_hangs_up_ends_everything)
{
	struct rig r;

	rig_start(&r, 0);
	hold_all(&r, NVME_WRITE);
	atomic_store(&r.p.t->f.hang_up, true);
	expect_gone(&r);
}

TEST(nvme_error, a_controller_that_does_not_come_back_from_a_reset_is_given_up)
{
	struct rig r;

	rig_start(&r, 0);
	hold_all(&r, NVME_WRITE);
	atomic_store(&r.p.t->f.never_ready, true);
	EXPECT_ERR(-ENODEV, nvme_reset(r.c));
	expect_gone(&r);
}

TEST(nvme_error, fewer_queues_after_a_reset_are_enough_if_those_in_use_are_among_them)
{
	struct nvme_qpair *more[2];
	struct rig r;

	rig_start(&r, 0);
	ASSERT_OK(nvme_qpair_create(r.c, 4, &more[0]));
	atomic_store(&r.p.t->f.queues, 2);
	EXPECT_OK(nvme_reset(r.c));
	EXPECT_OK(do_cmd(r.q, NVME_READ, 0, 8, r.buf, 4096));
	EXPECT_OK(do_cmd(more[0], NVME_READ, 0, 8, r.buf, 4096));
	EXPECT_ERR(-ENOSPC, nvme_qpair_create(r.c, 4, &more[1]));
	atomic_store(&r.p.t->f.queues, 3);
	EXPECT_OK(nvme_reset(r.c));
	ASSERT_OK(nvme_qpair_create(r.c, 4, &more[1]));
	atomic_store(&r.p.t->f.queues, 2);
	EXPECT_ERR(-ENODEV, nvme_reset(r.c));
	EXPECT_ERR(-ENODEV, do_cmd(r.q, NVME_READ, 0, 8, r.buf, 4096));
	nvme_qpair_free(more[0]);
	nvme_qpair_free(more[1]);
	rig_stop(&r);
}

/* ---- a controller that is another after a reset ---- */

TEST(nvme_error, what_was_counted_in_other_blocks_is_not_sent_again)
{
	struct nvme_ns_info ns;
	struct rig r;

	rig_start(&r, 0);
	hold_all(&r, NVME_READ);
	/* Somebody else formats it. */
	r.p.t->block = 4096;
	ASSERT_OK(nvme_reset(r.c));
	atomic_store(&r.p.t->f.hold, false);
	EXPECT_EQ_INT(N, wait_all(&r, -ENODEV));
	ASSERT_OK(nvme_ns_get(r.c, 1, &ns));
	EXPECT_EQ_INT(4096, ns.block_size);
	EXPECT_OK(do_cmd(r.q, NVME_READ, 0, 1, r.buf, 4096));
	EXPECT_ERR(-EINVAL, do_cmd(r.q, NVME_READ, 0, 8, r.buf, 4096));
	/* And again, as it was. */
	atomic_store(&r.p.t->f.hold, true);
	todo_init(&r.d[0], NVME_READ, 0, 1, r.buf, 4096);
	nvme_submit(r.q, &r.d[0].cmd);
	r.p.t->block = 512;
	ASSERT_OK(nvme_reset(r.c));
	atomic_store(&r.p.t->f.hold, false);
	EXPECT_ERR(-ENODEV, todo_wait(r.q, &r.d[0]));
	EXPECT_OK(do_cmd(r.q, NVME_READ, 0, 8, r.buf, 4096));
	rig_stop(&r);
}

TEST(nvme_error, a_namespace_that_is_gone_after_a_reset_ends_its_commands)
{
	struct rig r;

	rig_start(&r, 0);
	hold_all(&r, NVME_WRITE);
	atomic_store(&r.p.t->f.bad_ns, 1);
	ASSERT_OK(nvme_reset(r.c));
	atomic_store(&r.p.t->f.hold, false);
	for (unsigned i = 0; i < N; i++)
		EXPECT_LT_INT(todo_wait(r.q, &r.d[i]), 0);
	EXPECT_EQ_INT(0, atomic_load(&r.p.t->n.commands));
	atomic_store(&r.p.t->f.bad_ns, 0);
	ASSERT_OK(nvme_reset(r.c));
	EXPECT_OK(do_cmd(r.q, NVME_READ, 0, 8, r.buf, 4096));
	rig_stop(&r);
}

TEST(nvme_error, a_controller_that_takes_less_at_once_after_a_reset_gets_less)
{
	struct rig r;

	rig_start(&r, 0);
	EXPECT_OK(do_cmd(r.q, NVME_READ, 0, 128, r.buf, 65536));
	EXPECT_EQ_INT(128, atomic_load(&r.p.t->n.largest));
	atomic_store(&r.p.t->f.mdts, 1);
	ASSERT_OK(nvme_reset(r.c));
	EXPECT_EQ_INT(8192, nvme_info(r.c)->max_transfer);
	atomic_store(&r.p.t->n.largest, 0);
	EXPECT_OK(do_cmd(r.q, NVME_READ, 0, 128, r.buf, 65536));
	EXPECT_EQ_INT(16, atomic_load(&r.p.t->n.largest));
	rig_stop(&r);
}

TEST(nvme_error, what_transfers_nothing_is_less_then_too_though_metadata_kept_transfers_short_before)
{
	struct rig r;

	rig_start(&r, 0);
	atomic_store(&r.p.t->f.metadata, 64);
	ASSERT_OK(nvme_reset(r.c));
	EXPECT_OK(do_cmd(r.q, NVME_WRITE_ZEROES, 0, 256, NULL, 0));
	/* 64 blocks of a transfer before and after, and 128 of what is none. */
	atomic_store(&r.p.t->f.mdts, 4);
	ASSERT_OK(nvme_reset(r.c));
	EXPECT_OK(do_cmd(r.q, NVME_WRITE_ZEROES, 0, 256, NULL, 0));
	EXPECT_OK(do_cmd(r.q, NVME_VERIFY, 0, 256, NULL, 0));
	EXPECT_EQ_INT(1 + 2 + 2, atomic_load(&r.p.t->n.commands));
	rig_stop(&r);
}

/* ---- resets that mend nothing ---- */

/* As if the time of the queues that are being made had passed. */
static void hurry(struct nvme_ctrlr *c)
{
	pthread_mutex_lock(&c->lock);
	for (unsigned i = 0; i < ADMIN_SLOTS; i++)
		if (c->admin.slot[i].state == ADMIN_SENT && c->admin.slot[i].opcode == NVME_ADMIN_CREATE_CQ)
			c->admin.slot[i].deadline_ns = 0;
	pthread_mutex_unlock(&c->lock);
}

static bool poll_until(struct rig *r, struct nvme_qpair *q, const struct todo *d)
{
	uint64_t end = nvme_now_ns() + 10000000000ull;

	while (!d->calls && nvme_now_ns() < end) {
		nvme_poll(q, 0);
		hurry(r->c);
	}
	return d->calls;
}

TEST(nvme_error, a_controller_that_makes_no_queues_again_is_given_up)
{
	struct rig r;

	rig_start(&r, 0);
	atomic_store(&r.p.t->f.no_queues, true);
	hold_all(&r, NVME_READ);
	ASSERT_OK(nvme_reset(r.c));
	ASSERT_TRUE(poll_until(&r, r.q, &r.d[N - 1]));
	/* The one that was asked for, and those that are tried. */
	EXPECT_EQ_INT(2 + 6, atomic_load(&r.p.t->n.enables));
	expect_gone(&r);
}

TEST(nvme_error, a_queue_pair_that_cannot_be_made_again_does_not_live_on_the_io_of_others)
{
	struct nvme_qpair *q;
	struct todo d;
	struct rig r;

	rig_start(&r, 0);
	ASSERT_OK(nvme_qpair_create(r.c, 4, &q));
	todo_init(&d, NVME_READ, 0, 8, r.buf, 4096);
	for (unsigned i = 0; !d.calls && i < 20; i++) {
		atomic_store(&r.p.t->f.hold, true);
		if (!i)
			nvme_submit(q, &d.cmd);
		nvme_poll(q, 0);
		if (!i)
			ASSERT_OK(nvme_reset(r.c));
		else
			ctrlr_await_reset(r.c);
		atomic_store(&r.p.t->f.hold, false);
		/* The other one is there again, and at work. */
		if (!nvme_failed(r.c))
			EXPECT_OK(do_cmd(r.q, NVME_READ, 0, 8, r.buf, 4096));
		atomic_store(&r.p.t->f.no_queues, true);
		for (unsigned epoch = atomic_load(&r.c->epoch); !d.calls && epoch == atomic_load(&r.c->epoch);) {
			nvme_poll(q, 0);
			hurry(r.c);
		}
		atomic_store(&r.p.t->f.no_queues, false);
	}
	if (!d.calls)
		nvme_poll(q, 0);
	EXPECT_EQ_INT(1, d.calls);
	EXPECT_ERR(-ENODEV, d.rc);
	EXPECT_TRUE(nvme_failed(r.c));
	nvme_qpair_free(q);
	rig_stop(&r);
}

TEST(nvme_error, a_late_command_ends_when_the_controller_was_stopped_whatever_comes_of_its_queue)
{
	struct rig r;

	rig_start(&r, 100);
	atomic_store(&r.p.t->f.hold, true);
	atomic_store(&r.p.t->f.no_queues, true);
	todo_init(&r.d[0], NVME_READ, 0, 8, r.buf, 4096);
	nvme_submit(r.q, &r.d[0].cmd);
	EXPECT_ERR(-ETIMEDOUT, todo_wait(r.q, &r.d[0]));
	EXPECT_FALSE(nvme_failed(r.c));
	EXPECT_EQ_INT(2, atomic_load(&r.p.t->n.enables));
	atomic_store(&r.p.t->f.no_queues, false);
	atomic_store(&r.p.t->f.hold, false);
	hurry(r.c);
	EXPECT_OK(do_cmd(r.q, NVME_READ, 0, 8, r.buf, 4096));
	rig_stop(&r);
}

/* ---- a reset that takes its time ---- */

struct sleeper {
	struct rig *r;
	struct nvme_qpair *q;
	struct todo d;
	unsigned polls;
	int rc;
};

/* As a thread waits that has something better to do than to spin. */
static void *sleep_for_it(void *arg)
{
	struct sleeper *s = arg;
	struct pollfd fd = { .fd = nvme_qpair_fd(s->q), .events = POLLIN };

	while (!s->d.calls) {
		nvme_poll(s->q, 0);
		s->polls++;
		if (!s->d.calls && !nvme_qpair_arm(s->q))
			poll(&fd, 1, nvme_poll_interval_ms(s->q));
	}
	s->rc = s->d.rc;
	return NULL;
}

TEST(nvme_error, a_slow_reset_holds_up_no_poll_and_a_sleeper_sleeps_through_it)
{
	struct nvme_opts o = { .size = sizeof(o), .interrupts = true };
	uint64_t start, longest = 0, before, t;
	struct sleeper s = { 0 };
	unsigned polls = 0;
	pthread_t thread;
	struct rig r;

	base_log_set_sink(quiet, NULL);
	peer_start(&r.p, NULL);
	peer_attach(&r.p, &o, &r.c);
	ASSERT_OK(nvme_qpair_create(r.c, 16, &r.q));
	ASSERT_OK(nvme_qpair_create(r.c, 16, &s.q));
	r.buf = nvme_alloc(N * 4096, 0);
	ASSERT_TRUE(r.buf);
	fill(r.buf, N * 4096, 3);

	atomic_store(&r.p.t->f.hold, true);
	todo_init(&s.d, NVME_READ, 0, 8, r.buf, 4096);
	s.r = &r;
	nvme_submit(s.q, &s.d.cmd);
	nvme_kick(s.q);
	ASSERT_OK(pthread_create(&thread, NULL, sleep_for_it, &s));
	submit_all(&r, NVME_WRITE);
	nvme_poll(r.q, 0);
	atomic_store(&r.p.t->f.ready_ms, 600);
	begin_reset(r.c);
	atomic_store(&r.p.t->f.hold, false);

	start = before = nvme_now_ns();
	while (nvme_outstanding(r.q)) {
		nvme_poll(r.q, 0);
		t = nvme_now_ns();
		longest = MAX(longest, t - before);
		before = t;
		polls++;
	}
	EXPECT_GE_INT(before - start, 500000000);
	/* Not what the machine does to a thread, but a fraction of what the controller took. */
	EXPECT_LT_INT(longest, 250000000);
	EXPECT_GE_INT(polls, 1000);
	EXPECT_EQ_INT(0, wait_all(&r, 0));
	pthread_join(thread, NULL);
	EXPECT_OK(s.rc);
	EXPECT_EQ_INT(1, s.d.calls);
	EXPECT_LT_INT(s.polls, 2000);
	EXPECT_EQ_INT(2, atomic_load(&r.p.t->n.enables));
	nvme_qpair_free(s.q);
	rig_stop(&r);
}

TEST(nvme_error, a_reset_in_the_middle_of_a_reset_of_queues_begins_anew)
{
	struct rig r;

	rig_start(&r, 0);
	for (unsigned i = 0; i < 20; i++) {
		hold_all(&r, NVME_WRITE);
		ASSERT_OK(nvme_reset(r.c));
		/* Some of its queues are being made when the next one comes. */
		for (unsigned n = 0; n < i; n++)
			nvme_poll(r.q, 0);
		ASSERT_OK(nvme_reset(r.c));
		atomic_store(&r.p.t->f.hold, false);
		EXPECT_EQ_INT(0, wait_all(&r, 0));
	}
	EXPECT_EQ_INT(41, atomic_load(&r.p.t->n.enables));
	rig_stop(&r);
}

TEST(nvme_error, a_queue_pair_may_be_freed_during_a_reset)
{
	struct nvme_qpair *q;
	struct todo d;
	struct rig r;

	rig_start(&r, 0);
	ASSERT_OK(nvme_qpair_create(r.c, 4, &q));
	atomic_store(&r.p.t->f.hold, true);
	todo_init(&d, NVME_READ, 0, 8, r.buf, 4096);
	nvme_submit(q, &d.cmd);
	nvme_poll(q, 0);
	atomic_store(&r.p.t->f.ready_ms, 100);
	begin_reset(r.c);
	nvme_qpair_free(q);
	EXPECT_EQ_INT(1, d.calls);
	EXPECT_ERR(-ECANCELED, d.rc);
	atomic_store(&r.p.t->f.hold, false);
	EXPECT_OK(do_cmd(r.q, NVME_READ, 0, 8, r.buf, 4096));
	rig_stop(&r);
}
