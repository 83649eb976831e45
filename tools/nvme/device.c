/* SPDX-License-Identifier: BSD-2-Clause */
/* A controller by the name that is used everywhere. */
#include <string.h>

#include "tools/common/common.h"
#include "tools/nvme/verb.h"

#define PREFIX "nvme:"

bool device_split(const char *name, struct nvme_name *out)
{
	return !strncmp(name, PREFIX, strlen(PREFIX)) &&
	       !nvme_split_name(name + strlen(PREFIX), out, NULL);
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
	int rc;

	if (!device_split(name, &parts)) {
		tool_error(
			"%s: not an NVMe device: nvme:vfio-user:SOCKET[/NSID] or nvme:ADDRESS[/NSID]",
			name);
		return EXIT_FAILED;
	}
	*nsid = parts.nsid;
	opts.timeout_ms = parts.timeout_ms;
	rc = nvme_attach(parts.address, &opts, c, &err);
	if (!rc)
		return 0;
	tool_error("%s", base_err_text(&err, rc));
	return EXIT_FAILED;
}
