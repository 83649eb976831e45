/* SPDX-License-Identifier: BSD-2-Clause */
/* Lanes on the block-device port: a channel each; asleep when nothing comes. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/dma.h"
#include "bdev/bdev.h"
#include "tools/nvme/perf.h"

#define NAP_MS 100 /* how soon a lane without completions sees that it is to stop */

struct slot {
	struct bdev_io io;
	struct lane *lane;
	uint64_t began;
};

struct queue {
	struct bdev_channel *ch;
	char *buf;
	unsigned outstanding;
	struct slot slots[];
};

static int open_device(struct perf *p, struct base_err *err)
{
	struct bdev_opts opts = { .size = sizeof(opts),
				  .flags = p->read_percent == 100 ? BDEV_RDONLY : 0,
				  .depth = (uint32_t)p->depth,
				  .channels = 1 };
	struct bdev *dev;
	int rc = bdev_open(p->device, &opts, &dev, err);

	if (rc)
		return rc;
	p->priv = dev;
	p->block_size = bdev_info(dev)->block_size;
	p->device_size = bdev_info(dev)->size;
	return 0;
}

static void close_device(struct perf *p)
{
	bdev_close(p->priv);
}

/* ---- a lane ---- */

static void done(struct bdev_io *io, int rc);

static void submit(struct lane *l, struct slot *s)
{
	struct queue *q = l->priv;
	bool write;
	uint64_t at = lane_place(l, &write);

	bdev_io_init_buf(&s->io, write ? BDEV_WRITE : BDEV_READ,
			 q->buf + (uint64_t)(s - q->slots) * l->p->io_size, at, l->p->io_size, done,
			 s);
	q->outstanding++;
	bdev_submit(q->ch, &s->io);
}

static void done(struct bdev_io *io, int rc)
{
	struct slot *s = io->cb_arg;
	struct queue *q = s->lane->priv;
	uint64_t now = ticks();

	q->outstanding--;
	if (!lane_done(s->lane, io->op == BDEV_WRITE, s->began, now, rc))
		return;
	s->began = now;
	submit(s->lane, s);
}

static void lane_close(struct lane *l)
{
	struct queue *q = l->priv;

	if (!q)
		return;
	if (q->ch)
		bdev_channel_destroy(q->ch);
	dma_free(q->buf);
	free(q);
}

static int lane_open(struct lane *l, struct base_err *err)
{
	uint64_t n = l->p->depth, size = l->p->io_size;
	struct queue *q = l->priv = calloc(1, sizeof(*q) + n * sizeof(q->slots[0]));
	int rc;

	if (q)
		q->buf = dma_alloc(n * size, 4096);
	if (!q || !q->buf)
		return base_err_set(err, -ENOMEM, "out of memory");
	for (uint64_t k = 0; k < n * size / 8; k++)
		((uint64_t *)(void *)q->buf)[k] = (l->random + k) * 0x9e3779b97f4a7c15ull;
	for (uint64_t i = 0; i < n; i++)
		q->slots[i].lane = l;
	rc = bdev_channel_create(l->p->priv, &q->ch);
	return rc ? base_err_set(err, rc, "%s: cannot make a channel: %s", l->p->device,
				 strerror(-rc))
		  : 0;
}

/* One at a time waits as a synchronous caller does. */
static void run_one(struct lane *l)
{
	struct queue *q = l->priv;
	uint64_t began, at;
	bool write;
	int rc;

	do {
		at = lane_place(l, &write);
		began = ticks();
		rc = bdev_io_sync(q->ch, write ? BDEV_WRITE : BDEV_READ, q->buf, at, l->p->io_size,
				  0);
	} while (lane_done(l, write, began, ticks(), rc));
}

static void lane_run(struct lane *l)
{
	struct queue *q = l->priv;
	struct pollfd fd = { .events = POLLIN };

	if (l->p->depth == 1) {
		run_one(l);
		return;
	}
	fd.fd = bdev_channel_fd(q->ch);
	for (uint64_t i = 0; i < l->p->depth; i++) {
		q->slots[i].began = ticks();
		submit(l, &q->slots[i]);
	}
	while (q->outstanding) {
		bdev_kick(q->ch);
		if (!bdev_poll(q->ch))
			poll(&fd, 1, NAP_MS);
	}
}

const struct engine engine_bdev = { open_device, close_device, lane_open, lane_run, lane_close };
