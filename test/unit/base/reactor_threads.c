/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages from many threads at once. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/reactor.h"
#include "base/util.h"
#include "test/shim/test.h"

#define SENDERS 16
#define MESSAGES 2000

struct sender {
	struct reactor *r;
	pthread_t thread;
	int next;   /* the number the receiver expects; only its thread touches it */
	int posted; /* only the sender's */
	bool ok;
};

struct numbered {
	struct sender *s;
	int number;
};

static struct numbered all[SENDERS][MESSAGES];
static int received;

static void receive(void *arg)
{
	struct numbered *n = arg;

	if (n->number != n->s->next)
		n->s->ok = false;
	n->s->next++;
	received++;
}

static void *send_all(void *arg)
{
	struct sender *s = arg;
	struct numbered *mine = all[s->posted];

	for (int i = 0; i < MESSAGES; i++) {
		mine[i] = (struct numbered){ s, i };
		EXPECT_OK(reactor_post(s->r, receive, &mine[i]));
		if (i % 500 == 499)
			usleep(1000); /* lets the loop fall asleep now and then */
	}
	return NULL;
}

static void flood(uint32_t ring, uint32_t spin_us)
{
	struct reactor_opts opts = { sizeof(opts), spin_us, ring };
	struct sender senders[SENDERS];
	struct reactor *r;

	received = 0;
	ASSERT_OK(reactor_create("flood", &opts, &r));
	ASSERT_OK(reactor_start(r));
	for (int i = 0; i < SENDERS; i++) {
		senders[i] = (struct sender){ .r = r, .posted = i, .ok = true };
		ASSERT_OK(pthread_create(&senders[i].thread, NULL, send_all, &senders[i]));
	}
	for (int i = 0; i < SENDERS; i++)
		pthread_join(senders[i].thread, NULL);
	reactor_stop(r);
	EXPECT_OK(reactor_join(r));
	EXPECT_EQ_INT(SENDERS * MESSAGES, received);
	for (int i = 0; i < SENDERS; i++)
		EXPECT_TRUE(senders[i].ok);
	reactor_destroy(r);
}

TEST(reactor_threads, many_senders_fill_a_small_ring_and_nothing_is_lost_or_reordered)
{
	flood(8, 0);
}

TEST(reactor_threads, many_senders_and_a_loop_that_spins)
{
	flood(1024, 50);
}

struct ping {
	struct reactor *here, *there;
	int left;
};

static void ping(void *arg)
{
	struct ping *p = arg;
	struct reactor *t = p->there;

	if (!p->left--) {
		reactor_stop(p->here);
		reactor_stop(p->there);
		return;
	}
	p->there = p->here;
	p->here = t;
	EXPECT_EQ_PTR(p->there, reactor_current());
	EXPECT_OK(reactor_post(t, ping, p));
}

TEST(reactor_threads, two_sleeping_loops_wake_each_other)
{
	struct reactor *a, *b;
	struct ping p;

	ASSERT_OK(reactor_create("a", NULL, &a));
	ASSERT_OK(reactor_create("b", NULL, &b));
	p = (struct ping){ a, b, 2000 };
	ASSERT_OK(reactor_start(a));
	ASSERT_OK(reactor_start(b));
	ASSERT_OK(reactor_post(a, ping, &p));
	EXPECT_OK(reactor_join(a));
	EXPECT_OK(reactor_join(b));
	EXPECT_EQ_INT(-1, p.left);
	reactor_destroy(a);
	reactor_destroy(b);
}

static _Atomic int rounds;

static int count_rounds(void *arg)
{
	(void)arg;
	atomic_fetch_add(&rounds, 1);
	return 0;
}

TEST(reactor_threads, wake_makes_a_sleeping_loop_go_round)
{
	struct reactor_poller *p;
	struct reactor *r;

	atomic_store(&rounds, 0);
	ASSERT_OK(reactor_create("woken", NULL, &r));
	ASSERT_OK(reactor_add_poller(r, "rounds", count_rounds, NULL, &p));
	ASSERT_OK(reactor_start(r));
	for (int i = 0; i < 200; i++) {
		int before = atomic_load(&rounds), tries = 0;

		reactor_wake(r);
		while (atomic_load(&rounds) == before && tries++ < 10000)
			usleep(100);
		ASSERT_GT_INT(atomic_load(&rounds), before);
	}
	reactor_stop(r);
	EXPECT_OK(reactor_join(r));
	reactor_destroy(r);
}

static sigset_t blocked;

static void read_mask(void *arg)
{
	pthread_sigmask(SIG_SETMASK, NULL, &blocked);
	reactor_stop(arg);
}

TEST(reactor_threads, its_thread_takes_no_signals)
{
	struct reactor *r;
	sigset_t mine;

	ASSERT_OK(reactor_create("masked", NULL, &r));
	ASSERT_OK(reactor_start(r));
	ASSERT_OK(reactor_post(r, read_mask, r));
	EXPECT_OK(reactor_join(r));
	EXPECT_EQ_INT(1, sigismember(&blocked, SIGTERM));
	EXPECT_EQ_INT(1, sigismember(&blocked, SIGINT));
	pthread_sigmask(SIG_SETMASK, NULL, &mine);
	EXPECT_EQ_INT(0, sigismember(&mine, SIGTERM));
	reactor_destroy(r);
}
