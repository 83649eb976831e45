/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of verbs, options, and what is said of errors. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "tools/blobcli/verb.h"
#include "tools/common/common.h"

static const struct verb verbs[] = {
	{ "info", "", "what the store is and what it holds", 0, 0, false, true, verb_info },
	{ "list", "", "all blobs", 0, 0, false, true, verb_list },
	{ "show", "ID", "everything about a blob, and where its data lies", 1, 1, false, true, verb_show },
	{ "create", "[SIZE]", "a new blob; says its id", 0, 1, true, true, verb_create },
	{ "read", "ID [OFFSET [LENGTH]]", "bytes to standard output", 1, 3, false, false, verb_read },
	{ "write", "ID OFFSET [TEXT]", "TEXT, or else standard input, into a blob, which grows as needed", 2, 3, true, false, verb_write },
	{ "import", "FILE", "a new blob with a file's bytes; - is standard input; says its id", 1, 1, true, true, verb_import },
	{ "export", "ID FILE", "a blob's bytes into a file; - is standard output", 2, 2, false, false, verb_export },
	{ "resize", "ID SIZE", "cut off, or grow by zeroes", 2, 2, true, false, verb_resize },
	{ "snapshot", "ID…", "copies that cannot be changed, all of one instant; says their ids", 1, -1, true, true, verb_snapshot },
	{ "clone", "ID…", "copies that can be changed, all of one instant; says their ids", 1, -1, true, true, verb_clone },
	{ "delete", "ID…", "all or none", 1, -1, true, false, verb_delete },
	{ "xattr get", "ID NAME", "an attribute's value to standard output", 2, 2, false, true, verb_xattr_get },
	{ "xattr set", "ID NAME VALUE", "make or change an attribute", 3, 3, true, false, verb_xattr_set },
	{ "xattr list", "ID", "names of attributes", 1, 1, false, true, verb_xattr_list },
	{ "xattr remove", "ID NAME", "remove an attribute", 2, 2, true, false, verb_xattr_remove },
};

/* Works on no open store, and so is not among the others. */
static const struct verb init = { "init", "[SIZE]", "make a store; SIZE makes the image file, too", 0, 1, true, false, NULL };

const struct verb *cli_verb(unsigned i)
{
	return i < ARRAY_SIZE(verbs) ? &verbs[i] : NULL;
}

static bool begins_with(const struct verb *v, int n, char **word, int *used)
{
	const char *space = strchr(v->name, ' ');
	size_t first = space ? (size_t)(space - v->name) : strlen(v->name);

	*used = space ? 2 : 1;
	return n >= *used && strlen(word[0]) == first && memcmp(word[0], v->name, first) == 0 &&
	       (!space || strcmp(word[1], space + 1) == 0);
}

const struct verb *cli_find(int n, char **word, int *used)
{
	for (unsigned i = 0; i < ARRAY_SIZE(verbs); i++)
		if (begins_with(&verbs[i], n, word, used))
			return &verbs[i];
	return NULL;
}

void cli_error(const struct cli *c, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (c->line)
		tool_error("line %u: %s", c->line, text);
	else
		tool_error("%s", text);
}

int cli_fail(const struct cli *c, uint64_t blob, int rc)
{
	struct bs_stat st;
	const char *why = strerror(-rc);
	char who[40] = "";

	bs_get_stat(c->bs, &st);
	if (rc == -EROFS && st.frozen)
		why = "a write or flush of the device failed before, so nothing is written any more";
	else if (rc == -EROFS)
		why = "it is a snapshot: its data cannot be changed";
	else if (rc == -E2BIG)
		why = "too many pieces for one transaction";
	else if (rc == -ENOSPC)
		why = "no space left in the store";
	if (blob)
		snprintf(who, sizeof(who), "blob %" PRIu64 ": ", blob);
	cli_error(c, "%s%s", who, why);
	return EXIT_FAILED;
}

static int hint(const struct cli *c, const struct verb *v)
{
	if (c->shell)
		fprintf(stderr, "Try 'help %s'.\n", v->name);
	else
		fprintf(stderr, "Try 'blobcli help %s'.\n", v->name);
	return EXIT_USAGE;
}

static bool take_option(const char *w, struct options *opt)
{
	const struct { const char *name, *brief; bool *to; } known[] = {
		{ "--json", "", &opt->json },	  { "--force", "-f", &opt->force },	{ "--readonly", "-r", &opt->readonly },
		{ "--help", "-h", &opt->help }, { "--version", "-V", &opt->version },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (strcmp(w, known[i].name) && strcmp(w, known[i].brief))
			continue;
		*known[i].to = true;
		return true;
	}
	return false;
}

int cli_options(struct cli *c, char **word, int *n, struct options *opt)
{
	bool ended = false;
	int left = 0;

	for (int i = 0; i < *n; i++) {
		if (ended || word[i][0] != '-' || !word[i][1]) {
			word[left++] = word[i];
		} else if (strcmp(word[i], "--") == 0) {
			ended = true;
		} else if (!take_option(word[i], opt)) {
			cli_error(c, "no option '%s' (what begins with a dash and is none stands behind --)", word[i]);
			return EXIT_USAGE;
		}
	}
	*n = left;
	return 0;
}

static void print_verb(const struct verb *v)
{
	printf("  %-12s %-20s %s\n", v->name, v->args, v->summary);
}

static void print_all(const struct cli *c)
{
	if (!c->shell)
		printf("Usage: blobcli DEVICE [options] [VERB …]\n"
		       "Works on the blobs of a store. Without a verb: a shell, which takes the same verbs line by line.\n\n");
	if (!c->shell)
		print_verb(&init);
	for (unsigned i = 0; i < ARRAY_SIZE(verbs); i++)
		print_verb(&verbs[i]);
	if (c->shell)
		printf("  %-12s %-20s %s\n  %-12s %-20s %s\n", "help", "[VERB]", "this", "quit", "", "end (or end of input)");
	else
		printf("\n  -f, --force     write to a store that belongs to another program; init over something\n"
		       "  -r, --readonly  never write\n      --json      for %s\n"
		       "  -h, --help\n  -V, --version\nSizes and offsets are written 4096, 64K, 1.5G.\n",
		       "info, list, show, create, import, snapshot, clone, xattr get and list");
}

int cli_help(struct cli *c, int n, char **word)
{
	const struct verb *v;
	bool found;
	int used;

	if (!n) {
		print_all(c);
		return EXIT_OK;
	}
	v = !c->shell && strcmp(word[0], init.name) == 0 ? &init : cli_find(n, word, &used);
	found = v != NULL;
	if (v)
		print_verb(v);
	for (unsigned i = 0; !v && i < ARRAY_SIZE(verbs); i++) {
		if (strncmp(verbs[i].name, word[0], strlen(word[0])) || verbs[i].name[strlen(word[0])] != ' ')
			continue;
		print_verb(&verbs[i]); /* "xattr": all of them */
		found = true;
	}
	if (found)
		return EXIT_OK;
	cli_error(c, "no verb '%s'; help lists them", word[0]);
	return EXIT_USAGE;
}

int cli_run(struct cli *c, int n, char **word)
{
	int used = 0, args;
	const struct verb *v = cli_find(n, word, &used);

	if (!v) {
		cli_error(c, "no verb '%s'; %s lists them", word[0], c->shell ? "help" : "'blobcli help'");
		return EXIT_USAGE;
	}
	args = n - used;
	if (args < v->min_args || (v->max_args >= 0 && args > v->max_args)) {
		cli_error(c, "%s: too %s arguments", v->name, args < v->min_args ? "few" : "many");
		return hint(c, v);
	}
	if (c->json && !v->json) {
		cli_error(c, "%s: has no --json", v->name);
		return hint(c, v);
	}
	if (v->writes && c->readonly) {
		cli_error(c, "%s: %s", v->name, c->why);
		return EXIT_FAILED;
	}
	return v->run(c, args, word + used);
}

int cli_print_json(struct json_object *o)
{
	int rc = printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE)) < 0;

	json_object_put(o);
	return rc ? EXIT_FAILED : EXIT_OK;
}

void cli_add(struct json_object *o, const char *key, uint64_t v)
{
	json_object_object_add(o, key, json_object_new_uint64(v));
}
