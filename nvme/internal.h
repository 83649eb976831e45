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
	/* size: 4 or 8 bytes. Any thread. */
	int (*read)(struct nvme_ctrlr *c, uint32_t reg, unsigned size, uint64_t *value);
	int (*write)(struct nvme_ctrlr *c, uint32_t reg, unsigned size, uint64_t value);
	/* Where a register can be written directly; NULL: only by write. */
	volatile uint32_t *(*mapped)(struct nvme_ctrlr *c, uint32_t reg);
	/* How many interrupt vectors there are. */
	unsigned (*vectors)(struct nvme_ctrlr *c);
	/* The vector signals the eventfd from now on. */
	int (*bind)(struct nvme_ctrlr *c, unsigned vector, int eventfd);
	/* False: the controller is gone. Cheap, any thread. */
	bool (*alive)(struct nvme_ctrlr *c);
	int (*gone_fd)(const struct nvme_ctrlr *c);
};
extern const struct nvme_transport nvme_vfio_user;

struct nvme_ns {
	struct nvme_ns_info info;
	unsigned shift;      /* of the block size */
	uint32_t max_blocks; /* of a read or write */
	int unusable;        /* why, as an errno, or 0 */
};

/* The admin queue: one command at a time, under the controller's lock. */
struct admin {
	struct nvme_sqe *sq;
	volatile struct nvme_cqe *cq;
	uint16_t tail, head, cid;
	uint8_t phase;
	volatile uint32_t *sq_db, *cq_db;
};

enum nvme_state {
	NVME_RUNNING,
	NVME_RESETTING, /* no I/O queue exists, or not all of them */
	NVME_FAILED,    /* for good */
};

struct nvme_ctrlr {
	const struct nvme_transport *transport;
	void *tp; /* the transport's */
	struct nvme_ctrlr_info info;
	struct nvme_opts opts;
	uint64_t cap;
	uint32_t shutdown_ms;

	/*
	 * The I/O queues of a controller are of an epoch; each reset begins a new one, and a failure too. A queue pair that
	 * finds itself in an older one makes itself anew in its own poll, so that no thread ever touches another's.
	 */
	atomic_uint epoch;
	atomic_int state; /* enum nvme_state */

	pthread_mutex_t lock; /* the admin queue, resets, the table of queues */
	struct admin admin;
	struct nvme_qpair *qpairs[NVME_MAX_QPAIRS + 1]; /* by queue id, from 1 */
	unsigned nqpairs;

	unsigned nns;
	struct nvme_ns ns[NVME_MAX_NS];
};

enum req_state { REQ_FREE, REQ_SENT, REQ_RETRY };

/* A command, or a part of one, that the controller has. A cache line. */
struct nvme_req {
	struct nvme_cmd *cmd;
	uint64_t prp1, prp2;
	uint64_t lba;
	uint32_t blocks; /* one dataset management range holds 2^32 - 1 */
	uint32_t tick;   /* of the queue pair's, when it was sent */
	uint16_t next_free;
	uint8_t state; /* enum req_state */
	uint8_t generation; /* of the command id, so that an old completion does not pass for a new one */
	uint8_t tries;
	bool aborted, timed_out;
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
	uint16_t entries; /* of each queue */
	uint16_t tail, rung;
	uint16_t head;
	uint8_t phase;
	uint16_t free_req; /* first of the list, NO_REQ: none */
	uint16_t sent;     /* with the controller */
	unsigned outstanding;
	uint32_t tick, polls;
	struct nvme_cmd_list waiting;  /* not all of it with the controller */
	struct nvme_cmd_list finished; /* to be called back */

	uint16_t id, depth;
	int eventfd; /* -1: none */
	bool check;  /* look at the clock in the next poll */
	uint64_t next_check_ns, next_alive_ns, tick_ns;
	unsigned strays; /* completions of no command */
};

#define NO_REQ 0xffffu
#define TICKS_TO_ABORT 9u /* of an eighth of the timeout: never early */

static inline uint64_t nvme_mmio_ready(const struct nvme_ctrlr *c)
{
	return NVME_CAP_TO(c->cap) ? NVME_CAP_TO(c->cap) * 500ull : 500ull;
}

/* ---- memory.c ---- */
struct nvme_pool {
	char *base;
	uint64_t size;
	int fd;
};
#define NVME_IOVA_BASE (4 * GiB) /* where a pool begins for controllers; low enough for 39 bits */
extern struct nvme_pool nvme_pool;
/* Makes the pool; NULL when memory is short. */
int nvme_pool_use(void);
static inline uint64_t nvme_iova(const void *p)
{
	return (uint64_t)((const char *)p - nvme_pool.base) + NVME_IOVA_BASE;
}
/* CLOCK_MONOTONIC, which a fake clock does not stop. */
uint64_t nvme_now_ns(void);
void nvme_sleep_us(unsigned us);

/* ---- ctrlr.c ---- */
int ctrlr_read(struct nvme_ctrlr *c, uint32_t reg, unsigned size, uint64_t *value);
/* Lock held. Disable, admin queue, enable. */
int ctrlr_enable(struct nvme_ctrlr *c, struct base_err *err);
/* Lock held: how many I/O queues there may be. */
int ctrlr_ask_queues(struct nvme_ctrlr *c, unsigned *n);
/* Gone for good. */
void ctrlr_fail(struct nvme_ctrlr *c, const char *why);
/* A reset, unless somebody has done it since `epoch`. */
int ctrlr_reset(struct nvme_ctrlr *c, unsigned epoch, const char *why);
/* False: fatal status, or gone. */
bool ctrlr_healthy(struct nvme_ctrlr *c);
/* The doorbell, or NULL. */
volatile uint32_t *ctrlr_doorbell(struct nvme_ctrlr *c, unsigned qid, bool cq);
void ctrlr_ring(struct nvme_ctrlr *c, volatile uint32_t *db, unsigned qid, bool cq, uint32_t value);

/* ---- ns.c ---- */
int ns_read_all(struct nvme_ctrlr *c, struct base_err *err);

/* ---- admin.c ---- */
int admin_init(struct nvme_ctrlr *c);
void admin_clear(struct nvme_ctrlr *c);
void admin_free(struct nvme_ctrlr *c);
/* Lock held. cid and phases are its business; prp1, prp2 the caller's. */
int admin_run(struct nvme_ctrlr *c, struct nvme_sqe *sqe, uint32_t *result);

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
/* Lock held: creates the queues in the controller. */
int qpair_connect(struct nvme_qpair *q);

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
void piece_fill(const struct nvme_qpair *q, const struct nvme_req *r, struct nvme_sqe *sqe);
/* 0, or why cmd cannot be taken; sets q->ns. */
int piece_check(struct nvme_qpair *q, const struct nvme_cmd *cmd);

#endif
