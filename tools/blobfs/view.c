/* SPDX-License-Identifier: BSD-2-Clause */
/* A store as it is on a device that is only read: what opening would have to write stays in memory. */
#include <errno.h>

#include "base/util.h"
#include "bdev/wrap.h"
#include "blob/format.h"
#include "tools/blobfs/verb.h"

int view_open(struct bdev *dev, struct bs **bs, struct base_err *err)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = BS_RDONLY };
	struct bdev *over;
	int rc;

	bdev_ref(dev);
	rc = bdev_overlay_create(dev, &over);
	if (rc) {
		bdev_close(dev);
		return rc;
	}
	rc = bs_open(over, &opts, bs, err);
	if (rc == -EUCLEAN || rc == -EIO)
		rc = bs_mend(over, NULL, bs, err);
	if (rc)
		bdev_close(over);
	return rc;
}

static int note_sums(const struct bs_piece *p, void *arg)
{
	bool *has = arg;

	if (p->data && !p->wrong && le64_get(((const struct bs_sb_disk *)p->data)->incompat) & BS_INCOMPAT_SUM)
		*has = true;
	return 0;
}

int view_walk_sums(struct bdev *dev, bs_piece_fn fn, void *arg, struct base_err *err)
{
	bool has = false;
	struct bs *bs;
	int rc = bs_walk(dev, BS_WALK_SUPER, note_sums, &has, err);

	if (rc || !has)
		return rc;
	rc = view_open(dev, &bs, err);
	if (rc)
		return rc;
	rc = bs_walk_sums(bs, fn, arg);
	bs_abandon(bs);
	return rc;
}
