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
 */
#include <errno.h>
#include <stdatomic.h>

#include "blob/internal.h"

#define CHANNELS 256u

struct bs_epochs {
	_Atomic uint64_t epoch;
	_Atomic uint32_t n_waiting;
	pthread_mutex_t lock; /* waiters */
	LIST_HEAD(, bs_epoch_waiter) waiters;
	struct {
		_Atomic uint32_t inside[2];
		_Atomic uint64_t read_bytes; /* counted here, where the line is ours anyway */
		_Atomic uint64_t write_bytes[BS_STREAMS];
		uint8_t pad[16];
	} ch[CHANNELS] __attribute__((aligned(64)));
};

int bs_epoch_create(struct bs *bs)
{
	struct bs_epochs *e = dma_zalloc(sizeof(*e), 64); /* for its alignment */

	if (!e)
		return -ENOMEM;
	atomic_init(&e->epoch, 2);
	atomic_init(&e->n_waiting, 0);
	pthread_mutex_init(&e->lock, NULL);
	LIST_INIT(&e->waiters);
	for (unsigned i = 0; i < CHANNELS; i++) {
		atomic_init(&e->ch[i].inside[0], 0);
		atomic_init(&e->ch[i].inside[1], 0);
		atomic_init(&e->ch[i].read_bytes, 0);
		for (unsigned k = 0; k < BS_STREAMS; k++)
			atomic_init(&e->ch[i].write_bytes[k], 0);
	}
	bs->epochs = e;
	return 0;
}

void bs_epoch_destroy(struct bs *bs)
{
	if (!bs->epochs)
		return;
	pthread_mutex_destroy(&bs->epochs->lock);
	dma_free(bs->epochs);
	bs->epochs = NULL;
}

unsigned bs_epoch_enter(struct bs *bs, struct bdev_channel *ch)
{
	struct bs_epochs *e = bs->epochs;
	unsigned i = bdev_channel_index(ch) % CHANNELS;

	for (;;) {
		uint64_t now = atomic_load(&e->epoch);

		atomic_fetch_add(&e->ch[i].inside[now & 1], 1);
		if (atomic_load(&e->epoch) == now)
			return now & 1;
		atomic_fetch_sub(&e->ch[i].inside[now & 1], 1);
	}
}

void bs_epoch_read(struct bs *bs, struct bdev_channel *ch, uint64_t bytes)
{
	unsigned i = bdev_channel_index(ch) % CHANNELS;

	atomic_fetch_add_explicit(&bs->epochs->ch[i].read_bytes, bytes, memory_order_relaxed);
}

void bs_epoch_wrote(struct bs *bs, struct bdev_channel *ch, enum bs_stream stream, uint64_t bytes)
{
	unsigned i = bdev_channel_index(ch) % CHANNELS, k = (unsigned)stream < BS_STREAMS ? stream : BS_STREAM_UNKNOWN;

	atomic_fetch_add_explicit(&bs->epochs->ch[i].write_bytes[k], bytes, memory_order_relaxed);
}

void bs_epoch_get_stat(struct bs *bs, struct bs_stat *st)
{
	for (unsigned i = 0; i < CHANNELS; i++) {
		st->data_read_bytes += atomic_load_explicit(&bs->epochs->ch[i].read_bytes,
							    memory_order_relaxed);
		for (unsigned k = 0; k < BS_STREAMS; k++)
			st->stream_bytes[k] += atomic_load_explicit(
				&bs->epochs->ch[i].write_bytes[k], memory_order_relaxed);
	}
	for (unsigned k = 0; k < BS_STREAMS; k++)
		st->data_write_bytes += st->stream_bytes[k];
}

static bool parity_empty(struct bs_epochs *e, unsigned parity)
{
	for (unsigned i = 0; i < CHANNELS; i++)
		if (atomic_load(&e->ch[i].inside[parity]))
			return false;
	return true;
}

uint64_t bs_epoch_now(struct bs *bs)
{
	return atomic_load(&bs->epochs->epoch);
}

uint64_t bs_epoch_advance(struct bs *bs)
{
	struct bs_epochs *e = bs->epochs;

	for (int i = 0; i < 2; i++) {
		uint64_t now = atomic_load(&e->epoch);

		if (!parity_empty(e, (now + 1) & 1))
			return now;
		atomic_compare_exchange_strong(&e->epoch, &now, now + 1);
	}
	return atomic_load(&e->epoch);
}

static void end_waiters(struct bs *bs)
{
	struct bs_epochs *e = bs->epochs;
	uint64_t now = bs_epoch_advance(bs);
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

	atomic_fetch_sub(&e->ch[bdev_channel_index(ch) % CHANNELS].inside[epoch], 1);
	if (atomic_load(&e->n_waiting))
		end_waiters(bs);
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
	end_waiters(bs);
}
