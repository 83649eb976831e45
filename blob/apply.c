/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The one way by which memory changes: a record is applied, live or in replay. What could fail is
 * prepared before (bs_prep_make).
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "blob/mend.h"
#include "blob/share.h"
#include "blob/sum.h"

/* Blobs that records in replay named and that are not there: deleted later in the log, or the log
 * is wrong. */
struct orphan {
	RB_ENTRY(orphan) node;
	uint64_t id, lsn;
};
RB_HEAD(orphan_tree, orphan);
struct bs_orphans {
	struct orphan_tree tree;
};

static int orphan_cmp(const struct orphan *a, const struct orphan *b)
{
	return a->id < b->id ? -1 : a->id > b->id;
}

BS_RB_GENERATE(orphan_tree, orphan, node, orphan_cmp)

static int orphan_add(struct bs *bs, uint64_t id, uint64_t lsn)
{
	struct orphan *o;

	if (!bs->recovering)
		return -EUCLEAN;
	if (!bs->orphans) {
		bs->orphans = base_calloc(1, sizeof(*bs->orphans));
		if (!bs->orphans)
			return -ENOMEM;
		RB_INIT(&bs->orphans->tree);
	}
	o = base_malloc(sizeof(*o));
	if (!o)
		return -ENOMEM;
	o->id = id;
	o->lsn = lsn;
	if (RB_INSERT(orphan_tree, &bs->orphans->tree, o))
		free(o);
	return 0;
}

static void orphan_del(struct bs *bs, uint64_t id)
{
	struct orphan key = { .id = id }, *o;

	o = bs->orphans ? RB_FIND(orphan_tree, &bs->orphans->tree, &key) : NULL;
	if (!o)
		return;
	RB_REMOVE(orphan_tree, &bs->orphans->tree, o);
	free(o);
}

void bs_orphans_free(struct bs *bs)
{
	struct orphan *o, *next;

	if (!bs->orphans)
		return;
	for (o = RB_MIN(orphan_tree, &bs->orphans->tree); o; o = next) {
		next = RB_NEXT(orphan_tree, &bs->orphans->tree, o);
		RB_REMOVE(orphan_tree, &bs->orphans->tree, o);
		free(o);
	}
	free(bs->orphans);
	bs->orphans = NULL;
}

int bs_apply_finish(struct bs *bs, struct base_err *err)
{
	struct orphan *o = bs->orphans ? RB_MIN(orphan_tree, &bs->orphans->tree) : NULL;
	int rc = 0;

	if (o)
		rc = base_err_set(err, -EUCLEAN,
				  "log record %" PRIu64 " changes blob %" PRIu64
				  ", which does not exist",
				  o->lsn, o->id);
	bs_orphans_free(bs);
	/* Records of checkpoints are longer than those of most transactions. */
	bs_spare_trim(&bs->spare, 0);
	return rc;
}

/* ---- preparing ---- */

uint64_t bs_runs_bytes(uint64_t runs)
{
	return runs ? runs * sizeof(struct bs_run_disk) +
			       (runs / BS_CAPTURE_RUNS + 1) * sizeof(struct bs_rec_disk)
		    : 0;
}

/* Chunks of the pool one record may take: one for each change of a map, and what holds the extents
 * that become unmapped. */
static uint32_t chunks_for(const struct bs *bs, const struct bs_rec *rec)
{
	const struct bs_run_disk *d = rec->value;
	uint32_t n = rec->len / sizeof(*d), extents = 0;

	if (rec->op == BS_REC_DEL_BLOB)
		return 1;
	if (rec->kind == BS_KIND_SHARE)
		return BS_SHARE_CHUNKS;
	if (rec->kind != BS_KIND_RUN)
		return 0;
	if (bs->recovering)
		return rec->op == BS_REC_PUT ? n : 1;
	if (rec->op == BS_REC_DEL)
		return 4; /* a split, a handed over map, or two chunks of extents and the open one */
	/* Shared runs go where nothing is mapped, in order: a full chunk splits in two with room in both. */
	if (d->flags & BS_RUN_SHARED)
		return n / (BS_CHUNK_RUNS / 2) + 3;
	for (uint32_t i = 0; i < n; i++) {
		struct bs_run run;

		bs_run_from_disk(&d[i], &run);
		extents += (uint32_t)MIN((uint64_t)run.count, 2 * BS_CHUNK_RUNS + 2);
	}
	return n + extents / BS_CHUNK_RUNS + 1;
}

/* Counting them must not fail either. */
static int prep_shared(struct bs *bs, const struct bs_rec *rec)
{
	const struct bs_run_disk *d = rec->value;
	int rc = 0;

	if (bs->recovering || rec->op != BS_REC_PUT || rec->kind != BS_KIND_RUN)
		return 0;
	for (uint32_t i = 0; i < rec->len / sizeof(*d) && !rc; i++) {
		struct bs_run run;

		bs_run_from_disk(&d[i], &run);
		if (run.flags & BS_RUN_SHARED)
			rc = bs_share_prepare(bs, bs_run_phys(&run), run.count);
	}
	return rc;
}

static int prep_header(struct bs *bs, const struct bs_rec *rec, struct bs_blob *made,
		       struct bs_prep *prep)
{
	uint32_t user_len = rec->len - (uint32_t)sizeof(struct bs_header_disk);

	if (user_len) {
		prep->user = base_malloc(user_len);
		if (!prep->user)
			return -ENOMEM;
	}
	if (made) {
		prep->blob = made;
		return 0;
	}
	if (!bs_index_find(bs, rec->blob) && !(prep->blob = bs_blob_new(bs, rec->blob)))
		return -ENOMEM;
	return 0;
}

static int prep_item(const struct bs_rec *rec, struct bs_prep *prep)
{
	struct bs_item *item = base_malloc(offsetof(struct bs_item, value) + rec->len);

	if (!item)
		return -ENOMEM;
	item->key = rec->key;
	item->len = rec->len;
	item->kind = rec->kind;
	if (rec->len)
		memcpy(item->value, rec->value, rec->len);
	prep->item = item;
	return 0;
}

int bs_prep_make(struct bs *bs, const struct bs_rec *rec, struct bs_prep *prep)
{
	return bs_prep_make_blob(bs, rec, NULL, prep);
}

int bs_prep_make_blob(struct bs *bs, const struct bs_rec *rec, struct bs_blob *blob,
		      struct bs_prep *prep)
{
	int rc = 0;

	memset(prep, 0, sizeof(*prep));
	prep->chunks = chunks_for(bs, rec);
	if (prep->chunks) {
		rc = bs_spare_fill(&bs->spare, bs->spare_want + prep->chunks);
		if (!rc)
			rc = prep_shared(bs, rec);
	} else if (rec->op == BS_REC_PUT && rec->kind == BS_KIND_LOGDATA) {
		rc = bs_carried_prep(bs, rec, &prep->carried);
	} else if (rec->kind == BS_KIND_SUM) {
		rc = bs_sum_prep(bs, rec, prep);
	} else if (rec->op == BS_REC_PUT && rec->kind == BS_KIND_HEADER) {
		rc = prep_header(bs, rec, blob, prep);
	} else if (rec->op == BS_REC_PUT) {
		rc = prep_item(rec, prep);
	}
	if (rc)
		bs_prep_drop(prep);
	return rc;
}

void bs_prep_drop(struct bs_prep *prep)
{
	bs_blob_put(prep->blob);
	free(prep->item);
	free(prep->carried);
	for (unsigned i = 0; i < ARRAY_SIZE(prep->sums); i++)
		free(prep->sums[i]);
	free(prep->user);
	memset(prep, 0, sizeof(*prep));
}

/* ---- applying ---- */

struct apply_sink {
	struct bs_sink sink;
	struct bs *bs;
	uint64_t lsn;
};

static void sink_extent(struct bs_sink *sink, uint64_t phys, uint64_t count, unsigned flags)
{
	struct apply_sink *s = container_of(sink, struct apply_sink, sink);

	bs_space_unmapped(s->bs, phys, count, flags, s->lsn);
}

static void sink_chunk(struct bs_sink *sink, struct bs_chunk *chunk)
{
	struct apply_sink *s = container_of(sink, struct apply_sink, sink);

	bs_space_unmapped_chunk(s->bs, chunk, s->lsn);
}

static void apply_header(struct bs *bs, const struct bs_rec *rec, uint64_t lsn,
			 struct bs_blob *blob, struct bs_prep *prep)
{
	const struct bs_header_disk *h = rec->value;
	uint8_t *old;
	bool make = !blob;

	if (make) {
		blob = prep->blob;
		prep->blob = NULL;
	} else {
		bs->meta_bytes -= bs_rec_size((uint32_t)sizeof(*h) + blob->user_len);
	}
	bs->meta_bytes += bs_rec_size(rec->len);
	pthread_rwlock_wrlock(bs_maplock(bs, rec->blob));
	blob->size = le64_get(h->size);
	blob->sealed = le32_get(h->flags) & BS_HEADER_SEALED;
	blob->user_len = (uint8_t)(rec->len - sizeof(*h));
	old = blob->user;
	blob->user = prep->user;
	if (blob->user_len)
		memcpy(blob->user, h + 1, blob->user_len);
	blob->lsn = lsn;
	pthread_rwlock_unlock(bs_maplock(bs, rec->blob));
	prep->user = NULL;
	blob->made_up = false;
	free(old);
	if (make) {
		bs_index_insert(bs, blob);
		bs->next_id = MAX(bs->next_id, rec->blob + 1);
	}
}

static void put_runs(struct bs *bs, const struct bs_rec *rec, struct bs_blob *blob,
		     struct bs_sink *sink)
{
	const struct bs_run_disk *d = rec->value;

	for (uint32_t n = rec->len / sizeof(*d); n; n--, d++) {
		struct bs_run run;

		bs_run_from_disk(d, &run);
		if ((run.flags & BS_RUN_SHARED) && !bs->recovering)
			bs_share_inc(bs, bs_run_phys(&run), run.count);
		bs_runmap_put(&blob->map, &run, &bs->spare, sink);
	}
}

static void del_runs(struct bs *bs, const struct bs_rec *rec, uint64_t lsn, struct bs_blob *blob,
		     struct bs_sink *sink)
{
	uint64_t count = le64_get(*(const le64 *)rec->value);
	struct bs_extent first;

	bs_intents_unmap(blob, rec->key, count);
	bs_runmap_lookup(&blob->map, 0, rec->key ? rec->key : 1, &first);
	if (sink && (!rec->key || (first.flags == BS_RUN_HOLE && first.count == rec->key)) &&
	    bs_runmap_end(&blob->map) <= rec->key + count)
		bs_space_unmapped_map(bs, &blob->map, lsn);
	else
		bs_runmap_del(&blob->map, rec->key, count, &bs->spare, sink);
}

static void apply_runs(struct bs *bs, const struct bs_rec *rec, uint64_t lsn, struct bs_blob *blob)
{
	struct apply_sink s = { .sink = { sink_extent, sink_chunk }, .bs = bs, .lsn = lsn };
	struct bs_sink *sink = bs->recovering ? NULL : &s.sink;

	bs->n_runs -= blob->map.runs;
	bs->n_mapped -= bs_runmap_blocks(&blob->map);
	bs->n_unwritten -= bs_runmap_unwritten(&blob->map);
	bs->meta_bytes -= bs_runs_bytes(blob->map.runs);
	bs_maps_change(bs);
	pthread_rwlock_wrlock(bs_maplock(bs, blob->id));
	if (rec->kind == BS_KIND_SHARE)
		bs_runmap_share(&blob->map, rec->key, le64_get(*(const le64 *)rec->value), &bs->spare);
	else if (rec->op == BS_REC_PUT)
		put_runs(bs, rec, blob, sink);
	else
		del_runs(bs, rec, lsn, blob, sink);
	blob->lsn = lsn;
	pthread_rwlock_unlock(bs_maplock(bs, blob->id));
	bs->n_runs += blob->map.runs;
	bs->n_mapped += bs_runmap_blocks(&blob->map);
	bs->n_unwritten += bs_runmap_unwritten(&blob->map);
	bs->meta_bytes += bs_runs_bytes(blob->map.runs);
}

static void apply_item(struct bs *bs, const struct bs_rec *rec, uint64_t lsn, struct bs_blob *blob,
		       struct bs_prep *prep)
{
	bs->n_items -= blob->n_items;
	bs->meta_bytes -= blob->item_bytes;
	pthread_rwlock_wrlock(bs_maplock(bs, blob->id));
	if (rec->op == BS_REC_PUT) {
		bs_item_put(blob, prep->item);
		prep->item = NULL;
	} else {
		bs_item_del(blob, rec->kind, rec->key);
	}
	blob->lsn = lsn;
	pthread_rwlock_unlock(bs_maplock(bs, blob->id));
	bs->n_items += blob->n_items;
	bs->meta_bytes += blob->item_bytes;
}

static void apply_carried(struct bs *bs, const struct bs_rec *rec, uint64_t lsn, struct bs_blob *blob,
			  struct bs_prep *prep)
{
	bs_maps_change(bs);
	pthread_rwlock_wrlock(bs_maplock(bs, blob->id));
	if (rec->op == BS_REC_PUT)
		bs_carried_put(bs, blob, rec, lsn, prep);
	else
		bs_carried_del(bs, blob, rec->key, le64_get(*(const le64 *)rec->value));
	blob->lsn = lsn;
	pthread_rwlock_unlock(bs_maplock(bs, blob->id));
}

static void apply_delete(struct bs *bs, uint64_t lsn, struct bs_blob *blob)
{
	bs->n_items -= blob->n_items;
	bs->n_runs -= blob->map.runs;
	bs->n_mapped -= bs_runmap_blocks(&blob->map);
	bs->n_unwritten -= bs_runmap_unwritten(&blob->map);
	bs->meta_bytes -= blob->item_bytes + bs_runs_bytes(blob->map.runs) +
			  bs_rec_size((uint32_t)sizeof(struct bs_header_disk) + blob->user_len);
	bs_ahead_drop(blob);
	bs_index_remove(bs, blob);
	bs_maps_change(bs);
	pthread_rwlock_wrlock(bs_maplock(bs, blob->id));
	bs_intents_unmap(blob, 0, UINT64_MAX);
	bs_carried_del(bs, blob, 0, UINT64_MAX);
	if (bs->recovering)
		bs_runmap_free(&blob->map);
	else if (blob->map.runs)
		bs_space_unmapped_map(bs, &blob->map, lsn);
	blob->deleted = true;
	blob->lsn = lsn;
	pthread_rwlock_unlock(bs_maplock(bs, blob->id));
	bs_blob_put(blob);
}

int bs_apply(struct bs *bs, const struct bs_rec *rec, uint64_t lsn, struct bs_prep *prep)
{
	struct bs_blob *blob = bs_index_find(bs, rec->blob);

	if (bs->recovering && !bs_sum_record_ok(bs, rec))
		return -EUCLEAN;
	if (rec->op == BS_REC_DEL_BLOB) {
		if (blob)
			apply_delete(bs, lsn, blob);
		orphan_del(bs, rec->blob);
		return 0;
	}
	if (rec->kind == BS_KIND_HEADER) {
		apply_header(bs, rec, lsn, blob, prep);
		return 0;
	}
	if (!blob && !bs_mending(bs))
		return orphan_add(bs, rec->blob, lsn);
	if (!blob) { /* the rest of it may still be worth having */
		int rc = bs_mend_make_blob(bs, rec->blob, lsn, &blob);

		if (rc)
			return rc;
	}
	if (rec->kind == BS_KIND_RUN || rec->kind == BS_KIND_SHARE)
		apply_runs(bs, rec, lsn, blob);
	else if (rec->kind == BS_KIND_LOGDATA)
		apply_carried(bs, rec, lsn, blob, prep);
	else if (rec->kind == BS_KIND_SUM)
		bs_sum_apply(bs, rec, prep);
	else
		apply_item(bs, rec, lsn, blob, prep);
	return 0;
}
