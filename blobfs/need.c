/* SPDX-License-Identifier: BSD-2-Clause */
/* What a write waits for: pages to be read, pages to become free, space in the store, dirty pages over the limit. */
#include "blobfs/data.h"

#define THROTTLE_UNITS 4u

void bfs_need_init(struct bfs_need *n)
{
	n->unit = NULL;
	n->reclaimed = false;
	n->walking = false;
}

int bfs_need_release(struct bfs_need *n)
{
	int rc = 0;

	if (n->unit) {
		rc = n->unit->rc;
		bfs_unit_put(n->unit);
		n->unit = NULL;
	}
	return rc;
}

static enum op_next provide_fill(struct bfs_need *n, struct bfs_inode *inode, uint64_t page,
				 struct bfs_req *req, int step)
{
	struct bfs_unit *u;
	int rc = bfs_fill_gather(inode, page, page, req->ch, &u);

	if (rc == -EBUSY)
		return bfs_need_provide(n, inode, WRITE_PAGES, page, req, step);
	if (rc)
		return op_fail(&req->op_, rc);
	if (!u)
		return op_goto(&req->op_, step);
	u->keep = true;
	n->unit = u;
	bfs_unit_start(u, req->ch, &req->op_);
	return op_await(&req->op_, step, 0);
}

static enum op_next provide_wait(struct bfs_need *n, struct bfs_inode *inode, uint64_t number,
				 struct bfs_req *req, int step)
{
	struct bfs_cache *c = inode->fs->cache;
	struct bfs_shard *s = bfs_shard_of(c, inode->ino, number);
	struct bfs_group *g;
	uint32_t page;

	pthread_mutex_lock(&s->lock);
	page = bfs_page_find(s, inode->ino, number, &g);
	if (page != BFS_NO_PAGE && !(g->uptodate >> (number & (GROUP_PAGES - 1)) & 1))
		bfs_page_wait(c, page, &n->waiter, &req->op_);
	pthread_mutex_unlock(&s->lock);
	return op_await(&req->op_, step, 0);
}

/* Starts write-back of this inode, or else of some other: units started, or negative. */
static int write_back_some(struct bfs_need *n, struct bfs_inode *inode, struct bfs_req *req)
{
	struct bfs_inode *other;
	int rc;

	bfs_walk_init(&n->walk, inode, 0, UINT64_MAX >> PAGE_SHIFT, req->ch);
	rc = bfs_walk_start(&n->walk, &req->op_, THROTTLE_UNITS);
	if (rc)
		return rc;
	other = bfs_wb_pick(inode->fs);
	if (!other)
		return 0;
	bfs_walk_init(&n->walk, other, 0, UINT64_MAX >> PAGE_SHIFT, req->ch);
	rc = bfs_walk_start(&n->walk, &req->op_, THROTTLE_UNITS);
	bfs_inode_put(other); /* what is in write-back keeps it */
	return rc;
}

static enum op_next provide_pages(struct bfs_need *n, struct bfs_inode *inode, struct bfs_req *req,
				  int step)
{
	int rc = write_back_some(n, inode, req);

	if (rc == -EAGAIN)
		bs_commit_start(inode->fs->bs, 0, &req->op_);
	else if (!rc)
		bfs_wait_free(inode->fs->cache, &n->waiter, &req->op_);
	else if (rc < 0)
		return op_fail(&req->op_, rc);
	return op_await(&req->op_, step, 0);
}

/* Once: writes the file back, which gives back what was reserved too much, and asks the store for space freed lately. */
static enum op_next provide_space(struct bfs_need *n, struct bfs_inode *inode, struct bfs_req *req,
				  int step)
{
	if (n->reclaimed)
		return op_fail(&req->op_, -ENOSPC);
	if (!n->walking) {
		n->walking = true;
		bfs_walk_init(&n->walk, inode, 0, UINT64_MAX >> PAGE_SHIFT, req->ch);
	}
	/* Each round comes back here, as the next try finds no space either: until nothing is left to start. */
	if (bfs_walk_start(&n->walk, &req->op_, THROTTLE_UNITS) <= 0) {
		n->reclaimed = true;
		bfs_inode_retry_deletes(inode->fs, false);
		bs_reclaim_start(inode->fs->bs, &req->op_);
	}
	return op_await(&req->op_, step, 0);
}

enum op_next bfs_need_provide(struct bfs_need *n, struct bfs_inode *inode, enum bfs_write_need need,
			      uint64_t page, struct bfs_req *req, int step)
{
	switch (need) {
	case WRITE_FILL:
		return provide_fill(n, inode, page, req, step);
	case WRITE_WAIT:
		return provide_wait(n, inode, page, req, step);
	case WRITE_PAGES:
		return provide_pages(n, inode, req, step);
	case WRITE_SPACE:
		return provide_space(n, inode, req, step);
	case WRITE_DONE:
		break;
	}
	return op_bug(&req->op_);
}

bool bfs_need_throttle(struct bfs_need *n, struct bfs_inode *inode, struct bfs_req *req)
{
	int rc = write_back_some(n, inode, req);

	if (rc == -EAGAIN)
		bs_commit_start(inode->fs->bs, 0, &req->op_);
	return rc > 0 || rc == -EAGAIN;
}
