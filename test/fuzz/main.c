/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz                     every input of test/fuzz/corpus, and random changes of each
 * fuzz --seeds DIR         writes the first inputs, made of what mkfs makes, into DIR/TARGET
 * fuzz TARGET FILE...      these inputs
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/common/scale.h"
#include "test/fuzz/fuzz.h"

#define CHANGES 12 /* of each input made of what mkfs makes; the others, which a fuzzer has found, are many: one each */

static uint8_t input[FUZZ_INPUT_MAX];

static void die(const char *path)
{
	fprintf(stderr, "fuzz: %s: %s\n", path, strerror(errno));
	exit(2);
}

static size_t load(const char *path)
{
	FILE *f = fopen(path, "re");
	size_t n;

	if (!f)
		die(path);
	n = fread(input, 1, sizeof(input), f);
	fclose(f);
	return n;
}

static int write_seeds(const char *dir)
{
	char path[4096];

	mkdir(dir, 0777);
	for (unsigned i = 0; fuzz_nth(i); i++) {
		const struct fuzz_target *t = fuzz_nth(i);
		size_t n;

		snprintf(path, sizeof(path), "%s/%s", dir, t->name);
		mkdir(path, 0777);
		for (unsigned k = 0; (n = t->seed(k, input, sizeof(input))); k++) {
			FILE *f;

			snprintf(path, sizeof(path), "%s/%s/mkfs-%u", dir, t->name, k);
			f = fopen(path, "we");
			if (!f || fwrite(input, 1, n, f) != n || fclose(f))
				die(path);
		}
	}
	return 0;
}

/* Some bytes changed, some put in, some taken out: what a fuzzer does first. */
static size_t change(uint8_t *buf, size_t n, struct rnd *r)
{
	for (uint64_t k = 1 + rnd_below(r, 4); k && n; k--) {
		uint64_t at = rnd_below(r, n), some = 1 + rnd_below(r, 8), len = MIN(some, n - at);

		switch (rnd_below(r, 4)) {
		case 0: buf[at] ^= (uint8_t)(1u << rnd_below(r, 8)); break;
		case 1: buf[at] = (uint8_t)(rnd_below(r, 2) ? 255 * rnd_below(r, 2) : rnd_next(r)); break;
		case 2:
			memmove(buf + at, buf + at + len, n - at - len);
			n -= len;
			break;
		default:
			len = MIN(len, FUZZ_INPUT_MAX - n);
			memmove(buf + at + len, buf + at, n - at);
			n += len;
		}
	}
	return n;
}

static uint64_t changes_of(const char *name)
{
	return scaled(strncmp(name, "mkfs-", 5) ? 1 : CHANGES);
}

/* In a child: a finding is one failure. */
static bool replay(const struct fuzz_target *t, const char *path, uint64_t changes, uint64_t seed)
{
	static uint8_t original[FUZZ_INPUT_MAX];
	size_t size = load(path), n;
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		struct rnd r = { seed };

		alarm(120);
		t->run(input, size);
		memcpy(original, input, size);
		for (uint64_t i = 0; i < changes; i++) {
			memcpy(input, original, size);
			n = change(input, size, &r);
			t->run(input, n);
		}
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		die("fork");
	if (!status)
		return true;
	printf("    %s: status 0x%x, with changes by FUZZ_SEED=%" PRIu64 "\n", path, status, seed);
	return false;
}

static bool replay_all(const struct fuzz_target *t, const char *corpus, uint64_t seed)
{
	char dir[3000], path[4096];
	struct dirent **names;
	uint64_t changes = 0;
	unsigned bad = 0;
	int n;

	snprintf(dir, sizeof(dir), "%s/%s", corpus, t->name);
	n = scandir(dir, &names, NULL, alphasort);
	if (n < 0)
		die(dir);
	int inputs = 0;

	for (int i = 0; i < n; i++) {
		if (names[i]->d_name[0] != '.') {
			snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
			bad += !replay(t, path, changes_of(names[i]->d_name), seed);
			changes += changes_of(names[i]->d_name);
			inputs++;
		}
		free(names[i]);
	}
	free(names);
	if (bad || !inputs)
		printf("not ok fuzz/%s: %u of %d inputs\n", t->name, bad, inputs);
	else
		printf("ok fuzz/%s: %d inputs, and %" PRIu64 " changes of them\n", t->name, inputs, changes);
	return !bad && inputs;
}

int main(int argc, char **argv)
{
	const char *given = getenv("FUZZ_SEED"), *root = getenv("ROOT");
	char corpus[2048];
	uint64_t seed = 0;
	bool ok = true;

	if (argc == 3 && strcmp(argv[1], "--seeds") == 0)
		return write_seeds(argv[2]);
	if (argc > 2 && fuzz_find(argv[1])) {
		for (int i = 2; i < argc; i++)
			fuzz_find(argv[1])->run(input, load(argv[i]));
		return 0;
	}
	if (argc > 1) {
		fprintf(stderr, "usage: fuzz [--seeds DIR | super|frame|record|image FILE...]\n");
		return 2;
	}
	base_random(&seed, 4);
	if (given)
		seed = strtoull(given, NULL, 0);
	printf("FUZZ_SEED=%" PRIu64 "\n", seed);
	snprintf(corpus, sizeof(corpus), "%s/test/fuzz/corpus", root ? root : ".");
	fuzz_init();
	for (unsigned i = 0; fuzz_nth(i); i++)
		ok &= replay_all(fuzz_nth(i), corpus, seed);
	return !ok;
}
