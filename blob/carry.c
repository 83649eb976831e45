/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bytes carried in the log (R10). A transaction may hold bytes of a block instead of naming a place for them. They lie over what the
 * block's place holds, for every reader, until a write of the whole block is published: the transaction that publishes it
 * deletes them. So a block's content is its place's (zeroes, if it has none) under what is carried for it, and that
 * is so live, in the checkpoint, after replay and on a store opened read-only.
 *
 * What is carried for one block is one range of bytes; what comes later lies over it and has to touch it, so that it stays one.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "blob/internal.h"
#include "blob/mutation.h"

static int carried_cmp(const struct bs_carried *a, const struct bs_carried *b)
{
	return a->block < b->block ? -1 : a->block > b->block;
}

BS_RB_GENERATE(bs_carried_tree, bs_carried, node, carried_cmp)

/* ---- in memory; bs->lock or the blob's maplock held, or inside a look (epoch.h) ---- */

struct bs_carried *bs_carried_from(const struct bs_blob *blob, uint64_t block)
{
	struct bs_carried *c = RB_ROOT(&blob->carried), *best = NULL;

	while (c) {
		if (c->block >= block)
			best = c;
		c = c->block >= block ? RB_LEFT(c, node) : RB_RIGHT(c, node);
	}
	return best;
}

bool bs_carried_any(const struct bs_blob *blob, uint64_t block, uint64_t count)
{
	const struct bs_carried *c = bs_carried_from(blob, block);

	return c && c->block - block < count;
}

static uint32_t rec_size(uint32_t bytes)
{
	return bs_rec_size((uint32_t)sizeof(struct bs_carried_disk) + bytes);
}

static void take_out(struct bs *bs, struct bs_blob *blob, struct bs_carried *c)
{
	RB_REMOVE(bs_carried_tree, &blob->carried, c);
	bs->meta_bytes -= rec_size(c->to - c->from);
	atomic_fetch_sub_explicit(&bs->n_carried, 1, memory_order_relaxed);
	free(c);
}

void bs_carried_del(struct bs *bs, struct bs_blob *blob, uint64_t block, uint64_t count)
{
	struct bs_carried *c = bs_carried_from(blob, block), *next;

	for (; c && c->block - block < count; c = next) {
		next = RB_NEXT(bs_carried_tree, &blob->carried, c);
		take_out(bs, blob, c);
	}
}

static struct bs_carried *find(const struct bs_blob *blob, uint64_t block)
{
	struct bs_carried *c = bs_carried_from(blob, block);

	return c && c->block == block ? c : NULL;
}

/* The bytes that a record puts. */
static void bytes_of(const struct bs_rec *rec, uint32_t *from, uint32_t *to)
{
	*from = le32_get(((const struct bs_carried_disk *)rec->value)->from);
	*to = *from + rec->len - (uint32_t)sizeof(struct bs_carried_disk);
}

/* Live, one block follows the other, and there are few: then it has room for all of it at once. What a device holds, however many small
 * ones, takes memory by its size. */
int bs_carried_prep(struct bs *bs, const struct bs_rec *rec, struct bs_carried **out)
{
	const struct bs_blob *blob = bs_index_find(bs, rec->blob);
	const struct bs_carried *old = blob ? find(blob, rec->key) : NULL;
	uint32_t from, to;

	bytes_of(rec, &from, &to);
	if (old && bs->recovering) {
		from = MIN(from, old->from);
		to = MAX(to, old->to);
	}
	if (!bs->recovering)
		from = 0, to = BS_BLOCK;
	*out = base_malloc(sizeof(**out) + to - from);
	if (!*out)
		return -ENOMEM;
	(*out)->base = from;
	return 0;
}

/* Ranges that do not touch are met in replay only, where the deletion of the older one follows. */
void bs_carried_put(struct bs *bs, struct bs_blob *blob, const struct bs_rec *rec, uint64_t lsn, struct bs_prep *prep)
{
	struct bs_carried *old = find(blob, rec->key), *c = prep->carried;
	uint32_t from, to;

	bytes_of(rec, &from, &to);
	prep->carried = NULL;
	c->block = rec->key;
	c->lsn = lsn;
	c->from = from;
	c->to = to;
	if (BS_MUTATE(carried_order))
		memcpy(c->data + (from - c->base), (const struct bs_carried_disk *)rec->value + 1, to - from);
	if (old && from <= old->to && to >= old->from) {
		memcpy(c->data + (old->from - c->base), old->data + (old->from - old->base), old->to - old->from);
		c->from = MIN(from, old->from);
		c->to = MAX(to, old->to);
	}
	if (!BS_MUTATE(carried_order))
		memcpy(c->data + (from - c->base), (const struct bs_carried_disk *)rec->value + 1, to - from);
	if (old)
		take_out(bs, blob, old);
	RB_INSERT(bs_carried_tree, &blob->carried, c);
	atomic_fetch_add_explicit(&bs->n_carried, 1, memory_order_relaxed);
	bs->meta_bytes += rec_size(c->to - c->from);
	if (bs->recovering)
		return;
	atomic_fetch_add_explicit(&bs->carries, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&bs->carried_bytes, to - from, memory_order_relaxed);
}

uint32_t bs_carried_value(const struct bs_carried *c, void *value)
{
	struct bs_carried_disk d = { .from = le32_make(c->from) };

	memcpy(value, &d, sizeof(d));
	memcpy((uint8_t *)value + sizeof(d), c->data + (c->from - c->base), c->to - c->from);
	return (uint32_t)sizeof(d) + c->to - c->from;
}

/* ---- reading ---- */

uint64_t bs_carried_state(struct bs_blob *blob, uint64_t block, uint64_t count)
{
	pthread_rwlock_t *lock = bs_maplock(blob->bs, blob->id);
	const struct bs_carried *c;
	uint64_t state = 0;

	pthread_rwlock_rdlock(lock);
	for (c = bs_carried_from(blob, block); c && c->block - block < count;
	     c = RB_NEXT(bs_carried_tree, &blob->carried, (struct bs_carried *)c))
		state = (state ^ c->block) * 0x9e3779b97f4a7c15ull + c->lsn;
	pthread_rwlock_unlock(lock);
	return state;
}

/* Bytes [at, at + len) of the iovecs. */
static void iov_put(const struct iovec *iov, uint64_t at, const uint8_t *src, uint64_t len)
{
	while (len) {
		uint64_t n;

		for (; at >= iov->iov_len; iov++)
			at -= iov->iov_len;
		n = MIN(len, iov->iov_len - at);
		memcpy((uint8_t *)iov->iov_base + at, src, n);
		src += n;
		at += n;
		len -= n;
	}
}

bool bs_carried_overlay(const struct bs_io *io, uint64_t state)
{
	struct bs_blob *blob = io->blob;
	pthread_rwlock_t *lock = bs_maplock(blob->bs, blob->id);
	uint64_t block = io->offset / BS_BLOCK, count = io->length / BS_BLOCK, now = 0;
	const struct bs_carried *first, *c;

	pthread_rwlock_rdlock(lock);
	first = bs_carried_from(blob, block);
	for (c = first; c && c->block - block < count; c = RB_NEXT(bs_carried_tree, &blob->carried, (struct bs_carried *)c))
		now = (now ^ c->block) * 0x9e3779b97f4a7c15ull + c->lsn;
	for (c = first; now == state && c && c->block - block < count;
	     c = RB_NEXT(bs_carried_tree, &blob->carried, (struct bs_carried *)c))
		iov_put(io->iov, (c->block - block) * BS_BLOCK + c->from, c->data + (c->from - c->base), c->to - c->from);
	pthread_rwlock_unlock(lock);
	return now == state;
}

bool bs_carried_next(struct bs_blob *blob, uint64_t block, uint64_t max, struct bs_carried_range *out)
{
	pthread_rwlock_t *lock = bs_maplock(blob->bs, blob->id);
	const struct bs_carried *c;
	bool found;

	pthread_rwlock_rdlock(lock);
	c = bs_carried_from(blob, block);
	found = c && c->block - block < max;
	if (found)
		*out = (struct bs_carried_range){ .block = c->block, .from = c->from, .to = c->to };
	pthread_rwlock_unlock(lock);
	return found;
}

/* ---- how much ---- */

uint32_t bs_carry_limit(const struct bs *bs)
{
	return bs->carry_limit;
}

/* What is carried makes metadata grow, by two units at a time at most, and those are taken whatever is reserved for data: so
 * nothing is carried where that could be space which data was promised (R7). */
bool bs_carry_has_space(struct bs *bs)
{
	return bs_space_avail(bs) >= 3ull * le32_get(bs->sb.segment_blocks) / bs->cluster_blocks;
}

bool bs_carry_pays(struct bs *bs, uint64_t bytes)
{
	return bytes <= BS_CARRY_MAX && !(bs->flags & BS_RDONLY) && le64_get(bs->sb.incompat) & BS_INCOMPAT_CARRIED &&
	       atomic_load_explicit(&bs->n_carried, memory_order_relaxed) < bs_carry_limit(bs);
}

bool bs_carry_is_much(struct bs *bs)
{
	return atomic_load_explicit(&bs->n_carried, memory_order_relaxed) > bs_carry_limit(bs) / 2;
}
