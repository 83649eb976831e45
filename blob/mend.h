/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mending: recovery that goes on where it would refuse, and tells the reporter what it gave up. What it made of the device is then
 * written as a new checkpoint and a new log into free space, and only then do the superblocks name them: until that the device
 * is as it was.
 */
#ifndef BLOB_MEND_H
#define BLOB_MEND_H

#include "blob/device.h"

struct bs_mend_put { /* a run that a record put: kept to tell which of two claims of a block is newer */
	uint64_t blob, logical, phys, count, lsn;
};
struct bs_mend {
	uint32_t flags;       /* enum bs_mend_flags */
	uint64_t root;        /* a blob that is to be there; 0: none */
	struct bs_mend_put *put, *lost; /* applied; of records that were given up and can still be read */
	size_t n_put, put_room, n_lost, lost_room;
	uint64_t last_lsn, last_seq, last_id; /* highest seen anywhere, given up or not */
	bool index_lost;      /* an index page of the checkpoint */
};

#define BS_MEND_SANE (UINT64_MAX / 4) /* an LSN, a sequence or an id beyond is no number that was ever given out */

static inline bool bs_mending(const struct bs *bs)
{
	return bs->reporter && bs->reporter->mend;
}
/* A record of a blob that cannot ever have been: reported, not to be applied. */
bool bs_mend_refuses(struct bs *bs, const struct bs_rec *rec, const char *pass, uint64_t block);
/* Notes the runs of a record that is applied, or was given up. -ENOMEM. */
int bs_mend_note(struct bs *bs, const struct bs_rec *rec, uint64_t lsn, bool lost);
/* A blob without a header is there after all: an empty header for it. Counted once, in the tree. -ENOMEM. */
int bs_mend_make_blob(struct bs *bs, uint64_t id, uint64_t lsn, struct bs_blob **out);
/* The superblock to go by, with a mount id and a generation of its own (mend_super.c). */
int bs_mend_super(struct bs *bs, struct bs_sb_disk *sb, struct base_err *err);
/* The newest superblock that the store's metadata can tell of (mend_find.c). */
int bs_mend_find_super(struct bs *bs, struct bs_sb_disk *sb, struct base_err *err);
/* Reports every blob whose header was made up, and makes the root. */
int bs_mend_blobs(struct bs *bs);
/* Unmaps a range, or flags it as shared, in memory only (mend_space.c). -ENOMEM. */
int bs_mend_change(struct bs *bs, enum bs_rec_op op, unsigned kind, uint64_t id, uint64_t logical, uint64_t count);
/* Every block gets one owner (mend_space.c). */
int bs_mend_space(struct bs *bs);
/* The log goes on in a new segment (mend_log.c). */
int bs_mend_log_restart(struct bs *bs, struct base_err *err);
/* The header of the segment that begins with frame seq, wherever it lies; false: there is none, or none can be read. */
bool bs_mend_find_segment(struct bdev_channel *ch, const struct bs_sb_disk *sb, uint64_t seq, uint64_t *block, uint64_t *nonce);
/* Reads what can be read: other blocks are zeroes. How many of those there are, or -ENOMEM. */
int bs_mend_read(struct bdev_channel *ch, void *buf, uint64_t block, uint32_t blocks);
/* Is this a header of a segment of the store, by what it says itself? */
bool bs_mend_segment_ok(const uint8_t uuid[16], const void *buf, uint64_t block);

#endif
