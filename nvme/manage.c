/* SPDX-License-Identifier: BSD-2-Clause */
/* What people administer: identify pages, logs, features. */
#include <errno.h>
#include <string.h>

#include "nvme/internal.h"

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
