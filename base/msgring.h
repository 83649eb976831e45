/* SPDX-License-Identifier: BSD-2-Clause */
/* A lock-free ring of messages, many senders to one receiver. Only base includes it. */
#ifndef BASE_MSGRING_H
#define BASE_MSGRING_H

#include <stdbool.h>
#include <stdint.h>

struct msgring;

struct msg {
	void (*fn)(void *arg);
	void *arg;
};

/* size: power of two. -EINVAL, -ENOMEM. */
int msgring_create(uint32_t size, struct msgring **out);
void msgring_destroy(struct msgring *m);
/* Any thread; false when the ring is full. */
bool msgring_push(struct msgring *m, const struct msg *msg);
/* The receiver only; false when it is empty. */
bool msgring_pop(struct msgring *m, struct msg *msg);
uint32_t msgring_count(struct msgring *m);

#endif
