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

struct request {
	struct vu_header h;
	uint32_t len;
	int fd; /* -1: none came */
	uint8_t data[VU_MAX_PAYLOAD] __attribute__((aligned(8)));
};

struct reply {
	uint32_t len;
	int fd; /* to pass, -1: none */
	uint8_t data[VU_MAX_PAYLOAD] __attribute__((aligned(8)));
};

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

static int do_version(struct nvmet *t, struct request *q, struct reply *r)
{
	static const char json[] = "{\"capabilities\":{\"max_msg_fds\":8}}";
	struct vu_version v;

	(void)t;
	if (q->len < sizeof(v))
		return EINVAL;
	memcpy(&v, q->data, sizeof(v));
	if (v.major != VU_MAJOR)
		return EINVAL;
	v.minor = MIN(v.minor, (uint16_t)VU_MINOR);
	memcpy(r->data, &v, sizeof(v));
	memcpy(r->data + sizeof(v), json, sizeof(json));
	r->len = sizeof(v) + sizeof(json);
	return 0;
}

static int do_map(struct nvmet *t, struct request *q, struct reply *r)
{
	struct vu_dma_map m;
	struct nvmet_map *slot = NULL;
	void *p;

	(void)r;
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
	if (!slot)
		return ENOSPC;
	p = mmap(NULL, m.size, m.flags & VU_DMA_WRITABLE ? PROT_READ | PROT_WRITE : PROT_READ,
		 MAP_SHARED | MAP_NORESERVE, q->fd, (off_t)m.offset);
	if (p == MAP_FAILED)
		return errno;
	*slot = (struct nvmet_map){ m.address, m.size, p, m.flags & VU_DMA_WRITABLE };
	return 0;
}

static int do_unmap(struct nvmet *t, struct request *q, struct reply *r)
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

static int do_device_info(struct nvmet *t, struct request *q, struct reply *r)
{
	struct vu_device_info d = { sizeof(d), VU_DEVICE_CAN_RESET | VU_DEVICE_PCI, VU_PCI_REGIONS,
				    VU_PCI_IRQS };

	(void)t;
	(void)q;
	memcpy(r->data, &d, sizeof(d));
	r->len = sizeof(d);
	return 0;
}

static int do_region_info(struct nvmet *t, struct request *q, struct reply *r)
{
	struct {
		struct vu_region_info info;
		struct vu_cap_sparse sparse;
		struct vu_area area;
	} a = { 0 };

	if (q->len < sizeof(a.info))
		return EINVAL;
	memcpy(&a.info, q->data, sizeof(a.info));
	if (a.info.index >= VU_PCI_REGIONS)
		return EINVAL;
	a.info = (struct vu_region_info){ .argsz = sizeof(a.info), .index = a.info.index };
	if (a.info.index == VU_PCI_BAR0 || a.info.index == VU_PCI_CONFIG)
		a.info.flags = VU_REGION_READABLE | VU_REGION_WRITABLE;
	a.info.size = a.info.index == VU_PCI_BAR0     ? NVMET_BAR_SIZE
		      : a.info.index == VU_PCI_CONFIG ? sizeof(t->config)
						      : 0;
	r->len = sizeof(a.info);
	if (a.info.index == VU_PCI_BAR0 && !t->o.messages) {
		a.info.flags |= VU_REGION_MMAP | VU_REGION_CAPS;
		a.info.cap_offset = sizeof(a.info);
		a.sparse.head = (struct vu_cap){ VU_CAP_SPARSE_MMAP, 1, 0 };
		a.sparse.areas = 1;
		a.area = (struct vu_area){ NVME_REG_DOORBELLS, 4096 };
		a.info.argsz = r->len = sizeof(a);
		r->fd = t->bar_fd;
	}
	memcpy(r->data, &a, r->len);
	return 0;
}

static int do_irq_info(struct nvmet *t, struct request *q, struct reply *r)
{
	struct vu_irq_info i;

	if (q->len < sizeof(i))
		return EINVAL;
	memcpy(&i, q->data, sizeof(i));
	if (i.index >= VU_PCI_IRQS)
		return EINVAL;
	i.argsz = sizeof(i);
	i.flags = 1;
	i.count = i.index == VU_PCI_MSIX ? t->o.vectors : 0;
	memcpy(r->data, &i, sizeof(i));
	r->len = sizeof(i);
	return 0;
}

static int do_set_irqs(struct nvmet *t, struct request *q, struct reply *r)
{
	struct vu_set_irqs s;

	(void)r;
	if (q->len < sizeof(s))
		return EINVAL;
	memcpy(&s, q->data, sizeof(s));
	if (s.index != VU_PCI_MSIX || s.start >= t->o.vectors || s.count != 1 ||
	    s.flags != (VU_IRQ_DATA_EVENTFD | VU_IRQ_ACTION_TRIGGER) || q->fd < 0)
		return EINVAL;
	if (t->irq[s.start] >= 0)
		close(t->irq[s.start]);
	t->irq[s.start] = q->fd;
	q->fd = -1;
	return 0;
}

static int do_read(struct nvmet *t, struct request *q, struct reply *r)
{
	struct vu_region_access a;
	uint64_t value;

	if (q->len < sizeof(a))
		return EINVAL;
	memcpy(&a, q->data, sizeof(a));
	memcpy(r->data, &a, sizeof(a));
	r->len = (uint32_t)sizeof(a) + a.count;
	if (a.region == VU_PCI_CONFIG && a.offset < sizeof(t->config) &&
	    a.count <= sizeof(t->config) - a.offset) {
		memcpy(r->data + sizeof(a), t->config + a.offset, a.count);
		return 0;
	}
	if (a.region != VU_PCI_BAR0 || (a.count != 4 && a.count != 8) || a.offset % a.count ||
	    a.offset >= NVME_REG_DOORBELLS)
		return EINVAL;
	value = nvmet_register(t, (uint32_t)a.offset, a.count);
	memcpy(r->data + sizeof(a), &value, a.count);
	return 0;
}

static int do_write(struct nvmet *t, struct request *q, struct reply *r)
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
	memcpy(&value, q->data + sizeof(a), a.count);
	if (a.region == VU_PCI_CONFIG && a.offset == 4 && a.count == 2) {
		memcpy(t->config + 4, &value, 2);
		return 0;
	}
	if (a.region != VU_PCI_BAR0 || a.offset >= NVMET_BAR_SIZE ||
	    !nvmet_set_register(t, (uint32_t)a.offset, a.count, value)) {
		nvmet_host_error(t, "a write to what is no register");
		return EINVAL;
	}
	return 0;
}

static int do_reset(struct nvmet *t, struct request *q, struct reply *r)
{
	(void)q;
	(void)r;
	nvmet_reset(t);
	t->cc = 0;
	return 0;
}

static int handle(struct nvmet *t, struct request *q, struct reply *r)
{
	static int (*const table[])(struct nvmet *, struct request *, struct reply *) = {
		[VU_VERSION] = do_version,         [VU_DMA_MAP] = do_map,
		[VU_DMA_UNMAP] = do_unmap,         [VU_DEVICE_INFO] = do_device_info,
		[VU_REGION_INFO] = do_region_info, [VU_IRQ_INFO] = do_irq_info,
		[VU_SET_IRQS] = do_set_irqs,       [VU_REGION_READ] = do_read,
		[VU_REGION_WRITE] = do_write,      [VU_DEVICE_RESET] = do_reset,
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

static bool answer(int fd, const struct vu_header *h, const struct reply *r)
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

/* One message; false: the client is lost. */
static bool serve_message(struct nvmet *t)
{
	struct request q = { .fd = -1 };
	struct reply r = { .len = 0, .fd = -1 };
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
	error = handle(t, &q, &r);
	if (q.fd >= 0)
		close(q.fd);
	ok = !(q.h.flags & VU_NO_REPLY);
	q.h.flags = VU_REPLY | (error ? VU_ERROR : 0);
	q.h.error = (uint32_t)error;
	q.h.size = (uint32_t)sizeof(q.h) + (error ? 0 : r.len);
	return ok ? answer(t->client, &q.h, &r) : true;
}

/* ---- clients ---- */

static void begin_client(struct nvmet *t)
{
	static const uint8_t class[] = { 0x02, 0x08, 0x01 };

	atomic_store(&t->connected, true);
	atomic_fetch_add(&t->n.clients, 1);
	memset(t->config, 0, sizeof(t->config));
	t->config[0] = t->config[1] = 0x1d;
	memcpy(t->config + 9, class, sizeof(class));
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
			       { .fd = t->client, .events = POLLIN } };
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

int nvmet_serve(struct nvmet *t, int listener)
{
	uint64_t busy = 0;

	for (unsigned round = 0; !atomic_load(&t->stop); round++) {
		bool idle = nvmet_now_ns() - busy > SPIN_NS;

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

int nvmet_listen(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(un.sun_path))
		return -ENAMETOOLONG;
	strcpy(un.sun_path, path);
	unlink(path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (void *)&un, sizeof(un)) || listen(fd, 4)) {
		int rc = -errno;

		close(fd);
		return rc;
	}
	return fd;
}
