/* SPDX-License-Identifier: BSD-2-Clause */
/* Every byte that the device was given has a cause. */
#include "test/unit/blob/kit.h"

static uint64_t caused(const struct bs_stat *st)
{
	return st->data_write_bytes + st->log_write_bytes + st->checkpoint_bytes + st->zero_write_bytes;
}

/* Writes, several segments of log, a checkpoint, growth. */
static void live(struct kit *kit)
{
	static char value[40000];
	struct bs_blob *blob = kit_create(kit->bs);

	ASSERT_OK(kit_write(blob, 0, 40, 'a', 0));
	for (unsigned i = 0; i < 30; i++) {
		ASSERT_OK(kit_put(kit->bs, blob, i, value, sizeof(value)));
		ASSERT_OK(bs_commit(kit->bs, 0));
	}
	ASSERT_OK(bs_checkpoint(kit->bs));
	ASSERT_OK(kit_zero(blob, 3, 9));
	ASSERT_OK(bs_grow(kit->bs, 0, NULL));
	bs_blob_put(blob);
}

TEST(blob_causes, what_is_written_is_data_log_checkpoint_or_zeroes)
{
	struct bs_stat before, after;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE, .store_size = 48 * MiB });
	bs_get_stat(kit.bs, &before);
	EXPECT_EQ_INT(2 * BS_BLOCK, before.checkpoint_bytes); /* the mark of this opening, in both superblocks */
	live(&kit);
	bs_get_stat(kit.bs, &after);
	EXPECT_EQ_INT(after.device_write_bytes - before.device_write_bytes, caused(&after) - caused(&before));
	EXPECT_GT_INT(after.log_segments, 2);
	EXPECT_EQ_INT(0, after.zero_write_bytes);
	kit_close(&kit);
}

TEST(blob_causes, after_mending_too)
{
	struct bdev_stats before;
	struct bs_stat st;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE, .store_size = 48 * MiB });
	live(&kit);
	bs_abandon(kit.bs);
	ASSERT_OK(bdev_open(kit.name, NULL, &kit.dev, NULL));
	bdev_get_stats(kit.dev, &before);
	ASSERT_OK(bs_mend(kit.dev, &(struct bs_mend_opts){ .size = sizeof(struct bs_mend_opts) }, &kit.bs, NULL));
	bs_get_stat(kit.bs, &st);
	EXPECT_GT_INT(caused(&st), 0);
	EXPECT_EQ_INT(st.device_write_bytes - before.write_bytes, caused(&st));
	kit_close(&kit);
}

TEST(blob_causes, zeroes_that_a_device_is_told_to_write_are_counted_by_themselves)
{
	struct bdev_channel *ch;
	struct bdev_stats st;
	struct bdev *dev;

	ASSERT_OK(bdev_open("ram:48M", NULL, &dev, NULL));
	ch = bdev_channel_borrow(dev);
	ASSERT_OK(bdev_io_sync(ch, BDEV_WRITE_ZEROES, NULL, 0, 1 * MiB, 0));
	bdev_channel_return(ch);
	bdev_get_stats(dev, &st);
	EXPECT_EQ_INT(1 * MiB, st.write_bytes);
	EXPECT_EQ_INT(1 * MiB, st.zero_bytes);
	bdev_close(dev);
}
