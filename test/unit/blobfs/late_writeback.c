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
