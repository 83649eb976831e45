/* SPDX-License-Identifier: BSD-2-Clause */
/* Attributes of inodes in core: what is in the header, what is newer than it, and how it gets there. */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blobfs/internal.h"

#define DAY_NS (86400ll * 1000000000ll)

int64_t bfs_now(void)
{
	return base_wall_ns();
}

static uint64_t header_size(const struct bfs_inode *inode)
{
	struct bs_blob_info info;

	bs_blob_get_info(inode->blob, &info);
	return info.size;
}

int bfs_inode_put_header(struct bs_txn *txn, struct bfs_inode *inode, uint64_t size)
{
	struct bfs_inode_disk disk;
	int rc;

	if (size == BFS_KEEP_SIZE)
		size = header_size(inode);
	bfs_inode_pack(inode, &disk);
	rc = bs_txn_header(txn, inode->blob, size, &disk, sizeof(disk));
	if (!rc)
		inode->disk_size = size;
	return rc;
}

void bfs_inode_note_lsn(struct bfs_inode *inode, uint64_t lsn)
{
	uint64_t old = atomic_load_explicit(&inode->lsn, memory_order_relaxed);

	while (old < lsn && !atomic_compare_exchange_weak(&inode->lsn, &old, lsn))
		;
}

/* ---- the list of what is dirty ---- */

void bfs_inode_mark_dirty(struct bfs_inode *inode)
{
	struct bfs *fs = inode->fs;

	if (inode->on_dirty_list)
		return;
	pthread_mutex_lock(&fs->dirty_lock);
	pthread_mutex_lock(&fs->icache_lock);
	inode->on_dirty_list = true;
	inode->refs++;
	pthread_mutex_unlock(&fs->icache_lock);
	if (LIST_EMPTY(&fs->dirty))
		bfs_data_arm(fs);
	LIST_INSERT_HEAD(&fs->dirty, inode, dirty_link);
	pthread_mutex_unlock(&fs->dirty_lock);
}

void bfs_inode_unmark_dirty(struct bfs_inode *inode)
{
	struct bfs *fs = inode->fs;

	if (!inode->on_dirty_list || inode->attr_dirty || inode->n_dirty || inode->n_writing)
		return;
	pthread_mutex_lock(&fs->dirty_lock);
	LIST_REMOVE(inode, dirty_link);
	pthread_mutex_lock(&fs->icache_lock);
	inode->on_dirty_list = false;
	assert(inode->refs > 1);
	inode->refs--;
	pthread_mutex_unlock(&fs->icache_lock);
	pthread_mutex_unlock(&fs->dirty_lock);
}

/* ---- times ---- */

static void set_time(_Atomic int64_t *time, int64_t now)
{
	atomic_store_explicit(time, now, memory_order_relaxed);
}

void bfs_inode_modified(struct bfs_inode *inode)
{
	int64_t now = bfs_now();

	set_time(&inode->mtime, now);
	set_time(&inode->ctime, now);
	inode->attr_dirty = true;
	bfs_inode_mark_dirty(inode);
}

static bool atime_is_due(struct bfs_inode *inode, int64_t *now)
{
	int64_t atime = atomic_load_explicit(&inode->atime, memory_order_relaxed);

	*now = bfs_now();
	return atime <= atomic_load_explicit(&inode->mtime, memory_order_relaxed) ||
	       atime <= atomic_load_explicit(&inode->ctime, memory_order_relaxed) ||
	       *now - atime >= DAY_NS;
}

void bfs_inode_accessed(struct bfs_inode *inode)
{
	int64_t now;

	if (inode->fs->opts.flags & (BFS_RDONLY | BFS_NOATIME))
		return;
	if (!atime_is_due(inode, &now))
		return;
	pthread_mutex_lock(&inode->lock);
	/* Within the clock's tick of a change the rule would hold again with each read. */
	if (atime_is_due(inode, &now) && atomic_load_explicit(&inode->atime, memory_order_relaxed) != now) {
		set_time(&inode->atime, now);
		inode->attr_dirty = true;
		bfs_inode_mark_dirty(inode);
	}
	pthread_mutex_unlock(&inode->lock);
}

/* ---- reading ---- */

/* Dirty pages count as blocks, as they will be: else what was just written looks like a hole. */
static uint64_t blocks_of(const struct bfs_inode *inode, const struct bs_blob_info *info)
{
	uint64_t cached = atomic_load(&inode->n_dirty) + atomic_load(&inode->n_writing);
	uint64_t most = div_round_up(atomic_load(&inode->size), BS_BLOCK);

	return MAX(bfs_blocks_held(inode->blob, info), MIN(info->mapped_blocks + cached, most));
}

void bfs_inode_attr(struct bfs_inode *inode, struct bfs_attr *out)
{
	struct bs_blob_info info;

	bs_blob_get_info(inode->blob, &info);
	pthread_mutex_lock(&inode->lock);
	*out = (struct bfs_attr){
		.ino = inode->ino,
		.mode = inode->mode,
		.nlink = inode->nlink,
		.uid = inode->uid,
		.gid = inode->gid,
		.rdev = inode->rdev,
		.size = inode->size,
		.blocks = blocks_of(inode, &info) * (BS_BLOCK / 512),
		.blksize = BS_BLOCK,
		.atime = inode->atime,
		.mtime = inode->mtime,
		.ctime = inode->ctime,
		.btime = inode->btime,
	};
	pthread_mutex_unlock(&inode->lock);
}

/* ---- permissions ---- */

bool bfs_cred_privileged(const struct bfs_cred *cred)
{
	return !cred || cred->uid == 0 || (cred->flags & BFS_CRED_CHECKED);
}

bool bfs_cred_in_group(const struct bfs_cred *cred, uint32_t gid)
{
	if (cred->gid == gid)
		return true;
	for (uint32_t i = 0; i < cred->n_groups && cred->groups; i++) {
		if (cred->groups[i] == gid)
			return true;
	}
	return false;
}

int bfs_cred_check_mode(const struct bfs_cred *cred, uint32_t mode, uint32_t uid, uint32_t gid, int mask)
{
	uint32_t granted;

	if (!cred || cred->flags & BFS_CRED_CHECKED)
		return 0;
	if (cred->uid == 0) /* all but executing what nobody may execute */
		return (mask & X_OK) && !S_ISDIR(mode) && !(mode & 0111) ? -EACCES : 0;
	if (cred->uid == uid)
		granted = mode >> 6;
	else if (bfs_cred_in_group(cred, gid))
		granted = mode >> 3;
	else
		granted = mode;
	return (uint32_t)mask & ~granted & 7 ? -EACCES : 0;
}

int bfs_cred_check(const struct bfs_cred *cred, const struct bfs_inode *inode, int mask)
{
	return bfs_cred_check_mode(cred, inode->mode, inode->uid, inode->gid, mask);
}
