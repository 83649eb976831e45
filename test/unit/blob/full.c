/* SPDX-License-Identifier: BSD-2-Clause */
/* R7: on a full store checkpoints, deletes, unmounts and mounts succeed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/dma.h"
#include "base/util.h"
#include "blob/device.h"
#include "test/shim/test.h"
#include "test/unit/blob/kit.h"
#include "test/unit/blob/rig.h"
#include "test/unit/blob/share_kit.h"

#define SIZE (64 * MiB)
#define MANY 400000u

static uint64_t ids[MANY];

/* One blob with an item of len bytes; the rc of the first call that failed. */
static int try_create(struct rig *r, uint32_t len, uint64_t *id)
{
	static uint8_t value[BS_VALUE_MAX];
	struct bs_blob *blob;
	struct bs_txn *txn;
	int rc = bs_txn_begin(r->bs, 0, &txn);

	if (rc)
		return rc;
	rc = bs_txn_create(txn, 0, "u", 1, &blob);
	if (!rc)
		rc = bs_txn_put(txn, blob, BS_KIND_USER, 1, value, len);
	if (rc) {
		bs_txn_cancel(txn);
		return rc;
	}
	bs_txn_end(txn);
	*id = bs_blob_id(blob);
	bs_blob_put(blob);
	return 0;
}

static unsigned fill_with_items(struct rig *r, uint32_t len)
{
	unsigned n = 0;
	int rc = 0;

	while (!rc) {
		ASSERT_LT_INT(n, MANY);
		rc = try_create(r, len, &ids[n]);
		n += !rc;
	}
	EXPECT_ERR(-ENOSPC, rc);
	return n;
}

/* Data in single blocks all over, so that no free extent is longer than what the store keeps for itself. */
static void fill_with_data(struct rig *r, uint64_t id)
{
	void *buf = dma_zalloc(64 * BS_BLOCK, BS_BLOCK);
	struct iovec iov = { buf, 64 * BS_BLOCK };
	struct bs_io io;
	int rc = 0;

	for (uint64_t at = 0; !rc; at += 64) {
		memset(&io, 0, sizeof(io));
		io.blob = bs_blob_get(r->bs, id);
		io.op = BS_WRITE;
		io.offset = at * BS_BLOCK;
		io.length = 64 * BS_BLOCK;
		io.iov = &iov;
		io.iovcnt = 1;
		rc = bs_io_sync(r->bs, &io);
		bs_blob_put(io.blob);
	}
	EXPECT_ERR(-ENOSPC, rc);
	dma_free(buf);
}

static void expect_sound(struct rig *r)
{
	EXPECT_EQ_INT(0, bs_check(r->base, NULL, NULL, NULL, &r->err));
}

TEST(blob_full, items_fill_the_store_and_everything_still_works)
{
	static const uint32_t sizes[] = { 40, 33000, 49100, BS_VALUE_MAX };

	for (size_t k = 0; k < ARRAY_SIZE(sizes); k++) {
		struct bs_stat st;
		unsigned n;
		struct rig r;

		test_note("items of %u bytes", sizes[k]);
		rig_make(&r, 48 * MiB, true);
		ASSERT_OK(rig_open(&r, 0, 0));
		n = fill_with_items(&r, sizes[k]);
		EXPECT_GT_INT((uint64_t)n * (sizes[k] + 24), 7 * MiB);
		for (unsigned i = 0; i < 3; i++)
			EXPECT_OK(bs_checkpoint(r.bs));
		EXPECT_OK(rig_close(&r));
		expect_sound(&r);
		ASSERT_OK(rig_open(&r, 0, 0));
		for (unsigned i = 0; i < n; i++)
			rig_delete(&r, ids[i]);
		EXPECT_OK(bs_checkpoint(r.bs));
		bs_get_stat(r.bs, &st);
		EXPECT_EQ_INT(0, st.blobs);
		EXPECT_GT_INT(st.free_blocks * BS_BLOCK, 30 * MiB);
		EXPECT_OK(rig_close(&r));
		expect_sound(&r);
		rig_drop(&r);
	}
}

TEST(blob_full, data_fills_the_store_and_everything_still_works)
{
	struct bs_stat st;
	uint64_t id;
	struct rig r;

	rig_make(&r, SIZE, true);
	for (unsigned round = 0; round < 3; round++) {
		ASSERT_OK(rig_open(&r, 0, 0));
		id = rig_create(&r, 1, 10);
		fill_with_data(&r, id);
		bs_get_stat(r.bs, &st);
		EXPECT_GT_INT(st.used_blocks * BS_BLOCK, SIZE * 3 / 4);
		EXPECT_OK(bs_checkpoint(r.bs));
		if (round == 1)
			EXPECT_OK(rig_close(&r));
		else
			rig_abandon(&r);
		expect_sound(&r);
		ASSERT_OK(rig_open(&r, 0, 0));
		rig_delete(&r, id);
		EXPECT_OK(rig_close(&r));
	}
	rig_drop(&r);
}

TEST(blob_full, a_log_at_its_limit_on_a_full_store_lets_deletes_through)
{
	unsigned n, k = 0;
	struct rig r;

	rig_make(&r, 48 * MiB, true);
	ASSERT_OK(rig_open(&r, 0, 0));
	fill_with_data(&r, rig_create(&r, 1, 10));
	n = fill_with_items(&r, 2000);
	/* Replacing and deleting go round and round through the log, many times its length. */
	for (unsigned i = 0; i < 20000; i++) {
		rig_delete(&r, ids[k]);
		if (try_create(&r, 1900, &ids[k])) {
			ids[k] = ids[--n];
			ASSERT_GT_INT(n, 0);
		}
		k = n ? (k + 7) % n : 0;
	}
	EXPECT_OK(rig_close(&r));
	expect_sound(&r);
	rig_drop(&r);
}

/* Filled with a short log, then opened with the longest: there is no space for that, and yet it must work. */
TEST(blob_full, a_store_filled_with_other_limits_opens_and_works)
{
	struct bs_stat st;
	uint64_t id;
	unsigned n;
	struct rig r;

	rig_make(&r, 256 * MiB, true);
	ASSERT_OK(rig_open(&r, 0, MiB));
	id = rig_create(&r, 1, 10);
	fill_with_data(&r, id);
	n = fill_with_items(&r, 3000);
	EXPECT_OK(rig_close(&r));
	ASSERT_OK(rig_open(&r, 0, 16 * MiB));
	bs_get_stat(r.bs, &st);
	EXPECT_LT_INT(st.log_limit, 16 * MiB);
	for (unsigned i = 0; i < n; i++) {
		rig_delete(&r, ids[i]);
		ASSERT_OK(bs_commit(r.bs, 0));
	}
	EXPECT_OK(bs_checkpoint(r.bs));
	rig_delete(&r, id);
	EXPECT_OK(bs_checkpoint(r.bs));
	bs_service_step(r.bs);
	EXPECT_OK(bs_checkpoint(r.bs)); /* now there is space for the limits asked for */
	bs_get_stat(r.bs, &st);
	EXPECT_GT_INT(st.log_limit, 16 * MiB);
	EXPECT_OK(rig_close(&r));
	expect_sound(&r);
	rig_drop(&r);
}

/* Who was refused is not refused for some time after there is room again. */
TEST(blob_full, what_is_free_again_is_there_for_metadata_at_once)
{
	struct bs_blob *blob;
	struct rig r;
	uint64_t id;

	rig_make(&r, SIZE, true);
	ASSERT_OK(rig_open(&r, BS_NO_SERVICE, 0));
	ASSERT_OK(try_create(&r, 1, &id));
	fill_with_data(&r, id);
	fill_with_items(&r, 2000);
	blob = bs_blob_get(r.bs, id);
	ASSERT_OK(kit_unmap(blob, 0, 1ull << 30));
	bs_blob_put(blob);
	ASSERT_OK(bs_reclaim(r.bs));
	EXPECT_OK(try_create(&r, 2000, &id));
	rig_drop(&r);
}

#define COPIES 150u
#define COPY_BLOCKS 8192u

static int punch(struct bs *bs, struct bs_blob *blob, uint64_t block)
{
	struct bs_txn *txn;
	int rc = bs_txn_begin(bs, BS_TXN_FREES, &txn);

	return rc ? rc : kit_end(txn, bs_txn_unmap(txn, blob, block, 1));
}

/* Every other block of copies goes, which frees nothing, but makes a run of each that is left. */
TEST(blob_full, holes_do_not_outgrow_the_room_for_checkpoints)
{
	struct bs_blob *copy[COPIES], *filler;
	struct kit kit;
	int rc = 0;

	kit_open(&kit, &(struct kit_opts){ .size = 128 * MiB, .cluster_size = 65536, .flags = BS_NO_SERVICE, .checkpoint_bytes = 1 });
	copy[0] = kit_create(kit.bs);
	for (uint64_t at = 0; at < COPY_BLOCKS; at += 256)
		ASSERT_OK(kit_write(copy[0], at, 256, 1, 0));
	for (unsigned i = 1; i < COPIES; i++)
		copy[i] = share_clone(copy[0], false);
	filler = kit_create(kit.bs);
	for (uint64_t at = 0; !kit_write(filler, at, 16, 2, 0); at += 16)
		;
	for (uint64_t i = 0; i < (uint64_t)COPIES * COPY_BLOCKS / 2 && !rc; i++) {
		rc = punch(kit.bs, copy[i / (COPY_BLOCKS / 2)], i % (COPY_BLOCKS / 2) * 2 + 1);
		if (i % COPY_BLOCKS == 0)
			EXPECT_OK(bs_checkpoint(kit.bs));
	}
	EXPECT_ERR(-ENOSPC, rc);
	EXPECT_OK(bs_checkpoint(kit.bs));
	EXPECT_OK(kit_unmap(copy[2], COPY_BLOCKS / 2, COPY_BLOCKS / 2));
	EXPECT_OK(kit_delete(kit.bs, copy[0]));
	EXPECT_OK(punch(kit.bs, copy[COPIES - 1], 1));
	EXPECT_OK(bs_checkpoint(kit.bs));
	for (unsigned i = 1; i < COPIES; i++)
		bs_blob_put(copy[i]);
	bs_blob_put(filler);
	kit_close(&kit);
}
