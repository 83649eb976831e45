/* SPDX-License-Identifier: BSD-2-Clause */
/* Data checksums: pages of sums written out while their sums change, scrubbing beside that, and space: promised, grown, trimmed. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/dma.h"
#include "blob/device.h"
#include "blob/sum.h"
#include "test/unit/blob/sum_kit.h"

#define SLOW_MS 200u

/* Paging out, started and polled by hand. */
struct out {
	struct op op;
	struct bs *bs;
	struct bdev_channel *ch;
};

static enum op_next out_step(struct op *op)
{
	struct out *o = container_of(op, struct out, op);

	if (op->step)
		return op_finish(op);
	bs_sums_start(o->bs, o->ch, op);
	return op_await(op, 1, 0);
}

static void out_start(struct out *o, struct kit *kit)
{
	o->bs = kit->bs;
	ASSERT_OK(bdev_channel_create(kit->dev, &o->ch));
	op_init(&o->op, "out", out_step, bdev_channel_driver(o->ch), NULL, NULL);
	op_start(&o->op);
	bdev_kick(o->ch);
}

static void out_wait(struct out *o)
{
	ASSERT_OK(op_wait(&o->op));
	bdev_channel_destroy(o->ch);
}

/* What has a sum is where the page of it is, and not young. */
static bool is_paged(struct kit *kit, struct bs_blob *a, uint64_t block)
{
	return !bs_sum_is_young(kit->bs, sum_look(a, block).phys);
}

/*
 * A blob of 64 unwritten blocks of which half are written, so that their page is the one that has not changed for longest; then what makes
 * the store page out. Then the page is on its way to the device, and comes there late.
 */
static struct bs_blob *page_under_way(struct kit *kit, struct out *out)
{
	struct bdev_fault slow = { .kind = BDEV_FAULT_DELAY, .op = BDEV_WRITE, .count = 1, .delay_ms = SLOW_MS };
	struct bs_blob *a, *b;
	uint64_t writes;

	sum_kit_open(kit, (struct kit_opts){ .flags = BS_NO_SERVICE, .fault = true });
	a = kit_create(kit->bs);
	ASSERT_OK(kit_prealloc(kit->bs, a, 0, 64));
	b = sum_spread(kit, 1200); /* in the rest of that page, and the next */
	for (uint64_t i = 0; i < 32; i++)
		ASSERT_OK(kit_write(a, i, 1, (uint8_t)(i + 1), 0));
	bs_blob_put(b);
	b = sum_spread(kit, 6000);
	bs_blob_put(b);
	ASSERT_TRUE(bs_sums_wanted(kit->bs));
	while (TAILQ_FIRST(&kit->bs->sums->order)->page != sum_look(a, 0).phys / BS_SUM_PAGE) {
		struct bs_sum_node *n = TAILQ_FIRST(&kit->bs->sums->order); /* not the turn of these */

		TAILQ_REMOVE(&kit->bs->sums->order, n, link);
		TAILQ_INSERT_TAIL(&kit->bs->sums->order, n, link);
	}
	ASSERT_EQ_INT(sum_look(a, 0).phys / BS_SUM_PAGE, sum_look(a, 63).phys / BS_SUM_PAGE);
	ASSERT_OK(bdev_fault_add(kit->dev, &slow));
	writes = bdev_fault_seen(kit->dev, BDEV_WRITE);
	out_start(out, kit);
	while (bdev_fault_seen(kit->dev, BDEV_WRITE) == writes)
		bdev_poll(out->ch);
	bdev_fault_clear(kit->dev);
	return a;
}

static void expect_written(struct bs_blob *a, uint64_t blocks)
{
	for (uint64_t i = 0; i < 64; i++)
		EXPECT_EQ_INT(i < blocks ? (int)i + 1 : 0, kit_byte(a, i));
}

static void pages_race(bool checkpoint)
{
	struct kit kit;
	struct out out;
	struct bs_blob *a = page_under_way(&kit, &out);
	uint64_t id = bs_blob_id(a), paged = sum_stat(kit.bs).sum_paged;

	for (uint64_t i = 32; i < 48; i++) /* where they are: sums of the page that is under way */
		ASSERT_OK(kit_write(a, i, 1, (uint8_t)(i + 1), 0));
	EXPECT_EQ_INT(paged, sum_stat(kit.bs).sum_paged);
	EXPECT_FALSE(bs_sums_idle(kit.bs));
	out_wait(&out);
	EXPECT_TRUE(bs_sums_idle(kit.bs));
	expect_written(a, 48);
	/* The page was of no use; its turn comes again. */
	sum_page_out(&kit);
	for (int i = 0; i < 10 && !is_paged(&kit, a, 40); i++) {
		bs_blob_put(sum_spread(&kit, 1200));
		sum_page_out(&kit);
	}
	EXPECT_TRUE(is_paged(&kit, a, 0) && is_paged(&kit, a, 40));
	expect_written(a, 48);
	if (checkpoint)
		ASSERT_OK(bs_checkpoint(kit.bs));
	ASSERT_OK(bs_commit(kit.bs, 0));
	bs_blob_put(a);
	kit_reopen(&kit, true, BS_NO_SERVICE); /* nothing of it is cached */
	a = bs_blob_get(kit.bs, id);
	expect_written(a, 48);
	EXPECT_EQ_INT(0, sum_stat(kit.bs).sum_errors);
	bs_blob_put(a);
	kit_close(&kit);
}

TEST(sum_race, a_page_whose_sums_change_while_it_is_written_is_not_published)
{
	pages_race(false);
	pages_race(true);
}

TEST(sum_race, a_page_whose_blocks_are_freed_while_it_is_written_does_no_harm)
{
	struct kit kit;
	struct out out;
	struct bs_blob *a = page_under_way(&kit, &out), *b;
	uint64_t id = bs_blob_id(a);

	ASSERT_OK(kit_unmap(a, 0, 16));
	ASSERT_OK(kit_write(a, 4, 8, 5, 0));
	out_wait(&out);
	ASSERT_OK(bs_reclaim(kit.bs));
	b = sum_spread(&kit, 1200); /* these blocks, perhaps */
	sum_page_out(&kit);
	for (int round = 0; round < 2; round++) {
		EXPECT_EQ_INT(0, kit_byte(a, 0));
		EXPECT_EQ_INT(5, kit_byte(a, 4));
		EXPECT_EQ_INT(20, kit_byte(a, 19));
		sum_expect_spread(b, 1200);
		if (round)
			break;
		ASSERT_OK(bs_commit(kit.bs, 0));
		bs_blob_put(a);
		bs_blob_put(b);
		kit_reopen(&kit, true, BS_NO_SERVICE);
		a = bs_blob_get(kit.bs, id);
		b = bs_blob_get(kit.bs, id + 3);
		ASSERT_TRUE(b);
	}
	bs_blob_put(a);
	bs_blob_put(b);
	kit_close(&kit);
}

/* Brings the page of a's first block to the front. */
static void turn_of(struct kit *kit, struct bs_blob *a)
{
	struct bs_sum_node *n = bs_sum_young(kit->bs->sums, sum_look(a, 0).phys / BS_SUM_PAGE);

	ASSERT_TRUE(n);
	TAILQ_REMOVE(&kit->bs->sums->order, n, link);
	TAILQ_INSERT_HEAD(&kit->bs->sums->order, n, link);
}

/* The page is being read to lay young sums over it; others of it are not published meanwhile by somebody else, who would be undone. */
TEST(sum_race, a_page_is_written_by_one_at_a_time)
{
	struct bdev_fault slow = { .kind = BDEV_FAULT_DELAY, .op = BDEV_READ, .count = 1, .delay_ms = SLOW_MS };
	struct kit kit;
	struct out out;
	struct bs_blob *a;
	uint64_t id, reads;

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE, .fault = true });
	a = kit_create(kit.bs);
	id = bs_blob_id(a);
	ASSERT_OK(kit_prealloc(kit.bs, a, 0, 64));
	ASSERT_EQ_INT(sum_look(a, 0).phys / BS_SUM_PAGE, sum_look(a, 63).phys / BS_SUM_PAGE);
	for (uint64_t i = 0; i < 16; i++)
		ASSERT_OK(kit_write(a, i, 1, (uint8_t)(i + 1), 0));
	bs_blob_put(sum_spread(&kit, 8192));
	turn_of(&kit, a);
	sum_page_out(&kit);
	ASSERT_TRUE(is_paged(&kit, a, 0));
	for (uint64_t i = 16; i < 32; i++)
		ASSERT_OK(kit_write(a, i, 1, (uint8_t)(i + 1), 0));
	bs_blob_put(sum_spread(&kit, 4096));
	turn_of(&kit, a);
	ASSERT_OK(bdev_fault_add(kit.dev, &slow));
	reads = bdev_fault_seen(kit.dev, BDEV_READ);
	out_start(&out, &kit);
	while (bdev_fault_seen(kit.dev, BDEV_READ) == reads)
		bdev_poll(out.ch);
	ASSERT_OK(bs_sums_step(kit.bs));
	for (uint64_t i = 32; i < 48; i++)
		ASSERT_OK(kit_write(a, i, 1, (uint8_t)(i + 1), 0));
	out_wait(&out);
	bdev_fault_clear(kit.dev);
	ASSERT_OK(bs_commit(kit.bs, 0));
	bs_blob_put(a);
	kit_reopen(&kit, true, BS_NO_SERVICE);
	a = bs_blob_get(kit.bs, id);
	expect_written(a, 48);
	EXPECT_EQ_INT(0, sum_stat(kit.bs).sum_errors);
	bs_blob_put(a);
	kit_close(&kit);
}

TEST(sum_race, a_page_that_cannot_be_written_leaves_its_sums_young)
{
	struct bdev_fault wrong = { .kind = BDEV_FAULT_ERROR, .op = BDEV_WRITE, .count = UINT64_MAX, .rc = -EIO };
	struct kit kit;
	struct bs_blob *a;
	uint64_t paged;

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE, .fault = true });
	a = sum_spread(&kit, 8192);
	paged = sum_stat(kit.bs).sum_paged;
	ASSERT_OK(bdev_fault_add(kit.dev, &wrong));
	EXPECT_ERR(-EIO, bs_sums_step(kit.bs));
	bdev_fault_clear(kit.dev);
	EXPECT_EQ_INT(paged, sum_stat(kit.bs).sum_paged);
	EXPECT_FALSE(bs_sums_wanted(kit.bs)); /* for a second */
	sum_expect_spread(a, 8192);
	atomic_store(&kit.bs->sums->retry_ns, 0);
	sum_page_out(&kit);
	EXPECT_GT_INT(sum_stat(kit.bs).sum_paged, paged);
	sum_expect_spread(a, 8192);
	bs_blob_put(a);
	kit_close(&kit);
}

/* A block of `a` that lies in a page of which all blocks are a's, and is unwritten. */
static uint64_t middle(struct bs_blob *a, uint64_t blocks, uint64_t page)
{
	for (uint64_t b = 0; b < blocks; b++) {
		struct bs_extent e = sum_look(a, b);

		if ((e.flags & BS_RUN_UNWRITTEN) && e.phys / BS_SUM_PAGE == page)
			return b;
	}
	FAIL("no block is in page %llu", (unsigned long long)page);
	return 0;
}

/* Of the two epochs that what was unmapped waits for, one goes by: a read is under way. */
static void one_epoch(struct kit *kit, struct bs_blob *blob)
{
	struct bdev_fault slow = { .kind = BDEV_FAULT_DELAY, .op = BDEV_READ, .count = 1, .delay_ms = 20 };
	uint8_t *buf = dma_alloc(BS_BLOCK, BS_BLOCK);
	struct kit_io k;

	ASSERT_OK(bdev_fault_add(kit->dev, &slow));
	kit_start(&k, blob, BS_READ, 0, 1, buf);
	bs_space_release(kit->bs);
	ASSERT_OK(kit_wait(&k));
	bdev_fault_clear(kit->dev);
	dma_free(buf);
}

/* All blocks of a page become free while it is on its way, its young sums are forgotten, and others come. */
TEST(sum_race, a_page_that_is_given_back_and_used_again_while_it_is_written_is_not_published)
{
	struct bdev_fault slow = { .kind = BDEV_FAULT_DELAY, .op = BDEV_WRITE, .count = 1, .delay_ms = SLOW_MS };
	const uint64_t many = 2 * BS_SUM_PAGE + 200;
	struct kit kit;
	struct out out;
	struct bs_blob *a, *b;
	struct bs_sum_node *n;
	uint64_t page, block, id, writes;

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE, .fault = true });
	a = kit_create(kit.bs);
	ASSERT_OK(kit_prealloc(kit.bs, a, 0, many));
	page = sum_look(a, 0).phys / BS_SUM_PAGE + 1;
	block = middle(a, many, page);
	ASSERT_OK(kit_write(a, block, 1, 1, 0));
	b = sum_spread(&kit, 3000);
	sum_page_out(&kit);
	ASSERT_TRUE(is_paged(&kit, a, block));
	ASSERT_OK(kit_write(a, middle(a, many, page), 1, 1, 0));
	bs_blob_put(sum_spread(&kit, 3000));
	ASSERT_TRUE(bs_sums_wanted(kit.bs));
	n = bs_sum_young(kit.bs->sums, page);
	ASSERT_TRUE(n);
	TAILQ_REMOVE(&kit.bs->sums->order, n, link);
	TAILQ_INSERT_HEAD(&kit.bs->sums->order, n, link);
	ASSERT_OK(kit_delete(kit.bs, a));
	ASSERT_OK(bs_commit(kit.bs, 0));
	one_epoch(&kit, b);
	ASSERT_OK(bdev_fault_add(kit.dev, &slow));
	writes = bdev_fault_seen(kit.dev, BDEV_WRITE);
	out_start(&out, &kit);
	while (bdev_fault_seen(kit.dev, BDEV_WRITE) == writes)
		bdev_poll(out.ch);
	bdev_fault_clear(kit.dev);
	ASSERT_TRUE(bs_sum_young(kit.bs->sums, page));
	bs_space_release(kit.bs); /* and the other */
	bs_sums_sweep(kit.bs);
	ASSERT_FALSE(bs_sum_young(kit.bs->sums, page));
	a = kit_create(kit.bs);
	id = bs_blob_id(a);
	for (block = 0; block < 8192; block += 64) { /* until some of it is there */
		ASSERT_OK(kit_prealloc(kit.bs, a, block, 64));
		if (sum_look(a, block).phys / BS_SUM_PAGE == page && sum_look(a, block).count)
			break;
	}
	block = middle(a, block + 64, page);
	ASSERT_OK(kit_write(a, block, 1, 2, 0));
	ASSERT_TRUE(bs_sum_young(kit.bs->sums, page));
	EXPECT_FALSE(bs_sums_idle(kit.bs));
	out_wait(&out);
	EXPECT_EQ_INT(2, kit_byte(a, block));
	ASSERT_OK(bs_commit(kit.bs, 0));
	bs_blob_put(a);
	bs_blob_put(b);
	kit_reopen(&kit, true, BS_NO_SERVICE);
	a = bs_blob_get(kit.bs, id);
	EXPECT_EQ_INT(2, kit_byte(a, block));
	bs_blob_put(a);
	kit_close(&kit);
}

/* Each write makes a node, eight come at once, and one page takes as long to go out as all of them. */
TEST(sum_race, writes_wait_where_sums_come_faster_than_they_go)
{
	struct bdev_fault slow = { .kind = BDEV_FAULT_DELAY, .op = BDEV_WRITE, .count = UINT64_MAX, .delay_ms = 5 };
	const uint64_t pages = 48;
	uint8_t *buf = dma_zalloc(BS_BLOCK, BS_BLOCK);
	uint64_t most = 0;
	struct bs_blob *a;
	struct kit kit;

	sum_kit_open(&kit, (struct kit_opts){ .size = 256 * MiB, .fault = true });
	a = kit_create(kit.bs);
	ASSERT_OK(kit_prealloc(kit.bs, a, 0, pages * BS_SUM_PAGE));
	kit.bs->sums->high = 1;
	memset(buf, 7, BS_BLOCK);
	ASSERT_OK(bdev_fault_add(kit.dev, &slow));
	for (uint64_t page = 0; page < pages; page += 8) {
		struct kit_io k[8];

		for (unsigned i = 0; i < 8; i++)
			kit_start(&k[i], a, BS_WRITE, (page + i) * BS_SUM_PAGE, 1, buf);
		for (unsigned i = 0; i < 8; i++)
			ASSERT_OK(kit_wait(&k[i]));
		most = MAX(most, sum_stat(kit.bs).sums_young);
	}
	EXPECT_LE_INT(most, 20);
	bdev_fault_clear(kit.dev);
	for (uint64_t page = 0; page < pages; page++)
		EXPECT_EQ_INT(7, kit_byte(a, page * BS_SUM_PAGE));
	dma_free(buf);
	bs_blob_put(a);
	kit_close(&kit);
}

/* ---- scrubbing beside it ---- */

struct scrubbed {
	struct kit *kit;
	struct bs_blob *doomed;
	uint64_t meta_bytes; /* that were read when all data was */
};

static int delete_doomed(const struct bs_scrub_result *res, void *arg)
{
	struct scrubbed *s = arg;

	if (!s->doomed || res->done_bytes < res->total_bytes)
		return 0;
	if (!s->meta_bytes)
		s->meta_bytes = res->meta_bytes;
	if (res->meta_bytes == s->meta_bytes) /* not before the first page */
		return 0;
	ASSERT_OK(kit_delete(s->kit->bs, s->doomed));
	s->doomed = NULL;
	ASSERT_OK(bs_reclaim(s->kit->bs));
	bs_sums_sweep(s->kit->bs);
	return 0;
}

TEST(sum_race, scrubbing_takes_no_page_that_is_given_back_for_a_damaged_one)
{
	struct scrubbed s;
	struct bs_scrub_opts so = { .size = sizeof(so), .progress = delete_doomed, .arg = &s };
	struct bs_scrub_result res;
	struct kit kit;
	uint64_t pages;

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE });
	s = (struct scrubbed){ &kit, sum_spread(&kit, 8192), 0 };
	sum_page_out(&kit);
	pages = sum_stat(kit.bs).sum_pages;
	ASSERT_OK(bs_scrub(kit.bs, &so, &res));
	EXPECT_EQ_INT(0, res.findings);
	EXPECT_LT_INT(sum_stat(kit.bs).sum_pages, pages);
	kit_close(&kit);
}

/* ---- space that was promised ---- */

TEST(sum_race, what_was_preallocated_can_be_written_on_a_full_store)
{
	uint64_t seed = test_seed(), blocks = 0, *order, step = 1024;
	struct kit kit;
	struct bs_blob *a;
	uint8_t *buf = dma_zalloc(BS_BLOCK, BS_BLOCK);

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE, .size = 128 * MiB, .cluster_size = BS_BLOCK });
	a = kit_create(kit.bs);
	for (; step; step /= 2)
		while (!kit_prealloc(kit.bs, a, blocks, step))
			blocks += step;
	ASSERT_GT_INT(blocks, 16000);
	EXPECT_EQ_INT(0, sum_stat(kit.bs).avail_blocks); /* no page of sums finds a place */
	order = calloc(blocks, sizeof(*order));
	for (uint64_t i = 0; i < blocks; i++) { /* one by one, in no order: a run and a row of sums each */
		uint64_t k = kit_rand(&seed, (uint32_t)i + 1);

		order[i] = order[k];
		order[k] = i;
	}
	for (uint64_t i = 0; i < blocks; i++) {
		memset(buf, (int)(order[i] % 251), BS_BLOCK);
		ASSERT_OK(kit_write_buf(a, order[i], 1, buf, 0));
		if (i % 5000 == 0)
			ASSERT_OK(bs_service_step(kit.bs));
		if (i % 7000 == 0)
			ASSERT_OK(bs_checkpoint(kit.bs));
	}
	EXPECT_EQ_INT(0, sum_stat(kit.bs).sum_pages);
	ASSERT_OK(bs_checkpoint(kit.bs));
	sum_expect_spread(a, blocks);
	EXPECT_EQ_INT(0, sum_stat(kit.bs).sum_errors);
	free(order);
	dma_free(buf);
	bs_blob_put(a);
	kit_close(&kit);
}

TEST(sum_race, a_store_that_grows_has_pages_for_that_and_trimming_takes_none_of_them)
{
	struct base_err err = { "" };
	struct kit kit;
	struct bs_blob *a, *b;
	uint64_t ids[2], pages, bytes, high;

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE, .size = 128 * MiB, .store_size = 48 * MiB });
	a = sum_spread(&kit, 6000);
	sum_page_out(&kit);
	pages = sum_stat(kit.bs).sum_pages;
	high = kit.bs->sums->high;
	ASSERT_OK(bs_grow(kit.bs, 0, &err));
	EXPECT_GT_INT(kit.bs->sums->high, high); /* as after opening it again */
	b = sum_spread(&kit, 16000);
	sum_page_out(&kit);
	EXPECT_GT_INT(sum_stat(kit.bs).sum_pages, pages + 10);
	ids[0] = bs_blob_id(a);
	ids[1] = bs_blob_id(b);
	ASSERT_OK(kit_unmap(b, 8000, 8000));
	ASSERT_OK(bs_reclaim(kit.bs));
	for (int crash = 0; crash < 2; crash++) {
		ASSERT_OK(bs_trim(kit.bs, NULL, &bytes, &err));
		EXPECT_GT_INT(bytes, 0);
		ASSERT_OK(bs_commit(kit.bs, 0));
		bs_blob_put(a);
		bs_blob_put(b);
		kit_reopen(&kit, crash, BS_NO_SERVICE);
		a = bs_blob_get(kit.bs, ids[0]);
		b = bs_blob_get(kit.bs, ids[1]);
		sum_expect_spread(a, 6000);
		sum_expect_spread(b, 8000);
		EXPECT_EQ_INT(0, kit_byte(b, 8001));
	}
	EXPECT_EQ_INT(0, sum_stat(kit.bs).sum_errors);
	bs_blob_put(a);
	bs_blob_put(b);
	kit_close(&kit);
}

/* Blocks of `a` whose places are in [from, to) are unmapped. */
static void unmap_places(struct bs_blob *a, uint64_t blocks, uint64_t from, uint64_t to)
{
	for (uint64_t b = 0; b < blocks; b++) {
		struct bs_extent e = sum_look(a, b);

		if (!(e.flags & BS_RUN_HOLE) && e.phys >= from && e.phys < to)
			ASSERT_OK(kit_unmap(a, b, 1));
	}
}

/* While a store grows there is a moment when new blocks can be had already and bs->blocks is the old number. */
TEST(sum_race, a_page_across_the_old_end_of_a_store_that_grows_is_in_use_if_a_new_block_is)
{
	const uint64_t old = 48 * MiB / BS_BLOCK, page = old / BS_SUM_PAGE, many = 20000;
	struct bs_space *more;
	struct bs_blob *a;
	struct kit kit;
	uint64_t b;

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE, .size = 128 * MiB, .store_size = 48 * MiB });
	ASSERT_OK(bs_space_grow_prepare(kit.bs, 128 * MiB / BS_BLOCK, &more));
	bs_space_grow_commit(kit.bs, more);
	ASSERT_EQ_INT(old, kit.bs->blocks);
	a = kit_create(kit.bs);
	ASSERT_OK(kit_prealloc(kit.bs, a, 0, many));
	for (b = 0; b < many && (sum_look(a, b).phys < old || sum_look(a, b).phys / BS_SUM_PAGE != page); b++)
		;
	ASSERT_LT_INT(b, many);
	ASSERT_OK(kit_write(a, b, 1, 7, 0));
	unmap_places(a, many, page * BS_SUM_PAGE, old);
	ASSERT_OK(bs_reclaim(kit.bs));
	ASSERT_TRUE(bs_space_is_free(kit.bs, page * BS_SUM_PAGE, old - page * BS_SUM_PAGE));
	EXPECT_FALSE(bs_sum_page_give_back(kit.bs, page));
	EXPECT_EQ_INT(7, kit_byte(a, b));
	unmap_places(a, many, 0, UINT64_MAX);
	ASSERT_OK(bs_reclaim(kit.bs));
	EXPECT_TRUE(bs_sum_page_give_back(kit.bs, page));
	bs_blob_put(a);
	bs_abandon(kit.bs);
	bdev_close(kit.keep);
}
