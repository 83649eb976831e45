/* SPDX-License-Identifier: BSD-2-Clause */
/* The record of a powercut device, and the images its states are made from. */
#ifndef BDEV_POWERCUT_H
#define BDEV_POWERCUT_H

#include "bdev/medium.h"
#include "bdev/wrap.h"
#include "bdev/wrapper.h"

/* A write, write-zeroes or discard. Events count from 1; 0 for submit: before the record began. */
struct pc_write {
	uint64_t submit;
	uint64_t complete; /* 0: not complete (or failed, so that nothing is certain) */
	uint64_t failed;   /* when it came back with an error; 0: it did not */
	uint64_t offset, length;
	bool fua;   /* and honoured */
	char *data;  /* NULL: zeroes */
};

/* A flush that was completed (and not a lie). */
struct pc_flush {
	uint64_t complete;
	uint64_t submit; /* the latest submission of all flushes completed up to this one */
};

struct powercut {
	struct wrapper w;
	pthread_mutex_t lock;
	uint64_t events, size;
	uint64_t generation; /* one more with each reset */
	bool lie;
	struct pc_write **writes; /* by submission */
	size_t nwrites, room;
	struct pc_write **done; /* those completed, by completion; as much room */
	size_t ndone;
	struct pc_flush *flushes;                 /* by completion */
	size_t nflushes, flush_room, flushes_out; /* out: submitted, not back */
	struct medium *pristine;                  /* when the record began */
	struct {
		struct medium *medium; /* with what was durable at the last state's flush point; NULL: none */
		size_t applied;        /* writes of done that are in it */
		size_t low;            /* every write before this one is in it */
	} rolled;
};

/* Finds the submission of the flush that makes the most durable at a cut; 0: none. */
uint64_t powercut_flush_point(const struct powercut *pc, uint64_t event);

#endif
