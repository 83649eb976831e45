/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Truncation. Down: one transaction unmaps what lies behind and lowers the durable size; pages behind are dropped within it, after
 * all that can fail, and once more after it, for what readers brought in meanwhile from the old map. What the device holds
 * in the new last block behind the end is garbage from now on (R9): stale_end says where. There is one such place: an earlier
 * one that a raised size has passed is written home first, once more if that failed before; if it fails again, so do we. Nobody writes the block of the new end back while its
 * page is zeroed there, and then only when the lowering is durable.
 * To the size it has: what was preallocated behind the end goes.
 * Up: the garbage is covered by a dirty page first; then the size is raised, in core and as far as it may in the header.
 */
#include "blobfs/data.h"

struct truncate_state {
	struct bfs_need need;
	struct bfs_walk walk;
	uint64_t page;
	bool covered; /* older garbage was covered for this truncation */
	uint32_t left; /* how often pages were to be written home that had counted on what goes */
};

enum { TRUNCATE_BEGIN, TRUNCATE_TRY, TRUNCATE_HOME, TRUNCATE_FAILED };
enum verdict { LOWER_DONE, LOWER_HOME, LOWER_WAIT };

/* In a transaction, inode->lock held. Sizes in core; what is to be restored if the transaction is cancelled comes back in *old. */
struct sizes {
	uint64_t disk_size, stale_end, data_end, written_end, lowered_lsn, lowered_block;
};

static void sizes_save(struct bfs_inode *inode, struct sizes *old)
{
	old->disk_size = atomic_load(&inode->disk_size);
	old->stale_end = atomic_load(&inode->stale_end);
	old->data_end = atomic_load(&inode->data_end);
	old->written_end = atomic_load(&inode->written_end);
	old->lowered_lsn = atomic_load(&inode->lowered_lsn);
	old->lowered_block = inode->lowered_block;
}

static void sizes_restore(struct bfs_inode *inode, const struct sizes *old)
{
	atomic_store(&inode->disk_size, old->disk_size);
	atomic_store(&inode->stale_end, old->stale_end);
	atomic_store(&inode->data_end, old->data_end);
	atomic_store(&inode->written_end, old->written_end);
	inode->lowered_block = old->lowered_block;
	atomic_store(&inode->lowered_lsn, old->lowered_lsn);
}

/*
 * An older stale block that the size has passed must be written home before a new one comes to be. -EAGAIN: *page first, unless *need
 * says for what else; -EIO: that has failed.
 */
static int settle_older(struct truncate_state *st, struct bfs_inode *inode, uint64_t size, enum bfs_write_need *need)
{
	uint64_t stale = atomic_load(&inode->stale_end);

	if (!(size & (PAGE_SIZE - 1)) || !stale || stale >> PAGE_SHIFT >= size >> PAGE_SHIFT)
		return 0;
	st->page = stale >> PAGE_SHIFT;
	if (bfs_range_is_dirty(inode, st->page, st->page, true))
		return -EAGAIN;
	if (!bfs_holds_garbage(inode, st->page))
		return 0;
	if (st->covered)
		return -EIO;
	*need = bfs_garbage_cover(inode, st->page);
	st->covered = *need == WRITE_DONE;
	return -EAGAIN;
}

/* In the transaction, inode->lock held. -EAGAIN: st->page is in write-back, or must be written first. */
static int lower(struct bs_txn *txn, struct bfs_inode *inode, uint64_t size, struct truncate_state *st)
{
	uint64_t first = div_round_up(size, PAGE_SIZE);
	bool partial = size & (PAGE_SIZE - 1);
	struct sizes old;
	int rc;

	if (st->left < BFS_LEAVE_TRIES && bfs_range_leave(inode, first, UINT64_MAX, &st->page)) {
		st->left++;
		return -EAGAIN;
	}
	rc = bs_txn_unmap(txn, inode->blob, first, UINT64_MAX);
	if (rc)
		return rc;
	sizes_save(inode, &old);
	rc = bfs_inode_put_header(txn, inode, MIN(size, old.disk_size));
	if (rc)
		return rc;
	atomic_store(&inode->data_end, first << PAGE_SHIFT);
	/* Though less may be written: the size is to become durable even if no page below it ever is. */
	atomic_store(&inode->written_end, size);
	if (partial) {
		/* Older garbage in the same block begins where it did, until the block is written. */
		if (!old.stale_end || old.stale_end > size || old.stale_end >> PAGE_SHIFT != size >> PAGE_SHIFT)
			atomic_store(&inode->stale_end, size);
		inode->lowered_block = size >> PAGE_SHIFT;
		atomic_store(&inode->lowered_lsn, UINT64_MAX);
		if (!bfs_page_zero_tail(inode, size)) {
			sizes_restore(inode, &old);
			st->page = size >> PAGE_SHIFT;
			return -EAGAIN;
		}
	} else if (old.stale_end > size) {
		atomic_store(&inode->stale_end, 0);
	}
	atomic_store(&inode->size, size);
	bfs_cache_truncate(inode, first);
	return 0;
}

int bfs_raise_size(struct bs_txn *txn, struct bfs_inode *inode, uint64_t size)
{
	uint64_t disk_size = atomic_load(&inode->disk_size), stale = atomic_load(&inode->stale_end);
	uint64_t page = stale >> PAGE_SHIFT;
	int rc = 0;

	/* Garbage still on the device: the header follows when it is gone. */
	if (!stale || !bfs_range_is_dirty(inode, page, page, true))
		rc = bfs_inode_put_header(txn, inode, size);
	if (rc) {
		atomic_store(&inode->disk_size, disk_size);
		return rc;
	}
	if (atomic_load(&inode->data_end) < size)
		atomic_store(&inode->data_end, round_up(size, PAGE_SIZE));
	atomic_store(&inode->size, size);
	bfs_written_to(inode, size);
	return 0;
}

/* One try, nothing is waited for: 0, or *need says for what; -EAGAIN with need WRITE_DONE: st->page must be written home. */
static int truncate_txn(struct bfs_req *req, struct bs_txn *txn, struct truncate_state *st, enum bfs_write_need *need)
{
	struct bfs_inode *inode = req->inode;
	uint64_t size = req->length, old = atomic_load(&inode->size);
	uint64_t lsn;
	int rc = 0;

	*need = size > old ? bfs_tail_try(inode, &st->page) : WRITE_DONE;
	if (size < old)
		rc = settle_older(st, inode, size, need);
	if (!rc && *need == WRITE_DONE)
		rc = size > old   ? bfs_raise_size(txn, inode, size)
		     : size < old ? lower(txn, inode, size, st)
				  : bs_txn_unmap(txn, inode->blob, div_round_up(size, PAGE_SIZE), UINT64_MAX);
	if (rc || *need != WRITE_DONE) {
		bs_txn_cancel(txn);
		return rc ? rc : -EAGAIN;
	}
	lsn = bs_txn_end(txn);
	bfs_inode_note_lsn(inode, lsn);
	if (size < old) {
		bfs_cache_truncate(inode, div_round_up(size, PAGE_SIZE));
		if (size & (PAGE_SIZE - 1))
			atomic_store(&inode->lowered_lsn, lsn);
	}
	bfs_inode_modified(inode);
	return 0;
}

static enum op_next truncate_try(struct bfs_req *req, struct truncate_state *st)
{
	struct op *op = &req->op_;
	enum bfs_write_need need;
	struct bs_txn *txn;
	int rc, fill_rc;

	bfs_req_home(req);
	rc = bs_txn_try(req->fs->bs, BS_TXN_FREES, &txn);
	if (rc == -EAGAIN) {
		bs_log_wait_room_start(req->fs->bs, op);
		return op_await(op, TRUNCATE_TRY, 0);
	}
	if (rc)
		return op_fail(op, rc);
	pthread_mutex_lock(&req->inode->lock);
	rc = truncate_txn(req, txn, st, &need);
	pthread_mutex_unlock(&req->inode->lock);
	fill_rc = bfs_need_release(&st->need);
	if (!rc)
		return bfs_req_end(req, 0);
	if (rc != -EAGAIN)
		return op_fail(op, rc);
	if (need != WRITE_DONE && fill_rc)
		return op_fail(op, fill_rc);
	if (need != WRITE_DONE)
		return bfs_need_provide(&st->need, req->inode, need, st->page, req, TRUNCATE_TRY);
	bfs_walk_init(&st->walk, req->inode, st->page, st->page, req->ch);
	return op_goto(op, TRUNCATE_HOME);
}

enum op_next bfs_truncate_run(struct op *op)
{
	struct bfs_req *req = bfs_req_of(op);
	struct truncate_state *st = BFS_REQ_STATE(req, struct truncate_state);

	switch (op->step) {
	case TRUNCATE_BEGIN:
		bfs_need_init(&st->need);
		st->covered = false;
		st->left = 0;
		if (req->length > BFS_SIZE_MAX || req->inode->sealed)
			return bfs_req_end(req, req->inode->sealed ? -EROFS : -EFBIG);
		return op_goto(op, TRUNCATE_TRY);
	case TRUNCATE_TRY:
		op->on_error = TRUNCATE_FAILED;
		return truncate_try(req, st);
	case TRUNCATE_HOME:
		op->on_error = TRUNCATE_FAILED;
		return bfs_walk_run(&st->walk, op, TRUNCATE_HOME, TRUNCATE_TRY, true);
	case TRUNCATE_FAILED:
		bfs_need_release(&st->need);
		return bfs_req_end(req, op->rc);
	}
	return op_bug(op);
}
