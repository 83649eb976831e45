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
/* Parses a size a person typed; on failure says what is wrong with it and returns a negative errno. */
int tool_size(const char *what, const char *text, uint64_t *bytes);
/* Writes text to standard output, and reports what close(1) would hide: 0 or a negative errno. */
int tool_flush_stdout(void);

/*
 * Is the device in use? Mounted (any file system, ours through FUSE included), held by another program's lock, or a block device
 * that the kernel holds. Returns true and says by whom in `who`.
 */
bool tool_in_use(const char *device, char *who, size_t len);
/* The process that holds a lock on the file, from /proc/locks; 0 when unknown. comm gets its name. */
int tool_lock_holder(const char *path, char *comm, size_t len);
/* "ram:…" and "nvme:…" name no file. */
bool tool_is_path(const char *device);

#endif
