/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * POSIX locks beside a library user: bfs_setlk's table decides. It never waits, so those who wait (F_SETLKW) are kept here
 * and tried again when a lock of the mount is let go, and every few milliseconds, because a library user may
 * let go too. The timer runs only while somebody waits. All of it happens on the side thread, except
 * the first try.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "fuse/internal.h"

#define RETRY_MS 10
#define EARLY 64 /* interrupts remembered that came before their request was seen to wait */

struct waiter {
	LIST_ENTRY(waiter) link;
	fuse_req_t req;
	uint64_t unique, ino;
	struct bfs_lock lock;
};

struct locks {
	struct bfs_fuse *f;
	struct reactor_timer *retry;
	/* the side thread's */
	LIST_HEAD(, waiter) waiters;
	uint64_t early[EARLY];
	unsigned int next_early;
};

static void retry(void *arg)
{
	struct locks *l = arg;
	struct waiter *w, *next;
	int rc;

	for (w = LIST_FIRST(&l->waiters); w; w = next) {
		next = LIST_NEXT(w, link);
		rc = bfs_setlk(l->f->fs, w->ino, &w->lock);
		if (rc == -EAGAIN)
			continue;
		LIST_REMOVE(w, link);
		/* Answered, but the asker is gone: nobody would ever let go of it. */
		if (fuse_reply_err(w->req, -rc) && !rc) {
			w->lock.type = F_UNLCK;
			bfs_setlk(l->f->fs, w->ino, &w->lock);
		}
		free(w);
	}
	if (!LIST_EMPTY(&l->waiters))
		reactor_set_timer(l->retry, RETRY_MS);
}

int locks_create(struct bfs_fuse *f, struct locks **out)
{
	struct locks *l = base_calloc(1, sizeof(*l));
	int rc;

	if (!l)
		return -ENOMEM;
	l->f = f;
	LIST_INIT(&l->waiters);
	rc = reactor_add_timer(f->side, "lock retry", UINT32_MAX, 0, retry, l, &l->retry);
	if (rc) {
		free(l);
		return rc;
	}
	*out = l;
	return 0;
}

void locks_destroy(struct locks *l)
{
	struct waiter *w;

	while ((w = LIST_FIRST(&l->waiters))) {
		LIST_REMOVE(w, link);
		fuse_reply_err(w->req, EINTR);
		free(w);
	}
	reactor_del_timer(l->retry);
	free(l);
}

/* ---- messages to the side thread ---- */

static bool came_early(struct locks *l, uint64_t unique)
{
	for (unsigned int i = 0; i < EARLY; i++)
		if (l->early[i] == unique)
			return true;
	return false;
}

static void add_waiter(void *arg)
{
	struct waiter *w = arg;
	struct locks *l = req_fuse(w->req)->locks;

	if (came_early(l, w->unique)) {
		fuse_reply_err(w->req, EINTR);
		free(w);
		return;
	}
	LIST_INSERT_HEAD(&l->waiters, w, link);
	retry(l);
}

struct interruption {
	struct locks *l;
	uint64_t unique;
};

static void interrupt(void *arg)
{
	struct interruption *in = arg;
	struct locks *l = in->l;
	struct waiter *w;

	LIST_FOREACH(w, &l->waiters, link)
		if (w->unique == in->unique)
			break;
	if (w) {
		LIST_REMOVE(w, link);
		fuse_reply_err(w->req, EINTR);
		free(w);
	} else {
		l->early[l->next_early++ % EARLY] = in->unique;
	}
	free(in);
}

void locks_interrupt(struct locks *l, uint64_t unique)
{
	struct interruption *in = base_malloc(sizeof(*in));

	if (!in)
		return;
	*in = (struct interruption){ l, unique };
	if (reactor_post(l->f->side, interrupt, in))
		free(in);
}

void locks_changed(struct locks *l)
{
	/* A full ring loses nothing: the timer comes. */
	reactor_post(l->f->side, retry, l);
}

/* ---- operations ---- */

static struct bfs_lock to_lock(const struct flock *fl, uint64_t owner)
{
	return (struct bfs_lock){
		.owner = owner,
		.start = (uint64_t)fl->l_start,
		.end = fl->l_len ? (uint64_t)(fl->l_start + fl->l_len - 1) : INT64_MAX,
		.type = fl->l_type,
		.pid = fl->l_pid,
	};
}

void do_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
	struct bfs_lock l = to_lock(lock, fi->lock_owner);
	int rc = bfs_getlk(req_fuse(req)->fs, ino, &l);
	struct flock out = { .l_type = (short)l.type, .l_whence = SEEK_SET };

	if (rc) {
		fuse_reply_err(req, -rc);
		return;
	}
	if (l.type != F_UNLCK) {
		out.l_start = (off_t)l.start;
		out.l_len = l.end >= INT64_MAX ? 0 : (off_t)(l.end - l.start + 1);
		out.l_pid = l.pid;
	}
	fuse_reply_lock(req, &out);
}

static void wait_for_lock(fuse_req_t req, uint64_t ino, const struct bfs_lock *lock)
{
	struct waiter *w = base_malloc(sizeof(*w));
	int rc = w ? 0 : -ENOLCK;

	if (!rc) {
		*w = (struct waiter){ .req = req, .unique = transport_unique(req), .ino = ino, .lock = *lock };
		rc = reactor_post(req_fuse(req)->side, add_waiter, w);
	}
	if (rc) {
		free(w);
		fuse_reply_err(req, ENOLCK);
	}
}

void do_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep)
{
	struct bfs_fuse *f = req_fuse(req);
	struct bfs_lock l = to_lock(lock, fi->lock_owner);
	int rc = bfs_setlk(f->fs, ino, &l);

	if (rc == -EAGAIN && sleep) {
		wait_for_lock(req, ino, &l);
		return;
	}
	if (!rc && l.type == F_UNLCK)
		locks_changed(f->locks);
	fuse_reply_err(req, -rc);
}
