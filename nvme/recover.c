/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Timeouts, and life after a reset. Time is counted in ticks of an eighth of the timeout, which pass only while the queue pair
 * is polled: a process that was stopped does not find all its commands overdue.
 *
 * late → abort → (no answer for half the timeout) → reset. After a reset each queue pair makes itself anew and sends again what
 * it had outstanding, but for what was late. The controller was stopped, so nothing sent before can still happen,
 * and every request is in exactly one state.
 */
#include <errno.h>
#include <string.h>

#define LOG_COMPONENT "nvme"
#include "base/log.h"
#include "nvme/internal.h"

#define ALIVE_NS 20000000ull
#define TICKS_AFTER_ABORT 5u

/* ---- a new epoch ---- */

static void send_again(struct nvme_qpair *q)
{
	for (unsigned i = 0; i < q->depth; i++)
		if (q->reqs[i].state == REQ_SENT)
			q->reqs[i].state = REQ_RETRY;
	for (unsigned i = 0; i < q->depth; i++) {
		struct nvme_req *r = &q->reqs[i];

		if (r->state != REQ_RETRY)
			continue;
		r->aborted = false;
		if (r->timed_out)
			req_end(q, r, -ETIMEDOUT, 0);
		else if (r->tries++ > q->c->opts.retries)
			req_end(q, r, -EIO, 0);
		else
			req_send(q, r);
	}
}

void qpair_recover(struct nvme_qpair *q)
{
	struct nvme_ctrlr *c = q->c;
	unsigned epoch;
	int rc;

	if (atomic_load(&c->state) == NVME_FAILED) {
		qpair_finish_all(q, -ENODEV);
		return;
	}
	/* Whoever resets has it. */
	if (pthread_mutex_trylock(&c->lock))
		return;
	epoch = atomic_load(&c->epoch);
	if (atomic_load(&c->state) != NVME_RUNNING) {
		pthread_mutex_unlock(&c->lock);
		return;
	}
	qpair_clear(q);
	rc = qpair_connect(q);
	pthread_mutex_unlock(&c->lock);
	if (!rc) {
		q->epoch = epoch;
		send_again(q);
	} else if (rc == -ETIMEDOUT) {
		ctrlr_reset(c, epoch, "a queue could not be made again");
	} else {
		ctrlr_fail(c, "a queue could not be made again after a reset");
	}
}

/* ---- late ones ---- */

/* -EAGAIN: the admin queue is in use. */
static int abort_request(struct nvme_qpair *q, struct nvme_req *r)
{
	uint32_t cid = (uint32_t)(r - q->reqs) | (uint32_t)r->generation << 10;
	struct nvme_sqe sqe = { .opcode = NVME_ADMIN_ABORT, .cdw10 = cid << 16 | q->id };
	int rc;

	if (pthread_mutex_trylock(&q->c->lock))
		return -EAGAIN;
	log_warn("%s: queue %u: command %04x is late, aborting it", q->c->info.address, q->id, cid);
	rc = admin_run(q->c, &sqe, NULL);
	pthread_mutex_unlock(&q->c->lock);
	return rc;
}

/* True: the controller must be reset. */
static bool look_after(struct nvme_qpair *q, struct nvme_req *r)
{
	uint32_t age = q->tick - r->tick;
	int rc;

	if (r->aborted)
		return age >= TICKS_AFTER_ABORT;
	if (age < TICKS_TO_ABORT)
		return false;
	r->timed_out = true;
	rc = abort_request(q, r);
	if (rc == -EAGAIN)
		return false;
	r->aborted = true;
	r->tick = q->tick;
	/* Refused: the command goes on, and has its time to do so. */
	return rc == -ETIMEDOUT;
}

static void tick(struct nvme_qpair *q)
{
	unsigned epoch = q->epoch;

	q->tick++;
	if (!q->sent)
		return;
	if (!ctrlr_healthy(q->c)) {
		ctrlr_reset(q->c, epoch, "fatal status");
		return;
	}
	for (unsigned i = 0; i < q->depth; i++) {
		if (q->reqs[i].state == REQ_SENT && look_after(q, &q->reqs[i])) {
			ctrlr_reset(q->c, epoch, "a late command cannot be aborted");
			return;
		}
	}
}

void qpair_check(struct nvme_qpair *q)
{
	uint64_t now = nvme_now_ns();

	q->check = false;
	if (now >= q->next_alive_ns) {
		q->next_alive_ns = now + ALIVE_NS;
		if (!q->c->transport->alive(q->c) && !nvme_failed(q->c))
			ctrlr_fail(q->c, "gone");
	}
	if (now < q->next_check_ns)
		return;
	q->next_check_ns = now + q->tick_ns;
	if (q->epoch == atomic_load(&q->c->epoch))
		tick(q);
	if (q->epoch != atomic_load(&q->c->epoch))
		qpair_recover(q);
}
