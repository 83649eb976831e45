/* SPDX-License-Identifier: BSD-2-Clause */
/* The checkpoint's pages: capturing leaves, building the index, placing both in units. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blob/ckpt.h"

#define SLICE (8u * 1024) /* bytes captured at once */
#define STEP_NS 1000000u  /* no more pages in this step: others of this thread have work, too */
#define INDEX_FANOUT ((BS_PAGE_MAX - sizeof(struct bs_page_disk)) / sizeof(struct bs_index_disk))

int bs_ckpt_make_buffers(struct bs_ckpt *c)
{
	c->super = dma_alloc(sizeof(*c->super), BS_BLOCK);
	if (!c->super)
		return -ENOMEM;
	for (unsigned i = 0; i < CKPT_BATCH; i++) {
		c->page[i].buf = dma_alloc(CKPT_BUF, BS_BLOCK);
		if (!c->page[i].buf)
			return -ENOMEM;
	}
	return 0;
}

void bs_ckpt_drop_buffers(struct bs_ckpt *c)
{
	for (unsigned i = 0; i < CKPT_BATCH; i++) {
		dma_free(c->page[i].buf);
		c->page[i].buf = NULL;
	}
	dma_free(c->super);
	c->super = NULL;
	free(c->entries);
	c->entries = NULL;
	c->n_entries = c->cap_entries = 0;
}

/* ---- placing ---- */

static uint32_t left_in_unit(const struct bs_ckpt *c)
{
	return c->unit ? le32_get(c->bs->sb.segment_blocks) - c->unit_used : 0;
}

static int new_unit(struct bs_ckpt *c)
{
	uint64_t block;
	int rc = bs_meta_take(c->bs, BS_META_CKPT, &block);

	if (rc)
		return rc;
	rc = bs_ckpt_units_add(&c->fresh, block);
	if (rc) {
		bs_meta_give(c->bs, BS_META_CKPT, block);
		return rc;
	}
	c->unit = block;
	c->unit_used = 0;
	return 0;
}

static int need_blocks(struct bs_ckpt *c, uint32_t blocks)
{
	return left_in_unit(c) >= blocks ? 0 : new_unit(c);
}

static int add_entry(struct bs_ckpt *c, const struct bs_ckpt_entry *e)
{
	if (c->n_entries == c->cap_entries) {
		uint32_t cap = c->cap_entries ? 2 * c->cap_entries : 64;
		struct bs_ckpt_entry *more = base_realloc(c->entries, cap * sizeof(*more));

		if (!more)
			return -ENOMEM;
		c->entries = more;
		c->cap_entries = cap;
	}
	c->entries[c->n_entries++] = *e;
	return 0;
}

struct page_info {
	enum bs_page_kind kind;
	uint32_t level, bytes, count;
	uint64_t lsn;
	struct bs_cursor first;
};

/* Completes the page in slot i, notes it for its parent, and starts writing it. The unit has room for it. */
static int put_page(struct bs_ckpt *c, struct op *op, unsigned i, const struct page_info *info)
{
	struct bs_page_disk *p = (struct bs_page_disk *)c->page[i].buf;
	uint32_t blocks = (uint32_t)div_round_up(sizeof(*p) + info->bytes, BS_BLOCK);
	uint64_t address = c->unit + c->unit_used, len = (uint64_t)blocks * BS_BLOCK;
	struct bs_ckpt_entry e = { .first = info->first, .address = address, .blocks = blocks };
	int rc;

	memset(p, 0, sizeof(*p));
	memset(c->page[i].buf + sizeof(*p) + info->bytes, 0, len - sizeof(*p) - info->bytes);
	p->magic = le32_make(BS_MAGIC_PAGE);
	memcpy(p->uuid, c->bs->sb.uuid, sizeof(p->uuid));
	p->address = le64_make(address);
	p->lsn = le64_make(info->lsn);
	p->kind = le16_make((uint16_t)info->kind);
	p->level = le16_make((uint16_t)info->level);
	p->blocks = le32_make(blocks);
	p->bytes = le32_make(info->bytes);
	p->count = le32_make(info->count);
	p->first_blob = le64_make(info->first.blob);
	p->first_key = le64_make(info->first.key);
	p->first_kind = le32_make(info->first.kind);
	p->ckpt = le32_make((uint32_t)c->l0);
	e.crc = bs_crc_skip(bs_crc_page_seed(p->uuid, address), p, len, offsetof(struct bs_page_disk, crc));
	p->crc = le32_make(e.crc);
	rc = add_entry(c, &e);
	if (rc)
		return rc;
	c->unit_used += blocks;
	c->blocks += blocks;
	atomic_fetch_add(&c->written_bytes, len);
	bdev_io_init_buf(&c->page[i].io, BDEV_WRITE, p, address * BS_BLOCK, len, NULL, NULL);
	c->page[i].io.opts.stream = BS_STREAM_META;
	bdev_submit_child(c->ch, &c->page[i].io, op);
	return 0;
}

/* ---- leaves ---- */

/* Part of a page, under the lock; returns its bytes. None and no *need: nothing is left. */
static uint32_t capture_slice(struct bs_ckpt *c, uint8_t *at, uint32_t room, struct page_info *info, uint32_t *need)
{
	struct bs *bs = c->bs;
	struct bs_cursor first;
	uint32_t count, bytes;
	uint64_t since;

	*need = 0;
	since = bs_lock_background(bs);
	bytes = bs_capture(bs, &c->cursor, at, MIN(room, SLICE), &first, &count, need);
	if (!bytes && *need && *need <= room)
		bytes = bs_capture(bs, &c->cursor, at, *need, &first, &count, need);
	info->lsn = bs->lsn;
	c->total = bs->meta_bytes;
	if (!bytes && !*need) {
		/* The end: everything up to here is in the pages or, if later than L0, in the log. */
		c->l1 = bs->lsn;
		c->captured = true;
	}
	bs_unlock_background(bs, since);
	if (bytes && !info->bytes)
		info->first = first;
	info->count += bytes ? count : 0;
	info->bytes += bytes;
	return bytes;
}

/*
 * A page: true if anything is in it. It is captured in slices, so that transactions do not wait for a page's worth of work; who
 * waits for the lock gets it in between. *need: bytes of a record that is longer than the whole page.
 */
static bool capture_page(struct bs_ckpt *c, uint8_t *buf, uint32_t blocks, struct page_info *info, uint32_t *need)
{
	uint32_t room = blocks * BS_BLOCK - (uint32_t)sizeof(struct bs_page_disk);

	info->bytes = info->count = 0;
	while (capture_slice(c, buf + sizeof(struct bs_page_disk) + info->bytes, room - info->bytes, info, need))
		;
	return info->bytes > 0;
}

static int capture_slot(struct bs_ckpt *c, struct op *op, unsigned i)
{
	struct page_info info = { .kind = BS_PAGE_LEAF };
	uint32_t need;
	int rc = need_blocks(c, 1);
	bool got;

	if (rc)
		return rc;
	got = capture_page(c, c->page[i].buf, MIN(left_in_unit(c), BS_PAGE_MAX / BS_BLOCK), &info, &need);
	if (!got && need) {
		uint32_t blocks = (uint32_t)div_round_up(need + sizeof(struct bs_page_disk), BS_BLOCK);

		if (blocks > CKPT_BUF / BS_BLOCK)
			return -EFBIG;
		rc = need_blocks(c, blocks);
		if (rc)
			return rc;
		got = capture_page(c, c->page[i].buf, MAX(blocks, MIN(left_in_unit(c), BS_PAGE_MAX / BS_BLOCK)), &info, &need);
		/* It may have grown since. Then the next round looks again. */
	}
	if (!got)
		return 0;
	c->items += info.count;
	return put_page(c, op, i, &info);
}

int bs_ckpt_capture(struct bs_ckpt *c, struct op *op)
{
	bool timed = bs_has_service(c->bs); /* without one nothing depends on the machine's speed: a seed's run is the same again */
	uint64_t since = bs_clock_ns();
	int rc = 0;

	for (unsigned i = 0; i < CKPT_BATCH && !rc && !c->captured; i++) {
		if (i && timed && bs_clock_ns() - since >= STEP_NS)
			break;
		rc = capture_slot(c, op, i);
	}
	bdev_kick(c->ch);
	if (c->captured) {
		c->level_start = c->next_child = 0;
		c->level_end = c->n_entries;
		c->level = 0;
	}
	return rc;
}

/* ---- index ---- */

static uint32_t fill_index(struct bs_ckpt *c, uint8_t *buf, uint32_t max)
{
	struct bs_index_disk *d = (struct bs_index_disk *)(buf + sizeof(struct bs_page_disk));
	uint32_t n = MIN(max, c->level_end - c->next_child);

	for (uint32_t k = 0; k < n; k++, d++) {
		const struct bs_ckpt_entry *e = &c->entries[c->next_child + k];

		memset(d, 0, sizeof(*d));
		d->blob = le64_make(e->first.blob);
		d->key = le64_make(e->first.key);
		d->kind = le32_make(e->first.kind);
		d->blocks = le32_make(e->blocks);
		d->address = le64_make(e->address);
		d->crc = le32_make(e->crc);
	}
	return n;
}

/* One index page over the next children of the level. */
static int index_slot(struct bs_ckpt *c, struct op *op, unsigned i)
{
	struct page_info info = { .kind = BS_PAGE_INDEX, .level = c->level + 1, .lsn = c->l1 };
	uint32_t want = (uint32_t)MIN(c->level_end - c->next_child, INDEX_FANOUT), first = c->next_child;
	uint32_t blocks = (uint32_t)div_round_up(sizeof(struct bs_page_disk) + want * sizeof(struct bs_index_disk), BS_BLOCK);
	int rc = need_blocks(c, blocks);

	if (rc)
		return rc;
	info.count = fill_index(c, c->page[i].buf, want);
	info.bytes = info.count * (uint32_t)sizeof(struct bs_index_disk);
	info.first = c->entries[first].first;
	rc = put_page(c, op, i, &info);
	if (rc)
		return rc;
	c->next_child += info.count;
	if (c->next_child < c->level_end)
		return 0;
	/* The level is done: its pages are the children of the next. */
	c->level_start = c->level_end;
	c->level_end = c->n_entries;
	c->next_child = c->level_start;
	c->level++;
	c->indexed = c->level_end - c->level_start == 1;
	return 0;
}

/* No index names it and no size counts it: it is for who has lost both superblocks. */
int bs_ckpt_describe(struct bs_ckpt *c, struct op *op)
{
	struct page_info info = { .kind = BS_PAGE_SUPER, .lsn = c->l1, .bytes = sizeof(*c->super), .count = 1 };
	uint32_t entries = c->n_entries;
	uint64_t blocks = c->blocks;
	int rc = need_blocks(c, 2);

	if (rc)
		return rc == -ENOSPC ? 0 : rc;
	memcpy(c->page[0].buf + sizeof(struct bs_page_disk), c->super, sizeof(*c->super));
	rc = put_page(c, op, 0, &info);
	c->n_entries = entries;
	c->blocks = blocks;
	bdev_kick(c->ch);
	return rc;
}

int bs_ckpt_index(struct bs_ckpt *c, struct op *op)
{
	int rc = 0;

	c->indexed = !c->n_entries; /* nothing at all: no root */
	for (unsigned i = 0; i < CKPT_BATCH && !rc && !c->indexed; i++)
		rc = index_slot(c, op, i);
	bdev_kick(c->ch);
	return rc;
}
