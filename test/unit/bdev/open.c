/* SPDX-License-Identifier: BSD-2-Clause */
/* Opening: names, locks between processes and within one, sizes, forks, refusals. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "test/unit/bdev/devices.h"

static char path[64];

static void make_file(off_t size)
{
	int fd;

	snprintf(path, sizeof(path), "/tmp/bdev-open-%d.img", getpid());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	ASSERT_GE_INT(fd, 0);
	ASSERT_EQ_INT(0, ftruncate(fd, size));
	close(fd);
}

static int try_open(const char *name, uint32_t flags, struct bdev **out, struct base_err *err)
{
	struct bdev_opts opts = { .size = sizeof(opts), .flags = flags };

	return bdev_open(name, &opts, out, err);
}

static void expect_refused(int want, const char *name, uint32_t flags, const char *why)
{
	struct base_err err;
	struct bdev *dev;

	EXPECT_ERR(want, try_open(name, flags, &dev, &err));
	if (!strstr(err.text, why) || !strstr(err.text, name))
		FAIL("'%s' does not say '%s' of '%s'", err.text, why, name);
}

/* Runs fn in a forked child; its result is a small number. */
static int in_child(int (*fn)(void *arg), void *arg)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(fn(arg));
	ASSERT_EQ_INT(pid, waitpid(pid, &status, 0));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

TEST(bdev_open, names_that_are_no_device_are_refused_by_name)
{
	char fifo[80];

	make_file(10000);
	snprintf(fifo, sizeof(fifo), "%s.fifo", path);
	ASSERT_EQ_INT(0, mkfifo(fifo, 0600));
	expect_refused(-ENOENT, "/nonexistent/x", 0, "No such file");
	expect_refused(-EINVAL, "/tmp", 0, "is a directory");
	expect_refused(-EINVAL, fifo, 0, "neither a file nor a block device");
	expect_refused(-EINVAL, "/dev/null", 0, "neither a file nor a block device");
	expect_refused(-EINVAL, path, 0, "not a multiple");
	make_file(0);
	expect_refused(-EINVAL, path, 0, "is empty");
	expect_refused(-EINVAL, "ram:", 0, "size");
	expect_refused(-EINVAL, "ram:100", 0, "multiple of 512");
	expect_refused(-EINVAL, "ram:1M,colour=red", 0, "colour=red");
	EXPECT_ERR(-EINVAL, bdev_open("", NULL, &(struct bdev *){ NULL }, NULL));
	unlink(fifo);
	unlink(path);
}

TEST(bdev_open, a_missing_file_is_made_with_the_asked_size_and_not_left_behind_by_a_failure)
{
	struct bdev_opts opts = { .size = sizeof(opts),
				  .flags = BDEV_CREATE,
				  .create_size = 1 << 20 };
	struct bdev *dev;
	struct stat st;

	make_file(0);
	unlink(path);
	ASSERT_OK(bdev_open(path, &opts, &dev, NULL));
	EXPECT_EQ_INT(1 << 20, bdev_info(dev)->size);
	bdev_close(dev);
	/* One that is there keeps its size, unless it is empty. */
	opts.create_size = 2 << 20;
	ASSERT_OK(bdev_open(path, &opts, &dev, NULL));
	EXPECT_EQ_INT(1 << 20, bdev_info(dev)->size);
	bdev_close(dev);
	make_file(0);
	ASSERT_OK(bdev_open(path, &opts, &dev, NULL));
	EXPECT_EQ_INT(2 << 20, bdev_info(dev)->size);
	bdev_close(dev);
	unlink(path);
	opts.create_size = 1000;
	EXPECT_ERR(-EINVAL, bdev_open(path, &opts, &dev, NULL));
	EXPECT_EQ_INT(-1, stat(path, &st));
}

TEST(bdev_open, opening_twice_in_a_process_gives_one_device_counted)
{
	struct bdev *a, *b;
	struct base_err err;
	char other[80];

	make_file(1 << 20);
	snprintf(other, sizeof(other), "%s.link", path);
	unlink(other);
	ASSERT_EQ_INT(0, link(path, other));
	ASSERT_OK(try_open(path, 0, &a, NULL));
	ASSERT_OK(try_open(other, 0, &b, NULL));
	EXPECT_EQ_PTR(a, b);
	EXPECT_ERR(-EBUSY, try_open(path, BDEV_RDONLY, &b, &err));
	EXPECT_TRUE(strstr(err.text, "other options"));
	bdev_close(a);
	EXPECT_OK(dev_io(a, BDEV_FLUSH, NULL, 0, 0, 0));
	/* Looking on needs no lock, and is a device of its own. */
	ASSERT_OK(try_open(path, BDEV_NO_LOCK, &b, &err));
	EXPECT_TRUE(a != b && bdev_info(b)->readonly);
	bdev_close(b);
	bdev_close(a);
	unlink(other);
	unlink(path);
}

TEST(bdev_open, named_memory_is_kept_and_shared)
{
	struct bdev *a, *b;
	char *buf = buf_alloc(4096);

	ASSERT_OK(bdev_open("ram:1M,name=kept", NULL, &a, NULL));
	ASSERT_OK(bdev_open("ram:1M,name=kept", NULL, &b, NULL));
	EXPECT_EQ_PTR(a, b);
	memset(buf, 'k', 4096);
	ASSERT_OK(dev_io(a, BDEV_WRITE, buf, 0, 4096, 0));
	bdev_close(a);
	bdev_close(b);
	ASSERT_OK(bdev_open("ram:1M,name=kept", NULL, &a, NULL));
	ASSERT_OK(dev_io(a, BDEV_READ, buf, 0, 4096, 0));
	EXPECT_EQ_INT('k', buf[4095]);
	bdev_close(a);
	EXPECT_ERR(-EINVAL, bdev_open("ram:2M,name=kept", NULL, &a, NULL));
	free(buf);
}

static int open_code(void *arg)
{
	uint32_t flags = *(uint32_t *)arg;
	struct bdev *dev;
	int rc = try_open(path, flags, &dev, NULL);

	if (!rc)
		bdev_close(dev);
	return -rc;
}

static int child_open(uint32_t flags)
{
	return in_child(open_code, &flags);
}

FOR_EACH_MODULE(bdev_open, the_lock_keeps_other_processes_out)
{
	struct bdev *dev;

	if (!t->file || t->wrap)
		return;
	make_file(1 << 20);
	ASSERT_OK(try_open(path, t->flags, &dev, NULL));
	EXPECT_EQ_INT(EBUSY, child_open(t->flags));
	EXPECT_EQ_INT(EBUSY, child_open(BDEV_RDONLY));
	EXPECT_EQ_INT(0, child_open(BDEV_NO_LOCK));
	bdev_close(dev);
	ASSERT_OK(try_open(path, t->flags | BDEV_RDONLY, &dev, NULL));
	EXPECT_EQ_INT(EBUSY, child_open(0));
	EXPECT_EQ_INT(0, child_open(BDEV_RDONLY));
	bdev_close(dev);
	EXPECT_EQ_INT(0, child_open(0));
	unlink(path);
}

/* A locked descriptor that no process has: it is on its way through a socket. */
static void send_lock(const int ends[2])
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = open(path, O_RDWR | O_CLOEXEC);
	char byte = 0, control[CMSG_SPACE(sizeof(fd))] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	ASSERT_GE_INT(fd, 0);
	ASSERT_OK(fcntl(fd, F_OFD_SETLK, &lock));
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	ASSERT_EQ_INT(1, sendmsg(ends[0], &m, 0));
	close(fd);
}

static void *release_later(void *arg)
{
	const int *ends = arg;

	usleep(1200000);
	close(ends[0]);
	close(ends[1]);
	return NULL;
}

TEST(bdev_open, the_lock_of_the_dead_is_waited_for)
{
	struct bdev *dev;
	pthread_t thread;
	char name[64];
	int ends[2];

	make_file(1 << 20);
	ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
	send_lock(ends);
	if (bdev_lock_holder(path, name, sizeof(name)) == -EACCES)
		SKIP("other processes do not show their descriptors");
	EXPECT_EQ_INT(0, bdev_lock_holder(path, name, sizeof(name)));
	ASSERT_OK(pthread_create(&thread, NULL, release_later, ends));
	ASSERT_OK(try_open(path, 0, &dev, NULL));
	EXPECT_EQ_INT(getpid(), bdev_lock_holder(path, name, sizeof(name)));
	pthread_join(thread, NULL);
	bdev_close(dev);
	EXPECT_ERR(-ENOENT, bdev_lock_holder("/nowhere", name, sizeof(name)));
	unlink(path);
}

TEST(bdev_open, closing_releases_the_lock_though_a_child_lives_on)
{
	int ends[2], status;
	struct bdev *dev;
	pid_t pid;
	char c;

	make_file(1 << 20);
	ASSERT_OK(try_open(path, 0, &dev, NULL));
	ASSERT_EQ_INT(0, pipe(ends));
	pid = fork();
	if (!pid) {
		close(ends[1]);
		_exit(read(ends[0], &c, 1) != 0);
	}
	close(ends[0]);
	bdev_close(dev);
	EXPECT_EQ_INT(0, child_open(0));
	close(ends[1]);
	waitpid(pid, &status, 0);
	EXPECT_EQ_INT(0, status);
	unlink(path);
}

/* Writes until it is killed, much in flight. */
static void write_for_ever(const struct test_dev *t, int ready)
{
	struct bdev_channel *ch;
	struct bdev_io io[32];
	struct bdev *dev;
	struct tally tally = { 0 };
	char *buf = calloc(1, 65536);

	if (try_open(path, t->flags, &dev, NULL))
		_exit(1);
	ch = bdev_channel_borrow(dev);
	for (;;) {
		for (unsigned i = 0; i < 32; i++) {
			bdev_io_init_buf(&io[i], BDEV_WRITE, buf, i * 65536ull, 65536, tally_cb,
					 &tally);
			bdev_submit(ch, &io[i]);
		}
		bdev_kick(ch);
		if (write(ready, "x", 1) != 1)
			_exit(2);
		while (bdev_channel_inflight(ch))
			bdev_poll(ch);
	}
}

FOR_EACH_MODULE(bdev_open, a_killed_process_leaves_no_lock)
{
	if (!t->file || t->wrap)
		return;
	make_file(4 << 20);
	for (unsigned i = 0; i < 10; i++) {
		int ends[2], status;
		struct base_err err;
		struct bdev *dev;
		pid_t pid;
		char c;

		ASSERT_EQ_INT(0, pipe(ends));
		pid = fork();
		if (!pid)
			write_for_ever(t, ends[1]);
		close(ends[1]);
		ASSERT_EQ_INT(1, read(ends[0], &c, 1));
		kill(pid, SIGKILL);
		ASSERT_EQ_INT(pid, waitpid(pid, &status, 0));
		close(ends[0]);
		if (try_open(path, t->flags, &dev, &err))
			FAIL("%s", err.text);
		bdev_close(dev);
	}
	unlink(path);
}

FOR_EACH_MODULE(bdev_open, a_read_only_device_lets_nothing_through)
{
	char *buf = buf_alloc(4096);
	struct bdev *dev;

	dev_open(t, 0, 0);
	if (!*t->path) {
		dev_close(t);
		ASSERT_OK(try_open("ram:1M", BDEV_RDONLY, &dev, NULL));
	} else {
		bdev_close(t->dev);
		ASSERT_OK(try_open(t->path, t->flags | BDEV_RDONLY, &dev, NULL));
	}
	EXPECT_OK(dev_io(dev, BDEV_READ, buf, 0, 4096, 0));
	for (int op = BDEV_WRITE; op <= BDEV_WRITE_ZEROES; op++)
		EXPECT_ERR(-EROFS, dev_io(dev, (enum bdev_op)op, buf, 0, 4096, 0));
	bdev_close(dev);
	unlink(t->path);
	free(buf);
}

FOR_EACH_MODULE(bdev_open, a_file_that_grows_is_measured_anew_and_one_cut_short_gives_eio)
{
	char *buf = buf_alloc(8192);

	dev_open(t, 0, 0);
	if (*t->path) {
		EXPECT_ERR(-EINVAL, dev_io(t->dev, BDEV_READ, buf, DEV_SIZE, 4096, 0));
		ASSERT_EQ_INT(0, truncate(t->path, DEV_SIZE + 4096));
		ASSERT_OK(bdev_resize_check(t->dev));
		EXPECT_OK(dev_io(t->dev, BDEV_READ, buf, DEV_SIZE, 4096, 0));
		ASSERT_EQ_INT(0, truncate(t->path, 4096));
		EXPECT_ERR(-EIO, dev_io(t->dev, BDEV_READ, buf, 0, 8192, 0));
		EXPECT_ERR(-EIO, dev_io(t->dev, BDEV_READ, buf, 65536, 4096, 0));
	} else {
		EXPECT_OK(bdev_resize_check(t->dev));
	}
	dev_close(t);
	free(buf);
}

/* What a forked child finds: ENODEV for all, at once; and it may open anew. */
static int use_in_child(void *arg)
{
	struct bdev *dev = arg, *fresh;
	char *buf = calloc(1, 8 << 20);

	alarm(20);
	if (dev_io(dev, BDEV_READ, buf, 0, 4096, 0) != -ENODEV)
		return 1;
	if (dev_io(dev, BDEV_WRITE, buf + 1, 0, (8 << 20) - 4096, 0) != -ENODEV)
		return 2;
	if (bdev_resize_check(dev) != -ENODEV)
		return 3;
	if (bdev_open("ram:1M", NULL, &fresh, NULL) || dev_io(fresh, BDEV_READ, buf, 0, 4096, 0))
		return 4;
	bdev_close(fresh);
	bdev_close(dev);
	free(buf);
	return 0;
}

FOR_EACH_MODULE(bdev_open, in_a_forked_child_the_device_is_dead_and_nothing_hangs)
{
	char *buf = buf_alloc(4096);

	dev_open(t, 0, 0);
	ASSERT_OK(dev_io(t->dev, BDEV_WRITE, buf, 0, 4096, 0));
	EXPECT_EQ_INT(0, in_child(use_in_child, t->dev));
	/* And the parent's goes on. */
	EXPECT_OK(dev_io(t->dev, BDEV_READ, buf, 0, 4096, 0));
	dev_close(t);
	free(buf);
}

/* io_uring is forbidden, as in many containers. */
static int open_without_uring(void *arg)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { ARRAY_SIZE(code), code };
	char *buf = arg;
	struct bdev *dev;
	int rc;

	if (!freopen("/dev/null", "w", stderr) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		return 100;
	rc = try_open(path, 0, &dev, NULL);
	if (rc)
		return -rc;
	if (strcmp(bdev_info(dev)->module, "psync"))
		return 101;
	rc = dev_io(dev, BDEV_WRITE, buf, 0, 4096, BDEV_FUA);
	bdev_close(dev);
	return -rc;
}

TEST(bdev_open, where_io_uring_is_refused_threads_take_its_place)
{
	char *buf = buf_alloc(4096);

	make_file(1 << 20);
	EXPECT_EQ_INT(0, in_child(open_without_uring, buf));
	unlink(path);
	free(buf);
}

TEST(bdev_open, every_failed_allocation_fails_the_open_and_nothing_else)
{
	static const char *const names[] = { "ram:1M", path, "ram:1M,name=short" };
	struct bdev *dev;

	make_file(1 << 20);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		int rc = -ENOMEM;
		uint64_t nth;

		for (nth = 1; rc == -ENOMEM && nth < 50; nth++) {
			base_fail_alloc_after(nth);
			rc = try_open(names[i], i == 1 && nth % 2 ? BDEV_PSYNC : 0, &dev, NULL);
			base_fail_alloc_after(0);
		}
		ASSERT_OK(rc);
		EXPECT_GT_INT(nth, 3);
		bdev_close(dev);
	}
	unlink(path);
}
