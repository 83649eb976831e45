/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * overlay: a device that can be written to over one that stays as it is. What is written lies in memory, by units of 512 bytes, and is gone
 * with the overlay; the rest is read from below.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bdev/wrap.h"
#include "bdev/wrapper.h"

#define PAGE 4096u

struct overlay {
	struct wrapper w;
	pthread_mutex_t lock;
	uint64_t size;
	uint8_t *mem;     /* the whole device, of which only what was written takes memory */
	uint8_t *written; /* a bit each 512 bytes */
};

static void *map(uint64_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static bool is_written(const struct overlay *o, uint64_t at)
{
	return o->written[at / 512 / 8] >> (at / 512 % 8) & 1;
}

static bool all_written(const struct overlay *o, uint64_t at, uint64_t len)
{
	for (uint64_t end = at + len; at < end; at += 512)
		if (!is_written(o, at))
			return false;
	return true;
}

/* Into the memory, or, what of it is written, out of it. iovecs are multiples of the block size, so of 512. */
static void copy(struct overlay *o, const struct bdev_io *io, bool in)
{
	uint64_t at = io->offset;

	for (int i = 0; i < io->iovcnt; i++) {
		uint8_t *p = io->iov[i].iov_base;

		for (size_t n = 0; n < io->iov[i].iov_len; n += 512, at += 512) {
			if (in) {
				memcpy(o->mem + at, p + n, 512);
				o->written[at / 512 / 8] |= (uint8_t)(1u << at / 512 % 8);
			} else if (is_written(o, at)) {
				memcpy(p + n, o->mem + at, 512);
			}
		}
	}
}

static void zero(struct overlay *o, uint64_t at, uint64_t len)
{
	memset(o->mem + at, 0, len);
	for (uint64_t end = at + len; at < end; at += 512)
		o->written[at / 512 / 8] |= (uint8_t)(1u << at / 512 % 8);
}

static void came_back(struct bdev_io *io, int rc)
{
	struct wrapped *w = io->cb_arg;
	struct overlay *o = w->ch->dev->priv;

	if (!rc) {
		pthread_mutex_lock(&o->lock);
		copy(o, w->up, false);
		pthread_mutex_unlock(&o->lock);
	}
	wrapper_end(w, rc);
}

/* False: it has to be read from below. */
static bool do_here(struct overlay *o, const struct bdev_io *io)
{
	bool here = true;

	pthread_mutex_lock(&o->lock);
	switch (io->op) {
	case BDEV_READ:
		here = all_written(o, io->offset, io->length);
		if (here)
			copy(o, io, false);
		break;
	case BDEV_WRITE: copy(o, io, true); break;
	case BDEV_WRITE_ZEROES: zero(o, io->offset, io->length); break;
	case BDEV_FLUSH:
	case BDEV_DISCARD: break; /* content undefined: the old one will do */
	}
	pthread_mutex_unlock(&o->lock);
	return here;
}

static bool overlay_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	struct wrapped *w = wrapper_get(ch, io, came_back);

	if (!w) {
		channel_remote_begin(ch);
		channel_done_remote(io, -ENOMEM);
		return true;
	}
	if (do_here(ch->dev->priv, io))
		wrapper_end(w, 0);
	else
		wrapper_down(w);
	return true;
}

static void release(struct overlay *o)
{
	if (o->mem)
		munmap(o->mem, o->size);
	if (o->written)
		munmap(o->written, o->size / 512 / 8 + PAGE);
	pthread_mutex_destroy(&o->lock);
}

static void overlay_close(struct bdev *dev)
{
	release(dev->priv);
	wrapper_close(dev);
}

static const struct bdev_module overlay_module = {
	.name = "overlay",
	.channel_create = wrapper_channel_create_later,
	.submit = overlay_submit,
	WRAPPER_FUNCTIONS,
	.close = overlay_close,
};

/* As wrapper_start, but writable whatever the base is. */
static int start(struct bdev *dev, const struct bdev *base)
{
	struct bdev_opts opts = { .size = sizeof(opts), .flags = base->opts.flags & ~(uint32_t)(BDEV_RDONLY | BDEV_NO_LOCK),
				  .depth = base->opts.depth };
	int rc = bdev_start(dev, &opts);

	if (rc)
		bdev_free(dev);
	return rc;
}

int bdev_overlay_create(struct bdev *base, struct bdev **out)
{
	struct overlay *o = base_calloc(1, sizeof(*o));
	int rc = -ENOMEM;

	if (!o)
		return -ENOMEM;
	pthread_mutex_init(&o->lock, NULL);
	o->size = bdev_info(base)->size;
	o->mem = map(o->size);
	o->written = map(o->size / 512 / 8 + PAGE);
	if (o->mem && o->written)
		rc = wrapper_alloc(&overlay_module, base, &o->w, out);
	if (!rc) {
		(*out)->info.volatile_cache = false;
		(*out)->info.fua = true;
		(*out)->info.discard = (*out)->info.discard_zeroes = false;
		(*out)->info.write_zeroes = true;
		rc = start(*out, base);
	}
	if (!rc)
		return 0;
	release(o);
	free(o);
	return rc;
}
