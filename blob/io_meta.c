/* SPDX-License-Identifier: BSD-2-Clause */
/* Unmapping and zeroing as I/O: transactions that wait for room in the log without blocking. A
 * range with more runs than one transaction takes goes in several, the caller's own changes with
 * the last. */
#include <errno.h>

#include "blob/io.h"

enum { TRY, DONE };

static int change(struct bs_txn *txn, struct bs_io *io, uint64_t block, uint64_t count)
{
	if (io->op == BS_UNMAP)
		return bs_txn_unmap(txn, io->blob, block, count);
	return bs_txn_zero(txn, io->blob, block, count);
}

/* One transaction over as much as it takes. */
static int some(struct io_req *r)
{
	struct bs_io *io = r->io;
	uint64_t block = (io->offset + r->pos) / BS_BLOCK, left = (io->length - r->pos) / BS_BLOCK,
		 count = left;
	struct bs_txn *txn;
	int rc = bs_txn_try(r->bs, io->op == BS_UNMAP ? BS_TXN_FREES : 0, &txn);

	if (rc)
		return rc;
	while ((rc = change(txn, io, block, count)) == -E2BIG && count > 1)
		count /= 2;
	if (!rc && count == left && io->publish)
		rc = io->publish(txn, io, io->publish_arg);
	if (rc) {
		bs_txn_cancel(txn);
		return rc;
	}
	io->lsn = bs_txn_end(txn);
	r->pos += count * BS_BLOCK;
	return 0;
}

enum op_next io_meta_step(struct op *op)
{
	struct bs_io *io = container_of(op, struct bs_io, op_);
	struct io_req *r = io_req(io);
	int rc;

	switch (op->step) {
	case TRY:
		op->on_error = DONE;
		rc = some(r);
		if (rc == -EAGAIN && bs_has_service(r->bs)) {
			bs_log_wait_room_start(r->bs, op);
			return op_await(op, TRY, 0);
		}
		if (rc)
			return op_fail(op, rc);
		return op_goto(op, r->pos < io->length ? TRY : DONE);
	case DONE:
		io_home(r);
		if (io->reserved)
			bs_space_unreserve(r->bs, io->reserved);
		io->reserved = 0;
		return op_finish(op);
	}
	return op_bug(op);
}
