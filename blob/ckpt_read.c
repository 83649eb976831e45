/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loading a checkpoint: from the root down, each page checked by itself (magic, uuid, address, checksum) and against
 * what its parent said of it (address, length, checksum, first key, level); the leaves' records, in strictly ascending
 * order over all pages, are applied as replay applies the log's.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "blob/ckpt.h"
#include "blob/fetch.h"
#include "blob/mend.h"

#define LOG_COMPONENT "blob"
#include "base/log.h"

#define MAX_LEVEL 6u /* 1,600 to the sixth: more pages than a store has blocks */

struct load {
	struct bs *bs;
	struct bs_ckpt *c;
	struct base_err *err;
	struct bdev_channel *ch;
	uint8_t *page[MAX_LEVEL + 1]; /* by level */
	uint8_t *ahead;               /* leaves lie one behind the other: read to the end of their unit */
	uint64_t ahead_block;
	uint32_t ahead_blocks;
	uint8_t *next_ahead;          /* the next unit, that fetch reads meanwhile */
	struct bs_fetch fetch;
	const struct bs_index_disk *to_come; /* the leaves behind this one, as their parent names them */
	uint32_t n_to_come;
	struct bs_cursor last;        /* of the record applied last */
	uint64_t *seen;               /* mending: a bit a block; pages that were read, for a damaged index may name one again and again */
	bool any;
	uint64_t blocks, items;
};

static int complain(struct load *l, const char *code, uint64_t block, const char *what)
{
	struct bs_place place = { .pass = "checkpoint", .code = code, .block = block };

	return bs_complain(l->bs, l->err, &place, "%s", what);
}

static int compare(const struct bs_cursor *a, const struct bs_cursor *b)
{
	if (a->blob != b->blob)
		return a->blob < b->blob ? -1 : 1;
	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	return a->key < b->key ? -1 : a->key > b->key;
}

/* Where a page may lie: inside one unit, not at the superblocks. */
static bool place_ok(const struct bs *bs, uint64_t address, uint32_t blocks)
{
	uint32_t unit = le32_get(bs->sb.segment_blocks);

	return address && address < bs->blocks && blocks && blocks <= CKPT_BUF / BS_BLOCK &&
	       blocks <= bs->blocks - address && address % unit + blocks <= unit;
}

static bool is_seen(const struct load *l, uint64_t address)
{
	return l->seen[address / 64] >> address % 64 & 1;
}

static void note_seen(struct load *l, uint64_t address)
{
	l->seen[address / 64] |= 1ull << address % 64;
}

static int note_unit(struct load *l, uint64_t address)
{
	uint64_t unit = round_down(address, le32_get(l->bs->sb.segment_blocks));
	struct bs_ckpt_units *u = &l->c->present;

	/* Written front to back: a page's unit is its predecessor's or new. The rest is sorted out at the end. */
	return u->n && u->unit[u->n - 1] == unit ? 0 : bs_ckpt_units_add(u, unit);
}

static uint32_t to_unit_end(const struct load *l, uint64_t block)
{
	uint32_t unit = le32_get(l->bs->sb.segment_blocks);

	return unit - (uint32_t)(block % unit);
}

/* While the leaves of this unit are applied the next unit that has some is read. */
static void fetch_next_unit(struct load *l)
{
	uint64_t end = l->ahead_block + l->ahead_blocks;

	for (uint32_t i = 0; i < l->n_to_come; i++) {
		uint64_t address = le64_get(l->to_come[i].address);

		if (address >= l->ahead_block && address < end)
			continue;
		if (place_ok(l->bs, address, le32_get(l->to_come[i].blocks)))
			bs_fetch_start(&l->fetch, l->ch, l->next_ahead, address, to_unit_end(l, address));
		return;
	}
}

/* The rest of a leaf's unit, from the leaf on. */
static int read_unit(struct load *l, uint64_t address)
{
	bool fetched = l->fetch.under_way && l->fetch.block == address;
	int rc = bs_fetch_wait(&l->fetch);

	l->ahead_blocks = 0;
	if (fetched) {
		uint8_t *swap = l->ahead;

		l->ahead = l->next_ahead;
		l->next_ahead = swap;
	} else {
		rc = bdev_io_sync(l->ch, BDEV_READ, l->ahead, address * BS_BLOCK, (uint64_t)to_unit_end(l, address) * BS_BLOCK, 0);
	}
	if (rc)
		return rc;
	l->ahead_block = address;
	l->ahead_blocks = to_unit_end(l, address);
	fetch_next_unit(l);
	return 0;
}

static int read_blocks(struct load *l, const struct bs_ckpt_entry *e, uint32_t level)
{
	uint64_t len = (uint64_t)e->blocks * BS_BLOCK;
	bool there = e->address >= l->ahead_block && e->address + e->blocks <= l->ahead_block + l->ahead_blocks;

	if (level)
		return bdev_io_sync(l->ch, BDEV_READ, l->page[level], e->address * BS_BLOCK, len, 0);
	if (!there && read_unit(l, e->address)) /* perhaps only for what lies behind the page */
		return bdev_io_sync(l->ch, BDEV_READ, l->page[0], e->address * BS_BLOCK, len, 0);
	memcpy(l->page[0], l->ahead + (e->address - l->ahead_block) * BS_BLOCK, len);
	return 0;
}

static int read_page(struct load *l, const struct bs_ckpt_entry *e, uint32_t level, const struct bs_page_disk **out)
{
	const struct bs_page_disk *p = (const struct bs_page_disk *)l->page[level];
	size_t len = (size_t)e->blocks * BS_BLOCK;
	int rc;

	if (!place_ok(l->bs, e->address, e->blocks))
		return complain(l, "page-address", e->address, "a page of the checkpoint is said to lie where none can");
	if (bs_mending(l->bs) && is_seen(l, e->address))
		return complain(l, "page-again", e->address, "a page of the checkpoint is named twice");
	l->blocks += e->blocks;
	if (l->blocks > le64_get(l->bs->sb.ckpt_blocks) && !bs_mending(l->bs))
		return complain(l, "checkpoint-size", e->address, "the checkpoint has more pages than the superblock says");
	rc = read_blocks(l, e, level);
	if (rc && rc != -ENOMEM && bs_mending(l->bs))
		return complain(l, "page-unreadable", e->address, "a page of the checkpoint cannot be read");
	if (rc)
		return base_err_set(l->err, rc, "block %" PRIu64 ": cannot read the checkpoint: %s", e->address, strerror(-rc));
	if (le32_get(p->magic) != BS_MAGIC_PAGE || memcmp(p->uuid, l->bs->sb.uuid, sizeof(p->uuid)) ||
	    le64_get(p->address) != e->address || le32_get(p->blocks) != e->blocks)
		return complain(l, "page-header", e->address, "this is not the page of the checkpoint that should be here");
	if (le32_get(p->crc) != e->crc ||
	    e->crc != bs_crc_skip(bs_crc_page_seed(p->uuid, e->address), p, len, offsetof(struct bs_page_disk, crc)))
		return complain(l, "page-checksum", e->address, "a page of the checkpoint has a wrong checksum");
	if (le16_get(p->level) != level || le16_get(p->kind) != (level ? BS_PAGE_INDEX : BS_PAGE_LEAF) ||
	    le32_get(p->bytes) > len - sizeof(*p) || !le32_get(p->count) ||
	    (le64_get(p->lsn) > le64_get(l->bs->sb.ckpt_l1) && !bs_mending(l->bs)))
		return complain(l, "page-fields", e->address, "a page of the checkpoint has impossible fields");
	if (e->first.blob &&
	    (le64_get(p->first_blob) != e->first.blob || le64_get(p->first_key) != e->first.key ||
	     le32_get(p->first_kind) != e->first.kind))
		return complain(l, "page-first", e->address, "a page of the checkpoint begins with another key than its parent says");
	*out = p;
	return note_unit(l, e->address);
}

static int apply_record(struct load *l, const struct bs_rec *rec, uint64_t lsn)
{
	struct bs *bs = l->bs;
	struct bs_prep prep;
	int rc;

	if (bs_mending(bs) && bs_mend_refuses(bs, rec, "checkpoint", UINT64_MAX))
		return 0;
	memset(&prep, 0, sizeof(prep));
	rc = bs_prep_make(bs, rec, &prep);
	if (!rc)
		rc = bs_apply(bs, rec, lsn, &prep);
	bs_prep_drop(&prep);
	return rc || !bs_mending(bs) ? rc : bs_mend_note(bs, rec, lsn, false);
}

static int load_leaf(struct load *l, const struct bs_page_disk *p)
{
	const uint8_t *at = (const uint8_t *)(p + 1);
	uint32_t left = le32_get(p->bytes), n = 0;
	uint64_t block = le64_get(p->address);
	int rc;

	for (; left; n++) {
		struct bs_cursor key;
		struct bs_rec rec;
		int size = bs_rec_decode(at, left, l->bs->blocks, &rec);

		if (size < 0 || rec.op != BS_REC_PUT || rec.kind == BS_KIND_SHARE) {
			rc = complain(l, "page-record", block, "a record of this page is malformed");
			size = bs_mending(l->bs) ? bs_rec_skip(at, left) : -1;
			if (size < 0)
				return rc;
			at += size;
			left -= (uint32_t)size;
			continue;
		}
		key = (struct bs_cursor){ .blob = rec.blob, .key = rec.key, .kind = rec.kind };
		rc = l->any && compare(&l->last, &key) >= 0 ?
			     complain(l, "page-order", block, "the records of the checkpoint are out of order") : 0;
		if (rc && !bs_mending(l->bs))
			return rc;
		rc = apply_record(l, &rec, le64_get(p->lsn));
		if (rc == -EUCLEAN)
			return complain(l, "page-apply", block, "a record of this page contradicts what is there");
		if (rc)
			return rc;
		l->last = key;
		l->any = true;
		at += size;
		left -= (uint32_t)size;
	}
	l->items += n;
	if (n != le32_get(p->count))
		return complain(l, "page-count", block, "the page does not hold as many records as it says");
	return 0;
}

static int load_page(struct load *l, const struct bs_ckpt_entry *e, uint32_t level);

static int load_index(struct load *l, const struct bs_page_disk *p, uint32_t level)
{
	const struct bs_index_disk *d = (const struct bs_index_disk *)(p + 1);
	uint32_t n = le32_get(p->count);
	int rc = 0;

	if (n > le32_get(p->bytes) / sizeof(*d) || n * sizeof(*d) != le32_get(p->bytes))
		return complain(l, "page-count", le64_get(p->address), "the page does not hold as many entries as it says");
	for (uint32_t i = 0; i < n && !rc; i++, d++) {
		struct bs_ckpt_entry e = { .address = le64_get(d->address), .blocks = le32_get(d->blocks),
					   .crc = le32_get(d->crc) };

		l->to_come = d + 1;
		l->n_to_come = level == 1 ? n - i - 1 : 0;
		e.first = (struct bs_cursor){ .blob = le64_get(d->blob), .key = le64_get(d->key), .kind = le32_get(d->kind) };
		rc = load_page(l, &e, level - 1);
		if (rc == -EUCLEAN && l->bs->reporter)
			rc = 0; /* checking goes on with the next page */
	}
	return rc;
}

static int load_page(struct load *l, const struct bs_ckpt_entry *e, uint32_t level)
{
	const struct bs_page_disk *p = NULL;
	int rc;

	if (!l->page[level]) {
		l->page[level] = dma_alloc(CKPT_BUF, BS_BLOCK);
		if (!l->page[level])
			return -ENOMEM;
	}
	rc = read_page(l, e, level, &p);
	if (bs_mending(l->bs))
		l->bs->reporter->mend->index_lost |= rc && level;
	if (rc)
		return rc;
	if (bs_mending(l->bs))
		note_seen(l, e->address);
	return level ? load_index(l, p, level) : load_leaf(l, p);
}

/* The root's level stands in the root alone. */
static int root_level(struct load *l, const struct bs_ckpt_entry *root, uint32_t *level)
{
	uint8_t *buf = dma_alloc(BS_BLOCK, BS_BLOCK);
	int rc;

	if (!buf)
		return -ENOMEM;
	rc = bdev_io_sync(l->ch, BDEV_READ, buf, root->address * BS_BLOCK, BS_BLOCK, 0);
	*level = le16_get(((struct bs_page_disk *)buf)->level);
	dma_free(buf);
	if (rc)
		return base_err_set(l->err, rc, "block %" PRIu64 ": cannot read the checkpoint: %s", root->address,
				    strerror(-rc));
	if ((!*level || *level > MAX_LEVEL) && bs_mending(l->bs))
		*level = 1; /* it is looked at, and found wrong */
	if (!*level || *level > MAX_LEVEL)
		return complain(l, "page-level", root->address, "the checkpoint's root has an impossible level");
	return 0;
}

static int by_address(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void sort_units(struct bs_ckpt_units *u)
{
	uint32_t n = 0;

	if (!u->n)
		return;
	qsort(u->unit, u->n, sizeof(u->unit[0]), by_address);
	for (uint32_t i = 0; i < u->n; i++)
		if (!n || u->unit[n - 1] != u->unit[i])
			u->unit[n++] = u->unit[i];
	u->n = n;
}

/* ---- mending: leaves that no index page leads to any more ---- */

/* A leaf of this checkpoint at a block, by what it says itself. */
static bool is_our_leaf(const struct load *l, const struct bs_page_disk *p, uint64_t block, uint32_t left)
{
	const struct bs_sb_disk *sb = &l->bs->sb;
	uint32_t blocks = le32_get(p->blocks);

	if (le32_get(p->magic) != BS_MAGIC_PAGE || memcmp(p->uuid, sb->uuid, sizeof(p->uuid)) || le64_get(p->address) != block ||
	    le16_get(p->kind) != BS_PAGE_LEAF || le32_get(p->ckpt) != (uint32_t)le64_get(sb->ckpt_l0) || !blocks || blocks > left ||
	    blocks > CKPT_BUF / BS_BLOCK)
		return false;
	return le64_get(p->lsn) >= le64_get(sb->ckpt_l0) && le64_get(p->lsn) <= le64_get(sb->ckpt_l1) &&
	       le32_get(p->bytes) <= blocks * BS_BLOCK - sizeof(*p) &&
	       le32_get(p->crc) == bs_crc_skip(bs_crc_page_seed(p->uuid, block), p, (size_t)blocks * BS_BLOCK,
					       offsetof(struct bs_page_disk, crc));
}

/* The leaves of one unit that were not read yet. */
static int load_stray(struct load *l, uint64_t unit, uint32_t unit_blocks)
{
	int rc = MIN(bs_mend_read(l->ch, l->ahead, unit, unit_blocks), 0);

	l->ahead_blocks = 0;
	for (uint32_t i = 0; i < unit_blocks && !rc; i++) {
		const struct bs_page_disk *p = (const struct bs_page_disk *)(l->ahead + (uint64_t)i * BS_BLOCK);
		uint64_t block = unit + i;

		if (!is_our_leaf(l, p, block, unit_blocks - i) || is_seen(l, block))
			continue;
		l->any = false; /* in no order with the others */
		note_seen(l, block);
		rc = note_unit(l, block);
		if (!rc)
			rc = load_leaf(l, p);
		if (rc == -EUCLEAN)
			rc = 0;
		l->any = false;
	}
	return rc;
}

/* Looks into the units that begin with a page, or into all. */
static int load_strays(struct load *l, bool all)
{
	uint32_t unit = le32_get(l->bs->sb.segment_blocks);
	uint8_t *first = dma_alloc(BS_BLOCK, BS_BLOCK);
	int rc = first ? 0 : -ENOMEM;

	for (uint64_t at = 0; !rc && at + unit <= l->bs->blocks; at += unit) {
		const struct bs_page_disk *p = (const struct bs_page_disk *)first;

		if (all || bdev_io_sync(l->ch, BDEV_READ, first, at * BS_BLOCK, BS_BLOCK, 0) ||
		    (le32_get(p->magic) == BS_MAGIC_PAGE && !memcmp(p->uuid, l->bs->sb.uuid, sizeof(p->uuid))))
			rc = load_stray(l, at, unit);
	}
	dma_free(first);
	return rc;
}

static int load_all(struct load *l);

/* A unit's first page may be damaged, too: then everything is looked through. */
static int load_mending(struct load *l)
{
	int rc = load_all(l);

	if (rc == -ENOMEM)
		return rc;
	if (!rc && !l->bs->reporter->mend->index_lost)
		return 0;
	rc = load_strays(l, false);
	return rc || l->items >= le64_get(l->bs->sb.ckpt_items) ? rc : load_strays(l, true);
}

static int load_all(struct load *l)
{
	const struct bs_sb_disk *sb = &l->bs->sb;
	struct bs_ckpt_entry root = { .address = le64_get(sb->ckpt_root), .blocks = le32_get(sb->ckpt_root_blocks),
				      .crc = le32_get(sb->ckpt_root_crc) };
	uint32_t level;
	int rc;

	if (!root.address)
		return le64_get(sb->ckpt_items) ? complain(l, "checkpoint-size", 0, "an empty checkpoint is said to hold items") : 0;
	rc = root_level(l, &root, &level);
	if (!rc)
		rc = load_page(l, &root, level);
	if (!rc && (l->blocks != le64_get(sb->ckpt_blocks) || l->items != le64_get(sb->ckpt_items)))
		rc = complain(l, "checkpoint-size", root.address, "the checkpoint is not as large as the superblock says");
	return rc;
}

int bs_ckpt_load(struct bs *bs, struct base_err *err)
{
	struct load l = { .bs = bs, .c = bs->ckpt, .err = err };
	int rc;

	l.ahead = dma_alloc((size_t)le32_get(bs->sb.segment_blocks) * BS_BLOCK, BS_BLOCK);
	l.next_ahead = dma_alloc((size_t)le32_get(bs->sb.segment_blocks) * BS_BLOCK, BS_BLOCK);
	if (bs_mending(bs))
		l.seen = base_calloc(div_round_up(bs->blocks, 64), sizeof(*l.seen));
	if (!l.ahead || !l.next_ahead || (bs_mending(bs) && !l.seen)) {
		dma_free(l.ahead);
		dma_free(l.next_ahead);
		free(l.seen);
		return -ENOMEM;
	}
	l.ch = bdev_channel_borrow(bs->dev);
	pthread_mutex_lock(&bs->lock);
	rc = bs_mending(bs) ? load_mending(&l) : load_all(&l);
	if (bs->next_id < le64_get(bs->sb.next_id) && !(bs_mending(bs) && le64_get(bs->sb.next_id) >= BS_MEND_SANE))
		bs->next_id = le64_get(bs->sb.next_id);
	pthread_mutex_unlock(&bs->lock);
	bs_fetch_wait(&l.fetch);
	bdev_channel_return(l.ch);
	sort_units(&bs->ckpt->present);
	for (unsigned i = 0; i <= MAX_LEVEL; i++)
		dma_free(l.page[i]);
	dma_free(l.ahead);
	dma_free(l.next_ahead);
	free(l.seen);
	return rc;
}
