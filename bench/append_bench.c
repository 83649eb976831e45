/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What one small append to a cached file costs: ns each, over a file that is written again and again within the cache, so
 * that neither the device nor write-back is measured. Not a test: it prints.
 *
 *	append_bench [bytes] [records]
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "blobfs/blobfs.h"

static int run(struct bfs *fs, size_t len, uint64_t n)
{
	char *record = calloc(1, len);
	struct bfs_file *file;
	uint64_t t0, t1;
	int rc;

	if (!record)
		return -1;
	rc = bfs_open_path(fs, NULL, "/log", O_RDWR | O_CREAT | O_TRUNC, 0644, BS_STREAM_SHORT,
			   &file);
	if (rc) {
		free(record);
		return rc;
	}
	t0 = base_now_ns();
	for (uint64_t i = 0; i < n && !rc; i++) {
		if (bfs_append(file, record, len) != (int64_t)len)
			rc = -1;
	}
	t1 = base_now_ns();
	printf("%" PRIu64 " appends of %zu bytes: %.0f ns each\n", n, len,
	       (double)(t1 - t0) / (double)n);
	bfs_close(file);
	free(record);
	return rc;
}

int main(int argc, char **argv)
{
	size_t len = argc > 1 ? strtoull(argv[1], NULL, 0) : 400;
	uint64_t n = argc > 2 ? strtoull(argv[2], NULL, 0) : 200000;
	struct bfs_mount_opts opts = {
		.size = sizeof(opts),
		.cache_size = 512 * MiB,
		.dirty_limit = 512 * MiB,
		.writeback_ms = 60000,
	};
	struct base_err err = { "" };
	struct bdev *dev;
	struct bfs *fs;
	int rc;

	if (len < 1 || n * len > 200 * MiB) {
		fprintf(stderr, "append_bench: at most 200 MiB in all\n");
		return 2;
	}
	rc = bdev_open("ram:512M", NULL, &dev, &err);
	if (!rc)
		rc = bfs_format(dev, NULL, &err);
	if (!rc)
		rc = bfs_mount_bdev(dev, &opts, &fs, &err);
	if (rc) {
		fprintf(stderr, "append_bench: %s\n", base_err_text(&err, rc));
		return 1;
	}
	for (int i = 0; i < 5 && !rc; i++)
		rc = run(fs, len, n);
	return bfs_unmount(fs) || rc;
}
