/* SPDX-License-Identifier: BSD-2-Clause */
/* What lies on a device before we write to it. */
#ifndef TOOLS_PROBE_H
#define TOOLS_PROBE_H

#include <stddef.h>

#include "base/err.h"

/*
 * Looks for a file system, RAID or partition table (libblkid) and for BlobFS itself. Returns 1 and describes it in `what`
 * ("an ext4 file system labelled 'x'"), 0 when there is nothing, negative errno when it cannot look.
 */
int tool_probe(const char *path, char *what, size_t len);
/* The same for any name of a device; what is no path is read through the block-device port. err: why it cannot look. */
int tool_probe_any(const char *device, char *what, size_t len, struct base_err *err);
/* Removes what it may find, from a device that is open for writing as dev. 0 or negative errno. */
struct bdev;
int tool_wipe_any(const char *device, struct bdev *dev);

#endif
