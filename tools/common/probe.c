/* SPDX-License-Identifier: BSD-2-Clause */
#include "tools/common/probe.h"

#include <blkid/blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "blob/format.h"
#include "tools/common/common.h"

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

int tool_probe(const char *path, char *what, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc;
	blkid_probe pr;

	if (fd < 0)
		return -errno;
	rc = probe_own(fd, what, len);
	if (rc) {
		close(fd);
		return rc;
	}
	pr = open_probe(fd);
	if (!pr) {
		close(fd);
		return -ENOMEM;
	}
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
	close(fd);
	return rc;
}

int tool_wipe(const char *path)
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
