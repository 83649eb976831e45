/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Transport: a controller that another process serves over the vfio-user protocol. We are the client. Our memory goes there by file
 * descriptor, doorbells are in a shared page if the server has one.
 *
 * Other registers are read and written by messages, and no poll waits for an answer: a read asks, and a later look has the value; a
 * write is on its way. Messages are served in their order, so a read sees what was written before. A doorbell without
 * a page has one message under way, and its last value follows. A server that does not answer in time is given up.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LOG_COMPONENT "nvme"
#include "base/log.h"
#include "nvme/vfio_user_dev.h"

#define LEAST_PATIENCE_MS 2000u
#define MOST_PATIENCE_MS 10000u
#define HANG_UP_MS 1000u
#define MSIX_ADDRESS 0xfee00000u /* where a processor takes them: nothing is written there, but 0 would be odd */

static struct vu *of(const struct nvme_ctrlr *c)
{
	return c->tp;
}

/* ---- registers; all of it under the lock ---- */

static int post_read(struct vu *v, struct vu_look *l, uint32_t reg, uint32_t size)
{
	struct vu_region_access r = { reg, VU_PCI_BAR0, size };
	struct iovec part[2] = { { &r, sizeof(r) }, { NULL, 0 } };
	int rc;

	l->call.data = l->data;
	l->call.room = sizeof(l->data);
	rc = vu_post(&v->conn, &l->call, VU_REGION_READ, part, -1);
	l->asked = !rc;
	l->stale = false;
	return rc && rc != -EAGAIN ? rc : -EINPROGRESS;
}

/* Asks, or has the answer. What was asked for before something was written is asked for again. */
static int look_at(struct vu *v, uint32_t reg, uint32_t size, uint64_t *value)
{
	struct vu_look *l = &v->looks[reg / 4];

	if (v->conn.dead)
		return -ENODEV;
	if (l->asked && l->call.under_way)
		return -EINPROGRESS;
	if (!l->asked || l->stale)
		return post_read(v, l, reg, size);
	l->asked = false;
	if (!l->call.rc && l->call.len >= sizeof(struct vu_region_access) + size) {
		*value = 0;
		memcpy(value, l->data + sizeof(struct vu_region_access), size);
		return 0;
	}
	vu_lose(&v->conn, -EPROTO); /* registers can always be read */
	return -ENODEV;
}

static int look_at_halves(struct vu *v, uint32_t reg, uint64_t *value)
{
	uint64_t low, high;
	int rc_high = look_at(v, reg + 4, 4, &high), rc = look_at(v, reg, 4, &low);

	/* What one of them has said is kept for when the other has. */
	if (!rc_high && rc == -EINPROGRESS)
		v->looks[reg / 4 + 1].asked = true;
	if (!rc && rc_high == -EINPROGRESS)
		v->looks[reg / 4].asked = true;
	if (!rc)
		rc = rc_high;
	if (!rc)
		*value = low | high << 32;
	return rc;
}

static int vu_read(struct nvme_ctrlr *c, uint32_t reg, unsigned size, uint64_t *value)
{
	struct vu *v = of(c);
	int rc;

	*value = 0;
	if (reg / 4 >= VU_LOOKS)
		return -EINVAL;
	pthread_mutex_lock(&v->conn.lock);
	vu_progress(&v->conn);
	rc = size == 8 && v->words ? look_at_halves(v, reg, value) : look_at(v, reg, size, value);
	pthread_mutex_unlock(&v->conn.lock);
	return rc;
}

/* A server that refuses a register it has is of no use. */
static void written(struct vu_conn *conn, struct vu_call *call)
{
	if (call->rc)
		vu_lose(conn, -ENODEV);
}

static int post_write(struct vu *v, uint32_t reg, uint32_t size, uint64_t value)
{
	struct vu_region_access r = { reg, VU_PCI_BAR0, size };
	struct iovec part[2] = { { &r, sizeof(r) }, { &value, size } };
	struct vu_call *call = v->posted;
	int rc;

	while (call < v->posted + VU_POSTED && call->under_way)
		call++;
	/* Neither this nor a full socket lasts: the oldest of what is under way is answered, or the server given up. */
	if (call == v->posted + VU_POSTED)
		return v->conn.dead ? -ENODEV : -EINPROGRESS;
	call->done = written;
	for (unsigned i = 0; i < VU_LOOKS; i++)
		v->looks[i].stale = true;
	rc = vu_post(&v->conn, call, VU_REGION_WRITE, part, -1);
	return rc == -EAGAIN ? -EINPROGRESS : rc;
}

/* ---- doorbells by message ---- */

static void ring(struct vu *v, struct vu_bell *b)
{
	struct vu_region_access r = { b->reg, VU_PCI_BAR0, 4 };
	struct iovec part[2] = { { &r, sizeof(r) }, { &b->value, 4 } };

	b->again = vu_post(&v->conn, &b->call, VU_REGION_WRITE, part, -1) == -EAGAIN;
	if (b->again)
		atomic_store(&v->blocked, true);
}

static void rung(struct vu_conn *conn, struct vu_call *call)
{
	struct vu_bell *b = container_of(call, struct vu_bell, call);

	written(conn, call);
	if (b->again)
		ring(container_of(conn, struct vu, conn), b);
}

static void ring_blocked(struct vu *v)
{
	atomic_store(&v->blocked, false);
	for (unsigned i = 0; i < VU_BELLS; i++)
		if (v->bells[i].again && !v->bells[i].call.under_way)
			ring(v, &v->bells[i]);
}

static int set_bell(struct vu *v, unsigned i, uint32_t reg, uint32_t value)
{
	struct vu_bell *b = &v->bells[i];

	if (i >= VU_BELLS)
		return -EINVAL;
	if (v->conn.dead)
		return -ENODEV;
	b->call.done = rung;
	b->reg = reg;
	b->value = value;
	b->again = true;
	if (!b->call.under_way)
		ring(v, b);
	return 0;
}

/* What is under way comes before whatever makes the new queues. */
static void vu_forget(struct nvme_ctrlr *c, unsigned qid)
{
	struct vu *v = of(c);

	pthread_mutex_lock(&v->conn.lock);
	for (unsigned i = 2 * qid; i < 2 * qid + 2; i++)
		v->bells[i].again = false;
	pthread_mutex_unlock(&v->conn.lock);
}

static int vu_write(struct nvme_ctrlr *c, uint32_t reg, unsigned size, uint64_t value)
{
	struct vu *v = of(c);
	int rc;

	pthread_mutex_lock(&v->conn.lock);
	vu_progress(&v->conn);
	if (reg >= NVME_REG_DOORBELLS) {
		rc = set_bell(v, (reg - NVME_REG_DOORBELLS) / (4u << NVME_CAP_DSTRD(c->cap)), reg,
			      (uint32_t)value);
	} else if (size == 8 && v->words) {
		rc = post_write(v, reg, 4, (uint32_t)value);
		if (!rc)
			rc = post_write(v, reg + 4, 4, value >> 32);
	} else {
		rc = post_write(v, reg, size, value);
	}
	pthread_mutex_unlock(&v->conn.lock);
	return rc;
}

static bool vu_look_after(struct nvme_ctrlr *c)
{
	struct vu *v = of(c);
	bool more;

	if (!atomic_load_explicit(&v->conn.calls, memory_order_relaxed) &&
	    !atomic_load_explicit(&v->blocked, memory_order_relaxed))
		return false;
	pthread_mutex_lock(&v->conn.lock);
	vu_progress(&v->conn);
	if (atomic_load(&v->blocked))
		ring_blocked(v);
	more = atomic_load(&v->conn.calls) || atomic_load(&v->blocked);
	pthread_mutex_unlock(&v->conn.lock);
	return more;
}

static volatile uint32_t *vu_mapped(struct nvme_ctrlr *c, uint32_t reg)
{
	struct vu *v = of(c);

	if (!v->map || reg < v->map_offset || reg - v->map_offset > v->map_size - 4)
		return NULL;
	return (volatile uint32_t *)(void *)(v->map + (reg - v->map_offset));
}

static uint64_t vu_size(struct nvme_ctrlr *c)
{
	return of(c)->bar_size;
}

/* ---- interrupts and death ---- */

static unsigned vu_vectors(struct nvme_ctrlr *c)
{
	return of(c)->vectors;
}

/* Whoever has no such table, or sees to it himself, may refuse. */
static void unmask(struct vu *v, unsigned vector)
{
	uint32_t entry[4] = { MSIX_ADDRESS, 0, vector, 0 };

	for (uint32_t i = 0; i < 4 && vector < atomic_load(&v->table_entries); i++)
		if (vu_region_write(v, v->table_region, v->table_offset + vector * 16 + i * 4,
				    &entry[i], 4))
			atomic_store(&v->table_entries, 0);
}

static int vu_bind(struct nvme_ctrlr *c, unsigned vector, int eventfd)
{
	struct vu_set_irqs s = {
		.argsz = sizeof(s),
		.flags = VU_IRQ_DATA_EVENTFD | VU_IRQ_ACTION_TRIGGER,
		.index = VU_PCI_MSIX,
		.start = vector,
		.count = 1,
	};
	struct iovec part[2] = { { &s, sizeof(s) }, { NULL, 0 } };
	struct vu_answer a;
	int rc = vu_ask(&of(c)->conn, VU_SET_IRQS, part, eventfd, &a, 0);

	vu_drop_fds(&a);
	if (!rc)
		unmask(of(c), vector);
	return rc;
}

static bool vu_alive(struct nvme_ctrlr *c)
{
	struct vu *v = of(c);
	struct pollfd p = { .fd = v->conn.fd, .events = POLLRDHUP };
	bool dead;

	pthread_mutex_lock(&v->conn.lock);
	vu_progress(&v->conn);
	dead = v->conn.dead;
	pthread_mutex_unlock(&v->conn.lock);
	return !dead &&
	       (poll(&p, 1, 0) <= 0 || !(p.revents & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL)));
}

/*
 * A server that sees its client leave unmaps its memory and then closes its end. One that does so within a second has it no more. One that
 * was given up because it does not answer, or that keeps its end open, may still have commands at hand, and nothing takes
 * the memory from it.
 */
static bool vu_cut_off(struct nvme_ctrlr *c)
{
	return vu_hang_up(&of(c)->conn, HANG_UP_MS);
}

static int vu_gone_fd(const struct nvme_ctrlr *c)
{
	return of(c)->conn.fd;
}

/* ---- opening ---- */

static void vu_close(struct nvme_ctrlr *c)
{
	struct vu *v = of(c);

	if (v->map)
		munmap(v->map, v->map_size);
	vu_disconnect(&v->conn);
	if (v->reach)
		nvme_pool_unuse(v->reach);
	free(v->bells);
	free(v);
	c->tp = NULL;
}

/* The server must not hold on to a parent that has gone, so the child lets go of the socket; the doorbells
 * are not to be touched by it either. */
static void vu_forked(struct nvme_ctrlr *c)
{
	struct vu *v = of(c);

	close(v->conn.fd);
	v->conn.dead = true;
	v->conn.hung_up = true; /* what the child sees of the memory is its own */
	if (v->map)
		mmap(v->map, v->map_size, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static int vu_open(struct nvme_ctrlr *c, const char *path, struct base_err *err)
{
	struct vu *v = base_calloc(1, sizeof(*v));
	int rc;

	if (v)
		v->bells = base_calloc(VU_BELLS, sizeof(*v->bells));
	if (!v || !v->bells) {
		free(v);
		return base_err_set(err, -ENOMEM, "%s: out of memory", path);
	}
	rc = vu_connect(&v->conn, path, err);
	if (rc) {
		free(v->bells);
		free(v);
		return rc;
	}
	c->tp = v;
	rc = vu_find(v, path, err);
	if (rc)
		vu_close(c);
	/* A server that is at work answers within what its commands may take. */
	else
		v->conn.patience_ns = MIN(MAX(c->opts.timeout_ms, LEAST_PATIENCE_MS),
					  MOST_PATIENCE_MS) *
				      1000000ull;
	return rc;
}

const struct nvme_transport nvme_vfio_user = {
	.prefix = "vfio-user:",
	.open = vu_open,
	.close = vu_close,
	.forked = vu_forked,
	.read = vu_read,
	.write = vu_write,
	.forget = vu_forget,
	.look_after = vu_look_after,
	.mapped = vu_mapped,
	.size = vu_size,
	.vectors = vu_vectors,
	.bind = vu_bind,
	.alive = vu_alive,
	.gone_fd = vu_gone_fd,
	.gone_events = POLLRDHUP,
	.cut_off = vu_cut_off,
};
