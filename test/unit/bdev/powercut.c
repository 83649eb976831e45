/* SPDX-License-Identifier: BSD-2-Clause */
/* powercut: the states of small histories, compared with the sets that follow from the rules by
 * hand. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "bdev/wrap.h"
#include "test/unit/bdev/devices.h"

#define BLOCK 512u
#define SMALL (64 << 10)

struct cutter {
	struct bdev *dev;
	struct bdev_channel *ch;
	struct bdev_io io[8];
	char *buf[8];
	struct tally tally;
	unsigned submitted;
};

static void setup(struct cutter *c)
{
	struct bdev *base;

	memset(c, 0, sizeof(*c));
	ASSERT_OK(bdev_open("ram:64K", NULL, &base, NULL));
	ASSERT_OK(bdev_powercut_create(base, &c->dev));
	c->ch = bdev_channel_borrow(c->dev);
}

static void teardown(struct cutter *c)
{
	tally_wait(c->ch, &c->tally, c->submitted);
	bdev_channel_return(c->ch);
	bdev_close(c->dev);
	for (size_t i = 0; i < ARRAY_SIZE(c->buf); i++)
		free(c->buf[i]);
}

/* Submits, without polling, a write of blocks filled with a letter (or a flush: blocks 0). */
static void submit(struct cutter *c, char letter, unsigned block, unsigned blocks, uint32_t flags)
{
	unsigned i = c->submitted++;

	c->buf[i] = buf_alloc(4096);
	memset(c->buf[i], letter, 4096);
	bdev_io_init_buf(&c->io[i], blocks ? BDEV_WRITE : BDEV_FLUSH, c->buf[i], block * BLOCK,
			 blocks * BLOCK, tally_cb, &c->tally);
	c->io[i].opts.flags = flags;
	bdev_submit(c->ch, &c->io[i]);
}

static void finish_all(struct cutter *c)
{
	tally_wait(c->ch, &c->tally, c->submitted);
	ASSERT_OK(c->tally.rc);
}

static void write_now(struct cutter *c, char letter, unsigned block, unsigned blocks,
		      uint32_t flags)
{
	submit(c, letter, block, blocks, flags);
	finish_all(c);
}

static void flush_now(struct cutter *c)
{
	submit(c, 0, 0, 0, 0);
	finish_all(c);
}

/* The first blocks of a state as letters, '.' for zero. */
static const char *state_text(struct cutter *c, const struct bdev_cut *cut, unsigned blocks)
{
	static char text[32];
	struct bdev *dev;
	char *buf = buf_alloc(4096);

	ASSERT_OK(bdev_powercut_state(c->dev, cut, &dev));
	ASSERT_OK(dev_io(dev, BDEV_READ, buf, 0, blocks * BLOCK, 0));
	for (unsigned i = 0; i < blocks; i++) {
		text[i] = buf[i * BLOCK] ? buf[i * BLOCK] : '.';
		/* Blocks are whole. */
		ASSERT_EQ_MEM(buf + i * BLOCK, buf + i * BLOCK + 1, BLOCK - 1);
	}
	text[blocks] = '\0';
	bdev_close(dev);
	free(buf);
	return text;
}

/* All subsets at a cut, in the order of their masks, joined by spaces. */
static const char *all_states(struct cutter *c, uint64_t event, unsigned blocks)
{
	static char text[512];
	uint64_t n = bdev_powercut_undecided(c->dev, event);

	ASSERT_LE_INT(n, 4);
	text[0] = '\0';
	for (unsigned mask = 0; mask < 1u << n; mask++) {
		uint8_t m = (uint8_t)mask;
		struct bdev_cut cut = { .event = event, .mask = &m };

		if (*text)
			strcat(text, " ");
		strcat(text, state_text(c, &cut, blocks));
	}
	return text;
}

TEST(bdev_powercut, before_the_first_event_the_medium_is_as_it_was)
{
	struct cutter c;

	setup(&c);
	EXPECT_EQ_INT(0, bdev_powercut_events(c.dev));
	EXPECT_STREQ("..", all_states(&c, 0, 2));
	write_now(&c, 'a', 0, 1, 0);
	EXPECT_EQ_INT(2, bdev_powercut_events(c.dev));
	EXPECT_STREQ("..", all_states(&c, 0, 2));
	EXPECT_EQ_INT(0, bdev_powercut_undecided(c.dev, 0));
	teardown(&c);
}

TEST(bdev_powercut, an_unflushed_write_is_there_or_not_from_its_submission_on)
{
	struct cutter c;

	setup(&c);
	write_now(&c, 'a', 1, 1, 0); /* events 1, 2 */
	EXPECT_STREQ("... .a.", all_states(&c, 1, 3));
	EXPECT_STREQ("... .a.", all_states(&c, 2, 3));
	teardown(&c);
}

TEST(bdev_powercut, all_subsets_of_two_unflushed_writes_are_states)
{
	struct cutter c;

	setup(&c);
	write_now(&c, 'a', 0, 1, 0);
	write_now(&c, 'b', 1, 1, 0);
	EXPECT_STREQ(".. a. .b ab", all_states(&c, 4, 2));
	teardown(&c);
}

TEST(bdev_powercut, a_completed_flush_makes_certain_what_completed_before_it_was_submitted)
{
	struct cutter c;

	setup(&c);
	write_now(&c, 'a', 0, 1, 0); /* 1 2 */
	flush_now(&c);               /* 3 4 */
	write_now(&c, 'b', 1, 1, 0); /* 5 6 */
	EXPECT_STREQ(".. a.", all_states(&c, 3, 2));
	EXPECT_STREQ("a.", all_states(&c, 4, 2));
	EXPECT_STREQ("a. ab", all_states(&c, 6, 2));
	/* And back again: the shared medium is not left where it was. */
	EXPECT_STREQ(".. a.", all_states(&c, 2, 2));
	EXPECT_STREQ("..", all_states(&c, 0, 2));
	teardown(&c);
}

TEST(bdev_powercut, a_flush_says_nothing_of_a_write_in_flight_when_it_was_submitted)
{
	struct cutter c;

	setup(&c);
	submit(&c, 'a', 0, 1, 0); /* 1 */
	submit(&c, 0, 0, 0, 0);   /* 2 */
	finish_all(&c);           /* 3 4 */
	EXPECT_STREQ(". a", all_states(&c, 4, 1));
	flush_now(&c); /* 5 6 */
	EXPECT_STREQ("a", all_states(&c, 6, 1));
	teardown(&c);
}

TEST(bdev_powercut, an_fua_write_is_certain_once_complete_and_speaks_for_no_other)
{
	struct cutter c;

	setup(&c);
	write_now(&c, 'a', 0, 1, 0);        /* 1 2 */
	write_now(&c, 'b', 1, 1, BDEV_FUA); /* 3 4 */
	EXPECT_STREQ(".. a. .b ab", all_states(&c, 3, 2));
	EXPECT_STREQ(".b ab", all_states(&c, 4, 2));
	teardown(&c);
}

TEST(bdev_powercut, an_overwritten_write_never_lies_over_the_later_one)
{
	struct cutter c;

	setup(&c);
	write_now(&c, 'a', 0, 2, 0);
	write_now(&c, 'b', 1, 2, 0);
	/* neither, a, b, both: where both are, b wins */
	EXPECT_STREQ("... aa. .bb abb", all_states(&c, 4, 3));
	for (uint64_t seed = 0; seed < 200; seed++) {
		struct bdev_cut cut = { .event = 4, .seed = seed };
		const char *s = state_text(&c, &cut, 3);

		EXPECT_TRUE(strstr("... aa. .bb abb", s));
	}
	teardown(&c);
}

TEST(bdev_powercut, an_older_unflushed_write_does_not_surface_over_a_durable_one)
{
	struct cutter c;

	setup(&c);
	write_now(&c, 'a', 0, 2, 0);        /* undecided */
	write_now(&c, 'b', 0, 1, BDEV_FUA); /* certain, over it */
	EXPECT_STREQ("b. ba", all_states(&c, 4, 2));
	teardown(&c);
}

TEST(bdev_powercut, overlapping_writes_in_flight_may_land_in_any_order)
{
	bool a_over_b = false, b_over_a = false;
	struct cutter c;

	setup(&c);
	submit(&c, 'a', 0, 1, 0); /* 1 */
	submit(&c, 'b', 0, 1, 0); /* 2 */
	finish_all(&c);           /* 3 4 */
	EXPECT_STREQ(". a b b", all_states(&c, 2, 1));
	for (uint64_t seed = 0; seed < 200; seed++) {
		struct bdev_cut cut = { .event = 2, .seed = seed };

		a_over_b |= *state_text(&c, &cut, 1) == 'a';
		b_over_a |= *state_text(&c, &cut, 1) == 'b';
	}
	EXPECT_TRUE(a_over_b && b_over_a);
	teardown(&c);
}

TEST(bdev_powercut, a_seed_reaches_every_subset_and_always_the_same_one)
{
	unsigned reached = 0;
	struct cutter c;

	setup(&c);
	for (unsigned i = 0; i < 3; i++)
		write_now(&c, (char)('a' + i), i, 1, 0);
	for (uint64_t seed = 0; seed < 300; seed++) {
		struct bdev_cut cut = { .event = 6, .seed = seed };
		char first[8];
		unsigned set = 0;

		strcpy(first, state_text(&c, &cut, 3));
		EXPECT_STREQ(first, state_text(&c, &cut, 3));
		for (unsigned i = 0; i < 3; i++)
			set |= (first[i] != '.') << i;
		reached |= 1u << set;
	}
	EXPECT_EQ_INT(0xff, reached);
	teardown(&c);
}

TEST(bdev_powercut, a_torn_write_leaves_any_of_its_units)
{
	unsigned reached = 0;
	uint8_t mask = 1, none = 0;
	struct cutter c;

	setup(&c);
	write_now(&c, 'x', 0, 4, 0);
	flush_now(&c);
	write_now(&c, 'y', 1, 3, 0);
	for (uint64_t seed = 0; seed < 400; seed++) {
		struct bdev_cut cut = {
			.event = 6, .seed = seed, .torn = BLOCK, .mask = seed % 2 ? &mask : NULL
		};
		const char *s = state_text(&c, &cut, 5);
		unsigned set = 0;

		EXPECT_EQ_INT('x', s[0]);
		EXPECT_EQ_INT('.', s[4]);
		for (unsigned i = 0; i < 3; i++) {
			EXPECT_TRUE(s[1 + i] == 'x' || s[1 + i] == 'y');
			set |= (s[1 + i] == 'y') << i;
		}
		reached |= 1u << set;
	}
	EXPECT_EQ_INT(0xff, reached);
	EXPECT_STREQ(
		"xxxx.",
		state_text(&c, &(struct bdev_cut){ .event = 6, .torn = BLOCK, .mask = &none }, 5));
	teardown(&c);
}

TEST(bdev_powercut, zeroes_and_discards_are_as_undecided_as_writes)
{
	struct cutter c;

	setup(&c);
	write_now(&c, 'a', 0, 3, 0);
	flush_now(&c);
	ASSERT_OK(bdev_io_sync(c.ch, BDEV_WRITE_ZEROES, NULL, 0, BLOCK, 0));
	ASSERT_OK(bdev_io_sync(c.ch, BDEV_DISCARD, NULL, BLOCK, BLOCK, 0));
	EXPECT_STREQ("aaa .aa a.a ..a", all_states(&c, 8, 3));
	ASSERT_OK(bdev_io_sync(c.ch, BDEV_WRITE_ZEROES, NULL, 2 * BLOCK, BLOCK, BDEV_FUA));
	/* Its emulated flush makes the others certain, too. */
	EXPECT_STREQ("...", all_states(&c, bdev_powercut_events(c.dev), 3));
	teardown(&c);
}

TEST(bdev_powercut, flushes_that_lie_make_nothing_certain)
{
	struct cutter c;

	setup(&c);
	bdev_powercut_lie(c.dev, true);
	write_now(&c, 'a', 0, 1, 0);
	flush_now(&c);
	write_now(&c, 'b', 1, 1, BDEV_FUA);
	EXPECT_STREQ(".. a. .b ab", all_states(&c, 6, 2));
	bdev_powercut_lie(c.dev, false);
	flush_now(&c);
	EXPECT_STREQ("ab", all_states(&c, 8, 2));
	teardown(&c);
}

TEST(bdev_powercut, a_reset_takes_the_present_content_as_durable)
{
	struct cutter c;

	setup(&c);
	write_now(&c, 'a', 0, 1, 0);
	submit(&c, 'b', 1, 1, 0);
	ASSERT_OK(bdev_powercut_reset(c.dev));
	EXPECT_EQ_INT(0, bdev_powercut_events(c.dev));
	/* b is in flight: open from the start. */
	EXPECT_STREQ("a. ab", all_states(&c, 0, 2));
	finish_all(&c);
	EXPECT_EQ_INT(1, bdev_powercut_mark(c.dev));
	flush_now(&c);
	EXPECT_STREQ("ab", all_states(&c, 3, 2));
	teardown(&c);
}

/* A device whose first write, of "a" over two blocks, has failed. */
static void setup_failed(struct cutter *c)
{
	const struct bdev_fault fault = {
		.kind = BDEV_FAULT_ERROR, .op = BDEV_WRITE, .count = 1, .rc = -EIO
	};
	struct bdev *ram, *base;

	memset(c, 0, sizeof(*c));
	ASSERT_OK(bdev_open("ram:64K", NULL, &ram, NULL));
	ASSERT_OK(bdev_fault_create(ram, &base));
	ASSERT_OK(bdev_fault_add(base, &fault));
	ASSERT_OK(bdev_powercut_create(base, &c->dev));
	c->ch = bdev_channel_borrow(c->dev);
	submit(c, 'a', 0, 2, BDEV_FUA);
	tally_wait(c->ch, &c->tally, 1);
	EXPECT_ERR(-EIO, c->tally.rc);
	c->tally.rc = 0;
}

TEST(bdev_powercut, a_failed_write_stays_undecided_for_ever)
{
	struct cutter c;

	setup_failed(&c);
	flush_now(&c);
	EXPECT_STREQ(".. aa", all_states(&c, 4, 2));
	teardown(&c);
}

TEST(bdev_powercut, a_failed_write_never_comes_over_what_was_written_after_its_end)
{
	struct cutter c;

	setup_failed(&c);
	write_now(&c, 'b', 0, 1, 0);
	EXPECT_STREQ(".. aa b. ba", all_states(&c, 4, 2));
	flush_now(&c);
	EXPECT_STREQ("b. ba", all_states(&c, 6, 2));
	write_now(&c, 'c', 1, 1, 0);
	flush_now(&c);
	EXPECT_STREQ("bc bc", all_states(&c, 10, 2));
	teardown(&c);
}

/* What is written once more over the failed write does not come over what was written after it either. */
TEST(bdev_powercut, what_covers_a_failed_write_is_itself_covered)
{
	struct cutter c;

	setup_failed(&c);
	write_now(&c, 'b', 1, 2, 0);
	write_now(&c, 'c', 2, 1, 0);
	flush_now(&c);
	EXPECT_STREQ(".bc abc", all_states(&c, 8, 3));
	teardown(&c);
}

TEST(bdev_powercut, states_live_beside_each_other_and_keep_their_content)
{
	struct bdev *early, *late;
	struct cutter c;
	char *buf = buf_alloc(4096);

	setup(&c);
	write_now(&c, 'a', 0, 1, 0);
	flush_now(&c);
	ASSERT_OK(bdev_powercut_state(c.dev, &(struct bdev_cut){ .event = 4 }, &early));
	write_now(&c, 'b', 0, 2, 0);
	flush_now(&c);
	ASSERT_OK(bdev_powercut_state(c.dev, &(struct bdev_cut){ .event = 8 }, &late));
	ASSERT_OK(dev_io(early, BDEV_READ, buf, 0, 1024, 0));
	EXPECT_EQ_INT('a', buf[0]);
	EXPECT_EQ_INT(0, buf[512]);
	/* Writing to one, and zeroing, shows in no other. */
	ASSERT_OK(dev_io(late, BDEV_WRITE_ZEROES, NULL, 0, SMALL, 0));
	ASSERT_OK(dev_io(late, BDEV_READ, buf, 0, 4096, 0));
	EXPECT_EQ_INT(0, buf[0]);
	bdev_close(late);
	ASSERT_OK(bdev_powercut_state(c.dev, &(struct bdev_cut){ .event = 8 }, &late));
	ASSERT_OK(dev_io(late, BDEV_READ, buf, 0, 1024, 0));
	EXPECT_EQ_INT('b', buf[0]);
	EXPECT_EQ_INT('b', buf[512]);
	bdev_close(late);
	bdev_close(early);
	teardown(&c);
	free(buf);
}

/* The rules once more, written down plainly and without any of the shortcuts: what a block may
 * hold. */
struct event_log {
	struct {
		uint64_t submit, complete;
		unsigned block;
		bool fua, flush;
		char letter;
	} e[64];
	unsigned n;
};

static bool legal(const struct event_log *l, uint64_t cut, unsigned block, char found)
{
	uint64_t flush = 0;
	bool hidden;

	for (unsigned i = 0; i < l->n; i++)
		if (l->e[i].flush && l->e[i].complete <= cut)
			flush = MAX(flush, l->e[i].submit);
	/* The candidate must be submitted, and no certain write may lie wholly after it. */
	for (unsigned i = 0; i < l->n; i++) {
		if (l->e[i].flush || l->e[i].block != block || l->e[i].submit > cut ||
		    l->e[i].letter != found)
			continue;
		hidden = false;
		for (unsigned j = i + 1; j < l->n; j++)
			if (!l->e[j].flush && l->e[j].block == block && l->e[j].complete <= cut &&
			    (l->e[j].fua || l->e[j].complete < flush))
				hidden = true;
		return !hidden;
	}
	/* Nothing: then no write of the block may be certain. */
	for (unsigned i = 0; i < l->n; i++)
		if (!l->e[i].flush && l->e[i].block == block && l->e[i].complete <= cut &&
		    (l->e[i].fua || l->e[i].complete < flush))
			return false;
	return found == '.';
}

TEST(bdev_powercut, random_histories_give_only_legal_states_at_every_cut)
{
	struct bdev *base, *dev;
	struct event_log l = { 0 };
	char *buf = buf_alloc(4096);
	uint64_t rnd = 88172645463325252ull;

	ASSERT_OK(bdev_open("ram:64K", NULL, &base, NULL));
	ASSERT_OK(bdev_powercut_create(base, &dev));
	for (; l.n < 60; l.n++) {
		rnd ^= rnd << 13;
		rnd ^= rnd >> 7;
		rnd ^= rnd << 17;
		l.e[l.n].submit = bdev_powercut_mark(dev) + 1;
		l.e[l.n].flush = rnd % 5 == 0;
		l.e[l.n].block = (unsigned)(rnd >> 8) % 4;
		l.e[l.n].fua = (rnd >> 16) % 6 == 0;
		l.e[l.n].letter = (char)('0' + l.n);
		memset(buf, l.e[l.n].letter, BLOCK);
		if (l.e[l.n].flush)
			ASSERT_OK(dev_io(dev, BDEV_FLUSH, NULL, 0, 0, 0));
		else
			ASSERT_OK(dev_io(dev, BDEV_WRITE, buf, l.e[l.n].block * BLOCK, BLOCK,
					 l.e[l.n].fua ? BDEV_FUA : 0));
		l.e[l.n].complete = bdev_powercut_mark(dev);
	}
	for (uint64_t i = 0; i < 4000; i++) {
		/* Rising cuts, then random ones. */
		struct bdev_cut cut = { .event = i < 2000 ? i * 121 / 2000 : (i * 7919) % 121,
					.seed = i };
		struct cutter c = { .dev = dev };
		const char *s = state_text(&c, &cut, 4);

		for (unsigned b = 0; b < 4; b++)
			if (!legal(&l, cut.event, b, s[b]))
				FAIL("cut %d, seed %d: block %u holds '%c'", (int)cut.event, (int)i,
				     b, s[b]);
	}
	bdev_close(dev);
	free(buf);
}

TEST(bdev_powercut, a_cut_after_the_last_event_is_refused)
{
	struct bdev *out;
	struct cutter c;

	setup(&c);
	EXPECT_ERR(-EINVAL, bdev_powercut_state(c.dev, &(struct bdev_cut){ .event = 1 }, &out));
	teardown(&c);
}
