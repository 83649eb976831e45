/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How long who waits for a controller spins before it sleeps on the interrupt, and how many of the process do at once: at most half
 * the cores, but one.
 */
#ifndef BDEV_NVME_WAIT_H
#define BDEV_NVME_WAIT_H

#include <stdbool.h>
#include <stdint.h>

/* What one channel's waits have been like. One thread at a time. */
struct nvme_wait {
	uint64_t mean_ns; /* 0: nothing is known yet */
};

/* About twice the mean of what it has taken; 0: so long that sleeping costs nothing in comparison. */
uint64_t nvme_wait_spin_ns(const struct nvme_wait *w);
void nvme_wait_learn(struct nvme_wait *w, uint64_t took_ns);
/* False: enough others spin. Each true is followed by one leave. */
bool nvme_wait_enter(void);
void nvme_wait_leave(void);
/* For tests: as many as have ever been spinning at once. */
unsigned nvme_wait_most(void);

#endif
