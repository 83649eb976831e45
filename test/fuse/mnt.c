/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <grp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "test/common/temp.h"
#include "test/common/testdev.h"
#include "test/fuse/mnt.h"
#include "test/shim/test.h"

struct bfs *mnt_fs;
const char *mnt_dir;

static char dir_name[TEMP_PATH];
static struct bfs_fuse *served;
static bool at_exit;
static struct bdev *keeper; /* the memory outlives the mount, to be checked */
static char device[64];

/*
 * A process that waits for a request it should answer itself cannot even be killed. So a mount that lives too long has its
 * connection aborted (that is what MNT_FORCE means here), and whoever waits gets an error.
 */
#define PATIENCE_S 20
static pthread_t watchdog;
static pthread_mutex_t watch_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t watch_end = PTHREAD_COND_INITIALIZER;
static bool watch_over;

static void *watch(void *arg)
{
	struct timespec until;
	bool over;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	pthread_mutex_lock(&watch_lock);
	while (!watch_over && !pthread_cond_timedwait(&watch_end, &watch_lock, &until))
		;
	over = watch_over;
	pthread_mutex_unlock(&watch_lock);
	if (!over) {
		fprintf(stderr, "%s: no end after %d s: aborted\n", dir_name, PATIENCE_S);
		umount2(dir_name, MNT_FORCE);
	}
	return arg;
}

static void watch_start(void)
{
	watch_over = false;
	ASSERT_EQ_INT(0, pthread_create(&watchdog, NULL, watch, NULL));
}

static void watch_stop(void)
{
	pthread_mutex_lock(&watch_lock);
	watch_over = true;
	pthread_cond_signal(&watch_end);
	pthread_mutex_unlock(&watch_lock);
	pthread_join(watchdog, NULL);
}

static void on_problem(const struct bs_problem *problem, void *arg)
{
	(void)arg;
	fprintf(stderr, "check: %s\n", problem->text);
}

static void check(void)
{
	struct bfs_check_opts opts = { .size = sizeof(opts), .report = on_problem };
	struct bfs_check_result res = { 0 };
	struct base_err err = { "" };
	struct bdev *dev;

	ASSERT_OK(bdev_open(device, NULL, &dev, &err));
	EXPECT_OK(bfs_check(dev, &opts, &res, &err));
	EXPECT_EQ_INT(0, res.problems);
	EXPECT_EQ_INT(0, res.orphans);
}

void mnt_up(enum bfs_fuse_mode mode, unsigned int reactors)
{
	struct bfs_format_opts format = { .size = sizeof(format), .root_mode = 0777 };
	struct bfs_fuse_opts opts = { .size = sizeof(opts), .mode = mode, .reactors = reactors };
	struct base_err err = { "" };
	int rc;

	/* A failed test left it behind. */
	mnt_down();
	if (access("/dev/fuse", R_OK | W_OK))
		SKIP("/dev/fuse cannot be used");
	ASSERT_TRUE(temp_dir(dir_name, "blobfs-fuse"));
	mnt_dir = dir_name;
	umask(022);
	testdev_name("ram:256M,name=fusetest", device, sizeof(device));
	ASSERT_OK(bdev_open(device, NULL, &keeper, &err));
	ASSERT_OK(bfs_format(keeper, &format, &err));
	rc = bfs_mount(device, NULL, &mnt_fs, &err);
	if (rc)
		FAIL("bfs_mount: %s", err.text);
	rc = bfs_fuse_start(mnt_fs, mnt_dir, &opts, &served, &err);
	if (rc) {
		bfs_unmount(mnt_fs);
		bdev_close(keeper);
		rmdir(dir_name);
		if (rc == -EPERM)
			SKIP("mounting is not allowed here");
		FAIL("bfs_fuse_start: %s", err.text);
	}
	watch_start();
	if (!at_exit)
		at_exit = !atexit(mnt_down);
}

void mnt_down(void)
{
	if (!served)
		return;
	EXPECT_OK(bfs_fuse_stop(served));
	served = NULL;
	watch_stop();
	EXPECT_OK(bfs_unmount(mnt_fs));
	check();
	bdev_close(keeper);
	EXPECT_EQ_INT(0, rmdir(dir_name));
}

const char *mnt_path(const char *name)
{
	static char paths[8][512];
	static unsigned int turn;
	char *p = paths[turn++ % 8];

	snprintf(p, sizeof(paths[0]), "%s/%s", mnt_dir, name);
	return p;
}

int mnt_as_user(unsigned int id, int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		if (setgroups(0, NULL) || setresgid(id, id, id) || setresuid(id, id, id))
			_exit(99);
		_exit(fn());
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || !WIFEXITED(status))
		return 100;
	return WEXITSTATUS(status);
}

static void *call(void *arg)
{
	(*(void (**)(void))arg)();
	return NULL;
}

/* Told the directory, once it is mounted; told nothing, it never will be. */
static void child(int told, void (*fn)(void))
{
	pthread_t thread;

	if (read(told, dir_name, sizeof(dir_name)) != sizeof(dir_name))
		_exit(3);
	mnt_dir = dir_name;
	/* A failed ASSERT_ leaves a test by longjmp, but only ends a thread of its own. */
	if (pthread_create(&thread, NULL, call, &fn) || pthread_join(thread, NULL))
		_exit(2);
	_exit(test_has_failed());
}

void mnt_run(enum bfs_fuse_mode mode, unsigned int reactors, void (*fn)(void))
{
	int ends[2], status = 1;
	pid_t pid;

	/* A failed test left it behind. */
	mnt_down();
	ASSERT_EQ_INT(0, pipe(ends));
	pid = fork();
	if (!pid) {
		close(ends[1]);
		child(ends[0], fn);
	}
	ASSERT_TRUE(pid > 0);
	close(ends[0]);
	mnt_up(mode, reactors);
	ASSERT_EQ_INT(sizeof(dir_name), write(ends[1], dir_name, sizeof(dir_name)));
	close(ends[1]);
	ASSERT_EQ_INT(pid, waitpid(pid, &status, 0));
	EXPECT_EQ_INT(0, status);
	mnt_down();
}
