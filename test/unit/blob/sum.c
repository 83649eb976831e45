/* SPDX-License-Identifier: BSD-2-Clause */
/* Data checksums: what is on the device and differs from what was written is found, named, and never returned. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/dma.h"
#define LOG_COMPONENT "test"
#include "base/log.h"
#include "blob/device.h"
#include "blob/sum.h"
#include "test/unit/blob/sum_kit.h"

TEST(sum, what_is_written_has_a_sum_and_is_never_overwritten_where_it_is)
{
	struct kit kit;
	struct bs_blob *a;
	uint64_t place, checked;

	sum_kit_open(&kit, (struct kit_opts){ .size = 0 });
	EXPECT_TRUE(sum_stat(kit.bs).datasum);
	EXPECT_EQ_INT(0, sum_stat(kit.bs).blobs);
	a = kit_create(kit.bs);
	ASSERT_OK(kit_prealloc(kit.bs, a, 100, 20));
	ASSERT_OK(kit_write(a, 0, 10, 1, 0));
	ASSERT_OK(kit_write(a, 105, 3, 2, 0));
	EXPECT_EQ_INT(BS_RUN_SUM, sum_look(a, 4).flags);
	EXPECT_EQ_INT(BS_RUN_SUM, sum_look(a, 106).flags);
	EXPECT_EQ_INT(BS_RUN_UNWRITTEN, sum_look(a, 108).flags);
	place = sum_look(a, 4).phys;
	ASSERT_OK(kit_write(a, 4, 1, 3, 0));
	EXPECT_NE_INT(place, sum_look(a, 4).phys);
	EXPECT_EQ_INT(1, kit_byte(a, 3));
	EXPECT_EQ_INT(3, kit_byte(a, 4));
	EXPECT_EQ_INT(2, kit_byte(a, 107));
	EXPECT_EQ_INT(0, kit_byte(a, 108));
	ASSERT_OK(kit_zero(a, 3, 2)); /* not unwritten: a write would go over what has a sum */
	EXPECT_EQ_INT(BS_RUN_HOLE, sum_look(a, 4).flags);
	EXPECT_EQ_INT(0, kit_byte(a, 4));
	EXPECT_EQ_INT(0, sum_stat(kit.bs).sum_errors);
	checked = sum_stat(kit.bs).sum_checked_bytes;
	EXPECT_GT_INT(checked, 0);
	ASSERT_OK(sum_read_rc(a, 0, 12)); /* of which four are holes */
	EXPECT_EQ_INT(checked + 8 * BS_BLOCK, sum_stat(kit.bs).sum_checked_bytes);
	bs_blob_put(a);
	kit_close(&kit);
}

TEST(sum, a_store_without_the_feature_has_none)
{
	struct bs_format_opts fo = { .size = sizeof(fo), .flags = 2 };
	struct kit kit;
	struct bs_blob *a;

	kit_open(&kit, NULL);
	a = kit_create(kit.bs);
	ASSERT_OK(kit_write(a, 0, 10, 1, 0));
	EXPECT_EQ_INT(0, sum_look(a, 4).flags);
	EXPECT_FALSE(sum_stat(kit.bs).datasum);
	bs_blob_put(a);
	kit_close(&kit);
	ASSERT_OK(bdev_open("ram:64M", NULL, &kit.dev, NULL));
	EXPECT_ERR(-EINVAL, bs_format(kit.dev, &fo, NULL));
	bdev_close(kit.dev);
}

/* What was written before is damaged; how the store was left and opened again must not matter. */
static void expect_found(struct kit *kit, struct bs_blob *a, uint64_t block)
{
	uint64_t errors = sum_stat(kit->bs).sum_errors;

	kit_flip(kit->dev, sum_look(a, block).phys, (unsigned)(block * 37 % BS_BLOCK));
	EXPECT_ERR(-EIO, sum_read_rc(a, block, 1));
	EXPECT_ERR(-EIO, sum_read_rc(a, block - 1, 3));
	EXPECT_OK(sum_read_rc(a, block + 1, 1));
	EXPECT_EQ_INT(errors + 2, sum_stat(kit->bs).sum_errors);
	kit_flip(kit->dev, sum_look(a, block).phys, (unsigned)(block * 37 % BS_BLOCK));
	EXPECT_OK(sum_read_rc(a, block - 1, 3));
}

TEST(sum, a_flipped_bit_is_found_after_every_way_of_opening)
{
	struct kit kit;
	struct bs_blob *a;
	uint64_t id;

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE });
	a = kit_create(kit.bs);
	id = bs_blob_id(a);
	ASSERT_OK(kit_write(a, 0, 100, 1, 0));
	expect_found(&kit, a, 50);
	for (int i = 0; i < 4; i++) {
		if (i == 1)
			ASSERT_OK(bs_checkpoint(kit.bs));
		ASSERT_OK(kit_write(a, 60 + (uint64_t)i, 1, 7, 0));
		ASSERT_OK(bs_commit(kit.bs, 0));
		bs_blob_put(a);
		kit_reopen(&kit, i < 2, i == 3 ? BS_RDONLY : BS_NO_SERVICE);
		a = bs_blob_get(kit.bs, id);
		expect_found(&kit, a, 10 + (uint64_t)i);
		expect_found(&kit, a, 60 + (uint64_t)i);
	}
	bs_blob_put(a);
	kit_close(&kit);
}

TEST(sum, a_commit_of_data_costs_no_more_writes_and_flushes_than_without)
{
	uint64_t flushes[2], writes[2], bytes[2];

	for (unsigned sums = 0; sums < 2; sums++) {
		struct bs_stat before, after;
		struct bs_blob *a;
		struct kit kit;

		kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE, .cache = true, .format = sums ? BS_FORMAT_SUMS : 0 });
		a = kit_create(kit.bs);
		ASSERT_OK(bs_commit(kit.bs, 0));
		before = sum_stat(kit.bs);
		for (unsigned i = 0; i < 16; i++) {
			ASSERT_OK(kit_write(a, i * 16, 16, 1, 0));
			ASSERT_OK(bs_commit(kit.bs, 0));
		}
		after = sum_stat(kit.bs);
		flushes[sums] = after.flushes - before.flushes;
		writes[sums] = after.log_writes - before.log_writes;
		bytes[sums] = after.data_write_bytes + after.log_write_bytes - before.data_write_bytes - before.log_write_bytes;
		bs_blob_put(a);
		kit_close(&kit);
	}
	EXPECT_EQ_INT(16, flushes[0]);
	EXPECT_EQ_INT(flushes[0], flushes[1]);
	EXPECT_EQ_INT(16, writes[0]);
	EXPECT_EQ_INT(writes[0], writes[1]);
	EXPECT_EQ_INT(bytes[0], bytes[1]); /* the sums are in the same block of the log */
}

TEST(sum, writing_the_block_again_heals_it)
{
	struct kit kit;
	struct bs_blob *a;

	sum_kit_open(&kit, (struct kit_opts){ .flags = 0 });
	a = kit_create(kit.bs);
	ASSERT_OK(kit_write(a, 0, 256, 1, 0));
	kit_flip(kit.dev, sum_look(a, 77).phys, 0);
	EXPECT_ERR(-EIO, sum_read_rc(a, 0, 256));
	ASSERT_OK(kit_write(a, 77, 1, 2, 0));
	EXPECT_OK(sum_read_rc(a, 0, 256));
	EXPECT_EQ_INT(2, kit_byte(a, 77));
	bs_blob_put(a);
	kit_close(&kit);
}

struct seen {
	struct bs_scrub_finding f[8];
	unsigned n;
};

static void see(const struct bs_scrub_finding *f, void *arg)
{
	struct seen *s = arg;

	if (s->n < ARRAY_SIZE(s->f))
		s->f[s->n] = *f;
	s->n++;
}

TEST(sum, scrubbing_tells_a_wrong_sum_of_each_blob_that_shares_it)
{
	struct kit kit;
	struct seen seen = { .n = 0 };
	struct bs_scrub_opts so = { .size = sizeof(so), .found = see, .arg = &seen };
	struct bs_scrub_result res;
	struct bs_blob *a, *b;
	uint64_t id;

	sum_kit_open(&kit, (struct kit_opts){ .flags = 0 });
	a = kit_create(kit.bs);
	ASSERT_OK(kit_write(a, 0, 64, 1, 0));
	ASSERT_OK(bs_snapshot(kit.bs, &a, 1, true, &id));
	b = bs_blob_get(kit.bs, id);
	EXPECT_EQ_INT(BS_RUN_SUM | BS_RUN_SHARED, sum_look(b, 5).flags);
	EXPECT_EQ_INT(sum_look(a, 5).phys, sum_look(b, 5).phys);
	kit_flip(kit.dev, sum_look(a, 5).phys, 99);
	EXPECT_ERR(-EIO, sum_read_rc(b, 5, 1));
	ASSERT_OK(bs_scrub(kit.bs, &so, &res));
	ASSERT_EQ_INT(2, seen.n);
	for (unsigned i = 0; i < 2; i++) {
		EXPECT_EQ_INT(i ? id : bs_blob_id(a), seen.f[i].blob);
		EXPECT_EQ_INT(5 * BS_BLOCK, seen.f[i].offset);
		EXPECT_EQ_INT(sum_look(a, 5).phys, seen.f[i].block);
		EXPECT_EQ_INT(-EUCLEAN, seen.f[i].rc);
	}
	/* One of them writes there: the other keeps the damage. */
	ASSERT_OK(kit_write(a, 5, 1, 4, 0));
	EXPECT_OK(sum_read_rc(a, 0, 64));
	EXPECT_ERR(-EIO, sum_read_rc(b, 0, 64));
	bs_blob_put(a);
	bs_blob_put(b);
	kit_close(&kit);
}

static void count_line(enum base_log_level level, const char *component, const char *line, void *arg)
{
	(void)level;
	(void)component;
	if (strstr(line, "checksum is wrong"))
		++*(unsigned *)arg;
}

/* All are counted, not all are said; and a scrub, which looks twice, counts each bad block once. */
TEST(sum, a_bad_block_that_is_read_often_does_not_flood_the_log)
{
	struct bs_scrub_opts so = { .size = sizeof(so) };
	struct bs_scrub_result res;
	unsigned lines = 0, before;
	struct kit kit;
	struct bs_blob *a;

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE });
	a = kit_create(kit.bs);
	ASSERT_OK(kit_write(a, 0, 64, 1, 0));
	kit_flip(kit.dev, sum_look(a, 5).phys, 99);
	kit_flip(kit.dev, sum_look(a, 9).phys, 99);
	base_log_set_sink(count_line, &lines);
	ASSERT_OK(bs_scrub(kit.bs, &so, &res));
	EXPECT_EQ_INT(2, res.findings);
	EXPECT_EQ_INT(2, sum_stat(kit.bs).sum_errors);
	EXPECT_EQ_INT(2, lines);
	base_set_fake_clock(base_now_ns());
	for (unsigned i = 0; i < 1000; i++)
		EXPECT_ERR(-EIO, sum_read_rc(a, 5, 1));
	EXPECT_EQ_INT(1002, sum_stat(kit.bs).sum_errors);
	EXPECT_GE_INT(40, lines);
	before = lines;
	base_set_fake_clock(base_now_ns() + 11000000000ull);
	EXPECT_ERR(-EIO, sum_read_rc(a, 9, 1));
	EXPECT_EQ_INT(before + 1, lines);
	base_set_fake_clock(0);
	base_log_set_sink(NULL, NULL);
	bs_blob_put(a);
	kit_close(&kit);
}

/* ---- sums in pages ---- */

TEST(sum, sums_move_to_pages_and_are_found_there)
{
	struct kit kit;
	struct bs_blob *a;
	uint64_t id, blocks = 8192;

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE });
	a = sum_spread(&kit, blocks);
	id = bs_blob_id(a);
	EXPECT_GT_INT(sum_stat(kit.bs).sums_young, 6);
	sum_page_out(&kit);
	EXPECT_GT_INT(sum_stat(kit.bs).sum_pages, 4);
	EXPECT_LE_INT(sum_stat(kit.bs).sums_young, 2);
	sum_expect_spread(a, blocks);
	expect_found(&kit, a, 100);
	for (int crash = 0; crash < 2; crash++) {
		ASSERT_OK(bs_commit(kit.bs, 0));
		bs_blob_put(a);
		kit_reopen(&kit, crash, BS_NO_SERVICE);
		a = bs_blob_get(kit.bs, id);
		sum_expect_spread(a, blocks);
		expect_found(&kit, a, 3000);
		/* Some of it anew: pages are written again, over what they had. */
		for (uint64_t b = 5; b < blocks; b += 500)
			ASSERT_OK(kit_write(a, b, 1, (uint8_t)(b % 251), 0));
		sum_page_out(&kit);
		sum_expect_spread(a, blocks);
	}
	EXPECT_GT_INT(sum_stat(kit.bs).sum_paged, 0);
	bs_blob_put(a);
	kit_close(&kit);
}

/* Pages go out while others are read: these are kept all the same. */
TEST(sum, a_page_that_is_read_while_another_is_replaced_is_cached)
{
	struct bs_sum_page_disk *disk = dma_alloc(sizeof(*disk), BS_BLOCK);
	uint64_t page, replaced, paged, id;
	struct kit kit;
	struct bs_blob *a;
	uint32_t sum;

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE });
	a = sum_spread(&kit, 4096);
	id = bs_blob_id(a);
	sum_page_out(&kit);
	bs_blob_put(a);
	kit_reopen(&kit, false, BS_NO_SERVICE); /* nothing of it is cached */
	a = bs_blob_get(kit.bs, id);
	page = sum_look(a, 1000).phys / BS_SUM_PAGE;
	ASSERT_FALSE(bs_sum_find(kit.bs, sum_look(a, 1000).phys, &sum));
	replaced = bs_sum_replaced(kit.bs, page);
	ASSERT_OK(kit_read(kit.bs->sums->blob, page, 1, disk));
	paged = sum_stat(kit.bs).sum_paged;
	bs_blob_put(sum_spread(&kit, 6000));
	sum_page_out(&kit);
	ASSERT_GT_INT(sum_stat(kit.bs).sum_paged, paged);
	ASSERT_FALSE(bs_sum_young(kit.bs->sums, page));
	ASSERT_OK(bs_sum_cache_add(kit.bs, disk, page, replaced));
	EXPECT_TRUE(bs_sum_find(kit.bs, sum_look(a, 1000).phys, &sum));
	dma_free(disk);
	bs_blob_put(a);
	kit_close(&kit);
}

TEST(sum, the_service_thread_moves_them_by_itself)
{
	struct kit kit;
	struct bs_blob *a;

	sum_kit_open(&kit, (struct kit_opts){ .flags = 0 });
	a = sum_spread(&kit, 8192);
	for (int i = 0; i < 1000 && bs_sums_wanted(kit.bs); i++)
		usleep(10000);
	EXPECT_FALSE(bs_sums_wanted(kit.bs));
	EXPECT_GT_INT(sum_stat(kit.bs).sum_pages, 4);
	sum_expect_spread(a, 8192);
	bs_blob_put(a);
	kit_close(&kit);
}

static struct bs *open_slow(const char *name, uint32_t latency_us)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .commit_ms = 1 };
	struct bdev *dev, *slow;
	struct bs *bs;

	ASSERT_OK(bdev_open(name, NULL, &dev, NULL));
	ASSERT_OK(bdev_delay_create(dev, latency_us, 0, &slow));
	ASSERT_OK(bs_open(slow, &opts, &bs, NULL));
	return bs;
}

/* The service thread is about to begin with them, at it, or done, and commits all the time. */
TEST(sum, closing_does_not_race_with_moving_them)
{
	for (unsigned round = 0; round < 16; round++) {
		struct bs_blob *a;
		struct kit kit;
		struct bs *bs;
		uint64_t id;

		sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE });
		a = sum_spread(&kit, 8192);
		id = bs_blob_id(a);
		bs_blob_put(a);
		ASSERT_OK(bs_close(kit.bs));
		bs = open_slow(kit.name, 500);
		a = bs_blob_get(bs, id);
		ASSERT_OK(kit_put(bs, a, 1, "x", 1));
		bs_blob_put(a);
		usleep(round * 400);
		ASSERT_OK(bs_close(bs));
		kit.bs = open_slow(kit.name, 0);
		a = bs_blob_get(kit.bs, id);
		sum_expect_spread(a, 8192);
		bs_blob_put(a);
		kit_close(&kit);
	}
}

TEST(sum, a_damaged_page_of_sums_is_an_error_and_no_guess)
{
	struct kit kit;
	struct seen seen = { .n = 0 };
	struct bs_scrub_opts so = { .size = sizeof(so), .found = see, .arg = &seen };
	struct bs_scrub_result res;
	struct bs_blob *a;
	uint64_t id, page, block = 200;

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE });
	a = sum_spread(&kit, 8192);
	id = bs_blob_id(a);
	sum_page_out(&kit);
	bs_blob_put(a);
	kit_reopen(&kit, false, BS_NO_SERVICE); /* nothing cached */
	a = bs_blob_get(kit.bs, id);
	while (bs_sum_is_young(kit.bs, sum_look(a, block).phys))
		block++;
	page = sum_look(kit.bs->sums->blob, sum_look(a, block).phys / BS_SUM_PAGE).phys;
	kit_flip(kit.dev, page, 1000);
	EXPECT_ERR(-EIO, sum_read_rc(a, block, 1));
	EXPECT_EQ_INT(1, sum_stat(kit.bs).sum_errors);
	ASSERT_OK(bs_scrub(kit.bs, &so, &res));
	EXPECT_GT_INT(seen.n, 1);
	kit_flip(kit.dev, page, 1000);
	EXPECT_OK(sum_read_rc(a, block, 1));
	/* In the cache now: the device is not asked again. */
	kit_flip(kit.dev, page, 1000);
	EXPECT_OK(sum_read_rc(a, block, 1));
	seen.n = 0;
	ASSERT_OK(bs_scrub(kit.bs, &so, &res));
	ASSERT_EQ_INT(1, seen.n);
	EXPECT_EQ_INT(BS_SCRUB_SUMS, seen.f[0].what);
	EXPECT_EQ_INT(page, seen.f[0].block);
	bs_blob_put(a);
	kit_close(&kit);
}

TEST(sum, reads_that_need_a_page_that_cannot_be_read_fail)
{
	struct kit kit;
	struct bs_blob *a;
	uint64_t id, block = 200, page;
	struct bdev_fault f = { .kind = BDEV_FAULT_ERROR, .op = BDEV_READ, .count = UINT64_MAX, .rc = -EIO };

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE, .fault = true });
	a = sum_spread(&kit, 8192);
	id = bs_blob_id(a);
	sum_page_out(&kit);
	bs_blob_put(a);
	kit_reopen(&kit, false, BS_NO_SERVICE);
	a = bs_blob_get(kit.bs, id);
	while (bs_sum_is_young(kit.bs, sum_look(a, block).phys))
		block++;
	page = sum_look(kit.bs->sums->blob, sum_look(a, block).phys / BS_SUM_PAGE).phys;
	f.lo = page * BS_BLOCK;
	f.hi = f.lo + BS_BLOCK;
	ASSERT_OK(bdev_fault_add(kit.dev, &f));
	EXPECT_ERR(-EIO, sum_read_rc(a, block, 1));
	bdev_fault_clear(kit.dev);
	EXPECT_OK(sum_read_rc(a, block, 1));
	bs_blob_put(a);
	kit_close(&kit);
}

TEST(sum, a_full_store_keeps_its_young_sums_and_all_its_data)
{
	struct kit kit;
	struct bs_blob *a;
	uint64_t n = 0, id;
	int rc = 0;

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE });
	a = kit_create(kit.bs);
	id = bs_blob_id(a);
	for (; !rc; n += 16)
		rc = kit_write(a, n, 16, (uint8_t)(n / 16), 0);
	EXPECT_ERR(-ENOSPC, rc);
	for (uint64_t b = n - 16; !kit_write(a, b, 1, 1, 0); b++)
		;
	EXPECT_TRUE(bs_sums_wanted(kit.bs));
	ASSERT_OK(bs_service_step(kit.bs)); /* finds no place for a page, or for some only */
	ASSERT_OK(bs_checkpoint(kit.bs));
	ASSERT_OK(bs_commit(kit.bs, 0));
	bs_blob_put(a);
	kit_reopen(&kit, true, BS_NO_SERVICE);
	a = bs_blob_get(kit.bs, id);
	for (uint64_t b = 0; b + 16 < n; b += 16)
		ASSERT_EQ_INT((uint8_t)(b / 16), kit_byte(a, b));
	expect_found(&kit, a, 64);
	/* Room again: they go. */
	ASSERT_OK(kit_unmap(a, 0, n / 2));
	ASSERT_OK(bs_service_step(kit.bs));
	ASSERT_OK(bs_reclaim(kit.bs));
	atomic_store(&kit.bs->sums->retry_ns, 0);
	sum_page_out(&kit);
	EXPECT_EQ_INT((uint8_t)((n / 2 + 64) / 16), kit_byte(a, (n / 2 + 64) / 16 * 16));
	bs_blob_put(a);
	kit_close(&kit);
}

/* ---- memory that changes, writes at once, odd pieces ---- */

TEST(sum, the_sum_is_that_of_what_was_given_to_the_write)
{
	struct kit kit;
	struct kit_io k;
	struct bs_blob *a;
	uint8_t *buf = dma_alloc(16 * BS_BLOCK, BS_BLOCK);

	sum_kit_open(&kit, (struct kit_opts){ .flags = 0 });
	a = kit_create(kit.bs);
	memset(buf, 5, 16 * BS_BLOCK);
	kit_start(&k, a, BS_WRITE, 0, 16, buf);
	memset(buf, 6, 16 * BS_BLOCK);
	ASSERT_OK(kit_wait(&k));
	EXPECT_EQ_PTR(buf, k.io.iov[0].iov_base); /* the caller's iovecs are his again */
	EXPECT_EQ_INT(5, kit_byte(a, 0));
	EXPECT_EQ_INT(5, kit_byte(a, 15));
	dma_free(buf);
	bs_blob_put(a);
	kit_close(&kit);
}

TEST(sum, two_writes_at_once_to_an_unwritten_block_leave_one_of_them)
{
	struct kit kit;
	struct kit_io x, y;
	struct bs_blob *a;
	uint8_t *buf = dma_alloc(8 * BS_BLOCK, BS_BLOCK);
	struct bdev_fault slow = { .kind = BDEV_FAULT_DELAY, .op = BDEV_WRITE, .count = 1, .delay_ms = 100 };

	sum_kit_open(&kit, (struct kit_opts){ .fault = true });
	a = kit_create(kit.bs);
	ASSERT_OK(kit_prealloc(kit.bs, a, 0, 16));
	memset(buf, 1, 4 * BS_BLOCK);
	memset(buf + 4 * BS_BLOCK, 2, 4 * BS_BLOCK);
	ASSERT_OK(bdev_fault_add(kit.dev, &slow)); /* the first is published last, and was there first */
	kit_start(&x, a, BS_WRITE, 2, 4, buf);
	kit_start(&y, a, BS_WRITE, 4, 4, buf + 4 * BS_BLOCK);
	ASSERT_OK(kit_wait(&y));
	ASSERT_OK(kit_wait(&x));
	for (uint64_t b = 2; b < 8; b++) {
		int byte = kit_byte(a, b);

		EXPECT_TRUE(b < 4 ? byte == 1 : b < 6 ? byte == 1 || byte == 2 : byte == 2);
	}
	EXPECT_EQ_INT(0, sum_stat(kit.bs).sum_errors);
	bdev_fault_clear(kit.dev);
	dma_free(buf);
	bs_blob_put(a);
	kit_close(&kit);
}

TEST(sum, pieces_of_any_form_are_compared)
{
	struct kit kit;
	struct bs_blob *a;
	uint8_t *buf = dma_alloc(40 * BS_BLOCK, BS_BLOCK), *want = dma_alloc(40 * BS_BLOCK, BS_BLOCK);
	uint64_t seed = test_seed();

	sum_kit_open(&kit, (struct kit_opts){ .flags = 0 });
	a = kit_create(kit.bs);
	for (uint64_t i = 0; i < 40 * BS_BLOCK; i++)
		want[i] = (uint8_t)kit_rand(&seed, 256);
	for (uint64_t b = 40; b--;) /* backwards, so that it lies in pieces; some are holes */
		if (b % 9)
			ASSERT_OK(kit_write_buf(a, b, 1, want + b * BS_BLOCK, 0));
		else
			memset(want + b * BS_BLOCK, 0, BS_BLOCK);
	for (int round = 0; round < 20; round++) {
		struct iovec iov[320];
		struct bs_io io = { .blob = a, .op = BS_READ, .length = 40 * BS_BLOCK, .iov = iov };
		uint64_t at = 0;

		while (at < io.length) {
			uint64_t n = 512ull * (1 + kit_rand(&seed, 30));

			n = MIN(n, io.length - at);
			iov[io.iovcnt++] = (struct iovec){ buf + at, n };
			at += n;
		}
		memset(buf, 0xee, io.length);
		ASSERT_OK(bs_io_sync(kit.bs, &io));
		ASSERT_EQ_MEM(want, buf, io.length);
		kit_flip(kit.dev, sum_look(a, 20).phys, kit_rand(&seed, BS_BLOCK) & ~7u);
		ASSERT_ERR(-EIO, bs_io_sync(kit.bs, &io));
		ASSERT_OK(kit_write_buf(a, 20, 1, want + 20 * BS_BLOCK, 0));
	}
	dma_free(buf);
	dma_free(want);
	bs_blob_put(a);
	kit_close(&kit);
}

TEST(sum, without_memory_nothing_is_wrong_and_nothing_is_lost)
{
	struct kit kit;
	struct bs_blob *a;
	uint8_t *buf = dma_alloc(64 * BS_BLOCK, BS_BLOCK);
	int rc = -ENOMEM;

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE });
	a = sum_spread(&kit, 2048);
	sum_page_out(&kit);
	memset(buf, 9, 64 * BS_BLOCK);
	for (uint64_t n = 1; n < 100 && rc; n++) {
		base_fail_alloc_after(n);
		rc = kit_write_buf(a, 100, 64, buf, 0);
		base_fail_alloc_after(0);
		ASSERT_TRUE(!rc || rc == -ENOMEM);
		ASSERT_EQ_INT(rc ? 100 : 9, kit_byte(a, 100));
	}
	ASSERT_OK(rc);
	rc = -ENOMEM;
	for (uint64_t n = 1; n < 100 && rc; n++) {
		base_fail_alloc_after(n);
		rc = kit_read(a, 0, 64, buf);
		base_fail_alloc_after(0);
		ASSERT_TRUE(!rc || rc == -ENOMEM);
	}
	ASSERT_OK(rc);
	for (unsigned b = 0; b < 64; b++)
		EXPECT_EQ_INT(b, buf[b * BS_BLOCK]);
	rc = -ENOMEM;
	for (uint64_t n = 1; n < 100; n++) {
		for (uint64_t b = 0; b < 2048; b += 100)
			ASSERT_OK(kit_write(a, b, 1, (uint8_t)(b % 251), 0));
		atomic_store(&kit.bs->sums->retry_ns, 0);
		base_fail_alloc_after(n);
		rc = bs_sums_step(kit.bs);
		base_fail_alloc_after(0);
		ASSERT_TRUE(!rc || rc == -ENOMEM);
	}
	for (uint64_t b = 0; b < 2048; b += b == 96 ? 100 : 12) /* 100 … 163 were written above */
		ASSERT_EQ_INT((int)(b % 251), b >= 100 && b < 164 && b % 100 ? (int)(b % 251) : kit_byte(a, b));
	dma_free(buf);
	bs_blob_put(a);
	kit_close(&kit);
}

/* ---- damage and hostility ---- */

static void put_record(struct bs *bs, const struct bs_rec *rec)
{
	struct bs_txn *txn;

	ASSERT_OK(bs_txn_begin(bs, 0, &txn));
	ASSERT_OK(bs_txn_add(txn, rec, 0));
	bs_txn_end(txn);
	ASSERT_OK(bs_commit(bs, 0));
}

static void expect_refused(struct kit *kit)
{
	struct base_err err = { "" };
	struct bdev *dev;
	struct bs *bs;

	bs_abandon(kit->bs);
	ASSERT_OK(bdev_open(kit->name, NULL, &dev, NULL));
	EXPECT_ERR(-EUCLEAN, bs_open(dev, NULL, &bs, &err));
	test_note("%s", err.text);
	EXPECT_GT_INT(bs_check(dev, NULL, NULL, NULL, &err), 0);
	bdev_close(dev);
	bdev_close(kit->keep);
}

TEST(sum, records_of_sums_in_a_store_without_the_feature_are_corruption)
{
	le32 sum = le32_make(7);
	struct bs_rec rec = { .op = BS_REC_PUT, .kind = BS_KIND_USER, .blob = 1, .key = 9000, .len = sizeof(sum), .value = &sum };
	uint8_t encoded[64];
	struct bs_rec out;
	struct kit kit;

	/* Its shape is right; a store without sums refuses it. */
	rec.kind = BS_KIND_SUM;
	rec.blob = BS_SUM_ID;
	ASSERT_GT_INT(bs_rec_decode(encoded, bs_rec_encode(&rec, encoded), 10000, &out), 0);
	EXPECT_ERR(-EUCLEAN, bs_rec_decode(encoded, bs_rec_encode(&rec, encoded), 9000, &out));
	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	EXPECT_FALSE(bs_sum_record_ok(kit.bs, &rec));
	kit_close(&kit);
}

TEST(sum, deleting_the_stores_own_blob_is_corruption)
{
	struct bs_rec rec = { .op = BS_REC_DEL, .kind = BS_KIND_USER, .blob = BS_SUM_ID, .key = 1 };
	struct kit kit;

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE });
	put_record(kit.bs, &rec);
	expect_refused(&kit);
}

TEST(sum, the_stores_own_blob_has_an_empty_header_and_runs_of_pages_only)
{
	struct bs_header_disk h = { .size = le64_make(0) };
	struct bs_run_disk disk;
	struct bs_run run;
	struct bs_rec head = { .op = BS_REC_PUT, .kind = BS_KIND_HEADER, .blob = BS_SUM_ID, .len = sizeof(h), .value = &h };
	struct bs_rec put = { .op = BS_REC_PUT, .kind = BS_KIND_RUN, .blob = BS_SUM_ID, .len = sizeof(disk), .value = &disk };
	struct kit kit;
	uint64_t last;

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE });
	EXPECT_TRUE(bs_sum_record_ok(kit.bs, &head));
	h.size = le64_make(1);
	EXPECT_FALSE(bs_sum_record_ok(kit.bs, &head));
	last = put.key = (kit.bs->blocks - 1) / BS_SUM_PAGE;
	for (unsigned flags = 0; flags <= BS_RUN_SUM; flags++) {
		bs_run_set(&run, last, 9000, 1, flags);
		bs_run_to_disk(&run, &disk);
		EXPECT_EQ_INT(!flags, bs_sum_record_ok(kit.bs, &put));
	}
	bs_run_set(&run, last, 9000, 2, 0);
	bs_run_to_disk(&run, &disk);
	EXPECT_FALSE(bs_sum_record_ok(kit.bs, &put));
	put.op = BS_REC_DEL_BLOB;
	EXPECT_FALSE(bs_sum_record_ok(kit.bs, &put));
	kit_close(&kit);
}

TEST(sum, the_stores_own_blob_is_nobodys)
{
	struct bs_blob *blob;
	struct bs_txn *txn;
	struct kit kit;

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE });
	EXPECT_EQ_PTR(NULL, bs_blob_get(kit.bs, BS_SUM_ID));
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	EXPECT_ERR(-EINVAL, bs_txn_create(txn, BS_SUM_ID, NULL, 0, &blob));
	bs_txn_cancel(txn);
	kit_close(&kit);
}

static void count_problem(const struct bs_problem *p, void *arg)
{
	*(int *)arg += strcmp(p->code, "sum-lost") == 0;
}

TEST(sum, mending_lets_blocks_be_read_whose_page_of_sums_is_lost)
{
	le64 one = le64_make(1);
	struct bs_rec rec = { .op = BS_REC_DEL, .kind = BS_KIND_RUN, .blob = BS_SUM_ID, .len = sizeof(one), .value = &one };
	int lost = 0;
	struct bs_mend_opts mo = { .size = sizeof(mo), .report = count_problem, .arg = &lost };
	struct bs_blob *a;
	struct bdev *dev;
	struct kit kit;
	uint64_t id, block = 200;

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE });
	a = sum_spread(&kit, 8192);
	id = bs_blob_id(a);
	sum_page_out(&kit);
	while (bs_sum_is_young(kit.bs, sum_look(a, block).phys))
		block++;
	rec.key = sum_look(a, block).phys / BS_SUM_PAGE;
	bs_blob_put(a);
	put_record(kit.bs, &rec);
	kit_reopen(&kit, true, BS_NO_SERVICE);
	a = bs_blob_get(kit.bs, id);
	EXPECT_ERR(-EIO, sum_read_rc(a, block, 1));
	bs_blob_put(a);
	bs_abandon(kit.bs);
	ASSERT_OK(bdev_open(kit.name, NULL, &dev, NULL));
	ASSERT_OK(bs_mend(dev, &mo, &kit.bs, NULL));
	EXPECT_GT_INT(lost, 0);
	a = bs_blob_get(kit.bs, id);
	EXPECT_EQ_INT(0, sum_look(a, block).flags);
	sum_expect_spread(a, 8192);
	/* What is written from now on has a sum again where it takes new space. */
	ASSERT_OK(kit_write(a, block, 1, 3, BS_IO_NEW));
	EXPECT_EQ_INT(BS_RUN_SUM, sum_look(a, block).flags);
	bs_blob_put(a);
	kit_close(&kit);
}
