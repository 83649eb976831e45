/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log's writer: one op that runs as long as somebody waits for a commit. Each round it
 *   seals    what the ring holds, up to a frame,
 *   flushes  the device if data writes have completed since the last flush was submitted (R2: sealed first, so every
 *            record in the frame speaks of data that this flush covers),
 *   writes   the header of a new segment if the frame does not fit in this one, then the frame, both with FUA,
 *   and lets those go on whose LSN and data are now durable.
 * One frame is in flight at a time: were there two, a cut could leave the second without the first (R6).
 * A failure of any of these I/Os freezes the store: what the medium holds is unknown (R5).
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "blob/device.h"
#include "blob/mutation.h"

#define LOG_COMPONENT "blob"
#include "base/log.h"

enum { W_SEAL, W_FLUSHED, W_FRAME, W_DURABLE, W_FAIL };

/*
 * Those who were let go together come back at about the same time, but not before the next round, which would then be for the few that came
 * meanwhile, and so on in turns. So where several were let go, the round begins behind them (W_DURABLE), and they get a moment to come
 * back: at most as long as the last write took. Where they do not, the next rounds do without, the more of them the longer this goes.
 */
#define GATHER_FROM 4u /* were let go */
#define GATHER_MIN_NS 50000u /* less than it costs to sleep */
#define GATHER_MAX_NS 1000000u
#define GATHER_PAUSE_MAX 64u

static void let_them_come(struct bs_log *log)
{
	struct timespec end;
	int rc = 0;

	if (!log->expected)
		return;
	op_wake_now();
	clock_gettime(CLOCK_MONOTONIC, &end); /* a clock that no test can stop */
	end.tv_nsec += (long)MIN(log->write_ns, (uint64_t)GATHER_MAX_NS);
	end.tv_sec += end.tv_nsec / 1000000000;
	end.tv_nsec %= 1000000000;
	pthread_mutex_lock(&log->lock);
	while (log->n_waiters < log->expected && !rc)
		rc = pthread_cond_clockwait(&log->came, &log->lock, CLOCK_MONOTONIC, &end);
	log->gather_pause = rc ? MIN(2 * log->gather_pause + 1, GATHER_PAUSE_MAX) : 0;
	log->gather_skip = log->gather_pause;
	log->expected = 0;
	pthread_mutex_unlock(&log->lock);
}

/* log->lock held: how many may wait soon, after n were let go. */
static uint32_t expect(struct bs_log *log, uint32_t n)
{
	if (!log->with_frame || n < GATHER_FROM || log->write_ns < GATHER_MIN_NS)
		return 0;
	if (log->gather_skip) {
		log->gather_skip--;
		return 0;
	}
	return log->n_waiters + n;
}

/* Somebody waits, or is about to. */
static bool is_wanted(struct bs_log *log)
{
	bool wanted;

	pthread_mutex_lock(&log->lock);
	wanted = log->n_waiters || log->expected;
	pthread_mutex_unlock(&log->lock);
	return wanted;
}

/* What this round has to do; false: nobody waits for anything. */
static bool plan(struct bs_log *log)
{
	struct bs_commit_waiter *w;
	uint64_t lsn = 0, gen = 0;
	bool any = false;

	pthread_mutex_lock(&log->lock);
	TAILQ_FOREACH(w, &log->waiters, link) {
		any |= !bs_log_satisfied(log, w);
		lsn = MAX(lsn, w->lsn);
		gen = MAX(gen, w->gen);
	}
	pthread_mutex_unlock(&log->lock);
	log->with_frame = lsn > atomic_load(&log->durable_lsn);
	log->with_flush = log->volatile_cache && gen > log->flushed_gen;
	log->with_switch = false;
	return any;
}

/* The next segment becomes the current one; its successor is reserved before its header can announce it. */
static int switch_segment(struct bs_log *log)
{
	struct bs_segment_disk *h = (struct bs_segment_disk *)log->header;
	struct bs_segment *fresh;
	uint64_t block, nonce;
	int rc = bs_meta_take(log->bs, BS_META_LOG, &block);

	if (rc)
		return rc;
	fresh = bs_segment_new(log, block);
	if (!fresh) {
		bs_meta_give(log->bs, BS_META_LOG, block);
		return -ENOMEM;
	}
	base_random(&nonce, sizeof(nonce));
	pthread_mutex_lock(&log->lock); /* the size in the superblock may change */
	bs_segment_fill(h, &log->bs->sb,
			&(struct bs_log_pos){ .segment = log->next->block, .nonce = log->next_nonce, .seq = log->pos.seq }, block, nonce);
	TAILQ_INSERT_TAIL(&log->segments, log->next, link);
	log->n_segments++;
	atomic_fetch_add(&log->used_blocks, log->segment_blocks - log->pos.offset + 1);
	log->pos.segment = log->next->block;
	log->pos.nonce = log->next_nonce;
	log->pos.offset = 1;
	log->next = fresh;
	log->next_nonce = nonce;
	pthread_mutex_unlock(&log->lock);
	log->with_switch = true;
	atomic_fetch_add(&log->switches, 1);
	return 0;
}

static uint32_t ring_rec_size(const struct bs_log *log, uint64_t pos, uint8_t *flags)
{
	struct bs_rec_disk d;

	bs_ring_get(&log->ring, pos, &d, sizeof(d));
	*flags = d.flags;
	return bs_rec_size(le32_get(d.len));
}

static uint64_t frame_room(const struct bs_log *log)
{
	uint64_t left = (uint64_t)(log->segment_blocks - log->pos.offset) * BS_BLOCK;

	left = MIN(left, BS_FRAME_MAX);
	return left > sizeof(struct bs_frame_disk) ? left - sizeof(struct bs_frame_disk) : 0;
}

/* Whole records from the ring, as many as fit; returns their bytes. */
static uint32_t gather(struct bs_log *log, uint32_t *records, uint8_t *flags)
{
	uint64_t head = bs_ring_head(&log->ring), room = frame_room(log), pos = log->sealed_pos;

	*records = 0;
	while (pos < head) {
		uint8_t f;
		uint32_t size = ring_rec_size(log, pos, &f);

		if (pos + size - log->sealed_pos > room)
			break;
		pos += size;
		*flags = f;
		++*records;
	}
	bs_ring_get(&log->ring, log->sealed_pos, log->frame + sizeof(struct bs_frame_disk), pos - log->sealed_pos);
	return (uint32_t)(pos - log->sealed_pos);
}

static int seal(struct bs_log *log)
{
	struct bs_frame_disk *f = (struct bs_frame_disk *)log->frame;
	uint32_t records, bytes, blocks;
	uint8_t flags = 0;
	int rc;

	if (ring_rec_size(log, log->sealed_pos, &flags) > frame_room(log)) {
		rc = switch_segment(log);
		if (rc)
			return rc;
	}
	bytes = gather(log, &records, &flags);
	blocks = (uint32_t)div_round_up(sizeof(*f) + bytes, BS_BLOCK);
	memset(f, 0, sizeof(*f));
	f->magic = le32_make(BS_MAGIC_FRAME);
	memcpy(f->uuid, log->uuid, sizeof(f->uuid));
	f->seq = le64_make(log->pos.seq);
	f->first_lsn = le64_make(log->sealed_lsn + 1);
	f->blocks = le32_make(blocks);
	f->bytes = le32_make(bytes);
	f->records = le32_make(records);
	f->flags = le32_make(log->open_txn ? BS_FRAME_CONTINUES : 0);
	f->wall_ns = le64_make((uint64_t)base_wall_ns());
	log->frame_len = (uint64_t)blocks * BS_BLOCK;
	memset(log->frame + sizeof(*f) + bytes, 0, log->frame_len - sizeof(*f) - bytes);
	log->frame_block = log->pos.segment + log->pos.offset;
	f->crc = le32_make(bs_crc_skip(bs_crc_seed(log->pos.nonce, log->pos.seq, log->frame_block), f, log->frame_len,
				       offsetof(struct bs_frame_disk, crc)));
	log->open_txn = !(flags & BS_REC_END);
	log->sealed_pos += bytes;
	log->sealed_lsn += records;
	pthread_mutex_lock(&log->lock);
	log->pos.offset += blocks;
	log->pos.seq++;
	atomic_fetch_add(&log->used_blocks, blocks);
	pthread_mutex_unlock(&log->lock);
	return 0;
}

static void submit(struct bs_log *log, enum bdev_op kind, void *buf, uint64_t block, uint64_t len)
{
	bdev_io_init_buf(&log->io, kind, buf, block * BS_BLOCK, len, NULL, NULL);
	if (kind == BDEV_WRITE) {
		log->io.opts.flags = BDEV_FUA;
		if (buf == log->header ? BS_MUTATE(header_fua) : BS_MUTATE(log_fua))
			log->io.opts.flags = 0;
		log->io.opts.stream = BS_STREAM_META;
	}
	bdev_submit_child(log->ch, &log->io, &log->wop);
	/* Else a poll of the channel is about to end, or who began this is about to wait. */
	if (!log->lead_waits && op_polling() != bdev_channel_driver(log->ch))
		bdev_kick(log->ch);
	log->lead_waits = false;
}

static enum op_next round_begin(struct bs_log *log, struct op *op)
{
	int rc;

	if (op_waited_is_done() && is_wanted(log))
		return op_pass(op, W_SEAL);
	let_them_come(log);
	if (atomic_load(&log->bs->frozen) || !plan(log))
		return op_finish(op);
	op->on_error = W_FAIL;
	if (log->with_frame) {
		rc = seal(log);
		if (rc) { /* no memory, no space: nothing was sealed or written, so the next commit may do better */
			bs_log_fail_commits(log->bs, rc);
			return op_finish(op);
		}
		/* Whatever completed before the records were sealed, waited for or not. */
		log->with_flush = log->volatile_cache && atomic_load(&log->bs->data_gen) > log->flushed_gen;
	}
	if (BS_MUTATE(data_flush)) {
		log->flushed_gen = atomic_load(&log->bs->data_gen);
		log->with_flush = false;
	}
	if (!log->with_flush)
		return op_goto(op, W_FLUSHED);
	log->flush_gen = atomic_load(&log->bs->data_gen);
	atomic_fetch_add(&log->flushes, 1);
	submit(log, BDEV_FLUSH, NULL, 0, 0);
	return op_await(op, W_FLUSHED, 0);
}

static void write_frame(struct bs_log *log)
{
	/* Where FUA is a write and then a flush, that flush covers data completed by now. */
	log->flush_gen = atomic_load(&log->bs->data_gen);
	atomic_fetch_add(&log->writes, 1);
	atomic_fetch_add(&log->write_bytes, log->frame_len);
	log->write_began = base_now_ns();
	submit(log, BDEV_WRITE, log->frame, log->frame_block, log->frame_len);
}

/* What was sealed is durable: those who waited for it go on. */
static void durable(struct bs_log *log)
{
	struct bs_commit_waiters mine = TAILQ_HEAD_INITIALIZER(mine);
	struct bs_commit_waiter *w, *next;
	uint32_t n = 0, turns;

	pthread_mutex_lock(&log->lock);
	if (log->with_frame) {
		bs_ring_consume(&log->ring, log->sealed_pos, log->sealed_lsn);
		atomic_store(&log->durable_lsn, log->sealed_lsn);
		if (!log->fua)
			log->flushed_gen = log->flush_gen;
	}
	turns = atomic_load(&log->pace.ring_waiting) ? bs_ring_turns(log) : 0;
	for (w = TAILQ_FIRST(&log->waiters); w; w = next) {
		next = TAILQ_NEXT(w, link);
		if (!bs_log_satisfied(log, w))
			continue;
		if (w->room) {
			if (!turns) {
				w->lsn = atomic_load(&log->durable_lsn) + 1;
				continue;
			}
			turns--;
			bs_pace_give(log, w);
			atomic_fetch_sub(&log->pace.ring_waiting, 1);
		}
		TAILQ_REMOVE(&log->waiters, w, link);
		TAILQ_INSERT_TAIL(&mine, w, link);
		log->n_waiters--;
		n += !w->room;
		atomic_fetch_add(&log->commits, 1);
	}
	log->write_ns = base_now_ns() - log->write_began;
	log->expected = expect(log, n);
	pthread_mutex_unlock(&log->lock);
	bs_log_let_go(log, &mine, 0);
	if (bs_log_wants_checkpoint(log->bs) && bs_ckpt_idle(log->bs))
		bs_service_kick(log->bs, BS_KICK_CKPT);
}

static enum op_next writer_step(struct op *op)
{
	struct bs_log *log = container_of(op, struct bs_log, wop);

	switch (op->step) {
	case W_SEAL:
		return round_begin(log, op);
	case W_FLUSHED:
		if (log->with_flush)
			log->flushed_gen = log->flush_gen;
		if (!log->with_frame)
			return op_goto(op, W_DURABLE);
		op->on_error = W_FAIL;
		if (!log->with_switch)
			return op_goto(op, W_FRAME);
		atomic_fetch_add(&log->write_bytes, BS_BLOCK);
		submit(log, BDEV_WRITE, log->header, log->pos.segment, BS_BLOCK);
		return op_await(op, W_FRAME, 0);
	case W_FRAME:
		op->on_error = W_FAIL;
		write_frame(log);
		return op_await(op, W_DURABLE, 0);
	case W_DURABLE:
		durable(log);
		return op_later(op, W_SEAL);
	case W_FAIL:
		bs_freeze(log->bs, op->rc, "the log could not be written");
		return op_finish(op);
	}
	return op_bug(op);
}

/* The writer has found nothing to do; who came since found it busy and started nothing. */
static void writer_done(struct op *op, void *arg)
{
	struct bs_log *log = arg;
	bool again;

	(void)op;
	pthread_mutex_lock(&log->lock);
	log->busy = false;
	again = !TAILQ_EMPTY(&log->waiters) && bs_log_writer_claim(log);
	pthread_mutex_unlock(&log->lock);
	if (again)
		bs_log_writer_start(log, false);
}

bool bs_log_writer_claim(struct bs_log *log)
{
	if (log->busy || atomic_load(&log->bs->frozen))
		return false;
	log->busy = true;
	return true;
}

void bs_log_writer_start(struct bs_log *log, bool waits)
{
	log->lead_waits = waits;
	op_init(&log->wop, "log-writer", writer_step, bdev_channel_driver(log->ch), writer_done, log);
	op_start(&log->wop);
}
