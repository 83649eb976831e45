/* SPDX-License-Identifier: BSD-2-Clause */
/* Bytes carried in the log: what is read, what survives, what ends them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blob/format.h"
#include "test/unit/blob/kit.h"
#include "test/unit/blob/rig.h"

static int carry(struct bs_blob *blob, uint64_t offset, uint32_t len, uint8_t byte)
{
	uint8_t data[BS_BLOCK];

	memset(data, byte, sizeof(data));
	return kit_carry(blob, offset, data, len);
}

static uint64_t carried_blocks(struct bs *bs)
{
	struct bs_stat st;

	bs_get_stat(bs, &st);
	return st.carried_blocks;
}

/* The block is `under` but for [from, to), which is `over`. */
static void expect(struct bs_blob *blob, uint64_t block, uint8_t under, uint32_t from, uint32_t to, uint8_t over)
{
	uint8_t *buf = dma_alloc(BS_BLOCK, BS_BLOCK), want[BS_BLOCK];

	memset(want, under, sizeof(want));
	memset(want + from, over, to - from);
	ASSERT_OK(kit_read(blob, block, 1, buf));
	ASSERT_EQ_MEM(want, buf, BS_BLOCK);
	dma_free(buf);
}

static struct bs_blob *crash(struct kit *kit, struct bs_blob *blob, uint32_t flags)
{
	uint64_t id = bs_blob_id(blob);

	if (!(kit->bs->flags & BS_RDONLY))
		ASSERT_OK(bs_commit(kit->bs, 0));
	bs_blob_put(blob);
	kit_reopen(kit, true, flags);
	blob = bs_blob_get(kit->bs, id);
	ASSERT_TRUE(blob != NULL);
	return blob;
}

TEST(blob_carry, bytes_lie_over_whatever_the_block_holds)
{
	struct bs_blob *blob;
	struct kit kit;

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	ASSERT_OK(kit_write(blob, 1, 1, 'm', 0));
	ASSERT_OK(kit_prealloc(kit.bs, blob, 2, 1));
	for (uint64_t b = 0; b < 3; b++)
		ASSERT_OK(carry(blob, b * BS_BLOCK + 100, 400, 'c'));
	for (unsigned round = 0; round < 4; round++) {
		struct bs_extent e;

		ASSERT_EQ_INT(3, carried_blocks(kit.bs));
		expect(blob, 0, 0, 100, 500, 'c');
		expect(blob, 1, 'm', 100, 500, 'c');
		expect(blob, 2, 0, 100, 500, 'c');
		bs_map_lookup(blob, 0, 1, &e);
		ASSERT_EQ_INT(BS_RUN_HOLE, e.flags);
		/* After replay; from a checkpoint; read-only. */
		if (round == 1)
			ASSERT_OK(bs_checkpoint(kit.bs));
		blob = crash(&kit, blob, round == 2 ? BS_RDONLY : 0);
	}
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(blob_carry, what_comes_later_lies_over_what_was_there_and_makes_it_longer)
{
	struct bs_carried_range r;
	struct bs_blob *blob;
	struct kit kit;

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	ASSERT_OK(carry(blob, 1000, 100, 'a'));
	ASSERT_OK(carry(blob, 1050, 100, 'b'));
	ASSERT_OK(carry(blob, 900, 100, 'c'));
	ASSERT_OK(carry(blob, 1010, 10, 'd'));
	ASSERT_TRUE(bs_carried_next(blob, 0, 1, &r));
	ASSERT_EQ_INT(900, r.from);
	ASSERT_EQ_INT(1150, r.to);
	for (unsigned round = 0; round < 2; round++) {
		uint8_t *buf = dma_alloc(BS_BLOCK, BS_BLOCK);

		ASSERT_OK(kit_read(blob, 0, 1, buf));
		for (uint32_t i = 0; i < BS_BLOCK; i++)
			ASSERT_EQ_INT(i < 900 || i >= 1150 ? 0 : i < 1000 ? 'c' : i >= 1010 && i < 1020 ? 'd' : i < 1050 ? 'a' : 'b',
				      buf[i]);
		dma_free(buf);
		blob = crash(&kit, blob, 0);
	}
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(blob_carry, what_it_cannot_take_it_refuses)
{
	struct bs_blob *blob;
	struct bs_txn *txn;
	struct kit kit;
	uint32_t n;

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	ASSERT_OK(carry(blob, 1000, 100, 'a'));
	ASSERT_EQ_INT(-EINVAL, carry(blob, 1101, 10, 'b')); /* does not touch */
	ASSERT_EQ_INT(-EINVAL, carry(blob, 900, 99, 'b'));
	ASSERT_EQ_INT(-EINVAL, carry(blob, 5 * BS_BLOCK, 0, 'b'));
	ASSERT_EQ_INT(-EINVAL, carry(blob, 5 * BS_BLOCK + 4000, 97, 'b')); /* two blocks */
	ASSERT_EQ_INT(-EINVAL, carry(blob, (1ull << 40) * BS_BLOCK, 1, 'b'));
	n = bs_carry_limit(kit.bs);
	for (uint32_t b = 1; b < n; b++) {
		ASSERT_TRUE(bs_carry_pays(kit.bs, 1));
		ASSERT_OK(carry(blob, (uint64_t)b * BS_BLOCK, BS_BLOCK, 'x'));
	}
	ASSERT_FALSE(bs_carry_pays(kit.bs, 1));
	ASSERT_TRUE(bs_carry_is_much(kit.bs));
	ASSERT_EQ_INT(-ENOSPC, carry(blob, (uint64_t)n * BS_BLOCK, 1, 'x'));
	ASSERT_OK(carry(blob, 1100, 1, 'x')); /* one that is carried already takes no more */
	ASSERT_OK(kit_unmap(blob, 1, n));
	ASSERT_EQ_INT(1, carried_blocks(kit.bs));
	ASSERT_FALSE(bs_carry_pays(kit.bs, BS_CARRY_MAX + 1));
	/* Twice in one transaction: the second would not see what the first leaves. */
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	ASSERT_OK(bs_txn_carry(txn, blob, BS_BLOCK, "x", 1));
	ASSERT_EQ_INT(-EINVAL, bs_txn_carry(txn, blob, BS_BLOCK + 1, "y", 1));
	ASSERT_OK(bs_txn_carry(txn, blob, 2 * BS_BLOCK, "x", 1));
	bs_txn_cancel(txn);
	/* Sealed it could never be written home. */
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	ASSERT_EQ_INT(-EBUSY, bs_txn_seal(txn, blob, 0, NULL, 0));
	bs_txn_cancel(txn);
	/* Deleted by the same transaction. */
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	ASSERT_OK(bs_txn_delete(txn, blob));
	ASSERT_EQ_INT(-ENOENT, bs_txn_carry(txn, blob, 0, "x", 1));
	bs_txn_cancel(txn);
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(blob_carry, a_store_made_without_it_is_left_so)
{
	struct bs_sb_disk sb;
	struct bs_blob *blob;
	struct rig r;
	uint64_t id;

	rig_make(&r, 64 * MiB, true);
	rig_super(&r, &sb);
	ASSERT_TRUE(le64_get(sb.incompat) & BS_INCOMPAT_CARRIED);
	sb.incompat = le64_make(le64_get(sb.incompat) & ~BS_INCOMPAT_CARRIED);
	rig_put_super(&r, &sb);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	id = rig_create(&r, 'x', 10);
	blob = bs_blob_get(r.bs, id);
	ASSERT_FALSE(bs_carry_pays(r.bs, 1));
	ASSERT_EQ_INT(-EOPNOTSUPP, carry(blob, 0, 1, 'x'));
	bs_blob_put(blob);
	rig_drop(&r);
}

TEST(blob_carry, a_commit_of_it_is_one_log_write_and_no_flush)
{
	struct bs_stat a, b;
	struct bs_blob *blob;
	struct rig r;
	uint64_t id;

	rig_make(&r, 64 * MiB, true);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	id = rig_create(&r, 'x', 10);
	ASSERT_OK(bs_commit(r.bs, 0));
	blob = bs_blob_get(r.bs, id);
	bs_get_stat(r.bs, &a);
	ASSERT_OK(carry(blob, 0, 400, 'c'));
	ASSERT_OK(bs_commit(r.bs, 0));
	bs_get_stat(r.bs, &b);
	ASSERT_EQ_INT(a.log_writes + 1, b.log_writes);
	ASSERT_EQ_INT(a.log_write_bytes + BS_BLOCK, b.log_write_bytes);
	ASSERT_EQ_INT(a.flushes, b.flushes);
	ASSERT_EQ_INT(a.data_write_bytes, b.data_write_bytes);
	ASSERT_EQ_INT(a.carries + 1, b.carries);
	ASSERT_EQ_INT(a.carried_bytes + 400, b.carried_bytes);
	bs_blob_put(blob);
	rig_drop(&r);
}

TEST(blob_carry, a_write_home_ends_it_and_nothing_older_comes_back)
{
	struct kit_opts opts = { .cluster_size = 16384 };
	struct bs_blob *blob;
	struct kit kit;

	kit_open(&kit, &opts);
	blob = kit_create(kit.bs);
	ASSERT_OK(kit_write(blob, 0, 4, 'm', 0));
	ASSERT_OK(kit_prealloc(kit.bs, blob, 4, 2));
	for (uint64_t b = 0; b < 8; b++)
		ASSERT_OK(carry(blob, b * BS_BLOCK, 400, 'c'));
	ASSERT_OK(bs_commit(kit.bs, 0));
	/* In place; anew; over unwritten; over a hole. */
	ASSERT_OK(kit_write(blob, 0, 2, 'h', 0));
	ASSERT_OK(kit_write(blob, 2, 1, 'h', BS_IO_NEW));
	ASSERT_OK(kit_write(blob, 4, 1, 'h', 0));
	ASSERT_OK(kit_write(blob, 6, 1, 'h', 0));
	for (unsigned round = 0; round < 3; round++) {
		ASSERT_EQ_INT(3, carried_blocks(kit.bs));
		for (uint64_t b = 0; b < 8; b++) {
			if (b == 3 || b == 5 || b == 7)
				expect(blob, b, b == 3 ? 'm' : 0, 0, 400, 'c');
			else
				ASSERT_EQ_INT('h', kit_byte(blob, b));
		}
		if (round == 1)
			ASSERT_OK(bs_checkpoint(kit.bs));
		blob = crash(&kit, blob, 0);
	}
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(blob_carry, unmapping_zeroing_and_deleting_end_it_and_preallocating_does_not)
{
	struct bs_blob *blob, *gone;
	struct bs_txn *txn;
	struct kit kit;

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	gone = kit_create(kit.bs);
	ASSERT_OK(kit_write(blob, 0, 3, 'm', 0));
	for (uint64_t b = 0; b < 7; b++)
		ASSERT_OK(carry(blob, b * BS_BLOCK, 400, 'c'));
	ASSERT_OK(carry(gone, 0, 400, 'g'));
	ASSERT_OK(bs_commit(kit.bs, 0));
	ASSERT_OK(kit_unmap(blob, 0, 1));
	ASSERT_OK(kit_zero(blob, 1, 1));
	ASSERT_OK(kit_unmap(blob, 3, 1));
	ASSERT_OK(kit_zero(blob, 4, 1));
	ASSERT_OK(kit_prealloc(kit.bs, blob, 5, 1));
	ASSERT_OK(kit_delete(kit.bs, gone));
	/* Unmapped and carried anew in one transaction. */
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	ASSERT_OK(bs_txn_unmap(txn, blob, 6, UINT64_MAX));
	ASSERT_OK(bs_txn_carry(txn, blob, 6 * BS_BLOCK + 200, "0123456789", 10));
	bs_txn_end(txn);
	/* Carried and unmapped. */
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	ASSERT_OK(bs_txn_carry(txn, blob, 9 * BS_BLOCK, "0123456789", 10));
	ASSERT_OK(bs_txn_unmap(txn, blob, 9, 1));
	bs_txn_end(txn);
	for (unsigned round = 0; round < 3; round++) {
		struct bs_carried_range r;

		ASSERT_EQ_INT(3, carried_blocks(kit.bs));
		for (uint64_t b = 0; b < 10; b++)
			if (b != 2 && b != 5 && b != 6)
				ASSERT_EQ_INT(0, kit_byte(blob, b));
		expect(blob, 2, 'm', 0, 400, 'c');
		expect(blob, 5, 0, 0, 400, 'c');
		ASSERT_TRUE(bs_carried_next(blob, 6, 1, &r));
		ASSERT_EQ_INT(200, r.from);
		ASSERT_EQ_INT(210, r.to);
		if (round == 1)
			ASSERT_OK(bs_checkpoint(kit.bs));
		blob = crash(&kit, blob, 0);
	}
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(blob_carry, a_cancelled_transaction_carries_nothing)
{
	struct bs_blob *blob;
	struct bs_stat a, b;
	struct bs_txn *txn;
	struct kit kit;

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	bs_get_stat(kit.bs, &a);
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	ASSERT_OK(bs_txn_carry(txn, blob, 0, "abc", 3));
	bs_txn_cancel(txn);
	bs_get_stat(kit.bs, &b);
	ASSERT_EQ_INT(0, b.carried_blocks);
	ASSERT_EQ_INT(a.carries, b.carries);
	ASSERT_EQ_INT(a.meta_bytes, b.meta_bytes);
	ASSERT_EQ_INT(0, kit_byte(blob, 0));
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(blob_carry, metadata_is_what_it_was_when_all_is_home)
{
	struct bs_blob *blob;
	struct bs_stat a, b;
	struct kit kit;

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	ASSERT_OK(kit_write(blob, 0, 8, 'm', 0));
	bs_get_stat(kit.bs, &a);
	for (uint64_t i = 0; i < 8; i++) {
		ASSERT_OK(carry(blob, i * BS_BLOCK + i * 100, 100 + (uint32_t)i, 'c'));
		ASSERT_OK(carry(blob, i * BS_BLOCK + i * 100 + 50, 1000, 'd'));
	}
	bs_get_stat(kit.bs, &b);
	ASSERT_TRUE(b.meta_bytes > a.meta_bytes + 8 * 1050);
	ASSERT_OK(kit_write(blob, 0, 4, 'h', 0));
	ASSERT_OK(kit_zero(blob, 4, 2));
	ASSERT_OK(kit_write(blob, 4, 4, 'h', 0));
	bs_get_stat(kit.bs, &b);
	ASSERT_EQ_INT(0, b.carried_blocks);
	ASSERT_EQ_INT(a.meta_bytes, b.meta_bytes);
	bs_blob_put(blob);
	kit_close(&kit);
}

/* Pieces: runs that lie apart, iovecs that end within blocks. */
TEST(blob_carry, a_read_in_pieces_shows_it_too)
{
	uint8_t *buf = dma_alloc(8 * BS_BLOCK, BS_BLOCK);
	struct iovec iov[3] = { { buf, 5 * 512 }, { buf + 5 * 512, 3 * BS_BLOCK }, { buf + 3 * BS_BLOCK + 5 * 512, 5 * BS_BLOCK - 5 * 512 } };
	struct bs_blob *blob;
	struct bs_io io;
	struct kit kit;

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	for (uint64_t b = 0; b < 8; b += 2)
		ASSERT_OK(kit_write(blob, b, 1, 'm', BS_IO_NEW));
	ASSERT_OK(carry(blob, 2000, 1500, 'c'));
	ASSERT_OK(carry(blob, 3 * BS_BLOCK, BS_BLOCK, 'd'));
	io = (struct bs_io){ .blob = blob, .op = BS_READ, .length = 8 * BS_BLOCK, .iov = iov, .iovcnt = 3 };
	memset(buf, 'z', 8 * BS_BLOCK);
	ASSERT_OK(bs_io_sync(kit.bs, &io));
	for (uint32_t i = 0; i < 8 * BS_BLOCK; i++) {
		uint8_t want = i / BS_BLOCK % 2 ? 0 : 'm';

		want = i >= 2000 && i < 3500 ? 'c' : i / BS_BLOCK == 3 ? 'd' : want;
		ASSERT_EQ_INT(want, buf[i]);
	}
	bs_blob_put(blob);
	kit_close(&kit);
	dma_free(buf);
}

/* The write was planned before: what was carried after lies over it, live and after a crash. */
TEST(blob_carry, what_is_carried_beside_a_write_is_the_later_of_both)
{
	uint8_t *buf = dma_alloc(BS_BLOCK, BS_BLOCK);
	struct kit_io k;
	struct bs_blob *blob;
	struct kit kit;

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	ASSERT_OK(kit_write(blob, 0, 1, 'm', 0));
	memset(buf, 'w', BS_BLOCK);
	kit_start(&k, blob, BS_WRITE, 0, 1, buf);
	ASSERT_OK(carry(blob, 0, 400, 'c'));
	ASSERT_OK(kit_wait(&k));
	expect(blob, 0, 'w', 0, 400, 'c');
	/* One that will be published refuses it. */
	kit_start(&k, blob, BS_WRITE, 0, 1, buf);
	ASSERT_EQ_INT(-EBUSY, carry(blob, 0, 400, 'd'));
	ASSERT_OK(kit_wait(&k));
	ASSERT_EQ_INT('w', kit_byte(blob, 0));
	blob = crash(&kit, blob, 0);
	ASSERT_EQ_INT('w', kit_byte(blob, 0));
	bs_blob_put(blob);
	kit_close(&kit);
	dma_free(buf);
}

TEST(blob_carry, lack_of_memory_changes_nothing)
{
	struct bs_blob *blob;
	struct kit kit;
	int rc = -ENOMEM;

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	ASSERT_OK(carry(blob, 0, 10, 'a'));
	for (unsigned n = 0; rc; n++) {
		base_fail_alloc_after(n + 1);
		rc = carry(blob, BS_BLOCK, BS_BLOCK, 'b');
		base_fail_alloc_after(0);
		ASSERT_TRUE(!rc || rc == -ENOMEM);
		ASSERT_TRUE(n < 100);
		ASSERT_EQ_INT(rc ? 0 : 'b', kit_byte(blob, 1));
	}
	expect(blob, 0, 0, 0, 10, 'a');
	bs_blob_put(blob);
	kit_close(&kit);
}

/* Bytes against an array, with everything that touches them, and a crash now and then. */
#define BLOCKS 24u

static void change(struct bs_blob *blob, uint8_t *model, uint64_t *seed)
{
	uint32_t block = kit_rand(seed, BLOCKS), count = 1 + kit_rand(seed, 4), what = kit_rand(seed, 12);
	uint8_t byte = (uint8_t)(1 + kit_rand(seed, 255));
	struct bs_carried_range r = { 0, 0, BS_BLOCK };
	uint32_t from = kit_rand(seed, BS_BLOCK), to = from + 1 + kit_rand(seed, BS_BLOCK - from);

	count = MIN(count, BLOCKS - block);
	if (what < 7) {
		if (bs_carried_next(blob, block, 1, &r)) {
			byte = r.to < from || to < r.from ? model[block * BS_BLOCK + r.from] : byte;
			if (r.to < from || to < r.from)
				from = r.from, to = r.from + 1;
		}
		ASSERT_OK(carry(blob, (uint64_t)block * BS_BLOCK + from, to - from, byte));
		memset(model + block * BS_BLOCK + from, byte, to - from);
	} else if (what < 9) {
		ASSERT_OK(kit_write(blob, block, count, byte, what == 8 ? BS_IO_NEW : 0));
		memset(model + block * BS_BLOCK, byte, count * BS_BLOCK);
	} else if (what < 11) {
		ASSERT_OK(what == 9 ? kit_unmap(blob, block, count) : kit_zero(blob, block, count));
		memset(model + block * BS_BLOCK, 0, count * BS_BLOCK);
	} else {
		ASSERT_OK(kit_prealloc(blob->bs, blob, block, count));
	}
}

TEST(blob_carry, bytes_are_those_of_an_array)
{
	uint8_t *model = calloc(BLOCKS, BS_BLOCK), *buf = dma_alloc(BLOCKS * BS_BLOCK, BS_BLOCK);
	struct bs_blob *blob;
	uint64_t seed = test_seed();
	struct kit kit;

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	for (uint64_t i = 0; i < test_scaled(2000); i++) {
		change(blob, model, &seed);
		if (kit_rand(&seed, 50) == 0)
			ASSERT_OK(bs_checkpoint(kit.bs));
		if (kit_rand(&seed, 20) == 0) {
			size_t len, len2;
			uint8_t *dump = kit_dump(kit.bs, &len), *dump2;

			blob = crash(&kit, blob, 0);
			dump2 = kit_dump(kit.bs, &len2);
			ASSERT_EQ_INT(len, len2);
			ASSERT_EQ_MEM(dump, dump2, len);
			free(dump);
			free(dump2);
		}
		ASSERT_OK(kit_read(blob, 0, BLOCKS, buf));
		ASSERT_EQ_MEM(model, buf, BLOCKS * BS_BLOCK);
	}
	bs_blob_put(blob);
	kit_close(&kit);
	dma_free(buf);
	free(model);
}

/* Writers that carry and write home, each a block, and readers of all of it. What a reader sees of a block that is being overwritten is
 * the device's affair. */
struct crowd {
	struct bs_blob *blob;
	unsigned number;
	_Atomic bool *stop;
	uint64_t wrong;
};

static void *writer(void *arg)
{
	struct crowd *c = arg;
	uint64_t block = c->number, seed = block;

	for (uint64_t i = 0; i < test_scaled(2000); i++) {
		uint8_t byte = (uint8_t)(1 + kit_rand(&seed, 255));
		uint32_t what = kit_rand(&seed, 4);
		int rc = what ? carry(c->blob, block * BS_BLOCK, BS_BLOCK, byte) : kit_write(c->blob, block, 1, byte, 0);

		c->wrong += rc != 0 || kit_byte(c->blob, block) != byte;
		if (what == 3)
			c->wrong += bs_commit(c->blob->bs, 0) != 0;
	}
	return NULL;
}

static void *reader(void *arg)
{
	struct crowd *c = arg;
	uint8_t *buf = dma_alloc(4 * BS_BLOCK, BS_BLOCK);

	while (!atomic_load(c->stop))
		c->wrong += kit_read(c->blob, 0, 4, buf) != 0;
	dma_free(buf);
	return NULL;
}

TEST(blob_carry_threads, who_carries_reads_what_it_carried)
{
	_Atomic bool stop = false;
	struct crowd c[6];
	pthread_t t[6];
	struct bs_blob *blob;
	struct kit kit;

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	for (unsigned i = 0; i < 6; i++) {
		c[i] = (struct crowd){ .blob = blob, .number = i, .stop = &stop };
		ASSERT_OK(pthread_create(&t[i], NULL, i < 4 ? writer : reader, &c[i]));
	}
	for (unsigned i = 0; i < 6; i++) {
		if (i == 4)
			atomic_store(&stop, true);
		pthread_join(t[i], NULL);
		test_note("thread %u", i);
		EXPECT_EQ_INT(0, c[i].wrong);
	}
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(blob_carry, what_is_shared_has_to_be_home_first)
{
	struct bs_blob *a, *b;
	struct bs_txn *txn;
	struct kit kit;
	uint64_t id;

	kit_open(&kit, NULL);
	a = kit_create(kit.bs);
	b = kit_create(kit.bs);
	ASSERT_OK(kit_write(a, 0, 4, 'm', 0));
	ASSERT_OK(carry(a, 5 * BS_BLOCK, 400, 'c'));
	ASSERT_OK(carry(b, BS_BLOCK, 400, 'd'));
	ASSERT_EQ_INT(-EBUSY, bs_snapshot(kit.bs, &a, 1, true, &id));
	/* What lies beside the range does no harm; what the target carries there is gone. */
	ASSERT_OK(bs_share_quiesce(kit.bs, &a, 1));
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	ASSERT_EQ_INT(-EBUSY, bs_txn_share(txn, a, 4, b, 0, 2));
	ASSERT_OK(bs_txn_share(txn, a, 0, b, 0, 4));
	bs_txn_end(txn);
	ASSERT_EQ_INT(-EBUSY, carry(a, 6 * BS_BLOCK, 400, 'c')); /* while it is being shared */
	bs_share_end(a, true);
	for (unsigned round = 0; round < 2; round++) {
		ASSERT_EQ_INT(1, carried_blocks(kit.bs));
		ASSERT_EQ_INT('m', kit_byte(b, 1));
		bs_blob_put(b);
		id = bs_blob_id(a) + 1;
		a = crash(&kit, a, 0);
		b = bs_blob_get(kit.bs, id);
	}
	/* Over a shared block: a new place when it comes home. */
	ASSERT_OK(carry(a, 0, 400, 'e'));
	expect(a, 0, 'm', 0, 400, 'e');
	ASSERT_EQ_INT('m', kit_byte(b, 0));
	ASSERT_OK(kit_write(a, 0, 1, 'f', 0));
	ASSERT_OK(kit_write(a, 5, 1, 'c', 0));
	ASSERT_EQ_INT('m', kit_byte(b, 0));
	ASSERT_EQ_INT('f', kit_byte(a, 0));
	ASSERT_OK(bs_snapshot(kit.bs, &a, 1, true, &id));
	bs_blob_put(b);
	b = bs_blob_get(kit.bs, id);
	ASSERT_EQ_INT(-EROFS, carry(b, 0, 400, 'x'));
	ASSERT_EQ_INT('c', kit_byte(b, 5));
	bs_blob_put(a);
	bs_blob_put(b);
	kit_close(&kit);
}
