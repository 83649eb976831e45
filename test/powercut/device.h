/* SPDX-License-Identifier: BSD-2-Clause */
/* What workloads of both levels do with the device. */
#ifndef TEST_POWERCUT_DEVICE_H
#define TEST_POWERCUT_DEVICE_H

#include "blob/blob.h"
#include "test/powercut/powercut.h"

/* Size of the store at first: less than the device has. Also chooses whether the run discards. */
uint64_t device_first_size(struct run *run);
/* Grows or trims. */
void device_step(struct run *run, struct bs *bs);
/* The store has a size that it may have after a cut at `event`. */
bool device_verify(struct run *run, struct bs *bs, uint64_t event);

#endif
