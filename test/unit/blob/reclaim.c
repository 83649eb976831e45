/* SPDX-License-Identifier: BSD-2-Clause */
/* Reclaiming space inside an op, without a service that would poll the log for it. */
#include "base/util.h"
#include "blob/blob.h"
#include "test/shim/test.h"

struct reclaimer {
	struct op op;
	struct bs *bs;
};

static enum op_next step(struct op *op)
{
	struct reclaimer *r = container_of(op, struct reclaimer, op);

	if (op->step == 1)
		return op_finish(op);
	bs_reclaim_start(r->bs, op);
	return op_await(op, 1, 0);
}

static void reclaim(struct bs *bs, struct bdev_channel *ch)
{
	struct reclaimer r = { .bs = bs };

	op_init(&r.op, "reclaim", step, bdev_channel_driver(ch), NULL, NULL);
	op_start(&r.op);
	ASSERT_OK(op_wait(&r.op));
}

TEST(reclaim, ends_without_a_service_whether_or_not_something_is_pending)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_NO_SERVICE };
	struct base_err err = { "" };
	struct bdev_channel *ch;
	struct bs_blob *blob;
	struct bs_txn *txn;
	struct bs_stat st;
	struct bdev *dev;
	struct bs *bs;

	ASSERT_OK(bdev_open("ram:48M", NULL, &dev, &err));
	ASSERT_OK(bs_format(dev, NULL, &err));
	ASSERT_OK(bs_open(dev, &opts, &bs, &err));
	ASSERT_OK(bdev_channel_create(dev, &ch));
	reclaim(bs, ch);
	ASSERT_OK(bs_txn_begin(bs, 0, &txn));
	ASSERT_OK(bs_txn_create(txn, 0, "u", 1, &blob));
	ASSERT_OK(bs_txn_prealloc(txn, blob, 0, 1000, BS_STREAM_LONG));
	bs_txn_end(txn);
	ASSERT_OK(bs_txn_begin(bs, BS_TXN_FREES, &txn));
	ASSERT_OK(bs_txn_unmap(txn, blob, 0, UINT64_MAX));
	bs_txn_end(txn);
	bs_get_stat(bs, &st);
	ASSERT_EQ_INT(1000, st.pending_blocks);
	reclaim(bs, ch);
	bs_get_stat(bs, &st);
	ASSERT_EQ_INT(0, st.pending_blocks);
	bs_blob_put(blob);
	bdev_channel_destroy(ch);
	ASSERT_OK(bs_close(bs));
}
