/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Asynchronous requests: a queue is a channel that its owner polls. The channel of a queue that is gone is kept for the next
 * one until the file system is closed: somebody who waits for a page that was read on it may still be looking at it.
 *
 * An operation may end in any thread's poll; its request is put on a list then, and `done` is called by the owner's poll. The queue's
 * descriptor tells of both, the channel's wish to be polled and what is in the list.
 *
 * Without a service thread nobody drives the log for a request that does not wait itself: there each is run, waiting, by the
 * poll after its submission.
 */
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "blobfs/data.h"

struct req_list { /* linked by work */
	struct bfs_req *first, **end;
};

struct bfs_queue {
	LIST_ENTRY(bfs_queue) link; /* in fs->idle_queues */
	struct bfs *fs;
	struct bdev_channel *ch;
	_Atomic uint32_t inflight;
	int event, epoll;     /* eventfd: the list has something */
	bool waits;           /* no service: requests are run by the poll */
	pthread_mutex_t lock; /* the lists */
	struct req_list waiting, over;
	_Atomic uint32_t n_over;
};

static _Thread_local struct bfs_queue *polling; /* this thread will run its list */

static void list_init(struct req_list *list)
{
	list->first = NULL;
	list->end = &list->first;
}

static void list_add(struct req_list *list, struct bfs_req *req)
{
	req->work = NULL;
	*list->end = req;
	list->end = (struct bfs_req **)(void *)&req->work;
}

static struct bfs_req *list_take(struct bfs_queue *q, struct req_list *list)
{
	struct bfs_req *req;

	pthread_mutex_lock(&q->lock);
	req = list->first;
	if (req)
		list->first = req->work;
	if (!list->first)
		list->end = &list->first;
	pthread_mutex_unlock(&q->lock);
	return req;
}

static int watch(struct bfs_queue *q, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN };

	return epoll_ctl(q->epoll, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

static void queue_free(struct bfs_queue *q)
{
	if (q->epoll >= 0)
		close(q->epoll);
	if (q->event >= 0)
		close(q->event);
	if (q->ch)
		bdev_channel_destroy(q->ch);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

static int queue_make(struct bfs *fs, struct bfs_queue **out)
{
	struct bfs_queue *q = base_calloc(1, sizeof(*q));
	int rc;

	if (!q)
		return -ENOMEM;
	q->fs = fs;
	q->waits = (fs->opts.flags & (BFS_NO_SERVICE | BFS_RDONLY)) == BFS_NO_SERVICE;
	pthread_mutex_init(&q->lock, NULL);
	list_init(&q->waiting);
	list_init(&q->over);
	q->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	q->epoll = epoll_create1(EPOLL_CLOEXEC);
	rc = q->event < 0 || q->epoll < 0 ? -EMFILE : bdev_channel_create(fs->dev, &q->ch);
	if (!rc)
		rc = watch(q, q->event);
	if (!rc)
		rc = watch(q, bdev_channel_fd(q->ch));
	if (rc)
		queue_free(q);
	else
		*out = q;
	return rc;
}

int bfs_queue_create(struct bfs *fs, struct bfs_queue **out)
{
	struct bfs_queue *q;

	pthread_mutex_lock(&fs->icache_lock);
	q = LIST_FIRST(&fs->idle_queues);
	if (q)
		LIST_REMOVE(q, link);
	pthread_mutex_unlock(&fs->icache_lock);
	if (!q)
		return queue_make(fs, out);
	*out = q;
	return 0;
}

static void call_done(struct bfs_queue *q, struct bfs_req *req)
{
	atomic_fetch_sub(&q->inflight, 1);
	req->done(req, req->arg);
}

/* Runs the first request of a queue that waits. */
static int run_waiting(struct bfs_queue *q)
{
	struct bfs_req *req = list_take(q, &q->waiting);

	if (!req)
		return 0;
	bfs_req_start(q->ch, req, NULL);
	op_wait(&req->op_);
	call_done(q, req);
	return 1;
}

/* Calls `done` of those that are over; those that come meanwhile are left for the next poll. */
static int run_over(struct bfs_queue *q)
{
	uint32_t n, ran = 0;
	uint64_t count;

	if (!atomic_load(&q->n_over))
		return 0;
	if (read(q->event, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return 0;
	/* After the reading: what is counted later rings again. */
	for (n = atomic_load(&q->n_over); ran < n; ran++) {
		struct bfs_req *req = list_take(q, &q->over);

		if (!req)
			break;
		atomic_fetch_sub(&q->n_over, 1);
		call_done(q, req);
	}
	return (int)ran;
}

int bfs_queue_poll(struct bfs_queue *q)
{
	struct bfs_queue *outer = polling;
	int n = q->waits ? run_waiting(q) : 0;

	polling = q;
	n += bdev_poll(q->ch);
	polling = outer;
	return n + run_over(q);
}

void bfs_queue_destroy(struct bfs_queue *q)
{
	struct bfs *fs = q->fs;

	while (atomic_load(&q->inflight)) {
		struct pollfd p = { .fd = q->epoll, .events = POLLIN };

		if (!bfs_queue_poll(q))
			poll(&p, 1, 10);
	}
	pthread_mutex_lock(&fs->icache_lock);
	LIST_INSERT_HEAD(&fs->idle_queues, q, link);
	pthread_mutex_unlock(&fs->icache_lock);
}

void bfs_queues_free(struct bfs *fs)
{
	struct bfs_queue *q;

	while ((q = LIST_FIRST(&fs->idle_queues))) {
		LIST_REMOVE(q, link);
		queue_free(q);
	}
}

int bfs_queue_fd(struct bfs_queue *q)
{
	return q->epoll;
}

/* In whichever poll the operation ended. */
static void req_done(struct op *op, void *arg)
{
	struct bfs_req *req = arg;
	struct bfs_queue *q = req->work;
	uint64_t one = 1;

	(void)op;
	pthread_mutex_lock(&q->lock);
	list_add(&q->over, req);
	atomic_fetch_add(&q->n_over, 1);
	/* Under the lock, as q may go when the request is taken. Should it fail, the eventfd is full, and readable. */
	if (polling != q && write(q->event, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN);
	pthread_mutex_unlock(&q->lock);
}

void bfs_submit(struct bfs_queue *q, struct bfs_req *req)
{
	atomic_fetch_add(&q->inflight, 1);
	req->fs = q->fs;
	if (q->waits) {
		pthread_mutex_lock(&q->lock);
		list_add(&q->waiting, req);
		pthread_mutex_unlock(&q->lock);
		return;
	}
	req->work = q;
	bfs_req_start(q->ch, req, req_done);
	bdev_kick(q->ch);
}
