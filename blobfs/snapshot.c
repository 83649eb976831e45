/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A copy of a tree at one instant. Files are found and get quiet without a lock. Those that are made meanwhile are born quiet.
 * One that was moved in, or past the search, is found in the transaction, which then gives up, and all begins again with it added; the
 * files that were there before are fewer with each round. So only who moves old files into the tree, again and again, holds up a copy.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "blobfs/snapshot.h"

#define ROUNDS 64u
#define PATIENT_ROUNDS 4u /* without a pause; then 1, 2, 3 … ms, at most two seconds in all */

/* ---- getting quiet ---- */

/* 1: it is shared now; 0: it is no file, or was before. */
static int begin_file(struct snap *s, struct snap_node *n)
{
	int rc;

	if (n->begun || n->born || !S_ISREG(n->mode))
		return 0;
	rc = bfs_inode_get(s->fs, n->ino, &n->inode);
	if (rc) {
		n->inode = NULL;
		return rc == -ENOENT ? 0 : rc; /* gone since */
	}
	bs_share_begin(n->inode->blob);
	n->begun = true;
	rc = bfs_share_clean(n->inode, 0, UINT64_MAX >> PAGE_SHIFT);
	return rc ? rc : 1;
}

static int quiet(struct snap *s)
{
	struct snap_node *n;
	int rc = 0;

	TAILQ_FOREACH(n, &s->list, link) {
		rc = begin_file(s, n);
		if (rc < 0)
			return rc;
	}
	TAILQ_FOREACH(n, &s->list, link) {
		if (!n->begun || n->held)
			continue;
		bs_share_hold(n->inode->blob);
		n->held = true;
	}
	return bfs_share_wait(s->fs);
}

static void loud(struct snap *s)
{
	struct snap_node *n;

	TAILQ_FOREACH(n, &s->list, link) {
		if (!n->inode)
			continue;
		if (n->begun)
			bs_share_end(n->inode->blob, n->held);
		bfs_inode_put(n->inode);
		n->inode = NULL;
	}
}

/* ---- files made meanwhile ---- */

/* Without memory it is a file like any other, and costs the copy a round. */
void bfs_snap_born(struct bfs *fs, struct bs_txn *txn, struct bs_blob *blob)
{
	struct snap *s;

	if (!atomic_load(&fs->n_snaps))
		return;
	pthread_mutex_lock(&fs->snap_lock);
	LIST_FOREACH(s, &fs->snaps, fs_link) {
		struct snap_born *b = base_malloc(sizeof(*b));

		if (!b)
			continue;
		bs_blob_ref(blob);
		bs_share_born(txn, blob);
		b->blob = blob;
		SLIST_INSERT_HEAD(&s->born, b, link);
	}
	pthread_mutex_unlock(&fs->snap_lock);
}

static void births_begin(struct snap *s)
{
	SLIST_INIT(&s->born);
	pthread_mutex_lock(&s->fs->snap_lock);
	LIST_INSERT_HEAD(&s->fs->snaps, s, fs_link);
	atomic_fetch_add(&s->fs->n_snaps, 1);
	pthread_mutex_unlock(&s->fs->snap_lock);
}

static void births_end(struct snap *s)
{
	struct snap_born *b;

	pthread_mutex_lock(&s->fs->snap_lock);
	LIST_REMOVE(s, fs_link);
	atomic_fetch_sub(&s->fs->n_snaps, 1);
	pthread_mutex_unlock(&s->fs->snap_lock);
	while ((b = SLIST_FIRST(&s->born))) {
		SLIST_REMOVE_HEAD(&s->born, link);
		bs_share_end(b->blob, true);
		bs_blob_put(b->blob);
		free(b);
	}
}

/* ---- the transaction ---- */

struct target {
	const struct bfs_cred *cred;
	struct bfs_inode *dir;
	const char *name;
	size_t len;
};

/* Everything that can fail; cancels then. */
static int prepare(struct snap *s, const struct target *t, struct bfs_change *change, struct snap_node **top)
{
	struct bfs_edit *e;
	uint64_t key;
	int rc = bfs_dir_new_key(s->fs, t->dir->blob, t->name, t->len, &key);

	TAILQ_INIT(&s->todo);
	if (!rc)
		rc = bfs_may_create(t->cred, t->dir);
	if (!rc && t->dir->nlink == UINT32_MAX)
		rc = -EMLINK;
	if (!rc)
		rc = snap_copy(s, change->txn, top);
	if (!rc)
		rc = bfs_dir_put(change->txn, t->dir->blob, key, t->name, t->len, bs_blob_id((*top)->to), (*top)->mode);
	if (rc) {
		bfs_change_cancel(change);
		return rc;
	}
	e = bfs_change_edit(change, t->dir);
	bfs_edit_modify(change, e);
	e->size++;
	e->nlink += S_ISDIR((*top)->mode);
	return bfs_change_prepare(change);
}

static int copy(struct snap *s, const struct target *t, uint64_t *ino)
{
	struct bfs_change change;
	struct snap_node *top;
	int rc = bfs_change_begin(s->fs, 0, &change);

	if (rc)
		return rc;
	rc = prepare(s, t, &change, &top);
	if (!rc) {
		*ino = bs_blob_id(top->to);
		bfs_change_finish(&change);
	}
	snap_put(s, !rc);
	return rc;
}

static int snapshot(struct snap *s, const struct target *t, uint64_t *ino)
{
	unsigned tried = 0;
	int rc = -EAGAIN;

	for (unsigned i = 0; i < ROUNDS && rc == -EAGAIN; i++) {
		if (i >= PATIENT_ROUNDS)
			nanosleep(&(struct timespec){ .tv_nsec = (i - PATIENT_ROUNDS + 1) * 1000000l }, NULL);
		rc = snap_collect(s);
		if (!rc)
			rc = quiet(s);
		if (!rc)
			rc = copy(s, t, ino);
		if (bfs_change_again(s->fs, rc, tried++))
			rc = -EAGAIN;
	}
	return rc == -EAGAIN ? -EBUSY : rc;
}

int bfs_snapshot(struct bfs *fs, const struct bfs_cred *cred, uint64_t ino, uint64_t dir, const char *name,
		 uint32_t flags, struct bfs_attr *out)
{
	struct snap s = { .fs = fs, .top = ino, .dir = dir, .sealed = flags & BFS_SNAP_SEALED };
	struct target t = { .cred = cred, .name = name };
	struct snap_node *top;
	struct bfs_attr attr;
	int rc = bfs_name_check(name, -EEXIST, &t.len);

	if (rc)
		return rc;
	if (fs->opts.flags & BFS_RDONLY)
		return -EROFS;
	if (!bfs_cred_privileged(cred))
		return -EPERM;
	rc = bfs_getattr(fs, ino, &attr);
	if (!rc)
		rc = bfs_dir_get(fs, dir, &t.dir);
	if (rc)
		return rc;
	RB_INIT(&s.tree);
	TAILQ_INIT(&s.list);
	TAILQ_INIT(&s.todo);
	top = snap_find(&s, ino);
	if (top)
		top->mode = attr.mode;
	births_begin(&s);
	rc = top ? snapshot(&s, &t, &ino) : -ENOMEM;
	births_end(&s);
	loud(&s);
	snap_free(&s);
	bfs_inode_put(t.dir);
	return rc || !out ? rc : bfs_getattr(fs, ino, out);
}
