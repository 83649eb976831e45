/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Serving a mounted file system at a directory, through the kernel's FUSE.
 *
 * The file system stays its owner's: it is mounted before and unmounted after. All calls from any thread that does
 * not serve requests; never with a lock held that a library call of the owner may need. The process that serves must not
 * map files of the mount into its own memory: munmap(2) waits for write-back with a lock that the serving threads
 * need to get memory.
 */
#ifndef FUSE_FUSE_H
#define FUSE_FUSE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/api.h"
#include "base/err.h"
#include "blobfs/blobfs.h"

BLOBFS_C_BEGIN

struct bfs_fuse;

enum bfs_fuse_mode {
	/* Nobody else changes the file system: the kernel caches data, names and attributes without limit, delays
	 * writes, and keeps locks itself. */
	BFS_FUSE_SOLE,
	/* Library calls of the same process change it too: nothing is cached by the kernel, so that sizes, names and
	 * data are never stale, and POSIX locks are those of bfs_setlk. */
	BFS_FUSE_BESIDE,
};

struct bfs_fuse_opts {
	uint32_t size;               /* sizeof(struct bfs_fuse_opts) */
	enum bfs_fuse_mode mode;
	uint32_t reactors;           /* threads that serve; 0: max(1, cores / 2) */
	bool readonly;               /* implied when the file system is mounted read-only */
	bool allow_other;            /* other users may enter (implied for root) */
	bool debug;                  /* every request and reply to standard error */
	const char *fsname;          /* what /proc/mounts names as the source; NULL: "blobfs" */
	const char *mount_options;   /* for the kernel: "nodev,nosuid,noexec,sync,noatime"; NULL: none */
};

/* Mounts at `dir` (an existing directory) and serves. When it returns 0 the mount is usable. opts may be NULL (sole
 * writer). -ENOENT, -ENOTDIR, -EBUSY (something of ours is mounted there), -EPERM, -ENODEV (no /dev/fuse), -ENOMEM; err gets one
 * line that names the thing. */
int bfs_fuse_start(struct bfs *fs, const char *dir, const struct bfs_fuse_opts *opts, struct bfs_fuse **out,
		   struct base_err *err);
/* Waits until the directory was unmounted from outside (0), or bfs_fuse_interrupt was called (-EINTR). One thread. */
int bfs_fuse_wait(struct bfs_fuse *f);
/* Ends bfs_fuse_wait. Async-signal-safe. */
void bfs_fuse_interrupt(struct bfs_fuse *f);
/* Pushes what the kernel holds back, unmounts (unless that was done from outside), ends the threads, frees. A mount in
 * use is detached: those who have files open there get ENOTCONN from then on, but nothing they had written is
 * lost; the result is then -EBUSY. Does not sync the file system: bfs_sync or bfs_unmount after it do. */
int bfs_fuse_stop(struct bfs_fuse *f);

BLOBFS_C_END
#endif
