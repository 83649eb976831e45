/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Write streams [8.7]: a controller that has the Streams directive is told with each write which stream it belongs to, so that it puts
 * data of one lifetime together. The directive is turned on for all namespaces whenever the controller starts (start.c), and is off
 * again after each reset until then. A controller that refuses any of this is used without.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/internal.h"

int streams_find(struct nvme_ctrlr *c)
{
	struct nvme_sqe sqe = { .opcode = NVME_ADMIN_DIRECTIVE_RECEIVE,
				.nsid = NVME_NSID_ALL,
				.cdw10 = sizeof(struct nvme_stream_params) / 4 - 1,
				.cdw11 = NVME_DIRECTIVE_STREAMS << 8 | NVME_STREAMS_PARAMS };
	struct nvme_stream_params p = { 0 };
	int rc = atomic_load(&c->streams_on) ? nvme_admin(c, &sqe, &p, sizeof(p), NULL) : -EOPNOTSUPP;

	/* More than we could name are as good as that. */
	c->info.streams = rc ? 0 : MIN(p.msl, (uint16_t)NVME_MAX_STREAMS);
	return rc == -ENODEV || rc == -ETIMEDOUT || rc == -ENOMEM ? rc : 0;
}
