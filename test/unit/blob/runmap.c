/* SPDX-License-Identifier: BSD-2-Clause */
/* Run maps against an array that says for each block where it is. */
#include <stdlib.h>
#include <string.h>

#include "test/unit/blob/kit.h"

#define BLOCKS 2000u
#define PHYS 100000u

struct model {
	uint32_t blocks, longest; /* of BLOCKS, those that are used; of a change */
	uint32_t phys[BLOCKS]; /* 0: hole */
	uint8_t flags[BLOCKS];
	uint8_t gone[PHYS]; /* physical blocks the sink has got */
	uint64_t sunk, sunk_shared;
};

struct sink {
	struct bs_sink sink;
	struct model *m;
};

static void sink_extent(struct bs_sink *sink, uint64_t phys, uint64_t count, unsigned flags)
{
	struct model *m = container_of(sink, struct sink, sink)->m;

	for (uint64_t i = 0; i < count; i++)
		m->gone[phys + i]++;
	m->sunk += count;
	if (flags & BS_RUN_SHARED)
		m->sunk_shared += count;
}

static void sink_chunk(struct bs_sink *sink, struct bs_chunk *chunk)
{
	for (unsigned i = 0; i < chunk->n; i++)
		sink_extent(sink, bs_run_phys(&chunk->run[i]), chunk->run[i].count,
			    chunk->run[i].flags);
	free(chunk);
}

static void compare(const struct bs_runmap *map, const struct model *m)
{
	uint64_t blocks = 0, unwritten = 0, shared = 0, runs = 0;
	struct bs_run all[BLOCKS];
	struct bs_extent e;

	for (uint64_t b = 0; b < m->blocks; b++) {
		bs_runmap_lookup(map, b, m->blocks - b, &e);
		ASSERT_EQ_INT(m->phys[b] ? m->flags[b] : BS_RUN_HOLE, e.flags);
		if (m->phys[b])
			ASSERT_EQ_INT(m->phys[b], e.phys);
		for (uint64_t i = 0; i < e.count; i++)
			ASSERT_EQ_INT(m->phys[b] ? e.phys + i : 0, m->phys[b + i]);
		blocks += m->phys[b] != 0;
		unwritten += m->phys[b] && (m->flags[b] & BS_RUN_UNWRITTEN);
		shared += m->phys[b] && (m->flags[b] & BS_RUN_SHARED);
	}
	ASSERT_EQ_INT(blocks, bs_runmap_blocks(map));
	ASSERT_EQ_INT(unwritten, bs_runmap_unwritten(map));
	ASSERT_EQ_INT(shared, bs_runmap_shared(map));
	runs = bs_runmap_copy(map, 0, all, BLOCKS);
	ASSERT_EQ_INT(runs, map->runs);
	ASSERT_EQ_INT(runs ? bs_run_end(&all[runs - 1]) : 0, bs_runmap_end(map));
	/* Which form it has does not depend on how it came to be. */
	ASSERT_EQ_INT(runs < 2, RB_EMPTY(&map->chunks));
	for (uint64_t i = 1; i < runs; i++) {
		uint64_t end = (uint64_t)all[i - 1].logical + all[i - 1].count;

		ASSERT_LE_INT(end, (uint64_t)all[i].logical);
		/* What could be one run is one: a map read from a checkpoint is the same map. */
		ASSERT_FALSE(end == all[i].logical && all[i - 1].flags == all[i].flags &&
			     bs_run_phys(&all[i - 1]) + all[i - 1].count == bs_run_phys(&all[i]));
	}
}

/* A random change of map and model. */
static void change(struct bs_runmap *map, struct model *m, struct bs_spare *spare, uint64_t *seed)
{
	struct sink s = { { sink_extent, sink_chunk }, m };
	uint32_t block = kit_rand(seed, m->blocks),
		 count = 1 + kit_rand(seed, kit_rand(seed, 8) ? 8 : m->longest);
	uint32_t flags = kit_rand(seed, 2) ? BS_RUN_UNWRITTEN : 0,
		 phys = 1 + kit_rand(seed, PHYS - 600);
	uint64_t before = m->sunk, before_shared = m->sunk_shared, had = 0, had_shared = 0;
	bool put = kit_rand(seed, 3);
	struct bs_run run;

	count = MIN(count, m->blocks - block);
	/* Often where the block before lies, so that runs grow together. */
	if (block && m->phys[block - 1] && kit_rand(seed, 2)) {
		phys = m->phys[block - 1] + 1;
		flags = m->flags[block - 1];
	}
	memset(m->gone, 0, sizeof(m->gone));
	/* Or just what is there, with other flags. */
	if (m->phys[block] && !kit_rand(seed, 4))
		phys = m->phys[block];
	if (phys + count > PHYS)
		phys = 1 + kit_rand(seed, PHYS - 600);
	/* A put keeps what it maps itself. */
	for (uint32_t i = 0; i < count; i++) {
		bool gone = m->phys[block + i] && !(put && m->phys[block + i] - phys < count);

		had += gone;
		had_shared += gone && (m->flags[block + i] & BS_RUN_SHARED);
	}
	if (put) {
		bs_run_set(&run, block, phys, count, flags);
		bs_runmap_put(map, &run, spare, &s.sink);
	} else {
		bs_runmap_del(map, block, count, spare, &s.sink);
		phys = 0;
	}
	ASSERT_EQ_INT(had, m->sunk - before);
	ASSERT_EQ_INT(had_shared, m->sunk_shared - before_shared);
	for (uint32_t i = 0; i < count; i++) {
		if (m->phys[block + i])
			ASSERT_EQ_INT(!phys || m->phys[block + i] - phys >= count,
				      m->gone[m->phys[block + i]] > 0);
		m->phys[block + i] = phys ? phys + i : 0;
		m->flags[block + i] = (uint8_t)flags;
	}
}

static void share(struct bs_runmap *map, struct model *m, struct bs_spare *spare, uint64_t *seed)
{
	uint32_t block = kit_rand(seed, m->blocks),
		 count = 1 + kit_rand(seed, kit_rand(seed, 3) ? 20 : 2 * m->longest);
	bool all = true;

	count = MIN(count, m->blocks - block);
	for (uint32_t i = block; i < block + count; i++) {
		if (!m->phys[i] || (m->flags[i] & BS_RUN_UNWRITTEN))
			continue;
		all &= (m->flags[i] & BS_RUN_SHARED) != 0;
		m->flags[i] |= BS_RUN_SHARED;
	}
	ASSERT_EQ_INT(all, bs_runmap_all_shared(map, block, count));
	bs_runmap_share(map, block, count, spare);
	ASSERT_TRUE(bs_runmap_all_shared(map, block, count));
}

static uint64_t changed_from[3][4]; /* so often from so many runs to so many; 3: three or more */

static void random_changes(uint32_t blocks, bool short_of_memory)
{
	struct model *m = calloc(1, sizeof(*m));
	struct bs_spare spare = { NULL, 0 };
	uint64_t seed = test_seed(), had;
	struct bs_runmap map;

	m->blocks = blocks;
	m->longest = blocks / 4;
	memset(changed_from, 0, sizeof(changed_from));
	bs_runmap_init(&map);
	for (int i = 0; i < 6000; i++) {
		bool sharing = !kit_rand(&seed, 6);

		had = map.runs;
		/* One chunk is all a change may take from the pool, a few if it shares. */
		bs_spare_trim(&spare, 1);
		ASSERT_OK(bs_spare_fill(&spare, sharing ? BS_SHARE_CHUNKS : 1));
		if (short_of_memory)
			base_fail_allocs_from(1 + kit_rand(&seed, 3));
		if (sharing)
			share(&map, m, &spare, &seed);
		else
			change(&map, m, &spare, &seed);
		base_fail_alloc_after(0);
		if (blocks < BLOCKS || i % 100 == 0)
			compare(&map, m);
		if (had < ARRAY_SIZE(changed_from))
			changed_from[had][MIN(map.runs, 3u)]++;
	}
	compare(&map, m);
	bs_runmap_free(&map);
	bs_spare_trim(&spare, 0);
	free(m);
}

TEST(runmap, follows_an_array_through_random_changes)
{
	random_changes(BLOCKS, false);
}

TEST(runmap, takes_at_most_one_spare_chunk_a_change_when_memory_is_short)
{
	random_changes(BLOCKS, true);
}

/* A few blocks: none, one and several runs follow each other all the time. */
static void few_runs(bool short_of_memory)
{
	random_changes(8, short_of_memory);
	for (unsigned from = 0; from < 3; from++)
		for (unsigned to = 0; to < 4; to++)
			if (from || to < 2)
				EXPECT_GE_INT(changed_from[from][to], 10);
}

TEST(runmap, follows_an_array_from_no_run_to_one_to_several_and_back)
{
	few_runs(false);
}

TEST(runmap, follows_an_array_from_no_run_to_one_to_several_and_back_when_memory_is_short)
{
	few_runs(true);
}

TEST(runmap, one_run_takes_no_memory_and_a_second_one_a_chunk_at_most)
{
	struct bs_spare spare = { NULL, 0 };
	struct model *m = calloc(1, sizeof(*m));
	struct sink s = { { sink_extent, sink_chunk }, m };
	struct bs_runmap map;
	struct bs_run run;

	bs_runmap_init(&map);
	/* Neither malloc nor the pool has any. */
	base_fail_allocs_from(1);
	for (uint64_t i = 0; i < 100; i++) {
		bs_run_set(&run, 100 + i, 1000 + i, 1, i & 1 ? 0 : BS_RUN_UNWRITTEN);
		bs_runmap_put(&map, &run, &spare, &s.sink);
		EXPECT_EQ_INT(i & 1 ? 0 : 1, bs_runmap_unwritten(&map));
		bs_run_set(&run, 99 + i, 999 + i, 2, BS_RUN_SHARED);
		bs_runmap_put(&map, &run, &spare, &s.sink);
		EXPECT_EQ_INT(1, map.runs);
		EXPECT_EQ_INT(2, bs_runmap_shared(&map));
		bs_runmap_del(&map, 0, 100 + i, &spare, &s.sink);
		EXPECT_EQ_INT(1, bs_runmap_blocks(&map));
		bs_runmap_del(&map, 100 + i, i & 2 ? 1 : UINT64_MAX, &spare, &s.sink);
		EXPECT_EQ_INT(0, map.runs);
		EXPECT_EQ_INT(0, bs_runmap_blocks(&map) + bs_runmap_unwritten(&map) + bs_runmap_shared(&map));
	}
	base_fail_alloc_after(0);
	EXPECT_EQ_INT(200, m->sunk);
	EXPECT_EQ_INT(200, m->sunk_shared);
	ASSERT_OK(bs_spare_fill(&spare, 1));
	base_fail_allocs_from(1);
	bs_run_set(&run, 10, 10, 10, 0);
	bs_runmap_put(&map, &run, &spare, &s.sink);
	EXPECT_EQ_INT(1, spare.n);
	bs_runmap_del(&map, 15, 1, &spare, &s.sink);
	EXPECT_EQ_INT(0, spare.n);
	EXPECT_EQ_INT(2, map.runs);
	EXPECT_EQ_INT(9, bs_runmap_blocks(&map));
	base_fail_alloc_after(0);
	bs_runmap_free(&map);
	free(m);
}

/* A full chunk, of which any run is split by a put: neither has a place for one more. */
TEST(runmap, a_put_into_a_full_chunk_takes_one_spare_chunk_wherever_it_falls)
{
	for (uint64_t at = 0; at < BS_CHUNK_RUNS; at++) {
		struct bs_spare spare = { NULL, 0 };
		struct bs_runmap map;
		struct bs_run run;

		bs_runmap_init(&map);
		ASSERT_OK(bs_spare_fill(&spare, 1));
		for (uint64_t i = 0; i < BS_CHUNK_RUNS; i++) {
			bs_run_set(&run, i * 4, 1 + i * 5, 3, 0);
			bs_runmap_put(&map, &run, &spare, NULL);
		}
		ASSERT_EQ_INT(1, spare.n);
		ASSERT_EQ_INT(BS_CHUNK_RUNS, RB_ROOT(&map.chunks)->n);
		base_fail_allocs_from(1);
		bs_run_set(&run, at * 4 + 1, 100000, 1, 0);
		bs_runmap_put(&map, &run, &spare, NULL);
		base_fail_allocs_from(0);
		ASSERT_EQ_INT(0, spare.n);
		ASSERT_EQ_INT(BS_CHUNK_RUNS + 2, map.runs);
		bs_runmap_free(&map);
	}
}

/* n runs that cannot grow together, put in ascending order. */
static void fill_map(struct bs_runmap *map, struct bs_spare *spare, uint64_t n)
{
	struct bs_run run;

	for (uint64_t i = 0; i < n; i++) {
		ASSERT_OK(bs_spare_fill(spare, 1));
		bs_run_set(&run, i * 2, 1 + i * 3, 1, 0);
		bs_runmap_put(map, &run, spare, NULL);
	}
}

TEST(runmap, looks_up_in_a_million_runs_in_a_microsecond_or_so)
{
	struct bs_spare spare = { NULL, 0 };
	struct bs_runmap map;
	struct bs_extent e;
	uint64_t seed = 1, start, sum = 0;

	bs_runmap_init(&map);
	fill_map(&map, &spare, 1000000);
	EXPECT_EQ_INT(1000000, map.runs);
	start = test_cpu_ns();
	for (int i = 0; i < 100000; i++) {
		uint64_t n = kit_rand(&seed, 1000000);

		bs_runmap_lookup(&map, n * 2, 10, &e);
		ASSERT_EQ_INT(1 + n * 3, e.phys);
		sum += e.count;
	}
	EXPECT_EQ_INT(100000, sum);
	/* Generous by a factor of twenty: it is the logarithm that is tested, under sanitizers too. */
	EXPECT_LT_INT((test_cpu_ns() - start) / 100000, 20000);
	bs_runmap_free(&map);
	bs_spare_trim(&spare, 0);
}

TEST(runmap, an_append_makes_one_run_and_a_gap_makes_two)
{
	struct bs_spare spare = { NULL, 0 };
	struct bs_runmap map;
	struct bs_run run;

	bs_runmap_init(&map);
	ASSERT_OK(bs_spare_fill(&spare, 2));
	for (uint64_t i = 0; i < 1000; i++) {
		bs_run_set(&run, i * 4, 500 + i * 4, 4, 0);
		bs_runmap_put(&map, &run, &spare, NULL);
	}
	EXPECT_EQ_INT(1, map.runs);
	bs_runmap_del(&map, 100, 8, &spare, NULL);
	EXPECT_EQ_INT(2, map.runs);
	EXPECT_EQ_INT(3992, bs_runmap_blocks(&map));
	/* The same blocks at the same place close the gap; as unwritten ones they do not. */
	bs_run_set(&run, 100, 600, 8, BS_RUN_UNWRITTEN);
	bs_runmap_put(&map, &run, &spare, NULL);
	EXPECT_EQ_INT(3, map.runs);
	bs_run_set(&run, 100, 600, 8, 0);
	bs_runmap_put(&map, &run, &spare, NULL);
	EXPECT_EQ_INT(1, map.runs);
	bs_runmap_free(&map);
	bs_spare_trim(&spare, 0);
}

TEST(runmap, a_blob_of_one_run_costs_192_bytes)
{
	/* With what malloc adds; the next size up would be 208. */
	EXPECT_LE_INT(sizeof(struct bs_blob), 184);
}

TEST(runmap, the_most_distant_blocks_can_be_mapped)
{
	struct bs_spare spare = { NULL, 0 };
	uint64_t last = (1ull << BS_RUN_BITS) - 1;
	struct bs_runmap map;
	struct bs_extent e;
	struct bs_run run;

	bs_runmap_init(&map);
	ASSERT_OK(bs_spare_fill(&spare, 2));
	bs_run_set(&run, last, last - 1, 1, 0);
	bs_runmap_put(&map, &run, &spare, NULL);
	bs_runmap_lookup(&map, last, 100, &e);
	EXPECT_EQ_INT(last - 1, e.phys);
	EXPECT_EQ_INT(1, e.count);
	bs_runmap_lookup(&map, 0, UINT64_MAX, &e);
	EXPECT_EQ_INT(BS_RUN_HOLE, e.flags);
	EXPECT_EQ_INT(last, e.count);
	bs_runmap_del(&map, 1, UINT64_MAX, &spare, NULL);
	EXPECT_EQ_INT(0, map.runs);
	bs_runmap_free(&map);
	bs_spare_trim(&spare, 0);
}
