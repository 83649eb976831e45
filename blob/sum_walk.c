/* SPDX-License-Identifier: BSD-2-Clause */
/* The pages of sums as they lie on the device, one after the other: for checking, mending, and copies of metadata. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blob/device.h"
#include "blob/sum.h"

#define AT_ONCE 64u /* pages in a row are read together */

struct sum_walk {
	struct bs *bs;
	struct bdev_channel *ch;
	uint8_t *buf;
	bs_sum_page_fn fn;
	void *arg;
};

static int read_some(struct sum_walk *w, uint64_t phys, uint64_t n)
{
	return bdev_io_sync(w->ch, BDEV_READ, w->buf, phys * BS_BLOCK, n * BS_BLOCK, 0);
}

/* One that cannot be read does not hide those beside it. */
static int walk_row(struct sum_walk *w, uint64_t page, uint64_t phys, uint64_t n)
{
	bool all = !read_some(w, phys, n);
	int rc = 0;

	for (uint64_t i = 0; i < n && !rc; i++) {
		uint8_t *buf = all ? w->buf + i * BS_BLOCK : w->buf;

		rc = all ? 0 : read_some(w, phys + i, 1);
		if (rc == -ENOMEM || rc == -ENODEV)
			return rc;
		rc = w->fn(w->bs, page + i, phys + i, rc ? NULL : buf, w->arg);
	}
	return rc;
}

int bs_sum_pages(struct bs *bs, bs_sum_page_fn fn, void *arg)
{
	struct sum_walk w = { .bs = bs, .fn = fn, .arg = arg };
	uint64_t page = 0, end = bs->blocks / BS_SUM_PAGE + 1, n;
	int rc = 0;

	if (!bs->sums)
		return 0;
	w.buf = dma_alloc(AT_ONCE * BS_BLOCK, BS_BLOCK);
	if (!w.buf)
		return -ENOMEM;
	w.ch = bdev_channel_borrow(bs->dev);
	for (; page < end && !rc; page += n) {
		struct bs_extent e;

		bs_map_lookup(bs->sums->blob, page, end - page, &e);
		n = e.flags & BS_RUN_HOLE ? e.count : MIN(e.count, (uint64_t)AT_ONCE);
		if (!(e.flags & BS_RUN_HOLE))
			rc = walk_row(&w, page, e.phys, n);
	}
	bdev_channel_return(w.ch);
	dma_free(w.buf);
	return rc;
}

/* ---- for others ---- */

struct piece_walk {
	bs_piece_fn fn;
	void *arg;
};

static int to_piece(struct bs *bs, uint64_t page, uint64_t phys, void *buf, void *arg)
{
	struct piece_walk *w = arg;
	struct bs_piece p = { .kind = BS_PIECE_SUMS, .block = phys, .blocks = 1, .data = buf };

	if (!buf)
		p.wrong = "it cannot be read";
	else if (bs_sum_page_check(bs, buf, page))
		p.wrong = "it is not the page of checksums that should be here";
	return w->fn(&p, w->arg);
}

int bs_walk_sums(struct bs *bs, bs_piece_fn fn, void *arg)
{
	struct piece_walk w = { fn, arg };

	return bs_sum_pages(bs, to_piece, &w);
}
