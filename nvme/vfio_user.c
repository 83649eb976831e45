/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Transport: a controller that another process serves over the vfio-user protocol. We are the client. Our memory goes there
 * once, by file descriptor. Registers are read and written by messages, doorbells in a shared page if the server has one.
 *
 * One message at a time, under a lock: ask and wait. Only bring-up, resets and a server without mapped doorbells
 * send any. A server that does not answer in time is given up: what it says later would be taken for another answer.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "nvme/internal.h"
#include "nvme/vfio_user.h"

#define ANSWER_SECONDS 10
#define MAX_BAR (1 * MiB)

struct vu {
	int fd;
	pthread_mutex_t lock;
	bool dead; /* under the lock */
	uint16_t id;
	uint64_t bar_size;
	unsigned vectors;
	/* The part of BAR 0 that is mapped; NULL: none. */
	char *map;
	uint64_t map_offset, map_size;
};

struct answer {
	uint32_t len;
	unsigned nfds;
	int fds[VU_MAX_FDS];
	uint8_t data[VU_MAX_PAYLOAD] __attribute__((aligned(8)));
};

/* ---- messages ---- */

static int send_all(int fd, struct iovec *iov, int n, int pass)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = (size_t)n };
	ssize_t sent;

	if (pass >= 0) {
		struct cmsghdr *h = (void *)control;

		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(h), &pass, sizeof(int));
		m.msg_control = control;
		m.msg_controllen = sizeof(control);
	}
	while (m.msg_iovlen) {
		sent = sendmsg(fd, &m, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return -errno;
		m.msg_control = NULL;
		m.msg_controllen = 0;
		while (m.msg_iovlen && (size_t)sent >= m.msg_iov->iov_len) {
			sent -= (ssize_t)m.msg_iov->iov_len;
			m.msg_iov++;
			m.msg_iovlen--;
		}
		if (m.msg_iovlen) {
			m.msg_iov->iov_base = (char *)m.msg_iov->iov_base + sent;
			m.msg_iov->iov_len -= (size_t)sent;
		}
	}
	return 0;
}

static void keep_fds(struct msghdr *m, struct answer *a)
{
	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
		unsigned n = (unsigned)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		int fd;

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		for (unsigned i = 0; i < n; i++) {
			memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
			if (a->nfds < VU_MAX_FDS)
				a->fds[a->nfds++] = fd;
			else
				close(fd);
		}
	}
}

static int receive_all(int fd, void *buf, size_t len, struct answer *a)
{
	char control[CMSG_SPACE(VU_MAX_FDS * sizeof(int))];

	while (len) {
		struct iovec v = { buf, len };
		struct msghdr m = { .msg_iov = &v,
				    .msg_iovlen = 1,
				    .msg_control = control,
				    .msg_controllen = sizeof(control) };
		ssize_t got = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (!got)
			return -ENODEV;
		keep_fds(&m, a);
		buf = (char *)buf + got;
		len -= (size_t)got;
	}
	return 0;
}

static void drop_fds(struct answer *a)
{
	while (a->nfds)
		close(a->fds[--a->nfds]);
}

/* The server wants something of us: we have nothing but the memory it has already. */
static int refuse(struct vu *v, struct vu_header *h, struct answer *a)
{
	struct iovec iov = { h, sizeof(*h) };

	drop_fds(a);
	if (h->flags & VU_NO_REPLY)
		return 0;
	h->size = sizeof(*h);
	h->flags = VU_REPLY | VU_ERROR;
	h->error = ENOTSUP;
	return send_all(v->fd, &iov, 1, -1);
}

/* Lock held. Negative errno other than the server's refusal: it is lost. */
static int receive_answer(struct vu *v, uint16_t command, struct answer *a, int *refused)
{
	struct vu_header h;
	int rc;

	for (;;) {
		a->nfds = 0;
		rc = receive_all(v->fd, &h, sizeof(h), a);
		if (rc)
			return rc;
		if (h.size < sizeof(h) || h.size - sizeof(h) > sizeof(a->data))
			return -EPROTO;
		a->len = h.size - (uint32_t)sizeof(h);
		rc = receive_all(v->fd, a->data, a->len, a);
		if (rc)
			return rc;
		if ((h.flags & VU_TYPE_MASK) == VU_REPLY)
			break;
		rc = refuse(v, &h, a);
		if (rc)
			return rc;
	}
	if (h.id != v->id || h.command != command)
		return -EPROTO;
	*refused = h.flags & VU_ERROR ? (h.error && h.error < 4096 ? -(int)h.error : -EIO) : 0;
	return 0;
}

/*
 * Sends a message of up to two parts and waits for its answer, of at least `least` bytes. Descriptors in the answer are the
 * caller's.
 */
static int ask(struct vu *v, uint16_t command, const struct iovec part[2], int pass,
	       struct answer *a, uint32_t least)
{
	struct vu_header h = { .command = command };
	struct iovec iov[3] = { { &h, sizeof(h) }, part[0], part[1] };
	int rc = -ENODEV, refused = 0;

	a->nfds = 0;
	pthread_mutex_lock(&v->lock);
	if (!v->dead) {
		h.id = ++v->id;
		h.size = (uint32_t)(sizeof(h) + part[0].iov_len + part[1].iov_len);
		rc = send_all(v->fd, iov, part[1].iov_len ? 3 : part[0].iov_len ? 2 : 1, pass);
		if (!rc)
			rc = receive_answer(v, command, a, &refused);
		if (!rc && !refused && a->len < least)
			rc = -EPROTO;
		if (rc) {
			v->dead = true;
			shutdown(v->fd, SHUT_RDWR);
		}
	}
	pthread_mutex_unlock(&v->lock);
	if (rc == -EPIPE || rc == -ECONNRESET)
		rc = -ENODEV;
	if (!rc)
		rc = refused;
	if (rc)
		drop_fds(a);
	return rc;
}

static int ask_simple(struct vu *v, uint16_t command, void *data, size_t len, struct answer *a,
		      uint32_t least)
{
	struct iovec part[2] = { { data, len }, { NULL, 0 } };

	return ask(v, command, part, -1, a, least);
}

/* ---- registers ---- */

static int region_read(struct vu *v, uint32_t region, uint64_t offset, void *buf, uint32_t size)
{
	struct vu_region_access r = { offset, region, size };
	struct answer a;
	int rc = ask_simple(v, VU_REGION_READ, &r, sizeof(r), &a, (uint32_t)sizeof(r) + size);

	if (rc)
		return rc;
	drop_fds(&a);
	memcpy(buf, a.data + sizeof(r), size);
	return 0;
}

static int region_write(struct vu *v, uint32_t region, uint64_t offset, void *buf, uint32_t size)
{
	struct vu_region_access r = { offset, region, size };
	struct iovec part[2] = { { &r, sizeof(r) }, { buf, size } };
	struct answer a;
	int rc = ask(v, VU_REGION_WRITE, part, -1, &a, 0);

	drop_fds(&a);
	return rc;
}

static int vu_read(struct nvme_ctrlr *c, uint32_t reg, unsigned size, uint64_t *value)
{
	*value = 0;
	return region_read(c->tp, VU_PCI_BAR0, reg, value, size);
}

static int vu_write(struct nvme_ctrlr *c, uint32_t reg, unsigned size, uint64_t value)
{
	return region_write(c->tp, VU_PCI_BAR0, reg, &value, size);
}

static volatile uint32_t *vu_mapped(struct nvme_ctrlr *c, uint32_t reg)
{
	struct vu *v = c->tp;

	if (!v->map || reg < v->map_offset || reg - v->map_offset > v->map_size - 4)
		return NULL;
	return (volatile uint32_t *)(void *)(v->map + (reg - v->map_offset));
}

/* ---- interrupts and death ---- */

static unsigned vu_vectors(struct nvme_ctrlr *c)
{
	return ((struct vu *)c->tp)->vectors;
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
	struct answer a;
	int rc = ask(c->tp, VU_SET_IRQS, part, eventfd, &a, 0);

	drop_fds(&a);
	return rc;
}

static bool vu_alive(struct nvme_ctrlr *c)
{
	struct pollfd p = { .fd = ((struct vu *)c->tp)->fd, .events = POLLRDHUP };

	return poll(&p, 1, 0) <= 0 || !(p.revents & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL));
}

static int vu_gone_fd(const struct nvme_ctrlr *c)
{
	return ((struct vu *)c->tp)->fd;
}

/* ---- opening ---- */

static int connect_to(const char *path, int *out, struct base_err *err)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = ANSWER_SECONDS };
	int fd, rc;

	if (strlen(path) >= sizeof(un.sun_path))
		return base_err_set(err, -ENAMETOOLONG, "%s: too long for a socket's name", path);
	strcpy(un.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return base_err_set(err, -errno, "%s: cannot make a socket: %m", path);
	if (connect(fd, (void *)&un, sizeof(un))) {
		rc = -errno;
		close(fd);
		if (rc == -ECONNREFUSED)
			return base_err_set(err, -ENODEV, "%s: nothing serves this socket", path);
		return base_err_set(err, rc, "%s: %s", path, strerror(-rc));
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	*out = fd;
	return 0;
}

static int negotiate(struct vu *v, const char *path, struct base_err *err)
{
	static char json[] =
		"{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576}}";
	struct vu_version want = { VU_MAJOR, VU_MINOR }, got;
	struct iovec part[2] = { { &want, sizeof(want) }, { json, sizeof(json) } };
	struct answer a;
	int rc = ask(v, VU_VERSION, part, -1, &a, sizeof(want));

	if (rc == -ENODEV || rc == -EBUSY)
		return base_err_set(err, -EBUSY,
				    "%s: the server hangs up; is it in use by another program?",
				    path);
	if (rc == -ETIMEDOUT)
		return base_err_set(
			err, rc, "%s: the server does not answer; is it in use by another program?",
			path);
	if (rc)
		return base_err_set(err, rc, "%s: not a vfio-user server: %s", path, strerror(-rc));
	drop_fds(&a);
	memcpy(&got, a.data, sizeof(got));
	if (got.major != VU_MAJOR || got.minor > VU_MINOR)
		return base_err_set(err, -EPROTO, "%s: speaks vfio-user %u.%u, not %u.%u", path,
				    got.major, got.minor, VU_MAJOR, VU_MINOR);
	return 0;
}

static int check_device(struct vu *v, const char *path, struct base_err *err)
{
	struct vu_device_info d = { .argsz = sizeof(d) };
	struct vu_irq_info i = { .argsz = sizeof(i), .index = VU_PCI_MSIX };
	struct answer a;
	int rc = ask_simple(v, VU_DEVICE_INFO, &d, sizeof(d), &a, sizeof(d));

	if (rc)
		return base_err_set(err, rc, "%s: no device information: %s", path, strerror(-rc));
	drop_fds(&a);
	memcpy(&d, a.data, sizeof(d));
	if (!(d.flags & VU_DEVICE_PCI) || d.regions <= VU_PCI_CONFIG)
		return base_err_set(err, -ENODEV, "%s: serves no PCI device", path);
	if (d.irqs <= VU_PCI_MSIX)
		return 0;
	rc = ask_simple(v, VU_IRQ_INFO, &i, sizeof(i), &a, sizeof(i));
	if (rc)
		return base_err_set(err, rc, "%s: no interrupt information: %s", path,
				    strerror(-rc));
	drop_fds(&a);
	memcpy(&i, a.data, sizeof(i));
	v->vectors = MIN(i.count, 2048u);
	return 0;
}

/* The largest part of the BAR that begins where the doorbells do, or before, and may be mapped. */
static void find_area(const struct answer *a, const struct vu_region_info *r, struct vu_area *out)
{
	struct vu_cap_sparse s;
	uint32_t at = r->flags & VU_REGION_CAPS ? r->cap_offset : 0;

	*out = (struct vu_area){ 0, r->size };
	/* Each step must lead on, so a list in a circle ends too. */
	while (at >= sizeof(*r) && at <= a->len - sizeof(s)) {
		memcpy(&s, a->data + at, sizeof(s));
		if (s.head.id == VU_CAP_SPARSE_MMAP) {
			*out = (struct vu_area){ 0 };
			for (uint32_t i = 0; i < s.areas; i++) {
				uint64_t pos = at + sizeof(s) + (uint64_t)i * sizeof(*out);

				if (pos + sizeof(*out) > a->len)
					break;
				memcpy(out, a->data + pos, sizeof(*out));
				if (out->offset <= NVME_REG_DOORBELLS &&
				    out->size > NVME_REG_DOORBELLS - out->offset)
					return;
				*out = (struct vu_area){ 0 };
			}
			return;
		}
		if (s.head.next <= at)
			return;
		at = s.head.next;
	}
}

/* Maps the doorbells where the server lets us; where it does not, messages do. */
static void map_doorbells(struct vu *v, const struct answer *a, const struct vu_region_info *r)
{
	struct vu_area area;
	void *p;

	if (!(r->flags & VU_REGION_MMAP) || !a->nfds)
		return;
	find_area(a, r, &area);
	if (area.size < 8 || area.size > MAX_BAR || area.offset % NVME_PAGE ||
	    area.offset > r->size || area.size > r->size - area.offset)
		return;
	p = mmap(NULL, area.size, PROT_READ | PROT_WRITE, MAP_SHARED, a->fds[0],
		 (off_t)(r->offset + area.offset));
	if (p == MAP_FAILED)
		return;
	v->map = p;
	v->map_offset = area.offset;
	v->map_size = area.size;
}

static int find_registers(struct vu *v, const char *path, struct base_err *err)
{
	struct vu_region_info r = { .argsz = VU_MAX_PAYLOAD, .index = VU_PCI_BAR0 };
	struct answer a;
	int rc = ask_simple(v, VU_REGION_INFO, &r, sizeof(r), &a, sizeof(r));

	if (rc)
		return base_err_set(err, rc, "%s: no region information: %s", path, strerror(-rc));
	memcpy(&r, a.data, sizeof(r));
	if (r.size < NVME_REG_DOORBELLS + 16) {
		drop_fds(&a);
		return base_err_set(err, -ENODEV, "%s: BAR 0 is no NVMe controller's", path);
	}
	v->bar_size = r.size;
	map_doorbells(v, &a, &r);
	drop_fds(&a);
	return 0;
}

static const struct nvme_reach file_reach = { .kind = NVME_REACH_FILE };

static int share_file(struct vu *v, int fd, uint64_t at, uint64_t len)
{
	struct vu_dma_map m = {
		.argsz = sizeof(m),
		.flags = VU_DMA_READABLE | VU_DMA_WRITABLE,
		.address = NVME_IOVA_BASE + at,
		.size = len,
	};
	struct iovec part[2] = { { &m, sizeof(m) }, { NULL, 0 } };
	struct answer a;
	int rc = ask(v, VU_DMA_MAP, part, fd, &a, 0);

	drop_fds(&a);
	return rc;
}

static int share_memory(struct vu *v, const char *path, struct base_err *err)
{
	uint64_t plain;
	int rc = nvme_pool_use(&file_reach);

	if (rc == -EBUSY)
		return base_err_set(err, rc,
				    "%s: this process uses physical addresses for DMA, which no server can reach",
				    path);
	if (rc)
		return base_err_set(err, rc, "%s: no memory for DMA", path);
	plain = nvme_pool.plain;
	rc = share_file(v, nvme_pool.fd, 0, plain);
	if (!rc && nvme_pool.size > plain)
		rc = share_file(v, nvme_pool.huge_fd, plain, nvme_pool.size - plain);
	return rc ? base_err_set(err, rc, "%s: the server does not take our memory: %s", path,
				 strerror(-rc))
		  : 0;
}

/* Memory access and bus mastering in the PCI command register, as any driver of a PCI device sets. */
static int enable_pci(struct vu *v, const char *path, struct base_err *err)
{
	uint16_t command;
	uint8_t class[3];
	int rc = region_read(v, VU_PCI_CONFIG, 9, class, sizeof(class));

	if (!rc && (class[0] != 2 || class[1] != 8 || class[2] != 1))
		return base_err_set(
			err, -ENODEV,
			"%s: serves a PCI device of class %02x%02x%02x, not an NVMe controller",
			path, class[2], class[1], class[0]);
	if (!rc)
		rc = region_read(v, VU_PCI_CONFIG, 4, &command, 2);
	if (!rc) {
		command |= 6;
		rc = region_write(v, VU_PCI_CONFIG, 4, &command, 2);
	}
	return rc ? base_err_set(err, rc, "%s: no access to the configuration space: %s", path,
				 strerror(-rc))
		  : 0;
}

static void vu_close(struct nvme_ctrlr *c)
{
	struct vu *v = c->tp;

	if (v->map)
		munmap(v->map, v->map_size);
	close(v->fd);
	pthread_mutex_destroy(&v->lock);
	free(v);
	c->tp = NULL;
}

/* The server must not hold on to a parent that has gone, so the child lets go of the socket; the doorbells
 * are not to be touched by it either. */
static void vu_forked(struct nvme_ctrlr *c)
{
	struct vu *v = c->tp;

	close(v->fd);
	v->dead = true;
	if (v->map)
		mmap(v->map, v->map_size, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static int vu_open(struct nvme_ctrlr *c, const char *path, struct base_err *err)
{
	struct vu *v = base_calloc(1, sizeof(*v));
	int rc;

	if (!v)
		return base_err_set(err, -ENOMEM, "%s: out of memory", path);
	rc = connect_to(path, &v->fd, err);
	if (rc) {
		free(v);
		return rc;
	}
	pthread_mutex_init(&v->lock, NULL);
	c->tp = v;
	rc = negotiate(v, path, err);
	if (!rc)
		rc = check_device(v, path, err);
	if (!rc)
		rc = find_registers(v, path, err);
	if (!rc)
		rc = enable_pci(v, path, err);
	if (!rc)
		rc = share_memory(v, path, err);
	if (rc)
		vu_close(c);
	return rc;
}

const struct nvme_transport nvme_vfio_user = {
	.prefix = "vfio-user:",
	.open = vu_open,
	.close = vu_close,
	.forked = vu_forked,
	.read = vu_read,
	.write = vu_write,
	.mapped = vu_mapped,
	.vectors = vu_vectors,
	.bind = vu_bind,
	.alive = vu_alive,
	.gone_fd = vu_gone_fd,
	.gone_events = POLLRDHUP,
};
