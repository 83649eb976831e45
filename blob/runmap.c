/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The runs of one blob: sorted chunks of up to BS_CHUNK_RUNS runs in a red-black tree. A chunk is
 * as large as it needs to be, and grows in steps. A single run, which is what most blobs have, needs
 * none: the map holds it itself, where it otherwise counts blocks.
 *
 * Invariants: runs ascend and do not overlap, across chunks too; no chunk in the tree is empty; two
 * neighbours that could be one run are one run if the change that made them neighbours was a put.
 * Between changes a single run is never in a chunk; amid one it may be, so there it is the tree being empty that
 * tells (the_one). A run of a map is found with its chunk and index; for one that the map holds the chunk is NULL.
 *
 * Changing a map cannot fail: where malloc does, a chunk comes from the pool the caller has filled.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blob/internal.h"

static const uint16_t caps[] = { 2, 5, 13, 29, 61, 125, BS_CHUNK_RUNS };

static int chunk_cmp(const struct bs_chunk *a, const struct bs_chunk *b)
{
	return a->run[0].logical < b->run[0].logical ? -1 : a->run[0].logical > b->run[0].logical;
}

BS_RB_GENERATE(bs_chunk_tree, bs_chunk, node, chunk_cmp)

/* ---- chunks and the pool ---- */

static struct bs_chunk *chunk_alloc(uint16_t cap)
{
	struct bs_chunk *c = base_malloc(sizeof(*c) + cap * sizeof(c->run[0]));

	if (c) {
		c->n = 0;
		c->cap = cap;
	}
	return c;
}

int bs_spare_fill(struct bs_spare *spare, uint32_t n)
{
	while (spare->n < n) {
		struct bs_chunk *c = chunk_alloc(BS_CHUNK_RUNS);

		if (!c)
			return -ENOMEM;
		bs_spare_give(spare, c);
	}
	return 0;
}

struct bs_chunk *bs_spare_take(struct bs_spare *spare)
{
	struct bs_chunk *c = spare->list;

	assert(c);
	spare->list = c->next;
	spare->n--;
	c->n = 0;
	return c;
}

void bs_spare_give(struct bs_spare *spare, struct bs_chunk *chunk)
{
	if (chunk->cap != BS_CHUNK_RUNS) {
		free(chunk);
		return;
	}
	chunk->next = spare->list;
	spare->list = chunk;
	spare->n++;
}

void bs_spare_trim(struct bs_spare *spare, uint32_t n)
{
	while (spare->n > n)
		free(bs_spare_take(spare));
}

/* An empty chunk for at least n runs. */
static struct bs_chunk *chunk_new(unsigned n, struct bs_spare *spare)
{
	struct bs_chunk *c;
	unsigned i = 0;

	while (caps[i] < n)
		i++;
	c = chunk_alloc(caps[i]);
	return c ? c : bs_spare_take(spare);
}

/* ---- looking ---- */

void bs_runmap_init(struct bs_runmap *map)
{
	memset(map, 0, sizeof(*map));
	RB_INIT(&map->chunks);
}

void bs_runmap_free(struct bs_runmap *map)
{
	struct bs_chunk *c, *next;

	for (c = RB_MIN(bs_chunk_tree, &map->chunks); c; c = next) {
		next = RB_NEXT(bs_chunk_tree, &map->chunks, c);
		RB_REMOVE(bs_chunk_tree, &map->chunks, c);
		free(c);
	}
	bs_runmap_init(map);
}

struct bs_chunk *bs_chunks_pop(struct bs_chunk_tree *chunks)
{
	struct bs_chunk *c = RB_ROOT(chunks);

	if (c)
		RB_REMOVE(bs_chunk_tree, chunks, c);
	return c;
}

/* The run that the map holds itself, else NULL. */
static struct bs_run *the_one(const struct bs_runmap *map)
{
	return map->runs == 1 && RB_EMPTY(&map->chunks) ? (struct bs_run *)&map->one : NULL;
}

/* The last chunk that starts at or before block, else NULL. */
static struct bs_chunk *chunk_at(const struct bs_runmap *map, uint64_t block)
{
	struct bs_chunk *c = RB_ROOT(&map->chunks), *best = NULL;

	while (c) {
		if (c->run[0].logical <= block) {
			best = c;
			c = RB_RIGHT(c, node);
		} else {
			c = RB_LEFT(c, node);
		}
	}
	return best;
}

/* Index of the first run that ends after block; n if there is none. */
static unsigned run_after(const struct bs_chunk *c, uint64_t block)
{
	unsigned lo = 0, hi = c->n;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (bs_run_end(&c->run[mid]) > block)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

/* The first run that ends after block, with its chunk and index; NULL if there is none. */
static struct bs_run *map_after(const struct bs_runmap *map, uint64_t block,
				struct bs_chunk **chunk, unsigned *index)
{
	struct bs_run *one = the_one(map);
	struct bs_chunk *c = chunk_at(map, block);
	unsigned i = 0;

	*chunk = NULL;
	*index = 0;
	if (one)
		return bs_run_end(one) > block ? one : NULL;
	if (!c)
		c = RB_MIN(bs_chunk_tree, (struct bs_chunk_tree *)&map->chunks);
	else if ((i = run_after(c, block)) == c->n) {
		c = RB_NEXT(bs_chunk_tree, &map->chunks, c);
		i = 0;
	}
	*chunk = c;
	*index = i;
	return c ? &c->run[i] : NULL;
}

void bs_runmap_lookup(const struct bs_runmap *map, uint64_t block, uint64_t max,
		      struct bs_extent *out)
{
	struct bs_chunk *c;
	unsigned i;
	const struct bs_run *r = map_after(map, block, &c, &i);

	out->block = block;
	if (r && r->logical <= block) {
		out->phys = bs_run_phys(r) + (block - r->logical);
		out->count = MIN(max, bs_run_end(r) - block);
		out->flags = r->flags;
		return;
	}
	out->phys = 0;
	out->count = r ? MIN(max, r->logical - block) : max;
	out->flags = BS_RUN_HOLE;
}

unsigned bs_runmap_copy(const struct bs_runmap *map, uint64_t block, struct bs_run *out, unsigned n)
{
	struct bs_chunk *c;
	unsigned i, done = 0;
	const struct bs_run *r = map_after(map, block, &c, &i);

	if (r && !c && n)
		out[done++] = *r;
	while (c && done < n) {
		unsigned take = MIN(c->n - i, n - done);

		memcpy(&out[done], &c->run[i], take * sizeof(*out));
		done += take;
		i = 0;
		c = RB_NEXT(bs_chunk_tree, &map->chunks, c);
	}
	return done;
}

uint64_t bs_runmap_end(const struct bs_runmap *map)
{
	struct bs_chunk *c = RB_MAX(bs_chunk_tree, (struct bs_chunk_tree *)&map->chunks);

	if (map->runs == 1)
		return bs_run_end(&map->one);
	return c ? bs_run_end(&c->run[c->n - 1]) : 0;
}

/* ---- changing ---- */

/* Blocks come into the map, or leave it. Of what it holds itself no count is kept. */
static void account_in(struct bs_runmap *map, const struct bs_run *r, uint64_t count)
{
	if (the_one(map))
		return;
	map->counts.blocks += count;
	if (r->flags & BS_RUN_UNWRITTEN)
		map->counts.unwritten += count;
	if (r->flags & BS_RUN_SHARED)
		map->counts.shared += count;
}

static void account_out(struct bs_runmap *map, const struct bs_run *r, uint64_t count)
{
	if (the_one(map))
		return;
	map->counts.blocks -= count;
	if (r->flags & BS_RUN_UNWRITTEN)
		map->counts.unwritten -= count;
	if (r->flags & BS_RUN_SHARED)
		map->counts.shared -= count;
}

/* A run in a chunk of its own. */
static void run_apart(struct bs_runmap *map, const struct bs_run *r, struct bs_spare *spare)
{
	struct bs_chunk *c = chunk_new(2, spare);

	c->run[0] = *r;
	c->n = 1;
	RB_INSERT(bs_chunk_tree, &map->chunks, c);
}

/* What the map holds itself goes into a chunk, which has room for one more. */
static struct bs_chunk *one_out(struct bs_runmap *map, struct bs_spare *spare)
{
	struct bs_run run = map->one;

	memset(&map->counts, 0, sizeof(map->counts));
	run_apart(map, &run, spare);
	account_in(map, &run, run.count);
	return RB_ROOT(&map->chunks);
}

/* The other way round, at the end of a change. */
static void one_in(struct bs_runmap *map)
{
	struct bs_chunk *c = RB_ROOT(&map->chunks);

	if (map->runs != 1 || !c)
		return;
	map->one = c->run[0];
	RB_INIT(&map->chunks);
	free(c);
}

static void sink_part(struct bs_runmap *map, const struct bs_run *r, uint64_t from, uint64_t count,
		      struct bs_sink *sink)
{
	account_out(map, r, count);
	if (sink)
		sink->extent(sink, bs_run_phys(r) + (from - r->logical), count, r->flags);
}

static void cut_head(struct bs_run *r, uint64_t n)
{
	bs_run_set(r, r->logical + n, bs_run_phys(r) + n, r->count - n, r->flags);
}

/* Room for one more run in c, which it may replace or split; *i is where the run is to go, and may
 * move to another chunk. What a chunk of the pool went into has room for two: a put that splits a run comes twice. */
static struct bs_chunk *chunk_room(struct bs_runmap *map, struct bs_chunk *c, unsigned *i,
				   struct bs_spare *spare)
{
	struct bs_chunk *d;
	unsigned keep = c->n / 2u;

	if (c->n < c->cap)
		return c;
	if (c->n < BS_CHUNK_RUNS) {
		d = chunk_new(c->n + 1u, spare);
		d->n = c->n;
		memcpy(d->run, c->run, c->n * sizeof(c->run[0]));
		RB_REMOVE(bs_chunk_tree, &map->chunks, c);
		RB_INSERT(bs_chunk_tree, &map->chunks, d);
		free(c);
		return d;
	}
	d = chunk_new(c->n - keep + 1u, spare);
	d->n = (uint16_t)(c->n - keep);
	memcpy(d->run, &c->run[keep], d->n * sizeof(c->run[0]));
	c->n = (uint16_t)keep;
	RB_INSERT(bs_chunk_tree, &map->chunks, d);
	if (*i < keep)
		return c;
	*i -= keep;
	/* Both chunks have room now, save for a small d that malloc gave: it was asked for one
	 * more. */
	return d;
}

static void run_insert(struct bs_runmap *map, struct bs_chunk *c, unsigned i,
		       const struct bs_run *r, struct bs_spare *spare)
{
	c = chunk_room(map, c, &i, spare);
	memmove(&c->run[i + 1], &c->run[i], (c->n - i) * sizeof(c->run[0]));
	c->run[i] = *r;
	c->n++;
	map->runs++;
}

static void run_remove(struct bs_runmap *map, struct bs_chunk *c, unsigned i, unsigned n)
{
	if (n == c->n) {
		RB_REMOVE(bs_chunk_tree, &map->chunks, c);
		free(c);
	} else {
		memmove(&c->run[i], &c->run[i + n], (c->n - i - n) * sizeof(c->run[0]));
		c->n = (uint16_t)(c->n - n);
	}
	map->runs -= n;
}

/* Takes a small chunk's runs into the one before it, so that punching holes does not leave a tree
 * of crumbs. */
static void tidy(struct bs_runmap *map, uint64_t block)
{
	struct bs_chunk *c = chunk_at(map, block), *d;

	if (!c)
		return;
	d = RB_NEXT(bs_chunk_tree, &map->chunks, c);
	if (!d || c->n + d->n > c->cap || c->n + d->n > BS_CHUNK_RUNS * 3 / 4)
		return;
	RB_REMOVE(bs_chunk_tree, &map->chunks, d);
	memcpy(&c->run[c->n], d->run, d->n * sizeof(d->run[0]));
	c->n = (uint16_t)(c->n + d->n);
	free(d);
}

/* A whole chunk lies in the range: it goes as it is. */
static void sink_chunk(struct bs_runmap *map, struct bs_chunk *c, struct bs_sink *sink)
{
	RB_REMOVE(bs_chunk_tree, &map->chunks, c);
	map->runs -= c->n;
	for (unsigned i = 0; i < c->n; i++)
		account_out(map, &c->run[i], c->run[i].count);
	if (sink)
		sink->chunk(sink, c);
	else
		free(c);
}

/* The part [block, end) of one chunk, i being its first run that ends after block. */
static void del_in_chunk(struct bs_runmap *map, struct bs_chunk *c, unsigned i, uint64_t block,
			 uint64_t end, struct bs_sink *sink)
{
	struct bs_run *r = &c->run[i];
	unsigned j;

	if (r->logical < block) {
		sink_part(map, r, block, bs_run_end(r) - block, sink);
		r->count = block - r->logical;
		i++;
	}
	for (j = i; j < c->n && bs_run_end(&c->run[j]) <= end; j++)
		;
	if (j < c->n && c->run[j].logical < end) {
		r = &c->run[j];
		sink_part(map, r, r->logical, end - r->logical, sink);
		cut_head(r, end - r->logical);
	}
	if (i == 0 && j == c->n) {
		sink_chunk(map, c, sink);
		return;
	}
	for (unsigned k = i; k < j; k++)
		sink_part(map, &c->run[k], c->run[k].logical, c->run[k].count, sink);
	if (j > i)
		run_remove(map, c, i, j - i);
}

/* Not in its middle. */
static void del_in_one(struct bs_runmap *map, uint64_t block, uint64_t end, struct bs_sink *sink)
{
	struct bs_run *r = &map->one;
	uint64_t from = MAX(block, (uint64_t)r->logical), n = MIN(end, bs_run_end(r)) - from;

	sink_part(map, r, from, n, sink);
	if (n == r->count)
		bs_runmap_init(map);
	else if (from == r->logical)
		cut_head(r, n);
	else
		r->count -= n;
}

static void del_range(struct bs_runmap *map, uint64_t block, uint64_t count, struct bs_spare *spare,
		      struct bs_sink *sink)
{
	uint64_t end = count > UINT64_MAX - block ? UINT64_MAX : block + count;
	struct bs_chunk *c, *next;
	struct bs_run right, *r;
	unsigned i;

	r = map_after(map, block, &c, &i);
	if (!r || r->logical >= end || block == end)
		return;
	if (r->logical < block && bs_run_end(r) > end) {
		if (!c) {
			c = one_out(map, spare);
			r = c->run;
		}
		right = *r;
		cut_head(&right, end - r->logical);
		sink_part(map, r, block, end - block, sink);
		r->count = block - r->logical;
		run_insert(map, c, i + 1, &right, spare);
		return;
	}
	if (!c) {
		del_in_one(map, block, end, sink);
		return;
	}
	for (; c && c->run[i].logical < end; c = next, i = 0) {
		next = RB_NEXT(bs_chunk_tree, &map->chunks, c);
		del_in_chunk(map, c, i, block, end, sink);
	}
	tidy(map, block);
}

void bs_runmap_del(struct bs_runmap *map, uint64_t block, uint64_t count, struct bs_spare *spare,
		   struct bs_sink *sink)
{
	del_range(map, block, count, spare, sink);
	one_in(map);
}

static bool continues(const struct bs_run *a, const struct bs_run *b)
{
	return bs_run_end(a) == b->logical && bs_run_phys(a) + a->count == bs_run_phys(b) &&
	       a->flags == b->flags;
}

/* Puts a run into a map that has none, or holds the one it has; false: that one does not go on with it. */
static bool put_in_one(struct bs_runmap *map, const struct bs_run *run)
{
	struct bs_run *one = &map->one;

	if (!map->runs) {
		*one = *run;
		map->runs = 1;
	} else if (continues(one, run)) {
		one->count += run->count;
	} else if (continues(run, one)) {
		bs_run_set(one, run->logical, bs_run_phys(run), run->count + one->count, run->flags);
	} else {
		return false;
	}
	return true;
}

/* Puts a run where nothing is mapped, and chunks are. */
static void put_in_hole(struct bs_runmap *map, const struct bs_run *run, struct bs_spare *spare)
{
	struct bs_chunk *c = chunk_at(map, run->logical), *nc;
	struct bs_run *prev = NULL, *next;
	unsigned i = 0, ni;

	if (c) {
		i = run_after(c, run->logical); /* all runs before it end at or before ours */
		prev = &c->run[i - 1];
	}
	next = map_after(map, run->logical, &nc, &ni);
	if (next && !continues(run, next))
		next = NULL;
	if (prev && continues(prev, run)) {
		prev->count += run->count;
		if (next) {
			prev->count += next->count;
			run_remove(map, nc, ni, 1);
		}
	} else if (next) {
		bs_run_set(next, run->logical, bs_run_phys(run), run->count + next->count,
			   run->flags);
	} else if (c && i == BS_CHUNK_RUNS && !RB_NEXT(bs_chunk_tree, &map->chunks, c)) {
		/* At the very end a map grows by appending: leave full chunks behind. */
		run_apart(map, run, spare);
		map->runs++;
	} else if (c) {
		run_insert(map, c, i, run, spare);
	} else {
		run_insert(map, RB_MIN(bs_chunk_tree, &map->chunks), 0, run, spare);
	}
}

/* What a put unmaps is not gone where the new run has the same physical blocks (an unwritten run
 * that is written now, or the other way round). */
struct put_sink {
	struct bs_sink sink, *to;
	uint64_t lo, hi; /* physical blocks of the new run */
};

static void put_extent(struct bs_sink *sink, uint64_t phys, uint64_t count, unsigned flags)
{
	struct put_sink *p = container_of(sink, struct put_sink, sink);
	uint64_t end = phys + count;

	if (phys < MIN(end, p->lo))
		p->to->extent(p->to, phys, MIN(end, p->lo) - phys, flags);
	if (MAX(phys, p->hi) < end)
		p->to->extent(p->to, MAX(phys, p->hi), end - MAX(phys, p->hi), flags);
}

/* The same within a chunk; what is left is still sorted, and at most one run falls into two. */
static void put_chunk(struct bs_sink *sink, struct bs_chunk *c)
{
	struct put_sink *p = container_of(sink, struct put_sink, sink);
	unsigned n = 0;

	for (unsigned i = 0; i < c->n; i++) {
		uint64_t phys = bs_run_phys(&c->run[i]), end = phys + c->run[i].count;

		if (end <= p->lo || phys >= p->hi)
			c->run[n++] = c->run[i];
		else
			put_extent(sink, phys, end - phys, c->run[i].flags);
	}
	c->n = (uint16_t)n;
	if (n)
		p->to->chunk(p->to, c);
	else
		free(c);
}

void bs_runmap_put(struct bs_runmap *map, const struct bs_run *run, struct bs_spare *spare,
		   struct bs_sink *sink)
{
	struct put_sink p = { .sink = { put_extent, put_chunk },
			      .to = sink,
			      .lo = bs_run_phys(run) };

	p.hi = p.lo + run->count;
	del_range(map, run->logical, run->count, spare, sink ? &p.sink : NULL);
	if (RB_EMPTY(&map->chunks)) {
		if (put_in_one(map, run))
			return;
		one_out(map, spare);
	}
	put_in_hole(map, run, spare);
	account_in(map, run, run->count);
	one_in(map);
}

/* ---- sharing ---- */

static bool to_be_shared(const struct bs_run *r)
{
	return !(r->flags & (BS_RUN_UNWRITTEN | BS_RUN_SHARED));
}

/* If the run at `at` reaches out of [block, end), the part of it that is inside gets shared. */
static void share_part(struct bs_runmap *map, uint64_t at, uint64_t block, uint64_t end,
		       struct bs_spare *spare)
{
	struct bs_chunk *c;
	unsigned i;
	struct bs_run *r = map_after(map, at, &c, &i), part;
	uint64_t first, to;

	if (!r || r->logical >= end || !to_be_shared(r))
		return;
	first = MAX((uint64_t)r->logical, block);
	to = MIN(bs_run_end(r), end);
	if (first == r->logical && to == bs_run_end(r))
		return;
	bs_run_set(&part, first, bs_run_phys(r) + (first - r->logical), to - first,
		   r->flags | BS_RUN_SHARED);
	bs_runmap_put(map, &part, spare, NULL);
}

/* Takes the run at i into the one before it if that goes on with it. */
static bool join_previous(struct bs_runmap *map, struct bs_chunk *c, unsigned i)
{
	struct bs_chunk *pc = i ? c : RB_PREV(bs_chunk_tree, &map->chunks, c);
	struct bs_run *prev = i ? &c->run[i - 1] : pc ? &pc->run[pc->n - 1] : NULL;

	if (!prev || !continues(prev, &c->run[i]))
		return false;
	prev->count += c->run[i].count;
	run_remove(map, c, i, 1);
	return true;
}

void bs_runmap_share(struct bs_runmap *map, uint64_t block, uint64_t count, struct bs_spare *spare)
{
	uint64_t end = count > UINT64_MAX - block ? UINT64_MAX : block + count, at;
	struct bs_chunk *c;
	struct bs_run *r;
	unsigned i;

	/* The two runs that may reach out of the range, then all within it. */
	share_part(map, block, block, end, spare);
	share_part(map, end - 1, block, end, spare);
	for (at = block; (r = map_after(map, at, &c, &i)) && r->logical < end; at = bs_run_end(r)) {
		if (!to_be_shared(r) || r->logical < block || bs_run_end(r) > end)
			continue;
		r->flags = (r->flags | BS_RUN_SHARED) & 0xff;
		if (c)
			map->counts.shared += r->count;
	}
	for (at = block; (r = map_after(map, at, &c, &i)) && r->logical <= end;) {
		uint64_t next = bs_run_end(r);

		if (c)
			join_previous(map, c, i);
		at = next;
	}
	one_in(map);
}

bool bs_runmap_all_shared(const struct bs_runmap *map, uint64_t block, uint64_t count)
{
	uint64_t end = count > UINT64_MAX - block ? UINT64_MAX : block + count;
	struct bs_chunk *c;
	unsigned i;
	const struct bs_run *r = map_after(map, block, &c, &i);

	for (; r && r->logical < end; r = map_after(map, bs_run_end(r), &c, &i))
		if (to_be_shared(r))
			return false;
	return true;
}
