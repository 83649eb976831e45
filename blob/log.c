/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log's state: its limits, appending, who waits for a commit or for room, and freezing.
 *
 * Transactions append to the ring under bs->lock and never wait. A commit is a waiter with an LSN and a data
 * generation; the writer (log_write.c) runs as long as some waiter is not satisfied. Room is checked when a
 * transaction begins, for the longest transaction there may be, so that nothing fails afterwards.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "blob/device.h"
#include "blob/mutation.h"

#define LOG_COMPONENT "blob"
#include "base/log.h"

#define RING_BYTES (4 * MiB)
#define RING_MIN (1 * MiB)

int bs_log_create(struct bs *bs)
{
	struct bs_log *log = base_calloc(1, sizeof(*log));

	if (!log)
		return -ENOMEM;
	log->bs = bs;
	pthread_mutex_init(&log->lock, NULL);
	pthread_cond_init(&log->came, NULL);
	TAILQ_INIT(&log->segments);
	TAILQ_INIT(&log->waiters);
	TAILQ_INIT(&log->room_waiters);
	TAILQ_INIT(&log->spare);
	log->segment_blocks = le32_get(bs->sb.segment_blocks);
	memcpy(log->uuid, bs->sb.uuid, sizeof(log->uuid));
	log->volatile_cache = bdev_info(bs->dev)->volatile_cache;
	log->fua = bdev_info(bs->dev)->fua;
	bs_pace_init(&log->pace);
	bs->log = log;
	bs_log_set_limits(bs);
	return 0;
}

int bs_log_start(struct bs *bs)
{
	struct bs_log *log = bs->log;
	uint64_t size = RING_BYTES;
	int rc;

	if (atomic_load(&log->trigger) < RING_BYTES)
		size = RING_MIN;
	if (bs->opts.log_arena)
		size = bs->opts.log_arena_size;
	rc = bs_ring_init(&log->ring, bs->opts.log_arena, size, bs->lsn);
	if (rc)
		return rc;
	bs_log_set_limits(bs);
	atomic_store(&log->lsn, bs->lsn);
	atomic_store(&log->durable_lsn, bs->lsn);
	log->sealed_lsn = bs->lsn;
	log->frame = dma_alloc(BS_FRAME_MAX, BS_BLOCK);
	log->header = dma_alloc(BS_BLOCK, BS_BLOCK);
	if (!log->frame || !log->header)
		return -ENOMEM;
	rc = bdev_channel_create(bs->dev, &log->ch);
	if (!rc)
		bdev_channel_wait_inline(log->ch);
	return rc;
}

void bs_log_stop(struct bs *bs)
{
	struct bs_log *log = bs->log;
	bool busy = true;

	if (!log || !log->ch)
		return;
	while (busy) {
		bdev_poll(log->ch);
		pthread_mutex_lock(&log->lock);
		busy = log->busy;
		pthread_mutex_unlock(&log->lock);
		if (busy)
			sched_yield();
	}
	bdev_channel_destroy(log->ch);
	log->ch = NULL;
}

static void free_waiters(struct bs_commit_waiters *list)
{
	struct bs_commit_waiter *w;

	while ((w = TAILQ_FIRST(list))) {
		TAILQ_REMOVE(list, w, link);
		free(w);
	}
}

void bs_log_destroy(struct bs *bs)
{
	struct bs_log *log = bs->log;
	struct bs_segment *s;

	if (!log)
		return;
	while ((s = TAILQ_FIRST(&log->segments))) {
		TAILQ_REMOVE(&log->segments, s, link);
		free(s);
	}
	free(log->next);
	free(log->new_segment);
	free_waiters(&log->spare);
	bs_ring_free(&log->ring);
	dma_free(log->frame);
	dma_free(log->header);
	pthread_cond_destroy(&log->came);
	pthread_mutex_destroy(&log->lock);
	free(log);
	bs->log = NULL;
}

struct bs_segment *bs_segment_new(struct bs_log *log, uint64_t block)
{
	struct bs_segment *s = base_calloc(1, sizeof(*s));

	(void)log;
	if (s)
		s->block = block;
	return s;
}

/* ---- limits ---- */

#define TRIGGER (56 * MiB)
#define PART 48u
#define SMALL (128 * MiB)
#define SMALL_PART 64u

/*
 * A checkpoint is due when the log has outgrown 56 MiB or half the last checkpoint, on small stores a 48th of the store, on the smallest,
 * where a unit more counts, a 64th: so recovery never reads more than two checkpoints' worth. With the log at its limit and the room for a checkpoint of as much, a store with little
 * metadata owns 192 MiB for all that, a small one a tenth of itself.
 */
static void set_trigger(struct bs_log *log, uint64_t trigger)
{
	uint64_t segment = (uint64_t)log->segment_blocks * BS_BLOCK;

	trigger = MAX(trigger, MAX(MiB, 2 * segment));
	atomic_store(&log->trigger, trigger);
	atomic_store(&log->limit, 2 * trigger + segment);
	atomic_store(&log->pace.gate, 2 * trigger + segment);
	atomic_store(&log->slack, segment);
	if (log->ring.size)
		atomic_store(&log->txn_max, MIN(MIN(log->ring.size, trigger) / 4, 2 * MiB));
}

void bs_log_set_limits(struct bs *bs)
{
	struct bs_log *log = bs->log;
	uint64_t store = bs->blocks * BS_BLOCK;
	uint64_t trigger = MIN(store / (store < SMALL ? SMALL_PART : PART), MAX(TRIGGER, bs_ckpt_bytes(bs) / 2));

	if (bs->opts.checkpoint_bytes)
		trigger = MIN(bs->opts.checkpoint_bytes, store / 16);
	set_trigger(log, trigger);
}

void bs_log_fit_limits(struct bs *bs)
{
	struct bs_log *log = bs->log;
	uint64_t since;
	bool fits;

	since = bs_lock_background(bs);
	bs_log_set_limits(bs);
	for (;;) {
		uint64_t before = atomic_load(&log->trigger);

		fits = bs_meta_balance(bs, false);
		if (!fits)
			set_trigger(log, before / 2);
		if (fits || atomic_load(&log->trigger) == before)
			break;
	}
	/* A checkpoint that finds no room is worse than a write that does not. */
	if (!fits)
		fits = bs_meta_balance(bs, true);
	bs_unlock_background(bs, since);
	if (!fits)
		log_warn("%s: too full for its next checkpoint to be sure of space: metadata cannot grow",
			 bdev_info(bs->dev)->name);
}

/* Most units the log ever holds: limit and slack, the transaction begun just below them, the successor, and what frames
 * that do not fit leave at the ends of segments when the ring is written. */
uint64_t bs_log_cap_units(const struct bs *bs)
{
	const struct bs_log *log = bs->log;
	uint64_t segment = (uint64_t)log->segment_blocks * BS_BLOCK;
	uint64_t bytes = atomic_load(&log->limit) + atomic_load(&log->slack) + 2 * atomic_load(&log->txn_max);

	return div_round_up(bytes, segment) + 2;
}

uint64_t bs_log_used_bytes(const struct bs *bs)
{
	return atomic_load(&bs->log->used_blocks) * BS_BLOCK;
}

bool bs_log_wants_checkpoint(const struct bs *bs)
{
	return bs_log_used_bytes(bs) >= atomic_load(&bs->log->trigger);
}

/* ---- appending ---- */

int bs_log_room(struct bs *bs, uint32_t flags, uint64_t bytes)
{
	struct bs_log *log = bs->log;

	if (bytes)
		return bytes <= atomic_load(&log->txn_max) ? 0 : -E2BIG;
	if (flags & BS_TXN_TURN)
		bs_pace_turn_taken(log);
	if (!log->ch || atomic_load(&bs->frozen))
		return -EROFS;
	return bs_ring_admits(log, flags) && bs_pace_admits(bs, flags) ? 0 : -EAGAIN;
}

/* Marks the ends of transactions: only the last record has BS_REC_END. Flags lie within 8 aligned bytes. */
static void put_records(struct bs_log *log, uint64_t pos, const uint8_t *recs, uint32_t bytes, uint32_t count)
{
	uint32_t at = 0;

	bs_ring_put(&log->ring, pos, recs, bytes);
	for (uint32_t i = 0; i < count; i++) {
		const struct bs_rec_disk *d = (const struct bs_rec_disk *)(recs + at);
		uint64_t flags_at = (pos + at + offsetof(struct bs_rec_disk, flags)) % log->ring.size;

		log->ring.data[flags_at] = i + 1 == count ? BS_REC_END : 0;
		at += bs_rec_size(le32_get(d->len));
	}
	assert(at == bytes);
}

uint64_t bs_log_append(struct bs *bs, const void *recs, uint32_t bytes, uint32_t count)
{
	struct bs_log *log = bs->log;
	uint64_t head = bs_ring_head(&log->ring), used = head - bs_ring_tail(&log->ring);

	assert(count && bytes <= atomic_load(&log->txn_max) && log->ring.size - used >= bytes);
	put_records(log, head, recs, bytes, count);
	bs->lsn += count;
	bs_ring_publish(&log->ring, head + bytes);
	bs_pace_appended(log, bytes);
	atomic_store(&log->lsn, bs->lsn);
	bs_service_kick(bs, used + bytes > log->ring.size / 2 ? BS_KICK_COMMIT : BS_KICK_TIMER);
	return bs->lsn;
}

void bs_log_data_written(struct bs *bs)
{
	if (!BS_MUTATE(data_counted))
		atomic_fetch_add(&bs->data_gen, 1);
	bs_service_kick(bs, BS_KICK_TIMER);
}

bool bs_durable_pays(struct bs *bs)
{
	struct bs_log *log = bs->log;

	return log->volatile_cache && atomic_load(&log->flushed_gen) >= atomic_load(&bs->data_gen);
}

/* ---- waiting ---- */

/* log->lock held; nodes are kept, so that a commit rarely allocates. */
static struct bs_commit_waiter *new_waiter(struct bs_log *log, struct op *op)
{
	struct bs_commit_waiter *w = TAILQ_FIRST(&log->spare);

	if (w)
		TAILQ_REMOVE(&log->spare, w, link);
	else
		w = base_malloc(sizeof(*w));
	if (!w)
		return NULL;
	memset(w, 0, sizeof(*w));
	w->op = op;
	return w;
}

bool bs_log_satisfied(const struct bs_log *log, const struct bs_commit_waiter *w)
{
	return atomic_load(&log->durable_lsn) >= w->lsn && (!log->volatile_cache || log->flushed_gen >= w->gen);
}

/* room: it waits for room in the ring, which the next frame makes; turn: for a thread. */
static void commit_start(struct bs *bs, uint64_t lsn, struct op *op, bool room, struct bs_turn *turn)
{
	struct bs_log *log = bs->log;
	struct bs_commit_waiter *w = NULL;
	uint64_t last = atomic_load(&log->lsn);
	bool async = op->done != NULL, waits = op_waits_here(op), lead = false, watch = false;
	struct op_driver *home = atomic_load(&op->driver);
	int rc = 0;

	op_move(op, bdev_channel_driver(log->ch));
	pthread_mutex_lock(&log->lock);
	if (atomic_load(&bs->frozen)) {
		rc = -EROFS;
	} else if (room && !bs_ring_refuses(log)) {
		rc = 0;
	} else if (!(w = new_waiter(log, op))) {
		rc = -ENOMEM;
	} else {
		lsn = room ? atomic_load(&log->durable_lsn) + 1 : lsn;
		w->lsn = lsn && lsn < last ? lsn : last;
		w->gen = room ? 0 : atomic_load(&bs->data_gen);
		w->since_ns = room ? bs_clock_ns() : 0;
		w->room = room;
		w->turn = turn;
		if (bs_log_satisfied(log, w)) {
			TAILQ_INSERT_HEAD(&log->spare, w, link);
			w = NULL;
		} else {
			if (turn)
				turn->buffer = true;
			if (turn && turn->again)
				TAILQ_INSERT_HEAD(&log->waiters, w, link);
			else
				TAILQ_INSERT_TAIL(&log->waiters, w, link);
			if (room)
				atomic_fetch_add(&log->pace.ring_waiting, 1);
			if (++log->n_waiters == log->expected)
				pthread_cond_signal(&log->came);
			w->home = async ? home : NULL;
			watch = async && !log->watched;
			log->n_async += async;
			log->watched |= watch;
			lead = bs_log_writer_claim(log);
		}
	}
	pthread_mutex_unlock(&log->lock);
	if (!w) {
		/* Nothing to wait for: an op that ends now must not end where nobody polls for it. */
		op_move(op, home);
		op_child_done(op, rc);
		return;
	}
	/* From here on op may go on in another thread. */
	if (watch)
		bs_service_kick(bs, BS_KICK_LOG);
	if (lead)
		bs_log_writer_start(log, waits);
}

void bs_commit_start(struct bs *bs, uint64_t lsn, struct op *op)
{
	op_child_begin(op);
	if (!bs->log->ch) {
		op_child_done(op, -EROFS);
		return;
	}
	commit_start(bs, lsn, op, false, NULL);
}

static void wait_room_start(struct bs *bs, struct op *op, struct bs_turn *turn);

struct wait_op {
	struct op op;
	struct bs *bs;
	uint64_t lsn;
	bool room;
	struct bs_turn *turn;
};

static enum op_next wait_op_step(struct op *op)
{
	struct wait_op *w = container_of(op, struct wait_op, op);

	switch (op->step) {
	case 0:
		if (w->room)
			wait_room_start(w->bs, op, w->turn);
		else
			bs_commit_start(w->bs, w->lsn, op);
		return op_await(op, 1, 0);
	case 1:
		return op_finish(op);
	}
	return op_bug(op);
}

static int wait_op_run(struct bs *bs, uint64_t lsn, bool room, struct bs_turn *turn)
{
	struct wait_op w = { .bs = bs, .lsn = lsn, .room = room, .turn = turn };

	if (!bs->log->ch)
		return -EROFS;
	op_init(&w.op, room ? "log-room" : "commit", wait_op_step, bdev_channel_driver(bs->log->ch), NULL, NULL);
	op_start(&w.op);
	return op_wait(&w.op);
}

int bs_commit(struct bs *bs, uint64_t lsn)
{
	return wait_op_run(bs, lsn, false, NULL);
}

int bs_log_wait_room(struct bs *bs)
{
	return wait_op_run(bs, 0, true, NULL);
}

int bs_log_wait_turn(struct bs *bs, struct bs_turn *turn)
{
	uint64_t since = bs_clock_ns(), now;
	int rc;

	turn->mine = turn->buffer = false;
	turn->let_ns = 0;
	rc = bs_pace_wait(bs, turn);
	if (rc == -EAGAIN)
		rc = wait_op_run(bs, 0, true, turn);
	turn->again = true;
	now = bs_clock_ns();
	if (turn->buffer) {
		turn->buffer_ns += now - since;
		return rc;
	}
	if (turn->let_ns)
		turn->woken_ns += now - turn->let_ns;
	turn->log_ns += (turn->let_ns ? turn->let_ns : now) - since;
	return rc;
}

static bool ring_is_full(struct bs_log *log)
{
	bool full;

	pthread_mutex_lock(&log->lock);
	full = bs_ring_refuses(log);
	pthread_mutex_unlock(&log->lock);
	return full;
}

/* log->lock held. Returns whether the service thread has to be told. */
static bool join_room_waiters(struct bs_log *log, struct bs_commit_waiter *w, struct bs_turn *turn)
{
	struct bs_pace *p = &log->pace;
	bool told = p->on && p->ticking;

	w->since_ns = turn ? turn->since_ns : bs_clock_ns();
	w->turn = turn;
	bs_pace_join(log, w);
	p->ticking |= p->on;
	return !told;
}

/* turn: of a thread. */
static void wait_room_start(struct bs *bs, struct op *op, struct bs_turn *turn)
{
	struct bs_log *log = bs->log;
	struct bs_commit_waiter *w = NULL;
	bool tell = false;
	int rc = 0;

	op_child_begin(op);
	if (!log->ch) {
		op_child_done(op, -EROFS);
		return;
	}
	if (ring_is_full(log)) {
		commit_start(bs, 0, op, true, turn);
		return;
	}
	if (!bs_has_service(bs))
		op_move(op, bdev_channel_driver(log->ch));
	pthread_mutex_lock(&log->lock);
	if (atomic_load(&bs->frozen))
		rc = -EROFS;
	else if (bs_pace_refuses(log) && !(w = new_waiter(log, op)))
		rc = -ENOMEM;
	if (w)
		tell = join_room_waiters(log, w, turn);
	pthread_mutex_unlock(&log->lock);
	if (!w) {
		op_child_done(op, rc);
		return;
	}
	if (!bs_has_service(bs))
		bs_ckpt_start(bs);
	else if (tell)
		bs_service_kick(bs, BS_KICK_CKPT | BS_KICK_PACE);
}

void bs_log_wait_room_start(struct bs *bs, struct op *op)
{
	wait_room_start(bs, op, NULL);
}

static void count_wait(struct bs *bs, const struct bs_commit_waiter *w)
{
	uint64_t ns = bs_clock_ns() - w->since_ns;

	bs_stopped(bs, &(struct bs_turn){ .log_ns = w->room ? 0 : ns, .buffer_ns = w->room ? ns : 0 });
}

/* An asynchronous op goes home first, whoever ends up with it: when it is the last that was waited for, the log's channel is polled
 * by nobody any more. It is counted until then, for the service thread watches that channel as long as there is one. */
void bs_log_let_go(struct bs_log *log, struct bs_commit_waiters *list, int rc)
{
	struct bs_commit_waiter *w;

	TAILQ_FOREACH(w, list, link) {
		if (w->since_ns && !w->turn)
			count_wait(log->bs, w);
		if (w->home)
			op_move(w->op, w->home);
		op_child_done(w->op, rc);
	}
	pthread_mutex_lock(&log->lock);
	TAILQ_FOREACH(w, list, link)
		log->n_async -= w->home != NULL;
	TAILQ_CONCAT(&log->spare, list, link);
	pthread_mutex_unlock(&log->lock);
}

void bs_log_fail_commits(struct bs *bs, int rc)
{
	struct bs_commit_waiters mine = TAILQ_HEAD_INITIALIZER(mine);
	struct bs_log *log = bs->log;

	pthread_mutex_lock(&log->lock);
	TAILQ_CONCAT(&mine, &log->waiters, link);
	log->n_waiters = 0;
	atomic_store(&log->pace.ring_waiting, 0);
	pthread_mutex_unlock(&log->lock);
	bs_log_let_go(log, &mine, rc);
}

bool bs_log_room_wanted(struct bs *bs)
{
	bool wanted;

	pthread_mutex_lock(&bs->log->lock);
	wanted = !TAILQ_EMPTY(&bs->log->room_waiters);
	pthread_mutex_unlock(&bs->log->lock);
	return wanted;
}

void bs_log_room_done(struct bs *bs, int rc)
{
	bs_pace_end(bs, rc);
}

void bs_log_fail_waiters(struct bs *bs, int rc)
{
	bs_log_fail_commits(bs, rc);
	bs_pace_end(bs, rc);
}

void bs_freeze(struct bs *bs, int rc, const char *why)
{
	int none = 0;

	if (!atomic_compare_exchange_strong(&bs->frozen, &none, rc))
		return;
	log_err("%s: frozen, read-only from now on: %s: %s", bdev_info(bs->dev)->name, why, strerror(-rc));
	if (bs->log)
		bs_log_fail_waiters(bs, rc);
}

uint64_t bs_lsn(struct bs *bs)
{
	return atomic_load(&bs->log->lsn);
}

uint64_t bs_durable_lsn(struct bs *bs)
{
	return atomic_load(&bs->log->durable_lsn);
}

/* ---- segments ---- */

void bs_log_get_pos(struct bs *bs, struct bs_log_pos *pos)
{
	pthread_mutex_lock(&bs->log->lock);
	*pos = bs->log->pos;
	pthread_mutex_unlock(&bs->log->lock);
}

void bs_log_release(struct bs *bs, const struct bs_log_pos *pos)
{
	struct bs_log *log = bs->log;
	TAILQ_HEAD(, bs_segment) old = TAILQ_HEAD_INITIALIZER(old);
	struct bs_segment *s;

	pthread_mutex_lock(&log->lock);
	while ((s = TAILQ_FIRST(&log->segments))->block != pos->segment) {
		TAILQ_REMOVE(&log->segments, s, link);
		TAILQ_INSERT_TAIL(&old, s, link);
		log->n_segments--;
	}
	log->start_offset = pos->offset;
	atomic_store(&log->used_blocks, (uint64_t)(log->n_segments - 1) * log->segment_blocks + log->pos.offset -
					log->start_offset);
	pthread_mutex_unlock(&log->lock);
	while ((s = TAILQ_FIRST(&old))) {
		TAILQ_REMOVE(&old, s, link);
		bs_meta_give(bs, BS_META_LOG, s->block);
		free(s);
	}
}

void bs_device_get_stat(struct bs *bs, struct bs_stat *st)
{
	struct bs_log *log = bs->log;
	struct bdev_stats dev;

	st->lsn = atomic_load(&log->lsn);
	st->durable_lsn = atomic_load(&log->durable_lsn);
	st->log_bytes = bs_log_used_bytes(bs);
	st->log_limit = atomic_load(&log->limit);
	st->closed = le32_get(bs->sb.clean);
	st->commits = atomic_load(&log->commits);
	st->log_writes = atomic_load(&log->writes);
	st->log_write_bytes = atomic_load(&log->write_bytes);
	st->flushes = atomic_load(&log->flushes);
	st->log_segments = atomic_load(&log->switches);
	st->replayed_records = log->replayed_records;
	st->replayed_bytes = log->replayed_bytes;
	bdev_get_stats(bs->dev, &dev);
	st->device_write_bytes = dev.write_bytes;
	st->zero_write_bytes = dev.zero_bytes;
	st->reserve_bytes = bs_meta_bytes_owned(bs);
	bs_ckpt_get_stat(bs, st);
}
