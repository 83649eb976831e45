/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a copy of metadata leaves out: bytes of files that the log carries, always. And names made unreadable: each byte is replaced by
 * another of its class (letters and digits; the rest), by a random number and all bytes before it: equal names stay equal, different ones
 * different, lengths what they were, and without the number nobody can go back. '/' and '.' stay.
 */
#include <stdlib.h>
#include <string.h>

#include "blobfs/format.h"
#include "tools/blobfs/metadump.h"

struct scramble {
	uint64_t salt[2];
	const struct bs_piece *piece;
	bool changed;
};

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+";
#define PLAIN (sizeof(plain) - 1)

static bool stays(uint8_t c)
{
	return !c || c == '/' || c == '.';
}

/* The nth byte of the other class, and the reverse. */
static unsigned rest_index(uint8_t c)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c; i++)
		n += !stays((uint8_t)i) && !strchr(plain, (int)i);
	return n;
}

static uint8_t rest_byte(unsigned n)
{
	for (unsigned i = 1; i < 256; i++)
		if (!stays((uint8_t)i) && !strchr(plain, (int)i) && !n--)
			return (uint8_t)i;
	return 1;
}

#define REST (256 - 3 - (unsigned)PLAIN)

static void scramble_bytes(const struct scramble *s, uint8_t *p, size_t len)
{
	uint64_t h = s->salt[0];

	for (size_t i = 0; i < len; i++) {
		uint8_t c = p[i];
		const char *at = c ? strchr(plain, c) : NULL;
		uint64_t k = mix(h ^ s->salt[1]);

		if (at)
			p[i] = (uint8_t)plain[((uint64_t)(at - plain) + k) % PLAIN];
		else if (!stays(c))
			p[i] = rest_byte((unsigned)((rest_index(c) + k) % REST));
		h = mix(h ^ c);
	}
}

/* The namespace of an attribute's name stays, its value does not. */
static void scramble_xattr(const struct scramble *s, uint8_t *value, uint32_t len)
{
	uint8_t n = value[0];
	const uint8_t *dot = len > 1 ? memchr(value + 1, '.', MIN((uint32_t)n, len - 1)) : NULL;

	if ((uint32_t)n + 1 > len)
		n = (uint8_t)(len - 1);
	if (dot)
		scramble_bytes(s, value + (dot - value) + 1, n - (size_t)(dot - value));
	else
		scramble_bytes(s, value + 1, n);
	memset(value + 1 + n, 0, len - 1 - n);
}

static int scramble_record(const struct bs_record *rec, void *arg)
{
	struct scramble *s = arg;
	uint8_t *value = (uint8_t *)s->piece->data + rec->at;
	le32 bits;

	if (rec->wrong || !rec->len)
		return 0;
	if (rec->kind == BFS_KIND_DIRENT && rec->len > sizeof(struct bfs_dirent_disk))
		scramble_bytes(s, value + sizeof(struct bfs_dirent_disk), rec->len - sizeof(struct bfs_dirent_disk));
	else if (rec->kind == BFS_KIND_XATTR)
		scramble_xattr(s, value, rec->len);
	else if (rec->kind == BFS_KIND_SYMLINK)
		scramble_bytes(s, value, rec->len);
	else if (rec->kind == BFS_KIND_FS && rec->len == sizeof(struct bfs_fs_disk)) {
		memcpy(&bits, value + offsetof(struct bfs_fs_disk, hash_bits), sizeof(bits));
		bits = le32_make(le32_get(bits) | BFS_HASH_SCRAMBLED);
		memcpy(value + offsetof(struct bfs_fs_disk, hash_bits), &bits, sizeof(bits));
	} else if (rec->kind >= BS_KIND_USER || (rec->kind == BS_KIND_SUM && rec->op == BS_REC_PUT))
		memset(value, 0, rec->len);
	else
		return 0;
	s->changed = true;
	return 0;
}

/* A page's checksum stands in its parent, which comes before it and lies one level higher; the root's in the superblocks. */
static void seal_above(struct meta *m, size_t i, uint32_t crc)
{
	const struct bs_piece *p = &m->piece[i];

	for (size_t k = i; k-- > 0;) {
		struct bs_piece *up = &m->piece[k];
		struct bs_index_disk *d = (struct bs_index_disk *)((struct bs_page_disk *)up->data + 1);
		uint32_t n;

		if (up->kind == BS_PIECE_SUPER && !p->depth && !up->wrong &&
		    le64_get(((struct bs_sb_disk *)up->data)->ckpt_root) == p->block)
			((struct bs_sb_disk *)up->data)->ckpt_root_crc = le32_make(crc);
		if (up->kind != BS_PIECE_PAGE || up->wrong || up->depth + 1 != p->depth)
			continue;
		n = MIN(le32_get(((struct bs_page_disk *)up->data)->bytes), up->blocks * BS_BLOCK - (uint32_t)sizeof(struct bs_page_disk));
		for (n /= (uint32_t)sizeof(*d); n; n--, d++)
			if (le64_get(d->address) == p->block)
				d->crc = le32_make(crc);
		return;
	}
}

static void seal(struct meta *m, size_t i)
{
	const struct bs_piece *p = &m->piece[i];

	bs_piece_seal(p);
	if (p->kind == BS_PIECE_PAGE && !p->wrong)
		seal_above(m, i, le32_get(((struct bs_page_disk *)p->data)->crc));
}

/* ---- data ---- */

struct strip {
	uint8_t *data;
	uint32_t end; /* of the records that are understood */
	bool wrong;
};

static int strip_record(const struct bs_record *rec, void *arg)
{
	struct strip *s = arg;

	s->wrong |= rec->wrong;
	if (s->wrong)
		return 0;
	s->end = rec->at + (uint32_t)round_up(rec->len, 8);
	if (rec->kind != BS_KIND_LOGDATA || rec->op != BS_REC_PUT)
		return 0;
	memset(s->data + rec->at + sizeof(struct bs_carried_disk), 0, rec->len - sizeof(struct bs_carried_disk));
	return 0;
}

static bool has_its_magic(const struct bs_piece *p)
{
	static const uint32_t magic[] = { [BS_PIECE_SEGMENT] = BS_MAGIC_SEGMENT, [BS_PIECE_FRAME] = BS_MAGIC_FRAME,
					  [BS_PIECE_PAGE] = BS_MAGIC_PAGE, [BS_PIECE_SUMS] = BS_MAGIC_SUM };
	le32 is;

	memcpy(&is, p->data, sizeof(is));
	return p->kind == BS_PIECE_SUPER || le32_get(is) == magic[p->kind];
}

/* Of what is damaged, only what is understood stays: the rest may be anything. */
static void strip(const struct bs_piece *p)
{
	struct strip s = { .data = p->data, .end = p->kind == BS_PIECE_PAGE ? sizeof(struct bs_page_disk) : sizeof(struct bs_frame_disk) };
	size_t len = (size_t)p->blocks * BS_BLOCK;
	bool records = p->kind == BS_PIECE_FRAME ||
		       (p->kind == BS_PIECE_PAGE && le16_get(((struct bs_page_disk *)p->data)->kind) != BS_PAGE_INDEX);

	if (!has_its_magic(p) || (p->kind == BS_PIECE_SUMS && p->wrong))
		memset(p->data, 0, len);
	else if (records)
		bs_piece_records(p, 1ull << BS_RUN_BITS, strip_record, &s);
	if (has_its_magic(p) && records && (p->wrong || s.wrong))
		memset((uint8_t *)p->data + s.end, 0, len - s.end);
}

void meta_strip(struct meta *m)
{
	for (size_t i = m->n; i-- > 0;) { /* children before parents */
		struct bs_piece *p = &m->piece[i];
		le32 *crc = (le32 *)((uint8_t *)p->data + (p->kind == BS_PIECE_SUPER ? offsetof(struct bs_sb_disk, crc) :
										       offsetof(struct bs_frame_disk, crc)));
		le32 was = *crc;

		bs_piece_seal(p);
		if (le32_get(*crc) == le32_get(was)) {
			strip(p);
			seal(m, i);
		} else {
			*crc = was;
			strip(p);
		}
	}
}

/* ---- names ---- */

void meta_scramble(struct meta *m)
{
	struct scramble s = { { 0, 0 }, NULL, false };

	base_random(s.salt, sizeof(s.salt));
	for (size_t i = m->n; i-- > 0;) { /* children before parents */
		struct bs_piece *p = &m->piece[i];

		s.piece = p;
		if (p->wrong) {
			memset(p->data, 0, (size_t)p->blocks * BS_BLOCK);
			continue;
		}
		if (p->kind == BS_PIECE_SUPER)
			memset(((struct bs_sb_disk *)p->data)->label, 0, sizeof(((struct bs_sb_disk *)p->data)->label));
		if (p->kind == BS_PIECE_SEGMENT)
			memset(((struct bs_segment_disk *)p->data)->label, 0, sizeof(((struct bs_segment_disk *)p->data)->label));
		if (p->kind == BS_PIECE_SUMS) /* they tell whether a block is one that somebody knows */
			memset(((struct bs_sum_page_disk *)p->data)->sum, 0, sizeof(((struct bs_sum_page_disk *)p->data)->sum));
		bs_piece_records(p, 1ull << BS_RUN_BITS, scramble_record, &s);
		seal(m, i);
	}
}
