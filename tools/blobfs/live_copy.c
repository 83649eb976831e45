/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * snapshot, clone and rollback of what is mounted. The kernel finds the names, as anybody's, so what it knows of them stays right; only
 * the copy itself is made by the program that serves the mount. A path that begins with '/' begins at the root of the file system,
 * wherever it is mounted, any other at the directory that was given.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "blobfs/control.h"
#include "tools/blobfs/verb.h"
#include "tools/common/common.h"

#define RACES 16 /* openat2 gives up when somebody renames meanwhile */

struct mount {
	int base, root; /* the directory that was given; the root of its file system */
	char where[PATH_MAX];
};

static int open_beneath(int dir, const char *path, int flags, uint64_t resolve)
{
	struct open_how how = { .flags = (uint64_t)(flags | O_CLOEXEC), .resolve = resolve };
	long fd = -1;

	errno = EAGAIN;
	for (int i = 0; i < RACES && fd < 0 && errno == EAGAIN; i++)
		fd = syscall(SYS_openat2, dir, path, &how, sizeof(how));
	return fd < 0 ? -errno : (int)fd;
}

static int open_path(const struct mount *m, const char *path, int flags)
{
	return *path == '/' ? open_beneath(m->root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_XDEV) :
			      open_beneath(m->base, path, flags, RESOLVE_NO_XDEV);
}

/* The directory of a path, and the name in it. */
static int open_parent(const struct mount *m, const char *path, char *name)
{
	size_t len;
	const char *base = verb_base(path, &len);
	char *dir;
	int fd;

	if (!len || (len == 1 && *base == '.') || (len == 2 && !strncmp(base, "..", 2)))
		return -EBUSY;
	if (len > BFS_NAME_MAX)
		return -ENAMETOOLONG;
	dir = strndup(path, (size_t)(base - path));
	if (!dir)
		return -ENOMEM;
	memcpy(name, base, len);
	name[len] = '\0';
	fd = open_path(m, *dir ? dir : ".", O_RDONLY | O_DIRECTORY);
	free(dir);
	return fd;
}

/* ---- the mount ---- */

/* Upwards to the root; -EXDEV: something else is above, so only a part of it is mounted here. */
static int open_root(int base)
{
	int fd = openat(base, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), up;
	struct stat st, above;

	for (;;) {
		if (fd < 0 || fstat(fd, &st))
			return -errno;
		if (st.st_ino == BFS_ROOT_INO)
			return fd;
		up = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		close(fd);
		fd = up;
		if (fd >= 0 && (fstat(fd, &above) || above.st_dev != st.st_dev)) {
			close(fd);
			return -EXDEV;
		}
	}
}

/* 0; 1: DEVICE is not mounted; negative: it was said what is wrong. */
static int reach(const struct call *call, struct mount *m)
{
	struct bfs_control_stat *st = malloc(sizeof(*st));
	int rc = 0;

	m->base = live_open(call, m->where, sizeof(m->where));
	if (m->base < 0) {
		free(st);
		if (m->base != -ENODEV)
			verb_fail("open", m->where, m->base);
		return m->base == -ENODEV ? 1 : m->base;
	}
	if (st && ioctl(m->base, BFS_CONTROL_STAT, st)) {
		rc = -errno;
		tool_error(errno == ENOTTY ? "%s: not in a mounted BlobFS of this version" : "%s: %s", m->where, strerror(errno));
	} else {
		rc = m->root = open_root(m->base);
		if (rc == -EXDEV)
			tool_error("%s: only a part of the file system is mounted here; name a directory below which all of it is", m->where);
		else if (rc < 0)
			verb_fail("open", m->where, rc);
	}
	free(st);
	if (rc < 0)
		close(m->base);
	return rc < 0 ? rc : 0;
}

/* ---- what the kernel holds ---- */

static int settle(int dir, const struct dirent *e, ino_t skip);

static int settle_below(int fd, ino_t skip)
{
	DIR *d = fdopendir(fd);
	struct dirent *e;
	int rc = 0;

	if (!d) {
		close(fd);
		return -errno;
	}
	while (!rc && (e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && e->d_ino != skip)
			rc = settle(dirfd(d), e, skip);
	closedir(d);
	return rc;
}

/* syncfs need not wait for writes that are on their way; close(2) does, whoever wrote. What goes meanwhile need not be waited for. */
static int settle(int dir, const struct dirent *e, ino_t skip)
{
	int more = e->d_type == DT_DIR ? O_DIRECTORY : 0, fd;

	if (e->d_type != DT_REG && e->d_type != DT_DIR)
		return 0;
	fd = open_beneath(dir, e->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | more, RESOLVE_NO_XDEV);
	if (fd < 0)
		return fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM ? fd : 0;
	if (more)
		return settle_below(fd, skip);
	return close(fd) ? -errno : 0;
}

/* skip: the directory that the copy goes to, which is not in it. */
static int settle_all(const struct mount *m, const char *path, const struct stat *st, ino_t skip)
{
	int fd = open_path(m, path, O_RDONLY | O_NONBLOCK);

	if (fd < 0)
		return fd;
	if (syncfs(fd)) {
		close(fd);
		return -errno;
	}
	if (S_ISDIR(st->st_mode))
		return settle_below(fd, skip);
	return close(fd) ? -errno : 0;
}

/* ---- a copy ---- */

/* Of what path is, to a name in dir. That a mount is read-only only the kernel knows. */
static int copy(const struct mount *m, const char *path, int dir, const char *name, uint32_t flags)
{
	struct bfs_control_snapshot s = { .flags = flags };
	int fd = open_path(m, path, O_PATH), rc = 0;
	struct statvfs vfs;
	struct stat st, to;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) || fstat(dir, &to) || fstatvfs(dir, &vfs))
		rc = -errno;
	else if (vfs.f_flag & ST_RDONLY)
		rc = -EROFS;
	if (!rc && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
		rc = settle_all(m, path, &st, to.st_ino);
	if (!rc) {
		s.ino = st.st_ino;
		snprintf(s.name, sizeof(s.name), "%s", name);
		rc = ioctl(dir, BFS_CONTROL_SNAPSHOT, &s) ? -errno : s.rc;
		if (rc == -EBUSY)
			rc = -EAGAIN; /* for copy_fail */
	}
	close(fd); /* until here the number is no other's */
	return rc;
}

/* People name what they see. */
static int fail_at(const struct mount *m, const char *verb, const char *path, int rc)
{
	size_t n = strlen(m->where);

	while (n > 1 && m->where[n - 1] == '/')
		n--;
	if (rc != -ENOENT || n < 2 || strncmp(path, m->where, n) != 0 || (path[n] && path[n] != '/'))
		return copy_fail(verb, path, rc);
	tool_error("%s: %s: no such name; paths begin at the root of the file system: %s", verb, path, path[n] ? path + n : "/");
	return EXIT_FAILED;
}

static int make(const struct mount *m, const struct call *call, const char *verb, uint32_t flags)
{
	const char *path = call->argv[0], *to = call->argv[1];
	char name[BFS_NAME_MAX + 1], *full = copy_path(to);
	int dir = open_path(m, path, O_PATH), rc;

	if (!full || dir < 0) {
		free(full);
		return fail_at(m, verb, path, full ? dir : -ENOMEM);
	}
	close(dir);
	rc = !strchr(to, '/') && mkdirat(m->root, COPIES + 1, 0700) && errno != EEXIST ? -errno : 0;
	dir = rc ? rc : open_parent(m, full, name);
	free(full);
	if (dir == -EBUSY)
		dir = -EEXIST; /* "/", ".", ".." */
	if (dir < 0)
		return fail_at(m, verb, to, dir);
	rc = copy(m, path, dir, name, flags);
	close(dir);
	return rc ? fail_at(m, verb, rc == -EEXIST ? to : path, rc) : EXIT_OK;
}

/* ---- rollback ---- */

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path) && errno != ENOENT ? -1 : 0;
}

static int remove_tree(int dir, const char *name)
{
	char path[64 + BFS_NAME_MAX];

	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dir, name);
	return nftw(path, remove_one, 64, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) ? -errno : 0;
}

/* -EDEADLK: the copy, a directory, lies in what rollback removes. */
static int check_apart(int from, ino_t ino)
{
	int fd = openat(from, ".", O_PATH | O_DIRECTORY | O_CLOEXEC), up;
	struct stat st;

	for (;;) {
		if (fd < 0 || fstat(fd, &st))
			return -errno;
		up = st.st_ino == ino || st.st_ino == BFS_ROOT_INO ? -1 : openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		close(fd);
		if (st.st_ino == ino)
			return -EDEADLK;
		if (st.st_ino == BFS_ROOT_INO)
			return 0;
		fd = up;
	}
}

static int check_kinds(const struct mount *m, const char *from, int dir, const char *name, struct stat *st)
{
	int fd = open_path(m, from, O_PATH), rc = 0;
	struct stat source;

	if (fd < 0)
		return fd;
	if (fstat(fd, &source) || fstatat(dir, name, st, AT_SYMLINK_NOFOLLOW))
		rc = -errno;
	else if (S_ISDIR(st->st_mode) != S_ISDIR(source.st_mode))
		rc = S_ISDIR(st->st_mode) ? -EISDIR : -ENOTDIR;
	else if (S_ISDIR(st->st_mode))
		rc = check_apart(fd, st->st_ino);
	close(fd);
	return rc;
}

/* As for a device: the copy is made beside it, changes places with it, and what was there goes. 1: it was said what is wrong. */
static int put_back(const struct mount *m, const char *from, int dir, const char *name)
{
	char aside[BFS_NAME_MAX + 1];
	struct stat st;
	int rc = check_kinds(m, from, dir, name, &st), removed;

	if (rc)
		return rc;
	snprintf(aside, sizeof(aside), ".rollback-%llu", (unsigned long long)st.st_ino);
	rc = copy(m, from, dir, aside, 0);
	if (rc)
		return copy_in_the_way(aside, rc);
	if (renameat2(dir, aside, dir, name, RENAME_EXCHANGE))
		rc = -errno;
	removed = remove_tree(dir, aside);
	return rc ? rc : copy_left(name, aside, removed);
}

static int roll_back(const struct mount *m, const struct call *call)
{
	char name[BFS_NAME_MAX + 1], *from = copy_path(call->argv[1]);
	int fd = from ? open_path(m, from, O_PATH) : -ENOMEM, dir, rc;

	if (fd < 0) {
		free(from);
		return fail_at(m, "rollback", call->argv[1], fd);
	}
	close(fd);
	dir = open_parent(m, call->argv[0], name);
	rc = dir < 0 ? dir : put_back(m, from, dir, name);
	if (dir >= 0)
		close(dir);
	free(from);
	if (rc > 0 || (rc == -EBUSY && copy_is_root("rollback", call->argv[0])))
		return EXIT_FAILED;
	return rc ? fail_at(m, "rollback", call->argv[0], rc) : EXIT_OK;
}

/* As of a device, where unmounting does it. */
static int make_durable(const struct mount *m, const char *verb)
{
	if (!fsync(m->root))
		return EXIT_OK;
	tool_error("%s is done, but a power cut may undo it: %s", verb, strerror(errno));
	return EXIT_FAILED;
}

int copy_in_mount(const struct call *call, const struct verb *v)
{
	struct mount m;
	int rc = reach(call, &m);

	if (rc)
		return rc > 0 ? -1 : EXIT_FAILED;
	rc = v->run == verb_rollback ? roll_back(&m, call) :
	     make(&m, call, v->name, v->run == verb_snapshot ? (uint32_t)BFS_SNAP_SEALED : 0);
	if (rc == EXIT_OK)
		rc = make_durable(&m, v->name);
	close(m.root);
	close(m.base);
	return rc;
}
