/* SPDX-License-Identifier: BSD-2-Clause */
/* Clocks, which a test can stop. */
#include <stdatomic.h>
#include <time.h>

#include "base/internal.h"
#include "base/util.h"

static _Atomic uint64_t fake_ns;

static uint64_t read_clock(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts); /* cannot fail for the two clocks used here */
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

void base_set_fake_clock(uint64_t ns)
{
	atomic_store(&fake_ns, ns);
}

bool base_clock_is_fake(void)
{
	return atomic_load_explicit(&fake_ns, memory_order_relaxed) != 0;
}

uint64_t base_real_ns(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

uint64_t base_now_ns(void)
{
	uint64_t fake = atomic_load_explicit(&fake_ns, memory_order_acquire);

	return fake ? fake : read_clock(CLOCK_MONOTONIC);
}

int64_t base_wall_ns(void)
{
	uint64_t fake = atomic_load_explicit(&fake_ns, memory_order_acquire);

	return (int64_t)(fake ? fake : read_clock(CLOCK_REALTIME));
}
