/* SPDX-License-Identifier: BSD-2-Clause */
/* Snapshots beside writers, readers and deletions. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blob/share.h"
#include "test/unit/blob/share_kit.h"

#define WRITERS 4u
#define BLOCKS 64u
#define STEPS 120

struct race {
	struct kit kit;
	struct bs_blob *blob[WRITERS];
	_Atomic bool stop;
	_Atomic uint64_t written, seen;
	uint64_t seed;
};
struct worker {
	struct race *race;
	pthread_t thread;
	unsigned index;
	uint64_t seed;
};

/* Writes a number over the first block, then over the last, each number when the one before is written: whatever is between. */
static void *writer(void *arg)
{
	struct worker *w = arg;
	struct bs_blob *blob = w->race->blob[w->index];
	uint64_t *buf = dma_zalloc(BS_BLOCK, BS_BLOCK);

	for (uint64_t n = 1; !atomic_load(&w->race->stop); n++) {
		for (int i = 0; i < 2; i++) {
			buf[0] = n;
			ASSERT_OK(kit_write_buf(blob, i ? BLOCKS - 1 : 0, 1, buf, 0));
		}
		if (!kit_rand(&w->seed, 4))
			ASSERT_OK(kit_write(blob, 1 + kit_rand(&w->seed, BLOCKS - 10), 8, (uint8_t)n, kit_rand(&w->seed, 2) ? BS_IO_NEW : 0));
		atomic_fetch_add(&w->race->written, 1);
	}
	dma_free(buf);
	return NULL;
}

static uint64_t number_at(struct bs_blob *blob, uint64_t block)
{
	uint64_t *buf = dma_alloc(BS_BLOCK, BS_BLOCK), n;

	ASSERT_OK(kit_read(blob, block, 1, buf));
	n = buf[0];
	dma_free(buf);
	return n;
}

/* An instant: the last block's number is the first's, or one behind; and it stays. */
static void look_at(struct bs_blob *snap)
{
	uint64_t first = number_at(snap, 0), last = number_at(snap, BLOCKS - 1);

	EXPECT_TRUE(first == last || first == last + 1);
	EXPECT_EQ_INT(first, number_at(snap, 0));
	EXPECT_EQ_INT(last, number_at(snap, BLOCKS - 1));
}

/* All blobs at once, or some of them; looks, writes to a clone, deletes. */
static void *snapshotter(void *arg)
{
	struct worker *w = arg;
	struct race *r = w->race;

	for (uint64_t i = 0; i < test_scaled(STEPS); i++) {
		uint64_t ids[WRITERS], n = 1 + kit_rand(&w->seed, WRITERS), from = kit_rand(&w->seed, (uint32_t)(WRITERS - n + 1));
		bool sealed = kit_rand(&w->seed, 2);

		ASSERT_OK(bs_snapshot(r->kit.bs, &r->blob[from], n, sealed, ids));
		for (uint64_t k = 0; k < n; k++) {
			struct bs_blob *snap = bs_blob_get(r->kit.bs, ids[k]);
			struct bs_usage u;

			ASSERT_TRUE(snap != NULL);
			look_at(snap);
			if (!sealed)
				ASSERT_OK(kit_write(snap, kit_rand(&w->seed, BLOCKS - 4), 4, 1, 0));
			bs_blob_get_usage(snap, &u);
			ASSERT_OK(kit_delete(r->kit.bs, snap));
		}
		atomic_fetch_add(&r->seen, n);
	}
	return NULL;
}

/* Shares ranges between two blobs of its own, rolls them back, deletes them. */
static void *cloner(void *arg)
{
	struct worker *w = arg;
	struct race *r = w->race;

	for (uint64_t i = 0; i < test_scaled(STEPS); i++) {
		struct bs_blob *a = kit_create(r->kit.bs), *b;

		ASSERT_OK(kit_write(a, 0, 32, 5, 0));
		b = share_clone(a, false);
		ASSERT_OK(kit_write(b, kit_rand(&w->seed, 30), 2, 6, 0));
		ASSERT_OK(share_range(a, 0, b, 0, 32));
		for (uint64_t k = 0; k < 32; k += 5)
			EXPECT_EQ_INT(5, kit_byte(b, k));
		ASSERT_OK(kit_delete(r->kit.bs, a));
		EXPECT_EQ_INT(5, kit_byte(b, 31));
		ASSERT_OK(kit_delete(r->kit.bs, b));
	}
	return NULL;
}

TEST(blob_share_threads, snapshots_are_instants_beside_eight_threads)
{
	static void *(*const what[8])(void *) = { writer, writer, writer, writer, snapshotter, snapshotter, cloner, cloner };
	struct race *r = calloc(1, sizeof(*r));
	struct worker w[8];
	struct bs_stat st;

	r->seed = test_seed();
	kit_open(&r->kit, NULL);
	for (unsigned i = 0; i < WRITERS; i++) {
		r->blob[i] = kit_create(r->kit.bs);
		ASSERT_OK(kit_write(r->blob[i], 0, BLOCKS, 0, 0));
	}
	for (unsigned i = 0; i < 8; i++) {
		w[i] = (struct worker){ .race = r, .index = i, .seed = r->seed + i };
		ASSERT_EQ_INT(0, pthread_create(&w[i].thread, NULL, what[i], &w[i]));
	}
	for (unsigned i = 4; i < 8; i++)
		pthread_join(w[i].thread, NULL);
	atomic_store(&r->stop, true);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(w[i].thread, NULL);
	EXPECT_GT_INT(atomic_load(&r->written), 0);
	EXPECT_GT_INT(atomic_load(&r->seen), 0);
	share_check(r->kit.bs);
	for (unsigned i = 0; i < WRITERS; i++)
		ASSERT_OK(kit_delete(r->kit.bs, r->blob[i]));
	share_check(r->kit.bs);
	bs_get_stat(r->kit.bs, &st);
	EXPECT_EQ_INT(0, st.used_blocks);
	kit_close(&r->kit);
	free(r);
}

struct taker {
	struct bs_blob *blob, *copy;
	_Atomic bool done;
};

static void *take_one(void *arg)
{
	struct taker *t = arg;
	uint64_t id;

	ASSERT_OK(bs_snapshot(t->blob->bs, &t->blob, 1, true, &id));
	t->copy = bs_blob_get(t->blob->bs, id);
	atomic_store(&t->done, true);
	return NULL;
}

/* The second is not done when those are that were on their way before it: it is waited for, too. */
TEST(blob_share_threads, a_snapshot_waits_for_two_who_write_to_what_is_unwritten)
{
	void *zero = dma_zalloc(BS_BLOCK, BS_BLOCK), *buf = dma_alloc(BS_BLOCK, BS_BLOCK);
	struct kit_io before, second;
	struct taker t = { .copy = NULL };
	pthread_t thread;
	struct kit kit;
	uint64_t epoch;

	kit_open(&kit, NULL);
	t.blob = kit_create(kit.bs);
	ASSERT_OK(kit_prealloc(kit.bs, t.blob, 0, 8));
	ASSERT_OK(kit_write(t.blob, 7, 1, 2, 0));
	kit_start(&before, t.blob, BS_READ, 7, 1, buf);
	epoch = bs_epoch_now(kit.bs);
	ASSERT_EQ_INT(0, pthread_create(&thread, NULL, take_one, &t));
	while (bs_epoch_now(kit.bs) == epoch)
		usleep(100);
	kit_start(&second, t.blob, BS_WRITE, 0, 1, zero);
	ASSERT_OK(kit_write(t.blob, 0, 2, 1, 0));
	EXPECT_OK(kit_wait(&before));
	usleep(20000);
	EXPECT_FALSE(atomic_load(&t.done));
	EXPECT_OK(kit_wait(&second));
	pthread_join(thread, NULL);
	EXPECT_EQ_INT(1, kit_byte(t.copy, 1));
	share_check(kit.bs);
	bs_blob_put(t.copy);
	bs_blob_put(t.blob);
	kit_close(&kit);
	dma_free(zero);
	dma_free(buf);
}
