/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A channel: a lock and a queue.
 *
 * Who reaps. The thread that blocks in the module (the poller) is the only one to reap until it is
 * back, so that neither a completion nor a wake can be consumed between its last look and its
 * sleep. Others that wait sleep on their op's word, in the list of waiters; the engine of ops wakes
 * the one whose op ended.
 *
 * Who polls next. A waiter enters the list only while there is a poller. Whoever leaves a wait
 * while there is none nudges the first of the list whose op has not ended, which then takes over. So
 * there is always a poller, or a thread on its way to become one or to nudge one. A nudged waiter whose
 * op ended meanwhile leaves too, and nudges the next. One whose op had ended before may not be awake for
 * long: those that sleep together are woken at the end of the poll that ended their ops.
 *
 * Where waiting is work (bdev_channel_wait_inline), who runs callbacks counts as the poller too: the others would only find nothing to do.
 *
 * Who wakes the poller. It sets `poller`, then looks once more at what others may have done (its
 * op, the driver's ready list, the remote list), then blocks. They do it first and look at `poller`
 * afterwards. Both in the order of sequential consistency: one of the two sees the other.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "bdev/internal.h"

static void channel_wait(struct op_driver *driver, struct op *op);
static void channel_wake(struct op_driver *driver);

static unsigned take_index(struct bdev *dev, struct bdev_channel *ch)
{
	unsigned i, n = MIN(dev->info.max_channels, (uint32_t)BDEV_MAX_CHANNELS);

	pthread_mutex_lock(&dev->lock);
	for (i = 0; i < n && dev->channels[i]; i++)
		;
	if (i < n) {
		ch->head.index = i;
		dev->channels[i] = ch;
		if (i >= atomic_load(&dev->channels_end))
			atomic_store(&dev->channels_end, i + 1);
	}
	pthread_mutex_unlock(&dev->lock);
	return i < n ? 0 : 1;
}

static void give_index(struct bdev_channel *ch)
{
	struct bdev *dev = ch->dev;

	pthread_mutex_lock(&dev->lock);
	dev->channels[ch->head.index] = NULL;
	dev->gone.reads += ch->stats.reads;
	dev->gone.read_bytes += ch->stats.read_bytes;
	dev->gone.writes += ch->stats.writes;
	dev->gone.write_bytes += ch->stats.write_bytes;
	dev->gone.zero_bytes += ch->stats.zero_bytes;
	dev->gone.flushes += ch->stats.flushes;
	dev->gone.discards += ch->stats.discards;
	dev->gone.errors += atomic_load(&ch->errors);
	pthread_mutex_unlock(&dev->lock);
}

static void channel_init(struct bdev_channel *ch, struct bdev *dev)
{
	ch->driver.wait = channel_wait;
	ch->driver.wake = channel_wake;
	ch->dev = dev;
	ch->module = dev->module;
	ch->depth = dev->opts.depth;
	pthread_mutex_init(&ch->lock, NULL);
	io_list_init(&ch->queue);
	io_list_init(&ch->done);
}

int channel_create(struct bdev *dev, struct bdev_channel **out)
{
	struct bdev_channel *ch = base_calloc(1, sizeof(*ch));
	int rc;

	if (!ch)
		return -ENOMEM;
	channel_init(ch, dev);
	rc = ch->module->channel_create(ch);
	if (!rc && take_index(dev, ch)) {
		ch->module->channel_destroy(ch);
		rc = -ENOSPC;
	}
	if (rc) {
		pthread_mutex_destroy(&ch->lock);
		free(ch);
		return rc;
	}
	*out = ch;
	return 0;
}

static void nap(void)
{
	struct timespec ts = { .tv_nsec = 50000 };

	nanosleep(&ts, NULL);
}

/* Waits for the channel's own I/O; nobody else uses it any more. */
static void drain(struct bdev_channel *ch)
{
	while (bdev_poll(ch) || channel_inflight(ch)) {
		if (!channel_inflight(ch))
			continue;
		if (atomic_load(&ch->poller))
			nap();
		else
			channel_block(ch);
	}
	/* The last I/O may be back before the thread that ended it has let go of the channel. */
	while (atomic_load(&ch->remote_out))
		nap();
}

void channel_destroy(struct bdev_channel *ch)
{
	drain(ch);
	assert(!ch->waiters);
	give_index(ch);
	ch->module->channel_destroy(ch);
	pthread_mutex_destroy(&ch->lock);
	free(ch);
}

void channel_remote_begin(struct bdev_channel *ch)
{
	atomic_fetch_add(&ch->remote_out, 1);
}

void channel_done_remote(struct bdev_io *io, int rc)
{
	struct bdev_channel *ch = io->ch;
	struct bdev_io *head = atomic_load(&ch->remote);

	io->rc = rc;
	do {
		io->next = head;
	} while (!atomic_compare_exchange_weak(&ch->remote, &head, io));
	/* The I/O may be gone from here on, the channel not before remote_out is down. */
	channel_wake(&ch->driver);
	atomic_fetch_sub(&ch->remote_out, 1);
}

static void take_remote(struct bdev_channel *ch)
{
	struct bdev_io *io, *next, *oldest = NULL;

	if (!atomic_load_explicit(&ch->remote, memory_order_relaxed))
		return;
	for (io = atomic_exchange(&ch->remote, NULL); io; io = next) {
		next = io->next;
		io->next = oldest;
		oldest = io;
	}
	for (io = oldest; io; io = next) {
		next = io->next;
		channel_done(ch, io, io->rc);
	}
}

/* With the lock held: what is complete, unless the poller sleeps for it, and new I/O in its place. */
static struct bdev_io *gather(struct bdev_channel *ch)
{
	struct bdev_io *done;

	if (!atomic_load_explicit(&ch->poller, memory_order_relaxed) || ch->at_work)
		ch->module->reap(ch);
	take_remote(ch);
	while (ch->queue.head && ch->in_module < ch->depth) {
		struct bdev_io *io = io_list_pop(&ch->queue);

		if (!ch->module->submit(ch, io)) {
			io->next = ch->queue.head;
			if (!ch->queue.head)
				ch->queue.tail = &io->next;
			ch->queue.head = io;
			break;
		}
		ch->in_module++;
	}
	done = ch->done.head;
	io_list_init(&ch->done);
	return done;
}

static int call_back(struct bdev_io *done)
{
	int n = 0;

	while (done) {
		struct bdev_io *io = done;

		done = io->next;
		if (__builtin_expect(!io->rc && !io->parent, 1))
			port_call_back(io, 0);
		else
			port_complete(io);
		n++;
	}
	return n;
}

int bdev_poll(struct bdev_channel *ch)
{
	struct bdev_io *done;
	int n;

	op_poll_enter();
	pthread_mutex_lock(&ch->lock);
	done = gather(ch);
	pthread_mutex_unlock(&ch->lock);
	n = call_back(done);
	n += op_poll_leave(&ch->driver);
	ch->module->kick(ch);
	return n;
}

void bdev_kick(struct bdev_channel *ch)
{
	bool done;

	ch->module->kick(ch);
	pthread_mutex_lock(&ch->lock);
	done = ch->done.head;
	pthread_mutex_unlock(&ch->lock);
	if (done)
		channel_wake(&ch->driver);
}

static void channel_wake(struct op_driver *driver)
{
	struct bdev_channel *ch = container_of(driver, struct bdev_channel, driver);

	if (atomic_load(&ch->poller) || atomic_load(&ch->fd_used))
		ch->module->wake(ch);
}

/* The poller's last look. */
static bool nothing_came(struct bdev_channel *ch)
{
	return !atomic_load(&ch->remote) && !atomic_load(&ch->driver.ready);
}

static bool op_here(struct bdev_channel *ch, struct op *op)
{
	/* Not op_is_done: this load has its place in the order described above. */
	return atomic_load(&op->state) != OP_DONE && atomic_load(&op->driver) == &ch->driver;
}

void channel_block(struct bdev_channel *ch)
{
	bool sleep;

	pthread_mutex_lock(&ch->lock);
	atomic_store(&ch->poller, true);
	sleep = nothing_came(ch) && !ch->done.head;
	pthread_mutex_unlock(&ch->lock);
	if (sleep)
		ch->module->wait(ch);
	pthread_mutex_lock(&ch->lock);
	atomic_store(&ch->poller, false);
	pthread_mutex_unlock(&ch->lock);
}

/* Another thread polls: sleeps until op has ended, moved, or it is our turn to poll. Lock held. */
static void sleep_beside(struct bdev_channel *ch, struct op *op)
{
	struct channel_waiter w = { .op = op, .prev = ch->last_waiter };

	if (w.prev)
		w.prev->next = &w;
	else
		ch->waiters = &w; /* cppcheck-suppress autoVariables ; taken out below */
	ch->last_waiter = &w;     /* cppcheck-suppress autoVariables */
	pthread_mutex_unlock(&ch->lock);

	ch->module->kick(ch);
	op_sleep(op, &ch->driver);

	pthread_mutex_lock(&ch->lock);
	if (w.prev)
		w.prev->next = w.next;
	else
		ch->waiters = w.next;
	if (w.next)
		w.next->prev = w.prev;
	else
		ch->last_waiter = w.prev;
}

/* No completion is at hand, nobody polls. Lock held. */
static void block(struct bdev_channel *ch, struct op *op)
{
	atomic_store(&ch->poller, true);
	if (nothing_came(ch) && op_here(ch, op)) {
		pthread_mutex_unlock(&ch->lock);
		ch->module->wait(ch);
		pthread_mutex_lock(&ch->lock);
	}
	atomic_store(&ch->poller, false);
}

/* Nobody polls: the first that still has to wait takes over. Lock held. */
static void nudge_next(struct bdev_channel *ch)
{
	struct channel_waiter *w = ch->waiters;

	while (w && !op_here(ch, w->op))
		w = w->next;
	if (w)
		op_nudge(w->op);
}

static void channel_wait(struct op_driver *driver, struct op *op)
{
	struct bdev_channel *ch = container_of(driver, struct bdev_channel, driver);
	bool left;

	pthread_mutex_lock(&ch->lock);
	while (op_here(ch, op)) {
		struct bdev_io *done;

		if (ch->one_waits) {
			sleep_beside(ch, op);
			continue;
		}
		done = gather(ch);
		if (done || atomic_load(&driver->ready)) {
			ch->one_waits = ch->wait_inline;
			pthread_mutex_unlock(&ch->lock);
			op_poll_enter();
			call_back(done);
			op_poll_leave(driver);
			pthread_mutex_lock(&ch->lock);
			ch->one_waits = false;
		} else if (atomic_load_explicit(&ch->poller, memory_order_relaxed)) {
			sleep_beside(ch, op);
		} else {
			block(ch, op);
		}
	}
	if (!ch->one_waits && !atomic_load_explicit(&ch->poller, memory_order_relaxed))
		nudge_next(ch);
	left = ch->done.head;
	pthread_mutex_unlock(&ch->lock);
	/* What callbacks of ours queued must not wait for the next poller, nor what ended at once for one who sleeps on the descriptor. */
	ch->module->kick(ch);
	if (left)
		channel_wake(driver);
}

void channel_forked(struct bdev_channel *ch)
{
	io_list_init(&ch->queue);
	io_list_init(&ch->done);
	atomic_store(&ch->driver.ready, NULL);
	atomic_store(&ch->remote, NULL);
	atomic_store(&ch->remote_out, 0);
	atomic_store(&ch->ended, atomic_load(&ch->begun));
	atomic_store(&ch->poller, false);
	ch->one_waits = ch->at_work = false;
	ch->in_module = 0;
	ch->waiters = ch->last_waiter = NULL;
	ch->module = ch->dev->module;
}

/* ---- a channel of one's own ---- */

int bdev_channel_create(struct bdev *dev, struct bdev_channel **out)
{
	return channel_create(dev, out);
}

void bdev_channel_destroy(struct bdev_channel *ch)
{
	channel_destroy(ch);
}

struct bdev *bdev_channel_bdev(struct bdev_channel *ch)
{
	return ch->dev;
}

struct op_driver *bdev_channel_driver(struct bdev_channel *ch)
{
	return &ch->driver;
}

int bdev_channel_fd(struct bdev_channel *ch)
{
	atomic_store(&ch->fd_used, true);
	return ch->module->fd(ch);
}

void bdev_channel_wait_inline(struct bdev_channel *ch)
{
	ch->wait_inline = true;
	ch->driver.together = true;
}

uint32_t bdev_channel_inflight(struct bdev_channel *ch)
{
	return channel_inflight(ch);
}

unsigned bdev_channels_end(const struct bdev *dev)
{
	return atomic_load(&dev->channels_end);
}
