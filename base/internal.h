/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of base share. */
#ifndef BASE_INTERNAL_H
#define BASE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/reactor.h"

/* Consumes one allocation of this thread; true when the test wants it to fail. */
bool base_alloc_fails(void);
/* Time is the fake clock's: whoever sleeps until a time must look again now and then. */
bool base_clock_is_fake(void);
/* CLOCK_MONOTONIC, whatever a test says. */
uint64_t base_real_ns(void);
/* Sleeps while *word == expected, until base_futex_wake. May return early. */
void base_futex_wait(_Atomic(uint32_t) *word, uint32_t expected);
/* Wakes all sleepers on word; the memory may already be somebody else's. */
void base_futex_wake(_Atomic(uint32_t) *word);
/* The same, for those sleepers that have one of these bits. */
void base_futex_wait_bits(_Atomic(uint32_t) *word, uint32_t expected, uint32_t bits);
void base_futex_wake_bits(_Atomic(uint32_t) *word, uint32_t bits);

/* A lock-free ring of messages, many senders to one receiver. */
struct msgring;

struct msg {
	reactor_msg_fn fn;
	void *arg;
};

/* size: power of two. -EINVAL, -ENOMEM. */
int msgring_create(uint32_t size, struct msgring **out);
void msgring_destroy(struct msgring *m);
/* Any thread; false when the ring is full. */
bool msgring_push(struct msgring *m, const struct msg *msg);
/* The receiver only; false when it is empty. */
bool msgring_pop(struct msgring *m, struct msg *msg);
uint32_t msgring_count(struct msgring *m);

/* The armed timers of a reactor: a binary heap, the next one first. */
struct timers {
	struct reactor_timer **heap;
	size_t armed, total, room; /* room >= total: arming a timer never allocates */
};

void timers_init(struct timers *ts);
/* Frees the timers that were not deleted, too. */
void timers_destroy(struct timers *ts);
/* The time the next one is due, UINT64_MAX when there is none. */
uint64_t timers_next(const struct timers *ts);
/* Runs those due at `now`; returns their number. */
int timers_run(struct timers *ts, uint64_t now);
/* The timers of a reactor, for base/timers.c. */
struct timers *reactor_timers(struct reactor *r);

#endif
