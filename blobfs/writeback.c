/* SPDX-License-Identifier: BSD-2-Clause */
/* Write-back of one inode: runs of dirty pages to units, sizes after them, walks over a range. */
#include "blobfs/data.h"

#define WALK_UNITS 8u /* in flight for one walk */
#define TRIES \
	2u /* waits for one page: the write-back under way when the walk came, and one begun later */

bool bfs_lowering_pending(struct bfs_inode *inode)
{
	uint64_t lsn = atomic_load(&inode->lowered_lsn);

	if (!lsn)
		return false;
	/* Not known yet: the truncation is just being done. */
	return lsn == UINT64_MAX || bs_durable_lsn(inode->fs->bs) < lsn;
}

/* ---- gathering ---- */

/* Shard locked. Pages of this cluster that need space have left their group for the unit: so does its claim with the last of them; if there
 * are others, the unit has one of its own. */
static void take_claim(struct bfs_unit *u, struct bfs_group *g, unsigned cluster)
{
	if (g->dirty & g->alloc & bfs_cluster_mask(u->cache, cluster)) {
		bs_blob_claim_also(u->io.blob);
		g->lent |= (uint16_t)(1u << cluster);
	} else {
		bfs_group_unclaimed(g, cluster);
	}
	u->io.claims++;
}

/* Shard locked. */
static void take_page(struct bfs_unit *u, struct bfs_group *g, unsigned slot)
{
	struct bfs_cache *c = u->cache;
	uint64_t base = (g->number << GROUP_SHIFT | slot) << PAGE_SHIFT, size = atomic_load(&u->inode->size);
	uint16_t bit = (uint16_t)(1u << slot);
	uint32_t page = g->page[slot];

	c->pages[page].taken = (uint16_t)MAX(size > base ? MIN(size - base, PAGE_SIZE) : 0u, (uint64_t)c->pages[page].reached);
	/* Whoever finds nothing changed finds what is being written (carry.c). */
	atomic_fetch_add(&u->inode->n_writing, 1);
	bfs_page_unchanged(c, g, slot);
	g->writing |= bit;
	g->dirty &= (uint16_t)~bit;
	g->alloc &= (uint16_t)~bit;
	bfs_page_set_state(c, g, slot);
	bfs_page_pin(c, page);
	c->aux[page].ch = u->ch;
	u->page[u->n] = page;
	u->iov[u->n].iov_base = bfs_page_data(c, page);
	u->iov[u->n].iov_len = PAGE_SIZE;
	u->n++;
}

/* Shard locked. The dirty pages of a cluster from `number` on, in a row, to `last` at most: the next one that is not taken. */
static uint64_t take_cluster(struct bfs_unit *u, struct bfs_group *g, uint64_t number, uint64_t last)
{
	unsigned cluster = (number & (GROUP_PAGES - 1)) >> u->cache->cluster_shift;
	uint16_t alloc = g->alloc & g->dirty & bfs_cluster_mask(u->cache, cluster);
	bool claim = false;

	last = MIN(last, number | ((1u << u->cache->cluster_shift) - 1));
	while (number <= last && (g->dirty & ~g->writing) >> (number & (GROUP_PAGES - 1)) & 1) {
		claim |= alloc >> (number & (GROUP_PAGES - 1)) & 1;
		take_page(u, g, number++ & (GROUP_PAGES - 1));
	}
	if (claim)
		take_claim(u, g, cluster);
	return number;
}

/* Shard locked. The first run of dirty pages in [first, last], which is in one window. */
static int take_run(struct bfs_unit *u, struct bfs_shard *s, uint64_t first, uint64_t last,
		    bool pending)
{
	struct bfs_group *g = NULL;
	uint64_t n = first;

	while (n <= last) {
		unsigned slot = n & (GROUP_PAGES - 1);

		if (!g || !slot)
			g = bfs_group_find(s, u->ino, n >> GROUP_SHIFT);
		if (!g || !((g->dirty & ~g->writing) >> slot & 1)) {
			if (u->n)
				break;
			n = g ? n + 1 : (n | (GROUP_PAGES - 1)) + 1;
			continue;
		}
		if (pending && n == u->inode->lowered_block) {
			if (!u->n)
				return -EAGAIN;
			break;
		}
		if (!u->n)
			u->first = n;
		n = take_cluster(u, g, n, pending && n < u->inode->lowered_block ? MIN(last, u->inode->lowered_block - 1) : last);
	}
	return 0;
}

static void wb_prepare(struct bfs_unit *u)
{
	struct bfs_cache *c = u->cache;

	atomic_fetch_add(&c->n_writing, u->n);
	atomic_fetch_sub(&u->inode->n_dirty, u->n);
	atomic_fetch_sub(&c->n_dirty, u->n);
	u->io.op = BS_WRITE;
	u->io.offset = u->first << PAGE_SHIFT;
	u->io.length = (uint64_t)u->n << PAGE_SHIFT;
	u->io.stream = (enum bs_stream)atomic_load_explicit(&u->inode->stream,
							    memory_order_relaxed);
	u->io.mem_handle = c->mem_handle;
	u->io.publish = bfs_publish;
	u->io.wanted = bfs_unit_wanted;
}

int bfs_wb_gather(struct bfs_inode *inode, uint64_t *next, uint64_t last, struct bdev_channel *ch,
		  struct bfs_unit **out)
{
	struct bfs_cache *c = inode->fs->cache;
	struct bfs_unit *u = NULL;
	uint64_t number;
	int rc = 0;

	*out = NULL;
	while (*next <= last && bfs_group_next(inode, *next >> GROUP_SHIFT, true, &number) &&
	       number <= last >> GROUP_SHIFT) {
		uint64_t first = MAX(*next, number << GROUP_SHIFT);
		uint64_t end = MIN(last, first | (WINDOW_PAGES - 1));
		struct bfs_shard *s = bfs_shard_of(c, inode->ino, first);
		bool pending = bfs_lowering_pending(inode);

		if (!u)
			u = bfs_unit_get(c, UNIT_WRITE, inode);
		if (!u)
			return -ENOMEM;
		u->ch = ch;
		pthread_mutex_lock(&s->lock);
		rc = take_run(u, s, first, end, pending);
		if (u->n)
			wb_prepare(u);
		pthread_mutex_unlock(&s->lock);
		*next = u->n ? u->first + u->n : rc ? *next : end + 1;
		if (rc || u->n)
			break;
	}
	if (u && !u->n)
		bfs_unit_put(u);
	else
		*out = u;
	return rc;
}

/* ---- sizes ---- */

/* Garbage that is on the device at stale_end and cannot be shown. */
bool bfs_holds_garbage(struct bfs_inode *inode, uint64_t page)
{
	struct bs_carried_range carried;
	struct bs_extent e;

	bs_map_lookup(inode->blob, page, 1, &e);
	return !(e.flags & (BS_RUN_HOLE | BS_RUN_UNWRITTEN)) || bs_carried_next(inode->blob, page, 1, &carried);
}

/* The old last block is garbage on the device beyond stale_end until the page that has zeroes there is published: the
 * durable size does not pass it before, nor ever if that page could not be written. */
uint64_t bfs_size_to_publish(struct bfs_inode *inode)
{
	uint64_t stale = atomic_load(&inode->stale_end), page = stale >> PAGE_SHIFT;
	uint64_t disk_size = atomic_load(&inode->disk_size), size;

	if (stale && bfs_range_is_dirty(inode, page, page, true))
		return disk_size;
	size = MIN(atomic_load(&inode->size), atomic_load(&inode->written_end));
	if (stale && size > stale && bfs_holds_garbage(inode, page))
		size = stale;
	return MAX(disk_size, size);
}

static void raise_to(_Atomic uint64_t *what, uint64_t value)
{
	uint64_t old = atomic_load(what);

	while (old < value && !atomic_compare_exchange_weak(what, &old, value))
		;
}

void bfs_written_to(struct bfs_inode *inode, uint64_t end)
{
	raise_to(&inode->written_end, MIN(end, atomic_load(&inode->size)));
}

static bool is_cut_off(const struct bfs_page *p)
{
	return atomic_load(&p->state) & PAGE_DETACHED;
}

/*
 * How far the file was written with this unit. What was appended to its last page since that was taken is not: it will be written with that
 * page the next time, and a size that told of it now would show zeroes after a power cut.
 */
static uint64_t written_to(const struct bfs_unit *u)
{
	if (u->kind != UNIT_WRITE)
		return u->io.offset + u->io.length;
	for (uint32_t i = u->n; i--;) {
		const struct bfs_page *p = &u->cache->pages[u->page[i]];

		if (!is_cut_off(p))
			return ((u->first + i) << PAGE_SHIFT) + p->taken;
	}
	return 0;
}

/* Has this unit written the block of stale_end? Not with a page that was cut off meanwhile: the garbage may be of a later one there. */
static bool covers_stale(const struct bfs_unit *u, uint64_t stale)
{
	const struct bs_io *io = &u->io;
	const struct bfs_page *p;

	if (!stale || stale < io->offset || stale >= io->offset + io->length)
		return false;
	if (u->kind != UNIT_WRITE)
		return true;
	p = &u->cache->pages[u->page[(stale >> PAGE_SHIFT) - u->first]];
	return !is_cut_off(p);
}

int bfs_publish(struct bs_txn *txn, struct bs_io *io, void *arg)
{
	struct bfs_unit *u = arg;
	struct bfs_inode *inode = u->inode;
	uint64_t end = io->offset + io->length, size;

	if (covers_stale(u, atomic_load(&inode->stale_end)))
		atomic_store(&inode->stale_end, 0);
	raise_to(&inode->data_end, end);
	if (u->extend)
		raise_to(&inode->size, end);
	raise_to(&inode->written_end, written_to(u));
	size = bfs_size_to_publish(inode);
	/* Should the header not fit now, bfs_inode_settle puts it later: the data is there all the same. */
	if (size > atomic_load(&inode->disk_size))
		bfs_inode_put_header(txn, inode, size);
	return 0;
}

int bfs_inode_settle(struct bfs_inode *inode, bool datasync)
{
	struct bs_txn *txn;
	bool dirty;
	int rc;

	pthread_mutex_lock(&inode->lock);
	dirty = (inode->attr_dirty && !datasync) ||
		bfs_size_to_publish(inode) != atomic_load(&inode->disk_size);
	pthread_mutex_unlock(&inode->lock);
	if (!dirty)
		return 0;
	/* Replacing a header takes no space, so it may be done on a full store. */
	rc = bs_txn_try(inode->fs->bs, BS_TXN_FREES, &txn);
	if (rc)
		return rc;
	pthread_mutex_lock(&inode->lock);
	rc = inode->deleted ? 0 : bfs_inode_put_header(txn, inode, bfs_size_to_publish(inode));
	if (!rc)
		inode->attr_dirty = false;
	pthread_mutex_unlock(&inode->lock);
	if (rc)
		bs_txn_cancel(txn);
	else
		bfs_inode_note_lsn(inode, bs_txn_end(txn));
	return rc;
}

/* ---- walks ---- */

void bfs_walk_init(struct bfs_walk *w, struct bfs_inode *inode, uint64_t first, uint64_t last,
		   struct bdev_channel *ch)
{
	w->inode = inode;
	w->ch = ch;
	w->next = first;
	w->wait = first;
	w->last = last;
	w->tries = 0;
	w->wrote = false;
	w->durable = false;
}

static void walk_unit(struct bfs_walk *w, struct bfs_unit *u, struct op *op)
{
	if (w->durable)
		u->io.flags |= BS_IO_DURABLE;
	bfs_unit_start(u, w->ch, op);
}

int bfs_walk_start(struct bfs_walk *w, struct op *op, unsigned units)
{
	struct bfs_unit *u;
	unsigned n = 0;
	int rc = 0;

	while (n < units) {
		rc = bfs_wb_gather(w->inode, &w->next, w->last, w->ch, &u);
		if (rc || !u)
			break;
		walk_unit(w, u, op);
		n++;
	}
	return n ? (int)n : rc;
}

/* Writes again what became dirty while it was in write-back. */
static int write_again(struct bfs_walk *w, uint64_t page, struct op *op)
{
	struct bfs_unit *u;
	uint64_t next = page;
	int rc = bfs_wb_gather(w->inode, &next, page | (WINDOW_PAGES - 1), w->ch, &u);

	if (rc || !u)
		return rc;
	w->wrote = true;
	walk_unit(w, u, op);
	return 1;
}

/* Is the page in write-back? Then waits for it. */
static bool wait_page(struct bfs_walk *w, uint64_t number, struct op *op)
{
	struct bfs_cache *c = w->inode->fs->cache;
	struct bfs_shard *s = bfs_shard_of(c, w->inode->ino, number);
	struct bfs_group *g;
	uint32_t page;
	bool writing;

	pthread_mutex_lock(&s->lock);
	page = bfs_page_find(s, w->inode->ino, number, &g);
	writing = page != BFS_NO_PAGE && g->writing >> (number & (GROUP_PAGES - 1)) & 1;
	if (writing)
		bfs_page_wait(c, page, &w->waiter, op);
	pthread_mutex_unlock(&s->lock);
	return writing;
}

/* 1: a child was started; 0: all waited for. */
static int walk_wait(struct bfs_walk *w, struct op *op)
{
	for (;;) {
		uint64_t page = bfs_range_next_dirty(w->inode, w->wait, w->last);
		int rc;

		if (page == UINT64_MAX)
			return 0;
		if (page != w->wait) {
			w->wait = page;
			w->tries = 0;
			w->wrote = false;
		}
		if (w->tries < TRIES && wait_page(w, page, op)) {
			w->tries++;
			return 1;
		}
		if (!w->wrote && w->tries < TRIES) {
			rc = write_again(w, page, op);
			if (rc)
				return rc;
		}
		w->wait = page + 1;
		w->tries = 0;
		w->wrote = false;
	}
}

enum op_next bfs_walk_run(struct bfs_walk *w, struct op *op, int step, int then, bool wait)
{
	int rc;

	op_move(op, bdev_channel_driver(w->ch));
	rc = bfs_walk_start(w, op, WALK_UNITS);
	if (!rc && wait)
		rc = walk_wait(w, op);
	if (rc == -EAGAIN) {
		bs_commit_start(w->inode->fs->bs, 0, op);
		rc = 0;
	} else if (!rc) {
		return op_goto(op, then);
	}
	return op_await(op, step, MIN(rc, 0));
}
