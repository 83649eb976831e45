/* SPDX-License-Identifier: BSD-2-Clause */
/* Many threads on one file and on many. */
#include <pthread.h>
#include <sched.h>

#include "test/unit/blobfs/data.h"

#define RECORD 400u
#define RECORDS 3000u
#define APPENDERS 4u

struct crowd {
	struct world w;
	struct bfs_file *file;
	_Atomic bool stop;
	_Atomic uint64_t reads;
};

struct member {
	struct crowd *c;
	unsigned number;
};

static void run_all(struct crowd *c, void *(*fn)(void *), unsigned n)
{
	pthread_t thread[16];
	struct member member[16];

	for (unsigned i = 0; i < n; i++) {
		member[i] = (struct member){ c, i };
		ASSERT_EQ_INT(0, pthread_create(&thread[i], NULL, fn, &member[i]));
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(thread[i], NULL);
}

static void *append_records(void *arg)
{
	struct member *m = arg;
	uint8_t rec[RECORD];

	for (uint32_t i = 0; i < RECORDS; i++) {
		memset(rec, (int)(m->number + 1), sizeof(rec));
		memcpy(rec, &i, sizeof(i));
		ASSERT_EQ_INT(RECORD, bfs_append(m->c->file, rec, sizeof(rec)));
		if (i % 500 == 0)
			ASSERT_OK(bfs_fsync(m->c->file, true));
	}
	return NULL;
}

/* Every record is whole, each appender's are in order, none is missing. */
static void check_records(struct crowd *c)
{
	uint32_t next[APPENDERS] = { 0 };
	uint8_t rec[RECORD];

	ASSERT_EQ_INT((uint64_t)RECORD * RECORDS * APPENDERS, bfs_file_size(c->file));
	for (uint64_t i = 0; i < (uint64_t)RECORDS * APPENDERS; i++) {
		uint32_t number;
		unsigned who;

		ASSERT_EQ_INT(RECORD, bfs_pread(c->file, rec, sizeof(rec), i * RECORD));
		who = rec[RECORD - 1] - 1u;
		ASSERT_LT_INT(who, APPENDERS);
		for (unsigned k = 4; k < RECORD; k++)
			ASSERT_EQ_INT(who + 1, rec[k]);
		memcpy(&number, rec, sizeof(number));
		ASSERT_EQ_INT(next[who]++, number);
	}
}

TEST(bfs_data_threads, appends_are_whole_and_in_order)
{
	struct crowd c = { .stop = false };

	data_make(&c.w, "96M", (struct bfs_mount_opts){ .cache_size = 2 * MiB, .writeback_ms = 5 });
	c.file = data_open(&c.w, "/log", O_RDWR | O_CREAT);
	run_all(&c, append_records, APPENDERS);
	check_records(&c);
	bfs_close(c.file);
	ASSERT_OK(bfs_unmount(c.w.fs));
	data_mount(&c.w, (struct bfs_mount_opts){ .cache_size = 2 * MiB });
	c.file = data_open(&c.w, "/log", O_RDWR);
	check_records(&c);
	bfs_close(c.file);
	data_end(&c.w);
}

/* ---- one file: writers of pages, readers, truncation, fsync, direct I/O, all at once ---- */

#define PAGES 512u
#define ROUNDS 1500u

/* Each page is written whole, with one byte all over: so it may never be read as a mixture. Truncation makes it zero. */
static void check_page(const uint8_t *page, size_t len)
{
	for (size_t i = 1; i < len; i++)
		ASSERT_EQ_INT(page[0], page[i]);
}

static void one_round(struct member *m, uint64_t *rng, uint8_t *page)
{
	struct bfs_file *file = m->c->file;
	uint64_t number = rnd(rng) % PAGES;
	int64_t n;

	switch (m->number) {
	case 0:
	case 1:
		memset(page, (int)(rnd(rng) % 255 + 1), 4096);
		ASSERT_EQ_INT(4096, bfs_pwrite(file, page, 4096, number * 4096));
		break;
	case 2:
	case 3:
		n = bfs_pread(file, page, 4096, number * 4096);
		ASSERT_GE_INT(n, 0);
		if (n == 4096)
			check_page(page, 4096);
		break;
	case 4:
		if (number % 16 == 0)
			ASSERT_OK(bfs_truncate(m->c->w.fs, NULL, bfs_file_ino(file),
					       rnd(rng) % PAGES * 4096));
		else
			ASSERT_OK(bfs_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
						number * 4096, 8192));
		break;
	case 5:
		ASSERT_OK(number % 2 ? bfs_fsync(file, false) : bfs_sync(m->c->w.fs));
		break;
	default:
		ASSERT_OK(bfs_advise(file, number * 4096, 65536,
				     number % 2 ? BFS_ADV_DONTNEED : BFS_ADV_WILLNEED));
	}
}

static void *mixed(void *arg)
{
	struct member *m = arg;
	uint64_t rng = m->number * 77 + 5;
	uint8_t page[4096];

	for (unsigned i = 0; i < (m->number == 5 ? ROUNDS / 10 : ROUNDS); i++)
		one_round(m, &rng, page);
	return NULL;
}

static void run_mixed(uint64_t cache)
{
	struct crowd c = { .stop = false };

	data_make(&c.w, "96M", (struct bfs_mount_opts){ .cache_size = cache, .writeback_ms = 2 });
	c.file = data_open(&c.w, "/file", O_RDWR | O_CREAT);
	run_all(&c, mixed, 7);
	bfs_close(c.file);
	data_end(&c.w);
}

TEST(bfs_data_threads, pages_of_one_file_are_never_read_mixed)
{
	run_mixed(16 * MiB);
}

TEST(bfs_data_threads, nor_when_the_cache_is_too_small)
{
	run_mixed(1 * MiB);
}

/* ---- many files ---- */

static void *own_file(void *arg)
{
	struct member *m = arg;
	uint64_t rng = m->number + 1, size = 0;
	uint8_t *want = malloc(1 << 20), *got = malloc(1 << 20);
	char path[32];
	struct bfs_file *file;

	snprintf(path, sizeof(path), "/own%u", m->number);
	file = data_open(&m->c->w, path, O_RDWR | O_CREAT);
	for (unsigned i = 0; i < 150; i++) {
		uint64_t len = rnd(&rng) % 60000 + 1, off = rnd(&rng) % ((1 << 20) - len);

		if (off > size)
			memset(want + size, 0, off - size);
		fill_bytes(want + off, len, rnd(&rng));
		ASSERT_EQ_INT((int64_t)len, bfs_pwrite(file, want + off, len, off));
		size = size > off + len ? size : off + len;
		if (i % 10 == 0)
			ASSERT_OK(bfs_fsync(file, true));
		ASSERT_EQ_INT((int64_t)size, bfs_pread(file, got, 1 << 20, 0));
		ASSERT_EQ_MEM(want, got, size);
	}
	bfs_close(file);
	free(want);
	free(got);
	return NULL;
}

TEST(bfs_data_threads, each_reads_what_it_wrote)
{
	struct crowd c = { .stop = false };

	data_make(&c.w, "128M",
		  (struct bfs_mount_opts){ .cache_size = 2 * MiB, .writeback_ms = 3 });
	run_all(&c, own_file, 8);
	data_end(&c.w);
}

/* ---- a queue that another thread polls, and one that nobody polls for a while ---- */

struct polled {
	struct bfs_queue *q;
	_Atomic uint32_t done;
	_Atomic bool stop;
};

static void count_done(struct bfs_req *req, void *arg)
{
	struct polled *p = arg;

	ASSERT_GE_INT(req->result, 0);
	atomic_fetch_add(&p->done, 1);
}

static void *poll_it(void *arg)
{
	struct polled *p = arg;

	while (!atomic_load(&p->stop))
		bfs_queue_poll(p->q);
	return NULL;
}

TEST(bfs_data_threads, one_submits_and_another_polls)
{
	enum { N = 400 };
	static struct bfs_req req[N];
	static uint8_t buf[N][512];
	struct iovec iov[N];
	struct polled p = { .done = 0 };
	struct world w;
	struct bfs_file *file;
	pthread_t thread;

	data_make(&w, "64M", (struct bfs_mount_opts){ .cache_size = 1 * MiB });
	file = data_open(&w, "/file", O_RDWR | O_CREAT);
	ASSERT_OK(bfs_queue_create(w.fs, &p.q));
	ASSERT_EQ_INT(0, pthread_create(&thread, NULL, poll_it, &p));
	for (unsigned i = 0; i < N; i++) {
		iov[i] = (struct iovec){ buf[i], sizeof(buf[i]) };
		memset(buf[i], (int)i, sizeof(buf[i]));
		req[i] = (struct bfs_req){ .op = i % 8 == 7 ? BFS_REQ_FSYNC : BFS_REQ_WRITE,
					   .file = file,
					   .offset = (uint64_t)i * 10000,
					   .iov = &iov[i],
					   .iovcnt = 1,
					   .done = count_done,
					   .arg = &p };
		bfs_submit(p.q, &req[i]);
	}
	while (atomic_load(&p.done) < N)
		sched_yield();
	atomic_store(&p.stop, true);
	pthread_join(thread, NULL);
	bfs_queue_destroy(p.q);
	bfs_close(file);
	data_end(&w);
}

TEST(bfs_data_threads, a_queue_that_is_not_polled_holds_nobody_up)
{
	static uint8_t a[65536], b[65536];
	struct iovec iov = { a, sizeof(a) };
	struct polled p = { .done = 0 };
	struct world w;
	struct bfs_file *file;
	struct bfs_req req;

	data_make(&w, "64M", (struct bfs_mount_opts){ .cache_size = 4 * MiB });
	file = data_open(&w, "/file", O_RDWR | O_CREAT);
	fill_bytes(a, sizeof(a), 3);
	ASSERT_EQ_INT(sizeof(a), bfs_pwrite(file, a, sizeof(a), 0));
	ASSERT_OK(bfs_fsync(file, false));
	ASSERT_OK(bfs_advise(file, 0, 0, BFS_ADV_DONTNEED));
	ASSERT_OK(bfs_queue_create(w.fs, &p.q));
	req = (struct bfs_req){ .op = BFS_REQ_READ,
				.file = file,
				.iov = &iov,
				.iovcnt = 1,
				.done = count_done,
				.arg = &p };
	bfs_submit(p.q, &req);
	/* Its pages are being read on the queue's channel: this one waits for them by polling that. */
	ASSERT_EQ_INT(sizeof(b), bfs_pread(file, b, sizeof(b), 0));
	ASSERT_EQ_INT(100, bfs_pwrite(file, b, 100, 5000));
	while (!atomic_load(&p.done))
		bfs_queue_poll(p.q);
	bfs_queue_destroy(p.q);
	bfs_close(file);
	data_end(&w);
}
