/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Data I/O: starting it, and reading. A request is inside an epoch from its look at the map until
 * its last device I/O is done, so what it reads or overwrites is not given to anybody else
 * meanwhile (R3).
 *
 * Reads and overwrites in place of one run, the common case, are in io_fast.c.
 */
#include <errno.h>
#include <stdatomic.h>

#include "blob/io.h"
#include "blob/sum.h"

#define LOG_COMPONENT "blob"
#include "base/log.h"

void io_enter(struct io_req *r)
{
	r->epoch = bs_epoch_enter(r->bs, r->io->ch);
	r->inside = true;
}

void io_leave(struct io_req *r)
{
	if (r->inside)
		bs_epoch_leave(r->bs, r->io->ch, r->epoch);
	r->inside = false;
}

/* ---- reads ---- */

enum { READ_BEGIN, READ_ROUND, READ_CHECK, READ_CARRIED, READ_DONE };

static void read_span(struct io_req *r, struct io_span *span)
{
	uint64_t at = r->io->offset + r->pos, in = at % BS_BLOCK;
	struct bs_extent e;

	bs_map_lookup(r->io->blob, at / BS_BLOCK, (r->io->length - r->pos + in) / BS_BLOCK, &e);
	span->hole = e.flags & (BS_RUN_HOLE | BS_RUN_UNWRITTEN);
	if (e.flags & BS_RUN_SUM)
		bs_sum_expect(r, at / BS_BLOCK, &e);
	span->at = e.phys * BS_BLOCK + in;
	span->len = e.count * BS_BLOCK - in;
}

static enum op_next read_step(struct op *op)
{
	struct bs_io *io = container_of(op, struct bs_io, op_);
	struct io_req *r = io_req(io);

	switch (op->step) {
	case READ_BEGIN:
		io_again(r);
		bs_sum_check_end(r); /* of the time before */
		r->carried = bs_carried_state(io->blob, io->offset / BS_BLOCK, io->length / BS_BLOCK);
		return op_goto(op, READ_ROUND);
	case READ_ROUND:
		op->on_error = READ_DONE;
		if (!r->inside)
			io_enter(r);
		io_round(r, BDEV_READ, read_span);
		return op_await(op, r->pos < io->length ? READ_ROUND : READ_CHECK, 0);
	case READ_CHECK:
		return bs_sum_check(op, r, READ_CHECK, READ_CARRIED);
	case READ_CARRIED:
		/* What was carried has come home meanwhile, perhaps after the device had answered. */
		if (!op->rc && r->carried && !bs_carried_overlay(io, r->carried))
			return op_goto(op, READ_BEGIN);
		return op_goto(op, READ_DONE);
	case READ_DONE:
		bs_sum_check_end(r);
		io_leave(r);
		io_drop(r);
		bs_epoch_read(r->bs, io->ch, io->length);
		return op_finish(op);
	}
	return op_bug(op);
}

/* A device that has no space for blocks it has, a sparse file on a full file system, has failed: -ENOSPC would say that nothing was
 * written, and that freeing something helps. */
int io_device_rc(const struct bs *bs, int rc)
{
	static atomic_bool said;

	if (rc != -ENOSPC)
		return rc;
	if (!atomic_exchange(&said, true))
		log_err("%s: the device has run out of space below its size: data could not be written", bdev_info(bs->dev)->name);
	return -EIO;
}

/* ---- starting ---- */

static int check(const struct bs_io *io)
{
	uint64_t limit = (1ull << BS_RUN_BITS) * BS_BLOCK, sum = 0;
	bool data = io->op == BS_READ || io->op == BS_WRITE;

	if (io->op > BS_UNMAP || io->offset % BS_BLOCK || io->length % BS_BLOCK || !io->length)
		return -EINVAL;
	if (io->offset >= limit || (io->op != BS_UNMAP && io->length > limit - io->offset))
		return -EFBIG;
	if (!data)
		return 0;
	if (io->length > BS_IO_MAX || io->iovcnt <= 0)
		return -EINVAL;
	for (int i = 0; i < io->iovcnt; i++) {
		if (!io->iov[i].iov_len)
			return -EINVAL;
		sum += io->iov[i].iov_len;
	}
	return sum == io->length ? 0 : -EINVAL;
}

static int check_writable(const struct bs_io *io)
{
	struct bs *bs = io->blob->bs;

	if (io->op == BS_READ)
		return 0;
	return (bs->flags & BS_RDONLY) || atomic_load(&io->blob->sealed) || atomic_load(&bs->frozen) ? -EROFS : 0;
}

static void io_done(struct op *op, void *arg)
{
	struct bs_io *io = arg;

	io->cb(io, op->rc);
}

static void req_init(struct io_req *r, struct bs_io *io)
{
	r->bs = io->blob->bs;
	r->io = io;
	r->inside = r->listed = r->wrote = r->no_memory = false;
	r->sum_wrong = NULL;
	r->sums = NULL;
	r->check = NULL;
	r->tried = 0;
	r->waited = false;
	io_again(r);
	r->slice_cap = IO_SLICES;
	r->intent.n = 0;
	r->intent.carried = false;
	r->intent.slice = r->own_slice;
	r->more = NULL;
	r->odd = NULL;
	r->odd_n = 0;
}

/* What is refused ends in a poll, as everything does. */
static enum op_next refuse_step(struct op *op)
{
	struct bs_io *io = container_of(op, struct bs_io, op_);

	if (io->reserved)
		bs_space_unreserve(io->blob->bs, io->reserved);
	io->reserved = 0;
	return op_fail(op, io_req(io)->refused);
}

void io_start(struct bdev_channel *ch, struct bs_io *io)
{
	struct io_req *r = io_req(io);
	op_fn fn = io->op == BS_READ    ? read_step
		   : io->op == BS_WRITE ? io_write_step
					: io_meta_step;

	io->ch = ch;
	io->lsn = 0;
	req_init(r, io);
	r->refused = check(io);
	if (!r->refused)
		r->refused = check_writable(io);
	if (r->refused)
		fn = refuse_step;
	op_init(&io->op_, "io", fn, bdev_channel_driver(io->ch), io_done, io);
	op_start(&io->op_);
}

static void tell_parent(struct bs_io *io, int rc)
{
	op_child_done(io->parent, rc);
}

void bs_io_start(struct bdev_channel *ch, struct bs_io *io, struct op *parent)
{
	op_child_begin(parent);
	io->parent = parent;
	bs_io_submit(ch, io, tell_parent);
}

/* ---- waiting ---- */

struct sync_io {
	struct op op;
	struct bdev_channel *ch;
	struct bs_io *io;
};

static enum op_next sync_step(struct op *op)
{
	struct sync_io *s = container_of(op, struct sync_io, op);

	if (op->step)
		return op_finish(op);
	bs_io_start(s->ch, s->io, op);
	return op_await(op, 1, 0);
}

static int io_once(struct bs *bs, struct bs_io *io)
{
	struct sync_io s = { .io = io, .ch = bdev_channel_borrow(bs->dev) };
	int rc;

	op_init(&s.op, "io-sync", sync_step, bdev_channel_driver(s.ch), NULL, NULL);
	op_start(&s.op);
	rc = op_wait(&s.op);
	bdev_channel_return(s.ch);
	return rc;
}

int bs_io_sync(struct bs *bs, struct bs_io *io)
{
	unsigned tried = 0;
	int rc;

	/* With nobody to drive the log for the I/O, it is done here, between two attempts. */
	for (;;) {
		rc = io_once(bs, io);
		if (bs_has_service(bs) ||
		    (rc != -EAGAIN && (rc != -ENOSPC || !bs_space_try_again(bs, tried))))
			return rc;
		io->reserved = 0;
		if (rc == -ENOSPC) {
			tried++;
			rc = bs_reclaim(bs);
		} else {
			rc = bs_log_wait_room(bs);
		}
		if (rc)
			return rc;
	}
}
