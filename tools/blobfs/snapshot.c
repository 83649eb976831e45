/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Verbs that copy files and trees without copying data: snapshot, clone, rollback. A name without '/' is one in /.snapshots, which
 * is made when it is missing; any other is a path.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/blobfs/verb.h"
#include "tools/common/common.h"

#define SNAPSHOTS "/.snapshots"
#define EXCHANGE 2u /* RENAME_EXCHANGE */

/* To be freed; NULL when memory is short. */
static char *snapshot_path(const char *name)
{
	return strchr(name, '/') ? strdup(name) : verb_join(SNAPSHOTS, name);
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
	char *to = snapshot_path(name);
	struct bfs_attr attr;
	int rc = to ? bfs_resolve(fs, NULL, call->argv[0], 0, &attr) : -ENOMEM;

	if (rc) {
		free(to);
		return verb_fail(verb, call->argv[0], rc);
	}
	if (!strchr(name, '/'))
		rc = bfs_make_path(fs, NULL, SNAPSHOTS, 0700);
	if (!rc)
		rc = copy(fs, call->argv[0], to, flags);
	if (rc == -E2BIG)
		tool_error("%s: more files and extents than one transaction takes", call->argv[0]);
	free(to);
	return rc ? verb_fail(verb, name, rc) : EXIT_OK;
}

int verb_snapshot(struct bfs *fs, const struct call *call)
{
	return make(fs, call, "snapshot", BFS_SNAP_SEALED);
}

int verb_clone(struct bfs *fs, const struct call *call)
{
	return make(fs, call, "clone", 0);
}

/* What is there gets another name first, and is removed only when the copy has its place. */
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
	if (rc)
		return rc;
	snprintf(aside, sizeof(aside), ".rollback-%llu", (unsigned long long)attr.ino);
	rc = bfs_snapshot(fs, NULL, from.ino, dir, aside, 0, NULL);
	if (rc == -EEXIST)
		tool_error("%s is in the way: an earlier rollback was cut off; remove the one that is not wanted", aside);
	if (rc)
		return rc;
	rc = bfs_rename(fs, NULL, dir, aside, dir, name, EXCHANGE);
	removed = verb_remove_tree(fs, dir, aside); /* whichever of the two it is now */
	return rc ? rc : removed;
}

int verb_rollback(struct bfs *fs, const struct call *call)
{
	char *from = snapshot_path(call->argv[1]);
	int rc = from ? put_back(fs, from, call->argv[0]) : -ENOMEM;

	free(from);
	return rc ? verb_fail("rollback", call->argv[0], rc) : EXIT_OK;
}
