/* SPDX-License-Identifier: BSD-2-Clause */
/* What snapshots and reflinks share: how the data of a file in use gets quiet. */
#ifndef BLOBFS_SHARE_H
#define BLOBFS_SHARE_H

#include "blobfs/data.h"

/*
 * Copying pages [first, last] of a file: bs_share_begin, so that pages made dirty from here on have space of their own; bfs_share_clean
 * writes home those that have none and brings the header up to date; bs_share_hold and the wait; then, in the transaction,
 * bfs_share_reserve for what has become dirty since.
 */
/* Not in a poll. A write-back that fails meanwhile is the result. */
int bfs_share_clean(struct bfs_inode *inode, uint64_t first, uint64_t last);
/* Inside a transaction: each dirty page will need a new place. -ENOSPC: there is none, and the store is not to share. */
int bfs_share_reserve(struct bfs_inode *inode, uint64_t first, uint64_t last);
/* Waits until nobody overwrites anything that was held before the call. Not in a poll. */
int bfs_share_wait(struct bfs *fs);

/* Maps whole pages of in's range in out, whose size it raises if need be, as far as it comes; not in a poll. How many bytes, from the beginning;
 * 0 or less than asked for: the rest is to be copied. The ranges do not overlap. */
uint64_t bfs_reflink(struct bfs_inode *in, uint64_t in_off, struct bfs_inode *out, uint64_t out_off, uint64_t len);

#endif
