/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Level 1: transactions over several blobs, data written in parallel, unmapped, deleted, preallocated, checkpoints, segment
 * switches, a dying process; on a store so small that space is used again soon.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "test/powercut/device.h"
#include "test/powercut/store_load.h"

#define PARALLEL 4u  /* writes in flight together */
#define RUN_MAX 8u   /* blocks of one write */
#define FILLER_AT 1024u /* its first block */
#define NEED 34u     /* clusters that any operation may want */

struct write {
	struct bs_io io;
	struct iovec iov;
	struct load *l;
	struct model_blob *b;
	uint64_t block, count, counter, submitted;
	uint8_t *data;
	bool in_place[RUN_MAX], carried[RUN_MAX];
};

struct batch {
	struct op op, late;
	struct load *l;
	struct write w[PARALLEL];
	unsigned n, early; /* the others begin when the first is done */
};

struct bs_txn *store_begin(struct load *l, uint32_t flags)
{
	struct bs_txn *txn;
	int rc = bs_txn_begin(l->bs, flags, &txn);

	if (rc)
		call_failed(l->run, "bs_txn_begin", rc);
	return txn;
}

void store_must(struct load *l, const char *what, int rc)
{
	if (rc)
		call_failed(l->run, what, rc);
}

/* What is carried in the log may have taken the space that metadata could have grown into. */
static bool no_space(struct load *l, struct bs_txn *txn, const char *what, int rc)
{
	if (rc != -ENOSPC) {
		store_must(l, what, rc);
		return false;
	}
	bs_txn_cancel(txn);
	l->run->coverage.full++;
	return true;
}

uint64_t store_end(struct load *l, struct bs_txn *txn)
{
	/* Asked for first: the service may have it on its way before this thread goes on. */
	uint64_t issued = bdev_powercut_mark(l->run->dev), lsn = bs_txn_end(txn);

	if (lsn)
		sm_txn(&l->m, lsn, issued, true);
	return lsn;
}

/* One that is not sealed; there are three at least. */
unsigned store_pick(struct load *l)
{
	unsigned i;

	do
		i = (unsigned)rng_below(&l->run->rng, l->alive);
	while (l->model[i]->sealed);
	return i;
}

static unsigned store_writable(const struct load *l)
{
	unsigned n = 0;

	for (unsigned i = 0; i < l->alive; i++)
		n += !l->model[i]->sealed;
	return n;
}

/* ---- opening, and filling ---- */

static void open_store(struct load *l)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = l->run->service ? 0 : BS_NO_SERVICE,
				     .checkpoint_bytes = 1, .commit_ms = 5, .discard_min = BS_BLOCK };
	struct base_err err = { "" };
	int rc;

	opts.flags |= l->run->discard ? BS_DISCARD : 0;
	bdev_ref(l->run->dev);
	rc = bs_open(l->run->dev, &opts, &l->bs, &err);
	if (rc) {
		l->bs = NULL;
		bdev_close(l->run->dev);
		call_failed(l->run, base_err_text(&err, rc), rc);
	}
	store_must(l, "channel", bdev_channel_create(l->run->dev, &l->ch));
}

/* What the store did since it was opened. */
static void note_stat(struct load *l)
{
	struct coverage *v = &l->run->coverage;
	struct bs_stat st;

	bs_get_stat(l->bs, &st);
	v->checkpoints += st.checkpoints;
	v->segments += st.log_segments;
	v->commits += st.commits;
	v->carried += st.carries;
	v->sums += st.datasum;
	v->sum_pages += st.sum_paged;
}

static uint64_t avail_clusters(struct load *l)
{
	struct bs_stat st;

	bs_get_stat(l->bs, &st);
	return st.avail_blocks * BS_BLOCK / st.cluster_size;
}

/* Leaves so little space that what is freed is used again soon. */
static void fill(struct load *l)
{
	uint64_t user = 0, lsn, keep, avail = avail_clusters(l);
	struct model_blob *b;
	struct bs_blob *blob;
	struct bs_txn *txn;
	struct bs_stat st;

	bs_get_stat(l->bs, &st);
	/* Metadata may take a few units yet. */
	keep = NEED + rng_below(&l->run->rng, 12) + 64 * BS_BLOCK / st.cluster_size;
	/* And what the log may carry. */
	if (rng_chance(&l->run->rng, l->m.own_txns ? 20 : 60))
		keep += 256 * BS_BLOCK / st.cluster_size;
	txn = store_begin(l, 0);
	store_must(l, "create", bs_txn_create(txn, 0, &user, sizeof(user), &blob));
	/* What is available to data may be less than it seems, by what metadata takes for so long a map. */
	while (avail > keep) {
		int rc = bs_txn_prealloc(txn, blob, FILLER_AT, (avail - keep) * (st.cluster_size / BS_BLOCK), BS_STREAM_LONG);

		if (!rc)
			break;
		if (rc != -ENOSPC)
			store_must(l, "fill", rc);
		keep += 32;
	}
	lsn = store_end(l, txn);
	b = sm_new_blob(&l->m, bs_blob_id(blob), lsn);
	b->filler = true;
	l->filler = b->id;
	l->filler_end = FILLER_AT + (avail > keep ? avail - keep : 0) * (st.cluster_size / BS_BLOCK);
	sm_header(b, lsn, 0, user);
	bs_blob_put(blob);
}

struct reclaim {
	struct op op;
	struct bs *bs;
};

static enum op_next reclaim_step(struct op *op)
{
	struct reclaim *r = container_of(op, struct reclaim, op);

	switch (op->step) {
	case 0:
		bs_reclaim_start(r->bs, op);
		return op_await(op, 1, 0);
	case 1:
		return op_finish(op);
	}
	return op_bug(op);
}

static void reclaim(struct load *l)
{
	struct reclaim r = { .bs = l->bs };

	op_init(&r.op, "reclaim", reclaim_step, bdev_channel_driver(l->ch), NULL, NULL);
	op_start(&r.op);
	store_must(l, "reclaim", op_wait(&r.op));
}

/* The filler gives some space back: metadata has taken what was left. */
static bool shrink_filler(struct load *l)
{
	struct bs_blob *blob = l->filler ? bs_blob_get(l->bs, l->filler) : NULL;
	struct bs_txn *txn;

	if (!blob || l->filler_end <= FILLER_AT) {
		bs_blob_put(blob);
		return false;
	}
	l->filler_end = MAX(l->filler_end, FILLER_AT + 160u) - 160;
	txn = store_begin(l, BS_TXN_FREES);
	store_must(l, "unmap", bs_txn_unmap(txn, blob, l->filler_end, UINT64_MAX));
	store_end(l, txn);
	bs_blob_put(blob);
	return true;
}

/* Space for `clusters`, freed space included; false: there is none. */
static bool want_space(struct load *l, uint64_t clusters)
{
	bool full = avail_clusters(l) < clusters;

	/* What is used again soon may have a checksum that was not written to its page yet. */
	if (!full && !(l->m.own_txns && rng_chance(&l->run->rng, 20)))
		return true;
	l->run->coverage.full += full;
	reclaim(l);
	while (avail_clusters(l) < clusters && shrink_filler(l))
		reclaim(l);
	return avail_clusters(l) >= clusters;
}

/* Without a service a write does not wait for room in the log. */
static bool want_log(struct load *l)
{
	struct bs_stat st;

	bs_get_stat(l->bs, &st);
	if (!l->run->service && st.log_bytes + 2 * MiB > st.log_limit)
		store_must(l, "checkpoint", bs_checkpoint(l->bs));
	return true;
}

static void *load_begin(struct run *run)
{
	struct bs_format_opts opts = { .size = sizeof(opts), .cluster_size = 4096u << rng_below(&run->rng, 4),
				       .owner = "powercut", .store_size = device_first_size(run),
				       .flags = run->seed % 3 ? 0 : BS_FORMAT_SUMS };
	struct load *l = calloc(1, sizeof(*l));
	struct base_err err = { "" };
	int rc;

	if (!l)
		broken(run, "out of memory");
	l->run = run;
	l->owner = calloc(run->device_size / BS_BLOCK, sizeof(*l->owner));
	if (!l->owner)
		broken(run, "out of memory");
	rc = bs_format(run->dev, &opts, &err);
	if (rc)
		broken(run, "bs_format: %s", base_err_text(&err, rc));
	open_store(l);
	l->m.own_txns = opts.flags & BS_FORMAT_SUMS;
	sm_txn(&l->m, bs_lsn(l->bs), 0, false);
	if (rng_chance(&run->rng, 60)) {
		fill(l);
		store_must(l, "commit", bs_commit(l->bs, 0));
	}
	sm_ack(&l->m, bs_lsn(l->bs), bdev_powercut_mark(run->dev));
	return l;
}

/* One to three new blobs in one transaction, with items. */
static void create(struct load *l)
{
	struct bs_txn *txn = store_begin(l, 0);
	unsigned n = 1 + (unsigned)rng_below(&l->run->rng, 3), first = l->alive;
	uint64_t user[3], values[3], lsn;
	uint8_t bytes[512];
	int rc;

	for (unsigned i = 0; i < n && l->alive < ALIVE; i++, l->alive++) {
		user[i] = rng_next(&l->run->rng);
		values[i] = ++l->value;
		rc = bs_txn_create(txn, 0, &user[i], sizeof(user[i]), &l->blob[l->alive]);
		if (!rc)
			rc = bs_txn_put(txn, l->blob[l->alive], SM_KIND, 0, bytes, sm_item_bytes(values[i], bytes));
		if (no_space(l, txn, "create", rc)) {
			l->alive = first;
			return;
		}
	}
	lsn = store_end(l, txn);
	for (unsigned i = first; i < l->alive; i++) {
		l->model[i] = sm_new_blob(&l->m, bs_blob_id(l->blob[i]), lsn);
		sm_header(l->model[i], lsn, 0, user[i - first]);
		sm_item(l->model[i], 0, lsn, values[i - first]);
	}
}

static void delete(struct load *l)
{
	struct bs_txn *txn = store_begin(l, BS_TXN_FREES);
	unsigned i = (unsigned)rng_below(&l->run->rng, l->alive);

	store_must(l, "delete", bs_txn_delete(txn, l->blob[i]));
	l->model[i]->died = store_end(l, txn);
	bs_blob_put(l->blob[i]);
	l->alive--;
	l->blob[i] = l->blob[l->alive];
	l->model[i] = l->model[l->alive];
}

/* Items and headers of several blobs at once: all or nothing. */
static void change_items(struct load *l)
{
	struct { unsigned blob, key; uint64_t value; } did[8];
	struct bs_txn *txn = store_begin(l, 0);
	unsigned n = 1 + (unsigned)rng_below(&l->run->rng, 8);
	uint64_t size[8], user[8], lsn;
	uint8_t bytes[512];
	int rc;

	for (unsigned i = 0; i < n; i++) {
		did[i].blob = (unsigned)rng_below(&l->run->rng, l->alive);
		did[i].key = (unsigned)rng_below(&l->run->rng, SM_ITEMS + 1);
		did[i].value = rng_chance(&l->run->rng, 25) ? 0 : ++l->value;
		size[i] = rng_below(&l->run->rng, SM_BLOCKS * BS_BLOCK);
		if (l->model[did[i].blob]->sealed)
			size[i] = sm_size(l->model[did[i].blob]);
		user[i] = rng_next(&l->run->rng);
		if (did[i].key == SM_ITEMS)
			rc = bs_txn_header(txn, l->blob[did[i].blob], size[i], &user[i], sizeof(user[i]));
		else if (did[i].value)
			rc = bs_txn_put(txn, l->blob[did[i].blob], SM_KIND, did[i].key, bytes, sm_item_bytes(did[i].value, bytes));
		else
			rc = bs_txn_del(txn, l->blob[did[i].blob], SM_KIND, did[i].key);
		if (no_space(l, txn, "item", rc))
			return;
	}
	if (rng_chance(&l->run->rng, 10)) {
		bs_txn_cancel(txn);
		return;
	}
	lsn = store_end(l, txn);
	for (unsigned i = 0; i < n; i++) {
		if (did[i].key == SM_ITEMS)
			sm_header(l->model[did[i].blob], lsn, size[i], user[i]);
		else
			sm_item(l->model[did[i].blob], did[i].key, lsn, did[i].value);
	}
}

/* A transaction longer than a frame. */
static void long_txn(struct load *l)
{
	unsigned blob = (unsigned)rng_below(&l->run->rng, l->alive), n = 4;
	struct bs_txn *txn = store_begin(l, 0);
	static uint8_t bytes[SM_VALUE_MAX];
	uint64_t first = l->value + 1, lsn, issued;
	int rc = 0;

	for (unsigned i = 0; i < n && !rc; i++)
		rc = bs_txn_put(txn, l->blob[blob], SM_KIND, i, bytes, sm_item_bytes(++l->value | SM_LONG, bytes));
	if (rc) { /* metadata may not grow any more on a full store */
		if (rc != -ENOSPC && rc != -E2BIG)
			store_must(l, "long put", rc);
		bs_txn_cancel(txn);
		return;
	}
	issued = bdev_powercut_mark(l->run->dev);
	lsn = bs_txn_end(txn);
	sm_txn(&l->m, lsn, issued, true);
	trace(l->run, "long transaction, LSN %" PRIu64, lsn);
	for (unsigned i = 0; i < n; i++)
		sm_item(l->model[blob], i, lsn, (first + i) | SM_LONG);
	l->run->coverage.long_txns++;
}

/* More than the log may hold: transactions wait for a checkpoint. */
static void storm(struct load *l)
{
	uint64_t before = bdev_powercut_mark(l->run->dev);

	for (int i = 0; i < 14; i++)
		long_txn(l);
	l->run->coverage.log_waits += bdev_powercut_mark(l->run->dev) > before + 8;
}

/* ---- data ---- */

static enum op_next late_step(struct op *op)
{
	struct batch *b = container_of(op, struct batch, late);

	switch (op->step) {
	case 0:
		op->on_error = 1;
		bs_io_start(b->l->ch, &b->w[0].io, op);
		return op_await(op, 1, 0);
	case 1:
		for (unsigned i = b->early; i < b->n; i++)
			bs_io_start(b->l->ch, &b->w[i].io, op);
		return op_await(op, 2, 0);
	case 2:
		return op_finish(op);
	}
	return op_bug(op);
}

static void late_done(struct op *op, void *arg)
{
	struct batch *b = arg;

	op_child_done(&b->op, op->rc);
}

/* Where there are checksums, some writes are published while others are on their way, and pages of sums meanwhile. */
static enum op_next batch_step(struct op *op)
{
	struct batch *b = container_of(op, struct batch, op);
	bool sums = b->l->m.own_txns && !b->l->run->service;

	switch (op->step) {
	case 0:
		b->early = sums ? (b->n + 1) / 2 : b->n;
		for (unsigned i = 1; i < b->early; i++)
			bs_io_start(b->l->ch, &b->w[i].io, op);
		op_child_begin(op);
		op_init(&b->late, "late", late_step, bdev_channel_driver(b->l->ch), late_done, b);
		op_start(&b->late);
		if (sums)
			bs_sums_start(b->l->bs, b->l->ch, op);
		return op_await(op, 1, 0);
	case 1:
		return op_finish(op);
	}
	return op_bug(op);
}

static void prepare_write(struct load *l, struct write *w, unsigned blob, uint64_t first, uint64_t limit)
{
	*w = (struct write){ .l = l, .b = l->model[blob], .block = first, .counter = ++l->m.counter };
	w->count = 1 + rng_below(&l->run->rng, MIN(RUN_MAX, limit - first));
	w->data = aligned_alloc(BS_BLOCK, w->count * BS_BLOCK);
	if (!w->data)
		broken(l->run, "out of memory");
	for (uint64_t i = 0; i < w->count; i++)
		sm_fill(w->data + i * BS_BLOCK, w->b->id, first + i, w->counter);
	w->iov = (struct iovec){ w->data, w->count * BS_BLOCK };
	w->submitted = bdev_powercut_mark(l->run->dev);
	w->io = (struct bs_io){ .blob = l->blob[blob], .op = BS_WRITE, .offset = first * BS_BLOCK,
				.flags = rng_chance(&l->run->rng, 15) ? BS_IO_NEW : 0, .length = w->iov.iov_len,
				.iov = &w->iov, .iovcnt = 1, .stream = (enum bs_stream)rng_below(&l->run->rng, BS_STREAMS) };
}

/* Counts blocks of the device that served others before. */
static void note_block(struct load *l, struct bs_blob *blob, uint64_t id, uint64_t block)
{
	uint32_t me = (uint32_t)(id * SM_BLOCKS + block), *owner;
	struct bs_extent ext;

	bs_map_lookup(blob, block, 1, &ext);
	owner = &l->owner[ext.phys];
	l->run->coverage.reused += *owner && *owner != me;
	*owner = me;
}

/* A block that was mapped and written before is overwritten in place; all others are published. */
static void note_write(struct write *w)
{
	bool *in_place = w->in_place;

	trace(w->l->run, "write blob %" PRIu64 ": blocks %" PRIu64 " + %" PRIu64 "%s, version %" PRIu64 ": rc %d, LSN %" PRIu64, w->b->id,
	      w->block, w->count, w->io.flags & BS_IO_NEW ? " anew" : "", w->counter, w->io.op_.rc, w->io.lsn);
	for (uint64_t i = 0; i < w->count; i++) {
		bool home;

		/* It failed, and was not published. Over a zeroed block it went where the old bytes are, should the zeroing be lost. */
		if (!in_place[i] && !w->io.lsn && !sm_is_zeroed(&w->b->blocks[w->block + i]))
			continue;
		in_place[i] |= !w->io.lsn;
		home = in_place[i] && w->carried[i] && w->io.lsn;
		w->l->run->coverage.home += home;
		sm_block(w->b, w->block + i, home ? B_HOME : in_place[i] ? B_IN_PLACE : B_PUBLISH, w->counter,
			 in_place[i] && !home ? 0 : w->io.lsn, w->submitted)
			->anew = !in_place[i] && w->io.flags & BS_IO_NEW;
		note_block(w->l, w->io.blob, w->b->id, w->block + i);
		*(in_place[i] ? &w->l->run->coverage.in_place : &w->l->run->coverage.published) += 1;
	}
}

static bool is_carried(struct bs_blob *blob, uint64_t block)
{
	struct bs_carried_range r;

	return bs_carried_next(blob, block, 1, &r);
}

static int by_lsn(const void *a, const void *b)
{
	const struct write *x = *(const struct write *const *)a, *y = *(const struct write *const *)b;

	return x->io.lsn < y->io.lsn ? -1 : x->io.lsn > y->io.lsn;
}

/* What each block of a write maps to before it. */
static void note_places(struct write *w)
{
	for (uint64_t k = 0; k < w->count; k++) {
		struct bs_extent ext;

		bs_map_lookup(w->io.blob, w->block + k, 1, &ext);
		w->in_place[k] = !(ext.flags & (BS_RUN_HOLE | BS_RUN_UNWRITTEN | BS_RUN_SHARED | BS_RUN_SUM)) && !(w->io.flags & BS_IO_NEW);
		w->carried[k] = is_carried(w->io.blob, w->block + k);
		w->l->run->coverage.unshared += (ext.flags & BS_RUN_SHARED) != 0;
	}
}

static void run_batch(struct load *l, struct batch *b, bool beside)
{
	struct write *order[PARALLEL] = { NULL };
	uint64_t lsn = bs_lsn(l->bs);
	int rc;

	for (unsigned i = 0; i < b->n; i++)
		note_places(&b->w[i]);
	op_init(&b->op, "batch", batch_step, bdev_channel_driver(l->ch), NULL, NULL);
	op_start(&b->op);
	if (beside && !bs_commit(l->bs, 0))
		sm_ack_txns(&l->m, lsn, bdev_powercut_mark(l->run->dev));
	rc = op_wait(&b->op);
	for (unsigned i = 0; i < b->n; i++)
		order[i] = &b->w[i];
	qsort(order, b->n, sizeof(*order), by_lsn);
	for (unsigned i = 0; i < b->n; i++) {
		if (order[i]->io.lsn)
			sm_txn(&l->m, order[i]->io.lsn, order[i]->submitted, true);
		if (order[i]->io.op_.rc != -ENOSPC) /* else nothing was written */
			note_write(order[i]);
		free(order[i]->data);
	}
	/* Without a service nobody waits for room in memory behind long transactions: it was not published. */
	if (rc == -EAGAIN && !l->run->service)
		store_must(l, "commit", bs_commit(l->bs, 0));
	else if (rc != -ENOSPC)
		store_must(l, "write", rc);
}

bool store_home(struct load *l, unsigned blob)
{
	struct bs_carried_range r;

	while (bs_carried_next(l->blob[blob], 0, UINT64_MAX, &r)) {
		struct batch b = { .l = l, .n = 1 };

		if (!want_space(l, NEED) || !want_log(l))
			return false;
		prepare_write(l, &b.w[0], blob, r.block, r.block + 1);
		run_batch(l, &b, false);
		if (is_carried(l->blob[blob], r.block))
			return false;
	}
	return true;
}

/* Several writes in flight together: ranges of one blob do not overlap. */
static void write_data(struct load *l)
{
	struct batch b = { .l = l };
	uint64_t next[ALIVE] = { 0 };
	bool beside = rng_chance(&l->run->rng, 25);

	if (!want_space(l, NEED) || !want_log(l))
		return;
	b.n = 1 + (unsigned)rng_below(&l->run->rng, PARALLEL);
	for (unsigned i = 0; i < b.n; i++) {
		unsigned blob = store_pick(l);
		uint64_t first = next[blob] + rng_below(&l->run->rng, 12);

		if (first + 1 >= SM_BLOCKS)
			first = next[blob];
		if (first + 1 >= SM_BLOCKS) {
			b.n = i;
			break;
		}
		prepare_write(l, &b.w[i], blob, first, SM_BLOCKS);
		next[blob] = first + b.w[i].count;
	}
	run_batch(l, &b, beside);
}

static void unmap_or_zero(struct load *l)
{
	unsigned i = store_pick(l), what = (unsigned)rng_below(&l->run->rng, 3);
	uint64_t block = rng_below(&l->run->rng, SM_BLOCKS), count = 1 + rng_below(&l->run->rng, SM_BLOCKS - block), lsn;
	bool mapped[SM_BLOCKS], shared[SM_BLOCKS], carried[SM_BLOCKS];
	struct bs_txn *txn;
	int rc = 0;

	if (what == 2 && !want_space(l, NEED))
		return;
	txn = store_begin(l, what == 2 ? 0 : BS_TXN_FREES);

	for (uint64_t k = 0; k < count; k++) {
		struct bs_extent ext;

		bs_map_lookup(l->blob[i], block + k, 1, &ext);
		mapped[k] = !(ext.flags & BS_RUN_HOLE);
		shared[k] = ext.flags & (BS_RUN_SHARED | BS_RUN_SUM);
		carried[k] = is_carried(l->blob[i], block + k);
	}
	if (what == 0)
		store_must(l, "unmap", bs_txn_unmap(txn, l->blob[i], block, block + count == SM_BLOCKS ? UINT64_MAX : count));
	else if (what == 1)
		store_must(l, "zero", bs_txn_zero(txn, l->blob[i], block, count));
	else
		rc = bs_txn_prealloc(txn, l->blob[i], block, count, BS_STREAM_LONG);
	if (rc == -ENOSPC) { /* the service's checkpoint may have taken what there was */
		bs_txn_cancel(txn);
		return;
	}
	store_must(l, "prealloc", rc);
	lsn = store_end(l, txn);
	trace(l->run, "%s blob %" PRIu64 ": blocks %" PRIu64 " + %" PRIu64 ", LSN %" PRIu64,
	      what == 0 ? "unmap" : what == 1 ? "zero" : "preallocate", l->model[i]->id, block, count, lsn);
	for (uint64_t k = 0; lsn && k < count; k++) {
		if (what == 0 || (what == 1 && (shared[k] || (!mapped[k] && carried[k]))))
			sm_block(l->model[i], block + k, B_UNMAP, 0, lsn, 0);
		else if (what == 1 ? mapped[k] : !mapped[k])
			sm_block(l->model[i], block + k, what == 1 ? B_ZERO : B_ALLOC, 0, lsn, 0);
	}
}

static void commit(struct load *l)
{
	uint64_t lsn = bs_lsn(l->bs);

	trace(l->run, "commit %" PRIu64, lsn);
	store_must(l, "commit", bs_commit(l->bs, 0));
	sm_ack(&l->m, lsn, bdev_powercut_mark(l->run->dev));
}

/* ---- the process dies, or closes ---- */

static void drop_handles(struct load *l)
{
	for (unsigned i = 0; i < l->alive; i++)
		bs_blob_put(l->blob[i]);
	if (l->ch)
		bdev_channel_destroy(l->ch);
	l->ch = NULL;
	l->alive = 0;
}

static void take_handles(struct load *l)
{
	l->alive = 0;
	for (size_t i = 0; i < l->m.n_blobs; i++) {
		struct model_blob *b = l->m.blobs[i];

		if (b->died != UINT64_MAX || b->filler)
			continue;
		l->model[l->alive] = b;
		l->blob[l->alive] = bs_blob_get(l->bs, b->id);
		if (!l->blob[l->alive++])
			broken(l->run, "blob %" PRIu64 " is gone after reopening", b->id);
	}
}

static void reopen(struct load *l)
{
	bool die = rng_chance(&l->run->rng, 70);
	int rc = 0;

	drop_handles(l);
	note_stat(l);
	l->run->coverage.reopened++;
	trace(l->run, die ? "die" : "close");
	if (die)
		bs_abandon(l->bs);
	else
		rc = bs_close(l->bs);
	l->bs = NULL;
	store_must(l, "close", rc);
	open_store(l);
	trace(l->run, "opened at LSN %" PRIu64, bs_lsn(l->bs));
	sm_forget_after(&l->m, bs_lsn(l->bs));
	/* What recovery answers from is durable. */
	sm_ack(&l->m, bs_lsn(l->bs), bdev_powercut_mark(l->run->dev));
	take_handles(l);
}

static void checkpoint(struct load *l)
{
	trace(l->run, "checkpoint");
	store_must(l, "checkpoint", bs_checkpoint(l->bs));
}

static void load_step(void *w)
{
	struct load *l = w;
	uint64_t dice = rng_below(&l->run->rng, 100);

	if (l->alive && rng_below(&l->run->rng, 1000) < 8) {
		if (rng_chance(&l->run->rng, 30))
			storm(l);
		else
			long_txn(l);
		return;
	}
	if (rng_below(&l->run->rng, 1000) < 20) {
		device_step(l->run, l->bs);
		return;
	}
	if (l->alive >= 3 && rng_chance(&l->run->rng, 12)) {
		store_share(l);
		return;
	}
	if (store_writable(l) < 3 || (dice < 6 && l->alive + 3 < ALIVE))
		create(l);
	else if (dice < 9)
		delete(l);
	else if (dice < 25)
		change_items(l);
	else if (dice < 40)
		store_carry(l);
	else if (dice < 65)
		write_data(l);
	else if (dice < 75)
		unmap_or_zero(l);
	else if (dice < 94)
		commit(l);
	else if (dice < 96)
		checkpoint(l);
	else if (dice < 98 && l->run->service)
		usleep(2000);
	else if (dice < 98)
		store_must(l, "service", bs_service_step(l->bs));
	else
		reopen(l);
}

static void load_end(void *w)
{
	struct load *l = w;

	if (!l->bs)
		return;
	drop_handles(l);
	note_stat(l);
	bs_abandon(l->bs);
	l->bs = NULL;
}

static bool load_verify(void *w, struct run *run, uint64_t event, struct bdev *(*open_state)(void *arg), void *arg)
{
	struct load *l = w;

	return sm_verify_state(&l->m, run, event, open_state, arg);
}

static void load_free(void *w)
{
	struct load *l = w;

	sm_free(&l->m);
	free(l->owner);
	free(l);
}

const struct workload store_workload = {
	.name = "store", .begin = load_begin, .step = load_step, .end = load_end, .verify = load_verify, .free = load_free,
};
