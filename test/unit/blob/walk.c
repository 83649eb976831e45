/* SPDX-License-Identifier: BSD-2-Clause */
/* Looking at the structures on a device, some of whose blocks cannot be read. */
#include <errno.h>
#include <string.h>

#include "base/dma.h"
#include "blob/device.h"
#include "test/unit/blob/kit.h"

#define MOST 200u

struct seen {
	struct bs_piece piece[MOST]; /* of the log */
	uint64_t seq[MOST];          /* of frames, and of segments the first */
	unsigned n, frames, unread;
};

static int look(const struct bs_piece *p, void *arg)
{
	struct seen *s = arg;

	if (p->kind != BS_PIECE_SEGMENT && p->kind != BS_PIECE_FRAME)
		return 0;
	ASSERT_LT_INT(s->n, MOST);
	EXPECT_TRUE(p->data || p->wrong);
	s->piece[s->n] = *p;
	s->frames += p->kind == BS_PIECE_FRAME && p->data;
	s->unread += !p->data;
	if (p->data)
		s->seq[s->n] = p->kind == BS_PIECE_FRAME ? le64_get(((struct bs_frame_disk *)p->data)->seq) :
			       le64_get(((struct bs_segment_disk *)p->data)->first_seq);
	s->n++;
	return 0;
}

static void walk(struct bdev *dev, struct seen *s)
{
	memset(s, 0, sizeof(*s));
	ASSERT_OK(bs_walk(dev, BS_WALK_LOG, look, s, NULL));
}

/* A log of so many frames, over several segments, left as by a crash. */
static void make(struct kit *kit, unsigned frames, struct seen *whole)
{
	static char value[40000];
	struct bs_blob *blob;
	struct bdev *base;

	kit_open(kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	blob = kit_create(kit->bs);
	for (unsigned i = 0; i < frames; i++) {
		ASSERT_OK(kit_put(kit->bs, blob, i, value, sizeof(value)));
		ASSERT_OK(bs_commit(kit->bs, 0));
	}
	bs_blob_put(blob);
	bs_abandon(kit->bs);
	ASSERT_OK(bdev_open(kit->name, NULL, &base, NULL));
	ASSERT_OK(bdev_fault_create(base, &kit->dev));
	walk(kit->dev, whole);
	ASSERT_EQ_INT(frames, whole->frames);
	ASSERT_EQ_INT(0, whole->unread);
	ASSERT_GT_INT(whole->n, frames + 2); /* three segments at least */
}

static void lose(struct kit *kit, uint64_t block, uint64_t blocks)
{
	struct bdev_fault f = { .op = BDEV_READ, .count = UINT64_MAX, .lo = block * BS_BLOCK, .hi = (block + blocks) * BS_BLOCK, .rc = -EIO };

	ASSERT_OK(bdev_fault_add(kit->dev, &f));
}

static void done(struct kit *kit)
{
	bdev_close(kit->dev);
	bdev_close(kit->keep);
}

/* Which piece is the nth of a kind. */
static unsigned nth(const struct seen *s, enum bs_piece_kind kind, unsigned n)
{
	unsigned i = 0;

	while (s->piece[i].kind != kind || n--)
		ASSERT_LT_INT(++i, s->n);
	return i;
}

static const struct bs_piece *at(const struct seen *s, uint64_t block)
{
	for (unsigned i = 0; i < s->n; i++)
		if (s->piece[i].block == block)
			return &s->piece[i];
	FAIL("nothing was told of a block");
	return NULL;
}

TEST(blob_walk, a_frame_that_cannot_be_read_is_named_and_costs_no_other)
{
	struct seen whole, s;
	const struct bs_piece *p, *lost;
	struct kit kit;

	make(&kit, 20, &whole);
	lost = &whole.piece[nth(&whole, BS_PIECE_FRAME, 2)];
	lose(&kit, lost->block, 1);
	walk(kit.dev, &s);
	EXPECT_EQ_INT(19, s.frames);
	EXPECT_EQ_INT(1, s.unread);
	p = at(&s, lost->block);
	EXPECT_EQ_INT(BS_PIECE_FRAME, p->kind);
	EXPECT_EQ_INT(1, p->blocks);
	EXPECT_STREQ("it cannot be read", p->wrong);
	done(&kit);
}

TEST(blob_walk, blocks_in_a_row_that_cannot_be_read_are_told_of_once)
{
	struct seen whole, s;
	const struct bs_piece *lost;
	struct kit kit;

	make(&kit, 20, &whole);
	lost = &whole.piece[nth(&whole, BS_PIECE_FRAME, 2)];
	ASSERT_GT_INT(lost->blocks, 4);
	lose(&kit, lost->block, 4);
	walk(kit.dev, &s);
	EXPECT_EQ_INT(19, s.frames);
	EXPECT_EQ_INT(1, s.unread);
	EXPECT_EQ_INT(4, at(&s, lost->block)->blocks);
	done(&kit);
}

/* Of the nth segment of the log the header, or all. */
static void lose_segment(unsigned n, bool all)
{
	struct seen whole, s;
	unsigned i, in_it = 0;
	struct kit kit;

	make(&kit, 20, &whole);
	i = nth(&whole, BS_PIECE_SEGMENT, n);
	while (i + in_it + 1 < whole.n && whole.piece[i + in_it + 1].kind == BS_PIECE_FRAME)
		in_it++;
	lose(&kit, whole.piece[i].block, all ? 64 : 1);
	walk(kit.dev, &s);
	EXPECT_EQ_INT(20 - (all ? in_it : 0), s.frames);
	EXPECT_EQ_INT(all ? 2 : 1, s.unread);
	EXPECT_EQ_INT(BS_PIECE_SEGMENT, at(&s, whole.piece[i].block)->kind);
	EXPECT_STREQ("it cannot be read", at(&s, whole.piece[i].block)->wrong);
	done(&kit);
}

TEST(blob_walk, the_log_goes_on_behind_a_segment_whose_header_cannot_be_read)
{
	lose_segment(0, false);
	lose_segment(1, false);
}

TEST(blob_walk, a_last_segment_of_which_nothing_can_be_read_is_named)
{
	struct seen whole;
	unsigned last = 0;
	struct kit kit;

	make(&kit, 20, &whole);
	for (unsigned i = 0; i < whole.n; i++)
		last += whole.piece[i].kind == BS_PIECE_SEGMENT;
	done(&kit);
	lose_segment(last - 1, true);
}

TEST(blob_walk, a_header_that_is_damaged_does_not_hide_the_frames_behind_it)
{
	struct seen whole, s;
	struct kit kit;

	make(&kit, 20, &whole);
	kit_flip(kit.dev, whole.piece[nth(&whole, BS_PIECE_SEGMENT, 1)].block, 100);
	walk(kit.dev, &s);
	EXPECT_EQ_INT(20, s.frames);
	EXPECT_EQ_INT(0, s.unread);
	EXPECT_STREQ("it is not the header of this segment", at(&s, whole.piece[nth(&whole, BS_PIECE_SEGMENT, 1)].block)->wrong);
	done(&kit);
}

/* It may say that it has more blocks than could be read in a lifetime. */
TEST(blob_walk, a_superblock_of_a_wrong_size_does_not_lead_beyond_the_device)
{
	struct bs_sb_disk *sb = dma_alloc(sizeof(*sb), BS_BLOCK);
	struct bdev_channel *ch;
	struct seen whole, s;
	struct kit kit;

	make(&kit, 20, &whole);
	kit_flip(kit.dev, whole.piece[nth(&whole, BS_PIECE_SEGMENT, 0)].block, 100);
	kit_flip(kit.dev, whole.piece[nth(&whole, BS_PIECE_SEGMENT, 1)].block, 100);
	ch = bdev_channel_borrow(kit.dev);
	ASSERT_OK(bdev_io_sync(ch, BDEV_READ, sb, 0, BS_BLOCK, 0));
	sb->blocks = le64_make(UINT64_MAX / 2);
	bs_sb_seal(sb);
	ASSERT_OK(bdev_io_sync(ch, BDEV_WRITE, sb, 0, BS_BLOCK, 0));
	ASSERT_OK(bdev_io_sync(ch, BDEV_WRITE, sb, (uint64_t)BS_SB_COPY_BLOCK * BS_BLOCK, BS_BLOCK, 0));
	bdev_channel_return(ch);
	walk(kit.dev, &s); /* it ends */
	EXPECT_GT_INT(s.frames, 0);
	dma_free(sb);
	done(&kit);
}

/* ---- the checkpoint ---- */

struct pages {
	unsigned n, supers;
	uint64_t super;
	const char *wrong;
};

static int count_pages(const struct bs_piece *p, void *arg)
{
	struct pages *c = arg;

	c->n++;
	if (p->data && le16_get(((struct bs_page_disk *)p->data)->kind) == BS_PAGE_SUPER) {
		c->supers++;
		c->super = p->block;
		c->wrong = p->wrong;
	}
	return 0;
}

/* Larger and larger checkpoints, until the last page falls into a unit of its own. */
TEST(blob_walk, the_page_with_the_checkpoints_superblock_is_found_wherever_it_lies)
{
	static char value[30000];
	bool beside = false, alone = false;
	struct bs_blob *blob;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	blob = kit_create(kit.bs);
	for (unsigned i = 0; i < 150 && !(beside && alone); i++) {
		struct pages with = { 0 }, without = { 0 };

		ASSERT_OK(kit_put(kit.bs, blob, i, value, (uint32_t)(sizeof(value) - i % 7 * 4096)));
		ASSERT_OK(bs_checkpoint(kit.bs));
		ASSERT_OK(bs_walk(kit.dev, BS_WALK_CKPT | BS_WALK_DESCRIBED, count_pages, &with, NULL));
		ASSERT_OK(bs_walk(kit.dev, BS_WALK_CKPT, count_pages, &without, NULL));
		ASSERT_EQ_INT(1, with.supers);
		ASSERT_EQ_INT(0, without.supers);
		ASSERT_EQ_INT(without.n + 1, with.n);
		ASSERT_TRUE(!with.wrong);
		*(with.super % 64 ? &beside : &alone) = true;
	}
	EXPECT_TRUE(beside);
	EXPECT_TRUE(alone);
	bs_blob_put(blob);
	kit_close(&kit);
}
