/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * BlobFS: a POSIX file system over a blob store, as a library.
 *
 * Inodes are named by number (never reused); paths are a convenience on top. Metadata calls (lookup, create, rename …)
 * work in memory and the log: they never do I/O and return at once (they may wait while the log is at its limit).
 * Data calls do I/O: synchronous ones wait, asynchronous ones go through a queue. All may be called from any thread.
 *
 * Durability is that of a local file system: fsync makes a file's data, size and attributes durable, and every name change
 * made before it (as ext4's journal does); what is not fsynced becomes durable in order of seconds, by write-behind.
 * A rename is atomic at every power cut.
 *
 * Errors are negative errno as the system call of that name has them. -EROFS also after the store froze (see bs_get_stat);
 * -EUCLEAN: damaged metadata was met.
 */
#ifndef BLOBFS_BLOBFS_H
#define BLOBFS_BLOBFS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/api.h"
#include "base/err.h"
#include "base/op.h"
#include "bdev/bdev.h"
#include "blob/blob.h"

BLOBFS_C_BEGIN

struct bfs;
struct bfs_file;
struct bfs_queue;

#define BFS_ROOT_INO 1ull
#define BFS_NAME_MAX 255u
#define BFS_PATH_MAX 4096u
#define BFS_SYMLINK_MAX 4095u
#define BFS_XATTR_SIZE_MAX 65000u
#define BFS_LINK_MAX 65000u
#define BFS_SIZE_MAX ((1ull << 52) - 1) /* largest file, bytes */

/* ---- making, mounting ---- */

struct bfs_format_opts {
	uint32_t size; /* sizeof(struct bfs_format_opts) */
	uint32_t cluster_size;
	uint8_t uuid[16];
	char label[64];
	uint32_t root_mode, root_uid, root_gid; /* mode 0: 0755 */
	uint64_t store_size;                    /* bytes of the device that it takes; 0: all */
	uint32_t hash_bits;                     /* 0: 55; fewer make names collide, for tests */
	uint32_t store_flags;                   /* enum bs_format_flags */
};
/* Makes an empty file system on an open device; durable when it returns. */
BLOBFS_API int bfs_format(struct bdev *dev, const struct bfs_format_opts *opts, struct base_err *err);

enum bfs_mount_flags {
	BFS_RDONLY = 1 << 0,
	BFS_NO_SERVICE = 1 << 1, /* tests: no thread; bfs_service_step does background work */
	BFS_DISCARD = 1 << 2,
	BFS_NOATIME = 1 << 3,    /* else relatime */
	BFS_NO_LOCK = 1 << 4,    /* read-only look at a device somebody else uses */
	BFS_GROW = 1 << 5,       /* grows into all of the device (bs_grow) before anything else */
};
struct bfs_mount_opts {
	uint32_t size;            /* sizeof(struct bfs_mount_opts) */
	uint32_t flags;           /* enum bfs_mount_flags */
	uint64_t cache_size;      /* page cache, bytes; 0: 128 MiB */
	uint64_t dirty_limit;     /* bytes of dirty pages past which writers write back themselves; 0: a quarter of the cache, 512 MiB at most */
	uint32_t writeback_ms;    /* a page dirty for so long is written back, and committed; 0: 1000 */
	uint32_t commit_ms;       /* metadata is committed at least so often; 0: 1000 */
	uint64_t discard_min, discard_rate; /* BFS_DISCARD: as in struct bs_open_opts */
};
/* Opens `device` (a device string) and recovers. The same device mounted again in this process gives the same struct,
 * counted; flags must agree (-EBUSY). err gets one line naming device and cause. opts may be NULL. */
BLOBFS_API int bfs_mount(const char *device, const struct bfs_mount_opts *opts, struct bfs **out, struct base_err *err);
/* The same on an open device, which is taken over on success. */
BLOBFS_API int bfs_mount_bdev(struct bdev *dev, const struct bfs_mount_opts *opts, struct bfs **out, struct base_err *err);
/* Drops one count; with the last: writes everything back, commits, checkpoints, closes. Open files must be closed. Returns the
 * first error; the file system is closed in any case. */
BLOBFS_API int bfs_unmount(struct bfs *fs);
/* As if the process had died. Tests. */
BLOBFS_API void bfs_abandon(struct bfs *fs);
BLOBFS_API int bfs_service_step(struct bfs *fs);
BLOBFS_API struct bs *bfs_store(struct bfs *fs);

struct bfs_statfs {
	uint64_t block_size, blocks, free_blocks, avail_blocks, files;
	uint32_t name_max;
	uint8_t uuid[16];
	char label[64];
	bool readonly;
};
BLOBFS_API int bfs_get_statfs(struct bfs *fs, struct bfs_statfs *out);
struct bfs_cache_stat {
	uint64_t pages, dirty, writing, hits, misses, readahead, evicted, written_back;
	uint64_t inodes; /* in core */
	uint64_t written_bytes; /* by callers */
	uint64_t zeroed_bytes;  /* by us: behind old ends of files, at the edges of holes */
};
BLOBFS_API void bfs_get_cache_stat(struct bfs *fs, struct bfs_cache_stat *out);

/* ---- attributes ---- */

struct bfs_attr {
	uint64_t ino;
	uint32_t mode, nlink, uid, gid;
	uint64_t rdev;
	uint64_t size;
	uint64_t blocks;                        /* of 512 bytes */
	uint32_t blksize;
	uint32_t generation;                    /* 0: numbers are never reused */
	int64_t atime, mtime, ctime, btime;     /* ns since 1970 */
};
enum bfs_attr_mask {
	BFS_SET_MODE = 1 << 0, BFS_SET_UID = 1 << 1, BFS_SET_GID = 1 << 2, BFS_SET_ATIME = 1 << 3, BFS_SET_MTIME = 1 << 4,
	BFS_SET_ATIME_NOW = 1 << 5, BFS_SET_MTIME_NOW = 1 << 6, BFS_SET_CTIME = 1 << 7,
};

/* Who asks; NULL: no checks (root). Groups may be NULL. Calls with a cred check permissions as the kernel does (search on
 * the directory, write for changes, sticky bit, ownership for chmod/chown/utimes). */
struct bfs_cred {
	uint32_t uid, gid;
	const uint32_t *groups;
	uint32_t n_groups;
	uint32_t umask; /* applied to modes of new inodes */
	uint32_t flags; /* enum bfs_cred_flags */
};
enum bfs_cred_flags {
	BFS_CRED_CHECKED = 1 << 0, /* a kernel has checked already: no checks, only ownership of what is made */
};

/* ---- metadata by inode number ---- */

/* An inode lives while it has a name, an open file or a reference. bfs_ref counts references (a kernel's lookups). -ENOENT. */
BLOBFS_API int bfs_ref(struct bfs *fs, uint64_t ino);
BLOBFS_API void bfs_unref(struct bfs *fs, uint64_t ino, uint64_t n);

BLOBFS_API int bfs_getattr(struct bfs *fs, uint64_t ino, struct bfs_attr *out);
/* Everything but size (see bfs_truncate). Clears suid/sgid on chown as chown(2) does. out may be NULL. */
BLOBFS_API int bfs_setattr(struct bfs *fs, const struct bfs_cred *cred, uint64_t ino, const struct bfs_attr *attr, uint32_t mask,
		struct bfs_attr *out);
BLOBFS_API int bfs_access(struct bfs *fs, const struct bfs_cred *cred, uint64_t ino, int mask);
/* "." and ".." are names too. */
BLOBFS_API int bfs_lookup(struct bfs *fs, const struct bfs_cred *cred, uint64_t dir, const char *name, struct bfs_attr *out);
/* Regular files, FIFOs, sockets, devices by mode; -EEXIST. The new inode takes uid/gid from cred (gid of the directory when that is
 * setgid), mode & ~umask. With BFS_REF in flags the result is referenced once. */
enum bfs_make_flags { BFS_REF = 1 << 0 };
BLOBFS_API int bfs_mknod(struct bfs *fs, const struct bfs_cred *cred, uint64_t dir, const char *name, uint32_t mode, uint64_t rdev,
	      uint32_t flags, struct bfs_attr *out);
BLOBFS_API int bfs_mkdir(struct bfs *fs, const struct bfs_cred *cred, uint64_t dir, const char *name, uint32_t mode, uint32_t flags,
	      struct bfs_attr *out);
BLOBFS_API int bfs_symlink(struct bfs *fs, const struct bfs_cred *cred, uint64_t dir, const char *name, const char *target, uint32_t flags,
		struct bfs_attr *out);
BLOBFS_API int bfs_link(struct bfs *fs, const struct bfs_cred *cred, uint64_t ino, uint64_t dir, const char *name, uint32_t flags,
	     struct bfs_attr *out);
BLOBFS_API int bfs_unlink(struct bfs *fs, const struct bfs_cred *cred, uint64_t dir, const char *name);
BLOBFS_API int bfs_rmdir(struct bfs *fs, const struct bfs_cred *cred, uint64_t dir, const char *name);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE of <stdio.h>/<linux/fs.h> (1, 2). */
BLOBFS_API int bfs_rename(struct bfs *fs, const struct bfs_cred *cred, uint64_t dir, const char *name, uint64_t new_dir,
	       const char *new_name, uint32_t flags);
/* Target without terminator: returns its length; -EINVAL when not a symlink, -ERANGE when it does not fit. */
BLOBFS_API int bfs_readlink(struct bfs *fs, uint64_t ino, char *buf, size_t size);

/* Directory entries from `cookie` on (0: the beginning), "." and ".." first. fn's cookie is where to go on after this
 * entry; stable over changes and remounts: an entry that is there throughout is seen exactly once. fn returns
 * non-zero to stop before this entry (it will come again). No lock is held while fn runs. */
struct bfs_dirent {
	uint64_t ino, cookie;
	uint32_t mode; /* type bits only, unless attr is set */
	const char *name;
	uint32_t name_len;
	const struct bfs_attr *attr; /* when asked for; NULL if the inode vanished meanwhile */
};
typedef int (*bfs_dirent_fn)(const struct bfs_dirent *entry, void *arg);
BLOBFS_API int bfs_readdir(struct bfs *fs, uint64_t dir, uint64_t cookie, bool want_attr, bfs_dirent_fn fn, void *arg);

/* Names include the namespace ("user.x"). size 0 asks for the length. flags: XATTR_CREATE 1, XATTR_REPLACE 2. */
BLOBFS_API int64_t bfs_getxattr(struct bfs *fs, uint64_t ino, const char *name, void *value, size_t size);
BLOBFS_API int bfs_setxattr(struct bfs *fs, const struct bfs_cred *cred, uint64_t ino, const char *name, const void *value, size_t size, int flags);
BLOBFS_API int64_t bfs_listxattr(struct bfs *fs, uint64_t ino, char *list, size_t size);
BLOBFS_API int bfs_removexattr(struct bfs *fs, const struct bfs_cred *cred, uint64_t ino, const char *name);

/*
 * A copy of a file or of a whole directory tree as `name` in `dir`, in one transaction and of one instant: names, attributes,
 * links, and data, which is shared until one side writes it. Whatever was written before the call is in it; a write beside the call
 * is in it or not, block by block, as a power cut at that instant could have left it. `dir`, if it is within the tree, is left out.
 * BFS_SNAP_SEALED: nobody can change the data of the copy's files (-EROFS); names and attributes can be, so that it can be removed.
 * Durable with the next sync. Blocking. -EPERM: cred is not privileged; -E2BIG: more files and runs than one transaction takes
 * (some 6,000 files of one run, or 60,000 runs in few files, on stores of 512 MiB or more; a sixth of that on one of 64 MiB); -ENOSPC also if what is dirty
 * would have no space of its own; -EBUSY: for seconds somebody has moved files into the tree that were outside of it, without a pause (files that are
 * made meanwhile hold up nothing); -EOPNOTSUPP: a store made before there was this; an error of a write-back.
 */
enum bfs_snap_flags { BFS_SNAP_SEALED = 1 << 0 };
BLOBFS_API int bfs_snapshot(struct bfs *fs, const struct bfs_cred *cred, uint64_t ino, uint64_t dir, const char *name, uint32_t flags,
		 struct bfs_attr *out);

/* ---- by path ---- */

enum bfs_walk_flags { BFS_NOFOLLOW = 1 << 0 /* the last component is not followed if it is a symlink */ };
/* '/'-separated, from the root; -ENOENT, -ENOTDIR, -ELOOP (40), -ENAMETOOLONG. */
BLOBFS_API int bfs_resolve(struct bfs *fs, const struct bfs_cred *cred, const char *path, uint32_t flags, struct bfs_attr *out);
/* The directory that holds the last component, and that component copied to name[BFS_NAME_MAX + 1]. "/" has none: -EBUSY. */
BLOBFS_API int bfs_resolve_parent(struct bfs *fs, const struct bfs_cred *cred, const char *path, uint64_t *dir, char *name);
/* mkdir -p */
BLOBFS_API int bfs_make_path(struct bfs *fs, const struct bfs_cred *cred, const char *path, uint32_t mode);

/* ---- files ---- */

/* flags: O_RDONLY/O_WRONLY/O_RDWR, O_APPEND, O_DIRECT (bypasses the cache, coherently), O_SYNC/O_DSYNC, O_TRUNC. Regular files only
 * (-EISDIR, -ENXIO for others). stream: where new data is put. */
BLOBFS_API int bfs_open(struct bfs *fs, const struct bfs_cred *cred, uint64_t ino, int flags, enum bs_stream stream, struct bfs_file **out);
/* By path; O_CREAT, O_EXCL, O_NOFOLLOW too; mode for a new file. */
BLOBFS_API int bfs_open_path(struct bfs *fs, const struct bfs_cred *cred, const char *path, int flags, uint32_t mode, enum bs_stream stream,
		  struct bfs_file **out);
/* Does not sync. No operation on it may be in flight. */
BLOBFS_API void bfs_close(struct bfs_file *file);
BLOBFS_API uint64_t bfs_file_ino(const struct bfs_file *file);
BLOBFS_API struct bfs *bfs_file_fs(const struct bfs_file *file);
BLOBFS_API uint64_t bfs_file_size(struct bfs_file *file); /* now, cached writes included; no lock */
enum bfs_advice { BFS_ADV_NORMAL, BFS_ADV_SEQUENTIAL, BFS_ADV_RANDOM, BFS_ADV_WILLNEED, BFS_ADV_DONTNEED };
/* WILLNEED starts reading, DONTNEED drops clean cached pages; length 0: to the end. */
BLOBFS_API int bfs_advise(struct bfs_file *file, uint64_t offset, uint64_t length, enum bfs_advice advice);
BLOBFS_API void bfs_set_stream(struct bfs_file *file, enum bs_stream stream);

/* Synchronous. Bytes done or negative errno; a read stops at the end of file; a write is whole or an error, except at
 * ENOSPC after some was done (short). offset -1 with BFS_IO_APPEND. */
BLOBFS_API int64_t bfs_pread(struct bfs_file *file, void *buf, size_t len, uint64_t offset);
BLOBFS_API int64_t bfs_pwrite(struct bfs_file *file, const void *buf, size_t len, uint64_t offset);
BLOBFS_API int64_t bfs_append(struct bfs_file *file, const void *buf, size_t len);
/* Several reads at once; each gets its own result. */
struct bfs_read {
	uint64_t offset;
	size_t len;
	void *buf;
	int64_t result;
};
BLOBFS_API int bfs_read_many(struct bfs_file *file, struct bfs_read *reads, size_t n);
/* Data, size and attributes durable, with every earlier change of names. datasync: may leave out timestamps. An error of write-back
 * is reported once to each file that was open when it happened, and to those opened later if nobody had heard of it by then. */
BLOBFS_API int bfs_fsync(struct bfs_file *file, bool datasync);
/* Starts writing back what is dirty there; waits for those pages if wait (or if the mount has no service thread, which would see it
 * through). length 0: to the end. Not durable, and errors are fsync's to report; -ENOMEM if not all could be begun. */
BLOBFS_API int bfs_sync_range(struct bfs_file *file, uint64_t offset, uint64_t length, bool wait);
/* An inode without a file: directories too. */
BLOBFS_API int bfs_fsync_ino(struct bfs *fs, uint64_t ino, bool datasync);
/* Everything written and done so far durable. Also reports, once, what write-back could not write since the last bfs_sync: those
 * bytes are lost, and each file's own fsync says whose they were. */
BLOBFS_API int bfs_sync(struct bfs *fs);
BLOBFS_API int bfs_truncate(struct bfs *fs, const struct bfs_cred *cred, uint64_t ino, uint64_t size);
/* mode: FALLOC_FL_KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, COLLAPSE_RANGE, INSERT_RANGE as fallocate(2); -EOPNOTSUPP for what is not offered. */
BLOBFS_API int bfs_fallocate(struct bfs_file *file, int mode, uint64_t offset, uint64_t length);
/* SEEK_DATA / SEEK_HOLE: offset or -ENXIO. Cached dirty pages count as data. */
BLOBFS_API int64_t bfs_seek(struct bfs_file *file, uint64_t offset, int whence);
/* Copies within the file system; bytes done. Whole blocks are shared and not copied where both offsets lie alike in their blocks and it is
 * 64 KiB or more: that is durable as any write is, and a write to either file later takes new space. */
BLOBFS_API int64_t bfs_copy_range(struct bfs_file *in, uint64_t in_off, struct bfs_file *out, uint64_t out_off, uint64_t len);

/* ---- asynchronous ---- */

/*
 * A queue: a device channel that the creating program polls. While something is in flight there, the thread that has to poll it makes no
 * synchronous call that waits for reads and writes under way, for nobody else ends these: bfs_snapshot, bfs_copy_range, and what needs space when
 * there is none but what was freed lately (bfs_write and its kin, bfs_fallocate).
 */
BLOBFS_API int bfs_queue_create(struct bfs *fs, struct bfs_queue **out);
BLOBFS_API void bfs_queue_destroy(struct bfs_queue *q); /* waits for what is in flight */
BLOBFS_API int bfs_queue_poll(struct bfs_queue *q);     /* runs completions; how many */
BLOBFS_API int bfs_queue_fd(struct bfs_queue *q);       /* readable when it wants to be polled */

enum bfs_req_op { BFS_REQ_READ, BFS_REQ_WRITE, BFS_REQ_FSYNC, BFS_REQ_TRUNCATE, BFS_REQ_FALLOCATE, BFS_REQ_SYNC };
enum bfs_req_flags {
	BFS_IO_DIRECT = 1 << 0,   /* as O_DIRECT */
	BFS_IO_APPEND = 1 << 1,   /* WRITE at the end; offset is ignored and set */
	BFS_IO_DATASYNC = 1 << 2, /* FSYNC: fdatasync. WRITE: durable when done */
	BFS_IO_NOCACHE = 1 << 3,  /* READ: cached pages are used, but nothing is brought into the cache (FUSE: the kernel caches) */
	BFS_IO_KEEP_TIMES = 1 << 4, /* WRITE: times are the caller's affair (FUSE: the kernel sends them by themselves) */
};
struct bfs_req {
	enum bfs_req_op op;
	uint32_t flags;
	struct bfs *fs;
	struct bfs_file *file;     /* READ, WRITE, FALLOCATE; FSYNC and TRUNCATE if ino is 0 */
	uint64_t ino;              /* FSYNC, TRUNCATE without a file */
	uint64_t offset, length;   /* TRUNCATE: length is the new size */
	int mode;                  /* FALLOCATE */
	const struct iovec *iov;   /* READ, WRITE: any alignment; must live until done */
	int iovcnt;
	void (*done)(struct bfs_req *req, void *arg); /* called by bfs_queue_poll of its queue, or bfs_queue_destroy */
	void *arg;
	int64_t result;            /* bytes, 0, or negative errno */

	struct op op_;             /* the library's from here */
	struct bdev_channel *ch;
	struct bfs_inode *inode;
	void *work;
	uint64_t priv[48];
};
/* Never blocks on the device. */
BLOBFS_API void bfs_submit(struct bfs_queue *q, struct bfs_req *req);

/* ---- locks ---- */

/* Advisory byte-range locks of this process's users of the file system, whoever they are (library, FUSE). owner: any
 * number that identifies the holder. Never waits: -EAGAIN. Locks of an owner on a file go with bfs_unlock_all. */
struct bfs_lock {
	uint64_t owner;
	uint64_t start, end; /* inclusive */
	int type;            /* F_RDLCK, F_WRLCK, F_UNLCK */
	int pid;
};
BLOBFS_API int bfs_setlk(struct bfs *fs, uint64_t ino, const struct bfs_lock *lock);
BLOBFS_API int bfs_getlk(struct bfs *fs, uint64_t ino, struct bfs_lock *lock); /* in: wanted; out: the conflicting one or F_UNLCK */
BLOBFS_API void bfs_unlock_all(struct bfs *fs, uint64_t ino, uint64_t owner);

/* ---- checking ---- */

struct bfs_check_opts {
	uint32_t size; /* sizeof(struct bfs_check_opts) */
	bs_problem_fn report;
	void *arg;
	void (*progress)(const char *pass, uint64_t done, uint64_t total, void *arg); /* may be NULL */
};
struct bfs_check_result {
	uint64_t problems, files, directories, symlinks, others, orphans, bytes, used_blocks, total_blocks;
	bool clean;    /* was closed in order */
	uint64_t replayed_records;
	uint8_t uuid[16];
	char label[64];
};
/* Store, then inodes, directories, names, link counts, orphans, sizes. Writes nothing. Number of problems in result; returns
 * 0, or negative errno when it could not check at all. Closes nothing but what it opened; dev is taken over. */
BLOBFS_API int bfs_check(struct bdev *dev, const struct bfs_check_opts *opts, struct bfs_check_result *result, struct base_err *err);

/* ---- repair ---- */

enum bfs_repair_flags {
	BFS_REPAIR_ALL = 1 << 0,     /* everything; else only what loses nothing: counts, sizes and parents, data past the end */
	BFS_REPAIR_REBUILD = 1 << 1, /* with ALL: without a usable superblock, by scanning the device */
};
struct bfs_repair_opts {
	uint32_t size;        /* sizeof(struct bfs_repair_opts) */
	uint32_t flags;       /* enum bfs_repair_flags */
	bs_problem_fn report; /* told of each thing that is done; may be NULL */
	void *arg;
};
struct bfs_repair_result {
	uint64_t repairs;     /* things reported */
	uint64_t lost_found;  /* inodes put into /lost+found */
	bool mended;          /* the store itself was damaged and was written anew (bs_mend) */
};
/*
 * Repairs a file system and closes it in order: first the store (see bs_mend), whose old state holds until the new one is complete, then
 * inodes, names and links, each change one transaction. A power cut at any moment leaves a file system that can be repaired
 * again. What is left is for bfs_check to say. 0, or negative errno when it could not go on: -EUCLEAN: the store is damaged and ALL was
 * not given, or no superblock is usable; -EINVAL, -ENOTSUP, -EIO, -ENOSPC, -ENOMEM. dev is taken over.
 */
BLOBFS_API int bfs_repair(struct bdev *dev, const struct bfs_repair_opts *opts, struct bfs_repair_result *result, struct base_err *err);

BLOBFS_C_END
#endif
