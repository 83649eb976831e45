/* SPDX-License-Identifier: BSD-2-Clause */
/* Copies of files and trees that share their blocks. */
#include <pthread.h>
#include <stdatomic.h>

#include "bdev/wrap.h"
#include "blobfs/share.h"
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

		snprintf(name, sizeof(name), "/s%llu", (unsigned long long)i);
		ASSERT_OK(snap(&b->w, "/db", name, i & 1 ? BFS_SNAP_SEALED : 0));
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

/* ---- beside those who make files without end ---- */

#define MADE_KEPT 40u

struct maker {
	struct busy *b;
	unsigned id;
	_Atomic unsigned synced; /* of its files, this many are durable */
};

/* Each file is written twice, synced, and gets its name; old ones go. */
static void *maker(void *arg)
{
	struct maker *m = arg;
	struct world *w = &m->b->w;
	uint64_t dir = attr_of(w, "/db").ino;
	char tmp[32], name[32], old[32];

	snprintf(tmp, sizeof(tmp), "/db/tmp%u", m->id);
	for (unsigned n = 1; !atomic_load(&m->b->stop); n++) {
		fill(w, tmp, 300 + n % 9000, 1);
		fill(w, tmp, 300 + n % 9000, n);
		ASSERT_OK(bfs_fsync_ino(w->fs, attr_of(w, tmp).ino, false));
		snprintf(name, sizeof(name), "f%u.%u", m->id, n);
		ASSERT_OK(bfs_rename(w->fs, NULL, dir, tmp + 4, dir, name, 0));
		atomic_store(&m->synced, n);
		snprintf(old, sizeof(old), "f%u.%u", m->id, n - MADE_KEPT);
		if (n > MADE_KEPT)
			ASSERT_OK(bfs_unlink(w->fs, NULL, dir, old));
	}
	return NULL;
}

/* As many as are kept, one after the other, the last no older than what was there before, and each as it was synced. */
static void check_made(struct maker *m, const char *top, unsigned before)
{
	struct world *w = &m->b->w;
	struct bfs_attr attr;
	char path[64];
	unsigned n = 0, last = 0;

	for (unsigned i = before > MADE_KEPT ? before - MADE_KEPT : 1; i <= atomic_load(&m->synced); i++) {
		snprintf(path, sizeof(path), "%s/f%u.%u", top, m->id, i);
		if (bfs_resolve(w->fs, NULL, path, 0, &attr))
			continue;
		EXPECT_TRUE(!last || i == last + 1);
		EXPECT_TRUE(is_filled(w, path, 300 + i % 9000, i));
		last = i;
		n++;
	}
	EXPECT_GE_INT(last, before);
	EXPECT_TRUE(n >= MIN(last, MADE_KEPT) && n <= MADE_KEPT + 1);
}

TEST(blobfs_snapshot_threads, who_makes_files_without_end_does_not_keep_a_copy_from_being_made)
{
	struct busy *b = calloc(1, sizeof(*b));
	struct maker m[2] = { { .b = b, .id = 0 }, { .b = b, .id = 1 } };
	pthread_t thread[2];
	char name[32];

	data_make(&b->w, "256M", (struct bfs_mount_opts){ .cache_size = 16 * MiB, .writeback_ms = 2 });
	ASSERT_OK(bfs_make_path(b->w.fs, NULL, "/db", 0755));
	for (int i = 0; i < 2; i++)
		ASSERT_EQ_INT(0, pthread_create(&thread[i], NULL, maker, &m[i]));
	for (uint64_t i = 0; i < test_scaled(40); i++) {
		unsigned before[2] = { atomic_load(&m[0].synced), atomic_load(&m[1].synced) };

		snprintf(name, sizeof(name), "/s%llu", (unsigned long long)i);
		ASSERT_OK(snap(&b->w, "/db", name, i & 1 ? BFS_SNAP_SEALED : 0));
		for (int j = 0; j < 2; j++)
			check_made(&m[j], name, before[j]);
	}
	atomic_store(&b->stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	test_note("%u and %u files were made meanwhile", atomic_load(&m[0].synced), atomic_load(&m[1].synced));
	data_end(&b->w);
	free(b);
}

/* Old files, which were never made ready, come into the tree all the time. */
static void *mover(void *arg)
{
	struct busy *b = arg;
	uint64_t out = attr_of(&b->w, "/out").ino, in = attr_of(&b->w, "/db").ino;
	char name[16];

	for (unsigned n = 0; !atomic_load(&b->stop); n++) {
		snprintf(name, sizeof(name), "%u", n % 100);
		ASSERT_OK(bfs_rename(b->w.fs, NULL, out, name, in, name, 0));
		if (n >= 5)
			snprintf(name, sizeof(name), "%u", (n - 5) % 100);
		if (n >= 5)
			ASSERT_OK(bfs_rename(b->w.fs, NULL, in, name, out, name, 0));
	}
	return NULL;
}

TEST(blobfs_snapshot_threads, files_that_are_moved_in_and_out_are_in_the_copy_or_not)
{
	struct busy *b = calloc(1, sizeof(*b));
	unsigned n;
	struct bfs_attr attr;
	pthread_t thread;
	char name[32], path[64];

	data_make(&b->w, "64M", (struct bfs_mount_opts){ .cache_size = 8 * MiB });
	ASSERT_OK(bfs_make_path(b->w.fs, NULL, "/db", 0755));
	ASSERT_OK(bfs_make_path(b->w.fs, NULL, "/out", 0755));
	for (unsigned i = 0; i < 100; i++) {
		snprintf(path, sizeof(path), "/out/%u", i);
		fill(&b->w, path, 5000, i);
	}
	ASSERT_EQ_INT(0, pthread_create(&thread, NULL, mover, b));
	for (uint64_t i = 0; i < test_scaled(40); i++) {
		snprintf(name, sizeof(name), "/s%llu", (unsigned long long)i);
		ASSERT_OK(snap(&b->w, "/db", name, BFS_SNAP_SEALED));
		n = 0;
		for (unsigned j = 0; j < 100; j++) {
			snprintf(path, sizeof(path), "%s/%u", name, j);
			if (bfs_resolve(b->w.fs, NULL, path, 0, &attr))
				continue;
			n++;
			EXPECT_TRUE(is_filled(&b->w, path, 5000, j));
		}
		EXPECT_LE_INT(n, 6);
	}
	atomic_store(&b->stop, true);
	pthread_join(thread, NULL);
	data_end(&b->w);
	free(b);
}

/* Dirty files on a slow device: whoever waits for the last one finds a new one. */
static void *spawner(void *arg)
{
	struct busy *b = arg;
	uint64_t dir = attr_of(&b->w, "/db").ino;
	char name[16], path[32];

	for (unsigned n = 0; !atomic_load(&b->stop); n++) {
		snprintf(path, sizeof(path), "/db/%u", n);
		fill(&b->w, path, 1000, n);
		snprintf(name, sizeof(name), "%u", n - MADE_KEPT);
		if (n >= MADE_KEPT)
			ASSERT_OK(bfs_unlink(b->w.fs, NULL, dir, name));
		atomic_store(&b->synced, n);
		usleep(100);
	}
	return NULL;
}

TEST(blobfs_snapshot_threads, new_files_are_not_waited_for)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts), .cache_size = 8 * MiB };
	struct busy *b = calloc(1, sizeof(*b));
	struct bdev *slow;
	pthread_t thread;
	char name[32];

	data_make(&b->w, "64M", opts);
	ASSERT_OK(bfs_make_path(b->w.fs, NULL, "/db", 0755));
	ASSERT_OK(bfs_unmount(b->w.fs));
	bdev_ref(b->w.keep);
	ASSERT_OK(bdev_delay_create(b->w.keep, 5000, 0, &slow));
	ASSERT_OK(bfs_mount_bdev(slow, &opts, &b->w.fs, &b->w.err));
	ASSERT_EQ_INT(0, pthread_create(&thread, NULL, spawner, b));
	while (atomic_load(&b->synced) < MADE_KEPT)
		usleep(1000);
	for (uint64_t i = 0; i < test_scaled(12); i++) {
		uint64_t size;

		snprintf(name, sizeof(name), "/s%llu", (unsigned long long)i);
		ASSERT_OK(snap(&b->w, "/db", name, BFS_SNAP_SEALED));
		size = attr_of(&b->w, name).size;
		EXPECT_TRUE(size == MADE_KEPT || size == MADE_KEPT + 1);
	}
	atomic_store(&b->stop, true);
	pthread_join(thread, NULL);
	data_end(&b->w);
	free(b);
}

/* ---- space for what gets dirty ---- */

struct again {
	struct bfs_file *file;
	_Atomic bool stop;
};

static void *write_again_and_again(void *arg)
{
	struct again *a = arg;

	for (uint64_t i = 0; !atomic_load(&a->stop); i++)
		ASSERT_EQ_INT(1, bfs_pwrite(a->file, "x", 1, i % GROUP_PAGES * 4096));
	return NULL;
}

/* Is one of the first pages dirty, and has no space of its own? */
static bool counts_on_its_place(struct bfs_inode *inode)
{
	struct bfs_shard *s = bfs_shard_of(inode->fs->cache, inode->ino, 0);
	struct bfs_group *g;
	bool does;

	pthread_mutex_lock(&inode->lock);
	pthread_mutex_lock(&s->lock);
	g = bfs_group_find(s, inode->ino, 0);
	does = g && g->dirty & ~g->alloc;
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_unlock(&inode->lock);
	return does;
}

/* Who looked at the map just before the file was shared has made his page dirty when the file is clean, or sees that it is. */
TEST(blobfs_snapshot_threads, what_gets_dirty_while_a_file_gets_quiet_has_space)
{
	struct bfs_inode *inode;
	struct again a = { .stop = false };
	struct world w;
	pthread_t thread;
	uint64_t bad = 0, end;

	data_make(&w, "64M", (struct bfs_mount_opts){ .writeback_ms = 3600000 });
	fill(&w, "/a", GROUP_PAGES * 4096, 1);
	ASSERT_OK(bfs_sync(w.fs));
	a.file = data_open(&w, "/a", O_RDWR);
	ASSERT_OK(bfs_inode_get(w.fs, bfs_file_ino(a.file), &inode));
	ASSERT_EQ_INT(0, pthread_create(&thread, NULL, write_again_and_again, &a));
	end = base_now_ns() + 3000000000ull; /* a sanitizer makes it slower by far */
	for (uint64_t i = 0; i < test_scaled(600000) && base_now_ns() < end; i++) {
		ASSERT_OK(bfs_sync_range(a.file, 0, 0, true));
		bs_share_begin(inode->blob);
		ASSERT_OK(bfs_share_clean(inode, 0, GROUP_PAGES - 1));
		bad += counts_on_its_place(inode);
		bs_share_end(inode->blob, false);
	}
	EXPECT_EQ_INT(0, bad);
	atomic_store(&a.stop, true);
	pthread_join(thread, NULL);
	bfs_inode_put(inode);
	bfs_close(a.file);
	data_end(&w);
}
