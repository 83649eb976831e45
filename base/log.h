/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log for people: one line to standard error (or a sink), with time, level, component.
 * BLOBFS_LOG=info | debug | bdev=debug,blob=warn … sets levels; the default is warn.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/api.h"

BLOBFS_C_BEGIN

enum base_log_level { LOG_ERR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Sets levels from a specification as in BLOBFS_LOG; -EINVAL names no level it knows. Any thread. */
BLOBFS_API int base_log_configure(const char *spec);
/* Receives whole lines without newline; NULL restores standard error. Set it before threads exist. */
typedef void (*base_log_sink)(enum base_log_level level, const char *component, const char *line,
			      void *arg);
BLOBFS_API void base_log_set_sink(base_log_sink sink, void *arg);
BLOBFS_API int base_log_enabled(enum base_log_level level, const char *component);
BLOBFS_API void base_log_write(enum base_log_level level, const char *component, const char *fmt,
			       ...) __attribute__((format(printf, 3, 4)));

/* Usage: #define LOG_COMPONENT "blob" before including, then log_warn("…", …). */
#ifdef LOG_COMPONENT
#define log_at(level, ...)                                                   \
	do {                                                                 \
		if (base_log_enabled((level), LOG_COMPONENT))                \
			base_log_write((level), LOG_COMPONENT, __VA_ARGS__); \
	} while (0)
#define log_err(...) log_at(LOG_ERR, __VA_ARGS__)
#define log_warn(...) log_at(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)
#endif

BLOBFS_C_END
#endif
