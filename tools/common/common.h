/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tools share: messages, sizes, and a look at who uses a device. */
#ifndef TOOLS_COMMON_H
#define TOOLS_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Set once in main: the name that stands before every message. */
extern const char *tool_name;

/* "name: text" to standard error. */
void tool_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same with a text of the library, which may name the device already. */
void tool_error_of(const char *device, const char *text);
/* Parses a size a person typed; on failure says what is wrong with it and returns a negative errno. */
int tool_size(const char *what, const char *text, uint64_t *bytes);
/* Writes text to standard output, and reports what close(1) would hide: 0 or a negative errno. */
int tool_flush_stdout(void);

enum tool_use {
	TOOL_READ,  /* beside other readers, a read-only mount among them */
	TOOL_CHECK, /* reads, but not what is mounted */
	TOOL_WRITE,
};
/*
 * Is the device used in a way that excludes us? Mounted (any file system, ours through FUSE included), the file behind a loop device,
 * a block device the kernel holds, or locked by another program. Returns true and says by whom in `who`. Waits some
 * seconds for a mount.blobfs that is just closing it, and for the I/O of a dead process.
 */
bool tool_in_use(const char *device, enum tool_use use, char *who, size_t len);
/* Is it mounted, and where? */
bool tool_mounted_at(const char *device, char *point, size_t len);
/* "ram:…" and "nvme:…" name no file. */
bool tool_is_path(const char *device);

#endif
