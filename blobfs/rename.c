/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rename: one transaction, whatever it moves or replaces. The new name is put before the old one goes, so that whoever looks
 * without a lock sees the file under both names for an instant, never under none. A name that is replaced keeps
 * its key.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blobfs/internal.h"

#define DEPTH_MAX (1u << 20) /* a path up this long is a cycle */

struct end { /* one end of a rename */
	struct bfs_inode *dir, *inode; /* inode: NULL when the name is not there */
	const char *name;
	size_t len;
	struct bfs_entry entry;
};

struct rename {
	const struct bfs_cred *cred;
	struct end from, to;
	bool exchange;
};

static bool is_dir(const struct end *end)
{
	return end->inode && S_ISDIR(end->inode->mode);
}

/* Is `ino` dir itself or above it? 1, 0 or an error. */
static int is_above(struct bfs *fs, uint64_t ino, uint64_t dir)
{
	for (unsigned depth = 0; depth < DEPTH_MAX; depth++) {
		uint64_t parent;
		int rc;

		if (dir == ino)
			return 1;
		if (dir == BFS_ROOT_INO)
			return 0;
		rc = bfs_parent(fs, dir, &parent);
		if (rc)
			return rc == -ENOENT || rc == -ENOTDIR ? -EUCLEAN : rc;
		dir = parent;
	}
	return -EUCLEAN;
}

static int check_loops(struct bfs *fs, const struct rename *r)
{
	int rc = 0;

	if (r->from.dir == r->to.dir)
		return 0;
	if (is_dir(&r->from))
		rc = is_above(fs, r->from.inode->ino, r->to.dir->ino);
	if (rc)
		return rc < 0 ? rc : -EINVAL;
	if (is_dir(&r->to))
		rc = is_above(fs, r->to.inode->ino, r->from.dir->ino);
	if (rc)
		return rc < 0 ? rc : r->exchange ? -EINVAL : -ENOTEMPTY;
	return 0;
}

/* Who moves a directory to another parent changes its "..". */
static int may_move(const struct rename *r, const struct end *end)
{
	if (r->from.dir == r->to.dir || !is_dir(end))
		return 0;
	return bfs_cred_check(r->cred, end->inode, W_OK);
}

static int check_permissions(const struct rename *r)
{
	int rc = bfs_may_delete(r->cred, r->from.dir, r->from.inode);

	if (!rc && r->to.inode)
		rc = bfs_may_delete(r->cred, r->to.dir, r->to.inode);
	else if (!rc)
		rc = bfs_may_create(r->cred, r->to.dir);
	if (!rc)
		rc = may_move(r, &r->from);
	if (!rc && r->exchange)
		rc = may_move(r, &r->to);
	return rc;
}

static int check_replace(const struct rename *r)
{
	if (!r->to.inode || r->exchange)
		return 0;
	if (is_dir(&r->from) && !is_dir(&r->to))
		return -ENOTDIR;
	if (!is_dir(&r->from) && is_dir(&r->to))
		return -EISDIR;
	return is_dir(&r->to) && !bfs_dir_is_empty(r->to.inode->blob) ? -ENOTEMPTY : 0;
}

static int check(struct bfs *fs, const struct rename *r)
{
	int rc;

	if (!r->to.dir->nlink)
		return -ENOENT;
	rc = check_loops(fs, r);
	if (!rc)
		rc = check_permissions(r);
	if (!rc)
		rc = check_replace(r);
	if (!rc && is_dir(&r->from) && r->to.dir->nlink == UINT32_MAX)
		rc = -EMLINK;
	return rc;
}

/* A directory leaves `from` and comes to `to`. */
static void move_dir(struct bfs_change *change, const struct end *end, struct bfs_inode *from, struct bfs_inode *to)
{
	struct bfs_edit *e;

	if (!is_dir(end) || from == to)
		return;
	bfs_change_edit(change, end->inode)->parent = to->ino;
	e = bfs_change_edit(change, from);
	e->nlink -= e->nlink > 2;
	bfs_change_edit(change, to)->nlink++;
}

static void edit_both_dirs(struct bfs_change *change, const struct rename *r)
{
	bfs_edit_modify(change, bfs_change_edit(change, r->from.dir));
	bfs_edit_modify(change, bfs_change_edit(change, r->to.dir));
	bfs_change_edit(change, r->from.inode);
}

static int put_name(struct bfs_change *change, const struct end *at, uint64_t key, const struct end *what)
{
	return bfs_dir_put(change->txn, at->dir->blob, key, at->name, at->len, what->inode->ino, what->inode->mode);
}

static int exchange(struct bfs_change *change, const struct rename *r)
{
	int rc = put_name(change, &r->to, r->to.entry.key, &r->from);

	if (!rc)
		rc = put_name(change, &r->from, r->from.entry.key, &r->to);
	if (rc)
		return rc;
	edit_both_dirs(change, r);
	bfs_change_edit(change, r->to.inode);
	move_dir(change, &r->from, r->from.dir, r->to.dir);
	move_dir(change, &r->to, r->to.dir, r->from.dir);
	return 0;
}

static int move(struct bfs_change *change, const struct rename *r)
{
	uint64_t key = r->to.entry.key;
	struct bfs_edit *e;
	int rc = 0;

	if (!r->to.inode)
		rc = bfs_dir_new_key(change->fs, r->to.dir->blob, r->to.name, r->to.len, &key);
	if (!rc)
		rc = put_name(change, &r->to, key, &r->from);
	if (!rc)
		rc = bs_txn_del(change->txn, r->from.dir->blob, BFS_KIND_DIRENT, r->from.entry.key);
	if (rc)
		return rc;
	edit_both_dirs(change, r);
	e = bfs_change_edit(change, r->from.dir);
	e->size -= e->size > 0;
	e = bfs_change_edit(change, r->to.dir);
	e->size += !r->to.inode;
	if (is_dir(&r->to))
		e->nlink -= e->nlink > 2;
	move_dir(change, &r->from, r->from.dir, r->to.dir);
	if (r->to.inode)
		bfs_edit_drop_link(bfs_change_edit(change, r->to.inode));
	return 0;
}

/* Finds what is at one end; a missing name leaves end->inode NULL. */
static int find_end(struct bfs *fs, const struct rename *r, struct end *end)
{
	int rc = bfs_cred_check(r->cred, end->dir, X_OK);

	if (!rc)
		rc = bfs_dir_find(fs, end->dir->blob, end->name, end->len, &end->entry);
	if (rc)
		return rc;
	rc = bfs_inode_get(fs, end->entry.ino, &end->inode);
	if (rc)
		end->inode = NULL;
	return rc == -ENOENT ? -EUCLEAN : rc;
}

/* Inside the transaction. 1: nothing to do. */
static int rename_prepare(struct bfs_change *change, struct rename *r, uint32_t flags)
{
	int rc = find_end(change->fs, r, &r->from);

	if (!rc) {
		rc = find_end(change->fs, r, &r->to);
		if (rc == -ENOENT && !r->exchange)
			rc = 0;
		else if (!rc && (flags & RENAME_NOREPLACE))
			rc = -EEXIST;
	}
	if (!rc && r->from.inode == r->to.inode)
		rc = 1;
	if (!rc)
		rc = check(change->fs, r);
	if (!rc)
		rc = r->exchange ? exchange(change, r) : move(change, r);
	if (rc) {
		bfs_change_cancel(change);
		return rc;
	}
	return bfs_change_prepare(change);
}

static int rename_once(struct bfs *fs, struct rename *r, uint32_t flags)
{
	struct bfs_change change;
	int rc = bfs_change_begin(fs, 0, &change);

	if (rc)
		return rc;
	rc = rename_prepare(&change, r, flags);
	if (!rc)
		bfs_change_finish(&change);
	if (r->from.inode)
		bfs_inode_put(r->from.inode);
	if (r->to.inode)
		bfs_inode_put(r->to.inode);
	r->from.inode = r->to.inode = NULL;
	return rc == 1 ? 0 : rc;
}

static int rename_run(struct bfs *fs, struct rename *r, uint32_t flags)
{
	unsigned tried = 0;
	int rc;

	do
		rc = rename_once(fs, r, flags);
	while (bfs_change_again(fs, rc, tried++));
	return rc;
}

int bfs_rename(struct bfs *fs, const struct bfs_cred *cred, uint64_t dir, const char *name, uint64_t new_dir,
	       const char *new_name, uint32_t flags)
{
	struct rename r = {
		.cred = cred,
		.from.name = name,
		.to.name = new_name,
		.exchange = flags & RENAME_EXCHANGE,
	};
	int rc;

	if ((flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE)) ||
	    flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	rc = bfs_name_check(name, -EBUSY, &r.from.len);
	if (!rc)
		rc = bfs_name_check(new_name, flags & RENAME_NOREPLACE ? -EEXIST : -EBUSY, &r.to.len);
	if (rc)
		return rc;
	rc = bfs_dir_get(fs, dir, &r.from.dir);
	if (rc)
		return rc;
	rc = bfs_dir_get(fs, new_dir, &r.to.dir);
	if (!rc) {
		rc = rename_run(fs, &r, flags);
		bfs_inode_put(r.to.dir);
	}
	bfs_inode_put(r.from.dir);
	return rc;
}
