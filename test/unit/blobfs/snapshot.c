/* SPDX-License-Identifier: BSD-2-Clause */
/* Copies of files and trees that share their blocks. */
#include <pthread.h>
#include <stdatomic.h>

#include "test/unit/blobfs/data.h"

static void put(struct world *w, const char *path, const void *data, size_t len, uint64_t offset)
{
	struct bfs_file *f = data_open(w, path, O_RDWR | O_CREAT);

	ASSERT_EQ_INT((int64_t)len, bfs_pwrite(f, data, len, offset));
	bfs_close(f);
}

static void fill(struct world *w, const char *path, size_t len, uint64_t seed)
{
	uint8_t *buf = malloc(len);

	fill_bytes(buf, len, seed);
	put(w, path, buf, len, 0);
	free(buf);
}

static bool is_filled(struct world *w, const char *path, size_t len, uint64_t seed)
{
	uint8_t *want = malloc(len), *is = malloc(len + 1);
	struct bfs_file *f = data_open(w, path, O_RDONLY);
	bool same;

	fill_bytes(want, len, seed);
	same = bfs_pread(f, is, len + 1, 0) == (int64_t)len && !memcmp(want, is, len);
	bfs_close(f);
	free(want);
	free(is);
	return same;
}

static struct bfs_attr attr_of(struct world *w, const char *path)
{
	struct bfs_attr attr = { .ino = 0 };

	ASSERT_OK(bfs_resolve(w->fs, NULL, path, BFS_NOFOLLOW, &attr));
	return attr;
}

static int snap(struct world *w, const char *from, const char *to, uint32_t flags)
{
	char name[BFS_NAME_MAX + 1];
	struct bfs_attr attr, out;
	uint64_t dir;
	int rc;

	ASSERT_OK(bfs_resolve(w->fs, NULL, from, BFS_NOFOLLOW, &attr));
	ASSERT_OK(bfs_resolve_parent(w->fs, NULL, to, &dir, name));
	rc = bfs_snapshot(w->fs, NULL, attr.ino, dir, name, flags, &out);
	if (!rc)
		EXPECT_EQ_INT(attr.mode, out.mode);
	return rc;
}

static uint64_t used(struct world *w)
{
	struct bs_stat st;

	ASSERT_OK(bfs_sync(w->fs));
	bs_get_stat(bfs_store(w->fs), &st);
	return st.used_blocks;
}

/* A tree with a bit of everything; nothing of it synced. */
static void make_tree(struct world *w)
{
	struct bfs_attr attr;

	ASSERT_OK(bfs_make_path(w->fs, NULL, "/t/sub/deep", 0755));
	fill(w, "/t/a", 100000, 1);
	fill(w, "/t/sub/b", 5000, 2);
	fill(w, "/t/sub/deep/empty", 0, 3);
	attr = attr_of(w, "/t/a");
	ASSERT_OK(bfs_link(w->fs, NULL, attr.ino, attr_of(w, "/t/sub").ino, "hard", 0, NULL));
	ASSERT_OK(bfs_symlink(w->fs, NULL, attr_of(w, "/t").ino, "link", "sub/b", 0, NULL));
	ASSERT_OK(bfs_mknod(w->fs, NULL, attr_of(w, "/t").ino, "fifo", S_IFIFO | 0600, 0, 0, NULL));
	ASSERT_OK(bfs_setxattr(w->fs, NULL, attr.ino, "user.x", "value", 5, 0));
}

static void check_tree(struct world *w, const char *top, const char *hard, const char *sub)
{
	struct bfs_attr a, b;
	char value[16];

	EXPECT_TRUE(is_filled(w, hard, 100000, 1));
	a = attr_of(w, top);
	b = attr_of(w, hard);
	EXPECT_EQ_INT(a.ino, b.ino);
	EXPECT_EQ_INT(2, a.nlink);
	EXPECT_EQ_INT(5, bfs_getxattr(w->fs, a.ino, "user.x", value, sizeof(value)));
	EXPECT_EQ_INT(3, attr_of(w, sub).nlink);
}

TEST(blobfs_snapshot, a_tree_is_copied_with_all_it_holds_and_stays_as_it_was)
{
	struct world w;
	uint64_t before;
	char target[16];

	data_make(&w, "64M", (struct bfs_mount_opts){ .cache_size = 8 * MiB });
	make_tree(&w);
	EXPECT_OK(snap(&w, "/t", "/s", BFS_SNAP_SEALED));
	before = used(&w);
	EXPECT_EQ_INT(27, before); /* 25 and 2 blocks, once */
	check_tree(&w, "/s/a", "/s/sub/hard", "/s/sub");
	EXPECT_TRUE(is_filled(&w, "/s/link", 5000, 2));
	EXPECT_EQ_INT(5, bfs_readlink(w.fs, attr_of(&w, "/s/link").ino, target, sizeof(target)));
	fill(&w, "/t/a", 100000, 7);
	ASSERT_OK(bfs_truncate(w.fs, NULL, attr_of(&w, "/t/sub/b").ino, 17));
	ASSERT_OK(bfs_unlink(w.fs, NULL, attr_of(&w, "/t").ino, "link"));
	EXPECT_TRUE(is_filled(&w, "/s/sub/b", 5000, 2));
	check_tree(&w, "/s/a", "/s/sub/hard", "/s/sub");
	EXPECT_TRUE(is_filled(&w, "/t/a", 100000, 7));
	EXPECT_EQ_INT(before + 25, used(&w));
	ASSERT_OK(bfs_unmount(w.fs));
	data_mount(&w, (struct bfs_mount_opts){ .cache_size = 8 * MiB });
	check_tree(&w, "/s/a", "/s/sub/hard", "/s/sub");
	EXPECT_TRUE(is_filled(&w, "/t/a", 100000, 7));
	data_end(&w);
}

TEST(blobfs_snapshot, nobody_writes_to_a_sealed_copy_and_it_can_be_removed)
{
	struct bfs_file *f;
	struct world w;

	data_make(&w, "64M", (struct bfs_mount_opts){ .cache_size = 8 * MiB });
	fill(&w, "/a", 10000, 1);
	ASSERT_OK(snap(&w, "/a", "/s", BFS_SNAP_SEALED));
	EXPECT_ERR(-EROFS, bfs_open_path(w.fs, NULL, "/s", O_RDWR, 0, BS_STREAM_UNKNOWN, &f));
	EXPECT_ERR(-EROFS, bfs_open_path(w.fs, NULL, "/s", O_RDONLY | O_TRUNC, 0, BS_STREAM_UNKNOWN, &f));
	EXPECT_ERR(-EROFS, bfs_truncate(w.fs, NULL, attr_of(&w, "/s").ino, 5));
	ASSERT_OK(bfs_setattr(w.fs, NULL, attr_of(&w, "/s").ino, &(struct bfs_attr){ .mode = 0400 }, BFS_SET_MODE, NULL));
	ASSERT_OK(bfs_sync(w.fs));
	EXPECT_TRUE(is_filled(&w, "/s", 10000, 1));
	/* A clone of it can be written. */
	ASSERT_OK(snap(&w, "/s", "/c", 0));
	fill(&w, "/c", 10000, 3);
	EXPECT_TRUE(is_filled(&w, "/s", 10000, 1));
	ASSERT_OK(bfs_unlink(w.fs, NULL, ROOT, "s"));
	ASSERT_OK(bfs_unlink(w.fs, NULL, ROOT, "a"));
	EXPECT_TRUE(is_filled(&w, "/c", 10000, 3));
	/* What both let go is known when it is released, at the latest at the end. */
	ASSERT_OK(bfs_unmount(w.fs));
	data_mount(&w, (struct bfs_mount_opts){ .cache_size = 8 * MiB });
	EXPECT_EQ_INT(3, used(&w));
	data_end(&w);
}

TEST(blobfs_snapshot, the_directory_it_goes_to_is_left_out)
{
	struct bfs_attr attr;
	struct world w;

	data_make(&w, "64M", (struct bfs_mount_opts){ .cache_size = 8 * MiB });
	make_tree(&w);
	ASSERT_OK(bfs_make_path(w.fs, NULL, "/.snapshots", 0755));
	ASSERT_OK(snap(&w, "/", "/.snapshots/1", BFS_SNAP_SEALED));
	ASSERT_OK(snap(&w, "/", "/.snapshots/2", 0));
	EXPECT_TRUE(is_filled(&w, "/.snapshots/2/t/sub/b", 5000, 2));
	EXPECT_ERR(-ENOENT, bfs_resolve(w.fs, NULL, "/.snapshots/2/.snapshots", 0, &attr));
	EXPECT_ERR(-EEXIST, snap(&w, "/t", "/.snapshots/2", 0));
	EXPECT_EQ_INT(3, attr_of(&w, "/.snapshots/2").nlink);
	EXPECT_EQ_INT(4, attr_of(&w, "/.snapshots").nlink);
	data_end(&w);
}

TEST(blobfs_snapshot, only_the_privileged_copy_what_belongs_to_others)
{
	struct bfs_cred cred = { .uid = 1000, .gid = 1000 };
	struct world w;

	data_make(&w, "64M", (struct bfs_mount_opts){ .cache_size = 8 * MiB });
	fill(&w, "/a", 10000, 1);
	EXPECT_ERR(-EPERM, bfs_snapshot(w.fs, &cred, attr_of(&w, "/a").ino, ROOT, "b", 0, NULL));
	EXPECT_ERR(-ENOENT, bfs_snapshot(w.fs, NULL, 999, ROOT, "b", 0, NULL));
	EXPECT_ERR(-ENOTDIR, bfs_snapshot(w.fs, NULL, ROOT, attr_of(&w, "/a").ino, "b", 0, NULL));
	data_end(&w);
}

/* What was acknowledged by write() finds a place, though its file was copied since: or the copy is refused. */
TEST(blobfs_snapshot, dirty_pages_of_a_copied_file_have_space_of_their_own)
{
	struct bfs_file *a, *f;
	uint64_t size = 0;
	struct world w;
	static uint8_t buf[65536];
	int rc;

	data_make(&w, "48M", (struct bfs_mount_opts){ .cache_size = 16 * MiB, .writeback_ms = 3600000, .flags = BFS_NO_SERVICE });
	fill(&w, "/a", MiB, 1);
	f = data_open(&w, "/filler", O_RDWR | O_CREAT);
	while (bfs_pwrite(f, buf, sizeof(buf), size) == (int64_t)sizeof(buf)) {
		size += sizeof(buf);
		if (size % (4 * MiB) == 0)
			ASSERT_OK(bfs_sync(w.fs));
	}
	ASSERT_OK(bfs_sync(w.fs));
	bfs_close(f);
	a = data_open(&w, "/a", O_RDWR);
	rc = snap(&w, "/a", "/s", BFS_SNAP_SEALED);
	test_note("snapshot on a full store: %d", rc);
	if (!rc) {
		/* No space: said by the write, not lost by write-back. */
		for (uint64_t at = 0; at < MiB && !rc; at += 4096)
			rc = bfs_pwrite(a, buf, 4096, at) < 0 ? -ENOSPC : 0;
		EXPECT_ERR(-ENOSPC, rc);
	}
	EXPECT_OK(bfs_fsync(a, false));
	bfs_close(a);
	if (rc == -ENOSPC)
		EXPECT_TRUE(is_filled(&w, "/s", MiB, 1));
	data_end(&w);
}

TEST(blobfs_snapshot, without_memory_nothing_is_copied)
{
	struct bfs_attr attr;
	struct world w;
	int rc = -ENOMEM, fails = 0;

	data_make(&w, "64M", (struct bfs_mount_opts){ .cache_size = 8 * MiB });
	make_tree(&w);
	ASSERT_OK(bfs_sync(w.fs));
	for (int i = 1; rc && i < 3000; i++) {
		base_fail_alloc_after(i);
		rc = snap(&w, "/t", "/s", 0);
		base_fail_alloc_after(0);
		if (rc) {
			ASSERT_ERR(-ENOMEM, rc);
			ASSERT_ERR(-ENOENT, bfs_resolve(w.fs, NULL, "/s", 0, &attr));
			fails++;
		}
	}
	EXPECT_OK(rc);
	EXPECT_GT_INT(fails, 10);
	check_tree(&w, "/s/a", "/s/sub/hard", "/s/sub");
	data_end(&w);
}

/* ---- beside those who use the tree ---- */

struct busy {
	struct world w;
	_Atomic bool stop;
	_Atomic unsigned synced; /* a record of this number is durable in the log */
};

/* Appends records of 100 bytes, all of the same number, and syncs now and then. */
static void *appender(void *arg)
{
	struct busy *b = arg;
	struct bfs_file *f = data_open(&b->w, "/db/log", O_RDWR | O_CREAT);
	uint8_t rec[100];

	for (unsigned n = 1; !atomic_load(&b->stop) && n < 20000; n++) {
		memset(rec, (int)(n % 250) + 1, sizeof(rec));
		ASSERT_EQ_INT(100, bfs_append(f, rec, sizeof(rec)));
		if (n % 20 == 0) {
			ASSERT_OK(bfs_fsync(f, true));
			atomic_store(&b->synced, n);
		}
	}
	bfs_close(f);
	return NULL;
}

static void *renamer(void *arg)
{
	struct busy *b = arg;
	uint64_t dir = attr_of(&b->w, "/db").ino;

	for (unsigned n = 0; !atomic_load(&b->stop); n++) {
		fill(&b->w, "/db/new", 9000, 5);
		ASSERT_OK(bfs_fsync_ino(b->w.fs, attr_of(&b->w, "/db/new").ino, false));
		ASSERT_OK(bfs_rename(b->w.fs, NULL, dir, "new", dir, "current", 0));
	}
	return NULL;
}

/* The log goes on in order as far as it was synced before the copy, and so far as it goes holds nothing else. */
static void check_log(struct busy *b, const char *path, unsigned synced)
{
	struct bfs_file *f = data_open(&b->w, path, O_RDONLY);
	uint64_t size = bfs_file_size(f);
	uint8_t rec[100];

	EXPECT_GE_INT(size, synced * 100ull);
	for (unsigned n = 1; n <= synced; n++) {
		ASSERT_EQ_INT(100, bfs_pread(f, rec, 100, (n - 1) * 100ull));
		ASSERT_EQ_INT((int)(n % 250) + 1, rec[0]);
		ASSERT_EQ_INT((int)(n % 250) + 1, rec[99]);
	}
	bfs_close(f);
}

TEST(blobfs_snapshot_threads, a_tree_in_use_is_copied_with_all_that_was_synced)
{
	struct busy *b = calloc(1, sizeof(*b));
	pthread_t thread[2];
	char name[32];

	data_make(&b->w, "256M", (struct bfs_mount_opts){ .cache_size = 16 * MiB, .writeback_ms = 2 });
	ASSERT_OK(bfs_make_path(b->w.fs, NULL, "/db", 0755));
	fill(&b->w, "/db/current", 9000, 5);
	fill(&b->w, "/db/log", 0, 0);
	ASSERT_EQ_INT(0, pthread_create(&thread[0], NULL, appender, b));
	ASSERT_EQ_INT(0, pthread_create(&thread[1], NULL, renamer, b));
	for (uint64_t i = 0; i < test_scaled(60); i++) {
		unsigned synced = atomic_load(&b->synced);
		int rc;

		snprintf(name, sizeof(name), "/s%llu", (unsigned long long)i);
		rc = snap(&b->w, "/db", name, i & 1 ? BFS_SNAP_SEALED : 0);
		if (rc == -EBUSY)
			continue;
		ASSERT_OK(rc);
		snprintf(name, sizeof(name), "/s%llu/log", (unsigned long long)i);
		check_log(b, name, synced);
		snprintf(name, sizeof(name), "/s%llu/current", (unsigned long long)i);
		EXPECT_TRUE(is_filled(&b->w, name, 9000, 5));
	}
	atomic_store(&b->stop, true);
	pthread_join(thread[0], NULL);
	pthread_join(thread[1], NULL);
	data_end(&b->w);
	free(b);
}
