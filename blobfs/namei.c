/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Names: lookup, and the calls that add or take away one. Each change is one transaction: it excludes every other, so
 * that what was found inside it holds until it ends.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blobfs/internal.h"

int bfs_name_check(const char *name, int dots, size_t *len)
{
	*len = strnlen(name, BFS_NAME_MAX + 1);
	if (*len > BFS_NAME_MAX)
		return -ENAMETOOLONG;
	if (!*len)
		return -ENOENT;
	if (bfs_name_is_valid(name, *len))
		return 0;
	return memchr(name, '/', *len) ? -EINVAL : dots;
}

int bfs_dir_get(struct bfs *fs, uint64_t ino, struct bfs_inode **out)
{
	int rc = bfs_inode_get(fs, ino, out);

	if (rc || S_ISDIR((*out)->mode))
		return rc;
	bfs_inode_put(*out);
	return -ENOTDIR;
}

int bfs_may_create(const struct bfs_cred *cred, const struct bfs_inode *dir)
{
	if (!dir->nlink)
		return -ENOENT;
	return bfs_cred_check(cred, dir, W_OK | X_OK);
}

int bfs_may_delete(const struct bfs_cred *cred, const struct bfs_inode *dir, const struct bfs_inode *victim)
{
	int rc = bfs_cred_check(cred, dir, W_OK | X_OK);

	if (rc || bfs_cred_privileged(cred) || !(dir->mode & S_ISVTX))
		return rc;
	return cred->uid == victim->uid || cred->uid == dir->uid ? 0 : -EPERM;
}

/* ---- lookup ---- */

int bfs_parent(struct bfs *fs, uint64_t dir, uint64_t *parent)
{
	struct bfs_inode tmp = { .fs = fs };
	struct bs_blob_info info;
	struct bs_blob *blob;
	int rc;

	/* Only transactions change a parent, and they write the header: it is never behind what is in core. */
	blob = bs_blob_get(fs->bs, dir);
	if (!blob)
		return -ENOENT;
	bs_blob_get_info(blob, &info);
	bs_blob_put(blob);
	if (info.deleted)
		return -ENOENT;
	rc = bfs_inode_from_info(&info, &tmp);
	if (rc)
		return rc;
	if (!S_ISDIR(tmp.mode))
		return -ENOTDIR;
	*parent = tmp.parent;
	return 0;
}

/* One attempt: -ESTALE when the name was found and its inode was not, which means that it was just unlinked. */
static int lookup_once(struct bfs *fs, struct bs_blob *dir, const char *name, size_t len, struct bfs_attr *out)
{
	struct bfs_entry entry;
	int rc = bfs_dir_find(fs, dir, name, len, &entry);

	if (rc)
		return rc;
	rc = bfs_peek(fs, entry.ino, out, NULL);
	return rc == -ENOENT ? -ESTALE : rc;
}

static int lookup_entry(struct bfs *fs, struct bs_blob *dir, const char *name, size_t len, struct bfs_attr *out)
{
	struct bs_txn *txn;
	int rc = lookup_once(fs, dir, name, len, out);

	for (int tries = 0; rc == -ESTALE && tries < 8; tries++) {
		/* Whoever is unlinking it does so in a transaction: wait for its end. */
		if (!bs_txn_begin(fs->bs, 0, &txn))
			bs_txn_cancel(txn);
		rc = lookup_once(fs, dir, name, len, out);
	}
	return rc == -ESTALE ? -EUCLEAN : rc;
}

int bfs_lookup(struct bfs *fs, const struct bfs_cred *cred, uint64_t dir, const char *name, struct bfs_attr *out)
{
	struct bfs_attr attr;
	struct bs_blob *blob;
	uint64_t parent;
	size_t len;
	int rc;

	if (!out)
		out = &attr;
	rc = bfs_peek(fs, dir, out, &blob);
	if (rc)
		return rc;
	rc = S_ISDIR(out->mode) ? bfs_cred_check_mode(cred, out->mode, out->uid, out->gid, X_OK) : -ENOTDIR;
	if (rc)
		goto out;
	rc = bfs_name_check(name, 1, &len);
	if (rc == 1 && len == 2) {
		rc = bfs_parent(fs, dir, &parent);
		if (!rc)
			rc = bfs_peek(fs, parent, out, NULL);
	} else if (rc == 1) {
		rc = 0;
	} else if (!rc) {
		rc = lookup_entry(fs, blob, name, len, out);
	}
out:
	bs_blob_put(blob);
	return rc;
}

/* ---- adding ---- */

struct make {
	const struct bfs_cred *cred;
	const char *name;
	size_t len;
	uint32_t mode;
	uint64_t rdev;
	const char *target; /* of a symlink */
};

static void make_attributes(const struct make *m, const struct bfs_inode *dir, int64_t now, struct bfs_inode *inode)
{
	uint32_t mode = m->mode;

	inode->uid = m->cred ? m->cred->uid : 0;
	inode->gid = m->cred ? m->cred->gid : 0;
	if (m->cred && !m->target)
		mode &= ~(m->cred->umask & 0777);
	if (dir->mode & S_ISGID) {
		inode->gid = dir->gid;
		if (S_ISDIR(mode))
			mode |= S_ISGID;
		else if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && !bfs_cred_privileged(m->cred) &&
			 !bfs_cred_in_group(m->cred, dir->gid))
			mode &= ~(uint32_t)S_ISGID;
	}
	inode->mode = mode;
	inode->nlink = S_ISDIR(mode) ? 2 : 1;
	inode->parent = S_ISDIR(mode) ? dir->ino : 0;
	inode->rdev = S_ISCHR(mode) || S_ISBLK(mode) ? m->rdev : 0;
	inode->atime = now;
	inode->mtime = now;
	inode->ctime = now;
	inode->btime = now;
}

/* The new blob, with what belongs to it. */
static int make_blob(struct bs_txn *txn, const struct make *m, struct bfs_inode *inode, struct bs_blob **blob)
{
	struct bfs_inode_disk disk;
	uint32_t len;
	int rc;

	bfs_inode_pack(inode, &disk);
	rc = bs_txn_create(txn, 0, &disk, sizeof(disk), blob);
	if (rc || !m->target)
		return rc;
	len = (uint32_t)strlen(m->target);
	rc = bs_txn_put(txn, *blob, BFS_KIND_SYMLINK, 0, m->target, len);
	if (!rc)
		rc = bs_txn_header(txn, *blob, len, &disk, sizeof(disk));
	inode->size = len;
	inode->disk_size = len;
	return rc;
}

/* Inside the transaction: everything that can fail. */
static int make_prepare(struct bfs_change *change, const struct make *m, struct bfs_inode *dir,
			struct bfs_inode *inode)
{
	struct bs_blob *blob;
	struct bfs_edit *e;
	uint64_t key;
	int rc;

	rc = bfs_dir_new_key(change->fs, dir->blob, m->name, m->len, &key);
	if (!rc)
		rc = bfs_may_create(m->cred, dir);
	if (!rc && S_ISDIR(m->mode) && dir->nlink == UINT32_MAX)
		rc = -EMLINK;
	if (rc)
		goto cancel;
	make_attributes(m, dir, change->now, inode);
	rc = make_blob(change->txn, m, inode, &blob);
	if (rc)
		goto cancel;
	inode->ino = bs_blob_id(blob);
	rc = bfs_dir_put(change->txn, dir->blob, key, m->name, m->len, inode->ino, inode->mode);
	if (rc)
		goto cancel;
	e = bfs_change_edit(change, dir);
	bfs_edit_modify(change, e);
	e->size++;
	e->nlink += S_ISDIR(inode->mode);
	rc = bfs_change_prepare(change);
	if (!rc)
		inode->blob = blob; /* a cancelled one is dead already */
	return rc;
cancel:
	bfs_change_cancel(change);
	return rc;
}

static int make_once(struct bfs *fs, struct make *m, uint64_t dir_ino, uint32_t flags, struct bfs_attr *out)
{
	struct bfs_inode *dir, *inode;
	struct bfs_change change;
	int rc;

	rc = bfs_name_check(m->name, -EEXIST, &m->len);
	if (rc)
		return rc;
	rc = bfs_dir_get(fs, dir_ino, &dir);
	if (rc)
		return rc;
	inode = bfs_inode_alloc(fs);
	rc = inode ? bfs_change_begin(fs, 0, &change) : -ENOMEM;
	if (rc)
		goto out;
	rc = make_prepare(&change, m, dir, inode);
	if (rc)
		goto out;
	if (S_ISREG(inode->mode))
		bfs_snap_born(fs, change.txn, inode->blob);
	if (flags & BFS_REF)
		bfs_inode_insert(inode);
	bfs_inode_note_lsn(inode, bfs_change_finish(&change));
	if (out)
		bfs_inode_attr(inode, out);
	if (flags & BFS_REF)
		inode = NULL;
out:
	if (inode)
		bfs_inode_free(inode);
	bfs_inode_put(dir);
	return rc;
}

static int make(struct bfs *fs, struct make *m, uint64_t dir, uint32_t flags, struct bfs_attr *out)
{
	unsigned tried = 0;
	int rc;

	do
		rc = make_once(fs, m, dir, flags, out);
	while (bfs_change_again(fs, rc, tried++));
	return rc;
}

int bfs_mknod(struct bfs *fs, const struct bfs_cred *cred, uint64_t dir, const char *name, uint32_t mode, uint64_t rdev,
	      uint32_t flags, struct bfs_attr *out)
{
	struct make m = { .cred = cred, .name = name, .mode = mode & (S_IFMT | 07777), .rdev = rdev };

	switch (mode & S_IFMT) {
	case 0:
		m.mode |= S_IFREG;
		break;
	case S_IFREG:
	case S_IFIFO:
	case S_IFSOCK:
		break;
	case S_IFCHR:
	case S_IFBLK:
		if (!bfs_cred_privileged(cred))
			return -EPERM;
		break;
	case S_IFDIR:
		return -EPERM;
	default:
		return -EINVAL;
	}
	return make(fs, &m, dir, flags, out);
}

int bfs_mkdir(struct bfs *fs, const struct bfs_cred *cred, uint64_t dir, const char *name, uint32_t mode, uint32_t flags,
	      struct bfs_attr *out)
{
	struct make m = { .cred = cred, .name = name, .mode = S_IFDIR | (mode & 01777) };

	return make(fs, &m, dir, flags, out);
}

int bfs_symlink(struct bfs *fs, const struct bfs_cred *cred, uint64_t dir, const char *name, const char *target,
		uint32_t flags, struct bfs_attr *out)
{
	struct make m = { .cred = cred, .name = name, .mode = S_IFLNK | 0777, .target = target };

	if (!*target)
		return -ENOENT;
	if (strnlen(target, BFS_SYMLINK_MAX + 1) > BFS_SYMLINK_MAX)
		return -ENAMETOOLONG;
	return make(fs, &m, dir, flags, out);
}

static int link_prepare(struct bfs_change *change, const struct bfs_cred *cred, struct bfs_inode *inode,
			struct bfs_inode *dir, const char *name, size_t len)
{
	struct bfs_edit *e;
	uint64_t key;
	int rc;

	rc = bfs_dir_new_key(change->fs, dir->blob, name, len, &key);
	if (!rc)
		rc = bfs_may_create(cred, dir);
	if (!rc && S_ISDIR(inode->mode))
		rc = -EPERM;
	if (!rc && !inode->nlink)
		rc = -ENOENT;
	if (!rc && inode->nlink >= BFS_LINK_MAX)
		rc = -EMLINK;
	if (!rc)
		rc = bfs_dir_put(change->txn, dir->blob, key, name, len, inode->ino, inode->mode);
	if (rc) {
		bfs_change_cancel(change);
		return rc;
	}
	bfs_change_edit(change, inode)->nlink++;
	e = bfs_change_edit(change, dir);
	bfs_edit_modify(change, e);
	e->size++;
	return bfs_change_prepare(change);
}

int bfs_link(struct bfs *fs, const struct bfs_cred *cred, uint64_t ino, uint64_t dir_ino, const char *name,
	     uint32_t flags, struct bfs_attr *out)
{
	struct bfs_inode *inode, *dir;
	struct bfs_change change;
	unsigned tried = 0;
	size_t len;
	int rc;

	rc = bfs_name_check(name, -EEXIST, &len);
	if (rc)
		return rc;
	rc = bfs_inode_get(fs, ino, &inode);
	if (rc)
		return rc;
	rc = bfs_dir_get(fs, dir_ino, &dir);
	if (rc)
		goto put_inode;
	do {
		rc = bfs_change_begin(fs, 0, &change);
		if (!rc)
			rc = link_prepare(&change, cred, inode, dir, name, len);
	} while (bfs_change_again(fs, rc, tried++));
	if (!rc) {
		bfs_change_finish(&change);
		if (out)
			bfs_inode_attr(inode, out);
	}
	bfs_inode_put(dir);
put_inode:
	if (rc || !(flags & BFS_REF))
		bfs_inode_put(inode);
	return rc;
}

/* ---- taking away ---- */

static int remove_prepare(struct bfs_change *change, const struct bfs_cred *cred, struct bfs_inode *dir,
			  const struct bfs_entry *entry, struct bfs_inode *victim, bool rmdir)
{
	struct bfs_edit *e;
	int rc = bfs_may_delete(cred, dir, victim);

	if (!rc && S_ISDIR(victim->mode) != rmdir)
		rc = rmdir ? -ENOTDIR : -EISDIR;
	if (!rc && rmdir && victim->ino == BFS_ROOT_INO)
		rc = -EBUSY;
	if (!rc && rmdir && !bfs_dir_is_empty(victim->blob))
		rc = -ENOTEMPTY;
	if (!rc)
		rc = bs_txn_del(change->txn, dir->blob, BFS_KIND_DIRENT, entry->key);
	if (rc) {
		bfs_change_cancel(change);
		return rc;
	}
	e = bfs_change_edit(change, dir);
	bfs_edit_modify(change, e);
	e->size -= e->size > 0;
	e->nlink -= rmdir && e->nlink > 2;
	bfs_edit_drop_link(bfs_change_edit(change, victim));
	return bfs_change_prepare(change);
}

static int remove_name(struct bfs *fs, const struct bfs_cred *cred, uint64_t dir_ino, const char *name, size_t len,
		       bool rmdir)
{
	struct bfs_inode *dir, *victim = NULL;
	struct bfs_change change;
	struct bfs_entry entry;
	int rc;

	rc = bfs_dir_get(fs, dir_ino, &dir);
	if (rc)
		return rc;
	rc = bfs_change_begin(fs, BS_TXN_FREES, &change);
	if (rc)
		goto out;
	rc = bfs_cred_check(cred, dir, X_OK);
	if (!rc)
		rc = bfs_dir_find(fs, dir->blob, name, len, &entry);
	if (!rc) {
		rc = bfs_inode_get(fs, entry.ino, &victim);
		rc = rc == -ENOENT ? -EUCLEAN : rc; /* inside a transaction a name's inode is there */
	}
	if (rc)
		bfs_change_cancel(&change);
	else
		rc = remove_prepare(&change, cred, dir, &entry, victim, rmdir);
	if (!rc)
		bfs_change_finish(&change);
	if (victim)
		bfs_inode_put(victim);
	if (!rc)
		bfs_inode_retry_deletes(fs, true);
out:
	bfs_inode_put(dir);
	return rc;
}

int bfs_unlink(struct bfs *fs, const struct bfs_cred *cred, uint64_t dir, const char *name)
{
	size_t len;
	int rc = bfs_name_check(name, -EISDIR, &len);

	return rc ? rc : remove_name(fs, cred, dir, name, len, false);
}

int bfs_rmdir(struct bfs *fs, const struct bfs_cred *cred, uint64_t dir, const char *name)
{
	size_t len;
	int rc = bfs_name_check(name, 1, &len);

	if (rc == 1)
		return len == 1 ? -EINVAL : -ENOTEMPTY;
	return rc ? rc : remove_name(fs, cred, dir, name, len, true);
}
