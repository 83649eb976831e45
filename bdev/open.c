/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Devices of this process: opening, counting, closing, and what a fork leaves of them.
 *
 * One list holds all of them, also wrappers, under one lock. Opening happens under it, so that the
 * same device opened by two threads at once is one. Closing drains without it, the device staying
 * in the list with no references: who opens it then waits for `gone`. A fork takes the lock, so
 * that the child finds the list whole.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/dma.h"
#include "bdev/internal.h"

#define SHARED_FLAGS (BDEV_RDONLY | BDEV_BUFFERED | BDEV_PSYNC)

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gone = PTHREAD_COND_INITIALIZER;
static struct bdev *registry;
static uint64_t last_serial;

/* ---- the child of a fork ---- */

static bool dead_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	channel_remote_begin(ch);
	channel_done_remote(io, -ENODEV);
	return true;
}

static void dead_channel(struct bdev_channel *ch)
{
	(void)ch;
}

/* Nothing will ever come: no reason to burn a processor over it. */
static void dead_wait(struct bdev_channel *ch)
{
	struct timespec ts = { .tv_nsec = 10000000 };

	(void)ch;
	nanosleep(&ts, NULL);
}

static int dead_create(struct bdev_channel *ch)
{
	(void)ch;
	return -ENODEV;
}

static int dead_fd(struct bdev_channel *ch)
{
	(void)ch;
	return -ENODEV;
}

static void dead_close(struct bdev *dev)
{
	(void)dev;
}

static int dead_size(struct bdev *dev, uint64_t *size)
{
	(void)dev;
	(void)size;
	return -ENODEV;
}

static const struct bdev_module dead_module = {
	.name = "dead",
	.close = dead_close,
	.size = dead_size,
	.channel_create = dead_create,
	.channel_destroy = dead_channel,
	.submit = dead_submit,
	.reap = dead_channel,
	.kick = dead_channel,
	.wait = dead_wait,
	.wake = dead_channel,
	.fd = dead_fd,
};

/* All locks, so that the child finds everything whole. Newer devices first: a wrapper's lock comes
 * before its base's. */
static void before_fork(void)
{
	pthread_mutex_lock(&registry_lock);
	for (struct bdev *d = registry; d; d = d->next) {
		pthread_mutex_lock(&d->lock);
		for (unsigned i = 0; i < BDEV_MAX_CHANNELS; i++)
			if (d->channels[i])
				pthread_mutex_lock(&d->channels[i]->lock);
	}
}

static void unlock_all(void)
{
	for (struct bdev *d = registry; d; d = d->next) {
		for (unsigned i = 0; i < BDEV_MAX_CHANNELS; i++)
			if (d->channels[i])
				pthread_mutex_unlock(&d->channels[i]->lock);
		pthread_mutex_unlock(&d->lock);
	}
	pthread_mutex_unlock(&registry_lock);
}

static void after_fork_child(void)
{
	for (struct bdev *d = registry; d; d = d->next) {
		if (d->module->forked)
			d->module->forked(d);
		d->module = &dead_module;
		d->key[0] = '\0';
		for (unsigned i = 0; i < BDEV_MAX_CHANNELS; i++)
			if (d->channels[i])
				channel_forked(d->channels[i]);
	}
	pthread_cond_init(&gone, NULL);
	unlock_all();
}

static void watch_forks(void)
{
	pthread_atfork(before_fork, unlock_all, after_fork_child);
}

/* ---- the list ---- */

static void enlist(struct bdev *dev)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, watch_forks);
	dev->serial = ++last_serial;
	dev->next = registry;
	if (registry)
		registry->prev = dev;
	registry = dev;
}

static void delist(struct bdev *dev)
{
	if (dev->prev)
		dev->prev->next = dev->next;
	else
		registry = dev->next;
	if (dev->next)
		dev->next->prev = dev->prev;
}

static struct bdev *find_listed(const char *key)
{
	struct bdev *dev = *key ? registry : NULL;

	while (dev && strcmp(dev->key, key))
		dev = dev->next;
	return dev;
}

/* The open device of this key; waits for one that is being closed. */
static struct bdev *find(const char *key)
{
	struct bdev *dev;

	while ((dev = find_listed(key)) && !dev->refs)
		pthread_cond_wait(&gone, &registry_lock);
	return dev;
}

/* ---- making and freeing ---- */

struct bdev *bdev_alloc(const struct bdev_module *module, const char *name)
{
	struct bdev *dev = base_calloc(1, sizeof(*dev));

	if (!dev)
		return NULL;
	dev->name = base_strdup(name);
	if (!dev->name) {
		free(dev);
		return NULL;
	}
	pthread_mutex_init(&dev->lock, NULL);
	dev->module = module;
	dev->dma_len = UINT64_MAX;
	dev->refs = 1;
	dev->info.name = dev->name;
	dev->info.module = module->name;
	return dev;
}

void bdev_free(struct bdev *dev)
{
	dma_free(dev->zeroes);
	free((void *)dev->pool.slot);
	pthread_mutex_destroy(&dev->lock);
	free(dev->name);
	free(dev);
}

static void default_opts(struct bdev *dev, const struct bdev_opts *opts)
{
	if (opts)
		memcpy(&dev->opts, opts, MIN(opts->size, sizeof(*opts)));
	dev->opts.size = sizeof(dev->opts);
	if (dev->opts.flags & BDEV_NO_LOCK)
		dev->opts.flags |= BDEV_RDONLY;
	dev->opts.channels = MIN(dev->opts.channels, (uint32_t)BDEV_MAX_CHANNELS);
	if (!dev->opts.depth)
		dev->opts.depth = BDEV_DEFAULT_DEPTH;
	dev->opts.depth = MIN(dev->opts.depth, 4096u);
}

static int start(struct bdev *dev)
{
	int rc;

	dev->info.readonly = dev->opts.flags & BDEV_RDONLY;
	enlist(dev);
	rc = pool_create(dev);
	if (rc)
		delist(dev);
	return rc;
}

int bdev_start(struct bdev *dev, const struct bdev_opts *opts)
{
	int rc;

	default_opts(dev, opts);
	pthread_mutex_lock(&registry_lock);
	rc = start(dev);
	pthread_mutex_unlock(&registry_lock);
	return rc;
}

static int open_new(const char *name, const struct bdev_kind *kind, const char *key,
		    const struct bdev_opts *opts, struct bdev **out, struct base_err *err)
{
	struct bdev *dev = bdev_alloc(kind->module(name, opts), name);
	int rc;

	if (!dev)
		return base_err_set(err, -ENOMEM, "%s: out of memory", name);
	default_opts(dev, opts);
	rc = dev->module->open(dev, &dev->opts, err);
	if (rc) {
		bdev_free(dev);
		return rc;
	}
	/* The file may have been made just now. */
	if (!(dev->opts.flags & BDEV_NO_LOCK)) {
		if (*key)
			strcpy(dev->key, key);
		else
			kind->identify(name, dev->key, sizeof(dev->key));
	}
	rc = start(dev);
	if (rc) {
		dev->module->close(dev);
		bdev_free(dev);
		return base_err_set(err, rc, "%s: cannot make a channel: %s", name, strerror(-rc));
	}
	*out = dev;
	return 0;
}

static int open_locked(const char *name, const struct bdev_opts *opts, struct bdev **out,
		       struct base_err *err)
{
	const struct bdev_kind *kind = bdev_kind_of(name);
	uint32_t flags = opts ? opts->flags : 0;
	char key[sizeof((*out)->key)] = "";
	struct bdev *dev = NULL;

	/* Who looks on without the lock has a device of its own. */
	if (!(flags & BDEV_NO_LOCK)) {
		kind->identify(name, key, sizeof(key));
		dev = find(key);
	}
	if (!dev)
		return open_new(name, kind, key, opts, out, err);
	if ((dev->opts.flags ^ flags) & SHARED_FLAGS)
		return base_err_set(err, -EBUSY,
				    "%s: already open in this process with other options", name);
	dev->refs++;
	*out = dev;
	return 0;
}

int bdev_open(const char *name, const struct bdev_opts *opts, struct bdev **out,
	      struct base_err *err)
{
	int rc;

	if (err)
		err->text[0] = '\0';
	if (!name || !*name)
		return base_err_set(err, -EINVAL, "the device's name is empty");
	pthread_mutex_lock(&registry_lock);
	rc = open_locked(name, opts, out, err);
	pthread_mutex_unlock(&registry_lock);
	return rc;
}

void bdev_ref(struct bdev *dev)
{
	pthread_mutex_lock(&registry_lock);
	dev->refs++;
	pthread_mutex_unlock(&registry_lock);
}

void bdev_close(struct bdev *dev)
{
	const struct bdev_module *module;
	bool last;

	pthread_mutex_lock(&registry_lock);
	last = !--dev->refs;
	pthread_mutex_unlock(&registry_lock);
	if (!last)
		return;
	for (unsigned i = 0; i < BDEV_MAX_CHANNELS; i++)
		if (dev->channels[i])
			channel_destroy(dev->channels[i]);
	pthread_mutex_lock(&registry_lock);
	/* A fork from here on must not give up what is half closed. */
	module = dev->module;
	dev->module = &dead_module;
	pthread_mutex_unlock(&registry_lock);
	module->close(dev);
	pthread_mutex_lock(&registry_lock);
	delist(dev);
	pthread_cond_broadcast(&gone);
	pthread_mutex_unlock(&registry_lock);
	bdev_free(dev);
}

/* ---- asking ---- */

const struct bdev_info *bdev_info(const struct bdev *dev)
{
	return &dev->info;
}

int bdev_resize_check(struct bdev *dev)
{
	uint64_t size;
	int rc;

	if (!dev->module->size)
		return 0;
	rc = dev->module->size(dev, &size);
	if (rc)
		return rc;
	size = round_down(size, dev->info.block_size);
	__atomic_store_n(&dev->info.size, size, __ATOMIC_RELAXED);
	return 0;
}

int bdev_register(struct bdev *dev, void *base, uint64_t len, uint64_t *handle)
{
	if (!dev->module->register_mem)
		return -ENOTSUP;
	return dev->module->register_mem(dev, base, len, handle);
}

void bdev_unregister(struct bdev *dev, uint64_t handle)
{
	if (handle && dev->module->unregister_mem)
		dev->module->unregister_mem(dev, handle);
}

void bdev_get_stats(const struct bdev *dev, struct bdev_stats *out)
{
	struct bdev *d = (struct bdev *)dev;

	pthread_mutex_lock(&d->lock);
	*out = d->gone;
	for (unsigned i = 0; i < BDEV_MAX_CHANNELS; i++) {
		struct bdev_channel *ch = d->channels[i];

		if (!ch)
			continue;
		pthread_mutex_lock(&ch->lock);
		out->reads += ch->stats.reads;
		out->read_bytes += ch->stats.read_bytes;
		out->writes += ch->stats.writes;
		out->write_bytes += ch->stats.write_bytes;
		out->zero_bytes += ch->stats.zero_bytes;
		out->flushes += ch->stats.flushes;
		out->discards += ch->stats.discards;
		pthread_mutex_unlock(&ch->lock);
		out->errors += atomic_load(&ch->errors);
	}
	pthread_mutex_unlock(&d->lock);
}
