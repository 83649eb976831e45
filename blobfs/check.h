/* SPDX-License-Identifier: BSD-2-Clause */
/* What the passes of bfs_check share. Memory is bounded by the number of inodes. */
#ifndef BLOBFS_CHECK_H
#define BLOBFS_CHECK_H

#include "blobfs/internal.h"

enum { CHECK_UNKNOWN, CHECK_GOOD, CHECK_BAD, CHECK_UNDER_WAY }; /* seen.reach */

struct seen { /* an inode, in order of number */
	uint64_t ino, parent, size, items;
	uint64_t named_by;      /* of a directory: the one that has an entry for it */
	uint64_t entries;       /* of a directory: how many it has */
	uint32_t mode, nlink;   /* mode 0: its header is no inode */
	uint32_t names;         /* entries that name it */
	uint32_t subdirs;
	uint8_t reach;
	bool has_blocks, sealed;
};

struct check {
	const struct bfs_check_opts *opts;
	struct bfs_check_result *result;
	struct bs *bs;
	struct seen *seen;
	size_t n, room;
	uint8_t hash_key[16];
	bool closed;          /* the store was closed in order */
	uint32_t hash_bits;   /* 0: the file system's item could not be read, keys are not checked */
};

void check_problem(struct check *c, const char *pass, const char *code, uint64_t ino, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
struct seen *check_find(struct check *c, uint64_t ino);
void check_progress(struct check *c, const char *pass, uint64_t done);

/* All three, after what holds for the whole. */
int bfs_check_passes(struct check *c);
int check_inodes(struct check *c); /* headers; fills seen */
int check_items(struct check *c);  /* names, attributes, targets, blocks of each */
int check_tree(struct check *c);   /* link counts, parents, reachability */

#endif
