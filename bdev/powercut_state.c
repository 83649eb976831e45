/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * powercut: a state of the medium after a cut, made from the record.
 *
 * Certain at a cut: writes that completed before the submission of a flush that completed by then
 * (the flush point), and FUA writes that completed. Undecided: every other write submitted by then.
 * Not there: the rest.
 *
 * Order: what completed before another was submitted lies under it, always; it was overwritten in
 * the device's cache. Of those complete, the order of completion is that of the cache. A write
 * still in flight may come anywhere after what was complete when it was submitted. A write that
 * failed is undecided for ever, but over: it lies under what was submitted after its end.
 *
 * The writes up to the flush point are certain at every later cut too, and lie under all others. So
 * they are applied once, to a medium whose copies share it until they are written; a state adds the few
 * others to its copy.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/powercut.h"
#include "bdev/ram.h"

/* ---- choices, all by seed ---- */

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static uint64_t chance(uint64_t seed, uint64_t a, uint64_t b)
{
	return mix(mix(mix(seed) ^ a) ^ b);
}

/* Of 8 undecided things how many survive: half as a rule, but nearly all and nearly none are tried
 * too. */
static unsigned survivors_of_8(uint64_t seed)
{
	static const unsigned of[8] = { 4, 4, 4, 4, 1, 7, 0, 8 };

	return of[chance(seed, UINT64_MAX, 0) % 8];
}

/* ---- what is in doubt ---- */

struct survivor {
	const struct pc_write *write;
	uint64_t key;    /* order of application */
	uint64_t number; /* among the undecided; UINT64_MAX: certain */
};

struct survey {
	const struct bdev_cut *cut;
	struct survivor *list;
	size_t n;
	uint64_t undecided;
};

uint64_t powercut_flush_point(const struct powercut *pc, uint64_t event)
{
	size_t lo = 0, hi = pc->nflushes;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (pc->flushes[mid].complete <= event)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo ? pc->flushes[lo - 1].submit : 0;
}

static bool before_flush(const struct pc_write *r, uint64_t flush)
{
	return r->complete && r->complete < flush;
}

/* The place of a write among the others: twice the event, odd ones for those in flight at the cut.
 */
static uint64_t order_key(const struct pc_write *r, const struct bdev_cut *cut, uint64_t number)
{
	uint64_t span;

	if (r->complete && r->complete <= cut->event)
		return 2 * r->complete;
	if (r->failed && r->failed <= cut->event)
		return 2 * r->failed;
	if (cut->mask)
		return 2 * cut->event + 1;
	span = cut->event - r->submit + 1;
	return 2 * (r->submit + chance(cut->seed, number, 1ull << 40) % span) + 1;
}

/* Whether a surviving write is decided unit by unit. By seed, every other one is whole all the
 * same. */
static bool is_torn(const struct bdev_cut *cut, uint64_t number)
{
	if (!cut->torn || number == UINT64_MAX)
		return false;
	return cut->mask || chance(cut->seed, number, 1ull << 41) % 2;
}

static bool is_chosen(const struct bdev_cut *cut, uint64_t number)
{
	if (cut->mask)
		return cut->mask[number / 8] >> (number % 8) & 1;
	return is_torn(cut, number) || chance(cut->seed, number, 0) % 8 < survivors_of_8(cut->seed);
}

/* Counts the undecided writes of a cut; with a list, fills it with those that survive. Lock held.
 */
static void survey(const struct powercut *pc, size_t from, struct survey *s)
{
	uint64_t event = s->cut->event, flush = powercut_flush_point(pc, event);

	for (size_t i = from; i < pc->nwrites && pc->writes[i]->submit <= event; i++) {
		const struct pc_write *r = pc->writes[i];
		uint64_t number = UINT64_MAX;

		if (before_flush(r, flush))
			continue;
		if (!(r->fua && r->complete && r->complete <= event)) {
			number = s->undecided++;
			if (!s->list || !is_chosen(s->cut, number))
				continue;
		}
		if (s->list)
			s->list[s->n++] = (struct survivor){ r, order_key(r, s->cut, number),
							     number };
	}
}

static bool overlap(const struct pc_write *a, const struct pc_write *b)
{
	return a->offset < b->offset + b->length && b->offset < a->offset + a->length;
}

/* A failed write that survives from before the flush point lies under what is in the rolled medium already: that is written once
 * more, and so is what lies over that. Lock held. */
static void cover_failed(const struct powercut *pc, struct survey *s)
{
	uint64_t flush = powercut_flush_point(pc, s->cut->event);
	size_t n = s->n;

	for (size_t d = 0; d < pc->ndone && pc->done[d]->complete < flush; d++) {
		const struct pc_write *r = pc->done[d];

		for (size_t i = 0; i < s->n; i++) {
			const struct pc_write *f = s->list[i].write;
			bool failed = f->failed && f->failed <= s->cut->event && f->failed <= r->complete;

			if ((!failed && i < n) || !overlap(f, r))
				continue;
			s->list[s->n++] = (struct survivor){ r, 2 * r->complete, UINT64_MAX };
			break;
		}
	}
}

static int by_key(const void *a, const void *b)
{
	const struct survivor *x = a, *y = b;

	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

/* ---- application ---- */

static int apply(struct medium *m, const struct pc_write *r, uint64_t at, uint64_t len)
{
	return medium_write(m, r->offset + at, r->data ? r->data + at : NULL, len);
}

static int apply_survivor(struct medium *m, const struct survivor *s, const struct bdev_cut *cut)
{
	const struct pc_write *r = s->write;
	unsigned of_8 = cut->mask ? 4 : survivors_of_8(cut->seed);
	int rc = 0;

	if (!is_torn(cut, s->number))
		return apply(m, r, 0, r->length);
	/* Units lie at multiples of their size on the device, wherever the write begins. */
	for (uint64_t at = 0, len; !rc && at < r->length; at += len) {
		uint64_t unit = (r->offset + at) / cut->torn;

		len = MIN((unit + 1) * cut->torn - (r->offset + at), r->length - at);
		if (chance(cut->seed, s->number, unit + 1) % 8 < of_8)
			rc = apply(m, r, at, len);
	}
	return rc;
}

/* ---- the shared medium ---- */

/* Brings it to a flush point at or after its own. Lock held. */
static int roll(struct powercut *pc, uint64_t flush)
{
	int rc = 0;

	while (!rc && pc->rolled.applied < pc->ndone && pc->done[pc->rolled.applied]->complete < flush) {
		const struct pc_write *r = pc->done[pc->rolled.applied];

		rc = apply(pc->rolled.medium, r, 0, r->length);
		pc->rolled.applied += !rc;
	}
	while (pc->rolled.low < pc->nwrites && before_flush(pc->writes[pc->rolled.low], flush))
		pc->rolled.low++;
	return rc;
}

/* The medium of this flush point: the last state's, unless the cut lies before that one. */
static int roll_to(struct powercut *pc, uint64_t flush)
{
	size_t applied = pc->rolled.applied;
	int rc;

	if (pc->rolled.medium && applied && pc->done[applied - 1]->complete >= flush) {
		medium_free(pc->rolled.medium);
		pc->rolled.medium = NULL;
	}
	if (!pc->rolled.medium) {
		pc->rolled.applied = pc->rolled.low = 0;
		rc = medium_copy(pc->pristine, &pc->rolled.medium);
		if (rc) {
			pc->rolled.medium = NULL;
			return rc;
		}
	}
	return roll(pc, flush);
}

/* The surviving writes over a copy of the medium. Lock held. */
static int build(struct powercut *pc, struct survey *s, struct medium **out)
{
	int rc = roll_to(pc, powercut_flush_point(pc, s->cut->event));

	if (rc)
		return rc;
	s->list = base_malloc((pc->nwrites + 1) * sizeof(*s->list));
	if (!s->list)
		return -ENOMEM;
	rc = medium_copy(pc->rolled.medium, out);
	if (!rc) {
		survey(pc, pc->rolled.low, s);
		cover_failed(pc, s);
		qsort(s->list, s->n, sizeof(*s->list), by_key);
		for (size_t i = 0; !rc && i < s->n; i++)
			rc = apply_survivor(*out, &s->list[i], s->cut);
		if (rc)
			medium_free(*out);
	}
	free(s->list);
	return rc;
}

int bdev_powercut_state(struct bdev *dev, const struct bdev_cut *cut, struct bdev **out)
{
	struct powercut *pc = dev->priv;
	struct survey s = { .cut = cut };
	struct medium *m;
	int rc;

	pthread_mutex_lock(&pc->lock);
	rc = cut->event <= pc->events ? build(pc, &s, &m) : -EINVAL;
	pthread_mutex_unlock(&pc->lock);
	if (rc)
		return rc;
	rc = ram_over(m, out);
	if (rc)
		medium_free(m);
	return rc;
}

uint64_t bdev_powercut_undecided(struct bdev *dev, uint64_t event)
{
	struct powercut *pc = dev->priv;
	struct bdev_cut cut = { .event = event };
	struct survey s = { .cut = &cut };

	pthread_mutex_lock(&pc->lock);
	survey(pc, 0, &s);
	pthread_mutex_unlock(&pc->lock);
	return s.undecided;
}
