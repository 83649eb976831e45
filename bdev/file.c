/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Opening a file or block device.
 *
 * The lock is one of the open file description (F_OFD_SETLK): other processes see it, it goes when
 * the process dies, and it does not collide with the flock that udev takes on block devices. A
 * block device opened for writing is claimed with O_EXCL as well, so that a mounted one is refused.
 *
 * Both outlive a killed process for as long as the device has I/O of its under way, as they must:
 * what is still to land would land in the next owner's data. So opening is patient for a moment
 * before it says -EBUSY, and longer if no living process has the lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "bdev/file.h"

#define LOG_COMPONENT "bdev"
#include "base/log.h"

#define FILE_MAX_IO (4 * MiB)
#define PATIENCE 60          /* times 5 ms */
#define ORPHAN_PATIENCE 6000 /* the same, while nobody alive has the lock */
#define ORPHAN_LOOK 20       /* tries between two looks */

/* True a limited number of times, a little later each: whether to try once more. Leaves errno alone. */
static bool be_patient(const char *name, unsigned *tries)
{
	struct timespec ts = { .tv_nsec = 5000000 };
	unsigned n = (*tries)++;
	int saved = errno;
	bool again = n < ORPHAN_PATIENCE;

	if (again && n >= PATIENCE && n % ORPHAN_LOOK == 0)
		again = file_lock_is_orphan(name);
	if (again)
		nanosleep(&ts, NULL);
	errno = saved;
	return again;
}

void file_identify(const char *name, char *key, size_t len)
{
	struct stat st;

	*key = '\0';
	if (stat(name, &st))
		return;
	if (S_ISBLK(st.st_mode))
		snprintf(key, len, "block:%u:%u", major(st.st_rdev), minor(st.st_rdev));
	else if (S_ISREG(st.st_mode))
		snprintf(key, len, "file:%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
}

/* ---- opening ---- */

static int open_retry(const char *name, int flags, struct file *f)
{
	unsigned tries = 0;
	int fd;

	do {
		fd = open(name, flags | (f->direct ? O_DIRECT : 0), 0644);
		fd = fd < 0 ? -errno : fd; /* patience changes errno */
	} while (fd == -EBUSY && be_patient(name, &tries));
	if (fd == -EINVAL && f->direct) {
		log_info("%s: direct I/O is refused, using the page cache", name);
		f->direct = false;
		fd = open(name, flags & ~O_EXCL, 0644);
		fd = fd < 0 ? -errno : fd;
	}
	return fd;
}

static int open_fd(const char *name, const struct bdev_opts *opts, struct file *f, bool *created)
{
	int flags = O_CLOEXEC | (opts->flags & BDEV_RDONLY ? O_RDONLY : O_RDWR), fd;
	struct stat st;

	if (!stat(name, &st)) {
		/* Not opened: a FIFO would block, a tape would rewind. */
		if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode))
			return S_ISDIR(st.st_mode) ? -EISDIR : -ENOTBLK;
		f->block = S_ISBLK(st.st_mode);
		if (f->block && !(opts->flags & BDEV_RDONLY))
			flags |= O_EXCL;
		return open_retry(name, flags, f);
	}
	if (errno != ENOENT || !(opts->flags & BDEV_CREATE) || opts->flags & BDEV_RDONLY)
		return -errno;
	/* O_EXCL goes with O_DIRECT refused after creation: open_retry drops it. */
	fd = open_retry(name, flags | O_CREAT | O_EXCL, f);
	*created = fd >= 0;
	return fd;
}

static const char *open_problem(int rc)
{
	switch (rc) {
	case -EISDIR:
		return "is a directory";
	case -ENOTBLK:
		return "is neither a file nor a block device";
	case -EBUSY:
		return "is in use by the system (mounted?)";
	}
	return strerror(-rc);
}

static int lock_refused(const char *name, struct base_err *err)
{
	char who[64];
	int pid = bdev_lock_holder(name, who, sizeof(who));

	if (pid > 0)
		return base_err_set(err, -EBUSY, "%s: is in use by %s (process %d)", name, who, pid);
	return base_err_set(err, -EBUSY, "%s: is in use by another program", name);
}

static int take_lock(const char *name, const struct bdev_opts *opts, struct file *f,
		     struct base_err *err)
{
	struct flock lock = { .l_type = opts->flags & BDEV_RDONLY ? F_RDLCK : F_WRLCK,
			      .l_whence = SEEK_SET };
	unsigned tries = 0;
	int rc;

	if (opts->flags & BDEV_NO_LOCK)
		return 0;
	do {
		rc = fcntl(f->fd, F_OFD_SETLK, &lock);
		if (!rc) {
			f->locked = true;
			return 0;
		}
		if (errno != EAGAIN && errno != EACCES)
			break;
		if (!be_patient(name, &tries))
			return lock_refused(name, err);
	} while (true);
	return base_err_set(err, -errno, "%s: cannot be locked: %s", name, strerror(errno));
}

/* ---- measuring ---- */

static int read_size(const struct file *f, uint64_t *size)
{
	struct stat st;

	if (f->block)
		return ioctl(f->fd, BLKGETSIZE64, size) ? -errno : 0;
	if (fstat(f->fd, &st))
		return -errno;
	*size = (uint64_t)st.st_size;
	return 0;
}

int file_size(struct bdev *dev, uint64_t *size)
{
	return read_size(dev->priv, size);
}

/* The smallest unit direct I/O takes; 0 when it takes none. */
static uint32_t direct_unit(const struct file *f)
{
	void *buf;
	uint32_t unit;

	if (posix_memalign(&buf, 4096, 4096))
		return 4096;
	for (unit = 512; unit <= 4096; unit *= 2)
		if (pread(f->fd, buf, unit, unit) >= 0 || errno != EINVAL)
			break;
	free(buf);
	return unit <= 4096 ? unit : 0;
}

static uint32_t find_block_size(const char *name, struct file *f)
{
	uint32_t unit;
	int n;

	if (f->block && !ioctl(f->fd, BLKSSZGET, &n) && n >= 512 && n <= 4096)
		return (uint32_t)n;
	if (!f->direct)
		return 512;
	unit = direct_unit(f);
	if (unit)
		return unit;
	log_info("%s: direct I/O is refused, using the page cache", name);
	n = fcntl(f->fd, F_GETFL);
	if (n >= 0 && !fcntl(f->fd, F_SETFL, n & ~O_DIRECT))
		f->direct = false;
	return f->direct ? 4096 : 512;
}

/* A line of the device's queue directory in sysfs; a partition's is its parent's. */
static bool queue_attr(const struct file *f, const char *attr, char *text, size_t len)
{
	static const char *const where[] = { "queue", "../queue" };
	struct stat st;
	bool found = false;

	if (fstat(f->fd, &st))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(where) && !found; i++) {
		char path[PATH_MAX];
		FILE *file;

		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/%s", major(st.st_rdev),
			 minor(st.st_rdev), where[i], attr);
		file = fopen(path, "re");
		if (!file)
			continue;
		found = fgets(text, (int)len, file);
		fclose(file);
	}
	return found;
}

/* Punching behind the end changes nothing, and tells whether the file system can. */
static bool can_punch(const struct file *f, uint64_t size)
{
	return !fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  (off_t)round_up(size, 4096), 4096);
}

static void find_features(struct bdev *dev, const struct file *f)
{
	struct bdev_info *info = &dev->info;
	char text[64];

	/* Unless the kernel says for certain that there is no volatile cache, there is one. */
	info->volatile_cache = !(f->block && queue_attr(f, "write_cache", text, sizeof(text)) &&
				 !strncmp(text, "write through", 13));
	info->fua = true;
	info->write_zeroes = true;
	if (f->block) {
		info->discard = queue_attr(f, "discard_max_bytes", text, sizeof(text)) &&
				strtoull(text, NULL, 10);
	} else if (!(dev->opts.flags & BDEV_RDONLY)) {
		info->discard = info->discard_zeroes = can_punch(f, info->size);
	}
}

static int measure(struct bdev *dev, struct file *f, struct base_err *err)
{
	struct bdev_info *info = &dev->info;
	int rc = read_size(f, &info->size);

	if (rc)
		return base_err_set(err, rc, "%s: its size cannot be read: %s", dev->name,
				    strerror(-rc));
	if (!info->size)
		return base_err_set(err, -EINVAL, "%s: is empty", dev->name);
	info->block_size = find_block_size(dev->name, f);
	if (info->size % info->block_size)
		return base_err_set(err, -EINVAL, "%s: its size, %ju, is not a multiple of %u",
				    dev->name, (uintmax_t)info->size, info->block_size);
	info->atomic_write = info->block_size;
	info->buffer_align = f->direct ? info->block_size : 1;
	info->max_io = FILE_MAX_IO;
	info->max_iov = IOV_MAX;
	info->optimal_io = 1 * MiB;
	find_features(dev, f);
	return 0;
}

/* A file that is there but holds nothing may as well be made the asked size. */
static bool is_empty(const struct file *f, const struct bdev_opts *opts)
{
	uint64_t size;

	return opts->flags & BDEV_CREATE && !(opts->flags & BDEV_RDONLY) && !f->block &&
	       !read_size(f, &size) && !size;
}

int file_open(struct bdev *dev, const struct bdev_opts *opts, struct file *f, struct base_err *err)
{
	bool created = false;
	int rc;

	*f = (struct file){ .direct = !(opts->flags & BDEV_BUFFERED) };
	f->fd = open_fd(dev->name, opts, f, &created);
	if (f->fd < 0)
		return base_err_set(err, f->fd == -EISDIR || f->fd == -ENOTBLK ? -EINVAL : f->fd,
				    "%s: %s", dev->name, open_problem(f->fd));
	rc = take_lock(dev->name, opts, f, err);
	if (!rc && (created || is_empty(f, opts)) && ftruncate(f->fd, (off_t)opts->create_size))
		rc = base_err_set(err, -errno, "%s: cannot be made %ju bytes long: %s", dev->name,
				  (uintmax_t)opts->create_size, strerror(errno));
	if (!rc)
		rc = measure(dev, f, err);
	if (rc) {
		if (created)
			unlink(dev->name);
		file_close(f);
	}
	return rc;
}

void file_close(struct file *f)
{
	struct flock lock = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

	/* A child between fork and exec still has the descriptor: closing ours alone would not
	 * release it. */
	if (f->locked)
		fcntl(f->fd, F_OFD_SETLK, &lock);
	close(f->fd);
}

/* ---- discard and zeroes ---- */

int file_trim_mode(const struct bdev_io *io)
{
	bool keep = io->op == BDEV_WRITE_ZEROES && io->opts.flags & BDEV_NO_UNMAP;

	return FALLOC_FL_KEEP_SIZE | (keep ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE);
}

int file_trim(struct file *f, const struct bdev_io *io)
{
	uint64_t range[2] = { io->offset, io->length };
	int rc;

	do {
		if (!f->block)
			rc = fallocate(f->fd, file_trim_mode(io), (off_t)io->offset,
				       (off_t)io->length);
		else
			rc = ioctl(f->fd, io->op == BDEV_DISCARD ? BLKDISCARD : BLKZEROOUT, range);
	} while (rc && errno == EINTR);
	return rc ? -errno : 0;
}
