/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * uring: files and block devices through io_uring, a ring for each channel.
 *
 * Any thread may use a ring. Submission entries are written and published (the tail moved) under
 * the channel's lock; io_uring_enter is called without it, by any number of threads: the kernel
 * serialises them, and takes each entry once. Completions are consumed by reap only, under the
 * lock. So a synchronous I/O is one system call: submit writes the entry, and wait's io_uring_enter
 * hands it over and sleeps for its completion.
 *
 * There is always room for an entry: an I/O in the module has at most one that the kernel has not
 * taken, the port keeps their number within the depth, and one more is for a wake (there is one at
 * a time, see `woken`).
 *
 * When a thread exits, the kernel cancels what it submitted and has not started. Block I/O may be
 * repeated: it is submitted again by whoever reaps it.
 *
 * A channel may be told that who waits may as well do the work (bdev_channel_wait_inline). Then a flush, or a write with FUA, that finds
 * the module empty is set aside instead of being made an entry: the thread that comes to wait makes the system call itself, which is
 * faster than having the kernel's threads make it; a kick, which says that nobody may come to wait, makes it an entry after all.
 *
 * The file is not registered with the rings: the kernel takes a closed ring, or a dead process's,
 * apart some time later, and a registered file would stay locked until then. As it is, only I/O
 * under way holds it.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "bdev/file.h"

#define LOG_COMPONENT "bdev"
#include "base/log.h"

#define MAX_TRIES 16
/* Entries that are worth a system call. Where completions come many at a time, as a virtual disk's do, whoever answers them all before it
 * hands over the first leaves the device idle meanwhile. */
#define WORTH_A_CALL 4

struct uring {
	struct file f; /* first, for file.c */
};

struct uring_channel {
	struct io_uring ring;
	atomic_bool woken; /* a wake's completion is on its way or not reaped yet */
	unsigned tail;     /* of the submission queue, under the channel's lock */
	_Atomic(struct bdev_io *) aside; /* for who waits; set and taken under the lock */
	struct bdev_io *made;            /* by who waited, with this result: to be reaped; under the lock */
	int made_rc;
};

/* In bdev_io.module_data; file_remainder uses 2 and 3. */
enum { DONE_BYTES, TRIES };

static bool uring_works(void)
{
	struct io_uring ring;

	if (io_uring_queue_init(8, &ring, 0))
		return false;
	io_uring_queue_exit(&ring);
	return true;
}

const struct bdev_module *file_choose_module(const char *name, const struct bdev_opts *opts)
{
	if (opts && opts->flags & BDEV_PSYNC)
		return &psync_module;
	if (uring_works())
		return &uring_module;
	log_warn("%s: io_uring is refused by the system, using threads", name);
	return &psync_module;
}

/* ---- device ---- */

static int trim(struct bdev_io *io)
{
	struct uring *u = io->ch->dev->priv;

	return file_trim(&u->f, io);
}

static int uring_open(struct bdev *dev, const struct bdev_opts *opts, struct base_err *err)
{
	struct uring *u = base_calloc(1, sizeof(*u));
	int rc;

	if (!u)
		return base_err_set(err, -ENOMEM, "%s: out of memory", dev->name);
	rc = file_open(dev, opts, &u->f, err);
	if (!rc && u->f.block) {
		rc = workers_create(2, trim, &u->f.workers);
		if (rc) {
			base_err_set(err, rc, "%s: cannot make a thread: %s", dev->name,
				     strerror(-rc));
			file_close(&u->f);
		}
	}
	if (rc) {
		free(u);
		return rc;
	}
	dev->info.max_channels = BDEV_MAX_CHANNELS;
	dev->priv = u;
	return 0;
}

static void uring_close(struct bdev *dev)
{
	struct uring *u = dev->priv;

	if (u->f.workers)
		workers_destroy(u->f.workers);
	file_close(&u->f);
	free(u);
}

/* The lock and the rings stay the parent's alone. The rings' memory is not mapped in a child. */
static void uring_forked(struct bdev *dev)
{
	struct uring *u = dev->priv;

	close(u->f.fd);
	for (unsigned i = 0; i < BDEV_MAX_CHANNELS; i++) {
		struct uring_channel *c = dev->channels[i] ? dev->channels[i]->priv : NULL;

		if (c) {
			close(c->ring.ring_fd);
			atomic_store(&c->aside, NULL);
			c->made = NULL;
		}
	}
}

static int uring_channel_create(struct bdev_channel *ch)
{
	struct uring_channel *c = base_calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return -ENOMEM;
	rc = io_uring_queue_init(ch->depth + 1, &c->ring, 0);
	if (rc) {
		free(c);
		return rc;
	}
	/* Entry i of the indirection always names submission entry i. */
	for (unsigned i = 0; i < c->ring.sq.ring_entries; i++)
		c->ring.sq.array[i] = i;
	c->tail = *c->ring.sq.ktail;
	ch->priv = c;
	return 0;
}

static void uring_channel_destroy(struct bdev_channel *ch)
{
	struct uring_channel *c = ch->priv;

	io_uring_queue_exit(&c->ring);
	free(c);
}

/* ---- submission ---- */

static struct io_uring_sqe *next_sqe(struct uring_channel *c)
{
	const struct io_uring_sq *sq = &c->ring.sq;
	struct io_uring_sqe *sqe;

	if (c->tail - __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE) >= sq->ring_entries)
		return NULL;
	sqe = &sq->sqes[c->tail & sq->ring_mask];
	memset(sqe, 0, sizeof(*sqe));
	return sqe;
}

static void publish(struct uring_channel *c)
{
	__atomic_store_n(c->ring.sq.ktail, ++c->tail, __ATOMIC_RELEASE);
}

/* Entries published and not taken by the kernel. Any thread. */
static unsigned unsubmitted(const struct uring_channel *c)
{
	unsigned head = __atomic_load_n(c->ring.sq.khead, __ATOMIC_ACQUIRE);

	return __atomic_load_n(c->ring.sq.ktail, __ATOMIC_ACQUIRE) - head;
}

static void prepare_rw(struct io_uring_sqe *sqe, struct bdev_io *io, int fd)
{
	bool write = io->op == BDEV_WRITE;
	uint64_t at = io->offset + io->module_data[DONE_BYTES];

	if (io->module_data[DONE_BYTES]) {
		file_remainder(io);
		io_uring_prep_rw(write ? IORING_OP_WRITE : IORING_OP_READ, sqe, fd,
				 (void *)(uintptr_t)io->module_data[2],
				 (unsigned)io->module_data[3], at);
	} else if (io->iovcnt == 1) {
		io_uring_prep_rw(write ? IORING_OP_WRITE : IORING_OP_READ, sqe, fd,
				 io->iov[0].iov_base, (unsigned)io->iov[0].iov_len, at);
	} else {
		io_uring_prep_rw(write ? IORING_OP_WRITEV : IORING_OP_READV, sqe, fd, io->iov,
				 (unsigned)io->iovcnt, at);
	}
	if (write && io->opts.flags & BDEV_FUA)
		sqe->rw_flags = RWF_DSYNC;
}

/* Writes the entry of an I/O. Lock held. */
static bool prepare(struct bdev_channel *ch, struct bdev_io *io)
{
	struct uring_channel *c = ch->priv;
	struct uring *u = ch->dev->priv;
	struct io_uring_sqe *sqe = next_sqe(c);
	int fd = u->f.fd;

	if (!sqe)
		return false;
	switch (io->op) {
	case BDEV_READ:
	case BDEV_WRITE:
		prepare_rw(sqe, io, fd);
		break;
	case BDEV_FLUSH:
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
		break;
	case BDEV_DISCARD:
	case BDEV_WRITE_ZEROES:
		/* Its length is 64 bits wide, in place of the address. */
		io_uring_prep_rw(IORING_OP_FALLOCATE, sqe, fd, (void *)(uintptr_t)io->length,
				 (unsigned)file_trim_mode(io), io->offset);
		break;
	}
	io_uring_sqe_set_data(sqe, io);
	publish(c);
	if (unsubmitted(c) >= WORTH_A_CALL)
		atomic_store_explicit(&ch->kick_due, true, memory_order_relaxed);
	return true;
}

static bool uring_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	struct uring_channel *c = ch->priv;
	struct uring *u = ch->dev->priv;

	io->module_data[DONE_BYTES] = 0;
	io->module_data[TRIES] = 0;
	if (ch->wait_inline && !ch->in_module && (io->op == BDEV_FLUSH || (io->op == BDEV_WRITE && io->opts.flags & BDEV_FUA))) {
		atomic_store(&c->aside, io);
		return true;
	}
	if (u->f.block && (io->op == BDEV_DISCARD || io->op == BDEV_WRITE_ZEROES)) {
		workers_submit(u->f.workers, ch, io);
		return true;
	}
	return prepare(ch, io);
}

/* ---- completion ---- */

/* Lock held. */
static void complete(struct bdev_channel *ch, struct bdev_io *io, int res)
{
	bool rw = io->op == BDEV_READ || io->op == BDEV_WRITE;

	if (rw && res >= 0) {
		io->module_data[DONE_BYTES] += (unsigned)res;
		if (io->module_data[DONE_BYTES] >= io->length) {
			channel_done(ch, io, 0);
			return;
		}
		/* Nothing at all: the file has become shorter behind our back. */
		if (res == 0)
			res = -EIO;
	} else if (res == -ECANCELED || res == -EINTR || res == -EAGAIN) {
		if (++io->module_data[TRIES] > MAX_TRIES)
			res = -EIO;
	} else {
		channel_done(ch, io, res);
		return;
	}
	if (res == -EIO || !prepare(ch, io))
		channel_done(ch, io, -EIO);
}

static void uring_reap(struct bdev_channel *ch)
{
	struct uring_channel *c = ch->priv;
	struct io_uring_cq *cq = &c->ring.cq;
	unsigned head = *cq->khead, tail = __atomic_load_n(cq->ktail, __ATOMIC_ACQUIRE);

	for (; head != tail; head++) {
		const struct io_uring_cqe *cqe = &cq->cqes[head & cq->ring_mask];

		if (cqe->user_data)
			complete(ch, (struct bdev_io *)(uintptr_t)cqe->user_data, cqe->res);
		else
			atomic_store(&c->woken, false);
	}
	__atomic_store_n(cq->khead, head, __ATOMIC_RELEASE);
	if (c->made) {
		struct bdev_io *io = c->made;

		c->made = NULL;
		complete(ch, io, c->made_rc);
	}
}

/* ---- the system call ---- */

static void nap(void)
{
	struct timespec ts = { .tv_nsec = 100000 };

	nanosleep(&ts, NULL);
}

/* False: the kernel is short of something, or (said once) refuses altogether. */
static bool enter(struct uring_channel *c, unsigned submit, unsigned wait, unsigned flags)
{
	static atomic_bool said;

	if (syscall(__NR_io_uring_enter, c->ring.ring_fd, submit, wait, flags, NULL, 0) >= 0 ||
	    errno == EINTR)
		return true;
	if (errno != EAGAIN && errno != EBUSY && !atomic_exchange(&said, true))
		log_err("io_uring_enter: %s", strerror(errno));
	return false;
}

/* What was set aside becomes an entry. There is room: nothing else is in the module. */
static void enter_aside(struct bdev_channel *ch)
{
	struct uring_channel *c = ch->priv;
	struct bdev_io *io;

	pthread_mutex_lock(&ch->lock);
	io = atomic_exchange(&c->aside, NULL);
	if (io && !prepare(ch, io))
		channel_done(ch, io, -EIO);
	pthread_mutex_unlock(&ch->lock);
}

static void uring_kick(struct bdev_channel *ch)
{
	struct uring_channel *c = ch->priv;
	unsigned n, tries = 0;

	if (atomic_load_explicit(&c->aside, memory_order_relaxed))
		enter_aside(ch);
	atomic_store_explicit(&ch->kick_due, false, memory_order_relaxed);
	while ((n = unsubmitted(c)))
		if (!enter(c, n, 0, 0) && ++tries > MAX_TRIES)
			nap();
}

/* Makes what was set aside, behind what came after it and need not wait for it. False: there is nothing. */
static bool make_aside(struct bdev_channel *ch)
{
	struct uring_channel *c = ch->priv;
	struct uring *u = ch->dev->priv;
	struct bdev_io *io;
	ssize_t rc;

	if (!atomic_load_explicit(&c->aside, memory_order_relaxed))
		return false;
	pthread_mutex_lock(&ch->lock);
	io = atomic_exchange(&c->aside, NULL);
	ch->at_work = io != NULL;
	pthread_mutex_unlock(&ch->lock);
	if (!io)
		return false;
	if (unsubmitted(c))
		enter(c, unsubmitted(c), 0, 0);
	if (io->op == BDEV_FLUSH)
		rc = fdatasync(u->f.fd);
	else
		rc = pwritev2(u->f.fd, io->iov, io->iovcnt, (off_t)io->offset, RWF_DSYNC);
	rc = rc < 0 ? -errno : rc;
	pthread_mutex_lock(&ch->lock);
	c->made_rc = (int)rc;
	c->made = io;
	ch->at_work = false;
	pthread_mutex_unlock(&ch->lock);
	return true;
}

static void uring_wait(struct bdev_channel *ch)
{
	struct uring_channel *c = ch->priv;

	if (make_aside(ch))
		return;
	if (!enter(c, unsubmitted(c), 1, IORING_ENTER_GETEVENTS))
		nap();
}

static void uring_wake(struct bdev_channel *ch)
{
	struct uring_channel *c = ch->priv;
	struct io_uring_sqe *sqe;

	/* It is cleared when the completion is reaped, and who reaps looks around afterwards. */
	if (atomic_exchange(&c->woken, true))
		return;
	pthread_mutex_lock(&ch->lock);
	while (!(sqe = next_sqe(c))) {
		pthread_mutex_unlock(&ch->lock);
		uring_kick(ch);
		pthread_mutex_lock(&ch->lock);
	}
	io_uring_prep_nop(sqe);
	publish(c);
	pthread_mutex_unlock(&ch->lock);
	uring_kick(ch);
}

static int uring_fd(struct bdev_channel *ch)
{
	struct uring_channel *c = ch->priv;

	return c->ring.ring_fd;
}

const struct bdev_module uring_module = {
	.name = "uring",
	.open = uring_open,
	.close = uring_close,
	.size = file_size,
	.forked = uring_forked,
	.channel_create = uring_channel_create,
	.channel_destroy = uring_channel_destroy,
	.submit = uring_submit,
	.reap = uring_reap,
	.kick = uring_kick,
	.wait = uring_wait,
	.wake = uring_wake,
	.fd = uring_fd,
};
