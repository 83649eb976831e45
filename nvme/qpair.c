/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The way of a command: submit → piece → request → submission queue; completion queue → request → callback. No lock, no
 * allocation and no system call lies on it.
 *
 * A queue has one entry more than there are requests, so it is never full. A command id holds the request's number
 * and a generation, so that a completion that comes twice, or for nothing, is told from the right one and dropped.
 */
#include <errno.h>
#include <string.h>

#define LOG_COMPONENT "nvme"
#include "base/log.h"
#include "nvme/internal.h"

#define CLOCK_EVERY 64u     /* polls; a power of two */
#define LAST_GENERATION 62u /* so that no command id is ffff, which the specification reserves */
#define MAX_STRAYS_SAID 8u

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
	q->free_req = (uint16_t)(r - q->reqs);
}

void req_send(struct nvme_qpair *q, struct nvme_req *r)
{
	r->state = REQ_SENT;
	r->tick = q->tick;
	r->generation = r->generation == LAST_GENERATION ? 0 : r->generation + 1;
	piece_fill(q, r, &q->sq[q->tail]);
	if (++q->tail == q->entries)
		q->tail = 0;
	q->sent++;
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

void nvme_submit(struct nvme_qpair *q, struct nvme_cmd *cmd)
{
	cmd->status = 0;
	cmd->pieces = 0;
	cmd->issued = cmd->iov_offset = 0;
	cmd->iov_index = 0;
	cmd->waiting = false;
	q->outstanding++;
	cmd->rc = piece_check(q, cmd);
	if (cmd->rc) {
		finish(q, cmd);
		return;
	}
	cmd->waiting = true;
	if (q->waiting.head || epoch_is_old(q) || !issue(q, cmd))
		cmd_push(&q->waiting, cmd);
}

void nvme_kick(struct nvme_qpair *q)
{
	if (q->tail == q->rung || epoch_is_old(q))
		return;
	q->rung = q->tail;
	ctrlr_ring(q->c, q->sq_db, q->id, false, q->tail);
}

/* ---- completion ---- */

static bool may_repeat(const struct nvme_qpair *q, const struct nvme_req *r, uint16_t status)
{
	uint16_t code = NVME_CQE_CODE(status);

	if (status & NVME_CQE_DNR || r->timed_out || r->tries >= q->c->opts.retries)
		return false;
	return code != NVME_SC_ABORT_REQUESTED && code != NVME_SC_ABORT_SQ_DELETED &&
	       code != NVME_SC_COMPARE && code != NVME_SC_INVALID_OPCODE &&
	       code != NVME_SC_INVALID_FIELD;
}

static void failed(struct nvme_qpair *q, struct nvme_req *r, uint16_t status)
{
	uint16_t code = NVME_CQE_CODE(status);
	int rc = nvme_status_errno(code);

	if (may_repeat(q, r, status)) {
		r->tries++;
		req_send(q, r);
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

static struct nvme_req *request_of(struct nvme_qpair *q, uint16_t cid)
{
	unsigned i = cid & 0x3ff;
	struct nvme_req *r = &q->reqs[i];

	return i < q->depth && r->state == REQ_SENT && r->generation == cid >> 10 ? r : NULL;
}

static void reap(struct nvme_qpair *q, unsigned max)
{
	uint16_t head = q->head;

	for (unsigned n = 0; !max || n < max; n++) {
		volatile struct nvme_cqe *e = &q->cq[head];
		uint16_t status = __atomic_load_n(&e->status, __ATOMIC_ACQUIRE), cid;
		struct nvme_req *r;

		if ((status & NVME_CQE_PHASE) != q->phase)
			break;
		cid = e->cid;
		if (++head == q->entries) {
			head = 0;
			q->phase ^= 1;
		}
		r = request_of(q, cid);
		if (!r) {
			stray(q, cid);
			continue;
		}
		q->sent--;
		if (__builtin_expect(!NVME_CQE_CODE(status), 1))
			req_end(q, r, 0, 0);
		else
			failed(q, r, status);
	}
	if (head != q->head) {
		q->head = head;
		ctrlr_ring(q->c, q->cq_db, q->id, true, head);
	}
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
	int n;

	if (__builtin_expect(epoch_is_old(q), 0))
		qpair_recover(q);
	if (!(++q->polls & (CLOCK_EVERY - 1)) || q->check)
		qpair_check(q);
	if (__builtin_expect(!epoch_is_old(q), 1)) {
		nvme_kick(q);
		reap(q, max);
		if (q->waiting.head)
			qpair_pump(q);
	}
	n = q->finished.head ? call_back(q) : 0;
	nvme_kick(q);
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
	return (__atomic_load_n(&q->cq[q->head].status, __ATOMIC_ACQUIRE) & NVME_CQE_PHASE) ==
	       q->phase;
}

/* Ends everything, whatever the controller has of it: it must not run any more. */
void qpair_finish_all(struct nvme_qpair *q, int rc)
{
	struct nvme_cmd *cmd;

	for (unsigned i = 0; i < q->depth; i++)
		if (q->reqs[i].state != REQ_FREE)
			req_end(q, &q->reqs[i], rc, 0);
	q->sent = 0;
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
