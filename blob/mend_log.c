/* SPDX-License-Identifier: BSD-2-Clause */
/* Mending: finding segments by what they say themselves, and a new beginning of the log. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "blob/mend.h"

bool bs_mend_segment_ok(const uint8_t uuid[16], const void *buf, uint64_t block)
{
	const struct bs_segment_disk *h = buf;

	return le32_get(h->magic) == BS_MAGIC_SEGMENT && !memcmp(h->uuid, uuid, sizeof(h->uuid)) && le64_get(h->address) == block &&
	       le32_get(h->crc) == bs_crc_skip(bs_crc_seed(le64_get(h->nonce), 0, block), h, sizeof(*h),
					       offsetof(struct bs_segment_disk, crc));
}

bool bs_mend_find_segment(struct bdev_channel *ch, const struct bs_sb_disk *sb, uint64_t seq, uint64_t *block, uint64_t *nonce)
{
	uint64_t device_blocks = bdev_info(bdev_channel_bdev(ch))->size / BS_BLOCK; /* the superblock may say anything */
	struct bs_segment_disk *h = dma_alloc(sizeof(*h), BS_BLOCK);
	uint64_t unit = le32_get(sb->segment_blocks), blocks = MIN(le64_get(sb->blocks), device_blocks);
	bool found = false;

	for (uint64_t at = unit; h && !found && at < blocks && blocks - at >= unit; at += unit) {
		if (bdev_io_sync(ch, BDEV_READ, h, at * BS_BLOCK, sizeof(*h), 0))
			continue;
		found = bs_mend_segment_ok(sb->uuid, h, at) && le64_get(h->first_seq) == seq;
		*block = at;
		*nonce = le64_get(h->nonce);
	}
	dma_free(h);
	return found;
}

static struct bs_segment *take_segment(struct bs *bs, int *rc)
{
	struct bs_segment *s;
	uint64_t block;

	*rc = bs_meta_take(bs, BS_META_LOG, &block);
	if (*rc)
		return NULL;
	s = bs_segment_new(bs->log, block);
	if (!s) {
		bs_meta_give(bs, BS_META_LOG, block);
		*rc = -ENOMEM;
	}
	return s;
}

/* A header, durable, and no frame behind it: what stood there has another nonce. */
static int write_header(struct bs *bs, uint64_t block)
{
	struct bs_log *log = bs->log;
	struct bs_segment_disk *h = dma_alloc(sizeof(*h), BS_BLOCK);
	struct bdev_channel *ch;
	int rc;

	if (!h)
		return -ENOMEM;
	bs_segment_fill(h, &bs->sb, &log->pos, log->next->block, log->next_nonce);
	ch = bdev_channel_borrow(bs->dev);
	atomic_fetch_add(&log->write_bytes, BS_BLOCK);
	rc = bdev_io_sync(ch, BDEV_WRITE, h, block * BS_BLOCK, sizeof(*h), 0);
	if (!rc)
		rc = bdev_io_sync(ch, BDEV_FLUSH, NULL, 0, 0, 0);
	bdev_channel_return(ch);
	dma_free(h);
	return rc;
}

int bs_mend_log_restart(struct bs *bs, struct base_err *err)
{
	struct bs_log *log = bs->log;
	struct bs_segment *s;
	int rc;

	s = take_segment(bs, &rc);
	if (s) {
		TAILQ_INSERT_TAIL(&log->segments, s, link);
		log->n_segments++;
		log->next = take_segment(bs, &rc);
	}
	if (rc)
		return base_err_set(err, rc, "%s: no space for a new log: %s", bdev_info(bs->dev)->name, strerror(-rc));
	base_random(&log->pos.nonce, sizeof(log->pos.nonce));
	base_random(&log->next_nonce, sizeof(log->next_nonce));
	log->pos.segment = s->block;
	log->pos.offset = 1;
	atomic_store(&log->used_blocks, (uint64_t)log->n_segments * log->segment_blocks);
	rc = write_header(bs, s->block);
	return rc ? base_err_set(err, rc, "%s: cannot write: %s", bdev_info(bs->dev)->name, strerror(-rc)) : 0;
}
