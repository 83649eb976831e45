/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Eight threads do everything at once on one file system: writes cached and direct, reads, truncation, holes, syncs, names that are
 * replaced and taken away, copies of files and of the whole tree, shared ranges.
 *
 * Each sector of 512 bytes says whose it is: the *line* of its file, a number that a file is born with and its copies have too
 * (an extended attribute), and its place. So bytes of another file, of a deleted one, or of another place are found by any reader.
 * Each thread also has a file that it alone writes, and knows every sector of.
 */
#include <pthread.h>

#include "test/unit/blobfs/data.h"

#define THREADS 8u
#define SLOTS 6u
#define SECTOR 512u
#define SECTORS 512u /* of a file, at most: 256 KiB */
#define ROUNDS 500u
#define LINE "user.line"

struct mix {
	struct world w;
	uint64_t tree, copies; /* directories: of the files, of copies */
	_Atomic uint64_t lines, trees;
};

struct hand {
	struct mix *m;
	unsigned number;
	uint64_t rng;
	uint8_t *buf;             /* SECTORS of them */
	uint64_t own_line, own_size, seq;
	uint64_t own[SECTORS];    /* what is in each sector: 0 for zeroes */
	char own_path[32];
};

static void stamp(uint8_t *sector, uint64_t line, uint64_t number, uint64_t seq)
{
	const uint64_t words[4] = { line, number + 1, seq, ~seq };

	for (unsigned i = 0; i < SECTOR; i += sizeof(words))
		memcpy(sector + i, words, sizeof(words));
}

/* Zeroes or this file's own bytes. Of a write over the old place a reader past the cache may see a part, so word by word. */
static void check_sector(const uint8_t *sector, uint64_t line, uint64_t number)
{
	for (unsigned i = 0; i < SECTOR; i += 32) {
		uint64_t words[4];

		memcpy(words, sector + i, sizeof(words));
		if ((words[0] && words[0] != line) || (words[1] && words[1] != number + 1))
			FAIL("sector %llu of line %llu has line %llu, sector %llu", (unsigned long long)number,
			     (unsigned long long)line, (unsigned long long)words[0], (unsigned long long)words[1] - 1);
	}
}

static uint64_t line_of(struct bfs_file *f)
{
	uint64_t line;

	ASSERT_EQ_INT(sizeof(line), bfs_getxattr(bfs_file_fs(f), bfs_file_ino(f), LINE, &line, sizeof(line)));
	return line;
}

static void read_all(struct hand *h, struct bfs_file *f)
{
	uint64_t line = line_of(f);
	int64_t n = bfs_pread(f, h->buf, SECTORS * SECTOR, 0);

	ASSERT_GE_INT(n, 0);
	ASSERT_EQ_INT(0, n % SECTOR);
	for (uint64_t i = 0; i < (uint64_t)n / SECTOR; i++)
		check_sector(h->buf + i * SECTOR, line, i);
}

static void write_some(struct hand *h, struct bfs_file *f, uint64_t *note)
{
	uint64_t line = line_of(f), first = rnd(&h->rng) % SECTORS;
	uint64_t n = rnd(&h->rng) % 4 ? rnd(&h->rng) % 12 + 1 : rnd(&h->rng) % 200 + 1;

	n = MIN(n, SECTORS - first);
	h->seq++;
	for (uint64_t i = 0; i < n; i++) {
		stamp(h->buf + i * SECTOR, line, first + i, h->seq);
		if (note)
			note[first + i] = h->seq;
	}
	ASSERT_EQ_INT((int64_t)(n * SECTOR), bfs_pwrite(f, h->buf, n * SECTOR, first * SECTOR));
	if (note)
		h->own_size = MAX(h->own_size, (first + n) * SECTOR);
}

/* A file, of whichever slot; NULL: there is none. */
static struct bfs_file *open_one(struct hand *h)
{
	static const int how[] = { 0, 0, 0, O_DIRECT, O_DIRECT, O_DSYNC };
	struct bfs_file *f;
	char path[32];
	int rc;

	snprintf(path, sizeof(path), "/t/f%u", (unsigned)(rnd(&h->rng) % SLOTS));
	rc = bfs_open_path(h->m->w.fs, NULL, path, O_RDWR | how[rnd(&h->rng) % ARRAY_SIZE(how)], 0, BS_STREAM_UNKNOWN, &f);
	if (rc && rc != -ENOENT)
		FAIL("open %s: %d", path, rc);
	return rc ? NULL : f;
}

/* A new file of a new line under a name that nobody else uses. */
static struct bfs_file *make_one(struct hand *h, const char *path, uint64_t line)
{
	struct bfs_file *f = data_open(&h->m->w, path, O_RDWR | O_CREAT | O_EXCL);

	ASSERT_OK(bfs_setxattr(h->m->w.fs, NULL, bfs_file_ino(f), LINE, &line, sizeof(line), 0));
	return f;
}

static void replace(struct hand *h)
{
	char temp[32], name[8], path[40];
	struct bfs_file *f;

	snprintf(temp, sizeof(temp), "temp%u", h->number);
	snprintf(path, sizeof(path), "/%s", temp);
	snprintf(name, sizeof(name), "f%u", (unsigned)(rnd(&h->rng) % SLOTS));
	f = make_one(h, path, atomic_fetch_add(&h->m->lines, 1));
	if (rnd(&h->rng) % 2)
		write_some(h, f, NULL);
	ASSERT_OK(bfs_rename(h->m->w.fs, NULL, ROOT, temp, h->m->tree, name, 0));
	write_some(h, f, NULL); /* it may have been replaced already */
	bfs_close(f);
}

static void unlink_one(struct hand *h)
{
	char name[8];
	int rc;

	snprintf(name, sizeof(name), "f%u", (unsigned)(rnd(&h->rng) % SLOTS));
	rc = bfs_unlink(h->m->w.fs, NULL, h->m->tree, name);
	if (rc && rc != -ENOENT)
		FAIL("unlink: %d", rc);
}

/* Cuts, holes, space, zeroes. */
static void reshape(struct hand *h, struct bfs_file *f)
{
	static const int modes[] = { FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_KEEP_SIZE };
	uint64_t at = rnd(&h->rng) % SECTORS, n = rnd(&h->rng) % 64 + 1;
	unsigned what = (unsigned)(rnd(&h->rng) % 4);
	bool own = f == NULL;

	if (own)
		f = data_open(&h->m->w, h->own_path, O_RDWR);
	if (what == 3) {
		ASSERT_OK(bfs_truncate(h->m->w.fs, NULL, bfs_file_ino(f), at * SECTOR));
		if (own && at * SECTOR < h->own_size)
			memset(h->own + at, 0, (SECTORS - at) * sizeof(h->own[0]));
		if (own)
			h->own_size = at * SECTOR;
	} else {
		ASSERT_OK(bfs_fallocate(f, modes[what], at * SECTOR, MIN(n, SECTORS - at) * SECTOR));
		if (own && what < 2)
			memset(h->own + at, 0, MIN(n, SECTORS - at) * sizeof(h->own[0]));
	}
	if (own)
		bfs_close(f);
}

/* The thread's own file, or an exact copy of it. */
static void check_own(struct hand *h, const char *path)
{
	struct bfs_file *f = data_open(&h->m->w, path, O_RDONLY);

	ASSERT_EQ_INT(h->own_line, line_of(f));
	ASSERT_EQ_INT(h->own_size, bfs_file_size(f));
	ASSERT_EQ_INT((int64_t)h->own_size, bfs_pread(f, h->buf, SECTORS * SECTOR, 0));
	for (uint64_t i = 0; i < h->own_size / SECTOR; i++) {
		uint8_t want[SECTOR] = { 0 };

		if (h->own[i])
			stamp(want, h->own_line, i, h->own[i]);
		if (memcmp(want, h->buf + i * SECTOR, SECTOR))
			FAIL("%s: sector %llu is not what was written last", path, (unsigned long long)i);
	}
	bfs_close(f);
}

static void use_own(struct hand *h)
{
	struct bfs_file *f;

	if (rnd(&h->rng) % 3 == 0) {
		reshape(h, NULL);
		return;
	}
	f = data_open(&h->m->w, h->own_path, O_RDWR | (rnd(&h->rng) % 3 ? 0 : O_DIRECT));
	write_some(h, f, h->own);
	if (rnd(&h->rng) % 3 == 0)
		ASSERT_OK(bfs_fsync(f, true));
	bfs_close(f);
	if (rnd(&h->rng) % 3 == 0)
		check_own(h, h->own_path);
}

/* A copy of one file: looked at, written to, deleted. Of the own one: it is exact, and stays so when the original goes on. */
static void copy_file(struct hand *h)
{
	bool own = rnd(&h->rng) % 2, sealed = rnd(&h->rng) % 2;
	char name[32], path[48];
	struct bfs_file *f = own ? data_open(&h->m->w, h->own_path, O_RDWR) : open_one(h);

	if (!f)
		return;
	snprintf(name, sizeof(name), "c%u", h->number);
	snprintf(path, sizeof(path), "/copies/%s", name);
	ASSERT_OK(bfs_snapshot(h->m->w.fs, NULL, bfs_file_ino(f), h->m->copies, name, sealed ? BFS_SNAP_SEALED : 0, NULL));
	if (own) {
		check_own(h, path);
		write_some(h, f, h->own);
		bfs_close(f);
		check_own(h, h->own_path);
	} else {
		bfs_close(f);
		f = data_open(&h->m->w, path, sealed ? O_RDONLY : O_RDWR);
		if (!sealed)
			write_some(h, f, NULL);
		read_all(h, f);
		bfs_close(f);
	}
	ASSERT_OK(bfs_unlink(h->m->w.fs, NULL, h->m->copies, name));
}

/* The blocks of one file in a new one of its line. */
static void share_range(struct hand *h)
{
	struct bfs_file *from = open_one(h), *to;
	char path[48], *name = path + strlen("/copies/");
	uint64_t at = rnd(&h->rng) % 32 * 4096;

	if (!from)
		return;
	snprintf(path, sizeof(path), "/copies/r%u", h->number);
	to = make_one(h, path, line_of(from));
	ASSERT_GE_INT(bfs_copy_range(from, at, to, at, 128 * KiB), 0);
	bfs_close(from);
	write_some(h, to, NULL);
	read_all(h, to);
	bfs_close(to);
	ASSERT_OK(bfs_unlink(h->m->w.fs, NULL, h->m->copies, name));
}

struct found {
	unsigned n;
	char name[SLOTS + THREADS + 2][16];
};

static int keep_name(const struct bfs_dirent *e, void *arg)
{
	struct found *found = arg;

	if (e->name[0] != '.')
		snprintf(found->name[found->n++], sizeof(found->name[0]), "%s", e->name);
	return 0;
}

/* A copy of the whole tree, while the others go on in it. */
static void copy_tree(struct hand *h)
{
	struct found found = { .n = 0 };
	char name[16], path[64];
	struct bfs_attr copy;
	int rc;

	snprintf(name, sizeof(name), "t%u", h->number);
	rc = bfs_snapshot(h->m->w.fs, NULL, h->m->tree, h->m->copies, name, rnd(&h->rng) % 2 ? BFS_SNAP_SEALED : 0, &copy);
	if (rc == -EBUSY) /* files come and go too fast */
		return;
	ASSERT_OK(rc);
	ASSERT_OK(bfs_readdir(h->m->w.fs, copy.ino, 0, false, keep_name, &found));
	ASSERT_GE_INT(found.n, THREADS);
	for (unsigned i = 0; i < found.n; i++) {
		struct bfs_file *f;

		snprintf(path, sizeof(path), "/copies/%s/%s", name, found.name[i]);
		f = data_open(&h->m->w, path, O_RDONLY);
		read_all(h, f);
		bfs_close(f);
		if (!strcmp(found.name[i], h->own_path + strlen("/t/")))
			check_own(h, path);
		ASSERT_OK(bfs_unlink(h->m->w.fs, NULL, copy.ino, found.name[i]));
	}
	ASSERT_OK(bfs_rmdir(h->m->w.fs, NULL, h->m->copies, name));
	atomic_fetch_add(&h->m->trees, 1);
}

static void step(struct hand *h)
{
	unsigned what = (unsigned)(rnd(&h->rng) % 100);
	struct bfs_file *f;

	if (what < 25) {
		use_own(h);
	} else if (what < 31) {
		replace(h);
	} else if (what < 34) {
		unlink_one(h);
	} else if (what < 40) {
		copy_file(h);
	} else if (what < 44) {
		share_range(h);
	} else if (what < 46) {
		copy_tree(h);
	} else if ((f = open_one(h))) {
		if (what < 70)
			write_some(h, f, NULL);
		else if (what < 86)
			read_all(h, f);
		else if (what < 95)
			reshape(h, f);
		else
			ASSERT_OK(what == 99 ? bfs_sync(h->m->w.fs) : bfs_fsync(f, what & 1));
		bfs_close(f);
	}
}

static void *work(void *arg)
{
	struct hand *h = arg;

	for (uint64_t i = 0; i < test_scaled(ROUNDS); i++)
		step(h);
	return NULL;
}

static void start(struct mix *m, struct hand *hands, uint64_t seed)
{
	struct bfs_file *f;
	char path[16];

	atomic_store(&m->lines, 1000);
	m->tree = make_dir(m->w.fs, ROOT, "t");
	m->copies = make_dir(m->w.fs, ROOT, "copies");
	for (unsigned i = 0; i < THREADS; i++) {
		hands[i] = (struct hand){ .m = m, .number = i, .rng = seed + i, .own_line = i + 1,
					  .buf = aligned_alloc(4096, SECTORS * SECTOR) };
		ASSERT_TRUE(hands[i].buf != NULL);
		snprintf(hands[i].own_path, sizeof(hands[i].own_path), "/t/own%u", i);
		bfs_close(make_one(&hands[i], hands[i].own_path, hands[i].own_line));
	}
	for (unsigned i = 0; i < SLOTS; i++) {
		snprintf(path, sizeof(path), "/t/f%u", i);
		f = make_one(&hands[0], path, atomic_fetch_add(&m->lines, 1));
		write_some(&hands[0], f, NULL);
		bfs_close(f);
	}
}

TEST(bfs_mixed_threads, eight_do_everything_at_once_and_nothing_is_mixed_up)
{
	const struct bfs_mount_opts opts = { .cache_size = 4 * MiB, .writeback_ms = 5 };
	struct mix *m = calloc(1, sizeof(*m));
	struct hand *hands = calloc(THREADS, sizeof(*hands));
	struct bfs_check_result result;
	pthread_t thread[THREADS];
	uint64_t seed = test_seed();

	data_make(&m->w, "128M", opts);
	start(m, hands, seed);
	for (unsigned i = 0; i < THREADS; i++)
		ASSERT_EQ_INT(0, pthread_create(&thread[i], NULL, work, &hands[i]));
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	EXPECT_GT_INT(atomic_load(&m->trees), 0);
	for (unsigned i = 0; i < THREADS; i++)
		check_own(&hands[i], hands[i].own_path);
	/* All of it was synced: a crash loses nothing. */
	ASSERT_OK(bfs_sync(m->w.fs));
	bfs_abandon(m->w.fs);
	world_check(&m->w, &result);
	ASSERT_EQ_INT(0, result.problems);
	data_mount(&m->w, opts);
	for (unsigned i = 0; i < THREADS; i++) {
		check_own(&hands[i], hands[i].own_path);
		free(hands[i].buf);
	}
	data_end(&m->w);
	free(hands);
	free(m);
}
