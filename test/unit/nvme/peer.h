/* SPDX-License-Identifier: BSD-2-Clause */
/* A controller in a thread, and the driver's commands made synchronous. */
#ifndef TEST_UNIT_NVME_PEER_H
#define TEST_UNIT_NVME_PEER_H

#include <pthread.h>

#include "base/log.h"
#include "nvme/nvme.h"
#include "test/common/nvmet.h"
#include "test/common/temp.h"

struct peer {
	struct nvmet *t;
	char dir[TEMP_PATH], path[96], address[128];
	int listener;
	pthread_t thread;
};

/* NULL: 64 MiB of memory in blocks of 512 bytes. */
void peer_start(struct peer *p, const struct nvmet_opts *o);
/* Fails the test when the controller has something to complain of. */
void peer_stop(struct peer *p);
void peer_attach(struct peer *p, const struct nvme_opts *o, struct nvme_ctrlr **c);
/* Begins a reset, and does not wait for its end. */
void begin_reset(struct nvme_ctrlr *c);
/* A sink for the log that shows nothing. */
void quiet(enum base_log_level level, const char *component, const char *line, void *arg);

struct todo {
	struct nvme_cmd cmd;
	struct iovec v;
	int rc, calls;
};
/* Fills a command on one buffer. */
void todo_init(struct todo *d, enum nvme_op op, uint64_t lba, uint64_t blocks, void *buf,
	       size_t len);
/* Polls until it was called back; fails the test after 20 s. */
int todo_wait(struct nvme_qpair *q, struct todo *d);
int do_cmd(struct nvme_qpair *q, enum nvme_op op, uint64_t lba, uint64_t blocks, void *buf,
	   size_t len);
/* Bytes that say where they belong. */
void fill(void *buf, size_t len, uint64_t seed);

#endif
