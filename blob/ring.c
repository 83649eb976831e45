/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log's append buffer: a ring of bytes in an arena, addressed by offsets only, so that it means the same in
 * another process. One appender (under bs->lock) and one reader (the log's writer): `head` is stored after the
 * bytes are in place; the tail and its LSN are one of two pairs, switched by one store.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "blob/device.h"

#define RING_MAGIC 0x31474e49524c4253ull /* "SBLRING1" */
#define RING_DATA 4096u

int bs_ring_init(struct bs_ring *ring, void *arena, uint64_t arena_size, uint64_t lsn)
{
	struct bs_ring_head *h;

	if (arena_size < RING_DATA + BS_FRAME_MAX)
		return -EINVAL;
	memset(ring, 0, sizeof(*ring));
	if (!arena) {
		ring->own = base_malloc(arena_size);
		if (!ring->own)
			return -ENOMEM;
		arena = ring->own;
	}
	h = arena;
	memset(h, 0, sizeof(*h));
	h->magic = RING_MAGIC;
	h->size = round_down(arena_size - RING_DATA, BS_BLOCK);
	h->data = RING_DATA;
	h->tail[0].lsn = lsn;
	atomic_init(&h->head, 0);
	atomic_init(&h->which, 0);
	ring->h = h;
	ring->size = h->size;
	ring->data = (uint8_t *)arena + RING_DATA;
	return 0;
}

void bs_ring_free(struct bs_ring *ring)
{
	free(ring->own);
	memset(ring, 0, sizeof(*ring));
}

uint64_t bs_ring_head(const struct bs_ring *ring)
{
	return atomic_load_explicit(&ring->h->head, memory_order_acquire);
}

uint64_t bs_ring_tail(const struct bs_ring *ring)
{
	/* A reader that sees the pair change under it gets the older or the newer position: both are right. */
	return __atomic_load_n(&ring->h->tail[atomic_load(&ring->h->which)].pos, __ATOMIC_RELAXED);
}

void bs_ring_put(struct bs_ring *ring, uint64_t pos, const void *buf, uint64_t len)
{
	uint64_t at = pos % ring->size, first = MIN(len, ring->size - at);

	memcpy(ring->data + at, buf, first);
	memcpy(ring->data, (const uint8_t *)buf + first, len - first);
}

void bs_ring_get(const struct bs_ring *ring, uint64_t pos, void *buf, uint64_t len)
{
	uint64_t at = pos % ring->size, first = MIN(len, ring->size - at);

	memcpy(buf, ring->data + at, first);
	memcpy((uint8_t *)buf + first, ring->data, len - first);
}

void bs_ring_publish(struct bs_ring *ring, uint64_t head)
{
	atomic_store_explicit(&ring->h->head, head, memory_order_release);
}

void bs_ring_consume(struct bs_ring *ring, uint64_t tail, uint64_t lsn)
{
	uint32_t other = !atomic_load(&ring->h->which);

	__atomic_store_n(&ring->h->tail[other].pos, tail, __ATOMIC_RELAXED);
	ring->h->tail[other].lsn = lsn;
	atomic_store(&ring->h->which, other);
}
