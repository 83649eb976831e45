/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames: the input takes the place of the log's last frame. Its first byte says whether the fields that make it a frame of this place are
 * put right, besides the checksum; then comes the frame from its header on, so that records can be anything.
 */
#include <string.h>

#include "test/fuzz/fuzz.h"

enum { RIGHT = 1, REPAIR = 2 };

/* What it says of itself is true, whatever its records are. */
static void put_right(const struct scratch *s, const struct structure *st, struct bs_frame_disk *f, size_t size)
{
	const struct bs_frame_disk *was = (const void *)(s->image->mem + (uint64_t)st->block * BS_BLOCK);

	f->magic = was->magic;
	memcpy(f->uuid, was->uuid, sizeof(f->uuid));
	f->seq = was->seq;
	f->first_lsn = was->first_lsn;
	f->blocks = le32_make((uint32_t)div_round_up(size, BS_BLOCK));
	f->bytes = le32_make((uint32_t)(size - sizeof(*f)));
}

static void run(const uint8_t *data, size_t size)
{
	struct scratch *s = fuzz_scratch(FUZZ_TAIL);
	const struct structure *st = fuzz_last(s, FRAME);
	struct bs_frame_disk *f = (void *)(s->mem + (uint64_t)st->block * BS_BLOCK);
	struct bs_piece piece = { .kind = BS_PIECE_FRAME, .block = st->block, .nonce = st->nonce, .data = f };
	size_t room = (size_t)st->blocks * BS_BLOCK, len;

	if (size < 1 + sizeof(*f))
		return;
	len = MIN(size - 1, room);
	memset(f, 0, room);
	memcpy(f, data + 1, len);
	if (data[0] & RIGHT)
		put_right(s, st, f, len);
	piece.blocks = MAX(1u, MIN(le32_get(f->blocks), st->blocks));
	bs_piece_seal(&piece);
	fuzz_use(s, data[0] & REPAIR ? FUZZ_REPAIR : FUZZ_USE, data[0] >> 4);
}

/* The last frame as it is, and each frame before it in its place. */
static size_t seed(unsigned k, uint8_t *out, size_t room)
{
	struct scratch *s = fuzz_scratch(FUZZ_TAIL);
	const struct structure *last = fuzz_last(s, FRAME);
	const struct bs_frame_disk *f;
	size_t size;
	unsigned n = 0;

	for (int i = s->map->n - 1; i >= 0; i--) {
		const struct structure *st = &s->map->s[i];

		if (st->kind != FRAME || st->blocks > last->blocks || n++ != k)
			continue;
		f = (const void *)(s->image->mem + (uint64_t)st->block * BS_BLOCK);
		size = sizeof(*f) + le32_get(f->bytes);
		if (size + 1 > room || k > 7)
			return 0;
		out[0] = k & 1 ? RIGHT | REPAIR : RIGHT;
		memcpy(out + 1, f, size);
		return size + 1;
	}
	return 0;
}

const struct fuzz_target fuzz_frame = { "frame", run, seed };
