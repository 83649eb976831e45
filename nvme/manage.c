/* SPDX-License-Identifier: BSD-2-Clause */
/* What people administer: identify pages, logs, features, namespaces, formatting, firmware. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/internal.h"

#define FORMAT_MS 600000u
#define FIRMWARE_MS 60000u

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

/* ---- namespaces ---- */

int nvme_list_namespaces(struct nvme_ctrlr *c, uint32_t after, bool allocated, uint32_t *ids,
			 uint32_t max)
{
	uint32_t *page = base_malloc(NVME_PAGE), n = 0;
	int rc = page ? nvme_identify(c, allocated ? NVME_CNS_ALLOCATED_NS : NVME_CNS_ACTIVE_NS,
				      after, page)
		      : -ENOMEM;

	while (!rc && n < MIN(max, (uint32_t)NVME_IDS_OF_A_PAGE) && page[n]) {
		ids[n] = page[n];
		n++;
	}
	free(page);
	return rc ? rc : (int)n;
}

int nvme_changed_namespaces(struct nvme_ctrlr *c, uint32_t ids[NVME_IDS_OF_A_PAGE])
{
	uint32_t n = 0;
	int rc = nvme_get_log(c, NVME_LOG_CHANGED_NS, NVME_NSID_ALL, ids, NVME_PAGE);

	if (rc)
		return rc;
	if (ids[0] == NVME_NSID_ALL)
		return -EOVERFLOW;
	while (n < NVME_IDS_OF_A_PAGE && ids[n])
		n++;
	return (int)n;
}

/* ---- features ---- */

int nvme_get_write_cache(struct nvme_ctrlr *c, bool *on)
{
	uint32_t value;
	int rc = c->info.volatile_cache ? nvme_get_feature(c, NVME_FEAT_WRITE_CACHE, &value)
					: -EOPNOTSUPP;

	if (!rc)
		*on = value & 1;
	return rc;
}

int nvme_set_write_cache(struct nvme_ctrlr *c, bool on)
{
	return c->info.volatile_cache ? nvme_set_feature(c, NVME_FEAT_WRITE_CACHE, on, NULL)
				      : -EOPNOTSUPP;
}

/* Dword 11: the threshold, the sensor, over or under. */
static uint32_t threshold(unsigned sensor, bool under, unsigned kelvin)
{
	return (kelvin & 0xffff) | (sensor & 0xf) << 16 | (under ? 1u << 20 : 0);
}

int nvme_get_temperature_threshold(struct nvme_ctrlr *c, unsigned sensor, bool under,
				   unsigned *kelvin)
{
	struct nvme_sqe sqe = { .opcode = NVME_ADMIN_GET_FEATURES,
				.cdw10 = NVME_FEAT_TEMPERATURE,
				.cdw11 = threshold(sensor, under, 0) };
	uint32_t value;
	int rc = sensor > 8 ? -EINVAL : nvme_admin(c, &sqe, NULL, 0, &value);

	if (!rc)
		*kelvin = value & 0xffff;
	return rc;
}

int nvme_set_temperature_threshold(struct nvme_ctrlr *c, unsigned sensor, bool under,
				   unsigned kelvin)
{
	if (sensor > 8 || kelvin > 0xffff)
		return -EINVAL;
	return nvme_set_feature(c, NVME_FEAT_TEMPERATURE, threshold(sensor, under, kelvin), NULL);
}

/* ---- formatting, firmware, sanitizing ---- */

int nvme_format(struct nvme_ctrlr *c, const struct nvme_format_opts *opts)
{
	struct nvme_format_opts o = { 0 };
	struct nvme_sqe sqe = { .opcode = NVME_ADMIN_FORMAT };
	struct nvme_admin_cmd cmd = { .sqe = &sqe, .timeout_ms = FORMAT_MS };
	int rc;

	memcpy(&o, opts, MIN((size_t)opts->size, sizeof(o)));
	if (!c->info.format)
		return -EOPNOTSUPP;
	if (!o.nsid || o.format > 15 || o.erase > 2 || o.protection > 3)
		return -EINVAL;
	sqe.nsid = o.nsid;
	sqe.cdw10 = o.format | (o.extended ? 1u << 4 : 0) | (uint32_t)o.protection << 5 |
		    (o.protection_first ? 1u << 8 : 0) | (uint32_t)o.erase << 9;
	rc = nvme_admin_cmd(c, &cmd);
	return rc ? rc : ns_refresh(c, o.nsid);
}

int nvme_firmware_download(struct nvme_ctrlr *c, const void *image, uint32_t len)
{
	uint32_t most = MIN(c->info.max_transfer, (uint32_t)(128 * KiB));

	if (!c->info.download)
		return -EOPNOTSUPP;
	if (!len || len % 4)
		return -EINVAL;
	for (uint32_t at = 0; at < len;) {
		uint32_t part = MIN(len - at, most);
		struct nvme_sqe sqe = { .opcode = NVME_ADMIN_FIRMWARE_DOWNLOAD,
					.cdw10 = part / 4 - 1,
					.cdw11 = at / 4 };
		struct nvme_admin_cmd cmd = { .sqe = &sqe,
					      .data = (char *)(uintptr_t)image + at,
					      .len = part,
					      .timeout_ms = FIRMWARE_MS,
					      .flags = NVME_ADMIN_TO_CTRLR };
		int rc = nvme_admin_cmd(c, &cmd);

		if (rc)
			return rc;
		at += part;
	}
	return 0;
}

static bool wants_reset(uint16_t status)
{
	return status == NVME_SC_FIRMWARE_CONVENTIONAL_RESET ||
	       status == NVME_SC_FIRMWARE_SUBSYSTEM_RESET ||
	       status == NVME_SC_FIRMWARE_CONTROLLER_RESET;
}

int nvme_firmware_commit(struct nvme_ctrlr *c, unsigned slot, unsigned action, bool *needs_reset)
{
	struct nvme_sqe sqe = { .opcode = NVME_ADMIN_FIRMWARE_COMMIT, .cdw10 = slot | action << 3 };
	struct nvme_admin_cmd cmd = { .sqe = &sqe, .timeout_ms = FIRMWARE_MS };
	int rc;

	if (!c->info.download)
		return -EOPNOTSUPP;
	if (slot > 7 || action > 3)
		return -EINVAL;
	rc = nvme_admin_cmd(c, &cmd);
	if (needs_reset)
		*needs_reset = wants_reset(cmd.status);
	return wants_reset(cmd.status) ? 0 : rc;
}

int nvme_sanitize_status(struct nvme_ctrlr *c, struct nvme_sanitize_status *out)
{
	struct {
		uint16_t progress, status;
		uint8_t rest[508];
	} log;
	int rc = nvme_get_log(c, NVME_LOG_SANITIZE, NVME_NSID_ALL, &log, sizeof(log));

	if (!rc)
		*out = (struct nvme_sanitize_status){ .progress = log.progress,
						      .state = log.status & 7,
						      .erased = log.status & 0x100 };
	return rc;
}
