/* SPDX-License-Identifier: BSD-2-Clause */
/* The log pages of errors and of health: of what really happened. */
#include <string.h>

#include "base/util.h"
#include "test/common/nvmet.h"

#define UNIT_OF_DATA (1000 * 512ull)

void nvmet_log_command(struct nvmet *t, unsigned sq, const struct nvme_sqe *sqe, uint16_t status)
{
	struct nvme_error_entry *e;
	uint64_t bytes = ((sqe->cdw12 & 0xffff) + 1ull) * t->block;

	if (!status && sqe->opcode == NVME_NVM_READ) {
		t->reads++;
		t->read_bytes += bytes;
	} else if (!status && sqe->opcode == NVME_NVM_WRITE) {
		t->writes++;
		t->written_bytes += bytes;
	}
	if (!status)
		return;
	t->media_errors += (status >> 8 & 7) == 2;
	memmove(t->errors + 1, t->errors, sizeof(t->errors) - sizeof(t->errors[0]));
	e = &t->errors[0];
	memset(e, 0, sizeof(*e));
	e->count = ++t->nerrors;
	e->sqid = (uint16_t)sq;
	e->cid = sqe->cid;
	e->status = (uint16_t)(status << 1);
	e->location = 0xffff;
	e->lba = sqe->cdw10 | (uint64_t)sqe->cdw11 << 32;
	e->nsid = sqe->nsid;
}

static void put(uint8_t to[16], uint64_t v)
{
	memcpy(to, &v, sizeof(v));
}

static void fill_smart(const struct nvmet *t, struct nvme_smart *s)
{
	memset(s, 0, sizeof(*s));
	s->temperature[0] = 300 & 0xff; /* Kelvin */
	s->temperature[1] = 300 >> 8;
	s->available_spare = 100;
	s->spare_threshold = 10;
	put(s->units_read, div_round_up(t->read_bytes, UNIT_OF_DATA));
	put(s->units_written, div_round_up(t->written_bytes, UNIT_OF_DATA));
	put(s->reads, t->reads);
	put(s->writes, t->writes);
	put(s->media_errors, t->media_errors);
	put(s->error_entries, t->nerrors);
}

uint16_t nvmet_get_log(struct nvmet *t, const struct nvme_sqe *sqe)
{
	uint64_t len = ((uint64_t)(sqe->cdw10 >> 16 | (sqe->cdw11 & 0xffff) << 16) + 1) * 4;
	struct nvme_smart smart;

	if ((sqe->cdw10 & 0xff) == NVME_LOG_ERROR)
		return len > sizeof(t->errors) ? NVME_SC_INVALID_FIELD
					       : nvmet_put_out(t, sqe, t->errors, len);
	if (len > sizeof(smart))
		return NVME_SC_INVALID_FIELD;
	fill_smart(t, &smart);
	smart.critical_warning = atomic_load(&t->f.ailing) ? 4 : 0;
	t->health_told = false;
	return nvmet_put_out(t, sqe, &smart, len);
}
