/* SPDX-License-Identifier: BSD-2-Clause */
/* A controller by the name that is used everywhere. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/common/common.h"
#include "tools/nvme/verb.h"

#define PREFIX "nvme:"
#define SOCKET_PREFIX "vfio-user:"

/* A number after the last slash is a namespace, unless it is the name of a socket. */
bool device_split(const char *name, char *address, size_t len, uint32_t *nsid)
{
	struct stat st;
	char *slash, *end;
	unsigned long n;

	*nsid = 0;
	if (strncmp(name, PREFIX, strlen(PREFIX)) ||
	    snprintf(address, len, "%s", name + strlen(PREFIX)) >= (int)len)
		return false;
	if (!strncmp(address, SOCKET_PREFIX, strlen(SOCKET_PREFIX)) &&
	    !stat(address + strlen(SOCKET_PREFIX), &st))
		return true;
	slash = strrchr(address, '/');
	if (!slash || !isdigit((unsigned char)slash[1]))
		return true;
	n = strtoul(slash + 1, &end, 10);
	if (*end)
		return true;
	*slash = '\0';
	*nsid = (uint32_t)n;
	return n && n < UINT32_MAX;
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
	char address[256];
	int rc;

	if (!device_split(name, address, sizeof(address), nsid)) {
		tool_error(
			"%s: not an NVMe device: nvme:vfio-user:SOCKET[/NSID] or nvme:ADDRESS[/NSID]",
			name);
		return EXIT_FAILED;
	}
	rc = nvme_attach(address, &opts, c, &err);
	if (!rc)
		return 0;
	tool_error("%s", base_err_text(&err, rc));
	return EXIT_FAILED;
}
