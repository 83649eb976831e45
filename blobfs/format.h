/* SPDX-License-Identifier: BSD-2-Clause */
/* What BlobFS keeps in blobs: an inode is a blob, its number the blob's id. FORMAT.md tells the rest. */
#ifndef BLOBFS_FORMAT_H
#define BLOBFS_FORMAT_H

#include <assert.h>

#include "base/util.h"
#include "blob/blob.h"

#define BFS_OWNER "blobfs" /* bs_format_opts.owner */
#define BFS_FORMAT_VERSION 1

/* Item kinds */
enum bfs_kind {
	BFS_KIND_FS = BS_KIND_USER,          /* of the root inode, key 0: struct bfs_fs_disk */
	BFS_KIND_DIRENT = BS_KIND_USER + 1,  /* of a directory: key = cookie, value struct bfs_dirent_disk + name */
	BFS_KIND_XATTR = BS_KIND_USER + 2,   /* key = name hash, value struct bfs_xattr_disk + name + value */
	BFS_KIND_SYMLINK = BS_KIND_USER + 3, /* key 0: target */
};

#define BFS_HASH_SCRAMBLED 0x80000000u /* in hash_bits: a copy with unreadable names, whose keys are not those of the names */

struct bfs_fs_disk {
	le32 version;
	le32 hash_bits;       /* 1 … 55: how many bits of the hash make a key; fewer than 55 only to test collisions */
	uint8_t hash_key[16]; /* of SipHash-2-4, random at mkfs */
} __attribute__((packed));
static_assert(sizeof(struct bfs_fs_disk) == 24, "file system item");

/* User bytes of a blob's header: the inode. The blob's size is the file's (durable) size; a directory's is its number of entries. */
struct bfs_inode_disk {
	le32 mode;
	le32 nlink;           /* 0: an orphan, deleted at the next mount */
	le32 uid, gid;
	le64 rdev;
	le64 atime, mtime, ctime, btime; /* ns since 1970, two's complement */
	le64 parent;          /* directories: of ".."; else 0 */
	le32 flags;           /* 0 */
	le32 reserved;
} __attribute__((packed));
static_assert(sizeof(struct bfs_inode_disk) == 72, "inode");
static_assert(sizeof(struct bfs_inode_disk) <= BS_USER_MAX, "inode fits the header");

/* Key of a directory entry, which is its readdir cookie: h = SipHash-2-4(hash_key, name) >> 9, its low hash_bits bits, 1 for 0, in
 * bits 8 … 62 and a collision number 0 … 255 in bits 0 … 7; bit 63 is 0. So keys below 256 are free for "." and ".." and the
 * beginning. -ENOSPC when 256 names collide. An xattr's key is built the same way. */
#define BFS_HASH_BITS 55u
#define BFS_KEY_MIN 256u
#define BFS_COLLISIONS 256u

struct bfs_dirent_disk {
	le64 ino;
	uint8_t type; /* mode >> 12 */
	/* name, 1 … 255 bytes, no '/' and no zero */
} __attribute__((packed));
static_assert(sizeof(struct bfs_dirent_disk) == 9, "directory entry");

struct bfs_xattr_disk {
	uint8_t name_len; /* 1 … 255 */
	/* name, then value */
} __attribute__((packed));

#endif
