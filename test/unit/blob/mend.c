/* SPDX-License-Identifier: BSD-2-Clause */
/* Mending: who keeps a contested block, and what becomes of blocks that lost records wrote over. */
#include <errno.h>
#include <string.h>

#include "base/dma.h"
#include "test/unit/blob/kit.h"

static char codes[512];

static void note(const struct bs_problem *p, void *arg)
{
	(void)arg;
	if (strlen(codes) + strlen(p->code) + 2 < sizeof(codes)) {
		strcat(codes, p->code);
		strcat(codes, " ");
	}
}

/* Leaves the store as by a crash and mends it. */
static void mend(struct kit *kit)
{
	struct bs_mend_opts opts = { .size = sizeof(opts), .report = note };
	struct bdev *dev;

	codes[0] = '\0';
	ASSERT_OK(bdev_open(kit->name, NULL, &dev, NULL));
	ASSERT_OK(bs_mend(dev, &opts, &kit->bs, NULL));
	kit->dev = dev;
}

/* Block 0 of a blob goes where another one's lies. */
static uint64_t claim(struct kit *kit, uint64_t phys, unsigned flags)
{
	struct bs_blob *blob = kit_create(kit->bs);
	uint64_t id = bs_blob_id(blob);
	struct bs_txn *txn;
	struct bs_run run;

	bs_run_set(&run, 0, phys, 1, flags);
	ASSERT_OK(bs_txn_begin(kit->bs, 0, &txn));
	ASSERT_OK(bs_txn_put_runs(txn, blob, &run, 1, false));
	bs_txn_end(txn);
	ASSERT_OK(bs_commit(kit->bs, 0));
	bs_blob_put(blob);
	return id;
}

static int byte_of(struct kit *kit, uint64_t id)
{
	struct bs_blob *blob = bs_blob_get(kit->bs, id);
	int byte;

	ASSERT_TRUE(blob != NULL);
	byte = kit_byte(blob, 0);
	bs_blob_put(blob);
	return byte;
}

/* A blob with one block of 'a', in a checkpoint. */
static uint64_t first(struct kit *kit, uint64_t *phys)
{
	struct bs_blob *blob = kit_create(kit->bs);
	uint64_t id = bs_blob_id(blob);
	struct bs_extent e;

	ASSERT_OK(kit_write(blob, 0, 1, 'a', 0));
	bs_map_lookup(blob, 0, 1, &e);
	*phys = e.phys;
	bs_blob_put(blob);
	ASSERT_OK(bs_checkpoint(kit->bs));
	return id;
}

TEST(bs_mend, of_two_claims_to_a_block_the_newer_one_holds)
{
	struct kit kit;
	uint64_t a, b, phys;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	a = first(&kit, &phys);
	b = claim(&kit, phys, 0);
	bs_abandon(kit.bs);
	mend(&kit);
	EXPECT_TRUE(strstr(codes, "run-overlap") != NULL);
	EXPECT_EQ_INT(0, byte_of(&kit, a));
	EXPECT_EQ_INT('a', byte_of(&kit, b));
	kit_reopen(&kit, false, BS_NO_SERVICE);
	EXPECT_EQ_INT('a', byte_of(&kit, b));
	kit_close(&kit);
}

TEST(bs_mend, an_older_run_keeps_the_block_of_a_shared_one_and_shares_it)
{
	struct kit kit;
	uint64_t a, b, phys;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	a = first(&kit, &phys);
	b = claim(&kit, phys, BS_RUN_SHARED);
	bs_abandon(kit.bs);
	mend(&kit);
	EXPECT_EQ_INT('a', byte_of(&kit, a));
	EXPECT_EQ_INT('a', byte_of(&kit, b));
	kit_reopen(&kit, false, BS_NO_SERVICE);
	EXPECT_EQ_INT('a', byte_of(&kit, a));
	EXPECT_EQ_INT('a', byte_of(&kit, b));
	kit_close(&kit);
}

TEST(bs_mend, what_is_unwritten_shares_nothing)
{
	struct kit kit;
	uint64_t a, b, c, phys;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	a = first(&kit, &phys);
	b = claim(&kit, phys, BS_RUN_UNWRITTEN);
	c = claim(&kit, phys, BS_RUN_SHARED);
	bs_abandon(kit.bs);
	mend(&kit);
	EXPECT_EQ_INT('a', byte_of(&kit, a));
	EXPECT_EQ_INT(0, byte_of(&kit, b));
	EXPECT_EQ_INT('a', byte_of(&kit, c));
	kit_reopen(&kit, false, BS_NO_SERVICE); /* refused if two have the block and one does not share it */
	EXPECT_EQ_INT('a', byte_of(&kit, a));
	EXPECT_EQ_INT(0, byte_of(&kit, b));
	EXPECT_EQ_INT('a', byte_of(&kit, c));
	kit_close(&kit);
}

static void break_frame(struct kit *kit, uint64_t block)
{
	struct bdev_channel *ch = bdev_channel_borrow(kit->keep);
	uint8_t *buf = dma_alloc(BS_BLOCK, BS_BLOCK);

	ASSERT_OK(bdev_io_sync(ch, BDEV_READ, buf, block * BS_BLOCK, BS_BLOCK, 0));
	buf[100] ^= 0xff;
	ASSERT_OK(bdev_io_sync(ch, BDEV_WRITE, buf, block * BS_BLOCK, BS_BLOCK, 0));
	dma_free(buf);
	bdev_channel_return(ch);
}

TEST(bs_mend, what_lost_records_wrote_over_is_nobody_elses_to_show)
{
	struct bs_blob *blob;
	struct kit kit;
	uint64_t a, b, phys, frame;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	a = first(&kit, &phys);
	frame = le64_get(kit.bs->sb.log_segment) + le32_get(kit.bs->sb.log_offset);
	blob = bs_blob_get(kit.bs, a);
	ASSERT_OK(kit_unmap(blob, 0, 1));
	bs_blob_put(blob);
	ASSERT_OK(bs_commit(kit.bs, 0)); /* the first frame behind the checkpoint, to be lost */
	b = claim(&kit, phys, 0);
	bs_abandon(kit.bs);
	break_frame(&kit, frame);
	mend(&kit);
	EXPECT_TRUE(strstr(codes, "log-lost") != NULL);
	EXPECT_TRUE(strstr(codes, "run-overwritten") != NULL);
	EXPECT_EQ_INT(0, byte_of(&kit, a));
	EXPECT_TRUE(bs_blob_get(kit.bs, b) == NULL);
	kit_close(&kit);
}

TEST(bs_mend, an_index_page_that_cannot_be_read_costs_nothing)
{
	struct bdev_fault f = { .kind = BDEV_FAULT_ERROR, .op = BDEV_READ, .count = UINT64_MAX, .rc = -EIO };
	struct bs_mend_opts opts = { .size = sizeof(opts), .report = note };
	struct bdev *ram, *dev;
	uint64_t a, phys;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	a = first(&kit, &phys);
	f.lo = le64_get(kit.bs->sb.ckpt_root) * BS_BLOCK;
	f.hi = f.lo + BS_BLOCK;
	bs_abandon(kit.bs);
	ASSERT_OK(bdev_open(kit.name, NULL, &ram, NULL));
	ASSERT_OK(bdev_fault_create(ram, &dev));
	ASSERT_OK(bdev_fault_add(dev, &f));
	ASSERT_ERR(-EIO, bs_open(dev, NULL, &kit.bs, NULL));
	ASSERT_OK(bs_mend(dev, &opts, &kit.bs, NULL));
	EXPECT_EQ_INT('a', byte_of(&kit, a));
	kit_reopen(&kit, false, BS_NO_SERVICE);
	EXPECT_EQ_INT('a', byte_of(&kit, a));
	kit_close(&kit);
}

TEST(bs_mend, a_mended_store_lets_what_is_sealed_be_repaired)
{
	struct bs_blob *blob;
	struct bs_txn *txn;
	struct kit kit;
	uint64_t a, phys;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	a = first(&kit, &phys);
	blob = bs_blob_get(kit.bs, a);
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	ASSERT_OK(bs_txn_seal(txn, blob, BS_BLOCK, NULL, 0));
	bs_txn_end(txn);
	EXPECT_ERR(-EROFS, kit_unmap(blob, 0, 1));
	bs_blob_put(blob);
	ASSERT_OK(bs_commit(kit.bs, 0));
	bs_abandon(kit.bs);
	mend(&kit);
	blob = bs_blob_get(kit.bs, a);
	ASSERT_OK(bs_txn_begin(kit.bs, BS_TXN_FREES, &txn));
	EXPECT_OK(bs_txn_unmap(txn, blob, 0, 1));
	EXPECT_OK(bs_txn_header(txn, blob, 0, NULL, 0));
	bs_txn_end(txn);
	bs_blob_put(blob);
	kit_reopen(&kit, false, BS_NO_SERVICE);
	blob = bs_blob_get(kit.bs, a);
	EXPECT_EQ_INT(0, kit_byte(blob, 0));
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	EXPECT_ERR(-EROFS, bs_txn_header(txn, blob, BS_BLOCK, NULL, 0));
	bs_txn_cancel(txn);
	bs_blob_put(blob);
	kit_close(&kit);
}
