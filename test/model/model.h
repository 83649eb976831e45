/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The model: what a file system should be, as plain arrays. An operation applied to it gives the result the real one must
 * give. It is copied by value (but for the bytes of files), and operations say everything by number, so that a history can
 * be replayed on a copy: that is how the state after a crash is recognized.
 */
#ifndef TEST_MODEL_MODEL_H
#define TEST_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define NODES 48     /* inodes at most */
#define ENTRIES 96
#define NAMES 14     /* different names */
#define HANDLES 5
#define XATTRS 3
#define XATTR_MAX 3000u
#define FILE_MAX (1u << 20)
#define ROOT_NODE 0

enum op_kind {
	OP_CREATE, OP_MKDIR, OP_SYMLINK, OP_MKFIFO, OP_LINK, OP_UNLINK, OP_RMDIR, OP_RENAME, OP_SETXATTR, OP_RMXATTR, OP_CHMOD,
	OP_OPEN, OP_CLOSE, OP_WRITE, OP_APPEND, OP_READ, OP_TRUNCATE, OP_FALLOCATE, OP_COPY, OP_SEEK, OP_DROP, OP_FSYNC, OP_SYNC,
	OP_LOOKUP, OP_SNAPSHOT, OP_LIST, OP_REMOUNT, OP_CRASH, OP_KINDS
};

struct op_rec {
	enum op_kind kind;
	int dir, name, dir2, name2; /* node numbers of directories, numbers of names */
	int node, handle, handle2;
	int flags;                  /* of rename, open, fallocate; SEEK_*; which xattr */
	uint64_t off, off2, len;
	uint32_t seed;              /* of the bytes written */
	uint64_t ino;               /* made: what the real one is called */
	uint64_t copies[NODES];     /* snapshot: what the real copies are called, by the node copied */
};

struct node {
	uint64_t ino; /* 0: free */
	uint32_t mode, nlink, opens;
	int parent;   /* of a directory */
	uint64_t size, room;
	uint8_t *data;
	uint32_t target; /* of a symlink: seed */
	struct {
		bool there;
		uint32_t seed, len;
	} xattr[XATTRS];
};

struct entry {
	bool used;
	int dir, name, node;
};

struct model {
	struct node node[NODES];
	struct entry entry[ENTRIES];
	struct {
		int node; /* -1: closed */
		int flags;
	} handle[HANDLES];
};

void model_init(struct model *m);
void model_free(struct model *m);
void model_copy(struct model *to, const struct model *from);
/* The process died: what was only open is gone. */
void model_forget_handles(struct model *m);
/* Bytes done, 0, or negative errno. */
int64_t model_apply(struct model *m, const struct op_rec *op);
struct entry *model_find(struct model *m, int dir, int name);
bool model_has_room(const struct model *m);
unsigned model_nodes(const struct model *m);
/* Is there room for a copy of this node, with all that lies below it? */
bool model_has_room_for(const struct model *m, int node);
void model_resize(struct node *n, uint64_t size);

const char *name_text(int name);
/* The bytes that a seed stands for; none of them is zero. */
void fill(void *buf, size_t len, uint32_t seed);
/* The target of a symlink, terminated; returns its length. */
size_t target_text(uint32_t seed, char *buf, size_t size);
void op_text(const struct op_rec *op, char *buf, size_t len);

#endif
