/* SPDX-License-Identifier: BSD-2-Clause */
/* The kernel's randomness, or a test's. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/util.h"

#define STEP 0x9e3779b97f4a7c15ull

static _Atomic uint64_t fake; /* 0: the kernel's */

void base_set_fake_random(uint64_t seed)
{
	/* A multiple of an odd number is 0 only for 0; what follows meets 0 after 2^64 steps. */
	atomic_store(&fake, seed * STEP);
}

/* The next eight bytes of splitmix64; threads each get their own. */
static uint64_t next_fake(void)
{
	uint64_t z = atomic_fetch_add(&fake, STEP) + STEP;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

void base_random(void *buf, size_t n)
{
	char *p = buf;

	while (n && atomic_load_explicit(&fake, memory_order_relaxed)) {
		uint64_t v = next_fake();
		size_t take = MIN(n, sizeof(v));

		memcpy(p, &v, take);
		p += take;
		n -= take;
	}
	while (n) {
		ssize_t got = getrandom(p, n, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			/* Ids made without randomness would collide and destroy data later. */
			fprintf(stderr, "blobfs: getrandom: %s\n", strerror(errno));
			abort();
		}
		p += got;
		n -= (size_t)got;
	}
}
