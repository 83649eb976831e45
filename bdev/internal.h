/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of bdev share: the table a module fills, devices, channels. */
#ifndef BDEV_INTERNAL_H
#define BDEV_INTERNAL_H

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#include "base/util.h"
#include "bdev/bdev.h"

#define BDEV_MAX_CHANNELS 256
#define BDEV_DEFAULT_DEPTH 128

/*
 * A module: how one kind of device is opened and how its channels work. The port has checked, split
 * and bounced what reaches submit: a READ or WRITE is at most info.max_io long, in at most
 * info.max_iov iovecs, each aligned to info.buffer_align.
 */
struct bdev_module {
	const char *name;
	/* Fills dev->info (all but name, module, readonly) and dev->priv. err gets one line. */
	int (*open)(struct bdev *dev, const struct bdev_opts *opts, struct base_err *err);
	void (*close)(struct bdev *dev);
	/* The device's present size in bytes. NULL: it never changes. */
	int (*size)(struct bdev *dev, uint64_t *size);
	/* In the child of a fork, nothing else running: give up what both processes now hold. May
	 * be NULL. */
	void (*forked)(struct bdev *dev);

	int (*channel_create)(struct bdev_channel *ch);
	/* No I/O is in the module any more. */
	void (*channel_destroy)(struct bdev_channel *ch);

	/* With the channel's lock held. Takes the I/O (true), to be ended by channel_done or
	 * channel_done_remote, or has no room for it now (false). Never blocks. */
	bool (*submit)(struct bdev_channel *ch, struct bdev_io *io);
	/* With the channel's lock held: calls channel_done for what is complete. */
	void (*reap)(struct bdev_channel *ch);
	/* Without the lock, any thread: hands to the device what submit has taken. */
	void (*kick)(struct bdev_channel *ch);
	/* Without the lock, one thread at a time: kicks, then blocks until there is something to
	 * reap or wake was called since the last reap. May return early, or late: at_work. Consumes
	 * nothing: only reap does. */
	void (*wait)(struct bdev_channel *ch);
	/* Without the lock, any thread: makes wait return and the descriptor readable until the
	 * next reap. */
	void (*wake)(struct bdev_channel *ch);
	/* The descriptor of bdev_channel_fd. Called at least once before anybody sleeps on it. */
	int (*fd)(struct bdev_channel *ch);

	/* Whether the device can reach this memory (info.needs_dma). NULL: any. */
	bool (*dma_ok)(const struct bdev *dev, const void *p, size_t len);
	/* NULL: -ENOTSUP. */
	int (*register_mem)(struct bdev *dev, void *base, uint64_t len, uint64_t *handle);
	void (*unregister_mem)(struct bdev *dev, uint64_t handle);
};

/* How names find their module (kinds.c). */
struct bdev_kind {
	const char *prefix; /* "" matches what nothing else does */
	const struct bdev_module *(*module)(const char *name, const struct bdev_opts *opts);
	/* A text that is the same for the same device, "" when it cannot be open already. */
	void (*identify)(const char *name, char *key, size_t len);
};
const struct bdev_kind *bdev_kind_of(const char *name);

struct bdev_pool {
	atomic_uint size;
	atomic_bool growing;
	struct bdev_channel *_Atomic *slot; /* filled from the front, as they are needed */
	atomic_uint count;
};

struct bdev {
	const struct bdev_module *module;
	struct bdev_info info;
	struct bdev_opts opts;
	char *name;
	char key[128];            /* the device's identity among those of this process; "" none */
	uint64_t serial;          /* no two devices of a process share it */
	unsigned refs;            /* under the registry's lock */
	struct bdev *prev, *next; /* the registry's list */
	atomic_bool no_write_zeroes, no_discard; /* the device turned out not to have them */

	pthread_mutex_t lock; /* channel table, statistics of channels that are gone, zero buffer */
	struct bdev_channel *channels[BDEV_MAX_CHANNELS];
	atomic_uint channels_end; /* of those that were ever used */
	struct bdev_stats gone;
	struct bdev_pool pool;
	/* Memory the device reaches for certain. A module that has dma_ok says which. */
	uint64_t dma_base, dma_len;
	void *zeroes; /* of BDEV_ZEROES_LEN bytes once write-zeroes was emulated */
	void *priv;
};

#define BDEV_ZEROES_LEN (64 * KiB)

struct io_list {
	struct bdev_io *head, **tail;
};

/* One that waits for an op while another thread polls. On its stack, in the channel's list. */
struct channel_waiter {
	struct op *op;
	struct channel_waiter *prev, *next;
};

struct bdev_channel {
	struct bdev_channel_head head; /* first */
	struct op_driver driver;
	struct bdev *dev;
	const struct bdev_module *module;
	void *priv;
	atomic_uint users;    /* who borrowed it */
	/* I/Os of the callers: submitted (changed under the lock), and called back. */
	atomic_uint begun, ended;
	atomic_bool fd_used;  /* somebody may sleep on the descriptor */
	atomic_bool kick_due; /* the module would rather have what was submitted now than with more of it */
	bool wait_inline;     /* what takes the kernel long may be done by the thread that waits */
	/* A thread is in module->wait, or about to be: nobody else reaps. Set under the lock,
	 * looked at by wakers without it. */
	atomic_bool poller;
	_Atomic(struct bdev_io *) remote; /* completed by threads of ours: a stack */
	atomic_uint remote_out;           /* given to such threads and not let go of */

	/* For what follows, and the module's submission and reaping; never held while blocking. */
	pthread_mutex_t lock;
	struct io_list queue; /* not taken by the module yet */
	struct io_list done;  /* callbacks to be called */
	unsigned in_module, depth;
	struct channel_waiter *waiters, *last_waiter;
	bool at_work;   /* the poller is in a call of its own in place of a sleep: it misses nothing that others reap meanwhile */
	bool one_waits; /* wait_inline: a waiter runs callbacks */
	struct bdev_stats stats;
	atomic_ullong errors;
};

static inline void io_list_init(struct io_list *l)
{
	l->head = NULL;
	l->tail = &l->head;
}

static inline void io_list_push(struct io_list *l, struct bdev_io *io)
{
	io->next = NULL;
	*l->tail = io;
	l->tail = &io->next;
}

static inline struct bdev_io *io_list_pop(struct io_list *l)
{
	struct bdev_io *io = l->head;

	if (io) {
		l->head = io->next;
		if (!l->head)
			l->tail = &l->head;
	}
	return io;
}

/* ---- channel.c ---- */
int channel_create(struct bdev *dev, struct bdev_channel **out);
void channel_destroy(struct bdev_channel *ch);
/* With the lock held: queues an I/O that passed the checks, or one that failed them. */
static inline void channel_put(struct bdev_channel *ch, struct bdev_io *io)
{
	/* Those that wait longer go first. */
	if (__builtin_expect(!ch->queue.head && ch->in_module < ch->depth && ch->module->submit(ch, io), 1))
		ch->in_module++;
	else
		io_list_push(&ch->queue, io);
}

static inline void channel_put_done(struct bdev_channel *ch, struct bdev_io *io, int rc)
{
	io->rc = rc;
	io_list_push(&ch->done, io);
}

/* Modules, with the lock held: io is complete. */
static inline void channel_done(struct bdev_channel *ch, struct bdev_io *io, int rc)
{
	assert(ch->in_module);
	ch->in_module--;
	channel_put_done(ch, io, rc);
}

/* What a poll may still call back. */
static inline unsigned channel_inflight(struct bdev_channel *ch)
{
	/* In this order: what has ended has begun. */
	unsigned ended = atomic_load(&ch->ended);

	return atomic_load(&ch->begun) - ended;
}

/* Modules, from a thread of their own without the lock. channel_remote_begin was called under the
 * lock when the I/O was given to that thread. */
void channel_remote_begin(struct bdev_channel *ch);
void channel_done_remote(struct bdev_io *io, int rc);
/* Wrappers: module->wait of the channel below, which only the wrapper uses. */
void channel_block(struct bdev_channel *ch);
/* In the child of a fork, with the lock held. */
void channel_forked(struct bdev_channel *ch);

/* ---- port.c ---- */
/* From a poll, without the lock: io has come back from the module. */
void port_complete(struct bdev_io *io);
/* From a poll, without the lock: io of a caller has ended; calls back. */
void port_finish(struct bdev_io *io, int rc);
static inline void port_call_back(struct bdev_io *io, int rc)
{
	atomic_fetch_add_explicit(&io->ch->ended, 1, memory_order_release);
	io->cb(io, rc);
}

/* ---- slow.c ---- */
/* Splits, bounces and emulates. In the submitting thread or in a poll, without the lock. */
void slow_start(struct bdev_io *io);

/* ---- pool.c ---- */
int pool_create(struct bdev *dev);

/* ---- open.c ---- */
/* A device that is in no registry by name: wrappers, states of powercut. */
struct bdev *bdev_alloc(const struct bdev_module *module, const char *name);
int bdev_start(struct bdev *dev, const struct bdev_opts *opts);
void bdev_free(struct bdev *dev);

/* ---- modules ---- */
extern const struct bdev_module ram_module, uring_module, psync_module, nvme_module;
const struct bdev_module *file_choose_module(const char *name, const struct bdev_opts *opts);
void file_identify(const char *name, char *key, size_t len);
const struct bdev_module *ram_choose_module(const char *name, const struct bdev_opts *opts);
void ram_identify(const char *name, char *key, size_t len);
const struct bdev_module *nvme_choose_module(const char *name, const struct bdev_opts *opts);
void nvme_identify_name(const char *name, char *key, size_t len);

/* ---- bell.c: what a poller without a kernel queue sleeps on ---- */
struct bell {
	int fd;
	atomic_uint state;
};
int bell_init(struct bell *b);
void bell_destroy(struct bell *b);
void bell_ring(struct bell *b);  /* any thread */
void bell_quiet(struct bell *b); /* before looking at what it was rung for */
void bell_wait(struct bell *b);  /* until rung */

#endif
