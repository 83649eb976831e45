/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paths: a walk over names, from the root. A symlink's target is put before what is left of the path, in a buffer that
 * holds the longest path allowed.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blobfs/internal.h"

#define SYMLOOP_MAX 40

struct walk {
	struct bfs *fs;
	const struct bfs_cred *cred;
	uint64_t dir;               /* where the walk is */
	unsigned links;
	char *rest;                 /* what is left, inside buf; no leading '/' */
	char name[BFS_NAME_MAX + 1];
	bool last, slash;           /* name is the last component; a '/' follows it */
	char buf[BFS_PATH_MAX];
};

static int walk_init(struct walk *w, struct bfs *fs, const struct bfs_cred *cred, const char *path)
{
	size_t len = strnlen(path, BFS_PATH_MAX);

	if (len == BFS_PATH_MAX)
		return -ENAMETOOLONG;
	if (!len)
		return -ENOENT;
	w->fs = fs;
	w->cred = cred;
	w->dir = BFS_ROOT_INO;
	w->links = 0;
	/* At the end of buf, so that a target can be put before it. */
	w->rest = w->buf + sizeof(w->buf) - len - 1;
	memcpy(w->rest, path, len + 1);
	w->rest += strspn(w->rest, "/");
	return 0;
}

/* Takes the next component into name: 1, or 0 when there is none. */
static int walk_next(struct walk *w)
{
	size_t len = strcspn(w->rest, "/");

	if (!len)
		return 0;
	if (len > BFS_NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(w->name, w->rest, len);
	w->name[len] = 0;
	w->rest += len;
	w->slash = *w->rest == '/';
	w->rest += strspn(w->rest, "/");
	w->last = !*w->rest;
	return 1;
}

/* The walk goes on with the symlink's target. */
static int walk_link(struct walk *w, uint64_t ino)
{
	char target[BFS_SYMLINK_MAX + 1];
	size_t room = (size_t)(w->rest - w->buf);
	int len;

	if (++w->links > SYMLOOP_MAX)
		return -ELOOP;
	len = bfs_readlink(w->fs, ino, target, BFS_SYMLINK_MAX);
	if (len < 0)
		return len;
	if ((size_t)len + w->slash > room)
		return -ENAMETOOLONG;
	if (w->slash)
		*--w->rest = '/';
	w->rest -= len;
	memcpy(w->rest, target, (size_t)len);
	if (*w->rest == '/')
		w->dir = BFS_ROOT_INO;
	w->rest += strspn(w->rest, "/");
	return 0;
}

/* Goes one name on; attr tells what it is. */
static int walk_one(struct walk *w, bool follow, struct bfs_attr *attr)
{
	int rc = bfs_lookup(w->fs, w->cred, w->dir, w->name, attr);

	if (rc)
		return rc;
	if (S_ISLNK(attr->mode) && (follow || !w->last || w->slash))
		return walk_link(w, attr->ino);
	if ((!w->last || w->slash) && !S_ISDIR(attr->mode))
		return -ENOTDIR;
	w->dir = attr->ino;
	return 0;
}

int bfs_resolve(struct bfs *fs, const struct bfs_cred *cred, const char *path, uint32_t flags, struct bfs_attr *out)
{
	struct bfs_attr attr;
	struct walk w;
	int rc = walk_init(&w, fs, cred, path);

	if (!out)
		out = &attr;
	out->ino = 0;
	while (!rc && (rc = walk_next(&w)) > 0)
		rc = walk_one(&w, !(flags & BFS_NOFOLLOW), out);
	if (rc)
		return rc;
	return out->ino == w.dir ? 0 : bfs_getattr(fs, w.dir, out);
}

int bfs_resolve_parent(struct bfs *fs, const struct bfs_cred *cred, const char *path, uint64_t *dir, char *name)
{
	struct bfs_attr attr;
	struct walk w;
	int rc = walk_init(&w, fs, cred, path);

	if (rc)
		return rc;
	rc = walk_next(&w);
	if (!rc)
		return -EBUSY;
	while (rc > 0 && !w.last) {
		rc = walk_one(&w, true, &attr);
		if (!rc)
			rc = walk_next(&w);
	}
	if (rc < 0)
		return rc;
	rc = bfs_getattr(fs, w.dir, &attr);
	if (!rc && !S_ISDIR(attr.mode))
		rc = -ENOTDIR;
	if (rc)
		return rc;
	*dir = w.dir;
	memcpy(name, w.name, sizeof(w.name));
	return 0;
}

int bfs_make_path(struct bfs *fs, const struct bfs_cred *cred, const char *path, uint32_t mode)
{
	struct bfs_attr attr;
	struct walk w;
	int rc = walk_init(&w, fs, cred, path);

	while (!rc && (rc = walk_next(&w)) > 0) {
		rc = bfs_lookup(fs, cred, w.dir, w.name, &attr);
		if (rc == -ENOENT)
			rc = bfs_mkdir(fs, cred, w.dir, w.name, mode, 0, &attr);
		/* Somebody else may have made it, and a symlink is followed. */
		if (!rc || rc == -EEXIST)
			rc = walk_one(&w, true, &attr);
	}
	if (!rc)
		rc = bfs_getattr(fs, w.dir, &attr);
	return !rc && !S_ISDIR(attr.mode) ? -ENOTDIR : rc;
}
