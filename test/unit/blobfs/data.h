/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of data: a file system in memory with chosen options, pseudo-random numbers, and a model of one file's bytes. */
#ifndef TEST_UNIT_BLOBFS_DATA_H
#define TEST_UNIT_BLOBFS_DATA_H

#include <linux/falloc.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/dma.h"
#include "blob/format.h"
#include "test/unit/blobfs/names.h"

static inline void data_mount(struct world *w, struct bfs_mount_opts opts)
{
	opts.size = sizeof(opts);
	bdev_ref(w->keep);
	if (bfs_mount_bdev(w->keep, &opts, &w->fs, &w->err))
		FAIL("mount: %s", w->err.text);
}

static inline void data_make(struct world *w, const char *size, struct bfs_mount_opts opts)
{
	struct bfs_format_opts format = { .size = sizeof(format), .store_flags = testdev_sums() ? BS_FORMAT_SUMS : 0 };
	char device[64], ram[64];

	snprintf(ram, sizeof(ram), "ram:%s", size);
	testdev_name(ram, device, sizeof(device));
	if (bdev_open(device, NULL, &w->keep, &w->err))
		FAIL("%s", w->err.text);
	ASSERT_OK(bfs_format(w->keep, &format, &w->err));
	data_mount(w, opts);
}

/* Of a store that is not mounted: made before there was this feature. */
static inline void data_older(struct world *w, uint64_t feature)
{
	struct bdev_channel *ch = bdev_channel_borrow(w->keep);
	struct bs_sb_disk *sb = dma_alloc(sizeof(*sb), BS_BLOCK);

	for (uint64_t i = 0; i < 2; i++) {
		ASSERT_OK(bdev_io_sync(ch, BDEV_READ, sb, i * BS_SB_COPY_BLOCK * BS_BLOCK, sizeof(*sb), 0));
		sb->incompat = le64_make(le64_get(sb->incompat) & ~feature);
		sb->crc = le32_make(0);
		sb->crc = le32_make(base_crc32c(0, sb, sizeof(*sb)));
		ASSERT_OK(bdev_io_sync(ch, BDEV_WRITE, sb, i * BS_SB_COPY_BLOCK * BS_BLOCK, sizeof(*sb), 0));
	}
	dma_free(sb);
	bdev_channel_return(ch);
}

/* Unmounts, checks, and lets the memory go. */
static inline void data_end(struct world *w)
{
	struct bfs_check_result result;

	ASSERT_OK(bfs_unmount(w->fs));
	world_check(w, &result);
	ASSERT_EQ_INT(0, result.problems);
	bdev_close(w->keep);
}

static inline struct bfs_file *data_open(struct world *w, const char *path, int flags)
{
	struct bfs_file *file = NULL;
	int rc = bfs_open_path(w->fs, NULL, path, flags, 0644, BS_STREAM_UNKNOWN, &file);

	if (rc)
		FAIL("open %s: %d", path, rc);
	return file;
}

static inline uint64_t rnd(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static inline void fill_bytes(void *buf, size_t len, uint64_t seed)
{
	uint8_t *p = buf;

	for (size_t i = 0; i < len; i++) {
		if (i % 8 == 0)
			rnd(&seed);
		p[i] = (uint8_t)(seed >> (i % 8 * 8)) | 1; /* never zero */
	}
}

#endif
