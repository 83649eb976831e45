/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A controller: its registers, bring-up as a list of steps, each with its undo, and the end.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LOG_COMPONENT "nvme"
#include "base/log.h"
#include "nvme/internal.h"

#define DEFAULT_QPAIRS 64u
#define DEFAULT_TIMEOUT_MS 30000u
#define DEFAULT_RETRIES 4u
#define MAX_SHUTDOWN_MS 60000u

static const struct nvme_transport *const transports[] = { &nvme_vfio_user, &nvme_pcie };

/* ---- registers ---- */

/* A controller that was taken away reads as all ones. */
int ctrlr_look(struct nvme_ctrlr *c, uint32_t reg, unsigned size, uint64_t *value)
{
	int rc = c->transport->read(c, reg, size, value);

	if (!rc && *value == (size == 8 ? UINT64_MAX : UINT32_MAX))
		rc = -ENODEV;
	return rc;
}

int ctrlr_read(struct nvme_ctrlr *c, uint32_t reg, unsigned size, uint64_t *value)
{
	int rc;

	while ((rc = ctrlr_look(c, reg, size, value)) == -EINPROGRESS)
		nvme_sleep_us(20);
	return rc;
}

int ctrlr_write(struct nvme_ctrlr *c, uint32_t reg, unsigned size, uint64_t value)
{
	int rc;

	while ((rc = c->transport->write(c, reg, size, value)) == -EINPROGRESS)
		nvme_sleep_us(20);
	return rc;
}

volatile uint32_t *ctrlr_doorbell(struct nvme_ctrlr *c, unsigned qid, bool cq)
{
	uint32_t reg = NVME_REG_DOORBELLS + (2 * qid + cq) * (4u << NVME_CAP_DSTRD(c->cap));

	return c->transport->mapped ? c->transport->mapped(c, reg) : NULL;
}

/* Writes the shadow. True: the controller has asked to be rung for what lies between its old value and the new one. */
static bool must_ring(struct nvme_ctrlr *c, unsigned i, uint32_t value)
{
	unsigned at = i << NVME_CAP_DSTRD(c->cap);
	uint16_t old = (uint16_t)c->shadow[at], seen;

	/* First the shadow, then the look: the controller does it the other way round before it sleeps. */
	__atomic_store_n(&c->shadow[at], value, __ATOMIC_SEQ_CST);
	seen = (uint16_t)__atomic_load_n(&c->shadow_seen[at], __ATOMIC_SEQ_CST);
	return (uint16_t)(value - seen - 1) < (uint16_t)(value - old);
}

/* Its failure shows as a controller that is gone. */
void ctrlr_ring_slowly(struct nvme_ctrlr *c, unsigned qid, bool cq, uint32_t value)
{
	uint32_t reg = NVME_REG_DOORBELLS + (2 * qid + cq) * (4u << NVME_CAP_DSTRD(c->cap));
	volatile uint32_t *db;

	if (qid && c->shadow && !must_ring(c, 2 * qid + cq, value))
		return;
	if (c->shadow && (db = ctrlr_doorbell(c, qid, cq)))
		__atomic_store_n(db, value, __ATOMIC_RELEASE);
	else if (c->transport->write(c, reg, 4, value) && atomic_load(&c->state) != NVME_FAILED)
		log_debug("%s: cannot write a doorbell", c->info.address);
}

/* ---- the steps of bring-up ---- */

static int step_open(struct nvme_ctrlr *c, struct base_err *err)
{
	return c->transport->open(c, c->info.address + strlen(c->transport->prefix), err);
}

static void undo_open(struct nvme_ctrlr *c)
{
	c->transport->close(c);
}

/* As many queues as there are doorbells for in its registers. */
static int limit_queues(struct nvme_ctrlr *c, struct base_err *err)
{
	uint64_t pair = 2 * (4ull << NVME_CAP_DSTRD(c->cap));
	uint64_t room = (c->transport->size(c) - NVME_REG_DOORBELLS) / pair;

	if (room < 2)
		return base_err_set(
			err, -EPROTO,
			"%s: the controller's doorbells, %llu bytes apart, lie beyond its registers",
			c->info.address, (unsigned long long)pair / 2);
	c->opts.max_qpairs = (uint32_t)MIN((uint64_t)c->opts.max_qpairs, room - 1);
	return 0;
}

static int step_capabilities(struct nvme_ctrlr *c, struct base_err *err)
{
	const char *name = c->info.address;
	uint64_t vs;
	int rc = ctrlr_read(c, NVME_REG_CAP, 8, &c->cap);

	if (!rc)
		rc = ctrlr_read(c, NVME_REG_VS, 4, &vs);
	if (rc)
		return base_err_set(err, rc, "%s: the controller is gone", name);
	c->info.version = (uint32_t)vs;
	if (!NVME_CAP_MQES(c->cap))
		return base_err_set(err, -EPROTO,
				    "%s: the controller says its queues have one entry", name);
	if (NVME_CAP_MPSMIN(c->cap))
		return base_err_set(err, -ENOTSUP,
				    "%s: the controller's smallest page is %llu bytes", name,
				    4096ull << NVME_CAP_MPSMIN(c->cap));
	if (!(NVME_CAP_CSS(c->cap) & NVME_CSS_NVM))
		return base_err_set(err, -ENOTSUP, "%s: the controller lacks the NVM command set",
				    name);
	if (vs < 0x10000)
		return base_err_set(err, -EPROTO, "%s: the controller says its version is %#x",
				    name, (unsigned)vs);
	c->info.max_depth = MIN(NVME_CAP_MQES(c->cap), NVME_MAX_DEPTH);
	return limit_queues(c, err);
}

static int step_admin_queue(struct nvme_ctrlr *c, struct base_err *err)
{
	if (admin_init(c))
		return base_err_set(err, -ENOMEM, "%s: no memory for DMA", c->info.address);
	c->admin.sq_db = ctrlr_doorbell(c, 0, false);
	c->admin.cq_db = ctrlr_doorbell(c, 0, true);
	return 0;
}

static void undo_enable(struct nvme_ctrlr *c)
{
	start_run(c, START_STOP, NULL);
}

/* Text of the controller: padded with blanks, and not to be trusted. */
static void copy_text(char *to, const char *from, size_t len)
{
	size_t end = 0;

	for (size_t i = 0; i < len; i++) {
		to[i] = from[i] >= ' ' && from[i] < 127 ? from[i] : ' ';
		if (to[i] != ' ')
			end = i + 1;
	}
	to[end] = '\0';
}

static uint64_t bytes_at_most(uint8_t exponent)
{
	return exponent && exponent < 40 ? (uint64_t)NVME_PAGE << exponent : UINT64_MAX;
}

/* What moves no data has limits of its own, since version 2.0. Who does not say is believed to have that of transfers. */
static int read_limits(struct nvme_ctrlr *c)
{
	struct nvme_id_nvm *id;
	int rc;

	c->max_zeroes = c->max_verify = 0;
	c->max_range = UINT32_MAX;
	if (c->info.version < 0x20000)
		return 0;
	id = base_malloc(sizeof(*id));
	if (!id)
		return -ENOMEM;
	rc = nvme_identify(c, NVME_CNS_NVM_CTRLR, 0, id);
	if (!rc) {
		c->max_zeroes = bytes_at_most(id->wzsl);
		c->max_verify = bytes_at_most(id->vsl);
		c->max_range = id->dmrsl ? id->dmrsl : UINT32_MAX;
	}
	free(id);
	return rc == -ENODEV || rc == -ETIMEDOUT ? rc : 0;
}

static int step_identify(struct nvme_ctrlr *c, struct base_err *err)
{
	struct nvme_id_ctrlr *id = base_malloc(sizeof(*id));
	int rc = -ENOMEM;

	c->info.max_transfer = NVME_PAGE;
	if (id)
		rc = nvme_identify(c, NVME_CNS_CTRLR, 0, id);
	if (rc) {
		free(id);
		return base_err_set(err, rc, "%s: identify failed: %s", c->info.address,
				    strerror(-rc));
	}
	copy_text(c->info.serial, id->sn, sizeof(id->sn));
	copy_text(c->info.model, id->mn, sizeof(id->mn));
	copy_text(c->info.firmware, id->fr, sizeof(id->fr));
	c->info.vendor = id->vid;
	c->info.max_transfer = nvme_mdts_bytes(id->mdts);
	c->info.volatile_cache = id->vwc & 1;
	c->info.compare = id->oncs & NVME_ONCS_COMPARE;
	c->info.deallocate = id->oncs & NVME_ONCS_DSM;
	c->info.write_zeroes = id->oncs & NVME_ONCS_WRITE_ZEROES;
	c->info.verify = id->oncs & NVME_ONCS_VERIFY;
	c->info.copy = id->oncs & NVME_ONCS_COPY;
	c->info.format = id->oacs & NVME_OACS_FORMAT;
	c->info.download = id->oacs & NVME_OACS_FIRMWARE;
	c->awupf = id->awupf;
	memcpy(c->crdt, id->crdt, sizeof(c->crdt));
	c->oaes = id->oaes;
	c->info.sgl = NVME_SGLS_SUPPORTED(id->sgls);
	c->info.shadow_doorbells = id->oacs & NVME_OACS_DOORBELL_BUFFERS;
	c->directives = id->oacs & NVME_OACS_DIRECTIVES;
	events_init(c, id->aerl);
	c->abort_limit = id->acl;
	c->shutdown_ms = MIN(MAX(id->rtd3e / 1000, 5000u), MAX_SHUTDOWN_MS);
	/* Entry sizes of 64 and 16 bytes: least in bits 3:0, most in 7:4. */
	if ((id->sqes & 0xf) > 6 || (id->sqes >> 4) < 6 || (id->cqes & 0xf) > 4 ||
	    (id->cqes >> 4) < 4)
		rc = base_err_set(err, -EPROTO,
				  "%s: the controller's queue entries are of another size",
				  c->info.address);
	else if (id->mdts >= 20)
		rc = base_err_set(err, -EPROTO,
				  "%s: the controller says it transfers 2^%u pages at once",
				  c->info.address, id->mdts);
	free(id);
	if (rc)
		return rc;
	rc = read_limits(c);
	return rc ? base_err_set(err, rc, "%s: identify failed: %s", c->info.address, strerror(-rc)) : 0;
}

/* Two pages, if they hold all queues; whether the controller takes them is seen when it is told. */
static int step_shadow(struct nvme_ctrlr *c, struct base_err *err)
{
	size_t bytes = (size_t)2 * (MIN(c->opts.max_qpairs, NVME_MAX_QPAIRS) + 1) *
		       (4u << NVME_CAP_DSTRD(c->cap));

	if (!c->info.shadow_doorbells || bytes > NVME_PAGE)
		return 0;
	c->shadow = nvme_alloc((size_t)2 * NVME_PAGE, NVME_PAGE);
	if (!c->shadow)
		return base_err_set(err, -ENOMEM, "%s: no memory for DMA", c->info.address);
	c->shadow_seen = c->shadow + NVME_PAGE / 4;
	return 0;
}

static void undo_shadow(struct nvme_ctrlr *c)
{
	ctrlr_free(c, (void *)c->shadow);
	c->shadow = NULL;
}

/* Vector 0 is the admin queue's. Without it what the controller tells is noticed by whoever polls next. */
static void hear_events(struct nvme_ctrlr *c)
{
	c->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->event_fd < 0 || !c->transport->bind(c, 0, c->event_fd))
		return;
	close(c->event_fd);
	c->event_fd = -1;
}

static void undo_setup(struct nvme_ctrlr *c)
{
	if (c->event_fd >= 0)
		close(c->event_fd);
	c->event_fd = -1;
}

static int step_setup(struct nvme_ctrlr *c, struct base_err *err)
{
	unsigned vectors = c->transport->vectors(c);
	int rc = start_run(c, START_SETUP, err);

	if (rc)
		return rc;
	c->info.shadow_doorbells = c->shadow;
	c->info.interrupts = c->opts.interrupts && vectors > 1;
	if (c->info.interrupts)
		hear_events(c);
	c->info.max_qpairs = c->info.interrupts ? MIN(c->granted, vectors - 1) : c->granted;
	return 0;
}

static int step_streams(struct nvme_ctrlr *c, struct base_err *err)
{
	int rc = streams_find(c);

	return rc ? base_err_set(err, rc, "%s: cannot ask for its streams: %s", c->info.address, strerror(-rc)) : 0;
}

static int step_namespaces(struct nvme_ctrlr *c, struct base_err *err)
{
	return ns_read_all(c, err);
}

static int step_enable(struct nvme_ctrlr *c, struct base_err *err)
{
	return start_run(c, START_ENABLE, err);
}

struct step {
	int (*run)(struct nvme_ctrlr *c, struct base_err *err);
	void (*undo)(struct nvme_ctrlr *c);
};

static const struct step steps[] = {
	{ step_open, undo_open },     { step_capabilities, NULL }, { step_admin_queue, admin_free },
	{ step_enable, undo_enable }, { step_identify, NULL },     { step_shadow, undo_shadow },
	{ step_setup, undo_setup },   { step_streams, NULL },
	{ step_namespaces, NULL },
};

static int bring_up(struct nvme_ctrlr *c, struct base_err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		int rc = steps[i].run(c, err);

		if (!rc)
			continue;
		while (i--)
			if (steps[i].undo)
				steps[i].undo(c);
		return rc;
	}
	return 0;
}

/* ---- attaching and detaching ---- */

static void default_opts(struct nvme_ctrlr *c, const struct nvme_opts *opts)
{
	if (opts)
		memcpy(&c->opts, opts, MIN((size_t)opts->size, sizeof(*opts)));
	c->opts.size = sizeof(c->opts);
	if (!c->opts.max_qpairs)
		c->opts.max_qpairs = DEFAULT_QPAIRS;
	if (!c->opts.timeout_ms)
		c->opts.timeout_ms = DEFAULT_TIMEOUT_MS;
	if (!c->opts.retries)
		c->opts.retries = DEFAULT_RETRIES;
	else if (c->opts.retries == UINT32_MAX)
		c->opts.retries = 0;
	c->opts.retries = MIN(c->opts.retries, 100u);
	atomic_store(&c->tick_ns, ctrlr_tick_ns(c->opts.timeout_ms));
}

static const struct nvme_transport *transport_of(const char *address)
{
	for (size_t i = 0; i < ARRAY_SIZE(transports); i++)
		if (!strncmp(address, transports[i]->prefix, strlen(transports[i]->prefix)))
			return transports[i];
	return NULL;
}

int nvme_normal_address(const char *address, char *out, size_t len)
{
	const char *prefix = nvme_pcie.prefix;
	char bdf[16];
	int n;

	if (pcie_normal(address, bdf) || (!strncmp(address, prefix, strlen(prefix)) &&
					  pcie_normal(address + strlen(prefix), bdf)))
		n = snprintf(out, len, "%s%s", prefix, bdf);
	else if (transport_of(address) && transport_of(address) != &nvme_pcie)
		n = snprintf(out, len, "%s", address);
	else
		return -EINVAL;
	return n < (int)len ? 0 : -ENAMETOOLONG;
}

int nvme_attach(const char *address, const struct nvme_opts *opts, struct nvme_ctrlr **out,
		struct base_err *err)
{
	struct nvme_ctrlr *c;
	int rc;

	if (err)
		err->text[0] = '\0';
	c = base_calloc(1, sizeof(*c));
	if (!c)
		return base_err_set(err, -ENOMEM, "%s: out of memory", address);
	rc = nvme_normal_address(address, c->info.address, sizeof(c->info.address));
	if (rc) {
		free(c);
		if (rc == -EINVAL)
			return base_err_set(err, rc, "%s: not the address of a controller",
					    address);
		return base_err_set(err, rc, "%.40s…: too long", address);
	}
	c->transport = transport_of(c->info.address);
	c->event_fd = -1;
	default_opts(c, opts);
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->table_lock, NULL);
	rc = bring_up(c, err);
	if (rc) {
		pthread_mutex_destroy(&c->table_lock);
		pthread_mutex_destroy(&c->lock);
		free(c);
		return rc;
	}
	*out = c;
	return 0;
}

void nvme_shorten_timeout(struct nvme_ctrlr *c, uint32_t timeout_ms)
{
	uint64_t new = ctrlr_tick_ns(timeout_ms), old = atomic_load(&c->tick_ns);

	while (timeout_ms && new < old && !atomic_compare_exchange_weak(&c->tick_ns, &old, new))
		;
}

/* Lets the controller write out what it holds, as before the power goes. */
static void shut_down(struct nvme_ctrlr *c)
{
	uint64_t end = nvme_now_ns() + c->shutdown_ms * 1000000ull, cc, csts;

	if (ctrlr_read(c, NVME_REG_CC, 4, &cc))
		return;
	cc = (cc & ~(uint64_t)NVME_CC_SHN_MASK) | NVME_CC_SHN_NORMAL;
	if (ctrlr_write(c, NVME_REG_CC, 4, cc))
		return;
	while (!ctrlr_read(c, NVME_REG_CSTS, 4, &csts) &&
	       NVME_CSTS_SHST(csts) != NVME_SHST_COMPLETE) {
		if (nvme_now_ns() > end) {
			log_warn("%s: no end of its shutdown after %u ms", c->info.address,
				 c->shutdown_ms);
			return;
		}
		nvme_sleep_us(200);
	}
}

void nvme_detach(struct nvme_ctrlr *c)
{
	assert(!c->nqpairs);
	if (!ctrlr_await_reset(c)) {
		shut_down(c);
		start_run(c, START_STOP, NULL);
	}
	undo_setup(c);
	undo_shadow(c);
	admin_free(c);
	c->transport->close(c);
	pthread_mutex_destroy(&c->table_lock);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

void nvme_forked(struct nvme_ctrlr *c)
{
	c->transport->forked(c);
}

/* ---- asking ---- */

const struct nvme_ctrlr_info *nvme_info(const struct nvme_ctrlr *c)
{
	return &c->info;
}

bool nvme_failed(const struct nvme_ctrlr *c)
{
	return atomic_load((atomic_int *)&c->state) == NVME_FAILED;
}

int nvme_gone_fd(const struct nvme_ctrlr *c)
{
	return c->transport->gone_fd(c);
}

int nvme_event_fd(const struct nvme_ctrlr *c)
{
	return c->event_fd;
}

short nvme_gone_events(const struct nvme_ctrlr *c)
{
	return c->transport->gone_events;
}
