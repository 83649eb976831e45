/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "bdev/wrapper.h"

/* ---- device ---- */

int wrapper_alloc(const struct bdev_module *module, struct bdev *base, struct wrapper *w,
		  struct bdev **out)
{
	struct bdev *dev = bdev_alloc(module, base->name);

	if (!dev)
		return -ENOMEM;
	w->base = base;
	dev->priv = w;
	dev->info = base->info;
	dev->info.name = dev->name;
	dev->info.module = module->name;
	/* A channel of ours is one of the base's; its own pool has some. */
	dev->info.max_channels -= MIN(base->pool.size, dev->info.max_channels - 1);
	*out = dev;
	return 0;
}

int wrapper_start(struct bdev *dev)
{
	struct wrapper *w = dev->priv;
	struct bdev_opts opts = { .size = sizeof(opts),
				  .flags = w->base->opts.flags,
				  .depth = w->base->opts.depth };
	int rc = bdev_start(dev, &opts);

	if (rc)
		bdev_free(dev);
	return rc;
}

void wrapper_close(struct bdev *dev)
{
	struct wrapper *w = dev->priv;

	bdev_close(w->base);
	free(w);
}

int wrapper_size(struct bdev *dev, uint64_t *size)
{
	struct wrapper *w = dev->priv;
	int rc = bdev_resize_check(w->base);

	*size = w->base->info.size;
	return rc;
}

int wrapper_register(struct bdev *dev, void *base, uint64_t len, uint64_t *handle)
{
	struct wrapper *w = dev->priv;

	return bdev_register(w->base, base, len, handle);
}

void wrapper_unregister(struct bdev *dev, uint64_t handle)
{
	struct wrapper *w = dev->priv;

	bdev_unregister(w->base, handle);
}

/* ---- channel ---- */

int wrapper_channel_create(struct bdev_channel *ch)
{
	struct wrapper *w = ch->dev->priv;
	struct wrapper_channel *c = base_calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return -ENOMEM;
	rc = bdev_channel_create(w->base, &c->below);
	if (rc) {
		free(c);
		return rc;
	}
	c->timer = c->epoll = -1;
	ch->priv = c;
	return 0;
}

static int watch(int epoll, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN };

	return fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

int wrapper_channel_create_later(struct bdev_channel *ch)
{
	struct wrapper_channel *c;
	int rc = wrapper_channel_create(ch);

	if (rc)
		return rc;
	c = ch->priv;
	c->epoll = epoll_create1(EPOLL_CLOEXEC);
	c->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	rc = c->epoll < 0 || c->timer < 0 ? -errno : watch(c->epoll, c->timer);
	if (!rc)
		rc = watch(c->epoll, bdev_channel_fd(c->below));
	if (rc)
		wrapper_channel_destroy(ch);
	return rc;
}

void wrapper_channel_destroy(struct bdev_channel *ch)
{
	struct wrapper_channel *c = ch->priv;
	struct wrapped *w;

	bdev_channel_destroy(c->below);
	while ((w = c->free)) {
		c->free = w->next;
		free(w);
	}
	if (c->timer >= 0)
		close(c->timer);
	if (c->epoll >= 0)
		close(c->epoll);
	free(c);
}

struct wrapped *wrapper_get(struct bdev_channel *ch, struct bdev_io *up, bdev_io_cb cb)
{
	struct wrapper_channel *c = ch->priv;
	struct wrapped *w = c->free;

	if (w)
		c->free = w->next;
	else
		w = base_malloc(sizeof(*w));
	if (!w)
		return NULL;
	*w = (struct wrapped){ .up = up, .ch = ch };
	w->io.op = up->op;
	w->io.iov = up->iov;
	w->io.iovcnt = up->iovcnt;
	w->io.offset = up->offset;
	w->io.length = up->length;
	w->io.opts = up->opts;
	w->io.cb = cb;
	w->io.cb_arg = w;
	return w;
}

void wrapper_put(struct wrapped *w)
{
	struct wrapper_channel *c = w->ch->priv;

	w->next = c->free;
	c->free = w;
}

void wrapper_down(struct wrapped *w)
{
	struct wrapper_channel *c = w->ch->priv;

	bdev_submit(c->below, &w->io);
}

/* ---- what ends later ---- */

uint64_t wrapper_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* For the next one due; one that is due at any time needs none. Set anew, the descriptor is quiet
 * until then. */
static void set_timer(struct wrapper_channel *c)
{
	uint64_t due = c->later ? c->later->due_ns : 0;
	struct itimerspec ts = { .it_value = { (time_t)(due / 1000000000),
					       (long)(due % 1000000000) } };

	if (due == c->armed_ns)
		return;
	c->armed_ns = due;
	timerfd_settime(c->timer, TFD_TIMER_ABSTIME, &ts, NULL);
}

void wrapper_end(struct wrapped *w, int rc)
{
	struct wrapper_channel *c = w->ch->priv;
	struct wrapped **at = &c->later;

	if (!w->rc)
		w->rc = rc;
	/* In the order of their times; equal ones in the order they came. */
	while (*at && (*at)->due_ns <= w->due_ns)
		at = &(*at)->next;
	w->next = *at;
	*at = w;
	if (c->later == w)
		set_timer(c);
}

static void end_due(struct bdev_channel *ch)
{
	struct wrapper_channel *c = ch->priv;
	struct wrapped *w = c->later;
	uint64_t now;

	if (!w)
		return;
	now = w->due_ns ? wrapper_now() : 0;
	while ((w = c->later) && w->due_ns <= now) {
		c->later = w->next;
		channel_done(ch, w->up, w->rc);
		wrapper_put(w);
	}
	set_timer(c);
}

/* ---- polling ---- */

void wrapper_reap(struct bdev_channel *ch)
{
	struct wrapper_channel *c = ch->priv;

	bdev_poll(c->below);
	end_due(ch);
}

/* Something ended that never went down: nothing below will tell. */
static bool ended_here(struct bdev_channel *ch)
{
	struct wrapper_channel *c = ch->priv;
	bool yes;

	pthread_mutex_lock(&ch->lock);
	yes = c->later && !c->later->due_ns;
	pthread_mutex_unlock(&ch->lock);
	return yes;
}

void wrapper_wake(struct bdev_channel *ch)
{
	struct wrapper_channel *c = ch->priv;

	c->below->module->wake(c->below);
}

void wrapper_kick(struct bdev_channel *ch)
{
	struct wrapper_channel *c = ch->priv;

	bdev_kick(c->below);
	if ((atomic_load(&ch->poller) || atomic_load(&ch->fd_used)) && ended_here(ch))
		wrapper_wake(ch);
}

void wrapper_wait(struct bdev_channel *ch)
{
	struct wrapper_channel *c = ch->priv;
	struct epoll_event ev;

	if (ended_here(ch))
		return;
	if (c->epoll < 0) {
		channel_block(c->below);
		return;
	}
	bdev_kick(c->below);
	epoll_wait(c->epoll, &ev, 1, -1);
}

int wrapper_fd(struct bdev_channel *ch)
{
	struct wrapper_channel *c = ch->priv;

	return c->epoll >= 0 ? c->epoll : bdev_channel_fd(c->below);
}
