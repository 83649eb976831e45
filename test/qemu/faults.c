/* SPDX-License-Identifier: BSD-2-Clause */
/* What goes wrong: errors of the medium, commands that take too long, resets, and controllers that are pulled out. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "test/qemu/guest.h"

/* ---- many at once, each ended once ---- */

enum { MANY = 64 };

struct load {
	struct target t;
	struct nvme_cmd cmd[MANY];
	struct iovec v[MANY];
	unsigned calls[MANY];
	int rc[MANY];
	char *buf;
	unsigned ended;
	bool again; /* submit each again as long as it is well */
	uint64_t rounds;
};

static void load_done(struct nvme_cmd *cmd, int rc)
{
	struct load *l = cmd->cb_arg;
	size_t i = (size_t)(cmd - l->cmd);

	if (l->again && !rc) {
		l->rounds++;
		nvme_submit(l->t.q, cmd);
		return;
	}
	l->calls[i]++;
	l->rc[i] = rc;
	l->ended++;
}

static bool load_start(struct load *l, uint64_t lba)
{
	l->buf = nvme_alloc((size_t)MANY * l->t.ns.block_size, 0);
	if (!l->buf)
		return check(false, "load", "no memory");
	for (unsigned i = 0; i < MANY; i++) {
		l->v[i] = (struct iovec){ l->buf + (size_t)i * l->t.ns.block_size,
					  l->t.ns.block_size };
		l->cmd[i] = (struct nvme_cmd){ .op = i % 2 ? NVME_READ : NVME_WRITE,
					       .nsid = l->t.ns.nsid,
					       .lba = lba + i,
					       .blocks = 1,
					       .iov = &l->v[i],
					       .iovcnt = 1,
					       .cb = load_done,
					       .cb_arg = l };
		nvme_submit(l->t.q, &l->cmd[i]);
	}
	return true;
}

/* Polls until all have ended, and a while longer, for some might end twice. */
static void load_wait(struct load *l, uint64_t ms, uint64_t longer_ms)
{
	uint64_t end = clock_ms() + ms;

	while (l->ended < MANY && clock_ms() < end)
		nvme_poll(l->t.q, 0);
	end = clock_ms() + longer_ms;
	while (clock_ms() < end)
		nvme_poll(l->t.q, 0);
}

static bool all_ended(const struct load *l, int rc)
{
	for (unsigned i = 0; i < MANY; i++)
		if (l->calls[i] != 1 || l->rc[i] != rc)
			return false;
	return true;
}

static unsigned not_as(const struct load *l, int rc)
{
	unsigned n = 0;

	for (unsigned i = 0; i < MANY; i++)
		n += l->rc[i] != rc;
	return n;
}

/* ---- errors of the medium ---- */

/* The machine fails reads of the first block named, writes of the next, and flushes while the file says so. */
void test_errors(const char *address, const char *first)
{
	uint64_t lba = (uint64_t)atoi(first);
	uint16_t status = 0;
	struct target t;
	char *buf;
	int rc;

	if (!target_open(&t, address, 0, NULL))
		return;
	buf = nvme_alloc(65536, 0);
	fill(buf, 65536, 0, 9);
	rc = run_cmd(&t, NVME_READ, lba, 1, buf, t.ns.block_size, &status);
	check(rc == -EIO && status == 0x281, "read", "%s, status %#x", strerror(-rc), status);
	rc = run_cmd(&t, NVME_READ, lba - 4, 16, buf, 16 * (size_t)t.ns.block_size, &status);
	check(rc == -EIO && status == 0x281, "long_read", "%s, status %#x", strerror(-rc), status);
	rc = run_cmd(&t, NVME_WRITE, lba + 1, 1, buf, t.ns.block_size, &status);
	check(rc == -EIO && status == 0x280, "write", "%s, status %#x", strerror(-rc), status);
	fill(buf, 65536, 0, 9);
	rc = run_cmd(&t, NVME_WRITE, lba + 64, 1, buf, t.ns.block_size, &status);
	memset(buf, 0, 65536);
	if (!rc)
		rc = run_cmd(&t, NVME_READ, lba + 64, 1, buf, t.ns.block_size, &status);
	check(!rc && differs(buf, t.ns.block_size, 0, 9) < 0, "elsewhere", "%s, status %#x",
	      strerror(-rc), status);
	nvme_free(buf);
	target_close(&t);
}

/* ---- late ---- */

/* A command takes three seconds. With less patience it is given up, once; with more it ends well. */
void test_late(const char *address, const char *none)
{
	struct nvme_opts o = { .size = sizeof(o), .timeout_ms = 400 };
	struct load l = { .ended = 0 };
	uint64_t start;
	char *buf;
	int rc;

	(void)none;
	if (!target_open(&l.t, address, 0, &o))
		return;
	start = clock_ms();
	if (load_start(&l, 0))
		load_wait(&l, 30000, 4000);
	check(all_ended(&l, -ETIMEDOUT), "given_up_once",
	      "%u of %u ended, %u otherwise, in %llu ms", l.ended, MANY, not_as(&l, -ETIMEDOUT),
	      (unsigned long long)(clock_ms() - start));
	check(!nvme_failed(l.t.c), "the_controller_was_reset", "it is given up");
	nvme_free(l.buf);
	target_close(&l.t);
	if (!target_open(&l.t, address, 0, NULL))
		return;
	buf = nvme_alloc(4096, 0);
	start = clock_ms();
	rc = run_cmd(&l.t, NVME_READ, 0, 1, buf, l.t.ns.block_size, NULL);
	check(!rc && clock_ms() - start >= 2500, "waited_for", "%s after %llu ms", strerror(-rc),
	      (unsigned long long)(clock_ms() - start));
	nvme_free(buf);
	target_close(&l.t);
}

/* ---- resets ---- */

void test_reset(const char *address, const char *none)
{
	struct load l = { .again = true };
	uint64_t end, before;
	int rc = 0;

	(void)none;
	if (!target_open(&l.t, address, 0, NULL) || !load_start(&l, 0))
		return;
	for (unsigned i = 0; i < 5 && !rc; i++) {
		for (end = clock_ms() + 100; clock_ms() < end;)
			nvme_poll(l.t.q, 0);
		rc = nvme_reset(l.t.c);
	}
	before = l.rounds;
	for (end = clock_ms() + 10000; clock_ms() < end && l.rounds < before + MANY;)
		nvme_poll(l.t.q, 0);
	check(!rc && l.rounds >= before + MANY && !l.ended, "resets_under_load",
	      "%s, %llu commands after them, %u ended with an error", strerror(-rc),
	      (unsigned long long)(l.rounds - before), l.ended);
	l.again = false;
	load_wait(&l, 10000, 0);
	check(all_ended(&l, 0), "all_end_well", "%u ended, %u with an error", l.ended,
	      not_as(&l, 0));
	nvme_free(l.buf);
	target_close(&l.t);
}

/* ---- pulled out ---- */

/* To whoever runs the machine: which device is to go. */
static void ask_for_it(const char *id)
{
	FILE *f = fopen("/dev/console", "w");

	if (f) {
		fprintf(f, "PULL %s\n", id);
		fclose(f);
	}
}

/* Says when it is busy; then the machine takes the controller away. */
void test_unplug(const char *address, const char *id)
{
	struct load l = { .again = true };
	struct nvme_qpair *q;
	int rc;

	if (!target_open(&l.t, address, 0, NULL) || !load_start(&l, 0))
		return;
	while (l.rounds < MANY * 4 && !l.ended)
		nvme_poll(l.t.q, 0);
	ask_for_it(id);
	load_wait(&l, 20000, 100);
	check(l.rounds && all_ended(&l, -ENODEV), "all_end", "%u of %u ended, %u otherwise",
	      l.ended, MANY, not_as(&l, -ENODEV));
	check(nvme_failed(l.t.c), "it_is_gone", "it is not");
	rc = run_cmd(&l.t, NVME_READ, 0, 1, l.buf, l.t.ns.block_size, NULL);
	check(rc == -ENODEV, "later_commands", "%s", strerror(-rc));
	rc = nvme_qpair_create(l.t.c, 0, &q);
	check(rc == -ENODEV, "later_queues", "%s", strerror(-rc));
	nvme_free(l.buf);
	target_close(&l.t);
	check(true, "detached", " ");
}
