/* SPDX-License-Identifier: BSD-2-Clause */
/* Verbs that work on a mounted file system as well as on one that is not: grow, trim. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "blobfs/control.h"
#include "tools/blobfs/verb.h"
#include "tools/common/common.h"

int live_open(const struct call *call, char *where, size_t len)
{
	struct stat st;
	bool dir = tool_is_path(call->device) && !stat(call->device, &st) && S_ISDIR(st.st_mode);
	int fd;

	if (dir)
		snprintf(where, len, "%s", call->device);
	else if (!tool_mounted_at(call->device, where, len))
		return -ENODEV;
	fd = open(where, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* The mount's descriptor; -ENODEV: the device is to be opened, and nobody has it; else it was said what is wrong. */
static int reach(const struct call *call, char *where, size_t len)
{
	char who[PATH_MAX + 64];
	int fd = live_open(call, where, len);

	if (fd >= 0)
		return fd;
	if (fd != -ENODEV) {
		verb_fail("open", where, fd);
		return -EIO;
	}
	if (!tool_in_use(call->device, TOOL_WRITE, who, sizeof(who)))
		return fd;
	tool_error("%s is in use: %s", call->device, who);
	return -EBUSY;
}

static int no_mount(const char *where, int error)
{
	tool_error(error == ENOTTY ? "%s: not in a mounted BlobFS of this version" : "%s: %s", where, strerror(error));
	return EXIT_FAILED;
}

static int size_of(const struct call *call, int letter, const char *what, uint64_t *out)
{
	return call->value[letter] ? tool_size(what, call->value[letter], out) : 0;
}

static struct bfs *mount_device(const struct call *call)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts) };
	struct base_err err = { "" };
	struct bfs *fs;
	int rc = bfs_mount(call->device, &opts, &fs, &err);

	if (!rc)
		return fs;
	tool_error_of(call->device, base_err_text(&err, rc));
	return NULL;
}

static int end_mount(const struct call *call, struct bfs *fs)
{
	int rc = bfs_unmount(fs);

	return rc ? verb_fail("close", call->device, rc) : EXIT_OK;
}

static int print_sizes(const struct call *call, const char *key, uint64_t bytes, const char *format)
{
	struct json_object *o;
	char text[32];

	if (!call->json) {
		printf(format, call->device, base_format_size(bytes, text, sizeof(text)), bytes);
		return EXIT_OK;
	}
	o = json_object_new_object();
	json_object_object_add(o, "device", json_object_new_string(call->device));
	json_object_object_add(o, key, json_object_new_uint64(bytes));
	return verb_print_json(o);
}

/* ---- grow ---- */

static int grow_device(const struct call *call, struct bfs_control_grow *g)
{
	struct bfs *fs = mount_device(call);
	struct base_err err = { "" };
	struct bs_stat st;

	if (!fs)
		return EXIT_FAILED;
	g->rc = bs_grow(bfs_store(fs), g->size, &err);
	snprintf(g->text, sizeof(g->text), "%s", g->rc ? base_err_text(&err, g->rc) : "");
	bs_get_stat(bfs_store(fs), &st);
	g->size = st.blocks * BS_BLOCK;
	return end_mount(call, fs);
}

int verb_grow(const struct call *call)
{
	struct bfs_control_grow g = { 0 };
	char where[PATH_MAX] = "";
	int fd, rc = EXIT_OK;

	if (size_of(call, 's', "size", &g.size))
		return EXIT_USAGE;
	if (call->value['s'] && !g.size) {
		tool_error("size 0 cannot be");
		return EXIT_USAGE;
	}
	fd = reach(call, where, sizeof(where));
	if (fd < 0 && fd != -ENODEV)
		return EXIT_FAILED;
	if (fd < 0)
		rc = grow_device(call, &g);
	else if (ioctl(fd, BFS_CONTROL_GROW, &g))
		rc = no_mount(where, errno);
	if (fd >= 0)
		close(fd);
	if (rc)
		return rc;
	if (g.rc) {
		tool_error_of(call->device, g.text);
		return EXIT_FAILED;
	}
	return print_sizes(call, "size", g.size, "%s: has %s (%" PRIu64 " bytes) now\n");
}

/* ---- trim ---- */

static int trim_device(const struct call *call, struct fstrim_range *r)
{
	struct bs_trim_opts opts = { .size = sizeof(opts), .offset = r->start, .length = r->len, .min_length = r->minlen };
	struct bfs *fs = mount_device(call);
	struct base_err err = { "" };
	uint64_t bytes = 0;
	int rc, end;

	if (!fs)
		return EXIT_FAILED;
	rc = bs_trim(bfs_store(fs), &opts, &bytes, &err);
	if (rc)
		tool_error_of(call->device, base_err_text(&err, rc));
	end = end_mount(call, fs);
	r->len = bytes;
	return rc ? EXIT_FAILED : end;
}

int verb_trim(const struct call *call)
{
	struct fstrim_range r = { .len = UINT64_MAX };
	uint64_t start = 0, length = UINT64_MAX, min = 0;
	char where[PATH_MAX] = "";
	int fd, rc = EXIT_OK;

	if (size_of(call, 'o', "offset", &start) || size_of(call, 'l', "length", &length) || size_of(call, 'm', "minimum", &min))
		return EXIT_USAGE;
	r.start = start;
	r.len = length;
	r.minlen = min;
	fd = reach(call, where, sizeof(where));
	if (fd < 0 && fd != -ENODEV)
		return EXIT_FAILED;
	if (!r.len)
		tool_error("length 0: nothing is trimmed");
	else if (fd < 0)
		rc = trim_device(call, &r);
	else if (ioctl(fd, FITRIM, &r))
		rc = no_mount(where, errno);
	if (fd >= 0)
		close(fd);
	if (rc || (!call->opt['v'] && !call->json))
		return rc;
	return print_sizes(call, "trimmed", r.len, "%s: %s (%" PRIu64 " bytes) trimmed\n");
}
