/* SPDX-License-Identifier: BSD-2-Clause */
/* What controllers do more seldom: copying, formatting, firmware, sanitizing. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "test/common/nvmet.h"

uint64_t nvmet_base(const struct nvmet *t, uint32_t nsid)
{
	return (nsid - 1) * t->o.size;
}

/* The data of a command, in one piece. */
static uint16_t take_in(struct nvmet *t, const struct nvme_sqe *sqe, void *to, uint64_t len)
{
	struct iovec iov[NVMET_MAX_IOV];
	int n = nvmet_buffers(t, sqe, len, false, iov);

	if (n < 0)
		return (uint16_t)-n;
	for (int i = 0; i < n; i++) {
		memcpy(to, iov[i].iov_base, iov[i].iov_len);
		to = (char *)to + iov[i].iov_len;
	}
	return 0;
}

static uint16_t copy_range(struct nvmet *t, uint32_t nsid, uint64_t from, uint64_t to,
			   uint64_t blocks)
{
	uint64_t base = nvmet_base(t, nsid);

	nvmet_cache_before(t, base + to * t->block, blocks * t->block);
	for (uint64_t i = 0; i < blocks && t->store >= 0; i++) {

		if (pread(t->store, t->scratch, t->block, (off_t)(base + (from + i) * t->block)) !=
		    (ssize_t)t->block)
			return NVME_SC_READ_ERROR;
		if (pwrite(t->store, t->scratch, t->block, (off_t)(base + (to + i) * t->block)) !=
		    (ssize_t)t->block)
			return NVME_SC_WRITE_FAULT;
	}
	nvmet_cache_after(t, base + to * t->block, blocks * t->block, false);
	return 0;
}

uint16_t nvmet_copy(struct nvmet *t, const struct nvme_sqe *sqe)
{
	uint64_t to = sqe->cdw10 | (uint64_t)sqe->cdw11 << 32, blocks;
	struct nvme_copy_range r;
	uint16_t status = take_in(t, sqe, &r, sizeof(r));

	if (status)
		return status;
	blocks = r.blocks + 1u;
	if (sqe->cdw12 & 0xfff || r.rsvd0 || r.rsvd18 || r.rsvd20)
		nvmet_host_error(t, "a copy of more than one range, or reserved fields are set");
	if (blocks > t->o.copy_blocks) {
		nvmet_host_error(t, "a copy of more than MSSRL");
		return NVME_SC_INVALID_FIELD;
	}
	if (!nvmet_in_range(t, to, blocks) || !nvmet_in_range(t, r.lba, blocks))
		return NVME_SC_LBA_RANGE;
	atomic_fetch_add(&t->n.copies, 1);
	return copy_range(t, sqe->nsid, r.lba, to, blocks);
}

/* ---- administration ---- */

static uint16_t format(struct nvmet *t, const struct nvme_sqe *sqe)
{
	unsigned f = sqe->cdw10 & 0xf;

	if (f > 1 || sqe->cdw10 >> 12 || (sqe->cdw10 >> 5 & 7))
		return NVME_SC_FORMAT_INVALID;
	if (!sqe->nsid || (sqe->nsid > t->o.namespaces && sqe->nsid != NVME_NSID_ALL))
		return NVME_SC_INVALID_NS;
	/* All namespaces have the same one here, as the specification allows. */
	t->block = !f ? t->o.block : t->o.block == 4096 ? 512 : 4096;
	t->formats++;
	nvmet_cache_flush(t);
	if (t->store >= 0 &&
	    (ftruncate(t->store, 0) || ftruncate(t->store, (off_t)(t->o.size * t->o.namespaces))))
		return NVME_SC_WRITE_FAULT;
	return 0;
}

/* An image begins with its name, eight letters. */
static uint16_t download(struct nvmet *t, const struct nvme_sqe *sqe)
{
	uint64_t len = ((uint64_t)sqe->cdw10 + 1) * 4, at = (uint64_t)sqe->cdw11 * 4;
	uint16_t status;

	if (len > (uint64_t)NVME_PAGE << t->o.mdts)
		return NVME_SC_INVALID_FIELD;
	if (at != t->image && at)
		return NVME_SC_FIRMWARE_OVERLAP;
	status = take_in(t, sqe, t->scratch, len);
	if (status)
		return status;
	if (!at)
		memcpy(t->image_name, t->scratch, MIN(len, 8u));
	t->image = (uint32_t)(at + len);
	return 0;
}

static uint16_t commit(struct nvmet *t, const struct nvme_sqe *sqe)
{
	unsigned action = sqe->cdw10 >> 3 & 7;

	if ((sqe->cdw10 & 7) > 1)
		return NVME_SC_FIRMWARE_SLOT;
	if (!t->image)
		return NVME_SC_FIRMWARE_IMAGE;
	memcpy(t->firmware, t->image_name, 8);
	return action == 3 ? 0 : NVME_SC_FIRMWARE_CONTROLLER_RESET;
}

static uint16_t more_logs(struct nvmet *t, const struct nvme_sqe *sqe)
{
	uint64_t len = ((uint64_t)(sqe->cdw10 >> 16 | (sqe->cdw11 & 0xffff) << 16) + 1) * 4;
	uint8_t log[4096] = { 0 };

	if (len > sizeof(log))
		return NVME_SC_INVALID_FIELD;
	if ((sqe->cdw10 & 0xff) == NVME_LOG_CHANGED_NS && atomic_load(&t->changed)) {
		memset(log, 0xff, atomic_load(&t->changed) > 1 ? 4 : 0); /* more than can be named */
		log[0] = atomic_load(&t->changed) > 1 ? 0xff : 1;
		atomic_store(&t->changed, 0);
	}
	if ((sqe->cdw10 & 0xff) == NVME_LOG_SANITIZE) {
		log[0] = log[1] = 0xff;
		log[2] = 1;
		log[3] = 1;
	}
	return nvmet_put_out(t, sqe, log, len);
}

static uint16_t host_behavior(struct nvmet *t, const struct nvme_sqe *sqe)
{
	uint8_t data[512];
	uint16_t status = take_in(t, sqe, data, sizeof(data));

	if (!status)
		t->heeds_delays = data[0] == 1;
	return status;
}

/* ---- events ---- */

static uint16_t wait_for_event(struct nvmet *t, const struct nvme_sqe *sqe)
{
	if (!t->o.events)
		return NVME_SC_INVALID_OPCODE;
	if (t->nwaiting == ARRAY_SIZE(t->waiting)) {
		nvmet_host_error(t, "more requests for events than it takes");
		return 0x105;
	}
	t->waiting[t->nwaiting++] = sqe->cid;
	return NVMET_LATER;
}

void nvmet_tell(struct nvmet *t)
{
	uint32_t event = t->nwaiting ? atomic_exchange(&t->f.event, 0) : 0;

	if (!event && t->nwaiting && atomic_load(&t->f.ailing) && !t->health_told) {
		event = NVME_LOG_SMART << 16 | 1;
		t->health_told = true;
	}
	if (!event)
		return;
	if ((event >> 16 & 0xff) == NVME_LOG_CHANGED_NS)
		atomic_store(&t->changed, 1 + (event >> 24)); /* the upper byte is ours */
	atomic_fetch_add(&t->n.events, 1);
	nvmet_complete(t, 0, t->waiting[--t->nwaiting], 0, event & 0xffffff);
}

/* ---- doorbells in memory ---- */

static uint16_t doorbell_buffers(struct nvmet *t, const struct nvme_sqe *sqe)
{
	if (!t->o.shadow)
		return NVME_SC_INVALID_OPCODE;
	if (sqe->prp1 % NVME_PAGE || sqe->prp2 % NVME_PAGE)
		return NVME_SC_INVALID_FIELD;
	t->shadow = nvmet_memory(t, sqe->prp1, NVME_PAGE, false);
	t->seen = nvmet_memory(t, sqe->prp2, NVME_PAGE, true);
	return t->shadow && t->seen ? 0 : NVME_SC_DATA_TRANSFER;
}

uint32_t nvmet_cq_head(struct nvmet *t, unsigned id)
{
	uint32_t head;

	if (!id || !t->shadow)
		return __atomic_load_n(nvmet_doorbell(t, id, true), __ATOMIC_ACQUIRE);
	head = __atomic_load_n(&t->shadow[2 * id + 1], __ATOMIC_ACQUIRE);
	t->seen[2 * id + 1] = head; /* whenever it is needed it is looked at: no ring is wanted */
	return head;
}

bool nvmet_awake(struct nvmet *t, unsigned id, uint32_t *tail)
{
	uint32_t *db = nvmet_doorbell(t, id, false);

	if (!id || !t->shadow) {
		*tail = __atomic_load_n(db, __ATOMIC_ACQUIRE);
		return true;
	}
	if (!t->sqs[id].awake &&
	    __atomic_exchange_n(db, NVMET_UNRUNG, __ATOMIC_SEQ_CST) == NVMET_UNRUNG)
		return false;
	if (!t->sqs[id].awake)
		atomic_fetch_add(&t->n.rings, 1);
	t->sqs[id].awake = true;
	*tail = __atomic_load_n(&t->shadow[2 * id], __ATOMIC_ACQUIRE);
	return true;
}

bool nvmet_sleep(struct nvmet *t, unsigned id)
{
	struct nvmet_sq *q = &t->sqs[id];

	if (!id || !t->shadow)
		return true;
	/* First it says how far it has seen, then it looks once more: the host does it the other way round. */
	__atomic_store_n(&t->seen[2 * id], q->head, __ATOMIC_SEQ_CST);
	q->awake = __atomic_load_n(&t->shadow[2 * id], __ATOMIC_SEQ_CST) != q->head;
	return !q->awake;
}

/* ---- data ---- */

int nvmet_sgl(struct nvmet *t, const struct nvme_sqe *sqe, uint64_t len, bool write,
	      struct iovec iov[NVMET_MAX_IOV])
{
	uint64_t n = (uint32_t)sqe->prp2 / sizeof(struct nvme_sgl);
	const struct nvme_sgl *list;

	if (sqe->prp2 >> 32 != (uint64_t)NVME_SGL_LAST_SEGMENT << 24 || !n ||
	    (uint32_t)sqe->prp2 % sizeof(*list)) {
		nvmet_host_error(t, "an SGL that is no last segment");
		return -NVME_SC_INVALID_FIELD;
	}
	list = nvmet_memory(t, sqe->prp1, n * sizeof(*list), false);
	if (!list || n > NVMET_MAX_IOV)
		return -NVME_SC_DATA_TRANSFER;
	atomic_fetch_add(&t->n.sgls, 1);
	for (uint64_t i = 0; i < n; i++) {
		if (list[i].type != NVME_SGL_DATA || list[i].length > len || !list[i].length) {
			nvmet_host_error(t, "an SGL that is not as long as the data");
			return -NVME_SC_INVALID_FIELD;
		}
		iov[i].iov_base = nvmet_memory(t, list[i].address, list[i].length, write);
		iov[i].iov_len = list[i].length;
		if (!iov[i].iov_base)
			return -NVME_SC_DATA_TRANSFER;
		len -= list[i].length;
	}
	if (len)
		nvmet_host_error(t, "an SGL that is shorter than the data");
	return len ? -NVME_SC_INVALID_FIELD : (int)n;
}

void nvmet_check_protection(struct nvmet *t, const struct nvme_sqe *sqe)
{
	bool verify = sqe->opcode == NVME_NVM_VERIFY;
	uint32_t want = (verify ? 0 : NVME_RW_PRACT) | NVME_RW_PRCHK_GUARD |
			(t->o.protection < 3 ? NVME_RW_PRCHK_REF : 0);

	if (sqe->opcode == NVME_NVM_WRITE_ZEROES)
		want = NVME_RW_PRACT;

	if ((sqe->cdw12 >> 26 & 0xf) != (t->o.protection ? want >> 26 & 0xf : 0))
		nvmet_host_error(t, "protection information is not asked for as it should be");
	if (sqe->cdw14 != (t->o.protection && t->o.protection < 3 ? sqe->cdw10 : 0))
		nvmet_host_error(t, "the reference tag is not the place");
}

uint16_t nvmet_more_admin(struct nvmet *t, const struct nvme_sqe *sqe, uint32_t *dw0)
{
	(void)dw0;
	switch (sqe->opcode) {
	case NVME_ADMIN_ASYNC_EVENT:
		return wait_for_event(t, sqe);
	case NVME_ADMIN_DIRECTIVE_SEND:
	case NVME_ADMIN_DIRECTIVE_RECEIVE:
		return nvmet_directive(t, sqe);
	case NVME_ADMIN_DOORBELL_BUFFERS:
		return doorbell_buffers(t, sqe);
	case NVME_ADMIN_FORMAT:
		return format(t, sqe);
	case NVME_ADMIN_FIRMWARE_DOWNLOAD:
		return download(t, sqe);
	case NVME_ADMIN_FIRMWARE_COMMIT:
		return commit(t, sqe);
	case NVME_ADMIN_GET_LOG:
		return more_logs(t, sqe);
	case NVME_ADMIN_SET_FEATURES:
		return host_behavior(t, sqe);
	default:
		return NVME_SC_INVALID_OPCODE;
	}
}
