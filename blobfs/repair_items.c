/* SPDX-License-Identifier: BSD-2-Clause */
/* Repair, "items": entries, attributes, targets and blocks of each inode. What cannot be right goes, what stands at a wrong place moves. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "blobfs/repair.h"

#define PASS "items"

enum action { DELETE, MOVE, RETYPE };
struct edit {
	enum action action;
	unsigned kind;
	uint64_t key, to; /* MOVE: to this group */
	uint32_t len;
	uint8_t type;     /* RETYPE */
	uint8_t *value;   /* a copy: nothing may be changed during the scan */
};
struct kept { /* directories with several names: the one that stays */
	uint64_t ino, dir, key;
};
struct fix {
	struct repair *r;
	struct seen *s;
	struct edit *edit;
	size_t n, room;
	struct kept *kept;
	size_t n_kept, kept_room;
	int rc;
};

static int add_edit(struct fix *f, enum action action, unsigned kind, uint64_t key, const void *value, uint32_t len)
{
	struct edit *e;

	if (f->n == f->room) {
		size_t room = f->room ? 2 * f->room : 32;
		struct edit *p = base_realloc(f->edit, room * sizeof(*p));

		if (!p)
			return f->rc = -ENOMEM;
		f->edit = p;
		f->room = room;
	}
	e = &f->edit[f->n];
	*e = (struct edit){ .action = action, .kind = kind, .key = key, .len = len };
	if (action != DELETE) {
		e->value = base_malloc(len ? len : 1);
		if (!e->value)
			return f->rc = -ENOMEM;
		memcpy(e->value, value, len);
	}
	f->n++;
	return 0;
}

#define SAY(f, code, fmt, ...) \
	repair_say((f)->r, PASS, code, (f)->s->ino, "inode %llu: " fmt, (unsigned long long)(f)->s->ino, ##__VA_ARGS__)

/* ---- entries ---- */

struct who {
	uint64_t ino;
	bool found;
};

static int names_it(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct who *w = arg;
	struct bfs_entry e;
	const char *name;
	uint32_t name_len;

	(void)key;
	w->found = !bfs_dirent_decode(value, len, &e, &name, &name_len) && e.ino == w->ino;
	return w->found;
}

/* Is the directory named by the one that it says is its parent? Not to be asked during a scan of that one. */
static bool named_by_parent(struct fix *f, const struct seen *t)
{
	struct bs_blob *parent = bs_blob_get(f->r->bs, t->parent);
	struct who w = { .ino = t->ino };

	if (parent)
		bs_item_scan(parent, BFS_KIND_DIRENT, 0, names_it, &w);
	bs_blob_put(parent);
	return w.found;
}

/* Of several names of a directory one stays: that in the parent it knows, else the first. */
static bool stays(struct fix *f, const struct seen *t, uint64_t key)
{
	struct kept *k = NULL;

	if (t->ino == BFS_ROOT_INO)
		return false;
	if (t->names < 2)
		return true;
	if (t->parent != f->s->ino && named_by_parent(f, t))
		return false;
	for (size_t i = 0; i < f->n_kept && !k; i++)
		if (f->kept[i].ino == t->ino)
			k = &f->kept[i];
	if (k)
		return k->dir == f->s->ino && k->key == key;
	if (f->n_kept == f->kept_room) {
		size_t room = f->kept_room ? 2 * f->kept_room : 16;
		struct kept *p = base_realloc(f->kept, room * sizeof(*p));

		if (!p) {
			f->rc = -ENOMEM;
			return true;
		}
		f->kept = p;
		f->kept_room = room;
	}
	f->kept[f->n_kept++] = (struct kept){ t->ino, f->s->ino, key };
	return true;
}

static int move(struct fix *f, unsigned kind, uint64_t key, uint64_t to, const void *value, uint32_t len)
{
	if (!add_edit(f, MOVE, kind, key, value, len))
		f->edit[f->n - 1].to = to;
	return f->rc;
}

static int fix_entry(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct fix *f = arg;
	struct check *c = &f->r->c;
	struct bfs_entry entry;
	const struct seen *t;
	uint32_t name_len;
	const char *name;
	uint64_t group;

	if (!S_ISDIR(f->s->mode) || bfs_dirent_decode(value, len, &entry, &name, &name_len) || key >> 63) {
		SAY(f, "bad-entry", "an entry is malformed: removed");
		return add_edit(f, DELETE, BFS_KIND_DIRENT, key, NULL, 0);
	}
	t = check_find(c, entry.ino);
	if (!t || !t->mode) {
		SAY(f, "dangling-name", "\"%.*s\" names inode %llu, which is lost: removed", (int)name_len, name, (unsigned long long)entry.ino);
		return add_edit(f, DELETE, BFS_KIND_DIRENT, key, NULL, 0);
	}
	if (S_ISDIR(t->mode) && (t->ino == f->s->ino || !stays(f, t, key))) {
		SAY(f, "directory-named-twice", "\"%.*s\" is another name of directory %llu: removed", (int)name_len, name,
		    (unsigned long long)entry.ino);
		return add_edit(f, DELETE, BFS_KIND_DIRENT, key, NULL, 0);
	}
	if ((t->mode & S_IFMT) != entry.type) {
		SAY(f, "wrong-type", "\"%.*s\" gets the type of inode %llu", (int)name_len, name, (unsigned long long)entry.ino);
		if (!add_edit(f, RETYPE, BFS_KIND_DIRENT, key, value, len))
			f->edit[f->n - 1].type = (uint8_t)(t->mode >> 12);
		return f->rc;
	}
	group = bfs_name_key(c->hash_key, c->hash_bits, name, name_len);
	return group >> 8 == key >> 8 ? f->rc : move(f, BFS_KIND_DIRENT, key, group, value, len);
}

static int fix_xattr(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct fix *f = arg;
	struct check *c = &f->r->c;
	uint32_t name_len, data_len;
	const void *data;
	const char *name;
	uint64_t group;

	if (bfs_xattr_decode(value, len, &name, &name_len, &data, &data_len) || key >> 63) {
		SAY(f, "bad-xattr", "an extended attribute is malformed: removed");
		return add_edit(f, DELETE, BFS_KIND_XATTR, key, NULL, 0);
	}
	group = bfs_name_key(c->hash_key, c->hash_bits, name, name_len);
	return group >> 8 == key >> 8 ? f->rc : move(f, BFS_KIND_XATTR, key, group, value, len);
}

/* ---- doing it ---- */

struct name_of {
	const uint8_t *name;
	uint32_t len;
};

static struct name_of name_of(unsigned kind, const uint8_t *value, uint32_t len)
{
	if (kind == BFS_KIND_DIRENT)
		return (struct name_of){ value + sizeof(struct bfs_dirent_disk), len - (uint32_t)sizeof(struct bfs_dirent_disk) };
	return (struct name_of){ value + sizeof(struct bfs_xattr_disk), value[0] };
}

struct twin {
	struct name_of want;
	unsigned kind;
	uint64_t group, except;
	bool found;
};

static int is_twin(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct twin *t = arg;
	struct name_of n;

	if (key >> 8 != t->group >> 8)
		return 1;
	n = name_of(t->kind, value, len);
	t->found |= key != t->except && n.len == t->want.len && !memcmp(n.name, t->want.name, n.len);
	return t->found;
}

static bool has_twin(struct bs_blob *blob, const struct edit *e)
{
	struct twin t = { name_of(e->kind, e->value, e->len), e->kind, e->to & ~255ull, e->key, false };

	bs_item_scan(blob, e->kind, t.group, is_twin, &t);
	return t.found;
}

static int do_move(struct bs_txn *txn, struct bs_blob *blob, void *arg)
{
	const struct edit *e = arg;
	int rc = e->to ? bs_txn_put(txn, blob, e->kind, e->to, e->value, e->len) : 0;

	return rc ? rc : bs_txn_del(txn, blob, e->kind, e->key);
}

/* Under the key its name has; if the name is there already, the other one stays. */
static int move_item(struct fix *f, struct edit *e)
{
	struct bs_blob *blob = bs_blob_get(f->r->bs, f->s->ino);
	struct name_of n = name_of(e->kind, e->value, e->len);

	if (!blob)
		return 0;
	e->to = has_twin(blob, e) ? 0 : repair_free_key(blob, e->kind, e->to);
	bs_blob_put(blob);
	SAY(f, e->to ? "bad-key" : "duplicate-name", "\"%.*s\" %s", (int)n.len, (const char *)n.name,
	    e->to ? "gets the key of its name" : "is there twice: one is removed");
	return repair_txn(f->r, f->s->ino, do_move, e);
}

static int do_edit(struct fix *f, struct edit *e)
{
	switch (e->action) {
	case DELETE: return repair_del_item(f->r, f->s->ino, e->kind, e->key);
	case MOVE: return move_item(f, e);
	case RETYPE:
		e->value[offsetof(struct bfs_dirent_disk, type)] = e->type;
		return repair_put_item(f->r, f->s->ino, e->kind, e->key, e->value, e->len);
	}
	return -EINVAL;
}

static int do_edits(struct fix *f)
{
	int rc = f->rc;

	for (size_t i = 0; i < f->n; i++) {
		if (!rc)
			rc = do_edit(f, &f->edit[i]);
		free(f->edit[i].value);
	}
	f->n = 0;
	f->rc = 0;
	return rc;
}

/* ---- duplicates under right keys ---- */

struct group {
	struct fix *f;
	unsigned kind;
	uint64_t group;
	unsigned n;
	struct {
		uint8_t len;
		uint8_t name[BFS_NAME_MAX];
	} name[BFS_COLLISIONS];
};

static int find_duplicate(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct group *g = arg;
	struct name_of n = name_of(g->kind, value, len);

	if (key >> 8 != g->group) {
		g->group = key >> 8;
		g->n = 0;
	}
	for (unsigned i = 0; i < g->n; i++)
		if (g->name[i].len == n.len && !memcmp(g->name[i].name, n.name, n.len)) {
			SAY(g->f, "duplicate-name", "\"%.*s\" is there twice: one is removed", (int)n.len, (const char *)n.name);
			return add_edit(g->f, DELETE, g->kind, key, NULL, 0);
		}
	if (g->n < BFS_COLLISIONS) {
		g->name[g->n].len = (uint8_t)n.len;
		memcpy(g->name[g->n++].name, n.name, n.len);
	}
	return 0;
}

static int fix_duplicates(struct fix *f, struct bs_blob *blob, struct group *g)
{
	static const unsigned kinds[] = { BFS_KIND_DIRENT, BFS_KIND_XATTR };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		g->f = f;
		g->kind = kinds[i];
		g->group = UINT64_MAX;
		g->n = 0;
		bs_item_scan(blob, kinds[i], 0, find_duplicate, g);
	}
	return do_edits(f);
}

/* ---- targets, blocks ---- */

struct unwanted {
	struct fix *f;
	unsigned kind;
};

static int drop_item(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct unwanted *u = arg;

	(void)value;
	(void)len;
	if (u->kind == BFS_KIND_FS && u->f->s->ino == BFS_ROOT_INO && !key)
		return 0;
	if (u->kind == BFS_KIND_SYMLINK && S_ISLNK(u->f->s->mode) && !key)
		return 0;
	SAY(u->f, "unknown-items", "an item of kind %u does not belong to it: removed", u->kind);
	return add_edit(u->f, DELETE, u->kind, key, NULL, 0);
}

static int do_truncate(struct bs_txn *txn, struct bs_blob *blob, void *arg)
{
	return bs_txn_unmap(txn, blob, *(uint64_t *)arg, UINT64_MAX);
}

static int do_delete(struct bs_txn *txn, struct bs_blob *blob, void *arg)
{
	(void)arg;
	return bs_txn_delete(txn, blob);
}

/* A symlink is as long as its target; without a target it is nothing. */
static int fix_symlink(struct fix *f, struct bs_blob *blob)
{
	char target[BFS_SYMLINK_MAX];
	struct bfs_inode_disk disk;
	uint64_t size;
	int len = bs_item_get(blob, BFS_KIND_SYMLINK, 0, target, sizeof(target)), rc;

	if (len <= 0 || len > (int)BFS_SYMLINK_MAX || memchr(target, 0, (size_t)len)) {
		SAY(f, "bad-symlink", "the target of the symlink is lost: deleted");
		return repair_txn(f->r, f->s->ino, do_delete, NULL);
	}
	if ((uint64_t)len == f->s->size)
		return 0;
	rc = repair_get_header(f->r, f->s->ino, &size, &disk);
	if (rc)
		return rc;
	SAY(f, "bad-symlink", "size %llu, should be %d", (unsigned long long)f->s->size, len);
	return repair_header(f->r, f->s->ino, (uint64_t)len, &disk);
}

static int fix_blocks(struct fix *f, struct bs_blob *blob)
{
	uint64_t block = 0;

	if (!f->s->has_blocks)
		return 0;
	if (S_ISREG(f->s->mode) ? !bfs_data_past_end(blob, f->s->size, &block) : !repair_may(f->r, false))
		return 0;
	if (S_ISREG(f->s->mode))
		SAY(f, "data-past-end", "data past the end of file, byte %llu: removed", (unsigned long long)f->s->size);
	else
		SAY(f, "blocks-of-no-file", "no file, and has blocks: removed");
	return repair_txn(f->r, f->s->ino, do_truncate, &block);
}

static int fix_one(struct fix *f, struct bs_blob *blob, struct group *g)
{
	int rc = fix_blocks(f, blob);

	if (rc || !repair_may(f->r, false))
		return rc;
	bs_item_scan(blob, BFS_KIND_DIRENT, 0, fix_entry, f);
	bs_item_scan(blob, BFS_KIND_XATTR, 0, fix_xattr, f);
	for (unsigned kind = BS_KIND_USER; kind <= BS_KIND_MAX; kind++) {
		struct unwanted u = { f, kind };

		if (kind != BFS_KIND_DIRENT && kind != BFS_KIND_XATTR)
			bs_item_scan(blob, kind, 0, drop_item, &u);
	}
	rc = do_edits(f);
	if (!rc)
		rc = fix_duplicates(f, blob, g);
	return !rc && S_ISLNK(f->s->mode) ? fix_symlink(f, blob) : rc;
}

int repair_items(struct repair *r)
{
	struct fix f = { .r = r };
	struct group *g = base_malloc(sizeof(*g));
	int rc = g ? 0 : -ENOMEM;

	for (size_t i = 0; i < r->c.n && !rc; i++) {
		struct bs_blob *blob = bs_blob_get(r->bs, r->c.seen[i].ino);

		f.s = &r->c.seen[i];
		if (blob && f.s->mode)
			rc = fix_one(&f, blob, g);
		bs_blob_put(blob);
	}
	free(f.edit);
	free(f.kept);
	free(g);
	return rc;
}
