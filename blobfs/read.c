/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading through the cache. */
#include "blobfs/data.h"

#define READ_UNITS 4u
#define YOUNG_PAGES 8u  /* a miss reads them all, as long as the cache is young */
#define PAGES_A_LOCK 4u /* copied with a shard locked once */

/* ---- what is there ---- */

/* Shard locked: copies from one page; false: it is not there. */
static bool copy_page(struct bfs_cache *c, struct bfs_shard *s, struct bfs_inode *inode,
		      uint64_t pos, size_t len, struct bfs_iter *to, bool sequential)
{
	struct bfs_group *g;
	uint32_t page = bfs_page_find(s, inode->ino, pos >> PAGE_SHIFT, &g);
	uint32_t in_page = pos & (PAGE_SIZE - 1);

	if (page == BFS_NO_PAGE || !(g->uptodate >> (pos >> PAGE_SHIFT & (GROUP_PAGES - 1)) & 1))
		return false;
	/* The rest of a page that is read in small steps is no new interest in it. */
	if (!in_page || !sequential)
		bfs_queue_touch(c, page);
	bfs_copy_out(to, bfs_page_data(c, page) + in_page, len);
	s->hits++;
	return true;
}

size_t bfs_read_try(struct bfs_inode *inode, uint64_t offset, size_t len, struct bfs_iter *to,
		    bool sequential)
{
	struct bfs_cache *c = inode->fs->cache;
	size_t done = 0;
	bool there = true;

	while (there && done < len) {
		uint64_t window = (offset + done) >> (PAGE_SHIFT + WINDOW_SHIFT);
		struct bfs_shard *s = bfs_shard_of(c, inode->ino, (offset + done) >> PAGE_SHIFT);

		pthread_mutex_lock(&s->lock);
		for (unsigned i = 0; i < PAGES_A_LOCK && done < len; i++) {
			uint64_t pos = offset + done;
			size_t n = MIN(len - done, PAGE_SIZE - (pos & (PAGE_SIZE - 1)));

			if (pos >> (PAGE_SHIFT + WINDOW_SHIFT) != window)
				break;
			there = copy_page(c, s, inode, pos, n, to, sequential);
			if (!there)
				break;
			done += n;
		}
		pthread_mutex_unlock(&s->lock);
	}
	return done;
}

/* ---- the request ---- */

struct read_state {
	struct bfs_iter to;
	uint64_t pos, end;
	struct bfs_unit *unit[READ_UNITS];
	unsigned n_units;
	struct bfs_waiter waiter;
};

/* While the cache has memory to spare, a miss brings its neighbours: they cost the device little more, and the cache is warm sooner. */
static void read_around(struct bfs_req *req, uint64_t *page, uint64_t *last)
{
	uint64_t size = atomic_load_explicit(&req->inode->size, memory_order_relaxed);

	if (!size || !bfs_cache_is_young(req->inode->fs->cache))
		return;
	*page = round_down(*page, YOUNG_PAGES);
	*last = MAX(*last, MIN(*last | (YOUNG_PAGES - 1), (size - 1) >> PAGE_SHIFT));
}

/* Starts reading what is missing; 1: something was started, 0: the first page is there or coming, -EBUSY: no page is free. */
static int fill_start(struct bfs_req *req, struct read_state *st)
{
	uint64_t page = st->pos >> PAGE_SHIFT, last = (bfs_ra_end(req, st->end) - 1) >> PAGE_SHIFT;
	int rc = 0;

	read_around(req, &page, &last);
	while (st->n_units < READ_UNITS && page <= last) {
		struct bfs_unit *u;

		rc = bfs_fill_gather(req->inode, page, last, req->ch, &u);
		if (rc)
			break;
		page++;
		if (!u)
			continue;
		u->keep = true;
		page = u->first + u->n;
		st->unit[st->n_units++] = u;
		bfs_unit_start(u, req->ch, &req->op_);
	}
	return st->n_units ? 1 : rc;
}

/* Waits for a page that somebody else reads; false: nobody does. */
static bool page_wait(struct bfs_req *req, struct read_state *st)
{
	struct bfs_inode *inode = req->inode;
	struct bfs_cache *c = inode->fs->cache;
	uint64_t number = st->pos >> PAGE_SHIFT;
	struct bfs_shard *s = bfs_shard_of(c, inode->ino, number);
	struct bfs_group *g;
	uint32_t page;
	bool wait;

	pthread_mutex_lock(&s->lock);
	page = bfs_page_find(s, inode->ino, number, &g);
	wait = page != BFS_NO_PAGE && !(g->uptodate >> (number & (GROUP_PAGES - 1)) & 1);
	if (wait)
		bfs_page_wait(c, page, &st->waiter, &req->op_);
	pthread_mutex_unlock(&s->lock);
	return wait;
}

/* Copies, then lets the pages go that were read for it. First error of theirs. */
static int copy_some(struct bfs_req *req, struct read_state *st)
{
	uint64_t size = atomic_load(&req->inode->size);
	int rc = 0;

	st->end = MAX(st->pos, MIN(st->end, size));
	st->pos += bfs_read_try(req->inode, st->pos, st->end - st->pos, &st->to, true);
	for (unsigned i = 0; i < st->n_units; i++) {
		if (!rc)
			rc = st->unit[i]->rc;
		bfs_unit_put(st->unit[i]);
	}
	st->n_units = 0;
	return rc;
}

enum { READ_BEGIN, READ_COPY };

enum op_next bfs_read_cached(struct op *op)
{
	struct bfs_req *req = bfs_req_of(op);
	struct read_state *st = BFS_REQ_STATE(req, struct read_state);
	int rc;

	switch (op->step) {
	case READ_BEGIN:
		if (op->done) /* synchronous calls have done it */
			bfs_readahead(req->file, req->offset, req->length, true);
		bfs_iter_init(&st->to, req->iov, req->iovcnt);
		st->pos = req->offset;
		st->end = req->offset + req->length;
		st->n_units = 0;
		return op_goto(op, READ_COPY);
	case READ_COPY:
		bfs_req_home(req);
		rc = copy_some(req, st);
		if (st->pos >= st->end || rc)
			return bfs_req_end(
				req, st->pos > req->offset ? (int64_t)(st->pos - req->offset) : rc);
		rc = fill_start(req, st);
		if (rc > 0 || (!rc && page_wait(req, st)))
			return op_await(op, READ_COPY, 0);
		if (!rc)
			return op_goto(op, READ_COPY);
		if (rc == -EBUSY) { /* everything is pinned or dirty: past the cache, then */
			uint64_t done = st->pos - req->offset;

			op->fn = bfs_read_uncached;
			return bfs_uncached_from(req, done);
		}
		return bfs_req_end(req,
				   st->pos > req->offset ? (int64_t)(st->pos - req->offset) : rc);
	}
	return op_bug(op);
}
