/* SPDX-License-Identifier: BSD-2-Clause */
/* Directives: Identify only to turn Streams on and off, Streams to ask how many there are; and what writes say. */
#include "test/common/nvmet.h"

uint16_t nvmet_directive(struct nvmet *t, const struct nvme_sqe *sqe)
{
	unsigned op = sqe->cdw11 & 0xff, type = sqe->cdw11 >> 8 & 0xff;
	struct nvme_stream_params p = { .msl = t->o.streams, .nssa = t->o.streams, .sws = 8, .sgs = 16 };
	uint64_t len = ((uint64_t)sqe->cdw10 + 1) * 4;

	if (!t->o.streams)
		return NVME_SC_INVALID_OPCODE;
	if (sqe->nsid != NVME_NSID_ALL && (!sqe->nsid || sqe->nsid > t->o.namespaces))
		return NVME_SC_INVALID_NS;
	if (sqe->opcode == NVME_ADMIN_DIRECTIVE_SEND) {
		if (type != NVME_DIRECTIVE_IDENTIFY || op != NVME_DIRECTIVE_ENABLE || (sqe->cdw12 >> 8 & 0xff) != NVME_DIRECTIVE_STREAMS ||
		    atomic_load(&t->f.no_streams))
			return NVME_SC_INVALID_FIELD;
		t->streams_on = sqe->cdw12 & 1;
		return 0;
	}
	if (type != NVME_DIRECTIVE_STREAMS || op != NVME_STREAMS_PARAMS || !t->streams_on)
		return NVME_SC_INVALID_FIELD;
	return nvmet_put_out(t, sqe, &p, len < sizeof(p) ? len : sizeof(p));
}

uint16_t nvmet_check_stream(struct nvmet *t, const struct nvme_sqe *sqe, uint64_t blocks)
{
	unsigned type = sqe->cdw12 >> 20 & 0xf, stream = sqe->cdw13 >> 16;

	if (!type) {
		if (stream)
			nvmet_host_error(t, "a stream without the directive");
		return 0;
	}
	if (type != NVME_DIRECTIVE_STREAMS || sqe->opcode != NVME_NVM_WRITE) {
		nvmet_host_error(t, "a directive that is not for this");
		return NVME_SC_INVALID_FIELD;
	}
	if (!t->streams_on || stream > t->o.streams) {
		nvmet_host_error(t, "a stream that is not there");
		return NVME_SC_INVALID_FIELD;
	}
	atomic_fetch_add(&t->n.stream_blocks[stream < NVMET_STREAMS ? stream : 0], (unsigned)blocks);
	return 0;
}
