/* SPDX-License-Identifier: BSD-2-Clause */
/* At mount: inodes that had lost their last name while somebody had them open are deleted; nobody has now. */
#include <errno.h>
#include <stdlib.h>

#include "blobfs/internal.h"
#define LOG_COMPONENT "blobfs"
#include "base/log.h"

struct orphans {
	struct bfs *fs;
	uint64_t *ino;
	size_t n, room;
};

static int note(struct bs_blob *blob, void *arg)
{
	struct orphans *o = arg;
	struct bfs_inode inode = { .fs = o->fs };
	struct bs_blob_info info;

	bs_blob_get_info(blob, &info);
	if (bfs_inode_from_info(&info, &inode)) {
		/* Whoever asks for it gets an error; the rest is usable. */
		log_err("inode %llu: its header is not one of an inode", (unsigned long long)info.id);
		return 0;
	}
	if (inode.nlink)
		return 0;
	if (o->n == o->room) {
		size_t room = o->room ? 2 * o->room : 64;
		uint64_t *p = base_realloc(o->ino, room * sizeof(*p));

		if (!p)
			return -ENOMEM;
		o->ino = p;
		o->room = room;
	}
	o->ino[o->n++] = info.id;
	return 0;
}

static int delete(struct bs *bs, uint64_t ino)
{
	struct bs_blob *blob = bs_blob_get(bs, ino);
	struct bs_txn *txn;
	int rc;

	if (!blob)
		return 0;
	rc = bs_txn_begin(bs, BS_TXN_FREES, &txn);
	if (!rc) {
		rc = bs_txn_delete(txn, blob);
		if (rc)
			bs_txn_cancel(txn);
		else
			bs_txn_end(txn);
	}
	bs_blob_put(blob);
	return rc;
}

int bfs_orphans_delete(struct bfs *fs, struct base_err *err)
{
	struct orphans o = { .fs = fs };
	int rc;

	if (fs->opts.flags & BFS_RDONLY)
		return 0;
	rc = bs_foreach_blob(fs->bs, 0, note, &o);
	for (size_t i = 0; !rc && i < o.n; i++) {
		rc = delete(fs->bs, o.ino[i]);
		if (rc)
			base_err_set(err, rc, "%s: orphan %llu cannot be deleted: %s", fs->device,
				     (unsigned long long)o.ino[i], base_err_text(NULL, rc));
	}
	if (!rc && o.n)
		log_info("%s: %zu files that were deleted while open are gone", fs->device, o.n);
	free(o.ino);
	return rc;
}
