/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What one call costs: small appends and reads through the page cache, reads that miss it, and fsyncs of small appends.
 *
 *	bfs_bench DEVICE [APPENDS]
 *
 * DEVICE holds a file system; a file in it is made and taken away again. Of each call: the median and 99th percentile of its time
 * (of a batch of 32, where one is too short to measure), and the processor's time of the calling thread, which a busy machine
 * does not change much.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "blobfs/blobfs.h"

#define NAME "/bfs_bench.tmp"
#define RECORD 400u
#define PAGE 4096u
#define BATCH 32u
#define SAMPLES 65536u

struct bench {
	struct bfs *fs;
	struct bfs_file *file;
	uint64_t pages, random;
	char *buf;
	double *sample;
};
typedef int64_t (*call_fn)(struct bench *b);

static double clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* n batches of a call. */
static int measure(struct bench *b, const char *what, call_fn call, unsigned n, unsigned batch)
{
	double cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);

	n = MIN(n, SAMPLES);
	for (unsigned i = 0; i < n; i++) {
		double start = clock_ns(CLOCK_MONOTONIC);

		for (unsigned k = 0; k < batch; k++) {
			int64_t rc = call(b);

			if (rc < 0) {
				fprintf(stderr, "bfs_bench: %s: %s\n", what, strerror((int)-rc));
				return -1;
			}
		}
		b->sample[i] = (clock_ns(CLOCK_MONOTONIC) - start) / batch;
	}
	cpu = (clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu) / ((double)n * batch);
	qsort(b->sample, n, sizeof(*b->sample), compare);
	printf("%-28s p50 %9.0f ns   p99 %9.0f ns   cpu %9.0f ns\n", what, b->sample[n / 2],
	       b->sample[n - n / 100 - 1], cpu);
	return 0;
}

static int64_t append(struct bench *b)
{
	return bfs_append(b->file, b->buf, RECORD);
}

static int64_t append_sync(struct bench *b)
{
	int64_t rc = bfs_append(b->file, b->buf, RECORD);

	return rc < 0 ? rc : bfs_fsync(b->file, true);
}

static uint64_t random_page(struct bench *b)
{
	b->random ^= b->random << 13;
	b->random ^= b->random >> 7;
	b->random ^= b->random << 17;
	return b->random % b->pages;
}

static int64_t read_page(struct bench *b)
{
	return bfs_pread(b->file, b->buf, PAGE, random_page(b) * PAGE);
}

static int64_t read_record(struct bench *b)
{
	return bfs_pread(b->file, b->buf, RECORD, random_page(b) * PAGE + 100);
}

static int run(struct bench *b, unsigned appends)
{
	int rc;

	rc = measure(b, "append, memory fresh", append, appends / BATCH, BATCH);
	rc = rc ? rc : bfs_truncate(b->fs, NULL, bfs_file_ino(b->file), 0);
	rc = rc ? rc : measure(b, "append", append, appends / BATCH, BATCH);
	rc = rc ? rc : bfs_fsync(b->file, false);
	if (rc)
		return rc;
	b->pages = bfs_file_size(b->file) / PAGE;
	bfs_advise(b->file, 0, 0, BFS_ADV_RANDOM);
	rc = measure(b, "read 4 KiB, cached", read_page, appends / BATCH, BATCH);
	rc = rc ? rc : measure(b, "read 400 bytes, cached", read_record, appends / BATCH, BATCH);
	rc = rc ? rc : bfs_advise(b->file, 0, 0, BFS_ADV_DONTNEED);
	rc = rc ? rc
		: measure(b, "read 4 KiB, mostly missing", read_page,
			  MIN(2000u, (unsigned)b->pages / 8), 1);
	return rc ? rc : measure(b, "append 400 bytes, fdatasync", append_sync, 1000, 1);
}

int main(int argc, char **argv)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts), .cache_size = 512 * MiB };
	struct bench b = { .random = 88172645463325252ull };
	unsigned appends = argc > 2 ? (unsigned)atoi(argv[2]) : 400000;
	struct base_err err;
	int rc;

	if (argc < 2 || appends < 1000) {
		fprintf(stderr, "usage: bfs_bench DEVICE [APPENDS]\n");
		return 2;
	}
	b.buf = aligned_alloc(PAGE, PAGE);
	b.sample = malloc(SAMPLES * sizeof(*b.sample));
	if (!b.buf || !b.sample)
		return 1;
	memset(b.buf, 'b', PAGE);
	rc = bfs_mount(argv[1], &opts, &b.fs, &err);
	if (rc) {
		fprintf(stderr, "bfs_bench: %s\n", base_err_text(&err, rc));
		return 1;
	}
	rc = bfs_open_path(b.fs, NULL, NAME, O_RDWR | O_CREAT | O_TRUNC, 0600, BS_STREAM_SHORT,
			   &b.file);
	if (!rc) {
		rc = run(&b, appends);
		bfs_close(b.file);
		bfs_unlink(b.fs, NULL, BFS_ROOT_INO, NAME + 1);
	}
	if (rc < -1)
		fprintf(stderr, "bfs_bench: %s\n", strerror(-rc));
	if (bfs_unmount(b.fs))
		rc = -1;
	free(b.buf);
	free(b.sample);
	return rc ? 1 : 0;
}
