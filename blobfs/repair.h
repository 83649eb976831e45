/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the passes of bfs_repair share. Each round looks at everything anew as checking does, then mends what it finds, one transaction
 * a thing: a power cut leaves a file system that is damaged less.
 */
#ifndef BLOBFS_REPAIR_H
#define BLOBFS_REPAIR_H

#include "blobfs/check.h"

struct repair {
	struct bs *bs;
	const struct bfs_repair_opts *opts;
	struct bfs_repair_result *result;
	struct check c;       /* what this round found: inodes, names, links */
	uint64_t changes;     /* of this round */
	uint64_t lost_found;  /* its inode; 0: not looked for yet */
};

/* Says what is done. */
void repair_say(struct repair *r, const char *pass, const char *code, uint64_t ino, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
/* May this be done: everything, or only what loses nothing. */
static inline bool repair_may(const struct repair *r, bool safe)
{
	return safe || (r->opts->flags & BFS_REPAIR_ALL);
}
/* A transaction of its own around fn. Counts a change. */
int repair_txn(struct repair *r, uint64_t ino, int (*fn)(struct bs_txn *txn, struct bs_blob *blob, void *arg), void *arg);

int repair_put_item(struct repair *r, uint64_t ino, unsigned kind, uint64_t key, const void *value, uint32_t len);
int repair_del_item(struct repair *r, uint64_t ino, unsigned kind, uint64_t key);
/* A new name in a directory; another one if that is taken. */
int repair_add_name(struct repair *r, uint64_t dir, const char *name, uint64_t ino, uint32_t mode);
/* Lowest free key of the group of keys that `key` is in; 0: none. */
uint64_t repair_free_key(struct bs_blob *blob, unsigned kind, uint64_t key);
/* Header of an inode: its disk form with fn's changes. */
int repair_header(struct repair *r, uint64_t ino, uint64_t size, const struct bfs_inode_disk *disk);
int repair_get_header(struct repair *r, uint64_t ino, uint64_t *size, struct bfs_inode_disk *disk);

int repair_headers(struct repair *r); /* every blob is an inode, the root is a directory */
int repair_items(struct repair *r);   /* what each inode holds */
int repair_tree(struct repair *r);    /* names for those who have none; counts */

#endif
