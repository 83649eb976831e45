/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * powercut: runs workloads and cuts the power. Each run prints its seed; a failure prints the one command that replays it.
 */
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "test/powercut/powercut.h"

struct options {
	uint64_t seed, ops, sample, states, event, subset;
	uint32_t torn, level, seconds;
	bool seeded, only_event, only_subset, quiet, lie, trace;
	const char *save;
};


struct cutter {
	const struct options *opt;
	struct run *run;
	struct bdev_cut cut;
	uint64_t states;
};

void rng_seed(struct rng *r, uint64_t seed)
{
	r->s = seed * 0x9e3779b97f4a7c15ull + 0x1234567ull;
	if (!r->s)
		r->s = 1;
	rng_next(r);
}

uint64_t rng_next(struct rng *r)
{
	r->s ^= r->s >> 12;
	r->s ^= r->s << 25;
	r->s ^= r->s >> 27;
	return r->s * 0x2545f4914f6cdd1dull >> 8;
}

bool finding(struct run *run, const char *fmt, ...)
{
	va_list ap;

	if (!run->why[0]) {
		va_start(ap, fmt);
		vsnprintf(run->why, sizeof(run->why), fmt, ap);
		va_end(ap);
	}
	return false;
}

void trace(const struct run *run, const char *fmt, ...)
{
	va_list ap;

	if (!run->tracing)
		return;
	printf("%6" PRIu64 "  ", bdev_powercut_mark(run->dev));
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

void broken(const struct run *run, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "powercut: seed %" PRIu64 ": the workload itself failed: ", run ? run->seed : 0);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(2);
}

void *grow(void *array, size_t n, size_t *cap, size_t size)
{
	if (n < *cap)
		return array;
	*cap = *cap ? 2 * *cap : 16;
	array = realloc(array, *cap * size);
	if (!array)
		broken(NULL, "out of memory");
	return array;
}

static struct bdev *open_state(void *arg)
{
	struct cutter *c = arg;
	struct bdev *dev;
	int rc = bdev_powercut_state(c->run->dev, &c->cut, &dev);

	if (rc)
		broken(c->run, "cannot rebuild the medium: %s", strerror(-rc));
	return dev;
}

static void save_image(struct cutter *c)
{
	static char buf[1 << 20];
	struct bdev *dev = open_state(c);
	struct bdev_channel *ch = bdev_channel_borrow(dev);
	uint64_t size = bdev_info(dev)->size;
	int fd = open(c->opt->save, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	for (uint64_t at = 0; fd >= 0 && at < size; at += sizeof(buf)) {
		uint64_t len = MIN(sizeof(buf), size - at);

		if (bdev_io_sync(ch, BDEV_READ, buf, at, len, 0) || write(fd, buf, len) != (ssize_t)len)
			break;
	}
	if (fd < 0 || close(fd))
		perror(c->opt->save);
	else
		printf("the image is in %s\n", c->opt->save);
	bdev_channel_return(ch);
	bdev_close(dev);
}

static bool test_state(struct cutter *c, const struct workload *wl, void *w, uint64_t subset)
{
	if (wl->verify(w, c->run, c->cut.event, open_state, c)) {
		c->states++;
		return true;
	}
	printf("FAILED at event %" PRIu64 ": %s\n", c->cut.event, c->run->why);
	printf("replay: powercut --level %u --seed %" PRIu64 " --ops %" PRIu64 " --torn %u --event %" PRIu64
	       " --subset %" PRIu64 "\n",
	       c->opt->level, c->run->seed, c->opt->ops, c->opt->torn, c->cut.event, subset);
	if (c->opt->save)
		save_image(c);
	return false;
}

/*
 * Subset k of n undecided writes. Few: k counts through all 2^n. Many: none, all, each alone missing, each alone there (the first
 * few), then by seed. Returns false when k is past the last.
 */
static bool choose_subset(struct cutter *c, uint64_t k, uint64_t n, uint8_t *mask, size_t mask_len)
{
	uint64_t limit = n <= 3 ? 1ull << n : 6;

	if (n <= 3 && c->opt->torn && n)
		limit += 2; /* and two torn by seed */
	c->cut.mask = NULL;
	c->cut.torn = 0;
	c->cut.seed = c->run->seed * 1000003 + c->cut.event * 131 + k;
	if (k >= limit)
		return false;
	if (n > 8 * mask_len || (n <= 3 ? k >= 1ull << n : k >= 4)) {
		c->cut.torn = c->opt->torn;
		return true;
	}
	memset(mask, 0, mask_len);
	c->cut.mask = mask;
	if (n <= 3)
		mask[0] = (uint8_t)k;
	else if (k & 1)
		memset(mask, 0xff, mask_len);
	if (n > 3 && k >= 2) {
		uint64_t i = c->cut.seed % n;

		mask[i / 8] ^= (uint8_t)(1u << (i % 8));
	}
	return true;
}

static bool cut_at(struct cutter *c, const struct workload *wl, void *w, uint64_t event)
{
	uint8_t mask[64];
	uint64_t n, k;

	c->cut.event = event;
	n = bdev_powercut_undecided(c->run->dev, event);
	for (k = 0; choose_subset(c, k, n, mask, sizeof(mask)); k++) {
		if (c->opt->only_subset && k != c->opt->subset)
			continue;
		if (!test_state(c, wl, w, k))
			return false;
	}
	return true;
}

/* One seed: the workload, then its cuts in rising order. Returns states tested, or -1. */
static int64_t run_seed(const struct options *opt, const struct workload *wl, uint64_t seed)
{
	struct run run = { .seed = seed, .ops = opt->ops, .device_size = 48 * MiB, .tracing = opt->trace };
	struct cutter c = { .opt = opt, .run = &run };
	struct rng pick;
	struct bdev *ram;
	uint64_t first, last;
	bool ok = true;
	void *w;

	rng_seed(&run.rng, seed);
	rng_seed(&pick, seed + 1);
	if (bdev_open("ram:48M", NULL, &ram, NULL) || bdev_powercut_create(ram, &run.dev))
		broken(&run, "cannot make the device");
	base_set_fake_clock(1000000000ull);
	w = wl->begin(&run);
	first = bdev_powercut_mark(run.dev);
	bdev_powercut_lie(run.dev, opt->lie);
	for (uint64_t i = 0; i < opt->ops; i++)
		wl->step(w);
	wl->end(w);
	last = bdev_powercut_events(run.dev);
	if (opt->only_event)
		ok = cut_at(&c, wl, w, opt->event);
	for (uint64_t e = first; ok && !opt->only_event && e <= last; e++)
		if (last - first <= opt->sample || rng_below(&pick, last - first) < opt->sample)
			ok = cut_at(&c, wl, w, e);
	wl->free(w);
	bdev_close(run.dev);
	if (!opt->quiet || !ok)
		printf("%s: seed %" PRIu64 ": %" PRIu64 " events, %" PRIu64 " states%s\n", wl->name, seed, last - first,
		       c.states, ok ? "" : ", FAILED");
	fflush(stdout);
	return ok ? (int64_t)c.states : -1;
}

static void usage(void)
{
	printf("Usage: powercut [--level 1|2] [--seed N] [--ops N] [--cuts all|sample=K] [--torn 0|512|4096]\n"
	       "                [--states N | --time S] [--event E [--subset K]] [--save FILE] [--quiet]\n"
	       "                [--trace]  prints what the workload does, each with the number of events before it\n"
	       "                [--lie]   flushes do nothing: the test must fail\n"
	       "Without --seed: fresh seeds, one after another, until N states were tested or S seconds have passed.\n");
}

static int parse(int argc, char **argv, struct options *opt)
{
	static const struct option longs[] = {
		{ "seed", 1, NULL, 's' }, { "ops", 1, NULL, 'o' }, { "cuts", 1, NULL, 'c' }, { "torn", 1, NULL, 't' },
		{ "level", 1, NULL, 'l' }, { "states", 1, NULL, 'n' }, { "time", 1, NULL, 'T' }, { "event", 1, NULL, 'e' },
		{ "subset", 1, NULL, 'k' }, { "save", 1, NULL, 'S' }, { "quiet", 0, NULL, 'q' }, { "lie", 0, NULL, 'L' }, { "trace", 0, NULL, 'v' }, { "help", 0, NULL, 'h' },
		{ NULL, 0, NULL, 0 } };
	int o;

	while ((o = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		uint64_t v = optarg ? strtoull(optarg, NULL, 0) : 0;

		switch (o) {
		case 's': opt->seed = v; opt->seeded = true; break;
		case 'o': opt->ops = v; break;
		case 'c': opt->sample = strncmp(optarg, "sample=", 7) ? UINT64_MAX : strtoull(optarg + 7, NULL, 0); break;
		case 't': opt->torn = (uint32_t)v; break;
		case 'l': opt->level = (uint32_t)v; break;
		case 'n': opt->states = v; break;
		case 'T': opt->seconds = (uint32_t)v; break;
		case 'e': opt->event = v; opt->only_event = true; break;
		case 'k': opt->subset = v; opt->only_subset = true; break;
		case 'S': opt->save = optarg; break;
		case 'q': opt->quiet = true; break;
		case 'v': opt->trace = true; break;
		case 'L': opt->lie = true; break;
		case 'h': usage(); exit(0);
		default: usage(); return 1;
		}
	}
	return optind != argc || opt->level < 1 || opt->level > 2;
}

int main(int argc, char **argv)
{
	struct options opt = { .ops = 120, .sample = UINT64_MAX, .torn = 512, .level = 1, .states = 1000 };
	uint64_t total = 0, seeds = 0, seed;
	time_t start = time(NULL);

	if (parse(argc, argv, &opt)) {
		usage();
		return 2;
	}
	seed = opt.seed;
	if (!opt.seeded)
		base_random(&seed, 4), seed &= 0xffffffff;
	do {
		int64_t n = run_seed(&opt, opt.level == 1 ? &store_workload : &files_workload, seed++);

		if (n < 0)
			return 1;
		total += (uint64_t)n;
		seeds++;
	} while (!opt.seeded && (opt.seconds ? time(NULL) - start < (time_t)opt.seconds : total < opt.states));
	printf("level %u: %" PRIu64 " states of the medium after a cut, %" PRIu64 " seeds from %" PRIu64
	       ", torn at %u: all recovered\n", opt.level, total, seeds, seed - seeds, opt.torn);
	return 0;
}
