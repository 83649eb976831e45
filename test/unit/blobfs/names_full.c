/* SPDX-License-Identifier: BSD-2-Clause */
/* Names on a full store: what was just removed is room for the next one, though its space waits to be durable (R3). */
#include <pthread.h>

#include "blobfs/data.h"
#include "test/unit/blobfs/data.h"

#define CHUNK (256 * KiB)

static uint64_t new_file(struct world *w, const char *name)
{
	struct bfs_attr attr;
	int rc = bfs_mknod(w->fs, NULL, BFS_ROOT_INO, name, S_IFREG | 0644, 0, 0, &attr);

	if (rc == -ENOSPC)
		return 0;
	ASSERT_OK(rc);
	return attr.ino;
}

static void numbered(char *name, const char *stem, unsigned k)
{
	memset(name, 'n', 200);
	snprintf(name + 200, 50, "%s%u", stem, k);
}

/* No byte and no name more; /big has what there was. */
static void fill_up(struct world *w, unsigned round)
{
	static char data[CHUNK];
	struct bfs_file *big = data_open(w, "/big", O_RDWR | O_CREAT);
	char name[256];
	int64_t n, at = 0;

	memset(data, 7, sizeof(data));
	for (int64_t size = CHUNK; size >= 4096; size /= 2)
		while ((n = bfs_pwrite(big, data, (size_t)size, (uint64_t)at)) > 0)
			at += n;
	ASSERT_ERR(-ENOSPC, n);
	ASSERT_OK(bfs_fsync(big, false));
	bfs_close(big);
	for (unsigned k = 0; numbered(name, (const char[]){ (char)('a' + round), 0 }, k), new_file(w, name); k++)
		ASSERT_LT_INT(k, 1000000);
}

static void goes_on(unsigned flags)
{
	static char value[30000];
	struct bfs_mount_opts opts = { .flags = flags };
	uint64_t first, other;
	struct world w;
	char name[256], to[256];

	data_make(&w, "64M", opts);
	first = new_file(&w, "first");
	other = new_file(&w, "other");
	for (unsigned round = 0; round < 2; round++) {
		fill_up(&w, round);
		ASSERT_OK(bfs_unlink(w.fs, NULL, BFS_ROOT_INO, "big"));
		switch (round) {
		case 0:
			for (unsigned k = 0; k < 500; k++) {
				numbered(name, "new", k);
				EXPECT_TRUE(new_file(&w, name));
			}
			break;
		default:
			for (unsigned k = 0; k < 20; k++) {
				snprintf(name, sizeof(name), "user.%u", k);
				EXPECT_OK(bfs_setxattr(w.fs, NULL, first, name, value, sizeof(value), 0));
				numbered(name, "link", k);
				EXPECT_OK(bfs_link(w.fs, NULL, other, BFS_ROOT_INO, name, 0, NULL));
				numbered(to, "new-name-of-link", k);
				EXPECT_OK(bfs_rename(w.fs, NULL, BFS_ROOT_INO, name, BFS_ROOT_INO, to, 0));
				numbered(name, "copy", k);
				EXPECT_OK(bfs_snapshot(w.fs, NULL, other, BFS_ROOT_INO, name, 0, NULL));
			}
		}
	}
	data_end(&w);
}

TEST(bfs_full, what_was_just_removed_is_room_for_names)
{
	goes_on(0);
}

TEST(bfs_full, what_was_just_removed_is_room_for_names_without_a_service)
{
	goes_on(BFS_NO_SERVICE);
}

/* ---- what has no name any more and is still there ---- */

static uint64_t blobs_of(struct world *w)
{
	struct bs_stat st;

	bs_get_stat(bfs_store(w->fs), &st);
	return st.blobs;
}

/* An unlinked file whose deletion finds no memory when it is closed. */
static void leave_undeleted(struct world *w)
{
	struct bfs_file *file = data_open(w, "/f", O_RDWR | O_CREAT);
	uint64_t blobs = blobs_of(w);

	ASSERT_OK(bfs_unlink(w->fs, NULL, BFS_ROOT_INO, "f"));
	base_fail_allocs_from(1);
	bfs_close(file);
	base_fail_allocs_from(0);
	EXPECT_EQ_INT(blobs, blobs_of(w));
}

TEST(bfs_full, what_could_not_be_deleted_is_deleted_by_the_next_pass)
{
	struct bfs_mount_opts opts = { .flags = BFS_NO_SERVICE };
	struct world w;
	uint64_t blobs;

	data_make(&w, "64M", opts);
	blobs = blobs_of(&w);
	leave_undeleted(&w);
	ASSERT_OK(bfs_data_step(w.fs));
	EXPECT_EQ_INT(blobs, blobs_of(&w));
	data_end(&w);
}

TEST(bfs_full, what_could_not_be_deleted_is_deleted_soon)
{
	struct bfs_mount_opts opts = { .writeback_ms = 20 };
	struct world w;
	uint64_t blobs;

	data_make(&w, "64M", opts);
	blobs = blobs_of(&w);
	leave_undeleted(&w);
	for (int ms = 0; ms < 20000 && blobs_of(&w) > blobs; ms++)
		usleep(1000);
	EXPECT_EQ_INT(blobs, blobs_of(&w));
	data_end(&w);
}

static void *close_later(void *file)
{
	usleep(4000);
	bfs_close(file);
	return NULL;
}

/* As with a kernel that says later that it has forgotten it. A machine may be too busy for that, but not most of the time. */
TEST(bfs_full, names_wait_for_a_removed_file_that_somebody_still_holds)
{
	struct bfs_mount_opts opts = { .size = 0 };
	unsigned made = 0;
	struct world w;

	data_make(&w, "64M", opts);
	for (unsigned round = 0; round < 5; round++) {
		struct bfs_file *big;
		pthread_t thread;
		char name[8];

		fill_up(&w, round);
		big = data_open(&w, "/big", O_RDONLY);
		ASSERT_OK(bfs_unlink(w.fs, NULL, BFS_ROOT_INO, "big"));
		ASSERT_EQ_INT(0, pthread_create(&thread, NULL, close_later, big));
		snprintf(name, sizeof(name), "more%u", round);
		made += new_file(&w, name) != 0;
		pthread_join(thread, NULL);
	}
	EXPECT_GE_INT(made, 3);
	data_end(&w);
}
