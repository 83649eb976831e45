/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the pool is made of: a window of addresses over one or two sparse files in memory. The first part is
 * ordinary pages, given to servers as a file. When a controller of this machine comes first, huge pages follow in a second
 * part: all of it is told to the IOMMU, granule by granule as it is taken, at addresses of our choice, which are
 * low, for there are IOMMUs of 39 bits. Where nothing translates, addresses are physical and a table has them.
 *
 * What an IOMMU has been told of stays where it is and is never given back: its pages are pinned, and new
 * ones in their place would not be the ones that the controller writes to.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LOG_COMPONENT "nvme"
#include "base/log.h"
#include "nvme/internal.h"

/* Address space, not memory. Where there is less of it (a limit, a debugger), half will do, and so on. */
#define POOL_MOST (64 * GiB)
#define POOL_LEAST (256 * MiB)
#define GIVE_BACK (256 * KiB)
#define FREE_HUGE "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"

enum granule {
	THERE = 1 << 0,  /* the huge page */
	FRESH = 1 << 1,  /* it has just been got */
	MAPPED = 1 << 2, /* for the IOMMU */
};

/* NULL: neither huge pages nor an IOMMU. */
static uint8_t *granules;
static const struct nvme_reach *reach; /* of an IOMMU, or physical */
static unsigned iommu_users, file_users;
static bool said_huge, said_map;

/* ---- the window ---- */

static int huge_file(uint64_t size)
{
	int fd = memfd_create("nvme-huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | MFD_HUGE_2MB);

	if (fd >= 0 && ftruncate(fd, (off_t)size)) {
		close(fd);
		return -1;
	}
	return fd;
}

static bool huge_pages_are_free(void)
{
	unsigned long n = 0;
	FILE *f = fopen(FREE_HUGE, "re");

	if (f && fscanf(f, "%lu", &n) != 1)
		n = 0;
	if (f)
		fclose(f);
	return n > 0;
}

/* Aligned, so that a server may use large pages for it, and huge pages fit. */
static char *reserve(uint64_t size)
{
	uint64_t before;
	char *p = mmap(NULL, size + NVME_GRANULE, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	before = round_up((uintptr_t)p, NVME_GRANULE) - (uintptr_t)p;
	if (before)
		munmap(p, before);
	munmap(p + before + size, NVME_GRANULE - before);
	return p + before;
}

static bool map_file(char *at, int fd, uint64_t size)
{
	return mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd,
		    0) != MAP_FAILED;
}

/* Parts of `part` bytes; huge_fd is -1 where there is no second one. */
static char *map_window(uint64_t part, int fd, int huge_fd)
{
	uint64_t size = huge_fd < 0 ? part : 2 * part;
	char *base = reserve(size);

	if (base && map_file(base, fd, part) &&
	    (huge_fd < 0 || map_file(base + part, huge_fd, part)))
		return base;
	if (base)
		munmap(base, size);
	return NULL;
}

static int make_tables(bool physical)
{
	size_t n = (size_t)(nvme_pool.size / NVME_GRANULE);

	if (!granules)
		granules = base_calloc(n, sizeof(*granules));
	if (physical && !nvme_pool.physical)
		nvme_pool.physical = base_calloc(n, sizeof(*nvme_pool.physical));
	return granules && (!physical || nvme_pool.physical) ? 0 : -ENOMEM;
}

static void unmake(void)
{
	if (nvme_pool.base)
		munmap(nvme_pool.base, nvme_pool.size);
	if (nvme_pool.fd >= 0)
		close(nvme_pool.fd);
	if (nvme_pool.huge_fd >= 0)
		close(nvme_pool.huge_fd);
	free(granules);
	free(nvme_pool.physical);
	granules = NULL;
	nvme_pool = (struct nvme_pool){ .fd = -1, .huge_fd = -1 };
}

/*
 * A server has the file too, and could make it shorter, which would be a SIGBUS for us at the next touch, or seal it against us. Holes may
 * still be punched.
 */
static bool seal(int fd)
{
	return fd < 0 || !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
}

int backing_make(const struct nvme_reach *r)
{
	bool physical = r->kind == NVME_REACH_PHYSICAL;
	bool huge = r->kind != NVME_REACH_FILE && huge_pages_are_free();
	uint64_t part = POOL_MOST * 2;

	if (physical && !huge)
		return -ENOSPC;
	nvme_pool.fd = memfd_create("nvme", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	while (nvme_pool.fd >= 0 && !nvme_pool.base && part > POOL_LEAST) {
		part /= 2;
		if (ftruncate(nvme_pool.fd, (off_t)part))
			continue;
		if (huge)
			nvme_pool.huge_fd = huge_file(part);
		nvme_pool.base = map_window(part, nvme_pool.fd, nvme_pool.huge_fd);
		if (!nvme_pool.base && nvme_pool.huge_fd >= 0) {
			close(nvme_pool.huge_fd);
			nvme_pool.huge_fd = -1;
		}
	}
	nvme_pool.plain = part;
	nvme_pool.size = nvme_pool.huge_fd < 0 ? part : 2 * part;
	if (!nvme_pool.base || !seal(nvme_pool.fd) || !seal(nvme_pool.huge_fd) ||
	    (physical && nvme_pool.huge_fd < 0) ||
	    (nvme_pool.huge_fd >= 0 && make_tables(physical))) {
		unmake();
		return -ENOMEM;
	}
	return 0;
}

/* ---- granules ---- */

static char *granule_at(uint64_t i)
{
	return nvme_pool.base + i * NVME_GRANULE;
}

static off_t place_in_huge(uint64_t i)
{
	return (off_t)(i * NVME_GRANULE - nvme_pool.plain);
}

static int fill(uint64_t i)
{
	if (fallocate(nvme_pool.huge_fd, 0, place_in_huge(i), (off_t)NVME_GRANULE)) {
		if (!said_huge)
			log_info("no more huge pages are free");
		said_huge = true;
		return -ENOMEM;
	}
	granules[i] |= THERE | FRESH;
	return 0;
}

/* Where the page is; it is touched, for it is not in our page table before. */
static int find_physical(uint64_t i)
{
	*(volatile char *)granule_at(i) = 0;
	return reach->physical(granule_at(i), &nvme_pool.physical[i]);
}

static int tell_iommu(uint64_t i)
{
	int rc = reach->map(granule_at(i), NVME_IOVA_BASE + i * NVME_GRANULE, NVME_GRANULE);

	if (rc && !said_map)
		log_warn(
			"the IOMMU does not take memory: %s; is the limit of locked memory (ulimit -l) too low?",
			strerror(-rc));
	said_map |= rc;
	if (!rc)
		granules[i] |= MAPPED;
	return rc;
}

static void empty(uint64_t i)
{
	fallocate(nvme_pool.huge_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, place_in_huge(i),
		  (off_t)NVME_GRANULE);
	granules[i] &= (uint8_t) ~(THERE | FRESH);
}

/* All of them or none: what is too little for this one may do for the next. */
static int fill_all(uint64_t from, uint64_t to)
{
	int rc = 0;

	for (uint64_t i = from; i < to && !rc; i++)
		rc = granules[i] & THERE ? 0 : fill(i);
	for (uint64_t i = from; i < to; i++) {
		if (rc && granules[i] & FRESH)
			empty(i);
		granules[i] &= (uint8_t)~FRESH;
	}
	return rc;
}

static int make_known(uint64_t i)
{
	if (nvme_pool.physical)
		return nvme_pool.physical[i] ? 0 : find_physical(i);
	return iommu_users && !(granules[i] & MAPPED) ? tell_iommu(i) : 0;
}

int backing_hold(uint64_t at, uint64_t len)
{
	uint64_t from = at / NVME_GRANULE, to = div_round_up(at + len, NVME_GRANULE);
	int rc = 0;

	if (!granules)
		return 0;
	if (at >= nvme_pool.plain)
		rc = fill_all(from, to);
	for (uint64_t i = from; i < to && !rc; i++)
		rc = make_known(i);
	return rc;
}

void backing_release(uint64_t at, uint64_t len)
{
	/* A server may have pinned the pages, and would go on with them when others have taken their place. */
	if (!granules && !file_users && len >= GIVE_BACK)
		madvise(nvme_pool.base + at, len, MADV_REMOVE);
}

/* ---- who reaches it ---- */

int backing_reach(const struct nvme_reach *r)
{
	if (r->kind == NVME_REACH_FILE) {
		file_users++;
		return 0;
	}
	if (make_tables(r->kind == NVME_REACH_PHYSICAL))
		return -ENOMEM;
	reach = r;
	if (r->kind == NVME_REACH_IOMMU)
		iommu_users++;
	return 0;
}

void backing_unreach(const struct nvme_reach *r)
{
	if (r->kind == NVME_REACH_IOMMU)
		iommu_users--;
	else if (r->kind == NVME_REACH_FILE)
		file_users--;
}

/* ---- a fork ---- */

/* A private copy of a huge page would want a free huge page, and kill the child if there is none. */
static void copy_granule(uint64_t i)
{
	char *at = granule_at(i);
	void *copy = mmap(NULL, NVME_GRANULE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);

	if (copy != MAP_FAILED)
		memcpy(copy, at, NVME_GRANULE);
	if (copy == MAP_FAILED || mremap(copy, NVME_GRANULE, NVME_GRANULE,
					 MREMAP_MAYMOVE | MREMAP_FIXED, at) == MAP_FAILED)
		mprotect(at, NVME_GRANULE, PROT_READ);
}

void backing_forked(void)
{
	mmap(nvme_pool.base, nvme_pool.plain, PROT_READ | PROT_WRITE,
	     MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, nvme_pool.fd, 0);
	close(nvme_pool.fd);
	if (nvme_pool.huge_fd >= 0) {
		for (uint64_t i = nvme_pool.plain / NVME_GRANULE; i < nvme_pool.size / NVME_GRANULE;
		     i++)
			if (granules[i] & THERE)
				copy_granule(i);
		close(nvme_pool.huge_fd);
	}
	free(granules);
	free(nvme_pool.physical);
	granules = NULL;
	reach = NULL;
	iommu_users = file_users = 0;
	nvme_pool = (struct nvme_pool){ .fd = -1, .huge_fd = -1 };
}
