/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the store's measurements share. Each prints what it measured as text, and for each thing that there is a bar for a line
 * "ROW", what, bar, result, "ok" or "MISSED", separated by tabs, of which bench/store.sh makes one table.
 */
#ifndef BENCH_STORE_H
#define BENCH_STORE_H

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/util.h"

#include "blob/blob.h"

#define PAIRS_MAX 101u

static inline double bench_clock(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static inline double bench_now(void) { return bench_clock(CLOCK_MONOTONIC); }

/* Processor time, of RUSAGE_THREAD or RUSAGE_SELF. */
static inline double bench_cpu(int who)
{
	struct rusage u;

	getrusage(who, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static inline uint64_t bench_random(uint64_t *s)
{
	uint64_t x = *s += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static inline int bench_compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Of n values; they are put in order. */
static inline double bench_median(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), bench_compare);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* The median of a[i] / b[i], which stay as they are. */
static inline double bench_ratio(const double *a, const double *b, unsigned n)
{
	double r[PAIRS_MAX] = { 0 };

	for (unsigned i = 0; i < n; i++)
		r[i] = a[i] / b[i];
	return bench_median(r, n);
}

/* what is at least bar, or at most. */
static inline void bench_row(const char *what, bool at_least, double bar, double is, const char *unit)
{
	bool ok = at_least ? is >= bar : is <= bar;

	printf("ROW\t%s\t%s %g%s\t%.*f%s\t%s\n", what, at_least ? ">=" : "<=", bar, unit, is < 10 ? 2 : is < 100 ? 1 : 0, is, unit,
	       ok ? "ok" : "MISSED");
	fflush(stdout);
}

static inline void bench_die(const char *what, const char *why)
{
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

static inline void bench_must(const char *what, int rc)
{
	if (rc)
		bench_die(what, strerror(rc < 0 ? -rc : rc));
}

/* An empty blob, counted once. */
static inline struct bs_blob *bench_blob(struct bs *bs)
{
	struct bs_blob *blob;
	struct bs_txn *txn;

	bench_must("begin", bs_txn_begin(bs, 0, &txn));
	bench_must("create", bs_txn_create(txn, 0, NULL, 0, &blob));
	bs_txn_end(txn);
	return blob;
}

#endif
