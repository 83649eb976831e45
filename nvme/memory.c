/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that controllers reach: a window of addresses, so that an address for the controller is a subtraction. Spans
 * of it, free and taken, lie in a tree by address; a free span is merged with its neighbours. What the window is made
 * of, and how controllers get to know of it, is the backing's (backing.c).
 *
 * A forked child must not write into its parent's memory: there the pages become private, and a new pool is made
 * when the child attaches a controller itself.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include <bsd/sys/tree.h>

#include "base/dma.h"
#include "nvme/internal.h"

struct span {
	RB_ENTRY(span) node;
	uint64_t at, len;
	bool taken;
};

static int compare(const struct span *a, const struct span *b)
{
	return a->at < b->at ? -1 : a->at > b->at;
}

RB_HEAD(spans, span);
/* RB_GENERATE_STATIC of libbsd needs a macro that glibc has not. */
RB_GENERATE_INTERNAL(spans, span, node, compare, static __attribute__((unused)))

struct nvme_pool nvme_pool = { .fd = -1, .huge_fd = -1 };
static struct spans spans = RB_INITIALIZER(&spans);
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

uint64_t nvme_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

void nvme_sleep_us(unsigned us)
{
	struct timespec ts = { .tv_nsec = (long)us * 1000 };

	nanosleep(&ts, NULL);
}

/* ---- the pool ---- */

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork_parent(void)
{
	pthread_mutex_unlock(&lock);
}

static void after_fork_child(void)
{
	struct span *s;

	if (nvme_pool.base) {
		backing_forked();
		while ((s = RB_ROOT(&spans))) {
			RB_REMOVE(spans, &spans, s);
			free(s);
		}
	}
	pthread_mutex_unlock(&lock);
}

/* When the library is loaded, so before any device is opened: handlers run last registered first, and whoever allocates may hold
 * a channel's lock, so a fork has to take the channels' locks before this one. */
__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

/* Ordinary pages and huge ones are spans of their own, which are never merged. */
static int pool_make(const struct nvme_reach *r)
{
	struct span *plain = base_malloc(sizeof(*plain)), *huge = base_malloc(sizeof(*huge));
	int rc = plain && huge ? backing_make(r) : -ENOMEM;

	if (rc) {
		free(plain);
		free(huge);
		return rc;
	}
	nvme_pool.plain_end = nvme_pool.plain;
	nvme_pool.huge_end = nvme_pool.size;
	*plain = (struct span){ .len = nvme_pool.plain };
	*huge = (struct span){ .at = nvme_pool.plain, .len = nvme_pool.size - nvme_pool.plain };
	RB_INSERT(spans, &spans, plain);
	if (huge->len)
		RB_INSERT(spans, &spans, huge);
	else
		free(huge);
	return 0;
}

/* ---- spans, under the lock ---- */

/* Cuts the first `len` bytes off a free span; the rest is a span of its own. */
static int cut(struct span *s, uint64_t len)
{
	struct span *rest;

	if (s->len == len)
		return 0;
	rest = base_malloc(sizeof(*rest));
	if (!rest)
		return -ENOMEM;
	*rest = (struct span){ .at = s->at + len, .len = s->len - len };
	s->len = len;
	RB_INSERT(spans, &spans, rest);
	return 0;
}

/* The first free span that begins at `from` or later and ends by `to`. */
static struct span *take(uint64_t from, uint64_t to, uint64_t size, uint64_t align)
{
	struct span *s;
	uint64_t skip;

	RB_FOREACH(s, spans, &spans)
	{
		skip = round_up(s->at, align) - s->at;
		if (s->taken || s->at < from || s->at >= to || s->len < skip ||
		    s->len - skip < size || s->at + skip + size > to)
			continue;
		if (skip) {
			if (cut(s, skip))
				return NULL;
			s = RB_NEXT(spans, &spans, s);
		}
		if (cut(s, size))
			return NULL;
		s->taken = true;
		return s;
	}
	return NULL;
}

static void merge_with_next(struct span *s)
{
	struct span *next = s ? RB_NEXT(spans, &spans, s) : NULL;

	if (!next || s->taken || next->taken || next->at == nvme_pool.plain)
		return;
	s->len += next->len;
	RB_REMOVE(spans, &spans, next);
	free(next);
}

static void give(struct span *s)
{
	s->taken = false;
	merge_with_next(s);
	merge_with_next(RB_PREV(spans, &spans, s));
}

static void *take_held(uint64_t from, uint64_t to, uint64_t size, uint64_t align)
{
	struct span *s = take(from, to, size, align);

	if (s && backing_hold(s->at, s->len)) {
		give(s);
		s = NULL;
	}
	/* The base is aligned to a granule only. */
	return s ? nvme_pool.base + s->at : NULL;
}

static uint64_t pow2_above(uint64_t n)
{
	return n > 1 ? 1ull << (64 - __builtin_clzll(n - 1)) : 1;
}

static void *pool_alloc(size_t size, size_t align)
{
	static const struct nvme_reach any = { .kind = NVME_REACH_FILE };
	void *p = NULL;

	if (!size || size > SIZE_MAX / 4 || align > NVME_GRANULE)
		return NULL;
	size = round_up(size, NVME_PAGE);
	align = MAX(align, (size_t)NVME_PAGE);
	pthread_mutex_lock(&lock);
	if (nvme_pool.base || !pool_make(&any)) {
		/* Queues must not cross a granule then, and are smaller than one. */
		if (nvme_pool.physical && size <= NVME_GRANULE)
			align = MAX(align, pow2_above(size));
		p = take_held(nvme_pool.plain, nvme_pool.huge_end, size, align);
		if (!p && !nvme_pool.physical)
			p = take_held(0, nvme_pool.plain_end, size, align);
	}
	pthread_mutex_unlock(&lock);
	return p;
}

static void pool_free(void *p, size_t size)
{
	struct span key, *s;

	(void)size;
	pthread_mutex_lock(&lock);
	key.at = (uint64_t)((char *)p - nvme_pool.base);
	s = nvme_pool.base ? RB_FIND(spans, &spans, &key) : NULL;
	/* In a forked child it may be the parent's, which the child just forgets. */
	if (s && s->taken) {
		backing_release(s->at, s->len);
		give(s);
	}
	pthread_mutex_unlock(&lock);
}

static const struct dma_ops pool_ops = { "nvme", pool_alloc, pool_free };

/* What was taken before, or while nobody used it in this way, gets known to the IOMMU. */
static int hold_taken(void)
{
	struct span *s;
	int rc;

	RB_FOREACH(s, spans, &spans)
	{
		rc = s->taken ? backing_hold(s->at, s->len) : 0;
		if (rc)
			return rc;
	}
	return 0;
}

int nvme_pool_use(const struct nvme_reach *r)
{
	int rc;

	pthread_mutex_lock(&lock);
	rc = nvme_pool.base ? 0 : pool_make(r);
	if (!rc && (r->kind == NVME_REACH_PHYSICAL) != (nvme_pool.physical != NULL))
		rc = -EBUSY;
	if (!rc)
		rc = backing_reach(r);
	if (!rc) {
		rc = hold_taken();
		if (rc)
			backing_unreach(r);
	}
	pthread_mutex_unlock(&lock);
	if (!rc)
		dma_set_ops(&pool_ops);
	return rc;
}

void nvme_pool_unuse(const struct nvme_reach *r)
{
	struct span *s;

	pthread_mutex_lock(&lock);
	backing_unreach(r);
	/* What was freed while it had to stay. */
	RB_FOREACH(s, spans, &spans)
	{
		if (!s->taken)
			backing_release(s->at, s->len);
	}
	pthread_mutex_unlock(&lock);
}

int nvme_pool_limit(uint64_t plain_end, uint64_t huge_end)
{
	struct span *s;
	int rc = 0;

	pthread_mutex_lock(&lock);
	RB_FOREACH(s, spans, &spans)
	{
		if (s->taken && s->at + s->len > (s->at < nvme_pool.plain ? plain_end : huge_end))
			rc = -ENOMEM;
	}
	if (!rc) {
		nvme_pool.plain_end = MIN(nvme_pool.plain_end, plain_end);
		nvme_pool.huge_end = MIN(nvme_pool.huge_end, huge_end);
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

void *nvme_alloc(size_t size, size_t align)
{
	return pool_alloc(size, align);
}

void nvme_free(void *p)
{
	if (p)
		pool_free(p, 0);
}

bool nvme_memory_ok(const void *p, size_t len)
{
	return nvme_reachable(p, len);
}

void nvme_memory_window(const void **base, uint64_t *len)
{
	*base = nvme_pool.base;
	*len = nvme_pool.size;
}
