/* SPDX-License-Identifier: BSD-2-Clause */
/* Mending: what recovery leaves out and takes note of, and the switch to what came of it. */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "blob/mend.h"
#include "blob/sum.h"

static int put_add(struct bs_mend_put **list, size_t *n, size_t *room, const struct bs_mend_put *put)
{
	if (*n == *room) {
		size_t more = *room ? 2 * *room : 256;
		struct bs_mend_put *p = base_realloc(*list, more * sizeof(*p));

		if (!p)
			return -ENOMEM;
		*list = p;
		*room = more;
	}
	(*list)[(*n)++] = *put;
	return 0;
}

bool bs_mend_refuses(struct bs *bs, const struct bs_rec *rec, const char *pass, uint64_t block)
{
	struct bs_place place = { .pass = pass, .code = "blob-number", .blob = rec->blob, .block = block };

	if ((rec->blob < BS_MEND_SANE || rec->blob == BS_SUM_ID) && bs_sum_record_ok(bs, rec))
		return false;
	bs_complain(bs, NULL, &place, "a record of blob %" PRIu64 ", which cannot be: dropped", rec->blob);
	return true;
}

int bs_mend_note(struct bs *bs, const struct bs_rec *rec, uint64_t lsn, bool lost)
{
	struct bs_mend *m = bs->reporter->mend;
	const struct bs_run_disk *d = rec->value;
	int rc = 0;

	if (lsn < BS_MEND_SANE)
		m->last_lsn = MAX(m->last_lsn, lsn);
	if (rec->blob < BS_MEND_SANE)
		m->last_id = MAX(m->last_id, rec->blob);
	if (rec->op != BS_REC_PUT || rec->kind != BS_KIND_RUN)
		return 0;
	for (uint32_t n = rec->len / (uint32_t)sizeof(*d); n && !rc; n--, d++) {
		struct bs_mend_put put = { .blob = rec->blob, .lsn = lsn };
		struct bs_run run;

		bs_run_from_disk(d, &run);
		put.logical = run.logical;
		put.phys = bs_run_phys(&run);
		put.count = run.count;
		if (!lost)
			rc = put_add(&m->put, &m->n_put, &m->put_room, &put);
		else if (!(run.flags & (BS_RUN_UNWRITTEN | BS_RUN_SHARED))) /* nothing was written there otherwise */
			rc = put_add(&m->lost, &m->n_lost, &m->lost_room, &put);
	}
	return rc;
}

int bs_mend_make_blob(struct bs *bs, uint64_t id, uint64_t lsn, struct bs_blob **out)
{
	struct bs_blob *blob = bs_blob_new(bs, id);

	if (!blob)
		return -ENOMEM;
	blob->lsn = lsn;
	blob->made_up = true;
	bs->meta_bytes += bs_rec_size((uint32_t)sizeof(struct bs_header_disk));
	bs_index_insert(bs, blob);
	bs->next_id = MAX(bs->next_id, id + 1);
	*out = blob;
	return 0;
}

int bs_mend_blobs(struct bs *bs)
{
	struct bs_mend *m = bs->reporter->mend;
	struct bs_place place = { .pass = "blobs", .code = "blob-absent", .block = UINT64_MAX };
	struct bs_blob *blob;

	for (blob = bs_index_next(bs, 0); blob; blob = bs_index_next(bs, blob->id + 1)) {
		place.blob = blob->id;
		if (blob->made_up)
			bs_complain(bs, NULL, &place, "the header of blob %" PRIu64 " is lost; it gets an empty one", blob->id);
	}
	place.blob = m->root;
	if (!m->root || bs_index_find(bs, m->root))
		return 0;
	bs_complain(bs, NULL, &place, "blob %" PRIu64 " is lost; it is made anew", m->root);
	return bs_mend_make_blob(bs, m->root, bs->lsn, &blob);
}

int bs_mend_read(struct bdev_channel *ch, void *buf, uint64_t block, uint32_t blocks)
{
	int rc = bdev_io_sync(ch, BDEV_READ, buf, block * BS_BLOCK, (uint64_t)blocks * BS_BLOCK, 0), bad = 0;

	if (!rc || rc == -ENOMEM)
		return rc;
	for (uint32_t i = 0; i < blocks; i++) {
		uint8_t *p = (uint8_t *)buf + (uint64_t)i * BS_BLOCK;

		rc = bdev_io_sync(ch, BDEV_READ, p, (block + i) * BS_BLOCK, BS_BLOCK, 0);
		if (rc == -ENOMEM)
			return rc;
		if (rc) {
			memset(p, 0, BS_BLOCK);
			bad++;
		}
	}
	return bad;
}

static void mend_free(struct bs_mend *m)
{
	free(m->put);
	free(m->lost);
}

int bs_mend(struct bdev *dev, const struct bs_mend_opts *user_opts, struct bs **out, struct base_err *err)
{
	struct bs_mend_opts opts = { 0 };
	struct bs_mend m = { 0 };
	struct bs_reporter r = { .mend = &m };
	struct bs *bs;
	int rc;

	*out = NULL;
	if (user_opts)
		memcpy(&opts, user_opts, MIN(sizeof(opts), (size_t)user_opts->size));
	if (err)
		err->text[0] = '\0';
	if (bdev_info(dev)->readonly)
		return base_err_set(err, -EROFS, "%s: opened read-only", bdev_info(dev)->name);
	r.fn = opts.report;
	r.arg = opts.arg;
	m.flags = opts.flags;
	m.root = opts.root;
	rc = bs_open_mending(dev, &r, &bs, err);
	mend_free(&m);
	if (rc)
		return rc;
	rc = bs_checkpoint(bs);
	if (rc) {
		base_err_set(err, rc, "%s: what was mended cannot be written: %s; the device is as it was", bdev_info(dev)->name,
			     strerror(-rc));
		bdev_ref(dev); /* the caller's still */
		bs_abandon(bs);
		return rc;
	}
	bs->flags |= BS_BREAK_SEALS;
	*out = bs;
	return 0;
}
