/* SPDX-License-Identifier: BSD-2-Clause */
#include "tools/mkfs/image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "tools/common/common.h"

int image_device_size(const char *path, uint64_t *size)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st))
		rc = -errno;
	else if (S_ISBLK(st.st_mode))
		rc = ioctl(fd, BLKGETSIZE64, size) ? -errno : 0;
	else
		*size = (uint64_t)st.st_size;
	close(fd);
	return rc;
}

/* A sparse image makes each later flush commit the host's extents too; a written one does not. */
static int write_once(int fd, const char *path, uint64_t size, bool quiet)
{
	const size_t step = 8 * MiB;
	bool show = !quiet && isatty(STDERR_FILENO);
	char *zeroes = calloc(1, step);
	uint64_t at = 0;
	int rc = 0;

	if (!zeroes)
		return -ENOMEM;
	while (at < size) {
		ssize_t n = pwrite(fd, zeroes, (size_t)MIN(step, size - at), (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			rc = n ? -errno : -EIO;
			break;
		}
		at += (uint64_t)n;
		if (show)
			fprintf(stderr, "\rwriting %s once: %3u %%", path, (unsigned)(at * 100 / size));
	}
	if (show)
		fputc('\n', stderr);
	free(zeroes);
	return rc;
}

static int prepare_fd(int fd, const char *path, uint64_t size, bool prewrite, bool quiet)
{
	int rc = 0;

	if (size && ftruncate(fd, (off_t)size))
		rc = -errno;
	if (rc == 0 && prewrite) {
		if (!size)
			rc = image_device_size(path, &size);
		if (rc == 0)
			rc = write_once(fd, path, size, quiet);
	}
	if (rc == 0 && (size || prewrite) && fsync(fd))
		rc = -errno;
	if (rc)
		tool_error("%s: cannot be made %llu bytes long: %s", path, (unsigned long long)size, strerror(-rc));
	return rc;
}

int image_prepare(const char *path, uint64_t size, bool prewrite, bool quiet, struct image_change *change)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd, rc;

	change->created = false;
	if (!tool_is_path(path) || (!size && !prewrite))
		return 0;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		change->created = fd >= 0;
	}
	if (fd < 0) {
		rc = -errno;
		tool_error("%s: %s", path, strerror(-rc));
		return rc;
	}
	/* As the block-device layer does: nobody opens it while it changes its size. */
	if (fcntl(fd, F_OFD_SETLK, &lock)) {
		rc = -errno;
		tool_error("%s is in use by another program", path);
	} else {
		rc = prepare_fd(fd, path, size, prewrite, quiet);
	}
	if (close(fd) && rc == 0)
		rc = -errno;
	return rc;
}

void image_undo(const char *path, const struct image_change *change)
{
	if (change->created)
		unlink(path);
}
