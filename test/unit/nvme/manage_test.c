/* SPDX-License-Identifier: BSD-2-Clause */
/* What people administer; commands beside reads and writes; namespaces. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "nvme/internal.h"
#include "test/shim/test.h"
#include "test/unit/nvme/peer.h"

struct rig {
	struct peer p;
	struct nvme_ctrlr *c;
	struct nvme_qpair *q;
	char *buf, *back; /* 1 MiB each */
};

#define BUF (1 * MiB)

static void rig_start(struct rig *r, const struct nvmet_opts *t)
{
	peer_start(&r->p, t);
	peer_attach(&r->p, NULL, &r->c);
	ASSERT_OK(nvme_qpair_create(r->c, 0, &r->q));
	r->buf = nvme_alloc(BUF, 0);
	r->back = nvme_alloc(BUF, 0);
	ASSERT_TRUE(r->buf && r->back);
	fill(r->buf, BUF, 7);
}

static void rig_stop(struct rig *r)
{
	nvme_free(r->buf);
	nvme_free(r->back);
	nvme_qpair_free(r->q);
	nvme_detach(r->c);
	peer_stop(&r->p);
}

/* ---- namespaces ---- */

TEST(nvme_manage, namespaces_are_apart)
{
	struct nvmet_opts t = { .size = 1 * MiB, .namespaces = 3 };
	uint32_t ids[8];
	struct todo d;
	struct rig r;

	rig_start(&r, &t);
	ASSERT_EQ_INT(3, nvme_list_namespaces(r.c, 0, false, ids, 8));
	EXPECT_EQ_INT(1, ids[0]);
	EXPECT_EQ_INT(3, ids[2]);
	ASSERT_EQ_INT(1, nvme_list_namespaces(r.c, 1, true, ids, 1));
	EXPECT_EQ_INT(2, ids[0]);
	EXPECT_EQ_INT(0, nvme_list_namespaces(r.c, 3, false, ids, 8));
	for (uint32_t n = 1; n <= 3; n++) {
		todo_init(&d, NVME_WRITE, 0, 16, r.buf + n * 8192, 8192);
		d.cmd.nsid = n;
		nvme_submit(r.q, &d.cmd);
		ASSERT_OK(todo_wait(r.q, &d));
	}
	for (uint32_t n = 1; n <= 3; n++) {
		todo_init(&d, NVME_READ, 0, 16, r.back, 8192);
		d.cmd.nsid = n;
		nvme_submit(r.q, &d.cmd);
		ASSERT_OK(todo_wait(r.q, &d));
		EXPECT_EQ_MEM(r.buf + n * 8192, r.back, 8192);
	}
	EXPECT_EQ_INT(0, nvme_changed_namespaces(r.c, (uint32_t *)(void *)r.back));
	rig_stop(&r);
}

TEST(nvme_manage, a_namespace_that_cannot_be_identified_is_done_without)
{
	struct nvmet_opts t = { .size = 1 * MiB, .namespaces = 3 };
	struct nvme_ns_info ns;
	struct nvme_ctrlr *c;
	struct peer p;

	peer_start(&p, &t);
	atomic_store(&p.t->f.bad_ns, 2);
	peer_attach(&p, NULL, &c);
	EXPECT_OK(nvme_ns_get(c, 1, &ns));
	EXPECT_ERR(-EIO, nvme_ns_get(c, 2, &ns));
	ASSERT_OK(nvme_ns_next(c, 1, &ns));
	EXPECT_EQ_INT(3, ns.nsid);
	/* It may come to itself. */
	atomic_store(&p.t->f.bad_ns, 0);
	EXPECT_OK(ns_refresh(c, 2));
	ASSERT_OK(nvme_ns_get(c, 2, &ns));
	EXPECT_EQ_INT(2048, ns.blocks);
	nvme_detach(c);
	peer_stop(&p);
}

TEST(nvme_manage, a_format_is_learned_and_what_was_is_gone)
{
	struct nvme_format_opts f = { .size = sizeof(f), .nsid = 1, .format = 1, .erase = 1 };
	struct nvmet_opts t = { .size = 4 * MiB, .block = 512 };
	struct nvme_ns_info ns;
	struct rig r;

	rig_start(&r, &t);
	for (int round = 0; round < 300; round++) {
		uint32_t block = round % 2 ? 512 : 4096;

		f.format = round % 2 == 0;
		ASSERT_OK(do_cmd(r.q, NVME_WRITE, 0, 8, r.buf, round % 2 ? 32768 : 4096));
		ASSERT_OK(nvme_format(r.c, &f));
		ASSERT_OK(nvme_ns_get(r.c, 1, &ns));
		ASSERT_EQ_INT(block, ns.block_size);
		ASSERT_EQ_INT(4 * MiB / block, ns.blocks);
		ASSERT_OK(do_cmd(r.q, NVME_READ, 0, 1, r.back, block));
		ASSERT_EQ_INT(0, r.back[0] | r.back[block - 1]);
		EXPECT_ERR(-EINVAL,
			   do_cmd(r.q, NVME_READ, 0, 1, r.back, block == 512 ? 4096 : 512));
	}
	EXPECT_EQ_INT(2, r.c->nns);
	EXPECT_ERR(-ENOENT, nvme_ns_next(r.c, 1, &ns));
	f.nsid = NVME_NSID_ALL;
	ASSERT_OK(nvme_format(r.c, &f));
	f.format = 9;
	EXPECT_ERR(-EINVAL, nvme_format(r.c, &f));
	f.format = 16;
	EXPECT_ERR(-EINVAL, nvme_format(r.c, &f));
	EXPECT_EQ_INT(301, atomic_load(&r.p.t->formats));
	rig_stop(&r);
}

/* ---- commands beside reads and writes ---- */

TEST(nvme_manage, copies_of_any_length)
{
	static const unsigned lengths[] = { 1, 15, 16, 17, 300 };
	struct nvmet_opts t = { .size = 1 * MiB, .copy_blocks = 16 };
	struct todo d;
	struct rig r;

	rig_start(&r, &t);
	ASSERT_OK(do_cmd(r.q, NVME_WRITE, 0, 512, r.buf, 512 * 512));
	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		todo_init(&d, NVME_COPY, 1000, lengths[i], NULL, 0);
		d.cmd.source = 7;
		nvme_submit(r.q, &d.cmd);
		ASSERT_OK(todo_wait(r.q, &d));
		ASSERT_OK(do_cmd(r.q, NVME_READ, 1000, lengths[i], r.back, lengths[i] * 512));
		ASSERT_EQ_MEM(r.buf + 7 * 512, r.back, lengths[i] * 512);
	}
	EXPECT_EQ_INT(1 + 1 + 1 + 2 + 19, atomic_load(&r.p.t->n.copies));
	todo_init(&d, NVME_COPY, 10, 20, NULL, 0);
	d.cmd.source = 29;
	nvme_submit(r.q, &d.cmd);
	EXPECT_ERR(-EINVAL, todo_wait(r.q, &d));
	todo_init(&d, NVME_COPY, 10, 20, NULL, 0);
	d.cmd.source = 2040;
	nvme_submit(r.q, &d.cmd);
	EXPECT_ERR(-EINVAL, todo_wait(r.q, &d));
	rig_stop(&r);
}

TEST(nvme_manage, any_io_command_may_be_passed_through)
{
	struct nvme_sqe sqe = { .opcode = NVME_NVM_WRITE, .nsid = 1, .cdw10 = 40, .cdw12 = 99 };
	struct nvme_sqe bad = { .opcode = 0x7d, .nsid = 1 };
	struct todo d;
	struct rig r;

	rig_start(&r, NULL);
	todo_init(&d, NVME_RAW, 0, 0, r.buf + 512, 51200);
	d.cmd.raw = &sqe;
	nvme_submit(r.q, &d.cmd);
	ASSERT_OK(todo_wait(r.q, &d));
	ASSERT_OK(do_cmd(r.q, NVME_READ, 40, 100, r.back, 51200));
	EXPECT_EQ_MEM(r.buf + 512, r.back, 51200);
	/* It is sent once. */
	atomic_store(&r.p.t->n.commands, 0);
	todo_init(&d, NVME_RAW, 0, 0, NULL, 0);
	d.cmd.raw = &bad;
	nvme_submit(r.q, &d.cmd);
	EXPECT_ERR(-EOPNOTSUPP, todo_wait(r.q, &d));
	EXPECT_EQ_INT(NVME_SC_INVALID_OPCODE, d.cmd.status);
	EXPECT_EQ_INT(1, atomic_load(&r.p.t->n.commands));
	todo_init(&d, NVME_RAW, 0, 0, NULL, 0);
	nvme_submit(r.q, &d.cmd);
	EXPECT_ERR(-EINVAL, todo_wait(r.q, &d));
	/* And not again after a reset. */
	atomic_store(&r.p.t->f.hold, true);
	todo_init(&d, NVME_RAW, 0, 0, r.buf + 512, 51200);
	d.cmd.raw = &sqe;
	nvme_submit(r.q, &d.cmd);
	nvme_poll(r.q, 0);
	ASSERT_OK(nvme_reset(r.c));
	EXPECT_ERR(-ECANCELED, todo_wait(r.q, &d));
	atomic_store(&r.p.t->f.hold, false);
	rig_stop(&r);
}

TEST(nvme_manage, a_retry_waits_as_long_as_the_controller_asks)
{
	struct nvmet_opts t = { .size = 1 * MiB, .crdt = 2 };
	struct todo slow, quick;
	uint64_t start;
	struct rig r;

	rig_start(&r, &t);
	for (int again = 0; again < 2; again++) {
		atomic_store(&r.p.t->f.fail_status, NVME_SC_NS_NOT_READY | 0x800);
		atomic_store(&r.p.t->f.fail, 1);
		start = nvme_now_ns();
		todo_init(&slow, NVME_READ, 0, 8, r.back, 4096);
		nvme_submit(r.q, &slow.cmd);
		while (atomic_load(&r.p.t->f.fail))
			nvme_poll(r.q, 0);
		/* Others are not held up. */
		ASSERT_OK(do_cmd(r.q, NVME_READ, 0, 8, r.buf, 4096));
		EXPECT_EQ_INT(0, slow.calls);
		EXPECT_LT_INT(nvme_poll_interval_ms(r.q), 11);
		EXPECT_OK(todo_wait(r.q, &slow));
		EXPECT_GE_INT(nvme_now_ns() - start, 200000000);
		/* After a reset it has to be told again that we heed them. */
		ASSERT_OK(nvme_reset(r.c));
	}
	/* What waits is ended with the queue pair. */
	atomic_store(&r.p.t->f.fail, 1);
	todo_init(&quick, NVME_READ, 0, 8, r.back, 4096);
	nvme_submit(r.q, &quick.cmd);
	while (atomic_load(&r.p.t->f.fail))
		nvme_poll(r.q, 0);
	rig_stop(&r);
	EXPECT_EQ_INT(1, quick.calls);
	EXPECT_ERR(-ECANCELED, quick.rc);
}

/* ---- firmware, features, sanitizing ---- */

TEST(nvme_manage, firmware_is_given_in_parts_and_committed)
{
	struct nvmet_opts t = { .size = 1 * MiB, .mdts = 2 };
	uint8_t page[4096];
	bool needs_reset;
	struct rig r;

	rig_start(&r, &t);
	memcpy(r.buf, "2.0 test", 8);
	EXPECT_ERR(-EINVAL, nvme_firmware_commit(r.c, 1, 1, NULL));
	EXPECT_ERR(-EINVAL, nvme_firmware_download(r.c, r.buf, 7));
	ASSERT_OK(nvme_firmware_download(r.c, r.buf, 100000));
	EXPECT_EQ_INT(100000, atomic_load(&r.p.t->image));
	EXPECT_ERR(-EINVAL, nvme_firmware_commit(r.c, 7, 1, &needs_reset));
	ASSERT_OK(nvme_firmware_commit(r.c, 1, 1, &needs_reset));
	EXPECT_TRUE(needs_reset);
	ASSERT_OK(nvme_firmware_commit(r.c, 1, 3, &needs_reset));
	EXPECT_FALSE(needs_reset);
	ASSERT_OK(nvme_identify(r.c, NVME_CNS_CTRLR, 0, page));
	EXPECT_EQ_MEM("2.0 test", ((struct nvme_id_ctrlr *)(void *)page)->fr, 8);
	rig_stop(&r);
}

TEST(nvme_manage, features_and_sanitize_status)
{
	struct nvme_sanitize_status s;
	unsigned kelvin;
	struct rig r;
	bool on;

	rig_start(&r, NULL);
	ASSERT_OK(nvme_get_write_cache(r.c, &on));
	EXPECT_TRUE(on);
	ASSERT_OK(nvme_set_write_cache(r.c, false));
	ASSERT_OK(nvme_get_write_cache(r.c, &on));
	EXPECT_FALSE(on);
	ASSERT_OK(nvme_set_temperature_threshold(r.c, 0, false, 345));
	ASSERT_OK(nvme_get_temperature_threshold(r.c, 0, false, &kelvin));
	EXPECT_EQ_INT(345, kelvin);
	EXPECT_ERR(-EINVAL, nvme_set_temperature_threshold(r.c, 9, false, 345));
	ASSERT_OK(nvme_sanitize_status(r.c, &s));
	EXPECT_EQ_INT(65535, s.progress);
	EXPECT_EQ_INT(1, s.state);
	EXPECT_TRUE(s.erased);
	rig_stop(&r);
}
