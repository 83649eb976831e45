/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A copy of a tree at one instant. Files are found and get quiet without a lock; what has been made or renamed meanwhile is
 * found in the transaction, which then gives up, and all begins again with those files added.
 */
#include <errno.h>
#include <sys/stat.h>

#include "blobfs/snapshot.h"

#define ROUNDS 8u

/* ---- getting quiet ---- */

/* 1: it is shared now; 0: it is no file, or was before. */
static int begin_file(struct snap *s, struct snap_node *n)
{
	int rc;

	if (n->inode || !S_ISREG(n->mode))
		return 0;
	rc = bfs_inode_get(s->fs, n->ino, &n->inode);
	if (rc) {
		n->inode = NULL;
		return rc == -ENOENT ? 0 : rc; /* gone since */
	}
	bs_share_begin(n->inode->blob);
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
		if (!n->inode || n->held)
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
		bs_share_end(n->inode->blob, n->held);
		bfs_inode_put(n->inode);
		n->inode = NULL;
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
	int rc = -EAGAIN;

	for (unsigned i = 0; i < ROUNDS && rc == -EAGAIN; i++) {
		rc = snap_collect(s);
		if (!rc)
			rc = quiet(s);
		if (!rc)
			rc = copy(s, t, ino);
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
	rc = top ? snapshot(&s, &t, &ino) : -ENOMEM;
	loud(&s);
	snap_free(&s);
	bfs_inode_put(t.dir);
	return rc || !out ? rc : bfs_getattr(fs, ino, out);
}
