/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Blocks that several runs map (share.c): how many runs map each, kept only where it is more than one. All under bs->lock.
 *
 * A run that may have company is flagged shared, in every blob that has it, so a block of a run without the flag is its
 * blob's alone. Nothing of the counts is on the device: they follow from the runs, and are made at open (share_load.c).
 */
#ifndef BLOB_SHARE_H
#define BLOB_SHARE_H

#include "blob/internal.h"

struct bs_share { /* blocks that equally many runs map */
	union {
		RB_ENTRY(bs_share) node;
		struct bs_share *next;
	};
	uint64_t phys, count;
	uint32_t refs; /* 2 or more */
};
RB_HEAD(bs_share_tree, bs_share);

struct bs_share_note { /* a shared run found at open */
	uint64_t phys, count, blob;
};

struct bs_shares {
	struct bs_share_tree tree;
	struct bs_share *spare; /* nodes set aside, so that counting a new run cannot fail */
	uint64_t n_spare, want; /* what the open transaction needs of them */
	uint64_t extra;         /* runs beyond the first, over all blocks */
	struct bs_share_note *note; /* at open only */
	uint64_t n_notes, cap_notes;
};

int bs_share_create(struct bs *bs);
void bs_share_destroy(struct bs *bs);

/* Sets aside what counting this run may take, on top of what the open transaction needs already. */
int bs_share_prepare(struct bs *bs, uint64_t phys, uint64_t count);
void bs_share_forget(struct bs *bs); /* the transaction is over */
/* One more run maps these blocks. Cannot fail after bs_share_prepare. */
void bs_share_inc(struct bs *bs, uint64_t phys, uint64_t count);
/*
 * One run less maps these blocks. fn gets those that no run maps now; its non-zero return ends it, and what has not been
 * told stays counted. -ENOMEM: nothing was changed.
 */
typedef int (*bs_share_fn)(void *arg, uint64_t phys, uint64_t count);
int bs_share_dec(struct bs *bs, uint64_t phys, uint64_t count, bs_share_fn fn, void *arg);
/* How many runs map this block, and *len blocks from it on (at most max) with it. A block nobody counts has one. */
uint32_t bs_share_refs(const struct bs *bs, uint64_t phys, uint64_t max, uint64_t *len);
/* At open: these blocks have so many; in ascending order. */
int bs_share_set(struct bs *bs, uint64_t phys, uint64_t count, uint32_t refs);

/* Recovery: a shared run that was found; then, when all others have claimed their blocks, all of them. -EUCLEAN: some lie over
 * something else. */
int bs_share_note(struct bs *bs, const struct bs_blob *blob, const struct bs_run *run);
int bs_share_settle(struct bs *bs, struct base_err *err);

/* An unmapped chunk with shared runs in it: what is free by that, as a list of chunks without. Takes bs->lock. */
struct bs_chunk *bs_share_drop(struct bs *bs, struct bs_chunk *chunk);

#endif
