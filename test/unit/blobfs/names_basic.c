/* SPDX-License-Identifier: BSD-2-Clause */
/* Names as calls see them: what each call does, and which errors it gives. */
#include "test/unit/blobfs/names.h"

TEST(bfs_names, a_new_file_system_has_an_empty_root)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	struct bfs_statfs st;
	struct bfs_attr attr;

	ASSERT_OK(bfs_getattr(fs, ROOT, &attr));
	EXPECT_EQ_INT(S_IFDIR | 0755, attr.mode);
	EXPECT_EQ_INT(2, attr.nlink);
	EXPECT_EQ_INT(0, attr.size);
	ASSERT_OK(bfs_get_statfs(fs, &st));
	EXPECT_STREQ("test", st.label);
	EXPECT_EQ_INT(1, st.files);
	EXPECT_EQ_INT(255, st.name_max);
	EXPECT_ERR(-ENOENT, bfs_rmdir(fs, NULL, ROOT, "x"));
	world_end(&w);
}

TEST(bfs_names, what_was_made_is_there_after_a_remount)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t d = make_dir(fs, ROOT, "d"), f = make_file(fs, d, "f");
	struct bfs_attr attr;
	char target[16];

	ASSERT_OK(bfs_symlink(fs, NULL, d, "l", "../d/f", 0, NULL));
	ASSERT_OK(bfs_mknod(fs, NULL, d, "dev", S_IFCHR | 0600, 0x0103, 0, NULL));
	ASSERT_OK(bfs_link(fs, NULL, f, ROOT, "hard", 0, &attr));
	EXPECT_EQ_INT(2, attr.nlink);
	fs = world_remount(&w);
	EXPECT_EQ_INT(f, ino_of(fs, "/d/f"));
	EXPECT_EQ_INT(f, ino_of(fs, "//hard"));
	ASSERT_OK(bfs_resolve(fs, NULL, "d/l", 0, &attr));
	EXPECT_EQ_INT(f, attr.ino);
	ASSERT_OK(bfs_resolve(fs, NULL, "d/l", BFS_NOFOLLOW, &attr));
	EXPECT_EQ_INT(S_IFLNK | 0777, attr.mode);
	EXPECT_EQ_INT(6, attr.size);
	ASSERT_EQ_INT(6, bfs_readlink(fs, attr.ino, target, sizeof(target)));
	EXPECT_EQ_MEM("../d/f", target, 6);
	EXPECT_ERR(-ERANGE, bfs_readlink(fs, attr.ino, target, 5));
	EXPECT_ERR(-EINVAL, bfs_readlink(fs, f, target, sizeof(target)));
	ASSERT_OK(bfs_resolve(fs, NULL, "d/dev", 0, &attr));
	EXPECT_EQ_INT(S_IFCHR | 0600, attr.mode);
	EXPECT_EQ_INT(0x0103, attr.rdev);
	EXPECT_EQ_INT(3, nlink_of(fs, ROOT));
	world_end(&w);
}

TEST(bfs_names, names_that_cannot_be_are_refused)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t f = make_file(fs, ROOT, "f");
	char name[300];

	memset(name, 'n', sizeof(name));
	name[256] = 0;
	EXPECT_ERR(-ENAMETOOLONG, bfs_mknod(fs, NULL, ROOT, name, S_IFREG, 0, 0, NULL));
	EXPECT_ERR(-ENAMETOOLONG, bfs_lookup(fs, NULL, ROOT, name, NULL));
	EXPECT_ERR(-ENAMETOOLONG, bfs_unlink(fs, NULL, ROOT, name));
	EXPECT_ERR(-ENAMETOOLONG, bfs_rename(fs, NULL, ROOT, "f", ROOT, name, 0));
	name[255] = 0;
	EXPECT_OK(bfs_mknod(fs, NULL, ROOT, name, S_IFREG, 0, 0, NULL));
	EXPECT_OK(bfs_lookup(fs, NULL, ROOT, name, NULL));
	EXPECT_ERR(-ENOENT, bfs_mkdir(fs, NULL, ROOT, "", 0755, 0, NULL));
	EXPECT_ERR(-EINVAL, bfs_mkdir(fs, NULL, ROOT, "a/b", 0755, 0, NULL));
	EXPECT_ERR(-EEXIST, bfs_mkdir(fs, NULL, ROOT, ".", 0755, 0, NULL));
	EXPECT_ERR(-EEXIST, bfs_mknod(fs, NULL, ROOT, "..", S_IFREG, 0, 0, NULL));
	EXPECT_ERR(-EEXIST, bfs_mknod(fs, NULL, ROOT, "f", S_IFREG, 0, 0, NULL));
	EXPECT_ERR(-EEXIST, bfs_symlink(fs, NULL, ROOT, "f", "x", 0, NULL));
	EXPECT_ERR(-EEXIST, bfs_link(fs, NULL, f, ROOT, "f", 0, NULL));
	EXPECT_ERR(-ENOENT, bfs_symlink(fs, NULL, ROOT, "s", "", 0, NULL));
	EXPECT_ERR(-EPERM, bfs_mknod(fs, NULL, ROOT, "m", S_IFDIR, 0, 0, NULL));
	EXPECT_ERR(-EINVAL, bfs_mknod(fs, NULL, ROOT, "m", S_IFLNK, 0, 0, NULL));
	world_end(&w);
}

TEST(bfs_names, what_is_no_directory_holds_no_names)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t f = make_file(fs, ROOT, "f");

	EXPECT_ERR(-ENOTDIR, bfs_lookup(fs, NULL, f, "x", NULL));
	EXPECT_ERR(-ENOTDIR, bfs_lookup(fs, NULL, f, ".", NULL));
	EXPECT_ERR(-ENOTDIR, bfs_mknod(fs, NULL, f, "x", S_IFREG, 0, 0, NULL));
	EXPECT_ERR(-ENOTDIR, bfs_unlink(fs, NULL, f, "x"));
	EXPECT_ERR(-ENOTDIR, bfs_rename(fs, NULL, ROOT, "f", f, "x", 0));
	EXPECT_ERR(-ENOTDIR, bfs_rmdir(fs, NULL, ROOT, "f"));
	EXPECT_ERR(-ENOTDIR, bfs_readdir(fs, f, 0, false, NULL, NULL));
	EXPECT_ERR(-ENOENT, bfs_lookup(fs, NULL, 12345, "x", NULL));
	EXPECT_ERR(-ENOENT, bfs_mknod(fs, NULL, 12345, "x", S_IFREG, 0, 0, NULL));
	EXPECT_ERR(-ENOENT, bfs_getattr(fs, 0, &(struct bfs_attr){ 0 }));
	EXPECT_ERR(-ENOENT, bfs_ref(fs, UINT64_MAX));
	world_end(&w);
}

TEST(bfs_names, directories_go_only_when_empty)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t d = make_dir(fs, ROOT, "d");

	make_dir(fs, d, "e");
	EXPECT_EQ_INT(3, nlink_of(fs, d));
	EXPECT_ERR(-ENOTEMPTY, bfs_rmdir(fs, NULL, ROOT, "d"));
	EXPECT_ERR(-EISDIR, bfs_unlink(fs, NULL, ROOT, "d"));
	EXPECT_ERR(-EINVAL, bfs_rmdir(fs, NULL, d, "."));
	EXPECT_ERR(-ENOTEMPTY, bfs_rmdir(fs, NULL, d, ".."));
	EXPECT_OK(bfs_rmdir(fs, NULL, d, "e"));
	EXPECT_EQ_INT(2, nlink_of(fs, d));
	EXPECT_OK(bfs_rmdir(fs, NULL, ROOT, "d"));
	EXPECT_EQ_INT(2, nlink_of(fs, ROOT));
	EXPECT_ERR(-ENOENT, bfs_getattr(fs, d, &(struct bfs_attr){ 0 }));
	EXPECT_ERR(-EPERM, bfs_link(fs, NULL, make_dir(fs, ROOT, "x"), ROOT, "y", 0, NULL));
	world_end(&w);
}

TEST(bfs_names, a_removed_directory_in_use_takes_no_names)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t d = make_dir(fs, ROOT, "d"), f = make_file(fs, ROOT, "f");

	ASSERT_OK(bfs_ref(fs, d));
	ASSERT_OK(bfs_rmdir(fs, NULL, ROOT, "d"));
	EXPECT_ERR(-ENOENT, bfs_mknod(fs, NULL, d, "x", S_IFREG, 0, 0, NULL));
	EXPECT_ERR(-ENOENT, bfs_mkdir(fs, NULL, d, "x", 0755, 0, NULL));
	EXPECT_ERR(-ENOENT, bfs_link(fs, NULL, f, d, "x", 0, NULL));
	EXPECT_ERR(-ENOENT, bfs_rename(fs, NULL, ROOT, "f", d, "x", 0));
	EXPECT_EQ_INT(0, nlink_of(fs, d));
	bfs_unref(fs, d, 1);
	EXPECT_ERR(-ENOENT, bfs_getattr(fs, d, &(struct bfs_attr){ 0 }));
	world_end(&w);
}

TEST(bfs_names, a_file_has_at_most_link_max_names)
{
	struct world w;
	struct bfs *fs = world_make(&w, "256M", 0);
	uint64_t f = make_file(fs, ROOT, "f");
	char name[16];

	for (unsigned i = 1; i < BFS_LINK_MAX; i++) {
		snprintf(name, sizeof(name), "l%u", i);
		ASSERT_OK(bfs_link(fs, NULL, f, ROOT, name, 0, NULL));
	}
	EXPECT_ERR(-EMLINK, bfs_link(fs, NULL, f, ROOT, "more", 0, NULL));
	EXPECT_EQ_INT(BFS_LINK_MAX, nlink_of(fs, f));
	EXPECT_OK(bfs_unlink(fs, NULL, ROOT, "l7"));
	EXPECT_OK(bfs_link(fs, NULL, f, ROOT, "more", 0, NULL));
	world_end(&w);
}

TEST(bfs_paths, symlinks_are_followed_and_loops_end)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t d = make_dir(fs, ROOT, "d"), f = make_file(fs, d, "f"), dir;
	char name[BFS_NAME_MAX + 1];
	struct bfs_attr attr;

	ASSERT_OK(bfs_symlink(fs, NULL, ROOT, "abs", "/d", 0, NULL));
	ASSERT_OK(bfs_symlink(fs, NULL, d, "up", "../abs/./", 0, NULL));
	ASSERT_OK(bfs_symlink(fs, NULL, ROOT, "loop", "loop", 0, NULL));
	ASSERT_OK(bfs_symlink(fs, NULL, ROOT, "none", "nothing", 0, NULL));
	EXPECT_EQ_INT(f, ino_of(fs, "abs/up/up/../d/f"));
	EXPECT_EQ_INT(d, ino_of(fs, "abs/"));
	EXPECT_EQ_INT(ROOT, ino_of(fs, "/../.."));
	EXPECT_ERR(-ELOOP, bfs_resolve(fs, NULL, "loop", 0, &attr));
	EXPECT_OK(bfs_resolve(fs, NULL, "loop", BFS_NOFOLLOW, &attr));
	EXPECT_ERR(-ENOENT, bfs_resolve(fs, NULL, "none", 0, &attr));
	EXPECT_ERR(-ENOENT, bfs_resolve(fs, NULL, "", 0, &attr));
	EXPECT_ERR(-ENOTDIR, bfs_resolve(fs, NULL, "d/f/", 0, &attr));
	EXPECT_ERR(-ENOTDIR, bfs_resolve(fs, NULL, "d/f/x", 0, &attr));
	EXPECT_ERR(-EBUSY, bfs_resolve_parent(fs, NULL, "/", &dir, name));
	EXPECT_ERR(-ENOENT, bfs_resolve_parent(fs, NULL, "x/y", &dir, name));
	ASSERT_OK(bfs_resolve_parent(fs, NULL, "abs/new/", &dir, name));
	EXPECT_EQ_INT(d, dir);
	EXPECT_STREQ("new", name);
	EXPECT_OK(bfs_make_path(fs, NULL, "/abs/a/b//c/", 0700));
	EXPECT_OK(bfs_make_path(fs, NULL, "d/a/b/c", 0700));
	EXPECT_ERR(-ENOTDIR, bfs_make_path(fs, NULL, "d/f/c", 0700));
	EXPECT_ERR(-ENOTDIR, bfs_make_path(fs, NULL, "d/f", 0700));
	world_end(&w);
}

TEST(bfs_paths, long_paths_work_up_to_the_limit)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	char path[BFS_PATH_MAX + 8];
	struct bfs_attr attr;

	/* 4095 bytes: 819 times "abcd/" */
	path[0] = 0;
	for (int i = 0; i < 819; i++)
		memcpy(path + 5 * i, "abcd/", 6);
	EXPECT_OK(bfs_make_path(fs, NULL, path, 0755));
	EXPECT_OK(bfs_resolve(fs, NULL, path, 0, &attr));
	strcat(path, "a");
	EXPECT_ERR(-ENAMETOOLONG, bfs_resolve(fs, NULL, path, 0, &attr));
	world_end(&w);
}

TEST(bfs_names, an_unlinked_inode_lives_while_referenced)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t f = make_file(fs, ROOT, "f");
	struct bfs_statfs st;

	ASSERT_OK(bfs_ref(fs, f));
	ASSERT_OK(bfs_ref(fs, f));
	ASSERT_OK(bfs_unlink(fs, NULL, ROOT, "f"));
	EXPECT_ERR(-ENOENT, bfs_lookup(fs, NULL, ROOT, "f", NULL));
	EXPECT_EQ_INT(0, nlink_of(fs, f));
	EXPECT_ERR(-ENOENT, bfs_link(fs, NULL, f, ROOT, "again", 0, NULL));
	EXPECT_OK(bfs_setattr(fs, NULL, f, &(struct bfs_attr){ .mode = 0600 }, BFS_SET_MODE, NULL));
	bfs_unref(fs, f, 1);
	EXPECT_EQ_INT(0, nlink_of(fs, f));
	bfs_unref(fs, f, 1);
	EXPECT_ERR(-ENOENT, bfs_ref(fs, f));
	ASSERT_OK(bfs_get_statfs(fs, &st));
	EXPECT_EQ_INT(1, st.files);
	world_end(&w);
}

TEST(bfs_names, orphans_are_gone_after_a_crash)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t f = make_file(fs, ROOT, "f"), d = make_dir(fs, ROOT, "d");
	struct bfs_check_result result;
	struct bfs_statfs st;

	ASSERT_OK(bfs_ref(fs, f));
	ASSERT_OK(bfs_ref(fs, d));
	ASSERT_OK(bfs_unlink(fs, NULL, ROOT, "f"));
	ASSERT_OK(bfs_rmdir(fs, NULL, ROOT, "d"));
	ASSERT_OK(bs_commit(bfs_store(fs), 0));
	bfs_abandon(fs);
	world_check(&w, &result);
	EXPECT_EQ_INT(0, result.problems);
	EXPECT_EQ_INT(2, result.orphans);
	fs = world_mount(&w, BFS_RDONLY | BFS_NO_SERVICE);
	EXPECT_ERR(-ENOENT, bfs_getattr(fs, f, &(struct bfs_attr){ 0 }));
	ASSERT_OK(bfs_unmount(fs));
	fs = world_mount(&w, BFS_NO_SERVICE);
	ASSERT_OK(bfs_get_statfs(fs, &st));
	EXPECT_EQ_INT(1, st.files);
	world_end(&w);
}

TEST(bfs_names, references_left_at_unmount_lose_nothing_and_leave_no_orphan)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t f = make_file(fs, ROOT, "f"), g = make_file(fs, ROOT, "g");
	struct bfs_check_result result;

	ASSERT_OK(bfs_ref(fs, f));
	ASSERT_OK(bfs_ref(fs, g));
	ASSERT_OK(bfs_unlink(fs, NULL, ROOT, "g"));
	ASSERT_OK(bfs_unmount(fs));
	world_check(&w, &result);
	EXPECT_EQ_INT(0, result.problems);
	EXPECT_EQ_INT(0, result.orphans);
	EXPECT_EQ_INT(1, result.files);
	fs = world_mount(&w, BFS_NO_SERVICE);
	EXPECT_EQ_INT(f, ino_of(fs, "f"));
	world_end(&w);
}
