/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Repair, "inodes": a blob whose header is no inode's becomes one again, of the type that its content shows: entries make a directory, a
 * target a symlink, anything else a file as long as what is written. And the root is a directory that knows how names are hashed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "blobfs/repair.h"

#define PASS "inodes"

struct bad_list {
	uint64_t *ino;
	size_t n, room;
};

static int first_key(uint64_t key, const void *value, uint32_t len, void *arg)
{
	(void)key;
	(void)value;
	*(uint32_t *)arg = len;
	return 1;
}

static bool has_items(struct bs_blob *blob, unsigned kind, uint32_t *len)
{
	*len = 0;
	return bs_item_scan(blob, kind, 0, first_key, len) == 1;
}

static int note_bad(struct bs_blob *blob, void *arg)
{
	struct bad_list *l = arg;
	struct bfs_inode inode = { 0 };
	struct bs_blob_info info;
	uint32_t len;

	bs_blob_get_info(blob, &info);
	if (!bfs_inode_from_info(&info, &inode)) {
		if (info.id == BFS_ROOT_INO ? S_ISDIR(inode.mode) && inode.parent == BFS_ROOT_INO && inode.nlink :
		    S_ISDIR(inode.mode) || bfs_has_data(blob, &info) || !has_items(blob, BFS_KIND_DIRENT, &len))
			return 0;
	}
	if (l->n == l->room) {
		size_t room = l->room ? 2 * l->room : 64;
		uint64_t *p = base_realloc(l->ino, room * sizeof(*p));

		if (!p)
			return -ENOMEM;
		l->ino = p;
		l->room = room;
	}
	l->ino[l->n++] = info.id;
	return 0;
}

/* The end of what was ever written, in bytes; what is carried in the log counts. */
static uint64_t written_end(struct bs_blob *blob)
{
	const uint64_t limit = 1ull << 40;
	struct bs_carried_range r = { .block = 0 };
	struct bs_extent e;
	uint64_t end = 0;

	for (uint64_t b = 0; b < limit; b += e.count) {
		bs_map_lookup(blob, b, limit - b, &e);
		if (!(e.flags & (BS_RUN_HOLE | BS_RUN_UNWRITTEN)))
			end = b + e.count;
		if (!e.count)
			break;
	}
	end *= BS_BLOCK;
	for (; bs_carried_next(blob, r.block, limit - r.block, &r); r.block++)
		end = MAX(end, r.block * BS_BLOCK + r.to);
	return MIN(end, BFS_SIZE_MAX);
}

static uint32_t type_of(struct bs_blob *blob, const struct bs_blob_info *info, uint32_t *target)
{
	uint32_t len;

	if (info->id == BFS_ROOT_INO || (!bfs_has_data(blob, info) && has_items(blob, BFS_KIND_DIRENT, &len)))
		return S_IFDIR;
	if (!bfs_has_data(blob, info) && has_items(blob, BFS_KIND_SYMLINK, target))
		return S_IFLNK;
	return S_IFREG;
}

static int do_delete(struct bs_txn *txn, struct bs_blob *blob, void *arg)
{
	(void)arg;
	return bs_txn_delete(txn, blob);
}

/* Owner, times and permissions are kept if they are there. */
static void fill(struct bfs_inode_disk *d, const struct bs_blob_info *info, uint32_t type)
{
	le64 now = le64_make((uint64_t)bfs_now());
	uint64_t parent;

	if (info->user_len == sizeof(*d)) {
		memcpy(d, info->user, sizeof(*d));
		d->mode = le32_make(type | (le32_get(d->mode) & 07777));
	} else {
		*d = (struct bfs_inode_disk){ .atime = now, .mtime = now, .ctime = now, .btime = now };
		d->mode = le32_make(type | (type == S_IFDIR ? 0700 : 0600));
		d->nlink = le32_make(type == S_IFDIR ? 2 : 1);
	}
	parent = le64_get(d->parent);
	if (info->id == BFS_ROOT_INO || (type == S_IFDIR && !parent))
		parent = BFS_ROOT_INO;
	d->parent = le64_make(type == S_IFDIR ? parent : 0);
	if (info->id == BFS_ROOT_INO && !le32_get(d->nlink))
		d->nlink = le32_make(2);
	d->rdev = le64_make(0);
	d->flags = d->reserved = le32_make(0);
}

static int fix_header(struct repair *r, uint64_t ino)
{
	struct bs_blob *blob = bs_blob_get(r->bs, ino);
	struct bfs_inode_disk disk;
	struct bs_blob_info info;
	uint32_t type, target = 0;
	uint64_t size;

	if (!blob)
		return 0;
	bs_blob_get_info(blob, &info);
	type = type_of(blob, &info, &target);
	size = type == S_IFLNK ? target : type == S_IFDIR ? 0 : info.size;
	if (type == S_IFREG && (info.user_len != sizeof(disk) || size > BFS_SIZE_MAX))
		size = written_end(blob);
	bs_blob_put(blob);
	if (type == S_IFREG && info.user_len != sizeof(disk) && !info.items && !size) {
		repair_say(r, PASS, "empty-blob", ino, "inode %llu: its header is lost and it holds nothing: deleted", (unsigned long long)ino);
		return repair_txn(r, ino, do_delete, NULL);
	}
	fill(&disk, &info, type);
	repair_say(r, PASS, "bad-inode", ino, "inode %llu: made a %s of %llu bytes again", (unsigned long long)ino,
		   type == S_IFDIR ? "directory" : type == S_IFLNK ? "symlink" : "file", (unsigned long long)size);
	return repair_header(r, ino, size, &disk);
}

/* A new key of the hash puts every name under a wrong key: the next pass moves them. */
static int fix_fs_item(struct repair *r)
{
	struct bs_blob *root = bs_blob_get(r->bs, BFS_ROOT_INO);
	struct bfs_fs_disk disk;
	int rc;

	if (!root)
		return -EUCLEAN;
	rc = bs_item_get(root, BFS_KIND_FS, 0, &disk, sizeof(disk));
	bs_blob_put(root);
	if (rc >= 4 && le32_get(disk.version) > BFS_FORMAT_VERSION && le32_get(disk.version) < 1000)
		return -ENOTSUP;
	if (rc == sizeof(disk) && le32_get(disk.version) == BFS_FORMAT_VERSION && le32_get(disk.hash_bits) &&
	    le32_get(disk.hash_bits) <= BFS_HASH_BITS)
		return 0;
	disk.version = le32_make(BFS_FORMAT_VERSION);
	disk.hash_bits = le32_make(BFS_HASH_BITS);
	base_random(disk.hash_key, sizeof(disk.hash_key));
	repair_say(r, PASS, "bad-fs-item", BFS_ROOT_INO, "the file system's item is made anew; every name gets a new key");
	return repair_put_item(r, BFS_ROOT_INO, BFS_KIND_FS, 0, &disk, sizeof(disk));
}

int repair_headers(struct repair *r)
{
	struct bad_list l = { NULL, 0, 0 };
	int rc = bs_foreach_blob(r->bs, 0, note_bad, &l);

	for (size_t i = 0; i < l.n && !rc && repair_may(r, false); i++)
		rc = fix_header(r, l.ino[i]);
	free(l.ino);
	if (!rc && repair_may(r, false))
		rc = fix_fs_item(r);
	return rc;
}
