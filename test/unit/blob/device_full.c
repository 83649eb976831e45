/* SPDX-License-Identifier: BSD-2-Clause */
/* A device that has no space for the blocks it says it has: a sparse image on a full file system. */
#include <errno.h>
#include <string.h>

#include "test/unit/blob/kit.h"

static void fill_up(struct kit *kit)
{
	ASSERT_OK(bdev_fault_add(kit->dev, &(struct bdev_fault){ .kind = BDEV_FAULT_ERROR, .op = BDEV_WRITE, .count = UINT64_MAX,
								 .rc = -ENOSPC }));
}

TEST(blob_device_full, a_write_of_data_fails_and_does_not_say_that_the_store_is_full)
{
	struct bs_blob *blob;
	struct bs_stat before, after;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE, .fault = true });
	blob = kit_create(kit.bs);
	ASSERT_OK(kit_write(blob, 0, 8, 1, 0));
	ASSERT_OK(bs_commit(kit.bs, 0));
	bs_get_stat(kit.bs, &before);
	fill_up(&kit);
	EXPECT_ERR(-EIO, kit_write(blob, 0, 1, 2, 0));       /* over its old place */
	EXPECT_ERR(-EIO, kit_write(blob, 0, 8, 2, BS_IO_NEW));
	EXPECT_ERR(-EIO, kit_write(blob, 100, 8, 2, 0));
	bdev_fault_clear(kit.dev);
	/* Nothing of it was published, nothing is lost, and it goes on. */
	bs_get_stat(kit.bs, &after);
	EXPECT_EQ_INT(before.used_blocks, after.used_blocks);
	EXPECT_FALSE(after.frozen);
	for (uint64_t b = 0; b < 8; b++)
		EXPECT_EQ_INT(1, kit_byte(blob, b));
	EXPECT_OK(kit_write(blob, 100, 8, 2, 0));
	EXPECT_EQ_INT(2, kit_byte(blob, 107));
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(blob_device_full, a_log_that_cannot_be_written_freezes_the_store_with_that_cause)
{
	struct bs_blob *blob;
	struct bs_stat st;
	struct kit kit;
	uint64_t id;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE, .fault = true });
	blob = kit_create(kit.bs);
	id = bs_blob_id(blob);
	ASSERT_OK(kit_write(blob, 0, 8, 1, 0));
	ASSERT_OK(bs_commit(kit.bs, 0));
	fill_up(&kit);
	ASSERT_OK(kit_put(kit.bs, blob, 1, "x", 1));
	EXPECT_EQ_INT(-ENOSPC, bs_commit(kit.bs, 0));
	EXPECT_EQ_INT(-EROFS, bs_commit(kit.bs, 0));
	bs_get_stat(kit.bs, &st);
	EXPECT_TRUE(st.frozen);
	EXPECT_EQ_INT(-ENOSPC, st.frozen_rc);
	bs_blob_put(blob);
	kit_reopen(&kit, true, BS_NO_SERVICE);
	blob = bs_blob_get(kit.bs, id);
	ASSERT_TRUE(blob != NULL);
	EXPECT_EQ_INT(1, kit_byte(blob, 7));
	bs_blob_put(blob);
	kit_close(&kit);
}
