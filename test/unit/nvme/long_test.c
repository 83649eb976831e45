/* SPDX-License-Identifier: BSD-2-Clause */
/* Attaching, reading, resetting and detaching for long: `make check-long` does ten million reads under the address sanitizer. */
#include <dirent.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "nvme/internal.h"
#include "test/shim/test.h"
#include "test/unit/nvme/peer.h"

enum { DEPTH = 64 };

static unsigned descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	ASSERT_TRUE(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

TEST(nvme_long, attached_and_detached_a_thousand_times_leaks_nothing)
{
	void *first = nvme_alloc(4096, 0), *again;
	uint64_t n = test_scaled(1000);
	struct nvme_qpair *q;
	struct nvme_ctrlr *c;
	unsigned before;
	struct peer p;

	nvme_free(first);
	peer_start(&p, NULL);
	before = descriptors();
	for (uint64_t i = 0; i < n; i++) {
		peer_attach(&p, NULL, &c);
		ASSERT_OK(nvme_qpair_create(c, 8, &q));
		nvme_qpair_free(q);
		nvme_detach(c);
	}
	EXPECT_EQ_INT(n, atomic_load(&p.t->n.clients));
	peer_stop(&p);
	EXPECT_LT_INT(descriptors(), before + 1);
	again = nvme_alloc(4096, 0);
	EXPECT_EQ_PTR(first, again);
	nvme_free(again);
}

struct load {
	struct nvme_qpair *q;
	uint64_t left, done, wrong, seed;
	char *buf;
	struct todo d[DEPTH];
};

static void submit(struct load *l, struct todo *d)
{
	l->seed = l->seed * 6364136223846793005ull + 1442695040888963407ull;
	d->cmd.lba = (l->seed >> 40) % 2048 * 8;
	l->left--;
	nvme_submit(l->q, &d->cmd);
}

static void read_done(struct nvme_cmd *cmd, int rc)
{
	struct load *l = cmd->cb_arg;
	uint64_t lba;

	/* Each page begins with its place. */
	memcpy(&lba, cmd->iov->iov_base, sizeof(lba));
	l->wrong += rc || lba != cmd->lba;
	l->done++;
	if (l->left)
		submit(l, container_of(cmd, struct todo, cmd));
}

static void reads(struct load *l, uint64_t n)
{
	l->left = n;
	l->done = 0;
	for (unsigned i = 0; i < DEPTH && l->left; i++) {
		todo_init(&l->d[i], NVME_READ, 0, 8, l->buf + i * 4096, 4096);
		l->d[i].cmd.cb = read_done;
		l->d[i].cmd.cb_arg = l;
		submit(l, &l->d[i]);
	}
	while (nvme_outstanding(l->q))
		nvme_poll(l->q, 0);
	EXPECT_EQ_INT(n, l->done);
	EXPECT_EQ_INT(0, l->wrong);
}

TEST(nvme_long, reads_a_reset_among_them_and_no_trace_of_it)
{
	struct nvmet_opts t = { .size = 8 * MiB };
	uint64_t n = test_scaled(200000);
	struct load l = { .seed = 42 };
	struct nvme_ctrlr *c;
	struct peer p;

	base_log_set_sink(quiet, NULL);
	peer_start(&p, &t);
	peer_attach(&p, NULL, &c);
	ASSERT_OK(nvme_qpair_create(c, DEPTH, &l.q));
	l.buf = nvme_alloc(DEPTH * 4096, 0);
	ASSERT_TRUE(l.buf);
	for (uint64_t lba = 0; lba < 16384; lba += 8) {
		memcpy(l.buf, &lba, sizeof(lba));
		ASSERT_OK(do_cmd(l.q, NVME_WRITE, lba, 8, l.buf, 4096));
	}
	reads(&l, n - n / 4);
	ASSERT_OK(nvme_reset(c));
	reads(&l, n / 4);
	nvme_free(l.buf);
	nvme_qpair_free(l.q);
	nvme_detach(c);
	peer_stop(&p);
	base_log_set_sink(NULL, NULL);
}
