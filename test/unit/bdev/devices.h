/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices of every module, for tests that hold for all of them. */
#ifndef TEST_UNIT_BDEV_DEVICES_H
#define TEST_UNIT_BDEV_DEVICES_H

#include <stdatomic.h>

#include "bdev/bdev.h"
#include "test/shim/test.h"

#define DEV_SIZE (16 << 20)

struct test_dev {
	const char *label;
	const char *module; /* as bdev_info says */
	uint32_t flags;
	bool file; /* else memory, alone or under a wrapper */
	bool nvme; /* a controller, served by a thread */
	uint32_t block;
	int (*wrap)(struct bdev *base, struct bdev **out);
	struct bdev *dev;
	char path[64]; /* "" when there is no file */
	struct peer *peer;
};

/* The modules under test, ended by a label of NULL. */
extern const struct test_dev test_devs[];

/* Opens a fresh device of DEV_SIZE bytes; t is a copy of an element of test_devs. */
void dev_open(struct test_dev *t, uint32_t depth, uint32_t channels);
/* Closes it and removes its file. */
void dev_close(struct test_dev *t);

/* Defines a test for each module: FOR_EACH_MODULE(bdev_io, reads_back_what_was_written) { … dev … }
 */
#define FOR_EACH_MODULE(suite_, name_)                                         \
	static void body_##suite_##_##name_(struct test_dev *t);               \
	TEST(suite_, name_)                                                    \
	{                                                                      \
		for (const struct test_dev *d_ = test_devs; d_->label; d_++) { \
			struct test_dev t_ = *d_;                              \
                                                                               \
			test_note("module %s", d_->label);                     \
			body_##suite_##_##name_(&t_);                          \
		}                                                              \
	}                                                                      \
	static void body_##suite_##_##name_(struct test_dev *t)

/* Aligned memory, freed by free(). */
void *buf_alloc(size_t len);
/* Bytes that depend on the seed and their place. */
void buf_fill(void *buf, size_t len, uint64_t seed);

/* Counts callbacks and keeps the first error. */
struct tally {
	atomic_uint done;
	atomic_int rc;
};
void tally_cb(struct bdev_io *io, int rc);
/* Polls until so many callbacks have come. */
void tally_wait(struct bdev_channel *ch, struct tally *t, unsigned n);

/* One synchronous I/O on a borrowed channel. */
int dev_io(struct bdev *dev, enum bdev_op op, void *buf, uint64_t offset, uint64_t length,
	   uint32_t flags);

#endif
