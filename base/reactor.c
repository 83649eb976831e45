/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reactor's loop.
 *
 * Sleeping and waking: the loop says `sleeping`, then looks once more for messages, stop and kick, and
 * only then enters epoll. A sender first leaves its message (or kick), then looks at `sleeping`, and
 * writes to the eventfd if it is set. Both touch `sleeping` by read-modify-write, so one sees the other.
 *
 * Pollers and descriptors may be deleted by any callback, also by their own: they are marked dead and
 * freed at the end of the round.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/internal.h"
#include "base/util.h"

#define DEFAULT_RING 1024
#define MAX_EVENTS 32
#define MESSAGES_PER_ROUND 256u
#define FD_LOOK_NS 50000ull  /* a busy loop looks at its descriptors so often */
#define FAKE_CLOCK_LOOK_MS 1 /* nobody tells a sleeper that the fake clock moved */

struct reactor_poller {
	struct reactor *r;
	struct reactor_poller *next;
	const char *name;
	reactor_poll_fn fn; /* NULL: dead */
	void *arg;
};

struct reactor_fd {
	struct reactor *r;
	struct reactor_fd *next;
	int fd;
	reactor_fd_fn fn; /* NULL: dead */
	void *arg;
};

struct reactor {
	char name[16];
	uint64_t spin_ns;
	struct msgring *ring;
	int epfd, evfd;
	struct reactor_poller *pollers;
	struct reactor_fd *fds;
	bool dead; /* something is to be freed after the round */
	struct timers timers;
	pthread_t thread;
	bool started;
	_Atomic bool running, stop, kick;
	/* Both are only changed, and where it matters also read, by read-modify-write: whoever comes second
	 * then sees what the first did to the ring before. */
	_Atomic unsigned int sleeping;
	_Atomic unsigned int waiters; /* senders that wait for room in the ring */
	pthread_mutex_t room_lock;
	pthread_cond_t room;
};

static _Thread_local struct reactor *current;

struct reactor *reactor_current(void)
{
	return current;
}

struct timers *reactor_timers(struct reactor *r)
{
	return &r->timers;
}

static int open_fds(struct reactor *r)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };

	r->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (r->epfd < 0)
		return -errno;
	r->evfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->evfd < 0 || epoll_ctl(r->epfd, EPOLL_CTL_ADD, r->evfd, &ev))
		return -errno;
	return 0;
}

int reactor_create(const char *name, const struct reactor_opts *opts, struct reactor **out)
{
	struct reactor_opts o = { sizeof(o), 0, 0 };
	struct reactor *r;
	int rc;

	if (opts)
		memcpy(&o, opts, MIN((size_t)opts->size, sizeof(o)));
	r = base_calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	snprintf(r->name, sizeof(r->name), "%s", name);
	r->spin_ns = (uint64_t)o.spin_us * 1000;
	r->epfd = r->evfd = -1;
	timers_init(&r->timers);
	pthread_mutex_init(&r->room_lock, NULL);
	pthread_cond_init(&r->room, NULL);
	rc = msgring_create(o.ring ? o.ring : DEFAULT_RING, &r->ring);
	if (!rc)
		rc = open_fds(r);
	if (rc) {
		reactor_destroy(r);
		return rc;
	}
	*out = r;
	return 0;
}

/* Frees the pollers and descriptors marked dead, or all of them. */
static void bury(struct reactor *r, bool all)
{
	struct reactor_poller **pp = &r->pollers, *p;
	struct reactor_fd **pf = &r->fds, *f;

	while ((p = *pp)) {
		if (p->fn && !all) {
			pp = &p->next;
			continue;
		}
		*pp = p->next;
		free(p);
	}
	while ((f = *pf)) {
		if (f->fn && !all) {
			pf = &f->next;
			continue;
		}
		*pf = f->next;
		free(f);
	}
	r->dead = false;
}

void reactor_destroy(struct reactor *r)
{
	assert(!atomic_load(&r->running) && !r->started);
	bury(r, true);
	timers_destroy(&r->timers);
	if (r->ring)
		msgring_destroy(r->ring);
	if (r->evfd >= 0)
		close(r->evfd);
	if (r->epfd >= 0)
		close(r->epfd);
	pthread_cond_destroy(&r->room);
	pthread_mutex_destroy(&r->room_lock);
	free(r);
}

/* Also called by signal handlers: nothing but atomics and write. */
static void ring_bell(struct reactor *r)
{
	static const uint64_t one = 1;
	int saved = errno;

	/* The write fails only when the counter is full, and then the bell has been rung. */
	if (atomic_exchange(&r->sleeping, 0) && write(r->evfd, &one, sizeof(one)) < 0)
		errno = saved;
}

void reactor_wake(struct reactor *r)
{
	atomic_store(&r->kick, true);
	ring_bell(r);
}

void reactor_stop(struct reactor *r)
{
	atomic_store(&r->stop, true);
	ring_bell(r);
}

/* The ring is full: waits for room, as long as the loop runs and so will make some. */
static int push_waiting(struct reactor *r, const struct msg *msg)
{
	int rc = 0;

	pthread_mutex_lock(&r->room_lock);
	atomic_fetch_add(&r->waiters, 1);
	while (!msgring_push(r->ring, msg)) {
		if (!atomic_load(&r->running)) {
			rc = -EAGAIN;
			break;
		}
		pthread_cond_wait(&r->room, &r->room_lock);
	}
	atomic_fetch_sub(&r->waiters, 1);
	pthread_mutex_unlock(&r->room_lock);
	return rc;
}

int reactor_post(struct reactor *r, reactor_msg_fn fn, void *arg)
{
	struct msg msg = { fn, arg };
	int rc;

	if (!msgring_push(r->ring, &msg)) {
		if (current == r)
			return -EAGAIN;
		rc = push_waiting(r, &msg);
		if (rc)
			return rc;
	}
	if (atomic_fetch_or(&r->sleeping, 0))
		ring_bell(r);
	return 0;
}

static void tell_room(struct reactor *r)
{
	if (!atomic_fetch_or(&r->waiters, 0))
		return;
	pthread_mutex_lock(&r->room_lock);
	pthread_cond_broadcast(&r->room);
	pthread_mutex_unlock(&r->room_lock);
}

static int run_messages(struct reactor *r, uint32_t limit)
{
	struct msg msg;
	int ran = 0;

	while (limit-- && msgring_pop(r->ring, &msg)) {
		tell_room(r);
		msg.fn(msg.arg);
		ran++;
	}
	return ran;
}

static int run_pollers(struct reactor *r)
{
	struct reactor_poller *p;
	int did = 0;

	for (p = r->pollers; p; p = p->next)
		if (p->fn)
			did += p->fn(p->arg);
	return did;
}

/* Waits for descriptors at most timeout_ms (-1: for ever) and calls their functions. */
static int run_fds(struct reactor *r, int timeout_ms)
{
	struct epoll_event evs[MAX_EVENTS];
	uint64_t count;
	int i, n, did = 0;

	n = epoll_wait(r->epfd, evs, MAX_EVENTS, timeout_ms);
	for (i = 0; i < n; i++) {
		struct reactor_fd *f = evs[i].data.ptr;

		if (!f) {
			/* Its only use is to end the sleep; what there is to do, the round finds. */
			if (read(r->evfd, &count, sizeof(count)) == (ssize_t)sizeof(count))
				did++;
		} else if (f->fn) {
			f->fn(evs[i].events, f->arg);
			did++;
		}
	}
	return did;
}

/* Milliseconds until the next timer, rounded up; -1 when there is none. */
static int sleep_time(struct reactor *r)
{
	uint64_t due = timers_next(&r->timers), now = base_now_ns(), ms;

	if (due == UINT64_MAX)
		return -1;
	if (due <= now)
		return 0;
	if (base_clock_is_fake())
		return FAKE_CLOCK_LOOK_MS;
	ms = div_round_up(due - now, 1000000);
	return (int)MIN(ms, 86400000ull);
}

static int sleep_until_work(struct reactor *r)
{
	int timeout = sleep_time(r), did;

	atomic_exchange(&r->sleeping, 1);
	if (atomic_exchange(&r->kick, false) || atomic_load(&r->stop) || msgring_count(r->ring))
		timeout = 0;
	did = run_fds(r, timeout);
	atomic_exchange(&r->sleeping, 0);
	return did;
}

static void loop(struct reactor *r)
{
	uint64_t last_work = base_real_ns(), last_fds = 0, now;

	while (!atomic_load(&r->stop)) {
		int did = run_messages(r, MESSAGES_PER_ROUND);

		did += run_pollers(r);
		did += timers_run(&r->timers, base_now_ns());
		now = base_real_ns();
		if (did)
			last_work = now;
		if (did || now - last_work < r->spin_ns) {
			if (now - last_fds >= FD_LOOK_NS) {
				last_fds = now;
				if (run_fds(r, 0))
					last_work = now;
			}
		} else if (sleep_until_work(r)) {
			last_work = base_real_ns();
		}
		if (r->dead)
			bury(r, false);
	}
}

static int run(struct reactor *r)
{
	struct reactor *outer = current;

	assert(!outer);
	current = r;
	loop(r);
	/* What was posted before reactor_stop; not what these messages post. */
	run_messages(r, msgring_count(r->ring));
	if (r->dead)
		bury(r, false);
	atomic_store(&r->stop, false);
	atomic_store(&r->running, false);
	tell_room(r);
	current = outer;
	return 0;
}

int reactor_run(struct reactor *r)
{
	if (atomic_exchange(&r->running, true))
		return -EBUSY;
	return run(r);
}

static void *thread_main(void *arg)
{
	struct reactor *r = arg;

	pthread_setname_np(pthread_self(), r->name);
	run(r);
	return NULL;
}

int reactor_start(struct reactor *r)
{
	sigset_t all, old;
	int rc;

	if (r->started || atomic_exchange(&r->running, true))
		return -EBUSY;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&r->thread, NULL, thread_main, r);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc)
		atomic_store(&r->running, false);
	else
		r->started = true;
	return -rc;
}

int reactor_join(struct reactor *r)
{
	int rc;

	if (!r->started)
		return -EINVAL;
	rc = pthread_join(r->thread, NULL);
	if (!rc)
		r->started = false;
	return -rc;
}

int reactor_add_poller(struct reactor *r, const char *name, reactor_poll_fn fn, void *arg,
		       struct reactor_poller **out)
{
	struct reactor_poller *p = base_calloc(1, sizeof(*p)), **end = &r->pollers;

	if (!p)
		return -ENOMEM;
	*p = (struct reactor_poller){ r, NULL, name, fn, arg };
	while (*end)
		end = &(*end)->next;
	*end = p;
	*out = p;
	return 0;
}

void reactor_del_poller(struct reactor_poller *p)
{
	p->fn = NULL;
	p->r->dead = true;
	/* Nobody is in the list when the loop is not: then it can go at once. */
	if (!atomic_load(&p->r->running))
		bury(p->r, false);
}

int reactor_add_fd(struct reactor *r, int fd, uint32_t events, reactor_fd_fn fn, void *arg,
		   struct reactor_fd **out)
{
	struct reactor_fd *f = base_calloc(1, sizeof(*f));
	struct epoll_event ev = { .events = events, .data.ptr = f };
	int rc;

	if (!f)
		return -ENOMEM;
	*f = (struct reactor_fd){ r, r->fds, fd, fn, arg };
	if (epoll_ctl(r->epfd, EPOLL_CTL_ADD, fd, &ev)) {
		rc = -errno;
		free(f);
		return rc;
	}
	r->fds = f;
	*out = f;
	return 0;
}

void reactor_del_fd(struct reactor_fd *f)
{
	/* Fails only when the descriptor is closed already, and then it is out of the set. */
	epoll_ctl(f->r->epfd, EPOLL_CTL_DEL, f->fd, NULL);
	f->fn = NULL;
	f->r->dead = true;
	if (!atomic_load(&f->r->running))
		bury(f->r, false);
}
