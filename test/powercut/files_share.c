/* SPDX-License-Identifier: BSD-2-Clause */
/* Level 2: snapshots and clones of files and of a tree, rollbacks, and ranges shared between files. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

#include "test/powercut/files_load.h"

/* A transaction too long for so small a store, or no space: nothing was changed. */
static bool refused(struct load *l, int rc)
{
	return rc == -E2BIG || files_no_space(l, rc);
}

/* Its copy takes along what only the log has. */
static bool is_carried(struct load *l, const struct node *f)
{
	struct bs_blob *blob = bs_blob_get(bfs_store(l->fs), f->ino);
	struct bs_carried_range r;
	bool carried = blob && bs_carried_next(blob, 0, UINT64_MAX, &r);

	bs_blob_put(blob);
	return carried;
}

/* A copy of one file as another name. */
static void copy_file(struct load *l)
{
	bool sealed = rng_chance(&l->run->rng, 40);
	struct place from, to;
	struct bfs_attr a;
	uint64_t lsn;
	int rc;

	if (!files_find(l, &from, true, N_FILE) || !files_find(l, &to, false, -1))
		return;
	l->run->coverage.copied_carried += is_carried(l, from.node);
	rc = bfs_snapshot(l->fs, NULL, from.node->ino, to.dir, to.name, sealed ? BFS_SNAP_SEALED : 0, &a);
	if (refused(l, rc))
		return;
	files_must(l, "snapshot", rc);
	lsn = files_name_lsn(l, to.dir);
	trace(l->run, "%s of inode %" PRIu64 ": %u/%s, inode %" PRIu64, sealed ? "snapshot" : "clone", from.node->ino, to.d, to.name, a.ino);
	fm_copy(&l->m, from.node, a.ino, lsn, sealed);
	files_set_name(l, &to, l->m.n_nodes);
	l->run->coverage.snapshots++;
}

/* As blobfs rollback does: a copy beside it takes the place of what is there, which goes. */
static void roll_back(struct load *l)
{
	struct place from, to, beside;
	struct bfs_attr a;
	uint64_t lsn, index;
	int rc;

	if (!files_find(l, &from, true, N_FILE) || !files_find(l, &to, true, N_FILE) ||
	    !files_find(l, &beside, false, -1) || from.index == to.index)
		return;
	l->run->coverage.copied_carried += is_carried(l, from.node);
	rc = bfs_snapshot(l->fs, NULL, from.node->ino, beside.dir, beside.name, 0, &a);
	if (refused(l, rc))
		return;
	files_must(l, "snapshot", rc);
	lsn = files_name_lsn(l, beside.dir);
	fm_copy(&l->m, from.node, a.ino, lsn, false);
	index = l->m.n_nodes;
	files_set_name(l, &beside, index);
	rc = bfs_rename(l->fs, NULL, beside.dir, beside.name, to.dir, to.name, 0);
	if (files_no_space(l, rc))
		return;
	files_must(l, "rename", rc);
	trace(l->run, "rollback of %u/%s to inode %" PRIu64 ": inode %" PRIu64, to.d, to.name, from.node->ino, a.ino);
	files_set_name(l, &to, index);
	files_set_name(l, &beside, 0);
	files_lost_name(l, to.index);
	l->run->coverage.snapshots++;
}

/* Names of one inode in the tree are names of one copy. */
static uint64_t copy_node(struct load *l, const uint64_t *index, uint64_t *copied, unsigned n, uint64_t dir, uint64_t lsn, bool sealed)
{
	char name[8];
	struct bfs_attr a;

	for (unsigned k = 0; k < n; k++)
		if (index[k] == index[n])
			return copied[k];
	snprintf(name, sizeof(name), "n%u", n);
	files_must(l, "lookup", bfs_lookup(l->fs, NULL, dir, name, &a));
	fm_copy(&l->m, l->m.nodes[index[n] - 1], a.ino, lsn, sealed);
	return l->m.n_nodes;
}

static void copy_tree(struct load *l)
{
	unsigned d = 1 + (unsigned)rng_below(&l->run->rng, FM_SNAP - 1);
	bool sealed = rng_chance(&l->run->rng, 60);
	uint64_t index[FM_NAMES], copied[FM_NAMES] = { 0 }, lsn;
	struct bfs_attr a;
	int rc = bfs_snapshot(l->fs, NULL, fm_dir(&l->m, d), BFS_ROOT_INO, "snap", sealed ? BFS_SNAP_SEALED : 0, &a);

	if (refused(l, rc))
		return;
	files_must(l, "snapshot of a tree", rc);
	lsn = files_name_lsn(l, BFS_ROOT_INO);
	trace(l->run, "%s of /d%u: inode %" PRIu64, sealed ? "snapshot" : "clone", d, a.ino);
	fm_set(&l->m.dirs[FM_SNAP], lsn, a.ino);
	for (unsigned n = 0; n < FM_NAMES; n++) {
		index[n] = fm_at(&l->m.names[d][n], UINT64_MAX);
		if (index[n])
			copied[n] = copy_node(l, index, copied, n, a.ino, lsn, sealed);
		fm_set(&l->m.names[FM_SNAP][n], lsn, copied[n]);
	}
	l->run->coverage.snapshots++;
}

static void remove_tree(struct load *l)
{
	struct place p = { .d = FM_SNAP, .dir = fm_dir(&l->m, FM_SNAP) };

	trace(l->run, "remove /snap");
	for (p.n = 0; p.n < FM_NAMES; p.n++) {
		p.index = fm_at(&l->m.names[p.d][p.n], UINT64_MAX);
		if (!p.index)
			continue;
		snprintf(p.name, sizeof(p.name), "n%u", p.n);
		files_must(l, "remove", l->m.nodes[p.index - 1]->kind == N_DIR ? bfs_rmdir(l->fs, NULL, p.dir, p.name) :
										 bfs_unlink(l->fs, NULL, p.dir, p.name));
		files_set_name(l, &p, 0);
	}
	files_must(l, "rmdir", bfs_rmdir(l->fs, NULL, BFS_ROOT_INO, "snap"));
	fm_set(&l->m.dirs[FM_SNAP], files_name_lsn(l, BFS_ROOT_INO), 0);
}

/* What is long and lies alike is shared, the rest copied. */
static void copy_range(struct load *l)
{
	const uint64_t block = 4096 / FM_UNIT;
	uint64_t a = block * rng_below(&l->run->rng, 4), b = block * rng_below(&l->run->rng, 8), n, size, submitted = files_mark(l);
	struct bfs_file *in, *out;
	struct place from, to;
	int64_t done;

	if (!files_find(l, &from, true, N_FILE) || !files_find(l, &to, true, N_FILE) || to.node->sealed ||
	    from.index == to.index)
		return;
	size = fm_now_size(from.node) / FM_UNIT;
	if (size <= a)
		return;
	n = rng_chance(&l->run->rng, 70) ? FM_UNITS : 1 + rng_below(&l->run->rng, 300);
	n = MIN(n, MIN(size - a, FM_UNITS - b));
	l->run->coverage.copied_carried += is_carried(l, from.node) || is_carried(l, to.node);
	files_must(l, "open", bfs_open(l->fs, NULL, from.node->ino, O_RDONLY, BS_STREAM_UNKNOWN, &in));
	files_must(l, "open", bfs_open(l->fs, NULL, to.node->ino, O_WRONLY, BS_STREAM_UNKNOWN, &out));
	done = bfs_copy_range(in, a * FM_UNIT, out, b * FM_UNIT, n * FM_UNIT);
	bfs_close(in);
	bfs_close(out);
	trace(l->run, "copy inode %" PRIu64 " units %" PRIu64 " + %" PRIu64 " to inode %" PRIu64 " at %" PRIu64 ": %" PRId64, from.node->ino, a, n,
	      to.node->ino, b, done);
	if (files_no_space(l, done) || (done >= 0 && (uint64_t)done < n * FM_UNIT)) {
		fm_reread(&l->m, l->run, l->fs, to.node, submitted); /* part of it may be there */
		return;
	}
	fm_share(&l->m, from.node, a, to.node, b, n, submitted);
	if ((b + n) * FM_UNIT > fm_now_size(to.node))
		fm_size(&l->m, to.node, (b + n) * FM_UNIT, submitted);
	files_must(l, "copy", done < 0 ? (int)done : 0);
	l->run->coverage.shared += n / block;
}

void files_share(struct load *l)
{
	uint64_t dice = rng_below(&l->run->rng, 100);

	if (dice < 35)
		copy_file(l);
	else if (dice < 50)
		roll_back(l);
	else if (dice < 75)
		copy_range(l);
	else if (fm_dir(&l->m, FM_SNAP))
		remove_tree(l);
	else
		copy_tree(l);
}
