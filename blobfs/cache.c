/* SPDX-License-Identifier: BSD-2-Clause */
/* The page cache: the arena, groups of pages, and what becomes of a page in its group. */
#include <stdlib.h>
#include <sys/mman.h>

#include "blobfs/data.h"

#define DEFAULT_CACHE (128ull << 20)
#define MIN_PAGES 256u
#define LOG_BUFFER (8ull << 20)
#define MAX_SHARDS 64u
#define MIN_SHARDS 16u

static int group_cmp(const struct bfs_group *a, const struct bfs_group *b)
{
	return a->number < b->number ? -1 : a->number > b->number;
}
RB_GENERATE_INTERNAL(bfs_group_tree, bfs_group, node, group_cmp, __attribute__((unused)) static)
RB_GENERATE_INTERNAL(bfs_dirty_tree, bfs_group, dirty_node, group_cmp,
		     __attribute__((unused)) static)

/* ---- making ---- */

static int arena_map(struct bfs *fs, uint64_t n_pages)
{
	struct bfs_arena_head *head;
	uint64_t pages = PAGE_SIZE;
	uint64_t log = round_up(pages + n_pages * sizeof(struct bfs_page), PAGE_SIZE);
	uint64_t data = round_up(log + LOG_BUFFER, 2 * MiB);

	fs->arena_size = data + n_pages * PAGE_SIZE;
	if (bdev_info(fs->dev)->needs_dma) {
		fs->arena = dma_zalloc(fs->arena_size, 2 * MiB);
		if (!fs->arena)
			return -ENOMEM;
	} else {
		fs->arena = mmap(NULL, fs->arena_size, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (fs->arena == MAP_FAILED) {
			fs->arena = NULL;
			return -ENOMEM;
		}
		/* Pages are taken in order, so that large ones waste little, and random reads miss the TLB less. */
		madvise(fs->arena, fs->arena_size, MADV_HUGEPAGE);
	}
	head = fs->arena;
	*head = (struct bfs_arena_head){
		.magic = BFS_ARENA_MAGIC,
		.size = fs->arena_size,
		.version = 1,
		.page_size = PAGE_SIZE,
		.n_pages = n_pages,
		.pages = pages,
		.data = data,
		.log = log,
		.log_size = LOG_BUFFER,
	};
	fs->log_arena = (uint8_t *)fs->arena + log;
	fs->log_arena_size = LOG_BUFFER;
	return 0;
}

static void arena_unmap(struct bfs *fs, bool dma)
{
	if (!fs->arena)
		return;
	if (dma)
		dma_free(fs->arena);
	else
		munmap(fs->arena, fs->arena_size);
	fs->arena = NULL;
	fs->log_arena = NULL;
}

/* Memory that costs nothing before it is touched, zeroed. */
static void *lazy_alloc(uint64_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void lazy_free(void *p, uint64_t size)
{
	if (p)
		munmap(p, size);
}

static uint32_t pow2_at_least(uint32_t n)
{
	uint32_t p = 1;

	while (p < n)
		p <<= 1;
	return p;
}

static uint32_t shard_buckets(const struct bfs_cache *c)
{
	return pow2_at_least(MAX(c->n_pages / c->n_shards / 4, 16u));
}

static uint32_t shard_ghosts(const struct bfs_cache *c)
{
	return pow2_at_least(MAX(c->n_pages / c->n_shards, 16u));
}

static int cache_alloc(struct bfs_cache *c)
{
	uint32_t buckets = shard_buckets(c), ghosts = shard_ghosts(c);

	c->shards = aligned_alloc(64, c->n_shards * sizeof(*c->shards));
	c->groups = lazy_alloc(c->n_pages * sizeof(*c->groups));
	c->aux = lazy_alloc(c->n_pages * sizeof(*c->aux));
	c->ghosts = lazy_alloc((uint64_t)c->n_shards * ghosts * sizeof(uint64_t));
	c->buckets = lazy_alloc((uint64_t)c->n_shards * buckets * sizeof(struct bfs_group *));
	if (!c->shards || !c->groups || !c->aux || !c->ghosts || !c->buckets)
		return -ENOMEM;
	memset(c->shards, 0, c->n_shards * sizeof(*c->shards));
	for (uint32_t i = 0; i < c->n_shards; i++) {
		struct bfs_shard *s = &c->shards[i];

		pthread_mutex_init(&s->lock, NULL);
		s->buckets = c->buckets + (uint64_t)i * buckets;
		s->mask = buckets - 1;
		s->ghost = c->ghosts + (uint64_t)i * ghosts;
		s->ghost_mask = ghosts - 1;
		s->small.head = s->small.tail = s->main.head = s->main.tail = BFS_NO_PAGE;
	}
	return 0;
}

static void cache_free(struct bfs_cache *c)
{
	if (!c)
		return;
	bfs_units_free(c);
	lazy_free(c->buckets,
		  (uint64_t)c->n_shards * shard_buckets(c) * sizeof(struct bfs_group *));
	lazy_free(c->ghosts, (uint64_t)c->n_shards * shard_ghosts(c) * sizeof(uint64_t));
	lazy_free(c->aux, c->n_pages * sizeof(*c->aux));
	lazy_free(c->groups, c->n_pages * sizeof(*c->groups));
	for (uint32_t i = 0; c->shards && i < c->n_shards; i++)
		pthread_mutex_destroy(&c->shards[i].lock);
	free(c->shards);
	pthread_mutex_destroy(&c->free_lock);
	pthread_mutex_destroy(&c->unit_lock);
	free(c);
}

int bfs_cache_create(struct bfs *fs)
{
	uint64_t bytes = fs->opts.cache_size ? fs->opts.cache_size : DEFAULT_CACHE;
	uint64_t n_pages = MIN(MAX(bytes / PAGE_SIZE, MIN_PAGES), (uint64_t)BFS_NO_PAGE - 1);
	struct bfs_arena_head *head;
	struct bfs_cache *c;
	int rc;

	c = base_calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	pthread_mutex_init(&c->free_lock, NULL);
	pthread_mutex_init(&c->unit_lock, NULL);
	c->fs = fs;
	c->n_pages = (uint32_t)n_pages;
	c->n_shards = MIN(MAX(pow2_at_least(c->n_pages / 512), MIN_SHARDS), MAX_SHARDS);
	c->free_pages = BFS_NO_PAGE;
	c->arena_is_dma = bdev_info(fs->dev)->needs_dma;
	rc = cache_alloc(c);
	if (!rc)
		rc = arena_map(fs, n_pages);
	if (rc) {
		cache_free(c);
		return rc;
	}
	head = fs->arena;
	c->pages = (struct bfs_page *)(void *)((uint8_t *)fs->arena + head->pages);
	c->data = (uint8_t *)fs->arena + head->data;
	if (bdev_register(fs->dev, c->data, n_pages * PAGE_SIZE, &c->mem_handle))
		c->mem_handle = 0;
	fs->cache = c;
	return 0;
}

void bfs_cache_stop(struct bfs *fs)
{
	struct bfs_cache *c = fs->cache;

	bfs_queues_free(fs);
	if (c && c->mem_handle)
		bdev_unregister(fs->dev, c->mem_handle);
	if (c)
		c->mem_handle = 0;
}

void bfs_cache_destroy(struct bfs *fs)
{
	bool dma = fs->cache && fs->cache->arena_is_dma;

	bfs_data_free(fs);
	cache_free(fs->cache);
	fs->cache = NULL;
	arena_unmap(fs, dma);
}

/* ---- groups ---- */

static struct bfs_group **bucket_of(struct bfs_shard *s, uint64_t ino, uint64_t number)
{
	return &s->buckets[bfs_mix(ino + number * 0xc2b2ae3d27d4eb4full) & s->mask];
}

struct bfs_group *bfs_group_find(struct bfs_shard *s, uint64_t ino, uint64_t number)
{
	struct bfs_group *g = *bucket_of(s, ino, number);

	while (g && (g->number != number || g->inode->ino != ino))
		g = g->next;
	return g;
}

static struct bfs_group *group_take_free(struct bfs_cache *c)
{
	struct bfs_group *g;

	pthread_mutex_lock(&c->free_lock);
	g = c->free_groups;
	if (g) {
		c->free_groups = g->next;
	} else {
		assert(c->fresh_group <
		       c->n_pages); /* one page each at least, and the caller has one in hand */
		g = &c->groups[c->fresh_group++];
	}
	pthread_mutex_unlock(&c->free_lock);
	return g;
}

struct bfs_group *bfs_group_make(struct bfs_cache *c, struct bfs_shard *s, struct bfs_inode *inode,
				 uint64_t number)
{
	struct bfs_group **bucket = bucket_of(s, inode->ino, number);
	struct bfs_group *g = bfs_group_find(s, inode->ino, number);

	if (g)
		return g;
	g = group_take_free(c);
	memset(g, 0, sizeof(*g));
	g->inode = inode;
	g->number = number;
	g->next = *bucket;
	*bucket = g;
	pthread_mutex_lock(&inode->pages_lock);
	RB_INSERT(bfs_group_tree, &inode->groups, g);
	pthread_mutex_unlock(&inode->pages_lock);
	return g;
}

/* True: it was the inode's last; who has no count may not touch the inode any more. */
static bool group_free(struct bfs_cache *c, struct bfs_shard *s, struct bfs_group *g)
{
	struct bfs_group **link = bucket_of(s, g->inode->ino, g->number);
	bool last;

	assert(!g->dirty && !g->writing && !g->reserved && !g->in_dirty);
	while (*link != g)
		link = &(*link)->next;
	*link = g->next;
	pthread_mutex_lock(&g->inode->pages_lock);
	RB_REMOVE(bfs_group_tree, &g->inode->groups, g);
	last = RB_EMPTY(&g->inode->groups);
	pthread_mutex_unlock(&g->inode->pages_lock);
	pthread_mutex_lock(&c->free_lock);
	g->next = c->free_groups;
	c->free_groups = g;
	pthread_mutex_unlock(&c->free_lock);
	return last;
}

bool bfs_group_next(struct bfs_inode *inode, uint64_t from, bool dirty, uint64_t *number)
{
	struct bfs_group key, *g;

	key.number = from;
	pthread_mutex_lock(&inode->pages_lock);
	if (dirty)
		g = RB_NFIND(bfs_dirty_tree, &inode->dirty_groups, &key);
	else
		g = RB_NFIND(bfs_group_tree, &inode->groups, &key);
	if (g)
		*number = g->number;
	pthread_mutex_unlock(&inode->pages_lock);
	return g != NULL;
}

void bfs_group_settle(struct bfs_group *g)
{
	bool want = g->dirty || g->writing;

	if (want == g->in_dirty)
		return;
	pthread_mutex_lock(&g->inode->pages_lock);
	if (want)
		RB_INSERT(bfs_dirty_tree, &g->inode->dirty_groups, g);
	else
		RB_REMOVE(bfs_dirty_tree, &g->inode->dirty_groups, g);
	pthread_mutex_unlock(&g->inode->pages_lock);
	g->in_dirty = want;
}

/* ---- pages in their groups ---- */

uint32_t bfs_page_find(struct bfs_shard *s, uint64_t ino, uint64_t number, struct bfs_group **group)
{
	struct bfs_group *g = bfs_group_find(s, ino, number >> GROUP_SHIFT);
	unsigned slot = number & (GROUP_PAGES - 1);

	*group = g;
	return g && g->present >> slot & 1 ? g->page[slot] : BFS_NO_PAGE;
}

void bfs_page_set_state(struct bfs_cache *c, struct bfs_group *g, unsigned slot)
{
	struct bfs_page *p = &c->pages[g->page[slot]];
	uint32_t state = 0;

	if (g->uptodate >> slot & 1)
		state |= PAGE_UPTODATE;
	if (g->dirty >> slot & 1)
		state |= PAGE_DIRTY;
	if (g->writing >> slot & 1)
		state |= PAGE_WRITING;
	atomic_store_explicit(&p->state, state, memory_order_release);
}

void bfs_page_pin(struct bfs_cache *c, uint32_t page)
{
	c->pages[page].pins++;
}

void bfs_page_unpin(struct bfs_cache *c, uint32_t page)
{
	struct bfs_page *p = &c->pages[page];

	assert(p->pins);
	if (--p->pins)
		return;
	if (atomic_load_explicit(&p->state, memory_order_relaxed) & PAGE_DETACHED)
		bfs_page_free(c, page);
	else if (atomic_load_explicit(&c->n_free_waiters, memory_order_relaxed))
		bfs_wake_free(c);
}

void bfs_page_insert(struct bfs_cache *c, struct bfs_shard *s, struct bfs_group *g, unsigned slot,
		     uint32_t page)
{
	struct bfs_page *p = &c->pages[page];

	assert(!(g->present >> slot & 1));
	p->ino = g->inode->ino;
	p->number = g->number << GROUP_SHIFT | slot;
	p->valid = PAGE_SIZE;
	p->reached = 0;
	p->pins = 1;
	g->page[slot] = page;
	g->present |= (uint16_t)(1u << slot);
	bfs_queue_insert(c, s, page);
	bfs_page_set_state(c, g, slot);
}

int bfs_group_claim(struct bfs_group *g, unsigned cluster)
{
	bool has = g->reserved >> cluster & 1;
	int rc;

	if (has && !(g->lent >> cluster & 1))
		return 0;
	rc = bs_blob_claim(g->inode->blob, !has);
	if (!rc)
		g->reserved |= (uint16_t)(1u << cluster);
	return rc;
}

void bfs_group_unclaimed(struct bfs_group *g, unsigned cluster)
{
	g->reserved &= (uint16_t) ~(1u << cluster);
	g->lent &= (uint16_t) ~(1u << cluster);
}

void bfs_group_trim_reserved(struct bfs_cache *c, struct bfs_group *g)
{
	uint16_t left = g->reserved;

	while (left) {
		unsigned cluster = (unsigned)__builtin_ctz(left);

		left &= (uint16_t)(left - 1);
		if (g->dirty & g->alloc & bfs_cluster_mask(c, cluster))
			continue;
		bfs_group_unclaimed(g, cluster);
		bs_blob_unclaim(g->inode->blob, 1, true);
	}
}

void bfs_page_unchanged(struct bfs_cache *c, struct bfs_group *g, unsigned slot)
{
	uint16_t bit = (uint16_t)(1u << slot);

	(void)c;
	if (g->changed & bit)
		atomic_fetch_sub(&g->inode->n_changed, 1);
	g->changed &= (uint16_t)~bit;
}

static void page_changed(struct bfs_cache *c, struct bfs_group *g, unsigned slot, uint32_t from, uint32_t to)
{
	struct bfs_page *p = &c->pages[g->page[slot]];
	uint64_t number = g->number << GROUP_SHIFT | slot;
	uint64_t first = atomic_load_explicit(&g->inode->changed_first, memory_order_relaxed);

	if (g->changed >> slot & 1) {
		p->from = (uint16_t)MIN(p->from, from);
		p->to = (uint16_t)MAX(p->to, to);
		return;
	}
	p->from = (uint16_t)from;
	p->to = (uint16_t)to;
	g->changed |= (uint16_t)(1u << slot);
	while (number < first && !atomic_compare_exchange_weak(&g->inode->changed_first, &first, number))
		;
	atomic_fetch_add(&g->inode->n_changed, 1);
}

static void page_forget_dirt(struct bfs_cache *c, struct bfs_group *g, unsigned slot)
{
	uint16_t bit = (uint16_t)(1u << slot);

	if (g->dirty & bit) {
		bfs_page_unchanged(c, g, slot);
		g->dirty &= (uint16_t)~bit;
		atomic_fetch_sub_explicit(&g->inode->n_dirty, 1, memory_order_relaxed);
		atomic_fetch_sub_explicit(&c->n_dirty, 1, memory_order_relaxed);
	}
	g->alloc &= (uint16_t)~bit;
	g->writing &= (uint16_t)~bit; /* counted until its I/O ends all the same */
	bfs_group_trim_reserved(c, g);
	bfs_group_settle(g);
}

bool bfs_page_drop(struct bfs_cache *c, struct bfs_shard *s, struct bfs_group *g, unsigned slot)
{
	uint16_t bit = (uint16_t)(1u << slot);
	uint32_t page = g->page[slot];

	page_forget_dirt(c, g, slot);
	bfs_queue_remove(c, s, page);
	g->present &= (uint16_t)~bit;
	g->uptodate &= (uint16_t)~bit;
	if (c->pages[page].pins)
		atomic_store_explicit(&c->pages[page].state, PAGE_DETACHED, memory_order_release);
	else
		bfs_page_free(c, page);
	return !g->present && group_free(c, s, g);
}

/* Does the store take a new place when the page is written home? Also instead of an unwritten block that a write under way, its write-back
 * or one past the cache, is about to give a checksum. */
static bool moves(const struct bfs_cache *c, const struct bfs_group *g, unsigned slot)
{
	uint64_t page = g->number << GROUP_SHIFT | slot;
	bool beside = c->datasum && (g->writing >> slot & 1 || bfs_direct_beside(g->inode, page)); /* before the look: it may be over by then */
	struct bs_extent e;

	bs_map_lookup(g->inode->blob, page, 1, &e);
	return e.flags & (BS_RUN_HOLE | BS_RUN_SHARED | BS_RUN_SUM) || (e.flags & BS_RUN_UNWRITTEN && beside);
}

static int reserve_for(struct bfs_cache *c, struct bfs_group *g, unsigned slot)
{
	unsigned cluster = slot >> c->cluster_shift;
	int rc;

	if (!moves(c, g, slot)) {
		g->alloc &= (uint16_t) ~(1u << slot);
		return 0;
	}
	rc = bfs_group_claim(g, cluster);
	if (rc)
		return rc;
	g->alloc |= (uint16_t)(1u << slot);
	return 0;
}

int bfs_page_dirty(struct bfs_cache *c, struct bfs_group *g, unsigned slot, uint32_t from, uint32_t to)
{
	struct bfs_inode *inode = g->inode;
	int rc;

	if (g->dirty >> slot & 1) {
		page_changed(c, g, slot, from, to);
		return 0;
	}
	rc = reserve_for(c, g, slot);
	if (rc)
		return rc;
	if (!atomic_fetch_add_explicit(&inode->n_dirty, 1, memory_order_relaxed))
		atomic_store_explicit(&inode->dirty_since, base_now_ns(), memory_order_relaxed);
	atomic_fetch_add_explicit(&c->n_dirty, 1, memory_order_relaxed);
	g->dirty |= (uint16_t)(1u << slot);
	page_changed(c, g, slot, from, to);
	bfs_group_settle(g);
	bfs_page_set_state(c, g, slot);
	return 0;
}

void bfs_data_inode_init(struct bfs_inode *inode)
{
	uint64_t size = atomic_load(&inode->size);

	atomic_store(&inode->data_end, round_up(size, PAGE_SIZE));
	atomic_store(&inode->written_end, size);
	atomic_store(&inode->stale_end, size & (PAGE_SIZE - 1) ? size : 0);
}

/* ---- numbers ---- */

void bfs_get_cache_stat(struct bfs *fs, struct bfs_cache_stat *out)
{
	struct bfs_cache *c = fs->cache;

	*out = (struct bfs_cache_stat){
		.dirty = atomic_load(&c->n_dirty),
		.writing = atomic_load(&c->n_writing),
		.readahead = atomic_load(&c->readahead),
		.written_back = atomic_load(&c->written_back),
		.written_bytes = atomic_load(&c->written_bytes),
		.zeroed_bytes = atomic_load(&c->zeroed_bytes),
	};
	for (uint32_t i = 0; i < c->n_shards; i++) {
		struct bfs_shard *s = &c->shards[i];

		pthread_mutex_lock(&s->lock);
		out->pages += s->small.count + s->main.count;
		out->hits += s->hits;
		out->misses += s->misses;
		out->evicted += s->evicted;
		pthread_mutex_unlock(&s->lock);
	}
	pthread_mutex_lock(&fs->icache_lock);
	out->inodes = fs->n_inodes;
	pthread_mutex_unlock(&fs->icache_lock);
}
