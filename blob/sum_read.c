/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads with sums. While a read is cut in pieces it is noted where each flagged block lies; when all data is there each is compared.
 * A sum that is not in memory is read, with its page. A block that differs is read once more, alone, into memory of ours, by the map
 * as it is then: the caller's memory may have changed since, or the map between two pieces. Only what differs then is an error.
 *
 * All of it is within the epoch of the read, so every place that was looked up still belongs to what it was looked up for.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "blob/sum.h"

#define LOG_COMPONENT "blob"
#include "base/log.h"

#define NO_PAGE UINT64_MAX
#define TELL_AT_ONCE 32u
#define TELL_NS 10000000000ull

enum state { COMPARE, LOADING, REREADING };

struct sum_check {
	enum state state;
	uint32_t at;            /* block that is compared next */
	uint32_t compared;      /* of those before it */
	uint32_t again;         /* this one is compared in `block`; UINT32_MAX: none */
	int iov;                /* where that block is in the caller's iovecs */
	uint64_t iov_at;
	uint64_t phys[BS_IO_MAX / BS_BLOCK]; /* 0: it has no sum */
	uint64_t page, replaced; /* the one loaded; before it was */
	uint64_t loaded_for;     /* the device's block it was loaded for */
	uint8_t *block;         /* one that is read again */
	struct bs_sum_page_disk *disk;
	struct iovec one;
	struct bdev_io dev;
	struct bs_io io;
};

/* ---- noting ---- */

void bs_sum_expect(struct io_req *r, uint64_t block, const struct bs_extent *e)
{
	uint64_t first = block - r->io->offset / BS_BLOCK, all = r->io->length / BS_BLOCK;

	if (!r->check && !r->no_memory) {
		r->check = base_calloc(1, sizeof(*r->check));
		r->no_memory = !r->check;
		if (r->check) {
			r->check->page = NO_PAGE;
			r->check->again = UINT32_MAX;
		}
	}
	for (uint64_t i = 0; r->check && i < e->count && first + i < all; i++)
		r->check->phys[first + i] = e->phys + i;
}

/* ---- sums ---- */

static struct bs_sum_page_disk *page_buf(struct sum_check *c)
{
	if (!c->disk)
		c->disk = dma_alloc(sizeof(*c->disk), BS_BLOCK);
	return c->disk;
}

/* The log is no place for each read of a bad block: TELL_AT_ONCE lines, and then one in TELL_NS. *untold: how many were left out before this
 * one. */
static bool may_tell(struct bs_sums *s, uint64_t *untold)
{
	uint64_t now = base_now_ns(), next;
	bool may;

	pthread_mutex_lock(&s->lock);
	next = MAX(s->tell_ns, now);
	may = next - now < TELL_AT_ONCE * TELL_NS;
	*untold = s->untold;
	s->untold = may ? 0 : s->untold + 1;
	if (may)
		s->tell_ns = next + TELL_NS;
	pthread_mutex_unlock(&s->lock);
	return may;
}

static int complain(struct io_req *r, const char *what, uint64_t block, uint64_t place)
{
	char more[64] = "";
	uint64_t untold;

	r->sum_wrong = what;
	if (r->io->flags & BS_IO_PROBE)
		return -EIO;
	atomic_fetch_add(&r->bs->sums->errors, 1);
	if (!may_tell(r->bs->sums, &untold))
		return -EIO;
	if (untold)
		snprintf(more, sizeof(more), " (and %" PRIu64 " more since the last one)", untold);
	log_err("%s: blob %" PRIu64 ", byte %" PRIu64 ", device block %" PRIu64 ": %s%s", bdev_info(r->bs->dev)->name, r->io->blob->id,
		r->io->offset + block * BS_BLOCK, place, what, more);
	return -EIO;
}

/* One page of sums is a thousand blocks that cannot be read: it is named once, until another one is. */
static int complain_of_page(struct io_req *r, const char *what, uint64_t block, uint64_t place)
{
	struct sum_check *c = r->check;

	if (r->io->flags & BS_IO_PROBE || atomic_exchange(&r->bs->sums->told, c->page) != c->page)
		return complain(r, what, block, place);
	atomic_fetch_add(&r->bs->sums->errors, 1);
	r->sum_wrong = what;
	return -EIO;
}

/* The page with the sum of a place: a read as any other, of the store's own blob. */
static int load(struct op *op, struct io_req *r, uint64_t place)
{
	struct sum_check *c = r->check;
	struct bs_blob *blob = r->bs->sums->blob;
	struct bs_extent e;

	c->page = place / BS_SUM_PAGE;
	c->loaded_for = place;
	c->replaced = bs_sum_replaced(r->bs, c->page);
	bs_map_lookup(blob, c->page, 1, &e);
	if (e.flags & BS_RUN_HOLE)
		return complain_of_page(r, "it has no checksum", c->at, place);
	if (!page_buf(c))
		return -ENOMEM;
	c->state = LOADING;
	c->one = (struct iovec){ c->disk, sizeof(*c->disk) };
	memset(&c->io, 0, offsetof(struct bs_io, op_));
	c->io.blob = blob;
	c->io.op = BS_READ;
	c->io.offset = c->page * BS_BLOCK;
	c->io.length = BS_BLOCK;
	c->io.iov = &c->one;
	c->io.iovcnt = 1;
	bs_io_start(r->io->ch, &c->io, op);
	return 0;
}

static int loaded(struct io_req *r)
{
	struct sum_check *c = r->check;
	struct bs_extent e;

	c->state = COMPARE;
	if (!bs_sum_page_check(r->bs, c->disk, c->page)) {
		bs_sum_cache_add(r->bs, c->disk, c->page, c->replaced); /* without memory it is used here only */
		return 0;
	}
	bs_map_lookup(r->bs->sums->blob, c->page, 1, &e);
	return complain_of_page(r, "the page of its checksum is damaged", c->at, e.phys);
}

/* 1: found; 0: its page has to be loaded first. */
static int want(struct io_req *r, uint64_t place, uint32_t *sum)
{
	struct sum_check *c = r->check;

	if (bs_sum_find(r->bs, place, sum))
		return 1;
	/* What was loaded is too old for a place whose sum has been paged out since, but not for the one it was loaded for. */
	if (c->page != place / BS_SUM_PAGE || (c->loaded_for != place && c->replaced != bs_sum_replaced(r->bs, c->page)))
		return 0;
	*sum = le32_get(c->disk->sum[place % BS_SUM_PAGE]);
	return 1;
}

/* ---- comparing ---- */

/* The sum of the block at the caller's place, or something laid over it (from: copied there). */
static uint32_t at_caller(struct sum_check *c, const struct bs_io *io, const uint8_t *from)
{
	int iov = c->iov;
	uint64_t at = c->iov_at, left = BS_BLOCK;
	uint32_t crc = 0;

	while (left) {
		const struct iovec *v = &io->iov[iov];
		uint64_t n = MIN(left, v->iov_len - at);

		if (from)
			memcpy((uint8_t *)v->iov_base + at, from + (BS_BLOCK - left), n);
		else
			crc = base_crc32c(crc, (const uint8_t *)v->iov_base + at, n);
		left -= n;
		at += n;
		if (at == v->iov_len) {
			iov++;
			at = 0;
		}
	}
	return crc;
}

static void forward(struct sum_check *c, const struct bs_io *io)
{
	c->iov_at += BS_BLOCK;
	while (c->iov < io->iovcnt && c->iov_at >= io->iov[c->iov].iov_len)
		c->iov_at -= io->iov[c->iov++].iov_len;
	c->again = UINT32_MAX;
	c->at++;
}

/* Reads the block once more, by the map as it is now. 1: it is under way; 0: there is nothing to compare any more. */
static int reread(struct op *op, struct io_req *r)
{
	struct sum_check *c = r->check;
	struct bs_extent e;

	bs_map_lookup(r->io->blob, r->io->offset / BS_BLOCK + c->at, 1, &e);
	if (!c->block && !(c->block = dma_zalloc(BS_BLOCK, BS_BLOCK)))
		return -ENOMEM;
	if (e.flags & (BS_RUN_HOLE | BS_RUN_UNWRITTEN)) {
		memset(c->block, 0, BS_BLOCK);
		at_caller(c, r->io, c->block);
		return 0;
	}
	c->phys[c->at] = e.flags & BS_RUN_SUM ? e.phys : 0;
	c->again = c->at;
	c->state = REREADING;
	bdev_io_init_buf(&c->dev, BDEV_READ, c->block, e.phys * BS_BLOCK, BS_BLOCK, NULL, NULL);
	bdev_submit_child(r->io->ch, &c->dev, op);
	return 1;
}

/* 1: wait; 0: it is as it should be. */
static int compare(struct op *op, struct io_req *r)
{
	struct sum_check *c = r->check;
	uint64_t place = c->phys[c->at];
	bool again = c->again == c->at;
	uint32_t sum, is;
	int rc;

	if (!place) {
		if (again)
			at_caller(c, r->io, c->block);
		return 0;
	}
	rc = want(r, place, &sum);
	if (!rc) {
		rc = load(op, r, place);
		return rc ? rc : 1;
	}
	is = again ? base_crc32c(0, c->block, BS_BLOCK) : at_caller(c, r->io, NULL);
	if (is == sum) {
		c->compared++;
		if (again)
			at_caller(c, r->io, c->block);
		return 0;
	}
	return again ? complain(r, "its checksum is wrong", c->at, place) : reread(op, r);
}

enum op_next bs_sum_check(struct op *op, struct io_req *r, int step, int done)
{
	struct sum_check *c = r->check;
	uint32_t blocks = (uint32_t)(r->io->length / BS_BLOCK);
	int rc = 0;

	op->on_error = done;
	if (r->no_memory)
		return op_fail(op, -ENOMEM);
	if (!c)
		return op_goto(op, done);
	if (c->state == LOADING)
		rc = loaded(r);
	c->state = COMPARE;
	while (!rc && c->at < blocks) {
		rc = compare(op, r);
		if (!rc)
			forward(c, r->io);
	}
	if (rc < 0)
		return op_fail(op, rc);
	if (rc)
		return op_await(op, step, 0);
	atomic_fetch_add_explicit(&r->bs->sums->checked, c->compared, memory_order_relaxed);
	return op_goto(op, done);
}

void bs_sum_check_end(struct io_req *r)
{
	struct sum_check *c = r->check;

	if (!c)
		return;
	if (c->state == LOADING && r->io->op_.rc && r->io->op_.rc != -ENOMEM)
		complain_of_page(r, "the page of its checksum cannot be read", c->at, c->phys[c->at]);
	dma_free(c->disk);
	dma_free(c->block);
	free(c);
	r->check = NULL;
}
