/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * blobfs scrub: reads everything there is and says what cannot be read or is wrong, by the names of the files. Of a device it is done
 * here; of a mount point by the program that serves it, which is asked by ioctl and looked at until it is done.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "blobfs/control.h"
#include "tools/blobfs/verb.h"
#include "tools/common/common.h"

#define KEPT 65536u /* findings that are told one by one */

struct finding {
	struct bs_scrub_finding f;
	char *path;
};
struct scrub {
	const struct call *call;
	bool running, none; /* of a mount: it goes on; there was none */
	struct bs_scrub_result res;
	struct finding *f;
	size_t n, room;
	bool tty;
	uint64_t told_ns;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	(void)sig;
	interrupted = 1;
}

static void catch_signals(void)
{
	struct sigaction act = { .sa_handler = on_signal };

	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
}

static void keep(const struct bs_scrub_finding *f, void *arg)
{
	struct scrub *s = arg;

	if (s->n == s->room && s->n < KEPT) {
		size_t room = s->room ? 2 * s->room : 64;
		struct finding *p = realloc(s->f, room * sizeof(*p));

		if (!p)
			return; /* it is counted */
		s->f = p;
		s->room = room;
	}
	if (s->n < s->room)
		s->f[s->n++] = (struct finding){ *f, NULL };
}

/* ---- progress, on a terminal only ---- */

static int progress(const struct bs_scrub_result *so_far, void *arg)
{
	struct scrub *s = arg;
	uint64_t now = base_now_ns();

	s->res = *so_far;
	if (s->tty && now - s->told_ns > 500000000ull) {
		s->told_ns = now;
		fprintf(stderr, "\r%" PRIu64 " of %" PRIu64 " MiB, %" PRIu64 " found ", so_far->done_bytes >> 20, so_far->total_bytes >> 20,
			so_far->findings);
	}
	return interrupted;
}

static void end_progress(struct scrub *s)
{
	if (s->tty && s->told_ns)
		fprintf(stderr, "\r%60s\r", "");
}

/* ---- the names of what was found ---- */

static bool want_name(struct scrub *s, uint64_t ino, const char *path)
{
	bool some = false;

	for (size_t i = 0; i < s->n; i++) {
		struct finding *f = &s->f[i];

		if (f->f.what == BS_SCRUB_DATA && f->f.blob == ino && !f->path)
			f->path = strdup(path);
		some |= f->f.what == BS_SCRUB_DATA && !f->path;
	}
	return some;
}

/* True: go on. A directory that cannot be read has no names for us. */
static bool name_below(struct scrub *s, struct bfs *fs, const struct trail *up, const char *dir)
{
	struct name_list list;
	struct bfs_attr attr;
	bool more = true;

	if (verb_list(fs, up->ino, &list))
		return true;
	for (size_t i = 0; i < list.n && more; i++) {
		char *path = verb_join(dir, list.name[i]);

		if (path && !bfs_lookup(fs, NULL, up->ino, list.name[i], &attr)) {
			struct trail here = { .up = up, .ino = attr.ino };

			more = want_name(s, attr.ino, path);
			if (more && S_ISDIR(attr.mode) && !verb_goes_round(&here))
				more = name_below(s, fs, &here, path);
		}
		free(path);
	}
	verb_list_free(&list);
	return more;
}

static struct scrub *walking; /* nftw has no argument to hand on */
static dev_t walk_dev;

static int name_found(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)type, (void)ftw;
	return st->st_dev == walk_dev && !want_name(walking, st->st_ino, path);
}

static void name_mounted(struct scrub *s, const char *dir)
{
	struct stat st;

	if (stat(dir, &st))
		return;
	walking = s;
	walk_dev = st.st_dev;
	nftw(dir, name_found, 16, FTW_PHYS | FTW_MOUNT);
}

/* ---- the report ---- */

static const char *const whats[] = { "data", "superblock", "log", "page", "checksums" };

static const char *what_name(const struct bs_scrub_finding *f)
{
	return f->what < ARRAY_SIZE(whats) ? whats[f->what] : "unknown";
}

static void print_finding(const struct finding *f)
{
	if (f->f.what != BS_SCRUB_DATA)
		printf("%s at block %" PRIu64 ": %s\n", what_name(&f->f), f->f.block, f->f.text);
	else
		printf("blob %" PRIu64 " (%s), byte %" PRIu64 ", device block %" PRIu64 ": %s\n", f->f.blob, f->path ? f->path : "no name",
		       f->f.offset, f->f.block, f->f.text);
}

static struct json_object *number(uint64_t n)
{
	return json_object_new_uint64(n);
}

/* At what is done already, or was; it is not begun. */
static bool looks(const struct call *call)
{
	return call->opt['t'] || call->opt['x'];
}

static int print_json(const struct scrub *s, int rc)
{
	struct json_object *o = json_object_new_object(), *list = json_object_new_array();

	json_object_object_add(o, "device", json_object_new_string(s->call->device));
	json_object_object_add(o, "complete", json_object_new_boolean(!rc && !s->running && !s->none));
	json_object_object_add(o, "running", json_object_new_boolean(s->running));
	json_object_object_add(o, "total_bytes", number(s->res.total_bytes));
	json_object_object_add(o, "data_bytes", number(s->res.done_bytes));
	json_object_object_add(o, "metadata_bytes", number(s->res.meta_bytes));
	json_object_object_add(o, "findings", number(s->res.findings));
	for (size_t i = 0; i < s->n; i++) {
		const struct finding *f = &s->f[i];
		struct json_object *e = json_object_new_object();

		json_object_object_add(e, "what", json_object_new_string(what_name(&f->f)));
		if (f->f.what == BS_SCRUB_DATA) {
			json_object_object_add(e, "blob", number(f->f.blob));
			json_object_object_add(e, "path", f->path ? json_object_new_string(f->path) : NULL);
			json_object_object_add(e, "offset", number(f->f.offset));
		}
		json_object_object_add(e, "block", number(f->f.block));
		json_object_object_add(e, "error", json_object_new_string(f->f.text));
		json_object_array_add(list, e);
	}
	json_object_object_add(o, "found", list);
	return verb_print_json(o);
}

/* rc: why it ended before its end, or 0. */
static void print_report(const struct scrub *s, int rc)
{
	for (size_t i = 0; i < s->n; i++)
		print_finding(&s->f[i]);
	if (s->res.findings > s->n)
		printf("… and %" PRIu64 " more\n", s->res.findings - s->n);
	printf("%s: ", s->call->device);
	if (s->running)
		printf("of %" PRIu64 " bytes of data ", s->res.total_bytes);
	printf("%" PRIu64 " bytes%s and %" PRIu64 " of metadata read, %" PRIu64 " found%s\n", s->res.done_bytes,
	       s->running ? "" : " of data", s->res.meta_bytes, s->res.findings, s->running ? ", still running" : rc ? ", not complete" : "");
}

static int report(struct scrub *s, int rc)
{
	end_progress(s);
	if (s->call->json) {
		if (print_json(s, rc))
			return EXIT_FAILED;
	} else {
		print_report(s, rc);
	}
	if (rc && !(looks(s->call) && rc == -ECANCELED))
		return verb_fail("scrub", s->call->device, rc);
	return s->res.findings ? EXIT_DAMAGE : EXIT_OK;
}

/* ---- of a device ---- */

static int scrub_device(struct scrub *s, uint64_t rate)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts), .flags = BFS_RDONLY };
	struct bs_scrub_opts so = { .size = sizeof(so), .rate = rate, .found = keep, .progress = progress, .arg = s };
	struct trail root = { .ino = BFS_ROOT_INO };
	struct base_err err = { "" };
	struct bfs *fs;
	int rc = bfs_mount(s->call->device, &opts, &fs, &err);

	if (rc) {
		tool_error_of(s->call->device, base_err_text(&err, rc));
		return rc == -EUCLEAN ? EXIT_DAMAGE : EXIT_FAILED;
	}
	rc = bs_scrub(bfs_store(fs), &so, &s->res);
	if (s->n)
		name_below(s, fs, &root, "/");
	bfs_unmount(fs);
	return report(s, rc);
}

/* ---- of a mount ---- */

static int ask(int fd, struct bfs_control_scrub *q, enum bfs_control_scrub_op op)
{
	q->size = sizeof(*q);
	q->op = op;
	return ioctl(fd, BFS_CONTROL_SCRUB, q) ? -errno : 0;
}

static void take(struct scrub *s, struct bfs_control_scrub *q)
{
	struct bs_scrub_result so_far = { q->total_bytes, q->done_bytes, q->meta_bytes, q->findings };

	for (uint32_t i = 0; i < MIN(q->n, BFS_CONTROL_FINDINGS); i++) {
		const struct bfs_control_finding *k = &q->finding[i];
		struct bs_scrub_finding f = { k->what, k->rc, k->blob, k->offset, k->block, "" };

		memcpy(f.text, k->text, sizeof(f.text) - 1);
		keep(&f, s);
	}
	q->from += q->n;
	progress(&so_far, s);
}

/* Until it has ended, or all is told that there is so far. */
static int follow(struct scrub *s, int fd, struct bfs_control_scrub *q, bool wait)
{
	int rc;

	for (;;) {
		rc = ask(fd, q, BFS_SCRUB_STATUS);
		if (rc)
			return rc;
		take(s, q);
		s->running = q->state == BFS_SCRUB_RUNNING;
		if (q->from < q->kept)
			continue;
		if (!s->running || !wait)
			return q->rc;
		if (interrupted)
			ask(fd, q, BFS_SCRUB_STOP);
		usleep(50000);
	}
}

static int scrub_mounted(struct scrub *s, int fd, uint64_t rate)
{
	struct bfs_control_scrub q = { .rate = rate };
	const bool *opt = s->call->opt;
	int rc = ask(fd, &q, opt['x'] ? BFS_SCRUB_STOP : opt['t'] ? BFS_SCRUB_STATUS : BFS_SCRUB_START);

	if (rc == -ENOTTY || rc == -EOPNOTSUPP) {
		tool_error("%s: no BlobFS is mounted there", s->call->device);
		return EXIT_FAILED;
	}
	if (rc)
		return verb_fail("scrub", s->call->device, rc);
	if (opt['b'])
		return EXIT_OK;
	rc = follow(s, fd, &q, !opt['t']);
	s->none = q.state == BFS_SCRUB_NONE;
	if (!rc && s->none && !s->call->json) {
		printf("%s: not scrubbed since it was mounted\n", s->call->device);
		return EXIT_OK;
	}
	if (s->n)
		name_mounted(s, s->call->device);
	return report(s, rc);
}

int verb_scrub(const struct call *call)
{
	struct scrub s = { .call = call, .tty = isatty(STDERR_FILENO) };
	uint64_t rate = 0;
	int result = EXIT_USAGE, fd = -1;
	struct stat st;

	if (call->value['B'] && tool_size("rate", call->value['B'], &rate))
		return result;
	catch_signals();
	if (tool_is_path(call->device) && !stat(call->device, &st) && S_ISDIR(st.st_mode)) {
		fd = open(call->device, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		result = fd < 0 ? verb_fail("scrub", call->device, -errno) : scrub_mounted(&s, fd, rate);
	} else if (call->opt['b'] || looks(call)) {
		tool_error("%s: not a mount point", call->device);
	} else {
		result = scrub_device(&s, rate);
	}
	if (fd >= 0)
		close(fd);
	for (size_t i = 0; i < s.n; i++)
		free(s.f[i].path);
	free(s.f);
	return result;
}
