/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory a device can read and write. Without EAL it is plain aligned memory; when a device that needs
 * DMA memory is opened, an allocator over EAL takes its place for what is allocated afterwards.
 */
#ifndef BASE_DMA_H
#define BASE_DMA_H

#include <stddef.h>
#include <stdint.h>

#include "base/api.h"

BLOBFS_C_BEGIN

struct dma_ops {
	const char *name;
	void *(*alloc)(size_t size, size_t align); /* contents undefined; NULL on failure */
	void (*free)(void *p, size_t size);
};

/* Replaces the allocator for later calls (memory remembers who made it). Any thread; normally once. */
BLOBFS_API void dma_set_ops(const struct dma_ops *ops);
/* size > 0 bytes aligned to align (power of two, at least 512 is used). NULL when memory is short. */
BLOBFS_API void *dma_alloc(size_t size, size_t align);
BLOBFS_API void *dma_zalloc(size_t size, size_t align);
/* NULL is allowed. */
BLOBFS_API void dma_free(void *p);

BLOBFS_C_END
#endif
