/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every device call of a workload fails once, in turn: with an error, with a timeout that hides whether it was done, half done, for want of
 * space below (a sparse image on a full file system), and so that nothing can be written from then on. The workload ends at the first call
 * that reports it; what had been acknowledged before must be there, on the medium as it is and after a cut. Calls and ways
 * to fail are gone through in an order of the seed's, until all had their turn or enough states were seen.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "test/powercut/powercut.h"

struct fault_run {
	struct run run;
	struct bdev *faulty;
	const struct workload *wl;
	void *volatile w;
};

static void make_device(struct fault_run *f)
{
	struct bdev *ram;

	if (bdev_open("ram:48M", NULL, &ram, NULL) || bdev_fault_create(ram, &f->faulty) ||
	    bdev_powercut_create(f->faulty, &f->run.dev))
		broken(&f->run, "cannot make the device");
}

/* True: some call of the workload reported it. */
static bool work(struct fault_run *f, const struct bdev_fault *fault)
{
	jmp_buf escape;
	volatile bool failed = false;

	f->w = f->wl->begin(&f->run);
	if (bdev_fault_add(f->faulty, fault))
		broken(&f->run, "cannot add a fault");
	f->run.escape = &escape;
	if (setjmp(escape) == 0) {
		for (uint64_t i = 0; i < f->run.ops; i++)
			f->wl->step(f->w);
	} else {
		failed = true;
	}
	f->run.escape = NULL;
	bdev_fault_clear(f->faulty);
	f->wl->end(f->w);
	return failed;
}

static const struct bdev_fault kinds[] = {
	{ .kind = BDEV_FAULT_ERROR, .op = -1, .count = 1, .rc = -EIO },
	{ .kind = BDEV_FAULT_TIMEOUT, .op = -1, .count = 1, .done = true },
	{ .kind = BDEV_FAULT_TIMEOUT, .op = -1, .count = 1 },
	{ .kind = BDEV_FAULT_SHORT, .op = -1, .count = 1, .rc = -EIO },
	{ .kind = BDEV_FAULT_ERROR, .op = -1, .count = 1, .rc = -ENOSPC },
	{ .kind = BDEV_FAULT_ERROR, .op = BDEV_WRITE, .count = UINT64_MAX, .rc = -ENOSPC },
};

/* Call number n / kinds fails in that way. Returns the calls the workload made, or -1: a finding. */
static int64_t one_fault(const struct options *opt, uint64_t seed, uint64_t n, uint64_t *states, uint64_t *reported)
{
	struct fault_run f = { .wl = opt->level == 1 ? &store_workload : &files_workload };
	struct bdev_fault fault = kinds[n % ARRAY_SIZE(kinds)];
	uint64_t calls, last;
	bool ok;

	f.run = (struct run){ .seed = seed, .ops = opt->ops, .device_size = 48 * MiB, .tracing = opt->trace };
	fault.first = n / ARRAY_SIZE(kinds);
	rng_seed(&f.run.rng, seed);
	base_set_fake_clock(1000000000ull);
	make_device(&f);
	calls = bdev_fault_seen(f.faulty, -1);
	*reported += work(&f, &fault);
	calls = bdev_fault_seen(f.faulty, -1) - calls;
	last = bdev_powercut_events(f.run.dev);
	ok = verify_event(opt, &f.run, f.wl, f.w, last, states);
	f.wl->free(f.w);
	bdev_close(f.run.dev);
	if (!ok)
		printf("FAILED: call %" PRIu64 " failing (kind %" PRIu64 "): powercut --faults --level %u --seed %" PRIu64
		       " --ops %" PRIu64 " --event %" PRIu64 "\n",
		       fault.first, n % ARRAY_SIZE(kinds), opt->level, seed, opt->ops, n);
	return ok ? (int64_t)calls : -1;
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
	return b ? common_divisor(b, a % b) : a;
}

/* All numbers below total once each: any step that has no divisor in common with it goes round. */
static int64_t all_faults(const struct options *opt, uint64_t seed, uint64_t total, uint64_t *states, uint64_t *reported)
{
	struct rng pick;
	uint64_t n, step, done = 0;
	bool ok = true;

	rng_seed(&pick, seed + 1);
	n = rng_below(&pick, total);
	do
		step = 1 + rng_below(&pick, total);
	while (common_divisor(step, total) != 1);
	for (; ok && done < total && *states < opt->states; done++, n = (n + step) % total)
		ok = one_fault(opt, seed, n, states, reported) >= 0;
	return ok ? (int64_t)done : -1;
}

int64_t run_faults(const struct options *opt, uint64_t seed)
{
	uint64_t states = 0, reported = 0;
	int64_t calls, done;

	if (opt->only_event)
		return one_fault(opt, seed, opt->event, &states, &reported) < 0 ? -1 : (int64_t)states;
	/* None fails: how many calls there are. */
	calls = one_fault(opt, seed, (uint64_t)1 << 40, &states, &reported);
	done = calls > 0 ? all_faults(opt, seed, (uint64_t)calls * ARRAY_SIZE(kinds), &states, &reported) : calls;
	if (!opt->quiet && done >= 0)
		printf("faults: seed %" PRIu64 ": %" PRIi64 " of %" PRIu64 " failures, %" PRIu64 " reported, %" PRIu64 " states\n", seed, done,
		       (uint64_t)calls * ARRAY_SIZE(kinds), reported, states);
	return done < 0 ? -1 : (int64_t)states;
}
