/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The admin queue. One command at a time, asked and waited for under the controller's lock: it is used to make
 * queues, to ask, and to abort. A command that does not come back leaves its slot and its buffer with the controller, so
 * nothing but a reset, which is the caller's to begin, can follow.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "nvme"
#include "base/log.h"
#include "nvme/internal.h"

#define ENTRIES 16u
#define SPINS 2000u

int admin_init(struct nvme_ctrlr *c)
{
	char *page = nvme_alloc((size_t)2 * NVME_PAGE, NVME_PAGE);

	if (!page)
		return -ENOMEM;
	c->admin.sq = (void *)page;
	c->admin.cq = (void *)(page + NVME_PAGE);
	admin_clear(c);
	return 0;
}

/* As the controller's reset leaves the queues: empty. The controller does not run. */
void admin_clear(struct nvme_ctrlr *c)
{
	memset(c->admin.sq, 0, (size_t)2 * NVME_PAGE);
	c->admin.tail = c->admin.head = 0;
	c->admin.phase = 1;
}

void admin_free(struct nvme_ctrlr *c)
{
	nvme_free(c->admin.sq);
	c->admin.sq = NULL;
}

static bool take_completion(struct nvme_ctrlr *c, struct nvme_cqe *out)
{
	struct admin *a = &c->admin;
	volatile struct nvme_cqe *e = &a->cq[a->head];
	uint16_t status = __atomic_load_n(&e->status, __ATOMIC_ACQUIRE);

	if ((status & NVME_CQE_PHASE) != a->phase)
		return false;
	*out = (struct nvme_cqe){ .dw0 = e->dw0, .cid = e->cid, .status = status };
	if (++a->head == ENTRIES) {
		a->head = 0;
		a->phase ^= 1;
	}
	ctrlr_ring(c, a->cq_db, 0, true, a->head);
	return true;
}

static int wait_for(struct nvme_ctrlr *c, uint16_t cid, struct nvme_cqe *cqe)
{
	uint64_t end = nvme_now_ns() + NVME_ADMIN_TIMEOUT_MS * 1000000ull;

	for (unsigned i = 0;; i++) {
		while (take_completion(c, cqe))
			if (cqe->cid == cid)
				return 0;
		if (i < SPINS)
			continue;
		if (!c->transport->alive(c))
			return -ENODEV;
		if (nvme_now_ns() > end)
			return -ETIMEDOUT;
		nvme_sleep_us(20);
	}
}

int admin_run(struct nvme_ctrlr *c, struct nvme_sqe *sqe, uint32_t *result)
{
	struct admin *a = &c->admin;
	struct nvme_cqe cqe;
	uint16_t code;
	int rc;

	if (atomic_load(&c->state) == NVME_FAILED)
		return -ENODEV;
	sqe->cid = ++a->cid;
	a->sq[a->tail] = *sqe;
	a->tail = (uint16_t)((a->tail + 1) % ENTRIES);
	ctrlr_ring(c, a->sq_db, 0, false, a->tail);
	rc = wait_for(c, sqe->cid, &cqe);
	if (rc) {
		log_warn("%s: admin command %02x: %s", c->info.address, sqe->opcode, strerror(-rc));
		return rc;
	}
	if (result)
		*result = cqe.dw0;
	code = NVME_CQE_CODE(cqe.status);
	if (code)
		log_debug("%s: admin command %02x: %s", c->info.address, sqe->opcode,
			  nvme_status_text(code));
	return nvme_status_errno(code);
}

/* ---- data ---- */

/* Names the pages of the buffer in the command; list: a page, of which it needs as much as there are pages. */
static void point_at(struct nvme_sqe *sqe, void *buf, uint32_t len, uint64_t *list)
{
	uint32_t pages = (uint32_t)div_round_up(len, NVME_PAGE);

	sqe->prp1 = pages ? nvme_iova(buf) : 0;
	sqe->prp2 = pages == 2 ? nvme_iova(buf) + NVME_PAGE : pages > 2 ? nvme_iova(list) : 0;
	for (uint32_t i = 1; pages > 2 && i < pages; i++)
		list[i - 1] = nvme_iova(buf) + (uint64_t)i * NVME_PAGE;
}

int nvme_admin(struct nvme_ctrlr *c, const void *sqe, void *data, uint32_t len, uint32_t *result)
{
	struct nvme_sqe copy;
	unsigned epoch;
	char *buf;
	int rc;

	if (len > c->info.max_transfer)
		return -EINVAL;
	buf = nvme_alloc(round_up(len, NVME_PAGE) + NVME_PAGE, NVME_PAGE);
	if (!buf)
		return -ENOMEM;
	memcpy(&copy, sqe, sizeof(copy));
	memset(buf, 0, round_up(len, NVME_PAGE));
	if (len)
		memcpy(buf, data, len);
	point_at(&copy, buf, len, (void *)(buf + round_up(len, NVME_PAGE)));
	pthread_mutex_lock(&c->lock);
	epoch = atomic_load(&c->epoch);
	rc = admin_run(c, &copy, result);
	pthread_mutex_unlock(&c->lock);
	/* The buffer is not ours before the controller has been stopped. */
	if (rc == -ETIMEDOUT && ctrlr_reset(c, epoch, "an admin command timed out"))
		return -ENODEV;
	if (len && !rc)
		memcpy(data, buf, len);
	nvme_free(buf);
	return rc;
}

int nvme_identify(struct nvme_ctrlr *c, uint8_t cns, uint32_t nsid, void *page)
{
	struct nvme_sqe sqe = { .opcode = NVME_ADMIN_IDENTIFY, .nsid = nsid, .cdw10 = cns };

	memset(page, 0, NVME_PAGE);
	return nvme_admin(c, &sqe, page, NVME_PAGE, NULL);
}

int nvme_get_log(struct nvme_ctrlr *c, uint8_t page, uint32_t nsid, void *buf, uint32_t len)
{
	uint32_t dwords = len / 4 - 1;
	struct nvme_sqe sqe = {
		.opcode = NVME_ADMIN_GET_LOG,
		.nsid = nsid,
		.cdw10 = page | (dwords & 0xffff) << 16,
		.cdw11 = dwords >> 16,
	};

	if (!len || len % 4)
		return -EINVAL;
	memset(buf, 0, len);
	return nvme_admin(c, &sqe, buf, len, NULL);
}

int nvme_get_feature(struct nvme_ctrlr *c, uint8_t fid, uint32_t *value)
{
	struct nvme_sqe sqe = { .opcode = NVME_ADMIN_GET_FEATURES, .cdw10 = fid };

	return nvme_admin(c, &sqe, NULL, 0, value);
}

int nvme_set_feature(struct nvme_ctrlr *c, uint8_t fid, uint32_t value, uint32_t *result)
{
	struct nvme_sqe sqe = { .opcode = NVME_ADMIN_SET_FEATURES, .cdw10 = fid, .cdw11 = value };

	return nvme_admin(c, &sqe, NULL, 0, result);
}
