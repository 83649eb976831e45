/* SPDX-License-Identifier: BSD-2-Clause */
/* What people write for a controller and its namespace: ADDRESS[/NSID][,timeout=SECONDS]. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "nvme/internal.h"

#define OPTION ",timeout="
#define LEAST_SECONDS 0.1
#define MOST_SECONDS 3600.0

static bool is_there(const char *address)
{
	const char *prefix = nvme_vfio_user.prefix;
	struct stat st;

	return !strncmp(address, prefix, strlen(prefix)) && !stat(address + strlen(prefix), &st);
}

/* What a socket is named is not cut off its name. */
static int cut_timeout(char *text, uint32_t *ms, struct base_err *err)
{
	char *at = is_there(text) ? NULL : strrchr(text, ','), *end;
	double seconds;

	*ms = 0;
	if (!at || strncmp(at, OPTION, strlen(OPTION)))
		return 0;
	seconds = strtod(at + strlen(OPTION), &end);
	if (end == at + strlen(OPTION) || *end ||
	    !(seconds >= LEAST_SECONDS && seconds <= MOST_SECONDS))
		return base_err_set(err, -EINVAL, "%s: the timeout is %g to %g seconds", text,
				    LEAST_SECONDS, MOST_SECONDS);
	*at = '\0';
	*ms = (uint32_t)(seconds * 1000);
	return 0;
}

/* A number after the last slash is a namespace, unless it is the name of a socket. */
static int cut_namespace(char *text, uint32_t *nsid, struct base_err *err)
{
	char *slash = strrchr(text, '/'), *end;
	unsigned long n;

	*nsid = 0;
	if (!slash || !isdigit((unsigned char)slash[1]) || is_there(text))
		return 0;
	n = strtoul(slash + 1, &end, 10);
	if (*end)
		return 0;
	if (!n || n >= UINT32_MAX)
		return base_err_set(err, -EINVAL, "%s: there is no such namespace", text);
	*slash = '\0';
	*nsid = (uint32_t)n;
	return 0;
}

int nvme_split_name(const char *text, struct nvme_name *out, struct base_err *err)
{
	char address[sizeof(out->address)];
	int rc;

	if (snprintf(address, sizeof(address), "%s", text) >= (int)sizeof(address))
		return base_err_set(err, -ENAMETOOLONG, "%.40s…: the name is too long", text);
	rc = cut_timeout(address, &out->timeout_ms, err);
	if (!rc)
		rc = cut_namespace(address, &out->nsid, err);
	if (rc)
		return rc;
	rc = nvme_normal_address(address, out->address, sizeof(out->address));
	return rc ? base_err_set(
			    err, rc,
			    "%s: not a controller: 0000:01:00.0[/NSID] or vfio-user:SOCKET[/NSID]",
			    text)
		  : 0;
}
