/* SPDX-License-Identifier: BSD-2-Clause */
/* blobfs-nvme: NVMe controllers as the driver sees them. */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <string.h>

#include "base/util.h"
#include "config.h"
#include "tools/common/common.h"
#include "tools/nvme/verb.h"

static const struct verb *const verbs[] = {
	&verb_list, &verb_identify, &verb_smart, &verb_errors, &verb_perf,
};

static void usage(FILE *to)
{
	fprintf(to,
		"Usage: blobfs-nvme VERB [options] [DEVICE]\n"
		"Looks at NVMe controllers, and measures devices.\n"
		"DEVICE is nvme:vfio-user:SOCKET[/NSID] or nvme:ADDRESS[/NSID], as in nvme:0000:01:00.0;\n"
		"perf takes files and block devices, too.\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		fprintf(to, "  %-9s %s\n", verbs[i]->name, verbs[i]->summary);
	fprintf(to, "\n'blobfs-nvme help VERB' tells more.\n");
}

static const struct verb *find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(verbs[i]->name, name) == 0)
			return verbs[i];
	return NULL;
}

int verb_help(const struct verb *v)
{
	printf("Usage: blobfs-nvme %s %s\n%s.\n", v->name, v->args, v->summary);
	if (v->options)
		printf("\n%s", v->options);
	return EXIT_OK;
}

int usage_error(const struct verb *v, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (*text)
		tool_error("%s: %s", v->name, text);
	fprintf(stderr, "Try 'blobfs-nvme help %s'.\n", v->name);
	return EXIT_USAGE;
}

int parse_device(const struct verb *v, int argc, char **argv, const char **device, bool *json)
{
	static const struct option longs[] = { { "json", no_argument, NULL, 'j' },
					       { "help", no_argument, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	int c;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (c == 'h')
			return verb_help(v);
		if (c != 'j')
			return usage_error(v, "%s", "");
		*json = true;
	}
	if (optind != argc - 1)
		return usage_error(v, optind == argc ? "no device given" : "too many arguments");
	*device = argv[optind];
	return -1;
}

static int help(const char *name)
{
	const struct verb *v = name ? find(name) : NULL;

	if (v)
		return verb_help(v);
	if (name) {
		tool_error("no verb '%s'; 'blobfs-nvme help' lists them", name);
		return EXIT_USAGE;
	}
	usage(stdout);
	return EXIT_OK;
}

int main(int argc, char **argv)
{
	static char name[64];
	const struct verb *v;
	int rc;

	tool_name = "blobfs-nvme";
	if (argc < 2) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return help(argc > 2 ? argv[2] : NULL);
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		printf("blobfs-nvme %s\n", BLOBFS_VERSION);
		return EXIT_OK;
	}
	v = find(argv[1]);
	if (!v) {
		tool_error("no verb '%s'; 'blobfs-nvme help' lists them", argv[1]);
		return EXIT_USAGE;
	}
	snprintf(name, sizeof(name), "blobfs-nvme %s", v->name);
	argv[1] = name;
	rc = v->run(argc - 1, argv + 1);
	return tool_flush_stdout() ? EXIT_FAILED : rc;
}
