/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/util.h"
#include "test/fuse/mnt.h"
#include "test/shim/test.h"

#define USER 65534

static void make(const char *name, mode_t mode)
{
	int fd = open(mnt_path(name), O_CREAT | O_WRONLY, 0644);

	ASSERT_GE_INT(fd, 0);
	close(fd);
	ASSERT_EQ_INT(0, chmod(mnt_path(name), mode));
}

static struct stat status(const char *name)
{
	struct stat st = { 0 };

	ASSERT_EQ_INT(0, lstat(mnt_path(name), &st));
	return st;
}

static void need_root(void)
{
	if (geteuid())
		SKIP("needs root");
}

TEST(fuse_attrs, times_keep_their_nanoseconds_and_centuries)
{
	struct timespec t[2] = { { 1234567890, 123456789 }, { -1000000000, 1 } };
	struct stat st;

	mnt_up(BFS_FUSE_SOLE, 0);
	make("f", 0644);
	ASSERT_EQ_INT(0, utimensat(AT_FDCWD, mnt_path("f"), t, 0));
	st = status("f");
	EXPECT_EQ_INT(1234567890, st.st_atim.tv_sec);
	EXPECT_EQ_INT(123456789, st.st_atim.tv_nsec);
	EXPECT_EQ_INT(-1000000000, st.st_mtim.tv_sec);
	EXPECT_EQ_INT(1, st.st_mtim.tv_nsec);
	t[0].tv_nsec = UTIME_OMIT;
	t[1].tv_nsec = UTIME_NOW;
	ASSERT_EQ_INT(0, utimensat(AT_FDCWD, mnt_path("f"), t, 0));
	st = status("f");
	EXPECT_EQ_INT(1234567890, st.st_atim.tv_sec);
	EXPECT_GT_INT(st.st_mtim.tv_sec, 1500000000);
	mnt_down();
}

TEST(fuse_attrs, a_write_changes_mtime_also_after_it_was_set)
{
	struct timespec t[2] = { { 1000, 0 }, { 1000, 0 } };
	int fd;

	mnt_up(BFS_FUSE_SOLE, 0);
	make("f", 0644);
	fd = open(mnt_path("f"), O_WRONLY);
	ASSERT_EQ_INT(1, write(fd, "x", 1));
	ASSERT_EQ_INT(0, futimens(fd, t));
	close(fd);
	EXPECT_EQ_INT(1000, status("f").st_mtim.tv_sec);
	fd = open(mnt_path("f"), O_WRONLY);
	ASSERT_EQ_INT(1, write(fd, "x", 1));
	close(fd);
	EXPECT_GT_INT(status("f").st_mtim.tv_sec, 1000);
	mnt_down();
}

static int try_forbidden(void)
{
	if (open(mnt_path("secret"), O_RDONLY) >= 0 || errno != EACCES)
		return 1;
	if (open(mnt_path("readable"), O_WRONLY) >= 0 || errno != EACCES)
		return 2;
	if (unlink(mnt_path("closed/f")) == 0 || errno != EACCES)
		return 3;
	if (chmod(mnt_path("readable"), 0777) == 0 || errno != EPERM)
		return 4;
	if (chown(mnt_path("readable"), USER, USER) == 0 || errno != EPERM)
		return 5;
	if (unlink(mnt_path("sticky/f")) == 0 || errno != EPERM)
		return 6;
	if (open(mnt_path("readable"), O_RDONLY) < 0)
		return 7;
	if (setxattr(mnt_path("readable"), "trusted.x", "v", 1, 0) == 0 || errno != EPERM)
		return 8;
	return 0;
}

TEST(fuse_attrs, another_user_may_do_what_the_modes_say)
{
	need_root();
	mnt_up(BFS_FUSE_SOLE, 0);
	ASSERT_EQ_INT(0, chmod(mnt_dir, 0755));
	make("secret", 0600);
	make("readable", 0644);
	ASSERT_EQ_INT(0, mkdir(mnt_path("closed"), 0755));
	make("closed/f", 0666);
	ASSERT_EQ_INT(0, mkdir(mnt_path("sticky"), 0755));
	ASSERT_EQ_INT(0, chmod(mnt_path("sticky"), 01777));
	make("sticky/f", 0666);
	EXPECT_EQ_INT(0, mnt_as_user(USER, try_forbidden));
	mnt_down();
}

static int make_own(void)
{
	int fd;

	umask(027);
	fd = open(mnt_path("own"), O_CREAT | O_EXCL | O_WRONLY, 0666);
	if (fd < 0 || close(fd))
		return 1;
	return mkdir(mnt_path("owndir"), 0777) ? 2 : symlink("x", mnt_path("ownlink")) ? 3 : 0;
}

TEST(fuse_attrs, what_a_user_makes_is_the_users_under_the_umask)
{
	struct stat st;

	need_root();
	mnt_up(BFS_FUSE_SOLE, 0);
	ASSERT_EQ_INT(0, chmod(mnt_dir, 0777));
	ASSERT_EQ_INT(0, mnt_as_user(USER, make_own));
	st = status("own");
	EXPECT_EQ_INT(USER, st.st_uid);
	EXPECT_EQ_INT(USER, st.st_gid);
	EXPECT_EQ_INT(S_IFREG | 0640, st.st_mode);
	EXPECT_EQ_INT(S_IFDIR | 0750, status("owndir").st_mode);
	EXPECT_EQ_INT(USER, status("ownlink").st_uid);
	mnt_down();
}

static int write_suid(void)
{
	int fd = open(mnt_path("suid"), O_WRONLY);

	return fd >= 0 && write(fd, "x", 1) == 1 && !close(fd) ? 0 : 1;
}

static int truncate_suid(void)
{
	return truncate(mnt_path("suid"), 10) ? 1 : 0;
}

TEST(fuse_attrs, a_users_write_or_truncation_takes_suid_away_and_roots_does_not)
{
	need_root();
	mnt_up(BFS_FUSE_SOLE, 0);
	make("suid", 06777);
	ASSERT_EQ_INT(0, write_suid());
	EXPECT_EQ_INT(S_IFREG | 06777, status("suid").st_mode);
	ASSERT_EQ_INT(0, mnt_as_user(USER, write_suid));
	EXPECT_EQ_INT(S_IFREG | 0777, status("suid").st_mode);
	ASSERT_EQ_INT(0, chmod(mnt_path("suid"), 06777));
	ASSERT_EQ_INT(0, mnt_as_user(USER, truncate_suid));
	EXPECT_EQ_INT(S_IFREG | 0777, status("suid").st_mode);
	ASSERT_EQ_INT(0, chmod(mnt_path("suid"), 06777));
	ASSERT_EQ_INT(0, chown(mnt_path("suid"), USER, USER));
	EXPECT_EQ_INT(S_IFREG | 0777, status("suid").st_mode);
	mnt_down();
}

TEST(fuse_attrs, writing_takes_file_capabilities_away)
{
	/* cap_net_raw+ep, as setcap(8) writes it */
	static const unsigned char cap[20] = { 1, 0, 0, 2, 0, 0x20 };
	char back[20];

	need_root();
	for (int mode = BFS_FUSE_SOLE; mode <= BFS_FUSE_BESIDE; mode++) {
		mnt_up((enum bfs_fuse_mode)mode, 0);
		make("suid", 0777);
		ASSERT_EQ_INT(0, setxattr(mnt_path("suid"), "security.capability", cap, sizeof(cap), 0));
		ASSERT_EQ_INT(20, getxattr(mnt_path("suid"), "security.capability", back, sizeof(back)));
		ASSERT_EQ_INT(0, mnt_as_user(USER, write_suid));
		EXPECT_EQ_INT(-1, getxattr(mnt_path("suid"), "security.capability", back, sizeof(back)));
		EXPECT_EQ_INT(ENODATA, errno);
		ASSERT_EQ_INT(0, setxattr(mnt_path("suid"), "security.capability", cap, sizeof(cap), 0));
		ASSERT_EQ_INT(0, truncate(mnt_path("suid"), 0));
		EXPECT_EQ_INT(-1, getxattr(mnt_path("suid"), "security.capability", back, sizeof(back)));
		mnt_down();
	}
}

TEST(fuse_attrs, extended_attributes_are_kept_listed_and_removed)
{
	static char big[65000], back[65536];
	ssize_t n;

	mnt_up(BFS_FUSE_SOLE, 0);
	make("f", 0644);
	memset(big, 'b', sizeof(big));
	ASSERT_EQ_INT(0, setxattr(mnt_path("f"), "user.small", "v", 1, XATTR_CREATE));
	EXPECT_EQ_INT(-1, setxattr(mnt_path("f"), "user.small", "w", 1, XATTR_CREATE));
	EXPECT_EQ_INT(EEXIST, errno);
	ASSERT_EQ_INT(0, setxattr(mnt_path("f"), "user.big", big, sizeof(big), 0));
	EXPECT_EQ_INT(65000, getxattr(mnt_path("f"), "user.big", NULL, 0));
	EXPECT_EQ_INT(65000, getxattr(mnt_path("f"), "user.big", back, sizeof(back)));
	EXPECT_EQ_MEM(big, back, sizeof(big));
	EXPECT_EQ_INT(-1, getxattr(mnt_path("f"), "user.big", back, 10));
	EXPECT_EQ_INT(ERANGE, errno);
	n = listxattr(mnt_path("f"), back, sizeof(back));
	EXPECT_EQ_INT(strlen("user.small") + 1 + strlen("user.big") + 1, n);
	ASSERT_EQ_INT(0, removexattr(mnt_path("f"), "user.big"));
	EXPECT_EQ_INT(-1, removexattr(mnt_path("f"), "user.big"));
	EXPECT_EQ_INT(ENODATA, errno);
	EXPECT_EQ_INT(-1, setxattr(mnt_path("f"), "system.posix_acl_access", big, 44, 0));
	EXPECT_EQ_INT(EOPNOTSUPP, errno);
	mnt_down();
}

TEST(fuse_attrs, statfs_tells_the_space_and_the_longest_name)
{
	struct statvfs st;

	mnt_up(BFS_FUSE_SOLE, 0);
	ASSERT_EQ_INT(0, statvfs(mnt_dir, &st));
	EXPECT_EQ_INT(255, st.f_namemax);
	EXPECT_LE_INT(st.f_blocks * st.f_frsize, 256 << 20);
	EXPECT_GT_INT(st.f_bavail * st.f_frsize, 100 << 20);
	EXPECT_GT_INT(st.f_ffree, 0);
	mnt_down();
}
