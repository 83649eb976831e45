/* SPDX-License-Identifier: BSD-2-Clause */
/* Bytes carried in the log, as transactions see them: putting them there, and what ends it. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "blob/internal.h"
#include "blob/mutation.h"

static int add_del_carried(struct bs_txn *txn, struct bs_blob *blob, uint64_t block, uint64_t count)
{
	le64 value = le64_make(count);
	struct bs_rec rec = { .op = BS_REC_DEL,
			      .kind = BS_KIND_LOGDATA,
			      .len = sizeof(value),
			      .blob = blob->id,
			      .key = block,
			      .value = &value };

	return bs_txn_add(txn, &rec, 0);
}

int bs_txn_del_carried(struct bs_txn *txn, struct bs_blob *blob, uint64_t block, uint64_t count)
{
	if (!blob->bs->txn_carries && !bs_carried_any(blob, block, count))
		return 0;
	return add_del_carried(txn, blob, block, count);
}

int bs_txn_brought_home(struct bs_txn *txn, struct bs_blob *blob, uint64_t block, uint64_t count, uint64_t lsn)
{
	const struct bs_carried *c = bs_carried_from(blob, block);
	int rc = 0;

	if (BS_MUTATE(carried_home))
		return 0;
	while (!rc && c && c->block - block < count) {
		uint64_t first = c->block, next = first;

		for (; c && c->block == next && next - block < count && c->lsn <= lsn; next++)
			c = bs_carried_from(blob, next + 1);
		if (next > first)
			rc = add_del_carried(txn, blob, first, next - first);
		else
			c = bs_carried_from(blob, first + 1);
	}
	return rc;
}

int bs_txn_carry(struct bs_txn *txn, struct bs_blob *blob, uint64_t offset, const void *data, uint32_t len)
{
	struct {
		struct bs_carried_disk head;
		uint8_t data[BS_BLOCK];
	} value;
	struct bs_rec rec = { .op = BS_REC_PUT,
			      .kind = BS_KIND_LOGDATA,
			      .len = (uint32_t)sizeof(value.head) + len,
			      .blob = blob->id,
			      .key = offset / BS_BLOCK,
			      .value = &value };
	uint32_t from = (uint32_t)(offset % BS_BLOCK), to = from + len, old = 0, grows;
	const struct bs_carried *c = bs_carried_from(blob, rec.key);
	struct bs *bs = blob->bs;
	int rc = bs_txn_check_data(txn, blob);

	if (rc)
		return rc;
	if (!(le64_get(bs->sb.incompat) & BS_INCOMPAT_CARRIED))
		return -EOPNOTSUPP;
	if (!len || len > BS_BLOCK || to > BS_BLOCK || rec.key >= 1ull << BS_RUN_BITS || bs_txn_carries(txn, blob, rec.key))
		return -EINVAL;
	if (c && c->block == rec.key) {
		if (from > c->to || to < c->from)
			return -EINVAL;
		old = bs_rec_size((uint32_t)sizeof(value.head) + c->to - c->from);
		to = MAX(to, c->to);
		from = MIN(from, c->from);
	} else if (atomic_load(&bs->n_carried) + bs->txn_carries >= bs_carry_limit(bs)) {
		return -ENOSPC;
	}
	grows = bs_rec_size((uint32_t)sizeof(value.head) + to - from) - old;
	if (grows && !bs_carry_has_space(bs))
		return -ENOSPC;
	if (blob->sharers || bs_intents_cover(blob, rec.key))
		return -EBUSY;
	value.head = (struct bs_carried_disk){ .from = le32_make((uint32_t)(offset % BS_BLOCK)) };
	memcpy(value.data, data, len);
	rc = bs_txn_add(txn, &rec, grows);
	bs->txn_carries += !rc;
	return rc;
}
