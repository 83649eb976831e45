/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the shell cannot do, or only slowly:
 *	newer IMAGE                      makes it an image of the next major version
 *	many DIR N create|stat|list|remove    seconds it took to standard output
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/util.h"
#include "blob/format.h"
#include "test/fuse/mnt.h"

static int newer(const char *image)
{
	const off_t at[] = { 0, (off_t)BS_SB_COPY_BLOCK * BS_BLOCK };
	int fd = open(image, O_RDWR), done = 0;
	struct bs_sb_disk sb;

	if (fd < 0)
		return 1;
	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		if (pread(fd, &sb, sizeof(sb), at[i]) != sizeof(sb) || memcmp(sb.magic, BS_MAGIC, 8))
			continue;
		sb.version_major.v = htole16(BS_VERSION_MAJOR + 1);
		sb.crc.v = 0;
		sb.crc.v = htole32(base_crc32c(0, &sb, sizeof(sb)));
		done += pwrite(fd, &sb, sizeof(sb), at[i]) == sizeof(sb);
	}
	close(fd);
	return done ? 0 : 1;
}

static int one(const char *what, const char *path)
{
	struct stat st;
	int fd;

	if (!strcmp(what, "create")) {
		fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
		return fd < 0 ? -1 : close(fd);
	}
	return !strcmp(what, "stat") ? stat(path, &st) : unlink(path);
}

static long list(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	long n = 0;

	if (!d)
		return -1;
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static int many(const char *dir, long n, const char *what)
{
	uint64_t start = base_now_ns();
	char path[4096];

	if (!strcmp(what, "list")) {
		if (list(dir) != n)
			return 1;
	} else {
		for (long i = 0; i < n; i++) {
			snprintf(path, sizeof(path), "%s/file-number-%ld", dir, i);
			if (one(what, path)) {
				perror(path);
				return 1;
			}
		}
	}
	printf("%.2f\n", (double)(base_now_ns() - start) / 1e9);
	return 0;
}

int helper(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[0], "newer"))
		return newer(argv[1]);
	if (argc == 4 && !strcmp(argv[0], "many"))
		return many(argv[1], atol(argv[2]), argv[3]);
	fprintf(stderr, "helper: %s?\n", argv[0]);
	return 2;
}
