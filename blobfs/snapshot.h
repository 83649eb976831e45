/* SPDX-License-Identifier: BSD-2-Clause */
/* A copy of a tree: what snapshot.c (getting quiet) and snapshot_tree.c (the transaction) share. */
#ifndef BLOBFS_SNAPSHOT_H
#define BLOBFS_SNAPSHOT_H

#include "blobfs/share.h"

struct snap_node { /* an inode of the tree */
	RB_ENTRY(snap_node) node;
	TAILQ_ENTRY(snap_node) link; /* all that were found */
	TAILQ_ENTRY(snap_node) todo; /* those that are copied in this transaction */
	uint64_t ino;
	struct bfs_inode *inode;     /* of a regular file, counted */
	bool begun, held;            /* by us: bs_share_begin, bs_share_hold */
	bool born;                   /* made since we began, and held from birth */
	/* within the transaction */
	unsigned round;
	struct bs_blob *from, *to;
	uint64_t parent, size;       /* of the copy */
	uint32_t mode, links, subdirs;
};
RB_HEAD(snap_tree, snap_node);

struct snap_born { /* a file made while the copy is */
	SLIST_ENTRY(snap_born) link;
	struct bs_blob *blob; /* counted */
};

struct snap {
	struct bfs *fs;
	LIST_ENTRY(snap) fs_link; /* in fs->snaps */
	SLIST_HEAD(, snap_born) born; /* under fs->snap_lock; longer only within transactions of others */
	uint64_t top, dir;    /* what is copied, and the directory it goes to, which is left out */
	bool sealed;
	struct snap_tree tree;
	TAILQ_HEAD(snap_list, snap_node) list, todo;
	unsigned round;
};

/* The node of this inode, made if need be; NULL: no memory. */
struct snap_node *snap_find(struct snap *s, uint64_t ino);
void snap_free(struct snap *s);
/* Finds all there is below the top. -EUCLEAN for damage. */
int snap_collect(struct snap *s);
/* In the transaction: copies all there is now. -EAGAIN: there is a file that is not held; it is collected then. After an error the
 * transaction is to be cancelled. *top: the copy. */
int snap_copy(struct snap *s, struct bs_txn *txn, struct snap_node **top);
/* After the transaction; done: it was ended. */
void snap_put(struct snap *s, bool done);

#endif
