/* SPDX-License-Identifier: BSD-2-Clause */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bdev/wrap.h"
#include "test/unit/bdev/devices.h"
#include "test/unit/nvme/peer.h"

static int wrap_delay(struct bdev *base, struct bdev **out)
{
	return bdev_delay_create(base, 20, 0, out);
}

const struct test_dev test_devs[] = {
	{ .label = "ram", .module = "ram" },
	{ .label = "uring", .module = "uring", .file = true },
	{ .label = "uring buffered", .module = "uring", .flags = BDEV_BUFFERED, .file = true },
	{ .label = "psync", .module = "psync", .flags = BDEV_PSYNC, .file = true },
	{ .label = "fault over ram", .module = "fault", .wrap = bdev_fault_create },
	{ .label = "delay over ram", .module = "delay", .wrap = wrap_delay },
	{ .label = "powercut over ram", .module = "powercut", .wrap = bdev_powercut_create },
	{ .label = "powercut over uring",
	  .module = "powercut",
	  .file = true,
	  .wrap = bdev_powercut_create },
	{ .label = "nvme", .module = "nvme", .nvme = true },
	{ .label = "nvme in blocks of 4096", .module = "nvme", .nvme = true, .block = 4096 },
	{ .label = "fault over nvme", .module = "fault", .nvme = true, .wrap = bdev_fault_create },
	{ .label = NULL },
};

static void serve_nvme(struct test_dev *t, char *name, size_t len)
{
	struct nvmet_opts o = { .size = DEV_SIZE, .block = t->block };

	t->peer = calloc(1, sizeof(*t->peer));
	ASSERT_TRUE(t->peer);
	peer_start(t->peer, &o);
	snprintf(name, len, "nvme:%s", t->peer->address);
}

void dev_open(struct test_dev *t, uint32_t depth, uint32_t channels)
{
	struct bdev_opts opts = { .size = sizeof(opts),
				  .flags = t->flags | BDEV_CREATE,
				  .create_size = DEV_SIZE,
				  .depth = depth,
				  .channels = channels };
	struct base_err err;
	char name[160];

	if (!t->file) {
		snprintf(name, sizeof(name), "ram:%d", DEV_SIZE);
		if (t->nvme)
			serve_nvme(t, name, sizeof(name));
		ASSERT_OK(bdev_open(name, &opts, &t->dev, &err));
	} else {
		snprintf(t->path, sizeof(t->path), "/tmp/bdev-test-%d.img", getpid());
		unlink(t->path);
		if (bdev_open(t->path, &opts, &t->dev, &err))
			FAIL("%s", err.text);
	}
	if (t->wrap) {
		struct bdev *base = t->dev;

		ASSERT_OK(t->wrap(base, &t->dev));
	}
	ASSERT_STREQ(t->module, bdev_info(t->dev)->module);
	ASSERT_EQ_INT(DEV_SIZE, bdev_info(t->dev)->size);
}

void dev_close(struct test_dev *t)
{
	bdev_close(t->dev);
	if (*t->path)
		unlink(t->path);
	if (t->peer) {
		peer_stop(t->peer);
		free(t->peer);
		t->peer = NULL;
	}
}

void *buf_alloc(size_t len)
{
	void *p = aligned_alloc(4096, (len + 4095) / 4096 * 4096);

	ASSERT_TRUE(p);
	return p;
}

void buf_fill(void *buf, size_t len, uint64_t seed)
{
	uint8_t *b = buf;
	uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;

	for (size_t i = 0; i < len; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		b[i] = (uint8_t)(x >> 24);
	}
}

void tally_cb(struct bdev_io *io, int rc)
{
	struct tally *t = io->cb_arg;
	int none = 0;

	if (rc)
		atomic_compare_exchange_strong(&t->rc, &none, rc);
	atomic_fetch_add(&t->done, 1);
}

void tally_wait(struct bdev_channel *ch, struct tally *t, unsigned n)
{
	while (atomic_load(&t->done) < n)
		if (!bdev_poll(ch))
			poll(NULL, 0, 0);
}

int dev_io(struct bdev *dev, enum bdev_op op, void *buf, uint64_t offset, uint64_t length,
	   uint32_t flags)
{
	struct bdev_channel *ch = bdev_channel_borrow(dev);
	int rc = bdev_io_sync(ch, op, buf, offset, length, flags);

	bdev_channel_return(ch);
	return rc;
}
