/* SPDX-License-Identifier: BSD-2-Clause */
/* Level 2's workload: what its files share. */
#ifndef TEST_POWERCUT_FILES_LOAD_H
#define TEST_POWERCUT_FILES_LOAD_H

#include "test/powercut/files_model.h"

struct load {
	struct run *run;
	struct bfs *fs;
	struct files_model m;
	uint64_t clock;
	struct bfs_file *held; /* open, with no name any more; or NULL */
	struct node *held_node;
};

struct place { /* a name */
	unsigned d, n;
	uint64_t dir;
	char name[8];
	struct node *node; /* what is there now; NULL: nothing */
	uint64_t index;
};

/* A call that may fail only when the device does. */
void files_must(struct load *l, const char *what, int rc);
uint64_t files_now_lsn(struct load *l);
/* LSN of the change of names just made in this directory. */
uint64_t files_name_lsn(struct load *l, uint64_t dir);
/* No space: fine, nothing was changed. */
bool files_no_space(struct load *l, int64_t rc);
uint64_t files_mark(struct load *l);
/* A place that holds (or does not hold) something of this kind (-1: any); false: a few tries found none. */
bool files_find(struct load *l, struct place *p, bool taken, int kind);
void files_set_name(struct load *l, const struct place *p, uint64_t index);
/* A node may have lost its last name. */
void files_lost_name(struct load *l, uint64_t index);

/* files_share.c: copies of files and of a tree, ranges shared between files, a copy that takes its source's place. */
void files_share(struct load *l);

#endif
