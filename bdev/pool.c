/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pool of channels that synchronous callers borrow from: made one by one as callers come, so
 * that a program of one thread has one.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "bdev/internal.h"

#define LOG_COMPONENT "bdev"
#include "base/log.h"

/* What this thread borrowed last. The serial tells whether the device, and so the channel, may
 * still exist. */
static _Thread_local struct {
	uint64_t serial;
	struct bdev_channel *ch;
} last;

/* Unless told otherwise the pool leaves half of a device with few channels to those who want their
 * own. */
static unsigned pool_size(const struct bdev *dev)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	if (dev->opts.channels)
		return MIN(dev->opts.channels, dev->info.max_channels);
	return MIN(2 * (unsigned)MAX(cores, 1l), MAX(dev->info.max_channels / 2, 1u));
}

int pool_create(struct bdev *dev)
{
	struct bdev_channel *ch;
	int rc;

	dev->pool.size = pool_size(dev);
	dev->pool.slot = base_calloc(dev->pool.size, sizeof(*dev->pool.slot));
	if (!dev->pool.slot)
		return -ENOMEM;
	/* One exists from the start, so that borrowing never fails. */
	rc = channel_create(dev, &ch);
	if (rc)
		return rc;
	atomic_store(&dev->pool.slot[0], ch);
	atomic_store(&dev->pool.count, 1);
	return 0;
}

static bool take_unused(struct bdev_channel *ch)
{
	unsigned none = 0;

	return atomic_load_explicit(&ch->users, memory_order_relaxed) == 0 &&
	       atomic_compare_exchange_strong(&ch->users, &none, 1);
}

/* One channel more, ours; NULL when there can be none, or another thread is just making one. */
static struct bdev_channel *grow(struct bdev *dev)
{
	struct bdev_pool *pool = &dev->pool;
	struct bdev_channel *ch;
	unsigned n = atomic_load(&pool->count);
	int rc;

	if (n >= pool->size || atomic_exchange(&pool->growing, true))
		return NULL;
	n = atomic_load(&pool->count);
	rc = n < pool->size ? channel_create(dev, &ch) : -ENOSPC;
	if (!rc) {
		atomic_store(&ch->users, 1);
		atomic_store(&pool->slot[n], ch);
		atomic_store(&pool->count, n + 1);
	} else if (n < pool->size) {
		log_info("%s: the pool stays at %u channels: error %d", dev->name, n, rc);
		pool->size = n;
	}
	atomic_store(&pool->growing, false);
	return rc ? NULL : ch;
}

static struct bdev_channel *pick(struct bdev *dev)
{
	struct bdev_pool *pool = &dev->pool;
	unsigned n = atomic_load_explicit(&pool->count, memory_order_acquire);
	struct bdev_channel *least = NULL, *ch;
	unsigned best = UINT_MAX;

	for (unsigned i = 0; i < n; i++) {
		unsigned users;

		ch = atomic_load_explicit(&pool->slot[i], memory_order_relaxed);
		if (take_unused(ch))
			return ch;
		users = atomic_load_explicit(&ch->users, memory_order_relaxed);
		if (users < best) {
			best = users;
			least = ch;
		}
	}
	ch = grow(dev);
	if (ch)
		return ch;
	atomic_fetch_add(&least->users, 1);
	return least;
}

struct bdev_channel *bdev_channel_borrow(struct bdev *dev)
{
	if (last.serial == dev->serial && take_unused(last.ch))
		return last.ch;
	last.ch = pick(dev);
	last.serial = dev->serial;
	return last.ch;
}

void bdev_channel_return(struct bdev_channel *ch)
{
	atomic_fetch_sub(&ch->users, 1);
}
