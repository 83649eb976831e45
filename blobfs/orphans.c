/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * At mount: what a crash left to be done. Inodes that had lost their last name while somebody had them open are deleted; nobody has
 * now. Data that was published and that the durable size had not come to reach yet is cut off: it was never promised, and
 * raising the size must not show it.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "blobfs/internal.h"
#define LOG_COMPONENT "blobfs"
#include "base/log.h"

#define WHOLE UINT64_MAX

struct leftover {
	uint64_t ino;
	uint64_t end; /* blocks from here on go; WHOLE: the inode does */
};

struct orphans {
	struct bfs *fs;
	struct leftover *left;
	size_t n, room, deleted;
};

bool bfs_has_data(struct bs_blob *blob, const struct bs_blob_info *info)
{
	struct bs_carried_range r;

	return info->mapped_blocks || bs_carried_next(blob, 0, UINT64_MAX, &r);
}

bool bfs_data_past_end(struct bs_blob *blob, uint64_t size, uint64_t *block)
{
	const uint64_t end = 1ull << 40, first = div_round_up(size, BS_BLOCK);
	struct bs_carried_range carried;
	struct bs_extent e;

	*block = end;
	if (bs_carried_next(blob, first, UINT64_MAX, &carried))
		*block = carried.block;
	for (uint64_t b = first; b < *block; b += e.count) {
		bs_map_lookup(blob, b, end - b, &e);
		if (!(e.flags & (BS_RUN_HOLE | BS_RUN_UNWRITTEN)))
			*block = MIN(*block, b);
		if (!e.count)
			break;
	}
	return *block < end;
}

static int remember(struct orphans *o, uint64_t ino, uint64_t end)
{
	if (o->n == o->room) {
		size_t room = o->room ? 2 * o->room : 64;
		struct leftover *p = base_realloc(o->left, room * sizeof(*p));

		if (!p)
			return -ENOMEM;
		o->left = p;
		o->room = room;
	}
	o->left[o->n++] = (struct leftover){ ino, end };
	return 0;
}

static int note(struct bs_blob *blob, void *arg)
{
	struct orphans *o = arg;
	uint64_t block;
	struct bfs_inode inode = { .fs = o->fs };
	struct bs_blob_info info;

	bs_blob_get_info(blob, &info);
	if (bfs_inode_from_info(&info, &inode)) {
		/* Whoever asks for it gets an error; the rest is usable. */
		log_err("inode %llu: its header is not one of an inode", (unsigned long long)info.id);
		return 0;
	}
	if (!inode.nlink)
		return remember(o, info.id, WHOLE);
	/* A snapshot never has any, and if damage gave it some, no size will ever come to reach it. */
	if (S_ISREG(inode.mode) && !info.sealed && bfs_data_past_end(blob, info.size, &block))
		return remember(o, info.id, block);
	return 0;
}

static int clean_up(struct orphans *o, const struct leftover *left)
{
	struct bs *bs = o->fs->bs;
	struct bs_blob *blob = bs_blob_get(bs, left->ino);
	struct bs_txn *txn;
	int rc;

	if (!blob)
		return 0;
	rc = bs_txn_begin(bs, BS_TXN_FREES, &txn);
	if (!rc) {
		rc = left->end == WHOLE ? bs_txn_delete(txn, blob) : bs_txn_unmap(txn, blob, left->end, UINT64_MAX);
		if (rc)
			bs_txn_cancel(txn);
		else
			bs_txn_end(txn);
	}
	bs_blob_put(blob);
	o->deleted += left->end == WHOLE;
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
		rc = clean_up(&o, &o.left[i]);
		if (rc)
			base_err_set(err, rc, "%s: inode %llu cannot be cleaned up: %s", fs->device,
				     (unsigned long long)o.left[i].ino, base_err_text(NULL, rc));
	}
	if (!rc && o.deleted)
		log_info("%s: %zu files that were deleted while open are gone", fs->device, o.deleted);
	free(o.left);
	return rc;
}
