/* SPDX-License-Identifier: BSD-2-Clause */
/* I/O of one run: the edges of the short way, and looks at maps beside those who change them. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "blob/epoch.h"
#include "test/unit/blob/kit.h"

/* A request with a callback, polled for by hand. */
struct asked {
	struct bs_io io;
	struct iovec v[3];
	int rc, calls;
};

static void answered(struct bs_io *io, int rc)
{
	struct asked *a = container_of(io, struct asked, io);

	a->rc = rc;
	a->calls++;
}

static struct asked *ask(struct asked *a, struct bs_blob *blob, enum bs_io_op op,
			 uint64_t block, uint64_t count, void *buf)
{
	*a = (struct asked){ .rc = 1 };
	a->v[0] = (struct iovec){ buf, count * BS_BLOCK };
	a->io = (struct bs_io){ .blob = blob,
				.op = op,
				.offset = block * BS_BLOCK,
				.length = count * BS_BLOCK,
				.iov = a->v,
				.iovcnt = 1 };
	return a;
}

static int answer(struct bdev_channel *ch, struct asked *a)
{
	bs_io_submit(ch, &a->io, answered);
	EXPECT_EQ_INT(0, a->calls);
	while (!a->calls)
		bdev_poll(ch);
	bdev_poll(ch);
	EXPECT_EQ_INT(1, a->calls);
	return a->rc;
}

static bool filled(const uint8_t *p, uint64_t blocks, uint8_t byte)
{
	for (uint64_t i = 0; i < blocks * BS_BLOCK; i++)
		if (p[i] != byte)
			return false;
	return true;
}

struct rig {
	struct kit kit;
	struct bs_blob *blob;
	struct bdev_channel *ch;
	uint8_t *buf;
	struct asked a;
};

/* Without a service thread the device does nothing but what is asked for here. */
static void rig_up(struct rig *r, uint32_t flags)
{
	kit_open(&r->kit, &(struct kit_opts){ .flags = flags });
	r->blob = kit_create(r->kit.bs);
	ASSERT_OK(bdev_channel_create(r->kit.dev, &r->ch));
	r->buf = dma_zalloc(512 * BS_BLOCK, BS_BLOCK);
}

static void rig_down(struct rig *r)
{
	bdev_channel_destroy(r->ch);
	dma_free(r->buf);
	bs_blob_put(r->blob);
	kit_close(&r->kit);
}

TEST(blob_fast, a_read_of_one_run_is_one_device_read_up_to_its_very_end)
{
	struct rig r;
	uint64_t before;

	rig_up(&r, BS_NO_SERVICE);
	ASSERT_OK(kit_write(r.blob, 4, 4, 'a', 0));
	for (uint64_t b = 4; b < 8; b++)
		for (uint64_t n = 1; b + n <= 8; n++) {
			memset(r.buf, 0, n * BS_BLOCK);
			before = kit_device_stats(&r.kit).reads;
			ASSERT_OK(answer(r.ch, ask(&r.a, r.blob, BS_READ, b, n, r.buf)));
			EXPECT_TRUE(filled(r.buf, n, 'a'));
			EXPECT_EQ_INT(1, kit_device_stats(&r.kit).reads - before);
		}
	rig_down(&r);
}

TEST(blob_fast, what_lies_around_a_run_reads_as_zeroes)
{
	struct rig r;

	rig_up(&r, BS_NO_SERVICE);
	ASSERT_OK(kit_write(r.blob, 4, 4, 'a', 0));
	for (uint64_t b = 2; b < 10; b++)
		for (uint64_t n = 1; n < 8; n++) {
			memset(r.buf, 'x', n * BS_BLOCK);
			ASSERT_OK(answer(r.ch, ask(&r.a, r.blob, BS_READ, b, n, r.buf)));
			for (uint64_t i = 0; i < n; i++)
				EXPECT_TRUE(filled(r.buf + i * BS_BLOCK, 1, b + i >= 4 && b + i < 8 ? 'a' : 0));
		}
	memset(r.buf, 'x', BS_BLOCK);
	ASSERT_OK(answer(r.ch, ask(&r.a, r.blob, BS_READ, (1ull << BS_RUN_BITS) - 1, 1, r.buf)));
	EXPECT_TRUE(filled(r.buf, 1, 0));
	rig_down(&r);
}

TEST(blob_fast, of_two_runs_that_touch_each_is_found_by_its_own_blocks)
{
	struct rig r;
	uint64_t before;

	rig_up(&r, BS_NO_SERVICE);
	/* Written from the end, each has a place of its own; in groups of four they cannot go on with each other. */
	for (uint64_t b = 40; b >= 4; b -= 4)
		ASSERT_OK(kit_write(r.blob, b, 4, (uint8_t)b, 0));
	for (uint64_t b = 4; b < 44; b++) {
		before = kit_device_stats(&r.kit).reads;
		ASSERT_OK(answer(r.ch, ask(&r.a, r.blob, BS_READ, b, 1, r.buf)));
		EXPECT_TRUE(filled(r.buf, 1, (uint8_t)(b & ~3ull)));
		EXPECT_EQ_INT(1, kit_device_stats(&r.kit).reads - before);
	}
	ASSERT_OK(answer(r.ch, ask(&r.a, r.blob, BS_READ, 7, 2, r.buf)));
	EXPECT_TRUE(filled(r.buf, 1, 4) && filled(r.buf + BS_BLOCK, 1, 8));
	rig_down(&r);
}

TEST(blob_fast, unwritten_blocks_are_zeroes_and_are_not_overwritten_unpublished)
{
	struct rig r;
	uint64_t before;

	rig_up(&r, BS_NO_SERVICE);
	ASSERT_OK(kit_prealloc(r.kit.bs, r.blob, 0, 8));
	memset(r.buf, 'x', 8 * BS_BLOCK);
	before = kit_device_stats(&r.kit).reads;
	ASSERT_OK(answer(r.ch, ask(&r.a, r.blob, BS_READ, 0, 8, r.buf)));
	EXPECT_TRUE(filled(r.buf, 8, 0));
	EXPECT_EQ_INT(0, kit_device_stats(&r.kit).reads - before);
	memset(r.buf, 'b', BS_BLOCK);
	ASSERT_OK(answer(r.ch, ask(&r.a, r.blob, BS_WRITE, 3, 1, r.buf)));
	EXPECT_GT_INT(r.a.io.lsn, 0);
	EXPECT_EQ_INT('b', kit_byte(r.blob, 3));
	EXPECT_EQ_INT(0, kit_byte(r.blob, 2));
	rig_down(&r);
}

TEST(blob_fast, a_write_over_one_run_is_one_device_write_and_changes_no_metadata)
{
	struct rig r;
	uint64_t before, lsn;

	rig_up(&r, BS_NO_SERVICE);
	ASSERT_OK(kit_write(r.blob, 0, 8, 'a', 0));
	lsn = bs_lsn(r.kit.bs);
	before = kit_device_stats(&r.kit).writes;
	memset(r.buf, 'b', 3 * BS_BLOCK);
	ask(&r.a, r.blob, BS_WRITE, 5, 3, r.buf);
	r.a.io.lsn = 77;
	ASSERT_OK(answer(r.ch, &r.a));
	EXPECT_EQ_INT(0, r.a.io.lsn);
	EXPECT_EQ_INT(lsn, bs_lsn(r.kit.bs));
	EXPECT_EQ_INT(1, kit_device_stats(&r.kit).writes - before);
	EXPECT_EQ_INT('a', kit_byte(r.blob, 4));
	EXPECT_EQ_INT('b', kit_byte(r.blob, 5));
	/* Beyond the run's end it is no longer only that. */
	ASSERT_OK(answer(r.ch, ask(&r.a, r.blob, BS_WRITE, 6, 3, r.buf)));
	EXPECT_GT_INT(r.a.io.lsn, 0);
	rig_down(&r);
}

TEST(blob_fast, shared_blocks_are_read_where_they_are_and_written_elsewhere)
{
	struct rig r;
	struct bs_blob *copy;
	struct bs_extent e, after;
	uint64_t id, before;

	rig_up(&r, BS_NO_SERVICE);
	ASSERT_OK(kit_write(r.blob, 0, 8, 'a', 0));
	ASSERT_OK(bs_snapshot(r.kit.bs, &r.blob, 1, true, &id));
	copy = bs_blob_get(r.kit.bs, id);
	before = kit_device_stats(&r.kit).reads;
	ASSERT_OK(answer(r.ch, ask(&r.a, copy, BS_READ, 0, 8, r.buf)));
	EXPECT_TRUE(filled(r.buf, 8, 'a'));
	EXPECT_EQ_INT(1, kit_device_stats(&r.kit).reads - before);
	bs_map_lookup(r.blob, 2, 1, &e);
	memset(r.buf, 'b', BS_BLOCK);
	ASSERT_OK(answer(r.ch, ask(&r.a, r.blob, BS_WRITE, 2, 1, r.buf)));
	bs_map_lookup(r.blob, 2, 1, &after);
	EXPECT_TRUE(e.phys != after.phys);
	EXPECT_EQ_INT('a', kit_byte(copy, 2));
	EXPECT_EQ_INT('b', kit_byte(r.blob, 2));
	EXPECT_EQ_INT(-EROFS, answer(r.ch, ask(&r.a, copy, BS_WRITE, 2, 1, r.buf)));
	bs_blob_put(copy);
	rig_down(&r);
}

TEST(blob_fast, while_a_blob_is_about_to_be_shared_nothing_of_it_is_overwritten_in_place)
{
	struct rig r;
	struct bs_extent e, after;

	rig_up(&r, BS_NO_SERVICE);
	ASSERT_OK(kit_write(r.blob, 0, 8, 'a', 0));
	bs_map_lookup(r.blob, 2, 1, &e);
	bs_share_begin(r.blob);
	bs_share_hold(r.blob);
	ASSERT_OK(answer(r.ch, ask(&r.a, r.blob, BS_WRITE, 2, 1, r.buf)));
	bs_map_lookup(r.blob, 2, 1, &after);
	EXPECT_TRUE(e.phys != after.phys);
	bs_share_end(r.blob, true);
	EXPECT_EQ_INT(0, atomic_load(&r.kit.bs->epochs->changing));
	rig_down(&r);
}

TEST(blob_fast, what_is_wrong_is_refused_in_a_poll_and_leaves_the_epoch)
{
	static const struct {
		enum bs_io_op op;
		uint64_t offset, length, iov_len;
		int iovcnt, rc;
	} wrong[] = {
		{ BS_READ, 512, BS_BLOCK, BS_BLOCK, 1, -EINVAL },
		{ BS_READ, 0, 512, 512, 1, -EINVAL },
		{ BS_READ, 0, 0, 0, 1, -EINVAL },
		{ BS_READ, 0, BS_BLOCK, 2 * BS_BLOCK, 1, -EINVAL },
		{ BS_READ, 0, BS_BLOCK, 512, 1, -EINVAL },
		{ BS_READ, 0, BS_BLOCK, BS_BLOCK, 0, -EINVAL },
		{ BS_READ, 0, BS_BLOCK, BS_BLOCK, -1, -EINVAL },
		{ BS_READ, 0, 2 * BS_IO_MAX, 2 * BS_IO_MAX, 1, -EINVAL },
		{ BS_READ, 1ull << 52, BS_BLOCK, BS_BLOCK, 1, -EFBIG },
		{ BS_READ, UINT64_MAX - 4095, BS_BLOCK, BS_BLOCK, 1, -EFBIG },
		{ BS_WRITE, 0, BS_BLOCK, 2 * BS_BLOCK, 1, -EINVAL },
		{ BS_WRITE, 0, BS_BLOCK, 512, 1, -EINVAL },
		{ BS_WRITE, 0, 0, 0, 1, -EINVAL },
		{ BS_WRITE, 0, BS_BLOCK + 512, BS_BLOCK + 512, 1, -EINVAL },
		{ (enum bs_io_op)9, 0, BS_BLOCK, BS_BLOCK, 1, -EINVAL },
	};
	struct rig r;
	uint64_t epoch;

	rig_up(&r, BS_NO_SERVICE);
	ASSERT_OK(kit_write(r.blob, 0, 256, 'a', 0));
	ASSERT_OK(kit_write(r.blob, 256, 256, 'a', 0));
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		ask(&r.a, r.blob, wrong[i].op, 0, 1, r.buf);
		r.a.io.offset = wrong[i].offset;
		r.a.io.length = wrong[i].length;
		r.a.io.iovcnt = wrong[i].iovcnt;
		r.a.v[0].iov_len = wrong[i].iov_len;
		EXPECT_EQ_INT(wrong[i].rc, answer(r.ch, &r.a));
	}
	EXPECT_EQ_INT('a', kit_byte(r.blob, 0));
	epoch = bs_epoch_now(r.kit.bs);
	bs_epoch_advance(r.kit.bs);
	EXPECT_GE_INT(bs_epoch_advance(r.kit.bs), epoch + 2);
	rig_down(&r);
}

TEST(blob_fast, several_iovecs_and_odd_buffers_are_taken_as_they_are)
{
	struct rig r;

	rig_up(&r, BS_NO_SERVICE);
	for (uint8_t b = 0; b < 4; b++)
		ASSERT_OK(kit_write(r.blob, b, 1, (uint8_t)('a' + b), 0));
	ask(&r.a, r.blob, BS_READ, 0, 4, r.buf);
	r.a.v[0] = (struct iovec){ r.buf + 100, BS_BLOCK };
	r.a.v[1] = (struct iovec){ r.buf + 3 * BS_BLOCK, 512 };
	r.a.v[2] = (struct iovec){ r.buf + 8 * BS_BLOCK + 1, 3 * BS_BLOCK - 512 };
	r.a.io.iovcnt = 3;
	ASSERT_OK(answer(r.ch, &r.a));
	EXPECT_TRUE(filled(r.buf + 100, 1, 'a'));
	EXPECT_EQ_INT('b', r.buf[3 * BS_BLOCK + 511]);
	EXPECT_EQ_INT('b', r.buf[8 * BS_BLOCK + 1]);
	EXPECT_EQ_INT('d', r.buf[11 * BS_BLOCK - 512]);
	rig_down(&r);
}

TEST(blob_fast, errors_of_the_device_reach_the_callback_and_the_epoch_is_left)
{
	struct bdev_fault f = { .op = BDEV_READ, .rc = -EIO, .count = 1 };
	struct kit kit;
	struct bs_blob *blob;
	struct bdev_channel *ch;
	struct asked a;
	uint8_t *buf = dma_zalloc(BS_BLOCK, BS_BLOCK);
	uint64_t epoch;

	kit_open(&kit, &(struct kit_opts){ .fault = true, .flags = BS_NO_SERVICE });
	blob = kit_create(kit.bs);
	ASSERT_OK(kit_write(blob, 0, 8, 'a', 0));
	ASSERT_OK(bdev_channel_create(kit.dev, &ch));
	ASSERT_OK(bdev_fault_add(kit.dev, &f));
	EXPECT_EQ_INT(-EIO, answer(ch, ask(&a, blob, BS_READ, 1, 1, buf)));
	f.op = BDEV_WRITE;
	ASSERT_OK(bdev_fault_add(kit.dev, &f));
	EXPECT_EQ_INT(-EIO, answer(ch, ask(&a, blob, BS_WRITE, 1, 1, buf)));
	EXPECT_OK(answer(ch, ask(&a, blob, BS_READ, 1, 1, buf)));
	epoch = bs_epoch_now(kit.bs);
	bs_epoch_advance(kit.bs);
	EXPECT_GE_INT(bs_epoch_advance(kit.bs), epoch + 2);
	bdev_channel_destroy(ch);
	bs_blob_put(blob);
	dma_free(buf);
	kit_close(&kit);
}

TEST(blob_fast, a_read_in_flight_holds_back_the_epoch_and_so_the_block)
{
	struct rig r;
	uint64_t epoch;

	rig_up(&r, BS_NO_SERVICE);
	ASSERT_OK(kit_write(r.blob, 0, 8, 'a', 0));
	bs_io_submit(r.ch, &ask(&r.a, r.blob, BS_READ, 0, 1, r.buf)->io, answered);
	epoch = bs_epoch_now(r.kit.bs);
	for (int i = 0; i < 5; i++)
		EXPECT_LE_INT(bs_epoch_advance(r.kit.bs), epoch + 1);
	while (!r.a.calls)
		bdev_poll(r.ch);
	bs_epoch_advance(r.kit.bs);
	EXPECT_GE_INT(bs_epoch_advance(r.kit.bs), epoch + 2);
	rig_down(&r);
}

TEST(blob_fast, a_look_without_the_lock_is_not_begun_while_maps_are_changed)
{
	struct rig r;
	struct bs_epoch_count *c;
	struct bs_epochs *e;

	rig_up(&r, BS_NO_SERVICE);
	ASSERT_OK(kit_write(r.blob, 0, 8, 'a', 0));
	e = r.kit.bs->epochs;
	pthread_mutex_lock(&r.kit.bs->lock);
	bs_maps_change(r.kit.bs);
	EXPECT_FALSE(bs_look_begin(e, 0, &c));
	bs_look_undo(e, c);
	/* The maplock serves instead. */
	EXPECT_OK(answer(r.ch, ask(&r.a, r.blob, BS_READ, 3, 1, r.buf)));
	EXPECT_TRUE(filled(r.buf, 1, 'a'));
	EXPECT_OK(answer(r.ch, ask(&r.a, r.blob, BS_WRITE, 3, 1, r.buf)));
	bs_maps_settled(r.kit.bs);
	pthread_mutex_unlock(&r.kit.bs->lock);
	EXPECT_TRUE(bs_look_begin(e, 0, &c));
	EXPECT_FALSE(bs_look_end(e, c));
	bs_count_out(e, c);
	rig_down(&r);
}

/* Block 5 has 100 bytes of 'c' from byte 7 on that are carried; the blob's other blocks are 'a'. */
static void reads_see_what_is_carried(struct rig *r)
{
	for (uint64_t b = 0; b < 8; b++)
		for (uint64_t n = 1; b + n <= 8; n++) {
			const uint8_t *in = r->buf + (5 - b) * BS_BLOCK;

			memset(r->buf, 0, n * BS_BLOCK);
			ASSERT_OK(answer(r->ch, ask(&r->a, r->blob, BS_READ, b, n, r->buf)));
			EXPECT_EQ_INT('a', r->buf[0]);
			EXPECT_EQ_INT('a', r->buf[n * BS_BLOCK - 1]);
			if (b <= 5 && 5 < b + n)
				EXPECT_TRUE(in[6] == 'a' && in[7] == 'c' && in[106] == 'c' && in[107] == 'a');
			else
				EXPECT_TRUE(filled(r->buf, n, 'a'));
		}
}

TEST(blob_fast, a_range_that_bytes_are_carried_for_goes_the_general_way_and_only_that)
{
	uint8_t bytes[100];
	struct rig r;
	uint64_t before;

	rig_up(&r, BS_NO_SERVICE);
	memset(bytes, 'c', sizeof(bytes));
	/* Of one run, then of several. */
	for (uint64_t more = 0; more < 3; more++) {
		if (more)
			ASSERT_OK(kit_write(r.blob, 100 * more, 4, 'x', 0));
		ASSERT_OK(kit_write(r.blob, 0, 8, 'a', 0));
		ASSERT_OK(kit_carry(r.blob, 5 * BS_BLOCK + 7, bytes, sizeof(bytes)));
		reads_see_what_is_carried(&r);
		memset(r.buf, 'a', 8 * BS_BLOCK);
		/* Beside it a write in place changes no metadata; over it one is published, which ends what was carried. */
		before = kit_device_stats(&r.kit).writes;
		ASSERT_OK(answer(r.ch, ask(&r.a, r.blob, BS_WRITE, 0, 5, r.buf)));
		EXPECT_EQ_INT(0, r.a.io.lsn);
		ASSERT_OK(answer(r.ch, ask(&r.a, r.blob, BS_WRITE, 6, 2, r.buf)));
		EXPECT_EQ_INT(0, r.a.io.lsn);
		EXPECT_EQ_INT(2, kit_device_stats(&r.kit).writes - before);
		reads_see_what_is_carried(&r);
		ASSERT_OK(answer(r.ch, ask(&r.a, r.blob, BS_WRITE, 4, 2, r.buf)));
		EXPECT_GT_INT(r.a.io.lsn, 0);
		ASSERT_OK(answer(r.ch, ask(&r.a, r.blob, BS_READ, 0, 8, r.buf)));
		EXPECT_TRUE(filled(r.buf, 8, 'a'));
		ASSERT_OK(answer(r.ch, ask(&r.a, r.blob, BS_WRITE, 4, 2, r.buf)));
		EXPECT_EQ_INT(0, r.a.io.lsn);
	}
	rig_down(&r);
}

TEST(blob_fast, writes_are_counted_by_stream_on_whichever_way_they_go)
{
	struct bs_stat before, after;
	struct rig r;

	rig_up(&r, BS_NO_SERVICE);
	for (unsigned k = 0; k <= BS_STREAMS; k++) {
		unsigned as = k < BS_STREAMS ? k : BS_STREAM_UNKNOWN;

		/* In a new place, then over it, in each parity of the epoch. */
		for (unsigned round = 0; round < 3; round++) {
			bs_get_stat(r.kit.bs, &before);
			ask(&r.a, r.blob, BS_WRITE, k * 8, 3, r.buf);
			r.a.io.stream = (enum bs_stream)k;
			ASSERT_OK(answer(r.ch, &r.a));
			ASSERT_OK(answer(r.ch, ask(&r.a, r.blob, BS_READ, k * 8, 2, r.buf)));
			bs_get_stat(r.kit.bs, &after);
			EXPECT_EQ_INT(3 * BS_BLOCK, after.stream_bytes[as] - before.stream_bytes[as]);
			EXPECT_EQ_INT(3 * BS_BLOCK, after.data_write_bytes - before.data_write_bytes);
			EXPECT_EQ_INT(2 * BS_BLOCK, after.data_read_bytes - before.data_read_bytes);
			bs_epoch_advance(r.kit.bs);
		}
	}
	rig_down(&r);
}

/* ---- threads ---- */

struct changer {
	struct bs *bs;
	atomic_int changed;
};

static void *change_maps(void *arg)
{
	struct changer *c = arg;

	pthread_mutex_lock(&c->bs->lock);
	bs_maps_change(c->bs);
	atomic_store(&c->changed, 1);
	bs_maps_settled(c->bs);
	pthread_mutex_unlock(&c->bs->lock);
	return NULL;
}

TEST(blob_fast_threads, who_changes_maps_waits_for_the_last_look_and_is_woken)
{
	struct bs_epoch_count *c;
	struct changer ch = { 0 };
	struct bs_epochs *e;
	struct rig r;
	pthread_t t;

	rig_up(&r, 0);
	e = r.kit.bs->epochs;
	ch.bs = r.kit.bs;
	ASSERT_TRUE(bs_look_begin(e, bdev_channel_index(r.ch), &c));
	ASSERT_EQ_INT(0, pthread_create(&t, NULL, change_maps, &ch));
	while (!atomic_load(&e->changer_sleeps))
		usleep(100);
	EXPECT_EQ_INT(0, atomic_load(&ch.changed));
	EXPECT_TRUE(bs_look_end(e, c));
	bs_look_wake(e);
	pthread_join(t, NULL);
	EXPECT_EQ_INT(1, atomic_load(&ch.changed));
	bs_count_out(e, c);
	rig_down(&r);
}

/* Blocks that say which they are, read by callbacks that ask again, beside transactions that take runs apart. */
#define SPAN 300u
#define READERS 3u

struct crowd {
	struct bs *bs;
	struct bs_blob *blob;
	uint64_t seed;
	atomic_bool stop;
};

static void *read_on(void *arg)
{
	struct crowd *c = arg;
	uint64_t seed = c->seed + (uintptr_t)pthread_self(), *buf = dma_alloc(BS_BLOCK, BS_BLOCK);
	struct bdev_channel *ch;
	struct asked a;

	ASSERT_OK(bdev_channel_create(bs_bdev(c->bs), &ch));
	while (!atomic_load(&c->stop)) {
		uint64_t block = kit_rand(&seed, SPAN);

		ASSERT_OK(answer(ch, ask(&a, c->blob, BS_READ, block, 1, buf)));
		if (buf[0])
			ASSERT_EQ_INT(block + 1, buf[0]);
		ASSERT_EQ_INT(buf[0], buf[511]);
	}
	bdev_channel_destroy(ch);
	dma_free(buf);
	return NULL;
}

/* One change of many kinds. */
static void change_something(struct crowd *c, uint64_t *seed, uint64_t *buf)
{
	uint64_t block = kit_rand(seed, SPAN - 20), count = 1 + kit_rand(seed, 20), id;
	struct bs_blob *copy;

	switch (kit_rand(seed, 8)) {
	case 0:
		ASSERT_OK(kit_unmap(c->blob, block, count));
		return;
	case 1:
		ASSERT_OK(kit_zero(c->blob, block, count));
		return;
	case 2:
		ASSERT_OK(bs_snapshot(c->bs, &c->blob, 1, false, &id));
		copy = bs_blob_get(c->bs, id);
		ASSERT_OK(kit_delete(c->bs, copy)); /* which puts it */
		return;
	case 3:
		ASSERT_OK(bs_commit(c->bs, 0));
		bs_space_release(c->bs);
		return;
	default:
		for (uint64_t b = 0; b < count; b++)
			buf[b * 512] = buf[b * 512 + 511] = block + b + 1;
		ASSERT_OK(kit_write_buf(c->blob, block, count, buf, BS_IO_NEW));
	}
}

TEST(blob_fast_threads, reads_find_their_own_block_while_its_runs_are_taken_apart)
{
	uint64_t seed = test_seed(), *buf = dma_zalloc(20 * BS_BLOCK, BS_BLOCK);
	struct crowd c = { .seed = seed };
	pthread_t t[READERS];
	struct rig r;

	rig_up(&r, 0);
	c.bs = r.kit.bs;
	c.blob = r.blob;
	for (unsigned i = 0; i < READERS; i++)
		ASSERT_EQ_INT(0, pthread_create(&t[i], NULL, read_on, &c));
	for (uint64_t n = test_scaled(1500); n; n--)
		change_something(&c, &seed, buf);
	atomic_store(&c.stop, true);
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(t[i], NULL);
	dma_free(buf);
	rig_down(&r);
}

/*
 * Numbers that are carried in the log and come home, one block after the other, beside those who read them. What a read brings is
 * never older than what was there when it was asked for: neither what the block's place held before, nor what was carried before that.
 */
#define NUMBERS 8u
struct numbers {
	struct bs *bs;
	struct bs_blob *blob;
	uint64_t seed;
	_Atomic uint64_t now[NUMBERS]; /* at least this */
	atomic_int readers;            /* who have not read enough yet */
	atomic_bool stop;
};

static void *read_numbers(void *arg)
{
	struct numbers *n = arg;
	uint64_t seed = n->seed + (uintptr_t)pthread_self(), *buf = dma_alloc(BS_BLOCK, BS_BLOCK), reads = 0;
	struct bdev_channel *ch;
	struct asked a;

	ASSERT_OK(bdev_channel_create(bs_bdev(n->bs), &ch));
	while (!atomic_load(&n->stop)) {
		uint64_t block = kit_rand(&seed, NUMBERS), least = atomic_load(&n->now[block]);

		if (++reads == test_scaled(10000))
			atomic_fetch_sub(&n->readers, 1);
		ASSERT_OK(answer(ch, ask(&a, n->blob, BS_READ, block, 1, buf)));
		ASSERT_GE_INT(buf[0], least);
		ASSERT_EQ_INT(block, buf[511]);
	}
	bdev_channel_destroy(ch);
	dma_free(buf);
	return NULL;
}

/* Carried twice, then home. */
static void next_number(struct numbers *n, uint64_t block, uint64_t *buf)
{
	uint64_t number = atomic_load(&n->now[block]) + 1;

	if (number % 3) {
		ASSERT_OK(kit_carry(n->blob, block * BS_BLOCK, &number, sizeof(number)));
	} else {
		buf[0] = number;
		buf[511] = block;
		ASSERT_OK(kit_write_buf(n->blob, block, 1, buf, 0));
	}
	atomic_store(&n->now[block], number);
}

static void carry_numbers(uint64_t more_runs)
{
	uint64_t seed = test_seed(), *buf = dma_zalloc(BS_BLOCK, BS_BLOCK);
	struct numbers n = { .seed = seed, .readers = READERS };
	pthread_t t[READERS];
	struct rig r;

	rig_up(&r, 0);
	n.bs = r.kit.bs;
	n.blob = r.blob;
	ASSERT_OK(kit_prealloc(r.kit.bs, r.blob, 0, NUMBERS));
	for (uint64_t b = 0; b < NUMBERS; b++) {
		buf[511] = b;
		ASSERT_OK(kit_write_buf(r.blob, b, 1, buf, 0));
	}
	for (uint64_t i = 0; i < more_runs; i++)
		ASSERT_OK(kit_write(r.blob, 100 + 2 * i, 1, 'x', 0));
	for (unsigned i = 0; i < READERS; i++)
		ASSERT_EQ_INT(0, pthread_create(&t[i], NULL, read_numbers, &n));
	while (atomic_load(&n.readers) && !test_has_failed())
		next_number(&n, kit_rand(&seed, NUMBERS), buf);
	atomic_store(&n.stop, true);
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(t[i], NULL);
	dma_free(buf);
	rig_down(&r);
}

TEST(blob_fast_threads, reads_of_one_run_never_miss_what_is_carried_over_it_or_comes_home)
{
	carry_numbers(0);
}

TEST(blob_fast_threads, reads_of_many_runs_never_miss_what_is_carried_over_one_or_comes_home)
{
	carry_numbers(200);
}
