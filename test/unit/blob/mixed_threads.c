/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Eight threads do everything at once with a few blobs of one store: reads, writes, truncation, holes, bytes carried in the log,
 * snapshots, clones, rollbacks, deletions, commits, checkpoints, discards. Each block says in all its words which *line* it is of (a number
 * that a blob is made with and its copies have too) and where in it: whoever reads finds what is another's.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "test/unit/blob/share_kit.h"

#define THREADS 8u
#define SLOTS 10u
#define BLOCKS 96u
#define ROUNDS 900u
#define LINE 1 /* key of the item that has it */

struct mix {
	struct kit kit;
	pthread_mutex_t lock;
	struct bs_blob *slot[SLOTS]; /* each counted; changed under lock */
	_Atomic uint64_t lines, copies, carried;
};
struct hand {
	struct mix *m;
	uint64_t rng;
	uint64_t *buf; /* BLOCKS of them */
};

static struct bs_blob *borrow(struct hand *h)
{
	struct mix *m = h->m;
	struct bs_blob *blob;

	pthread_mutex_lock(&m->lock);
	blob = m->slot[kit_rand(&h->rng, SLOTS)];
	bs_blob_ref(blob);
	pthread_mutex_unlock(&m->lock);
	return blob;
}

/* Puts blob (whose count it takes over) in a slot, and gives back who was there. */
static struct bs_blob *put_in(struct hand *h, struct bs_blob *blob)
{
	struct bs_blob **slot = &h->m->slot[kit_rand(&h->rng, SLOTS)], *old;

	pthread_mutex_lock(&h->m->lock);
	old = *slot;
	*slot = blob;
	pthread_mutex_unlock(&h->m->lock);
	return old;
}

static void may(const char *what, int rc, const int *codes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (rc == codes[i])
			return;
	if (rc)
		FAIL("%s: %s", what, strerror(-rc));
}
#define MAY(rc, ...) may(#rc, rc, (const int[]){ __VA_ARGS__ }, ARRAY_SIZE(((const int[]){ __VA_ARGS__ })))

/* 0: it was deleted meanwhile. */
static uint64_t line_of(struct bs_blob *blob)
{
	uint64_t line = 0;
	int rc = bs_item_get(blob, BS_KIND_USER, LINE, &line, sizeof(line));

	ASSERT_TRUE(rc == sizeof(line) || rc == -ENOENT);
	return line;
}

static void stamp(uint64_t *block, uint64_t line, uint64_t number)
{
	for (unsigned i = 0; i < BS_BLOCK / 8; i += 2) {
		block[i] = line;
		block[i + 1] = number + 1;
	}
}

static void check_block(const uint64_t *block, uint64_t line, uint64_t number)
{
	for (unsigned i = 0; i < BS_BLOCK / 8; i += 2)
		if ((block[i] && block[i] != line) || (block[i + 1] && block[i + 1] != number + 1))
			FAIL("block %llu of line %llu has line %llu, block %llu", (unsigned long long)number,
			     (unsigned long long)line, (unsigned long long)block[i], (unsigned long long)block[i + 1] - 1);
}

static void check_blob(struct hand *h, struct bs_blob *blob, uint64_t first, uint64_t n)
{
	uint64_t line = line_of(blob);

	if (!line)
		return;
	ASSERT_OK(kit_read(blob, first, n, h->buf));
	for (uint64_t i = 0; i < n; i++)
		check_block(h->buf + i * (BS_BLOCK / 8), line, first + i);
}

static int write_blocks(struct hand *h, struct bs_blob *blob, uint64_t first, uint64_t n)
{
	static const uint32_t flags[] = { 0, 0, BS_IO_NEW, BS_IO_DURABLE };
	struct iovec v = { h->buf, n * BS_BLOCK };
	struct bs_io io = { .blob = blob,
			    .op = BS_WRITE,
			    .flags = flags[kit_rand(&h->rng, ARRAY_SIZE(flags))],
			    .stream = (enum bs_stream)kit_rand(&h->rng, BS_STREAMS),
			    .offset = first * BS_BLOCK,
			    .length = n * BS_BLOCK,
			    .iov = &v,
			    .iovcnt = 1 };
	uint64_t line = line_of(blob);

	for (uint64_t i = 0; i < n; i++)
		stamp(h->buf + i * (BS_BLOCK / 8), line, first + i);
	return line ? bs_io_sync(h->m->kit.bs, &io) : -ENOENT;
}

static void truncate_blob(struct hand *h, struct bs_blob *blob, uint64_t at)
{
	struct bs_txn *txn;
	int rc;

	ASSERT_OK(bs_txn_begin(h->m->kit.bs, BS_TXN_FREES, &txn));
	rc = bs_txn_unmap(txn, blob, at, UINT64_MAX);
	if (!rc)
		rc = bs_txn_header(txn, blob, at * BS_BLOCK, NULL, 0);
	MAY(kit_end(txn, rc), -ENOENT, -EROFS);
}

/* Some of the bytes of a block, in the log. */
static void carry(struct hand *h, struct bs_blob *blob, uint64_t number)
{
	uint32_t from = kit_rand(&h->rng, 7) * 512, len = (1 + kit_rand(&h->rng, 8 - from / 512)) * 512;
	uint64_t line = line_of(blob), block[BS_BLOCK / 8];
	int rc;

	stamp(block, line, number);
	rc = line ? kit_carry(blob, number * BS_BLOCK + from, block + from / 8, len) : -ENOENT;
	MAY(rc, -ENOENT, -EROFS, -EINVAL, -EBUSY, -ENOSPC);
	atomic_fetch_add(&h->m->carried, !rc);
}

static int write_home(struct hand *h, struct bs_blob *blob)
{
	struct bs_carried_range r;
	int rc = 0;

	while (!rc && bs_carried_next(blob, 0, BLOCKS, &r))
		rc = write_blocks(h, blob, r.block, 1);
	return rc;
}

/* A snapshot or clone; NULL: it cannot be just now. */
static struct bs_blob *copy(struct hand *h, struct bs_blob *blob, bool sealed)
{
	uint64_t id;
	int rc = write_home(h, blob);

	if (!rc)
		rc = bs_snapshot(h->m->kit.bs, &blob, 1, sealed, &id);
	MAY(rc, -ENOENT, -EBUSY, -EROFS);
	atomic_fetch_add(&h->m->copies, !rc);
	return rc ? NULL : bs_blob_get(h->m->kit.bs, id);
}

static void use_copies(struct hand *h, struct bs_blob *blob)
{
	bool sealed = kit_rand(&h->rng, 2);
	struct bs_blob *c = copy(h, blob, sealed);

	if (!c)
		return;
	check_blob(h, c, 0, BLOCKS);
	if (!sealed)
		MAY(write_blocks(h, c, kit_rand(&h->rng, BLOCKS - 8), 8), -ENOENT);
	else /* rolled back; the blob may have been deleted, or may carry bytes again */
		MAY(share_range(c, 0, blob, 0, BLOCKS), -ENOENT, -EROFS, -EBUSY);
	check_blob(h, blob, 0, BLOCKS);
	if (kit_rand(&h->rng, 2))
		c = put_in(h, c);
	MAY(kit_delete(h->m->kit.bs, c), -ENOENT);
}

static struct bs_blob *make_blob(struct mix *m)
{
	uint64_t line = atomic_fetch_add(&m->lines, 1) + 1;
	struct bs_blob *blob;
	struct bs_txn *txn;

	ASSERT_OK(bs_txn_begin(m->kit.bs, 0, &txn));
	ASSERT_OK(bs_txn_create(txn, 0, NULL, 0, &blob));
	ASSERT_OK(bs_txn_put(txn, blob, BS_KIND_USER, LINE, &line, sizeof(line)));
	bs_txn_end(txn);
	return blob;
}

static void step(struct hand *h)
{
	struct bs_blob *blob = borrow(h);
	uint64_t n = 1 + kit_rand(&h->rng, kit_rand(&h->rng, 4) ? 6 : 60), at = kit_rand(&h->rng, (uint32_t)(BLOCKS - n + 1));
	struct bs *bs = h->m->kit.bs;
	struct bs_usage usage;
	uint64_t bytes;

	switch (kit_rand(&h->rng, 32)) {
	case 0 ... 8:
		MAY(write_blocks(h, blob, at, n), -ENOENT, -EROFS);
		break;
	case 9 ... 15:
		check_blob(h, blob, at, n);
		break;
	case 16:
	case 17:
		truncate_blob(h, blob, at);
		break;
	case 18:
		MAY(kit_unmap(blob, at, n), -ENOENT, -EROFS);
		break;
	case 19:
		MAY(kit_zero(blob, at, n), -ENOENT, -EROFS);
		break;
	case 20:
		MAY(kit_prealloc(bs, blob, at, n), -ENOENT, -EROFS);
		break;
	case 21 ... 23:
		carry(h, blob, at);
		break;
	case 24 ... 26:
		use_copies(h, blob);
		break;
	case 27:
		MAY(kit_delete(bs, put_in(h, make_blob(h->m))), -ENOENT);
		break;
	case 28:
	case 29:
		ASSERT_OK(bs_commit(bs, 0));
		break;
	case 30:
		bs_blob_get_usage(blob, &usage);
		bs_blob_trim_ahead(blob);
		break;
	default:
		if (kit_rand(&h->rng, 8) == 0)
			ASSERT_OK(bs_checkpoint(bs));
		else if (kit_rand(&h->rng, 8) == 0)
			ASSERT_OK(bs_trim(bs, &(struct bs_trim_opts){ .size = sizeof(struct bs_trim_opts) }, &bytes, NULL));
	}
	bs_blob_put(blob);
}

static void *work(void *arg)
{
	struct hand *h = arg;

	for (uint64_t i = 0; i < test_scaled(ROUNDS); i++)
		step(h);
	return NULL;
}

static int check_any(struct bs_blob *blob, void *arg)
{
	check_blob(arg, blob, 0, BLOCKS);
	return 0;
}

static int delete_any(struct bs_blob *blob, void *arg)
{
	*(struct bs_blob **)arg = blob;
	bs_blob_ref(blob);
	return 1;
}

TEST(blob_mixed_threads, eight_do_everything_at_once_and_nothing_is_mixed_up)
{
	struct mix *m = calloc(1, sizeof(*m));
	struct hand hands[THREADS];
	pthread_t thread[THREADS];
	uint64_t seed = test_seed();
	struct bs_blob *blob;
	struct bs_stat st;

	pthread_mutex_init(&m->lock, NULL);
	kit_open(&m->kit, &(struct kit_opts){ .size = 96 * MiB, .flags = BS_DISCARD, .checkpoint_bytes = MiB });
	for (unsigned i = 0; i < SLOTS; i++)
		m->slot[i] = make_blob(m);
	for (unsigned i = 0; i < THREADS; i++) {
		hands[i] = (struct hand){ m, seed + i, dma_alloc(BLOCKS * BS_BLOCK, BS_BLOCK) };
		ASSERT_TRUE(hands[i].buf != NULL);
		ASSERT_EQ_INT(0, pthread_create(&thread[i], NULL, work, &hands[i]));
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	EXPECT_GT_INT(atomic_load(&m->copies), 0);
	EXPECT_GT_INT(atomic_load(&m->carried), 0);
	share_check(m->kit.bs);
	for (unsigned i = 0; i < SLOTS; i++)
		bs_blob_put(m->slot[i]);
	/* What was committed is there after a crash, and every count is right when it was made anew. */
	ASSERT_OK(bs_commit(m->kit.bs, 0));
	kit_reopen(&m->kit, true, 0);
	ASSERT_OK(bs_foreach_blob(m->kit.bs, 0, check_any, &hands[0]));
	share_check(m->kit.bs);
	while (bs_foreach_blob(m->kit.bs, 0, delete_any, &blob))
		ASSERT_OK(kit_delete(m->kit.bs, blob));
	share_check(m->kit.bs);
	bs_get_stat(m->kit.bs, &st);
	EXPECT_EQ_INT(0, st.used_blocks);
	EXPECT_EQ_INT(0, st.carried_blocks);
	for (unsigned i = 0; i < THREADS; i++)
		dma_free(hands[i].buf);
	kit_close(&m->kit);
	pthread_mutex_destroy(&m->lock);
	free(m);
}
