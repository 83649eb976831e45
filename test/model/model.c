/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "test/model/model.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))

const char *name_text(int name)
{
	static char text[NAMES][256];

	if (!text[name][0]) {
		/* a few long ones */
		if (name % 7 == 6)
			memset(text[name], 'A' + name, 255);
		else
			snprintf(text[name], sizeof(text[name]), "%c%d", 'a' + name, name * name);
	}
	return text[name];
}

void fill(void *buf, size_t len, uint32_t seed)
{
	uint8_t *p = buf;
	uint32_t x = seed * 2654435761u + 12345;

	for (size_t i = 0; i < len; i++) {
		x = x * 1664525u + 1013904223u;
		p[i] = (uint8_t)(x >> 24) | 1;
	}
}

size_t target_text(uint32_t seed, char *buf, size_t size)
{
	size_t len = 1 + seed % (size - 2);

	fill(buf, len, seed);
	buf[len] = 0;
	return len;
}

/* ---- nodes ---- */

void model_init(struct model *m)
{
	memset(m, 0, sizeof(*m));
	m->node[ROOT_NODE].ino = 1;
	m->node[ROOT_NODE].mode = S_IFDIR | 0755;
	m->node[ROOT_NODE].nlink = 2;
	for (int i = 0; i < HANDLES; i++)
		m->handle[i].node = -1;
}

void model_free(struct model *m)
{
	for (int i = 0; i < NODES; i++)
		free(m->node[i].data);
	memset(m, 0, sizeof(*m));
}

void model_copy(struct model *to, const struct model *from)
{
	*to = *from;
	for (int i = 0; i < NODES; i++) {
		struct node *n = &to->node[i];

		if (!n->data)
			continue;
		n->data = malloc(n->room);
		if (!n->data)
			abort();
		memcpy(n->data, from->node[i].data, n->room);
	}
}

/* Bytes above the size are zero in `data`, always. */
void model_resize(struct node *n, uint64_t size)
{
	if (size > n->room) {
		uint64_t room = size * 2;

		n->data = realloc(n->data, room);
		if (!n->data)
			abort();
		memset(n->data + n->room, 0, room - n->room);
		n->room = room;
	}
	if (size < n->size)
		memset(n->data + size, 0, n->size - size);
	n->size = size;
}

static int node_new(struct model *m, uint32_t mode, uint64_t ino)
{
	for (int i = 1; i < NODES; i++) {
		if (m->node[i].ino)
			continue;
		memset(&m->node[i], 0, sizeof(m->node[i]));
		m->node[i].ino = ino;
		m->node[i].mode = mode;
		m->node[i].nlink = S_ISDIR(mode) ? 2 : 1;
		return i;
	}
	abort(); /* model_has_room was asked */
}

static void node_drop(struct model *m, int node)
{
	struct node *n = &m->node[node];

	if (n->nlink || n->opens)
		return;
	free(n->data);
	memset(n, 0, sizeof(*n));
}

void model_forget_handles(struct model *m)
{
	for (int i = 0; i < HANDLES; i++)
		m->handle[i].node = -1;
	for (int i = 1; i < NODES; i++) {
		m->node[i].opens = 0;
		if (m->node[i].ino)
			node_drop(m, i);
	}
}

unsigned model_nodes(const struct model *m)
{
	unsigned n = 0;

	for (int i = 0; i < NODES; i++)
		n += m->node[i].ino != 0;
	return n;
}

bool model_has_room(const struct model *m)
{
	unsigned entries = 0;

	for (int i = 0; i < ENTRIES; i++)
		entries += m->entry[i].used;
	return entries < ENTRIES - 2 && model_nodes(m) < NODES - 2;
}

/* ---- names ---- */

struct entry *model_find(struct model *m, int dir, int name)
{
	for (int i = 0; i < ENTRIES; i++) {
		struct entry *e = &m->entry[i];

		if (e->used && e->dir == dir && e->name == name)
			return e;
	}
	return NULL;
}

static bool is_dir(const struct model *m, int node)
{
	return S_ISDIR(m->node[node].mode);
}

static bool is_empty(const struct model *m, int dir)
{
	for (int i = 0; i < ENTRIES; i++) {
		if (m->entry[i].used && m->entry[i].dir == dir)
			return false;
	}
	return true;
}

static void entry_add(struct model *m, int dir, int name, int node)
{
	for (int i = 0; i < ENTRIES; i++) {
		if (m->entry[i].used)
			continue;
		m->entry[i] = (struct entry){ .used = true, .dir = dir, .name = name, .node = node };
		if (is_dir(m, node)) {
			m->node[node].parent = dir;
			m->node[dir].nlink++;
		}
		return;
	}
	abort();
}

static void entry_remove(struct model *m, struct entry *e)
{
	if (is_dir(m, e->node))
		m->node[e->dir].nlink--;
	e->used = false;
}

static void drop_name(struct model *m, int node)
{
	m->node[node].nlink = is_dir(m, node) ? 0 : m->node[node].nlink - 1;
	node_drop(m, node);
}

static int64_t make(struct model *m, const struct op_rec *op, uint32_t mode)
{
	int node;

	if (!is_dir(m, op->dir))
		return -ENOTDIR;
	if (model_find(m, op->dir, op->name))
		return -EEXIST;
	node = node_new(m, mode, op->ino ? op->ino : UINT64_MAX);
	if (S_ISLNK(mode)) {
		char target[300];

		m->node[node].target = op->seed;
		m->node[node].size = target_text(op->seed, target, sizeof(target));
	}
	entry_add(m, op->dir, op->name, node);
	return 0;
}

static int64_t make_link(struct model *m, const struct op_rec *op)
{
	if (!is_dir(m, op->dir))
		return -ENOTDIR;
	if (model_find(m, op->dir, op->name))
		return -EEXIST;
	if (is_dir(m, op->node))
		return -EPERM;
	if (!m->node[op->node].nlink)
		return -ENOENT;
	m->node[op->node].nlink++;
	entry_add(m, op->dir, op->name, op->node);
	return 0;
}

static int64_t take_away(struct model *m, const struct op_rec *op, bool rmdir)
{
	struct entry *e;
	int node;

	if (!is_dir(m, op->dir))
		return -ENOTDIR;
	e = model_find(m, op->dir, op->name);
	if (!e)
		return -ENOENT;
	node = e->node;
	if (is_dir(m, node) != rmdir)
		return rmdir ? -ENOTDIR : -EISDIR;
	if (rmdir && !is_empty(m, node))
		return -ENOTEMPTY;
	entry_remove(m, e);
	drop_name(m, node);
	return 0;
}

static bool is_above(const struct model *m, int node, int dir)
{
	for (;;) {
		if (dir == node)
			return true;
		if (dir == ROOT_NODE)
			return false;
		dir = m->node[dir].parent;
	}
}

static int64_t rename_check(struct model *m, const struct op_rec *op, const struct entry *from, const struct entry *to)
{
	if (op->dir != op->dir2 && is_dir(m, from->node) && is_above(m, from->node, op->dir2))
		return -EINVAL;
	if (op->dir != op->dir2 && to && is_dir(m, to->node) && is_above(m, to->node, op->dir))
		return op->flags & RENAME_EXCHANGE ? -EINVAL : -ENOTEMPTY;
	if (!to || (op->flags & RENAME_EXCHANGE))
		return 0;
	if (is_dir(m, from->node) != is_dir(m, to->node))
		return is_dir(m, to->node) ? -EISDIR : -ENOTDIR;
	return is_dir(m, to->node) && !is_empty(m, to->node) ? -ENOTEMPTY : 0;
}

static int64_t do_rename(struct model *m, const struct op_rec *op)
{
	struct entry *from, *to;
	int64_t rc;
	int node, old = -1;

	if (!is_dir(m, op->dir) || !is_dir(m, op->dir2))
		return -ENOTDIR;
	from = model_find(m, op->dir, op->name);
	to = model_find(m, op->dir2, op->name2);
	if (!from || (!to && (op->flags & RENAME_EXCHANGE)))
		return -ENOENT;
	if (to && (op->flags & RENAME_NOREPLACE))
		return -EEXIST;
	if (to && from->node == to->node)
		return 0;
	rc = rename_check(m, op, from, to);
	if (rc)
		return rc;
	node = from->node;
	entry_remove(m, from);
	if (to) {
		old = to->node;
		entry_remove(m, to);
	}
	entry_add(m, op->dir2, op->name2, node);
	if (op->flags & RENAME_EXCHANGE)
		entry_add(m, op->dir, op->name, old);
	else if (to)
		drop_name(m, old);
	return 0;
}

/* ---- copies ---- */

#define COPY_MAX 12u /* nodes of one */

static void count_below(const struct model *m, int node, unsigned *nodes, unsigned *entries)
{
	++*nodes;
	for (int i = 0; i < ENTRIES && is_dir(m, node); i++) {
		const struct entry *e = &m->entry[i];

		if (!e->used || e->dir != node)
			continue;
		++*entries;
		count_below(m, e->node, nodes, entries);
	}
}

bool model_has_room_for(const struct model *m, int node)
{
	unsigned nodes = 0, entries = 1;

	count_below(m, node, &nodes, &entries);
	for (int i = 0; i < ENTRIES; i++)
		entries += m->entry[i].used;
	return nodes <= COPY_MAX && entries < ENTRIES - 2 && model_nodes(m) + nodes < NODES - 2;
}

/* Names of one inode become names of one copy. The directory that gets the copy is left out. */
static int copy_node(struct model *m, const struct op_rec *op, int from, int *made)
{
	struct node *n;
	int to;

	if (made[from])
		return made[from];
	to = made[from] = node_new(m, m->node[from].mode, op->copies[from] ? op->copies[from] : UINT64_MAX);
	n = &m->node[to];
	memcpy(n->xattr, m->node[from].xattr, sizeof(n->xattr));
	n->nlink = is_dir(m, from) ? 2 : 0;
	n->target = m->node[from].target;
	if (S_ISREG(n->mode)) {
		model_resize(n, m->node[from].size);
		if (n->size)
			memcpy(n->data, m->node[from].data, n->size);
	}
	n->size = m->node[from].size;
	for (int i = 0; i < ENTRIES && is_dir(m, from); i++) {
		const struct entry e = m->entry[i];
		int child;

		if (!e.used || e.dir != from || e.node == op->dir)
			continue;
		child = copy_node(m, op, e.node, made);
		m->node[child].nlink += !is_dir(m, child);
		entry_add(m, to, e.name, child);
	}
	return to;
}

static int64_t snapshot(struct model *m, const struct op_rec *op)
{
	int made[NODES] = { 0 }, to; /* 0 is the root, which is no copy */

	if (!is_dir(m, op->dir))
		return -ENOTDIR;
	if (model_find(m, op->dir, op->name))
		return -EEXIST;
	to = copy_node(m, op, op->node, made);
	m->node[to].nlink += !is_dir(m, to);
	entry_add(m, op->dir, op->name, to);
	return 0;
}

/* ---- attributes ---- */

static int64_t set_xattr(struct model *m, const struct op_rec *op)
{
	struct node *n = &m->node[op->node];

	if (!S_ISREG(n->mode) && !S_ISDIR(n->mode))
		return -EPERM;
	if (op->kind == OP_RMXATTR && !n->xattr[op->flags].there)
		return -ENODATA;
	n->xattr[op->flags].there = op->kind == OP_SETXATTR;
	n->xattr[op->flags].seed = op->seed;
	n->xattr[op->flags].len = (uint32_t)op->len;
	return 0;
}

/* ---- data ---- */

static int64_t do_open(struct model *m, const struct op_rec *op)
{
	struct node *n = &m->node[op->node];

	m->handle[op->handle].node = op->node;
	m->handle[op->handle].flags = op->flags;
	n->opens++;
	if (op->flags & O_TRUNC)
		model_resize(n, 0);
	return 0;
}

static int64_t do_close(struct model *m, const struct op_rec *op)
{
	int node = m->handle[op->handle].node;

	m->handle[op->handle].node = -1;
	m->node[node].opens--;
	node_drop(m, node);
	return 0;
}

static struct node *of_handle(struct model *m, int handle)
{
	return &m->node[m->handle[handle].node];
}

static int64_t do_write(struct model *m, const struct op_rec *op)
{
	struct node *n = of_handle(m, op->handle);
	uint64_t off = op->off;

	if (op->kind == OP_APPEND)
		off = n->size;
	if (off + op->len > n->size)
		model_resize(n, off + op->len);
	fill(n->data + off, op->len, op->seed);
	return (int64_t)op->len;
}

static int64_t do_fallocate(struct model *m, const struct op_rec *op)
{
	struct node *n = of_handle(m, op->handle);
	uint64_t end = op->off + op->len;

	if (!(op->flags & FALLOC_FL_KEEP_SIZE) && end > n->size)
		model_resize(n, end);
	end = MIN(end, n->size);
	if ((op->flags & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) && op->off < end)
		memset(n->data + op->off, 0, end - op->off);
	return 0;
}

static int64_t do_copy(struct model *m, const struct op_rec *op)
{
	struct node *in = of_handle(m, op->handle), *out = of_handle(m, op->handle2);
	uint64_t len;

	if (op->off >= in->size)
		return 0;
	len = MIN(op->len, in->size - op->off);
	if (op->off2 + len > out->size)
		model_resize(out, op->off2 + len);
	memcpy(out->data + op->off2, in->data + op->off, len);
	return (int64_t)len;
}

int64_t model_apply(struct model *m, const struct op_rec *op)
{
	struct entry *e;

	switch (op->kind) {
	case OP_CREATE: return make(m, op, S_IFREG | 0644);
	case OP_MKDIR: return make(m, op, S_IFDIR | 0755);
	case OP_SYMLINK: return make(m, op, S_IFLNK | 0777);
	case OP_MKFIFO: return make(m, op, S_IFIFO | 0600);
	case OP_LINK: return make_link(m, op);
	case OP_UNLINK: return take_away(m, op, false);
	case OP_RMDIR: return take_away(m, op, true);
	case OP_RENAME: return do_rename(m, op);
	case OP_SETXATTR:
	case OP_RMXATTR: return set_xattr(m, op);
	case OP_CHMOD:
		m->node[op->node].mode = (m->node[op->node].mode & S_IFMT) | (uint32_t)op->flags;
		return 0;
	case OP_OPEN: return do_open(m, op);
	case OP_CLOSE: return do_close(m, op);
	case OP_WRITE:
	case OP_APPEND: return do_write(m, op);
	case OP_TRUNCATE:
		model_resize(&m->node[op->node], op->len);
		return 0;
	case OP_FALLOCATE: return do_fallocate(m, op);
	case OP_COPY: return do_copy(m, op);
	case OP_LOOKUP:
		if (!is_dir(m, op->dir))
			return -ENOTDIR;
		e = model_find(m, op->dir, op->name);
		return e ? (int64_t)m->node[e->node].ino : -ENOENT;
	case OP_SNAPSHOT: return snapshot(m, op);
	default: return 0; /* changes nothing that can be seen */
	}
}

void op_text(const struct op_rec *op, char *buf, size_t len)
{
	static const char *const kinds[OP_KINDS] = {
		"create", "mkdir", "symlink", "mkfifo", "link", "unlink", "rmdir", "rename", "setxattr", "rmxattr",
		"chmod", "open", "close", "write", "append", "read", "truncate", "fallocate", "copy", "seek", "drop",
		"fsync", "sync", "lookup", "snapshot", "list", "remount", "crash",
	};

	snprintf(buf, len,
		 "%s dir %d name %d dir2 %d name2 %d node %d handle %d,%d flags 0x%x off %llu,%llu len %llu ino %llu",
		 kinds[op->kind], op->dir, op->name, op->dir2, op->name2, op->node, op->handle, op->handle2,
		 (unsigned)op->flags, (unsigned long long)op->off, (unsigned long long)op->off2,
		 (unsigned long long)op->len, (unsigned long long)op->ino);
}
