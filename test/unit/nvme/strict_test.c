/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The emulated controller itself: a driver that does not keep to the specification is caught, for each thing it can do wrong. A controller that
 * takes everything would show nothing of our own driver.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "nvme/vfio_user_dev.h"
#include "test/shim/test.h"
#include "test/unit/nvme/peer.h"

enum { DEPTH = 4, BLOCK = 512, MOST = 128 * 1024 /* bytes of a command */ };

struct rig {
	struct peer p;
	struct nvme_ctrlr *c;
	struct nvme_qpair *q;
	char *buf;
	uint16_t cid;
};

static void rig_start(struct rig *r)
{
	struct nvmet_opts t = { .size = 16 * MiB, .mqes = 15, .queues = 4, .vectors = 3,
				.noiob = 64, .events = true };
	struct nvme_opts o = { .size = sizeof(o) };

	base_log_set_sink(quiet, NULL);
	memset(r, 0, sizeof(*r));
	peer_start(&r->p, &t);
	peer_attach(&r->p, &o, &r->c);
	ASSERT_OK(nvme_qpair_create(r->c, DEPTH, &r->q));
	r->buf = nvme_alloc(2 * MOST, 0);
	ASSERT_TRUE(r->buf);
	memset(r->buf, 0, 2 * MOST);
	r->cid = 0x8000;
}

static unsigned errors(struct rig *r)
{
	return atomic_load(&r->p.t->n.host_errors);
}

static void rig_stop(struct rig *r)
{
	nvme_free(r->buf);
	nvme_qpair_free(r->q);
	nvme_detach(r->c);
	/* They were made on purpose. */
	atomic_store(&r->p.t->n.host_errors, 0);
	peer_stop(&r->p);
	base_log_set_sink(NULL, NULL);
}

/* ---- doing wrong ---- */

/* Past the driver's checks, in its own queue; the driver drops the completion as one of no command. Returns the status. */
static uint16_t send(struct rig *r, struct nvme_sqe sqe)
{
	struct nvme_qpair *q = r->q;
	uint64_t end = nvme_now_ns() + 10000000000ull;
	uint16_t status;

	if (!sqe.cid)
		sqe.cid = r->cid++;
	q->sq[q->tail] = sqe;
	q->tail = (uint16_t)((q->tail + 1) % q->entries);
	nvme_kick(q);
	do {
		status = __atomic_load_n(&q->cq[q->head].status, __ATOMIC_ACQUIRE);
		if (nvme_now_ns() > end)
			FAIL("no completion");
	} while ((status & NVME_CQE_PHASE) != q->phase);
	q->sent++; /* a stray is not taken off */
	nvme_poll(q, 0);
	q->sent--;
	return NVME_CQE_CODE(status);
}

static struct nvme_sqe read_of(struct rig *r, uint32_t blocks)
{
	return (struct nvme_sqe){ .opcode = NVME_NVM_READ,
				  .nsid = 1,
				  .prp1 = nvme_iova(r->buf),
				  .cdw12 = blocks - 1 };
}

/* What is wrong of a command that is right otherwise. */
static struct nvme_sqe turn(struct nvme_sqe sqe, const struct nvme_sqe *bits)
{
	uint8_t *to = (void *)&sqe;

	for (size_t i = 0; i < sizeof(sqe); i++)
		to[i] ^= ((const uint8_t *)bits)[i];
	return sqe;
}

static uint16_t admin(struct rig *r, struct nvme_sqe sqe)
{
	struct admin_answer a;
	unsigned epoch;

	admin_run(r->c, &sqe, 5000, &epoch, &a);
	return a.status;
}

static uint16_t second_page_misaligned(struct rig *r)
{
	struct nvme_sqe s = read_of(r, 16);

	s.prp2 = s.prp1 + 4096 + 512;
	return send(r, s);
}

static uint16_t second_page_unused(struct rig *r)
{
	struct nvme_sqe s = read_of(r, 1);

	s.prp2 = s.prp1 + 4096;
	return send(r, s);
}

static uint16_t list_misaligned(struct rig *r)
{
	struct nvme_sqe s = read_of(r, 24);
	uint64_t *list = (void *)(r->buf + MOST);

	list[0] = s.prp1 + 4096;
	list[1] = s.prp1 + 8192 + 4;
	s.prp2 = nvme_iova(list);
	return send(r, s);
}

static uint16_t list_at_an_odd_place(struct rig *r)
{
	struct nvme_sqe s = read_of(r, 24);

	s.prp2 = nvme_iova(r->buf + MOST) + 4;
	return send(r, s);
}

static uint16_t foreign_memory(struct rig *r)
{
	struct nvme_sqe s = read_of(r, 1);

	s.prp1 = 4096;
	return send(r, s);
}

static uint16_t metadata_apart(struct rig *r)
{
	struct nvme_sqe s = read_of(r, 1);

	s.mptr = nvme_iova(r->buf);
	return send(r, s);
}

static uint16_t a_flush_with_a_place(struct rig *r)
{
	return send(r, (struct nvme_sqe){ .opcode = NVME_NVM_FLUSH, .nsid = 1, .cdw10 = 8 });
}

static uint16_t a_deallocation_of_another_kind(struct rig *r)
{
	struct nvme_sqe s = read_of(r, 1);

	memset(r->buf, 0, sizeof(struct nvme_dsm_range));
	s.opcode = NVME_NVM_DSM;
	s.cdw11 = 1u << 3;
	return send(r, s);
}

static uint16_t an_abort_of_a_namespace(struct rig *r)
{
	return admin(r, (struct nvme_sqe){ .opcode = NVME_ADMIN_ABORT, .nsid = 1 });
}

static void ring(struct rig *r, bool cq, uint32_t value)
{
	*ctrlr_doorbell(r->c, r->q->id, cq) = value;
	usleep(20000);
}

static uint16_t tail_out_of_range(struct rig *r)
{
	ring(r, false, DEPTH + 1);
	ring(r, false, r->q->tail);
	return 0;
}

static uint16_t head_out_of_range(struct rig *r)
{
	ring(r, true, DEPTH + 1);
	/* It looks when there is something to complete, and then does nothing. */
	r->q->sq[r->q->tail] = read_of(r, 1);
	ring(r, false, (r->q->tail + 1u) % r->q->entries);
	ring(r, true, r->q->head);
	usleep(20000);
	r->q->rung = r->q->tail = (uint16_t)((r->q->tail + 1) % r->q->entries);
	nvme_poll(r->q, 0);
	return 0;
}

static uint16_t completions_freed_that_never_came(struct rig *r)
{
	ring(r, true, (r->q->head + 2u) % r->q->entries);
	r->q->sq[r->q->tail] = read_of(r, 1);
	ring(r, false, (r->q->tail + 1u) % r->q->entries);
	return 0;
}

/* ---- queues ---- */

static struct nvme_sqe make_cq(struct rig *r, uint32_t id, uint32_t entries)
{
	return (struct nvme_sqe){ .opcode = NVME_ADMIN_CREATE_CQ,
				  .prp1 = nvme_iova(r->buf),
				  .cdw10 = (entries - 1) << 16 | id,
				  .cdw11 = NVME_QUEUE_PC };
}

static uint16_t the_wrong_end_deleted_first(struct rig *r)
{
	return admin(r, (struct nvme_sqe){ .opcode = NVME_ADMIN_DELETE_CQ, .cdw10 = 1 });
}

static uint16_t all_queues_there_can_be(struct rig *r)
{
	return admin(r, (struct nvme_sqe){ .opcode = NVME_ADMIN_SET_FEATURES,
					   .cdw10 = NVME_FEAT_QUEUES,
					   .cdw11 = 0xffffffff });
}

static uint16_t queues_before_their_number(struct rig *r)
{
	if (start_run(r->c, START_ENABLE, NULL))
		return 0;
	return admin(r, make_cq(r, 2, 8));
}

static uint16_t reserved_words_of_an_admin_command(struct rig *r)
{
	return admin(r, (struct nvme_sqe){ .opcode = NVME_ADMIN_GET_FEATURES,
					   .cdw2 = 1,
					   .cdw10 = NVME_FEAT_WRITE_CACHE });
}

static uint16_t too_many_requests_for_events(struct rig *r)
{
	nvme_poll_events(r->c); /* four are with it */
	usleep(20000);
	return admin(r, (struct nvme_sqe){ .opcode = NVME_ADMIN_ASYNC_EVENT });
}

/* ---- registers ---- */

static uint16_t fixed_while_enabled(struct rig *r)
{
	r->c->transport->write(r->c, NVME_REG_AQA, 4, 63 << 16 | 63);
	usleep(20000);
	return 0;
}

static uint16_t enable_with(struct rig *r, uint64_t asq, uint32_t cc)
{
	const struct nvme_transport *t = r->c->transport;

	if (start_run(r->c, START_STOP, NULL))
		return 0;
	t->write(r->c, NVME_REG_AQA, 4, 63 << 16 | 63);
	t->write(r->c, NVME_REG_ASQ, 8, asq);
	t->write(r->c, NVME_REG_ACQ, 8, nvme_iova(r->buf));
	t->write(r->c, NVME_REG_CC, 4, cc);
	usleep(20000);
	return 0;
}

static uint16_t admin_queue_misaligned(struct rig *r)
{
	return enable_with(r, nvme_iova(r->buf) + 512,
			   NVME_CC_EN | NVME_CC_IOSQES(6) | NVME_CC_IOCQES(4));
}

static uint16_t larger_pages(struct rig *r)
{
	return enable_with(r, nvme_iova(r->buf),
			   NVME_CC_EN | NVME_CC_IOSQES(6) | NVME_CC_IOCQES(4) | 1u << 7);
}

static uint16_t no_entry_sizes(struct rig *r)
{
	return enable_with(r, nvme_iova(r->buf), NVME_CC_EN);
}

static uint16_t no_bus_mastering(struct rig *r)
{
	uint16_t command = 2;
	uint16_t status;

	if (vu_region_write(r->c->tp, VU_PCI_CONFIG, 4, &command, 2))
		return 0;
	status = send(r, read_of(r, 1));
	command = 6;
	vu_region_write(r->c->tp, VU_PCI_CONFIG, 4, &command, 2);
	return status;
}

static uint16_t an_odd_access(struct rig *r)
{
	uint32_t value;

	vu_region_read(r->c->tp, VU_PCI_CONFIG, 6, &value, 4);
	return 0;
}

/* ---- each of them ---- */

static const struct {
	const char *name;
	uint16_t (*do_wrong)(struct rig *r);
	int status; /* the command's, or -1: any; else a mistake of the driver must be counted */
} wrongs[] = {
	{ "second_page_misaligned", second_page_misaligned, -1 },
	{ "second_page_unused", second_page_unused, -1 },
	{ "list_misaligned", list_misaligned, NVME_SC_PRP_OFFSET },
	{ "list_at_an_odd_place", list_at_an_odd_place, NVME_SC_PRP_OFFSET },
	{ "foreign_memory", foreign_memory, -1 },
	{ "metadata_apart", metadata_apart, -1 },
	{ "a_flush_with_a_place", a_flush_with_a_place, -1 },
	{ "a_deallocation_of_another_kind", a_deallocation_of_another_kind, -1 },
	{ "an_abort_of_a_namespace", an_abort_of_a_namespace, -1 },
	{ "tail_out_of_range", tail_out_of_range, -1 },
	{ "head_out_of_range", head_out_of_range, -1 },
	{ "completions_freed_that_never_came", completions_freed_that_never_came, -1 },
	{ "the_wrong_end_deleted_first", the_wrong_end_deleted_first, -1 },
	{ "all_queues_there_can_be", all_queues_there_can_be, NVME_SC_INVALID_FIELD },
	{ "queues_before_their_number", queues_before_their_number, -1 },
	{ "reserved_words_of_an_admin_command", reserved_words_of_an_admin_command, -1 },
	{ "too_many_requests_for_events", too_many_requests_for_events, -1 },
	{ "fixed_while_enabled", fixed_while_enabled, -1 },
	{ "admin_queue_misaligned", admin_queue_misaligned, -1 },
	{ "larger_pages", larger_pages, -1 },
	{ "no_entry_sizes", no_entry_sizes, -1 },
	{ "no_bus_mastering", no_bus_mastering, -1 },
	{ "an_odd_access", an_odd_access, -1 },
};

/* Reads of so many blocks, in which these bits are turned over. */
static const struct {
	const char *name;
	uint32_t blocks;
	int status; /* as above */
	struct nvme_sqe bits;
} reads[] = {
	{ "data_misaligned", 1, -1, { .prp1 = 2 } },
	{ "fused", 1, -1, { .flags = 1 } },
	{ "sgl_that_was_not_offered", 1, -1, { .flags = NVME_SQE_SGL } },
	{ "reserved_words", 1, -1, { .cdw3 = 1 } },
	{ "reserved_bits", 1, -1, { .cdw12 = 1u << 17 } },
	{ "a_tag_of_nothing", 1, -1, { .cdw15 = 1 } },
	{ "a_read_of_a_stream", 1, -1, { .cdw13 = 1u << 16 } },
	{ "more_than_it_takes", MOST / BLOCK + 1, -1, { .cdw10 = 0 } },
	{ "across_the_boundary", 8, -1, { .cdw10 = 60 } },
	{ "beyond_the_end", 8, NVME_SC_LBA_RANGE, { .cdw10 = 16 * MiB / BLOCK - 4 } },
	{ "another_namespace", 1, NVME_SC_INVALID_NS, { .nsid = 1 ^ 2 } },
	{ "a_command_nobody_knows", 1, NVME_SC_INVALID_OPCODE, { .opcode = NVME_NVM_READ ^ 0x7f } },
	{ "the_reserved_id", 1, -1, { .cid = 0xffff } },
	{ "protection_of_none", 1, -1, { .cdw12 = NVME_RW_PRACT } },
};

/* Completion queues that are made, likewise. */
static const struct {
	const char *name;
	uint32_t id, entries;
	int status;
	struct nvme_sqe bits;
} queues[] = {
	{ "a_queue_of_id_0", 0, 8, NVME_SC_QID_INVALID, { .cdw11 = 0 } },
	{ "a_queue_twice", 1, 8, NVME_SC_QID_INVALID, { .cdw11 = 0 } },
	{ "more_queues_than_there_are", 5, 8, NVME_SC_QID_INVALID, { .cdw11 = 0 } },
	{ "a_queue_too_long", 2, 17, NVME_SC_QUEUE_SIZE, { .cdw11 = 0 } },
	{ "a_queue_of_one_entry", 2, 1, NVME_SC_QUEUE_SIZE, { .cdw11 = 0 } },
	{ "a_queue_in_pieces", 2, 8, NVME_SC_INVALID_FIELD, { .cdw11 = NVME_QUEUE_PC } },
	{ "a_queue_misaligned", 2, 8, NVME_SC_PRP_OFFSET, { .prp1 = 64 } },
	{ "reserved_bits_of_a_queue", 2, 8, -1, { .cdw11 = 1u << 5 } },
	{ "a_vector_it_lacks", 2, 8, NVME_SC_VECTOR_INVALID, { .cdw11 = NVME_CQ_IEN | 3u << 16 } },
	{ "a_submission_queue_without_completions", 2, 8, NVME_SC_CQ_INVALID,
	  { .opcode = NVME_ADMIN_CREATE_CQ ^ NVME_ADMIN_CREATE_SQ, .cdw11 = 3u << 16 } },
};

static void begin(struct rig *r)
{
	rig_start(r);
	EXPECT_OK(do_cmd(r->q, NVME_READ, 0, 1, r->buf, BLOCK));
	EXPECT_EQ_INT(0, errors(r));
}

/* What was done wrong had this status. */
static void end(struct rig *r, const char *name, int expected, uint16_t status)
{
	if (expected < 0 ? !errors(r) : status != expected)
		FAIL("%s: nothing is said of it: status %03x", name, status);
	/* After a reset it is as if nothing had been. */
	EXPECT_OK(nvme_reset(r->c));
	EXPECT_OK(do_cmd(r->q, NVME_READ, 0, 1, r->buf, BLOCK));
	rig_stop(r);
}

TEST(nvme_strict, whatever_a_driver_does_wrong_is_caught)
{
	struct rig r;

	for (unsigned i = 0; i < ARRAY_SIZE(wrongs); i++) {
		begin(&r);
		end(&r, wrongs[i].name, wrongs[i].status, wrongs[i].do_wrong(&r));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(reads); i++) {
		begin(&r);
		end(&r, reads[i].name, reads[i].status,
		    send(&r, turn(read_of(&r, reads[i].blocks), &reads[i].bits)));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(queues); i++) {
		begin(&r);
		end(&r, queues[i].name, queues[i].status,
		    admin(&r, turn(make_cq(&r, queues[i].id, queues[i].entries), &queues[i].bits)));
	}
}

/* ---- what the controller itself must do ---- */

TEST(nvme_strict, phases_alternate_from_pass_to_pass_and_heads_are_reported)
{
	struct rig r;

	rig_start(&r);
	for (unsigned n = 0; n < 4 * (DEPTH + 1); n++) {
		unsigned at = n % (DEPTH + 1), pass = n / (DEPTH + 1);

		EXPECT_OK(do_cmd(r.q, NVME_READ, n, 1, r.buf, BLOCK));
		EXPECT_EQ_INT(!(pass % 2), r.q->cq[at].status & NVME_CQE_PHASE);
		EXPECT_EQ_INT((n + 1) % (DEPTH + 1), r.q->cq[at].sq_head);
		EXPECT_EQ_INT(r.q->id, r.q->cq[at].sq_id);
	}
	EXPECT_EQ_INT(0, errors(&r));
	rig_stop(&r);
}
