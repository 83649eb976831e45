/* SPDX-License-Identifier: BSD-2-Clause */
/* A real block device (a loop device over a file): needs root, is skipped without. */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/unit/bdev/devices.h"

#define LOOP_SIZE (8 << 20)

struct loop {
	int number, fd;
	char name[32], backing[64];
};

static bool attach(struct loop *l)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), file;

	if (control < 0)
		return false;
	l->number = ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	snprintf(l->name, sizeof(l->name), "/dev/loop%d", l->number);
	snprintf(l->backing, sizeof(l->backing), "/tmp/bdev-loop-%d.img", getpid());
	l->fd = l->number < 0 ? -1 : open(l->name, O_RDWR | O_CLOEXEC);
	file = open(l->backing, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (l->fd < 0 || file < 0 || ftruncate(file, LOOP_SIZE) ||
	    ioctl(l->fd, LOOP_SET_FD, file)) {
		close(l->fd);
		close(file);
		unlink(l->backing);
		return false;
	}
	close(file);
	return true;
}

static void detach(struct loop *l)
{
	ioctl(l->fd, LOOP_CLR_FD);
	close(l->fd);
	unlink(l->backing);
}

/* Flushes the device has had: the 16th number of its statistics. */
static unsigned long flushes(const struct loop *l)
{
	char path[64];
	unsigned long n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/block/loop%d/stat", l->number);
	f = fopen(path, "re");
	ASSERT_TRUE(f);
	for (int i = 0; i < 16; i++)
		ASSERT_EQ_INT(1, fscanf(f, "%lu", &n));
	fclose(f);
	return n;
}

static int open_in_child(const char *name)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct bdev *dev;

		_exit(-bdev_open(name, NULL, &dev, NULL));
	}
	ASSERT_EQ_INT(pid, waitpid(pid, &status, 0));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000;
}

static void use(const struct loop *l, uint32_t flags)
{
	struct bdev_opts opts = { .size = sizeof(opts), .flags = flags };
	char *a = buf_alloc(1 << 20), *b = buf_alloc(1 << 20), *zero = calloc(1, 1 << 20);
	struct base_err err;
	struct bdev *dev;
	unsigned long before;

	if (bdev_open(l->name, &opts, &dev, &err))
		FAIL("%s", err.text);
	EXPECT_EQ_INT(LOOP_SIZE, bdev_info(dev)->size);
	EXPECT_EQ_INT(EBUSY, open_in_child(l->name));
	EXPECT_TRUE(bdev_info(dev)->volatile_cache);
	buf_fill(a, 1 << 20, flags);
	before = flushes(l);
	ASSERT_OK(dev_io(dev, BDEV_WRITE, a, 4096, 1 << 20, 0));
	EXPECT_EQ_INT(before, flushes(l));
	ASSERT_OK(dev_io(dev, BDEV_FLUSH, NULL, 0, 0, 0));
	EXPECT_EQ_INT(before + 1, flushes(l));
	ASSERT_OK(dev_io(dev, BDEV_WRITE, a, 4096, 4096, BDEV_FUA));
	EXPECT_GT_INT(flushes(l), before + 1);
	ASSERT_OK(dev_io(dev, BDEV_WRITE_ZEROES, NULL, 8192, 65536, 0));
	ASSERT_OK(dev_io(dev, BDEV_DISCARD, NULL, 512 << 10, 65536, 0));
	ASSERT_OK(dev_io(dev, BDEV_READ, b, 4096, 1 << 20, 0));
	EXPECT_EQ_MEM(a, b, 4096);
	EXPECT_EQ_MEM(zero, b + 4096, 65536);
	EXPECT_EQ_MEM(a + 4096 + 65536, b + 4096 + 65536, 4096);
	bdev_close(dev);
	/* Free for others at once. */
	EXPECT_EQ_INT(0, open_in_child(l->name));
	free(zero);
	free(a);
	free(b);
}

TEST(bdev_block, a_loop_device_is_flushed_discarded_zeroed_and_claimed)
{
	struct loop l;

	if (!attach(&l))
		SKIP("no loop device can be made");
	use(&l, 0);
	use(&l, BDEV_PSYNC);
	detach(&l);
}

TEST(bdev_block, a_discard_beside_waiters_completes_through_the_worker)
{
	struct tally tally = { 0 };
	struct bdev_channel *ch;
	struct bdev_io io[40];
	struct bdev *dev;
	struct loop l;
	char *buf = buf_alloc(4096);

	if (!attach(&l))
		SKIP("no loop device can be made");
	ASSERT_OK(bdev_open(l.name, NULL, &dev, NULL));
	ch = bdev_channel_borrow(dev);
	for (unsigned i = 0; i < 40; i++) {
		bdev_io_init_buf(&io[i], i % 2 ? BDEV_DISCARD : BDEV_READ, buf, i * 4096ull, 4096,
				 tally_cb, &tally);
		bdev_submit(ch, &io[i]);
		if (i % 8 == 7)
			ASSERT_OK(bdev_io_sync(ch, BDEV_WRITE_ZEROES, NULL, 1 << 20, 4096, 0));
	}
	tally_wait(ch, &tally, 40);
	EXPECT_OK(tally.rc);
	bdev_channel_return(ch);
	bdev_close(dev);
	detach(&l);
	free(buf);
}
