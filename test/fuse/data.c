/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "test/fuse/mnt.h"
#include "test/shim/test.h"

static int open_new(const char *name, int flags)
{
	int fd = open(mnt_path(name), O_CREAT | O_RDWR | flags, 0644);

	ASSERT_GE_INT(fd, 0);
	return fd;
}

static off_t size_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? -1 : st.st_size;
}

/* ---- random operations against a copy in memory ---- */

#define MODEL_MAX (3u << 20)

struct model {
	unsigned char *bytes, *scratch;
	size_t size;
	uint64_t rng;
	int fd;
	int other; /* the same file, opened with O_DIRECT */
	bool maps;
};

static uint64_t rnd(struct model *m, uint64_t below)
{
	m->rng ^= m->rng << 13;
	m->rng ^= m->rng >> 7;
	m->rng ^= m->rng << 17;
	return m->rng % below;
}

static void model_write(struct model *m, bool map)
{
	size_t off = rnd(m, MODEL_MAX), len = 1 + rnd(m, rnd(m, 2) ? 9000 : 300000);
	unsigned char c = (unsigned char)rnd(m, 256);
	char *at;

	len = MIN(len, MODEL_MAX - off);
	if (map) {
		if (off >= m->size)
			return;
		len = MIN(len, m->size - off);
		at = mmap(NULL, m->size, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
		ASSERT_TRUE(at != MAP_FAILED);
		memset(at + off, c, len);
		ASSERT_EQ_INT(0, munmap(at, m->size));
	} else {
		memset(m->scratch, c, len);
		ASSERT_EQ_INT(len, pwrite(m->fd, m->scratch, len, (off_t)off));
	}
	memset(m->bytes + off, c, len);
	m->size = MAX(m->size, off + len);
}

static void model_direct(struct model *m)
{
	size_t off = rnd(m, MODEL_MAX / 4096 - 64) * 4096, len = (1 + rnd(m, 64)) * 4096;

	memset(m->scratch, (int)rnd(m, 256), len);
	ASSERT_EQ_INT(len, pwrite(m->other, m->scratch, len, (off_t)off));
	memcpy(m->bytes + off, m->scratch, len);
	m->size = MAX(m->size, off + len);
}

static void model_truncate(struct model *m)
{
	size_t size = rnd(m, MODEL_MAX);

	ASSERT_EQ_INT(0, ftruncate(m->fd, (off_t)size));
	memset(m->bytes + size, 0, MODEL_MAX - size);
	m->size = size;
}

static void model_punch(struct model *m)
{
	size_t off = rnd(m, MODEL_MAX), len = 1 + rnd(m, 200000);
	int modes[] = { FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0 };
	int mode = modes[rnd(m, 3)];

	len = MIN(len, MODEL_MAX - off);
	ASSERT_EQ_INT(0, fallocate(m->fd, mode, (off_t)off, (off_t)len));
	if (mode)
		memset(m->bytes + off, 0, len);
	else
		m->size = MAX(m->size, off + len);
}

static void model_copy(struct model *m)
{
	size_t len = 1 + rnd(m, 100000), from, to;
	off_t in, out;

	if (m->size < 2 * len)
		return;
	from = rnd(m, m->size / 2 - len + 1);
	to = m->size / 2 + rnd(m, m->size / 2 - len + 1);
	in = (off_t)from;
	out = (off_t)to;
	ASSERT_EQ_INT(len, copy_file_range(m->fd, &in, m->fd, &out, len, 0));
	memcpy(m->bytes + to, m->bytes + from, len);
}

/* Where data is claimed to be absent, the model has zeroes. */
static void model_seek(struct model *m)
{
	off_t off = (off_t)rnd(m, MODEL_MAX), data = lseek(m->fd, off, SEEK_DATA);
	off_t end = data < 0 ? (off_t)m->size : data;

	if (data < 0)
		ASSERT_EQ_INT(ENXIO, errno);
	for (off_t i = off; i < end; i++)
		if (m->bytes[i])
			FAIL("SEEK_DATA from %ld gives %ld, but there is data at %ld", (long)off, (long)data,
			     (long)i);
}

static void model_read(struct model *m)
{
	size_t off = rnd(m, MODEL_MAX), len = 1 + rnd(m, 300000);
	size_t want = off < m->size ? MIN(len, m->size - off) : 0;

	ASSERT_EQ_INT(want, pread(m->fd, m->scratch, len, (off_t)off));
	ASSERT_EQ_MEM(m->bytes + off, m->scratch, want);
	ASSERT_EQ_INT(m->size, size_of(m->fd));
}

static void model_step(struct model *m)
{
	switch (rnd(m, 12)) {
	case 0: model_truncate(m); break;
	case 1: model_punch(m); break;
	case 2: model_copy(m); break;
	case 3: model_seek(m); break;
	case 4: model_write(m, m->maps); break;
	case 5: ASSERT_EQ_INT(0, fsync(m->fd)); break;
	case 6: model_direct(m); break;
	case 7:
	case 8:
	case 9: model_write(m, false); break;
	default: model_read(m); break;
	}
}

static void run_model(uint64_t seed, int steps, bool maps)
{
	struct model m = { .rng = seed * 2654435761u + 88172645463325252ull, .maps = maps };

	test_note("seed %llu", (unsigned long long)seed);
	m.bytes = calloc(1, MODEL_MAX + 1);
	m.scratch = aligned_alloc(4096, MODEL_MAX);
	ASSERT_TRUE(m.bytes && m.scratch);
	m.fd = open_new("model", O_TRUNC);
	m.other = open_new("model", O_DIRECT);
	for (int i = 0; i < steps; i++)
		model_step(&m);
	ASSERT_EQ_INT(m.size, pread(m.fd, m.scratch, MODEL_MAX, 0));
	ASSERT_EQ_MEM(m.bytes, m.scratch, m.size);
	close(m.other);
	close(m.fd);
	free(m.bytes);
	free(m.scratch);
	test_note("%s", "");
}

static void models_1(void)
{
	for (uint64_t seed = 1; seed <= 6; seed++)
		run_model(seed, 300, true);
}

TEST(fuse_data, random_operations_agree_with_a_copy_in_memory)
{
	mnt_run(BFS_FUSE_SOLE, 0, models_1);
}

static void models_11(void)
{
	for (uint64_t seed = 11; seed <= 13; seed++)
		run_model(seed, 300, true);
}

TEST(fuse_data, random_operations_agree_with_two_reactors)
{
	mnt_run(BFS_FUSE_SOLE, 2, models_11);
}

static void models_21(void)
{
	for (uint64_t seed = 21; seed <= 23; seed++)
		run_model(seed, 300, false);
}

TEST(fuse_data, random_operations_agree_beside_a_library_user)
{
	mnt_run(BFS_FUSE_BESIDE, 0, models_21);
}

/* ---- single cases ---- */

TEST(fuse_data, data_not_yet_written_back_is_no_hole)
{
	int fd;

	mnt_up(BFS_FUSE_SOLE, 0);
	fd = open_new("f", 0);
	ASSERT_EQ_INT(0, ftruncate(fd, 1 << 20));
	ASSERT_EQ_INT(5, pwrite(fd, "bytes", 5, 500000));
	EXPECT_EQ_INT(500000 / 4096 * 4096, lseek(fd, 0, SEEK_DATA));
	ASSERT_EQ_INT(5, pwrite(fd, "bytes", 5, (1 << 20) + 100));
	EXPECT_EQ_INT(1 << 20, lseek(fd, 600000, SEEK_DATA));
	EXPECT_EQ_INT((1 << 20) + 105, lseek(fd, 1 << 20, SEEK_HOLE));
	close(fd);
	mnt_down();
}

TEST(fuse_data, appends_of_two_openers_do_not_overwrite)
{
	char buf[16];
	int a, b;

	mnt_up(BFS_FUSE_SOLE, 0);
	a = open_new("f", O_APPEND);
	b = open_new("f", O_APPEND);
	for (int i = 0; i < 3; i++) {
		ASSERT_EQ_INT(1, write(a, "a", 1));
		ASSERT_EQ_INT(1, write(b, "b", 1));
	}
	ASSERT_EQ_INT(6, pread(a, buf, 16, 0));
	EXPECT_EQ_MEM("ababab", buf, 6);
	close(a);
	close(b);
	mnt_down();
}

TEST(fuse_data, opening_with_truncation_empties_the_file_for_good)
{
	int fd;

	mnt_up(BFS_FUSE_SOLE, 0);
	fd = open_new("f", 0);
	ASSERT_EQ_INT(8, write(fd, "old text", 8));
	close(fd);
	fd = open_new("f", O_TRUNC);
	EXPECT_EQ_INT(0, size_of(fd));
	ASSERT_EQ_INT(0, ftruncate(fd, 8));
	{
		char buf[8];

		ASSERT_EQ_INT(8, pread(fd, buf, 8, 0));
		EXPECT_EQ_MEM("\0\0\0\0\0\0\0\0", buf, 8);
	}
	close(fd);
	mnt_down();
}

TEST(fuse_data, a_file_open_for_writing_only_takes_small_writes_anywhere)
{
	char buf[10];
	int fd, in;

	mnt_up(BFS_FUSE_SOLE, 0);
	fd = open_new("f", 0);
	ASSERT_EQ_INT(10, write(fd, "0123456789", 10));
	close(fd);
	fd = open(mnt_path("f"), O_WRONLY);
	ASSERT_GE_INT(fd, 0);
	ASSERT_EQ_INT(1, pwrite(fd, "x", 1, 5));
	ASSERT_EQ_INT(0, fdatasync(fd));
	EXPECT_EQ_INT(-1, read(fd, buf, 1));
	EXPECT_EQ_INT(EBADF, errno);
	close(fd);
	in = open(mnt_path("f"), O_RDONLY);
	ASSERT_EQ_INT(10, read(in, buf, 10));
	EXPECT_EQ_MEM("01234x6789", buf, 10);
	EXPECT_EQ_INT(-1, write(in, "y", 1));
	close(in);
	mnt_down();
}

TEST(fuse_data, blocks_and_free_space_follow_what_is_written)
{
	static char buf[1 << 20];
	struct stat st;
	int fd;

	mnt_up(BFS_FUSE_SOLE, 0);
	fd = open_new("f", 0);
	memset(buf, 'x', sizeof(buf));
	ASSERT_EQ_INT(sizeof(buf), pwrite(fd, buf, sizeof(buf), 8 << 20));
	ASSERT_EQ_INT(0, fsync(fd));
	close(fd);
	ASSERT_EQ_INT(0, stat(mnt_path("f"), &st));
	EXPECT_EQ_INT(9 << 20, st.st_size);
	EXPECT_EQ_INT((1 << 20) / 512, st.st_blocks);
	mnt_down();
}

TEST(fuse_data, what_is_larger_than_a_file_can_be_is_refused)
{
	int fd;

	mnt_up(BFS_FUSE_SOLE, 0);
	fd = open_new("f", 0);
	EXPECT_EQ_INT(-1, ftruncate(fd, INT64_MAX));
	EXPECT_EQ_INT(EFBIG, errno);
	EXPECT_EQ_INT(0, ftruncate(fd, 1ll << 45));
	EXPECT_EQ_INT(1ll << 45, size_of(fd));
	EXPECT_EQ_INT(0, ftruncate(fd, 0));
	close(fd);
	mnt_down();
}
