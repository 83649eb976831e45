/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fuse3/fuse_log.h>

#include "base/util.h"
#include "fuse/internal.h"
#include "fuse/kmount.h"

extern char **environ;

/* mountinfo writes blanks and backslashes in octal. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/* Splits a line of mountinfo: id parent major:minor root POINT options fields… - TYPE SOURCE options. */
static bool split(char *line, char **point, char **type, char **source)
{
	char *p = line;

	for (int i = 0; i < 4 && p; i++)
		p = strchr(p, ' ') ? strchr(p, ' ') + 1 : NULL;
	*point = p;
	*type = p ? strstr(p, " - ") : NULL;
	if (!*type)
		return false;
	*type += 3;
	*source = strchr(*type, ' ');
	if (!*source)
		return false;
	*(*source)++ = '\0';
	(*source)[strcspn(*source, " \n")] = '\0';
	p[strcspn(p, " ")] = '\0';
	unescape(*point);
	unescape(*source);
	return true;
}

/* The topmost mount at `dir`, or any of `source` (the other is NULL): whether it is a BlobFS, and then its source or
 * directory in `other`. */
static bool is_ours(const char *dir, const char *source, char *other, size_t size)
{
	char *line = NULL, *point, *type, *src;
	bool ours = false;
	size_t cap = 0;
	FILE *f = fopen("/proc/self/mountinfo", "re");

	if (!f)
		return false;
	while (getline(&line, &cap, f) > 0) {
		bool blobfs;

		if (!split(line, &point, &type, &src))
			continue;
		blobfs = !strcmp(type, FUSE_FSTYPE);
		if (dir ? strcmp(point, dir) : !blobfs || strcmp(src, source))
			continue;
		ours = blobfs;
		snprintf(other, size, "%s", dir ? src : point);
	}
	free(line);
	fclose(f);
	return ours;
}

bool kmount_source_is_mounted(const char *source, char *dir, size_t size)
{
	return is_ours(NULL, source, dir, size);
}

int kmount_check_device(struct base_err *err)
{
	if (access("/dev/fuse", F_OK))
		return base_err_set(err, -ENODEV, "/dev/fuse: %s (is the kernel module fuse loaded?)",
				    strerror(errno));
	if (access("/dev/fuse", R_OK | W_OK))
		return base_err_set(err, -EACCES, "/dev/fuse: %s", strerror(errno));
	return 0;
}

int kmount_check_dir(const char *dir, char **out, struct base_err *err)
{
	char source[256];
	struct stat st;
	int rc;

	*out = NULL;
	if (stat(dir, &st)) {
		rc = -errno;
		if (rc == -ENOTCONN)
			return base_err_set(err, rc, "%s: a mount whose daemon has died is there; unmount it first",
					    dir);
		return base_err_set(err, rc, "%s: %s", dir, strerror(errno));
	}
	if (!S_ISDIR(st.st_mode))
		return base_err_set(err, -ENOTDIR, "%s: not a directory", dir);
	*out = realpath(dir, NULL);
	if (!*out)
		return base_err_set(err, -errno, "%s: %s", dir, strerror(errno));
	if (is_ours(*out, NULL, source, sizeof(source))) {
		free(*out);
		*out = NULL;
		return base_err_set(err, -EBUSY, "%s: already mounted (%s)", dir, source);
	}
	return 0;
}

/* ---- what libfuse says while it mounts ---- */

static pthread_mutex_t said_lock = PTHREAD_MUTEX_INITIALIZER;
static char said[256];

static void keep_line(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char line[256];

	(void)level;
	vsnprintf(line, sizeof(line), fmt, ap);
	line[strcspn(line, "\n")] = '\0';
	pthread_mutex_lock(&said_lock);
	memcpy(said, line, sizeof(said));
	pthread_mutex_unlock(&said_lock);
}

static int device_of(const char *dir, dev_t *dev)
{
	struct statx st;

	/* Nobody answers requests yet: what the kernel knows by itself must do. */
	if (statx(AT_FDCWD, dir, AT_STATX_DONT_SYNC, 0, &st))
		return -errno;
	*dev = makedev(st.stx_dev_major, st.stx_dev_minor);
	return 0;
}

int kmount_session(struct fuse_session *se, const char *dir, dev_t *dev, struct base_err *err)
{
	int rc;

	rc = kmount_check_device(err);
	if (rc)
		return rc;
	said[0] = '\0';
	fuse_set_log_func(keep_line);
	rc = fuse_session_mount(se, dir);
	fuse_set_log_func(NULL);
	if (rc)
		return base_err_set(err, -EPERM, "%s: cannot mount: %s", dir,
				    said[0] ? said : "refused by the kernel or fusermount3");
	rc = device_of(dir, dev);
	if (rc) {
		fuse_session_unmount(se);
		return base_err_set(err, rc, "%s: mounted, but cannot be looked at: %s", dir, strerror(-rc));
	}
	return 0;
}

/* ---- unmounting ---- */

static int fusermount(const char *dir, bool lazy)
{
	char *argv[] = { "fusermount3", "-u", "-q", lazy ? "-z" : "--", (char *)dir, NULL };
	pid_t pid;
	int status;

	if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ))
		return -ENOENT;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EBUSY;
}

static int unmount_once(const char *dir, bool lazy)
{
	if (geteuid())
		return fusermount(dir, lazy);
	return umount2(dir, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) ? -errno : 0;
}

static void push_dirty(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return;
	syncfs(fd);
	close(fd);
}

int kmount_unmount(const char *dir, dev_t dev)
{
	dev_t now;
	int rc;

	if (device_of(dir, &now) || now != dev)
		return -ESTALE;
	rc = unmount_once(dir, false);
	if (rc != -EBUSY)
		return rc;
	push_dirty(dir);
	rc = unmount_once(dir, true);
	return rc ? rc : -EBUSY;
}

int kmount_remove_dead(const char *dir, dev_t dev)
{
	struct stat st;
	dev_t now;

	/* The number may already be that of the next mount there; but that one answers. */
	if (device_of(dir, &now) || now != dev)
		return 0;
	if (!stat(dir, &st) || (errno != ENOTCONN && errno != ECONNABORTED))
		return 0;
	return unmount_once(dir, true);
}

void kmount_set_readahead(dev_t dev, unsigned int kib)
{
	char path[96];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(dev), minor(dev));
	f = fopen(path, "we");
	if (!f)
		return;
	fprintf(f, "%u\n", kib);
	fclose(f);
}
