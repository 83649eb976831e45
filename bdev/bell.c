/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A bell: an eventfd that is written at most once between two looks.
 *
 * SILENT → RUNG (whoever makes it RUNG writes the descriptor) → SILENT (bell_quiet has read it). A
 * second ringer that finds RUNG may go: the write is still to come, or not read yet, or was read by
 * one who looks around only after it is SILENT again. While the write is still to come bell_quiet
 * finds nothing to read and leaves it at RUNG, so that no write is ever left unread.
 */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "bdev/internal.h"

enum { SILENT, RUNG };

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

	if (!atomic_compare_exchange_strong(&b->state, &state, RUNG))
		return;
	/* The last one was read before it became SILENT: the counter is 0, the write cannot block.
	 */
	while (write(b->fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void bell_quiet(struct bell *b)
{
	uint64_t n;
	ssize_t got;

	if (atomic_load(&b->state) != RUNG)
		return;
	do {
		got = read(b->fd, &n, sizeof(n));
	} while (got < 0 && errno == EINTR);
	if (got > 0)
		atomic_store(&b->state, SILENT);
}

void bell_wait(struct bell *b)
{
	struct pollfd p = { .fd = b->fd, .events = POLLIN };

	poll(&p, 1, -1);
}
