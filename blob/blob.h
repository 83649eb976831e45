/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * blob: a transactional store of blobs on one device.
 *
 * A blob has an id (never reused), a header {size, user bytes}, items (kind, key) → bytes, and data: a sparse
 * array of 4 KiB blocks mapped by runs. Metadata is changed by transactions, in memory and in the log; data is read
 * and written on channels. Nothing is durable before a commit: see bs_commit_start.
 *
 * Threads: every function may be called from any thread unless it says otherwise.
 * Errors: negative errno. -EROFS: opened read-only, or frozen after a failed log write or flush (the first error is in
 * bs_stat). -EIO / -EBADMSG (EUCLEAN where metadata on the device is wrong). -ENOSPC is decided when space
 * is reserved, never later. -ENOMEM changes nothing.
 */
#ifndef BLOB_BLOB_H
#define BLOB_BLOB_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/api.h"
#include "base/err.h"
#include "base/op.h"
#include "bdev/bdev.h"

BLOBFS_C_BEGIN

struct bs;
struct bs_blob;
struct bs_txn;
struct reactor;

#define BS_BLOCK 4096u        /* unit of addressing and of atomicity between readers and writers */
#define BS_USER_MAX 160u      /* user bytes in a blob's header */
#define BS_VALUE_MAX 65536u   /* bytes of an item's value */
#define BS_IO_MAX (1u << 20)  /* bytes of one bs_io */
#define BS_MIN_SIZE (40u << 20)

/* Item kinds below BS_KIND_USER are the store's; the others are opaque to it. */
enum bs_kind {
	BS_KIND_HEADER = 0,
	BS_KIND_RUN = 1,
	BS_KIND_LOGDATA = 2, /* bytes carried in the log: bs_txn_carry */
	BS_KIND_SHARE = 3,   /* a range of runs that became shared */
	BS_KIND_SUM = 4,     /* data checksums that are in no page yet */
	BS_KIND_BESIDE = 5,  /* reserved, refused: checksums of data that one flush makes durable together with the transaction */
	BS_KIND_USER = 16,
	BS_KIND_MAX = 63
};

/* Write streams: where data of like lifetime is put together. */
enum bs_stream { BS_STREAM_UNKNOWN, BS_STREAM_META, BS_STREAM_SHORT, BS_STREAM_LONG, BS_STREAMS };

/* ---- making and opening ---- */

struct bs_format_opts {
	uint32_t size;         /* sizeof(struct bs_format_opts) */
	uint32_t cluster_size; /* 4096 … 65536, power of two; 0: 16384 */
	uint8_t uuid[16];      /* all zero: random */
	char label[64];        /* UTF-8, zero-terminated */
	char owner[16];        /* what lives in the store: "blobfs" */
	uint64_t store_size;   /* bytes of the device that the store takes; 0: all. See bs_grow */
	uint32_t flags;        /* enum bs_format_flags */
};
enum bs_format_flags {
	BS_FORMAT_SUMS = 1 << 0, /* data checksums: each block written has one, is never overwritten where it is, and is verified when read */
};
/* Writes an empty store over the device, durable when it returns. Old superblocks are invalidated first.
 * -EINVAL (options, device below BS_MIN_SIZE, block size over 4096), -EIO. opts may be NULL. */
BLOBFS_API int bs_format(struct bdev *dev, const struct bs_format_opts *opts, struct base_err *err);

enum bs_open_flags {
	BS_RDONLY = 1 << 0,    /* replays in memory, writes nothing, has no service thread */
	BS_NO_SERVICE = 1 << 1,/* writable without a service thread (tests): the caller calls bs_service_step */
	BS_DISCARD = 1 << 2,   /* freed space is discarded before it is used again */
	BS_GROW = 1 << 4,      /* grows into all of the device at once (bs_grow); what keeps it from that keeps it from opening */
	BS_BREAK_SEALS = 1 << 3, /* repair: transactions may change the size and the runs of what is sealed, which stays sealed */
};
struct bs_open_opts {
	uint32_t size;             /* sizeof(struct bs_open_opts) */
	uint32_t flags;            /* enum bs_open_flags */
	uint32_t commit_ms;        /* commit what is uncommitted at least so often; 0: 1000 */
	uint64_t checkpoint_bytes; /* log bytes that start a checkpoint; 0: max(56 MiB, half the last checkpoint), less on small stores */
	void *log_arena;           /* memory for the log buffer inside the caller's arena, offset-addressed; NULL: own */
	uint64_t log_arena_size;
	uint64_t discard_min;      /* BS_DISCARD: bytes of the shortest extent worth a discard; 0: 64 KiB */
	uint64_t discard_rate;     /* bytes a second, at most; 0: 1 GiB */
};
/*
 * Recovers and opens a store. Takes over `dev` on success: bs_close closes it. Read work is the checkpoint and the
 * log, nothing else. -EINVAL: not a store; -ENOTSUP: a newer format or unknown incompatible feature (named); -EUCLEAN:
 * corrupted (block named; fsck); -EFBIG: device smaller than the store; -EIO, -ENOMEM, -EROFS (device read-only and
 * BS_RDONLY not given).
 */
BLOBFS_API int bs_open(struct bdev *dev, const struct bs_open_opts *opts, struct bs **out, struct base_err *err);
/* Commits, writes a checkpoint if anything changed since the last, stops the service thread, frees everything.
 * Every blob must have been put. Returns the first error; the store is closed in any case. */
BLOBFS_API int bs_close(struct bs *bs);
/* As if the process had died: nothing is written. Tests. */
BLOBFS_API void bs_abandon(struct bs *bs);

/* Durations: slot 0 counts those below 1 us, slot i those below 2^i us and not in the one before; the last has the rest. */
#define BS_HIST_SLOTS 28u
struct bs_hist {
	uint64_t count, max_ns;
	uint64_t slot[BS_HIST_SLOTS];
};
/* The duration that `part` (0 … 1) of them do not exceed: the end of its slot, or the longest; 0: there is none. */
BLOBFS_API uint64_t bs_hist_quantile(const struct bs_hist *h, double part);

struct bs_stat {
	uint8_t uuid[16];
	char label[64], owner[16];
	uint16_t version_major, version_minor;
	uint32_t cluster_size;
	bool readonly, frozen;
	bool closed;             /* opened read-only: the store was closed in order */
	int frozen_rc;           /* why */
	uint64_t blocks;         /* of the device, 4 KiB */
	uint64_t free_blocks;    /* not owned by anything */
	uint64_t avail_blocks;   /* free_blocks less reservations and what checkpoint and log may need */
	uint64_t used_blocks;    /* mapped by runs, shared ones once */
	uint64_t saved_blocks;   /* what more would be used if nothing were shared */
	uint64_t pending_blocks; /* freed, not yet allowed to be used again; being discarded */
	uint64_t discards, discarded_bytes; /* since opening */
	uint64_t reserve_bytes;  /* owned for log and checkpoints, in use or not */
	uint64_t meta_bytes;     /* size of all items as a checkpoint would hold them */
	uint64_t blobs, runs, items;
	uint64_t next_id;
	uint64_t lsn, durable_lsn, checkpoint_lsn;
	uint64_t log_bytes, log_limit;  /* live log on the device, and where writers begin to wait */
	uint64_t checkpoints, commits, log_writes, log_write_bytes, flushes;
	uint64_t log_segments;   /* begun since opening */
	/* What the device was given and why: data, log (log_write_bytes, headers of segments among it), checkpoints (superblocks among
	 * them), zeroes written as such. */
	uint64_t data_read_bytes, data_write_bytes, checkpoint_bytes, zero_write_bytes;
	uint64_t stream_bytes[BS_STREAMS]; /* of data_write_bytes, by stream */
	uint64_t device_write_bytes;       /* everything written to the device, since that was opened */
	uint64_t replayed_records, replayed_bytes; /* at open */
	struct bs_hist held;     /* the store's lock, by checkpoints and other background work, each time */
	struct bs_hist waited;   /* for that lock, by transactions and writes that found it taken */
	struct bs_hist stopped;  /* for room in the log, which checkpoints make, by transactions, until it is theirs: each one's waits together */
	struct bs_hist woken;    /* from then until their threads ran: for a processor */
	struct bs_hist buffered; /* for room in the log's buffer, which its writes make, until the thread ran */
	uint64_t carried_blocks; /* blocks that have bytes in the log which are not home yet */
	uint64_t carries, carried_bytes; /* bs_txn_carry: how often and how many bytes since opening */
	bool datasum;            /* the store has data checksums; without, all that follow are 0 */
	uint64_t sum_pages;      /* blocks that hold checksums */
	uint64_t sums_young;     /* pages' worth of blocks with checksums that are only in memory and log */
	uint64_t sum_paged;      /* pages written since opening */
	uint64_t sum_checked_bytes, sum_errors; /* since opening: read and compared; blocks that were wrong, pages of checksums too */
};
BLOBFS_API void bs_get_stat(struct bs *bs, struct bs_stat *out);

BLOBFS_API struct bdev *bs_bdev(struct bs *bs);
/* The service thread's reactor and channel, for an upper layer's own background work there; NULL without one. */
BLOBFS_API struct reactor *bs_service_reactor(struct bs *bs);
BLOBFS_API struct bdev_channel *bs_service_channel(struct bs *bs);
/* BS_NO_SERVICE: does the background work that is due (checkpoint, releases), blocking; returns the first error. */
BLOBFS_API int bs_service_step(struct bs *bs);
/* The part of it that writes data checksums to their pages, without waiting: on ch, as a child of parent (NULL: of nobody). It tells parent no
 * error, for it never has to succeed; it does nothing where there are few of them, and where one is under way. */
BLOBFS_API void bs_sums_start(struct bs *bs, struct bdev_channel *ch, struct op *parent);
/* Writes a checkpoint now and waits for it. Not from the service thread. */
BLOBFS_API int bs_checkpoint(struct bs *bs);

/* ---- the device: growing into it, telling it what is free ---- */

/*
 * Makes the store `size` bytes large (rounded down to whole blocks; 0: all of the device, whose size is asked for anew), while it is in use:
 * who found no space before finds it when this returns. Durable then; a power cut before leaves the one or the other size. Blocking, not
 * from the service thread. -EINVAL: it is larger already (there is no shrinking); -EFBIG: the device is smaller; -EBUSY:
 * another thread is at it; -EROFS, -ENOMEM; an error of the device freezes the store.
 */
BLOBFS_API int bs_grow(struct bs *bs, uint64_t size, struct base_err *err);

struct bs_trim_opts {
	uint32_t size;       /* sizeof(struct bs_trim_opts) */
	uint64_t offset, length; /* part of the device, bytes; length 0: to the end */
	uint64_t min_length; /* bytes of the shortest extent worth a discard; 0: a block */
	uint64_t rate;       /* bytes a second, at most; 0: as fast as it goes */
	bool (*stop)(void *arg); /* asked now and then; true ends it with -EINTR. NULL: never */
	void *arg;
};
/*
 * Discards what is free: it never touches a block that any state of the store after a power cut could name, and what is being discarded is
 * not allocated meanwhile. *bytes: how many were discarded, also after an error. Blocking, beside anything else; not from the service
 * thread. -EOPNOTSUPP: the device has no discard; -EROFS; -EINVAL. A discard that the device refuses is passed over.
 */
BLOBFS_API int bs_trim(struct bs *bs, const struct bs_trim_opts *opts, uint64_t *bytes, struct base_err *err);

/* ---- blobs ---- */

/* The blob with this id, counted; NULL if there is none. */
BLOBFS_API struct bs_blob *bs_blob_get(struct bs *bs, uint64_t id);
BLOBFS_API void bs_blob_ref(struct bs_blob *blob);
/* Drops a count; NULL is allowed. A deleted blob's memory goes with its last count. */
BLOBFS_API void bs_blob_put(struct bs_blob *blob);
BLOBFS_API uint64_t bs_blob_id(const struct bs_blob *blob);

struct bs_blob_info {
	uint64_t id;
	uint64_t size;            /* bytes, as last put in the header */
	uint64_t mapped_blocks;   /* blocks that runs map, unwritten ones included */
	uint64_t runs, items;
	uint64_t lsn;             /* of the last change to this blob */
	uint32_t user_len;
	uint8_t user[BS_USER_MAX];
	bool deleted;
	bool sealed;              /* see bs_txn_seal */
	bool carried;             /* bytes of it are carried in the log (bs_carried_next) */
};
BLOBFS_API void bs_blob_get_info(struct bs_blob *blob, struct bs_blob_info *out);
/*
 * Calls fn in order of id for every blob from from_id on that is there from the beginning to the end of it; fn's non-zero return ends it and is
 * returned. No lock is held in fn: it may begin transactions, wait, and do I/O. Its blob is counted, and put after it returned. Blobs
 * are counted 32 at a time: so fn is also given those of them, 31 at most, that were deleted since (bs_blob_info says so). One made
 * meanwhile is visited or not.
 */
BLOBFS_API int bs_foreach_blob(struct bs *bs, uint64_t from_id, int (*fn)(struct bs_blob *blob, void *arg), void *arg);
/* Gives back what was reserved ahead for appends. Call it when a writer closes. */
BLOBFS_API void bs_blob_trim_ahead(struct bs_blob *blob);

/* Copies an item's value: returns its length (also when it is larger than size: then the first size bytes), -ENOENT. */
BLOBFS_API int bs_item_get(struct bs_blob *blob, unsigned kind, uint64_t key, void *value, uint32_t size);
/*
 * Calls fn for items of `kind` with key >= from, in key order, until it returns non-zero (which is returned). The value is
 * valid during the call only; fn must not block nor call the store, save for bs_item_get's kin: none at all. The blob
 * is locked for reading meanwhile: be short (copy out; go on from the next key).
 */
typedef int (*bs_item_fn)(uint64_t key, const void *value, uint32_t len, void *arg);
BLOBFS_API int bs_item_scan(struct bs_blob *blob, unsigned kind, uint64_t from, bs_item_fn fn, void *arg);

/* What a block range maps to: the run or hole that starts at `block`: its length (clipped to max), physical block,
 * flags (enum bs_run_flags; BS_RUN_HOLE for none). Never does I/O. Beyond the last run: a hole of max. */
enum bs_run_flags { BS_RUN_UNWRITTEN = 1, BS_RUN_SHARED = 2, BS_RUN_SUM = 4, BS_RUN_HOLE = 0x100 };
struct bs_extent {
	uint64_t block, phys, count;
	uint32_t flags;
};
BLOBFS_API void bs_map_lookup(struct bs_blob *blob, uint64_t block, uint64_t max, struct bs_extent *out);

/* The first block in [block, block + max) that bytes are carried in the log for, and which of its bytes; false: there is none. The map does
 * not show it: the block may be a hole there. */
struct bs_carried_range {
	uint64_t block;
	uint32_t from, to;
};
BLOBFS_API bool bs_carried_next(struct bs_blob *blob, uint64_t block, uint64_t max, struct bs_carried_range *out);

/* ---- transactions ---- */

/*
 * bs_txn_begin takes the store's lock; bs_txn_end or bs_txn_cancel releases it. In between: memory only, no waiting, no other
 * lock that anybody holds while calling the store. Calls check, reserve and encode; nothing is changed before
 * bs_txn_end, which cannot fail: so within a transaction one reads the state from before it. Two changes of one item:
 * the later wins. Calls that fail leave the transaction as it was: go on or cancel.
 * bs_txn_begin may wait (holding nothing) while the log is at its limit until a checkpoint has made room. Never call it from inside
 * a poll. In the service thread, which makes that room, it does not wait but returns -EAGAIN.
 */
enum bs_txn_flags {
	BS_TXN_FREES = 1 << 0, /* frees space or metadata: may use the last reserve, so that a delete on a full store succeeds */
};
BLOBFS_API int bs_txn_begin(struct bs *bs, uint32_t flags, struct bs_txn **out);
/* The same inside an op: -EAGAIN instead of waiting; then bs_log_wait_room_start (a child of op, which it may move to the log's
 * driver) and try again. May be called in any poll. */
BLOBFS_API int bs_txn_try(struct bs *bs, uint32_t flags, struct bs_txn **out);
BLOBFS_API void bs_log_wait_room_start(struct bs *bs, struct op *op);
/* Applies everything and releases the lock; returns the LSN of the transaction's last record (0 if it was empty). */
BLOBFS_API uint64_t bs_txn_end(struct bs_txn *txn);
BLOBFS_API void bs_txn_cancel(struct bs_txn *txn);

/* A new blob with the next id and this header; *out is counted. Items of it may be put in the same transaction.
 * After a cancel the pointer is dead (already put). id_hint 0: next id; else that id if it was never used (-EEXIST). */
BLOBFS_API int bs_txn_create(struct bs_txn *txn, uint64_t id_hint, const void *user, uint32_t user_len, struct bs_blob **out);
/* Puts the header: size in bytes and user bytes. Lowering size does not unmap; see bs_txn_unmap. */
BLOBFS_API int bs_txn_header(struct bs_txn *txn, struct bs_blob *blob, uint64_t size, const void *user, uint32_t user_len);
/* Puts or deletes an item of kind >= BS_KIND_USER. Deleting what is not there is allowed. */
BLOBFS_API int bs_txn_put(struct bs_txn *txn, struct bs_blob *blob, unsigned kind, uint64_t key, const void *value,
	       uint32_t len);
BLOBFS_API int bs_txn_del(struct bs_txn *txn, struct bs_blob *blob, unsigned kind, uint64_t key);
/* Unmaps blocks [block, block + count); count UINT64_MAX: to the end. Writes in flight there will not be published; bytes carried
 * for them are gone. -ENOSPC, in spite of BS_TXN_FREES, only for a hole that makes two runs of one, where a further run might keep the next
 * checkpoint from finding room. */
BLOBFS_API int bs_txn_unmap(struct bs_txn *txn, struct bs_blob *blob, uint64_t block, uint64_t count);
/* Makes mapped blocks of the range read as zeroes without I/O: unwritten, or holes where they are shared; leaves holes as holes. */
BLOBFS_API int bs_txn_zero(struct bs_txn *txn, struct bs_blob *blob, uint64_t block, uint64_t count);
/* Maps every hole of the range to unwritten blocks. All or -ENOSPC. What is shared stays so: writing there may still find no space. */
BLOBFS_API int bs_txn_prealloc(struct bs_txn *txn, struct bs_blob *blob, uint64_t block, uint64_t count, enum bs_stream stream);
/*
 * Data in the transaction itself: bytes [offset, offset + len) of the blob, which lie in one block, are these from bs_txn_end on, and
 * are durable with the transaction, without any other write. They stay in memory, and every checkpoint holds them, until a
 * BS_WRITE of the block is published, or the block is unmapped or zeroed. Who carries a block has to write it home in time.
 * -EINVAL: what is carried for the block already does not touch this (bs_carried_next tells): make it longer; or this transaction
 * carries bytes of the block already. -EBUSY: a write of the block is in flight, or the blob is being shared (bs_share_begin).
 * -ENOSPC: as much is carried as may be, or metadata cannot grow: write it home instead. -EOPNOTSUPP: the store was made without
 * this feature. -EROFS: the blob is sealed.
 */
BLOBFS_API int bs_txn_carry(struct bs_txn *txn, struct bs_blob *blob, uint64_t offset, const void *data, uint32_t len);
/* Is that the better way for so much data? At most BS_CARRY_MAX, and as long as not too much is carried. */
#define BS_CARRY_MAX (64u * 1024)
BLOBFS_API bool bs_carry_pays(struct bs *bs, uint64_t bytes);
/* Half of what may be carried is: some should be written home. */
BLOBFS_API bool bs_carry_is_much(struct bs *bs);
/* Deletes the blob with all its items and runs. */
BLOBFS_API int bs_txn_delete(struct bs_txn *txn, struct bs_blob *blob);

/* ---- sharing: snapshots, clones, reflinks ---- */

/*
 * Blobs can have blocks in common: a write to such a block goes to a new place, a block is free when the last blob lets it go. A
 * clone is a new blob that shares everything, a snapshot is one that is sealed besides, a group snapshot is many of them in one
 * transaction, a rollback is sharing back. What is unwritten is not shared: it is a hole in the copy.
 *
 * Writes that go over old blocks while a copy is made would be seen in it. So before a transaction shares data of a blob:
 *   bs_share_begin  bs_map_lookup says BS_RUN_SHARED of all that is written, so that who writes later reserves space;
 *                   write home now what is waiting without such a reservation, and what is carried in the log (nothing more will be);
 *   bs_share_hold   from here on nothing of the blob is overwritten in place; then wait (bs_share_wait_start) for the
 *                   writes that were on their way: with that, a write is in the copy if it was published before the transaction;
 *   bs_share_end    after it.
 * A blob that is made meanwhile has no old blocks and no write on its way: bs_share_born begins and holds it at once, without a wait.
 * Each is counted, and takes no time. A sealed blob needs none of this. bs_share_quiesce is all of it for many blobs.
 */
BLOBFS_API void bs_share_begin(struct bs_blob *blob);
BLOBFS_API void bs_share_hold(struct bs_blob *blob);
/* Inside the transaction that makes the blob, when nothing can fail any more: begun and held. */
BLOBFS_API void bs_share_born(struct bs_txn *txn, struct bs_blob *blob);
/* held: it was held, too. */
BLOBFS_API void bs_share_end(struct bs_blob *blob, bool held);
/* As a child of op: done when every read and write that was under way is over. -ENOMEM. Nobody who still has to poll for one of these
 * may wait for this. */
BLOBFS_API void bs_share_wait_start(struct bs *bs, struct op *op);
/* Begins and holds all of them, and waits. Not inside a poll. After an error none is held. */
BLOBFS_API int bs_share_quiesce(struct bs *bs, struct bs_blob *const *blob, uint64_t n);
/*
 * Maps to's blocks [to_block, + count) to what from maps at from_block; holes and unwritten blocks become holes, and what was there is
 * unmapped. count UINT64_MAX: to the end of both. Sizes are the caller's. The two may be one blob if the ranges do not overlap.
 * -EAGAIN: from is not held, or the wait is not over, or two writes at once go to an unwritten block of it, of which one is done: wait
 * again for those that are under way; -EROFS: to is sealed; -EINVAL: from's runs were changed in this transaction
 * already, or the ranges overlap; -E2BIG: more runs than a transaction takes (some sixty thousand on stores of a GiB or more):
 * share ranges one by one; -EBUSY: bytes of from are carried in the log (write them home first), or of anything in this transaction; -EOPNOTSUPP: a store made before
 * there was this.
 */
BLOBFS_API int bs_txn_share(struct bs_txn *txn, struct bs_blob *from, uint64_t from_block, struct bs_blob *to, uint64_t to_block,
			    uint64_t count);
/* As bs_txn_header, and from then on the blob's data and size cannot be changed (-EROFS), only its user bytes, its items, and it can be
 * deleted. A write that is under way goes on: wait for those first, or seal what nobody else has yet. -EBUSY: bytes of it are carried in the
 * log (write them home first), or of anything in this transaction. */
BLOBFS_API int bs_txn_seal(struct bs_txn *txn, struct bs_blob *blob, uint64_t size, const void *user, uint32_t user_len);
/*
 * Copies of n blobs with their headers, items and data, in one transaction, of one instant: their ids in ids. sealed: as snapshots.
 * Blocking. Durable with the next commit. -E2BIG, -EBUSY: see bs_txn_share.
 */
BLOBFS_API int bs_snapshot(struct bs *bs, struct bs_blob *const *blob, uint64_t n, bool sealed, uint64_t *ids);

struct bs_usage {
	uint64_t exclusive; /* blocks that are freed with this blob, unwritten ones included */
	uint64_t shared;    /* blocks that some other run has, too */
};
/* Looks at every shared run: the store's lock is held for some hundred of them at a time. */
BLOBFS_API void bs_blob_get_usage(struct bs_blob *blob, struct bs_usage *out);

/* Space for data to be written later (cached writes): clusters. -ENOSPC; see bs_reclaim_start. */
BLOBFS_API int bs_reserve(struct bs *bs, uint64_t clusters);
BLOBFS_API void bs_unreserve(struct bs *bs, uint64_t clusters);
/*
 * The same for one blob whose cached writes come home in pieces, in any order. A claim stands for one cluster that they may need; what
 * is held for the blob serves whichever of its writes with claims (bs_io.claims) is placed first, so one that finds room where the
 * blob has some leaves it to the others.
 * bs_blob_claim: there is one more thing that may need a cluster: with a claim of its own (more), or under one there is. -ENOSPC.
 * bs_blob_claim_also: one more claim for what has been counted. bs_blob_unclaim: `claims` less; trim: what is held beyond claims is
 * given back.
 */
BLOBFS_API int bs_blob_claim(struct bs_blob *blob, bool more);
BLOBFS_API void bs_blob_claim_also(struct bs_blob *blob);
BLOBFS_API void bs_blob_unclaim(struct bs_blob *blob, uint64_t claims, bool trim);
/* As a child of op: makes freed space usable (commits, waits for I/O in flight when it was freed, takes back space reserved
 * ahead). Do it once before answering -ENOSPC. A write that finds no space does it, too. As with bs_share_wait_start, nobody who still has to poll
 * for that I/O may wait for this. */
BLOBFS_API void bs_reclaim_start(struct bs *bs, struct op *op);
/*
 * Blocking, for a transaction that found no space (-ENOSPC of bs_txn_create, bs_txn_put, ...) and was cancelled: a commit, then up to
 * 20 ms for what others have in flight. True: try again, with `tried`, at first 0, one higher. False: there is none. The caller may
 * have I/O in flight which only it polls; what waits for that stays unusable meanwhile.
 */
BLOBFS_API bool bs_reclaim_wait(struct bs *bs, unsigned tried);

/* ---- data ---- */

enum bs_io_op { BS_READ, BS_WRITE, BS_WRITE_ZEROES, BS_UNMAP };
enum bs_io_flags {
	BS_IO_NEW = 1 << 0,     /* a write: never over the old blocks, always to new ones */
	BS_IO_NO_SIZE = 1 << 1, /* reserved */
	BS_IO_DURABLE = 1 << 2, /* a write: its data is durable when done (not its publication), so no commit flushes for it */
	BS_IO_PROBE = 1 << 3,   /* a read: checksums that are wrong are neither counted nor logged, for it is done again in parts if it fails */
};
struct bs_io;
typedef void (*bs_io_cb)(struct bs_io *io, int rc);
/* Called when a write is about to be published, inside the transaction that publishes its runs: the caller may add its own
 * changes (header, items). A non-zero return publishes nothing and becomes the I/O's result. */
typedef int (*bs_publish_fn)(struct bs_txn *txn, struct bs_io *io, void *arg);
/* Called when the places of a write are chosen, under the store's lock, so before or after any transaction: bit i of `wanted` (of word
 * i / 64) stands for block i of the write. Bits the caller clears are blocks that were given up since it started the write
 * (truncated, punched): whatever they map to by now is neither overwritten nor replaced. May be called again. Memory only. */
typedef void (*bs_wanted_fn)(struct bs_io *io, uint64_t *wanted, void *arg);

/*
 * One data operation, embedded in the caller's request; the store's from bs_io_start until it is done. offset and length
 * in bytes, multiples of BS_BLOCK; length at most BS_IO_MAX for READ and WRITE, any for the others. The iovecs (READ, WRITE) add
 * up to length; each a multiple of the device's block size.
 * READ: holes and unwritten blocks give zeroes. -EIO also if a block's checksum is wrong: the log names blob, offset and device block, and
 * what the iovecs hold then is not to be used. WRITE: reserves, writes, publishes; visible to reads and not yet durable
 * when done. Concurrent I/O on the same block: each block read is wholly of one of the writes if the device writes a
 * block atomically; at power loss a block being overwritten in place may hold any mix of old and new units of the
 * device's atomic write size. Of a block that bytes are carried for, a read beside a write may see those bytes over the written ones.
 */
struct bs_io {
	struct bs_blob *blob;  /* the caller holds a count */
	enum bs_io_op op;
	uint32_t flags;        /* enum bs_io_flags */
	uint64_t offset, length;
	const struct iovec *iov;
	int iovcnt;
	enum bs_stream stream;
	uint64_t mem_handle;   /* bdev_register handle of the memory, or 0 */
	uint64_t reserved;     /* clusters the caller reserved for this write; taken over, the rest is given back */
	uint64_t claims;       /* the caller's on what is held for the blob (bs_blob_claim): settled when the write has its places; out: what is left,
				* all if it failed */
	bs_publish_fn publish; /* may be NULL */
	bs_wanted_fn wanted;   /* may be NULL; with it a write is never the short way over old places */
	void *publish_arg;     /* of both */
	uint64_t lsn;          /* out, but for READ: LSN of the publication; 0: no metadata changed */

	struct op op_;         /* the store's from here */
	struct op *parent;
	bs_io_cb cb;
	struct bdev_channel *ch;
	uint64_t priv[96];
};
/* Starts io as a child of parent on ch; parent's op_child_done gets the result. */
BLOBFS_API void bs_io_start(struct bdev_channel *ch, struct bs_io *io, struct op *parent);
/* The same without an op: cb is called in a poll of ch, never in here, and may submit. What the caller has for it stands around *io. */
BLOBFS_API void bs_io_submit(struct bdev_channel *ch, struct bs_io *io, bs_io_cb cb);
/* Waits for it on a borrowed channel. */
BLOBFS_API int bs_io_sync(struct bs *bs, struct bs_io *io);

/* ---- durability ---- */

/*
 * As a child of op: done when every record up to lsn (0: all so far) is durable and every data write that had completed
 * before this call is too. op is moved (op_move) to the log channel's driver for the wait. One with a done function is moved back
 * when that is over, and its user polls the channel it came from: the service thread polls the log's. One that op_wait waits for
 * has to move itself back if it cares. Those who wait together share flush and log write.
 */
BLOBFS_API void bs_commit_start(struct bs *bs, uint64_t lsn, struct op *op);
BLOBFS_API int bs_commit(struct bs *bs, uint64_t lsn);
/* Would a commit do without flushing the device, if data written from now on were durable by itself (BS_IO_DURABLE)? Then
 * that spares a little data the flush; else one flush serves all there is. */
BLOBFS_API bool bs_durable_pays(struct bs *bs);
/* LSN of the last record written so far / durable so far. */
BLOBFS_API uint64_t bs_lsn(struct bs *bs);
BLOBFS_API uint64_t bs_durable_lsn(struct bs *bs);

/* ---- checking ---- */

struct bs_problem {
	const char *pass;  /* "superblock", "log", "checkpoint", "blobs", "space" */
	const char *code;  /* short stable name: "run-overlap" … */
	uint64_t blob;     /* 0: none */
	uint64_t block;    /* device block, or UINT64_MAX */
	char text[256];
};
typedef void (*bs_problem_fn)(const struct bs_problem *problem, void *arg);
/*
 * Reads the store as recovery would and checks every structure, writing nothing; reports each problem. *out, if not NULL
 * and if enough of it is readable, is the store opened read-only (for checks above); NULL otherwise. Returns the number of
 * problems, or negative errno when it could not look (I/O, memory, not a store). Does not close dev unless *out is set (then bs_close does).
 */
BLOBFS_API int bs_check(struct bdev *dev, bs_problem_fn report, void *arg, struct bs **out, struct base_err *err);

/* ---- looking at a device ---- */

enum bs_piece_kind { BS_PIECE_SUPER, BS_PIECE_SEGMENT, BS_PIECE_FRAME, BS_PIECE_PAGE, BS_PIECE_SUMS /* checksums of data */ };
struct bs_piece { /* a structure as it lies on the device; blob/format.h says what is in it */
	enum bs_piece_kind kind;
	uint32_t blocks, depth; /* depth: of pages, below the root */
	uint64_t block;
	uint64_t nonce;         /* of segments and frames: what their checksum begins with */
	void *data;             /* its bytes; NULL: it cannot be read */
	const char *wrong;      /* NULL: nothing */
};
/* The piece is valid during the call only; a non-zero return ends the walk and is returned. */
typedef int (*bs_piece_fn)(const struct bs_piece *piece, void *arg);
enum bs_walk_what { BS_WALK_SUPER = 1 << 0, BS_WALK_LOG = 1 << 1, BS_WALK_CKPT = 1 << 2,
		    BS_WALK_DESCRIBED = 1 << 3 /* with BS_WALK_CKPT: after its pages, that with its superblock, if it has one */ };
/*
 * Calls fn for superblocks, then the log's segments, each with its frames, then the checkpoint's pages from the root down: whatever is
 * there, damaged or not; nothing is applied or checked against anything else. What cannot be read is a piece without data, and costs nothing
 * else but what a page was the way to: blocks of the log come as frames then, whatever they held. Both superblocks come in any case; for the
 * rest one must be good: -EUCLEAN. Also -EINVAL (device too small for a store), -ENOMEM.
 */
BLOBFS_API int bs_walk(struct bdev *dev, uint32_t what, bs_piece_fn fn, void *arg, struct base_err *err);

/* The same for the pages of data checksums, which only an open store knows; nobody writes to it meanwhile. Also -ENOMEM, -ENODEV. */
BLOBFS_API int bs_walk_sums(struct bs *bs, bs_piece_fn fn, void *arg);

/* How many of these pages are damaged, and how often blocks in a row have lost their checksums; what bs_mend puts right. 0 to INT_MAX, or an
 * error as above. */
BLOBFS_API int bs_check_sums(struct bs *bs);

struct bs_record {
	uint64_t blob, key, lsn; /* lsn: of a page's records, the page's */
	uint8_t op, kind;
	bool end;                /* last of its transaction (frames) */
	bool wrong;              /* malformed: only lsn is set */
	uint32_t at, len;        /* where in the piece the value is, and how long */
	char text[256];
};
/* Calls fn for each record of a frame or leaf; blocks: size of the store. Malformed ones too, as far as their length can be. */
BLOBFS_API int bs_piece_records(const struct bs_piece *piece, uint64_t blocks, int (*fn)(const struct bs_record *rec, void *arg), void *arg);
/* Makes the checksum of a piece right (not what a parent has of it). */
BLOBFS_API void bs_piece_seal(const struct bs_piece *piece);

/* ---- scrubbing ---- */

enum bs_scrub_what { BS_SCRUB_DATA, BS_SCRUB_SUPER, BS_SCRUB_LOG, BS_SCRUB_PAGE, BS_SCRUB_SUMS /* a page of checksums */ };
struct bs_scrub_finding {
	enum bs_scrub_what what;
	int rc;          /* -EIO and other errors of the device; -EUCLEAN: it can be read and is wrong */
	uint64_t blob;   /* DATA: of this blob */
	uint64_t offset; /* DATA: the block at this byte of it */
	uint64_t block;  /* of the device */
	char text[96];   /* what is wrong: "it cannot be read: …" */
};
struct bs_scrub_result {
	uint64_t total_bytes; /* mapped when it began, unwritten blocks among them */
	uint64_t done_bytes;  /* data read */
	uint64_t meta_bytes;  /* superblocks, checkpoint and pages of checksums read */
	uint64_t findings;
};
struct bs_scrub_opts {
	uint32_t size; /* sizeof(struct bs_scrub_opts) */
	uint64_t rate; /* bytes a second; 0: as fast as it goes */
	void (*found)(const struct bs_scrub_finding *finding, void *arg);          /* may be NULL */
	int (*progress)(const struct bs_scrub_result *so_far, void *arg);          /* may be NULL; non-zero ends it: -ECANCELED */
	void *arg;
};
/*
 * Reads everything that is mapped and written, compares it with its checksums where it has some, and the metadata of the last checkpoint,
 * while the store may be in use; what several runs share once. Both functions are called in the caller's thread. Blocking, not inside a poll. 0: it went through, whatever it found;
 * -ECANCELED, -ENOMEM, -ENODEV.
 */
BLOBFS_API int bs_scrub(struct bs *bs, const struct bs_scrub_opts *opts, struct bs_scrub_result *out);

/* ---- mending ---- */

enum bs_mend_flags {
	BS_MEND_REBUILD = 1 << 0, /* without a superblock that can be used: make one of what lies on the device */
};
struct bs_mend_opts {
	uint32_t size;        /* sizeof(struct bs_mend_opts) */
	uint32_t flags;       /* enum bs_mend_flags */
	bs_problem_fn report; /* what was found wrong and given up or put right; may be NULL */
	void *arg;
	uint64_t root;        /* a blob that must be there: made, with an empty header, if it is lost; 0: none */
};
/*
 * Opens a damaged store for writing with all of it that can be read, and writes that as a new checkpoint and a new log: when it
 * returns 0 the store on the device is sound and durable; until the superblocks are written at its very end, and after any error, the
 * device is as it was but for blocks that were free. A power cut leaves the one or the other. Given up are: records of damaged pages of the
 * checkpoint (not those of other pages), what follows the first damage in the log, and of two runs that claim a block the older
 * one's claim. A blob whose header is lost gets one of size 0 without user bytes. *out is open with BS_NO_SERVICE and BS_BREAK_SEALS.
 * Takes dev over on success. -EINVAL: not a store; -ENOTSUP, -EFBIG as bs_open; -EUCLEAN: no superblock is usable; -ENOSPC: no
 * room for the new checkpoint; -EIO, -ENOMEM, -EROFS.
 */
BLOBFS_API int bs_mend(struct bdev *dev, const struct bs_mend_opts *opts, struct bs **out, struct base_err *err);

BLOBFS_C_END
#endif
