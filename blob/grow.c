/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A store grows into its device. Nothing of it moves: the superblock's copy has its fixed place, and what blocks are used for is written
 * nowhere. So all there is to do is to write superblocks with the larger size, in the same order as after a checkpoint, and when
 * both are durable the new blocks are free. A power cut in between leaves a store of the old or of the new size, and no record can
 * name a new block before that.
 *
 * A checkpoint follows: its pages tell of the new size to whoever has lost both superblocks.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "blob/ckpt.h"

#define LOG_COMPONENT "blob"
#include "base/log.h"

#define ASK 20u /* times, 2 ms apart */

struct grow_op {
	struct op op;
	struct bs *bs;
	struct bs_growth g;
};

static enum op_next grow_step(struct op *op)
{
	struct grow_op *w = container_of(op, struct grow_op, op);

	switch (op->step) {
	case 0:
		bs_ckpt_grow_start(w->bs, &w->g, op);
		return op_await(op, 1, 0);
	case 1:
		return op_finish(op);
	}
	return op_bug(op);
}

/* The device's size. A controller's word that it has grown may be on its way: as long as it seems not to have, it is asked some more. */
static int device_size(struct bs *bs, uint64_t now, uint64_t *size)
{
	struct timespec pause = { .tv_nsec = 2000000 };
	int rc = 0;

	for (unsigned i = 0; i < ASK && !rc; i++) {
		if (i)
			nanosleep(&pause, NULL);
		rc = bdev_resize_check(bs->dev);
		*size = bdev_info(bs->dev)->size;
		if (*size / BS_BLOCK > now)
			break;
	}
	return rc;
}

/* The size to grow to, in blocks: 0: it has that already. */
static int check_size(struct bs *bs, uint64_t size, uint64_t *blocks, struct base_err *err)
{
	const char *name = bdev_info(bs->dev)->name;
	uint64_t device, now;
	int rc;

	pthread_mutex_lock(&bs->lock);
	now = bs->blocks;
	pthread_mutex_unlock(&bs->lock);
	rc = device_size(bs, now, &device);
	if (rc)
		return base_err_set(err, rc, "%s: its size cannot be read: %s", name, strerror(-rc));
	*blocks = (size ? size : device) / BS_BLOCK;
	if (size > device)
		return base_err_set(err, -EFBIG, "%s: the device has %" PRIu64 " bytes: enlarge it first", name, device);
	if (*blocks < now)
		return base_err_set(err, -EINVAL, "%s: the store has %" PRIu64 " bytes and cannot be made smaller: copy what it holds to a "
				    "smaller one", name, now * BS_BLOCK);
	if (*blocks >= 1ull << BS_RUN_BITS)
		return base_err_set(err, -EFBIG, "%s: too large: 4 PiB is the limit", name);
	if (*blocks == now)
		*blocks = 0;
	return 0;
}

int bs_grow(struct bs *bs, uint64_t size, struct base_err *err)
{
	struct grow_op w = { .bs = bs };
	int rc;

	if (!bs->log->ch)
		return base_err_set(err, -EROFS, "%s: opened read-only", bdev_info(bs->dev)->name);
	rc = check_size(bs, size, &w.g.blocks, err);
	if (rc || !w.g.blocks)
		return rc;
	rc = bs_space_grow_prepare(bs, w.g.blocks, &w.g.more);
	if (!rc) {
		op_init(&w.op, "grow", grow_step, bdev_channel_driver(bs->log->ch), NULL, NULL);
		op_start(&w.op);
		rc = op_wait(&w.op);
		bs_space_grow_drop(w.g.more);
	}
	if (rc)
		return base_err_set(err, rc, "%s: cannot grow: %s", bdev_info(bs->dev)->name,
				    rc == -EBUSY ? "it is growing already" : strerror(-rc));
	rc = bs_checkpoint(bs);
	if (rc)
		log_warn("%s: it has grown; the checkpoint after that: %s", bdev_info(bs->dev)->name, strerror(-rc));
	return 0;
}
