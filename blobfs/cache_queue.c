/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who is evicted: S3-FIFO in each shard. A page comes to the small queue; if it was asked for again by the time it reaches the
 * end, it goes to the main one, else it goes, and its name is kept for a while (ghost): a page that comes back soon goes to the
 * main queue at once. In the main queue those that were asked for get another round. So a scan, however long, passes through the
 * small queue, a tenth of the cache.
 *
 * Each shard has its queues, but which of the two has to give is decided for the whole cache: a file lies in few shards, and one that is
 * full of what is wanted must not pay for it.
 */
#include "blobfs/data.h"

#define FREQ_MAX 3u
#define BATCH 8u     /* pages evicted at once */
#define LOOK_MAX 64u /* pages looked at, at most, for one eviction */

static struct bfs_page_queue *queue_of(struct bfs_shard *s, const struct bfs_page *p)
{
	return p->queue == Q_SMALL ? &s->small : &s->main;
}

static void push_head(struct bfs_cache *c, struct bfs_shard *s, uint32_t page, enum bfs_queue_id id)
{
	struct bfs_page *p = &c->pages[page];
	struct bfs_page_queue *q;

	p->queue = (uint8_t)id;
	q = queue_of(s, p);
	p->prev = BFS_NO_PAGE;
	p->next = q->head;
	if (q->head != BFS_NO_PAGE)
		c->pages[q->head].prev = page;
	else
		q->tail = page;
	q->head = page;
	q->count++;
	atomic_fetch_add_explicit(id == Q_SMALL ? &c->n_small : &c->n_main, 1,
				  memory_order_relaxed);
}

void bfs_queue_remove(struct bfs_cache *c, struct bfs_shard *s, uint32_t page)
{
	struct bfs_page *p = &c->pages[page];
	struct bfs_page_queue *q = queue_of(s, p);

	if (p->prev != BFS_NO_PAGE)
		c->pages[p->prev].next = p->next;
	else
		q->head = p->next;
	if (p->next != BFS_NO_PAGE)
		c->pages[p->next].prev = p->prev;
	else
		q->tail = p->prev;
	q->count--;
	atomic_fetch_sub_explicit(p->queue == Q_SMALL ? &c->n_small : &c->n_main, 1,
				  memory_order_relaxed);
	p->queue = Q_NONE;
}

/* ---- ghosts: a table of one fingerprint a place, with the count of evictions when it was put there ---- */

static uint64_t fingerprint(const struct bfs_page *p)
{
	return bfs_mix(p->ino * 0x9ddfea08eb382d69ull + p->number) | 1;
}

static void ghost_put(struct bfs_shard *s, const struct bfs_page *p)
{
	uint64_t f = fingerprint(p);

	s->ghost[f >> 32 & s->ghost_mask] = f << 32 | s->ghost_clock++;
}

static bool ghost_take(struct bfs_shard *s, const struct bfs_page *p)
{
	uint64_t f = fingerprint(p), *place = &s->ghost[f >> 32 & s->ghost_mask];
	bool found = *place >> 32 == (f & UINT32_MAX) &&
		     s->ghost_clock - (uint32_t)*place <= s->ghost_mask;

	if (found)
		*place = 0;
	return found;
}

void bfs_queue_insert(struct bfs_cache *c, struct bfs_shard *s, uint32_t page)
{
	struct bfs_page *p = &c->pages[page];

	p->freq = 0;
	p->fresh = 1;
	push_head(c, s, page, ghost_take(s, p) ? Q_MAIN : Q_SMALL);
}

void bfs_queue_touch(struct bfs_cache *c, uint32_t page)
{
	struct bfs_page *p = &c->pages[page];

	if (p->fresh)
		p->fresh = 0;
	else if (p->freq < FREQ_MAX)
		p->freq++;
}

/* ---- eviction ---- */

static bool may_evict(const struct bfs_page *p)
{
	return !p->pins && !(atomic_load_explicit(&p->state, memory_order_relaxed) &
			     (PAGE_DIRTY | PAGE_WRITING));
}

/* Gives the page at the end of a queue another round there, or in the main queue. */
static void requeue(struct bfs_cache *c, struct bfs_shard *s, uint32_t page, enum bfs_queue_id id)
{
	bfs_queue_remove(c, s, page);
	push_head(c, s, page, id);
}

/* One step at the end of a queue: the page to evict, or BFS_NO_PAGE when it was given another round. */
static uint32_t step(struct bfs_cache *c, struct bfs_shard *s, bool small)
{
	uint32_t page = small ? s->small.tail : s->main.tail;
	struct bfs_page *p = &c->pages[page];

	if (!may_evict(p)) {
		requeue(c, s, page, small && !p->freq ? Q_SMALL : Q_MAIN);
	} else if (p->freq) {
		p->freq = small ? 0 : (uint8_t)(p->freq - 1);
		requeue(c, s, page, Q_MAIN);
	} else {
		if (small)
			ghost_put(s, p);
		return page;
	}
	return BFS_NO_PAGE;
}

/* *emptied: the inode that has lost its last page, or 0. */
static bool evict_one(struct bfs_cache *c, struct bfs_shard *s, bool small, uint64_t *emptied)
{
	struct bfs_page_queue *q = small ? &s->small : &s->main;

	for (unsigned look = 0; look < LOOK_MAX && q->count; look++) {
		uint32_t page = step(c, s, small);
		struct bfs_page *p;
		uint64_t ino;

		if (page == BFS_NO_PAGE)
			continue;
		p = &c->pages[page];
		ino = p->ino;
		*emptied = bfs_page_drop(c, s, bfs_group_find(s, ino, p->number >> GROUP_SHIFT),
					 p->number & (GROUP_PAGES - 1)) ? ino : 0;
		s->evicted++;
		return true;
	}
	return false;
}

void bfs_page_free(struct bfs_cache *c, uint32_t page)
{
	struct bfs_page *p = &c->pages[page];

	p->ino = 0;
	p->queue = Q_NONE;
	atomic_store_explicit(&p->state, PAGE_FREE, memory_order_release);
	pthread_mutex_lock(&c->free_lock);
	p->next = c->free_pages;
	c->free_pages = page;
	c->n_free++;
	pthread_mutex_unlock(&c->free_lock);
	if (atomic_load(&c->n_free_waiters))
		bfs_wake_free(c);
}

bool bfs_cache_is_young(struct bfs_cache *c)
{
	bool young;

	pthread_mutex_lock(&c->free_lock);
	young = c->fresh_page < c->n_pages / 4 * 3;
	pthread_mutex_unlock(&c->free_lock);
	return young;
}

static uint32_t take_free(struct bfs_cache *c)
{
	uint32_t page = BFS_NO_PAGE;

	pthread_mutex_lock(&c->free_lock);
	if (c->free_pages != BFS_NO_PAGE) {
		page = c->free_pages;
		c->free_pages = c->pages[page].next;
		c->n_free--;
	} else if (c->fresh_page < c->n_pages) {
		page = c->fresh_page++;
	}
	pthread_mutex_unlock(&c->free_lock);
	return page;
}

static uint32_t queue_count(struct bfs_shard *s, bool small)
{
	uint32_t n;

	pthread_mutex_lock(&s->lock);
	n = small ? s->small.count : s->main.count;
	pthread_mutex_unlock(&s->lock);
	return n;
}

static bool small_is_due(struct bfs_cache *c)
{
	uint64_t small = atomic_load_explicit(&c->n_small, memory_order_relaxed);

	return small * 10 >= small + atomic_load_explicit(&c->n_main, memory_order_relaxed);
}

/* Of two shards the one with the longer queue. */
static struct bfs_shard *pick_shard(struct bfs_cache *c, bool small)
{
	uint32_t r = atomic_fetch_add_explicit(&c->rotor, 1, memory_order_relaxed);
	struct bfs_shard *a = &c->shards[r & (c->n_shards - 1)];
	struct bfs_shard *b = &c->shards[(bfs_mix(r + 1) ^ (r + 1)) & (c->n_shards - 1)];

	return queue_count(b, small) > queue_count(a, small) ? b : a;
}

static bool evict_some(struct bfs_cache *c, struct bfs_shard *s, bool small)
{
	uint64_t emptied[BATCH];
	unsigned n = 0;

	pthread_mutex_lock(&s->lock);
	while (n < BATCH && evict_one(c, s, small, &emptied[n]))
		n++;
	pthread_mutex_unlock(&s->lock);
	for (unsigned i = 0; i < n; i++) {
		if (emptied[i])
			bfs_inode_emptied(c->fs, emptied[i]);
	}
	return n > 0;
}

uint32_t bfs_page_alloc(struct bfs_cache *c)
{
	uint32_t page = take_free(c);

	for (uint32_t i = 0; page == BFS_NO_PAGE && i < 4; i++) {
		bool small = small_is_due(c);

		if (evict_some(c, pick_shard(c, small), small))
			page = take_free(c);
	}
	/* Few may be left that can go: look everywhere, first where they ought to be. */
	for (uint32_t i = 0; page == BFS_NO_PAGE && i < 2 * c->n_shards; i++) {
		bool small = small_is_due(c) == (i < c->n_shards);

		if (evict_some(c, &c->shards[i & (c->n_shards - 1)], small))
			page = take_free(c);
	}
	return page;
}

/* ---- waiting for a page to become free ---- */

void bfs_wait_free(struct bfs_cache *c, struct bfs_waiter *w, struct op *op)
{
	uint32_t page;

	op_child_begin(op);
	pthread_mutex_lock(&c->free_lock);
	w->op = op;
	w->next = c->free_waiters;
	c->free_waiters = w;
	atomic_fetch_add(&c->n_free_waiters, 1);
	pthread_mutex_unlock(&c->free_lock);
	/* What became free before that woke nobody. */
	page = bfs_page_alloc(c);
	if (page != BFS_NO_PAGE)
		bfs_page_free(c, page);
}

void bfs_wake_free(struct bfs_cache *c)
{
	struct bfs_waiter *list;

	pthread_mutex_lock(&c->free_lock);
	list = c->free_waiters;
	c->free_waiters = NULL;
	atomic_store(&c->n_free_waiters, 0);
	pthread_mutex_unlock(&c->free_lock);
	bfs_waiters_wake(list);
}
