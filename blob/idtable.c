/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blob/internal.h"

static struct bs_blob **segment_new(void)
{
	return base_calloc(BS_IDTABLE_SEGMENT, sizeof(struct bs_blob *));
}

int bs_idtable_init(struct bs_idtable *t)
{
	memset(t, 0, sizeof(*t));
	t->segment = base_calloc(1, sizeof(*t->segment));
	if (!t->segment)
		return -ENOMEM;
	t->segments = 1;
	t->segment[0] = segment_new();
	if (!t->segment[0])
		return -ENOMEM;
	t->buckets = BS_IDTABLE_SEGMENT;
	t->mask = BS_IDTABLE_SEGMENT - 1;
	base_random(&t->key, sizeof(t->key));
	t->key |= 1;
	return 0;
}

void bs_idtable_destroy(struct bs_idtable *t)
{
	for (uint64_t i = 0; i < t->segments; i++)
		free(t->segment[i]);
	free(t->segment);
	memset(t, 0, sizeof(*t));
}

/* A place for one more bucket, maybe. */
static bool make_room(struct bs_idtable *t)
{
	uint64_t i = t->buckets / BS_IDTABLE_SEGMENT;

	if (i == t->segments) {
		struct bs_blob ***more = base_calloc(2 * t->segments, sizeof(*more));

		if (!more)
			return false;
		memcpy(more, t->segment, t->segments * sizeof(*more));
		free(t->segment);
		t->segment = more;
		t->segments *= 2;
	}
	if (!t->segment[i])
		t->segment[i] = segment_new();
	return t->segment[i] != NULL;
}

/* One more bucket: it gets its part of the one that stood for it. */
static void split(struct bs_idtable *t)
{
	uint64_t fresh = t->buckets++, old = fresh & t->mask;
	struct bs_blob **from = &t->segment[old / BS_IDTABLE_SEGMENT][old % BS_IDTABLE_SEGMENT];
	struct bs_blob **to = &t->segment[fresh / BS_IDTABLE_SEGMENT][fresh % BS_IDTABLE_SEGMENT];

	while (*from) {
		struct bs_blob *b = *from;

		if (bs_idtable_bucket(t, b->id) != to) {
			from = &b->same_bucket;
			continue;
		}
		*from = b->same_bucket;
		b->same_bucket = *to;
		*to = b;
	}
	if (t->buckets == 2 * (t->mask + 1))
		t->mask = t->buckets - 1;
}

void bs_idtable_insert(struct bs_idtable *t, struct bs_blob *blob, uint64_t n)
{
	struct bs_blob **bucket;

	if (n >= t->buckets && make_room(t))
		split(t);
	bucket = bs_idtable_bucket(t, blob->id);
	blob->same_bucket = *bucket;
	*bucket = blob;
}

void bs_idtable_remove(struct bs_idtable *t, struct bs_blob *blob)
{
	struct bs_blob **b = bs_idtable_bucket(t, blob->id);

	while (*b != blob)
		b = &(*b)->same_bucket;
	*b = blob->same_bucket;
}
