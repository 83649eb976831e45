/* SPDX-License-Identifier: BSD-2-Clause */
/* The file system under test, driven by the same operations. */
#ifndef TEST_MODEL_REAL_H
#define TEST_MODEL_REAL_H

#include "blobfs/blobfs.h"
#include "test/model/model.h"

struct real {
	struct bdev *dev;
	struct bfs_mount_opts opts;
	struct bfs *fs;
	struct bfs_file *handle[HANDLES];
	struct base_err err;
};

void real_make(struct real *r, const struct bfs_format_opts *format, const struct bfs_mount_opts *opts);
void real_mount(struct real *r);
void real_remount(struct real *r);
void real_crash(struct real *r);
void real_end(struct real *r);

/* Does op, whose state before it is m; compares what it returns beside its result. What was made gets its numbers
 * in op. */
int64_t real_apply(struct real *r, const struct model *m, struct op_rec *op);

/* Compares names, types, link counts, attributes (and sizes, unless sizes is false for a node): NULL, or what differs. */
const char *real_compare_names(struct real *r, const struct model *m, const bool *skip_size);
/* And what files and symlinks hold. */
const char *real_compare_data(struct real *r, const struct model *m, const bool *skip);
/* The content of a file; the size is returned, at most room bytes. */
uint64_t real_content(struct real *r, uint64_t ino, uint8_t *buf, uint64_t room);

/* Prints what happened, the seed and the last operations; does not return. */
void fail(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

#endif
