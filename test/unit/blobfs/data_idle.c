/* SPDX-License-Identifier: BSD-2-Clause */
/* Cached pages outlive the last close, and so does their inode: how long, and when both go. */
#include <pthread.h>
#include <time.h>

#include "bdev/wrap.h"
#include "test/unit/blobfs/data.h"

#define IDLE_MAX 16384u

static uint8_t buf[1 << 20], got[1 << 20];

static struct bfs_cache_stat stat_of(struct world *w)
{
	struct bfs_cache_stat st;

	bfs_get_cache_stat(w->fs, &st);
	return st;
}

static uint64_t device_reads(struct world *w)
{
	struct bdev_stats st;

	bdev_get_stats(w->keep, &st);
	return st.reads;
}

static uint64_t free_blocks(struct world *w)
{
	struct bfs_statfs st;

	ASSERT_OK(bfs_get_statfs(w->fs, &st));
	return st.free_blocks;
}

/* A pass of write-behind holds the inodes it has collected until it comes to each: those unlinked meanwhile go then, not with a sync. */
static void expect_none_left(struct world *w)
{
	struct timespec ms10 = { .tv_nsec = 10000000 };

	for (unsigned i = 0; i < 1000 && stat_of(w).pages + stat_of(w).inodes; i++)
		nanosleep(&ms10, NULL);
	EXPECT_EQ_INT(0, stat_of(w).inodes);
	EXPECT_EQ_INT(0, stat_of(w).pages);
}

/* Written, durable, and closed. */
static void make_closed(struct world *w, const char *path, size_t len, uint64_t seed)
{
	struct bfs_file *file = data_open(w, path, O_RDWR | O_CREAT | O_TRUNC);

	fill_bytes(buf, len, seed);
	ASSERT_EQ_INT((int64_t)len, bfs_pwrite(file, buf, len, 0));
	ASSERT_OK(bfs_fsync(file, false));
	bfs_close(file);
	ASSERT_OK(bfs_sync(w->fs)); /* nothing of it is dirty */
}

/* Opens, compares, and closes; returns how often the device was read. */
static uint64_t read_file(struct world *w, const char *path, size_t len, uint64_t seed)
{
	uint64_t before = device_reads(w);
	struct bfs_file *file = data_open(w, path, O_RDONLY);

	fill_bytes(buf, len, seed);
	ASSERT_EQ_INT((int64_t)len, bfs_pread(file, got, sizeof(got), 0));
	ASSERT_EQ_MEM(buf, got, len);
	bfs_close(file);
	return device_reads(w) - before;
}

static const struct bfs_mount_opts quiet = { .flags = BFS_NO_SERVICE | BFS_NOATIME };

TEST(bfs_idle, a_file_written_and_closed_is_read_from_the_cache)
{
	struct bfs_attr attr;
	struct world w;

	data_make(&w, "64M", quiet);
	make_closed(&w, "/f", 300000, 1);
	ASSERT_EQ_INT(1, stat_of(&w).inodes);
	ASSERT_EQ_INT(0, read_file(&w, "/f", 300000, 1));
	ASSERT_OK(bfs_lookup(w.fs, NULL, ROOT, "f", &attr)); /* which counts it, and lets it go */
	ASSERT_EQ_INT(300000, attr.size);
	ASSERT_EQ_INT(0, read_file(&w, "/f", 300000, 1));
	ASSERT_EQ_INT(1, stat_of(&w).inodes);
	data_end(&w);
}

TEST(bfs_idle, nothing_outlives_the_mount)
{
	struct world w;

	data_make(&w, "64M", quiet);
	make_closed(&w, "/f", 300000, 1);
	for (int crash = 0; crash < 2; crash++) {
		if (crash)
			bfs_abandon(w.fs);
		else
			ASSERT_OK(bfs_unmount(w.fs));
		data_mount(&w, quiet);
		ASSERT_EQ_INT(0, stat_of(&w).inodes);
		ASSERT_EQ_INT(0, stat_of(&w).pages);
		ASSERT_GT_INT(read_file(&w, "/f", 300000, 1), 0);
		ASSERT_EQ_INT(0, read_file(&w, "/f", 300000, 1));
		ASSERT_EQ_INT(1, stat_of(&w).inodes);
	}
	data_end(&w);
}

TEST(bfs_idle, what_is_done_to_it_by_number_is_seen)
{
	struct bfs_attr attr = { .mode = 0600 };
	struct world w;

	data_make(&w, "64M", quiet);
	make_closed(&w, "/f", 300000, 1);
	ASSERT_OK(bfs_lookup(w.fs, NULL, ROOT, "f", &attr));
	ASSERT_OK(bfs_truncate(w.fs, NULL, attr.ino, 5000));
	ASSERT_EQ_INT(0, read_file(&w, "/f", 5000, 1));
	ASSERT_EQ_INT(2, stat_of(&w).pages);
	attr.mode = 0600;
	ASSERT_OK(bfs_setattr(w.fs, NULL, attr.ino, &attr, BFS_SET_MODE, NULL));
	ASSERT_OK(bfs_unmount(w.fs));
	data_mount(&w, quiet);
	read_file(&w, "/f", 5000, 1);
	ASSERT_OK(bfs_lookup(w.fs, NULL, ROOT, "f", &attr));
	ASSERT_EQ_INT(0600, attr.mode & 07777);
	data_end(&w);
}

TEST(bfs_idle, eviction_frees_the_inodes)
{
	struct bfs_mount_opts opts = quiet;
	struct bfs_file *big;
	char path[32];
	struct world w;

	opts.cache_size = 2 * MiB;
	data_make(&w, "128M", opts); /* the log has room for all of it: nobody makes some for a sync */
	for (unsigned i = 0; i < 300; i++) {
		snprintf(path, sizeof(path), "/small%u", i);
		make_closed(&w, path, 100, i);
	}
	ASSERT_EQ_INT(300, stat_of(&w).inodes);
	ASSERT_EQ_INT(300, stat_of(&w).pages);
	fill_bytes(buf, sizeof(buf), 7);
	big = data_open(&w, "/big", O_RDWR | O_CREAT);
	for (unsigned i = 0; i < 16; i++)
		ASSERT_EQ_INT(sizeof(buf), bfs_append(big, buf, sizeof(buf)));
	ASSERT_OK(bfs_fsync(big, false));
	EXPECT_LT_INT(stat_of(&w).inodes, 30);
	ASSERT_OK(bfs_advise(big, 0, 0, BFS_ADV_DONTNEED));
	EXPECT_EQ_INT(stat_of(&w).pages, stat_of(&w).inodes - 1); /* those left have their page */
	for (unsigned i = 0; i < 300; i++) {
		snprintf(path, sizeof(path), "/small%u", i);
		read_file(&w, path, 100, i);
	}
	ASSERT_EQ_INT(301, stat_of(&w).inodes);
	bfs_close(big);
	ASSERT_OK(bfs_sync(w.fs));
	ASSERT_EQ_INT(300, stat_of(&w).inodes); /* that one had no page left */
	data_end(&w);
}

TEST(bfs_idle, deleting_it_drops_its_pages_and_its_space)
{
	uint64_t before;
	struct world w;

	data_make(&w, "64M", quiet);
	make_closed(&w, "/keep", 10, 9);
	ASSERT_OK(bfs_unlink(w.fs, NULL, ROOT, "keep"));
	ASSERT_OK(bfs_sync(w.fs));
	before = free_blocks(&w);
	make_closed(&w, "/a", sizeof(buf), 1);
	make_closed(&w, "/b", sizeof(buf), 2);
	ASSERT_EQ_INT(2, stat_of(&w).inodes);
	ASSERT_LE_INT(free_blocks(&w), before - 512);
	ASSERT_OK(bfs_rename(w.fs, NULL, ROOT, "a", ROOT, "b", 0));
	ASSERT_OK(bfs_sync(w.fs));
	ASSERT_EQ_INT(1, stat_of(&w).inodes);
	ASSERT_EQ_INT(256, stat_of(&w).pages);
	ASSERT_EQ_INT(0, read_file(&w, "/b", sizeof(buf), 1));
	ASSERT_OK(bfs_unlink(w.fs, NULL, ROOT, "b"));
	ASSERT_EQ_INT(0, stat_of(&w).pages);
	ASSERT_OK(bfs_sync(w.fs));
	ASSERT_EQ_INT(0, stat_of(&w).inodes);
	ASSERT_EQ_INT(before, free_blocks(&w));
	data_end(&w);
}

TEST(bfs_idle, too_many_push_out_the_oldest)
{
	struct bfs_mount_opts opts = quiet;
	struct bfs_file *file;
	unsigned n = IDLE_MAX + 100;
	char path[32];
	struct world w;

	opts.cache_size = 128 * MiB;
	data_make(&w, "512M", opts);
	for (unsigned i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "/f%u", i);
		file = data_open(&w, path, O_RDWR | O_CREAT);
		fill_bytes(buf, 100, i);
		ASSERT_EQ_INT(100, bfs_pwrite(file, buf, 100, 0));
		if (i % 1000 == 0) /* the rest of the cache stays theirs */
			ASSERT_OK(bfs_sync(w.fs));
		bfs_close(file);
	}
	ASSERT_OK(bfs_sync(w.fs));
	ASSERT_EQ_INT(IDLE_MAX, stat_of(&w).inodes);
	ASSERT_EQ_INT(IDLE_MAX, stat_of(&w).pages);
	ASSERT_EQ_INT(1, read_file(&w, "/f0", 100, 0));
	snprintf(path, sizeof(path), "/f%u", n - 1);
	ASSERT_EQ_INT(0, read_file(&w, path, 100, n - 1));
	ASSERT_EQ_INT(0, read_file(&w, "/f0", 100, 0));
	ASSERT_EQ_INT(IDLE_MAX, stat_of(&w).inodes);
	ASSERT_EQ_INT(IDLE_MAX, stat_of(&w).pages);
	data_end(&w);
}

/* A page that is still being read when the last count goes keeps the inode; when the read fails, both go. */
TEST(bfs_idle, a_failed_readahead_leaves_nothing)
{
	struct bdev_fault fault = { .kind = BDEV_FAULT_TIMEOUT, .op = BDEV_READ, .count = UINT64_MAX, .delay_ms = 100 };
	struct bfs_file *file;
	struct bdev *ram;
	struct world w;

	ASSERT_OK(bdev_open("ram:64M", NULL, &ram, &w.err));
	ASSERT_OK(bdev_fault_create(ram, &w.keep));
	ASSERT_OK(bfs_format(w.keep, NULL, &w.err));
	data_mount(&w, (struct bfs_mount_opts){ .flags = BFS_NOATIME });
	make_closed(&w, "/f", 100000, 1);
	file = data_open(&w, "/f", O_RDONLY);
	ASSERT_OK(bfs_advise(file, 0, 0, BFS_ADV_DONTNEED));
	ASSERT_EQ_INT(0, stat_of(&w).pages);
	ASSERT_OK(bdev_fault_add(w.keep, &fault));
	ASSERT_OK(bfs_advise(file, 0, 0, BFS_ADV_WILLNEED));
	bfs_close(file);
	expect_none_left(&w);
	bdev_fault_clear(w.keep);
	ASSERT_GT_INT(read_file(&w, "/f", 100000, 1), 0);
	data_end(&w);
}

static int all_of_it(struct world *w)
{
	struct bfs_file *file;
	struct bfs_attr attr;
	int64_t n = 0;
	int rc = 0;

	for (int i = 0; i < 2 && !rc && n >= 0; i++) { /* cold, then idle */
		rc = bfs_open_path(w->fs, NULL, "/f", O_RDWR, 0, BS_STREAM_UNKNOWN, &file);
		if (rc)
			return rc;
		n = bfs_pread(file, got, 30000, 0);
		if (n >= 0)
			n = bfs_pwrite(file, "x", 1, 20000);
		if (n >= 0)
			rc = bfs_fsync(file, false);
		bfs_close(file);
		if (i == 0 && !rc)
			rc = bfs_lookup(w->fs, NULL, ROOT, "f", &attr);
	}
	if (!rc && n >= 0)
		rc = bfs_unlink(w->fs, NULL, ROOT, "f");
	return rc ? rc : (int)MIN(n, 0);
}

TEST(bfs_idle, lack_of_memory_does_no_harm)
{
	struct world w;
	unsigned nth = 1;
	int rc;

	data_make(&w, "64M", quiet);
	make_closed(&w, "/f", 30000, 1);
	do {
		ASSERT_OK(bfs_unmount(w.fs));
		data_mount(&w, quiet);
		base_fail_alloc_after(nth);
		rc = all_of_it(&w);
		base_fail_alloc_after(0);
		ASSERT_TRUE(rc == 0 || rc == -ENOMEM || rc == -EIO);
		nth++;
	} while (rc && nth < 500);
	ASSERT_OK(rc);
	ASSERT_GT_INT(nth, 3);
	ASSERT_OK(bfs_sync(w.fs));
	ASSERT_EQ_INT(0, stat_of(&w).inodes);
	ASSERT_EQ_INT(0, stat_of(&w).pages);
	data_end(&w);
}

/* ---- many threads ---- */

#define THREADS 6u
#define FILES 24u
#define ROUNDS 600u

struct user {
	struct world *w;
	uint64_t rng;
};

/* Every file holds one byte, all over; a new one of the same name holds another. */
static void check_bytes(const uint8_t *p, int64_t n)
{
	ASSERT_GE_INT(n, 0);
	for (int64_t i = 1; i < n; i++)
		ASSERT_EQ_INT(p[0], p[i]);
}

static void ok_or_absent(int rc)
{
	if (rc != -ENOENT)
		ASSERT_OK(rc);
}

static void use_file(struct user *u, const char *path, uint8_t *p, size_t size)
{
	bool write = rnd(&u->rng) % 4 == 0;
	struct bfs_file *file;
	int rc = bfs_open_path(u->w->fs, NULL, path, write ? O_RDWR | O_CREAT | O_EXCL : O_RDONLY, 0644,
			       BS_STREAM_UNKNOWN, &file);

	if (rc) {
		ASSERT_EQ_INT(write ? -EEXIST : -ENOENT, rc);
		return;
	}
	if (write) {
		memset(p, (int)(rnd(&u->rng) % 255 + 1), size);
		ASSERT_EQ_INT((int64_t)size, bfs_pwrite(file, p, size, 0));
		if (rnd(&u->rng) % 2)
			ASSERT_OK(bfs_fsync(file, false));
	} else {
		check_bytes(p, bfs_pread(file, p, size, 0));
	}
	bfs_close(file);
}

static void *use_files(void *arg)
{
	struct user *u = arg;
	size_t size = 40000;
	uint8_t *p = malloc(size);
	struct bfs_attr attr;
	char path[16];

	ASSERT_TRUE(p != NULL);
	for (unsigned i = 0; i < ROUNDS; i++) {
		snprintf(path, sizeof(path), "/f%u", (unsigned)(rnd(&u->rng) % FILES));
		if (rnd(&u->rng) % 10 == 0)
			ok_or_absent(bfs_unlink(u->w->fs, NULL, ROOT, path + 1));
		else if (rnd(&u->rng) % 10 == 0)
			ok_or_absent(bfs_lookup(u->w->fs, NULL, ROOT, path + 1, &attr));
		else
			use_file(u, path, p, size);
	}
	free(p);
	return NULL;
}

static void run_users(uint64_t cache)
{
	pthread_t thread[THREADS];
	struct user user[THREADS];
	struct bfs_cache_stat st;
	struct bfs_statfs sf;
	char path[16];
	struct world w;
	uint64_t seed = test_seed();

	data_make(&w, "96M", (struct bfs_mount_opts){ .cache_size = cache, .writeback_ms = 5 });
	for (unsigned i = 0; i < THREADS; i++) {
		user[i] = (struct user){ &w, seed + i };
		ASSERT_EQ_INT(0, pthread_create(&thread[i], NULL, use_files, &user[i]));
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	ASSERT_OK(bfs_sync(w.fs));
	st = stat_of(&w);
	ASSERT_OK(bfs_get_statfs(w.fs, &sf));
	EXPECT_LE_INT(st.inodes, MIN(st.pages, sf.files));
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(path, sizeof(path), "f%u", i);
		ok_or_absent(bfs_unlink(w.fs, NULL, ROOT, path));
	}
	ASSERT_OK(bfs_sync(w.fs));
	expect_none_left(&w);
	data_end(&w);
}

TEST(bfs_idle_threads, open_close_read_and_unlink_at_once)
{
	run_users(16 * MiB);
}

TEST(bfs_idle_threads, and_with_a_cache_that_evicts_all_the_time)
{
	run_users(1 * MiB);
}
