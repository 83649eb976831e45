/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files: opening, and data. A data request is submitted to the worker's queue and answered by whoever completes it.
 * The bytes of a large WRITE stay where they were received until then.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/dma.h"
#include "base/util.h"
#include "fuse/internal.h"

#define COPY_MAX (32u << 10)   /* smaller payloads are copied: a received buffer is large */
#define RANGE_MAX (64ull << 20) /* of one copy_file_range, so that it can be interrupted */

/* ---- opening ---- */

static struct handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct handle *)(uintptr_t)fi->fh;
}

static void set_open(const struct bfs_fuse *f, struct handle *h, struct fuse_file_info *fi)
{
	fi->fh = (uintptr_t)h;
	fi->keep_cache = f->sole;
	/* Beside a library user every read and write comes here, and sees what is true now. */
	fi->direct_io = !f->sole;
}

void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct bfs_fuse *f = req_fuse(req);
	struct handle *h;
	int rc = handle_open(f, ino, fi->flags, &h);

	if (rc) {
		fuse_reply_err(req, -rc);
		return;
	}
	set_open(f, h, fi);
	if (fuse_reply_open(req, fi))
		handle_close(f, h);
}

/*
 * The kernel asks only when it knows of no such name. If there is one all the same (made by a library user just now),
 * ESTALE makes it look again, and open with the checks that are due.
 */
void do_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct bfs_fuse *f = req_fuse(req);
	struct bfs_cred cred = req_cred(req);
	struct fuse_entry_param e;
	struct bfs_attr attr;
	struct handle *h;
	int rc = bfs_mknod(f->fs, &cred, parent, name, mode, 0, BFS_REF, &attr);

	if (rc) {
		fuse_reply_err(req, rc == -EEXIST && !(fi->flags & O_EXCL) ? ESTALE : -rc);
		return;
	}
	rc = handle_open(f, attr.ino, fi->flags, &h);
	if (rc) {
		bfs_unref(f->fs, attr.ino, 1);
		fuse_reply_err(req, -rc);
		return;
	}
	set_open(f, h, fi);
	fill_entry(f, &attr, &e);
	if (fuse_reply_create(req, &e, fi)) {
		handle_close(f, h);
		bfs_unref(f->fs, attr.ino, 1);
	}
}

void do_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct bfs_fuse *f = req_fuse(req);

	(void)ino;
	handle_close(f, handle_of(fi));
	fuse_reply_err(req, 0);
}

/* Comes with each close(2), only beside a library user: POSIX locks of the closer end. */
void do_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct bfs_fuse *f = req_fuse(req);

	if (f->sole) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	bfs_unlock_all(f->fs, ino, fi->lock_owner);
	locks_changed(f->locks);
	fuse_reply_err(req, 0);
}

/* ---- data requests ---- */

struct data {
	struct bfs_req req;
	fuse_req_t fr;
	struct bfs_fuse *f;
	struct iovec iov;
	uint64_t delayed_ino; /* of a WRITE from the kernel's cache, else 0 */
	void *kept;  /* payload in a buffer of the transport */
	void *owned; /* payload, or where to read to, of our own */
};

static void data_free(struct data *d)
{
	if (d->kept)
		transport_release(d->f->t, d->kept);
	dma_free(d->owned);
	free(d);
}

static void data_done(struct bfs_req *req, void *arg)
{
	struct data *d = arg;

	if (d->delayed_ino && req->result < (int64_t)d->iov.iov_len &&
	    (req->result >= 0 || req->result == -ENOSPC))
		full_note(d->f, d->delayed_ino);
	if (req->result < 0)
		fuse_reply_err(d->fr, (int)-req->result);
	else if (req->op == BFS_REQ_READ)
		fuse_reply_buf(d->fr, d->owned, (size_t)req->result);
	else if (req->op == BFS_REQ_WRITE)
		fuse_reply_write(d->fr, (size_t)req->result);
	else
		fuse_reply_err(d->fr, 0);
	data_free(d);
}

static struct data *data_new(fuse_req_t req, enum bfs_req_op op, const struct fuse_file_info *fi)
{
	struct bfs_fuse *f = req_fuse(req);
	struct data *d = base_calloc(1, sizeof(*d));

	if (!d) {
		fuse_reply_err(req, ENOMEM);
		return NULL;
	}
	d->fr = req;
	d->f = f;
	d->req.op = op;
	d->req.fs = f->fs;
	d->req.file = fi ? handle_of(fi)->file : NULL;
	d->req.done = data_done;
	d->req.arg = d;
	return d;
}

static void data_submit(struct data *d)
{
	struct worker *w = transport_user(d->fr);

	bfs_submit(w->q, &d->req);
}

static void fail(struct data *d, int error)
{
	fuse_reply_err(d->fr, error);
	data_free(d);
}

static void set_buffer(struct data *d, void *base, size_t len)
{
	d->iov = (struct iovec){ base, len };
	d->req.iov = &d->iov;
	d->req.iovcnt = 1;
}

void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct data *d = data_new(req, BFS_REQ_READ, fi);

	(void)ino;
	if (!d)
		return;
	d->owned = dma_alloc(size ? size : 1, 4096);
	if (!d->owned) {
		fail(d, ENOMEM);
		return;
	}
	set_buffer(d, d->owned, size);
	d->req.offset = (uint64_t)off;
	if (fi->flags & O_DIRECT)
		d->req.flags |= BFS_IO_DIRECT;
	/* What the kernel caches need not be cached twice. */
	if (d->f->sole)
		d->req.flags |= BFS_IO_NOCACHE;
	data_submit(d);
}

static int take_payload(struct data *d, const char *buf, size_t size)
{
	if (size > COPY_MAX) {
		d->kept = transport_keep(d->fr);
		set_buffer(d, (void *)buf, size);
		return 0;
	}
	d->owned = dma_alloc(size ? size : 1, 512);
	if (!d->owned)
		return -ENOMEM;
	memcpy(d->owned, buf, size);
	set_buffer(d, d->owned, size);
	return 0;
}

/* Pages from the kernel's cache (writepage) have had their privileges seen to when they were dirtied. */
static int before_write(struct data *d, uint64_t ino, const struct fuse_file_info *fi)
{
	if (!d->f->killpriv || fi->writepage)
		return 0;
	return kill_privileges(d->f, ino, transport_kills_suid(d->fr));
}

void do_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
	      struct fuse_file_info *fi)
{
	struct data *d = data_new(req, BFS_REQ_WRITE, fi);
	int rc;

	if (!d)
		return;
	rc = before_write(d, ino, fi);
	if (!rc)
		rc = take_payload(d, buf, size);
	if (rc) {
		fail(d, -rc);
		return;
	}
	d->req.offset = (uint64_t)off;
	d->delayed_ino = fi->writepage ? ino : 0;
	if (fi->writepage) {
		/* Its times come by SETATTR, which may overtake the data. */
		d->req.flags |= BFS_IO_KEEP_TIMES;
	} else {
		if (fi->flags & O_DIRECT)
			d->req.flags |= BFS_IO_DIRECT;
		if (fi->flags & O_DSYNC)
			d->req.flags |= BFS_IO_DATASYNC;
	}
	/* The kernel's idea of the end may be old; with its writeback cache it is the right one. */
	if (!d->f->sole && (fi->flags & O_APPEND))
		d->req.flags |= BFS_IO_APPEND;
	data_submit(d);
}

void do_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct data *d = data_new(req, BFS_REQ_FSYNC, fi);

	(void)ino;
	if (!d)
		return;
	d->req.flags = datasync ? BFS_IO_DATASYNC : 0;
	data_submit(d);
}

void do_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct data *d = data_new(req, BFS_REQ_FSYNC, NULL);

	(void)fi;
	if (!d)
		return;
	d->req.ino = ino;
	d->req.flags = datasync ? BFS_IO_DATASYNC : 0;
	data_submit(d);
}

void do_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct data *d = data_new(req, BFS_REQ_FALLOCATE, fi);
	int rc = 0;

	if (!d)
		return;
	if (d->f->killpriv)
		rc = kill_privileges(d->f, ino, false);
	if (rc) {
		fail(d, -rc);
		return;
	}
	d->req.mode = mode;
	d->req.offset = (uint64_t)off;
	d->req.length = (uint64_t)len;
	data_submit(d);
}

/* ---- what blocks: the side thread ---- */

struct side_job {
	fuse_req_t fr;
	struct bfs_fuse *f;
	struct bfs_file *file, *to;
	uint64_t ino, off, to_off, len;
	int whence;
};

static void side_run(const struct side_job *job, void (*fn)(void *))
{
	struct side_job *copy = base_malloc(sizeof(*copy));
	int rc = copy ? 0 : -ENOMEM;

	if (atomic_load(&job->f->stopping))
		rc = -ENOTCONN;
	if (!rc) {
		*copy = *job;
		rc = reactor_post(job->f->side, fn, copy);
	}
	if (rc) {
		free(copy);
		fuse_reply_err(job->fr, -rc);
	}
}

static void reply_seek(fuse_req_t req, struct bfs_file *file, uint64_t off, int whence)
{
	int64_t at = bfs_seek(file, off, whence);

	if (at < 0)
		fuse_reply_err(req, (int)-at);
	else
		fuse_reply_lseek(req, at);
}

static void seek_flushed(void *arg)
{
	struct side_job *job = arg;

	/* Dirty pages come as WRITEs to the workers while this waits. -ENOENT: the kernel holds none. */
	transport_invalidate(job->f->t, job->ino);
	reply_seek(job->fr, job->file, job->off, job->whence);
	free(job);
}

/* SEEK_DATA, SEEK_HOLE. The kernel does not write dirty pages to us before it asks; without them data would pass
 * for a hole. */
void do_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct bfs_fuse *f = req_fuse(req);
	struct side_job job = { .fr = req, .f = f, .ino = ino, .off = (uint64_t)off, .whence = whence };

	job.file = handle_of(fi)->file;
	if (f->sole && handles_has_writer(&f->handles, ino))
		side_run(&job, seek_flushed);
	else
		reply_seek(req, job.file, job.off, whence);
}

static void copy_range(void *arg)
{
	struct side_job *job = arg;
	int64_t n = bfs_copy_range(job->file, job->off, job->to, job->to_off, job->len);

	if (n < 0)
		fuse_reply_err(job->fr, (int)-n);
	else
		fuse_reply_write(job->fr, (size_t)n);
	free(job);
}

void do_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
			fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len,
			int flags)
{
	struct bfs_fuse *f = req_fuse(req);
	struct side_job job = { .fr = req, .f = f };
	int rc = 0;

	(void)ino_in;
	if (flags) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	if (f->killpriv)
		rc = kill_privileges(f, ino_out, false);
	if (rc) {
		fuse_reply_err(req, -rc);
		return;
	}
	job.file = handle_of(fi_in)->file;
	job.off = (uint64_t)off_in;
	job.to = handle_of(fi_out)->file;
	job.to_off = (uint64_t)off_out;
	job.len = MIN(len, RANGE_MAX);
	side_run(&job, copy_range);
}
