/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the device half share: superblocks, metadata space, the log, checkpoints, the service thread.
 *
 * Locks (innermost, see internal.h): ckpt->lock (may take log->lock), log->lock, meta->lock (may take space->lock). None is held over I/O.
 */
#ifndef BLOB_DEVICE_H
#define BLOB_DEVICE_H

#include "blob/internal.h"

/* ---- checksums (super.c) ---- */

/* Seed of frames and segment headers (whose seq is 0). */
uint32_t bs_crc_seed(uint64_t nonce, uint64_t seq, uint64_t address);
uint32_t bs_crc_page_seed(const uint8_t uuid[16], uint64_t address);
/* CRC of len bytes, the four at `field` counting as zero. */
uint32_t bs_crc_skip(uint32_t seed, const void *buf, size_t len, size_t field);

/* ---- complaints (check.c) ---- */

struct bs_reporter {
	bs_problem_fn fn;
	void *arg;
	int count;
	bool broken; /* the checkpoint could not be loaded: the log is only looked at */
	struct bs_mend *mend; /* goes on with what there is, to be written anew (mend.h); NULL: only looks */
};
struct bs_place { /* what a complaint is about */
	const char *pass, *code;
	uint64_t blob, block;
};
/* Says what is wrong on the device: in err, and to the reporter if there is one. Returns -EUCLEAN. */
int bs_complain(struct bs *bs, struct base_err *err, const struct bs_place *place, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* ---- super.c ---- */

enum bs_sb_state { BS_SB_GOOD, BS_SB_FOREIGN, BS_SB_TORN }; /* FOREIGN: no magic; TORN: magic and wrong checksum */
struct bs_sb_pair {
	struct bs_sb_disk sb[2]; /* block 0, BS_SB_COPY_BLOCK */
	enum bs_sb_state state[2];
	int chosen;              /* -1: none is good */
};
int bs_sb_read(struct bdev *dev, struct bs_sb_pair *pair, struct base_err *err);
/* Block 0 holds something that is no superblock, perhaps another file system: only to be read. */
bool bs_sb_overwritten(const struct bs_sb_pair *pair);
/* Every field of the chosen one against what this code understands and the device can hold. */
int bs_sb_validate(const struct bs_sb_disk *sb, const struct bdev *dev, bool writable, struct base_err *err);
void bs_sb_seal(struct bs_sb_disk *sb); /* checksum */
/* Writes both copies, a flush after each. Blocking. */
int bs_sb_write_sync(struct bdev *dev, struct bs_sb_disk *sb);

/* A segment's header: address, nonce and first sequence from pos. */
struct bs_log_pos;
void bs_segment_fill(struct bs_segment_disk *h, const struct bs_sb_disk *sb, const struct bs_log_pos *pos, uint64_t next,
		     uint64_t next_nonce);

/* ---- meta.c ---- */

int bs_meta_create(struct bs *bs);
void bs_meta_destroy(struct bs *bs);
enum bs_meta_user { BS_META_LOG, BS_META_CKPT };
/* A unit. The checkpoint does not get those the log may yet need. -ENOSPC. */
int bs_meta_take(struct bs *bs, enum bs_meta_user user, uint64_t *block);
void bs_meta_give(struct bs *bs, enum bs_meta_user user, uint64_t block);
/* Recovery: a unit found in use. -EUCLEAN: somebody else has some of it (*bad). */
int bs_meta_claim(struct bs *bs, enum bs_meta_user user, uint64_t block, uint64_t *bad);
/* Takes what R7 asks for, gives back what is far over it. False: not all of it is there, at least (must: even) of what is promised to nobody. */
bool bs_meta_balance(struct bs *bs, bool must);
uint64_t bs_meta_bytes_owned(struct bs *bs);

/* ---- the log ---- */

/* The append buffer: a ring in the caller's arena or our own, addressed by offsets only. */
struct bs_ring_head {
	uint64_t magic, size, data; /* bytes of data, offset of data from this head */
	_Atomic uint64_t head;      /* bytes ever appended; stored after they are in place */
	struct {
		uint64_t pos, lsn;  /* bytes ever written home, LSN of the last record among them */
	} tail[2];
	_Atomic uint32_t which;     /* the tail that counts */
};
struct bs_ring {
	struct bs_ring_head *h;
	uint8_t *data;
	uint64_t size;
	void *own;
};
int bs_ring_init(struct bs_ring *ring, void *arena, uint64_t arena_size, uint64_t lsn);
void bs_ring_free(struct bs_ring *ring);
uint64_t bs_ring_head(const struct bs_ring *ring);
uint64_t bs_ring_tail(const struct bs_ring *ring);
void bs_ring_put(struct bs_ring *ring, uint64_t pos, const void *buf, uint64_t len);
void bs_ring_get(const struct bs_ring *ring, uint64_t pos, void *buf, uint64_t len);
void bs_ring_publish(struct bs_ring *ring, uint64_t head);
void bs_ring_consume(struct bs_ring *ring, uint64_t tail, uint64_t lsn);

struct bs_log_pos { /* where a frame goes */
	uint64_t segment, nonce, seq;
	uint32_t offset; /* in blocks from the segment's start; segment_blocks: at its end */
};
struct bs_segment {
	TAILQ_ENTRY(bs_segment) link;
	uint64_t block;
};
struct bs_commit_waiter {
	TAILQ_ENTRY(bs_commit_waiter) link;
	struct op *op;
	uint64_t lsn, gen;
	uint64_t since_ns;      /* for room: when it began, in real time */
	bool room, gone;        /* room: in the ring; gone: one with cond is in no list any more */
	bool paced;             /* it found the gate closed, but not the limit reached */
	struct bs_turn *turn;   /* of a thread, which measures how long it waits; NULL: to be measured here, if since_ns is set */
	pthread_cond_t *cond;   /* where that thread sleeps, without an op */
	struct op_driver *home; /* of an asynchronous one, which counts in n_async; else NULL */
};
TAILQ_HEAD(bs_commit_waiters, bs_commit_waiter);

struct bs_pace { /* pace.c; what is not atomic is under log->lock */
	_Atomic uint64_t gate;      /* a transaction may begin while the log is shorter */
	_Atomic uint32_t waiting;   /* in room_waiters */
	_Atomic uint32_t turns;     /* so many may begin although others wait */
	_Atomic uint32_t owed;      /* turns of threads that have not taken them yet */
	_Atomic uint32_t ring_waiting, ring_turns; /* the same for room in the ring */
	_Atomic uint32_t txn_bytes; /* mean of late */
	bool on, ticking;           /* ticking: the service thread comes back every millisecond */
	uint64_t plan;              /* where the gate should be */
	uint64_t done, total;       /* bytes of the checkpoint's pages */
	uint64_t began_ns, last_ns, tail_began_ns, tail_ns;
	double byte_ns;
};

struct bs_log {
	struct bs *bs;
	struct bdev_channel *ch;
	pthread_mutex_t lock;
	bool volatile_cache, fua;
	uint32_t segment_blocks;
	uint8_t uuid[16];
	struct bs_ring ring;
	_Atomic uint64_t lsn, durable_lsn;
	/* limits, in bytes; trigger starts a checkpoint, limit holds transactions back */
	_Atomic uint64_t trigger, limit, slack, txn_max;
	/* live segments, oldest first, the current one last; then the announced one */
	TAILQ_HEAD(, bs_segment) segments;
	uint32_t n_segments;
	struct bs_segment *next;
	uint64_t next_nonce;
	struct bs_log_pos pos;  /* of the next frame to be sealed */
	uint32_t start_offset;  /* replay would begin here in the oldest segment */
	_Atomic uint64_t used_blocks;
	struct bs_commit_waiters waiters, room_waiters, spare;
	struct bs_pace pace;
	uint32_t n_waiters;     /* in waiters */
	uint32_t n_async;
	bool watched;           /* the service thread was told to watch the channel */
	/* the writer: one op, one frame in flight */
	struct op wop;
	bool busy;
	struct bdev_io io;
	uint8_t *frame, *header;
	bool open_txn;             /* the last sealed record was not its transaction's last */
	bool with_frame, with_flush, with_switch;
	bool lead_waits; /* until the first I/O: the thread that starts the writer will wait for a commit */
	uint64_t sealed_pos, sealed_lsn; /* end of what is sealed */
	uint32_t expected;               /* so many may wait soon; 0: the next round need not look for them */
	uint32_t gather_skip, gather_pause; /* rounds that do not look for them: still to come, in all */
	pthread_cond_t came;             /* with lock: n_waiters has reached expected */
	uint64_t write_began, write_ns;
	uint64_t frame_block, frame_len;
	uint64_t flush_gen;             /* data_gen when a flush was submitted */
	_Atomic uint64_t flushed_gen;   /* when the last successful one was */
	struct bs_segment *new_segment;  /* successor reserved for a switch */
	uint64_t new_nonce;
	/* numbers */
	_Atomic uint64_t commits, writes, write_bytes, flushes, switches;
	uint64_t replayed_records, replayed_bytes;
};

int bs_log_create(struct bs *bs);  /* before replay: state only */
int bs_log_start(struct bs *bs);   /* after recovery, writable: buffers, channel */
void bs_log_stop(struct bs *bs);   /* waits for the writer */
void bs_log_destroy(struct bs *bs);
/* The limits for a store whose last checkpoint had so many bytes. */
void bs_log_set_limits(struct bs *bs);
/* The same, and units for them: smaller limits where the store is too full. */
void bs_log_fit_limits(struct bs *bs);
bool bs_log_room_wanted(struct bs *bs); /* somebody waits for room */
uint64_t bs_log_cap_units(const struct bs *bs);
uint64_t bs_log_used_bytes(const struct bs *bs);
bool bs_log_wants_checkpoint(const struct bs *bs);
int bs_log_replay(struct bs *bs, struct base_err *err);
/* The frame at an offset of the segment at `block`, whatever its sequence number, if it is one of `uuid` and ends within `left` blocks. */
const struct bs_frame_disk *bs_frame_at(const uint8_t uuid[16], const uint8_t *seg, uint64_t block, uint64_t nonce, uint32_t offset,
					uint32_t left);
/* Where replay would have to begin for what is appended from now on; bs->lock held. */
void bs_log_get_pos(struct bs *bs, struct bs_log_pos *pos);
/* The superblock names pos now: segments before it are free, who waits for room goes on with rc. */
void bs_log_release(struct bs *bs, const struct bs_log_pos *pos);
void bs_log_room_done(struct bs *bs, int rc);
uint64_t bs_log_length(const struct bs *bs); /* written and not */
/* pace.c. Of one who asks, bs->lock held; of one who is about to wait, log->lock held. */
#define BS_TXN_NOW (1u << 30)  /* enum bs_txn_flags, of our own: only the limit holds it back */
#define BS_TXN_TURN (1u << 29) /* the same: it takes the turn that it was given */
void bs_pace_init(struct bs_pace *p);
bool bs_pace_admits(struct bs *bs, uint32_t flags);
bool bs_pace_refuses(struct bs_log *log);
/* The same for room in the ring. */
bool bs_ring_admits(struct bs_log *log, uint32_t flags);
bool bs_ring_refuses(struct bs_log *log);
/* log->lock held: a frame is durable, so many of those who wait for room in the ring may go. */
uint32_t bs_ring_turns(struct bs_log *log);
/* As bs_log_wait_turn, if a checkpoint paces; -EAGAIN: it does not. */
int bs_pace_wait(struct bs *bs, struct bs_turn *turn);
void bs_pace_join(struct bs_log *log, struct bs_commit_waiter *w);
void bs_pace_turn_taken(struct bs_log *log);
void bs_pace_give(struct bs_log *log, struct bs_commit_waiter *w);
void bs_pace_appended(struct bs_log *log, uint32_t bytes);
void bs_pace_next(struct bs *bs);
bool bs_pace_step(struct bs *bs); /* the service thread's: true: it comes back in a millisecond */
void bs_pace_begin(struct bs *bs, uint64_t total);
void bs_pace_progress(struct bs *bs, uint64_t done, uint64_t total);
void bs_pace_tail(struct bs *bs);
void bs_pace_end(struct bs *bs, int rc); /* lets all go */
struct bs_segment *bs_segment_new(struct bs_log *log, uint64_t block);
void bs_log_fail_commits(struct bs *bs, int rc);
void bs_log_fail_waiters(struct bs *bs, int rc); /* those for room, too */
/* log_write.c; log->lock held / not held */
bool bs_log_writer_claim(struct bs_log *log);
void bs_log_writer_start(struct bs_log *log, bool waits);
/* Ends the wait of these ops, which are in no list any more; the nodes go back to the spare ones. */
void bs_log_let_go(struct bs_log *log, struct bs_commit_waiters *list, int rc);
bool bs_log_satisfied(const struct bs_log *log, const struct bs_commit_waiter *w);

/* ---- checkpoints ---- */

struct bs_ckpt_units { /* units of a checkpoint's pages */
	uint64_t *unit;
	uint32_t n, cap;
};
int bs_ckpt_create(struct bs *bs);
void bs_ckpt_destroy(struct bs *bs);
/* Loads the checkpoint the superblock names; notes its units. */
int bs_ckpt_load(struct bs *bs, struct base_err *err);
const struct bs_ckpt_units *bs_ckpt_units(const struct bs *bs);
/* Starts one unless one runs. Service thread, or anybody without one. */
void bs_ckpt_start(struct bs *bs);
/* As a child of op: a checkpoint that begins after this call is done; clean: it marks the store as closed in order. */
void bs_ckpt_wait_start(struct bs *bs, struct op *op, bool clean);
bool bs_ckpt_wanted(struct bs *bs);
bool bs_ckpt_idle(struct bs *bs);
uint64_t bs_ckpt_bytes(const struct bs *bs);
void bs_ckpt_get_stat(struct bs *bs, struct bs_stat *st);
/* Of bytes written to superblocks at opening. */
void bs_ckpt_count(struct bs *bs, uint64_t bytes);

/* ---- service.c ---- */

enum bs_service_bits {
	BS_KICK_LOG = 1 << 0,    /* somebody asynchronous waits for a commit: watch the log's channel */
	BS_KICK_COMMIT = 1 << 1, /* commit now */
	BS_KICK_TIMER = 1 << 2,  /* something is uncommitted: commit within commit_ms */
	BS_KICK_CKPT = 1 << 3,   /* checkpoint */
	BS_KICK_DISCARD = 1 << 4,/* something may be discarded, or was */
	BS_KICK_SUMS = 1 << 5,   /* page out checksums */
	BS_KICK_PACE = 1 << 6,   /* somebody waits for his turn */
};
int bs_service_start(struct bs *bs);
void bs_service_stop(struct bs *bs);
/* Any thread; nothing without a service thread. */
void bs_service_kick(struct bs *bs, unsigned bits);

/* ---- open.c ---- */

/* Opens read-only, telling the reporter of every problem and going on where that makes sense. */
int bs_open_checked(struct bdev *dev, struct bs_reporter *reporter, struct bs **out, struct base_err *err);
void bs_release(struct bs *bs); /* closes it, leaving the device open */
/* Opens for writing what is left of a store; nothing is written but a new, empty log. */
int bs_open_mending(struct bdev *dev, struct bs_reporter *reporter, struct bs **out, struct base_err *err);

#endif
