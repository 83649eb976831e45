/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mounting: a table of steps, each with its undo; unmounting runs the undos. A registry of what this process has mounted
 * makes a second mount of a device the same file system, counted.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "blobfs/internal.h"
#define LOG_COMPONENT "blobfs"
#include "base/log.h"

#define MOUNT_FLAGS (BFS_RDONLY | BFS_NO_SERVICE | BFS_DISCARD | BFS_NOATIME | BFS_NO_LOCK | BFS_GROW)

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t registry_cond = PTHREAD_COND_INITIALIZER;
static LIST_HEAD(, bfs) registry = LIST_HEAD_INITIALIZER(registry);

/* ---- steps ---- */

static int up_memory(struct bfs *fs, struct base_err *err)
{
	(void)err;
	pthread_mutex_init(&fs->icache_lock, NULL);
	pthread_mutex_init(&fs->dirty_lock, NULL);
	pthread_mutex_init(&fs->snap_lock, NULL);
	pthread_cond_init(&fs->icache_cond, NULL);
	RB_INIT(&fs->inodes);
	TAILQ_INIT(&fs->idle);
	LIST_INIT(&fs->dirty);
	LIST_INIT(&fs->snaps);
	LIST_INIT(&fs->undeleted);
	return bfs_locks_create(fs);
}

static void down_memory(struct bfs *fs)
{
	bfs_locks_destroy(fs);
	pthread_cond_destroy(&fs->icache_cond);
	pthread_mutex_destroy(&fs->snap_lock);
	pthread_mutex_destroy(&fs->dirty_lock);
	pthread_mutex_destroy(&fs->icache_lock);
}

static int up_cache(struct bfs *fs, struct base_err *err)
{
	(void)err;
	return bfs_cache_create(fs);
}

static int up_store(struct bfs *fs, struct base_err *err)
{
	struct bs_open_opts opts = {
		.size = sizeof(opts),
		.commit_ms = fs->opts.commit_ms,
		.log_arena = fs->log_arena,
		.log_arena_size = fs->log_arena_size,
		.discard_min = fs->opts.discard_min,
		.discard_rate = fs->opts.discard_rate,
	};
	int rc;

	if (fs->opts.flags & BFS_RDONLY)
		opts.flags |= BS_RDONLY;
	if (fs->opts.flags & BFS_NO_SERVICE)
		opts.flags |= BS_NO_SERVICE;
	if (fs->opts.flags & BFS_DISCARD)
		opts.flags |= BS_DISCARD;
	if (fs->opts.flags & BFS_GROW)
		opts.flags |= BS_GROW;
	bdev_ref(fs->dev);
	rc = bs_open(fs->dev, &opts, &fs->bs, err);
	if (rc)
		bdev_close(fs->dev);
	return rc;
}

static void down_store(struct bfs *fs)
{
	if (fs->abandoned)
		bs_abandon(fs->bs);
	else
		fs->close_rc = bs_close(fs->bs);
	fs->bs = NULL;
}

static int read_fs_item(struct bfs *fs, struct bs_blob *root, struct base_err *err)
{
	struct bfs_fs_disk disk;
	struct bfs_attr attr;
	int rc = bs_item_get(root, BFS_KIND_FS, 0, &disk, sizeof(disk));

	if (rc >= 4 && le32_get(disk.version) > BFS_FORMAT_VERSION)
		return base_err_set(err, -ENOTSUP, "%s: file system of version %u, this program knows up to %u",
				    fs->device, le32_get(disk.version), BFS_FORMAT_VERSION);
	if (rc == sizeof(disk) && (le32_get(disk.hash_bits) & BFS_HASH_SCRAMBLED))
		return base_err_set(err, -ENOTSUP, "%s: a copy of metadata with unreadable names: there is nothing to mount", fs->device);
	if (rc != sizeof(disk) || le32_get(disk.version) != BFS_FORMAT_VERSION || !le32_get(disk.hash_bits) ||
	    le32_get(disk.hash_bits) > BFS_HASH_BITS)
		return base_err_set(err, -EUCLEAN, "%s: the file system's item is missing or damaged", fs->device);
	memcpy(fs->hash_key, disk.hash_key, sizeof(fs->hash_key));
	fs->hash_bits = le32_get(disk.hash_bits);
	rc = bfs_peek(fs, BFS_ROOT_INO, &attr, NULL);
	if (rc || !S_ISDIR(attr.mode))
		return base_err_set(err, -EUCLEAN, "%s: the root inode is damaged", fs->device);
	return 0;
}

static int up_root(struct bfs *fs, struct base_err *err)
{
	struct bs_blob *root;
	struct bs_stat st;
	int rc;

	bs_get_stat(fs->bs, &st);
	if (strncmp(st.owner, BFS_OWNER, sizeof(st.owner)))
		return base_err_set(err, -EINVAL, "%s: a store of \"%.16s\", not a BlobFS", fs->device, st.owner);
	memcpy(fs->uuid, st.uuid, sizeof(fs->uuid));
	memcpy(fs->label, st.label, sizeof(fs->label));
	root = bs_blob_get(fs->bs, BFS_ROOT_INO);
	if (!root)
		return base_err_set(err, -EUCLEAN, "%s: there is no root directory", fs->device);
	rc = read_fs_item(fs, root, err);
	bs_blob_put(root);
	return rc;
}

static void down_inodes(struct bfs *fs)
{
	bfs_inodes_drop(fs, !fs->abandoned && !(fs->opts.flags & BFS_RDONLY));
}

static int up_data(struct bfs *fs, struct base_err *err)
{
	(void)err;
	return bfs_data_init(fs);
}

static void down_data(struct bfs *fs)
{
	bfs_data_stop(fs);
	if (!fs->abandoned && !(fs->opts.flags & BFS_RDONLY))
		fs->sync_rc = bfs_sync(fs);
}

static const struct step {
	const char *what;
	int (*up)(struct bfs *fs, struct base_err *err);
	void (*down)(struct bfs *fs);
} steps[] = {
	{ "memory", up_memory, down_memory },
	{ "page cache", up_cache, bfs_cache_destroy },
	{ "store", up_store, down_store },
	{ "page cache's device", NULL, bfs_cache_stop },
	{ "root directory", up_root, NULL },
	{ "inodes", NULL, down_inodes },
	{ "orphans", bfs_orphans_delete, NULL },
	{ "bytes carried in the log", bfs_carried_home, NULL },
	{ "write-back", up_data, down_data },
};

static void steps_down(struct bfs *fs, size_t n)
{
	while (n--) {
		if (steps[n].down)
			steps[n].down(fs);
	}
}

static int steps_up(struct bfs *fs, struct base_err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		int rc = steps[i].up ? steps[i].up(fs, err) : 0;

		if (!rc)
			continue;
		if (err && !err->text[0])
			base_err_set(err, rc, "%s: %s: %s", fs->device, steps[i].what, base_err_text(NULL, rc));
		steps_down(fs, i);
		return rc;
	}
	return 0;
}

/* ---- the registry ---- */

static struct bfs *fs_alloc(struct bdev *dev, const struct bfs_mount_opts *opts)
{
	struct bfs *fs = base_calloc(1, sizeof(*fs));

	if (!fs)
		return NULL;
	fs->device = base_strdup(bdev_info(dev)->name);
	if (!fs->device) {
		free(fs);
		return NULL;
	}
	fs->dev = dev;
	fs->opts = *opts;
	fs->refs = 1;
	fs->state = BFS_MOUNTING;
	return fs;
}

static void fs_free(struct bfs *fs)
{
	free(fs->device);
	free(fs);
}

static struct bfs *registry_find(const struct bdev *dev)
{
	struct bfs *fs;

	LIST_FOREACH(fs, &registry, registry_link) {
		if (fs->dev == dev)
			return fs;
	}
	return NULL;
}

/* The file system on dev, if it is mounted; who is mounting or unmounting it is waited for. registry_lock held. */
static struct bfs *registry_wait(const struct bdev *dev)
{
	struct bfs *fs;

	while ((fs = registry_find(dev)) && fs->state != BFS_MOUNTED)
		pthread_cond_wait(&registry_cond, &registry_lock);
	return fs;
}

static void registry_settle(struct bfs *fs, bool mounted)
{
	pthread_mutex_lock(&registry_lock);
	if (mounted)
		fs->state = BFS_MOUNTED;
	else
		LIST_REMOVE(fs, registry_link);
	pthread_cond_broadcast(&registry_cond);
	pthread_mutex_unlock(&registry_lock);
}

/* dev's count is taken over on success. share: another count of a mounted one is fine. */
static int mount_dev(struct bdev *dev, const struct bfs_mount_opts *opts, bool share, struct bfs **out,
		     struct base_err *err)
{
	struct bfs *fs;
	int rc;

	pthread_mutex_lock(&registry_lock);
	fs = registry_wait(dev);
	if (fs) {
		rc = share && fs->opts.flags == opts->flags ? 0 : -EBUSY;
		fs->refs += !rc;
		pthread_mutex_unlock(&registry_lock);
		if (rc)
			return base_err_set(err, rc, "%s: mounted already, with other flags", fs->device);
		bdev_close(dev);
		*out = fs;
		return 0;
	}
	fs = fs_alloc(dev, opts);
	if (fs)
		LIST_INSERT_HEAD(&registry, fs, registry_link);
	pthread_mutex_unlock(&registry_lock);
	if (!fs)
		return -ENOMEM;
	rc = steps_up(fs, err);
	registry_settle(fs, !rc);
	if (rc) {
		fs_free(fs);
		return rc;
	}
	bdev_close(dev); /* the store has a count of its own */
	*out = fs;
	return 0;
}

static int opts_fill(const struct bfs_mount_opts *user, struct bfs_mount_opts *opts, struct base_err *err)
{
	memset(opts, 0, sizeof(*opts));
	if (user)
		memcpy(opts, user, MIN(sizeof(*opts), (size_t)user->size));
	if (opts->flags & ~(uint32_t)MOUNT_FLAGS)
		return base_err_set(err, -EINVAL, "unknown mount flags 0x%x", opts->flags & ~(uint32_t)MOUNT_FLAGS);
	opts->size = sizeof(*opts);
	if (opts->flags & BFS_NO_LOCK)
		opts->flags |= BFS_RDONLY;
	if (!opts->cache_size)
		opts->cache_size = 128 * MiB;
	if (!opts->dirty_limit)
		opts->dirty_limit = opts->cache_size / 4;
	if (!opts->writeback_ms)
		opts->writeback_ms = 1000;
	if (!opts->commit_ms)
		opts->commit_ms = 1000;
	return 0;
}

int bfs_mount(const char *device, const struct bfs_mount_opts *user_opts, struct bfs **out, struct base_err *err)
{
	struct bdev_opts dev_opts = { .size = sizeof(dev_opts) };
	struct bfs_mount_opts opts;
	struct bdev *dev;
	int rc;

	rc = opts_fill(user_opts, &opts, err);
	if (rc)
		return rc;
	if (opts.flags & BFS_RDONLY)
		dev_opts.flags |= BDEV_RDONLY;
	if (opts.flags & BFS_NO_LOCK)
		dev_opts.flags |= BDEV_NO_LOCK;
	rc = bdev_open(device, &dev_opts, &dev, err);
	if (rc)
		return rc;
	rc = mount_dev(dev, &opts, true, out, err);
	if (rc)
		bdev_close(dev);
	return rc;
}

int bfs_mount_bdev(struct bdev *dev, const struct bfs_mount_opts *user_opts, struct bfs **out, struct base_err *err)
{
	struct bfs_mount_opts opts;
	int rc = opts_fill(user_opts, &opts, err);

	return rc ? rc : mount_dev(dev, &opts, false, out, err);
}

static int fs_close(struct bfs *fs)
{
	int rc;

	steps_down(fs, ARRAY_SIZE(steps));
	rc = fs->sync_rc ? fs->sync_rc : fs->close_rc;
	registry_settle(fs, false);
	fs_free(fs);
	return rc;
}

int bfs_unmount(struct bfs *fs)
{
	bool last;

	pthread_mutex_lock(&registry_lock);
	last = --fs->refs == 0;
	if (last)
		fs->state = BFS_UNMOUNTING;
	pthread_mutex_unlock(&registry_lock);
	return last ? fs_close(fs) : 0;
}

void bfs_abandon(struct bfs *fs)
{
	pthread_mutex_lock(&registry_lock);
	fs->state = BFS_UNMOUNTING;
	pthread_mutex_unlock(&registry_lock);
	fs->abandoned = true;
	fs_close(fs);
}

int bfs_service_step(struct bfs *fs)
{
	int rc = bfs_data_step(fs);
	int store_rc = bs_service_step(fs->bs);

	return rc ? rc : store_rc;
}

struct bs *bfs_store(struct bfs *fs)
{
	return fs->bs;
}
