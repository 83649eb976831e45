/* SPDX-License-Identifier: BSD-2-Clause */
/* Many threads on one blob, and writes in flight while their blocks are unmapped or their blob is
 * deleted. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "test/unit/blob/kit.h"

#define BLOCKS 1500u

struct crowd {
	struct bs *bs;
	struct bs_blob *blob;
	uint64_t seed;
	_Atomic bool stop;
	_Atomic uint64_t writes, reads, written_blocks;
};

struct member {
	struct crowd *c;
	pthread_t thread;
	uint64_t seed;
	unsigned number;
};

static void run(struct crowd *c, struct member *m, unsigned n, void *(*fn)(void *))
{
	for (unsigned i = 0; i < n; i++) {
		m[i] = (struct member){ .c = c, .seed = c->seed + i * 977, .number = i };
		ASSERT_EQ_INT(0, pthread_create(&m[i].thread, NULL, fn, &m[i]));
	}
}

static void join(struct member *m, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		pthread_join(m[i].thread, NULL);
}

/* Each block says which one it is, and which write it is of. */
static void stamp(uint64_t *words, uint64_t block, uint64_t count, uint64_t write)
{
	for (uint64_t b = 0; b < count; b++)
		for (unsigned i = 0; i < BS_BLOCK / 8; i += 2) {
			words[b * 512 + i] = block + b + 1;
			words[b * 512 + i + 1] = write;
		}
}

/* A block is all zero, or of one write to this very block. */
static void check_block(const uint64_t *words, uint64_t block)
{
	uint64_t id = words[0], write = words[1];

	if (id)
		ASSERT_EQ_INT(block + 1, id);
	for (unsigned i = 0; i < BS_BLOCK / 8; i += 2) {
		ASSERT_EQ_INT(id, words[i]);
		ASSERT_EQ_INT(write, words[i + 1]);
	}
}

/* Always to new places, so that no reader meets bytes being written. */
static void *write_new(void *arg)
{
	struct member *m = arg;
	uint64_t *buf = dma_alloc(32 * BS_BLOCK, BS_BLOCK);

	while (!atomic_load(&m->c->stop)) {
		uint64_t block = kit_rand(&m->seed, BLOCKS - 32),
			 count = 1 + kit_rand(&m->seed, 32);

		stamp(buf, block, count, 1 + atomic_fetch_add(&m->c->writes, 1));
		ASSERT_OK(kit_write_buf(m->c->blob, block, count, buf, BS_IO_NEW));
		atomic_fetch_add(&m->c->written_blocks, count);
	}
	dma_free(buf);
	return NULL;
}

static void *read_all(void *arg)
{
	struct member *m = arg;
	uint64_t *buf = dma_alloc(64 * BS_BLOCK, BS_BLOCK);

	while (!atomic_load(&m->c->stop)) {
		uint64_t block = kit_rand(&m->seed, BLOCKS - 64),
			 count = 1 + kit_rand(&m->seed, 64);

		ASSERT_OK(kit_read(m->c->blob, block, count, buf));
		for (uint64_t b = 0; b < count; b++)
			check_block(buf + b * 512, block + b);
		atomic_fetch_add(&m->c->reads, 1);
	}
	dma_free(buf);
	return NULL;
}

static void *unmap_some(void *arg)
{
	struct member *m = arg;

	while (!atomic_load(&m->c->stop)) {
		uint64_t block = kit_rand(&m->seed, BLOCKS), count = 1 + kit_rand(&m->seed, 100);

		if (kit_rand(&m->seed, 2))
			ASSERT_OK(kit_unmap(m->c->blob, block, count));
		else
			ASSERT_OK(kit_zero(m->c->blob, block, count));
		ASSERT_OK(bs_commit(m->c->bs, 0));
		bs_space_release(m->c->bs);
	}
	return NULL;
}

/* Nothing is damaged, whatever is given back and written anew meanwhile. */
static void *scrub_all(void *arg)
{
	struct member *m = arg;
	struct bs_scrub_opts opts = { .size = sizeof(opts) };
	struct bs_scrub_result res;

	while (!atomic_load(&m->c->stop)) {
		ASSERT_OK(bs_scrub(m->c->bs, &opts, &res));
		ASSERT_EQ_INT(0, res.findings);
	}
	return NULL;
}

static uint64_t free_of(struct bs *bs)
{
	struct bs_stat st;

	bs_get_stat(bs, &st);
	return st.free_blocks;
}

/* Deletes the blob and expects every block back. */
static void delete_and_count(struct kit *kit, struct bs_blob *blob, uint64_t before)
{
	struct bs_stat st;

	ASSERT_OK(kit_delete(kit->bs, blob));
	ASSERT_OK(bs_checkpoint(kit->bs));
	ASSERT_OK(bs_reclaim(kit->bs));
	bs_get_stat(kit->bs, &st);
	EXPECT_EQ_INT(0, st.used_blocks);
	EXPECT_EQ_INT(0, st.pending_blocks);
	/* But for the units that the log and checkpoints have taken meanwhile. */
	EXPECT_EQ_INT(0, (before - st.free_blocks) % 64);
	EXPECT_LE_INT(before - st.free_blocks, 8 * 64);
}

static void space_goes_round(uint32_t format)
{
	struct crowd c = { .seed = test_seed() };
	struct member w[3], r[2], u[1], s[1];
	unsigned scrubbers = format ? 1 : 0;
	struct kit kit;
	uint64_t before, rounds = 0;

	kit_open(&kit, &(struct kit_opts){ .size = 48 * MiB, .format = format });
	before = free_of(kit.bs);
	c.bs = kit.bs;
	c.blob = kit_create(kit.bs);
	run(&c, w, 3, write_new);
	run(&c, r, 2, read_all);
	run(&c, u, 1, unmap_some);
	run(&c, s, scrubbers, scrub_all);
	/* Until the frontier has gone over the whole store more than twice. */
	while (atomic_load(&c.written_blocks) < 25000 && rounds++ < 2000)
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	atomic_store(&c.stop, true);
	join(w, 3);
	join(r, 2);
	join(u, 1);
	join(s, scrubbers);
	EXPECT_GE_INT(atomic_load(&c.written_blocks), 25000);
	EXPECT_GT_INT(atomic_load(&c.reads), 50);
	if (format & BS_FORMAT_SUMS) {
		struct bs_stat st;

		bs_get_stat(kit.bs, &st);
		EXPECT_EQ_INT(0, st.sum_errors);
		EXPECT_GT_INT(st.sum_paged, 0);
		EXPECT_GT_INT(st.sum_checked_bytes, 0);
		bs_blob_put(c.blob);
	} else {
		delete_and_count(&kit, c.blob, before);
	}
	kit_close(&kit);
}

TEST(data_threads, readers_never_see_a_torn_or_foreign_block_while_space_goes_round)
{
	space_goes_round(0);
}

TEST(data_threads, checksums_are_right_while_space_goes_round)
{
	space_goes_round(BS_FORMAT_SUMS);
}

/* Blocks that are m->number modulo 4, so that all threads fill the same clusters; in place once
 * they are there. */
static void *write_own(void *arg)
{
	struct member *m = arg;
	uint64_t *buf = dma_alloc(BS_BLOCK, BS_BLOCK);
	uint64_t last[100] = { 0 };

	for (uint64_t i = 1; i < 400; i++) {
		uint64_t k = kit_rand(&m->seed, 100), block = k * 4 + m->number;

		stamp(buf, block, 1, i);
		ASSERT_OK(kit_write_buf(m->c->blob, block, 1, buf,
					kit_rand(&m->seed, 4) ? 0 : BS_IO_NEW));
		last[k] = i;
	}
	for (uint64_t k = 0; k < 100; k++) {
		ASSERT_OK(kit_read(m->c->blob, k * 4 + m->number, 1, buf));
		check_block(buf, k * 4 + m->number);
		ASSERT_EQ_INT(last[k], buf[1]);
	}
	dma_free(buf);
	return NULL;
}

TEST(data_threads, neighbours_in_a_cluster_are_written_by_different_threads)
{
	struct crowd c = { .seed = test_seed() };
	struct member w[4];
	struct kit kit;
	uint64_t before;

	kit_open(&kit, NULL);
	before = free_of(kit.bs);
	c.bs = kit.bs;
	c.blob = kit_create(kit.bs);
	run(&c, w, 4, write_own);
	join(w, 4);
	delete_and_count(&kit, c.blob, before);
	kit_close(&kit);
}

/* Metadata only: each write maps its block anew. */
static void *write_many_new(void *arg)
{
	struct member *m = arg;

	for (uint64_t i = 0; i < 9000; i++)
		ASSERT_OK(kit_write(m->c->blob, m->number * 100 + i % 100, 1,
				    (uint8_t)(i % 100 + 1), BS_IO_NEW));
	return NULL;
}

TEST(data_threads, publications_wait_for_room_in_the_log_and_go_on)
{
	struct crowd c = { .seed = 1 };
	struct member w[3];
	struct bs_stat st;
	struct kit kit;
	uint64_t before;

	kit_open(&kit, &(struct kit_opts){ .checkpoint_bytes = 1 });
	before = free_of(kit.bs);
	c.bs = kit.bs;
	c.blob = kit_create(kit.bs);
	run(&c, w, 3, write_many_new);
	join(w, 3);
	bs_get_stat(kit.bs, &st);
	/* The one that made the room may still be on its way to the superblock. */
	for (int i = 0; i < 1000 && !st.checkpoints; i++) {
		usleep(10000);
		bs_get_stat(kit.bs, &st);
	}
	EXPECT_GE_INT(st.checkpoints, 1);
	EXPECT_LE_INT(st.log_bytes, st.log_limit + MiB);
	for (uint64_t b = 0; b < 300; b++)
		ASSERT_EQ_INT(b % 100 + 1, kit_byte(c.blob, b));
	delete_and_count(&kit, c.blob, before);
	kit_close(&kit);
}

static void *write_until_gone(void *arg)
{
	struct member *m = arg;
	uint64_t *buf = dma_zalloc(16 * BS_BLOCK, BS_BLOCK);
	int rc = 0;

	while (!atomic_load(&m->c->stop) && rc != -ENOENT) {
		uint64_t block = m->number * 400 + kit_rand(&m->seed, 380);

		rc = kit_write_buf(m->c->blob, block, 1 + kit_rand(&m->seed, 16), buf, 0);
		if (rc != -ENOENT)
			ASSERT_OK(rc);
		atomic_fetch_add(&m->c->writes, 1);
	}
	dma_free(buf);
	return NULL;
}

TEST(data_threads, writes_in_flight_do_not_survive_a_deletion_nor_keep_space)
{
	struct kit kit;
	uint64_t before, seed = test_seed();

	kit_open(&kit, NULL);
	before = free_of(kit.bs);
	for (int i = 0; i < 15; i++) {
		struct crowd c = { .seed = seed + (uint64_t)i, .bs = kit.bs };
		struct member w[3];

		c.blob = kit_create(kit.bs);
		run(&c, w, 3, write_until_gone);
		while (atomic_load(&c.writes) < 60)
			nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
		ASSERT_OK(kit_unmap(c.blob, 0, 5000));
		ASSERT_OK(bs_reclaim(kit.bs));
		ASSERT_OK(kit_prealloc(kit.bs, c.blob, 0, 500));
		bs_blob_ref(c.blob);
		ASSERT_OK(kit_delete(kit.bs, c.blob));
		join(w, 3);
		bs_blob_put(c.blob);
	}
	delete_and_count(&kit, kit_create(kit.bs), before);
	kit_close(&kit);
}

static void *reclaim(void *arg)
{
	struct member *m = arg;

	ASSERT_OK(bs_reclaim(m->c->bs));
	atomic_store(&m->c->stop, true);
	return NULL;
}

TEST(data_threads, reclaiming_waits_for_the_read_that_holds_blocks)
{
	struct bdev_fault delay = {
		.kind = BDEV_FAULT_DELAY, .op = BDEV_READ, .count = 1, .delay_ms = 100
	};
	uint8_t *buf = dma_alloc(12 * BS_BLOCK, BS_BLOCK);
	struct crowd c = { .seed = 1 };
	struct member m[1];
	struct kit_io read;
	struct kit kit;
	uint64_t before;

	kit_open(&kit, &(struct kit_opts){ .fault = true });
	c.bs = kit.bs;
	c.blob = kit_create(kit.bs);
	before = free_of(kit.bs);
	ASSERT_OK(kit_write(c.blob, 0, 12, 7, 0));
	ASSERT_OK(bdev_fault_add(kit.dev, &delay));
	kit_start(&read, c.blob, BS_READ, 0, 12, buf);
	ASSERT_OK(kit_unmap(c.blob, 0, 12));
	run(&c, m, 1, reclaim);
	nanosleep(&(struct timespec){ .tv_nsec = 30000000 }, NULL);
	EXPECT_FALSE(atomic_load(&c.stop));
	EXPECT_EQ_INT(before - 12, free_of(kit.bs));
	ASSERT_OK(kit_wait(&read));
	join(m, 1);
	EXPECT_EQ_INT(before, free_of(kit.bs));
	bs_blob_put(c.blob);
	kit_close(&kit);
	dma_free(buf);
}

/* A write is held in the device while `change` happens to its blocks. */
static void held_write(int (*change)(struct bs *bs, struct bs_blob *blob), bool preallocated,
		       int want_rc)
{
	struct bdev_fault delay = {
		.kind = BDEV_FAULT_DELAY, .op = BDEV_WRITE, .count = 1, .delay_ms = 60
	};
	uint8_t *buf = dma_alloc(12 * BS_BLOCK, BS_BLOCK);
	struct bs_blob *blob;
	struct kit_io write;
	struct kit kit;
	uint64_t before;

	memset(buf, 5, 12 * BS_BLOCK);
	kit_open(&kit, &(struct kit_opts){ .fault = true, .flags = BS_NO_SERVICE });
	blob = kit_create(kit.bs);
	before = free_of(kit.bs);
	if (preallocated)
		ASSERT_OK(kit_prealloc(kit.bs, blob, 0, 12));
	ASSERT_OK(bdev_fault_add(kit.dev, &delay));
	kit_start(&write, blob, BS_WRITE, 0, 12, buf);
	bs_blob_ref(blob);
	ASSERT_OK(change(kit.bs, blob));
	ASSERT_OK(bs_commit(kit.bs, 0));
	bs_space_release(kit.bs);
	/* Its blocks are not free while the device may still write them. */
	EXPECT_EQ_INT(before - 12, free_of(kit.bs));
	ASSERT_ERR(want_rc, kit_wait(&write));
	if (!want_rc) {
		EXPECT_EQ_INT(0, kit_byte(blob, 4));
		EXPECT_EQ_INT(5, kit_byte(blob, 0));
		EXPECT_EQ_INT(5, kit_byte(blob, 11));
		ASSERT_OK(kit_delete(kit.bs, blob));
	} else {
		bs_blob_put(blob);
	}
	bs_blob_put(blob);
	ASSERT_OK(bs_reclaim(kit.bs));
	EXPECT_EQ_INT(before, free_of(kit.bs));
	kit_close(&kit);
	dma_free(buf);
}

static int change_unmap(struct bs *bs, struct bs_blob *blob)
{
	(void)bs;
	return kit_unmap(blob, 3, 5);
}

static int change_delete(struct bs *bs, struct bs_blob *blob)
{
	int rc = kit_delete(bs, blob);

	bs_blob_ref(blob);
	return rc;
}

TEST(data_threads, a_write_publishes_what_was_not_unmapped_since_it_began)
{
	held_write(change_unmap, false, 0);
}

TEST(data_threads, a_write_into_preallocated_blocks_does_so_too)
{
	held_write(change_unmap, true, 0);
}

TEST(data_threads, a_write_to_a_blob_that_is_deleted_says_so)
{
	held_write(change_delete, false, -ENOENT);
}

TEST(data_threads, a_write_to_a_preallocated_blob_that_is_deleted_says_so)
{
	held_write(change_delete, true, -ENOENT);
}

TEST(data_threads, of_a_held_write_in_place_and_one_to_a_new_place_the_new_one_stays)
{
	struct bdev_fault delay = {
		.kind = BDEV_FAULT_DELAY, .op = BDEV_WRITE, .count = 1, .delay_ms = 60
	};
	uint8_t *buf = dma_alloc(4 * BS_BLOCK, BS_BLOCK);
	struct bs_blob *blob;
	struct kit_io write;
	struct kit kit;
	uint64_t before;

	memset(buf, 5, 4 * BS_BLOCK);
	kit_open(&kit, &(struct kit_opts){ .fault = true, .flags = BS_NO_SERVICE });
	blob = kit_create(kit.bs);
	before = free_of(kit.bs);
	ASSERT_OK(kit_prealloc(kit.bs, blob, 0, 4));
	ASSERT_OK(bdev_fault_add(kit.dev, &delay));
	kit_start(&write, blob, BS_WRITE, 0, 4, buf);
	/* Unmapped and written elsewhere: the held write must not map its old place again. */
	ASSERT_OK(kit_unmap(blob, 0, 2));
	ASSERT_OK(kit_write(blob, 0, 2, 9, 0));
	ASSERT_OK(kit_wait(&write));
	EXPECT_EQ_INT(9, kit_byte(blob, 0));
	EXPECT_EQ_INT(5, kit_byte(blob, 3));
	delete_and_count(&kit, blob, before);
	kit_close(&kit);
	dma_free(buf);
}
