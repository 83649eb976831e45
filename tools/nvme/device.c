/* SPDX-License-Identifier: BSD-2-Clause */
/* A controller by the name that is used everywhere. */
#include <errno.h>
#include <string.h>

#include "tools/common/common.h"
#include "tools/nvme/verb.h"

#define PREFIX "nvme:"

int device_split(const char *name, struct nvme_name *out, struct base_err *err)
{
	struct base_err why = { "nvme:vfio-user:SOCKET[/NSID] or nvme:ADDRESS[/NSID]" };
	int rc = -EINVAL;

	if (!strncmp(name, PREFIX, strlen(PREFIX)))
		rc = nvme_split_name(name + strlen(PREFIX), out, &why);
	return rc ? base_err_set(err, rc, "%s: not an NVMe device: %s", name, why.text) : 0;
}

int device_failed(const char *name, const char *what, int rc)
{
	tool_error("%s: %s: %s", name, what, strerror(-rc));
	return EXIT_FAILED;
}

int device_attach(const char *name, struct nvme_ctrlr **c, uint32_t *nsid)
{
	struct nvme_opts opts = { .size = sizeof(opts), .max_qpairs = 1 };
	struct base_err err = { "" };
	struct nvme_name parts;
	int rc = device_split(name, &parts, &err);

	if (!rc) {
		*nsid = parts.nsid;
		opts.timeout_ms = parts.timeout_ms;
		rc = nvme_attach(parts.address, &opts, c, &err);
	}
	if (!rc)
		return 0;
	tool_error("%s", base_err_text(&err, rc));
	return EXIT_FAILED;
}
