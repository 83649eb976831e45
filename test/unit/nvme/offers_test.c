/* SPDX-License-Identifier: BSD-2-Clause */
/* What a controller may offer: events, doorbells in memory, SGLs, protection information. */
#include <errno.h>
#include <string.h>

#include "base/log.h"
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

static void rig_start(struct rig *r, const struct nvmet_opts *t, uint32_t depth)
{
	base_log_set_sink(quiet, NULL);
	peer_start(&r->p, t);
	peer_attach(&r->p, NULL, &r->c);
	ASSERT_OK(nvme_qpair_create(r->c, depth, &r->q));
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
	base_log_set_sink(NULL, NULL);
}

/* ---- events ---- */

/* Tells of an event, and waits until `counter` is n. */
static void tell(struct rig *r, uint32_t event, const uint64_t *counter, uint64_t n,
		 struct nvme_events *e)
{
	uint64_t end = nvme_now_ns() + 10000000000ull;

	atomic_store(&r->p.t->f.event, event);
	do {
		nvme_poll_events(r->c);
		nvme_get_events(r->c, e);
		r->c->events.next_log_ns = 0; /* without the pause between two logs */
		ASSERT_TRUE(nvme_now_ns() < end);
	} while (*counter != n || r->c->events.npending || r->c->events.step);
}

static void expect_blocks(struct rig *r, int rc, uint64_t blocks)
{
	struct nvme_ns_info ns = { 0 };

	ASSERT_ERR(rc, nvme_ns_get(r->c, 1, &ns));
	EXPECT_EQ_INT(blocks, ns.blocks);
}

TEST(nvme_offers, a_namespace_that_changes_is_identified_anew)
{
	struct nvmet_opts t = { .size = 8 * MiB, .events = true };
	struct nvme_events e;
	struct rig r;

	rig_start(&r, &t, 8);
	expect_blocks(&r, 0, 16384);
	atomic_store(&r.p.t->f.blocks, 8192);
	tell(&r, NVME_LOG_CHANGED_NS << 16 | 2, &e.notices, 1, &e);
	expect_blocks(&r, 0, 8192);
	EXPECT_OK(do_cmd(r.q, NVME_READ, 8191, 1, r.back, 512));
	EXPECT_ERR(-EINVAL, do_cmd(r.q, NVME_READ, 8192, 1, r.back, 512));
	atomic_store(&r.p.t->f.blocks, 0);
	/* More than its log can name. */
	tell(&r, 1u << 24 | NVME_LOG_CHANGED_NS << 16 | 2, &e.notices, 2, &e);
	expect_blocks(&r, 0, 16384);
	EXPECT_OK(do_cmd(r.q, NVME_READ, 8192, 1, r.back, 512));
	atomic_store(&r.p.t->f.no_blocks, true);
	tell(&r, NVME_LOG_CHANGED_NS << 16 | 2, &e.notices, 3, &e);
	expect_blocks(&r, -EPROTO, 0);
	EXPECT_ERR(-EINVAL, do_cmd(r.q, NVME_READ, 0, 1, r.back, 512));
	atomic_store(&r.p.t->f.no_blocks, false);
	/* Polls of a queue pair see to it, too, and it is told again after a reset. */
	ASSERT_OK(nvme_reset(r.c));
	atomic_store(&r.p.t->f.event, NVME_LOG_CHANGED_NS << 16 | 2);
	for (uint64_t end = nvme_now_ns() + 10000000000ull; r.c->ns[0].unusable;) {
		nvme_poll(r.q, 0);
		ASSERT_TRUE(nvme_now_ns() < end);
	}
	EXPECT_OK(do_cmd(r.q, NVME_READ, 0, 1, r.back, 512));
	rig_stop(&r);
}

TEST(nvme_offers, health_and_errors_are_noted)
{
	struct nvmet_opts t = { .size = 8 * MiB, .events = true };
	struct nvme_events e;
	struct rig r;

	rig_start(&r, &t, 8);
	for (unsigned i = 1; i <= 20; i++)
		tell(&r, NVME_LOG_SMART << 16 | 1, &e.health, i, &e);
	tell(&r, NVME_LOG_ERROR << 16 | 0x300, &e.errors, 1, &e);
	tell(&r, 7, &e.others, 1, &e);
	EXPECT_EQ_INT(22, atomic_load(&r.p.t->n.events));
	rig_stop(&r);
}

/* Commands that others have under way: from ADMIN_FREE to ADMIN_LEFT, and back. */
static void take_slots(struct rig *r, enum admin_state from, enum admin_state to)
{
	pthread_mutex_lock(&r->c->lock);
	for (unsigned i = 0; i < ADMIN_SLOTS; i++)
		if (r->c->admin.slot[i].state == from)
			r->c->admin.slot[i].state = (uint8_t)to;
	pthread_mutex_unlock(&r->c->lock);
}

static void expect_warning(struct rig *r, uint8_t warning)
{
	uint64_t end = nvme_now_ns() + 10000000000ull;
	struct nvme_events e;

	do {
		nvme_poll_events(r->c);
		nvme_get_events(r->c, &e);
	} while (r->c->events.step && nvme_now_ns() < end);
	EXPECT_EQ_INT(warning, e.critical_warning);
}

static void wait_for_log(struct rig *r)
{
	uint64_t end = nvme_now_ns() + 10000000000ull;

	while (!r->c->events.step && nvme_now_ns() < end)
		nvme_poll_events(r->c);
}

TEST(nvme_offers, what_it_tells_is_looked_at_though_the_admin_queue_is_full_or_a_reset_comes_between)
{
	struct nvmet_opts t = { .size = 8 * MiB, .events = true };
	struct rig r;

	rig_start(&r, &t, 8);
	nvme_poll_events(r.c);
	take_slots(&r, ADMIN_FREE, ADMIN_LEFT);
	atomic_store(&r.p.t->f.ailing, true);
	wait_for_log(&r);
	EXPECT_EQ_INT(-1, r.c->events.handle);
	take_slots(&r, ADMIN_LEFT, ADMIN_FREE);
	expect_warning(&r, 4);
	atomic_store(&r.p.t->f.ailing, false);
	r.c->events.next_log_ns = 0;
	atomic_store(&r.p.t->f.event, NVME_LOG_SMART << 16 | 1);
	wait_for_log(&r);
	EXPECT_GE_INT(r.c->events.handle, 0);
	ASSERT_OK(nvme_reset(r.c));
	expect_warning(&r, 0);
	rig_stop(&r);
}

static unsigned warnings;

static void count_warnings(enum base_log_level level, const char *component, const char *line, void *arg)
{
	(void)component;
	(void)line;
	(void)arg;
	warnings += level == LOG_WARN;
}

static void poll_until(struct rig *r, uint64_t health, uint64_t notices, struct nvme_events *e)
{
	uint64_t end = nvme_now_ns() + 10000000000ull;

	do {
		nvme_poll_events(r->c);
		nvme_get_events(r->c, e);
		ASSERT_TRUE(nvme_now_ns() < end);
	} while (e->health < health || e->notices < notices);
}

TEST(nvme_offers, what_ails_it_for_long_is_asked_for_once_a_second_and_said_once)
{
	struct nvmet_opts t = { .size = 8 * MiB, .events = true };
	struct nvme_events e;
	struct rig r;

	rig_start(&r, &t, 8);
	warnings = 0;
	base_log_set_sink(count_warnings, NULL);
	atomic_store(&r.p.t->f.ailing, true);
	poll_until(&r, 2, 0, &e);
	for (uint64_t end = nvme_now_ns() + 300000000; nvme_now_ns() < end;)
		nvme_poll_events(r.c);
	nvme_get_events(r.c, &e);
	EXPECT_EQ_INT(4, e.critical_warning);
	EXPECT_EQ_INT(2, e.health);
	EXPECT_EQ_INT(2, warnings);
	/* What is more urgent does not wait for it. */
	r.c->events.next_log_ns = UINT64_MAX;
	atomic_store(&r.p.t->f.blocks, 8192);
	atomic_store(&r.p.t->f.event, NVME_LOG_CHANGED_NS << 16 | 2);
	poll_until(&r, 2, 1, &e);
	while (r.c->events.npending > 1 || r.c->events.step)
		nvme_poll_events(r.c);
	expect_blocks(&r, 0, 8192);
	rig_stop(&r);
}

/* ---- doorbells in memory ---- */

static void many_rounds(struct rig *r, unsigned rounds)
{
	enum { N = 50 };
	static struct todo d[N];

	ASSERT_OK(do_cmd(r->q, NVME_WRITE, 0, N * 8, r->buf, N * 4096));
	for (unsigned round = 0; round < rounds; round++) {
		unsigned n = 1 + round * 7 % N;

		for (unsigned i = 0; i < n; i++) {
			bool write = round % 2 == 0;

			todo_init(&d[i], write ? NVME_WRITE : NVME_COMPARE, i * 8, 8,
				  r->buf + i * 4096, 4096);
			nvme_submit(r->q, &d[i].cmd);
			/* Sometimes one ring for each, sometimes one for all. */
			if (round % 3 == 0)
				nvme_kick(r->q);
		}
		for (unsigned i = 0; i < n; i++)
			ASSERT_OK(todo_wait(r->q, &d[i]));
	}
}

TEST(nvme_offers, with_doorbells_in_memory_the_controller_is_rung_only_when_it_sleeps)
{
	static const unsigned depths[] = { 1, 2, 7, 64 };
	struct nvmet_opts t = { .size = 8 * MiB, .shadow = true };
	struct rig r;

	for (unsigned i = 0; i < ARRAY_SIZE(depths); i++) {
		t.messages = i % 2;
		rig_start(&r, &t, depths[i]);
		EXPECT_TRUE(nvme_info(r.c)->shadow_doorbells);
		EXPECT_TRUE(r.c->shadow && !r.q->sq_db);
		many_rounds(&r, 101);
		EXPECT_GE_INT(atomic_load(&r.p.t->n.rings), 1);
		EXPECT_LT_INT(atomic_load(&r.p.t->n.rings), atomic_load(&r.p.t->n.commands) + 1);
		ASSERT_OK(nvme_reset(r.c));
		many_rounds(&r, 30);
		rig_stop(&r);
	}
}

/* ---- SGLs ---- */

TEST(nvme_offers, what_pages_do_not_name_goes_by_sgl_in_one_command)
{
	struct nvmet_opts t = { .size = 8 * MiB, .sgl = true };
	struct iovec v[100];
	unsigned sum = 0;
	struct todo d;
	struct rig r;

	rig_start(&r, &t, 8);
	for (unsigned i = 0; i < ARRAY_SIZE(v); i++) {
		/* Neither pages nor blocks. */
		unsigned len = i + 1 < ARRAY_SIZE(v) ? 4 * (1 + i * 13 % 200) : 512 - sum % 512;

		v[i] = (struct iovec){ r.buf + i * 5000 + i % 7 * 4, len };
		sum += len;
	}
	ASSERT_EQ_INT(0, sum % 512);
	for (unsigned pass = 0; pass < 2; pass++) {
		todo_init(&d, pass ? NVME_COMPARE : NVME_WRITE, 3, sum / 512, r.buf, 0);
		d.cmd.iov = v;
		d.cmd.iovcnt = ARRAY_SIZE(v);
		nvme_submit(r.q, &d.cmd);
		ASSERT_OK(todo_wait(r.q, &d));
	}
	EXPECT_EQ_INT(2, atomic_load(&r.p.t->n.commands));
	EXPECT_EQ_INT(2, atomic_load(&r.p.t->n.sgls));
	ASSERT_OK(do_cmd(r.q, NVME_READ, 3, sum / 512, r.back, sum));
	sum = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(v); i++) {
		ASSERT_EQ_MEM(v[i].iov_base, r.back + sum, v[i].iov_len);
		sum += (unsigned)v[i].iov_len;
	}
	/* What pages name does not need it. */
	EXPECT_EQ_INT(2, atomic_load(&r.p.t->n.sgls));
	rig_stop(&r);
}

TEST(nvme_offers, an_sgl_ends_with_a_block_and_the_rest_follows)
{
	struct nvmet_opts t = { .size = 8 * MiB, .sgl = true, .mdts = 9 };
	struct iovec v[700];
	struct todo d;
	struct rig r;

	rig_start(&r, &t, 8);
	/* More than a list holds, each a third of a block and a bit. */
	for (unsigned i = 0; i < ARRAY_SIZE(v); i++)
		v[i] = (struct iovec){ r.buf + i * 1024, i % 3 == 2 ? 168 : 172 };
	v[699].iov_len = 512 - (233 * 512) % 512;
	todo_init(&d, NVME_WRITE, 0, 234, r.buf, 0);
	d.cmd.iov = v;
	d.cmd.iovcnt = ARRAY_SIZE(v);
	nvme_submit(r.q, &d.cmd);
	ASSERT_OK(todo_wait(r.q, &d));
	EXPECT_EQ_INT(3, atomic_load(&r.p.t->n.sgls));
	todo_init(&d, NVME_COMPARE, 0, 234, r.buf, 0);
	d.cmd.iov = v;
	d.cmd.iovcnt = ARRAY_SIZE(v);
	nvme_submit(r.q, &d.cmd);
	ASSERT_OK(todo_wait(r.q, &d));
	rig_stop(&r);
}

/* ---- protection information ---- */

TEST(nvme_offers, protection_information_is_left_to_the_controller)
{
	struct nvmet_opts t = { .size = 8 * MiB };
	struct nvme_ns_info ns;
	struct rig r;

	for (uint8_t type = 1; type <= 3; type++) {
		t.protection = type;
		rig_start(&r, &t, 8);
		ASSERT_OK(nvme_ns_get(r.c, 1, &ns));
		EXPECT_EQ_INT(type, ns.protection);
		EXPECT_EQ_INT(512, ns.block_size);
		/* The short way and the long one; the controller looks at what is asked of it. */
		ASSERT_OK(do_cmd(r.q, NVME_WRITE, 9, 8, r.buf, 4096));
		ASSERT_OK(do_cmd(r.q, NVME_WRITE, 17, 1000, r.buf + 4096, 512000));
		ASSERT_OK(do_cmd(r.q, NVME_READ, 9, 1008, r.back, 4096 + 512000));
		EXPECT_EQ_MEM(r.buf, r.back, 4096 + 512000);
		ASSERT_OK(do_cmd(r.q, NVME_WRITE_ZEROES, 9, 8, NULL, 0));
		ASSERT_OK(do_cmd(r.q, NVME_VERIFY, 9, 8, NULL, 0));
		EXPECT_ERR(-EOPNOTSUPP, do_cmd(r.q, NVME_COMPARE, 9, 8, r.buf, 4096));
		rig_stop(&r);
	}
}
