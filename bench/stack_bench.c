/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a random read of 4 KiB costs on the way from a layer down to the device, by one thread, resubmitted as it ends.
 *
 *   stack_bench DEVICE bdev|blob [-q DEPTH] [-t SECONDS] [-n READS] [-s MICROSECONDS]
 *   stack_bench DEVICE make RUNS
 *
 * make: formats the device (what it holds is lost) with a store of one blob of so many runs, which `blob` reads. The other options
 * are those of nvme_bench.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "base/dma.h"
#include "base/util.h"
#include "blob/blob.h"

#define MAX_DEPTH 1023u

struct one {
	struct op op; /* of a read of the blob */
	struct bdev_io dev;
	struct bs_io io;
	struct iovec v;
	struct run *r;
};

struct run {
	struct bdev_channel *ch;
	struct bs_blob *blob;
	uint64_t mask, left, done, failed, polls, seed;
	struct one *all;
};

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static uint64_t place(struct run *r)
{
	r->left--;
	return (next_random(&r->seed) & r->mask) * BS_BLOCK;
}

static void dev_done(struct bdev_io *io, int rc)
{
	struct one *o = io->cb_arg;

	o->r->done++;
	o->r->failed += rc != 0;
	if (o->r->left) {
		io->offset = place(o->r);
		bdev_submit(o->r->ch, io);
	}
}

static enum op_next read_again(struct op *op)
{
	struct one *o = (struct one *)op;

	if (op->step)
		o->r->done++;
	if (!o->r->left)
		return op_finish(op);
	o->io.offset = place(o->r);
	bs_io_start(o->r->ch, &o->io, op);
	return op_await(op, 1, 0);
}

static void ended(struct op *op, void *arg)
{
	struct run *r = arg;

	r->failed += op->rc != 0;
}

static void start(struct run *r, struct one *o, char *buf)
{
	o->r = r;
	o->v = (struct iovec){ buf, BS_BLOCK };
	if (!r->blob) {
		bdev_io_init_buf(&o->dev, BDEV_READ, buf, place(r), BS_BLOCK, dev_done, o);
		bdev_submit(r->ch, &o->dev);
		return;
	}
	o->io = (struct bs_io){
		.blob = r->blob, .op = BS_READ, .length = BS_BLOCK, .iov = &o->v, .iovcnt = 1
	};
	op_init(&o->op, "read", read_again, bdev_channel_driver(r->ch), ended, r);
	op_start(&o->op);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Its name is known to nvme_count.py. */
__attribute__((noinline, noclone)) static void loop(struct run *r, double seconds,
						    unsigned settle_us)
{
	double end = now() + seconds;

	while (bdev_channel_inflight(r->ch)) {
		if (settle_us)
			usleep(settle_us);
		bdev_poll(r->ch);
		if (!(++r->polls & 4095) && now() > end)
			r->left = 0;
	}
	bdev_poll(r->ch);
}

static int measure(struct bdev *dev, struct run *r, unsigned depth, double seconds,
		   unsigned settle_us)
{
	char *buf = dma_zalloc((size_t)depth * BS_BLOCK, BS_BLOCK);
	int rc = bdev_channel_create(dev, &r->ch);
	uint64_t cycles;
	double took;

	r->all = calloc(depth, sizeof(*r->all));
	if (rc || !buf || !r->all)
		return -1;
	took = now();
	cycles = __rdtsc();
	for (unsigned i = 0; i < depth && r->left; i++)
		start(r, &r->all[i], buf + (size_t)i * BS_BLOCK);
	loop(r, seconds, settle_us);
	cycles = __rdtsc() - cycles;
	took = now() - took;
	printf("%s depth %4u: %9.0f reads/s, %6.0f cycles, %6.0f ns a read%s\n",
	       r->blob ? "blob" : "bdev", depth, (double)r->done / took,
	       (double)cycles / (double)r->done, took * 1e9 / (double)r->done,
	       r->failed ? ", FAILED" : "");
	bdev_channel_destroy(r->ch);
	free(r->all);
	dma_free(buf);
	return r->failed ? -1 : 0;
}

/* ---- the blob ---- */

/* Unwritten blocks, of which every other is then written: each is a run. */
static int fill(struct bs *bs, uint64_t runs)
{
	struct bs_io io = { .op = BS_WRITE, .length = BS_BLOCK, .iovcnt = 1 };
	struct iovec v = { dma_zalloc(BS_BLOCK, BS_BLOCK), BS_BLOCK };
	struct bs_txn *txn;
	int rc = v.iov_base ? bs_txn_begin(bs, 0, &txn) : -1;

	if (rc)
		return rc;
	rc = bs_txn_create(txn, 0, NULL, 0, &io.blob);
	if (!rc)
		rc = bs_txn_prealloc(txn, io.blob, 0, runs > 1 ? runs : 65536, BS_STREAM_LONG);
	if (rc) {
		bs_txn_cancel(txn);
		return rc;
	}
	bs_txn_end(txn);
	io.iov = &v;
	for (uint64_t i = 0; i < (runs > 1 ? runs : 65536) && !rc; i += runs > 1 ? 2 : 1) {
		io.offset = i * BS_BLOCK;
		rc = bs_io_sync(bs, &io);
	}
	bs_blob_put(io.blob);
	dma_free(v.iov_base);
	return rc;
}

static int make(struct bdev *dev, uint64_t runs, struct base_err *err)
{
	struct bs_open_opts o = { .size = sizeof(o) };
	struct bs *bs;
	struct bs_stat st;
	int rc = bs_format(dev, NULL, err);

	if (!rc)
		rc = bs_open(dev, &o, &bs, err);
	if (rc) {
		bdev_close(dev);
		return rc;
	}
	rc = fill(bs, runs);
	bs_get_stat(bs, &st);
	printf("%llu runs\n", (unsigned long long)st.runs);
	return bs_close(bs) || rc;
}

static int keep(struct bs_blob *blob, void *arg)
{
	*(struct bs_blob **)arg = blob;
	bs_blob_ref(blob);
	return 1;
}

static int on_blob(struct bdev *dev, struct run *r, unsigned depth, double seconds,
		   unsigned settle_us, struct base_err *err)
{
	struct bs_open_opts o = { .size = sizeof(o), .flags = BS_RDONLY };
	struct bs_stat st;
	struct bs *bs;
	int rc = bs_open(dev, &o, &bs, err);

	if (rc) {
		bdev_close(dev);
		return rc;
	}
	bs_foreach_blob(bs, 0, keep, &r->blob);
	bs_get_stat(bs, &st);
	for (r->mask = 1; r->mask * 2 <= MIN(st.used_blocks, (uint64_t)1 << 20); r->mask *= 2)
		;
	r->mask--;
	rc = r->blob ? measure(dev, r, depth, seconds, settle_us) : -1;
	if (r->blob)
		bs_blob_put(r->blob);
	return bs_close(bs) || rc;
}

int main(int argc, char **argv)
{
	struct bdev_opts b = { .size = sizeof(b), .depth = MAX_DEPTH };
	struct run r = { .left = UINT64_MAX, .seed = 88172645463325252ull };
	unsigned depth = 32, settle = 0;
	struct base_err err = { "" };
	double seconds = 2;
	struct bdev *dev;
	int o, rc;

	while ((o = getopt(argc, argv, "q:t:n:s:")) != -1) {
		if (o == 'q')
			depth = (unsigned)atoi(optarg);
		else if (o == 't')
			seconds = atof(optarg);
		else if (o == 'n')
			r.left = strtoull(optarg, NULL, 0);
		else if (o == 's')
			settle = (unsigned)atoi(optarg);
		else
			optind = argc;
	}
	if (argc - optind < 2 || !depth || depth > MAX_DEPTH) {
		fprintf(stderr,
			"usage: stack_bench DEVICE bdev|blob [-q DEPTH] [-t SECONDS] [-n READS] [-s US]\n"
			"       stack_bench DEVICE make RUNS\n");
		return 2;
	}
	rc = bdev_open(argv[optind], &b, &dev, &err);
	if (!rc && !strcmp(argv[optind + 1], "make")) {
		rc = make(dev, optind + 2 < argc ? strtoull(argv[optind + 2], NULL, 0) : 1, &err);
	} else if (!rc && !strcmp(argv[optind + 1], "blob")) {
		rc = on_blob(dev, &r, depth, seconds, settle, &err);
	} else if (!rc) {
		for (r.mask = 1; r.mask * 2 <= bdev_info(dev)->size / BS_BLOCK; r.mask *= 2)
			;
		r.mask--;
		rc = measure(dev, &r, depth, seconds, settle);
		bdev_close(dev);
	}
	if (rc)
		fprintf(stderr, "stack_bench: %s\n", *err.text ? err.text : "failed");
	return rc ? 1 : 0;
}
