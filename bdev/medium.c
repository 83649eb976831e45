/* SPDX-License-Identifier: BSD-2-Clause */
#include "bdev/medium.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define PAGE 4096u
#define LEAF_PAGES 64u
#define LEAF_BYTES ((uint64_t)LEAF_PAGES * PAGE)

struct page {
	atomic_uint refs;
	char data[PAGE];
};

struct leaf {
	atomic_uint refs;
	struct page *page[LEAF_PAGES]; /* NULL: zeroes */
};

struct medium {
	pthread_mutex_t lock;
	uint64_t size, n;
	struct leaf *leaf[]; /* NULL: zeroes */
};

int medium_create(uint64_t size, struct medium **out)
{
	uint64_t n = div_round_up(size, LEAF_BYTES);
	struct medium *m = base_calloc(1, sizeof(*m) + n * sizeof(struct leaf *));

	if (!m)
		return -ENOMEM;
	pthread_mutex_init(&m->lock, NULL);
	m->size = size;
	m->n = n;
	*out = m;
	return 0;
}

int medium_copy(struct medium *from, struct medium **out)
{
	int rc = medium_create(from->size, out);

	if (rc)
		return rc;
	pthread_mutex_lock(&from->lock);
	memcpy((*out)->leaf, from->leaf, from->n * sizeof(struct leaf *));
	for (uint64_t i = 0; i < from->n; i++)
		if (from->leaf[i])
			atomic_fetch_add(&from->leaf[i]->refs, 1);
	pthread_mutex_unlock(&from->lock);
	return 0;
}

static void page_put(struct page *p)
{
	if (p && atomic_fetch_sub(&p->refs, 1) == 1)
		free(p);
}

static void leaf_put(struct leaf *l)
{
	if (!l || atomic_fetch_sub(&l->refs, 1) != 1)
		return;
	for (unsigned i = 0; i < LEAF_PAGES; i++)
		page_put(l->page[i]);
	free(l);
}

void medium_free(struct medium *m)
{
	if (!m)
		return;
	for (uint64_t i = 0; i < m->n; i++)
		leaf_put(m->leaf[i]);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

uint64_t medium_size(const struct medium *m)
{
	return m->size;
}

/* ---- what is ours alone may be written: only we can make it shared, under the lock ---- */

static struct leaf *own_leaf(struct medium *m, uint64_t i)
{
	struct leaf *old = m->leaf[i], *l;

	if (old && atomic_load(&old->refs) == 1)
		return old;
	l = base_calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	atomic_init(&l->refs, 1);
	for (unsigned k = 0; old && k < LEAF_PAGES; k++) {
		l->page[k] = old->page[k];
		if (l->page[k])
			atomic_fetch_add(&l->page[k]->refs, 1);
	}
	leaf_put(old);
	m->leaf[i] = l;
	return l;
}

/* whole: all of it is going to be overwritten. */
static struct page *own_page(struct leaf *l, unsigned k, bool whole)
{
	struct page *old = l->page[k], *p;

	if (old && atomic_load(&old->refs) == 1)
		return old;
	p = base_malloc(sizeof(*p));
	if (!p)
		return NULL;
	atomic_init(&p->refs, 1);
	if (!whole && old)
		memcpy(p->data, old->data, PAGE);
	else if (!whole)
		memset(p->data, 0, PAGE);
	page_put(old);
	l->page[k] = p;
	return p;
}

static void clear_page(struct leaf *l, unsigned k)
{
	page_put(l->page[k]);
	l->page[k] = NULL;
}

static int write_part(struct medium *m, uint64_t offset, const char *buf, uint64_t len)
{
	unsigned k = (unsigned)(offset % LEAF_BYTES / PAGE);
	struct leaf *l = m->leaf[offset / LEAF_BYTES];
	struct page *p;

	if (!buf && (!l || !l->page[k]))
		return 0; /* zeroes stay zeroes */
	l = own_leaf(m, offset / LEAF_BYTES);
	if (!l)
		return -ENOMEM;
	if (!buf && len == PAGE) {
		clear_page(l, k);
		return 0;
	}
	p = own_page(l, k, len == PAGE);
	if (!p)
		return -ENOMEM;
	if (buf)
		memcpy(p->data + offset % PAGE, buf, len);
	else
		memset(p->data + offset % PAGE, 0, len);
	return 0;
}

int medium_write(struct medium *m, uint64_t offset, const void *buf, uint64_t len)
{
	const char *from = buf;
	int rc = 0;

	pthread_mutex_lock(&m->lock);
	while (!rc && len) {
		uint64_t part = MIN(len, PAGE - offset % PAGE);

		rc = write_part(m, offset, from, part);
		from = from ? from + part : NULL;
		offset += part;
		len -= part;
	}
	pthread_mutex_unlock(&m->lock);
	return rc;
}

void medium_read(struct medium *m, uint64_t offset, void *buf, uint64_t len)
{
	char *to = buf;

	pthread_mutex_lock(&m->lock);
	while (len) {
		uint64_t part = MIN(len, PAGE - offset % PAGE);
		const struct leaf *l = m->leaf[offset / LEAF_BYTES];
		const struct page *p = l ? l->page[offset % LEAF_BYTES / PAGE] : NULL;

		if (p)
			memcpy(to, p->data + offset % PAGE, part);
		else
			memset(to, 0, part);
		to += part;
		offset += part;
		len -= part;
	}
	pthread_mutex_unlock(&m->lock);
}
