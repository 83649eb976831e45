/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef BDEV_RAM_H
#define BDEV_RAM_H

#include "bdev/internal.h"

/* A ram device over memory of somebody's, who gets it back by release when the device is closed. */
int ram_over(void *mem, uint64_t size, void (*release)(void *arg), void *arg, struct bdev **out);

#endif
