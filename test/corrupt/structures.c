/* SPDX-License-Identifier: BSD-2-Clause */
/* Finds everything in an image that has a checksum, as FORMAT.md describes it, and makes checksums right again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "test/corrupt/corrupt.h"

#define SB_COPIES 2
static const uint32_t sb_at[SB_COPIES] = { 0, BS_SB_COPY_BLOCK };

static void broken(const char *what, uint64_t block)
{
	printf("not ok corrupt/image: block %llu: %s\n", (unsigned long long)block, what);
	exit(1);
}

static uint32_t crc_over(uint32_t seed, const uint8_t *p, size_t len, size_t field)
{
	static const uint8_t zero[4];

	seed = base_crc32c(base_crc32c(seed, p, field), zero, 4);
	return base_crc32c(seed, p + field + 4, len - field - 4);
}

static uint32_t log_seed(uint64_t nonce, uint64_t seq, uint64_t address)
{
	le64 w[3] = { le64_make(nonce), le64_make(seq), le64_make(address) };

	return base_crc32c(0, w, sizeof(w));
}

static uint8_t *at(uint8_t *mem, uint64_t block)
{
	return mem + block * BS_BLOCK;
}

/* ---- checksums ---- */

static uint32_t super_crc(const uint8_t *p)
{
	return crc_over(0, p, sizeof(struct bs_sb_disk), offsetof(struct bs_sb_disk, crc));
}

static uint32_t segment_crc(const struct structure *s, const uint8_t *p)
{
	return crc_over(log_seed(s->nonce, 0, s->block), p, BS_BLOCK, offsetof(struct bs_segment_disk, crc));
}

/* A reader takes length and sequence from the frame itself. */
static uint32_t frame_crc(const struct structure *s, const uint8_t *p)
{
	const struct bs_frame_disk *f = (const struct bs_frame_disk *)p;
	uint32_t blocks = le32_get(f->blocks);

	if (!blocks || blocks > BS_FRAME_MAX / BS_BLOCK || blocks > IMAGE_BLOCKS - s->block)
		blocks = s->blocks;
	return crc_over(log_seed(s->nonce, le64_get(f->seq), s->block), p, (size_t)blocks * BS_BLOCK,
			offsetof(struct bs_frame_disk, crc));
}

static uint32_t page_crc(const struct structure *s, const uint8_t *p)
{
	const struct bs_page_disk *d = (const struct bs_page_disk *)p;
	le64 address = le64_make(s->block);
	uint32_t seed = base_crc32c(base_crc32c(0, d->uuid, 16), &address, sizeof(address));

	return crc_over(seed, p, (size_t)s->blocks * BS_BLOCK, offsetof(struct bs_page_disk, crc));
}

/* The page's checksum stands in its parent, too; the root's in the superblocks. */
static void seal_above(const struct map *m, uint8_t *mem, int i)
{
	const struct structure *s = &m->s[i];
	struct bs_page_disk *p = (struct bs_page_disk *)at(mem, s->block);

	if (s->parent >= 0) {
		struct bs_page_disk *up = (struct bs_page_disk *)at(mem, m->s[s->parent].block);

		((struct bs_index_disk *)(up + 1))[s->parent_entry].crc = p->crc;
		map_seal(m, mem, s->parent);
		return;
	}
	for (int k = 0; k < SB_COPIES; k++) {
		((struct bs_sb_disk *)at(mem, sb_at[k]))->ckpt_root_crc = p->crc;
		map_seal(m, mem, k);
	}
}

void map_seal(const struct map *m, uint8_t *mem, int i)
{
	const struct structure *s = &m->s[i];
	uint8_t *p = at(mem, s->block);

	switch (s->kind) {
	case SUPER:
		((struct bs_sb_disk *)p)->crc = le32_make(super_crc(p));
		return;
	case SEGMENT:
		((struct bs_segment_disk *)p)->crc = le32_make(segment_crc(s, p));
		return;
	case FRAME:
		((struct bs_frame_disk *)p)->crc = le32_make(frame_crc(s, p));
		return;
	default:
		((struct bs_page_disk *)p)->crc = le32_make(page_crc(s, p));
		seal_above(m, mem, i);
	}
}

/* ---- finding ---- */

static int add(struct map *m, struct structure s)
{
	m->s = realloc(m->s, sizeof(*m->s) * (size_t)(m->n + 1));
	if (!m->s)
		broken("out of memory", s.block);
	m->s[m->n] = s;
	return m->n++;
}

static void add_records(struct map *m, const uint8_t *mem, int i, uint32_t head, uint32_t bytes)
{
	const uint8_t *p = mem + (uint64_t)m->s[i].block * BS_BLOCK;

	for (uint32_t off = head; off < head + bytes;) {
		const struct bs_rec_disk *d = (const struct bs_rec_disk *)(p + off);
		uint32_t size = (uint32_t)round_up(sizeof(*d) + le32_get(d->len), 8);

		m->rec = realloc(m->rec, sizeof(*m->rec) * (size_t)(m->n_rec + 1));
		if (!m->rec || size > head + bytes - off)
			broken("a record is longer than what holds it", m->s[i].block);
		m->rec[m->n_rec++] = (struct record){ .structure = i, .offset = off, .size = size };
		off += size;
	}
}

static void find_page(struct map *m, const uint8_t *mem, struct structure s)
{
	const struct bs_page_disk *p = (const struct bs_page_disk *)(mem + (uint64_t)s.block * BS_BLOCK);
	const struct bs_index_disk *e = (const struct bs_index_disk *)(p + 1);
	int i;

	if (le32_get(p->magic) != BS_MAGIC_PAGE || le32_get(p->crc) != page_crc(&s, (const uint8_t *)p))
		broken("no page of a checkpoint", s.block);
	s.kind = le16_get(p->kind) == BS_PAGE_LEAF ? LEAF : INDEX;
	i = add(m, s);
	if (s.kind == LEAF) {
		add_records(m, mem, i, sizeof(*p), le32_get(p->bytes));
		return;
	}
	for (uint32_t k = 0; k < le32_get(p->count); k++, e++)
		find_page(m, mem, (struct structure){ .block = (uint32_t)le64_get(e->address), .blocks = le32_get(e->blocks),
						      .parent = i, .parent_entry = k });
}

/* The frames of one segment from `offset` on; returns the sequence number after the last. */
static uint64_t find_frames(struct map *m, const uint8_t *mem, const struct structure *seg, uint32_t offset, uint64_t seq,
			    uint32_t segment_blocks)
{
	while (offset < segment_blocks) {
		struct structure s = { .kind = FRAME, .block = seg->block + offset, .nonce = seg->nonce, .parent = -1 };
		const struct bs_frame_disk *f = (const struct bs_frame_disk *)(mem + (uint64_t)s.block * BS_BLOCK);

		if (le32_get(f->magic) != BS_MAGIC_FRAME || le64_get(f->seq) != seq)
			break;
		s.blocks = le32_get(f->blocks);
		if (le32_get(f->crc) != frame_crc(&s, (const uint8_t *)f))
			break;
		add_records(m, mem, add(m, s), sizeof(*f), le32_get(f->bytes));
		offset += s.blocks;
		seq++;
	}
	return seq;
}

static void find_log(struct map *m, const uint8_t *mem, const struct bs_sb_disk *sb)
{
	struct structure s = { .kind = SEGMENT, .block = (uint32_t)le64_get(sb->log_segment), .blocks = 1,
			       .nonce = le64_get(sb->log_nonce), .parent = -1 };
	uint32_t offset = le32_get(sb->log_offset);
	uint64_t seq = le64_get(sb->log_seq);
	bool first = true;

	for (;;) {
		const struct bs_segment_disk *h = (const struct bs_segment_disk *)(mem + (uint64_t)s.block * BS_BLOCK);

		if (le32_get(h->magic) != BS_MAGIC_SEGMENT || le32_get(h->crc) != segment_crc(&s, (const uint8_t *)h))
			break;
		add(m, s);
		seq = find_frames(m, mem, &s, offset, seq, le32_get(sb->segment_blocks));
		s.block = (uint32_t)le64_get(h->next_address);
		s.nonce = le64_get(h->next_nonce);
		offset = 1;
		first = false;
	}
	if (first)
		broken("no log segment", s.block);
}

/* The zeroes at a structure's end are part of it. */
static void use_all(struct image *image, const struct map *m)
{
	static uint8_t used[IMAGE_BLOCKS];

	memset(used, 0, sizeof(used));
	for (uint32_t i = 0; i < image->n_used; i++)
		used[image->used[i]] = 1;
	for (int i = 0; i < m->n; i++)
		memset(used + m->s[i].block, 1, m->s[i].blocks);
	image->n_used = 0;
	for (uint32_t b = 0; b < IMAGE_BLOCKS; b++)
		if (used[b])
			image->used[image->n_used++] = b;
}

void map_make(struct image *image, struct map *m)
{
	const struct bs_sb_disk *sb = (const struct bs_sb_disk *)image->mem;

	*m = (struct map){ 0 };
	for (int k = 0; k < SB_COPIES; k++) {
		const uint8_t *p = image->mem + (uint64_t)sb_at[k] * BS_BLOCK;

		if (le32_get(((const struct bs_sb_disk *)p)->crc) != super_crc(p))
			broken("no superblock", sb_at[k]);
		add(m, (struct structure){ .kind = SUPER, .block = sb_at[k], .blocks = 1, .parent = -1 });
	}
	find_page(m, image->mem, (struct structure){ .block = (uint32_t)le64_get(sb->ckpt_root),
						     .blocks = le32_get(sb->ckpt_root_blocks), .parent = -1 });
	find_log(m, image->mem, sb);
	use_all(image, m);
}
