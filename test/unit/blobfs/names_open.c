/* SPDX-License-Identifier: BSD-2-Clause */
/* Names and open files: what is unlinked or replaced while it is open, or dirty. */
#include "test/unit/blobfs/names.h"

#define LEN (512 * 1024)

static struct bfs_file *write_file(struct bfs *fs, uint64_t ino)
{
	char *buf = malloc(LEN);
	struct bfs_file *file;

	memset(buf, 'x', LEN);
	ASSERT_OK(bfs_open(fs, NULL, ino, O_RDWR, BS_STREAM_UNKNOWN, &file));
	ASSERT_EQ_INT(LEN, bfs_pwrite(file, buf, LEN, 0));
	free(buf);
	return file;
}

static void expect_as_before(struct bfs *fs, const struct bfs_statfs *before)
{
	struct bfs_cache_stat cache;
	struct bfs_statfs now;

	bfs_get_cache_stat(fs, &cache);
	EXPECT_EQ_INT(0, cache.dirty);
	EXPECT_EQ_INT(0, cache.written_back);
	ASSERT_OK(bfs_get_statfs(fs, &now));
	EXPECT_EQ_INT(before->files, now.files);
	/* what the log and the next checkpoint may need differs by a little */
	EXPECT_LE_INT(before->avail_blocks - 16, now.avail_blocks);
}

TEST(bfs_open_names, what_is_deleted_before_it_was_written_is_never_written)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	struct bfs_file *file;
	struct bfs_statfs st;
	uint64_t f;

	ASSERT_OK(bfs_get_statfs(fs, &st));
	f = make_file(fs, ROOT, "closed first");
	file = write_file(fs, f);
	bfs_close(file);
	ASSERT_OK(bfs_unlink(fs, NULL, ROOT, "closed first"));
	EXPECT_ERR(-ENOENT, bfs_ref(fs, f));
	expect_as_before(fs, &st);

	f = make_file(fs, ROOT, "unlinked first");
	file = write_file(fs, f);
	ASSERT_OK(bfs_unlink(fs, NULL, ROOT, "unlinked first"));
	EXPECT_EQ_INT(LEN, bfs_file_size(file));
	bfs_close(file);
	EXPECT_ERR(-ENOENT, bfs_ref(fs, f));
	expect_as_before(fs, &st);

	f = make_file(fs, ROOT, "replaced");
	file = write_file(fs, f);
	make_file(fs, ROOT, "new");
	ASSERT_OK(bfs_rename(fs, NULL, ROOT, "new", ROOT, "replaced", 0));
	bfs_close(file);
	EXPECT_ERR(-ENOENT, bfs_ref(fs, f));
	ASSERT_OK(bfs_unlink(fs, NULL, ROOT, "replaced"));
	expect_as_before(fs, &st);
	world_end(&w);
}

TEST(bfs_open_names, an_open_file_outlives_its_name_until_it_is_closed)
{
	char buf[LEN], want[LEN];
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	struct bfs_file *file = write_file(fs, make_file(fs, ROOT, "f"));
	uint64_t ino = bfs_file_ino(file);
	struct bfs_attr attr;

	memset(want, 'x', sizeof(want));
	ASSERT_OK(bfs_unlink(fs, NULL, ROOT, "f"));
	ASSERT_OK(bfs_sync(fs));
	ASSERT_OK(bfs_fsync(file, false));
	ASSERT_OK(bfs_advise(file, 0, 0, BFS_ADV_DONTNEED));
	ASSERT_EQ_INT(LEN, bfs_pread(file, buf, LEN, 0));
	EXPECT_EQ_MEM(want, buf, LEN);
	ASSERT_OK(bfs_getattr(fs, ino, &attr));
	EXPECT_EQ_INT(0, attr.nlink);
	EXPECT_EQ_INT(LEN, attr.size);
	EXPECT_EQ_INT(LEN / 512, attr.blocks);
	ASSERT_OK(bfs_truncate(fs, NULL, ino, 100));
	ASSERT_EQ_INT(3, bfs_append(file, "end", 3));
	bfs_close(file);
	EXPECT_ERR(-ENOENT, bfs_getattr(fs, ino, &attr));
	world_end(&w);
}

TEST(bfs_open_names, times_follow_what_is_done)
{
	char buf[16];
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	struct bfs_file *file;
	struct bfs_attr attr;
	uint64_t f;

	base_set_fake_clock(1000);
	f = make_file(fs, ROOT, "f");
	ASSERT_OK(bfs_getattr(fs, f, &attr));
	EXPECT_EQ_INT(1000, attr.btime);
	EXPECT_EQ_INT(1000, attr.mtime);
	ASSERT_OK(bfs_open(fs, NULL, f, O_RDWR, BS_STREAM_UNKNOWN, &file));
	base_set_fake_clock(2000);
	ASSERT_EQ_INT(4, bfs_pwrite(file, "data", 4, 0));
	base_set_fake_clock(3000);
	ASSERT_EQ_INT(4, bfs_pread(file, buf, sizeof(buf), 0));
	base_set_fake_clock(4000);
	ASSERT_EQ_INT(4, bfs_pread(file, buf, sizeof(buf), 0)); /* relatime: not again */
	bfs_close(file);
	ASSERT_OK(bfs_sync(fs));
	fs = world_remount(&w);
	ASSERT_OK(bfs_getattr(fs, f, &attr));
	EXPECT_EQ_INT(2000, attr.mtime);
	EXPECT_EQ_INT(2000, attr.ctime);
	EXPECT_EQ_INT(3000, attr.atime);
	base_set_fake_clock(5000);
	ASSERT_OK(bfs_link(fs, NULL, f, ROOT, "g", 0, NULL));
	ASSERT_OK(bfs_getattr(fs, f, &attr));
	EXPECT_EQ_INT(5000, attr.ctime);
	ASSERT_OK(bfs_getattr(fs, ROOT, &attr));
	EXPECT_EQ_INT(5000, attr.mtime);
	base_set_fake_clock(0);
	world_end(&w);
}
