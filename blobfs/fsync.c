/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fsync: little goes into the log with its bytes (carry.c). Else write-back of the file's pages, all of it awaited, and the header. Then a
 * commit of everything so far.
 */
#include <sys/stat.h>

#include "blobfs/data.h"

#define SMALL_PAGES 16u

struct fsync_state {
	struct bfs_walk walk;
	struct bfs_need need;
	int64_t result;
};

enum { FSYNC_BEGIN, FSYNC_CARRY, FSYNC_WALK, FSYNC_SETTLE, FSYNC_COMMITTED, FSYNC_FAILED };

/* A write-back error, once to each open file, and once to those who sync by number. */
static int take_error(struct bfs_req *req)
{
	struct bfs_inode *inode = req->inode;
	uint32_t seq = atomic_load(&inode->wb_error_seq);
	_Atomic uint32_t *seen = req->file ? &req->file->wb_error_seen : &inode->wb_error_seen;

	if (atomic_exchange(seen, seq) == seq)
		return 0;
	atomic_store(&inode->wb_error_told, seq);
	return atomic_load(&inode->wb_error);
}

/* Where the log does not carry it, little data is made durable as it is written, which takes one round trip less than a flush by the commit. */
static void begin_walk(struct bfs_req *req, struct bfs_walk *walk)
{
	uint64_t size = S_ISREG(req->inode->mode) ? atomic_load(&req->inode->size) : 0;

	bfs_walk_init(walk, req->inode, 0, size >> PAGE_SHIFT, req->ch);
	walk->durable = atomic_load(&req->inode->n_dirty) <= SMALL_PAGES &&
			bs_durable_pays(req->inode->fs->bs);
}

static enum op_next commit(struct bfs_req *req)
{
	bs_commit_start(req->fs->bs, 0, &req->op_);
	return op_await(&req->op_, FSYNC_COMMITTED, 0);
}

static enum op_next carry(struct bfs_req *req, struct fsync_state *st)
{
	struct op *op = &req->op_;
	enum bfs_write_need need;
	int rc = -EBUSY, fill_rc;
	uint64_t page;

	bfs_req_home(req);
	op->on_error = FSYNC_FAILED;
	need = bfs_tail_cover(req->inode, &page);
	fill_rc = bfs_need_release(&st->need);
	if (!fill_rc && (need == WRITE_FILL || need == WRITE_WAIT))
		return bfs_need_provide(&st->need, req->inode, need, page, req, FSYNC_CARRY);
	if (S_ISREG(req->inode->mode) && !(req->fs->opts.flags & BFS_RDONLY))
		rc = bfs_carry(req->inode, req->flags & BFS_IO_DATASYNC);
	if (rc == -EAGAIN) {
		bs_log_wait_room_start(req->fs->bs, op);
		return op_await(op, FSYNC_CARRY, 0);
	}
	if (rc == -EROFS)
		return op_fail(op, rc);
	if (!rc)
		return commit(req);
	begin_walk(req, &st->walk);
	return op_goto(op, FSYNC_WALK);
}

static enum op_next settle(struct bfs_req *req)
{
	struct op *op = &req->op_;
	int rc;

	bfs_req_home(req);
	rc = req->fs->opts.flags & BFS_RDONLY
		     ? 0
		     : bfs_inode_settle(req->inode, req->flags & BFS_IO_DATASYNC);
	if (rc == -EAGAIN) {
		bs_log_wait_room_start(req->fs->bs, op);
		return op_await(op, FSYNC_SETTLE, 0);
	}
	return rc ? op_fail(op, rc) : commit(req);
}

static enum op_next fsync_over(struct bfs_req *req, int64_t result, int rc)
{
	struct fsync_state *st = BFS_REQ_STATE(req, struct fsync_state);
	int error = take_error(req);

	bfs_need_release(&st->need);
	if (rc == -EROFS && !(req->fs->opts.flags & BFS_RDONLY))
		atomic_store(&req->fs->cache->frozen, true);
	pthread_mutex_lock(&req->inode->lock);
	/* The size could not become durable: an error each time. */
	if (!rc && bfs_tail_is_bare(req->inode))
		rc = -EIO;
	bfs_inode_unmark_dirty(req->inode);
	pthread_mutex_unlock(&req->inode->lock);
	if (error)
		rc = error;
	return bfs_req_end(req, rc ? rc : result);
}

enum op_next bfs_fsync_run(struct op *op)
{
	struct bfs_req *req = bfs_req_of(op);
	struct fsync_state *st = BFS_REQ_STATE(req, struct fsync_state);

	switch (op->step) {
	case FSYNC_BEGIN:
		st->result = 0;
		bfs_need_init(&st->need);
		return op_goto(op, FSYNC_CARRY);
	case FSYNC_CARRY:
		return carry(req, st);
	case FSYNC_WALK:
		return bfs_walk_run(&st->walk, op, FSYNC_WALK, FSYNC_SETTLE, true);
	case FSYNC_SETTLE:
		return settle(req);
	case FSYNC_COMMITTED:
		return fsync_over(req, st->result, 0);
	case FSYNC_FAILED:
		return fsync_over(req, st->result, op->rc);
	}
	return op_bug(op);
}

enum op_next bfs_fsync_after(struct bfs_req *req, int64_t result)
{
	struct fsync_state *st = BFS_REQ_STATE(req, struct fsync_state);

	st->result = result;
	bfs_need_init(&st->need);
	req->op_.fn = bfs_fsync_run;
	req->op_.on_error = FSYNC_FAILED;
	return op_goto(&req->op_, FSYNC_CARRY);
}
