/* SPDX-License-Identifier: BSD-2-Clause */
/* The server's side of vfio-user: messages of one client, and the loop. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "test/common/nvmet.h"

#define SPIN_NS 200000ull
#define LONG_IDLE_NS 100000000ull
#define LOOK_EVERY 32u /* rounds of work between two looks at the sockets */

void *nvmet_memory(struct nvmet *t, uint64_t iova, uint64_t len, bool write)
{
	if (!(t->config[4] & 4)) {
		nvmet_host_error(t, "DMA is asked for, but bus mastering is off");
		return NULL;
	}
	for (unsigned i = 0; i < NVMET_MAX_MAPS; i++) {
		struct nvmet_map *m = &t->maps[i];

		if (m->p && iova >= m->iova && iova - m->iova < m->size &&
		    len <= m->size - (iova - m->iova) && (m->writable || !write))
			return m->p + (iova - m->iova);
	}
	nvmet_host_error(t, "memory is named that was never given");
	return NULL;
}

/* ---- messages; each returns 0 or an errno for the client ---- */

static int do_map(struct nvmet *t, struct nvmet_request *q, struct nvmet_reply *r)
{
	struct vu_dma_map m;
	struct nvmet_map *slot = NULL;
	void *p;

	if (q->len != sizeof(m) || q->fd < 0)
		return EINVAL;
	memcpy(&m, q->data, sizeof(m));
	for (unsigned i = 0; i < NVMET_MAX_MAPS; i++) {
		struct nvmet_map *o = &t->maps[i];

		if (!o->p)
			slot = slot ? slot : o;
		else if (m.address < o->iova + o->size && o->iova < m.address + m.size)
			return EEXIST;
	}
	if (!slot || (t->o.style.maps && slot >= &t->maps[t->o.style.maps]))
		return ENOSPC;
	if (t->o.style.map_most && m.size > t->o.style.map_most)
		return EINVAL;
	p = mmap(NULL, m.size, m.flags & VU_DMA_WRITABLE ? PROT_READ | PROT_WRITE : PROT_READ,
		 MAP_SHARED | MAP_NORESERVE, q->fd, (off_t)m.offset);
	if (p == MAP_FAILED)
		return errno;
	*slot = (struct nvmet_map){ m.address, m.size, p, m.flags & VU_DMA_WRITABLE };
	if (t->o.style.map_answers) {
		memcpy(r->data, &m, sizeof(m));
		r->len = sizeof(m);
	}
	return 0;
}

static int do_unmap(struct nvmet *t, struct nvmet_request *q, struct nvmet_reply *r)
{
	struct vu_dma_unmap m;

	if (q->len < sizeof(m))
		return EINVAL;
	memcpy(&m, q->data, sizeof(m));
	for (unsigned i = 0; i < NVMET_MAX_MAPS; i++) {
		struct nvmet_map *o = &t->maps[i];

		if (!o->p || o->iova != m.address || o->size != m.size)
			continue;
		munmap(o->p, o->size);
		o->p = NULL;
		memcpy(r->data, &m, sizeof(m));
		r->len = sizeof(m);
		return 0;
	}
	return ENOENT;
}

static int do_read(struct nvmet *t, struct nvmet_request *q, struct nvmet_reply *r)
{
	struct vu_region_access a;
	uint64_t value;

	if (q->len < sizeof(a))
		return EINVAL;
	memcpy(&a, q->data, sizeof(a));
	if (a.count > 8)
		return EINVAL;
	memcpy(r->data, &a, sizeof(a));
	r->len = (uint32_t)sizeof(a) + a.count;
	if (a.region != VU_PCI_BAR0)
		return nvmet_access(t, &a, r->data + sizeof(a), false);
	if ((a.count != 4 && a.count != 8) || a.offset % a.count ||
	    a.offset >= NVME_REG_DOORBELLS || (a.count == 8 && t->o.style.words))
		return EINVAL;
	value = nvmet_register(t, (uint32_t)a.offset, a.count);
	memcpy(r->data + sizeof(a), &value, a.count);
	return 0;
}

static int do_write(struct nvmet *t, struct nvmet_request *q, struct nvmet_reply *r)
{
	struct vu_region_access a;
	uint64_t value = 0;

	if (q->len < sizeof(a))
		return EINVAL;
	memcpy(&a, q->data, sizeof(a));
	if (a.count > 8 || q->len != sizeof(a) + a.count)
		return EINVAL;
	memcpy(r->data, &a, sizeof(a));
	r->len = sizeof(a);
	if (t->o.style.short_answers)
		r->len = 0;
	memcpy(&value, q->data + sizeof(a), a.count);
	if (a.region != VU_PCI_BAR0)
		return nvmet_access(t, &a, q->data + sizeof(a), true);
	if (a.offset >= NVMET_BAR_SIZE || (a.count == 8 && t->o.style.words) ||
	    !nvmet_set_register(t, (uint32_t)a.offset, a.count, value)) {
		nvmet_host_error(t, "a write to what is no register");
		return EINVAL;
	}
	return 0;
}

static int do_reset(struct nvmet *t, struct nvmet_request *q, struct nvmet_reply *r)
{
	(void)q;
	(void)r;
	nvmet_reset(t);
	t->cc = 0;
	return 0;
}

static int handle(struct nvmet *t, struct nvmet_request *q, struct nvmet_reply *r)
{
	static int (*const table[])(struct nvmet *, struct nvmet_request *, struct nvmet_reply *) = {
		[VU_VERSION] = nvmet_say_version,     [VU_DMA_MAP] = do_map,
		[VU_DMA_UNMAP] = do_unmap,            [VU_DEVICE_INFO] = nvmet_say_device,
		[VU_REGION_INFO] = nvmet_say_region,  [VU_IRQ_INFO] = nvmet_say_irqs,
		[VU_SET_IRQS] = nvmet_set_irqs,       [VU_REGION_READ] = do_read,
		[VU_REGION_WRITE] = do_write,         [VU_DEVICE_RESET] = do_reset,
	};

	if (q->h.command >= ARRAY_SIZE(table) || !table[q->h.command])
		return ENOTSUP;
	return table[q->h.command](t, q, r);
}

/* ---- the wire ---- */

static bool receive(int fd, void *buf, size_t len, int *pass)
{
	while (len) {
		char control[CMSG_SPACE(sizeof(int))];
		struct iovec v = { buf, len };
		struct msghdr m = { .msg_iov = &v,
				    .msg_iovlen = 1,
				    .msg_control = control,
				    .msg_controllen = sizeof(control) };
		ssize_t got = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
		struct cmsghdr *h = got > 0 ? CMSG_FIRSTHDR(&m) : NULL;

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		if (h && h->cmsg_type == SCM_RIGHTS && *pass < 0)
			memcpy(pass, CMSG_DATA(h), sizeof(int));
		buf = (char *)buf + got;
		len -= (size_t)got;
	}
	return true;
}

static bool answer(int fd, const struct vu_header *h, const struct nvmet_reply *r)
{
	struct iovec iov[2] = { { (void *)(uintptr_t)h, sizeof(*h) },
				{ (void *)(uintptr_t)r->data, h->size - sizeof(*h) } };
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };

	if (r->fd >= 0) {
		struct cmsghdr *c = (void *)control;

		*c = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(c), &r->fd, sizeof(int));
		m.msg_control = control;
		m.msg_controllen = sizeof(control);
	}
	/* Messages are far smaller than a socket's buffer. */
	return sendmsg(fd, &m, MSG_NOSIGNAL) == (ssize_t)h->size;
}

/* What the client need not understand: a wish of the server, and the answer to what nobody has asked. */
static bool talk(struct nvmet *t, const struct vu_header *of)
{
	struct {
		struct vu_header h;
		uint64_t address, count;
	} m = { { 7, VU_DMA_READ, sizeof(m), 0, 0 }, NVMET_NOWHERE, 8 };
	struct vu_header stray = { (uint16_t)(of->id + 1000), of->command, sizeof(stray), VU_REPLY,
				   0 };

	if (send(t->client, &m, sizeof(m), MSG_NOSIGNAL) < 0)
		return false;
	return send(t->client, &stray, sizeof(stray), MSG_NOSIGNAL) > 0;
}

/* What the client says to a wish. */
static bool heard(struct nvmet *t, const struct vu_header *h)
{
	if (!t->o.style.talkative || h->id != 7 || h->command != VU_DMA_READ ||
	    h->size != sizeof(*h) || h->flags != (VU_REPLY | VU_ERROR) || !h->error)
		nvmet_host_error(t, "a wish of the server is not refused in due form");
	atomic_fetch_add(&t->n.refusals, 1);
	return true;
}

/* One message; false: the client is lost. */
static bool serve_message(struct nvmet *t)
{
	struct nvmet_request q = { .fd = -1 };
	struct nvmet_reply r = { .len = 0, .fd = -1 };
	int error;
	bool ok;

	if (!receive(t->client, &q.h, sizeof(q.h), &q.fd))
		return false;
	q.len = q.h.size - (uint32_t)sizeof(q.h);
	if (q.h.size < sizeof(q.h) || q.len > sizeof(q.data) ||
	    !receive(t->client, q.data, q.len, &q.fd)) {
		if (q.fd >= 0)
			close(q.fd);
		return false;
	}
	if ((q.h.flags & VU_TYPE_MASK) == VU_REPLY)
		return heard(t, &q.h);
	error = handle(t, &q, &r);
	if (q.fd >= 0)
		close(q.fd);
	if (t->o.style.talkative && !talk(t, &q.h))
		return false;
	ok = !(q.h.flags & VU_NO_REPLY);
	q.h.flags = VU_REPLY | (error ? VU_ERROR : 0);
	q.h.error = (uint32_t)error;
	q.h.size = (uint32_t)sizeof(q.h) + (error ? 0 : r.len);
	return ok ? answer(t->client, &q.h, &r) : true;
}

/* ---- clients ---- */

static void begin_client(struct nvmet *t)
{
	atomic_store(&t->connected, true);
	atomic_fetch_add(&t->n.clients, 1);
	nvmet_config_reset(t);
}

static void end_client(struct nvmet *t)
{
	nvmet_reset(t);
	t->cc = 0;
	for (unsigned i = 0; i < NVMET_MAX_MAPS; i++)
		if (t->maps[i].p)
			munmap(t->maps[i].p, t->maps[i].size);
	memset(t->maps, 0, sizeof(t->maps));
	for (unsigned i = 0; i < NVMET_VECTORS; i++) {
		if (t->irq[i] >= 0)
			close(t->irq[i]);
		t->irq[i] = -1;
	}
	close(t->client);
	t->client = -1;
	atomic_store(&t->connected, false);
}

static void look(struct nvmet *t, int listener, int timeout)
{
	struct pollfd p[2] = { { .fd = listener, .events = POLLIN },
			       { .fd = atomic_load(&t->f.silent) ? -1 : t->client,
				 .events = POLLIN } };
	int fd;

	if (poll(p, 2, timeout) <= 0)
		return;
	/* First the old one: that it has left comes before the next. */
	if (p[1].revents && !serve_message(t))
		end_client(t);
	if (p[0].revents) {
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0 && t->client >= 0) {
			close(fd); /* one at a time */
		} else if (fd >= 0) {
			t->client = fd;
			begin_client(t);
		}
	}
}

/* As if the process were stopped. */
static void stand_still(struct nvmet *t)
{
	struct timespec nap = { .tv_nsec = 1000000 };

	while (atomic_load(&t->f.frozen) && !atomic_load(&t->stop))
		nanosleep(&nap, NULL);
	if (t->client >= 0)
		nvmet_work(t);
}

int nvmet_serve(struct nvmet *t, int listener)
{
	uint64_t busy = 0;

	for (unsigned round = 0; !atomic_load(&t->stop); round++) {
		bool idle = nvmet_now_ns() - busy > SPIN_NS;

		if (atomic_load(&t->f.frozen))
			stand_still(t);
		if (atomic_exchange(&t->f.hang_up, false) && t->client >= 0)
			end_client(t);
		if (idle || round % LOOK_EVERY == 0)
			nvmet_script_poll(t);
		if (idle || round % LOOK_EVERY == 0)
			look(t, listener, t->client < 0 ? 20 : 0);
		if (t->client >= 0 && nvmet_work(t)) {
			busy = nvmet_now_ns();
		} else if (idle && t->client >= 0) {
			/* Doorbells are memory: nothing tells of them. */
			bool long_idle = nvmet_now_ns() - busy > LONG_IDLE_NS;
			struct timespec nap = { .tv_nsec = long_idle ? 1000000 : 50000 };

			nanosleep(&nap, NULL);
		}
	}
	if (t->client >= 0)
		end_client(t);
	return 0;
}

/* The name is there when it can be connected to, not before. */
int nvmet_listen(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd, rc;

	if ((size_t)snprintf(un.sun_path, sizeof(un.sun_path), "%s~", path) >= sizeof(un.sun_path))
		return -ENAMETOOLONG;
	unlink(un.sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (void *)&un, sizeof(un)) || listen(fd, 4) || rename(un.sun_path, path)) {
		rc = -errno;
		unlink(un.sun_path);
		close(fd);
		return rc;
	}
	return fd;
}
