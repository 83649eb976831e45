/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a read costs the NVMe driver: random reads of 4 KiB by one thread on one queue pair, resubmitted from their callbacks.
 *
 *   nvme_bench ADDRESS [-q DEPTH]... [-t SECONDS] [-n READS] [-s MICROSECONDS]
 *
 * Without -q: depths 1, 32 and 128. A line for each: depth, reads a second, cycles (rdtsc) and nanoseconds a read, reads a poll.
 * -n: so many reads in place of a time. -s: sleeps before each poll, so that no poll is in vain: for counting instructions
 * (bench/nvme_count.py).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "nvme/nvme.h"

#define READ 4096u
#define MAX_DEPTH 1023u
#define MAX_RUNS 16

struct one {
	struct nvme_cmd cmd;
	struct iovec v;
};

struct run {
	struct nvme_qpair *q;
	uint64_t mask; /* of the reads' places */
	uint32_t per;  /* blocks a read */
	uint64_t left, done, failed, polls, seed;
	struct one *all;
};

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static void submit(struct run *r, struct one *o)
{
	o->cmd.lba = (next_random(&r->seed) & r->mask) * r->per;
	r->left--;
	nvme_submit(r->q, &o->cmd);
}

static void read_done(struct nvme_cmd *cmd, int rc)
{
	struct run *r = cmd->cb_arg;

	r->done++;
	r->failed += rc != 0;
	if (r->left)
		submit(r, (struct one *)cmd);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Reads until none is left, or the time is over. Its name is known to nvme_count.py. */
__attribute__((noinline, noclone)) static void loop(struct run *r, double seconds,
						    unsigned settle_us)
{
	double end = now() + seconds;

	while (nvme_outstanding(r->q)) {
		if (settle_us)
			usleep(settle_us);
		nvme_poll(r->q, 0);
		if (!(++r->polls & 4095) && now() > end)
			r->left = 0;
	}
}

static int prepare(struct run *r, struct nvme_ctrlr *c, unsigned depth, char *buf)
{
	struct nvme_ns_info ns;
	uint64_t places;
	int rc = nvme_ns_next(c, 0, &ns);

	if (rc)
		return rc;
	r->per = READ / ns.block_size;
	places = ns.blocks / r->per;
	for (r->mask = 1; r->mask * 2 <= places; r->mask *= 2)
		;
	r->mask--;
	r->all = calloc(depth, sizeof(*r->all));
	if (!r->all)
		return -1;
	for (unsigned i = 0; i < depth; i++) {
		struct one *o = &r->all[i];

		o->v = (struct iovec){ buf + (size_t)i * READ, READ };
		o->cmd = (struct nvme_cmd){ .op = NVME_READ,
					    .nsid = ns.nsid,
					    .blocks = r->per,
					    .iov = &o->v,
					    .iovcnt = 1,
					    .cb = read_done,
					    .cb_arg = r };
	}
	return nvme_qpair_create(c, depth, &r->q);
}

static int measure(struct nvme_ctrlr *c, unsigned depth, double seconds, uint64_t reads,
		   unsigned settle_us)
{
	struct run r = { .left = reads ? reads : UINT64_MAX, .seed = 88172645463325252ull };
	char *buf = nvme_alloc((size_t)depth * READ, READ);
	uint64_t cycles;
	double took;
	int rc = buf ? prepare(&r, c, depth, buf) : -1;

	if (!rc) {
		memset(buf, 1, (size_t)depth * READ);
		took = now();
		cycles = __rdtsc();
		for (unsigned i = 0; i < depth && r.left; i++)
			submit(&r, &r.all[i]);
		loop(&r, reads ? 1e9 : seconds, settle_us);
		cycles = __rdtsc() - cycles;
		took = now() - took;
		printf("depth %4u: %9.0f reads/s, %6.0f cycles, %6.0f ns a read, %.1f reads a poll%s\n",
		       depth, (double)r.done / took, (double)cycles / (double)r.done,
		       took * 1e9 / (double)r.done, (double)r.done / (double)r.polls,
		       r.failed ? ", FAILED" : "");
		rc = r.failed ? -1 : 0;
		nvme_qpair_free(r.q);
	}
	free(r.all);
	nvme_free(buf);
	return rc;
}

int main(int argc, char **argv)
{
	unsigned depths[MAX_RUNS] = { 1, 32, 128 }, n = 0, settle = 0;
	uint64_t reads = 0;
	double seconds = 2;
	struct nvme_ctrlr *c;
	struct base_err err;
	int o, rc = 0;

	while ((o = getopt(argc, argv, "q:t:n:s:")) != -1) {
		if (o == 'q' && n < MAX_RUNS)
			depths[n++] = (unsigned)atoi(optarg);
		else if (o == 't')
			seconds = atof(optarg);
		else if (o == 'n')
			reads = strtoull(optarg, NULL, 0);
		else if (o == 's')
			settle = (unsigned)atoi(optarg);
		else
			optind = argc;
	}
	if (optind != argc - 1) {
		fprintf(stderr,
			"usage: nvme_bench ADDRESS [-q DEPTH]... [-t SECONDS] [-n READS] [-s MICROSECONDS]\n");
		return 2;
	}
	if (nvme_attach(argv[optind], NULL, &c, &err)) {
		fprintf(stderr, "nvme_bench: %s\n", err.text);
		return 1;
	}
	for (unsigned i = 0; i < (n ? n : 3) && !rc; i++)
		rc = depths[i] && depths[i] <= MAX_DEPTH
			     ? measure(c, depths[i], seconds, reads, settle)
			     : -1;
	nvme_detach(c);
	return rc ? 1 : 0;
}
