/* SPDX-License-Identifier: BSD-2-Clause */
/* Who uses a device: the kernel's mount table, a block device held exclusively, or another program's lock. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/util.h"
#include "bdev/bdev.h"
#include "tools/common/common.h"

/* mountinfo writes blanks and the like as \ooo. */
static void unescape(char *s)
{
	char *out = s;

	while (*s) {
		unsigned v;

		if (*s == '\\' && sscanf(s + 1, "%3o", &v) == 1 && strlen(s) >= 4) {
			*out++ = (char)v;
			s += 4;
		} else {
			*out++ = *s++;
		}
	}
	*out = '\0';
}

/* One line of mountinfo: mount point (field 5) and source (second after the dash); our mounts name the device there. */
static bool line_names(char *line, const struct stat *st, const char *real, char *point, size_t len)
{
	char *save = NULL, *field[6] = { 0 }, *source, *dash = strstr(line, " - ");
	unsigned major, minor;

	if (!dash)
		return false;
	*dash = '\0';
	strtok_r(dash + 3, " ", &save);
	source = strtok_r(NULL, " \n", &save);
	for (int i = 0; i < 5; i++)
		field[i] = strtok_r(i ? NULL : line, " ", &save);
	if (!source || !field[4])
		return false;
	unescape(source);
	unescape(field[4]);
	if (S_ISBLK(st->st_mode) && sscanf(field[2], "%u:%u", &major, &minor) == 2 &&
	    makedev(major, minor) == st->st_rdev) {
		snprintf(point, len, "%s", field[4]);
		return true;
	}
	if (strcmp(source, real) == 0) {
		snprintf(point, len, "%s", field[4]);
		return true;
	}
	return false;
}

static bool is_mounted(const char *device, const struct stat *st, char *point, size_t len)
{
	char real[PATH_MAX], *line = NULL;
	size_t cap = 0;
	bool found = false;
	FILE *f = fopen("/proc/self/mountinfo", "re");

	if (!f)
		return false;
	if (!realpath(device, real))
		snprintf(real, sizeof(real), "%s", device);
	while (!found && getline(&line, &cap, f) > 0)
		found = line_names(line, st, real, point, len);
	free(line);
	fclose(f);
	return found;
}

bool tool_mounted_at(const char *device, char *point, size_t len)
{
	struct stat st = { 0 };

	if (tool_is_path(device) && stat(device, &st))
		return false;
	return is_mounted(device, &st, point, len);
}

/* The file behind a loop device: whoever mounted that has its own idea of the content. */
static bool is_behind_loop(const char *device, char *loop, size_t len)
{
	char real[PATH_MAX], backing[PATH_MAX], name[64];
	bool found = false;

	if (!realpath(device, real))
		return false;
	for (int i = 0; i < 256 && !found; i++) {
		FILE *f;

		snprintf(name, sizeof(name), "/sys/block/loop%d/loop/backing_file", i);
		f = fopen(name, "re");
		if (!f)
			continue;
		if (fgets(backing, sizeof(backing), f)) {
			backing[strcspn(backing, "\n")] = '\0';
			found = strcmp(backing, real) == 0;
		}
		fclose(f);
		if (found)
			snprintf(loop, len, "/dev/loop%d", i);
	}
	return found;
}

/* Mounted, or held by the kernel in another way. */
static bool kernel_has(const char *device, const struct stat *st, char *who, size_t len)
{
	char where[PATH_MAX];
	int fd;

	if (is_mounted(device, st, where, sizeof(where))) {
		snprintf(who, len, "it is mounted on %s", where);
		return true;
	}
	if (S_ISREG(st->st_mode)) {
		if (!is_behind_loop(device, where, sizeof(where)))
			return false;
		snprintf(who, len, "it is attached to %s", where);
		return true;
	}
	fd = S_ISBLK(st->st_mode) ? open(device, O_RDONLY | O_EXCL | O_CLOEXEC) : -1;
	if (fd >= 0)
		close(fd);
	else if (S_ISBLK(st->st_mode) && errno == EBUSY)
		snprintf(who, len, "the kernel holds it (swap, RAID, LVM or device mapper)");
	return S_ISBLK(st->st_mode) && fd < 0 && errno == EBUSY;
}

/* As the block-device layer would lock it, without taking the lock. */
static bool is_locked(const char *device, bool to_write)
{
	struct flock lock = { .l_type = to_write ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET };
	int fd = open(device, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	bool locked;

	if (fd < 0)
		return false;
	locked = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
	close(fd);
	return locked;
}

/* umount(8) returns while the daemon still writes its last checkpoint. */
static bool is_closing(const char *comm)
{
	return strcmp(comm, "mount.blobfs") == 0;
}

bool tool_in_use(const char *device, enum tool_use use, char *who, size_t len)
{
	uint64_t until = base_now_ns() + 15000000000ull;
	char comm[64] = "";
	struct stat st;
	int pid;

	if (!tool_is_path(device) || stat(device, &st))
		return false;
	for (;;) {
		bool locked = is_locked(device, use == TOOL_WRITE);

		if ((locked || use != TOOL_READ) && kernel_has(device, &st, who, len))
			return true;
		if (!locked)
			return false;
		pid = bdev_lock_holder(device, comm, sizeof(comm));
		if (pid > 0 && (!is_closing(comm) || base_now_ns() > until)) {
			snprintf(who, len, "process %d (%s) has it open", pid, comm);
			return true;
		}
		/* Nobody alive has it: a dead one's I/O is just ending. */
		if (pid <= 0 && (pid || base_now_ns() > until) && is_locked(device, use == TOOL_WRITE)) {
			snprintf(who, len, "another program has it open");
			return true;
		}
		usleep(20000);
	}
}
