/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests: what is asked is checked and handed to the op that does it. */
#include <fcntl.h>

#include "blobfs/data.h"

enum op_next bfs_req_end(struct bfs_req *req, int64_t result)
{
	req->result = result;
	if (!req->file && req->inode)
		bfs_inode_put(req->inode);
	req->inode = NULL;
	/* A commit has moved it to the log's channel. One that ends before op_start has returned is called back by a poll of its
	 * driver, and nobody need poll that one any more. */
	if (req->op_.done)
		op_move(&req->op_, bdev_channel_driver(req->ch));
	return op_finish(&req->op_);
}

static enum op_next req_failed(struct op *op)
{
	struct bfs_req *req = bfs_req_of(op);

	return bfs_req_end(req, req->result);
}

/* Nothing to do: ends with the result that is there. */
static int check_io(struct bfs_req *req, bool write)
{
	int mode = req->file ? req->file->flags & O_ACCMODE : 0;
	size_t sum = 0;

	if (!req->file || req->iovcnt < 0)
		return -EINVAL;
	if (write ? mode == O_RDONLY : mode == O_WRONLY)
		return -EBADF;
	if (write && (req->fs->opts.flags & BFS_RDONLY || atomic_load(&req->fs->cache->frozen)))
		return -EROFS;
	for (int i = 0; i < req->iovcnt; i++)
		sum += req->iov[i].iov_len;
	req->length = sum;
	if (write && req->file->flags & O_APPEND)
		req->flags |= BFS_IO_APPEND;
	if (write && req->file->flags & (O_SYNC | O_DSYNC))
		req->flags |= BFS_IO_DATASYNC;
	if (req->file->flags & O_DIRECT)
		req->flags |= BFS_IO_DIRECT;
	if (req->flags & BFS_IO_APPEND)
		req->offset = atomic_load(&req->inode->size);
	if (write && (sum > BFS_SIZE_MAX || req->offset > BFS_SIZE_MAX - sum))
		return -EFBIG;
	if (!write && req->offset > BFS_SIZE_MAX)
		return req->offset > INT64_MAX ? -EINVAL : 1;
	return 0;
}

bool bfs_direct_fits(const struct bfs_req *req)
{
	if (req->flags & BFS_IO_APPEND || req->offset & (PAGE_SIZE - 1) ||
	    req->length & (PAGE_SIZE - 1))
		return false;
	for (int i = 0; i < req->iovcnt; i++) {
		if (req->iov[i].iov_len & (PAGE_SIZE - 1))
			return false;
	}
	return true;
}

static op_fn io_fn(struct bfs_req *req, bool write, int *rc)
{
	*rc = check_io(req, write);
	if (*rc || !req->length) {
		*rc = MIN(*rc, 0);
		return req_failed;
	}
	if (write) {
		atomic_store_explicit(
			&req->inode->stream,
			atomic_load_explicit(&req->file->stream, memory_order_relaxed),
			memory_order_relaxed);
		return req->flags & BFS_IO_DIRECT && bfs_direct_fits(req) ? bfs_write_direct
									  : bfs_write_cached;
	}
	bfs_inode_accessed(req->inode);
	return req->flags & (BFS_IO_DIRECT | BFS_IO_NOCACHE) ? bfs_read_uncached : bfs_read_cached;
}

static op_fn req_fn(struct bfs_req *req, int *rc)
{
	*rc = 0;
	switch (req->op) {
	case BFS_REQ_READ:
		return io_fn(req, false, rc);
	case BFS_REQ_WRITE:
		return io_fn(req, true, rc);
	case BFS_REQ_FSYNC:
		return bfs_fsync_run;
	case BFS_REQ_TRUNCATE:
		return bfs_truncate_run;
	case BFS_REQ_FALLOCATE:
		if (req->file && (req->file->flags & O_ACCMODE) != O_RDONLY)
			return bfs_fallocate_run;
		*rc = req->file ? -EBADF : -EINVAL;
		return req_failed;
	case BFS_REQ_SYNC:
		return bfs_sync_run;
	}
	*rc = -EINVAL;
	return req_failed;
}

void bfs_req_start(struct bdev_channel *ch, struct bfs_req *req, op_done_fn done)
{
	op_fn fn = req_failed;
	int rc = 0;

	req->ch = ch;
	req->inode = NULL;
	req->result = 0;
	if (req->ino)
		req->file = NULL; /* the number counts */
	if (req->file)
		req->inode = req->file->inode;
	else if (req->op != BFS_REQ_SYNC)
		rc = bfs_inode_get(req->fs, req->ino, &req->inode);
	if (!rc)
		fn = req_fn(req, &rc);
	else
		req->inode = NULL;
	req->result = rc;
	op_init(&req->op_, "bfs request", fn, bdev_channel_driver(ch), done, req);
	op_start(&req->op_);
}

int64_t bfs_req_sync(struct bfs *fs, struct bfs_req *req)
{
	struct bdev_channel *ch = bdev_channel_borrow(fs->dev);

	req->fs = fs;
	bfs_req_start(ch, req, NULL);
	op_wait(&req->op_);
	bdev_channel_return(ch);
	return req->result;
}
