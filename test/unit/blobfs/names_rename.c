/* SPDX-License-Identifier: BSD-2-Clause */
/* rename in all its forms. */
#include "test/unit/blobfs/names.h"

static struct bfs *tree(struct world *w)
{
	struct bfs *fs = world_make(w, "64M", 0);
	uint64_t a = make_dir(fs, ROOT, "a"), b = make_dir(fs, ROOT, "b");

	make_file(fs, a, "f");
	make_file(fs, b, "g");
	make_file(fs, make_dir(fs, a, "sub"), "deep");
	make_dir(fs, b, "empty");
	return fs;
}

TEST(bfs_rename, a_file_moves_within_and_between_directories)
{
	struct world w;
	struct bfs *fs = tree(&w);
	uint64_t a = ino_of(fs, "a"), b = ino_of(fs, "b"), f = ino_of(fs, "a/f");
	struct bfs_attr attr;

	EXPECT_OK(bfs_rename(fs, NULL, a, "f", a, "f2", 0));
	EXPECT_EQ_INT(f, ino_of(fs, "a/f2"));
	EXPECT_ERR(-ENOENT, bfs_lookup(fs, NULL, a, "f", NULL));
	EXPECT_OK(bfs_rename(fs, NULL, a, "f2", b, "f", 0));
	EXPECT_EQ_INT(f, ino_of(fs, "b/f"));
	ASSERT_OK(bfs_getattr(fs, a, &attr));
	EXPECT_EQ_INT(1, attr.size);
	ASSERT_OK(bfs_getattr(fs, b, &attr));
	EXPECT_EQ_INT(3, attr.size);
	EXPECT_ERR(-ENOENT, bfs_rename(fs, NULL, a, "f", b, "x", 0));
	world_end(&w);
}

TEST(bfs_rename, an_existing_target_is_replaced_at_once)
{
	struct world w;
	struct bfs *fs = tree(&w);
	uint64_t a = ino_of(fs, "a"), b = ino_of(fs, "b"), f = ino_of(fs, "a/f"), g = ino_of(fs, "b/g");

	EXPECT_OK(bfs_rename(fs, NULL, a, "f", b, "g", 0));
	EXPECT_EQ_INT(f, ino_of(fs, "b/g"));
	EXPECT_ERR(-ENOENT, bfs_getattr(fs, g, &(struct bfs_attr){ 0 }));
	fs = world_remount(&w);
	EXPECT_EQ_INT(f, ino_of(fs, "b/g"));
	world_end(&w);
}

TEST(bfs_rename, a_replaced_file_in_use_lives_on)
{
	struct world w;
	struct bfs *fs = tree(&w);
	uint64_t a = ino_of(fs, "a"), b = ino_of(fs, "b"), g = ino_of(fs, "b/g");

	ASSERT_OK(bfs_ref(fs, g));
	EXPECT_OK(bfs_rename(fs, NULL, a, "f", b, "g", 0));
	EXPECT_EQ_INT(0, nlink_of(fs, g));
	bfs_unref(fs, g, 1);
	EXPECT_ERR(-ENOENT, bfs_ref(fs, g));
	world_end(&w);
}

TEST(bfs_rename, types_must_agree_and_directories_be_empty)
{
	struct world w;
	struct bfs *fs = tree(&w);
	uint64_t a = ino_of(fs, "a"), b = ino_of(fs, "b");

	EXPECT_ERR(-EISDIR, bfs_rename(fs, NULL, a, "f", b, "empty", 0));
	EXPECT_ERR(-ENOTDIR, bfs_rename(fs, NULL, a, "sub", b, "g", 0));
	EXPECT_ERR(-ENOTEMPTY, bfs_rename(fs, NULL, b, "empty", a, "sub", 0));
	EXPECT_ERR(-ENOTEMPTY, bfs_rename(fs, NULL, a, "sub", ROOT, "a", 0));
	EXPECT_OK(bfs_rename(fs, NULL, a, "sub", b, "empty", 0));
	EXPECT_EQ_INT(2, nlink_of(fs, a));
	EXPECT_EQ_INT(3, nlink_of(fs, b));
	world_end(&w);
}

TEST(bfs_rename, a_directory_never_moves_below_itself)
{
	struct world w;
	struct bfs *fs = tree(&w);
	uint64_t a = ino_of(fs, "a"), sub = ino_of(fs, "a/sub");
	uint64_t deeper = make_dir(fs, sub, "deeper");

	EXPECT_ERR(-EINVAL, bfs_rename(fs, NULL, ROOT, "a", a, "x", 0));
	EXPECT_ERR(-EINVAL, bfs_rename(fs, NULL, ROOT, "a", sub, "x", 0));
	EXPECT_ERR(-EINVAL, bfs_rename(fs, NULL, ROOT, "a", deeper, "x", 0));
	EXPECT_ERR(-EINVAL, bfs_rename(fs, NULL, ROOT, "a", sub, "deeper", RENAME_EXCHANGE));
	EXPECT_ERR(-EINVAL, bfs_rename(fs, NULL, sub, "deeper", ROOT, "a", RENAME_EXCHANGE));
	EXPECT_ERR(-EBUSY, bfs_rename(fs, NULL, a, "..", ROOT, "x", 0));
	EXPECT_ERR(-EBUSY, bfs_rename(fs, NULL, ROOT, "a", ROOT, ".", 0));
	EXPECT_OK(bfs_rename(fs, NULL, a, "sub", ROOT, "top", 0));
	EXPECT_OK(bfs_rename(fs, NULL, ROOT, "a", deeper, "a", 0));
	EXPECT_EQ_INT(a, ino_of(fs, "top/deeper/a"));
	EXPECT_EQ_INT(deeper, ino_of(fs, "top/deeper/a/.."));
	world_end(&w);
}

TEST(bfs_rename, noreplace_and_bad_flags)
{
	struct world w;
	struct bfs *fs = tree(&w);
	uint64_t a = ino_of(fs, "a"), b = ino_of(fs, "b");

	EXPECT_ERR(-EEXIST, bfs_rename(fs, NULL, a, "f", b, "g", RENAME_NOREPLACE));
	EXPECT_OK(bfs_rename(fs, NULL, a, "f", b, "h", RENAME_NOREPLACE));
	EXPECT_ERR(-EINVAL, bfs_rename(fs, NULL, b, "h", a, "f", RENAME_NOREPLACE | RENAME_EXCHANGE));
	EXPECT_ERR(-EINVAL, bfs_rename(fs, NULL, b, "h", a, "f", RENAME_WHITEOUT));
	EXPECT_ERR(-EEXIST, bfs_rename(fs, NULL, b, "h", a, ".", RENAME_NOREPLACE));
	world_end(&w);
}

TEST(bfs_rename, two_names_of_one_file_stay_as_they_are)
{
	struct world w;
	struct bfs *fs = tree(&w);
	uint64_t a = ino_of(fs, "a"), f = ino_of(fs, "a/f");

	ASSERT_OK(bfs_link(fs, NULL, f, a, "f2", 0, NULL));
	EXPECT_OK(bfs_rename(fs, NULL, a, "f", a, "f2", 0));
	EXPECT_OK(bfs_rename(fs, NULL, a, "f", a, "f", 0));
	EXPECT_OK(bfs_rename(fs, NULL, a, "f", a, "f2", RENAME_EXCHANGE));
	EXPECT_EQ_INT(f, ino_of(fs, "a/f"));
	EXPECT_EQ_INT(f, ino_of(fs, "a/f2"));
	EXPECT_EQ_INT(2, nlink_of(fs, f));
	world_end(&w);
}

TEST(bfs_rename, exchange_swaps_whatever_there_is)
{
	struct world w;
	struct bfs *fs = tree(&w);
	uint64_t a = ino_of(fs, "a"), b = ino_of(fs, "b"), f = ino_of(fs, "a/f"), g = ino_of(fs, "b/g");
	uint64_t sub = ino_of(fs, "a/sub"), empty = ino_of(fs, "b/empty");

	EXPECT_OK(bfs_rename(fs, NULL, a, "f", b, "g", RENAME_EXCHANGE));
	EXPECT_EQ_INT(g, ino_of(fs, "a/f"));
	EXPECT_EQ_INT(f, ino_of(fs, "b/g"));
	/* directories of two parents: each gets the other's ".." */
	EXPECT_OK(bfs_rename(fs, NULL, a, "sub", b, "empty", RENAME_EXCHANGE));
	EXPECT_EQ_INT(empty, ino_of(fs, "a/sub"));
	EXPECT_EQ_INT(a, ino_of(fs, "a/sub/.."));
	EXPECT_EQ_INT(b, ino_of(fs, "b/empty/.."));
	EXPECT_EQ_INT(3, nlink_of(fs, a));
	EXPECT_EQ_INT(3, nlink_of(fs, b));
	/* a directory against a file: the parents' link counts move */
	EXPECT_OK(bfs_rename(fs, NULL, a, "f", b, "empty", RENAME_EXCHANGE));
	EXPECT_EQ_INT(sub, ino_of(fs, "a/f"));
	EXPECT_EQ_INT(4, nlink_of(fs, a));
	EXPECT_EQ_INT(2, nlink_of(fs, b));
	EXPECT_ERR(-ENOENT, bfs_rename(fs, NULL, a, "f", b, "none", RENAME_EXCHANGE));
	fs = world_remount(&w);
	EXPECT_EQ_INT(sub, ino_of(fs, "a/f"));
	world_end(&w);
}

TEST(bfs_rename, is_there_entirely_or_not_at_all_after_a_crash)
{
	struct world w;
	struct bfs *fs = tree(&w);
	uint64_t a, b, f = ino_of(fs, "a/f");

	ASSERT_OK(bs_commit(bfs_store(fs), 0));
	ASSERT_OK(bfs_rename(fs, NULL, ino_of(fs, "a"), "f", ino_of(fs, "b"), "g", 0));
	fs = world_crash(&w);
	a = ino_of(fs, "a");
	b = ino_of(fs, "b");
	EXPECT_EQ_INT(f, ino_of(fs, "a/f"));
	EXPECT_NE_INT(f, ino_of(fs, "b/g"));
	ASSERT_OK(bfs_rename(fs, NULL, a, "f", b, "g", 0));
	ASSERT_OK(bs_commit(bfs_store(fs), 0));
	fs = world_crash(&w);
	EXPECT_EQ_INT(f, ino_of(fs, "b/g"));
	EXPECT_ERR(-ENOENT, bfs_lookup(fs, NULL, ino_of(fs, "a"), "f", NULL));
	world_end(&w);
}
