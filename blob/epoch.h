/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What each data operation does with epochs (epoch.c), and how it looks at a run map without a lock: inside an epoch, counted as one
 * who looks.
 */
#ifndef BLOB_EPOCH_H
#define BLOB_EPOCH_H

#include <stdatomic.h>

#include "blob/internal.h"

#define BS_EPOCH_LINES 256u /* a channel's index is below that */
#define BS_LOOKING (1ull << 24) /* more operations than there can be on a channel: they would be 20 GiB of requests */

/* Of one channel, in the epochs of one parity. */
struct bs_epoch_count {
	/* Operations inside, and in steps of BS_LOOKING those of them that look at maps now. */
	_Atomic uint64_t inside;
	/* Counted here, where the cache line is ours anyway. */
	_Atomic uint64_t read_bytes, write_bytes[BS_STREAMS];
	uint8_t pad[64 - (2 + BS_STREAMS) * sizeof(uint64_t)];
};

struct bs_epochs {
	/* Looked at by every operation, changed seldom, save for `changing`. */
	_Atomic uint64_t epoch;
	_Atomic uint32_t changing; /* maps are being changed, under bs->lock: look under the maplock */
	_Atomic uint32_t n_waiting;
	struct bs *bs;
	struct {
		_Atomic bool changer_sleeps;
		pthread_cond_t look_ended;
		pthread_mutex_t lock; /* of waiters, and of the changer's sleep */
		LIST_HEAD(, bs_epoch_waiter) waiters;
	} __attribute__((aligned(64)));
	struct bs_epoch_count count[BS_EPOCH_LINES][2] __attribute__((aligned(64)));
};
static_assert(sizeof(struct bs_epoch_count) == 64, "a cache line, which no other channel touches");

static inline void bs_count_written(struct bs_epoch_count *c, enum bs_stream stream, uint64_t bytes)
{
	unsigned k = (unsigned)stream < BS_STREAMS ? stream : BS_STREAM_UNKNOWN;

	atomic_fetch_add_explicit(&c->write_bytes[k], bytes, memory_order_relaxed);
}

/* Those who wait for an epoch that has come go on. */
void bs_epoch_end_waiters(struct bs_epochs *e);

static inline void bs_count_out(struct bs_epochs *e, struct bs_epoch_count *c)
{
	atomic_fetch_sub(&c->inside, 1);
	if (__builtin_expect(atomic_load(&e->n_waiting), 0))
		bs_epoch_end_waiters(e);
}

void bs_look_undo(struct bs_epochs *e, struct bs_epoch_count *c);
void bs_look_wake(struct bs_epochs *e);

/* Enters the present epoch and begins a look at maps; *count: where it is counted. False: what was begun has to be undone; bs_epoch_enter
 * and the maplock do it then. */
static inline bool bs_look_begin(struct bs_epochs *e, unsigned channel, struct bs_epoch_count **count)
{
	uint64_t now = atomic_load(&e->epoch);
	struct bs_epoch_count *c = &e->count[channel][now & 1];

	atomic_fetch_add(&c->inside, BS_LOOKING + 1);
	*count = c;
	return __builtin_expect(atomic_load(&e->epoch) == now && !atomic_load(&e->changing), 1);
}

/* Stays inside the epoch. True: bs_look_wake is to be called. */
static inline bool bs_look_end(struct bs_epochs *e, struct bs_epoch_count *c)
{
	atomic_fetch_sub(&c->inside, BS_LOOKING);
	return __builtin_expect(atomic_load(&e->changing), 0);
}

#endif
