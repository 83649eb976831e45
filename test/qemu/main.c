/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu TEST ADDRESS [ARGUMENT]: one test of the driver, inside a virtual machine; lines of `ok` and `not ok`. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "test/qemu/guest.h"

#define LONGEST_MS 60000u
#define MIX 0x9e3779b97f4a7c15ull

unsigned bad;

bool check(bool well, const char *name, const char *why, ...)
{
	va_list ap;

	printf("%s %s", well ? "ok" : "not ok", name);
	if (!well) {
		fputs(": ", stdout);
		va_start(ap, why);
		vprintf(why, ap);
		va_end(ap);
		bad++;
	}
	putchar('\n');
	fflush(stdout);
	return well;
}

uint64_t clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- data ---- */

static uint64_t word(uint64_t at, uint64_t seed)
{
	return (at + seed) * MIX;
}

void fill(void *buf, size_t len, uint64_t at, uint64_t seed)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t w = word(at + i, seed);

		memcpy((char *)buf + i, &w, MIN(len - i, 8ul));
	}
}

long differs(const void *buf, size_t len, uint64_t at, uint64_t seed)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t w = word(at + i, seed);

		if (memcmp((const char *)buf + i, &w, MIN(len - i, 8ul)))
			return (long)i;
	}
	return -1;
}

/* ---- controllers and commands ---- */

bool target_open(struct target *t, const char *address, uint32_t nsid, const struct nvme_opts *opts)
{
	struct base_err err;
	int rc = nvme_attach(address, opts, &t->c, &err);

	if (rc)
		return check(false, "attach", "%s", base_err_text(&err, rc));
	rc = nsid ? nvme_ns_get(t->c, nsid, &t->ns) : nvme_ns_next(t->c, 0, &t->ns);
	if (!rc)
		rc = nvme_qpair_create(t->c, 0, &t->q);
	if (rc) {
		nvme_detach(t->c);
		return check(false, "open", "%s", strerror(-rc));
	}
	return true;
}

void target_close(struct target *t)
{
	nvme_qpair_free(t->q);
	nvme_detach(t->c);
}

struct wait {
	unsigned calls;
	int rc;
};

static void done(struct nvme_cmd *cmd, int rc)
{
	struct wait *w = cmd->cb_arg;

	w->calls++;
	w->rc = rc;
}

int run_cmdv(struct target *t, enum nvme_op op, uint64_t lba, uint64_t blocks,
	     const struct iovec *iov, int iovcnt, uint16_t *status)
{
	uint64_t end = clock_ms() + LONGEST_MS;
	struct wait w = { 0, 0 };
	struct nvme_cmd cmd = { .op = op,
				.nsid = t->ns.nsid,
				.lba = lba,
				.blocks = blocks,
				.iov = iov,
				.iovcnt = iovcnt,
				.cb = done,
				.cb_arg = &w };

	nvme_submit(t->q, &cmd);
	while (!w.calls && clock_ms() < end)
		nvme_poll(t->q, 0);
	if (status)
		*status = cmd.status;
	if (!w.calls) {
		/* The command is on this stack. */
		nvme_qpair_free(t->q);
		nvme_qpair_create(t->c, 0, &t->q);
		return -ETIMEDOUT;
	}
	return w.calls == 1 ? w.rc : -EPROTO;
}

int run_cmd(struct target *t, enum nvme_op op, uint64_t lba, uint64_t blocks, void *buf, size_t len,
	    uint16_t *status)
{
	struct iovec v = { buf, len };

	return run_cmdv(t, op, lba, blocks, &v, buf ? 1 : 0, status);
}

int read_back(struct target *t, uint64_t lba, void *buf, size_t len, uint64_t seed)
{
	int rc;

	memset(buf, 0, len);
	rc = run_cmd(t, NVME_READ, lba, len / t->ns.block_size, buf, len, NULL);
	return rc ? rc : differs(buf, len, 0, seed) < 0 ? 0 : -EILSEQ;
}

int write_and_read(struct target *t, uint64_t lba, void *buf, size_t len, uint64_t seed)
{
	int rc;

	fill(buf, len, 0, seed);
	rc = run_cmd(t, NVME_WRITE, lba, len / t->ns.block_size, buf, len, NULL);
	return rc ? rc : read_back(t, lba, buf, len, seed);
}

/* ---- which one ---- */

static const struct {
	const char *name;
	void (*run)(const char *address, const char *argument);
} tests[] = {
	{ "mark", test_mark },         { "identify", test_identify }, { "sizes", test_sizes },
	{ "vectors", test_vectors },   { "two", test_two },           { "limits", test_limits },
	{ "metadata", test_metadata }, { "again", test_again },       { "sleep", test_sleep },
	{ "fork", test_fork },         { "hold", test_hold },         { "errors", test_errors },
	{ "late", test_late },         { "unplug", test_unplug },     { "reset", test_reset },
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 2 && i < ARRAY_SIZE(tests); i++) {
		if (!strcmp(argv[1], tests[i].name)) {
			tests[i].run(argv[2], argc > 3 ? argv[3] : "");
			return bad ? 1 : 0;
		}
	}
	fprintf(stderr, "usage: qemu TEST ADDRESS [ARGUMENT]\n");
	return 2;
}
