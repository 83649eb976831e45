/* SPDX-License-Identifier: BSD-2-Clause */
/* Superblocks: the first byte says which copies get the rest of the input, and what is done then. */
#include <string.h>

#include "test/fuzz/fuzz.h"

enum { FIRST = 1, SECOND = 2, TAIL = 4, REPAIR = 8 };

static void put(struct scratch *s, uint32_t block, const uint8_t *data, size_t size)
{
	uint8_t *to = s->mem + (uint64_t)block * BS_BLOCK;
	struct bs_piece piece = { .kind = BS_PIECE_SUPER, .blocks = 1, .block = block, .data = to };

	memcpy(to, data, MIN(size, BS_BLOCK));
	bs_piece_seal(&piece);
}

static void run(const uint8_t *data, size_t size)
{
	struct scratch *s;
	uint8_t how;

	if (!size)
		return;
	how = data[0];
	s = fuzz_scratch(how & TAIL ? FUZZ_TAIL : FUZZ_CLOSED);
	if (how & FIRST)
		put(s, 0, data + 1, size - 1);
	if (how & SECOND)
		put(s, BS_SB_COPY_BLOCK, data + 1, size - 1);
	fuzz_use(s, how & REPAIR ? FUZZ_REPAIR : FUZZ_USE, how >> 4);
}

/* What follows the fields is zeroes, and need not be in an input. */
static size_t seed(unsigned k, uint8_t *out, size_t room)
{
	static const uint8_t how[] = { FIRST, FIRST | SECOND, SECOND | TAIL, FIRST | SECOND | TAIL | REPAIR };
	size_t size = offsetof(struct bs_sb_disk, reserved);

	if (k >= ARRAY_SIZE(how) || room < size + 1)
		return 0;
	out[0] = how[k];
	memcpy(out + 1, fuzz_scratch(how[k] & TAIL ? FUZZ_TAIL : FUZZ_CLOSED)->image->mem, size);
	return size + 1;
}

const struct fuzz_target fuzz_super = { "super", run, seed };
