/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writes with sums. The sum has to be that of the bytes on the device, and the caller's memory may change while it is written (pages of
 * a cache do): so what is written is a copy, made before.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "blob/mutation.h"
#include "blob/sum.h"

static void gather(void *to, const struct bs_io *io)
{
	uint8_t *p = to;

	for (int i = 0; i < io->iovcnt; i++) {
		memcpy(p, io->iov[i].iov_base, io->iov[i].iov_len);
		p += io->iov[i].iov_len;
	}
}

int bs_sum_take(struct io_req *r)
{
	struct bs_io *io = r->io;
	struct io_sums *s;

	if (!r->bs->sums || io->blob == r->bs->sums->blob || r->sums)
		return 0;
	s = base_malloc(sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->copy = dma_alloc(io->length, BS_BLOCK);
	if (!s->copy) {
		free(s);
		return -ENOMEM;
	}
	gather(s->copy, io);
	for (uint64_t b = 0; b < io->length / BS_BLOCK; b++)
		s->sum[b] = base_crc32c(0, (uint8_t *)s->copy + b * BS_BLOCK, BS_BLOCK);
	s->iov = io->iov;
	s->iovcnt = io->iovcnt;
	s->mem_handle = io->mem_handle;
	s->one = (struct iovec){ s->copy, io->length };
	io->iov = &s->one;
	io->iovcnt = 1;
	io->mem_handle = 0;
	r->sums = s;
	return 0;
}

void bs_sum_put_back(struct io_req *r)
{
	struct io_sums *s = r->sums;

	if (!s)
		return;
	r->io->iov = s->iov;
	r->io->iovcnt = s->iovcnt;
	r->io->mem_handle = s->mem_handle;
	dma_free(s->copy);
	free(s);
	r->sums = NULL;
}

int bs_sum_publish(struct io_req *r, struct bs_txn *txn, const struct bs_run *run)
{
	le32 sum[BS_IO_MAX / BS_BLOCK];
	const uint32_t *from = r->sums->sum + (run->logical - r->intent.block);
	struct bs_rec rec = { .op = BS_REC_PUT,
			      .kind = BS_KIND_SUM,
			      .blob = BS_SUM_ID,
			      .key = bs_run_phys(run),
			      .len = (uint32_t)run->count * (uint32_t)sizeof(sum[0]),
			      .value = sum };

	for (uint32_t i = 0; i < run->count; i++)
		sum[i] = le32_make(from[i]);
	if (BS_MUTATE(sum_rewritten) && bs_sum_is_young(r->bs, rec.key))
		return 0;
	return bs_txn_add(txn, &rec, 0);
}

/*
 * An unwritten block is written where it is. Of two writes at once the sum of one would be published, and the bytes of the
 * other could be there.
 */
bool bs_sum_contended(const struct io_req *r, uint64_t block, uint64_t count)
{
	const struct bs_intent *it;

	LIST_FOREACH(it, &r->io->blob->intents, link)
		if (it != &r->intent && it->block < block + count && block < it->block + it->count)
			return true;
	return false;
}
