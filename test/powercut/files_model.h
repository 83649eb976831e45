/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Level 2's model. Names, links and attributes follow the LSN exactly, as transactions do. Data and sizes follow the order of calls:
 * what an fsync covered must be there; what came after it may be there or not, but nothing older, nothing foreign.
 */
#ifndef TEST_POWERCUT_FILES_MODEL_H
#define TEST_POWERCUT_FILES_MODEL_H

#include "blobfs/blobfs.h"
#include "test/powercut/powercut.h"

#define FM_UNIT 64u            /* bytes that say whose they are */
#define FM_UNITS 1536u         /* of a file: 96 KiB */
#define FM_DIRS 4u             /* "/", "/d1", "/d2" and FM_SNAP */
#define FM_SNAP 3u             /* "/snap": a copy of one of the others, or nothing */
#define FM_NAMES 8u            /* "n0" … in each */

struct unit_tag {          /* who wrote it, where, and when; a copy has those of its source */
	uint64_t ino, unit;
	uint64_t counter;      /* 0: zeroes */
};
struct unit_change {
	struct unit_tag tag;
	uint64_t seq;          /* order of calls */
	uint64_t submitted;    /* event before the call */
};
struct size_change {
	uint64_t size, seq, submitted;
};
struct sync_mark {
	uint64_t event, seq;   /* acknowledged at event: everything up to seq */
};
struct value_change {
	uint64_t lsn, value;
};
struct history {
	struct value_change *c;
	size_t n, cap;
};
struct units {
	struct unit_change *c;
	size_t n, cap;
};

enum node_kind { N_FILE, N_DIR, N_SYMLINK };
struct node {
	uint64_t ino;
	enum node_kind kind;
	struct history xattr, mode; /* value 0: no xattr */
	struct units *units;   /* FM_UNITS of them, files only */
	struct size_change *sizes;
	size_t n_sizes, sizes_cap;
	struct sync_mark *syncs;
	size_t n_syncs, syncs_cap;
	bool gone;             /* no name is left */
	bool sealed;           /* of a snapshot */
	uint64_t target;       /* symlinks: which text */
};

struct files_model {
	struct node **nodes;
	size_t n_nodes, nodes_cap;
	struct history names[FM_DIRS][FM_NAMES]; /* value: index of node + 1; 0: no such name */
	struct history dirs[FM_DIRS]; /* their inodes; 0: not there */
	struct ack *acks;      /* of names */
	size_t n_acks, acks_cap;
	uint64_t seq, counter;
	uint64_t dirty_limit;
	bool filler;           /* there is a /filler */
};

void fm_set(struct history *h, uint64_t lsn, uint64_t value);
uint64_t fm_at(const struct history *h, uint64_t lsn); /* UINT64_MAX: now */
static inline uint64_t fm_dir(const struct files_model *m, unsigned d) { return fm_at(&m->dirs[d], UINT64_MAX); }
struct node *fm_node(struct files_model *m, uint64_t ino, enum node_kind kind, uint64_t target);
/* Units [first, first + n) hold `counter` from now on. */
void fm_write(struct files_model *m, struct node *f, uint64_t first, uint64_t n, uint64_t counter, uint64_t submitted);
/* Units [from_first, + n) of one are shared with the other's from to_first on. */
void fm_share(struct files_model *m, const struct node *from, uint64_t from_first, struct node *to, uint64_t to_first, uint64_t n,
	      uint64_t submitted);
/* A new node that is what this one is now, all of it durable once its name is there. */
struct node *fm_copy(struct files_model *m, const struct node *from, uint64_t ino, uint64_t lsn, bool sealed);
void fm_size(struct files_model *m, struct node *f, uint64_t size, uint64_t submitted);
static inline uint64_t fm_now_size(const struct node *f) { return f->sizes[f->n_sizes - 1].size; }
void fm_synced(struct files_model *m, struct node *f, uint64_t seq, uint64_t event);
void fm_ack(struct files_model *m, uint64_t lsn, uint64_t event);
void fm_free(struct files_model *m);

void fm_fill(void *unit, uint64_t ino, uint64_t number, uint64_t counter);
void fm_target(uint64_t ino_hint, char *out, size_t len); /* text of a symlink */

/* Compares a mounted file system that came back to `lsn` with the model at `event`. */
bool fm_verify(const struct files_model *m, struct run *run, struct bfs *fs, uint64_t lsn, uint64_t event);
/* What the file holds now is what was written last. */
void fm_reread(struct files_model *m, struct run *run, struct bfs *fs, struct node *f, uint64_t submitted);
/* The process died, and this is what is there: it is the truth from now on. */
void fm_adopt(struct files_model *m, struct run *run, struct bfs *fs, uint64_t lsn);

#endif
