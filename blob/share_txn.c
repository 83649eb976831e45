/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sharing as transactions see it. A share is up to three kinds of records: the source's range becomes shared, the
 * target's range is unmapped, and the source's runs are put there. All are absolute; what they do to counts follows.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blob/mutation.h"
#include "blob/share.h"

#define USAGE_RUNS 256u

bool bs_can_share(const struct bs *bs)
{
	return le64_get(bs->sb.incompat) & BS_INCOMPAT_SHARE;
}

/* ---- keeping writes from going over old blocks ---- */

void bs_share_begin(struct bs_blob *blob)
{
	struct bs *bs = blob->bs;

	pthread_mutex_lock(&bs->lock);
	bs_maps_change(bs);
	pthread_rwlock_wrlock(bs_maplock(bs, blob->id));
	assert(blob->sharers < UINT16_MAX);
	blob->sharers++;
	pthread_rwlock_unlock(bs_maplock(bs, blob->id));
	bs_maps_settled(bs);
	pthread_mutex_unlock(&bs->lock);
}

/* Places are chosen under bs->lock by who is in an epoch: whoever has chosen an old block leaves before hold_epoch + 2. */
void bs_share_hold(struct bs_blob *blob)
{
	pthread_mutex_lock(&blob->bs->lock);
	if (!blob->holds++)
		blob->hold_epoch = (uint32_t)bs_epoch_now(blob->bs);
	pthread_mutex_unlock(&blob->bs->lock);
}

/* Nobody else has it yet, so there is nobody to wait for; its first writes come later. */
void bs_share_born(struct bs_txn *txn, struct bs_blob *blob)
{
	(void)txn; /* bs->lock is held */
	assert(!bs_runmap_end(&blob->map));
	if (!blob->holds++)
		blob->hold_epoch = (uint32_t)bs_epoch_now(blob->bs) - 2;
	blob->sharers++;
}

void bs_share_end(struct bs_blob *blob, bool held)
{
	struct bs *bs = blob->bs;

	pthread_mutex_lock(&bs->lock);
	if (held)
		blob->holds--;
	bs_maps_change(bs);
	pthread_rwlock_wrlock(bs_maplock(bs, blob->id));
	blob->sharers--;
	pthread_rwlock_unlock(bs_maplock(bs, blob->id));
	bs_maps_settled(bs);
	pthread_mutex_unlock(&bs->lock);
}

struct share_wait {
	struct op op;
	struct bs *bs;
	struct op *parent;
	struct bs_epoch_waiter epoch;
};

static enum op_next wait_step(struct op *op)
{
	struct share_wait *w = container_of(op, struct share_wait, op);

	if (op->step)
		return op_finish(op);
	bs_epoch_wait_start(w->bs, &w->epoch, bs_epoch_now(w->bs) + 2, op);
	return op_await(op, 1, 0);
}

static void wait_done(struct op *op, void *arg)
{
	struct share_wait *w = arg;
	struct op *parent = w->parent;
	int rc = op->rc;

	free(w);
	op_child_done(parent, rc);
}

void bs_share_wait_start(struct bs *bs, struct op *op)
{
	struct share_wait *w = base_malloc(sizeof(*w));

	op_child_begin(op);
	if (!w) {
		op_child_done(op, -ENOMEM);
		return;
	}
	w->bs = bs;
	w->parent = op;
	op_init(&w->op, "share-wait", wait_step, atomic_load(&op->driver), wait_done, w);
	op_start(&w->op);
}

/* Blocking. */
static int share_wait(struct bs *bs)
{
	struct bdev_channel *ch = bdev_channel_borrow(bs->dev);
	struct share_wait w = { .bs = bs };
	int rc;

	op_init(&w.op, "share-wait", wait_step, bdev_channel_driver(ch), NULL, NULL);
	op_start(&w.op);
	rc = op_wait(&w.op);
	bdev_channel_return(ch);
	return rc;
}

int bs_share_quiesce(struct bs *bs, struct bs_blob *const *blob, uint64_t n)
{
	int rc;

	for (uint64_t i = 0; i < n; i++) {
		bs_share_begin(blob[i]);
		bs_share_hold(blob[i]);
	}
	rc = share_wait(bs);
	for (uint64_t i = 0; rc && i < n; i++)
		bs_share_end(blob[i], true);
	return rc;
}

/* ---- sharing; bs->lock held ---- */

struct share {
	struct bs_txn *txn;
	struct bs_blob *from, *to;
	uint64_t from_block, to_block, count;
	uint32_t n;
	struct bs_run_disk run[BS_PUT_RUNS];
	uint64_t first; /* logical block of run[0] */
};

static int range_record(struct share *s, enum bs_rec_op op, enum bs_kind kind, struct bs_blob *blob,
			uint64_t block)
{
	le64 count = le64_make(s->count);
	struct bs_rec rec = { .op = (uint8_t)op,
			      .kind = (uint8_t)kind,
			      .len = sizeof(count),
			      .blob = blob->id,
			      .key = block,
			      .value = &count };

	/* Its ends may cut a run each. */
	return bs_txn_add(s->txn, &rec, 2 * sizeof(struct bs_run_disk));
}

static int put_runs(struct share *s)
{
	struct bs_rec rec = { .op = BS_REC_PUT,
			      .kind = BS_KIND_RUN,
			      .len = s->n * (uint32_t)sizeof(s->run[0]),
			      .blob = s->to->id,
			      .key = s->first,
			      .value = s->run };
	uint32_t n = s->n;

	s->n = 0;
	return n ? bs_txn_add(s->txn, &rec, bs_runs_bytes(n)) : 0;
}

static int add_run(struct share *s, const struct bs_extent *e)
{
	uint64_t logical = e->block - s->from_block + s->to_block;
	struct bs_run run;
	int rc = s->n == BS_PUT_RUNS ? put_runs(s) : 0;

	if (!s->n)
		s->first = logical;
	bs_run_set(&run, logical, e->phys, e->count, BS_RUN_SHARED | (e->flags & BS_RUN_SUM));
	bs_run_to_disk(&run, &s->run[s->n++]);
	return rc;
}

static int add_runs(struct share *s)
{
	uint64_t block = s->from_block, end = MIN(block + s->count, bs_runmap_end(&s->from->map));
	struct bs_extent e;
	int rc = 0;

	for (; !rc && block < end; block += e.count) {
		bs_runmap_lookup(&s->from->map, block, end - block, &e);
		if (!(e.flags & (BS_RUN_HOLE | BS_RUN_UNWRITTEN)))
			rc = add_run(s, &e);
	}
	return rc ? rc : put_runs(s);
}

/* Is this unwritten block, which the write is going to, mapped as written? */
static bool was_published(const struct bs_blob *blob, uint64_t block, uint64_t phys, uint64_t count)
{
	uint64_t end = block + count;
	struct bs_extent e;

	for (; block < end; phys += e.count, block += e.count) {
		bs_runmap_lookup(&blob->map, block, end - block, &e);
		if (!(e.flags & (BS_RUN_HOLE | BS_RUN_UNWRITTEN)) && e.phys == phys)
			return true;
	}
	return false;
}

/*
 * What is unwritten is written where it is, held or not, for no copy has it. But of two writes at once to one such block the first
 * to be done publishes it, and the other still goes over it then.
 */
static bool is_overwritten(const struct bs_blob *blob, uint64_t from, uint64_t end)
{
	const struct bs_intent *it;

	LIST_FOREACH(it, &blob->intents, link) {
		for (uint32_t i = 0; i < it->n; i++) {
			const struct bs_slice *s = &it->slice[i];
			uint64_t first = it->block + s->off, a = MAX(first, from), b = MIN(first + s->count, end);

			if (s->kind == BS_SLICE_UNWRITTEN && a < b && was_published(blob, a, s->phys + (a - first), b - a))
				return true;
		}
	}
	return false;
}

static bool quiet(const struct bs_blob *blob)
{
	return blob->sealed ||
	       (blob->holds && (uint32_t)bs_epoch_advance(blob->bs) - blob->hold_epoch >= 2);
}

static int check_share(struct share *s)
{
	uint64_t limit = 1ull << BS_RUN_BITS;

	if (!bs_can_share(s->from->bs))
		return -EOPNOTSUPP;
	if (s->from->deleted || s->from->dying)
		return -ENOENT;
	if (s->from->runs_txn == (uint32_t)s->from->bs->txn_number)
		return -EINVAL;
	if (s->from_block >= limit || s->to_block >= limit)
		return -EFBIG;
	if (s->count == UINT64_MAX)
		s->count = limit - MAX(s->from_block, s->to_block);
	if (s->count > limit - MAX(s->from_block, s->to_block))
		return -EFBIG;
	if (s->from == s->to && s->from_block < s->to_block + s->count &&
	    s->to_block < s->from_block + s->count)
		return -EINVAL;
	/* It has no place yet that could be shared. */
	if (!BS_MUTATE(carried_copied) && (bs_carried_any(s->from, s->from_block, s->count) || s->from->bs->txn_carries))
		return -EBUSY;
	return quiet(s->from) && !is_overwritten(s->from, s->from_block, s->from_block + s->count) ? 0 : -EAGAIN;
}

int bs_txn_share(struct bs_txn *txn, struct bs_blob *from, uint64_t from_block, struct bs_blob *to,
		 uint64_t to_block, uint64_t count)
{
	struct share s = { .txn = txn,
			   .from = from,
			   .to = to,
			   .from_block = from_block,
			   .to_block = to_block,
			   .count = count };
	struct bs *bs = from->bs;
	uint32_t mark = bs_txn_mark(txn);
	/* Made in this transaction and untouched, it has nothing to unmap. */
	bool fresh = bs_index_find(bs, to->id) != to &&
		     to->runs_txn != (uint32_t)bs->txn_number;
	int rc = count ? check_share(&s) : 0;

	if (!rc)
		rc = bs_txn_check_data(txn, to);
	if (rc || !count)
		return rc;
	if (!bs_runmap_all_shared(&from->map, s.from_block, s.count))
		rc = range_record(&s, BS_REC_PUT, BS_KIND_SHARE, from, s.from_block);
	if (!rc && !fresh)
		rc = range_record(&s, BS_REC_DEL, BS_KIND_RUN, to, s.to_block);
	if (!rc && !fresh && !BS_MUTATE(carried_unmap))
		rc = bs_txn_del_carried(txn, to, s.to_block, s.count);
	if (!rc)
		rc = add_runs(&s);
	if (rc)
		bs_txn_rewind(txn, mark);
	return rc;
}

/* ---- copies of whole blobs ---- */

static int copy_items(struct bs_txn *txn, struct bs_blob *from, struct bs_blob *to)
{
	const struct bs_item *item = NULL;
	int rc = 0;

	while (!rc && (item = bs_item_next(from, item, 0, 0)))
		rc = bs_txn_put(txn, to, item->kind, item->key, item->value, item->len);
	return rc;
}

static int copy_blob(struct bs_txn *txn, struct bs_blob *from, bool sealed, struct bs_blob **out)
{
	int rc = from->deleted ? -ENOENT : bs_txn_create(txn, 0, from->user, from->user_len, out);

	if (rc)
		return rc;
	rc = bs_txn_share(txn, from, 0, *out, 0, UINT64_MAX);
	if (!rc)
		rc = copy_items(txn, from, *out);
	if (!rc && sealed)
		rc = bs_txn_seal(txn, *out, from->size, from->user, from->user_len);
	else if (!rc)
		rc = bs_txn_header(txn, *out, from->size, from->user, from->user_len);
	return rc;
}

static int snapshot(struct bs *bs, struct bs_blob *const *blob, uint64_t n, bool sealed, uint64_t *ids)
{
	struct bs_blob **made = base_malloc(MAX(n, 1u) * sizeof(struct bs_blob *));
	struct bs_txn *txn;
	int rc = made ? bs_txn_begin(bs, 0, &txn) : -ENOMEM;

	if (rc) {
		free(made);
		return rc;
	}
	for (uint64_t i = 0; i < n && !rc; i++)
		rc = copy_blob(txn, blob[i], sealed, &made[i]);
	if (rc)
		bs_txn_cancel(txn);
	else
		bs_txn_end(txn);
	for (uint64_t i = 0; i < n && !rc; i++) {
		ids[i] = bs_blob_id(made[i]);
		bs_blob_put(made[i]);
	}
	free(made);
	return rc;
}

int bs_snapshot(struct bs *bs, struct bs_blob *const *blob, uint64_t n, bool sealed, uint64_t *ids)
{
	int rc;

	if (bs->flags & BS_RDONLY)
		return -EROFS;
	rc = bs_share_quiesce(bs, blob, n);
	if (rc)
		return rc;
	/* Each time for writes that are over by the next, to blocks that were unwritten until then. */
	while ((rc = snapshot(bs, blob, n, sealed, ids)) == -EAGAIN && !(rc = share_wait(bs)))
		;
	for (uint64_t i = 0; i < n; i++)
		bs_share_end(blob[i], true);
	return rc;
}

/* ---- accounting ---- */

static uint64_t shared_in(const struct bs *bs, const struct bs_run *run)
{
	uint64_t phys = bs_run_phys(run), end = phys + run->count, shared = 0, len;

	if (!(run->flags & BS_RUN_SHARED))
		return 0;
	for (; phys < end; phys += len)
		if (bs_share_refs(bs, phys, end - phys, &len) > 1)
			shared += len;
	return shared;
}

void bs_blob_get_usage(struct bs_blob *blob, struct bs_usage *out)
{
	struct bs_run run[USAGE_RUNS];
	struct bs *bs = blob->bs;
	uint64_t from = 0;
	unsigned n;

	memset(out, 0, sizeof(*out));
	do {
		pthread_mutex_lock(&bs->lock);
		n = bs_runmap_copy(&blob->map, from, run, USAGE_RUNS);
		for (unsigned i = 0; i < n; i++) {
			uint64_t shared = shared_in(bs, &run[i]);

			out->shared += shared;
			out->exclusive += run[i].count - shared;
		}
		if (n)
			from = bs_run_end(&run[n - 1]);
		pthread_mutex_unlock(&bs->lock);
	} while (n);
}
