/* SPDX-License-Identifier: BSD-2-Clause */
/* Lanes on the NVMe driver: a queue pair each, polled. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/nvme/perf.h"
#include "tools/nvme/verb.h"

struct drive {
	struct nvme_ctrlr *c;
	struct nvme_ns_info ns;
	unsigned shift;
};

struct slot {
	struct nvme_cmd cmd;
	struct iovec v;
	struct lane *lane;
	uint64_t began;
};

struct queue {
	struct nvme_qpair *q;
	char *buf;
	struct slot slots[];
};

static int choose_ns(struct perf *p, struct drive *d, uint32_t nsid, struct base_err *err)
{
	int rc = nsid ? nvme_ns_get(d->c, nsid, &d->ns) : nvme_ns_next(d->c, 0, &d->ns);

	if (rc)
		return base_err_set(err, rc, "%s: %s", p->device,
				    rc == -ENOENT ? "there is no such namespace"
						  : "the namespace cannot be used");
	d->shift = (unsigned)__builtin_ctz(d->ns.block_size);
	p->block_size = d->ns.block_size;
	p->device_size = d->ns.blocks << d->shift;
	return 0;
}

static int check_limits(struct perf *p, struct drive *d, struct base_err *err)
{
	const struct nvme_ctrlr_info *i = nvme_info(d->c);

	if (p->channels > i->max_qpairs)
		return base_err_set(err, -EINVAL, "%s: the controller has %u queue pairs, not %llu",
				    p->device, i->max_qpairs, (unsigned long long)p->channels);
	if (p->depth > i->max_depth)
		return base_err_set(err, -EINVAL, "%s: a queue takes %u commands, not %llu",
				    p->device, i->max_depth, (unsigned long long)p->depth);
	return 0;
}

static void close_drive(struct perf *p)
{
	struct drive *d = p->priv;

	nvme_detach(d->c);
	free(d);
}

static int open_drive(struct perf *p, struct base_err *err)
{
	struct nvme_opts opts = { .size = sizeof(opts), .max_qpairs = (uint32_t)p->channels };
	struct drive *d = calloc(1, sizeof(*d));
	struct nvme_name name;
	int rc;

	if (!d)
		return base_err_set(err, -ENOMEM, "out of memory");
	rc = device_split(p->device, &name, err);
	if (!rc) {
		opts.timeout_ms = name.timeout_ms;
		rc = nvme_attach(name.address, &opts, &d->c, err);
	}
	if (rc) {
		free(d);
		return rc;
	}
	p->priv = d;
	rc = choose_ns(p, d, name.nsid, err);
	if (!rc)
		rc = check_limits(p, d, err);
	if (rc)
		close_drive(p);
	return rc;
}

/* ---- a lane ---- */

static void submit(struct lane *l, struct slot *s)
{
	const struct drive *d = l->p->priv;
	bool write;
	uint64_t at = lane_place(l, &write);

	s->cmd.op = write ? NVME_WRITE : NVME_READ;
	s->cmd.lba = at >> d->shift;
	nvme_submit(((struct queue *)l->priv)->q, &s->cmd);
}

static void done(struct nvme_cmd *cmd, int rc)
{
	struct slot *s = cmd->cb_arg;
	uint64_t now = ticks();

	if (!lane_done(s->lane, cmd->op == NVME_WRITE, s->began, now, rc))
		return;
	s->began = now;
	submit(s->lane, s);
}

static void lane_close(struct lane *l)
{
	struct queue *q = l->priv;

	if (!q)
		return;
	if (q->q)
		nvme_qpair_free(q->q);
	nvme_free(q->buf);
	free(q);
}

static int lane_open(struct lane *l, struct base_err *err)
{
	const struct drive *d = l->p->priv;
	uint64_t n = l->p->depth, size = l->p->io_size;
	struct queue *q = l->priv = calloc(1, sizeof(*q) + n * sizeof(q->slots[0]));
	int rc;

	if (!q)
		return base_err_set(err, -ENOMEM, "out of memory");
	q->buf = nvme_alloc(n * size, 4096);
	if (!q->buf)
		return base_err_set(err, -ENOMEM, "%s: no memory for %llu transfers at once",
				    l->p->device, (unsigned long long)n);
	for (uint64_t i = 0; i < n; i++) {
		struct slot *s = &q->slots[i];

		for (uint64_t k = 0; k < size / 8; k++)
			((uint64_t *)(void *)(q->buf + i * size))[k] =
				(l->random + i) * 0x9e3779b97f4a7c15ull + k;
		s->lane = l;
		s->v = (struct iovec){ q->buf + i * size, size };
		s->cmd = (struct nvme_cmd){ .nsid = d->ns.nsid,
					    .blocks = size >> d->shift,
					    .iov = &s->v,
					    .iovcnt = 1,
					    .cb = done,
					    .cb_arg = s };
	}
	rc = nvme_qpair_create(d->c, (uint32_t)n, &q->q);
	return rc ? base_err_set(err, rc, "%s: cannot make a queue pair: %s", l->p->device,
				 strerror(-rc))
		  : 0;
}

static void lane_run(struct lane *l)
{
	struct queue *q = l->priv;
	uint64_t start = ticks(), before = start, after;

	for (uint64_t i = 0; i < l->p->depth; i++) {
		q->slots[i].began = ticks();
		submit(l, &q->slots[i]);
	}
	while (nvme_outstanding(q->q)) {
		int n = nvme_poll(q->q, 0);

		after = ticks();
		if (n)
			l->busy += after - before;
		before = after;
	}
	l->ran = before - start;
}

const struct engine engine_nvme = { open_drive, close_drive, lane_open, lane_run, lane_close };
