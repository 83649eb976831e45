/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What allocating and freeing costs on a store that is 95 % full and has had millions of random allocations, against a fresh one; and how
 * long the runs are.
 *
 *	store_age [-p PAIRS] [-a ALLOCATIONS] [-s SIZE] [-f PERCENT]
 *
 * Both stores lie in memory. An allocation is of 1 to 16 blocks, a free takes one of them away; each is a transaction of its own. The
 * store is aged by writes; what is timed are preallocations, because in the time of a write copying the data is the most. Time is the
 * processor's.
 */
#include <unistd.h>

#include "base/dma.h"
#include "bench/store.h"
#include "blob/blob.h"

#define MOST 16u       /* blocks of one allocation */
#define BATCH 2000u    /* allocations and frees that are timed together */
#define BLOB_PIECES 1024u

struct piece {
	uint32_t blob, place; /* in that blob, in units of MOST blocks */
	uint32_t blocks;
};
struct aged {
	struct bs *bs;
	struct bs_blob **blob;
	struct iovec v;
	uint32_t n_blobs;
	struct piece *piece; /* those that are there, then those that are not */
	uint64_t n, random, done;
};

/* Nobody does it in the background, so that nothing else is timed. */
static void look_after(struct aged *a)
{
	struct bs_stat st;

	bench_must("commit", bs_commit(a->bs, 0));
	bench_must("service", bs_service_step(a->bs));
	bs_get_stat(a->bs, &st);
	if (st.log_bytes > st.log_limit / 2)
		bench_must("checkpoint", bs_checkpoint(a->bs));
}

static int preallocate(struct aged *a, const struct piece *p)
{
	struct bs_txn *txn;
	int rc;

	bench_must("begin", bs_txn_begin(a->bs, 0, &txn));
	rc = bs_txn_prealloc(txn, a->blob[p->blob], (uint64_t)p->place * MOST, p->blocks, BS_STREAM_LONG);
	if (rc)
		bs_txn_cancel(txn);
	else
		bs_txn_end(txn);
	return rc;
}

static int write_piece(struct aged *a, const struct piece *p)
{
	struct bs_io io = { .op = BS_WRITE, .iov = &a->v, .iovcnt = 1, .stream = BS_STREAM_LONG };
	int rc;

	io.blob = a->blob[p->blob];
	io.offset = (uint64_t)p->place * MOST * BS_BLOCK;
	io.length = a->v.iov_len = p->blocks * BS_BLOCK;
	rc = bs_io_sync(a->bs, &io);
	bs_blob_trim_ahead(io.blob);
	return rc;
}

static int allocate(struct aged *a, bool write)
{
	struct piece *p = &a->piece[a->n];
	int rc;

	p->blocks = 1 + (uint32_t)(bench_random(&a->random) % MOST);
	rc = write ? write_piece(a, p) : preallocate(a, p);
	if (rc)
		return rc;
	a->n++;
	a->done++;
	return 0;
}

static void release(struct aged *a)
{
	uint64_t i = bench_random(&a->random) % a->n;
	struct piece p = a->piece[i];
	struct bs_txn *txn;

	bench_must("begin", bs_txn_begin(a->bs, BS_TXN_FREES, &txn));
	bench_must("unmap", bs_txn_unmap(txn, a->blob[p.blob], (uint64_t)p.place * MOST, p.blocks));
	bs_txn_end(txn);
	a->piece[i] = a->piece[--a->n];
	a->piece[a->n] = p;
}

static void make(struct aged *a, uint64_t size)
{
	struct bs_open_opts o = { .size = sizeof(o), .flags = BS_NO_SERVICE };
	struct base_err err = { "" };
	struct bs_stat st;
	struct bdev *dev;
	char name[64];
	uint64_t pieces;

	snprintf(name, sizeof(name), "ram:%" PRIu64, size);
	if (bdev_open(name, NULL, &dev, &err) || bs_format(dev, NULL, &err) || bs_open(dev, &o, &a->bs, &err))
		bench_die("store_age", err.text);
	bs_get_stat(a->bs, &st);
	a->n_blobs = (uint32_t)div_round_up(st.avail_blocks / 6, BLOB_PIECES);
	pieces = (uint64_t)a->n_blobs * BLOB_PIECES;
	a->blob = calloc(a->n_blobs, sizeof(*a->blob));
	a->piece = calloc(pieces, sizeof(*a->piece));
	a->v.iov_base = dma_zalloc(MOST * BS_BLOCK, BS_BLOCK);
	if (!a->blob || !a->piece || !a->v.iov_base)
		bench_die("store_age", "no memory");
	for (uint32_t i = 0; i < a->n_blobs; i++) {
		struct bs_txn *txn;

		bench_must("begin", bs_txn_begin(a->bs, 0, &txn));
		bench_must("create", bs_txn_create(txn, 0, NULL, 0, &a->blob[i]));
		bs_txn_end(txn);
	}
	for (uint64_t i = 0; i < pieces; i++) {
		uint64_t k = bench_random(&a->random) % (i + 1);

		a->piece[i] = a->piece[k];
		a->piece[k] = (struct piece){ .blob = (uint32_t)(i / BLOB_PIECES), .place = (uint32_t)(i % BLOB_PIECES) };
	}
	look_after(a);
}

static void drop(struct aged *a)
{
	for (uint32_t i = 0; i < a->n_blobs; i++)
		bs_blob_put(a->blob[i]);
	free(a->blob);
	free(a->piece);
	dma_free(a->v.iov_base);
	bench_must("close", bs_close(a->bs));
}

/* Percent of the store that is in use, in the sense of statfs. */
static double percent_full(struct aged *a)
{
	struct bs_stat st;

	bs_get_stat(a->bs, &st);
	return 100.0 - 100.0 * (double)(st.avail_blocks + st.pending_blocks) / (double)st.blocks;
}

/* So many allocations, with as many frees that the store is about so full. */
static void age(struct aged *a, uint64_t allocations, double percent)
{
	uint64_t end = a->done + allocations, batch = 0, refused = 0;
	bool full = percent_full(a) >= percent;

	while (a->done < end) {
		if (full && a->n)
			release(a);
		else if (allocate(a, true))
			refused++;
		if (++batch % 256 == 0) {
			look_after(a);
			full = percent_full(a) >= percent;
		} else if (full) {
			full = bench_random(&a->random) & 1;
		} else {
			full = percent_full(a) >= percent;
		}
		if (refused > 1000)
			bench_die("store_age", "there is no space though the store is not that full");
	}
	look_after(a);
}

/* ns of one allocation with one free. */
static double measure(struct aged *a)
{
	double took = 0;

	for (unsigned i = 0; i < BATCH; i += 100) {
		double begin = bench_clock(CLOCK_THREAD_CPUTIME_ID);

		for (unsigned k = 0; k < 100; k++)
			release(a);
		for (unsigned k = 0; k < 100; k++)
			bench_must("allocate", allocate(a, false));
		took += bench_clock(CLOCK_THREAD_CPUTIME_ID) - begin;
		/* Room is kept for what is unwritten to fall into pieces, so it is written. */
		for (unsigned k = 0; k < 100; k++)
			bench_must("write", write_piece(a, &a->piece[a->n - 100 + k]));
		look_after(a);
	}
	return took * 1e9 / BATCH;
}

#define BUCKETS 8u /* 1, 2-3, 4-7 … 128 and more */

static void run_lengths(struct aged *a, uint64_t bucket[BUCKETS], uint64_t *runs, uint64_t *blocks)
{
	for (uint32_t i = 0; i < a->n_blobs; i++) {
		struct bs_extent e;

		for (uint64_t b = 0; b < (uint64_t)BLOB_PIECES * MOST; b += e.count) {
			unsigned k = 0;

			bs_map_lookup(a->blob[i], b, (uint64_t)BLOB_PIECES * MOST - b, &e);
			if (e.flags & BS_RUN_HOLE)
				continue;
			while (k + 1 < BUCKETS && e.count >> (k + 1))
				k++;
			bucket[k]++;
			++*runs;
			*blocks += e.count;
		}
	}
}

static void print_lengths(struct aged *a, const char *name)
{
	uint64_t bucket[BUCKETS] = { 0 }, runs = 0, blocks = 0;

	run_lengths(a, bucket, &runs, &blocks);
	printf("  %-6s %9" PRIu64 " runs of %5.1f blocks on average:", name, runs, (double)blocks / (double)MAX(runs, 1ull));
	for (unsigned k = 0; k < BUCKETS; k++)
		printf(" %5.1f%%", 100.0 * (double)bucket[k] / (double)MAX(runs, 1ull));
	printf("   pieces %" PRIu64 ", %.2f runs each\n", a->n, (double)runs / (double)MAX(a->n, 1ull));
}

int main(int argc, char **argv)
{
	uint64_t allocations = 10000000, size = 4 * GiB;
	static double fresh_ns[PAIRS_MAX], aged_ns[PAIRS_MAX];
	struct aged fresh = { .random = 1 }, aged = { .random = 2 };
	unsigned pairs = 11;
	double percent = 95, took;
	int opt;

	while ((opt = getopt(argc, argv, "p:a:s:f:")) != -1) {
		if (opt == 'p')
			pairs = MIN(MAX((unsigned)atoi(optarg), 1u), PAIRS_MAX);
		else if (opt == 'a')
			allocations = strtoull(optarg, NULL, 0);
		else if (opt == 'f')
			percent = strtod(optarg, NULL);
		else if (opt != 's' || base_parse_size(optarg, &size))
			return 2;
	}
	make(&fresh, size);
	make(&aged, size);
	took = bench_now();
	age(&aged, allocations, percent);
	printf("  %" PRIu64 " random allocations in %.0f s: %.1f %% full\n", allocations, bench_now() - took, percent_full(&aged));
	age(&fresh, BATCH * 10, 100);
	for (unsigned p = 0; p < pairs; p++) {
		fresh_ns[p] = p % 2 ? measure(&fresh) : 0;
		aged_ns[p] = measure(&aged);
		if (p % 2 == 0)
			fresh_ns[p] = measure(&fresh);
	}
	printf("  an allocation of 1 to 16 blocks and a free: fresh %.0f ns, aged %.0f ns (medians of %u)\n",
	       bench_median(fresh_ns, pairs), bench_median(aged_ns, pairs), pairs);
	printf("  blocks in a run:                                      1    2-3    4-7   8-15  16-31  32-63 64-127  128+\n");
	print_lengths(&fresh, "fresh");
	print_lengths(&aged, "aged");
	bench_row("allocating and freeing, aged over fresh", false, 3, bench_ratio(aged_ns, fresh_ns, pairs), "");
	drop(&fresh);
	drop(&aged);
	return 0;
}
