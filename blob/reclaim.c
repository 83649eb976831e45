/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Before ENOSPC: what is only waiting to become free is made free. Space taken ahead is given back,
 * a commit makes what was unmapped durable, operations that may still see it are waited for, and it
 * is released.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "blob/device.h"

#define SOON_BLOCKS 4096u /* pending blocks below which nobody is hurried */

struct reclaim {
	struct op op;
	struct bs *bs;
	struct op *parent;
	struct op_driver *home;
	struct bs_epoch_waiter epoch;
	struct bs_drain_waiter drain;
};

enum { COMMIT, EPOCH, RELEASE, DONE };

static void drop_aheads(struct bs *bs)
{
	struct bs_ahead *a;

	pthread_mutex_lock(&bs->lock);
	while ((a = LIST_FIRST(&bs->aheads)))
		bs_ahead_drop(a->blob);
	pthread_mutex_unlock(&bs->lock);
}

static enum op_next reclaim_step(struct op *op)
{
	struct reclaim *r = container_of(op, struct reclaim, op);

	switch (op->step) {
	case COMMIT:
		op->on_error = DONE;
		drop_aheads(r->bs);
		if (!bs_space_pending(r->bs))
			return op_finish(op);
		bs_commit_start(r->bs, 0, op);
		return op_await(op, EPOCH, 0);
	case EPOCH:
		/* Closes the batch: it gets the present epoch at the latest. */
		bs_space_release(r->bs);
		bs_epoch_wait_start(r->bs, &r->epoch, bs_epoch_now(r->bs) + 2, op);
		return op_await(op, RELEASE, 0);
	case RELEASE:
		bs_space_release(r->bs);
		bs_space_drain_start(r->bs, &r->drain, op);
		return op_await(op, DONE, 0);
	case DONE:
		/* The commit has moved it to the log's channel, which nobody may be polling for us
		 * any more. */
		op_move(op, r->home);
		return op_finish(op);
	}
	return op_bug(op);
}

static void reclaim_done(struct op *op, void *arg)
{
	struct reclaim *r = arg;
	struct op *parent = r->parent;
	int rc = op->rc;

	free(r);
	op_child_done(parent, rc);
}

void bs_reclaim_start(struct bs *bs, struct op *op)
{
	struct reclaim *r;

	op_child_begin(op);
	r = base_malloc(sizeof(*r));
	if (!r) {
		op_child_done(op, -ENOMEM);
		return;
	}
	r->bs = bs;
	r->parent = op;
	/* Without a service nobody but the parent's waiter polls the log. */
	if (!bs_has_service(bs))
		op_move(op, bdev_channel_driver(bs->log->ch));
	r->home = atomic_load(&op->driver);
	op_init(&r->op, "reclaim", reclaim_step, r->home, reclaim_done, r);
	op_start(&r->op);
}

int bs_reclaim(struct bs *bs)
{
	struct bdev_channel *ch = bdev_channel_borrow(bs->dev);
	struct reclaim r = { .bs = bs, .home = bdev_channel_driver(ch) };
	int rc;

	op_init(&r.op, "reclaim", reclaim_step, r.home, NULL, NULL);
	op_start(&r.op);
	rc = op_wait(&r.op);
	bdev_channel_return(ch);
	return rc;
}

#define WAIT_STEPS 100
#define WAIT_STEP_NS 200000

bool bs_reclaim_wait(struct bs *bs, unsigned tried)
{
	uint64_t avail;

	/* The service thread makes things durable: it would wait for itself. */
	if (!bs_space_try_again(bs, tried) || (bs_has_service(bs) && reactor_current() == bs_service_reactor(bs)))
		return false;
	drop_aheads(bs);
	if (!bs_space_pending(bs))
		return true;
	avail = bs_space_avail(bs);
	if (bs_commit(bs, 0))
		return false;
	for (int i = 0; i < WAIT_STEPS; i++) {
		bs_space_release(bs);
		if (bs_space_avail(bs) > avail || !bs_space_pending(bs))
			return true;
		nanosleep(&(struct timespec){ .tv_nsec = WAIT_STEP_NS }, NULL);
	}
	return false;
}

void bs_release_if_much(struct bs *bs)
{
	struct bs_space *s = bs->space;
	bool much;

	pthread_mutex_lock(&s->lock);
	much = s->pending > SOON_BLOCKS && s->pending > s->free_clusters * bs->cluster_blocks / 4;
	pthread_mutex_unlock(&s->lock);
	if (much)
		bs_service_kick(bs, BS_KICK_COMMIT);
}

int bs_reserve(struct bs *bs, uint64_t clusters)
{
	return bs_space_reserve(bs, clusters);
}

void bs_unreserve(struct bs *bs, uint64_t clusters)
{
	bs_space_unreserve(bs, clusters);
}
