/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pacing: while a checkpoint runs, transactions are let in at the rate at which it gets on, so that nobody finds the log at its limit
 * and waits for all of it.
 *
 * The gate is how long the log may be for one more transaction to begin. It is the limit, unless a checkpoint runs that the log
 * has asked for: then it begins a part of the room above the log's length, and moves so that it reaches the limit when the checkpoint
 * is done, by what is done of it and how long the rest should take. Who finds the gate closed waits in a queue. It is let go from the
 * front, as many as the gate's distance has room for: by the checkpoint's steps, by a timer of the service thread while a device is slow, and
 * by transactions that end. While some wait, nobody who comes new gets past them: those who are let go have turns.
 *
 * Who has waited PATIENCE_NS goes on before the plan, as long as that leaves half of the room it has kept back: waits of
 * many writers are longer then, but none lasts for the rest of the checkpoint.
 *
 * Room in the ring is given out in the same way, half of it at a time: with every frame, the writer would change threads as often.
 *
 * The end of the checkpoint, however it ends, opens the gate and lets all go. Without a service thread nobody is paced.
 */
#include <errno.h>
#include <stdatomic.h>

#include "blob/device.h"

#define PATIENCE_NS 2500000u
#define HEADROOM 4u               /* a fourth of the room is for bursts */
#define BYTE_NS 10.0              /* before there was a checkpoint to learn from */
#define TAIL_NS 20000000u         /* the same: flushes and superblocks */
#define TXN_BYTES 256u
#define SOME_BYTES 16384u         /* of room let some go; less do after SOON_NS */
#define SOON_NS 400000u
#define LOOK_FIRST_NS 500000u     /* how often a thread that waits looks at the plan: the first of the queue, */
#define LOOK_NS 4000000u          /* and others, who may have become it */

void bs_pace_init(struct bs_pace *p)
{
	p->byte_ns = BYTE_NS;
	p->tail_ns = TAIL_NS;
	atomic_store(&p->txn_bytes, TXN_BYTES);
}

uint64_t bs_log_length(const struct bs *bs)
{
	const struct bs_log *log = bs->log;

	return bs_log_used_bytes(bs) + bs_ring_head(&log->ring) - bs_ring_tail(&log->ring);
}

/* ---- who may begin ---- */

/* bs->lock held. A new count may come in between. */
static bool take_turn(_Atomic uint32_t *turns)
{
	uint32_t n = atomic_load(turns);

	while (n && !atomic_compare_exchange_weak(turns, &n, n - 1))
		;
	return n;
}

void bs_pace_turn_taken(struct bs_log *log)
{
	take_turn(&log->pace.owed);
}

/* What is kept for those who have turns, from one who has none. */
static uint64_t kept_from(const struct bs_pace *p, uint32_t flags)
{
	uint32_t owed = atomic_load_explicit(&p->owed, memory_order_relaxed);

	return owed && !(flags & (BS_TXN_TURN | BS_TXN_NOW)) ? (uint64_t)owed * atomic_load(&p->txn_bytes) : 0;
}

bool bs_pace_admits(struct bs *bs, uint32_t flags)
{
	struct bs_log *log = bs->log;
	struct bs_pace *p = &log->pace;
	uint64_t length = bs_log_length(bs), gate = atomic_load(&p->gate), limit;

	limit = atomic_load(&log->limit);
	if (length < gate && gate >= limit)
		return true;
	if (length + kept_from(p, flags) < gate) {
		if (!atomic_load_explicit(&p->waiting, memory_order_relaxed) || flags & (BS_TXN_NOW | BS_TXN_TURN))
			return true;
		return take_turn(&p->turns);
	}
	if (length < limit)
		return flags & BS_TXN_NOW;
	return (flags & BS_TXN_FREES) && length < limit + atomic_load(&log->slack);
}

static bool ring_has_room(const struct bs_log *log, uint64_t kept)
{
	uint64_t used = bs_ring_head(&log->ring) - bs_ring_tail(&log->ring);

	return log->ring.size - used >= atomic_load(&log->txn_max) + MIN(kept, log->ring.size / 4);
}

bool bs_ring_admits(struct bs_log *log, uint32_t flags)
{
	struct bs_pace *p = &log->pace;

	if (!ring_has_room(log, kept_from(p, flags)))
		return false;
	if (!atomic_load_explicit(&p->ring_waiting, memory_order_relaxed) || flags & BS_TXN_TURN)
		return true;
	return take_turn(&p->ring_turns);
}

bool bs_ring_refuses(struct bs_log *log)
{
	return !ring_has_room(log, kept_from(&log->pace, 0)) || (atomic_load(&log->pace.ring_waiting) && !atomic_load(&log->pace.ring_turns));
}

uint32_t bs_ring_turns(struct bs_log *log)
{
	struct bs_pace *p = &log->pace;
	uint64_t used = bs_ring_head(&log->ring) - bs_ring_tail(&log->ring), keep = atomic_load(&log->txn_max), n = 0;

	if (used + keep + log->ring.size / 2 <= log->ring.size)
		n = (log->ring.size - used - keep) / MAX(atomic_load(&p->txn_bytes), 1u);
	/* There will be no next frame to wait for. */
	if (!used)
		n = UINT32_MAX;
	atomic_store(&p->ring_turns, (uint32_t)MIN(n, UINT32_MAX));
	return (uint32_t)MIN(n, UINT32_MAX);
}

bool bs_pace_refuses(struct bs_log *log)
{
	struct bs_pace *p = &log->pace;
	uint64_t length = bs_log_length(log->bs), gate = atomic_load(&p->gate);

	if (!p->on)
		return length >= gate;
	return length + kept_from(p, 0) >= gate || (atomic_load(&p->waiting) && !atomic_load(&p->turns));
}

/* ---- the plan; log->lock held ---- */

static double remaining_ns(const struct bs_log *log, uint64_t now)
{
	const struct bs_pace *p = &log->pace;
	double elapsed = (double)(now - p->began_ns), tail = (double)p->tail_ns, left, each = p->byte_ns;

	if (p->tail_began_ns) {
		elapsed = (double)(now - p->tail_began_ns);
		/* It takes longer than it did: then it may take as much again. */
		return MAX(MAX(tail - elapsed, tail / 4), elapsed / 2);
	}
	/* Its pages, and what the log has to be durable through behind them. */
	left = p->total > p->done ? (double)(p->total - p->done) : 0;
	left += (double)(bs_ring_head(&log->ring) - bs_ring_tail(&log->ring));
	if (p->done > p->total / 8 || elapsed > each * (double)p->done)
		each = p->done ? elapsed / (double)p->done : MAX(each, elapsed / (double)MAX(p->total, 1ull));
	return left * each + tail;
}

static void advance(struct bs_log *log, uint64_t now)
{
	struct bs_pace *p = &log->pace;
	uint64_t limit = atomic_load(&log->limit), left;
	double part;

	if (!p->on || now <= p->last_ns)
		return;
	left = limit > p->plan ? limit - p->plan : 0;
	part = (double)(now - p->last_ns) / MAX(remaining_ns(log, now), 1.0);
	p->last_ns = now;
	p->plan += (uint64_t)((double)left * MIN(part, 0.5));
	if (p->plan > atomic_load(&p->gate))
		atomic_store(&p->gate, MIN(p->plan, limit - 1));
}

/* Those who have waited too long go before the plan. */
static void hurry(struct bs_log *log, uint64_t now, uint64_t length, uint32_t each)
{
	struct bs_pace *p = &log->pace;
	uint64_t limit = atomic_load(&log->limit), most = p->plan + (limit - MIN(p->plan, limit)) / 2, want = length;
	struct bs_commit_waiter *w;

	TAILQ_FOREACH(w, &log->room_waiters, link) {
		if (now - w->since_ns < PATIENCE_NS || want >= most)
			break;
		want += each;
	}
	want = MIN(want, MIN(most, limit - 1));
	if (want > atomic_load(&p->gate))
		atomic_store(&p->gate, want);
}

void bs_pace_join(struct bs_log *log, struct bs_commit_waiter *w)
{
	w->paced = bs_log_length(log->bs) < atomic_load(&log->limit);
	if (w->turn && w->turn->again)
		TAILQ_INSERT_HEAD(&log->room_waiters, w, link);
	else
		TAILQ_INSERT_TAIL(&log->room_waiters, w, link);
	atomic_fetch_add(&log->pace.waiting, 1);
}

/* w has a turn. A thread's is kept for it, others take theirs from a number that anybody may take it from. */
void bs_pace_give(struct bs_log *log, struct bs_commit_waiter *w)
{
	if (w->turn) {
		w->turn->mine = true;
		atomic_fetch_add(&log->pace.owed, 1);
	}
}

/* Takes w from the queue; onto `list`, unless its thread sleeps without an op. */
static void let_out(struct bs_log *log, struct bs_commit_waiter *w, struct bs_commit_waiters *list)
{
	TAILQ_REMOVE(&log->room_waiters, w, link);
	atomic_fetch_sub(&log->pace.waiting, 1);
	if (w->turn)
		w->turn->let_ns = bs_clock_ns();
	if (w->cond) {
		w->gone = true;
		pthread_cond_signal(w->cond);
	} else {
		TAILQ_INSERT_TAIL(list, w, link);
	}
}

/* Lets those out whose turn it is. */
static void take_turns(struct bs_log *log, uint64_t now, struct bs_commit_waiters *list)
{
	struct bs_pace *p = &log->pace;
	uint64_t length = bs_log_length(log->bs), gate, n;
	uint32_t each = MAX(atomic_load(&p->txn_bytes), 1u);
	struct bs_commit_waiter *w;

	if (!p->on || TAILQ_EMPTY(&log->room_waiters))
		return;
	hurry(log, now, length, each);
	gate = atomic_load(&p->gate);
	length += kept_from(p, 0);
	n = gate > length ? (gate - length) / each + 1 : 0;
	/* Not for each small one anew. */
	if (gate < length + SOME_BYTES && now - TAILQ_FIRST(&log->room_waiters)->since_ns < SOON_NS)
		n = 0;
	atomic_store(&p->turns, (uint32_t)MIN(n, UINT32_MAX));
	for (; n && (w = TAILQ_FIRST(&log->room_waiters)); n--) {
		bs_pace_give(log, w);
		let_out(log, w, list);
	}
}

/* ---- what moves it ---- */

/* Returns whether somebody still waits for his turn; timer: it comes back then. */
static bool step(struct bs *bs, bool timer)
{
	struct bs_commit_waiters mine = TAILQ_HEAD_INITIALIZER(mine);
	struct bs_log *log = bs->log;
	uint64_t now = bs_clock_ns();
	bool more;

	pthread_mutex_lock(&log->lock);
	advance(log, now);
	take_turns(log, now, &mine);
	more = log->pace.on && !TAILQ_EMPTY(&log->room_waiters);
	if (timer)
		log->pace.ticking = more;
	pthread_mutex_unlock(&log->lock);
	if (!TAILQ_EMPTY(&mine))
		bs_log_let_go(log, &mine, 0);
	return more;
}

bool bs_pace_step(struct bs *bs)
{
	return step(bs, true);
}

/* Sleeps until its turn, and looks at the plan itself as it does: the service thread may be at a slow write. */
static void sleep_until_turn(struct bs_log *log, struct bs_commit_waiter *w)
{
	struct bs_commit_waiters mine = TAILQ_HEAD_INITIALIZER(mine);
	struct timespec end;
	uint64_t now;

	while (!w->gone) {
		now = bs_clock_ns() + (w == TAILQ_FIRST(&log->room_waiters) ? LOOK_FIRST_NS : LOOK_NS);
		end = (struct timespec){ .tv_sec = (time_t)(now / 1000000000), .tv_nsec = (long)(now % 1000000000) };
		if (!pthread_cond_clockwait(w->cond, &log->lock, CLOCK_MONOTONIC, &end) || w->gone)
			continue;
		now = bs_clock_ns();
		advance(log, now);
		take_turns(log, now, &mine);
		if (TAILQ_EMPTY(&mine))
			continue;
		pthread_mutex_unlock(&log->lock);
		bs_log_let_go(log, &mine, 0);
		TAILQ_INIT(&mine);
		pthread_mutex_lock(&log->lock);
	}
}

int bs_pace_wait(struct bs *bs, struct bs_turn *turn)
{
	pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
	struct bs_commit_waiter w = { .turn = turn, .since_ns = turn->since_ns, .cond = &cond };
	struct bs_log *log = bs->log;
	int rc = -EAGAIN;

	pthread_mutex_lock(&log->lock);
	if (!bs_ring_refuses(log) && log->pace.on && !atomic_load(&bs->frozen)) {
		rc = 0;
		if (bs_pace_refuses(log)) {
			bs_pace_join(log, &w);
			sleep_until_turn(log, &w);
		}
	}
	pthread_mutex_unlock(&log->lock);
	pthread_cond_destroy(&cond);
	return rc;
}

/* A transaction has ended: its room may be another's, and the turns may have been too few. No lock held. */
void bs_pace_next(struct bs *bs)
{
	struct bs_commit_waiters mine = TAILQ_HEAD_INITIALIZER(mine);
	struct bs_log *log = bs->log;
	uint64_t now = bs_clock_ns();

	pthread_mutex_lock(&log->lock);
	advance(log, now);
	take_turns(log, now, &mine);
	pthread_mutex_unlock(&log->lock);
	if (!TAILQ_EMPTY(&mine))
		bs_log_let_go(log, &mine, 0);
}

/* bs->lock held. */
void bs_pace_appended(struct bs_log *log, uint32_t bytes)
{
	struct bs_pace *p = &log->pace;
	uint32_t mean = atomic_load_explicit(&p->txn_bytes, memory_order_relaxed);

	atomic_store_explicit(&p->txn_bytes, (uint32_t)((7ull * mean + bytes) / 8), memory_order_relaxed);
}

/* A checkpoint of about so many bytes begins. */
void bs_pace_begin(struct bs *bs, uint64_t total)
{
	struct bs_log *log = bs->log;
	struct bs_pace *p = &log->pace;
	uint64_t length = bs_log_length(bs), limit;
	bool tick = false;

	if (!bs_has_service(bs))
		return;
	pthread_mutex_lock(&log->lock);
	limit = atomic_load(&log->limit);
	if (length < limit) {
		p->on = true;
		p->plan = length + (limit - length) / HEADROOM;
		p->began_ns = p->last_ns = bs_clock_ns();
		p->tail_began_ns = 0;
		p->done = 0;
		p->total = total;
		atomic_store(&p->turns, 0);
		atomic_store(&p->gate, p->plan);
		tick = p->ticking = !TAILQ_EMPTY(&log->room_waiters);
	}
	pthread_mutex_unlock(&log->lock);
	if (tick)
		bs_service_kick(bs, BS_KICK_PACE);
}

/* So many bytes of its pages were begun; it will have about `total`. */
void bs_pace_progress(struct bs *bs, uint64_t done, uint64_t total)
{
	struct bs_log *log = bs->log;

	pthread_mutex_lock(&log->lock);
	log->pace.done = done;
	log->pace.total = total;
	pthread_mutex_unlock(&log->lock);
	step(bs, false);
}

/* All its pages are written, or will soon be. */
void bs_pace_tail(struct bs *bs)
{
	struct bs_log *log = bs->log;
	struct bs_pace *p = &log->pace;
	uint64_t now = bs_clock_ns();

	pthread_mutex_lock(&log->lock);
	if (p->on && p->done)
		p->byte_ns = (p->byte_ns + (double)(now - p->began_ns) / (double)p->done) / 2;
	p->tail_began_ns = now;
	pthread_mutex_unlock(&log->lock);
	step(bs, false);
}

void bs_pace_end(struct bs *bs, int rc)
{
	struct bs_commit_waiters mine = TAILQ_HEAD_INITIALIZER(mine), paced = TAILQ_HEAD_INITIALIZER(paced);
	struct bs_log *log = bs->log;
	struct bs_pace *p = &log->pace;
	struct bs_commit_waiter *w;
	uint64_t took;

	pthread_mutex_lock(&log->lock);
	if (p->on && p->tail_began_ns && !rc) {
		took = bs_clock_ns() - p->tail_began_ns;
		p->tail_ns = took > p->tail_ns ? took : (3 * p->tail_ns + took) / 4;
	}
	p->on = false;
	atomic_store(&p->turns, 0);
	atomic_store(&p->gate, atomic_load(&log->limit));
	/* A checkpoint that failed is of concern to those only who cannot go on without: who has not met the limit asks again. */
	if (bs_log_length(bs) < atomic_load(&log->limit))
		rc = 0;
	while ((w = TAILQ_FIRST(&log->room_waiters)))
		let_out(log, w, w->paced ? &paced : &mine);
	pthread_mutex_unlock(&log->lock);
	bs_log_let_go(log, &mine, rc);
	if (!TAILQ_EMPTY(&paced))
		bs_log_let_go(log, &paced, 0);
}
