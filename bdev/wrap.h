/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Wrappers: devices over a device, for tests and for trying something without a trace. Each takes over `base` (closing the wrapper closes
 * it) and may be wrapped again. Same port, same rules.
 */
#ifndef BDEV_WRAP_H
#define BDEV_WRAP_H

#include "bdev/bdev.h"

BLOBFS_C_BEGIN

/* ---- fault: scripted failures ---- */

enum bdev_fault_kind {
	BDEV_FAULT_ERROR,   /* completes with rc, nothing done */
	BDEV_FAULT_TIMEOUT, /* completes with -ETIMEDOUT after delay_ms; done or not: `done` */
	BDEV_FAULT_SHORT,   /* the first half is done, then rc (a short transfer) */
	BDEV_FAULT_DELAY,   /* done, completes delay_ms later */
};
struct bdev_fault {
	enum bdev_fault_kind kind;
	int op;          /* enum bdev_op, or -1: any */
	uint64_t first;  /* skip so many matching I/Os first */
	uint64_t count;  /* then fail so many; UINT64_MAX: for ever */
	uint64_t lo, hi; /* only I/Os that touch [lo, hi) bytes; hi 0: anywhere */
	int rc;
	uint32_t delay_ms;
	bool done;
};
BLOBFS_API int bdev_fault_create(struct bdev *base, struct bdev **out);
BLOBFS_API int bdev_fault_add(struct bdev *dev, const struct bdev_fault *fault);
BLOBFS_API void bdev_fault_clear(struct bdev *dev);
/* I/Os of this op (or -1: all) that reached the wrapper so far. */
BLOBFS_API uint64_t bdev_fault_seen(struct bdev *dev, int op);

/* ---- powercut: what a medium with a volatile cache may hold after a cut ---- */

/*
 * Passes I/O through to `base` (normally ram), and records every write, write-zeroes and discard
 * with its data, and every flush, in submission and completion order. The state of the medium after
 * a cut at event E is: all writes that had completed before a flush was submitted that itself
 * completed before E, and of the other writes submitted before E any subset, each whole or torn at
 * `torn` bytes (each torn-unit independently old or new, in any order for overlapping writes). An
 * FUA write that completed before E is in it for certain.
 */
BLOBFS_API int bdev_powercut_create(struct bdev *base, struct bdev **out);
/* Number of events (submissions and completions of writes and flushes) so far: cut points are 0 …
 * n. */
BLOBFS_API uint64_t bdev_powercut_events(struct bdev *dev);
/* Marks a moment: returns the number of the last event. What was acknowledged to the caller before
 * is before it. */
BLOBFS_API uint64_t bdev_powercut_mark(struct bdev *dev);
/* How many writes are undecided at a cut (subsets: 2^n), counted in whole writes. */
BLOBFS_API uint64_t bdev_powercut_undecided(struct bdev *dev, uint64_t event);

struct bdev_cut {
	uint64_t event;
	uint64_t seed; /* chooses the subset when mask is not used */
	/* Bit i (of byte i / 8): undecided write i, counted by submission, survives. NULL: by seed. */
	const uint8_t *mask;
	uint32_t torn; /* tear at this many bytes, 0: writes are whole */
};
/* Makes a new ram device with the surviving content. The same arguments give the same bytes. A torn
 * write of a mask has those of its units that the seed chooses. A state costs by what was written
 * since the last flush before the cut, not by the device's size, when cuts are visited in rising
 * order. */
BLOBFS_API int bdev_powercut_state(struct bdev *dev, const struct bdev_cut *cut, struct bdev **out);
/* Forgets the record so far, events count from 0 again; the present content becomes the base of
 * what follows (all durable). What is in flight stays undecided from cut 0 on. -ENOMEM, or the
 * error of reading `base`. */
BLOBFS_API int bdev_powercut_reset(struct bdev *dev);
/* Self-test of the tests: lies about flushes from now on: they complete, nothing becomes durable. */
BLOBFS_API void bdev_powercut_lie(struct bdev *dev, bool lie);

/* ---- overlay: what is written stays in memory ---- */

/* Writable over a base that may be read-only and is never written to. The overlay goes when it is closed. For repair on trial:
 * `base` is taken over as by the others. -ENOMEM. */
BLOBFS_API int bdev_overlay_create(struct bdev *base, struct bdev **out);

/* ---- delay: a device of a given latency and rate ---- */
BLOBFS_API int bdev_delay_create(struct bdev *base, uint32_t latency_us, uint32_t max_iops,
				 struct bdev **out);

BLOBFS_C_END
#endif
