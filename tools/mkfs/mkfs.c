/* SPDX-License-Identifier: BSD-2-Clause */
/* mkfs.blobfs: makes a BlobFS file system on a device or in an image file. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
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
		    "  -f           overwrite what is there (never a device in use)\n"
		    "  -n           say what would be done, write nothing\n"
		    "  -q           print only errors\n"
		    "  -V, --version\n"
		    "  -h, --help\n");
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
		snprintf(rq->format.label, sizeof(rq->format.label), "%s", optarg);
		return 0;
	case 'U':
		if (uuid_parse(optarg, rq->format.uuid) == 0 && !uuid_is_null(rq->format.uuid))
			return 0;
		tool_error("'%s' is not a UUID: write it as 8-4-4-4-12 hexadecimal digits", optarg);
		return EXIT_USAGE;
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

	while ((opt = getopt_long(argc, argv, "fL:U:c:s:nqhV", longs, NULL)) != -1) {
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
	return -1;
}

/* Everything that can be found out without writing. */
static int look_first(const struct request *rq)
{
	char what[256];
	struct stat st;
	int rc;

	if (!tool_is_path(rq->device))
		return 0;
	if (stat(rq->device, &st)) {
		if (errno == ENOENT && rq->size)
			return 0;
		tool_error("%s: %s%s", rq->device, strerror(errno),
			   errno == ENOENT ? " (give -s SIZE to make an image file)" : "");
		return EXIT_OPERATION;
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		tool_error("%s is %s: give an image file or a block device", rq->device,
			   S_ISDIR(st.st_mode) ? "a directory" : "neither a file nor a block device");
		return EXIT_OPERATION;
	}
	if (S_ISBLK(st.st_mode) && rq->size) {
		tool_error("%s is a block device: -s is for image files", rq->device);
		return EXIT_USAGE;
	}
	if (tool_in_use(rq->device, what, sizeof(what))) {
		tool_error("%s is in use: %s", rq->device, what);
		return EXIT_OPERATION;
	}
	rc = tool_probe(rq->device, what, sizeof(what));
	if (rc < 0) {
		tool_error("%s: cannot look for file systems: %s", rq->device, strerror(-rc));
		return EXIT_OPERATION;
	}
	if (rc > 0 && !rq->force) {
		tool_error("%s holds %s; use -f to overwrite it", rq->device, what);
		return EXIT_OPERATION;
	}
	if (S_ISREG(st.st_mode) && !rq->size && (uint64_t)st.st_size < BS_MIN_SIZE) {
		tool_error("%s has %lld bytes: a file system needs at least %uM (give -s SIZE)", rq->device,
			   (long long)st.st_size, BS_MIN_SIZE >> 20);
		return EXIT_OPERATION;
	}
	return 0;
}

static void report(const struct request *rq, uint64_t size, bool done)
{
	char uuid[37], text[32];

	uuid_unparse(rq->format.uuid, uuid);
	printf("%s %s: %s, clusters of %u KiB\n", done ? "Made BlobFS on" : "Would make BlobFS on", rq->device,
	       base_format_size(size, text, sizeof(text)), rq->format.cluster_size / 1024);
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

	if (tool_is_path(rq->device) && rq->force) {
		rc = tool_wipe(rq->device);
		if (rc && rc != -ENOENT) {
			tool_error("%s: cannot remove old signatures: %s", rq->device, strerror(-rc));
			return rc;
		}
	}
	rc = bdev_open(rq->device, &opts, &dev, &err);
	if (rc) {
		tool_error("%s", base_err_text(&err, rc));
		return rc;
	}
	*size = bdev_info(dev)->size;
	rc = bfs_format(dev, &rq->format, &err);
	if (rc)
		tool_error("%s", base_err_text(&err, rc));
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

int main(int argc, char **argv)
{
	struct request rq = { .format = { .size = sizeof(rq.format) } };
	struct stat st;
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
	if (!rq.dry_run)
		return prepare_and_make(&rq);
	if (!rq.size && tool_is_path(rq.device) && image_device_size(rq.device, &rq.size))
		rq.size = stat(rq.device, &st) ? 0 : (uint64_t)st.st_size;
	if (!rq.size && strncmp(rq.device, "ram:", 4) == 0 && tool_size("size", rq.device + 4, &rq.size))
		return EXIT_USAGE;
	report(&rq, rq.size, false);
	return tool_flush_stdout() ? EXIT_OPERATION : EXIT_OK;
}
