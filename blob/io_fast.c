/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads of one run, and writes over one run in place: nearly all data I/O there is. Such a request is one look at the map and one device
 * I/O on the caller's iovecs: no op, no memory, no lock, no division. Whatever is not so goes the general way, which begins anew.
 *
 * It is inside an epoch from its look at the map until its device I/O is done, so what it reads or overwrites is not given to anybody
 * else meanwhile (R3). The look itself takes no lock while nobody changes maps (epoch.h).
 *
 * What asks for more than the bytes, such as a checksum, has a run flag that is not named here, and is sent the general way by it; so
 * is a range that bytes are carried in the log for, be it a single block of it. What is wrong with the iovecs the device port sees, and
 * refuses with the error that is due; so it is not looked for twice.
 */
#include <stdatomic.h>

#include "blob/epoch.h"
#include "blob/io.h"
#include "blob/lookup.h"
#include "blob/mutation.h"

/* ---- the end ---- */

static inline struct bs_io *io_of(struct bdev_io *dev)
{
	return container_of(container_of(dev, struct io_req, own[0]), struct bs_io, priv);
}

/* noinline: what is seldom is kept out of functions that can so do without saving registers. */
#define SELDOM __attribute__((noinline, cold))

SELDOM static void end_for_waiters(struct bs_io *io, int rc)
{
	bs_epoch_end_waiters(io_req(io)->epochs);
	io->cb(io, rc);
}

static inline void leave_and_end(struct bs_io *io, int rc)
{
	struct io_req *r = io_req(io);

	atomic_fetch_sub(&r->count->inside, 1);
	if (__builtin_expect(atomic_load(&r->epochs->n_waiting), 0))
		end_for_waiters(io, rc);
	else
		io->cb(io, rc);
}

static void read_done(struct bdev_io *dev, int rc)
{
	struct bs_io *io = io_of(dev);

	atomic_fetch_add_explicit(&io_req(io)->count->read_bytes, io->length, memory_order_relaxed);
	leave_and_end(io, rc);
}

static void write_done(struct bdev_io *dev, int rc)
{
	struct bs_io *io = io_of(dev);

	if (!(io->flags & BS_IO_DURABLE))
		bs_log_data_written(io->blob->bs);
	bs_count_written(io_req(io)->count, io->stream, io->length);
	if (io->reserved)
		bs_space_unreserve(io->blob->bs, io->reserved);
	io->reserved = 0;
	leave_and_end(io, io_device_rc(io->blob->bs, rc));
}

/* ---- the look ---- */

/* Where on the device the bytes are, if they are in this run and it has no other flags than these. */
static inline bool place_in(const struct bs_run *run, const struct bs_io *io, unsigned flags, uint64_t *at)
{
	uint64_t in = io->offset / BS_BLOCK - run->logical;

	*at = (bs_run_phys(run) + in) * BS_BLOCK;
	return __builtin_expect(in < run->count && io->length / BS_BLOCK <= run->count - in && !(run->flags & ~flags), 1);
}

/* Are bytes of it carried in the log? */
static inline bool is_carried(const struct bs_io *io)
{
	return __builtin_expect(!RB_EMPTY(&io->blob->carried), 0) && !BS_MUTATE(carried_fast) &&
	       bs_carried_any(io->blob, io->offset / BS_BLOCK, io->length / BS_BLOCK);
}

/* The same in any run; 0, a superblock's place, if there is none. */
static uint64_t place(const struct bs_io *io)
{
	const struct bs_run *run = bs_runmap_at(&io->blob->map, io->offset / BS_BLOCK);
	uint64_t at;

	if (!run || (io->op == BS_WRITE && io->blob->sharers) || is_carried(io))
		return 0;
	return place_in(run, io, io->op == BS_WRITE ? 0 : BS_RUN_SHARED, &at) ? at : 0;
}

/* Entering and looking while maps are being changed. */
static uint64_t enter_locked(struct bdev_channel *ch, struct bs_io *io)
{
	struct bs *bs = io->blob->bs;
	pthread_rwlock_t *lock = bs_maplock(bs, io->blob->id);
	uint64_t at;

	io_req(io)->count = &bs->epochs->count[bdev_channel_index(ch)][bs_epoch_enter(bs, ch)];
	pthread_rwlock_rdlock(lock);
	at = place(io);
	pthread_rwlock_unlock(lock);
	return at;
}

/* ---- the device I/O ---- */

static inline struct bdev_io *fill(const struct bs_io *io, enum bdev_op op, uint64_t at, bdev_io_cb cb)
{
	struct bdev_io *dev = &io_req((struct bs_io *)io)->own[0];

	dev->op = op;
	dev->iovcnt = io->iovcnt;
	dev->iov = io->iov;
	dev->offset = at;
	dev->length = io->length;
	dev->opts = (struct bdev_io_opts){ .mem_handle = io->mem_handle };
	dev->cb = cb;
	return dev;
}

static void submit_write(struct bdev_channel *ch, struct bs_io *io, uint64_t at)
{
	struct bdev_io *dev = fill(io, BDEV_WRITE, at, write_done);

	io->lsn = 0;
	dev->opts.flags = io->flags & BS_IO_DURABLE ? BDEV_FUA : 0;
	dev->opts.stream = (uint16_t)io->stream;
	bdev_submit(ch, dev);
}

/* After the look, still inside the epoch. */
static void go_on(struct bdev_channel *ch, struct bs_io *io, uint64_t at)
{
	struct io_req *r = io_req(io);

	if (__builtin_expect(!at, 0)) {
		bs_count_out(r->epochs, r->count);
		io_start(ch, io);
	} else if (io->op == BS_WRITE) {
		submit_write(ch, io, at);
	} else {
		bdev_submit(ch, fill(io, BDEV_READ, at, read_done));
	}
}

/* ---- the beginning ---- */

SELDOM static void start_locked(struct bdev_channel *ch, struct bs_io *io)
{
	struct io_req *r = io_req(io);

	bs_look_undo(r->epochs, r->count);
	go_on(ch, io, enter_locked(ch, io));
}

SELDOM static void go_on_after_wake(struct bdev_channel *ch, struct bs_io *io, uint64_t at)
{
	bs_look_wake(io_req(io)->epochs);
	go_on(ch, io, at);
}

/* Whatever it is; the look has begun. */
__attribute__((noinline)) static void look_well(struct bdev_channel *ch, struct bs_io *io)
{
	struct io_req *r = io_req(io);
	uint64_t at = place(io);

	if (__builtin_expect(bs_look_end(r->epochs, r->count), 0))
		go_on_after_wake(ch, io, at);
	else
		go_on(ch, io, at);
}

static inline bool is_aligned(const struct bs_io *io)
{
	return !((io->offset | io->length) & (BS_BLOCK - 1)) && io->length <= BS_IO_MAX;
}

/* Not what has to be published, nor what may not be written. */
static bool may_overwrite(const struct bs_io *io)
{
	const struct bs *bs = io->blob->bs;

	return !(io->flags & BS_IO_NEW) && !io->publish && !io->wanted && !(bs->flags & BS_RDONLY) &&
	       !atomic_load(&io->blob->sealed) && !atomic_load(&bs->frozen);
}

/* A read of a blob that has not one run, or not in it; the look has begun. */
__attribute__((noinline)) static void look_and_read(struct bdev_channel *ch, struct bs_io *io)
{
	const struct bs_blob *blob = io->blob;
	struct io_req *r = io_req(io);
	const struct bs_run *run;
	uint64_t at;

	if (__builtin_expect(!RB_EMPTY(&blob->carried), 0)) {
		look_well(ch, io);
		return;
	}
	run = bs_runmap_at(&blob->map, io->offset / BS_BLOCK);
	if (__builtin_expect(!run || !place_in(run, io, BS_RUN_SHARED, &at), 0)) {
		look_well(ch, io);
		return;
	}
	if (__builtin_expect(bs_look_end(r->epochs, r->count), 0))
		go_on_after_wake(ch, io, at);
	else
		bdev_submit(ch, fill(io, BDEV_READ, at, read_done));
}

__attribute__((noinline)) static void start_other(struct bdev_channel *ch, struct bs_io *io)
{
	struct io_req *r = io_req(io);

	if (io->op != BS_WRITE || !is_aligned(io) || !may_overwrite(io)) {
		io_start(ch, io);
		return;
	}
	r->epochs = io->blob->bs->epochs;
	if (bs_look_begin(r->epochs, bdev_channel_index(ch), &r->count))
		look_well(ch, io);
	else
		start_locked(ch, io);
}

void bs_io_submit(struct bdev_channel *ch, struct bs_io *io, bs_io_cb cb)
{
	const struct bs_blob *blob = io->blob;
	struct io_req *r = io_req(io);
	struct bs_epoch_count *c;
	struct bs_epochs *e;
	uint64_t at;

	io->cb = cb;
	if (__builtin_expect(io->op != BS_READ || !is_aligned(io), 0)) {
		start_other(ch, io);
		return;
	}
	e = r->epochs = blob->bs->epochs;
	if (__builtin_expect(!bs_look_begin(e, bdev_channel_index(ch), &c), 0)) {
		r->count = c;
		start_locked(ch, io);
		return;
	}
	r->count = c;
	if (blob->map.runs != 1 || !RB_EMPTY(&blob->carried) ||
	    !place_in(&blob->map.one, io, BS_RUN_SHARED, &at)) {
		look_and_read(ch, io);
		return;
	}
	if (__builtin_expect(bs_look_end(e, c), 0))
		go_on_after_wake(ch, io, at);
	else
		bdev_submit(ch, fill(io, BDEV_READ, at, read_done));
}
