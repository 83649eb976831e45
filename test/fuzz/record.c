/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Records by themselves: what decodes encodes to the same bytes and has a text; what does not says how long it is, or that it cannot be
 * known. Then as the content of a frame that is only looked at.
 */
#include <string.h>

#include "blob/internal.h"
#include "test/fuzz/fuzz.h"

#define BLOCKS 10240u

static void check_one(const uint8_t *data, const struct bs_rec *rec, uint32_t size)
{
	static uint8_t again[BS_REC_MAX + 8];
	char text[256];

	if (size != bs_rec_size(rec->len))
		fuzz_finding("a record of %u bytes says it has %u", size, bs_rec_size(rec->len));
	memset(again, 0xa5, size);
	if (bs_rec_encode(rec, again) != size || memcmp(again, data, size))
		fuzz_finding("a record of %u bytes is not encoded as it was", size);
	bs_rec_text(rec, text, sizeof(text));
	if (strnlen(text, sizeof(text)) == sizeof(text))
		fuzz_finding("a record's text has no end");
}

static int look(const struct bs_record *rec, void *arg)
{
	const struct bs_piece *piece = arg;

	if (!rec->wrong && (rec->at > piece->blocks * BS_BLOCK || rec->len > piece->blocks * BS_BLOCK - rec->at))
		fuzz_finding("a record's value lies at %u + %u", rec->at, rec->len);
	return 0;
}

static void as_frame(const uint8_t *data, uint32_t size)
{
	static uint8_t buf[BS_FRAME_MAX] __attribute__((aligned(8)));
	struct bs_frame_disk *f = (struct bs_frame_disk *)buf;
	struct bs_piece piece = { .kind = BS_PIECE_FRAME, .data = buf };

	size = (uint32_t)MIN(size, sizeof(buf) - sizeof(*f));
	piece.blocks = (uint32_t)div_round_up(sizeof(*f) + size, BS_BLOCK);
	memset(buf, 0, (size_t)piece.blocks * BS_BLOCK);
	memcpy(f + 1, data, size);
	f->magic = le32_make(BS_MAGIC_FRAME);
	f->blocks = le32_make(piece.blocks);
	f->bytes = le32_make(size);
	f->records = le32_make(UINT32_MAX);
	bs_piece_seal(&piece);
	bs_piece_records(&piece, BLOCKS, look, &piece);
}

static void run(const uint8_t *data, size_t size)
{
	static uint8_t copy[FUZZ_INPUT_MAX + BS_REC_MAX] __attribute__((aligned(8)));
	uint32_t left = (uint32_t)MIN(size, FUZZ_INPUT_MAX), at = 0;

	memcpy(copy, data, left); /* records are aligned where they are decoded */
	as_frame(copy, left);
	while (at < left) {
		struct bs_rec rec;
		int n = bs_rec_decode(copy + at, left - at, BLOCKS, &rec);

		if (n > 0)
			check_one(copy + at, &rec, (uint32_t)n);
		else
			n = bs_rec_skip(copy + at, left - at);
		if (n <= 0)
			return;
		if ((uint32_t)n > left - at || n & 7)
			fuzz_finding("a record of %d bytes in %u", n, left - at);
		at += (uint32_t)n;
	}
}

/* The records of a frame, and of a leaf. */
static size_t seed(unsigned k, uint8_t *out, size_t room)
{
	struct scratch *s = fuzz_scratch(FUZZ_TAIL);
	const struct structure *st = fuzz_last(s, k ? LEAF : FRAME);
	const uint8_t *from = s->image->mem + (uint64_t)st->block * BS_BLOCK;
	size_t head = k ? sizeof(struct bs_page_disk) : sizeof(struct bs_frame_disk);
	uint32_t size = k ? le32_get(((const struct bs_page_disk *)from)->bytes) : le32_get(((const struct bs_frame_disk *)from)->bytes);

	if (k > 1 || size > room)
		return 0;
	memcpy(out, from + head, size);
	return size;
}

const struct fuzz_target fuzz_record = { "record", run, seed };
