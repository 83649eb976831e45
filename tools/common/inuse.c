/* SPDX-License-Identifier: BSD-2-Clause */
/* Who uses a device: the kernel's mount table, a block device held exclusively, or another program's lock. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

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

int tool_lock_holder(const char *path, char *comm, size_t len)
{
	struct stat st;
	char line[256], name[64];
	int holder = 0;
	FILE *f;

	if (stat(path, &st) || !(f = fopen("/proc/locks", "re")))
		return 0;
	while (!holder && fgets(line, sizeof(line), f)) {
		unsigned major, minor;
		unsigned long inode;
		int pid;

		if (sscanf(line, "%*s %*s %*s %*s %d %x:%x:%lu", &pid, &major, &minor, &inode) == 4 &&
		    inode == st.st_ino && makedev(major, minor) == st.st_dev && pid > 0)
			holder = pid;
	}
	fclose(f);
	if (!holder)
		return 0;
	snprintf(name, sizeof(name), "/proc/%d/comm", holder);
	snprintf(comm, len, "?");
	f = fopen(name, "re");
	if (f) {
		if (fgets(comm, (int)len, f))
			comm[strcspn(comm, "\n")] = '\0';
		fclose(f);
	}
	return holder;
}

bool tool_in_use(const char *device, char *who, size_t len)
{
	struct stat st;
	char point[PATH_MAX], comm[64];
	int fd, pid;
	bool busy;

	if (!tool_is_path(device) || stat(device, &st))
		return false;
	if (is_mounted(device, &st, point, sizeof(point))) {
		snprintf(who, len, "it is mounted on %s", point);
		return true;
	}
	fd = open(device, O_RDONLY | O_CLOEXEC | (S_ISBLK(st.st_mode) ? O_EXCL : 0));
	if (fd < 0 && errno == EBUSY) {
		snprintf(who, len, "the kernel holds it (mounted, swap, RAID, LVM or device mapper)");
		return true;
	}
	if (fd < 0)
		return false;
	busy = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
	close(fd);
	if (!busy)
		return false;
	pid = tool_lock_holder(device, comm, sizeof(comm));
	if (pid)
		snprintf(who, len, "process %d (%s) has it open", pid, comm);
	else
		snprintf(who, len, "another program has it open");
	return true;
}
