/* SPDX-License-Identifier: BSD-2-Clause */
/* fsck.blobfs: checks a BlobFS file system, and repairs it. What it did is checked again before it says so. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "base/util.h"
#include "blobfs/blobfs.h"
#include "config.h"
#include "tools/common/common.h"
#include "tools/common/kinds.h"

/* fsck(8) */
enum {
	EXIT_CLEAN = 0, EXIT_CORRECTED = 1, EXIT_UNCORRECTED = 4, EXIT_OPERATION = 8, EXIT_USAGE = 16, EXIT_CANCELLED = 32
};

struct request {
	const char *device;
	enum { ASK, NO, PREEN, YES } mode;
	bool force, verbose, json, rebuild;
	struct json_object *problems, *repairs; /* --json: arrays */
	struct kinds found, repaired;
	uint64_t mendable;            /* problems that mounting puts right */
	uint64_t safe;                /* those, and others that are put right without losing anything */
	const char *pass;             /* last shown */
};

static void usage(FILE *to)
{
	fprintf(to, "Usage: fsck.blobfs [options] DEVICE\n"
		    "Checks the BlobFS file system on DEVICE, which must not be in use.\n\n"
		    "  -n   write nothing; the log is replayed in memory only (the default)\n"
		    "  -p   for boot: a file system closed in order is not looked at further; one that was not\n"
		    "       is checked and its log is replayed on the device\n"
		    "       and what can be repaired without losing anything is\n"
		    "  -y   check, and repair everything: what is damaged is dropped, what lost its name goes to /lost+found\n"
		    "      --rebuild  as -y; if both superblocks are lost, the device is searched for what tells of the store\n"
		    "  -f   with -p: check even if it was closed in order\n"
		    "  -v   say what is being done, and show every problem: else 20 of a kind and how many more there are\n"
		    "      --json   report as JSON\n"
		    "  -V, --version\n"
		    "  -h, --help\n\n"
		    "Exit: 0 clean, 1 log replayed or everything repaired, 4 damage left uncorrected, 8 could not check, 16 usage,\n"
		    "32 cancelled.\n");
}

static int parse(struct request *rq, int argc, char **argv)
{
	static const struct option longs[] = { { "json", no_argument, NULL, 'j' },
					       { "help", no_argument, NULL, 'h' },
					       { "rebuild", no_argument, NULL, 'R' },
					       { "version", no_argument, NULL, 'V' },
					       { NULL, 0, NULL, 0 } };
	int opt, modes = 0;

	while ((opt = getopt_long(argc, argv, "npayfvhVC:", longs, NULL)) != -1) {
		switch (opt) {
		case 'n': rq->mode = NO; modes++; break;
		case 'a':
		case 'p': rq->mode = PREEN; modes++; break;
		case 'y': rq->mode = YES; modes++; break;
		case 'f': rq->force = true; break;
		case 'v': rq->verbose = true; break;
		case 'j': rq->json = true; break;
		case 'R': rq->rebuild = true; break;
		case 'C': break; /* fsck(8) passes a descriptor for its progress bar */
		case 'h': usage(stdout); return EXIT_CLEAN;
		case 'V': printf("fsck.blobfs %s\n", BLOBFS_VERSION); return EXIT_CLEAN;
		default: fprintf(stderr, "Try 'fsck.blobfs --help'.\n"); return EXIT_USAGE;
		}
	}
	if (rq->rebuild && (rq->mode == NO || rq->mode == PREEN)) {
		tool_error("--rebuild repairs: it does not go with -n or -p");
		return EXIT_USAGE;
	}
	if (rq->rebuild)
		rq->mode = YES;
	if (modes > 1) {
		tool_error("only one of -n, -p and -y can be given");
		return EXIT_USAGE;
	}
	if (argc - optind != 1) {
		tool_error(argc == optind ? "no device given" : "only one device can be given");
		fprintf(stderr, "Try 'fsck.blobfs --help'.\n");
		return EXIT_USAGE;
	}
	rq->device = argv[optind];
	return -1;
}

static bool is_safe(const char *code)
{
	static const char *const safe[] = { "superblock-copy", "wrong-links", "wrong-size", "wrong-parent", "data-past-end" };

	for (unsigned i = 0; i < ARRAY_SIZE(safe); i++)
		if (strcmp(code, safe[i]) == 0)
			return true;
	return false;
}

static void tell(const struct request *rq, struct kinds *kinds, struct json_object *list, const char *verb, const struct bs_problem *p)
{
	struct json_object *o;

	if (!kinds_add(kinds, p))
		return;
	if (!rq->json) {
		printf("%s%s: %s: %s\n", verb, p->pass, p->code, p->text);
		return;
	}
	o = json_object_new_object();
	json_object_object_add(o, "pass", json_object_new_string(p->pass));
	json_object_object_add(o, "code", json_object_new_string(p->code));
	if (p->blob)
		json_object_object_add(o, "blob", json_object_new_uint64(p->blob));
	if (p->block != UINT64_MAX)
		json_object_object_add(o, "block", json_object_new_uint64(p->block));
	json_object_object_add(o, "text", json_object_new_string(p->text));
	json_object_array_add(list, o);
}

static struct json_object *count_json(const struct kinds *kinds)
{
	struct json_object *array = json_object_new_array();

	for (unsigned i = 0; i < kinds->n; i++) {
		struct json_object *o = json_object_new_object();

		json_object_object_add(o, "pass", json_object_new_string(kinds->kind[i].pass));
		json_object_object_add(o, "code", json_object_new_string(kinds->kind[i].code));
		json_object_object_add(o, "count", json_object_new_uint64(kinds->kind[i].n));
		json_object_array_add(array, o);
	}
	return array;
}

static void on_problem(const struct bs_problem *p, void *arg)
{
	struct request *rq = arg;

	/* Both copies are written at each writable mount. */
	rq->mendable += strcmp(p->code, "superblock-copy") == 0;
	rq->safe += is_safe(p->code);
	tell(rq, &rq->found, rq->problems, "", p);
}

static void on_repair(const struct bs_problem *p, void *arg)
{
	struct request *rq = arg;

	tell(rq, &rq->repaired, rq->repairs, "repair: ", p);
}

static void on_progress(const char *pass, uint64_t done, uint64_t total, void *arg)
{
	struct request *rq = arg;
	bool next = !rq->pass || strcmp(rq->pass, pass) != 0;

	if (!rq->verbose)
		return;
	if (next)
		fprintf(stderr, "%sfsck.blobfs: checking %s", rq->pass ? "\n" : "", pass);
	rq->pass = pass;
	if (total && isatty(STDERR_FILENO))
		fprintf(stderr, "\rfsck.blobfs: checking %s: %3u %%", pass, (unsigned)(done * 100 / total));
}

/* What is written may stop anywhere, as if power had failed. */
static void on_signal(int sig)
{
	static const char text[] = "\nfsck.blobfs: cancelled\n";

	(void)sig;
	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(EXIT_OPERATION);
	_exit(EXIT_CANCELLED);
}

/* It could not be checked: with --json that is said in JSON, too. */
static int cannot(const struct request *rq, const char *text)
{
	struct json_object *o;

	tool_error_of(rq->device, text);
	if (!rq->json)
		return EXIT_OPERATION;
	o = json_object_new_object();
	json_object_object_add(o, "device", json_object_new_string(rq->device));
	json_object_object_add(o, "error", json_object_new_string(text));
	json_object_object_add(o, "exit", json_object_new_int(EXIT_OPERATION));
	printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
	tool_flush_stdout();
	return EXIT_OPERATION;
}

static int open_device(const struct request *rq, uint32_t flags, struct bdev **dev)
{
	struct bdev_opts opts = { .size = sizeof(opts), .flags = flags };
	struct base_err err = { "" };
	int rc;

	rc = bdev_open(rq->device, &opts, dev, &err);
	if (rc)
		cannot(rq, base_err_text(&err, rc));
	return rc;
}

static int check(struct request *rq, struct bfs_check_result *result)
{
	struct bfs_check_opts opts = { .size = sizeof(opts), .report = on_problem, .arg = rq,
				       .progress = on_progress };
	struct base_err err = { "" };
	struct bdev *dev;
	int rc = open_device(rq, BDEV_RDONLY, &dev);

	if (rc)
		return rc;
	rc = bfs_check(dev, &opts, result, &err);
	if (rq->pass && rq->verbose)
		fputc('\n', stderr);
	if (!rq->json)
		kinds_print_rest(&rq->found, stdout, "");
	/* No superblock, or metadata that cannot be read: repair does without. */
	if ((rc == -EINVAL && rq->rebuild) || (rc == -EIO && rq->mode == YES)) {
		if (!rq->json)
			printf("%s\n", base_err_text(&err, rc));
		result->problems = 1;
		return 0;
	}
	if (rc)
		cannot(rq, base_err_text(&err, rc));
	return rc;
}

/* Repairs, and looks again: *left is what there is then. */
static int repair(struct request *rq, struct bfs_check_result *after, struct bfs_repair_result *done)
{
	struct bfs_repair_opts opts = { .size = sizeof(opts), .report = on_repair, .arg = rq };
	struct bfs_check_opts quiet = { .size = sizeof(quiet) };
	struct base_err err = { "" };
	struct bdev *dev;
	int rc = open_device(rq, 0, &dev);

	if (rc)
		return rc;
	if (rq->mode == YES)
		opts.flags = BFS_REPAIR_ALL | (rq->rebuild ? BFS_REPAIR_REBUILD : 0);
	rc = bfs_repair(dev, &opts, done, &err);
	if (!rq->json)
		kinds_print_rest(&rq->repaired, stdout, "repair: ");
	if (rc == -EUCLEAN) { /* beyond repair: that much is known */
		tool_error_of(rq->device, base_err_text(&err, rc));
		after->problems = 1;
		return 0;
	}
	if (!rc)
		rc = open_device(rq, BDEV_RDONLY, &dev);
	else
		cannot(rq, base_err_text(&err, rc));
	if (rc)
		return rc;
	rc = bfs_check(dev, &quiet, after, &err);
	if (rc)
		cannot(rq, base_err_text(&err, rc));
	return rc;
}

/* Mounting replays the log and writes the superblocks; unmounting closes the store in order. */
static int replay(const struct request *rq)
{
	struct base_err err = { "" };
	struct bfs *fs;
	int rc = bfs_mount(rq->device, NULL, &fs, &err);

	if (rc == 0)
		rc = bfs_unmount(fs);
	if (rc)
		cannot(rq, base_err_text(&err, rc));
	return rc;
}

static void report_json(struct request *rq, const struct bfs_check_result *r, bool replayed, uint64_t left, int exit_code)
{
	struct json_object *o = json_object_new_object();
	char uuid[37];

	uuid_unparse(r->uuid, uuid);
	json_object_object_add(o, "device", json_object_new_string(rq->device));
	json_object_object_add(o, "uuid", json_object_new_string(uuid));
	json_object_object_add(o, "label", json_object_new_string(r->label));
	json_object_object_add(o, "closed_in_order", json_object_new_boolean(r->clean));
	json_object_object_add(o, "replayed_records", json_object_new_uint64(r->replayed_records));
	json_object_object_add(o, "log_replayed_on_device", json_object_new_boolean(replayed));
	json_object_object_add(o, "files", json_object_new_uint64(r->files));
	json_object_object_add(o, "directories", json_object_new_uint64(r->directories));
	json_object_object_add(o, "symlinks", json_object_new_uint64(r->symlinks));
	json_object_object_add(o, "others", json_object_new_uint64(r->others));
	json_object_object_add(o, "orphans", json_object_new_uint64(r->orphans));
	json_object_object_add(o, "bytes", json_object_new_uint64(r->bytes));
	json_object_object_add(o, "used_blocks", json_object_new_uint64(r->used_blocks));
	json_object_object_add(o, "total_blocks", json_object_new_uint64(r->total_blocks));
	json_object_object_add(o, "problems", json_object_get(rq->problems));
	json_object_object_add(o, "problem_counts", count_json(&rq->found));
	json_object_object_add(o, "repairs", json_object_get(rq->repairs));
	json_object_object_add(o, "repair_counts", count_json(&rq->repaired));
	json_object_object_add(o, "left", json_object_new_uint64(left));
	json_object_object_add(o, "exit", json_object_new_int(exit_code));
	printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
}

static void report_text(const struct request *rq, const struct bfs_check_result *r, bool replayed)
{
	if (!r->clean)
		printf("%s: was not closed in order; the log (%" PRIu64 " records) was replayed%s\n", rq->device,
		       r->replayed_records, replayed ? "" : " in memory only");
	if (r->problems == rq->mendable && r->problems) {
		printf("%s: the other copy of the superblock is good; %s\n", rq->device,
		       replayed ? "both were written anew" : "-p, -y or mounting writes both anew");
		return;
	}
	if (r->problems) {
		printf("%s: %" PRIu64 " problem%s found, none corrected; 'fsck.blobfs -y' repairs, "
		       "'blobfs export --salvage' copies out what can be read\n",
		       rq->device, r->problems, r->problems == 1 ? "" : "s");
		return;
	}
	if (rq->verbose) {
		char text[32];

		printf("%s: %s in files\n", rq->device, base_format_size(r->bytes, text, sizeof(text)));
	}
	printf("%s: clean, %" PRIu64 " files, %" PRIu64 " directories, %" PRIu64 " symlinks, %" PRIu64
	       " others, %" PRIu64 "/%" PRIu64 " blocks\n",
	       rq->device, r->files, r->directories, r->symlinks, r->others, r->used_blocks, r->total_blocks);
	if (r->orphans && rq->verbose)
		printf("%s: %" PRIu64 " unlinked files were open; the next mount removes them\n", rq->device,
		       r->orphans);
}

/* -p and closed in order: nothing to do, as every boot wants it. Returns true when it said so. */
static bool skip_clean(const struct request *rq)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts), .flags = BFS_RDONLY, .cache_size = 1 * MiB };
	struct bfs_statfs sf;
	struct bs_stat st;
	struct bfs *fs;
	bool clean;

	if (rq->mode != PREEN || rq->force || rq->json || bfs_mount(rq->device, &opts, &fs, NULL))
		return false;
	bs_get_stat(bfs_store(fs), &st);
	clean = st.replayed_records == 0 && bfs_get_statfs(fs, &sf) == 0;
	if (clean)
		printf("%s: clean, %" PRIu64 " inodes, %" PRIu64 "/%" PRIu64 " blocks\n", rq->device, sf.files,
		       sf.blocks - sf.free_blocks, sf.blocks);
	bfs_unmount(fs);
	return clean;
}

static void report_repair(const struct request *rq, uint64_t found, const struct bfs_repair_result *done,
			  const struct bfs_check_result *after)
{
	printf("%s: %" PRIu64 " problem%s found, %" PRIu64 " repair%s made, ", rq->device, found, found == 1 ? "" : "s", done->repairs,
	       done->repairs == 1 ? "" : "s");
	if (done->lost_found)
		printf("%" PRIu64 " inode%s put into /lost+found, ", done->lost_found, done->lost_found == 1 ? "" : "s");
	if (after->problems)
		printf("%" PRIu64 " left\n", after->problems);
	else
		printf("none left: %" PRIu64 " files, %" PRIu64 " directories, %" PRIu64 " symlinks, %" PRIu64 " others\n", after->files,
		       after->directories, after->symlinks, after->others);
}

/* The problems are more than mounting puts right, and may be repaired in this mode. */
static bool to_be_repaired(const struct request *rq, const struct bfs_check_result *result)
{
	if (result->problems == rq->mendable)
		return false;
	return rq->mode == YES || (rq->mode == PREEN && result->problems == rq->safe);
}

static int run_repair(struct request *rq, struct bfs_check_result *result)
{
	struct bfs_check_result after = { 0 };
	struct bfs_repair_result done = { 0 };
	int rc = repair(rq, &after, &done), code;

	if (rc)
		return EXIT_OPERATION;
	code = after.problems ? EXIT_UNCORRECTED : EXIT_CORRECTED;
	if (rq->json)
		report_json(rq, after.problems ? result : &after, true, after.problems, code);
	else
		report_repair(rq, result->problems, &done, &after);
	return code;
}

/* Checks, and does what the mode allows. */
static int run(struct request *rq)
{
	struct bfs_check_result result = { 0 };
	bool replayed = false;
	int rc = check(rq, &result);

	if (!rc && to_be_repaired(rq, &result))
		return run_repair(rq, &result);
	if (rc == 0 && result.problems == rq->mendable && (rq->mendable || !result.clean) &&
	    (rq->mode == PREEN || rq->mode == YES)) {
		rc = replay(rq);
		replayed = rc == 0;
	}
	if (rc)
		return EXIT_OPERATION;
	rc = replayed ? EXIT_CORRECTED : result.problems ? EXIT_UNCORRECTED : EXIT_CLEAN;
	if (rq->json)
		report_json(rq, &result, replayed, replayed ? 0 : result.problems, rc);
	else
		report_text(rq, &result, replayed);
	return rc;
}

int main(int argc, char **argv)
{
	struct request rq = { .mode = ASK };
	char who[PATH_MAX + 64], text[2 * PATH_MAX + 128];
	int rc;

	tool_name = "fsck.blobfs";
	rc = parse(&rq, argc, argv);
	if (rc >= 0)
		return rc;
	if (tool_in_use(rq.device, TOOL_CHECK, who, sizeof(who))) {
		snprintf(text, sizeof(text), "%s is in use: %s; unmount it first", rq.device, who);
		return cannot(&rq, text);
	}
	rq.found.all = rq.repaired.all = rq.verbose;
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	if (skip_clean(&rq))
		return EXIT_CLEAN;
	rq.problems = json_object_new_array();
	rq.repairs = json_object_new_array();
	rc = run(&rq);
	json_object_put(rq.problems);
	json_object_put(rq.repairs);
	return tool_flush_stdout() ? EXIT_OPERATION : rc;
}
