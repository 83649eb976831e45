/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdlib.h>

#include "base/dma.h"
#include "base/util.h"
#include "fuse/pool.h"

#define PAGE 4096u

void pool_init(struct pool *p, size_t size, unsigned int max_idle)
{
	*p = (struct pool){ .size = size, .max_idle = max_idle };
	pthread_mutex_init(&p->lock, NULL);
}

static void buf_free(struct pool_buf *b)
{
	dma_free(b->mem);
	free(b);
}

void pool_destroy(struct pool *p)
{
	struct pool_buf *b;

	while ((b = p->idle)) {
		p->idle = b->next;
		buf_free(b);
	}
	pthread_mutex_destroy(&p->lock);
}

struct pool_buf *pool_get(struct pool *p)
{
	struct pool_buf *b;

	pthread_mutex_lock(&p->lock);
	b = p->idle;
	if (b) {
		p->idle = b->next;
		p->n_idle--;
	}
	pthread_mutex_unlock(&p->lock);
	if (b)
		return b;
	b = base_malloc(sizeof(*b));
	if (!b)
		return NULL;
	b->mem = dma_alloc(p->size, PAGE);
	if (!b->mem) {
		free(b);
		return NULL;
	}
	return b;
}

void pool_put(struct pool *p, struct pool_buf *b)
{
	pthread_mutex_lock(&p->lock);
	if (p->n_idle < p->max_idle) {
		b->next = p->idle;
		p->idle = b;
		p->n_idle++;
		b = NULL;
	}
	pthread_mutex_unlock(&p->lock);
	if (b)
		buf_free(b);
}
