/* SPDX-License-Identifier: BSD-2-Clause */
/* The kinds of damage. What has a checksum gets a right one again, unless the damage is that of a medium. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "test/corrupt/corrupt.h"

const char *const damage_names[DAMAGE_KINDS] = {
	[BIT_FLIPS] = "bit_flips",	     [BLOCKS] = "lost_and_stale_blocks", [TRUNCATION] = "truncated_device",
	[SUPER_FIELDS] = "superblock_fields", [SEGMENT_FIELDS] = "segment_fields", [FRAME_FIELDS] = "frame_fields",
	[PAGE_FIELDS] = "page_fields",	     [INDEX_ENTRIES] = "index_entries",	 [LOG_RECORDS] = "log_records",
	[PAGE_RECORDS] = "page_records",
};

struct field {
	const char *name;
	uint16_t offset, width;
};
#define FIELD(type, name) { #name, offsetof(struct type, name), sizeof(((struct type *)0)->name) }

static const struct field super_fields[] = {
	FIELD(bs_sb_disk, magic),	    FIELD(bs_sb_disk, version_major),	 FIELD(bs_sb_disk, version_minor),
	FIELD(bs_sb_disk, generation),	    FIELD(bs_sb_disk, uuid),		 FIELD(bs_sb_disk, mount_id),
	FIELD(bs_sb_disk, label),	    FIELD(bs_sb_disk, owner),		 FIELD(bs_sb_disk, compat),
	FIELD(bs_sb_disk, ro_compat),	    FIELD(bs_sb_disk, incompat),	 FIELD(bs_sb_disk, created_ns),
	FIELD(bs_sb_disk, blocks),	    FIELD(bs_sb_disk, cluster_blocks),	 FIELD(bs_sb_disk, segment_blocks),
	FIELD(bs_sb_disk, ckpt_root),	    FIELD(bs_sb_disk, ckpt_root_blocks), FIELD(bs_sb_disk, ckpt_root_crc),
	FIELD(bs_sb_disk, ckpt_l0),	    FIELD(bs_sb_disk, ckpt_l1),		 FIELD(bs_sb_disk, ckpt_blocks),
	FIELD(bs_sb_disk, ckpt_items),	    FIELD(bs_sb_disk, next_id),		 FIELD(bs_sb_disk, log_segment),
	FIELD(bs_sb_disk, log_nonce),	    FIELD(bs_sb_disk, log_seq),		 FIELD(bs_sb_disk, log_offset),
	FIELD(bs_sb_disk, clean),	    FIELD(bs_sb_disk, reserved),
};
static const struct field segment_fields[] = {
	FIELD(bs_segment_disk, magic),	      FIELD(bs_segment_disk, uuid),	    FIELD(bs_segment_disk, address),
	FIELD(bs_segment_disk, nonce),	      FIELD(bs_segment_disk, first_seq),    FIELD(bs_segment_disk, next_address),
	FIELD(bs_segment_disk, next_nonce),   FIELD(bs_segment_disk, reserved),
};
static const struct field frame_fields[] = {
	FIELD(bs_frame_disk, magic), FIELD(bs_frame_disk, uuid),    FIELD(bs_frame_disk, seq),	 FIELD(bs_frame_disk, first_lsn),
	FIELD(bs_frame_disk, blocks), FIELD(bs_frame_disk, bytes),  FIELD(bs_frame_disk, records), FIELD(bs_frame_disk, flags),
	FIELD(bs_frame_disk, wall_ns),
};
static const struct field page_fields[] = {
	FIELD(bs_page_disk, magic),	FIELD(bs_page_disk, uuid),	 FIELD(bs_page_disk, address),
	FIELD(bs_page_disk, lsn),	FIELD(bs_page_disk, kind),	 FIELD(bs_page_disk, level),
	FIELD(bs_page_disk, blocks),	FIELD(bs_page_disk, bytes),	 FIELD(bs_page_disk, count),
	FIELD(bs_page_disk, first_blob), FIELD(bs_page_disk, first_key), FIELD(bs_page_disk, first_kind),
	FIELD(bs_page_disk, ckpt),
};
static const struct field index_fields[] = {
	FIELD(bs_index_disk, blob),	FIELD(bs_index_disk, key), FIELD(bs_index_disk, kind),	 FIELD(bs_index_disk, blocks),
	FIELD(bs_index_disk, address),	FIELD(bs_index_disk, crc), FIELD(bs_index_disk, reserved),
};
static const struct field record_fields[] = {
	FIELD(bs_rec_disk, len),   FIELD(bs_rec_disk, op),   FIELD(bs_rec_disk, kind), FIELD(bs_rec_disk, flags),
	FIELD(bs_rec_disk, zero),  FIELD(bs_rec_disk, blob), FIELD(bs_rec_disk, key),
};

static void say(struct scratch *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct scratch *s, const char *fmt, ...)
{
	size_t n = strlen(s->what);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s->what + n, sizeof(s->what) - n, fmt, ap);
	va_end(ap);
}

/* ---- values ---- */

enum value { ZERO, ONES, PLUS_ONE, MINUS_ONE, ONE_BIT, RANDOM, SMALL, NUMBER_THERE, TWICE, ONE, VALUES };
static const char *const value_names[VALUES] = { "0",	  "all ones", "+1",	"-1",	 "a bit flipped",
						 "random", "small",    "another's", "doubled", "1" };

static uint64_t get(const uint8_t *p, unsigned width)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < width && i < 8; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static void set(uint8_t *p, unsigned width, uint64_t v)
{
	for (unsigned i = 0; i < width && i < 8; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

/* An address of a structure or a number that is some inode's: what refers to them then refers to others. */
static uint64_t number_there(const struct scratch *s, struct rnd *r)
{
	if (rnd_below(r, 2))
		return s->map->s[rnd_below(r, (uint64_t)s->map->n)].block;
	return 1 + rnd_below(r, 800);
}

/* Wide fields (names, reserved bytes) change in one place, at most eight bytes of it. */
static void change(struct scratch *s, uint8_t *p, unsigned width, enum value value, struct rnd *r)
{
	uint64_t v;

	if (width > 8) {
		p += 8 * rnd_below(r, width / 8);
		width = 8;
	}
	v = get(p, width);
	switch (value) {
	case ZERO: v = 0; break;
	case ONES: v = UINT64_MAX; break;
	case PLUS_ONE: v++; break;
	case MINUS_ONE: v--; break;
	case ONE_BIT: v ^= 1ull << rnd_below(r, 8 * width); break;
	case RANDOM: v = rnd_next(r); break;
	case SMALL: v = rnd_below(r, 300); break;
	case NUMBER_THERE: v = number_there(s, r); break;
	case TWICE: v *= 2; break;
	default: v = 1;
	}
	set(p, width, v);
	say(s, "%s", value_names[value]);
}

/* ---- media ---- */

static uint64_t any_used(const struct scratch *s, struct rnd *r)
{
	return s->image->used[rnd_below(r, s->image->n_used)];
}

/* Mostly where metadata is: data is the larger part, and no checksum guards it. */
static uint64_t any_block(const struct scratch *s, struct rnd *r)
{
	const struct structure *st = &s->map->s[rnd_below(r, (uint64_t)s->map->n)];

	return rnd_below(r, 8) ? st->block + rnd_below(r, st->blocks) : any_used(s, r);
}

static void flip_bits(struct scratch *s, struct rnd *r)
{
	for (uint64_t n = 1 + rnd_below(r, 8); n; n--) {
		uint64_t b = any_block(s, r), bit = rnd_below(r, BS_BLOCK * 8);

		if (rnd_below(r, 3) == 0)
			bit %= 1024; /* headers */
		s->mem[b * BS_BLOCK + bit / 8] ^= (uint8_t)(1u << bit % 8);
		say(s, "block %llu bit %llu; ", (unsigned long long)b, (unsigned long long)bit);
	}
}

static void lose_block(struct scratch *s, struct rnd *r)
{
	uint64_t b = any_block(s, r), from = any_block(s, r), half = 512 * rnd_below(r, 8);

	switch (rnd_below(r, 3)) {
	case 0:
		memset(s->mem + b * BS_BLOCK, 0, BS_BLOCK);
		say(s, "block %llu zeroed", (unsigned long long)b);
		return;
	case 1:
		memcpy(s->mem + b * BS_BLOCK, s->image->mem + from * BS_BLOCK, BS_BLOCK);
		say(s, "block %llu is a copy of %llu", (unsigned long long)b, (unsigned long long)from);
		return;
	default:
		memset(s->mem + b * BS_BLOCK + half, 0, BS_BLOCK - half);
		say(s, "block %llu ends after %llu bytes", (unsigned long long)b, (unsigned long long)half);
	}
}

static void truncate_device(struct scratch *s, struct rnd *r)
{
	uint64_t last = ((uint64_t)s->image->used[s->image->n_used - 1] + 1) * BS_BLOCK;

	if (rnd_below(r, 2))
		s->size = 512 * (1 + rnd_below(r, IMAGE_SIZE / 512 - 1));
	else
		s->size = last - 512 * rnd_below(r, 64);
	say(s, "device of %llu bytes", (unsigned long long)s->size);
}

/* ---- structures ---- */

/* The kth structure of a kind (or of two), counted round. */
static int pick(const struct map *m, unsigned kinds, uint64_t k)
{
	uint64_t n = 0;

	for (int i = 0; i < m->n; i++)
		n += (kinds >> m->s[i].kind) & 1;
	if (!n)
		return -1;
	k %= n;
	for (int i = 0; i < m->n; i++)
		if ((kinds >> m->s[i].kind) & 1 && !k--)
			return i;
	return -1;
}

static void change_field(struct scratch *s, int i, uint32_t offset, const struct field *f, enum value value, struct rnd *r)
{
	const struct structure *st = &s->map->s[i];

	say(s, "block %u: %s: ", st->block, f->name);
	change(s, s->mem + (uint64_t)st->block * BS_BLOCK + offset + f->offset, f->width, value, r);
	map_seal(s->map, s->mem, i);
}

/* Every field gets every value, in turn; `which` structure is random. */
static void change_header(struct scratch *s, unsigned kinds, const struct field *f, size_t n, uint64_t nth, struct rnd *r)
{
	int i = pick(s->map, kinds, rnd_next(r));

	if (i < 0)
		flip_bits(s, r); /* an image that was closed has no frames */
	else
		change_field(s, i, 0, &f[nth % n], (enum value)(nth / n % VALUES), r);
}

/* One copy, the other, or both: a good copy must not be led astray by a bad one. */
static void change_super(struct scratch *s, uint64_t nth, struct rnd *r)
{
	const struct field *f = &super_fields[nth % ARRAY_SIZE(super_fields)];
	uint64_t rest = nth / ARRAY_SIZE(super_fields);
	enum value value = (enum value)(rest % VALUES);
	uint64_t copies = rest / VALUES % 3;
	struct rnd same = *r;

	if (copies != 1)
		change_field(s, 0, 0, f, value, r);
	if (copies != 0) {
		say(s, "; ");
		change_field(s, 1, 0, f, value, &same);
	}
}

static void change_entry(struct scratch *s, uint64_t nth, struct rnd *r)
{
	const struct field *f = &index_fields[nth % ARRAY_SIZE(index_fields)];
	int i = pick(s->map, 1u << INDEX, rnd_next(r));
	const struct bs_page_disk *p;
	uint32_t entry;

	p = (const struct bs_page_disk *)(s->mem + (uint64_t)s->map->s[i].block * BS_BLOCK);
	entry = (uint32_t)rnd_below(r, le32_get(p->count) ? le32_get(p->count) : 1);
	change_field(s, i, (uint32_t)(sizeof(*p) + entry * sizeof(struct bs_index_disk)), f,
		     (enum value)(nth / ARRAY_SIZE(index_fields) % VALUES), r);
}

/* A record of the log or of the checkpoint: its header, or some bytes of its value. */
static const struct record *any_record(const struct scratch *s, bool of_log, struct rnd *r)
{
	for (int tries = 0; tries < 64; tries++) {
		const struct record *rec = &s->map->rec[rnd_below(r, (uint64_t)s->map->n_rec)];

		if ((s->map->s[rec->structure].kind == FRAME) == of_log)
			return rec;
	}
	return &s->map->rec[0];
}

static void change_record(struct scratch *s, bool of_log, struct rnd *r)
{
	static const uint16_t widths[] = { 1, 2, 4, 5, 8 };
	const struct record *rec = any_record(s, of_log, r);
	uint32_t head = sizeof(struct bs_rec_disk);
	struct field f = { "value", 0, widths[rnd_below(r, ARRAY_SIZE(widths))] };
	enum value value = (enum value)rnd_below(r, VALUES);

	if (rec->size <= head + f.width || rnd_below(r, 3) == 0) {
		f = record_fields[rnd_below(r, ARRAY_SIZE(record_fields))];
	} else {
		uint32_t room = rec->size - head - f.width;

		/* Where fields begin, more often than not. */
		f.offset = (uint16_t)(head + (rnd_below(r, 4) ? MIN(room, 4 * (uint32_t)rnd_below(r, 24)) : rnd_below(r, room + 1)));
	}
	say(s, "record at %u+%u, ", rec->offset, f.offset);
	change_field(s, rec->structure, rec->offset, &f, value, r);
}

/* ---- all ---- */

static void damage_once(struct scratch *s, enum damage_kind kind, uint64_t nth, struct rnd *r)
{
	switch (kind) {
	case BIT_FLIPS: flip_bits(s, r); return;
	case BLOCKS: lose_block(s, r); return;
	case TRUNCATION: truncate_device(s, r); return;
	case SUPER_FIELDS: change_super(s, nth, r); return;
	case SEGMENT_FIELDS:
		change_header(s, 1u << SEGMENT, segment_fields, ARRAY_SIZE(segment_fields), nth, r);
		return;
	case FRAME_FIELDS: change_header(s, 1u << FRAME, frame_fields, ARRAY_SIZE(frame_fields), nth, r); return;
	case PAGE_FIELDS:
		change_header(s, 1u << LEAF | 1u << INDEX, page_fields, ARRAY_SIZE(page_fields), nth, r);
		return;
	case INDEX_ENTRIES: change_entry(s, nth, r); return;
	case LOG_RECORDS: change_record(s, true, r); return;
	default: change_record(s, false, r);
	}
}

void damage_do(struct scratch *s, enum damage_kind kind, uint64_t nth, struct rnd *r)
{
	s->what[0] = '\0';
	s->size = IMAGE_SIZE;
	damage_once(s, kind, nth, r);
	for (; rnd_below(r, 4) == 0 && kind >= SEGMENT_FIELDS; nth += 7) {
		say(s, "; ");
		damage_once(s, kind, nth + 1, r);
	}
}

/* Blocks that are not used stay as they are: damage is done to used ones only, but for a frame said to be longer. */
void damage_undo(struct scratch *s)
{
	for (uint32_t i = 0; i < s->image->n_used; i++) {
		uint64_t at = (uint64_t)s->image->used[i] * BS_BLOCK;

		memcpy(s->mem + at, s->image->mem + at, BS_BLOCK);
	}
}
