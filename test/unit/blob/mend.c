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

static void mend_device(struct kit *kit, uint32_t flags)
{
	struct bs_mend_opts opts = { .size = sizeof(opts), .flags = flags, .report = note };

	codes[0] = '\0';
	ASSERT_OK(bs_mend(kit->dev, &opts, &kit->bs, NULL));
}

/* The store was left as by a crash. */
static void mend(struct kit *kit)
{
	ASSERT_OK(bdev_open(kit->name, NULL, &kit->dev, NULL));
	mend_device(kit, 0);
}

/* A block that cannot be read any more, on a device that is opened for it if it is the first. */
static void lose(struct kit *kit, bool is_first, uint64_t block)
{
	struct bdev_fault f = { .op = BDEV_READ, .count = UINT64_MAX, .lo = block * BS_BLOCK, .hi = (block + 1) * BS_BLOCK, .rc = -EIO };
	struct bdev *base;

	if (is_first) {
		ASSERT_OK(bdev_open(kit->name, NULL, &base, NULL));
		ASSERT_OK(bdev_fault_create(base, &kit->dev));
	}
	ASSERT_OK(bdev_fault_add(kit->dev, &f));
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

/* A blob with one block of 'a', in a checkpoint and not in the log behind it. */
static uint64_t first(struct kit *kit, uint64_t *phys)
{
	struct bs_blob *blob = kit_create(kit->bs);
	uint64_t id = bs_blob_id(blob);
	struct bs_extent e;

	ASSERT_OK(kit_write(blob, 0, 1, 'a', 0));
	bs_map_lookup(blob, 0, 1, &e);
	*phys = e.phys;
	bs_blob_put(blob);
	ASSERT_OK(bs_commit(kit->bs, 0));
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
	uint64_t a, phys, root;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	a = first(&kit, &phys);
	root = le64_get(kit.bs->sb.ckpt_root);
	bs_abandon(kit.bs);
	lose(&kit, true, root);
	ASSERT_ERR(-EIO, bs_open(kit.dev, NULL, &kit.bs, NULL));
	mend_device(&kit, 0);
	EXPECT_EQ_INT('a', byte_of(&kit, a));
	kit_reopen(&kit, false, BS_NO_SERVICE);
	EXPECT_EQ_INT('a', byte_of(&kit, a));
	kit_close(&kit);
}

/* Where the first page of a kind lies. */
static uint64_t find_page(struct kit *kit, uint16_t kind)
{
	struct bs_page_disk *p = dma_alloc(BS_BLOCK, BS_BLOCK);
	struct bdev_channel *ch = bdev_channel_borrow(kit->keep);
	uint64_t block = 0, found = 0;

	while (!found) {
		ASSERT_OK(bdev_io_sync(ch, BDEV_READ, p, ++block * BS_BLOCK, BS_BLOCK, 0));
		if (le32_get(p->magic) == BS_MAGIC_PAGE && le16_get(p->kind) == kind)
			found = block;
	}
	bdev_channel_return(ch);
	dma_free(p);
	return found;
}

TEST(bs_mend, a_leaf_that_cannot_be_read_costs_what_was_in_it)
{
	uint64_t a, b, phys;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	a = first(&kit, &phys);
	b = claim(&kit, phys + 8, 0);
	bs_abandon(kit.bs);
	lose(&kit, true, find_page(&kit, BS_PAGE_LEAF));
	mend_device(&kit, 0);
	EXPECT_TRUE(strstr(codes, "page-unreadable") != NULL);
	EXPECT_TRUE(bs_blob_get(kit.bs, a) == NULL);
	EXPECT_EQ_INT(0, byte_of(&kit, b));
	kit_reopen(&kit, false, BS_NO_SERVICE);
	EXPECT_EQ_INT(0, byte_of(&kit, b));
	kit_close(&kit);
}

/* Both superblocks and a block next to the page that tells of them. */
TEST(bs_mend, what_cannot_be_read_does_not_hide_what_lies_beside_it_when_the_device_is_searched)
{
	struct bs_stat st;
	uint64_t a, phys;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	a = first(&kit, &phys);
	bs_abandon(kit.bs);
	lose(&kit, true, 0);
	lose(&kit, false, BS_SB_COPY_BLOCK);
	lose(&kit, false, find_page(&kit, BS_PAGE_SUPER) + 2);
	EXPECT_ERR(-EIO, bs_mend(kit.dev, NULL, &kit.bs, NULL));
	mend_device(&kit, BS_MEND_REBUILD);
	EXPECT_TRUE(strstr(codes, "superblock-rebuilt") != NULL);
	bs_get_stat(kit.bs, &st);
	EXPECT_EQ_INT(0, st.replayed_records); /* all there is comes from the checkpoint */
	EXPECT_EQ_INT('a', byte_of(&kit, a));
	kit_reopen(&kit, false, BS_NO_SERVICE);
	EXPECT_EQ_INT('a', byte_of(&kit, a));
	kit_close(&kit);
}

TEST(bs_mend, one_superblock_that_cannot_be_read_is_written_anew)
{
	uint64_t a, phys;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	a = first(&kit, &phys);
	bs_abandon(kit.bs);
	lose(&kit, true, 0);
	mend_device(&kit, 0);
	EXPECT_TRUE(strstr(codes, "superblock-copy") != NULL);
	kit_reopen(&kit, false, BS_NO_SERVICE);
	EXPECT_EQ_INT('a', byte_of(&kit, a));
	kit_close(&kit);
}

/* Three blobs, each in a frame of its own behind the checkpoint. What is lost: 0: their segment's header; else the block of that frame. */
static void lose_of_log(uint64_t block, const char *code, unsigned kept)
{
	uint64_t id[3], phys, segment;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	first(&kit, &phys);
	segment = le64_get(kit.bs->sb.log_segment);
	if (block)
		block += le32_get(kit.bs->sb.log_offset) - 1;
	for (unsigned i = 0; i < 3; i++)
		id[i] = claim(&kit, phys + 8 * (i + 1), 0);
	bs_abandon(kit.bs);
	lose(&kit, true, segment + block);
	ASSERT_ERR(-EIO, bs_open(kit.dev, NULL, &kit.bs, NULL));
	mend_device(&kit, 0);
	EXPECT_TRUE(strstr(codes, "log-unreadable") != NULL);
	EXPECT_TRUE(strstr(codes, code) != NULL);
	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < 3; i++) {
			struct bs_blob *blob = bs_blob_get(kit.bs, id[i]);

			EXPECT_EQ_INT(i < kept, blob != NULL);
			bs_blob_put(blob);
		}
		if (pass == 0)
			kit_reopen(&kit, false, BS_NO_SERVICE);
	}
	kit_close(&kit);
}

TEST(bs_mend, a_block_of_the_log_that_cannot_be_read_costs_what_comes_from_there_on)
{
	lose_of_log(2, "log-lost", 1);
}

TEST(bs_mend, a_block_of_the_log_that_holds_nothing_yet_costs_nothing)
{
	lose_of_log(5, "log-unreadable", 3);
}

TEST(bs_mend, a_segment_whose_header_cannot_be_read_costs_nothing)
{
	lose_of_log(0, "log-segment", 3);
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
