/* SPDX-License-Identifier: BSD-2-Clause */
#include "tools/common/probe.h"

#include <blkid/blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/dma.h"
#include "bdev/bdev.h"
#include "blob/format.h"
#include "tools/common/common.h"

#define HEAD (4 * MiB)
#define TAIL (2 * MiB)

struct place {
	uint64_t at, len;
};

static void describe(blkid_probe pr, char *what, size_t len)
{
	const char *type = NULL, *label = NULL, *table = NULL;

	blkid_probe_lookup_value(pr, "TYPE", &type, NULL);
	blkid_probe_lookup_value(pr, "LABEL", &label, NULL);
	blkid_probe_lookup_value(pr, "PTTYPE", &table, NULL);
	if (type && label)
		snprintf(what, len, "a %s signature, labelled '%s'", type, label);
	else if (type)
		snprintf(what, len, "a %s signature", type);
	else if (table)
		snprintf(what, len, "a partition table (%s)", table);
	else
		snprintf(what, len, "an unknown signature");
}

/* libblkid does not know BlobFS: the magic at either superblock's place tells. */
static int probe_own(int fd, char *what, size_t len)
{
	static const off_t at[] = { 0, (off_t)BS_SB_COPY_BLOCK * BS_BLOCK };
	struct bs_sb_disk sb;

	for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
		if (pread(fd, &sb, sizeof(sb), at[i]) != (ssize_t)sizeof(sb) ||
		    memcmp(sb.magic, BS_MAGIC, sizeof(sb.magic)) != 0)
			continue;
		sb.label[sizeof(sb.label) - 1] = '\0';
		if (sb.label[0])
			snprintf(what, len, "a BlobFS file system labelled '%s'", sb.label);
		else
			snprintf(what, len, "a BlobFS file system");
		return 1;
	}
	return 0;
}

static blkid_probe open_probe(int fd)
{
	blkid_probe pr = blkid_new_probe();

	if (!pr)
		return NULL;
	if (blkid_probe_set_device(pr, fd, 0, 0)) {
		blkid_free_probe(pr);
		return NULL;
	}
	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_MAGIC);
	blkid_probe_enable_partitions(pr, 1);
	blkid_probe_set_partitions_flags(pr, BLKID_PARTS_MAGIC);
	return pr;
}

static int probe_fd(int fd, char *what, size_t len)
{
	int rc = probe_own(fd, what, len);
	blkid_probe pr;

	if (rc)
		return rc;
	pr = open_probe(fd);
	if (!pr)
		return -ENOMEM;
	if (blkid_probe_get_size(pr) >= 512) {
		rc = blkid_do_fullprobe(pr);
		if (rc == 0) {
			describe(pr, what, len);
			rc = 1;
		} else {
			rc = rc > 0 ? 0 : -EIO;
		}
	}
	blkid_free_probe(pr);
	return rc;
}

int tool_probe(const char *path, char *what, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc;

	if (fd < 0)
		return -errno;
	rc = probe_fd(fd, what, len);
	close(fd);
	return rc;
}

/* ---- devices that are no files ---- */

/* Where signatures are: the beginning, our second superblock, the end (RAID, backup partition tables). */
static unsigned places(uint64_t size, struct place out[3])
{
	uint64_t copy = (uint64_t)BS_SB_COPY_BLOCK * BS_BLOCK;
	unsigned n = 0;

	out[n++] = (struct place){ 0, MIN(size, HEAD) };
	if (size > copy)
		out[n++] = (struct place){ copy, MIN(size - copy, (uint64_t)BS_BLOCK) };
	if (size > HEAD)
		out[n++] = (struct place){ MAX(HEAD, size - MIN(size, TAIL)), MIN(size - HEAD, TAIL) };
	return n;
}

/* A file of the device's size with those parts of it, for libblkid to look at. */
static int copy_parts(struct bdev *dev, int fd)
{
	struct place part[3];
	struct bdev_channel *ch = bdev_channel_borrow(dev);
	char *buf = dma_alloc(HEAD, 4096);
	unsigned n = places(bdev_info(dev)->size, part);
	int rc = buf ? 0 : -ENOMEM;

	if (!rc && ftruncate(fd, (off_t)bdev_info(dev)->size))
		rc = -errno;
	for (unsigned i = 0; i < n && !rc; i++) {
		rc = bdev_io_sync(ch, BDEV_READ, buf, part[i].at, part[i].len, 0);
		if (!rc && pwrite(fd, buf, part[i].len, (off_t)part[i].at) != (ssize_t)part[i].len)
			rc = -EIO;
	}
	dma_free(buf);
	bdev_channel_return(ch);
	return rc;
}

int tool_probe_any(const char *device, char *what, size_t len, struct base_err *err)
{
	struct bdev_opts opts = { .size = sizeof(opts), .flags = BDEV_RDONLY, .channels = 1 };
	struct bdev *dev;
	int rc, fd;

	if (tool_is_path(device)) {
		rc = tool_probe(device, what, len);
		return rc < 0 ? base_err_set(err, rc, "%s: %s", device, strerror(-rc)) : rc;
	}
	rc = bdev_open(device, &opts, &dev, err);
	if (rc)
		return rc;
	fd = memfd_create("probe", MFD_CLOEXEC);
	rc = fd < 0 ? -errno : copy_parts(dev, fd);
	bdev_close(dev);
	if (!rc)
		rc = probe_fd(fd, what, len);
	if (fd >= 0)
		close(fd);
	return rc < 0 ? base_err_set(err, rc, "%s: cannot look for file systems: %s", device,
				     strerror(-rc)) :
			rc;
}

/* Zeroes where signatures lie. */
static int wipe_bdev(struct bdev *dev)
{
	struct bdev_channel *ch = bdev_channel_borrow(dev);
	struct place part[3];
	unsigned n = places(bdev_info(dev)->size, part);
	int rc = 0;

	for (unsigned i = 0; i < n && !rc; i++)
		rc = bdev_io_sync(ch, BDEV_WRITE_ZEROES, NULL, part[i].at, part[i].len, 0);
	if (!rc)
		rc = bdev_io_sync(ch, BDEV_FLUSH, NULL, 0, 0, 0);
	bdev_channel_return(ch);
	return rc;
}

/* Every signature libblkid knows. */
static int wipe_path(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC), rc = 0;
	blkid_probe pr;

	if (fd < 0)
		return -errno;
	pr = open_probe(fd);
	if (!pr) {
		close(fd);
		return -ENOMEM;
	}
	while (rc == 0 && blkid_do_probe(pr) == 0)
		rc = blkid_do_wipe(pr, 0) ? -EIO : 0;
	if (rc == 0 && fsync(fd))
		rc = -errno;
	blkid_free_probe(pr);
	close(fd);
	return rc;
}

int tool_wipe_any(const char *device, struct bdev *dev)
{
	return tool_is_path(device) ? wipe_path(device) : wipe_bdev(dev);
}
