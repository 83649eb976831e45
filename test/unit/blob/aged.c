/* SPDX-License-Identifier: BSD-2-Clause */
/* A store that is nearly full for long: its data lies in ever more pieces, and metadata needs whole units of space all the same. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "test/unit/blob/kit.h"

#define PIECES 8192u
#define MOST 16u /* blocks of a piece */

struct pieces {
	struct kit kit;
	struct bs_blob *blob;
	uint32_t at[PIECES];
	uint8_t blocks[PIECES];
	unsigned n;
	uint64_t seed;
	void *buf;
};

static double left(struct bs *bs)
{
	struct bs_stat st;

	bs_get_stat(bs, &st);
	return (double)(st.avail_blocks + st.pending_blocks) / (double)st.blocks;
}

static void take_one_away(struct pieces *p)
{
	unsigned i = kit_rand(&p->seed, p->n--);
	uint32_t at = p->at[i];

	ASSERT_OK(kit_unmap(p->blob, (uint64_t)at * MOST, p->blocks[i]));
	p->at[i] = p->at[p->n];
	p->blocks[i] = p->blocks[p->n];
	p->at[p->n] = at;
}

static void add_one(struct pieces *p)
{
	p->blocks[p->n] = (uint8_t)(1 + kit_rand(&p->seed, MOST));
	ASSERT_OK(kit_write_buf(p->blob, (uint64_t)p->at[p->n] * MOST, p->blocks[p->n], p->buf, 0));
	bs_blob_trim_ahead(p->blob);
	p->n++;
}

TEST(blob_aged, a_store_nearly_full_for_long_finds_space_as_long_as_there_is_some)
{
	struct pieces *p = calloc(1, sizeof(*p));
	struct bs_stat st;

	p->seed = test_seed();
	p->buf = dma_zalloc(MOST * BS_BLOCK, BS_BLOCK);
	kit_open(&p->kit, &(struct kit_opts){ .size = 256 * MiB, .cluster_size = 4096, .flags = BS_NO_SERVICE });
	p->blob = kit_create(p->kit.bs);
	for (uint32_t i = 0; i < PIECES; i++)
		p->at[i] = i;
	for (uint64_t i = 0; i < 30000; i++) {
		if (p->n < PIECES && left(p->kit.bs) > 0.05)
			add_one(p);
		else
			take_one_away(p);
		if (i % 64 == 0) {
			ASSERT_OK(bs_commit(p->kit.bs, 0));
			ASSERT_OK(bs_service_step(p->kit.bs));
		}
	}
	bs_get_stat(p->kit.bs, &st);
	test_note("%u pieces, %llu runs", p->n, (unsigned long long)st.runs);
	EXPECT_LE_INT(st.avail_blocks, st.blocks / 10);
	EXPECT_GT_INT(st.runs, p->n * 3 / 2);
	bs_blob_put(p->blob);
	dma_free(p->buf);
	kit_close(&p->kit);
	free(p);
}
