/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The device under the tests of the upper layers: memory, or with TEST_DEVICE=nvme an emulated NVMe controller of the same size,
 * in a thread of its own. TEST_DEVICE=nvme4096 gives it blocks of 4096 bytes.
 */
#ifndef TEST_COMMON_TESTDEV_H
#define TEST_COMMON_TESTDEV_H

#include <stdbool.h>
#include <stddef.h>

/*
 * The device to open in place of this one: "ram:SIZE[,cache][,name=…]" itself, or the name of a new controller, which keeps its content
 * until it was opened and closed. A program in which a driver broke the specification ends with exit code 3.
 */
const char *testdev_name(const char *ram, char *out, size_t len);
/* TEST_DATASUM is in the environment: file systems are made with checksums of data. */
bool testdev_sums(void);
/* TEST_DEVICE names a controller. */
bool testdev_is_nvme(void);

#endif
