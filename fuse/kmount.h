/* SPDX-License-Identifier: BSD-2-Clause */
/* Mounting and unmounting in the kernel's sense, with messages a person understands. */
#ifndef FUSE_KMOUNT_H
#define FUSE_KMOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "fuse/libfuse.h"

#include "base/err.h"

/* The kernel's FUSE is there and may be used. -ENODEV, -EACCES. */
int kmount_check_device(struct base_err *err);
/* An existing directory that no BlobFS is mounted at: its absolute path in *out (to be freed). -ENOENT, -ENOTDIR,
 * -EBUSY, -ENOTCONN (a dead mount). */
int kmount_check_dir(const char *dir, char **out, struct base_err *err);
/* A BlobFS is mounted whose source is so named; where, in dir. */
bool kmount_source_is_mounted(const char *source, char *dir, size_t size);
/* Mounts the session at dir; *dev is the device number files there have. */
int kmount_session(struct fuse_session *se, const char *dir, dev_t *dev, struct base_err *err);
/* 0: unmounted; -EBUSY: in use, what was dirty was pushed, and it was detached. -ESTALE: what is seen at dir is not `dev`. */
int kmount_unmount(const char *dir, dev_t dev);
/* Removes a mount nobody serves any more, if it is still to be seen at dir. */
int kmount_remove_dead(const char *dir, dev_t dev);
/* As root: lets the kernel read ahead more than its 128 KiB. */
void kmount_set_readahead(dev_t dev, unsigned int kib);

#endif
