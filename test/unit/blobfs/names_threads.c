/* SPDX-License-Identifier: BSD-2-Clause */
/* Many threads over the same few names: whatever comes of it is sound. */
#include <pthread.h>

#include "test/unit/blobfs/names.h"

#define THREADS 4
#define ROUNDS 3000
#define NAMES 12

struct worker {
	struct bfs *fs;
	uint64_t dir[3];
	unsigned seed;
	unsigned done;
};

static int count_entry(const struct bfs_dirent *e, void *arg)
{
	(void)e;
	++*(unsigned *)arg;
	return 0;
}

static void expect_one_of(int rc, const int *codes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (rc == codes[i])
			return;
	}
	FAIL("an unexpected result: %d", rc);
}
#define EXPECT_ONE_OF(rc, ...) \
	expect_one_of(rc, (const int[]){ 0, __VA_ARGS__ }, ARRAY_SIZE(((const int[]){ 0, __VA_ARGS__ })))

/* Data beside the names: what is unlinked meanwhile is dropped by whoever lets go of it last. */
static void write_some(struct worker *w, uint64_t dir, const char *name)
{
	static const char data[9000];
	struct bfs_file *file;
	struct bfs_attr attr;
	int rc;

	if (bfs_lookup(w->fs, NULL, dir, name, &attr))
		return;
	rc = bfs_open(w->fs, NULL, attr.ino, O_RDWR, BS_STREAM_UNKNOWN, &file);
	EXPECT_ONE_OF(rc, -ENOENT, -EISDIR);
	if (rc)
		return;
	EXPECT_EQ_INT(sizeof(data), bfs_append(file, data, sizeof(data)));
	if (rand_r(&w->seed) % 4 == 0)
		EXPECT_OK(bfs_fsync(file, false));
	if (rand_r(&w->seed) % 4 == 0)
		EXPECT_OK(bfs_truncate(w->fs, NULL, attr.ino, 100));
	bfs_close(file);
}

static void step(struct worker *w)
{
	char a[8], b[8];
	uint64_t da = w->dir[rand_r(&w->seed) % 3], db = w->dir[rand_r(&w->seed) % 3];
	struct bfs_attr attr;
	unsigned n = 0;

	snprintf(a, sizeof(a), "n%d", rand_r(&w->seed) % NAMES);
	snprintf(b, sizeof(b), "n%d", rand_r(&w->seed) % NAMES);
	switch (rand_r(&w->seed) % 11) {
	case 0:
		EXPECT_ONE_OF(bfs_mknod(w->fs, NULL, da, a, S_IFREG | 0644, 0, 0, NULL), -EEXIST);
		break;
	case 1:
		EXPECT_ONE_OF(bfs_mkdir(w->fs, NULL, da, a, 0755, 0, NULL), -EEXIST);
		break;
	case 2:
		EXPECT_ONE_OF(bfs_unlink(w->fs, NULL, da, a), -ENOENT, -EISDIR);
		break;
	case 3:
		EXPECT_ONE_OF(bfs_rmdir(w->fs, NULL, da, a), -ENOENT, -ENOTDIR, -ENOTEMPTY);
		break;
	case 4:
	case 5:
		EXPECT_ONE_OF(bfs_rename(w->fs, NULL, da, a, db, b, 0), -ENOENT, -EISDIR, -ENOTDIR, -ENOTEMPTY, -EINVAL);
		break;
	case 6:
		EXPECT_ONE_OF(bfs_rename(w->fs, NULL, da, a, db, b, RENAME_EXCHANGE), -ENOENT, -EINVAL);
		break;
	case 7: /* a reference, kept over what others do */
		if (bfs_lookup(w->fs, NULL, da, a, &attr) || bfs_ref(w->fs, attr.ino))
			break;
		EXPECT_OK(bfs_getattr(w->fs, attr.ino, &attr));
		EXPECT_ONE_OF(bfs_link(w->fs, NULL, attr.ino, db, b, 0, NULL), -EEXIST, -ENOENT, -EPERM);
		EXPECT_OK(bfs_setattr(w->fs, NULL, attr.ino, &attr, BFS_SET_MTIME_NOW, NULL));
		bfs_unref(w->fs, attr.ino, 1);
		break;
	case 8:
		EXPECT_OK(bfs_readdir(w->fs, da, 0, true, count_entry, &n));
		EXPECT_LE_INT(n, NAMES + 2);
		break;
	case 9:
		EXPECT_ONE_OF(bfs_lookup(w->fs, NULL, da, a, &attr), -ENOENT);
		break;
	case 10:
		write_some(w, da, a);
		break;
	}
	w->done++;
}

static void *run(void *arg)
{
	struct worker *w = arg;

	for (int i = 0; i < ROUNDS; i++)
		step(w);
	return NULL;
}

static void run_threads(uint32_t flags)
{
	struct worker worker[THREADS];
	pthread_t thread[THREADS];
	struct world w;
	struct bfs *fs = world_make(&w, "128M", 0);
	uint64_t dir[3] = { make_dir(fs, ROOT, "a"), make_dir(fs, ROOT, "b"), make_dir(fs, ROOT, "c") };
	struct bfs_cache_stat st;
	unsigned seed = (unsigned)test_seed();

	ASSERT_OK(bfs_unmount(fs));
	fs = world_mount(&w, flags);
	for (unsigned i = 0; i < THREADS; i++) {
		worker[i] = (struct worker){ .fs = fs, .seed = seed + i };
		memcpy(worker[i].dir, dir, sizeof(dir));
		ASSERT_EQ_INT(0, pthread_create(&thread[i], NULL, run, &worker[i]));
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(thread[i], NULL);
		EXPECT_EQ_INT(ROUNDS, worker[i].done);
	}
	ASSERT_OK(bfs_sync(fs));
	bfs_get_cache_stat(fs, &st);
	EXPECT_EQ_INT(0, st.dirty);
	EXPECT_LE_INT(st.inodes, st.pages); /* nobody uses any, and nothing is unwritten: cached ones are left */
	world_end(&w);
}

TEST(bfs_names_threads, the_tree_stays_sound_whatever_the_order)
{
	run_threads(BFS_NO_SERVICE);
}

TEST(bfs_names_threads, and_with_write_behind_in_the_background)
{
	run_threads(0);
}
