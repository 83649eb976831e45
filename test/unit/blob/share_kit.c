/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdlib.h>

#include "blob/share.h"
#include "test/unit/blob/share_kit.h"

struct bs_blob *share_clone(struct bs_blob *blob, bool sealed)
{
	struct bs_blob *copy;
	uint64_t id;

	ASSERT_OK(bs_snapshot(blob->bs, &blob, 1, sealed, &id));
	copy = bs_blob_get(blob->bs, id);
	ASSERT_TRUE(copy != NULL);
	return copy;
}

int share_range(struct bs_blob *from, uint64_t block, struct bs_blob *to, uint64_t to_block, uint64_t count)
{
	struct bs_txn *txn;
	int rc = bs_share_quiesce(from->bs, &from, 1);

	if (rc)
		return rc;
	rc = bs_txn_begin(from->bs, 0, &txn);
	if (!rc)
		rc = kit_end(txn, bs_txn_share(txn, from, block, to, to_block, count));
	bs_share_end(from, true);
	return rc;
}

struct counts {
	struct bs *bs;
	uint32_t *refs;
	bool *bare; /* a run without the flag has it */
};

static int count_runs(struct bs_blob *blob, void *arg)
{
	struct counts *c = arg;
	struct bs_run run;
	uint64_t from = 0;

	while (bs_runmap_copy(&blob->map, from, &run, 1)) {
		for (uint64_t i = 0; i < run.count; i++) {
			c->refs[bs_run_phys(&run) + i]++;
			c->bare[bs_run_phys(&run) + i] |= !(run.flags & BS_RUN_SHARED);
		}
		from = run.logical + run.count;
	}
	return 0;
}

/* The service thread may be discarding. */
static bool owned(struct bs_space *s, uint64_t block)
{
	bool is;

	pthread_mutex_lock(&s->lock);
	is = s->bits[block / 64] >> (block % 64) & 1;
	pthread_mutex_unlock(&s->lock);
	return is;
}

void share_check(struct bs *bs)
{
	struct counts c = { .bs = bs,
			    .refs = calloc(bs->blocks, sizeof(*c.refs)),
			    .bare = calloc(bs->blocks, sizeof(*c.bare)) };
	uint64_t extra = 0;

	ASSERT_OK(bs_reclaim(bs));
	ASSERT_OK(bs_foreach_blob(bs, 0, count_runs, &c));
	pthread_mutex_lock(&bs->lock);
	for (uint64_t b = 0; b < bs->blocks; b++) {
		uint64_t len;
		uint32_t refs = bs_share_refs(bs, b, 1, &len);

		if (c.refs[b] > 1) {
			ASSERT_FALSE(c.bare[b]);
			extra += c.refs[b] - 1;
		}
		ASSERT_EQ_INT(MAX(c.refs[b], 1u), refs);
		if (c.refs[b])
			ASSERT_TRUE(owned(bs->space, b));
	}
	ASSERT_EQ_INT(extra, bs->shares->extra);
	pthread_mutex_unlock(&bs->lock);
	free(c.refs);
	free(c.bare);
}
