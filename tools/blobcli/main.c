/* SPDX-License-Identifier: BSD-2-Clause */
/* blobcli: works on the blobs of a store, whatever is built on them. */
#include <stdio.h>
#include <string.h>

#include "config.h"
#include "tools/blobcli/verb.h"
#include "tools/common/common.h"

/* Does this command write? What is no verb is opened for reading and refused there. */
static bool wants_to_write(int n, char **word)
{
	int used;
	const struct verb *v = n ? cli_find(n, word, &used) : NULL;

	return !n || (v && v->writes);
}

static int one_store(struct cli *c, const struct options *opt, int n, char **word)
{
	int used, rc, closed;

	if (n && strcmp(word[0], "init") == 0)
		return cli_init(c, opt, n - 1, word + 1);
	if (n && !cli_find(n, word, &used))
		return cli_run(c, n, word); /* says so */
	rc = cli_open(c, opt, wants_to_write(n, word));
	if (rc)
		return rc;
	c->json = opt->json;
	rc = n ? cli_run(c, n, word) : cli_shell(c);
	closed = cli_close(c);
	if (tool_flush_stdout())
		return EXIT_FAILED;
	return rc ? rc : closed;
}

int main(int argc, char **argv)
{
	struct options opt = { false, false, false, false, false };
	struct cli c = { .device = NULL };
	int n = argc - 1, rc;

	tool_name = "blobcli";
	rc = cli_options(&c, argv + 1, &n, &opt);
	if (rc) {
		fprintf(stderr, "Try 'blobcli --help'.\n");
		return rc;
	}
	if (opt.version) {
		printf("blobcli %s\n", BLOBFS_VERSION);
		return EXIT_OK;
	}
	if (opt.help || (n && strcmp(argv[1], "help") == 0)) {
		rc = cli_help(&c, opt.help ? 0 : n - 1, argv + 2);
		return tool_flush_stdout() ? EXIT_FAILED : rc;
	}
	if (!n) {
		tool_error("no device given");
		fprintf(stderr, "Try 'blobcli --help'.\n");
		return EXIT_USAGE;
	}
	c.device = argv[1];
	return one_store(&c, &opt, n - 1, argv + 2);
}
