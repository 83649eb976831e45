/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the driver share: the controller, its queues, the table of a transport. */
#ifndef NVME_INTERNAL_H
#define NVME_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#include "base/util.h"
#include "nvme/nvme.h"
#include "nvme/spec.h"

#define NVME_MAX_QPAIRS 256u
#define NVME_MAX_DEPTH \
	1023u /* commands of a queue pair: ten bits of a command id name the request */
#define NVME_MAX_NS 256u
#define NVME_LIST_ENTRIES (NVME_PAGE / 8u)
/* With a list of one page, whatever the alignment of the data. */
#define NVME_MAX_TRANSFER ((uint32_t)(NVME_LIST_ENTRIES * NVME_PAGE))
#define NVME_ADMIN_TIMEOUT_MS 5000u

/*
 * A way to a controller. Commands and completions know nothing of it: they are in memory, and what is not is a
 * register. Errors of read and write mean that the controller is gone (-ENODEV).
 */
struct nvme_transport {
	const char *prefix; /* of addresses */
	int (*open)(struct nvme_ctrlr *c, const char *where, struct base_err *err);
	void (*close)(struct nvme_ctrlr *c);
	void (*forked)(struct nvme_ctrlr *c);
	/*
	 * size: 4 or 8 bytes. Neither waits. -EINPROGRESS: read: the value is on its way, ask again; write: it cannot be sent now, or only in
	 * part, write it again (a doorbell never says so). Any thread.
	 */
	int (*read)(struct nvme_ctrlr *c, uint32_t reg, unsigned size, uint64_t *value);
	int (*write)(struct nvme_ctrlr *c, uint32_t reg, unsigned size, uint64_t value);
	/* Doorbells of that queue pair that are still to be written are not: its queues are new ones. Any thread. NULL: they are written at once. */
	void (*forget)(struct nvme_ctrlr *c, unsigned qid);
	/* Takes what has come of answers; true: more is on its way. Any thread. NULL: registers are memory. */
	bool (*look_after)(struct nvme_ctrlr *c);
	/* Bytes of registers and doorbells. */
	uint64_t (*size)(struct nvme_ctrlr *c);
	/* Where a register can be written directly; NULL: only by write. */
	volatile uint32_t *(*mapped)(struct nvme_ctrlr *c, uint32_t reg);
	/* How many interrupt vectors there are. */
	unsigned (*vectors)(struct nvme_ctrlr *c);
	/* The vector signals the eventfd from now on. */
	int (*bind)(struct nvme_ctrlr *c, unsigned vector, int eventfd);
	/* False: the controller is gone. Cheap, any thread. */
	bool (*alive)(struct nvme_ctrlr *c);
	int (*gone_fd)(const struct nvme_ctrlr *c);
	short gone_events; /* what poll says of gone_fd then: POLLRDHUP or POLLIN */
	/* True: from now on the controller changes no memory of ours. May wait a second for it. Any thread, no lock of the transport. */
	bool (*cut_off)(struct nvme_ctrlr *c);
};
extern const struct nvme_transport nvme_vfio_user, nvme_pcie;

struct nvme_ns {
	struct nvme_ns_info info;
	unsigned shift;       /* of the block size */
	uint32_t max_blocks;  /* of a read or write */
	uint32_t zero_blocks, verify_blocks, range_blocks; /* of Write Zeroes, of Verify, of a range to be deallocated */
	int unusable;         /* why, as an errno, or 0 */
	uint32_t copy_blocks; /* of a copy; 0: it has none */
	/* What a read or write may be to take the short way (qpair.c): its blocks, 0: none; and the optimal boundary less one, or all ones. */
	uint64_t short_blocks, boundary_mask;
	/* Metadata beside the blocks, which nobody uses: bytes a block (0: none), where those read go, and where zeroes are to write. */
	uint32_t meta;
	uint64_t meta_in, meta_out;
	/* Protection information: what CDW12 says of it, and the mask that makes a place its reference tag. */
	uint32_t prinfo, tag_mask;
};
extern const struct nvme_ns nvme_no_ns; /* of which nothing can be read */

/* The admin queue (admin.c). */
#define ADMIN_ENTRIES 64u
#define ADMIN_SLOTS \
	32u /* less than entries, so that the queue is never full; five bits of a command id */

enum admin_state {
	ADMIN_FREE,
	ADMIN_SENT,
	ADMIN_NOBODYS, /* sent, and nobody asks for its result */
	ADMIN_LEFT,    /* late: the controller may still have it */
	ADMIN_DONE,
};

struct admin_slot {
	uint64_t deadline_ns;
	uint32_t dw0, generation;
	uint16_t status;
	uint8_t state, opcode;
};

struct admin {
	struct nvme_sqe *sq;
	volatile struct nvme_cqe *cq;
	uint8_t *page; /* for data of what is said by steps */
	uint16_t tail, head;
	uint8_t phase;
	unsigned aborts; /* under way */
	bool stopped;    /* the controller was told to stop: its doorbells are not rung */
	volatile uint32_t *sq_db, *cq_db;
	struct admin_slot slot[ADMIN_SLOTS];
};

struct admin_answer {
	uint32_t dw0;
	uint16_t status; /* 0: success, or none came */
};

/* Starting and stopping, step by step (start.c). */
enum start_kind {
	START_STOP,   /* only stops it */
	START_ENABLE, /* stops it, and starts it with its admin queue */
	START_SETUP,  /* tells it what it must know before queues are made */
	START_RESET,  /* all of this */
};

struct nvme_start {
	enum start_kind kind;
	int step, handle;
	uint32_t nsid; /* that is looked at again */
	uint64_t deadline_ns, next_look_ns;
	struct base_err err;
};

/* What the controller tells by itself (events.c). */
#define NVME_EVENTS_AT_ONCE 4u

struct nvme_event_state {
	int aer[NVME_EVENTS_AT_ONCE]; /* handles */
	unsigned n;                   /* 0: it is not asked */
	uint32_t pending[8];          /* told of, and not looked at */
	unsigned npending;
	int step, handle;     /* of the command that looks closer; -1: it is still to be sent */
	struct nvme_sqe sqe;  /* that command */
	unsigned page, index;
	uint32_t *ids;         /* a page: a log, or a list of namespaces */
	struct nvme_id_ns *id; /* another */
	struct nvme_events counts;
	uint64_t next_log_ns;      /* before, no log but that of namespaces is read */
	uint64_t next_said_ns[4];  /* before, an event of that type is no news */
};

enum nvme_state {
	NVME_RUNNING,
	NVME_RESETTING, /* it is being stopped and started; no I/O queue exists */
	NVME_FAILED,    /* for good */
};

struct nvme_ctrlr {
	const struct nvme_transport *transport;
	void *tp; /* the transport's */
	struct nvme_ctrlr_info info;
	struct nvme_opts opts;
	uint64_t cap;
	uint32_t shutdown_ms;
	unsigned abort_limit; /* aborts at once, less one */
	unsigned granted;     /* I/O queues, since it was last started; under table_lock */

	/*
	 * The I/O queues of a controller are of an epoch; each reset begins a new one, and a failure too. A queue pair that
	 * finds itself in an older one makes itself anew in its own poll, so that no thread ever touches another's.
	 */
	atomic_uint epoch;
	atomic_int state; /* enum nvme_state */
	/*
	 * It has failed and could not be cut off. What it has not yet taken from its queues is made void (qpair_finish_all), and the memory
	 * it knows of queues and admin commands is not used again. A command it had taken before may still write to its buffer.
	 */
	atomic_bool at_large;
	_Atomic uint64_t tick_ns; /* an eighth of the timeout; it may become less */
	atomic_uint resets; /* that it needed since it last completed an I/O command */

	/* The admin queue and resets. Nobody waits for the controller with it; polls only try to take it. */
	pthread_mutex_t lock;
	struct admin admin;
	struct nvme_start start;
	struct nvme_event_state events;
	int event_fd; /* the admin queue's interrupt, or -1 */
	uint32_t oaes;
	/* Doorbells of the I/O queues in memory, and how far the controller has seen them without being rung for; NULL: it has none. */
	volatile uint32_t *shadow, *shadow_seen;
	pthread_mutex_t table_lock;                     /* the table of queues; inside the other */
	struct nvme_qpair *qpairs[NVME_MAX_QPAIRS + 1]; /* by queue id, from 1 */
	unsigned nqpairs;

	char *meta; /* two pages: metadata read, and the zeroes that are written (piece.c) */
	uint16_t awupf, crdt[3];
	uint64_t max_zeroes, max_verify; /* bytes of one such command; 0: it does not say, so max_transfer */
	uint32_t max_range;              /* blocks */
	bool directives;        /* it has some */
	atomic_bool streams_on; /* since it was last started */
	atomic_uint nns;
	struct nvme_ns ns[NVME_MAX_NS]; /* see ns.c for what of them may change */
};

/* streams.c: how many streams there are, into c->info. An error only if the controller is gone or memory is short. */
#define NVME_MAX_STREAMS 64u
int streams_find(struct nvme_ctrlr *c);

enum req_state {
	REQ_FREE,
	REQ_SENT,
	REQ_RETRY,
	REQ_DELAYED, /* is sent again when its time has come */
};

/* A command, or a part of one, that the controller has. */
struct nvme_req {
	struct nvme_cmd *cmd;
	const struct nvme_ns *ns; /* as it was when the piece was made */
	uint64_t prp1, prp2;
	uint64_t lba;
	uint64_t due_ns; /* when a delayed one is sent again */
	uint32_t blocks; /* one dataset management range holds 2^32 - 1 */
	uint32_t tick;   /* of the queue pair's, when it was sent */
	uint32_t prinfo; /* the namespace's */
	uint16_t next_free;
	/* The request's number in ten bits, and a generation, so that an old completion does not pass for a new one. */
	uint16_t cid;
	uint8_t state; /* enum req_state */
	uint8_t tries;
	bool aborted, timed_out, sgl;
};

struct nvme_cmd_list {
	struct nvme_cmd *head, **tail;
};

struct nvme_qpair {
	/* What each command touches. */
	struct nvme_sqe *sq;
	volatile struct nvme_cqe *cq;
	struct nvme_req *reqs;
	uint64_t *lists; /* a page for each request */
	volatile uint32_t *sq_db, *cq_db;
	struct nvme_ctrlr *c;
	const struct nvme_ns *ns; /* the last that was used */
	unsigned epoch;
	unsigned until_check; /* polls before the clock is looked at */
	uint16_t entries;     /* of each queue */
	uint16_t tail, rung;
	uint16_t head;
	uint16_t phase;
	uint16_t free_req; /* first of the list, NO_REQ: none */
	uint16_t sent;     /* with the controller */
	uint16_t delayed;
	unsigned outstanding;
	uint32_t tick;
	struct nvme_cmd_list waiting;  /* not all of it with the controller */
	struct nvme_cmd_list finished; /* to be called back */

	uint16_t id, depth;
	int join, join_handle,
		join_rc; /* making the queues in the controller: enum in qpair_make.c */
	unsigned join_epoch, join_failures; /* in a row */
	int eventfd; /* -1: none */
	bool looking; /* at the status of the controller */
	bool idle;   /* nothing was completed since the last look at the clock */
	uint64_t last_look_ns, next_check_ns, next_alive_ns, last_events_ns;
	unsigned strays; /* completions of no command */
};

#define NO_REQ 0xffffu
#define TICKS_TO_ABORT 9u /* of an eighth of the timeout: never early */

/* Bytes of one command, from identify. */
static inline uint32_t nvme_mdts_bytes(uint8_t mdts)
{
	return mdts && mdts < 20 ? MIN(NVME_MAX_TRANSFER, NVME_PAGE << MIN(mdts, 16)) : NVME_MAX_TRANSFER;
}

static inline uint64_t nvme_mmio_ready(const struct nvme_ctrlr *c)
{
	return NVME_CAP_TO(c->cap) ? NVME_CAP_TO(c->cap) * 500ull : 500ull;
}

/* ---- memory.c ---- */
#define NVME_GRANULE (2 * MiB) /* of memory that an IOMMU is told of; a huge page */
struct nvme_pool {
	char *base;
	uint64_t size;
	uint64_t plain;     /* so much of it, at its beginning, is ordinary pages */
	uint64_t plain_end, huge_end; /* what lies beyond is not taken: a server does not reach it */
	uint64_t *physical; /* by granule; NULL: addresses for controllers are a subtraction */
	int fd;             /* the ordinary pages */
	int huge_fd;        /* the huge pages, or -1 */
};
#define NVME_IOVA_BASE (4 * GiB) /* where a pool begins for controllers; low enough for 39 bits */
extern struct nvme_pool nvme_pool;

enum nvme_reach_kind {
	NVME_REACH_FILE,     /* the transport hands the files of the pool on */
	NVME_REACH_IOMMU,    /* an IOMMU is told where a granule is */
	NVME_REACH_PHYSICAL, /* addresses are physical; huge pages only, as others may move */
};

/* How the controllers of a transport reach the pool. */
struct nvme_reach {
	enum nvme_reach_kind kind;
	/* IOMMU: from now on len bytes at va have this address, and stay where they are. */
	int (*map)(void *va, uint64_t iova, uint64_t len);
	/* PHYSICAL */
	int (*physical)(const void *p, uint64_t *address);
};
/*
 * Makes the pool, if there is none, such that it can be reached in this way, and what is taken of it known. One unuse for each
 * use. -ENOMEM, -EBUSY: the process has memory that cannot be reached so, -EPERM, -ENOSPC: no huge pages.
 */
int nvme_pool_use(const struct nvme_reach *r);
void nvme_pool_unuse(const struct nvme_reach *r);
/* From now on memory is only taken before these places. -ENOMEM: some is in use beyond. */
int nvme_pool_limit(uint64_t plain_end, uint64_t huge_end);
static inline uint64_t nvme_iova_linear(const void *p)
{
	return (uint64_t)((const char *)p - nvme_pool.base) + NVME_IOVA_BASE;
}
static inline uint64_t nvme_iova(const void *p)
{
	uint64_t at = (uint64_t)((const char *)p - nvme_pool.base);

	if (__builtin_expect(nvme_pool.physical != NULL, 0))
		return nvme_pool.physical[at / NVME_GRANULE] + at % NVME_GRANULE;
	return nvme_iova_linear(p);
}
static inline bool nvme_reachable(const void *p, size_t len)
{
	uint64_t at = (uint64_t)((const char *)p - nvme_pool.base);

	return at < nvme_pool.size && len <= nvme_pool.size - at;
}

/* How much of len bytes at p has addresses for controllers without a gap. */
static inline uint64_t nvme_contiguous(const void *p, uint64_t len)
{
	if (__builtin_expect(nvme_pool.physical != NULL, 0))
		return MIN(len, NVME_GRANULE - (uintptr_t)p % NVME_GRANULE);
	return len;
}

/* ---- backing.c: under the pool's lock ---- */
/* The window and its files. Huge pages: -ENOSPC if there are none and they must be. */
int backing_make(const struct nvme_reach *r);
int backing_reach(const struct nvme_reach *r);
void backing_unreach(const struct nvme_reach *r);
/* Sees to it that the bytes are there and that controllers reach them. -ENOMEM, -EPERM */
int backing_hold(uint64_t at, uint64_t len);
/* Pages of a free span, which it may give back to the system. */
void backing_release(uint64_t at, uint64_t len);
/* In a forked child: what it sees of the pool becomes its own, and the pool no pool. */
void backing_forked(void);
/* CLOCK_MONOTONIC, which a fake clock does not stop. */
uint64_t nvme_now_ns(void);
void nvme_sleep_us(unsigned us);

/* ---- ctrlr.c ---- */
static inline uint64_t ctrlr_tick_ns(uint32_t timeout_ms)
{
	return MAX(timeout_ms * 125000ull, 1000000ull);
}
int ctrlr_look(struct nvme_ctrlr *c, uint32_t reg, unsigned size, uint64_t *value); /* -EINPROGRESS */
/* The same, and waits. */
int ctrlr_read(struct nvme_ctrlr *c, uint32_t reg, unsigned size, uint64_t *value);
int ctrlr_write(struct nvme_ctrlr *c, uint32_t reg, unsigned size, uint64_t value);
static inline bool ctrlr_look_after(struct nvme_ctrlr *c)
{
	return c->transport->look_after && c->transport->look_after(c);
}
/* The doorbell, or NULL. */
volatile uint32_t *ctrlr_doorbell(struct nvme_ctrlr *c, unsigned qid, bool cq);
/* Of queues that are about to be new. */
static inline void ctrlr_forget(struct nvme_ctrlr *c, unsigned qid)
{
	if (c->transport->forget)
		c->transport->forget(c, qid);
}
/* A doorbell that is not mapped, or has a shadow. */
void ctrlr_ring_slowly(struct nvme_ctrlr *c, unsigned qid, bool cq, uint32_t value);
static inline void ctrlr_ring(struct nvme_ctrlr *c, volatile uint32_t *db, unsigned qid, bool cq,
			      uint32_t value)
{
	/* What the queue holds is there before its doorbell rings. */
	if (__builtin_expect(db != NULL, 1))
		__atomic_store_n(db, value, __ATOMIC_RELEASE);
	else
		ctrlr_ring_slowly(c, qid, cq, value);
}

/* Memory that the controller was told of, and which it may still use if it is at large. */
static inline void ctrlr_free(struct nvme_ctrlr *c, void *p)
{
	if (!atomic_load(&c->at_large))
		nvme_free(p);
}

/* ---- pcie_find.c ---- */
enum pcie_driver { PCIE_VFIO, PCIE_UIO };

/* A controller in this machine, and whose driver gives it to us. */
struct pcie_place {
	char bdf[16];
	enum pcie_driver driver;
	int group; /* IOMMU's */
	int uio;
};
/* "0000:01:00.0" from what people write for it. False: it is no such address. */
bool pcie_normal(const char *text, char bdf[16]);
/* Finds it, or says what is wrong and what to do about it. held: this process has its IOMMU group already. */
int pcie_find(const char *text, bool (*held)(int group), struct pcie_place *out,
	      struct base_err *err);
/* For tests: stands before /sys and /dev. */
extern const char *pcie_root;

/* ---- eal.c ---- */
/* Starts DPDK's environment, once for the process. -EPERM in a process forked from one that had; -EIO. Any thread. */
int nvme_eal_start(const char *name, struct base_err *err);

/* ---- events.c ---- */
/* limit: how many requests the controller takes, less one. */
void events_init(struct nvme_ctrlr *c, unsigned limit);
/* Lock held. */
void events_advance(struct nvme_ctrlr *c);

/* ---- ns.c ---- */
int ns_read_all(struct nvme_ctrlr *c, struct base_err *err);
/* Lock held: what a namespace is from now on; 0, or why it cannot be used. */
int ns_learn(struct nvme_ctrlr *c, uint32_t nsid, const struct nvme_id_ns *id,
	     struct base_err *err);
/* Lock held: it cannot be identified. */
void ns_lose(struct nvme_ctrlr *c, uint32_t nsid, int why);
/* Lock held: the next that is known, whatever it is; 0: there is none. */
uint32_t ns_known_after(const struct nvme_ctrlr *c, uint32_t nsid);
/* The one that can be used, or one that cannot; NULL: there is none. Any thread. */
const struct nvme_ns *ns_find(const struct nvme_ctrlr *c, uint32_t nsid);
/* Asks the controller anew, of one namespace or of all. Without the lock. */
int ns_refresh(struct nvme_ctrlr *c, uint32_t nsid);
static inline int ns_unusable(const struct nvme_ns *ns)
{
	return __atomic_load_n(&ns->unusable, __ATOMIC_RELAXED);
}

/* The blocks of this piece are of a namespace that is another now, or none. */
static inline bool req_outdated(const struct nvme_req *r)
{
	return ns_unusable(r->ns);
}

static inline uint64_t ns_blocks(const struct nvme_ns *ns)
{
	return __atomic_load_n(&ns->info.blocks, __ATOMIC_RELAXED);
}

/* ---- admin.c ---- */
int admin_init(struct nvme_ctrlr *c);
void admin_clear(struct nvme_ctrlr *c);
void admin_free(struct nvme_ctrlr *c);
/* Lock held: sends a command, whose prp1 and prp2 are the caller's; returns a handle, -EAGAIN (no slot is free) or -ENODEV. timeout_ms 0:
 * it may take for ever. */
int admin_start(struct nvme_ctrlr *c, struct nvme_sqe *sqe, uint32_t timeout_ms);
/* Lock held: -EINPROGRESS, or the command's result, once. -ECANCELED without a status: a reset took it away. -ETIMEDOUT without a
 * status: it is late, and what it points at is the controller's until a reset. */
int admin_result(struct nvme_ctrlr *c, int handle, struct admin_answer *out);
/* Lock held: asks the controller to abort a command; nobody waits for the answer. -EAGAIN: later. */
int admin_abort(struct nvme_ctrlr *c, uint16_t qid, uint16_t cid);
/* Lock held: takes completions. */
void admin_poll(struct nvme_ctrlr *c);
/* Lock held: an abort has not come back. */
bool admin_overdue(struct nvme_ctrlr *c);
/* Without the lock: sends and waits. *epoch: in which it was sent. */
int admin_run(struct nvme_ctrlr *c, struct nvme_sqe *sqe, uint32_t timeout_ms, unsigned *epoch,
	      struct admin_answer *out);

/* ---- start.c ---- */
/* Lock held: what the controller is to be told, or brought to, goes on as far as it can without waiting. */
void ctrlr_advance(struct nvme_ctrlr *c);
/* Lock held. */
void start_begin(struct nvme_ctrlr *c, enum start_kind kind);
/* Without the lock: begins, and waits until it is done. */
int start_run(struct nvme_ctrlr *c, enum start_kind kind, struct base_err *err);
/* Gone for good. With the lock or without. */
void ctrlr_fail(struct nvme_ctrlr *c, const char *why);
/* Lock held: a reset begins, unless one has since `epoch`. */
void ctrlr_begin_reset(struct nvme_ctrlr *c, unsigned epoch, const char *why);
/* The same, because it does not answer: the last of too many without an I/O command completed gives it up. */
void ctrlr_begin_recovery(struct nvme_ctrlr *c, unsigned epoch, const char *why);
/* True: as often as this it has been tried in vain, and a command has had all its repetitions. */
static inline bool ctrlr_tried_enough(const struct nvme_ctrlr *c, unsigned times)
{
	return times > c->opts.retries + 2;
}
/* A reset that the caller has a reason for, and waits for its end. Without the lock. */
int ctrlr_reset(struct nvme_ctrlr *c, unsigned epoch, const char *why);
/* Waits until no reset is under way; -ENODEV: the controller is gone. Without the lock. */
int ctrlr_await_reset(struct nvme_ctrlr *c);
/* Looks at its status: 0, -EINPROGRESS, -EIO: a fatal error, -ENODEV: gone, and given up. Never waits. */
int ctrlr_health(struct nvme_ctrlr *c);

/* ---- qpair.c ---- */
void qpair_finish_all(struct nvme_qpair *q, int rc);
void req_release(struct nvme_qpair *q, struct nvme_req *r);
/* Sends (again) what r says. */
void req_send(struct nvme_qpair *q, struct nvme_req *r);
/* A piece has ended. */
void req_end(struct nvme_qpair *q, struct nvme_req *r, int rc, uint16_t status);
/* Waiting commands into free requests. */
void qpair_pump(struct nvme_qpair *q);
void qpair_clear(struct nvme_qpair *q);

static inline void cmd_push(struct nvme_cmd_list *l, struct nvme_cmd *cmd)
{
	cmd->next = NULL;
	*l->tail = cmd;
	l->tail = &cmd->next;
}

static inline struct nvme_cmd *cmd_pop(struct nvme_cmd_list *l)
{
	struct nvme_cmd *cmd = l->head;

	if (cmd) {
		l->head = cmd->next;
		if (!l->head)
			l->tail = &l->head;
	}
	return cmd;
}

/* ---- qpair_make.c ---- */
/* Lock held: creates the queues in the controller, step by step: -EINPROGRESS, 0 (they are there, in the present epoch) or an error. */
int qpair_join(struct nvme_qpair *q);

/* ---- recover.c ---- */
/* The queue pair is of an old epoch. */
void qpair_recover(struct nvme_qpair *q);
/* The clock may have moved. */
void qpair_check(struct nvme_qpair *q);

/* ---- piece.c ---- */
enum piece { PIECE_LAST, PIECE_MORE };
/*
 * Makes r the next piece of cmd, as much as the controller takes at once, and moves cmd on. More: something of it is
 * left. Negative errno: it cannot be done.
 */
int piece_make(struct nvme_qpair *q, struct nvme_cmd *cmd, struct nvme_req *r);
void piece_fill(const struct nvme_req *r, struct nvme_sqe *sqe);
/* 0, or why cmd cannot be taken; sets q->ns. */
int piece_check(struct nvme_qpair *q, const struct nvme_cmd *cmd);
static inline uint64_t piece_opcode(enum nvme_op op)
{
	static const uint8_t opcodes[] = {
		[NVME_READ] = NVME_NVM_READ,
		[NVME_WRITE] = NVME_NVM_WRITE,
		[NVME_FLUSH] = NVME_NVM_FLUSH,
		[NVME_WRITE_ZEROES] = NVME_NVM_WRITE_ZEROES,
		[NVME_DEALLOCATE] = NVME_NVM_DSM,
		[NVME_COMPARE] = NVME_NVM_COMPARE,
		[NVME_VERIFY] = NVME_NVM_VERIFY,
		[NVME_COPY] = NVME_NVM_COPY,
		[NVME_RAW] = 0,
	};

	return opcodes[op];
}

#endif
