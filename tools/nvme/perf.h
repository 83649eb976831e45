/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * perf: lanes, each a thread with a channel (a queue pair) of its own that keeps so many I/Os outstanding until it is told to stop.
 * An engine is how lanes reach the device: the NVMe driver itself, or the block-device port.
 */
#ifndef TOOLS_NVME_PERF_H
#define TOOLS_NVME_PERF_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/err.h"
#include "base/util.h"
#include "tools/common/hist.h"

struct perf;
struct lane;

struct engine {
	/* Fills p->device_size and block_size. err: one line. */
	int (*open)(struct perf *p, struct base_err *err);
	void (*close)(struct perf *p);
	/* In the lane's thread. */
	int (*lane_open)(struct lane *l, struct base_err *err);
	void (*lane_run)(struct lane *l); /* until p->stop or an error, and all has come back */
	void (*lane_close)(struct lane *l);
};
extern const struct engine engine_nvme, engine_bdev;

struct perf {
	const char *device, *pattern;
	bool random, json, destroy, polled;
	unsigned read_percent; /* 100: reads alone */
	uint64_t io_size, depth, channels;
	double seconds;

	const struct engine *engine;
	void *priv;
	uint64_t device_size;
	uint32_t block_size;
	atomic_bool stop;
	pthread_barrier_t ready; /* the lanes, and who measures */
	atomic_int failed;       /* a lane could not be opened, or an I/O failed */
	struct base_err err;     /* of the first that failed */
	pthread_mutex_t lock;
};

struct lane {
	struct perf *p;
	pthread_t thread;
	void *priv;
	uint64_t random;
	uint64_t first, ios, next; /* places: of io_size, which this lane visits in order */
	struct hist read, write;   /* ticks */
	uint64_t busy, ran;        /* ticks in which there was something to do, and all */
	uint64_t cpu_ns;
	int rc;
};

/* What each I/O is: where, and whether it is a write. */
uint64_t lane_place(struct lane *l, bool *write);
/* An I/O that began at `began` has ended now. False: no further one is to be submitted. */
bool lane_done(struct lane *l, bool write, uint64_t began, uint64_t now, int rc);

/* The time-stamp counter, or nanoseconds where there is none. */
static inline uint64_t ticks(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
#endif
}

/* ---- perf_report.c ---- */
struct result {
	double seconds;
	double ticks_per_ns;
	struct hist read, write;
	uint64_t cpu_ns;
	double busy; /* ticks of the processor's time in which there was something to do */
};
int perf_report(const struct perf *p, const struct result *r);

#endif
