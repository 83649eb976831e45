/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Opening and closing: a table of steps, each with its undo; it reads as the story of recovery. Closing runs the
 * undos from the end. What must be written at a close is written before the first undo.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "blob/mend.h"
#include "blob/mutation.h"
#include "blob/share.h"
#include "blob/sum.h"

#define LOG_COMPONENT "blob"
#include "base/log.h"

#define CLAIM_RUNS 64u

static bool writable(const struct bs *bs)
{
	return !(bs->flags & BS_RDONLY);
}

/* ---- steps ---- */

/* The one that counts of two, both as they should be or not. */
static int choose_super(struct bs *bs, struct bs_sb_disk *sb, struct base_err *err)
{
	static const uint64_t where[2] = { 0, BS_SB_COPY_BLOCK };
	struct bs_sb_pair pair;
	int rc = bs_sb_read(bs->dev, &pair, err);

	if (rc)
		return rc;
	for (int i = 0; i < 2; i++) {
		struct bs_place place = { .pass = "superblock", .code = "superblock-copy", .block = where[i] };

		if (pair.state[i] == BS_SB_GOOD)
			continue;
		if (bs->reporter)
			bs_complain(bs, NULL, &place, "this copy of the superblock is damaged; the other is good");
		else
			log_warn("%s: the superblock at block %" PRIu64 " is damaged; using the other", bdev_info(bs->dev)->name,
				 where[i]);
	}
	if (bs->reporter && pair.state[0] == BS_SB_GOOD && pair.state[1] == BS_SB_GOOD &&
	    memcmp(pair.sb[0].uuid, pair.sb[1].uuid, sizeof(pair.sb[0].uuid))) {
		struct bs_place place = { .pass = "superblock", .code = "superblock-copy", .block = where[!pair.chosen] };

		bs_complain(bs, NULL, &place, "this superblock belongs to another store");
	}
	if (writable(bs) && bs_sb_overwritten(&pair))
		return base_err_set(err, -EUCLEAN, "%s: superblock: block 0 holds something else (another file system?); by the "
				    "copy at block %u it can be opened read-only", bdev_info(bs->dev)->name, BS_SB_COPY_BLOCK);
	*sb = pair.sb[pair.chosen];
	return bs_sb_validate(sb, bs->dev, writable(bs), err);
}

static int step_super(struct bs *bs, struct base_err *err)
{
	int rc = bs_mending(bs) ? bs_mend_super(bs, &bs->sb, err) : choose_super(bs, &bs->sb, err);

	if (rc)
		return rc;
	bs->blocks = le64_get(bs->sb.blocks);
	bs->carry_limit = (uint32_t)MIN(BS_CARRY_BLOCKS, bs->blocks / 256);
	bs->cluster_blocks = le32_get(bs->sb.cluster_blocks);
	bs->cluster_shift = (uint32_t)__builtin_ctz(bs->cluster_blocks);
	return 0;
}

static int step_memory(struct bs *bs, struct base_err *err)
{
	int rc;

	(void)err;
	rc = bs_memory_init(bs);
	/* Mending finds out by itself whether the superblock forgot the feature. */
	if (rc || (!(le64_get(bs->sb.incompat) & BS_INCOMPAT_SUM) && !bs_mending(bs)))
		return rc;
	rc = bs_sums_create(bs);
	if (rc)
		bs_memory_destroy(bs);
	return rc;
}

static int step_ckpt(struct bs *bs, struct base_err *err)
{
	(void)err;
	return bs_ckpt_create(bs);
}

static int step_log(struct bs *bs, struct base_err *err)
{
	(void)err;
	return bs_log_create(bs);
}

static int step_meta(struct bs *bs, struct base_err *err)
{
	(void)err;
	return bs_meta_create(bs);
}

static int step_load(struct bs *bs, struct base_err *err)
{
	int before = bs->reporter ? bs->reporter->count : 0, rc;

	bs->recovering = true;
	rc = bs_ckpt_load(bs, err);
	if (!bs->reporter || (rc && rc != -EUCLEAN))
		return rc;
	bs->reporter->broken = !bs->reporter->mend && (rc || bs->reporter->count > before);
	return 0;
}

static int step_replay(struct bs *bs, struct base_err *err)
{
	return bs_log_replay(bs, err);
}

/* R6: what was read may only have been in a volatile cache; from here on it counts. */
static int step_barrier(struct bs *bs, struct base_err *err)
{
	struct bdev_channel *ch;
	int rc;

	if (!writable(bs) || BS_MUTATE(recovery_flush))
		return 0;
	ch = bdev_channel_borrow(bs->dev);
	rc = bdev_io_sync(ch, BDEV_FLUSH, NULL, 0, 0, 0);
	bdev_channel_return(ch);
	return rc ? base_err_set(err, rc, "%s: cannot flush: %s", bdev_info(bs->dev)->name, strerror(-rc)) : 0;
}

static int step_apply(struct bs *bs, struct base_err *err)
{
	struct base_err why = { "" };
	int rc;

	if (bs_mending(bs))
		return bs_mend_blobs(bs);
	if (bs->reporter && bs->reporter->broken)
		return -EUCLEAN;
	rc = bs_apply_finish(bs, &why);
	if (rc == -EUCLEAN) {
		struct bs_place place = { .pass = "blobs", .code = "blob-absent", .block = UINT64_MAX };

		return bs_complain(bs, err, &place, "%s", base_err_text(&why, rc));
	}
	return rc;
}

static int claim_unit(struct bs *bs, struct base_err *err, enum bs_meta_user user, uint64_t block)
{
	struct bs_place place = { .pass = "space", .code = "metadata-overlap" };
	uint64_t bad = block;
	int rc = bs_meta_claim(bs, user, block, &bad);

	place.block = bad;
	if (rc == -EUCLEAN)
		return bs_complain(bs, err, &place, "the log or the checkpoint lies where something else is");
	return rc;
}

static int claim_blob(struct bs *bs, struct bs_blob *blob, struct base_err *err)
{
	struct bs_run runs[CLAIM_RUNS];
	uint64_t from = 0;
	unsigned n;

	while ((n = bs_runmap_copy(&blob->map, from, runs, CLAIM_RUNS)) > 0) {
		for (unsigned i = 0; i < n; i++) {
			struct bs_place place = { .pass = "space", .code = "run-overlap", .blob = blob->id };
			uint64_t bad = bs_run_phys(&runs[i]);
			int rc;

			if (runs[i].flags & BS_RUN_SHARED)
				rc = bs_share_note(bs, blob, &runs[i]);
			else
				rc = bs_space_claim(bs, bad, runs[i].count, &bad);

			place.block = bad;
			if (rc == -EUCLEAN)
				rc = bs_complain(bs, err, &place, "blob %" PRIu64 " claims a block that something else owns",
						 blob->id);
			if (rc && !(rc == -EUCLEAN && bs->reporter))
				return rc;
		}
		from = bs_run_end(&runs[n - 1]);
	}
	return 0;
}

/* Who owns which block is nowhere on the device: it is what recovery has found in use. */
static int step_space(struct bs *bs, struct base_err *err)
{
	const struct bs_ckpt_units *u = bs_ckpt_units(bs);
	struct bs_segment *s;
	struct bs_blob *blob;
	int rc = 0;

	if (bs_mending(bs)) {
		rc = bs_sums_verify_pages(bs);
		if (!rc)
			rc = bs_mend_space(bs);
		if (!rc)
			rc = bs_sums_verify(bs);
		if (!rc)
			bs_sums_settle(bs);
		bs->recovering = false;
		return rc;
	}
	for (uint32_t i = 0; i < u->n && !rc; i++)
		rc = claim_unit(bs, err, BS_META_CKPT, u->unit[i]);
	TAILQ_FOREACH(s, &bs->log->segments, link)
		if (!rc)
			rc = claim_unit(bs, err, BS_META_LOG, s->block);
	if (!rc)
		rc = claim_unit(bs, err, BS_META_LOG, bs->log->next->block);
	for (blob = bs_index_next(bs, 0); blob && !rc; blob = bs_index_next(bs, blob->id + 1))
		rc = claim_blob(bs, blob, err);
	if (!rc)
		rc = bs_share_settle(bs, err);
	if (!rc && bs->reporter)
		rc = bs_sums_verify_pages(bs);
	if (!rc && bs->reporter)
		rc = bs_sums_verify(bs);
	bs->recovering = false;
	return rc;
}

/* A log that nothing is wrong with, in space that nobody uses. */
static int step_restart(struct bs *bs, struct base_err *err)
{
	return bs_mending(bs) ? bs_mend_log_restart(bs, err) : 0;
}

static int step_log_start(struct bs *bs, struct base_err *err)
{
	int rc = writable(bs) ? bs_log_start(bs) : 0;

	if (rc == -EINVAL)
		return base_err_set(err, rc, "the arena for the log buffer is too small");
	return rc;
}

/* The pool is filled before anybody else can allocate: what was owned before is found again. */
static int step_pool(struct bs *bs, struct base_err *err)
{
	(void)err;
	if (writable(bs))
		bs_log_fit_limits(bs);
	return 0;
}

/* This mount's mark, before anything else of it is on the device. */
static int step_mark(struct bs *bs, struct base_err *err)
{
	struct bs_sb_disk sb = bs->sb;
	int rc;

	if (!writable(bs) || bs_mending(bs)) /* then the superblocks are the last thing to be written */
		return 0;
	sb.generation = le64_make(le64_get(sb.generation) + 1);
	sb.clean = le32_make(0);
	base_random(sb.mount_id, sizeof(sb.mount_id));
	bs_ckpt_count(bs, 2 * BS_BLOCK);
	rc = bs_sb_write_sync(bs->dev, &sb);
	if (rc)
		return base_err_set(err, rc, "%s: cannot write the superblock: %s", bdev_info(bs->dev)->name, strerror(-rc));
	bs->sb = sb;
	return 0;
}

static int step_service(struct bs *bs, struct base_err *err)
{
	(void)err;
	return bs_service_start(bs);
}

static const struct step {
	const char *name;
	int (*up)(struct bs *bs, struct base_err *err);
	void (*down)(struct bs *bs);
} steps[] = {
	{ "superblock", step_super, NULL },
	{ "memory", step_memory, bs_memory_destroy },
	{ "checkpoint state", step_ckpt, bs_ckpt_destroy },
	{ "log state", step_log, bs_log_destroy },
	{ "metadata space", step_meta, bs_meta_destroy },
	{ "load checkpoint", step_load, NULL },
	{ "replay log", step_replay, NULL },
	{ "make it durable", step_barrier, NULL },
	{ "finish replay", step_apply, NULL },
	{ "find used space", step_space, NULL },
	{ "mark as mounted", step_mark, NULL },
	{ "restart log", step_restart, NULL },
	{ "start log", step_log_start, bs_log_stop },
	{ "fill pool", step_pool, NULL },
	{ "start service", step_service, bs_service_stop },
};

static void undo(struct bs *bs, size_t n)
{
	while (n--)
		if (steps[n].down)
			steps[n].down(bs);
}

static int run_steps(struct bs *bs, struct base_err *err)
{
	int rc = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		rc = steps[i].up(bs, err);
		if (rc)
			break;
	}
	if (!rc)
		return 0;
	log_debug("%s: open: step '%s' failed: %s", bdev_info(bs->dev)->name, steps[i].name, strerror(-rc));
	undo(bs, i); /* a step that fails leaves nothing that the undos before it would not take away */
	if (err && !err->text[0])
		base_err_set(err, rc, "%s: %s: %s", bdev_info(bs->dev)->name, steps[i].name, strerror(-rc));
	return rc;
}

static int open_store(struct bdev *dev, const struct bs_open_opts *opts, struct bs_reporter *reporter, struct bs **out,
		      struct base_err *err)
{
	struct bs *bs = base_calloc(1, sizeof(*bs));
	int rc;

	if (!bs)
		return -ENOMEM;
	bs->dev = dev;
	bs->opts = *opts;
	bs->flags = opts->flags;
	bs->reporter = reporter;
	bs->next_id = 1;
	rc = run_steps(bs, err);
	if (rc) {
		free(bs);
		return rc;
	}
	bs->reporter = NULL;
	*out = bs;
	return 0;
}

int bs_open(struct bdev *dev, const struct bs_open_opts *opts, struct bs **out, struct base_err *err)
{
	static const struct bs_open_opts none = { .size = sizeof(none) };
	int rc;

	*out = NULL;
	if (err)
		err->text[0] = '\0';
	if (!opts)
		opts = &none;
	if (opts->size != sizeof(*opts))
		return base_err_set(err, -EINVAL, "open options have the wrong size");
	if (bdev_info(dev)->readonly && !(opts->flags & BS_RDONLY))
		return base_err_set(err, -EROFS, "%s: opened read-only", bdev_info(dev)->name);
	rc = open_store(dev, opts, NULL, out, err);
	if (rc || !(opts->flags & BS_GROW) || opts->flags & BS_RDONLY)
		return rc;
	rc = bs_grow(*out, 0, err);
	if (rc) {
		bs_release(*out);
		*out = NULL;
	}
	return rc;
}

int bs_open_checked(struct bdev *dev, struct bs_reporter *reporter, struct bs **out, struct base_err *err)
{
	static const struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_RDONLY };

	return open_store(dev, &opts, reporter, out, err);
}

int bs_open_mending(struct bdev *dev, struct bs_reporter *reporter, struct bs **out, struct base_err *err)
{
	static const struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_NO_SERVICE };

	return open_store(dev, &opts, reporter, out, err);
}

/* ---- closing ---- */

/* Everything but the device. */
void bs_release(struct bs *bs)
{
	undo(bs, ARRAY_SIZE(steps));
	free(bs);
}

static void destroy(struct bs *bs)
{
	struct bdev *dev = bs->dev;

	bs_release(bs);
	bdev_close(dev);
}

struct clean_op {
	struct op op;
	struct bs *bs;
};

static enum op_next clean_step(struct op *op)
{
	struct clean_op *c = container_of(op, struct clean_op, op);

	switch (op->step) {
	case 0:
		bs_ckpt_wait_start(c->bs, op, true);
		return op_await(op, 1, 0);
	case 1:
		return op_finish(op);
	}
	return op_bug(op);
}

static int clean_checkpoint(struct bs *bs)
{
	struct clean_op c = { .bs = bs };

	op_init(&c.op, "close", clean_step, bdev_channel_driver(bs->log->ch), NULL, NULL);
	op_start(&c.op);
	return op_wait(&c.op);
}

/* Leaves a checkpoint that holds everything and a log that holds nothing. */
static int write_clean(struct bs *bs)
{
	struct bs_log_pos pos;
	struct bs_sb_disk sb;
	int rc = bs_commit(bs, 0);

	if (rc)
		return rc;
	bs_log_get_pos(bs, &pos);
	if (pos.segment != le64_get(bs->sb.log_segment) || pos.offset != le32_get(bs->sb.log_offset))
		return clean_checkpoint(bs);
	sb = bs->sb;
	sb.generation = le64_make(le64_get(sb.generation) + 1);
	sb.clean = le32_make(1);
	return bs_sb_write_sync(bs->dev, &sb);
}

int bs_close(struct bs *bs)
{
	int rc = 0;

	if (bs->log->ch) {
		/* Nobody else logs anything from here on. */
		bs_service_stop(bs);
		rc = atomic_load(&bs->frozen);
		if (!rc)
			rc = write_clean(bs);
		if (!rc)
			bs_discard_rest(bs);
	}
	destroy(bs);
	return rc;
}

void bs_abandon(struct bs *bs)
{
	int none = 0;

	/* Nothing more is written than what is in flight now. */
	if (bs->log->ch) {
		atomic_compare_exchange_strong(&bs->frozen, &none, -EROFS);
		bs_log_fail_waiters(bs, -EROFS);
	}
	destroy(bs);
}

struct bdev *bs_bdev(struct bs *bs)
{
	return bs->dev;
}
