/* SPDX-License-Identifier: BSD-2-Clause */
/* A file system in memory, served by this process at a directory of its own. */
#ifndef TEST_FUSE_MNT_H
#define TEST_FUSE_MNT_H

#include "blobfs/blobfs.h"
#include "fuse/fuse.h"

extern struct bfs *mnt_fs;
extern const char *mnt_dir;

/* Skips the test where FUSE cannot be used. */
void mnt_up(enum bfs_fuse_mode mode, unsigned int reactors);
/* Unmounts both, checks the image, removes the directory. */
void mnt_down(void);
/* mnt_dir/name; one of a few buffers that are used in turn. */
const char *mnt_path(const char *name);
/* Runs fn in a child with this user and group, no others and no privileges; its result (0 … 99; 100: died). */
int mnt_as_user(unsigned int id, int (*fn)(void));

/*
 * mnt_up, fn in a child, mnt_down; the child's failures count. For what maps files: munmap waits for write-back with the lock
 * that the serving threads need to get memory, if they are of the same process. The child is made while there are no threads:
 * the copy of one that was inside the address sanitizer's allocator would hold its lock for ever.
 */
void mnt_run(enum bfs_fuse_mode mode, unsigned int reactors, void (*fn)(void));

int helper(int argc, char **argv);

#endif
