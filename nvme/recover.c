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
#define EVENTS_NS 1000000ull
#define CLOCK_EVERY 64u /* polls, of one who polls so often that these take next to nothing of a tick */
#define CLOCK_SHARE 16u
#define TICKS_AFTER_ABORT 5u

/* ---- a new epoch ---- */

static void send_again(struct nvme_qpair *q)
{
	for (unsigned i = 0; i < q->depth; i++) {
		struct nvme_req *r = &q->reqs[i];

		if (r->state != REQ_RETRY)
			continue;
		r->aborted = false;
		if (req_outdated(r))
			req_end(q, r, -ENODEV, 0);
		else if (r->tries++ > q->c->opts.retries)
			req_end(q, r, -EIO, 0);
		else
			req_send(q, r);
	}
}

/* Since the epoch of the queue pair the controller was stopped: what was late has ended, and raw commands are not repeated. */
static void end_late(struct nvme_qpair *q)
{
	for (unsigned i = 0; i < q->depth; i++) {
		struct nvme_req *r = &q->reqs[i];

		if (r->state != REQ_SENT)
			continue;
		if (r->timed_out)
			req_end(q, r, -ETIMEDOUT, 0);
		else if (r->cmd->op == NVME_RAW)
			req_end(q, r, -ECANCELED, 0);
		else
			r->state = REQ_RETRY;
	}
}

/* Lock held. The queues could not be made: by a reset, unless that has been tried, for this queue pair or the controller. */
static void join_failed(struct nvme_qpair *q, unsigned epoch)
{
	if (ctrlr_tried_enough(q->c, ++q->join_failures))
		ctrlr_fail(q->c, "a queue cannot be made again, whatever it is reset");
	else
		ctrlr_begin_recovery(q->c, epoch, "a queue could not be made again");
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
	/* Whoever has it takes the steps. */
	if (pthread_mutex_trylock(&c->lock))
		return;
	ctrlr_advance(c);
	epoch = atomic_load(&c->epoch);
	if (atomic_load(&c->state) == NVME_RUNNING)
		end_late(q);
	rc = qpair_join(q);
	if (rc == -ETIMEDOUT)
		join_failed(q, epoch);
	pthread_mutex_unlock(&c->lock);
	if (!rc) {
		q->join_failures = 0;
		send_again(q);
	} else if (rc != -EINPROGRESS && rc != -ETIMEDOUT) {
		ctrlr_fail(c, "a queue could not be made again after a reset");
	}
}

/* A reset begins if nobody is at the controller just now; else the next tick sees to it. */
static void begin_reset(struct nvme_qpair *q, const char *why)
{
	struct nvme_ctrlr *c = q->c;

	if (pthread_mutex_trylock(&c->lock))
		return;
	ctrlr_begin_recovery(c, q->epoch, why);
	pthread_mutex_unlock(&c->lock);
}

/* ---- late ones ---- */

/* -EAGAIN: the admin queue is in use, or as many are being aborted as may be. */
static int abort_request(struct nvme_qpair *q, struct nvme_req *r)
{
	int rc;

	if (pthread_mutex_trylock(&q->c->lock))
		return -EAGAIN;
	ctrlr_advance(q->c);
	rc = admin_abort(q->c, q->id, r->cid);
	pthread_mutex_unlock(&q->c->lock);
	if (!rc)
		log_warn("%s: queue %u: command %04x is late, aborting it", q->c->info.address,
			 q->id, r->cid);
	return rc;
}

/* True: the controller must be reset. */
static bool look_after(struct nvme_qpair *q, struct nvme_req *r)
{
	uint32_t age = q->tick - r->tick;

	/* An abort that was refused leaves the command its time. */
	if (r->aborted)
		return age >= TICKS_AFTER_ABORT;
	if (age < TICKS_TO_ABORT)
		return false;
	r->timed_out = true;
	if (!abort_request(q, r)) {
		r->aborted = true;
		r->tick = q->tick;
	}
	return false;
}

/* Where registers are read by message, what they say comes with a later poll. */
static void look_at_status(struct nvme_qpair *q)
{
	int rc = ctrlr_health(q->c);

	q->looking = rc == -EINPROGRESS;
	if (rc == -EIO)
		begin_reset(q, "fatal status");
}

static void tick(struct nvme_qpair *q)
{
	q->tick++;
	if (!q->sent)
		return;
	look_at_status(q);
	if (q->epoch != atomic_load(&q->c->epoch))
		return;
	for (unsigned i = 0; i < q->depth; i++) {
		if (q->reqs[i].state == REQ_SENT && look_after(q, &q->reqs[i])) {
			begin_reset(q, "a late command cannot be aborted");
			return;
		}
	}
}

/* Those whose time has come. */
static void send_delayed(struct nvme_qpair *q, uint64_t now)
{
	for (unsigned i = 0; i < q->depth; i++) {
		if (q->reqs[i].state != REQ_DELAYED || q->reqs[i].due_ns > now)
			continue;
		q->delayed--;
		if (req_outdated(&q->reqs[i]))
			req_end(q, &q->reqs[i], -ENODEV, 0);
		else
			req_send(q, &q->reqs[i]);
	}
}

void qpair_check(struct nvme_qpair *q)
{
	uint64_t now = nvme_now_ns();
	bool idle = q->idle;

	if (q->delayed && q->epoch == atomic_load(&q->c->epoch))
		send_delayed(q, now);
	q->until_check = CLOCK_EVERY;
	if (q->delayed || now - q->last_look_ns > atomic_load(&q->c->tick_ns) / CLOCK_SHARE)
		q->until_check = 1;
	q->last_look_ns = now;
	q->idle = true;
	if (!idle && atomic_load(&q->c->resets))
		atomic_store(&q->c->resets, 0);
	if (q->looking)
		look_at_status(q);
	if (now >= q->next_alive_ns) {
		q->next_alive_ns = now + ALIVE_NS;
		/* One that completes commands is alive. */
		if (idle && !q->c->transport->alive(q->c) && !nvme_failed(q->c))
			ctrlr_fail(q->c, "gone");
	}
	/* Soon when idle, as their interrupt may be what has woken this poll, and will until it is taken. */
	if (now - q->last_events_ns >= (idle ? EVENTS_NS : ALIVE_NS)) {
		q->last_events_ns = now;
		nvme_poll_events(q->c);
	}
	/* A timeout that was shortened holds at once. */
	if (now < q->next_check_ns && q->next_check_ns - now <= atomic_load(&q->c->tick_ns))
		return;
	q->next_check_ns = now + atomic_load(&q->c->tick_ns);
	if (q->epoch == atomic_load(&q->c->epoch))
		tick(q);
	if (q->epoch != atomic_load(&q->c->epoch))
		qpair_recover(q);
}
