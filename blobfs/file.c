/* SPDX-License-Identifier: BSD-2-Clause */
/* Open files. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blobfs/data.h"

#define OPEN_TRIES 8 /* a name that comes and goes under us */

static int check_kind(const struct bfs_inode *inode)
{
	if (S_ISDIR(inode->mode))
		return -EISDIR;
	if (S_ISLNK(inode->mode))
		return -ELOOP;
	return S_ISREG(inode->mode) ? 0 : -ENXIO;
}

static int check_mode(const struct bfs_inode *inode, const struct bfs_cred *cred, int flags)
{
	int mode = flags & O_ACCMODE, mask = 0;
	bool write = mode != O_RDONLY || flags & O_TRUNC;

	if (mode != O_WRONLY)
		mask |= R_OK;
	if (write)
		mask |= W_OK;
	if (write && (inode->fs->opts.flags & BFS_RDONLY || inode->sealed))
		return -EROFS;
	return cred ? bfs_cred_check(cred, inode, mask) : 0;
}

/* Takes over the count of inode. */
static int file_make(struct bfs_inode *inode, int flags, enum bs_stream stream,
		     struct bfs_file **out)
{
	struct bfs_file *file = base_calloc(1, sizeof(*file));

	if (!file) {
		bfs_inode_put(inode);
		return -ENOMEM;
	}
	file->inode = inode;
	file->flags = flags;
	atomic_init(&file->stream, (int)stream);
	/* An error nobody has heard of yet is for this one, too. */
	atomic_init(&file->wb_error_seen, atomic_load(&inode->wb_error_told));
	*out = file;
	return 0;
}

static int file_open(struct bfs *fs, const struct bfs_cred *cred, uint64_t ino, int flags,
		     enum bs_stream stream, struct bfs_file **out)
{
	struct bfs_inode *inode;
	struct bfs_file *file;
	int rc;

	rc = bfs_inode_get(fs, ino, &inode);
	if (rc)
		return rc;
	rc = check_kind(inode);
	if (!rc)
		rc = check_mode(inode, cred, flags);
	if (rc) {
		bfs_inode_put(inode);
		return rc;
	}
	rc = file_make(inode, flags, stream, &file);
	if (rc)
		return rc;
	/* Unlike truncate(2), O_TRUNC of an empty file changes its times all the same. */
	if (flags & O_TRUNC)
		rc = bfs_truncate(fs, NULL, ino, 0);
	if (rc)
		bfs_close(file);
	else
		*out = file;
	return rc;
}

int bfs_open(struct bfs *fs, const struct bfs_cred *cred, uint64_t ino, int flags,
	     enum bs_stream stream, struct bfs_file **out)
{
	return file_open(fs, cred, ino, flags, stream, out);
}

static int open_new(struct bfs *fs, const struct bfs_cred *cred, const char *path, int flags,
		    uint32_t mode, enum bs_stream stream, struct bfs_file **out)
{
	char name[BFS_NAME_MAX + 1];
	struct bfs_attr attr;
	uint64_t dir;
	int rc;

	rc = bfs_resolve_parent(fs, cred, path, &dir, name);
	if (rc)
		return rc == -EBUSY ? -EISDIR : rc;
	rc = bfs_mknod(fs, cred, dir, name, S_IFREG | (mode & 07777), 0, BFS_REF, &attr);
	if (rc)
		return rc;
	/* Who makes a file may open it as he asked, whatever its mode. */
	rc = file_open(fs, NULL, attr.ino, flags & ~O_TRUNC, stream, out);
	bfs_unref(fs, attr.ino, 1);
	return rc;
}

int bfs_open_path(struct bfs *fs, const struct bfs_cred *cred, const char *path, int flags,
		  uint32_t mode, enum bs_stream stream, struct bfs_file **out)
{
	bool exclusive = (flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL);
	uint32_t walk = flags & O_NOFOLLOW || exclusive ? BFS_NOFOLLOW : 0;
	struct bfs_attr attr;
	int rc = -ENOENT;

	for (int tries = 0; tries < OPEN_TRIES; tries++) {
		rc = bfs_resolve(fs, cred, path, walk, &attr);
		if (!rc && exclusive)
			return -EEXIST;
		if (!rc)
			rc = file_open(fs, cred, attr.ino, flags, stream, out);
		if (rc != -ENOENT || !(flags & O_CREAT))
			return rc;
		rc = open_new(fs, cred, path, flags, mode, stream, out);
		if (rc != -EEXIST || exclusive)
			return rc;
		/* A dangling symlink has the name and no inode; what it points to is not made. */
		if (!bfs_resolve(fs, cred, path, BFS_NOFOLLOW, &attr) && S_ISLNK(attr.mode))
			rc = -ENOENT;
	}
	return rc;
}

void bfs_close(struct bfs_file *file)
{
	struct bfs_inode *inode = file->inode;

	if ((file->flags & O_ACCMODE) != O_RDONLY)
		bs_blob_trim_ahead(inode->blob);
	free(file);
	bfs_inode_put(inode);
}

uint64_t bfs_file_ino(const struct bfs_file *file)
{
	return file->inode->ino;
}

struct bfs *bfs_file_fs(const struct bfs_file *file)
{
	return file->inode->fs;
}

uint64_t bfs_file_size(struct bfs_file *file)
{
	return atomic_load_explicit(&file->inode->size, memory_order_acquire);
}

void bfs_set_stream(struct bfs_file *file, enum bs_stream stream)
{
	atomic_store_explicit(&file->stream, (int)stream, memory_order_relaxed);
}
