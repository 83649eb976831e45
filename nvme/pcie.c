/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Transport: a controller of this machine, over PCIe. vfio-pci gives it to us, with an IOMMU that lets it reach our memory only,
 * interrupts by eventfd, and word when somebody wants to take it away; EAL sets up group and container. Where no
 * IOMMU translates, uio_pci_generic will do: physical addresses, no interrupts, no word.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nvme/internal.h"

#include <rte_errno.h>
#include <rte_memory.h>
#include <rte_vfio.h>

#define SYSFS_DEVICES "/sys/bus/pci/devices"
#define PCI_COMMAND 4
#define PCI_COMMAND_MEMORY 2u
#define PCI_COMMAND_MASTER 4u
#define MAX_VECTORS 257u
#define MAX_BAR (16 * MiB)

struct pcie {
	struct pcie_place at;
	struct pcie *next;
	int dev;    /* of VFIO, or /dev/uioN */
	int group;  /* VFIO's descriptor */
	int config; /* configuration space, at config_at */
	int gone;   /* eventfd; -1: nobody would tell */
	off_t config_at;
	char *bar;
	size_t bar_size;
	unsigned vectors;
	const struct nvme_reach *reach; /* in use */
};

/* Those this process has, so that it does not take one twice. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct pcie *open_ones;

/* ---- memory ---- */

static int vfio_map(void *va, uint64_t iova, uint64_t len)
{
	if (!rte_vfio_container_dma_map(RTE_VFIO_DEFAULT_CONTAINER_FD, (uintptr_t)va, iova, len))
		return 0;
	return rte_errno ? -rte_errno : -EIO;
}

static int find_physical(const void *p, uint64_t *address)
{
	phys_addr_t a = rte_mem_virt2phy(p);

	/* Without the right to know, the kernel says 0. */
	if (a == RTE_BAD_IOVA || !a)
		return -EPERM;
	*address = a;
	return 0;
}

static const struct nvme_reach vfio_reach = { NVME_REACH_IOMMU, vfio_map, NULL };
static const struct nvme_reach uio_reach = { NVME_REACH_PHYSICAL, NULL, find_physical };

static int use_pool(struct pcie *p, const struct nvme_reach *r, struct base_err *err)
{
	const char *bdf = p->at.bdf;
	int rc = nvme_pool_use(r);

	switch (rc) {
	case 0:
		p->reach = r;
		return 0;
	case -EBUSY:
		return base_err_set(
			err, rc,
			"%s: this process uses other memory for DMA, which %s cannot reach", bdf,
			r == &uio_reach ? "a controller without IOMMU" : "an IOMMU");
	case -ENOSPC:
		return base_err_set(
			err, -ENOMEM,
			"%s: no huge pages of 2 MiB are free: dpdk-hugepages.py --pagesize 2M --setup 1G", bdf);
	case -EPERM:
		return base_err_set(
			err, rc, "%s: no permission to see physical addresses: run as root", bdf);
	default:
		return base_err_set(
			err, rc,
			"%s: no memory for DMA: %s (free huge pages: dpdk-hugepages.py --pagesize 2M --setup 1G; locked memory: ulimit -l)",
			bdf, strerror(-rc));
	}
}

/* ---- configuration space ---- */

static int set_command(struct pcie *p, uint16_t set, uint16_t clear)
{
	uint16_t command;

	if (pread(p->config, &command, 2, p->config_at + PCI_COMMAND) != 2)
		return -ENODEV;
	command = (uint16_t)((command & ~clear) | set);
	return pwrite(p->config, &command, 2, p->config_at + PCI_COMMAND) == 2 ? 0 : -ENODEV;
}

/* Where its configuration space cannot be reached, it has gone. */
static bool pcie_cut_off(struct nvme_ctrlr *c)
{
	set_command(c->tp, 0, PCI_COMMAND_MASTER);
	return true;
}

/* ---- registers ---- */

static int pcie_read(struct nvme_ctrlr *c, uint32_t reg, unsigned size, uint64_t *value)
{
	const struct pcie *p = c->tp;
	const volatile uint32_t *at = (const volatile uint32_t *)(const void *)(p->bar + reg);

	*value = at[0];
	if (size == 8)
		*value |= (uint64_t)at[1] << 32;
	return 0;
}

static int pcie_write(struct nvme_ctrlr *c, uint32_t reg, unsigned size, uint64_t value)
{
	struct pcie *p = c->tp;
	volatile uint32_t *at = (volatile uint32_t *)(void *)(p->bar + reg);

	__atomic_store_n(&at[0], (uint32_t)value, __ATOMIC_RELEASE);
	if (size == 8)
		at[1] = (uint32_t)(value >> 32);
	return 0;
}

static volatile uint32_t *pcie_mapped(struct nvme_ctrlr *c, uint32_t reg)
{
	struct pcie *p = c->tp;

	return reg <= p->bar_size - 4 ? (volatile uint32_t *)(void *)(p->bar + reg) : NULL;
}

static uint64_t pcie_size(struct nvme_ctrlr *c)
{
	return ((struct pcie *)c->tp)->bar_size;
}

/* ---- interrupts and removal ---- */

static unsigned pcie_vectors(struct nvme_ctrlr *c)
{
	return ((struct pcie *)c->tp)->vectors;
}

/* fd -1: for vectors that have nobody yet. 0, a smaller number that the machine has, or negative errno. */
static int set_irqs(struct pcie *p, uint32_t index, unsigned start, unsigned n, int fd)
{
	char buf[sizeof(struct vfio_irq_set) + MAX_VECTORS * sizeof(int)];
	struct vfio_irq_set *s = (void *)buf;
	int rc;

	s->argsz = (uint32_t)(sizeof(*s) + n * sizeof(int));
	s->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
	s->index = index;
	s->start = start;
	s->count = n;
	for (unsigned i = 0; i < n; i++)
		memcpy(s->data + i * sizeof(int), &fd, sizeof(int));
	rc = ioctl(p->dev, VFIO_DEVICE_SET_IRQS, s);
	return rc < 0 ? -errno : rc;
}

static int pcie_bind(struct nvme_ctrlr *c, unsigned vector, int eventfd)
{
	int rc = set_irqs(c->tp, VFIO_PCI_MSIX_IRQ_INDEX, vector, 1, eventfd);

	return rc > 0 ? -ENOSPC : rc;
}

/* All vectors at once: kernels before 6.5 cannot add one to those that are on. */
static void turn_on_vectors(struct pcie *p, unsigned want)
{
	struct vfio_irq_info i = { .argsz = sizeof(i), .index = VFIO_PCI_MSIX_IRQ_INDEX };
	unsigned n;

	if (ioctl(p->dev, VFIO_DEVICE_GET_IRQ_INFO, &i))
		return;
	for (n = MIN(MIN(want, i.count), MAX_VECTORS); n > 1;) {
		int rc = set_irqs(p, VFIO_PCI_MSIX_IRQ_INDEX, 0, n, -1);

		if (!rc) {
			p->vectors = n;
			return;
		}
		/* So many there are; whoever says none or more has none for us. */
		n = rc > 0 && (unsigned)rc < n ? (unsigned)rc : 0;
	}
}

static void watch_removal(struct pcie *p)
{
	p->gone = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->gone < 0)
		return;
	if (set_irqs(p, VFIO_PCI_REQ_IRQ_INDEX, 0, 1, p->gone)) {
		close(p->gone);
		p->gone = -1;
	}
}

static bool pcie_alive(struct nvme_ctrlr *c)
{
	struct pollfd fd = { .fd = ((struct pcie *)c->tp)->gone, .events = POLLIN };

	return poll(&fd, 1, 0) <= 0;
}

static int pcie_gone_fd(const struct nvme_ctrlr *c)
{
	return ((struct pcie *)c->tp)->gone;
}

/* ---- opening ---- */

static int map_bar(struct pcie *p, int fd, off_t at, uint64_t size, struct base_err *err)
{
	if (size < NVME_REG_DOORBELLS + 16)
		return base_err_set(err, -ENODEV, "%s: BAR 0 is no NVMe controller's", p->at.bdf);
	p->bar_size = (size_t)MIN(size, MAX_BAR);
	p->bar = mmap(NULL, p->bar_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, at);
	if (p->bar != MAP_FAILED)
		return 0;
	p->bar = NULL;
	return base_err_set(err, -errno, "%s: the registers cannot be mapped: %m", p->at.bdf);
}

static int vfio_region(struct pcie *p, uint32_t index, struct vfio_region_info *r,
		       struct base_err *err)
{
	*r = (struct vfio_region_info){ .argsz = sizeof(*r), .index = index };
	if (!ioctl(p->dev, VFIO_DEVICE_GET_REGION_INFO, r))
		return 0;
	return base_err_set(err, -errno, "%s: no region information: %m", p->at.bdf);
}

/* rte_vfio says that it failed, but not why. What can be known was looked at before. */
static int open_vfio(struct pcie *p, struct base_err *err)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };
	struct vfio_region_info bar, config;
	int rc = nvme_eal_start(p->at.bdf, err);

	if (rc)
		return rc;
	/* The module may have been loaded since EAL started. */
	if (!rte_vfio_is_enabled("vfio_pci"))
		rte_vfio_enable("vfio_pci");
	rc = rte_vfio_setup_device(SYSFS_DEVICES, p->at.bdf, &p->dev, &info);
	if (rc) {
		p->dev = -1;
		return base_err_set(
			err, -EIO,
			"%s: VFIO refuses it; are all devices of IOMMU group %d bound to vfio-pci (dpdk-devbind.py -s), is locked memory allowed (ulimit -l)?",
			p->at.bdf, p->at.group);
	}
	p->group = rte_vfio_get_group_fd(p->at.group);
	rc = vfio_region(p, VFIO_PCI_BAR0_REGION_INDEX, &bar, err);
	if (!rc)
		rc = vfio_region(p, VFIO_PCI_CONFIG_REGION_INDEX, &config, err);
	if (rc)
		return rc;
	p->config = p->dev;
	p->config_at = (off_t)config.offset;
	if (!(bar.flags & VFIO_REGION_INFO_FLAG_MMAP))
		return base_err_set(err, -ENODEV, "%s: the registers cannot be mapped", p->at.bdf);
	return map_bar(p, p->dev, (off_t)bar.offset, bar.size, err);
}

static int open_uio(struct pcie *p, struct base_err *err)
{
	char path[128];
	struct stat st;
	int fd, rc;

	snprintf(path, sizeof(path), "/dev/uio%d", p->at.uio);
	p->dev = open(path, O_RDWR | O_CLOEXEC);
	if (p->dev < 0)
		return base_err_set(err, -errno, "%s: %s: %m", p->at.bdf, path);
	/* Opening it keeps nobody else out. */
	if (flock(p->dev, LOCK_EX | LOCK_NB))
		return base_err_set(err, -EBUSY, "%s: in use by another program, which has %s",
				    p->at.bdf, path);
	snprintf(path, sizeof(path), SYSFS_DEVICES "/%s/config", p->at.bdf);
	p->config = open(path, O_RDWR | O_CLOEXEC);
	if (p->config < 0)
		return base_err_set(err, -errno, "%s: %s: %m", p->at.bdf, path);
	snprintf(path, sizeof(path), SYSFS_DEVICES "/%s/resource0", p->at.bdf);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return base_err_set(err, -errno, "%s: %s: %m", p->at.bdf, path);
	rc = fstat(fd, &st) ? base_err_set(err, -errno, "%s: %s: %m", p->at.bdf, path)
			    : map_bar(p, fd, 0, (uint64_t)st.st_size, err);
	close(fd);
	return rc;
}

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork_parent(void)
{
	pthread_mutex_unlock(&lock);
}

/* They are the parent's. */
static void after_fork_child(void)
{
	open_ones = NULL;
	pthread_mutex_unlock(&lock);
}

__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

static bool held(int group)
{
	for (const struct pcie *p = open_ones; p; p = p->next)
		if (p->at.driver == PCIE_VFIO && p->at.group == group)
			return true;
	return false;
}

/* Lock held. */
static void let_go(struct pcie *p)
{
	for (struct pcie **at = &open_ones; *at; at = &(*at)->next) {
		if (*at == p) {
			*at = p->next;
			break;
		}
	}
	if (p->config >= 0)
		set_command(p, 0, PCI_COMMAND_MASTER);
	if (p->bar)
		munmap(p->bar, p->bar_size);
	if (p->reach)
		nvme_pool_unuse(p->reach);
	if (p->gone >= 0)
		close(p->gone);
	if (p->config >= 0 && p->config != p->dev)
		close(p->config);
	if (p->at.driver == PCIE_VFIO && p->dev >= 0)
		rte_vfio_release_device(SYSFS_DEVICES, p->at.bdf, p->dev);
	else if (p->dev >= 0)
		close(p->dev);
	free(p);
}

/* Lock held. */
static int open_place(struct pcie *p, const char *where, unsigned vectors, struct base_err *err)
{
	int rc = pcie_find(where, held, &p->at, err);

	if (rc)
		return rc;
	for (const struct pcie *o = open_ones; o; o = o->next)
		if (!strcmp(o->at.bdf, p->at.bdf))
			return base_err_set(err, -EBUSY, "%s: in use by this program", p->at.bdf);
	rc = p->at.driver == PCIE_VFIO ? open_vfio(p, err) : open_uio(p, err);
	if (rc)
		return rc;
	if (p->at.driver == PCIE_VFIO) {
		turn_on_vectors(p, vectors);
		watch_removal(p);
	}
	if (set_command(p, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0))
		return base_err_set(err, -ENODEV, "%s: no access to the configuration space",
				    p->at.bdf);
	return use_pool(p, p->at.driver == PCIE_VFIO ? &vfio_reach : &uio_reach, err);
}

static int pcie_open(struct nvme_ctrlr *c, const char *where, struct base_err *err)
{
	struct pcie *p = base_calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return base_err_set(err, -ENOMEM, "%s: out of memory", where);
	p->dev = p->group = p->config = p->gone = -1;
	pthread_mutex_lock(&lock);
	/* Vector 0 is the admin queue's. */
	rc = open_place(p, where, c->opts.interrupts ? c->opts.max_qpairs + 1 : 0, err);
	if (rc) {
		let_go(p);
	} else {
		p->next = open_ones;
		open_ones = p;
		c->tp = p;
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

static void pcie_close(struct nvme_ctrlr *c)
{
	pthread_mutex_lock(&lock);
	let_go(c->tp);
	pthread_mutex_unlock(&lock);
	c->tp = NULL;
}

/*
 * The child must not keep the device from who comes after its parent, nor touch it. EAL, which thinks that it has the group, is
 * not used in a child.
 */
static void pcie_forked(struct nvme_ctrlr *c)
{
	struct pcie *p = c->tp;

	if (p->config != p->dev)
		close(p->config);
	close(p->dev);
	if (p->group >= 0)
		close(p->group);
	p->dev = p->config = p->group = -1;
	mmap(p->bar, p->bar_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
	     -1, 0);
}

const struct nvme_transport nvme_pcie = {
	.prefix = "pcie:",
	.open = pcie_open,
	.close = pcie_close,
	.forked = pcie_forked,
	.read = pcie_read,
	.write = pcie_write,
	.mapped = pcie_mapped,
	.size = pcie_size,
	.vectors = pcie_vectors,
	.bind = pcie_bind,
	.alive = pcie_alive,
	.gone_fd = pcie_gone_fd,
	.gone_events = POLLIN,
	.cut_off = pcie_cut_off,
};
