/* SPDX-License-Identifier: BSD-2-Clause */
/* What lies on a device before we write to it. */
#ifndef TOOLS_PROBE_H
#define TOOLS_PROBE_H

#include <stddef.h>

/*
 * Looks for a file system, RAID or partition table (libblkid) and for BlobFS itself. Returns 1 and describes it in `what`
 * ("an ext4 file system labelled 'x'"), 0 when there is nothing, negative errno when it cannot look.
 */
int tool_probe(const char *path, char *what, size_t len);
/* Removes every signature libblkid knows. 0 or negative errno. */
int tool_wipe(const char *path);

#endif
