/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a small durable write costs: loops of write and fdatasync, each thread on a file of its own, on a BlobFS and on a directory of
 * the kernel's file system beside it, pair by pair, the sides taking turns in going first. Not a test: it prints.
 *
 *	fsync_bench IMAGE DIR [bytes [syncs [threads [rounds [append|overwrite]]]]]
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "blobfs/blobfs.h"

#define FILE_BYTES (8 * MiB) /* of one that is overwritten */
#define THREADS 64
#define ROUNDS 64

struct bench {
	struct bfs *fs;
	const char *dir;
	size_t bytes;
	unsigned syncs, threads, rounds;
	bool overwrite;
};

struct job {
	pthread_t thread;
	const struct bench *b;
	unsigned number;
	bool native;
	int rc;
	uint64_t *ns; /* of each write with its fdatasync */
};

struct target {
	struct bfs_file *file;
	int fd;
};

static int64_t put(const struct target *t, const void *buf, size_t len, uint64_t at)
{
	return t->file ? bfs_pwrite(t->file, buf, len, at) : pwrite(t->fd, buf, len, (off_t)at);
}

static int make_durable(const struct target *t)
{
	return t->file ? bfs_fsync(t->file, true) : fdatasync(t->fd);
}

static int open_target(const struct job *j, struct target *t)
{
	char path[512];

	*t = (struct target){ .fd = -1 };
	snprintf(path, sizeof(path), "%s/fsync-%u", j->native ? j->b->dir : "", j->number);
	if (!j->native)
		return bfs_open_path(j->b->fs, NULL, path, O_RDWR | O_CREAT | O_TRUNC, 0644, BS_STREAM_SHORT, &t->file);
	t->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	return t->fd < 0 ? -errno : 0;
}

static int fill(const struct job *j, const struct target *t)
{
	static const char zero[MiB];

	for (uint64_t at = 0; j->b->overwrite && at < FILE_BYTES; at += sizeof(zero))
		if (put(t, zero, sizeof(zero), at) != (int64_t)sizeof(zero))
			return -EIO;
	return make_durable(t);
}

static int loop(struct job *j, const struct target *t, const char *buf)
{
	const struct bench *b = j->b;
	uint64_t seed = j->number + 1;

	for (unsigned i = 0; i < b->syncs; i++) {
		uint64_t at = (uint64_t)i * b->bytes, begin = base_now_ns();

		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		if (b->overwrite)
			at = (seed >> 33) % (FILE_BYTES / b->bytes) * b->bytes;
		if (put(t, buf, b->bytes, at) != (int64_t)b->bytes || make_durable(t))
			return -EIO;
		j->ns[i] = base_now_ns() - begin;
	}
	return 0;
}

static void *work(void *arg)
{
	struct job *j = arg;
	char *buf = calloc(1, j->b->bytes);
	struct target t;

	j->rc = buf ? open_target(j, &t) : -ENOMEM;
	if (j->rc) {
		free(buf);
		return NULL;
	}
	j->rc = fill(j, &t);
	if (!j->rc)
		j->rc = loop(j, &t, buf);
	if (t.file)
		bfs_close(t.file);
	else
		close(t.fd);
	free(buf);
	return NULL;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* One side of one round: syncs a second; us at the median and the 99th percentile. */
static int side(const struct bench *b, bool native, double *rate, double *p50, double *p99)
{
	uint64_t *ns = calloc((size_t)b->threads * b->syncs, sizeof(*ns)), n = (uint64_t)b->threads * b->syncs, sum = 0;
	struct job job[THREADS];
	int rc = 0;

	if (!ns)
		return -ENOMEM;
	for (unsigned i = 0; i < b->threads; i++) {
		job[i] = (struct job){ .b = b, .number = i, .native = native, .ns = ns + (size_t)i * b->syncs };
		if (pthread_create(&job[i].thread, NULL, work, &job[i]))
			exit(1);
	}
	for (unsigned i = 0; i < b->threads; i++) {
		pthread_join(job[i].thread, NULL);
		rc = rc ? rc : job[i].rc;
	}
	for (uint64_t i = 0; i < n; i++)
		sum += ns[i];
	qsort(ns, n, sizeof(*ns), by_size);
	*rate = 1e9 * (double)n * b->threads / (double)sum;
	*p50 = (double)ns[n / 2] / 1000;
	*p99 = (double)ns[n * 99 / 100] / 1000;
	free(ns);
	return rc;
}

/* What a sync of ours made the store do. */
static void print_stat(const struct bench *b, const struct bs_stat *before)
{
	double syncs = (double)b->rounds * b->threads * b->syncs;
	struct bs_stat st;

	bs_get_stat(bfs_store(b->fs), &st);
	printf("  a sync of blobfs: %.2f log writes of %.0f bytes, %.2f flushes, %.0f bytes of data\n",
	       (double)(st.log_writes - before->log_writes) / syncs,
	       (double)(st.log_write_bytes - before->log_write_bytes) / MAX((double)(st.log_writes - before->log_writes), 1),
	       (double)(st.flushes - before->flushes) / syncs, (double)(st.data_write_bytes - before->data_write_bytes) / syncs);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static int run(const struct bench *b)
{
	double rate[2], p50[2], p99[2], ratio[ROUNDS] = { 0 }, middle[ROUNDS] = { 0 };
	struct bs_stat before;

	bs_get_stat(bfs_store(b->fs), &before);
	for (unsigned r = 0; r < b->rounds; r++) {
		for (unsigned k = 0; k < 2; k++) {
			unsigned native = (r + k) % 2;
			int rc = side(b, native, &rate[native], &p50[native], &p99[native]);

			if (rc)
				return rc;
		}
		ratio[r] = rate[0] / rate[1];
		middle[r] = p50[1] / p50[0];
		printf("  blobfs %7.0f/s p50 %6.1f p99 %6.1f us    native %7.0f/s p50 %6.1f p99 %6.1f us    %.2f\n", rate[0], p50[0],
		       p99[0], rate[1], p50[1], p99[1], ratio[r]);
	}
	print_stat(b, &before);
	qsort(ratio, b->rounds, sizeof(*ratio), by_value);
	qsort(middle, b->rounds, sizeof(*middle), by_value);
	printf("%s of %zu bytes, %u threads: blobfs/native %.2f, by the median latency %.2f (medians of %u)\n",
	       b->overwrite ? "overwrite" : "append", b->bytes, b->threads, ratio[b->rounds / 2], middle[b->rounds / 2], b->rounds);
	return 0;
}

static unsigned number(int argc, char **argv, int i, unsigned otherwise, unsigned most)
{
	unsigned long v = argc > i ? strtoul(argv[i], NULL, 0) : otherwise;

	return (unsigned)MIN(MAX(v, 1ul), (unsigned long)most);
}

int main(int argc, char **argv)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts), .cache_size = 512 * MiB };
	struct bench b = { .dir = argc > 2 ? argv[2] : "" };
	struct base_err err = { "" };
	int rc;

	if (argc < 3) {
		fprintf(stderr, "Usage: fsync_bench IMAGE DIR [bytes [syncs [threads [rounds [append|overwrite]]]]]\n");
		return 2;
	}
	b.bytes = number(argc, argv, 3, 400, 1 * MiB);
	b.syncs = number(argc, argv, 4, 2000, 1000000);
	b.threads = number(argc, argv, 5, 1, THREADS);
	b.rounds = number(argc, argv, 6, 5, ROUNDS);
	b.overwrite = argc > 7 && !strcmp(argv[7], "overwrite");
	rc = bfs_mount(argv[1], &opts, &b.fs, &err);
	if (rc) {
		fprintf(stderr, "%s\n", base_err_text(&err, rc));
		return 1;
	}
	rc = run(&b);
	if (rc)
		fprintf(stderr, "%s\n", strerror(-rc));
	return bfs_unmount(b.fs) || rc;
}
