/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * I/O the device does not take as it is: done in pieces of what it takes (too long, too many
 * iovecs), through aligned copies (buffers it cannot reach), as writes of zeroes (no write-zeroes),
 * followed by a flush (no FUA). One structure does all four, since they come together.
 *
 * At most WINDOW pieces are under way; a piece that is done is used for the next part. A failed
 * piece ends the handing out, and the I/O ends when the others are back. Pieces may come back in
 * several threads at once; the structure's lock guards the cursor, and is never held over a wait.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/dma.h"
#include "bdev/internal.h"

#define WINDOW 16
#define BOUNCE_MAX (256 * KiB)

struct piece {
	struct bdev_io io;
	struct slow *slow;
	struct iovec *iov; /* as many as the window's share needs */
	void *bounce;
};

struct slow {
	struct bdev_io *parent;
	pthread_mutex_t lock;
	uint64_t handed; /* bytes given to pieces */
	int iov_index;   /* the parent's iovec that holds the next byte */
	size_t iov_offset;
	bool zeroes; /* written from the device's zero buffer */
	bool flush;  /* a flush follows */
	unsigned out, pieces, max_iov;
	int rc;
	struct piece piece[];
};

static void piece_done(struct bdev_io *io, int rc);

static void *zero_buffer(struct bdev *dev)
{
	void *p;

	pthread_mutex_lock(&dev->lock);
	if (!dev->zeroes)
		dev->zeroes = dma_zalloc(BDEV_ZEROES_LEN, MAX(dev->info.buffer_align, 4096u));
	p = dev->zeroes;
	pthread_mutex_unlock(&dev->lock);
	return p;
}

/* Iovecs over the zero buffer for the next part. */
static uint64_t cut_zeroes(struct slow *s, struct piece *p)
{
	struct bdev *dev = s->parent->ch->dev;
	uint64_t left = MIN(s->parent->length - s->handed, (uint64_t)dev->info.max_io), len = 0;
	unsigned n = 0;

	while (left && n < s->max_iov) {
		uint64_t part = MIN(left, BDEV_ZEROES_LEN);

		p->iov[n].iov_base = dev->zeroes;
		p->iov[n++].iov_len = part;
		left -= part;
		len += part;
	}
	p->io.iovcnt = (int)n;
	return len;
}

static bool usable(const struct bdev *dev, const struct iovec *v)
{
	if ((uintptr_t)v->iov_base & (dev->info.buffer_align - 1))
		return false;
	return !dev->module->dma_ok || dev->module->dma_ok(dev, v->iov_base, v->iov_len);
}

/* Iovecs over the caller's memory for the next part; *bounce when the device cannot use one of
 * them. */
static uint64_t cut_iov(struct slow *s, struct piece *p, bool *bounce)
{
	const struct bdev *dev = s->parent->ch->dev;
	uint64_t left = MIN(s->parent->length - s->handed, (uint64_t)dev->info.max_io), len = 0;
	unsigned n = 0;

	*bounce = false;
	while (left && n < s->max_iov) {
		const struct iovec *v = &s->parent->iov[s->iov_index];
		struct iovec part = { (char *)v->iov_base + s->iov_offset,
				      MIN(v->iov_len - s->iov_offset, left) };

		if (!usable(dev, &part)) {
			*bounce = true;
			left = MIN(left, BOUNCE_MAX > len ? BOUNCE_MAX - len : 0);
			if (!left)
				break;
			part.iov_len = MIN(part.iov_len, left);
		}
		p->iov[n++] = part;
		len += part.iov_len;
		left -= part.iov_len;
		s->iov_offset += part.iov_len;
		if (s->iov_offset == v->iov_len) {
			s->iov_index++;
			s->iov_offset = 0;
		}
	}
	p->io.iovcnt = (int)n;
	return len;
}

static void copy(struct piece *p, uint64_t len, bool to_bounce)
{
	char *b = p->bounce;

	for (unsigned i = 0; len; i++) {
		if (to_bounce)
			memcpy(b, p->iov[i].iov_base, p->iov[i].iov_len);
		else
			memcpy(p->iov[i].iov_base, b, p->iov[i].iov_len);
		b += p->iov[i].iov_len;
		len -= p->iov[i].iov_len;
	}
}

static int bounce_begin(struct piece *p, uint64_t len)
{
	struct bdev *dev = p->slow->parent->ch->dev;

	p->bounce = dma_alloc(len, MAX(dev->info.buffer_align, dev->info.block_size));
	if (!p->bounce)
		return -ENOMEM;
	if (p->io.op == BDEV_WRITE)
		copy(p, len, true);
	p->io.one.iov_base = p->bounce;
	p->io.one.iov_len = len;
	p->io.iov = &p->io.one;
	p->io.iovcnt = 1;
	p->io.opts.mem_handle = 0;
	return 0;
}

/* Prepares a piece for the next part of the parent. Structure's lock held. */
static int cut(struct slow *s, struct piece *p)
{
	const struct bdev_io *up = s->parent;
	bool bounce = false;
	uint64_t len;

	p->io.op = s->zeroes ? BDEV_WRITE : up->op;
	p->io.opts = up->opts;
	p->io.offset = up->offset + s->handed;
	p->io.iov = p->iov;
	if (s->flush)
		p->io.opts.flags &= ~(uint32_t)BDEV_FUA;
	if (s->zeroes)
		len = cut_zeroes(s, p);
	else if (up->op == BDEV_WRITE_ZEROES)
		len = up->length;
	else
		len = cut_iov(s, p, &bounce);
	p->io.length = len;
	s->handed += len;
	return bounce ? bounce_begin(p, len) : 0;
}

static void hand_down(struct slow *s, struct piece *p)
{
	struct bdev_channel *ch = s->parent->ch;

	p->io.ch = ch;
	p->io.parent = s->parent;
	p->io.cb = piece_done;
	p->io.cb_arg = p;
	s->out++;
	pthread_mutex_lock(&ch->lock);
	channel_put(ch, &p->io);
	pthread_mutex_unlock(&ch->lock);
}

static void free_slow(struct slow *s)
{
	for (unsigned i = 0; i < s->pieces; i++)
		dma_free(s->piece[i].bounce);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

/* With a free piece: the next part, or the flush that follows all. Lock held; true when all is
 * done. */
static bool go_on(struct slow *s, struct piece *p)
{
	if (!s->rc && s->handed < s->parent->length) {
		int rc = cut(s, p);

		if (!rc) {
			hand_down(s, p);
			return false;
		}
		s->rc = rc;
	}
	if (s->out)
		return false;
	if (!s->rc && s->flush) {
		s->flush = false;
		p->io.op = BDEV_FLUSH;
		p->io.opts = (struct bdev_io_opts){ 0 };
		p->io.offset = p->io.length = 0;
		hand_down(s, p);
		return false;
	}
	return true;
}

static void end(struct slow *s)
{
	struct bdev_io *parent = s->parent;
	int rc = s->rc;

	free_slow(s);
	/* A write-zeroes that turned out not to be there: once more, emulated. */
	if (rc == -EOPNOTSUPP)
		slow_start(parent);
	else
		port_finish(parent, rc);
}

static void piece_done(struct bdev_io *io, int rc)
{
	struct piece *p = io->cb_arg;
	struct slow *s = p->slow;
	bool ended;

	if (p->bounce) {
		if (!rc && io->op == BDEV_READ)
			copy(p, io->length, false);
		dma_free(p->bounce);
		p->bounce = NULL;
	}
	pthread_mutex_lock(&s->lock);
	if (rc && !s->rc)
		s->rc = rc;
	s->out--;
	ended = go_on(s, p);
	pthread_mutex_unlock(&s->lock);
	if (ended)
		end(s);
}

/* How many pieces, and how many iovecs each, this I/O can use. */
static struct slow *alloc_slow(struct bdev_io *io, bool zeroes)
{
	struct bdev *dev = io->ch->dev;
	uint64_t whole = div_round_up(io->length, dev->info.max_io);
	unsigned max_iov = dev->info.max_iov, pieces;
	struct iovec *iov;
	struct slow *s;

	if (io->op == BDEV_WRITE_ZEROES && !zeroes)
		whole = 1;
	else if (!zeroes)
		whole += (unsigned)io->iovcnt / max_iov + io->length / BOUNCE_MAX;
	pieces = (unsigned)MIN(whole, (uint64_t)WINDOW);
	max_iov = MIN(max_iov, zeroes ? (unsigned)div_round_up(dev->info.max_io, BDEV_ZEROES_LEN)
				      : (unsigned)io->iovcnt);
	s = base_calloc(
		1, sizeof(*s) + pieces * (sizeof(struct piece) + max_iov * sizeof(struct iovec)));
	if (!s)
		return NULL;
	iov = (struct iovec *)(void *)&s->piece[pieces];
	for (unsigned i = 0; i < pieces; i++) {
		s->piece[i].slow = s;
		s->piece[i].iov = iov + (size_t)i * max_iov;
	}
	s->pieces = pieces;
	s->max_iov = max_iov;
	return s;
}

/* Ends an I/O that could not be started: by a poll, as everything. */
static void refuse(struct bdev_io *io, int rc)
{
	struct bdev_channel *ch = io->ch;

	pthread_mutex_lock(&ch->lock);
	channel_put_done(ch, io, rc);
	pthread_mutex_unlock(&ch->lock);
}

void slow_start(struct bdev_io *io)
{
	struct bdev *dev = io->ch->dev;
	bool write = io->op == BDEV_WRITE || io->op == BDEV_WRITE_ZEROES;
	bool zeroes = io->op == BDEV_WRITE_ZEROES &&
		      (!dev->info.write_zeroes || atomic_load(&dev->no_write_zeroes));
	struct slow *s = alloc_slow(io, zeroes);

	if (!s || (zeroes && !zero_buffer(dev))) {
		free(s);
		refuse(io, -ENOMEM);
		return;
	}
	pthread_mutex_init(&s->lock, NULL);
	s->parent = io;
	s->zeroes = zeroes;
	s->flush = write && io->opts.flags & BDEV_FUA && dev->info.volatile_cache &&
		   !(io->op == BDEV_WRITE && dev->info.fua);
	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < s->pieces && !s->rc && s->handed < io->length; i++) {
		s->rc = cut(s, &s->piece[i]);
		if (!s->rc)
			hand_down(s, &s->piece[i]);
	}
	if (!s->out) {
		int rc = s->rc;

		/* Not one piece is under way. */
		pthread_mutex_unlock(&s->lock);
		free_slow(s);
		refuse(io, rc);
		return;
	}
	pthread_mutex_unlock(&s->lock);
}
