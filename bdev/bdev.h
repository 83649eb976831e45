/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bdev: the block-device port.
 *
 * A device is named by one string:
 *     /path/to/file, /dev/…   a file or block device (module uring, or psync where io_uring is
 *                             refused)
 *     ram:SIZE                memory, gone when closed; ram:SIZE,name=N keeps it for the process by
 *                             name
 *     nvme:0000:01:00.0[/NSID]  an NVMe controller of this machine (nvme:pcie:0000:01:00.0), bound to
 *                             vfio-pci; the namespace, or its first
 *     nvme:vfio-user:SOCKET[/NSID]  an NVMe controller that a process serves over vfio-user; the
 *                             namespace, or its first
 *     nvme:…,timeout=SECONDS  either of them: 0.1 to 3600; how long a command may take before it is aborted, else 30. One that
 *                             never comes back is an error (-ETIMEDOUT) after at most twice as long. The shortest that is
 *                             named in the process for a controller holds for all of it
 * Wrappers are stacked by the program, not by the name (see bdev/wrap.h).
 *
 * I/O goes through channels. A channel is a lock and a queue, not a thread: any thread may submit
 * to it and any thread may poll it. Completion callbacks run inside a poll (bdev_poll or a wait),
 * never inside bdev_submit, with no lock held; they may submit. An error found while submitting is
 * completed by a poll. Several threads may run callbacks of one channel at the same time.
 *
 * In the child of a fork every device the parent had open is dead: -ENODEV. What the child opens
 * itself works. I/O in flight at the fork is the parent's and is never called back in the child.
 */
#ifndef BDEV_BDEV_H
#define BDEV_BDEV_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/api.h"
#include "base/err.h"
#include "base/op.h"

BLOBFS_C_BEGIN

struct bdev;
struct bdev_channel;
struct bdev_io;

/* ---- opening ---- */

enum bdev_open_flags {
	BDEV_RDONLY = 1 << 0,   /* no write, flush or discard is let through: -EROFS */
	BDEV_CREATE = 1 << 1,   /* a missing or empty file is made create_size bytes long */
	BDEV_NO_LOCK = 1 << 2,  /* take no lock (to look at a device in use); implies BDEV_RDONLY */
	BDEV_BUFFERED = 1 << 3, /* files: no O_DIRECT (tmpfs and the like get this by themselves) */
	BDEV_PSYNC = 1 << 4,    /* files: pread/pwrite threads instead of io_uring */
};

struct bdev_opts {
	uint32_t size;        /* sizeof(struct bdev_opts) */
	uint32_t flags;       /* enum bdev_open_flags */
	uint64_t create_size; /* BDEV_CREATE */
	uint32_t channels; /* size of the pool; 0: 2 x cores, at most half of what the device has */
	uint32_t depth;    /* I/Os in flight on a channel; 0: 128 */
};

/*
 * Opens a device. A writable open takes an exclusive lock that other processes see, a read-only one
 * a shared lock: -EBUSY names the device and who holds it; the lock of a dead process is waited for. Opening the same device again
 * in the same process gives the same struct, counted (its flags must agree, else -EBUSY). -ENOENT,
 * -EACCES, -EINVAL (not a device or file, size not a multiple of the block size), -ENOMEM. err gets
 * one line. opts may be NULL. Any thread.
 */
BLOBFS_API int bdev_open(const char *name, const struct bdev_opts *opts, struct bdev **out,
			 struct base_err *err);
/* The process that has the lock of a file or block device, and its name: for messages. 0: no living process has it (it may still be
 * there for a moment, while the kernel ends the I/O of a dead one); -EACCES: not all processes tell us; or the error of path. */
BLOBFS_API int bdev_lock_holder(const char *path, char *name, size_t len);
/* Counts an open device once more. Any thread. */
BLOBFS_API void bdev_ref(struct bdev *dev);
/* Drops one count; with the last the channels are drained and the lock is released. */
BLOBFS_API void bdev_close(struct bdev *dev);

struct bdev_info {
	const char *name;      /* the string it was opened with */
	const char *module;    /* "uring", "psync", "ram", "nvme", or the wrapper's name */
	uint64_t size;         /* bytes; a multiple of block_size */
	uint32_t block_size;   /* smallest addressable unit: 512 … 4096 */
	uint32_t atomic_write; /* bytes that power loss leaves all old or all new; >= block_size */
	uint32_t buffer_align; /* of iovec bases; the port bounces those that are not */
	uint32_t max_io;       /* bytes of one device command; the port splits larger ones */
	uint32_t max_iov;      /* iovecs of one device command; the port splits longer ones */
	uint32_t optimal_io;   /* bytes; a hint for allocation and write-back */
	uint32_t max_channels; /* how many channels the device has */
	bool readonly;
	bool volatile_cache; /* false: completed writes are durable, flush is free */
	bool fua;            /* BDEV_FUA is native; else the port adds a flush */
	bool discard;        /* BDEV_DISCARD does something */
	bool write_zeroes;   /* native; else the port writes zeroes */
	bool discard_zeroes; /* a discarded range reads as zeroes */
	bool needs_dma;      /* buffers must come from dma_alloc */
};
BLOBFS_API const struct bdev_info *bdev_info(const struct bdev *dev);
/* Asks the device for its size anew (after it has grown); updates info->size. */
BLOBFS_API int bdev_resize_check(struct bdev *dev);

/* ---- I/O ---- */

enum bdev_op { BDEV_READ, BDEV_WRITE, BDEV_FLUSH, BDEV_DISCARD, BDEV_WRITE_ZEROES };

enum bdev_io_flags {
	BDEV_FUA = 1 << 0, /* a write: durable when completed (this write, not those before it) */
	BDEV_NO_UNMAP = 1 << 1 /* write-zeroes: keep the blocks allocated on the device */
};

/* What may come with an I/O; zero means nothing. Grows at its end. */
struct bdev_io_opts {
	uint32_t flags;  /* enum bdev_io_flags */
	uint16_t stream; /* write stream (0: none); a hint for the device's placement */
	uint16_t reserved;
	uint64_t mem_handle; /* of a registered buffer (bdev_register); 0: none */
	void *metadata;      /* separate metadata buffer of formats that have one; NULL: none */
};

typedef void (*bdev_io_cb)(struct bdev_io *io, int rc);

/*
 * One I/O, embedded in the caller's request; it belongs to the port from bdev_submit until its
 * callback. The caller fills the first part. offset and length are multiples of block_size; the
 * iovecs add up to length (READ, WRITE only), each of any base and of a length that is a multiple
 * of block_size. FLUSH ignores offset and length: every write that completed before it was
 * submitted is durable when it completes. DISCARD: content undefined afterwards (unless
 * discard_zeroes). rc: 0, or -EIO, -ENOSPC, -EROFS, -EINVAL (out of range, misaligned), -ENODEV
 * (gone), -ETIMEDOUT, -ENOMEM. An error ends the I/O all the same: the device touches neither buffer
 * nor medium for it any more. Of what a failed write was to change any blocks may have changed, and no
 * flush settles which; what is written over them later counts as if it had not been.
 */
struct bdev_io {
	enum bdev_op op;
	int iovcnt;
	const struct iovec *iov; /* must live until the callback */
	uint64_t offset, length;
	struct bdev_io_opts opts;
	bdev_io_cb cb;
	void *cb_arg;

	/* the port's and the module's from here */
	struct bdev_channel *ch;
	struct bdev_io *next;
	struct bdev_io *parent;
	struct iovec one; /* modules and bdev_io_init_buf: room for a single iovec */
	int rc;
	uint64_t module_data[8]; /* the module's, and a wrapper's */
};

/* Queues an I/O. Never blocks on the device, never calls back. Any thread. The channel may hold it
 * back until a poll (batching): who submits polls, or calls bdev_kick. */
BLOBFS_API void bdev_submit(struct bdev_channel *ch, struct bdev_io *io);
/* Hands everything queued to the device now. Any thread. */
BLOBFS_API void bdev_kick(struct bdev_channel *ch);
/* Reaps completions without blocking, calls callbacks, runs ops that became ready; returns how
 * many. Any thread; when another thread is reaping it returns at once. */
BLOBFS_API int bdev_poll(struct bdev_channel *ch);

/* Submits and completes io, whose one buffer is (buf, length); waits on the channel; returns rc. */
BLOBFS_API int bdev_io_sync(struct bdev_channel *ch, enum bdev_op op, void *buf, uint64_t offset,
			    uint64_t length, uint32_t flags);
/* Fills an io over one buffer. */
BLOBFS_API void bdev_io_init_buf(struct bdev_io *io, enum bdev_op op, void *buf, uint64_t offset,
				 uint64_t length, bdev_io_cb cb, void *cb_arg);

/* Convenience for ops: submits io as a child of op (op_child_begin; the callback calls
 * op_child_done). Sets io->cb. */
BLOBFS_API void bdev_submit_child(struct bdev_channel *ch, struct bdev_io *io, struct op *op);

/* ---- channels ---- */

/* A channel of one's own (reactor, service, log). -ENOMEM, -EMFILE, -ENOSPC (the device has no
 * more). */
BLOBFS_API int bdev_channel_create(struct bdev *dev, struct bdev_channel **out);
/* Waits for its I/O, then frees it. */
BLOBFS_API void bdev_channel_destroy(struct bdev_channel *ch);
/* Borrows a channel of the pool for a synchronous call: one nobody uses if there is one, else the
 * least used. Shared use is fine: waiting never holds its lock. Never fails once the device is
 * open. */
BLOBFS_API struct bdev_channel *bdev_channel_borrow(struct bdev *dev);
BLOBFS_API void bdev_channel_return(struct bdev_channel *ch);

BLOBFS_API struct bdev *bdev_channel_bdev(struct bdev_channel *ch);
/* What ops on this channel wait on: op_init(…, bdev_channel_driver(ch), …), op_wait(op) then polls
 * or sleeps. */
BLOBFS_API struct op_driver *bdev_channel_driver(struct bdev_channel *ch);
/* A descriptor that is readable when the channel wants to be polled (completions, a wake). For
 * epoll, level triggered; after bdev_poll returned 0 it is quiet. The channel owns it. Not for
 * wrappers' users to read. */
BLOBFS_API int bdev_channel_fd(struct bdev_channel *ch);
/*
 * From now on a flush, or a write with BDEV_FUA, that finds the channel idle may be done by the thread that comes to wait, as far as
 * the device is a file: a system call that lasts as long as the flush, and no work of the kernel's threads. It is on its way when a
 * thread waits, polls or kicks. What else ends on the channel meanwhile is called back behind it: for a channel whose I/O goes one by one.
 * Before the channel is used.
 */
BLOBFS_API void bdev_channel_wait_inline(struct bdev_channel *ch);
/* I/Os submitted and not yet called back. */
BLOBFS_API uint32_t bdev_channel_inflight(struct bdev_channel *ch);
/* Small number of this channel, unique among the device's live channels, below 256. */
struct bdev_channel_head { /* what a channel begins with */
	unsigned index;
};
static inline unsigned bdev_channel_index(const struct bdev_channel *ch)
{
	return ((const struct bdev_channel_head *)(const void *)ch)->index;
}
/* The numbers of all channels there have ever been are below this one. */
BLOBFS_API unsigned bdev_channels_end(const struct bdev *dev);

/* Memory that many I/Os will use (a page cache): the module may pin or register it once. -ENOTSUP
 * is harmless: pass handle 0. */
BLOBFS_API int bdev_register(struct bdev *dev, void *base, uint64_t len, uint64_t *handle);
BLOBFS_API void bdev_unregister(struct bdev *dev, uint64_t handle);

/* ---- numbers ---- */

struct bdev_stats {
	uint64_t reads, read_bytes, writes, write_bytes, flushes, discards, errors;
	uint64_t zero_bytes; /* of write_bytes: by BDEV_WRITE_ZEROES, which may cost a device less */
};
BLOBFS_API void bdev_get_stats(const struct bdev *dev, struct bdev_stats *out);

BLOBFS_C_END
#endif
