/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Replay: follows the log from where the superblock says, applies every complete transaction, and finds where the log goes on.
 *
 * At each position either the frame with the expected sequence number is there, or the successor segment says that it
 * begins with it, or this is the end. It is the end only if nothing later is valid in this segment or its successor
 * and the checkpoint's last LSN has been reached: a single write torn by a power cut is all that may be missing (R6).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blob/fetch.h"
#include "blob/mend.h"
#include "blob/mutation.h"

#define LOG_COMPONENT "blob"
#include "base/log.h"

#define TXN_BYTES_MAX (8 * MiB) /* no transaction we write comes near it */

struct replay {
	struct bs *bs;
	struct base_err *err;
	struct bdev_channel *ch;
	uint8_t *buf, *other;        /* this segment, its successor */
	struct bs_log_pos pos;
	uint64_t lsn;                /* of the last record read */
	bool started;                /* a frame was read */
	uint8_t *txn;                /* records of the open transaction */
	uint64_t txn_bytes, txn_cap, txn_lsn;
	uint64_t applied;            /* LSN of the last record applied, or of the one before the first read */
	struct bs_fetch fetch;       /* of the successor, into other */
	bool header_bad;             /* mending: this segment's header says nothing */
};

static int complain(struct replay *r, const char *code, uint64_t block, const char *what)
{
	struct bs_place place = { .pass = "log", .code = code, .block = block };

	return bs_complain(r->bs, r->err, &place, "%s", what);
}

/* Mending goes on with what can be read (bs_mend_read). */
static int read_segment(struct replay *r, uint64_t block, void *buf)
{
	bool fetched = r->fetch.under_way && r->fetch.block == block && buf == r->other;
	int rc = bs_fetch_wait(&r->fetch);

	if (fetched)
		return rc;
	if (bs_mending(r->bs))
		return bs_mend_read(r->ch, buf, block, r->bs->log->segment_blocks);
	return bdev_io_sync(r->ch, BDEV_READ, buf, block * BS_BLOCK, (uint64_t)r->bs->log->segment_blocks * BS_BLOCK, 0);
}

static bool segment_fits(const struct bs *bs, uint64_t block)
{
	uint32_t n = bs->log->segment_blocks;

	return block && block % n == 0 && block < bs->blocks && bs->blocks - block >= n;
}

/* While this segment's frames are applied its successor is read. */
static void fetch_successor(struct replay *r)
{
	uint64_t next = le64_get(((const struct bs_segment_disk *)r->buf)->next_address);

	if (!bs_mending(r->bs) && segment_fits(r->bs, next))
		bs_fetch_start(&r->fetch, r->ch, r->other, next, r->bs->log->segment_blocks);
}

static bool header_valid(const struct replay *r, const uint8_t *buf, uint64_t block, uint64_t nonce)
{
	const struct bs_segment_disk *h = (const struct bs_segment_disk *)buf;

	if (le32_get(h->magic) != BS_MAGIC_SEGMENT || memcmp(h->uuid, r->bs->sb.uuid, sizeof(h->uuid)))
		return false;
	if (le64_get(h->address) != block || le64_get(h->nonce) != nonce)
		return false;
	return le32_get(h->crc) == bs_crc_skip(bs_crc_seed(nonce, 0, block), h, sizeof(*h),
					       offsetof(struct bs_segment_disk, crc));
}

const struct bs_frame_disk *bs_frame_at(const uint8_t uuid[16], const uint8_t *seg, uint64_t block, uint64_t nonce, uint32_t offset,
					uint32_t left)
{
	const struct bs_frame_disk *f = (const struct bs_frame_disk *)(seg + (uint64_t)offset * BS_BLOCK);
	uint32_t blocks;

	if (!left || le32_get(f->magic) != BS_MAGIC_FRAME || memcmp(f->uuid, uuid, sizeof(f->uuid)))
		return NULL;
	blocks = le32_get(f->blocks);
	if (!blocks || blocks > left || blocks > BS_FRAME_MAX / BS_BLOCK ||
	    le32_get(f->bytes) > blocks * BS_BLOCK - sizeof(*f))
		return NULL;
	if (!BS_MUTATE(frame_crc) && le32_get(f->crc) != bs_crc_skip(bs_crc_seed(nonce, le64_get(f->seq), block + offset), f,
					    (size_t)blocks * BS_BLOCK, offsetof(struct bs_frame_disk, crc)))
		return NULL;
	return f;
}

static const struct bs_frame_disk *frame_at(const struct replay *r, const uint8_t *seg, uint64_t block, uint64_t nonce,
					    uint32_t offset)
{
	return bs_frame_at(r->bs->sb.uuid, seg, block, nonce, offset, r->bs->log->segment_blocks - offset);
}

/* ---- applying ---- */

static int apply_txn(struct replay *r)
{
	struct bs *bs = r->bs;
	uint64_t at = 0, lsn = r->txn_lsn;
	int rc = 0;

	if (bs->reporter && bs->reporter->broken)
		r->txn_bytes = 0; /* on half a checkpoint it would only bring problems that are none */
	pthread_mutex_lock(&bs->lock);
	while (at < r->txn_bytes && !rc) {
		struct bs_prep prep;
		struct bs_rec rec;

		at += (uint64_t)bs_rec_decode(r->txn + at, (uint32_t)(r->txn_bytes - at), bs->blocks, &rec);
		memset(&prep, 0, sizeof(prep));
		if (bs_mending(bs) && bs_mend_refuses(bs, &rec, "log", UINT64_MAX)) {
			lsn++;
			continue;
		}
		rc = bs_prep_make(bs, &rec, &prep);
		if (!rc)
			rc = bs_apply(bs, &rec, lsn, &prep);
		bs_prep_drop(&prep);
		if (!rc && bs_mending(bs))
			rc = bs_mend_note(bs, &rec, lsn, false);
		lsn++;
		bs->log->replayed_records++;
	}
	pthread_mutex_unlock(&bs->lock);
	r->txn_bytes = 0;
	return rc;
}

static int keep_record(struct replay *r, const void *buf, uint32_t size)
{
	if (r->txn_bytes + size > r->txn_cap) {
		uint64_t cap = MAX(2 * r->txn_cap, round_up(r->txn_bytes + size, 256 * KiB));
		uint8_t *more = base_realloc(r->txn, cap);

		if (!more)
			return -ENOMEM;
		r->txn = more;
		r->txn_cap = cap;
	}
	if (!r->txn_bytes)
		r->txn_lsn = r->lsn + 1;
	memcpy(r->txn + r->txn_bytes, buf, size);
	r->txn_bytes += size;
	return 0;
}

/* The blobs of the next records. A long log is mostly changes of one blob after another, all over memory. */
static void look_ahead(struct replay *r, const uint8_t *p, uint32_t left)
{
	uint64_t id[BS_INDEX_AHEAD];
	unsigned n = 0;

	while (n < BS_INDEX_AHEAD) {
		int size = bs_rec_skip(p, left);

		if (size < 0)
			break;
		id[n++] = le64_get(((const struct bs_rec_disk *)p)->blob);
		p += size;
		left -= (uint32_t)size;
	}
	bs_index_prefetch(r->bs, id, n);
}

/* A newer program's record is not damage. */
static int complain_record(struct replay *r, const void *p, uint32_t left, uint64_t block)
{
	const struct bs_rec_disk *d = p;
	char text[120];

	if (bs_rec_skip(p, left) < 0 || d->kind < BS_KIND_BESIDE || d->kind >= BS_KIND_USER)
		return complain(r, "log-record", block, "a record of this frame is malformed");
	snprintf(text, sizeof(text), "a record of this frame is of kind %u, which belongs to a feature that this program does not know", d->kind);
	return complain(r, "log-record", block, text);
}

static int apply_records(struct replay *r, const struct bs_frame_disk *f, uint64_t block)
{
	const uint8_t *p = (const uint8_t *)(f + 1);
	uint32_t left = le32_get(f->bytes), n = 0;
	int rc;

	for (; left; n++) {
		struct bs_rec rec;
		int size = bs_rec_decode(p, left, r->bs->blocks, &rec);

		if (n % BS_INDEX_AHEAD == 0)
			look_ahead(r, p, left);
		if (size < 0)
			return complain_record(r, p, left, block);
		if (r->txn_bytes + (uint64_t)size > TXN_BYTES_MAX)
			return complain(r, "log-transaction", block, "a transaction has no end");
		rc = keep_record(r, p, (uint32_t)size);
		if (rc)
			return rc;
		r->lsn++;
		if (rec.flags & BS_REC_END) {
			rc = apply_txn(r);
			if (rc == -EUCLEAN)
				return complain(r, "log-apply", block, "a record of this frame contradicts what is there");
			if (rc)
				return rc;
			r->applied = r->lsn;
		}
		p += size;
		left -= (uint32_t)size;
	}
	if (n != le32_get(f->records))
		return complain(r, "log-frame", block, "the frame does not hold as many records as it says");
	return 0;
}

static int apply_frame(struct replay *r, const struct bs_frame_disk *f)
{
	uint64_t block = r->pos.segment + r->pos.offset, first = le64_get(f->first_lsn);
	uint32_t flags = le32_get(f->flags);
	int rc;

	if (flags & ~(uint32_t)BS_FRAME_CONTINUES)
		return complain(r, "log-frame", block, "unknown flags in a frame");
	if (!r->started) {
		rc = !first || first > le64_get(r->bs->sb.ckpt_l0) + 1 ?
			     complain(r, "log-lsn", block, "the log begins behind the checkpoint") : 0;
		if (rc && !(first && first < BS_MEND_SANE && bs_mending(r->bs)))
			return rc;
		r->lsn = r->applied = first - 1;
	} else if (first != r->lsn + 1) {
		return complain(r, "log-lsn", block, "the frame does not go on where the one before ended");
	}
	/* A transaction cut off by a crash: recovery went on behind it with a new one. What the first frame of all continues was
	 * complete in memory when the checkpoint began. */
	if (!(flags & BS_FRAME_CONTINUES))
		r->txn_bytes = 0;
	else if (r->started && !r->txn_bytes)
		return complain(r, "log-frame", block, "the frame goes on with a transaction that was not begun");
	r->started = true;
	rc = apply_records(r, f, block);
	r->pos.offset += le32_get(f->blocks);
	r->pos.seq++;
	r->bs->log->replayed_bytes += (uint64_t)le32_get(f->blocks) * BS_BLOCK;
	return rc;
}

/* ---- walking ---- */

static int add_segment(struct replay *r, uint64_t block)
{
	struct bs_log *log = r->bs->log;
	struct bs_segment *s;

	TAILQ_FOREACH(s, &log->segments, link)
		if (s->block == block)
			return complain(r, "log-loop", block, "the log comes back to a segment it has left");
	s = bs_segment_new(log, block);
	if (!s)
		return -ENOMEM;
	TAILQ_INSERT_TAIL(&log->segments, s, link);
	log->n_segments++;
	return 0;
}

static bool later_frame(const struct replay *r, const uint8_t *seg, uint64_t block, uint64_t nonce, uint32_t from,
			uint64_t *where)
{
	for (uint32_t off = from; off < r->bs->log->segment_blocks; off++) {
		const struct bs_frame_disk *f = frame_at(r, seg, block, nonce, off);

		if (f && le64_get(f->seq) >= r->pos.seq) {
			*where = block + off;
			return true;
		}
	}
	return false;
}

/* Mending: the successor's header is damaged, but its frames are those expected. */
static bool next_without_header(const struct replay *r, uint64_t next, uint64_t nonce)
{
	const struct bs_frame_disk *f = frame_at(r, r->other, next, nonce, 1);
	struct bs_place place = { .pass = "log", .code = "log-segment", .block = next };

	if (header_valid(r, r->other, next, nonce) || !f || le64_get(f->seq) != r->pos.seq)
		return false;
	bs_complain(r->bs, NULL, &place, "a segment of the log has frames and no valid header");
	return true;
}

/* No frame is at r->pos: 1: the log went on in the successor; 0: this is its end. */
static int next_segment(struct replay *r)
{
	const struct bs_segment_disk *h = (const struct bs_segment_disk *)r->buf, *nh;
	uint64_t next = le64_get(h->next_address), nonce = le64_get(h->next_nonce), where;
	uint8_t *swap = r->buf;
	bool bad;
	int rc;

	if (r->header_bad && !bs_mend_find_segment(r->ch, &r->bs->sb, r->pos.seq, &next, &nonce))
		return complain(r, "log-successor", r->pos.segment, "how the log goes on behind this segment is lost");
	if (!segment_fits(r->bs, next))
		return complain(r, "log-successor", r->pos.segment, "the segment's successor lies outside the store");
	rc = read_segment(r, next, r->other);
	if (rc > 0)
		complain(r, "log-unreadable", next, "blocks of this segment of the log cannot be read");
	if (rc < 0)
		return base_err_set(r->err, rc, "block %" PRIu64 ": cannot read the log: %s", next, strerror(-rc));
	nh = (const struct bs_segment_disk *)r->other;
	bad = bs_mending(r->bs) && next_without_header(r, next, nonce);
	if (!bad && (!header_valid(r, r->other, next, nonce) || le64_get(nh->first_seq) != r->pos.seq)) {
		if (later_frame(r, r->buf, r->pos.segment, r->pos.nonce, r->pos.offset, &where))
			return complain(r, "log-hole", where, "a frame of the log is missing before this one");
		if (header_valid(r, r->other, next, nonce))
			return complain(r, "log-hole", next, "frames of the log are missing before this segment");
		/* Its header was durable before its first frame. */
		if (later_frame(r, r->other, next, nonce, 1, &where))
			return complain(r, "log-segment", next, "a segment of the log has frames and no valid header");
		return 0;
	}
	if (later_frame(r, r->buf, r->pos.segment, r->pos.nonce, r->pos.offset, &where))
		return complain(r, "log-hole", where, "a frame lies behind the end of its segment");
	rc = add_segment(r, next);
	if (rc)
		return rc;
	r->buf = r->other;
	r->other = swap;
	r->pos.segment = next;
	r->pos.nonce = nonce;
	r->pos.offset = 1;
	r->header_bad = bad;
	fetch_successor(r);
	return 1;
}

/* ---- mending: the rest of a log that is damaged ---- */

/* Takes note of what a frame holds that is not applied. */
static int note_frame(struct replay *r, const struct bs_frame_disk *f)
{
	const uint8_t *p = (const uint8_t *)(f + 1);
	uint32_t left = le32_get(f->bytes);
	uint64_t lsn = le64_get(f->first_lsn);
	struct bs_mend *m = r->bs->reporter->mend;
	int rc = 0;

	if (le64_get(f->seq) < BS_MEND_SANE)
		m->last_seq = MAX(m->last_seq, le64_get(f->seq));
	for (; left && !rc; lsn++) {
		struct bs_rec rec;
		int size = bs_rec_decode(p, left, r->bs->blocks, &rec);

		if (size > 0 && lsn > r->applied)
			rc = bs_mend_note(r->bs, &rec, lsn, true);
		if (size < 0)
			size = bs_rec_skip(p, left);
		if (size < 0)
			break;
		p += size;
		left -= (uint32_t)size;
	}
	return rc;
}

/* Every valid frame from here on, in this segment and in those that follow. Nothing of them is applied. */
static int note_rest(struct replay *r)
{
	const struct bs_segment_disk *h = (const struct bs_segment_disk *)r->buf;
	uint64_t segment = r->pos.segment, nonce = r->pos.nonce;
	uint32_t off = MIN(r->pos.offset, r->bs->log->segment_blocks);
	int rc = 0;

	for (uint32_t left = (uint32_t)(r->bs->blocks / r->bs->log->segment_blocks); left && !rc; left--) {
		for (; off < r->bs->log->segment_blocks && !rc; off++) {
			const struct bs_frame_disk *f = frame_at(r, r->buf, segment, nonce, off);

			if (f && le64_get(f->first_lsn) + le32_get(f->records) > r->applied + 1)
				rc = note_frame(r, f);
		}
		if (!header_valid(r, r->buf, segment, nonce) || !segment_fits(r->bs, le64_get(h->next_address)))
			break;
		segment = le64_get(h->next_address);
		nonce = le64_get(h->next_nonce);
		if (rc || read_segment(r, segment, r->buf) < 0 || !header_valid(r, r->buf, segment, nonce))
			break;
		off = 1;
	}
	return rc;
}

static int give_up_rest(struct replay *r)
{
	struct bs_place place = { .pass = "log", .code = "log-lost", .block = UINT64_MAX };
	struct bs_mend *m = r->bs->reporter->mend;
	uint64_t l1 = le64_get(r->bs->sb.ckpt_l1);
	int rc = note_rest(r);

	r->txn_bytes = 0;
	if (!rc && MAX(m->last_lsn, l1) > r->applied)
		bs_complain(r->bs, NULL, &place, "the log is replayed to LSN %" PRIu64 "; records up to %" PRIu64
			    ", at least, are lost", r->applied, MAX(m->last_lsn, l1));
	return rc;
}

static int first_segment(struct replay *r)
{
	int rc = read_segment(r, r->pos.segment, r->buf);

	if (rc > 0)
		complain(r, "log-unreadable", r->pos.segment, "blocks of the log's first segment cannot be read");
	if (rc < 0)
		return base_err_set(r->err, rc, "block %" PRIu64 ": cannot read the log: %s", r->pos.segment, strerror(-rc));
	if (!header_valid(r, r->buf, r->pos.segment, r->pos.nonce)) {
		rc = complain(r, "log-segment", r->pos.segment, "the log's first segment has no valid header");
		if (!bs_mending(r->bs))
			return rc;
		r->header_bad = true; /* the superblock says what its frames look like */
	}
	fetch_successor(r);
	return add_segment(r, r->pos.segment);
}

static int walk(struct replay *r)
{
	int rc = first_segment(r);

	while (!rc) {
		const struct bs_frame_disk *f = frame_at(r, r->buf, r->pos.segment, r->pos.nonce, r->pos.offset);

		if (f && le64_get(f->seq) == r->pos.seq) {
			rc = apply_frame(r, f);
			continue;
		}
		rc = next_segment(r);
		if (rc <= 0)
			break;
		rc = 0;
	}
	return rc == -EUCLEAN && bs_mending(r->bs) ? give_up_rest(r) : rc;
}

/* Mending: numbers that were never given out. Where the log goes on is settled when there is space for it. */
static int settle_mending(struct replay *r)
{
	const struct bs_sb_disk *sb = &r->bs->sb;
	struct bs_mend *m = r->bs->reporter->mend;
	struct bs_log *log = r->bs->log;

	if (r->lsn < le64_get(sb->ckpt_l1) && !m->n_lost && r->applied >= m->last_lsn)
		complain(r, "log-short", r->pos.segment + r->pos.offset, "the log ends before the checkpoint does");
	m->last_lsn = MAX(MAX(m->last_lsn, r->lsn), MAX(le64_get(sb->ckpt_l1), le64_get(sb->ckpt_l0)));
	if (m->last_lsn >= BS_MEND_SANE) /* who says so is damaged: what counts is that the new log begins where the new checkpoint ends */
		m->last_lsn = MIN(r->applied, BS_MEND_SANE);
	log->pos = r->pos;
	log->pos.seq = MAX(r->pos.seq, m->last_seq + 1);
	if (log->pos.seq >= BS_MEND_SANE)
		log->pos.seq = m->last_seq + 1;
	log->start_offset = le32_get(sb->log_offset);
	r->bs->next_id = MAX(r->bs->next_id, MIN(m->last_id + 1, BS_ID_MAX));
	r->bs->lsn = m->last_lsn;
	return 0;
}

/* The log goes on where replay ended. */
static int settle(struct replay *r)
{
	const struct bs_segment_disk *h = (const struct bs_segment_disk *)r->buf;
	const struct bs_sb_disk *sb = &r->bs->sb;
	struct bs_log *log = r->bs->log;
	uint64_t l1 = le64_get(sb->ckpt_l1), next = le64_get(h->next_address);

	if (!r->started)
		r->lsn = le64_get(sb->ckpt_l0);
	if (r->lsn < l1)
		return complain(r, "log-short", r->pos.segment + r->pos.offset, "the log ends before the checkpoint does");
	if (r->started && le32_get(sb->clean))
		return complain(r, "log-clean", r->pos.segment, "the store was closed in order and yet the log goes on");
	log->next = bs_segment_new(log, next);
	if (!log->next)
		return -ENOMEM;
	log->next_nonce = le64_get(h->next_nonce);
	log->pos = r->pos;
	log->start_offset = le32_get(sb->log_offset);
	atomic_store(&log->used_blocks, (uint64_t)(log->n_segments - 1) * log->segment_blocks + r->pos.offset -
					log->start_offset);
	r->bs->lsn = r->lsn;
	atomic_store(&log->lsn, r->lsn);
	atomic_store(&log->durable_lsn, r->lsn);
	return 0;
}

int bs_log_replay(struct bs *bs, struct base_err *err)
{
	size_t len = (size_t)bs->log->segment_blocks * BS_BLOCK;
	struct replay r = { .bs = bs, .err = err };
	uint8_t *a = dma_alloc(len, BS_BLOCK), *b = dma_alloc(len, BS_BLOCK);
	int rc = -ENOMEM;

	if (a && b) {
		r.buf = a;
		r.other = b;
		r.pos = (struct bs_log_pos){ .segment = le64_get(bs->sb.log_segment), .nonce = le64_get(bs->sb.log_nonce),
					     .seq = le64_get(bs->sb.log_seq), .offset = le32_get(bs->sb.log_offset) };
		r.ch = bdev_channel_borrow(bs->dev);
		rc = walk(&r);
		if (!rc && r.txn_bytes && BS_MUTATE(open_txn))
			rc = apply_txn(&r);
		if (!rc)
			rc = bs_mending(bs) ? settle_mending(&r) : settle(&r);
		bs_fetch_wait(&r.fetch);
		bdev_channel_return(r.ch);
	}
	free(r.txn);
	dma_free(a);
	dma_free(b);
	return rc;
}
