/* SPDX-License-Identifier: BSD-2-Clause */
/* Controllers as devices: names, and what is left when one goes. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/dma.h"
#include "base/log.h"
#include "base/util.h"
#include "bdev/nvme_wait.h"
#include "test/unit/bdev/devices.h"
#include "test/unit/nvme/peer.h"

static void open_nvme(struct test_dev *t)
{
	*t = (struct test_dev){ .label = "nvme", .module = "nvme", .nvme = true };
	dev_open(t, 16, 2);
	base_log_set_sink(quiet, NULL);
}

TEST(bdev_nvme, names_are_checked)
{
	struct base_err err;
	struct bdev *dev, *same;
	char name[200];
	struct peer p;

	EXPECT_ERR(-EINVAL, bdev_open("nvme:", NULL, &dev, &err));
	EXPECT_ERR(-EINVAL, bdev_open("nvme:what", NULL, &dev, &err));
	EXPECT_TRUE(strstr(err.text, "nvme:what"));
	EXPECT_ERR(-EINVAL, bdev_open("nvme:vfio-user:/x/0", NULL, &dev, &err));
	EXPECT_ERR(-ENOENT, bdev_open("nvme:vfio-user:/nowhere/1", NULL, &dev, &err));
	EXPECT_ERR(-ENOENT, bdev_open("nvme:ffff:ff:1f.7/1", NULL, &dev, &err));
	EXPECT_TRUE(strstr(err.text, "ffff:ff:1f.7: there is no such PCI device"));
	EXPECT_ERR(-EINVAL, bdev_open("nvme:pcie:0000:01:00.0/0", NULL, &dev, &err));
	EXPECT_TRUE(strstr(err.text, "no such namespace"));
	EXPECT_ERR(-EINVAL, bdev_open("nvme:pcie:/1", NULL, &dev, &err));
	EXPECT_TRUE(strstr(err.text, "0000:01:00.0[/NSID] or"));
	peer_start(&p, NULL);
	snprintf(name, sizeof(name), "nvme:%s/2", p.address);
	EXPECT_ERR(-ENOENT, bdev_open(name, NULL, &dev, &err));
	EXPECT_TRUE(strstr(err.text, "no such namespace"));
	snprintf(name, sizeof(name), "nvme:%s/1", p.address);
	ASSERT_OK(bdev_open(name, NULL, &dev, &err));
	ASSERT_OK(bdev_open(name, NULL, &same, &err));
	EXPECT_EQ_PTR(dev, same);
	EXPECT_TRUE(bdev_info(dev)->needs_dma && bdev_info(dev)->fua &&
		    bdev_info(dev)->volatile_cache);
	bdev_close(same);
	bdev_close(dev);
	peer_stop(&p);
}

TEST(bdev_nvme, a_controller_that_goes_ends_all_its_io)
{
	struct tally tally = { 0 };
	struct bdev_channel *ch;
	struct bdev_io io[40];
	struct test_dev t;
	char *buf;

	open_nvme(&t);
	buf = dma_alloc(40 * 4096, 4096);
	ASSERT_TRUE(buf);
	ASSERT_OK(bdev_channel_create(t.dev, &ch));
	atomic_store(&t.peer->t->f.hold, true);
	for (unsigned i = 0; i < 40; i++) {
		bdev_io_init_buf(&io[i], BDEV_READ, buf + i * 4096, i * 4096, 4096, tally_cb,
				 &tally);
		bdev_submit(ch, &io[i]);
	}
	bdev_kick(ch);
	atomic_store(&t.peer->t->f.hang_up, true);
	tally_wait(ch, &tally, 40);
	EXPECT_ERR(-ENODEV, atomic_load(&tally.rc));
	EXPECT_ERR(-ENODEV, bdev_io_sync(ch, BDEV_WRITE, buf, 0, 4096, 0));
	EXPECT_ERR(-ENODEV, bdev_io_sync(ch, BDEV_FLUSH, NULL, 0, 0, 0));
	bdev_channel_destroy(ch);
	dma_free(buf);
	dev_close(&t);
	base_log_set_sink(NULL, NULL);
}

static void *hang_up_soon(void *arg)
{
	struct test_dev *t = arg;

	usleep(100000);
	atomic_store(&t->peer->t->f.hang_up, true);
	return NULL;
}

TEST(bdev_nvme, a_sleeping_waiter_notices_that_its_controller_goes)
{
	struct bdev_channel *ch;
	struct test_dev t;
	pthread_t thread;
	char *buf;

	open_nvme(&t);
	buf = dma_alloc(4096, 4096);
	ASSERT_TRUE(buf);
	ASSERT_OK(bdev_channel_create(t.dev, &ch));
	atomic_store(&t.peer->t->f.hold, true);
	ASSERT_OK(pthread_create(&thread, NULL, hang_up_soon, &t));
	EXPECT_ERR(-ENODEV, bdev_io_sync(ch, BDEV_READ, buf, 0, 4096, 0));
	pthread_join(thread, NULL);
	bdev_channel_destroy(ch);
	dma_free(buf);
	dev_close(&t);
	base_log_set_sink(NULL, NULL);
}

TEST(bdev_nvme, the_descriptor_is_quiet_after_the_controller_has_gone)
{
	struct pollfd fd = { .events = POLLIN };
	struct bdev_channel *ch;
	struct test_dev t;
	unsigned polls = 0;

	open_nvme(&t);
	ASSERT_OK(bdev_channel_create(t.dev, &ch));
	fd.fd = bdev_channel_fd(ch);
	while (bdev_poll(ch))
		;
	EXPECT_EQ_INT(0, poll(&fd, 1, 50));
	atomic_store(&t.peer->t->f.hang_up, true);
	ASSERT_EQ_INT(1, poll(&fd, 1, 5000));
	while (poll(&fd, 1, 50) == 1 && polls++ < 100000)
		bdev_poll(ch);
	EXPECT_LT_INT(polls, 100000);
	EXPECT_EQ_INT(0, poll(&fd, 1, 50));
	bdev_channel_destroy(ch);
	dev_close(&t);
	base_log_set_sink(NULL, NULL);
}

TEST(bdev_nvme, namespaces_of_one_controller_are_open_at_once)
{
	struct nvmet_opts o = { .size = 16 * MiB, .namespaces = 2 };
	struct bdev_channel *ch[2];
	struct bdev *dev[2];
	struct base_err err;
	char name[200], *buf;
	struct peer p;

	peer_start(&p, &o);
	for (unsigned i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), "nvme:%s/%u", p.address, i + 1);
		ASSERT_OK(bdev_open(name, NULL, &dev[i], &err));
		ASSERT_OK(bdev_channel_create(dev[i], &ch[i]));
	}
	EXPECT_EQ_INT(1, atomic_load(&p.t->n.clients));
	buf = dma_alloc(8192, 4096);
	ASSERT_TRUE(buf);
	for (unsigned i = 0; i < 2; i++) {
		memset(buf, 'a' + (int)i, 4096);
		EXPECT_OK(bdev_io_sync(ch[i], BDEV_WRITE, buf, 4096, 4096, 0));
	}
	for (unsigned i = 0; i < 2; i++) {
		EXPECT_OK(bdev_io_sync(ch[i], BDEV_READ, buf, 4096, 4096, 0));
		EXPECT_EQ_INT('a' + (int)i, buf[4095]);
	}
	/* One that goes leaves the other. */
	bdev_channel_destroy(ch[0]);
	bdev_close(dev[0]);
	EXPECT_OK(bdev_io_sync(ch[1], BDEV_READ, buf, 4096, 4096, 0));
	bdev_channel_destroy(ch[1]);
	bdev_close(dev[1]);
	EXPECT_EQ_INT(1, atomic_load(&p.t->n.shutdowns));
	dma_free(buf);
	peer_stop(&p);
}

/* ---- waiting ---- */

TEST(bdev_nvme, who_waits_spins_about_twice_as_long_as_it_takes_and_not_at_all_for_the_slow)
{
	struct nvme_wait w = { 0 };

	for (int i = 0; i < 100; i++)
		nvme_wait_learn(&w, 20000);
	EXPECT_GE_INT(nvme_wait_spin_ns(&w), 39000);
	EXPECT_LT_INT(nvme_wait_spin_ns(&w), 41000);
	for (int i = 0; i < 100; i++)
		nvme_wait_learn(&w, 3000000);
	EXPECT_EQ_INT(0, nvme_wait_spin_ns(&w));
	for (int i = 0; i < 100; i++)
		nvme_wait_learn(&w, 5000);
	EXPECT_LT_INT(nvme_wait_spin_ns(&w), 11000);
	EXPECT_GE_INT(nvme_wait_spin_ns(&w), 9000);
}

struct reader {
	pthread_t thread;
	struct bdev *dev;
	char *buf;
	int rc;
};

static void *read_much(void *arg)
{
	struct reader *r = arg;

	for (int i = 0; i < 300 && !r->rc; i++) {
		struct bdev_channel *ch = bdev_channel_borrow(r->dev);

		r->rc = bdev_io_sync(ch, BDEV_READ, r->buf, (uint64_t)i * 4096, 4096, 0);
		bdev_channel_return(ch);
	}
	return NULL;
}

TEST(bdev_nvme_threads, at_most_half_the_cores_spin)
{
	enum { N = 8 };
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	struct reader r[N];
	struct test_dev t;

	open_nvme(&t);
	for (int i = 0; i < N; i++) {
		r[i] = (struct reader){ .dev = t.dev, .buf = dma_alloc(4096, 4096) };
		ASSERT_TRUE(r[i].buf);
		ASSERT_OK(pthread_create(&r[i].thread, NULL, read_much, &r[i]));
	}
	for (int i = 0; i < N; i++) {
		pthread_join(r[i].thread, NULL);
		EXPECT_OK(r[i].rc);
		dma_free(r[i].buf);
	}
	EXPECT_GE_INT(nvme_wait_most(), 1);
	EXPECT_LT_INT(nvme_wait_most(), MAX(cores / 2, 1l) + 1);
	dev_close(&t);
	base_log_set_sink(NULL, NULL);
}

static void *let_go_soon(void *arg)
{
	struct test_dev *t = arg;

	usleep(600000);
	atomic_store(&t->peer->t->f.hold, false);
	return NULL;
}

static uint64_t thread_us(void)
{
	struct rusage u;

	getrusage(RUSAGE_THREAD, &u);
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
	       (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

TEST(bdev_nvme, who_waits_long_sleeps)
{
	struct bdev_channel *ch;
	struct test_dev t;
	pthread_t thread;
	uint64_t before;
	char *buf;

	open_nvme(&t);
	buf = dma_alloc(4096, 4096);
	ASSERT_TRUE(buf);
	ASSERT_OK(bdev_channel_create(t.dev, &ch));
	atomic_store(&t.peer->t->f.hold, true);
	ASSERT_OK(pthread_create(&thread, NULL, let_go_soon, &t));
	before = thread_us();
	EXPECT_OK(bdev_io_sync(ch, BDEV_READ, buf, 0, 4096, 0));
	EXPECT_LT_INT(thread_us() - before, 60000);
	pthread_join(thread, NULL);
	bdev_channel_destroy(ch);
	dma_free(buf);
	dev_close(&t);
	base_log_set_sink(NULL, NULL);
}
