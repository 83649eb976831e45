/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who has a file's lock. /proc/locks names no process for a lock of an open file description; the fdinfo of the descriptor that
 * took it does.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bdev/file.h"

static bool descriptor_locks(const char *pid, const char *fd, const struct stat *want)
{
	char path[2 * NAME_MAX + 32], line[256];
	bool locks = false;
	struct stat st;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/fd/%s", pid, fd);
	if (stat(path, &st) || st.st_dev != want->st_dev || st.st_ino != want->st_ino)
		return false;
	snprintf(path, sizeof(path), "/proc/%s/fdinfo/%s", pid, fd);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (!locks && fgets(line, sizeof(line), f))
		locks = strncmp(line, "lock:", 5) == 0;
	fclose(f);
	return locks;
}

/* 1: it does, 0: it does not, -EACCES: it does not tell us. */
static int process_locks(const char *pid, const struct stat *want)
{
	char path[NAME_MAX + 32];
	int locks = 0;
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	d = opendir(path);
	if (!d)
		return errno == ENOENT || errno == ESRCH ? 0 : -EACCES;
	while (!locks && (e = readdir(d)))
		locks = e->d_name[0] != '.' && descriptor_locks(pid, e->d_name, want);
	closedir(d);
	return locks;
}

static void process_name(int pid, char *name, size_t len)
{
	char path[64];
	FILE *f;

	snprintf(name, len, "?");
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	f = fopen(path, "re");
	if (!f)
		return;
	if (fgets(name, (int)len, f))
		name[strcspn(name, "\n")] = '\0';
	fclose(f);
}

int bdev_lock_holder(const char *path, char *name, size_t len)
{
	int holder = 0, rc = 0;
	struct dirent *e;
	struct stat st;
	DIR *d;

	if (stat(path, &st))
		return -errno;
	d = opendir("/proc");
	if (!d)
		return -errno;
	while (!holder && (e = readdir(d))) {
		int locks = isdigit((unsigned char)e->d_name[0]) ? process_locks(e->d_name, &st) : 0;

		if (locks > 0)
			holder = atoi(e->d_name);
		else if (locks < 0)
			rc = locks;
	}
	closedir(d);
	if (!holder)
		return rc;
	process_name(holder, name, len);
	return holder;
}

bool file_lock_is_orphan(const char *path)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	char name[64];
	bool locked;

	if (fd < 0)
		return false;
	locked = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
	close(fd);
	return locked && bdev_lock_holder(path, name, sizeof(name)) == 0;
}
