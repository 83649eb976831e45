/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory as records, for the checkpoint: in order of blob, kind and key, from a cursor on, as much
 * as fits. The store changes between calls; replay puts right what a cursor has passed.
 */
#include <string.h>

#include "blob/mutation.h"
#include "blob/sum.h"

struct page {
	uint8_t *buf;
	uint32_t len, used, count, need;
	struct bs_cursor first;
};

static bool emit(struct page *p, struct bs_rec *rec)
{
	uint32_t size = bs_rec_size(rec->len);

	if (size > p->len - p->used) {
		p->need = size;
		return false;
	}
	if (!p->count)
		p->first =
			(struct bs_cursor){ .blob = rec->blob, .key = rec->key, .kind = rec->kind };
	p->used += bs_rec_encode(rec, p->buf + p->used);
	p->count++;
	return true;
}

static bool emit_header(struct page *p, const struct bs_blob *blob)
{
	struct {
		struct bs_header_disk head;
		uint8_t user[BS_USER_MAX];
	} value;
	struct bs_rec rec = {
		.op = BS_REC_PUT, .kind = BS_KIND_HEADER, .blob = blob->id, .value = &value
	};

	memset(&value, 0, sizeof(value));
	value.head.size = le64_make(blob->size);
	value.head.flags = le32_make(blob->sealed ? BS_HEADER_SEALED : 0);
	value.head.user_len = le32_make(blob->user_len);
	if (blob->user_len)
		memcpy(value.user, blob->user, blob->user_len);
	rec.len = (uint32_t)sizeof(value.head) + blob->user_len;
	return emit(p, &rec);
}

/* Runs from *key on, so many as a record takes: 0, all are out; negative: the page is full. */
static int emit_runs(struct page *p, const struct bs_blob *blob, uint64_t *key)
{
	struct bs_run run[BS_CAPTURE_RUNS];
	struct bs_run_disk disk[BS_CAPTURE_RUNS];
	struct bs_rec rec = {
		.op = BS_REC_PUT, .kind = BS_KIND_RUN, .blob = blob->id, .value = disk
	};
	uint32_t room = p->len - p->used, most = 1;
	unsigned n;

	if (room >= bs_rec_size(2 * sizeof(disk[0])))
		most = MIN(BS_CAPTURE_RUNS, (room - (uint32_t)sizeof(struct bs_rec_disk)) /
						    (uint32_t)sizeof(disk[0]));
	n = bs_runmap_copy(&blob->map, *key, run, most);
	if (!n)
		return 0;
	/* Runs may have grown together since the cursor was set: only what lies behind it. */
	if (run[0].logical < *key) {
		uint64_t cut = *key - run[0].logical;

		bs_run_set(&run[0], *key, bs_run_phys(&run[0]) + cut, run[0].count - cut,
			   run[0].flags);
	}
	for (unsigned i = 0; i < n; i++)
		bs_run_to_disk(&run[i], &disk[i]);
	rec.key = run[0].logical;
	rec.len = n * (uint32_t)sizeof(disk[0]);
	if (!emit(p, &rec))
		return -1;
	*key = bs_run_end(&run[n - 1]);
	return 1;
}

/* Checksums that are in no page yet. False: the page is full. */
static bool emit_sums(struct page *p, const struct bs *bs, uint64_t *key)
{
	le32 sum[BS_SUM_PAGE];
	uint64_t first;
	uint32_t n;

	while ((n = BS_MUTATE(sum_captured) ? 0 : bs_sum_capture(bs, *key, &first, sum, BS_SUM_PAGE))) {
		struct bs_rec rec = { .op = BS_REC_PUT, .kind = BS_KIND_SUM, .blob = BS_SUM_ID, .key = first,
				      .len = n * (uint32_t)sizeof(sum[0]), .value = sum };

		if (!emit(p, &rec))
			return false;
		*key = first + n;
	}
	return true;
}

/* False: the page is full. */
static bool emit_carried(struct page *p, const struct bs_blob *blob, uint64_t *key)
{
	uint8_t value[sizeof(struct bs_carried_disk) + BS_BLOCK];
	const struct bs_carried *c;

	while ((c = BS_MUTATE(carried_captured) ? NULL : bs_carried_from(blob, *key))) {
		struct bs_rec rec = { .op = BS_REC_PUT,
				      .kind = BS_KIND_LOGDATA,
				      .blob = blob->id,
				      .key = c->block,
				      .len = bs_carried_value(c, value),
				      .value = value };

		if (!emit(p, &rec))
			return false;
		*key = c->block + 1;
	}
	return true;
}

/* False: the page is full. */
static bool emit_items(struct page *p, const struct bs_blob *blob, struct bs_cursor *cursor)
{
	const struct bs_item *item = bs_item_next(blob, NULL, cursor->kind, cursor->key);

	for (; item; item = bs_item_next(blob, item, 0, 0)) {
		struct bs_rec rec = { .op = BS_REC_PUT,
				      .kind = item->kind,
				      .blob = blob->id,
				      .key = item->key,
				      .len = item->len,
				      .value = item->value };

		cursor->kind = item->kind;
		cursor->key = item->key;
		if (!emit(p, &rec))
			return false;
	}
	return true;
}

/* All of one blob from the cursor on. False: the page is full. */
static bool emit_blob(struct page *p, const struct bs_blob *blob, struct bs_cursor *cursor)
{
	int rc;

	if (cursor->kind == BS_KIND_HEADER) {
		if (!emit_header(p, blob))
			return false;
		cursor->kind = BS_KIND_RUN;
		cursor->key = 0;
	}
	if (cursor->kind == BS_KIND_RUN) {
		while ((rc = emit_runs(p, blob, &cursor->key)) > 0)
			;
		if (rc < 0)
			return false;
		cursor->kind = BS_KIND_LOGDATA;
		cursor->key = 0;
	}
	if (cursor->kind == BS_KIND_LOGDATA) {
		if (!emit_carried(p, blob, &cursor->key))
			return false;
		cursor->kind = BS_KIND_LOGDATA + 1;
		cursor->key = 0;
	}
	if (cursor->kind < BS_KIND_SUM) {
		cursor->kind = BS_KIND_SUM;
		cursor->key = 0;
	}
	if (cursor->kind == BS_KIND_SUM && blob->bs->sums && blob == blob->bs->sums->blob &&
	    !emit_sums(p, blob->bs, &cursor->key))
		return false;
	return emit_items(p, blob, cursor);
}

uint32_t bs_capture(struct bs *bs, struct bs_cursor *cursor, void *buf, uint32_t len,
		    struct bs_cursor *first, uint32_t *count, uint32_t *need)
{
	struct page p = { .buf = buf, .len = len };
	struct bs_blob *blob;

	while ((blob = bs_index_next(bs, cursor->blob))) {
		if (blob->id != cursor->blob)
			*cursor = (struct bs_cursor){ .blob = blob->id };
		if (!emit_blob(&p, blob, cursor))
			break;
		*cursor = (struct bs_cursor){ .blob = blob->id + 1 };
	}
	*first = p.first;
	*count = p.count;
	*need = p.need;
	return p.used;
}
