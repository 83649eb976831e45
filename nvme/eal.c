/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * DPDK's environment (EAL), of which the driver uses the way to devices through VFIO. It starts with the first controller of
 * this machine, not before: files and vfio-user need none of it. It can be started once in a process and cannot be carried
 * over a fork.
 *
 * Its own memory is small and ordinary; ours comes from the pool. It is told to the IOMMU too, at its virtual address,
 * which therefore is asked to be below 2^39, and above what the pool uses.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#define LOG_COMPONENT "eal"
#include "base/log.h"
#include "nvme/internal.h"

#include <rte_eal.h>
#include <rte_errno.h>

#define BASE_ADDRESS "0x7000000000"
#define CORES_TEXT 2048u

enum eal_state { EAL_NOT_STARTED, EAL_STARTED, EAL_FAILED, EAL_FORKED };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static enum eal_state state;
static int failure;

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork_parent(void)
{
	pthread_mutex_unlock(&lock);
}

static void after_fork_child(void)
{
	if (state == EAL_STARTED)
		state = EAL_FORKED;
	pthread_mutex_unlock(&lock);
}

__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

/* One thread that floats over the cores the caller may use, instead of being pinned to the first. */
static void cores_text(const cpu_set_t *set, char *out, size_t len)
{
	size_t n = (size_t)snprintf(out, len, "0@(");

	for (unsigned i = 0; i < CPU_SETSIZE && n + 8 < len; i++)
		if (CPU_ISSET(i, set))
			n += (size_t)snprintf(out + n, len - n, "%u,", i);
	out[n - 1] = ')';
}

static int start(void)
{
	char cores[CORES_TEXT];
	bool debug = base_log_enabled(LOG_DEBUG, "eal");
	char *args[] = { "blobfs",
			 "--no-huge",
			 "--no-shconf",
			 "--no-pci",
			 "--no-telemetry",
			 "--iova-mode=va",
			 "-m",
			 "16",
			 "--base-virtaddr=" BASE_ADDRESS,
			 "--lcores",
			 cores,
			 debug ? "--log-level=8" : "--log-level=1",
			 NULL };
	cpu_set_t set;
	int rc;

	if (pthread_getaffinity_np(pthread_self(), sizeof(set), &set))
		return -EINVAL;
	cores_text(&set, cores, sizeof(cores));
	rc = rte_eal_init((int)ARRAY_SIZE(args) - 1, args) < 0 ? -rte_errno : 0;
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
	return rc;
}

int nvme_eal_start(const char *name, struct base_err *err)
{
	int rc = 0;

	pthread_mutex_lock(&lock);
	if (state == EAL_NOT_STARTED) {
		failure = start();
		state = failure ? EAL_FAILED : EAL_STARTED;
	}
	if (state == EAL_FAILED)
		rc = base_err_set(err, -EIO,
				  "%s: DPDK does not start: %s (BLOBFS_LOG=eal=debug says more)",
				  name, strerror(-failure));
	else if (state == EAL_FORKED)
		rc = base_err_set(err, -EPERM,
				  "%s: this process was forked from one that uses PCIe controllers",
				  name);
	pthread_mutex_unlock(&lock);
	return rc;
}
