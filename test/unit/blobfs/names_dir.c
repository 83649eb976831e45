/* SPDX-License-Identifier: BSD-2-Clause */
/* Directories: many entries, readdir that goes on after changes, names whose hashes collide. */
#include "test/unit/blobfs/names.h"

struct listing {
	uint64_t *count; /* times each number was seen; names are n%u */
	unsigned n, stop_after, seen, others;
	uint64_t cookie;
};

static int list_one(const struct bfs_dirent *e, void *arg)
{
	struct listing *l = arg;
	unsigned i;

	if (l->stop_after && l->seen == l->stop_after)
		return 1;
	l->seen++;
	l->cookie = e->cookie;
	EXPECT_EQ_INT(strlen(e->name), e->name_len);
	if (sscanf(e->name, "n%u", &i) == 1 && i < l->n)
		l->count[i]++;
	else
		l->others++;
	return 0;
}

static void make_many(struct bfs *fs, uint64_t dir, unsigned from, unsigned to)
{
	char name[16];

	for (unsigned i = from; i < to; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		make_file(fs, dir, name);
	}
}

static void remove_many(struct bfs *fs, uint64_t dir, unsigned from, unsigned to)
{
	char name[16];

	for (unsigned i = from; i < to; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		ASSERT_OK(bfs_unlink(fs, NULL, dir, name));
	}
}

static void expect_each_once(const struct listing *l)
{
	for (unsigned i = 0; i < l->n; i++) {
		if (l->count[i] != 1)
			FAIL("n%u was seen %llu times", i, (unsigned long long)l->count[i]);
	}
}

TEST(bfs_dir, what_stays_is_seen_exactly_once_whatever_changes_meanwhile)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t dir = make_dir(fs, ROOT, "d"), count[500] = { 0 };
	struct listing l = { .count = count, .n = 500 };
	unsigned step = 0;

	make_many(fs, dir, 0, 1500);
	do {
		l.seen = 0;
		l.stop_after = 1 + step % 40;
		ASSERT_OK(bfs_readdir(fs, dir, l.cookie, false, list_one, &l));
		/* those below 500 stay; others come and go, and a remount comes between */
		if (step < 50) {
			remove_many(fs, dir, 500 + 10 * step, 510 + 10 * step);
			make_many(fs, dir, 2000 + 10 * step, 2010 + 10 * step);
		}
		if (step == 20)
			fs = world_remount(&w);
		step++;
	} while (l.seen == l.stop_after);
	expect_each_once(&l);
	world_end(&w);
}

TEST(bfs_dir, dots_come_first_and_attributes_when_asked)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t dir = make_dir(fs, ROOT, "d"), count[3] = { 0 };
	struct listing l = { .count = count, .n = 3 };

	make_many(fs, dir, 0, 3);
	ASSERT_OK(bfs_readdir(fs, dir, 0, true, list_one, &l));
	EXPECT_EQ_INT(5, l.seen);
	EXPECT_EQ_INT(2, l.others);
	/* from after "." */
	l = (struct listing){ .count = count, .n = 3, .cookie = 0, .stop_after = 1 };
	ASSERT_OK(bfs_readdir(fs, dir, 0, false, list_one, &l));
	EXPECT_EQ_INT(1, l.seen);
	EXPECT_EQ_INT(1, l.others);
	l.stop_after = 0;
	ASSERT_OK(bfs_readdir(fs, dir, l.cookie, false, list_one, &l));
	EXPECT_EQ_INT(5, l.seen);
	ASSERT_OK(bfs_readdir(fs, dir, UINT64_MAX, false, list_one, &l));
	EXPECT_EQ_INT(5, l.seen);
	world_end(&w);
}

TEST(bfs_dir, colliding_names_stay_apart)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 2); /* four hashes, one of them zero and taken for one */
	uint64_t dir = make_dir(fs, ROOT, "d"), count[300] = { 0 };
	struct listing l = { .count = count, .n = 300 };

	make_many(fs, dir, 0, 300);
	for (unsigned i = 0; i < 300; i++) {
		char name[16];

		snprintf(name, sizeof(name), "n%u", i);
		EXPECT_OK(bfs_lookup(fs, NULL, dir, name, NULL));
		EXPECT_ERR(-EEXIST, bfs_mknod(fs, NULL, dir, name, S_IFREG, 0, 0, NULL));
	}
	/* holes in the groups are found again and filled */
	remove_many(fs, dir, 100, 200);
	make_many(fs, dir, 100, 200);
	for (unsigned i = 0; i < 100; i++) {
		char from[16], to[16];

		snprintf(from, sizeof(from), "n%u", i);
		snprintf(to, sizeof(to), "m%u", i);
		ASSERT_OK(bfs_rename(fs, NULL, dir, from, dir, to, 0));
		ASSERT_OK(bfs_rename(fs, NULL, dir, to, dir, from, 0));
	}
	fs = world_remount(&w);
	ASSERT_OK(bfs_readdir(fs, dir, 0, false, list_one, &l));
	expect_each_once(&l);
	world_end(&w);
}

TEST(bfs_dir, more_collisions_than_there_is_room_for_are_refused)
{
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 1); /* one hash */
	uint64_t dir = make_dir(fs, ROOT, "d");

	make_many(fs, dir, 0, 256);
	EXPECT_ERR(-ENOSPC, bfs_mknod(fs, NULL, dir, "one more", S_IFREG, 0, 0, NULL));
	EXPECT_ERR(-EEXIST, bfs_mknod(fs, NULL, dir, "n77", S_IFREG, 0, 0, NULL));
	remove_many(fs, dir, 77, 78);
	make_file(fs, dir, "one more");
	world_end(&w);
}

static uint64_t timed_life(struct bfs *fs, unsigned n)
{
	uint64_t dir = make_dir(fs, ROOT, "many"), start = test_cpu_ns();
	uint64_t *count = calloc(n, sizeof(*count));
	struct listing l = { .count = count, .n = n };

	make_many(fs, dir, 0, n);
	for (unsigned i = 0; i < n; i++) {
		char name[16];

		snprintf(name, sizeof(name), "n%u", i);
		ASSERT_OK(bfs_lookup(fs, NULL, dir, name, NULL));
	}
	ASSERT_OK(bfs_readdir(fs, dir, 0, true, list_one, &l));
	expect_each_once(&l);
	remove_many(fs, dir, 0, n);
	ASSERT_OK(bfs_rmdir(fs, NULL, ROOT, "many"));
	free(count);
	return test_cpu_ns() - start;
}

TEST(bfs_dir, a_hundred_thousand_files_cost_no_square)
{
	struct world w;
	struct bfs *fs = world_make(&w, "512M", 0);
	uint64_t small, large, tries = 0;

	/* 10 times the files; a square would be 100 times the time, each time. Others on the machine use the cache, now and then. */
	do {
		small = timed_life(fs, 10000);
		large = timed_life(fs, 100000);
	} while (large >= 30 * small && ++tries < 5);
	EXPECT_LT_INT(large, 30 * small);
	world_end(&w);
}
