/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From unmapped to free (R3). What transactions unmap gathers in the open batch, which knows the
 * highest LSN among them. A release closes the batch: that gives it an epoch. It is freed when its
 * LSN is durable and the epoch is two further (see epoch.c). Until then its bits stay set. Discards
 * come after that (discard.c).
 *
 * Taking extents in never fails: they lie in chunks of the store's pool, or come in the chunks that
 * held them as runs, or as a whole tree of them, which a chunk of pointers refers to.
 */
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "blob/internal.h"
#include "blob/mutation.h"
#include "blob/share.h"

/* ---- gathering ---- */

static void gathered(struct bs_space *s, uint64_t blocks, uint64_t shared, uint64_t lsn)
{
	s->open.blocks += blocks;
	s->pending_shared += shared;
	s->open.lsn = MAX(s->open.lsn, lsn);
	s->pending += blocks;
}

void bs_space_unmapped(struct bs *bs, uint64_t block, uint64_t count, unsigned flags, uint64_t lsn)
{
	struct bs_space *s = bs->space;
	struct bs_chunk *c;

	pthread_mutex_lock(&s->lock);
	if (BS_MUTATE(discard_durable) && !(flags & BS_RUN_SHARED))
		bs_space_stale(s, block, count);
	if (BS_MUTATE(free_durable) && !(flags & BS_RUN_SHARED)) {
		bs_space_clear(s, block, count);
		pthread_mutex_unlock(&s->lock);
		return;
	}
	c = s->open.chunks;
	if (!c || c->n == c->cap) {
		c = bs_spare_take(&bs->spare);
		c->next = s->open.chunks;
		s->open.chunks = c;
	}
	bs_run_set(&c->run[c->n++], 0, block, count, flags & BS_RUN_SHARED);
	gathered(s, count, flags & BS_RUN_SHARED ? count : 0, lsn);
	pthread_mutex_unlock(&s->lock);
}

void bs_space_unmapped_chunk(struct bs *bs, struct bs_chunk *chunk, uint64_t lsn)
{
	struct bs_space *s = bs->space;
	uint64_t blocks = 0, shared = 0;

	for (unsigned i = 0; i < chunk->n; i++) {
		blocks += chunk->run[i].count;
		if (chunk->run[i].flags & BS_RUN_SHARED)
			shared += chunk->run[i].count;
	}
	pthread_mutex_lock(&s->lock);
	/* Behind the first one, which has room. */
	if (s->open.chunks) {
		chunk->next = s->open.chunks->next;
		s->open.chunks->next = chunk;
	} else {
		chunk->next = NULL;
		s->open.chunks = chunk;
	}
	gathered(s, blocks, shared, lsn);
	pthread_mutex_unlock(&s->lock);
}

void bs_space_unmapped_map(struct bs *bs, struct bs_runmap *map, uint64_t lsn)
{
	struct bs_space *s = bs->space;
	struct bs_chunk *c;

	if (map->runs == 1) {
		bs_space_unmapped(bs, bs_run_phys(&map->one), map->one.count, map->one.flags, lsn);
		bs_runmap_init(map);
		return;
	}
	pthread_mutex_lock(&s->lock);
	c = s->open.roots;
	if (!c || c->n == c->cap) {
		c = bs_spare_take(&bs->spare);
		c->next = s->open.roots;
		s->open.roots = c;
	}
	static_assert(sizeof(map->chunks) <= sizeof(c->run[0]),
		      "a run's place holds a tree's root");
	memcpy(&c->run[c->n++], &map->chunks, sizeof(map->chunks));
	gathered(s, bs_runmap_blocks(map), bs_runmap_shared(map), lsn);
	pthread_mutex_unlock(&s->lock);
	bs_runmap_init(map);
}

/* ---- batches ---- */

/* The next chunk of extents of a batch; the caller's then. NULL: it is empty. */
static struct bs_chunk *batch_pop(struct bs_batch *b)
{
	struct bs_chunk *c = b->chunks;
	struct bs_chunk_tree tree;

	if (c) {
		b->chunks = c->next;
		return c;
	}
	while ((c = b->roots)) {
		struct bs_chunk *leaf;

		if (!c->n) {
			b->roots = c->next;
			free(c);
			continue;
		}
		memcpy(&tree, &c->run[c->n - 1], sizeof(tree));
		leaf = bs_chunks_pop(&tree);
		memcpy(&c->run[c->n - 1], &tree, sizeof(tree));
		if (leaf)
			return leaf;
		c->n--;
	}
	return NULL;
}

void bs_space_kept(struct bs *bs, uint64_t blocks, uint64_t shared)
{
	struct bs_space *s = bs->space;

	pthread_mutex_lock(&s->lock);
	s->pending -= blocks;
	s->pending_shared -= shared;
	pthread_mutex_unlock(&s->lock);
}

static bool any_shared(const struct bs_chunk *c)
{
	for (unsigned i = 0; i < c->n; i++)
		if (c->run[i].flags & BS_RUN_SHARED)
			return true;
	return false;
}

/* The same, without what others still have. */
static struct bs_chunk *batch_next(struct bs *bs, struct bs_batch *b)
{
	struct bs_chunk *c, *last;

	while ((c = batch_pop(b)) && any_shared(c)) {
		c = bs_share_drop(bs, c);
		for (last = c; last && last->next; last = last->next)
			;
		if (!last)
			continue;
		last->next = b->chunks;
		b->chunks = c;
	}
	return c;
}

void bs_space_drop_batches(struct bs_space *s)
{
	struct bs_chunk *c;

	while ((c = batch_pop(&s->open)))
		free(c);
	for (; s->closed; s->closed--, s->first = (s->first + 1) % BS_BATCHES)
		while ((c = batch_pop(&s->ring[s->first])))
			free(c);
}

static void close_batch(struct bs *bs)
{
	struct bs_space *s = bs->space;
	struct bs_batch *b = &s->ring[(s->first + s->closed) % BS_BATCHES];

	if (!s->open.blocks || s->closed == BS_BATCHES)
		return;
	*b = s->open;
	b->epoch = bs_epoch_now(bs);
	memset(&s->open, 0, sizeof(s->open));
	s->closed++;
}

/* Moves a batch that may be freed out of the ring. */
static bool take_ready(struct bs *bs, struct bs_batch *out)
{
	struct bs_space *s = bs->space;
	struct bs_batch *b;
	uint64_t durable = bs_durable_lsn(bs), epoch;
	bool ready = false;

	pthread_mutex_lock(&s->lock);
	close_batch(bs);
	epoch = bs_epoch_advance(bs);
	b = &s->ring[s->first];
	if (s->closed && b->lsn <= durable && b->epoch + 2 <= epoch) {
		*out = *b;
		s->first = (s->first + 1) % BS_BATCHES;
		s->closed--;
		s->releasing++;
		ready = true;
	}
	pthread_mutex_unlock(&s->lock);
	return ready;
}

void bs_space_batch_done(struct bs_space *s)
{
	struct bs_drain_waiter *w;

	pthread_mutex_lock(&s->lock);
	if (!--s->releasing)
		while ((w = LIST_FIRST(&s->drain))) {
			LIST_REMOVE(w, link);
			op_child_done(w->op, 0);
		}
	pthread_mutex_unlock(&s->lock);
}

void bs_space_drain_start(struct bs *bs, struct bs_drain_waiter *w, struct op *op)
{
	struct bs_space *s = bs->space;

	op_child_begin(op);
	w->op = op;
	pthread_mutex_lock(&s->lock);
	if (s->releasing)
		LIST_INSERT_HEAD(&s->drain, w, link);
	else
		op_child_done(op, 0);
	pthread_mutex_unlock(&s->lock);
}

/* Frees one chunk's extents; the lock is held for so long only. */
static uint64_t free_chunk(struct bs_space *s, struct bs_chunk *c)
{
	uint64_t blocks = 0;

	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < c->n; i++) {
		bs_space_clear(s, bs_run_phys(&c->run[i]), c->run[i].count);
		bs_space_stale(s, bs_run_phys(&c->run[i]), c->run[i].count);
		blocks += c->run[i].count;
	}
	s->pending -= blocks;
	pthread_mutex_unlock(&s->lock);
	free(c);
	return blocks;
}

static uint64_t free_batch(struct bs *bs, struct bs_batch *b)
{
	struct bs_chunk *c;
	uint64_t blocks = 0;

	while ((c = batch_next(bs, b)))
		blocks += free_chunk(bs->space, c);
	bs_space_batch_done(bs->space);
	return blocks;
}

uint64_t bs_space_release(struct bs *bs)
{
	struct bs_batch b;
	uint64_t blocks = 0;

	while (take_ready(bs, &b))
		blocks += free_batch(bs, &b);
	return blocks;
}

bool bs_space_pending(struct bs *bs)
{
	bool pending;

	pthread_mutex_lock(&bs->space->lock);
	pending = bs->space->pending;
	pthread_mutex_unlock(&bs->space->lock);
	return pending;
}
