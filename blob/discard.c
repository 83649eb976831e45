/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Discards (R3). Only what the map of used blocks has as free is discarded, so its freeing is durable and nobody has I/O on it
 * any more. While that goes on the blocks are owned, as if somebody had allocated them; who finds no space meanwhile waits, as for
 * everything that is being freed, and never more than a quarter of what is available is taken away at once.
 *
 * With BS_DISCARD what becomes free is noted in a bitmap of its own, and some time later the service goes over it. So what was freed bit by
 * bit is one extent by then, and what is in use again is left alone. What is too short stays noted and may grow together with its
 * neighbours. Trimming goes over all that is free. A discard that fails is passed over: it is advice.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "blob/internal.h"
#include "blob/mutation.h"

#define WORD 64u
#define LONGEST (64 * MiB / BS_BLOCK)  /* blocks of one discard */
#define LOOK 4096u                     /* words looked at with the lock held */
#define MIN_DEFAULT (64 * KiB)
#define RATE_DEFAULT GiB
#define PAUSE_MS 20u                   /* between batches: some 3,000 discards a second */

void bs_space_stale(struct bs_space *s, uint64_t block, uint64_t count)
{
	if (!s->stale)
		return;
	for (uint64_t b = block, end = block + count, n; b < end; b += n) {
		n = MIN(end - b, WORD - b % WORD);
		s->stale[b / WORD] |= (n == WORD ? ~0ull : (1ull << n) - 1) << (b % WORD);
		s->stale_region[b / WORD / s->region_words] = 1;
	}
	atomic_store_explicit(&s->stale_new, true, memory_order_relaxed);
}

void bs_space_fresh(struct bs_space *s, uint64_t block, uint64_t count)
{
	for (uint64_t b = block, end = block + count, n; s->stale && b < end; b += n) {
		n = MIN(end - b, WORD - b % WORD);
		s->stale[b / WORD] &= ~((n == WORD ? ~0ull : (1ull << n) - 1) << (b % WORD));
	}
}

bool bs_discard_wanted(struct bs *bs)
{
	return bs->space->stale && atomic_load_explicit(&bs->space->stale_new, memory_order_relaxed);
}

void bs_discard_walk_init(struct bs *bs, struct bs_discard_walk *w)
{
	uint64_t min = bs->opts.discard_min ? bs->opts.discard_min : MIN_DEFAULT;

	*w = (struct bs_discard_walk){ .end = UINT64_MAX, .min = MAX(min / BS_BLOCK, 1ull), .joined = UINT64_MAX, .stale = true };
	atomic_store_explicit(&bs->space->stale_new, false, memory_order_relaxed);
}

/* ---- finding extents; space->lock held ---- */

/* Of one word, the blocks to be discarded. */
static uint64_t wanted(const struct bs_space *s, uint64_t w, bool stale)
{
	if (BS_MUTATE(discard_durable) && s->stale)
		return s->stale[w] | (stale ? 0 : ~s->bits[w]);
	return stale ? s->stale[w] & ~s->bits[w] : ~s->bits[w];
}

/* Where the region that begins with word w ends, if nothing in it became stale; else w. */
static uint64_t pass_region(struct bs_space *s, uint64_t w)
{
	uint64_t r = w / s->region_words;

	if (w % s->region_words || s->stale_region[r]) {
		if (w % s->region_words == 0)
			s->stale_region[r] = 0;
		return w;
	}
	return w + s->region_words;
}

/* The next extent at or after walk->at, of which only the first LONGEST blocks matter. False: none, or enough was looked at. */
static bool find_extent(struct bs_space *s, struct bs_discard_walk *walk, uint64_t end, uint32_t *look, uint64_t *block, uint64_t *count)
{
	while (walk->at < end && *look) {
		uint64_t w = walk->at / WORD, v, e;

		if (walk->stale && pass_region(s, w) != w) {
			walk->at = pass_region(s, w) * WORD;
			continue;
		}
		--*look;
		v = wanted(s, w, walk->stale) & ~0ull << (walk->at % WORD);
		if (!v) {
			walk->at = (w + 1) * WORD;
			continue;
		}
		*block = w * WORD + (unsigned)__builtin_ctzll(v);
		if (*block >= end) {
			walk->at = end;
			return false;
		}
		for (e = *block; e < end && e - *block < LONGEST; e = (w + 1) * WORD, w++) {
			v = ~wanted(s, w, walk->stale) & ~0ull << (e % WORD);
			if (!v)
				continue;
			e = w * WORD + (unsigned)__builtin_ctzll(v);
			break;
		}
		*count = MIN(e, end) - *block;
		return true;
	}
	return false;
}

/* How many blocks may be taken at once. Metadata takes whole units and does not wait for them: where few are left no more than half of one. */
static uint64_t quota_of(const struct bs_space *s)
{
	uint64_t avail = s->free_clusters > s->reserved ? s->free_clusters - s->reserved : 0;
	uint64_t quota = avail ? MAX(avail / 4, 1ull) * s->cluster_blocks : 0;

	return avail * s->cluster_blocks < 64ull * s->unit_blocks ? MIN(quota, s->unit_blocks / 2) : quota;
}

static void take_extents(struct bs *bs, struct bs_discard_walk *walk, struct bs_discard *d, bool *full)
{
	struct bs_space *s = bs->space;
	uint64_t cb = s->cluster_blocks, quota = quota_of(s), end = MIN(walk->end, s->blocks), block, count;
	uint32_t look = LOOK;

	while (d->n < BS_DISCARDS && find_extent(s, walk, end, &look, &block, &count)) {
		uint64_t most = MIN(quota, (uint64_t)LONGEST);

		if (count < walk->min && block != walk->joined) {
			walk->at = block + count;
			continue;
		}
		/* Cut where a cluster ends, so that no more of them are taken than the quota has. */
		if (count > most)
			count = most > block % cb ? round_down(block + most, cb) - MIN(block, round_down(block + most, cb)) : 0;
		if (!count) {
			*full = true;
			if (walk->stale)
				s->stale_region[block / WORD / s->region_words] = 1;
			break;
		}
		if (!BS_MUTATE(discard_durable))
			bs_space_own(s, block, count);
		bs_space_fresh(s, block, count);
		d->ext[d->n].block = block;
		d->ext[d->n++].count = count;
		d->blocks += count;
		quota -= count;
		walk->at = walk->joined = block + count;
	}
	if (!d->n)
		return;
	s->pending += d->blocks;
	s->releasing++;
}

bool bs_discard_take(struct bs *bs, struct bs_discard_walk *walk, struct bs_discard *d)
{
	struct bs_space *s = bs->space;
	bool full = false, more = true;

	d->bs = bs;
	d->n = d->next = 0;
	d->blocks = 0;
	while (more && !d->n && !full && !atomic_load(&bs->frozen)) {
		pthread_mutex_lock(&s->lock);
		take_extents(bs, walk, d, &full);
		more = walk->at < MIN(walk->end, s->blocks);
		pthread_mutex_unlock(&s->lock);
	}
	return d->n > 0;
}

/* ---- discarding ---- */

static void discard_done(struct bdev_io *io, int rc)
{
	struct bs_discard *d = io->cb_arg;

	if (!rc) {
		atomic_fetch_add(&d->bs->space->discards, 1);
		atomic_fetch_add(&d->bs->space->discarded, io->length);
	}
	op_child_done(&d->op, 0);
}

static void submit(struct bs_discard *d)
{
	for (unsigned i = 0; i < ARRAY_SIZE(d->io) && d->next < d->n; i++, d->next++) {
		bdev_io_init_buf(&d->io[i], BDEV_DISCARD, NULL, d->ext[d->next].block * BS_BLOCK, d->ext[d->next].count * BS_BLOCK,
				 discard_done, d);
		op_child_begin(&d->op);
		bdev_submit(d->ch, &d->io[i]);
	}
	bdev_kick(d->ch);
}

static void give_back(struct bs_discard *d)
{
	struct bs_space *s = d->bs->space;

	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < d->n && !BS_MUTATE(discard_durable); i++)
		bs_space_clear(s, d->ext[i].block, d->ext[i].count);
	s->pending -= d->blocks;
	pthread_mutex_unlock(&s->lock);
	bs_space_batch_done(s);
}

static enum op_next discard_step(struct op *op)
{
	struct bs_discard *d = container_of(op, struct bs_discard, op);

	switch (op->step) {
	case 0:
		submit(d);
		return op_await(op, d->next < d->n ? 0 : 1, 0);
	case 1:
		give_back(d);
		return op_finish(op);
	}
	return op_bug(op);
}

void bs_discard_run(struct bs *bs, struct bdev_channel *ch, struct bs_discard *d, op_done_fn done, void *arg)
{
	d->bs = bs;
	d->ch = ch;
	op_init(&d->op, "discard", discard_step, bdev_channel_driver(ch), done, arg);
	op_start(&d->op);
}

static uint64_t pause_ns(uint64_t blocks, uint64_t rate)
{
	return rate ? (uint64_t)((double)(blocks * BS_BLOCK) * 1e9 / (double)rate) : 0;
}

uint64_t bs_discard_pause_ms(const struct bs *bs, const struct bs_discard *d)
{
	uint64_t rate = bs->opts.discard_rate ? bs->opts.discard_rate : RATE_DEFAULT;

	return MAX((uint64_t)PAUSE_MS, pause_ns(d->blocks, rate) / 1000000);
}

/* ---- blocking ---- */

struct blocking {
	struct bs_discard d;
	struct bs_discard_walk walk;
};

/* One batch; false: there was none. */
static bool one_batch(struct bs *bs, struct bdev_channel *ch, struct blocking *b)
{
	if (!bs_discard_take(bs, &b->walk, &b->d))
		return false;
	bs_discard_run(bs, ch, &b->d, NULL, NULL);
	op_wait(&b->d.op);
	return true;
}

static void discard_until(struct bs *bs, uint64_t until_ns)
{
	struct blocking *b = bs_discard_wanted(bs) ? base_calloc(1, sizeof(*b)) : NULL;
	struct bdev_channel *ch;

	if (!b)
		return;
	ch = bdev_channel_borrow(bs->dev);
	bs_discard_walk_init(bs, &b->walk);
	while (base_now_ns() < until_ns && one_batch(bs, ch, b))
		;
	bdev_channel_return(ch);
	free(b);
}

void bs_discard_all(struct bs *bs)
{
	discard_until(bs, UINT64_MAX);
}

void bs_discard_rest(struct bs *bs)
{
	if (!bs->space->stale)
		return;
	bs_space_release(bs);
	discard_until(bs, base_now_ns() + 1000000000ull);
}

void bs_discard_get_stat(struct bs *bs, struct bs_stat *st)
{
	st->discards = atomic_load(&bs->space->discards);
	st->discarded_bytes = atomic_load(&bs->space->discarded);
}

/* ---- trimming ---- */

/* False: stop. */
static bool pause_between(const struct bs_trim_opts *o, uint64_t ns)
{
	for (bool last = false; !last;) {
		struct timespec ts = { .tv_nsec = (long)MIN(ns, 100000000ull) };

		if (o->stop && o->stop(o->arg))
			return false;
		nanosleep(&ts, NULL);
		ns -= (uint64_t)ts.tv_nsec;
		last = !ns;
	}
	return true;
}

static int check_trim(struct bs *bs, const struct bs_trim_opts *o, struct base_err *err)
{
	const struct bdev_info *info = bdev_info(bs->dev);

	if (o->size != sizeof(*o))
		return base_err_set(err, -EINVAL, "trim options have the wrong size");
	if (bs->flags & BS_RDONLY || atomic_load(&bs->frozen))
		return base_err_set(err, -EROFS, "%s: read-only", info->name);
	if (!info->discard)
		return base_err_set(err, -EOPNOTSUPP, "%s: the device has no discard", info->name);
	if (o->offset >= info->size)
		return base_err_set(err, -EINVAL, "%s: the offset is past its end", info->name);
	return 0;
}

int bs_trim(struct bs *bs, const struct bs_trim_opts *opts, uint64_t *bytes, struct base_err *err)
{
	static const struct bs_trim_opts usual = { .size = sizeof(usual) };
	const struct bs_trim_opts *o = opts ? opts : &usual;
	struct bdev_channel *ch;
	struct blocking *b;
	uint64_t last;
	int rc;

	*bytes = 0;
	rc = check_trim(bs, o, err);
	if (rc)
		return rc;
	b = base_calloc(1, sizeof(*b));
	if (!b)
		return base_err_set(err, -ENOMEM, "%s: out of memory", bdev_info(bs->dev)->name);
	last = o->length && o->length < UINT64_MAX - o->offset ? o->offset + o->length : UINT64_MAX;
	b->walk = (struct bs_discard_walk){ .at = div_round_up(MIN(o->offset, UINT64_MAX - BS_BLOCK), BS_BLOCK), .end = last / BS_BLOCK,
					    .min = MAX(div_round_up(MIN(o->min_length, UINT64_MAX - BS_BLOCK), BS_BLOCK), 1ull), .joined = UINT64_MAX };
	ch = bdev_channel_borrow(bs->dev);
	while (one_batch(bs, ch, b)) {
		*bytes += b->d.blocks * BS_BLOCK;
		if (!pause_between(o, pause_ns(b->d.blocks, o->rate))) {
			rc = base_err_set(err, -EINTR, "%s: stopped", bdev_info(bs->dev)->name);
			break;
		}
	}
	bdev_channel_return(ch);
	free(b);
	return rc;
}
