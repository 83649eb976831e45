/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From a request to device I/Os. A request of one run is one device I/O on the caller's iovecs (io_fast.c). A
 * fragmented one is as many as it has pieces, all in flight at once as far as memory goes: two are
 * in the request, 62 more are allocated when they are needed; without memory, or beyond these, it
 * goes in rounds.
 *
 * iovecs are not copied where a piece is whole iovecs of the caller's or part of one. A piece that
 * is neither is cut at an iovec's end, unless that would cut a block, which the device then could
 * not write as one: such a piece gets iovecs of its own.
 */
#include <stdlib.h>
#include <string.h>

#include "blob/io.h"

static void iov_forward(struct io_req *r, uint64_t n)
{
	r->pos += n;
	r->iov_at += n;
	while (r->iov < r->io->iovcnt && r->iov_at >= r->io->iov[r->iov].iov_len) {
		r->iov_at -= r->io->iov[r->iov].iov_len;
		r->iov++;
	}
}

static void zero_next(struct io_req *r, uint64_t len)
{
	while (len) {
		const struct iovec *v = &r->io->iov[r->iov];
		uint64_t n = MIN(len, v->iov_len - r->iov_at);

		memset((char *)v->iov_base + r->iov_at, 0, n);
		iov_forward(r, n);
		len -= n;
	}
}

/* Iovecs of its own for the next len bytes; false: no memory. */
static bool take_odd(struct io_req *r, struct bdev_io *dev, uint64_t len)
{
	struct iovec *v;

	if (!r->odd) {
		r->odd = base_malloc(((size_t)r->io->iovcnt + IO_OWN + IO_MORE) * sizeof(*r->odd));
		if (!r->odd)
			return false;
	}
	v = &r->odd[r->odd_n];
	dev->iov = v;
	dev->iovcnt = 0;
	while (len) {
		const struct iovec *from = &r->io->iov[r->iov];
		uint64_t n = MIN(len, from->iov_len - r->iov_at);

		v[dev->iovcnt++] = (struct iovec){ (char *)from->iov_base + r->iov_at, n };
		iov_forward(r, n);
		len -= n;
	}
	r->odd_n += (uint32_t)dev->iovcnt;
	return true;
}

/* Gives dev the iovecs of the next bytes, at most len; returns how many bytes. */
static uint64_t take_iov(struct io_req *r, struct bdev_io *dev, uint64_t len)
{
	const struct iovec *v = &r->io->iov[r->iov];
	uint64_t sum = 0;
	int n = 0;

	if (!r->iov_at)
		while (r->iov + n < r->io->iovcnt && sum + v[n].iov_len <= len)
			sum += v[n++].iov_len;
	if (!n)
		sum = MIN(len, v->iov_len - r->iov_at);
	if (sum < len && sum % BS_BLOCK && take_odd(r, dev, len))
		return len;
	if (n) {
		dev->iov = v;
		dev->iovcnt = n;
	} else {
		dev->one.iov_base = (char *)v->iov_base + r->iov_at;
		dev->one.iov_len = sum;
		dev->iov = &dev->one;
		dev->iovcnt = 1;
	}
	iov_forward(r, sum);
	return sum;
}

static void prepare(struct io_req *r, struct bdev_io *dev, enum bdev_op op, uint64_t at)
{
	memset(&dev->opts, 0, sizeof(dev->opts));
	dev->op = op;
	dev->offset = at;
	dev->opts.mem_handle = r->io->mem_handle;
	if (op == BDEV_WRITE && r->io->flags & BS_IO_DURABLE)
		dev->opts.flags = BDEV_FUA;
	dev->opts.stream = op == BDEV_WRITE ? (uint16_t)r->io->stream : 0;
}

/* The n-th struct of a round; NULL: there is none. */
static struct bdev_io *dev_io(struct io_req *r, unsigned n)
{
	if (n < IO_OWN)
		return &r->own[n];
	if (!r->more)
		r->more = base_malloc(IO_MORE * sizeof(*r->more));
	return r->more && n < IO_OWN + IO_MORE ? &r->more[n - IO_OWN] : NULL;
}

void io_round(struct io_req *r, enum bdev_op op, io_span_fn span_fn)
{
	struct bdev_io *dev;
	struct io_span span = { .len = 0 };
	unsigned n = 0;

	r->odd_n = 0;
	while (r->pos < r->io->length) {
		if (!span.len)
			span_fn(r, &span);
		if (span.hole) {
			zero_next(r, span.len);
			span.len = 0;
			continue;
		}
		dev = dev_io(r, n);
		if (!dev)
			return;
		prepare(r, dev, op, span.at);
		dev->length = take_iov(r, dev, span.len);
		span.at += dev->length;
		span.len -= dev->length;
		n++;
		bdev_submit_child(r->io->ch, dev, &r->io->op_);
	}
}

void io_again(struct io_req *r)
{
	r->pos = r->iov_at = 0;
	r->iov = 0;
	r->slice = 0;
}

void io_drop(struct io_req *r)
{
	free(r->more);
	if (r->intent.slice != r->own_slice)
		free(r->intent.slice);
	free(r->odd);
	r->more = NULL;
}
