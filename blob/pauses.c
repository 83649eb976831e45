/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How long the store's lock is held and waited for. Who holds it on behalf of nobody (the checkpoint, the release of space) is measured each
 * time; who wants it for a transaction or a write only when it is taken, so that the usual way costs nothing.
 *
 * A mutex is not fair: its owner, giving it up and taking it again, as a checkpoint does all the time, is faster than who was
 * woken. So waiters are counted, and background work lets them in first.
 */
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "blob/internal.h"

#define PATIENCE_NS 200000u /* at most so long for waiters to be let in */

uint64_t bs_clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void add(struct bs_live_hist *h, uint64_t ns)
{
	uint64_t us = ns / 1000, max = atomic_load_explicit(&h->max_ns, memory_order_relaxed);
	unsigned slot = us ? 64u - (unsigned)__builtin_clzll(us) : 0;

	atomic_fetch_add_explicit(&h->slot[MIN(slot, BS_HIST_SLOTS - 1)], 1, memory_order_relaxed);
	while (ns > max && !atomic_compare_exchange_weak(&h->max_ns, &max, ns))
		;
}

void bs_lock_foreground(struct bs *bs)
{
	uint64_t start;

	if (!pthread_mutex_trylock(&bs->lock))
		return;
	start = bs_clock_ns();
	atomic_fetch_add(&bs->pauses.waiters, 1);
	pthread_mutex_lock(&bs->lock);
	atomic_fetch_sub(&bs->pauses.waiters, 1);
	add(&bs->pauses.waited, bs_clock_ns() - start);
}

uint64_t bs_lock_background(struct bs *bs)
{
	uint64_t start = bs_clock_ns(), now = start;

	while (atomic_load(&bs->pauses.waiters) && now - start < PATIENCE_NS) {
		sched_yield();
		now = bs_clock_ns();
	}
	pthread_mutex_lock(&bs->lock);
	return bs_clock_ns();
}

void bs_unlock_background(struct bs *bs, uint64_t since)
{
	uint64_t ns = bs_clock_ns() - since;

	pthread_mutex_unlock(&bs->lock);
	add(&bs->pauses.held, ns);
}

void bs_stopped(struct bs *bs, const struct bs_turn *turn)
{
	if (turn->log_ns)
		add(&bs->pauses.stopped, turn->log_ns);
	if (turn->woken_ns)
		add(&bs->pauses.woken, turn->woken_ns);
	if (turn->buffer_ns)
		add(&bs->pauses.buffered, turn->buffer_ns);
}

static void copy(const struct bs_live_hist *from, struct bs_hist *to)
{
	to->max_ns = atomic_load(&from->max_ns);
	for (unsigned i = 0; i < BS_HIST_SLOTS; i++) {
		to->slot[i] = atomic_load_explicit(&from->slot[i], memory_order_relaxed);
		to->count += to->slot[i];
	}
}

void bs_pauses_get_stat(struct bs *bs, struct bs_stat *st)
{
	copy(&bs->pauses.held, &st->held);
	copy(&bs->pauses.waited, &st->waited);
	copy(&bs->pauses.stopped, &st->stopped);
	copy(&bs->pauses.woken, &st->woken);
	copy(&bs->pauses.buffered, &st->buffered);
}

uint64_t bs_hist_quantile(const struct bs_hist *h, double part)
{
	uint64_t want = (uint64_t)(part * (double)h->count), seen = 0;

	for (unsigned i = 0; i < BS_HIST_SLOTS && h->count; i++) {
		seen += h->slot[i];
		if (seen >= want && seen)
			return MIN(1000ull << i, h->max_ns);
	}
	return h->max_ns;
}
