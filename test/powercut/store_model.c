/* SPDX-License-Identifier: BSD-2-Clause */
#include "test/powercut/store_model.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR 512u

struct tag { /* repeated over a sector */
	uint64_t blob, block, counter, check;
};

static uint64_t tag_check(const struct tag *t, unsigned sector)
{
	uint64_t h = (t->blob * 0x9e3779b97f4a7c15ull) ^ (t->block * 0xc2b2ae3d27d4eb4full) ^ (t->counter * 0x165667b19e3779f9ull);

	return (h ^ h >> 29) * 0xbf58476d1ce4e5b9ull + sector;
}

void sm_fill(void *block, uint64_t blob, uint64_t number, uint64_t counter)
{
	struct tag *t = block;

	for (unsigned i = 0; i < BS_BLOCK / sizeof(*t); i++) {
		t[i] = (struct tag){ blob, number, counter, 0 };
		t[i].check = tag_check(&t[i], i / (SECTOR / sizeof(*t)));
	}
}

uint32_t sm_item_bytes(uint64_t value, uint8_t *out)
{
	uint32_t len = 1 + (uint32_t)(value * 37 % 300) + (value & SM_LONG ? 60000 : 0);

	for (uint32_t i = 0; i < len; i++)
		out[i] = (uint8_t)(value * 31 + i * 7);
	return len;
}

struct model_blob *sm_new_blob(struct store_model *m, uint64_t id, uint64_t lsn)
{
	struct model_blob *b = calloc(1, sizeof(*b));

	if (!b)
		broken(NULL, "out of memory");
	b->id = id;
	b->born = lsn;
	b->died = UINT64_MAX;
	GROW(m->blobs, m->n_blobs, m->blobs_cap);
	m->blobs[m->n_blobs++] = b;
	return b;
}

void sm_header(struct model_blob *b, uint64_t lsn, uint64_t size, uint64_t user)
{
	GROW(b->headers, b->n_headers, b->headers_cap);
	b->headers[b->n_headers++] = (struct header_change){ lsn, size, user };
}

void sm_item(struct model_blob *b, unsigned key, uint64_t lsn, uint64_t value)
{
	struct item_history *h = &b->items[key];

	GROW(h->c, h->n, h->cap);
	h->c[h->n++] = (struct item_change){ lsn, value };
}

struct block_change *sm_block(struct model_blob *b, uint64_t block, enum block_event what, uint64_t counter, uint64_t lsn,
			      uint64_t submitted)
{
	struct block_history *h = &b->blocks[block];

	GROW(h->c, h->n, h->cap);
	h->c[h->n] = (struct block_change){ what, counter, b->id, block, lsn, submitted, UINT64_MAX, 0, 0, false, false };
	return &h->c[h->n++];
}

static bool is_zeroed(const struct block_change *c)
{
	return c->what == B_ZERO || c->what == B_ALLOC || c->what == B_UNDER_ZERO;
}

/* The last of the first n changes that concerns the block's place; NULL: none does. */
static const struct block_change *place_change(const struct block_history *h, size_t n)
{
	while (n && h->c[n - 1].what == B_CARRY)
		n--;
	return n ? &h->c[n - 1] : NULL;
}

bool sm_is_zeroed(const struct block_history *h)
{
	const struct block_change *c = place_change(h, h->n);

	return c && is_zeroed(c);
}

static struct block_change *copy_change(struct model_blob *b, uint64_t block, const struct block_change *c, uint64_t lsn)
{
	struct block_change *new = sm_block(b, block, B_PUBLISH, c->counter, lsn, 0);

	new->blob = c->blob;
	new->block = c->block;
	new->shared = true;
	return new;
}

void sm_share(struct model_blob *from, uint64_t block, struct model_blob *to, uint64_t to_block, uint64_t lsn)
{
	const struct block_history *h = &from->blocks[block];
	const struct block_change *c = place_change(h, h->n);
	struct block_change last;

	if (!c || c->what == B_UNMAP || is_zeroed(c)) {
		sm_block(to, to_block, B_UNMAP, 0, lsn, 0);
		return;
	}
	last = *c;
	copy_change(from, block, &last, lsn);
	copy_change(to, to_block, &last, lsn);
}

uint64_t sm_size(const struct model_blob *b)
{
	return b->n_headers ? b->headers[b->n_headers - 1].size : 0;
}

uint64_t sm_value(const struct model_blob *b, unsigned key)
{
	const struct item_history *h = &b->items[key];

	return h->n ? h->c[h->n - 1].value : 0;
}

void sm_txn(struct store_model *m, uint64_t lsn, uint64_t event, bool spans)
{
	/* Behind a long one any may begin in a frame and end in the next. */
	m->wide |= spans;
	GROW(m->txns, m->n_txns, m->txns_cap);
	m->txns[m->n_txns++] = (struct txn_end){ lsn, event, m->wide };
}

void sm_ack_txns(struct store_model *m, uint64_t lsn, uint64_t event)
{
	GROW(m->acks, m->n_acks, m->acks_cap);
	m->acks[m->n_acks++] = (struct ack){ event, lsn };
	if (!m->n_txns || m->txns[m->n_txns - 1].lsn <= lsn)
		m->wide = false;
}

void sm_ack(struct store_model *m, uint64_t lsn, uint64_t event)
{
	sm_ack_txns(m, lsn, event);
	for (size_t i = 0; i < m->n_blobs; i++)
		for (unsigned k = 0; k < SM_BLOCKS; k++) {
			struct block_history *h = &m->blobs[i]->blocks[k];

			for (size_t j = h->n; j-- && h->c[j].durable == UINT64_MAX;)
				h->c[j].durable = event;
		}
}

/*
 * Changes above lsn never happened, but what was written over a block's own place did: that of a block zeroed above lsn too, whose
 * publication then becomes a write in place of the old version. If the zeroing is kept, they are still old bytes for a cut before it.
 */
static void forget_block(struct block_history *h, uint64_t lsn)
{
	bool dead = false, zeroed = false;
	size_t out = 0;

	for (size_t i = 0; i < h->n; i++) {
		struct block_change c = h->c[i];
		struct block_history kept = { h->c, out, 0 };
		const struct block_change *last = place_change(&kept, out);

		dead |= c.lsn > lsn && (c.shared || c.anew); /* the block has another place from there on */
		if (c.lsn > lsn && (c.what == B_ZERO || c.what == B_ALLOC || c.what == B_CARRY)) {
			zeroed |= c.what != B_CARRY;
			continue;
		}
		if (c.lsn > lsn && !dead &&
		    (c.what == B_HOME || (c.what == B_PUBLISH && zeroed && last &&
					  (last->what == B_PUBLISH || last->what == B_IN_PLACE || last->what == B_HOME)))) {
			c.what = B_IN_PLACE;
			c.lsn = 0;
		}
		/* What went in place over such a publication went to the same old bytes. */
		if (!dead && last && is_zeroed(last) && (c.what == B_IN_PLACE || (c.lsn > lsn && c.what == B_PUBLISH))) {
			c.what = B_UNDER_ZERO;
			c.lsn = 0;
		}
		dead |= c.lsn > lsn;
		if (!dead)
			h->c[out++] = c;
	}
	h->n = out;
}

static void forget_blob(struct model_blob *b, uint64_t lsn)
{
	if (b->died != UINT64_MAX && b->died > lsn)
		b->died = UINT64_MAX;
	while (b->n_headers && b->headers[b->n_headers - 1].lsn > lsn)
		b->n_headers--;
	for (unsigned k = 0; k < SM_ITEMS; k++)
		while (b->items[k].n && b->items[k].c[b->items[k].n - 1].lsn > lsn)
			b->items[k].n--;
	for (unsigned k = 0; k < SM_BLOCKS; k++)
		forget_block(&b->blocks[k], lsn);
}

/* What came back may end within a long one: the records of it that were left out count. Until there are others, so do later recoveries. */
static void forget_txns(struct store_model *m, uint64_t lsn)
{
	struct txn_end t = { 0 };

	while (m->n_txns && m->txns[m->n_txns - 1].lsn > lsn)
		t = m->txns[--m->n_txns];
	if (t.spans && !m->own_txns && (!m->n_txns || m->txns[m->n_txns - 1].lsn < lsn))
		m->txns[m->n_txns++] = (struct txn_end){ lsn, t.issued, true };
}

void sm_forget_after(struct store_model *m, uint64_t lsn)
{
	for (size_t i = 0; i < m->n_blobs; i++)
		forget_blob(m->blobs[i], lsn);
	while (m->n_blobs && m->blobs[m->n_blobs - 1]->born > lsn) {
		struct store_model one = { .blobs = &m->blobs[m->n_blobs - 1], .n_blobs = 1 };

		m->n_blobs--;
		one.blobs = malloc(sizeof(*one.blobs));
		if (!one.blobs)
			broken(NULL, "out of memory");
		one.blobs[0] = m->blobs[m->n_blobs];
		sm_free(&one);
	}
	forget_txns(m, lsn);
}

void sm_free(struct store_model *m)
{
	for (size_t i = 0; i < m->n_blobs; i++) {
		struct model_blob *b = m->blobs[i];

		for (unsigned k = 0; k < SM_ITEMS; k++)
			free(b->items[k].c);
		for (unsigned k = 0; k < SM_BLOCKS; k++)
			free(b->blocks[k].c);
		free(b->headers);
		free(b);
	}
	free(m->blobs);
	free(m->txns);
	free(m->acks);
	memset(m, 0, sizeof(*m));
}

/* ---- verifying ---- */

/* R1: the store came back to the end of a transaction, not before what was acknowledged, not after what was issued. */
static bool verify_lsn(const struct store_model *m, struct run *run, uint64_t lsn, uint64_t event)
{
	uint64_t acked = 0;
	size_t i = 0;
	/* Within a transaction that spans frames recovery counts the records it left out. */
	bool known;

	for (size_t k = 0; k < m->n_acks; k++)
		if (m->acks[k].event <= event)
			acked = MAX(acked, m->acks[k].lsn);
	if (lsn < acked)
		return finding(run, "recovered to LSN %" PRIu64 ", but %" PRIu64 " had been acknowledged", lsn, acked);
	while (i < m->n_txns && m->txns[i].lsn < lsn)
		i++;
	known = i < m->n_txns && (m->txns[i].lsn == lsn || m->txns[i].spans);
	if (known && m->txns[i].issued <= event)
		return true;
	/* The store makes transactions of its own, each after one of ours that had been issued. */
	if (m->own_txns && i && m->txns[i - 1].issued <= event && !(known && m->txns[i].lsn == lsn))
		return true;
	return known ? finding(run, "LSN %" PRIu64 " was recovered before it was issued", lsn) :
		       finding(run, "LSN %" PRIu64 " is not the end of a transaction", lsn);
}

/*
 * Which versions a sector may hold at this cut: the base (last publication within the LSN) and what went over the same blocks
 * in place after it and was on its way; none older than the newest that is durable for certain.
 */
static bool is_version(const struct block_change *c, const struct tag *t)
{
	return c->counter == t->counter && c->blob == t->blob && c->block == t->block;
}

static bool sector_allowed(const struct block_history *h, size_t base, uint64_t event, const struct tag *t)
{
	bool allowed = is_version(&h->c[base], t);

	for (size_t i = base + 1; i < h->n; i++) {
		const struct block_change *c = &h->c[i];

		if (c->what == B_UNMAP || c->shared || c->anew || (c->what == B_PUBLISH && !is_zeroed(place_change(h, i))))
			break;
		if (c->what == B_ZERO || c->what == B_ALLOC || c->what == B_CARRY)
			continue;
		if (c->submitted > event)
			break;
		if (c->durable <= event)
			allowed = false;
		allowed |= is_version(c, t);
	}
	return allowed;
}

/* The carried bytes that count for a sector at this LSN; NULL: none do. */
static const struct block_change *carried(const struct block_history *h, unsigned sector, uint64_t lsn)
{
	const struct block_change *is = NULL;

	for (size_t i = 0; i < h->n; i++) {
		const struct block_change *c = &h->c[i];

		if (!c->lsn || c->lsn > lsn || c->what == B_ALLOC)
			continue;
		if (c->what != B_CARRY)
			is = NULL;
		else if (sector >= c->from && sector < c->to)
			is = c;
	}
	return is;
}

/* base: what the block's place holds; h->n: nothing. */
static bool sector_right(const struct block_history *h, size_t base, unsigned sector, uint64_t lsn, uint64_t event, const struct tag *t)
{
	static const uint8_t zeroes[SECTOR];
	bool zero = !memcmp(t, zeroes, SECTOR);
	const struct block_change *c = carried(h, sector, lsn);

	if (c)
		return is_version(c, t);
	return base < h->n ? sector_allowed(h, base, event, t) : zero;
}

static bool verify_sectors(struct run *run, const struct model_blob *b, uint64_t block, size_t base, uint64_t lsn, uint64_t event,
			   const uint8_t *data)
{
	const struct block_history *h = &b->blocks[block];

	for (unsigned s = 0; s < BS_BLOCK / SECTOR; s++) {
		const struct tag *t = (const struct tag *)(data + s * SECTOR);

		if (base == h->n && sector_right(h, base, s, lsn, event, t))
			continue;
		for (unsigned i = 1; i < SECTOR / sizeof(*t); i++)
			if (memcmp(&t[i], t, sizeof(*t)) != 0)
				return finding(run, "blob %" PRIu64 " block %" PRIu64 " sector %u is torn within", b->id, block, s);
		const struct block_change *own = base < h->n ? &h->c[base] : NULL;

		if (((t->blob != b->id || t->block != block) && (!own || t->blob != own->blob || t->block != own->block)) ||
		    t->check != tag_check(t, s))
			return finding(run, "blob %" PRIu64 " block %" PRIu64 " sector %u holds foreign bytes (blob %" PRIu64
				       " block %" PRIu64 " version %" PRIu64 ")", b->id, block, s, t->blob, t->block, t->counter);
		if (!sector_right(h, base, s, lsn, event, t))
			return finding(run, "blob %" PRIu64 " block %" PRIu64 " sector %u holds version %" PRIu64
				       ", which it must not (published: %" PRIu64 "; carried: %" PRIu64 ")", b->id, block, s, t->counter,
				       base < h->n ? h->c[base].counter : 0, carried(h, s, lsn) ? carried(h, s, lsn)->counter : 0);
	}
	return true;
}

static bool verify_block(struct run *run, struct bs *bs, struct bs_blob *blob, const struct model_blob *b, uint64_t block,
			 uint64_t lsn, uint64_t event)
{
	static uint8_t data[BS_BLOCK] __attribute__((aligned(4096)));
	const struct block_history *h = &b->blocks[block];
	struct iovec iov = { data, sizeof(data) };
	struct bs_io io = { .blob = blob, .op = BS_READ, .offset = block * BS_BLOCK, .length = BS_BLOCK, .iov = &iov,
			    .iovcnt = 1 };
	struct bs_extent ext;
	size_t base = h->n;
	int rc;

	while (base && !(h->c[base - 1].what != B_CARRY && h->c[base - 1].lsn && h->c[base - 1].lsn <= lsn))
		base--;
	bs_map_lookup(blob, block, 1, &ext);
	if (!base-- || h->c[base].what == B_UNMAP || is_zeroed(&h->c[base])) {
		if (!(ext.flags & (BS_RUN_HOLE | BS_RUN_UNWRITTEN)))
			return finding(run, "blob %" PRIu64 " block %" PRIu64 " is mapped, and must read as zeroes", b->id, block);
		base = h->n;
	} else if (ext.flags & (BS_RUN_HOLE | BS_RUN_UNWRITTEN))
		return finding(run, "blob %" PRIu64 " block %" PRIu64 " is not mapped: version %" PRIu64 " is lost", b->id,
			       block, h->c[base].counter);
	rc = bs_io_sync(bs, &io);
	if (rc)
		return finding(run, "blob %" PRIu64 " block %" PRIu64 " cannot be read: %s", b->id, block, strerror(-rc));
	return verify_sectors(run, b, block, base, lsn, event, data);
}

static bool verify_item(struct run *run, struct bs_blob *blob, const struct model_blob *b, unsigned key, uint64_t lsn)
{
	const struct item_history *h = &b->items[key];
	static uint8_t want[SM_VALUE_MAX], is[SM_VALUE_MAX];
	uint64_t value = 0;
	int len;

	for (size_t i = 0; i < h->n && h->c[i].lsn <= lsn; i++)
		value = h->c[i].value;
	len = bs_item_get(blob, SM_KIND, key, is, sizeof(is));
	if (!value)
		return len == -ENOENT || finding(run, "blob %" PRIu64 " item %u is there, and must not", b->id, key);
	if (len < 0)
		return finding(run, "blob %" PRIu64 " item %u is lost", b->id, key);
	if ((uint32_t)len != sm_item_bytes(value, want) || memcmp(is, want, (size_t)len) != 0)
		return finding(run, "blob %" PRIu64 " item %u has another value", b->id, key);
	return true;
}

static bool verify_header(struct run *run, struct bs_blob *blob, const struct model_blob *b, uint64_t lsn)
{
	const struct header_change *h = &b->headers[0];
	struct bs_blob_info info;

	for (size_t i = 0; i < b->n_headers && b->headers[i].lsn <= lsn; i++)
		h = &b->headers[i];
	bs_blob_get_info(blob, &info);
	if (info.size != h->size || info.user_len != sizeof(h->user) || memcmp(info.user, &h->user, sizeof(h->user)) != 0)
		return finding(run, "blob %" PRIu64 " has another header (size %" PRIu64 ", not %" PRIu64 ")", b->id, info.size,
			       h->size);
	return true;
}

static bool verify_blob(struct run *run, struct bs *bs, const struct model_blob *b, uint64_t lsn, uint64_t event)
{
	struct bs_blob *blob = bs_blob_get(bs, b->id);
	bool alive = b->born <= lsn && b->died > lsn, ok = true;

	if (!blob || !alive) {
		bs_blob_put(blob);
		return !blob == !alive || finding(run, "blob %" PRIu64 " %s", b->id, alive ? "is lost" : "must not be there");
	}
	ok = verify_header(run, blob, b, lsn);
	for (unsigned k = 0; ok && k < SM_ITEMS; k++)
		ok = verify_item(run, blob, b, k, lsn);
	for (unsigned k = 0; ok && k < SM_BLOCKS; k++)
		ok = verify_block(run, bs, blob, b, k, lsn, event);
	bs_blob_put(blob);
	return ok;
}

bool sm_verify(const struct store_model *m, struct run *run, struct bs *bs, uint64_t lsn, uint64_t event)
{
	struct bs_stat st;
	uint64_t alive = 0;

	if (!verify_lsn(m, run, lsn, event))
		return false;
	for (size_t i = 0; i < m->n_blobs; i++) {
		if (!verify_blob(run, bs, m->blobs[i], lsn, event))
			return false;
		alive += m->blobs[i]->born <= lsn && m->blobs[i]->died > lsn;
	}
	bs_get_stat(bs, &st);
	return st.blobs == alive || finding(run, "%" PRIu64 " blobs, and must be %" PRIu64, st.blobs, alive);
}
