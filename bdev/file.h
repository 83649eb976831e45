/* SPDX-License-Identifier: BSD-2-Clause */
/* A file or block device, opened, locked and measured: what uring and psync have in common. */
#ifndef BDEV_FILE_H
#define BDEV_FILE_H

#include "bdev/internal.h"
#include "bdev/workers.h"

struct file {
	int fd;
	bool block;  /* a block device */
	bool direct; /* O_DIRECT */
	bool locked;
	struct workers *workers; /* the module's: for what would block */
};

/* Opens dev->name into f, fills dev->info. err gets one line. */
int file_open(struct bdev *dev, const struct bdev_opts *opts, struct file *f, struct base_err *err);
void file_close(struct file *f);
/* Is the file locked, and by no living process? False if that cannot be told. */
bool file_lock_is_orphan(const char *path);
/* dev->priv must begin with a struct file. */
int file_size(struct bdev *dev, uint64_t *size);
/* Discards or zeroes, blocking; for workers. */
int file_trim(struct file *f, const struct bdev_io *io);
/* The mode of fallocate that does what io asks of a regular file. */
int file_trim_mode(const struct bdev_io *io);

/* A READ or WRITE of which module_data[0] bytes are done: the rest of the iovec it stopped in, as
 * module_data[2] (address) and [3] (length). */
static inline void file_remainder(struct bdev_io *io)
{
	uint64_t done = io->module_data[0];
	const struct iovec *v = io->iov;

	for (; done >= v->iov_len; v++)
		done -= v->iov_len;
	io->module_data[2] = (uintptr_t)v->iov_base + done;
	io->module_data[3] = v->iov_len - done;
}

#endif
