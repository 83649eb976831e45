/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Asynchronous requests: a queue is a channel that its owner polls. The channel of a queue that is gone is kept for the next
 * one until the file system is closed: somebody who waits for a page that was read on it may still be looking at it.
 *
 * Without a service thread nobody drives the log for a request that does not wait itself: there each is run, waiting, by the
 * poll after its submission.
 */
#include <stdlib.h>

#include "blobfs/data.h"

struct bfs_queue {
	LIST_ENTRY(bfs_queue) link; /* in fs->idle_queues */
	struct bfs *fs;
	struct bdev_channel *ch;
	_Atomic uint32_t inflight;  /* requests, and one until it is destroyed */
	struct op drain;
	bool waits;                 /* no service: requests are run by the poll */
	pthread_mutex_t lock;       /* the list of those */
	struct bfs_req *first, **end; /* linked by work */
};

int bfs_queue_create(struct bfs *fs, struct bfs_queue **out)
{
	struct bfs_queue *q;
	int rc;

	pthread_mutex_lock(&fs->icache_lock);
	q = LIST_FIRST(&fs->idle_queues);
	if (q)
		LIST_REMOVE(q, link);
	pthread_mutex_unlock(&fs->icache_lock);
	if (!q) {
		q = base_calloc(1, sizeof(*q));
		if (!q)
			return -ENOMEM;
		q->fs = fs;
		rc = bdev_channel_create(fs->dev, &q->ch);
		if (rc) {
			free(q);
			return rc;
		}
		pthread_mutex_init(&q->lock, NULL);
		q->waits = (fs->opts.flags & (BFS_NO_SERVICE | BFS_RDONLY)) == BFS_NO_SERVICE;
	}
	q->first = NULL;
	q->end = &q->first;
	atomic_store(&q->inflight, 1);
	*out = q;
	return 0;
}

static void give_back(struct bfs_queue *q)
{
	if (atomic_fetch_sub(&q->inflight, 1) == 1)
		op_child_done(&q->drain, 0);
}

/* Runs the first request of the list, for a queue that waits. */
static bool run_waiting(struct bfs_queue *q)
{
	struct bfs_req *req;

	pthread_mutex_lock(&q->lock);
	req = q->first;
	if (req)
		q->first = req->work;
	if (!q->first)
		q->end = &q->first;
	pthread_mutex_unlock(&q->lock);
	if (!req)
		return false;
	bfs_req_start(q->ch, req, NULL);
	op_wait(&req->op_);
	req->done(req, req->arg);
	give_back(q);
	return true;
}

static void add_waiting(struct bfs_queue *q, struct bfs_req *req)
{
	req->work = NULL;
	pthread_mutex_lock(&q->lock);
	*q->end = req;
	q->end = (struct bfs_req **)(void *)&req->work;
	pthread_mutex_unlock(&q->lock);
}

static enum op_next drain_run(struct op *op)
{
	struct bfs_queue *q = container_of(op, struct bfs_queue, drain);

	if (op->step == 1)
		return op_finish(op);
	op_child_begin(op);
	give_back(q);
	return op_await(op, 1, 0);
}

void bfs_queue_destroy(struct bfs_queue *q)
{
	struct bfs *fs = q->fs;

	while (q->waits && run_waiting(q))
		;
	op_init(&q->drain, "bfs queue drain", drain_run, bdev_channel_driver(q->ch), NULL, NULL);
	op_start(&q->drain);
	op_wait(&q->drain);
	bdev_poll(q->ch); /* what a request left to be run */
	pthread_mutex_lock(&fs->icache_lock);
	LIST_INSERT_HEAD(&fs->idle_queues, q, link);
	pthread_mutex_unlock(&fs->icache_lock);
}

void bfs_queues_free(struct bfs *fs)
{
	struct bfs_queue *q;

	while ((q = LIST_FIRST(&fs->idle_queues))) {
		LIST_REMOVE(q, link);
		bdev_channel_destroy(q->ch);
		pthread_mutex_destroy(&q->lock);
		free(q);
	}
}

int bfs_queue_poll(struct bfs_queue *q)
{
	if (q->waits)
		return run_waiting(q) + bdev_poll(q->ch);
	return bdev_poll(q->ch);
}

int bfs_queue_fd(struct bfs_queue *q)
{
	return bdev_channel_fd(q->ch);
}

static void req_done(struct op *op, void *arg)
{
	struct bfs_req *req = arg;
	struct bfs_queue *q = req->work;

	(void)op;
	req->done(req, req->arg);
	give_back(q);
}

void bfs_submit(struct bfs_queue *q, struct bfs_req *req)
{
	atomic_fetch_add(&q->inflight, 1);
	req->fs = q->fs;
	if (q->waits) {
		add_waiting(q, req);
		return;
	}
	req->work = q;
	bfs_req_start(q->ch, req, req_done);
	bdev_kick(q->ch);
}
