/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Counts of shared blocks, made at open from the runs alone. Shared runs may lie over each other and over nothing else: what they
 * cover is claimed once, and where they lie over each other is counted.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "blob/device.h"
#include "blob/share.h"

int bs_share_note(struct bs *bs, const struct bs_blob *blob, const struct bs_run *run)
{
	struct bs_shares *s = bs->shares;

	if (s->n_notes == s->cap_notes) {
		uint64_t cap = MAX(2 * s->cap_notes, 256ull);
		struct bs_share_note *more = base_realloc(s->note, cap * sizeof(*more));

		if (!more)
			return -ENOMEM;
		s->note = more;
		s->cap_notes = cap;
	}
	s->note[s->n_notes++] = (struct bs_share_note){
		.phys = bs_run_phys(run), .count = run->count, .blob = blob->id
	};
	return 0;
}

static int by_phys(const void *a, const void *b)
{
	const struct bs_share_note *x = a, *y = b;

	return x->phys < y->phys ? -1 : x->phys > y->phys;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Some blob that has this block; only for complaints. */
static uint64_t whose(const struct bs_shares *s, uint64_t block)
{
	for (uint64_t i = 0; i < s->n_notes; i++)
		if (s->note[i].phys <= block && block - s->note[i].phys < s->note[i].count)
			return s->note[i].blob;
	return 0;
}

/* What is covered, as a whole. */
static int claim(struct bs *bs, uint64_t phys, uint64_t end, struct base_err *err)
{
	struct bs_place place = { .pass = "space", .code = "run-overlap" };
	uint64_t bad = phys;
	int rc = bs_space_claim(bs, phys, end - phys, &bad);

	if (rc != -EUCLEAN)
		return rc;
	place.block = bad;
	place.blob = whose(bs->shares, bad);
	rc = bs_complain(bs, err, &place, "blob %" PRIu64 " shares a block that something else owns", place.blob);
	return bs->reporter ? 0 : rc;
}

struct sweep {
	struct bs *bs;
	struct base_err *err;
	uint64_t covered, since, refs; /* start of what is covered; of what has this count */
};

/* So many more, or fewer, from here on. */
static int step(struct sweep *w, uint64_t at, uint64_t refs)
{
	int rc = 0;

	if (w->refs > 1 && w->since < at)
		rc = bs_share_set(w->bs, w->since, at - w->since, (uint32_t)w->refs);
	if (!rc && w->refs && !refs)
		rc = claim(w->bs, w->covered, at, w->err);
	if (!w->refs)
		w->covered = at;
	w->since = at;
	w->refs = refs;
	return rc;
}

/* All that begins and ends at one place is one step. */
static int sweep(struct bs *bs, const uint64_t *end, struct base_err *err)
{
	struct bs_shares *s = bs->shares;
	struct sweep w = { .bs = bs, .err = err };
	uint64_t begun = 0, ended = 0;
	int rc = 0;

	while (ended < s->n_notes && !rc) {
		uint64_t at = end[ended], refs;

		if (begun < s->n_notes && s->note[begun].phys < at)
			at = s->note[begun].phys;
		while (begun < s->n_notes && s->note[begun].phys == at)
			begun++;
		while (ended < s->n_notes && end[ended] == at)
			ended++;
		refs = begun - ended;
		if (refs > UINT32_MAX)
			return -EUCLEAN;
		if (refs != w.refs)
			rc = step(&w, at, refs);
	}
	return rc;
}

static void drop_notes(struct bs_shares *s)
{
	free(s->note);
	s->note = NULL;
	s->n_notes = s->cap_notes = 0;
}

int bs_share_settle(struct bs *bs, struct base_err *err)
{
	struct bs_shares *s = bs->shares;
	struct bs_place place = { .pass = "space", .code = "share-feature" };
	uint64_t *end;
	int rc = 0;

	if (!s->n_notes)
		return 0;
	place.block = s->note[0].phys;
	place.blob = s->note[0].blob;
	if (!bs_can_share(bs))
		rc = bs_complain(bs, err, &place, "blob %" PRIu64 " shares blocks in a store without that feature",
				 place.blob);
	if (rc && !bs->reporter)
		return rc;
	end = base_malloc(s->n_notes * sizeof(*end));
	if (!end)
		return -ENOMEM;
	for (uint64_t i = 0; i < s->n_notes; i++)
		end[i] = s->note[i].phys + s->note[i].count;
	qsort(s->note, s->n_notes, sizeof(s->note[0]), by_phys);
	qsort(end, s->n_notes, sizeof(end[0]), by_number);
	rc = sweep(bs, end, err);
	free(end);
	drop_notes(s);
	return rc;
}
