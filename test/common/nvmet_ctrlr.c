/* SPDX-License-Identifier: BSD-2-Clause */
/* Registers, doorbells, queues. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "test/common/nvmet.h"

uint64_t nvmet_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

bool nvmet_once(atomic_uint *n)
{
	unsigned v = atomic_load(n);

	while (v)
		if (atomic_compare_exchange_weak(n, &v, v - 1))
			return true;
	return false;
}

void nvmet_host_error(struct nvmet *t, const char *what)
{
	if (atomic_fetch_add(&t->n.host_errors, 1) < 16)
		fprintf(stderr, "nvmet: the driver is wrong: %s\n", what);
}

uint32_t *nvmet_doorbell(struct nvmet *t, unsigned queue, bool cq)
{
	return (uint32_t *)(void *)(t->bar + NVME_REG_DOORBELLS +
				    (2 * queue + cq) * (4u << t->o.style.dstrd));
}

/* ---- completions ---- */

static bool cq_full(struct nvmet *t, unsigned id)
{
	struct nvmet_cq *q = &t->cqs[id];
	uint32_t head = nvmet_cq_head(t, id);

	return (q->tail + 1u) % q->entries == head;
}

static void post(struct nvmet *t, unsigned sq, uint16_t cid, uint16_t status, uint32_t dw0)
{
	struct nvmet_cq *q = &t->cqs[t->sqs[sq].cq];
	struct nvme_cqe *e = &q->at[q->tail];

	if (cq_full(t, t->sqs[sq].cq)) {
		nvmet_host_error(t, "no room for a completion");
		return;
	}
	e->dw0 = dw0;
	e->dw1 = 0;
	e->sq_head = t->sqs[sq].head;
	e->sq_id = (uint16_t)sq;
	e->cid = cid;
	__atomic_store_n(&e->status, (uint16_t)(status << 1 | q->phase), __ATOMIC_RELEASE);
	if (++q->tail == q->entries) {
		q->tail = 0;
		q->phase ^= 1;
	}
	if (q->irq)
		nvmet_signal(t, q->vector);
}

void nvmet_complete(struct nvmet *t, unsigned sq, uint16_t cid, uint16_t status, uint32_t dw0)
{
	if (sq && nvmet_once(&t->f.lose))
		return;
	if (sq && nvmet_once(&t->f.wrong_cid))
		post(t, sq, cid ^ 0x155, 0, 0);
	post(t, sq, cid, status, dw0);
	if (sq && nvmet_once(&t->f.duplicate))
		post(t, sq, cid, status, dw0);
}

/* Completions that were held back; those of queues that are gone went with them. */
static unsigned post_late(struct nvmet *t)
{
	uint64_t now = t->nlate ? nvmet_now_ns() : 0;
	unsigned n = 0;

	for (unsigned i = 0; i < t->nlate;) {
		struct nvmet_late l = t->late[i];

		if (now < l.due_ns) {
			i++;
			continue;
		}
		t->late[i] = t->late[--t->nlate];
		if (!t->sqs[l.sq].exists)
			continue;
		nvmet_complete(t, l.sq, l.cid, l.status, 0);
		n++;
	}
	return n;
}

/* ---- submissions ---- */

/* Of what the controller still has, no command id may be used again. */
static void check_cid(struct nvmet *t, unsigned id, uint16_t cid)
{
	bool twice = cid == 0xffff;

	for (unsigned i = 0; i < t->nstuck; i++)
		twice |= t->stuck[i].sq == id && t->stuck[i].cid == cid;
	for (unsigned i = 0; i < t->nlate; i++)
		twice |= t->late[i].sq == id && t->late[i].cid == cid;
	if (twice)
		nvmet_host_error(t, "a command id is reserved, or used twice at once");
}

/* Errors of the medium are of reads, or of writes; any other command waits for its own. */
static bool can_fail(struct nvmet *t, const struct nvme_sqe *sqe)
{
	switch (atomic_load(&t->f.fail_status) & 0x7ff) {
	case NVME_SC_READ_ERROR:
		return sqe->opcode == NVME_NVM_READ;
	case NVME_SC_WRITE_FAULT:
		return sqe->opcode == NVME_NVM_WRITE;
	default:
		return true;
	}
}

static void run(struct nvmet *t, unsigned id, const struct nvme_sqe *sqe)
{
	uint32_t dw0 = 0;
	uint16_t status;

	if (!id) {
		if (atomic_load(&t->f.no_queues) && (sqe->opcode == NVME_ADMIN_CREATE_CQ ||
						     sqe->opcode == NVME_ADMIN_CREATE_SQ))
			return;
		status = nvmet_admin_command(t, sqe, &dw0);
		if (status == NVMET_LATER)
			return;
		nvmet_complete(t, 0, sqe->cid, status, dw0);
		return;
	}
	atomic_fetch_add(&t->n.commands, 1);
	check_cid(t, id, sqe->cid);
	if (t->nrules)
		nvmet_script_command(t, sqe);
	if (t->nstuck < NVMET_MAX_STUCK && nvmet_once(&t->f.stick)) {
		t->stuck[t->nstuck].sq = (uint16_t)id;
		t->stuck[t->nstuck++].cid = sqe->cid;
		return;
	}
	if (can_fail(t, sqe) && nvmet_once(&t->f.fail))
		status = (uint16_t)(atomic_load(&t->f.fail_status) &
				    (t->heeds_delays ? 0xffff : ~0x1800u));
	else
		status = nvmet_io_command(t, sqe);
	if (t->nrules)
		nvmet_script_executed(t);
	if (t->cut) {
		/* It is never heard of again. */
		t->cut = false;
		nvmet_power_cut(t, t->cut_seed);
		return;
	}
	nvmet_log_command(t, id, sqe, status);
	if (t->nlate < NVMET_MAX_LATE && nvmet_once(&t->f.late))
		t->late[t->nlate++] = (struct nvmet_late){
			nvmet_now_ns() + atomic_load(&t->f.late_ms) * 1000000ull, (uint16_t)id,
			sqe->cid, status
		};
	else
		nvmet_complete(t, id, sqe->cid, status, 0);
}

/* A completion may be doubled, or have a wrong one before it. */
static bool room_for(struct nvmet *t, unsigned cq)
{
	struct nvmet_cq *q = &t->cqs[cq];
	uint32_t head = nvmet_cq_head(t, cq);
	uint32_t used = (q->tail + q->entries - head) % q->entries;

	if (head >= q->entries) {
		nvmet_host_error(t, "a completion doorbell is out of range");
		return false;
	}
	if ((head + q->entries - q->freed) % q->entries >
	    (uint32_t)(q->tail + q->entries - q->freed) % q->entries)
		nvmet_host_error(t, "completions are freed that never came");
	q->freed = (uint16_t)head;
	return used + MIN(3u, q->entries - 1u) < q->entries;
}

static unsigned work_queue(struct nvmet *t, unsigned id)
{
	struct nvmet_sq *q = &t->sqs[id];
	uint32_t tail;
	unsigned n = 0;

	if (!nvmet_awake(t, id, &tail))
		return 0;
	if (tail >= q->entries) {
		nvmet_host_error(t, "a submission doorbell is out of range");
		return 0;
	}
	/* Looked at after the doorbell: what was submitted once `hold` was set is held. */
	if (id && atomic_load(&t->f.hold))
		return 0;
	while (q->exists && q->head != tail && room_for(t, q->cq)) {
		struct nvme_sqe sqe = q->at[q->head];

		if (++q->head == q->entries)
			q->head = 0;
		run(t, id, &sqe);
		n++;
	}
	if (q->head == tail && !nvmet_sleep(t, id))
		n++;
	return n;
}

unsigned nvmet_work(struct nvmet *t)
{
	unsigned n;

	if (!(t->csts & NVME_CSTS_RDY))
		return 0;
	if (atomic_load(&t->f.cfs))
		t->csts |= NVME_CSTS_CFS;
	if (t->csts & NVME_CSTS_CFS)
		return 0;
	n = post_late(t);
	nvmet_tell(t);
	for (unsigned i = 0; i <= t->o.queues; i++)
		if (t->sqs[i].exists)
			n += work_queue(t, i);
	return n;
}

/* ---- registers ---- */

static uint64_t capabilities(const struct nvmet *t)
{
	uint64_t mqes = atomic_load(&t->f.no_entries) ? 0 : t->o.mqes;
	uint64_t mpsmin = atomic_load(&t->f.large_pages) ? 2 : 0;

	return mqes | 1ull << 16 | 2ull << 24 | (uint64_t)t->o.style.dstrd << 32 | 1ull << 37 | mpsmin << 48 | mpsmin << 52;
}

static void enable(struct nvmet *t);

uint64_t nvmet_register(struct nvmet *t, uint32_t reg, unsigned size)
{
	if (atomic_load(&t->f.all_ones))
		return size == 8 ? UINT64_MAX : UINT32_MAX;
	switch (reg) {
	case NVME_REG_CAP:
		return capabilities(t);
	case NVME_REG_CAP + 4:
		return capabilities(t) >> 32;
	case NVME_REG_VS:
		return atomic_load(&t->f.limits) ? 0x20000 : 0x10400;
	case NVME_REG_CC:
		return t->cc;
	case NVME_REG_CSTS:
		if (t->ready_ns && nvmet_now_ns() >= t->ready_ns)
			enable(t);
		return t->csts | (atomic_load(&t->f.cfs) ? NVME_CSTS_CFS : 0);
	case NVME_REG_AQA:
		return t->aqa;
	case NVME_REG_ASQ:
		return t->asq;
	case NVME_REG_ACQ:
		return t->acq;
	case NVME_REG_ASQ + 4:
		return t->asq >> 32;
	case NVME_REG_ACQ + 4:
		return t->acq >> 32;
	default:
		return 0;
	}
}

void nvmet_reset(struct nvmet *t)
{
	memset(t->sqs, 0, sizeof(t->sqs));
	memset(t->cqs, 0, sizeof(t->cqs));
	memset(t->bar, 0, NVMET_BAR_SIZE);
	t->nstuck = t->nlate = t->nwaiting = 0;
	t->shadow = t->seen = NULL;
	t->ready_ns = 0;
	t->csts = 0;
	t->health_told = false;
	t->queues_asked = t->heeds_delays = t->streams_on = false;
}

static void enable(struct nvmet *t)
{
	uint32_t sq = (t->aqa & 0xfff) + 1, cq = (t->aqa >> 16 & 0xfff) + 1;
	void *sq_at = nvmet_memory(t, t->asq, sq * sizeof(struct nvme_sqe), false);
	void *cq_at = nvmet_memory(t, t->acq, cq * sizeof(struct nvme_cqe), true);

	t->ready_ns = 0;
	atomic_fetch_add(&t->n.enables, 1);
	if (sq < 2 || cq < 2 || t->asq % NVME_PAGE || t->acq % NVME_PAGE || !sq_at || !cq_at ||
	    (t->cc >> 4 & 0x3ff)) {
		nvmet_host_error(t, "enabled with bad admin queues, page size or command set");
		t->csts |= NVME_CSTS_CFS;
		return;
	}
	if ((t->cc >> 16 & 0xf) != 6 || (t->cc >> 20 & 0xf) != 4)
		nvmet_host_error(t, "queue entry sizes are not set");
	t->sqs[0] = (struct nvmet_sq){ .exists = true, .entries = (uint16_t)sq, .at = sq_at };
	t->cqs[0] = (struct nvmet_cq){
		.exists = true, .irq = true, .entries = (uint16_t)cq, .phase = 1, .at = cq_at
	};
	t->csts |= NVME_CSTS_RDY;
}

static void set_cc(struct nvmet *t, uint32_t value)
{
	uint32_t old = t->cc;

	t->cc = value;
	if (old & NVME_CC_EN && !(value & NVME_CC_EN)) {
		nvmet_reset(t);
		atomic_store(&t->f.cfs, false);
	} else if (!(old & NVME_CC_EN) && value & NVME_CC_EN && !atomic_load(&t->f.never_ready)) {
		t->ready_ns = nvmet_now_ns() + atomic_load(&t->f.ready_ms) * 1000000ull;
		if (!atomic_load(&t->f.ready_ms))
			enable(t);
	}
	if (value & NVME_CC_SHN_MASK && !(old & NVME_CC_SHN_MASK)) {
		atomic_fetch_add(&t->n.shutdowns, 1);
		t->csts |= NVME_SHST_COMPLETE << 2;
	}
}

/* All of it, or the half at this offset. */
static bool set_half(uint64_t *reg, uint32_t offset, unsigned size, uint64_t value)
{
	if (size + offset > sizeof(*reg))
		return false;
	memcpy((char *)reg + offset, &value, size);
	return true;
}

bool nvmet_set_register(struct nvmet *t, uint32_t reg, unsigned size, uint64_t value)
{
	if (reg >= NVME_REG_DOORBELLS && reg < NVMET_BAR_SIZE && size == 4 && reg % 4 == 0) {
		memcpy(t->bar + reg, &value, 4);
		return true;
	}
	if (reg == NVME_REG_CC && size == 4) {
		set_cc(t, (uint32_t)value);
		return true;
	}
	if (t->cc & NVME_CC_EN)
		nvmet_host_error(t, "a register is written that is fixed while enabled");
	if (reg == NVME_REG_AQA && size == 4)
		t->aqa = (uint32_t)value;
	else if (reg == NVME_REG_ASQ || reg == NVME_REG_ASQ + 4)
		return set_half(&t->asq, reg - NVME_REG_ASQ, size, value);
	else if (reg == NVME_REG_ACQ || reg == NVME_REG_ACQ + 4)
		return set_half(&t->acq, reg - NVME_REG_ACQ, size, value);
	else
		return false;
	return true;
}

/* ---- making ---- */

static int open_store(struct nvmet *t)
{
	if (t->o.null)
		return -1;
	if (t->o.file)
		return open(t->o.file, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	return memfd_create("medium", MFD_CLOEXEC);
}

int nvmet_create(const struct nvmet_opts *o, struct nvmet **out)
{
	struct nvmet *t = calloc(1, sizeof(*t));

	if (!t)
		return -1;
	t->o = *o;
	t->o.block = o->block ? o->block : 512;
	t->o.mqes = o->mqes ? o->mqes : 1023;
	t->o.queues = o->queues ? o->queues : NVMET_MAX_QUEUES;
	t->o.vectors = o->vectors ? o->vectors : NVMET_VECTORS;
	t->o.mdts = o->mdts ? o->mdts : 5;
	t->o.namespaces = o->namespaces ? o->namespaces : 1;
	t->o.copy_blocks = o->copy_blocks ? o->copy_blocks : 64;
	t->block = t->o.block;
	strcpy(t->firmware, "1.0");
	t->write_cache = 1;
	t->client = t->script = -1;
	memset(t->irq, 0xff, sizeof(t->irq));
	t->store = open_store(t);
	t->bar_fd = memfd_create("bar", MFD_CLOEXEC);
	t->scratch = malloc((size_t)NVME_PAGE << t->o.mdts);
	t->bar = MAP_FAILED;
	if (t->bar_fd >= 0 && !ftruncate(t->bar_fd, (off_t)o->style.bar_offset + NVMET_BAR_SIZE))
		t->bar = mmap(NULL, NVMET_BAR_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, t->bar_fd,
			      (off_t)o->style.bar_offset);
	if ((o->losing && nvmet_cache_create(t)) || (t->store < 0 && !o->null) ||
	    t->bar == MAP_FAILED || !t->scratch ||
	    (t->store >= 0 && ftruncate(t->store, (off_t)(o->size * t->o.namespaces)))) {
		nvmet_destroy(t);
		return -1;
	}
	*out = t;
	return 0;
}

void nvmet_destroy(struct nvmet *t)
{
	if (t->bar != MAP_FAILED)
		munmap(t->bar, NVMET_BAR_SIZE);
	if (t->bar_fd >= 0)
		close(t->bar_fd);
	if (t->store >= 0)
		close(t->store);
	if (t->script >= 0)
		close(t->script);
	nvmet_cache_destroy(t);
	free(t->scratch);
	free(t);
}
