/* SPDX-License-Identifier: BSD-2-Clause */
/* An empty file system: a store, and in it the root directory, which also carries what holds for the whole. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "blobfs/internal.h"

static void root_inode(const struct bfs_format_opts *opts, struct bfs_inode_disk *disk)
{
	uint32_t mode = opts->root_mode ? opts->root_mode & 07777 : 0755;
	le64 now = le64_make((uint64_t)bfs_now());

	*disk = (struct bfs_inode_disk){
		.mode = le32_make(S_IFDIR | mode),
		.nlink = le32_make(2),
		.uid = le32_make(opts->root_uid),
		.gid = le32_make(opts->root_gid),
		.atime = now,
		.mtime = now,
		.ctime = now,
		.btime = now,
		.parent = le64_make(BFS_ROOT_INO),
	};
}

static int make_root(struct bs *bs, const struct bfs_format_opts *opts)
{
	struct bfs_fs_disk fs = {
		.version = le32_make(BFS_FORMAT_VERSION),
		.hash_bits = le32_make(opts->hash_bits ? opts->hash_bits : BFS_HASH_BITS),
	};
	struct bfs_inode_disk disk;
	struct bs_blob *root;
	struct bs_txn *txn;
	int rc;

	base_random(fs.hash_key, sizeof(fs.hash_key));
	root_inode(opts, &disk);
	rc = bs_txn_begin(bs, 0, &txn);
	if (rc)
		return rc;
	rc = bs_txn_create(txn, BFS_ROOT_INO, &disk, sizeof(disk), &root);
	if (!rc)
		rc = bs_txn_put(txn, root, BFS_KIND_FS, 0, &fs, sizeof(fs));
	if (rc) {
		bs_txn_cancel(txn);
		return rc;
	}
	bs_txn_end(txn);
	bs_blob_put(root);
	return 0;
}

int bfs_format(struct bdev *dev, const struct bfs_format_opts *user_opts, struct base_err *err)
{
	struct bfs_format_opts opts = { 0 };
	struct bs_format_opts bs_opts = { .size = sizeof(bs_opts), .owner = BFS_OWNER };
	struct bs_open_opts open_opts = { .size = sizeof(open_opts), .flags = BS_NO_SERVICE };
	struct bs *bs;
	int rc, close_rc;

	if (user_opts)
		memcpy(&opts, user_opts, MIN(sizeof(opts), (size_t)user_opts->size));
	if (opts.hash_bits > BFS_HASH_BITS)
		return base_err_set(err, -EINVAL, "hash_bits: more than %u", BFS_HASH_BITS);
	bs_opts.cluster_size = opts.cluster_size;
	bs_opts.store_size = opts.store_size;
	bs_opts.flags = opts.store_flags;
	memcpy(bs_opts.uuid, opts.uuid, sizeof(bs_opts.uuid));
	memcpy(bs_opts.label, opts.label, sizeof(bs_opts.label));
	rc = bs_format(dev, &bs_opts, err);
	if (rc)
		return rc;
	bdev_ref(dev); /* the store closes it */
	rc = bs_open(dev, &open_opts, &bs, err);
	if (rc) {
		bdev_close(dev);
		return rc;
	}
	rc = make_root(bs, &opts);
	close_rc = bs_close(bs);
	rc = rc ? rc : close_rc;
	if (rc)
		base_err_set(err, rc, "%s: the root directory could not be made: %s", bdev_info(dev)->name,
			     base_err_text(NULL, rc));
	return rc;
}
