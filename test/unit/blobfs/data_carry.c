/* SPDX-License-Identifier: BSD-2-Clause */
/* fsync by the log: what it writes, and what becomes of the bytes afterwards. */
#include <pthread.h>

#include "bdev/wrap.h"
#include "test/unit/blobfs/data.h"

static const struct bfs_mount_opts opts = { .flags = BFS_NO_SERVICE };

static struct bs_stat stat_of(struct world *w)
{
	struct bs_stat st;

	bs_get_stat(bfs_store(w->fs), &st);
	return st;
}

static void put(struct bfs_file *file, uint64_t at, size_t len, char byte)
{
	char *buf = malloc(len);

	memset(buf, byte, len);
	ASSERT_EQ_INT((int64_t)len, bfs_pwrite(file, buf, len, at));
	free(buf);
}

/* Bytes [at, at + len) are all `byte`. */
static void expect(struct bfs_file *file, uint64_t at, size_t len, char byte)
{
	char *buf = malloc(len);

	ASSERT_EQ_INT((int64_t)len, bfs_pread(file, buf, len, at));
	for (size_t i = 0; i < len; i++)
		ASSERT_EQ_INT(byte, buf[i]);
	free(buf);
}

/* Dies, and comes back with these flags. */
static struct bfs_file *crash(struct world *w, struct bfs_file *file, uint32_t flags)
{
	struct bfs_check_result result;

	bfs_close(file);
	bfs_abandon(w->fs);
	world_check(w, &result);
	ASSERT_EQ_INT(0, result.problems);
	data_mount(w, (struct bfs_mount_opts){ .flags = flags });
	return data_open(w, "/f", flags & BFS_RDONLY ? O_RDONLY : O_RDWR);
}

TEST(bfs_carry, a_synced_append_is_one_log_write_and_is_written_home_once)
{
	struct bs_stat a, b;
	struct bfs_file *file;
	struct world w;

	data_make(&w, "64M,cache", opts);
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	ASSERT_OK(bfs_fsync(file, false));
	a = stat_of(&w);
	for (unsigned i = 0; i < 30; i++) {
		put(file, i * 400, 400, (char)('a' + i));
		ASSERT_OK(bfs_fsync(file, true));
	}
	b = stat_of(&w);
	ASSERT_EQ_INT(a.log_writes + 30, b.log_writes);
	ASSERT_EQ_INT(a.log_write_bytes + 30 * 4096, b.log_write_bytes);
	ASSERT_EQ_INT(a.flushes, b.flushes);
	ASSERT_EQ_INT(a.data_write_bytes, b.data_write_bytes);
	ASSERT_EQ_INT(3, b.carried_blocks);
	/* Nothing has changed since. */
	ASSERT_OK(bfs_fsync(file, true));
	ASSERT_EQ_INT(b.log_writes, stat_of(&w).log_writes);
	ASSERT_OK(bfs_sync(w.fs));
	b = stat_of(&w);
	ASSERT_EQ_INT(a.data_write_bytes + 3 * 4096, b.data_write_bytes);
	ASSERT_EQ_INT(0, b.carried_blocks);
	for (unsigned i = 0; i < 30; i++)
		expect(file, i * 400, 400, (char)('a' + i));
	bfs_close(file);
	data_end(&w);
}

TEST(bfs_carry, it_survives_a_crash_and_is_home_after_the_mount)
{
	struct bfs_file *file;
	struct world w;

	data_make(&w, "64M", opts);
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	put(file, 0, 5000, 'a');
	ASSERT_OK(bfs_fsync(file, true));
	put(file, 5000, 1000, 'b');
	put(file, 100, 10, 'c');
	ASSERT_OK(bfs_fsync(file, true));
	put(file, 6000, 1000, 'x'); /* never synced */
	ASSERT_EQ_INT(2, stat_of(&w).carried_blocks);
	file = crash(&w, file, BFS_RDONLY);
	for (unsigned round = 0; round < 3; round++) {
		ASSERT_EQ_INT(round ? 0 : 2, stat_of(&w).carried_blocks);
		ASSERT_EQ_INT(6000, bfs_file_size(file));
		expect(file, 0, 100, 'a');
		expect(file, 100, 10, 'c');
		expect(file, 110, 4890, 'a');
		expect(file, 5000, 1000, 'b');
		ASSERT_EQ_INT(0, bfs_seek(file, 0, SEEK_DATA));
		ASSERT_EQ_INT(6000, bfs_seek(file, 0, SEEK_HOLE));
		file = crash(&w, file, BFS_NO_SERVICE);
	}
	bfs_close(file);
	data_end(&w);
}

TEST(bfs_carry, what_is_in_the_log_is_written_home_when_it_is_old)
{
	struct bfs_file *file;
	struct world w;

	base_set_fake_clock(1000000000ull);
	data_make(&w, "64M", opts);
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	put(file, 0, 9000, 'a');
	ASSERT_OK(bfs_fsync(file, true));
	ASSERT_OK(bfs_service_step(w.fs));
	ASSERT_EQ_INT(3, stat_of(&w).carried_blocks);
	base_set_fake_clock(4000000000ull);
	ASSERT_OK(bfs_service_step(w.fs));
	ASSERT_EQ_INT(0, stat_of(&w).carried_blocks);
	/* A later version goes over it, and nothing older comes back. */
	put(file, 0, 9000, 'b');
	ASSERT_OK(bfs_fsync(file, true));
	file = crash(&w, file, BFS_NO_SERVICE);
	expect(file, 0, 9000, 'b');
	bfs_close(file);
	data_end(&w);
	base_set_fake_clock(0);
}

TEST(bfs_carry, more_than_fits_is_written_back)
{
	struct bfs_file *file;
	struct bs_stat a, b;
	struct world w;

	data_make(&w, "64M", opts);
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	put(file, 0, 16 * 4096, 'a');
	ASSERT_OK(bfs_fsync(file, true));
	a = stat_of(&w);
	ASSERT_EQ_INT(16, a.carried_blocks);
	put(file, 20 * 4096, 16 * 4096 + 1, 'a');
	ASSERT_OK(bfs_fsync(file, true));
	b = stat_of(&w);
	ASSERT_EQ_INT(a.carries, b.carries);
	ASSERT_EQ_INT(0, b.carried_blocks);
	/* Many small changes: too many pages. */
	for (unsigned i = 0; i < 100; i++)
		put(file, i * 40960, 1, 'c');
	ASSERT_OK(bfs_fsync(file, true));
	ASSERT_EQ_INT(a.carries, stat_of(&w).carries);
	file = crash(&w, file, BFS_NO_SERVICE);
	for (unsigned i = 0; i < 100; i++)
		expect(file, i * 40960, 1, 'c');
	bfs_close(file);
	data_end(&w);
}

/* Whole blocks over their old places, and no new size: writing them durably is one round trip, too. */
TEST(bfs_carry, what_goes_in_place_and_changes_nothing_else_is_written_there)
{
	struct bfs_file *file;
	struct bs_stat a, b;
	struct world w;

	if (testdev_sums())
		SKIP("what has a checksum has no old place to be written to");
	data_make(&w, "64M,cache", opts);
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	put(file, 0, 40000, 'a');
	ASSERT_OK(bfs_sync(w.fs));
	a = stat_of(&w);
	put(file, 8192, 4096, 'b');
	ASSERT_OK(bfs_fsync(file, true));
	b = stat_of(&w);
	ASSERT_EQ_INT(a.carries, b.carries);
	ASSERT_EQ_INT(a.log_writes, b.log_writes);
	ASSERT_EQ_INT(a.flushes, b.flushes);
	ASSERT_EQ_INT(a.data_write_bytes + 4096, b.data_write_bytes);
	/* With a new size it goes into the log. */
	put(file, 8192, 10, 'c');
	put(file, 40000, 10, 'c');
	ASSERT_OK(bfs_fsync(file, true));
	ASSERT_EQ_INT(a.carries + 2, stat_of(&w).carries);
	file = crash(&w, file, BFS_NO_SERVICE);
	expect(file, 8192, 10, 'c');
	expect(file, 8202, 4086, 'b');
	expect(file, 40000, 10, 'c');
	bfs_close(file);
	data_end(&w);
}

/* Each way to take synced bytes away and to look behind the end again. */
TEST(bfs_carry, what_was_cut_off_never_comes_back)
{
	for (unsigned way = 0; way < 32; way++) {
		bool home = way & 1, sync = way & 2, die = way & 4, within = way & 8, log = way & 16;
		struct bfs_file *file;
		struct world w;
		uint64_t ino;

		test_note("way %u", way);
		data_make(&w, "64M", opts);
		file = data_open(&w, "/f", O_RDWR | O_CREAT);
		ino = bfs_file_ino(file);
		put(file, 0, 10000, 'a');
		ASSERT_OK(home ? bfs_sync(w.fs) : bfs_fsync(file, true));
		put(file, 0, 10000, 'b');
		ASSERT_OK(bfs_fsync(file, true));
		ASSERT_OK(bfs_truncate(w.fs, NULL, ino, 5000));
		if (sync)
			ASSERT_OK(bfs_fsync(file, true));
		if (sync && die)
			file = crash(&w, file, BFS_NO_SERVICE);
		if (within)
			put(file, 6000, 10, 'c');
		else if (log)
			put(file, 9000, 10, 'c');
		else
			ASSERT_OK(bfs_truncate(w.fs, NULL, ino, 9010));
		for (unsigned round = 0; round < 3; round++) {
			uint64_t end = within ? 6000 : 9000;

			expect(file, 0, 5000, 'b');
			expect(file, 5000, end - 5000, 0);
			if (within || log)
				expect(file, end, 10, 'c');
			ASSERT_OK(round == 1 ? bfs_sync(w.fs) : bfs_fsync(file, true));
			file = crash(&w, file, BFS_NO_SERVICE);
		}
		bfs_close(file);
		data_end(&w);
	}
}

TEST(bfs_carry, a_size_between_the_durable_one_and_the_cached_one_becomes_durable)
{
	struct bfs_file *file;
	struct world w;

	data_make(&w, "64M", opts);
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	for (unsigned round = 0; round < 2; round++) {
		put(file, 0, 2368, 'a');
		ASSERT_OK(bfs_fsync(file, true));
		put(file, 60000, 1376, 'b'); /* cached only */
		ASSERT_OK(bfs_truncate(w.fs, NULL, bfs_file_ino(file), 3520));
		ASSERT_OK(bfs_fsync(file, round));
		file = crash(&w, file, BFS_NO_SERVICE);
		ASSERT_EQ_INT(3520, bfs_file_size(file));
		expect(file, 0, 2368, 'a');
		expect(file, 2368, 3520 - 2368, 0);
		ASSERT_OK(bfs_truncate(w.fs, NULL, bfs_file_ino(file), 0));
		ASSERT_OK(bfs_fsync(file, false));
	}
	bfs_close(file);
	data_end(&w);
}

TEST(bfs_carry, holes_and_zeroes_go_over_it)
{
	static const int modes[] = { FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE, 0 };

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		struct bfs_file *file;
		struct world w;

		test_note("mode %d", modes[i]);
		data_make(&w, "64M", opts);
		file = data_open(&w, "/f", O_RDWR | O_CREAT);
		put(file, 0, 20000, 'a');
		ASSERT_OK(bfs_fsync(file, true));
		ASSERT_OK(bfs_fallocate(file, modes[i], 3000, 10000));
		ASSERT_OK(bfs_fsync(file, true));
		for (unsigned round = 0; round < 2; round++) {
			expect(file, 0, 3000, 'a');
			expect(file, 3000, 10000, modes[i] ? 0 : 'a');
			expect(file, 13000, 7000, 'a');
			file = crash(&w, file, BFS_NO_SERVICE);
		}
		bfs_close(file);
		data_end(&w);
	}
}

TEST(bfs_carry, an_unlinked_file_takes_it_along)
{
	struct bfs_file *file;
	struct world w;

	data_make(&w, "64M", opts);
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	put(file, 0, 10000, 'a');
	ASSERT_OK(bfs_fsync(file, true));
	ASSERT_OK(bfs_unlink(w.fs, NULL, ROOT, "f"));
	expect(file, 0, 10000, 'a');
	bfs_close(file);
	ASSERT_EQ_INT(0, stat_of(&w).carried_blocks);
	data_end(&w);
}

TEST(bfs_carry, direct_writes_and_reads_see_it)
{
	static char buf[8192] __attribute__((aligned(4096)));
	struct bfs_file *file, *direct;
	struct world w;

	data_make(&w, "64M", opts);
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	put(file, 0, 16384, 'a');
	ASSERT_OK(bfs_fsync(file, true));
	direct = data_open(&w, "/f", O_RDWR | O_DIRECT);
	expect(direct, 0, 16384, 'a');
	memset(buf, 'd', sizeof(buf));
	ASSERT_EQ_INT(8192, bfs_pwrite(direct, buf, 8192, 4096));
	put(file, 0, 10, 'b');
	ASSERT_OK(bfs_fsync(file, true));
	bfs_close(direct);
	file = crash(&w, file, BFS_NO_SERVICE);
	expect(file, 0, 10, 'b');
	expect(file, 10, 4086, 'a');
	expect(file, 4096, 8192, 'd');
	expect(file, 12288, 4096, 'a');
	bfs_close(file);
	data_end(&w);
}

/* Space for what the log carries was reserved when it was written: all of it comes home, however full the store is. */
TEST(bfs_carry, a_full_store_keeps_the_promise_of_space)
{
	struct bfs_file *file;
	uint64_t n = 0, carries;
	struct world w;
	int64_t rc;

	data_make(&w, "64M", opts);
	file = data_open(&w, "/fill", O_RDWR | O_CREAT);
	for (uint64_t size = 64 * MiB; size >= 4096; size /= 2)
		while (!bfs_fallocate(file, FALLOC_FL_KEEP_SIZE, n, size))
			n += size;
	ASSERT_OK(bfs_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4 * MiB));
	bfs_close(file);
	ASSERT_OK(bfs_sync(w.fs));
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	for (n = 0;; n++) {
		rc = bfs_pwrite(file, "x", 1, n * 16384);
		if (rc != 1)
			break;
		ASSERT_OK(bfs_fsync(file, true));
	}
	ASSERT_ERR(-ENOSPC, rc);
	carries = stat_of(&w).carries;
	ASSERT_GT_INT(n, 50);
	ASSERT_GT_INT(carries, 5);
	ASSERT_OK(bfs_sync(w.fs));
	ASSERT_EQ_INT(0, stat_of(&w).carried_blocks);
	file = crash(&w, file, BFS_NO_SERVICE);
	for (uint64_t i = 0; i < n; i++)
		expect(file, i * 16384, 1, 'x');
	bfs_close(file);
	data_end(&w);
}

/* ---- when things fail ---- */

struct faulty {
	struct world w;
	struct bdev *fault;
};

static struct bfs_file *faulty_make(struct faulty *f)
{
	struct bdev *ram;

	ASSERT_OK(bdev_open("ram:64M", NULL, &ram, &f->w.err));
	ASSERT_OK(bdev_fault_create(ram, &f->fault));
	ASSERT_OK(bfs_format(f->fault, NULL, &f->w.err));
	f->w.keep = f->fault;
	data_mount(&f->w, opts);
	return data_open(&f->w, "/f", O_RDWR | O_CREAT);
}

TEST(bfs_carry, when_it_cannot_be_written_home_it_stays_in_the_log)
{
	struct bdev_fault fault = { .kind = BDEV_FAULT_ERROR, .op = BDEV_WRITE, .count = 1, .rc = -EIO };
	struct bfs_file *file;
	struct faulty f;

	file = faulty_make(&f);
	put(file, 0, 400, 'a');
	ASSERT_OK(bfs_fsync(file, true));
	ASSERT_OK(bdev_fault_add(f.fault, &fault));
	ASSERT_ERR(-EIO, bfs_sync(f.w.fs));
	ASSERT_EQ_INT(1, stat_of(&f.w).carried_blocks);
	/* The error is told, and what was acknowledged is there. */
	ASSERT_ERR(-EIO, bfs_fsync(file, true));
	expect(file, 0, 400, 'a');
	file = crash(&f.w, file, BFS_NO_SERVICE);
	expect(file, 0, 400, 'a');
	ASSERT_EQ_INT(0, stat_of(&f.w).carried_blocks);
	bfs_close(file);
	data_end(&f.w);
}

TEST(bfs_carry, a_mount_that_cannot_bring_it_home_serves_it_all_the_same)
{
	struct bdev_fault fault = { .kind = BDEV_FAULT_ERROR, .op = BDEV_WRITE, .first = 2, .count = 1, .rc = -EIO };
	struct bfs_file *file;
	struct bfs_attr attr;
	struct faulty f;

	file = faulty_make(&f);
	put(file, 0, 400, 'a');
	ASSERT_OK(bfs_fsync(file, true));
	bfs_close(file);
	bfs_abandon(f.w.fs);
	/* The mount's two superblocks come first, then the write home. */
	ASSERT_OK(bdev_fault_add(f.fault, &fault));
	data_mount(&f.w, opts);
	ASSERT_EQ_INT(1, stat_of(&f.w).carried_blocks);
	/* It has no place and is no hole, whoever is asked. */
	ASSERT_OK(bfs_resolve(f.w.fs, NULL, "/f", 0, &attr));
	EXPECT_EQ_INT(8, attr.blocks);
	file = data_open(&f.w, "/f", O_RDWR);
	ASSERT_OK(bfs_getattr(f.w.fs, attr.ino, &attr));
	EXPECT_EQ_INT(8, attr.blocks);
	expect(file, 0, 400, 'a');
	/* Changed, it goes home with the rest of its page. */
	put(file, 1000, 10, 'b');
	ASSERT_OK(bfs_sync(f.w.fs));
	ASSERT_EQ_INT(0, stat_of(&f.w).carried_blocks);
	file = crash(&f.w, file, BFS_NO_SERVICE);
	expect(file, 0, 400, 'a');
	expect(file, 400, 600, 0);
	expect(file, 1000, 10, 'b');
	bfs_close(file);
	data_end(&f.w);
}

TEST(bfs_carry, one_block_that_cannot_be_brought_home_keeps_no_other_from_it)
{
	struct bdev_fault fault = { .kind = BDEV_FAULT_ERROR, .op = BDEV_WRITE, .first = 2, .count = 1, .rc = -EIO };
	struct bfs_file *file, *other;
	struct faulty f;

	file = faulty_make(&f);
	other = data_open(&f.w, "/g", O_RDWR | O_CREAT);
	put(file, 0, 400, 'a');
	put(file, 3 * 4096, 400, 'b');
	put(other, 0, 400, 'c');
	ASSERT_OK(bfs_fsync(file, true));
	ASSERT_OK(bfs_fsync(other, true));
	ASSERT_EQ_INT(3, stat_of(&f.w).carried_blocks);
	bfs_close(file);
	bfs_close(other);
	bfs_abandon(f.w.fs);
	ASSERT_OK(bdev_fault_add(f.fault, &fault));
	data_mount(&f.w, opts);
	ASSERT_EQ_INT(1, stat_of(&f.w).carried_blocks);
	file = data_open(&f.w, "/f", O_RDWR);
	expect(file, 0, 400, 'a');
	expect(file, 3 * 4096, 400, 'b');
	/* The next one can. */
	file = crash(&f.w, file, BFS_NO_SERVICE);
	ASSERT_EQ_INT(0, stat_of(&f.w).carried_blocks);
	expect(file, 0, 400, 'a');
	bfs_close(file);
	data_end(&f.w);
}

/* A file whose header is lost is as long as what is left of it: bytes in the log count. */
TEST(bfs_carry, repair_counts_it_as_data)
{
	struct bfs_repair_opts repair = { .size = sizeof(repair), .flags = BFS_REPAIR_ALL };
	struct bfs_repair_result done;
	struct bfs_check_result result;
	struct bs_blob *blob;
	struct bs_txn *txn;
	struct bfs_attr a;
	struct bs *bs;
	struct world w;
	struct bfs_file *file;

	data_make(&w, "64M", opts);
	bs = bfs_store(w.fs);
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	put(file, 0, 5000, 'a');
	ASSERT_OK(bfs_fsync(file, true));
	ASSERT_EQ_INT(2, stat_of(&w).carried_blocks);
	blob = bs_blob_get(bs, bfs_file_ino(file));
	bfs_close(file);
	ASSERT_OK(bs_txn_begin(bs, 0, &txn));
	ASSERT_OK(bs_txn_header(txn, blob, 0, NULL, 0));
	bs_txn_end(txn);
	bs_blob_put(blob);
	ASSERT_OK(bs_commit(bs, 0));
	bfs_abandon(w.fs);
	bdev_ref(w.keep);
	ASSERT_OK(bfs_repair(w.keep, &repair, &done, &w.err));
	world_check(&w, &result);
	ASSERT_EQ_INT(0, result.problems);
	data_mount(&w, opts);
	ASSERT_OK(bfs_lookup(w.fs, NULL, 1, "f", &a));
	ASSERT_EQ_INT(5000, a.size);
	file = data_open(&w, "/f", O_RDWR);
	expect(file, 0, 5000, 'a');
	bfs_close(file);
	data_end(&w);
}

TEST(bfs_carry, lack_of_memory_is_an_error_or_another_way)
{
	struct bfs_file *file;
	struct world w;

	data_make(&w, "64M", opts);
	file = data_open(&w, "/f", O_RDWR | O_CREAT);
	for (unsigned n = 1; n < 40; n++) {
		int rc;

		put(file, n * 3000, 3000, (char)n);
		base_fail_alloc_after(n);
		rc = bfs_fsync(file, true);
		base_fail_alloc_after(0);
		if (rc)
			ASSERT_ERR(-ENOMEM, rc);
		if (rc)
			ASSERT_OK(bfs_fsync(file, true));
		file = crash(&w, file, BFS_NO_SERVICE);
		for (unsigned i = 1; i <= n; i++)
			expect(file, i * 3000, 3000, (char)i);
	}
	bfs_close(file);
	data_end(&w);
}

/* ---- threads ---- */

struct logger {
	struct world *w;
	unsigned number;
	uint64_t wrong;
	_Atomic bool *stop;
};

static void *append_and_sync(void *arg)
{
	struct logger *l = arg;
	char path[16], record[300], back[300];
	struct bfs_file *file;
	uint64_t size = 0;

	snprintf(path, sizeof(path), "/%u", l->number / 2);
	file = data_open(l->w, path, O_RDWR | O_CREAT);
	memset(record, 'a' + (int)l->number, sizeof(record));
	for (uint64_t i = 0; i < test_scaled(400); i++) {
		l->wrong += bfs_append(file, record, sizeof(record)) != sizeof(record);
		l->wrong += bfs_fsync(file, i & 1) != 0;
		size = bfs_file_size(file);
		l->wrong += bfs_pread(file, back, sizeof(back), size / sizeof(back) / 2 * sizeof(back)) != sizeof(back) ||
			    back[0] != back[299];
	}
	bfs_close(file);
	return NULL;
}

static void *sync_all(void *arg)
{
	struct logger *l = arg;

	while (!atomic_load(l->stop)) {
		l->wrong += bfs_sync(l->w->fs) != 0;
		usleep(500);
	}
	return NULL;
}

TEST(bfs_carry_threads, logs_are_synced_by_many_while_they_are_written_back)
{
	_Atomic bool stop = false;
	struct logger l[5];
	pthread_t t[5];
	struct world w;

	data_make(&w, "64M", (struct bfs_mount_opts){ .writeback_ms = 2 });
	for (unsigned i = 0; i < 5; i++) {
		l[i] = (struct logger){ .w = &w, .number = i, .stop = &stop };
		ASSERT_OK(pthread_create(&t[i], NULL, i < 4 ? append_and_sync : sync_all, &l[i]));
	}
	for (unsigned i = 0; i < 5; i++) {
		if (i == 4)
			atomic_store(&stop, true);
		pthread_join(t[i], NULL);
		EXPECT_EQ_INT(0, l[i].wrong);
	}
	ASSERT_GT_INT(stat_of(&w).carries, 0);
	data_end(&w);
}
