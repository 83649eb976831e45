/* SPDX-License-Identifier: BSD-2-Clause */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "test/fuse/mnt.h"
#include "test/shim/test.h"

static void make(const char *name, const char *text)
{
	int fd = open(mnt_path(name), O_CREAT | O_WRONLY | O_TRUNC, 0644);

	ASSERT_GE_INT(fd, 0);
	ASSERT_EQ_INT(strlen(text), write(fd, text, strlen(text)));
	ASSERT_EQ_INT(0, close(fd));
}

static const char *content(const char *name)
{
	static char buf[256];
	int fd = open(mnt_path(name), O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return strerror(errno);
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	buf[n > 0 ? n : 0] = '\0';
	return buf;
}

static ino_t ino_of(const char *name)
{
	struct stat st;

	return lstat(mnt_path(name), &st) ? 0 : st.st_ino;
}

static void renames(void)
{
	make("a", "A");
	make("b", "B");
	EXPECT_EQ_INT(-1, renameat2(-1, mnt_path("a"), -1, mnt_path("b"), RENAME_NOREPLACE));
	EXPECT_EQ_INT(EEXIST, errno);
	EXPECT_EQ_INT(0, renameat2(-1, mnt_path("a"), -1, mnt_path("b"), RENAME_EXCHANGE));
	EXPECT_STREQ("B", content("a"));
	EXPECT_STREQ("A", content("b"));
	EXPECT_EQ_INT(0, rename(mnt_path("a"), mnt_path("b")));
	EXPECT_STREQ("B", content("b"));
	EXPECT_STREQ("No such file or directory", content("a"));
	ASSERT_EQ_INT(0, mkdir(mnt_path("d"), 0755));
	ASSERT_EQ_INT(0, mkdir(mnt_path("d/e"), 0755));
	EXPECT_EQ_INT(-1, rename(mnt_path("d"), mnt_path("d/e/f")));
	EXPECT_EQ_INT(EINVAL, errno);
	EXPECT_EQ_INT(-1, rename(mnt_path("b"), mnt_path("d")));
	EXPECT_EQ_INT(EISDIR, errno);
	EXPECT_EQ_INT(-1, rmdir(mnt_path("d")));
	EXPECT_EQ_INT(ENOTEMPTY, errno);
	EXPECT_EQ_INT(0, rename(mnt_path("d/e"), mnt_path("e")));
	EXPECT_EQ_INT(0, rmdir(mnt_path("d")));
}

TEST(fuse_names, renames_replace_exchange_and_refuse)
{
	mnt_up(BFS_FUSE_SOLE, 0);
	renames();
	mnt_down();
}

TEST(fuse_names, renames_are_the_same_beside_a_library_user)
{
	mnt_up(BFS_FUSE_BESIDE, 2);
	renames();
	mnt_down();
}

TEST(fuse_names, links_count_and_symlinks_resolve)
{
	char target[4096], back[4096];
	struct stat st;

	mnt_up(BFS_FUSE_SOLE, 0);
	make("f", "text");
	ASSERT_EQ_INT(0, link(mnt_path("f"), mnt_path("g")));
	ASSERT_EQ_INT(0, stat(mnt_path("f"), &st));
	EXPECT_EQ_INT(2, st.st_nlink);
	EXPECT_EQ_INT(ino_of("f"), ino_of("g"));
	ASSERT_EQ_INT(0, unlink(mnt_path("f")));
	ASSERT_EQ_INT(0, stat(mnt_path("g"), &st));
	EXPECT_EQ_INT(1, st.st_nlink);
	EXPECT_STREQ("text", content("g"));
	ASSERT_EQ_INT(0, symlink("g", mnt_path("s")));
	EXPECT_STREQ("text", content("s"));
	memset(target, 'x', sizeof(target));
	target[4095] = '\0';
	ASSERT_EQ_INT(0, symlink(target, mnt_path("long")));
	EXPECT_EQ_INT(4095, readlink(mnt_path("long"), back, sizeof(back)));
	EXPECT_EQ_MEM(target, back, 4095);
	mnt_down();
}

TEST(fuse_names, an_unlinked_file_lives_while_it_is_open)
{
	char buf[16];
	struct stat st;
	int fd;

	mnt_up(BFS_FUSE_SOLE, 0);
	make("f", "still here");
	fd = open(mnt_path("f"), O_RDWR);
	ASSERT_GE_INT(fd, 0);
	ASSERT_EQ_INT(0, unlink(mnt_path("f")));
	ASSERT_EQ_INT(10, pread(fd, buf, 16, 0));
	EXPECT_EQ_MEM("still here", buf, 10);
	ASSERT_EQ_INT(4, pwrite(fd, "more", 4, 10));
	ASSERT_EQ_INT(0, fsync(fd));
	ASSERT_EQ_INT(0, fstat(fd, &st));
	EXPECT_EQ_INT(14, st.st_size);
	EXPECT_EQ_INT(0, st.st_nlink);
	close(fd);
	mnt_down();
}

TEST(fuse_names, special_files_keep_their_kind)
{
	struct stat st;

	mnt_up(BFS_FUSE_SOLE, 0);
	ASSERT_EQ_INT(0, mkfifo(mnt_path("fifo"), 0600));
	ASSERT_EQ_INT(0, stat(mnt_path("fifo"), &st));
	EXPECT_TRUE(S_ISFIFO(st.st_mode));
	if (!geteuid()) {
		ASSERT_EQ_INT(0, mknod(mnt_path("null"), S_IFCHR | 0666, makedev(1, 3)));
		ASSERT_EQ_INT(0, stat(mnt_path("null"), &st));
		EXPECT_TRUE(S_ISCHR(st.st_mode));
		EXPECT_EQ_INT(makedev(1, 3), st.st_rdev);
	}
	mnt_down();
}

/* Every name is seen once although half of them go while the directory is read. */
static void list_while_removing(void)
{
	static unsigned char seen[2000];
	char name[64];
	struct dirent *e;
	int n = 0;
	DIR *d;

	memset(seen, 0, sizeof(seen));
	ASSERT_EQ_INT(0, mkdir(mnt_path("d"), 0755));
	for (int i = 0; i < 2000; i++) {
		snprintf(name, sizeof(name), "d/%d", i);
		make(name, "");
	}
	d = opendir(mnt_path("d"));
	ASSERT_TRUE(d);
	while ((e = readdir(d))) {
		int i = atoi(e->d_name);

		if (e->d_name[0] == '.')
			continue;
		EXPECT_EQ_INT(0, seen[i]);
		seen[i] = 1;
		n++;
		if (i % 2) {
			snprintf(name, sizeof(name), "d/%d", i);
			ASSERT_EQ_INT(0, unlink(mnt_path(name)));
		}
	}
	EXPECT_EQ_INT(2000, n);
	rewinddir(d);
	for (n = 0; (e = readdir(d));)
		n += e->d_name[0] != '.';
	EXPECT_EQ_INT(1000, n);
	closedir(d);
}

TEST(fuse_names, a_directory_is_listed_while_names_go)
{
	mnt_up(BFS_FUSE_SOLE, 0);
	list_while_removing();
	mnt_down();
	mnt_up(BFS_FUSE_BESIDE, 0);
	list_while_removing();
	mnt_down();
}

TEST(fuse_names, telldir_leads_back_to_the_same_place)
{
	char name[64], want[256];
	struct dirent *e;
	long at = 0;
	DIR *d;

	mnt_up(BFS_FUSE_SOLE, 0);
	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "%d", i);
		make(name, "");
	}
	d = opendir(mnt_dir);
	ASSERT_TRUE(d);
	for (int i = 0; i < 250; i++)
		ASSERT_TRUE(readdir(d));
	at = telldir(d);
	e = readdir(d);
	ASSERT_TRUE(e);
	strcpy(want, e->d_name);
	while (readdir(d))
		;
	seekdir(d, at);
	e = readdir(d);
	ASSERT_TRUE(e);
	EXPECT_STREQ(want, e->d_name);
	closedir(d);
	mnt_down();
}

TEST(fuse_names, too_long_and_wrong_names_are_refused)
{
	char name[300];

	mnt_up(BFS_FUSE_SOLE, 0);
	memset(name, 'n', sizeof(name));
	name[256] = '\0';
	EXPECT_EQ_INT(-1, mkdir(mnt_path(name), 0755));
	EXPECT_EQ_INT(ENAMETOOLONG, errno);
	name[255] = '\0';
	EXPECT_EQ_INT(0, mkdir(mnt_path(name), 0755));
	EXPECT_EQ_INT(-1, mkdir(mnt_path(name), 0755));
	EXPECT_EQ_INT(EEXIST, errno);
	EXPECT_EQ_INT(-1, unlink(mnt_path("none")));
	EXPECT_EQ_INT(ENOENT, errno);
	EXPECT_EQ_INT(-1, open(mnt_path("none/x"), O_RDONLY));
	EXPECT_EQ_INT(ENOENT, errno);
	make("f", "");
	EXPECT_EQ_INT(-1, open(mnt_path("f/x"), O_RDONLY));
	EXPECT_EQ_INT(ENOTDIR, errno);
	mnt_down();
}
