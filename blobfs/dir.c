/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Entries of one directory: items whose key is a keyed hash of the name plus a collision number. A name's entry keeps
 * its key for as long as it is there, so the key serves as a cookie; names that collide stand side by side.
 */
#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>

#include "blobfs/internal.h"

static_assert(crypto_shorthash_BYTES == 8 && crypto_shorthash_KEYBYTES == 16, "SipHash-2-4");

uint64_t bfs_name_key(const uint8_t hash_key[16], uint32_t hash_bits, const char *name, size_t len)
{
	uint8_t out[8];
	le64 raw;
	uint64_t hash;

	crypto_shorthash(out, (const unsigned char *)name, len, hash_key);
	memcpy(&raw, out, sizeof(raw));
	hash = le64_get(raw) >> 9 & ((1ull << hash_bits) - 1);
	return (hash ? hash : 1) << 8;
}

bool bfs_name_is_valid(const char *name, size_t len)
{
	return len && len <= BFS_NAME_MAX && !memchr(name, '/', len) && !memchr(name, 0, len) &&
	       !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

int bfs_dirent_decode(const void *value, uint32_t len, struct bfs_entry *out, const char **name, uint32_t *name_len)
{
	const struct bfs_dirent_disk *d = value;

	if (len <= sizeof(*d))
		return -EUCLEAN;
	*name = (const char *)(d + 1);
	*name_len = len - (uint32_t)sizeof(*d);
	if (!bfs_name_is_valid(*name, *name_len))
		return -EUCLEAN;
	out->ino = le64_get(d->ino);
	out->type = (uint32_t)d->type << 12;
	return out->ino ? 0 : -EUCLEAN;
}

struct find {
	const char *name;
	size_t len;
	uint64_t group;        /* key without the collision number */
	uint64_t free;         /* lowest key of the group that nobody has */
	struct bfs_entry *out;
};

enum { FIND_FOUND = 1, FIND_PAST = 2 };

static int find_one(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct find *f = arg;
	const char *name;
	uint32_t name_len;
	int rc;

	if (key >> 8 != f->group >> 8)
		return FIND_PAST;
	if (key == f->free)
		f->free++;
	rc = bfs_dirent_decode(value, len, f->out, &name, &name_len);
	if (rc)
		return rc;
	if (name_len != f->len || memcmp(name, f->name, name_len))
		return 0;
	f->out->key = key;
	return FIND_FOUND;
}

static int find_name(struct bfs *fs, struct bs_blob *dir, struct find *f)
{
	int rc;

	f->group = bfs_name_key(fs->hash_key, fs->hash_bits, f->name, f->len);
	f->free = f->group;
	rc = bs_item_scan(dir, BFS_KIND_DIRENT, f->group, find_one, f);
	if (rc < 0)
		return rc;
	return rc == FIND_FOUND ? 0 : -ENOENT;
}

int bfs_dir_find(struct bfs *fs, struct bs_blob *dir, const char *name, size_t len, struct bfs_entry *out)
{
	struct find f = { .name = name, .len = len, .out = out };

	return find_name(fs, dir, &f);
}

int bfs_dir_new_key(struct bfs *fs, struct bs_blob *dir, const char *name, size_t len, uint64_t *key)
{
	struct bfs_entry entry;
	struct find f = { .name = name, .len = len, .out = &entry };
	int rc = find_name(fs, dir, &f);

	if (rc != -ENOENT)
		return rc ? rc : -EEXIST;
	if (f.free - f.group >= BFS_COLLISIONS)
		return -ENOSPC;
	*key = f.free;
	return 0;
}

int bfs_dir_put(struct bs_txn *txn, struct bs_blob *dir, uint64_t key, const char *name, size_t len, uint64_t ino,
		uint32_t mode)
{
	struct {
		struct bfs_dirent_disk d;
		char name[BFS_NAME_MAX];
	} __attribute__((packed)) value;

	assert(bfs_name_is_valid(name, len));
	value.d.ino = le64_make(ino);
	value.d.type = (uint8_t)((mode & S_IFMT) >> 12);
	memcpy(value.name, name, len);
	return bs_txn_put(txn, dir, BFS_KIND_DIRENT, key, &value, (uint32_t)(sizeof(value.d) + len));
}

static int find_any(uint64_t key, const void *value, uint32_t len, void *arg)
{
	(void)key;
	(void)value;
	(void)len;
	(void)arg;
	return FIND_FOUND;
}

bool bfs_dir_is_empty(struct bs_blob *dir)
{
	return bs_item_scan(dir, BFS_KIND_DIRENT, 0, find_any, NULL) == 0;
}
