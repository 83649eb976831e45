/* SPDX-License-Identifier: BSD-2-Clause */
/* The engine of ops on a driver made for it: children complete when the test's thread or another says so. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/op.h"
#include "base/util.h"
#include "test/shim/test.h"

enum { FIRST, SECOND, THIRD, ON_ERROR };

struct fake_driver {
	struct op_driver d;
	struct op *child_of; /* completed by the next poll */
	int child_rc;
	int children;
	int wakes;
};

static void fake_wake(struct op_driver *d)
{
	container_of(d, struct fake_driver, d)->wakes++;
}

static int fake_poll(struct fake_driver *f)
{
	op_poll_enter();
	for (; f->children; f->children--)
		op_child_done(f->child_of, f->child_rc);
	return op_poll_leave(&f->d);
}

static void fake_wait(struct op_driver *d, struct op *op)
{
	struct fake_driver *f = container_of(d, struct fake_driver, d);

	while (!op_is_done(op) && atomic_load(&op->driver) == d)
		fake_poll(f);
}

static struct fake_driver driver_new(void)
{
	return (struct fake_driver){ .d = { .wait = fake_wait, .wake = fake_wake } };
}

struct work {
	struct op op;
	struct fake_driver *f, *other;
	char trail[64]; /* the steps that ran, a letter each */
	int start_children, start_rc, own_rc;
	int done_calls, done_rc;
	bool use_on_error, error_fails;
};

static void mark(struct work *w, const char *letter)
{
	strcat(w->trail, letter);
}

static void work_done(struct op *op, void *arg)
{
	struct work *w = arg;

	w->done_calls++;
	w->done_rc = op->rc;
}

static enum op_next work_fn(struct op *op)
{
	struct work *w = container_of(op, struct work, op);
	int i;

	switch (op->step) {
	case FIRST:
		mark(w, "1");
		op->on_error = w->use_on_error ? ON_ERROR : OP_NO_STEP;
		for (i = 0; i < w->start_children; i++) {
			op_child_begin(op);
			w->f->child_of = op;
			w->f->children++;
		}
		return op_await(op, SECOND, w->start_rc);
	case SECOND:
		mark(w, "2");
		if (w->own_rc)
			return op_fail(op, w->own_rc);
		return op_goto(op, THIRD);
	case THIRD:
		mark(w, "3");
		return op_finish(op);
	case ON_ERROR:
		mark(w, "e");
		if (w->error_fails)
			return op_fail(op, -EXDEV);
		return op_finish(op);
	}
	return op_bug(op);
}

static void work_init(struct work *w, struct fake_driver *f, bool with_done)
{
	memset(w, 0, sizeof(*w));
	w->f = f;
	op_init(&w->op, "work", work_fn, &f->d, with_done ? work_done : NULL, w);
}

TEST(op, runs_steps_in_order_when_nothing_is_awaited)
{
	struct fake_driver f = driver_new();
	struct work w;

	work_init(&w, &f, false);
	op_start(&w.op);
	EXPECT_TRUE(op_is_done(&w.op));
	EXPECT_OK(op_wait(&w.op));
	EXPECT_STREQ("123", w.trail);
}

TEST(op, goes_on_when_the_last_child_is_done)
{
	struct fake_driver f = driver_new();
	struct work w;

	work_init(&w, &f, false);
	w.start_children = 3;
	op_start(&w.op);
	EXPECT_STREQ("1", w.trail);
	EXPECT_FALSE(op_is_done(&w.op));
	op_poll_enter();
	op_child_done(&w.op, 0);
	op_child_done(&w.op, 0);
	EXPECT_EQ_INT(0, op_poll_leave(&f.d));
	EXPECT_STREQ("1", w.trail);
	f.children = 1;
	EXPECT_OK(op_wait(&w.op));
	EXPECT_STREQ("123", w.trail);
}

TEST(op, keeps_the_first_error_of_its_children_and_skips_the_step)
{
	struct fake_driver f = driver_new();
	struct work w;

	work_init(&w, &f, false);
	w.start_children = 3;
	op_start(&w.op);
	op_poll_enter();
	op_child_done(&w.op, 0);
	op_child_done(&w.op, -EIO);
	op_child_done(&w.op, -ENOSPC);
	f.children = 0;
	EXPECT_EQ_INT(1, op_poll_leave(&f.d));
	EXPECT_ERR(-EIO, op_wait(&w.op));
	EXPECT_STREQ("1", w.trail);
}

TEST(op, goes_to_the_error_step_and_keeps_the_error)
{
	struct fake_driver f = driver_new();
	struct work w;

	work_init(&w, &f, false);
	w.use_on_error = true;
	w.start_children = 1;
	f.child_rc = -EIO;
	op_start(&w.op);
	EXPECT_ERR(-EIO, op_wait(&w.op));
	EXPECT_STREQ("1e", w.trail);
	EXPECT_EQ_INT(OP_NO_STEP, w.op.on_error);
}

TEST(op, ends_when_the_error_step_fails_and_keeps_the_first_error)
{
	struct fake_driver f = driver_new();
	struct work w;

	work_init(&w, &f, false);
	w.use_on_error = w.error_fails = true;
	w.own_rc = -EINVAL;
	op_start(&w.op);
	EXPECT_ERR(-EINVAL, op_wait(&w.op));
	EXPECT_STREQ("12e", w.trail);
}

TEST(op, waits_for_children_in_flight_when_starting_another_failed)
{
	struct fake_driver f = driver_new();
	struct work w;

	work_init(&w, &f, false);
	w.use_on_error = true;
	w.start_children = 2;
	w.start_rc = -ENOMEM;
	op_start(&w.op);
	EXPECT_STREQ("1", w.trail);
	EXPECT_FALSE(op_is_done(&w.op));
	EXPECT_ERR(-ENOMEM, op_wait(&w.op));
	EXPECT_STREQ("1e", w.trail);
	EXPECT_EQ_INT(0, f.children);
}

TEST(op, fails_at_once_when_starting_failed_and_no_child_is_out)
{
	struct fake_driver f = driver_new();
	struct work w;

	work_init(&w, &f, false);
	w.start_rc = -ENOMEM;
	op_start(&w.op);
	EXPECT_TRUE(op_is_done(&w.op));
	EXPECT_ERR(-ENOMEM, op_wait(&w.op));
}

TEST(op, never_calls_the_user_before_op_start_has_returned)
{
	struct fake_driver f = driver_new();
	struct work w;

	work_init(&w, &f, true);
	op_start(&w.op);
	EXPECT_STREQ("123", w.trail);
	EXPECT_EQ_INT(0, w.done_calls);
	EXPECT_EQ_INT(1, f.wakes);
	EXPECT_EQ_INT(1, fake_poll(&f));
	EXPECT_EQ_INT(1, w.done_calls);
	EXPECT_EQ_INT(0, fake_poll(&f));
	EXPECT_EQ_INT(1, w.done_calls);
}

TEST(op, calls_the_user_once_with_the_error)
{
	struct fake_driver f = driver_new();
	struct work w;

	work_init(&w, &f, true);
	w.start_children = 2;
	f.child_rc = -EIO;
	op_start(&w.op);
	EXPECT_EQ_INT(0, w.done_calls);
	EXPECT_EQ_INT(1, fake_poll(&f));
	EXPECT_EQ_INT(1, w.done_calls);
	EXPECT_ERR(-EIO, w.done_rc);
}

TEST(op, is_not_run_by_a_child_done_outside_a_poll_but_queued_and_woken)
{
	struct fake_driver f = driver_new();
	struct work w;

	work_init(&w, &f, false);
	w.start_children = 1;
	op_start(&w.op);
	f.children = 0;
	op_child_done(&w.op, 0);
	EXPECT_STREQ("1", w.trail);
	EXPECT_EQ_INT(1, f.wakes);
	EXPECT_OK(op_wait(&w.op));
	EXPECT_STREQ("123", w.trail);
}

TEST(op, nested_polls_run_ops_only_at_the_outermost_leave)
{
	struct fake_driver f = driver_new(), inner = driver_new();
	struct work w, in;

	work_init(&w, &f, false);
	work_init(&in, &inner, true);
	w.start_children = 1;
	op_start(&w.op);
	op_start(&in.op); /* has ended, and is on its driver's list */
	op_poll_enter();
	op_poll_enter();
	op_child_done(&w.op, 0);
	f.children = 0;
	EXPECT_EQ_INT(0, op_poll_leave(&inner.d));
	EXPECT_STREQ("1", w.trail);
	EXPECT_EQ_INT(0, in.done_calls);
	EXPECT_EQ_INT(2, op_poll_leave(&f.d));
	EXPECT_STREQ("123", w.trail);
	EXPECT_EQ_INT(1, in.done_calls);
}

/* Two that wait for each other in turn, until something else happens. */
struct pingpong {
	struct op op;
	struct pingpong *other;
	bool *over;
};

static enum op_next pingpong_fn(struct op *op)
{
	struct pingpong *p = container_of(op, struct pingpong, op);

	if (*p->over)
		return op_finish(op);
	op_child_begin(op);
	if (op->step)
		op_child_done(&p->other->op, 0);
	return op_await(op, SECOND, 0);
}

TEST(op, ops_that_make_each_other_ready_without_end_keep_nobody_from_the_device)
{
	struct fake_driver f = driver_new();
	struct pingpong a = { .other = NULL }, b = { .other = &a };
	bool over = false;
	int polls;

	a.other = &b;
	a.over = b.over = &over;
	op_init(&a.op, "a", pingpong_fn, &f.d, NULL, NULL);
	op_init(&b.op, "b", pingpong_fn, &f.d, NULL, NULL);
	op_start(&a.op);
	op_start(&b.op);
	f.child_of = &a.op;
	f.children = 1;
	for (polls = 0; polls < 10; polls++)
		EXPECT_GT_INT(fake_poll(&f), 0);
	EXPECT_GT_INT(f.wakes, 9);
	over = true; /* the device's turn */
	fake_poll(&f);
	if (op_is_done(&a.op))
		op_child_done(&b.op, 0);
	else
		op_child_done(&a.op, 0);
	fake_poll(&f);
	EXPECT_TRUE(op_is_done(&a.op) && op_is_done(&b.op));
}

static int order[8], order_count;

static void note_order(struct op *op, void *arg)
{
	(void)op;
	order[order_count++] = *(int *)arg;
}

static enum op_next end_at_once(struct op *op)
{
	return op_finish(op);
}

TEST(op, ready_ops_run_in_the_order_they_became_ready)
{
	struct fake_driver f = driver_new();
	int ids[4] = { 0, 1, 2, 3 };
	struct op ops[4];

	order_count = 0;
	for (int i = 0; i < 4; i++) {
		op_init(&ops[i], "ordered", end_at_once, &f.d, note_order, &ids[i]);
		op_start(&ops[i]);
	}
	EXPECT_EQ_INT(4, fake_poll(&f));
	ASSERT_EQ_INT(4, order_count);
	for (int i = 0; i < 4; i++)
		EXPECT_EQ_INT(i, order[i]);
}

static enum op_next later_twice(struct op *op)
{
	return op->step < 2 ? op_later(op, op->step + 1) : op_finish(op);
}

TEST(op, later_is_behind_what_is_ready_but_in_the_same_poll)
{
	struct fake_driver f = driver_new();
	int ids[3] = { 0, 1, 2 };
	struct op ops[3];

	order_count = 0;
	for (int i = 0; i < 3; i++) {
		op_init(&ops[i], "ordered", i == 0 ? later_twice : end_at_once, &f.d, note_order, &ids[i]);
		op_start(&ops[i]);
	}
	EXPECT_EQ_INT(0, order_count);
	EXPECT_EQ_INT(4, fake_poll(&f));
	ASSERT_EQ_INT(3, order_count);
	EXPECT_EQ_INT(1, order[0]);
	EXPECT_EQ_INT(2, order[1]);
	EXPECT_EQ_INT(0, order[2]);
}

static enum op_next pass_if_on_the_way_out(struct op *op)
{
	if (op->step == FIRST)
		return op_later(op, SECOND);
	return op_waited_is_done() ? op_pass(op, SECOND) : op_finish(op);
}

static void count_end(struct op *op, void *arg)
{
	(void)op;
	++*(int *)arg;
}

TEST(op, who_is_on_the_way_out_passes_a_step_to_the_next_poll)
{
	struct fake_driver f = driver_new();
	struct op passed;
	struct work w;
	int ended = 0;

	op_init(&passed, "passed", pass_if_on_the_way_out, &f.d, count_end, &ended);
	op_start(&passed);
	work_init(&w, &f, false);
	w.start_children = 1;
	op_start(&w.op);
	f.wakes = 0;
	EXPECT_OK(op_wait(&w.op));
	EXPECT_EQ_INT(0, ended);
	EXPECT_EQ_INT(1, f.wakes); /* there is something to run */
	EXPECT_EQ_INT(1, fake_poll(&f));
	EXPECT_EQ_INT(1, ended);
}

static int waits_here[3];

static enum op_next where_it_waits(struct op *op)
{
	struct work *w = container_of(op, struct work, op);

	waits_here[op->step] = op_waits_here(op);
	if (op->step == SECOND)
		return op_finish(op);
	op_child_begin(op);
	w->f->child_of = op;
	w->f->children = 1;
	return op_await(op, SECOND, 0);
}

TEST(op, a_thread_knows_whether_it_is_the_one_that_waits)
{
	struct fake_driver f = driver_new();
	struct work w;

	work_init(&w, &f, false);
	w.op.fn = where_it_waits;
	op_start(&w.op);
	EXPECT_EQ_INT(1, waits_here[FIRST]); /* it started it */
	fake_poll(&f);
	EXPECT_EQ_INT(0, waits_here[SECOND]); /* some poll */
	EXPECT_OK(op_wait(&w.op));

	work_init(&w, &f, false);
	w.op.fn = where_it_waits;
	op_start(&w.op);
	EXPECT_OK(op_wait(&w.op));
	EXPECT_EQ_INT(1, waits_here[SECOND]); /* the poll of its own op_wait */

	work_init(&w, &f, true);
	w.op.fn = where_it_waits;
	op_start(&w.op);
	EXPECT_EQ_INT(0, waits_here[FIRST]); /* nobody waits for it at all */
	while (!op_is_done(&w.op))
		fake_poll(&f);
}

/* A parent whose child is an op itself, three deep. */
struct nest {
	struct op op;
	struct nest *child;
	struct fake_driver *f;
	int leaf_rc;
};

static void nest_child_done(struct op *op, void *arg)
{
	op_child_done(arg, op->rc);
}

static enum op_next nest_fn(struct op *op)
{
	struct nest *n = container_of(op, struct nest, op);

	switch (op->step) {
	case FIRST:
		if (!n->child) {
			if (n->leaf_rc)
				return op_fail(op, n->leaf_rc);
			return op_finish(op);
		}
		op_child_begin(op);
		op_init(&n->child->op, "nested", nest_fn, &n->f->d, nest_child_done, op);
		op_start(&n->child->op);
		return op_await(op, SECOND, 0);
	case SECOND:
		return op_finish(op);
	}
	return op_bug(op);
}

static int run_nest(int leaf_rc)
{
	struct fake_driver f = driver_new();
	struct nest leaf = { .f = &f, .leaf_rc = leaf_rc };
	struct nest middle = { .f = &f, .child = &leaf };
	struct nest top = { .f = &f, .child = &middle };

	op_init(&top.op, "top", nest_fn, &f.d, NULL, NULL);
	op_start(&top.op);
	return op_wait(&top.op);
}

TEST(op, nested_ops_hand_their_result_up)
{
	EXPECT_OK(run_nest(0));
	EXPECT_ERR(-ESTALE, run_nest(-ESTALE));
}

static enum op_next move_fn(struct op *op)
{
	struct work *w = container_of(op, struct work, op);

	switch (op->step) {
	case FIRST:
		op_child_begin(op);
		w->f->child_of = op;
		w->f->children = 1;
		return op_await(op, SECOND, 0);
	case SECOND:
		op_move(op, &w->other->d);
		op_child_begin(op);
		w->other->child_of = op;
		w->other->children = 1;
		return op_await(op, THIRD, 0);
	case THIRD:
		return op_finish(op);
	}
	return op_bug(op);
}

TEST(op, a_synchronous_waiter_follows_the_op_to_another_driver)
{
	struct fake_driver f = driver_new(), other = driver_new();
	struct work w;

	work_init(&w, &f, false);
	w.other = &other;
	w.op.fn = move_fn;
	op_start(&w.op);
	EXPECT_OK(op_wait(&w.op));
	EXPECT_EQ_INT(0, f.wakes); /* the waiter moved itself: nobody is to be woken */
	EXPECT_EQ_INT(0, other.children);
}

TEST(op, a_nudge_before_the_sleep_is_not_lost)
{
	struct fake_driver f = driver_new();
	struct work w;

	work_init(&w, &f, false);
	w.start_children = 1;
	op_start(&w.op);
	op_nudge(&w.op);
	op_sleep(&w.op, &f.d); /* would sleep for ever */
	f.d.together = true;
	op_nudge(&w.op);
	op_sleep(&w.op, &f.d); /* as would this */
	op_sleep(&w.op, NULL); /* not its driver: returns at once */
	EXPECT_OK(op_wait(&w.op));
	op_nudge(&w.op);
	op_sleep(&w.op, &f.d); /* done: returns at once */
	EXPECT_TRUE(op_is_done(&w.op));
}

static enum op_next lost_fn(struct op *op)
{
	return op->step == FIRST ? op_goto(op, 77) : op_bug(op);
}

TEST(op, a_step_that_does_not_exist_ends_the_process_and_is_named)
{
	struct fake_driver f = driver_new();
	int fds[2], status;
	char out[256];
	struct op op;
	ssize_t n;
	pid_t pid;

	ASSERT_OK(pipe(fds));
	pid = fork();
	ASSERT_GE_INT(pid, 0);
	if (!pid) {
		dup2(fds[1], STDERR_FILENO);
		op_init(&op, "lost", lost_fn, &f.d, NULL, NULL);
		op_start(&op);
		_exit(0);
	}
	close(fds[1]);
	n = read(fds[0], out, sizeof(out) - 1);
	ASSERT_GT_INT(n, 0);
	out[n] = '\0';
	EXPECT_TRUE(strstr(out, "lost: has no step 77") != NULL);
	ASSERT_EQ_INT(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	close(fds[0]);
}

TEST(op, can_be_used_again_after_its_end)
{
	struct fake_driver f = driver_new();
	struct work w;

	for (int i = 0; i < 3; i++) {
		work_init(&w, &f, i % 2);
		w.start_children = i;
		f.child_rc = i == 2 ? -EIO : 0;
		op_start(&w.op);
		if (i % 2) {
			EXPECT_EQ_INT(1, fake_poll(&f));
			EXPECT_EQ_INT(1, w.done_calls);
		} else {
			EXPECT_ERR(i == 2 ? -EIO : 0, op_wait(&w.op));
		}
	}
}
