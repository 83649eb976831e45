/* SPDX-License-Identifier: BSD-2-Clause */
/* The shell: one command a line, typed with history and completion of verbs, or from a pipe. */
#include <editline/readline.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "tools/blobcli/verb.h"
#include "tools/common/common.h"

static bool is_blank(char ch)
{
	return ch == ' ' || ch == '\t' || ch == '\n' || ch == '\r';
}

/* One word from *in to *out, which is never ahead of it. NULL, or what is wrong. */
static const char *take_word(char **in, char **out)
{
	char quote = '\0', *p = *in, *o = *out;

	for (; *p && (quote || !is_blank(*p)); p++) {
		if (*p == '\\' && quote != '\'') {
			if (!p[1] || p[1] == '\n')
				return "a backslash ends the line";
			*o++ = *++p;
		} else if (quote ? *p == quote : (*p == '"' || *p == '\'')) {
			quote = quote ? '\0' : *p;
		} else {
			*o++ = *p;
		}
	}
	if (quote)
		return "a quote is not closed";
	*in = *p ? p + 1 : p;
	*o++ = '\0';
	*out = o;
	return NULL;
}

int cli_split(char *line, char **word, int max, const char **why)
{
	char *in = line, *out = line;
	int n = 0;

	for (;;) {
		while (is_blank(*in))
			in++;
		if (!*in || *in == '#')
			return n;
		if (n == max) {
			*why = "too many words in a line";
			return -1;
		}
		word[n++] = out;
		*why = take_word(&in, &out);
		if (*why)
			return -1;
	}
}

/* True: go on. */
static bool do_line(struct cli *c, char *line, int *result)
{
	struct options opt = { false, false, false, false, false };
	char *word[CLI_WORDS];
	const char *why;
	int n = cli_split(line, word, CLI_WORDS, &why), rc;

	if (n < 0) {
		cli_error(c, "%s", why);
		*result = EXIT_FAILED;
		return true;
	}
	rc = cli_options(c, word, &n, &opt);
	if (!rc && (opt.force || opt.readonly || opt.version)) {
		cli_error(c, "--force, --readonly and --version are for the shell as a whole");
		rc = EXIT_USAGE;
	}
	if (!rc && n && (strcmp(word[0], "quit") == 0 || strcmp(word[0], "exit") == 0))
		return false;
	c->json = opt.json;
	if (!rc && n && strcmp(word[0], "help") == 0)
		rc = cli_help(c, n - 1, word + 1);
	else if (!rc && opt.help)
		rc = cli_help(c, n, word);
	else if (!rc && n)
		rc = cli_run(c, n, word);
	if (tool_flush_stdout()) {
		*result = EXIT_FAILED;
		return false; /* nobody listens any more */
	}
	if (rc)
		*result = EXIT_FAILED;
	return true;
}

/* ---- typed ---- */

/* All that can stand first in a line. */
static const char *candidate(unsigned i)
{
	static const char *const more[] = { "help", "quit" };
	const struct verb *v = cli_verb(i);
	unsigned verbs = 0;

	if (v)
		return v->name;
	while (cli_verb(verbs))
		verbs++;
	return i - verbs < ARRAY_SIZE(more) ? more[i - verbs] : NULL;
}

static char *next_verb(const char *text, int state)
{
	static unsigned i;
	const char *name;

	if (!state)
		i = 0;
	while ((name = candidate(i++)))
		if (strncmp(name, text, strlen(text)) == 0)
			return strdup(name);
	return NULL;
}

static char **complete(const char *text, int start, int end)
{
	(void)end;
	return start == 0 ? rl_completion_matches(text, next_verb) : NULL; /* else: names of files */
}

static int typed(struct cli *c)
{
	int last = EXIT_OK;
	bool more = true;
	char *line;

	rl_readline_name = "blobcli";
	rl_attempted_completion_function = complete;
	while (more && (line = readline("blobcli> "))) {
		if (line[strspn(line, " \t")])
			add_history(line);
		last = EXIT_OK;
		more = do_line(c, line, &last);
		free(line);
	}
	if (more)
		putchar('\n');
	return last;
}

/* ---- from a pipe or a file ---- */

static int piped(struct cli *c)
{
	int result = EXIT_OK;
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	while ((n = getline(&line, &cap, stdin)) >= 0) {
		c->line++;
		if (strlen(line) != (size_t)n) {
			cli_error(c, "a zero byte in a line");
			result = EXIT_FAILED;
			continue;
		}
		if (!do_line(c, line, &result))
			break;
	}
	if (ferror(stdin)) {
		cli_error(c, "standard input: %s", strerror(errno));
		result = EXIT_FAILED;
	}
	free(line);
	return result;
}

int cli_shell(struct cli *c)
{
	c->shell = true;
	if (!isatty(STDIN_FILENO))
		return piped(c);
	printf("%s%s%s. 'help' lists the verbs.\n", c->device, c->readonly ? ", for reading only: " : "", c->readonly ? c->why : "");
	return typed(c);
}
