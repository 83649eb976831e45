/* SPDX-License-Identifier: BSD-2-Clause */
/* Large buffers for requests: a few idle ones are kept. */
#ifndef FUSE_POOL_H
#define FUSE_POOL_H

#include <pthread.h>
#include <stddef.h>

struct pool_buf {
	struct pool_buf *next;
	char *mem; /* page aligned */
};

struct pool {
	pthread_mutex_t lock;
	struct pool_buf *idle;
	unsigned int n_idle, max_idle;
	size_t size;
};

void pool_init(struct pool *p, size_t size, unsigned int max_idle);
void pool_destroy(struct pool *p); /* every buffer was put back */
struct pool_buf *pool_get(struct pool *p); /* NULL: no memory */
void pool_put(struct pool *p, struct pool_buf *b);

#endif
