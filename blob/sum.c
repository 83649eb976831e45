/* SPDX-License-Identifier: BSD-2-Clause */
/* Data checksums in memory: those that are young, and pages read lately. See sum.h. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "blob/device.h"
#include "blob/sum.h"

#define CACHE_PAGES 4096u  /* 16 MiB, of 16 GiB of data */
#define HIGH_MAX 1024u
#define HIGH_MIN 1u

static int node_cmp(const struct bs_sum_node *a, const struct bs_sum_node *b)
{
	return a->page < b->page ? -1 : a->page > b->page;
}

static int cached_cmp(const struct bs_sum_cached *a, const struct bs_sum_cached *b)
{
	return a->page < b->page ? -1 : a->page > b->page;
}

BS_RB_GENERATE(bs_sum_tree, bs_sum_node, node, node_cmp)
BS_RB_GENERATE(bs_sum_cache, bs_sum_cached, node, cached_cmp)

/* ---- making ---- */

static uint64_t high_of(const struct bs *bs)
{
	uint64_t pages = bs->blocks / BS_SUM_PAGE + 1;

	return MIN((uint64_t)HIGH_MAX, MAX((uint64_t)HIGH_MIN, pages / 8));
}

int bs_sums_create(struct bs *bs)
{
	struct bs_sums *s = base_calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->blob = bs_blob_new(bs, BS_SUM_ID);
	if (!s->blob) {
		free(s);
		return -ENOMEM;
	}
	s->bs = bs;
	atomic_store(&s->told, UINT64_MAX);
	pthread_mutex_init(&s->lock, NULL);
	RB_INIT(&s->young);
	RB_INIT(&s->cache);
	TAILQ_INIT(&s->order);
	TAILQ_INIT(&s->waiters);
	TAILQ_INIT(&s->fifo);
	s->high = high_of(bs);
	bs->meta_bytes += bs_rec_size((uint32_t)sizeof(struct bs_header_disk));
	bs_index_insert(bs, s->blob);
	bs->n_blobs--; /* it is nobody's */
	bs->sums = s;
	return 0;
}

void bs_sums_fit(struct bs *bs)
{
	struct bs_sums *s = bs->sums;

	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->high = high_of(bs);
	pthread_mutex_unlock(&s->lock);
}

static void node_drop(struct bs_sums *s, struct bs_sum_node *n)
{
	RB_REMOVE(bs_sum_tree, &s->young, n);
	TAILQ_REMOVE(&s->order, n, link);
	s->n_young--;
	s->n_stuck -= n->stuck;
	free(n);
}

static void cached_drop(struct bs_sums *s, struct bs_sum_cached *c)
{
	RB_REMOVE(bs_sum_cache, &s->cache, c);
	TAILQ_REMOVE(&s->fifo, c, link);
	s->n_cached--;
	free(c);
}

void bs_sums_destroy(struct bs *bs)
{
	struct bs_sums *s = bs->sums;

	if (!s)
		return;
	while (!TAILQ_EMPTY(&s->order))
		node_drop(s, TAILQ_FIRST(&s->order));
	while (!TAILQ_EMPTY(&s->fifo))
		cached_drop(s, TAILQ_FIRST(&s->fifo));
	pthread_mutex_destroy(&s->lock);
	free(s);
	bs->sums = NULL;
}

struct bs_sum_node *bs_sum_young(const struct bs_sums *s, uint64_t page)
{
	struct bs_sum_node key = { .page = page };

	return RB_FIND(bs_sum_tree, (struct bs_sum_tree *)&s->young, &key);
}

static bool has(const struct bs_sum_node *n, uint32_t i)
{
	return n->has[i / 64] >> i % 64 & 1;
}

/* ---- records ---- */

static bool runs_have_sums(const struct bs_rec *rec)
{
	const struct bs_run_disk *d = rec->value;
	bool any = false;

	for (uint32_t n = rec->len / (uint32_t)sizeof(*d); n; n--, d++)
		any |= d->flags & BS_RUN_SUM;
	return any;
}

static bool runs_are_pages(const struct bs *bs, const struct bs_rec *rec)
{
	const struct bs_run_disk *d = rec->value;

	for (uint32_t n = rec->len / (uint32_t)sizeof(*d); n; n--, d++) {
		struct bs_run run;

		bs_run_from_disk(d, &run);
		if (run.flags || bs_run_end(&run) > div_round_up(bs->blocks, BS_SUM_PAGE))
			return false;
	}
	return true;
}

static bool is_empty_header(const struct bs_rec *rec)
{
	const struct bs_header_disk *h = rec->value;

	return rec->len == sizeof(*h) && !le64_get(h->size) && !le32_get(h->flags);
}

bool bs_sum_record_ok(const struct bs *bs, const struct bs_rec *rec)
{
	bool put_runs = rec->op == BS_REC_PUT && rec->kind == BS_KIND_RUN;

	if (!bs->sums)
		return rec->kind != BS_KIND_SUM && !(put_runs && runs_have_sums(rec));
	if (rec->blob != BS_SUM_ID)
		return rec->kind != BS_KIND_SUM;
	if (rec->op == BS_REC_DEL_BLOB)
		return false;
	if (rec->kind == BS_KIND_HEADER)
		return is_empty_header(rec);
	return rec->kind == BS_KIND_SUM || (rec->kind == BS_KIND_RUN && (!put_runs || runs_are_pages(bs, rec)));
}

int bs_sum_prep(struct bs *bs, const struct bs_rec *rec, struct bs_prep *prep)
{
	uint64_t first = rec->key / BS_SUM_PAGE, last;

	if (!bs->sums || rec->op != BS_REC_PUT)
		return 0;
	last = (rec->key + rec->len / sizeof(le32) - 1) / BS_SUM_PAGE;
	for (uint64_t p = first; p <= last && p < first + ARRAY_SIZE(prep->sums); p++) {
		if (bs_sum_young(bs->sums, p))
			continue;
		prep->sums[p - first] = base_calloc(1, sizeof(struct bs_sum_node));
		if (!prep->sums[p - first])
			return -ENOMEM;
	}
	return 0;
}

static uint32_t count_bytes(const struct bs_sum_node *n)
{
	uint32_t sums = 0, rows = 0;
	uint64_t before = 0;

	for (unsigned i = 0; i < BS_SUM_WORDS; i++) {
		sums += (uint32_t)__builtin_popcountll(n->has[i]);
		rows += (uint32_t)__builtin_popcountll(n->has[i] & ~(n->has[i] << 1 | before >> 63));
		before = n->has[i];
	}
	return sums * (uint32_t)sizeof(le32) + rows * (uint32_t)(sizeof(struct bs_rec_disk) + 4);
}

/* Something in it is new: it goes to the end of the order, or away. */
static void node_changed(struct bs *bs, struct bs_sum_node *n)
{
	struct bs_sums *s = bs->sums;

	bs->meta_bytes -= n->bytes;
	n->bytes = count_bytes(n);
	bs->meta_bytes += n->bytes;
	n->changes = ++s->n_changes;
	TAILQ_REMOVE(&s->order, n, link);
	TAILQ_INSERT_TAIL(&s->order, n, link);
	if (!n->bytes)
		node_drop(s, n);
}

static void put_some(struct bs *bs, uint64_t page, uint32_t at, const le32 *sum, uint32_t count, struct bs_sum_node **spare)
{
	struct bs_sums *s = bs->sums;
	struct bs_sum_node *n = bs_sum_young(s, page);

	if (!n) {
		n = *spare;
		*spare = NULL;
		n->page = page;
		RB_INSERT(bs_sum_tree, &s->young, n);
		TAILQ_INSERT_TAIL(&s->order, n, link);
		s->n_young++;
	}
	for (uint32_t i = 0; i < count; i++) {
		n->sum[at + i] = le32_get(sum[i]);
		n->has[(at + i) / 64] |= 1ull << (at + i) % 64;
	}
	node_changed(bs, n);
}

static void del_some(struct bs *bs, struct bs_sum_node *n, uint64_t from, uint64_t to)
{
	for (uint64_t b = from; b < to; b++)
		n->has[b / 64] &= ~(1ull << b % 64);
	node_changed(bs, n);
}

/* Their page is published: what was read of an older one is not to be asked any more. */
static void del_range(struct bs *bs, uint64_t key, uint64_t count)
{
	struct bs_sums *s = bs->sums;
	struct bs_sum_node at = { .page = key / BS_SUM_PAGE }, *n, *next;
	struct bs_sum_cached old = { .page = at.page }, *c;
	uint64_t end = key + count;

	for (uint64_t p = at.page, last = (end - 1) / BS_SUM_PAGE, i = 0; p <= last && i < BS_SUM_CLASSES; p++, i++)
		s->replaced[p % BS_SUM_CLASSES]++;
	c = RB_NFIND(bs_sum_cache, &s->cache, &old);
	while (c && c->page * BS_SUM_PAGE < end) {
		struct bs_sum_cached *after = RB_NEXT(bs_sum_cache, &s->cache, c);

		cached_drop(s, c);
		c = after;
	}
	for (n = RB_NFIND(bs_sum_tree, &s->young, &at); n && n->page * BS_SUM_PAGE < end; n = next) {
		uint64_t base = n->page * BS_SUM_PAGE;

		next = RB_NEXT(bs_sum_tree, &s->young, n);
		del_some(bs, n, MAX(key, base) - base, MIN(end, base + BS_SUM_PAGE) - base);
	}
}

void bs_sum_apply(struct bs *bs, const struct bs_rec *rec, struct bs_prep *prep)
{
	const le32 *sum = rec->value;
	uint64_t key = rec->key, end = key + rec->len / sizeof(*sum);

	pthread_mutex_lock(&bs->sums->lock);
	if (rec->op == BS_REC_DEL) {
		del_range(bs, key, le64_get(*(const le64 *)rec->value));
	} else {
		for (unsigned i = 0; key < end; i++) {
			uint32_t at = (uint32_t)(key % BS_SUM_PAGE), n = (uint32_t)MIN(end - key, (uint64_t)(BS_SUM_PAGE - at));

			put_some(bs, key / BS_SUM_PAGE, at, sum, n, &prep->sums[i]);
			sum += n;
			key += n;
		}
	}
	pthread_mutex_unlock(&bs->sums->lock);
}

/* ---- looking ---- */

uint32_t bs_sum_capture(const struct bs *bs, uint64_t key, uint64_t *first, le32 *sum, uint32_t max)
{
	struct bs_sum_node at = { .page = key / BS_SUM_PAGE }, *n;
	uint32_t i, count = 0;

	n = RB_NFIND(bs_sum_tree, &bs->sums->young, &at);
	for (; n; n = RB_NEXT(bs_sum_tree, &bs->sums->young, n)) {
		i = n->page == at.page ? (uint32_t)(key % BS_SUM_PAGE) : 0;
		while (i < BS_SUM_PAGE && !has(n, i))
			i++;
		*first = n->page * BS_SUM_PAGE + i;
		for (; i < BS_SUM_PAGE && count < max && has(n, i); i++)
			sum[count++] = le32_make(n->sum[i]);
		if (count)
			break;
	}
	return count;
}

static bool find_young(const struct bs_sums *s, uint64_t block, uint32_t *sum)
{
	const struct bs_sum_node *n = bs_sum_young(s, block / BS_SUM_PAGE);
	uint32_t i = (uint32_t)(block % BS_SUM_PAGE);

	if (!n || !has(n, i))
		return false;
	*sum = n->sum[i];
	return true;
}

bool bs_sum_is_young(struct bs *bs, uint64_t block)
{
	uint32_t sum;
	bool is;

	pthread_mutex_lock(&bs->sums->lock);
	is = find_young(bs->sums, block, &sum);
	pthread_mutex_unlock(&bs->sums->lock);
	return is;
}

bool bs_sum_find(struct bs *bs, uint64_t block, uint32_t *sum)
{
	struct bs_sums *s = bs->sums;
	struct bs_sum_cached key = { .page = block / BS_SUM_PAGE }, *c;
	bool found;

	pthread_mutex_lock(&s->lock);
	found = find_young(s, block, sum);
	c = found ? NULL : RB_FIND(bs_sum_cache, &s->cache, &key);
	if (c) {
		*sum = c->sum[block % BS_SUM_PAGE];
		c->used = found = true;
	}
	pthread_mutex_unlock(&s->lock);
	return found;
}

/* ---- pages ---- */

uint32_t bs_sum_page_crc(const struct bs_sum_page_disk *d)
{
	uint64_t page = le64_get(d->first) / BS_SUM_PAGE;

	return bs_crc_skip(bs_crc_page_seed(d->uuid, page), d, sizeof(*d), offsetof(struct bs_sum_page_disk, crc));
}

int bs_sum_page_check(const struct bs *bs, const void *buf, uint64_t page)
{
	const struct bs_sum_page_disk *d = buf;

	if (le32_get(d->magic) != BS_MAGIC_SUM || memcmp(d->uuid, bs->sb.uuid, sizeof(d->uuid)) ||
	    le64_get(d->first) != page * BS_SUM_PAGE)
		return -EUCLEAN;
	return le32_get(d->crc) == bs_sum_page_crc(d) ? 0 : -EUCLEAN;
}

uint64_t bs_sum_replaced(struct bs *bs, uint64_t page)
{
	uint64_t n;

	pthread_mutex_lock(&bs->sums->lock);
	n = bs->sums->replaced[page % BS_SUM_CLASSES];
	pthread_mutex_unlock(&bs->sums->lock);
	return n;
}

/* What nobody asked for since it was last passed over goes. */
static void make_room(struct bs_sums *s)
{
	while (s->n_cached >= CACHE_PAGES) {
		struct bs_sum_cached *c = TAILQ_FIRST(&s->fifo);

		if (!c->used) {
			cached_drop(s, c);
			continue;
		}
		c->used = false;
		TAILQ_REMOVE(&s->fifo, c, link);
		TAILQ_INSERT_TAIL(&s->fifo, c, link);
	}
}

int bs_sum_cache_add(struct bs *bs, const struct bs_sum_page_disk *d, uint64_t page, uint64_t replaced)
{
	struct bs_sums *s = bs->sums;
	struct bs_sum_cached *c = base_malloc(sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->page = page;
	c->used = false;
	for (unsigned i = 0; i < BS_SUM_PAGE; i++)
		c->sum[i] = le32_get(d->sum[i]);
	pthread_mutex_lock(&s->lock);
	if (s->replaced[page % BS_SUM_CLASSES] != replaced || RB_INSERT(bs_sum_cache, &s->cache, c)) {
		free(c);
	} else {
		TAILQ_INSERT_TAIL(&s->fifo, c, link);
		s->n_cached++;
		make_room(s);
	}
	pthread_mutex_unlock(&s->lock);
	return 0;
}

void bs_sum_get_stat(struct bs *bs, struct bs_stat *st)
{
	struct bs_sums *s = bs->sums;

	if (!s)
		return;
	st->datasum = true;
	pthread_mutex_lock(&s->lock);
	st->sums_young = s->n_young;
	pthread_mutex_unlock(&s->lock);
	st->sum_pages = bs_runmap_blocks(&s->blob->map);
	st->sum_errors = atomic_load(&s->errors);
	st->sum_checked_bytes = atomic_load(&s->checked) * BS_BLOCK;
	st->sum_paged = atomic_load(&s->paged);
}
