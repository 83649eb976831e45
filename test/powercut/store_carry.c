/* SPDX-License-Identifier: BSD-2-Clause */
/* Level 1: bytes carried in the log. */
#include <errno.h>
#include <inttypes.h>

#include "test/powercut/store_load.h"

/* Sectors of some blocks in the log; now and then the block is unmapped before, in the same transaction. */
void store_carry(struct load *l)
{
	struct { unsigned blob; uint64_t block, counter; uint32_t from, to; bool unmap; } did[4] = { { 0 } };
	struct bs_txn *txn = store_begin(l, 0);
	unsigned n = 1 + (unsigned)rng_below(&l->run->rng, 4), tried;
	uint8_t data[BS_BLOCK];
	uint64_t lsn;
	int rc = 0;

	for (tried = 0; tried < n && !rc; tried++) {
		unsigned blob = store_pick(l);
		uint64_t block = rng_below(&l->run->rng, 12), counter = ++l->m.counter;
		uint32_t from = (uint32_t)rng_below(&l->run->rng, SM_SECTORS), to = from + 1;
		bool unmap = rng_chance(&l->run->rng, 10);
		struct bs_carried_range r = { .from = 0, .to = BS_BLOCK };

		to += (uint32_t)rng_below(&l->run->rng, SM_SECTORS - from);
		for (unsigned i = 0; i < tried; i++) /* each block once: a transaction does not see itself */
			if (did[i].blob == blob && did[i].block == block)
				block = 12 + tried;
		if (bs_carried_next(l->blob[blob], block, 1, &r)) {
			from = MIN(from, r.to / SM_SECTOR);
			to = MAX(to, r.from / SM_SECTOR);
		}
		did[tried].blob = blob, did[tried].block = block, did[tried].counter = counter;
		did[tried].from = from, did[tried].to = to, did[tried].unmap = unmap;
		sm_fill(data, l->model[blob]->id, block, counter);
		if (unmap)
			rc = bs_txn_unmap(txn, l->blob[blob], block, 1);
		if (!rc)
			rc = bs_txn_carry(txn, l->blob[blob], block * BS_BLOCK + from * SM_SECTOR, data + from * SM_SECTOR,
					  (to - from) * SM_SECTOR);
	}
	if (rc) {
		bs_txn_cancel(txn);
		l->run->coverage.full++;
		if (rc != -ENOSPC)
			store_must(l, "carry", rc);
		return;
	}
	lsn = store_end(l, txn);
	for (unsigned i = 0; i < n; i++) {
		struct model_blob *b = l->model[did[i].blob];
		struct block_change *c;

		trace(l->run, "carry blob %" PRIu64 ": block %" PRIu64 " sectors %u to %u, version %" PRIu64 ", LSN %" PRIu64 "%s", b->id,
		      did[i].block, did[i].from, did[i].to, did[i].counter, lsn, did[i].unmap ? ", unmapped before" : "");
		if (did[i].unmap)
			sm_block(b, did[i].block, B_UNMAP, 0, lsn, 0);
		c = sm_block(b, did[i].block, B_CARRY, did[i].counter, lsn, 0);
		c->from = did[i].from;
		c->to = did[i].to;
	}
}
