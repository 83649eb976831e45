/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * powercut: runs workloads and cuts the power. Without options: a fixed part of it all, fresh seeds included. A failure prints
 * the one command that replays it.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/common/scale.h"
#include "test/powercut/powercut.h"
#include "test/powercut/rocksdb_load.h"

static void usage(void)
{
	printf("Usage: powercut [--level 1|2|3] [--seed N] [--ops N] [--cuts all|sample=K] [--torn 0|512|4096]\n"
	       "                [--states N | --time S] [--event E [--subset K]] [--save FILE] [--quiet] [--verbose]\n"
	       "                [--service]  with the store's own thread; then a seed does not give the same run twice\n"
	       "                [--trace]    prints what the workload does, each with the number of events before it\n"
	       "                [--lie]      flushes do nothing: the test must fail\n"
	       "                [--faults]   every device call fails once, in turn\n"
	       "Without --seed: fresh seeds, one after another, until N states were tested or S seconds of the processor were used.\n");
}

/* "all", or "sample=K": 0 if it is neither. */
static uint64_t parse_cuts(const char *text)
{
	char *end;
	uint64_t n;

	if (strcmp(text, "all") == 0)
		return UINT64_MAX;
	if (strncmp(text, "sample=", 7) || text[7] < '1' || text[7] > '9')
		return 0;
	n = strtoull(text + 7, &end, 10);
	return *end ? 0 : n;
}

static int parse(int argc, char **argv, struct options *opt)
{
	static const struct option longs[] = {
		{ "seed", 1, NULL, 's' },    { "ops", 1, NULL, 'o' },     { "cuts", 1, NULL, 'c' },    { "torn", 1, NULL, 't' },
		{ "level", 1, NULL, 'l' },   { "states", 1, NULL, 'n' },  { "time", 1, NULL, 'T' },    { "event", 1, NULL, 'e' },
		{ "subset", 1, NULL, 'k' },  { "save", 1, NULL, 'S' },    { "quiet", 0, NULL, 'q' },   { "lie", 0, NULL, 'L' },
		{ "trace", 0, NULL, 'v' },   { "verbose", 0, NULL, 'V' }, { "service", 0, NULL, 'b' }, { "faults", 0, NULL, 'f' },
		{ "help", 0, NULL, 'h' },    { NULL, 0, NULL, 0 }
	};
	int o;

	while ((o = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		uint64_t v = optarg ? strtoull(optarg, NULL, 0) : 0;

		switch (o) {
		case 's': opt->seed = v; opt->seeded = true; break;
		case 'o': opt->ops = v; break;
		case 'c':
			opt->sample = parse_cuts(optarg);
			if (opt->sample)
				break;
			fprintf(stderr, "powercut: --cuts is all or sample=K, K from 1 on, not '%s'\n", optarg);
			exit(2);
		case 't': opt->torn = (uint32_t)v; break;
		case 'l': opt->level = (uint32_t)v; break;
		case 'n': opt->states = v; break;
		case 'T': opt->seconds = (uint32_t)v; break;
		case 'e': opt->event = v; opt->only_event = true; break;
		case 'k': opt->subset = v; opt->only_subset = true; break;
		case 'S': opt->save = optarg; break;
		case 'q': opt->quiet = true; break;
		case 'L': opt->lie = true; break;
		case 'v': opt->trace = true; break;
		case 'V': opt->verbose = true; break;
		case 'b': opt->service = true; break;
		case 'f': opt->faults = true; break;
		case 'h': usage(); exit(0);
		default: return 1;
		}
	}
	if (opt->level == 3)
		opt->workload = &rocksdb_workload, opt->service = true;
	return optind != argc || opt->level < 1 || opt->level > 3 || (opt->level == 3 && opt->faults);
}

/* ---- without options ---- */

static const struct part {
	const char *name;
	struct options opt;
	bool must_fail;
} parts[] = {
#define ROCKSDB .service = true, .workload = &rocksdb_workload
#define PART(...) { __VA_ARGS__ } /* ops, sample, torn: 0 for the usual */
	{ "transactions and data survive cuts, the seeds known", PART(.level = 1, .states = 4000, .seed = 1, .sample = 400), false },
	{ "transactions and data survive cuts, fresh seeds", PART(.level = 1, .states = 5000, .sample = 400), false },
	{ "a long life survives cuts", PART(.level = 1, .ops = 600, .states = 3000, .sample = 400), false },
	{ "files and names survive cuts, the seeds known", PART(.level = 2, .ops = 150, .states = 5000, .seed = 1), false },
	{ "files and names survive cuts, fresh seeds", PART(.level = 2, .ops = 150, .states = 8000), false },
	{ "long use of files survives cuts", PART(.level = 2, .ops = 600, .states = 3000, .sample = 400), false },
	{ "whole blocks or nothing", PART(.level = 1, .states = 1000, .torn = 4096), false },
	{ "a store with its service survives cuts", PART(.level = 1, .ops = 80, .states = 1500, .sample = 200, .service = true), false },
	{ "files with a service survive cuts", PART(.level = 2, .ops = 80, .states = 1500, .sample = 200, .service = true), false },
	{ "a database of RocksDB survives cuts", PART(.level = 3, .ops = 60, .states = 300, .sample = 60, ROCKSDB), false },
	{ "a store on a device that lies is found out", PART(.level = 1, .states = 5000, .lie = true, .quiet = true), true },
	{ "files on a device that lies are found out", PART(.level = 2, .states = 5000, .lie = true, .quiet = true), true },
	{ "a database on a device that lies is found out", PART(.level = 3, .states = 1000, .lie = true, .quiet = true, ROCKSDB), true },
	{ "every failing call of a store is survived", PART(.level = 1, .ops = 60, .states = 300, .faults = true), false },
	{ "every failing call under files is survived", PART(.level = 2, .ops = 60, .states = 300, .faults = true), false },
#undef PART
#undef ROCKSDB
};

static void verdict(const struct part *p, bool passed, const char *why)
{
	passed = passed != p->must_fail;
	printf(passed ? "ok %s\n" : "not ok %s: %s\n", p->name, p->must_fail ? "nothing was found" : why);
	fflush(stdout);
}

/* Each in a process of its own, so that a crash is one failure. */
static bool run_part(const struct part *p)
{
	const struct options usual = DEFAULT_OPTIONS;
	struct options opt = p->opt;
	uint64_t seed = opt.seed, seeds;
	int status;
	pid_t pid;

	opt.ops = opt.ops ? opt.ops : usual.ops;
	opt.sample = opt.sample ? opt.sample : usual.sample;
	opt.torn = opt.torn ? opt.torn : usual.torn;
	opt.states = scaled(opt.states);
	if (!seed)
		base_random(&seed, 4), seed &= 0xffffffff;
	pid = fork();
	if (pid == 0) {
		int64_t n;

		printf("# level %u: seeds from %" PRIu64 "\n", opt.level, seed);
		alarm(300);
		n = run_seeds(&opt, seed, &seeds);
		if (n >= 0)
			printf("# level %u: %" PRId64 " states, %" PRIu64 " seeds from %" PRIu64 "\n", opt.level, n, seeds, seed);
		fflush(stdout);
		_exit(n < 0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		broken(NULL, "cannot run a part");
	verdict(p, WIFEXITED(status) && !WEXITSTATUS(status), WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "see above");
	return (WIFEXITED(status) && !WEXITSTATUS(status)) != p->must_fail;
}

static int run_parts(void)
{
	unsigned failed = 0;

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		failed += !run_part(&parts[i]);
	return failed != 0;
}

int main(int argc, char **argv)
{
	struct options opt = DEFAULT_OPTIONS;
	uint64_t seeds, seed;
	int64_t n;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 1)
		return run_parts();
	if (parse(argc, argv, &opt)) {
		usage();
		return 2;
	}
	seed = opt.seed;
	if (!opt.seeded)
		base_random(&seed, 4), seed &= 0xffffffff;
	n = run_seeds(&opt, seed, &seeds);
	if (n < 0)
		return 1;
	printf("level %u: %" PRId64 " states of the medium after a cut, %" PRIu64 " seeds from %" PRIu64
	       ", torn at %u: all recovered\n", opt.level, n, seeds, seed, opt.torn);
	return 0;
}
