/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef BDEV_RAM_H
#define BDEV_RAM_H

#include "bdev/internal.h"
#include "bdev/medium.h"

/* A ram device over a medium, which it takes over on success. */
int ram_over(struct medium *medium, struct bdev **out);
/* A copy of the medium the device stands on; NULL: it does not stand on one, or memory is short. */
struct medium *ram_medium_copy(struct bdev *dev);

#endif
