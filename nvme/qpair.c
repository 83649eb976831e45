/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The way of a command: submit → piece → request → submission queue; completion queue → request → callback. No lock, no
 * allocation and no system call lies on it.
 *
 * Reads and writes of at most two pages, which are nearly all there are, take a short way: one look at everything that could be wrong, one
 * write of the command in its place, one callback from the loop that takes completions. Whatever else there is goes by pieces.
 *
 * A queue has one entry more than there are requests, so it is never full. A command id holds the request's number
 * and a generation, so that a completion that comes twice, or for nothing, is told from the right one and dropped.
 */
#include <errno.h>
#include <string.h>

#define LOG_COMPONENT "nvme"
#include "base/log.h"
#include "nvme/internal.h"

#define GENERATION 0x400u   /* in a command id */
#define GENERATIONS 0xfc00u /* one less than six bits would allow: ffff is reserved */
#define NUMBER 0x3ffu
#define MAX_STRAYS_SAID 8u
#define MAX_DELAY_NS 60000000000ull

static inline bool epoch_is_old(const struct nvme_qpair *q)
{
	return q->epoch != atomic_load_explicit(&q->c->epoch, memory_order_relaxed);
}

static void finish(struct nvme_qpair *q, struct nvme_cmd *cmd)
{
	cmd_push(&q->finished, cmd);
}

/* ---- requests ---- */

void req_release(struct nvme_qpair *q, struct nvme_req *r)
{
	r->state = REQ_FREE;
	r->cmd = NULL;
	r->next_free = q->free_req;
	q->free_req = r->cid & NUMBER;
}

static inline void new_generation(struct nvme_req *r)
{
	r->cid += GENERATION;
	if (r->cid >= GENERATIONS)
		r->cid &= NUMBER;
}

static inline struct nvme_sqe *next_entry(struct nvme_qpair *q)
{
	struct nvme_sqe *sqe = &q->sq[q->tail];
	uint16_t tail = q->tail + 1;

	q->tail = tail == q->entries ? 0 : tail;
	q->sent++;
	return sqe;
}

void req_send(struct nvme_qpair *q, struct nvme_req *r)
{
	struct nvme_sqe *sqe = next_entry(q);

	r->state = REQ_SENT;
	r->tick = q->tick;
	new_generation(r);
	piece_fill(r, sqe);
	/* Sent anew after a reset, it may be without. */
	if (r->cmd->op == NVME_WRITE && r->cmd->stream && r->cmd->stream <= q->c->info.streams && atomic_load(&q->c->streams_on)) {
		sqe->cdw12 |= NVME_RW_STREAMS;
		sqe->cdw13 = (uint32_t)r->cmd->stream << 16;
	}
}

void req_end(struct nvme_qpair *q, struct nvme_req *r, int rc, uint16_t status)
{
	struct nvme_cmd *cmd = r->cmd;

	req_release(q, r);
	cmd->pieces--;
	if (rc && !cmd->rc) {
		cmd->rc = rc;
		cmd->status = status;
	}
	/* One that waits still stands in the list: the pump sees to it. */
	if (!cmd->pieces && !cmd->waiting)
		finish(q, cmd);
}

/* ---- submission ---- */

/* True: all of it is with the controller, or it has failed. */
static bool issue(struct nvme_qpair *q, struct nvme_cmd *cmd)
{
	while (q->free_req != NO_REQ) {
		struct nvme_req *r = &q->reqs[q->free_req];
		int rc = piece_make(q, cmd, r);

		if (rc < 0) {
			cmd->rc = rc;
			cmd->waiting = false;
			if (!cmd->pieces)
				finish(q, cmd);
			return true;
		}
		q->free_req = r->next_free;
		r->tries = 0;
		r->aborted = r->timed_out = false;
		cmd->pieces++;
		req_send(q, r);
		if (rc == PIECE_LAST) {
			cmd->waiting = false;
			return true;
		}
	}
	return false;
}

void qpair_pump(struct nvme_qpair *q)
{
	struct nvme_cmd *cmd;

	while ((cmd = q->waiting.head)) {
		if (cmd->rc) {
			/* A piece of it has failed: the rest is not sent. */
			cmd_pop(&q->waiting);
			cmd->waiting = false;
			if (!cmd->pieces)
				finish(q, cmd);
			continue;
		}
		if (q->free_req == NO_REQ)
			return;
		/* It may be finished, and pushed to the other list, by issue. */
		cmd_pop(&q->waiting);
		if (!issue(q, cmd)) {
			cmd->next = q->waiting.head;
			if (!q->waiting.head)
				q->waiting.tail = &cmd->next;
			q->waiting.head = cmd;
			return;
		}
	}
}

static void submit_slowly(struct nvme_qpair *q, struct nvme_cmd *cmd)
{
	cmd->status = 0;
	cmd->pieces = 0;
	cmd->issued = cmd->iov_offset = 0;
	cmd->iov_index = 0;
	cmd->waiting = false;
	cmd->result = 0;
	cmd->rc = piece_check(q, cmd);
	if (cmd->rc) {
		finish(q, cmd);
		return;
	}
	cmd->shift = (uint8_t)q->ns->shift;
	cmd->waiting = true;
	if (q->waiting.head || epoch_is_old(q) || !issue(q, cmd))
		cmd_push(&q->waiting, cmd);
}

/* The command is a read or write of one buffer in at most two pages, and can go to the controller at once. */
static inline bool is_short(const struct nvme_qpair *q, const struct nvme_cmd *cmd)
{
	const struct nvme_ns *ns = q->ns;
	const struct iovec *v = cmd->iov;
	uint64_t lba = cmd->lba, more = cmd->blocks - 1, all = ns_blocks(ns);

	/* Of a namespace that has ended the queue pair learns in the slow way. */
	return cmd->op <= NVME_WRITE && !(cmd->op == NVME_WRITE && cmd->stream) && !ns_unusable(ns) && cmd->nsid == ns->info.nsid &&
	       cmd->iovcnt == 1 && more < ns->short_blocks && lba < all && more < all - lba &&
	       (lba & ns->boundary_mask) + more <= ns->boundary_mask &&
	       v->iov_len == (more + 1) << ns->shift && !((uintptr_t)v->iov_base & 3) &&
	       (uintptr_t)v->iov_base % NVME_PAGE + v->iov_len <= 2 * NVME_PAGE &&
	       nvme_reachable(v->iov_base, v->iov_len) && q->free_req != NO_REQ &&
	       !q->waiting.head && !epoch_is_old(q);
}

static inline void send_short(struct nvme_qpair *q, struct nvme_cmd *cmd)
{
	struct nvme_req *r = &q->reqs[q->free_req];
	uint64_t *w = (uint64_t *)(void *)next_entry(q);
	uint64_t prp1 = nvme_iova_linear(cmd->iov->iov_base), blocks = cmd->blocks;
	bool two = prp1 % NVME_PAGE + cmd->iov->iov_len > NVME_PAGE;

	q->free_req = r->next_free;
	new_generation(r);
	r->cmd = cmd;
	r->prp1 = prp1;
	r->prp2 = two ? nvme_iova((char *)round_down((uintptr_t)cmd->iov->iov_base, NVME_PAGE) +
				  NVME_PAGE)
		      : 0;
	r->lba = cmd->lba;
	r->blocks = (uint32_t)blocks;
	r->tick = q->tick;
	r->prinfo = q->ns->prinfo;
	r->ns = q->ns;
	r->state = REQ_SENT;
	r->tries = 0;
	r->aborted = r->timed_out = r->sgl = false;
	/* Opcode, command id and namespace; CDW10 and 11 are the place, CDW12 the length and FUA. */
	w[0] = piece_opcode(cmd->op) | (uint64_t)r->cid << 16 | (uint64_t)cmd->nsid << 32;
	w[1] = w[2] = 0;
	w[3] = prp1;
	w[4] = r->prp2;
	w[5] = cmd->lba;
	w[6] = (blocks - 1) | (uint64_t)(cmd->flags & NVME_FUA ? NVME_RW_FUA : 0) | q->ns->prinfo;
	w[7] = cmd->lba & q->ns->tag_mask; /* CDW14 */
}

void nvme_submit(struct nvme_qpair *q, struct nvme_cmd *cmd)
{
	q->outstanding++;
	if (__builtin_expect(!is_short(q, cmd), 0)) {
		submit_slowly(q, cmd);
		return;
	}
	cmd->status = 0;
	cmd->pieces = 1;
	cmd->rc = 0;
	cmd->waiting = false;
	send_short(q, cmd);
}

static inline void kick(struct nvme_qpair *q)
{
	if (q->tail == q->rung || epoch_is_old(q))
		return;
	q->rung = q->tail;
	ctrlr_ring(q->c, q->sq_db, q->id, false, q->tail);
}

void nvme_kick(struct nvme_qpair *q)
{
	kick(q);
}

/* ---- completion ---- */

static bool may_repeat(const struct nvme_qpair *q, const struct nvme_req *r, uint16_t status)
{
	uint16_t code = NVME_CQE_CODE(status);

	if (status & NVME_CQE_DNR || r->cmd->op == NVME_RAW || r->timed_out ||
	    r->tries >= q->c->opts.retries)
		return false;
	return code != NVME_SC_ABORT_REQUESTED && code != NVME_SC_ABORT_SQ_DELETED &&
	       code != NVME_SC_COMPARE && code != NVME_SC_INVALID_OPCODE &&
	       code != NVME_SC_INVALID_FIELD;
}

/* At once, or after the delay the controller has asked for, which the polls wait for. */
static void repeat(struct nvme_qpair *q, struct nvme_req *r, unsigned crd)
{
	uint64_t delay_ns;

	if (req_outdated(r)) {
		req_end(q, r, -ENODEV, 0);
		return;
	}
	delay_ns = crd ? q->c->crdt[crd - 1] * 100000000ull : 0;
	if (!delay_ns) {
		req_send(q, r);
		return;
	}
	r->state = REQ_DELAYED;
	r->due_ns = nvme_now_ns() + MIN(delay_ns, MAX_DELAY_NS);
	q->delayed++;
	q->until_check = 1;
}

static void failed(struct nvme_qpair *q, struct nvme_req *r, uint16_t status)
{
	uint16_t code = NVME_CQE_CODE(status);
	int rc = nvme_status_errno(code);

	if (may_repeat(q, r, status)) {
		r->tries++;
		repeat(q, r, NVME_CQE_CRD(status));
		return;
	}
	log_debug("%s: queue %u, block %llu: %s", q->c->info.address, q->id,
		  (unsigned long long)r->lba, nvme_status_text(code));
	req_end(q, r, rc, code);
}

static void stray(struct nvme_qpair *q, uint16_t cid)
{
	if (q->strays++ < MAX_STRAYS_SAID)
		log_warn("%s: queue %u: a completion for command %04x, which is not outstanding",
			 q->c->info.address, q->id, cid);
}

static inline struct nvme_req *request_of(struct nvme_qpair *q, uint16_t cid)
{
	unsigned i = cid & NUMBER;
	struct nvme_req *r = &q->reqs[i];

	return i < q->depth && r->cid == cid && r->state == REQ_SENT ? r : NULL;
}

/* A command of one piece is called back at once. */
static inline int succeeded(struct nvme_qpair *q, struct nvme_req *r, uint32_t dw0)
{
	struct nvme_cmd *cmd = r->cmd;

	cmd->result = dw0;
	if (__builtin_expect(cmd->pieces != 1 || cmd->waiting, 0)) {
		req_end(q, r, 0, 0);
		return 0;
	}
	req_release(q, r);
	cmd->pieces = 0;
	q->outstanding--;
	cmd->cb(cmd, cmd->rc);
	return 1;
}

static inline uint16_t status_at_head(const struct nvme_qpair *q)
{
	return __atomic_load_n(&q->cq[q->head].status, __ATOMIC_ACQUIRE);
}

/* Callbacks may submit, so there may be no end of completions: no more than the queue holds. Returns how many were called back. */
static int reap(struct nvme_qpair *q, unsigned max)
{
	unsigned left = max ? max : q->entries;
	int n = 0;

	do {
		uint16_t status = status_at_head(q), cid;
		struct nvme_req *r;
		uint32_t dw0;

		if ((status & NVME_CQE_PHASE) != q->phase)
			break;
		cid = q->cq[q->head].cid;
		dw0 = q->cq[q->head].dw0;
		if (++q->head == q->entries) {
			q->head = 0;
			q->phase ^= 1;
		}
		r = request_of(q, cid);
		if (__builtin_expect(!r, 0)) {
			stray(q, cid);
			continue;
		}
		q->sent--;
		if (__builtin_expect(!NVME_CQE_CODE(status), 1))
			n += succeeded(q, r, dw0);
		else
			failed(q, r, status);
	} while (--left);
	q->idle = false;
	ctrlr_ring(q->c, q->cq_db, q->id, true, q->head);
	return n;
}

/* What callbacks finish at once is for the next poll, so that this one ends. */
static int call_back(struct nvme_qpair *q)
{
	struct nvme_cmd *cmd = q->finished.head, *next;
	int n = 0;

	q->finished.head = NULL;
	q->finished.tail = &q->finished.head;
	for (; cmd; cmd = next, n++) {
		next = cmd->next;
		q->outstanding--;
		cmd->cb(cmd, cmd->rc);
	}
	return n;
}

int nvme_poll(struct nvme_qpair *q, unsigned max)
{
	int n = 0;

	if (__builtin_expect(!--q->until_check, 0))
		qpair_check(q);
	if (__builtin_expect(!q->sq_db, 0))
		ctrlr_look_after(q->c);
	if (__builtin_expect(epoch_is_old(q), 0))
		qpair_recover(q);
	if (__builtin_expect(!epoch_is_old(q), 1)) {
		kick(q);
		if ((status_at_head(q) & NVME_CQE_PHASE) == q->phase)
			n = reap(q, max);
		if (q->waiting.head)
			qpair_pump(q);
	}
	if (q->finished.head)
		n += call_back(q);
	kick(q);
	return n;
}

unsigned nvme_outstanding(const struct nvme_qpair *q)
{
	return q->outstanding;
}

bool nvme_pending(const struct nvme_qpair *q)
{
	if (q->finished.head)
		return true;
	/* A reset goes on by itself; what it leaves is to be polled for. */
	if (epoch_is_old(q))
		return q->outstanding && atomic_load(&q->c->state) == NVME_FAILED;
	return (status_at_head(q) & NVME_CQE_PHASE) == q->phase;
}

/* What a controller that is at large has not taken yet is a command that there is not, and names no memory. */
static void make_void(struct nvme_qpair *q)
{
	for (unsigned i = 0; i < q->entries; i++) {
		__atomic_store_n(&q->sq[i].opcode, NVME_NVM_RESERVED, __ATOMIC_RELEASE);
		q->sq[i].prp1 = q->sq[i].prp2 = 0;
	}
	memset(q->lists, 0, (size_t)q->depth * NVME_PAGE);
}

/* Ends everything, whatever the controller has of it: it must not run any more. */
void qpair_finish_all(struct nvme_qpair *q, int rc)
{
	struct nvme_cmd *cmd;

	if (atomic_load(&q->c->at_large))
		make_void(q);
	for (unsigned i = 0; i < q->depth; i++)
		if (q->reqs[i].state != REQ_FREE)
			req_end(q, &q->reqs[i], rc, 0);
	q->sent = q->delayed = 0;
	while ((cmd = cmd_pop(&q->waiting))) {
		cmd->waiting = false;
		if (!cmd->rc)
			cmd->rc = rc;
		finish(q, cmd);
	}
	if (rc == -ECANCELED)
		while (q->finished.head)
			call_back(q);
}
