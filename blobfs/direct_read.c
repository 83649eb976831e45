/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading past the cache: what is cached is copied, the rest goes from the device straight to the caller's memory; blocks
 * that are wanted in part, or whose place is in two iovecs, through a bounce buffer.
 *
 * Only a missing page is read from the device, and garbage beyond the end of the data (R9) lies beyond the size then: who raises
 * the size puts the page that covers it in the cache, dirty, and it stays there until it is on the device.
 */
#include "blobfs/data.h"

#define READ_UNITS 4u

struct uncached_state {
	struct bfs_iter to;
	uint64_t start, pos, end; /* pos: all before it is done or in a unit */
	struct bfs_unit *unit[READ_UNITS];
	unsigned n_units;
	struct bfs_walk walk;
};

static bool page_is_there(struct bfs_inode *inode, uint64_t number)
{
	struct bfs_shard *s = bfs_shard_of(inode->fs->cache, inode->ino, number);
	struct bfs_group *g;
	uint32_t page;
	bool there;

	pthread_mutex_lock(&s->lock);
	page = bfs_page_find(s, inode->ino, number, &g);
	there = page != BFS_NO_PAGE && g->uptodate >> (number & (GROUP_PAGES - 1)) & 1;
	pthread_mutex_unlock(&s->lock);
	return there;
}

static int add_block(struct bfs_unit *u, struct bfs_iter *to, size_t wanted)
{
	uint8_t *direct = wanted == PAGE_SIZE ? bfs_iter_direct(to, PAGE_SIZE) : NULL;
	struct iovec *last = u->n ? &u->iov[u->n - 1] : NULL;

	if (direct && last && !u->page[u->n - 1] &&
	    (uint8_t *)last->iov_base + last->iov_len == direct) {
		last->iov_len += PAGE_SIZE;
	} else {
		void *base = direct ? direct : dma_alloc(PAGE_SIZE, PAGE_SIZE);

		if (!base)
			return -ENOMEM;
		u->page[u->n] = !direct;
		u->iov[u->n].iov_base = base;
		u->iov[u->n].iov_len = PAGE_SIZE;
		u->n++;
	}
	bfs_iter_advance(to, wanted);
	u->io.length += PAGE_SIZE;
	u->to += wanted;
	return 0;
}

/* A unit for what is missing from st->pos on. */
static int gather(struct bfs_req *req, struct uncached_state *st, struct bfs_unit **out)
{
	struct bfs_unit *u = bfs_unit_get(req->inode->fs->cache, UNIT_USER, req->inode);
	int rc = 0;

	if (!u)
		return -ENOMEM;
	u->io.op = BS_READ;
	u->io.offset = round_down(st->pos, PAGE_SIZE);
	u->first = u->io.offset >> PAGE_SHIFT;
	u->at = st->to;
	u->from = u->to = st->pos;
	while (!rc && st->pos < st->end && u->n < WINDOW_PAGES && u->io.length < BS_IO_MAX) {
		size_t wanted = MIN(st->end - st->pos, PAGE_SIZE - (st->pos & (PAGE_SIZE - 1)));

		if (u->n && page_is_there(req->inode, st->pos >> PAGE_SHIFT))
			break;
		rc = add_block(u, &st->to, wanted);
		if (!rc)
			st->pos += wanted;
	}
	if (!u->n) {
		bfs_unit_put(u);
		return rc;
	}
	*out = u; /* a shortage later on only makes it shorter */
	return 0;
}

/* Copies from the bounce buffers of a unit that is over. */
static void unit_copy(struct bfs_unit *u)
{
	uint64_t pos = u->from;

	for (uint32_t i = 0; i < u->n; i++) {
		size_t skip = pos & (PAGE_SIZE - 1);
		size_t len = MIN(u->to - pos, u->iov[i].iov_len - skip);

		if (u->page[i])
			bfs_copy_out(&u->at, (uint8_t *)u->iov[i].iov_base + skip, len);
		else
			bfs_iter_advance(&u->at, len);
		pos += len;
	}
}

/* Ends the units: an error cuts the result short where it happened. */
static int collect(struct uncached_state *st)
{
	int rc = 0;

	for (unsigned i = 0; i < st->n_units; i++) {
		struct bfs_unit *u = st->unit[i];

		if (!rc && u->rc) {
			rc = u->rc;
			st->pos = u->from;
		}
		if (!rc)
			unit_copy(u);
		bfs_unit_put(u);
	}
	st->n_units = 0;
	return rc;
}

static int start_some(struct bfs_req *req, struct uncached_state *st)
{
	while (st->n_units < READ_UNITS && st->pos < st->end) {
		struct bfs_unit *u = NULL;
		int rc;

		st->pos += bfs_read_try(req->inode, st->pos, st->end - st->pos, &st->to, true);
		if (st->pos >= st->end)
			break;
		rc = gather(req, st, &u);
		if (rc)
			return st->n_units ? 0 : rc;
		st->unit[st->n_units++] = u;
		bfs_unit_start(u, req->ch, &req->op_);
	}
	return 0;
}

enum { UNCACHED_BEGIN, UNCACHED_NEXT };

/* Goes on with a read of which `done` bytes are there. */
enum op_next bfs_uncached_from(struct bfs_req *req, uint64_t done)
{
	struct uncached_state *st = BFS_REQ_STATE(req, struct uncached_state);

	bfs_iter_init(&st->to, req->iov, req->iovcnt);
	bfs_iter_advance(&st->to, done);
	st->start = req->offset;
	st->pos = req->offset + done;
	st->end = MAX(st->pos, MIN(req->offset + req->length, atomic_load(&req->inode->size)));
	st->n_units = 0;
	return op_goto(&req->op_, UNCACHED_NEXT);
}

enum op_next bfs_read_uncached(struct op *op)
{
	struct bfs_req *req = bfs_req_of(op);
	struct uncached_state *st = BFS_REQ_STATE(req, struct uncached_state);
	int rc;

	switch (op->step) {
	case UNCACHED_BEGIN:
		return bfs_uncached_from(req, 0);
	case UNCACHED_NEXT:
		rc = collect(st);
		if (!rc && st->pos < st->end)
			rc = start_some(req, st);
		if (!rc && st->n_units)
			return op_await(op, UNCACHED_NEXT, 0);
		return bfs_req_end(req, st->pos > st->start ? (int64_t)(st->pos - st->start) : rc);
	}
	return op_bug(op);
}
