/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reactor: one thread's loop of pollers, timers, file descriptors and messages.
 *
 * It calls every poller in turn for as long as one of them finds work; when none has for the spin time
 * it sleeps in epoll until a timer, a descriptor or a message. An idle reactor uses no CPU.
 * Only reactor_post, reactor_stop and reactor_wake may be called from other threads.
 */
#ifndef BASE_REACTOR_H
#define BASE_REACTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/api.h"

BLOBFS_C_BEGIN

struct reactor;
struct reactor_poller;
struct reactor_timer;
struct reactor_fd;

struct reactor_opts {
	uint32_t size;    /* sizeof(struct reactor_opts) */
	uint32_t spin_us; /* keep polling so long after the last work; 0: sleep at once */
	uint32_t ring;    /* messages that fit, power of two; 0: 1024 */
};

/* name: at most 15 characters, the thread's name. opts may be NULL. -ENOMEM, -EMFILE. */
BLOBFS_API int reactor_create(const char *name, const struct reactor_opts *opts,
			      struct reactor **out);
/* Only when it does not run. Pending messages are dropped. */
BLOBFS_API void reactor_destroy(struct reactor *r);

/* Runs the loop in the calling thread until reactor_stop. */
BLOBFS_API int reactor_run(struct reactor *r);
/* Runs the loop in a new thread, all signals blocked; reactor_join waits for its end. */
BLOBFS_API int reactor_start(struct reactor *r);
BLOBFS_API int reactor_join(struct reactor *r);
/* Ends the loop after the messages already posted were run. Any thread, also a signal handler. */
BLOBFS_API void reactor_stop(struct reactor *r);
/* Makes a sleeping loop go round once. Any thread, also a signal handler. */
BLOBFS_API void reactor_wake(struct reactor *r);
/* The reactor whose loop runs in this thread, or NULL. */
BLOBFS_API struct reactor *reactor_current(void);

/* Runs fn(arg) in the reactor's thread, in the order of each sender. Any thread; blocks only while the ring is
 * full. With a full ring, posting to oneself or to a reactor that does not run returns -EAGAIN. What is posted
 * after reactor_stop may stay in the ring until the next run or be dropped by reactor_destroy. */
typedef void (*reactor_msg_fn)(void *arg);
BLOBFS_API int reactor_post(struct reactor *r, reactor_msg_fn fn, void *arg);

/* Poller: returns the number of things done; called once a round. Before the loop runs, or from its thread. */
typedef int (*reactor_poll_fn)(void *arg);
BLOBFS_API int reactor_add_poller(struct reactor *r, const char *name, reactor_poll_fn fn,
				  void *arg, struct reactor_poller **out);
BLOBFS_API void reactor_del_poller(struct reactor_poller *p);

/* Timer: first after delay_ms, then every period_ms (0: once; it stays allocated until deleted). */
typedef void (*reactor_timer_fn)(void *arg);
BLOBFS_API int reactor_add_timer(struct reactor *r, const char *name, uint64_t delay_ms,
				 uint64_t period_ms, reactor_timer_fn fn, void *arg,
				 struct reactor_timer **out);
BLOBFS_API void reactor_set_timer(struct reactor_timer *t, uint64_t delay_ms); /* (re)arms it */
BLOBFS_API void reactor_del_timer(struct reactor_timer *t);

/* Descriptor: delete it before closing fd. fn is called with the ready epoll events.
 * events: EPOLLIN …, EPOLLET, EPOLLEXCLUSIVE allowed. */
typedef void (*reactor_fd_fn)(uint32_t events, void *arg);
BLOBFS_API int reactor_add_fd(struct reactor *r, int fd, uint32_t events, reactor_fd_fn fn,
			      void *arg, struct reactor_fd **out);
BLOBFS_API void reactor_del_fd(struct reactor_fd *f);

BLOBFS_C_END
#endif
