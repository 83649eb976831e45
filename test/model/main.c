/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random operations on the file system and on the model, compared after each.
 *
 *	model [--seed N] [--steps N] [--seconds N] [--verbose]
 *
 * Without --seed: some fixed seeds, then fresh ones until the time is over. A failure prints its seed and the last
 * operations; --seed replays it.
 *
 * Crashes: since everything was last made durable the history of operations is kept, with a copy of the model as it
 * was then. After a crash that copy is taken through the history until it shows the names that are there: that moment must not
 * be earlier than the last fsync. A file nothing was done to since it was durable must be as it was; the bytes
 * of others must each have been at their place at some time since.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "test/model/real.h"

#define HISTORY 48
#define SHOWN 24

static struct {
	uint64_t seed;
	unsigned step;
	struct op_rec last[SHOWN];
	bool verbose;
} run;

void fail(const char *fmt, ...)
{
	char text[300];
	va_list ap;

	fprintf(stderr, "step %u: ", run.step);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nthe last operations:\n");
	for (unsigned i = run.step < SHOWN ? 0 : run.step - SHOWN + 1; i <= run.step; i++) {
		op_text(&run.last[i % SHOWN], text, sizeof(text));
		fprintf(stderr, "  %u: %s\n", i, text);
	}
	fprintf(stderr, "replay with --seed %llu\n", (unsigned long long)run.seed);
	printf("not ok seed_%llu: see above\n", (unsigned long long)run.seed);
	fflush(stdout);
	_exit(1);
}

/* ---- randomness: the same for the same seed ---- */

static uint64_t random_state;

static uint64_t rnd(uint64_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state * 2685821657736338717ull >> 16) % n;
}

/* ---- choosing an operation ---- */

static int pick_node(const struct model *m, uint32_t type)
{
	int found = -1, n = 0;

	for (int i = 0; i < NODES; i++) {
		const struct node *node = &m->node[i];

		if (node->ino && node->nlink && (!type || (node->mode & S_IFMT) == type) && rnd((uint64_t)++n) == 0)
			found = i;
	}
	return found;
}

static int pick_handle(const struct model *m, bool open)
{
	int first = (int)rnd(HANDLES);

	for (int i = 0; i < HANDLES; i++) {
		int h = (first + i) % HANDLES;

		if ((m->handle[h].node >= 0) == open)
			return h;
	}
	return -1;
}

static uint64_t pick_offset(uint64_t size)
{
	switch (rnd(5)) {
	case 0: return 0;
	case 1: return rnd(size + 1);
	case 2: return size;
	case 3: return rnd(FILE_MAX / 4096) * 4096 / (1 + rnd(8)) & ~4095ull;
	default: return rnd(1 + rnd(FILE_MAX - 1));
	}
}

static uint64_t pick_length(void)
{
	switch (rnd(5)) {
	case 0: return 1 + rnd(40);
	case 1: return 1 + rnd(5000);
	case 2: return 4096 * (1 + rnd(4));
	case 3: return 4096 * (1 + rnd(64));
	default: return 1 + rnd(200000);
	}
}

/* Weights, by kind; a row each for the moods of the generator. */
static const uint8_t weights[][OP_KINDS] = {
	/* everything */
	{ 8, 4, 2, 1, 3, 4, 2, 6, 3, 1, 1, 6, 3, 16, 6, 12, 6, 6, 3, 3, 2, 3, 1, 2, 2, 2, 1, 1 },
	/* names */
	{ 12, 8, 3, 2, 6, 8, 6, 20, 2, 1, 1, 1, 1, 2, 1, 1, 1, 0, 0, 0, 0, 1, 1, 4, 2, 3, 1, 1 },
	/* data */
	{ 2, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 8, 3, 24, 10, 20, 10, 10, 6, 6, 4, 4, 1, 0, 2, 0, 1, 1 },
	/* crashes */
	{ 6, 3, 1, 0, 2, 3, 1, 6, 1, 0, 0, 5, 3, 14, 6, 3, 6, 6, 2, 0, 1, 6, 2, 0, 2, 0, 1, 8 },
};

static enum op_kind pick_kind(unsigned mood)
{
	uint64_t total = 0, at;

	for (int i = 0; i < OP_KINDS; i++)
		total += weights[mood][i];
	at = rnd(total);
	for (int i = 0;; i++) {
		if (at < weights[mood][i])
			return (enum op_kind)i;
		at -= weights[mood][i];
	}
}

static void pick_fallocate(struct op_rec *op)
{
	static const int modes[] = { 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE };

	op->flags = modes[rnd(ARRAY_SIZE(modes))];
}

static void pick_handles(struct op_rec *op, const struct model *m)
{
	static const int open_flags[] = { O_RDWR, O_RDWR, O_RDWR | O_DIRECT, O_RDWR | O_TRUNC, O_RDWR | O_APPEND };

	switch (op->kind) {
	case OP_OPEN:
		op->handle = pick_handle(m, false);
		op->node = pick_node(m, S_IFREG);
		op->flags = open_flags[rnd(ARRAY_SIZE(open_flags))];
		break;
	case OP_COPY:
		op->handle2 = pick_handle(m, true);
		op->handle = pick_handle(m, true);
		break;
	default: op->handle = pick_handle(m, true); break;
	}
}

static void pick_range(struct op_rec *op, const struct model *m)
{
	const struct node *n = &m->node[MAX(op->node, ROOT_NODE)];

	if (op->handle >= 0 && m->handle[op->handle].node >= 0)
		n = &m->node[m->handle[op->handle].node];

	op->off = MIN(pick_offset(n->size), (uint64_t)FILE_MAX - 1);
	op->off2 = MIN(pick_offset(n->size), (uint64_t)FILE_MAX - 1);
	op->len = MIN(pick_length(), FILE_MAX - MAX(op->off, op->off2));
	if (op->kind == OP_APPEND)
		op->len = MIN(op->len, FILE_MAX - MIN(n->size, FILE_MAX));
	if (op->kind == OP_TRUNCATE)
		op->len = op->off;
	if (op->kind == OP_SETXATTR)
		op->len = rnd(rnd(8) ? 40 : XATTR_MAX);
}

/* False: not possible now. */
static bool is_possible(const struct op_rec *op, const struct model *m)
{
	bool needs_handle = op->kind >= OP_OPEN && op->kind <= OP_FSYNC && op->kind != OP_TRUNCATE;

	if (op->kind <= OP_LINK && !model_has_room(m))
		return false;
	if (op->kind == OP_RENAME && !model_has_room(m))
		return false;
	if (op->kind == OP_SNAPSHOT && (op->node < 0 || op->dir == op->node || !model_has_room_for(m, op->node)))
		return false;
	if (op->dir < 0 || op->dir2 < 0 || op->node < 0 || (needs_handle && op->handle < 0))
		return false;
	/* pwrite to an appending file is another call: see append */
	if (op->kind == OP_WRITE && (m->handle[op->handle].flags & O_APPEND))
		return false;
	if (op->kind == OP_COPY && (op->handle2 < 0 || (m->handle[op->handle2].flags & O_APPEND) ||
				    m->handle[op->handle].node == m->handle[op->handle2].node))
		return false;
	return op->kind == OP_READ || op->kind == OP_TRUNCATE || op->len || op->kind < OP_WRITE || op->kind > OP_COPY;
}

static struct op_rec pick_op(const struct model *m, unsigned mood)
{
	struct op_rec op;

	do {
		uint32_t dir_type = rnd(30) ? S_IFDIR : 0;

		memset(&op, 0, sizeof(op));
		op.kind = pick_kind(mood);
		op.seed = (uint32_t)rnd(UINT32_MAX);
		op.dir = pick_node(m, dir_type);
		op.dir2 = rnd(2) ? op.dir : pick_node(m, dir_type);
		op.name = (int)rnd(NAMES);
		op.name2 = (int)rnd(NAMES);
		op.node = op.kind == OP_TRUNCATE ? pick_node(m, S_IFREG) : pick_node(m, 0);
		op.handle = -1;
		if (op.kind == OP_SETXATTR || op.kind == OP_RMXATTR)
			op.flags = (int)rnd(XATTRS);
		else if (op.kind == OP_RENAME)
			op.flags = (int)(rnd(2) ? 0 : rnd(3));
		else if (op.kind == OP_CHMOD)
			op.flags = (int)rnd(01000);
		else if (op.kind == OP_SEEK)
			op.flags = rnd(2) ? SEEK_DATA : SEEK_HOLE;
		else if (op.kind == OP_FALLOCATE)
			pick_fallocate(&op);
		else if (op.kind == OP_FSYNC)
			op.flags = (int)rnd(2);
		if (op.kind >= OP_OPEN && op.kind <= OP_FSYNC && op.kind != OP_TRUNCATE)
			pick_handles(&op, m);
		pick_range(&op, m);
	} while (!is_possible(&op, m));
	return op;
}

/* ---- a run ---- */

struct state {
	struct real real;
	struct model model;
	struct model durable;          /* as of the history's beginning */
	struct op_rec history[HISTORY];
	unsigned n, committed;         /* operations in it; how many of them are durable for certain */
};

static void forget_history(struct state *s)
{
	model_free(&s->durable);
	model_copy(&s->durable, &s->model);
	s->n = 0;
	s->committed = 0;
}

static void do_op(struct state *s, const struct op_rec *given)
{
	struct op_rec op = *given;
	int64_t want, got;

	run.step++;
	run.last[run.step % SHOWN] = op;
	if (run.verbose) {
		char text[300];

		op_text(&op, text, sizeof(text));
		fprintf(stderr, "%u: %s\n", run.step, text);
	}
	got = real_apply(&s->real, &s->model, &op);
	run.last[run.step % SHOWN] = op;
	want = model_apply(&s->model, &op);
	if (want != got)
		fail("the result is %lld, should be %lld", (long long)got, (long long)want);
	s->history[s->n++] = op;
	if (op.kind == OP_FSYNC)
		s->committed = s->n;
	if (op.kind == OP_SYNC)
		forget_history(s);
}

static void compare_all(struct state *s)
{
	const char *why = real_compare_names(&s->real, &s->model, NULL);

	if (!why)
		why = real_compare_data(&s->real, &s->model, NULL);
	if (why)
		fail("%s", why);
}

static void close_all(struct state *s)
{
	for (int i = 0; i < HANDLES; i++) {
		struct op_rec op = { .kind = OP_CLOSE, .handle = i };

		if (s->model.handle[i].node >= 0)
			do_op(s, &op);
	}
}

/* ---- crashes ---- */

struct dirty { /* a file changed since it was durable: what its bytes and its size may be */
	bool is;
	uint64_t ino, size, size_min, size_max;
	uint8_t *content;
	bool *explained;
};

static void explain(struct dirty *d, const struct node *n)
{
	d->size_min = MIN(d->size_min, n->size);
	d->size_max = MAX(d->size_max, n->size);
	for (uint64_t i = 0; i < d->size; i++) {
		if (d->content[i] == (i < n->size ? n->data[i] : 0))
			d->explained[i] = true;
	}
}

static bool changes_data(const struct op_rec *op)
{
	return op->kind == OP_WRITE || op->kind == OP_APPEND || op->kind == OP_TRUNCATE || op->kind == OP_FALLOCATE ||
	       op->kind == OP_COPY || (op->kind == OP_OPEN && (op->flags & O_TRUNC));
}

static int changed_node(const struct model *m, const struct op_rec *op)
{
	if (op->kind == OP_TRUNCATE || op->kind == OP_OPEN)
		return op->node;
	return m->handle[op->kind == OP_COPY ? op->handle2 : op->handle].node;
}

/* Which of the files of `m`, the state recognized after the crash, were changed after they were last durable? */
static void find_dirty(const struct state *s, const struct model *m, struct dirty *dirty)
{
	struct model t;

	model_copy(&t, &s->durable);
	for (unsigned i = 0; i < s->n; i++) {
		const struct op_rec *op = &s->history[i];
		int node = changes_data(op) ? changed_node(&t, op) : -1;

		if (op->kind == OP_FSYNC)
			node = t.handle[op->handle].node;
		for (int k = 0; node >= 0 && k < NODES; k++) {
			if (m->node[k].ino == t.node[node].ino)
				dirty[k].is = op->kind != OP_FSYNC;
		}
		model_apply(&t, op);
	}
	model_free(&t);
}

static void load(struct state *s, const struct model *m, struct dirty *dirty)
{
	for (int k = 0; k < NODES; k++) {
		struct dirty *d = &dirty[k];

		if (!d->is)
			continue;
		d->ino = m->node[k].ino;
		d->content = malloc(2 * FILE_MAX);
		if (!d->content)
			abort();
		d->size = real_content(&s->real, d->ino, d->content, 2 * FILE_MAX);
		d->explained = calloc(d->size + 1, sizeof(bool));
		if (!d->explained)
			abort();
		d->size_min = UINT64_MAX;
	}
}

/* Goes through all states since each file was durable and notes what they explain. */
static void explain_all(const struct state *s, struct dirty *dirty)
{
	struct model t;

	model_copy(&t, &s->durable);
	for (unsigned i = 0; i <= s->n; i++) {
		for (int k = 0; k < NODES; k++) {
			for (int j = 0; dirty[k].is && j < NODES; j++) {
				if (t.node[j].ino == dirty[k].ino)
					explain(&dirty[k], &t.node[j]);
			}
		}
		if (i == s->n)
			break;
		model_apply(&t, &s->history[i]);
		if (s->history[i].kind != OP_FSYNC)
			continue;
		/* What was before an fsync explains nothing any more. */
		for (int k = 0; k < NODES; k++) {
			struct dirty *d = &dirty[k];

			if (!d->is || d->ino != t.node[t.handle[s->history[i].handle].node].ino)
				continue;
			memset(d->explained, 0, d->size);
			d->size_min = UINT64_MAX;
			d->size_max = 0;
		}
	}
	model_free(&t);
}

/* The model takes over what the crash left of changed files. */
static void adopt(struct model *m, struct dirty *dirty)
{
	for (int k = 0; k < NODES; k++) {
		struct dirty *d = &dirty[k];

		if (!d->is)
			continue;
		if (d->size < d->size_min || d->size > d->size_max)
			fail("after the crash inode %llu has size %llu, never below %llu nor above %llu",
			     (unsigned long long)d->ino, (unsigned long long)d->size, (unsigned long long)d->size_min,
			     (unsigned long long)d->size_max);
		for (uint64_t i = 0; i < d->size; i++) {
			/* Zeroes: written to the cache, the size published, the block not yet. */
			if (!d->explained[i] && d->content[i])
				fail("after the crash byte %llu of inode %llu is %02x, which it never was",
				     (unsigned long long)i, (unsigned long long)d->ino, d->content[i]);
		}
		model_resize(&m->node[k], 0);
		model_resize(&m->node[k], d->size);
		if (d->size)
			memcpy(m->node[k].data, d->content, d->size);
		free(d->content);
		free(d->explained);
	}
}

/* Takes a copy of the durable state through the history until it shows the names there are now. */
static void recognize(struct state *s, struct model *found)
{
	const char *why = NULL;
	bool skip[NODES];

	memset(skip, true, sizeof(skip));
	for (unsigned i = s->committed; i <= s->n; i++) {
		model_copy(found, &s->durable);
		for (unsigned k = 0; k < i; k++)
			model_apply(found, &s->history[k]);
		model_forget_handles(found);
		why = real_compare_names(&s->real, found, skip);
		if (!why)
			return;
		model_free(found);
	}
	fail("after the crash no state since the last fsync is there: %s", why);
}

static void crash(struct state *s)
{
	struct dirty dirty[NODES] = { { 0 } };
	bool skip[NODES];
	struct model found;
	const char *why;

	close_all(s);
	real_crash(&s->real);
	recognize(s, &found);
	find_dirty(s, &found, dirty);
	for (int k = 0; k < NODES; k++)
		skip[k] = dirty[k].is;
	why = real_compare_names(&s->real, &found, skip);
	if (!why)
		why = real_compare_data(&s->real, &found, skip);
	if (why)
		fail("after the crash: %s", why);
	load(s, &found, dirty);
	explain_all(s, dirty);
	adopt(&found, dirty);
	model_free(&s->model);
	s->model = found;
	compare_all(s);
	forget_history(s);
}

static void remount(struct state *s)
{
	close_all(s);
	real_remount(&s->real);
	compare_all(s);
	forget_history(s);
}

static void one_step(struct state *s, unsigned mood)
{
	struct op_rec sync = { .kind = OP_SYNC };
	struct op_rec op;

	if (s->n >= HISTORY - HANDLES - 2)
		do_op(s, &sync);
	op = pick_op(&s->model, mood);
	run.last[(run.step + 1) % SHOWN] = op;
	if (op.kind == OP_CRASH)
		crash(s);
	else if (op.kind == OP_REMOUNT)
		remount(s);
	else if (op.kind == OP_LIST)
		compare_all(s);
	else
		do_op(s, &op);
}

static void one_run(uint64_t seed, unsigned steps)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts) };
	struct bfs_format_opts format = { .size = sizeof(format) };
	static struct state s;
	unsigned mood;

	run.seed = seed;
	run.step = 0;
	random_state = seed * 0x9e3779b97f4a7c15ull + 1;
	srand((unsigned)seed);
	mood = (unsigned)rnd(ARRAY_SIZE(weights));
	format.cluster_size = 4096u << rnd(5);
	format.hash_bits = rnd(3) ? 0 : 4;
	format.store_flags = rnd(3) ? 0 : BS_FORMAT_SUMS;
	/* A cache smaller than the files, at times; a service thread, at times. */
	opts.cache_size = rnd(2) ? 2 * MiB : 16 * MiB;
	opts.flags = rnd(3) ? BFS_NO_SERVICE : 0;
	opts.writeback_ms = 5;
	memset(&s, 0, sizeof(s));
	real_make(&s.real, &format, &opts);
	model_init(&s.model);
	model_copy(&s.durable, &s.model);
	for (unsigned i = 0; i < steps; i++) {
		one_step(&s, mood);
		if (i % 64 == 63)
			compare_all(&s);
	}
	close_all(&s);
	compare_all(&s);
	real_end(&s.real);
	model_free(&s.model);
	model_free(&s.durable);
	printf("ok seed_%llu\n", (unsigned long long)seed);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "seed", required_argument, NULL, 's' },
						 { "steps", required_argument, NULL, 'n' },
						 { "seconds", required_argument, NULL, 't' },
						 { "verbose", no_argument, NULL, 'v' },
						 { 0 } };
	uint64_t seed = 0, seconds = 20, end;
	unsigned steps = 1500;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's': seed = strtoull(optarg, NULL, 0); break;
		case 'n': steps = (unsigned)strtoul(optarg, NULL, 0); break;
		case 't': seconds = strtoull(optarg, NULL, 0); break;
		case 'v': run.verbose = true; break;
		default: return 2;
		}
	}
	if (seed) {
		one_run(seed, steps);
		return 0;
	}
	end = base_now_ns() + seconds * 1000000000ull;
	for (uint64_t i = 1; i <= 6; i++)
		one_run(i, steps);
	do {
		base_random(&seed, sizeof(seed));
		one_run(seed >> 16 | 1, steps);
	} while (base_now_ns() < end);
	return 0;
}
