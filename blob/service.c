/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The service thread: checkpoints, the commit of what nobody commits, releases of freed space, and the driving of commits that
 * asynchronous callers wait for. It sleeps unless kicked, its timer runs, or one of its channels has something.
 *
 * Kicks are bits and a wake: they never block and never fail, so they may be given under any lock.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "blob/sum.h"
#include "blob/device.h"

#define LOG_COMPONENT "blob"
#include "base/log.h"

struct bs_service {
	struct bs *bs;
	struct reactor *reactor;
	struct bdev_channel *ch;
	struct reactor_fd *ch_fd, *log_fd; /* log_fd: while asynchronous callers wait for a commit */
	struct reactor_timer *timer, *pace;
	struct reactor_poller *poller;
	_Atomic unsigned bits;
	_Atomic bool timer_set, busy, stopping;
	_Atomic bool over;         /* said by its thread: nothing is under way, and it begins nothing any more */
	struct op op;              /* commit, then release */
	struct reactor_timer *discard_timer;
	struct bs_discard_walk walk;
	struct bs_discard discard;
	_Atomic bool discarding;   /* the op runs */
	enum { D_IDLE, D_TIMER, D_RUNS } discard_state;
	bool walking;              /* walk is not at its end */
};

#define DISCARD_AFTER_MS 500u /* of becoming free: its neighbours may follow */

enum { S_COMMIT, S_RELEASE };

static enum op_next service_step(struct op *op)
{
	struct bs_service *s = container_of(op, struct bs_service, op);

	switch (op->step) {
	case S_COMMIT:
		bs_commit_start(s->bs, 0, op);
		return op_await(op, S_RELEASE, 0);
	case S_RELEASE:
		op_move(op, bdev_channel_driver(s->ch));
		if (!bs_space_pending(s->bs))
			return op_finish(op);
		bs_space_release(s->bs);
		bs_sums_sweep(s->bs);
		return op_finish(op);
	}
	return op_bug(op);
}

static void service_done(struct op *op, void *arg)
{
	struct bs_service *s = arg;

	(void)op;
	/* What could not be released yet waits for I/O in flight or for the next commit. */
	if (bs_space_pending(s->bs) && !atomic_load(&s->bs->frozen))
		bs_service_kick(s->bs, BS_KICK_TIMER);
	if (bs_discard_wanted(s->bs))
		bs_service_kick(s->bs, BS_KICK_DISCARD);
	atomic_store(&s->busy, false);
}

/* ---- discards: one batch, a pause, and so on, until all is done ---- */

static void discard_done(struct op *op, void *arg)
{
	struct bs_service *s = arg;

	(void)op;
	bs_service_kick(s->bs, BS_KICK_DISCARD);
	atomic_store(&s->discarding, false);
}

static void discards_in(struct bs_service *s, uint64_t ms)
{
	s->discard_state = D_TIMER;
	reactor_set_timer(s->discard_timer, ms);
}

static void on_discard(void *arg)
{
	struct bs_service *s = arg;

	if (s->discard_state != D_TIMER)
		return;
	if (atomic_load(&s->discarding)) { /* its last moments */
		discards_in(s, 5);
		return;
	}
	if (!s->walking)
		bs_discard_walk_init(s->bs, &s->walk);
	s->walking = !atomic_load(&s->stopping) && bs_discard_take(s->bs, &s->walk, &s->discard);
	s->discard_state = s->walking ? D_RUNS : D_IDLE;
	if (s->walking) {
		atomic_store(&s->discarding, true);
		bs_discard_run(s->bs, s->ch, &s->discard, discard_done, s);
	}
}

static void look_for_discards(struct bs_service *s)
{
	if (atomic_load(&s->stopping) || atomic_load(&s->bs->frozen))
		return;
	if (s->discard_state == D_RUNS)
		discards_in(s, bs_discard_pause_ms(s->bs, &s->discard));
	else if (s->discard_state == D_IDLE && bs_discard_wanted(s->bs))
		discards_in(s, DISCARD_AFTER_MS);
}

/* ---- commits and releases ---- */

static void commit_now(struct bs_service *s)
{
	if (atomic_load(&s->stopping) || atomic_load(&s->bs->frozen))
		return;
	if (atomic_exchange(&s->busy, true)) {
		bs_service_kick(s->bs, BS_KICK_TIMER);
		return;
	}
	op_init(&s->op, "service-commit", service_step, bdev_channel_driver(s->ch), service_done, s);
	op_start(&s->op);
}

static void on_timer(void *arg)
{
	struct bs_service *s = arg;

	atomic_store(&s->timer_set, false);
	commit_now(s);
}

/* Every millisecond while somebody waits for his turn. */
static void on_pace(void *arg)
{
	struct bs_service *s = arg;

	if (bs_pace_step(s->bs))
		reactor_set_timer(s->pace, 1);
}

static void on_channel(uint32_t events, void *arg)
{
	struct bs_service *s = arg;

	(void)events;
	while (bdev_poll(s->ch) > 0)
		;
}

/* Completions of commits that asynchronous callers wait for. The last of them ends the watch. */
static void on_log(uint32_t events, void *arg)
{
	struct bs_service *s = arg;
	struct bs_log *log = s->bs->log;
	bool end;

	(void)events;
	while (bdev_poll(log->ch) > 0)
		;
	pthread_mutex_lock(&log->lock);
	end = !log->n_async;
	if (end)
		log->watched = false;
	pthread_mutex_unlock(&log->lock);
	if (end && s->log_fd) {
		reactor_del_fd(s->log_fd);
		s->log_fd = NULL;
	}
}

static void watch_log(struct bs_service *s)
{
	int rc;

	if (s->log_fd)
		return;
	rc = reactor_add_fd(s->reactor, bdev_channel_fd(s->bs->log->ch), EPOLLIN, on_log, s, &s->log_fd);
	if (rc) {
		/* Memory is short: look again at the next round rather than lose the wake. */
		s->log_fd = NULL;
		on_log(0, s);
		bs_service_kick(s->bs, BS_KICK_LOG);
		return;
	}
	on_log(0, s); /* what completed before the watch began */
}

static bool quiet(struct bs *bs)
{
	bool idle;

	if (atomic_load(&bs->service->busy) || atomic_load(&bs->service->discarding) || !bs_ckpt_idle(bs) || !bs_sums_idle(bs))
		return false;
	pthread_mutex_lock(&bs->log->lock);
	idle = !bs->log->busy && !bs->log->n_async;
	pthread_mutex_unlock(&bs->log->lock);
	return idle;
}

static void see_to(struct bs_service *s, unsigned bits)
{
	if (bits & BS_KICK_LOG)
		watch_log(s);
	if (bits & BS_KICK_TIMER)
		reactor_set_timer(s->timer, s->bs->opts.commit_ms ? s->bs->opts.commit_ms : 1000);
	if (bits & BS_KICK_COMMIT)
		commit_now(s);
	if ((bits & BS_KICK_CKPT) && bs_ckpt_wanted(s->bs))
		bs_ckpt_start(s->bs);
	if (bits & BS_KICK_PACE)
		on_pace(s);
	if (bits & BS_KICK_DISCARD)
		look_for_discards(s);
	if ((bits & BS_KICK_SUMS) && !atomic_load(&s->stopping))
		bs_sums_start(s->bs, s->ch, NULL);
}

static int on_round(void *arg)
{
	struct bs_service *s = arg;
	unsigned bits = atomic_load_explicit(&s->bits, memory_order_relaxed);

	if (atomic_load_explicit(&s->over, memory_order_relaxed))
		return 0;
	if (bits)
		see_to(s, atomic_exchange(&s->bits, 0));
	/* Only here, where things begin, can it be said that none is under way and none will be. */
	if (atomic_load(&s->stopping) && quiet(s->bs))
		atomic_store(&s->over, true);
	return bits != 0;
}

void bs_service_kick(struct bs *bs, unsigned bits)
{
	struct bs_service *s = bs->service;
	unsigned old;

	if (!s)
		return;
	if (bits == BS_KICK_TIMER) {
		if (atomic_load_explicit(&s->timer_set, memory_order_relaxed) || atomic_exchange(&s->timer_set, true))
			return;
	}
	old = atomic_fetch_or(&s->bits, bits);
	if ((old & bits) != bits)
		reactor_wake(s->reactor);
}

bool bs_has_service(const struct bs *bs)
{
	return bs->service != NULL;
}

struct reactor *bs_service_reactor(struct bs *bs)
{
	return bs->service ? bs->service->reactor : NULL;
}

struct bdev_channel *bs_service_channel(struct bs *bs)
{
	return bs->service ? bs->service->ch : NULL;
}

static int prepare(struct bs_service *s)
{
	struct reactor_opts opts = { .size = sizeof(opts) };
	int rc = bdev_channel_create(s->bs->dev, &s->ch);

	if (!rc)
		rc = reactor_create("blob-service", &opts, &s->reactor);
	if (!rc)
		rc = reactor_add_fd(s->reactor, bdev_channel_fd(s->ch), EPOLLIN, on_channel, s, &s->ch_fd);
	if (!rc)
		rc = reactor_add_timer(s->reactor, "commit", 1000, 0, on_timer, s, &s->timer);
	if (!rc)
		rc = reactor_add_timer(s->reactor, "pace", 1000, 0, on_pace, s, &s->pace);
	if (!rc && s->bs->space->stale)
		rc = reactor_add_timer(s->reactor, "discard", 1000, 0, on_discard, s, &s->discard_timer);
	if (!rc)
		rc = reactor_add_poller(s->reactor, "service", on_round, s, &s->poller);
	return rc;
}

static void drop(struct bs_service *s)
{
	if (s->reactor)
		reactor_destroy(s->reactor);
	if (s->ch)
		bdev_channel_destroy(s->ch);
	free(s);
}

int bs_service_start(struct bs *bs)
{
	struct bs_service *s;
	int rc;

	if (bs->flags & (BS_RDONLY | BS_NO_SERVICE))
		return 0;
	s = base_calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->bs = bs;
	bs->service = s;
	rc = prepare(s);
	if (!rc)
		rc = reactor_start(s->reactor);
	if (rc) {
		bs->service = NULL;
		drop(s);
	}
	return rc;
}

void bs_service_stop(struct bs *bs)
{
	struct bs_service *s = bs->service;
	struct timespec pause = { .tv_nsec = 50000 };

	if (!s)
		return;
	atomic_store(&s->stopping, true);
	/* The thread still drives what is in flight; we help, in case it sleeps with nothing to watch. */
	while (!atomic_load(&s->over)) {
		reactor_wake(s->reactor);
		if (!bdev_poll(bs->log->ch))
			nanosleep(&pause, NULL);
	}
	reactor_stop(s->reactor);
	reactor_join(s->reactor);
	bs->service = NULL;
	drop(s);
}

/* ---- without a thread, and waiting for a checkpoint ---- */

struct ckpt_wait {
	struct op op;
	struct bs *bs;
};

static enum op_next ckpt_wait_step(struct op *op)
{
	struct ckpt_wait *w = container_of(op, struct ckpt_wait, op);

	switch (op->step) {
	case 0:
		bs_ckpt_wait_start(w->bs, op, false);
		return op_await(op, 1, 0);
	case 1:
		return op_finish(op);
	}
	return op_bug(op);
}

int bs_checkpoint(struct bs *bs)
{
	struct ckpt_wait w = { .bs = bs };

	if (!bs->log->ch)
		return -EROFS;
	op_init(&w.op, "checkpoint-wait", ckpt_wait_step, bdev_channel_driver(bs->log->ch), NULL, NULL);
	op_start(&w.op);
	return op_wait(&w.op);
}

int bs_service_step(struct bs *bs)
{
	int rc;

	if (!bs->log->ch)
		return 0;
	rc = bs_commit(bs, 0);
	if (!rc && bs_ckpt_wanted(bs))
		rc = bs_checkpoint(bs);
	if (!rc)
		rc = bs_sums_step(bs);
	if (bs_space_pending(bs))
		bs_space_release(bs);
	bs_sums_sweep(bs);
	bs_discard_all(bs);
	return rc;
}
