/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The admin queue: several commands at once, each in a slot, under the controller's lock, which nobody holds while waiting. Who
 * starts a command gets a handle and asks for its result, from poll to poll, or here, in a loop. A handle holds the
 * slot's generation, so that what a reset has taken away is told from what came after it.
 *
 * A command that does not come back in time leaves its slot, and its buffer, with the controller until that is stopped:
 * nothing but a reset can follow.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "nvme"
#include "base/log.h"
#include "nvme/internal.h"

#define SPINS 2000u
#define PAGES 7 /* both queues, what steps send and receive, metadata that nobody uses */

int admin_init(struct nvme_ctrlr *c)
{
	char *page = nvme_alloc((size_t)PAGES * NVME_PAGE, NVME_PAGE);

	if (!page)
		return -ENOMEM;
	c->admin.sq = (void *)page;
	c->admin.cq = (void *)(page + NVME_PAGE);
	c->admin.page = (void *)(page + (size_t)2 * NVME_PAGE);
	c->events.ids = (void *)(page + (size_t)3 * NVME_PAGE);
	c->events.id = (void *)(page + (size_t)4 * NVME_PAGE);
	c->meta = page + (size_t)5 * NVME_PAGE;
	memset(c->meta, 0, (size_t)2 * NVME_PAGE);
	admin_clear(c);
	return 0;
}

/* As the controller's reset leaves the queues: empty. The controller does not run. */
void admin_clear(struct nvme_ctrlr *c)
{
	struct admin *a = &c->admin;

	memset(a->sq, 0, (size_t)2 * NVME_PAGE);
	a->tail = a->head = 0;
	a->phase = 1;
	a->aborts = 0;
	for (unsigned i = 0; i < ADMIN_SLOTS; i++) {
		a->slot[i].state = ADMIN_FREE;
		a->slot[i].generation++;
	}
}

void admin_free(struct nvme_ctrlr *c)
{
	ctrlr_free(c, c->admin.sq);
	c->admin.sq = NULL;
}

/* ---- slots; all of it under the lock ---- */

static uint16_t cid_of(const struct admin *a, unsigned i)
{
	return (uint16_t)(i | (a->slot[i].generation & 0x3ff) << 5);
}

static int start(struct nvme_ctrlr *c, struct nvme_sqe *sqe, uint32_t timeout_ms,
		 enum admin_state state)
{
	struct admin *a = &c->admin;
	unsigned i = 0;

	if (atomic_load(&c->state) == NVME_FAILED)
		return -ENODEV;
	if (a->stopped)
		return -EAGAIN;
	while (i < ADMIN_SLOTS && a->slot[i].state != ADMIN_FREE)
		i++;
	if (i == ADMIN_SLOTS)
		return -EAGAIN;
	a->slot[i].state = (uint8_t)state;
	a->slot[i].opcode = sqe->opcode;
	a->slot[i].generation++;
	a->slot[i].deadline_ns = timeout_ms ? nvme_now_ns() + timeout_ms * 1000000ull : UINT64_MAX;
	sqe->cid = cid_of(a, i);
	a->sq[a->tail] = *sqe;
	a->tail = (uint16_t)((a->tail + 1) % ADMIN_ENTRIES);
	ctrlr_ring(c, a->sq_db, 0, false, a->tail);
	return (int)(i | (a->slot[i].generation & 0xffffff) << 5);
}

int admin_start(struct nvme_ctrlr *c, struct nvme_sqe *sqe, uint32_t timeout_ms)
{
	return start(c, sqe, timeout_ms, ADMIN_SENT);
}

int admin_abort(struct nvme_ctrlr *c, uint16_t qid, uint16_t cid)
{
	struct nvme_sqe sqe = { .opcode = NVME_ADMIN_ABORT, .cdw10 = (uint32_t)cid << 16 | qid };
	int rc;

	/* More than the controller takes at once it would refuse. */
	if (c->admin.aborts > c->abort_limit)
		return -EAGAIN;
	rc = start(c, &sqe, NVME_ADMIN_TIMEOUT_MS, ADMIN_NOBODYS);
	if (rc >= 0)
		c->admin.aborts++;
	return rc < 0 ? rc : 0;
}

static void complete(struct nvme_ctrlr *c, uint16_t cid, uint16_t status, uint32_t dw0)
{
	struct admin *a = &c->admin;
	unsigned i = cid & (ADMIN_SLOTS - 1);
	struct admin_slot *s = &a->slot[i];

	if (cid != cid_of(a, i) || s->state == ADMIN_FREE || s->state == ADMIN_DONE)
		return;
	s->status = NVME_CQE_CODE(status);
	s->dw0 = dw0;
	if (s->status)
		log_debug("%s: admin command %02x: %s", c->info.address, s->opcode,
			  nvme_status_text(s->status));
	if (s->state == ADMIN_NOBODYS)
		a->aborts--;
	s->state = s->state == ADMIN_SENT ? ADMIN_DONE : ADMIN_FREE;
}

void admin_poll(struct nvme_ctrlr *c)
{
	struct admin *a = &c->admin;
	uint16_t head = a->head;

	/* No more than there can be commands: a controller that never stops would hold the lock. */
	for (unsigned i = 0; i < ADMIN_SLOTS && !a->stopped; i++) {
		volatile struct nvme_cqe *e = &a->cq[head];
		uint16_t status = __atomic_load_n(&e->status, __ATOMIC_ACQUIRE);

		if ((status & NVME_CQE_PHASE) != a->phase)
			break;
		complete(c, e->cid, status, e->dw0);
		if (++head == ADMIN_ENTRIES) {
			head = 0;
			a->phase ^= 1;
		}
	}
	if (head != a->head) {
		a->head = head;
		ctrlr_ring(c, a->cq_db, 0, true, head);
	}
}

bool admin_overdue(struct nvme_ctrlr *c)
{
	uint64_t now = c->admin.aborts ? nvme_now_ns() : 0;

	for (unsigned i = 0; i < ADMIN_SLOTS && now; i++)
		if (c->admin.slot[i].state == ADMIN_NOBODYS && now > c->admin.slot[i].deadline_ns)
			return true;
	return false;
}

int admin_result(struct nvme_ctrlr *c, int handle, struct admin_answer *out)
{
	struct admin_slot *s = &c->admin.slot[handle & (ADMIN_SLOTS - 1)];

	*out = (struct admin_answer){ 0 };
	if ((int)(s->generation & 0xffffff) != handle >> 5)
		return -ECANCELED;
	if (s->state == ADMIN_DONE) {
		s->state = ADMIN_FREE;
		out->dw0 = s->dw0;
		out->status = s->status;
		return nvme_status_errno(s->status);
	}
	if (atomic_load(&c->state) == NVME_FAILED)
		return -ENODEV;
	if (nvme_now_ns() <= s->deadline_ns)
		return -EINPROGRESS;
	log_warn("%s: admin command %02x does not come back", c->info.address, s->opcode);
	s->state = ADMIN_LEFT;
	return -ETIMEDOUT;
}

/* ---- synchronously, without the lock ---- */

static int wait_for(struct nvme_ctrlr *c, int handle, struct admin_answer *out)
{
	int rc;

	for (unsigned i = 0;; i++) {
		pthread_mutex_lock(&c->lock);
		ctrlr_advance(c);
		rc = admin_result(c, handle, out);
		pthread_mutex_unlock(&c->lock);
		if (rc != -EINPROGRESS)
			return rc;
		if (i < SPINS)
			continue;
		if (!c->transport->alive(c))
			ctrlr_fail(c, "gone");
		nvme_sleep_us(20);
	}
}

int admin_run(struct nvme_ctrlr *c, struct nvme_sqe *sqe, uint32_t timeout_ms, unsigned *epoch,
	      struct admin_answer *out)
{
	int handle;

	for (;;) {
		pthread_mutex_lock(&c->lock);
		ctrlr_advance(c);
		*epoch = atomic_load(&c->epoch);
		handle = atomic_load(&c->state) == NVME_RESETTING ? -EAGAIN
								  : admin_start(c, sqe, timeout_ms);
		pthread_mutex_unlock(&c->lock);
		if (handle >= 0)
			return wait_for(c, handle, out);
		*out = (struct admin_answer){ 0 };
		if (handle != -EAGAIN)
			return handle;
		if (!c->transport->alive(c))
			ctrlr_fail(c, "gone");
		nvme_sleep_us(100);
	}
}

/* ---- data ---- */

/* Names the pages of the buffer in the command; list: a page, of which it needs as much as there are pages. */
static void point_at(struct nvme_sqe *sqe, void *buf, uint32_t len, uint64_t *list)
{
	uint32_t pages = (uint32_t)div_round_up(len, NVME_PAGE);
	char *page = buf;

	sqe->prp1 = pages ? nvme_iova(page) : 0;
	sqe->prp2 = pages == 2 ? nvme_iova(page + NVME_PAGE) : pages > 2 ? nvme_iova(list) : 0;
	for (uint32_t i = 1; pages > 2 && i < pages; i++)
		list[i - 1] = nvme_iova(page + (size_t)i * NVME_PAGE);
}

/* Asking twice does no harm. */
static bool only_asks(uint8_t opcode)
{
	return opcode == NVME_ADMIN_IDENTIFY || opcode == NVME_ADMIN_GET_LOG ||
	       opcode == NVME_ADMIN_GET_FEATURES;
}

static int run_with(struct nvme_ctrlr *c, struct nvme_sqe *sqe, uint32_t timeout_ms,
		    struct admin_answer *out)
{
	unsigned epoch;
	int rc;

	do {
		rc = admin_run(c, sqe, timeout_ms, &epoch, out);
	} while (rc == -ECANCELED && !out->status && only_asks(sqe->opcode));
	/* The buffer is not ours before the controller has been stopped. */
	if (rc == -ETIMEDOUT && !out->status && ctrlr_reset(c, epoch, "an admin command timed out"))
		return -ENODEV;
	return rc;
}

int nvme_admin_cmd(struct nvme_ctrlr *c, struct nvme_admin_cmd *cmd)
{
	uint32_t len = cmd->len, whole = (uint32_t)round_up(len, NVME_PAGE);
	struct admin_answer answer = { 0 };
	struct nvme_sqe copy;
	char *buf;
	int rc;

	cmd->result = 0;
	cmd->status = 0;
	if (len > c->info.max_transfer || (len && !cmd->data))
		return -EINVAL;
	buf = nvme_alloc(whole + NVME_PAGE, NVME_PAGE);
	if (!buf)
		return -ENOMEM;
	memcpy(&copy, cmd->sqe, sizeof(copy));
	memset(buf, 0, whole);
	if (len)
		memcpy(buf, cmd->data, len);
	point_at(&copy, buf, len, (void *)(buf + whole));
	rc = run_with(c, &copy, cmd->timeout_ms ? cmd->timeout_ms : NVME_ADMIN_TIMEOUT_MS, &answer);
	if (len && !rc && !(cmd->flags & NVME_ADMIN_TO_CTRLR))
		memcpy(cmd->data, buf, len);
	ctrlr_free(c, buf);
	cmd->result = answer.dw0;
	cmd->status = answer.status;
	return rc;
}

int nvme_admin(struct nvme_ctrlr *c, const void *sqe, void *data, uint32_t len, uint32_t *result)
{
	struct nvme_admin_cmd cmd = { .sqe = sqe, .data = data, .len = len };
	int rc = nvme_admin_cmd(c, &cmd);

	if (result && !rc)
		*result = cmd.result;
	return rc;
}
