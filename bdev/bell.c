/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A bell: an eventfd that is written at most once between two looks.
 *
 * SILENT → RINGING (a ringer writes the descriptor) → RUNG → SILENT (bell_quiet has read it). A second ringer
 * that finds RINGING or RUNG may go: whoever looks does so after bell_quiet, and so sees what was done before
 * ringing, or finds the descriptor readable again. In RINGING bell_quiet leaves the descriptor
 * alone, since the write may still be to come.
 */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "bdev/internal.h"

enum { SILENT, RINGING, RUNG };

int bell_init(struct bell *b)
{
	atomic_init(&b->state, SILENT);
	b->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return b->fd < 0 ? -errno : 0;
}

void bell_destroy(struct bell *b)
{
	close(b->fd);
}

void bell_ring(struct bell *b)
{
	unsigned state = SILENT;
	uint64_t one = 1;

	if (!atomic_compare_exchange_strong(&b->state, &state, RINGING))
		return;
	/* It was read before it became SILENT, so that the counter is far from full. */
	while (write(b->fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	atomic_store(&b->state, RUNG);
}

void bell_quiet(struct bell *b)
{
	unsigned state = RUNG;
	uint64_t n;

	if (atomic_load(&b->state) != RUNG)
		return;
	/* Read first: a ringer that comes before SILENT needs no write, we look afterwards. */
	while (read(b->fd, &n, sizeof(n)) < 0 && errno == EINTR)
		;
	atomic_compare_exchange_strong(&b->state, &state, SILENT);
}

void bell_wait(struct bell *b)
{
	struct pollfd p = { .fd = b->fd, .events = POLLIN };

	poll(&p, 1, -1);
}
