/* SPDX-License-Identifier: BSD-2-Clause */
/* Level 2: files that are copied whole or in part by sharing their blocks, also while the log carries bytes of them. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

#include "test/powercut/files_load.h"

#define REFLINK_LEAST (16u * 4096 / FM_UNIT) /* units: less is copied byte by byte */

static bool is_carried(struct load *l, uint64_t ino)
{
	struct bs_blob *blob = bs_blob_get(bfs_store(l->fs), ino);
	struct bs_carried_range r;
	bool carried = blob && bs_carried_next(blob, 0, UINT64_MAX, &r);

	bs_blob_put(blob);
	return carried;
}

/* What is written to the file is in the copy, whether it was synced or not, from the moment the copy is there. */
static void clone(struct load *l)
{
	uint64_t submitted = files_mark(l), size;
	struct place from, to;
	struct bfs_attr a;
	struct node *f;
	int rc;

	if (!files_find(l, &from, true, N_FILE) || !files_find(l, &to, false, -1))
		return;
	size = fm_now_size(from.node);
	l->run->coverage.copied_carried += is_carried(l, from.node->ino);
	rc = bfs_snapshot(l->fs, NULL, from.node->ino, to.dir, to.name, 0, &a);
	if (files_no_space(l, rc))
		return;
	files_must(l, "clone", rc);
	trace(l->run, "clone %u/%s: inode %" PRIu64 " of inode %" PRIu64 ", %" PRIu64 " bytes", to.d, to.name, a.ino, from.node->ino, size);
	f = fm_node(&l->m, a.ino, N_FILE, ++l->m.counter);
	fm_set(&f->mode, files_name_lsn(l, to.dir), fm_at(&from.node->mode, UINT64_MAX));
	fm_set(&f->xattr, files_name_lsn(l, to.dir), fm_at(&from.node->xattr, UINT64_MAX));
	fm_copy(&l->m, from.node, f, 0, FM_UNITS, submitted);
	fm_size(&l->m, f, size, submitted);
	fm_synced(&l->m, f, l->m.seq, submitted);
	files_set_name(l, &to, l->m.n_nodes);
	l->run->coverage.snapshots++;
}

/* Whole blocks of one file to the same place in another. */
static void reflink(struct load *l)
{
	uint64_t submitted = files_mark(l), units, size;
	struct place from, to;
	struct bfs_file *in, *out;
	int64_t done;

	if (!files_find(l, &from, true, N_FILE) || !files_find(l, &to, true, N_FILE) || from.node == to.node)
		return;
	units = fm_now_size(from.node) / FM_UNIT;
	size = fm_now_size(to.node);
	if (units < REFLINK_LEAST)
		return;
	l->run->coverage.copied_carried += is_carried(l, from.node->ino) || is_carried(l, to.node->ino);
	files_must(l, "open", bfs_open(l->fs, NULL, from.node->ino, O_RDONLY, BS_STREAM_UNKNOWN, &in));
	files_must(l, "open", bfs_open(l->fs, NULL, to.node->ino, O_RDWR, BS_STREAM_UNKNOWN, &out));
	done = bfs_copy_range(in, 0, out, 0, units * FM_UNIT);
	bfs_close(in);
	bfs_close(out);
	trace(l->run, "reflink inode %" PRIu64 " to inode %" PRIu64 ": %" PRIu64 " units, %" PRId64 " bytes done", from.node->ino, to.node->ino,
	      units, done);
	if (done != (int64_t)(units * FM_UNIT)) {
		fm_reread(&l->m, l->run, l->fs, to.node, submitted);
		if (done < 0 && !files_no_space(l, done))
			files_must(l, "copy", (int)done);
		return;
	}
	fm_copy(&l->m, from.node, to.node, 0, units, submitted);
	if (units * FM_UNIT > size)
		fm_size(&l->m, to.node, units * FM_UNIT, submitted);
	l->run->coverage.shared += units * FM_UNIT / 4096;
}

void files_share(struct load *l)
{
	if (rng_chance(&l->run->rng, 60))
		clone(l);
	else
		reflink(l);
}
