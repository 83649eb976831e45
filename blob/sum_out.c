/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paging out: young sums into their pages, one page after the other, those that have not changed for longest first. A page is read,
 * the young sums are laid over it, and it is written as data is: to a new place, published together with the record that deletes the
 * young ones. If one came or changed since it was taken, nothing is published, and the page's turn comes again later.
 *
 * It never has to succeed: what stays young is in memory and in the checkpoints, and space for that was made sure of when it came.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "blob/device.h"
#include "blob/mutation.h"
#include "blob/sum.h"

#define LOG_COMPONENT "blob"
#include "base/log.h"

#define RETRY_NS 1000000000ull
#define FAR 8u /* times as many as there should be: then who writes waits */

enum { O_PICK, O_MERGE, O_WRITTEN, O_CHANGED, O_UNREAD, O_FAILED, O_DONE };

struct bs_sum_out {
	struct op op;
	struct bs *bs;
	struct bdev_channel *ch;
	struct op *parent;   /* or NULL */
	uint64_t done, page; /* so many; the one at hand */
	uint64_t changes;    /* of its young sums, when they were taken */
	struct bs_sum_page_disk *disk;
	struct iovec iov;
	struct bs_io io;
};

bool bs_sums_wanted(struct bs *bs)
{
	struct bs_sums *s = bs->sums;
	bool much;

	if (!s || (bs->flags & BS_RDONLY) || atomic_load(&bs->frozen) || base_now_ns() < atomic_load(&s->retry_ns))
		return false;
	pthread_mutex_lock(&s->lock);
	much = s->n_young - s->n_stuck > s->high;
	pthread_mutex_unlock(&s->lock);
	return much;
}

bool bs_sums_idle(const struct bs *bs)
{
	return !bs->sums || !atomic_load(&bs->sums->busy);
}

/* ---- who waits ---- */

/* lock held */
static bool is_crowded(const struct bs_sums *s)
{
	return s->n_young - s->n_stuck > FAR * s->high;
}

bool bs_sums_wait_start(struct bs *bs, struct op *op)
{
	struct bs_sum_waiter *w = NULL;
	struct bs_sums *s = bs->sums;

	if (!bs_has_service(bs)) /* who writes may be the one who drives it */
		return false;
	pthread_mutex_lock(&s->lock);
	if (is_crowded(s) && atomic_load(&s->busy))
		w = base_malloc(sizeof(*w));
	if (w) {
		op_child_begin(op);
		w->op = op;
		TAILQ_INSERT_TAIL(&s->waiters, w, link);
	}
	pthread_mutex_unlock(&s->lock);
	return w != NULL;
}

/* Lets them go on if there is room, or if it ends. */
static void tell_waiters(struct bs_sums *s, bool ends)
{
	struct bs_sum_waiter *w;

	pthread_mutex_lock(&s->lock);
	if (ends)
		atomic_store(&s->busy, false);
	while ((w = TAILQ_FIRST(&s->waiters)) && (ends || !is_crowded(s))) {
		TAILQ_REMOVE(&s->waiters, w, link);
		op_child_done(w->op, 0);
		free(w);
	}
	pthread_mutex_unlock(&s->lock);
}

/* ---- steps ---- */

/* The next page, and what is young of it; false: there is enough room again. */
static bool pick(struct bs_sum_out *o)
{
	struct bs_sums *s = o->bs->sums;
	struct bs_sum_node *n;

	pthread_mutex_lock(&s->lock);
	n = s->n_young - s->n_stuck > s->high / 2 && (o->done < 2 * s->high || is_crowded(s)) ? TAILQ_FIRST(&s->order) : NULL;
	while (n && n->stuck)
		n = TAILQ_NEXT(n, link);
	if (n) {
		o->page = n->page;
		o->done++;
	}
	pthread_mutex_unlock(&s->lock);
	return n;
}

static void start_io(struct bs_sum_out *o, enum bs_io_op what, uint32_t flags, bs_publish_fn publish)
{
	memset(&o->io, 0, offsetof(struct bs_io, op_));
	o->iov = (struct iovec){ o->disk, sizeof(*o->disk) };
	o->io.blob = o->bs->sums->blob;
	o->io.op = what;
	o->io.flags = flags;
	o->io.offset = o->page * BS_BLOCK;
	o->io.length = BS_BLOCK;
	o->io.iov = &o->iov;
	o->io.iovcnt = 1;
	o->io.stream = BS_STREAM_META;
	o->io.publish = publish;
	o->io.publish_arg = o;
	bs_io_start(o->ch, &o->io, &o->op);
	bdev_kick(o->ch);
}

/* The page as it was: a hole reads as zeroes, and is no page yet. */
static int check_old(struct bs_sum_out *o)
{
	struct bs_extent e;

	bs_map_lookup(o->bs->sums->blob, o->page, 1, &e);
	if (e.flags & BS_RUN_HOLE) {
		memset(o->disk, 0, sizeof(*o->disk));
		return 0;
	}
	if (!bs_sum_page_check(o->bs, o->disk, o->page))
		return 0;
	log_err("%s: device block %" PRIu64 ": a page of checksums is damaged", bdev_info(o->bs->dev)->name, e.phys);
	atomic_fetch_add(&o->bs->sums->errors, 1);
	return -EIO;
}

/* Its page is lost, perhaps not for ever; the others are not to wait for that. */
static void set_stuck(struct bs_sum_out *o)
{
	struct bs_sums *s = o->bs->sums;
	struct bs_sum_node *n;

	pthread_mutex_lock(&s->lock);
	n = bs_sum_young(s, o->page);
	if (n && !n->stuck) {
		n->stuck = true;
		s->n_stuck++;
	}
	pthread_mutex_unlock(&s->lock);
}

/* False: nothing of it is young any more. */
static bool merge(struct bs_sum_out *o)
{
	struct bs_sums *s = o->bs->sums;
	struct bs_sum_node *n;
	struct bs_sum_page_disk *d = o->disk;

	pthread_mutex_lock(&s->lock);
	n = bs_sum_young(s, o->page);
	if (n) {
		o->changes = n->changes;
		for (uint32_t i = 0; i < BS_SUM_PAGE; i++)
			if ((n->has[i / 64] >> i % 64 & 1) && !BS_MUTATE(sum_paged))
				d->sum[i] = le32_make(n->sum[i]);
	}
	pthread_mutex_unlock(&s->lock);
	d->magic = le32_make(BS_MAGIC_SUM);
	memcpy(d->uuid, o->bs->sb.uuid, sizeof(d->uuid));
	d->first = le64_make(o->page * BS_SUM_PAGE);
	d->lsn = le64_make(bs_lsn(o->bs));
	d->crc = le32_make(bs_sum_page_crc(d));
	return n;
}

/* Under bs->lock, so nothing young changes until the transaction ends. */
static int publish(struct bs_txn *txn, struct bs_io *io, void *arg)
{
	struct bs_sum_out *o = arg;
	struct bs_sum_node *n;
	le64 count = le64_make(BS_SUM_PAGE);
	struct bs_rec rec = { .op = BS_REC_DEL, .kind = BS_KIND_SUM, .blob = BS_SUM_ID, .key = o->page * BS_SUM_PAGE,
			      .len = sizeof(count), .value = &count };

	(void)io;
	pthread_mutex_lock(&o->bs->sums->lock);
	n = bs_sum_young(o->bs->sums, o->page);
	if (n && n->changes != o->changes && !BS_MUTATE(sum_changed))
		n = NULL;
	pthread_mutex_unlock(&o->bs->sums->lock);
	return n ? bs_txn_add(txn, &rec, 0) : -ECANCELED;
}

static enum op_next out_step(struct op *op)
{
	struct bs_sum_out *o = container_of(op, struct bs_sum_out, op);
	int rc;

	switch (op->step) {
	case O_PICK:
		tell_waiters(o->bs->sums, false);
		if (atomic_load(&o->bs->frozen) || !pick(o))
			return op_goto(op, O_DONE);
		if (bs_sum_page_give_back(o->bs, o->page))
			return op_goto(op, O_PICK);
		op->on_error = O_UNREAD;
		start_io(o, BS_READ, 0, NULL);
		return op_await(op, O_MERGE, 0);
	case O_MERGE:
		op->on_error = O_UNREAD;
		rc = check_old(o);
		if (rc)
			return op_fail(op, rc);
		if (!merge(o))
			return op_goto(op, O_PICK);
		op->on_error = O_CHANGED;
		start_io(o, BS_WRITE, BS_IO_NEW, publish);
		return op_await(op, O_WRITTEN, 0);
	case O_WRITTEN:
		atomic_fetch_add(&o->bs->sums->paged, 1);
		return op_goto(op, O_PICK);
	case O_CHANGED:
		if (op->rc != -ECANCELED)
			return op_goto(op, O_FAILED);
		op->rc = 0; /* its turn comes again */
		return op_goto(op, O_PICK);
	case O_UNREAD:
		if (op->rc == -ENOMEM || op->rc == -ENODEV)
			return op_goto(op, O_FAILED);
		set_stuck(o);
		op->rc = 0;
		return op_goto(op, O_PICK);
	case O_FAILED: /* not for some time */
		atomic_store(&o->bs->sums->retry_ns, base_now_ns() + RETRY_NS);
		return op_goto(op, O_DONE);
	case O_DONE:
		return op_finish(op);
	}
	return op_bug(op);
}

/* ---- who begins it ---- */

static void out_done(struct op *op, void *arg)
{
	struct bs_sum_out *o = arg;
	struct op *parent = o->parent;
	struct bs *bs = o->bs;

	if (op->rc)
		log_debug("%s: paging out checksums: %s", bdev_info(bs->dev)->name, strerror(-op->rc));
	bs_blob_trim_ahead(bs->sums->blob);
	dma_free(o->disk);
	free(o);
	tell_waiters(bs->sums, true);
	if (parent)
		op_child_done(parent, 0); /* it never has to succeed */
}

static struct bs_sum_out *out_new(struct bs *bs, struct bdev_channel *ch)
{
	struct bs_sum_out *o = base_calloc(1, sizeof(*o));

	if (o)
		o->disk = dma_alloc(sizeof(*o->disk), BS_BLOCK);
	if (!o || !o->disk) {
		free(o);
		return NULL;
	}
	o->bs = bs;
	o->ch = ch;
	return o;
}

void bs_sums_start(struct bs *bs, struct bdev_channel *ch, struct op *parent)
{
	struct bs_sum_out *o;

	if (!bs_sums_wanted(bs) || atomic_exchange(&bs->sums->busy, true))
		return;
	o = out_new(bs, ch);
	if (!o) {
		atomic_store(&bs->sums->retry_ns, base_now_ns() + RETRY_NS);
		tell_waiters(bs->sums, true);
		return;
	}
	o->parent = parent;
	if (parent)
		op_child_begin(parent);
	op_init(&o->op, "sums-out", out_step, bdev_channel_driver(o->ch), out_done, o);
	op_start(&o->op);
}

int bs_sums_step(struct bs *bs)
{
	struct bdev_channel *ch;
	struct bs_sum_out *o;
	int rc = -ENOMEM;

	/* Beside another one, a page could be laid over what it was before that. */
	if (!bs_sums_wanted(bs) || atomic_exchange(&bs->sums->busy, true))
		return 0;
	ch = bdev_channel_borrow(bs->dev);
	o = out_new(bs, ch);
	if (o) {
		op_init(&o->op, "sums-out", out_step, bdev_channel_driver(ch), NULL, NULL);
		op_start(&o->op);
		rc = op_wait(&o->op);
		dma_free(o->disk);
		free(o);
		bs_blob_trim_ahead(bs->sums->blob);
	}
	bdev_channel_return(ch);
	tell_waiters(bs->sums, true);
	/* No space: they stay where they are. */
	return rc == -ENOSPC || rc == -EAGAIN ? 0 : rc;
}
