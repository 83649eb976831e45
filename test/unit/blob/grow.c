/* SPDX-License-Identifier: BSD-2-Clause */
/* Growth: a store takes what its device has got, in use and at opening; never the other way. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blob/device.h"
#include "test/common/temp.h"
#include "test/unit/blob/kit.h"

#define SMALL (44 * MiB)

static uint64_t avail(struct bs *bs)
{
	struct bs_stat st;

	bs_get_stat(bs, &st);
	return st.avail_blocks;
}

static uint64_t blocks_of(struct bs *bs)
{
	struct bs_stat st;

	bs_get_stat(bs, &st);
	return st.blocks;
}

/* Writes until there is no space any more; the block after the last. */
static uint64_t fill(struct bs_blob *blob, uint64_t from)
{
	int rc;

	while (!(rc = kit_write(blob, from, 4, (uint8_t)(from / 4 % 251 + 1), 0)))
		from += 4;
	EXPECT_EQ_INT(-ENOSPC, rc);
	return from;
}

static void expect_filled(struct bs_blob *blob, uint64_t end)
{
	for (uint64_t b = 0; b < end; b += 4)
		ASSERT_EQ_INT((int)(b / 4 % 251 + 1), kit_byte(blob, b));
}

TEST(grow, who_found_no_space_finds_it_at_once)
{
	struct base_err err = { "" };
	struct bs_blob *blob;
	struct kit kit;
	uint64_t end, more, id;

	kit_open(&kit, &(struct kit_opts){ .store_size = SMALL, .flags = BS_NO_SERVICE });
	ASSERT_EQ_INT(SMALL / BS_BLOCK, blocks_of(kit.bs));
	blob = kit_create(kit.bs);
	id = bs_blob_id(blob);
	end = fill(blob, 0);
	ASSERT_OK(bs_grow(kit.bs, 50 * MiB, &err));
	EXPECT_EQ_INT(50 * MiB / BS_BLOCK, blocks_of(kit.bs));
	more = fill(blob, end);
	EXPECT_GT_INT(more - end, 1000);
	ASSERT_OK(bs_grow(kit.bs, 0, &err));
	EXPECT_EQ_INT(64 * MiB / BS_BLOCK, blocks_of(kit.bs));
	end = fill(blob, more);
	EXPECT_GT_INT(end - more, 2500);
	ASSERT_OK(bs_commit(kit.bs, 0));
	bs_blob_put(blob);
	kit_reopen(&kit, true, BS_NO_SERVICE);
	EXPECT_EQ_INT(64 * MiB / BS_BLOCK, blocks_of(kit.bs));
	blob = bs_blob_get(kit.bs, id);
	ASSERT_TRUE(blob != NULL);
	expect_filled(blob, end);
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(grow, a_size_that_cannot_be_is_refused_with_a_sentence)
{
	struct base_err err = { "" };
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .store_size = SMALL, .flags = BS_NO_SERVICE });
	EXPECT_ERR(-EINVAL, bs_grow(kit.bs, SMALL - BS_BLOCK, &err));
	EXPECT_TRUE(strstr(err.text, "cannot be made smaller") != NULL);
	EXPECT_ERR(-EFBIG, bs_grow(kit.bs, 64 * MiB + BS_BLOCK, &err));
	EXPECT_TRUE(strstr(err.text, "the device has 67108864 bytes") != NULL);
	EXPECT_ERR(-EFBIG, bs_grow(kit.bs, UINT64_MAX, &err));
	EXPECT_OK(bs_grow(kit.bs, SMALL + 100, &err)); /* not a whole block more */
	EXPECT_EQ_INT(SMALL / BS_BLOCK, blocks_of(kit.bs));
	kit_reopen(&kit, false, BS_RDONLY);
	EXPECT_ERR(-EROFS, bs_grow(kit.bs, 0, &err));
	kit_close(&kit);
}

TEST(grow, by_any_number_of_blocks_leaves_every_block_counted_once)
{
	uint64_t seed = test_seed(), size = SMALL;
	struct base_err err = { "" };
	struct bs_blob *blob;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .store_size = SMALL, .flags = BS_NO_SERVICE | BS_DISCARD });
	blob = kit_create(kit.bs);
	for (int i = 0; i < 40; i++) {
		struct bs_space *s;
		uint64_t clusters = 0, in_regions = 0, used = 0;

		size += (1 + kit_rand(&seed, 300)) * BS_BLOCK;
		size = MIN(size, 64 * MiB);
		ASSERT_OK(bs_grow(kit.bs, size, &err));
		ASSERT_OK(kit_write(blob, (uint64_t)i * 7, 3, 1, 0));
		s = kit.bs->space;
		for (uint64_t b = 0; b + 4 <= s->blocks; b += 4)
			clusters += !(s->bits[b / 64] >> (b % 64) & 15);
		for (uint64_t r = 0; r < s->n_regions; r++)
			in_regions += s->region_free[r];
		for (uint64_t u = 0; u < s->n_units; u++)
			used += s->unit_used[u];
		ASSERT_EQ_INT(round_down(size / BS_BLOCK, 4), s->blocks);
		ASSERT_EQ_INT(clusters, s->free_clusters);
		ASSERT_EQ_INT(clusters, in_regions);
		for (uint64_t b = 0; b < s->n_units * s->unit_blocks; b++)
			used -= s->bits[b / 64] >> (b % 64) & 1;
		ASSERT_EQ_INT(0, used);
	}
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(grow, from_small_to_very_large_keeps_the_number_of_regions_within_bounds)
{
	struct base_err err = { "" };
	struct bs_blob *blob;
	struct bs_space *s;
	uint64_t free_before;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .size = 64 * GiB, .store_size = SMALL, .flags = BS_NO_SERVICE });
	if (strncmp(kit.name, "ram:", 4))
		SKIP("needs a large sparse device");
	blob = kit_create(kit.bs);
	ASSERT_OK(kit_write(blob, 0, 64, 1, 0));
	free_before = kit.bs->space->free_clusters;
	ASSERT_OK(bs_grow(kit.bs, 0, &err));
	s = kit.bs->space;
	EXPECT_LE_INT(s->n_regions, 16384);
	EXPECT_GT_INT(s->free_clusters, free_before + 60 * GiB / 16384);
	for (uint64_t i = 1; i < 200; i++)
		ASSERT_OK(kit_write(blob, i * 100, 64, (uint8_t)i, 0));
	for (uint64_t i = 1; i < 200; i++)
		ASSERT_EQ_INT((int)i, kit_byte(blob, i * 100 + 63));
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(grow, memory_that_is_short_changes_nothing)
{
	struct base_err err = { "" };
	struct kit kit;
	int rc = -ENOMEM;
	uint64_t n;

	kit_open(&kit, &(struct kit_opts){ .store_size = SMALL, .flags = BS_NO_SERVICE | BS_DISCARD });
	for (n = 1; rc && n < 100; n++) {
		uint64_t before = blocks_of(kit.bs), free_before = avail(kit.bs);

		base_fail_alloc_after(n);
		rc = bs_grow(kit.bs, 0, &err);
		base_fail_alloc_after(0);
		if (!rc)
			break;
		ASSERT_EQ_INT(-ENOMEM, rc);
		EXPECT_EQ_INT(before, blocks_of(kit.bs));
		EXPECT_EQ_INT(free_before, avail(kit.bs));
	}
	EXPECT_OK(rc);
	EXPECT_GT_INT(n, 5);
	EXPECT_EQ_INT(64 * MiB / BS_BLOCK, blocks_of(kit.bs));
	kit_close(&kit);
}

TEST(grow, a_superblock_that_cannot_be_written_freezes_the_store_at_one_of_both_sizes)
{
	for (uint64_t n = 0; n < 4; n++) {
		struct bdev_fault fault = { .kind = BDEV_FAULT_ERROR, .op = n % 2 ? BDEV_FLUSH : BDEV_WRITE, .first = n / 2, .count = 1,
					    .rc = -EIO };
		struct base_err err = { "" };
		struct bs_stat st;
		struct kit kit;
		uint64_t now;

		kit_open(&kit, &(struct kit_opts){ .store_size = SMALL, .flags = BS_NO_SERVICE, .fault = true, .cache = true });
		ASSERT_OK(bdev_fault_add(kit.dev, &fault));
		EXPECT_ERR(-EIO, bs_grow(kit.bs, 0, &err));
		bs_get_stat(kit.bs, &st);
		EXPECT_TRUE(st.frozen);
		EXPECT_EQ_INT(SMALL / BS_BLOCK, st.blocks);
		kit_reopen(&kit, true, BS_NO_SERVICE);
		now = blocks_of(kit.bs);
		EXPECT_TRUE(now == SMALL / BS_BLOCK || now == 64 * MiB / BS_BLOCK);
		kit_close(&kit);
	}
}

TEST(grow, at_opening_when_asked_and_not_otherwise)
{
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .store_size = SMALL, .flags = BS_NO_SERVICE });
	kit_reopen(&kit, false, BS_NO_SERVICE);
	EXPECT_EQ_INT(SMALL / BS_BLOCK, blocks_of(kit.bs));
	kit_reopen(&kit, false, BS_NO_SERVICE | BS_GROW);
	EXPECT_EQ_INT(64 * MiB / BS_BLOCK, blocks_of(kit.bs));
	kit_reopen(&kit, true, BS_NO_SERVICE | BS_GROW);
	EXPECT_EQ_INT(64 * MiB / BS_BLOCK, blocks_of(kit.bs));
	kit_close(&kit);
}

TEST(grow, opening_that_cannot_grow_fails_and_leaves_the_store_as_it_was)
{
	struct bdev_fault fault = { .kind = BDEV_FAULT_ERROR, .op = BDEV_WRITE, .first = 2, .count = 1, .rc = -EIO };
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_NO_SERVICE | BS_GROW };
	struct base_err err = { "" };
	struct bdev *dev, *ram;
	struct kit kit;
	struct bs *bs;

	kit_open(&kit, &(struct kit_opts){ .store_size = SMALL, .flags = BS_NO_SERVICE });
	ASSERT_OK(bs_close(kit.bs));
	ASSERT_OK(bdev_open(kit.name, NULL, &ram, NULL));
	ASSERT_OK(bdev_fault_create(ram, &dev));
	ASSERT_OK(bdev_fault_add(dev, &fault)); /* the mark of the mount takes two */
	EXPECT_ERR(-EIO, bs_open(dev, &opts, &bs, &err));
	EXPECT_TRUE(bs == NULL);
	bdev_close(dev);
	ASSERT_OK(bdev_open(kit.name, NULL, &kit.dev, NULL));
	ASSERT_OK(bs_open(kit.dev, &opts, &kit.bs, &err));
	EXPECT_EQ_INT(64 * MiB / BS_BLOCK, blocks_of(kit.bs));
	kit_close(&kit);
}

TEST(grow, a_file_that_has_got_longer_is_grown_into)
{
	char path[TEMP_PATH];
	struct bs_open_opts opts = { .size = sizeof(opts) };
	struct base_err err = { "" };
	struct bs_blob *blob;
	struct bdev *dev;
	struct bs *bs;
	uint64_t end;
	int fd = temp_file(path, "blobfs-grow");

	ASSERT_GE_INT(fd, 0);
	ASSERT_OK(ftruncate(fd, 48 << 20));
	ASSERT_OK(bdev_open(path, NULL, &dev, &err));
	ASSERT_OK(bs_format(dev, NULL, &err));
	ASSERT_OK(bs_open(dev, &opts, &bs, &err));
	blob = kit_create(bs);
	end = fill(blob, 0);
	ASSERT_OK(bs_grow(bs, 0, &err));
	EXPECT_EQ_INT(48 * MiB / BS_BLOCK, blocks_of(bs));
	ASSERT_OK(ftruncate(fd, (80 << 20) + 700));
	ASSERT_OK(bs_grow(bs, 0, &err));
	EXPECT_EQ_INT(80 * MiB / BS_BLOCK, blocks_of(bs));
	ASSERT_OK(kit_write(blob, end, 256, 9, 0));
	EXPECT_EQ_INT(9, kit_byte(blob, end + 255));
	bs_blob_put(blob);
	ASSERT_OK(bs_close(bs));
	unlink(path);
	close(fd);
}

TEST(grow, pages_and_segments_tell_of_the_new_size_to_who_has_lost_both_superblocks)
{
	struct bs_mend_opts opts = { .size = sizeof(opts), .flags = BS_MEND_REBUILD };
	struct base_err err = { "" };
	uint8_t *zero = dma_zalloc(BS_BLOCK, BS_BLOCK);
	struct bs_blob *blob;
	struct kit kit;
	uint64_t end, id;

	kit_open(&kit, &(struct kit_opts){ .store_size = SMALL, .flags = BS_NO_SERVICE });
	blob = kit_create(kit.bs);
	id = bs_blob_id(blob);
	end = fill(blob, 0);
	ASSERT_OK(bs_grow(kit.bs, 0, &err));
	end = fill(blob, end);
	ASSERT_OK(bs_commit(kit.bs, 0));
	bs_blob_put(blob);
	bs_abandon(kit.bs);
	ASSERT_OK(bdev_open(kit.name, NULL, &kit.dev, NULL));
	for (int i = 0; i < 2; i++) {
		struct bdev_channel *ch = bdev_channel_borrow(kit.dev);

		ASSERT_OK(bdev_io_sync(ch, BDEV_WRITE, zero, i ? (uint64_t)BS_SB_COPY_BLOCK * BS_BLOCK : 0, BS_BLOCK, 0));
		bdev_channel_return(ch);
	}
	ASSERT_OK(bs_mend(kit.dev, &opts, &kit.bs, &err));
	EXPECT_EQ_INT(64 * MiB / BS_BLOCK, blocks_of(kit.bs));
	blob = bs_blob_get(kit.bs, id);
	ASSERT_TRUE(blob != NULL);
	expect_filled(blob, end);
	bs_blob_put(blob);
	dma_free(zero);
	kit_close(&kit);
}

/* ---- while others work ---- */

struct writer {
	struct bs *bs;
	uint64_t written;
	_Atomic bool *stop;
};

static void *write_on(void *arg)
{
	struct writer *w = arg;
	struct bs_blob *blob = kit_create(w->bs);

	while (!atomic_load(w->stop)) {
		int rc = kit_write(blob, w->written, 8, 5, 0);

		if (rc && rc != -ENOSPC)
			FAIL("write: %d", rc);
		if (!rc)
			w->written += 8;
	}
	for (uint64_t b = 0; b < w->written; b += 97)
		if (kit_byte(blob, b) != 5)
			FAIL("block %llu is another's", (unsigned long long)b);
	bs_blob_put(blob);
	return NULL;
}

struct scrubber {
	struct bs *bs;
	_Atomic bool *stop;
};

static void *scrub_on(void *arg)
{
	struct scrubber *s = arg;
	struct bs_scrub_opts opts = { .size = sizeof(opts) };
	struct bs_scrub_result res;

	while (!atomic_load(s->stop)) {
		EXPECT_OK(bs_scrub(s->bs, &opts, &res));
		EXPECT_EQ_INT(0, res.findings);
	}
	return NULL;
}

static void grow_beside(uint32_t format)
{
	struct base_err err = { "" };
	_Atomic bool stop = false;
	struct writer w[3];
	struct scrubber s;
	pthread_t t[4];
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .store_size = SMALL, .format = format });
	s = (struct scrubber){ kit.bs, &stop };
	pthread_create(&t[3], NULL, scrub_on, &s);
	for (int i = 0; i < 3; i++) {
		w[i] = (struct writer){ .bs = kit.bs, .stop = &stop };
		pthread_create(&t[i], NULL, write_on, &w[i]);
	}
	for (uint64_t size = SMALL; size < 64 * MiB; size += 2 * MiB)
		EXPECT_OK(bs_grow(kit.bs, size + 2 * MiB, &err));
	for (int i = 0; i < 2000 && avail(kit.bs) > 64; i++)
		usleep(5000);
	EXPECT_LE_INT(avail(kit.bs), 64);
	atomic_store(&stop, true);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	EXPECT_GT_INT(w[0].written + w[1].written + w[2].written, 48 * MiB / BS_BLOCK);
	kit_close(&kit);
}

TEST(grow_threads, writers_fill_what_is_new_while_it_comes)
{
	grow_beside(0);
}

TEST(grow_threads, checksums_of_what_is_new_are_right_and_scrubbed_meanwhile)
{
	grow_beside(BS_FORMAT_SUMS);
}
