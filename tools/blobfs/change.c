/* SPDX-License-Identifier: BSD-2-Clause */
/* Verbs that change names: mkdir, rm, mv. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/blobfs/verb.h"
#include "tools/common/common.h"

int verb_mkdir(struct bfs *fs, const struct call *call)
{
	int result = EXIT_OK;

	for (int i = 0; i < call->argc; i++) {
		char name[BFS_NAME_MAX + 1];
		uint64_t dir;
		int rc;

		if (call->opt['p']) {
			rc = bfs_make_path(fs, NULL, call->argv[i], 0755);
		} else {
			rc = bfs_resolve_parent(fs, NULL, call->argv[i], &dir, name);
			if (rc == -EBUSY)
				rc = -EEXIST; /* "/" */
			if (rc == 0)
				rc = bfs_mkdir(fs, NULL, dir, name, 0755, 0, NULL);
		}
		if (rc)
			result = verb_fail("mkdir", call->argv[i], rc);
	}
	return result;
}

static int remove_one(struct bfs *fs, const struct call *call, const char *path)
{
	char name[BFS_NAME_MAX + 1];
	struct bfs_attr a;
	uint64_t dir;
	int rc = bfs_resolve_parent(fs, NULL, path, &dir, name);

	if (rc)
		return rc;
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EINVAL;
	rc = bfs_lookup(fs, NULL, dir, name, &a);
	if (rc)
		return rc;
	if (S_ISDIR(a.mode) && !call->opt['r'])
		return -EISDIR;
	return verb_remove_tree(fs, dir, name);
}

int verb_rm(struct bfs *fs, const struct call *call)
{
	int result = EXIT_OK;

	for (int i = 0; i < call->argc; i++) {
		int rc = remove_one(fs, call, call->argv[i]);

		if (rc && !(rc == -ENOENT && call->opt['f']))
			result = verb_fail("rm", call->argv[i], rc);
	}
	return result;
}

static int move_one(struct bfs *fs, const struct call *call, const char *from, const char *to, bool into)
{
	char name[BFS_NAME_MAX + 1], new_name[BFS_NAME_MAX + 1];
	struct bfs_attr target;
	uint64_t dir, new_dir;
	int rc = bfs_resolve_parent(fs, NULL, from, &dir, name);

	if (rc)
		return rc;
	if (into) {
		rc = bfs_resolve(fs, NULL, to, 0, &target);
		new_dir = target.ino;
		strcpy(new_name, name);
	} else {
		rc = bfs_resolve_parent(fs, NULL, to, &new_dir, new_name);
	}
	return rc ? rc : bfs_rename(fs, NULL, dir, name, new_dir, new_name, call->opt['n'] ? 1 : 0);
}

int verb_mv(struct bfs *fs, const struct call *call)
{
	const char *to = call->argv[call->argc - 1];
	struct bfs_attr target;
	int rc = bfs_resolve(fs, NULL, to, 0, &target), result = EXIT_OK;
	bool into = rc == 0 && S_ISDIR(target.mode);

	if (call->argc > 2 && !into)
		return verb_fail("mv", to, rc ? rc : -ENOTDIR);
	for (int i = 0; i < call->argc - 1; i++) {
		rc = move_one(fs, call, call->argv[i], to, into);
		if (rc)
			result = verb_fail("mv", call->argv[i], rc);
	}
	return result;
}
