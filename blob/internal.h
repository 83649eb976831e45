/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the blob store share. Two halves meet here:
 *   memory: blobs and their items (index.c), run maps (runmap.c), space (space.c), transactions (txn.c), data (io*.c)
 *   device: superblocks (super.c), the log (log*.c), checkpoints (ckpt*.c), recovery (recover.c, open.c), checking (check.c)
 * They speak in records (record.c): a transaction's records are applied to memory by bs_apply, and handed to the log by
 * bs_log_append; replay reads records and calls the same bs_apply.
 *
 * Locks, in order of acquisition; none is held while waiting for the device (R12):
 *   bs->lock        mutex: transactions, all changes of memory metadata, the log's append buffer
 *   bs->maplock[i]  rwlock by blob id: taken for writing by bs_apply (under bs->lock), for reading by lookups and data I/O
 *   bs->index_lock  rwlock: the tree of blobs by id; written under bs->lock
 *   space->lock     mutex: bitmap, reservations, pending frees (innermost; allocation by data writes takes it alone)
 *   log->lock       mutex: commit waiters and the state of the log writer (innermost; never with space->lock)
 */
#ifndef BLOB_INTERNAL_H
#define BLOB_INTERNAL_H

#include <pthread.h>
#include <bsd/sys/tree.h>
#include <bsd/sys/queue.h>

#include "base/dma.h"
#include "base/reactor.h"
#include "base/util.h"
#include "bdev/bdev.h"
#include "blob/blob.h"
#include "blob/format.h"

#define BS_MAPLOCKS 256u

/* ---- record.c: encoding, decoding, validation, text ----
 * Decoding refuses: blob 0 or over BS_ID_MAX; a DEL of RUN that reaches over 2^40 blocks (to unmap "to the end" write count
 * 2^40 - key); run flags other than UNWRITTEN; a header's size over 2^52; the reserved kinds. */
#define BS_ID_MAX (UINT64_MAX >> 1)

struct bs_rec { /* a record in memory; value points into somebody's buffer */
	uint8_t op, kind, flags;
	uint32_t len;
	uint64_t blob, key;
	const void *value;
};
static inline uint32_t bs_rec_size(uint32_t value_len)
{
	return (uint32_t)(sizeof(struct bs_rec_disk) + ((value_len + 7u) & ~7u));
}
/* Encodes into buf (bs_rec_size(rec->len) bytes); returns the size. */
uint32_t bs_rec_encode(const struct bs_rec *rec, void *buf);
/* Decodes one record from at most `len` bytes: its encoded size, or -EUCLEAN. Checks lengths, op, kind, padding and the value's
 * own shape by kind (table), and runs against `blocks`, the size of the store. */
int bs_rec_decode(const void *buf, uint32_t len, uint64_t blocks, struct bs_rec *rec);
/* "put run 17: 0+8 → 4096 …" for dumps and error lines. */
void bs_rec_text(const struct bs_rec *rec, char *buf, size_t len);

struct bs_run { /* a run in memory, as on the device: 16 bytes */
	uint64_t logical : 40, phys_lo : 24;
	uint64_t phys_hi : 16, count : 40, flags : 8;
};
static_assert(sizeof(struct bs_run) == 16, "runs are 16 bytes in memory");
static inline uint64_t bs_run_phys(const struct bs_run *r) { return (uint64_t)r->phys_hi << 24 | r->phys_lo; }
void bs_run_set(struct bs_run *r, uint64_t logical, uint64_t phys, uint64_t count, unsigned flags);
void bs_run_to_disk(const struct bs_run *r, struct bs_run_disk *d);
void bs_run_from_disk(const struct bs_run_disk *d, struct bs_run *r);

/* ---- runmap.c: one blob's runs; lookup costs a logarithm ---- */

struct bs_chunk; /* up to 64 runs, in a red-black tree by first logical block */
RB_HEAD(bs_chunk_tree, bs_chunk);
struct bs_runmap {
	struct bs_chunk_tree chunks;
	uint64_t runs, blocks; /* number of runs, of blocks mapped */
};
/* Memory set aside so that a change of the map cannot fail. */
struct bs_runmap_spare {
	struct bs_chunk *chunk[4];
	unsigned n;
};
int bs_runmap_spare_fill(struct bs_runmap_spare *spare); /* -ENOMEM */
void bs_runmap_spare_drop(struct bs_runmap_spare *spare);
void bs_runmap_init(struct bs_runmap *map);
void bs_runmap_free(struct bs_runmap *map);
/* The run or hole at block, clipped to max. */
void bs_runmap_lookup(const struct bs_runmap *map, uint64_t block, uint64_t max, struct bs_extent *out);
/* Calls fn for each physical extent the change unmaps, in logical order. */
typedef void (*bs_unmapped_fn)(uint64_t logical, uint64_t phys, uint64_t count, unsigned flags, void *arg);
/* Maps a run over whatever was there; merges with neighbours. Cannot fail with a filled spare. */
void bs_runmap_put(struct bs_runmap *map, const struct bs_run *run, struct bs_runmap_spare *spare, bs_unmapped_fn fn, void *arg);
void bs_runmap_del(struct bs_runmap *map, uint64_t block, uint64_t count, struct bs_runmap_spare *spare, bs_unmapped_fn fn, void *arg);
/* Copies up to n runs that end after `block`, in order (not clipped); returns how many. */
unsigned bs_runmap_copy(const struct bs_runmap *map, uint64_t block, struct bs_run *out, unsigned n);

/* ---- index.c: blobs and items in memory ---- */

struct bs_item { /* an item of an upper layer's kind */
	RB_ENTRY(bs_item) node;
	uint64_t key;
	uint32_t len;
	uint8_t kind;
	uint8_t value[];
};
RB_HEAD(bs_item_tree, bs_item);

struct bs_intent; /* a data write in flight (io.c) */

struct bs_blob {
	RB_ENTRY(bs_blob) node;
	struct bs *bs;
	uint64_t id, size, lsn;
	struct bs_item_tree items;
	struct bs_runmap map;
	LIST_HEAD(, bs_intent) intents; /* under bs->lock */
	struct bs_ahead *ahead;         /* space reserved ahead for appends; NULL: none */
	uint32_t n_items;
	_Atomic uint32_t refs;          /* users' counts; plus one while it is in the tree */
	uint8_t *user;                  /* header's user bytes */
	uint8_t user_len;
	bool deleted;
};
RB_HEAD(bs_blob_tree, bs_blob);

/* Tree of blobs; bs->lock held for changes. */
struct bs_blob *bs_index_find(struct bs *bs, uint64_t id); /* not counted; under bs->lock or index_lock */
struct bs_blob *bs_index_next(struct bs *bs, uint64_t id); /* lowest id >= id; same */
void bs_index_free(struct bs *bs);

/* What bs_apply needs that could fail, prepared beforehand for one record. */
struct bs_prep {
	struct bs_blob *blob; /* for a header that makes a new blob: the new struct */
	struct bs_item *item; /* for a put item */
	uint8_t *user;        /* for a header */
	struct bs_runmap_spare spare;
};
int bs_prep_make(struct bs *bs, const struct bs_rec *rec, struct bs_prep *prep);
void bs_prep_drop(struct bs_prep *prep);
/*
 * Changes memory by one record: the one way, live and in replay. bs->lock held; takes maplocks. Blocks that become unmapped go to
 * bs_space_unmapped(lsn). Replay (bs->recovering): space is not touched (the bitmap is built afterwards), and records for absent
 * blobs are counted in bs->orphans until that blob's deletion: returns -EUCLEAN only for what corruption alone explains.
 * Keeps bs->meta_bytes, counts, next_id.
 */
int bs_apply(struct bs *bs, const struct bs_rec *rec, uint64_t lsn, struct bs_prep *prep);
/* After replay: -EUCLEAN and a line in err if records for absent blobs were not followed by a deletion. */
int bs_apply_finish(struct bs *bs, struct base_err *err);

/* Capture for the checkpoint, bs->lock held: encodes the items from `cursor` on, in order of blob, kind, key, into buf until it is
 * full; advances cursor; returns bytes; *count records; 0: nothing left. first: key of the first record. A single record larger than
 * len asks for it in *need. */
struct bs_cursor {
	uint64_t blob, key;
	uint32_t kind;
};
uint32_t bs_capture(struct bs *bs, struct bs_cursor *cursor, void *buf, uint32_t len, struct bs_cursor *first,
		    uint32_t *count, uint32_t *need);

/* ---- space.c: who owns which block ---- */

struct bs_space;
int bs_space_create(struct bs *bs);  /* everything free but superblocks' clusters */
void bs_space_destroy(struct bs *bs);
/* Recovery: marks [block, block+count) owned; -EUCLEAN when some of it is owned or out of range (*bad: which block). */
int bs_space_claim(struct bs *bs, uint64_t block, uint64_t count, uint64_t *bad);
/* Whole clusters: a run of up to want clusters from stream's frontier, at least 1; *block first block, *got clusters. `reserved`: how many of them
 * may come out of reservations the caller holds (they are consumed). -ENOSPC when nothing is available beyond what is kept
 * for checkpoint and log. */
int bs_space_alloc(struct bs *bs, enum bs_stream stream, uint64_t want, uint64_t reserved, uint64_t *block, uint64_t *got);
/* For log segments and checkpoint pages: contiguous `blocks`, may use the kept reserve. */
int bs_space_alloc_meta(struct bs *bs, uint64_t blocks, uint64_t *block);
/* One free block inside a cluster that the calling blob owns part of (fill rule): true if it was free and is now taken. */
bool bs_space_take_block(struct bs *bs, uint64_t block);
/* At once: blocks that never became visible or whose freeing is durable already (failed writes, unused preallocation). */
void bs_space_free_now(struct bs *bs, uint64_t block, uint64_t count);
/* R3: blocks unmapped by the record with this LSN: usable again once it is durable, the epoch has passed, and they are discarded. */
void bs_space_unmapped(struct bs *bs, uint64_t block, uint64_t count, uint64_t lsn);
/* Same for a whole run map of a deleted blob: takes it over. */
void bs_space_unmapped_map(struct bs *bs, struct bs_runmap *map, uint64_t lsn);
/* Releases what has become usable; returns blocks released. Called by the service, and before ENOSPC. */
uint64_t bs_space_release(struct bs *bs);
bool bs_space_pending(struct bs *bs);
/* The reserve kept for the next full checkpoint and the log, in clusters, follows meta_bytes (R7): true if a transaction that adds
 * `add` bytes of items still leaves it. */
bool bs_space_meta_fits(struct bs *bs, uint64_t add);
void bs_space_get_stat(struct bs *bs, struct bs_stat *st);
uint64_t bs_ckpt_need_blocks(uint64_t meta_bytes); /* ckpt.c: upper bound of a full checkpoint's size */
uint64_t bs_log_limit_blocks(const struct bs *bs); /* log.c: what the log may hold at most */

/* Epochs: a data operation is inside one from its lookup to its completion. */
unsigned bs_epoch_enter(struct bs *bs, struct bdev_channel *ch);
void bs_epoch_leave(struct bs *bs, struct bdev_channel *ch, unsigned epoch);

/* ---- log*.c ---- */

struct bs_log;
/* Room in the append buffer and below the log's limit for bytes; bs->lock held. -EAGAIN: must wait (bs_log_wait_room with nothing held);
 * -ENOMEM. After success the append of that many bytes cannot fail. */
int bs_log_room(struct bs *bs, uint64_t bytes);
int bs_log_wait_room(struct bs *bs);
/* Appends encoded records of one whole transaction; bs->lock held; returns the LSN of the last. */
uint64_t bs_log_append(struct bs *bs, const void *recs, uint32_t bytes, uint32_t count);
/* A data write completed / a flush may be skipped if none did since the last (data_gen). */
void bs_log_data_written(struct bs *bs);
/* R5. Any thread. */
void bs_freeze(struct bs *bs, int rc, const char *why);

/* ---- the store ---- */

struct bs {
	struct bdev *dev;
	uint32_t flags;            /* enum bs_open_flags */
	struct bs_open_opts opts;
	uint64_t blocks;
	uint32_t cluster_blocks, cluster_shift; /* in blocks; log2 */
	pthread_mutex_t lock;
	pthread_rwlock_t maplock[BS_MAPLOCKS];
	pthread_rwlock_t index_lock;
	struct bs_blob_tree blobs;
	uint64_t n_blobs, n_items, n_runs, meta_bytes, next_id;
	uint64_t lsn;              /* of the last record appended */
	bool recovering;
	struct bs_orphans *orphans;/* replay: absent blobs that records named */
	_Atomic int frozen;        /* negative errno: why */
	_Atomic uint64_t data_gen; /* data writes completed */
	_Atomic uint64_t data_read_bytes, data_write_bytes;
	struct bs_txn *txn;        /* the one transaction there can be; under lock */
	struct bs_space *space;
	struct bs_log *log;
	struct bs_ckpt *ckpt;
	struct bs_service *service;
	struct bs_sb_disk sb;      /* as last written */
};
static inline pthread_rwlock_t *bs_maplock(struct bs *bs, uint64_t id)
{
	return &bs->maplock[(id * 0x9e3779b97f4a7c15ull) >> 56];
}

/* For recovery and checks without a device half: memory half's creation and destruction. */
int bs_memory_init(struct bs *bs);    /* locks, trees, space */
void bs_memory_destroy(struct bs *bs);

#endif
