/* SPDX-License-Identifier: BSD-2-Clause */
/* How much a long test does. The test driver asks for less where a sanitizer slows everything, a person perhaps for more. */
#ifndef TEST_COMMON_SCALE_H
#define TEST_COMMON_SCALE_H

#include <stdint.h>
#include <stdlib.h>

/* n times TEST_SCALE of the environment; at least 1. */
static inline uint64_t scaled(uint64_t n)
{
	const char *scale = getenv("TEST_SCALE");
	double d = scale ? strtod(scale, NULL) * (double)n : (double)n;

	return d < 1 ? 1 : (uint64_t)d;
}

#endif
