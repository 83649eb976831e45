/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Verbs that copy files and trees without copying data: snapshot, clone, rollback; of a device here, of a mount in live_copy.c. A name without '/' is one in /.snapshots, which
 * is made when it is missing; any other is a path.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/blobfs/verb.h"
#include "tools/common/common.h"

#define EXCHANGE 2u /* RENAME_EXCHANGE */

char *copy_path(const char *name)
{
	return strchr(name, '/') ? strdup(name) : verb_join(COPIES, name);
}

int copy_fail(const char *verb, const char *path, int rc)
{
	switch (rc) {
	case -E2BIG:
		tool_error("%s: %s: too large for one copy: a tree may have some 6,000 files of one extent, or 60,000 extents in few files "
			   "(fewer on stores below 512 MiB); copy its directories one by one",
			   verb, path);
		return EXIT_FAILED;
	case -EAGAIN:
		tool_error("%s: %s: files are moved into it all the time, so no instant was found; try again, or stop whoever does that", verb, path);
		return EXIT_FAILED;
	case -EPERM:
		tool_error("%s: %s: only the superuser and the user who mounted it may do that", verb, path);
		return EXIT_FAILED;
	case -EDEADLK:
		tool_error("%s: %s: the copy lies in it and would be removed with it; move the copy elsewhere first", verb, path);
		return EXIT_FAILED;
	case -EXDEV:
		tool_error("%s: %s: another file system is mounted there", verb, path);
		return EXIT_FAILED;
	case -EOPNOTSUPP:
		tool_error("%s: %s: this file system was made before there were copies; make a new one with mkfs.blobfs to have them", verb, path);
		return EXIT_FAILED;
	}
	return verb_fail(verb, path, rc);
}

static int copy(struct bfs *fs, const char *from, const char *to, uint32_t flags)
{
	char name[BFS_NAME_MAX + 1];
	struct bfs_attr attr;
	uint64_t dir;
	int rc = bfs_resolve(fs, NULL, from, 0, &attr);

	if (!rc)
		rc = bfs_resolve_parent(fs, NULL, to, &dir, name);
	return rc ? rc : bfs_snapshot(fs, NULL, attr.ino, dir, name, flags, NULL);
}

static int make(struct bfs *fs, const struct call *call, const char *verb, uint32_t flags)
{
	const char *name = call->argv[1];
	char *to = copy_path(name);
	struct bfs_attr attr;
	int rc = to ? bfs_resolve(fs, NULL, call->argv[0], 0, &attr) : -ENOMEM;

	if (rc) {
		free(to);
		return verb_fail(verb, call->argv[0], rc);
	}
	if (!strchr(name, '/'))
		rc = bfs_make_path(fs, NULL, COPIES, 0700);
	if (!rc)
		rc = copy(fs, call->argv[0], to, flags);
	free(to);
	return rc ? copy_fail(verb, rc == -E2BIG ? call->argv[0] : name, rc) : EXIT_OK;
}

int verb_snapshot(struct bfs *fs, const struct call *call)
{
	return make(fs, call, "snapshot", BFS_SNAP_SEALED);
}

int verb_clone(struct bfs *fs, const struct call *call)
{
	return make(fs, call, "clone", 0);
}

#define DEPTH_MAX 65536 /* a path up this long is a cycle */

/* -EDEADLK: the copy lies in what rollback removes. */
static int check_apart(struct bfs *fs, const struct bfs_attr *from, uint64_t ino)
{
	struct bfs_attr at = *from;

	for (int depth = 0; S_ISDIR(from->mode) && depth < DEPTH_MAX; depth++) {
		int rc = at.ino == ino ? -EDEADLK : at.ino == BFS_ROOT_INO ? 0 : bfs_lookup(fs, NULL, at.ino, "..", &at);

		if (rc || at.ino == BFS_ROOT_INO)
			return rc;
	}
	return S_ISDIR(from->mode) ? -EUCLEAN : 0;
}

int copy_in_the_way(const char *aside, int rc)
{
	if (rc != -EEXIST)
		return rc;
	tool_error("%s is in the way: another rollback is under way, or one was cut off; then remove the one that is not wanted", aside);
	return 1;
}

int copy_left(const char *name, const char *aside, int rc)
{
	if (!rc)
		return 0;
	tool_error("%s is rolled back, but what it was is left as %s: %s", name, aside, strerror(-rc));
	return 1;
}

/* What is there gets another name first, and is removed only when the copy has its place. 1: it was said what is wrong. */
static int put_back(struct bfs *fs, const char *snapshot, const char *path)
{
	char name[BFS_NAME_MAX + 1], aside[BFS_NAME_MAX + 1];
	struct bfs_attr from, attr;
	uint64_t dir;
	int rc = bfs_resolve(fs, NULL, snapshot, 0, &from), removed;

	if (!rc)
		rc = bfs_resolve_parent(fs, NULL, path, &dir, name);
	if (!rc)
		rc = bfs_lookup(fs, NULL, dir, name, &attr);
	if (!rc && S_ISDIR(attr.mode) != S_ISDIR(from.mode))
		rc = S_ISDIR(attr.mode) ? -EISDIR : -ENOTDIR;
	if (!rc)
		rc = check_apart(fs, &from, attr.ino);
	if (rc)
		return rc;
	snprintf(aside, sizeof(aside), ".rollback-%llu", (unsigned long long)attr.ino);
	rc = bfs_snapshot(fs, NULL, from.ino, dir, aside, 0, NULL);
	if (rc)
		return copy_in_the_way(aside, rc);
	rc = bfs_rename(fs, NULL, dir, aside, dir, name, EXCHANGE);
	removed = verb_remove_tree(fs, dir, aside); /* whichever of the two it is now */
	return rc ? rc : copy_left(name, aside, removed);
}

bool copy_is_root(const char *verb, const char *path)
{
	size_t len;

	verb_base(path, &len);
	if (!len)
		tool_error("%s: /: nothing can take the place of the root; roll back what is in it", verb);
	return !len;
}

int verb_rollback(struct bfs *fs, const struct call *call)
{
	char *from = copy_path(call->argv[1]);
	int rc = from ? put_back(fs, from, call->argv[0]) : -ENOMEM;

	free(from);
	if (rc > 0 || (rc == -EBUSY && copy_is_root("rollback", call->argv[0])))
		return EXIT_FAILED;
	return rc ? copy_fail("rollback", rc == -E2BIG ? call->argv[1] : call->argv[0], rc) : EXIT_OK;
}
