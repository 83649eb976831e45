/* SPDX-License-Identifier: BSD-2-Clause */
/* Random reads, writes, truncations and holes by every way there is, against an array of bytes. */
#include "base/dma.h"
#include "test/unit/blobfs/data.h"

#define MAX_SIZE (6u << 20)
#define MAX_IO (1500u << 10)

/* BLOBFS_TEST_TRACE: every operation to standard error. */
#define TRACE(...) (getenv("BLOBFS_TEST_TRACE") ? (void)fprintf(stderr, __VA_ARGS__) : (void)0)
#define U(x) ((unsigned long long)(x))

struct model {
	struct world w;
	struct bfs_mount_opts opts;
	struct bfs_file *file, *direct;
	struct bfs_queue *q;
	uint64_t rng, size;
	uint8_t *bytes, *buf;
	uint64_t ino;
	unsigned op;
};

static void open_all(struct model *m)
{
	m->file = data_open(&m->w, "/file", O_RDWR | O_CREAT);
	m->direct = data_open(&m->w, "/file", O_RDWR | O_DIRECT);
	m->ino = bfs_file_ino(m->file);
	ASSERT_OK(bfs_queue_create(m->w.fs, &m->q));
}

static void close_all(struct model *m)
{
	bfs_queue_destroy(m->q);
	bfs_close(m->direct);
	bfs_close(m->file);
}

static void on_done(struct bfs_req *req, void *arg)
{
	*(bool *)arg = true;
	(void)req;
}

static int64_t run_async(struct model *m, struct bfs_req *req)
{
	bool done = false;

	req->done = on_done;
	req->arg = &done;
	bfs_submit(m->q, req);
	ASSERT_FALSE(done);
	while (!done)
		bfs_queue_poll(m->q);
	return req->result;
}

/* A range: small or large, at random or aligned. */
static void pick_range(struct model *m, uint64_t *offset, uint64_t *len, bool aligned)
{
	uint64_t kind = rnd(&m->rng) % 8;

	*len = kind < 4   ? rnd(&m->rng) % 9000 + 1
	       : kind < 7 ? rnd(&m->rng) % 200000 + 1
			  : rnd(&m->rng) % MAX_IO + 1;
	*offset = rnd(&m->rng) % (rnd(&m->rng) % 4 ? m->size + 10000 : MAX_SIZE);
	if (rnd(&m->rng) % 4 == 0)
		*offset &= ~4095ull;
	if (aligned) {
		*offset &= ~4095ull;
		*len = (*len + 4095) & ~4095ull;
	}
	if (*offset + *len > MAX_SIZE)
		*offset = *offset > *len ? (*offset - *len) & (aligned ? ~4095ull : UINT64_MAX) : 0;
}

static void do_write(struct model *m)
{
	uint64_t how = rnd(&m->rng) % 6, offset, len;
	struct iovec iov[3];
	int64_t n;

	pick_range(m, &offset, &len, how == 1 || how == 4);
	if (how == 2 && m->size + len < MAX_SIZE)
		offset = m->size;
	else if (how == 2)
		how = 0;
	TRACE("%u: write %llu + %llu, way %llu, size %llu\n", m->op, U(offset), U(len), U(how),
	      U(m->size));
	fill_bytes(m->buf, len, rnd(&m->rng));
	if (how == 0) {
		n = bfs_pwrite(m->file, m->buf, len, offset);
	} else if (how == 1 || how == 5) {
		n = bfs_pwrite(m->direct, m->buf, len, offset);
	} else if (how == 2) {
		n = bfs_append(m->file, m->buf, len);
	} else {
		uint64_t cut = how == 4 ? len / 2 & ~4095ull : len / 3;
		struct bfs_req req = {
			.op = BFS_REQ_WRITE,
			.file = m->file,
			.offset = offset,
			.iov = iov,
			.iovcnt = 3,
			.flags = how == 4           ? BFS_IO_DIRECT
				 : rnd(&m->rng) % 4 ? 0
						    : BFS_IO_DATASYNC,
		};

		iov[0] = (struct iovec){ m->buf, cut };
		iov[1] = (struct iovec){ m->buf + cut, 0 };
		iov[2] = (struct iovec){ m->buf + cut, len - cut };
		n = run_async(m, &req);
	}
	ASSERT_EQ_INT((int64_t)len, n);
	memcpy(m->bytes + offset, m->buf, len);
	if (offset + len > m->size)
		m->size = offset + len;
}

static void do_read(struct model *m)
{
	uint64_t how = rnd(&m->rng) % 5, offset, len, want;
	int64_t n;

	pick_range(m, &offset, &len, how == 1);
	memset(m->buf, 0xee, len);
	want = offset < m->size ? len : 0;
	if (want > m->size - offset)
		want = m->size - offset;
	if (how == 0) {
		n = bfs_pread(m->file, m->buf, len, offset);
	} else if (how == 1 || how == 2) {
		n = bfs_pread(m->direct, m->buf, len, offset);
	} else {
		struct iovec iov[2] = { { m->buf, len / 3 }, { m->buf + len / 3, len - len / 3 } };
		struct bfs_req req = {
			.op = BFS_REQ_READ,
			.file = m->file,
			.offset = offset,
			.iov = iov,
			.iovcnt = 2,
			.flags = how == 3 ? BFS_IO_NOCACHE : 0,
		};

		n = run_async(m, &req);
	}
	ASSERT_EQ_INT((int64_t)want, n);
	if (want)
		ASSERT_EQ_MEM(m->bytes + offset, m->buf, want);
}

static void do_truncate(struct model *m)
{
	uint64_t to = rnd(&m->rng) % 3 ? rnd(&m->rng) % (m->size + 5000) : rnd(&m->rng) % MAX_SIZE;

	if (to > MAX_SIZE)
		to = MAX_SIZE;
	if (rnd(&m->rng) % 4 == 0)
		to &= ~4095ull;
	TRACE("%u: truncate %llu -> %llu\n", m->op, U(m->size), U(to));
	if (rnd(&m->rng) % 2) {
		ASSERT_OK(bfs_truncate(m->w.fs, NULL, m->ino, to));
	} else {
		struct bfs_req req = { .op = BFS_REQ_TRUNCATE, .ino = m->ino, .length = to };

		ASSERT_EQ_INT(0, run_async(m, &req));
	}
	if (to < m->size)
		memset(m->bytes + to, 0, m->size - to);
	m->size = to;
}

static void do_fallocate(struct model *m)
{
	static const int modes[] = {
		0,
		FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
	};
	int mode = modes[rnd(&m->rng) % ARRAY_SIZE(modes)];
	uint64_t offset, len, end;

	pick_range(m, &offset, &len, rnd(&m->rng) % 2);
	TRACE("%u: fallocate %d: %llu + %llu, size %llu\n", m->op, mode, U(offset), U(len),
	      U(m->size));
	ASSERT_OK(bfs_fallocate(m->file, mode, offset, len));
	end = offset + len;
	if (!(mode & FALLOC_FL_KEEP_SIZE) && end > m->size)
		m->size = end;
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		memset(m->bytes + offset, 0, len);
}

/* Whatever is called data or hole: holes read as zeroes, and the two alternate to the end. */
static void do_seek(struct model *m)
{
	uint64_t pos = 0;

	while (pos < m->size) {
		int64_t data = bfs_seek(m->file, pos, SEEK_DATA), hole;

		if (data == -ENXIO)
			data = (int64_t)m->size;
		ASSERT_GE_INT(data, (int64_t)pos);
		for (uint64_t i = pos; i < (uint64_t)data; i++)
			ASSERT_EQ_INT(0, m->bytes[i]);
		if ((uint64_t)data == m->size)
			break;
		hole = bfs_seek(m->file, (uint64_t)data, SEEK_HOLE);
		ASSERT_GT_INT(hole, data);
		pos = (uint64_t)hole;
	}
}

static void check_all(struct model *m)
{
	ASSERT_EQ_INT(m->size, bfs_file_size(m->file));
	ASSERT_EQ_INT((int64_t)m->size, bfs_pread(m->file, m->buf, MAX_SIZE, 0));
	ASSERT_EQ_MEM(m->bytes, m->buf, m->size);
}

/* How the file system is left and entered again: in order, or as after a crash that followed a sync. */
static void do_remount(struct model *m)
{
	bool crash = rnd(&m->rng) % 2, by_file = rnd(&m->rng) % 2;

	TRACE("%u: remount, crash %d, fsync %d\n", m->op, crash, by_file);
	if (crash)
		ASSERT_OK(by_file ? bfs_fsync(m->file, rnd(&m->rng) % 2) : bfs_sync(m->w.fs));
	close_all(m);
	if (crash)
		bfs_abandon(m->w.fs);
	else
		ASSERT_OK(bfs_unmount(m->w.fs));
	data_mount(&m->w, m->opts);
	open_all(m);
	check_all(m);
}

static void do_other(struct model *m)
{
	uint64_t what = rnd(&m->rng) % 6;

	TRACE("%u: other %llu\n", m->op, U(what));
	switch (what) {
	case 0:
		ASSERT_OK(bfs_fsync(m->file, rnd(&m->rng) % 2));
		break;
	case 1:
		ASSERT_OK(bfs_sync_range(m->file, rnd(&m->rng) % MAX_SIZE, rnd(&m->rng) % MAX_SIZE,
					 rnd(&m->rng) % 2));
		break;
	case 2:
		ASSERT_OK(bfs_advise(m->file, rnd(&m->rng) % MAX_SIZE, rnd(&m->rng) % MAX_SIZE,
				     rnd(&m->rng) % 2 ? BFS_ADV_DONTNEED : BFS_ADV_WILLNEED));
		break;
	case 3:
		ASSERT_OK(m->opts.flags & BFS_NO_SERVICE ? bfs_service_step(m->w.fs)
							 : bfs_sync(m->w.fs));
		break;
	case 4:
		do_seek(m);
		break;
	default:
		do_remount(m);
	}
}

static void run_model(uint64_t seed, unsigned ops, struct bfs_mount_opts opts)
{
	struct model m = { .opts = opts, .rng = seed };

	m.bytes = base_calloc(1, MAX_SIZE);
	m.buf = dma_alloc(MAX_SIZE, 4096);
	data_make(&m.w, "96M", opts);
	open_all(&m);
	for (m.op = 0; m.op < ops; m.op++) {
		uint64_t what = rnd(&m.rng) % 20;

		test_note("seed %llu, operation %u", (unsigned long long)seed, m.op);
		if (what < 8)
			do_write(&m);
		else if (what < 14)
			do_read(&m);
		else if (what < 16)
			do_truncate(&m);
		else if (what < 18)
			do_fallocate(&m);
		else
			do_other(&m);
		ASSERT_EQ_INT(m.size, bfs_file_size(m.file));
	}
	check_all(&m);
	close_all(&m);
	data_end(&m.w);
	free(m.bytes);
	dma_free(m.buf);
	test_note("after the model");
}

TEST(bfs_data_model, bytes_are_those_of_an_array_without_a_service)
{
	for (uint64_t seed = 1; seed <= 6; seed++)
		run_model(
			seed, 250,
			(struct bfs_mount_opts){ .flags = BFS_NO_SERVICE, .cache_size = 16 * MiB });
}

TEST(bfs_data_model, bytes_are_those_of_an_array_with_a_service)
{
	for (uint64_t seed = 101; seed <= 104; seed++)
		run_model(seed, 250,
			  (struct bfs_mount_opts){ .cache_size = 16 * MiB, .writeback_ms = 20 });
}

TEST(bfs_data_model, a_cache_much_smaller_than_the_file_will_do)
{
	for (uint64_t seed = 201; seed <= 204; seed++)
		run_model(seed, 250,
			  (struct bfs_mount_opts){ .flags = seed % 2 ? BFS_NO_SERVICE : 0,
						   .cache_size = 1 * MiB,
						   .writeback_ms = 10 });
}

TEST(bfs_data_model, a_seed_of_the_day)
{
	run_model(test_seed(), 400, (struct bfs_mount_opts){ .cache_size = 4 * MiB, .writeback_ms = 5 });
}
