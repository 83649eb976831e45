/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line of mount.blobfs, as a person or mount(8) writes it. */
#ifndef FUSE_OPTIONS_H
#define FUSE_OPTIONS_H

#include <stdbool.h>

#include "base/err.h"
#include "blobfs/blobfs.h"
#include "fuse/fuse.h"

struct mount_args {
	const char *device, *dir;
	bool foreground, verbose, help, version;
	bool sloppy;        /* unknown options are let pass (mount -s) */
	struct bfs_mount_opts fs;
	struct bfs_fuse_opts fuse;
	char fsname[4096];  /* "": the device */
	char kernel[256];   /* fuse.mount_options */
};

/* -EINVAL: err says in one line what is wrong. */
int mount_args_parse(int argc, char **argv, struct mount_args *args, struct base_err *err);

#endif
