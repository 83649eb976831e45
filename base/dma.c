/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * DMA memory. A header in front of each piece says who made it, so that memory from before a change of
 * allocator goes back where it came from. It costs one alignment unit: allocate large pieces and cut.
 * Large plain pieces are mappings of their own: a cache's memory is not there before it is used, not even
 * when it is asked for zeroed, and goes back to the system at once.
 */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/dma.h"
#include "base/internal.h"
#include "base/util.h"

#define DMA_MIN_ALIGN 512u
#define DMA_PAGE ((size_t)4096)
#define DMA_MMAP_MIN ((size_t)4 * MiB)
#define DMA_MAGIC 0x646d615f6d656d21ull

struct dma_head {
	uint64_t magic;
	const struct dma_ops *ops;
	void *raw;
	size_t size; /* as given to ops->alloc */
};

/* An aligned mapping: more is mapped, and what stands over is given back. size and align: whole pages. */
static void *map_aligned(size_t size, size_t align)
{
	size_t total = size + align, before;
	char *p;

	p = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	before = round_up((uintptr_t)p, align) - (uintptr_t)p;
	if (before)
		munmap(p, before);
	munmap(p + before + size, align - before);
	return p + before;
}

static void *plain_alloc(size_t size, size_t align)
{
	void *p;

	if (size >= DMA_MMAP_MIN)
		return map_aligned(round_up(size, DMA_PAGE), MAX(align, DMA_PAGE));
	return posix_memalign(&p, align, size) ? NULL : p;
}

static void plain_free(void *p, size_t size)
{
	if (size >= DMA_MMAP_MIN)
		munmap(p, round_up(size, DMA_PAGE));
	else
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
	if (size > SIZE_MAX / 4 || align > SIZE_MAX / 4 || base_alloc_fails())
		return NULL;
	total = size + align;
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
	const struct dma_head *head = p;

	if (!p)
		return NULL;
	if (head[-1].ops == &plain_ops && head[-1].size >= DMA_MMAP_MIN)
		return p; /* the system gives zeroes */
	return memset(p, 0, size);
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
