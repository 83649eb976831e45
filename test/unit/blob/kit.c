/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/common/testdev.h"
#include "test/unit/blob/kit.h"

static void open_store(struct kit *kit, uint32_t flags)
{
	struct bs_open_opts oo = { .size = sizeof(oo),
				   .flags = flags,
				   .checkpoint_bytes = kit->checkpoint_bytes,
				   .discard_min = kit->discard_min,
				   .discard_rate = kit->discard_rate };
	struct base_err err = { "" };
	int rc = bs_open(kit->dev, &oo, &kit->bs, &err);

	test_note("%s", err.text);
	ASSERT_OK(rc);
}

static void open_device(struct kit *kit)
{
	struct bdev *ram;

	ASSERT_OK(bdev_open(kit->name, NULL, &ram, NULL));
	kit->dev = ram;
	if (kit->fault)
		ASSERT_OK(bdev_fault_create(ram, &kit->dev));
}

void kit_open(struct kit *kit, const struct kit_opts *opts)
{
	static _Atomic unsigned number;
	struct kit_opts none = { .size = 0 };
	struct bs_format_opts fo = { .size = sizeof(fo) };
	char ram[64];

	if (!opts)
		opts = &none;
	snprintf(ram, sizeof(ram), "ram:%llu%s,name=kit%u",
		 (unsigned long long)(opts->size ? opts->size : 64 * MiB), opts->cache ? ",cache" : "", number++);
	testdev_name(ram, kit->name, sizeof(kit->name));
	kit->fault = opts->fault;
	kit->checkpoint_bytes = opts->checkpoint_bytes;
	kit->discard_min = opts->discard_min;
	kit->discard_rate = opts->discard_rate;
	ASSERT_OK(bdev_open(kit->name, NULL, &kit->keep, NULL));
	open_device(kit);
	fo.cluster_size = opts->cluster_size;
	fo.store_size = opts->store_size;
	fo.flags = opts->format;
	ASSERT_OK(bs_format(kit->dev, &fo, NULL));
	open_store(kit, opts->flags);
}

void kit_close(struct kit *kit)
{
	EXPECT_OK(bs_close(kit->bs));
	bdev_close(kit->keep);
}

void kit_reopen(struct kit *kit, bool crash, uint32_t flags)
{
	if (crash)
		bs_abandon(kit->bs);
	else
		ASSERT_OK(bs_close(kit->bs));
	open_device(kit);
	open_store(kit, flags);
}

uint32_t kit_rand(uint64_t *state, uint32_t below)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15ull;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return (uint32_t)((x ^ (x >> 31)) >> 32) % below;
}

struct bs_blob *kit_create(struct bs *bs)
{
	struct bs_blob *blob;
	struct bs_txn *txn;

	ASSERT_OK(bs_txn_begin(bs, 0, &txn));
	ASSERT_OK(bs_txn_create(txn, 0, NULL, 0, &blob));
	bs_txn_end(txn);
	return blob;
}

struct bdev_stats kit_device_stats(const struct kit *kit)
{
	struct bdev_stats st;

	bdev_get_stats(kit->dev, &st);
	return st;
}

int kit_end(struct bs_txn *txn, int rc)
{
	if (rc)
		bs_txn_cancel(txn);
	else
		bs_txn_end(txn);
	return rc;
}

int kit_delete(struct bs *bs, struct bs_blob *blob)
{
	struct bs_txn *txn;
	int rc = bs_txn_begin(bs, BS_TXN_FREES, &txn);

	if (!rc)
		rc = kit_end(txn, bs_txn_delete(txn, blob));
	bs_blob_put(blob);
	return rc;
}

int kit_put(struct bs *bs, struct bs_blob *blob, uint64_t key, const void *value, uint32_t len)
{
	struct bs_txn *txn;
	int rc = bs_txn_begin(bs, 0, &txn);

	return rc ? rc : kit_end(txn, bs_txn_put(txn, blob, BS_KIND_USER, key, value, len));
}

int kit_prealloc(struct bs *bs, struct bs_blob *blob, uint64_t block, uint64_t count)
{
	struct bs_txn *txn;
	int rc = bs_txn_begin(bs, 0, &txn);

	return rc ? rc : kit_end(txn, bs_txn_prealloc(txn, blob, block, count, BS_STREAM_UNKNOWN));
}

int kit_carry(struct bs_blob *blob, uint64_t offset, const void *data, uint32_t len)
{
	struct bs_txn *txn;
	int rc = bs_txn_begin(blob->bs, 0, &txn);

	return rc ? rc : kit_end(txn, bs_txn_carry(txn, blob, offset, data, len));
}

static int do_io(struct bs_blob *blob, enum bs_io_op what, uint64_t block, uint64_t count,
		 void *buf, uint32_t flags)
{
	struct iovec iov = { buf, count * BS_BLOCK };
	struct bs_io io = { .blob = blob,
			    .op = what,
			    .flags = flags,
			    .offset = block * BS_BLOCK,
			    .length = count * BS_BLOCK,
			    .iov = &iov,
			    .iovcnt = 1 };

	return bs_io_sync(blob->bs, &io);
}

int kit_write_buf(struct bs_blob *blob, uint64_t block, uint64_t count, void *buf, uint32_t flags)
{
	return do_io(blob, BS_WRITE, block, count, buf, flags);
}

int kit_write(struct bs_blob *blob, uint64_t block, uint64_t count, uint8_t byte, uint32_t flags)
{
	void *buf = dma_alloc(count * BS_BLOCK, BS_BLOCK);
	int rc;

	ASSERT_TRUE(buf != NULL);
	memset(buf, byte, count * BS_BLOCK);
	rc = kit_write_buf(blob, block, count, buf, flags);
	dma_free(buf);
	return rc;
}

int kit_read(struct bs_blob *blob, uint64_t block, uint64_t count, void *buf)
{
	return do_io(blob, BS_READ, block, count, buf, 0);
}

int kit_unmap(struct bs_blob *blob, uint64_t block, uint64_t count)
{
	return do_io(blob, BS_UNMAP, block, count, NULL, 0);
}

int kit_zero(struct bs_blob *blob, uint64_t block, uint64_t count)
{
	return do_io(blob, BS_WRITE_ZEROES, block, count, NULL, 0);
}

int kit_byte(struct bs_blob *blob, uint64_t block)
{
	uint8_t *buf = dma_alloc(BS_BLOCK, BS_BLOCK);
	int byte;

	ASSERT_TRUE(buf != NULL);
	ASSERT_OK(kit_read(blob, block, 1, buf));
	byte = buf[0];
	if (memcmp(buf, buf + 1, BS_BLOCK - 1))
		byte = -1;
	dma_free(buf);
	return byte;
}

static enum op_next kit_step(struct op *op)
{
	struct kit_io *k = container_of(op, struct kit_io, op);

	if (op->step)
		return op_finish(op);
	bs_io_start(k->ch, &k->io, op);
	return op_await(op, 1, 0);
}

void kit_start(struct kit_io *k, struct bs_blob *blob, enum bs_io_op what, uint64_t block,
	       uint64_t count, void *buf)
{
	memset(k, 0, sizeof(*k));
	ASSERT_OK(bdev_channel_create(bs_bdev(blob->bs), &k->ch));
	k->iov = (struct iovec){ buf, count * BS_BLOCK };
	k->io = (struct bs_io){ .blob = blob,
				.op = what,
				.offset = block * BS_BLOCK,
				.length = count * BS_BLOCK,
				.iov = &k->iov,
				.iovcnt = 1 };
	op_init(&k->op, "kit", kit_step, bdev_channel_driver(k->ch), NULL, NULL);
	op_start(&k->op);
	bdev_kick(k->ch);
}

int kit_wait(struct kit_io *k)
{
	int rc = op_wait(&k->op);

	bdev_channel_destroy(k->ch);
	return rc;
}

void kit_flip(struct bdev *dev, uint64_t block, unsigned at)
{
	struct bdev_channel *ch = bdev_channel_borrow(dev);
	uint8_t *buf = dma_alloc(BS_BLOCK, BS_BLOCK);

	ASSERT_OK(bdev_io_sync(ch, BDEV_READ, buf, block * BS_BLOCK, BS_BLOCK, 0));
	buf[at] ^= 0x10;
	ASSERT_OK(bdev_io_sync(ch, BDEV_WRITE, buf, block * BS_BLOCK, BS_BLOCK, 0));
	dma_free(buf);
	bdev_channel_return(ch);
}

uint8_t *kit_dump(struct bs *bs, size_t *len)
{
	struct bs_cursor cursor = { 0 }, first;
	size_t cap = 1 << 16;
	uint8_t *buf = malloc(cap);
	uint32_t n, count, need;

	*len = 0;
	pthread_mutex_lock(&bs->lock);
	for (;;) {
		if (cap - *len < 2 * BS_REC_MAX)
			buf = realloc(buf, cap = cap * 2 + 2 * BS_REC_MAX);
		n = bs_capture(bs, &cursor, buf + *len, (uint32_t)BS_REC_MAX, &first, &count,
			       &need);
		if (!n)
			break;
		*len += n;
	}
	pthread_mutex_unlock(&bs->lock);
	return buf;
}
