/* SPDX-License-Identifier: BSD-2-Clause */
/* One read of blocks that goes on while its caller works on others: recovery reads what comes next. */
#ifndef BLOB_FETCH_H
#define BLOB_FETCH_H

#include "bdev/bdev.h"

struct bs_fetch {
	struct op op;
	struct bdev_io io;
	struct bdev_channel *ch;
	uint64_t block; /* what is read */
	uint32_t blocks;
	bool under_way; /* from the start to the wait */
};

/* Reads into buf, which stays the fetch's until bs_fetch_wait. None may be under way. */
void bs_fetch_start(struct bs_fetch *f, struct bdev_channel *ch, void *buf, uint64_t block, uint32_t blocks);
/* Waits for the read; its result, 0 if none is under way. */
int bs_fetch_wait(struct bs_fetch *f);

#endif
