/* SPDX-License-Identifier: BSD-2-Clause */
/* A place in somebody's iovecs, and copying between there and pages. */
#include "blobfs/data.h"

/*
 * A page may be changed while the device reads it for write-back, or be read by somebody who does not hold its shard: it is dirty again then, and
 * written again. The thread sanitizer would call that a race, so it does not get to see these copies.
 */
#ifdef __SANITIZE_THREAD__
static void copy(void *dst, const void *src, size_t len)
{
	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(len) : : "memory");
}
static void zero(void *dst, size_t len)
{
	__asm__ volatile("rep stosb" : "+D"(dst), "+c"(len) : "a"(0) : "memory");
}
#else
#define copy(dst, src, len) memcpy(dst, src, len)
#define zero(dst, len) memset(dst, 0, len)
#endif

void bfs_iter_init(struct bfs_iter *it, const struct iovec *iov, int cnt)
{
	it->iov = iov;
	it->cnt = cnt;
	it->off = 0;
}

/* Bytes at hand without a break, at most max. */
static size_t iter_run(struct bfs_iter *it, size_t max)
{
	while (it->cnt && it->off == it->iov->iov_len) {
		it->iov++;
		it->cnt--;
		it->off = 0;
	}
	assert(it->cnt);
	return MIN(max, it->iov->iov_len - it->off);
}

void bfs_iter_advance(struct bfs_iter *it, size_t len)
{
	while (len) {
		size_t n = iter_run(it, len);

		it->off += n;
		len -= n;
	}
}

void bfs_copy_zero(void *dst, size_t len)
{
	zero(dst, len);
}

void bfs_copy_in(void *dst, struct bfs_iter *it, size_t len)
{
	if (!it->iov) {
		zero(dst, len);
		return;
	}
	for (uint8_t *to = dst; len;) {
		size_t n = iter_run(it, len);

		copy(to, (const uint8_t *)it->iov->iov_base + it->off, n);
		it->off += n;
		to += n;
		len -= n;
	}
}

void bfs_copy_out(struct bfs_iter *it, const void *src, size_t len)
{
	const uint8_t *from = src;

	while (len) {
		size_t n = iter_run(it, len);

		if (from) {
			copy((uint8_t *)it->iov->iov_base + it->off, from, n);
			from += n;
		} else {
			zero((uint8_t *)it->iov->iov_base + it->off, n);
		}
		it->off += n;
		len -= n;
	}
}

void *bfs_iter_direct(struct bfs_iter *it, size_t len)
{
	return iter_run(it, len) == len ? (uint8_t *)it->iov->iov_base + it->off : NULL;
}
