/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Data checksums. A block of a run flagged BS_RUN_SUM has a CRC-32C, found by the block's place on the device: whoever maps the block
 * finds the same. It is put by a record of the transaction that publishes the block, and is *young* then: in memory, and in every
 * checkpoint. A sum page is a block with the sums of BS_SUM_PAGE blocks in a row; paging out (sum_out.c) writes young sums there. Pages are
 * what the store's own blob BS_SUM_ID maps, by number: block p of it is the page of the device's blocks from p * BS_SUM_PAGE on. They
 * are written as data is: to a new place, published with the record that deletes the young sums that are in it.
 *
 * A flagged block is never overwritten where it is, so its sum never changes while a run has it; the sums of free blocks are left as
 * they are. Who looks a sum up is in the epoch he looked the run up in, so the block is not anybody else's yet.
 *
 * Locks: the young sums change under bs->lock and lock; readers take lock alone. It is innermost.
 */
#ifndef BLOB_SUM_H
#define BLOB_SUM_H

#include "blob/internal.h"
#include "blob/io.h"

#define BS_SUM_WORDS ((BS_SUM_PAGE + 63u) / 64u)
#define BS_SUM_CLASSES 256u

struct bs_sum_node { /* young sums of the blocks of one page */
	RB_ENTRY(bs_sum_node) node;
	TAILQ_ENTRY(bs_sum_node) link; /* the one that changed last is last */
	uint64_t page;
	uint64_t changes;              /* the number of the last one: of all nodes, for one may go and come again */
	bool stuck;                    /* its page cannot be read: it stays */
	uint32_t bytes;                /* of them as records, at most */
	uint64_t has[BS_SUM_WORDS];
	uint32_t sum[BS_SUM_PAGE];
};
RB_HEAD(bs_sum_tree, bs_sum_node);

struct bs_sum_cached { /* a sum page, as it is on the device */
	RB_ENTRY(bs_sum_cached) node;
	TAILQ_ENTRY(bs_sum_cached) link;
	uint64_t page;
	bool used; /* since it was last passed over */
	uint32_t sum[BS_SUM_PAGE];
};
RB_HEAD(bs_sum_cache, bs_sum_cached);

struct bs_sum_waiter {
	TAILQ_ENTRY(bs_sum_waiter) link;
	struct op *op;
};

struct bs_sums {
	struct bs *bs;
	struct bs_blob *blob;  /* BS_SUM_ID; in the tree of blobs, which counts it */
	pthread_mutex_t lock;
	struct bs_sum_tree young;
	TAILQ_HEAD(, bs_sum_node) order;
	uint64_t n_young, high; /* nodes; with more of them paging out begins */
	uint64_t n_stuck;       /* of these */
	TAILQ_HEAD(, bs_sum_waiter) waiters; /* writes, while there are far too many */
	uint64_t n_changes;
	struct bs_sum_cache cache;
	TAILQ_HEAD(, bs_sum_cached) fifo;
	uint64_t n_cached;
	uint64_t replaced[BS_SUM_CLASSES]; /* pages published or given back since opening, by number: what was read before is not to be cached after */
	_Atomic uint64_t errors, checked, paged;
	_Atomic bool busy;
	_Atomic uint64_t retry_ns;
	uint64_t tell_ns, untold; /* wrong ones in the log: from then on none is owed; left out since the last. Under lock */
	_Atomic uint64_t told;  /* the page that the log said last cannot be used */
	uint64_t found;         /* by checking: pages that are damaged, blocks in a row without sums */
	_Atomic uint64_t swept; /* where the next sweep begins */
};

/* ---- sum.c ---- */

int bs_sums_create(struct bs *bs);
void bs_sums_destroy(struct bs *bs);
/* It has grown: as many may be young as in a store of this size. bs->lock held. */
void bs_sums_fit(struct bs *bs);
struct bs_sum_node *bs_sum_young(const struct bs_sums *s, uint64_t page); /* lock held; NULL: none of the page */
/* A record that has to do with sums, or with the store's own blob, is one that may be. */
bool bs_sum_record_ok(const struct bs *bs, const struct bs_rec *rec);
/* Nodes that a put of sums may need; cannot fail after that. */
int bs_sum_prep(struct bs *bs, const struct bs_rec *rec, struct bs_prep *prep);
void bs_sum_apply(struct bs *bs, const struct bs_rec *rec, struct bs_prep *prep);
/* The first young sums from block `key` on, of blocks in a row: *first and how many, at most max, as on the device. 0: there are none. */
uint32_t bs_sum_capture(const struct bs *bs, uint64_t key, uint64_t *first, le32 *sum, uint32_t max);
bool bs_sum_is_young(struct bs *bs, uint64_t block);
/* The sum of a block that is flagged. False: its page has to be read. */
bool bs_sum_find(struct bs *bs, uint64_t block, uint32_t *sum);
uint32_t bs_sum_page_crc(const struct bs_sum_page_disk *disk);
/* A page is what it should be: its sums go to the cache, unless one was published since `replaced`. -EUCLEAN; -ENOMEM: not cached. */
int bs_sum_page_check(const struct bs *bs, const void *buf, uint64_t page);
int bs_sum_cache_add(struct bs *bs, const struct bs_sum_page_disk *disk, uint64_t page, uint64_t replaced);
/* How often that, or a page of its class, was replaced. */
uint64_t bs_sum_replaced(struct bs *bs, uint64_t page);
void bs_sum_get_stat(struct bs *bs, struct bs_stat *st);

/* ---- sum_walk.c ---- */

/* Of a page that is mapped, in order; buf: NULL if it cannot be read. What is not 0 ends the walk. */
typedef int (*bs_sum_page_fn)(struct bs *bs, uint64_t page, uint64_t phys, void *buf, void *arg);
int bs_sum_pages(struct bs *bs, bs_sum_page_fn fn, void *arg);

/* ---- sum_mend.c ---- */

/* Pages of sums that are damaged: reported, and mending unmaps them. Before runs claim their blocks. */
int bs_sums_verify_pages(struct bs *bs);
/* Flagged blocks without a sum: reported, and mending takes the flag away. At open, when runs and sums are all there. */
int bs_sums_verify(struct bs *bs);
/* Mending, when all that is done: the store has the feature if it has sums, or if its superblock says so. */
void bs_sums_settle(struct bs *bs);

/* ---- sum_write.c ---- */

struct io_sums { /* of a write: a copy of what is written, and its sums */
	void *copy;
	struct iovec one;
	const struct iovec *iov; /* the caller's */
	int iovcnt;
	uint64_t mem_handle;
	uint32_t sum[BS_IO_MAX / BS_BLOCK];
};
/* Has this write sums? Then of a copy of its data, for the caller's may change while it is written. */
int bs_sum_take(struct io_req *r);
void bs_sum_put_back(struct io_req *r); /* the caller's iovecs */
/* Records of the sums of a run of this write, to go before the run's. */
int bs_sum_publish(struct io_req *r, struct bs_txn *txn, const struct bs_run *run);
/* Another write is under way to some of these blocks. bs->lock held. */
bool bs_sum_contended(const struct io_req *r, uint64_t block, uint64_t count);

/* ---- sum_read.c ---- */

/* Part of a read lies there. */
void bs_sum_expect(struct io_req *r, uint64_t block, const struct bs_extent *e);
/* All data is read: compares, as a step of the read's op that comes again (step) until it goes to `done`. */
enum op_next bs_sum_check(struct op *op, struct io_req *r, int step, int done);
void bs_sum_check_end(struct io_req *r);

/* ---- sum_free.c ---- */

/* Forgets the sums of a page's blocks and frees the page, if all of them are free. */
bool bs_sum_page_give_back(struct bs *bs, uint64_t page);
/* Gives back some pages that are of no use any more; goes on where it ended. For who has released space. */
void bs_sums_sweep(struct bs *bs);

/* ---- sum_out.c ---- */

bool bs_sums_wanted(struct bs *bs);
/* There are far more young ones than there should be, and paging out is under way: op waits, as for a child, until that is over. False:
 * there is nothing to wait for. Outside of epochs. */
bool bs_sums_wait_start(struct bs *bs, struct op *op);
/* bs_sums_start (blob.h) pages out what is more than half of `high`. */
bool bs_sums_idle(const struct bs *bs);
int bs_sums_step(struct bs *bs); /* BS_NO_SERVICE: the same, and waits; not for one that is under way */

#endif
