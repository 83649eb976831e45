/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The content of a medium, mostly holes: pages in a tree of two levels, which copies share until
 * they are written. A copy costs by the size of the top level only.
 */
#ifndef BDEV_MEDIUM_H
#define BDEV_MEDIUM_H

#include <stdint.h>

struct medium;

/* A zeroed one. */
int medium_create(uint64_t size, struct medium **out);
int medium_copy(struct medium *from, struct medium **out);
void medium_free(struct medium *m); /* NULL is allowed */
uint64_t medium_size(const struct medium *m);
/* Any thread; within the size. */
void medium_read(struct medium *m, uint64_t offset, void *buf, uint64_t len);
/* buf NULL: zeroes. -ENOMEM: part of it may be written. */
int medium_write(struct medium *m, uint64_t offset, const void *buf, uint64_t len);

#endif
