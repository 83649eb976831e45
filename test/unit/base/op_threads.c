/* SPDX-License-Identifier: BSD-2-Clause */
/* Ops completed, moved and ended by other threads than the one that waits. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/op.h"
#include "base/util.h"
#include "test/shim/test.h"

#define THREADS 4
#define ROUNDS 2000

enum { FIRST, SECOND, THIRD };

/* A driver as a device channel is one: who holds the lock polls and may sleep in the "device" (an
 * eventfd); the others sleep on their op and are nudged when the lock is free. */
struct channel {
	struct op_driver d;
	pthread_mutex_t lock;
	int bell;
	_Atomic bool asleep;
	pthread_mutex_t waiters_lock;
	struct op *waiters[THREADS + 1];
};

static void channel_wake(struct op_driver *d)
{
	struct channel *c = container_of(d, struct channel, d);
	uint64_t one = 1;

	if (atomic_load(&c->asleep))
		ASSERT_EQ_INT(8, write(c->bell, &one, 8));
}

static void waiter_add(struct channel *c, struct op *op)
{
	pthread_mutex_lock(&c->waiters_lock);
	for (unsigned int i = 0; i < ARRAY_SIZE(c->waiters); i++) {
		if (!c->waiters[i]) {
			c->waiters[i] = op;
			break;
		}
	}
	pthread_mutex_unlock(&c->waiters_lock);
}

static void waiter_del(struct channel *c, struct op *op)
{
	pthread_mutex_lock(&c->waiters_lock);
	for (unsigned int i = 0; i < ARRAY_SIZE(c->waiters); i++)
		if (c->waiters[i] == op)
			c->waiters[i] = NULL;
	pthread_mutex_unlock(&c->waiters_lock);
}

static void nudge_one(struct channel *c)
{
	pthread_mutex_lock(&c->waiters_lock);
	for (unsigned int i = 0; i < ARRAY_SIZE(c->waiters); i++) {
		if (c->waiters[i]) {
			op_nudge(c->waiters[i]);
			break;
		}
	}
	pthread_mutex_unlock(&c->waiters_lock);
}

static void channel_poll(struct channel *c, struct op *op)
{
	struct pollfd pfd = { c->bell, POLLIN, 0 };
	uint64_t n;

	atomic_store(&c->asleep, true);
	if (!atomic_load(&c->d.ready) && !op_is_done(op) && atomic_load(&op->driver) == &c->d) {
		/* Ten seconds without a bell is a lost wake-up, not a wait. */
		ASSERT_EQ_INT(1, poll(&pfd, 1, 10000));
	}
	atomic_store(&c->asleep, false);
	if (poll(&pfd, 1, 0) == 1)
		ASSERT_EQ_INT(8, read(c->bell, &n, 8));
}

static void channel_wait(struct op_driver *d, struct op *op)
{
	struct channel *c = container_of(d, struct channel, d);

	waiter_add(c, op);
	while (!op_is_done(op) && atomic_load(&op->driver) == d) {
		if (pthread_mutex_trylock(&c->lock)) {
			op_sleep(op, d);
			continue;
		}
		op_poll_enter();
		channel_poll(c, op);
		pthread_mutex_unlock(&c->lock);
		op_poll_leave(d);
		nudge_one(c);
	}
	waiter_del(c, op);
	nudge_one(c);
}

static void channel_init(struct channel *c)
{
	*c = (struct channel){ .d = { .wait = channel_wait, .wake = channel_wake } };
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->waiters_lock, NULL);
	c->bell = eventfd(0, 0);
	ASSERT_GE_INT(c->bell, 0);
}

static void channel_fini(struct channel *c)
{
	close(c->bell);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->waiters_lock);
}

/* Children handed to a thread that completes them: the device. */
struct device {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct op *queue[8192];
	unsigned int count;
	bool stop;
};

static void *device_main(void *arg)
{
	struct device *dev = arg;

	pthread_mutex_lock(&dev->lock);
	for (;;) {
		while (!dev->count && !dev->stop)
			pthread_cond_wait(&dev->cond, &dev->lock);
		if (!dev->count)
			break;
		struct op *op = dev->queue[--dev->count];

		pthread_mutex_unlock(&dev->lock);
		op_child_done(op, 0);
		pthread_mutex_lock(&dev->lock);
	}
	pthread_mutex_unlock(&dev->lock);
	return NULL;
}

static void device_start(struct device *dev)
{
	*dev = (struct device){ .stop = false };
	pthread_mutex_init(&dev->lock, NULL);
	pthread_cond_init(&dev->cond, NULL);
	ASSERT_OK(pthread_create(&dev->thread, NULL, device_main, dev));
}

static void device_stop(struct device *dev)
{
	pthread_mutex_lock(&dev->lock);
	dev->stop = true;
	pthread_cond_broadcast(&dev->cond);
	pthread_mutex_unlock(&dev->lock);
	pthread_join(dev->thread, NULL);
	pthread_mutex_destroy(&dev->lock);
	pthread_cond_destroy(&dev->cond);
}

static void device_submit(struct device *dev, struct op *op)
{
	op_child_begin(op);
	pthread_mutex_lock(&dev->lock);
	ASSERT_LT_INT(dev->count, ARRAY_SIZE(dev->queue));
	dev->queue[dev->count++] = op;
	pthread_cond_signal(&dev->cond);
	pthread_mutex_unlock(&dev->lock);
}

struct rig {
	struct channel a, b;
	struct device dev;
};

struct job {
	struct op op;
	struct rig *rig;
	int steps;
};

static enum op_next job_fn(struct op *op)
{
	struct job *j = container_of(op, struct job, op);

	j->steps++;
	switch (op->step) {
	case FIRST:
		device_submit(&j->rig->dev, op);
		device_submit(&j->rig->dev, op);
		return op_await(op, SECOND, 0);
	case SECOND:
		op_move(op, &j->rig->b.d);
		device_submit(&j->rig->dev, op);
		return op_await(op, THIRD, 0);
	case THIRD:
		return op_finish(op);
	}
	return op_bug(op);
}

static void *job_main(void *arg)
{
	struct rig *rig = arg;

	for (int i = 0; i < ROUNDS; i++) {
		struct job j = { .rig = rig };

		op_init(&j.op, "job", job_fn, &rig->a.d, NULL, NULL);
		op_start(&j.op);
		EXPECT_OK(op_wait(&j.op));
		EXPECT_EQ_INT(3, j.steps);
	}
	return NULL;
}

static void many_waiters(bool together)
{
	pthread_t threads[THREADS];
	static struct rig rig;

	channel_init(&rig.a);
	channel_init(&rig.b);
	rig.a.d.together = together;
	device_start(&rig.dev);
	for (int i = 0; i < THREADS; i++)
		ASSERT_OK(pthread_create(&threads[i], NULL, job_main, &rig));
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	device_stop(&rig.dev);
	channel_fini(&rig.a);
	channel_fini(&rig.b);
}

TEST(op_threads, many_waiters_share_two_drivers_and_lose_no_wake_up)
{
	many_waiters(false);
}

TEST(op_threads, waiters_that_sleep_together_lose_no_wake_up)
{
	many_waiters(true);
}

/* An op that another thread's poll ends while the waiter sleeps in the driver's device. */
static enum op_next elsewhere_fn(struct op *op)
{
	struct job *j = container_of(op, struct job, op);

	switch (op->step) {
	case FIRST:
		op_child_begin(op);
		return op_await(op, SECOND, 0);
	case SECOND:
		j->steps++;
		return op_finish(op);
	}
	return op_bug(op);
}

static void *end_elsewhere(void *arg)
{
	struct job *j = arg;

	while (!atomic_load(&j->rig->a.asleep))
		usleep(1000);
	op_poll_enter();
	op_child_done(&j->op, 0);
	EXPECT_EQ_INT(1, op_poll_leave(&j->rig->b.d));
	return NULL;
}

TEST(op_threads, an_op_ended_in_another_drivers_poll_wakes_its_waiter)
{
	static struct rig rig;
	pthread_t thread;
	struct job j = { .rig = &rig };

	channel_init(&rig.a);
	channel_init(&rig.b);
	op_init(&j.op, "elsewhere", elsewhere_fn, &rig.a.d, NULL, NULL);
	op_start(&j.op);
	ASSERT_OK(pthread_create(&thread, NULL, end_elsewhere, &j));
	EXPECT_OK(op_wait(&j.op));
	EXPECT_EQ_INT(1, j.steps);
	pthread_join(thread, NULL);
	channel_fini(&rig.a);
	channel_fini(&rig.b);
}

/* A tree of asynchronous ops: every op starts `fan` children, and those that have none wait for the device. */
struct tree {
	struct op op;
	struct rig *rig;
	struct tree *parent, *children;
	int fan, depth;
	int ended; /* children whose done was called */
	pthread_mutex_t lock;
};

static _Atomic int trees_done, leaves_done;

static enum op_next tree_fn(struct op *op);

static void tree_done(struct op *op, void *arg)
{
	struct tree *t = container_of(op, struct tree, op), *parent = arg;

	EXPECT_OK(op->rc);
	pthread_mutex_destroy(&t->lock);
	if (!parent) {
		free(t->children);
		free(t);
		atomic_fetch_add(&trees_done, 1);
		return;
	}
	free(t->children);
	pthread_mutex_lock(&parent->lock);
	parent->ended++;
	pthread_mutex_unlock(&parent->lock);
	op_child_done(&parent->op, 0);
}

static void tree_start(struct tree *t, struct rig *rig, struct tree *parent, int fan, int depth)
{
	*t = (struct tree){ .rig = rig, .parent = parent, .fan = fan, .depth = depth };
	pthread_mutex_init(&t->lock, NULL);
	op_init(&t->op, "tree", tree_fn, depth % 2 ? &rig->a.d : &rig->b.d, tree_done, parent);
	op_start(&t->op);
}

static enum op_next tree_fn(struct op *op)
{
	struct tree *t = container_of(op, struct tree, op);

	switch (op->step) {
	case FIRST:
		if (!t->depth) {
			device_submit(&t->rig->dev, op);
			return op_await(op, THIRD, 0);
		}
		t->children = calloc((size_t)t->fan, sizeof(*t->children));
		ASSERT_TRUE(t->children != NULL);
		for (int i = 0; i < t->fan; i++) {
			op_child_begin(op);
			tree_start(&t->children[i], t->rig, t, t->fan, t->depth - 1);
		}
		return op_await(op, SECOND, 0);
	case SECOND:
		EXPECT_EQ_INT(t->fan, t->ended);
		return op_finish(op);
	case THIRD:
		atomic_fetch_add(&leaves_done, 1);
		return op_finish(op);
	}
	return op_bug(op);
}

#define TREES 200

static void *grow_trees(void *arg)
{
	for (int i = 0; i < TREES; i++) {
		struct tree *t = malloc(sizeof(*t));

		ASSERT_TRUE(t != NULL);
		tree_start(t, arg, NULL, 3, 2);
		if (i % 20 == 0)
			usleep(500);
	}
	return NULL;
}

static void *poll_both(void *arg)
{
	struct rig *rig = arg;

	while (atomic_load(&trees_done) < 2 * TREES) {
		int ran = 0;

		op_poll_enter();
		ran += op_poll_leave(&rig->a.d);
		op_poll_enter();
		ran += op_poll_leave(&rig->b.d);
		if (!ran)
			usleep(50);
	}
	return NULL;
}

TEST(op_threads, trees_of_ops_polled_by_two_threads_end_once_each)
{
	static struct rig rig;
	pthread_t growers[2], pollers[2];

	atomic_store(&trees_done, 0);
	atomic_store(&leaves_done, 0);
	channel_init(&rig.a);
	channel_init(&rig.b);
	device_start(&rig.dev);
	for (int i = 0; i < 2; i++) {
		ASSERT_OK(pthread_create(&growers[i], NULL, grow_trees, &rig));
		ASSERT_OK(pthread_create(&pollers[i], NULL, poll_both, &rig));
	}
	for (int i = 0; i < 2; i++) {
		pthread_join(growers[i], NULL);
		pthread_join(pollers[i], NULL);
	}
	device_stop(&rig.dev);
	EXPECT_EQ_INT(2 * TREES, atomic_load(&trees_done));
	EXPECT_EQ_INT(2 * TREES * 9, atomic_load(&leaves_done));
	channel_fini(&rig.a);
	channel_fini(&rig.b);
}

/* An op that moves and ends in one go: its waiter may be anywhere between its two beds. */
struct hop {
	struct op op;
	struct op_driver *to;
};

struct hopper {
	struct op_driver beds[2]; /* the first wakes its sleepers together */
	_Atomic(struct hop *) hop;
	_Atomic unsigned int ended;
	pthread_t waiter, ender;
};

#define HOPS 20000u

static void bed_wait(struct op_driver *d, struct op *op)
{
	op_sleep(op, d);
}

static void bed_wake(struct op_driver *d)
{
	(void)d;
}

static enum op_next hop_fn(struct op *op)
{
	struct hop *h = container_of(op, struct hop, op);

	if (op->step == SECOND) {
		op_move(op, h->to);
		return op_finish(op);
	}
	op_child_begin(op);
	return op_await(op, SECOND, 0);
}

static void *hop_ender(void *arg)
{
	struct hopper *p = arg;
	struct hop *h;

	for (unsigned int i = 0; i < HOPS; i++) {
		while (!(h = atomic_exchange(&p->hop, NULL)))
			sched_yield();
		for (unsigned int spin = i % 64; spin; spin--)
			atomic_thread_fence(memory_order_seq_cst);
		op_poll_enter();
		op_child_done(&h->op, 0);
		op_poll_leave(&p->beds[0]);
	}
	return NULL;
}

static void *hop_waiter(void *arg)
{
	struct hopper *p = arg;

	for (unsigned int i = 0; i < HOPS; i++) {
		struct hop h = { .to = &p->beds[i % 2 ? 0 : 1] };

		op_init(&h.op, "hop", hop_fn, &p->beds[i % 2], NULL, NULL);
		op_start(&h.op);
		atomic_store(&p->hop, &h);
		EXPECT_OK(op_wait(&h.op));
		atomic_fetch_add(&p->ended, 1);
	}
	return NULL;
}

TEST(op_threads, an_op_that_moves_and_ends_at_once_wakes_its_waiter)
{
	static struct hopper p[3];

	for (unsigned int i = 0; i < ARRAY_SIZE(p); i++) {
		p[i] = (struct hopper){ .beds = { { .wait = bed_wait, .wake = bed_wake, .together = true },
						  { .wait = bed_wait, .wake = bed_wake } } };
		ASSERT_OK(pthread_create(&p[i].waiter, NULL, hop_waiter, &p[i]));
		ASSERT_OK(pthread_create(&p[i].ender, NULL, hop_ender, &p[i]));
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(p); i++) {
		unsigned int before, idle = 0;

		/* Ten seconds without an end is a lost wake-up. */
		while ((before = atomic_load(&p[i].ended)) < HOPS && idle < 1000) {
			usleep(10000);
			idle = atomic_load(&p[i].ended) == before ? idle + 1 : 0;
		}
		ASSERT_EQ_INT(HOPS, atomic_load(&p[i].ended));
		pthread_join(p[i].waiter, NULL);
		pthread_join(p[i].ender, NULL);
	}
}

/* One poll ends an op that a thread sleeps for, and then calls back one whose user waits for that thread. */
static void *wait_for_hop(void *arg)
{
	struct hopper *p = arg;
	struct hop h = { .to = &p->beds[0] };

	op_init(&h.op, "hop", hop_fn, &p->beds[0], NULL, NULL);
	op_start(&h.op);
	atomic_store(&p->hop, &h);
	EXPECT_OK(op_wait(&h.op));
	atomic_store(&p->ended, 1);
	return NULL;
}

static void wait_for_waiter(struct op *op, void *arg)
{
	struct hopper *p = arg;

	(void)op;
	for (unsigned int i = 0; i < 5000 && !atomic_load(&p->ended); i++)
		usleep(1000);
	EXPECT_EQ_INT(1, atomic_load(&p->ended));
}

TEST(op_threads, who_sleeps_together_is_awake_before_a_user_is_called_back)
{
	struct hopper p = { .beds = { { .wait = bed_wait, .wake = bed_wake, .together = true } } };
	struct hop last = { .to = &p.beds[0] };
	struct hop *h;

	ASSERT_OK(pthread_create(&p.waiter, NULL, wait_for_hop, &p));
	while (!(h = atomic_load(&p.hop)) || atomic_load(&h->op.state) != OP_SLEEPER)
		usleep(1000);
	op_init(&last.op, "last", hop_fn, &p.beds[0], wait_for_waiter, &p);
	op_start(&last.op);
	op_poll_enter();
	op_child_done(&h->op, 0);
	op_child_done(&last.op, 0);
	op_poll_leave(&p.beds[0]);
	pthread_join(p.waiter, NULL);
}
