/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Repair, "tree": circles of directories are cut, whoever has no name gets one, then counts, sizes and parents are put right. A directory that
 * knows its parent goes back there; everything else goes to lost+found. The name is "#" and the inode's number.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "blobfs/repair.h"

#define PASS "tree"
#define LOST_FOUND "lost+found"

#define NUM(x) ((unsigned long long)(x))

/* ---- circles ---- */

struct entry_of {
	uint64_t ino, key;
};

static int find_entry_of(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct entry_of *e = arg;
	struct bfs_entry entry;
	uint32_t name_len;
	const char *name;

	if (bfs_dirent_decode(value, len, &entry, &name, &name_len) || entry.ino != e->ino)
		return 0;
	e->key = key;
	return 1;
}

static int remove_name(struct repair *r, uint64_t dir, uint64_t ino)
{
	struct bs_blob *blob = bs_blob_get(r->bs, dir);
	struct entry_of e = { .ino = ino };
	int found;

	if (!blob)
		return 0;
	found = bs_item_scan(blob, BFS_KIND_DIRENT, 0, find_entry_of, &e);
	bs_blob_put(blob);
	return found ? repair_del_item(r, dir, BFS_KIND_DIRENT, e.key) : 0;
}

/* Up from a directory that does not lead to the root, until one comes again: its name is what closes the circle. */
static int cut_circle(struct repair *r, struct seen *s)
{
	struct seen *at = s;

	while (at && at->reach == CHECK_BAD) {
		at->reach = CHECK_UNDER_WAY;
		at = at->named_by ? check_find(&r->c, at->named_by) : NULL;
	}
	if (!at || at->reach != CHECK_UNDER_WAY)
		return 0; /* it ends at one without a name */
	repair_say(r, PASS, "unreachable", at->ino, "directory %llu lies below itself: its name in %llu is removed", NUM(at->ino),
		   NUM(at->named_by));
	return remove_name(r, at->named_by, at->ino);
}

/* ---- names for those who have none ---- */

static int find_dir(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct entry_of *e = arg;
	struct bfs_entry entry;
	uint32_t name_len;
	const char *name;

	(void)key;
	if (bfs_dirent_decode(value, len, &entry, &name, &name_len) || entry.type != S_IFDIR || name_len != strlen(LOST_FOUND) ||
	    memcmp(name, LOST_FOUND, name_len))
		return 0;
	e->ino = entry.ino;
	return 1;
}

struct new_dir {
	struct bfs_inode_disk disk;
	uint64_t ino;
};

static int do_create(struct bs_txn *txn, struct bs_blob *root, void *arg)
{
	struct new_dir *n = arg;
	struct bs_blob *blob;
	int rc = bs_txn_create(txn, 0, &n->disk, sizeof(n->disk), &blob);

	(void)root;
	if (rc)
		return rc;
	n->ino = bs_blob_id(blob);
	bs_blob_put(blob);
	return 0;
}

/* Found or made. The root's counts follow in the next round. */
static int get_lost_found(struct repair *r)
{
	struct bs_blob *root = bs_blob_get(r->bs, BFS_ROOT_INO);
	le64 now = le64_make((uint64_t)bfs_now());
	struct new_dir n = { .disk = { .mode = le32_make(S_IFDIR | 0700), .nlink = le32_make(2), .atime = now, .mtime = now, .ctime = now,
				       .btime = now, .parent = le64_make(BFS_ROOT_INO) } };
	struct entry_of e = { 0 };
	int rc;

	if (!root)
		return -ENOENT;
	bs_item_scan(root, BFS_KIND_DIRENT, 0, find_dir, &e);
	bs_blob_put(root);
	r->lost_found = e.ino;
	if (r->lost_found)
		return 0;
	rc = repair_txn(r, BFS_ROOT_INO, do_create, &n);
	if (rc)
		return rc;
	r->lost_found = n.ino;
	repair_say(r, PASS, "lost-found", n.ino, "/" LOST_FOUND " is made");
	return repair_add_name(r, BFS_ROOT_INO, LOST_FOUND, n.ino, S_IFDIR);
}

/* Where a directory says it belongs, if that is a directory below the root. */
static bool parent_is_good(struct repair *r, const struct seen *s)
{
	const struct seen *p = S_ISDIR(s->mode) && s->parent != s->ino ? check_find(&r->c, s->parent) : NULL;

	return p && S_ISDIR(p->mode) && p->nlink && p->reach == CHECK_GOOD;
}

static int give_name(struct repair *r, struct seen *s)
{
	bool home = parent_is_good(r, s) && s->parent != BFS_ROOT_INO;
	char name[32];
	int rc = home || r->lost_found ? 0 : get_lost_found(r);

	if (rc)
		return rc;
	snprintf(name, sizeof(name), "#%llu", NUM(s->ino));
	repair_say(r, PASS, "no-name", s->ino, "inode %llu has no name: put into %s %llu as \"%s\"", NUM(s->ino),
		   home ? "its directory" : LOST_FOUND, NUM(home ? s->parent : r->lost_found), name);
	r->result->lost_found += !home;
	return repair_add_name(r, home ? s->parent : r->lost_found, name, s->ino, s->mode & S_IFMT);
}

static bool wants_name(const struct seen *s)
{
	return s->mode && !s->names && s->ino != BFS_ROOT_INO && (s->nlink || (S_ISDIR(s->mode) && s->entries));
}

/* ---- counts ---- */

static int fix_counts(struct repair *r, const struct seen *s)
{
	bool dir = S_ISDIR(s->mode), root = s->ino == BFS_ROOT_INO;
	uint32_t links = dir ? (root || s->names ? s->subdirs + 2 : 0) : s->names;
	uint64_t parent = dir ? (root ? BFS_ROOT_INO : s->named_by ? s->named_by : s->parent) : 0;
	struct bfs_inode_disk disk;
	uint64_t size;
	int rc;

	if (s->nlink == links && s->parent == parent && (!dir || s->size == s->entries))
		return 0;
	rc = repair_get_header(r, s->ino, &size, &disk);
	if (rc)
		return rc;
	if (s->nlink != links)
		repair_say(r, PASS, "wrong-links", s->ino, "inode %llu: link count %u becomes %u", NUM(s->ino), s->nlink, links);
	if (s->parent != parent)
		repair_say(r, PASS, "wrong-parent", s->ino, "directory %llu: parent %llu becomes %llu", NUM(s->ino), NUM(s->parent), NUM(parent));
	if (dir && s->size != s->entries)
		repair_say(r, PASS, "wrong-size", s->ino, "directory %llu: size %llu becomes %llu", NUM(s->ino), NUM(s->size), NUM(s->entries));
	disk.nlink = le32_make(links);
	disk.parent = le64_make(parent);
	return repair_header(r, s->ino, dir ? s->entries : size, &disk);
}

int repair_tree(struct repair *r)
{
	uint64_t before = r->changes;
	int rc = check_tree(&r->c);

	r->lost_found = 0;
	for (size_t i = 0; i < r->c.n && !rc && repair_may(r, false); i++)
		if (r->c.seen[i].reach == CHECK_BAD)
			rc = cut_circle(r, &r->c.seen[i]);
	for (size_t i = 0; i < r->c.n && !rc && repair_may(r, false); i++)
		if (wants_name(&r->c.seen[i]))
			rc = give_name(r, &r->c.seen[i]);
	if (r->changes != before)
		return rc; /* what is counted has changed */
	for (size_t i = 0; i < r->c.n && !rc; i++)
		if (r->c.seen[i].mode)
			rc = fix_counts(r, &r->c.seen[i]);
	return rc;
}
