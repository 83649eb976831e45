/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * transport: how requests arrive and replies leave, and nothing else knows.
 *
 * A mount has ports, one for each reactor; a request is read, handled and answered at one port (the answer may come
 * from any thread). Today a port is a clone of the FUSE device with a libfuse session of its own; a ring of
 * FUSE-over-io_uring can take its place.
 */
#ifndef FUSE_TRANSPORT_H
#define FUSE_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "fuse/libfuse.h"

#include "base/err.h"
#include "base/reactor.h"

#define TRANSPORT_MAX_WRITE (1u << 20)

struct transport;
struct transport_port;

struct transport_opts {
	const char *dir;           /* absolute */
	const char *mount_options; /* "fsname=x,nodev": libfuse's and the kernel's */
	const struct fuse_lowlevel_ops *ops;
	unsigned int ports;
	bool debug;
	uint64_t want;             /* INIT flags to set although this libfuse does not know them, if offered */
	void (*gone)(void *arg);   /* the kernel has ended the connection; a reactor's thread; maybe twice */
	void (*interrupt)(void *arg, uint64_t unique); /* the asker of this request no longer waits */
	void *arg;
};

/* Mounts and negotiates; requests wait until the ports are attached. */
int transport_open(const struct transport_opts *opts, struct transport **out, struct base_err *err);
/* Serves a port from a reactor that does not run yet. user: see transport_user. */
int transport_attach(struct transport *t, unsigned int port, struct reactor *r, void *user);
/* The flags of transport_opts.want that the kernel offered, and now has. */
uint64_t transport_granted(const struct transport *t);
/* Unmounts while the ports are served. 0 (also when somebody else did), -EBUSY: it was in use and is detached.
 * Others: it is still there and dies with transport_close. */
int transport_unmount(struct transport *t);
/* After the reactors have ended: takes back what is left and closes. Pending requests must have been answered. */
void transport_close(struct transport *t);

/* The argument of fuse_lowlevel_ops.init gives transport_opts.arg. */
void *transport_init_arg(void *userdata);
/* What the port of a request was attached with. */
void *transport_user(fuse_req_t req);
/* Throws away what the kernel caches of an inode, after it has written dirty pages to us. Never from a thread
 * that serves. */
int transport_invalidate(struct transport *t, uint64_t ino);

/* The same of its attributes only. */
int transport_invalidate_attr(struct transport *t, uint64_t ino);

/* A name was made that the kernel has not asked for: what it knows of it, and of its directory, goes. */
void transport_invalidate_name(struct transport *t, uint64_t dir, const char *name);

/* In a handler, about its request. */
uint64_t transport_unique(fuse_req_t req);
/* suid, sgid are to be cleared by this WRITE or SETATTR (FUSE_HANDLE_KILLPRIV_V2). */
bool transport_kills_suid(fuse_req_t req);
/* Keeps the payload of a WRITE where it is beyond the handler, until transport_release. NULL: copy it. */
void *transport_keep(fuse_req_t req);
void transport_release(struct transport *t, void *kept);

#endif
