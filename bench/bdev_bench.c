/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How fast the device port is: 4 KiB random reads or writes of a device, at a depth, for some seconds.
 *
 *	bdev_bench DEVICE read|write DEPTH SECONDS [THREADS] [psync|buffered]
 *
 * Depth 1 calls bdev_io_sync; deeper, each thread keeps DEPTH I/Os in flight on a channel of its own.
 * Writing destroys what the device holds.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bdev/bdev.h"

#define MAX_DEPTH 256
#define MAX_THREADS 64
#define IO 4096u

struct job {
	pthread_t thread;
	struct bdev *dev;
	struct bdev_channel *ch;
	enum bdev_op op;
	unsigned depth;
	double until;
	uint64_t random, blocks, done;
	int rc;
	struct bdev_io io[MAX_DEPTH];
	char *buf;
};

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static uint64_t next_offset(struct job *j)
{
	j->random ^= j->random << 13;
	j->random ^= j->random >> 7;
	j->random ^= j->random << 17;
	return j->random % j->blocks * IO;
}

static void one_by_one(struct job *j)
{
	while (!j->rc && now() < j->until) {
		struct bdev_channel *ch = bdev_channel_borrow(j->dev);

		for (int i = 0; i < 16 && !j->rc; i++, j->done++)
			j->rc = bdev_io_sync(ch, j->op, j->buf, next_offset(j), IO, 0);
		bdev_channel_return(ch);
	}
}

static void again(struct bdev_io *io, int rc)
{
	struct job *j = io->cb_arg;

	if (rc)
		j->rc = rc;
	if (!(++j->done % 64) && now() >= j->until)
		j->until = 0;
	if (j->rc || !j->until)
		return;
	io->offset = next_offset(j);
	bdev_submit(j->ch, io);
}

/* Polls, asleep on the descriptor between completions. */
static void many_at_once(struct job *j)
{
	j->rc = bdev_channel_create(j->dev, &j->ch);
	if (j->rc)
		return;
	for (unsigned i = 0; i < j->depth; i++) {
		bdev_io_init_buf(&j->io[i], j->op, j->buf + i * IO, next_offset(j), IO, again, j);
		bdev_submit(j->ch, &j->io[i]);
	}
	bdev_channel_destroy(j->ch); /* waits for the I/O, which keeps itself going */
}

static void *run(void *arg)
{
	struct job *j = arg;

	if (j->depth == 1)
		one_by_one(j);
	else
		many_at_once(j);
	return NULL;
}

static int usage(void)
{
	fprintf(stderr, "usage: bdev_bench DEVICE read|write DEPTH SECONDS [THREADS] [psync|buffered]\n");
	return 2;
}

static int measure(struct bdev *dev, enum bdev_op op, unsigned depth, double seconds,
		   unsigned threads)
{
	struct job *jobs = calloc(threads, sizeof(*jobs));
	double start = now();
	uint64_t done = 0;
	int rc = 0;

	if (!jobs)
		return -1;
	for (unsigned i = 0; i < threads; i++) {
		struct job *j = &jobs[i];

		j->dev = dev;
		j->op = op;
		j->depth = depth;
		j->until = start + seconds;
		j->random = 88172645463325252ull + i * 7919;
		j->blocks = bdev_info(dev)->size / IO;
		j->buf = aligned_alloc(4096, (size_t)depth * IO);
		if (!j->buf || pthread_create(&j->thread, NULL, run, j))
			abort();
		memset(j->buf, 'b', (size_t)depth * IO);
	}
	for (unsigned i = 0; i < threads; i++) {
		pthread_join(jobs[i].thread, NULL);
		done += jobs[i].done;
		rc = rc ? rc : jobs[i].rc;
		free(jobs[i].buf);
	}
	printf("%s %s depth %u threads %u: %.0f I/Os a second, rc %d\n", bdev_info(dev)->module,
	       op == BDEV_READ ? "read" : "write", depth, threads, (double)done / (now() - start), rc);
	free(jobs);
	return rc;
}

int main(int argc, char **argv)
{
	struct bdev_opts opts = { .size = sizeof(opts), .depth = MAX_DEPTH };
	unsigned depth, threads;
	struct base_err err;
	struct bdev *dev;
	enum bdev_op op;
	int rc;

	if (argc < 5)
		return usage();
	op = strcmp(argv[2], "write") ? BDEV_READ : BDEV_WRITE;
	depth = (unsigned)atoi(argv[3]);
	threads = argc > 5 ? (unsigned)atoi(argv[5]) : 1;
	if (!depth || depth > MAX_DEPTH || !threads || threads > MAX_THREADS)
		return usage();
	if (argc > 6)
		opts.flags = strcmp(argv[6], "psync") ? BDEV_BUFFERED : BDEV_PSYNC;
	if (op == BDEV_READ)
		opts.flags |= BDEV_RDONLY;
	rc = bdev_open(argv[1], &opts, &dev, &err);
	if (rc) {
		fprintf(stderr, "bdev_bench: %s\n", err.text);
		return 1;
	}
	rc = measure(dev, op, depth, atof(argv[4]), threads);
	bdev_close(dev);
	return rc ? 1 : 0;
}
