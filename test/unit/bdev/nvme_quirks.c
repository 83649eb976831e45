/* SPDX-License-Identifier: BSD-2-Clause */
/* Controllers as devices: the timeout in the name, interrupts that do not come, and what a controller tells while nothing is asked of it. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/dma.h"
#include "base/log.h"
#include "base/util.h"
#include "bdev/bdev.h"
#include "nvme/nvme.h"
#include "test/shim/test.h"
#include "test/unit/nvme/peer.h"

struct rig {
	struct peer p;
	struct bdev *dev;
	struct bdev_channel *ch;
	char *buf;
};

static void rig_start(struct rig *r, const struct nvmet_opts *o, const char *options)
{
	struct base_err err;
	char name[200];

	base_log_set_sink(quiet, NULL);
	peer_start(&r->p, o);
	snprintf(name, sizeof(name), "nvme:%s%s", r->p.address, options);
	if (bdev_open(name, NULL, &r->dev, &err))
		FAIL("%s", err.text);
	ASSERT_OK(bdev_channel_create(r->dev, &r->ch));
	r->buf = dma_alloc(4096, 4096);
	ASSERT_TRUE(r->buf);
}

static void rig_stop(struct rig *r)
{
	dma_free(r->buf);
	bdev_channel_destroy(r->ch);
	bdev_close(r->dev);
	peer_stop(&r->p);
	base_log_set_sink(NULL, NULL);
}

static uint64_t ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

TEST(bdev_nvme_quirks, the_timeout_is_in_the_name)
{
	struct nvmet_opts o = { .size = 16 * MiB };
	struct bdev *same;
	struct base_err err;
	char name[200];
	uint64_t start;
	struct rig r;

	rig_start(&r, &o, "/1,timeout=0.3");
	/* Whatever the timeout, it is one device. */
	snprintf(name, sizeof(name), "nvme:%s/1,timeout=9", r.p.address);
	ASSERT_OK(bdev_open(name, NULL, &same, &err));
	EXPECT_EQ_PTR(r.dev, same);
	bdev_close(same);
	snprintf(name, sizeof(name), "nvme:%s/1,timeout=forever", r.p.address);
	EXPECT_ERR(-EINVAL, bdev_open(name, NULL, &same, &err));
	EXPECT_TRUE(strstr(err.text, "the timeout is"));
	atomic_store(&r.p.t->f.stick, 1);
	start = ms();
	EXPECT_ERR(-ETIMEDOUT, bdev_io_sync(r.ch, BDEV_READ, r.buf, 0, 4096, 0));
	EXPECT_GE_INT(ms() - start, 290);
	EXPECT_LT_INT(ms() - start, 15000);
	EXPECT_EQ_INT(1, atomic_load(&r.p.t->n.aborts));
	rig_stop(&r);
}

TEST(bdev_nvme_quirks, the_shortest_timeout_of_a_controller_holds_for_its_devices)
{
	struct nvmet_opts o = { .size = 16 * MiB, .namespaces = 2 };
	struct base_err err;
	struct bdev *other;
	char name[200];
	uint64_t start;
	struct rig r;

	rig_start(&r, &o, "/1");
	EXPECT_OK(bdev_io_sync(r.ch, BDEV_READ, r.buf, 0, 4096, 0));
	snprintf(name, sizeof(name), "nvme:%s/2,timeout=0.2", r.p.address);
	ASSERT_OK(bdev_open(name, NULL, &other, &err));
	atomic_store(&r.p.t->f.stick, 1);
	start = ms();
	EXPECT_ERR(-ETIMEDOUT, bdev_io_sync(r.ch, BDEV_READ, r.buf, 0, 4096, 0));
	EXPECT_GE_INT(ms() - start, 190);
	EXPECT_LT_INT(ms() - start, 15000);
	bdev_close(other);
	rig_stop(&r);
}

/* Reads, each of which comes 20 ms late, so that nobody spins for it. */
static uint64_t slow_reads(struct rig *r, unsigned n)
{
	uint64_t start = ms();

	atomic_store(&r->p.t->f.late_ms, 20);
	atomic_store(&r->p.t->f.late, n);
	for (unsigned i = 0; i < n; i++)
		EXPECT_OK(bdev_io_sync(r->ch, BDEV_READ, r->buf, 0, 4096, 0));
	return ms() - start;
}

TEST(bdev_nvme_quirks, interrupts_that_do_not_come_are_noticed)
{
	struct nvmet_opts o = { .size = 16 * MiB, .style = { .mute = true } };
	struct rig r;

	/* It looks every eighth of the timeout. */
	rig_start(&r, &o, ",timeout=2");
	EXPECT_GE_INT(slow_reads(&r, 3), 3 * 150);
	EXPECT_LT_INT(slow_reads(&r, 10), 10 * 200);
	rig_stop(&r);
}

TEST(bdev_nvme_quirks, interrupts_that_are_missed_now_and_then_are_still_listened_to)
{
	struct nvmet_opts o = { .size = 16 * MiB };
	struct rig r;

	rig_start(&r, &o, ",timeout=2");
	atomic_store(&r.p.t->f.mute, true);
	EXPECT_GE_INT(slow_reads(&r, 2), 2 * 150);
	atomic_store(&r.p.t->f.mute, false);
	EXPECT_LT_INT(slow_reads(&r, 1), 150);
	atomic_store(&r.p.t->f.mute, true);
	EXPECT_GE_INT(slow_reads(&r, 2), 2 * 150);
	rig_stop(&r);
}

TEST(bdev_nvme_quirks, an_idle_channel_hears_what_the_controller_tells)
{
	struct nvmet_opts o = { .size = 16 * MiB, .events = true };
	struct pollfd fd = { .events = POLLIN };
	unsigned wakes = 0;
	struct rig r;

	rig_start(&r, &o, "");
	fd.fd = bdev_channel_fd(r.ch);
	while (poll(&fd, 1, 30) == 1)
		bdev_poll(r.ch);
	atomic_store(&r.p.t->f.blocks, 4096);
	atomic_store(&r.p.t->f.event, NVME_LOG_CHANGED_NS << 16 | 2);
	/* Not asked: whoever sleeps on the channel's descriptor is woken, and what it does then is a poll. */
	while (poll(&fd, 1, 300) == 1 && wakes++ < 1000000)
		bdev_poll(r.ch);
	EXPECT_GE_INT(wakes, 1);
	EXPECT_LT_INT(wakes, 1000000);
	EXPECT_EQ_INT(1, atomic_load(&r.p.t->n.events));
	/* It has read the list of what changed. */
	EXPECT_EQ_INT(0, atomic_load(&r.p.t->changed));
	EXPECT_EQ_INT(0, poll(&fd, 1, 50));
	rig_stop(&r);
}
