/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine of ops.
 *
 * Who owns an op: while a step runs, `pending` holds one count for the step itself, so that no child can
 * bring it to zero. op_await's return gives that count up; whoever brings pending to zero, the step or
 * the last child, is the only one who may touch the op from then on, and either goes on with it or
 * queues it. A queued op is in one list only, by op->next.
 *
 * Lists: each thread that polls has a list of its own, run by the outermost op_poll_leave. From outside
 * a poll ops go to driver->ready, a stack that any thread pushes to and a poll takes whole.
 *
 * Ops can make each other ready without end, as those do that wait for the same scarce thing and take it from each other, until a device
 * completes something: so a poll runs a limited number, and looks at the device again.
 *
 * The synchronous waiter: see enum op_state. Whoever ends or moves an op first changes it and then looks
 * at the state; the waiter first says where it waits and then looks at the op. So one of the two sees the other.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/internal.h"
#include "base/op.h"
#include "base/util.h"

#define LOG_COMPONENT "op"
#include "base/log.h"

#define OPS_A_POLL 1024 /* far more than devices complete in one poll */

/* What this thread is doing. (The fast TLS model is not for us: with it, what the EAL keeps for each thread
 * would have to fit into the room glibc keeps for libraries loaded later, and dlopen fails.) */
static _Thread_local struct {
	unsigned int depth; /* polls entered */
	struct op *head, **tail;
	struct op *waiting; /* the op whose op_wait this thread is in */
	struct op_driver *polling; /* whose poll runs ops now */
	struct op_driver *bell;    /* to be rung for these */
	uint32_t bits;
	bool passed;               /* this poll takes no more of what is ready: that is for another's */
} self;

static void list_push(struct op *op)
{
	if (!self.head)
		self.tail = &self.head;
	op->next = NULL;
	*self.tail = op;
	self.tail = &op->next;
}

static struct op *list_pop(void)
{
	struct op *op = self.head;

	if (op)
		self.head = op->next;
	return op;
}

/* Takes the driver's stack into this thread's list, oldest first. */
static void list_take(struct op_driver *driver)
{
	struct op *op, *next, *oldest = NULL;

	if (!atomic_load_explicit(&driver->ready, memory_order_relaxed))
		return;
	op = atomic_exchange_explicit(&driver->ready, NULL, memory_order_acquire);
	for (; op; op = next) {
		next = op->next;
		op->next = oldest;
		oldest = op;
	}
	for (op = oldest; op; op = next) {
		next = op->next;
		list_push(op);
	}
}

/* Hands an op nobody else owns to its driver's next poll. */
static void hand_over(struct op *op)
{
	struct op_driver *driver = atomic_load(&op->driver);
	struct op *head;

	if (!driver) {
		log_err("%s: ready outside a poll, and has no driver", op->name);
		abort();
	}
	head = atomic_load_explicit(&driver->ready, memory_order_relaxed);
	do {
		op->next = head;
	} while (!atomic_compare_exchange_weak(&driver->ready, &head, op));
	/* The op may be gone from here on. */
	driver->wake(driver);
}

/* Hands an op nobody else owns to the next poll: this thread's if it is in one. */
static void queue(struct op *op)
{
	if (self.depth)
		list_push(op);
	else
		hand_over(op);
}

void op_init(struct op *op, const char *name, op_fn fn, struct op_driver *driver, op_done_fn done,
	     void *done_arg)
{
	op->fn = fn;
	op->name = name;
	op->step = 0;
	op->resume = OP_NO_STEP;
	op->on_error = OP_NO_STEP;
	op->rc = 0;
	atomic_init(&op->child_rc, 0);
	atomic_init(&op->pending, 1);
	atomic_init(&op->state, OP_RUNNING);
	atomic_init(&op->driver, driver);
	atomic_init(&op->bed, NULL);
	op->done = done;
	op->done_arg = done_arg;
	op->next = NULL;
}

static void keep_first(_Atomic int *where, int rc)
{
	int none = 0;

	assert(rc <= 0);
	if (rc)
		atomic_compare_exchange_strong(where, &none, rc);
}

enum op_next op_await(struct op *op, int step, int rc)
{
	keep_first(&op->child_rc, rc);
	op->resume = step;
	return OP_WAIT;
}

enum op_next op_later(struct op *op, int step)
{
	op->resume = step;
	return OP_LATER;
}

enum op_next op_pass(struct op *op, int step)
{
	op->resume = step;
	return OP_PASS;
}

enum op_next op_finish(struct op *op)
{
	(void)op;
	return OP_END;
}

enum op_next op_fail(struct op *op, int rc)
{
	assert(rc < 0);
	if (!op->rc)
		op->rc = rc;
	if (op->on_error == OP_NO_STEP)
		return OP_END;
	op->step = op->on_error;
	op->on_error = OP_NO_STEP;
	return OP_AGAIN;
}

enum op_next op_bug(struct op *op)
{
	log_err("%s: has no step %d", op->name, op->step);
	abort();
}

/* ---- waking ---- */

/* Of those that sleep on one word, hardly more than are meant. */
static uint32_t bell_bit(const struct op *op)
{
	return 1u << ((uint64_t)(uintptr_t)op * 0x9e3779b97f4a7c15u >> 59);
}

static void ring(struct op_driver *driver, uint32_t bits)
{
	atomic_fetch_add(&driver->bell, 1);
	base_futex_wake_bits(&driver->bell, bits);
}

void op_wake_now(void)
{
	if (!self.bits)
		return;
	ring(self.bell, self.bits);
	self.bits = 0;
}

static void ring_later(struct op_driver *driver, uint32_t bit)
{
	if (self.bell != driver)
		op_wake_now();
	self.bell = driver;
	self.bits |= bit;
	if (!self.depth)
		op_wake_now();
}

/* It was OP_SLEEPER and is so no more; it still exists. */
static void wake_sleeper(struct op *op)
{
	struct op_driver *bed = atomic_load(&op->bed);

	if (bed)
		ring(bed, bell_bit(op));
	else
		base_futex_wake(&op->state);
}

/* Whose bell wakes those that sleep for driver. */
static struct op_driver *bed_of(struct op_driver *driver)
{
	return driver && driver->together ? driver : NULL;
}

/* Ends the op: the last touch of it is either the state's exchange or the user's done. Who sleeps on, sleeps for the op's present driver;
 * op->bed, looked at beforehand, might be where it slept for the one before. */
static void finish(struct op *op)
{
	struct op_driver *driver = atomic_load(&op->driver), *bed = bed_of(driver);
	uint32_t old, bit = bell_bit(op);
	bool own = self.waiting == op;

	log_debug("%s: ends, rc %d", op->name, op->rc);
	if (op->done) {
		op_wake_now(); /* what the user does may take long, or wait for one of them */
		atomic_store(&op->state, OP_DONE);
		op->done(op, op->done_arg);
		return;
	}
	old = atomic_exchange(&op->state, OP_DONE);
	if (old == OP_SLEEPER && bed)
		ring_later(bed, bit);
	else if (old == OP_SLEEPER)
		base_futex_wake(&op->state);
	else if (old != OP_RUNNING && !own && driver)
		driver->wake(driver);
}

/* All children are done: decides where the op goes on. */
static enum op_next resume(struct op *op)
{
	int rc = atomic_load_explicit(&op->child_rc, memory_order_relaxed);

	atomic_store_explicit(&op->child_rc, 0, memory_order_relaxed);
	atomic_store_explicit(&op->pending, 1, memory_order_relaxed);
	if (rc)
		return op_fail(op, rc);
	return op_goto(op, op->resume);
}

/* Runs steps until the op waits (false; it is not ours any more) or has ended (true). */
static bool run(struct op *op)
{
	for (;;) {
		enum op_next next;

		log_debug("%s: step %d", op->name, op->step);
		next = op->fn(op);
		if (next == OP_WAIT) {
			if (atomic_fetch_sub(&op->pending, 1) != 1)
				return false;
			next = resume(op);
		}
		if (next == OP_LATER) {
			queue(op);
			return false;
		}
		if (next == OP_PASS) {
			self.passed = true;
			hand_over(op);
			return false;
		}
		if (next == OP_END) {
			/* Children still out would come back to memory that is not ours any more. */
			assert(atomic_load(&op->pending) == 1);
			return true;
		}
	}
}

static enum op_next ended(struct op *op)
{
	return op_finish(op);
}

void op_start(struct op *op)
{
	if (!run(op))
		return;
	if (!op->done) {
		finish(op);
		return;
	}
	/* The user is not called back before this returns: the next poll does it. */
	op->fn = ended;
	queue(op);
}

/* Goes on with an op from a list: one whose children are done, or one that only has to be ended. */
static void go_on(struct op *op)
{
	if (op->fn != ended && resume(op) == OP_AGAIN && !run(op))
		return;
	finish(op);
}

void op_child_done(struct op *op, int rc)
{
	keep_first(&op->child_rc, rc);
	if (atomic_fetch_sub(&op->pending, 1) == 1)
		queue(op);
}

/* The waiter must look at op->driver again. */
static void redirect_waiter(struct op *op, struct op_driver *old)
{
	uint32_t state = atomic_load(&op->state);

	if (state == OP_SLEEPER && atomic_compare_exchange_strong(&op->state, &state, OP_WAITER)) {
		wake_sleeper(op);
		return;
	}
	if (state != OP_RUNNING && old)
		old->wake(old);
}

void op_move(struct op *op, struct op_driver *driver)
{
	struct op_driver *old = atomic_exchange(&op->driver, driver);

	if (old != driver && !op->done && self.waiting != op)
		redirect_waiter(op, old);
}

int op_wait(struct op *op)
{
	uint32_t state = OP_RUNNING;
	struct op *outer = self.waiting;

	assert(!self.depth);
	atomic_compare_exchange_strong(&op->state, &state, OP_WAITER);
	self.waiting = op;
	while (!op_is_done(op)) {
		struct op_driver *driver = atomic_load(&op->driver);

		if (driver)
			driver->wait(driver, op);
		else
			op_sleep(op, NULL);
	}
	self.waiting = outer;
	return op->rc;
}

void op_poll_enter(void)
{
	self.depth++;
}

/* The rest has its turn in the next poll, after the device has had one. */
static void leave_rest(struct op_driver *driver)
{
	struct op *op;

	while ((op = list_pop())) {
		if (!atomic_load(&op->driver))
			op_move(op, driver);
		hand_over(op);
	}
}

int op_poll_leave(struct op_driver *driver)
{
	struct op *op;
	int ran = 0;

	assert(self.depth);
	list_take(driver);
	if (self.depth > 1) {
		self.depth--;
		return 0;
	}
	self.polling = driver;
	/* Steps may make further ops ready: they come to this thread's list, others to the driver's. */
	while (ran < OPS_A_POLL) {
		op = list_pop();
		if (!op && !self.passed) {
			list_take(driver);
			op = list_pop();
		}
		if (!op)
			break;
		go_on(op);
		ran++;
	}
	leave_rest(driver);
	op_wake_now();
	self.passed = false;
	self.polling = NULL;
	self.depth--;
	return ran;
}

struct op_driver *op_polling(void)
{
	return self.polling;
}

bool op_waited_is_done(void)
{
	return self.waiting && op_is_done(self.waiting);
}

bool op_waits_here(struct op *op)
{
	return self.waiting == op || (!op->done && !self.depth && atomic_load(&op->state) == OP_RUNNING);
}

/* Until the op's state is another, or for no reason. The bell's count is taken before the last look at the op. */
static void sleep_once(struct op *op, struct op_driver *bed)
{
	uint32_t count;

	if (!bed) {
		base_futex_wait(&op->state, OP_SLEEPER);
		return;
	}
	count = atomic_load(&bed->bell);
	if (atomic_load(&op->state) == OP_SLEEPER)
		base_futex_wait_bits(&bed->bell, count, bell_bit(op));
}

void op_sleep(struct op *op, struct op_driver *driver)
{
	struct op_driver *bed = bed_of(driver);
	uint32_t state = atomic_load(&op->state);

	atomic_store(&op->bed, bed);
	while (state != OP_SLEEPER) {
		if (state == OP_DONE)
			return;
		if (state == OP_NUDGED) {
			if (atomic_compare_exchange_strong(&op->state, &state, OP_WAITER))
				return;
			continue;
		}
		if (atomic_compare_exchange_strong(&op->state, &state, OP_SLEEPER))
			state = OP_SLEEPER;
	}
	while (state == OP_SLEEPER) {
		if (atomic_load(&op->driver) != driver) {
			atomic_compare_exchange_strong(&op->state, &state, OP_WAITER);
			return;
		}
		sleep_once(op, bed);
		state = atomic_load(&op->state);
	}
}

void op_nudge(struct op *op)
{
	uint32_t state = atomic_load(&op->state);

	while (state != OP_DONE && state != OP_NUDGED) {
		uint32_t next = state == OP_SLEEPER ? OP_WAITER : OP_NUDGED;

		if (!atomic_compare_exchange_weak(&op->state, &state, next))
			continue;
		if (next == OP_WAITER)
			wake_sleeper(op);
		return;
	}
}
