/* SPDX-License-Identifier: BSD-2-Clause */
/* Extended attributes and byte-range locks. */
#include <sys/xattr.h>

#include "test/unit/blobfs/names.h"

TEST(bfs_xattr, values_are_kept_replaced_listed_and_removed)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t f = make_file(fs, ROOT, "f");
	char buf[64];

	EXPECT_ERR(-ENODATA, bfs_getxattr(fs, f, "user.a", buf, sizeof(buf)));
	EXPECT_EQ_INT(0, bfs_listxattr(fs, f, buf, sizeof(buf)));
	EXPECT_OK(bfs_setxattr(fs, NULL, f, "user.a", "one", 3, 0));
	EXPECT_OK(bfs_setxattr(fs, NULL, f, "user.empty", NULL, 0, 0));
	EXPECT_ERR(-EEXIST, bfs_setxattr(fs, NULL, f, "user.a", "x", 1, XATTR_CREATE));
	EXPECT_ERR(-ENODATA, bfs_setxattr(fs, NULL, f, "user.b", "x", 1, XATTR_REPLACE));
	EXPECT_OK(bfs_setxattr(fs, NULL, f, "user.a", "four", 4, XATTR_REPLACE));
	fs = world_remount(&w);
	EXPECT_EQ_INT(4, bfs_getxattr(fs, f, "user.a", NULL, 0));
	EXPECT_ERR(-ERANGE, bfs_getxattr(fs, f, "user.a", buf, 3));
	ASSERT_EQ_INT(4, bfs_getxattr(fs, f, "user.a", buf, 4));
	EXPECT_EQ_MEM("four", buf, 4);
	EXPECT_EQ_INT(0, bfs_getxattr(fs, f, "user.empty", buf, sizeof(buf)));
	EXPECT_EQ_INT(18, bfs_listxattr(fs, f, NULL, 0));
	EXPECT_ERR(-ERANGE, bfs_listxattr(fs, f, buf, 17));
	ASSERT_EQ_INT(18, bfs_listxattr(fs, f, buf, 18));
	EXPECT_TRUE(!memcmp(buf, "user.a\0user.empty", 18) || !memcmp(buf, "user.empty\0user.a", 18));
	EXPECT_OK(bfs_removexattr(fs, NULL, f, "user.a"));
	EXPECT_ERR(-ENODATA, bfs_removexattr(fs, NULL, f, "user.a"));
	EXPECT_EQ_INT(11, bfs_listxattr(fs, f, buf, sizeof(buf)));
	world_end(&w);
}

TEST(bfs_xattr, limits_and_namespaces_hold)
{
	static const struct bfs_cred alice = { .uid = 1, .gid = 1 };
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t f = make_file(fs, ROOT, "f"), d = make_dir(fs, ROOT, "d");
	char *big = calloc(1, BFS_XATTR_SIZE_MAX + 1), name[300];
	struct bfs_attr link;

	memset(name, 'n', sizeof(name));
	memcpy(name, "user.", 5);
	name[256] = 0;
	EXPECT_ERR(-ERANGE, bfs_setxattr(fs, NULL, f, name, "", 0, 0));
	name[255] = 0;
	EXPECT_OK(bfs_setxattr(fs, NULL, f, name, big, BFS_XATTR_SIZE_MAX, 0));
	EXPECT_ERR(-E2BIG, bfs_setxattr(fs, NULL, f, "user.x", big, BFS_XATTR_SIZE_MAX + 1, 0));
	EXPECT_EQ_INT(BFS_XATTR_SIZE_MAX, bfs_getxattr(fs, f, name, big, BFS_XATTR_SIZE_MAX));
	EXPECT_ERR(-EOPNOTSUPP, bfs_setxattr(fs, NULL, f, "system.posix_acl_access", "", 0, 0));
	EXPECT_ERR(-EOPNOTSUPP, bfs_getxattr(fs, f, "none", NULL, 0));
	EXPECT_ERR(-EOPNOTSUPP, bfs_setxattr(fs, NULL, f, "user.", "", 0, 0));
	EXPECT_ERR(-EINVAL, bfs_setxattr(fs, NULL, f, "user.x", "", 0, 64));
	EXPECT_ERR(-EACCES, bfs_setxattr(fs, &alice, f, "user.x", "", 0, 0));
	EXPECT_ERR(-EPERM, bfs_setxattr(fs, &alice, f, "trusted.x", "", 0, 0));
	EXPECT_OK(bfs_setxattr(fs, NULL, d, "trusted.x", "v", 1, 0));
	EXPECT_OK(bfs_setxattr(fs, NULL, d, "security.selinux", "v", 1, 0));
	ASSERT_OK(bfs_symlink(fs, NULL, ROOT, "l", "f", 0, &link));
	EXPECT_ERR(-EPERM, bfs_setxattr(fs, NULL, link.ino, "user.x", "", 0, 0));
	EXPECT_OK(bfs_setxattr(fs, NULL, link.ino, "security.x", "", 0, 0));
	free(big);
	world_end(&w);
}

TEST(bfs_xattr, colliding_names_stay_apart)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 1);
	uint64_t f = make_file(fs, ROOT, "f");
	char name[16], value[16];

	for (int i = 0; i < 256; i++) {
		snprintf(name, sizeof(name), "user.%d", i);
		ASSERT_OK(bfs_setxattr(fs, NULL, f, name, name, strlen(name), 0));
	}
	EXPECT_ERR(-ENOSPC, bfs_setxattr(fs, NULL, f, "user.more", "", 0, 0));
	EXPECT_OK(bfs_removexattr(fs, NULL, f, "user.100"));
	EXPECT_OK(bfs_setxattr(fs, NULL, f, "user.more", "", 0, 0));
	for (int i = 0; i < 256; i++) {
		int len = snprintf(name, sizeof(name), "user.%d", i);

		if (i == 100)
			continue;
		ASSERT_EQ_INT(len, bfs_getxattr(fs, f, name, value, sizeof(value)));
		EXPECT_EQ_MEM(name, value, (size_t)len);
	}
	world_end(&w);
}

/* ---- locks ---- */

static int setlk(struct bfs *fs, uint64_t owner, uint64_t start, uint64_t end, int type)
{
	return bfs_setlk(fs, 5, &(struct bfs_lock){ .owner = owner, .start = start, .end = end, .type = type, .pid = 1 });
}

static uint64_t holder(struct bfs *fs, uint64_t at)
{
	struct bfs_lock lock = { .owner = 99, .start = at, .end = at, .type = F_WRLCK };

	ASSERT_OK(bfs_getlk(fs, 5, &lock));
	return lock.type == F_UNLCK ? 0 : lock.owner;
}

TEST(bfs_locks, readers_share_and_writers_exclude)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);

	EXPECT_OK(setlk(fs, 1, 0, 9, F_RDLCK));
	EXPECT_OK(setlk(fs, 2, 5, 14, F_RDLCK));
	EXPECT_ERR(-EAGAIN, setlk(fs, 3, 14, 20, F_WRLCK));
	EXPECT_OK(setlk(fs, 3, 15, UINT64_MAX, F_WRLCK));
	EXPECT_ERR(-EAGAIN, setlk(fs, 1, 0, UINT64_MAX, F_RDLCK));
	EXPECT_ERR(-EAGAIN, setlk(fs, 1, 5, 9, F_WRLCK));
	EXPECT_OK(setlk(fs, 1, 0, 4, F_WRLCK));
	EXPECT_EQ_INT(1, holder(fs, 0));
	EXPECT_EQ_INT(3, holder(fs, UINT64_MAX));
	bfs_unlock_all(fs, 5, 3);
	EXPECT_EQ_INT(0, holder(fs, 15));
	EXPECT_ERR(-EINVAL, setlk(fs, 1, 5, 4, F_RDLCK));
	EXPECT_ERR(-EINVAL, setlk(fs, 1, 0, 4, 77));
	world_end(&w);
}

TEST(bfs_locks, any_sequence_agrees_with_an_array)
{
	enum { BYTES = 40, OWNERS = 3 };
	int model[OWNERS][BYTES] = { { 0 } };
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);

	srand48((long)test_seed());
	for (int step = 0; step < 20000; step++) {
		uint64_t owner = (uint64_t)(lrand48() % OWNERS), a = (uint64_t)(lrand48() % BYTES);
		uint64_t b = a + (uint64_t)(lrand48() % 8);
		int type = (int[]){ F_RDLCK, F_WRLCK, F_UNLCK }[lrand48() % 3], want = 0;

		b = MIN(b, (uint64_t)BYTES - 1);
		for (uint64_t o = 0; o < OWNERS && type != F_UNLCK; o++) {
			for (uint64_t i = a; i <= b && o != owner; i++) {
				if (model[o][i] == 2 || (model[o][i] == 1 && type == F_WRLCK))
					want = -EAGAIN;
			}
		}
		ASSERT_EQ_INT(want, setlk(fs, owner + 1, a, b, type));
		for (uint64_t i = a; i <= b && !want; i++)
			model[owner][i] = type == F_UNLCK ? 0 : type == F_RDLCK ? 1 : 2;
		a = (uint64_t)(lrand48() % BYTES);
		want = model[0][a] || model[1][a] || model[2][a];
		ASSERT_EQ_INT(want, holder(fs, a) != 0);
	}
	for (uint64_t o = 1; o <= OWNERS; o++)
		bfs_unlock_all(fs, 5, o);
	EXPECT_EQ_INT(0, holder(fs, 3));
	world_end(&w);
}
