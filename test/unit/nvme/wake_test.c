/* SPDX-License-Identifier: BSD-2-Clause */
/* Whoever wakes all queue pairs does so while others come and go (for the thread sanitizer, too). */
#include <errno.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "nvme/internal.h"
#include "test/shim/test.h"
#include "test/unit/nvme/peer.h"

struct waker {
	struct nvme_ctrlr *c;
	atomic_bool stop;
	unsigned resets;
};

static void *reset_it(void *arg)
{
	struct waker *w = arg;

	while (!atomic_load(&w->stop) && !nvme_reset(w->c)) {
		w->resets++;
		nvme_sleep_us(2000); /* or no queue would ever be made */
	}
	return NULL;
}

/* Each comes with a descriptor, which it loses when the controller refuses it. */
static void come_and_go(bool refused)
{
	struct nvmet_opts t = { .size = 1 * MiB, .style = { .bind_refused = refused } };
	struct nvme_opts o = { .size = sizeof(o), .interrupts = true };
	struct waker w = { 0 };
	struct nvme_qpair *q;
	pthread_t thread;
	struct peer p;

	base_log_set_sink(quiet, NULL);
	peer_start(&p, &t);
	peer_attach(&p, &o, &w.c);
	ASSERT_OK(pthread_create(&thread, NULL, reset_it, &w));
	for (unsigned i = 0; i < 20; i++) {
		ASSERT_OK(nvme_qpair_create(w.c, 4, &q));
		EXPECT_EQ_INT(refused, nvme_qpair_fd(q) < 0);
		nvme_qpair_free(q);
	}
	atomic_store(&w.stop, true);
	pthread_join(thread, NULL);
	EXPECT_FALSE(nvme_failed(w.c));
	EXPECT_GT_INT(w.resets, 0);
	nvme_detach(w.c);
	peer_stop(&p);
	base_log_set_sink(NULL, NULL);
}

TEST(nvme_wake_threads, queue_pairs_come_and_go_during_resets)
{
	come_and_go(false);
}

TEST(nvme_wake_threads, and_without_interrupts)
{
	come_and_go(true);
}
