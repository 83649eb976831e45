/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looking at a device as it is: superblocks, the log, the checkpoint, each structure by itself. Nothing is applied, and nothing ends the walk that
 * another way round it can be found: a damaged structure is handed out with what is wrong with it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blob/ckpt.h"
#include "blob/mend.h"
#include "blob/sum.h"

#define DEPTH 7u
#define SEGMENT_MAX 4096u /* blocks */

struct walk {
	struct bdev *dev;
	struct bdev_channel *ch;
	const struct bs_sb_disk *sb;
	bs_piece_fn fn;
	void *arg;
	uint64_t *seen; /* pages and segments, each one more than its block: a damaged index may go round. A hash table; 0: free */
	size_t n_seen, room; /* a power of two */
	uint64_t bad[SEGMENT_MAX / 64]; /* a bit a block of the segment at hand: it cannot be read */
};

static int read_at(struct walk *w, void *buf, uint64_t block, uint32_t blocks)
{
	uint64_t all = bdev_info(w->dev)->size / BS_BLOCK;

	if (block >= all || blocks > all - block)
		return -ERANGE;
	return bdev_io_sync(w->ch, BDEV_READ, buf, block * BS_BLOCK, (uint64_t)blocks * BS_BLOCK, 0);
}

static bool put_seen(uint64_t *seen, size_t room, uint64_t value)
{
	size_t i = (size_t)(value * 0x9e3779b97f4a7c15ull >> 32) & (room - 1);

	for (; seen[i]; i = (i + 1) & (room - 1))
		if (seen[i] == value)
			return false;
	seen[i] = value;
	return true;
}

static int enlarge_seen(struct walk *w)
{
	size_t room = w->room ? 2 * w->room : 64;
	uint64_t *p = base_calloc(room, sizeof(*p));

	if (!p)
		return -ENOMEM;
	for (size_t i = 0; i < w->room; i++)
		if (w->seen[i])
			put_seen(p, room, w->seen[i]);
	free(w->seen);
	w->seen = p;
	w->room = room;
	return 0;
}

/* False: it was there before. */
static int first_time(struct walk *w, uint64_t block)
{
	int rc = 2 * w->n_seen >= w->room ? enlarge_seen(w) : 0;

	if (rc || block == UINT64_MAX || !put_seen(w->seen, w->room, block + 1))
		return rc;
	w->n_seen++;
	return 1;
}

/* ---- superblocks ---- */

static int walk_super(struct walk *w, const struct bs_sb_pair *pair)
{
	static const uint64_t where[2] = { 0, BS_SB_COPY_BLOCK };
	int rc = 0;

	for (int i = 0; i < 2 && !rc; i++) {
		struct base_err why = { "" };
		struct bs_piece p = { .kind = BS_PIECE_SUPER, .block = where[i], .blocks = 1,
				      .data = (void *)&pair->sb[i] };

		if (pair->state[i] == BS_SB_FOREIGN)
			p.wrong = "it is no superblock";
		else if (pair->state[i] == BS_SB_TORN)
			p.wrong = "its checksum is wrong";
		else if (bs_sb_validate(&pair->sb[i], w->dev, false, &why))
			p.wrong = why.text;
		rc = w->fn(&p, w->arg);
	}
	return rc;
}

/* ---- log ---- */

static bool is_bad(const struct walk *w, uint32_t off)
{
	return w->bad[off / 64] >> (off % 64) & 1;
}

/* All of a segment that can be read; other blocks are zeroes, and noted. */
static int read_segment(struct walk *w, uint8_t *seg, uint64_t block)
{
	uint32_t blocks = le32_get(w->sb->segment_blocks);
	int rc = read_at(w, seg, block, blocks);

	memset(w->bad, 0, sizeof(w->bad));
	if (!rc || rc == -ENOMEM || rc == -ERANGE)
		return rc;
	for (uint32_t i = 0; i < blocks; i++) {
		rc = read_at(w, seg + (uint64_t)i * BS_BLOCK, block + i, 1);
		if (rc == -ENOMEM)
			return rc;
		if (!rc)
			continue;
		memset(seg + (uint64_t)i * BS_BLOCK, 0, BS_BLOCK);
		w->bad[i / 64] |= 1ull << (i % 64);
	}
	return 0;
}

/* Blocks in a row that cannot be read, from off on: what was in them is not known. */
static int walk_bad(struct walk *w, uint64_t segment, uint32_t off, uint32_t blocks, uint32_t *n)
{
	struct bs_piece p = { .kind = BS_PIECE_FRAME, .block = segment + off, .wrong = "it cannot be read" };

	while (off + p.blocks < blocks && is_bad(w, off + p.blocks))
		p.blocks++;
	*n = p.blocks;
	return w->fn(&p, w->arg);
}

static int walk_frames(struct walk *w, uint8_t *seg, const struct bs_log_pos *from, uint64_t *seq)
{
	uint32_t blocks = le32_get(w->sb->segment_blocks), off = from->offset, n;
	int rc = 0;

	for (; off < blocks && !rc; off += n) {
		struct bs_frame_disk *f = (struct bs_frame_disk *)bs_frame_at(w->sb->uuid, seg, from->segment, from->nonce, off, blocks - off);
		struct bs_piece p = { .kind = BS_PIECE_FRAME, .block = from->segment + off, .blocks = 1, .nonce = from->nonce };

		n = 1;
		if (is_bad(w, off)) {
			rc = walk_bad(w, from->segment, off, blocks, &n);
		} else if (f) {
			p.data = f;
			p.blocks = n = le32_get(f->blocks);
			p.wrong = le64_get(f->seq) == *seq ? NULL : "its sequence number is not the expected one";
			*seq = le64_get(f->seq) + 1;
			rc = w->fn(&p, w->arg);
		} else if (le32_get(((struct bs_frame_disk *)(seg + (uint64_t)off * BS_BLOCK))->magic) == BS_MAGIC_FRAME &&
			   le64_get(((struct bs_frame_disk *)(seg + (uint64_t)off * BS_BLOCK))->seq) >= *seq) {
			p.data = seg + (uint64_t)off * BS_BLOCK;
			p.wrong = "its checksum is wrong";
			rc = w->fn(&p, w->arg);
		}
	}
	return rc;
}

static bool header_ok(const struct walk *w, const uint8_t *seg, const struct bs_log_pos *pos)
{
	const struct bs_segment_disk *h = (const struct bs_segment_disk *)seg;

	return bs_mend_segment_ok(w->sb->uuid, h, pos->segment) && le64_get(h->nonce) == pos->nonce;
}

/* Does the log go on there? The last segment's successor has no header yet, which is no fault; what cannot be read is gone through. */
static int goes_on(struct walk *w, uint8_t *seg, const struct bs_log_pos *pos)
{
	const struct bs_frame_disk *f;
	int rc = read_segment(w, seg, pos->segment);

	if (rc)
		return rc == -ENOMEM ? rc : 0;
	if (is_bad(w, 0) || header_ok(w, seg, pos))
		return 1;
	f = bs_frame_at(w->sb->uuid, seg, pos->segment, pos->nonce, 1, le32_get(w->sb->segment_blocks) - 1);
	return f && le64_get(f->seq) == pos->seq;
}

static int walk_segment(struct walk *w, uint8_t *seg, struct bs_log_pos *pos, bool *more)
{
	const struct bs_segment_disk *h = (const struct bs_segment_disk *)seg;
	struct bs_piece p = { .kind = BS_PIECE_SEGMENT, .block = pos->segment, .blocks = 1, .nonce = pos->nonce };
	int rc = read_segment(w, seg, pos->segment);

	*more = false;
	if (rc == -ENOMEM)
		return rc;
	if (!rc && !is_bad(w, 0))
		p.data = seg;
	if (!p.data)
		p.wrong = "it cannot be read";
	else if (!header_ok(w, seg, pos))
		p.wrong = "it is not the header of this segment";
	if (rc) /* it lies outside the device */
		return w->fn(&p, w->arg);
	rc = w->fn(&p, w->arg);
	if (!rc)
		rc = walk_frames(w, seg, pos, &pos->seq);
	if (rc)
		return rc;
	/* Only the header tells of the successor, but the successor tells of itself, too. */
	*pos = (struct bs_log_pos){ le64_get(h->next_address), le64_get(h->next_nonce), pos->seq, 1 };
	if (p.wrong && !bs_mend_find_segment(w->ch, w->sb, pos->seq, &pos->segment, &pos->nonce))
		return 0;
	rc = goes_on(w, seg, pos);
	if (rc > 0)
		rc = first_time(w, pos->segment);
	*more = rc > 0;
	return rc < 0 ? rc : 0;
}

static int walk_log(struct walk *w)
{
	struct bs_log_pos pos = { le64_get(w->sb->log_segment), le64_get(w->sb->log_nonce), le64_get(w->sb->log_seq),
				  le32_get(w->sb->log_offset) };
	uint8_t *seg = dma_alloc((size_t)le32_get(w->sb->segment_blocks) * BS_BLOCK, BS_BLOCK);
	int rc = seg ? first_time(w, pos.segment) : -ENOMEM;
	bool more = rc > 0;

	rc = MIN(rc, 0);
	while (more && !rc)
		rc = walk_segment(w, seg, &pos, &more);
	dma_free(seg);
	return rc;
}

/* ---- checkpoint ---- */

static const char *page_wrong(const struct walk *w, const struct bs_page_disk *p, uint64_t address, uint32_t blocks, uint32_t crc)
{
	if (le32_get(p->magic) != BS_MAGIC_PAGE)
		return "it is no page";
	if (memcmp(p->uuid, w->sb->uuid, sizeof(p->uuid)) || le64_get(p->address) != address || le32_get(p->blocks) != blocks)
		return "it is not the page that should be here";
	if (le32_get(p->crc) != bs_crc_skip(bs_crc_page_seed(p->uuid, address), p, (size_t)blocks * BS_BLOCK, offsetof(struct bs_page_disk, crc)))
		return "its checksum is wrong";
	if (le32_get(p->crc) != crc)
		return "its parent means another one";
	if (le32_get(p->bytes) > blocks * BS_BLOCK - sizeof(*p))
		return "its length is wrong";
	return NULL;
}

static int walk_page(struct walk *w, uint64_t address, uint32_t blocks, uint32_t crc, unsigned depth)
{
	struct bs_piece p = { .kind = BS_PIECE_PAGE, .block = address, .blocks = blocks, .depth = depth };
	const struct bs_index_disk *d;
	uint32_t n = 0;
	int rc = depth >= DEPTH || !blocks || blocks > CKPT_BUF / BS_BLOCK ? 0 : first_time(w, address);

	if (rc <= 0)
		return rc;
	p.data = dma_alloc((size_t)blocks * BS_BLOCK, BS_BLOCK);
	if (!p.data)
		return -ENOMEM;
	rc = read_at(w, p.data, address, blocks);
	if (rc) {
		dma_free(p.data);
		p.data = NULL;
		p.wrong = "it cannot be read";
		return rc == -ENOMEM ? rc : w->fn(&p, w->arg);
	}
	p.wrong = page_wrong(w, p.data, address, blocks, crc);
	rc = w->fn(&p, w->arg);
	if (!p.wrong && le16_get(((struct bs_page_disk *)p.data)->kind) == BS_PAGE_INDEX)
		n = le32_get(((struct bs_page_disk *)p.data)->bytes) / (uint32_t)sizeof(*d);
	d = (const struct bs_index_disk *)((struct bs_page_disk *)p.data + 1);
	for (uint32_t i = 0; i < n && !rc; i++, d++)
		rc = walk_page(w, le64_get(d->address), le32_get(d->blocks), le32_get(d->crc), depth + 1);
	dma_free(p.data);
	return rc;
}

/* The page behind the checkpoint's others that holds its superblock, if there is one at this place: 1; 0: there is none. */
static int walk_described(struct walk *w, struct bs_page_disk *page, uint64_t at)
{
	struct bs_piece p = { .kind = BS_PIECE_PAGE, .block = at, .blocks = 2, .data = page };
	int rc = read_at(w, page, at, 2);

	if (rc)
		return rc == -ENOMEM ? rc : 0;
	if (le32_get(page->magic) != BS_MAGIC_PAGE || le16_get(page->kind) != BS_PAGE_SUPER || le64_get(page->address) != at ||
	    memcmp(page->uuid, w->sb->uuid, sizeof(page->uuid)) || le32_get(page->ckpt) != (uint32_t)le64_get(w->sb->ckpt_l0))
		return 0;
	p.wrong = page_wrong(w, page, at, 2, le32_get(page->crc));
	rc = w->fn(&p, w->arg);
	return rc ? rc : 1;
}

/* It follows the root; where the root's unit had no room for it, it begins another one, of which nothing tells which. */
static int find_described(struct walk *w)
{
	uint64_t unit = le32_get(w->sb->segment_blocks), root = le64_get(w->sb->ckpt_root);
	uint64_t blocks = MIN(le64_get(w->sb->blocks), bdev_info(w->dev)->size / BS_BLOCK);
	struct bs_page_disk *page = dma_alloc((size_t)2 * BS_BLOCK, BS_BLOCK);
	int rc = page ? walk_described(w, page, root + le32_get(w->sb->ckpt_root_blocks)) : -ENOMEM;

	for (uint64_t at = unit; !rc && at < blocks; at += unit)
		rc = walk_described(w, page, at);
	dma_free(page);
	return rc == 1 ? 0 : rc;
}

/* ---- the whole ---- */

/* Which superblock to go by, sound or not quite: lengths have to be possible at least. */
static const struct bs_sb_disk *usable(const struct bs_sb_pair *pair)
{
	for (int k = 0; k < 2; k++) {
		int i = k ? !pair->chosen : pair->chosen;
		const struct bs_sb_disk *sb = pair->chosen < 0 ? NULL : &pair->sb[i];

		if (sb && pair->state[i] == BS_SB_GOOD && is_pow2(le32_get(sb->segment_blocks)) && le32_get(sb->segment_blocks) >= 64 &&
		    le32_get(sb->segment_blocks) <= 4096)
			return sb;
	}
	return NULL;
}

int bs_walk(struct bdev *dev, uint32_t what, bs_piece_fn fn, void *arg, struct base_err *err)
{
	struct walk w = { .dev = dev, .fn = fn, .arg = arg };
	struct base_err why = { "" };
	struct bs_sb_pair pair;
	int rc = bs_sb_read(dev, &pair, &why);

	if (rc == -ENOMEM || bdev_info(dev)->size < ((uint64_t)BS_SB_COPY_BLOCK + 1) * BS_BLOCK)
		return base_err_set(err, rc, "%s", base_err_text(&why, rc));
	w.sb = usable(&pair);
	w.ch = bdev_channel_borrow(dev);
	rc = what & BS_WALK_SUPER ? walk_super(&w, &pair) : 0;
	if (!rc && !w.sb && (what & (BS_WALK_LOG | BS_WALK_CKPT)))
		rc = base_err_set(err, -EUCLEAN, "%s: without a superblock it is not known where anything is", bdev_info(dev)->name);
	if (!rc && (what & BS_WALK_LOG))
		rc = walk_log(&w);
	if (!rc && (what & BS_WALK_CKPT) && le64_get(w.sb->ckpt_root))
		rc = walk_page(&w, le64_get(w.sb->ckpt_root), le32_get(w.sb->ckpt_root_blocks), le32_get(w.sb->ckpt_root_crc), 0);
	if (!rc && (what & BS_WALK_CKPT) && (what & BS_WALK_DESCRIBED) && le64_get(w.sb->ckpt_root))
		rc = find_described(&w);
	bdev_channel_return(w.ch);
	free(w.seen);
	return rc;
}

int bs_piece_records(const struct bs_piece *piece, uint64_t blocks, int (*fn)(const struct bs_record *rec, void *arg), void *arg)
{
	const struct bs_frame_disk *f = piece->data;
	const struct bs_page_disk *p = piece->data;
	uint32_t head = piece->kind == BS_PIECE_FRAME ? sizeof(*f) : sizeof(*p), left, at = head;
	int rc = 0;

	if (!piece->data || (piece->kind != BS_PIECE_FRAME && piece->kind != BS_PIECE_PAGE))
		return 0;
	if (piece->kind == BS_PIECE_PAGE && le16_get(p->kind) != BS_PAGE_LEAF)
		return 0;
	left = MIN(piece->kind == BS_PIECE_FRAME ? le32_get(f->bytes) : le32_get(p->bytes), piece->blocks * BS_BLOCK - head);
	for (uint32_t n = 0; left && !rc; n++) {
		const void *at_p = (const uint8_t *)piece->data + at;
		struct bs_record out = { .lsn = piece->kind == BS_PIECE_FRAME ? le64_get(f->first_lsn) + n : le64_get(p->lsn) };
		struct bs_rec rec;
		int size = bs_rec_decode(at_p, left, blocks, &rec);

		out.wrong = size < 0;
		if (!out.wrong) {
			out.blob = rec.blob;
			out.key = rec.key;
			out.op = rec.op;
			out.kind = rec.kind;
			out.end = rec.flags & BS_REC_END;
			out.len = rec.len;
			out.at = at + (uint32_t)sizeof(struct bs_rec_disk);
			bs_rec_text(&rec, out.text, sizeof(out.text));
		}
		rc = fn(&out, arg);
		size = out.wrong ? bs_rec_skip(at_p, left) : size;
		if (size < 0)
			break;
		at += (uint32_t)size;
		left -= (uint32_t)size;
	}
	return rc;
}

void bs_piece_seal(const struct bs_piece *piece)
{
	struct bs_segment_disk *h = piece->data;
	struct bs_frame_disk *f = piece->data;
	struct bs_page_disk *p = piece->data;
	struct bs_sum_page_disk *s = piece->data;
	size_t len = (size_t)piece->blocks * BS_BLOCK;

	switch (piece->kind) {
	case BS_PIECE_SUPER: bs_sb_seal(piece->data); break;
	case BS_PIECE_SEGMENT:
		h->crc = le32_make(bs_crc_skip(bs_crc_seed(piece->nonce, 0, piece->block), h, len, offsetof(struct bs_segment_disk, crc)));
		break;
	case BS_PIECE_FRAME:
		f->crc = le32_make(bs_crc_skip(bs_crc_seed(piece->nonce, le64_get(f->seq), piece->block), f, len,
					       offsetof(struct bs_frame_disk, crc)));
		break;
	case BS_PIECE_PAGE:
		p->crc = le32_make(bs_crc_skip(bs_crc_page_seed(p->uuid, piece->block), p, len, offsetof(struct bs_page_disk, crc)));
		break;
	case BS_PIECE_SUMS: s->crc = le32_make(bs_sum_page_crc(s)); break;
	}
}
