/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Submission: what is wrong is refused, what the device takes as it is goes straight to the module,
 * the rest takes the slow path (slow.c). All of it ends in a poll.
 */
#include <errno.h>

#include "bdev/internal.h"

enum path { FAST, SLOW, ENDED };

static uint64_t device_size(const struct bdev *dev)
{
	return __atomic_load_n(&dev->info.size, __ATOMIC_RELAXED);
}

static int check_range(const struct bdev *dev, const struct bdev_io *io)
{
	uint64_t size = device_size(dev), mask = dev->info.block_size - 1;

	if ((io->offset | io->length) & mask || !io->length)
		return -EINVAL;
	if (io->offset > size || io->length > size - io->offset)
		return -EINVAL;
	return 0;
}

/* Whether the device takes the iovecs as they are; -EINVAL when they break the contract. */
static int check_iov(const struct bdev *dev, const struct bdev_io *io, enum path *path)
{
	uint64_t mask = dev->info.block_size - 1, align = dev->info.buffer_align - 1, sum = 0;

	if (io->iovcnt < 1 || !io->iov)
		return -EINVAL;
	*path = io->length > dev->info.max_io || (uint32_t)io->iovcnt > dev->info.max_iov ? SLOW
											  : FAST;
	for (int i = 0; i < io->iovcnt; i++) {
		const struct iovec *v = &io->iov[i];

		if (v->iov_len & mask || !v->iov_len || v->iov_len > io->length - sum)
			return -EINVAL;
		sum += v->iov_len;
		if ((uintptr_t)v->iov_base & align)
			*path = SLOW;
		else if (dev->module->dma_ok && !dev->module->dma_ok(dev, v->iov_base, v->iov_len))
			*path = SLOW;
	}
	return sum == io->length ? 0 : -EINVAL;
}

static int check_rw(const struct bdev *dev, struct bdev_io *io, enum path *path)
{
	int rc = check_range(dev, io);

	if (rc)
		return rc;
	/* No format with separate metadata exists yet; silently dropping it would lose data. */
	if (io->opts.metadata)
		return -EINVAL;
	rc = check_iov(dev, io, path);
	if (rc)
		return rc;
	if (io->op == BDEV_WRITE && io->opts.flags & BDEV_FUA) {
		if (!dev->info.volatile_cache)
			io->opts.flags &= ~(uint32_t)BDEV_FUA;
		else if (!dev->info.fua)
			*path = SLOW;
	}
	return 0;
}

static int check_trim(struct bdev *dev, struct bdev_io *io, enum path *path)
{
	int rc = check_range(dev, io);

	if (rc)
		return rc;
	*path = FAST;
	if (io->op == BDEV_DISCARD) {
		if (!dev->info.discard ||
		    atomic_load_explicit(&dev->no_discard, memory_order_relaxed))
			*path = ENDED;
		return 0;
	}
	if (!dev->info.write_zeroes ||
	    atomic_load_explicit(&dev->no_write_zeroes, memory_order_relaxed))
		*path = SLOW;
	if (io->opts.flags & BDEV_FUA && dev->info.volatile_cache)
		*path = SLOW;
	return 0;
}

/* Decides how an I/O is done; a negative errno ends it. */
static int check(struct bdev *dev, struct bdev_io *io, enum path *path)
{
	if (io->op != BDEV_READ && dev->info.readonly)
		return -EROFS;
	switch (io->op) {
	case BDEV_READ:
	case BDEV_WRITE:
		return check_rw(dev, io, path);
	case BDEV_FLUSH:
		*path = dev->info.volatile_cache ? FAST : ENDED;
		return 0;
	case BDEV_DISCARD:
	case BDEV_WRITE_ZEROES:
		return check_trim(dev, io, path);
	}
	return -EINVAL;
}

static void count(struct bdev_channel *ch, const struct bdev_io *io)
{
	switch (io->op) {
	case BDEV_READ:
		ch->stats.reads++;
		ch->stats.read_bytes += io->length;
		break;
	case BDEV_WRITE_ZEROES:
		ch->stats.zero_bytes += io->length;
		/* fallthrough */
	case BDEV_WRITE:
		ch->stats.writes++;
		ch->stats.write_bytes += io->length;
		break;
	case BDEV_FLUSH:
		ch->stats.flushes++;
		break;
	case BDEV_DISCARD:
		ch->stats.discards++;
		break;
	}
}

static inline void count_in(struct bdev_channel *ch)
{
	/* Under the lock, so that it need not be one operation. */
	atomic_store_explicit(&ch->begun, atomic_load_explicit(&ch->begun, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

__attribute__((noinline)) static void submit_checked(struct bdev_channel *ch, struct bdev_io *io)
{
	enum path path = ENDED;
	int rc = check(ch->dev, io, &path);

	pthread_mutex_lock(&ch->lock);
	count_in(ch);
	if (rc || path == ENDED) {
		channel_put_done(ch, io, rc);
	} else {
		count(ch, io);
		if (path == FAST)
			channel_put(ch, io);
	}
	pthread_mutex_unlock(&ch->lock);
	if (!rc && path == SLOW)
		slow_start(io);
}

/* A read, or a write that asks for nothing more, of one buffer that the device takes as it is: nearly all there is. */
static inline bool is_plain(const struct bdev *dev, const struct bdev_io *io)
{
	uint64_t size = device_size(dev), length = io->length, base;

	if (io->op > BDEV_WRITE || io->iovcnt != 1 || !io->iov || io->opts.metadata ||
	    (io->op == BDEV_WRITE && (dev->info.readonly || io->opts.flags & BDEV_FUA)))
		return false;
	base = (uintptr_t)io->iov->iov_base;
	return length == io->iov->iov_len && length - 1 < dev->info.max_io &&
	       !((io->offset | length) & (dev->info.block_size - 1)) && io->offset < size &&
	       length <= size - io->offset && !(base & (dev->info.buffer_align - 1)) &&
	       base - dev->dma_base < dev->dma_len && length <= dev->dma_len - (base - dev->dma_base);
}

void bdev_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	io->ch = ch;
	io->parent = NULL;
	if (__builtin_expect(!is_plain(ch->dev, io), 0)) {
		submit_checked(ch, io);
		return;
	}
	pthread_mutex_lock(&ch->lock);
	count_in(ch);
	if (io->op == BDEV_READ) {
		ch->stats.reads++;
		ch->stats.read_bytes += io->length;
	} else {
		ch->stats.writes++;
		ch->stats.write_bytes += io->length;
	}
	channel_put(ch, io);
	pthread_mutex_unlock(&ch->lock);
	if (__builtin_expect(atomic_load_explicit(&ch->kick_due, memory_order_relaxed), 0))
		ch->module->kick(ch);
}

void port_finish(struct bdev_io *io, int rc)
{
	struct bdev_channel *ch = io->ch;

	if (rc)
		atomic_fetch_add_explicit(&ch->errors, 1, memory_order_relaxed);
	io->rc = rc;
	port_call_back(io, rc);
}

/* What a device may answer, made the few values the contract names. */
static int plain_error(int rc)
{
	switch (rc) {
	case 0:
	case -EIO:
	case -ENOSPC:
	case -EROFS:
	case -EINVAL:
	case -ENODEV:
	case -ETIMEDOUT:
	case -ENOMEM:
		return rc;
	case -EDQUOT:
		return -ENOSPC;
	case -ENXIO:
	case -ESHUTDOWN:
		return -ENODEV;
	case -ETIME:
		return -ETIMEDOUT;
	}
	return -EIO;
}

void port_complete(struct bdev_io *io)
{
	struct bdev *dev = io->ch->dev;

	if (io->rc == -EOPNOTSUPP && io->op == BDEV_WRITE_ZEROES) {
		atomic_store(&dev->no_write_zeroes, true);
		if (!io->parent) {
			slow_start(io);
			return;
		}
	} else if (io->rc == -EOPNOTSUPP && io->op == BDEV_DISCARD && !dev->info.discard_zeroes) {
		atomic_store(&dev->no_discard, true);
		io->rc = 0;
	} else {
		io->rc = plain_error(io->rc);
	}
	if (io->parent)
		io->cb(io, io->rc);
	else
		port_finish(io, io->rc);
}

void bdev_io_init_buf(struct bdev_io *io, enum bdev_op op, void *buf, uint64_t offset,
		      uint64_t length, bdev_io_cb cb, void *cb_arg)
{
	*io = (struct bdev_io){
		.op = op, .offset = offset, .length = length, .cb = cb, .cb_arg = cb_arg
	};
	io->one.iov_base = buf;
	io->one.iov_len = length;
	io->iov = &io->one;
	io->iovcnt = 1;
}

/* ---- as a child of an op, and synchronously ---- */

static void child_done(struct bdev_io *io, int rc)
{
	op_child_done(io->cb_arg, rc);
}

void bdev_submit_child(struct bdev_channel *ch, struct bdev_io *io, struct op *op)
{
	op_child_begin(op);
	io->cb = child_done;
	io->cb_arg = op;
	bdev_submit(ch, io);
}

struct sync_io {
	struct op op;
	struct bdev_io io;
	struct bdev_channel *ch;
};

enum { SUBMIT, END };

static enum op_next sync_step(struct op *op)
{
	struct sync_io *s = container_of(op, struct sync_io, op);

	switch (op->step) {
	case SUBMIT:
		bdev_submit_child(s->ch, &s->io, op);
		return op_await(op, END, 0);
	case END:
		return op_finish(op);
	}
	return op_bug(op);
}

int bdev_io_sync(struct bdev_channel *ch, enum bdev_op op, void *buf, uint64_t offset,
		 uint64_t length, uint32_t flags)
{
	struct sync_io s = { .ch = ch };

	bdev_io_init_buf(&s.io, op, buf, offset, length, NULL, NULL);
	s.io.opts.flags = flags;
	op_init(&s.op, "bdev_io_sync", sync_step, &ch->driver, NULL, NULL);
	op_start(&s.op);
	return op_wait(&s.op);
}
