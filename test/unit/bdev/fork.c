/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A process that forks while its threads are at work: no lock is left held, no child hangs, no I/O is lost. Not under the
 * address sanitizer, whose allocator does not survive such a fork: the copy of a thread that was inside it keeps its locks.
 */
#ifndef __SANITIZE_ADDRESS__
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/unit/bdev/devices.h"

#define WORKERS 4
#define FORKS 10

struct worker {
	pthread_t thread;
	struct bdev *dev;
	atomic_bool *stop;
	unsigned index;
	int rc;
};

/* Whole, split and bounced I/O, so that a fork hits every lock now and then. */
static void *work(void *arg)
{
	struct worker *w = arg;
	char *buf = buf_alloc((2 << 20) + 4096);

	for (unsigned i = 0; !w->rc && !atomic_load(w->stop); i++) {
		uint64_t at = w->index * (4ull << 20);

		w->rc = dev_io(w->dev, BDEV_WRITE, buf + i % 2, at, i % 8 ? 4096 : 2 << 20, 0);
		if (!w->rc && i % 5 == 0)
			w->rc = dev_io(w->dev, BDEV_WRITE_ZEROES, NULL, at, 8192, 0);
		/* What powercut records makes a fork slow. */
		if (i % 8 == 0)
			poll(NULL, 0, 1);
	}
	free(buf);
	return NULL;
}

static int child(struct bdev *dev)
{
	struct bdev *fresh;
	char *buf = buf_alloc(8192);

	/* A hang is a failure. */
	alarm(30);
	for (unsigned i = 0; i < 3; i++)
		if (dev_io(dev, BDEV_READ, buf + i, 0, 8192 - 4096, 0) != -ENODEV)
			return 1;
	if (bdev_open("ram:1M", NULL, &fresh, NULL) || dev_io(fresh, BDEV_READ, buf, 0, 4096, 0))
		return 2;
	bdev_close(fresh);
	bdev_close(dev);
	return 0;
}

FOR_EACH_MODULE(bdev_fork, children_made_amid_io_find_a_dead_device_and_the_parent_goes_on)
{
	struct worker w[WORKERS] = { 0 };
	atomic_bool stop = false;

	dev_open(t, 8, 3);
	for (unsigned i = 0; i < WORKERS; i++) {
		w[i] = (struct worker){ .dev = t->dev, .stop = &stop, .index = i };
		ASSERT_EQ_INT(0, pthread_create(&w[i].thread, NULL, work, &w[i]));
	}
	for (unsigned i = 0; i < FORKS; i++) {
		int status = -1;
		pid_t pid = fork();

		if (!pid)
			_exit(child(t->dev));
		EXPECT_EQ_INT(pid, waitpid(pid, &status, 0));
		EXPECT_EQ_INT(0, status);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < WORKERS; i++) {
		pthread_join(w[i].thread, NULL);
		EXPECT_OK(w[i].rc);
	}
	dev_close(t);
}

#endif
