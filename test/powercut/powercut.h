/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The power-cut test: a seeded workload runs on the powercut device; then the medium is rebuilt as a cut at each event may
 * have left it, and the store on it is recovered, checked and compared with what had been acknowledged before that event.
 */
#ifndef TEST_POWERCUT_H
#define TEST_POWERCUT_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/util.h"
#include "bdev/bdev.h"
#include "bdev/wrap.h"

BLOBFS_C_BEGIN

/* xorshift64*: the same seed gives the same run on every machine. */
struct rng {
	uint64_t s;
};
void rng_seed(struct rng *r, uint64_t seed);
uint64_t rng_next(struct rng *r);
static inline uint64_t rng_below(struct rng *r, uint64_t n) { return rng_next(r) % n; }
static inline bool rng_chance(struct rng *r, unsigned percent) { return rng_below(r, 100) < percent; }

/* What a workload came to do; --verbose prints it. */
#define COVERAGE(X) \
	X(checkpoints) X(segments) X(commits) X(log_waits) X(long_txns) X(in_place) X(published) X(reused) X(full) X(direct) \
	X(orphans) X(throttled) X(grown) X(trimmed) X(reopened) X(cached) X(snapshots) X(shared) X(unshared) X(carried) X(home) \
	X(copied_carried) X(replayed) X(sums) X(sum_pages)
struct coverage {
#define X(name) uint64_t name;
	COVERAGE(X)
#undef X
};

/* The store's size, when it was asked for, and when it was said to be durable. */
struct store_size {
	uint64_t blocks, issued, done;
};

struct run {
	uint64_t seed;
	uint64_t ops;
	uint64_t device_size;
	struct rng rng;     /* the workload's */
	struct bdev *dev;   /* powercut over ram */
	char why[512];      /* what a verification found */
	struct coverage coverage;
	bool discard;       /* what becomes free is discarded */
	struct store_size sizes[16];
	unsigned n_sizes;
	bool service;       /* --service: with the store's own thread */
	jmp_buf *escape;    /* --faults: where a workload goes when a call has failed */
	bool tracing;       /* --trace: what the workload does is printed */
};
void trace(const struct run *run, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Notes the first finding and returns false, so that `return finding(…)` reads. */
bool finding(struct run *run, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A failure of the test itself (the workload could not go on): says so and exits 2. */
void broken(const struct run *run, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));

/* A call that may fail only when the device does: ends the workload there, if that is what is tested. */
void call_failed(const struct run *run, const char *what, int rc) __attribute__((noreturn));

struct workload {
	const char *name;
	/* Formats run->dev and makes the model. Events before its return are not cut. */
	void *(*begin)(struct run *run);
	void (*step)(void *w);
	/* Lets go of the store as it stands (as if the process died) and keeps the model for verifying. */
	void (*end)(void *w);
	/* The medium at `event`, opened anew by open_state as often as needed. False: run->why says what is wrong. */
	bool (*verify)(void *w, struct run *run, uint64_t event, struct bdev *(*open_state)(void *arg), void *arg);
	void (*free)(void *w);
};
extern const struct workload store_workload; /* level 1: blobs and transactions */
extern const struct workload files_workload; /* level 2: files and names */
/* Checking finds nothing wrong in the file system on this device, which it closes. */
bool files_are_clean(struct run *run, struct bdev *dev);

struct options {
	uint64_t seed, ops, sample, states, event, subset;
	uint32_t torn, level, seconds;
	bool seeded, only_event, only_subset, quiet, lie, trace, verbose, service, faults;
	const char *save;
	const struct workload *workload; /* of a level that is not of this program's own */
};
#define DEFAULT_OPTIONS { .ops = 120, .sample = UINT64_MAX, .torn = 512, .level = 1, .states = 1000 }
/* One seed: the workload, then its cuts in rising order. Returns states tested, or -1. */
int64_t run_seed(const struct options *opt, uint64_t seed);
/* Seeds from `seed` on until the options' states or seconds are reached. Returns states tested, or -1. */
int64_t run_seeds(const struct options *opt, uint64_t seed, uint64_t *seeds);

/* Runs the workload with every device call failing once, in turn. Returns states tested, or -1. */
int64_t run_faults(const struct options *opt, uint64_t seed);
/* Verifies the states of the medium at one event. Adds to *states. */
bool verify_event(const struct options *opt, struct run *run, const struct workload *wl, void *w, uint64_t event, uint64_t *states);

/* What is known of a moment: everything up to lsn was acknowledged as durable when `event` had happened. */
struct ack {
	uint64_t event, lsn;
};

/* A growing array of any struct: GROW(array, n, cap) makes room for one more. Exits 2 when memory is short. */
void *grow(void *array, size_t n, size_t *cap, size_t size);
#define GROW(array, n, cap) ((array) = grow((array), (n), &(cap), sizeof(*(array))))

BLOBFS_C_END
#endif
