/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whole images: the first byte says which and what is done with it, then come changes, each {place (2), offset (2), length (1), bytes}.
 * Places below the number of structures are structures, whose checksums are put right afterwards (unless the first byte says not to);
 * others are blocks that are in use.
 */
#include <string.h>

#include "test/fuzz/fuzz.h"

enum { TAIL = 1, REPAIR = 2, RAW = 4 };

static void change(struct scratch *s, const uint8_t *head, const uint8_t *bytes, size_t n, bool seal)
{
	uint32_t place = head[0] | (uint32_t)head[1] << 8, offset = head[2] | (uint32_t)head[3] << 8, room;
	uint8_t *to;

	if (place < (uint32_t)s->map->n) {
		to = s->mem + (uint64_t)s->map->s[place].block * BS_BLOCK;
		room = s->map->s[place].blocks * BS_BLOCK;
	} else {
		to = s->mem + (uint64_t)s->image->used[place % s->image->n_used] * BS_BLOCK;
		room = BS_BLOCK;
	}
	offset %= room;
	memcpy(to + offset, bytes, MIN(n, room - offset));
	if (seal && place < (uint32_t)s->map->n)
		map_seal(s->map, s->mem, (int)place);
}

static void run(const uint8_t *data, size_t size)
{
	struct scratch *s;
	size_t at = 1;

	if (!size)
		return;
	s = fuzz_scratch(data[0] & TAIL ? FUZZ_TAIL : FUZZ_CLOSED);
	while (size - at > 5) {
		size_t n = MIN((size_t)data[at + 4], size - at - 5);

		change(s, data + at, data + at + 5, n, !(data[0] & RAW));
		at += 5 + n;
	}
	fuzz_use(s, data[0] & REPAIR ? FUZZ_REPAIR : FUZZ_USE, data[0] >> 4);
}

/* Each structure's first bytes, written over themselves: where to begin changing. */
static size_t seed(unsigned k, uint8_t *out, size_t room)
{
	static const uint8_t how[] = { 0, REPAIR, TAIL, TAIL | REPAIR, TAIL | REPAIR | RAW };
	struct scratch *s;
	size_t at = 1;

	if (k >= ARRAY_SIZE(how))
		return 0;
	s = fuzz_scratch(how[k] & TAIL ? FUZZ_TAIL : FUZZ_CLOSED);
	out[0] = how[k];
	for (int i = 0; i < s->map->n && i < 24 && at + 5 + 200 <= room; i++) {
		const uint8_t head[5] = { (uint8_t)i, (uint8_t)(i >> 8), 0, 0, 200 };

		memcpy(out + at, head, sizeof(head));
		memcpy(out + at + 5, s->image->mem + (uint64_t)s->map->s[i].block * BS_BLOCK, 200);
		at += 205;
	}
	return at;
}

const struct fuzz_target fuzz_image = { "image", run, seed };
