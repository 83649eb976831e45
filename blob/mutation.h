/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Deliberate mistakes, to show that the power-cut test finds them: BS_MUTATE(name) is 0 but in the program test/mutants, which
 * compiles the store a second time and turns one on at a time.
 */
#ifndef BLOB_MUTATION_H
#define BLOB_MUTATION_H

#define BS_MUTATIONS_LIST(X) \
	X(data_flush, "the log is written without flushing the data it speaks of") \
	X(data_counted, "written data does not make the next commit flush") \
	X(log_fua, "frames are written without FUA") \
	X(header_fua, "headers of segments are written without FUA") \
	X(frame_crc, "a frame's checksum is not looked at") \
	X(super_flush, "the old checkpoint and log are free before the superblocks are durable") \
	X(pages_flush, "the superblock is written before the checkpoint's pages are durable") \
	X(ckpt_commit, "the log is not made durable up to what a checkpoint captured") \
	X(free_durable, "freed blocks are used again before their freeing is durable") \
	X(discard_durable, "freed blocks are discarded before their freeing is durable") \
	X(publish_first, "a write is published before its data is written") \
	X(in_place_new, "new data goes over the old, though it is to go to a new place") \
	X(shared_in_place, "a shared block is overwritten where it is") \
	X(shared_free, "a block is free when one of those that share it lets it go") \
	X(open_txn, "half a transaction is applied") \
	X(recovery_flush, "neither recovery nor the mark of the mount flushes") \
	X(carried_home, "bytes carried in the log stay there when their block is written home") \
	X(carried_unmap, "bytes carried in the log stay there when their block is unmapped") \
	X(carried_zero, "bytes carried in the log stay there when their block is zeroed") \
	X(carried_captured, "a checkpoint leaves out the bytes carried in the log") \
	X(carried_order, "bytes carried in the log go under those carried before") \
	X(carried_copied, "a block is shared without the bytes carried for it") \
	X(carried_fast, "what is read or written in one piece passes by the bytes carried in the log") \
	X(sum_in_place, "a block that has a checksum is overwritten where it is") \
	X(sum_rewritten, "a block that is used again keeps the checksum of what was there") \
	X(sum_captured, "checkpoints leave out checksums that are in no page yet") \
	X(sum_paged, "checksums are forgotten that were not written to their page") \
	X(sum_changed, "checksums are forgotten that came while their page was being written")

#ifdef BS_MUTATIONS
enum bs_mutation {
	BS_MUT_none,
#define X(name, what) BS_MUT_##name,
	BS_MUTATIONS_LIST(X)
#undef X
	BS_MUTATIONS_N
};
extern enum bs_mutation bs_mutation;
#define BS_MUTATE(name) (bs_mutation == BS_MUT_##name)
#else
#define BS_MUTATE(name) 0
#endif

#endif
