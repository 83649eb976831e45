/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mending: a superblock made of what the store's metadata tells of itself, when both superblocks are gone.
 *
 * The whole device is read once. What is looked for are segment headers, which tell what the store is, and pages that hold the superblock
 * of their checkpoint. Several stores may have lain here, one after the other: the one made last counts. Of its checkpoints the newest
 * counts, unless pages of it are missing, for power may have failed while it was being written: then an older one from whose
 * log position the segments still lead on to where the newest's begins. A store that never had a checkpoint is its log. What says something
 * that cannot be, though its checksum is right, tells nothing; it is refused only if nothing else tells of a store.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "blob/ckpt.h"
#include "blob/mend.h"

#define CHUNK (1u << 20)
#define DEPTH 6u

struct find {
	struct bs *bs;
	struct bdev_channel *ch;
	uint8_t *buf;
	struct bs_sb_disk *found;      /* of pages that hold a superblock */
	size_t n, room;
	struct bs_segment_disk segment; /* of the newest store: its segment with the lowest sequence */
	struct base_err why;           /* what a header says that cannot be */
	uint64_t left;                 /* of a checkpoint's blocks, as its superblock counts them: an index may name pages again and again */
	bool any_segment, odd_segment;  /* that tells what the store is; that does not, or what cannot be */
};

static int add_super(struct find *f, const struct bs_sb_disk *sb)
{
	if (f->n == f->room) {
		size_t room = f->room ? 2 * f->room : 8;
		struct bs_sb_disk *p = base_realloc(f->found, room * sizeof(*p));

		if (!p)
			return -ENOMEM;
		f->found = p;
		f->room = room;
	}
	f->found[f->n++] = *sb;
	return 0;
}

/* The superblock of a store that has no checkpoint: all there ever was is in the log, if its first frame is still there. */
static void from_segment(const struct bs_segment_disk *h, struct bs_sb_disk *sb)
{
	memset(sb, 0, sizeof(*sb));
	memcpy(sb->magic, BS_MAGIC, sizeof(sb->magic));
	sb->version_major = h->version_major;
	sb->version_minor = h->version_minor;
	sb->generation = le64_make(1);
	memcpy(sb->uuid, h->uuid, sizeof(sb->uuid));
	memcpy(sb->label, h->label, sizeof(sb->label));
	memcpy(sb->owner, h->owner, sizeof(sb->owner));
	sb->compat = h->compat;
	sb->ro_compat = h->ro_compat;
	sb->incompat = h->incompat;
	sb->created_ns = h->created_ns;
	sb->blocks = h->blocks;
	sb->cluster_blocks = h->cluster_blocks;
	sb->segment_blocks = h->segment_blocks;
	sb->next_id = le64_make(1);
	sb->log_segment = h->address;
	sb->log_nonce = h->nonce;
	sb->log_seq = h->first_seq;
	sb->log_offset = le32_make(1);
}

/* Of another version, or larger than the device, is not impossible, but what will be said of the store. */
static bool can_be(struct find *f, const struct bs_segment_disk *h)
{
	struct bs_sb_disk sb;

	from_segment(h, &sb);
	return bs_sb_validate(&sb, f->bs->dev, true, &f->why) != -EUCLEAN;
}

/* The store it is of was made later than the one known; or it is of that one, and begins earlier. */
static bool segment_is_better(const struct find *f, const struct bs_segment_disk *h)
{
	const struct bs_segment_disk *old = &f->segment;

	if (!f->any_segment || memcmp(h->uuid, old->uuid, sizeof(h->uuid)))
		return !f->any_segment || le64_get(h->created_ns) > le64_get(old->created_ns);
	return le64_get(h->first_seq) < le64_get(old->first_seq);
}

static void look_at_segment(struct find *f, const struct bs_segment_disk *h)
{
	if (!le32_get(h->segment_blocks) || !can_be(f, h)) {
		f->odd_segment = true;
		return;
	}
	if (segment_is_better(f, h))
		f->segment = *h;
	f->any_segment = true;
}

static int look_at(struct find *f, const uint8_t *p, uint64_t block, uint32_t left)
{
	const struct bs_segment_disk *h = (const struct bs_segment_disk *)p;
	const struct bs_page_disk *page = (const struct bs_page_disk *)p;

	if (bs_mend_segment_ok(h->uuid, h, block)) {
		look_at_segment(f, h);
		return 0;
	}
	if (left < 2 || le32_get(page->magic) != BS_MAGIC_PAGE || le16_get(page->kind) != BS_PAGE_SUPER ||
	    le64_get(page->address) != block || le32_get(page->blocks) != 2 || le32_get(page->bytes) != sizeof(struct bs_sb_disk) ||
	    le32_get(page->crc) != bs_crc_skip(bs_crc_page_seed(page->uuid, block), page, (size_t)2 * BS_BLOCK,
					       offsetof(struct bs_page_disk, crc)))
		return 0;
	return bs_sb_validate((const struct bs_sb_disk *)(page + 1), f->bs->dev, true, &f->why) == -EUCLEAN ? 0 :
	       add_super(f, (const struct bs_sb_disk *)(page + 1));
}

/* A page of two blocks may begin in a chunk's last one: chunks overlap by one block. */
static int scan(struct find *f)
{
	uint64_t blocks = bdev_info(f->bs->dev)->size / BS_BLOCK;
	uint32_t step = CHUNK / BS_BLOCK - 1;
	int rc = 0;

	for (uint64_t at = 0; at < blocks && !rc; at += step) {
		uint32_t n = (uint32_t)MIN(blocks - at, (uint64_t)step + 1);

		rc = MIN(bs_mend_read(f->ch, f->buf, at, n), 0);
		for (uint32_t i = 0; i < MIN(n, step) && !rc; i++)
			rc = look_at(f, f->buf + (uint64_t)i * BS_BLOCK, at + i, n - i);
	}
	return rc;
}

/* ---- is a checkpoint all there ---- */

static bool page_ok(const struct bs_sb_disk *sb, const struct bs_page_disk *p, uint64_t address, uint32_t blocks, uint32_t crc)
{
	return le32_get(p->magic) == BS_MAGIC_PAGE && !memcmp(p->uuid, sb->uuid, sizeof(p->uuid)) && le64_get(p->address) == address &&
	       le32_get(p->blocks) == blocks && le32_get(p->crc) == crc &&
	       le32_get(p->bytes) <= blocks * BS_BLOCK - sizeof(*p) &&
	       crc == bs_crc_skip(bs_crc_page_seed(p->uuid, address), p, (size_t)blocks * BS_BLOCK, offsetof(struct bs_page_disk, crc));
}

static int whole_below(struct find *f, const struct bs_sb_disk *sb, uint64_t address, uint32_t blocks, uint32_t crc, unsigned depth)
{
	const struct bs_index_disk *d;
	uint8_t *buf;
	uint32_t n;
	int rc;

	if (depth > DEPTH || !blocks || blocks > CKPT_BUF / BS_BLOCK || !address || address >= le64_get(sb->blocks) ||
	    blocks > le64_get(sb->blocks) - address || blocks > f->left)
		return 0;
	f->left -= blocks;
	buf = dma_alloc((size_t)blocks * BS_BLOCK, BS_BLOCK);
	if (!buf)
		return -ENOMEM;
	rc = !bdev_io_sync(f->ch, BDEV_READ, buf, address * BS_BLOCK, (uint64_t)blocks * BS_BLOCK, 0) &&
	     page_ok(sb, (struct bs_page_disk *)buf, address, blocks, crc);
	d = (const struct bs_index_disk *)((struct bs_page_disk *)buf + 1);
	n = rc && le16_get(((struct bs_page_disk *)buf)->kind) == BS_PAGE_INDEX ?
	    le32_get(((struct bs_page_disk *)buf)->bytes) / (uint32_t)sizeof(*d) : 0;
	for (uint32_t i = 0; i < n && rc > 0; i++, d++)
		rc = whole_below(f, sb, le64_get(d->address), le32_get(d->blocks), le32_get(d->crc), depth + 1);
	dma_free(buf);
	return rc;
}

/* ---- choosing ---- */

static int newest_first(const void *a, const void *b)
{
	const struct bs_sb_disk *x = a, *y = b;

	if (le64_get(x->created_ns) != le64_get(y->created_ns))
		return le64_get(x->created_ns) > le64_get(y->created_ns) ? -1 : 1;
	return le64_get(x->generation) > le64_get(y->generation) ? -1 : le64_get(x->generation) < le64_get(y->generation);
}

/* A header that tells nothing of what the store is may yet be that of the segment where the log begins. */
static int begin_earlier(struct find *f)
{
	uint64_t unit = le32_get(f->segment.segment_blocks), blocks = MIN(le64_get(f->segment.blocks), bdev_info(f->bs->dev)->size / BS_BLOCK);
	struct bs_segment_disk *h = dma_alloc(sizeof(*h), BS_BLOCK);

	if (!h)
		return -ENOMEM;
	for (uint64_t at = unit; unit && at < blocks; at += unit) {
		if (bdev_io_sync(f->ch, BDEV_READ, h, at * BS_BLOCK, sizeof(*h), 0) || !bs_mend_segment_ok(f->segment.uuid, h, at) ||
		    le64_get(h->first_seq) >= le64_get(f->segment.first_seq) || !le64_get(h->first_seq))
			continue;
		f->segment.address = h->address;
		f->segment.nonce = h->nonce;
		f->segment.first_seq = h->first_seq;
	}
	dma_free(h);
	return 0;
}

/* Over the frames of a segment, as far as they follow each other or to where `to` begins. */
static bool pass_frames(const struct bs_log_pos *to, const uint8_t uuid[16], const uint8_t *seg, uint32_t blocks, struct bs_log_pos *pos)
{
	const struct bs_frame_disk *f;

	while (pos->segment != to->segment || pos->offset != to->offset) {
		f = bs_frame_at(uuid, seg, pos->segment, pos->nonce, pos->offset, blocks - MIN(pos->offset, blocks));
		if (!f || le64_get(f->seq) != pos->seq)
			return false;
		pos->offset += le32_get(f->blocks);
		pos->seq++;
	}
	return pos->nonce == to->nonce && pos->seq == to->seq;
}

static struct bs_log_pos pos_of(const struct bs_sb_disk *sb)
{
	return (struct bs_log_pos){ .segment = le64_get(sb->log_segment), .nonce = le64_get(sb->log_nonce), .seq = le64_get(sb->log_seq),
				    .offset = le32_get(sb->log_offset) };
}

/* Can the log be followed from where the replay of a checkpoint begins to where that of another does? */
static int leads_to(struct find *f, const struct bs_sb_disk *from, const struct bs_sb_disk *to_sb)
{
	uint32_t blocks = le32_get(from->segment_blocks);
	struct bs_log_pos pos = pos_of(from), to = pos_of(to_sb);
	uint8_t *seg = dma_alloc((size_t)blocks * BS_BLOCK, BS_BLOCK);
	const struct bs_segment_disk *h = (const struct bs_segment_disk *)seg;
	bool there = false;

	if (!seg)
		return -ENOMEM;
	for (uint64_t left = le64_get(from->blocks) / blocks; left && !there; left--) {
		if (!pos.segment || pos.segment >= le64_get(from->blocks) || le64_get(from->blocks) - pos.segment < blocks ||
		    bs_mend_read(f->ch, seg, pos.segment, blocks) < 0 ||
		    !bs_mend_segment_ok(from->uuid, h, pos.segment) || le64_get(h->nonce) != pos.nonce)
			break;
		there = pass_frames(&to, from->uuid, seg, blocks, &pos);
		if (pos.segment == to.segment)
			break;
		pos = (struct bs_log_pos){ le64_get(h->next_address), le64_get(h->next_nonce), pos.seq, 1 };
	}
	dma_free(seg);
	return there;
}

/* Of the newest store, the newest superblock whose checkpoint is all there and has its log. -ENOMEM. */
static int choose_whole(struct find *f, struct bs_sb_disk *sb)
{
	for (size_t i = 0; i < f->n; i++) {
		const struct bs_sb_disk *s = &f->found[i];
		int rc;

		if (memcmp(s->uuid, f->found[0].uuid, sizeof(s->uuid)) || bs_sb_validate(s, f->bs->dev, true, &f->why))
			continue;
		f->left = le64_get(s->ckpt_blocks);
		rc = whole_below(f, s, le64_get(s->ckpt_root), le32_get(s->ckpt_root_blocks), le32_get(s->ckpt_root_crc), 0);
		if (rc > 0 && i)
			rc = leads_to(f, s, &f->found[0]);
		if (rc < 0)
			return rc;
		if (!rc)
			continue;
		*sb = *s;
		break;
	}
	return 0;
}

static int choose(struct find *f, struct bs_sb_disk *sb, struct base_err *err)
{
	const char *name = bdev_info(f->bs->dev)->name;
	int rc = 0;

	if (f->n)
		qsort(f->found, f->n, sizeof(*f->found), newest_first);
	if (f->any_segment && f->odd_segment)
		rc = begin_earlier(f);
	/* A store made later than any checkpoint: it had none yet. */
	if (!rc && f->any_segment && (!f->n || le64_get(f->found[0].created_ns) < le64_get(f->segment.created_ns))) {
		from_segment(&f->segment, sb);
	} else if (!rc && f->n) {
		*sb = f->found[0];
		rc = choose_whole(f, sb);
	} else if (!rc) {
		return f->why.text[0] ? base_err_set(err, -EUCLEAN, "%s", f->why.text) :
		       base_err_set(err, -EUCLEAN, "%s: superblock: none is left, and nothing on the device tells of a store", name);
	}
	return rc < 0 ? rc : bs_sb_validate(sb, f->bs->dev, true, err);
}

int bs_mend_find_super(struct bs *bs, struct bs_sb_disk *sb, struct base_err *err)
{
	struct bs_place place = { .pass = "superblock", .code = "superblock-rebuilt", .block = UINT64_MAX };
	struct find f = { .bs = bs, .buf = dma_alloc(CHUNK, BS_BLOCK) };
	int rc;

	if (!f.buf)
		return -ENOMEM;
	f.ch = bdev_channel_borrow(bs->dev);
	rc = scan(&f);
	if (!rc)
		rc = choose(&f, sb, err);
	bdev_channel_return(f.ch);
	dma_free(f.buf);
	free(f.found);
	if (!rc)
		bs_complain(bs, NULL, &place, "made anew of what the device tells: generation %" PRIu64 ", checkpoint at block %" PRIu64
			    ", log at %" PRIu64, le64_get(sb->generation), le64_get(sb->ckpt_root), le64_get(sb->log_segment));
	return rc;
}
