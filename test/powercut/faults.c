/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every device call of a workload fails once, in turn: with an error, or with a timeout that hides whether it was done. The workload
 * ends at the first call that reports it; what had been acknowledged before must be there, on the medium as it is and after a cut.
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

/* Fault number n: 1: survived; 0: the workload has no so many calls; -1: a finding. */
static int one_fault(const struct options *opt, uint64_t seed, uint64_t n, uint64_t *states)
{
	static const struct bdev_fault kinds[] = {
		{ .kind = BDEV_FAULT_ERROR, .op = -1, .count = 1, .rc = -EIO },
		{ .kind = BDEV_FAULT_TIMEOUT, .op = -1, .count = 1, .done = true },
		{ .kind = BDEV_FAULT_TIMEOUT, .op = -1, .count = 1 },
		{ .kind = BDEV_FAULT_SHORT, .op = -1, .count = 1, .rc = -EIO },
	};
	struct fault_run f = { .wl = opt->level == 1 ? &store_workload : &files_workload };
	struct bdev_fault fault = kinds[n % ARRAY_SIZE(kinds)];
	uint64_t calls, last;
	bool ok;

	f.run = (struct run){ .seed = seed, .ops = opt->ops, .device_size = 48 * MiB, .tracing = opt->trace };
	fault.first = n;
	rng_seed(&f.run.rng, seed);
	base_set_fake_clock(1000000000ull);
	make_device(&f);
	calls = bdev_fault_seen(f.faulty, -1);
	work(&f, &fault);
	calls = bdev_fault_seen(f.faulty, -1) - calls;
	last = bdev_powercut_events(f.run.dev);
	ok = verify_event(opt, &f.run, f.wl, f.w, last, states);
	f.wl->free(f.w);
	bdev_close(f.run.dev);
	if (!ok)
		printf("FAILED: call %" PRIu64 " failing (kind %" PRIu64 "): powercut --faults --level %u --seed %" PRIu64
		       " --ops %" PRIu64 " --event %" PRIu64 "\n",
		       n, n % ARRAY_SIZE(kinds), opt->level, seed, opt->ops, n);
	return !ok ? -1 : calls > n;
}

int64_t run_faults(const struct options *opt, uint64_t seed)
{
	uint64_t states = 0, n = opt->only_event ? opt->event : 0;
	int more = 1;

	for (; more > 0 && states < opt->states; n++) {
		more = one_fault(opt, seed, n, &states);
		if (opt->only_event)
			break;
	}
	if (!opt->quiet && more >= 0)
		printf("faults: seed %" PRIu64 ": %" PRIu64 " calls failed, %" PRIu64 " states\n", seed, n, states);
	return more < 0 ? -1 : (int64_t)states;
}
