/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Counts of shared blocks: a tree of extents of equal count, which do not overlap; neighbours of one count are one
 * extent. What is in no extent has one run, or none.
 *
 * A transaction that maps shared blocks sets nodes aside when it checks. Each of its runs needs at most two for the cuts at
 * its ends and, for what was counted nowhere, twice the gaps it covers: a later run of the same transaction can
 * cut such a gap in two, and no more. What is merged goes back to those set aside, so that this bound holds to the end.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "blob/mutation.h"
#include "blob/share.h"

#define LOG_COMPONENT "blob"
#include "base/log.h"

#define KEEP_NODES 64u

static int share_cmp(const struct bs_share *a, const struct bs_share *b)
{
	return a->phys < b->phys ? -1 : a->phys > b->phys;
}

BS_RB_GENERATE(bs_share_tree, bs_share, node, share_cmp)

int bs_share_create(struct bs *bs)
{
	bs->shares = base_calloc(1, sizeof(*bs->shares));
	if (!bs->shares)
		return -ENOMEM;
	RB_INIT(&bs->shares->tree);
	return 0;
}

static void spare_trim(struct bs_shares *s, uint64_t n)
{
	while (s->n_spare > n) {
		struct bs_share *e = s->spare;

		s->spare = e->next;
		s->n_spare--;
		free(e);
	}
}

void bs_share_destroy(struct bs *bs)
{
	struct bs_shares *s = bs->shares;
	struct bs_share *e, *next;

	if (!s)
		return;
	for (e = RB_MIN(bs_share_tree, &s->tree); e; e = next) {
		next = RB_NEXT(bs_share_tree, &s->tree, e);
		RB_REMOVE(bs_share_tree, &s->tree, e);
		free(e);
	}
	spare_trim(s, 0);
	free(s->note);
	free(s);
	bs->shares = NULL;
}

/* ---- nodes ---- */

static int spare_fill(struct bs_shares *s, uint64_t n)
{
	while (s->n_spare < n) {
		struct bs_share *e = base_malloc(sizeof(*e));

		if (!e)
			return -ENOMEM;
		e->next = s->spare;
		s->spare = e;
		s->n_spare++;
	}
	return 0;
}

static struct bs_share *extent_add(struct bs_shares *s, uint64_t phys, uint64_t count, uint32_t refs)
{
	struct bs_share *e = s->spare;

	assert(e);
	s->spare = e->next;
	s->n_spare--;
	e->phys = phys;
	e->count = count;
	e->refs = refs;
	RB_INSERT(bs_share_tree, &s->tree, e);
	return e;
}

static void extent_del(struct bs_shares *s, struct bs_share *e)
{
	RB_REMOVE(bs_share_tree, &s->tree, e);
	e->next = s->spare;
	s->spare = e;
	s->n_spare++;
}

/* ---- looking ---- */

static uint64_t extent_end(const struct bs_share *e)
{
	return e->phys + e->count;
}

/* The first extent that ends after phys; NULL: none. */
static struct bs_share *extent_after(const struct bs_shares *s, uint64_t phys)
{
	struct bs_share *e = RB_ROOT(&s->tree), *best = NULL;

	while (e) {
		if (extent_end(e) > phys) {
			best = e;
			e = RB_LEFT(e, node);
		} else {
			e = RB_RIGHT(e, node);
		}
	}
	return best;
}

uint32_t bs_share_refs(const struct bs *bs, uint64_t phys, uint64_t max, uint64_t *len)
{
	const struct bs_share *e = extent_after(bs->shares, phys);

	if (e && e->phys <= phys) {
		*len = MIN(max, extent_end(e) - phys);
		return e->refs;
	}
	*len = e ? MIN(max, e->phys - phys) : max;
	return 1;
}

static uint64_t count_gaps(const struct bs_shares *s, uint64_t phys, uint64_t end)
{
	struct bs_share *e = extent_after(s, phys);
	uint64_t gaps = 0;

	while (phys < end) {
		if (!e || e->phys >= end)
			return gaps + 1;
		gaps += e->phys > phys;
		phys = extent_end(e);
		e = RB_NEXT(bs_share_tree, &s->tree, e);
	}
	return gaps;
}

/* ---- changing ---- */

/* Makes an extent begin at phys if one covers it. */
static void cut(struct bs_shares *s, uint64_t phys)
{
	struct bs_share *e = extent_after(s, phys);
	uint64_t left;

	if (!e || e->phys >= phys)
		return;
	left = phys - e->phys;
	extent_add(s, phys, e->count - left, e->refs);
	e->count = left;
}

/* Neighbours of one count in [phys, end], and those beside it, become one. */
static void join(struct bs_shares *s, uint64_t phys, uint64_t end)
{
	struct bs_share *e = extent_after(s, phys ? phys - 1 : 0), *next;

	for (; e && e->phys <= end; e = next) {
		next = RB_NEXT(bs_share_tree, &s->tree, e);
		if (!next || next->phys != extent_end(e) || next->refs != e->refs)
			continue;
		e->count += next->count;
		extent_del(s, next);
		next = e;
	}
}

int bs_share_prepare(struct bs *bs, uint64_t phys, uint64_t count)
{
	struct bs_shares *s = bs->shares;
	uint64_t want = s->want + 2 + 2 * count_gaps(s, phys, phys + count);
	int rc = spare_fill(s, want);

	if (!rc)
		s->want = want;
	return rc;
}

void bs_share_forget(struct bs *bs)
{
	bs->shares->want = 0;
	spare_trim(bs->shares, KEEP_NODES);
}

void bs_share_inc(struct bs *bs, uint64_t phys, uint64_t count)
{
	struct bs_shares *s = bs->shares;
	uint64_t at = phys, end = phys + count;
	struct bs_share *e;

	cut(s, phys);
	cut(s, end);
	s->extra += count;
	for (e = extent_after(s, phys); at < end; e = RB_NEXT(bs_share_tree, &s->tree, e)) {
		uint64_t to = e ? MIN(end, e->phys) : end;

		if (at < to)
			e = extent_add(s, at, to - at, 2);
		else
			e->refs++;
		at = extent_end(e);
	}
	join(s, phys, end);
}

int bs_share_dec(struct bs *bs, uint64_t phys, uint64_t count, bs_share_fn fn, void *arg)
{
	struct bs_shares *s = bs->shares;
	uint64_t at = phys, end = phys + count;
	struct bs_share *e, *next;
	int rc = spare_fill(s, s->want + 2);

	if (rc)
		return rc;
	cut(s, phys);
	cut(s, end);
	for (e = extent_after(s, phys); at < end && !rc; e = next) {
		uint64_t to = e ? MIN(end, e->phys) : end;

		next = e;
		if (at < to) { /* counted nowhere: this was the only one */
			rc = fn(arg, at, to - at);
			at = to;
			continue;
		}
		next = RB_NEXT(bs_share_tree, &s->tree, e);
		at = extent_end(e);
		s->extra -= e->count;
		if (BS_MUTATE(shared_free))
			rc = fn(arg, e->phys, e->count);
		if (--e->refs == 1)
			extent_del(s, e);
	}
	join(s, phys, end);
	return rc;
}

int bs_share_set(struct bs *bs, uint64_t phys, uint64_t count, uint32_t refs)
{
	struct bs_shares *s = bs->shares;
	int rc = spare_fill(s, 1);

	if (rc)
		return rc;
	s->extra += count * (refs - 1);
	extent_add(s, phys, count, refs);
	return 0;
}

/* ---- what transactions have unmapped ---- */

struct drop {
	struct bs *bs;
	struct bs_chunk *list;
	uint64_t kept; /* blocks that others have */
};

static int add_extent(struct drop *d, uint64_t phys, uint64_t count)
{
	struct bs_chunk *c = d->list;

	if (!c || c->n == c->cap) {
		c = base_malloc(sizeof(*c) + BS_CHUNK_RUNS * sizeof(c->run[0]));
		if (!c)
			return -ENOMEM;
		c->n = 0;
		c->cap = BS_CHUNK_RUNS;
		c->next = d->list;
		d->list = c;
	}
	bs_run_set(&c->run[c->n++], 0, phys, count, 0);
	d->kept -= count;
	return 0;
}

static int drop_extent(void *arg, uint64_t phys, uint64_t count)
{
	return add_extent(arg, phys, count);
}

/*
 * Should memory run out, blocks stay owned that nobody maps: they are free again when the store is next opened, since nothing of
 * this is on the device.
 */
struct bs_chunk *bs_share_drop(struct bs *bs, struct bs_chunk *chunk)
{
	struct drop d = { .bs = bs };
	uint64_t shared = 0, since;
	int rc = 0;

	since = bs_lock_background(bs);
	for (unsigned i = 0; i < chunk->n; i++) {
		uint64_t phys = bs_run_phys(&chunk->run[i]), count = chunk->run[i].count;
		int one;

		d.kept += count;
		if (chunk->run[i].flags & BS_RUN_SHARED) {
			shared += count;
			one = bs_share_dec(bs, phys, count, drop_extent, &d);
		} else {
			one = add_extent(&d, phys, count);
		}
		rc = rc ? rc : one;
	}
	spare_trim(bs->shares, bs->shares->want + KEEP_NODES);
	bs_space_kept(bs, d.kept, shared);
	bs_unlock_background(bs, since);
	if (rc)
		log_warn("no memory to tell what is free by a deletion: it is when the store is opened again");
	free(chunk);
	return d.list;
}
