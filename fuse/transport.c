/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Transport over /dev/fuse.
 *
 * libfuse mounts (the holder session) and decodes; we read the device ourselves. A session belongs to one device
 * descriptor, and replies must leave by the one the request came from, so that each port has a session of its own.
 * The kernel negotiates once: the INIT request read at port 0 is replayed into the other sessions and their replies are
 * swallowed.
 *
 * All clones share one wait queue in the kernel: a port reads until there is nothing, and sleeps with
 * EPOLLEXCLUSIVE.
 *
 * INTERRUPT requests may arrive at another port than what they interrupt. libfuse would look for it in the wrong
 * session, so they never reach it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <linux/fuse.h>

#include "base/util.h"
#include "fuse/internal.h"
#include "fuse/kmount.h"
#include "fuse/pool.h"
#include "fuse/transport.h"

#define LOG_COMPONENT "fuse"
#include "base/log.h"

#define PAGE 4096u
/* A WRITE's payload begins on a page: headers stand at the end of the page before it. */
#define HEADERS (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
#define READ_SIZE (TRANSPORT_MAX_WRITE + PAGE)
#define BUF_SIZE (PAGE + READ_SIZE)
#define BATCH 32 /* requests of one turn; then completions have theirs */

struct transport_port {
	struct transport *t;
	struct fuse_session *se;
	int fd;
	struct reactor *r;
	struct reactor_fd *watch;
	struct pool_buf *buf; /* of the request being handled */
	bool kept;            /* the handler has taken buf */
	enum { PORT_INIT, PORT_REPLAY, PORT_SERVING } state;
	void *user;
};

struct transport {
	struct transport_opts opts;
	char *dir;
	struct fuse_session *holder; /* mounts; reads nothing */
	dev_t dev;                   /* of the mounted file system */
	_Atomic bool gone;
	bool left; /* the path may not be ours any more */
	uint64_t granted;
	struct pool pool;
	unsigned int n_ports;
	struct transport_port ports[];
};

static char *request_start(const struct pool_buf *b)
{
	return b->mem + PAGE - HEADERS;
}

/* ---- replies ---- */

/* Adds what this libfuse cannot say to the reply of INIT. */
static void amend_init(struct transport *t, struct fuse_init_out *out)
{
	uint64_t flags = t->granted;

	out->flags |= (uint32_t)flags;
	if (flags >> 32) {
		out->flags |= FUSE_INIT_EXT;
		out->flags2 |= (uint32_t)(flags >> 32);
	}
}

static ssize_t port_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct transport_port *port = userdata;
	struct fuse_init_out amended;
	ssize_t n, total = 0;
	int i;

	if (port->state != PORT_SERVING) {
		for (i = 0; i < count; i++)
			total += (ssize_t)iov[i].iov_len;
		if (port->state == PORT_REPLAY)
			return total;
		if (count == 2 && iov[1].iov_len == sizeof(amended)) {
			memcpy(&amended, iov[1].iov_base, sizeof(amended));
			amend_init(port->t, &amended);
			iov[1].iov_base = &amended;
		} else {
			port->t->granted = 0;
		}
	}
	n = writev(fd, iov, count);
	/* The connection has ended: nobody waits for the reply. libfuse is silent about ENOENT only. */
	if (n < 0 && (errno == ENODEV || errno == ECONNABORTED || errno == EPERM))
		errno = ENOENT;
	return n;
}

static ssize_t port_read(int fd, void *buf, size_t len, void *userdata)
{
	(void)userdata;
	return read(fd, buf, len);
}

/* ---- requests ---- */

static void port_dispatch(struct transport_port *port, size_t len)
{
	struct fuse_buf buf = { .size = len, .mem = request_start(port->buf) };
	const struct fuse_in_header *in = buf.mem;

	if (in->opcode == FUSE_INTERRUPT) {
		const struct fuse_interrupt_in *arg = (const void *)(in + 1);

		if (len >= sizeof(*in) + sizeof(*arg) && port->t->opts.interrupt)
			port->t->opts.interrupt(port->t->opts.arg, arg->unique);
		return;
	}
	fuse_session_process_buf(port->se, &buf);
}

static void port_gone(struct transport_port *port)
{
	atomic_store(&port->t->gone, true);
	if (port->watch) {
		reactor_del_fd(port->watch);
		port->watch = NULL;
	}
	port->t->opts.gone(port->t->opts.arg);
}

/* One request into port->buf: its length, 0: none (now), negative errno. */
static ssize_t port_receive(struct transport_port *port)
{
	ssize_t n;

	if (!port->buf || port->kept) {
		struct pool_buf *b = pool_get(&port->t->pool);

		/* Without memory the request stays in the kernel's queue; epoll calls again. */
		if (!b)
			return 0;
		port->buf = b;
		port->kept = false;
	}
	do
		n = read(port->fd, request_start(port->buf), READ_SIZE);
	while (n < 0 && (errno == EINTR || errno == ENOENT)); /* ENOENT: interrupted before we read it */
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	return n < (ssize_t)sizeof(struct fuse_in_header) ? -EIO : n;
}

static void port_readable(uint32_t events, void *arg)
{
	struct transport_port *port = arg;
	ssize_t n = 0;
	int i;

	(void)events;
	for (i = 0; i < BATCH; i++) {
		n = port_receive(port);
		if (n <= 0)
			break;
		port_dispatch(port, (size_t)n);
	}
	if (n < 0) {
		if (n != -ENODEV && n != -ECONNABORTED)
			log_err("%s: reading requests: %s", port->t->dir, strerror((int)-n));
		port_gone(port);
	}
}

void *transport_keep(fuse_req_t req)
{
	struct transport_port *port = fuse_req_userdata(req);

	port->kept = true;
	return port->buf;
}

void transport_release(struct transport *t, void *kept)
{
	pool_put(&t->pool, kept);
}

void *transport_user(fuse_req_t req)
{
	struct transport_port *port = fuse_req_userdata(req);

	return port->user;
}

void *transport_init_arg(void *userdata)
{
	struct transport_port *port = userdata;

	return port->t->opts.arg;
}

static const struct fuse_in_header *current_request(fuse_req_t req)
{
	struct transport_port *port = fuse_req_userdata(req);

	return (const void *)request_start(port->buf);
}

uint64_t transport_unique(fuse_req_t req)
{
	return current_request(req)->unique;
}

bool transport_kills_suid(fuse_req_t req)
{
	const struct fuse_in_header *in = current_request(req);

	if (in->opcode == FUSE_WRITE)
		return ((const struct fuse_write_in *)(const void *)(in + 1))->write_flags &
		       FUSE_WRITE_KILL_SUIDGID;
	if (in->opcode == FUSE_SETATTR)
		return ((const struct fuse_setattr_in *)(const void *)(in + 1))->valid & FATTR_KILL_SUIDGID;
	return false;
}

/* ---- opening ---- */

static const struct fuse_custom_io port_io = { .writev = port_writev, .read = port_read };

static int new_session(const struct fuse_lowlevel_ops *ops, const char *options, bool debug, void *userdata,
		       struct fuse_session **out)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	int bad = fuse_opt_add_arg(&args, "blobfs");

	if (options)
		bad |= fuse_opt_add_arg(&args, "-o") | fuse_opt_add_arg(&args, options);
	if (debug)
		bad |= fuse_opt_add_arg(&args, "-d");
	*out = bad ? NULL : fuse_session_new(&args, ops, sizeof(*ops), userdata);
	fuse_opt_free_args(&args);
	return *out ? 0 : bad ? -ENOMEM : -EINVAL;
}

static int clone_device(int fd)
{
	uint32_t master = (uint32_t)fd;
	int clone = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (clone >= 0 && !ioctl(clone, FUSE_DEV_IOC_CLONE, &master))
		return clone;
	/* Sharing one works too, only less well. */
	if (clone >= 0)
		close(clone);
	return fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

static int open_port(struct transport *t, unsigned int i)
{
	struct transport_port *port = &t->ports[i];
	int fd = fuse_session_fd(t->holder), rc;

	port->t = t;
	fd = i ? clone_device(fd) : fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	rc = fcntl(fd, F_SETFL, O_NONBLOCK) ? -errno :
					      new_session(t->opts.ops, NULL, t->opts.debug, port, &port->se);
	if (!rc)
		rc = fuse_session_custom_io(port->se, &port_io, fd);
	if (rc) {
		if (port->se)
			fuse_session_destroy(port->se);
		port->se = NULL;
		close(fd);
		return rc;
	}
	port->fd = fd;
	t->n_ports = i + 1;
	return 0;
}

/* The kernel has sent INIT by itself. */
static int negotiate(struct transport *t)
{
	struct transport_port *first = &t->ports[0];
	const struct fuse_in_header *in;
	const struct fuse_init_in *arg;
	ssize_t n = port_receive(first);
	uint64_t offered;

	if (n <= 0)
		return n ? (int)n : -EPROTO;
	in = (const void *)request_start(first->buf);
	arg = (const void *)(in + 1);
	if (in->opcode != FUSE_INIT || (size_t)n < sizeof(*in) + 16)
		return -EPROTO;
	offered = arg->flags;
	if ((offered & FUSE_INIT_EXT) && (size_t)n >= sizeof(*in) + sizeof(*arg))
		offered |= (uint64_t)arg->flags2 << 32;
	t->granted = offered & t->opts.want;
	port_dispatch(first, (size_t)n);
	first->state = PORT_SERVING;
	for (unsigned int i = 1; i < t->opts.ports; i++) {
		struct fuse_buf buf = { .size = (size_t)n, .mem = request_start(first->buf) };
		int rc = open_port(t, i);

		if (rc)
			return rc;
		t->ports[i].state = PORT_REPLAY;
		fuse_session_process_buf(t->ports[i].se, &buf);
		t->ports[i].state = PORT_SERVING;
	}
	return 0;
}

int transport_open(const struct transport_opts *opts, struct transport **out, struct base_err *err)
{
	static const struct fuse_lowlevel_ops none;
	struct transport *t = base_calloc(1, sizeof(*t) + opts->ports * sizeof(t->ports[0]));
	int rc = -ENOMEM;

	if (!t)
		return base_err_set(err, rc, "%s: out of memory", opts->dir);
	t->opts = *opts;
	pool_init(&t->pool, BUF_SIZE, opts->ports + 8);
	t->dir = base_strdup(opts->dir);
	if (!t->dir)
		goto fail;
	rc = new_session(&none, opts->mount_options, false, NULL, &t->holder);
	if (rc) {
		base_err_set(err, rc, "%s: mount options not accepted: %s", t->dir, opts->mount_options);
		goto fail;
	}
	rc = kmount_session(t->holder, t->dir, &t->dev, err);
	if (rc) {
		fuse_session_destroy(t->holder);
		t->holder = NULL;
		goto fail;
	}
	rc = open_port(t, 0);
	if (!rc)
		rc = negotiate(t);
	if (rc)
		goto fail;
	*out = t;
	return 0;
fail:
	transport_close(t);
	return base_err_set(err && err->text[0] ? NULL : err, rc, "%s: cannot talk to the kernel's FUSE: %s",
			    opts->dir, strerror(-rc));
}

int transport_attach(struct transport *t, unsigned int i, struct reactor *r, void *user)
{
	struct transport_port *port = &t->ports[i];

	port->user = user;
	port->r = r;
	return reactor_add_fd(r, port->fd, EPOLLIN | EPOLLEXCLUSIVE, port_readable, port, &port->watch);
}

uint64_t transport_granted(const struct transport *t)
{
	return t->granted;
}

int transport_invalidate(struct transport *t, uint64_t ino)
{
	return fuse_lowlevel_notify_inval_inode(t->ports[0].se, ino, 0, 0);
}

/* -ENOENT: it knew nothing of the name; the directory it forgot all the same. */
void transport_invalidate_name(struct transport *t, uint64_t dir, const char *name)
{
	fuse_lowlevel_notify_inval_entry(t->ports[0].se, dir, name, strlen(name));
}

int transport_invalidate_attr(struct transport *t, uint64_t ino)
{
	return fuse_lowlevel_notify_inval_inode(t->ports[0].se, ino, -1, 0);
}

/* ---- closing ---- */

int transport_unmount(struct transport *t)
{
	t->left = true;
	/* Unmounted by somebody else; or the connection was aborted, and a dead mount is left. */
	if (atomic_load(&t->gone))
		return kmount_remove_dead(t->dir, t->dev);
	return kmount_unmount(t->dir, t->dev);
}

void transport_close(struct transport *t)
{
	for (unsigned int i = 0; i < t->opts.ports; i++) {
		struct transport_port *port = &t->ports[i];

		if (port->watch)
			reactor_del_fd(port->watch);
		if (port->buf && !port->kept)
			pool_put(&t->pool, port->buf);
		if (port->se)
			fuse_session_destroy(port->se); /* closes its descriptor */
	}
	if (t->holder) {
		/* Unmounts, by path, unless the connection is dead. */
		if (!t->left || atomic_load(&t->gone))
			fuse_session_unmount(t->holder);
		fuse_session_destroy(t->holder);
	}
	pool_destroy(&t->pool);
	free(t->dir);
	free(t);
}
