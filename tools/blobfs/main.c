/* SPDX-License-Identifier: BSD-2-Clause */
/* blobfs: works on a BlobFS device without mounting it. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "config.h"
#include "tools/blobfs/verb.h"
#include "tools/common/common.h"

static const struct verb verbs[] = {
	{ "info", "", "what the store is and what it holds, mounted or not", NULL, "", 0, 0, false, true, verb_info, NULL },
	{ "df", "", "space and inodes", "  -h   sizes for people\n", "h", 0, 0, false, true, verb_df, NULL },
	{ "ls", "[PATH…]", "list directories",
	  "  -l   mode, links, owner, size, time\n  -a   names that begin with a dot too\n"
	  "  -R   with all that lies below\n  -d   directories themselves\n  -h   sizes for people\n  -i   inode numbers\n",
	  "laRdhi", 0, -1, false, true, verb_ls, NULL },
	{ "stat", "PATH…", "everything about an inode",
	  "      --fs  of the file system instead, mounted as a rule: what was written and why, and who waited how long\n", "F", 1, -1, false, true, verb_stat, NULL },
	{ "cat", "PATH…", "files to standard output", NULL, "", 1, -1, false, false, verb_cat, NULL },
	{ "put", "SOURCE… PATH", "copy files in; SOURCE - is standard input",
	  "  -r   trees, with modes, owners, times, links and extended attributes\n  -v   say each name\n", "rv", 2, -1,
	  true, false, verb_put, NULL },
	{ "get", "PATH… TARGET", "copy files out; TARGET - is standard output",
	  "  -r   trees, with modes, owners, times, links and extended attributes\n  -v   say each name\n", "rv", 2, -1,
	  false, false, verb_get, NULL },
	{ "mkdir", "PATH…", "make directories", "  -p   parents too; no error if it is there\n", "p", 1, -1, true,
	  false, verb_mkdir, NULL },
	{ "rm", "PATH…", "remove files",
	  "  -r   directories with all that lies below\n  -f   no error if it is not there\n", "rf", 1, -1, true, false,
	  verb_rm, NULL },
	{ "mv", "PATH… TARGET", "rename, or move into a directory", "  -n   never over something that is there\n", "n",
	  2, -1, true, false, verb_mv, NULL },
	{ "snapshot", "PATH NAME", "a copy whose data cannot be changed; mounted or not", NULL, "", 2, 2, true, false, verb_snapshot, NULL },
	{ "clone", "PATH NAME", "a copy that can be changed; mounted or not", NULL, "", 2, 2, true, false, verb_clone, NULL },
	{ "rollback", "PATH NAME", "put the copy in the place of PATH; mounted or not", NULL, "", 2, 2, true, false, verb_rollback, NULL },
	{ "grow", "", "take all of a device that has grown, or of a mounted one",
	  "  -s, --size SIZE  not all of it: SIZE in the end\n", "s:", 0, 0, true, true, NULL, verb_grow },
	{ "trim", "", "tell the device what is free; mounted or not",
	  "  -o, --offset SIZE  from this byte of the device on\n  -l, --length SIZE  so much of it\n"
	  "  -m, --minimum SIZE  only extents so long\n  -v   say how much it was\n", "o:l:m:v", 0, 0, true, true, NULL, verb_trim },
	{ "export", "DIRECTORY", "copy everything out",
	  "  --salvage  also from a store too damaged to mount, which is not written to\n  -v   say each name\n", "vS", 1, 1, false,
	  false, NULL, verb_export },
	{ "scrub", "", "read everything there is; DEVICE may be a mount point",
	  "  -B, --rate BYTES  read at most so many a second (suffixes K, M, G)\nOf a mount point:\n"
	  "  -b, --background  begin, and do not wait for the end\n  -t, --status  how far it is, and what was found; or the last time\n"
	  "  -x, --stop  end it\n", "B:btx", 0, 0, false, true, NULL, verb_scrub },
	{ "dump", "[super|log|checkpoint|checksums|blob NUMBER|space|all]", "structures as they lie on the device", "  -v   with every record\n", "v", 0,
	  2, false, true, NULL, verb_dump },
	{ "metadump", "FILE", "copy a store's metadata, without data, into a file", "  --scramble  names and attributes made unreadable\n", "X", 1, 1,
	  false, false, NULL, verb_metadump },
	{ "metarestore", "FILE", "make an image of such a file", "  -f   even over what DEVICE holds\n", "f", 1, 1, true, false, NULL, verb_metarestore },
};

static void usage(FILE *to)
{
	fprintf(to, "Usage: blobfs VERB DEVICE [options] …\n"
		    "Works on a BlobFS file system that is not mounted. DEVICE is an image file, /dev/… or ram:SIZE;\n"
		    "paths inside it begin with '/'. Where it says so, DEVICE may be mounted, or be the directory.\n\n");
	for (unsigned i = 0; i < ARRAY_SIZE(verbs); i++)
		fprintf(to, "  %-11s %-16s %s\n", verbs[i].name, verbs[i].args, verbs[i].summary);
	fprintf(to, "\n  help VERB               the options of one verb\n  --version\n");
}

static const struct verb *find_verb(const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	return NULL;
}

static void verb_usage(const struct verb *v, FILE *to)
{
	fprintf(to, "Usage: blobfs %s DEVICE %s%s\n%s\n%s%s", v->name, v->options || v->json ? "[options] " : "",
		v->args, v->summary, v->options ? v->options : "", v->json ? "      --json\n" : "");
}

static int help(const char *name)
{
	const struct verb *v = name ? find_verb(name) : NULL;

	if (!name) {
		usage(stdout);
		return EXIT_OK;
	}
	if (!v) {
		tool_error("no verb '%s'; 'blobfs help' lists them", name);
		return EXIT_USAGE;
	}
	verb_usage(v, stdout);
	return EXIT_OK;
}

static int hint(const struct verb *v)
{
	fprintf(stderr, "Try 'blobfs help %s'.\n", v->name);
	return EXIT_USAGE;
}

/* Long names of the letters that a verb takes. */
static void fill_longs(const struct verb *v, struct option *out)
{
	static const struct {
		const char *name, *letters;
	} names[] = { { "salvage", "S" }, { "fs", "F" }, { "scramble", "X" }, { "size", "s:" }, { "offset", "o:" }, { "length", "l:" }, { "minimum", "m:" },
		    { "rate", "B:" }, { "background", "b" }, { "status", "t" }, { "stop", "x" } };
	struct option *o = out;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strstr(v->short_options, names[i].letters))
			*o++ = (struct option){ names[i].name, names[i].letters[1] ? required_argument : no_argument, NULL,
						names[i].letters[0] };
	*o++ = (struct option){ "help", no_argument, NULL, 256 };
	if (v->json)
		*o++ = (struct option){ "json", no_argument, NULL, 257 };
	*o = (struct option){ 0 };
}

static void set_letter(struct call *call, int opt)
{
	call->opt[opt & 127] = true;
	call->value[opt & 127] = optarg;
}

/* argv[0] is the verb. -1: go on. */
static int parse(const struct verb *v, int argc, char **argv, struct call *call)
{
	struct option longs[16];
	static char name[64];
	int opt, min, max;

	fill_longs(v, longs);
	snprintf(name, sizeof(name), "blobfs %s", v->name);
	argv[0] = name;
	while ((opt = getopt_long(argc, argv, v->short_options, longs, NULL)) != -1) {
		if (opt == 256) {
			verb_usage(v, stdout);
			return EXIT_OK;
		}
		if (opt == '?')
			return hint(v);
		if (opt == 257)
			call->json = true;
		else
			set_letter(call, opt);
	}
	call->argc = argc - optind - 1;
	call->argv = argv + optind + 1;
	min = call->opt['F'] ? 0 : v->min_args;
	max = call->opt['F'] ? 0 : v->max_args;
	if (call->argc < min || (max >= 0 && call->argc > max)) {
		tool_error("%s: %s", v->name,
			   call->argc < 0	    ? "no device given" :
			   call->argc < min ? "too few arguments" :
						      "too many arguments");
		return hint(v);
	}
	call->device = argv[optind];
	return -1;
}

/* These see for themselves whether the device is in use. */
static bool works_mounted(const struct verb *v)
{
	return v->raw == verb_grow || v->raw == verb_trim;
}

static int run(const struct verb *v, const struct call *call)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts), .flags = v->writes ? 0 : BFS_RDONLY };
	struct base_err err = { "" };
	char who[PATH_MAX + 64];
	struct bfs *fs;
	int rc, result;

	if (v->run == verb_info || call->opt['F']) {
		result = numbers_of_mount(call);
		if (result >= 0)
			return tool_flush_stdout() ? EXIT_FAILED : result;
	}
	if (v->run == verb_snapshot || v->run == verb_clone || v->run == verb_rollback) {
		result = copy_in_mount(call, v);
		if (result >= 0)
			return result;
	}
	if (!works_mounted(v) && tool_in_use(call->device, v->writes ? TOOL_WRITE : TOOL_READ, who, sizeof(who))) {
		tool_error("%s is in use: %s", call->device, who);
		return EXIT_FAILED;
	}
	if (v->raw) {
		result = v->raw(call);
		return tool_flush_stdout() ? EXIT_FAILED : result;
	}
	rc = bfs_mount(call->device, &opts, &fs, &err);
	if (rc) {
		tool_error_of(call->device, base_err_text(&err, rc));
		return EXIT_FAILED;
	}
	result = v->run(fs, call);
	rc = bfs_unmount(fs);
	if (rc) {
		tool_error("%s: %s", call->device, strerror(-rc));
		result = EXIT_FAILED;
	}
	return tool_flush_stdout() ? EXIT_FAILED : result;
}

int main(int argc, char **argv)
{
	struct call call = { 0 };
	const struct verb *v;
	int rc;

	if (argc < 2) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		return help(argc > 2 ? argv[2] : NULL);
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
		printf("blobfs %s\n", BLOBFS_VERSION);
		return EXIT_OK;
	}
	v = find_verb(argv[1]);
	if (!v) {
		tool_error("no verb '%s'; 'blobfs help' lists them", argv[1]);
		return EXIT_USAGE;
	}
	rc = parse(v, argc - 1, argv + 1, &call);
	return rc >= 0 ? rc : run(v, &call);
}
