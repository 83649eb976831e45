/* SPDX-License-Identifier: BSD-2-Clause */
/* copy_range: what can be shared is, and the bytes are the same whatever the offsets, against two arrays. */
#include "test/unit/blobfs/data.h"

#define SIZE (768u * 1024)

static uint64_t saved(struct world *w)
{
	struct bs_stat st;

	bs_get_stat(bfs_store(w->fs), &st);
	return st.saved_blocks;
}

static void expect(struct world *w, struct bfs_file *f, const uint8_t *want, uint64_t size)
{
	uint8_t *is = malloc(SIZE);

	(void)w;
	ASSERT_EQ_INT(size, bfs_file_size(f));
	ASSERT_EQ_INT((int64_t)size, bfs_pread(f, is, SIZE, 0));
	ASSERT_EQ_MEM(want, is, size);
	free(is);
}

TEST(blobfs_reflink, whole_blocks_are_shared_and_edges_copied)
{
	uint8_t *a = malloc(SIZE);
	struct bfs_file *in, *out;
	struct world w;

	data_make(&w, "64M", (struct bfs_mount_opts){ .cache_size = 8 * MiB });
	in = data_open(&w, "/a", O_RDWR | O_CREAT);
	out = data_open(&w, "/b", O_RDWR | O_CREAT);
	fill_bytes(a, SIZE, 1);
	ASSERT_EQ_INT(200001, bfs_pwrite(in, a, 200001, 0)); /* dirty: written home first */
	ASSERT_EQ_INT(200001, bfs_copy_range(in, 0, out, 0, SIZE));
	EXPECT_EQ_INT(48, saved(&w));
	expect(&w, out, a, 200001);
	ASSERT_EQ_INT(4, bfs_pwrite(in, "xxxx", 4, 8000));
	expect(&w, out, a, 200001);
	ASSERT_EQ_INT(5, bfs_append(out, a, 5));
	ASSERT_OK(bfs_fsync(out, false));
	ASSERT_OK(bfs_fsync(in, false));
	/* Offsets that lie differently: every byte is copied. */
	ASSERT_EQ_INT(100000, bfs_copy_range(out, 0, in, 300001, 100000));
	EXPECT_LE_INT(saved(&w), 48);
	bfs_close(in);
	bfs_close(out);
	data_end(&w);
	free(a);
}

/* Where nothing can be shared the bytes are copied; where there is no space for them the target is as long as what was copied. */
TEST(blobfs_reflink, a_target_does_not_get_longer_than_what_was_copied)
{
	static uint8_t buf[64 * KiB];
	struct bfs_mount_opts opts = { .cache_size = 8 * MiB, .flags = BFS_NO_SERVICE };
	struct bfs_file *in, *out;
	uint64_t reserved = 0;
	struct world w;
	int64_t n;

	data_make(&w, "64M", opts);
	ASSERT_OK(bfs_unmount(w.fs));
	data_older(&w, BS_INCOMPAT_SHARE);
	data_mount(&w, opts);
	in = data_open(&w, "/in", O_RDWR | O_CREAT);
	out = data_open(&w, "/out", O_RDWR | O_CREAT);
	fill_bytes(buf, sizeof(buf), 1);
	for (unsigned i = 0; i < 64; i++)
		ASSERT_EQ_INT(sizeof(buf), bfs_append(in, buf, sizeof(buf)));
	ASSERT_OK(bfs_sync(w.fs));
	while (!bs_reserve(bfs_store(w.fs), 1))
		reserved++;
	ASSERT_TRUE(reserved > 64);
	bs_unreserve(bfs_store(w.fs), 64); /* a MiB in clusters of 16 KiB */
	n = bfs_copy_range(in, 0, out, 0, 4 * MiB);
	EXPECT_GT_INT(n, 0);
	EXPECT_LE_INT(n, MiB);
	EXPECT_EQ_INT(n, bfs_file_size(out));
	bs_unreserve(bfs_store(w.fs), reserved - 64);
	EXPECT_EQ_INT(4 * (int64_t)MiB - n, bfs_copy_range(in, (uint64_t)n, out, (uint64_t)n, 4 * MiB));
	EXPECT_EQ_INT(4 * MiB, bfs_file_size(out));
	bfs_close(in);
	bfs_close(out);
	data_end(&w);
}

/* Two files and their arrays; copies between them and within them, writes, truncations, syncs, deaths of the process. */
struct pair {
	struct world w;
	struct bfs_file *f[2];
	uint8_t *bytes[2];
	uint64_t size[2], seed;
};

static void put_zeroes(struct pair *p, unsigned i, uint64_t to)
{
	if (to > p->size[i])
		memset(p->bytes[i] + p->size[i], 0, to - p->size[i]);
}

static void one_copy(struct pair *p)
{
	unsigned i = rnd(&p->seed) % 2, o = rnd(&p->seed) % 2;
	uint64_t a = rnd(&p->seed) % (SIZE / 2), b = rnd(&p->seed) % (SIZE / 2), len = rnd(&p->seed) % (SIZE / 2);

	if (rnd(&p->seed) % 4) {
		a = round_down(a, 4096);
		b = round_down(b, 4096);
		if (!(rnd(&p->seed) % 3)) {
			a += 77;
			b += 77;
		}
	}
	if (i == o && a < b + len && b < a + len)
		return;
	len = a >= p->size[i] ? 0 : MIN(len, p->size[i] - a);
	ASSERT_EQ_INT((int64_t)len, bfs_copy_range(p->f[i], a, p->f[o], b, len));
	if (!len)
		return;
	put_zeroes(p, o, b);
	memmove(p->bytes[o] + b, p->bytes[i] + a, len);
	p->size[o] = MAX(p->size[o], b + len);
}

static void one_write(struct pair *p)
{
	unsigned i = rnd(&p->seed) % 2;
	uint64_t at = rnd(&p->seed) % (SIZE / 2), len = 1 + rnd(&p->seed) % (rnd(&p->seed) % 3 ? 5000 : 200000);

	put_zeroes(p, i, at);
	fill_bytes(p->bytes[i] + at, len, p->seed);
	p->size[i] = MAX(p->size[i], at + len);
	ASSERT_EQ_INT((int64_t)len, bfs_pwrite(p->f[i], p->bytes[i] + at, len, at));
}

static void one_truncate(struct pair *p)
{
	unsigned i = rnd(&p->seed) % 2;
	uint64_t to = rnd(&p->seed) % SIZE;

	ASSERT_OK(bfs_truncate(p->w.fs, NULL, bfs_file_ino(p->f[i]), to));
	put_zeroes(p, i, to);
	p->size[i] = to;
}

static void open_both(struct pair *p)
{
	p->f[0] = data_open(&p->w, "/a", O_RDWR | O_CREAT);
	p->f[1] = data_open(&p->w, "/b", O_RDWR | O_CREAT);
}

static void remount(struct pair *p, struct bfs_mount_opts opts)
{
	ASSERT_OK(bfs_sync(p->w.fs));
	bfs_close(p->f[0]);
	bfs_close(p->f[1]);
	if (rnd(&p->seed) % 2)
		bfs_abandon(p->w.fs);
	else
		ASSERT_OK(bfs_unmount(p->w.fs));
	data_mount(&p->w, opts);
	open_both(p);
}

TEST(blobfs_reflink, copies_follow_arrays_through_random_changes)
{
	struct bfs_mount_opts opts = { .cache_size = 2 * MiB, .writeback_ms = 3 };
	struct pair *p = calloc(1, sizeof(*p));
	uint64_t most = 0;

	p->seed = test_seed();
	p->bytes[0] = calloc(1, SIZE);
	p->bytes[1] = calloc(1, SIZE);
	data_make(&p->w, "64M", opts);
	open_both(p);
	for (uint64_t n = 0; n < test_scaled(600); n++) {
		uint64_t what = rnd(&p->seed) % 100;

		if (what < 45)
			one_copy(p);
		else if (what < 80)
			one_write(p);
		else if (what < 90)
			one_truncate(p);
		else if (what < 95)
			ASSERT_OK(bfs_fsync(p->f[what % 2], false));
		else if (what < 97)
			remount(p, opts);
		most = MAX(most, saved(&p->w));
		if (what % 5)
			continue;
		expect(&p->w, p->f[0], p->bytes[0], p->size[0]);
		expect(&p->w, p->f[1], p->bytes[1], p->size[1]);
	}
	EXPECT_GT_INT(most, 0);
	bfs_close(p->f[0]);
	bfs_close(p->f[1]);
	data_end(&p->w);
	free(p->bytes[0]);
	free(p->bytes[1]);
	free(p);
}
