/* SPDX-License-Identifier: BSD-2-Clause */
/* What the format reserves for later: refused, in a sentence that says what it is. */
#include <errno.h>
#include <string.h>

#include "base/dma.h"
#include "blob/device.h"
#include "test/unit/blob/kit.h"

static void write_blocks(struct bdev *dev, const void *data, uint64_t block, uint32_t blocks)
{
	void *buf = dma_alloc((size_t)blocks * BS_BLOCK, BS_BLOCK);
	struct bdev_channel *ch = bdev_channel_borrow(dev);

	memcpy(buf, data, (size_t)blocks * BS_BLOCK);
	ASSERT_OK(bdev_io_sync(ch, BDEV_WRITE, buf, block * BS_BLOCK, (uint64_t)blocks * BS_BLOCK, 0));
	bdev_channel_return(ch);
	dma_free(buf);
}

static void read_super(struct kit *kit, struct bs_sb_disk *sb)
{
	struct bs_sb_pair pair;

	ASSERT_OK(bs_sb_read(kit->dev, &pair, NULL));
	*sb = pair.sb[pair.chosen];
}

/* Every item of the log becomes a record of that kind, under a right checksum. */
static int change_kind(const struct bs_piece *p, void *arg)
{
	struct kit *kit = arg;
	struct bs_frame_disk *f = p->data;
	uint32_t left;

	if (p->kind != BS_PIECE_FRAME)
		return 0;
	left = le32_get(f->bytes);
	for (uint8_t *at = (uint8_t *)(f + 1); left;) {
		int size = bs_rec_skip(at, left);

		ASSERT_GT_INT(size, 0);
		if (((struct bs_rec_disk *)at)->kind >= BS_KIND_USER)
			((struct bs_rec_disk *)at)->kind = BS_KIND_BESIDE;
		at += size;
		left -= (uint32_t)size;
	}
	bs_piece_seal(p);
	write_blocks(kit->dev, f, p->block, p->blocks);
	return 0;
}

/* Of a crash: a blob with an item in the log. */
static void make(struct kit *kit)
{
	struct bs_blob *blob;

	kit_open(kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	blob = kit_create(kit->bs);
	ASSERT_OK(kit_put(kit->bs, blob, 1, "0123456789abcdef0123", 20));
	ASSERT_OK(bs_commit(kit->bs, 0));
	bs_blob_put(blob);
	bs_abandon(kit->bs);
	ASSERT_OK(bdev_open(kit->name, NULL, &kit->dev, NULL));
}

static void refused(struct kit *kit, int rc, const char *text)
{
	struct base_err err = { "" };

	EXPECT_ERR(rc, bs_open(kit->dev, NULL, &kit->bs, &err));
	if (!strstr(err.text, text))
		FAIL("it says: %s", err.text);
	bdev_close(kit->dev);
	bdev_close(kit->keep);
}

TEST(blob_reserved, a_log_with_a_record_of_sums_beside_it_is_refused_by_its_kind)
{
	struct kit kit;

	make(&kit);
	ASSERT_OK(bs_walk(kit.dev, BS_WALK_LOG, change_kind, &kit, NULL));
	refused(&kit, -EUCLEAN, "of kind 5, which belongs to a feature that this program does not know");
}

TEST(blob_reserved, a_store_with_the_feature_of_such_records_is_refused_by_its_bit)
{
	struct bs_sb_disk sb;
	struct kit kit;

	make(&kit);
	read_super(&kit, &sb);
	EXPECT_FALSE(BS_INCOMPAT_KNOWN & BS_INCOMPAT_BESIDE);
	sb.incompat = le64_make(le64_get(sb.incompat) | BS_INCOMPAT_BESIDE);
	bs_sb_seal(&sb);
	write_blocks(kit.dev, &sb, 0, 1);
	write_blocks(kit.dev, &sb, BS_SB_COPY_BLOCK, 1);
	refused(&kit, -ENOTSUP, "unknown incompatible features 0x8");
}
