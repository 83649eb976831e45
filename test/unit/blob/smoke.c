/* SPDX-License-Identifier: BSD-2-Clause */
/* The whole of the store, once through. */
#include <stdlib.h>
#include <string.h>

#include "test/unit/blob/kit.h"

TEST(bs, a_blob_written_committed_and_reopened_is_as_it_was)
{
	struct base_err err;
	struct bdev *keep;
	struct bs *bs;
	struct bs_blob *blob;
	struct bs_txn *txn;
	char buf[16];
	uint64_t id;

	ASSERT_OK(bdev_open("ram:64M,name=smoke", NULL, &keep, &err));
	{
		struct bdev *dev;

		ASSERT_OK(bdev_open("ram:64M,name=smoke", NULL, &dev, &err));
		ASSERT_OK(bs_format(dev, NULL, &err));
		ASSERT_OK(bs_open(dev, NULL, &bs, &err));
	}
	ASSERT_OK(bs_txn_begin(bs, 0, &txn));
	ASSERT_OK(bs_txn_create(txn, 0, "user", 4, &blob));
	ASSERT_OK(bs_txn_put(txn, blob, BS_KIND_USER, 7, "value", 5));
	ASSERT_TRUE(bs_txn_end(txn) > 0);
	id = bs_blob_id(blob);
	for (uint64_t i = 0; i < 100; i++)
		ASSERT_OK(kit_write(blob, i * 3, 2, (uint8_t)(i + 1), 0));
	EXPECT_EQ_INT(1, kit_byte(blob, 0));
	EXPECT_EQ_INT(0, kit_byte(blob, 2));
	EXPECT_EQ_INT(100, kit_byte(blob, 298));
	ASSERT_OK(bs_commit(bs, 0));
	bs_blob_put(blob);
	ASSERT_OK(bs_close(bs));
	{
		struct bdev *dev;

		ASSERT_OK(bdev_open("ram:64M,name=smoke", NULL, &dev, &err));
		ASSERT_OK(bs_open(dev, NULL, &bs, &err));
	}
	blob = bs_blob_get(bs, id);
	ASSERT_TRUE(blob != NULL);
	EXPECT_EQ_INT(5, bs_item_get(blob, BS_KIND_USER, 7, buf, sizeof(buf)));
	EXPECT_EQ_MEM("value", buf, 5);
	for (uint64_t i = 0; i < 100; i++) {
		ASSERT_EQ_INT(i + 1, kit_byte(blob, i * 3));
		ASSERT_EQ_INT(0, kit_byte(blob, i * 3 + 2));
	}
	bs_blob_put(blob);
	ASSERT_OK(bs_close(bs));
	bdev_close(keep);
}
