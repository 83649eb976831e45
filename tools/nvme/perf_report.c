/* SPDX-License-Identifier: BSD-2-Clause */
/* What a measurement has found, for people and for programs. */
#include <json-c/json.h>
#include <stdio.h>

#include "tools/common/common.h"
#include "tools/nvme/perf.h"
#include "tools/nvme/verb.h"

struct latency {
	double average, p50, p99, p999, max; /* microseconds */
};

static struct latency latency_of(const struct hist *h, const struct result *r)
{
	double us = r->ticks_per_ns * 1000;

	return (struct latency){ h->n ? (double)h->sum / (double)h->n / us : 0,
				 (double)hist_quantile(h, 0.5) / us,
				 (double)hist_quantile(h, 0.99) / us,
				 (double)hist_quantile(h, 0.999) / us, (double)h->max / us };
}

static double iops(const struct hist *h, const struct result *r)
{
	return (double)h->n / r->seconds;
}

static double megabytes(const struct perf *p, const struct hist *h, const struct result *r)
{
	return iops(h, r) * (double)p->io_size / 1e6;
}

static void print_one(const struct perf *p, const char *name, const struct hist *h,
		      const struct result *r)
{
	struct latency l = latency_of(h, r);

	printf("%-6s %10.0f IOPS %9.1f MB/s   latency in us: average %.1f, p50 %.1f, p99 %.1f, p99.9 %.1f, max %.1f\n",
	       name, iops(h, r), megabytes(p, h, r), l.average, l.p50, l.p99, l.p999, l.max);
}

/* Cycles are ticks of the time-stamp counter. */
static double per_io(double tick, const struct hist *all)
{
	return all->n ? tick / (double)all->n : 0;
}

static double cpu_percent(const struct result *r)
{
	return (double)r->cpu_ns / (r->seconds * 1e9) * 100;
}

static int report_text(const struct perf *p, const struct result *r, const struct hist *all)
{
	char size[32];

	printf("%s: %s of %s, depth %llu, %llu channel%s, %.1f s\n", p->device, p->pattern,
	       base_format_size(p->io_size, size, sizeof(size)), (unsigned long long)p->depth,
	       (unsigned long long)p->channels, p->channels == 1 ? "" : "s", r->seconds);
	if (r->read.n && r->write.n) {
		print_one(p, "read", &r->read, r);
		print_one(p, "write", &r->write, r);
		print_one(p, "both", all, r);
	} else {
		print_one(p, r->write.n ? "write" : "read", all, r);
	}
	printf("CPU    %10.0f cycles per I/O", per_io((double)r->cpu_ns * r->ticks_per_ns, all));
	if (p->polled)
		printf(", %.0f of them not idle polling", per_io(r->busy, all));
	printf(" (%.0f %% of a core at %.2f GHz)\n", cpu_percent(r), r->ticks_per_ns);
	return EXIT_OK;
}

/* ---- JSON ---- */

static void number(struct json_object *o, const char *key, double v)
{
	char text[40];

	snprintf(text, sizeof(text), "%.3f", v);
	json_object_object_add(o, key, json_object_new_double_s(v, text));
}

static void add_one(struct json_object *o, const struct perf *p, const struct hist *h,
		    const struct result *r)
{
	struct json_object *j = json_object_new_object();
	struct latency l = latency_of(h, r);

	number(o, "iops", iops(h, r));
	number(o, "mb_per_s", megabytes(p, h, r));
	json_object_object_add(o, "ios", json_object_new_uint64(h->n));
	number(j, "average", l.average);
	number(j, "p50", l.p50);
	number(j, "p99", l.p99);
	number(j, "p99.9", l.p999);
	number(j, "max", l.max);
	json_object_object_add(o, "latency_us", j);
}

static int report_json(const struct perf *p, const struct result *r, const struct hist *all)
{
	struct json_object *o = json_object_new_object(), *read = json_object_new_object(),
			   *write = json_object_new_object();

	json_object_object_add(o, "device", json_object_new_string(p->device));
	json_object_object_add(o, "pattern", json_object_new_string(p->pattern));
	json_object_object_add(o, "io_size", json_object_new_uint64(p->io_size));
	json_object_object_add(o, "depth", json_object_new_uint64(p->depth));
	json_object_object_add(o, "channels", json_object_new_uint64(p->channels));
	number(o, "seconds", r->seconds);
	add_one(o, p, all, r);
	add_one(read, p, &r->read, r);
	add_one(write, p, &r->write, r);
	json_object_object_add(o, "read", read);
	json_object_object_add(o, "write", write);
	number(o, "cycles_per_io", per_io((double)r->cpu_ns * r->ticks_per_ns, all));
	if (p->polled)
		number(o, "busy_cycles_per_io", per_io(r->busy, all));
	number(o, "cpu_percent", cpu_percent(r));
	number(o, "ghz", r->ticks_per_ns);
	return print_json(o);
}

int perf_report(const struct perf *p, const struct result *r)
{
	static struct hist all;

	hist_merge(&all, &r->read);
	hist_merge(&all, &r->write);
	return p->json ? report_json(p, r, &all) : report_text(p, r, &all);
}
