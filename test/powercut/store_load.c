/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Level 1: transactions over several blobs, data written in parallel, unmapped, deleted, preallocated, checkpoints, segment
 * switches, a dying process; on a store so small that space is used again soon.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "test/powercut/store_model.h"

#define ALIVE 10u    /* blobs at once */
#define PARALLEL 4u  /* writes in flight together */
#define RUN_MAX 8u   /* blocks of one write */

struct load {
	struct run *run;
	struct bs *bs;
	struct bdev_channel *ch;
	struct store_model m;
	struct bs_blob *blob[ALIVE]; /* open, with its model */
	struct model_blob *model[ALIVE];
	unsigned alive;
	uint64_t value;
};

struct write {
	struct bs_io io;
	struct iovec iov;
	struct load *l;
	struct model_blob *b;
	uint64_t block, count, counter, submitted;
	uint8_t *data;
};

struct batch {
	struct op op;
	struct load *l;
	struct write w[PARALLEL];
	unsigned n;
};

static struct bs_txn *begin(struct load *l, uint32_t flags)
{
	struct bs_txn *txn;
	int rc = bs_txn_begin(l->bs, flags, &txn);

	if (rc)
		broken(l->run, "bs_txn_begin: %s", strerror(-rc));
	return txn;
}

static void must(struct load *l, const char *what, int rc)
{
	if (rc)
		broken(l->run, "%s: %s", what, strerror(-rc));
}

static uint64_t end(struct load *l, struct bs_txn *txn)
{
	uint64_t lsn = bs_txn_end(txn);

	if (lsn)
		sm_txn(&l->m, lsn, bdev_powercut_mark(l->run->dev));
	return lsn;
}

static void open_store(struct load *l)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_NO_SERVICE, .checkpoint_bytes = 1 };
	struct base_err err = { "" };
	int rc;

	bdev_ref(l->run->dev);
	rc = bs_open(l->run->dev, &opts, &l->bs, &err);
	if (rc)
		broken(l->run, "bs_open: %s", base_err_text(&err, rc));
	must(l, "channel", bdev_channel_create(l->run->dev, &l->ch));
}

static void *load_begin(struct run *run)
{
	struct bs_format_opts opts = { .size = sizeof(opts), .cluster_size = 4096u << rng_below(&run->rng, 4),
				       .owner = "powercut" };
	struct load *l = calloc(1, sizeof(*l));
	struct base_err err = { "" };
	int rc;

	if (!l)
		broken(run, "out of memory");
	l->run = run;
	rc = bs_format(run->dev, &opts, &err);
	if (rc)
		broken(run, "bs_format: %s", base_err_text(&err, rc));
	open_store(l);
	sm_txn(&l->m, bs_lsn(l->bs), 0);
	sm_ack(&l->m, bs_lsn(l->bs), bdev_powercut_mark(run->dev));
	return l;
}

/* One to three new blobs in one transaction, with items. */
static void create(struct load *l)
{
	struct bs_txn *txn = begin(l, 0);
	unsigned n = 1 + (unsigned)rng_below(&l->run->rng, 3), first = l->alive;
	uint64_t user[3], values[3], lsn;
	uint8_t bytes[512];

	for (unsigned i = 0; i < n && l->alive < ALIVE; i++, l->alive++) {
		user[i] = rng_next(&l->run->rng);
		values[i] = ++l->value;
		must(l, "create", bs_txn_create(txn, 0, &user[i], sizeof(user[i]), &l->blob[l->alive]));
		must(l, "put", bs_txn_put(txn, l->blob[l->alive], SM_KIND, 0, bytes, sm_item_bytes(values[i], bytes)));
	}
	lsn = end(l, txn);
	for (unsigned i = first; i < l->alive; i++) {
		l->model[i] = sm_new_blob(&l->m, bs_blob_id(l->blob[i]), lsn);
		sm_header(l->model[i], lsn, 0, user[i - first]);
		sm_item(l->model[i], 0, lsn, values[i - first]);
	}
}

static void delete(struct load *l)
{
	struct bs_txn *txn = begin(l, BS_TXN_FREES);
	unsigned i = (unsigned)rng_below(&l->run->rng, l->alive);

	must(l, "delete", bs_txn_delete(txn, l->blob[i]));
	l->model[i]->died = end(l, txn);
	bs_blob_put(l->blob[i]);
	l->alive--;
	l->blob[i] = l->blob[l->alive];
	l->model[i] = l->model[l->alive];
}

/* Items and headers of several blobs at once: all or nothing. */
static void change_items(struct load *l)
{
	struct { unsigned blob, key; uint64_t value; } did[8];
	struct bs_txn *txn = begin(l, 0);
	unsigned n = 1 + (unsigned)rng_below(&l->run->rng, 8);
	uint64_t size[8], user[8], lsn;
	uint8_t bytes[512];

	for (unsigned i = 0; i < n; i++) {
		did[i].blob = (unsigned)rng_below(&l->run->rng, l->alive);
		did[i].key = (unsigned)rng_below(&l->run->rng, SM_ITEMS + 1);
		did[i].value = rng_chance(&l->run->rng, 25) ? 0 : ++l->value;
		size[i] = rng_below(&l->run->rng, SM_BLOCKS * BS_BLOCK);
		user[i] = rng_next(&l->run->rng);
		if (did[i].key == SM_ITEMS)
			must(l, "header", bs_txn_header(txn, l->blob[did[i].blob], size[i], &user[i], sizeof(user[i])));
		else if (did[i].value)
			must(l, "put", bs_txn_put(txn, l->blob[did[i].blob], SM_KIND, did[i].key, bytes,
						  sm_item_bytes(did[i].value, bytes)));
		else
			must(l, "del", bs_txn_del(txn, l->blob[did[i].blob], SM_KIND, did[i].key));
	}
	if (rng_chance(&l->run->rng, 10)) {
		bs_txn_cancel(txn);
		return;
	}
	lsn = end(l, txn);
	for (unsigned i = 0; i < n; i++) {
		if (did[i].key == SM_ITEMS)
			sm_header(l->model[did[i].blob], lsn, size[i], user[i]);
		else
			sm_item(l->model[did[i].blob], did[i].key, lsn, did[i].value);
	}
}

/* ---- data ---- */

static enum op_next batch_step(struct op *op)
{
	struct batch *b = container_of(op, struct batch, op);

	switch (op->step) {
	case 0:
		for (unsigned i = 0; i < b->n; i++)
			bs_io_start(b->l->ch, &b->w[i].io, op);
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

/* A block that was mapped and written before is overwritten in place; all others are published. */
static void note_write(struct write *w, bool in_place[RUN_MAX])
{
	for (uint64_t i = 0; i < w->count; i++)
		sm_block(w->b, w->block + i, in_place[i] ? B_IN_PLACE : B_PUBLISH, w->counter,
			 in_place[i] ? 0 : w->io.lsn, w->submitted);
}

static int by_lsn(const void *a, const void *b)
{
	const struct write *x = *(const struct write *const *)a, *y = *(const struct write *const *)b;

	return x->io.lsn < y->io.lsn ? -1 : x->io.lsn > y->io.lsn;
}

/* Several writes in flight together: ranges of one blob do not overlap. */
static void write_data(struct load *l)
{
	struct batch b = { .l = l };
	bool in_place[PARALLEL][RUN_MAX];
	struct write *order[PARALLEL];
	uint64_t next[ALIVE] = { 0 };
	int rc;

	b.n = 1 + (unsigned)rng_below(&l->run->rng, PARALLEL);
	for (unsigned i = 0; i < b.n; i++) {
		unsigned blob = (unsigned)rng_below(&l->run->rng, l->alive);
		uint64_t first = next[blob] + rng_below(&l->run->rng, 12);

		if (first + 1 >= SM_BLOCKS)
			first = next[blob];
		if (first + 1 >= SM_BLOCKS) {
			b.n = i;
			break;
		}
		prepare_write(l, &b.w[i], blob, first, SM_BLOCKS);
		next[blob] = first + b.w[i].count;
		for (uint64_t k = 0; k < b.w[i].count; k++) {
			struct bs_extent ext;

			bs_map_lookup(l->blob[blob], first + k, 1, &ext);
			in_place[i][k] = !(ext.flags & (BS_RUN_HOLE | BS_RUN_UNWRITTEN)) && !(b.w[i].io.flags & BS_IO_NEW);
		}
	}
	op_init(&b.op, "batch", batch_step, bdev_channel_driver(l->ch), NULL, NULL);
	op_start(&b.op);
	rc = op_wait(&b.op);
	if (rc)
		broken(l->run, "write: %s", strerror(-rc));
	for (unsigned i = 0; i < b.n; i++)
		order[i] = &b.w[i];
	qsort(order, b.n, sizeof(*order), by_lsn);
	for (unsigned i = 0; i < b.n; i++) {
		if (order[i]->io.lsn)
			sm_txn(&l->m, order[i]->io.lsn, order[i]->submitted);
		note_write(order[i], in_place[order[i] - b.w]);
		free(order[i]->data);
	}
}

static void unmap_or_zero(struct load *l)
{
	unsigned i = (unsigned)rng_below(&l->run->rng, l->alive), what = (unsigned)rng_below(&l->run->rng, 3);
	uint64_t block = rng_below(&l->run->rng, SM_BLOCKS), count = 1 + rng_below(&l->run->rng, SM_BLOCKS - block), lsn;
	struct bs_txn *txn = begin(l, what == 2 ? 0 : BS_TXN_FREES);
	bool mapped[SM_BLOCKS];

	for (uint64_t k = 0; k < count; k++) {
		struct bs_extent ext;

		bs_map_lookup(l->blob[i], block + k, 1, &ext);
		mapped[k] = !(ext.flags & BS_RUN_HOLE);
	}
	if (what == 0)
		must(l, "unmap", bs_txn_unmap(txn, l->blob[i], block, block + count == SM_BLOCKS ? UINT64_MAX : count));
	else if (what == 1)
		must(l, "zero", bs_txn_zero(txn, l->blob[i], block, count));
	else
		must(l, "prealloc", bs_txn_prealloc(txn, l->blob[i], block, count, BS_STREAM_LONG));
	lsn = end(l, txn);
	for (uint64_t k = 0; lsn && k < count; k++) {
		if (what == 0)
			sm_block(l->model[i], block + k, B_UNMAP, 0, lsn, 0);
		else if (what == 1 ? mapped[k] : !mapped[k])
			sm_block(l->model[i], block + k, B_ZERO, 0, lsn, 0);
	}
}

static void commit(struct load *l)
{
	uint64_t lsn = bs_lsn(l->bs);

	must(l, "commit", bs_commit(l->bs, 0));
	sm_ack(&l->m, lsn, bdev_powercut_mark(l->run->dev));
}

/* ---- the process dies, or closes ---- */

static void drop_handles(struct load *l)
{
	for (unsigned i = 0; i < l->alive; i++)
		bs_blob_put(l->blob[i]);
	bdev_channel_destroy(l->ch);
	l->ch = NULL;
}

static void take_handles(struct load *l)
{
	l->alive = 0;
	for (size_t i = 0; i < l->m.n_blobs; i++) {
		struct model_blob *b = l->m.blobs[i];

		if (b->died != UINT64_MAX)
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

	drop_handles(l);
	if (die)
		bs_abandon(l->bs);
	else
		must(l, "close", bs_close(l->bs));
	open_store(l);
	sm_forget_after(&l->m, bs_lsn(l->bs));
	/* What recovery answers from is durable. */
	sm_ack(&l->m, bs_lsn(l->bs), bdev_powercut_mark(l->run->dev));
	take_handles(l);
}

static void load_step(void *w)
{
	struct load *l = w;
	uint64_t dice = rng_below(&l->run->rng, 100);

	if (l->alive < 3 || (dice < 6 && l->alive + 3 < ALIVE))
		create(l);
	else if (dice < 9)
		delete(l);
	else if (dice < 30)
		change_items(l);
	else if (dice < 65)
		write_data(l);
	else if (dice < 75)
		unmap_or_zero(l);
	else if (dice < 94)
		commit(l);
	else if (dice < 96)
		must(l, "checkpoint", bs_checkpoint(l->bs));
	else if (dice < 98)
		must(l, "service", bs_service_step(l->bs));
	else
		reopen(l);
}

static void load_end(void *w)
{
	struct load *l = w;

	drop_handles(l);
	bs_abandon(l->bs);
	l->bs = NULL;
}

/* ---- verifying ---- */

static void on_problem(const struct bs_problem *p, void *arg)
{
	finding(arg, "check: %s: %s: %s", p->pass, p->code, p->text);
}

static bool check_clean(struct run *run, struct bdev *dev)
{
	struct base_err err = { "" };
	int n = bs_check(dev, on_problem, run, NULL, &err);

	bdev_close(dev);
	if (n < 0)
		return finding(run, "check: %s", base_err_text(&err, n));
	return n == 0;
}

/* Recovery that was cut itself must come back to the same. */
static bool verify_again(struct load *l, struct run *run, uint64_t event, uint64_t lsn, struct bdev *medium)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_NO_SERVICE };
	struct run second = { .seed = run->seed + event };
	struct bdev_cut cut = { .seed = run->seed ^ event, .torn = 512 };
	struct base_err err = { "" };
	struct bdev *state;
	struct bs *bs;
	uint64_t events;
	bool ok;
	int rc;

	if (bdev_powercut_create(medium, &second.dev))
		broken(run, "cannot make the device");
	bdev_ref(second.dev);
	rc = bs_open(second.dev, &opts, &bs, &err);
	if (rc)
		return finding(run, "recovery: %s", base_err_text(&err, rc));
	rng_seed(&second.rng, second.seed);
	if (rng_chance(&second.rng, 50))
		bs_abandon(bs);
	else
		must(l, "close", bs_close(bs));
	events = bdev_powercut_events(second.dev);
	cut.event = rng_below(&second.rng, events + 1);
	rc = bdev_powercut_state(second.dev, &cut, &state);
	if (rc)
		broken(run, "cannot rebuild the medium: %s", strerror(-rc));
	opts.flags = BS_RDONLY;
	rc = bs_open(state, &opts, &bs, &err);
	if (rc) {
		bdev_close(second.dev);
		bdev_close(state);
		return finding(run, "second recovery, cut at %" PRIu64 " of %" PRIu64 ": %s", cut.event, events, base_err_text(&err, rc));
	}
	ok = bs_lsn(bs) == lsn || finding(run, "second recovery came to LSN %" PRIu64 ", the first to %" PRIu64, bs_lsn(bs), lsn);
	ok = ok && sm_verify(&l->m, run, bs, lsn, event);
	bs_close(bs);
	bdev_close(second.dev);
	return ok;
}

static bool load_verify(void *w, struct run *run, uint64_t event, struct bdev *(*open_state)(void *arg), void *arg)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_RDONLY };
	struct base_err err = { "" };
	struct load *l = w;
	struct bdev *dev;
	uint64_t lsn;
	struct bs *bs;
	bool ok;
	int rc;

	if (!check_clean(run, open_state(arg)))
		return false;
	dev = open_state(arg);
	rc = bs_open(dev, &opts, &bs, &err);
	if (rc) {
		bdev_close(dev);
		return finding(run, "open: %s", base_err_text(&err, rc));
	}
	lsn = bs_lsn(bs);
	ok = sm_verify(&l->m, run, bs, lsn, event);
	bs_close(bs);
	if (ok && event % 4 == 0)
		ok = verify_again(l, run, event, lsn, open_state(arg));
	return ok;
}

static void load_free(void *w)
{
	struct load *l = w;

	sm_free(&l->m);
	free(l);
}

const struct workload store_workload = {
	.name = "store", .begin = load_begin, .step = load_step, .end = load_end, .verify = load_verify, .free = load_free,
};
