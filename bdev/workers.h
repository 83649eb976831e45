/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads for what blocks: psync's I/O, and the ioctls of block devices. */
#ifndef BDEV_WORKERS_H
#define BDEV_WORKERS_H

#include "bdev/internal.h"

struct workers;

/* run does one I/O, blocking, and returns its rc. One thread is made now, up to max as they are
 * needed. */
int workers_create(unsigned max, int (*run)(struct bdev_io *io), struct workers **out);
/* None of its I/O may be outstanding. */
void workers_destroy(struct workers *w);
/* From module->submit. The I/O ends by channel_done_remote. */
void workers_submit(struct workers *w, struct bdev_channel *ch, struct bdev_io *io);

#endif
