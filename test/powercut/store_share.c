/* SPDX-License-Identifier: BSD-2-Clause */
/* Level 1: snapshots and clones of several blobs at once, ranges shared between blobs. */
#include <errno.h>
#include <inttypes.h>

#include "test/powercut/store_load.h"

/* A store too full for its metadata to grow, or a transaction too long. */
static bool refused(struct load *l, const char *what, int rc)
{
	if (rc != -ENOSPC && rc != -E2BIG)
		store_must(l, what, rc);
	return rc != 0;
}

static void note_copy(struct load *l, struct model_blob *from, uint64_t id, bool sealed, uint64_t lsn)
{
	struct model_blob *to = sm_new_blob(&l->m, id, lsn);

	to->sealed = sealed;
	sm_header(to, lsn, sm_size(from), from->headers[from->n_headers - 1].user);
	for (unsigned k = 0; k < SM_ITEMS; k++)
		if (sm_value(from, k))
			sm_item(to, k, lsn, sm_value(from, k));
	for (uint64_t b = 0; b < SM_BLOCKS; b++)
		sm_share(from, b, to, b, lsn);
	l->model[l->alive] = to;
	l->blob[l->alive] = bs_blob_get(l->bs, id);
	if (!l->blob[l->alive++])
		broken(l->run, "blob %" PRIu64 " is not there, a copy of %" PRIu64, id, from->id);
}

/* What the log carries has no place that could be shared: it is refused. True: that was tried, and is all. */
static bool refuses_carried(struct load *l, unsigned from, unsigned n)
{
	struct bs_carried_range r;
	uint64_t ids[2];
	bool carried = false;
	int rc;

	for (unsigned i = 0; i < n; i++)
		carried |= bs_carried_next(l->blob[from + i], 0, UINT64_MAX, &r);
	if (!carried || !rng_chance(&l->run->rng, 30))
		return false;
	rc = bs_snapshot(l->bs, &l->blob[from], n, false, ids);
	if (!rc)
		broken(l->run, "a blob was copied without what the log carries of it");
	if (rc != -EBUSY)
		refused(l, "snapshot", rc);
	return true;
}

/* Some blobs, those that follow each other in the array. */
static void snapshot(struct load *l)
{
	unsigned n = 1 + (unsigned)rng_below(&l->run->rng, 2), from = (unsigned)rng_below(&l->run->rng, l->alive - n + 1);
	bool sealed = rng_chance(&l->run->rng, 50);
	uint64_t ids[2], lsn, issued;
	int rc;

	if (l->alive + n > ALIVE || refuses_carried(l, from, n))
		return;
	for (unsigned i = 0; i < n; i++)
		if (!store_home(l, from + i))
			return;
	issued = bdev_powercut_mark(l->run->dev);
	rc = bs_snapshot(l->bs, &l->blob[from], n, sealed, ids);
	if (refused(l, "snapshot", rc))
		return;
	lsn = bs_lsn(l->bs);
	sm_txn(&l->m, lsn, issued, true);
	for (unsigned i = 0; i < n; i++) {
		trace(l->run, "%s of blob %" PRIu64 ": %" PRIu64 ", LSN %" PRIu64, sealed ? "snapshot" : "clone",
		      l->model[from + i]->id, ids[i], lsn);
		note_copy(l, l->model[from + i], ids[i], sealed, lsn);
	}
	l->run->coverage.snapshots += n;
}

static int share_in(struct load *l, struct bs_blob *from, uint64_t a, struct bs_blob *to, uint64_t b, uint64_t count, uint64_t *lsn)
{
	struct bs_txn *txn = store_begin(l, 0);
	int rc = bs_txn_share(txn, from, a, to, b, count);

	if (rc)
		bs_txn_cancel(txn);
	else
		*lsn = store_end(l, txn);
	return rc;
}

/* Also all of a blob over another, as a rollback does. */
static void share_range(struct load *l)
{
	unsigned from = (unsigned)rng_below(&l->run->rng, l->alive), to = store_pick(l);
	uint64_t a = rng_below(&l->run->rng, SM_BLOCKS), b = rng_below(&l->run->rng, SM_BLOCKS), lsn = 0;
	uint64_t count = 1 + rng_below(&l->run->rng, SM_BLOCKS - MAX(a, b));
	struct bs_blob *source = l->blob[from];
	int rc;

	if (rng_chance(&l->run->rng, 30) && from != to) {
		a = b = 0;
		count = SM_BLOCKS;
	}
	if ((from == to && a < b + count && b < a + count) || !store_home(l, from))
		return;
	store_must(l, "quiesce", bs_share_quiesce(l->bs, &source, 1));
	rc = share_in(l, source, a, l->blob[to], b, count, &lsn);
	bs_share_end(source, true);
	if (refused(l, "share", rc))
		return;
	trace(l->run, "share blob %" PRIu64 ": blocks %" PRIu64 " + %" PRIu64 " to blob %" PRIu64 " at %" PRIu64 ", LSN %" PRIu64,
	      l->model[from]->id, a, count, l->model[to]->id, b, lsn);
	for (uint64_t k = 0; k < count; k++)
		sm_share(l->model[from], a + k, l->model[to], b + k, lsn);
	l->run->coverage.shared += count;
}

void store_share(struct load *l)
{
	if (rng_chance(&l->run->rng, 55))
		snapshot(l);
	else
		share_range(l);
}
