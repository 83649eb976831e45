/* SPDX-License-Identifier: BSD-2-Clause */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/util.h"
#include "bdev/nvme_wait.h"

#define FIRST_NS 15000ull    /* taken for the mean before one is known */
#define LONGEST_NS 250000ull /* of spinning */
#define WEIGHT 8u            /* of what was, against what is */

static atomic_uint spinners, most;
static unsigned limit;

static void find_limit(void)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	limit = (unsigned)MAX(cores / 2, 1l);
}

uint64_t nvme_wait_spin_ns(const struct nvme_wait *w)
{
	uint64_t ns = 2 * (w->mean_ns ? w->mean_ns : FIRST_NS);

	return ns > LONGEST_NS ? 0 : ns;
}

void nvme_wait_learn(struct nvme_wait *w, uint64_t took_ns)
{
	uint64_t mean = w->mean_ns ? w->mean_ns : FIRST_NS;

	/* One that was held up for seconds says nothing of the usual. */
	took_ns = MIN(took_ns, 100 * LONGEST_NS);
	w->mean_ns = MAX((mean * (WEIGHT - 1) + took_ns) / WEIGHT, 1ull);
}

bool nvme_wait_enter(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	unsigned n = atomic_load(&spinners), seen;

	pthread_once(&once, find_limit);
	do {
		if (n >= limit)
			return false;
	} while (!atomic_compare_exchange_weak(&spinners, &n, n + 1));
	seen = atomic_load(&most);
	while (seen < n + 1 && !atomic_compare_exchange_weak(&most, &seen, n + 1))
		;
	return true;
}

void nvme_wait_leave(void)
{
	atomic_fetch_sub(&spinners, 1);
}

unsigned nvme_wait_most(void)
{
	return atomic_load(&most);
}
