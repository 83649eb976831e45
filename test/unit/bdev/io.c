/* SPDX-License-Identifier: BSD-2-Clause */
/* What every module does with an I/O that goes through the port. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "test/unit/bdev/devices.h"

FOR_EACH_MODULE(bdev_io, what_was_written_is_read_back_at_many_sizes_and_buffer_alignments)
{
	static const uint32_t sizes[] = { 4096, 8192, 12288, 65536, 131072, 1 << 20, 6 << 20 };
	static const uint32_t shifts[] = { 0, 512, 1, 13, 4095 };
	char *a = buf_alloc((6 << 20) + 4096), *b = buf_alloc((6 << 20) + 4096);

	dev_open(t, 0, 0);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(shifts); j++) {
			uint64_t at = 4096 * (i * 7 + j);

			buf_fill(a + shifts[j], sizes[i], i * 100 + j);
			ASSERT_OK(dev_io(t->dev, BDEV_WRITE, a + shifts[j], at, sizes[i], 0));
			memset(b, 0x55, (6 << 20) + 4096);
			ASSERT_OK(dev_io(t->dev, BDEV_READ, b + shifts[j], at, sizes[i], 0));
			ASSERT_EQ_MEM(a + shifts[j], b + shifts[j], sizes[i]);
		}
	}
	ASSERT_OK(dev_io(t->dev, BDEV_FLUSH, NULL, 0, 0, 0));
	dev_close(t);
	free(a);
	free(b);
}

/* A write of many iovecs at odd addresses, read back by iovecs of another shape. */
static void vectored(struct test_dev *t, uint32_t total, uint32_t part, uint32_t shift)
{
	unsigned n = total / part;
	struct iovec *iov = calloc(n, sizeof(*iov));
	char *want = buf_alloc(total), *mem = buf_alloc((size_t)n * (part + shift) + 4096);
	struct tally tally = { 0 };
	struct bdev_channel *ch = bdev_channel_borrow(t->dev);
	struct bdev_io io = { .op = BDEV_WRITE,
			      .iov = iov,
			      .iovcnt = (int)n,
			      .offset = 8192,
			      .length = total,
			      .cb = tally_cb,
			      .cb_arg = &tally };

	buf_fill(want, total, total ^ part);
	for (unsigned i = 0; i < n; i++) {
		iov[i].iov_base = mem + (size_t)i * (part + shift);
		iov[i].iov_len = part;
		memcpy(iov[i].iov_base, want + (size_t)i * part, part);
	}
	bdev_submit(ch, &io);
	ASSERT_EQ_INT(0, tally.done);
	tally_wait(ch, &tally, 1);
	ASSERT_OK(tally.rc);
	memset(mem, 0, (size_t)n * (part + shift));
	io.op = BDEV_READ;
	bdev_submit(ch, &io);
	tally_wait(ch, &tally, 2);
	ASSERT_OK(tally.rc);
	for (unsigned i = 0; i < n; i++)
		ASSERT_EQ_MEM(want + (size_t)i * part, iov[i].iov_base, part);
	ASSERT_EQ_INT(0, bdev_channel_inflight(ch));
	bdev_channel_return(ch);
	free(mem);
	free(want);
	free(iov);
}

FOR_EACH_MODULE(bdev_io, vectors_of_any_shape_carry_their_data)
{
	dev_open(t, 0, 0);
	vectored(t, 8192, 4096, 0);
	vectored(t, 65536, 4096, 7);
	vectored(t, 5 << 20, 4096, 0);   /* more iovecs than a device takes */
	vectored(t, 5 << 20, 4096, 512); /* and each to be copied or not */
	vectored(t, 5 << 20, 512 << 10, 3);
	dev_close(t);
}

FOR_EACH_MODULE(bdev_io, a_range_outside_the_device_or_misaligned_is_refused_by_a_poll)
{
	static const struct {
		uint64_t offset, length;
	} bad[] = {
		{ DEV_SIZE, 4096 },
		{ DEV_SIZE - 4096, 8192 },
		{ UINT64_MAX - 4095, 4096 },
		{ 0, DEV_SIZE + 4096 },
		{ 100, 4096 },
		{ 0, 4095 },
		{ 4096, 0 },
		{ 4096, UINT64_MAX - 4095 },
	};
	char *buf = buf_alloc(8192);

	dev_open(t, 0, 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		for (int op = BDEV_READ; op <= BDEV_WRITE_ZEROES; op++)
			if (op != BDEV_FLUSH)
				EXPECT_ERR(-EINVAL, dev_io(t->dev, (enum bdev_op)op, buf,
							   bad[i].offset, bad[i].length, 0));
	EXPECT_ERR(-EINVAL, dev_io(t->dev, (enum bdev_op)9, buf, 0, 4096, 0));
	dev_close(t);
	free(buf);
}

FOR_EACH_MODULE(bdev_io, zeroes_and_discards_read_back_as_zero)
{
	static const uint32_t flags[] = { 0, BDEV_NO_UNMAP, BDEV_FUA };
	size_t len = 2 << 20;
	char *a = buf_alloc(len), *b = buf_alloc(len), *zero = calloc(1, len);

	dev_open(t, 0, 0);
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		buf_fill(a, len, i);
		ASSERT_OK(dev_io(t->dev, BDEV_WRITE, a, 0, len, 0));
		ASSERT_OK(dev_io(t->dev, BDEV_WRITE_ZEROES, NULL, 4096, len - 8192, flags[i]));
		ASSERT_OK(dev_io(t->dev, BDEV_READ, b, 0, len, 0));
		EXPECT_EQ_MEM(a, b, 4096);
		EXPECT_EQ_MEM(zero, b + 4096, len - 8192);
		EXPECT_EQ_MEM(a + len - 4096, b + len - 4096, 4096);
	}
	ASSERT_OK(dev_io(t->dev, BDEV_WRITE, a, 0, len, BDEV_FUA));
	ASSERT_OK(dev_io(t->dev, BDEV_DISCARD, NULL, 512 << 10, 1 << 20, 0));
	ASSERT_OK(dev_io(t->dev, BDEV_READ, b, 0, len, 0));
	EXPECT_TRUE(bdev_info(t->dev)->discard_zeroes);
	EXPECT_EQ_MEM(zero, b + (512 << 10), 1 << 20);
	EXPECT_EQ_MEM(a, b, 512 << 10);
	dev_close(t);
	free(zero);
	free(a);
	free(b);
}

FOR_EACH_MODULE(bdev_io, more_ios_than_the_depth_all_complete)
{
	enum { N = 300 };
	struct bdev_io *io = calloc(N, sizeof(*io));
	struct tally tally = { 0 };
	struct bdev_channel *ch;
	char *buf = buf_alloc(N * 4096ul), *back = buf_alloc(N * 4096ul);

	dev_open(t, 4, 0);
	ch = bdev_channel_borrow(t->dev);
	buf_fill(buf, N * 4096ul, 5);
	for (unsigned i = 0; i < N; i++) {
		bdev_io_init_buf(&io[i], BDEV_WRITE, buf + i * 4096ul, i * 4096ull, 4096, tally_cb,
				 &tally);
		bdev_submit(ch, &io[i]);
	}
	EXPECT_EQ_INT(N, bdev_channel_inflight(ch));
	tally_wait(ch, &tally, N);
	EXPECT_OK(tally.rc);
	ASSERT_OK(bdev_io_sync(ch, BDEV_READ, back, 0, N * 4096ull, 0));
	EXPECT_EQ_MEM(buf, back, N * 4096ul);
	bdev_channel_return(ch);
	dev_close(t);
	free(io);
	free(buf);
	free(back);
}
