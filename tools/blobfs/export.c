/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * blobfs export: everything out of a file system. --salvage: a damaged one is repaired first, in memory: over the device lies an overlay that
 * takes what repair writes, and what is copied out is what fsck.blobfs -y --rebuild would have left.
 */
#include <errno.h>
#include <string.h>

#include "bdev/wrap.h"
#include "tools/blobfs/verb.h"
#include "tools/common/common.h"
#include "tools/common/kinds.h"

static void on_repair(const struct bs_problem *p, void *arg)
{
	if (kinds_add(arg, p))
		fprintf(stderr, "%s: %s: %s\n", p->pass, p->code, p->text);
}

static int repair_over(struct bdev *over, bool all, struct base_err *err)
{
	struct kinds kinds = { .all = all };
	struct bfs_repair_opts opts = { .size = sizeof(opts), .flags = BFS_REPAIR_ALL | BFS_REPAIR_REBUILD, .report = on_repair, .arg = &kinds };
	struct bfs_repair_result done;
	int rc;

	bdev_ref(over);
	rc = bfs_repair(over, &opts, &done, err);
	kinds_print_rest(&kinds, stderr, "");
	return rc;
}

static int open_over(const struct call *call, struct bdev **over, struct base_err *err)
{
	struct bdev_opts opts = { .size = sizeof(opts), .flags = BDEV_RDONLY };
	struct bdev *dev;
	int rc = bdev_open(call->device, &opts, &dev, err);

	if (rc)
		return rc;
	rc = bdev_overlay_create(dev, over);
	if (rc)
		bdev_close(dev);
	return rc;
}

int verb_export(const struct call *call)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts), .flags = BFS_RDONLY };
	bool salvage = call->opt['S'];
	struct base_err err = { "" };
	struct bdev *over;
	struct bfs *fs;
	int rc = open_over(call, &over, &err), result;

	if (!rc && salvage && (rc = repair_over(over, call->opt['v'], &err)))
		bdev_close(over);
	if (!rc && (rc = bfs_mount_bdev(over, &opts, &fs, &err)))
		bdev_close(over);
	if (rc) {
		tool_error_of(call->device, base_err_text(&err, rc));
		return EXIT_FAILED;
	}
	result = get_everything(fs, call, call->argv[0], salvage);
	rc = bfs_unmount(fs);
	return rc ? verb_fail("export", call->device, rc) : result;
}
