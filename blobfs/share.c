/* SPDX-License-Identifier: BSD-2-Clause */
/* A file gets quiet before its blocks are shared: what is dirty without space of its own is written home, nothing is lost of it. */
#include "blobfs/share.h"

struct clean {
	struct op op;
	struct bfs_walk walk;
	struct bfs_inode *inode;
};

enum { CLEAN_WALK, CLEAN_SETTLE, CLEAN_DONE };

static enum op_next clean_run(struct op *op)
{
	struct clean *c = container_of(op, struct clean, op);
	int rc;

	switch (op->step) {
	case CLEAN_WALK:
		return bfs_walk_run(&c->walk, op, CLEAN_WALK, CLEAN_SETTLE, true);
	case CLEAN_SETTLE:
		rc = bfs_inode_settle(c->inode, false);
		if (rc != -EAGAIN)
			return rc ? op_fail(op, rc) : op_finish(op);
		bs_log_wait_room_start(c->inode->fs->bs, op);
		return op_await(op, CLEAN_SETTLE, 0);
	}
	return op_bug(op);
}

int bfs_share_clean(struct bfs_inode *inode, uint64_t first, uint64_t last)
{
	struct bdev_channel *ch = bdev_channel_borrow(inode->fs->dev);
	uint32_t errors = atomic_load(&inode->wb_error_seq);
	struct clean c = { .inode = inode };
	int rc;

	/* Whoever looked at the map before the file was shared, and reserved nothing, has made his page dirty after this. */
	pthread_mutex_lock(&inode->lock);
	pthread_mutex_unlock(&inode->lock);
	bfs_walk_init(&c.walk, inode, first, last, ch);
	op_init(&c.op, "bfs share clean", clean_run, bdev_channel_driver(ch), NULL, NULL);
	op_start(&c.op);
	rc = op_wait(&c.op);
	bdev_channel_return(ch);
	if (!rc && atomic_load(&inode->wb_error_seq) != errors)
		rc = atomic_load(&inode->wb_error);
	return rc;
}

/* Shard locked. */
static int reserve_group(struct bfs_cache *c, struct bfs_group *g, uint64_t first, uint64_t last)
{
	for (unsigned slot = 0; slot < GROUP_PAGES; slot++) {
		uint64_t number = g->number << GROUP_SHIFT | slot;
		int rc;

		if (!(g->dirty >> slot & 1) || number < first || number > last)
			continue;
		rc = bfs_group_claim(g, slot >> c->cluster_shift);
		if (rc)
			return rc;
		g->alloc |= (uint16_t)(1u << slot);
	}
	return 0;
}

int bfs_share_reserve(struct bfs_inode *inode, uint64_t first, uint64_t last)
{
	struct bfs_cache *c = inode->fs->cache;
	uint64_t from = first >> GROUP_SHIFT, number;
	int rc = 0;

	while (!rc && bfs_group_next(inode, from, true, &number) && number <= last >> GROUP_SHIFT) {
		struct bfs_shard *s = bfs_shard_of(c, inode->ino, number << GROUP_SHIFT);
		struct bfs_group *g;

		pthread_mutex_lock(&s->lock);
		g = bfs_group_find(s, inode->ino, number);
		if (g)
			rc = reserve_group(c, g, first, last);
		pthread_mutex_unlock(&s->lock);
		from = number + 1;
	}
	return rc;
}

struct wait {
	struct op op;
	struct bfs *fs;
};

static enum op_next wait_run(struct op *op)
{
	struct wait *w = container_of(op, struct wait, op);

	if (op->step)
		return op_finish(op);
	bs_share_wait_start(w->fs->bs, op);
	return op_await(op, 1, 0);
}

int bfs_share_wait(struct bfs *fs)
{
	struct bdev_channel *ch = bdev_channel_borrow(fs->dev);
	struct wait w = { .fs = fs };
	int rc;

	op_init(&w.op, "bfs share wait", wait_run, bdev_channel_driver(ch), NULL, NULL);
	op_start(&w.op);
	rc = op_wait(&w.op);
	bdev_channel_return(ch);
	return rc;
}
