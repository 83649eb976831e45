/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/dma.h"
#include "base/util.h"
#include "blob/device.h"
#include "test/shim/test.h"
#include "test/unit/blob/rig.h"

#define SIZE (64 * MiB)

TEST(blob_super, an_empty_store_opens_and_says_what_it_is)
{
	struct bs_stat st;
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, 0, 0));
	bs_get_stat(r.bs, &st);
	EXPECT_STREQ("rig", st.label);
	EXPECT_STREQ("test", st.owner);
	EXPECT_EQ_INT(16384, st.cluster_size);
	EXPECT_EQ_INT(SIZE / BS_BLOCK, st.blocks);
	EXPECT_EQ_INT(0, st.blobs);
	EXPECT_OK(rig_close(&r));
	rig_drop(&r);
}

TEST(blob_super, format_refuses_what_cannot_be)
{
	struct bs_format_opts opts = { .size = sizeof(opts) };
	struct bdev *dev;
	struct base_err err;

	ASSERT_OK(bdev_open("ram:32M", NULL, &dev, NULL));
	EXPECT_ERR(-EINVAL, bs_format(dev, NULL, &err));
	EXPECT_TRUE(strstr(err.text, "needs") != NULL);
	bdev_close(dev);
	ASSERT_OK(bdev_open("ram:64M", NULL, &dev, NULL));
	opts.cluster_size = 12288;
	EXPECT_ERR(-EINVAL, bs_format(dev, &opts, &err));
	opts.cluster_size = 131072;
	EXPECT_ERR(-EINVAL, bs_format(dev, &opts, &err));
	opts.size = 4;
	EXPECT_ERR(-EINVAL, bs_format(dev, &opts, &err));
	bdev_close(dev);
}

TEST(blob_super, what_is_no_store_is_called_so)
{
	struct base_err err;
	struct bdev *dev;
	struct bs *bs;

	ASSERT_OK(bdev_open("ram:64M", NULL, &dev, NULL));
	EXPECT_ERR(-EINVAL, bs_open(dev, NULL, &bs, &err));
	EXPECT_TRUE(strstr(err.text, "not a BlobFS store") != NULL);
	EXPECT_TRUE(bs == NULL);
	bdev_close(dev);
}

TEST(blob_super, either_copy_alone_is_enough)
{
	uint8_t *zero = dma_zalloc(BS_BLOCK, BS_BLOCK);
	struct rig r;

	for (int copy = 0; copy < 2; copy++) {
		rig_make(&r, SIZE, true);
		rig_write(&r, copy ? BS_SB_COPY_BLOCK : 0, zero, 1);
		EXPECT_OK(rig_open(&r, 0, 0));
		EXPECT_OK(rig_close(&r));
		rig_write(&r, copy ? 0 : BS_SB_COPY_BLOCK, zero, 1);
		ASSERT_OK(rig_open(&r, BS_RDONLY, 0)); /* the mount has written both anew */
		rig_abandon(&r);
		rig_drop(&r);
	}
	dma_free(zero);
}

TEST(blob_super, what_somebody_else_has_made_of_block_0_is_not_overwritten)
{
	uint8_t *other = dma_zalloc(BS_BLOCK, BS_BLOCK);
	struct rig r;

	memset(other + 1024, 0x5a, 200); /* where ext4 has its superblock */
	rig_make(&r, SIZE, true);
	rig_write(&r, 0, other, 1);
	EXPECT_ERR(-EUCLEAN, rig_open(&r, 0, 0));
	EXPECT_TRUE(strstr(r.err.text, "something else") != NULL);
	EXPECT_OK(rig_open(&r, BS_RDONLY, 0));
	rig_drop(&r);
	dma_free(other);
}

TEST(blob_super, an_unreadable_copy_is_as_good_as_none)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_RDONLY };
	struct bdev_fault f = { .kind = BDEV_FAULT_ERROR, .op = BDEV_READ, .count = 1, .hi = BS_BLOCK, .rc = -EIO };
	struct bdev *again;
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(bdev_open(r.name, NULL, &again, NULL));
	ASSERT_OK(bdev_fault_create(again, &r.fault));
	ASSERT_OK(bdev_fault_add(r.fault, &f));
	EXPECT_OK(bs_open(r.fault, &opts, &r.bs, &r.err));
	rig_drop(&r);
}

TEST(blob_super, a_torn_first_copy_leaves_the_older_second)
{
	struct bs_sb_disk *sb = dma_alloc(sizeof(*sb), BS_BLOCK);
	struct rig r;

	rig_make(&r, SIZE, true);
	rig_read(&r, 0, sb, 1);
	sb->generation = le64_make(99); /* new head, old checksum: as a write torn in the middle */
	rig_write(&r, 0, sb, 1);
	ASSERT_OK(rig_open(&r, BS_RDONLY, 0));
	rig_abandon(&r);
	rig_write(&r, BS_SB_COPY_BLOCK, sb, 1);
	EXPECT_ERR(-EUCLEAN, rig_open(&r, 0, 0));
	EXPECT_TRUE(strstr(r.err.text, "checksum") != NULL);
	rig_drop(&r);
	dma_free(sb);
}

struct field {
	const char *name; /* as the message names it */
	size_t offset, len;
	uint64_t value;
	int rc;
};
#define FIELD(name_, field_, value_, rc_) \
	{ name_, offsetof(struct bs_sb_disk, field_), sizeof(((struct bs_sb_disk *)0)->field_), value_, rc_ }

static const struct field fields[] = {
	FIELD("version 2", version_major, 2, -ENOTSUP),
	FIELD("incompatible", incompat, 1ull << 40, -ENOTSUP),
	FIELD("features 0x8", ro_compat, 8, -ENOTSUP),
	FIELD("size in blocks", blocks, 100, -EUCLEAN),
	FIELD("size in blocks", blocks, UINT64_MAX, -EUCLEAN),
	FIELD("the device only", blocks, 20000, -EFBIG),
	FIELD("cluster", cluster_blocks, 3, -EUCLEAN),
	FIELD("cluster", cluster_blocks, 0, -EUCLEAN),
	FIELD("cluster", cluster_blocks, 32, -EUCLEAN),
	FIELD("of a segment", segment_blocks, 65, -EUCLEAN),
	FIELD("of a segment", segment_blocks, 32, -EUCLEAN),
	FIELD("of a segment", segment_blocks, 0, -EUCLEAN),
	FIELD("of a segment", segment_blocks, 1u << 30, -EUCLEAN),
	FIELD("checkpoint root", ckpt_root, 100, -EUCLEAN),
	FIELD("checkpoint root", ckpt_root, UINT64_MAX, -EUCLEAN),
	FIELD("empty checkpoint", ckpt_root_blocks, 1, -EUCLEAN),
	FIELD("empty checkpoint", ckpt_blocks, 1, -EUCLEAN),
	FIELD("empty checkpoint", ckpt_items, 1, -EUCLEAN),
	FIELD("last LSN", ckpt_l0, 1, -EUCLEAN),
	FIELD("last LSN", ckpt_l1, UINT64_MAX, -EUCLEAN),
	FIELD("ends before the checkpoint", ckpt_l1, 5, -EUCLEAN),
	FIELD("next blob id", next_id, 0, -EUCLEAN),
	FIELD("next blob id", next_id, UINT64_MAX, -EUCLEAN),
	FIELD("log segment", log_segment, 0, -EUCLEAN),
	FIELD("log segment", log_segment, 65, -EUCLEAN),
	FIELD("log segment", log_segment, UINT64_MAX - 63, -EUCLEAN),
	FIELD("no valid header", log_segment, 128, -EUCLEAN),
	FIELD("no valid header", log_nonce, 1, -EUCLEAN),
	FIELD("log sequence", log_seq, 0, -EUCLEAN),
	FIELD("log sequence", log_seq, UINT64_MAX, -EUCLEAN),
	FIELD("offset in the log", log_offset, 0, -EUCLEAN),
	FIELD("offset in the log", log_offset, 65, -EUCLEAN),
	FIELD("clean", clean, 2, -EUCLEAN),
};

TEST(blob_super, every_wrong_field_is_named_and_nothing_is_written)
{
	struct bdev_stats before, after;
	struct bs_sb_disk good, bad;
	struct rig r;

	rig_make(&r, SIZE, true);
	rig_super(&r, &good);
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		const struct field *f = &fields[i];
		le64 value = le64_make(f->value);

		bad = good;
		memcpy((uint8_t *)&bad + f->offset, &value, f->len);
		rig_put_super(&r, &bad);
		test_note("case %zu: %s", i, f->name);
		bdev_get_stats(r.base, &before);
		EXPECT_ERR(f->rc, rig_open(&r, 0, 0));
		bdev_get_stats(r.base, &after);
		EXPECT_EQ_INT(before.writes, after.writes);
		if (!strstr(r.err.text, f->name))
			FAIL("the message does not say '%s': %s", f->name, r.err.text);
	}
	rig_put_super(&r, &good);
	EXPECT_OK(rig_open(&r, 0, 0));
	rig_drop(&r);
}

TEST(blob_super, features_that_only_forbid_writing_allow_reading)
{
	struct bs_sb_disk sb;
	struct rig r;

	rig_make(&r, SIZE, true);
	rig_super(&r, &sb);
	sb.ro_compat = le64_make(1);
	sb.compat = le64_make(1);
	rig_put_super(&r, &sb);
	EXPECT_ERR(-ENOTSUP, rig_open(&r, 0, 0));
	EXPECT_OK(rig_open(&r, BS_RDONLY, 0));
	rig_drop(&r);
}

TEST(blob_super, each_mount_has_a_mark_of_its_own)
{
	struct bs_sb_disk a, b;
	struct rig r;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, 0, 0));
	rig_super(&r, &a);
	EXPECT_EQ_INT(0, le32_get(a.clean));
	rig_abandon(&r);
	ASSERT_OK(rig_open(&r, 0, 0));
	rig_super(&r, &b);
	EXPECT_TRUE(memcmp(a.mount_id, b.mount_id, 16) != 0);
	EXPECT_GT_INT(le64_get(b.generation), le64_get(a.generation));
	EXPECT_OK(rig_close(&r));
	rig_super(&r, &b);
	EXPECT_EQ_INT(1, le32_get(b.clean));
	rig_drop(&r);
}

TEST(blob_super, reading_only_writes_nothing)
{
	struct bdev_stats before, after;
	struct rig r;

	rig_make(&r, SIZE, true);
	bdev_get_stats(r.base, &before);
	ASSERT_OK(rig_open(&r, BS_RDONLY, 0));
	EXPECT_ERR(-EROFS, bs_commit(r.bs, 0));
	EXPECT_ERR(-EROFS, bs_checkpoint(r.bs));
	EXPECT_OK(rig_close(&r));
	bdev_get_stats(r.base, &after);
	EXPECT_EQ_INT(before.writes, after.writes);
	EXPECT_EQ_INT(before.flushes, after.flushes);
	rig_drop(&r);
}
