/* SPDX-License-Identifier: BSD-2-Clause */
/* Who may do what. */
#include <unistd.h>

#include "test/unit/blobfs/names.h"

static const uint32_t groups[] = { 50, 60 };
static const struct bfs_cred root = { 0 }, alice = { .uid = 1, .gid = 10, .groups = groups, .n_groups = 2 },
			     bob = { .uid = 2, .gid = 20 };

static void chmod_to(struct bfs *fs, uint64_t ino, uint32_t mode)
{
	ASSERT_OK(bfs_setattr(fs, NULL, ino, &(struct bfs_attr){ .mode = mode }, BFS_SET_MODE, NULL));
}

static void chown_to(struct bfs *fs, uint64_t ino, uint32_t uid, uint32_t gid)
{
	struct bfs_attr attr = { .uid = uid, .gid = gid };

	ASSERT_OK(bfs_setattr(fs, NULL, ino, &attr, BFS_SET_UID | BFS_SET_GID, NULL));
}

static uint32_t mode_of(struct bfs *fs, uint64_t ino)
{
	struct bfs_attr attr;

	ASSERT_OK(bfs_getattr(fs, ino, &attr));
	return attr.mode & 07777;
}

TEST(bfs_cred, access_follows_the_table)
{
	static const struct {
		uint32_t mode, uid, gid;
		const struct bfs_cred *cred;
		int mask, rc;
	} table[] = {
		{ 0600, 1, 10, &alice, R_OK | W_OK, 0 },
		{ 0600, 1, 10, &alice, X_OK, -EACCES },
		{ 0600, 1, 10, &bob, R_OK, -EACCES },
		{ 0077, 1, 10, &alice, R_OK, -EACCES }, /* the owner's bits decide for the owner */
		{ 0704, 9, 60, &alice, R_OK, -EACCES }, /* the group's bits for members */
		{ 0740, 9, 60, &alice, R_OK, 0 },
		{ 0740, 9, 60, &bob, R_OK, -EACCES },
		{ 0704, 9, 60, &bob, R_OK, 0 },
		{ 0000, 9, 9, &root, R_OK | W_OK, 0 },
		{ 0000, 9, 9, &root, X_OK, -EACCES },
		{ 0001, 9, 9, &root, X_OK, 0 },
		{ 0000, 9, 9, &bob, 0, 0 },
		{ 0000, 9, 9, NULL, X_OK, 0 },
		{ 0777, 9, 9, &bob, 64, -EINVAL },
	};
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t f = make_file(fs, ROOT, "f");

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		test_note("row %zu", i);
		chown_to(fs, f, table[i].uid, table[i].gid);
		chmod_to(fs, f, table[i].mode);
		EXPECT_EQ_INT(table[i].rc, bfs_access(fs, table[i].cred, f, table[i].mask));
	}
	test_note("%s", "");
	world_end(&w);
}

TEST(bfs_cred, directories_guard_their_names)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t d = make_dir(fs, ROOT, "d"), e = make_dir(fs, ROOT, "e"), f = make_file(fs, d, "f");

	chown_to(fs, d, 1, 10);
	chmod_to(fs, e, 0777);
	chmod_to(fs, d, 0744); /* others may list and not search */
	EXPECT_ERR(-EACCES, bfs_lookup(fs, &bob, d, "f", NULL));
	EXPECT_ERR(-EACCES, bfs_lookup(fs, &bob, d, "none", NULL));
	EXPECT_ERR(-EACCES, bfs_unlink(fs, &bob, d, "f"));
	EXPECT_ERR(-EACCES, bfs_resolve(fs, &bob, "/d/f", 0, NULL));
	chmod_to(fs, d, 0755); /* search and not write */
	EXPECT_OK(bfs_lookup(fs, &bob, d, "f", NULL));
	EXPECT_ERR(-ENOENT, bfs_unlink(fs, &bob, d, "none"));
	EXPECT_ERR(-EACCES, bfs_unlink(fs, &bob, d, "f"));
	EXPECT_ERR(-EACCES, bfs_mknod(fs, &bob, d, "g", S_IFREG | 0644, 0, 0, NULL));
	EXPECT_ERR(-EEXIST, bfs_mknod(fs, &bob, d, "f", S_IFREG | 0644, 0, 0, NULL));
	EXPECT_ERR(-EACCES, bfs_rename(fs, &bob, d, "f", e, "f", 0));
	EXPECT_ERR(-EACCES, bfs_link(fs, &bob, f, d, "g", 0, NULL));
	EXPECT_ERR(-EACCES, bfs_mkdir(fs, &bob, d, "g", 0755, 0, NULL));
	EXPECT_OK(bfs_unlink(fs, &alice, d, "f"));
	EXPECT_ERR(-EPERM, bfs_mknod(fs, &alice, d, "dev", S_IFBLK | 0600, 1, 0, NULL));
	EXPECT_OK(bfs_mknod(fs, &alice, d, "pipe", S_IFIFO | 0600, 0, 0, NULL));
	/* a directory of somebody else may not be given another parent */
	make_dir(fs, d, "theirs");
	EXPECT_ERR(-EACCES, bfs_rename(fs, &alice, d, "theirs", e, "mine", 0));
	EXPECT_OK(bfs_rename(fs, &alice, d, "theirs", d, "renamed", 0));
	world_end(&w);
}

TEST(bfs_cred, sticky_directories_keep_others_off)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t tmp = make_dir(fs, ROOT, "tmp");

	chmod_to(fs, tmp, 01777);
	ASSERT_OK(bfs_mknod(fs, &alice, tmp, "a", S_IFREG | 0666, 0, 0, NULL));
	ASSERT_OK(bfs_mknod(fs, &bob, tmp, "b", S_IFREG | 0666, 0, 0, NULL));
	EXPECT_ERR(-EPERM, bfs_unlink(fs, &bob, tmp, "a"));
	EXPECT_ERR(-EPERM, bfs_rename(fs, &bob, tmp, "a", tmp, "c", 0));
	EXPECT_ERR(-EPERM, bfs_rename(fs, &bob, tmp, "b", tmp, "a", 0));
	EXPECT_ERR(-EPERM, bfs_rename(fs, &bob, tmp, "b", tmp, "a", RENAME_EXCHANGE));
	EXPECT_OK(bfs_rename(fs, &bob, tmp, "b", tmp, "c", 0));
	EXPECT_OK(bfs_unlink(fs, &alice, tmp, "a"));
	EXPECT_OK(bfs_unlink(fs, &root, tmp, "c"));
	world_end(&w);
}

TEST(bfs_cred, new_inodes_take_owner_group_and_umask)
{
	struct bfs_cred cred = alice;
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t d = make_dir(fs, ROOT, "d");
	struct bfs_attr attr;

	cred.umask = 027;
	chmod_to(fs, d, 0777);
	ASSERT_OK(bfs_mknod(fs, &cred, d, "f", S_IFREG | 0666, 0, 0, &attr));
	EXPECT_EQ_INT(S_IFREG | 0640, attr.mode);
	EXPECT_EQ_INT(1, attr.uid);
	EXPECT_EQ_INT(10, attr.gid);
	ASSERT_OK(bfs_symlink(fs, &cred, d, "l", "f", 0, &attr));
	EXPECT_EQ_INT(S_IFLNK | 0777, attr.mode);
	/* setgid: the directory's group, and handed down */
	chown_to(fs, d, 0, 77);
	chmod_to(fs, d, 02777);
	ASSERT_OK(bfs_mkdir(fs, &cred, d, "sub", 0777, 0, &attr));
	EXPECT_EQ_INT(S_IFDIR | 02750, attr.mode);
	EXPECT_EQ_INT(77, attr.gid);
	ASSERT_OK(bfs_mknod(fs, &cred, d, "x", S_IFREG | 02770, 0, 0, &attr));
	EXPECT_EQ_INT(S_IFREG | 0750, attr.mode);
	EXPECT_EQ_INT(77, attr.gid);
	world_end(&w);
}

TEST(bfs_cred, setattr_is_for_owners)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t f = make_file(fs, ROOT, "f");
	struct bfs_attr attr = { .mode = 06755, .uid = 1, .gid = 60, .mtime = 5, .atime = 7 };

	chown_to(fs, f, 1, 10);
	chmod_to(fs, f, 0640);
	EXPECT_ERR(-EPERM, bfs_setattr(fs, &bob, f, &attr, BFS_SET_MODE, NULL));
	EXPECT_ERR(-EPERM, bfs_setattr(fs, &bob, f, &attr, BFS_SET_MTIME, NULL));
	EXPECT_ERR(-EACCES, bfs_setattr(fs, &bob, f, &attr, BFS_SET_MTIME_NOW, NULL));
	EXPECT_ERR(-EPERM, bfs_setattr(fs, &bob, f, &attr, BFS_SET_UID, NULL));
	EXPECT_OK(bfs_setattr(fs, &alice, f, &attr, BFS_SET_UID, NULL)); /* to oneself */
	attr.uid = 2;
	EXPECT_ERR(-EPERM, bfs_setattr(fs, &alice, f, &attr, BFS_SET_UID, NULL));
	EXPECT_OK(bfs_setattr(fs, &alice, f, &attr, BFS_SET_MODE, NULL));
	EXPECT_EQ_INT(06755, mode_of(fs, f));
	EXPECT_OK(bfs_setattr(fs, &alice, f, &attr, BFS_SET_GID, NULL));
	EXPECT_EQ_INT(0755, mode_of(fs, f)); /* suid and sgid went with the group */
	attr.gid = 99;
	EXPECT_ERR(-EPERM, bfs_setattr(fs, &alice, f, &attr, BFS_SET_GID, NULL));
	EXPECT_OK(bfs_setattr(fs, &alice, f, &attr, BFS_SET_ATIME | BFS_SET_MTIME, &attr));
	EXPECT_EQ_INT(5, attr.mtime);
	EXPECT_EQ_INT(7, attr.atime);
	EXPECT_GT_INT(attr.ctime, 7);
	EXPECT_ERR(-EINVAL, bfs_setattr(fs, NULL, f, &attr, 1u << 30, NULL));
	chmod_to(fs, f, 0666);
	EXPECT_OK(bfs_setattr(fs, &bob, f, &attr, BFS_SET_MTIME_NOW, &attr));
	EXPECT_GT_INT(attr.mtime, 5);
	/* sgid needs membership */
	chown_to(fs, f, 1, 99);
	attr.mode = 02777;
	EXPECT_OK(bfs_setattr(fs, &alice, f, &attr, BFS_SET_MODE, NULL));
	EXPECT_EQ_INT(0777, mode_of(fs, f));
	fs = world_remount(&w);
	ASSERT_OK(bfs_getattr(fs, f, &attr));
	EXPECT_EQ_INT(99, attr.gid);
	world_end(&w);
}
