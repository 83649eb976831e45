/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ring is DPDK's, on our own memory: it needs no EAL. Senders use its relaxed tail sync: a plain
 * multi-producer ring makes a sender spin while another is preempted, and collapses when threads
 * outnumber cores.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/internal.h"
#include "base/util.h"

/* C11 atomics instead of bare loads and stores: as fast here, and the thread sanitizer understands them. */
#define RTE_USE_C11_MEM_MODEL 1
#include <rte_ring.h>
#include <rte_ring_elem.h>

/* The ring's 64-bit tail is read as two halves, which hides from the thread sanitizer that a message is
 * handed over: it is told so here, and suppresses what it finds inside the ring (test/shim). */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define HAND_OVER(m) __tsan_release(m)
#define TAKE_OVER(m) __tsan_acquire(m)
#else
#define HAND_OVER(m) ((void)(m))
#define TAKE_OVER(m) ((void)(m))
#endif

struct msgring {
	struct rte_ring *ring;
};

int msgring_create(uint32_t size, struct msgring **out)
{
	struct msgring *m;
	ssize_t bytes;
	void *mem;

	if (!is_pow2(size) || size > 1u << 24)
		return -EINVAL;
	bytes = rte_ring_get_memsize_elem(sizeof(struct msg), size);
	if (bytes < 0)
		return (int)bytes;
	m = base_malloc(sizeof(*m));
	if (!m)
		return -ENOMEM;
	if (base_alloc_fails() || posix_memalign(&mem, RTE_CACHE_LINE_SIZE, (size_t)bytes)) {
		free(m);
		return -ENOMEM;
	}
	m->ring = mem;
	if (rte_ring_init(m->ring, "msgring", size, RING_F_MP_RTS_ENQ | RING_F_SC_DEQ)) {
		msgring_destroy(m);
		return -EINVAL;
	}
	*out = m;
	return 0;
}

void msgring_destroy(struct msgring *m)
{
	free(m->ring);
	free(m);
}

bool msgring_push(struct msgring *m, const struct msg *msg)
{
	HAND_OVER(m);
	/* The ring copies from it; the missing const is the library's. */
	return rte_ring_enqueue_elem(m->ring, (void *)(uintptr_t)msg, sizeof(*msg)) == 0;
}

bool msgring_pop(struct msgring *m, struct msg *msg)
{
	if (rte_ring_dequeue_elem(m->ring, msg, sizeof(*msg)))
		return false;
	TAKE_OVER(m);
	return true;
}

uint32_t msgring_count(struct msgring *m)
{
	/* As rte_ring_count, but by atomic loads. */
	return __atomic_load_n(&m->ring->prod.tail, __ATOMIC_ACQUIRE) -
	       __atomic_load_n(&m->ring->cons.tail, __ATOMIC_RELAXED);
}
