/* SPDX-License-Identifier: BSD-2-Clause */
/* Commands: data of all sizes and alignments, queues that wrap, limits, errors of the caller. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "nvme/internal.h"
#include "test/shim/test.h"
#include "test/unit/nvme/peer.h"

struct rig {
	struct peer p;
	struct nvme_ctrlr *c;
	struct nvme_qpair *q;
	char *buf, *back; /* 4 MiB each */
};

#define BUF (4 * MiB)

static void rig_start(struct rig *r, const struct nvmet_opts *t, const struct nvme_opts *o,
		      uint32_t depth)
{
	peer_start(&r->p, t);
	peer_attach(&r->p, o, &r->c);
	ASSERT_OK(nvme_qpair_create(r->c, depth, &r->q));
	r->buf = nvme_alloc(BUF, 0);
	r->back = nvme_alloc(BUF, 0);
	ASSERT_TRUE(r->buf && r->back);
}

static void rig_stop(struct rig *r)
{
	nvme_free(r->buf);
	nvme_free(r->back);
	nvme_qpair_free(r->q);
	nvme_detach(r->c);
	peer_stop(&r->p);
}

static void compare_all_sizes(uint32_t block, uint8_t mdts)
{
	static const unsigned sizes[] = { 1,  2,  3,   7,   8,   9,   15,  16, 17,
					  31, 64, 100, 255, 256, 257, 300, 513 };
	static const unsigned offsets[] = { 0, 4, 508, 512, 2048, 4092 };
	struct nvmet_opts t = { .size = 64 * MiB, .block = block, .mdts = mdts };
	struct rig r;

	rig_start(&r, &t, NULL, 0);
	for (unsigned s = 0; s < ARRAY_SIZE(sizes); s++) {
		for (unsigned o = 0; o < ARRAY_SIZE(offsets); o++) {
			size_t len = (size_t)sizes[s] * block;
			uint64_t lba = 1 + s * 600;
			char *to = r.back + offsets[(o + 1) % ARRAY_SIZE(offsets)];

			test_note("%u blocks at offset %u", sizes[s], offsets[o]);
			fill(r.buf + offsets[o], len, s * 100 + o + 1);
			memset(r.back, 0xee, len + 8192);
			ASSERT_OK(do_cmd(r.q, NVME_WRITE, lba, sizes[s], r.buf + offsets[o], len));
			ASSERT_OK(do_cmd(r.q, NVME_READ, lba, sizes[s], to, len));
			ASSERT_EQ_MEM(r.buf + offsets[o], to, len);
			ASSERT_EQ_INT((char)0xee, to[len]);
			ASSERT_OK(do_cmd(r.q, NVME_COMPARE, lba, sizes[s], to, len));
		}
	}
	test_note("%s", "");
	rig_stop(&r);
}

TEST(nvme_io, data_of_all_sizes_in_blocks_of_512)
{
	compare_all_sizes(512, 5);
}

TEST(nvme_io, data_of_all_sizes_in_blocks_of_4096)
{
	compare_all_sizes(4096, 9);
}

TEST(nvme_io, data_of_all_sizes_with_the_smallest_transfer)
{
	compare_all_sizes(512, 1);
}

TEST(nvme_io, iovecs_of_any_form_arrive)
{
	struct rig r;
	struct iovec v[40];
	unsigned at = 0, sum = 0;
	struct todo d;

	rig_start(&r, NULL, NULL, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(v); i++) {
		unsigned len = 512 * (1 + i * 7 % 19);

		v[i] = (struct iovec){ r.buf + at + i * 4, len };
		fill(v[i].iov_base, len, i);
		at += len + 4096 * (i % 2);
		at += i % 3 ? 0 : 100;
		sum += len;
	}
	todo_init(&d, NVME_WRITE, 5, sum / 512, r.buf, 0);
	d.cmd.iov = v;
	d.cmd.iovcnt = ARRAY_SIZE(v);
	nvme_submit(r.q, &d.cmd);
	ASSERT_OK(todo_wait(r.q, &d));
	ASSERT_OK(do_cmd(r.q, NVME_READ, 5, sum / 512, r.back, sum));
	at = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(v); i++) {
		ASSERT_EQ_MEM(v[i].iov_base, r.back + at, v[i].iov_len);
		at += (unsigned)v[i].iov_len;
	}
	rig_stop(&r);
}

TEST(nvme_io, commands_are_split_at_the_optimal_boundary)
{
	struct nvmet_opts t = { .size = 64 * MiB, .noiob = 24 };
	struct rig r;

	rig_start(&r, &t, NULL, 0);
	fill(r.buf, 100 * 512, 1);
	ASSERT_OK(do_cmd(r.q, NVME_WRITE, 17, 100, r.buf, 100 * 512));
	EXPECT_EQ_INT(24, atomic_load(&r.p.t->n.largest));
	ASSERT_OK(do_cmd(r.q, NVME_READ, 17, 100, r.back, 100 * 512));
	EXPECT_EQ_MEM(r.buf, r.back, 100 * 512);
	rig_stop(&r);
}

/* What is written with zeroes beside it comes back, though something else stands beside it then. */
TEST(nvme_io, metadata_beside_the_blocks_are_nobodys)
{
	struct nvmet_opts t = { .size = 8 * MiB };
	struct rig r;

	peer_start(&r.p, &t);
	atomic_store(&r.p.t->f.metadata, 64);
	peer_attach(&r.p, NULL, &r.c);
	ASSERT_OK(nvme_qpair_create(r.c, 0, &r.q));
	r.buf = nvme_alloc(BUF, 0);
	r.back = nvme_alloc(BUF, 0);
	fill(r.buf, MiB, 3);
	for (unsigned pass = 0; pass < 2; pass++) {
		ASSERT_OK(do_cmd(r.q, NVME_WRITE, 5, MiB / 512, r.buf, MiB));
		ASSERT_OK(do_cmd(r.q, NVME_READ, 5, MiB / 512, r.back, MiB));
		ASSERT_EQ_MEM(r.buf, r.back, MiB);
	}
	EXPECT_EQ_INT(4096 / 64, atomic_load(&r.p.t->n.largest));
	ASSERT_OK(do_cmd(r.q, NVME_WRITE, 5, 1, r.back, 512));
	EXPECT_ERR(-EOPNOTSUPP, do_cmd(r.q, NVME_COMPARE, 5, 1, r.back, 512));
	EXPECT_OK(do_cmd(r.q, NVME_WRITE_ZEROES, 5, 100, NULL, 0));
	rig_stop(&r);
}

/* The emulator refuses what is longer than it says. */
static void keep_limits(bool told, unsigned wzsl, unsigned vsl, unsigned dmrsl, unsigned commands)
{
	struct nvmet_opts t = { .size = 8 * MiB, .mdts = 5 };
	struct rig r;

	peer_start(&r.p, &t);
	atomic_store(&r.p.t->f.limits, told);
	atomic_store(&r.p.t->f.wzsl, wzsl);
	atomic_store(&r.p.t->f.vsl, vsl);
	atomic_store(&r.p.t->f.dmrsl, dmrsl);
	peer_attach(&r.p, NULL, &r.c);
	ASSERT_OK(nvme_qpair_create(r.c, 0, &r.q));
	EXPECT_OK(do_cmd(r.q, NVME_WRITE_ZEROES, 0, 2048, NULL, 0));
	EXPECT_OK(do_cmd(r.q, NVME_VERIFY, 0, 2048, NULL, 0));
	EXPECT_OK(do_cmd(r.q, NVME_DEALLOCATE, 0, 2048, NULL, 0));
	EXPECT_EQ_INT(commands, atomic_load(&r.p.t->n.commands));
	nvme_qpair_free(r.q);
	nvme_detach(r.c);
	peer_stop(&r.p);
}

TEST(nvme_io, what_transfers_nothing_keeps_to_limits_of_its_own)
{
	keep_limits(false, 0, 0, 0, 8 + 8 + 1); /* as transfers: 128 KiB */
	keep_limits(true, 0, 0, 0, 3);
	keep_limits(true, 2, 3, 100, 64 + 32 + 21);
}

TEST(nvme_io, zeroes_deallocation_flush_fua_verify_compare)
{
	struct todo d;
	struct rig r;

	rig_start(&r, NULL, NULL, 0);
	memset(r.buf, 0x5a, BUF);
	ASSERT_OK(do_cmd(r.q, NVME_WRITE, 0, 4096, r.buf, 2 * MiB));
	ASSERT_OK(do_cmd(r.q, NVME_WRITE_ZEROES, 8, 16, NULL, 0));
	ASSERT_OK(do_cmd(r.q, NVME_DEALLOCATE, 1024, 2048, NULL, 0));
	EXPECT_EQ_INT(1, atomic_load(&r.p.t->n.deallocates));
	ASSERT_OK(do_cmd(r.q, NVME_READ, 0, 4096, r.back, 2 * MiB));
	memset(r.buf + 8 * 512, 0, 16 * 512);
	memset(r.buf + 1024 * 512, 0, 2048 * 512);
	EXPECT_EQ_MEM(r.buf, r.back, 2 * MiB);
	ASSERT_OK(do_cmd(r.q, NVME_WRITE_ZEROES, 0, 64 * MiB / 512, NULL, 0));
	ASSERT_OK(do_cmd(r.q, NVME_FLUSH, 0, 0, NULL, 0));
	EXPECT_EQ_INT(1, atomic_load(&r.p.t->n.flushes));
	ASSERT_OK(do_cmd(r.q, NVME_VERIFY, 0, 5000, NULL, 0));
	todo_init(&d, NVME_WRITE, 3, 8, r.buf, 4096);
	d.cmd.flags = NVME_FUA;
	nvme_submit(r.q, &d.cmd);
	ASSERT_OK(todo_wait(r.q, &d));
	EXPECT_EQ_INT(1, atomic_load(&r.p.t->n.fua));
	r.buf[77] ^= 1;
	todo_init(&d, NVME_COMPARE, 3, 8, r.buf, 4096);
	nvme_submit(r.q, &d.cmd);
	EXPECT_ERR(-EILSEQ, todo_wait(r.q, &d));
	EXPECT_EQ_INT(NVME_SC_COMPARE, d.cmd.status);
	rig_stop(&r);
}

/* More commands than fit, through queues of few entries, for many rounds of them. */
static void many(const struct nvmet_opts *t, const struct nvme_opts *o, uint32_t depth)
{
	enum { N = 200, ROUNDS = 30 };
	static struct todo d[N];
	struct rig r;

	rig_start(&r, t, o, depth);
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned i = 0; i < N; i++) {
			bool write = round % 2 == 0;
			char *buf = (write ? r.buf : r.back) + i * 8192;

			if (write)
				fill(buf, 8192, round * N + i);
			todo_init(&d[i], write ? NVME_WRITE : NVME_READ, i * 16, 16, buf, 8192);
			nvme_submit(r.q, &d[i].cmd);
		}
		EXPECT_EQ_INT(N, nvme_outstanding(r.q));
		for (unsigned i = 0; i < N; i++)
			ASSERT_OK(todo_wait(r.q, &d[i]));
		EXPECT_EQ_INT(0, nvme_outstanding(r.q));
		if (round % 2)
			ASSERT_EQ_MEM(r.buf, r.back, N * 8192);
	}
	for (unsigned i = 0; i < N; i++)
		EXPECT_EQ_INT(1, d[i].calls);
	rig_stop(&r);
}

TEST(nvme_io, many_outstanding_in_large_queues)
{
	many(NULL, NULL, 1023);
}

TEST(nvme_io, many_outstanding_in_a_queue_of_two_entries)
{
	struct nvmet_opts t = { .size = 64 * MiB, .mqes = 1, .mdts = 1 };

	many(&t, NULL, 128);
}

TEST(nvme_io, many_outstanding_with_doorbells_by_message)
{
	struct nvmet_opts t = { .size = 64 * MiB, .messages = true };

	many(&t, NULL, 7);
}

TEST(nvme_io, mistakes_of_the_caller_come_back_from_poll)
{
	static char elsewhere[4096] __attribute__((aligned(4096)));
	struct todo d;
	struct rig r;

	rig_start(&r, NULL, NULL, 0);
	EXPECT_ERR(-EINVAL, do_cmd(r.q, NVME_READ, 64 * MiB / 512, 1, r.buf, 512));
	EXPECT_ERR(-EINVAL, do_cmd(r.q, NVME_READ, UINT64_MAX, 2, r.buf, 1024));
	EXPECT_ERR(-EINVAL, do_cmd(r.q, NVME_READ, 0, 0, r.buf, 0));
	EXPECT_ERR(-EINVAL, do_cmd(r.q, NVME_READ, 0, 2, r.buf, 512));
	EXPECT_ERR(-EINVAL, do_cmd(r.q, NVME_READ, 0, 1, r.buf, 1024));
	EXPECT_ERR(-EINVAL, do_cmd(r.q, NVME_READ, 0, 1, r.buf + 2, 512));
	EXPECT_ERR(-EFAULT, do_cmd(r.q, NVME_READ, 0, 8, elsewhere, 4096));
	EXPECT_ERR(-EINVAL, do_cmd(r.q, (enum nvme_op)99, 0, 1, r.buf, 512));
	todo_init(&d, NVME_READ, 0, 1, r.buf, 512);
	d.cmd.nsid = 7;
	nvme_submit(r.q, &d.cmd);
	EXPECT_ERR(-EINVAL, todo_wait(r.q, &d));
	EXPECT_OK(do_cmd(r.q, NVME_READ, 64 * MiB / 512 - 1, 1, r.buf, 512));
	rig_stop(&r);
}

TEST(nvme_io, freeing_a_queue_pair_ends_what_is_outstanding)
{
	struct nvme_qpair *q;
	struct todo d[20];
	struct rig r;

	rig_start(&r, NULL, NULL, 0);
	ASSERT_OK(nvme_qpair_create(r.c, 8, &q));
	atomic_store(&r.p.t->f.hold, true);
	for (unsigned i = 0; i < 20; i++) {
		todo_init(&d[i], NVME_READ, i, 1, r.buf + i * 512, 512);
		nvme_submit(q, &d[i].cmd);
	}
	nvme_poll(q, 0);
	nvme_qpair_free(q);
	for (unsigned i = 0; i < 20; i++) {
		EXPECT_EQ_INT(1, d[i].calls);
		EXPECT_ERR(-ECANCELED, d[i].rc);
	}
	atomic_store(&r.p.t->f.hold, false);
	EXPECT_OK(do_cmd(r.q, NVME_READ, 0, 1, r.buf, 512));
	rig_stop(&r);
}

TEST(nvme_io, there_are_no_more_queue_pairs_than_the_controller_has)
{
	struct nvmet_opts t = { .size = 1 * MiB, .queues = 3 };
	struct nvme_qpair *q[3];
	struct rig r;

	rig_start(&r, &t, NULL, 0);
	EXPECT_EQ_INT(3, nvme_info(r.c)->max_qpairs);
	ASSERT_OK(nvme_qpair_create(r.c, 0, &q[0]));
	ASSERT_OK(nvme_qpair_create(r.c, 0, &q[1]));
	EXPECT_ERR(-ENOSPC, nvme_qpair_create(r.c, 0, &q[2]));
	nvme_qpair_free(q[0]);
	ASSERT_OK(nvme_qpair_create(r.c, 0, &q[2]));
	EXPECT_OK(do_cmd(q[2], NVME_READ, 0, 1, r.buf, 512));
	EXPECT_OK(do_cmd(q[1], NVME_READ, 0, 1, r.buf, 512));
	nvme_qpair_free(q[1]);
	nvme_qpair_free(q[2]);
	rig_stop(&r);
}

TEST(nvme_io, an_interrupt_wakes_a_sleeper)
{
	struct nvme_opts o = { .size = sizeof(o), .interrupts = true };
	struct pollfd fd = { .events = POLLIN };
	struct todo d;
	struct rig r;

	rig_start(&r, NULL, &o, 0);
	fd.fd = nvme_qpair_fd(r.q);
	ASSERT_GE_INT(fd.fd, 0);
	for (int i = 0; i < 50; i++) {
		todo_init(&d, NVME_READ, 1, 1, r.buf, 512);
		nvme_submit(r.q, &d.cmd);
		nvme_kick(r.q);
		if (!nvme_qpair_arm(r.q))
			ASSERT_EQ_INT(1, poll(&fd, 1, 10000));
		ASSERT_EQ_INT(1, nvme_poll(r.q, 0));
		ASSERT_EQ_INT(1, d.calls);
	}
	EXPECT_FALSE(nvme_qpair_arm(r.q));
	EXPECT_EQ_INT(0, poll(&fd, 1, 20));
	rig_stop(&r);
}
