/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Blobs by id, and the items of each. Who holds a count keeps a blob's memory, not its existence: a
 * deleted blob is out of the tree and has no runs, and its items go with the last count, outside
 * every lock.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blob/internal.h"

static int blob_cmp(const struct bs_blob *a, const struct bs_blob *b)
{
	return a->id < b->id ? -1 : a->id > b->id;
}

static int item_cmp(const struct bs_item *a, const struct bs_item *b)
{
	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	return a->key < b->key ? -1 : a->key > b->key;
}

BS_RB_GENERATE(bs_blob_tree, bs_blob, node, blob_cmp)
BS_RB_GENERATE(bs_item_tree, bs_item, node, item_cmp)

/* ---- blobs ---- */

struct bs_blob *bs_blob_new(struct bs *bs, uint64_t id)
{
	struct bs_blob *blob = base_calloc(1, sizeof(*blob));

	if (!blob)
		return NULL;
	blob->bs = bs;
	blob->id = id;
	RB_INIT(&blob->items);
	RB_INIT(&blob->carried);
	bs_runmap_init(&blob->map);
	LIST_INIT(&blob->intents);
	atomic_init(&blob->refs, 1);
	return blob;
}

static void items_free(struct bs_blob *blob)
{
	struct bs_item *item, *next;

	for (item = RB_MIN(bs_item_tree, &blob->items); item; item = next) {
		next = RB_NEXT(bs_item_tree, &blob->items, item);
		RB_REMOVE(bs_item_tree, &blob->items, item);
		free(item);
	}
}

static void blob_free(struct bs_blob *blob)
{
	assert(!blob->ahead && LIST_EMPTY(&blob->intents));
	items_free(blob);
	bs_carried_del(blob->bs, blob, 0, UINT64_MAX);
	bs_runmap_free(&blob->map);
	free(blob->user);
	free(blob);
}

struct bs_blob *bs_index_find(struct bs *bs, uint64_t id)
{
	struct bs_blob *b = *bs_idtable_bucket(&bs->by_id, id);

	while (b && b->id != id)
		b = b->same_bucket;
	return b;
}

struct bs_blob *bs_index_next(struct bs *bs, uint64_t id)
{
	struct bs_blob *b = RB_ROOT(&bs->blobs), *best = NULL;

	while (b) {
		if (b->id >= id) {
			best = b;
			b = RB_LEFT(b, node);
		} else {
			b = RB_RIGHT(b, node);
		}
	}
	return best;
}

/* In steps that all take together, so that they wait for memory together and not one after another. */
void bs_index_prefetch(struct bs *bs, const uint64_t *id, unsigned n)
{
	struct bs_blob *b[BS_INDEX_AHEAD];

	for (unsigned i = 0; i < n; i++)
		__builtin_prefetch(bs_idtable_bucket(&bs->by_id, id[i]));
	for (unsigned i = 0; i < n; i++) {
		b[i] = *bs_idtable_bucket(&bs->by_id, id[i]);
		if (!b[i])
			continue;
		/* It need not begin with a line of the cache. */
		__builtin_prefetch(&b[i]->id);
		__builtin_prefetch(&b[i]->user);
	}
	for (unsigned i = 0; i < n; i++) {
		while (b[i] && b[i]->id != id[i])
			b[i] = b[i]->same_bucket;
		if (b[i] && b[i]->user)
			__builtin_prefetch(b[i]->user - sizeof(size_t));
	}
}

void bs_index_insert(struct bs *bs, struct bs_blob *blob)
{
	pthread_rwlock_wrlock(&bs->index_lock);
	RB_INSERT(bs_blob_tree, &bs->blobs, blob);
	bs_idtable_insert(&bs->by_id, blob, bs->n_blobs);
	pthread_rwlock_unlock(&bs->index_lock);
	bs->n_blobs++;
}

void bs_index_remove(struct bs *bs, struct bs_blob *blob)
{
	pthread_rwlock_wrlock(&bs->index_lock);
	RB_REMOVE(bs_blob_tree, &bs->blobs, blob);
	bs_idtable_remove(&bs->by_id, blob);
	pthread_rwlock_unlock(&bs->index_lock);
	bs->n_blobs--;
}

void bs_index_free(struct bs *bs)
{
	struct bs_blob *blob, *next;

	for (blob = RB_MIN(bs_blob_tree, &bs->blobs); blob; blob = next) {
		next = RB_NEXT(bs_blob_tree, &bs->blobs, blob);
		RB_REMOVE(bs_blob_tree, &bs->blobs, blob);
		bs_blob_put(blob);
	}
	bs_idtable_destroy(&bs->by_id);
}

/* The store's own blob, which has the highest number there can be. */
static bool is_ours(const struct bs *bs, uint64_t id)
{
	return bs->sums && id == BS_SUM_ID;
}

struct bs_blob *bs_blob_get(struct bs *bs, uint64_t id)
{
	struct bs_blob *blob;

	pthread_rwlock_rdlock(&bs->index_lock);
	blob = is_ours(bs, id) ? NULL : bs_index_find(bs, id);
	if (blob)
		bs_blob_ref(blob);
	pthread_rwlock_unlock(&bs->index_lock);
	return blob;
}

void bs_blob_ref(struct bs_blob *blob)
{
	atomic_fetch_add_explicit(&blob->refs, 1, memory_order_relaxed);
}

void bs_blob_put(struct bs_blob *blob)
{
	if (blob && atomic_fetch_sub(&blob->refs, 1) == 1)
		blob_free(blob);
}

uint64_t bs_blob_id(const struct bs_blob *blob)
{
	return blob->id;
}

/* Counts some of them from id on, and brings what is asked of most into the processor's cache. */
static unsigned take_some(struct bs *bs, uint64_t id, struct bs_blob **out)
{
	struct bs_blob *b;
	unsigned n = 0;

	pthread_rwlock_rdlock(&bs->index_lock);
	for (b = bs_index_next(bs, id); b && n < BS_INDEX_AHEAD && !is_ours(bs, b->id); b = RB_NEXT(bs_blob_tree, &bs->blobs, b)) {
		bs_blob_ref(b);
		__builtin_prefetch(b->user);
		out[n++] = b;
	}
	pthread_rwlock_unlock(&bs->index_lock);
	return n;
}

int bs_foreach_blob(struct bs *bs, uint64_t from_id, int (*fn)(struct bs_blob *blob, void *arg),
		    void *arg)
{
	struct bs_blob *some[BS_INDEX_AHEAD];
	unsigned n;
	int rc = 0;

	while (!rc && (n = take_some(bs, from_id, some))) {
		from_id = some[n - 1]->id + 1;
		for (unsigned i = 0; i < n; i++) {
			if (!rc)
				rc = fn(some[i], arg);
			bs_blob_put(some[i]);
		}
	}
	return rc;
}

void bs_blob_get_info(struct bs_blob *blob, struct bs_blob_info *out)
{
	pthread_rwlock_t *lock = bs_maplock(blob->bs, blob->id);

	pthread_rwlock_rdlock(lock);
	out->id = blob->id;
	out->size = blob->size;
	out->mapped_blocks = bs_runmap_blocks(&blob->map);
	out->runs = blob->map.runs;
	out->items = blob->n_items;
	out->lsn = blob->lsn;
	out->user_len = blob->user_len;
	if (blob->user_len)
		memcpy(out->user, blob->user, blob->user_len);
	out->deleted = blob->deleted;
	out->sealed = blob->sealed;
	out->carried = !RB_EMPTY(&blob->carried);
	pthread_rwlock_unlock(lock);
}

void bs_map_lookup(struct bs_blob *blob, uint64_t block, uint64_t max, struct bs_extent *out)
{
	pthread_rwlock_t *lock = bs_maplock(blob->bs, blob->id);

	pthread_rwlock_rdlock(lock);
	bs_runmap_lookup(&blob->map, block, max, out);
	if (blob->sharers && !(out->flags & (BS_RUN_HOLE | BS_RUN_UNWRITTEN)))
		out->flags |= BS_RUN_SHARED;
	pthread_rwlock_unlock(lock);
}

/* ---- items; the blob's maplock held ---- */

/* The first item at or after (kind, key). */
static struct bs_item *item_from(const struct bs_blob *blob, unsigned kind, uint64_t key)
{
	struct bs_item *item = RB_ROOT(&blob->items), *best = NULL;

	while (item) {
		if (item->kind > kind || (item->kind == kind && item->key >= key)) {
			best = item;
			item = RB_LEFT(item, node);
		} else {
			item = RB_RIGHT(item, node);
		}
	}
	return best;
}

const struct bs_item *bs_item_find(const struct bs_blob *blob, unsigned kind, uint64_t key)
{
	struct bs_item *item = RB_ROOT(&blob->items);

	while (item) {
		if (item->kind == kind && item->key == key)
			return item;
		if (item->kind > kind || (item->kind == kind && item->key > key))
			item = RB_LEFT(item, node);
		else
			item = RB_RIGHT(item, node);
	}
	return NULL;
}

const struct bs_item *bs_item_next(const struct bs_blob *blob, const struct bs_item *item,
				   unsigned kind, uint64_t key)
{
	if (item)
		return RB_NEXT(bs_item_tree, &blob->items, (struct bs_item *)item);
	return item_from(blob, kind, key);
}

static void item_out(struct bs_blob *blob, struct bs_item *item)
{
	RB_REMOVE(bs_item_tree, &blob->items, item);
	blob->n_items--;
	blob->item_bytes -= bs_rec_size(item->len);
	free(item);
}

void bs_item_put(struct bs_blob *blob, struct bs_item *item)
{
	struct bs_item *old = RB_INSERT(bs_item_tree, &blob->items, item);

	if (old) {
		item_out(blob, old);
		RB_INSERT(bs_item_tree, &blob->items, item);
	}
	blob->n_items++;
	blob->item_bytes += bs_rec_size(item->len);
}

void bs_item_del(struct bs_blob *blob, unsigned kind, uint64_t key)
{
	struct bs_item *item = (struct bs_item *)bs_item_find(blob, kind, key);

	if (item)
		item_out(blob, item);
}

int bs_item_get(struct bs_blob *blob, unsigned kind, uint64_t key, void *value, uint32_t size)
{
	pthread_rwlock_t *lock = bs_maplock(blob->bs, blob->id);
	const struct bs_item *item;
	int rc = -ENOENT;

	pthread_rwlock_rdlock(lock);
	item = blob->deleted ? NULL : bs_item_find(blob, kind, key);
	if (item) {
		if (size && item->len)
			memcpy(value, item->value, MIN(size, item->len));
		rc = (int)item->len;
	}
	pthread_rwlock_unlock(lock);
	return rc;
}

int bs_item_scan(struct bs_blob *blob, unsigned kind, uint64_t from, bs_item_fn fn, void *arg)
{
	pthread_rwlock_t *lock = bs_maplock(blob->bs, blob->id);
	struct bs_item *item;
	int rc = 0;

	pthread_rwlock_rdlock(lock);
	item = blob->deleted ? NULL : item_from(blob, kind, from);
	while (item && item->kind == kind && !rc) {
		rc = fn(item->key, item->value, item->len, arg);
		item = RB_NEXT(bs_item_tree, &blob->items, item);
	}
	pthread_rwlock_unlock(lock);
	return rc;
}
