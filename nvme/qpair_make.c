/* SPDX-License-Identifier: BSD-2-Clause */
/* Queue pairs: their memory, and the queues of the controller that use it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LOG_COMPONENT "nvme"
#include "base/log.h"
#include "nvme/internal.h"

#define DEFAULT_DEPTH 128u

static size_t sq_bytes(const struct nvme_qpair *q)
{
	return round_up(q->entries * sizeof(struct nvme_sqe), NVME_PAGE);
}

static size_t cq_bytes(const struct nvme_qpair *q)
{
	return round_up(q->entries * sizeof(struct nvme_cqe), NVME_PAGE);
}

/* Empty queues, as the controller takes them to be when they are created. */
void qpair_clear(struct nvme_qpair *q)
{
	memset((void *)q->cq, 0, cq_bytes(q));
	q->tail = q->rung = q->head = 0;
	q->phase = 1;
	q->sent = 0;
}

static void free_memory(struct nvme_qpair *q)
{
	if (q->eventfd >= 0)
		close(q->eventfd);
	ctrlr_free(q->c, q->sq);
	ctrlr_free(q->c, (void *)q->cq);
	ctrlr_free(q->c, q->lists);
	free(q->reqs);
	free(q);
}

static struct nvme_qpair *make_memory(struct nvme_ctrlr *c, unsigned depth)
{
	struct nvme_qpair *q = base_calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->c = c;
	q->eventfd = -1;
	q->depth = (uint16_t)depth;
	q->entries = (uint16_t)(depth + 1);
	q->waiting.tail = &q->waiting.head;
	q->finished.tail = &q->finished.head;
	q->free_req = NO_REQ;
	q->until_check = 1;
	q->ns = &nvme_no_ns;
	q->reqs = base_calloc(depth, sizeof(*q->reqs));
	q->sq = nvme_alloc(sq_bytes(q), NVME_PAGE);
	q->cq = nvme_alloc(cq_bytes(q), NVME_PAGE);
	q->lists = nvme_alloc((size_t)depth * NVME_PAGE, NVME_PAGE);
	if (!q->reqs || !q->sq || !q->cq || !q->lists) {
		free_memory(q);
		return NULL;
	}
	for (unsigned i = depth; i--;) {
		q->reqs[i].cid = (uint16_t)i;
		req_release(q, &q->reqs[i]);
	}
	memset(q->sq, 0, sq_bytes(q));
	qpair_clear(q);
	return q;
}

/* ---- the controller's queues ---- */

enum { JOIN_BEGIN, JOIN_CQ, JOIN_CQ_MADE, JOIN_SQ, JOIN_UNDO, JOIN_CQ_DELETED };

/* Sends a command of the join, which then is at `step`. */
static int join_send(struct nvme_qpair *q, struct nvme_sqe *sqe, int step)
{
	int handle = admin_start(q->c, sqe, NVME_ADMIN_TIMEOUT_MS);

	if (handle < 0)
		return handle == -EAGAIN ? -EINPROGRESS : handle;
	q->join_handle = handle;
	q->join = step;
	return 0;
}

/* New queues begin at 0, and so do their shadows. */
static void clear_shadow(struct nvme_ctrlr *c, unsigned id)
{
	for (unsigned i = 2 * id; c->shadow && i < 2 * id + 2; i++)
		c->shadow[i << NVME_CAP_DSTRD(c->cap)] =
			c->shadow_seen[i << NVME_CAP_DSTRD(c->cap)] = 0;
}

static int join_begin(struct nvme_qpair *q)
{
	bool irq = q->eventfd >= 0;
	struct nvme_sqe cq = {
		.opcode = NVME_ADMIN_CREATE_CQ,
		.prp1 = nvme_iova((const void *)q->cq),
		.cdw10 = (q->entries - 1u) << 16 | q->id,
		.cdw11 = irq ? (uint32_t)q->id << 16 | NVME_CQ_IEN | NVME_QUEUE_PC : NVME_QUEUE_PC,
	};

	qpair_clear(q);
	ctrlr_forget(q->c, q->id);
	clear_shadow(q->c, q->id);
	q->join_epoch = atomic_load(&q->c->epoch);
	return join_send(q, &cq, JOIN_CQ);
}

static int join_sq(struct nvme_qpair *q)
{
	struct nvme_sqe sq = {
		.opcode = NVME_ADMIN_CREATE_SQ,
		.prp1 = nvme_iova(q->sq),
		.cdw10 = (q->entries - 1u) << 16 | q->id,
		.cdw11 = (uint32_t)q->id << 16 | NVME_QUEUE_PC,
	};

	return join_send(q, &sq, JOIN_SQ);
}

static int join_undo(struct nvme_qpair *q)
{
	struct nvme_sqe cq = { .opcode = NVME_ADMIN_DELETE_CQ, .cdw10 = q->id };

	return join_send(q, &cq, JOIN_CQ_DELETED);
}

/* What came of the command under way; 0: there is more to do. */
static int join_answer(struct nvme_qpair *q)
{
	struct admin_answer a;
	int rc = admin_result(q->c, q->join_handle, &a);

	if (rc == -EINPROGRESS)
		return rc;
	if (q->join == JOIN_CQ) {
		q->join = JOIN_CQ_MADE;
		return rc;
	}
	if (q->join == JOIN_SQ && rc && a.status) {
		q->join_rc = rc;
		q->join = JOIN_UNDO;
		return 0;
	}
	if (q->join == JOIN_CQ_DELETED) /* if it was not, its memory stays the controller's */
		return rc ? -ETIMEDOUT : q->join_rc;
	if (!rc)
		q->epoch = q->join_epoch;
	return rc;
}

static int join_step(struct nvme_qpair *q)
{
	switch (q->join) {
	case JOIN_BEGIN:
		return join_begin(q);
	case JOIN_CQ_MADE:
		return join_sq(q);
	case JOIN_UNDO:
		return join_undo(q);
	default:
		return join_answer(q);
	}
}

int qpair_join(struct nvme_qpair *q)
{
	struct nvme_ctrlr *c = q->c;
	unsigned epoch = atomic_load(&c->epoch);
	int rc = 0;

	if (atomic_load(&c->state) == NVME_FAILED)
		return -ENODEV;
	if (atomic_load(&c->state) == NVME_RESETTING)
		return -EINPROGRESS;
	/* What was begun before a reset is gone with it. */
	if (q->join_epoch != epoch)
		q->join = JOIN_BEGIN;
	while (!rc && q->epoch != epoch)
		rc = join_step(q);
	if (rc != -EINPROGRESS)
		q->join = JOIN_BEGIN;
	return rc;
}

static int take_id(struct nvme_qpair *q)
{
	struct nvme_ctrlr *c = q->c;
	unsigned id = 1, most;

	pthread_mutex_lock(&c->table_lock);
	most = MIN(c->info.max_qpairs, c->granted);
	while (id <= most && c->qpairs[id])
		id++;
	if (id <= most) {
		c->qpairs[id] = q;
		c->nqpairs++;
	}
	pthread_mutex_unlock(&c->table_lock);
	if (id > most)
		return -ENOSPC;
	q->id = (uint16_t)id;
	q->sq_db = c->shadow ? NULL : ctrlr_doorbell(c, id, false);
	q->cq_db = c->shadow ? NULL : ctrlr_doorbell(c, id, true);
	return 0;
}

static void give_id(struct nvme_qpair *q)
{
	pthread_mutex_lock(&q->c->table_lock);
	q->c->qpairs[q->id] = NULL;
	q->c->nqpairs--;
	pthread_mutex_unlock(&q->c->table_lock);
}

/* The table has the queue pair already, and whoever wakes all writes to their descriptors. */
static void set_eventfd(struct nvme_qpair *q, int fd)
{
	pthread_mutex_lock(&q->c->table_lock);
	q->eventfd = fd;
	pthread_mutex_unlock(&q->c->table_lock);
}

static int bind_interrupt(struct nvme_qpair *q)
{
	int fd, rc;

	if (!q->c->info.interrupts)
		return 0;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	rc = q->c->transport->bind(q->c, q->id, fd);
	if (!rc || rc == -ENODEV) {
		set_eventfd(q, fd);
		return rc;
	}
	/* It works without, for those who look by themselves. */
	log_warn("%s: queue %u has no interrupt: %s", q->c->info.address, q->id, strerror(-rc));
	close(fd);
	return 0;
}

/* Waits until the queues are there, through resets of others too. */
static int join(struct nvme_qpair *q)
{
	struct nvme_ctrlr *c = q->c;
	int rc;

	for (;;) {
		pthread_mutex_lock(&c->lock);
		ctrlr_advance(c);
		rc = qpair_join(q);
		pthread_mutex_unlock(&c->lock);
		if (rc != -EINPROGRESS)
			return rc;
		if (!c->transport->alive(c))
			ctrlr_fail(c, "gone");
		nvme_sleep_us(20);
	}
}

int nvme_qpair_create(struct nvme_ctrlr *c, uint32_t depth, struct nvme_qpair **out)
{
	struct nvme_qpair *q;
	int rc;

	if (nvme_failed(c))
		return -ENODEV;
	q = make_memory(c, MIN(depth ? depth : DEFAULT_DEPTH, c->info.max_depth));
	if (!q)
		return -ENOMEM;
	q->epoch = q->join_epoch = atomic_load(&c->epoch) - 1;
	rc = take_id(q);
	if (rc) {
		free_memory(q);
		return rc;
	}
	rc = bind_interrupt(q);
	if (!rc)
		rc = join(q);
	if (rc) {
		/* The memory is ours again only when the controller has been stopped. */
		if (rc == -ETIMEDOUT)
			ctrlr_reset(c, q->join_epoch, "a queue could not be made");
		give_id(q);
		free_memory(q);
		return rc;
	}
	*out = q;
	return 0;
}

/* The controller ends the queue's commands; afterwards it uses the memory no more. */
static int disconnect(struct nvme_qpair *q)
{
	struct nvme_sqe sq = { .opcode = NVME_ADMIN_DELETE_SQ, .cdw10 = q->id };
	struct nvme_sqe cq = { .opcode = NVME_ADMIN_DELETE_CQ, .cdw10 = q->id };
	struct admin_answer a;
	unsigned epoch;
	int rc;

	/* While it is being reset, or the queues are half made, the controller may still use the memory. */
	if (ctrlr_await_reset(q->c))
		return 0;
	rc = q->epoch == atomic_load(&q->c->epoch) ? 0 : join(q);
	if (!rc)
		rc = admin_run(q->c, &sq, NVME_ADMIN_TIMEOUT_MS, &epoch, &a);
	if (!rc)
		rc = admin_run(q->c, &cq, NVME_ADMIN_TIMEOUT_MS, &epoch, &a);
	return rc;
}

void nvme_qpair_free(struct nvme_qpair *q)
{
	struct nvme_ctrlr *c = q->c;

	if (disconnect(q))
		ctrlr_reset(c, q->epoch, "a queue could not be deleted");
	/* Nothing that a callback submits is to be sent. */
	q->epoch = atomic_load(&c->epoch) - 1;
	while (q->outstanding)
		qpair_finish_all(q, -ECANCELED);
	give_id(q);
	free_memory(q);
}

/* ---- sleeping ---- */

int nvme_qpair_fd(const struct nvme_qpair *q)
{
	return q->eventfd;
}

bool nvme_qpair_arm(struct nvme_qpair *q)
{
	uint64_t n;

	/* Who wakes up may have slept long. */
	q->until_check = 1;
	if (q->eventfd >= 0 && read(q->eventfd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		return true;
	return nvme_pending(q);
}

int nvme_poll_interval_ms(struct nvme_qpair *q)
{
	/* Who asks is about to wait that long. */
	q->until_check = 1;
	/* The steps of a reset are taken by polls, and so are the end of a delay and doorbells by message. */
	if (q->delayed || q->looking)
		return 10;
	if (!q->sq_db && ctrlr_look_after(q->c))
		return 1;
	if (q->outstanding && q->epoch != atomic_load(&q->c->epoch))
		return 1;
	/* Not just before the time that it waits for. */
	return (int)MIN(div_round_up(atomic_load(&q->c->tick_ns), 1000000ull), 1000ull);
}
