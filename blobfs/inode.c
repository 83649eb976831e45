/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Inodes in core: found by number, counted, loaded from their blob's header.
 *
 * A header is only ever changed by somebody who holds the inode in core, and the struct leaves the tree only when nothing
 * of it is unwritten. So a header read under icache_lock, while the inode is not in the tree, is true when it is put there.
 *
 * Cached pages outlive the last count: their inode is then idle, until somebody asks for it or its last page is evicted.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "blobfs/internal.h"
#define LOG_COMPONENT "blobfs"
#include "base/log.h"

#define IDLE_MAX 16384u

static int inode_cmp(const struct bfs_inode *a, const struct bfs_inode *b)
{
	return a->ino < b->ino ? -1 : a->ino > b->ino;
}
RB_GENERATE_INTERNAL(bfs_inode_tree, bfs_inode, node, inode_cmp, __attribute__((unused)) static)

/* ---- the disk's form ---- */

void bfs_inode_pack(const struct bfs_inode *inode, struct bfs_inode_disk *out)
{
	*out = (struct bfs_inode_disk){
		.mode = le32_make(inode->mode),
		.nlink = le32_make(inode->nlink),
		.uid = le32_make(inode->uid),
		.gid = le32_make(inode->gid),
		.rdev = le64_make(inode->rdev),
		.atime = le64_make((uint64_t)inode->atime),
		.mtime = le64_make((uint64_t)inode->mtime),
		.ctime = le64_make((uint64_t)inode->ctime),
		.btime = le64_make((uint64_t)inode->btime),
		.parent = le64_make(inode->parent),
	};
}

static bool mode_is_known(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return !(mode & ~(S_IFMT | 07777u));
	}
	return false;
}

int bfs_inode_unpack(const struct bfs_inode_disk *disk, struct bfs_inode *inode)
{
	uint32_t mode = le32_get(disk->mode);
	uint64_t parent = le64_get(disk->parent);

	if (!mode_is_known(mode) || le32_get(disk->flags) || le32_get(disk->reserved))
		return -EUCLEAN;
	if (S_ISDIR(mode) ? !parent : parent)
		return -EUCLEAN;
	inode->mode = mode;
	inode->nlink = le32_get(disk->nlink);
	inode->uid = le32_get(disk->uid);
	inode->gid = le32_get(disk->gid);
	inode->rdev = le64_get(disk->rdev);
	inode->atime = (int64_t)le64_get(disk->atime);
	inode->mtime = (int64_t)le64_get(disk->mtime);
	inode->ctime = (int64_t)le64_get(disk->ctime);
	inode->btime = (int64_t)le64_get(disk->btime);
	inode->parent = parent;
	return 0;
}

int bfs_inode_from_info(const struct bs_blob_info *info, struct bfs_inode *inode)
{
	int rc;

	if (info->user_len != sizeof(struct bfs_inode_disk))
		return -EUCLEAN;
	rc = bfs_inode_unpack((const struct bfs_inode_disk *)info->user, inode);
	if (rc)
		return rc;
	if (S_ISREG(inode->mode) && info->size > BFS_SIZE_MAX)
		return -EUCLEAN;
	inode->ino = info->id;
	inode->disk_size = info->size;
	inode->size = info->size;
	inode->sealed = info->sealed;
	bfs_data_inode_init(inode);
	return 0;
}

/* ---- counting ---- */

struct bfs_inode *bfs_inode_alloc(struct bfs *fs)
{
	struct bfs_inode *inode = base_calloc(1, sizeof(*inode));

	if (!inode)
		return NULL;
	inode->fs = fs;
	inode->refs = 1;
	pthread_mutex_init(&inode->lock, NULL);
	pthread_mutex_init(&inode->pages_lock, NULL);
	return inode;
}

void bfs_inode_free(struct bfs_inode *inode)
{
	pthread_mutex_destroy(&inode->lock);
	pthread_mutex_destroy(&inode->pages_lock);
	bs_blob_put(inode->blob);
	free(inode);
}

/* icache_lock held. One that is leaving core is waited for: its pages are being dropped, in memory. */
static struct bfs_inode *icache_wait(struct bfs *fs, uint64_t ino)
{
	struct bfs_inode key, *inode;

	key.ino = ino;
	while ((inode = RB_FIND(bfs_inode_tree, &fs->inodes, &key)) && inode->leaving)
		pthread_cond_wait(&fs->icache_cond, &fs->icache_lock);
	return inode;
}

/* icache_lock held. */
static void idle_remove(struct bfs_inode *inode)
{
	TAILQ_REMOVE(&inode->fs->idle, inode, idle_link);
	inode->fs->n_idle--;
	inode->idle = false;
}

/* icache_lock held. */
static void inode_count(struct bfs_inode *inode)
{
	if (inode->idle)
		idle_remove(inode);
	inode->refs++;
}

static bool has_pages(struct bfs_inode *inode)
{
	bool has;

	pthread_mutex_lock(&inode->pages_lock);
	has = !RB_EMPTY(&inode->groups);
	pthread_mutex_unlock(&inode->pages_lock);
	return has;
}

/* icache_lock held. Returns one that must go for it, marked leaving, or NULL. */
static struct bfs_inode *inode_idle(struct bfs_inode *inode)
{
	struct bfs *fs = inode->fs;
	struct bfs_inode *oldest = NULL;

	inode->idle = true;
	TAILQ_INSERT_TAIL(&fs->idle, inode, idle_link);
	if (++fs->n_idle > IDLE_MAX) {
		oldest = TAILQ_FIRST(&fs->idle);
		idle_remove(oldest);
		oldest->leaving = true;
	}
	return oldest;
}

void bfs_inode_emptied(struct bfs *fs, uint64_t ino)
{
	struct bfs_inode key, *inode;

	key.ino = ino;
	pthread_mutex_lock(&fs->icache_lock);
	inode = RB_FIND(bfs_inode_tree, &fs->inodes, &key);
	if (inode && inode->idle && !has_pages(inode)) {
		idle_remove(inode);
		RB_REMOVE(bfs_inode_tree, &fs->inodes, inode);
		fs->n_inodes--;
	} else {
		inode = NULL;
	}
	pthread_mutex_unlock(&fs->icache_lock);
	if (inode)
		bfs_inode_free(inode);
}

void bfs_inode_insert(struct bfs_inode *inode)
{
	struct bfs *fs = inode->fs;

	pthread_mutex_lock(&fs->icache_lock);
	RB_INSERT(bfs_inode_tree, &fs->inodes, inode);
	fs->n_inodes++;
	pthread_mutex_unlock(&fs->icache_lock);
}

/* icache_lock held, the inode not in the tree; takes over blob. */
static int inode_load(struct bfs_inode *inode, struct bs_blob *blob)
{
	struct bs_blob_info info;
	int rc;

	bs_blob_get_info(blob, &info);
	if (info.deleted)
		return -ENOENT;
	rc = bfs_inode_from_info(&info, inode);
	if (rc) {
		log_err("inode %llu: its header is not one of an inode", (unsigned long long)info.id);
		return rc;
	}
	/* An orphan that nobody has open is as good as deleted. */
	return inode->nlink ? 0 : -ENOENT;
}

bool bfs_inode_find(struct bfs *fs, uint64_t ino, int *rc, struct bfs_inode **out)
{
	struct bfs_inode *inode;

	*rc = 0;
	pthread_mutex_lock(&fs->icache_lock);
	inode = icache_wait(fs, ino);
	if (inode && inode->dying)
		*rc = -ENOENT;
	else if (inode)
		inode_count(inode);
	pthread_mutex_unlock(&fs->icache_lock);
	*out = inode;
	return inode != NULL;
}

int bfs_inode_get(struct bfs *fs, uint64_t ino, struct bfs_inode **out)
{
	struct bfs_inode *inode, *other;
	int rc;

	if (bfs_inode_find(fs, ino, &rc, out))
		return rc;
	inode = bfs_inode_alloc(fs);
	if (!inode)
		return -ENOMEM;
	inode->ino = ino;
	inode->blob = bs_blob_get(fs->bs, ino);
	if (!inode->blob) {
		bfs_inode_free(inode);
		return -ENOENT;
	}
	pthread_mutex_lock(&fs->icache_lock);
	other = icache_wait(fs, ino);
	if (other && other->dying) {
		rc = -ENOENT;
	} else if (other) {
		inode_count(other);
		*out = other;
	} else {
		rc = inode_load(inode, inode->blob);
		if (!rc) {
			RB_INSERT(bfs_inode_tree, &fs->inodes, inode);
			fs->n_inodes++;
			*out = inode;
			inode = NULL;
		}
	}
	pthread_mutex_unlock(&fs->icache_lock);
	if (inode)
		bfs_inode_free(inode);
	return rc;
}

void bfs_inode_hold(struct bfs_inode *inode)
{
	pthread_mutex_lock(&inode->fs->icache_lock);
	inode->refs++;
	pthread_mutex_unlock(&inode->fs->icache_lock);
}

/* An inode without names that only the dirty list holds besides us: what is dirty will never be read. */
static void inode_discard_dirty(struct bfs_inode *inode)
{
	pthread_mutex_lock(&inode->lock);
	bfs_cache_truncate(inode, 0);
	inode->attr_dirty = false;
	bfs_inode_unmark_dirty(inode);
	pthread_mutex_unlock(&inode->lock);
}

/* wait: for room in the log. Not at a last put, which may happen in any thread's poll. */
static int inode_delete_blob(struct bfs_inode *inode, bool wait)
{
	struct bs_txn *txn;
	int rc;

	rc = wait ? bs_txn_begin(inode->fs->bs, BS_TXN_FREES, &txn) : bs_txn_try(inode->fs->bs, BS_TXN_FREES, &txn);
	if (rc)
		return rc;
	rc = bs_txn_delete(txn, inode->blob);
	if (rc) {
		bs_txn_cancel(txn);
		return rc;
	}
	bs_txn_end(txn);
	return 0;
}

/* The last count of a dying inode: true when its blob is gone. Else it is kept to be tried again. */
static bool inode_delete(struct bfs_inode *inode, bool wait)
{
	struct bfs *fs = inode->fs;
	int rc = inode->deleted ? 0 : inode_delete_blob(inode, wait);

	if (!rc) {
		inode->deleted = true;
		return true;
	}
	if (rc != -EAGAIN && rc != -EROFS)
		log_warn("inode %llu is not deleted yet: %s", (unsigned long long)inode->ino,
			 base_err_text(NULL, rc));
	pthread_mutex_lock(&fs->icache_lock);
	LIST_INSERT_HEAD(&fs->undeleted, inode, dirty_link);
	pthread_mutex_unlock(&fs->icache_lock);
	bfs_data_arm(fs);
	return false;
}

static void inode_remove(struct bfs_inode *inode)
{
	struct bfs *fs = inode->fs;

	pthread_mutex_lock(&fs->icache_lock);
	RB_REMOVE(bfs_inode_tree, &fs->inodes, inode);
	fs->n_inodes--;
	if (inode->leaving)
		pthread_cond_broadcast(&fs->icache_cond);
	pthread_mutex_unlock(&fs->icache_lock);
	bfs_inode_free(inode);
}

/* Somebody's deletion has worked: perhaps others do by now. */
int bfs_inode_retry_deletes(struct bfs *fs, bool wait)
{
	struct bfs_inode *inode;

	for (;;) {
		pthread_mutex_lock(&fs->icache_lock);
		inode = LIST_FIRST(&fs->undeleted);
		if (inode)
			LIST_REMOVE(inode, dirty_link);
		pthread_mutex_unlock(&fs->icache_lock);
		if (!inode)
			return 0;
		if (!inode_delete(inode, wait))
			return -EAGAIN;
		inode_remove(inode);
	}
}

/* No count is left, the inode is marked dying or leaving: out of core. */
static void inode_last_put(struct bfs_inode *inode)
{
	struct bfs *fs = inode->fs;
	bool nameless = !inode->nlink && !inode->deleted, kept;

	pthread_mutex_lock(&inode->lock);
	bfs_cache_truncate(inode, 0);
	pthread_mutex_unlock(&inode->lock);
	kept = !inode->nlink && !inode_delete(inode, false);
	if (nameless)
		atomic_fetch_sub(&fs->n_nameless, 1);
	if (kept)
		return;
	inode_remove(inode);
	bfs_inode_retry_deletes(fs, false);
}

/* icache_lock held, the last count is gone. Returns what must leave core now, marked so, or NULL. */
static struct bfs_inode *inode_uncounted(struct bfs_inode *inode)
{
	if (inode->nlink && has_pages(inode))
		return inode_idle(inode);
	if (inode->nlink)
		inode->leaving = true;
	else
		inode->dying = true;
	return inode;
}

void bfs_inode_put_n(struct bfs_inode *inode, uint64_t n)
{
	struct bfs *fs = inode->fs;
	struct bfs_inode *leaves = NULL;
	bool discard;

	pthread_mutex_lock(&fs->icache_lock);
	assert(n && inode->refs >= n);
	inode->refs -= n - 1;
	discard = inode->refs == 2 && inode->on_dirty_list && !inode->nlink;
	if (discard)
		inode->dying = true;
	pthread_mutex_unlock(&fs->icache_lock);
	if (discard)
		inode_discard_dirty(inode);

	pthread_mutex_lock(&fs->icache_lock);
	if (!--inode->refs)
		leaves = inode_uncounted(inode);
	pthread_mutex_unlock(&fs->icache_lock);
	if (leaves)
		inode_last_put(leaves);
}

void bfs_inode_put(struct bfs_inode *inode)
{
	bfs_inode_put_n(inode, 1);
}

bool bfs_inode_claim(struct bfs_inode *inode)
{
	struct bfs *fs = inode->fs;
	bool sole;

	pthread_mutex_lock(&fs->icache_lock);
	/* What is in write-back is kept by the dirty list alone. */
	sole = inode->refs == 1 ||
	       (inode->refs == 2 && inode->on_dirty_list && !atomic_load(&inode->n_writing));
	if (sole)
		inode->dying = true;
	pthread_mutex_unlock(&fs->icache_lock);
	return sole;
}

void bfs_inode_unclaim(struct bfs_inode *inode)
{
	pthread_mutex_lock(&inode->fs->icache_lock);
	inode->dying = false;
	pthread_mutex_unlock(&inode->fs->icache_lock);
}

void bfs_inodes_drop(struct bfs *fs, bool delete_orphans)
{
	struct bfs_inode *inode;

	if (delete_orphans)
		bfs_inode_retry_deletes(fs, true);
	while ((inode = RB_MIN(bfs_inode_tree, &fs->inodes))) {
		if (inode->on_dirty_list)
			LIST_REMOVE(inode, dirty_link);
		if (inode->idle)
			idle_remove(inode);
		pthread_mutex_lock(&inode->lock);
		bfs_cache_truncate(inode, 0);
		pthread_mutex_unlock(&inode->lock);
		if (delete_orphans && !inode->nlink && !inode->deleted)
			inode_delete_blob(inode, true); /* fails only on a store that takes no changes: the next mount does it */
		RB_REMOVE(bfs_inode_tree, &fs->inodes, inode);
		bfs_inode_free(inode);
	}
	fs->n_inodes = 0;
}
