/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Power cuts: a store is worked on over a device that records what it was told; then the medium is rebuilt as it may be
 * after a cut at some event, and recovered. What comes back must be exactly the state after some transaction, not
 * earlier than the last one acknowledged by then.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "blob/device.h"
#include "test/shim/test.h"
#include "test/unit/blob/rig.h"

#define SIZE (40 * MiB)
#define STATES 400u

struct history {
	struct { uint64_t lsn; uint32_t digest; } state[STATES]; /* after each transaction */
	struct { uint64_t lsn, event; } ack[STATES];             /* durable since this event */
	unsigned n, n_ack;
	uint64_t first;                                          /* event when the store was open */
};

static uint32_t state;

static uint32_t rnd(uint32_t n)
{
	state = state * 1664525u + 1013904223u;
	return (uint32_t)(((uint64_t)state * n) >> 32);
}

static void note_state(struct rig *r, struct history *h)
{
	ASSERT_LT_INT(h->n, STATES);
	h->state[h->n].lsn = bs_lsn(r->bs);
	h->state[h->n++].digest = rig_digest(r);
}

static void note_ack(struct rig *r, struct history *h)
{
	ASSERT_LT_INT(h->n_ack, STATES);
	h->ack[h->n_ack].lsn = bs_durable_lsn(r->bs);
	h->ack[h->n_ack++].event = bdev_powercut_mark(r->fault);
}

static void start(struct rig *r, const struct bs_open_opts *opts, struct bdev *base)
{
	ASSERT_OK(bdev_powercut_create(base, &r->fault));
	ASSERT_OK(bs_open(r->fault, opts, &r->bs, &r->err));
}

/* Creates, deletes, writes, commits, checkpoints. */
static void work(struct rig *r, struct history *h, unsigned steps)
{
	uint64_t live[STATES], n = 0;

	h->first = bdev_powercut_mark(r->fault);
	note_state(r, h);
	note_ack(r, h);
	for (unsigned i = 0; i < steps; i++) {
		uint32_t what = rnd(100);

		if (what < 45 || !n) {
			live[n++] = rig_create(r, (uint8_t)i, rnd(4) ? rnd(3000) : rnd(BS_VALUE_MAX));
		} else if (what < 60) {
			uint32_t k = rnd((uint32_t)n);

			rig_delete(r, live[k]);
			live[k] = live[--n];
		} else if (what < 70) {
			rig_fill(r, live[rnd((uint32_t)n)], rnd(20), 1 + rnd(8));
		} else if (what < 95) {
			ASSERT_OK(bs_commit(r->bs, 0));
			note_ack(r, h);
		} else {
			ASSERT_OK(bs_checkpoint(r->bs));
			note_ack(r, h);
		}
		note_state(r, h);
	}
}

static uint64_t acknowledged(const struct history *h, uint64_t event)
{
	uint64_t lsn = 0;

	for (unsigned i = 0; i < h->n_ack; i++)
		if (h->ack[i].event <= event)
			lsn = MAX(lsn, h->ack[i].lsn);
	return lsn;
}

/* The state after the last transaction that ended at or before lsn. */
static uint32_t digest_at(const struct history *h, uint64_t lsn)
{
	uint32_t digest = 0;

	for (unsigned i = 0; i < h->n; i++)
		if (h->state[i].lsn <= lsn)
			digest = h->state[i].digest;
	return digest;
}

/* What a medium holds: the store must be sound, at a state of the history, not before what was acknowledged. */
static const char *flaw(struct bdev *medium, const struct history *h, uint64_t acked)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_NO_SERVICE };
	struct rig r = { .base = NULL };
	const char *why = NULL;
	uint64_t lsn;

	if (bs_check(medium, NULL, NULL, NULL, &r.err) || bs_open(medium, &opts, &r.bs, &r.err)) {
		bdev_close(medium);
		return "it cannot be recovered";
	}
	lsn = bs_lsn(r.bs);
	if (lsn < acked)
		why = "what was acknowledged is lost";
	else if (digest_at(h, lsn) != rig_digest(&r))
		why = "it is in no state that ever was";
	rig_create(&r, 1, 10); /* it goes on */
	if (bs_close(r.bs) && !why)
		why = "it does not go on";
	return why;
}

static void recover_and_compare(struct bdev *medium, const struct history *h, uint64_t acked)
{
	const char *why = flaw(medium, h, acked);

	if (why)
		FAIL("%s", why);
}

static void cut_at_random(unsigned seed, unsigned steps, unsigned cuts, uint64_t checkpoint_bytes)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_NO_SERVICE, .checkpoint_bytes = checkpoint_bytes };
	static struct history h;
	struct bdev *again;
	uint64_t events;
	struct rig r;

	memset(&h, 0, sizeof(h));
	state = seed;
	rig_make(&r, SIZE, true);
	ASSERT_OK(bdev_open(r.name, NULL, &again, NULL));
	start(&r, &opts, again);
	work(&r, &h, steps);
	events = bdev_powercut_events(r.fault);
	for (unsigned i = 0; i < cuts; i++) {
		struct bdev_cut cut = { .seed = seed + i, .torn = i % 2 ? 512 : 0 };
		struct bdev *medium;

		cut.event = h.first + rnd((uint32_t)(events - h.first + 1));
		test_note("seed %u, cut %u at event %llu", seed, i, (unsigned long long)cut.event);
		ASSERT_OK(bdev_powercut_state(r.fault, &cut, &medium));
		recover_and_compare(medium, &h, acknowledged(&h, cut.event));
	}
	rig_drop(&r);
}

TEST(blob_cuts, any_cut_leaves_a_state_between_transactions_and_all_that_was_acknowledged)
{
	unsigned seed = (unsigned)test_seed_or(4711);

	for (unsigned round = 0; round < 4; round++)
		cut_at_random(seed + 1000 * round, 100, 60, 0);
}

/* A cut during the recovery from a cut. */
TEST(blob_cuts, recovery_itself_may_be_cut)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_NO_SERVICE };
	static struct history h;
	struct bdev *again, *medium, *twice;
	uint64_t events;
	struct rig r, s;

	memset(&h, 0, sizeof(h));
	state = 99;
	rig_make(&r, SIZE, true);
	ASSERT_OK(bdev_open(r.name, NULL, &again, NULL));
	start(&r, &opts, again);
	work(&r, &h, 60);
	events = bdev_powercut_events(r.fault);
	for (unsigned i = 0; i < 12; i++) {
		struct bdev_cut cut = { .event = h.first + rnd((uint32_t)(events - h.first + 1)), .seed = i, .torn = 512 };
		uint64_t acked = acknowledged(&h, cut.event), second;

		test_note("cut %u at event %llu", i, (unsigned long long)cut.event);
		ASSERT_OK(bdev_powercut_state(r.fault, &cut, &medium));
		memset(&s, 0, sizeof(s));
		start(&s, &opts, medium);
		acked = MAX(acked, bs_lsn(s.bs)); /* what recovery has shown must stay */
		second = bdev_powercut_events(s.fault);
		for (uint64_t e = 0; e <= second; e++) {
			struct bdev_cut inner = { .event = e, .seed = e, .torn = 512 };

			ASSERT_OK(bdev_powercut_state(s.fault, &inner, &twice));
			recover_and_compare(twice, &h, acked);
		}
		bs_abandon(s.bs);
	}
	rig_drop(&r);
}

/* The test itself is tested: on a device whose flushes do nothing, losses must be seen. */
TEST(blob_cuts, a_device_that_lies_about_flushes_is_found_out)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_NO_SERVICE };
	static struct history h;
	unsigned losses = 0;
	struct bdev *again;
	uint64_t events;
	struct rig r;

	memset(&h, 0, sizeof(h));
	state = 5;
	rig_make(&r, SIZE, true);
	ASSERT_OK(bdev_open(r.name, NULL, &again, NULL));
	start(&r, &opts, again);
	bdev_powercut_lie(r.fault, true);
	work(&r, &h, 60);
	events = bdev_powercut_events(r.fault);
	for (unsigned i = 0; i < 20; i++) {
		struct bdev_cut cut = { .event = events, .seed = i };
		struct bdev *medium;

		ASSERT_OK(bdev_powercut_state(r.fault, &cut, &medium));
		losses += flaw(medium, &h, acknowledged(&h, cut.event)) != NULL;
	}
	EXPECT_GT_INT(losses, 10);
	rig_drop(&r);
}
