/* SPDX-License-Identifier: BSD-2-Clause */
/* A file system in memory that outlives its mounts, and short forms of calls. */
#ifndef TEST_UNIT_BLOBFS_NAMES_H
#define TEST_UNIT_BLOBFS_NAMES_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "blobfs/blobfs.h"
#include "test/common/testdev.h"
#include "test/shim/test.h"

#define ROOT BFS_ROOT_INO

struct world {
	char device[64];
	struct bdev *keep; /* the memory stays for as long as it is open */
	struct bfs *fs;
	struct base_err err;
};

static inline struct bfs *world_mount(struct world *w, uint32_t flags)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts), .flags = flags, .cache_size = 8 * MiB, .writeback_ms = 5 };

	bdev_ref(w->keep);
	ASSERT_OK(bfs_mount_bdev(w->keep, &opts, &w->fs, &w->err));
	return w->fs;
}

static inline struct bfs *world_make(struct world *w, const char *size, uint32_t hash_bits)
{
	struct bfs_format_opts opts = { .size = sizeof(opts), .hash_bits = hash_bits, .label = "test",
					.store_flags = testdev_sums() ? BS_FORMAT_SUMS : 0 };
	char ram[64];

	snprintf(ram, sizeof(ram), "ram:%s", size);
	testdev_name(ram, w->device, sizeof(w->device));
	if (bdev_open(w->device, NULL, &w->keep, &w->err))
		FAIL("%s", w->err.text);
	ASSERT_OK(bfs_format(w->keep, &opts, &w->err));
	return world_mount(w, BFS_NO_SERVICE);
}

static inline void world_problem(const struct bs_problem *p, void *arg)
{
	fprintf(stderr, "%s: %s: %s\n", p->pass, p->code, p->text);
	(void)arg;
}

static inline void world_check(struct world *w, struct bfs_check_result *result)
{
	struct bfs_check_opts opts = { .size = sizeof(opts), .report = world_problem };

	bdev_ref(w->keep);
	ASSERT_OK(bfs_check(w->keep, &opts, result, &w->err));
}

/* Unmounts, checks, and mounts again. */
static inline struct bfs *world_remount(struct world *w)
{
	struct bfs_check_result result;

	ASSERT_OK(bfs_unmount(w->fs));
	world_check(w, &result);
	ASSERT_EQ_INT(0, result.problems);
	return world_mount(w, BFS_NO_SERVICE);
}

/* The process dies: only what was committed is there. */
static inline struct bfs *world_crash(struct world *w)
{
	struct bfs_check_result result;

	bfs_abandon(w->fs);
	world_check(w, &result);
	ASSERT_EQ_INT(0, result.problems);
	return world_mount(w, BFS_NO_SERVICE);
}

static inline void world_end(struct world *w)
{
	struct bfs_check_result result;

	ASSERT_OK(bfs_unmount(w->fs));
	world_check(w, &result);
	ASSERT_EQ_INT(0, result.problems);
	bdev_close(w->keep);
}

static inline uint64_t make_file(struct bfs *fs, uint64_t dir, const char *name)
{
	struct bfs_attr attr;

	ASSERT_OK(bfs_mknod(fs, NULL, dir, name, S_IFREG | 0644, 0, 0, &attr));
	return attr.ino;
}

static inline uint64_t make_dir(struct bfs *fs, uint64_t dir, const char *name)
{
	struct bfs_attr attr;

	ASSERT_OK(bfs_mkdir(fs, NULL, dir, name, 0755, 0, &attr));
	return attr.ino;
}

static inline uint64_t ino_of(struct bfs *fs, const char *path)
{
	struct bfs_attr attr;

	ASSERT_OK(bfs_resolve(fs, NULL, path, BFS_NOFOLLOW, &attr));
	return attr.ino;
}

static inline uint32_t nlink_of(struct bfs *fs, uint64_t ino)
{
	struct bfs_attr attr;

	ASSERT_OK(bfs_getattr(fs, ino, &attr));
	return attr.nlink;
}

#endif
