/* SPDX-License-Identifier: BSD-2-Clause */
/* What a crash leaves for the next mount. */
#include "bdev/wrap.h"
#include "test/unit/blobfs/data.h"

/* A file of three blocks whose durable size lags behind, as a cut may leave it; sealed: as only damage can. */
static void make_short(struct world *w, uint64_t size, bool sealed)
{
	struct bfs_file *file;
	struct bs_blob_info info;
	struct bs_blob *blob;
	struct bfs_attr a;
	struct bs_txn *txn;
	struct bs *bs;
	char data[12288];

	data_make(w, "64M", (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
	bs = bfs_store(w->fs);
	memset(data, 'x', sizeof(data));
	file = data_open(w, "/f", O_RDWR | O_CREAT);
	ASSERT_EQ_INT(sizeof(data), bfs_pwrite(file, data, sizeof(data), 0));
	/* What is to be sealed has a place; else the bytes are in the log. */
	ASSERT_OK(sealed ? bfs_sync(w->fs) : bfs_fsync(file, false));
	bfs_close(file);
	ASSERT_OK(bfs_lookup(w->fs, NULL, ROOT, "f", &a));
	blob = bs_blob_get(bs, a.ino);
	bs_blob_get_info(blob, &info);
	ASSERT_OK(bs_txn_begin(bs, 0, &txn));
	if (sealed)
		ASSERT_OK(bs_txn_seal(txn, blob, size, info.user, info.user_len));
	else
		ASSERT_OK(bs_txn_header(txn, blob, size, info.user, info.user_len));
	bs_txn_end(txn);
	bs_blob_put(blob);
	ASSERT_OK(bs_commit(bs, 0));
	bfs_abandon(w->fs);
}

static void raise_and_compare(struct world *w, uint64_t size)
{
	struct bfs_file *file;
	struct bfs_attr a;
	char data[12288];

	data_mount(w, (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
	file = data_open(w, "/f", O_RDWR);
	ASSERT_EQ_INT(size, bfs_file_size(file));
	ASSERT_OK(bfs_lookup(w->fs, NULL, ROOT, "f", &a));
	ASSERT_OK(bfs_truncate(w->fs, NULL, a.ino, sizeof(data)));
	ASSERT_EQ_INT(sizeof(data), bfs_pread(file, data, sizeof(data), 0));
	for (size_t i = 0; i < sizeof(data); i++)
		ASSERT_EQ_INT(i < size ? 'x' : 0, data[i]);
	bfs_close(file);
	data_end(w);
}

TEST(leftovers, data_past_the_durable_size_never_shows)
{
	static const uint64_t sizes[] = { 0, 100, 4096, 5000, 8192, 12287 };

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct bfs_check_result result;
		struct world w;

		make_short(&w, sizes[i], false);
		world_check(&w, &result);
		ASSERT_EQ_INT(0, result.problems);
		raise_and_compare(&w, sizes[i]);
	}
}

TEST(leftovers, a_damaged_snapshot_is_found_and_keeps_nobody_from_mounting)
{
	struct bfs_repair_opts opts = { .size = sizeof(opts), .flags = BFS_REPAIR_ALL };
	struct bfs_repair_result done;
	struct bfs_check_result result;
	struct bfs_attr a;
	struct world w;

	make_short(&w, 100, true);
	world_check(&w, &result);
	EXPECT_EQ_INT(1, result.problems);
	data_mount(&w, (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
	ASSERT_OK(bfs_lookup(w.fs, NULL, ROOT, "f", &a));
	EXPECT_EQ_INT(100, a.size);
	ASSERT_OK(bfs_unmount(w.fs));
	bdev_ref(w.keep);
	ASSERT_OK(bfs_repair(w.keep, &opts, &done, &w.err));
	world_check(&w, &result);
	EXPECT_EQ_INT(0, result.problems);
	bdev_close(w.keep);
}

/* What is dropped by a hole or zeroes may be what would have carried the size to the device. */
TEST(leftovers, a_size_outlives_the_pages_that_raised_it)
{
	static const int modes[] = { FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
				     FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE };

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		struct bfs_file *file;
		struct bfs_attr a;
		struct world w;
		char data[20000];

		data_make(&w, "64M", (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
		memset(data, 'x', sizeof(data));
		file = data_open(&w, "/f", O_RDWR | O_CREAT);
		ASSERT_EQ_INT(sizeof(data), bfs_pwrite(file, data, sizeof(data), 0));
		ASSERT_OK(bfs_fallocate(file, modes[i], 4096, 8 * 4096));
		ASSERT_OK(bfs_fsync(file, true));
		bfs_close(file);
		bfs_abandon(w.fs);
		data_mount(&w, (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
		ASSERT_OK(bfs_lookup(w.fs, NULL, ROOT, "f", &a));
		ASSERT_EQ_INT(modes[i] == FALLOC_FL_ZERO_RANGE ? 9 * 4096 : sizeof(data), a.size);
		data_end(&w);
	}
}

/* The page that would cover old bytes behind the end fails to be written: the size must not pass them. */
TEST(leftovers, a_failed_write_back_shows_no_old_bytes)
{
	struct bdev_fault fault = { .kind = BDEV_FAULT_ERROR, .op = BDEV_WRITE, .count = 1, .rc = -EIO };
	struct bfs_mount_opts opts = { .flags = BFS_NO_SERVICE };
	struct bfs_file *file;
	struct bdev *faulty;
	struct bfs_attr a;
	struct world w;
	char data[8192];
	int64_t n;

	data_make(&w, "64M", opts);
	ASSERT_OK(bfs_unmount(w.fs));
	ASSERT_OK(bdev_fault_create(w.keep, &faulty));
	w.keep = faulty;
	data_mount(&w, opts);
	memset(data, 'x', sizeof(data));
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	ASSERT_OK(bfs_lookup(w.fs, NULL, ROOT, "f", &a));
	ASSERT_EQ_INT(4992, bfs_pwrite(file, data, 4992, 0));
	ASSERT_OK(bfs_fsync(file, false));
	ASSERT_OK(bfs_truncate(w.fs, NULL, a.ino, 4416));
	ASSERT_OK(bfs_fsync(file, false));
	memset(data, 'y', sizeof(data));
	ASSERT_EQ_INT(4608, bfs_pwrite(file, data, 4608, 1280));
	ASSERT_OK(bfs_truncate(w.fs, NULL, a.ino, 4608));
	ASSERT_OK(bs_commit(bfs_store(w.fs), 0));
	ASSERT_OK(bdev_fault_add(faulty, &fault));
	ASSERT_EQ_INT(-EIO, bfs_fsync(file, false));
	bfs_fsync(file, false);
	bfs_close(file);
	bfs_abandon(w.fs);
	data_mount(&w, opts);
	file = data_open(&w, "/f", O_RDWR);
	n = bfs_pread(file, data, sizeof(data), 0);
	for (int64_t i = 4416; i < n; i++)
		ASSERT_TRUE(data[i] != 'x');
	bfs_close(file);
	data_end(&w);
}
