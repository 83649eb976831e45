/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mending: one owner for each block. Metadata that was read and found right keeps its place, pages of checksums among it. Of several
 * runs that claim a block the one put last has it; the others get a hole there: what they wrote is overwritten, and other blobs' bytes
 * are not theirs to show. A shared run has company: it goes with other shared ones, and with an older one that is not flagged yet, whose
 * block it shares then; not with an unwritten one, which has no bytes to share.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "blob/ckpt.h"
#include "blob/mend.h"
#include "blob/share.h"

struct claim {
	uint64_t blob, logical, phys, count, lsn;
	uint32_t flags;
};
struct claims {
	struct claim *c;
	size_t n, room;
	uint64_t longest;
};

static int claims_add(struct claims *l, uint64_t blob, const struct bs_run *run)
{
	if (l->n == l->room) {
		size_t room = l->room ? 2 * l->room : 64;
		struct claim *p = base_realloc(l->c, room * sizeof(*p));

		if (!p)
			return -ENOMEM;
		l->c = p;
		l->room = room;
	}
	l->c[l->n++] = (struct claim){ blob, run->logical, bs_run_phys(run), run->count, 0, run->flags };
	l->longest = MAX(l->longest, (uint64_t)run->count);
	return 0;
}

static int by_phys(const void *a, const void *b)
{
	uint64_t x = ((const struct claim *)a)->phys, y = ((const struct claim *)b)->phys;

	return x < y ? -1 : x > y;
}

static int newest_first(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;

	if (x->lsn != y->lsn)
		return x->lsn > y->lsn ? -1 : 1;
	if (x->blob != y->blob)
		return x->blob < y->blob ? -1 : 1;
	return x->logical < y->logical ? -1 : x->logical > y->logical;
}

static int put_order(const void *a, const void *b)
{
	const struct bs_mend_put *x = a, *y = b;

	if (x->blob != y->blob)
		return x->blob < y->blob ? -1 : 1;
	return x->lsn < y->lsn ? -1 : x->lsn > y->lsn;
}

/* ---- changing memory ---- */

int bs_mend_change(struct bs *bs, enum bs_rec_op op, unsigned kind, uint64_t id, uint64_t logical, uint64_t count)
{
	le64 value = le64_make(count);
	struct bs_rec rec = { .op = (uint8_t)op, .kind = (uint8_t)kind, .len = sizeof(value), .blob = id, .key = logical, .value = &value };
	struct bs_prep prep;
	int rc = bs_prep_make(bs, &rec, &prep);

	if (!rc)
		rc = bs_apply(bs, &rec, bs->lsn, &prep);
	bs_prep_drop(&prep);
	return rc;
}

static int hole(struct bs *bs, const struct claim *c, uint64_t at, uint64_t count, const char *code, const char *why)
{
	struct bs_place place = { .pass = "space", .code = code, .blob = c->blob, .block = c->phys + at };

	bs_complain(bs, NULL, &place, "blob %" PRIu64 ": blocks %" PRIu64 "+%" PRIu64 " are %s; they read as zeroes now", c->blob,
		    c->logical + at, count, why);
	return bs_mend_change(bs, BS_REC_DEL, BS_KIND_RUN, c->blob, c->logical + at, count);
}

/* Calls fn for each run of each blob; fn may unmap what it was called for. */
static int each_run(struct bs *bs, int (*fn)(struct bs *bs, uint64_t blob, const struct bs_run *run, void *arg), void *arg)
{
	struct bs_run runs[64];
	struct bs_blob *blob;
	int rc = 0;

	for (blob = bs_index_next(bs, 0); blob && !rc; blob = bs_index_next(bs, blob->id + 1)) {
		uint64_t from = 0;
		unsigned n;

		while (!rc && (n = bs_runmap_copy(&blob->map, from, runs, ARRAY_SIZE(runs))) > 0) {
			for (unsigned i = 0; i < n && !rc; i++)
				rc = fn(bs, blob->id, &runs[i], arg);
			from = bs_run_end(&runs[n - 1]);
		}
	}
	return rc;
}

/* ---- what records given up had written over ---- */

static int strike_lost(struct bs *bs, uint64_t blob, const struct bs_run *run, void *arg)
{
	const struct claims *lost = arg;
	struct claim c = { blob, run->logical, bs_run_phys(run), run->count, 0, 0 };
	uint64_t end = c.phys + c.count, from = c.phys > lost->longest ? c.phys - lost->longest : 0;
	size_t lo = 0, hi = lost->n;
	int rc = 0;

	if (run->flags & BS_RUN_UNWRITTEN)
		return 0;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (lost->c[mid].phys < from)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < lost->n && lost->c[lo].phys < end && !rc; lo++) {
		const struct claim *l = &lost->c[lo];
		uint64_t a = MAX(l->phys, c.phys), b = MIN(l->phys + l->count, end);

		if (a >= b || (l->blob == blob && l->logical - l->phys == c.logical - c.phys))
			continue;
		rc = hole(bs, &c, a - c.phys, b - a, "run-overwritten", "overwritten by what the lost part of the log did");
	}
	return rc;
}

static int strike_all_lost(struct bs *bs)
{
	const struct bs_mend *m = bs->reporter->mend;
	struct claims lost = { NULL, 0, 0, 0 };
	int rc = 0;

	for (size_t i = 0; i < m->n_lost && !rc; i++) {
		struct bs_run run;

		bs_run_set(&run, m->lost[i].logical, m->lost[i].phys, m->lost[i].count, 0);
		rc = claims_add(&lost, m->lost[i].blob, &run);
	}
	if (!rc && lost.n) {
		qsort(lost.c, lost.n, sizeof(*lost.c), by_phys);
		rc = each_run(bs, strike_lost, &lost);
	}
	free(lost.c);
	return rc;
}

/* ---- metadata ---- */

static bool claim_unit(struct bs *bs, enum bs_meta_user user, uint64_t block, int *rc)
{
	struct bs_place place = { .pass = "space", .code = "metadata-overlap" };
	uint64_t bad = block;

	*rc = bs_meta_claim(bs, user, block, &bad);
	if (!*rc)
		return true;
	place.block = bad;
	if (*rc == -EUCLEAN)
		*rc = bs_complain(bs, NULL, &place, "the log or the checkpoint lies where something else is") == -EUCLEAN ? 0 : *rc;
	return false;
}

/* What cannot be claimed is left out of the lists, so that nobody gives it back. */
static int claim_metadata(struct bs *bs)
{
	struct bs_ckpt_units *u = &bs->ckpt->present;
	struct bs_log *log = bs->log;
	struct bs_segment *s, *next;
	uint32_t n = 0;
	int rc = 0;

	for (uint32_t i = 0; i < u->n && !rc; i++)
		if (claim_unit(bs, BS_META_CKPT, u->unit[i], &rc))
			u->unit[n++] = u->unit[i];
	u->n = n;
	for (s = TAILQ_FIRST(&log->segments); s && !rc; s = next) {
		next = TAILQ_NEXT(s, link);
		if (claim_unit(bs, BS_META_LOG, s->block, &rc))
			continue;
		TAILQ_REMOVE(&log->segments, s, link);
		log->n_segments--;
		free(s);
	}
	return rc;
}

/* ---- runs ---- */

struct contest {
	struct claims refused; /* runs that found a block taken */
	struct claims rivals;  /* they, and those they meet */
	uint64_t *shared;      /* a bit a block: a shared rival has it */
};

static int claim_run(struct bs *bs, uint64_t blob, const struct bs_run *run, void *arg)
{
	struct contest *t = arg;
	uint64_t bad;
	int rc = run->flags & BS_RUN_SHARED ? 0 : bs_space_claim(bs, bs_run_phys(run), run->count, &bad);

	return rc == -EUCLEAN ? claims_add(&t->refused, blob, run) : rc;
}

/* Shared runs claim nothing yet: they are counted when all else is settled. */
static int probe_shared(struct bs *bs, uint64_t blob, const struct bs_run *run, void *arg)
{
	struct contest *t = arg;
	uint64_t bad;
	int rc = run->flags & BS_RUN_SHARED ? bs_space_claim(bs, bs_run_phys(run), run->count, &bad) : 1;

	if (!rc)
		bs_space_free_now(bs, bs_run_phys(run), run->count);
	if (rc == -EUCLEAN)
		return claims_add(&t->refused, blob, run);
	return rc < 0 ? rc : 0;
}

static int note_shared(struct bs *bs, uint64_t id, const struct bs_run *run, void *arg)
{
	(void)arg;
	if (!(run->flags & BS_RUN_SHARED))
		return 0;
	bs->sb.incompat = le64_make(le64_get(bs->sb.incompat) | BS_INCOMPAT_SHARE); /* whatever the superblock forgot */
	return bs_share_note(bs, bs_index_find(bs, id), run);
}

static bool meets_refused(const struct claims *l, uint64_t phys, uint64_t count)
{
	uint64_t from = phys > l->longest ? phys - l->longest : 0;
	size_t lo = 0, hi = l->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (l->c[mid].phys < from)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < l->n && l->c[lo].phys < phys + count; lo++)
		if (l->c[lo].phys + l->c[lo].count > phys)
			return true;
	return false;
}

static bool is_refused(const struct claims *l, uint64_t blob, const struct bs_run *run)
{
	size_t lo = 0, hi = l->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (l->c[mid].phys < bs_run_phys(run))
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < l->n && l->c[lo].phys == bs_run_phys(run); lo++)
		if (l->c[lo].blob == blob && l->c[lo].logical == run->logical)
			return true;
	return false;
}

/* A run that holds a block somebody was refused gives up its claim and competes anew. */
static int find_rival(struct bs *bs, uint64_t blob, const struct bs_run *run, void *arg)
{
	struct contest *t = arg;

	if (!meets_refused(&t->refused, bs_run_phys(run), run->count))
		return 0;
	if (!(run->flags & BS_RUN_SHARED) && !is_refused(&t->refused, blob, run))
		bs_space_free_now(bs, bs_run_phys(run), run->count);
	return claims_add(&t->rivals, blob, run);
}

/* LSN of the record that put this run's first block; that of the blob when it is not known. A page of checksums was looked at, and is one. */
static uint64_t claim_lsn(struct bs *bs, const struct claim *c)
{
	const struct bs_mend *m = bs->reporter->mend;
	const struct bs_blob *blob = bs_index_find(bs, c->blob);
	size_t lo = 0, hi = m->n_put;

	if (c->blob == BS_SUM_ID)
		return UINT64_MAX;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (m->put[mid].blob <= c->blob)
			lo = mid + 1;
		else
			hi = mid;
	}
	while (lo && m->put[lo - 1].blob == c->blob) {
		const struct bs_mend_put *p = &m->put[--lo];

		if (c->logical >= p->logical && c->logical - p->logical < p->count &&
		    p->phys + (c->logical - p->logical) == c->phys)
			return p->lsn;
	}
	return blob ? blob->lsn : 0;
}

enum verdict { TAKE, JOIN, LOSE };

static bool is_shared(const struct contest *t, uint64_t block)
{
	return t->shared[block / 64] >> block % 64 & 1;
}

/* What a run gets of one block; a free one it has then. */
static int judge(struct bs *bs, struct contest *t, const struct claim *c, uint64_t block, enum verdict *out)
{
	uint64_t bad;
	int rc;

	if (block < bs->blocks && is_shared(t, block)) {
		*out = c->flags & BS_RUN_SHARED ? TAKE : c->flags & BS_RUN_UNWRITTEN ? LOSE : JOIN;
		return 0;
	}
	rc = bs_space_claim(bs, block, 1, &bad);
	*out = rc ? LOSE : TAKE;
	if (!rc && (c->flags & BS_RUN_SHARED)) {
		bs_space_free_now(bs, block, 1);
		t->shared[block / 64] |= 1ull << block % 64;
	}
	return rc == -EUCLEAN ? 0 : rc;
}

static int carry_out(struct bs *bs, const struct claim *c, uint64_t at, uint64_t count, enum verdict v)
{
	if (v == LOSE)
		return hole(bs, c, at, count, "run-overlap", "claimed by something newer, too");
	return v == JOIN ? bs_mend_change(bs, BS_REC_PUT, BS_KIND_SHARE, c->blob, c->logical + at, count) : 0;
}

/* Block by block; what goes the same way goes in one. */
static int settle(struct bs *bs, struct contest *t, const struct claim *c)
{
	enum verdict v = TAKE, last = TAKE;
	uint64_t from = 0;
	int rc = 0;

	for (uint64_t at = 0; at < c->count && !rc; at++) {
		rc = judge(bs, t, c, c->phys + at, &v);
		if (rc || v == last)
			continue;
		rc = carry_out(bs, c, from, at - from, last);
		from = at;
		last = v;
	}
	return rc ? rc : carry_out(bs, c, from, c->count - from, last);
}

static int settle_all(struct bs *bs, struct contest *t)
{
	struct bs_mend *m = bs->reporter->mend;
	int rc;

	t->shared = base_calloc(div_round_up(bs->blocks, 64), sizeof(*t->shared));
	if (!t->shared)
		return -ENOMEM;
	qsort(t->refused.c, t->refused.n, sizeof(*t->refused.c), by_phys);
	rc = each_run(bs, find_rival, t);
	if (rc)
		return rc;
	if (m->n_put)
		qsort(m->put, m->n_put, sizeof(*m->put), put_order);
	for (size_t i = 0; i < t->rivals.n; i++)
		t->rivals.c[i].lsn = claim_lsn(bs, &t->rivals.c[i]);
	qsort(t->rivals.c, t->rivals.n, sizeof(*t->rivals.c), newest_first);
	for (size_t i = 0; i < t->rivals.n && !rc; i++)
		rc = settle(bs, t, &t->rivals.c[i]);
	return rc;
}

int bs_mend_space(struct bs *bs)
{
	struct contest t = { .shared = NULL };
	int rc = claim_metadata(bs);

	if (!rc)
		rc = strike_all_lost(bs);
	if (!rc)
		rc = each_run(bs, claim_run, &t);
	if (!rc)
		rc = each_run(bs, probe_shared, &t);
	if (!rc && t.refused.n)
		rc = settle_all(bs, &t);
	if (!rc)
		rc = each_run(bs, note_shared, NULL);
	if (!rc)
		rc = bs_share_settle(bs, NULL);
	if (atomic_load(&bs->n_carried))
		bs->sb.incompat = le64_make(le64_get(bs->sb.incompat) | BS_INCOMPAT_CARRIED);
	free(t.refused.c);
	free(t.rivals.c);
	free(t.shared);
	return rc;
}
