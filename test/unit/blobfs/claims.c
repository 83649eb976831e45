/* SPDX-License-Identifier: BSD-2-Clause */
/* Space promised to cached writes of one cluster that come home one by one, while others take all there is (R7). */
#include "bdev/wrap.h"
#include "blobfs/data.h"
#include "test/unit/blobfs/data.h"

struct full {
	struct world w;
	struct bfs_file *file;
	uint64_t reserved;
};

/* A store of 16 KiB clusters; /f has its block 2, which is never written where it is: it has a checksum, or company. Then all but `left`
 * clusters are reserved by somebody else. */
static void begin(struct full *t, bool sums, uint64_t left, unsigned flags)
{
	struct bfs_format_opts format = { .size = sizeof(format), .store_flags = sums ? BS_FORMAT_SUMS : 0 };
	struct bfs_mount_opts opts = { .size = sizeof(opts), .writeback_ms = 3600000, .flags = flags };
	struct bfs_file *copy;
	char data[4096];

	t->reserved = 0;
	ASSERT_OK(bdev_open("ram:64M", NULL, &t->w.keep, &t->w.err));
	ASSERT_OK(bfs_format(t->w.keep, &format, &t->w.err));
	data_mount(&t->w, opts);
	t->file = data_open(&t->w, "/f", O_RDWR | O_CREAT);
	fill_bytes(data, sizeof(data), 1);
	ASSERT_EQ_INT(4096, bfs_pwrite(t->file, data, sizeof(data), 8192));
	ASSERT_OK(bfs_sync_range(t->file, 0, 0, true));
	if (!sums) {
		copy = data_open(&t->w, "/copy", O_RDWR | O_CREAT);
		ASSERT_OK(bfs_truncate(t->w.fs, NULL, bfs_file_ino(t->file), 65536));
		ASSERT_EQ_INT(65536, bfs_copy_range(t->file, 0, copy, 0, 65536));
		bfs_close(copy);
	}
	ASSERT_OK(bfs_sync(t->w.fs));
	while (!bs_reserve(bfs_store(t->w.fs), 1))
		t->reserved++;
	ASSERT_TRUE(t->reserved >= left);
	bs_unreserve(bfs_store(t->w.fs), left);
	t->reserved -= left;
}

static void end(struct full *t)
{
	bs_unreserve(bfs_store(t->w.fs), t->reserved);
	bfs_close(t->file);
	data_end(&t->w);
}

static void write_page(struct full *t, uint64_t page, uint64_t seed)
{
	char data[4096];

	fill_bytes(data, sizeof(data), seed);
	ASSERT_EQ_INT(4096, bfs_pwrite(t->file, data, sizeof(data), page * 4096));
}

static void expect_page(struct full *t, uint64_t page, uint64_t seed)
{
	char data[4096], is[4096];

	fill_bytes(data, sizeof(data), seed);
	ASSERT_OK(bfs_advise(t->file, 0, 0, BFS_ADV_DONTNEED));
	ASSERT_EQ_INT(4096, bfs_pread(t->file, is, sizeof(is), page * 4096));
	EXPECT_EQ_INT(0, memcmp(data, is, sizeof(is)));
}

/* Page 0 has room beside block 2, page 2 has none: what was reserved for both is not given away when page 0 did not need it. */
static void one_fills_a_hole(bool sums)
{
	struct full t;

	begin(&t, sums, 1, 0);
	write_page(&t, 0, 3);
	write_page(&t, 2, 4);
	ASSERT_OK(bfs_sync_range(t.file, 0, 4096, true));
	EXPECT_ERR(-ENOSPC, bs_reserve(bfs_store(t.w.fs), 1));
	EXPECT_OK(bfs_sync_range(t.file, 8192, 4096, true));
	EXPECT_OK(bfs_fsync(t.file, false));
	expect_page(&t, 0, 3);
	expect_page(&t, 2, 4);
	end(&t);
}

TEST(bfs_claims, what_a_page_in_an_old_hole_did_not_need_is_there_for_one_that_moves_from_its_checksum)
{
	one_fills_a_hole(true);
}

TEST(bfs_claims, what_a_page_in_an_old_hole_did_not_need_is_there_for_one_that_moves_from_company)
{
	one_fills_a_hole(false);
}

/* Both are on their way at once, and the one that was gathered last is placed first. */
TEST(bfs_claims, pages_of_a_cluster_are_placed_in_any_order)
{
	struct bdev_channel *ch;
	struct bfs_inode *inode;
	struct bfs_unit *first, *second;
	struct full t;
	uint64_t next = 0;

	begin(&t, true, 1, BFS_NO_SERVICE);
	write_page(&t, 0, 3);
	write_page(&t, 2, 4);
	ASSERT_OK(bfs_inode_get(t.w.fs, bfs_file_ino(t.file), &inode));
	ch = bdev_channel_borrow(t.w.keep);
	ASSERT_OK(bfs_wb_gather(inode, &next, 3, ch, &first));
	ASSERT_OK(bfs_wb_gather(inode, &next, 3, ch, &second));
	ASSERT_TRUE(first && second);
	ASSERT_EQ_INT(2, second->first);
	bfs_unit_start(second, ch, NULL);
	bfs_unit_start(first, ch, NULL);
	while (atomic_load(&t.w.fs->cache->n_background))
		bdev_poll(ch);
	bdev_channel_return(ch);
	EXPECT_OK(atomic_load(&inode->wb_error));
	bfs_inode_put(inode);
	EXPECT_OK(bfs_fsync(t.file, false));
	expect_page(&t, 0, 3);
	expect_page(&t, 2, 4);
	end(&t);
}

/* Nothing is held any more when nothing is dirty, however the pages went home, or did not. */
TEST(bfs_claims, nothing_is_left_of_them_when_all_is_home)
{
	struct full t;
	uint64_t state = 7, left = 64;
	unsigned tries = 0;

	begin(&t, true, left, 0);
	for (unsigned i = 0; i < 2000; i++) {
		uint64_t page = rnd(&state) % 32;

		switch (rnd(&state) % 8) {
		case 0:
			ASSERT_OK(bfs_sync_range(t.file, page * 4096, 4096, rnd(&state) % 2));
			break;
		case 1:
			ASSERT_OK(bfs_fallocate(t.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page * 4096, 8192));
			break;
		case 2:
			ASSERT_OK(bfs_truncate(t.w.fs, NULL, bfs_file_ino(t.file), page * 4096));
			break;
		default:
			write_page(&t, page, i);
		}
	}
	EXPECT_OK(bfs_fsync(t.file, false));
	EXPECT_OK(bfs_sync_range(t.file, 0, 0, true));
	ASSERT_OK(bfs_truncate(t.w.fs, NULL, bfs_file_ino(t.file), 0));
	ASSERT_OK(bfs_sync(t.w.fs));
	while (bs_reserve(bfs_store(t.w.fs), left) && ++tries < 100) {
		ASSERT_OK(bfs_sync(t.w.fs)); /* what was freed comes back when that is durable */
		usleep(20000);
	}
	ASSERT_TRUE(tries < 100);
	bs_unreserve(bfs_store(t.w.fs), left);
	end(&t);
}

/* Somebody else takes what there is, if there is any. */
static void take_the_rest(struct full *t)
{
	struct bfs_file *other = data_open(&t->w, "/other", O_RDWR | O_CREAT);
	int rc = bfs_fallocate(other, 0, 0, 4096);

	EXPECT_TRUE(!rc || rc == -ENOSPC);
	bfs_close(other);
}

/* Page 6 was to be written beside page 4, or 4 beside 6, in the cluster that the other took; that goes away. */
static void first_is_cut_off(bool sums, bool punched)
{
	uint64_t gone = punched ? 4 : 6, kept = punched ? 6 : 4;
	struct full t;

	begin(&t, sums, 1, 0);
	write_page(&t, gone, 3);
	write_page(&t, kept, 4);
	ASSERT_OK(bfs_sync_range(t.file, gone * 4096, 4096, true));
	if (punched)
		ASSERT_OK(bfs_fallocate(t.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, gone * 4096, 4096));
	else
		ASSERT_OK(bfs_truncate(t.w.fs, NULL, bfs_file_ino(t.file), gone * 4096));
	take_the_rest(&t);
	EXPECT_OK(bfs_sync_range(t.file, 0, 0, true));
	EXPECT_OK(bfs_fsync(t.file, false));
	expect_page(&t, kept, 4);
	end(&t);
}

TEST(bfs_claims, punching_the_page_that_took_the_cluster_leaves_room_for_the_others)
{
	first_is_cut_off(false, true);
	first_is_cut_off(true, true);
}

TEST(bfs_claims, cutting_off_the_page_that_took_the_cluster_leaves_room_for_the_others)
{
	first_is_cut_off(false, false);
	first_is_cut_off(true, false);
}

/* The same while page 6 is in a write-back that has no place yet; there is a cluster for it as long as nobody else asks. */
TEST(bfs_claims, punching_the_page_that_took_the_cluster_leaves_room_for_one_on_its_way)
{
	struct bdev_channel *ch;
	struct bfs_inode *inode;
	struct bfs_unit *unit;
	uint64_t next = 6;
	struct full t;

	begin(&t, false, 2, BFS_NO_SERVICE);
	write_page(&t, 4, 3);
	write_page(&t, 6, 4);
	ASSERT_OK(bfs_sync_range(t.file, 16384, 4096, true));
	ASSERT_OK(bfs_inode_get(t.w.fs, bfs_file_ino(t.file), &inode));
	ch = bdev_channel_borrow(t.w.keep);
	ASSERT_OK(bfs_wb_gather(inode, &next, 6, ch, &unit));
	ASSERT_TRUE(unit);
	ASSERT_OK(bfs_fallocate(t.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 16384, 4096));
	while (!bs_reserve(bfs_store(t.w.fs), 1))
		t.reserved++;
	bfs_unit_start(unit, ch, NULL);
	while (atomic_load(&t.w.fs->cache->n_background))
		bdev_poll(ch);
	bdev_channel_return(ch);
	EXPECT_OK(atomic_load(&inode->wb_error));
	bfs_inode_put(inode);
	EXPECT_OK(bfs_fsync(t.file, false));
	expect_page(&t, 6, 4);
	end(&t);
}

/*
 * Page 0 went from beside block 2 to a cluster of its own, and page 2 was to be written there, for its own place has its old bytes. A write past the
 * cache takes page 0 back to where it was.
 */
TEST(bfs_claims, a_direct_write_that_moves_the_page_that_took_the_cluster_leaves_room_for_the_others)
{
	char *data = aligned_alloc(4096, 4096);
	struct bfs_file *direct;
	struct full t;

	begin(&t, true, 1, 0);
	write_page(&t, 0, 3);
	ASSERT_OK(bfs_sync_range(t.file, 0, 4096, true));
	write_page(&t, 0, 4);
	write_page(&t, 2, 5);
	ASSERT_OK(bfs_sync_range(t.file, 0, 4096, true));
	take_the_rest(&t);
	direct = data_open(&t.w, "/f", O_RDWR | O_DIRECT);
	fill_bytes(data, 4096, 6);
	ASSERT_EQ_INT(4096, bfs_pwrite(direct, data, 4096, 0));
	bfs_close(direct);
	take_the_rest(&t);
	EXPECT_OK(bfs_sync_range(t.file, 0, 0, true));
	EXPECT_OK(bfs_fsync(t.file, false));
	expect_page(&t, 0, 6);
	expect_page(&t, 2, 5);
	free(data);
	end(&t);
}
/* A page in each cluster, as long as there is room. */
static void write_all_over(struct world *w, struct bfs_file *file)
{
	static const char data[4096];
	struct bs_stat st;

	bs_get_stat(bfs_store(w->fs), &st);
	for (uint64_t page = 0; st.avail_blocks > 64; page++) {
		ASSERT_EQ_INT(4096, bfs_pwrite(file, data, sizeof(data), page * 16384));
		bs_get_stat(bfs_store(w->fs), &st);
	}
}

/* Files with attributes, which take no space for data, only for the log and checkpoints. */
TEST(bfs_claims, what_makes_metadata_grow_does_not_take_it_from_what_is_dirty)
{
	static const char value[2000];
	struct bfs_mount_opts opts = { .writeback_ms = 3600000, .cache_size = 256 * MiB };
	struct bfs_file *file, *other;
	unsigned files = 0;
	struct world w;
	char name[32];
	int rc = 0;

	data_make(&w, "64M", opts);
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	write_all_over(&w, file);
	while (!rc) {
		ASSERT_LT_INT(files, 100000);
		snprintf(name, sizeof(name), "/%u", files++);
		rc = bfs_open_path(w.fs, NULL, name, O_RDWR | O_CREAT, 0644, BS_STREAM_UNKNOWN, &other);
		if (!rc) {
			rc = bfs_setxattr(w.fs, NULL, bfs_file_ino(other), "user.x", value, sizeof(value), 0);
			bfs_close(other);
		}
	}
	EXPECT_ERR(-ENOSPC, rc);
	EXPECT_OK(bfs_fsync(file, false));
	bfs_close(file);
	data_end(&w);
}
