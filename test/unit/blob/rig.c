/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/dma.h"
#include "base/util.h"
#include "blob/device.h"
#include "test/common/testdev.h"
#include "test/shim/test.h"
#include "test/unit/blob/rig.h"

void rig_make(struct rig *r, uint64_t size, bool cache)
{
	static _Atomic unsigned serial;
	struct bs_format_opts opts = { .size = sizeof(opts), .label = "rig", .owner = "test" };
	char ram[64];

	memset(r, 0, sizeof(*r));
	snprintf(ram, sizeof(ram), "ram:%llu%s,name=rig%u", (unsigned long long)size, cache ? ",cache" : "",
		 atomic_fetch_add(&serial, 1));
	testdev_name(ram, r->name, sizeof(r->name));
	ASSERT_OK(bdev_open(r->name, NULL, &r->base, &r->err));
	ASSERT_OK(bs_format(r->base, &opts, &r->err));
}

int rig_open(struct rig *r, uint32_t flags, uint64_t checkpoint_bytes)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = flags, .checkpoint_bytes = checkpoint_bytes };
	struct bdev *again;
	int rc;

	ASSERT_OK(bdev_open(r->name, NULL, &again, &r->err));
	ASSERT_OK(bdev_fault_create(again, &r->fault));
	rc = bs_open(r->fault, &opts, &r->bs, &r->err);
	if (rc) {
		bdev_close(r->fault);
		r->fault = NULL;
	}
	return rc;
}

int rig_close(struct rig *r)
{
	int rc = bs_close(r->bs);

	r->bs = NULL;
	r->fault = NULL;
	return rc;
}

void rig_abandon(struct rig *r)
{
	bs_abandon(r->bs);
	r->bs = NULL;
	r->fault = NULL;
}

void rig_drop(struct rig *r)
{
	if (r->bs)
		rig_abandon(r);
	bdev_close(r->base);
}

static void transfer(struct rig *r, enum bdev_op op, uint64_t block, void *buf, uint32_t blocks)
{
	struct bdev_channel *ch = bdev_channel_borrow(r->base);
	int rc = bdev_io_sync(ch, op, buf, block * BS_BLOCK, (uint64_t)blocks * BS_BLOCK, 0);

	bdev_channel_return(ch);
	ASSERT_OK(rc);
}

void rig_read(struct rig *r, uint64_t block, void *buf, uint32_t blocks)
{
	transfer(r, BDEV_READ, block, buf, blocks);
}

void rig_write(struct rig *r, uint64_t block, const void *buf, uint32_t blocks)
{
	transfer(r, BDEV_WRITE, block, (void *)(uintptr_t)buf, blocks);
}

void rig_super(struct rig *r, struct bs_sb_disk *sb)
{
	struct bs_sb_pair pair;

	ASSERT_OK(bs_sb_read(r->base, &pair, &r->err));
	*sb = pair.sb[pair.chosen];
}

void rig_put_super(struct rig *r, struct bs_sb_disk *sb)
{
	ASSERT_OK(bs_sb_write_sync(r->base, sb));
}

uint64_t rig_create(struct rig *r, uint8_t fill, uint32_t len)
{
	uint8_t value[BS_VALUE_MAX];
	struct bs_blob *blob;
	struct bs_txn *txn;
	uint64_t id;

	memset(value, fill, len);
	ASSERT_OK(bs_txn_begin(r->bs, 0, &txn));
	ASSERT_OK(bs_txn_create(txn, 0, &fill, 1, &blob));
	ASSERT_OK(bs_txn_put(txn, blob, BS_KIND_USER, 1, value, len));
	ASSERT_GT_INT(bs_txn_end(txn), 0);
	id = bs_blob_id(blob);
	bs_blob_put(blob);
	return id;
}

void rig_delete(struct rig *r, uint64_t id)
{
	struct bs_blob *blob = bs_blob_get(r->bs, id);
	struct bs_txn *txn;

	ASSERT_TRUE(blob != NULL);
	ASSERT_OK(bs_txn_begin(r->bs, BS_TXN_FREES, &txn));
	ASSERT_OK(bs_txn_delete(txn, blob));
	bs_txn_end(txn);
	bs_blob_put(blob);
}

void rig_fill(struct rig *r, uint64_t id, uint64_t block, uint64_t count)
{
	void *buf = dma_zalloc(count * BS_BLOCK, BS_BLOCK);
	struct iovec iov = { buf, count * BS_BLOCK };
	struct bs_io io;

	memset(&io, 0, sizeof(io));
	io.blob = bs_blob_get(r->bs, id);
	io.op = BS_WRITE;
	io.offset = block * BS_BLOCK;
	io.length = count * BS_BLOCK;
	io.iov = &iov;
	io.iovcnt = 1;
	ASSERT_TRUE(io.blob != NULL);
	ASSERT_OK(bs_io_sync(r->bs, &io));
	bs_blob_put(io.blob);
	dma_free(buf);
}

bool rig_has(struct rig *r, uint64_t id, uint8_t fill, uint32_t len)
{
	struct bs_blob *blob = bs_blob_get(r->bs, id);
	uint8_t value[BS_VALUE_MAX];
	int got;

	if (!blob)
		return false;
	got = bs_item_get(blob, BS_KIND_USER, 1, value, sizeof(value));
	bs_blob_put(blob);
	EXPECT_EQ_INT(len, got);
	for (int i = 0; i < got; i++)
		if (value[i] != fill)
			FAIL("item of blob %llu: byte %d is %u", (unsigned long long)id, i, value[i]);
	return true;
}

uint32_t rig_digest(struct rig *r)
{
	uint32_t len = 256 * 1024, crc = 0, count, need, n;
	struct bs_cursor cursor, first;
	uint8_t *buf = malloc(len);

	memset(&cursor, 0, sizeof(cursor));
	pthread_mutex_lock(&r->bs->lock);
	while ((n = bs_capture(r->bs, &cursor, buf, len, &first, &count, &need)) > 0)
		crc = base_crc32c(crc, buf, n);
	pthread_mutex_unlock(&r->bs->lock);
	free(buf);
	return crc;
}
