/* SPDX-License-Identifier: BSD-2-Clause */
/* A store on memory that survives closing, with a fault wrapper between. */
#ifndef TEST_BLOB_RIG_H
#define TEST_BLOB_RIG_H

#include "bdev/wrap.h"
#include "blob/blob.h"
#include "blob/format.h"

struct rig {
	struct bdev *base;  /* ours; the content lives as long as it is open */
	struct bdev *fault; /* the store's device; NULL when none is open */
	struct bs *bs;
	char name[64];
	struct base_err err;
};

/* A formatted device of so many bytes, with a volatile write cache or without. Nothing is opened. */
void rig_make(struct rig *r, uint64_t size, bool cache);
/* Opens the store through a new fault wrapper. The rc of bs_open. */
int rig_open(struct rig *r, uint32_t flags, uint64_t checkpoint_bytes);
int rig_close(struct rig *r);
void rig_abandon(struct rig *r);
void rig_drop(struct rig *r); /* abandons if open, closes the device */

/* Blocks of the device, past the store. */
void rig_read(struct rig *r, uint64_t block, void *buf, uint32_t blocks);
void rig_write(struct rig *r, uint64_t block, const void *buf, uint32_t blocks);
void rig_super(struct rig *r, struct bs_sb_disk *sb);
/* Writes both copies with a right checksum. */
void rig_put_super(struct rig *r, struct bs_sb_disk *sb);

/* One transaction: a new blob with one item (kind user, key 1, len bytes of fill); its id. */
uint64_t rig_create(struct rig *r, uint8_t fill, uint32_t len);
void rig_delete(struct rig *r, uint64_t id);
/* Writes count blocks of a blob. */
void rig_fill(struct rig *r, uint64_t id, uint64_t block, uint64_t count);
/* Length of the item and its first byte are as rig_create made them; false: no such blob. */
bool rig_has(struct rig *r, uint64_t id, uint8_t fill, uint32_t len);
/* Everything the store holds, as a checksum over a dump. */
uint32_t rig_digest(struct rig *r);

#endif
