/* SPDX-License-Identifier: BSD-2-Clause */
/* Level 1's model: what each blob, item and block was at each LSN. */
#ifndef TEST_POWERCUT_STORE_MODEL_H
#define TEST_POWERCUT_STORE_MODEL_H

#include "blob/blob.h"
#include "test/powercut/powercut.h"

#define SM_BLOCKS 64u /* of a blob that the workload touches */
#define SM_ITEMS 6u
#define SM_KIND (BS_KIND_USER + 3)
#define SM_SECTOR 512u
#define SM_SECTORS (BS_BLOCK / SM_SECTOR)

/* What happened to a block. lsn is that of the record; 0: overwritten in place. A block that is shared is published anew where it came from
 * and where it went: all that was written over it before is durable with the record. ALLOC: mapped, and still zeroes. CARRY: some of its
 * sectors are in the log. HOME: overwritten in place, which ends what was carried. */
enum block_event { B_PUBLISH, B_IN_PLACE, B_UNMAP, B_ZERO, B_ALLOC, B_CARRY, B_HOME,
		   B_UNDER_ZERO /* written over the old bytes of a zeroed block, and lost before it was published */ };
struct block_change {
	enum block_event what;
	uint64_t counter;   /* PUBLISH, IN_PLACE: what was written */
	uint64_t blob, block; /* and by whom, as which */
	uint64_t lsn;
	uint64_t submitted; /* event before which it was not on its way to the device */
	uint64_t durable;   /* event at which a commit that covers it had been acknowledged; UINT64_MAX: none */
	uint32_t from, to;  /* CARRY: sectors */
	bool shared;        /* PUBLISH: by sharing, which wrote nothing */
	bool anew;          /* PUBLISH: in another place, whatever the block has */
};
struct item_change {
	uint64_t lsn, value; /* 0: deleted */
};
struct header_change {
	uint64_t lsn, size, user;
};

struct block_history {
	struct block_change *c;
	size_t n, cap;
};
struct item_history {
	struct item_change *c;
	size_t n, cap;
};
struct model_blob {
	uint64_t id, born, died; /* LSNs; died UINT64_MAX: alive */
	bool filler;             /* only takes space */
	bool sealed;
	struct header_change *headers;
	size_t n_headers, headers_cap;
	struct item_history items[SM_ITEMS];
	struct block_history blocks[SM_BLOCKS];
};
struct txn_end {
	uint64_t lsn, issued; /* event when it was appended */
	bool spans;           /* perhaps several frames: more than one record at the end of a segment may */
};

struct store_model {
	struct model_blob **blobs;
	size_t n_blobs, blobs_cap;
	struct txn_end *txns;
	size_t n_txns, txns_cap;
	struct ack *acks;
	size_t n_acks, acks_cap;
	uint64_t counter; /* of writes: each has its own */
	bool wide;        /* a long transaction is not durable yet */
	bool own_txns;    /* the store makes some that nobody asked for: it pages out checksums */
};

struct model_blob *sm_new_blob(struct store_model *m, uint64_t id, uint64_t lsn);
void sm_header(struct model_blob *b, uint64_t lsn, uint64_t size, uint64_t user);
void sm_item(struct model_blob *b, unsigned key, uint64_t lsn, uint64_t value);
struct block_change *sm_block(struct model_blob *b, uint64_t block, enum block_event what, uint64_t counter, uint64_t lsn,
			      uint64_t submitted);
/* A block of one blob gets what a block of another has. */
void sm_share(struct model_blob *from, uint64_t block, struct model_blob *to, uint64_t to_block, uint64_t lsn);
/* The size, and an item's value, as last put; 0: no such item. */
uint64_t sm_size(const struct model_blob *b);
uint64_t sm_value(const struct model_blob *b, unsigned key);
/* Is it zeroes since the last change of its place? */
bool sm_is_zeroed(const struct block_history *h);
void sm_txn(struct store_model *m, uint64_t lsn, uint64_t event, bool spans);
/* A commit of everything was acknowledged at `event`. */
void sm_ack(struct store_model *m, uint64_t lsn, uint64_t event);
/* The same while writes are under way, of which nothing is said. */
void sm_ack_txns(struct store_model *m, uint64_t lsn, uint64_t event);
/* The process died and recovery came back to lsn: what is above it never happened. */
void sm_forget_after(struct store_model *m, uint64_t lsn);
void sm_free(struct store_model *m);

/* Fills one block with sectors that say whose they are. */
void sm_fill(void *block, uint64_t blob, uint64_t number, uint64_t counter);
/* The value of an item: `len` bytes made from `value`. */
#define SM_VALUE_MAX 65536u
#define SM_LONG (1ull << 40) /* in a value: tens of kilobytes */
uint32_t sm_item_bytes(uint64_t value, uint8_t *out);
/* Compares an opened store, recovered to its LSN, with the model at a cut. */
bool sm_verify(const struct store_model *m, struct run *run, struct bs *bs, uint64_t lsn, uint64_t event);

/* Everything there is to be seen of a medium after a cut at `event`. */
bool sm_verify_state(const struct store_model *m, struct run *run, uint64_t event, struct bdev *(*open_state)(void *arg), void *arg);

#endif
