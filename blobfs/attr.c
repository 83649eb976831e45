/* SPDX-License-Identifier: BSD-2-Clause */
/* Attribute calls: references, getattr, setattr, access, statfs. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blobfs/internal.h"

int bfs_ref(struct bfs *fs, uint64_t ino)
{
	struct bfs_inode *inode;

	return bfs_inode_get(fs, ino, &inode);
}

void bfs_unref(struct bfs *fs, uint64_t ino, uint64_t n)
{
	struct bfs_inode *inode;
	int rc;

	/* The caller's references keep it in core; finding it adds one. */
	if (n && bfs_inode_find(fs, ino, &rc, &inode) && !rc)
		bfs_inode_put_n(inode, n + 1);
}

uint64_t bfs_blocks_held(struct bs_blob *blob, const struct bs_blob_info *info)
{
	uint64_t n = info->mapped_blocks;
	struct bs_carried_range r;
	struct bs_extent e;

	for (uint64_t b = 0; info->carried && bs_carried_next(blob, b, UINT64_MAX - b, &r); b = r.block + 1) {
		bs_map_lookup(blob, r.block, 1, &e);
		n += (e.flags & BS_RUN_HOLE) != 0;
	}
	return n;
}

static int peek_blob(struct bfs *fs, struct bs_blob *blob, struct bfs_attr *out)
{
	struct bfs_inode inode = { .fs = fs };
	struct bs_blob_info info;
	int rc;

	bs_blob_get_info(blob, &info);
	if (info.deleted)
		return -ENOENT;
	rc = bfs_inode_from_info(&info, &inode);
	if (rc)
		return rc;
	*out = (struct bfs_attr){
		.ino = info.id,
		.mode = inode.mode,
		.nlink = inode.nlink,
		.uid = inode.uid,
		.gid = inode.gid,
		.rdev = inode.rdev,
		.size = info.size,
		.blocks = bfs_blocks_held(blob, &info) * (BS_BLOCK / 512),
		.blksize = BS_BLOCK,
		.atime = inode.atime,
		.mtime = inode.mtime,
		.ctime = inode.ctime,
		.btime = inode.btime,
	};
	return inode.nlink ? 0 : -ENOENT;
}

int bfs_peek(struct bfs *fs, uint64_t ino, struct bfs_attr *out, struct bs_blob **blob_out)
{
	struct bfs_inode *inode;
	struct bs_blob *blob;
	int rc;

	if (bfs_inode_find(fs, ino, &rc, &inode)) {
		if (rc)
			return rc;
		bfs_inode_attr(inode, out);
		if (blob_out) {
			bs_blob_ref(inode->blob);
			*blob_out = inode->blob;
		}
		bfs_inode_put(inode);
		return 0;
	}
	blob = bs_blob_get(fs->bs, ino);
	if (!blob)
		return -ENOENT;
	rc = peek_blob(fs, blob, out);
	if (!rc && blob_out)
		*blob_out = blob;
	else
		bs_blob_put(blob);
	return rc;
}

int bfs_getattr(struct bfs *fs, uint64_t ino, struct bfs_attr *out)
{
	return bfs_peek(fs, ino, out, NULL);
}

int bfs_access(struct bfs *fs, const struct bfs_cred *cred, uint64_t ino, int mask)
{
	struct bfs_attr attr;
	int rc;

	if (mask & ~(R_OK | W_OK | X_OK))
		return -EINVAL;
	rc = bfs_peek(fs, ino, &attr, NULL);
	if (rc)
		return rc;
	if ((mask & W_OK) && (fs->opts.flags & BFS_RDONLY) &&
	    (S_ISREG(attr.mode) || S_ISDIR(attr.mode) || S_ISLNK(attr.mode)))
		return -EROFS;
	return bfs_cred_check_mode(cred, attr.mode, attr.uid, attr.gid, mask);
}

/* ---- setattr ---- */

#define SET_TIMES (BFS_SET_ATIME | BFS_SET_MTIME | BFS_SET_CTIME)
#define SET_NOW (BFS_SET_ATIME_NOW | BFS_SET_MTIME_NOW)
#define SET_ALL (BFS_SET_MODE | BFS_SET_UID | BFS_SET_GID | SET_TIMES | SET_NOW)

static int setattr_allowed(const struct bfs_cred *cred, const struct bfs_edit *e, const struct bfs_attr *attr,
			   uint32_t mask)
{
	if (bfs_cred_privileged(cred))
		return 0;
	if ((mask & BFS_SET_UID) && (attr->uid != e->uid || cred->uid != e->uid))
		return -EPERM;
	if ((mask & BFS_SET_GID) && attr->gid != e->gid &&
	    (cred->uid != e->uid || !bfs_cred_in_group(cred, attr->gid)))
		return -EPERM;
	if ((mask & (BFS_SET_MODE | BFS_SET_GID | SET_TIMES)) && cred->uid != e->uid)
		return -EPERM;
	if ((mask & SET_NOW) && cred->uid != e->uid)
		return bfs_cred_check_mode(cred, e->mode, e->uid, e->gid, W_OK);
	return 0;
}

static void edit_owner(struct bfs_edit *e, const struct bfs_attr *attr, uint32_t mask)
{
	if (!(mask & (BFS_SET_UID | BFS_SET_GID)))
		return;
	if (mask & BFS_SET_UID)
		e->uid = attr->uid;
	if (mask & BFS_SET_GID)
		e->gid = attr->gid;
	/* As chown(2): sgid without group execute is mandatory locking, not a privilege. */
	if (S_ISDIR(e->mode))
		return;
	e->mode &= ~(uint32_t)S_ISUID;
	if (e->mode & S_IXGRP)
		e->mode &= ~(uint32_t)S_ISGID;
}

static void edit_mode(const struct bfs_cred *cred, struct bfs_edit *e, const struct bfs_attr *attr, uint32_t mask)
{
	if (!(mask & BFS_SET_MODE))
		return;
	e->mode = (e->mode & S_IFMT) | (attr->mode & 07777);
	if (!bfs_cred_privileged(cred) && !bfs_cred_in_group(cred, e->gid))
		e->mode &= ~(uint32_t)S_ISGID;
}

static void edit_times(struct bfs_change *change, struct bfs_edit *e, const struct bfs_attr *attr, uint32_t mask)
{
	if (mask & (BFS_SET_ATIME | BFS_SET_ATIME_NOW)) {
		e->atime = mask & BFS_SET_ATIME_NOW ? change->now : attr->atime;
		e->set |= BFS_EDIT_ATIME;
	}
	if (mask & (BFS_SET_MTIME | BFS_SET_MTIME_NOW)) {
		e->mtime = mask & BFS_SET_MTIME_NOW ? change->now : attr->mtime;
		e->set |= BFS_EDIT_MTIME;
	}
	if (mask & BFS_SET_CTIME)
		e->ctime = attr->ctime;
}

static int setattr_change(const struct bfs_cred *cred, struct bfs_inode *inode, const struct bfs_attr *attr,
			  uint32_t mask)
{
	struct bfs_change change;
	struct bfs_edit *e;
	int rc;

	rc = bfs_change_begin(inode->fs, 0, &change);
	if (rc)
		return rc;
	e = bfs_change_edit(&change, inode);
	rc = setattr_allowed(cred, e, attr, mask);
	if (rc) {
		bfs_change_cancel(&change);
		return rc;
	}
	edit_owner(e, attr, mask);
	edit_mode(cred, e, attr, mask);
	edit_times(&change, e, attr, mask);
	return bfs_change_commit(&change);
}

int bfs_setattr(struct bfs *fs, const struct bfs_cred *cred, uint64_t ino, const struct bfs_attr *attr, uint32_t mask,
		struct bfs_attr *out)
{
	struct bfs_inode *inode;
	int rc;

	if (mask & ~(uint32_t)SET_ALL)
		return -EINVAL;
	rc = bfs_inode_get(fs, ino, &inode);
	if (rc)
		return rc;
	if (mask)
		rc = setattr_change(cred, inode, attr, mask);
	if (!rc && out)
		bfs_inode_attr(inode, out);
	bfs_inode_put(inode);
	return rc;
}

/* ---- the whole ---- */

int bfs_get_statfs(struct bfs *fs, struct bfs_statfs *out)
{
	struct bs_stat st;

	bs_get_stat(fs->bs, &st);
	memset(out, 0, sizeof(*out));
	out->block_size = BS_BLOCK;
	out->blocks = st.blocks;
	/* What was freed a moment ago is given out again before a writer is told that space ran out. */
	out->free_blocks = st.free_blocks + st.pending_blocks;
	out->avail_blocks = st.avail_blocks + st.pending_blocks;
	out->files = st.blobs;
	out->name_max = BFS_NAME_MAX;
	memcpy(out->uuid, fs->uuid, sizeof(out->uuid));
	memcpy(out->label, fs->label, sizeof(out->label));
	out->readonly = st.readonly || st.frozen;
	return 0;
}
