/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The socket of a vfio-user server. Messages are far smaller than its buffers, so one is sent whole or not at all. Answers are told
 * apart by their ids, so one that nobody waits for any more harms nobody.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "nvme/internal.h"
#include "nvme/vfio_user_msg.h"

#define PATIENCE_NS 10000000000ull
#define MESSAGES_AT_ONCE 64u
#define NAP_MS 5 /* another thread may receive what we wait for */

/* ---- sending ---- */

static int send_message(int fd, struct iovec *iov, size_t n, int pass)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = n };
	size_t all = 0;
	ssize_t sent;

	for (size_t i = 0; i < n; i++)
		all += iov[i].iov_len;
	if (pass >= 0) {
		struct cmsghdr *h = (void *)control;

		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(h), &pass, sizeof(int));
		m.msg_control = control;
		m.msg_controllen = sizeof(control);
	}
	do {
		sent = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (sent < 0 && errno == EINTR);
	if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return -EAGAIN;
	if (sent < 0)
		return errno == EPIPE || errno == ECONNRESET ? -EPIPE : -ENODEV;
	return (size_t)sent == all ? 0 : -EPROTO;
}

int vu_post(struct vu_conn *v, struct vu_call *call, uint16_t command, const struct iovec part[2],
	    int pass)
{
	struct vu_header h = { .id = (uint16_t)(v->id + 1), .command = command };
	struct iovec iov[3] = { { &h, sizeof(h) }, part[0], part[1] };
	int rc;

	if (v->dead || v->closing)
		return -ENODEV;
	h.size = (uint32_t)(sizeof(h) + part[0].iov_len + part[1].iov_len);
	rc = send_message(v->fd, iov, 3, pass);
	if (rc) {
		if (rc != -EAGAIN)
			vu_lose(v, rc == -EPIPE ? rc : -ENODEV);
		return rc == -EAGAIN ? rc : -ENODEV;
	}
	v->id = h.id;
	call->id = h.id;
	call->command = command;
	call->under_way = true;
	call->len = 0;
	call->nfds = 0;
	call->deadline_ns = nvme_now_ns() + v->patience_ns;
	call->next = NULL;
	*v->tail = call;
	v->tail = &call->next;
	atomic_fetch_add(&v->calls, 1);
	return 0;
}

/* ---- calls that end ---- */

static void end_call(struct vu_conn *v, struct vu_call **at, int rc)
{
	struct vu_call *call = *at;

	*at = call->next;
	if (!*at)
		v->tail = at;
	atomic_fetch_sub(&v->calls, 1);
	call->rc = rc;
	call->under_way = false;
	if (call->done)
		call->done(v, call);
}

void vu_lose(struct vu_conn *v, int rc)
{
	if (v->dead)
		return;
	/* It has closed its end, and so let go of our memory. */
	v->hung_up = rc == -EPIPE;
	if (v->hung_up)
		rc = -ENODEV;
	v->dead = true;
	shutdown(v->fd, SHUT_RDWR);
	while (v->nfds)
		close(v->fds[--v->nfds]);
	while (v->head)
		end_call(v, &v->head, rc);
}

/* ---- receiving ---- */

static void keep_fds(struct vu_conn *v, struct msghdr *m)
{
	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
		unsigned n = (unsigned)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		int fd;

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		for (unsigned i = 0; i < n; i++) {
			memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
			if (v->nfds < VU_MAX_FDS)
				v->fds[v->nfds++] = fd;
			else
				close(fd);
		}
	}
}

/* -EAGAIN: there is no more of it now. */
static int receive_some(struct vu_conn *v, void *to, size_t len)
{
	char control[CMSG_SPACE(VU_MAX_FDS * sizeof(int))];
	struct iovec iov = { to, len };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = sizeof(control) };
	ssize_t got;

	do {
		got = recvmsg(v->fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	} while (got < 0 && errno == EINTR);
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return -EAGAIN;
	if (got <= 0)
		return !got || errno == ECONNRESET ? -EPIPE : -ENODEV;
	keep_fds(v, &m);
	v->got += (size_t)got;
	return 0;
}

/* 0: the message is whole. */
static int receive(struct vu_conn *v)
{
	const size_t head = sizeof(v->h);
	int rc = 0;

	while (!rc && v->got < head)
		rc = receive_some(v, (char *)&v->h + v->got, head - v->got);
	if (!rc && (v->h.size < head || v->h.size - head > sizeof(v->data)))
		rc = -EPROTO;
	while (!rc && v->got < v->h.size)
		rc = receive_some(v, v->data + (v->got - head), v->h.size - v->got);
	return rc;
}

/* The server wants something of us: we have nothing but the memory it has already. */
static int refuse(struct vu_conn *v)
{
	struct iovec iov = { &v->h, sizeof(v->h) };

	if (v->h.flags & VU_NO_REPLY || v->closing)
		return 0;
	v->h.size = sizeof(v->h);
	v->h.flags = VU_REPLY | VU_ERROR;
	v->h.error = ENOTSUP;
	return send_message(v->fd, &iov, 1, -1);
}

static int refusal(const struct vu_header *h)
{
	if (!(h->flags & VU_ERROR))
		return 0;
	return h->error && h->error < 4096 ? -(int)h->error : -EIO;
}

static int take_answer(struct vu_conn *v)
{
	struct vu_call **at = &v->head, *call;

	while (*at && (*at)->id != v->h.id)
		at = &(*at)->next;
	call = *at;
	if (!call)
		return 0;
	if (call->command != v->h.command)
		return -EPROTO;
	call->len = v->h.size - (uint32_t)sizeof(v->h);
	if (call->data)
		memcpy(call->data, v->data, MIN(call->len, call->room));
	if (call->fds) {
		memcpy(call->fds, v->fds, v->nfds * sizeof(int));
		call->nfds = v->nfds;
		v->nfds = 0;
	}
	end_call(v, at, refusal(&v->h));
	return 0;
}

/* What is left is for the next call: a server that never stops would hold the lock. */
void vu_progress(struct vu_conn *v)
{
	int rc = 0;

	for (unsigned i = 0; i < MESSAGES_AT_ONCE && !v->dead && !rc; i++) {
		rc = receive(v);
		if (rc)
			break;
		v->got = 0;
		rc = (v->h.flags & VU_TYPE_MASK) == VU_REPLY ? take_answer(v) : refuse(v);
		while (v->nfds)
			close(v->fds[--v->nfds]);
	}
	if (rc && rc != -EAGAIN)
		vu_lose(v, rc);
	if (v->head && nvme_now_ns() > v->head->deadline_ns)
		vu_lose(v, -ETIMEDOUT);
}

/* ---- asking ---- */

void vu_drop_fds(struct vu_answer *a)
{
	while (a->nfds)
		close(a->fds[--a->nfds]);
}

/* Until the socket can be written to, or something has come. */
static void nap(const struct vu_conn *v, short events)
{
	struct pollfd p = { .fd = v->fd, .events = events };

	poll(&p, 1, NAP_MS);
}

static int post_patiently(struct vu_conn *v, struct vu_call *call, uint16_t command,
			  const struct iovec part[2], int pass)
{
	uint64_t end = nvme_now_ns() + v->patience_ns;
	int rc;

	for (;;) {
		pthread_mutex_lock(&v->lock);
		rc = vu_post(v, call, command, part, pass);
		if (rc == -EAGAIN && nvme_now_ns() > end) {
			vu_lose(v, -ETIMEDOUT);
			rc = -ETIMEDOUT;
		}
		pthread_mutex_unlock(&v->lock);
		if (rc != -EAGAIN)
			return rc;
		nap(v, POLLOUT);
	}
}

int vu_ask(struct vu_conn *v, uint16_t command, const struct iovec part[2], int pass,
	   struct vu_answer *a, uint32_t least)
{
	struct vu_call call = { .data = a->data, .room = sizeof(a->data), .fds = a->fds };
	int rc;

	a->nfds = 0;
	rc = post_patiently(v, &call, command, part, pass);
	if (rc)
		return rc;
	for (;;) {
		bool done;

		pthread_mutex_lock(&v->lock);
		vu_progress(v);
		done = !call.under_way;
		if (done && !call.rc && call.len < least) {
			call.rc = -EPROTO;
			vu_lose(v, -EPROTO);
		}
		pthread_mutex_unlock(&v->lock);
		if (done)
			break;
		nap(v, POLLIN);
	}
	a->len = call.len;
	a->nfds = call.nfds;
	if (call.rc)
		vu_drop_fds(a);
	return call.rc;
}

int vu_ask_simple(struct vu_conn *v, uint16_t command, void *data, size_t len, struct vu_answer *a,
		  uint32_t least)
{
	struct iovec part[2] = { { data, len }, { NULL, 0 } };

	return vu_ask(v, command, part, -1, a, least);
}

/* ---- the connection ---- */

int vu_connect(struct vu_conn *v, const char *path, struct base_err *err)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = PATIENCE_NS / 1000000000 };
	int fd, rc;

	if (strlen(path) >= sizeof(un.sun_path))
		return base_err_set(err, -ENAMETOOLONG, "%s: too long for a socket's name", path);
	strcpy(un.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return base_err_set(err, -errno, "%s: cannot make a socket: %m", path);
	/* A server with as many waiting as it allows holds up connect. */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(fd, (void *)&un, sizeof(un))) {
		rc = -errno;
		close(fd);
		if (rc == -ECONNREFUSED)
			return base_err_set(err, -ENODEV, "%s: nothing serves this socket", path);
		if (rc == -EAGAIN)
			return base_err_set(err, -EBUSY,
					    "%s: the server takes no more connections", path);
		return base_err_set(err, rc, "%s: %s", path, strerror(-rc));
	}
	pthread_mutex_init(&v->lock, NULL);
	v->fd = fd;
	v->patience_ns = PATIENCE_NS;
	v->tail = &v->head;
	return 0;
}

bool vu_hang_up(struct vu_conn *v, unsigned ms)
{
	uint64_t end = nvme_now_ns() + ms * 1000000ull;
	bool hung_up;

	pthread_mutex_lock(&v->lock);
	v->closing = true;
	if (!v->dead)
		shutdown(v->fd, SHUT_WR);
	for (;;) {
		vu_progress(v);
		if (nvme_now_ns() > end)
			vu_lose(v, -ETIMEDOUT);
		hung_up = v->hung_up;
		if (v->dead)
			break;
		pthread_mutex_unlock(&v->lock);
		nap(v, POLLIN);
		pthread_mutex_lock(&v->lock);
	}
	pthread_mutex_unlock(&v->lock);
	return hung_up;
}

void vu_disconnect(struct vu_conn *v)
{
	while (v->nfds)
		close(v->fds[--v->nfds]);
	close(v->fd);
	pthread_mutex_destroy(&v->lock);
}
