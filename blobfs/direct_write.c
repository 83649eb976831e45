/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writing past the cache, whole blocks from the caller's memory. What is cached there is written back and dropped first, and what was read
 * again meanwhile is dropped afterwards. A write that raises the size does so when it is published; the garbage of an old
 * last block that it skips (R9) is covered and written home before.
 */
#include "blobfs/data.h"

#define WRITE_UNITS 4u

struct direct_state {
	struct bfs_direct_range range;
	struct bfs_need need;
	struct bfs_walk walk;
	struct bfs_iter from;
	uint64_t pos, end, done; /* pos: all before it is in a unit; done: on the device */
	struct bfs_unit *unit[WRITE_UNITS];
	unsigned n_units;
	uint64_t page;
	bool reclaimed;
};

enum {
	DIRECT_BEGIN,
	DIRECT_TAIL,
	DIRECT_TAIL_HOME,
	DIRECT_TAIL_OVER,
	DIRECT_CLEAN,
	DIRECT_DROP,
	DIRECT_NEXT,
	DIRECT_FAILED
};

/*
 * What gets dirty in the range from here on finds the range, and what is dirty there goes home before this writes: with checksums, this
 * takes unwritten blocks that pages have counted on.
 */
static void enter(struct bfs_req *req, struct direct_state *st)
{
	st->range.first = req->offset >> PAGE_SHIFT;
	st->range.last = (req->offset + req->length - 1) >> PAGE_SHIFT;
	pthread_mutex_lock(&req->inode->pages_lock);
	LIST_INSERT_HEAD(&req->inode->directs, &st->range, link);
	pthread_mutex_unlock(&req->inode->pages_lock);
}

static void leave(struct bfs_req *req, struct direct_state *st)
{
	pthread_mutex_lock(&req->inode->pages_lock);
	LIST_REMOVE(&st->range, link);
	pthread_mutex_unlock(&req->inode->pages_lock);
}

bool bfs_direct_beside(struct bfs_inode *inode, uint64_t page)
{
	const struct bfs_direct_range *r;

	pthread_mutex_lock(&inode->pages_lock);
	LIST_FOREACH(r, &inode->directs, link) {
		if (r->first <= page && page <= r->last)
			break;
	}
	pthread_mutex_unlock(&inode->pages_lock);
	return r != NULL;
}

static void drop_cached(struct bfs_req *req)
{
	pthread_mutex_lock(&req->inode->lock);
	bfs_range_drop(req->inode, req->offset >> PAGE_SHIFT,
		       (req->offset + req->length - 1) >> PAGE_SHIFT, false);
	pthread_mutex_unlock(&req->inode->lock);
}

/* Of whole clusters: a block that moves may leave one in which a page beside it counts on the rest. */
static int clean_begin(struct bfs_req *req, struct direct_state *st)
{
	uint64_t pages = 1ull << req->fs->cache->cluster_shift;

	bfs_walk_init(&st->walk, req->inode, round_down(req->offset >> PAGE_SHIFT, pages), round_up(st->end >> PAGE_SHIFT, pages) - 1,
		      req->ch);
	return DIRECT_CLEAN;
}

static enum op_next tail(struct bfs_req *req, struct direct_state *st)
{
	struct bfs_inode *inode = req->inode;
	enum bfs_write_need need = WRITE_DONE;
	uint64_t size;
	int rc;

	bfs_req_home(req);
	pthread_mutex_lock(&inode->lock);
	size = atomic_load(&inode->size);
	if (st->end > size && req->offset > size)
		need = bfs_tail_try(inode, &st->page);
	pthread_mutex_unlock(&inode->lock);
	rc = bfs_need_release(&st->need);
	if (need != WRITE_DONE && rc)
		return op_fail(&req->op_, rc);
	if (need != WRITE_DONE)
		return bfs_need_provide(&st->need, inode, need, st->page, req, DIRECT_TAIL);
	size >>= PAGE_SHIFT;
	bfs_walk_init(&st->walk, inode, size, size, req->ch);
	if (req->offset >> PAGE_SHIFT > size)
		return op_goto(&req->op_, DIRECT_TAIL_HOME);
	return op_goto(&req->op_, clean_begin(req, st));
}

static struct bfs_unit *gather(struct bfs_req *req, struct direct_state *st)
{
	struct bfs_unit *u = bfs_unit_get(req->inode->fs->cache, UNIT_USER, req->inode);

	if (!u)
		return NULL;
	u->io.op = BS_WRITE;
	u->io.offset = st->pos;
	u->io.stream = (enum bs_stream)atomic_load(&req->file->stream);
	u->io.publish = bfs_publish;
	u->first = st->pos >> PAGE_SHIFT;
	u->extend = true;
	while (st->pos < st->end && u->n < WINDOW_PAGES && u->io.length < BS_IO_MAX) {
		uint8_t *base = bfs_iter_direct(
			&st->from, PAGE_SIZE); /* whole blocks in each iovec: bfs_direct_fits */
		struct iovec *last = u->n ? &u->iov[u->n - 1] : NULL;

		if (last && (uint8_t *)last->iov_base + last->iov_len == base) {
			last->iov_len += PAGE_SIZE;
		} else {
			u->page[u->n] = 0;
			u->iov[u->n].iov_base = base;
			u->iov[u->n].iov_len = PAGE_SIZE;
			u->n++;
		}
		bfs_iter_advance(&st->from, PAGE_SIZE);
		st->pos += PAGE_SIZE;
		u->io.length += PAGE_SIZE;
	}
	return u;
}

/* Ends the units of a round: bytes on the device without a gap, and the first error. */
static int collect(struct bfs_req *req, struct direct_state *st)
{
	int rc = 0;

	for (unsigned i = 0; i < st->n_units; i++) {
		struct bfs_unit *u = st->unit[i];

		rc = rc ? rc : u->rc;
		if (!rc)
			st->done += u->io.length;
		if (!rc)
			atomic_fetch_add_explicit(&u->cache->written_bytes, u->io.length, memory_order_relaxed);
		bfs_inode_note_lsn(req->inode, u->io.lsn);
		bfs_unit_put(u);
	}
	st->n_units = 0;
	return rc;
}

static enum op_next direct_over(struct bfs_req *req, struct direct_state *st, int rc)
{
	bfs_need_release(&st->need);
	leave(req, st);
	req->op_.on_error = OP_NO_STEP;
	drop_cached(req);
	if (!st->done)
		return bfs_req_end(req, rc);
	pthread_mutex_lock(&req->inode->lock);
	bfs_inode_modified(req->inode);
	pthread_mutex_unlock(&req->inode->lock);
	if (req->flags & BFS_IO_DATASYNC)
		return bfs_fsync_after(req, (int64_t)st->done);
	return bfs_req_end(req, (int64_t)st->done);
}

static enum op_next next(struct bfs_req *req, struct direct_state *st)
{
	struct op *op = &req->op_;
	int rc;

	bfs_req_home(req);
	rc = collect(req, st);
	if (rc == -ENOSPC && !st->reclaimed) {
		st->reclaimed = true;
		st->pos = req->offset + st->done;
		bfs_iter_init(&st->from, req->iov, req->iovcnt);
		bfs_iter_advance(&st->from, st->done);
		bfs_inode_retry_deletes(req->fs, false);
		bs_reclaim_start(req->fs->bs, op);
		return op_await(op, DIRECT_NEXT, 0);
	}
	if (rc || st->pos >= st->end)
		return direct_over(req, st, rc);
	while (st->n_units < WRITE_UNITS && st->pos < st->end) {
		struct bfs_unit *u = gather(req, st);

		if (!u)
			break;
		st->unit[st->n_units++] = u;
		bfs_unit_start(u, req->ch, op);
	}
	if (!st->n_units)
		return direct_over(req, st, -ENOMEM);
	return op_await(op, DIRECT_NEXT, 0);
}

static void begin(struct bfs_req *req, struct direct_state *st)
{
	bfs_need_init(&st->need);
	bfs_iter_init(&st->from, req->iov, req->iovcnt);
	st->pos = req->offset;
	st->end = req->offset + req->length;
	st->done = 0;
	st->n_units = 0;
	st->reclaimed = false;
	enter(req, st);
}

enum op_next bfs_write_direct(struct op *op)
{
	struct bfs_req *req = bfs_req_of(op);
	struct direct_state *st = BFS_REQ_STATE(req, struct direct_state);

	if (op->step != DIRECT_FAILED)
		op->on_error = DIRECT_FAILED;
	switch (op->step) {
	case DIRECT_BEGIN:
		begin(req, st);
		return op_goto(op, DIRECT_TAIL);
	case DIRECT_TAIL:
		return tail(req, st);
	case DIRECT_TAIL_HOME:
		return bfs_walk_run(&st->walk, op, DIRECT_TAIL_HOME, DIRECT_TAIL_OVER, true);
	case DIRECT_TAIL_OVER:
		return op_goto(op, clean_begin(req, st));
	case DIRECT_CLEAN:
		return bfs_walk_run(&st->walk, op, DIRECT_CLEAN, DIRECT_DROP, true);
	case DIRECT_DROP:
		drop_cached(req);
		return op_goto(op, DIRECT_NEXT);
	case DIRECT_NEXT:
		return next(req, st);
	case DIRECT_FAILED:
		collect(req, st);
		return direct_over(req, st, op->rc);
	}
	return op_bug(op);
}
