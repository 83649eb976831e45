/* SPDX-License-Identifier: BSD-2-Clause */
/* A seed's run: the workload once, then the medium as each cut may have left it, verified. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "test/powercut/powercut.h"

#define FEW 5u    /* undecided writes of which every subset is tried, where there are states to spare */
#define ALWAYS 3u /* and where there are not */
#define SHARE 8u  /* of all states that are asked for, what one seed may take before it becomes thrifty */

struct cutter {
	bool thrifty;
	const struct options *opt;
	struct run *run;
	struct bdev_cut cut;
	uint64_t states;
};

static void print_coverage(const struct coverage *v)
{
#define X(name) printf(" " #name " %" PRIu64, v->name);
	printf("  ");
	COVERAGE(X)
#undef X
	putchar('\n');
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
	if (c->opt->quiet)
		return false;
	printf("FAILED at event %" PRIu64 ": %s\n", c->cut.event, c->run->why);
	printf("replay: powercut --level %u --seed %" PRIu64 " --ops %" PRIu64 " --torn %u --event %" PRIu64
	       " --subset %" PRIu64 "%s%s\n",
	       c->opt->level, c->run->seed, c->opt->ops, c->opt->torn, c->cut.event, subset,
	       c->opt->service ? " --service (may differ from run to run)" : "", c->opt->lie ? " --lie" : "");
	if (c->opt->save)
		save_image(c);
	return false;
}

/*
 * Subset k of n undecided writes. Few: k counts through all 2^n, and two torn by seed follow. Many: none, all, each alone missing, each alone
 * there (the first few), then by seed. Returns false when k is past the last.
 */
static bool choose_subset(struct cutter *c, uint64_t k, uint64_t n, uint8_t *mask, size_t mask_len)
{
	uint64_t limit = n <= FEW ? 1ull << n : 6;

	if (n <= FEW && c->opt->torn && n)
		limit += 2; /* and two torn by seed */
	c->cut.mask = NULL;
	c->cut.torn = 0;
	c->cut.seed = c->run->seed * 1000003 + c->cut.event * 131 + k;
	if (k >= limit)
		return false;
	if (n > 8 * mask_len || (n <= FEW ? k >= 1ull << n : k >= 4)) {
		c->cut.torn = c->opt->torn;
		return true;
	}
	memset(mask, 0, mask_len);
	c->cut.mask = mask;
	if (n <= FEW)
		mask[0] = (uint8_t)k;
	else if (k & 1)
		memset(mask, 0xff, mask_len);
	if (n > FEW && k >= 2) {
		uint64_t i = c->cut.seed % n;

		mask[i / 8] ^= (uint8_t)(1u << (i % 8));
	}
	return true;
}

/* A number means the same subset whether all are tried or not: so a failure can be replayed. */
static bool is_tried(const struct cutter *c, uint64_t k, uint64_t n)
{
	uint64_t all = (1ull << MIN(n, 63u)) - 1, one = 1ull << (c->run->seed + c->cut.event) % MAX(MIN(n, 63u), 1u);

	if (c->opt->only_subset)
		return k == c->opt->subset;
	return n <= ALWAYS || n > FEW || !c->thrifty || k == 0 || k == one || k == all - one || k >= all;
}

static bool cut_at(struct cutter *c, const struct workload *wl, void *w, uint64_t event)
{
	uint8_t mask[64];
	uint64_t n, k;

	c->cut.event = event;
	n = bdev_powercut_undecided(c->run->dev, event);
	for (k = 0; choose_subset(c, k, n, mask, sizeof(mask)); k++) {
		if (is_tried(c, k, n) && !test_state(c, wl, w, k))
			return false;
	}
	return true;
}

bool verify_event(const struct options *opt, struct run *run, const struct workload *wl, void *w, uint64_t event, uint64_t *states)
{
	struct cutter c = { .opt = opt, .run = run, .thrifty = true };
	bool ok = cut_at(&c, wl, w, event);

	*states += c.states;
	return ok;
}

int64_t run_seed(const struct options *opt, uint64_t seed)
{
	const struct workload *own = opt->level == 1 ? &store_workload : &files_workload, *wl = opt->workload ? opt->workload : own;
	struct run run = { .seed = seed, .ops = opt->ops, .device_size = 48 * MiB, .tracing = opt->trace, .service = opt->service };
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
	base_set_fake_clock(opt->service ? 0 : 1000000000ull);
	w = wl->begin(&run);
	first = bdev_powercut_mark(run.dev);
	bdev_powercut_lie(run.dev, opt->lie);
	for (uint64_t i = 0; i < opt->ops; i++)
		wl->step(w);
	wl->end(w);
	last = bdev_powercut_events(run.dev);
	if (opt->only_event)
		ok = cut_at(&c, wl, w, opt->event);
	for (uint64_t e = first; ok && !opt->only_event && e <= last; e++) {
		/* Its share is spread over its life. */
		c.thrifty = c.states * SHARE * (last - first) > opt->states * (e - first);
		if (last - first <= opt->sample || rng_below(&pick, last - first) < opt->sample)
			ok = cut_at(&c, wl, w, e);
	}
	wl->free(w);
	bdev_close(run.dev);
	if (!opt->quiet)
		printf("%s: seed %" PRIu64 ": %" PRIu64 " events, %" PRIu64 " states%s\n", wl->name, seed, last - first,
		       c.states, ok ? "" : ", FAILED");
	if (opt->verbose)
		print_coverage(&run.coverage);
	fflush(stdout);
	return ok ? (int64_t)c.states : -1;
}

int64_t run_seeds(const struct options *opt, uint64_t seed, uint64_t *seeds)
{
	clock_t start = clock();
	uint64_t total = 0, n = 0;

	do {
		int64_t states = opt->faults ? run_faults(opt, seed + n) : run_seed(opt, seed + n);

		n++;
		if (states < 0)
			return -1;
		total += (uint64_t)states;
	} while (!opt->seeded && (opt->seconds ? clock() - start < (clock_t)opt->seconds * CLOCKS_PER_SEC : total < opt->states));
	*seeds = n;
	return (int64_t)total;
}
