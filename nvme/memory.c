/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that controllers reach: one large, sparse, shared file in memory, mapped once by us and once by each
 * server, so that an address for the controller is a subtraction. Spans of it, free and taken, lie in a tree by
 * address; a free span is merged with its neighbours, and large ones go back to the system.
 *
 * A forked child must not write into its parent's memory: there the pages become private, and a new pool is made
 * when the child attaches a controller itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <bsd/sys/tree.h>

#include "base/dma.h"
#include "nvme/internal.h"

/* Address space, not memory. Where there is less of it (a limit, a debugger), half will do, and so on. */
#define POOL_MOST (64 * GiB)
#define POOL_LEAST (256 * MiB)
#define POOL_ALIGN (2 * MiB)
#define GIVE_BACK (256 * KiB)

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

struct nvme_pool nvme_pool = { .fd = -1 };
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
		mmap(nvme_pool.base, nvme_pool.size, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, nvme_pool.fd, 0);
		close(nvme_pool.fd);
		while ((s = RB_ROOT(&spans))) {
			RB_REMOVE(spans, &spans, s);
			free(s);
		}
		nvme_pool = (struct nvme_pool){ .fd = -1 };
	}
	pthread_mutex_unlock(&lock);
}

/* When the library is loaded, so before any device is opened: handlers run last registered first, and whoever allocates may hold
 * a channel's lock, so a fork has to take the channels' locks before this one. */
__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

/* Aligned, so that a server may use large pages for it. */
static char *map_pool(int fd, uint64_t size)
{
	uint64_t before;
	char *p = mmap(NULL, size + POOL_ALIGN, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	before = round_up((uintptr_t)p, POOL_ALIGN) - (uintptr_t)p;
	if (before)
		munmap(p, before);
	munmap(p + before + size, POOL_ALIGN - before);
	p += before;
	if (mmap(p, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0) !=
	    MAP_FAILED)
		return p;
	munmap(p, size);
	return NULL;
}

static int pool_make(void)
{
	struct span *all = base_malloc(sizeof(*all));
	int fd = all ? memfd_create("nvme", MFD_CLOEXEC) : -1;
	uint64_t size = POOL_MOST * 2;
	char *base = NULL;

	while (fd >= 0 && !base && size > POOL_LEAST) {
		size /= 2;
		if (!ftruncate(fd, (off_t)size))
			base = map_pool(fd, size);
	}
	if (!base) {
		if (fd >= 0)
			close(fd);
		free(all);
		return -ENOMEM;
	}
	*all = (struct span){ .len = size };
	RB_INSERT(spans, &spans, all);
	nvme_pool = (struct nvme_pool){ base, size, fd };
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

static struct span *take(uint64_t size, uint64_t align)
{
	struct span *s;
	uint64_t skip;

	RB_FOREACH(s, spans, &spans)
	{
		skip = round_up(s->at, align) - s->at;
		if (s->taken || s->len < skip || s->len - skip < size)
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

	if (!next || s->taken || next->taken)
		return;
	s->len += next->len;
	RB_REMOVE(spans, &spans, next);
	free(next);
}

static void *pool_alloc(size_t size, size_t align)
{
	struct span *s = NULL;
	void *p = NULL;

	if (!size || size > POOL_MOST || align > POOL_ALIGN)
		return NULL;
	size = round_up(size, NVME_PAGE);
	align = MAX(align, (size_t)NVME_PAGE);
	pthread_mutex_lock(&lock);
	if (nvme_pool.base || !pool_make())
		s = take(size, align);
	/* The base is aligned to 2 MiB only. */
	if (s)
		p = nvme_pool.base + s->at;
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
		if (s->len >= GIVE_BACK)
			madvise(p, s->len, MADV_REMOVE);
		s->taken = false;
		merge_with_next(s);
		merge_with_next(RB_PREV(spans, &spans, s));
	}
	pthread_mutex_unlock(&lock);
}

static const struct dma_ops pool_ops = { "nvme", pool_alloc, pool_free };

int nvme_pool_use(void)
{
	int rc;

	pthread_mutex_lock(&lock);
	rc = nvme_pool.base ? 0 : pool_make();
	pthread_mutex_unlock(&lock);
	if (!rc)
		dma_set_ops(&pool_ops);
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
