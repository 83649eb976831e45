/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/reactor.h"
#include "base/util.h"
#include "test/shim/test.h"

#define MS 1000000ull
#define START (1000 * MS)

static struct reactor *new_reactor(uint32_t ring)
{
	struct reactor_opts opts = { sizeof(opts), 0, ring };
	struct reactor *r;

	ASSERT_OK(reactor_create("test", &opts, &r));
	return r;
}

static void stop_msg(void *arg)
{
	reactor_stop(arg);
}

static int numbers[16], number_count;

static void note_number(void *arg)
{
	EXPECT_TRUE(reactor_current() != NULL);
	numbers[number_count++] = (int)(intptr_t)arg;
}

TEST(reactor, runs_messages_in_order_and_those_posted_before_stop)
{
	struct reactor *r = new_reactor(16);

	number_count = 0;
	for (intptr_t i = 0; i < 3; i++)
		ASSERT_OK(reactor_post(r, note_number, (void *)i));
	reactor_stop(r);
	EXPECT_OK(reactor_run(r));
	ASSERT_EQ_INT(3, number_count);
	for (int i = 0; i < 3; i++)
		EXPECT_EQ_INT(i, numbers[i]);
	EXPECT_EQ_PTR(NULL, reactor_current());
	reactor_destroy(r);
}

TEST(reactor, a_full_ring_that_nobody_empties_gives_eagain)
{
	struct reactor *r = new_reactor(4);
	int rc = 0, posted = 0;

	while (posted < 100 && !(rc = reactor_post(r, note_number, NULL)))
		posted++;
	EXPECT_ERR(-EAGAIN, rc);
	EXPECT_EQ_INT(3, posted); /* a ring of 2^n holds one less */
	reactor_destroy(r);
}

static int self_post_rc;

static void post_to_self(void *arg)
{
	number_count = 0;
	do {
		self_post_rc = reactor_post(arg, note_number, NULL);
	} while (!self_post_rc);
	reactor_stop(arg);
}

TEST(reactor, posting_to_oneself_with_a_full_ring_gives_eagain)
{
	struct reactor *r = new_reactor(4);

	ASSERT_OK(reactor_post(r, post_to_self, r));
	EXPECT_OK(reactor_run(r));
	EXPECT_ERR(-EAGAIN, self_post_rc);
	EXPECT_EQ_INT(3, number_count);
	reactor_destroy(r);
}

struct poll_state {
	struct reactor *r;
	struct reactor_poller *self, *other;
	int calls, work;
};

static int count_down(void *arg)
{
	struct poll_state *s = arg;

	s->calls++;
	if (s->work)
		return s->work--, 1;
	reactor_stop(s->r);
	return 0;
}

TEST(reactor, calls_pollers_for_as_long_as_they_find_work)
{
	struct reactor *r = new_reactor(0);
	struct poll_state s = { .r = r, .work = 100 };

	ASSERT_OK(reactor_add_poller(r, "count", count_down, &s, &s.self));
	EXPECT_OK(reactor_run(r));
	EXPECT_EQ_INT(101, s.calls);
	reactor_del_poller(s.self);
	reactor_destroy(r);
}

static int delete_both(void *arg)
{
	struct poll_state *s = arg;

	s->calls++;
	reactor_del_poller(s->other);
	reactor_del_poller(s->self);
	reactor_stop(s->r);
	return 1;
}

TEST(reactor, a_poller_may_delete_itself_and_the_next)
{
	struct reactor *r = new_reactor(0);
	struct poll_state s = { .r = r }, never = { .r = r };

	ASSERT_OK(reactor_add_poller(r, "deleter", delete_both, &s, &s.self));
	ASSERT_OK(reactor_add_poller(r, "deleted", count_down, &never, &s.other));
	EXPECT_OK(reactor_run(r));
	EXPECT_EQ_INT(1, s.calls);
	EXPECT_EQ_INT(0, never.calls);
	reactor_destroy(r);
}

struct beat {
	struct reactor *r;
	struct reactor_timer *t;
	int beats, stop_after;
	uint64_t last_ns;
};

/* The fake clock moves only when a timer or a poller of the test moves it. */
static int move_clock(void *arg)
{
	uint64_t *now = arg;

	*now += MS;
	base_set_fake_clock(*now);
	return 1;
}

static void beat(void *arg)
{
	struct beat *b = arg;

	b->last_ns = base_now_ns();
	if (++b->beats == b->stop_after)
		reactor_stop(b->r);
}

TEST(reactor, timers_follow_the_fake_clock_to_the_millisecond)
{
	struct reactor *r = new_reactor(0);
	struct beat once = { .r = r }, every = { .r = r }, last = { .r = r, .stop_after = 1 };
	uint64_t now = START;
	struct reactor_poller *p;

	base_set_fake_clock(now);
	ASSERT_OK(reactor_add_poller(r, "clock", move_clock, &now, &p));
	ASSERT_OK(reactor_add_timer(r, "last", 1000, 0, beat, &last, &last.t));
	ASSERT_OK(reactor_add_timer(r, "once", 30, 0, beat, &once, &once.t));
	ASSERT_OK(reactor_add_timer(r, "every", 50, 100, beat, &every, &every.t));
	EXPECT_OK(reactor_run(r));
	EXPECT_EQ_INT(1, once.beats);
	EXPECT_EQ_INT(START + 30 * MS, once.last_ns);
	EXPECT_EQ_INT(10, every.beats);
	EXPECT_EQ_INT(START + 950 * MS, every.last_ns);
	EXPECT_EQ_INT(START + 1000 * MS, last.last_ns);
	base_set_fake_clock(0);
	reactor_del_timer(once.t);
	reactor_destroy(r); /* frees the other two */
}

struct rearm {
	struct beat b;
	struct reactor_timer *victim;
};

static void delete_self_and_victim(void *arg)
{
	struct rearm *a = arg;

	reactor_del_timer(a->victim);
	reactor_del_timer(a->b.t);
	a->b.beats++;
}

static void must_not_run(void *arg)
{
	(void)arg;
	FAIL("a deleted timer ran");
}

TEST(reactor, a_timer_may_delete_itself_and_another_that_is_due)
{
	struct reactor *r = new_reactor(0);
	struct rearm a = { .b = { .r = r } };
	struct beat end = { .r = r, .stop_after = 1 };

	ASSERT_OK(reactor_add_timer(r, "deleter", 0, 10, delete_self_and_victim, &a, &a.b.t));
	ASSERT_OK(reactor_add_timer(r, "victim", 0, 10, must_not_run, NULL, &a.victim));
	ASSERT_OK(reactor_add_timer(r, "end", 30, 0, beat, &end, &end.t));
	EXPECT_OK(reactor_run(r));
	EXPECT_EQ_INT(1, a.b.beats);
	reactor_destroy(r);
}

static void arm_again(void *arg)
{
	struct beat *b = arg;

	if (++b->beats == 5)
		reactor_stop(b->r);
	else
		reactor_set_timer(b->t, 0);
}

TEST(reactor, a_single_shot_timer_can_be_armed_again)
{
	struct reactor *r = new_reactor(0);
	struct beat b = { .r = r };

	ASSERT_OK(reactor_add_timer(r, "again", 1, 0, arm_again, &b, &b.t));
	EXPECT_OK(reactor_run(r));
	EXPECT_EQ_INT(5, b.beats);
	reactor_destroy(r);
}

TEST(reactor, many_timers_fire_in_the_order_they_are_due)
{
	enum { N = 200 };
	static struct reactor_timer *timers[N];
	struct reactor *r = new_reactor(0);
	uint64_t now = START;
	struct reactor_poller *p;
	struct beat end = { .r = r, .stop_after = 1 };
	static struct beat beats[N];

	memset(beats, 0, sizeof(beats));
	base_set_fake_clock(now);
	ASSERT_OK(reactor_add_poller(r, "clock", move_clock, &now, &p));
	for (unsigned int i = 0; i < N; i++) {
		beats[i].r = r;
		ASSERT_OK(reactor_add_timer(r, "one", 1 + i * 77 % N, 0, beat, &beats[i],
					    &timers[i]));
	}
	for (unsigned int i = 0; i < N; i += 3)
		reactor_del_timer(timers[i]);
	ASSERT_OK(reactor_add_timer(r, "end", N + 10, 0, beat, &end, &end.t));
	EXPECT_OK(reactor_run(r));
	for (unsigned int i = 0; i < N; i++) {
		EXPECT_EQ_INT(i % 3 ? 1 : 0, beats[i].beats);
		if (i % 3)
			EXPECT_EQ_INT(START + (1 + i * 77 % N) * MS, beats[i].last_ns);
	}
	base_set_fake_clock(0);
	reactor_destroy(r);
}

struct fd_state {
	struct reactor *r;
	struct reactor_fd *f;
	int rfd, calls;
	uint32_t events;
};

static void read_one(uint32_t events, void *arg)
{
	struct fd_state *s = arg;
	char c;

	s->events |= events;
	if (read(s->rfd, &c, 1) == 1)
		s->calls++;
	if (s->calls == 3) {
		reactor_del_fd(s->f);
		reactor_stop(s->r);
	}
}

TEST(reactor, calls_the_function_of_a_ready_descriptor)
{
	struct fd_state s = { .r = new_reactor(0) };
	int fds[2];

	ASSERT_OK(pipe(fds));
	s.rfd = fds[0];
	ASSERT_OK(reactor_add_fd(s.r, fds[0], EPOLLIN, read_one, &s, &s.f));
	ASSERT_EQ_INT(3, write(fds[1], "abc", 3));
	EXPECT_OK(reactor_run(s.r));
	EXPECT_EQ_INT(3, s.calls);
	EXPECT_TRUE(s.events & EPOLLIN);
	close(fds[0]);
	close(fds[1]);
	reactor_destroy(s.r);
}

TEST(reactor, a_descriptor_that_epoll_refuses_is_an_error)
{
	struct reactor *r = new_reactor(0);
	struct reactor_fd *f;

	EXPECT_ERR(-EBADF, reactor_add_fd(r, 12345, EPOLLIN, read_one, NULL, &f));
	reactor_destroy(r);
}

TEST(reactor, a_descriptor_added_twice_is_an_error)
{
	struct reactor *r = new_reactor(0);
	struct reactor_fd *f, *g;
	int fds[2];

	ASSERT_OK(pipe(fds));
	ASSERT_OK(reactor_add_fd(r, fds[0], EPOLLIN, read_one, NULL, &f));
	EXPECT_ERR(-EEXIST, reactor_add_fd(r, fds[0], EPOLLIN, read_one, NULL, &g));
	reactor_del_fd(f);
	EXPECT_OK(reactor_add_fd(r, fds[0], EPOLLIN, read_one, NULL, &g));
	reactor_destroy(r);
	close(fds[0]);
	close(fds[1]);
}

TEST(reactor, creation_without_free_descriptors_is_an_error)
{
	struct rlimit none = { 3, 3 };
	struct reactor *r;
	int status;
	pid_t pid = fork();

	ASSERT_GE_INT(pid, 0);
	if (!pid) {
		setrlimit(RLIMIT_NOFILE, &none);
		_exit(reactor_create("full", NULL, &r) == -EMFILE ? 0 : 1);
	}
	ASSERT_EQ_INT(pid, waitpid(pid, &status, 0));
	EXPECT_EQ_INT(0, status);
}

static int always_busy(void *arg)
{
	(void)arg;
	return 1;
}

TEST(reactor, a_busy_loop_still_serves_descriptors_and_timers)
{
	struct fd_state s = { .r = new_reactor(0) };
	struct reactor_poller *p;
	int fds[2];

	ASSERT_OK(pipe(fds));
	s.rfd = fds[0];
	ASSERT_OK(reactor_add_poller(s.r, "busy", always_busy, NULL, &p));
	ASSERT_OK(reactor_add_fd(s.r, fds[0], EPOLLIN, read_one, &s, &s.f));
	ASSERT_EQ_INT(3, write(fds[1], "abc", 3));
	EXPECT_OK(reactor_run(s.r));
	EXPECT_EQ_INT(3, s.calls);
	close(fds[0]);
	close(fds[1]);
	reactor_destroy(s.r);
}

static struct reactor *signalled;

static void on_alarm(int sig)
{
	(void)sig;
	reactor_stop(signalled);
}

TEST(reactor, a_signal_handler_can_stop_a_sleeping_loop)
{
	struct itimerval in_20ms = { .it_value = { .tv_usec = 20000 } };
	void (*old)(int);

	signalled = new_reactor(0);
	old = signal(SIGALRM, on_alarm);
	ASSERT_OK(setitimer(ITIMER_REAL, &in_20ms, NULL));
	EXPECT_OK(reactor_run(signalled));
	signal(SIGALRM, old);
	reactor_destroy(signalled);
}

TEST(reactor, creation_survives_every_failing_allocation)
{
	struct reactor_opts opts = { sizeof(opts), 0, 16 };
	struct reactor *r;
	int failures = 0, rc;

	for (uint64_t nth = 1;; nth++) {
		base_fail_alloc_after(nth);
		rc = reactor_create("oom", &opts, &r);
		base_fail_alloc_after(0);
		if (!rc)
			break;
		EXPECT_ERR(-ENOMEM, rc);
		failures++;
	}
	EXPECT_GE_INT(failures, 3);
	reactor_destroy(r);
}

TEST(reactor, additions_survive_failing_allocations)
{
	struct reactor *r = new_reactor(0);
	struct reactor_poller *p;
	struct reactor_timer *t;
	struct reactor_fd *f;

	base_fail_alloc_after(1);
	EXPECT_ERR(-ENOMEM, reactor_add_poller(r, "p", always_busy, NULL, &p));
	base_fail_alloc_after(1);
	EXPECT_ERR(-ENOMEM, reactor_add_timer(r, "t", 1, 0, beat, NULL, &t));
	base_fail_alloc_after(2);
	EXPECT_ERR(-ENOMEM, reactor_add_timer(r, "t", 1, 0, beat, NULL, &t));
	base_fail_alloc_after(1);
	EXPECT_ERR(-ENOMEM, reactor_add_fd(r, 0, EPOLLIN, read_one, NULL, &f));
	base_fail_alloc_after(0);
	reactor_stop(r);
	EXPECT_OK(reactor_run(r));
	reactor_destroy(r);
}

TEST(reactor, a_ring_that_is_no_power_of_two_is_refused)
{
	struct reactor_opts opts = { sizeof(opts), 0, 1000 };
	struct reactor *r;

	EXPECT_ERR(-EINVAL, reactor_create("odd", &opts, &r));
}

static double cpu_seconds(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
	       1e-6 * (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec);
}

TEST(reactor, an_idle_loop_uses_no_cpu)
{
	struct reactor_opts opts = { sizeof(opts), 1000, 0 };
	struct reactor_poller *p;
	struct poll_state s = { 0 };
	struct reactor *r;
	double before;

	/* Returns 0 and does not stop anything while s.work is 0 and r is another reactor's. */
	ASSERT_OK(reactor_create("idle", &opts, &r));
	s.r = new_reactor(0);
	ASSERT_OK(reactor_add_poller(r, "nothing", count_down, &s, &p));
	ASSERT_OK(reactor_start(r));
	usleep(50000); /* it spins for a millisecond first */
	before = cpu_seconds();
	usleep(500000);
	EXPECT_LT_INT((cpu_seconds() - before) * 1000, 5);
	reactor_stop(r);
	EXPECT_OK(reactor_join(r));
	reactor_destroy(r);
	reactor_destroy(s.r);
	EXPECT_GT_INT(s.calls, 1); /* it did spin */
}

TEST(reactor, cannot_run_twice_at_once_and_join_needs_a_start)
{
	struct reactor *r = new_reactor(0);

	EXPECT_ERR(-EINVAL, reactor_join(r));
	ASSERT_OK(reactor_start(r));
	EXPECT_ERR(-EBUSY, reactor_start(r));
	EXPECT_ERR(-EBUSY, reactor_run(r));
	ASSERT_OK(reactor_post(r, stop_msg, r));
	EXPECT_OK(reactor_join(r));
	reactor_stop(r);
	EXPECT_OK(reactor_run(r));
	reactor_destroy(r);
}
