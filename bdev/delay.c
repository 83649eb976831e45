/* SPDX-License-Identifier: BSD-2-Clause */
/* delay: a device of a given latency and rate, over a faster one. */
#include <errno.h>
#include <stdlib.h>

#include "bdev/wrap.h"
#include "bdev/wrapper.h"

struct delay {
	struct wrapper w;
	uint64_t latency_ns, interval_ns;
	atomic_ullong next_ns; /* when the device is free for one more */
};

/* The turn of an I/O that comes now. */
static uint64_t take_turn(struct delay *d, uint64_t now)
{
	unsigned long long next = atomic_load(&d->next_ns), turn;

	do {
		turn = MAX(next, now);
	} while (!atomic_compare_exchange_weak(&d->next_ns, &next, turn + d->interval_ns));
	return turn;
}

static void came_back(struct bdev_io *io, int rc)
{
	wrapper_end(io->cb_arg, rc);
}

static bool delay_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	struct delay *d = ch->dev->priv;
	struct wrapped *w = wrapper_get(ch, io, came_back);

	if (!w) {
		channel_remote_begin(ch);
		channel_done_remote(io, -ENOMEM);
		return true;
	}
	w->due_ns = take_turn(d, wrapper_now()) + d->latency_ns;
	wrapper_down(w);
	return true;
}

static const struct bdev_module delay_module = {
	.name = "delay",
	.close = wrapper_close,
	.channel_create = wrapper_channel_create_later,
	.submit = delay_submit,
	WRAPPER_FUNCTIONS,
};

int bdev_delay_create(struct bdev *base, uint32_t latency_us, uint32_t max_iops, struct bdev **out)
{
	struct delay *d = base_calloc(1, sizeof(*d));
	int rc;

	if (!d)
		return -ENOMEM;
	d->latency_ns = latency_us * 1000ull;
	d->interval_ns = max_iops ? 1000000000ull / max_iops : 0;
	rc = wrapper_alloc(&delay_module, base, &d->w, out);
	if (!rc)
		rc = wrapper_start(*out);
	if (rc)
		free(d);
	return rc;
}
