/* SPDX-License-Identifier: BSD-2-Clause */
/* libfuse's low-level API, at the version we speak. */
#ifndef FUSE_LIBFUSE_H
#define FUSE_LIBFUSE_H

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>

#endif
