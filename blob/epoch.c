/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Epochs: who may still be looking at blocks that were unmapped. A data operation counts itself
 * into the present epoch's parity, on its channel's own cache line, and out when its last device
 * I/O is done. The epoch moves from e to e + 1 only when nobody is left of e - 1. So whoever was
 * inside when something was unmapped in epoch e entered in e or e - 1, and has left when the epoch
 * is e + 2.
 *
 * Entering: read the epoch, count oneself in, read it again. If it moved in between, the mover may
 * have missed the count (which is then in the wrong parity), so it is taken back and all begins
 * anew. If it did not, the move that would make the count matter comes later and sees it.
 *
 * Looking at maps without a lock (epoch.h): the same count says, in its upper half, who is looking. Who
 * changes maps first says so (`changing`), then waits until nobody looks: both in the order of sequential consistency, so
 * that either the changer sees the one who looks, or that one sees the changer, and takes the maplock instead. A look is
 * some hundred instructions without a wait in it, so the changer only sleeps when one who looks lost its processor.
 *
 * Only the lines of channels there have been are looked at: who counts itself in has made its channel before.
 */
#include <errno.h>
#include <stdatomic.h>

#include "blob/epoch.h"

#define TRIES 100u /* before the changer of maps sleeps */

int bs_epoch_create(struct bs *bs)
{
	struct bs_epochs *e = dma_zalloc(sizeof(*e), 64); /* for its alignment */

	if (!e)
		return -ENOMEM;
	atomic_init(&e->epoch, 2);
	e->bs = bs;
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->look_ended, NULL);
	LIST_INIT(&e->waiters);
	bs->epochs = e;
	return 0;
}

void bs_epoch_destroy(struct bs *bs)
{
	if (!bs->epochs)
		return;
	pthread_cond_destroy(&bs->epochs->look_ended);
	pthread_mutex_destroy(&bs->epochs->lock);
	dma_free(bs->epochs);
	bs->epochs = NULL;
}

unsigned bs_epoch_enter(struct bs *bs, struct bdev_channel *ch)
{
	struct bs_epochs *e = bs->epochs;
	unsigned i = bdev_channel_index(ch) % BS_EPOCH_LINES;

	for (;;) {
		uint64_t now = atomic_load(&e->epoch);

		atomic_fetch_add(&e->count[i][now & 1].inside, 1);
		if (atomic_load(&e->epoch) == now)
			return now & 1;
		atomic_fetch_sub(&e->count[i][now & 1].inside, 1);
	}
}

/* ---- looking at maps, and changing them ---- */

/* Whoever waits for the epoch is told when we leave after all, which is after the other way of entering. */
void bs_look_undo(struct bs_epochs *e, struct bs_epoch_count *c)
{
	atomic_fetch_sub(&c->inside, BS_LOOKING + 1);
	bs_look_wake(e);
}

void bs_look_wake(struct bs_epochs *e)
{
	if (!atomic_load(&e->changer_sleeps))
		return;
	pthread_mutex_lock(&e->lock);
	pthread_cond_signal(&e->look_ended);
	pthread_mutex_unlock(&e->lock);
}

static unsigned n_lines(const struct bs_epochs *e)
{
	return MIN(bdev_channels_end(e->bs->dev), BS_EPOCH_LINES);
}

static bool somebody_looks(struct bs_epoch_count *c)
{
	return (atomic_load(&c[0].inside) | atomic_load(&c[1].inside)) >= BS_LOOKING;
}

/* Who looks counts itself out, then looks whether the changer sleeps. We do it the other way round. */
static void sleep_over(struct bs_epochs *e, struct bs_epoch_count *c)
{
	pthread_mutex_lock(&e->lock);
	atomic_store(&e->changer_sleeps, true);
	while (somebody_looks(c))
		pthread_cond_wait(&e->look_ended, &e->lock);
	atomic_store(&e->changer_sleeps, false);
	pthread_mutex_unlock(&e->lock);
}

static void wait_for_looks(struct bs_epochs *e, struct bs_epoch_count *c)
{
	for (unsigned i = 0; i < TRIES; i++)
		if (!somebody_looks(c))
			return;
	sleep_over(e, c);
}

void bs_maps_change(struct bs *bs)
{
	struct bs_epochs *e = bs->epochs;
	unsigned n;

	if (bs->recovering || atomic_load_explicit(&e->changing, memory_order_relaxed))
		return;
	atomic_store(&e->changing, 1);
	n = n_lines(e);
	for (unsigned i = 0; i < n; i++)
		wait_for_looks(e, e->count[i]);
}

void bs_maps_settled(struct bs *bs)
{
	if (atomic_load_explicit(&bs->epochs->changing, memory_order_relaxed))
		atomic_store_explicit(&bs->epochs->changing, 0, memory_order_release);
}

/* ---- numbers ---- */

void bs_epoch_read(struct bs *bs, struct bdev_channel *ch, uint64_t bytes)
{
	unsigned i = bdev_channel_index(ch) % BS_EPOCH_LINES;

	atomic_fetch_add_explicit(&bs->epochs->count[i][0].read_bytes, bytes, memory_order_relaxed);
}

void bs_epoch_wrote(struct bs *bs, struct bdev_channel *ch, enum bs_stream stream, uint64_t bytes)
{
	bs_count_written(&bs->epochs->count[bdev_channel_index(ch) % BS_EPOCH_LINES][0], stream, bytes);
}

void bs_epoch_get_stat(struct bs *bs, struct bs_stat *st)
{
	for (unsigned i = 0; i < 2 * BS_EPOCH_LINES; i++) {
		struct bs_epoch_count *c = &bs->epochs->count[i / 2][i % 2];

		st->data_read_bytes += atomic_load_explicit(&c->read_bytes, memory_order_relaxed);
		for (unsigned k = 0; k < BS_STREAMS; k++)
			st->stream_bytes[k] += atomic_load_explicit(&c->write_bytes[k], memory_order_relaxed);
	}
	for (unsigned k = 0; k < BS_STREAMS; k++)
		st->data_write_bytes += st->stream_bytes[k];
}

/* ---- moving on ---- */

static bool parity_empty(struct bs_epochs *e, unsigned parity)
{
	unsigned n = n_lines(e);

	for (unsigned i = 0; i < n; i++)
		if (atomic_load(&e->count[i][parity].inside))
			return false;
	return true;
}

uint64_t bs_epoch_now(struct bs *bs)
{
	return atomic_load(&bs->epochs->epoch);
}

static uint64_t advance(struct bs_epochs *e)
{
	for (int i = 0; i < 2; i++) {
		uint64_t now = atomic_load(&e->epoch);

		if (!parity_empty(e, (now + 1) & 1))
			return now;
		atomic_compare_exchange_strong(&e->epoch, &now, now + 1);
	}
	return atomic_load(&e->epoch);
}

uint64_t bs_epoch_advance(struct bs *bs)
{
	return advance(bs->epochs);
}

void bs_epoch_end_waiters(struct bs_epochs *e)
{
	uint64_t now = advance(e);
	struct bs_epoch_waiter *w, *next;

	pthread_mutex_lock(&e->lock);
	for (w = LIST_FIRST(&e->waiters); w; w = next) {
		next = LIST_NEXT(w, link);
		if (w->epoch > now)
			continue;
		LIST_REMOVE(w, link);
		atomic_fetch_sub(&e->n_waiting, 1);
		op_child_done(w->op, 0);
	}
	pthread_mutex_unlock(&e->lock);
}

void bs_epoch_leave(struct bs *bs, struct bdev_channel *ch, unsigned epoch)
{
	struct bs_epochs *e = bs->epochs;

	bs_count_out(e, &e->count[bdev_channel_index(ch) % BS_EPOCH_LINES][epoch]);
}

void bs_epoch_wait_start(struct bs *bs, struct bs_epoch_waiter *w, uint64_t epoch, struct op *op)
{
	struct bs_epochs *e = bs->epochs;

	op_child_begin(op);
	w->epoch = epoch;
	w->op = op;
	pthread_mutex_lock(&e->lock);
	LIST_INSERT_HEAD(&e->waiters, w, link);
	pthread_mutex_unlock(&e->lock);
	/* Counted before the look at who is inside; who leaves looks after having left. One of both
	 * ends the wait. */
	atomic_fetch_add(&e->n_waiting, 1);
	bs_epoch_end_waiters(e);
}
