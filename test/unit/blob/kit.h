/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of blobs, space and data share: a store on memory, and short ways to do things
 * with it. */
#ifndef TEST_UNIT_BLOB_KIT_H
#define TEST_UNIT_BLOB_KIT_H

#include "bdev/wrap.h"
#include "blob/internal.h"
#include "test/shim/test.h"

struct kit {
	struct bdev *dev; /* as the store sees it */
	struct bs *bs;
	struct bdev *keep; /* ours: memory lives until it is closed */
	char name[64];
	bool fault;
	uint64_t checkpoint_bytes, discard_min, discard_rate;
};

struct kit_opts {
	uint64_t size;         /* 0: 64 MiB */
	uint32_t cluster_size; /* 0: 16 KiB */
	uint32_t flags;        /* enum bs_open_flags */
	bool fault;            /* under a fault wrapper */
	uint64_t checkpoint_bytes, discard_min, discard_rate;
	uint64_t store_size;   /* 0: all of the device */
	uint32_t format;       /* enum bs_format_flags */
	bool cache;            /* a volatile one */
};

/* Formats and opens; a failure ends the test. opts may be NULL. */
void kit_open(struct kit *kit, const struct kit_opts *opts);
void kit_close(struct kit *kit);
/* Opens the store again, closed in order before, or left as by a crash. */
void kit_reopen(struct kit *kit, bool crash, uint32_t flags);

uint32_t kit_rand(uint64_t *state, uint32_t below);

/* What the device has done. */
struct bdev_stats kit_device_stats(const struct kit *kit);

/* Ends a transaction as rc says, which is returned. */
int kit_end(struct bs_txn *txn, int rc);
/* One transaction each; they end the test when they fail. */
struct bs_blob *kit_create(struct bs *bs);
int kit_delete(struct bs *bs, struct bs_blob *blob);
int kit_put(struct bs *bs, struct bs_blob *blob, uint64_t key, const void *value, uint32_t len);
int kit_prealloc(struct bs *bs, struct bs_blob *blob, uint64_t block, uint64_t count);
/* Bytes of one block, in the log. */
int kit_carry(struct bs_blob *blob, uint64_t offset, const void *data, uint32_t len);

/* Blocks. Every written block is filled with `byte` unless buf says otherwise. */
int kit_write(struct bs_blob *blob, uint64_t block, uint64_t count, uint8_t byte, uint32_t flags);
int kit_write_buf(struct bs_blob *blob, uint64_t block, uint64_t count, void *buf, uint32_t flags);
int kit_read(struct bs_blob *blob, uint64_t block, uint64_t count, void *buf);
int kit_unmap(struct bs_blob *blob, uint64_t block, uint64_t count);
int kit_zero(struct bs_blob *blob, uint64_t block, uint64_t count);
/* The byte a block is filled with; -1: it is not filled with one byte. */
int kit_byte(struct bs_blob *blob, uint64_t block);

/* Turns a bit over on the device. */
void kit_flip(struct bdev *dev, uint64_t block, unsigned at);

/* A request in flight: started and polled by hand on a channel of its own. */
struct kit_io {
	struct op op;
	struct bs_io io;
	struct bdev_channel *ch;
	struct iovec iov;
};
void kit_start(struct kit_io *k, struct bs_blob *blob, enum bs_io_op what, uint64_t block,
	       uint64_t count, void *buf);
int kit_wait(struct kit_io *k);

/* Everything the store holds, as a checkpoint would have it: malloc'ed. */
uint8_t *kit_dump(struct bs *bs, size_t *len);

#endif
