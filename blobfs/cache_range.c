/* SPDX-License-Identifier: BSD-2-Clause */
/* The page cache by ranges of a file: dropping, asking what is dirty, waiting for pages. */
#include "blobfs/data.h"

static uint16_t slots_in(uint64_t group, uint64_t first, uint64_t last)
{
	uint64_t base = group << GROUP_SHIFT;
	unsigned lo = first > base ? (unsigned)(first - base) : 0;
	unsigned hi = last - base < GROUP_PAGES ? (unsigned)(last - base) : GROUP_PAGES - 1;

	return (uint16_t)((0xffffu >> (GROUP_PAGES - 1 - hi)) & (0xffffu << lo));
}

static void group_drop(struct bfs_cache *c, struct bfs_inode *inode, uint64_t number,
		       uint64_t first, uint64_t last, bool dirty)
{
	struct bfs_shard *s = bfs_shard_of(c, inode->ino, number << GROUP_SHIFT);
	struct bfs_group *g;
	uint16_t slots;

	pthread_mutex_lock(&s->lock);
	g = bfs_group_find(s, inode->ino, number);
	slots = g ? g->present & slots_in(number, first, last) : 0;
	if (g && !dirty)
		slots &= (uint16_t) ~(g->dirty | g->writing);
	while (slots) { /* the group goes with its last page */
		unsigned slot = (unsigned)__builtin_ctz(slots);

		slots &= (uint16_t)(slots - 1);
		bfs_page_drop(c, s, g, slot);
	}
	pthread_mutex_unlock(&s->lock);
}

void bfs_range_drop(struct bfs_inode *inode, uint64_t first, uint64_t last, bool dirty)
{
	uint64_t number = first >> GROUP_SHIFT;

	while (bfs_group_next(inode, number, false, &number) && number <= last >> GROUP_SHIFT) {
		group_drop(inode->fs->cache, inode, number, first, last, dirty);
		number++;
	}
}

void bfs_cache_truncate(struct bfs_inode *inode, uint64_t first_page)
{
	bfs_range_drop(inode, first_page, UINT64_MAX >> PAGE_SHIFT, true);
}

static uint64_t next_dirty(struct bfs_inode *inode, uint64_t from, uint64_t last, bool writing)
{
	struct bfs_cache *c = inode->fs->cache;
	uint64_t number = from >> GROUP_SHIFT;

	while (bfs_group_next(inode, number, true, &number) && number <= last >> GROUP_SHIFT) {
		struct bfs_shard *s = bfs_shard_of(c, inode->ino, number << GROUP_SHIFT);
		struct bfs_group *g;
		uint16_t slots = 0;

		pthread_mutex_lock(&s->lock);
		g = bfs_group_find(s, inode->ino, number);
		if (g)
			slots = (g->dirty | (writing ? g->writing : 0)) &
				slots_in(number, from, last);
		pthread_mutex_unlock(&s->lock);
		if (slots)
			return number << GROUP_SHIFT | (unsigned)__builtin_ctz(slots);
		number++;
	}
	return UINT64_MAX;
}

uint64_t bfs_range_next_dirty(struct bfs_inode *inode, uint64_t from, uint64_t last)
{
	return next_dirty(inode, from, last, true);
}

bool bfs_range_is_dirty(struct bfs_inode *inode, uint64_t first, uint64_t last, bool writing)
{
	return next_dirty(inode, first, last, writing) != UINT64_MAX;
}

static int leave(struct bfs_inode *inode, uint64_t first, uint64_t end, uint64_t *page)
{
	uint64_t found = first < end ? bfs_range_next_dirty(inode, first, end - 1) : UINT64_MAX;

	if (found == UINT64_MAX || !bs_blob_claim(inode->blob, false))
		return 0;
	*page = found;
	return -EAGAIN;
}

/* Together they need one cluster more than before at each end, at most, and none if all claims are covered. */
int bfs_range_leave(struct bfs_inode *inode, uint64_t first, uint64_t end, uint64_t *page)
{
	uint64_t pages = 1ull << inode->fs->cache->cluster_shift;
	int rc = leave(inode, round_down(first, pages), first, page);

	return rc || end == UINT64_MAX ? rc : leave(inode, end, round_up(end, pages), page);
}

bool bfs_page_zero_tail(struct bfs_inode *inode, uint64_t end)
{
	struct bfs_cache *c = inode->fs->cache;
	uint64_t number = end >> PAGE_SHIFT;
	uint32_t in_page = end & (PAGE_SIZE - 1);
	struct bfs_shard *s = bfs_shard_of(c, inode->ino, number);
	struct bfs_group *g;
	uint32_t page;
	bool done = true;

	pthread_mutex_lock(&s->lock);
	page = bfs_page_find(s, inode->ino, number, &g);
	if (page != BFS_NO_PAGE) {
		uint16_t bit = (uint16_t)(1u << (number & (GROUP_PAGES - 1)));

		if (g->writing & bit) {
			done = false;
		} else if (g->uptodate & bit) {
			bfs_copy_zero(bfs_page_data(c, page) + in_page, PAGE_SIZE - in_page);
			c->pages[page].reached = MIN(c->pages[page].reached, (uint16_t)in_page);
			/* What the log carries of it has no zeroes, and an fsync that finds nothing changed would leave the size where it was. */
			if (g->dirty & bit)
				bfs_page_dirty(c, g, number & (GROUP_PAGES - 1), in_page, PAGE_SIZE);
		} else {
			c->pages[page].valid = MIN(c->pages[page].valid, in_page);
		}
	}
	pthread_mutex_unlock(&s->lock);
	return done;
}

/* ---- waiting ---- */

void bfs_page_wait(struct bfs_cache *c, uint32_t page, struct bfs_waiter *w, struct op *op)
{
	struct bfs_page_aux *aux = &c->aux[page];

	if (aux->ch)
		op_move(op, bdev_channel_driver(aux->ch));
	op_child_begin(op);
	w->op = op;
	w->next = aux->waiters;
	aux->waiters = w;
}

struct bfs_waiter *bfs_page_take_waiters(struct bfs_cache *c, uint32_t page,
					 struct bfs_waiter *list)
{
	struct bfs_waiter *w = c->aux[page].waiters, *next;

	c->aux[page].waiters = NULL;
	for (; w; w = next) {
		next = w->next;
		w->next = list;
		list = w;
	}
	return list;
}

void bfs_waiters_wake(struct bfs_waiter *list)
{
	struct bfs_waiter *next;

	for (; list; list = next) {
		next = list->next; /* gone with its op */
		op_child_done(list->op, 0);
	}
}
