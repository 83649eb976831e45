/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fsync by the log (R10): what has changed of a file since it was last durable goes into a transaction, bytes and size together, and
 * the fsync is one log write. The pages stay dirty and keep the space reserved for them; write-behind brings them home, once,
 * however often they were synced. A page that is dirty and not *changed* needs nothing for an fsync.
 *
 * The bytes lie over what the page's place holds, so that has to be what it was when the page became clean: nothing of the file may be
 * in write-back. What write-back takes while we gather is found before the transaction ends; what it takes later is written after the
 * transaction, for places are chosen under the store's lock, which we hold.
 */
#include "blobfs/data.h"

#define CARRY_PAGES 64u

struct carry_page {
	uint64_t number;
	const uint8_t *data;
	uint32_t from, to;
};
struct carry {
	struct bfs_inode *inode;
	uint32_t n;
	bool in_place; /* writing them back would change no metadata */
	uint64_t bytes;
	struct carry_page page[CARRY_PAGES];
};

/* inode->lock held: nobody changes a page. */
static void gather_group(struct carry *k, uint64_t number)
{
	struct bfs_cache *c = k->inode->fs->cache;
	struct bfs_shard *s = bfs_shard_of(c, k->inode->ino, number << GROUP_SHIFT);
	struct bfs_group *g;
	uint16_t slots;

	pthread_mutex_lock(&s->lock);
	g = bfs_group_find(s, k->inode->ino, number);
	for (slots = g ? g->changed : 0; slots && k->n < CARRY_PAGES; slots &= (uint16_t)(slots - 1)) {
		unsigned slot = (unsigned)__builtin_ctz(slots);
		uint32_t page = g->page[slot];

		k->page[k->n++] = (struct carry_page){
			.number = number << GROUP_SHIFT | slot,
			.data = bfs_page_data(c, page),
			.from = c->pages[page].from,
			.to = c->pages[page].to,
		};
	}
	pthread_mutex_unlock(&s->lock);
}

/* All pages that have changed, or -EBUSY: somebody is writing some of them back. */
static int gather(struct carry *k)
{
	struct bfs_inode *inode = k->inode;
	uint32_t want = atomic_load(&inode->n_changed);
	uint64_t number = atomic_load(&inode->changed_first) >> GROUP_SHIFT;

	while (k->n < want && bfs_group_next(inode, number, true, &number))
		gather_group(k, number++);
	return k->n == atomic_load(&inode->n_changed) && !atomic_load(&inode->n_writing) ? 0 : -EBUSY;
}

/* Is the garbage behind an old end (R9) in this page? */
static bool is_stale(const struct bfs_inode *inode, const struct carry_page *p)
{
	uint64_t stale = atomic_load(&inode->stale_end);

	return stale && stale >> PAGE_SHIFT == p->number;
}

static bool is_in_place(struct bfs_inode *inode, uint64_t number, bool carried)
{
	struct bs_extent e;

	bs_map_lookup(inode->blob, number, 1, &e);
	return !e.flags && !carried;
}

static int put_page(struct carry *k, struct bs_txn *txn, struct carry_page *p)
{
	struct bs_blob *blob = k->inode->blob;
	struct bs_carried_range there;
	bool carried = bs_carried_next(blob, p->number, 1, &there);

	k->in_place = k->in_place && is_in_place(k->inode, p->number, carried);
	if (is_stale(k->inode, p)) {
		p->from = MIN(p->from, (uint32_t)(atomic_load(&k->inode->stale_end) & (PAGE_SIZE - 1)));
		p->to = PAGE_SIZE;
	}
	/* What is carried for one block is one range: the page has what lies between. */
	if (carried) {
		p->from = MIN(p->from, there.to);
		p->to = MAX(p->to, there.from);
	}
	k->bytes += p->to - p->from;
	if (k->bytes > BS_CARRY_MAX)
		return -E2BIG;
	return bs_txn_carry(txn, blob, (p->number << PAGE_SHIFT) + p->from, p->data + p->from, p->to - p->from);
}

/*
 * Little that goes over its old place, and nothing else to log: written durably it is one round trip as well, and needs not be written
 * again. Not if that would take along what is carried already.
 */
static bool better_home(const struct carry *k)
{
	return k->in_place && k->n && k->n == atomic_load(&k->inode->n_dirty) && bs_durable_pays(k->inode->fs->bs);
}

/* The size goes with the bytes. */
static int put_header(struct carry *k, struct bs_txn *txn, bool datasync)
{
	struct bfs_inode *inode = k->inode;
	uint64_t disk_size = atomic_load(&inode->disk_size), stale_end = atomic_load(&inode->stale_end);
	uint64_t data_end = atomic_load(&inode->data_end), written_end = atomic_load(&inode->written_end), size;
	int rc;

	for (uint32_t i = 0; i < k->n; i++) {
		uint64_t end = (k->page[i].number + 1) << PAGE_SHIFT;

		if (is_stale(inode, &k->page[i]))
			atomic_store(&inode->stale_end, 0);
		if (atomic_load(&inode->data_end) < end)
			atomic_store(&inode->data_end, end);
		bfs_written_to(inode, end);
	}
	size = bfs_size_to_publish(inode);
	if (inode->deleted || (size == disk_size && (datasync || !inode->attr_dirty))) {
		if (!better_home(k))
			return 0;
		rc = -EBUSY;
	} else {
		rc = bfs_inode_put_header(txn, inode, size);
	}
	if (!rc) {
		inode->attr_dirty = false;
		return 0;
	}
	atomic_store(&inode->disk_size, disk_size);
	atomic_store(&inode->stale_end, stale_end);
	atomic_store(&inode->data_end, data_end);
	atomic_store(&inode->written_end, written_end);
	return rc;
}

/* They are in the transaction, which cannot fail any more. Those that write-back has taken meanwhile are marked already. */
static void mark(struct carry *k)
{
	struct bfs_inode *inode = k->inode;
	struct bfs_cache *c = inode->fs->cache;

	atomic_store(&inode->changed_first, UINT64_MAX);
	for (uint32_t i = 0; i < k->n; i++) {
		uint64_t number = k->page[i].number;
		struct bfs_shard *s = bfs_shard_of(c, inode->ino, number);
		struct bfs_group *g;

		pthread_mutex_lock(&s->lock);
		g = bfs_group_find(s, inode->ino, number >> GROUP_SHIFT);
		if (g)
			bfs_page_unchanged(c, g, number & (GROUP_PAGES - 1));
		pthread_mutex_unlock(&s->lock);
	}
}

/* In the transaction, inode->lock held. */
static int carry_in(struct carry *k, struct bs_txn *txn, bool datasync)
{
	int rc = gather(k);

	for (uint32_t i = 0; !rc && i < k->n; i++)
		rc = put_page(k, txn, &k->page[i]);
	/* A page that write-back has taken might be another's by now, if its I/O was refused. */
	if (!rc && k->n != atomic_load(&k->inode->n_changed))
		rc = -EBUSY;
	if (!rc)
		rc = put_header(k, txn, datasync);
	if (!rc)
		mark(k);
	return rc;
}

static bool is_settled(struct bfs_inode *inode, bool datasync)
{
	bool settled;

	pthread_mutex_lock(&inode->lock);
	settled = !atomic_load(&inode->n_changed) && !atomic_load(&inode->n_writing) && (datasync || !inode->attr_dirty) &&
		  bfs_size_to_publish(inode) == atomic_load(&inode->disk_size);
	pthread_mutex_unlock(&inode->lock);
	return settled;
}

int bfs_carry(struct bfs_inode *inode, bool datasync)
{
	struct bs *bs = inode->fs->bs;
	struct carry k;
	struct bs_txn *txn;
	uint32_t n = atomic_load(&inode->n_changed);
	int rc;

	if (atomic_load(&inode->n_writing) || n > CARRY_PAGES || (n && !bs_carry_pays(bs, 0)))
		return -EBUSY;
	if (!n && is_settled(inode, datasync))
		return 0;
	rc = bs_txn_try(bs, 0, &txn);
	if (rc)
		return rc;
	k.inode = inode;
	k.n = 0;
	k.in_place = true;
	k.bytes = 0;
	pthread_mutex_lock(&inode->lock);
	rc = carry_in(&k, txn, datasync);
	if (rc)
		bs_txn_cancel(txn);
	else
		bfs_inode_note_lsn(inode, bs_txn_end(txn));
	pthread_mutex_unlock(&inode->lock);
	if (bs_carry_is_much(bs))
		bfs_wb_kick(inode->fs);
	return rc;
}
