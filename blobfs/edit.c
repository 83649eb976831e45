/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A change of names or attributes: one transaction, up to four inodes. Everything is checked and prepared inside the
 * transaction, which excludes every other change; what is in core follows before the transaction ends, which cannot
 * fail.
 */
#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#include "blobfs/internal.h"

int bfs_change_begin(struct bfs *fs, uint32_t txn_flags, struct bfs_change *change)
{
	change->fs = fs;
	change->n = 0;
	change->now = bfs_now();
	return bs_txn_begin(fs->bs, txn_flags, &change->txn);
}

/* What is nameless goes with the last that holds it: a write on its way, a kernel that has not forgotten it yet. Or a user, so not for ever. */
#define NAMELESS_TRIES 50
#define NAMELESS_NS 1000000

bool bfs_change_again(struct bfs *fs, int rc, unsigned tried)
{
	if (rc != -ENOSPC)
		return false;
	bfs_inode_retry_deletes(fs, true);
	if (bs_reclaim_wait(fs->bs, tried))
		return true;
	if (tried >= NAMELESS_TRIES || !atomic_load(&fs->n_nameless))
		return false;
	nanosleep(&(struct timespec){ .tv_nsec = NAMELESS_NS }, NULL);
	return true;
}

struct bfs_edit *bfs_change_edit(struct bfs_change *change, struct bfs_inode *inode)
{
	struct bs_blob_info info;
	struct bfs_edit *e;

	for (unsigned i = 0; i < change->n; i++) {
		if (change->edit[i].inode == inode)
			return &change->edit[i];
	}
	assert(change->n < ARRAY_SIZE(change->edit));
	bs_blob_get_info(inode->blob, &info);
	e = &change->edit[change->n++];
	*e = (struct bfs_edit){
		.inode = inode,
		.size = info.size,
		.parent = inode->parent,
		.mode = inode->mode,
		.nlink = inode->nlink,
		.uid = inode->uid,
		.gid = inode->gid,
		.ctime = change->now,
	};
	return e;
}

void bfs_edit_modify(struct bfs_change *change, struct bfs_edit *edit)
{
	edit->mtime = change->now;
	edit->set |= BFS_EDIT_MTIME;
}

void bfs_edit_drop_link(struct bfs_edit *edit)
{
	edit->nlink = S_ISDIR(edit->mode) || !edit->nlink ? 0 : edit->nlink - 1;
}

static int edit_put(struct bfs_change *change, struct bfs_edit *e)
{
	struct bfs_inode_disk disk;

	if (!e->nlink && bfs_inode_claim(e->inode)) {
		e->claimed = true;
		return bs_txn_delete(change->txn, e->inode->blob);
	}
	pthread_mutex_lock(&e->inode->lock);
	bfs_inode_pack(e->inode, &disk);
	pthread_mutex_unlock(&e->inode->lock);
	disk.mode = le32_make(e->mode);
	disk.nlink = le32_make(e->nlink);
	disk.uid = le32_make(e->uid);
	disk.gid = le32_make(e->gid);
	disk.parent = le64_make(e->parent);
	disk.ctime = le64_make((uint64_t)e->ctime);
	if (e->set & BFS_EDIT_MTIME)
		disk.mtime = le64_make((uint64_t)e->mtime);
	if (e->set & BFS_EDIT_ATIME)
		disk.atime = le64_make((uint64_t)e->atime);
	return bs_txn_header(change->txn, e->inode->blob, e->size, &disk, sizeof(disk));
}

static void edit_apply(const struct bfs_edit *e)
{
	struct bfs_inode *inode = e->inode;

	pthread_mutex_lock(&inode->lock);
	if (inode->nlink && !e->nlink && !e->claimed)
		atomic_fetch_add(&inode->fs->n_nameless, 1);
	inode->mode = e->mode;
	inode->nlink = e->nlink;
	inode->uid = e->uid;
	inode->gid = e->gid;
	inode->parent = e->parent;
	inode->ctime = e->ctime;
	if (e->set & BFS_EDIT_MTIME)
		inode->mtime = e->mtime;
	if (e->set & BFS_EDIT_ATIME)
		inode->atime = e->atime;
	if (S_ISDIR(e->mode)) {
		inode->disk_size = e->size;
		inode->size = e->size;
	}
	inode->deleted = e->claimed;
	pthread_mutex_unlock(&inode->lock);
}

int bfs_change_prepare(struct bfs_change *change)
{
	for (unsigned i = 0; i < change->n; i++) {
		int rc = edit_put(change, &change->edit[i]);

		if (rc) {
			bfs_change_cancel(change);
			return rc;
		}
	}
	return 0;
}

uint64_t bfs_change_finish(struct bfs_change *change)
{
	uint64_t lsn;

	for (unsigned i = 0; i < change->n; i++)
		edit_apply(&change->edit[i]);
	lsn = bs_txn_end(change->txn);
	for (unsigned i = 0; i < change->n; i++)
		bfs_inode_note_lsn(change->edit[i].inode, lsn);
	return lsn;
}

int bfs_change_commit(struct bfs_change *change)
{
	int rc = bfs_change_prepare(change);

	if (!rc)
		bfs_change_finish(change);
	return rc;
}

void bfs_change_cancel(struct bfs_change *change)
{
	for (unsigned i = 0; i < change->n; i++) {
		if (change->edit[i].claimed)
			bfs_inode_unclaim(change->edit[i].inode);
	}
	bs_txn_cancel(change->txn);
}
