/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Messages to a vfio-user server and their answers. Nothing here waits but vu_ask: a call is posted, and is done when some
 * vu_progress, of whatever thread, has received its answer. The lock is never held while anybody waits.
 */
#ifndef NVME_VFIO_USER_MSG_H
#define NVME_VFIO_USER_MSG_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/uio.h>

#include "base/err.h"
#include "nvme/vfio_user.h"

struct vu_conn;

/* A message that was sent, until it is done. The connection's lock guards it. */
struct vu_call {
	struct vu_call *next;
	uint64_t deadline_ns;
	uint16_t id, command;
	bool under_way;
	int rc;         /* when it is done: 0, what the server says, or why the connection is lost */
	uint8_t *data;  /* what of the answer's payload there is room for; NULL: none */
	uint32_t room, len;
	int *fds; /* VU_MAX_FDS of them; NULL: what comes is closed */
	unsigned nfds;
	/* With the lock; NULL: nothing. It may post the call again. */
	void (*done)(struct vu_conn *v, struct vu_call *call);
};

struct vu_answer {
	uint32_t len;
	unsigned nfds;
	int fds[VU_MAX_FDS];
	uint8_t data[VU_MAX_PAYLOAD] __attribute__((aligned(8)));
};

struct vu_conn {
	int fd;
	pthread_mutex_t lock;
	bool dead; /* every call is done, and no other is taken */
	bool closing; /* nothing more is sent */
	bool hung_up; /* by the server: it has closed its end */
	uint16_t id;
	atomic_uint calls; /* under way */
	uint64_t patience_ns;
	struct vu_call *head, **tail; /* in the order they were sent */
	/* The message that is being received. */
	struct vu_header h;
	size_t got; /* bytes, with the header */
	unsigned nfds;
	int fds[VU_MAX_FDS];
	uint8_t data[VU_MAX_PAYLOAD] __attribute__((aligned(8)));
};

int vu_connect(struct vu_conn *v, const char *path, struct base_err *err);
void vu_disconnect(struct vu_conn *v);
/*
 * Without the lock: says that we leave, and waits up to `ms` for the server to close its end, before which it lets go of our memory. False:
 * it has not, or the connection was lost before.
 */
bool vu_hang_up(struct vu_conn *v, unsigned ms);

/* Lock held: sends a message of up to two parts. 0; -EAGAIN: the server takes none now; -ENODEV. pass: a descriptor, or -1. */
int vu_post(struct vu_conn *v, struct vu_call *call, uint16_t command, const struct iovec part[2],
	    int pass);
/* Lock held: takes what has come. A server that does not answer in time is given up. */
void vu_progress(struct vu_conn *v);
/* Lock held: the connection is lost. */
void vu_lose(struct vu_conn *v, int rc);
/*
 * Without the lock: sends, and waits for an answer of at least `least` bytes; what is shorter loses the connection, as it is no
 * protocol. Descriptors in the answer are the caller's. -ENODEV, -ETIMEDOUT, -EPROTO, or what the server says.
 */
int vu_ask(struct vu_conn *v, uint16_t command, const struct iovec part[2], int pass,
	   struct vu_answer *a, uint32_t least);
int vu_ask_simple(struct vu_conn *v, uint16_t command, void *data, size_t len, struct vu_answer *a,
		  uint32_t least);
void vu_drop_fds(struct vu_answer *a);

#endif
