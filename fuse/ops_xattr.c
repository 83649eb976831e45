/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Extended attributes. The kernel has checked who may touch which name space. POSIX ACLs (system.*) are not offered: an
 * ACL that is stored but not obeyed would be a lie.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "fuse/internal.h"

static bool refused(const char *name)
{
	return !strncmp(name, "system.", 7);
}

/* Answers what both get and list have: a length when size is 0, else the bytes. */
static void reply_value(fuse_req_t req, int64_t n, const char *buf, size_t size)
{
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else if (!size)
		fuse_reply_xattr(req, (size_t)n);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

void do_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	char *buf;

	if (refused(name)) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	buf = base_malloc(size ? size : 1);
	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	reply_value(req, bfs_getxattr(req_fuse(req)->fs, ino, name, size ? buf : NULL, size), buf, size);
	free(buf);
}

void do_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	char *buf = base_malloc(size ? size : 1);

	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	reply_value(req, bfs_listxattr(req_fuse(req)->fs, ino, size ? buf : NULL, size), buf, size);
	free(buf);
}

void do_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	if (refused(name))
		fuse_reply_err(req, EOPNOTSUPP);
	else
		fuse_reply_err(req, -bfs_setxattr(req_fuse(req)->fs, NULL, ino, name, value, size, flags));
}

void do_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	if (refused(name))
		fuse_reply_err(req, EOPNOTSUPP);
	else
		fuse_reply_err(req, -bfs_removexattr(req_fuse(req)->fs, NULL, ino, name));
}
