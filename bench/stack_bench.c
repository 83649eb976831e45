/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a random read (or write) of 4 KiB costs on the way from a layer down to the device, by one thread, resubmitted as it ends.
 *
 *   stack_bench DEVICE bdev|blob|op [-q DEPTH] [-t SECONDS] [-n READS] [-s MICROSECONDS]
 *   stack_bench DEVICE make RUNS
 *   stack_bench DEVICE pairs [RUNS] [-p PAIRS] [-w] [-i IOPS] [-l MICROSECONDS] [-q DEPTH] [-t SECONDS]
 *
 * blob: through the store, with callbacks as the device has them; op: each as a child of an op. make: formats the device (what it
 * holds is lost) with a store of one blob of so many runs, of 512 MiB if it is one, which these read.
 *
 * pairs: does that and then measures the bare device and the store by turns (-w: writes), in one process, on the same blocks: medians,
 * what the store adds, by the clock and in time of this thread's processor (which on a busy machine says more), and what share of the
 * device's rate it keeps. -i: the device is delayed to that rate, each I/O for 100 microseconds at least, or for what -l says.
 *
 * The other options are those of nvme_bench.
 */
#include <unistd.h>
#include <x86intrin.h>

#include "base/dma.h"
#include "bdev/wrap.h"
#include "bench/store.h"
#include "blob/blob.h"

#define MAX_DEPTH 1023u

#define ONE_RUN (512 * MiB / BS_BLOCK) /* blocks of a blob of one run */

struct one {
	struct op op; /* of a read of the blob as an op's child */
	struct bdev_io dev;
	struct bs_io io;
	struct iovec v;
	struct run *r;
};

#define LEAST_KEPT 0.95 /* of what a paced device does */

struct run {
	struct bdev_channel *ch;
	struct bs_blob *blob;
	uint64_t base, step; /* of the places: first byte, and so many blocks from one to the next */
	bool write, ops, paced; /* paced: by a device of so many I/Os a second */
	uint64_t mask, left, done, failed, polls, seed;
	struct one *all;
};

static uint64_t place(struct run *r)
{
	r->left--;
	return r->base + (bench_random(&r->seed) & r->mask) * r->step * BS_BLOCK;
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

static void blob_done(struct bs_io *io, int rc)
{
	struct one *o = container_of(io, struct one, io);

	o->r->done++;
	o->r->failed += rc != 0;
	if (o->r->left) {
		io->offset = place(o->r);
		bs_io_submit(o->r->ch, io, blob_done);
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
		bdev_io_init_buf(&o->dev, r->write ? BDEV_WRITE : BDEV_READ, buf, place(r), BS_BLOCK, dev_done, o);
		bdev_submit(r->ch, &o->dev);
		return;
	}
	o->io = (struct bs_io){ .blob = r->blob,
				.op = r->write ? BS_WRITE : BS_READ,
				.length = BS_BLOCK,
				.iov = &o->v,
				.iovcnt = 1 };
	if (!r->ops) {
		o->io.offset = place(r);
		bs_io_submit(r->ch, &o->io, blob_done);
		return;
	}
	op_init(&o->op, "read", read_again, bdev_channel_driver(r->ch), ended, r);
	op_start(&o->op);
}

/* Its name is known to nvme_count.py. */
__attribute__((noinline, noclone)) static void loop(struct run *r, double seconds,
						    unsigned settle_us)
{
	double end = bench_now() + seconds;

	while (bdev_channel_inflight(r->ch)) {
		if (settle_us)
			usleep(settle_us);
		bdev_poll(r->ch);
		if (!(++r->polls & 4095) && bench_now() > end)
			r->left = 0;
	}
	bdev_poll(r->ch);
}

struct cost { /* of one */
	double ns, cpu_ns, cycles;
};

/* -1: it failed. */
static int measure(struct bdev *dev, struct run *r, unsigned depth, double seconds,
		   unsigned settle_us, struct cost *cost)
{
	char *buf = dma_zalloc((size_t)depth * BS_BLOCK, BS_BLOCK);
	double took, cpu;
	uint64_t tsc;

	r->done = r->failed = r->polls = 0;
	r->all = calloc(depth, sizeof(*r->all));
	if (!buf || !r->all || bdev_channel_create(dev, &r->ch))
		return -1;
	took = bench_now();
	cpu = bench_clock(CLOCK_THREAD_CPUTIME_ID);
	tsc = __rdtsc();
	for (unsigned i = 0; i < depth && r->left; i++)
		start(r, &r->all[i], buf + (size_t)i * BS_BLOCK);
	loop(r, seconds, settle_us);
	tsc = __rdtsc() - tsc;
	cpu = bench_clock(CLOCK_THREAD_CPUTIME_ID) - cpu;
	took = bench_now() - took;
	bdev_channel_destroy(r->ch);
	free(r->all);
	dma_free(buf);
	*cost = (struct cost){ .ns = took * 1e9 / (double)r->done,
			       .cpu_ns = cpu * 1e9 / (double)r->done,
			       .cycles = (double)tsc / (double)r->done };
	return r->failed || !r->done ? -1 : 0;
}

static int measure_and_say(struct bdev *dev, struct run *r, unsigned depth, double seconds,
			   unsigned settle_us)
{
	struct cost c;
	int rc = measure(dev, r, depth, seconds, settle_us, &c);

	if (!rc)
		printf("%s depth %4u: %9.0f reads/s, %6.0f cycles, %6.0f ns a read\n",
		       !r->blob ? "bdev" : r->ops ? "op  " : "blob", depth, 1e9 / c.ns, c.cycles, c.ns);
	return rc;
}

/* ---- the blob ---- */

/* Unwritten blocks, of which every other is then written: each is a run. Or all of them: one run. */
static int fill(struct bs *bs, uint64_t runs, struct bs_blob **out)
{
	struct bs_io io = { .op = BS_WRITE, .length = runs > 1 ? BS_BLOCK : MiB, .iovcnt = 1 };
	uint64_t blocks = runs > 1 ? runs : ONE_RUN, step = runs > 1 ? 2 : MiB / BS_BLOCK;
	struct iovec v = { dma_zalloc(MiB, BS_BLOCK), io.length };
	struct bs_blob *first;
	struct bs_txn *txn;
	int rc = v.iov_base ? bs_txn_begin(bs, 0, &txn) : -1;

	if (rc)
		return rc;
	/* The one that is measured lies behind the second superblock, which would cut it in two. */
	rc = bs_txn_create(txn, 0, NULL, 0, &first);
	if (!rc) {
		rc = bs_txn_prealloc(txn, first, 0, 64 * MiB / BS_BLOCK, BS_STREAM_LONG);
		bs_blob_put(first);
	}
	if (!rc)
		rc = bs_txn_create(txn, 0, NULL, 0, &io.blob);
	if (!rc)
		rc = bs_txn_prealloc(txn, io.blob, 0, blocks, BS_STREAM_LONG);
	if (rc) {
		bs_txn_cancel(txn);
		return rc;
	}
	bs_txn_end(txn);
	io.iov = &v;
	for (uint64_t i = 0; i < blocks && !rc; i += step) {
		io.offset = i * BS_BLOCK;
		rc = bs_io_sync(bs, &io);
	}
	dma_free(v.iov_base);
	*out = io.blob;
	return rc;
}

static int make(struct bdev *dev, uint64_t runs, struct bs **out, struct bs_blob **blob,
		struct base_err *err)
{
	struct bs_open_opts o = { .size = sizeof(o) };
	struct bs_stat st;
	int rc = bs_format(dev, NULL, err);

	if (!rc)
		rc = bs_open(dev, &o, out, err);
	if (rc) {
		bdev_close(dev);
		return rc;
	}
	rc = fill(*out, runs, blob);
	bs_get_stat(*out, &st);
	printf("%llu runs\n", (unsigned long long)st.runs);
	return rc;
}

static int make_only(struct bdev *dev, uint64_t runs, struct base_err *err)
{
	struct bs_blob *blob = NULL;
	struct bs *bs = NULL;
	int rc = make(dev, runs, &bs, &blob, err);

	bs_blob_put(blob);
	return bs && bs_close(bs) ? -1 : rc;
}

/* Reads what was written of the blob. */
static void aim(struct run *r)
{
	struct bs_blob_info info;
	uint64_t places;

	bs_blob_get_info(r->blob, &info);
	r->step = info.runs > 1 ? 2 : 1;
	places = info.mapped_blocks / r->step;
	for (r->mask = 1; r->mask * 2 <= places; r->mask *= 2)
		;
	r->mask--;
}

/* The last one. */
static int keep(struct bs_blob *blob, void *arg)
{
	struct bs_blob **last = arg;

	bs_blob_put(*last);
	*last = blob;
	bs_blob_ref(blob);
	return 0;
}

static int on_blob(struct bdev *dev, struct run *r, unsigned depth, double seconds,
		   unsigned settle_us, struct base_err *err)
{
	struct bs_open_opts o = { .size = sizeof(o), .flags = BS_RDONLY };
	struct bs *bs;
	int rc = bs_open(dev, &o, &bs, err);

	if (rc) {
		bdev_close(dev);
		return rc;
	}
	bs_foreach_blob(bs, 0, keep, &r->blob);
	if (r->blob) {
		aim(r);
		rc = measure_and_say(dev, r, depth, seconds, settle_us);
	}
	if (r->blob)
		bs_blob_put(r->blob);
	return bs_close(bs) || rc;
}

/* ---- by turns ---- */

static int turns(struct run *store, unsigned pairs, unsigned depth, double seconds, struct bdev *dev)
{
	double bare_ns[PAIRS_MAX] = { 0 }, store_ns[PAIRS_MAX] = { 0 }, more[PAIRS_MAX] = { 0 }, cpu[PAIRS_MAX] = { 0 };
	double kept[PAIRS_MAX] = { 0 }, rate;
	struct run bare = *store;
	struct cost b, s;
	struct bs_extent e;
	int rc = 0;

	bs_map_lookup(store->blob, 0, 1, &e);
	bare.blob = NULL;
	bare.base = e.phys * BS_BLOCK;
	for (unsigned i = 0; i < pairs; i++) {
		bare.left = store->left = UINT64_MAX;
		/* Neither is always the second. */
		if (i % 2)
			rc = measure(dev, store, depth, seconds, 0, &s);
		if (!rc)
			rc = measure(dev, &bare, depth, seconds, 0, &b);
		if (!rc && i % 2 == 0)
			rc = measure(dev, store, depth, seconds, 0, &s);
		if (rc)
			return rc;
		bare_ns[i] = b.ns;
		store_ns[i] = s.ns;
		more[i] = s.ns - b.ns;
		cpu[i] = s.cpu_ns - b.cpu_ns;
		kept[i] = b.ns / s.ns;
	}
	rate = 1e9 / bench_median(bare_ns, pairs);
	printf("%s of %s, depth %u, %u pairs: ", store->write ? "writes" : "reads", bdev_info(dev)->name,
	       depth, pairs);
	printf("device %.0f ns, store %.0f ns, the store adds %.0f ns (processor: %.0f) and keeps %.1f %% of %.0f a second\n",
	       bench_median(bare_ns, pairs), bench_median(store_ns, pairs), bench_median(more, pairs), bench_median(cpu, pairs),
	       100 * bench_median(kept, pairs), rate);
	if (store->paced && bench_median(kept, pairs) < LEAST_KEPT)
		printf("    misses the bar: the store is to keep %.0f %%\n", 100 * LEAST_KEPT);
	return 0;
}

static int on_both(struct bdev *dev, struct run *r, uint64_t runs, unsigned pairs, unsigned depth,
		   double seconds, struct base_err *err)
{
	struct bs *bs = NULL;
	int rc = make(dev, runs, &bs, &r->blob, err);

	if (!rc) {
		aim(r);
		rc = turns(r, pairs, depth, seconds, dev);
	}
	bs_blob_put(r->blob);
	return bs && bs_close(bs) ? -1 : rc;
}

/* ---- the command line ---- */

struct args {
	const char *device, *what;
	uint64_t runs, reads;
	unsigned depth, settle, pairs, iops, latency;
	double seconds;
	bool write;
};

static bool parse(int argc, char **argv, struct args *a)
{
	int o;

	while ((o = getopt(argc, argv, "q:t:n:s:p:i:l:w")) != -1) {
		if (o == 'q')
			a->depth = (unsigned)atoi(optarg);
		else if (o == 't')
			a->seconds = atof(optarg);
		else if (o == 'n')
			a->reads = strtoull(optarg, NULL, 0);
		else if (o == 's')
			a->settle = (unsigned)atoi(optarg);
		else if (o == 'p')
			a->pairs = (unsigned)atoi(optarg);
		else if (o == 'i')
			a->iops = (unsigned)atoi(optarg);
		else if (o == 'l')
			a->latency = (unsigned)atoi(optarg);
		else if (o == 'w')
			a->write = true;
		else
			return false;
	}
	if (argc - optind < 2 || !a->depth || a->depth > MAX_DEPTH || !a->pairs || a->pairs > PAIRS_MAX)
		return false;
	a->device = argv[optind];
	a->what = argv[optind + 1];
	a->runs = optind + 2 < argc ? strtoull(argv[optind + 2], NULL, 0) : 1;
	return true;
}

static int on_device(struct bdev *dev, struct run *r, const struct args *a)
{
	int rc;

	for (r->mask = 1; r->mask * 2 <= bdev_info(dev)->size / BS_BLOCK; r->mask *= 2)
		;
	r->mask--;
	rc = measure_and_say(dev, r, a->depth, a->seconds, a->settle);
	bdev_close(dev);
	return rc;
}

static int run(const struct args *a, struct base_err *err)
{
	struct bdev_opts b = { .size = sizeof(b), .depth = MAX_DEPTH };
	struct run r = { .left = a->reads, .step = 1, .write = a->write, .seed = 88172645463325252ull };
	struct bdev *dev;
	int rc = bdev_open(a->device, &b, &dev, err);

	if (!rc && a->iops) {
		struct bdev *base = dev;

		rc = bdev_delay_create(base, a->latency, a->iops, &dev);
		if (rc)
			bdev_close(base);
	}
	if (rc)
		return rc;
	r.paced = a->iops;
	r.ops = !strcmp(a->what, "op");
	if (!strcmp(a->what, "make"))
		return make_only(dev, a->runs, err);
	if (!strcmp(a->what, "pairs"))
		return on_both(dev, &r, a->runs, a->pairs, a->depth, a->seconds, err);
	if (r.ops || !strcmp(a->what, "blob"))
		return on_blob(dev, &r, a->depth, a->seconds, a->settle, err);
	return on_device(dev, &r, a);
}

int main(int argc, char **argv)
{
	struct args a = { .depth = 32, .seconds = 2, .pairs = 11, .latency = 100, .reads = UINT64_MAX };
	struct base_err err = { "" };

	if (!parse(argc, argv, &a)) {
		fprintf(stderr,
			"usage: stack_bench DEVICE bdev|blob|op [-q DEPTH] [-t SECONDS] [-n READS] [-s US]\n"
			"       stack_bench DEVICE make RUNS\n"
			"       stack_bench DEVICE pairs [RUNS] [-p PAIRS] [-w] [-i IOPS] [-l US] [-q DEPTH] [-t SECONDS]\n");
		return 2;
	}
	if (run(&a, &err)) {
		fprintf(stderr, "stack_bench: %s\n", *err.text ? err.text : "failed");
		return 1;
	}
	return 0;
}
