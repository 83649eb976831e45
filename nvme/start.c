/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Starting, stopping and resetting a controller, in steps that never wait: each looks once and says what it still waits for. Steps
 * are taken under the controller's lock by whoever comes by, a poll of any queue pair or a thread that asked for
 * the reset, so that no poll is held up by a controller that takes its time.
 *
 * A reset stops the controller, which ends all its access to our memory, and starts it again with an admin queue only.
 * With it begins a new epoch, in which every queue pair makes its own queues anew (recover.c).
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#define LOG_COMPONENT "nvme"
#include "base/log.h"
#include "nvme/internal.h"

#define LOOK_NS 200000ull /* between two looks at the status register */

enum {
	LOOK,
	AWAIT_READY,
	STOP,
	AWAIT_STOPPED,
	START,
	AWAIT_STARTED,
	SETUP, /* what a running controller is told, by admin commands */
	AWAIT_QUEUES,
	BEHAVIOR,
	AWAIT_BEHAVIOR,
	EVENTS,
	AWAIT_EVENTS,
	STREAMS,
	AWAIT_STREAMS,
	SHADOW,
	AWAIT_SHADOW,
	IDENTIFY, /* what may be another after a reset, before anything is sent again */
	AWAIT_IDENTITY,
	NAMESPACE,
	AWAIT_NAMESPACE,
	DONE,
};

/* ---- registers ---- */

static int gone(struct nvme_ctrlr *c)
{
	return base_err_set(&c->start.err, -ENODEV, "%s: the controller is gone", c->info.address);
}

static void await(struct nvme_ctrlr *c, int step)
{
	c->start.step = step;
	c->start.deadline_ns = nvme_now_ns() + nvme_mmio_ready(c) * 1000000;
	c->start.next_look_ns = 0;
}

/* 0: it is as ready as it is to be. */
static int awaited(struct nvme_ctrlr *c, uint32_t ready)
{
	struct nvme_start *s = &c->start;
	uint64_t now = nvme_now_ns(), csts;
	int rc;

	if (now < s->next_look_ns)
		return -EINPROGRESS;
	rc = ctrlr_look(c, NVME_REG_CSTS, 4, &csts);
	if (rc)
		return rc == -EINPROGRESS ? rc : gone(c);
	s->next_look_ns = now + LOOK_NS;
	if (ready && csts & NVME_CSTS_CFS)
		return base_err_set(&s->err, -EIO, "%s: the controller has a fatal error",
				    c->info.address);
	if ((csts & NVME_CSTS_RDY) == ready)
		return 0;
	if (now <= s->deadline_ns)
		return -EINPROGRESS;
	return base_err_set(&s->err, -ETIMEDOUT, "%s: not %s after %llu ms", c->info.address,
			    ready ? "ready" : "stopped", (unsigned long long)nvme_mmio_ready(c));
}

/* Before it is stopped it must have started, if it is about to. */
static int look(struct nvme_ctrlr *c)
{
	uint64_t cc;
	int rc = ctrlr_look(c, NVME_REG_CC, 4, &cc);

	if (rc)
		return rc == -EINPROGRESS ? rc : gone(c);
	if (cc & NVME_CC_EN)
		await(c, AWAIT_READY);
	else
		c->start.step = STOP;
	return 0;
}

static int await_ready(struct nvme_ctrlr *c)
{
	/* Ready, or with a fatal error, or it had its time. */
	if (awaited(c, NVME_CSTS_RDY) == -EINPROGRESS)
		return -EINPROGRESS;
	c->start.step = STOP;
	return 0;
}

static int stop(struct nvme_ctrlr *c)
{
	int rc;

	/* Nothing of its queue is rung after this, not even what waits to be sent. */
	c->admin.stopped = true;
	ctrlr_forget(c, 0);
	rc = c->transport->write(c, NVME_REG_CC, 4, 0);
	if (rc)
		return rc == -EINPROGRESS ? rc : gone(c);
	await(c, AWAIT_STOPPED);
	return 0;
}

static int await_stopped(struct nvme_ctrlr *c)
{
	int rc = awaited(c, 0);

	if (rc)
		return rc;
	admin_clear(c);
	c->start.step = c->start.kind == START_STOP ? DONE : START;
	return 0;
}

static int start(struct nvme_ctrlr *c)
{
	const struct nvme_transport *t = c->transport;
	int rc = t->write(c, NVME_REG_AQA, 4, (ADMIN_ENTRIES - 1) << 16 | (ADMIN_ENTRIES - 1));

	if (!rc)
		rc = t->write(c, NVME_REG_ASQ, 8, nvme_iova(c->admin.sq));
	if (!rc)
		rc = t->write(c, NVME_REG_ACQ, 8, nvme_iova((const void *)c->admin.cq));
	if (!rc)
		rc = t->write(c, NVME_REG_CC, 4,
			      NVME_CC_EN | NVME_CC_IOSQES(6) | NVME_CC_IOCQES(4));
	if (rc)
		return rc == -EINPROGRESS ? rc : gone(c);
	c->admin.stopped = false;
	await(c, AWAIT_STARTED);
	return 0;
}

static int await_started(struct nvme_ctrlr *c)
{
	int rc = awaited(c, NVME_CSTS_RDY);

	if (!rc)
		c->start.step = c->start.kind == START_ENABLE ? DONE : SETUP;
	return rc;
}

/* ---- what it is told ---- */

/* Starts an admin command, the result of which `step` awaits. */
static int tell(struct nvme_ctrlr *c, struct nvme_sqe *sqe, int step)
{
	int handle = admin_start(c, sqe, NVME_ADMIN_TIMEOUT_MS);

	if (handle < 0)
		return handle == -EAGAIN ? -EINPROGRESS : gone(c);
	c->start.handle = handle;
	c->start.step = step;
	return 0;
}

static int setup(struct nvme_ctrlr *c)
{
	uint32_t want = MIN(c->opts.max_qpairs, NVME_MAX_QPAIRS) - 1;
	struct nvme_sqe sqe = {
		.opcode = NVME_ADMIN_SET_FEATURES,
		.cdw10 = NVME_FEAT_QUEUES,
		.cdw11 = want << 16 | want,
	};

	return tell(c, &sqe, AWAIT_QUEUES);
}

/* Returns the highest queue in use: with fewer than before it goes on as long as those have theirs. */
static unsigned set_granted(struct nvme_ctrlr *c, unsigned n)
{
	unsigned used = NVME_MAX_QPAIRS;

	pthread_mutex_lock(&c->table_lock);
	c->granted = n;
	while (used && !c->qpairs[used])
		used--;
	pthread_mutex_unlock(&c->table_lock);
	return used;
}

static int await_queues(struct nvme_ctrlr *c)
{
	uint32_t want = MIN(c->opts.max_qpairs, NVME_MAX_QPAIRS) - 1;
	struct admin_answer a;
	int rc = admin_result(c, c->start.handle, &a);
	unsigned used;

	if (rc == -EINPROGRESS)
		return rc;
	if (rc)
		return base_err_set(&c->start.err, rc, "%s: the controller grants no queues: %s",
				    c->info.address, strerror(-rc));
	used = set_granted(c, MIN(MIN(a.dw0 & 0xffff, a.dw0 >> 16), want) + 1);
	if (c->granted < used)
		return base_err_set(&c->start.err, -EPROTO,
				    "%s: %u queues after the reset, and %u are in use",
				    c->info.address, c->granted, used);
	c->start.step = BEHAVIOR;
	return 0;
}

/* Delays of retries are only asked for by a controller that was told we heed them. */
static int behavior(struct nvme_ctrlr *c)
{
	struct nvme_sqe sqe = {
		.opcode = NVME_ADMIN_SET_FEATURES,
		.cdw10 = NVME_FEAT_HOST_BEHAVIOR,
		.prp1 = nvme_iova(c->admin.page),
	};

	if (!c->crdt[0] && !c->crdt[1] && !c->crdt[2]) {
		c->start.step = EVENTS;
		return 0;
	}
	memset(c->admin.page, 0, NVME_PAGE);
	c->admin.page[0] = 1;
	return tell(c, &sqe, AWAIT_BEHAVIOR);
}

/* What it may refuse: 0 is its answer, with which error in *refused, or 0. */
static int answered(struct nvme_ctrlr *c, int *refused)
{
	struct admin_answer a;
	int rc = admin_result(c, c->start.handle, &a);

	*refused = rc;
	if (rc == -EINPROGRESS)
		return rc;
	if (rc && !a.status)
		return base_err_set(&c->start.err, rc, "%s: it does not answer: %s",
				    c->info.address, strerror(-rc));
	return 0;
}

static int await_polite(struct nvme_ctrlr *c, int next)
{
	int refused, rc = answered(c, &refused);

	if (!rc)
		c->start.step = next;
	return rc;
}

static int await_behavior(struct nvme_ctrlr *c)
{
	return await_polite(c, EVENTS);
}

static int events(struct nvme_ctrlr *c)
{
	struct nvme_sqe sqe = {
		.opcode = NVME_ADMIN_SET_FEATURES,
		.cdw10 = NVME_FEAT_EVENTS,
		.cdw11 = NVME_EVENTS_HEALTH |
			 (c->oaes & (NVME_OAES_NAMESPACES | NVME_OAES_FIRMWARE)),
	};

	return tell(c, &sqe, AWAIT_EVENTS);
}

static int await_events(struct nvme_ctrlr *c)
{
	return await_polite(c, STREAMS);
}

static int streams(struct nvme_ctrlr *c)
{
	struct nvme_sqe sqe = { .opcode = NVME_ADMIN_DIRECTIVE_SEND,
				.nsid = NVME_NSID_ALL,
				.cdw11 = NVME_DIRECTIVE_IDENTIFY << 8 | NVME_DIRECTIVE_ENABLE,
				.cdw12 = NVME_DIRECTIVE_STREAMS << 8 | 1 };

	atomic_store(&c->streams_on, false);
	if (c->directives)
		return tell(c, &sqe, AWAIT_STREAMS);
	c->start.step = SHADOW;
	return 0;
}

static int await_streams(struct nvme_ctrlr *c)
{
	int refused, rc = answered(c, &refused);

	if (rc)
		return rc;
	atomic_store(&c->streams_on, !refused);
	c->start.step = SHADOW;
	return 0;
}

/* One that is being attached is identified by who attaches it. */
static int after_setup(const struct nvme_ctrlr *c)
{
	return c->start.kind == START_RESET ? IDENTIFY : DONE;
}

static int shadow(struct nvme_ctrlr *c)
{
	struct nvme_sqe sqe = { .opcode = NVME_ADMIN_DOORBELL_BUFFERS };

	if (!c->shadow) {
		c->start.step = after_setup(c);
		return 0;
	}
	memset((void *)c->shadow, 0, (size_t)2 * NVME_PAGE);
	sqe.prp1 = nvme_iova((const void *)c->shadow);
	sqe.prp2 = nvme_iova((const void *)c->shadow_seen);
	return tell(c, &sqe, AWAIT_SHADOW);
}

static int await_shadow(struct nvme_ctrlr *c)
{
	int refused, rc = answered(c, &refused);

	if (rc)
		return rc;
	/* Queue pairs that were made with shadows would go on with them. */
	if (refused && c->start.kind == START_RESET)
		return base_err_set(&c->start.err, refused,
				    "%s: it refuses doorbells in memory: %s", c->info.address,
				    strerror(-refused));
	if (refused) {
		ctrlr_free(c, (void *)c->shadow);
		c->shadow = NULL;
	}
	c->start.step = after_setup(c);
	return 0;
}

/* ---- what it is after a reset ---- */

static int ask(struct nvme_ctrlr *c, uint32_t cns, uint32_t nsid, int step)
{
	struct nvme_sqe sqe = { .opcode = NVME_ADMIN_IDENTIFY,
				.nsid = nsid,
				.prp1 = nvme_iova(c->admin.page),
				.cdw10 = cns };

	memset(c->admin.page, 0, NVME_PAGE);
	return tell(c, &sqe, step);
}

static int identify(struct nvme_ctrlr *c)
{
	return ask(c, NVME_CNS_CTRLR, 0, AWAIT_IDENTITY);
}

/* It may take less at once than before; that it takes more is not needed. */
static int await_identity(struct nvme_ctrlr *c)
{
	const struct nvme_id_ctrlr *id = (const void *)c->admin.page;
	int rc = await_polite(c, NAMESPACE);

	if (!rc && nvme_mdts_bytes(id->mdts) < c->info.max_transfer)
		__atomic_store_n(&c->info.max_transfer, nvme_mdts_bytes(id->mdts), __ATOMIC_RELAXED);
	return rc;
}

static int namespace(struct nvme_ctrlr *c)
{
	c->start.nsid = ns_known_after(c, c->start.nsid);
	if (c->start.nsid)
		return ask(c, NVME_CNS_NS, c->start.nsid, AWAIT_NAMESPACE);
	c->start.step = DONE;
	return 0;
}

static int await_namespace(struct nvme_ctrlr *c)
{
	int refused, rc = answered(c, &refused);

	if (rc)
		return rc;
	if (refused)
		ns_lose(c, c->start.nsid, refused);
	else
		ns_learn(c, c->start.nsid, (const void *)c->admin.page, NULL);
	c->start.step = NAMESPACE;
	return 0;
}

/* ---- taking steps ---- */

void start_begin(struct nvme_ctrlr *c, enum start_kind kind)
{
	c->start = (struct nvme_start){ .kind = kind, .step = kind == START_SETUP ? SETUP : LOOK };
}

static int start_advance(struct nvme_ctrlr *c)
{
	static int (*const table[])(struct nvme_ctrlr *) = {
		[LOOK] = look,         [AWAIT_READY] = await_ready,
		[STOP] = stop,         [AWAIT_STOPPED] = await_stopped,
		[START] = start,       [AWAIT_STARTED] = await_started,
		[SETUP] = setup,       [AWAIT_QUEUES] = await_queues,
		[BEHAVIOR] = behavior, [AWAIT_BEHAVIOR] = await_behavior,
		[EVENTS] = events,     [AWAIT_EVENTS] = await_events,
		[STREAMS] = streams,   [AWAIT_STREAMS] = await_streams,
		[SHADOW] = shadow,     [AWAIT_SHADOW] = await_shadow,
		[IDENTIFY] = identify, [AWAIT_IDENTITY] = await_identity,
		[NAMESPACE] = namespace, [AWAIT_NAMESPACE] = await_namespace,
	};
	int rc = 0;

	while (!rc && c->start.step != DONE)
		rc = table[c->start.step](c);
	return rc;
}

int start_run(struct nvme_ctrlr *c, enum start_kind kind, struct base_err *err)
{
	int rc;

	pthread_mutex_lock(&c->lock);
	start_begin(c, kind);
	for (;;) {
		ctrlr_look_after(c);
		admin_poll(c);
		rc = start_advance(c);
		pthread_mutex_unlock(&c->lock);
		if (rc != -EINPROGRESS)
			break;
		if (!c->transport->alive(c))
			ctrlr_fail(c, "gone");
		nvme_sleep_us(100);
		pthread_mutex_lock(&c->lock);
	}
	if (rc && err)
		*err = c->start.err;
	return rc;
}

/* ---- reset ---- */

static void wake_all(struct nvme_ctrlr *c)
{
	uint64_t one = 1;

	pthread_mutex_lock(&c->table_lock);
	for (unsigned i = 1; i <= NVME_MAX_QPAIRS; i++) {
		struct nvme_qpair *q = c->qpairs[i];

		/* Not blocking; one that is full is readable anyway. */
		if (q && q->eventfd >= 0 && write(q->eventfd, &one, sizeof(one)) < 0)
			continue;
	}
	pthread_mutex_unlock(&c->table_lock);
}

void ctrlr_fail(struct nvme_ctrlr *c, const char *why)
{
	/* Once it has failed, buffers go back to their owners. */
	if (!nvme_failed(c) && !c->transport->cut_off(c))
		atomic_store(&c->at_large, true);
	if (atomic_exchange(&c->state, NVME_FAILED) == NVME_FAILED)
		return;
	if (atomic_load(&c->at_large))
		log_err("%s: its server may still write to the buffers of commands it has taken", c->info.address);
	log_err("%s: %s; the controller is given up", c->info.address, why);
	atomic_fetch_add(&c->epoch, 1);
	wake_all(c);
}

void ctrlr_begin_reset(struct nvme_ctrlr *c, unsigned epoch, const char *why)
{
	int running = NVME_RUNNING;

	if (atomic_load(&c->epoch) != epoch ||
	    !atomic_compare_exchange_strong(&c->state, &running, NVME_RESETTING))
		return;
	log_warn("%s: %s; resetting the controller", c->info.address, why);
	atomic_fetch_add(&c->epoch, 1);
	start_begin(c, START_RESET);
	wake_all(c);
}

void ctrlr_begin_recovery(struct nvme_ctrlr *c, unsigned epoch, const char *why)
{
	if (atomic_load(&c->epoch) != epoch || atomic_load(&c->state) != NVME_RUNNING)
		return;
	/* Resets that succeed and mend nothing would go on for ever. */
	if (ctrlr_tried_enough(c, atomic_fetch_add(&c->resets, 1) + 1))
		ctrlr_fail(c, "resets do not mend it");
	else
		ctrlr_begin_reset(c, epoch, why);
}

static void advance_reset(struct nvme_ctrlr *c)
{
	int resetting = NVME_RESETTING, rc = start_advance(c);

	if (rc == -EINPROGRESS)
		return;
	if (rc)
		ctrlr_fail(c, *c->start.err.text ? c->start.err.text : strerror(-rc));
	else if (atomic_compare_exchange_strong(&c->state, &resetting, NVME_RUNNING))
		wake_all(c);
}

void ctrlr_advance(struct nvme_ctrlr *c)
{
	ctrlr_look_after(c);
	admin_poll(c);
	if (atomic_load(&c->state) == NVME_RESETTING)
		advance_reset(c);
	else if (atomic_load(&c->state) == NVME_RUNNING && admin_overdue(c))
		ctrlr_begin_recovery(c, atomic_load(&c->epoch), "an abort does not come back");
	else if (atomic_load(&c->state) == NVME_RUNNING)
		events_advance(c);
}

void nvme_poll_events(struct nvme_ctrlr *c)
{
	uint64_t n;

	if (pthread_mutex_trylock(&c->lock))
		return;
	/* First the interrupt is taken, then what it is for: nothing is missed. */
	if (c->event_fd >= 0 && read(c->event_fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		log_debug("%s: event descriptor: %m", c->info.address);
	ctrlr_advance(c);
	pthread_mutex_unlock(&c->lock);
}

int ctrlr_health(struct nvme_ctrlr *c)
{
	uint64_t csts;
	int rc = c->transport->alive(c) ? ctrlr_look(c, NVME_REG_CSTS, 4, &csts) : -ENODEV;

	if (rc == -EINPROGRESS)
		return rc;
	if (rc) {
		ctrlr_fail(c, "gone");
		return -ENODEV;
	}
	return csts & NVME_CSTS_CFS ? -EIO : 0;
}

int ctrlr_await_reset(struct nvme_ctrlr *c)
{
	for (;;) {
		pthread_mutex_lock(&c->lock);
		ctrlr_advance(c);
		pthread_mutex_unlock(&c->lock);
		if (atomic_load(&c->state) != NVME_RESETTING)
			return atomic_load(&c->state) == NVME_FAILED ? -ENODEV : 0;
		if (!c->transport->alive(c))
			ctrlr_fail(c, "gone");
		nvme_sleep_us(100);
	}
}

int ctrlr_reset(struct nvme_ctrlr *c, unsigned epoch, const char *why)
{
	pthread_mutex_lock(&c->lock);
	ctrlr_begin_reset(c, epoch, why);
	pthread_mutex_unlock(&c->lock);
	return ctrlr_await_reset(c);
}

int nvme_reset(struct nvme_ctrlr *c)
{
	return ctrlr_reset(c, atomic_load(&c->epoch), "a reset was asked for");
}
