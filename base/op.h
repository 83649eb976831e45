/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * op: multi-step asynchronous work that reads downward.
 *
 * An operation is a struct that embeds `struct op`. One function holds a switch over its steps. A step
 * ends with
 *     op_goto(op, STEP)            go on at STEP at once
 *     op_await(op, STEP, rc)       children were started (op_child_begin); go on at STEP when the last
 *                                  of them has called op_child_done. rc != 0 means starting failed.
 *     op_later(op, STEP)           go on at STEP behind all that is ready to run by now
 *     op_pass(op, STEP)            go on at STEP in the next poll of op->driver, of whichever thread comes to it
 *     op_finish(op)                the work is over; op->rc is the result
 * When rc or a child's result is negative it is kept in op->rc (the first one wins) and the op goes on
 * at op->on_error instead of STEP, if on_error is not OP_NO_STEP; on_error is cleared by that jump, so
 * that an error step that fails cannot loop. With on_error == OP_NO_STEP an error finishes the op.
 *
 * Who runs it: op_start runs the first steps in the caller. Later steps run in whichever thread's poll
 * completed the last child; an op never needs a particular thread. op->driver names the thing that
 * completes what the op waits for now (a device channel), so that a synchronous waiter knows what to
 * poll. The user's `done` is never called before op_start has returned: if all steps ran inside
 * op_start, `done` is called by the next poll of op->driver.
 */
#ifndef BASE_OP_H
#define BASE_OP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/api.h"
#include "base/atomic.h"

BLOBFS_C_BEGIN

#define OP_NO_STEP (-1)

enum op_next { OP_AGAIN, OP_WAIT, OP_LATER, OP_PASS, OP_END };

struct op;
struct op_driver;

typedef enum op_next (*op_fn)(struct op *op);
typedef void (*op_done_fn)(struct op *op, void *arg);

/* Something that completes ops when it is polled. Embedded in a device channel; the log embeds none of
 * its own: it names its channel's. */
struct op_driver {
	/* Blocks until `op` is done or op->driver is no longer this one; polls or sleeps meanwhile.
	 * Called by op_wait only; any thread; holds no lock while it sleeps on the op. May return early. */
	void (*wait)(struct op_driver *driver, struct op *op);
	/* Makes whoever sleeps in this driver's device (not in op_sleep) poll it and look at its op again; any
	 * thread. It must not be lost between that one's last look and its sleep, and should cost
	 * nothing when nobody sleeps there. The driver outlives the threads that complete its ops. */
	void (*wake)(struct op_driver *driver);
	/* Ops to be run or finished by the next poll; pushed by any thread. */
	BASE_ATOMIC(struct op *) ready;
	/* Set before the driver is used, where ops end many at a time: who sleeps in op_sleep for this driver sleeps on its bell, and one
	 * system call wakes all whose ops a poll has ended. */
	bool together;
	BASE_ATOMIC(uint32_t) bell;
};

struct op {
	op_fn fn;
	const char *name; /* for the trace; a literal */
	int step;         /* the case to run next */
	int resume;       /* the step op_await named */
	int on_error;
	int rc;
	BASE_ATOMIC(int) child_rc;     /* first error of the children of this wait */
	BASE_ATOMIC(uint32_t) pending; /* children not done, plus one while a step runs */
	BASE_ATOMIC(uint32_t) state;   /* enum op_state; futex word of a synchronous waiter */
	BASE_ATOMIC(struct op_driver *) driver;
	BASE_ATOMIC(struct op_driver *) bed; /* of the sleeper: whose bell wakes it; NULL: the futex word */
	op_done_fn done; /* NULL: somebody calls op_wait */
	void *done_arg;
	struct op *next; /* link in a ready list; owned by the engine */
};

enum op_state {
	OP_RUNNING = 0, /* nobody waits in op_wait (yet) */
	OP_SLEEPER = 1, /* a waiter sleeps on the word */
	OP_DONE = 2,
	OP_WAITER = 3, /* a waiter is inside driver->wait, but not on the word */
	OP_NUDGED = 4, /* as RUNNING or WAITER; its next op_sleep returns at once */
};

/* Prepares an op: step 0, no error step, rc 0. `done` may be NULL. */
BLOBFS_API void op_init(struct op *op, const char *name, op_fn fn, struct op_driver *driver,
			op_done_fn done, void *done_arg);
/* Runs it until it waits or ends. Once it waits, another thread may go on with it: with `done` set, the op may be
 * gone by the time op_start returns. */
BLOBFS_API void op_start(struct op *op);

/* Ends of a step; only from inside op->fn. */
static inline enum op_next op_goto(struct op *op, int step)
{
	op->step = step;
	return OP_AGAIN;
}
BLOBFS_API enum op_next op_await(struct op *op, int step, int rc);
BLOBFS_API enum op_next op_later(struct op *op, int step);
BLOBFS_API enum op_next op_pass(struct op *op, int step);
BLOBFS_API enum op_next op_finish(struct op *op);
/* Jump to on_error with rc (negative errno), as a failed await does. */
BLOBFS_API enum op_next op_fail(struct op *op, int rc);
/* A step number that does not exist: logs the op's name and step, aborts. */
BLOBFS_API enum op_next op_bug(struct op *op);

/* Counts one more child of the running step. Only from inside op->fn, before the child is started. Each
 * is met by exactly one op_child_done, also when starting the child failed (which may report its rc there or
 * to op_await). */
#ifndef __cplusplus
static inline void op_child_begin(struct op *op)
{
	atomic_fetch_add_explicit(&op->pending, 1, memory_order_relaxed);
}
#endif
/* A child is done. Any thread. Inside a poll the op is queued on that poll; elsewhere on op->driver,
 * which is woken. Never runs the op itself. */
BLOBFS_API void op_child_done(struct op *op, int rc);

/* The op now waits for what `driver` completes. Only from inside op->fn, before the children are started; wakes
 * a synchronous waiter so that it goes there. */
BLOBFS_API void op_move(struct op *op, struct op_driver *driver);

/* Waits until an op started with done == NULL has ended, driving op->driver; returns op->rc. The op's
 * memory is the caller's again. Never call it from inside a poll or with a lock held. */
BLOBFS_API int op_wait(struct op *op);

#ifndef __cplusplus
static inline bool op_is_done(struct op *op)
{
	return atomic_load_explicit(&op->state, memory_order_acquire) == (uint32_t)OP_DONE;
}
#endif

/* For drivers' polls: op_poll_enter; complete children; op_poll_leave(driver) runs every op that became
 * ready, those of driver->ready included; of very many, or of ops that make each other ready without end, the rest stays for the next
 * poll, and the driver is woken. Returns the number run. Polls nest: only the outermost leave runs ops. */
BLOBFS_API void op_poll_enter(void);
BLOBFS_API int op_poll_leave(struct op_driver *driver);
/* The driver whose poll runs the step that asks, NULL outside of one. A step that is run by another driver's poll, and submits to its
 * own, must see to it that somebody polls that (bdev_kick). */
BLOBFS_API struct op_driver *op_polling(void);

/* Whether the calling thread is in op_wait for op, or has started it, outside of a poll, and nobody is in op_wait for it yet: so that
 * what is left to do for it until the thread waits is not left for long. Only while op cannot end. */
BLOBFS_API bool op_waits_here(struct op *op);

/* Whether the calling thread polls on its way out of an op_wait: its own op has ended. A long step is better passed on to one that
 * still waits. */
BLOBFS_API bool op_waited_is_done(void);

/* Wakes those whose ops this poll has ended now rather than at its end: for a step that takes long. */
BLOBFS_API void op_wake_now(void);

/* For drivers' waits, when another thread polls the driver: sleeps until op is done, moved or nudged. Returns at
 * once if op is done, op->driver != driver, or it was nudged since its last sleep. */
BLOBFS_API void op_sleep(struct op *op, struct op_driver *driver);
/* Makes the synchronous waiter of op leave op_sleep, or not enter it, once (hand-over of polling). The caller
 * sees to it that op still exists. */
BLOBFS_API void op_nudge(struct op *op);

BLOBFS_C_END
#endif
