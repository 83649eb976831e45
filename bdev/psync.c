/* SPDX-License-Identifier: BSD-2-Clause */
/* psync: files and block devices by threads that call pread, pwrite and fdatasync, where io_uring
 * is not to be had. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bdev/file.h"

struct psync {
	struct file f; /* first, for file.c */
};

static int read_write(struct file *f, struct bdev_io *io)
{
	bool write = io->op == BDEV_WRITE;
	int flags = write && io->opts.flags & BDEV_FUA ? RWF_DSYNC : 0;
	const struct iovec *iov = io->iov;
	struct iovec rest;
	int iovcnt = io->iovcnt;

	io->module_data[0] = 0;
	while (io->module_data[0] < io->length) {
		off_t at = (off_t)(io->offset + io->module_data[0]);
		ssize_t n = write ? pwritev2(f->fd, iov, iovcnt, at, flags)
				  : preadv2(f->fd, iov, iovcnt, at, 0);

		if (n < 0 && errno == EINTR)
			continue;
		/* Nothing at all: the file has become shorter behind our back. */
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		io->module_data[0] += (size_t)n;
		if (io->module_data[0] < io->length) {
			file_remainder(io);
			rest.iov_base = (void *)(uintptr_t)io->module_data[2];
			rest.iov_len = io->module_data[3];
			iov = &rest;
			iovcnt = 1;
		}
	}
	return 0;
}

static int run(struct bdev_io *io)
{
	struct psync *p = io->ch->dev->priv;

	switch (io->op) {
	case BDEV_READ:
	case BDEV_WRITE:
		return read_write(&p->f, io);
	case BDEV_FLUSH:
		return fdatasync(p->f.fd) ? -errno : 0;
	case BDEV_DISCARD:
	case BDEV_WRITE_ZEROES:
		return file_trim(&p->f, io);
	}
	return -EINVAL;
}

static int psync_open(struct bdev *dev, const struct bdev_opts *opts, struct base_err *err)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	struct psync *p = base_calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return base_err_set(err, -ENOMEM, "%s: out of memory", dev->name);
	rc = file_open(dev, opts, &p->f, err);
	if (!rc) {
		rc = workers_create((unsigned)MIN(MAX(4 * cores, 8l), 32l), run, &p->f.workers);
		if (rc) {
			base_err_set(err, rc, "%s: cannot make a thread: %s", dev->name,
				     strerror(-rc));
			file_close(&p->f);
		}
	}
	if (rc) {
		free(p);
		return rc;
	}
	dev->info.max_channels = BDEV_MAX_CHANNELS;
	dev->priv = p;
	return 0;
}

static void psync_close(struct bdev *dev)
{
	struct psync *p = dev->priv;

	workers_destroy(p->f.workers);
	file_close(&p->f);
	free(p);
}

static void psync_forked(struct bdev *dev)
{
	struct psync *p = dev->priv;

	close(p->f.fd);
}

static int psync_channel_create(struct bdev_channel *ch)
{
	struct bell *b = base_calloc(1, sizeof(*b));
	int rc;

	if (!b)
		return -ENOMEM;
	rc = bell_init(b);
	if (rc) {
		free(b);
		return rc;
	}
	ch->priv = b;
	return 0;
}

static void psync_channel_destroy(struct bdev_channel *ch)
{
	bell_destroy(ch->priv);
	free(ch->priv);
}

static bool psync_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	struct psync *p = ch->dev->priv;

	workers_submit(p->f.workers, ch, io);
	return true;
}

/* Completions come through the channel's remote list. */
static void psync_reap(struct bdev_channel *ch)
{
	bell_quiet(ch->priv);
}

static void psync_kick(struct bdev_channel *ch)
{
	(void)ch;
}

static void psync_wait(struct bdev_channel *ch)
{
	bell_wait(ch->priv);
}

static void psync_wake(struct bdev_channel *ch)
{
	bell_ring(ch->priv);
}

static int psync_fd(struct bdev_channel *ch)
{
	struct bell *b = ch->priv;

	return b->fd;
}

const struct bdev_module psync_module = {
	.name = "psync",
	.open = psync_open,
	.close = psync_close,
	.size = file_size,
	.forked = psync_forked,
	.channel_create = psync_channel_create,
	.channel_destroy = psync_channel_destroy,
	.submit = psync_submit,
	.reap = psync_reap,
	.kick = psync_kick,
	.wait = psync_wait,
	.wake = psync_wake,
	.fd = psync_fd,
};
