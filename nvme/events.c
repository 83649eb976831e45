/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a controller tells by itself. Requests for asynchronous events are with it all the time; one that comes back is sent again, and
 * the log page it names is read, which is what allows the controller to tell of the next of its kind. After a change
 * of namespaces those are identified anew. As what ails a controller for long would be told of again each time its log has been read, a second
 * passes between two. All of it in steps under the controller's lock, as polls come by.
 */
#include <errno.h>
#include <string.h>

#define LOG_COMPONENT "nvme"
#include "base/log.h"
#include "nvme/internal.h"

enum { IDLE, LOG, NAMESPACE, LIST };
enum { NOT_SENT = -1, NOT_TAKEN = -2 };

#define LOG_EVERY_NS 1000000000ull
#define SAY_EVERY_NS 60000000000ull
#define TYPE(dw0) ((dw0)&7)
#define PAGE(dw0) ((dw0) >> 16 & 0xff)

void events_init(struct nvme_ctrlr *c, unsigned limit)
{
	struct nvme_event_state *e = &c->events;

	e->n = MIN(limit + 1, NVME_EVENTS_AT_ONCE);
	for (unsigned i = 0; i < e->n; i++)
		e->aer[i] = NOT_SENT;
}

/* A warning a minute of each type; changes of namespaces are always news. */
static bool is_news(struct nvme_event_state *e, unsigned type)
{
	uint64_t now = nvme_now_ns();

	if (type == 2)
		return true;
	if (now < e->next_said_ns[type & 3])
		return false;
	e->next_said_ns[type & 3] = now + SAY_EVERY_NS;
	return true;
}

static void note(struct nvme_ctrlr *c, uint32_t dw0)
{
	struct nvme_event_state *e = &c->events;
	const char *what = "an event of its vendor's";

	switch (TYPE(dw0)) {
	case 0:
		e->counts.errors++;
		what = "an error";
		break;
	case 1:
		e->counts.health++;
		what = "its health";
		break;
	case 2:
		e->counts.notices++;
		what = PAGE(dw0) == NVME_LOG_CHANGED_NS ? "namespaces that changed" : "a notice";
		break;
	default:
		e->counts.others++;
	}
	if (is_news(e, TYPE(dw0)))
		log_warn("%s: the controller tells of %s (%06x)", c->info.address, what,
			 dw0 & 0xffffff);
	/* Each kind is told of once until its log is read, so there is room for all; what a broken controller adds is dropped. */
	for (unsigned i = 0; i < e->npending; i++)
		if (PAGE(e->pending[i]) == PAGE(dw0))
			return;
	if (PAGE(dw0) && e->npending < ARRAY_SIZE(e->pending))
		e->pending[e->npending++] = dw0;
}

static void listen(struct nvme_ctrlr *c)
{
	struct nvme_sqe sqe = { .opcode = NVME_ADMIN_ASYNC_EVENT };
	struct nvme_event_state *e = &c->events;
	struct admin_answer a;
	int rc;

	for (unsigned i = 0; i < e->n; i++) {
		if (e->aer[i] >= 0) {
			rc = admin_result(c, e->aer[i], &a);
			if (rc == -EINPROGRESS)
				continue;
			/* A reset has taken it, or the controller wants no more of them. */
			e->aer[i] = rc && a.status ? NOT_TAKEN : NOT_SENT;
			if (!rc)
				note(c, a.dw0);
		}
		if (e->aer[i] == NOT_SENT) {
			rc = admin_start(c, &sqe, 0);
			e->aer[i] = rc < 0 ? NOT_SENT : rc;
		}
	}
}

/* ---- looking closer ---- */

/* What finds the queue full, or is taken away by a reset, is sent later: the controller does not tell twice. */
static bool send(struct nvme_ctrlr *c)
{
	int handle = admin_start(c, &c->events.sqe, NVME_ADMIN_TIMEOUT_MS);

	c->events.handle = handle < 0 ? NOT_SENT : handle;
	return handle >= 0;
}

static void ask(struct nvme_ctrlr *c, const struct nvme_sqe *sqe, int step)
{
	c->events.sqe = *sqe;
	c->events.step = step;
	send(c);
}

static uint32_t log_bytes(unsigned page)
{
	return page == NVME_LOG_ERROR ? 64 : page == NVME_LOG_CHANGED_NS ? NVME_PAGE : 512;
}

/* The first whose log may be read now; npending: none. */
static unsigned first_due(const struct nvme_event_state *e)
{
	uint64_t now = nvme_now_ns();
	unsigned i = 0;

	while (i < e->npending && PAGE(e->pending[i]) != NVME_LOG_CHANGED_NS && now < e->next_log_ns)
		i++;
	return i;
}

static void read_log(struct nvme_ctrlr *c)
{
	struct nvme_event_state *e = &c->events;
	unsigned at = first_due(e), page = at < e->npending ? PAGE(e->pending[at]) : 0;
	struct nvme_sqe sqe = {
		.opcode = NVME_ADMIN_GET_LOG,
		.nsid = NVME_NSID_ALL,
		.prp1 = nvme_iova(e->ids),
		.cdw10 = page | (log_bytes(page) / 4 - 1) << 16,
	};

	if (at == e->npending)
		return;
	memset(e->ids, 0, NVME_PAGE);
	e->page = page;
	e->npending--;
	memmove(e->pending + at, e->pending + at + 1, (e->npending - at) * sizeof(e->pending[0]));
	if (page != NVME_LOG_CHANGED_NS)
		e->next_log_ns = nvme_now_ns() + LOG_EVERY_NS;
	ask(c, &sqe, LOG);
}

static void identify_next(struct nvme_ctrlr *c)
{
	struct nvme_event_state *e = &c->events;
	struct nvme_sqe sqe = { .opcode = NVME_ADMIN_IDENTIFY,
				.nsid = e->index < NVME_IDS_OF_A_PAGE ? e->ids[e->index] : 0,
				.prp1 = nvme_iova(e->id),
				.cdw10 = NVME_CNS_NS };

	e->step = IDLE;
	if (!sqe.nsid)
		return;
	memset(e->id, 0, sizeof(*e->id));
	ask(c, &sqe, NAMESPACE);
}

/* More have changed than a page names: all that are active are looked at. */
static void list_all(struct nvme_ctrlr *c)
{
	struct nvme_sqe sqe = { .opcode = NVME_ADMIN_IDENTIFY,
				.prp1 = nvme_iova(c->events.ids),
				.cdw10 = NVME_CNS_ACTIVE_NS };

	memset(c->events.ids, 0, NVME_PAGE);
	ask(c, &sqe, LIST);
}

static void got_health(struct nvme_ctrlr *c, uint8_t warning)
{
	if (warning != c->events.counts.critical_warning)
		log_warn("%s: critical warnings %02x", c->info.address, warning);
	c->events.counts.critical_warning = warning;
}

static void got_log(struct nvme_ctrlr *c)
{
	struct nvme_event_state *e = &c->events;

	e->step = IDLE;
	e->index = 0;
	if (e->page == NVME_LOG_SMART) {
		got_health(c, ((uint8_t *)e->ids)[0]);
	} else if (e->page == NVME_LOG_CHANGED_NS && e->ids[0] == NVME_NSID_ALL) {
		list_all(c);
	} else if (e->page == NVME_LOG_CHANGED_NS) {
		identify_next(c);
	}
}

static void got_namespace(struct nvme_ctrlr *c)
{
	struct nvme_event_state *e = &c->events;
	uint32_t nsid = e->ids[e->index++];
	struct base_err err = { "" };

	if (ns_learn(c, nsid, e->id, &err))
		log_warn("%s: namespace %u cannot be used any more: %s", c->info.address, nsid,
			 err.text);
	else
		log_info("%s: namespace %u has %llu blocks now", c->info.address, nsid,
			 (unsigned long long)e->id->nsze);
	identify_next(c);
}

static void look_closer(struct nvme_ctrlr *c)
{
	struct nvme_event_state *e = &c->events;
	struct admin_answer a;
	int rc, step = e->step;

	if (e->handle == NOT_SENT && !send(c))
		return;
	rc = admin_result(c, e->handle, &a);
	if (rc == -ECANCELED && !a.status)
		e->handle = NOT_SENT;
	if (rc == -EINPROGRESS || e->handle == NOT_SENT)
		return;
	e->step = IDLE;
	/* What is refused is gone. */
	if (rc && a.status)
		memset(e->id, 0, sizeof(*e->id));
	if (rc == -ETIMEDOUT && !a.status)
		ctrlr_begin_recovery(c, atomic_load(&c->epoch), "a log page does not come");
	else if (step == NAMESPACE && (!rc || a.status))
		got_namespace(c);
	else if (!rc && step == LOG)
		got_log(c);
	else if (!rc && step == LIST)
		identify_next(c);
}

void events_advance(struct nvme_ctrlr *c)
{
	struct nvme_event_state *e = &c->events;

	if (!e->n)
		return;
	listen(c);
	if (e->step != IDLE)
		look_closer(c);
	if (e->step == IDLE && e->npending)
		read_log(c);
}

void nvme_get_events(struct nvme_ctrlr *c, struct nvme_events *out)
{
	pthread_mutex_lock(&c->lock);
	*out = c->events.counts;
	pthread_mutex_unlock(&c->lock);
}
