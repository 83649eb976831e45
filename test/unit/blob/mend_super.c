/* SPDX-License-Identifier: BSD-2-Clause */
/* Mending a store whose superblocks say, under a right checksum, what cannot be: the other copy tells, or the metadata on the device. */
#include <errno.h>
#include <string.h>

#include "base/dma.h"
#include "blob/device.h"
#include "test/unit/blob/kit.h"

#define IMPOSSIBLE (1u << 19 | 4)

static void rw(struct kit *kit, enum bdev_op op, void *buf, uint64_t block, uint32_t blocks)
{
	struct bdev_channel *ch = bdev_channel_borrow(kit->keep);

	ASSERT_OK(bdev_io_sync(ch, op, buf, block * BS_BLOCK, (uint64_t)blocks * BS_BLOCK, 0));
	bdev_channel_return(ch);
}

/* Of a superblock: so large a cluster, if not 0; so many blocks, if not 0. */
static void change_super(struct kit *kit, uint64_t block, uint32_t cluster, uint64_t blocks, uint64_t generation)
{
	struct bs_sb_disk *sb = dma_alloc(sizeof(*sb), BS_BLOCK);

	rw(kit, BDEV_READ, sb, block, 1);
	if (cluster)
		sb->cluster_blocks = le32_make(cluster);
	if (blocks)
		sb->blocks = le64_make(blocks);
	sb->generation = le64_make(le64_get(sb->generation) + generation);
	bs_sb_seal(sb);
	rw(kit, BDEV_WRITE, sb, block, 1);
	dma_free(sb);
}

static void spoil_supers(struct kit *kit)
{
	change_super(kit, 0, IMPOSSIBLE, 0, 0);
	change_super(kit, BS_SB_COPY_BLOCK, IMPOSSIBLE, 0, 0);
}

/* The segments' headers, the one of the lowest sequence or all; how many there are. */
static unsigned spoil_segments(struct kit *kit, bool all)
{
	struct bs_segment_disk *h = dma_alloc(sizeof(*h), BS_BLOCK);
	uint64_t blocks = bdev_info(kit->keep)->size / BS_BLOCK;
	unsigned n = 0;

	for (uint64_t at = 64; at < blocks; at += 64) {
		struct bs_piece p = { .kind = BS_PIECE_SEGMENT, .block = at, .blocks = 1, .data = h };

		rw(kit, BDEV_READ, h, at, 1);
		if (le32_get(h->magic) != BS_MAGIC_SEGMENT)
			continue;
		n++;
		if (!all && le64_get(h->first_seq) != 1)
			continue;
		p.nonce = le64_get(h->nonce);
		h->cluster_blocks = le32_make(IMPOSSIBLE);
		bs_piece_seal(&p);
		rw(kit, BDEV_WRITE, h, at, 1);
	}
	dma_free(h);
	return n;
}

/* A store with a blob in its log, over several segments, and no checkpoint. */
static uint64_t make(struct kit *kit)
{
	static char value[40000];
	struct bs_blob *blob;
	uint64_t id;

	kit_open(kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	blob = kit_create(kit->bs);
	id = bs_blob_id(blob);
	ASSERT_OK(kit_write(blob, 0, 1, 'a', 0));
	for (unsigned i = 0; i < 20; i++) {
		ASSERT_OK(kit_put(kit->bs, blob, i, value, sizeof(value)));
		ASSERT_OK(bs_commit(kit->bs, 0));
	}
	bs_blob_put(blob);
	return id;
}

static void is_there(struct kit *kit, uint64_t id, uint64_t items)
{
	struct bs_blob *blob = bs_blob_get(kit->bs, id);
	struct bs_stat st;

	ASSERT_TRUE(blob != NULL);
	EXPECT_EQ_INT('a', kit_byte(blob, 0));
	bs_blob_put(blob);
	bs_get_stat(kit->bs, &st);
	EXPECT_EQ_INT(items, st.items);
}

static int mend(struct kit *kit, uint32_t flags, struct base_err *err)
{
	struct bs_mend_opts opts = { .size = sizeof(opts), .flags = flags };

	return bs_mend(kit->dev, &opts, &kit->bs, err);
}

static void mended(struct kit *kit, uint32_t flags, uint64_t id)
{
	ASSERT_OK(mend(kit, flags, NULL));
	is_there(kit, id, 20);
	kit_reopen(kit, false, BS_NO_SERVICE);
	is_there(kit, id, 20);
	kit_close(kit);
}

TEST(bs_mend_super, a_field_that_cannot_be_makes_the_other_copy_count)
{
	struct kit kit;
	uint64_t id = make(&kit);

	bs_abandon(kit.bs);
	ASSERT_OK(bdev_open(kit.name, NULL, &kit.dev, NULL));
	change_super(&kit, 0, IMPOSSIBLE, 0, 1);
	EXPECT_ERR(-EUCLEAN, bs_open(kit.dev, NULL, &kit.bs, NULL));
	mended(&kit, 0, id);
}

TEST(bs_mend_super, a_copy_larger_than_the_device_makes_the_other_one_count)
{
	struct kit kit;
	uint64_t id = make(&kit);

	bs_abandon(kit.bs);
	ASSERT_OK(bdev_open(kit.name, NULL, &kit.dev, NULL));
	change_super(&kit, 0, 0, 1u << 20, 1);
	mended(&kit, 0, id);
}

TEST(bs_mend_super, copies_that_both_cannot_be_give_way_to_a_page_that_holds_one)
{
	struct base_err err = { "" };
	struct kit kit;
	uint64_t id = make(&kit);

	ASSERT_OK(bs_checkpoint(kit.bs));
	bs_abandon(kit.bs);
	ASSERT_OK(bdev_open(kit.name, NULL, &kit.dev, NULL));
	spoil_supers(&kit);
	EXPECT_ERR(-EUCLEAN, mend(&kit, 0, &err)); /* the device is searched only when that is asked for */
	EXPECT_TRUE(strstr(err.text, "blocks of a cluster is 524292, which cannot be") != NULL);
	mended(&kit, BS_MEND_REBUILD, id);
}

/* ---- an index that names its pages again and again ---- */

#define NAMES 40u

static uint32_t page_crc(const struct bs_page_disk *p, uint64_t at)
{
	return bs_crc_skip(bs_crc_page_seed(p->uuid, at), p, BS_BLOCK, offsetof(struct bs_page_disk, crc));
}

/* Over the checkpoint's root three levels of pages, each of which names the one below 40 times: the whole is 64,000 times as large. sb
 * tells of it then. */
static void pile_up(struct kit *kit, struct bs_sb_disk *sb)
{
	struct bs_page_disk *p = dma_zalloc(BS_BLOCK, BS_BLOCK);
	uint64_t below = le64_get(sb->ckpt_root), at = le64_get(sb->blocks) - 4 * 64;
	struct bs_index_disk d;

	rw(kit, BDEV_READ, p, below, 1);
	ASSERT_EQ_INT(1, le16_get(p->level));
	d = (struct bs_index_disk){ .blob = p->first_blob, .key = p->first_key, .kind = p->first_kind, .blocks = sb->ckpt_root_blocks };
	for (uint16_t level = 2; level <= 4; level++, below = at++) {
		d.address = le64_make(below);
		d.crc = p->crc;
		p->address = le64_make(at);
		p->level = le16_make(level);
		p->blocks = le32_make(1);
		p->count = le32_make(NAMES);
		p->bytes = le32_make(NAMES * sizeof(d));
		for (unsigned i = 0; i < NAMES; i++)
			memcpy((uint8_t *)(p + 1) + i * sizeof(d), &d, sizeof(d));
		p->crc = le32_make(page_crc(p, at));
		rw(kit, BDEV_WRITE, p, at, 1);
		d.blocks = le32_make(1);
	}
	sb->ckpt_root = le64_make(below);
	sb->ckpt_root_blocks = le32_make(1);
	sb->ckpt_root_crc = p->crc;
	dma_free(p);
}

/* The superblock tells of the pile; or, with damaged superblocks, the page that holds one. */
static void mend_pile(bool page)
{
	struct bs_sb_disk *sb = dma_alloc(2 * sizeof(*sb), BS_BLOCK);
	uint64_t id, at;
	struct bs_page_disk *p = (struct bs_page_disk *)sb;
	struct bdev_stats st;
	struct kit kit;

	id = make(&kit);
	ASSERT_OK(bs_checkpoint(kit.bs));
	bs_abandon(kit.bs);
	ASSERT_OK(bdev_open(kit.name, NULL, &kit.dev, NULL));
	rw(&kit, BDEV_READ, sb, 0, 1);
	at = le64_get(sb->ckpt_root) + le32_get(sb->ckpt_root_blocks);
	if (page) {
		rw(&kit, BDEV_READ, p, at, 2);
		ASSERT_EQ_INT(BS_PAGE_SUPER, le16_get(p->kind));
		pile_up(&kit, (struct bs_sb_disk *)(p + 1));
		bs_piece_seal(&(struct bs_piece){ .kind = BS_PIECE_PAGE, .block = at, .blocks = 2, .data = p });
		rw(&kit, BDEV_WRITE, p, at, 2);
		spoil_supers(&kit);
	} else {
		pile_up(&kit, sb);
		bs_sb_seal(sb);
		rw(&kit, BDEV_WRITE, sb, 0, 1);
		rw(&kit, BDEV_WRITE, sb, BS_SB_COPY_BLOCK, 1);
	}
	ASSERT_OK(mend(&kit, BS_MEND_REBUILD, NULL));
	st = kit_device_stats(&kit);
	EXPECT_LT_INT(st.reads, 20000);
	is_there(&kit, id, 20);
	kit_reopen(&kit, false, BS_NO_SERVICE);
	is_there(&kit, id, 20);
	kit_close(&kit);
	dma_free(sb);
}

TEST(bs_mend_super, an_index_that_names_pages_again_and_again_is_read_once)
{
	mend_pile(false);
}

TEST(bs_mend_super, a_checkpoint_that_names_pages_again_and_again_is_no_whole_one)
{
	mend_pile(true);
}

TEST(bs_mend_super, a_segment_tells_what_the_header_of_an_earlier_one_cannot)
{
	struct kit kit;
	uint64_t id = make(&kit);

	bs_abandon(kit.bs);
	ASSERT_OK(bdev_open(kit.name, NULL, &kit.dev, NULL));
	spoil_supers(&kit);
	ASSERT_GT_INT(spoil_segments(&kit, false), 1);
	mended(&kit, BS_MEND_REBUILD, id); /* all of it: the log still begins in that earlier one */
}

TEST(bs_mend_super, it_is_refused_in_one_sentence_when_nothing_else_is_left)
{
	struct base_err err = { "" };
	struct kit kit;

	make(&kit);
	bs_abandon(kit.bs);
	ASSERT_OK(bdev_open(kit.name, NULL, &kit.dev, NULL));
	spoil_supers(&kit);
	spoil_segments(&kit, true);
	EXPECT_ERR(-EUCLEAN, mend(&kit, BS_MEND_REBUILD, &err));
	EXPECT_TRUE(strstr(err.text, "superblock: blocks of a cluster is 524292, which cannot be") != NULL);
	EXPECT_TRUE(strchr(err.text, '\n') == NULL);
	bdev_close(kit.dev);
	bdev_close(kit.keep);
}
