/* SPDX-License-Identifier: BSD-2-Clause */
#include "blob/fetch.h"
#include "blob/internal.h"

enum { SUBMIT, END };

static enum op_next fetch_step(struct op *op)
{
	struct bs_fetch *f = container_of(op, struct bs_fetch, op);

	switch (op->step) {
	case SUBMIT:
		bdev_submit_child(f->ch, &f->io, op);
		bdev_kick(f->ch);
		return op_await(op, END, 0);
	case END:
		return op_finish(op);
	}
	return op_bug(op);
}

void bs_fetch_start(struct bs_fetch *f, struct bdev_channel *ch, void *buf, uint64_t block, uint32_t blocks)
{
	assert(!f->under_way);
	f->ch = ch;
	f->block = block;
	f->blocks = blocks;
	f->under_way = true;
	bdev_io_init_buf(&f->io, BDEV_READ, buf, block * BS_BLOCK, (uint64_t)blocks * BS_BLOCK, NULL, NULL);
	op_init(&f->op, "fetch", fetch_step, bdev_channel_driver(ch), NULL, NULL);
	op_start(&f->op);
}

int bs_fetch_wait(struct bs_fetch *f)
{
	if (!f->under_way)
		return 0;
	f->under_way = false;
	return op_wait(&f->op);
}
