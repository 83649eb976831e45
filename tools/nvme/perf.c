/* SPDX-License-Identifier: BSD-2-Clause */
/* perf: how fast a device is. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "tools/common/common.h"
#include "tools/common/probe.h"
#include "tools/nvme/perf.h"
#include "tools/nvme/verb.h"

#define MAX_DEPTH 4096
#define MAX_CHANNELS 128
#define MAX_SIZE (16 * MiB)

static atomic_bool interrupted;

/* ---- lanes ---- */

uint64_t lane_place(struct lane *l, bool *write)
{
	unsigned reads = l->p->read_percent;
	uint64_t x = l->random, place;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	l->random = x;
	*write = reads < 100 && (!reads || (x & 0xffff) * 100 >> 16 >= reads);
	if (l->p->random) {
		/* The upper half scaled, not a division, picks one of less than 2^32 places; of more, the remainder. */
		place = l->ios >> 32 ? x % l->ios : (x >> 32) * l->ios >> 32;
		return place * l->p->io_size;
	}
	place = l->next;
	l->next = place + 1 == l->first + l->ios ? l->first : place + 1;
	return place * l->p->io_size;
}

bool lane_done(struct lane *l, bool write, uint64_t began, uint64_t now, int rc)
{
	if (rc && !l->rc)
		l->rc = rc;
	if (l->rc || atomic_load_explicit(&l->p->stop, memory_order_relaxed))
		return false;
	hist_add(write ? &l->write : &l->read, now - began);
	return true;
}

static void note_failure(struct perf *p, const struct base_err *err, int rc)
{
	pthread_mutex_lock(&p->lock);
	if (!atomic_exchange(&p->failed, rc))
		p->err = *err;
	pthread_mutex_unlock(&p->lock);
}

static void *lane_thread(void *arg)
{
	struct lane *l = arg;
	struct perf *p = l->p;
	struct base_err err = { "" };
	struct timespec ts;
	int rc = p->engine->lane_open(l, &err);

	if (rc)
		note_failure(p, &err, rc);
	pthread_barrier_wait(&p->ready);
	if (!atomic_load(&p->failed)) {
		p->engine->lane_run(l);
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
		l->cpu_ns = (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
	}
	if (l->rc) {
		base_err_set(&err, l->rc, "%s: an I/O failed: %s", p->device, strerror(-l->rc));
		note_failure(p, &err, l->rc);
	}
	p->engine->lane_close(l);
	return NULL;
}

/* Random lanes go everywhere; others have a part of the device each. */
static void set_range(struct lane *l, uint64_t i)
{
	uint64_t all = l->p->device_size / l->p->io_size;

	base_random(&l->random, sizeof(l->random));
	l->random |= 1;
	l->ios = l->p->random ? all : MAX(all / l->p->channels, 1ull);
	l->first = l->next = l->p->random ? 0 : i * l->ios % all;
}

/* ---- measuring ---- */

static uint64_t wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void sleep_until(struct perf *p, uint64_t end)
{
	struct timespec nap = { .tv_nsec = 20000000 };

	while (!atomic_load(&p->failed) && !atomic_load(&interrupted)) {
		uint64_t now = wall_ns();

		if (now >= end)
			return;
		if (end - now < 20000000)
			nap.tv_nsec = (long)(end - now);
		nanosleep(&nap, NULL);
	}
}

static void measure(struct perf *p, struct result *r)
{
	uint64_t ns, start, t;

	pthread_barrier_wait(&p->ready);
	start = wall_ns();
	t = ticks();
	sleep_until(p, start + (uint64_t)(p->seconds * 1e9));
	atomic_store(&p->stop, true);
	t = ticks() - t;
	ns = wall_ns() - start;
	r->seconds = (double)ns / 1e9;
	r->ticks_per_ns = (double)t / (double)ns;
}

static int run_lanes(struct perf *p, struct lane *lanes, struct result *r)
{
	uint64_t n = p->channels;

	pthread_barrier_init(&p->ready, NULL, (unsigned)n + 1);
	for (uint64_t i = 0; i < n; i++) {
		lanes[i].p = p;
		set_range(&lanes[i], i);
		/* Without all its threads the barrier would never open. */
		if (pthread_create(&lanes[i].thread, NULL, lane_thread, &lanes[i])) {
			tool_error("cannot start %llu threads", (unsigned long long)n);
			exit(EXIT_FAILED);
		}
	}
	measure(p, r);
	for (uint64_t i = 0; i < n; i++) {
		pthread_join(lanes[i].thread, NULL);
		hist_merge(&r->read, &lanes[i].read);
		hist_merge(&r->write, &lanes[i].write);
		r->cpu_ns += lanes[i].cpu_ns;
		/* The counter goes on while others have the processor: its share counts. */
		if (lanes[i].ran)
			r->busy += (double)lanes[i].cpu_ns * r->ticks_per_ns *
				   (double)lanes[i].busy / (double)lanes[i].ran;
	}
	pthread_barrier_destroy(&p->ready);
	if (!atomic_load(&p->failed))
		return EXIT_OK;
	tool_error_of(p->device, p->err.text);
	return EXIT_FAILED;
}

static int check_size(struct perf *p)
{
	if (p->io_size % p->block_size)
		tool_error("%s: -o %llu is not a multiple of its blocks of %u bytes", p->device,
			   (unsigned long long)p->io_size, p->block_size);
	else if (p->device_size / p->io_size < p->channels)
		tool_error("%s: it has no room for %llu I/Os of %llu bytes", p->device,
			   (unsigned long long)p->channels, (unsigned long long)p->io_size);
	else
		return EXIT_OK;
	return EXIT_FAILED;
}

static int run_perf(struct perf *p)
{
	static struct result result;
	struct base_err err = { "" };
	struct lane *lanes;
	int rc = p->engine->open(p, &err);

	if (rc) {
		tool_error_of(p->device, base_err_text(&err, rc));
		return EXIT_FAILED;
	}
	lanes = calloc(p->channels, sizeof(*lanes));
	rc = lanes ? check_size(p) : device_failed(p->device, "perf", -ENOMEM);
	if (!rc)
		rc = run_lanes(p, lanes, &result);
	free(lanes);
	p->engine->close(p);
	return rc ? rc : perf_report(p, &result);
}

/* ---- what must not be destroyed ---- */

static int may_write(const struct perf *p)
{
	char what[512];
	struct base_err err = { "" };
	int rc;

	if (tool_in_use(p->device, TOOL_WRITE, what, sizeof(what))) {
		tool_error("%s is in use: %s", p->device, what);
		return EXIT_FAILED;
	}
	if (p->destroy)
		return EXIT_OK;
	rc = tool_probe_any(p->device, what, sizeof(what), &err);
	if (rc < 0)
		tool_error_of(p->device, base_err_text(&err, rc));
	else if (rc > 0)
		tool_error("%s holds %s; --destroy overwrites it", p->device, what);
	return rc ? EXIT_FAILED : EXIT_OK;
}

/* ---- the command line ---- */

static const struct pattern {
	const char *name;
	bool random;
	unsigned read_percent;
} patterns[] = {
	{ "randread", true, 100 }, { "randwrite", true, 0 }, { "randrw", true, 50 },
	{ "read", false, 100 },    { "write", false, 0 },    { "rw", false, 50 },
};

static bool set_pattern(struct perf *p, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(patterns); i++) {
		if (strcmp(patterns[i].name, name))
			continue;
		p->pattern = patterns[i].name;
		p->random = patterns[i].random;
		p->read_percent = patterns[i].read_percent;
		return true;
	}
	return false;
}

static bool set_number(uint64_t *to, const char *text, uint64_t most)
{
	return !base_parse_size(text, to) && *to && *to <= most;
}

static bool set_seconds(struct perf *p, const char *text)
{
	char *end;

	p->seconds = strtod(text, &end);
	return end != text && !*end && p->seconds > 0 && p->seconds <= 1e6;
}

/* -1: go on; else the exit code. */
static int parse(struct perf *p, int argc, char **argv)
{
	static const struct option longs[] = { { "json", no_argument, NULL, 'j' },
					       { "destroy", no_argument, NULL, 'd' },
					       { "help", no_argument, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	bool good = true;
	int c;

	while (good && (c = getopt_long(argc, argv, "w:o:q:c:t:h", longs, NULL)) != -1) {
		switch (c) {
		case 'w':
			good = set_pattern(p, optarg);
			break;
		case 'o':
			good = set_number(&p->io_size, optarg, MAX_SIZE) && p->io_size % 512 == 0;
			break;
		case 'q':
			good = set_number(&p->depth, optarg, MAX_DEPTH);
			break;
		case 'c':
			good = set_number(&p->channels, optarg, MAX_CHANNELS);
			break;
		case 't':
			good = set_seconds(p, optarg);
			break;
		case 'j':
			p->json = true;
			break;
		case 'd':
			p->destroy = true;
			break;
		case 'h':
			return verb_help(&verb_perf);
		default:
			return usage_error(&verb_perf, "%s", "");
		}
		if (!good)
			return usage_error(&verb_perf, "-%c %s is out of the question", c, optarg);
	}
	if (optind != argc - 1)
		return usage_error(&verb_perf,
				   optind == argc ? "no device given" : "too many arguments");
	p->device = argv[optind];
	return -1;
}

static void interrupt(int sig)
{
	(void)sig;
	atomic_store(&interrupted, true);
}

static int run(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = interrupt };
	static struct perf p = { .io_size = 4096,
				 .depth = 32,
				 .channels = 1,
				 .seconds = 10,
				 .lock = PTHREAD_MUTEX_INITIALIZER };
	int rc;

	set_pattern(&p, "randread");
	rc = parse(&p, argc, argv);
	if (rc >= 0)
		return rc;
	p.polled = !strncmp(p.device, "nvme:", 5);
	p.engine = p.polled ? &engine_nvme : &engine_bdev;
	if (p.read_percent < 100) {
		rc = may_write(&p);
		if (rc)
			return rc;
	}
	/* Stopped early, it says what it has found so far. */
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	return run_perf(&p);
}

const struct verb verb_perf = {
	"perf",
	"DEVICE [-w PATTERN] [-o SIZE] [-q DEPTH] [-c CHANNELS] [-t SECONDS] [--destroy] [--json]",
	"How fast a device is: I/Os a second, latency, processor cycles",
	"  -w PATTERN   randread (default), randwrite, randrw, read, write, rw; in the mixed ones half are reads\n"
	"  -o SIZE      of an I/O: 512 to 16M (4K)\n"
	"  -q DEPTH     I/Os outstanding on a channel (32)\n"
	"  -c CHANNELS  threads, each with a queue of its own (1)\n"
	"  -t SECONDS   how long (10)\n"
	"  --destroy    write even over a file system\n"
	"Writing destroys what the device holds; a device that holds a file system needs --destroy.\n",
	run,
};
