/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "nvme/internal.h"
#include "test/shim/test.h"
#include "test/unit/nvme/peer.h"

static void *serve(void *arg)
{
	struct peer *p = arg;

	nvmet_serve(p->t, p->listener);
	return NULL;
}

void peer_start(struct peer *p, const struct nvmet_opts *o)
{
	struct nvmet_opts usual = { .size = 64 * MiB };

	ASSERT_TRUE(temp_dir(p->dir, "nvmet"));
	snprintf(p->path, sizeof(p->path), "%s/sock", p->dir);
	snprintf(p->address, sizeof(p->address), "vfio-user:%s", p->path);
	ASSERT_OK(nvmet_create(o ? o : &usual, &p->t));
	p->listener = nvmet_listen(p->path);
	ASSERT_GE_INT(p->listener, 0);
	ASSERT_OK(pthread_create(&p->thread, NULL, serve, p));
}

void peer_stop(struct peer *p)
{
	atomic_store(&p->t->stop, true);
	pthread_join(p->thread, NULL);
	close(p->listener);
	unlink(p->path);
	rmdir(p->dir);
	EXPECT_EQ_INT(0, atomic_load(&p->t->n.host_errors));
	nvmet_destroy(p->t);
}

void peer_attach(struct peer *p, const struct nvme_opts *o, struct nvme_ctrlr **c)
{
	struct base_err err;

	if (nvme_attach(p->address, o, c, &err))
		FAIL("%s", err.text);
}

void begin_reset(struct nvme_ctrlr *c)
{
	pthread_mutex_lock(&c->lock);
	ctrlr_begin_reset(c, atomic_load(&c->epoch), "a test");
	pthread_mutex_unlock(&c->lock);
}

void quiet(enum base_log_level level, const char *component, const char *line, void *arg)
{
	(void)level;
	(void)component;
	(void)line;
	(void)arg;
}

static void done(struct nvme_cmd *cmd, int rc)
{
	struct todo *d = cmd->cb_arg;

	d->rc = rc;
	d->calls++;
}

void todo_init(struct todo *d, enum nvme_op op, uint64_t lba, uint64_t blocks, void *buf,
	       size_t len)
{
	memset(d, 0, sizeof(*d));
	d->v = (struct iovec){ buf, len };
	d->cmd.op = op;
	d->cmd.nsid = 1;
	d->cmd.lba = lba;
	d->cmd.blocks = blocks;
	d->cmd.iov = buf ? &d->v : NULL;
	d->cmd.iovcnt = buf ? 1 : 0;
	d->cmd.cb = done;
	d->cmd.cb_arg = d;
}

int todo_wait(struct nvme_qpair *q, struct todo *d)
{
	uint64_t end = nvme_now_ns() + 20000000000ull;

	while (!d->calls) {
		nvme_poll(q, 0);
		if (nvme_now_ns() > end)
			FAIL("a command was never called back");
	}
	EXPECT_EQ_INT(1, d->calls);
	return d->rc;
}

int do_cmd(struct nvme_qpair *q, enum nvme_op op, uint64_t lba, uint64_t blocks, void *buf,
	   size_t len)
{
	struct todo d;

	todo_init(&d, op, lba, blocks, buf, len);
	nvme_submit(q, &d.cmd);
	EXPECT_EQ_INT(0, d.calls);
	return todo_wait(q, &d);
}

void fill(void *buf, size_t len, uint64_t seed)
{
	unsigned char *p = buf;

	for (size_t i = 0; i < len; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		p[i] = (unsigned char)(seed >> 56);
	}
}
