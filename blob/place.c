/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where new blocks of a blob go. A group is as many consecutive logical blocks as a cluster has; a
 * block always lies at the place in its cluster that it has in its group, so a cluster belongs to
 * one group of one blob, and is filled bit by bit as the group is. Groups in a row get clusters in
 * a row.
 *
 * An append takes clusters ahead (as many as the blob has, at most AHEAD_BYTES), so that files that
 * grow at the same time do not interleave. They are owned in the bitmap and mapped nowhere; a crash
 * frees them.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "blob/internal.h"

#define AHEAD_BYTES (4 * MiB)
#define AHEAD_FROM 4u   /* clusters a blob has when this begins */
#define AHEAD_SHARE 64u /* at most this part of what is free */

void bs_intents_unmap(struct bs_blob *blob, uint64_t block, uint64_t count)
{
	uint64_t end = count > UINT64_MAX - block ? UINT64_MAX : block + count;
	struct bs_intent *it;

	LIST_FOREACH(it, &blob->intents, link) {
		uint64_t from = MAX(block, it->block), to = MIN(end, it->block + it->count);

		for (uint64_t b = from; b < to; b++)
			it->wanted[(b - it->block) / 64] &= ~(1ull << ((b - it->block) % 64));
	}
}

bool bs_intents_cover(const struct bs_blob *blob, uint64_t block)
{
	const struct bs_intent *it;

	LIST_FOREACH(it, &blob->intents, link) {
		if (block >= it->block && block - it->block < it->count)
			return true;
	}
	return false;
}

/* ---- filling clusters the blob owns part of ---- */

/* The block has its place in the cluster that holds `sibling` of the same group at phys: true if
 * that was free and is now taken. */
static bool try_fill(struct bs *bs, uint64_t block, uint64_t sibling, uint64_t phys, uint64_t *out)
{
	uint64_t mask = bs->cluster_blocks - 1;

	if ((phys & mask) != (sibling & mask)) /* not placed by this code: leave it alone */
		return false;
	*out = (phys & ~mask) + (block & mask);
	return bs_space_take_block(bs, *out);
}

static bool fill_from_map(struct bs *bs, struct bs_blob *blob, uint64_t block, uint64_t *phys)
{
	uint64_t b = round_down(block, bs->cluster_blocks), end = b + bs->cluster_blocks;
	struct bs_extent e;

	for (; b < end; b += e.count) {
		bs_runmap_lookup(&blob->map, b, end - b, &e);
		/* A shared cluster's empty places are whoever's comes first: the map of used blocks decides. */
		if (!(e.flags & BS_RUN_HOLE) && try_fill(bs, block, b, e.phys, phys))
			return true;
	}
	return false;
}

static bool fill_from_intents(struct bs *bs, struct bs_blob *blob, uint64_t block, uint64_t *phys)
{
	uint64_t from = round_down(block, bs->cluster_blocks), end = from + bs->cluster_blocks;
	struct bs_intent *it;

	LIST_FOREACH(it, &blob->intents, link) {
		if (it->block >= end || it->block + it->count <= from)
			continue;
		for (uint32_t i = 0; i < it->n; i++) {
			const struct bs_slice *s = &it->slice[i];
			uint64_t first = MAX(it->block + s->off, from);

			if (s->kind != BS_SLICE_NEW ||
			    first >= MIN(it->block + s->off + s->count, end))
				continue;
			if (try_fill(bs, block, first, s->phys + (first - it->block - s->off),
				     phys))
				return true;
		}
	}
	return false;
}

static int give(struct bs *bs, struct bs_place_req *req, uint64_t logical, uint64_t phys,
		uint64_t count)
{
	int rc = req->fn(req->arg, logical, phys, count);

	if (rc)
		bs_space_free_now(bs, phys, count);
	return rc;
}

/* Blocks of one group from `block` on: as many as find a place in clusters there are. Returns how
 * many, or an error. */
static int64_t fill_group(struct bs *bs, struct bs_place_req *req, uint64_t block, uint64_t count)
{
	uint64_t done = 0, phys;

	while (done < count) {
		int rc;

		if (!fill_from_map(bs, req->blob, block + done, &phys) &&
		    !fill_from_intents(bs, req->blob, block + done, &phys))
			break;
		rc = give(bs, req, block + done, phys, 1);
		if (rc)
			return rc;
		done++;
	}
	return (int64_t)done;
}

/* ---- ahead of appends ---- */

void bs_ahead_drop(struct bs_blob *blob)
{
	struct bs_ahead *a = blob->ahead;

	if (!a)
		return;
	if (a->left)
		bs_space_free_now(blob->bs, a->block, a->left * blob->bs->cluster_blocks);
	LIST_REMOVE(a, link);
	blob->ahead = NULL;
	free(a);
}

void bs_blob_trim_ahead(struct bs_blob *blob)
{
	pthread_mutex_lock(&blob->bs->lock);
	bs_ahead_drop(blob);
	pthread_mutex_unlock(&blob->bs->lock);
}

/* How many clusters to take beyond what group g needs. */
static uint64_t ahead_wanted(struct bs *bs, struct bs_place_req *req, uint64_t group)
{
	struct bs_blob *blob = req->blob;
	uint64_t has = bs_runmap_blocks(&blob->map) / bs->cluster_blocks,
		 most = AHEAD_BYTES / BS_BLOCK / bs->cluster_blocks;
	struct bs_extent e;

	if (!req->ahead)
		return 0;
	most = MIN(most, bs_space_avail(bs) / AHEAD_SHARE);
	if (blob->ahead && blob->ahead->group == group)
		return MIN(most, blob->ahead->size * 2);
	if (has < AHEAD_FROM || group * bs->cluster_blocks < bs_runmap_end(&blob->map))
		return 0;
	bs_runmap_lookup(&blob->map, group * bs->cluster_blocks - 1, 1, &e);
	return e.flags & BS_RUN_HOLE ? 0 : MIN(most, has);
}

static void ahead_set(struct bs *bs, struct bs_blob *blob, uint64_t group, uint64_t block,
		      uint64_t left)
{
	struct bs_ahead *a = base_malloc(sizeof(*a));

	bs_ahead_drop(blob);
	if (!a) {
		bs_space_free_now(bs, block, left * bs->cluster_blocks);
		return;
	}
	*a = (struct bs_ahead){
		.blob = blob, .group = group, .block = block, .left = left, .size = left
	};
	LIST_INSERT_HEAD(&bs->aheads, a, link);
	blob->ahead = a;
}

/* Clusters for groups from `group` on: a run of at most `want`. */
static int get_clusters(struct bs *bs, struct bs_place_req *req, uint64_t group, uint64_t want,
			uint64_t *block, uint64_t *got)
{
	struct bs_ahead *a = req->blob->ahead;
	int rc;

	if (a && a->group == group && a->left) {
		*got = MIN(want, a->left);
		*block = a->block;
		a->group += *got;
		a->block += *got * bs->cluster_blocks;
		a->left -= *got;
		return 0;
	}
	rc = bs_space_alloc(bs, req, want, ahead_wanted(bs, req, group), block, got);
	if (rc)
		return rc;
	if (*got > want) {
		ahead_set(bs, req->blob, group + want, *block + want * bs->cluster_blocks,
			  *got - want);
		*got = want;
	}
	return 0;
}

/* A run of new clusters for as much of [block, block + count) as it covers. Returns how many
 * blocks, or an error. */
static int64_t place_new(struct bs *bs, struct bs_place_req *req, uint64_t block, uint64_t count)
{
	uint64_t cb = bs->cluster_blocks, head = block % cb, phys, got, used;
	int rc = get_clusters(bs, req, block / cb, div_round_up(head + count, cb), &phys, &got);

	if (rc)
		return rc;
	used = MIN(count, got * cb - head);
	/* Only what is used is owned: the rest of these clusters is there for the group's other
	 * blocks. */
	if (head)
		bs_space_free_now(bs, phys, head);
	if (head + used < got * cb)
		bs_space_free_now(bs, phys + head + used, got * cb - head - used);
	rc = give(bs, req, block, phys + head, used);
	return rc ? rc : (int64_t)used;
}

int bs_place(struct bs *bs, struct bs_place_req *req, uint64_t block, uint64_t count)
{
	uint64_t cb = bs->cluster_blocks;

	while (count) {
		uint64_t in_group = MIN(count, cb - block % cb), whole = count;
		int64_t n = 0;

		if (in_group < cb)
			n = fill_group(bs, req, block, in_group);
		if (n >= 0 && (uint64_t)n < in_group) {
			block += (uint64_t)n;
			count -= (uint64_t)n;
			/* The last, partial group looks for its own place first. */
			whole = count - (block + count) % cb;
			n = place_new(bs, req, block, count > (block + count) % cb ? whole : count);
		}
		if (n < 0)
			return (int)n;
		block += (uint64_t)n;
		count -= (uint64_t)n;
	}
	return 0;
}
