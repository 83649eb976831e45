/* SPDX-License-Identifier: BSD-2-Clause */
/* fault and delay: what they were told to do, and nothing else. Also the port above devices that
 * lack something. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "bdev/wrap.h"
#include "test/unit/bdev/devices.h"

static struct bdev *open_fault(const char *name)
{
	struct bdev *base, *dev;

	ASSERT_OK(bdev_open(name, NULL, &base, NULL));
	ASSERT_OK(bdev_fault_create(base, &dev));
	ASSERT_STREQ("fault", bdev_info(dev)->module);
	return dev;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

TEST(bdev_fault, the_scripted_ios_fail_and_no_others)
{
	struct bdev_fault f = {
		.kind = BDEV_FAULT_ERROR, .op = BDEV_WRITE, .first = 1, .count = 2, .rc = -EIO
	};
	struct bdev *dev = open_fault("ram:1M");
	char *buf = buf_alloc(4096);

	ASSERT_OK(bdev_fault_add(dev, &f));
	EXPECT_OK(dev_io(dev, BDEV_WRITE, buf, 0, 4096, 0));
	EXPECT_ERR(-EIO, dev_io(dev, BDEV_WRITE, buf, 0, 4096, 0));
	EXPECT_OK(dev_io(dev, BDEV_READ, buf, 0, 4096, 0));
	EXPECT_ERR(-EIO, dev_io(dev, BDEV_WRITE, buf, 0, 4096, 0));
	EXPECT_OK(dev_io(dev, BDEV_WRITE, buf, 0, 4096, 0));
	EXPECT_EQ_INT(4, bdev_fault_seen(dev, BDEV_WRITE));
	EXPECT_EQ_INT(5, bdev_fault_seen(dev, -1));
	bdev_close(dev);
	free(buf);
}

TEST(bdev_fault, a_range_is_hit_by_what_touches_it)
{
	struct bdev_fault f = { .kind = BDEV_FAULT_ERROR,
				.op = -1,
				.count = UINT64_MAX,
				.lo = 8192,
				.hi = 12288,
				.rc = -ENOSPC };
	struct bdev *dev = open_fault("ram:1M");
	char *buf = buf_alloc(16384);

	ASSERT_OK(bdev_fault_add(dev, &f));
	EXPECT_OK(dev_io(dev, BDEV_READ, buf, 0, 8192, 0));
	EXPECT_OK(dev_io(dev, BDEV_READ, buf, 12288, 4096, 0));
	EXPECT_ERR(-ENOSPC, dev_io(dev, BDEV_READ, buf, 0, 8704, 0));
	EXPECT_ERR(-ENOSPC, dev_io(dev, BDEV_WRITE, buf, 11776, 4096, 0));
	bdev_fault_clear(dev);
	EXPECT_OK(dev_io(dev, BDEV_READ, buf, 0, 16384, 0));
	bdev_close(dev);
	free(buf);
}

TEST(bdev_fault, a_short_write_leaves_its_first_half)
{
	struct bdev_fault f = {
		.kind = BDEV_FAULT_SHORT, .op = BDEV_WRITE, .count = 1, .rc = -EIO
	};
	struct bdev *dev = open_fault("ram:1M");
	char *a = buf_alloc(8192), *b = buf_alloc(8192);

	memset(a, 'a', 8192);
	ASSERT_OK(bdev_fault_add(dev, &f));
	EXPECT_ERR(-EIO, dev_io(dev, BDEV_WRITE, a, 0, 8192, 0));
	ASSERT_OK(dev_io(dev, BDEV_READ, b, 0, 8192, 0));
	EXPECT_EQ_MEM(a, b, 4096);
	EXPECT_EQ_INT(0, b[4096]);
	bdev_close(dev);
	free(a);
	free(b);
}

TEST(bdev_fault, timeouts_and_delays_take_their_time)
{
	struct bdev_fault timeout = { .kind = BDEV_FAULT_TIMEOUT,
				      .op = BDEV_WRITE,
				      .count = 1,
				      .delay_ms = 30,
				      .done = true };
	struct bdev_fault delay = {
		.kind = BDEV_FAULT_DELAY, .op = BDEV_FLUSH, .count = 1, .delay_ms = 30
	};
	struct bdev *dev = open_fault("ram:1M,cache");
	uint64_t start = now_ms();
	char *a = buf_alloc(4096), *b = buf_alloc(4096);

	memset(a, 'a', 4096);
	ASSERT_OK(bdev_fault_add(dev, &timeout));
	ASSERT_OK(bdev_fault_add(dev, &delay));
	EXPECT_ERR(-ETIMEDOUT, dev_io(dev, BDEV_WRITE, a, 0, 4096, 0));
	EXPECT_GE_INT(now_ms() - start, 30);
	ASSERT_OK(dev_io(dev, BDEV_READ, b, 0, 4096, 0));
	EXPECT_EQ_MEM(a, b, 4096);
	start = now_ms();
	EXPECT_OK(dev_io(dev, BDEV_FLUSH, NULL, 0, 0, 0));
	EXPECT_GE_INT(now_ms() - start, 30);
	bdev_close(dev);
	free(a);
	free(b);
}

TEST(bdev_fault, a_script_that_makes_no_sense_is_refused)
{
	struct bdev *dev = open_fault("ram:1M");

	EXPECT_ERR(-EINVAL, bdev_fault_add(dev, &(struct bdev_fault){ .kind = BDEV_FAULT_ERROR,
								      .count = 1 }));
	EXPECT_ERR(-EINVAL,
		   bdev_fault_add(dev, &(struct bdev_fault){ .op = 17, .count = 1, .rc = -EIO }));
	bdev_close(dev);
}

TEST(bdev_port, a_failed_piece_of_a_split_io_fails_it_and_stops_the_rest)
{
	struct bdev_fault f = { .kind = BDEV_FAULT_ERROR,
				.op = BDEV_READ,
				.count = 1,
				.lo = 3 << 20,
				.hi = 4 << 20,
				.rc = -EIO };
	struct bdev *dev = open_fault("ram:64M");
	char *buf = buf_alloc(48 << 20);
	struct bdev_stats stats;

	ASSERT_OK(bdev_fault_add(dev, &f));
	EXPECT_ERR(-EIO, dev_io(dev, BDEV_READ, buf, 0, 48 << 20, 0));
	EXPECT_LT_INT(bdev_fault_seen(dev, BDEV_READ), 48);
	EXPECT_OK(dev_io(dev, BDEV_READ, buf, 0, 48 << 20, 0));
	bdev_get_stats(dev, &stats);
	EXPECT_EQ_INT(2, stats.reads);
	EXPECT_EQ_INT(1, stats.errors);
	EXPECT_EQ_INT(96ull << 20, stats.read_bytes);
	bdev_close(dev);
	free(buf);
}

TEST(bdev_port, an_error_of_a_device_becomes_one_the_contract_names)
{
	static const struct {
		int from, to;
	} errors[] = {
		{ -ENXIO, -ENODEV }, { -EDQUOT, -ENOSPC }, { -ETIME, -ETIMEDOUT },
		{ -EILSEQ, -EIO },   { -ENOSPC, -ENOSPC }, { -ENODEV, -ENODEV },
	};
	struct bdev *dev = open_fault("ram:1M");
	char *buf = buf_alloc(4096);

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		struct bdev_fault f = {
			.kind = BDEV_FAULT_ERROR, .op = BDEV_READ, .count = 1, .rc = errors[i].from
		};

		ASSERT_OK(bdev_fault_add(dev, &f));
		EXPECT_ERR(errors[i].to, dev_io(dev, BDEV_READ, buf, 0, 4096, 0));
	}
	bdev_close(dev);
	free(buf);
}

TEST(bdev_port, write_zeroes_the_device_has_not_are_written)
{
	struct bdev_fault f = {
		.kind = BDEV_FAULT_ERROR, .op = BDEV_WRITE_ZEROES, .count = 1, .rc = -EOPNOTSUPP
	};
	struct bdev *dev = open_fault("ram:16M,cache");
	size_t len = 5 << 20;
	char *a = buf_alloc(len), *zero = calloc(1, len);

	memset(a, 'a', len);
	ASSERT_OK(dev_io(dev, BDEV_WRITE, a, 0, len, 0));
	ASSERT_OK(bdev_fault_add(dev, &f));
	ASSERT_OK(dev_io(dev, BDEV_WRITE_ZEROES, NULL, 4096, len - 4096, BDEV_FUA));
	ASSERT_OK(dev_io(dev, BDEV_READ, a, 0, len, 0));
	EXPECT_EQ_INT('a', a[4095]);
	EXPECT_EQ_MEM(zero, a + 4096, len - 4096);
	EXPECT_EQ_INT(1, bdev_fault_seen(dev, BDEV_WRITE_ZEROES));
	EXPECT_EQ_INT(1, bdev_fault_seen(dev, BDEV_FLUSH)); /* FUA of zeroes */
	/* Remembered: not tried again. */
	ASSERT_OK(dev_io(dev, BDEV_WRITE_ZEROES, NULL, 0, 4096, 0));
	EXPECT_EQ_INT(1, bdev_fault_seen(dev, BDEV_WRITE_ZEROES));
	bdev_close(dev);
	free(a);
	free(zero);
}

TEST(bdev_port, without_a_volatile_cache_flush_and_fua_cost_nothing)
{
	struct bdev *dev = open_fault("ram:1M");
	char *buf = buf_alloc(4096);

	EXPECT_FALSE(bdev_info(dev)->volatile_cache);
	ASSERT_OK(dev_io(dev, BDEV_WRITE, buf, 0, 4096, BDEV_FUA));
	ASSERT_OK(dev_io(dev, BDEV_FLUSH, NULL, 0, 0, 0));
	EXPECT_EQ_INT(0, bdev_fault_seen(dev, BDEV_FLUSH));
	bdev_close(dev);
	free(buf);
}

TEST(bdev_port, short_memory_fails_an_io_and_leaves_the_device_usable)
{
	struct bdev *dev = open_fault("ram:16M");
	char *buf = buf_alloc(5 << 20);
	int failures = 0;

	for (uint64_t nth = 1; nth < 12; nth++) {
		int rc;

		base_fail_alloc_after(nth);
		rc = dev_io(dev, BDEV_WRITE, buf, 0, 5 << 20, 0);
		base_fail_alloc_after(0);
		failures += rc == -ENOMEM;
		EXPECT_TRUE(rc == 0 || rc == -ENOMEM);
		EXPECT_OK(dev_io(dev, BDEV_WRITE, buf, 0, 5 << 20, 0));
	}
	EXPECT_GT_INT(failures, 0);
	bdev_close(dev);
	free(buf);
}

TEST(bdev_delay, latency_and_rate_are_kept)
{
	struct bdev *base, *dev;
	struct bdev_io io[20];
	struct tally tally = { 0 };
	struct bdev_channel *ch;
	char *buf = buf_alloc(4096);
	uint64_t start = now_ms(), took;

	ASSERT_OK(bdev_open("ram:1M", NULL, &base, NULL));
	ASSERT_OK(bdev_delay_create(base, 20000, 1000, &dev));
	ch = bdev_channel_borrow(dev);
	for (size_t i = 0; i < ARRAY_SIZE(io); i++) {
		bdev_io_init_buf(&io[i], BDEV_READ, buf, 0, 4096, tally_cb, &tally);
		bdev_submit(ch, &io[i]);
	}
	/* Asleep on the descriptor meanwhile. */
	while (tally.done < ARRAY_SIZE(io)) {
		struct pollfd p = { .fd = bdev_channel_fd(ch), .events = POLLIN };

		while (bdev_poll(ch))
			;
		if (tally.done < ARRAY_SIZE(io))
			ASSERT_EQ_INT(1, poll(&p, 1, 5000));
	}
	took = now_ms() - start;
	EXPECT_OK(tally.rc);
	EXPECT_GE_INT(took, 38); /* 19 more, one a millisecond, and the latency */
	EXPECT_LT_INT(took, 2000);
	bdev_channel_return(ch);
	bdev_close(dev);
	free(buf);
}

TEST(bdev_delay, wrappers_wrap_each_other)
{
	struct bdev *ram, *fault, *cut, *dev;
	char *a = buf_alloc(3 << 20), *b = buf_alloc(3 << 20);

	ASSERT_OK(bdev_open("ram:16M", NULL, &ram, NULL));
	ASSERT_OK(bdev_fault_create(ram, &fault));
	ASSERT_OK(bdev_powercut_create(fault, &cut));
	ASSERT_OK(bdev_delay_create(cut, 100, 0, &dev));
	buf_fill(a, 3 << 20, 1);
	ASSERT_OK(dev_io(dev, BDEV_WRITE, a, 4096, 3 << 20, BDEV_FUA));
	ASSERT_OK(dev_io(dev, BDEV_READ, b, 4096, 3 << 20, 0));
	EXPECT_EQ_MEM(a, b, 3 << 20);
	ASSERT_OK(dev_io(dev, BDEV_FLUSH, NULL, 0, 0, 0));
	EXPECT_EQ_INT(0, bdev_powercut_undecided(cut, bdev_powercut_mark(cut)));
	bdev_close(dev);
	free(a);
	free(b);
}

TEST(bdev_overlay, what_is_written_is_read_and_the_base_stays_as_it_was)
{
	struct bdev_opts rdonly = { .size = sizeof(rdonly), .flags = BDEV_RDONLY };
	struct bdev *keep, *base, *dev;
	char *buf = buf_alloc(16384), *got = buf_alloc(16384);

	ASSERT_OK(bdev_open("ram:1M,name=under", NULL, &keep, NULL));
	memset(buf, 'b', 16384);
	ASSERT_OK(dev_io(keep, BDEV_WRITE, buf, 0, 16384, 0));
	bdev_close(keep);
	ASSERT_OK(bdev_open("ram:1M,name=under", &rdonly, &base, NULL));
	ASSERT_OK(bdev_overlay_create(base, &dev));
	EXPECT_FALSE(bdev_info(dev)->readonly);
	memset(buf, 'n', 4096);
	EXPECT_OK(dev_io(dev, BDEV_WRITE, buf, 4096, 512, BDEV_FUA));
	EXPECT_OK(dev_io(dev, BDEV_WRITE_ZEROES, NULL, 8192, 4096, 0));
	EXPECT_OK(dev_io(dev, BDEV_FLUSH, NULL, 0, 0, 0));
	EXPECT_OK(dev_io(dev, BDEV_READ, got, 0, 16384, 0));
	for (int i = 0; i < 16384; i++)
		ASSERT_EQ_INT(i >= 4096 && i < 4608 ? 'n' : i >= 8192 && i < 12288 ? 0 : 'b', got[i]);
	EXPECT_OK(dev_io(dev, BDEV_READ, got, 8192, 4096, 0)); /* nothing of it comes from below */
	EXPECT_EQ_INT(0, got[0]);
	bdev_close(dev);
	ASSERT_OK(bdev_open("ram:1M,name=under", NULL, &keep, NULL));
	EXPECT_OK(dev_io(keep, BDEV_READ, got, 0, 16384, 0));
	for (int i = 0; i < 16384; i++)
		ASSERT_EQ_INT('b', got[i]);
	bdev_close(keep);
	free(buf);
	free(got);
}

TEST(bdev_overlay, what_was_written_needs_no_base_and_the_rest_fails_with_it)
{
	struct bdev_fault f = { .kind = BDEV_FAULT_ERROR, .op = BDEV_READ, .count = UINT64_MAX, .rc = -EIO };
	struct bdev *fault = open_fault("ram:1M"), *dev;
	char *buf = buf_alloc(8192);

	ASSERT_OK(bdev_fault_add(fault, &f));
	ASSERT_OK(bdev_overlay_create(fault, &dev));
	EXPECT_OK(dev_io(dev, BDEV_WRITE, buf, 0, 4096, 0));
	EXPECT_OK(dev_io(dev, BDEV_READ, buf, 0, 4096, 0));
	EXPECT_ERR(-EIO, dev_io(dev, BDEV_READ, buf, 0, 8192, 0));
	EXPECT_EQ_INT(0, bdev_fault_seen(fault, BDEV_WRITE));
	bdev_close(dev);
	free(buf);
}
