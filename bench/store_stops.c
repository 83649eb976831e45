/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How long writers of metadata stand still: threads that put items, as fast as they can, over checkpoints, without commits of their
 * own. Small values, then values as long as an extended attribute may be. What counts is the time from asking for a transaction to
 * having it; what the store says of itself stands beside it: how long the log kept a transaction waiting, and how long its thread then
 * waited for a processor, of which the writers leave none.
 *
 *	store_stops IMAGE [-t SECONDS] [-n THREADS] [-k KEYS]
 *
 * IMAGE is formatted, for each size of values. SECONDS: of each. KEYS: of small values a thread.
 */
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "base/dma.h"
#include "bench/store.h"
#include "blob/blob.h"

#define THREADS_MAX 64u
#define SMALL 150u
#define LARGE 60000u
#define LARGE_KEYS 64u
#define SAMPLES (1u << 22) /* a thread */
#define BAR_MS 5.0

struct bench {
	struct bs *bs;
	unsigned threads, keys, bytes;
	double seconds;
};
struct job {
	const struct bench *b;
	pthread_t thread;
	struct bs_blob *blob;
	uint64_t done;
	double end, longest;
	float *took;
};

static struct bs *open_store(const char *image)
{
	struct bs_format_opts fo = { .size = sizeof(fo) };
	struct bs_open_opts oo = { .size = sizeof(oo) };
	struct base_err err = { "" };
	struct bdev *dev;
	struct bs *bs;

	if (bdev_open(image, NULL, &dev, &err))
		bench_die(image, err.text);
	bench_must("format", bs_format(dev, &fo, &err));
	if (bs_open(dev, &oo, &bs, &err))
		bench_die(image, err.text);
	return bs;
}

static void *work(void *arg)
{
	static const uint8_t value[LARGE];
	struct job *j = arg;

	for (double now = bench_now(); now < j->end; j->done++) {
		double since = now;
		struct bs_txn *txn;

		bench_must("begin", bs_txn_begin(j->b->bs, 0, &txn));
		now = bench_now();
		j->took[j->done % SAMPLES] = (float)(now - since);
		j->longest = MAX(j->longest, now - since);
		bench_must("put", bs_txn_put(txn, j->blob, BS_KIND_USER, j->done % j->b->keys, value, j->b->bytes));
		bs_txn_end(txn);
		now = bench_now();
	}
	return NULL;
}

static int compare(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return x < y ? -1 : x > y;
}

/* The part of all transactions that had to wait no longer. */
static double quantile(struct job *job, unsigned n, double part)
{
	uint64_t all = 0, at = 0;
	float *v, is;

	for (unsigned i = 0; i < n; i++)
		all += MIN(job[i].done, (uint64_t)SAMPLES);
	v = calloc(all + 1, sizeof(*v));
	if (!v)
		bench_die("samples", strerror(ENOMEM));
	for (unsigned i = 0; i < n; i++) {
		uint64_t some = MIN(job[i].done, (uint64_t)SAMPLES);

		memcpy(v + at, job[i].took, some * sizeof(*v));
		at += some;
	}
	qsort(v, all, sizeof(*v), compare);
	is = v[(uint64_t)(part * (double)all)];
	free(v);
	return is;
}

static void print_waits(const char *what, const struct bs_hist *h)
{
	printf("    %-15s %8" PRIu64 " waits, half below %.2f ms, 99 %% %.2f, longest %.2f\n", what, h->count,
	       (double)bs_hist_quantile(h, 0.5) / 1e6, (double)bs_hist_quantile(h, 0.99) / 1e6, (double)h->max_ns / 1e6);
}

static void report(struct bench *b, struct job *job, const char *name)
{
	double longest = 0, p99 = quantile(job, b->threads, 0.99), p9999 = quantile(job, b->threads, 0.9999);
	uint64_t done = 0;
	struct bs_stat st;
	char what[96];

	for (unsigned i = 0; i < b->threads; i++) {
		longest = MAX(longest, job[i].longest);
		done += job[i].done;
	}
	bs_get_stat(b->bs, &st);
	printf("  %s: %.0f/s, %.0f MiB/s, %" PRIu64 " checkpoints; begin: 99 %% within %.2f ms, 99.99 %% %.2f, longest %.2f\n", name,
	       (double)done / b->seconds, (double)done * b->bytes / b->seconds / MiB, st.checkpoints, p99 * 1e3, p9999 * 1e3, longest * 1e3);
	print_waits("for the log", &st.stopped);
	print_waits("  then to run", &st.woken);
	print_waits("for its buffer", &st.buffered);
	print_waits("for the lock", &st.waited);
	snprintf(what, sizeof(what), "%s, %u threads: longest wait for the log", name, b->threads);
	bench_row(what, false, BAR_MS, (double)st.stopped.max_ns / 1e6, " ms");
	snprintf(what, sizeof(what), "%s, %u threads: 99 %% of these waits", name, b->threads);
	bench_row(what, false, BAR_MS, (double)bs_hist_quantile(&st.stopped, 0.99) / 1e6, " ms");
}

static void run(struct bench b, const char *image, const char *name)
{
	struct job job[THREADS_MAX] = { { .b = NULL } };
	double end;

	b.bs = open_store(image);
	end = bench_now() + b.seconds;
	for (unsigned i = 0; i < b.threads; i++) {
		job[i] = (struct job){ .b = &b, .end = end, .blob = bench_blob(b.bs), .took = calloc(SAMPLES, sizeof(float)) };
		if (!job[i].took)
			bench_die("samples", strerror(ENOMEM));
	}
	for (unsigned i = 0; i < b.threads; i++)
		bench_must("thread", pthread_create(&job[i].thread, NULL, work, &job[i]));
	for (unsigned i = 0; i < b.threads; i++)
		pthread_join(job[i].thread, NULL);
	report(&b, job, name);
	for (unsigned i = 0; i < b.threads; i++) {
		bs_blob_put(job[i].blob);
		free(job[i].took);
	}
	bench_must("close", bs_close(b.bs));
}

int main(int argc, char **argv)
{
	struct bench b = { .threads = 4, .keys = 100000, .bytes = SMALL, .seconds = 5 };
	const char *image = argc > 1 ? argv[1] : NULL;
	int c;

	if (!image)
		bench_die("usage", "store_stops IMAGE [-t SECONDS] [-n THREADS] [-k KEYS]");
	optind = 2;
	while ((c = getopt(argc, argv, "t:n:k:")) != -1) {
		if (c == 't')
			b.seconds = strtod(optarg, NULL);
		else if (c == 'n')
			b.threads = (unsigned)strtoul(optarg, NULL, 0);
		else if (c == 'k')
			b.keys = (unsigned)strtoul(optarg, NULL, 0);
		else
			return 2;
	}
	if (!b.threads || b.threads > THREADS_MAX || !b.keys || b.seconds <= 0)
		bench_die("options", "out of range");
	printf("%u threads put items for %.1f s each:\n", b.threads, b.seconds);
	run(b, image, "items of 150 bytes");
	b.bytes = LARGE;
	b.keys = LARGE_KEYS;
	run(b, image, "items of 60,000 bytes");
	return 0;
}
