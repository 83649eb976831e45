/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Readahead: a file read in order has a window read before it is asked for, doubling from 64 KiB to 1 MiB; a jump ends that. It runs on the
 * service's channel, and who comes to a page that is still being read polls that channel. Without a service nothing is read ahead but
 * what the reader waits for: the window is added to what it misses.
 */
#include "blobfs/data.h"

#define WINDOW_MIN (64 * KiB)
#define WINDOW_MAX (1 * MiB)

bool bfs_ra_continues(struct bfs_file *file, uint64_t offset)
{
	return offset == atomic_load_explicit(&file->ra.next, memory_order_relaxed);
}

uint64_t bfs_readahead_range(struct bfs_inode *inode, uint64_t first, uint64_t last)
{
	struct bdev_channel *ch = bs_service_channel(inode->fs->bs);
	struct bfs_cache *c = inode->fs->cache;
	uint64_t started = 0;

	while (ch && first <= last) {
		struct bfs_unit *u;

		if (bfs_fill_gather(inode, first, last, ch, &u))
			break;
		if (!u) {
			first++;
			continue;
		}
		started += u->n;
		first = u->first + u->n;
		bfs_unit_start(u, ch, NULL);
	}
	if (started) {
		bdev_kick(ch);
		atomic_fetch_add_explicit(&c->readahead, started, memory_order_relaxed);
	}
	return started << PAGE_SHIFT;
}

uint64_t bfs_ra_end(const struct bfs_req *req, uint64_t end)
{
	uint64_t size = atomic_load_explicit(&req->inode->size, memory_order_relaxed);

	if (bs_service_channel(req->inode->fs->bs) || !req->file)
		return end;
	return MAX(end, MIN(size, end + atomic_load_explicit(&req->file->ra.window,
							     memory_order_relaxed)));
}

/* The window after this read. */
static uint64_t window_of(struct bfs_file *file, uint64_t offset, uint64_t len)
{
	uint64_t window = atomic_load_explicit(&file->ra.window, memory_order_relaxed);

	if (!bfs_ra_continues(file, offset)) {
		window = 0;
		atomic_store_explicit(&file->ra.done, 0, memory_order_relaxed);
	} else if (len >= WINDOW_MAX) {
		window = WINDOW_MAX;
	}
	if (atomic_load_explicit(&file->ra.advice, memory_order_relaxed) == BFS_ADV_SEQUENTIAL)
		window = WINDOW_MAX;
	return window;
}

void bfs_readahead(struct bfs_file *file, uint64_t offset, uint64_t len, bool missed)
{
	struct bfs_inode *inode = file->inode;
	uint64_t end = offset + len,
		 size = atomic_load_explicit(&inode->size, memory_order_relaxed);
	uint64_t max = (uint64_t)inode->fs->cache->n_pages * PAGE_SIZE / 8;
	uint64_t window, done, from, to;

	if (atomic_load_explicit(&file->ra.advice, memory_order_relaxed) == BFS_ADV_RANDOM)
		return;
	window = window_of(file, offset, len);
	done = atomic_load_explicit(&file->ra.done, memory_order_relaxed);
	atomic_store_explicit(&file->ra.next, end, memory_order_relaxed);
	if (!window && !missed)
		return;
	/* A first miss does not tell order yet, unless it is at the beginning. */
	if (!window && offset) {
		atomic_store_explicit(&file->ra.window, WINDOW_MIN / 2, memory_order_relaxed);
		return;
	}
	if (done > end + window / 2)
		return;
	window = MIN(MIN(MAX(window * 2, WINDOW_MIN), WINDOW_MAX), max);
	from = MAX(done, end);
	to = MIN(end + window, size);
	atomic_store_explicit(&file->ra.window, window, memory_order_relaxed);
	if (from >= to)
		return;
	atomic_store_explicit(&file->ra.done, end + window, memory_order_relaxed);
	bfs_readahead_range(inode, from >> PAGE_SHIFT, (to - 1) >> PAGE_SHIFT);
}

int bfs_advise(struct bfs_file *file, uint64_t offset, uint64_t length, enum bfs_advice advice)
{
	struct bfs_inode *inode = file->inode;
	uint64_t size = atomic_load(&inode->size), end;

	end = length && length < UINT64_MAX - offset ? offset + length : UINT64_MAX;
	switch (advice) {
	case BFS_ADV_NORMAL:
	case BFS_ADV_SEQUENTIAL:
	case BFS_ADV_RANDOM:
		atomic_store(&file->ra.advice, (int)advice);
		return 0;
	case BFS_ADV_WILLNEED:
		end = MIN(MIN(end, size),
			  offset + (uint64_t)inode->fs->cache->n_pages / 4 * PAGE_SIZE);
		if (offset < end)
			bfs_readahead_range(inode, offset >> PAGE_SHIFT, (end - 1) >> PAGE_SHIFT);
		return 0;
	case BFS_ADV_DONTNEED: /* whole pages only */
		end = end >= size ? UINT64_MAX : end;
		if (round_up(offset, PAGE_SIZE) >= end)
			return 0;
		pthread_mutex_lock(&inode->lock);
		bfs_range_drop(inode, round_up(offset, PAGE_SIZE) >> PAGE_SHIFT,
			       (end >> PAGE_SHIFT) - 1, false);
		pthread_mutex_unlock(&inode->lock);
		return 0;
	}
	return -EINVAL;
}
