/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * DMA memory. A header in front of each piece says who made it, so that memory from before a change of
 * allocator goes back where it came from. It costs one alignment unit: allocate large pieces and cut.
 */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/dma.h"
#include "base/internal.h"
#include "base/util.h"

#define DMA_MIN_ALIGN 512u
#define DMA_MAGIC 0x646d615f6d656d21ull

struct dma_head {
	uint64_t magic;
	const struct dma_ops *ops;
	void *raw;
	size_t size; /* as given to ops->alloc */
};

static void *plain_alloc(size_t size, size_t align)
{
	void *p;

	return posix_memalign(&p, align, size) ? NULL : p;
}

static void plain_free(void *p, size_t size)
{
	(void)size;
	free(p);
}

static const struct dma_ops plain_ops = { "plain", plain_alloc, plain_free };
static _Atomic(const struct dma_ops *) current_ops = &plain_ops;

void dma_set_ops(const struct dma_ops *ops)
{
	atomic_store(&current_ops, ops ? ops : &plain_ops);
}

void *dma_alloc(size_t size, size_t align)
{
	const struct dma_ops *ops = atomic_load(&current_ops);
	struct dma_head *head;
	size_t total;
	char *raw;

	align = MAX(align, (size_t)DMA_MIN_ALIGN);
	assert(is_pow2(align) && size);
	if (__builtin_add_overflow(size, align, &total) || base_alloc_fails())
		return NULL;
	raw = ops->alloc(total, align);
	if (!raw)
		return NULL;
	head = (struct dma_head *)(void *)(raw + align) - 1;
	*head = (struct dma_head){ DMA_MAGIC, ops, raw, total };
	return raw + align;
}

void *dma_zalloc(size_t size, size_t align)
{
	void *p = dma_alloc(size, align);

	return p ? memset(p, 0, size) : NULL;
}

void dma_free(void *p)
{
	struct dma_head head;

	if (!p)
		return;
	head = ((struct dma_head *)p)[-1];
	if (head.magic != DMA_MAGIC)
		abort(); /* not ours, freed twice, or somebody wrote in front of it */
	((struct dma_head *)p)[-1].magic = 0;
	head.ops->free(head.raw, head.size);
}
