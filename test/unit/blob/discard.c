/* SPDX-License-Identifier: BSD-2-Clause */
/* Discards: what is free and only that, in long extents, slowly; trimming. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "test/common/temp.h"
#include "test/unit/blob/kit.h"

static uint64_t discarded(struct bs *bs)
{
	struct bs_stat st;

	bs_get_stat(bs, &st);
	return st.discarded_bytes;
}

static uint64_t discards(struct bs *bs)
{
	struct bs_stat st;

	bs_get_stat(bs, &st);
	return st.discards;
}

static uint64_t avail(struct bs *bs)
{
	struct bs_stat st;

	bs_get_stat(bs, &st);
	return st.avail_blocks;
}

static bool await_bytes(struct bs *bs, uint64_t bytes)
{
	for (int i = 0; i < 1000 && discarded(bs) < bytes; i++)
		usleep(10000);
	return discarded(bs) >= bytes;
}

static bool can_discard(struct kit *kit)
{
	return bdev_info(kit->dev)->discard;
}

TEST(discard, what_was_freed_bit_by_bit_goes_as_one_extent)
{
	struct bs_blob *blob;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_DISCARD });
	if (!can_discard(&kit))
		SKIP("the device discards nothing");
	blob = kit_create(kit.bs);
	ASSERT_OK(kit_write(blob, 0, 256, 1, 0));
	ASSERT_OK(kit_write(blob, 256, 256, 1, 0));
	for (uint64_t i = 0; i < 512; i += 4)
		ASSERT_OK(kit_unmap(blob, i, 4));
	EXPECT_EQ_INT(0, discards(kit.bs));
	EXPECT_TRUE(await_bytes(kit.bs, 512 * BS_BLOCK));
	EXPECT_LE_INT(discards(kit.bs), 4);
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(discard, what_is_short_waits_for_its_neighbours)
{
	struct bs_blob *blob;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_DISCARD | BS_NO_SERVICE, .discard_min = 64 * KiB });
	if (!can_discard(&kit))
		SKIP("the device discards nothing");
	blob = kit_create(kit.bs);
	ASSERT_OK(kit_write(blob, 0, 64, 1, 0));
	ASSERT_OK(kit_unmap(blob, 0, 8));
	ASSERT_OK(bs_service_step(kit.bs));
	EXPECT_EQ_INT(0, discarded(kit.bs));
	ASSERT_OK(kit_unmap(blob, 8, 8));
	ASSERT_OK(bs_service_step(kit.bs));
	EXPECT_EQ_INT(16 * BS_BLOCK, discarded(kit.bs));
	EXPECT_EQ_INT(1, discards(kit.bs));
	ASSERT_OK(bs_service_step(kit.bs));
	EXPECT_EQ_INT(1, discards(kit.bs));
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(discard, what_is_in_use_again_is_left_alone)
{
	struct bs_blob *blob, *other;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .size = 48 * MiB, .flags = BS_DISCARD | BS_NO_SERVICE, .discard_min = BS_BLOCK });
	if (!can_discard(&kit))
		SKIP("the device discards nothing");
	blob = kit_create(kit.bs);
	other = kit_create(kit.bs);
	ASSERT_OK(kit_write(blob, 0, 128, 1, 0));
	ASSERT_OK(kit_unmap(blob, 0, 128));
	ASSERT_OK(bs_commit(kit.bs, 0));
	bs_space_release(kit.bs);
	/* All of it, what was just freed among it. */
	for (uint64_t b = 0; !kit_write(other, b, 4, 7, 0); b += 4)
		;
	ASSERT_OK(bs_service_step(kit.bs));
	for (uint64_t b = 0; b < bs_runmap_end(&other->map); b++)
		ASSERT_EQ_INT(7, kit_byte(other, b));
	bs_blob_put(blob);
	bs_blob_put(other);
	kit_close(&kit);
}

TEST(discard, keeps_to_its_rate)
{
	struct bs_blob *blob;
	struct kit kit;
	uint64_t start;

	kit_open(&kit, &(struct kit_opts){ .size = 512 * MiB, .flags = BS_DISCARD, .discard_rate = 256 * MiB });
	if (!can_discard(&kit))
		SKIP("the device discards nothing");
	blob = kit_create(kit.bs);
	ASSERT_OK(kit_prealloc(kit.bs, blob, 0, 300 * MiB / BS_BLOCK));
	ASSERT_OK(kit_unmap(blob, 0, UINT64_MAX));
	start = base_now_ns();
	ASSERT_OK(bs_commit(kit.bs, 0));
	EXPECT_TRUE(await_bytes(kit.bs, 300 * MiB));
	/* The last batch's pause is not waited for; a quarter of what is available goes at once. */
	EXPECT_GT_INT(base_now_ns() - start, 500000000);
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(discard, nothing_of_it_can_be_allocated_meanwhile_and_nobody_is_told_that_there_is_no_space)
{
	struct bdev_fault slow = { .kind = BDEV_FAULT_DELAY, .op = BDEV_DISCARD, .count = UINT64_MAX, .delay_ms = 30 };
	struct bs_blob *blob;
	uint64_t clusters, b;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_DISCARD, .fault = true, .discard_min = BS_BLOCK });
	if (!can_discard(&kit))
		SKIP("the device discards nothing");
	blob = kit_create(kit.bs);
	clusters = avail(kit.bs) / 4;
	ASSERT_OK(kit_prealloc(kit.bs, blob, 0, (clusters - 50) * 4));
	ASSERT_OK(bdev_fault_add(kit.dev, &slow));
	ASSERT_OK(kit_unmap(blob, 0, UINT64_MAX));
	ASSERT_OK(bs_commit(kit.bs, 0));
	usleep(520000); /* so that writing meets the discards */
	for (b = 0; b < (clusters - 80) * 4; b += 64)
		ASSERT_OK(kit_write(blob, b, 64, (uint8_t)(b / 64 % 255 + 1), 0));
	bdev_fault_clear(kit.dev);
	while (bs_space_pending(kit.bs))
		usleep(10000);
	for (uint64_t i = 0; i < b; i += 16)
		ASSERT_EQ_INT((int)(i / 64 % 255 + 1), kit_byte(blob, i));
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(discard, one_that_fails_is_passed_over)
{
	struct bdev_fault bad = { .kind = BDEV_FAULT_ERROR, .op = BDEV_DISCARD, .count = UINT64_MAX, .rc = -EIO };
	uint64_t before, bytes;
	struct base_err err;
	struct bs_blob *blob;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_DISCARD | BS_NO_SERVICE, .fault = true });
	if (!can_discard(&kit))
		SKIP("the device discards nothing");
	blob = kit_create(kit.bs);
	before = avail(kit.bs);
	ASSERT_OK(kit_write(blob, 0, 128, 1, 0));
	ASSERT_OK(bdev_fault_add(kit.dev, &bad));
	ASSERT_OK(kit_unmap(blob, 0, 128));
	ASSERT_OK(bs_service_step(kit.bs));
	EXPECT_EQ_INT(0, discarded(kit.bs));
	EXPECT_EQ_INT(before, avail(kit.bs));
	EXPECT_OK(bs_trim(kit.bs, NULL, &bytes, &err));
	EXPECT_EQ_INT(before, avail(kit.bs));
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(discard, without_it_nothing_is_discarded)
{
	struct bs_blob *blob;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	blob = kit_create(kit.bs);
	ASSERT_OK(kit_write(blob, 0, 256, 1, 0));
	ASSERT_OK(kit_unmap(blob, 0, 256));
	ASSERT_OK(bs_service_step(kit.bs));
	EXPECT_EQ_INT(0, discards(kit.bs));
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(discard, closing_sees_to_what_is_left)
{
	struct bdev_stats st;
	struct bs_blob *blob;
	struct bdev *dev;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_DISCARD | BS_NO_SERVICE });
	if (!can_discard(&kit))
		SKIP("the device discards nothing");
	dev = kit.dev;
	blob = kit_create(kit.bs);
	ASSERT_OK(kit_write(blob, 0, 256, 1, 0));
	ASSERT_OK(kit_unmap(blob, 0, 256));
	bs_blob_put(blob);
	ASSERT_OK(bs_close(kit.bs));
	bdev_get_stats(dev, &st); /* kit.keep holds it */
	EXPECT_EQ_INT(1, st.discards);
	bdev_close(kit.keep);
}

/* ---- trimming ---- */

TEST(trim, discards_all_that_is_free_and_nothing_else)
{
	struct base_err err = { "" };
	uint64_t bytes, seed = test_seed(), free_blocks;
	struct bs_blob *blob[8];
	struct bs_stat st;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	if (!can_discard(&kit))
		SKIP("the device discards nothing");
	for (int i = 0; i < 8; i++) {
		blob[i] = kit_create(kit.bs);
		for (int k = 0; k < 60; k++)
			ASSERT_OK(kit_write(blob[i], (uint64_t)k * 20 + kit_rand(&seed, 8), 1 + kit_rand(&seed, 11), (uint8_t)(i + 1), 0));
	}
	for (int i = 0; i < 8; i += 2)
		ASSERT_OK(kit_unmap(blob[i], 100, 700));
	ASSERT_OK(bs_service_step(kit.bs));
	free_blocks = 0;
	for (uint64_t b = 0; b < kit.bs->space->blocks; b++)
		free_blocks += !(kit.bs->space->bits[b / 64] >> (b % 64) & 1);
	ASSERT_OK(bs_trim(kit.bs, NULL, &bytes, &err));
	EXPECT_EQ_INT(free_blocks * BS_BLOCK, bytes);
	bs_get_stat(kit.bs, &st);
	EXPECT_EQ_INT(0, st.pending_blocks);
	for (int i = 0; i < 8; i++)
		bs_blob_put(blob[i]);
	kit_reopen(&kit, true, BS_NO_SERVICE); /* what was not committed is gone, the rest is read from the device */
	for (int i = 1; i < 8; i += 2) {
		struct bs_blob *b = bs_blob_get(kit.bs, (uint64_t)i + 1);
		uint64_t at = 0;

		ASSERT_TRUE(b != NULL);
		for (struct bs_extent e; at < 1300; at += e.count) {
			bs_map_lookup(b, at, 1300 - at, &e);
			if (!(e.flags & BS_RUN_HOLE))
				ASSERT_EQ_INT(i + 1, kit_byte(b, at));
		}
		bs_blob_put(b);
	}
	kit_close(&kit);
}

TEST(trim, keeps_to_the_part_and_the_length_it_is_given)
{
	struct bs_trim_opts part = { .size = sizeof(part), .offset = 40 * MiB, .length = 8 * MiB };
	struct bs_trim_opts longer = { .size = sizeof(longer), .min_length = UINT64_MAX };
	struct bs_trim_opts past = { .size = sizeof(past), .offset = 64 * MiB };
	struct bs_trim_opts wrong = { .size = 3 };
	struct base_err err = { "" };
	uint64_t bytes;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	if (!can_discard(&kit))
		SKIP("the device discards nothing");
	ASSERT_OK(bs_trim(kit.bs, &part, &bytes, &err));
	EXPECT_EQ_INT(8 * MiB, bytes);
	ASSERT_OK(bs_trim(kit.bs, &longer, &bytes, &err));
	EXPECT_EQ_INT(0, bytes);
	EXPECT_ERR(-EINVAL, bs_trim(kit.bs, &past, &bytes, &err));
	EXPECT_ERR(-EINVAL, bs_trim(kit.bs, &wrong, &bytes, &err));
	part.length = UINT64_MAX;
	ASSERT_OK(bs_trim(kit.bs, &part, &bytes, &err));
	EXPECT_EQ_INT(24 * MiB, bytes);
	kit_reopen(&kit, false, BS_RDONLY);
	EXPECT_ERR(-EROFS, bs_trim(kit.bs, NULL, &bytes, &err));
	kit_close(&kit);
}

static bool stop_at_once(void *arg)
{
	++*(int *)arg;
	return true;
}

TEST(trim, of_a_part_that_ends_among_blocks_in_use_ends)
{
	struct bs_trim_opts part = { .size = sizeof(part), .length = 4096 };
	struct base_err err;
	struct bs_extent e;
	struct bs_blob *blob;
	uint64_t bytes;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	if (!can_discard(&kit))
		SKIP("the device discards nothing");
	blob = kit_create(kit.bs);
	ASSERT_OK(kit_write(blob, 0, 251, 1, 0));
	bs_map_lookup(blob, 0, 251, &e);
	for (uint64_t i = 0; i < e.count; i++) { /* where the block after the part is free, and where it is not */
		part.offset = (e.phys + i) * 4096;
		ASSERT_OK(bs_trim(kit.bs, &part, &bytes, &err));
		EXPECT_EQ_INT(0, bytes);
	}
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(trim, ends_when_told_to)
{
	int asked = 0;
	struct bs_trim_opts opts = { .size = sizeof(opts), .stop = stop_at_once, .arg = &asked, .rate = 1 };
	struct base_err err = { "" };
	uint64_t bytes;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	if (!can_discard(&kit))
		SKIP("the device discards nothing");
	EXPECT_ERR(-EINTR, bs_trim(kit.bs, &opts, &bytes, &err));
	EXPECT_EQ_INT(1, asked);
	EXPECT_GT_INT(bytes, 0);
	base_fail_alloc_after(1);
	EXPECT_ERR(-ENOMEM, bs_trim(kit.bs, NULL, &bytes, &err));
	base_fail_alloc_after(0);
	kit_close(&kit);
}

TEST(trim, of_an_image_file_punches_holes)
{
	char path[TEMP_PATH];
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_NO_SERVICE };
	struct base_err err = { "" };
	struct bs_blob *blob;
	struct stat full, trimmed;
	struct bdev *dev;
	uint64_t bytes;
	struct bs *bs;
	int fd = temp_file(path, "blobfs-trim");

	ASSERT_GE_INT(fd, 0);
	ASSERT_OK(ftruncate(fd, 64 << 20));
	ASSERT_OK(bdev_open(path, NULL, &dev, &err));
	if (!bdev_info(dev)->discard) {
		bdev_close(dev);
		unlink(path);
		SKIP("this file system punches no holes");
	}
	ASSERT_OK(bs_format(dev, NULL, &err));
	ASSERT_OK(bs_open(dev, &opts, &bs, &err));
	blob = kit_create(bs);
	for (uint64_t b = 0; b < 8192; b += 256)
		ASSERT_OK(kit_write(blob, b, 256, 3, 0));
	ASSERT_OK(kit_unmap(blob, 64, UINT64_MAX));
	ASSERT_OK(bs_service_step(bs));
	ASSERT_OK(fstat(fd, &full));
	ASSERT_OK(bs_trim(bs, NULL, &bytes, &err));
	ASSERT_OK(fstat(fd, &trimmed));
	EXPECT_GT_INT(full.st_blocks, 60000);
	EXPECT_LT_INT(trimmed.st_blocks, 12000);
	EXPECT_EQ_INT(3, kit_byte(blob, 63));
	bs_blob_put(blob);
	ASSERT_OK(bs_close(bs));
	unlink(path);
	close(fd);
}

struct trimmer {
	struct bs *bs;
	_Atomic bool stop;
};

static void *trim_on(void *arg)
{
	struct trimmer *t = arg;
	struct base_err err;
	uint64_t bytes;

	while (!atomic_load(&t->stop))
		EXPECT_OK(bs_trim(t->bs, NULL, &bytes, &err));
	return NULL;
}

TEST(trim_threads, writers_lose_nothing_and_find_all_the_space_there_is)
{
	struct trimmer t = { .stop = false };
	uint64_t end = 0, seed = test_seed();
	struct bs_blob *blob, *churn;
	pthread_t thread;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .size = 48 * MiB, .flags = BS_DISCARD, .discard_min = BS_BLOCK });
	if (!can_discard(&kit))
		SKIP("the device discards nothing");
	t.bs = kit.bs;
	blob = kit_create(kit.bs);
	churn = kit_create(kit.bs);
	pthread_create(&thread, NULL, trim_on, &t);
	while (avail(kit.bs) > 600 * 4) {
		ASSERT_OK(kit_write(blob, end, 16, (uint8_t)(end / 16 % 251 + 1), 0));
		end += 16;
	}
	for (int i = 0; i < 150; i++) {
		uint64_t at = kit_rand(&seed, 1000);

		ASSERT_OK(kit_write(churn, at, 1 + kit_rand(&seed, 60), (uint8_t)i, BS_IO_NEW));
		if (i % 3 == 0)
			ASSERT_OK(kit_unmap(churn, kit_rand(&seed, 1000), kit_rand(&seed, 500) + 1));
	}
	atomic_store(&t.stop, true);
	pthread_join(thread, NULL);
	for (uint64_t b = 0; b < end; b += 5)
		ASSERT_EQ_INT((int)(b / 16 % 251 + 1), kit_byte(blob, b));
	bs_blob_put(blob);
	bs_blob_put(churn);
	kit_close(&kit);
}
