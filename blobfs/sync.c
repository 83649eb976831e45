/* SPDX-License-Identifier: BSD-2-Clause */
/* Every synchronous call on data: what needs no waiting is done at once, the rest as a request on a borrowed channel. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blobfs/share.h"

#define COPY_BYTES (256u * 1024)

int64_t bfs_pread(struct bfs_file *file, void *buf, size_t len, uint64_t offset)
{
	struct bfs_inode *inode = file->inode;
	uint64_t size = atomic_load_explicit(&inode->size, memory_order_acquire), end;
	struct iovec iov = { buf, len };
	struct bfs_iter to;
	struct bfs_req req;
	size_t done = 0;
	int64_t rc;

	if ((file->flags & O_ACCMODE) == O_WRONLY)
		return -EBADF;
	if (offset > INT64_MAX)
		return -EINVAL;
	end = offset < size ? offset + MIN(len, size - offset) : offset;
	if (end == offset)
		return 0;
	bfs_iter_init(&to, &iov, 1);
	if (!(file->flags & O_DIRECT)) {
		done = bfs_read_try(inode, offset, end - offset, &to,
				    bfs_ra_continues(file, offset));
		bfs_readahead(file, offset, end - offset, offset + done < end);
	}
	if (offset + done >= end) {
		bfs_inode_accessed(inode);
		return (int64_t)done;
	}
	iov.iov_base = (uint8_t *)buf + done;
	iov.iov_len = end - offset - done;
	req = (struct bfs_req){
		.op = BFS_REQ_READ, .file = file, .offset = offset + done, .iov = &iov, .iovcnt = 1
	};
	rc = bfs_req_sync(inode->fs, &req);
	if (rc < 0)
		return done ? (int64_t)done : rc;
	return (int64_t)done + rc;
}

/* What the cache takes at once, without a channel; the rest is left in w. */
static bool write_at_once(struct bfs_file *file, struct bfs_write *w)
{
	struct bfs_inode *inode = file->inode;
	struct bfs_cache *c = inode->fs->cache;
	enum bfs_write_need need;

	if (file->flags & (O_DIRECT | O_SYNC | O_DSYNC) || bfs_wb_over_limit(c, 1))
		return false;
	atomic_store_explicit(&inode->stream,
			      atomic_load_explicit(&file->stream, memory_order_relaxed),
			      memory_order_relaxed);
	need = bfs_write_try(w);
	if (bfs_wb_over_limit(c, 2))
		bfs_wb_kick(inode->fs);
	return need == WRITE_DONE && !w->left;
}

static int64_t write_file(struct bfs_file *file, const void *buf, size_t len, uint64_t offset,
			  bool append)
{
	struct iovec iov = { (void *)(uintptr_t)buf, len };
	struct bfs_write w = {
		.inode = file->inode, .offset = offset, .left = len, .append = append
	};
	struct bfs_req req;
	int64_t rc;

	if ((file->flags & O_ACCMODE) == O_RDONLY)
		return -EBADF;
	if (file->inode->fs->opts.flags & BFS_RDONLY ||
	    atomic_load(&file->inode->fs->cache->frozen))
		return -EROFS;
	if (append)
		offset = atomic_load(&file->inode->size);
	if (offset > INT64_MAX)
		return -EINVAL;
	if (len > BFS_SIZE_MAX || offset > BFS_SIZE_MAX - len)
		return -EFBIG;
	if (!len)
		return 0;
	bfs_iter_init(&w.from, &iov, 1);
	if (write_at_once(file, &w))
		return (int64_t)w.done;
	iov.iov_base = (uint8_t *)(uintptr_t)buf + w.done;
	iov.iov_len = len - w.done;
	req = (struct bfs_req){
		.op = BFS_REQ_WRITE,
		.flags = append ? BFS_IO_APPEND : 0,
		.file = file,
		.offset = offset + w.done,
		.iov = &iov,
		.iovcnt = 1,
	};
	rc = bfs_req_sync(file->inode->fs, &req);
	if (rc < 0)
		return w.done ? (int64_t)w.done : rc;
	return (int64_t)w.done + rc;
}

int64_t bfs_pwrite(struct bfs_file *file, const void *buf, size_t len, uint64_t offset)
{
	return write_file(file, buf, len, offset, file->flags & O_APPEND);
}

int64_t bfs_append(struct bfs_file *file, const void *buf, size_t len)
{
	return write_file(file, buf, len, 0, true);
}

/* ---- many reads: all begin before the first is waited for ---- */

struct many {
	struct bfs_req req;
	struct iovec iov;
};

static int read_serially(struct bfs_file *file, struct bfs_read *reads, size_t n)
{
	for (size_t i = 0; i < n; i++)
		reads[i].result = bfs_pread(file, reads[i].buf, reads[i].len, reads[i].offset);
	return 0;
}

int bfs_read_many(struct bfs_file *file, struct bfs_read *reads, size_t n)
{
	struct bfs *fs = file->inode->fs;
	struct many *many = n > 1 ? base_calloc(n, sizeof(*many)) : NULL;
	struct bdev_channel *ch;

	if (!many) /* short of memory: one after the other */
		return read_serially(file, reads, n);
	ch = bdev_channel_borrow(fs->dev);
	for (size_t i = 0; i < n; i++) {
		struct many *m = &many[i];

		m->iov = (struct iovec){ reads[i].buf, reads[i].len };
		m->req = (struct bfs_req){
			.op = BFS_REQ_READ,
			.fs = fs,
			.file = file,
			.offset = reads[i].offset,
			.iov = &m->iov,
			.iovcnt = 1,
		};
		bfs_req_start(ch, &m->req, NULL);
	}
	for (size_t i = 0; i < n; i++) {
		op_wait(&many[i].req.op_);
		reads[i].result = many[i].req.result;
	}
	bdev_channel_return(ch);
	free(many);
	return 0;
}

/* ---- durability ---- */

int bfs_fsync(struct bfs_file *file, bool datasync)
{
	struct bfs_req req = { .op = BFS_REQ_FSYNC,
			       .file = file,
			       .flags = datasync ? BFS_IO_DATASYNC : 0 };

	return (int)bfs_req_sync(file->inode->fs, &req);
}

int bfs_fsync_ino(struct bfs *fs, uint64_t ino, bool datasync)
{
	struct bfs_req req = { .op = BFS_REQ_FSYNC,
			       .ino = ino,
			       .flags = datasync ? BFS_IO_DATASYNC : 0 };

	return ino ? (int)bfs_req_sync(fs, &req) : -ENOENT;
}

int bfs_sync(struct bfs *fs)
{
	struct bfs_req req = { .op = BFS_REQ_SYNC };

	return (int)bfs_req_sync(fs, &req);
}

struct range_sync {
	struct op op;
	struct bfs_walk walk;
};

static enum op_next range_run(struct op *op)
{
	struct range_sync *r = container_of(op, struct range_sync, op);

	switch (op->step) {
	case 0:
		return bfs_walk_run(&r->walk, op, 0, 1, true);
	case 1:
		return op_finish(op);
	}
	return op_bug(op);
}

/* On the service's channel, whose thread sees them through. What has to wait for a commit first is left to write-behind. */
static int range_start(struct bfs_inode *inode, uint64_t first, uint64_t last)
{
	struct bdev_channel *ch = bs_service_channel(inode->fs->bs);
	struct bfs_unit *u;
	int rc;

	while (!(rc = bfs_wb_gather(inode, &first, last, ch, &u)) && u)
		bfs_unit_start(u, ch, NULL);
	bdev_kick(ch);
	return rc == -EAGAIN ? 0 : rc;
}

static int range_run_whole(struct bfs_inode *inode, uint64_t first, uint64_t last)
{
	struct bdev_channel *ch = bdev_channel_borrow(inode->fs->dev);
	struct range_sync r;
	int rc;

	bfs_walk_init(&r.walk, inode, first, last, ch);
	op_init(&r.op, "bfs sync range", range_run, bdev_channel_driver(ch), NULL, NULL);
	op_start(&r.op);
	rc = op_wait(&r.op);
	bdev_channel_return(ch);
	return rc;
}

int bfs_sync_range(struct bfs_file *file, uint64_t offset, uint64_t length, bool wait)
{
	struct bfs_inode *inode = file->inode;
	uint64_t first = offset >> PAGE_SHIFT;
	uint64_t last = length && length <= BFS_SIZE_MAX - MIN(offset, BFS_SIZE_MAX)
				? (offset + length - 1) >> PAGE_SHIFT
				: BFS_SIZE_MAX >> PAGE_SHIFT;

	if (wait || !bs_service_channel(inode->fs->bs))
		return range_run_whole(inode, first, last);
	return range_start(inode, first, last);
}

/* ---- sizes, space ---- */

int bfs_truncate(struct bfs *fs, const struct bfs_cred *cred, uint64_t ino, uint64_t size)
{
	struct bfs_req req = { .op = BFS_REQ_TRUNCATE, .ino = ino, .length = size };
	struct bfs_inode *inode;
	int rc;

	if (fs->opts.flags & BFS_RDONLY)
		return -EROFS;
	rc = bfs_inode_get(fs, ino, &inode);
	if (rc)
		return rc;
	if (!S_ISREG(inode->mode))
		rc = S_ISDIR(inode->mode) ? -EISDIR : -EINVAL;
	else if (cred)
		rc = bfs_cred_check(cred, inode, W_OK);
	bfs_inode_put(inode);
	return rc ? rc : (int)bfs_req_sync(fs, &req);
}

int bfs_fallocate(struct bfs_file *file, int mode, uint64_t offset, uint64_t length)
{
	struct bfs_req req = {
		.op = BFS_REQ_FALLOCATE,
		.file = file,
		.mode = mode,
		.offset = offset,
		.length = length,
	};

	return (int)bfs_req_sync(file->inode->fs, &req);
}

/* How many, or an error if it is none. */
static int64_t copy_bytes(struct bfs_file *in, uint64_t in_off, struct bfs_file *out, uint64_t out_off, uint64_t len,
			  void *buf)
{
	uint64_t done = 0;
	int64_t rc = 0;

	while (done < len) {
		size_t n = MIN(len - done, COPY_BYTES);

		rc = bfs_pread(in, buf, n, in_off + done);
		if (rc > 0)
			rc = bfs_pwrite(out, buf, (size_t)rc, out_off + done);
		if (rc <= 0)
			break;
		done += (uint64_t)rc;
	}
	return done ? (int64_t)done : rc;
}

int64_t bfs_copy_range(struct bfs_file *in, uint64_t in_off, struct bfs_file *out, uint64_t out_off,
		       uint64_t len)
{
	uint64_t done = 0;
	int64_t rc = 0;
	void *buf;

	if (in->inode->fs != out->inode->fs)
		return -EXDEV;
	if (in_off > BFS_SIZE_MAX || out_off > BFS_SIZE_MAX)
		return -EFBIG;
	len = MIN(len, BFS_SIZE_MAX - MAX(in_off, out_off));
	if (in->inode == out->inode && in_off < out_off + len && out_off < in_off + len)
		return -EINVAL;
	if ((in->flags & O_ACCMODE) == O_WRONLY || (out->flags & O_ACCMODE) == O_RDONLY)
		return -EBADF;
	buf = dma_alloc(COPY_BYTES, PAGE_SIZE);
	if (!buf)
		return -ENOMEM;
	/* Up to a block's beginning, if both come to one together; then whole blocks without copying; then the rest. */
	if ((in_off & (PAGE_SIZE - 1)) == (out_off & (PAGE_SIZE - 1)) && !(out->flags & O_APPEND)) {
		uint64_t head = MIN(len, round_up(in_off, PAGE_SIZE) - in_off);

		rc = copy_bytes(in, in_off, out, out_off, head, buf);
		done = rc > 0 ? (uint64_t)rc : 0;
		if (done == head)
			done += bfs_reflink(in->inode, in_off + done, out->inode, out_off + done, len - done);
	}
	if (rc >= 0)
		rc = copy_bytes(in, in_off + done, out, out_off + done, len - done, buf);
	if (rc > 0)
		done += (uint64_t)rc;
	dma_free(buf);
	return done ? (int64_t)done : rc;
}
