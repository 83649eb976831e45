/* SPDX-License-Identifier: BSD-2-Clause */
/* Data when things fail: a full store, a device that fails, no memory. */
#include "bdev/wrap.h"
#include "test/unit/blobfs/data.h"

static uint8_t block[1 << 20], back[1 << 20];

/* ---- a full store ---- */

/* Appends until there is no room; returns the bytes that were taken. Pages of checksums are written anew meanwhile, and then there is room
 * for some more once the old ones are free. */
static uint64_t fill_up(struct bfs_file *file)
{
	unsigned again = testdev_sums() ? 16 : 1;
	uint64_t total = 0;
	int64_t n;

	fill_bytes(block, sizeof(block), 9);
	do {
		n = bfs_append(file, block, sizeof(block));
		if (n > 0)
			total += (uint64_t)n;
	} while (n == (int64_t)sizeof(block));
	while (n > 0 && again--) {
		uint64_t at = total % sizeof(block);

		n = bfs_append(file, block + at, sizeof(block) - at);
		if (n > 0)
			total += (uint64_t)n;
	}
	ASSERT_ERR(-ENOSPC, n);
	return total;
}

static void check_filled(struct bfs_file *file, uint64_t total)
{
	ASSERT_EQ_INT(total, bfs_file_size(file));
	for (uint64_t pos = 0; pos < total; pos += sizeof(block)) {
		uint64_t n = total - pos < sizeof(block) ? total - pos : sizeof(block);

		ASSERT_EQ_INT((int64_t)n, bfs_pread(file, back, n, pos));
		ASSERT_EQ_MEM(block, back, n);
	}
}

static void fill_and_empty(struct bfs_mount_opts opts)
{
	struct bfs_statfs before, after;
	struct bfs_file *file;
	struct world w;
	uint64_t total;
	int64_t n;

	data_make(&w, "64M", opts);
	ASSERT_OK(bfs_get_statfs(w.fs, &before));
	file = data_open(&w, "/big", O_RDWR | O_CREAT);
	total = fill_up(file);
	ASSERT_GT_INT(total, 16 << 20);
	check_filled(file, total);
	ASSERT_OK(bfs_fsync(file, false));
	check_filled(file, total);
	/* What is there can be written over; what has a checksum only to another place, and there is none. */
	n = bfs_pwrite(file, block, 5000, 0);
	ASSERT_EQ_INT(testdev_sums() && n == -ENOSPC ? n : 5000, n);
	ASSERT_OK(bfs_fsync(file, false));
	bfs_close(file);

	ASSERT_OK(bfs_unmount(w.fs));
	data_mount(&w, opts);
	file = data_open(&w, "/big", O_RDWR);
	check_filled(file, total);
	bfs_close(file);
	ASSERT_OK(bfs_unlink(w.fs, NULL, ROOT, "big"));
	ASSERT_OK(bfs_sync(w.fs));
	if (opts.flags & BFS_NO_SERVICE)
		ASSERT_OK(bfs_service_step(w.fs));
	file = data_open(&w, "/again", O_RDWR | O_CREAT);
	ASSERT_GE_INT(fill_up(file) + 4 * MiB, total);
	ASSERT_OK(bfs_fsync(file, false));
	bfs_close(file);
	ASSERT_OK(bfs_get_statfs(w.fs, &after));
	ASSERT_EQ_INT(before.blocks, after.blocks);
	data_end(&w);
}

TEST(bfs_data_errors, a_full_store_says_so_to_the_writer_and_loses_nothing)
{
	fill_and_empty((struct bfs_mount_opts){ .cache_size = 8 * MiB, .writeback_ms = 20 });
}

TEST(bfs_data_errors, also_without_a_service)
{
	fill_and_empty((struct bfs_mount_opts){ .flags = BFS_NO_SERVICE, .cache_size = 8 * MiB });
}

TEST(bfs_data_errors, also_when_all_of_it_would_fit_the_cache)
{
	fill_and_empty((struct bfs_mount_opts){
		.cache_size = 128 * MiB, .dirty_limit = 128 * MiB, .writeback_ms = 100000 });
}

/* ---- a device that fails ---- */

struct faulty {
	struct world w;
	struct bdev *fault;
};

static void faulty_make(struct faulty *f)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts),
				       .flags = BFS_NO_SERVICE,
				       .cache_size = 8 * MiB };
	struct bdev *ram;

	ASSERT_OK(bdev_open("ram:64M", NULL, &ram, &f->w.err));
	ASSERT_OK(bdev_fault_create(ram, &f->fault));
	ASSERT_OK(bfs_format(f->fault, NULL, &f->w.err));
	f->w.keep = f->fault;
	data_mount(&f->w, opts);
}

/* With a file on it: n bytes of `block`, synced. */
static struct bfs_file *faulty_file(struct faulty *f, size_t n)
{
	struct bfs_file *file;

	faulty_make(f);
	file = data_open(&f->w, "/f", O_RDWR | O_CREAT);
	fill_bytes(block, n, 5);
	ASSERT_EQ_INT((int64_t)n, bfs_pwrite(file, block, n, 0));
	ASSERT_OK(bfs_fsync(file, false));
	return file;
}

static void fail_data(struct faulty *f, int op, uint64_t count)
{
	struct bdev_fault fault = {
		.kind = BDEV_FAULT_ERROR, .op = op, .count = count, .rc = -EIO
	};

	ASSERT_OK(bdev_fault_add(f->fault, &fault));
}

TEST(bfs_data_errors, a_failed_write_back_is_told_once_to_each_open_file)
{
	struct bfs_file *a, *b, *c;
	struct faulty f;

	faulty_make(&f);
	a = data_open(&f.w, "/f", O_RDWR | O_CREAT);
	b = data_open(&f.w, "/f", O_RDWR);
	ASSERT_EQ_INT(100000, bfs_pwrite(a, block, 100000, 0));
	fail_data(&f, BDEV_WRITE, 1); /* the first write is the data's */
	ASSERT_OK(bfs_sync_range(a, 0, 0, true));
	ASSERT_ERR(-EIO, bfs_fsync(a, false));
	ASSERT_OK(bfs_fsync(a, false));
	c = data_open(&f.w, "/f", O_RDWR); /* opened after the error */
	ASSERT_OK(bfs_fsync(c, false));
	ASSERT_ERR(-EIO, bfs_fsync(b, true));
	ASSERT_OK(bfs_fsync(b, true));
	ASSERT_ERR(-EIO, bfs_fsync_ino(f.w.fs, bfs_file_ino(a), false));
	ASSERT_OK(bfs_fsync_ino(f.w.fs, bfs_file_ino(a), false));
	ASSERT_ERR(-EIO, bfs_sync(f.w.fs));
	ASSERT_OK(bfs_sync(f.w.fs));
	/* Written again, it is well again. */
	fill_bytes(block, 100000, 4);
	ASSERT_EQ_INT(100000, bfs_pwrite(a, block, 100000, 0));
	ASSERT_OK(bfs_fsync(a, false));
	ASSERT_OK(bfs_advise(a, 0, 0, BFS_ADV_DONTNEED));
	ASSERT_EQ_INT(100000, bfs_pread(b, back, 100000, 0));
	ASSERT_EQ_MEM(block, back, 100000);
	bfs_close(a);
	bfs_close(b);
	bfs_close(c);
	data_end(&f.w);
}

/* Nobody waited for the write-back: whoever comes first must hear of it, or bytes are lost in silence. */
TEST(bfs_data_errors, a_write_back_that_failed_unseen_is_told_to_sync_and_to_the_next_file_opened)
{
	struct bfs_file *file;
	struct faulty f;

	faulty_make(&f);
	file = data_open(&f.w, "/f", O_RDWR | O_CREAT);
	ASSERT_EQ_INT(100000, bfs_pwrite(file, block, 100000, 0));
	fail_data(&f, BDEV_WRITE, 1);
	ASSERT_OK(bfs_sync_range(file, 0, 0, true));
	bfs_close(file);
	ASSERT_ERR(-EIO, bfs_sync(f.w.fs));
	ASSERT_OK(bfs_sync(f.w.fs));
	file = data_open(&f.w, "/f", O_RDWR);
	ASSERT_ERR(-EIO, bfs_fsync(file, false));
	ASSERT_OK(bfs_fsync(file, false));
	bfs_close(file);
	file = data_open(&f.w, "/f", O_RDWR);
	ASSERT_OK(bfs_fsync(file, false));
	bfs_close(file);
	data_end(&f.w);
}

/* R9: what lies behind an old end stays unseen, though the zeroes that are to cover it could not be written. */
static void raise_over_garbage(unsigned failures, int rc)
{
	struct bfs_file *file;
	struct faulty f;

	file = faulty_file(&f, 3200);
	ASSERT_OK(bfs_sync_range(file, 0, 0, true));
	ASSERT_OK(bfs_truncate(f.w.fs, NULL, bfs_file_ino(file), 2240));
	ASSERT_OK(bfs_fsync(file, false));
	ASSERT_EQ_INT(100, bfs_pwrite(file, block, 100, 4700));
	ASSERT_OK(bfs_truncate(f.w.fs, NULL, bfs_file_ino(file), 56192));
	fail_data(&f, BDEV_WRITE, failures);
	ASSERT_ERR(rc, bfs_truncate(f.w.fs, NULL, bfs_file_ino(file), 39040));
	(void)bfs_fsync(file, false); /* they report the failure */
	(void)bfs_sync(f.w.fs);
	ASSERT_OK(bfs_truncate(f.w.fs, NULL, bfs_file_ino(file), 39000));
	ASSERT_OK(bfs_fsync(file, false));
	ASSERT_OK(bfs_advise(file, 0, 0, BFS_ADV_DONTNEED));
	for (int again = 0; again < 2; again++) {
		ASSERT_EQ_INT(4096, bfs_pread(file, back, 4096, 0));
		EXPECT_EQ_MEM(block, back, 2240);
		for (int i = 2240; i < 4096; i++)
			ASSERT_EQ_INT(0, back[i]);
		bfs_close(file);
		if (!again) {
			ASSERT_OK(bfs_unmount(f.w.fs));
			data_mount(&f.w, (struct bfs_mount_opts){ .size = sizeof(struct bfs_mount_opts), .flags = BFS_NO_SERVICE });
			file = data_open(&f.w, "/f", O_RDWR);
		}
	}
	data_end(&f.w);
}

TEST(bfs_data_errors, what_is_behind_an_old_end_is_covered_again_when_that_has_failed)
{
	raise_over_garbage(1, 0);
}

TEST(bfs_data_errors, an_end_is_not_lowered_while_garbage_behind_an_older_one_cannot_be_covered)
{
	raise_over_garbage(2, -EIO);
}

/* The size has passed the old end in memory, and what was to cover the garbage there failed, which was said. What makes a size durable
 * after that covers it again. */
enum raise { BY_TRUNCATE, BY_FALLOCATE, BY_APPEND, BY_NOTHING, AT_UNMOUNT };

static void raise_again(enum raise how, bool evict)
{
	uint64_t size = how <= BY_FALLOCATE ? 40000 : how == BY_NOTHING ? 20000 : 20100;
	struct bfs_file *file;
	struct faulty f;

	file = faulty_file(&f, 3200);
	ASSERT_OK(bfs_sync_range(file, 0, 0, true));
	ASSERT_OK(bfs_truncate(f.w.fs, NULL, bfs_file_ino(file), 2240));
	ASSERT_OK(bfs_fsync(file, false));
	ASSERT_OK(bfs_truncate(f.w.fs, NULL, bfs_file_ino(file), 20000));
	fail_data(&f, BDEV_WRITE, 1);
	ASSERT_OK(bfs_sync_range(file, 0, 0, true));
	if (evict)
		ASSERT_OK(bfs_advise(file, 0, 0, BFS_ADV_DONTNEED));
	if (how == BY_TRUNCATE)
		ASSERT_OK(bfs_truncate(f.w.fs, NULL, bfs_file_ino(file), size));
	else if (how == BY_FALLOCATE)
		ASSERT_OK(bfs_fallocate(file, 0, 20000, size - 20000));
	else if (how != BY_NOTHING)
		ASSERT_EQ_INT(100, bfs_append(file, block, 100));
	EXPECT_EQ_INT(size, bfs_file_size(file));
	if (how != AT_UNMOUNT) {
		ASSERT_ERR(-EIO, bfs_fsync(file, false)); /* the first one still has that to tell */
		ASSERT_OK(bfs_fsync(file, false));
	}
	bfs_close(file);
	ASSERT_ERR(-EIO, bfs_unmount(f.w.fs)); /* the same */
	data_mount(&f.w, (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
	file = data_open(&f.w, "/f", O_RDWR);
	EXPECT_EQ_INT(size, bfs_file_size(file));
	ASSERT_EQ_INT(4096, bfs_pread(file, back, 4096, 0));
	EXPECT_EQ_MEM(block, back, 2240);
	for (int i = 2240; i < 4096; i++)
		ASSERT_EQ_INT(0, back[i]);
	bfs_close(file);
	data_end(&f.w);
}

TEST(bfs_data_errors, no_raising_passes_an_old_end_that_could_not_be_covered)
{
	for (int i = 0; i < 2; i++) {
		test_note("by truncate");
		raise_again(BY_TRUNCATE, i);
		test_note("by fallocate");
		raise_again(BY_FALLOCATE, i);
	}
}

TEST(bfs_data_errors, a_size_that_passed_an_old_end_becomes_durable_when_that_can_be_covered_again)
{
	for (int i = 0; i < 2; i++) {
		test_note("by append, pages in memory %d", !i);
		raise_again(BY_APPEND, i);
		test_note("by fsync alone");
		raise_again(BY_NOTHING, i);
	}
	test_note("at the unmount");
	raise_again(AT_UNMOUNT, false);
}

/* Write-behind does not wait for a page to be read: what it cannot cover so, sync tells of, as long as there is anything of the file to sync. */
TEST(bfs_data_errors, sync_fails_while_a_size_cannot_become_durable)
{
	struct bfs_file *file;
	struct faulty f;

	file = faulty_file(&f, 3200);
	ASSERT_OK(bfs_sync_range(file, 0, 0, true));
	ASSERT_OK(bfs_truncate(f.w.fs, NULL, bfs_file_ino(file), 2240));
	ASSERT_OK(bfs_fsync(file, false));
	ASSERT_OK(bfs_truncate(f.w.fs, NULL, bfs_file_ino(file), 20000));
	fail_data(&f, BDEV_WRITE, 1);
	ASSERT_OK(bfs_sync_range(file, 0, 0, true));
	ASSERT_OK(bfs_advise(file, 0, 0, BFS_ADV_DONTNEED));
	ASSERT_ERR(-EIO, bfs_sync(f.w.fs));
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ_INT(100, bfs_append(file, block, 100));
		ASSERT_ERR(-EIO, bfs_sync(f.w.fs));
	}
	ASSERT_ERR(-EIO, bfs_fsync(file, false));
	ASSERT_OK(bfs_fsync(file, false));
	ASSERT_OK(bfs_sync(f.w.fs));
	bfs_close(file);
	data_end(&f.w);
}

/* The device does not take the block any more, nor does the log carry anything: each fsync says so, for none has made the size durable. */
TEST(bfs_data_errors, fsync_fails_as_long_as_an_old_end_cannot_be_covered)
{
	struct bfs_file *file;
	struct bs_blob *blob;
	struct bs_extent e;
	struct faulty f;

	file = faulty_file(&f, 3200);
	bfs_close(file);
	ASSERT_OK(bfs_unmount(f.w.fs));
	data_older(&f.w, BS_INCOMPAT_CARRIED);
	data_mount(&f.w, (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
	file = data_open(&f.w, "/f", O_RDWR);
	ASSERT_OK(bfs_truncate(f.w.fs, NULL, bfs_file_ino(file), 2240));
	ASSERT_OK(bfs_fsync(file, false));
	ASSERT_OK(bfs_truncate(f.w.fs, NULL, bfs_file_ino(file), 20000));
	blob = bs_blob_get(bfs_store(f.w.fs), bfs_file_ino(file));
	bs_map_lookup(blob, 0, 1, &e);
	bs_blob_put(blob);
	ASSERT_OK(bdev_fault_add(f.fault, &(struct bdev_fault){ .kind = BDEV_FAULT_ERROR, .op = BDEV_WRITE, .count = UINT64_MAX, .rc = -EIO,
								 .lo = e.phys * BS_BLOCK, .hi = (e.phys + 1) * BS_BLOCK }));
	for (int i = 0; i < 3; i++)
		ASSERT_ERR(-EIO, bfs_fsync(file, true));
	bdev_fault_clear(f.fault);
	ASSERT_OK(bfs_fsync(file, true));
	bfs_close(file);
	bfs_sync(f.w.fs); /* it tells of the failure, too */
	data_end(&f.w);
}

TEST(bfs_data_errors, a_failed_read_is_an_error_and_leaves_nothing_behind)
{
	struct bfs_cache_stat st;
	struct bfs_file *file, *direct;
	struct faulty f;

	file = faulty_file(&f, 100000);
	direct = data_open(&f.w, "/f", O_RDWR | O_DIRECT);
	ASSERT_OK(bfs_advise(file, 0, 0, BFS_ADV_DONTNEED));
	fail_data(&f, BDEV_READ, 1);
	ASSERT_ERR(-EIO, bfs_pread(file, back, 100000, 0));
	bdev_fault_clear(f.fault);
	bfs_get_cache_stat(f.w.fs, &st);
	ASSERT_EQ_INT(0, st.pages);
	fail_data(&f, BDEV_READ, 1);
	ASSERT_ERR(-EIO, bfs_pread(direct, back, 4096, 0));
	bdev_fault_clear(f.fault);
	fail_data(&f, BDEV_READ, 1);
	ASSERT_ERR(-EIO, bfs_pwrite(file, "x", 1, 5000)); /* the rest of the page cannot be had */
	bdev_fault_clear(f.fault);
	ASSERT_EQ_INT(100000, bfs_pread(file, back, 100000, 0));
	ASSERT_EQ_MEM(block, back, 100000);
	bfs_close(direct);
	bfs_close(file);
	data_end(&f.w);
}

TEST(bfs_data_errors, a_failed_direct_write_says_so)
{
	struct bfs_file *direct;
	struct faulty f;

	faulty_make(&f);
	direct = data_open(&f.w, "/f", O_RDWR | O_CREAT | O_DIRECT);
	fail_data(&f, BDEV_WRITE, 1);
	ASSERT_ERR(-EIO, bfs_pwrite(direct, block, 65536, 0));
	bdev_fault_clear(f.fault);
	ASSERT_EQ_INT(0, bfs_file_size(direct));
	ASSERT_EQ_INT(65536, bfs_pwrite(direct, block, 65536, 0));
	ASSERT_OK(bfs_fsync(direct, false));
	bfs_close(direct);
	data_end(&f.w);
}

TEST(bfs_data_errors, a_frozen_store_reads_and_refuses_the_rest)
{
	struct bfs_file *file;
	struct faulty f;

	file = faulty_file(&f, 50000);
	ASSERT_EQ_INT(10, bfs_pwrite(file, "0123456789", 10, 0));
	fail_data(&f, BDEV_WRITE, UINT64_MAX);
	ASSERT_LT_INT(bfs_fsync(file, false), 0);
	ASSERT_LT_INT(bfs_truncate(f.w.fs, NULL, bfs_file_ino(file), 100000),
		      1); /* may come before the freeze */
	ASSERT_LT_INT(bfs_fsync(file, false), 0);
	ASSERT_ERR(-EROFS, bfs_truncate(f.w.fs, NULL, bfs_file_ino(file), 1));
	ASSERT_ERR(-EROFS, bfs_fallocate(file, 0, 0, 1 << 20));
	ASSERT_ERR(-EROFS, bfs_pwrite(file, "x", 1, 0));
	bdev_fault_clear(f.fault);
	ASSERT_ERR(-EROFS, bfs_fsync(file, false));
	ASSERT_EQ_INT(100, bfs_pread(file, back, 100, 20000));
	ASSERT_EQ_MEM(block + 20000, back, 100);
	bfs_close(file);
	ASSERT_LT_INT(bfs_unmount(f.w.fs), 0);
	data_mount(&f.w, (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
	file = data_open(&f.w, "/f", O_RDWR);
	ASSERT_EQ_INT(50000, bfs_pread(file, back, 50000, 0));
	ASSERT_EQ_MEM(block + 10, back + 10, 49990);
	bfs_close(file);
	data_end(&f.w);
}

/* ---- no memory ---- */

static int one_of_each(struct world *w)
{
	struct bfs_file *file = NULL;
	struct bfs_queue *q = NULL;
	struct bfs_read many[2] = { { 0, 4096, back, 0 }, { 40000, 4096, back, 0 } };
	int64_t rc;

	rc = bfs_open_path(w->fs, NULL, "/f", O_RDWR | O_CREAT, 0644, BS_STREAM_UNKNOWN, &file);
	if (!rc && bfs_pwrite(file, block, 70000, 100) != 70000)
		rc = -ENOMEM;
	if (!rc)
		rc = bfs_fsync(file, false);
	if (!rc)
		rc = bfs_advise(file, 0, 0, BFS_ADV_DONTNEED);
	if (!rc)
		rc = bfs_read_many(file, many, 2);
	if (!rc && (many[0].result != 4096 || many[1].result != 4096))
		rc = -ENOMEM;
	if (!rc)
		rc = MIN(bfs_copy_range(file, 0, file, 200000, 50000), 0);
	if (!rc)
		rc = bfs_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5000, 20000);
	if (!rc)
		rc = bfs_truncate(w->fs, NULL, bfs_file_ino(file), 30001);
	if (!rc)
		rc = bfs_sync(w->fs);
	if (!rc)
		rc = bfs_queue_create(w->fs, &q);
	if (q)
		bfs_queue_destroy(q);
	if (file)
		bfs_close(file);
	return (int)rc;
}

TEST(bfs_data_errors, without_memory_nothing_breaks)
{
	struct bfs_file *file;
	struct world w;
	unsigned nth = 1;
	int rc;

	data_make(&w, "64M",
		  (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE, .cache_size = 4 * MiB });
	do {
		base_fail_alloc_after(nth);
		rc = one_of_each(&w);
		base_fail_alloc_after(0);
		ASSERT_TRUE(rc == 0 || rc == -ENOMEM || rc == -EIO);
		nth++;
	} while (rc && nth < 500);
	ASSERT_OK(rc);
	ASSERT_GT_INT(nth, 3);
	file = data_open(&w, "/f", O_RDWR);
	ASSERT_EQ_INT(30001, bfs_file_size(file));
	bfs_close(file);
	data_end(&w);
}
