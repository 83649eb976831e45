/* SPDX-License-Identifier: BSD-2-Clause */
/* A served mount: its start, its wait, its end. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "fuse/control.h"
#include "fuse/kmount.h"

#define LOG_COMPONENT "fuse"
#include "base/log.h"

#define FOREVER 315360000.0 /* seconds; ten years */
#define READAHEAD_KIB 1024
#define MAX_REACTORS 64u

/* ---- workers ---- */

static int poll_queue(void *arg)
{
	struct worker *w = arg;

	return bfs_queue_poll(w->q);
}

/* The descriptor only ends the sleep: the poller comes next. */
static void queue_ready(uint32_t events, void *arg)
{
	(void)events;
	(void)arg;
}

static int worker_start(struct bfs_fuse *f, unsigned int i)
{
	struct worker *w = &f->workers[i];
	struct reactor_poller *poller;
	char name[32];
	int rc;

	snprintf(name, sizeof(name), "blobfs-fuse%u", i);
	w->f = f;
	rc = reactor_create(name, NULL, &w->r);
	if (rc)
		return rc;
	rc = bfs_queue_create(f->fs, &w->q);
	if (rc)
		return rc;
	rc = reactor_add_poller(w->r, "queue", poll_queue, w, &poller);
	if (!rc)
		rc = reactor_add_fd(w->r, bfs_queue_fd(w->q), EPOLLIN, queue_ready, w, &w->q_watch);
	if (!rc)
		rc = transport_attach(f->t, i, w->r, w);
	if (!rc)
		rc = reactor_start(w->r);
	w->started = !rc;
	return rc;
}

static void workers_stop(struct bfs_fuse *f)
{
	for (unsigned int i = 0; i < f->n_workers; i++)
		if (f->workers[i].started)
			reactor_stop(f->workers[i].r);
	for (unsigned int i = 0; i < f->n_workers; i++) {
		struct worker *w = &f->workers[i];

		if (w->started)
			reactor_join(w->r);
		if (w->q_watch)
			reactor_del_fd(w->q_watch);
		/* What is in flight is completed here, and answered if anybody still listens. */
		if (w->q)
			bfs_queue_destroy(w->q);
	}
}

/* ---- start ---- */

static void connection_gone(void *arg)
{
	struct bfs_fuse *f = arg;

	if (!atomic_exchange(&f->gone, true))
		sem_post(&f->event);
}

static void request_interrupted(void *arg, uint64_t unique)
{
	struct bfs_fuse *f = arg;

	if (f->locks)
		locks_interrupt(f->locks, unique);
}

/* libfuse splits its options at commas, and takes a backslash as escape. */
static void add_escaped(char *to, size_t size, const char *from)
{
	size_t n = strlen(to);

	for (; *from && n + 3 < size; from++) {
		if (*from == ',' || *from == '\\')
			to[n++] = '\\';
		to[n++] = *from;
	}
	to[n] = '\0';
}

static void add(char *to, size_t size, const char *what)
{
	size_t n = strlen(to);

	snprintf(to + n, size - n, ",%s", what);
}

static bool has_option(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
		if (!strncmp(p, name, n) && (p[n] == ',' || !p[n]))
			return true;
	return false;
}

static void kernel_options(const struct bfs_fuse *f, char *buf, size_t size)
{
	const char *given = f->opts.mount_options ? f->opts.mount_options : "";
	bool root = !geteuid();

	snprintf(buf, size, "default_permissions,subtype=blobfs,fsname=");
	add_escaped(buf, size, f->opts.fsname ? f->opts.fsname : "blobfs");
	if (f->opts.allow_other || root)
		add(buf, size, "allow_other");
	if (f->opts.readonly)
		add(buf, size, "ro");
	/* For root it is a file system as any other; libfuse's default is nosuid, nodev. */
	if (root && !has_option(given, "nodev"))
		add(buf, size, "dev");
	if (root && !has_option(given, "nosuid"))
		add(buf, size, "suid");
	if (*given)
		add(buf, size, given);
}

static int start_side(struct bfs_fuse *f)
{
	int rc = control_create(f, &f->control);

	if (!rc)
		rc = reactor_create("blobfs-side", NULL, &f->side);
	if (!rc && !f->sole)
		rc = locks_create(f, &f->locks);
	if (!rc)
		rc = reactor_start(f->side);
	f->side_started = !rc;
	return rc;
}

static int open_transport(struct bfs_fuse *f, struct base_err *err)
{
	char options[1024];
	struct transport_opts o = {
		.dir = f->dir,
		.mount_options = options,
		.ops = session_ops(f),
		.ports = f->n_workers,
		.debug = f->opts.debug,
		.want = session_want(f),
		.gone = connection_gone,
		.interrupt = request_interrupted,
		.arg = f,
	};
	int rc;

	kernel_options(f, options, sizeof(options));
	rc = transport_open(&o, &f->t, err);
	if (!rc)
		f->killpriv = session_kills_privileges(transport_granted(f->t));
	return rc;
}

/* The first answer: the mount is usable. */
static int look_at_root(struct bfs_fuse *f, struct base_err *err)
{
	struct stat st;

	if (stat(f->dir, &st))
		return base_err_set(err, -errno, "%s: mounted, but does not answer: %s", f->dir,
				    strerror(errno));
	if (st.st_ino != BFS_ROOT_INO)
		return base_err_set(err, -EBUSY, "%s: something else was mounted there meanwhile", f->dir);
	kmount_set_readahead(st.st_dev, READAHEAD_KIB);
	return 0;
}

static int start(struct bfs_fuse *f, struct base_err *err)
{
	int rc = start_side(f);

	if (rc)
		return rc;
	rc = open_transport(f, err);
	for (unsigned int i = 0; !rc && i < f->n_workers; i++)
		rc = worker_start(f, i);
	return rc ? rc : look_at_root(f, err);
}

static void set_opts(struct bfs_fuse *f, const struct bfs_fuse_opts *opts)
{
	struct bfs_statfs st;
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	if (opts)
		memcpy(&f->opts, opts, MIN((size_t)opts->size, sizeof(f->opts)));
	f->sole = f->opts.mode == BFS_FUSE_SOLE;
	f->timeout = f->sole ? FOREVER : 0;
	f->n_workers = f->opts.reactors ? MIN(f->opts.reactors, MAX_REACTORS) :
					  (unsigned int)MAX(1l, MIN(cores / 2, (long)MAX_REACTORS));
	if (!bfs_get_statfs(f->fs, &st) && st.readonly)
		f->opts.readonly = true;
}

int bfs_fuse_start(struct bfs *fs, const char *dir, const struct bfs_fuse_opts *opts, struct bfs_fuse **out,
		   struct base_err *err)
{
	struct base_err why = { "" };
	struct bfs_fuse *f = base_calloc(1, sizeof(*f));
	int rc;

	if (!f)
		return base_err_set(err, -ENOMEM, "%s: out of memory", dir);
	f->fs = fs;
	set_opts(f, opts);
	handles_init(&f->handles);
	pthread_mutex_init(&f->slow_lock, NULL);
	sem_init(&f->event, 0, 0);
	rc = kmount_check_dir(dir, &f->dir, &why);
	if (!rc) {
		f->workers = base_calloc(f->n_workers, sizeof(*f->workers));
		rc = f->workers ? start(f, &why) : -ENOMEM;
	}
	if (rc) {
		base_err_set(err, rc, "%s", why.text[0] ? why.text : base_err_text(NULL, rc));
		bfs_fuse_stop(f);
		return rc;
	}
	*out = f;
	return 0;
}

/* ---- wait ---- */

int bfs_fuse_wait(struct bfs_fuse *f)
{
	while (!atomic_load(&f->gone) && !atomic_load(&f->interrupted))
		sem_wait(&f->event);
	return atomic_load(&f->gone) ? 0 : -EINTR;
}

void bfs_fuse_interrupt(struct bfs_fuse *f)
{
	atomic_store(&f->interrupted, true);
	sem_post(&f->event);
}

/* ---- stop ---- */

/* After an unmount the workers soon see the end; if not (the mount lives on in another name space), so be it. */
static void await_gone(struct bfs_fuse *f)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 2;
	while (!atomic_load(&f->gone))
		if (sem_timedwait(&f->event, &until) && errno == ETIMEDOUT)
			return;
}

static int unmount(struct bfs_fuse *f)
{
	int rc = transport_unmount(f->t);

	if (!rc)
		await_gone(f);
	else if (rc == -EBUSY)
		log_warn("%s: was in use; detached, open files there are cut off", f->dir);
	else
		log_warn("%s: not unmounted: %s", f->dir, strerror(-rc));
	return rc;
}

/* The side thread ends first: what it waits for, the workers do. */
static void threads_stop(struct bfs_fuse *f)
{
	device_stop(f);
	if (f->side_started) {
		reactor_stop(f->side);
		reactor_join(f->side);
	}
	if (f->workers)
		workers_stop(f);
	if (f->locks)
		locks_destroy(f->locks);
	if (f->control)
		control_destroy(f->control);
}

int bfs_fuse_stop(struct bfs_fuse *f)
{
	bool serving = f->workers && f->workers[0].started;
	int rc = f->t && serving ? unmount(f) : 0;

	threads_stop(f);
	if (f->t)
		transport_close(f->t);
	for (unsigned int i = 0; f->workers && i < f->n_workers; i++)
		if (f->workers[i].r)
			reactor_destroy(f->workers[i].r);
	if (f->side)
		reactor_destroy(f->side);
	for (int i = 0; i < N_SLOW; i++)
		if (f->slow[i])
			reactor_destroy(f->slow[i]);
	pthread_mutex_destroy(&f->slow_lock);
	handles_close_all(&f->handles);
	sem_destroy(&f->event);
	free(f->workers);
	free(f->dir);
	free(f);
	return rc;
}
