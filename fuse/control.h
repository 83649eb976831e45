/* SPDX-License-Identifier: BSD-2-Clause */
/* What can be asked of a mount by ioctl; blobfs/control.h is the language. */
#ifndef FUSE_CONTROL_H
#define FUSE_CONTROL_H

#include "fuse/internal.h"

int control_create(struct bfs_fuse *f, struct control **out);
/* Ends what is under way. No request may come any more. */
void control_destroy(struct control *c);
void do_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, void *arg, struct fuse_file_info *fi, unsigned int flags,
	      const void *in, size_t in_size, size_t out_size);
/* device.c: growing, trimming, copies, numbers; false: none of these, nothing is answered. */
bool device_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, const void *in, size_t in_size, size_t out_size);
/* Sets f->stopping, and waits for the end of what takes long. */
void device_stop(struct bfs_fuse *f);

#endif
