/* SPDX-License-Identifier: BSD-2-Clause */
/* A write-back that was gathered and has to wait before its places are chosen, while its file is cut off. */
#include "bdev/wrap.h"
#include "blobfs/data.h"
#include "test/unit/blobfs/data.h"

/* Page 1 is cut off, comes again, goes home, and is cut in the middle. The old write-back, which still has the first page 1, must
 * not pass for one that has covered the garbage. */
TEST(bfs_late_writeback, a_page_cut_off_meanwhile_settles_no_garbage_of_a_later_one)
{
	struct bdev_channel *ch;
	struct bfs_inode *inode;
	struct bfs_file *file;
	struct bfs_unit *unit;
	struct world w;
	uint64_t next = 0;
	char data[12288];

	data_make(&w, "64M", (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	memset(data, 'a', sizeof(data));
	ASSERT_EQ_INT(sizeof(data), bfs_pwrite(file, data, sizeof(data), 0));
	ASSERT_OK(bfs_inode_get(w.fs, bfs_file_ino(file), &inode));
	ch = bdev_channel_borrow(w.keep);
	ASSERT_OK(bfs_wb_gather(inode, &next, 2, ch, &unit));
	ASSERT_EQ_INT(3, unit->n);

	ASSERT_OK(bfs_truncate(w.fs, NULL, inode->ino, 4096));
	memset(data, 'b', sizeof(data));
	ASSERT_EQ_INT(8192, bfs_pwrite(file, data, 8192, 4096));
	ASSERT_OK(bfs_sync_range(file, 4096, 8192, true));
	ASSERT_OK(bfs_truncate(w.fs, NULL, inode->ino, 6000));
	ASSERT_EQ_INT(6000, atomic_load(&inode->stale_end));

	bfs_unit_start(unit, ch, NULL);
	while (atomic_load(&w.fs->cache->n_background))
		bdev_poll(ch);
	EXPECT_EQ_INT(6000, atomic_load(&inode->stale_end));
	ASSERT_OK(bfs_fsync(file, false));

	bdev_channel_return(ch);
	bfs_inode_put(inode);
	ASSERT_OK(bfs_advise(file, 0, 0, BFS_ADV_DONTNEED));
	ASSERT_OK(bfs_truncate(w.fs, NULL, bfs_file_ino(file), sizeof(data)));
	ASSERT_EQ_INT(sizeof(data), bfs_pread(file, data, sizeof(data), 0));
	for (size_t i = 0; i < sizeof(data); i++)
		ASSERT_EQ_INT(i < 4096 ? 'a' : i < 6000 ? 'b' : 0, data[i]);
	bfs_close(file);
	data_end(&w);
}

/* What is appended to a page that write-back has taken is not written with it, or at least not for certain: the durable size does not tell
 * of it, or a power cut would leave zeroes at the end of the file. */
TEST(bfs_late_writeback, what_is_appended_meanwhile_is_not_in_the_durable_size)
{
	struct bdev_channel *ch;
	struct bfs_inode *inode;
	struct bfs_file *file;
	struct bfs_unit *unit;
	struct bfs_attr attr;
	struct world w;
	uint64_t next = 0;
	char data[6000];

	data_make(&w, "64M", (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	memset(data, 'a', sizeof(data));
	ASSERT_EQ_INT(5000, bfs_append(file, data, 5000));
	ASSERT_OK(bfs_inode_get(w.fs, bfs_file_ino(file), &inode));
	ch = bdev_channel_borrow(w.keep);
	ASSERT_OK(bfs_wb_gather(inode, &next, 1, ch, &unit));
	ASSERT_EQ_INT(2, unit->n);
	ASSERT_EQ_INT(100, bfs_append(file, data, 100));
	bfs_unit_start(unit, ch, NULL);
	while (atomic_load(&w.fs->cache->n_background))
		bdev_poll(ch);
	EXPECT_EQ_INT(5000, atomic_load(&inode->disk_size));
	ASSERT_OK(bfs_inode_settle(inode, false));
	EXPECT_EQ_INT(5000, atomic_load(&inode->disk_size));

	ASSERT_OK(bfs_fsync(file, false));
	EXPECT_EQ_INT(5100, atomic_load(&inode->disk_size));
	ASSERT_OK(bfs_sync(w.fs));
	ASSERT_EQ_INT(100, bfs_append(file, data, 100)); /* into a page that is at its place */
	next = 0;
	ASSERT_OK(bfs_wb_gather(inode, &next, 1, ch, &unit));
	ASSERT_EQ_INT(1, unit->n);
	ASSERT_EQ_INT(100, bfs_append(file, data, 100));
	bfs_unit_start(unit, ch, NULL);
	while (atomic_load(&w.fs->cache->n_background))
		bdev_poll(ch);
	ASSERT_OK(bs_commit(bfs_store(w.fs), 0));

	bdev_channel_return(ch);
	bfs_inode_put(inode);
	bfs_close(file);
	bfs_abandon(w.fs);
	data_mount(&w, (struct bfs_mount_opts){ .flags = BFS_NO_SERVICE });
	ASSERT_OK(bfs_lookup(w.fs, NULL, ROOT, "f", &attr));
	EXPECT_EQ_INT(5200, attr.size);
	data_end(&w);
}

/* Until nobody finds space any more. */
static void take_all_space(struct world *w, struct bfs_file *file, uint64_t *reserved)
{
	uint64_t n = 0;

	for (uint64_t size = 64 * MiB; size >= 4096; size /= 2)
		while (!bfs_fallocate(file, 0, n, size))
			n += size;
	while (!bs_reserve(bfs_store(w->fs), 1))
		++*reserved;
}

/* A file system with checksums of data, on a device whose writes can be slowed, that writes nothing back by itself. */
static void mount_with_sums(struct world *w)
{
	struct bfs_format_opts format = { .size = sizeof(format), .store_flags = BS_FORMAT_SUMS };
	struct bfs_mount_opts opts = { .size = sizeof(opts), .writeback_ms = 60000 };
	struct bdev *device;

	ASSERT_OK(bdev_open("ram:64M", NULL, &device, &w->err));
	ASSERT_OK(bdev_fault_create(device, &w->keep));
	ASSERT_OK(bfs_format(w->keep, &format, &w->err));
	data_mount(w, opts);
}

/*
 * A preallocated block of a store with checksums takes its first write where it is, and no other. A page that is written to again while that
 * first one is on its way finds no space: it says so at once, or it has some when it is written home.
 */
TEST(bfs_late_writeback, a_page_changed_while_its_preallocated_block_gets_a_checksum_has_space_or_is_refused)
{
	struct bdev_fault slow = { .kind = BDEV_FAULT_DELAY, .op = BDEV_WRITE, .count = 1, .delay_ms = 300 };
	struct bfs_file *file;
	struct world w;
	uint64_t reserved = 0;
	char data[4096];
	int64_t rc;

	mount_with_sums(&w);
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	take_all_space(&w, file, &reserved);
	ASSERT_OK(bfs_sync(w.fs));
	memset(data, 'a', sizeof(data));
	ASSERT_EQ_INT(sizeof(data), bfs_pwrite(file, data, sizeof(data), 0));
	ASSERT_OK(bdev_fault_add(w.keep, &slow));
	ASSERT_OK(bfs_sync_range(file, 0, 4096, false));
	ASSERT_EQ_INT(1, atomic_load(&w.fs->cache->n_writing));
	memset(data, 'b', sizeof(data));
	rc = bfs_pwrite(file, data, sizeof(data), 0);
	EXPECT_TRUE(rc == -ENOSPC || rc == sizeof(data));
	EXPECT_OK(bfs_fsync(file, false));
	bs_unreserve(bfs_store(w.fs), reserved);
	bfs_close(file);
	data_end(&w);
}

static void *write_past(void *arg)
{
	char *data = aligned_alloc(4096, 4096);

	memset(data, 'd', 4096);
	EXPECT_EQ_INT(4096, bfs_pwrite(arg, data, 4096, 0));
	free(data);
	return NULL;
}

/* The same beside a write past the cache, which is what gives the block a checksum. */
TEST(bfs_late_writeback, a_page_changed_while_a_direct_write_gives_its_preallocated_block_a_checksum_has_space_or_is_refused)
{
	struct bdev_fault slow = { .kind = BDEV_FAULT_DELAY, .op = BDEV_WRITE, .count = 1, .delay_ms = 300 };
	struct bfs_file *file, *direct;
	struct world w;
	pthread_t thread;
	uint64_t reserved = 0;
	char data[4096];
	int64_t rc;

	mount_with_sums(&w);
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	direct = data_open(&w, "/f", O_RDWR | O_DIRECT);
	take_all_space(&w, file, &reserved);
	ASSERT_OK(bfs_sync(w.fs));
	ASSERT_OK(bdev_fault_add(w.keep, &slow));
	ASSERT_EQ_INT(0, pthread_create(&thread, NULL, write_past, direct));
	usleep(100000);
	memset(data, 'b', sizeof(data));
	rc = bfs_pwrite(file, data, sizeof(data), 0);
	EXPECT_TRUE(rc == -ENOSPC || rc == sizeof(data));
	pthread_join(thread, NULL);
	EXPECT_OK(bfs_fsync(file, false));
	bs_unreserve(bfs_store(w.fs), reserved);
	bfs_close(direct);
	bfs_close(file);
	data_end(&w);
}

/* The device is slow: who only starts the write-back does not wait for it, and nobody else has to see it through. */
TEST(bfs_late_writeback, started_without_waiting_it_goes_on_by_itself)
{
	struct bdev_fault slow = { .kind = BDEV_FAULT_DELAY, .op = BDEV_WRITE, .count = 1, .delay_ms = 1000 };
	struct bfs_mount_opts opts = { .size = sizeof(opts), .writeback_ms = 60000 };
	struct bdev *device;
	struct bfs_file *file;
	struct world w;
	char data[65536];

	ASSERT_OK(bdev_open("ram:64M", NULL, &device, &w.err));
	ASSERT_OK(bdev_fault_create(device, &w.keep));
	ASSERT_OK(bfs_format(w.keep, NULL, &w.err));
	data_mount(&w, opts);
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	memset(data, 'a', sizeof(data));
	ASSERT_EQ_INT(sizeof(data), bfs_pwrite(file, data, sizeof(data), 0));
	ASSERT_OK(bdev_fault_add(w.keep, &slow));
	ASSERT_OK(bfs_sync_range(file, 0, 0, false));
	EXPECT_EQ_INT(16, atomic_load(&w.fs->cache->n_writing));
	for (int i = 0; i < 10000 && atomic_load(&w.fs->cache->n_writing); i++)
		usleep(1000);
	EXPECT_EQ_INT(0, atomic_load(&w.fs->cache->n_writing));
	EXPECT_EQ_INT(0, atomic_load(&w.fs->cache->n_dirty));
	bfs_close(file);
	data_end(&w);
}
