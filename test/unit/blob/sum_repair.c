/* SPDX-License-Identifier: BSD-2-Clause */
/* Data checksums: pages of sums that are damaged, repaired, or of no use any more; and bytes carried in the log. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/dma.h"
#include "blob/device.h"
#include "blob/sum.h"
#include "test/unit/blob/sum_kit.h"

#define BLOCKS 8192u

/* A store with sums in pages; *block: one of the blob whose sum is in a page, *page: that on the device. Nothing is cached. */
static struct bs_blob *paged(struct kit *kit, uint64_t *block, uint64_t *page)
{
	struct bs_blob *a;
	uint64_t id;

	sum_kit_open(kit, (struct kit_opts){ .flags = BS_NO_SERVICE });
	a = sum_spread(kit, BLOCKS);
	id = bs_blob_id(a);
	sum_page_out(kit);
	bs_blob_put(a);
	kit_reopen(kit, false, BS_NO_SERVICE);
	a = bs_blob_get(kit->bs, id);
	while (bs_sum_is_young(kit->bs, sum_look(a, *block).phys))
		++*block;
	*page = sum_look(kit->bs->sums->blob, sum_look(a, *block).phys / BS_SUM_PAGE).phys;
	return a;
}

struct problems {
	unsigned page, lost, other;
};

static void count_problem(const struct bs_problem *p, void *arg)
{
	struct problems *n = arg;

	*(!strcmp(p->code, "sum-page") ? &n->page : !strcmp(p->code, "sum-lost") ? &n->lost : &n->other) += 1;
}

/* What mending says of the store, which is left as by a crash and is mended and open afterwards. */
static struct problems mend(struct kit *kit)
{
	struct problems n = { 0 };
	struct bs_mend_opts mo = { .size = sizeof(mo), .report = count_problem, .arg = &n };
	struct bdev *dev;

	bs_abandon(kit->bs);
	ASSERT_OK(bdev_open(kit->name, NULL, &dev, NULL));
	ASSERT_OK(bs_mend(dev, &mo, &kit->bs, NULL));
	kit->dev = dev;
	return n;
}

static struct problems check(struct kit *kit)
{
	struct problems n = { 0 };
	struct bdev *dev;

	ASSERT_OK(bdev_open(kit->name, NULL, &dev, NULL));
	bs_check(dev, count_problem, &n, NULL, NULL);
	bdev_close(dev);
	return n;
}

TEST(sum_repair, a_damaged_page_of_sums_is_found_by_checking_and_mended)
{
	uint64_t block = 200, page, id;
	struct problems n;
	struct bs_blob *a;
	struct kit kit;

	a = paged(&kit, &block, &page);
	id = bs_blob_id(a);
	n = check(&kit);
	EXPECT_EQ_INT(0, n.page + n.lost + n.other);
	kit_flip(kit.dev, page, 1000);
	EXPECT_ERR(-EIO, sum_read_rc(a, block, 1));
	n = check(&kit);
	EXPECT_EQ_INT(1, n.page);
	EXPECT_EQ_INT(0, n.lost + n.other);
	bs_blob_put(a);
	n = mend(&kit);
	EXPECT_EQ_INT(1, n.page);
	EXPECT_GT_INT(n.lost, 0);
	EXPECT_EQ_INT(0, n.other);
	for (int i = 0; i < 2; i++) {
		a = bs_blob_get(kit.bs, id);
		EXPECT_EQ_INT(0, sum_look(a, block).flags);
		EXPECT_EQ_INT(BS_RUN_SUM, sum_look(a, (block + 4000) % BLOCKS).flags);
		sum_expect_spread(a, BLOCKS);
		EXPECT_EQ_INT(0, sum_stat(kit.bs).sum_errors);
		bs_blob_put(a);
		n = check(&kit);
		EXPECT_EQ_INT(0, n.page + n.lost + n.other);
		if (!i)
			kit_reopen(&kit, false, BS_NO_SERVICE);
	}
	kit_close(&kit);
}

TEST(sum_repair, a_page_of_sums_that_cannot_be_read_does_not_keep_the_others_young)
{
	uint64_t block = 200, page, id, pages;
	struct bs_blob *a;
	struct kit kit;

	a = paged(&kit, &block, &page);
	id = bs_blob_id(a);
	kit_flip(kit.dev, page, 77);
	/* Everything anew: some sums belong to the damaged page, where old places become free and are taken again. */
	for (unsigned round = 0; round < 3; round++) {
		for (uint64_t b = 0; b < BLOCKS; b += 64) {
			uint8_t *buf = dma_alloc(64 * BS_BLOCK, BS_BLOCK);

			for (unsigned i = 0; i < 64; i++)
				memset(buf + (size_t)i * BS_BLOCK, (int)((b + i) % 251), BS_BLOCK);
			ASSERT_OK(kit_write_buf(a, b, 64, buf, 0));
			dma_free(buf);
		}
		ASSERT_OK(bs_commit(kit.bs, 0));
		ASSERT_OK(bs_reclaim(kit.bs));
		atomic_store(&kit.bs->sums->retry_ns, 0);
		pages = sum_stat(kit.bs).sum_paged;
		sum_page_out(&kit);
		EXPECT_GT_INT(sum_stat(kit.bs).sum_paged, pages);
		EXPECT_LE_INT(sum_stat(kit.bs).sums_young, kit.bs->sums->high + 1);
	}
	sum_expect_spread(a, BLOCKS);
	bs_blob_put(a);
	ASSERT_OK(bs_commit(kit.bs, 0));
	kit_reopen(&kit, true, BS_NO_SERVICE);
	a = bs_blob_get(kit.bs, id);
	sum_expect_spread(a, BLOCKS);
	bs_blob_put(a);
	kit_close(&kit);
}

TEST(sum_repair, pages_of_sums_of_what_was_deleted_are_given_back)
{
	uint64_t block = 200, page, id;
	struct bs_blob *a;
	struct kit kit;

	a = paged(&kit, &block, &page);
	EXPECT_GT_INT(sum_stat(kit.bs).sum_pages, 4);
	ASSERT_OK(kit_delete(kit.bs, a));
	for (int i = 0; i < 8; i++) {
		ASSERT_OK(bs_reclaim(kit.bs));
		ASSERT_OK(bs_service_step(kit.bs));
	}
	/* Where metadata lies no sum page is empty; there is hardly anything else. */
	EXPECT_LE_INT(sum_stat(kit.bs).sum_pages, 3);
	EXPECT_LE_INT(sum_stat(kit.bs).used_blocks, 3);
	a = sum_spread(&kit, BLOCKS);
	id = bs_blob_id(a);
	sum_page_out(&kit);
	ASSERT_OK(bs_commit(kit.bs, 0));
	bs_blob_put(a);
	kit_reopen(&kit, true, BS_NO_SERVICE);
	a = bs_blob_get(kit.bs, id);
	sum_expect_spread(a, BLOCKS);
	EXPECT_EQ_INT(0, sum_stat(kit.bs).sum_errors);
	bs_blob_put(a);
	kit_close(&kit);
}

/* A run of `a` that maps a page of sums: what is there is a page, so it is not a's. */
static void over_a_page(unsigned flags)
{
	uint64_t block = 200, page, id;
	struct bs_run_disk disk;
	struct bs_rec rec = { .op = BS_REC_PUT, .kind = BS_KIND_RUN, .key = 9000, .len = sizeof(disk), .value = &disk };
	struct problems n;
	struct bs_txn *txn;
	struct bs_blob *a;
	struct bs_run run;
	struct kit kit;

	a = paged(&kit, &block, &page);
	id = rec.blob = bs_blob_id(a);
	bs_run_set(&run, rec.key, page, 1, flags);
	bs_run_to_disk(&run, &disk);
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	ASSERT_OK(bs_txn_add(txn, &rec, 0));
	bs_txn_end(txn);
	ASSERT_OK(bs_commit(kit.bs, 0));
	bs_blob_put(a);
	n = check(&kit);
	EXPECT_GT_INT(n.other, 0);
	n = mend(&kit);
	EXPECT_EQ_INT(0, n.page);
	EXPECT_GT_INT(n.other, 0);
	a = bs_blob_get(kit.bs, id);
	EXPECT_EQ_INT(BS_RUN_HOLE, sum_look(a, 9000).flags);
	EXPECT_EQ_INT(BS_RUN_SUM, sum_look(a, block).flags);
	sum_expect_spread(a, BLOCKS);
	bs_blob_put(a);
	n = check(&kit);
	EXPECT_EQ_INT(0, n.page + n.lost + n.other);
	kit_close(&kit);
}

TEST(sum_repair, a_run_over_a_page_of_sums_is_no_run)
{
	over_a_page(0);
	over_a_page(BS_RUN_SUM);
	over_a_page(BS_RUN_SHARED);
	over_a_page(BS_RUN_SHARED | BS_RUN_SUM);
	over_a_page(BS_RUN_UNWRITTEN);
}

static void set_incompat(struct kit *kit, uint64_t clear)
{
	struct bs_sb_disk sb = kit->bs->sb;

	sb.incompat = le64_make(le64_get(sb.incompat) & ~clear);
	sb.generation = le64_make(le64_get(sb.generation) + 1);
	ASSERT_OK(bs_sb_write_sync(kit->dev, &sb));
}

TEST(sum_repair, a_superblock_that_forgot_the_feature_learns_it_again)
{
	uint64_t block = 200, page, id;
	struct problems n;
	struct bs_blob *a;
	struct kit kit;

	a = paged(&kit, &block, &page);
	id = bs_blob_id(a);
	bs_blob_put(a);
	set_incompat(&kit, BS_INCOMPAT_SUM);
	n = check(&kit);
	EXPECT_GT_INT(n.other, 0);
	mend(&kit);
	EXPECT_TRUE(sum_stat(kit.bs).datasum);
	a = bs_blob_get(kit.bs, id);
	EXPECT_EQ_INT(BS_RUN_SUM, sum_look(a, block).flags);
	sum_expect_spread(a, BLOCKS);
	EXPECT_GT_INT(sum_stat(kit.bs).sum_checked_bytes, 0);
	bs_blob_put(a);
	n = check(&kit);
	EXPECT_EQ_INT(0, n.page + n.lost + n.other);
	kit_close(&kit);
}

TEST(sum_repair, mending_gives_no_store_a_feature_it_did_not_have)
{
	struct bs_blob *a;
	struct kit kit;
	uint64_t id;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	a = kit_create(kit.bs);
	id = bs_blob_id(a);
	ASSERT_OK(kit_write(a, 0, 10, 1, 0));
	ASSERT_OK(bs_commit(kit.bs, 0));
	bs_blob_put(a);
	mend(&kit);
	EXPECT_FALSE(sum_stat(kit.bs).datasum);
	EXPECT_EQ_INT(1, sum_stat(kit.bs).blobs);
	a = bs_blob_get(kit.bs, id);
	EXPECT_EQ_INT(1, kit_byte(a, 5));
	bs_blob_put(a);
	kit_reopen(&kit, false, BS_NO_SERVICE);
	EXPECT_FALSE(sum_stat(kit.bs).datasum);
	EXPECT_EQ_INT(1, sum_stat(kit.bs).blobs);
	kit_close(&kit);
}

/* ---- bytes carried in the log ---- */

static void carry(struct bs_blob *blob, uint64_t offset, uint32_t len, uint8_t byte)
{
	uint8_t data[BS_BLOCK];
	struct bs_txn *txn;

	memset(data, byte, sizeof(data));
	ASSERT_OK(bs_txn_begin(blob->bs, 0, &txn));
	ASSERT_OK(bs_txn_carry(txn, blob, offset, data, len));
	bs_txn_end(txn);
}

/* The block is `under` but for 400 bytes from 100 on. */
static void expect_over(struct bs_blob *blob, uint64_t block, uint8_t under, uint8_t over)
{
	uint8_t *buf = dma_alloc(3 * BS_BLOCK, BS_BLOCK);

	ASSERT_OK(kit_read(blob, block - 1, 3, buf));
	for (unsigned i = 0; i < BS_BLOCK; i++)
		ASSERT_EQ_INT(i >= 100 && i < 500 ? over : under, buf[BS_BLOCK + i]);
	dma_free(buf);
}

TEST(sum_repair, carried_bytes_lie_over_a_block_whose_sum_is_that_of_its_place)
{
	struct bs_blob *a;
	struct kit kit;
	uint64_t id, place;

	sum_kit_open(&kit, (struct kit_opts){ .flags = BS_NO_SERVICE });
	a = kit_create(kit.bs);
	id = bs_blob_id(a);
	ASSERT_OK(kit_write(a, 0, 8, 'm', 0));
	carry(a, 4 * BS_BLOCK + 100, 400, 'c');
	place = sum_look(a, 4).phys;
	for (unsigned round = 0; round < 3; round++) {
		expect_over(a, 4, 'm', 'c');
		/* Under them the block is damaged: that is found, whatever lies over it. */
		kit_flip(kit.dev, place, round ? 3000 : 200);
		EXPECT_ERR(-EIO, sum_read_rc(a, 4, 1));
		EXPECT_ERR(-EIO, sum_read_rc(a, 2, 4));
		kit_flip(kit.dev, place, round ? 3000 : 200);
		if (round == 1)
			ASSERT_OK(bs_checkpoint(kit.bs));
		ASSERT_OK(bs_commit(kit.bs, 0));
		bs_blob_put(a);
		kit_reopen(&kit, true, BS_NO_SERVICE);
		a = bs_blob_get(kit.bs, id);
	}
	/* They come home: to a new place, with a sum of its own. */
	ASSERT_OK(kit_write(a, 4, 1, 'h', 0));
	EXPECT_NE_INT(place, sum_look(a, 4).phys);
	EXPECT_EQ_INT(0, sum_stat(kit.bs).carried_blocks);
	for (unsigned round = 0; round < 2; round++) {
		EXPECT_EQ_INT('h', kit_byte(a, 4));
		kit_flip(kit.dev, sum_look(a, 4).phys, 300);
		EXPECT_ERR(-EIO, sum_read_rc(a, 4, 1));
		kit_flip(kit.dev, sum_look(a, 4).phys, 300);
		ASSERT_OK(bs_commit(kit.bs, 0));
		bs_blob_put(a);
		kit_reopen(&kit, true, BS_NO_SERVICE);
		a = bs_blob_get(kit.bs, id);
	}
	bs_blob_put(a);
	kit_close(&kit);
}
