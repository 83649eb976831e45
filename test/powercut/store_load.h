/* SPDX-License-Identifier: BSD-2-Clause */
/* Level 1's workload: what its files share. */
#ifndef TEST_POWERCUT_STORE_LOAD_H
#define TEST_POWERCUT_STORE_LOAD_H

#include "test/powercut/store_model.h"

#define ALIVE 10u    /* blobs at once */

struct load {
	struct run *run;
	struct bs *bs;
	struct bdev_channel *ch;
	struct store_model m;
	struct bs_blob *blob[ALIVE]; /* open, with its model */
	struct model_blob *model[ALIVE];
	unsigned alive;
	uint64_t value;
	uint64_t filler, filler_end; /* blob, block; 0: none */
	uint32_t *owner;     /* of each device block, who wrote it last */
};

/* Transactions, and calls that must succeed. */
struct bs_txn *store_begin(struct load *l, uint32_t flags);
void store_must(struct load *l, const char *what, int rc);
uint64_t store_end(struct load *l, struct bs_txn *txn);
/* A blob that is not sealed. */
unsigned store_pick(struct load *l);
/* Bytes in the log (store_carry.c). */
void store_carry(struct load *l);
/* Writes all that is carried for this blob home, with new data. False: there is no space for it. */
bool store_home(struct load *l, unsigned blob);
/* Snapshots, clones, shared ranges (store_share.c). */
void store_share(struct load *l);

#endif
