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
 *   bs->maplock[i]  rwlock by blob id: taken for writing by bs_apply (under bs->lock), for reading by lookups; data I/O looks at runs
 *                   without it while nobody changes any (epoch.h), so what changes runs, sharers or what is carried calls bs_maps_change first
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
#include "blob/idtable.h"

#define BS_MAPLOCKS 256u
/* libbsd's RB_GENERATE_STATIC needs a macro of the BSDs that glibc has not. */
#define BS_RB_GENERATE(name, type, field, cmp) \
	RB_GENERATE_INTERNAL(name, type, field, cmp, __attribute__((unused)) static)

/* ---- record.c: encoding, decoding, validation, text ----
 * Decoding refuses: blob 0 or over BS_ID_MAX; a DEL of RUN that reaches over 2^40 blocks (to unmap "to the end" write count
 * 2^40 - key); run flags other than UNWRITTEN, SHARED and SUM, and UNWRITTEN with another; a header's size over 2^52; the reserved kinds. */
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
/* How long a record says it is that bs_rec_decode refuses: its size, or -EUCLEAN when that cannot be. */
int bs_rec_skip(const void *buf, uint32_t len);
/* "put run 17: 0+8 → 4096 …" for dumps and error lines. */
void bs_rec_text(const struct bs_rec *rec, char *buf, size_t len);

struct bs_run { /* a run in memory: 16 bytes, as on the device */
	uint64_t phys_lo : 24, logical : 40; /* logical highest, so that two runs compare by the whole word */
	uint64_t phys_hi : 16, count : 40, flags : 8;
};
static_assert(sizeof(struct bs_run) == 16, "runs are 16 bytes in memory");
static inline uint64_t bs_run_phys(const struct bs_run *r) { return (uint64_t)r->phys_hi << 24 | r->phys_lo; }
/* Not in 40 bits, as the compiler reckons with such fields: a run may end where no other can begin. */
static inline uint64_t bs_run_end(const struct bs_run *r) { return (uint64_t)r->logical + r->count; }
void bs_run_set(struct bs_run *r, uint64_t logical, uint64_t phys, uint64_t count, unsigned flags);
void bs_run_to_disk(const struct bs_run *r, struct bs_run_disk *d);
void bs_run_from_disk(const struct bs_run_disk *d, struct bs_run *r);

/* ---- runmap.c: one blob's runs; lookup costs a logarithm ---- */

#define BS_CHUNK_RUNS 256u
struct bs_chunk { /* runs in order, in a red-black tree by the first one's logical block; or extents in a list */
	union {
		RB_ENTRY(bs_chunk) node;
		struct bs_chunk *next;
	};
	uint16_t n, cap;
	struct bs_run run[];
};
RB_HEAD(bs_chunk_tree, bs_chunk);
struct bs_run_counts { /* blocks mapped; of these, how many are unwritten, and how many lie in runs flagged shared */
	uint64_t blocks : 42, unwritten : 42, shared : 42;
} __attribute__((packed));
static_assert(sizeof(struct bs_run_counts) == sizeof(struct bs_run), "the counts fit where one run is held");
struct bs_runmap {
	uint64_t runs;
	union {
		struct bs_run one; /* runs is 1: this is it, and no chunk is needed */
		struct bs_run_counts counts;
	};
	struct bs_chunk_tree chunks;
};
static inline uint64_t bs_runmap_blocks(const struct bs_runmap *map)
{
	if (map->runs == 1)
		return map->one.count;
	return map->counts.blocks;
}
static inline uint64_t bs_runmap_unwritten(const struct bs_runmap *map)
{
	if (map->runs == 1)
		return map->one.flags & BS_RUN_UNWRITTEN ? (uint64_t)map->one.count : 0;
	return map->counts.unwritten;
}
static inline uint64_t bs_runmap_shared(const struct bs_runmap *map)
{
	if (map->runs == 1)
		return map->one.flags & BS_RUN_SHARED ? (uint64_t)map->one.count : 0;
	return map->counts.shared;
}
/* Whole chunks set aside so that changes of maps cannot fail: one for each run put, one for each range deleted, and
 * those that take up what becomes unmapped. The store keeps one such pool, under bs->lock. */
struct bs_spare {
	struct bs_chunk *list;
	uint32_t n;
};
int bs_spare_fill(struct bs_spare *spare, uint32_t n); /* to at least n chunks; -ENOMEM */
struct bs_chunk *bs_spare_take(struct bs_spare *spare); /* never called on an empty pool */
void bs_spare_give(struct bs_spare *spare, struct bs_chunk *chunk);
void bs_spare_trim(struct bs_spare *spare, uint32_t n); /* down to n */
void bs_runmap_init(struct bs_runmap *map);
void bs_runmap_free(struct bs_runmap *map);
/* The run or hole at block, clipped to max. */
void bs_runmap_lookup(const struct bs_runmap *map, uint64_t block, uint64_t max, struct bs_extent *out);
/* Where what becomes unmapped goes. NULL: nowhere. */
struct bs_sink {
	void (*extent)(struct bs_sink *sink, uint64_t phys, uint64_t count, unsigned flags);
	void (*chunk)(struct bs_sink *sink, struct bs_chunk *chunk); /* takes over a whole one */
};
/* Maps a run over whatever was there; merges with neighbours. Takes at most one chunk of the pool. */
void bs_runmap_put(struct bs_runmap *map, const struct bs_run *run, struct bs_spare *spare, struct bs_sink *sink);
/* Unmaps a range; at most one chunk of the pool. */
void bs_runmap_del(struct bs_runmap *map, uint64_t block, uint64_t count, struct bs_spare *spare, struct bs_sink *sink);
/* Flags what is mapped and written in a range as shared; at most BS_SHARE_CHUNKS chunks of the pool. */
#define BS_SHARE_CHUNKS 4u
void bs_runmap_share(struct bs_runmap *map, uint64_t block, uint64_t count, struct bs_spare *spare);
bool bs_runmap_all_shared(const struct bs_runmap *map, uint64_t block, uint64_t count);
/* Takes some chunk out of what was a map's tree; NULL when it is empty. */
struct bs_chunk *bs_chunks_pop(struct bs_chunk_tree *chunks);
uint64_t bs_runmap_end(const struct bs_runmap *map); /* block after the last one mapped */
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

/* ---- carry.c: bytes carried in the log, by block ---- */

struct bs_carried {
	RB_ENTRY(bs_carried) node;
	uint64_t block, lsn; /* lsn: of what was put last */
	uint32_t from, to;   /* bytes of the block */
	uint32_t base;       /* the byte that data begins with: in recovery no more is taken than what came */
	uint8_t data[];
};
RB_HEAD(bs_carried_tree, bs_carried);
#define BS_CARRY_BLOCKS 1024u /* at once in one store, at most */
struct bs_prep;
/* bs->lock or the blob's maplock held, or inside a look (epoch.h). The first at or after block; is there any in the range? */
struct bs_carried *bs_carried_from(const struct bs_blob *blob, uint64_t block);
bool bs_carried_any(const struct bs_blob *blob, uint64_t block, uint64_t count);
/* One with room for what is carried and what rec puts over it. bs->lock held. -ENOMEM. */
int bs_carried_prep(struct bs *bs, const struct bs_rec *rec, struct bs_carried **out);
/* bs->lock held, after bs_maps_change, and the maplock for writing: keep bs->meta_bytes and n_carried. */
void bs_carried_put(struct bs *bs, struct bs_blob *blob, const struct bs_rec *rec, uint64_t lsn, struct bs_prep *prep);
void bs_carried_del(struct bs *bs, struct bs_blob *blob, uint64_t block, uint64_t count);
/* As a record's value, in at most sizeof(struct bs_carried_disk) + BS_BLOCK bytes; returns how many. */
uint32_t bs_carried_value(const struct bs_carried *c, void *value);
/* What is carried in the range, as a number that changes with it; 0: nothing. No lock held. */
uint64_t bs_carried_state(struct bs_blob *blob, uint64_t block, uint64_t count);
/* Lays it over what a read has brought, if it is still so; false: it is not, and the read is worth nothing. */
bool bs_carried_overlay(const struct bs_io *io, uint64_t state);
uint32_t bs_carry_limit(const struct bs *bs);
bool bs_carry_has_space(struct bs *bs);

enum bs_slice_kind { BS_SLICE_INPLACE, BS_SLICE_UNWRITTEN, BS_SLICE_NEW };
struct bs_slice { /* part of a write that has one place */
	uint64_t phys;
	uint16_t off, count; /* blocks, from the write's first */
	uint16_t kind;
};
struct bs_intent { /* a data write in flight that will be published */
	LIST_ENTRY(bs_intent) link;
	uint64_t block;
	uint32_t count, n;
	bool carried;                        /* something was carried for it when it was planned, */
	uint64_t lsn;                        /* which was then */
	struct bs_slice *slice;              /* n of them, ascending */
	uint64_t wanted[BS_IO_MAX / BS_BLOCK / 64]; /* blocks not unmapped since: one bit each */
};
/* Blocks are being unmapped: writes in flight there will not publish them. bs->lock held. */
void bs_intents_unmap(struct bs_blob *blob, uint64_t block, uint64_t count);
bool bs_intents_cover(const struct bs_blob *blob, uint64_t block); /* bs->lock held */

struct bs_blob {
	RB_ENTRY(bs_blob) node;
	struct bs_blob *same_bucket; /* next in bs->by_id */
	struct bs *bs;
	uint64_t id, size, lsn;
	struct bs_item_tree items;
	struct bs_carried_tree carried;
	struct bs_runmap map;
	LIST_HEAD(, bs_intent) intents; /* under bs->lock */
	struct bs_ahead *ahead;         /* space reserved ahead for appends; NULL: none */
	uint32_t held, claims;          /* clusters reserved for its cached writes, and claims on them; under space->lock */
	uint64_t item_bytes;            /* of its items, as records */
	uint32_t n_items;
	_Atomic uint32_t refs;          /* users' counts; plus one while it is in the tree */
	uint8_t *user;                  /* header's user bytes */
	uint8_t user_len;
	bool deleted;
	bool dying : 1;                 /* deleted by the open transaction */
	bool made_up : 1;               /* mending: its header was not found */
	_Atomic bool sealed;            /* its data and its size never change; written under the maplock */
	uint32_t runs_txn;              /* low bits of the number of the last transaction that changes its runs */
	uint16_t sharers;               /* bs_share_begin without bs_share_end; lookups say shared */
	uint16_t holds;                 /* of these, how many keep writes from going over old blocks */
	uint32_t hold_epoch;            /* low bits of the epoch when the first of them did */
};
RB_HEAD(bs_blob_tree, bs_blob);

/* Tree of blobs; bs->lock held for changes. */
struct bs_blob *bs_index_find(struct bs *bs, uint64_t id); /* not counted; under bs->lock or index_lock */
struct bs_blob *bs_index_next(struct bs *bs, uint64_t id); /* lowest id >= id; same */
/* Finds up to BS_INDEX_AHEAD blobs that will be looked up next, and brings them into the processor's cache. bs->lock held. */
#define BS_INDEX_AHEAD 32u
void bs_index_prefetch(struct bs *bs, const uint64_t *id, unsigned n);
void bs_index_free(struct bs *bs);
void bs_index_insert(struct bs *bs, struct bs_blob *blob); /* takes over one count */
void bs_index_remove(struct bs *bs, struct bs_blob *blob); /* gives it back: the caller puts it */
struct bs_blob *bs_blob_new(struct bs *bs, uint64_t id);   /* not in the tree; one count; NULL: no memory */
/* Items of a blob; its maplock or bs->lock held. */
const struct bs_item *bs_item_find(const struct bs_blob *blob, unsigned kind, uint64_t key);
/* The one after item; item NULL: the first at or after (kind, key). */
const struct bs_item *bs_item_next(const struct bs_blob *blob, const struct bs_item *item, unsigned kind, uint64_t key);
void bs_item_put(struct bs_blob *blob, struct bs_item *item); /* replaces one with the same key */
void bs_item_del(struct bs_blob *blob, unsigned kind, uint64_t key);
/* Bytes a checkpoint needs for a blob's runs, at most BS_CAPTURE_RUNS a record. */
#define BS_CAPTURE_RUNS 128u
uint64_t bs_runs_bytes(uint64_t runs);
void bs_orphans_free(struct bs *bs);

/* What bs_apply needs that could fail, prepared beforehand for one record. */
struct bs_prep {
	struct bs_blob *blob; /* for a header that makes a new blob: the new struct */
	struct bs_item *item; /* for a put item */
	struct bs_carried *carried; /* for bytes carried in the log */
	uint8_t *user;        /* for a header */
	struct bs_sum_node *sums[2]; /* for checksums */
	uint32_t chunks;      /* of the pool, for runs */
};
/* Also fills bs->spare for this record (bs->lock held), on top of what bs->spare_want says others need. */
int bs_prep_make(struct bs *bs, const struct bs_rec *rec, struct bs_prep *prep);
/* For the header of a blob that exists already as memory: takes it over if it succeeds. */
int bs_prep_make_blob(struct bs *bs, const struct bs_rec *rec, struct bs_blob *blob, struct bs_prep *prep);
void bs_prep_drop(struct bs_prep *prep);
/*
 * Changes memory by one record: the one way, live and in replay. bs->lock held; takes maplocks. Blocks that become unmapped go to
 * bs_space_unmapped(lsn). Replay (bs->recovering): space is not touched (the bitmap is built afterwards), and records for absent
 * blobs are counted in bs->orphans until that blob's deletion: returns -EUCLEAN only for what corruption alone explains.
 * Keeps bs->meta_bytes, counts, next_id.
 */
int bs_apply(struct bs *bs, const struct bs_rec *rec, uint64_t lsn, struct bs_prep *prep);
/* After replay, whose pool of chunks it lets go: -EUCLEAN and a line in err if records for absent blobs were not followed by a deletion. */
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

/* ---- pauses.c: who waits for bs->lock ---- */

struct bs_live_hist {
	_Atomic uint64_t max_ns, slot[BS_HIST_SLOTS];
};
struct bs_pauses {
	_Atomic uint32_t waiters;
	struct bs_live_hist held, waited, stopped, woken, buffered;
};
/* For who acts for a caller, and for background work, which lets those go first; since: what locking returned. */
void bs_lock_foreground(struct bs *bs);
uint64_t bs_lock_background(struct bs *bs);
void bs_unlock_background(struct bs *bs, uint64_t since);
uint64_t bs_clock_ns(void); /* not the clock that tests stop */
/* Somebody has waited so long for room in the log, and in its buffer. */
struct bs_turn;
void bs_stopped(struct bs *bs, const struct bs_turn *turn);
void bs_pauses_get_stat(struct bs *bs, struct bs_stat *st);

/* ---- space.c: who owns which block ---- */

#define BS_BATCHES 8u
struct bs_batch { /* freed together: usable when lsn is durable and the epoch has passed (space_free.c) */
	struct bs_chunk *chunks, *roots; /* lists of chunks full of extents; of pointers to trees of chunks */
	uint64_t blocks, lsn, epoch;
};
struct bs_space {
	pthread_mutex_t lock;
	uint64_t *bits;               /* one a block: somebody owns it */
	uint64_t *stale;              /* one a block: freed and not discarded since; NULL: nobody wants to know (discard.c) */
	uint8_t *stale_region;        /* not 0: something of this region became stale since it was last looked through */
	uint64_t blocks, free_clusters, reserved;
	uint64_t lead;                /* mask: first bit of each cluster in a word */
	uint32_t cluster_blocks, region_words, unit_blocks;
	uint64_t n_regions, n_units, unit_hint;
	uint32_t *region_free;        /* clusters */
	uint16_t *unit_used;          /* blocks, of each aligned unit of metadata space */
	struct {
		uint64_t region, pos; /* the frontier: block in the open region; region n_regions: none open */
	} stream[BS_STREAMS];
	struct bs_batch open, ring[BS_BATCHES];
	unsigned first, closed;       /* of the ring */
	uint64_t pending;             /* blocks in all batches, and in those being released */
	uint64_t pending_shared;      /* of these, how many others may have */
	unsigned releasing;           /* batches taken out of the ring and not yet free; extents being discarded */
	_Atomic uint64_t discards, discarded;
	_Atomic bool stale_new;
	LIST_HEAD(, bs_drain_waiter) drain;
};
int bs_space_create(struct bs *bs);  /* everything free but superblocks' clusters */
void bs_space_destroy(struct bs *bs);
/* Recovery: marks [block, block+count) owned; -EUCLEAN when some of it is owned or out of range (*bad: which block). */
int bs_space_claim(struct bs *bs, uint64_t block, uint64_t count, uint64_t *bad);
struct bs_place_req;
/* Whole clusters: a run of up to want + extra clusters from the frontier of req's stream, at least 1; *block first block, *got clusters. `want`
 * of them may come out of what is held for the blob or reserved by the caller (subtracted from req). -ENOSPC when nothing is available (what log
 * and checkpoints need is owned by them already: see meta.c). */
int bs_space_alloc(struct bs *bs, struct bs_place_req *req, uint64_t want, uint64_t extra, uint64_t *block, uint64_t *got);
/* A unit of metadata space: `blocks` blocks (64 … 4096, a power of two, at least a cluster), contiguous and aligned to `blocks`, taken
 * from free space; what is reserved for others only if it must be. -ENOSPC. Only meta.c calls it; under bs->lock or not. */
int bs_space_alloc_meta(struct bs *bs, uint64_t blocks, bool must, uint64_t *block);
/* One free block inside a cluster that the calling blob owns part of (fill rule): true if it was free and is now taken. */
bool bs_space_take_block(struct bs *bs, uint64_t block);
/* Segments and checkpoint pages are counted apart from data, so that the kept reserve is known exactly: free what bs_space_alloc_meta gave with
 * bs_space_free_meta (usable at once: the caller waited for what had to be durable); recovery claims them with bs_space_claim_meta. */
void bs_space_free_meta(struct bs *bs, uint64_t block, uint64_t count);
int bs_space_claim_meta(struct bs *bs, uint64_t block, uint64_t count, uint64_t *bad);
/* At once: blocks that never became visible or whose freeing is durable already (failed writes, unused preallocation). */
void bs_space_free_now(struct bs *bs, uint64_t block, uint64_t count);
void bs_space_clear(struct bs_space *s, uint64_t block, uint64_t count); /* space->lock held */
void bs_space_own(struct bs_space *s, uint64_t block, uint64_t count);   /* the same */
/* The arrays for s->blocks blocks, free from `from` on and not counted before; stale: those for discards, too. On failure what is
 * there is the caller's. */
int bs_space_arrays(struct bs_space *s, uint64_t from, bool stale);
/* Growth (space_grow.c): prepare may fail; commit makes the new blocks free and cannot. Either takes place one at a time. */
int bs_space_grow_prepare(struct bs *bs, uint64_t blocks, struct bs_space **out);
void bs_space_grow_commit(struct bs *bs, struct bs_space *more);
void bs_space_grow_drop(struct bs_space *more);
void bs_space_drop_batches(struct bs_space *s);
/* Of these blocks, all that can be allocated are free; false: none can. By the map itself, which grows before bs->blocks. */
bool bs_space_is_free(struct bs *bs, uint64_t block, uint64_t count);
int bs_space_reserve(struct bs *bs, uint64_t clusters);
void bs_space_unreserve(struct bs *bs, uint64_t clusters);
/* A reservation that was consumed and whose space is about to be given back: it holds again. */
void bs_space_rereserve(struct bs *bs, uint64_t clusters);
void bs_space_hold_again(struct bs_blob *blob, uint64_t clusters, uint64_t claims); /* the same of what was held for the blob */
uint64_t bs_space_avail(struct bs *bs); /* clusters nobody owns or has reserved */
/* R3: what the record with this LSN unmapped: usable again once it is durable, the epoch has passed, and it is discarded, and if no
 * other run has it (flags: of the run). bs->lock held; chunks to keep extents in come from bs->spare. */
void bs_space_unmapped(struct bs *bs, uint64_t block, uint64_t count, unsigned flags, uint64_t lsn);
void bs_space_unmapped_chunk(struct bs *bs, struct bs_chunk *chunk, uint64_t lsn);
/* Same for a whole run map of a deleted blob: takes it over, in constant time. */
void bs_space_unmapped_map(struct bs *bs, struct bs_runmap *map, uint64_t lsn);
/* Of what was unmapped, so many blocks stay owned because others have them; so many of all were shared. */
void bs_space_kept(struct bs *bs, uint64_t blocks, uint64_t shared);
/* Releases what has become usable; returns blocks released. Called by the service, and before ENOSPC. bs->lock not held. */
uint64_t bs_space_release(struct bs *bs);
bool bs_space_pending(struct bs *bs);
/* Has the service commit and release when much of the free space waits for it. */
void bs_release_if_much(struct bs *bs);
/* One batch of those counted in s->releasing is free. */
void bs_space_batch_done(struct bs_space *s);
/* As a child of op: done when what others are releasing now is free. */
struct bs_drain_waiter {
	LIST_ENTRY(bs_drain_waiter) link;
	struct op *op;
};
void bs_space_drain_start(struct bs *bs, struct bs_drain_waiter *w, struct op *op);
/* Trying again for space after reclaiming: at first always, then as long as others still free some. */
#define BS_RETRIES 16u
static inline bool bs_space_try_again(struct bs *bs, unsigned tried)
{
	return !tried || (tried < BS_RETRIES && bs_space_pending(bs));
}
void bs_space_get_stat(struct bs *bs, struct bs_stat *st);

/* ---- discard.c: telling the device what is free ---- */

/* Where a walk over free space stands. */
struct bs_discard_walk {
	uint64_t at, end;   /* blocks */
	uint64_t min;       /* of the shortest extent taken, in blocks */
	uint64_t joined;    /* what begins here goes on an extent of which some was taken */
	bool stale;         /* only what became free since it was last discarded */
};
#define BS_DISCARDS 64u
struct bs_discard {     /* extents owned while they are discarded */
	struct op op;
	struct bs *bs;
	struct bdev_channel *ch;
	struct { uint64_t block, count; } ext[BS_DISCARDS];
	unsigned n, next;
	uint64_t blocks;
	struct bdev_io io[8];
};
/* Freed: to be discarded some time. space->lock held. */
void bs_space_stale(struct bs_space *s, uint64_t block, uint64_t count);
void bs_space_fresh(struct bs_space *s, uint64_t block, uint64_t count); /* or not any more */
/* Is there anything to be discarded that was not looked at? */
bool bs_discard_wanted(struct bs *bs);
void bs_discard_walk_init(struct bs *bs, struct bs_discard_walk *w);
/* Takes some extents from the walk's place on; false: there are no more. Then bs_discard_run discards and gives them back: done is called in
 * a poll of ch. */
bool bs_discard_take(struct bs *bs, struct bs_discard_walk *w, struct bs_discard *d);
void bs_discard_run(struct bs *bs, struct bdev_channel *ch, struct bs_discard *d, op_done_fn done, void *arg);
/* How long to wait after so many blocks. */
uint64_t bs_discard_pause_ms(const struct bs *bs, const struct bs_discard *d);
/* All that is stale, at once, blocking; at a close for a second at most. */
void bs_discard_all(struct bs *bs);
void bs_discard_rest(struct bs *bs);
void bs_discard_get_stat(struct bs *bs, struct bs_stat *st);

/* ---- place.c: new places for blocks of a blob ---- */

struct bs_place_req {
	struct bs_blob *blob;
	enum bs_stream stream;
	bool ahead;        /* appends may take more than they need, for those that follow */
	uint64_t reserved; /* clusters the caller has reserved; what is used of them is subtracted */
	uint64_t claims;   /* and may take of what is held for the blob; the same */
	/* Takes over a run. Non-zero: it does not, and bs_place ends with that. */
	int (*fn)(void *arg, uint64_t logical, uint64_t phys, uint64_t count);
	void *arg;
};
/* Finds places for [block, block + count): in clusters the blob owns part of, then in new ones. -ENOSPC, or fn's error: what
 * fn got before is the caller's. bs->lock held. */
int bs_place(struct bs *bs, struct bs_place_req *req, uint64_t block, uint64_t count);
struct bs_ahead { /* clusters taken ahead of an append */
	LIST_ENTRY(bs_ahead) link;
	struct bs_blob *blob;
	uint64_t group, block, left, size; /* for this logical group: first block, clusters left; of so many */
};
void bs_ahead_drop(struct bs_blob *blob); /* bs->lock held */

/* Epochs: a data operation is inside one from its lookup to its completion. */
int bs_epoch_create(struct bs *bs);
void bs_epoch_destroy(struct bs *bs);
unsigned bs_epoch_enter(struct bs *bs, struct bdev_channel *ch);
void bs_epoch_leave(struct bs *bs, struct bdev_channel *ch, unsigned epoch);
/* bs->lock held: from now on nobody looks at run maps, at who shares them, or at what is carried, but under the maplock, until
 * bs_maps_settled. Called again it does nothing. The transaction that calls it settles at its end. */
void bs_maps_change(struct bs *bs);
void bs_maps_settled(struct bs *bs);
/* Bytes a data operation on ch has moved. */
void bs_epoch_read(struct bs *bs, struct bdev_channel *ch, uint64_t bytes);
void bs_epoch_wrote(struct bs *bs, struct bdev_channel *ch, enum bs_stream stream, uint64_t bytes);
void bs_epoch_get_stat(struct bs *bs, struct bs_stat *st);
uint64_t bs_epoch_now(struct bs *bs);
/* Moves the epoch on as far as operations inside allow. What was unmapped in epoch e is out of their sight when the epoch is e + 2. */
uint64_t bs_epoch_advance(struct bs *bs);
struct bs_epoch_waiter {
	LIST_ENTRY(bs_epoch_waiter) link;
	uint64_t epoch;
	struct op *op;
};
/* As a child of op: done when the epoch has been reached. */
void bs_epoch_wait_start(struct bs *bs, struct bs_epoch_waiter *w, uint64_t epoch, struct op *op);

/* ---- meta.c: space of the log and of checkpoints (device half) ----
 * Log segments and checkpoint pages lie in units (aligned extents of sb.segment_blocks). Enough units for the log's limit and for
 * the next two checkpoints are owned at all times (allocated, so that fragmentation cannot take them): R7 costs the
 * allocator nothing: its avail is simply free less reservations. */
struct bs_meta;
/* True if a change that adds `add` bytes of items (all of the transaction's so far) still leaves that; may take more units by
 * bs_space_alloc_meta, but not of what is promised to cached writes. bs->lock held. A transaction without BS_TXN_FREES is refused (-ENOSPC) where this is false. */
bool bs_meta_fits(struct bs *bs, uint64_t add);
/* The same for a hole that makes two runs of one, which may free nothing: it may use half of what is there for changes during a capture. */
bool bs_meta_fits_hole(struct bs *bs, uint64_t add);
/* An unwritten block may become a run of its own when it is written, with a checksum of its own, and that must not fail: it counts as both. */
uint64_t bs_unwritten_bytes(const struct bs *bs);

/* ---- txn.c, for data I/O ---- */

int bs_txn_create_store(struct bs *bs);
void bs_txn_destroy_store(struct bs *bs);
/* Maps runs, ascending. alloc: their space is new and given back by a cancel. */
#define BS_PUT_RUNS 256u
int bs_txn_put_runs(struct bs_txn *txn, struct bs_blob *blob, const struct bs_run *run, uint32_t n, bool alloc);
/* For records of other files (share_txn.c): one more; how many there are; back to so many. */
int bs_txn_add(struct bs_txn *txn, const struct bs_rec *rec, uint64_t grows);
uint32_t bs_txn_mark(const struct bs_txn *txn);
void bs_txn_rewind(struct bs_txn *txn, uint32_t n);
/* May this transaction change the blob's data? Then it does. */
int bs_txn_check_data(struct bs_txn *txn, struct bs_blob *blob);
bool bs_can_share(const struct bs *bs); /* the store has that feature */
/* Does this transaction carry bytes of the block? */
bool bs_txn_carries(const struct bs_txn *txn, const struct bs_blob *blob, uint64_t block);
/* Deletes all that is carried in the range, by the transaction itself, too. */
int bs_txn_del_carried(struct bs_txn *txn, struct bs_blob *blob, uint64_t block, uint64_t count);
/* Deletes what is carried for these blocks, and was not put after lsn: they are written home with this transaction. */
int bs_txn_brought_home(struct bs_txn *txn, struct bs_blob *blob, uint64_t block, uint64_t count, uint64_t lsn);
/* Blocking, not inside a poll: what bs_reclaim_start does. */
int bs_reclaim(struct bs *bs);

/* ---- log*.c ---- */

struct bs_log;
/*
 * bs->lock held. With bytes == 0 (bs_txn_begin): may a transaction begin? -EAGAIN: the buffer is full or the log at its limit (`flags`: enum
 * bs_txn_flags; BS_TXN_FREES goes a little further): wait with nothing held, by bs_log_wait_room or, inside an op,
 * bs_log_wait_room_start, and try again. -EROFS: frozen.
 * With bytes > 0 (as a transaction grows: all its bytes so far): 0, or -E2BIG when it would be longer than a transaction may
 * be; never -EAGAIN. After success the append of that many bytes cannot fail.
 */
int bs_log_room(struct bs *bs, uint32_t flags, uint64_t bytes);
int bs_log_wait_room(struct bs *bs); /* not inside a poll */
/* Of one thread that tries again until it may begin: since_ns is when it began to wait, mine that room was given to it, which it
 * takes with BS_TXN_TURN; who comes new does not get that. */
struct bs_turn {
	uint64_t since_ns, log_ns, woken_ns, buffer_ns; /* how long it has waited for what */
	uint64_t let_ns;                                /* when the log let it go */
	bool mine, again, buffer;                       /* buffer: it waits for room in that */
};
int bs_log_wait_turn(struct bs *bs, struct bs_turn *turn);
/* The same without blocking, as a child of op (op_child_begin is done here): done when there may be room again, or with an error (frozen,
 * or the checkpoint that should make room failed). May move op to the log's driver. */
void bs_log_wait_room_start(struct bs *bs, struct op *op);
/* Appends encoded records of one whole transaction (BS_REC_END is set here, on the last); bs->lock held; sets bs->lsn to the LSN of the
 * last, and returns it. The first has the LSN bs->lsn + 1. */
uint64_t bs_log_append(struct bs *bs, const void *recs, uint32_t bytes, uint32_t count);
/* A data write completed (call it before its publication): the next commit flushes. A flush is skipped if none did since the last. */
void bs_log_data_written(struct bs *bs);
/* Somebody drives what no caller waits for (log channel, checkpoint). */
bool bs_has_service(const struct bs *bs);
/* R5. Any thread. */
void bs_freeze(struct bs *bs, int rc, const char *why);

/* Fills in what the device half knows: lsn, durable_lsn, log, checkpoint, commit, flush and replay numbers. */
void bs_device_get_stat(struct bs *bs, struct bs_stat *st);

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
	struct bs_idtable by_id;   /* the same */
	uint64_t n_blobs, n_items, n_runs, meta_bytes, next_id;
	uint64_t n_mapped;         /* blocks mapped by runs */
	uint32_t carry_limit;       /* blocks: by the size when it was opened, as it is asked for without a lock */
	_Atomic uint32_t n_carried; /* blocks that bytes are carried for; changed under lock */
	_Atomic uint64_t carries, carried_bytes; /* of all transactions since opening */
	uint64_t n_unwritten;      /* mapped blocks that are unwritten: each may become a run of its own */
	struct bs_spare spare;     /* under lock */
	uint32_t spare_want;       /* chunks the open transaction needs */
	LIST_HEAD(, bs_ahead) aheads; /* space reserved ahead, under lock */
	uint64_t lsn;              /* of the last record appended */
	bool recovering;
	struct bs_orphans *orphans;/* replay: absent blobs that records named */
	_Atomic int frozen;        /* negative errno: why */
	_Atomic uint64_t data_gen; /* data writes completed */
	struct bs_txn *txn;        /* the one transaction there can be; under lock */
	uint64_t txn_number;       /* of the open transaction, or the last */
	uint32_t txn_carries;      /* blocks that it carries bytes of */
	struct bs_epochs *epochs;
	struct bs_shares *shares;  /* share.h; under lock */
	struct bs_sums *sums;      /* sum.h; NULL: a store without data checksums */
	struct bs_space *space;
	struct bs_meta *meta;
	struct bs_log *log;
	struct bs_ckpt *ckpt;
	struct bs_service *service;
	struct bs_pauses pauses;
	struct bs_reporter *reporter; /* bs_check: where problems go */
	struct bs_sb_disk sb;      /* as last written; under lock */
};
static inline pthread_rwlock_t *bs_maplock(struct bs *bs, uint64_t id)
{
	return &bs->maplock[(id * 0x9e3779b97f4a7c15ull) >> 56];
}

/* For recovery and checks without a device half: memory half's creation and destruction. */
int bs_memory_init(struct bs *bs);    /* locks, trees, space */
void bs_memory_destroy(struct bs *bs);

#endif
