/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Copying a range without its bytes: whole blocks of one file are mapped in another, or elsewhere in the same. Edges that are no
 * whole blocks are the caller's to copy, and so is everything when this gives up, which is no error.
 */
#include "blobfs/share.h"

#define PIECE_BLOCKS 65536ull
#define LEAST_BLOCKS 16u /* below that copying is as good, and leaves longer runs */

struct reflink {
	struct bfs_inode *in, *out;
	uint64_t from, to, count; /* pages */
};

/* In the transaction: the source has all of it, and nothing in it is garbage behind an old end (R9). */
static bool source_is_sound(const struct reflink *r)
{
	uint64_t stale = atomic_load(&r->in->stale_end) >> PAGE_SHIFT;

	if (atomic_load(&r->in->size) < (r->from + r->count) << PAGE_SHIFT)
		return false;
	return !atomic_load(&r->in->stale_end) || stale < r->from || stale >= r->from + r->count;
}

static bool replaces_stale(const struct reflink *r)
{
	uint64_t stale = atomic_load(&r->out->stale_end);

	return stale && stale >> PAGE_SHIFT >= r->to && stale >> PAGE_SHIFT < r->to + r->count;
}

/* In the transaction: the target goes as far as the range, and nothing before that is garbage, should its size be raised. */
static bool target_is_sound(const struct reflink *r)
{
	return atomic_load(&r->out->size) >= r->to << PAGE_SHIFT && (replaces_stale(r) || !bfs_tail_is_bare(r->out));
}

/* In the transaction, out->lock held. Ends or cancels it. */
static int share(struct reflink *r, struct bs_txn *txn)
{
	struct bfs_inode *out = r->out;
	uint64_t end = (r->to + r->count) << PAGE_SHIFT, page;
	int rc = source_is_sound(r) && target_is_sound(r) ? 0 : -EAGAIN;

	if (!rc)
		rc = bfs_share_reserve(r->in, r->from, r->from + r->count - 1);
	if (!rc)
		rc = bfs_range_leave(out, r->to, r->to + r->count, &page);
	if (!rc)
		rc = bs_txn_share(txn, r->in->blob, r->from, out->blob, r->to, r->count);
	if (!rc && atomic_load(&out->size) < end)
		rc = bfs_raise_size(txn, out, end);
	if (rc) {
		bs_txn_cancel(txn);
		return rc;
	}
	bfs_range_drop(out, r->to, r->to + r->count - 1, true);
	if (atomic_load(&out->data_end) < end)
		atomic_store(&out->data_end, end);
	bfs_written_to(out, end);
	/* The block that held garbage is another now. */
	if (replaces_stale(r))
		atomic_store(&out->stale_end, 0);
	bfs_inode_note_lsn(out, bs_txn_end(txn));
	/* Once more: what was read meanwhile by the old map. */
	bfs_range_drop(out, r->to, r->to + r->count - 1, true);
	bfs_inode_modified(out);
	return 0;
}

static int share_once(struct reflink *r)
{
	struct bs_txn *txn;
	int rc = bs_txn_begin(r->in->fs->bs, 0, &txn);

	if (rc)
		return rc;
	pthread_mutex_lock(&r->out->lock);
	rc = share(r, txn);
	pthread_mutex_unlock(&r->out->lock);
	return rc;
}

static int share_some(struct reflink *r)
{
	unsigned tried = 0;
	int rc;

	do
		rc = share_once(r);
	while (bfs_change_again(r->in->fs, rc, tried++));
	return rc;
}

/* All, piece by piece: how many pages. */
static uint64_t share_all(struct reflink *r)
{
	uint64_t left = r->count, done = 0, piece = PIECE_BLOCKS;
	int rc = 0;

	while (left && !rc) {
		r->count = MIN(left, piece);
		rc = share_some(r);
		if (rc == -E2BIG && piece > LEAST_BLOCKS) {
			piece /= 2;
			rc = 0;
			continue;
		}
		if (rc)
			break;
		r->from += r->count;
		r->to += r->count;
		left -= r->count;
		done += r->count;
	}
	return done;
}

/* To where the range begins the target's size is raised first, as any other raising; from there on with what is shared: where that is less
 * than was asked for, the target is no longer than what it got. */
static int make_room(struct bfs_inode *out, uint64_t size)
{
	struct bfs_req req = { .op = BFS_REQ_TRUNCATE, .ino = out->ino, .length = size };

	return atomic_load(&out->size) >= size ? 0 : (int)bfs_req_sync(out->fs, &req);
}

uint64_t bfs_reflink(struct bfs_inode *in, uint64_t in_off, struct bfs_inode *out, uint64_t out_off, uint64_t len)
{
	struct reflink r = { .in = in, .out = out, .from = in_off >> PAGE_SHIFT, .to = out_off >> PAGE_SHIFT };
	uint64_t size = atomic_load(&in->size), done = 0;

	if ((in_off | out_off) & (PAGE_SIZE - 1) || in_off >= size || in->fs->opts.flags & BFS_RDONLY || out->sealed)
		return 0;
	r.count = MIN(len, size - in_off) >> PAGE_SHIFT;
	if (r.count < LEAST_BLOCKS || make_room(out, r.to << PAGE_SHIFT))
		return 0;
	bs_share_begin(in->blob);
	if (!bfs_share_clean(in, r.from, r.from + r.count - 1)) {
		bs_share_hold(in->blob);
		if (!bfs_share_wait(in->fs))
			done = share_all(&r);
		bs_share_end(in->blob, true);
	} else {
		bs_share_end(in->blob, false);
	}
	return done << PAGE_SHIFT;
}
