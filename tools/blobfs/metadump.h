/* SPDX-License-Identifier: BSD-2-Clause */
/* What metadump.c and scramble.c share. */
#ifndef TOOLS_BLOBFS_METADUMP_H
#define TOOLS_BLOBFS_METADUMP_H

#include "base/util.h"
#include "blob/format.h"
#include "tools/blobfs/verb.h"

struct meta { /* all metadata of a store, in the order of bs_walk */
	struct bs_piece *piece;
	size_t n, room;
};

/* Takes the bytes of files out that the log carries, and what is not understood of what is damaged; makes every checksum right that was. */
void meta_strip(struct meta *m);
/* Makes names, targets, attributes and the label unreadable, and every checksum right that was. What is damaged is zeroed. */
void meta_scramble(struct meta *m);

#endif
