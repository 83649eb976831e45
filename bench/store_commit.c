/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Small durable transactions: each thread puts 400 bytes in an item of its own blob and awaits the commit; beside it, in turns, the same
 * number of threads that write 400 bytes to a file of their own on the kernel's file system and call fdatasync, at its end and over
 * what is there.
 *
 *	store_commit IMAGE DIR [-p PAIRS] [-t SECONDS] [-n THREADS]
 *
 * IMAGE is formatted. SECONDS: of one side of a pair. THREADS: of the second run, the first has one.
 */
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "base/dma.h"
#include "bench/store.h"
#include "blob/blob.h"

#define BYTES 400u
#define KEYS 64u
#define THREADS_MAX 64u
#define FILE_BYTES (8u * MiB) /* of one that is overwritten */

enum side { STORE, APPEND, OVERWRITE, SIDES };
static const char *const side_names[SIDES] = { "store", "append+fdatasync", "overwrite+fdatasync" };

struct bench {
	struct bs *bs;
	const char *dir;
	unsigned pairs, threads;
	double seconds;
};
struct job {
	const struct bench *b;
	pthread_t thread;
	enum side side;
	unsigned number;
	uint64_t done;
	struct bs_blob *blob;
	double end;
};

static void store_loop(struct job *j)
{
	uint8_t value[BYTES] = { 0 };

	for (; bench_now() < j->end; j->done++) {
		struct bs_txn *txn;

		memcpy(value, &j->done, sizeof(j->done));
		bench_must("begin", bs_txn_begin(j->b->bs, 0, &txn));
		bench_must("put", bs_txn_put(txn, j->blob, BS_KIND_USER, j->done % KEYS, value, sizeof(value)));
		bench_must("commit", bs_commit(j->b->bs, bs_txn_end(txn)));
	}
}

static void file_loop(struct job *j)
{
	static const char zero[MiB];
	uint64_t random = j->number + 1, at = 0;
	uint8_t value[BYTES] = { 0 };
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s-%u", j->b->dir, j->side == APPEND ? "append" : "over", j->number);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | (j->side == APPEND ? O_TRUNC : 0), 0600);
	if (fd < 0)
		bench_die(path, strerror(errno));
	for (; j->side == OVERWRITE && lseek(fd, 0, SEEK_END) < (off_t)FILE_BYTES;)
		bench_must(path, write(fd, zero, sizeof(zero)) != (ssize_t)sizeof(zero));
	bench_must(path, fdatasync(fd));
	j->end = bench_now() + j->b->seconds;
	for (; bench_now() < j->end; j->done++) {
		memcpy(value, &j->done, sizeof(j->done));
		if (j->side == OVERWRITE)
			at = bench_random(&random) % (FILE_BYTES / BYTES) * BYTES;
		bench_must(path, pwrite(fd, value, BYTES, (off_t)at) != BYTES);
		bench_must(path, fdatasync(fd));
		at += BYTES;
	}
	close(fd);
}

static void *work(void *arg)
{
	struct job *j = arg;

	if (j->side == STORE)
		store_loop(j);
	else
		file_loop(j);
	return NULL;
}

/* Commits a second of one side. */
static double side(const struct bench *b, enum side side, uint64_t *done)
{
	struct job job[THREADS_MAX];
	double end = bench_now() + b->seconds;

	*done = 0;
	for (unsigned i = 0; i < b->threads; i++) {
		job[i] = (struct job){ .b = b, .side = side, .number = i, .end = end };
		job[i].blob = side == STORE ? bench_blob(b->bs) : NULL;
	}
	for (unsigned i = 0; i < b->threads; i++)
		bench_must("thread", pthread_create(&job[i].thread, NULL, work, &job[i]));
	for (unsigned i = 0; i < b->threads; i++) {
		pthread_join(job[i].thread, NULL);
		*done += job[i].done;
		bs_blob_put(job[i].blob);
	}
	return (double)*done / b->seconds;
}

static void report(const struct bench *b, double rate[SIDES][PAIRS_MAX], double together)
{
	char what[96];
	double append = bench_ratio(rate[STORE], rate[APPEND], b->pairs), over = bench_ratio(rate[STORE], rate[OVERWRITE], b->pairs);

	for (unsigned s = 0; s < SIDES; s++)
		printf("  %-20s %9.0f/s\n", side_names[s], bench_median(rate[s], b->pairs));
	printf("  store/append %.2f, store/overwrite %.2f; %.1f transactions a log write\n", append, over, together);
	snprintf(what, sizeof(what), "durable transactions over appends, %u thread%s", b->threads, b->threads > 1 ? "s" : "");
	bench_row(what, true, b->threads > 1 ? 2 : 1, append, "");
	if (b->threads > 1)
		bench_row("transactions a log write or flush, 16 threads", true, 8, together, "");
}

static void run(struct bench *b, unsigned threads)
{
	static double rate[SIDES][PAIRS_MAX];
	uint64_t n, commits = 0;
	struct bs_stat before, after;

	b->threads = threads;
	printf("commits of %u bytes, %u thread%s, %u pairs of %.1f s:\n", BYTES, threads, threads > 1 ? "s" : "", b->pairs, b->seconds);
	bs_get_stat(b->bs, &before);
	for (unsigned p = 0; p < b->pairs; p++) {
		for (unsigned k = 0; k < SIDES; k++) {
			enum side s = (enum side)((p + k) % SIDES);

			rate[s][p] = side(b, s, &n);
			commits += s == STORE ? n : 0;
		}
	}
	bs_get_stat(b->bs, &after);
	report(b, rate, (double)commits / (double)MAX(after.log_writes - before.log_writes, after.flushes - before.flushes));
}

/* What a commit costs the device after a transaction, after an overwrite, after a new block with its transaction. */
static void count_flushes(struct bs *bs)
{
	static const char *const kinds[] = { "metadata only", "an overwrite of a block", "a new block and its metadata" };
	struct bs_blob *blob = bench_blob(bs);
	struct iovec v = { dma_zalloc(BS_BLOCK, BS_BLOCK), BS_BLOCK };

	for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++) {
		struct bs_stat before, after;
		unsigned n = 200;

		bs_commit(bs, 0);
		bs_get_stat(bs, &before);
		for (unsigned i = 0; i < n; i++) {
			struct bs_io io = { .blob = blob, .op = BS_WRITE, .length = BS_BLOCK, .iov = &v, .iovcnt = 1,
					    .offset = k == 2 ? (i + 1) * (uint64_t)BS_BLOCK : 0 };
			struct bs_txn *txn;

			if (k == 0) {
				bench_must("begin", bs_txn_begin(bs, 0, &txn));
				bench_must("put", bs_txn_put(txn, blob, BS_KIND_USER, 1, "value", 5));
				bs_txn_end(txn);
			} else {
				bench_must("write", bs_io_sync(bs, &io));
			}
			bench_must("commit", bs_commit(bs, 0));
		}
		bs_get_stat(bs, &after);
		printf("  a commit of %-30s %.2f flushes, %.2f log writes (each with FUA)\n", kinds[k],
		       (double)(after.flushes - before.flushes) / n, (double)(after.log_writes - before.log_writes) / n);
	}
	dma_free(v.iov_base);
	bs_blob_put(blob);
}

int main(int argc, char **argv)
{
	struct bench b = { .pairs = 11, .seconds = 0.5 };
	struct bs_open_opts o = { .size = sizeof(o) };
	struct base_err err = { "" };
	unsigned threads = 16;
	struct bdev *dev;
	int opt;

	while ((opt = getopt(argc, argv, "p:t:n:")) != -1) {
		if (opt == 'p')
			b.pairs = MIN(MAX((unsigned)atoi(optarg), 1u), PAIRS_MAX);
		else if (opt == 't')
			b.seconds = strtod(optarg, NULL);
		else if (opt == 'n')
			threads = MIN(MAX((unsigned)atoi(optarg), 2u), THREADS_MAX);
		else
			return 2;
	}
	if (argc - optind != 2) {
		fprintf(stderr, "usage: store_commit IMAGE DIR [-p PAIRS] [-t SECONDS] [-n THREADS]\n");
		return 2;
	}
	b.dir = argv[optind + 1];
	if (bdev_open(argv[optind], NULL, &dev, &err) || bs_format(dev, NULL, &err) || bs_open(dev, &o, &b.bs, &err))
		bench_die("store_commit", err.text);
	run(&b, 1);
	run(&b, threads);
	count_flushes(b.bs);
	return bs_close(b.bs) ? 1 : 0;
}
