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
	nvme_free(q->sq);
	nvme_free((void *)q->cq);
	nvme_free(q->lists);
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
	q->tick_ns = MAX(c->opts.timeout_ms * 125000ull, 1000000ull);
	q->waiting.tail = &q->waiting.head;
	q->finished.tail = &q->finished.head;
	q->free_req = NO_REQ;
	q->reqs = base_calloc(depth, sizeof(*q->reqs));
	q->sq = nvme_alloc(sq_bytes(q), NVME_PAGE);
	q->cq = nvme_alloc(cq_bytes(q), NVME_PAGE);
	q->lists = nvme_alloc((size_t)depth * NVME_PAGE, NVME_PAGE);
	if (!q->reqs || !q->sq || !q->cq || !q->lists) {
		free_memory(q);
		return NULL;
	}
	for (unsigned i = depth; i--;)
		req_release(q, &q->reqs[i]);
	memset(q->sq, 0, sq_bytes(q));
	qpair_clear(q);
	return q;
}

int qpair_connect(struct nvme_qpair *q)
{
	bool irq = q->eventfd >= 0;
	uint32_t cdw10 = (q->entries - 1u) << 16 | q->id;
	struct nvme_sqe cq = {
		.opcode = NVME_ADMIN_CREATE_CQ,
		.prp1 = nvme_iova((const void *)q->cq),
		.cdw10 = cdw10,
		.cdw11 = irq ? (uint32_t)q->id << 16 | NVME_CQ_IEN | NVME_QUEUE_PC : NVME_QUEUE_PC,
	};
	struct nvme_sqe sq = {
		.opcode = NVME_ADMIN_CREATE_SQ,
		.prp1 = nvme_iova(q->sq),
		.cdw10 = cdw10,
		.cdw11 = (uint32_t)q->id << 16 | NVME_QUEUE_PC,
	};
	struct nvme_sqe undo = { .opcode = NVME_ADMIN_DELETE_CQ, .cdw10 = q->id };
	int rc = admin_run(q->c, &cq, NULL);

	if (rc)
		return rc;
	rc = admin_run(q->c, &sq, NULL);
	if (rc && rc != -ETIMEDOUT && rc != -ENODEV && admin_run(q->c, &undo, NULL))
		rc = -ETIMEDOUT; /* the completion queue's memory stays the controller's */
	return rc;
}

/* Lock held. */
static int take_id(struct nvme_qpair *q)
{
	struct nvme_ctrlr *c = q->c;
	unsigned id = 1;

	while (id <= c->info.max_qpairs && c->qpairs[id])
		id++;
	if (id > c->info.max_qpairs)
		return -ENOSPC;
	q->id = (uint16_t)id;
	q->sq_db = ctrlr_doorbell(c, id, false);
	q->cq_db = ctrlr_doorbell(c, id, true);
	c->qpairs[id] = q;
	c->nqpairs++;
	return 0;
}

static void give_id(struct nvme_qpair *q)
{
	q->c->qpairs[q->id] = NULL;
	q->c->nqpairs--;
}

static int bind_interrupt(struct nvme_qpair *q)
{
	if (!q->c->info.interrupts)
		return 0;
	q->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->eventfd < 0)
		return -errno;
	return q->c->transport->bind(q->c, q->id, q->eventfd);
}

int nvme_qpair_create(struct nvme_ctrlr *c, uint32_t depth, struct nvme_qpair **out)
{
	struct nvme_qpair *q;
	unsigned epoch;
	int rc;

	if (nvme_failed(c))
		return -ENODEV;
	q = make_memory(c, MIN(depth ? depth : DEFAULT_DEPTH, c->info.max_depth));
	if (!q)
		return -ENOMEM;
	pthread_mutex_lock(&c->lock);
	epoch = q->epoch = atomic_load(&c->epoch);
	rc = take_id(q);
	if (!rc) {
		rc = bind_interrupt(q);
		if (!rc)
			rc = qpair_connect(q);
		if (rc)
			give_id(q);
	}
	pthread_mutex_unlock(&c->lock);
	if (rc) {
		/* The memory is ours again only when the controller has been stopped. */
		if (rc == -ETIMEDOUT)
			ctrlr_reset(c, epoch, "a queue could not be made");
		free_memory(q);
		return rc;
	}
	*out = q;
	return 0;
}

/* Lock held. The controller ends the queue's commands; afterwards it uses the memory no more. */
static int disconnect(struct nvme_qpair *q)
{
	struct nvme_sqe sq = { .opcode = NVME_ADMIN_DELETE_SQ, .cdw10 = q->id };
	struct nvme_sqe cq = { .opcode = NVME_ADMIN_DELETE_CQ, .cdw10 = q->id };
	int rc;

	if (atomic_load(&q->c->state) != NVME_RUNNING || q->epoch != atomic_load(&q->c->epoch))
		return 0;
	rc = admin_run(q->c, &sq, NULL);
	return rc ? rc : admin_run(q->c, &cq, NULL);
}

void nvme_qpair_free(struct nvme_qpair *q)
{
	struct nvme_ctrlr *c = q->c;
	int rc;

	pthread_mutex_lock(&c->lock);
	rc = disconnect(q);
	pthread_mutex_unlock(&c->lock);
	if (rc)
		ctrlr_reset(c, q->epoch, "a queue could not be deleted");
	/* Nothing that a callback submits is to be sent. */
	q->epoch = atomic_load(&c->epoch) - 1;
	while (q->outstanding)
		qpair_finish_all(q, -ECANCELED);
	pthread_mutex_lock(&c->lock);
	give_id(q);
	pthread_mutex_unlock(&c->lock);
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
	q->check = true;
	if (q->eventfd >= 0 && read(q->eventfd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		return true;
	return nvme_pending(q);
}

int nvme_poll_interval_ms(const struct nvme_qpair *q)
{
	return (int)MIN(MAX(q->tick_ns / 1000000, 1ull), 1000ull);
}
