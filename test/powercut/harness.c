/* SPDX-License-Identifier: BSD-2-Clause */
/* What workloads and models share: numbers by seed, findings, growing arrays. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/powercut/powercut.h"

void rng_seed(struct rng *r, uint64_t seed)
{
	r->s = seed * 0x9e3779b97f4a7c15ull + 0x1234567ull;
	if (!r->s)
		r->s = 1;
	rng_next(r);
}

uint64_t rng_next(struct rng *r)
{
	r->s ^= r->s >> 12;
	r->s ^= r->s << 25;
	r->s ^= r->s >> 27;
	return r->s * 0x2545f4914f6cdd1dull >> 8;
}

bool finding(struct run *run, const char *fmt, ...)
{
	va_list ap;

	if (!run->why[0]) {
		va_start(ap, fmt);
		vsnprintf(run->why, sizeof(run->why), fmt, ap);
		va_end(ap);
	}
	return false;
}

void trace(const struct run *run, const char *fmt, ...)
{
	va_list ap;

	if (!run->tracing)
		return;
	printf("%6" PRIu64 "  ", bdev_powercut_mark(run->dev));
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

void broken(const struct run *run, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "powercut: seed %" PRIu64 ": the workload itself failed: ", run ? run->seed : 0);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(2);
}

void *grow(void *array, size_t n, size_t *cap, size_t size)
{
	if (n < *cap)
		return array;
	*cap = *cap ? 2 * *cap : 16;
	array = realloc(array, *cap * size);
	if (!array)
		broken(NULL, "out of memory");
	return array;
}

void call_failed(const struct run *run, const char *what, int rc)
{
	if (run->escape)
		longjmp(*run->escape, 1);
	broken(run, "%s: %s", what, strerror(-rc));
}
