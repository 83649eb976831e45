/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the data half share: the page cache and what moves data through it.
 *
 * Pages lie in the arena with their descriptors; both are addressed by number, so that the arena means the same in
 * another process. What can be built again from the descriptors (groups, shards, waiters) lies outside.
 *
 * A group is 16 neighbouring pages of one inode, a window 16 groups (1 MiB): the unit of locking and of one I/O. A shard is a
 * lock and a hash table of the groups whose window falls to it.
 *
 * Invariants
 *  - A page that is up to date holds zeroes beyond the inode's cached size, but for the time between the copy of
 *    a write and its raising of the size.
 *  - A page that an I/O is under way for, or that somebody is about to copy to, is pinned; only unpinned clean pages are evicted.
 *  - A page leaves its group at once when it is truncated, punched or invalidated; if it is pinned it is `detached`, and freed by the
 *    last unpin. Who waited for it looks again and finds it gone.
 *  - dirty and in need of new space (alloc) => its cluster's bit is set in `reserved`: it has a claim on what the store holds for the blob. A unit has
 *    claims for those of its pages. So what is held suffices for all of them, in whatever order they go home.
 *  - A page is changed => it is dirty, and bytes [from, to) of it may be neither at its place nor carried in the log.
 *  - n_dirty or n_writing or attr_dirty => the inode is on the dirty list, which counts it.
 *  - A group's inode is in core: counted, idle, leaving or dying; it is freed only when it has no group, and only who counts it makes one.
 *
 * Locks: fs order (internal.h), then shard->lock, then inode->pages_lock or cache->free_lock or the store's own. One
 * shard's lock at a time.
 */
#ifndef BLOBFS_DATA_H
#define BLOBFS_DATA_H

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "blobfs/internal.h"

#define PAGE_SHIFT 12u
#define PAGE_SIZE 4096u
#define GROUP_SHIFT 4u
#define GROUP_PAGES 16u
#define WINDOW_SHIFT 8u /* pages */
#define WINDOW_PAGES 256u
#define BFS_NO_PAGE UINT32_MAX
static_assert(WINDOW_PAGES * PAGE_SIZE == BS_IO_MAX, "a window is one I/O");

/* ---- the arena: its content is for the next process, too ---- */

#define BFS_ARENA_MAGIC 0x616e657261736662ull /* "bfsarena" */
struct bfs_arena_head {
	uint64_t magic, size;
	uint32_t version, page_size;
	uint64_t n_pages;
	uint64_t pages, data, log, log_size; /* offsets from this head */
};

enum bfs_page_state { /* of a descriptor; stored last */
	PAGE_FREE = 0,
	PAGE_UPTODATE = 1 << 0,
	PAGE_DIRTY = 1 << 1,
	PAGE_WRITING = 1 << 2,
	PAGE_DETACHED = 1 << 3, /* belongs to no group any more; freed by the last unpin */
};
enum bfs_queue_id { Q_NONE, Q_SMALL, Q_MAIN };
struct bfs_page {
	uint64_t ino;      /* 0: free */
	uint64_t number;   /* in the file */
	uint64_t seq;      /* counts changes of the whole cache: which of two is newer */
	_Atomic uint32_t state;
	uint32_t pins;     /* under the shard's lock; of a detached page too (the shard it was of) */
	uint32_t prev, next; /* in its queue or the free list */
	uint32_t valid;    /* of a page being filled: bytes that count, the rest is zeroed */
	uint8_t queue, freq;
	uint8_t fresh;     /* not asked for since it came: the first time does not count */
	uint8_t reserved;
	uint16_t from, to; /* of one that is changed */
	uint16_t reached;  /* bytes up to the end of the furthest write to it, which the file's size may not tell of yet */
	uint16_t taken;    /* bytes of the file in it when write-back took it: what is written then is that much, at least */
	uint64_t reserved3;
};
static_assert(sizeof(struct bfs_page) == 64, "page descriptor");

/* ---- the index of pages ---- */

struct bfs_group {
	RB_ENTRY(bfs_group) node, dirty_node; /* in the inode's trees by number, under pages_lock */
	struct bfs_group *next;               /* in the bucket, or in the list of free groups */
	struct bfs_inode *inode;
	uint64_t number;
	uint16_t present, uptodate, dirty, writing; /* a bit a page */
	uint16_t changed;  /* dirty, and not all of it is carried in the log */
	uint16_t alloc;    /* dirty, and needs new space */
	uint16_t reserved; /* a bit a cluster: it has a claim (bs_blob_claim) */
	uint16_t lent;     /* of these: a unit has one beside it, with which what is held for this one may go */
	bool in_dirty;     /* in dirty_groups: something is dirty or writing */
	uint32_t page[GROUP_PAGES];
};

struct bfs_waiter {
	struct bfs_waiter *next;
	struct op *op;
};
struct bfs_page_aux {
	struct bfs_waiter *waiters;
	struct bdev_channel *ch; /* of the I/O under way */
};

struct bfs_page_queue {
	uint32_t head, tail, count;
};
struct bfs_shard {
	pthread_mutex_t lock;
	struct bfs_group **buckets;
	uint32_t mask;
	struct bfs_page_queue small, main;
	uint64_t *ghost; /* what was evicted from small a short while ago: fingerprint and time */
	uint32_t ghost_mask, ghost_clock;
	uint64_t hits, misses, evicted;
} __attribute__((aligned(64)));

struct bfs_cache {
	struct bfs *fs;
	struct bfs_page *pages;
	uint8_t *data;
	uint32_t n_pages, n_shards;
	struct bfs_shard *shards;
	struct bfs_group *groups; /* n_pages of them: each has a page at least */
	struct bfs_page_aux *aux;
	uint64_t *ghosts;
	struct bfs_group **buckets;
	uint64_t mem_handle;
	uint64_t dirty_limit;     /* pages */
	uint32_t cluster_shift;   /* log2 of pages in a cluster */
	pthread_mutex_t free_lock;
	uint32_t free_pages, n_free, fresh_page, fresh_group; /* those never used yet begin there */
	struct bfs_group *free_groups;
	struct bfs_waiter *free_waiters;
	_Atomic uint32_t n_free_waiters, rotor;
	_Atomic uint32_t n_small, n_main; /* pages in the shards' queues */
	_Atomic uint64_t seq, n_dirty, n_writing, readahead, written_back;
	_Atomic uint64_t written_bytes, zeroed_bytes;
	pthread_mutex_t unit_lock;
	struct bfs_unit *free_units;
	uint32_t n_units;
	_Atomic uint32_t n_background; /* units that nobody waits for */
	bool arena_is_dma;
	bool datasum; /* the store has checksums: what is written and not shared moves, too */
	_Atomic int wb_error; /* the last of a write-back; numbered, and how far a sync of everything has told of them */
	_Atomic uint32_t wb_error_seq, wb_error_told;
	_Atomic bool frozen; /* the store takes no changes any more: so writes are refused, too */
};

static inline uint8_t *bfs_page_data(const struct bfs_cache *c, uint32_t page)
{
	return c->data + (uint64_t)page * PAGE_SIZE;
}
static inline uint64_t bfs_mix(uint64_t x)
{
	x ^= x >> 32;
	x *= 0x9e3779b97f4a7c15ull;
	return x ^ x >> 29;
}
static inline struct bfs_shard *bfs_shard_of(struct bfs_cache *c, uint64_t ino, uint64_t number)
{
	return &c->shards[bfs_mix(ino * 0x100000001b3ull + (number >> WINDOW_SHIFT)) & (c->n_shards - 1)];
}
/* Bits of the cluster that holds a page of a group. */
static inline uint16_t bfs_cluster_mask(const struct bfs_cache *c, unsigned cluster)
{
	return (uint16_t)(((1u << (1u << c->cluster_shift)) - 1) << (cluster << c->cluster_shift));
}

/* ---- cache.c ---- */
struct bfs_group *bfs_group_find(struct bfs_shard *s, uint64_t ino, uint64_t number);
/* The group, made if it is not there. Shard locked. The caller has a page to put in it. */
struct bfs_group *bfs_group_make(struct bfs_cache *c, struct bfs_shard *s, struct bfs_inode *inode, uint64_t number);
/* The page at this place, or BFS_NO_PAGE. Shard locked. */
uint32_t bfs_page_find(struct bfs_shard *s, uint64_t ino, uint64_t number, struct bfs_group **group);
/* Puts a page (from bfs_page_alloc) into its place, not up to date, pinned once. Shard locked. */
void bfs_page_insert(struct bfs_cache *c, struct bfs_shard *s, struct bfs_group *g, unsigned slot, uint32_t page);
void bfs_page_set_state(struct bfs_cache *c, struct bfs_group *g, unsigned slot);
void bfs_page_pin(struct bfs_cache *c, uint32_t page);
/* Frees a detached page with its last pin. Shard locked. */
void bfs_page_unpin(struct bfs_cache *c, uint32_t page);
/* Takes the page out of its group: detached if pinned, else free. Dirt is forgotten, reservations are given back. The group may be gone
 * afterwards. True: the inode has no page any more (for bfs_inode_emptied). Shard locked. */
bool bfs_page_drop(struct bfs_cache *c, struct bfs_shard *s, struct bfs_group *g, unsigned slot);
/* Marks an up-to-date page dirty, bytes [from, to) as changed, and reserves space for it if it needs new space. inode->lock and shard
 * locked. -ENOSPC. */
int bfs_page_dirty(struct bfs_cache *c, struct bfs_group *g, unsigned slot, uint32_t from, uint32_t to);
/* All of it is carried in the log, or on its way home. Shard locked. */
void bfs_page_unchanged(struct bfs_cache *c, struct bfs_group *g, unsigned slot);
/* The cluster has a claim for one more page that needs space. Shard locked. -ENOSPC. */
int bfs_group_claim(struct bfs_group *g, unsigned cluster);
void bfs_group_unclaimed(struct bfs_group *g, unsigned cluster); /* it has none any more; the caller sees to the store's */
void bfs_group_trim_reserved(struct bfs_cache *c, struct bfs_group *g);
/* After dirty, writing bits of a group went: out of the tree of dirty groups if it is clean. Shard locked. */
void bfs_group_settle(struct bfs_group *g);
/* First group of the inode (or first with something dirty or in write-back) with number >= from: its number; false: none. */
bool bfs_group_next(struct bfs_inode *inode, uint64_t from, bool dirty, uint64_t *number);

/* ---- cache_queue.c: who is evicted ---- */
void bfs_queue_insert(struct bfs_cache *c, struct bfs_shard *s, uint32_t page);
void bfs_queue_remove(struct bfs_cache *c, struct bfs_shard *s, uint32_t page);
void bfs_queue_touch(struct bfs_cache *c, uint32_t page);
/* A free page, evicting if need be; BFS_NO_PAGE: everything is pinned or dirty. No shard locked. */
uint32_t bfs_page_alloc(struct bfs_cache *c);
void bfs_page_free(struct bfs_cache *c, uint32_t page);
/* Has much of its memory never held a page? */
bool bfs_cache_is_young(struct bfs_cache *c);

/* ---- cache_range.c ---- */
/* Drops pages [first, last]; those in write-back or being filled are detached. dirty: dirty ones too. */
void bfs_range_drop(struct bfs_inode *inode, uint64_t first, uint64_t last, bool dirty);
/* Anything dirty, or dirty or in write-back, in [first, last]? */
bool bfs_range_is_dirty(struct bfs_inode *inode, uint64_t first, uint64_t last, bool writing);
/* First page >= from and <= last that is dirty or in write-back; UINT64_MAX: none. */
uint64_t bfs_range_next_dirty(struct bfs_inode *inode, uint64_t from, uint64_t last);
/*
 * Of a cluster that [first, end) has only a part of, the first page to go home takes a place, and the others, dirty or in write-back, may count on
 * the rest of it. If blocks of that range are about to be unmapped, those beside it get space of their own. In the transaction. -EAGAIN: there
 * is none, *page has to be written home before.
 */
int bfs_range_leave(struct bfs_inode *inode, uint64_t first, uint64_t end, uint64_t *page);
#define BFS_LEAVE_TRIES 64u /* then it goes on without */
/* The page that holds byte `end`, if cached: zeroes it from there on, which changes a dirty one; of one being filled less will count. False:
 * it is in write-back, nothing was done. inode->lock held. */
bool bfs_page_zero_tail(struct bfs_inode *inode, uint64_t end);

/* ---- waiting for pages ---- */
/* Shard locked, page pinned by an I/O: op waits (as for a child) until that is over, at the driver of the channel it is on. */
void bfs_page_wait(struct bfs_cache *c, uint32_t page, struct bfs_waiter *w, struct op *op);
/* Detaches the list of waiters; the caller wakes them when the shard is unlocked. */
struct bfs_waiter *bfs_page_take_waiters(struct bfs_cache *c, uint32_t page, struct bfs_waiter *list);
void bfs_waiters_wake(struct bfs_waiter *list);
/* op waits (as for a child) until a page was freed, unpinned or cleaned. */
void bfs_wait_free(struct bfs_cache *c, struct bfs_waiter *w, struct op *op);
void bfs_wake_free(struct bfs_cache *c);

/* ---- copying to and from pages ---- */
struct bfs_iter { /* a place in somebody's iovecs */
	const struct iovec *iov;
	int cnt;
	size_t off; /* in *iov */
};
void bfs_iter_init(struct bfs_iter *it, const struct iovec *iov, int cnt);
void bfs_iter_advance(struct bfs_iter *it, size_t len);
void bfs_copy_in(void *dst, struct bfs_iter *it, size_t len);  /* advances; it->iov NULL: zeroes */
void bfs_copy_out(struct bfs_iter *it, const void *src, size_t len); /* src NULL: zeroes */
void bfs_copy_zero(void *dst, size_t len);
/* The memory of the next len bytes if it is in one piece, else NULL. */
void *bfs_iter_direct(struct bfs_iter *it, size_t len);

/* ---- unit.c: one device I/O and its pages ---- */
enum bfs_unit_kind { UNIT_FILL, UNIT_WRITE, UNIT_USER };
struct bfs_unit {
	struct op op;
	struct bs_io io;
	enum bfs_unit_kind kind;
	struct bfs_cache *cache;
	struct bfs_inode *inode; /* WRITE and USER only; see unit.c for why it lives */
	uint64_t ino, first;     /* first page; of USER: first block */
	uint32_t n;              /* pages (FILL, WRITE), iovecs (USER) */
	struct bdev_channel *ch;
	struct op *parent;       /* NULL: nobody waits */
	bool keep;               /* FILL: the pages stay pinned until bfs_unit_put */
	bool extend;             /* USER writes: publishing raises the size */
	int rc;
	struct bfs_unit *next;
	struct iovec iov[WINDOW_PAGES];
	uint32_t page[WINDOW_PAGES]; /* USER: 1: iov[i] is a bounce buffer of ours */
	struct bfs_iter at;          /* USER reads: where the first byte goes */
	uint64_t from, to;           /* and which bytes are wanted */
};
/* -ENOMEM: NULL. */
struct bfs_unit *bfs_unit_get(struct bfs_cache *c, enum bfs_unit_kind kind, struct bfs_inode *inode);
/* Unpins what it keeps. */
void bfs_unit_put(struct bfs_unit *u);
void bfs_units_free(struct bfs_cache *c);
/* bs_io.wanted of a write-back: strikes out the pages that are detached. */
void bfs_unit_wanted(struct bs_io *io, uint64_t *wanted, void *arg);
/* Starts it as a child of parent, or on its own (parent NULL; then it puts itself). With a parent and keep (or USER) the parent puts it. */
void bfs_unit_start(struct bfs_unit *u, struct bdev_channel *ch, struct op *parent);
/* Pages missing from `number` on, at most to `last`, contiguous, in one window, allocated and inserted. *out NULL: the first one is there already.
 * -ENOMEM, -EBUSY: no page is free. */
int bfs_fill_gather(struct bfs_inode *inode, uint64_t number, uint64_t last, struct bdev_channel *ch, struct bfs_unit **out);

/* ---- direct_write.c ---- */
struct bfs_direct_range {
	LIST_ENTRY(bfs_direct_range) link; /* in inode->directs, from before what is dirty there is written home */
	uint64_t first, last;              /* pages */
};
/* Is a write past the cache under way there? */
bool bfs_direct_beside(struct bfs_inode *inode, uint64_t page);

/* ---- writeback.c ---- */
/* The next run of dirty pages at or after *next (up to last) becomes a unit; *next moves behind it. *out NULL: there is none.
 * -EAGAIN: bs_commit through inode->lowered_lsn first. -ENOMEM. */
int bfs_wb_gather(struct bfs_inode *inode, uint64_t *next, uint64_t last, struct bdev_channel *ch, struct bfs_unit **out);
/* R9: is the lowering of the size that left garbage behind not yet durable? */
bool bfs_lowering_pending(struct bfs_inode *inode);
/* Sizes after data was written: the publish callback of every write. */
int bfs_publish(struct bs_txn *txn, struct bs_io *io, void *arg);
/* Does the device, or the log, hold something in the block of stale_end? */
bool bfs_holds_garbage(struct bfs_inode *inode, uint64_t page);
/* The size that the header may have now. inode->lock held or in the transaction. */
uint64_t bfs_size_to_publish(struct bfs_inode *inode);
/* The durable size may go to `end`, if the cached one does: everything before it is written, carried, shared or a hole. In a transaction. */
void bfs_written_to(struct bfs_inode *inode, uint64_t end);
/* Writes the header if times (unless datasync) or size differ from it. -EAGAIN: bs_log_wait_room_start first. No lock held. */
int bfs_inode_settle(struct bfs_inode *inode, bool datasync);

/* ---- carry.c ---- */
/* What fsync has to make durable goes into the log: 0; then a commit makes it so. -EAGAIN: bs_log_wait_room_start first. Another
 * error: nothing was done, it has to be written back. No lock held. */
int bfs_carry(struct bfs_inode *inode, bool datasync);

/* A walk writes back the dirty pages of a range, and can wait for every page of it that is in write-back, whoever began that. Part of
 * an op. */
struct bfs_walk {
	struct bfs_inode *inode;
	struct bdev_channel *ch;
	uint64_t next, last; /* pages */
	uint64_t wait;       /* page that the waiting has come to */
	uint32_t tries;      /* at this page */
	bool wrote;
	bool durable;        /* data is durable when written: set it after bfs_walk_init */
	struct bfs_waiter waiter;
};
void bfs_walk_init(struct bfs_walk *w, struct bfs_inode *inode, uint64_t first, uint64_t last, struct bdev_channel *ch);
/* One step of op: goes on at `step`, where this is called again, until what is dirty was written; then, with `wait`, until nothing that
 * was dirty when it began is in write-back any more; then at `then`. Errors of the device are the inode's. Moves op back to
 * its channel. */
enum op_next bfs_walk_run(struct bfs_walk *w, struct op *op, int step, int then, bool wait);
/* Starts at most `units` as children of op: how many, or -EAGAIN, -ENOMEM as bfs_wb_gather. */
int bfs_walk_start(struct bfs_walk *w, struct op *op, unsigned units);

/* ---- writebehind.c: many inodes ---- */
void bfs_data_free(struct bfs *fs);
/* Dirty pages pass half the limit: the service begins now. */
void bfs_wb_kick(struct bfs *fs);
static inline bool bfs_wb_over_limit(struct bfs_cache *c, unsigned part) /* of the limit: 1, or a half: 2 */
{
	return atomic_load_explicit(&c->n_dirty, memory_order_relaxed) > c->dirty_limit / part;
}
/* Some inode with dirty pages, counted; NULL: none. */
struct bfs_inode *bfs_wb_pick(struct bfs *fs);

/* ---- readahead.c ---- */
/* [offset, offset + len) is being read; missed: not all of it was cached. */
void bfs_readahead(struct bfs_file *file, uint64_t offset, uint64_t len, bool missed);
/* Where a read that has to wait stops reading: without a service it reads ahead itself. */
uint64_t bfs_ra_end(const struct bfs_req *req, uint64_t end);
bool bfs_ra_continues(struct bfs_file *file, uint64_t offset);
/* Starts reading [first, last] without waiting; bytes started. */
uint64_t bfs_readahead_range(struct bfs_inode *inode, uint64_t first, uint64_t last);

/* ---- queue.c ---- */
void bfs_queues_free(struct bfs *fs);

/* ---- requests: each op function, with its state in req->priv ---- */
#define BFS_REQ_STATE(req, type) \
	((type *)(void *)(req)->priv + 0 * sizeof(char[sizeof(type) <= sizeof((req)->priv) ? 1 : -1]))
static inline struct bfs_req *bfs_req_of(struct op *op)
{
	return container_of(op, struct bfs_req, op_);
}
/* Ends the request: result is what op->rc or the step said. */
enum op_next bfs_req_end(struct bfs_req *req, int64_t result);
/* op is its channel's again. */
static inline void bfs_req_home(struct bfs_req *req)
{
	op_move(&req->op_, bdev_channel_driver(req->ch));
}
enum op_next bfs_read_cached(struct op *op);
enum op_next bfs_read_uncached(struct op *op);
enum op_next bfs_uncached_from(struct bfs_req *req, uint64_t done);
enum op_next bfs_write_cached(struct op *op);
enum op_next bfs_write_direct(struct op *op);
enum op_next bfs_fsync_run(struct op *op);
/* Goes on as an fsync (datasync) of the file; ends with `result` if that succeeds. */
enum op_next bfs_fsync_after(struct bfs_req *req, int64_t result);
enum op_next bfs_sync_run(struct op *op);
enum op_next bfs_truncate_run(struct op *op);
enum op_next bfs_fallocate_run(struct op *op);
bool bfs_direct_fits(const struct bfs_req *req); /* aligned enough for direct I/O */

/* In a transaction, inode->lock held, after bfs_tail_try: the size in core, and in the header if it may. */
int bfs_raise_size(struct bs_txn *txn, struct bfs_inode *inode, uint64_t size);

/* ---- read.c, write.c: what needs no waiting ---- */
/* Copies what is cached from offset on; bytes done; stops at the first page that is not. sequential: goes on where the last read ended. */
size_t bfs_read_try(struct bfs_inode *inode, uint64_t offset, size_t len, struct bfs_iter *to, bool sequential);

enum bfs_write_need {
	WRITE_DONE,
	WRITE_FILL,  /* `page` must be read first */
	WRITE_WAIT,  /* somebody is reading `page` */
	WRITE_PAGES, /* no page is free */
	WRITE_SPACE, /* the store is full */
};
struct bfs_write { /* one write under way */
	struct bfs_inode *inode;
	struct bfs_iter from; /* iov NULL: zeroes */
	uint64_t offset, left, done;
	uint64_t page;
	bool append;
	bool keep_size;       /* only what lies below the size is written */
	bool keep_times;
};
/* Writes as much as can be without waiting: WRITE_DONE when all is, or (left > 0) as the dirty limit is passed; else what is missing. */
enum bfs_write_need bfs_write_try(struct bfs_write *w);
/* R9: makes the size ready to be raised. inode->lock held; *page as above. */
enum bfs_write_need bfs_tail_try(struct bfs_inode *inode, uint64_t *page);
/* R9: has the size passed the old end, and nothing is on its way that covers the garbage there, as what was to do it failed? inode->lock held. */
bool bfs_tail_is_bare(struct bfs_inode *inode);
/* Then it is covered once more; *page as above. Takes inode->lock. */
enum bfs_write_need bfs_tail_cover(struct bfs_inode *inode, uint64_t *page);
/* The page of stale_end gets dirty: written home, it has zeroes where the garbage was. inode->lock held. */
enum bfs_write_need bfs_garbage_cover(struct bfs_inode *inode, uint64_t page);

struct bfs_need { /* what a write waits for, part of an op */
	struct bfs_unit *unit; /* keeps its pages until the next try is over */
	struct bfs_walk walk;
	struct bfs_waiter waiter;
	bool reclaimed, walking;
};
void bfs_need_init(struct bfs_need *n);
/* Sees to what is missing and goes on at `step` then, to try again; with -ENOSPC or another error op fails, to on_error. */
enum op_next bfs_need_provide(struct bfs_need *n, struct bfs_inode *inode, enum bfs_write_need need, uint64_t page,
			      struct bfs_req *req, int step);
/* The dirty limit is passed: starts write-back for op to wait for. False: there is nothing to start. */
bool bfs_need_throttle(struct bfs_need *n, struct bfs_inode *inode, struct bfs_req *req);
/* After a try: pages may go again. Returns the error of the fill, if it failed. */
int bfs_need_release(struct bfs_need *n);

/* A request done by the calling thread, on a borrowed channel. */
int64_t bfs_req_sync(struct bfs *fs, struct bfs_req *req);

#endif
