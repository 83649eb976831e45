/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages of sums of which nothing is in use any more are given back: all blocks they are of are free. Under bs->lock that stays so until
 * the transaction's end, for space is taken under it; and what is free is asked for by nobody, so the young sums go, too.
 */
#include <stdlib.h>

#include "blob/device.h"
#include "blob/sum.h"

#define AT_ONCE 1024u /* pages that one sweep looks at */
#define MOST 64u      /* and gives back */
#define LIMIT (1ull << BS_RUN_BITS)

static bool is_unused(struct bs *bs, uint64_t page)
{
	return bs_space_is_free(bs, page * BS_SUM_PAGE, BS_SUM_PAGE);
}

static int add_records(struct bs_txn *txn, struct bs *bs, uint64_t page)
{
	le64 count = le64_make(BS_SUM_PAGE);
	struct bs_rec rec = { .op = BS_REC_DEL, .kind = BS_KIND_SUM, .blob = BS_SUM_ID, .key = page * BS_SUM_PAGE,
			      .len = sizeof(count), .value = &count };
	int rc = bs_txn_unmap(txn, bs->sums->blob, page, 1);

	return rc ? rc : bs_txn_add(txn, &rec, 0);
}

/* False: something is in use, or it has to wait. */
bool bs_sum_page_give_back(struct bs *bs, uint64_t page)
{
	struct bs_txn *txn;
	int rc;

	if (!is_unused(bs, page) || bs_txn_try(bs, BS_TXN_FREES, &txn))
		return false;
	rc = is_unused(bs, page) ? add_records(txn, bs, page) : -1;
	if (rc)
		bs_txn_cancel(txn);
	else
		bs_txn_end(txn);
	return !rc;
}

void bs_sums_sweep(struct bs *bs)
{
	struct bs_sums *s = bs->sums;
	uint64_t page, left = AT_ONCE;
	unsigned given = 0;
	struct bs_extent e;

	if (!s || (bs->flags & BS_RDONLY))
		return;
	page = atomic_load(&s->swept);
	if (page >= LIMIT)
		page = 0;
	for (; page < LIMIT && left && given < MOST; page++, left--) {
		bs_map_lookup(s->blob, page, LIMIT - page, &e);
		if (e.flags & BS_RUN_HOLE)
			page += e.count - 1;
		else
			given += bs_sum_page_give_back(bs, page);
	}
	atomic_store(&s->swept, page);
}
