/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * readdir: entries in order of their keys. Some are copied out under the blob's lock, then handed over without it. A key never
 * changes while its name is there, so going on after a key neither skips nor repeats what was there all along.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "blobfs/internal.h"

#define COOKIE_DOT 1u    /* after "." */
#define COOKIE_DOTDOT 2u /* after ".." */

struct slot { /* in the batch; the name follows, the whole padded to 8 */
	uint64_t key, ino;
	uint32_t type, name_len;
};

struct batch {
	unsigned count;
	uint32_t used;
	bool full;
	uint64_t buf[1024];
};

static int collect(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct batch *b = arg;
	struct bfs_entry entry;
	struct slot *slot;
	const char *name;
	uint32_t name_len, need;
	int rc = bfs_dirent_decode(value, len, &entry, &name, &name_len);

	if (rc)
		return rc;
	need = (uint32_t)round_up(sizeof(*slot) + name_len, 8);
	if (b->used + need > sizeof(b->buf)) {
		b->full = true;
		return 1;
	}
	slot = (struct slot *)((char *)b->buf + b->used);
	*slot = (struct slot){ .key = key, .ino = entry.ino, .type = entry.type, .name_len = name_len };
	memcpy(slot + 1, name, name_len);
	b->used += need;
	b->count++;
	return 0;
}

struct reader {
	struct bfs *fs;
	uint64_t dir;
	bool want_attr;
	bfs_dirent_fn fn;
	void *arg;
};

static int emit(const struct reader *r, struct bfs_dirent *entry)
{
	struct bfs_attr attr;

	if (r->want_attr && !bfs_peek(r->fs, entry->ino, &attr, NULL)) {
		entry->attr = &attr;
		entry->mode = attr.mode;
	}
	return r->fn(entry, r->arg);
}

static int emit_batch(const struct reader *r, const struct batch *b, uint64_t *cookie)
{
	const char *at = (const char *)b->buf;
	char name[BFS_NAME_MAX + 1];

	for (unsigned i = 0; i < b->count; i++) {
		const struct slot *slot = (const struct slot *)at;
		struct bfs_dirent entry = {
			.ino = slot->ino,
			.cookie = slot->key,
			.mode = slot->type,
			.name = name,
			.name_len = slot->name_len,
		};

		memcpy(name, slot + 1, slot->name_len);
		name[slot->name_len] = 0;
		if (emit(r, &entry))
			return 1;
		*cookie = slot->key;
		at += round_up(sizeof(*slot) + slot->name_len, 8);
	}
	return 0;
}

static int emit_dots(const struct reader *r, uint64_t *cookie)
{
	struct bfs_dirent entry = { .mode = S_IFDIR };
	int rc;

	if (*cookie < COOKIE_DOT) {
		entry.ino = r->dir;
		entry.cookie = COOKIE_DOT;
		entry.name = ".";
		entry.name_len = 1;
		if (emit(r, &entry))
			return 1;
		*cookie = COOKIE_DOT;
	}
	if (*cookie < COOKIE_DOTDOT) {
		rc = bfs_parent(r->fs, r->dir, &entry.ino);
		if (rc)
			return rc;
		entry = (struct bfs_dirent){ .ino = entry.ino, .mode = S_IFDIR };
		entry.cookie = COOKIE_DOTDOT;
		entry.name = "..";
		entry.name_len = 2;
		if (emit(r, &entry))
			return 1;
		*cookie = COOKIE_DOTDOT;
	}
	return 0;
}

static int read_entries(const struct reader *r, struct bs_blob *blob, uint64_t cookie)
{
	struct batch b;
	int rc;

	do {
		b.count = 0;
		b.used = 0;
		b.full = false;
		rc = bs_item_scan(blob, BFS_KIND_DIRENT, MAX(cookie + 1, (uint64_t)BFS_KEY_MIN), collect, &b);
		if (emit_batch(r, &b, &cookie))
			return 0;
		if (rc < 0)
			return rc;
	} while (b.full);
	return 0;
}

static void accessed(struct bfs *fs, uint64_t dir)
{
	struct bfs_inode *inode;

	if ((fs->opts.flags & (BFS_RDONLY | BFS_NOATIME)) || bfs_inode_get(fs, dir, &inode))
		return;
	bfs_inode_accessed(inode);
	bfs_inode_put(inode);
}

int bfs_readdir(struct bfs *fs, uint64_t dir, uint64_t cookie, bool want_attr, bfs_dirent_fn fn, void *arg)
{
	struct reader r = { .fs = fs, .dir = dir, .want_attr = want_attr, .fn = fn, .arg = arg };
	struct bs_blob *blob;
	struct bfs_attr attr;
	int rc;

	rc = bfs_peek(fs, dir, &attr, &blob);
	if (rc)
		return rc;
	rc = S_ISDIR(attr.mode) ? emit_dots(&r, &cookie) : -ENOTDIR;
	if (!rc && cookie < UINT64_MAX)
		rc = read_entries(&r, blob, cookie);
	bs_blob_put(blob);
	if (rc < 0)
		return rc;
	accessed(fs, dir);
	return 0;
}
