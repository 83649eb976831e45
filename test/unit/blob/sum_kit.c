/* SPDX-License-Identifier: BSD-2-Clause */
#include <string.h>

#include "base/dma.h"
#include "blob/sum.h"
#include "test/unit/blob/sum_kit.h"

void sum_kit_open(struct kit *kit, struct kit_opts opts)
{
	opts.format = BS_FORMAT_SUMS;
	kit_open(kit, &opts);
}

struct bs_extent sum_look(struct bs_blob *blob, uint64_t block)
{
	struct bs_extent e;

	bs_map_lookup(blob, block, 1, &e);
	return e;
}

int sum_read_rc(struct bs_blob *blob, uint64_t block, uint64_t count)
{
	void *buf = dma_alloc(count * BS_BLOCK, BS_BLOCK);
	int rc = kit_read(blob, block, count, buf);

	dma_free(buf);
	return rc;
}

struct bs_stat sum_stat(struct bs *bs)
{
	struct bs_stat st;

	bs_get_stat(bs, &st);
	return st;
}

/* Writes all over the device, so that many pages of sums are concerned; byte of block b: b % 251. */
struct bs_blob *sum_spread(struct kit *kit, uint64_t blocks)
{
	struct bs_blob *a = kit_create(kit->bs);
	uint8_t *buf = dma_alloc(64 * BS_BLOCK, BS_BLOCK);

	for (uint64_t b = 0; b < blocks; b += 64) {
		for (unsigned i = 0; i < 64; i++)
			memset(buf + i * BS_BLOCK, (int)((b + i) % 251), BS_BLOCK);
		ASSERT_OK(kit_write_buf(a, b, 64, buf, 0));
	}
	dma_free(buf);
	return a;
}

void sum_expect_spread(struct bs_blob *a, uint64_t blocks)
{
	for (uint64_t b = 0; b < blocks; b += 13)
		ASSERT_EQ_INT((int)(b % 251), kit_byte(a, b));
}

void sum_page_out(struct kit *kit)
{
	for (int i = 0; i < 20 && bs_sums_wanted(kit->bs); i++)
		ASSERT_OK(bs_service_step(kit->bs));
	EXPECT_FALSE(bs_sums_wanted(kit->bs));
}
