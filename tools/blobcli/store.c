/* SPDX-License-Identifier: BSD-2-Clause */
/* Opening a store, and making one. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/dma.h"
#include "base/util.h"
#include "tools/blobcli/verb.h"
#include "tools/common/common.h"
#include "tools/common/probe.h"

static bool is_ram(const struct cli *c)
{
	return strncmp(c->device, "ram:", 4) == 0;
}

static bool in_use(const struct cli *c, bool to_write)
{
	char who[PATH_MAX + 64];

	if (!tool_in_use(c->device, to_write ? TOOL_WRITE : TOOL_READ, who, sizeof(who)))
		return false;
	tool_error("%s is in use: %s", c->device, who);
	return true;
}

static int open_store(struct cli *c, bool to_write, struct base_err *err)
{
	struct bs_open_opts opts = { .size = sizeof(opts), .flags = to_write ? 0 : BS_RDONLY };
	struct bs_format_opts fresh = { .size = sizeof(fresh), .owner = CLI_OWNER };
	struct bdev_opts dev_opts = { .size = sizeof(dev_opts), .flags = to_write ? 0 : BDEV_RDONLY };
	struct bdev *dev;
	int rc;

	if (is_ram(c))
		opts.flags = dev_opts.flags = 0; /* nobody's yet */
	rc = bdev_open(c->device, &dev_opts, &dev, err);
	if (rc)
		return rc;
	if (is_ram(c))
		rc = bs_format(dev, &fresh, err);
	if (!rc)
		rc = bs_open(dev, &opts, &c->bs, err);
	if (rc)
		bdev_close(dev);
	c->readonly = opts.flags & BS_RDONLY;
	return rc;
}

static int reopen(struct cli *c, bool to_write)
{
	struct base_err err = { "" };
	int rc;

	if (in_use(c, to_write))
		return EXIT_FAILED;
	rc = open_store(c, to_write, &err);
	if (!rc)
		return EXIT_OK;
	tool_error_of(c->device, base_err_text(&err, rc));
	return EXIT_FAILED;
}

/* Another program's store has a meaning that we do not know. */
static bool is_ours(struct bs *bs, char *owner, size_t len)
{
	struct bs_stat st;

	bs_get_stat(bs, &st);
	snprintf(owner, len, "%.*s", (int)sizeof(st.owner), st.owner);
	for (char *p = owner; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	return !st.owner[0] || strncmp(st.owner, CLI_OWNER, sizeof(st.owner)) == 0;
}

static void explain_readonly(struct cli *c, const struct options *opt, bool ours, const char *owner)
{
	static char why[160];

	if (opt->readonly)
		snprintf(why, sizeof(why), "nothing is written with --readonly");
	else if (!ours)
		snprintf(why, sizeof(why), "this store belongs to \"%s\", whose data a change may damage; --force does it all the same", owner);
	else
		snprintf(why, sizeof(why), "the store is open for reading only");
	c->why = why;
}

/* Looked at first without writing: to open a store for writing writes to it. */
int cli_open(struct cli *c, const struct options *opt, bool to_write)
{
	char owner[20];
	bool ours;
	int rc = reopen(c, false);

	if (rc)
		return rc;
	ours = is_ours(c->bs, owner, sizeof(owner));
	if (to_write && c->readonly && !opt->readonly && (ours || opt->force)) {
		bs_close(c->bs);
		c->bs = NULL;
		rc = reopen(c, true);
		if (rc)
			return rc;
	}
	c->readonly |= opt->readonly;
	explain_readonly(c, opt, ours, owner);
	c->buf = dma_alloc(BS_IO_MAX, BS_BLOCK);
	if (c->buf)
		return EXIT_OK;
	cli_close(c);
	tool_error("%s", strerror(ENOMEM));
	return EXIT_FAILED;
}

int cli_close(struct cli *c)
{
	int rc = c->bs ? bs_close(c->bs) : 0;

	dma_free(c->buf);
	c->buf = NULL;
	c->bs = NULL;
	if (!rc)
		return EXIT_OK;
	tool_error("%s: %s", c->device, strerror(-rc));
	return EXIT_FAILED;
}

/* ---- making one ---- */

static bool is_there(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && (st.st_size || !S_ISREG(st.st_mode));
}

/* What would be lost. */
static bool holds_something(struct cli *c)
{
	struct base_err err = { "" };
	char what[256];
	int rc;

	if (tool_is_path(c->device) && !is_there(c->device))
		return false;
	rc = tool_probe_any(c->device, what, sizeof(what), &err);
	if (rc < 0)
		tool_error_of(c->device, base_err_text(&err, rc));
	else if (rc)
		tool_error("%s holds %s; --force makes a store over it", c->device, what);
	return rc != 0;
}

static int format(struct cli *c, uint64_t size, bool over, struct base_err *err)
{
	struct bdev_opts dev_opts = { .size = sizeof(dev_opts), .flags = size ? BDEV_CREATE : 0, .create_size = size };
	struct bs_format_opts opts = { .size = sizeof(opts), .owner = CLI_OWNER };
	struct bdev *dev;
	int rc = bdev_open(c->device, &dev_opts, &dev, err);

	if (rc)
		return rc;
	/* Only now, as nobody else can have it open any more. */
	if (over)
		rc = tool_wipe_any(c->device, dev);
	if (!rc)
		rc = bs_format(dev, &opts, err);
	bdev_close(dev);
	return rc;
}

static int init_size(struct cli *c, int argc, char **argv, uint64_t *size)
{
	*size = 0;
	if (argc > 1) {
		cli_error(c, "init: too many arguments");
		return EXIT_USAGE;
	}
	if (argc && tool_size("size", argv[0], size))
		return EXIT_USAGE;
	if (argc && (!tool_is_path(c->device) || is_there(c->device))) {
		cli_error(c, "%s is there already, so it has its size", c->device);
		return EXIT_USAGE;
	}
	if (argc && *size < BS_MIN_SIZE) {
		cli_error(c, "size %s is too small: a store needs at least %uM", argv[0], BS_MIN_SIZE >> 20);
		return EXIT_USAGE;
	}
	if (!argc && tool_is_path(c->device) && !is_there(c->device)) {
		cli_error(c, "%s is not there (init SIZE makes an image file)", c->device);
		return EXIT_FAILED;
	}
	*size = round_down(*size, BS_BLOCK);
	return EXIT_OK;
}

int cli_init(struct cli *c, const struct options *opt, int argc, char **argv)
{
	bool absent = tool_is_path(c->device) && access(c->device, F_OK);
	struct base_err err = { "" };
	uint64_t size;
	int rc = init_size(c, argc, argv, &size);

	if (rc)
		return rc;
	if (opt->json) {
		cli_error(c, "init: has no --json");
		return EXIT_USAGE;
	}
	if (opt->readonly) {
		cli_error(c, "init: nothing is written with --readonly");
		return EXIT_FAILED;
	}
	if (in_use(c, true) || (!opt->force && holds_something(c)))
		return EXIT_FAILED;
	rc = format(c, size, opt->force && !size, &err);
	if (!rc)
		return EXIT_OK;
	if (absent)
		unlink(c->device);
	tool_error_of(c->device, base_err_text(&err, rc));
	return EXIT_FAILED;
}
