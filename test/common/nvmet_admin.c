/* SPDX-License-Identifier: BSD-2-Clause */
/* The admin commands. */
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "test/common/nvmet.h"

static void put_text(char *to, const char *text, size_t len)
{
	memset(to, ' ', len);
	memcpy(to, text, MIN(strlen(text), len));
}

static void identify_ctrlr(struct nvmet *t, struct nvme_id_ctrlr *id)
{
	unsigned mdts = atomic_load(&t->f.mdts), sqes = atomic_load(&t->f.sqes);

	id->vid = id->ssvid = 0x1d1d;
	put_text(id->sn, "NVMET0001", sizeof(id->sn));
	put_text(id->mn, "BlobFS test controller", sizeof(id->mn));
	put_text(id->fr, t->firmware, sizeof(id->fr));
	id->mdts = (uint8_t)(mdts ? mdts : t->o.mdts);
	id->cntlid = 1;
	id->ver = 0x10400;
	id->acl = 3;
	id->elpe = NVMET_ERRORS - 1;
	id->sqes = (uint8_t)(sqes ? sqes : 0x66);
	id->cqes = 0x44;
	id->nn = t->o.namespaces;
	id->crdt[0] = t->o.crdt;
	id->aerl = 3;
	id->oaes = t->o.events ? NVME_OAES_NAMESPACES : 0;
	id->sgls = t->o.sgl;
	id->oacs = NVME_OACS_FORMAT | NVME_OACS_FIRMWARE | (t->o.shadow ? NVME_OACS_DOORBELL_BUFFERS : 0) |
		   (t->o.streams ? NVME_OACS_DIRECTIVES : 0);
	id->oncs = NVME_ONCS_COPY | NVME_ONCS_COMPARE | NVME_ONCS_DSM | NVME_ONCS_WRITE_ZEROES |
		   NVME_ONCS_VERIFY;
	id->vwc = !t->o.write_through;
	put_text(id->subnqn, "nqn.2024-01.test:nvmet", 22);
}

static void identify_ns(struct nvmet *t, struct nvme_id_ns *id)
{
	unsigned lbads = atomic_load(&t->f.lbads);

	id->nsze = id->ncap = id->nuse = atomic_load(&t->f.no_blocks) ? 0 : atomic_load(&t->f.blocks) ? atomic_load(&t->f.blocks) : t->o.size / t->block;
	id->nlbaf = 1; /* 512 and 4096, or the one it was made with */
	id->mssrl = t->o.copy_blocks;
	id->mcl = t->o.copy_blocks;
	id->dlfeat = NVME_DLFEAT_ZEROES | NVME_DLFEAT_WZ_DEAC;
	id->noiob = t->o.noiob;
	id->flbas = (t->block != t->o.block) | (atomic_load(&t->f.extended) ? NVME_FLBAS_EXTENDED : 0);
	id->lbaf[0].lbads = (uint8_t)(lbads ? lbads : (unsigned)__builtin_ctz(t->o.block));
	id->lbaf[1].lbads = t->o.block == 4096 ? 9 : 12;
	id->lbaf[0].ms = t->o.protection ? 8 : (uint16_t)atomic_load(&t->f.metadata);
	id->dps = t->o.protection;
}

uint16_t nvmet_put_out(struct nvmet *t, const struct nvme_sqe *sqe, const void *data, uint64_t len)
{
	struct iovec iov[NVMET_MAX_IOV];
	int n = nvmet_buffers(t, sqe, len, true, iov);

	if (n < 0)
		return (uint16_t)-n;
	for (int i = 0; i < n; i++) {
		memcpy(iov[i].iov_base, data, iov[i].iov_len);
		data = (const char *)data + iov[i].iov_len;
	}
	return 0;
}

static uint16_t identify(struct nvmet *t, const struct nvme_sqe *sqe)
{
	static _Thread_local union {
		struct nvme_id_ctrlr ctrlr;
		struct nvme_id_ns ns;
		struct nvme_id_nvm nvm;
		uint32_t ids[1024];
	} page;

	memset(&page, 0, sizeof(page));
	switch (sqe->cdw10 & 0xff) {
	case NVME_CNS_CTRLR:
		identify_ctrlr(t, &page.ctrlr);
		break;
	case NVME_CNS_NS:
		if (!sqe->nsid || sqe->nsid > t->o.namespaces)
			return NVME_SC_INVALID_NS;
		if (sqe->nsid == atomic_load(&t->f.bad_ns))
			return NVME_SC_INTERNAL;
		identify_ns(t, &page.ns);
		break;
	case NVME_CNS_NVM_CTRLR:
		if (!atomic_load(&t->f.limits))
			return NVME_SC_INVALID_FIELD;
		page.nvm.wzsl = (uint8_t)atomic_load(&t->f.wzsl);
		page.nvm.vsl = (uint8_t)atomic_load(&t->f.vsl);
		page.nvm.dmrsl = atomic_load(&t->f.dmrsl);
		break;
	case NVME_CNS_ACTIVE_NS:
	case NVME_CNS_ALLOCATED_NS:
		for (uint32_t i = atomic_load(&t->f.same_ns) ? 0 : sqe->nsid, n = 0;
		     !atomic_load(&t->f.no_namespace) && n < 1024 && i < t->o.namespaces; i++)
			page.ids[n++] = i + 1;
		break;
	default:
		return NVME_SC_INVALID_FIELD;
	}
	return nvmet_put_out(t, sqe, &page, sizeof(page));
}

static uint16_t get_log(struct nvmet *t, const struct nvme_sqe *sqe)
{
	uint8_t page = sqe->cdw10 & 0xff;

	if (page == NVME_LOG_SANITIZE || page == NVME_LOG_CHANGED_NS || page == NVME_LOG_FIRMWARE)
		return nvmet_more_admin(t, sqe, NULL);
	if (page == NVME_LOG_ERROR || page == NVME_LOG_SMART)
		return nvmet_get_log(t, sqe);
	return NVME_SC_LOG_PAGE_INVALID;
}

/* ---- queues ---- */

static uint16_t check_queue(struct nvmet *t, const struct nvme_sqe *sqe, bool exists)
{
	uint32_t id = sqe->cdw10 & 0xffff, entries = (sqe->cdw10 >> 16) + 1;

	if (!t->queues_asked)
		nvmet_host_error(t, "a queue is made before the number of queues was set");
	if (!id || id > t->o.queues || exists)
		return NVME_SC_QID_INVALID;
	if (sqe->cdw11 & 0xfff8)
		nvmet_host_error(t, "reserved bits of a queue are set");
	if (entries < 2 || entries > t->o.mqes + 1)
		return NVME_SC_QUEUE_SIZE;
	if (!(sqe->cdw11 & NVME_QUEUE_PC))
		return NVME_SC_INVALID_FIELD;
	return sqe->prp1 % NVME_PAGE ? NVME_SC_PRP_OFFSET : 0;
}

static uint16_t create_cq(struct nvmet *t, const struct nvme_sqe *sqe)
{
	unsigned id = sqe->cdw10 & 0xffff, entries = (sqe->cdw10 >> 16) + 1;
	uint16_t status = check_queue(t, sqe, id <= t->o.queues && t->cqs[id].exists);
	struct nvmet_cq *q = &t->cqs[status ? 0 : id];
	void *at;

	if (status)
		return status;
	if (sqe->cdw11 & NVME_CQ_IEN && sqe->cdw11 >> 16 >= t->o.vectors)
		return NVME_SC_VECTOR_INVALID;
	at = nvmet_memory(t, sqe->prp1, entries * sizeof(struct nvme_cqe), true);
	if (!at)
		return NVME_SC_DATA_TRANSFER;
	*q = (struct nvmet_cq){ .exists = true,
				.irq = sqe->cdw11 & NVME_CQ_IEN,
				.vector = (uint16_t)(sqe->cdw11 >> 16),
				.entries = (uint16_t)entries,
				.phase = 1,
				.at = at };
	*nvmet_doorbell(t, id, true) = 0;
	return 0;
}

static uint16_t create_sq(struct nvmet *t, const struct nvme_sqe *sqe)
{
	unsigned id = sqe->cdw10 & 0xffff, cq = sqe->cdw11 >> 16, entries = (sqe->cdw10 >> 16) + 1;
	uint16_t status = check_queue(t, sqe, id <= t->o.queues && t->sqs[id].exists);
	void *at;

	if (status)
		return status;
	if (!cq || cq > t->o.queues || !t->cqs[cq].exists)
		return NVME_SC_CQ_INVALID;
	at = nvmet_memory(t, sqe->prp1, entries * sizeof(struct nvme_sqe), false);
	if (!at)
		return NVME_SC_DATA_TRANSFER;
	t->sqs[id] = (struct nvmet_sq){
		.exists = true, .entries = (uint16_t)entries, .cq = (uint16_t)cq, .at = at
	};
	t->cqs[cq].users++;
	*nvmet_doorbell(t, id, false) = t->shadow ? NVMET_UNRUNG : 0;
	return 0;
}

/* Its commands end first, as the specification has it. */
static uint16_t delete_sq(struct nvmet *t, unsigned id)
{
	if (!id || id > t->o.queues || !t->sqs[id].exists)
		return NVME_SC_QID_INVALID;
	for (unsigned i = 0; i < t->nstuck;) {
		if (t->stuck[i].sq != id) {
			i++;
			continue;
		}
		nvmet_complete(t, id, t->stuck[i].cid, NVME_SC_ABORT_SQ_DELETED, 0);
		t->stuck[i] = t->stuck[--t->nstuck];
	}
	t->sqs[id].exists = false;
	t->cqs[t->sqs[id].cq].users--;
	return 0;
}

static uint16_t delete_cq(struct nvmet *t, unsigned id)
{
	if (!id || id > t->o.queues || !t->cqs[id].exists)
		return NVME_SC_QID_INVALID;
	if (t->cqs[id].users) {
		nvmet_host_error(t, "a completion queue is deleted before its submission queue");
		return NVME_SC_QUEUE_DELETION;
	}
	t->cqs[id].exists = false;
	return 0;
}

/* ---- the rest ---- */

static uint16_t abort_command(struct nvmet *t, uint32_t cdw10, uint32_t *dw0)
{
	*dw0 = 1; /* not aborted */
	atomic_fetch_add(&t->n.aborts, 1);
	for (unsigned i = 0; i < t->nstuck; i++) {
		if (t->stuck[i].sq != (cdw10 & 0xffff) || t->stuck[i].cid != cdw10 >> 16)
			continue;
		nvmet_complete(t, t->stuck[i].sq, t->stuck[i].cid, NVME_SC_ABORT_REQUESTED, 0);
		t->stuck[i] = t->stuck[--t->nstuck];
		*dw0 = 0;
		break;
	}
	return 0;
}

static uint16_t features(struct nvmet *t, const struct nvme_sqe *sqe, bool set, uint32_t *dw0)
{
	uint32_t fewer = atomic_load(&t->f.queues);
	uint32_t queues = (fewer ? MIN(fewer, t->o.queues) : t->o.queues) - 1;

	switch (sqe->cdw10 & 0xff) {
	case NVME_FEAT_QUEUES:
		if (set && ((sqe->cdw11 & 0xffff) == 0xffff || sqe->cdw11 >> 16 == 0xffff))
			return NVME_SC_INVALID_FIELD;
		t->queues_asked = true;
		*dw0 = queues << 16 | queues;
		return 0;
	case NVME_FEAT_WRITE_CACHE:
		if (set)
			t->write_cache = sqe->cdw11 & 1;
		else
			*dw0 = t->write_cache;
		return 0;
	case NVME_FEAT_TEMPERATURE:
		if (set)
			t->temperature = sqe->cdw11;
		else
			*dw0 = t->temperature;
		return 0;
	case NVME_FEAT_EVENTS:
		return 0;
	case NVME_FEAT_HOST_BEHAVIOR:
		return nvmet_more_admin(t, sqe, dw0);
	default:
		return NVME_SC_INVALID_FIELD;
	}
}

/* In the words that are each command's own. */
static bool reserved_set(const struct nvme_sqe *sqe)
{
	bool last = sqe->cdw12 || sqe->cdw13 || sqe->cdw14 || sqe->cdw15;

	switch (sqe->opcode) {
	case NVME_ADMIN_DELETE_SQ:
	case NVME_ADMIN_DELETE_CQ:
		return sqe->cdw10 >> 16 || sqe->cdw11 || last;
	case NVME_ADMIN_CREATE_SQ:
	case NVME_ADMIN_CREATE_CQ:
		return last;
	case NVME_ADMIN_ABORT:
		return sqe->nsid || sqe->cdw11 || last;
	case NVME_ADMIN_ASYNC_EVENT:
		return sqe->cdw10 || sqe->cdw11 || last;
	case NVME_ADMIN_IDENTIFY:
		return sqe->cdw10 & 0xff00 || last;
	default:
		return false;
	}
}

uint16_t nvmet_admin_command(struct nvmet *t, const struct nvme_sqe *sqe, uint32_t *dw0)
{
	if (sqe->cdw2 || sqe->cdw3 || sqe->mptr || reserved_set(sqe))
		nvmet_host_error(t, "reserved fields of an admin command are set");
	switch (sqe->opcode) {
	case NVME_ADMIN_IDENTIFY:
		return identify(t, sqe);
	case NVME_ADMIN_GET_LOG:
		return get_log(t, sqe);
	case NVME_ADMIN_CREATE_CQ:
		return create_cq(t, sqe);
	case NVME_ADMIN_CREATE_SQ:
		return create_sq(t, sqe);
	case NVME_ADMIN_DELETE_SQ:
		return delete_sq(t, sqe->cdw10 & 0xffff);
	case NVME_ADMIN_DELETE_CQ:
		return delete_cq(t, sqe->cdw10 & 0xffff);
	case NVME_ADMIN_ABORT:
		return abort_command(t, sqe->cdw10, dw0);
	case NVME_ADMIN_SET_FEATURES:
		return features(t, sqe, true, dw0);
	case NVME_ADMIN_GET_FEATURES:
		return features(t, sqe, false, dw0);
	default:
		return nvmet_more_admin(t, sqe, dw0);
	}
}
