/* SPDX-License-Identifier: BSD-2-Clause */
#include "tools/common/common.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

const char *tool_name = "blobfs";

void tool_error(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "%s: ", tool_name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

void tool_error_of(const char *device, const char *text)
{
	if (strncmp(text, device, strlen(device)) == 0)
		tool_error("%s", text);
	else
		tool_error("%s: %s", device, text);
}

int tool_size(const char *what, const char *text, uint64_t *bytes)
{
	int rc = base_parse_size(text, bytes);

	if (rc == -ERANGE)
		tool_error("%s '%s' is too large", what, text);
	else if (rc)
		tool_error("%s '%s' is not a size: give bytes or a number with K, M, G or T, as in 64K or 1.5G",
			   what, text);
	return rc;
}

int tool_flush_stdout(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	tool_error("cannot write to standard output: %s", strerror(errno));
	return -EIO;
}

bool tool_is_path(const char *device)
{
	return strncmp(device, "ram:", 4) != 0 && strncmp(device, "nvme:", 5) != 0;
}
