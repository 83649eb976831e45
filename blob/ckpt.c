/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writing a checkpoint: one op, on the service's channel, while the store runs.
 *
 *   capture   note where replay will begin and L0; then page by page, each under bs->lock, into fresh space
 *   index     pages of (first key, address), level by level, up to one root
 *   commit    the log durable through L1, the last LSN captured
 *   describe  a page that holds the superblock to come: metadata tells of itself what it is
 *   publish   flush; superblock at block 0, flush; its copy, flush
 *   release   the old checkpoint's units and the log before the new beginning
 *
 * A store that grows (grow.c) wants no more than to be published with another size: then only the superblocks are written.
 *
 * Up to the first flush a failure costs the new pages only. From there on the outcome is unknown, and the store
 * freezes (R5): a failed flush may have lost data that a later one would not bring back.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "blob/ckpt.h"
#include "blob/mutation.h"
#include "blob/sum.h"

#define LOG_COMPONENT "blob"
#include "base/log.h"

#define RETRY_NS 1000000000ull /* after one that failed, unless somebody waits for it */

enum { C_BEGIN, C_CAPTURE, C_INDEX, C_COMMIT, C_DESCRIBE, C_FLUSH, C_SUPER, C_SUPER_FLUSH, C_COPY, C_COPY_FLUSH, C_RELEASE, C_UNDO,
       C_FREEZE };

int bs_ckpt_create(struct bs *bs)
{
	struct bs_ckpt *c = base_calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->bs = bs;
	pthread_mutex_init(&c->lock, NULL);
	TAILQ_INIT(&c->waiting);
	TAILQ_INIT(&c->current);
	bs->ckpt = c;
	return 0;
}

void bs_ckpt_destroy(struct bs *bs)
{
	struct bs_ckpt *c = bs->ckpt;

	if (!c)
		return;
	bs_ckpt_drop_buffers(c);
	free(c->present.unit);
	free(c->fresh.unit);
	pthread_mutex_destroy(&c->lock);
	free(c);
	bs->ckpt = NULL;
}

int bs_ckpt_units_add(struct bs_ckpt_units *u, uint64_t block)
{
	if (u->n == u->cap) {
		uint32_t cap = u->cap ? 2 * u->cap : 16;
		uint64_t *more = base_realloc(u->unit, cap * sizeof(*more));

		if (!more)
			return -ENOMEM;
		u->unit = more;
		u->cap = cap;
	}
	u->unit[u->n++] = block;
	return 0;
}

const struct bs_ckpt_units *bs_ckpt_units(const struct bs *bs)
{
	return &bs->ckpt->present;
}

uint64_t bs_ckpt_bytes(const struct bs *bs)
{
	return bs->ckpt ? (uint64_t)bs->ckpt->present.n * le32_get(bs->sb.segment_blocks) * BS_BLOCK : 0;
}

static void give_units(struct bs *bs, struct bs_ckpt_units *u)
{
	for (uint32_t i = 0; i < u->n; i++)
		bs_meta_give(bs, BS_META_CKPT, u->unit[i]);
	u->n = 0;
}

/* ---- steps ---- */

static int begin(struct bs_ckpt *c)
{
	struct bs *bs = c->bs;
	uint64_t since, total;
	int rc = atomic_load(&bs->frozen) ? -EROFS : bs_ckpt_make_buffers(c);

	c->n_entries = c->level_start = 0;
	c->level = 0;
	c->unit = 0;
	c->blocks = c->items = 0;
	c->captured = c->indexed = false;
	memset(&c->cursor, 0, sizeof(c->cursor));
	since = bs_lock_background(bs);
	bs_log_get_pos(bs, &c->start);
	c->l0 = bs->lsn;
	c->next_id = bs->next_id;
	total = c->total = bs->meta_bytes;
	bs_unlock_background(bs, since);
	if (!rc && c->full)
		bs_pace_begin(bs, total);
	return rc;
}

static void fill_super(struct bs_ckpt *c)
{
	const struct bs_ckpt_entry *root = c->n_entries ? &c->entries[c->n_entries - 1] : NULL;
	struct bs_sb_disk *sb = c->super;

	*sb = c->bs->sb;
	sb->generation = le64_make(le64_get(sb->generation) + 1);
	if (c->growth)
		sb->blocks = le64_make(c->growth->blocks);
	if (!c->full) {
		bs_sb_seal(sb);
		return;
	}
	sb->ckpt_root = le64_make(root ? root->address : 0);
	sb->ckpt_root_blocks = le32_make(root ? root->blocks : 0);
	sb->ckpt_root_crc = le32_make(root ? root->crc : 0);
	sb->ckpt_l0 = le64_make(c->l0);
	sb->ckpt_l1 = le64_make(c->l1);
	sb->ckpt_blocks = le64_make(c->blocks);
	sb->ckpt_items = le64_make(c->items);
	sb->next_id = le64_make(c->next_id);
	sb->log_segment = le64_make(c->start.segment);
	sb->log_nonce = le64_make(c->start.nonce);
	sb->log_seq = le64_make(c->start.seq);
	sb->log_offset = le32_make(c->start.offset);
	sb->clean = le32_make(c->clean);
	bs_sb_seal(sb);
}

static void submit(struct bs_ckpt *c, enum bdev_op kind, uint64_t block)
{
	bool write = kind == BDEV_WRITE;

	if (write)
		atomic_fetch_add(&c->written_bytes, BS_BLOCK);
	bdev_io_init_buf(&c->io, kind, write ? c->super : NULL, write ? block * BS_BLOCK : 0, write ? BS_BLOCK : 0, NULL, NULL);
	bdev_submit_child(c->ch, &c->io, &c->op);
	bdev_kick(c->ch);
}

/* bs->lock held. Only what changes is written: the rest is read without a lock. */
static void keep_super(struct bs *bs, const struct bs_sb_disk *sb)
{
	size_t from = offsetof(struct bs_sb_disk, ckpt_root);

	bs->sb.crc = sb->crc;
	bs->sb.generation = sb->generation;
	/* The log's writer reads this one. */
	pthread_mutex_lock(&bs->log->lock);
	bs->sb.blocks = sb->blocks;
	pthread_mutex_unlock(&bs->log->lock);
	memcpy((uint8_t *)&bs->sb + from, (const uint8_t *)sb + from, offsetof(struct bs_sb_disk, reserved) - from);
}

/* Both superblocks name the new blocks: they may be used. */
static void grow(struct bs_ckpt *c)
{
	struct bs *bs = c->bs;

	bs_space_grow_commit(bs, c->growth->more);
	c->growth->more = NULL;
	pthread_mutex_lock(&bs->lock);
	bs->blocks = c->growth->blocks;
	bs_sums_fit(bs);
	pthread_mutex_unlock(&bs->lock);
}

/* Both superblocks name the new checkpoint: what only the old one needed is free. */
static void release(struct bs_ckpt *c)
{
	struct bs *bs = c->bs;
	struct bs_ckpt_units old = c->present;
	uint64_t since;

	since = bs_lock_background(bs);
	keep_super(bs, c->super);
	if (c->full)
		c->present = c->fresh;
	bs_unlock_background(bs, since);
	if (c->growth)
		grow(c);
	if (c->full) {
		c->fresh = old;
		give_units(bs, &c->fresh);
		bs_log_release(bs, &c->start);
		bs_pace_end(bs, 0);
	}
	bs_log_fit_limits(bs);
	if (!c->full)
		return;
	atomic_fetch_add(&c->written, 1);
}

static enum op_next ckpt_step(struct op *op)
{
	struct bs_ckpt *c = container_of(op, struct bs_ckpt, op);
	struct bs *bs = c->bs;
	int rc;

	switch (op->step) {
	case C_BEGIN:
		op->on_error = C_UNDO;
		rc = begin(c);
		return rc ? op_fail(op, rc) : op_goto(op, c->full ? C_CAPTURE : C_SUPER);
	case C_CAPTURE:
		op->on_error = C_UNDO;
		bs_pace_progress(bs, c->blocks * BS_BLOCK, c->total);
		rc = bs_ckpt_capture(c, op);
		return op_await(op, c->captured ? C_INDEX : C_CAPTURE, rc);
	case C_INDEX:
		op->on_error = C_UNDO;
		rc = bs_ckpt_index(c, op);
		return op_await(op, c->indexed ? C_COMMIT : C_INDEX, rc);
	case C_COMMIT:
		op->on_error = C_UNDO;
		bs_pace_tail(bs);
		if (BS_MUTATE(ckpt_commit))
			return op_goto(op, C_DESCRIBE);
		bs_commit_start(bs, c->l1, op);
		return op_await(op, C_DESCRIBE, 0);
	case C_DESCRIBE:
		op->on_error = C_UNDO;
		op_move(op, bdev_channel_driver(c->ch));
		if (!c->n_entries)
			return op_goto(op, C_FLUSH);
		fill_super(c);
		rc = bs_ckpt_describe(c, op);
		return op_await(op, C_FLUSH, rc);
	case C_FLUSH:
		op->on_error = C_FREEZE;
		if (BS_MUTATE(pages_flush))
			return op_goto(op, C_SUPER);
		submit(c, BDEV_FLUSH, 0);
		return op_await(op, C_SUPER, 0);
	case C_SUPER:
		if (atomic_load(&bs->frozen))
			return op_goto(op, C_UNDO);
		op->on_error = C_FREEZE;
		fill_super(c);
		submit(c, BDEV_WRITE, 0);
		return op_await(op, C_SUPER_FLUSH, 0);
	case C_SUPER_FLUSH:
	case C_COPY_FLUSH:
		op->on_error = C_FREEZE;
		if (BS_MUTATE(super_flush))
			return op_goto(op, op->step == C_SUPER_FLUSH ? C_COPY : C_RELEASE);
		submit(c, BDEV_FLUSH, 0);
		return op_await(op, op->step == C_SUPER_FLUSH ? C_COPY : C_RELEASE, 0);
	case C_COPY:
		op->on_error = C_FREEZE;
		submit(c, BDEV_WRITE, BS_SB_COPY_BLOCK);
		return op_await(op, C_COPY_FLUSH, 0);
	case C_RELEASE:
		release(c);
		return op_finish(op);
	case C_UNDO:
		if (!op->rc)
			op->rc = -EROFS;
		give_units(bs, &c->fresh);
		return op_finish(op);
	case C_FREEZE:
		bs_freeze(bs, op->rc, "the checkpoint could not be made durable");
		return op_finish(op);
	}
	return op_bug(op);
}

/* ---- who wants one ---- */

static void end_waiters(struct bs_commit_waiters *list, int rc)
{
	struct bs_commit_waiter *w;

	while ((w = TAILQ_FIRST(list))) {
		TAILQ_REMOVE(list, w, link);
		op_child_done(w->op, rc);
		free(w);
	}
}

static void launch(struct bs_ckpt *c);

/* What is wanted now is what is about to be done. c->lock held. due: by the log. */
static void take_wants(struct bs_ckpt *c, bool due)
{
	TAILQ_CONCAT(&c->current, &c->waiting, link);
	c->clean = c->want_clean;
	c->growth = c->want_growth;
	c->full = due || c->want_full || !c->growth;
	c->want_growth = NULL;
	c->want_full = false;
}

static bool log_is_due(struct bs *bs)
{
	return bs_log_room_wanted(bs) || bs_log_wants_checkpoint(bs);
}

static void ckpt_done(struct op *op, void *arg)
{
	struct bs_ckpt *c = arg;
	struct bs_commit_waiters mine = TAILQ_HEAD_INITIALIZER(mine);
	struct bs *bs = c->bs;
	bool again, room, due = log_is_due(bs);
	int rc = op->rc;

	bs_ckpt_drop_buffers(c);
	c->growth = NULL;
	if (rc)
		log_warn("%s: checkpoint: %s", bdev_info(bs->dev)->name, strerror(-rc));
	atomic_store(&c->retry_ns, rc ? base_now_ns() + RETRY_NS : 0);
	pthread_mutex_lock(&c->lock);
	TAILQ_CONCAT(&mine, &c->current, link);
	pthread_mutex_unlock(&c->lock);
	end_waiters(&mine, rc);
	bs_log_room_done(bs, rc);
	/* Once it is not busy the store may be closed. */
	pthread_mutex_lock(&c->lock);
	/* Also of those who wait for room since the others were let go: they have found it busy. */
	room = bs_log_room_wanted(bs);
	again = room || !TAILQ_EMPTY(&c->waiting);
	if (again)
		take_wants(c, due || room);
	c->busy = again;
	pthread_mutex_unlock(&c->lock);
	if (again)
		launch(c);
}

static void launch(struct bs_ckpt *c)
{
	c->ch = bs_has_service(c->bs) ? bs_service_channel(c->bs) : c->bs->log->ch;
	op_init(&c->op, "checkpoint", ckpt_step, bdev_channel_driver(c->ch), ckpt_done, c);
	op_start(&c->op);
}

void bs_ckpt_start(struct bs *bs)
{
	struct bs_ckpt *c = bs->ckpt;
	bool busy, due = log_is_due(bs);

	pthread_mutex_lock(&c->lock);
	busy = c->busy;
	if (!busy) {
		c->busy = true;
		take_wants(c, due);
	}
	pthread_mutex_unlock(&c->lock);
	if (!busy)
		launch(c);
}

/* g: or what grows, without a checkpoint. */
static void wait_start(struct bs *bs, struct op *op, bool clean, struct bs_growth *g)
{
	struct bs_ckpt *c = bs->ckpt;
	struct bs_commit_waiter *w = base_calloc(1, sizeof(*w));
	int rc = w ? 0 : -ENOMEM;

	op_child_begin(op);
	pthread_mutex_lock(&c->lock);
	if (g && c->want_growth)
		rc = -EBUSY;
	if (!rc) {
		w->op = op;
		TAILQ_INSERT_TAIL(&c->waiting, w, link);
		c->want_clean |= clean;
		c->want_full |= !g;
		c->want_growth = g ? g : c->want_growth;
	}
	pthread_mutex_unlock(&c->lock);
	if (rc) {
		free(w);
		op_child_done(op, rc);
		return;
	}
	if (bs_has_service(bs))
		bs_service_kick(bs, BS_KICK_CKPT);
	else
		bs_ckpt_start(bs);
}

void bs_ckpt_wait_start(struct bs *bs, struct op *op, bool clean)
{
	wait_start(bs, op, clean, NULL);
}

void bs_ckpt_grow_start(struct bs *bs, struct bs_growth *g, struct op *op)
{
	wait_start(bs, op, false, g);
}

bool bs_ckpt_wanted(struct bs *bs)
{
	struct bs_ckpt *c = bs->ckpt;
	bool wanted;

	pthread_mutex_lock(&c->lock);
	wanted = !TAILQ_EMPTY(&c->waiting);
	pthread_mutex_unlock(&c->lock);
	if (wanted || bs_log_room_wanted(bs))
		return true;
	return bs_log_wants_checkpoint(bs) && base_now_ns() >= atomic_load(&c->retry_ns);
}

bool bs_ckpt_idle(struct bs *bs)
{
	struct bs_ckpt *c = bs->ckpt;
	bool idle;

	pthread_mutex_lock(&c->lock);
	idle = !c->busy;
	pthread_mutex_unlock(&c->lock);
	return idle;
}

void bs_ckpt_count(struct bs *bs, uint64_t bytes)
{
	atomic_fetch_add(&bs->ckpt->written_bytes, bytes);
}

void bs_ckpt_get_stat(struct bs *bs, struct bs_stat *st)
{
	struct bs_ckpt *c = bs->ckpt;

	st->checkpoint_lsn = le64_get(bs->sb.ckpt_l1);
	st->checkpoints = atomic_load(&c->written);
	st->checkpoint_bytes = atomic_load(&c->written_bytes);
}
