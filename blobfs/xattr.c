/* SPDX-License-Identifier: BSD-2-Clause */
/* Symlink targets and extended attributes: items of the inode's blob. Attributes are found as names in a directory are. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "blobfs/internal.h"

int bfs_readlink(struct bfs *fs, uint64_t ino, char *buf, size_t size)
{
	struct bfs_attr attr;
	struct bs_blob *blob;
	int rc;

	rc = bfs_peek(fs, ino, &attr, &blob);
	if (rc)
		return rc;
	if (S_ISLNK(attr.mode)) {
		rc = bs_item_get(blob, BFS_KIND_SYMLINK, 0, buf, (uint32_t)MIN(size, (size_t)BFS_SYMLINK_MAX));
		if (rc == -ENOENT || rc == 0 || rc > (int)BFS_SYMLINK_MAX)
			rc = -EUCLEAN;
		else if (rc > 0 && (size_t)rc > size)
			rc = -ERANGE;
	} else {
		rc = -EINVAL;
	}
	bs_blob_put(blob);
	return rc;
}

/* ---- names ---- */

enum { SPACE_USER = 1, SPACE_TRUSTED, SPACE_SECURITY };

/* The namespace, or an error. ACLs (system.*) are not offered. */
static int name_check(const char *name, size_t *len)
{
	static const struct {
		const char *prefix;
		int space;
	} spaces[] = { { "user.", SPACE_USER }, { "trusted.", SPACE_TRUSTED }, { "security.", SPACE_SECURITY } };

	*len = strnlen(name, XATTR_NAME_MAX + 1);
	if (!*len || *len > XATTR_NAME_MAX)
		return -ERANGE;
	for (size_t i = 0; i < ARRAY_SIZE(spaces); i++) {
		size_t n = strlen(spaces[i].prefix);

		if (*len > n && !strncmp(name, spaces[i].prefix, n))
			return spaces[i].space;
	}
	return -EOPNOTSUPP;
}

int bfs_xattr_decode(const void *value, uint32_t len, const char **name, uint32_t *name_len, const void **data,
		     uint32_t *data_len)
{
	const struct bfs_xattr_disk *d = value;

	if (len <= sizeof(*d) || !d->name_len || sizeof(*d) + d->name_len > len)
		return -EUCLEAN;
	*name = (const char *)(d + 1);
	*name_len = d->name_len;
	*data = *name + *name_len;
	*data_len = len - (uint32_t)sizeof(*d) - *name_len;
	return memchr(*name, 0, *name_len) || *data_len > BFS_XATTR_SIZE_MAX ? -EUCLEAN : 0;
}

struct find {
	const char *name;
	size_t len;
	uint64_t group, key, free;
	void *value;  /* gets up to size bytes */
	size_t size;
	uint32_t value_len;
};

enum { FIND_FOUND = 1, FIND_PAST = 2 };

static int find_one(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct find *f = arg;
	uint32_t name_len, data_len;
	const char *name;
	const void *data;
	int rc;

	if (key >> 8 != f->group >> 8)
		return FIND_PAST;
	if (key == f->free)
		f->free++;
	rc = bfs_xattr_decode(value, len, &name, &name_len, &data, &data_len);
	if (rc)
		return rc;
	if (name_len != f->len || memcmp(name, f->name, name_len))
		return 0;
	f->key = key;
	f->value_len = data_len;
	if (data_len && f->size >= data_len)
		memcpy(f->value, data, data_len);
	return FIND_FOUND;
}

/* 0 or -ENODATA. */
static int find(struct bfs *fs, struct bs_blob *blob, struct find *f)
{
	int rc;

	f->group = bfs_name_key(fs->hash_key, fs->hash_bits, f->name, f->len);
	f->free = f->group;
	rc = bs_item_scan(blob, BFS_KIND_XATTR, f->group, find_one, f);
	if (rc < 0)
		return rc;
	return rc == FIND_FOUND ? 0 : -ENODATA;
}

/* ---- reading ---- */

int64_t bfs_getxattr(struct bfs *fs, uint64_t ino, const char *name, void *value, size_t size)
{
	struct find f = { .name = name, .value = value, .size = size };
	struct bfs_attr attr;
	struct bs_blob *blob;
	int rc = name_check(name, &f.len);

	if (rc < 0)
		return rc;
	rc = bfs_peek(fs, ino, &attr, &blob);
	if (rc)
		return rc;
	rc = find(fs, blob, &f);
	bs_blob_put(blob);
	if (rc)
		return rc;
	return size && f.value_len > size ? -ERANGE : (int64_t)f.value_len;
}

struct list {
	char *buf;
	size_t size, len;
};

static int list_one(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct list *l = arg;
	uint32_t name_len, data_len;
	const char *name;
	const void *data;
	int rc = bfs_xattr_decode(value, len, &name, &name_len, &data, &data_len);

	(void)key;
	if (rc)
		return rc;
	if (l->len + name_len + 1 <= l->size) {
		memcpy(l->buf + l->len, name, name_len);
		l->buf[l->len + name_len] = 0;
	}
	l->len += name_len + 1;
	return 0;
}

int64_t bfs_listxattr(struct bfs *fs, uint64_t ino, char *list, size_t size)
{
	struct list l = { .buf = list, .size = size };
	struct bfs_attr attr;
	struct bs_blob *blob;
	int rc = bfs_peek(fs, ino, &attr, &blob);

	if (rc)
		return rc;
	rc = bs_item_scan(blob, BFS_KIND_XATTR, 0, list_one, &l);
	bs_blob_put(blob);
	if (rc)
		return rc;
	return size && l.len > size ? -ERANGE : (int64_t)l.len;
}

/* ---- changing ---- */

static int may_set(const struct bfs_cred *cred, const struct bfs_inode *inode, int space)
{
	if (space == SPACE_USER) {
		if (!S_ISREG(inode->mode) && !S_ISDIR(inode->mode))
			return -EPERM;
		if (S_ISDIR(inode->mode) && (inode->mode & S_ISVTX) && !bfs_cred_privileged(cred) &&
		    cred->uid != inode->uid)
			return -EPERM;
		return bfs_cred_check(cred, inode, W_OK);
	}
	return bfs_cred_privileged(cred) ? 0 : -EPERM;
}

struct set {
	const struct bfs_cred *cred;
	int space, flags;
	const void *item; /* NULL: remove */
	uint32_t item_len;
};

static int set_prepare(struct bfs_change *change, struct bfs_inode *inode, const struct set *s, struct find *f)
{
	int rc = may_set(s->cred, inode, s->space);

	if (!rc) {
		rc = find(change->fs, inode->blob, f);
		if (rc == -ENODATA && s->item && !(s->flags & XATTR_REPLACE)) {
			f->key = f->free;
			rc = f->free - f->group < BFS_COLLISIONS ? 0 : -ENOSPC;
		} else if (!rc && (s->flags & XATTR_CREATE)) {
			rc = -EEXIST;
		}
	}
	if (!rc && s->item)
		rc = bs_txn_put(change->txn, inode->blob, BFS_KIND_XATTR, f->key, s->item, s->item_len);
	else if (!rc)
		rc = bs_txn_del(change->txn, inode->blob, BFS_KIND_XATTR, f->key);
	if (rc) {
		bfs_change_cancel(change);
		return rc;
	}
	bfs_change_edit(change, inode); /* its ctime */
	return bfs_change_prepare(change);
}

static int set(struct bfs *fs, uint64_t ino, const struct set *s, struct find *f)
{
	struct bfs_inode *inode;
	struct bfs_change change;
	unsigned tried = 0;
	int rc = bfs_inode_get(fs, ino, &inode);

	if (rc)
		return rc;
	do {
		rc = bfs_change_begin(fs, s->item ? 0 : BS_TXN_FREES, &change);
		if (!rc)
			rc = set_prepare(&change, inode, s, f);
	} while (bfs_change_again(fs, rc, tried++));
	if (!rc)
		bfs_change_finish(&change);
	bfs_inode_put(inode);
	return rc;
}

int bfs_setxattr(struct bfs *fs, const struct bfs_cred *cred, uint64_t ino, const char *name, const void *value,
		 size_t size, int flags)
{
	struct set s = { .cred = cred, .flags = flags };
	struct find f = { .name = name };
	struct bfs_xattr_disk *item;
	int rc;

	if (flags & ~(XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	rc = s.space = name_check(name, &f.len);
	if (rc < 0)
		return rc;
	if (size > BFS_XATTR_SIZE_MAX)
		return -E2BIG;
	s.item_len = (uint32_t)(sizeof(*item) + f.len + size);
	item = base_malloc(s.item_len);
	if (!item)
		return -ENOMEM;
	item->name_len = (uint8_t)f.len;
	memcpy(item + 1, name, f.len);
	if (size)
		memcpy((char *)(item + 1) + f.len, value, size);
	s.item = item;
	rc = set(fs, ino, &s, &f);
	free(item);
	return rc;
}

int bfs_removexattr(struct bfs *fs, const struct bfs_cred *cred, uint64_t ino, const char *name)
{
	struct set s = { .cred = cred };
	struct find f = { .name = name };

	s.space = name_check(name, &f.len);
	return s.space < 0 ? s.space : set(fs, ino, &s, &f);
}
