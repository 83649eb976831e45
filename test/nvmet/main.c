/* SPDX-License-Identifier: BSD-2-Clause */
/* nvmet SOCKET --size SIZE [--file F | --null] [--block 512|4096] [--script S] …: serves an emulated NVMe controller. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "test/common/nvmet.h"

static struct nvmet *target;
static const char *script;

static void stop(int sig)
{
	(void)sig;
	atomic_store(&target->stop, true);
}

static int usage(void)
{
	fprintf(stderr,
		"usage: nvmet SOCKET --size SIZE [--file FILE | --null] [--block 512|4096] [--mdts N]\n"
		"             [--entries N] [--queues N] [--vectors N] [--boundary BLOCKS] [--namespaces N]\n"
		"             [--messages] [--write-through | --losing] [--script FILE]\n"
		"Serves an emulated NVMe controller at SOCKET over vfio-user until SIGTERM. With --losing its volatile\n"
		"cache is real: what was not flushed is lost when the power is cut. FILE, or a named pipe, has lines\n"
		"  [after N commands|reads|writes|flushes|fua|unflushed|ms] ACTION\n"
		"lose N, stick N, late N MS, duplicate N, wrong-cid N, fail N STATUS: so many I/O completions or commands;\n"
		"cfs, hold, all-ones, never-ready, no-entries [0]; ready MS; queues N; hang-up; powercut SEED (0: nothing survives).\n");
	return 2;
}

static bool parse(int argc, char **argv, struct nvmet_opts *o)
{
	static const struct option options[] = {
		{ "size", 1, NULL, 's' },     { "file", 1, NULL, 'f' },
		{ "null", 0, NULL, 'n' },     { "block", 1, NULL, 'b' },
		{ "mdts", 1, NULL, 'm' },     { "entries", 1, NULL, 'e' },
		{ "queues", 1, NULL, 'q' },   { "boundary", 1, NULL, 'o' },
		{ "messages", 0, NULL, 'M' }, { "namespaces", 1, NULL, 'N' },
		{ "vectors", 1, NULL, 'v' },  { "write-through", 0, NULL, 'w' },
		{ "losing", 0, NULL, 'l' },   { "script", 1, NULL, 'S' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		uint64_t n = 0;

		if (strchr("sbmeqoNv", c) && (base_parse_size(optarg, &n) || !n))
			return false;
		switch (c) {
		case 's':
			o->size = n;
			break;
		case 'f':
			o->file = optarg;
			break;
		case 'n':
			o->null = true;
			break;
		case 'b':
			o->block = (uint32_t)n;
			break;
		case 'm':
			o->mdts = (uint8_t)MIN(n, 9u);
			break;
		case 'e':
			o->mqes = (uint32_t)MIN(n - 1, 65535u);
			break;
		case 'q':
			o->queues = (uint32_t)MIN(n, NVMET_MAX_QUEUES);
			break;
		case 'o':
			o->noiob = (uint16_t)n;
			break;
		case 'N':
			o->namespaces = (uint32_t)MIN(n, 128u);
			break;
		case 'v':
			o->vectors = (uint32_t)MIN(n, NVMET_VECTORS);
			break;
		case 'w':
			o->write_through = true;
			break;
		case 'l':
			o->losing = true;
			break;
		case 'S':
			script = optarg;
			break;
		case 'M':
			o->messages = true;
			break;
		default:
			return false;
		}
	}
	if (o->block && (!is_pow2(o->block) || o->block < 512 || o->block > 4096))
		return false;
	return optind == argc - 1 && o->size && o->size % 4096 == 0 && !(o->file && o->null) &&
	       !(o->losing && (o->null || o->write_through));
}

int main(int argc, char **argv)
{
	struct nvmet_opts o = { 0 };
	struct sigaction sa = { .sa_handler = stop };
	int fd;

	if (!parse(argc, argv, &o))
		return usage();
	if (nvmet_create(&o, &target)) {
		fprintf(stderr, "nvmet: %s: %s\n", o.file ? o.file : "memory", strerror(errno));
		return 1;
	}
	if (script && (fd = nvmet_script_open(target, script))) {
		fprintf(stderr, "nvmet: %s: %s\n", script, strerror(-fd));
		nvmet_destroy(target);
		return 1;
	}
	fd = nvmet_listen(argv[optind]);
	if (fd < 0) {
		fprintf(stderr, "nvmet: %s: %s\n", argv[optind], strerror(-fd));
		nvmet_destroy(target);
		return 1;
	}
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	nvmet_serve(target, fd);
	close(fd);
	unlink(argv[optind]);
	nvmet_destroy(target);
	return 0;
}
