/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writing to the cache, as far as that goes without waiting. A write of at most BS_IO_MAX bytes is atomic against other writers:
 * under inode->lock all its pages are pinned (or new ones claimed) first, then all is copied. What is missing is
 * said to the caller, with everything let go again, and the caller tries anew when it is there (need.c).
 */
#include "blobfs/data.h"

#define CHUNK_PAGES 256u

struct chunk { /* one round under inode->lock */
	struct bfs_cache *c;
	struct bfs_inode *inode;
	struct bfs_write *w;
	uint64_t offset, end, size; /* bytes written now; the cached size before */
	uint64_t first;
	uint32_t n; /* pages pinned so far */
	uint32_t page[CHUNK_PAGES];
};

static uint16_t bit_of(uint64_t number)
{
	return (uint16_t)(1u << (number & (GROUP_PAGES - 1)));
}

/* Must what the device has of this page be read before bytes [from, to) of it are written? Not if nothing of it is kept. */
static bool needs_fill(const struct chunk *k, uint64_t number)
{
	uint64_t base = number << PAGE_SHIFT;
	uint64_t from = MAX(k->offset, base), to = MIN(k->end, base + PAGE_SIZE);

	if (base >= atomic_load(&k->inode->data_end))
		return false;
	return from > base || (to < base + PAGE_SIZE && to < k->size);
}

/* Pins the page, or puts a new one in its place. fill: it has to be filled if it is missing. */
static enum bfs_write_need pin_page(struct chunk *k, uint64_t number, bool fill, uint32_t *out)
{
	struct bfs_cache *c = k->c;
	struct bfs_shard *s = bfs_shard_of(c, k->inode->ino, number);
	enum bfs_write_need need = WRITE_DONE;
	uint32_t page, fresh = BFS_NO_PAGE;
	struct bfs_group *g;

	for (;;) {
		pthread_mutex_lock(&s->lock);
		page = bfs_page_find(s, k->inode->ino, number, &g);
		if (page != BFS_NO_PAGE || fill || fresh != BFS_NO_PAGE)
			break;
		pthread_mutex_unlock(&s->lock);
		fresh = bfs_page_alloc(c);
		if (fresh == BFS_NO_PAGE)
			return WRITE_PAGES;
	}
	if (page != BFS_NO_PAGE && g->uptodate & bit_of(number)) {
		bfs_page_pin(c, page);
	} else if (page != BFS_NO_PAGE) {
		need = WRITE_WAIT;
	} else if (fill) {
		need = WRITE_FILL;
	} else {
		g = bfs_group_make(c, s, k->inode, number >> GROUP_SHIFT);
		bfs_page_insert(c, s, g, number & (GROUP_PAGES - 1), fresh);
		page = fresh;
		fresh = BFS_NO_PAGE;
	}
	pthread_mutex_unlock(&s->lock);
	if (fresh != BFS_NO_PAGE)
		bfs_page_free(c, fresh);
	*out = page;
	return need;
}

/* Lets a page go; one that was claimed and not written is taken out again. */
static void unpin_page(struct chunk *k, uint64_t number, uint32_t page)
{
	struct bfs_shard *s = bfs_shard_of(k->c, k->inode->ino, number);
	struct bfs_waiter *waiters = NULL;
	struct bfs_group *g;

	pthread_mutex_lock(&s->lock);
	if (bfs_page_find(s, k->inode->ino, number, &g) == page &&
	    !(g->uptodate & bit_of(number))) {
		waiters = bfs_page_take_waiters(k->c, page, waiters);
		bfs_page_drop(k->c, s, g, number & (GROUP_PAGES - 1));
	}
	bfs_page_unpin(k->c, page);
	pthread_mutex_unlock(&s->lock);
	bfs_waiters_wake(waiters);
}

/* Bytes of a page that are written. */
static void bytes_in(const struct chunk *k, uint64_t number, uint32_t *from, uint32_t *to)
{
	uint64_t base = number << PAGE_SHIFT;

	*from = (uint32_t)(MAX(k->offset, base) - base);
	*to = (uint32_t)(MIN(k->end, base + PAGE_SIZE) - base);
}

/* Shard locked. Bytes of a page from the caller; a claimed page gets zeroes around them. */
static void copy_page(struct chunk *k, struct bfs_group *g, uint64_t number, uint32_t page)
{
	uint8_t *data = bfs_page_data(k->c, page);
	uint32_t from, to;

	bytes_in(k, number, &from, &to);
	if (!(g->uptodate & bit_of(number))) {
		bfs_copy_zero(data, from);
		bfs_copy_zero(data + to, PAGE_SIZE - to);
	}
	bfs_copy_in(data + from, &k->w->from, to - from);
	k->c->pages[page].reached = MAX(k->c->pages[page].reached, (uint16_t)to);
}

static int write_page(struct chunk *k, uint64_t number, uint32_t page)
{
	struct bfs_cache *c = k->c;
	struct bfs_shard *s = bfs_shard_of(c, k->inode->ino, number);
	struct bfs_waiter *waiters = NULL;
	struct bfs_group *g;
	uint32_t from, to;
	int rc;

	bytes_in(k, number, &from, &to);
	pthread_mutex_lock(&s->lock);
	g = bfs_group_find(s, k->inode->ino, number >> GROUP_SHIFT);
	rc = bfs_page_dirty(c, g, number & (GROUP_PAGES - 1), from, to);
	if (!rc) {
		copy_page(k, g, number, page);
		c->pages[page].seq = atomic_fetch_add_explicit(&c->seq, 1, memory_order_relaxed);
		if (!(g->uptodate & bit_of(number))) {
			g->uptodate |= bit_of(number);
			waiters = bfs_page_take_waiters(c, page, waiters);
		}
		bfs_page_set_state(c, g, number & (GROUP_PAGES - 1));
		bfs_page_unpin(c, page);
	}
	pthread_mutex_unlock(&s->lock);
	bfs_waiters_wake(waiters);
	return rc;
}

/* ---- the old end (R9) ---- */

bool bfs_tail_is_bare(struct bfs_inode *inode)
{
	uint64_t stale = atomic_load(&inode->stale_end), page = stale >> PAGE_SHIFT;

	if (!stale || atomic_load(&inode->size) <= stale || bfs_range_is_dirty(inode, page, page, true) || !bfs_holds_garbage(inode, page))
		return false;
	return atomic_load(&inode->stale_end) == stale; /* or it was just published, as the last of it in write-back */
}

/* Does the device hold garbage behind the end, that raising the size would show? */
static bool tail_is_stale(struct bfs_inode *inode, uint64_t *number)
{
	uint64_t stale = atomic_load(&inode->stale_end);

	*number = stale >> PAGE_SHIFT;
	if (!stale)
		return false;
	return atomic_load(&inode->size) >> PAGE_SHIFT == *number ? bfs_holds_garbage(inode, *number) : bfs_tail_is_bare(inode);
}

static int dirty_page(struct chunk *k, uint64_t number)
{
	struct bfs_shard *s = bfs_shard_of(k->c, k->inode->ino, number);
	struct bfs_group *g;
	int rc;

	pthread_mutex_lock(&s->lock);
	g = bfs_group_find(s, k->inode->ino, number >> GROUP_SHIFT);
	/* The page has zeroes where the device has garbage. */
	rc = bfs_page_dirty(k->c, g, number & (GROUP_PAGES - 1), 0, PAGE_SIZE);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

enum bfs_write_need bfs_garbage_cover(struct bfs_inode *inode, uint64_t number)
{
	struct chunk k = { .c = inode->fs->cache, .inode = inode };
	enum bfs_write_need need;
	uint32_t page;
	int rc;

	need = pin_page(&k, number, true, &page);
	if (need != WRITE_DONE)
		return need;
	rc = dirty_page(&k, number);
	unpin_page(&k, number, page);
	if (!rc)
		bfs_inode_mark_dirty(inode);
	return rc ? WRITE_SPACE : WRITE_DONE;
}

enum bfs_write_need bfs_tail_try(struct bfs_inode *inode, uint64_t *number)
{
	return tail_is_stale(inode, number) ? bfs_garbage_cover(inode, *number) : WRITE_DONE;
}

enum bfs_write_need bfs_tail_cover(struct bfs_inode *inode, uint64_t *number)
{
	enum bfs_write_need need = WRITE_DONE;

	*number = 0;
	if (!atomic_load(&inode->stale_end))
		return WRITE_DONE;
	pthread_mutex_lock(&inode->lock);
	if (bfs_tail_is_bare(inode))
		need = bfs_tail_try(inode, number);
	pthread_mutex_unlock(&inode->lock);
	return need;
}

/* ---- one round ---- */

static void chunk_begin(struct chunk *k, struct bfs_write *w)
{
	uint64_t max = MIN((uint64_t)CHUNK_PAGES, k->c->n_pages / 16) << PAGE_SHIFT;

	k->size = atomic_load(&k->inode->size);
	if (w->append)
		w->offset = k->size;
	k->offset = w->offset;
	/* Ends with a page, so that the next round begins with one. */
	k->end = MIN(w->offset + w->left, round_down(w->offset, PAGE_SIZE) + max);
	if (w->keep_size)
		k->end = MAX(MIN(k->end, k->size), k->offset);
	k->first = k->offset >> PAGE_SHIFT;
	k->n = 0;
}

static enum bfs_write_need chunk_pin(struct chunk *k)
{
	enum bfs_write_need need = WRITE_DONE;
	uint64_t last = (k->end - 1) >> PAGE_SHIFT;

	/* Raising the size over a stale tail that this write does not touch itself. */
	if (k->end > k->size && k->first > k->size >> PAGE_SHIFT) {
		k->w->page = 0;
		need = bfs_tail_try(k->inode, &k->w->page);
		if (need != WRITE_DONE)
			return need;
	}
	while (k->first + k->n <= last) {
		uint64_t number = k->first + k->n;

		need = pin_page(k, number, needs_fill(k, number), &k->page[k->n]);
		if (need != WRITE_DONE) {
			k->w->page = number;
			break;
		}
		k->n++;
	}
	if (need != WRITE_DONE) {
		while (k->n--)
			unpin_page(k, k->first + k->n, k->page[k->n]);
	}
	return need;
}

/* After a round: what was written, up to end. */
static void chunk_written(struct chunk *k, uint64_t end)
{
	struct bfs_write *w = k->w;
	uint64_t written = end - k->offset;

	w->offset += written;
	w->left -= written;
	w->done += written;
	atomic_fetch_add_explicit(w->from.iov ? &k->c->written_bytes : &k->c->zeroed_bytes, written, memory_order_relaxed);
	if (!written)
		return;
	if (end > k->size)
		atomic_store(&k->inode->size, end);
	if (w->keep_times)
		bfs_inode_mark_dirty(k->inode);
	else
		bfs_inode_modified(k->inode);
}

/* The short way for what appends to a log: one page, which is there. */
static bool chunk_small(struct chunk *k)
{
	struct bfs_shard *s;
	struct bfs_group *g;
	uint32_t page, from, to;
	bool done;

	if ((k->end - 1) >> PAGE_SHIFT != k->first ||
	    (k->end > k->size && k->first > k->size >> PAGE_SHIFT))
		return false;
	s = bfs_shard_of(k->c, k->inode->ino, k->first);
	bytes_in(k, k->first, &from, &to);
	pthread_mutex_lock(&s->lock);
	page = bfs_page_find(s, k->inode->ino, k->first, &g);
	done = page != BFS_NO_PAGE && g->uptodate & bit_of(k->first) &&
	       !bfs_page_dirty(k->c, g, k->first & (GROUP_PAGES - 1), from, to);
	if (done) {
		copy_page(k, g, k->first, page);
		k->c->pages[page].seq = atomic_fetch_add_explicit(&k->c->seq, 1,
								  memory_order_relaxed);
	}
	pthread_mutex_unlock(&s->lock);
	if (done)
		chunk_written(k, k->end);
	return done;
}

/* All pages are pinned. */
static enum bfs_write_need chunk_copy(struct chunk *k)
{
	enum bfs_write_need need = WRITE_DONE;
	uint64_t end = k->end;

	for (uint32_t i = 0; i < k->n; i++) {
		if (need == WRITE_DONE && write_page(k, k->first + i, k->page[i])) {
			need = WRITE_SPACE;
			end = MAX((k->first + i) << PAGE_SHIFT, k->offset);
		}
		if (need != WRITE_DONE)
			unpin_page(k, k->first + i, k->page[i]);
	}
	chunk_written(k, end);
	return need;
}

/* inode->lock held. */
static enum bfs_write_need chunk_write(struct chunk *k)
{
	enum bfs_write_need need;

	if (k->end == k->offset) {
		k->w->left = 0; /* beyond the size, which is kept */
		return WRITE_DONE;
	}
	if (chunk_small(k))
		return WRITE_DONE;
	need = chunk_pin(k);
	return need == WRITE_DONE ? chunk_copy(k) : need;
}

enum bfs_write_need bfs_write_try(struct bfs_write *w)
{
	enum bfs_write_need need = WRITE_DONE;
	struct chunk k;

	k.c = w->inode->fs->cache;
	k.inode = w->inode;
	k.w = w;
	while (w->left && need == WRITE_DONE) {
		pthread_mutex_lock(&w->inode->lock);
		chunk_begin(&k, w);
		need = chunk_write(&k);
		pthread_mutex_unlock(&w->inode->lock);
		if (bfs_wb_over_limit(k.c, 1))
			break;
	}
	return need;
}
