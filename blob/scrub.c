/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Scrubbing: everything that is mapped and written is read, some reads at a time, and so are superblocks and the checkpoint's
 * pages. It is done on a store that is open, in use or not: what is unmapped meanwhile is passed over, what is shared is read once.
 * A read that fails is done again block by block, so that exactly the bad ones are named.
 *
 * The log is not looked at: opening a store has read all there was of it, and what came since is being written.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "blob/device.h"
#include "blob/sum.h"

#define SLOTS 4u
#define CHUNK_MIN (64u * 1024)
#define LIMIT (1ull << BS_RUN_BITS)
#define META_NOTES 64u
#define META_TRIES 4u /* a live store writes what is looked at */

struct scrub_read {
	struct op op;
	struct bs_io io;
	struct iovec iov;
	uint8_t *buf;
	struct bdev_channel *ch;
	uint64_t shared; /* device block; 0: it is the blob's alone */
};

struct scrub {
	struct bs *bs;
	const struct bs_scrub_opts *opts;
	struct bs_scrub_result res;
	struct scrub_read slot[SLOTS];
	unsigned n, slots;
	uint32_t chunk;      /* bytes of a read */
	uint64_t *seen;      /* a bit a device block: shared ones that were read */
	uint64_t seen_words; /* of these; more when the store has grown */
	uint64_t start_ns, paced;
	struct bs_scrub_finding note[META_NOTES];
	unsigned notes;
};

/* ---- pace ---- */

/* The real clock: tests stop the other one. */
static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static int tell(struct scrub *s)
{
	return s->opts->progress && s->opts->progress(&s->res, s->opts->arg) ? -ECANCELED : 0;
}

/* So many bytes were read: sleeps until that is within the rate, in short naps, so that it can be ended. */
static int pace(struct scrub *s, uint64_t bytes)
{
	uint64_t due, now;
	int rc = tell(s);

	s->paced += bytes;
	if (!s->opts->rate)
		return rc;
	due = s->start_ns + (uint64_t)((double)s->paced / (double)s->opts->rate * 1e9);
	while (!rc && (now = now_ns()) < due) {
		struct timespec nap = { .tv_nsec = (long)MIN(due - now, 50000000ull) };

		nanosleep(&nap, NULL);
		rc = tell(s);
	}
	return rc;
}

static void found(struct scrub *s, const struct bs_scrub_finding *f)
{
	s->res.findings++;
	if (s->opts->found)
		s->opts->found(f, s->opts->arg);
}

/* ---- metadata ---- */

static int look_at_piece(const struct bs_piece *p, void *arg)
{
	static const enum bs_scrub_what what[] = { [BS_PIECE_SUPER] = BS_SCRUB_SUPER, [BS_PIECE_SEGMENT] = BS_SCRUB_LOG,
						   [BS_PIECE_FRAME] = BS_SCRUB_LOG, [BS_PIECE_PAGE] = BS_SCRUB_PAGE };
	struct scrub *s = arg;

	s->res.meta_bytes += (uint64_t)p->blocks * BS_BLOCK;
	if (p->wrong && s->notes < META_NOTES) {
		struct bs_scrub_finding *f = &s->note[s->notes++];

		*f = (struct bs_scrub_finding){ .what = what[p->kind], .block = p->block, .rc = p->data ? -EUCLEAN : -EIO };
		snprintf(f->text, sizeof(f->text), "%s", p->wrong);
	}
	return pace(s, (uint64_t)p->blocks * BS_BLOCK);
}

static uint64_t generation(struct bs *bs)
{
	uint64_t g;

	pthread_mutex_lock(&bs->lock);
	g = le64_get(bs->sb.generation);
	pthread_mutex_unlock(&bs->lock);
	return g;
}

/* A checkpoint that is written meanwhile takes what is read from under us: then once more. */
static int scrub_meta(struct scrub *s)
{
	bool live = !(s->bs->flags & BS_RDONLY);
	struct timespec nap = { .tv_nsec = 100000000 };
	unsigned tries = 0;
	uint64_t before;
	int rc;

	do {
		if (tries)
			nanosleep(&nap, NULL);
		before = generation(s->bs);
		s->notes = 0;
		s->res.meta_bytes = 0;
		rc = bs_walk(s->bs->dev, BS_WALK_SUPER | BS_WALK_CKPT, look_at_piece, s, NULL);
		if (rc == -EUCLEAN)
			rc = 0; /* neither superblock: both are noted */
	} while (!rc && live && s->notes && ++tries < META_TRIES);
	if (!rc && live && s->notes && generation(s->bs) != before)
		s->notes = 0; /* still being written: what the next one reads is its own */
	for (unsigned i = 0; i < s->notes && !rc; i++)
		found(s, &s->note[i]);
	return rc;
}

/* ---- data ---- */

static enum op_next read_step(struct op *op)
{
	struct scrub_read *r = container_of(op, struct scrub_read, op);

	if (op->step)
		return op_finish(op);
	bs_io_start(r->ch, &r->io, op);
	return op_await(op, 1, 0);
}

static void prepare(struct scrub_read *r, struct bs_blob *blob, uint64_t block, uint64_t count)
{
	r->iov = (struct iovec){ r->buf, count * BS_BLOCK };
	memset(&r->io, 0, offsetof(struct bs_io, op_));
	io_req(&r->io)->sum_wrong = NULL; /* a read that goes the short way does not set it */
	r->io.blob = blob;
	r->io.op = BS_READ;
	r->io.offset = block * BS_BLOCK;
	r->io.length = count * BS_BLOCK;
	r->io.iov = &r->iov;
	r->io.iovcnt = 1;
}

/* One of the blocks of a read that failed. */
static int read_one(struct scrub *s, struct scrub_read *r, struct bs_blob *blob, uint64_t block)
{
	struct bs_scrub_finding f = { .what = BS_SCRUB_DATA, .blob = blob->id, .offset = block * BS_BLOCK };
	struct bs_extent e;

	bs_map_lookup(blob, block, 1, &e);
	prepare(r, blob, block, 1);
	f.rc = bs_io_sync(s->bs, &r->io);
	if (!f.rc || f.rc == -ENOMEM || f.rc == -ENODEV)
		return f.rc;
	f.block = e.phys;
	if (io_req(&r->io)->sum_wrong) {
		snprintf(f.text, sizeof(f.text), "%s", io_req(&r->io)->sum_wrong);
		f.rc = -EUCLEAN;
	} else {
		snprintf(f.text, sizeof(f.text), "it cannot be read: %s", strerror(-f.rc));
	}
	found(s, &f);
	return 0;
}

static int read_singly(struct scrub *s, struct scrub_read *r)
{
	struct bs_blob *blob = r->io.blob;
	uint64_t block = r->io.offset / BS_BLOCK, end = block + r->io.length / BS_BLOCK;
	int rc = 0;

	for (; block < end && !rc; block++)
		rc = read_one(s, r, blob, block);
	return rc;
}

/* Bits for all blocks before `end`, which may be of what the store has grown by. False: no memory. */
static bool seen_room(struct scrub *s, uint64_t end)
{
	uint64_t words = end / 64 + 1, *more;
	struct bs_stat st;

	if (words <= s->seen_words)
		return true;
	bs_get_stat(s->bs, &st);
	words = MAX(words, st.blocks / 64 + 1);
	more = base_calloc(words, sizeof(*more));
	if (!more)
		return false;
	if (s->seen)
		memcpy(more, s->seen, s->seen_words * sizeof(*more));
	free(s->seen);
	s->seen = more;
	s->seen_words = words;
	return true;
}

static bool was_seen(const struct scrub *s, uint64_t block)
{
	return s->seen[block / 64] >> block % 64 & 1;
}

/* What was read is what the map said before, if it says so still: a shared block does not go and come again. */
static void see(struct scrub *s, const struct scrub_read *r)
{
	uint64_t count = r->io.length / BS_BLOCK;
	struct bs_extent e;

	bs_map_lookup(r->io.blob, r->io.offset / BS_BLOCK, count, &e);
	if (e.phys != r->shared || e.count != count || !seen_room(s, r->shared + count))
		return;
	for (uint64_t b = r->shared; b < r->shared + count; b++)
		s->seen[b / 64] |= 1ull << b % 64;
}

/* Of a shared extent: how many blocks at its beginning are alike in having been read, or not. */
static uint64_t seen_alike(struct scrub *s, uint64_t phys, uint64_t count, bool *was)
{
	uint64_t n = 1;

	*was = false;
	if (!seen_room(s, phys + count)) /* everything is read as often as it is met */
		return count;
	*was = was_seen(s, phys);
	while (n < count && was_seen(s, phys + n) == *was)
		n++;
	return n;
}

/* Does the reads that are prepared. */
static int run(struct scrub *s)
{
	struct bdev_channel *ch = bdev_channel_borrow(s->bs->dev);
	uint64_t bytes = 0;
	int rc[SLOTS], first = 0;

	for (unsigned i = 0; i < s->n; i++) {
		s->slot[i].ch = ch;
		op_init(&s->slot[i].op, "scrub", read_step, bdev_channel_driver(ch), NULL, NULL);
		op_start(&s->slot[i].op);
	}
	for (unsigned i = 0; i < s->n; i++)
		rc[i] = op_wait(&s->slot[i].op);
	bdev_channel_return(ch);
	for (unsigned i = 0; i < s->n; i++) {
		struct scrub_read *r = &s->slot[i];
		struct bs_blob *blob = r->io.blob;
		uint64_t length = r->io.length;

		bytes += length;
		if (!rc[i] && r->shared)
			see(s, r);
		if (rc[i] && !first)
			first = read_singly(s, r);
		bs_blob_put(blob);
	}
	s->n = 0;
	s->res.done_bytes += bytes;
	return first ? first : pace(s, bytes);
}

static int read_extent(struct scrub *s, struct bs_blob *blob, const struct bs_extent *e)
{
	uint64_t done = 0, count;
	int rc = 0;

	for (; done < e->count && !rc; done += count) {
		bool was = false, shared = e->flags & BS_RUN_SHARED;

		count = MIN(e->count - done, s->chunk / BS_BLOCK);
		if (shared)
			count = seen_alike(s, e->phys + done, count, &was);
		if (was)
			continue;
		bs_blob_ref(blob);
		s->slot[s->n].shared = shared ? e->phys + done : 0;
		prepare(&s->slot[s->n], blob, e->block + done, count);
		s->slot[s->n++].io.flags = BS_IO_PROBE;
		if (s->n == s->slots)
			rc = run(s);
	}
	return rc;
}

static int scrub_blob(struct bs_blob *blob, void *arg)
{
	struct scrub *s = arg;
	struct bs_extent e;
	int rc = 0;

	/* What it shares with the blobs before is to be known as read. */
	for (unsigned i = 0; i < s->n; i++)
		if (s->slot[i].shared) {
			rc = run(s);
			break;
		}
	for (uint64_t b = 0; b < LIMIT && !rc; b = e.block + e.count) {
		bs_map_lookup(blob, b, LIMIT - b, &e);
		if (!(e.flags & (BS_RUN_HOLE | BS_RUN_UNWRITTEN)))
			rc = read_extent(s, blob, &e);
	}
	return rc;
}

/* ---- pages of checksums ---- */

/* 0: it is as it should be, or not there any more. What was found wrong while it was given back or written anew is looked at again. */
static int read_sum_page(struct scrub *s, uint64_t page, struct bs_scrub_finding *f)
{
	struct scrub_read *r = &s->slot[0];
	struct bs_blob *blob = s->bs->sums->blob;
	struct bs_extent e, now;

	do {
		bs_map_lookup(blob, page, 1, &e);
		if (e.flags & BS_RUN_HOLE)
			return 0;
		prepare(r, blob, page, 1);
		f->rc = bs_io_sync(s->bs, &r->io);
		f->block = e.phys;
		if (f->rc)
			snprintf(f->text, sizeof(f->text), "it cannot be read: %s", strerror(-f->rc));
		else if ((f->rc = bs_sum_page_check(s->bs, r->buf, page)))
			snprintf(f->text, sizeof(f->text), "it is no page of the checksums of blocks %" PRIu64 " and on", page * BS_SUM_PAGE);
		bs_map_lookup(blob, page, 1, &now);
	} while (f->rc && now.phys != e.phys);
	return f->rc;
}

static int scrub_sum_page(struct scrub *s, uint64_t page)
{
	struct bs_scrub_finding f = { .what = BS_SCRUB_SUMS };
	int rc = read_sum_page(s, page, &f);

	if (rc == -ENOMEM || rc == -ENODEV)
		return rc;
	if (rc)
		found(s, &f);
	s->res.meta_bytes += BS_BLOCK;
	return pace(s, BS_BLOCK);
}

static int scrub_sums(struct scrub *s)
{
	struct bs_extent e;
	int rc = 0;

	for (uint64_t p = 0; s->bs->sums && p < LIMIT && !rc; p = e.block + e.count) {
		bs_map_lookup(s->bs->sums->blob, p, LIMIT - p, &e);
		for (uint64_t i = 0; !(e.flags & BS_RUN_HOLE) && i < e.count && !rc; i++)
			rc = scrub_sum_page(s, e.block + i);
	}
	return rc;
}

/* ---- the whole ---- */

static int make_buffers(struct scrub *s)
{
	uint64_t rate = s->opts->rate;

	/* Within a rate it goes in steps of a sixteenth of a second. */
	s->slots = rate ? 1 : SLOTS;
	s->chunk = rate ? (uint32_t)MIN((uint64_t)BS_IO_MAX, MAX((uint64_t)CHUNK_MIN, round_down(rate / 16, BS_BLOCK))) : BS_IO_MAX;
	for (unsigned i = 0; i < s->slots; i++) {
		s->slot[i].buf = dma_alloc(s->chunk, BS_BLOCK);
		if (!s->slot[i].buf)
			return -ENOMEM;
	}
	return 0;
}

int bs_scrub(struct bs *bs, const struct bs_scrub_opts *opts, struct bs_scrub_result *out)
{
	struct scrub *s = base_calloc(1, sizeof(*s));
	struct bs_stat st;
	int rc = s ? 0 : -ENOMEM;

	memset(out, 0, sizeof(*out));
	if (!s)
		return rc;
	s->bs = bs;
	s->opts = opts;
	s->start_ns = now_ns();
	bs_get_stat(bs, &st);
	s->res.total_bytes = (st.used_blocks - st.sum_pages) * BS_BLOCK;
	rc = make_buffers(s);
	if (!rc)
		rc = scrub_meta(s);
	if (!rc)
		rc = bs_foreach_blob(bs, 0, scrub_blob, s);
	if (!rc && s->n)
		rc = run(s);
	if (!rc)
		rc = scrub_sums(s);
	for (unsigned i = 0; i < s->n; i++) /* after an error: prepared, not begun */
		bs_blob_put(s->slot[i].io.blob);
	for (unsigned i = 0; i < s->slots; i++)
		dma_free(s->slot[i].buf);
	free(s->seen);
	*out = s->res;
	free(s);
	return rc;
}
