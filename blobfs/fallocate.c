/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fallocate: space for a range, holes, zeroes. What covers part of a block is written as zeroes through the cache; whole blocks are
 * changed in the map, a piece a transaction. A range to be zeroed is first made a hole, which also keeps write-back that is under way
 * from being published there, then given space.
 */
#include <linux/falloc.h>

#include "blobfs/data.h"

#define PIECE_BLOCKS 65536ull

struct fallocate_state {
	struct bfs_need need;
	struct bfs_walk walk;
	struct bfs_write w;      /* zeroes at the edges */
	uint64_t end, pos, last; /* bytes; whole blocks still to be changed: pos … last */
	uint32_t edge;
	bool unmapped;  /* the piece at pos is a hole now */
	uint64_t piece; /* blocks a transaction */
	uint32_t left;  /* how often pages were to be written home that had counted on what goes */
};

enum { FALLOC_BEGIN, FALLOC_EDGE, FALLOC_ZERO, FALLOC_MAP, FALLOC_HOME, FALLOC_FAILED };

static int check(const struct bfs_req *req)
{
	int mode = req->mode & ~FALLOC_FL_KEEP_SIZE;

	if (!req->length || req->length > INT64_MAX || req->offset > INT64_MAX)
		return -EINVAL;
	if (mode && mode != FALLOC_FL_ZERO_RANGE &&
	    !(mode == FALLOC_FL_PUNCH_HOLE && req->mode & FALLOC_FL_KEEP_SIZE))
		return -EOPNOTSUPP;
	if (req->fs->opts.flags & BFS_RDONLY)
		return -EROFS;
	return req->offset + req->length > BFS_SIZE_MAX ? -EFBIG : 0;
}

static bool clears(const struct bfs_req *req)
{
	return req->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
}

static enum op_next begin(struct bfs_req *req, struct fallocate_state *st)
{
	int rc = check(req);

	if (rc)
		return bfs_req_end(req, rc);
	bfs_need_init(&st->need);
	st->end = req->offset + req->length;
	st->edge = 0;
	st->unmapped = false;
	st->piece = PIECE_BLOCKS;
	st->left = 0;
	if (clears(req)) {
		st->pos = round_up(req->offset, PAGE_SIZE);
		st->last = round_down(st->end, PAGE_SIZE);
		return op_goto(&req->op_, FALLOC_EDGE);
	}
	st->pos = round_down(req->offset, PAGE_SIZE);
	st->last = round_up(st->end, PAGE_SIZE);
	return op_goto(&req->op_, FALLOC_MAP);
}

/* The next edge, as a write of zeroes below the size. */
static enum op_next next_edge(struct bfs_req *req, struct fallocate_state *st)
{
	uint64_t from = 0, to = 0;

	switch (st->edge++) {
	case 0:
		from = req->offset;
		to = MIN(st->pos, st->end);
		break;
	case 1:
		from = MAX(st->last, req->offset);
		to = st->last < st->pos ? from : st->end; /* one block: was the first edge */
		break;
	default:
		return op_goto(&req->op_, FALLOC_MAP);
	}
	st->w = (struct bfs_write){
		.inode = req->inode, .offset = from, .left = to - from, .keep_size = true
	};
	return op_goto(&req->op_, FALLOC_ZERO);
}

static enum op_next zero_edge(struct bfs_req *req, struct fallocate_state *st)
{
	enum bfs_write_need need;
	int rc;

	bfs_req_home(req);
	if (!st->w.left)
		return op_goto(&req->op_, FALLOC_EDGE);
	need = bfs_write_try(&st->w);
	rc = bfs_need_release(&st->need);
	if (need == WRITE_DONE)
		return op_goto(&req->op_, FALLOC_ZERO);
	if (rc)
		return op_fail(&req->op_, rc);
	return bfs_need_provide(&st->need, req->inode, need, st->w.page, req, FALLOC_ZERO);
}

/* Is this transaction the one that makes a hole? */
static bool unmaps(const struct bfs_req *req, const struct fallocate_state *st)
{
	return clears(req) && !st->unmapped;
}

static int change_map(struct bfs_req *req, struct fallocate_state *st, struct bs_txn *txn,
		      uint64_t block, uint64_t count)
{
	struct bs_blob *blob = req->inode->blob;

	if (!count)
		return 0;
	if (unmaps(req, st))
		return bs_txn_unmap(txn, blob, block, count);
	return bs_txn_prealloc(txn, blob, block, count,
			       (enum bs_stream)atomic_load(&req->file->stream));
}

/* The dirty pages that would have carried the size with them are gone: it may be published without them. */
static void cover_hole(struct bfs_inode *inode, uint64_t end)
{
	bfs_written_to(inode, end);
	end = MIN(end, round_up(atomic_load(&inode->size), PAGE_SIZE));
	if (atomic_load(&inode->data_end) < end)
		atomic_store(&inode->data_end, end);
}

/* After a transaction: on to the next piece, or to the second half of this one. */
static void piece_done(struct bfs_req *req, struct fallocate_state *st, uint64_t end)
{
	if (unmaps(req, st) && req->mode & FALLOC_FL_ZERO_RANGE && end > st->pos) {
		st->unmapped = true;
		return;
	}
	st->unmapped = false;
	st->pos = MAX(st->pos, end);
}

/* In the transaction, inode->lock held. -EAGAIN and WRITE_DONE: a page beside the piece is to be written home first. */
static int map_piece(struct bfs_req *req, struct fallocate_state *st, struct bs_txn *txn,
		     enum bfs_write_need *need)
{
	struct bfs_inode *inode = req->inode;
	uint64_t end = MIN(st->last, st->pos + (st->piece << PAGE_SHIFT));
	uint64_t first = st->pos >> PAGE_SHIFT,
		 count = end > st->pos ? (end - st->pos) >> PAGE_SHIFT : 0;
	bool drop = unmaps(req, st) && count;
	bool last = end >= st->last && !(drop && req->mode & FALLOC_FL_ZERO_RANGE);
	bool raise = last && !(req->mode & FALLOC_FL_KEEP_SIZE) &&
		     st->end > atomic_load(&inode->size);
	int rc;

	*need = raise ? bfs_tail_try(inode, &st->w.page) : WRITE_DONE;
	if (*need != WRITE_DONE)
		return -EAGAIN;
	if (drop && st->left < BFS_LEAVE_TRIES && bfs_range_leave(inode, first, first + count, &st->w.page)) {
		st->left++;
		return -EAGAIN;
	}
	rc = change_map(req, st, txn, first, count);
	if (!rc && raise)
		rc = bfs_raise_size(txn, inode, st->end);
	if (rc)
		return rc;
	if (drop) {
		bfs_range_drop(inode, first, first + count - 1, true);
		cover_hole(inode, end);
	}
	bfs_inode_note_lsn(inode, bs_txn_end(txn));
	/* Once more: what was read meanwhile by the old map. */
	if (drop)
		bfs_range_drop(inode, first, first + count - 1, true);
	piece_done(req, st, end);
	bfs_inode_modified(inode);
	return 0;
}

static enum op_next map_try(struct bfs_req *req, struct fallocate_state *st)
{
	struct op *op = &req->op_;
	enum bfs_write_need need = WRITE_DONE;
	struct bs_txn *txn;
	int rc, fill_rc;

	bfs_req_home(req);
	rc = bs_txn_try(req->fs->bs, unmaps(req, st) ? BS_TXN_FREES : 0, &txn);
	if (rc == -EAGAIN) {
		bs_log_wait_room_start(req->fs->bs, op);
		return op_await(op, FALLOC_MAP, 0);
	}
	if (rc)
		return op_fail(op, rc);
	pthread_mutex_lock(&req->inode->lock);
	rc = map_piece(req, st, txn, &need);
	if (rc)
		bs_txn_cancel(txn);
	pthread_mutex_unlock(&req->inode->lock);
	fill_rc = bfs_need_release(&st->need);
	/* Space in many places makes a long transaction. */
	if (rc == -E2BIG && st->piece > 1) {
		st->piece /= 2;
		return op_goto(op, FALLOC_MAP);
	}
	if (rc == -ENOSPC)
		need = WRITE_SPACE;
	else if (rc && rc != -EAGAIN)
		return op_fail(op, rc);
	if (rc && fill_rc)
		return op_fail(op, fill_rc);
	if (rc && need == WRITE_DONE) {
		bfs_walk_init(&st->walk, req->inode, st->w.page, st->w.page, req->ch);
		return op_goto(op, FALLOC_HOME);
	}
	if (rc)
		return bfs_need_provide(&st->need, req->inode, need, st->w.page, req, FALLOC_MAP);
	if (st->pos < st->last || st->unmapped)
		return op_goto(op, FALLOC_MAP);
	return bfs_req_end(req, 0);
}

enum op_next bfs_fallocate_run(struct op *op)
{
	struct bfs_req *req = bfs_req_of(op);
	struct fallocate_state *st = BFS_REQ_STATE(req, struct fallocate_state);

	if (op->step != FALLOC_BEGIN && op->step != FALLOC_FAILED)
		op->on_error = FALLOC_FAILED;
	switch (op->step) {
	case FALLOC_BEGIN:
		return begin(req, st);
	case FALLOC_EDGE:
		return next_edge(req, st);
	case FALLOC_ZERO:
		return zero_edge(req, st);
	case FALLOC_MAP:
		return map_try(req, st);
	case FALLOC_HOME:
		return bfs_walk_run(&st->walk, op, FALLOC_HOME, FALLOC_MAP, true);
	case FALLOC_FAILED:
		bfs_need_release(&st->need);
		return bfs_req_end(req, op->rc);
	}
	return op_bug(op);
}
