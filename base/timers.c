/* SPDX-License-Identifier: BSD-2-Clause */
/* Timers of a reactor. The heap's array holds the armed timers first and the idle ones behind them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/internal.h"
#include "base/util.h"

#define NS_PER_MS 1000000ull

struct reactor_timer {
	struct timers *ts;
	const char *name;
	size_t pos; /* in ts->heap */
	uint64_t due_ns;
	uint64_t period_ns;
	reactor_timer_fn fn;
	void *arg;
};

void timers_init(struct timers *ts)
{
	memset(ts, 0, sizeof(*ts));
}

void timers_destroy(struct timers *ts)
{
	for (size_t i = 0; i < ts->total; i++)
		free(ts->heap[i]);
	free(ts->heap);
}

static void put(struct timers *ts, size_t pos, struct reactor_timer *t)
{
	ts->heap[pos] = t;
	t->pos = pos;
}

static void swap(struct timers *ts, size_t a, size_t b)
{
	struct reactor_timer *t = ts->heap[a];

	put(ts, a, ts->heap[b]);
	put(ts, b, t);
}

static bool earlier(const struct timers *ts, size_t a, size_t b)
{
	return ts->heap[a]->due_ns < ts->heap[b]->due_ns;
}

static void sift_up(struct timers *ts, size_t pos)
{
	for (; pos && earlier(ts, pos, (pos - 1) / 2); pos = (pos - 1) / 2)
		swap(ts, pos, (pos - 1) / 2);
}

static void sift_down(struct timers *ts, size_t pos)
{
	for (;;) {
		size_t child = 2 * pos + 1;

		if (child + 1 < ts->armed && earlier(ts, child + 1, child))
			child++;
		if (child >= ts->armed || !earlier(ts, child, pos))
			return;
		swap(ts, child, pos);
		pos = child;
	}
}

static void disarm(struct reactor_timer *t)
{
	struct timers *ts = t->ts;
	size_t pos = t->pos;

	if (pos >= ts->armed)
		return;
	ts->armed--;
	if (pos == ts->armed)
		return;
	swap(ts, pos, ts->armed);
	sift_up(ts, pos);
	sift_down(ts, pos);
}

static void arm(struct reactor_timer *t, uint64_t due_ns)
{
	struct timers *ts = t->ts;

	disarm(t);
	t->due_ns = due_ns;
	swap(ts, t->pos, ts->armed);
	sift_up(ts, ts->armed++);
}

static uint64_t later(uint64_t ns, uint64_t ms)
{
	uint64_t delta;

	if (__builtin_mul_overflow(ms, NS_PER_MS, &delta) || __builtin_add_overflow(ns, delta, &ns))
		return UINT64_MAX - 1;
	return ns;
}

static int grow(struct timers *ts)
{
	size_t room = ts->room ? 2 * ts->room : 8;
	void *heap = base_realloc(ts->heap, room * sizeof(struct reactor_timer *));

	if (!heap)
		return -ENOMEM;
	ts->heap = heap;
	ts->room = room;
	return 0;
}

int reactor_add_timer(struct reactor *r, const char *name, uint64_t delay_ms, uint64_t period_ms,
		      reactor_timer_fn fn, void *arg, struct reactor_timer **out)
{
	struct timers *ts = reactor_timers(r);
	struct reactor_timer *t;
	int rc;

	if (ts->total == ts->room) {
		rc = grow(ts);
		if (rc)
			return rc;
	}
	t = base_calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->ts = ts;
	t->name = name;
	t->period_ns = later(0, period_ms);
	t->fn = fn;
	t->arg = arg;
	put(ts, ts->total++, t);
	arm(t, later(base_now_ns(), delay_ms));
	*out = t;
	return 0;
}

void reactor_set_timer(struct reactor_timer *t, uint64_t delay_ms)
{
	arm(t, later(base_now_ns(), delay_ms));
}

void reactor_del_timer(struct reactor_timer *t)
{
	struct timers *ts = t->ts;

	disarm(t);
	swap(ts, t->pos, --ts->total);
	free(t);
}

uint64_t timers_next(const struct timers *ts)
{
	return ts->armed ? ts->heap[0]->due_ns : UINT64_MAX;
}

int timers_run(struct timers *ts, uint64_t now)
{
	int ran = 0;
	/* Timers armed again for at once must not hold the loop here. */
	size_t limit = ts->armed;

	while (limit-- && timers_next(ts) <= now) {
		struct reactor_timer *t = ts->heap[0];

		disarm(t);
		if (t->period_ns) {
			uint64_t due = t->due_ns + t->period_ns;

			/* Beats that were slept over are not made up for. */
			arm(t, due > now ? due : now + t->period_ns);
		}
		t->fn(t->arg); /* may delete t */
		ran++;
	}
	return ran;
}
