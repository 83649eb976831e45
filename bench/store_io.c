/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random reads and writes of 4 KiB of a blob, against the device below it.
 *
 *	store_io ram [-p PAIRS] [-t SECONDS]          on memory, 512 MiB of it: nanoseconds over the bare device on the same blocks, depths 1
 *	                                              and 32
 *	store_io file IMAGE [-p PAIRS] [-t SECONDS]   on a file: rate and processor time against fio with io_uring on the same blocks of the
 *	                                              same file, depth 32. IMAGE is formatted.
 *
 * -c: of a store with checksums of data, for which there is no bar.
 *
 * One thread, each I/O sent again as it ends. SECONDS: of one side of a pair. On memory the time is the processor's, which others on the
 * machine change least.
 */
#include <unistd.h>

#include "base/dma.h"
#include "bench/store.h"
#include "blob/blob.h"

#define DEPTH 32u
#define WORK (512 * MiB) /* working set */

static struct bs_format_opts format = { .size = sizeof(format) };

struct one {
	struct op op;
	struct bdev_io dev;
	struct bs_io io;
	struct iovec v;
	struct load *load;
};
struct load {
	struct bs *bs;
	struct bs_blob *blob; /* NULL: the bare device */
	struct bdev *dev;
	struct bdev_channel *ch;
	uint64_t first, blocks; /* of the blob or the device: where */
	bool write, stop;
	unsigned depth;
	uint64_t done, random;
	double end; /* of run_file: when to stop */
	char *buf;
	struct one all[DEPTH];
};

static uint64_t place(struct load *l)
{
	/* The high half of a product: as good as a remainder and cheaper. */
	return (l->first + (((bench_random(&l->random) >> 32) * l->blocks) >> 32)) * BS_BLOCK;
}

static void bare_done(struct bdev_io *io, int rc)
{
	struct one *o = io->cb_arg;

	bench_must("device", rc);
	o->load->done++;
	if (o->load->stop)
		return;
	io->offset = place(o->load);
	bdev_submit(o->load->ch, io);
}

static enum op_next blob_again(struct op *op)
{
	struct one *o = container_of(op, struct one, op);

	o->load->done += op->step;
	if (o->load->stop)
		return op_finish(op);
	o->io.offset = place(o->load);
	bs_io_start(o->load->ch, &o->io, op);
	return op_await(op, 1, 0);
}

static void begin_blob(struct load *l, struct one *o, char *buf, op_fn again)
{
	o->load = l;
	o->v = (struct iovec){ buf, BS_BLOCK };
	o->io = (struct bs_io){ .blob = l->blob, .op = l->write ? BS_WRITE : BS_READ, .length = BS_BLOCK, .iov = &o->v, .iovcnt = 1 };
	op_init(&o->op, "io", again, bdev_channel_driver(l->ch), NULL, NULL);
	op_start(&o->op);
}

static void begin(struct load *l, struct one *o, char *buf)
{
	if (l->blob) {
		begin_blob(l, o, buf, blob_again);
		return;
	}
	o->load = l;
	bdev_io_init_buf(&o->dev, l->write ? BDEV_WRITE : BDEV_READ, buf, place(l), BS_BLOCK, bare_done, o);
	bdev_submit(l->ch, &o->dev);
}

struct result {
	double rate, ns, cpu_us; /* I/Os a second, time and processor time of one */
};

/* Memory is polled, as there is always something to find. */
static struct result run_ram(struct load *l, double seconds)
{
	double from, to;

	l->done = 0;
	l->stop = false;
	for (unsigned i = 0; i < l->depth; i++)
		begin(l, &l->all[i], l->buf + i * BS_BLOCK);
	from = bench_clock(CLOCK_THREAD_CPUTIME_ID);
	for (unsigned n = 1; (n & 1023) || bench_clock(CLOCK_THREAD_CPUTIME_ID) < from + seconds; n++)
		bdev_poll(l->ch);
	to = bench_clock(CLOCK_THREAD_CPUTIME_ID);
	l->stop = true;
	while (bdev_channel_inflight(l->ch))
		bdev_poll(l->ch);
	bdev_poll(l->ch);
	for (unsigned i = 0; l->blob && i < l->depth; i++)
		bench_must("blob", op_wait(&l->all[i].op));
	return (struct result){ .rate = (double)l->done / (to - from), .ns = (to - from) * 1e9 / (double)l->done };
}

/* Nobody but these looks at the clock: the channel's thread is in op_wait. */
static enum op_next timed_again(struct op *op)
{
	struct load *l = container_of(op, struct one, op)->load;

	if (!(l->done & 31) && bench_now() > l->end)
		l->stop = true;
	return blob_again(op);
}

static struct result run_file(struct load *l, double seconds)
{
	double took = bench_now(), cpu = bench_cpu(RUSAGE_THREAD);

	l->done = 0;
	l->stop = false;
	l->end = took + seconds;
	for (unsigned i = 0; i < l->depth; i++)
		begin_blob(l, &l->all[i], l->buf + i * BS_BLOCK, timed_again);
	for (unsigned i = 0; i < l->depth; i++)
		bench_must("blob", op_wait(&l->all[i].op));
	took = bench_now() - took;
	cpu = bench_cpu(RUSAGE_THREAD) - cpu;
	return (struct result){ .rate = (double)l->done / took, .cpu_us = cpu * 1e6 / (double)l->done };
}

/* ---- making ---- */

static void make(struct load *l, const char *device)
{
	struct bs_open_opts o = { .size = sizeof(o) };
	struct bs_io io = { .op = BS_WRITE, .length = MiB, .iovcnt = 1 };
	struct iovec v = { dma_zalloc(MiB, BS_BLOCK), MiB };
	struct base_err err = { "" };
	struct bs_txn *txn;
	struct bs_extent e;

	l->buf = dma_zalloc(DEPTH * BS_BLOCK, BS_BLOCK);
	if (!v.iov_base || !l->buf || bdev_open(device, NULL, &l->dev, &err) || bs_format(l->dev, &format, &err) ||
	    bs_open(l->dev, &o, &l->bs, &err))
		bench_die(device, err.text);
	bench_must("begin", bs_txn_begin(l->bs, 0, &txn));
	bench_must("create", bs_txn_create(txn, 0, NULL, 0, &l->blob));
	bench_must("prealloc", bs_txn_prealloc(txn, l->blob, 0, 2 * WORK / BS_BLOCK, BS_STREAM_LONG));
	bs_txn_end(txn);
	io.blob = l->blob;
	io.iov = &v;
	for (io.offset = 0; io.offset < 2 * WORK; io.offset += MiB)
		bench_must("write", bs_io_sync(l->bs, &io));
	bench_must("commit", bs_commit(l->bs, 0));
	bench_must("channel", bdev_channel_create(l->dev, &l->ch));
	/* Only blocks that lie together, so that the device can be asked for the same ones. */
	for (uint64_t b = 0; b < 2 * WORK / BS_BLOCK; b += e.count) {
		bs_map_lookup(l->blob, b, 2 * WORK / BS_BLOCK - b, &e);
		if (e.count > l->blocks) {
			l->first = b;
			l->blocks = e.count;
		}
	}
	l->blocks = MIN(l->blocks, (uint64_t)WORK / BS_BLOCK);
	printf("  %s: %" PRIu64 " MiB of a blob of %d MiB\n", device, (uint64_t)(l->blocks * BS_BLOCK / MiB), (int)(2 * WORK / MiB));
	dma_free(v.iov_base);
}

static void drop(struct load *l)
{
	bdev_channel_destroy(l->ch);
	bs_blob_put(l->blob);
	bench_must("close", bs_close(l->bs));
	dma_free(l->buf);
}

/* ---- memory ---- */

static void ram_case(struct load *blob, struct load *bare, unsigned pairs, double seconds)
{
	static double a[PAIRS_MAX], b[PAIRS_MAX], over[PAIRS_MAX];
	char what[96];
	double median;

	for (unsigned p = 0; p < pairs; p++) {
		for (unsigned k = 0; k < 2; k++) {
			if ((p + k) % 2)
				a[p] = run_ram(blob, seconds).ns;
			else
				b[p] = run_ram(bare, seconds).ns;
		}
		over[p] = a[p] - b[p];
	}
	median = bench_median(over, pairs);
	printf("  %s, depth %2u: bare %4.0f ns, blob %4.0f ns, over it %4.0f ns (medians of %u)\n", blob->write ? "writes" : "reads",
	       blob->depth, bench_median(b, pairs), bench_median(a, pairs), median, pairs);
	snprintf(what, sizeof(what), "random %s of 4 KiB on memory over the device, depth %u", blob->write ? "writes" : "reads",
		 blob->depth);
	if (!format.flags)
		bench_row(what, false, 100, median, " ns");
}

static int ram(unsigned pairs, double seconds)
{
	static struct load blob = { .random = 1 }, bare = { .random = 2 };
	static const unsigned depths[] = { 32, 1 };
	struct bs_extent e;

	make(&blob, "ram:2G");
	/* The same memory: how fast one piece of it is, and another, differs by more than what is measured. */
	bs_map_lookup(blob.blob, blob.first, blob.blocks, &e);
	bare.first = e.phys;
	bare.blocks = blob.blocks;
	bare.buf = blob.buf;
	bare.dev = blob.dev;
	bare.ch = blob.ch;
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(depths); i++) {
		blob.depth = bare.depth = depths[i / 2];
		blob.write = bare.write = i % 2;
		ram_case(&blob, &bare, pairs, seconds);
	}
	drop(&blob);
	return 0;
}

/* ---- a file, and fio ---- */

static double field(const char *line, unsigned n)
{
	while (--n && (line = strchr(line, ';')))
		line++;
	return line ? strtod(line, NULL) : 0;
}

/* Fields of fio's terse output, version 3: for reads and for writes, then its processor time in percent. */
static struct result run_fio(const struct load *l, const char *image, uint64_t first, double seconds)
{
	unsigned iops = l->write ? 49 : 8;
	char command[1024], line[4096];
	struct result r;
	FILE *p;

	snprintf(command, sizeof(command),
		 "fio --name=fio --filename='%s' --direct=1 --ioengine=io_uring --iodepth=%u --bs=4k --rw=%s --offset=%" PRIu64
		 " --size=%" PRIu64 " --norandommap --randrepeat=0 --time_based --runtime=%.0fms --thread --gtod_reduce=1"
		 " --output-format=terse --terse-version=3 --allow_file_create=0",
		 image, DEPTH, l->write ? "randwrite" : "randread", first * BS_BLOCK, l->blocks * BS_BLOCK, seconds * 1000);
	p = popen(command, "re");
	if (!p || !fgets(line, sizeof(line), p) || pclose(p))
		bench_die("fio", "failed (make deps BENCH=1 installs it)");
	r.rate = field(line, iops);
	if (r.rate < 1)
		bench_die("fio", line);
	/* Percent of its running time, of one I/O. */
	r.cpu_us = (field(line, 88) + field(line, 89)) / 100 / r.rate * 1e6;
	return r;
}

static void file_case(struct load *l, const char *image, unsigned pairs, double seconds)
{
	static double ours[PAIRS_MAX], fios[PAIRS_MAX], our_cpu[PAIRS_MAX], fio_cpu[PAIRS_MAX];
	struct bs_extent e;
	double rate, cpu;
	char what[96];

	bs_map_lookup(l->blob, l->first, l->blocks, &e);
	for (unsigned p = 0; p < pairs; p++) {
		for (unsigned k = 0; k < 2; k++) {
			struct result r = (p + k) % 2 ? run_file(l, seconds) : run_fio(l, image, e.phys, seconds);

			((p + k) % 2 ? ours : fios)[p] = r.rate;
			((p + k) % 2 ? our_cpu : fio_cpu)[p] = r.cpu_us;
		}
	}
	rate = bench_ratio(ours, fios, pairs);
	cpu = bench_ratio(our_cpu, fio_cpu, pairs);
	printf("  %s, depth %u: blob %7.0f/s, %5.2f us of CPU; fio %7.0f/s, %5.2f us (medians of %u)\n", l->write ? "writes" : "reads",
	       DEPTH, bench_median(ours, pairs), bench_median(our_cpu, pairs), bench_median(fios, pairs),
	       bench_median(fio_cpu, pairs), pairs);
	if (format.flags)
		return;
	snprintf(what, sizeof(what), "random %s of 4 KiB on a file, rate over fio's", l->write ? "writes" : "reads");
	bench_row(what, true, 0.95, rate, "");
	snprintf(what, sizeof(what), "random %s of 4 KiB on a file, CPU over fio's", l->write ? "writes" : "reads");
	bench_row(what, false, 1.1, cpu, "");
}

static int file(const char *image, unsigned pairs, double seconds)
{
	static struct load l = { .random = 1, .depth = DEPTH };

	make(&l, image);
	for (unsigned i = 0; i < 2; i++) {
		l.write = i;
		file_case(&l, image, pairs, seconds);
	}
	drop(&l);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned pairs = 11;
	double seconds = 0;
	int opt;

	while ((opt = getopt(argc, argv, "p:t:c")) != -1) {
		if (opt == 'p')
			pairs = MIN(MAX((unsigned)atoi(optarg), 1u), PAIRS_MAX);
		else if (opt == 't')
			seconds = strtod(optarg, NULL);
		else if (opt == 'c')
			format.flags = BS_FORMAT_SUMS;
		else
			return 2;
	}
	if (argc - optind == 1 && !strcmp(argv[optind], "ram"))
		return ram(pairs, seconds > 0 ? seconds : 0.3);
	if (argc - optind == 2 && !strcmp(argv[optind], "file"))
		return file(argv[optind + 1], pairs, seconds > 0 ? seconds : 1);
	fprintf(stderr, "usage: store_io ram | file IMAGE [-p PAIRS] [-t SECONDS] [-c]\n");
	return 2;
}
