/* SPDX-License-Identifier: BSD-2-Clause */
/* The kernel's users and the library's users of one live file system. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/fuse/mnt.h"
#include "test/shim/test.h"

static struct bfs_file *lib_open(const char *path)
{
	struct bfs_file *f = NULL;

	ASSERT_OK(bfs_open_path(mnt_fs, NULL, path, O_CREAT | O_RDWR, 0666, BS_STREAM_UNKNOWN, &f));
	return f;
}

TEST(fuse_beside, sizes_and_data_of_library_writes_are_never_stale)
{
	struct bfs_file *f;
	char text[64], buf[64];
	struct stat st;
	int fd;

	mnt_up(BFS_FUSE_BESIDE, 0);
	f = lib_open("/log");
	fd = open(mnt_path("log"), O_RDWR | O_APPEND);
	ASSERT_GE_INT(fd, 0);
	for (int i = 0; i < 200; i++) {
		int n = snprintf(text, sizeof(text), "line %d\n", i);
		uint64_t at = bfs_file_size(f);

		ASSERT_EQ_INT(n, bfs_append(f, text, (size_t)n));
		ASSERT_EQ_INT(0, fstat(fd, &st));
		ASSERT_EQ_INT(at + (uint64_t)n, st.st_size);
		ASSERT_EQ_INT(n, pread(fd, buf, sizeof(buf), (off_t)at));
		ASSERT_EQ_MEM(text, buf, n);
		/* And an append of the kernel's goes behind it. */
		ASSERT_EQ_INT(2, write(fd, "k\n", 2));
		ASSERT_EQ_INT(2, bfs_pread(f, buf, sizeof(buf), at + (uint64_t)n));
		ASSERT_EQ_MEM("k\n", buf, 2);
	}
	ASSERT_EQ_INT(4, bfs_pwrite(f, "LINE", 4, 0));
	ASSERT_EQ_INT(4, pread(fd, buf, 4, 0));
	EXPECT_EQ_MEM("LINE", buf, 4);
	close(fd);
	bfs_close(f);
	mnt_down();
}

TEST(fuse_beside, names_made_and_removed_by_the_library_are_seen_at_once)
{
	struct stat st;
	int fd;

	mnt_up(BFS_FUSE_BESIDE, 0);
	for (int i = 0; i < 50; i++) {
		EXPECT_EQ_INT(-1, stat(mnt_path("n"), &st));
		bfs_close(lib_open("/n"));
		EXPECT_EQ_INT(0, stat(mnt_path("n"), &st));
		fd = open(mnt_path("n"), O_CREAT | O_WRONLY, 0644);
		EXPECT_GE_INT(fd, 0);
		close(fd);
		EXPECT_EQ_INT(-1, open(mnt_path("n"), O_CREAT | O_EXCL | O_WRONLY, 0644));
		EXPECT_EQ_INT(EEXIST, errno);
		ASSERT_OK(bfs_unlink(mnt_fs, NULL, BFS_ROOT_INO, "n"));
	}
	mnt_down();
}

static struct flock whole(short type)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET };
}

TEST(fuse_beside, locks_of_library_and_kernel_exclude_each_other)
{
	struct bfs_lock lk = { .owner = 1, .start = 0, .end = 99, .type = F_WRLCK, .pid = 7 };
	struct flock fl = whole(F_WRLCK);
	struct bfs_file *f;
	int fd;

	mnt_up(BFS_FUSE_BESIDE, 0);
	f = lib_open("/db");
	fd = open(mnt_path("db"), O_RDWR);
	ASSERT_GE_INT(fd, 0);
	ASSERT_OK(bfs_setlk(mnt_fs, bfs_file_ino(f), &lk));
	EXPECT_EQ_INT(-1, fcntl(fd, F_SETLK, &fl));
	EXPECT_EQ_INT(EAGAIN, errno);
	ASSERT_EQ_INT(0, fcntl(fd, F_GETLK, &fl));
	EXPECT_EQ_INT(F_WRLCK, fl.l_type);
	EXPECT_EQ_INT(100, fl.l_len);
	lk.type = F_UNLCK;
	ASSERT_OK(bfs_setlk(mnt_fs, bfs_file_ino(f), &lk));
	fl = whole(F_WRLCK);
	ASSERT_EQ_INT(0, fcntl(fd, F_SETLK, &fl));
	lk.type = F_RDLCK;
	EXPECT_ERR(-EAGAIN, bfs_setlk(mnt_fs, bfs_file_ino(f), &lk));
	/* Closing lets go. */
	close(fd);
	EXPECT_OK(bfs_setlk(mnt_fs, bfs_file_ino(f), &lk));
	bfs_unlock_all(mnt_fs, bfs_file_ino(f), 1);
	bfs_close(f);
	mnt_down();
}

static int wait_for_lock(void)
{
	struct flock fl = whole(F_WRLCK);
	int fd = open(mnt_path("db"), O_RDWR);

	return fd >= 0 && !fcntl(fd, F_SETLKW, &fl) ? 0 : errno == EINTR ? 2 : 1;
}

static void on_alarm(int sig)
{
	(void)sig;
}

static int wait_with_alarm(void)
{
	struct sigaction sa = { .sa_handler = on_alarm };

	sigaction(SIGALRM, &sa, NULL);
	alarm(1);
	return wait_for_lock();
}

static pid_t start_child(int (*fn)(void))
{
	pid_t pid = fork();

	if (!pid)
		_exit(fn());
	return pid;
}

TEST(fuse_beside, a_waiter_gets_the_lock_when_the_library_lets_go)
{
	struct bfs_lock lk = { .owner = 1, .start = 0, .end = INT64_MAX, .type = F_WRLCK };
	struct bfs_file *f;
	int status = -1;
	pid_t pid;

	mnt_up(BFS_FUSE_BESIDE, 2);
	f = lib_open("/db");
	ASSERT_OK(bfs_setlk(mnt_fs, bfs_file_ino(f), &lk));
	pid = start_child(wait_for_lock);
	usleep(200000);
	EXPECT_EQ_INT(0, waitpid(pid, &status, WNOHANG));
	lk.type = F_UNLCK;
	ASSERT_OK(bfs_setlk(mnt_fs, bfs_file_ino(f), &lk));
	ASSERT_EQ_INT(pid, waitpid(pid, &status, 0));
	EXPECT_EQ_INT(0, WEXITSTATUS(status));
	bfs_close(f);
	mnt_down();
}

TEST(fuse_beside, a_signal_ends_the_wait_for_a_lock)
{
	struct bfs_lock lk = { .owner = 1, .start = 0, .end = INT64_MAX, .type = F_WRLCK };
	struct bfs_file *f;
	int status = -1;
	pid_t pid;

	mnt_up(BFS_FUSE_BESIDE, 2);
	f = lib_open("/db");
	ASSERT_OK(bfs_setlk(mnt_fs, bfs_file_ino(f), &lk));
	pid = start_child(wait_with_alarm);
	ASSERT_EQ_INT(pid, waitpid(pid, &status, 0));
	EXPECT_EQ_INT(2, WEXITSTATUS(status));
	bfs_unlock_all(mnt_fs, bfs_file_ino(f), 1);
	bfs_close(f);
	mnt_down();
}

static void *lib_writer(void *arg)
{
	static char block[10000];
	struct bfs_file *f = arg;

	memset(block, 'w', sizeof(block));
	for (int i = 0; i < 300; i++)
		if (bfs_append(f, block, sizeof(block)) != sizeof(block))
			return arg;
	return NULL;
}

TEST(fuse_beside, readers_follow_a_growing_file)
{
	static char buf[100000];
	struct bfs_file *f;
	uint64_t seen = 0;
	pthread_t thread;
	void *bad;
	int fd;

	mnt_up(BFS_FUSE_BESIDE, 0);
	f = lib_open("/grow");
	fd = open(mnt_path("grow"), O_RDONLY);
	ASSERT_GE_INT(fd, 0);
	ASSERT_EQ_INT(0, pthread_create(&thread, NULL, lib_writer, f));
	while (seen < 3000000) {
		ssize_t n = read(fd, buf, sizeof(buf));

		ASSERT_GE_INT(n, 0);
		for (ssize_t i = 0; i < n; i++)
			if (buf[i] != 'w')
				FAIL("byte %llu is %d", (unsigned long long)seen + (unsigned long long)i, buf[i]);
		seen += (uint64_t)n;
	}
	pthread_join(thread, &bad);
	EXPECT_TRUE(!bad);
	close(fd);
	bfs_close(f);
	mnt_down();
}
