/* SPDX-License-Identifier: BSD-2-Clause */
/* The page cache: what stays in it, what is read ahead, when it is written back; and the bytes behind the end of a file. */
#include <time.h>

#include "bdev/wrap.h"
#include "test/unit/blobfs/data.h"

#define PAGE 4096u

static uint8_t buf[4 << 20], got[4 << 20];

static struct bfs_cache_stat stat_of(struct world *w)
{
	struct bfs_cache_stat st;

	bfs_get_cache_stat(w->fs, &st);
	return st;
}

static void pause_ms(unsigned ms)
{
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	nanosleep(&ts, NULL);
}

/* A file of so many pages, on the device and not in the cache. */
static struct bfs_file *cold_file(struct world *w, const char *path, uint64_t pages)
{
	struct bfs_file *file = data_open(w, path, O_RDWR | O_CREAT);

	fill_bytes(buf, sizeof(buf), pages);
	for (uint64_t pos = 0; pos < pages * PAGE; pos += sizeof(buf)) {
		uint64_t n = MIN(sizeof(buf), pages * PAGE - pos);

		ASSERT_EQ_INT((int64_t)n, bfs_pwrite(file, buf, n, pos));
	}
	ASSERT_OK(bfs_fsync(file, false));
	ASSERT_OK(bfs_advise(file, 0, 0, BFS_ADV_DONTNEED));
	return file;
}

/* ---- what stays ---- */

static uint64_t misses_of_hot(struct world *w, struct bfs_file *hot, uint64_t pages)
{
	uint64_t before = stat_of(w).misses;

	for (uint64_t i = 0; i < pages; i++)
		ASSERT_EQ_INT(PAGE, bfs_pread(hot, got, PAGE, i * 7 % pages * PAGE));
	return stat_of(w).misses - before;
}

TEST(bfs_cache, a_scan_larger_than_the_cache_leaves_the_hot_pages_in_it)
{
	struct bfs_file *hot, *big;
	struct world w;
	uint64_t pages = 512; /* of 2,048 */

	data_make(&w, "128M",
		  (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE, .cache_size = 8 * MiB });
	big = cold_file(&w, "/big", 8192);
	hot = cold_file(&w, "/hot", pages);
	ASSERT_OK(bfs_advise(hot, 0, 0, BFS_ADV_RANDOM));
	for (int i = 0; i < 4; i++)
		misses_of_hot(&w, hot, pages);
	ASSERT_EQ_INT(0, misses_of_hot(&w, hot, pages));
	for (uint64_t pos = 0; pos < 8192 * PAGE; pos += 10000)
		ASSERT_GT_INT(bfs_pread(big, got, 10000, pos), 0);
	ASSERT_GT_INT(stat_of(&w).evicted, 6000);
	EXPECT_LT_INT(misses_of_hot(&w, hot, pages), pages / 20);
	bfs_close(hot);
	bfs_close(big);
	data_end(&w);
}

TEST(bfs_cache, never_holds_more_than_it_may)
{
	struct bfs_file *file;
	struct world w;

	data_make(&w, "128M",
		  (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE, .cache_size = 2 * MiB });
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	fill_bytes(buf, sizeof(buf), 1);
	/* Eight times the cache in one call. */
	for (unsigned i = 0; i < 4; i++) {
		ASSERT_EQ_INT(sizeof(buf), bfs_append(file, buf, sizeof(buf)));
		ASSERT_LT_INT(stat_of(&w).pages, 513);
		ASSERT_LT_INT(stat_of(&w).dirty, 513);
	}
	for (unsigned i = 0; i < 4; i++) {
		ASSERT_EQ_INT(sizeof(got), bfs_pread(file, got, sizeof(got), i * sizeof(got)));
		ASSERT_EQ_MEM(buf, got, sizeof(got));
	}
	bfs_close(file);
	data_end(&w);
}

static void ignore_done(struct bfs_req *req, void *arg)
{
	(void)req;
	(void)arg;
}

TEST(bfs_cache, reads_of_the_kernels_pages_bring_nothing_into_it)
{
	struct iovec iov = { got, 100000 };
	struct bfs_req req = {
		.op = BFS_REQ_READ, .flags = BFS_IO_NOCACHE, .offset = 777, .iov = &iov, .iovcnt = 1
	};
	struct bfs_file *file;
	struct bfs_queue *q;
	struct world w;

	data_make(&w, "64M", (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
	file = cold_file(&w, "/f", 100);
	ASSERT_EQ_INT(10, bfs_pwrite(file, "0123456789", 10,
				     5000)); /* dirty pages are seen all the same */
	memcpy(buf + 5000, "0123456789", 10);
	ASSERT_OK(bfs_queue_create(w.fs, &q));
	req.file = file;
	req.done = ignore_done;
	bfs_submit(q, &req);
	bfs_queue_destroy(q);
	ASSERT_EQ_INT(100000, req.result);
	ASSERT_EQ_MEM(buf + 777, got, 100000);
	ASSERT_EQ_INT(1, stat_of(&w).pages);
	bfs_close(file);
	data_end(&w);
}

/* ---- readahead ---- */

TEST(bfs_cache, a_file_read_in_order_is_read_ahead_and_at_random_not)
{
	struct bfs_file *file;
	struct world w;
	uint64_t rng = 1, ahead, misses;

	data_make(&w, "64M",
		  (struct bfs_mount_opts){ .cache_size = 5 * MiB, .writeback_ms = 100000 });
	file = cold_file(&w, "/f", 1024);
	for (uint64_t pos = 0; pos < 1024 * PAGE; pos += PAGE) {
		ASSERT_EQ_INT(PAGE, bfs_pread(file, got, PAGE, pos));
		ASSERT_EQ_MEM(buf + pos % sizeof(buf), got, PAGE);
	}
	ahead = stat_of(&w).readahead;
	EXPECT_GT_INT(ahead, 1000);
	EXPECT_LT_INT(ahead, 1025);
	ASSERT_OK(bfs_advise(file, 0, 0, BFS_ADV_DONTNEED));
	misses = stat_of(&w).misses;
	for (int i = 0; i < 200; i++) /* none follows another */
		ASSERT_EQ_INT(PAGE, bfs_pread(file, got, PAGE, (rnd(&rng) % 511 * 2 + 1) * PAGE));
	EXPECT_EQ_INT(ahead, stat_of(&w).readahead);
	EXPECT_LT_INT(stat_of(&w).misses - misses, 201);
	bfs_close(file);
	data_end(&w);
}

TEST(bfs_cache, a_miss_brings_its_neighbours_while_memory_was_never_used)
{
	struct bfs_file *file;
	struct world w;
	uint64_t misses;

	data_make(&w, "64M",
		  (struct bfs_mount_opts){ .cache_size = 32 * MiB, .writeback_ms = 100000 });
	file = cold_file(&w, "/f", 1021);
	misses = stat_of(&w).misses;
	ASSERT_EQ_INT(PAGE, bfs_pread(file, got, PAGE, 501 * PAGE));
	ASSERT_EQ_MEM(buf + 501 * PAGE % sizeof(buf), got, PAGE);
	EXPECT_EQ_INT(8, stat_of(&w).misses - misses);
	for (uint64_t page = 503; page >= 496; page--) {
		ASSERT_EQ_INT(PAGE, bfs_pread(file, got, PAGE, page * PAGE));
		ASSERT_EQ_MEM(buf + page * PAGE % sizeof(buf), got, PAGE);
	}
	EXPECT_EQ_INT(8, stat_of(&w).misses - misses);
	ASSERT_EQ_INT(PAGE, bfs_pread(file, got, PAGE, 1020 * PAGE)); /* not beyond the end */
	EXPECT_EQ_INT(8 + 5, stat_of(&w).misses - misses);
	bfs_close(file);
	data_end(&w);
}

TEST(bfs_cache, without_a_service_the_reader_reads_ahead_itself)
{
	struct bfs_file *file;
	struct bdev_stats before, after;
	struct world w;

	data_make(&w, "64M",
		  (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE, .cache_size = 32 * MiB });
	file = cold_file(&w, "/f", 1024);
	bdev_get_stats(w.keep, &before);
	for (uint64_t pos = 0; pos < 1024 * PAGE; pos += PAGE)
		ASSERT_EQ_INT(PAGE, bfs_pread(file, got, PAGE, pos));
	bdev_get_stats(w.keep, &after);
	EXPECT_LT_INT(after.reads - before.reads, 40);
	bfs_close(file);
	data_end(&w);
}

TEST(bfs_cache, advice_to_need_it_brings_it_in)
{
	struct bfs_file *file;
	struct world w;
	uint64_t misses;

	data_make(&w, "64M", (struct bfs_mount_opts){ .cache_size = 32 * MiB });
	file = cold_file(&w, "/f", 64);
	ASSERT_OK(bfs_advise(file, 0, 0, BFS_ADV_WILLNEED));
	misses = stat_of(&w).misses;
	ASSERT_EQ_INT(64, stat_of(&w).pages);
	ASSERT_EQ_INT(64 * PAGE, bfs_pread(file, got, 64 * PAGE, 0));
	ASSERT_EQ_INT(misses, stat_of(&w).misses);
	bfs_close(file);
	data_end(&w);
}

/* ---- write-behind ---- */

TEST(bfs_cache, dirty_pages_are_written_back_when_they_are_old_enough)
{
	struct bfs_file *file;
	struct world w;

	base_set_fake_clock(1000000000000ull);
	data_make(&w, "64M",
		  (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE, .writeback_ms = 1000 });
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	ASSERT_EQ_INT(50000, bfs_pwrite(file, buf, 50000, 0));
	ASSERT_OK(bfs_service_step(w.fs));
	ASSERT_EQ_INT(13, stat_of(&w).dirty);
	base_set_fake_clock(1000000000000ull + 400000000ull);
	ASSERT_OK(bfs_service_step(w.fs));
	ASSERT_EQ_INT(13, stat_of(&w).dirty);
	base_set_fake_clock(1000000000000ull + 1000000000ull);
	ASSERT_OK(bfs_service_step(w.fs));
	ASSERT_EQ_INT(0, stat_of(&w).dirty);
	ASSERT_EQ_INT(13, stat_of(&w).written_back);
	base_set_fake_clock(0);
	/* And what was written back was committed. */
	bfs_close(file);
	bfs_abandon(w.fs);
	data_mount(&w, (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
	file = data_open(&w, "/f", O_RDWR);
	ASSERT_EQ_INT(50000, bfs_pread(file, got, sizeof(got), 0));
	ASSERT_EQ_MEM(buf, got, 50000);
	bfs_close(file);
	data_end(&w);
}

TEST(bfs_cache, the_service_writes_back_and_commits_by_itself)
{
	struct bfs_file *file;
	struct world w;
	unsigned i;

	data_make(&w, "64M", (struct bfs_mount_opts){ .writeback_ms = 40, .commit_ms = 20 });
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	fill_bytes(buf, 50000, 3);
	ASSERT_EQ_INT(50000, bfs_pwrite(file, buf, 50000, 0));
	for (i = 0; i < 500 && stat_of(&w).dirty + stat_of(&w).writing; i++)
		pause_ms(10);
	ASSERT_LT_INT(i, 500);
	for (i = 0; i < 500 && bs_durable_lsn(bfs_store(w.fs)) < bs_lsn(bfs_store(w.fs)); i++)
		pause_ms(10);
	ASSERT_LT_INT(i, 500);
	bfs_close(file);
	bfs_abandon(w.fs);
	data_mount(&w, (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
	file = data_open(&w, "/f", O_RDWR);
	ASSERT_EQ_INT(50000, bfs_pread(file, got, sizeof(got), 0));
	ASSERT_EQ_MEM(buf, got, 50000);
	bfs_close(file);
	data_end(&w);
}

TEST(bfs_cache, past_the_limit_writers_write_back_themselves)
{
	struct bfs_file *file;
	struct world w;

	data_make(&w, "128M",
		  (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE,
					   .cache_size = 16 * MiB,
					   .dirty_limit = 1 * MiB });
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	for (unsigned i = 0; i < 4000; i++) {
		ASSERT_EQ_INT(3000, bfs_append(file, buf, 3000));
		ASSERT_LT_INT(stat_of(&w).dirty, 258 + 1);
	}
	bfs_close(file);
	data_end(&w);
}

/* ---- behind the end ---- */

/* The device's last block keeps what was truncated: it must never be seen. */
static void lower_and_raise(struct world *w, int how, bool fsync_between, bool remount)
{
	struct bfs_file *file = data_open(w, "/f", O_RDWR | O_CREAT | O_TRUNC);
	uint64_t end = 12288;

	memset(buf, 'x', 10000);
	ASSERT_EQ_INT(10000, bfs_pwrite(file, buf, 10000, 0));
	ASSERT_OK(bfs_fsync(file, false));
	ASSERT_OK(bfs_truncate(w->fs, NULL, bfs_file_ino(file), 5000));
	if (fsync_between)
		ASSERT_OK(bfs_fsync(file, false));
	if (remount) {
		bfs_close(file);
		bfs_abandon(w->fs);
		data_mount(w, (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
		file = data_open(w, "/f", O_RDWR);
		if (bfs_file_size(file) == 10000) /* the truncation had not been committed */
			ASSERT_OK(bfs_truncate(w->fs, NULL, bfs_file_ino(file), 5000));
	} else {
		ASSERT_OK(bfs_advise(file, 0, 0, BFS_ADV_DONTNEED));
	}
	if (how == 0) {
		ASSERT_OK(bfs_truncate(w->fs, NULL, bfs_file_ino(file), end));
	} else if (how == 1) {
		ASSERT_EQ_INT(1, bfs_pwrite(file, "", 1, end - 1));
	} else if (how == 2) {
		ASSERT_OK(bfs_fallocate(file, 0, 0, end));
	} else {
		struct bfs_file *direct = data_open(w, "/f", O_RDWR | O_DIRECT);
		static const uint8_t zeroes[PAGE];

		ASSERT_EQ_INT(PAGE, bfs_pwrite(direct, zeroes, PAGE, end - PAGE));
		bfs_close(direct);
	}
	memset(buf + 5000, 0, end - 5000);
	ASSERT_EQ_INT((int64_t)end, bfs_pread(file, got, sizeof(got), 0));
	ASSERT_EQ_MEM(buf, got, end);
	ASSERT_OK(bfs_fsync(file, false));
	bfs_close(file);
	bfs_abandon(w->fs);
	data_mount(w, (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
	file = data_open(w, "/f", O_RDWR);
	ASSERT_EQ_INT((int64_t)end, bfs_pread(file, got, sizeof(got), 0));
	ASSERT_EQ_MEM(buf, got, end);
	bfs_close(file);
}

TEST(bfs_cache, what_was_truncated_away_never_comes_back)
{
	struct world w;

	data_make(&w, "64M", (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
	for (int i = 0; i < 16; i++) {
		test_note("way %d, fsync %d, remount %d", i & 3, i >> 2 & 1, i >> 3);
		lower_and_raise(&w, i & 3, i >> 2 & 1, i >> 3);
	}
	data_end(&w);
}

/* Every prefix of what the device was told, after a truncation and a raising that were not synced: the file is old or new, and holds no byte
 * of the old one behind 5000 once it was cut there. */
TEST(bfs_cache, at_a_power_cut_the_tail_is_old_or_zero)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts), .flags = BFS_NO_SERVICE };
	struct bdev *ram, *pc;
	struct base_err err;
	struct bfs_file *file;
	struct bfs *fs;
	uint64_t from, to;

	ASSERT_OK(bdev_open("ram:48M", NULL, &ram, &err));
	ASSERT_OK(bdev_powercut_create(ram, &pc));
	ASSERT_OK(bfs_format(pc, NULL, &err));
	bdev_ref(pc);
	ASSERT_OK(bfs_mount_bdev(pc, &opts, &fs, &err));
	ASSERT_OK(bfs_open_path(fs, NULL, "/f", O_RDWR | O_CREAT, 0644, BS_STREAM_UNKNOWN, &file));
	memset(buf, 'x', 10000);
	ASSERT_EQ_INT(10000, bfs_pwrite(file, buf, 10000, 0));
	ASSERT_OK(bfs_fsync(file, false));
	from = bdev_powercut_mark(pc);
	ASSERT_OK(bfs_truncate(fs, NULL, bfs_file_ino(file), 5000));
	ASSERT_EQ_INT(1, bfs_pwrite(file, "y", 1, 40000));
	ASSERT_OK(bfs_sync_range(file, 8192, 0, true)); /* the far page first */
	ASSERT_OK(bfs_fsync(file, false));
	to = bdev_powercut_events(pc);
	bfs_close(file);
	bfs_abandon(fs);
	ASSERT_GT_INT(to - from, 4);
	for (uint64_t event = from; event <= to; event++) {
		for (uint64_t seed = 0; seed < 8; seed++) {
			struct bdev_cut cut = { .event = event,
						.seed = seed,
						.torn = seed & 1 ? 512 : 0 };
			struct bdev *after;
			int64_t n;

			test_note("event %llu of %llu, seed %llu", (unsigned long long)event,
				  (unsigned long long)to, (unsigned long long)seed);
			ASSERT_OK(bdev_powercut_state(pc, &cut, &after));
			ASSERT_OK(bfs_mount_bdev(after, &opts, &fs, &err));
			ASSERT_OK(
				bfs_open_path(fs, NULL, "/f", O_RDWR, 0, BS_STREAM_UNKNOWN, &file));
			n = bfs_pread(file, got, sizeof(got), 0);
			ASSERT_TRUE(n == 10000 || n == 5000 || n == 40001);
			memset(buf, 0, 40001);
			memset(buf, 'x', n == 10000 ? 10000 : 5000);
			buf[40000] = 'y';
			ASSERT_EQ_MEM(buf, got, n);
			ASSERT_OK(bfs_truncate(fs, NULL, bfs_file_ino(file), 50000));
			ASSERT_EQ_INT(50000, bfs_pread(file, got, sizeof(got), 0));
			ASSERT_EQ_MEM(buf, got, n);
			for (int64_t i = n; i < 50000; i++)
				ASSERT_EQ_INT(0, got[i]);
			bfs_close(file);
			ASSERT_OK(bfs_unmount(fs));
		}
	}
	bdev_close(pc);
}

TEST(data, the_last_byte_of_the_largest_file_is_as_any_other)
{
	struct bfs_repair_opts repair = { .size = sizeof(repair), .flags = BFS_REPAIR_ALL | BFS_REPAIR_REBUILD };
	struct bfs_repair_result done;
	struct bfs_file *file;
	struct bs_usage use;
	struct bs_blob *blob;
	struct world w;
	char c = 0;

	data_make(&w, "64M", (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	ASSERT_EQ_INT(1, bfs_pwrite(file, "x", 1, BFS_SIZE_MAX - 1));
	ASSERT_OK(bfs_sync(w.fs));
	blob = bs_blob_get(bfs_store(w.fs), bfs_file_ino(file));
	bs_blob_get_usage(blob, &use);
	EXPECT_EQ_INT(1, use.exclusive);
	bs_blob_put(blob);
	bfs_close(file);
	ASSERT_OK(bfs_unmount(w.fs));
	bdev_ref(w.keep);
	ASSERT_OK(bfs_repair(w.keep, &repair, &done, &w.err));
	data_mount(&w, (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
	file = data_open(&w, "/f", O_RDONLY);
	ASSERT_EQ_INT(BFS_SIZE_MAX, bfs_file_size(file));
	ASSERT_EQ_INT(1, bfs_pread(file, &c, 1, BFS_SIZE_MAX - 1));
	EXPECT_EQ_INT('x', c);
	bfs_close(file);
	data_end(&w);
}
