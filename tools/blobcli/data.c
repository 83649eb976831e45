/* SPDX-License-Identifier: BSD-2-Clause */
/* Verbs that move bytes: read, write, export; and what import does. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "tools/blobcli/verb.h"
#include "tools/common/common.h"

#define PIECE (BS_IO_MAX - BS_BLOCK)

static int fail_file(const struct cli *c, const char *path)
{
	cli_error(c, "%s: %s", path, strerror(errno));
	return EXIT_FAILED;
}

static int write_all(int fd, const uint8_t *buf, size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		buf += n;
		len -= (size_t)n;
	}
	return 0;
}

/* ---- out ---- */

struct out {
	int fd;
	const char *path;
	bool sparse; /* holes need not be written */
};

/* Are these blocks zeroes from the first on? *e ends where that changes: what the log carries is in no run. */
static bool is_zeroes(struct bs_blob *blob, uint64_t block, uint64_t max, struct bs_extent *e)
{
	struct bs_carried_range r;
	bool zeroes;

	bs_map_lookup(blob, block, max, e);
	zeroes = e->flags & (BS_RUN_HOLE | BS_RUN_UNWRITTEN);
	if (!zeroes || !bs_carried_next(blob, block, e->count, &r))
		return zeroes;
	zeroes = r.block > block;
	e->count = zeroes ? r.block - block : 1;
	return zeroes;
}

/* One piece that ends with its run or hole; *n: how long it is. */
static int copy_piece(struct cli *c, struct bs_blob *blob, const struct out *out, uint64_t at, uint64_t end, uint64_t *n)
{
	struct bs_extent e;
	bool zeroes = is_zeroes(blob, at / BS_BLOCK, div_round_up(end, BS_BLOCK) - at / BS_BLOCK, &e);
	int skip;

	*n = MIN(end, (e.block + e.count) * BS_BLOCK) - at;
	if (zeroes && out->sparse)
		return lseek(out->fd, (off_t)*n, SEEK_CUR) < 0 ? fail_file(c, out->path) : EXIT_OK;
	*n = MIN(*n, PIECE);
	skip = cli_pread(c, blob, at, (uint32_t)*n);
	if (skip < 0)
		return cli_fail(c, bs_blob_id(blob), skip);
	return write_all(out->fd, c->buf + skip, (size_t)*n) ? fail_file(c, out->path) : EXIT_OK;
}

static int copy_out(struct cli *c, struct bs_blob *blob, const struct out *out, uint64_t at, uint64_t end)
{
	int rc = EXIT_OK;

	while (at < end && !rc) {
		uint64_t n;

		rc = copy_piece(c, blob, out, at, end, &n);
		at += n;
	}
	return rc;
}

int verb_read(struct cli *c, int argc, char **argv)
{
	const struct out out = { .fd = STDOUT_FILENO, .path = "standard output" };
	uint64_t at = 0, len = UINT64_MAX;
	struct bs_blob_info info;
	struct bs_blob *blob;
	int rc = EXIT_OK;

	if ((argc > 1 && tool_size("offset", argv[1], &at)) || (argc > 2 && tool_size("length", argv[2], &len)))
		return EXIT_USAGE;
	blob = cli_blob(c, argv[0]);
	if (!blob)
		return EXIT_FAILED;
	bs_blob_get_info(blob, &info);
	if (fflush(stdout))
		rc = fail_file(c, out.path);
	if (!rc && at < info.size)
		rc = copy_out(c, blob, &out, at, at + MIN(len, info.size - at));
	bs_blob_put(blob);
	return rc;
}

/* The device itself, by another name perhaps: writing there would be the end of the store. */
static bool is_device(const struct cli *c, const struct stat *st)
{
	struct stat dev;

	if (!tool_is_path(c->device) || stat(c->device, &dev))
		return false;
	return (dev.st_dev == st->st_dev && dev.st_ino == st->st_ino) || (S_ISBLK(st->st_mode) && dev.st_rdev == st->st_rdev);
}

static int open_target(const struct cli *c, const char *path, struct out *out)
{
	struct stat st;

	*out = (struct out){ .fd = STDOUT_FILENO, .path = path };
	if (strcmp(path, "-") == 0)
		return EXIT_OK;
	if (stat(path, &st) == 0 && is_device(c, &st)) {
		cli_error(c, "%s is the device that the store is on", path);
		return EXIT_FAILED;
	}
	out->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (out->fd < 0 || fstat(out->fd, &st))
		return fail_file(c, path);
	out->sparse = S_ISREG(st.st_mode);
	return EXIT_OK;
}

int verb_export(struct cli *c, int argc, char **argv)
{
	struct bs_blob *blob = cli_blob(c, argv[0]);
	struct bs_blob_info info;
	struct out out;
	int rc;

	(void)argc;
	if (!blob)
		return EXIT_FAILED;
	bs_blob_get_info(blob, &info);
	rc = fflush(stdout) ? fail_file(c, "standard output") : open_target(c, argv[1], &out);
	if (rc) {
		bs_blob_put(blob);
		return rc;
	}
	rc = copy_out(c, blob, &out, 0, info.size);
	if (!rc && out.sparse && ftruncate(out.fd, (off_t)info.size))
		rc = fail_file(c, out.path);
	if (out.fd != STDOUT_FILENO && close(out.fd) && !rc)
		rc = fail_file(c, out.path);
	bs_blob_put(blob);
	return rc;
}

/* ---- in ---- */

int cli_open_source(const struct cli *c, const char *path)
{
	struct stat st;
	int fd = STDIN_FILENO;

	if (strcmp(path, "-") == 0 && c->shell) {
		cli_error(c, "standard input holds the commands: name a file");
		return -1;
	}
	if (strcmp(path, "-"))
		fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st)) {
		fail_file(c, path);
		return -1;
	}
	if (!S_ISDIR(st.st_mode) && !is_device(c, &st))
		return fd;
	cli_error(c, S_ISDIR(st.st_mode) ? "%s is a directory" : "%s is the device that the store is on", path);
	cli_close_file(fd);
	return -1;
}

void cli_close_file(int fd)
{
	if (fd != STDIN_FILENO)
		close(fd);
}

/* How many bytes, 0 at the end, -1. */
static ssize_t fill(int fd, uint8_t *buf, size_t len)
{
	size_t n = 0;

	while (n < len) {
		ssize_t got = read(fd, buf + n, len - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (!got)
			break;
		n += (size_t)got;
	}
	return (ssize_t)n;
}

/* The next data of a file that has holes: where it begins, and in *end where it ends at the latest. */
static uint64_t next_data(int fd, uint64_t at, uint64_t size, uint64_t *end)
{
	off_t from = lseek(fd, (off_t)at, SEEK_DATA), to;

	*end = size;
	if (from < 0 && errno == ENXIO)
		return size; /* nothing but a hole */
	from = from < 0 ? (off_t)at : from;
	to = lseek(fd, from, SEEK_HOLE);
	if (to > from)
		*end = MIN(size, (uint64_t)to);
	lseek(fd, from, SEEK_SET);
	return (uint64_t)from;
}

static int write_bytes(struct cli *c, struct bs_blob *blob, const uint8_t *buf, uint64_t at, uint64_t n)
{
	struct bs_blob_info info;
	int rc = 0;

	if (n > CLI_SIZE_MAX || at > CLI_SIZE_MAX - n)
		return -EFBIG;
	bs_blob_get_info(blob, &info);
	if (info.sealed)
		return -EROFS;
	if (at + n > info.size && n)
		rc = cli_resize(c, blob, at + n);
	return rc ? rc : cli_pwrite(c, blob, buf, at, n);
}

/* A regular file's holes stay holes: the blob's size is set first. */
static int copy_sparse(struct cli *c, struct bs_blob *blob, int fd, uint8_t *buf, const char *path, uint64_t size)
{
	int rc = cli_resize(c, blob, size);
	uint64_t end;

	for (uint64_t at = next_data(fd, 0, size, &end); at < size && !rc; at = next_data(fd, at, size, &end)) {
		ssize_t n = fill(fd, buf, (size_t)MIN(PIECE, end - at));

		if (n < 0)
			return fail_file(c, path);
		if (!n)
			break; /* it has become shorter */
		rc = cli_pwrite(c, blob, buf, at, (uint64_t)n);
		at += (uint64_t)n;
	}
	return rc ? cli_fail(c, bs_blob_id(blob), rc) : EXIT_OK;
}

static int copy_stream(struct cli *c, struct bs_blob *blob, int fd, uint8_t *buf, const char *path, uint64_t to)
{
	ssize_t n = 0;
	int rc = 0;

	while (!rc && (n = fill(fd, buf, PIECE)) > 0) {
		rc = write_bytes(c, blob, buf, to, (uint64_t)n);
		to += (uint64_t)n;
	}
	if (n < 0)
		return fail_file(c, path);
	return rc ? cli_fail(c, bs_blob_id(blob), rc) : EXIT_OK;
}

int cli_copy_in(struct cli *c, struct bs_blob *blob, int fd, const char *path, uint64_t at, bool fresh)
{
	uint8_t *buf = malloc(PIECE);
	struct stat st;
	int rc;

	if (!buf || fstat(fd, &st)) {
		free(buf);
		return fail_file(c, path);
	}
	if (fresh && S_ISREG(st.st_mode) && lseek(fd, 0, SEEK_CUR) == 0)
		rc = copy_sparse(c, blob, fd, buf, path, (uint64_t)st.st_size);
	else
		rc = copy_stream(c, blob, fd, buf, path, at);
	free(buf);
	if (!rc) {
		rc = bs_commit(c->bs, 0);
		rc = rc ? cli_fail(c, bs_blob_id(blob), rc) : EXIT_OK;
	}
	return rc;
}

static int write_text(struct cli *c, struct bs_blob *blob, const char *text, uint64_t at)
{
	int rc = write_bytes(c, blob, (const uint8_t *)text, at, strlen(text));

	if (!rc)
		rc = bs_commit(c->bs, 0);
	return rc ? cli_fail(c, bs_blob_id(blob), rc) : EXIT_OK;
}

int verb_write(struct cli *c, int argc, char **argv)
{
	struct bs_blob *blob;
	uint64_t at;
	int rc;

	if (tool_size("offset", argv[1], &at))
		return EXIT_USAGE;
	if (argc < 3 && c->shell) {
		cli_error(c, "write: standard input holds the commands: give the text");
		return EXIT_USAGE;
	}
	blob = cli_blob(c, argv[0]);
	if (!blob)
		return EXIT_FAILED;
	rc = argc > 2 ? write_text(c, blob, argv[2], at) : cli_copy_in(c, blob, STDIN_FILENO, "standard input", at, false);
	bs_blob_put(blob);
	return rc;
}
