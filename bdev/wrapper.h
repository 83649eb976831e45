/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the wrappers share: a device over a device, each channel over a channel of its own below.
 *
 * An I/O of the wrapper goes down as a wrapped one; it comes back while the wrapper's reap polls
 * the channel below, so with the wrapper's lock held. Nobody but the wrapper uses the channel
 * below.
 */
#ifndef BDEV_WRAPPER_H
#define BDEV_WRAPPER_H

#include "bdev/internal.h"

struct wrapper {
	struct bdev *base;
};

struct wrapped {
	struct bdev_io io; /* goes down */
	struct bdev_io *up;
	struct bdev_channel *ch; /* the wrapper's */
	struct wrapped *next;
	uint64_t due_ns; /* CLOCK_MONOTONIC: not completed before */
	int rc;          /* to be reported, if not 0 */
	void *own;       /* the wrapper's, as are the next two */
	uint64_t number, generation;
};

/* When a wrapper ends an I/O later than the device below: those whose time has not come, by time.
 */
struct wrapper_channel {
	struct bdev_channel *below;
	struct wrapped *free; /* those not in use */
	struct wrapped *later;
	uint64_t armed_ns; /* when the timer goes off; 0: never */
	int timer, epoll;  /* -1 when nothing ever comes later: due_ns is always 0 then */
};

/* Makes a wrapper over base: dev->priv is w, which begins with a struct wrapper, and info is the
 * base's, to be changed before wrapper_start. */
int wrapper_alloc(const struct bdev_module *module, struct bdev *base, struct wrapper *w,
		  struct bdev **out);
/* On failure dev is freed; base and w stay the caller's. */
int wrapper_start(struct bdev *dev);

/* The module's functions. */
void wrapper_close(struct bdev *dev); /* closes the base, frees priv */
int wrapper_size(struct bdev *dev, uint64_t *size);
int wrapper_channel_create(struct bdev_channel *ch);       /* that never delays */
int wrapper_channel_create_later(struct bdev_channel *ch); /* that may */
void wrapper_channel_destroy(struct bdev_channel *ch);
void wrapper_reap(struct bdev_channel *ch);
void wrapper_kick(struct bdev_channel *ch);
void wrapper_wait(struct bdev_channel *ch);
void wrapper_wake(struct bdev_channel *ch);
int wrapper_fd(struct bdev_channel *ch);
int wrapper_register(struct bdev *dev, void *base, uint64_t len, uint64_t *handle);
void wrapper_unregister(struct bdev *dev, uint64_t handle);

/* With the wrapper's lock held: a copy of up to go down, NULL when memory is short. */
struct wrapped *wrapper_get(struct bdev_channel *ch, struct bdev_io *up, bdev_io_cb cb);
void wrapper_put(struct wrapped *w);
/* Submits it to the channel below; cb gets it back. */
void wrapper_down(struct wrapped *w);
/* Ends up with rc, when w->due_ns has come; w is free then. Also for one that never went down. */
void wrapper_end(struct wrapped *w, int rc);
/* CLOCK_MONOTONIC, which a fake clock does not stop. */
uint64_t wrapper_now(void);

#define WRAPPER_FUNCTIONS                                                                       \
	.size = wrapper_size, .channel_destroy = wrapper_channel_destroy, .reap = wrapper_reap, \
	.kick = wrapper_kick, .wait = wrapper_wait, .wake = wrapper_wake, .fd = wrapper_fd,     \
	.register_mem = wrapper_register, .unregister_mem = wrapper_unregister

#endif
