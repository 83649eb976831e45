/* SPDX-License-Identifier: BSD-2-Clause */
/* mkfs.blobfs: makes a BlobFS file system on a device or in an image file. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "base/util.h"
#include "blobfs/blobfs.h"
#include "config.h"
#include "tools/common/common.h"
#include "tools/common/probe.h"
#include "tools/mkfs/image.h"

enum { EXIT_OK = 0, EXIT_OPERATION = 8, EXIT_USAGE = 16 };
enum { OPT_PREWRITE = 256, OPT_HELP };

struct request {
	const char *device;
	struct bfs_format_opts format;
	uint64_t size; /* -s; 0: as it is */
	bool force, dry_run, quiet, prewrite;
};

static void usage(FILE *to)
{
	fprintf(to, "Usage: mkfs.blobfs [options] DEVICE\n"
		    "Makes a BlobFS file system on DEVICE: an image file, /dev/…, or ram:SIZE.\n\n"
		    "  -s SIZE      make or resize the image file to SIZE (4096, 64K, 1.5G)\n"
		    "      --prewrite  write the whole device once, so that no block is sparse\n"
		    "  -c SIZE      cluster size: 4K to 64K, a power of two (16K)\n"
		    "  -L LABEL     label, at most 63 bytes\n"
		    "  -U UUID      this UUID instead of a random one\n"
		    "  -O FEATURES  datasum: checksums of data, verified at every read (^datasum: none)\n"
		    "  -f           overwrite what is there (never a device in use)\n"
		    "  -n           say what would be done, write nothing\n"
		    "  -q           print only errors\n"
		    "  -V, --version\n"
		    "  -h, --help\n");
}

/* "datasum", "^datasum", by commas. */
static int parse_features(struct request *rq, const char *list)
{
	while (*list) {
		bool off = *list == '^';
		const char *name = list + off;
		size_t n = strcspn(name, ",");

		if (n != strlen("datasum") || strncmp(name, "datasum", n)) {
			tool_error("no feature '%.*s': there is datasum, and ^datasum", (int)n, name);
			return EXIT_USAGE;
		}
		rq->format.store_flags = off ? rq->format.store_flags & ~(uint32_t)BS_FORMAT_SUMS :
					       rq->format.store_flags | BS_FORMAT_SUMS;
		list = name + n + (name[n] == ',');
	}
	return 0;
}

static int parse_option(struct request *rq, int opt)
{
	uint64_t v;

	switch (opt) {
	case 'f': rq->force = true; return 0;
	case 'n': rq->dry_run = true; return 0;
	case 'q': rq->quiet = true; return 0;
	case OPT_PREWRITE: rq->prewrite = true; return 0;
	case 'L':
		if (strlen(optarg) >= sizeof(rq->format.label)) {
			tool_error("label '%s' is longer than 63 bytes", optarg);
			return EXIT_USAGE;
		}
		for (const char *p = optarg; *p; p++) {
			if (iscntrl((unsigned char)*p)) {
				tool_error("the label has a control character in it");
				return EXIT_USAGE;
			}
		}
		snprintf(rq->format.label, sizeof(rq->format.label), "%s", optarg);
		return 0;
	case 'U':
		if (uuid_parse(optarg, rq->format.uuid) == 0 && !uuid_is_null(rq->format.uuid))
			return 0;
		tool_error("'%s' is not a UUID: write it as 8-4-4-4-12 hexadecimal digits", optarg);
		return EXIT_USAGE;
	case 'O':
		return parse_features(rq, optarg);
	case 'c':
		if (tool_size("cluster size", optarg, &v))
			return EXIT_USAGE;
		if (v < 4096 || v > 65536 || !is_pow2(v)) {
			tool_error("cluster size %s is not a power of two from 4K to 64K", optarg);
			return EXIT_USAGE;
		}
		rq->format.cluster_size = (uint32_t)v;
		return 0;
	case 's':
		if (tool_size("size", optarg, &rq->size))
			return EXIT_USAGE;
		if (rq->size < BS_MIN_SIZE) {
			tool_error("size %s is too small: a file system needs at least %uM", optarg,
				   BS_MIN_SIZE >> 20);
			return EXIT_USAGE;
		}
		rq->size = round_down(rq->size, BS_BLOCK);
		return 0;
	default:
		fprintf(stderr, "Try 'mkfs.blobfs --help'.\n");
		return EXIT_USAGE;
	}
}

/* -1: go on; else the exit code. */
static int parse(struct request *rq, int argc, char **argv)
{
	static const struct option longs[] = { { "prewrite", no_argument, NULL, OPT_PREWRITE },
					       { "help", no_argument, NULL, 'h' },
					       { "version", no_argument, NULL, 'V' },
					       { NULL, 0, NULL, 0 } };
	int opt, rc;

	while ((opt = getopt_long(argc, argv, "fL:U:c:O:s:nqhV", longs, NULL)) != -1) {
		if (opt == 'h') {
			usage(stdout);
			return EXIT_OK;
		}
		if (opt == 'V') {
			printf("mkfs.blobfs %s\n", BLOBFS_VERSION);
			return EXIT_OK;
		}
		rc = parse_option(rq, opt);
		if (rc)
			return rc;
	}
	if (argc - optind != 1) {
		tool_error(argc == optind ? "no device given" : "only one device can be given ('%s' is too much)",
			   argc == optind ? "" : argv[optind + 1]);
		fprintf(stderr, "Try 'mkfs.blobfs --help'.\n");
		return EXIT_USAGE;
	}
	rq->device = argv[optind];
	if (!tool_is_path(rq->device) && (rq->size || rq->prewrite)) {
		tool_error("%s is no file: %s is not for it", rq->device, rq->size ? "-s" : "--prewrite");
		return EXIT_USAGE;
	}
	return -1;
}

/* A file that is not there yet: can it be made? */
static int look_for_place(const struct request *rq)
{
	char *copy = strdup(rq->device);
	int rc = 0;

	if (!rq->size) {
		tool_error("%s: %s (give -s SIZE to make an image file)", rq->device, strerror(ENOENT));
		rc = EXIT_OPERATION;
	} else if (!copy || access(dirname(copy), W_OK | X_OK)) {
		tool_error("%s: cannot be made: %s", rq->device, strerror(errno));
		rc = EXIT_OPERATION;
	}
	free(copy);
	return rc;
}

static int look_at_kind(const struct request *rq, const struct stat *st)
{
	if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode)) {
		tool_error("%s is %s: give an image file or a block device", rq->device,
			   S_ISDIR(st->st_mode) ? "a directory" : "neither a file nor a block device");
		return EXIT_OPERATION;
	}
	if (S_ISBLK(st->st_mode) && rq->size) {
		tool_error("%s is a block device: -s is for image files", rq->device);
		return EXIT_USAGE;
	}
	if (access(rq->device, R_OK | W_OK)) {
		tool_error("%s: %s", rq->device, strerror(errno));
		return EXIT_OPERATION;
	}
	return 0;
}

/* Says what must not be overwritten, or that it cannot be told; rc: tool_probe's. */
static int judge_content(const struct request *rq, const char *what, const struct base_err *err, int rc)
{
	if (rc < 0) {
		tool_error_of(rq->device, base_err_text(err, rc));
		return EXIT_OPERATION;
	}
	if (rc > 0 && !rq->force) {
		tool_error("%s holds %s; use -f to overwrite it", rq->device, what);
		return EXIT_OPERATION;
	}
	return 0;
}

/* Everything that can be found out without writing. */
static int look_first(const struct request *rq)
{
	struct base_err err = { "" };
	char what[PATH_MAX + 64];
	struct stat st;
	uint64_t size;
	int rc;

	if (strncmp(rq->device, "ram:", 4) == 0)
		return 0;
	if (!tool_is_path(rq->device)) {
		rc = tool_probe_any(rq->device, what, sizeof(what), &err);
		return judge_content(rq, what, &err, rc);
	}
	if (stat(rq->device, &st)) {
		if (errno == ENOENT)
			return look_for_place(rq);
		tool_error("%s: %s", rq->device, strerror(errno));
		return EXIT_OPERATION;
	}
	rc = look_at_kind(rq, &st);
	if (rc)
		return rc;
	if (tool_in_use(rq->device, TOOL_WRITE, what, sizeof(what))) {
		tool_error("%s is in use: %s", rq->device, what);
		return EXIT_OPERATION;
	}
	rc = tool_probe_any(rq->device, what, sizeof(what), &err);
	rc = judge_content(rq, what, &err, rc);
	if (rc)
		return rc;
	rc = image_device_size(rq->device, &size);
	if (rc == 0 && !rq->size && size < BS_MIN_SIZE) {
		tool_error("%s has %llu bytes: a file system needs at least %uM%s", rq->device, (unsigned long long)size,
			   BS_MIN_SIZE >> 20, S_ISREG(st.st_mode) ? " (give -s SIZE)" : "");
		return EXIT_OPERATION;
	}
	return 0;
}

static void report(const struct request *rq, uint64_t size, bool done)
{
	char uuid[37], text[32];

	uuid_unparse(rq->format.uuid, uuid);
	printf("%s %s: %s, %llu blocks of %u bytes, clusters of %u KiB\n",
	       done ? "Made BlobFS on" : "Would make BlobFS on", rq->device, base_format_size(size, text, sizeof(text)),
	       (unsigned long long)(size / BS_BLOCK), BS_BLOCK, rq->format.cluster_size / 1024);
	printf("UUID %s%s%s\n", uuid, rq->format.label[0] ? ", label " : "", rq->format.label);
	if (done && strncmp(rq->device, "ram:", 4) == 0)
		printf("It was memory of this program and is gone now.\n");
}

static int make(const struct request *rq, uint64_t *size)
{
	struct bdev_opts opts = { .size = sizeof(opts) };
	struct base_err err = { "" };
	struct bdev *dev;
	int rc;

	rc = bdev_open(rq->device, &opts, &dev, &err);
	if (rc) {
		tool_error("%s", base_err_text(&err, rc));
		return rc;
	}
	*size = bdev_info(dev)->size;
	/* Only now, as nobody else can have it open any more. */
	if (rq->force && strncmp(rq->device, "ram:", 4))
		rc = tool_wipe_any(rq->device, dev);
	if (rc) {
		tool_error("%s: cannot remove old signatures: %s", rq->device, strerror(-rc));
	} else {
		rc = bfs_format(dev, &rq->format, &err);
		if (rc)
			tool_error("%s", base_err_text(&err, rc));
	}
	bdev_close(dev);
	return rc;
}

static int prepare_and_make(const struct request *rq)
{
	struct image_change change;
	uint64_t size = 0;
	int rc = image_prepare(rq->device, rq->size, rq->prewrite, rq->quiet, &change);

	if (rc == 0)
		rc = make(rq, &size);
	if (rc) {
		image_undo(rq->device, &change);
		return EXIT_OPERATION;
	}
	if (!rq->quiet)
		report(rq, size, true);
	return tool_flush_stdout() ? EXIT_OPERATION : EXIT_OK;
}

/* -n */
static int say_what(const struct request *rq)
{
	struct base_err err = { "" };
	uint64_t size = rq->size;
	struct bdev *dev;
	int rc = 0;

	if (!tool_is_path(rq->device)) {
		rc = bdev_open(rq->device, NULL, &dev, &err);
		if (rc == 0) {
			size = bdev_info(dev)->size;
			bdev_close(dev);
			if (size < BS_MIN_SIZE)
				rc = base_err_set(&err, -EINVAL, "%s has %llu bytes: a file system needs at least %uM",
						  rq->device, (unsigned long long)size, BS_MIN_SIZE >> 20);
		}
	} else if (!size) {
		rc = image_device_size(rq->device, &size);
	}
	if (rc) {
		tool_error("%s", base_err_text(&err, rc));
		return EXIT_OPERATION;
	}
	report(rq, size, false);
	return tool_flush_stdout() ? EXIT_OPERATION : EXIT_OK;
}

int main(int argc, char **argv)
{
	struct request rq = { .format = { .size = sizeof(rq.format) } };
	int rc;

	tool_name = "mkfs.blobfs";
	rc = parse(&rq, argc, argv);
	if (rc >= 0)
		return rc;
	rc = look_first(&rq);
	if (rc)
		return rc;
	if (!rq.format.cluster_size)
		rq.format.cluster_size = 16384;
	if (uuid_is_null(rq.format.uuid))
		uuid_generate(rq.format.uuid);
	return rq.dry_run ? say_what(&rq) : prepare_and_make(&rq);
}
