/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mutants: the power-cut test must find each mistake of blob/mutation.h. Every one runs in a process of its own and is found when the
 * test finds something wrong in a state, or the workload cannot go on, or an assertion fails; the store without a mistake must pass.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define BS_MUTATIONS
#include "blob/mutation.h"
#include "test/common/scale.h"
#include "test/powercut/powercut.h"

#define SECONDS 40u /* of the processor, for one; most are found in less than one */

enum bs_mutation bs_mutation;

static const struct mutant {
	const char *name, *what;
	enum bs_mutation id;
} mutants[] = {
	{ "none", "nothing", BS_MUT_none },
#define X(mutation, text) { #mutation, text, BS_MUT_##mutation },
	BS_MUTATIONS_LIST(X)
#undef X
};

/* In the child: seeds from 1 on, so that what is found once is found again. */
static int hunt(const struct mutant *m, bool loud)
{
	struct options opt = DEFAULT_OPTIONS;
	uint64_t seeds;

	opt.quiet = !loud;
	opt.sample = 100;
	opt.ops = 200;
	opt.seconds = m->id ? SECONDS : 0;
	opt.states = scaled(1500);
	bs_mutation = m->id;
	alarm(15 * SECONDS);
	return run_seeds(&opt, 1, &seeds) < 0;
}

static bool try_mutant(const struct mutant *m, bool loud)
{
	int status;
	bool found;
	pid_t pid = fork();

	if (pid == 0) {
		int rc;

		/* What the store complains of is wanted. */
		if (!loud && (!freopen("/dev/null", "w", stderr) || !freopen("/dev/null", "w", stdout)))
			_exit(3);
		rc = hunt(m, loud);
		fflush(stdout);
		_exit(rc);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		broken(NULL, "cannot run a mutant");
	/* One that hangs is not found: the mistake is a wrong one. */
	found = WIFEXITED(status) ? WEXITSTATUS(status) != 0 : WTERMSIG(status) != SIGALRM;
	if (m->id)
		printf(found ? "ok found: %s\n" : "not ok found: %s: it was not\n", m->what);
	else
		printf(found ? "not ok the store without a mistake: status %d\n" : "ok the store without a mistake\n", status);
	return found == (m->id != BS_MUT_none);
}

/* Without arguments all; else those named, with what was found. */
int main(int argc, char **argv)
{
	unsigned failed = 0, tried = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t i = 0; i < ARRAY_SIZE(mutants); i++) {
		bool chosen = argc == 1;

		for (int k = 1; k < argc; k++)
			chosen |= !strcmp(argv[k], mutants[i].name);
		if (!chosen)
			continue;
		tried++;
		failed += !try_mutant(&mutants[i], argc > 1);
	}
	if (!tried)
		fprintf(stderr, "Usage: mutants [NAME…]: names as in blob/mutation.h\n");
	return failed || !tried;
}
