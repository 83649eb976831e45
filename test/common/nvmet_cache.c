/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A volatile write cache, and the power cut that loses it. The medium holds what the host sees. Of each page that
 * was changed since the last flush the durable content is kept, and each change. A cut puts the durable content back, then applies the changes
 * that have reached the medium, in order: of each write all, nothing, or some of its logical blocks (one of which is never
 * torn, as AWUPF 0 promises), as the seed has it.
 */
#include <bsd/sys/tree.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "test/common/nvmet.h"

#define PAGE 4096u
#define UNIT 512u
#define UNITS (PAGE / UNIT)
#define MOST (128 * MiB) /* then the cache writes itself back */

struct page {
	RB_ENTRY(page) node;
	uint64_t at;
	uint64_t durable_since[UNITS]; /* changes up to this one lie under the durable content */
	char data[PAGE];
};

struct change {
	uint64_t at, len;
	char data[];
};

struct nvmet_cache {
	RB_HEAD(pages, page) pages;
	struct change **changes;
	uint64_t nchanges, room, bytes;
};

static int by_place(struct page *a, struct page *b)
{
	return a->at < b->at ? -1 : a->at > b->at;
}

RB_GENERATE_INTERNAL(pages, page, node, by_place, static __attribute__((unused)))

int nvmet_cache_create(struct nvmet *t)
{
	t->cache = calloc(1, sizeof(*t->cache));
	return t->cache ? 0 : -1;
}

void nvmet_cache_flush(struct nvmet *t)
{
	struct nvmet_cache *c = t->cache;
	struct page *p, *next;

	if (!c)
		return;
	RB_FOREACH_SAFE(p, pages, &c->pages, next)
	{
		RB_REMOVE(pages, &c->pages, p);
		free(p);
	}
	for (uint64_t i = 0; i < c->nchanges; i++)
		free(c->changes[i]);
	c->nchanges = c->bytes = 0;
}

void nvmet_cache_destroy(struct nvmet *t)
{
	nvmet_cache_flush(t);
	if (t->cache)
		free(t->cache->changes);
	free(t->cache);
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "nvmet: cache: %s\n", what);
	abort();
}

static struct page *page_at(struct nvmet_cache *c, uint64_t at)
{
	struct page key = { .at = at };

	return RB_FIND(pages, &c->pages, &key);
}

void nvmet_cache_before(struct nvmet *t, uint64_t at, uint64_t len)
{
	struct nvmet_cache *c = t->cache;

	if (!c || t->store < 0)
		return;
	for (uint64_t p = round_down(at, PAGE); p < at + len; p += PAGE) {
		struct page *page = page_at(c, p);

		if (page)
			continue;
		page = calloc(1, sizeof(*page));
		must(page, "out of memory");
		page->at = p;
		must(pread(t->store, page->data, PAGE, (off_t)p) >= 0, "the medium cannot be read");
		RB_INSERT(pages, &c->pages, page);
	}
}

static void make_durable(struct nvmet_cache *c, const struct change *w)
{
	for (uint64_t u = w->at; u < w->at + w->len; u += UNIT) {
		struct page *page = page_at(c, round_down(u, PAGE));

		memcpy(page->data + u % PAGE, w->data + (u - w->at), UNIT);
		page->durable_since[u % PAGE / UNIT] = c->nchanges;
	}
}

void nvmet_cache_after(struct nvmet *t, uint64_t at, uint64_t len, bool fua)
{
	struct nvmet_cache *c = t->cache;
	struct change *w;

	if (!c || t->store < 0)
		return;
	w = malloc(sizeof(*w) + len);
	must(w != NULL, "out of memory");
	w->at = at;
	w->len = len;
	must(pread(t->store, w->data, len, (off_t)at) == (ssize_t)len, "the medium cannot be read");
	if (fua) {
		make_durable(c, w);
		free(w);
		return;
	}
	if (c->nchanges == c->room) {
		c->room = c->room ? 2 * c->room : 64;
		c->changes = realloc(c->changes, c->room * sizeof(struct change *));
		must(c->changes, "out of memory");
	}
	c->changes[c->nchanges++] = w;
	c->bytes += len;
	if (c->bytes > MOST)
		nvmet_cache_flush(t);
}

/* ---- the cut ---- */

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/* Of a third of the writes everything, of a third nothing, of the others half of the blocks. Seed 0: nothing at all. */
static bool survives(uint64_t seed, uint64_t change, uint64_t block)
{
	uint64_t fate = !seed ? 1 : mix(seed ^ mix(change)) % 3;

	return fate == 0 || (fate == 2 && mix(seed ^ mix(change) ^ mix(block)) & 1);
}

static void apply(const struct nvmet *t, uint64_t seed, uint64_t i, uint64_t *lost)
{
	const struct change *w = t->cache->changes[i];

	for (uint64_t u = w->at; u < w->at + w->len; u += UNIT) {
		struct page *page = page_at(t->cache, round_down(u, PAGE));

		/* Overwritten durably since, or lost. */
		if (i < page->durable_since[u % PAGE / UNIT])
			continue;
		if (survives(seed, i, u / t->block))
			memcpy(page->data + u % PAGE, w->data + (u - w->at), UNIT);
		else
			++*lost;
	}
}

uint64_t nvmet_cache_unflushed(const struct nvmet *t)
{
	return t->cache ? t->cache->nchanges : 0;
}

void nvmet_power_cut(struct nvmet *t, uint64_t seed)
{
	struct nvmet_cache *c = t->cache;
	uint64_t lost = 0, changes = c ? c->nchanges : 0;
	struct page *p;

	for (uint64_t i = 0; i < changes; i++)
		apply(t, seed, i, &lost);
	if (c)
		RB_FOREACH(p, pages, &c->pages)
	must(pwrite(t->store, p->data, PAGE, (off_t)p->at) == PAGE, "the medium cannot be written");
	nvmet_cache_flush(t);
	printf("power cut: %llu unflushed writes, %llu units of them lost\n",
	       (unsigned long long)changes, (unsigned long long)lost);
	fflush(stdout);
	nvmet_reset(t);
	atomic_store(&t->f.hang_up, true);
}
