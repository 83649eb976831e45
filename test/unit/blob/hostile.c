/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hostile content: bytes of every structure are changed at random and the checksums put right again, so that the change
 * reaches the code behind them. Whatever comes of it must be an error or a store that works, never a crash.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/dma.h"
#include "base/util.h"
#include "blob/device.h"
#include "test/shim/test.h"
#include "test/unit/blob/rig.h"

#define SIZE (48 * MiB)
#define BLOCKS (SIZE / BS_BLOCK)
#define TARGETS 512u

enum what { SUPER, SEGMENT, FRAME, PAGE };
struct target {
	enum what what;
	uint64_t block, seed_nonce;
	uint32_t blocks;
};

static uint32_t state;

static uint32_t rnd(uint32_t n)
{
	state = state * 1664525u + 1013904223u;
	return (uint32_t)(((uint64_t)state * n) >> 32);
}

/* Everything in the image that has a checksum. */
static unsigned find_targets(const uint8_t *image, struct target *t)
{
	const struct bs_sb_disk *sb = (const struct bs_sb_disk *)image;
	uint32_t unit = le32_get(sb->segment_blocks);
	uint64_t nonce = 0;
	unsigned n = 0;

	t[n++] = (struct target){ .what = SUPER, .block = 0, .blocks = 1 };
	for (uint64_t b = 1; b < BLOCKS && n < TARGETS; b++) {
		const uint8_t *p = image + b * BS_BLOCK;
		const struct bs_frame_disk *f = (const struct bs_frame_disk *)p;
		uint32_t magic = le32_get(f->magic);

		if (memcmp(f->uuid, sb->uuid, 16))
			continue;
		if (magic == BS_MAGIC_SEGMENT && b % unit == 0) {
			nonce = le64_get(((const struct bs_segment_disk *)p)->nonce);
			t[n++] = (struct target){ SEGMENT, b, nonce, 1 };
		} else if (magic == BS_MAGIC_FRAME) {
			t[n++] = (struct target){ FRAME, b, nonce, le32_get(f->blocks) };
		} else if (magic == BS_MAGIC_PAGE) {
			t[n++] = (struct target){ PAGE, b, 0, le32_get(((const struct bs_page_disk *)p)->blocks) };
		}
	}
	return n;
}

static void put_right(uint8_t *p, const struct target *t, size_t len)
{
	switch (t->what) {
	case SUPER:
		bs_sb_seal((struct bs_sb_disk *)p);
		break;
	case SEGMENT: {
		struct bs_segment_disk *h = (struct bs_segment_disk *)p;

		h->crc = le32_make(bs_crc_skip(bs_crc_seed(t->seed_nonce, 0, t->block), h, len,
					       offsetof(struct bs_segment_disk, crc)));
		break;
	}
	case FRAME: {
		struct bs_frame_disk *f = (struct bs_frame_disk *)p;

		f->crc = le32_make(bs_crc_skip(bs_crc_seed(t->seed_nonce, le64_get(f->seq), t->block), f, len,
					       offsetof(struct bs_frame_disk, crc)));
		break;
	}
	case PAGE: {
		struct bs_page_disk *g = (struct bs_page_disk *)p;

		g->crc = le32_make(bs_crc_skip(bs_crc_page_seed(g->uuid, t->block), g, len,
					       offsetof(struct bs_page_disk, crc)));
		break;
	}
	}
}

/* The parents' copies of a page's checksum, up to the superblock's of the root. */
static void tell_parents(uint8_t *image, const struct target *all, unsigned n, const struct target *page)
{
	struct bs_sb_disk *sb = (struct bs_sb_disk *)image;
	le32 crc = ((struct bs_page_disk *)(image + page->block * BS_BLOCK))->crc;

	if (le64_get(sb->ckpt_root) == page->block) {
		sb->ckpt_root_crc = crc;
		bs_sb_seal(sb);
	}
	for (unsigned i = 0; i < n; i++) {
		struct bs_page_disk *p = (struct bs_page_disk *)(image + all[i].block * BS_BLOCK);
		struct bs_index_disk *d = (struct bs_index_disk *)(p + 1);

		if (all[i].what != PAGE || le16_get(p->kind) != BS_PAGE_INDEX || &all[i] == page)
			continue;
		for (uint32_t k = 0; k < le32_get(p->count) && k < 90; k++) {
			if (le64_get(d[k].address) != page->block || le32_get(d[k].crc) == le32_get(crc))
				continue;
			d[k].crc = crc;
			put_right((uint8_t *)p, &all[i], (size_t)all[i].blocks * BS_BLOCK);
			tell_parents(image, all, n, &all[i]);
		}
	}
}

/* Changes a few bytes, mostly in the first 200, where the fields and the first records are. */
static void damage(uint8_t *image, const struct target *all, unsigned n)
{
	const struct target *t = &all[rnd(n)];
	size_t len = (size_t)t->blocks * BS_BLOCK;
	uint8_t *p = image + t->block * BS_BLOCK;

	for (uint32_t k = 1 + rnd(3); k; k--) {
		uint32_t at = rnd(4) ? rnd(300) : rnd((uint32_t)len);

		if (at < 8)
			continue; /* a wrong magic is tried elsewhere */
		p[at] = (uint8_t)(rnd(3) == 0 ? 0xff : rnd(3) == 0 ? 0 : p[at] ^ (1u << rnd(8)));
	}
	put_right(p, t, len);
	if (t->what == PAGE)
		tell_parents(image, all, n, t);
}

static void make_image(struct rig *r, uint8_t *image)
{
	rig_make(r, SIZE, true);
	ASSERT_OK(rig_open(r, BS_NO_SERVICE, 0));
	for (unsigned i = 0; i < 200; i++) {
		uint64_t id = rig_create(r, (uint8_t)i, 20 + i * 7);

		for (unsigned k = 0; k < i % 5; k++)
			rig_fill(r, id, 3 * k, 1 + i % 2);
	}
	ASSERT_OK(bs_checkpoint(r->bs));
	for (unsigned i = 0; i < 40; i++) {
		uint64_t id = rig_create(r, 1, 100 + 40 * i);

		rig_fill(r, id, i, 1 + i % 3);
		if (i % 4 == 0)
			rig_delete(r, id);
		if (i % 3 == 0)
			rig_delete(r, 1 + i);
		if (i % 5 == 0)
			ASSERT_OK(bs_commit(r->bs, 0));
	}
	ASSERT_OK(bs_commit(r->bs, 0));
	rig_abandon(r);
	for (uint64_t b = 0; b < BLOCKS; b += 256)
		rig_read(r, b, image + b * BS_BLOCK, 256);
}

static void ignore(const struct bs_problem *p, void *arg)
{
	(void)p;
	++*(unsigned *)arg;
}

/* Opens it, uses it a little if it opens, checks it. */
static bool survive(struct rig *r)
{
	unsigned problems = 0;
	int rc = rig_open(r, BS_NO_SERVICE, 0);

	if (rc) {
		if (!r->err.text[0])
			FAIL("no message for %d", rc);
	} else {
		struct bs_txn *txn;

		rig_digest(r);
		if (!bs_txn_begin(r->bs, 0, &txn))
			bs_txn_cancel(txn);
		rig_close(r);
	}
	if (bs_check(r->base, ignore, &problems, NULL, NULL) == 0)
		EXPECT_EQ_INT(0, problems);
	return !rc;
}

TEST(blob_hostile, damaged_structures_with_right_checksums_never_crash)
{
	unsigned seed = (unsigned)test_seed_or(20260712), opened = 0, rounds = 600;
	uint8_t *good = dma_alloc(SIZE, BS_BLOCK), *bad = dma_alloc(SIZE, BS_BLOCK);
	static struct target targets[TARGETS];
	unsigned n;
	struct rig r;

	make_image(&r, good);
	n = find_targets(good, targets);
	ASSERT_GT_INT(n, 10);
	memcpy(bad, good, SIZE);
	for (unsigned i = 0; i < rounds; i++) {
		state = seed + i;
		test_note("round %u (seed %u)", i, seed + i);
		for (uint32_t k = 1 + rnd(2); k; k--)
			damage(bad, targets, n);
		for (unsigned t = 0; t < n; t++)
			rig_write(&r, targets[t].block, bad + targets[t].block * BS_BLOCK, targets[t].blocks);
		rig_write(&r, BS_SB_COPY_BLOCK, good, 1); /* older: the damaged one is to be chosen */
		rig_write(&r, 0, bad, 1);
		opened += survive(&r);
		for (unsigned t = 0; t < n; t++)
			memcpy(bad + targets[t].block * BS_BLOCK, good + targets[t].block * BS_BLOCK,
			       (size_t)targets[t].blocks * BS_BLOCK);
	}
	test_note("%s", "");
	EXPECT_GT_INT(opened, 0);      /* it is not all refused at the door */
	EXPECT_LT_INT(opened, rounds); /* nor all overlooked */
	rig_drop(&r);
	dma_free(good);
	dma_free(bad);
}

TEST(blob_hostile, random_bits_without_checksums_never_crash)
{
	uint8_t *good = dma_alloc(SIZE, BS_BLOCK), *block = dma_alloc(BS_BLOCK, BS_BLOCK);
	static struct target targets[TARGETS];
	unsigned n;
	struct rig r;

	make_image(&r, good);
	n = find_targets(good, targets);
	for (unsigned i = 0; i < 300; i++) {
		const struct target *t;

		state = 77 + i;
		test_note("seed %u", 77 + i);
		t = &targets[rnd(n)];
		for (unsigned k = 0; k < n; k++)
			rig_write(&r, targets[k].block, good + targets[k].block * BS_BLOCK, targets[k].blocks);
		rig_read(&r, t->block, block, 1);
		block[rnd(BS_BLOCK)] ^= (uint8_t)(1 + rnd(255));
		rig_write(&r, t->block, block, 1);
		survive(&r);
	}
	rig_drop(&r);
	dma_free(good);
	dma_free(block);
}
