/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * powercut: records what is written and flushed.
 *
 * Every submission and completion of a write, write-zeroes, discard or flush is an event with a
 * number. The record is complete at any time, under one lock; states are made from it in
 * powercut_state.c. Data are copied when submitted: until its completion a write's buffer must not
 * change anyhow.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/dma.h"
#include "bdev/powercut.h"
#include "bdev/ram.h"

#define COPY_PART (1 * MiB)

/* ---- the base ---- */

static bool all_zero(const char *p, size_t len)
{
	return !*p && !memcmp(p, p + 1, len - 1);
}

/* The base's present content. */
static int read_base(struct powercut *pc, struct medium **out)
{
	struct bdev_channel *ch;
	char *buf;
	int rc;

	*out = ram_medium_copy(pc->w.base);
	if (*out)
		return 0;
	buf = dma_alloc(COPY_PART, 4096);
	rc = buf ? medium_create(pc->size, out) : -ENOMEM;

	if (rc) {
		dma_free(buf);
		return rc;
	}
	ch = bdev_channel_borrow(pc->w.base);
	for (uint64_t at = 0; !rc && at < pc->size; at += COPY_PART) {
		size_t len = MIN(COPY_PART, pc->size - at);

		rc = bdev_io_sync(ch, BDEV_READ, buf, at, len, 0);
		for (size_t i = 0; !rc && i < len; i += 4096) {
			size_t n = MIN(4096ul, len - i);

			if (!all_zero(buf + i, n))
				rc = medium_write(*out, at + i, buf + i, n);
		}
	}
	bdev_channel_return(ch);
	dma_free(buf);
	if (rc)
		medium_free(*out);
	return rc;
}

/* ---- the record ---- */

static int make_room(struct powercut *pc)
{
	size_t room = MAX(2 * pc->room, (size_t)256);
	struct pc_write **p;

	if (pc->nwrites < pc->room)
		return 0;
	p = base_realloc(pc->writes, room * sizeof(struct pc_write *));
	if (!p)
		return -ENOMEM;
	pc->writes = p;
	p = base_realloc(pc->done, room * sizeof(struct pc_write *));
	if (!p)
		return -ENOMEM;
	pc->done = p;
	pc->room = room;
	return 0;
}

static void free_write(struct pc_write *r)
{
	free(r->data);
	free(r);
}

static struct pc_write *copy_write(const struct bdev_io *io)
{
	struct pc_write *r = base_calloc(1, sizeof(*r));
	char *at;

	if (!r)
		return NULL;
	r->offset = io->offset;
	r->length = io->length;
	if (io->op != BDEV_WRITE)
		return r;
	r->fua = io->opts.flags & BDEV_FUA;
	at = r->data = base_malloc(io->length);
	if (!r->data) {
		free(r);
		return NULL;
	}
	for (int i = 0; i < io->iovcnt; i++) {
		memcpy(at, io->iov[i].iov_base, io->iov[i].iov_len);
		at += io->iov[i].iov_len;
	}
	return r;
}

static int record_write(struct powercut *pc, const struct bdev_io *io, struct wrapped *w)
{
	struct pc_write *r = copy_write(io);
	int rc = r ? 0 : -ENOMEM;

	if (rc)
		return rc;
	pthread_mutex_lock(&pc->lock);
	rc = make_room(pc);
	if (!rc) {
		r->fua = r->fua && !pc->lie;
		r->submit = ++pc->events;
		pc->writes[pc->nwrites++] = r;
		w->own = r;
	}
	pthread_mutex_unlock(&pc->lock);
	if (rc)
		free_write(r);
	return rc;
}

static void write_came_back(struct bdev_io *io, int rc)
{
	struct wrapped *w = io->cb_arg;
	struct powercut *pc = w->ch->dev->priv;
	struct pc_write *r = w->own;

	pthread_mutex_lock(&pc->lock);
	pc->events++;
	if (rc) {
		r->failed = pc->events;
	} else {
		r->complete = pc->events;
		pc->done[pc->ndone++] = r;
	}
	pthread_mutex_unlock(&pc->lock);
	wrapper_end(w, rc);
}

static int record_flush(struct powercut *pc, struct wrapped *w)
{
	struct pc_flush *p;
	int rc = 0;

	pthread_mutex_lock(&pc->lock);
	/* Its room is taken now: a completion cannot fail. Those in flight count, too. */
	if (pc->nflushes + pc->flushes_out >= pc->flush_room) {
		size_t room = MAX(2 * pc->flush_room, (size_t)64);

		p = base_realloc(pc->flushes, room * sizeof(*p));
		if (p) {
			pc->flushes = p;
			pc->flush_room = room;
		} else {
			rc = -ENOMEM;
		}
	}
	if (!rc) {
		pc->flushes_out++;
		/* A lie is a flush that was never submitted. */
		w->number = ++pc->events;
		w->generation = pc->generation;
		if (pc->lie)
			w->number = 0;
	}
	pthread_mutex_unlock(&pc->lock);
	return rc;
}

static void flush_came_back(struct bdev_io *io, int rc)
{
	struct wrapped *w = io->cb_arg;
	struct powercut *pc = w->ch->dev->priv;

	pthread_mutex_lock(&pc->lock);
	pc->events++;
	pc->flushes_out--;
	/* One from before a reset says nothing about what was recorded since. */
	if (!rc && w->number && w->generation == pc->generation) {
		uint64_t last = pc->nflushes ? pc->flushes[pc->nflushes - 1].submit : 0;

		pc->flushes[pc->nflushes++] = (struct pc_flush){ pc->events, MAX(w->number, last) };
	}
	pthread_mutex_unlock(&pc->lock);
	wrapper_end(w, rc);
}

static void read_came_back(struct bdev_io *io, int rc)
{
	wrapper_end(io->cb_arg, rc);
}

static bool powercut_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	struct powercut *pc = ch->dev->priv;
	bool flush = io->op == BDEV_FLUSH, read = io->op == BDEV_READ;
	struct wrapped *w = wrapper_get(ch, io,
					read    ? read_came_back
					: flush ? flush_came_back
						: write_came_back);
	int rc = 0;

	if (!w) {
		channel_remote_begin(ch);
		channel_done_remote(io, -ENOMEM);
		return true;
	}
	if (flush)
		rc = record_flush(pc, w);
	else if (!read)
		rc = record_write(pc, io, w);
	if (rc)
		wrapper_end(w, rc);
	else
		wrapper_down(w);
	return true;
}

/* Drops the record but for what is in flight, whose outcome is open from the start. Lock held. */
static void forget(struct powercut *pc)
{
	size_t kept = 0;

	for (size_t i = 0; i < pc->nwrites; i++) {
		struct pc_write *r = pc->writes[i];

		if (r->complete || r->failed) {
			free_write(r);
			continue;
		}
		r->submit = 0;
		pc->writes[kept++] = r;
	}
	pc->nwrites = kept;
	pc->ndone = pc->nflushes = 0;
	pc->generation++;
	pc->events = 0;
	medium_free(pc->rolled.medium);
	pc->rolled.medium = NULL;
}

static void powercut_close(struct bdev *dev)
{
	struct powercut *pc = dev->priv;

	forget(pc);
	medium_free(pc->pristine);
	free(pc->writes);
	free(pc->done);
	free(pc->flushes);
	pthread_mutex_destroy(&pc->lock);
	wrapper_close(dev);
}

static const struct bdev_module powercut_module = {
	.name = "powercut",
	.channel_create = wrapper_channel_create,
	.submit = powercut_submit,
	.close = powercut_close,
	WRAPPER_FUNCTIONS,
};

int bdev_powercut_create(struct bdev *base, struct bdev **out)
{
	struct powercut *pc = base_calloc(1, sizeof(*pc));
	int rc;

	if (!pc)
		return -ENOMEM;
	pthread_mutex_init(&pc->lock, NULL);
	pc->w.base = base;
	pc->size = base->info.size;
	rc = read_base(pc, &pc->pristine);
	if (rc) {
		free(pc);
		return rc;
	}
	rc = wrapper_alloc(&powercut_module, base, &pc->w, out);
	if (!rc) {
		/* Whatever the base is: the point of it. */
		(*out)->info.volatile_cache = true;
		(*out)->info.fua = true;
		rc = wrapper_start(*out);
	}
	if (rc) {
		medium_free(pc->pristine);
		free(pc);
	}
	return rc;
}

uint64_t bdev_powercut_events(struct bdev *dev)
{
	struct powercut *pc = dev->priv;
	uint64_t n;

	pthread_mutex_lock(&pc->lock);
	n = pc->events;
	pthread_mutex_unlock(&pc->lock);
	return n;
}

uint64_t bdev_powercut_mark(struct bdev *dev)
{
	return bdev_powercut_events(dev);
}

int bdev_powercut_reset(struct bdev *dev)
{
	struct powercut *pc = dev->priv;
	struct medium *m;
	int rc;

	/* Under the lock, so that no completion is recorded between the reading and the forgetting.
	 */
	pthread_mutex_lock(&pc->lock);
	rc = read_base(pc, &m);
	if (!rc) {
		forget(pc);
		medium_free(pc->pristine);
		pc->pristine = m;
	}
	pthread_mutex_unlock(&pc->lock);
	return rc;
}

void bdev_powercut_lie(struct bdev *dev, bool lie)
{
	struct powercut *pc = dev->priv;

	pthread_mutex_lock(&pc->lock);
	pc->lie = lie;
	pthread_mutex_unlock(&pc->lock);
}
