/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzing: each target takes any bytes and makes of them a part of a store, with right checksums, so that what lies behind the checksums
 * is reached. A finding ends the process. The same functions run the corpus (main.c) and libFuzzer (libfuzzer.c).
 */
#ifndef TEST_FUZZ_FUZZ_H
#define TEST_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "test/corrupt/corrupt.h"

struct fuzz_target {
	const char *name;
	void (*run)(const uint8_t *data, size_t size);
	/* The kth input to begin with, made of what mkfs makes; its size, 0 past the last. room bytes. */
	size_t (*seed)(unsigned k, uint8_t *out, size_t room);
};
extern const struct fuzz_target fuzz_super, fuzz_frame, fuzz_record, fuzz_image;
/* NULL when there is none of this name. */
const struct fuzz_target *fuzz_find(const char *name);
const struct fuzz_target *fuzz_nth(unsigned i);

#define FUZZ_INPUT_MAX 65536u

/* Once, before anything else. */
void fuzz_init(void);
/* The small file systems that are changed: one closed in order, one with a log. Each call gives one as it was made. */
enum { FUZZ_CLOSED, FUZZ_TAIL, FUZZ_IMAGES };
struct scratch *fuzz_scratch(unsigned which);
/* Checks, mounts, walks, changes or repairs what is in the scratch, as `how` says. Then the scratch is as it was made. */
enum fuzz_how { FUZZ_USE, FUZZ_REPAIR };
void fuzz_use(struct scratch *s, enum fuzz_how how, uint64_t seed);
/* The structure of this kind that comes last; exits when there is none. */
const struct structure *fuzz_last(const struct scratch *s, enum structure_kind kind);
/* Says what was found and ends the process. */
void fuzz_finding(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

#endif
