/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the driver on a controller of a virtual machine: what their files share. */
#ifndef TEST_QEMU_GUEST_H
#define TEST_QEMU_GUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "nvme/nvme.h"

/* Says `ok NAME` or `not ok NAME: why`. Returns whether it was well. */
bool check(bool well, const char *name, const char *why, ...) __attribute__((format(printf, 3, 4)));
/* How many were not well. */
extern unsigned bad;

struct target {
	struct nvme_ctrlr *c;
	struct nvme_qpair *q;
	struct nvme_ns_info ns;
};
/* nsid 0: the first. Says why not, and then returns false. */
bool target_open(struct target *t, const char *address, uint32_t nsid,
		 const struct nvme_opts *opts);
void target_close(struct target *t);

/* One command, waited for. rc, or -ETIMEDOUT after a minute, with *status if it is not NULL. */
int run_cmd(struct target *t, enum nvme_op op, uint64_t lba, uint64_t blocks, void *buf, size_t len,
	    uint16_t *status);
int run_cmdv(struct target *t, enum nvme_op op, uint64_t lba, uint64_t blocks,
	     const struct iovec *iov, int iovcnt, uint16_t *status);
/* Fills the memory for a seed, as of byte 0, writes it at a block, and reads it back into the same memory. -EILSEQ: it is another. */
int write_and_read(struct target *t, uint64_t lba, void *buf, size_t len, uint64_t seed);
/* The second half of it. */
int read_back(struct target *t, uint64_t lba, void *buf, size_t len, uint64_t seed);
uint64_t clock_ms(void);
/* What a block of a seed holds at byte at: a word for each eight bytes. */
void fill(void *buf, size_t len, uint64_t at, uint64_t seed);
/* The first byte that is not as fill makes it, or -1. */
long differs(const void *buf, size_t len, uint64_t at, uint64_t seed);

/* ---- data.c ---- */
void test_identify(const char *address, const char *serial);
void test_sizes(const char *address, const char *nsid);
void test_mark(const char *address, const char *nsid);
void test_vectors(const char *address, const char *nsid);
void test_two(const char *one, const char *other);
void test_limits(const char *address, const char *queues);
void test_metadata(const char *address, const char *other);
/* ---- life.c ---- */
void test_again(const char *address, const char *times);
void test_sleep(const char *address, const char *vectors);
void test_fork(const char *address, const char *none);
void test_hold(const char *address, const char *none);
/* ---- faults.c ---- */
void test_errors(const char *address, const char *first);
void test_late(const char *address, const char *none);
void test_unplug(const char *address, const char *id);
void test_reset(const char *address, const char *none);

#endif
