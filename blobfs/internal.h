/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of BlobFS share. Names: inodes in core (inode.c), directories (dir.c), names (namei.c, rename.c),
 * attributes (attr.c, xattr.c), paths (path.c), mounting (mount.c), checking (check.c). Data: the page cache (cache*.c), files and requests
 * (file.c, read.c, write.c, truncate.c, writeback.c, readahead.c), synchronous calls (sync.c).
 *
 * The truth about an inode is the blob's header, changed by transactions, overlaid in core by what is not yet in it: a cached size,
 * and timestamps (struct bfs_inode, dirty bits). bfs_inode_attr merges both.
 *
 * Locks, in order: the store's transaction lock (bs_txn_begin) before inode->lock before fs->dirty_lock before fs->icache_lock; a
 * cache shard's lock is innermost. So bs_txn_begin, which may wait for a checkpoint, is called with NO inode->lock held (R12); inside
 * a transaction (a publish callback too) inode->lock may be taken. At most one inode->lock is held at a time.
 * mode, nlink, uid, gid, rdev, parent and disk_size change only inside a transaction and under inode->lock: either of both makes
 * them stable for a reader. Times and size change under inode->lock.
 * No lock is held over I/O, nor while waiting for it.
 */
#ifndef BLOBFS_INTERNAL_H
#define BLOBFS_INTERNAL_H

#include <pthread.h>
#include <bsd/sys/queue.h>
#include <bsd/sys/tree.h>

#include "base/dma.h"
#include "base/reactor.h"
#include "base/util.h"
#include "blobfs/blobfs.h"
#include "blobfs/format.h"

struct bfs_cache;
struct bfs_group;
struct bfs_wb;
RB_HEAD(bfs_group_tree, bfs_group);
RB_HEAD(bfs_dirty_tree, bfs_group);

struct bfs_inode { /* in core: while referenced, open, dirty, or cached */
	RB_ENTRY(bfs_inode) node; /* in fs->inodes by ino */
	struct bfs *fs;
	struct bs_blob *blob;     /* counted */
	uint64_t ino;
	uint64_t refs;            /* under fs->icache_lock: references, open files, I/O, one while on the dirty list */
	bool idle;                /* under fs->icache_lock: no count, but pages; in fs->idle */
	TAILQ_ENTRY(bfs_inode) idle_link;
	bool dying;               /* under fs->icache_lock: no new references: its blob is being deleted */
	bool leaving;             /* under fs->icache_lock: the last count is gone, its pages are being dropped; wait on icache_cond */
	bool deleted;             /* its blob is deleted; by whoever holds the last count */
	pthread_mutex_t lock;
	/* under lock */
	_Atomic uint32_t mode, nlink; /* the type in mode never changes: read anywhere */
	uint32_t uid, gid;
	uint64_t rdev, parent;
	_Atomic int64_t atime, mtime, ctime; /* written under lock, read anywhere */
	int64_t btime;
	_Atomic uint64_t disk_size; /* the header's size as last published; bfs_inode_put_header keeps it */
	bool attr_dirty;          /* times differ from the header */
	_Atomic uint64_t lsn;     /* raised by bfs_inode_note_lsn: of the last transaction that concerns this inode (fsync waits for it) */
	_Atomic uint64_t lowered_lsn; /* of the last lowering of size; R9: until it is durable, the block at the old end is never overwritten in place */
	_Atomic uint64_t size;    /* cached size; written under lock, read anywhere */
	/* the data half's: see data.h */
	pthread_mutex_t pages_lock;       /* below a shard's lock: what follows, to n_pages */
	struct bfs_group_tree groups;
	struct bfs_dirty_tree dirty_groups;
	LIST_HEAD(, bfs_direct_range) directs; /* writes past the cache that are under way */
	uint32_t n_pages;
	_Atomic uint32_t n_dirty, n_writing; /* pages; n_dirty grows under lock only */
	_Atomic uint32_t n_changed;       /* of the dirty ones those that have changed since they were last carried in the log */
	_Atomic uint64_t changed_first;   /* no page before this one has; a hint */
	_Atomic uint64_t data_end;        /* no data is mapped at or beyond it; changed inside a transaction */
	_Atomic uint64_t written_end;     /* what of the cached size was written, or needs not be: how far the durable size may go; the same */
	_Atomic uint64_t stale_end;       /* R9: the device's block that holds this byte is garbage from it on; 0: none; the same */
	_Atomic int stream;               /* of the file that wrote last */
	uint64_t lowered_block;           /* what lowered_lsn is about; the same */
	_Atomic uint64_t dirty_since;     /* ns; when the first of its dirty pages became so */
	_Atomic uint32_t wb_error_seq;    /* one more with each write-back error; files compare (R2) */
	_Atomic int wb_error;
	_Atomic uint32_t wb_error_seen;   /* by an fsync by number */
	_Atomic uint32_t wb_error_told;   /* by any fsync: a file opened later need not hear of it */
	uint64_t wb_pass;                 /* under fs->dirty_lock: the last pass of write-behind that came by */
	LIST_ENTRY(bfs_inode) dirty_link; /* in fs->dirty: inodes with dirty pages or attributes; or in fs->undeleted */
	bool sealed;                      /* its data and size never change */
	bool on_dirty_list;               /* written under lock + dirty_lock + icache_lock: any of them makes it stable */
};
RB_HEAD(bfs_inode_tree, bfs_inode);

struct bfs_file {
	struct bfs_inode *inode;
	int flags;
	_Atomic int stream;
	_Atomic uint32_t wb_error_seen;
	struct bfs_ra { /* readahead state: file.c/readahead.c; racy by design, only a hint */
		_Atomic uint64_t next, window, done;
		_Atomic int advice;
	} ra;
};

struct bfs_lock_table;

struct bfs {
	struct bs *bs;
	struct bdev *dev;
	char *device;
	struct bfs_mount_opts opts;
	enum { BFS_MOUNTING, BFS_MOUNTED, BFS_UNMOUNTING } state; /* under the registry's lock */
	bool abandoned;
	int sync_rc, close_rc;        /* of the unmount */
	uint32_t refs;                /* mounts of the same device in this process; under the registry's lock */
	LIST_ENTRY(bfs) registry_link;
	uint8_t hash_key[16];
	uint32_t hash_bits;           /* see format.h */
	uint8_t uuid[16];
	char label[64];
	pthread_mutex_t icache_lock;
	pthread_cond_t icache_cond;
	struct bfs_inode_tree inodes;
	uint64_t n_inodes;
	TAILQ_HEAD(bfs_idle_list, bfs_inode) idle; /* under icache_lock: the oldest first */
	uint32_t n_idle;
	pthread_mutex_t dirty_lock;
	LIST_HEAD(, bfs_inode) dirty;     /* under dirty_lock; each is counted once */
	LIST_HEAD(, bfs_inode) undeleted; /* under icache_lock: orphans whose deletion failed; tried again later */
	_Atomic uint32_t n_nameless;      /* inodes in core without a name, which somebody still holds */
	void *log_arena;              /* part of the arena for bs_open_opts, set by bfs_cache_create */
	uint64_t log_arena_size;
	struct bfs_cache *cache;
	void *arena;                  /* one mapping: header, page descriptors, buckets, pages, log buffer; offsets only inside */
	uint64_t arena_size;
	struct bfs_lock_table *locks;
	struct bfs_wb *wb;            /* write-behind: writebehind.c */
	pthread_mutex_t snap_lock;    /* taken last, within transactions too */
	LIST_HEAD(, snap) snaps;      /* under snap_lock: copies that are being made */
	_Atomic uint32_t n_snaps;
	LIST_HEAD(, bfs_queue) idle_queues; /* under icache_lock: queue.c */
};

/* ---- inode.c ---- */
/* The inode in core, counted; loads it from its blob. -ENOENT, -EUCLEAN (header that is no inode), -ENOMEM. */
int bfs_inode_get(struct bfs *fs, uint64_t ino, struct bfs_inode **out);
void bfs_inode_hold(struct bfs_inode *inode);
/* Drops a count. With the last one an inode without names is deleted; one with cached pages stays in core, idle; any other goes. */
void bfs_inode_put(struct bfs_inode *inode);
void bfs_inode_put_n(struct bfs_inode *inode, uint64_t n);
/* Is it in core? Then true, with *rc 0 and a count, or -ENOENT when it is being deleted. */
bool bfs_inode_find(struct bfs *fs, uint64_t ino, int *rc, struct bfs_inode **out);
/* The inode's last page is gone from the cache: if it is idle, it goes. No shard locked; its number, since it may be gone already. */
void bfs_inode_emptied(struct bfs *fs, uint64_t ino);
struct bfs_inode *bfs_inode_alloc(struct bfs *fs); /* one count */
void bfs_inode_free(struct bfs_inode *inode);      /* not in the tree */
void bfs_inode_insert(struct bfs_inode *inode);    /* of a blob made in the running transaction, which cannot fail any more */
/* Fills a struct from a blob's header: attributes, sizes, number. -EUCLEAN. */
int bfs_inode_from_info(const struct bs_blob_info *info, struct bfs_inode *inode);
/* Inside a transaction, the caller has a count: if nobody else uses the inode (dirty pages aside), lets nobody get it any more and
 * returns true: the blob may be deleted in this transaction. unclaim: it is not after all. */
bool bfs_inode_claim(struct bfs_inode *inode);
void bfs_inode_unclaim(struct bfs_inode *inode);
/* Tries again to delete orphans; wait: for room in the log; -EAGAIN: some are left. */
int bfs_inode_retry_deletes(struct bfs *fs, bool wait);
/* Unmount: all inodes out of core, whoever counts them. */
void bfs_inodes_drop(struct bfs *fs, bool delete_orphans);
void bfs_inode_pack(const struct bfs_inode *inode, struct bfs_inode_disk *out);
/* -EUCLEAN: not an inode. */
int bfs_inode_unpack(const struct bfs_inode_disk *disk, struct bfs_inode *inode);
/* Puts the inode's header (attributes and times in core) with `size` in txn and sets disk_size; inode->lock held, inside the txn.
 * BFS_KEEP_SIZE: the size the header has. Only if the transaction is then ended, not cancelled, disk_size is true: on a cancel
 * restore it. */
#define BFS_KEEP_SIZE UINT64_MAX
int bfs_inode_put_header(struct bs_txn *txn, struct bfs_inode *inode, uint64_t size);
/* Attributes now, cached size and times included. Takes inode->lock. */
void bfs_inode_attr(struct bfs_inode *inode, struct bfs_attr *out);
/* inode->lock held; the first: n_dirty or attr_dirty was just set (cheap when it is on the list already); the second: drops it from the
 * list, if it has nothing dirty nor in write-back any more; the caller holds a count of its own. */
void bfs_inode_mark_dirty(struct bfs_inode *inode);
void bfs_inode_unmark_dirty(struct bfs_inode *inode);
/* For fsync: this transaction concerns the inode. No lock needed. */
void bfs_inode_note_lsn(struct bfs_inode *inode, uint64_t lsn);
/* Times. inode->lock held: data was changed: mtime, ctime are now, suid and sgid are the kernel's business; marks dirty. */
void bfs_inode_modified(struct bfs_inode *inode);
/* Data was read: atime by the relatime rule (or not at all); cheap when there is nothing to do. No lock held. */
void bfs_inode_accessed(struct bfs_inode *inode);
int64_t bfs_now(void);
int bfs_cred_check(const struct bfs_cred *cred, const struct bfs_inode *inode, int mask); /* R_OK, W_OK, X_OK; -EACCES */

/* Root, or somebody for whom all was checked already. */
bool bfs_cred_privileged(const struct bfs_cred *cred);
bool bfs_cred_in_group(const struct bfs_cred *cred, uint32_t gid);
int bfs_cred_check_mode(const struct bfs_cred *cred, uint32_t mode, uint32_t uid, uint32_t gid, int mask);
/* Attributes of an inode in core or not, without bringing it there, and its blob, counted (may be NULL). Not inside a transaction.
 * -ENOENT: not there (an orphan nobody uses is not). */
int bfs_peek(struct bfs *fs, uint64_t ino, struct bfs_attr *out, struct bs_blob **blob);
/* Blocks that are mapped, and those that bytes in the log are carried for over holes, as they will be mapped: else a small file that is
 * all there seems to be empty. */
uint64_t bfs_blocks_held(struct bs_blob *blob, const struct bs_blob_info *info);

/* ---- edit.c: one transaction that changes some inodes' headers, and names ---- */
enum bfs_edit_set { BFS_EDIT_ATIME = 1, BFS_EDIT_MTIME = 2 };
struct bfs_edit { /* an inode as it is going to be */
	struct bfs_inode *inode;
	uint64_t size;  /* the header's; of a directory its number of entries */
	uint64_t parent;
	uint32_t mode, nlink, uid, gid;
	int64_t atime, mtime, ctime;
	uint32_t set;   /* enum bfs_edit_set: which of the two times are meant */
	bool claimed;
};
struct bfs_change {
	struct bfs *fs;
	struct bs_txn *txn;
	int64_t now;
	unsigned n;
	struct bfs_edit edit[4];
};
int bfs_change_begin(struct bfs *fs, uint32_t txn_flags, struct bfs_change *change);
/* Of a change with this result, made for the tried-th time from 0: was there no space, and may there be some now? Blocking. */
bool bfs_change_again(struct bfs *fs, int rc, unsigned tried);
/* The edit of this inode, made on first use with ctime now. The caller holds a count until after commit or cancel. */
struct bfs_edit *bfs_change_edit(struct bfs_change *change, struct bfs_inode *inode);
void bfs_edit_modify(struct bfs_change *change, struct bfs_edit *edit); /* mtime now */
/* One name less (a directory loses all); commit deletes the blob if that was the last and nobody uses it. */
void bfs_edit_drop_link(struct bfs_edit *edit);
/* Ends the transaction and changes what is in core; after an error it is cancelled. */
int bfs_change_commit(struct bfs_change *change);
/* Its halves: what can fail (and then cancels), and what cannot; returns the LSN. */
int bfs_change_prepare(struct bfs_change *change);
uint64_t bfs_change_finish(struct bfs_change *change);
void bfs_change_cancel(struct bfs_change *change);

/* ---- dir.c: entries of one directory ---- */
struct bfs_entry {
	uint64_t key, ino;
	uint32_t type; /* mode bits */
};
/* -ENOENT, -EUCLEAN. */
int bfs_dir_find(struct bfs *fs, struct bs_blob *dir, const char *name, size_t len, struct bfs_entry *out);
/* A key for a new name (collisions probed); -EEXIST, -ENOSPC. Inside a transaction. */
int bfs_dir_new_key(struct bfs *fs, struct bs_blob *dir, const char *name, size_t len, uint64_t *key);
int bfs_dir_put(struct bs_txn *txn, struct bs_blob *dir, uint64_t key, const char *name, size_t len, uint64_t ino, uint32_t mode);
bool bfs_dir_is_empty(struct bs_blob *dir);
bool bfs_name_is_valid(const char *name, size_t len); /* as an entry: "." and ".." are not */
int bfs_dirent_decode(const void *value, uint32_t len, struct bfs_entry *out, const char **name, uint32_t *name_len);
/* Key of a name's first place: see format.h. */
uint64_t bfs_name_key(const uint8_t hash_key[16], uint32_t hash_bits, const char *name, size_t len);

/* xattr.c */
int bfs_xattr_decode(const void *value, uint32_t len, const char **name, uint32_t *name_len, const void **data, uint32_t *data_len);

/* ---- namei.c: what rename.c shares ---- */
/* A directory in core, counted; -ENOTDIR, -ENOENT. */
int bfs_dir_get(struct bfs *fs, uint64_t ino, struct bfs_inode **out);
/* -ENAMETOOLONG, -EINVAL, -ENOENT (empty); dots: what "." and ".." give. */
int bfs_name_check(const char *name, int dots, size_t *len);
int bfs_parent(struct bfs *fs, uint64_t dir, uint64_t *parent); /* of a directory; any time */
/* Inside a transaction: may cred add names to dir; take away this one? */
int bfs_may_create(const struct bfs_cred *cred, const struct bfs_inode *dir);
int bfs_may_delete(const struct bfs_cred *cred, const struct bfs_inode *dir, const struct bfs_inode *victim);

/* ---- snapshot.c ---- */
/* Inside the transaction that makes this regular file, when nothing can fail any more: copies that are being made need not wait for it. */
void bfs_snap_born(struct bfs *fs, struct bs_txn *txn, struct bs_blob *blob);

/* ---- mount.c's parts ---- */
/* Does the blob have blocks, or bytes carried for any? */
bool bfs_has_data(struct bs_blob *blob, const struct bs_blob_info *info);
/* Is anything written mapped past the end, as a cut may leave it? */
bool bfs_data_past_end(struct bs_blob *blob, uint64_t size, uint64_t *block);
int bfs_orphans_delete(struct bfs *fs, struct base_err *err); /* orphans.c: -EUCLEAN for a blob that is no inode */
int bfs_carried_home(struct bfs *fs, struct base_err *err);   /* home.c: never fails */
int bfs_locks_create(struct bfs *fs);                         /* locks.c */
void bfs_locks_destroy(struct bfs *fs);

/* ---- cache.c: pages ---- */
/* Makes the arena and the cache in it (fs->dev is open, fs->bs not yet); sets fs->log_arena. */
int bfs_cache_create(struct bfs *fs);
/* Before the store is closed: gives back what concerns device and store (registered memory). No page is in use any more. */
void bfs_cache_stop(struct bfs *fs);
/* After the store is closed: the arena goes. */
void bfs_cache_destroy(struct bfs *fs);
/* Drops pages >= first of an inode (dirty ones too: their reservations are given back); waits for nothing: pages in write-back are
 * dropped when it ends. inode->lock held by the caller's truncation. */
void bfs_cache_truncate(struct bfs_inode *inode, uint64_t first_page);

/* ---- data: requests ---- */
/* Of an inode whose sizes were just set from its header. */
void bfs_data_inode_init(struct bfs_inode *inode);
void bfs_req_start(struct bdev_channel *ch, struct bfs_req *req, op_done_fn done);
int bfs_data_init(struct bfs *fs);  /* write-back timer on the service's reactor */
void bfs_data_stop(struct bfs *fs); /* before the last sync of an unmount: no timer runs any more, write-back under way is over */
/* The dirty list was empty and is not: arms the timer. Any thread, inode->lock and dirty_lock held. */
void bfs_data_arm(struct bfs *fs);
/* Background work that is due, blocking, for mounts without a service thread (bfs_service_step calls it). */
int bfs_data_step(struct bfs *fs);

#endif
