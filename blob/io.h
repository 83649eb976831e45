/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of data I/O share: io.c (start, reads), io_split.c (device I/Os of a request),
 * io_fast.c, io_write.c, io_meta.c. */
#ifndef BLOB_IO_H
#define BLOB_IO_H

#include "blob/internal.h"

#define IO_OWN 2u /* device I/Os inside a request */
/* Those that memory is taken for when it has more pieces; the rest goes in rounds. */
#define IO_MORE 62u
#define IO_SLICES 4u

/* A run of bytes of the request that has one place on the device, or none. */
struct io_span {
	uint64_t at; /* device byte */
	uint64_t len;
	bool hole;
};

struct io_req { /* bs_io's private part */
	struct bs *bs;
	struct bs_io *io;
	struct bs_epochs *epochs; /* io_fast.c: the store's, and where it is counted */
	struct bs_epoch_count *count;
	unsigned epoch;
	bool inside;    /* an epoch */
	bool listed;    /* the intent is in the blob's list */
	int refused;    /* why, by io.c */
	unsigned tried; /* after ENOSPC */
	uint64_t claims, held; /* the caller's claims, which are settled, and clusters taken of what was held for the blob */
	bool waited;    /* for sums to go to their pages */
	bool wrote;
	uint64_t carried; /* READ: bs_carried_state at its beginning */
	bool no_memory;        /* for the check of sums */
	const char *sum_wrong; /* what that found; NULL: nothing */
	uint64_t pos; /* bytes handed to the device so far */
	int iov;      /* where pos is in the caller's iovecs */
	uint64_t iov_at;
	uint32_t slice; /* where pos is in the slices */
	uint32_t slice_cap;
	struct bs_intent intent;
	struct bs_slice own_slice[IO_SLICES];
	struct io_sums *sums;    /* of a write; NULL: it has none */
	struct sum_check *check; /* of a read */
	struct bdev_io *more;
	struct iovec *odd; /* of pieces that are neither whole iovecs nor part of one */
	uint32_t odd_n;
	struct bdev_io own[IO_OWN];
};
static_assert(sizeof(struct io_req) <= sizeof(((struct bs_io *)0)->priv),
	      "bs_io.priv holds a request");

static inline struct io_req *io_req(struct bs_io *io)
{
	return (struct io_req *)(void *)io->priv;
}

/* ---- io_split.c ---- */

/* Where the bytes from pos on lie: the span that starts there. */
typedef void (*io_span_fn)(struct io_req *r, struct io_span *span);
/* Submits as many device I/Os as there are structs for, as children of the request's op, and zeroes
 * what is in holes. Goes on until r->pos is io->length or the structs are used up. */
void io_round(struct io_req *r, enum bdev_op op, io_span_fn span);
/* What a failure of a data write means to who wrote. */
int io_device_rc(const struct bs *bs, int rc);
void io_drop(struct io_req *r); /* memory */
void io_again(struct io_req *r); /* from its first byte on */

/* ---- io.c ---- */

/* Starts it the general way. */
void io_start(struct bdev_channel *ch, struct bs_io *io);

/* ---- io_write.c, io_meta.c ---- */

enum op_next io_write_step(struct op *op);
enum op_next io_meta_step(struct op *op);

/* The op ends on its own channel's driver: waiting for room in the log may have moved it to one
 * nobody polls for us. */
static inline void io_home(struct io_req *r)
{
	struct op_driver *home = bdev_channel_driver(r->io->ch);

	if (atomic_load(&r->io->op_.driver) != home)
		op_move(&r->io->op_, home);
}

/* Data is on the device, and durable only if it was asked to be. */
static inline void io_written(struct io_req *r)
{
	if (!(r->io->flags & BS_IO_DURABLE))
		bs_log_data_written(r->bs);
}

void io_enter(struct io_req *r);
void io_leave(struct io_req *r);

#endif
