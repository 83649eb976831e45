/* SPDX-License-Identifier: BSD-2-Clause */
/* blobfs put: copies files and trees of the host in. What cannot be copied whole is not left half-done. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/limits.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/util.h"
#include "tools/blobfs/verb.h"
#include "tools/common/common.h"

#define TEMP_NAME 32

struct seen_link { /* a host inode with several names, and what it became */
	dev_t dev;
	ino_t ino;
	uint64_t copy;
};

struct putter {
	struct bfs *fs;
	const struct call *call;
	char *buf;    /* COPY_CHUNK bytes */
	bool stop;    /* the device is full or broken: the rest would only repeat it */
	void *links;  /* tsearch tree of struct seen_link */
	int result;
};

static int by_inode(const void *a, const void *b)
{
	const struct seen_link *x = a, *y = b;

	if (x->dev != y->dev)
		return x->dev < y->dev ? -1 : 1;
	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static int64_t timespec_ns(const struct timespec *t)
{
	return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

static int copy_xattrs(struct putter *p, const char *from, uint64_t ino)
{
	char names[XATTR_LIST_MAX];
	ssize_t n = llistxattr(from, names, sizeof(names)), len;

	if (n < 0)
		return errno == ENOTSUP ? 0 : -errno;
	for (char *name = names; name < names + n; name += strlen(name) + 1) {
		int rc;

		len = lgetxattr(from, name, p->buf, COPY_CHUNK);
		if (len < 0)
			return -errno;
		rc = bfs_setxattr(p->fs, NULL, ino, name, p->buf, (size_t)len, 0);
		if (rc == -EOPNOTSUPP) {
			tool_error("put: %s: attribute %s is of a kind that BlobFS does not keep", from, name);
			p->result = EXIT_FAILED;
		} else if (rc) {
			return rc;
		}
	}
	return 0;
}

/* -r keeps everything; a plain put keeps the mode, as cp does. */
static int copy_attributes(struct putter *p, const char *from, const struct stat *st, uint64_t ino)
{
	struct bfs_attr a = { .mode = st->st_mode & 07777, .uid = st->st_uid, .gid = st->st_gid,
			      .atime = timespec_ns(&st->st_atim), .mtime = timespec_ns(&st->st_mtim) };
	int rc;

	if (!p->call->opt['r'])
		return bfs_setattr(p->fs, NULL, ino, &a, BFS_SET_MODE, NULL);
	rc = copy_xattrs(p, from, ino);
	if (rc == 0) /* the owner first: chown clears suid and sgid */
		rc = bfs_setattr(p->fs, NULL, ino, &a, BFS_SET_UID | BFS_SET_GID, NULL);
	if (rc == 0)
		rc = bfs_setattr(p->fs, NULL, ino, &a,
				 (S_ISLNK(st->st_mode) ? 0 : BFS_SET_MODE) | BFS_SET_ATIME | BFS_SET_MTIME, NULL);
	return rc;
}

/* The next data of a sparse file at or after *at. False: none is left, and *at is its end. */
static bool skip_hole(int fd, uint64_t *at)
{
	off_t next = lseek(fd, (off_t)*at, SEEK_DATA);
	struct stat st;

	if (next >= 0) {
		*at = (uint64_t)next;
		return true;
	}
	if (errno != ENXIO || fstat(fd, &st) || (uint64_t)st.st_size <= *at)
		return errno != ENXIO; /* a file system without SEEK_DATA: read on */
	*at = (uint64_t)st.st_size;
	return false;
}

/* Bytes from a descriptor; holes and runs of zero blocks become holes when they come from a regular file. */
static int copy_bytes(struct putter *p, int fd, bool sparse, uint64_t ino)
{
	struct bfs_file *file = NULL;
	uint64_t at = 0;
	int rc = bfs_open(p->fs, NULL, ino, O_WRONLY, BS_STREAM_UNKNOWN, &file);

	while (rc == 0) {
		int64_t done;
		ssize_t n;

		if (sparse && !skip_hole(fd, &at))
			break;
		n = read(fd, p->buf, COPY_CHUNK);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			rc = n ? -errno : 0;
			break;
		}
		if (sparse && p->buf[0] == 0 && memcmp(p->buf, p->buf + 1, (size_t)n - 1) == 0) {
			at += (uint64_t)n;
			continue;
		}
		done = bfs_pwrite(file, p->buf, (size_t)n, at);
		if (done < n)
			rc = done < 0 ? (int)done : -ENOSPC;
		at += (uint64_t)n;
	}
	if (rc == 0 && sparse && at > bfs_file_size(file))
		rc = bfs_truncate(p->fs, NULL, ino, at);
	if (rc == 0) /* an error of writing belongs to this file's message; all is committed together at the end */
		rc = bfs_sync_range(file, 0, UINT64_MAX, true);
	if (file)
		bfs_close(file);
	return rc;
}

static void temp_name(char temp[TEMP_NAME])
{
	uint64_t random;

	base_random(&random, sizeof(random));
	snprintf(temp, TEMP_NAME, ".put-%016" PRIx64, random);
}

/* What was made under a name of its own takes the place of what has its name, or goes. */
static int into_place(struct putter *p, uint64_t dir, const char *temp, const char *name, int rc)
{
	if (rc == 0)
		rc = bfs_rename(p->fs, NULL, dir, temp, dir, name, 0);
	/* After a rename of one link over another of the same file both are still there. */
	bfs_unlink(p->fs, NULL, dir, temp);
	return rc;
}

/* A new file takes the place of an old one only when it is complete, by rename. */
static int put_content(struct putter *p, const char *from, int fd, const struct stat *st, uint64_t dir, const char *name)
{
	char temp[TEMP_NAME];
	struct bfs_attr a;
	int rc;

	temp_name(temp);
	rc = bfs_mknod(p->fs, NULL, dir, temp, S_IFREG | 0600, 0, 0, &a);
	if (rc)
		return rc;
	rc = copy_bytes(p, fd, S_ISREG(st->st_mode) && lseek(fd, 0, SEEK_CUR) == 0, a.ino);
	if (rc == 0 && S_ISREG(st->st_mode))
		rc = copy_attributes(p, from, st, a.ino);
	else if (rc == 0)
		rc = bfs_setattr(p->fs, NULL, a.ino, &(struct bfs_attr){ .mode = 0644 }, BFS_SET_MODE, NULL);
	return into_place(p, dir, temp, name, rc);
}

static int put_file(struct putter *p, const char *from, const struct stat *st, uint64_t dir, const char *name)
{
	int fd = open(from, O_RDONLY | O_CLOEXEC), rc;

	if (fd < 0)
		return -errno;
	rc = put_content(p, from, fd, st, dir, name);
	close(fd);
	return rc;
}

static int put_symlink(struct putter *p, const char *from, uint64_t dir, const char *name, struct bfs_attr *a)
{
	char target[BFS_SYMLINK_MAX + 1];
	ssize_t n = readlink(from, target, BFS_SYMLINK_MAX);

	if (n < 0)
		return -errno;
	target[n] = '\0';
	return bfs_symlink(p->fs, NULL, dir, name, target, 0, a);
}

/* A further name of an inode that was copied already: true, with *rc. */
static bool put_known_link(struct putter *p, const struct stat *st, uint64_t dir, const char *name, int *rc)
{
	struct seen_link key = { .dev = st->st_dev, .ino = st->st_ino };
	void *found = tfind(&key, &p->links, by_inode);
	char temp[TEMP_NAME];

	if (!found)
		return false;
	temp_name(temp);
	*rc = bfs_link(p->fs, NULL, (*(struct seen_link **)found)->copy, dir, temp, 0, NULL);
	if (*rc == 0)
		*rc = into_place(p, dir, temp, name, 0);
	return true;
}

static int remember_link(struct putter *p, const struct stat *st, uint64_t dir, const char *name)
{
	struct seen_link *s = malloc(sizeof(*s));
	struct bfs_attr a;
	int rc = s ? bfs_lookup(p->fs, NULL, dir, name, &a) : -ENOMEM;

	if (rc == 0) {
		*s = (struct seen_link){ st->st_dev, st->st_ino, a.ino };
		if (!tsearch(s, &p->links, by_inode))
			rc = -ENOMEM;
	}
	if (rc)
		free(s);
	return rc;
}

static int put_any(struct putter *p, const char *from, uint64_t dir, const char *name);

static int put_children(struct putter *p, const char *from, uint64_t ino)
{
	DIR *d = opendir(from);
	struct dirent *e;

	if (!d)
		return -errno;
	while (!p->stop && (e = readdir(d))) {
		char *child;
		int rc;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		child = verb_join(from, e->d_name);
		rc = child ? put_any(p, child, ino, e->d_name) : -ENOMEM;
		if (rc)
			p->result = verb_fail("put", child ? child : from, rc);
		free(child);
		p->stop |= rc == -ENOSPC || rc == -EROFS || rc == -ENOMEM;
	}
	closedir(d);
	return 0;
}

static int put_tree(struct putter *p, const char *from, const struct stat *st, uint64_t dir, const char *name)
{
	struct bfs_attr a;
	int rc;

	if (!p->call->opt['r'])
		return -EISDIR;
	rc = bfs_mkdir(p->fs, NULL, dir, name, 0700, 0, &a);
	if (rc == -EEXIST) {
		rc = bfs_lookup(p->fs, NULL, dir, name, &a);
		if (rc == 0 && !S_ISDIR(a.mode))
			rc = -ENOTDIR;
	}
	if (rc == 0)
		rc = put_children(p, from, a.ino);
	return rc || p->stop ? rc : copy_attributes(p, from, st, a.ino);
}

static int put_special(struct putter *p, const char *from, const struct stat *st, uint64_t dir, const char *name)
{
	char temp[TEMP_NAME];
	struct bfs_attr a;
	int rc;

	temp_name(temp);
	if (S_ISLNK(st->st_mode))
		rc = put_symlink(p, from, dir, temp, &a);
	else
		rc = bfs_mknod(p->fs, NULL, dir, temp, st->st_mode, st->st_rdev, 0, &a);
	if (rc)
		return rc;
	return into_place(p, dir, temp, name, copy_attributes(p, from, st, a.ino));
}

static int put_any(struct putter *p, const char *from, uint64_t dir, const char *name)
{
	bool several;
	struct stat st;
	int rc;

	if (p->call->opt['r'] ? lstat(from, &st) : stat(from, &st))
		return -errno;
	if (p->call->opt['v'])
		printf("%s\n", from);
	several = p->call->opt['r'] && !S_ISDIR(st.st_mode) && st.st_nlink > 1;
	if (several && put_known_link(p, &st, dir, name, &rc))
		return rc;
	if (S_ISDIR(st.st_mode))
		rc = put_tree(p, from, &st, dir, name);
	else if (p->call->opt['r'] && !S_ISREG(st.st_mode))
		rc = put_special(p, from, &st, dir, name);
	else
		rc = put_file(p, from, &st, dir, name);
	return rc || !several ? rc : remember_link(p, &st, dir, name);
}

/* Where a source goes: into the target if that is a directory, else by that name. */
static int destination(struct bfs *fs, const char *from, const char *to, uint64_t *dir, char *name)
{
	struct bfs_attr a;
	const char *base;
	size_t len;
	int rc = bfs_resolve(fs, NULL, to, 0, &a);

	if (rc || !S_ISDIR(a.mode))
		return bfs_resolve_parent(fs, NULL, to, dir, name);
	base = verb_base(from, &len);
	if (strcmp(from, "-") == 0)
		return -EISDIR;
	if (len == 0 || len > BFS_NAME_MAX)
		return len ? -ENAMETOOLONG : -EINVAL;
	*dir = a.ino;
	memcpy(name, base, len);
	name[len] = '\0';
	return 0;
}

static int put_one(struct putter *p, const char *from, const char *to)
{
	char name[BFS_NAME_MAX + 1];
	struct stat st = { .st_mode = S_IFIFO };
	uint64_t dir;
	int rc = destination(p->fs, from, to, &dir, name);

	if (rc)
		return rc;
	if (strcmp(from, "-") == 0)
		return put_content(p, from, STDIN_FILENO, &st, dir, name);
	return put_any(p, from, dir, name);
}

int verb_put(struct bfs *fs, const struct call *call)
{
	const char *to = call->argv[call->argc - 1];
	struct putter p = { .fs = fs, .call = call, .buf = malloc(COPY_CHUNK), .result = EXIT_OK };
	struct bfs_attr a;

	if (!p.buf)
		return verb_fail("put", to, -ENOMEM);
	if (call->argc > 2 && (bfs_resolve(fs, NULL, to, 0, &a) || !S_ISDIR(a.mode))) {
		free(p.buf);
		return verb_fail("put", to, -ENOTDIR);
	}
	for (int i = 0; i < call->argc - 1 && !p.stop; i++) {
		int rc = put_one(&p, call->argv[i], to);

		if (rc)
			p.result = verb_fail("put", call->argv[i], rc);
	}
	tdestroy(p.links, free);
	free(p.buf);
	return p.result;
}
