/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads with queue pairs of their own, beside others that reset the controller, ask it and make and free queue pairs, until it goes. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "nvme/internal.h"
#include "test/shim/test.h"
#include "test/unit/nvme/peer.h"

enum { WORKERS = 4, DEPTH = 8, BLOCKS = 8, RUN_MS = 400, RESET_EVERY_MS = 20, MAKER_DEPTH = 4 };

struct many {
	struct nvme_ctrlr *c;
	atomic_bool going; /* the controller is about to go: -ENODEV is no failure any more */
};

struct worker {
	struct many *m;
	struct nvme_qpair *q;
	pthread_t thread;
	unsigned number;
	char *buf;
	struct todo d[DEPTH];
	atomic_uint rounds;
};

/* True: go on. */
static bool is_well(const struct many *m, int rc)
{
	if (rc && (rc != -ENODEV || !atomic_load(&m->going)))
		EXPECT_OK(rc);
	return !rc;
}

/* Every other thread sleeps where it finds nothing. */
static void wait_for(struct worker *w, struct todo *d)
{
	struct pollfd fd = { .fd = nvme_qpair_fd(w->q), .events = POLLIN };
	uint64_t end = nvme_now_ns() + 30000000000ull;

	while (!d->calls) {
		if (!nvme_poll(w->q, 0) && w->number & 1 && !d->calls && !nvme_qpair_arm(w->q))
			poll(&fd, 1, MIN(nvme_poll_interval_ms(w->q), 20));
		if (nvme_now_ns() > end)
			FAIL("a command was never called back");
	}
	EXPECT_EQ_INT(1, d->calls);
}

static bool do_all(struct worker *w, enum nvme_op op)
{
	bool well = true;

	for (unsigned i = 0; i < DEPTH; i++) {
		uint64_t lba = ((uint64_t)w->number * DEPTH + i) * BLOCKS;

		todo_init(&w->d[i], op, lba, BLOCKS, w->buf + i * 4096, 4096);
		nvme_submit(w->q, &w->d[i].cmd);
	}
	for (unsigned i = 0; i < DEPTH; i++) {
		wait_for(w, &w->d[i]);
		well &= is_well(w->m, w->d[i].rc);
	}
	return well;
}

/* What it wrote is what it reads, whatever happens to the controller. */
static void *work(void *arg)
{
	struct worker *w = arg;
	char want[64];

	for (unsigned round = 0;; round++) {
		atomic_store(&w->rounds, round);
		for (unsigned i = 0; i < DEPTH; i++)
			fill(w->buf + i * 4096, 4096, ((uint64_t)round * WORKERS + w->number) * DEPTH + i);
		if (!do_all(w, NVME_WRITE))
			break;
		memset(w->buf, 0, DEPTH * 4096);
		if (!do_all(w, NVME_READ))
			break;
		for (unsigned i = 0; i < DEPTH; i++) {
			fill(want, sizeof(want), ((uint64_t)round * WORKERS + w->number) * DEPTH + i);
			EXPECT_EQ_MEM(want, w->buf + i * 4096, sizeof(want));
		}
	}
	return NULL;
}

static void *reset(void *arg)
{
	struct many *m = arg;

	while (is_well(m, nvme_reset(m->c)))
		usleep(RESET_EVERY_MS * 1000);
	return NULL;
}

static void *ask(void *arg)
{
	struct many *m = arg;
	struct nvme_ns_info ns;
	char page[4096];

	do {
		ASSERT_OK(nvme_ns_get(m->c, 1, &ns));
		nvme_poll_events(m->c);
	} while (is_well(m, nvme_identify(m->c, NVME_CNS_NS, 1, page)) &&
		 is_well(m, nvme_get_log(m->c, 2, NVME_NSID_ALL, page, 512)));
	return NULL;
}

/* What a queue pair has outstanding when it is freed is called back, too. */
static void *make(void *arg)
{
	struct many *m = arg;
	char *buf = nvme_alloc(4096, 0);
	struct nvme_qpair *q;
	struct todo d[2];

	ASSERT_TRUE(buf);
	while (is_well(m, nvme_qpair_create(m->c, MAKER_DEPTH, &q))) {
		for (unsigned i = 0; i < 2; i++) {
			todo_init(&d[i], NVME_READ, 0, BLOCKS, buf, 4096);
			nvme_submit(q, &d[i].cmd);
		}
		is_well(m, todo_wait(q, &d[0]));
		nvme_qpair_free(q);
		EXPECT_EQ_INT(1, d[1].calls);
		if (d[1].rc != -ECANCELED)
			is_well(m, d[1].rc);
	}
	nvme_free(buf);
	return NULL;
}

/* On a busy machine longer: each worker gets something done. */
static void run_a_while(struct worker w[WORKERS])
{
	unsigned slowest = 0;

	usleep(RUN_MS * 1000);
	for (unsigned ms = 0; !slowest && ms < 20000; ms += 10) {
		slowest = UINT32_MAX;
		for (unsigned i = 0; i < WORKERS; i++)
			slowest = MIN(slowest, atomic_load(&w[i].rounds));
		usleep(10000);
	}
}

static void run(const struct nvmet_opts *t)
{
	static void *(*const others[])(void *) = { reset, ask, make };
	/* On a busy machine more resets than usual may meet one command. */
	struct nvme_opts o = { .size = sizeof(o), .interrupts = true, .retries = 100 };
	struct many m = { .going = false };
	struct worker w[WORKERS];
	pthread_t other[ARRAY_SIZE(others)];
	struct peer p;

	peer_start(&p, t);
	peer_attach(&p, &o, &m.c);
	for (unsigned i = 0; i < WORKERS; i++) {
		w[i] = (struct worker){ .m = &m, .number = i, .buf = nvme_alloc(DEPTH * 4096, 0) };
		ASSERT_TRUE(w[i].buf);
		ASSERT_OK(nvme_qpair_create(m.c, DEPTH, &w[i].q));
		ASSERT_OK(pthread_create(&w[i].thread, NULL, work, &w[i]));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(others); i++)
		ASSERT_OK(pthread_create(&other[i], NULL, others[i], &m));
	run_a_while(w);
	atomic_store(&m.going, true);
	atomic_store(&p.t->f.hang_up, true);
	for (unsigned i = 0; i < ARRAY_SIZE(others); i++)
		pthread_join(other[i], NULL);
	for (unsigned i = 0; i < WORKERS; i++) {
		pthread_join(w[i].thread, NULL);
		EXPECT_GE_INT(atomic_load(&w[i].rounds), 1);
		nvme_qpair_free(w[i].q);
		nvme_free(w[i].buf);
	}
	EXPECT_GE_INT(atomic_load(&p.t->n.enables), 3);
	nvme_detach(m.c);
	peer_stop(&p);
}

TEST(nvme_threads, commands_resets_questions_and_queues_at_once_until_the_controller_goes)
{
	base_log_set_sink(quiet, NULL);
	run(NULL);
	base_log_set_sink(NULL, NULL);
}

TEST(nvme_threads, and_where_all_of_it_goes_by_message)
{
	struct nvmet_opts t = { .size = 64 * MiB, .messages = true, .style = { .words = true } };

	base_log_set_sink(quiet, NULL);
	run(&t);
	base_log_set_sink(NULL, NULL);
}
