/* SPDX-License-Identifier: BSD-2-Clause */
/* Write streams: what a controller with the directive is told, and what one without is not. */
#include "base/log.h"
#include "base/util.h"
#include "nvme/internal.h"
#include "test/shim/test.h"
#include "test/unit/nvme/peer.h"

static unsigned blocks_of(struct peer *p, unsigned stream)
{
	return atomic_load(&p->t->n.stream_blocks[stream]);
}

static int write_stream(struct nvme_qpair *q, uint16_t stream, uint64_t lba, uint64_t blocks, void *buf)
{
	struct todo d;

	todo_init(&d, NVME_WRITE, lba, blocks, buf, blocks * 512);
	d.cmd.stream = stream;
	nvme_submit(q, &d.cmd);
	return todo_wait(q, &d);
}

TEST(nvme_streams, each_write_says_its_stream_in_every_piece)
{
	struct nvmet_opts t = { .size = 16 * MiB, .streams = 4 };
	struct nvme_qpair *q;
	struct nvme_ctrlr *c;
	struct peer p;
	char *buf;

	peer_start(&p, &t);
	peer_attach(&p, NULL, &c);
	EXPECT_EQ_INT(4, nvme_info(c)->streams);
	ASSERT_OK(nvme_qpair_create(c, 8, &q));
	buf = nvme_alloc(1 * MiB, 0);
	fill(buf, 1 * MiB, 3);
	EXPECT_OK(write_stream(q, 1, 0, 8, buf));
	EXPECT_OK(write_stream(q, 3, 100, 2048, buf)); /* longer than one command may be */
	EXPECT_OK(write_stream(q, 0, 5000, 8, buf));
	EXPECT_OK(write_stream(q, 5, 6000, 8, buf)); /* there is none: as none */
	EXPECT_OK(do_cmd(q, NVME_READ, 0, 8, buf, 4096));
	EXPECT_EQ_INT(8, blocks_of(&p, 1));
	EXPECT_EQ_INT(0, blocks_of(&p, 2));
	EXPECT_EQ_INT(2048, blocks_of(&p, 3));
	EXPECT_EQ_INT(0, blocks_of(&p, 0));
	nvme_free(buf);
	nvme_qpair_free(q);
	nvme_detach(c);
	peer_stop(&p);
}

TEST(nvme_streams, are_turned_on_again_after_a_reset_or_done_without)
{
	struct nvmet_opts t = { .size = 16 * MiB, .streams = 4 };
	struct nvme_qpair *q;
	struct nvme_ctrlr *c;
	struct peer p;
	char *buf;

	base_log_set_sink(quiet, NULL);
	peer_start(&p, &t);
	peer_attach(&p, NULL, &c);
	ASSERT_OK(nvme_qpair_create(c, 8, &q));
	buf = nvme_alloc(4096, 0);
	ASSERT_OK(nvme_reset(c));
	EXPECT_OK(write_stream(q, 2, 0, 8, buf));
	EXPECT_EQ_INT(8, blocks_of(&p, 2));
	atomic_store(&p.t->f.no_streams, true);
	ASSERT_OK(nvme_reset(c));
	EXPECT_OK(write_stream(q, 2, 0, 8, buf));
	EXPECT_EQ_INT(8, blocks_of(&p, 2));
	atomic_store(&p.t->f.no_streams, false);
	ASSERT_OK(nvme_reset(c));
	EXPECT_OK(write_stream(q, 2, 0, 8, buf));
	EXPECT_EQ_INT(16, blocks_of(&p, 2));
	nvme_free(buf);
	nvme_qpair_free(q);
	nvme_detach(c);
	peer_stop(&p);
	base_log_set_sink(NULL, NULL);
}

TEST(nvme_streams, a_controller_that_refuses_is_used_without)
{
	struct nvmet_opts t = { .size = 16 * MiB, .streams = 4 };
	struct nvme_qpair *q;
	struct nvme_ctrlr *c;
	struct peer p;
	char *buf;

	peer_start(&p, &t);
	atomic_store(&p.t->f.no_streams, true);
	peer_attach(&p, NULL, &c);
	EXPECT_EQ_INT(0, nvme_info(c)->streams);
	ASSERT_OK(nvme_qpair_create(c, 8, &q));
	buf = nvme_alloc(4096, 0);
	EXPECT_OK(write_stream(q, 2, 0, 8, buf));
	EXPECT_EQ_INT(0, blocks_of(&p, 2));
	nvme_free(buf);
	nvme_qpair_free(q);
	nvme_detach(c);
	peer_stop(&p);
}
