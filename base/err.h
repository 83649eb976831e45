/* SPDX-License-Identifier: BSD-2-Clause */
/* One line that tells a person what went wrong with which thing, beside the errno a program needs. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include "base/api.h"

BLOBFS_C_BEGIN

struct base_err {
	char text[384]; /* one line, no newline, "" when nothing was said */
};

/* Formats text into err (may be NULL) and returns rc, so that `return base_err_set(err, -EINVAL, …)` reads. */
BLOBFS_API int base_err_set(struct base_err *err, int rc, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* err's text if it has one, else strerror(-rc) in a thread-local buffer. */
BLOBFS_API const char *base_err_text(const struct base_err *err, int rc);

BLOBFS_C_END
#endif
