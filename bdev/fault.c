/* SPDX-License-Identifier: BSD-2-Clause */
/* fault: failures on a script, over a device that works. */
#include <errno.h>
#include <stdlib.h>

#include "bdev/wrap.h"
#include "bdev/wrapper.h"

#define OPS (BDEV_WRITE_ZEROES + 1)

struct script {
	struct bdev_fault fault;
	struct script *next;
};

struct fault {
	struct wrapper w;
	pthread_mutex_t lock;
	struct script *scripts; /* in the order they were added: the first that matches counts */
	uint64_t seen[OPS];
};

static bool matches(const struct bdev_fault *f, const struct bdev_io *io)
{
	if (f->op >= 0 && f->op != (int)io->op)
		return false;
	if (!f->hi || io->op == BDEV_FLUSH)
		return !f->hi || f->op == BDEV_FLUSH;
	return io->offset < f->hi && io->offset + io->length > f->lo;
}

/* What is to happen to this I/O; false: nothing. */
static bool look_up(struct fault *d, const struct bdev_io *io, struct bdev_fault *out)
{
	bool found = false;

	pthread_mutex_lock(&d->lock);
	d->seen[io->op]++;
	for (struct script *s = d->scripts; s && !found; s = s->next) {
		struct bdev_fault *f = &s->fault;

		if (!f->count || !matches(f, io))
			continue;
		if (f->first) {
			f->first--;
			continue;
		}
		if (f->count != UINT64_MAX)
			f->count--;
		*out = *f;
		found = true;
	}
	pthread_mutex_unlock(&d->lock);
	return found;
}

static void came_back(struct bdev_io *io, int rc)
{
	struct wrapped *w = io->cb_arg;

	free(w->own);
	wrapper_end(w, rc);
}

/* Leaves the first half of it; false when there is none, or no memory to say so. */
static bool halve(struct wrapped *w)
{
	struct bdev_io *io = &w->io;
	uint64_t half = round_down(io->length / 2, w->ch->dev->info.block_size), left = half;
	struct iovec *iov;
	int n = 0;

	if (io->op == BDEV_FLUSH || !half)
		return false;
	io->length = half;
	if (io->op != BDEV_READ && io->op != BDEV_WRITE)
		return true;
	iov = base_malloc((size_t)io->iovcnt * sizeof(*iov));
	if (!iov)
		return false;
	for (; left; n++) {
		iov[n] = io->iov[n];
		iov[n].iov_len = MIN(iov[n].iov_len, left);
		left -= iov[n].iov_len;
	}
	w->own = iov;
	io->iov = iov;
	io->iovcnt = n;
	return true;
}

static void fail(struct wrapped *w, const struct bdev_fault *f)
{
	bool down = false;

	if (f->delay_ms)
		w->due_ns = wrapper_now() + f->delay_ms * 1000000ull;
	switch (f->kind) {
	case BDEV_FAULT_ERROR:
		w->rc = f->rc;
		break;
	case BDEV_FAULT_TIMEOUT:
		w->rc = -ETIMEDOUT;
		down = f->done;
		break;
	case BDEV_FAULT_SHORT:
		w->rc = f->rc;
		down = halve(w);
		break;
	case BDEV_FAULT_DELAY:
		down = true;
		break;
	}
	if (down)
		wrapper_down(w);
	else
		wrapper_end(w, w->rc);
}

static bool fault_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	struct fault *d = ch->dev->priv;
	struct wrapped *w = wrapper_get(ch, io, came_back);
	struct bdev_fault f;

	if (!w) {
		channel_remote_begin(ch);
		channel_done_remote(io, -ENOMEM);
		return true;
	}
	if (look_up(d, io, &f))
		fail(w, &f);
	else
		wrapper_down(w);
	return true;
}

static void fault_close(struct bdev *dev)
{
	struct fault *d = dev->priv;

	bdev_fault_clear(dev);
	pthread_mutex_destroy(&d->lock);
	wrapper_close(dev);
}

static const struct bdev_module fault_module = {
	.name = "fault",
	.channel_create = wrapper_channel_create_later,
	.submit = fault_submit,
	WRAPPER_FUNCTIONS,
	.close = fault_close,
};

int bdev_fault_create(struct bdev *base, struct bdev **out)
{
	struct fault *d = base_calloc(1, sizeof(*d));
	int rc;

	if (!d)
		return -ENOMEM;
	pthread_mutex_init(&d->lock, NULL);
	rc = wrapper_alloc(&fault_module, base, &d->w, out);
	if (!rc)
		rc = wrapper_start(*out);
	if (rc)
		free(d);
	return rc;
}

int bdev_fault_add(struct bdev *dev, const struct bdev_fault *fault)
{
	struct fault *d = dev->priv;
	struct script *s, **at;

	if (fault->op >= (int)OPS || fault->rc > 0 ||
	    ((fault->kind == BDEV_FAULT_ERROR || fault->kind == BDEV_FAULT_SHORT) && !fault->rc))
		return -EINVAL;
	s = base_malloc(sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->fault = *fault;
	s->next = NULL;
	pthread_mutex_lock(&d->lock);
	for (at = &d->scripts; *at; at = &(*at)->next)
		;
	*at = s;
	pthread_mutex_unlock(&d->lock);
	return 0;
}

void bdev_fault_clear(struct bdev *dev)
{
	struct fault *d = dev->priv;
	struct script *s;

	pthread_mutex_lock(&d->lock);
	while ((s = d->scripts)) {
		d->scripts = s->next;
		free(s);
	}
	pthread_mutex_unlock(&d->lock);
}

uint64_t bdev_fault_seen(struct bdev *dev, int op)
{
	struct fault *d = dev->priv;
	uint64_t n = 0;

	pthread_mutex_lock(&d->lock);
	for (int i = 0; i < (int)OPS; i++)
		if (op < 0 || op == i)
			n += d->seen[i];
	pthread_mutex_unlock(&d->lock);
	return n;
}
