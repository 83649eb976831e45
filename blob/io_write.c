/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writing. The plan gives each block a place: its own, if it is mapped, written and not to be kept;
 * its own, if it is unwritten, and then it has to be published; or a new one. Then all data goes to
 * the device, and then the new places are published in one transaction. Nothing else sees them
 * before.
 *
 * Between plan and publication the write is an intent of its blob, and an unmap, a truncate or a
 * deletion strikes out blocks there. They are not published, and their space is free at once, for
 * nobody has ever seen it.
 */
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "blob/mutation.h"
#include "blob/sum.h"

enum { PLAN, ROUND, PUBLISH, DONE, CANCEL };

/* ---- plan; bs->lock held ---- */

static int add_slice(struct io_req *r, enum bs_slice_kind kind, uint64_t block, uint64_t phys,
		     uint64_t count)
{
	struct bs_intent *it = &r->intent;
	uint16_t off = (uint16_t)(block - it->block);
	struct bs_slice *last = it->n ? &it->slice[it->n - 1] : NULL;

	if (last && last->kind == kind && last->off + last->count == off &&
	    last->phys + last->count == phys) {
		last->count = (uint16_t)(last->count + count);
		return 0;
	}
	if (it->n == r->slice_cap) {
		struct bs_slice *all = base_malloc(it->count * sizeof(*all));

		if (!all)
			return -ENOMEM;
		memcpy(all, it->slice, it->n * sizeof(*all));
		it->slice = all;
		r->slice_cap = it->count;
	}
	it->slice[it->n++] = (struct bs_slice){
		.phys = phys, .off = off, .count = (uint16_t)count, .kind = (uint16_t)kind
	};
	return 0;
}

static int add_new(void *arg, uint64_t logical, uint64_t phys, uint64_t count)
{
	return add_slice(arg, BS_SLICE_NEW, logical, phys, count);
}

/* Gives new places back. */
static void free_new(struct io_req *r)
{
	for (uint32_t i = 0; i < r->intent.n; i++) {
		const struct bs_slice *s = &r->intent.slice[i];

		if (s->kind == BS_SLICE_NEW)
			bs_space_free_now(r->bs, s->phys, s->count);
	}
	r->intent.n = 0;
}

static enum bs_slice_kind kind_of(const struct bs_io *io, const struct bs_extent *e)
{
	/* Not even unwritten blocks: a write beside this one might publish them while ours is still
	 * on its way. */
	if ((e->flags & BS_RUN_HOLE) || ((e->flags & BS_RUN_SUM) && !BS_MUTATE(sum_in_place)) || ((io->flags & BS_IO_NEW) && !BS_MUTATE(in_place_new)))
		return BS_SLICE_NEW;
	/* Shared, or about to be: then what is overwritten after this would be in the snapshot. What is unwritten is in none. */
	if (((e->flags & BS_RUN_SHARED) || (io->blob->holds && !(e->flags & BS_RUN_UNWRITTEN))) && !BS_MUTATE(shared_in_place))
		return BS_SLICE_NEW;
	return e->flags & BS_RUN_UNWRITTEN ? BS_SLICE_UNWRITTEN : BS_SLICE_INPLACE;
}

static bool is_wanted(const struct bs_intent *it, uint32_t off)
{
	return it->wanted[off / 64] >> (off % 64) & 1;
}

/* Shortens e to blocks that are all wanted, or all not: then true. */
static bool clip_to_wanted(const struct bs_intent *it, uint64_t block, struct bs_extent *e)
{
	uint32_t off = (uint32_t)(block - it->block), n = 1;
	bool wanted = is_wanted(it, off);

	while (n < e->count && is_wanted(it, off + n) == wanted)
		n++;
	e->count = n;
	return !wanted;
}

static int plan_extents(struct io_req *r, struct bs_place_req *req)
{
	uint64_t block = r->intent.block, end = block + r->intent.count, fresh = block;
	struct bs_extent e;
	int rc = 0;

	/* [fresh, block) awaits a new place, so that neighbours get one together. */
	for (; !rc && block < end; block += e.count) {
		enum bs_slice_kind kind;

		bs_runmap_lookup(&r->io->blob->map, block, end - block, &e);
		kind = kind_of(r->io, &e);
		if (kind == BS_SLICE_UNWRITTEN && r->sums && bs_sum_contended(r, block, e.count))
			kind = BS_SLICE_NEW;
		/* What was given up goes to a place that is never published. */
		if (clip_to_wanted(&r->intent, block, &e))
			kind = BS_SLICE_NEW;
		if (kind == BS_SLICE_NEW)
			continue;
		if (fresh < block)
			rc = bs_place(r->bs, req, fresh, block - fresh);
		if (!rc)
			rc = add_slice(r, kind, block, e.phys, e.count);
		fresh = block + e.count;
	}
	if (!rc && fresh < end)
		rc = bs_place(r->bs, req, fresh, end - fresh);
	return rc;
}

static bool must_publish(const struct io_req *r)
{
	if (r->intent.carried)
		return true;
	for (uint32_t i = 0; i < r->intent.n; i++)
		if (r->intent.slice[i].kind != BS_SLICE_INPLACE)
			return true;
	return false;
}

static void unlist(struct io_req *r)
{
	if (r->listed)
		LIST_REMOVE(&r->intent, link);
	r->listed = false;
}

/* What the runs of this write may add to the metadata is there, unless space for it was reserved:
 * that is a promise. */
static bool meta_fits(struct io_req *r)
{
	uint64_t sums = r->sums ? r->intent.n * (sizeof(struct bs_rec_disk) + 4ull) + r->intent.count * sizeof(le32) : 0;

	return r->io->reserved || r->io->claims || bs_meta_fits(r->bs, 2 * bs_runs_bytes(r->intent.n) + sums);
}

static int plan(struct io_req *r)
{
	struct bs_io *io = r->io;
	struct bs_intent *it = &r->intent;
	struct bs_place_req req = { .blob = io->blob,
				    .stream = io->stream,
				    .ahead = true,
				    .reserved = io->reserved,
				    .claims = io->claims,
				    .fn = add_new,
				    .arg = r };
	int rc;

	if (io->blob->deleted)
		return -ENOENT;
	it->block = io->offset / BS_BLOCK;
	it->count = (uint32_t)(io->length / BS_BLOCK);
	it->n = 0;
	it->carried = bs_carried_any(io->blob, it->block, it->count);
	it->lsn = r->bs->lsn;
	memset(it->wanted, 0xff, sizeof(it->wanted));
	if (io->wanted)
		io->wanted(io, it->wanted, io->publish_arg);
	/* Listed from the beginning: blocks of one group find each other's cluster. */
	LIST_INSERT_HEAD(&io->blob->intents, it, link);
	r->listed = true;
	rc = plan_extents(r, &req);
	if (!rc && must_publish(r) && !meta_fits(r))
		rc = -ENOSPC;
	if (rc) {
		bs_space_rereserve(r->bs, io->reserved - req.reserved);
		bs_space_hold_again(io->blob, io->claims - req.claims, 0);
		free_new(r);
	} else {
		r->claims = io->claims;
		r->held = io->claims - req.claims;
		bs_blob_unclaim(io->blob, io->claims, true);
		io->claims = 0;
		io->reserved = req.reserved;
	}
	if (rc || !must_publish(r))
		unlist(r);
	return rc;
}

/* ---- data ---- */

/* Neighbours on the device go together, whatever their kinds. */
static void write_span(struct io_req *r, struct io_span *span)
{
	const struct bs_slice *s = &r->intent.slice[r->slice];
	uint64_t block = r->pos / BS_BLOCK, end;

	while (block >= (uint64_t)s->off + s->count)
		s++;
	span->hole = false;
	span->at = (s->phys - s->off) * BS_BLOCK + r->pos;
	end = s->off + s->count;
	while (end * BS_BLOCK < r->io->length && s[1].phys == s->phys + s->count) {
		s++;
		end += s->count;
	}
	span->len = end * BS_BLOCK - r->pos;
	r->slice = (uint32_t)(s - r->intent.slice);
}

/* ---- publication; bs->lock held ---- */

struct runs {
	struct io_req *r;
	uint32_t n;
	struct bs_run run[BS_PUT_RUNS];
};

/* Only what still is the unwritten block that was written: another write may have published since.
 * */
static void add_unwritten(struct runs *runs, uint64_t block, uint64_t phys, uint64_t count)
{
	uint64_t end = block + count;
	struct bs_extent e;

	for (; block < end; phys += e.count, block += e.count) {
		bs_runmap_lookup(&runs->r->io->blob->map, block, end - block, &e);
		if (e.flags == BS_RUN_UNWRITTEN && e.phys == phys)
			bs_run_set(&runs->run[runs->n++], block, phys, e.count, runs->r->sums ? BS_RUN_SUM : 0);
	}
}

/* Blocks [off, off + count) of the write, all wanted or none. */
static void publish_part(struct runs *runs, const struct bs_slice *s, uint32_t off, uint32_t count,
			 bool wanted)
{
	struct io_req *r = runs->r;
	uint64_t phys = s->phys + (off - s->off), block = r->intent.block + off;

	if (s->kind == BS_SLICE_UNWRITTEN && wanted)
		add_unwritten(runs, block, phys, count);
	else if (s->kind == BS_SLICE_NEW && wanted)
		bs_run_set(&runs->run[runs->n++], block, phys, count, r->sums ? BS_RUN_SUM : 0);
}

typedef void (*part_fn)(struct runs *runs, const struct bs_slice *s, uint32_t off, uint32_t count,
			bool wanted);

static void each_part(struct runs *runs, part_fn fn)
{
	const struct bs_intent *it = &runs->r->intent;

	for (uint32_t i = 0; i < it->n; i++) {
		const struct bs_slice *s = &it->slice[i];
		uint32_t off = s->off, end = off + s->count, to;

		for (; off < end; off = to) {
			bool wanted = is_wanted(it, off);

			for (to = off + 1; to < end && is_wanted(it, to) == wanted; to++)
				;
			fn(runs, s, off, to - off, wanted);
		}
	}
}

static void free_unwanted(struct runs *runs, const struct bs_slice *s, uint32_t off, uint32_t count,
			  bool wanted)
{
	if (s->kind == BS_SLICE_NEW && !wanted)
		bs_space_free_now(runs->r->bs, s->phys + (off - s->off), count);
}

/* What was carried for blocks that are wanted, and not put after this write was planned: its bytes are older than those. */
static int brought_home(struct io_req *r, struct bs_txn *txn)
{
	const struct bs_intent *it = &r->intent;
	uint32_t from, to;
	int rc = 0;

	for (from = 0; !rc && from < it->count; from = to) {
		bool wanted = is_wanted(it, from);

		for (to = from + 1; to < it->count && is_wanted(it, to) == wanted; to++)
			;
		if (wanted)
			rc = bs_txn_brought_home(txn, r->io->blob, it->block + from, to - from, it->lsn);
	}
	return rc;
}

static int publish_in(struct io_req *r, struct bs_txn *txn)
{
	struct runs runs;
	int rc = 0;

	if (r->io->blob->deleted)
		return -ENOENT;
	runs.r = r;
	runs.n = 0;
	each_part(&runs, publish_part);
	/* Sums first: whoever sees a run finds them. */
	for (uint32_t i = 0; r->sums && i < runs.n && !rc; i++)
		rc = bs_sum_publish(r, txn, &runs.run[i]);
	if (!rc && runs.n)
		rc = bs_txn_put_runs(txn, r->io->blob, runs.run, runs.n, false);
	if (!rc && r->intent.carried)
		rc = brought_home(r, txn);
	if (!rc && r->io->publish)
		rc = r->io->publish(txn, r->io, r->io->publish_arg);
	if (rc)
		return rc;
	unlist(r);
	each_part(&runs, free_unwanted);
	if (BS_MUTATE(publish_first) && !r->wrote)
		return 0;
	r->intent.n = 0;
	return 0;
}

static int publish(struct io_req *r)
{
	struct bs_txn *txn;
	int rc = bs_txn_try(r->bs, 0, &txn);

	if (rc)
		return rc;
	rc = publish_in(r, txn);
	if (rc)
		bs_txn_cancel(txn);
	else
		r->io->lsn = bs_txn_end(txn);
	return rc;
}

/* ---- the op ---- */

static enum op_next step_plan(struct op *op, struct io_req *r)
{
	int rc;

	if (r->bs->sums && r->io->blob != r->bs->sums->blob && !r->inside && bs_sums_wait_start(r->bs, op)) {
		r->waited = true;
		return op_await(op, PLAN, 0);
	}
	if (!r->inside)
		io_enter(r);
	rc = bs_sum_take(r);
	if (!rc) {
		bs_lock_foreground(r->bs);
		rc = atomic_load(&r->bs->frozen) ? -EROFS : plan(r);
		pthread_mutex_unlock(&r->bs->lock);
	}
	if (!rc)
		return op_goto(op, ROUND);
	/* Not while inside: reclaiming waits for those who are. */
	io_leave(r);
	op->on_error = DONE;
	if (rc != -ENOSPC || !bs_has_service(r->bs) || !bs_space_try_again(r->bs, r->tried))
		return op_fail(op, rc);
	r->tried++;
	bs_reclaim_start(r->bs, op);
	return op_await(op, PLAN, 0);
}

static enum op_next step_round(struct op *op, struct io_req *r)
{
	op->on_error = CANCEL;
	if (BS_MUTATE(publish_first) && !r->wrote && must_publish(r))
		publish(r);
	r->wrote = true;
	io_round(r, BDEV_WRITE, write_span);
	/* We may be in another thread's poll, after a wait for something else. */
	if (r->tried || r->waited)
		bdev_kick(r->io->ch);
	return op_await(op, r->pos < r->io->length ? ROUND : PUBLISH, 0);
}

static enum op_next step_publish(struct op *op, struct io_req *r)
{
	int rc;

	op->on_error = CANCEL;
	if (r->wrote)
		io_written(r);
	if (BS_MUTATE(publish_first) && r->io->lsn)
		return op_goto(op, DONE);
	r->wrote = false;
	if (!r->io->publish && !must_publish(r))
		return op_goto(op, DONE);
	rc = publish(r);
	if (rc == -EAGAIN && bs_has_service(r->bs)) {
		bs_log_wait_room_start(r->bs, op);
		return op_await(op, PUBLISH, 0);
	}
	return rc ? op_fail(op, rc) : op_goto(op, DONE);
}

static void cancel(struct io_req *r)
{
	if (r->wrote)
		io_written(r);
	bs_lock_foreground(r->bs);
	unlist(r);
	bs_space_hold_again(r->io->blob, r->held, r->claims);
	r->io->claims = r->claims;
	free_new(r);
	pthread_mutex_unlock(&r->bs->lock);
}

enum op_next io_write_step(struct op *op)
{
	struct bs_io *io = container_of(op, struct bs_io, op_);
	struct io_req *r = io_req(io);

	switch (op->step) {
	case PLAN:
		return step_plan(op, r);
	case ROUND:
		return step_round(op, r);
	case PUBLISH:
		return step_publish(op, r);
	case CANCEL:
		if (r->wrote)
			op->rc = io_device_rc(r->bs, op->rc);
		cancel(r);
		return op_goto(op, DONE);
	case DONE:
		bs_sum_put_back(r);
		io_home(r);
		io_leave(r);
		if (io->reserved)
			bs_space_unreserve(r->bs, io->reserved);
		io->reserved = 0;
		io_drop(r);
		bs_epoch_wrote(r->bs, io->ch, io->stream, r->pos);
		return op_finish(op);
	}
	return op_bug(op);
}
