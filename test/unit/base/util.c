/* SPDX-License-Identifier: BSD-2-Clause */
/* Sizes, integers, clocks, memory, errors. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/dma.h"
#include "base/err.h"
#include "base/util.h"
#include "test/shim/test.h"

static void expect_size(const char *text, uint64_t want)
{
	uint64_t bytes = ~0ull;

	test_note("parsing %s", text);
	EXPECT_OK(base_parse_size(text, &bytes));
	EXPECT_EQ_INT(want, bytes);
	test_note("%s", "");
}

TEST(util, sizes_are_read_as_people_write_them)
{
	expect_size("0", 0);
	expect_size("4096", 4096);
	expect_size("64K", 64 * KiB);
	expect_size("64k", 64 * KiB);
	expect_size("1.5G", 3 * GiB / 2);
	expect_size("2TiB", 2 * TiB);
	expect_size("2TB", 2 * TiB);
	expect_size("7B", 7);
	expect_size("0.5M", 512 * KiB);
	expect_size("1.0", 1);
	expect_size("15E", 15ull << 60);
	expect_size("18446744073709551615", UINT64_MAX);
}

TEST(util, what_is_no_size_is_refused)
{
	static const char *const bad[] = { "",    " ",     "K",    "-1",  "+1",
					   "1KK", "1.5",   "1.K",  ".5K", "12Q",
					   "1 K", "1Kib2", "0x10", "1e3", "1,5G" };
	static const char *const huge[] = { "16E", "18446744073709551616",
					    "99999999999999999999999", "18014398509481984K" };
	uint64_t bytes = 77;

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		test_note("parsing \"%s\"", bad[i]);
		EXPECT_ERR(-EINVAL, base_parse_size(bad[i], &bytes));
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(huge); i++) {
		test_note("parsing \"%s\"", huge[i]);
		EXPECT_ERR(-ERANGE, base_parse_size(huge[i], &bytes));
	}
	EXPECT_EQ_INT(77, bytes);
}

TEST(util, sizes_are_printed_short)
{
	char buf[32];

	EXPECT_STREQ("0 B", base_format_size(0, buf, sizeof(buf)));
	EXPECT_STREQ("1023 B", base_format_size(1023, buf, sizeof(buf)));
	EXPECT_STREQ("4 KiB", base_format_size(4096, buf, sizeof(buf)));
	EXPECT_STREQ("1.5 GiB", base_format_size(3 * GiB / 2, buf, sizeof(buf)));
	EXPECT_STREQ("1.0 MiB", base_format_size(MiB + 1, buf, sizeof(buf)));
	EXPECT_STREQ("15.9 EiB", base_format_size(UINT64_MAX, buf, sizeof(buf)));
	EXPECT_STREQ("4 K", base_format_size(4096, buf, 4));
}

TEST(util, little_endian_integers_lie_in_memory_as_on_disk)
{
	le16 a = le16_make(0x0102);
	le32 b = le32_make(0x01020304);
	le64 c = le64_make(0x0102030405060708ull);

	EXPECT_EQ_MEM("\x02\x01", &a, sizeof(a));
	EXPECT_EQ_MEM("\x04\x03\x02\x01", &b, sizeof(b));
	EXPECT_EQ_MEM("\x08\x07\x06\x05\x04\x03\x02\x01", &c, sizeof(c));
	EXPECT_EQ_INT(0x0102, le16_get(a));
	EXPECT_EQ_INT(0x01020304, le32_get(b));
	EXPECT_EQ_INT(0x0102030405060708, le64_get(c));
}

TEST(util, rounding)
{
	EXPECT_EQ_INT(0, div_round_up(0, 7));
	EXPECT_EQ_INT(2, div_round_up(8, 7));
	EXPECT_EQ_INT(8192, round_up(4097, 4096));
	EXPECT_EQ_INT(4096, round_down(8191, 4096));
	EXPECT_TRUE(is_pow2(1) && is_pow2(4096) && !is_pow2(0) && !is_pow2(12));
}

static unsigned calls;

static unsigned called(void)
{
	return ++calls;
}

TEST(util, min_and_max_evaluate_each_argument_once)
{
	EXPECT_EQ_INT(1, MIN(called(), 9u));
	EXPECT_EQ_INT(2, MAX(1u, MIN(9u, called())));
	EXPECT_EQ_INT(2, calls);
	EXPECT_EQ_INT(-1, MIN(-1, 0));
	EXPECT_TRUE(MAX(5u, 7ull) == 7);
}

TEST(util, random_bytes_differ_and_fill_the_buffer)
{
	uint8_t a[64] = { 0 }, b[64] = { 0 };
	int zeroes = 0;

	base_random(a, sizeof(a));
	base_random(b, sizeof(b));
	EXPECT_TRUE(memcmp(a, b, sizeof(a)) != 0);
	for (size_t i = 0; i < sizeof(a); i++)
		zeroes += a[i] == 0;
	EXPECT_LT_INT(zeroes, 16);
}

TEST(util, fake_random_bytes_come_again_with_their_seed_alone)
{
	uint8_t a[21], b[21], c[21], d[21];

	base_set_fake_random(7);
	base_random(a, sizeof(a));
	base_random(b, sizeof(b));
	base_set_fake_random(8);
	base_random(c, sizeof(c));
	base_set_fake_random(7);
	base_random(d, sizeof(d));
	EXPECT_EQ_MEM(a, d, sizeof(a));
	EXPECT_TRUE(memcmp(a, b, sizeof(a)) != 0 && memcmp(a, c, sizeof(a)) != 0);
	base_set_fake_random(0);
	base_random(d, sizeof(d));
	EXPECT_TRUE(memcmp(b, d, sizeof(d)) != 0);
}

TEST(util, the_fake_clock_stands_still_and_the_real_one_comes_back)
{
	base_set_fake_clock(42);
	EXPECT_EQ_INT(42, base_now_ns());
	EXPECT_EQ_INT(42, base_wall_ns());
	base_set_fake_clock(0);
	EXPECT_GT_INT(base_now_ns(), 42);
	EXPECT_LE_INT(llabs(base_wall_ns() / 1000000000 - (int64_t)time(NULL)), 2);
}

TEST(alloc, the_nth_allocation_fails_once)
{
	void *p, *q;

	base_fail_alloc_after(2);
	p = base_malloc(10);
	ASSERT_TRUE(p != NULL);
	EXPECT_EQ_PTR(NULL, base_calloc(1, 10));
	q = base_realloc(p, 20);
	ASSERT_TRUE(q != NULL);
	free(q);
	base_fail_alloc_after(1);
	EXPECT_EQ_PTR(NULL, base_strdup("x"));
	base_fail_alloc_after(1);
	EXPECT_EQ_PTR(NULL, dma_alloc(4096, 4096));
	base_fail_alloc_after(5);
	base_fail_alloc_after(0);
	for (int i = 0; i < 10; i++) {
		p = base_malloc(0);
		EXPECT_TRUE(p != NULL);
		free(p);
	}
}

TEST(alloc, from_the_nth_on_all_fail)
{
	void *p;

	base_fail_allocs_from(2);
	p = base_malloc(10);
	ASSERT_TRUE(p != NULL);
	for (int i = 0; i < 10; i++)
		EXPECT_EQ_PTR(NULL, base_malloc(10));
	base_fail_allocs_from(0);
	free(p);
	p = base_malloc(10);
	EXPECT_TRUE(p != NULL);
	free(p);
}

TEST(dma, memory_is_aligned_and_writable_to_its_end)
{
	static const size_t aligns[] = { 1, 512, 4096, 65536, 2 * MiB, 8 * MiB };

	for (unsigned int i = 0; i < ARRAY_SIZE(aligns); i++) {
		char *p = dma_alloc(5000, aligns[i]);

		ASSERT_TRUE(p != NULL);
		EXPECT_EQ_INT(0, (uintptr_t)p % MAX(aligns[i], 512u));
		memset(p, 0xa5, 5000);
		dma_free(p);
	}
	dma_free(NULL);
	EXPECT_EQ_PTR(NULL, dma_alloc(SIZE_MAX - 100, 4096));
	EXPECT_EQ_PTR(NULL, dma_alloc(SIZE_MAX - 5000, 512));
	EXPECT_EQ_PTR(NULL, dma_alloc(1ull << 60, 4096));
}

TEST(dma, zalloc_gives_zeroes)
{
	static const char zero[8192];
	char *p;

	p = dma_alloc(8192, 4096);
	ASSERT_TRUE(p != NULL);
	memset(p, 0xff, 8192);
	dma_free(p);
	p = dma_zalloc(8192, 4096);
	ASSERT_TRUE(p != NULL);
	EXPECT_EQ_MEM(zero, p, 8192);
	dma_free(p);
}

static long resident_pages(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	long size, resident = 0;

	ASSERT_TRUE(f != NULL);
	EXPECT_EQ_INT(2, fscanf(f, "%ld %ld", &size, &resident));
	fclose(f);
	return resident;
}

TEST(dma, large_memory_takes_room_only_where_it_is_used_and_goes_back_at_once)
{
	const size_t size = 512 * MiB + 123;
	long before = resident_pages();
	char *p = dma_zalloc(size, 2 * MiB);

	ASSERT_TRUE(p != NULL);
	EXPECT_EQ_INT(0, (uintptr_t)p % (2 * MiB));
	EXPECT_LT_INT(resident_pages() - before, 1024);
	EXPECT_EQ_INT(0, p[0] | p[size / 2] | p[size - 1]);
	memset(p + size - 64 * MiB, 1, 64 * MiB);
	EXPECT_GT_INT(resident_pages() - before, 16000);
	dma_free(p);
	EXPECT_LT_INT(resident_pages() - before, 1024);
}

static int other_allocs, other_frees;
static size_t other_size;

static void *other_alloc(size_t size, size_t align)
{
	other_allocs++;
	other_size = size;
	return aligned_alloc(align, round_up(size, align));
}

static void other_free(void *p, size_t size)
{
	EXPECT_EQ_INT(other_size, size);
	other_frees++;
	free(p);
}

TEST(dma, memory_goes_back_to_the_allocator_it_came_from)
{
	static const struct dma_ops other = { "other", other_alloc, other_free };
	void *before = dma_alloc(4096, 4096), *during;

	dma_set_ops(&other);
	during = dma_alloc(4096, 4096);
	dma_free(before);
	EXPECT_EQ_INT(0, other_frees);
	dma_set_ops(NULL);
	dma_free(during);
	EXPECT_EQ_INT(1, other_allocs);
	EXPECT_EQ_INT(1, other_frees);
}

TEST(err, carries_one_line_beside_the_code)
{
	struct base_err err = { "" };

	EXPECT_ERR(-EINVAL, base_err_set(&err, -EINVAL, "%s: %d is wrong\n", "/dev/x", 7));
	EXPECT_STREQ("/dev/x: 7 is wrong?", base_err_text(&err, -EINVAL));
	EXPECT_ERR(-EIO, base_err_set(NULL, -EIO, "nobody listens"));
	EXPECT_STREQ("No such file or directory", base_err_text(NULL, -ENOENT));
	err.text[0] = '\0';
	EXPECT_STREQ("Input/output error", base_err_text(&err, -EIO));
}

TEST(err, a_long_text_is_cut_not_overrun)
{
	char text[1000];
	struct base_err err;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	base_err_set(&err, -EIO, "%s", text);
	EXPECT_EQ_INT(sizeof(err.text) - 1, strlen(err.text));
}
