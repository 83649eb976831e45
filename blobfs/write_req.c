/* SPDX-License-Identifier: BSD-2-Clause */
/* Write requests through the cache: try, see to what is missing, try again. */
#include "blobfs/data.h"

struct write_state {
	struct bfs_write w;
	struct bfs_need need;
};

enum { WRITE_BEGIN, WRITE_TRY, WRITE_FAILED };

/* All was written, or what there was room for. */
static enum op_next write_over(struct bfs_req *req, struct write_state *st, int rc)
{
	bfs_need_release(&st->need);
	req->op_.on_error = OP_NO_STEP;
	if (st->w.done)
		rc = 0;
	if (req->flags & BFS_IO_APPEND)
		req->offset = st->w.offset - st->w.done;
	if (rc || !(req->flags & BFS_IO_DATASYNC))
		return bfs_req_end(req, rc ? rc : (int64_t)st->w.done);
	return bfs_fsync_after(req, (int64_t)st->w.done);
}

static enum op_next write_try(struct bfs_req *req, struct write_state *st)
{
	uint64_t before = st->w.done;
	enum bfs_write_need need;
	int rc;

	bfs_req_home(req);
	if (bfs_wb_over_limit(req->inode->fs->cache, 1) &&
	    bfs_need_throttle(&st->need, req->inode, req))
		return op_await(&req->op_, WRITE_TRY, 0);
	need = bfs_write_try(&st->w);
	rc = bfs_need_release(&st->need);
	if (bfs_wb_over_limit(req->inode->fs->cache, 2))
		bfs_wb_kick(req->inode->fs);
	if (st->w.done != before)
		st->need.reclaimed = st->need.walking = false;
	if (need == WRITE_DONE && st->w.left)
		return op_goto(&req->op_, WRITE_TRY);
	if (need == WRITE_DONE)
		return write_over(req, st, 0);
	if (rc && need == WRITE_FILL)
		return write_over(req, st, rc);
	return bfs_need_provide(&st->need, req->inode, need, st->w.page, req, WRITE_TRY);
}

enum op_next bfs_write_cached(struct op *op)
{
	struct bfs_req *req = bfs_req_of(op);
	struct write_state *st = BFS_REQ_STATE(req, struct write_state);

	switch (op->step) {
	case WRITE_BEGIN:
		st->w = (struct bfs_write){
			.inode = req->inode,
			.offset = req->offset,
			.keep_times = req->flags & BFS_IO_KEEP_TIMES,
			.left = req->length,
			.append = req->flags & BFS_IO_APPEND,
		};
		bfs_iter_init(&st->w.from, req->iov, req->iovcnt);
		bfs_need_init(&st->need);
		return op_goto(op, WRITE_TRY);
	case WRITE_TRY:
		op->on_error = WRITE_FAILED;
		return write_try(req, st);
	case WRITE_FAILED:
		return write_over(req, st, op->rc);
	}
	return op_bug(op);
}
