/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A script of misbehaviour: lines `[after N WHAT] ACTION [ARGUMENTS]`, WHAT one of commands, reads, writes, flushes, fua, unflushed, ms. A line without
 * `after` takes effect when it is read. From a pipe lines are taken as they come, so that a test can say when. `#` begins a
 * comment. Each action that happens is a line on standard output.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "test/common/nvmet.h"

struct action {
	const char *name;
	unsigned least, most; /* arguments */
	void (*run)(struct nvmet *t, const struct nvmet_rule *r);
};

static unsigned arg(const struct nvmet_rule *r, unsigned i, unsigned otherwise)
{
	return i < r->nargs ? (unsigned)r->args[i] : otherwise;
}

#define COUNTED(name_, field_)                                              \
	static void do_##name_(struct nvmet *t, const struct nvmet_rule *r) \
	{                                                                   \
		atomic_store(&t->f.field_, arg(r, 0, 1));                   \
	}
#define SWITCHED(name_, field_)                                             \
	static void do_##name_(struct nvmet *t, const struct nvmet_rule *r) \
	{                                                                   \
		atomic_store(&t->f.field_, arg(r, 0, 1) != 0);              \
	}

COUNTED(lose, lose)
COUNTED(stick, stick)
COUNTED(duplicate, duplicate)
COUNTED(wrong_cid, wrong_cid)
COUNTED(ready, ready_ms)
COUNTED(queues, queues)
SWITCHED(hold, hold)
SWITCHED(cfs, cfs)
SWITCHED(never_ready, never_ready)
SWITCHED(no_entries, no_entries)
SWITCHED(hang_up, hang_up)

/* A controller that was pulled out does nothing, either. */
static void do_all_ones(struct nvmet *t, const struct nvmet_rule *r)
{
	atomic_store(&t->f.hold, arg(r, 0, 1) != 0);
	atomic_store(&t->f.all_ones, arg(r, 0, 1) != 0);
}

static void do_late(struct nvmet *t, const struct nvmet_rule *r)
{
	atomic_store(&t->f.late_ms, arg(r, 1, 1000));
	atomic_store(&t->f.late, arg(r, 0, 1));
}

/* fail N STATUS: SCT and SC in hexadecimal, 0x280; with 0x4000 it must not be repeated, with 0x800 later. */
static void do_fail(struct nvmet *t, const struct nvmet_rule *r)
{
	atomic_store(&t->f.fail_status, arg(r, 1, NVME_SC_INTERNAL));
	atomic_store(&t->f.fail, arg(r, 0, 1));
}

/* At a command it is not completed any more, and what it writes is as uncertain as the rest. */
static void do_powercut(struct nvmet *t, const struct nvmet_rule *r)
{
	t->cut_seed = r->nargs ? r->args[0] : 1;
	t->cut = true;
}

static const struct action actions[] = {
	{ "lose", 0, 1, do_lose },
	{ "stick", 0, 1, do_stick },
	{ "duplicate", 0, 1, do_duplicate },
	{ "wrong-cid", 0, 1, do_wrong_cid },
	{ "late", 0, 2, do_late },
	{ "fail", 0, 2, do_fail },
	{ "hold", 0, 1, do_hold },
	{ "cfs", 0, 1, do_cfs },
	{ "all-ones", 0, 1, do_all_ones },
	{ "never-ready", 0, 1, do_never_ready },
	{ "no-entries", 0, 1, do_no_entries },
	{ "ready", 1, 1, do_ready },
	{ "queues", 1, 1, do_queues },
	{ "hang-up", 0, 0, do_hang_up },
	{ "powercut", 0, 1, do_powercut },
};

static const char *const events[] = {
	[NVMET_NOW] = "",          [NVMET_COMMANDS] = "commands", [NVMET_READS] = "reads",
	[NVMET_WRITES] = "writes", [NVMET_FLUSHES] = "flushes",   [NVMET_FUA] = "fua",
	[NVMET_UNFLUSHED] = "unflushed", [NVMET_MS] = "ms",
};

/* ---- reading ---- */

static bool number(const char *word, uint64_t *out)
{
	char *end;

	if (!word || !*word)
		return false;
	*out = strtoull(word, &end, 0);
	return !*end;
}

static bool parse_when(char **save, struct nvmet_rule *r)
{
	char *what;

	if (!number(strtok_r(NULL, " \t", save), &r->left) || !r->left)
		return false;
	what = strtok_r(NULL, " \t", save);
	for (unsigned i = 1; what && i < ARRAY_SIZE(events); i++) {
		if (strcmp(events[i], what))
			continue;
		r->when = i;
		return true;
	}
	return false;
}

static bool parse(char *line, struct nvmet_rule *r)
{
	char *save = NULL, *word = strtok_r(line, " \t", &save);

	if (word && !strcmp(word, "after")) {
		if (!parse_when(&save, r))
			return false;
		word = strtok_r(NULL, " \t", &save);
	}
	for (unsigned i = 0; word && i < ARRAY_SIZE(actions); i++)
		if (!strcmp(actions[i].name, word))
			r->action = &actions[i];
	while (r->action && (word = strtok_r(NULL, " \t", &save)))
		if (r->nargs == ARRAY_SIZE(r->args) || !number(word, &r->args[r->nargs++]))
			return false;
	return r->action && r->nargs >= r->action->least && r->nargs <= r->action->most;
}

static void happen(struct nvmet *t, const struct nvmet_rule *r)
{
	printf("%s", r->action->name);
	for (unsigned i = 0; i < r->nargs; i++)
		printf(" %llu", (unsigned long long)r->args[i]);
	printf("\n");
	fflush(stdout);
	r->action->run(t, r);
}

int nvmet_script_line(struct nvmet *t, const char *text)
{
	struct nvmet_rule r = { 0 };
	char line[200];

	snprintf(line, sizeof(line), "%.*s", (int)strcspn(text, "#\n"), text);
	if (!line[strspn(line, " \t")])
		return 0;
	if (!parse(line, &r)) {
		fprintf(stderr, "nvmet: not understood: %s\n", text);
		return -EINVAL;
	}
	if (r.when == NVMET_MS)
		r.due_ns = nvmet_now_ns() + r.left * 1000000;
	if (r.when == NVMET_NOW) {
		happen(t, &r);
		return 0;
	}
	if (t->nrules == NVMET_MAX_RULES)
		return -ENOSPC;
	t->rules[t->nrules++] = r;
	return 0;
}

/* What has come of a script: whole lines. False: one was not understood. */
static bool take_lines(struct nvmet *t)
{
	char *nl;
	bool good = true;

	while ((nl = memchr(t->script_text, '\n', t->script_len))) {
		size_t len = (size_t)(nl - t->script_text) + 1;

		*nl = '\0';
		good &= !nvmet_script_line(t, t->script_text);
		t->script_len -= len;
		memmove(t->script_text, nl + 1, t->script_len);
	}
	return good;
}

static bool read_some(struct nvmet *t)
{
	ssize_t n;
	bool good = true;

	while ((n = read(t->script, t->script_text + t->script_len,
			 sizeof(t->script_text) - t->script_len)) > 0) {
		t->script_len += (size_t)n;
		good &= take_lines(t);
		if (t->script_len == sizeof(t->script_text))
			t->script_len = 0; /* no line is as long */
	}
	return good;
}

int nvmet_script_open(struct nvmet *t, const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return -errno;
	/* A pipe is opened both ways, so that it has no end when a writer goes. */
	t->script = open(path, (S_ISFIFO(st.st_mode) ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_CLOEXEC);
	if (t->script < 0)
		return -errno;
	return read_some(t) ? 0 : -EINVAL;
}

/* ---- running ---- */

static void drop_rule(struct nvmet *t, unsigned i)
{
	t->rules[i] = t->rules[--t->nrules];
}

void nvmet_script_poll(struct nvmet *t)
{
	uint64_t now = t->nrules ? nvmet_now_ns() : 0;

	if (t->script >= 0)
		read_some(t);
	for (unsigned i = 0; i < t->nrules;) {
		struct nvmet_rule r = t->rules[i];

		if (r.when != NVMET_MS || now < r.due_ns) {
			i++;
			continue;
		}
		drop_rule(t, i);
		happen(t, &r);
	}
	if (t->cut) {
		t->cut = false;
		nvmet_power_cut(t, t->cut_seed);
	}
}

static bool counts(const struct nvmet_rule *r, const struct nvme_sqe *sqe)
{
	switch (r->when) {
	case NVMET_COMMANDS:
		return true;
	case NVMET_READS:
		return sqe->opcode == NVME_NVM_READ;
	case NVMET_WRITES:
		return sqe->opcode == NVME_NVM_WRITE;
	case NVMET_FLUSHES:
		return sqe->opcode == NVME_NVM_FLUSH;
	case NVMET_FUA:
		return sqe->opcode == NVME_NVM_WRITE && sqe->cdw12 & NVME_RW_FUA;
	default:
		return false;
	}
}

void nvmet_script_command(struct nvmet *t, const struct nvme_sqe *sqe)
{
	for (unsigned i = 0; i < t->nrules;) {
		struct nvmet_rule r = t->rules[i];

		if (!counts(&r, sqe) || --t->rules[i].left) {
			i++;
			continue;
		}
		drop_rule(t, i);
		happen(t, &r);
	}
}

void nvmet_script_executed(struct nvmet *t)
{
	for (unsigned i = 0; i < t->nrules;) {
		struct nvmet_rule r = t->rules[i];

		if (r.when != NVMET_UNFLUSHED || nvmet_cache_unflushed(t) < r.left) {
			i++;
			continue;
		}
		drop_rule(t, i);
		happen(t, &r);
	}
}
