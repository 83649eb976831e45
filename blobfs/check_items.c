/* SPDX-License-Identifier: BSD-2-Clause */
/* Pass "items": what each inode's blob holds: entries of directories, targets, extended attributes, blocks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "blobfs/check.h"

#define PASS "items"

struct names { /* the names of one hash, which stand side by side */
	uint64_t group;
	unsigned n;
	uint8_t len[BFS_COLLISIONS];
	char name[BFS_COLLISIONS][BFS_NAME_MAX];
};

struct look {
	struct check *c;
	struct seen *s;
	struct names *names;
	uint64_t items;
};

static unsigned long long number(const struct look *l)
{
	return (unsigned long long)l->s->ino;
}

/* A name under its key: the hash is right and no other entry has the name. */
static void check_key(struct look *l, uint64_t key, const char *name, uint32_t len)
{
	struct check *c = l->c;
	struct names *g = l->names;

	if (c->hash_bits && bfs_name_key(c->hash_key, c->hash_bits, name, len) >> 8 != key >> 8)
		check_problem(c, PASS, "bad-key", l->s->ino, "inode %llu: \"%.*s\" stands under a wrong key",
			      number(l), (int)len, name);
	if (g->group != key >> 8) {
		g->group = key >> 8;
		g->n = 0;
	}
	for (unsigned i = 0; i < g->n; i++) {
		if (g->len[i] == len && !memcmp(g->name[i], name, len)) {
			check_problem(c, PASS, "duplicate-name", l->s->ino, "inode %llu: \"%.*s\" is there twice",
				      number(l), (int)len, name);
			return;
		}
	}
	if (g->n < BFS_COLLISIONS) {
		memcpy(g->name[g->n], name, len);
		g->len[g->n++] = (uint8_t)len;
	}
}

static void count_name(struct look *l, const struct bfs_entry *entry, const char *name, uint32_t len)
{
	struct check *c = l->c;
	struct seen *target = check_find(c, entry->ino);

	if (!target || !target->mode) {
		check_problem(c, PASS, "dangling-name", l->s->ino,
			      "directory %llu: \"%.*s\" names inode %llu, which is %s", number(l), (int)len, name,
			      (unsigned long long)entry->ino, target ? "damaged" : "not there");
		if (target)
			target->names++;
		return;
	}
	if ((target->mode & S_IFMT) != entry->type)
		check_problem(c, PASS, "wrong-type", l->s->ino, "directory %llu: \"%.*s\" has another type than inode %llu",
			      number(l), (int)len, name, (unsigned long long)entry->ino);
	target->names++;
	if (!S_ISDIR(target->mode))
		return;
	l->s->subdirs++;
	if (target->names > 1)
		check_problem(c, PASS, "directory-named-twice", target->ino,
			      "directory %llu has a second name, \"%.*s\" in %llu", (unsigned long long)target->ino,
			      (int)len, name, number(l));
	else
		target->named_by = l->s->ino;
}

static int look_at_entry(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct look *l = arg;
	struct bfs_entry entry;
	uint32_t name_len;
	const char *name;

	l->items++;
	l->s->entries++;
	if (bfs_dirent_decode(value, len, &entry, &name, &name_len) || key < BFS_KEY_MIN || key >> 63) {
		check_problem(l->c, PASS, "bad-entry", l->s->ino, "directory %llu: the entry with key %llu is malformed",
			      number(l), (unsigned long long)key);
		return 0;
	}
	check_key(l, key, name, name_len);
	count_name(l, &entry, name, name_len);
	return 0;
}

static int look_at_xattr(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct look *l = arg;
	uint32_t name_len, data_len;
	const char *name;
	const void *data;

	l->items++;
	if (bfs_xattr_decode(value, len, &name, &name_len, &data, &data_len) || key < BFS_KEY_MIN || key >> 63)
		check_problem(l->c, PASS, "bad-xattr", l->s->ino,
			      "inode %llu: the extended attribute with key %llu is malformed", number(l),
			      (unsigned long long)key);
	else
		check_key(l, key, name, name_len);
	return 0;
}

static int look_at_target(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct look *l = arg;

	l->items++;
	if (key || !len || len > BFS_SYMLINK_MAX || memchr(value, 0, len) || len != l->s->size)
		check_problem(l->c, PASS, "bad-symlink", l->s->ino, "symlink %llu: its target is malformed", number(l));
	return 0;
}

static int look_at_fs(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct look *l = arg;

	(void)value;
	(void)len;
	l->items += !key && l->s->ino == BFS_ROOT_INO; /* check_fs_item looks at its content */
	return 0;
}

/* A cut may leave data past the end, which the next mount cuts off; a store closed in order has none, and a snapshot never. */
static void check_blocks(struct look *l, struct bs_blob *blob)
{
	uint64_t block;

	if (!l->s->has_blocks)
		return;
	if (!S_ISREG(l->s->mode))
		check_problem(l->c, PASS, "blocks-of-no-file", l->s->ino, "inode %llu is no file and has blocks",
			      number(l));
	else if ((l->c->closed || l->s->sealed) && bfs_data_past_end(blob, l->s->size, &block))
		check_problem(l->c, PASS, "data-past-end", l->s->ino,
			      "file %llu: block %llu has data past the end of file, byte %llu", number(l),
			      (unsigned long long)block, (unsigned long long)l->s->size);
}

static void check_one(struct look *l, struct bs_blob *blob)
{
	uint64_t targets;

	l->names->n = 0;
	bs_item_scan(blob, BFS_KIND_DIRENT, 0, look_at_entry, l);
	if (l->s->entries && !S_ISDIR(l->s->mode))
		check_problem(l->c, PASS, "entries-of-no-directory", l->s->ino,
			      "inode %llu is no directory and has entries", number(l));
	l->names->n = 0;
	bs_item_scan(blob, BFS_KIND_XATTR, 0, look_at_xattr, l);
	bs_item_scan(blob, BFS_KIND_FS, 0, look_at_fs, l);
	targets = l->items;
	bs_item_scan(blob, BFS_KIND_SYMLINK, 0, look_at_target, l);
	targets = l->items - targets;
	if (targets != (S_ISLNK(l->s->mode) ? 1 : 0))
		check_problem(l->c, PASS, "bad-symlink", l->s->ino, "inode %llu: a target of no symlink, or none",
			      number(l));
	if (l->items != l->s->items)
		check_problem(l->c, PASS, "unknown-items", l->s->ino, "inode %llu: %llu items, %llu of them known",
			      number(l), (unsigned long long)l->s->items, (unsigned long long)l->items);
	check_blocks(l, blob);
}

int check_items(struct check *c)
{
	struct look l = { .c = c, .names = base_malloc(sizeof(*l.names)) };

	if (!l.names)
		return -ENOMEM;
	l.names->group = UINT64_MAX;
	for (size_t i = 0; i < c->n; i++) {
		struct bs_blob *blob;

		check_progress(c, PASS, i);
		l.s = &c->seen[i];
		l.items = 0;
		if (!l.s->mode)
			continue;
		blob = bs_blob_get(c->bs, l.s->ino);
		if (!blob)
			continue;
		check_one(&l, blob);
		bs_blob_put(blob);
	}
	free(l.names);
	return 0;
}
