/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the checkpoint share. */
#ifndef BLOB_CKPT_H
#define BLOB_CKPT_H

#include "blob/device.h"

#define CKPT_BATCH 4u                          /* pages in flight at once */
#define CKPT_BUF (BS_PAGE_MAX + BS_BLOCK)      /* a record of the largest value takes a page of one block more */

struct bs_ckpt_entry { /* a page, as its parent names it */
	struct bs_cursor first;
	uint64_t address;
	uint32_t blocks, crc;
};

/* A store that gets larger: the superblocks say so, then memory. */
struct bs_growth {
	uint64_t blocks;       /* of the whole store, then */
	struct bs_space *more; /* taken over when it is done */
};

struct bs_ckpt {
	struct bs *bs;
	pthread_mutex_t lock; /* of who waits and busy */
	struct bs_commit_waiters waiting, current;
	bool busy, clean, want_clean;
	bool full, want_full; /* a checkpoint; else only what grows: the superblocks */
	struct bs_growth *growth, *want_growth;
	struct bs_ckpt_units present, fresh; /* of the checkpoint the superblock names; of the one being written */
	_Atomic uint64_t written, written_bytes; /* checkpoints; all that was written for them, superblocks too */
	_Atomic uint64_t retry_ns;

	/* the one being written */
	struct op op;
	struct bdev_channel *ch;
	struct bdev_io io;
	struct bs_sb_disk *super;
	struct {
		struct bdev_io io;
		uint8_t *buf;
	} page[CKPT_BATCH];
	struct bs_log_pos start;
	uint64_t l0, l1, next_id;
	struct bs_cursor cursor;
	bool captured, indexed;
	uint64_t unit;          /* being filled; 0: none */
	uint32_t unit_used;     /* blocks of it */
	uint64_t blocks, items;
	uint64_t total;         /* bytes of the store's items when it was last looked */
	struct bs_ckpt_entry *entries; /* of all levels, the leaves first */
	uint32_t n_entries, cap_entries;
	uint32_t level_start, level_end, next_child, level; /* index: children are [level_start, level_end) */
};

/* ckpt_write.c: each starts up to CKPT_BATCH pages as children of op. */
int bs_ckpt_make_buffers(struct bs_ckpt *c);
void bs_ckpt_drop_buffers(struct bs_ckpt *c);
int bs_ckpt_capture(struct bs_ckpt *c, struct op *op);
int bs_ckpt_index(struct bs_ckpt *c, struct op *op);
/* A page with c->super in it, behind the others; none where there is no space for it. */
int bs_ckpt_describe(struct bs_ckpt *c, struct op *op);
/* As a child of op: the store has g->blocks blocks, which is durable. One at a time: -EBUSY. */
void bs_ckpt_grow_start(struct bs *bs, struct bs_growth *g, struct op *op);
int bs_ckpt_units_add(struct bs_ckpt_units *u, uint64_t block);

#endif
