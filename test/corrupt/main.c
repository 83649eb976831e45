/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * corrupt [--repair] [--seed N] [--cases N] [--case N] [--keep FILE] [-v]
 *
 * Images are used as they are, then (other cases) repaired; --repair: only that.
 * Runs cases 0 … cases-1 in child processes, so that one that crashes, hangs or eats memory is named and the rest still
 * runs. --case runs a single one in this process, for a debugger; --keep writes its image into a file first. The images, and so the
 * cases of a seed, are the same on every machine that makes the same format.
 */
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/dma.h"
#include "base/log.h"
#include "test/common/scale.h"
#include "test/corrupt/corrupt.h"

#define CASES 15000
#define REPAIR_CASES 3000
#define MEMORY_MAX (1 * GiB)
#define FAULTS_SHOWN 20u

#if defined(__SANITIZE_ADDRESS__)
#define SECONDS_MAX 60
#define LIMIT_MEMORY 0
#else
#define SECONDS_MAX 20
#define LIMIT_MEMORY 1
#endif

/* The sanitizer wants address space of its own, so that it sets the limit there. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "max_allocation_size_mb=512";
}

/* There in a build with the address sanitizer: what was refused must have left nothing behind. */
int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

struct numbers {
	uint64_t cases, refused, mounted, found, faults, intact, cuts, failures, caught;
};

/* What children and parent share. */
struct shared {
	uint64_t current;  /* the case being run */
	char what[300];    /* its damage */
	struct numbers kind[DAMAGE_KINDS];
};

struct run {
	uint64_t seed, cases;
	bool verbose;
	struct image image[IMAGES];
	struct map map[IMAGES];
	struct scratch scratch[IMAGES];
	struct contents contents[IMAGES];
	bool repair; /* instead of using it as it is */
	const char *keep;
	struct shared *shared;
};

/* How often each kind comes: 20 parts. */
static const uint8_t turn[20] = { BIT_FLIPS,	LOG_RECORDS, PAGE_RECORDS, SUPER_FIELDS,   BLOCKS,	 LOG_RECORDS, FRAME_FIELDS,
				  PAGE_RECORDS, BIT_FLIPS,   SUPER_FIELDS, SEGMENT_FIELDS, PAGE_RECORDS, LOG_RECORDS, PAGE_FIELDS,
				  INDEX_ENTRIES, BIT_FLIPS,  PAGE_RECORDS, LOG_RECORDS,	   TRUNCATION,	 FRAME_FIELDS };

static enum damage_kind kind_of(uint64_t number)
{
	return turn[number % 20];
}

/* Fields and values are gone through in order: cases of a kind are counted without gaps, for each image. */
static uint64_t nth_of(uint64_t number)
{
	unsigned before = 0, all = 0;

	for (unsigned i = 0; i < 20; i++) {
		all += turn[i] == turn[number % 20];
		before += i < number % 20 && turn[i] == turn[number % 20];
	}
	return number / 20 * all + before;
}

/* Frames and log records want an image with a log. */
static int image_of(enum damage_kind kind, uint64_t nth)
{
	if (kind == FRAME_FIELDS || kind == LOG_RECORDS)
		return 1 + (int)(nth / 3 % (IMAGES - 1));
	return (int)(nth / 3 % IMAGES);
}

static void keep_image(const char *path, const struct scratch *s)
{
	FILE *f = fopen(path, "we");

	if (!f || fwrite(s->mem, 1, s->size, f) != s->size || fclose(f)) {
		perror(path);
		exit(1);
	}
	printf("the image is in %s\n", path);
}

static bool run_case(struct run *run, uint64_t number)
{
	enum damage_kind kind = kind_of(number);
	struct numbers *n = &run->shared->kind[kind];
	struct rnd r = { run->seed * 1000003 + number };
	uint64_t nth = nth_of(number);
	struct scratch *s = &run->scratch[image_of(kind, nth)];
	struct verdict v;

	rnd_next(&r);
	damage_do(s, kind, nth, &r);
	base_set_fake_random(run->seed * 1000003 + number + 1);
	if (run->keep)
		keep_image(run->keep, s);
	run->shared->current = number;
	snprintf(run->shared->what, sizeof(run->shared->what), "%s, %s: %s", damage_names[kind], s->image->name, s->what);
	if (run->verbose)
		printf("case %llu: %s\n", (unsigned long long)number, run->shared->what);
	if (run->repair)
		repair_device(s, &run->contents[s - run->scratch], kind == BIT_FLIPS || kind == BLOCKS, &r, &v);
	else
		use_device(image_device(s->image, s->mem, s->size), &r, &v);
	damage_undo(s);
	n->intact += v.intact;
	n->cuts += v.cuts;
	n->failures += v.failures;
	n->caught += v.caught;
	n->cases++;
	n->mounted += v.mounted;
	n->refused += !v.mounted;
	n->found += v.problems || v.check_rc;
	if (run->verbose)
		printf("  check %d, %llu problems (%s); mount %d\n", v.check_rc, (unsigned long long)v.problems, v.first,
		       v.mount_rc);
	if (!v.fault[0])
		return true;
	if (n->faults++ < FAULTS_SHOWN)
		printf("    case %llu: %s\n      %s\n", (unsigned long long)number, v.fault, run->shared->what);
	return false;
}

/* ---- children ---- */

/* From the heap: quick to get again, and a sanitizer sees what goes past its end. */
static void *heap_alloc(size_t size, size_t align)
{
	void *p;

	return posix_memalign(&p, align, size) ? NULL : p;
}

static void heap_free(void *p, size_t size)
{
	(void)size;
	free(p);
}

static const struct dma_ops heap_dma = { "heap", heap_alloc, heap_free };

static void child(struct run *run, uint64_t from, uint64_t to)
{
	struct itimerval limit = { .it_value = { .tv_sec = SECONDS_MAX } };
	struct rlimit memory = { MEMORY_MAX, MEMORY_MAX }, core = { 0, 0 };

	setrlimit(RLIMIT_CORE, &core);
	/* Most of a case's time would be the kernel's, giving the same pages again and again. */
	mallopt(M_MMAP_THRESHOLD, 32 << 20);
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	if (LIMIT_MEMORY)
		setrlimit(RLIMIT_AS, &memory);
	for (uint64_t i = from; i < to; i++) {
		setitimer(ITIMER_REAL, &limit, NULL);
		run_case(run, i);
	}
	fflush(stdout);
	_exit(__lsan_do_recoverable_leak_check && __lsan_do_recoverable_leak_check() ? 23 : 0);
}

static const char *cause(int status, char *buf, size_t len)
{
	if (WIFEXITED(status))
		snprintf(buf, len, "exit code %d (a sanitizer's?)", WEXITSTATUS(status));
	else if (WTERMSIG(status) == SIGALRM)
		snprintf(buf, len, "not done after %d s", SECONDS_MAX);
	else
		snprintf(buf, len, "killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	return buf;
}

static void run_all(struct run *run)
{
	const uint64_t batch = 500;
	uint64_t at = 0, crashes = 0;
	char why[64];

	while (at < run->cases && crashes < FAULTS_SHOWN) {
		uint64_t to = MIN(run->cases, at + batch);
		int status;
		pid_t pid;

		fflush(stdout);
		run->shared->current = at;
		pid = fork();
		if (pid == 0)
			child(run, at, to);
		if (pid < 0 || waitpid(pid, &status, 0) != pid) {
			printf("not ok corrupt/run: cannot run a child\n");
			exit(1);
		}
		at = to;
		if (status) {
			uint64_t bad = run->shared->current;

			printf("    case %llu: %s\n      %s\n", (unsigned long long)bad, cause(status, why, sizeof(why)),
			       run->shared->what);
			run->shared->kind[kind_of(bad)].faults++;
			run->shared->kind[kind_of(bad)].cases++;
			crashes++;
			at = bad + 1;
		}
	}
	if (crashes == FAULTS_SHOWN)
		printf("not ok corrupt/run: given up after %u crashes\n", FAULTS_SHOWN);
}

/* A kind that is always refused, or never, tests less than it seems to. A store that lost its end never mounts. */
static bool is_plausible(int kind, bool repair, const struct numbers *n)
{
	if (kind == TRUNCATION)
		return !n->mounted;
	if (repair)
		return n->mounted && (n->intact || (kind != BIT_FLIPS && kind != BLOCKS));
	return n->cases < 100 || (n->mounted && n->refused);
}

static int report(const struct run *run)
{
	const char *name = run->repair ? "repair" : "corrupt";
	int bad = 0;

	for (int k = 0; k < DAMAGE_KINDS; k++) {
		const struct numbers *n = &run->shared->kind[k];

		if (!n->cases)
			continue;
		if (n->faults)
			printf("not ok %s/%s: %llu of %llu cases; see one with --seed %llu --case N -v --keep IMAGE\n", name, damage_names[k],
			       (unsigned long long)n->faults, (unsigned long long)n->cases, (unsigned long long)run->seed);
		else if (!is_plausible(k, run->repair, n))
			printf("not ok %s/%s: of %llu cases %llu mounted\n", name, damage_names[k],
			       (unsigned long long)n->cases, (unsigned long long)n->mounted);
		else if (run->repair)
			printf("ok repair/%s: %llu cases: %llu repaired, %llu refused, %llu inodes as they were, %llu with data that was found wrong, "
			       "%llu power cuts, %llu failures\n",
			       damage_names[k], (unsigned long long)n->cases, (unsigned long long)n->mounted,
			       (unsigned long long)n->refused, (unsigned long long)n->intact, (unsigned long long)n->caught,
			       (unsigned long long)n->cuts, (unsigned long long)n->failures);
		else
			printf("ok corrupt/%s: %llu cases: checking found %llu, %llu mounted, %llu refused\n", damage_names[k],
			       (unsigned long long)n->cases, (unsigned long long)n->found,
			       (unsigned long long)n->mounted, (unsigned long long)n->refused);
		bad |= n->faults || !is_plausible(k, run->repair, n);
	}
	return bad;
}

static void prepare(struct run *run)
{
	images_make(run->image);
	for (int i = 0; i < IMAGES; i++) {
		struct scratch *s = &run->scratch[i];
		struct rnd r = { 1 };
		struct verdict v;

		map_make(&run->image[i], &run->map[i]);
		*s = (struct scratch){ .image = &run->image[i], .map = &run->map[i] };
		s->mem = mmap(NULL, IMAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (s->mem == MAP_FAILED)
			exit(1);
		damage_undo(s);
		contents_take(&run->contents[i], &run->image[i]);
		use_device(image_device(s->image, s->mem, IMAGE_SIZE), &r, &v);
		if (v.check_rc || v.problems || !v.mounted || v.fault[0]) {
			printf("not ok corrupt/image: %s is not sound to begin with: %llu problems, mount %d; %s\n",
			       s->image->name, (unsigned long long)v.problems, v.mount_rc, v.fault);
			exit(1);
		}
		if (run->verbose)
			printf("image %s: %u blocks, %d structures, %d records\n", s->image->name, s->image->n_used,
			       s->map->n, s->map->n_rec);
	}
}

/* Else a case that failed elsewhere would be another one here. */
static bool same_again(const struct run *run)
{
	uint32_t digest = images_digest(run->image), other;
	struct image again[IMAGES] = { { .name = NULL } };

	images_make(again);
	other = images_digest(again);
	images_free(again);
	if (other == digest)
		printf("ok corrupt/images_are_the_same_each_time\n");
	else
		printf("not ok corrupt/images_are_the_same_each_time: %08x, then %08x\n", digest, other);
	return other == digest;
}

static void quiet(enum base_log_level level, const char *component, const char *line, void *arg)
{
	(void)level;
	(void)component;
	(void)line;
	(void)arg;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = { { "help", no_argument, NULL, 'h' },
					       { "repair", no_argument, NULL, 'r' },
					       { "seed", required_argument, NULL, 's' },
					       { "case", required_argument, NULL, 'c' },
					       { "cases", required_argument, NULL, 'n' },
					       { "keep", required_argument, NULL, 'k' },
					       { NULL, 0, NULL, 0 } };
	static struct run run = { .seed = 1, .cases = 0 };
	bool single = false, bad, both;
	uint64_t one = 0;
	int opt;

	while ((opt = getopt_long(argc, argv, "v", longs, NULL)) != -1) {
		switch (opt) {
		case 's': run.seed = strtoull(optarg, NULL, 0); break;
		case 'n': run.cases = strtoull(optarg, NULL, 0); break;
		case 'c': one = strtoull(optarg, NULL, 0); single = true; break;
		case 'k': run.keep = optarg; break;
		case 'r': run.repair = true; break;
		case 'v': run.verbose = corrupt_verbose = true; break;
		case 'h': printf("corrupt [--repair] [--seed N] [--cases N] [--case N] [--keep FILE] [-v]\n"); return 0;
		default: return 2;
		}
	}
	if (run.keep && !single) {
		fprintf(stderr, "--keep is for one --case\n");
		return 2;
	}
	both = !run.repair && !run.cases;
	if (!run.cases)
		run.cases = scaled(run.repair ? REPAIR_CASES : CASES);
	run.shared = mmap(NULL, sizeof(*run.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (run.shared == MAP_FAILED)
		return 1;
	dma_set_ops(&heap_dma);
	if (!getenv("BLOBFS_LOG"))
		base_log_set_sink(quiet, NULL);
	prepare(&run);
	printf("seed %llu, %llu cases, images %08x\n", (unsigned long long)run.seed, (unsigned long long)run.cases,
	       images_digest(run.image));
	if (single) {
		printf("%sok corrupt/case_%llu\n", run_case(&run, one) ? "" : "not ", (unsigned long long)one);
		return run.shared->kind[kind_of(one)].faults ? 1 : 0;
	}
	bad = !run.repair && (!same_again(&run) | !targets_run(run.scratch));
	run_all(&run);
	bad |= report(&run) != 0;
	if (both) {
		memset(run.shared, 0, sizeof(*run.shared));
		run.repair = true;
		run.cases = scaled(REPAIR_CASES);
		run_all(&run);
		bad |= report(&run) != 0;
	}
	return bad;
}
