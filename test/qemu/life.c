/* SPDX-License-Identifier: BSD-2-Clause */
/* Attaching again and again, sleeping on interrupts, forks, and who holds a controller. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "test/qemu/guest.h"

#define LEN (64 * KiB)

static bool write_and_compare(struct target *t, uint64_t seed, const char *name)
{
	char *buf = nvme_alloc(LEN, 0);
	int rc = buf ? write_and_read(t, 16, buf, LEN, seed) : -ENOMEM;

	nvme_free(buf);
	return !rc || check(false, name, "%s", strerror(-rc));
}

/* Memory taken while nobody is attached is reached by who comes then. */
void test_again(const char *address, const char *times)
{
	struct base_err err;
	struct nvme_ctrlr *c;
	struct target t;
	bool well = true;
	char *kept = NULL;
	int rc;

	for (int i = 0; i < atoi(times) && well; i++) {
		well = target_open(&t, address, 0, NULL);
		if (!well)
			return;
		well = write_and_compare(&t, (uint64_t)i, "again");
		if (kept && run_cmd(&t, NVME_READ, 16, LEN / t.ns.block_size, kept, LEN, NULL))
			well = check(false, "again", "memory of before cannot be reached");
		if (kept && differs(kept, LEN, 0, (uint64_t)i) >= 0)
			well = check(false, "again", "memory of before is not what is read into");
		if (i == 0) {
			rc = nvme_attach(address, NULL, &c, &err);
			check(rc == -EBUSY && strstr(err.text, "in use by this program"), "twice",
			      "%s", rc ? err.text : "it can be had twice");
		}
		target_close(&t);
		nvme_free(kept);
		kept = nvme_alloc(LEN, 0);
	}
	nvme_free(kept);
	if (well)
		check(true, "again", " ");
}

/* ---- interrupts ---- */

static void count_call(struct nvme_cmd *cmd, int rc)
{
	(void)rc;
	(*(unsigned *)cmd->cb_arg)++;
}

void test_sleep(const char *address, const char *vectors)
{
	struct nvme_opts o = { .size = sizeof(o), .interrupts = true };
	bool well = true;
	struct target t;
	char *buf;

	if (!target_open(&t, address, 0, &o))
		return;
	check(nvme_info(t.c)->interrupts == (atoi(vectors) > 0), "interrupts", "%d",
	      nvme_info(t.c)->interrupts);
	buf = nvme_alloc(LEN, 0);
	for (unsigned i = 0; i < 20 && well && nvme_info(t.c)->interrupts; i++) {
		struct iovec v = { buf, t.ns.block_size };
		struct pollfd p = { .fd = nvme_qpair_fd(t.q), .events = POLLIN };
		struct nvme_cmd cmd = {
			.op = NVME_READ, .nsid = t.ns.nsid, .blocks = 1, .iov = &v, .iovcnt = 1
		};
		unsigned calls = 0;

		cmd.cb = count_call;
		cmd.cb_arg = &calls;
		nvme_qpair_arm(t.q);
		nvme_submit(t.q, &cmd);
		nvme_kick(t.q);
		well = poll(&p, 1, 5000) == 1 || check(false, "sleep", "no interrupt in 5 s");
		nvme_poll(t.q, 0);
		well = well &&
		       (calls == 1 || check(false, "sleep", "interrupt, but no completion"));
		while (!calls)
			nvme_poll(t.q, 0);
	}
	if (well)
		check(true, "sleep", " ");
	nvme_free(buf);
	target_close(&t);
}

/* ---- forks ---- */

static int child(struct target *t, const char *address, char *shared)
{
	struct nvme_ctrlr *c;
	struct base_err err;

	nvme_forked(t->c);
	/* Its own copy. */
	if (strcmp(shared, "parent"))
		return 1;
	strcpy(shared, "child");
	if (nvme_attach(address, NULL, &c, &err) == 0)
		return 2;
	fprintf(stderr, "child: %s\n", err.text);
	return 0;
}

/* The parent goes on, undisturbed, while and after a child lives; a child that outlives it keeps nobody out. */
void test_fork(const char *address, const char *none)
{
	struct target t;
	char *shared;
	int status = -1;
	pid_t pid;

	(void)none;
	if (!target_open(&t, address, 0, NULL))
		return;
	shared = nvme_alloc(4096, 0);
	strcpy(shared, "parent");
	pid = fork();
	if (!pid)
		_exit(child(&t, address, shared));
	if (write_and_compare(&t, 5, "fork"))
		check(waitpid(pid, &status, 0) == pid && status == 0, "child", "status %#x",
		      status);
	check(!strcmp(shared, "parent"), "memory_of_its_own", "%s", shared);
	if (!fork()) {
		nvme_forked(t.c);
		sleep(5);
		_exit(0);
	}
	nvme_free(shared);
	target_close(&t);
	if (target_open(&t, address, 0, NULL)) {
		check(write_and_compare(&t, 6, "after"), "a_child_keeps_nothing", " ");
		target_close(&t);
	}
}

/* ---- held ---- */

/* Under load until it is killed. */
void test_hold(const char *address, const char *none)
{
	struct target t;
	uint64_t seed = 0;

	(void)none;
	if (!target_open(&t, address, 0, NULL))
		return;
	check(write_and_compare(&t, seed, "hold"), "held", " ");
	while (write_and_compare(&t, ++seed, "hold"))
		;
	target_close(&t);
}
