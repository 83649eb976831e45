/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A unit is one I/O of the store and the pages it concerns: filling pages, writing them back, or moving data between the device and a
 * caller's memory. It is an op of its own, so that pages change state as soon as their I/O is over, whoever waits.
 *
 * What keeps things alive: the unit counts the blob. A fill touches no inode but through a page that is still in its group.
 * The inode of a write-back lives because n_writing keeps it on the dirty list; so giving n_writing back is the last touch.
 */
#include <stdlib.h>

#include "blobfs/data.h"
#define LOG_COMPONENT "blobfs"
#include "base/log.h"

#define UNITS_KEPT 64u

/* ---- having one ---- */

struct bfs_unit *bfs_unit_get(struct bfs_cache *c, enum bfs_unit_kind kind, struct bfs_inode *inode)
{
	struct bfs_unit *u;

	pthread_mutex_lock(&c->unit_lock);
	u = c->free_units;
	if (u) {
		c->free_units = u->next;
		c->n_units--;
	}
	pthread_mutex_unlock(&c->unit_lock);
	if (!u)
		u = base_malloc(sizeof(*u));
	if (!u)
		return NULL;
	bs_blob_ref(inode->blob);
	u->kind = kind;
	u->cache = c;
	u->inode = inode;
	u->ino = inode->ino;
	u->first = 0;
	u->n = 0;
	u->ch = NULL;
	u->parent = NULL;
	u->keep = false;
	u->extend = false;
	u->rc = 0;
	u->next = NULL;
	memset(&u->io, 0, offsetof(struct bs_io, priv));
	u->io.blob = inode->blob;
	u->io.iov = u->iov;
	u->io.publish_arg = u;
	return u;
}

static void unpin_all(struct bfs_unit *u)
{
	struct bfs_shard *s = bfs_shard_of(u->cache, u->ino, u->first);

	pthread_mutex_lock(&s->lock);
	for (uint32_t i = 0; i < u->n; i++)
		bfs_page_unpin(u->cache, u->page[i]);
	pthread_mutex_unlock(&s->lock);
}

void bfs_unit_put(struct bfs_unit *u)
{
	struct bfs_cache *c = u->cache;

	if (u->kind == UNIT_FILL && u->keep)
		unpin_all(u);
	for (uint32_t i = 0; u->kind == UNIT_USER && i < u->n; i++) {
		if (u->page[i])
			dma_free(u->iov[i].iov_base);
	}
	bs_blob_put(u->io.blob);
	pthread_mutex_lock(&c->unit_lock);
	if (c->n_units < UNITS_KEPT) {
		u->next = c->free_units;
		c->free_units = u;
		c->n_units++;
		u = NULL;
	}
	pthread_mutex_unlock(&c->unit_lock);
	free(u);
}

void bfs_units_free(struct bfs_cache *c)
{
	struct bfs_unit *u;

	while ((u = c->free_units)) {
		c->free_units = u->next;
		free(u);
	}
}

/* ---- its end ---- */

/* Shard locked: the group of the unit's page i, or NULL if the page is detached. */
static struct bfs_group *unit_group(struct bfs_unit *u, struct bfs_shard *s, uint32_t i)
{
	struct bfs_page *p = &u->cache->pages[u->page[i]];

	if (atomic_load_explicit(&p->state, memory_order_relaxed) & PAGE_DETACHED)
		return NULL;
	return bfs_group_find(s, u->ino, (u->first + i) >> GROUP_SHIFT);
}

static void fill_end(struct bfs_unit *u, int rc)
{
	struct bfs_cache *c = u->cache;
	struct bfs_shard *s = bfs_shard_of(c, u->ino, u->first);
	struct bfs_waiter *waiters = NULL;
	bool emptied = false;

	pthread_mutex_lock(&s->lock);
	for (uint32_t i = 0; i < u->n; i++) {
		unsigned slot = (u->first + i) & (GROUP_PAGES - 1);
		struct bfs_group *g = unit_group(u, s, i);
		uint32_t page = u->page[i], valid = c->pages[page].valid;

		waiters = bfs_page_take_waiters(c, page, waiters);
		c->aux[page].ch = NULL;
		if (g && rc) {
			emptied |= bfs_page_drop(c, s, g, slot);
		} else if (g) {
			bfs_copy_zero(bfs_page_data(c, page) + valid, PAGE_SIZE - valid);
			g->uptodate |= (uint16_t)(1u << slot);
			bfs_page_set_state(c, g, slot);
		}
		if (!u->keep)
			bfs_page_unpin(c, page);
	}
	pthread_mutex_unlock(&s->lock);
	if (emptied)
		bfs_inode_emptied(c->fs, u->ino);
	bfs_waiters_wake(waiters);
}

/* A failed write-back: its pages are clean now as Linux has it, and every open file's next fsync hears of it. When only
 * memory was short they stay dirty, if their space can be had again. */
static void write_failed(struct bfs_unit *u, int rc)
{
	log_warn("inode %llu: write-back of %u pages from page %llu failed: %s",
		 (unsigned long long)u->ino, u->n, (unsigned long long)u->first,
		 base_err_text(NULL, rc));
	if (rc == -EROFS)
		atomic_store(&u->cache->frozen, true);
	atomic_store(&u->inode->wb_error, rc);
	atomic_fetch_add(&u->inode->wb_error_seq, 1);
	atomic_store(&u->cache->wb_error, rc);
	atomic_fetch_add(&u->cache->wb_error_seq, 1);
}

static void write_end(struct bfs_unit *u, int rc)
{
	struct bfs_cache *c = u->cache;
	struct bfs_shard *s = bfs_shard_of(c, u->ino, u->first);
	struct bfs_waiter *waiters = NULL;
	bool lost = false;

	/* Deleted with its last name just when this began: nobody will read it. */
	if (rc == -ENOENT && !u->inode->nlink)
		rc = 0;
	pthread_mutex_lock(&s->lock);
	bs_blob_unclaim(u->io.blob, u->io.claims, false);
	for (uint32_t i = 0; i < u->n; i++) {
		unsigned slot = (u->first + i) & (GROUP_PAGES - 1);
		struct bfs_group *g = unit_group(u, s, i);
		uint32_t page = u->page[i];

		waiters = bfs_page_take_waiters(c, page, waiters);
		c->aux[page].ch = NULL;
		if (g) {
			g->writing &= (uint16_t) ~(1u << slot);
			/* What is at its place now nobody knows. */
			if (rc == -ENOMEM || (rc && g->dirty >> slot & 1))
				bfs_page_dirty(c, g, slot, 0, PAGE_SIZE);
			lost |= rc != 0;
			bfs_group_settle(g);
			bfs_page_set_state(c, g, slot);
		}
		bfs_page_unpin(c, page);
	}
	bs_blob_unclaim(u->io.blob, 0, true); /* what is needed again has its claim again */
	pthread_mutex_unlock(&s->lock);
	if (lost)
		write_failed(u, rc);
	bfs_inode_note_lsn(u->inode, u->io.lsn);
	atomic_fetch_sub(&c->n_writing, u->n);
	atomic_fetch_add_explicit(&c->written_back, u->n, memory_order_relaxed);
	atomic_fetch_sub(&u->inode->n_writing, u->n); /* the inode may be gone from here on */
	bfs_waiters_wake(waiters);
}

/* Pages truncated or punched after they were gathered, and before their places were chosen, must not come back. They are
 * detached within the transaction that unmaps their blocks, which the store's lock keeps from falling in between. */
void bfs_unit_wanted(struct bs_io *io, uint64_t *wanted, void *arg)
{
	struct bfs_unit *u = arg;

	(void)io;
	for (uint32_t i = 0; i < u->n; i++) {
		struct bfs_page *p = &u->cache->pages[u->page[i]];

		if (atomic_load_explicit(&p->state, memory_order_acquire) & PAGE_DETACHED)
			wanted[i / 64] &= ~(1ull << (i % 64));
	}
}

/* ---- running ---- */

enum { UNIT_IO, UNIT_END };

static enum op_next unit_run(struct op *op)
{
	struct bfs_unit *u = container_of(op, struct bfs_unit, op);

	switch (op->step) {
	case UNIT_IO:
		op->on_error = UNIT_END;
		bs_io_start(u->ch, &u->io, op);
		return op_await(op, UNIT_END, 0);
	case UNIT_END:
		u->rc = op->rc;
		if (u->kind == UNIT_FILL)
			fill_end(u, op->rc);
		else if (u->kind == UNIT_WRITE)
			write_end(u, op->rc);
		return op_finish(op);
	}
	return op_bug(op);
}

static void unit_done(struct op *op, void *arg)
{
	struct bfs_unit *u = arg;
	struct op *parent = u->parent;
	struct bfs_cache *c = u->cache;

	(void)op;
	/* A parent that keeps it looks at rc itself, and puts it. */
	if (!parent || (u->kind != UNIT_USER && !u->keep))
		bfs_unit_put(u);
	if (parent)
		op_child_done(parent, 0);
	else
		atomic_fetch_sub(&c->n_background, 1);
}

void bfs_unit_start(struct bfs_unit *u, struct bdev_channel *ch, struct op *parent)
{
	u->ch = ch;
	u->parent = parent;
	u->io.iovcnt = (int)u->n;
	if (parent)
		op_child_begin(parent);
	else
		atomic_fetch_add(&u->cache->n_background, 1);
	op_init(&u->op, "bfs unit", unit_run, bdev_channel_driver(ch), unit_done, u);
	op_start(&u->op);
	/* Outside of a poll it is the caller who polls, or kicks. */
	if (op_polling() && op_polling() != bdev_channel_driver(ch))
		bdev_kick(ch);
}

/* ---- filling ---- */

/* Shard locked: how many pages from number on are missing, at most max. */
static uint32_t count_missing(struct bfs_shard *s, uint64_t ino, uint64_t number, uint32_t max)
{
	struct bfs_group *g;
	uint32_t n = 0;

	while (n < max && bfs_page_find(s, ino, number + n, &g) == BFS_NO_PAGE)
		n++;
	return n;
}

static void fill_insert(struct bfs_unit *u, struct bfs_shard *s, struct bfs_inode *inode,
			struct bdev_channel *ch)
{
	struct bfs_cache *c = u->cache;
	uint64_t stale = atomic_load(&inode->stale_end), number = u->first + u->n;
	struct bfs_group *g = bfs_group_make(c, s, inode, number >> GROUP_SHIFT);
	uint32_t page = u->page[u->n];

	bfs_page_insert(c, s, g, number & (GROUP_PAGES - 1), page);
	if (stale && stale >> PAGE_SHIFT == number)
		c->pages[page].valid = stale & (PAGE_SIZE - 1);
	c->aux[page].ch = ch;
	u->iov[u->n].iov_base = bfs_page_data(c, page);
	u->iov[u->n].iov_len = PAGE_SIZE;
	u->n++;
}

int bfs_fill_gather(struct bfs_inode *inode, uint64_t number, uint64_t last,
		    struct bdev_channel *ch, struct bfs_unit **out)
{
	struct bfs_cache *c = inode->fs->cache;
	struct bfs_shard *s = bfs_shard_of(c, inode->ino, number);
	uint32_t want, have = 0;
	struct bfs_unit *u;

	*out = NULL;
	last = MIN(last, number | (WINDOW_PAGES - 1));
	pthread_mutex_lock(&s->lock);
	want = count_missing(s, inode->ino, number, (uint32_t)(last - number + 1));
	pthread_mutex_unlock(&s->lock);
	if (!want)
		return 0;
	u = bfs_unit_get(c, UNIT_FILL, inode);
	if (!u)
		return -ENOMEM;
	while (have < want && (u->page[have] = bfs_page_alloc(c)) != BFS_NO_PAGE)
		have++;
	u->first = number;
	pthread_mutex_lock(&s->lock);
	want = count_missing(s, inode->ino, number, have);
	while (u->n < want)
		fill_insert(u, s, inode, ch);
	s->misses += u->n;
	pthread_mutex_unlock(&s->lock);
	for (uint32_t i = u->n; i < have; i++)
		bfs_page_free(c, u->page[i]);
	if (!u->n) {
		bfs_unit_put(u);
		return have ? 0 : -EBUSY;
	}
	u->io.op = BS_READ;
	u->io.offset = number << PAGE_SHIFT;
	u->io.length = (uint64_t)u->n << PAGE_SHIFT;
	u->io.mem_handle = c->mem_handle;
	*out = u;
	return 0;
}
