/* SPDX-License-Identifier: BSD-2-Clause */
/* What a store has of an NVMe controller beyond blocks: streams, and namespaces that grow. */
#include <stdio.h>
#include <string.h>

#include "base/dma.h"
#include "base/log.h"
#include "base/util.h"
#include "blob/blob.h"
#include "test/shim/test.h"
#include "test/unit/nvme/peer.h"

static unsigned blocks_of(struct peer *p, unsigned stream)
{
	return atomic_load(&p->t->n.stream_blocks[stream]);
}

TEST(store_on_nvme, a_namespace_that_has_grown_is_grown_into)
{
	struct nvmet_opts t = { .size = 80 * MiB, .block = 4096, .events = true };
	struct bs_open_opts opts = { .size = sizeof(opts) };
	struct base_err err = { "" };
	struct bs_stat st;
	struct bdev *dev;
	char name[160];
	struct peer p;
	struct bs *bs;

	base_log_set_sink(quiet, NULL);
	peer_start(&p, &t);
	atomic_store(&p.t->f.blocks, 48 * MiB / 4096);
	snprintf(name, sizeof(name), "nvme:%s/1", p.address);
	ASSERT_OK(bdev_open(name, NULL, &dev, &err));
	ASSERT_OK(bs_format(dev, NULL, &err));
	ASSERT_OK(bs_open(dev, &opts, &bs, &err));
	ASSERT_OK(bs_grow(bs, 0, &err));
	bs_get_stat(bs, &st);
	EXPECT_EQ_INT(48 * MiB / BS_BLOCK, st.blocks);
	atomic_store(&p.t->f.blocks, 0);
	atomic_store(&p.t->f.event, NVME_LOG_CHANGED_NS << 16 | 2);
	for (int i = 0; i < 100 && st.blocks == 48 * MiB / BS_BLOCK; i++) {
		ASSERT_OK(bs_grow(bs, 0, &err));
		bs_get_stat(bs, &st);
	}
	EXPECT_EQ_INT(80 * MiB / BS_BLOCK, st.blocks);
	ASSERT_OK(bs_close(bs));
	peer_stop(&p);
	base_log_set_sink(NULL, NULL);
}

TEST(store_on_nvme, data_of_a_store_goes_to_the_stream_of_its_lifetime)
{
	struct nvmet_opts t = { .size = 64 * MiB, .block = 4096, .streams = 4 };
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_NO_SERVICE };
	struct base_err err = { "" };
	struct bs_blob *blob;
	struct bs_txn *txn;
	struct bdev *dev;
	char name[160];
	struct peer p;
	struct bs *bs;
	void *buf;

	peer_start(&p, &t);
	snprintf(name, sizeof(name), "nvme:%s/1", p.address);
	ASSERT_OK(bdev_open(name, NULL, &dev, &err));
	ASSERT_OK(bs_format(dev, NULL, &err));
	ASSERT_OK(bs_open(dev, &opts, &bs, &err));
	ASSERT_OK(bs_txn_begin(bs, 0, &txn));
	ASSERT_OK(bs_txn_create(txn, 0, "u", 1, &blob));
	bs_txn_end(txn);
	buf = dma_zalloc(16 * BS_BLOCK, BS_BLOCK);
	for (int s = 0; s < 4; s++) {
		struct iovec iov = { buf, 16 * BS_BLOCK };
		struct bs_io io = { .blob = blob, .op = BS_WRITE, .offset = (uint64_t)s * 16 * BS_BLOCK, .length = iov.iov_len,
				    .iov = &iov, .iovcnt = 1, .stream = (enum bs_stream)s };

		ASSERT_OK(bs_io_sync(bs, &io));
	}
	EXPECT_EQ_INT(16, blocks_of(&p, BS_STREAM_SHORT));
	EXPECT_EQ_INT(16, blocks_of(&p, BS_STREAM_LONG));
	ASSERT_OK(bs_checkpoint(bs));
	EXPECT_GT_INT(blocks_of(&p, BS_STREAM_META), 16);
	EXPECT_EQ_INT(16, blocks_of(&p, BS_STREAM_LONG));
	bs_blob_put(blob);
	dma_free(buf);
	ASSERT_OK(bs_close(bs));
	peer_stop(&p);
}
