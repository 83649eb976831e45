/* SPDX-License-Identifier: BSD-2-Clause */
#include "tools/nvme/sysfs.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLASS_NVME 0x010802ul
#define CLASS_BRIDGE 0x06ul

/* ---- files ---- */

static void put_path(char path[PATH_MAX], const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
static void put_path(char path[PATH_MAX], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(path, PATH_MAX, fmt, ap);
	va_end(ap);
}

/* One line of a file, without blanks at its end; "" if there is none. */
static bool line_of(char *buf, size_t len, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static bool line_of(char *buf, size_t len, const char *fmt, ...)
{
	char path[PATH_MAX];
	va_list ap;
	FILE *f;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	*buf = '\0';
	f = fopen(path, "re");
	if (!f)
		return false;
	if (!fgets(buf, (int)len, f))
		*buf = '\0';
	fclose(f);
	for (size_t n = strlen(buf); n && (unsigned char)buf[n - 1] <= ' ';)
		buf[--n] = '\0';
	return true;
}

static uint64_t number_of(const char *path)
{
	char buf[32];

	return line_of(buf, sizeof(buf), "%s", path) ? strtoull(buf, NULL, 0) : 0;
}

/* The last component of what a link points to. */
static void link_of(const char *path, char *buf, size_t len)
{
	char to[PATH_MAX];
	ssize_t n = readlink(path, to, sizeof(to) - 1);
	char *slash;

	*buf = '\0';
	if (n <= 0)
		return;
	to[n] = '\0';
	slash = strrchr(to, '/');
	snprintf(buf, len, "%.*s", (int)len - 1, slash ? slash + 1 : to);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int visible(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

/* Calls what for each entry, in order; how many there were. */
static int each(const char *dir, void (*what)(const char *dir, const char *name, void *arg),
		void *arg)
{
	struct dirent **list;
	int n = scandir(dir, &list, visible, by_name);

	for (int i = 0; i < n; i++) {
		if (what)
			what(dir, list[i]->d_name, arg);
		free(list[i]);
	}
	if (n >= 0)
		free(list);
	return n;
}

/* ---- the machine ---- */

static void add_pages(const char *dir, const char *name, void *arg)
{
	struct machine *m = arg;
	struct hugepages *p = &m->pages[m->npages];
	char path[PATH_MAX];
	unsigned long kb;

	if (m->npages == SYSFS_MAX_PAGE_SIZES || sscanf(name, "hugepages-%lukB", &kb) != 1)
		return;
	p->size = kb * 1024ull;
	put_path(path, "%s/%s/nr_hugepages", dir, name);
	p->total = number_of(path);
	put_path(path, "%s/%s/free_hugepages", dir, name);
	p->free = number_of(path);
	m->npages++;
}

void sysfs_machine(const char *root, struct machine *out)
{
	char path[PATH_MAX];
	int n;

	memset(out, 0, sizeof(*out));
	put_path(path, "%s/sys/kernel/mm/hugepages", root);
	each(path, add_pages, out);
	put_path(path, "%s/sys/kernel/iommu_groups", root);
	n = each(path, NULL, NULL);
	out->iommu_groups = n > 0 ? (unsigned)n : 0;
	put_path(path, "%s/sys/bus/pci/drivers/vfio-pci", root);
	out->vfio_pci = access(path, F_OK) == 0;
}

/* ---- what the kernel does with its block devices ---- */

struct look {
	const char *root;
	struct controller *c;
};

static void set_used(struct controller *c, const char *how, const char *what)
{
	if (!*c->used)
		snprintf(c->used, sizeof(c->used), "%s %.100s", how, what);
}

/* "/dev/nvme0n1p2" is of nvme0n1. */
static bool is_of(const char *source, const char *disk)
{
	size_t len = strlen(disk);

	return !strncmp(source, "/dev/", 5) && !strncmp(source + 5, disk, len) &&
	       (!source[5 + len] || source[5 + len] == 'p');
}

static void look_at_mounts(const char *root, const char *disk, struct controller *c)
{
	char path[PATH_MAX], line[PATH_MAX], point[PATH_MAX], source[PATH_MAX];
	FILE *f;

	put_path(path, "%s/proc/self/mounts", root);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%4095s %4095s", source, point) == 2 && is_of(source, disk))
			set_used(c, "mounted on", point);
	if (f)
		fclose(f);
	put_path(path, "%s/proc/swaps", root);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%4095s", source) == 1 && is_of(source, disk))
			set_used(c, "swap on", source);
	if (f)
		fclose(f);
}

static void look_at_holder(const char *dir, const char *name, void *arg)
{
	(void)dir;
	set_used(arg, "held by", name);
}

/* The disk's own, and those of its partitions: directories that are named like it. */
static void look_at_part(const char *dir, const char *name, void *arg)
{
	const char *disk = strrchr(dir, '/') + 1;
	char path[PATH_MAX];

	if (strncmp(name, disk, strlen(disk)))
		return;
	put_path(path, "%s/%s/holders", dir, name);
	each(path, look_at_holder, arg);
}

/* Entries of nvme/nvme0: nvme0n1, or nvme0c1n1, which is a path to nvme0n1. */
static void look_at_disk(const char *dir, const char *name, void *arg)
{
	unsigned ctrlr, path_of, ns;
	struct look *l = arg;
	char disk[64], path[PATH_MAX];
	int end = 0;

	(void)dir;
	if (sscanf(name, "nvme%uc%un%u%n", &ctrlr, &path_of, &ns, &end) == 3 && !name[end])
		snprintf(disk, sizeof(disk), "nvme%un%u", ctrlr, ns);
	else if (sscanf(name, "nvme%un%u%n", &ctrlr, &ns, &end) == 2 && !name[end])
		snprintf(disk, sizeof(disk), "%s", name);
	else
		return;
	put_path(path, "%s/sys/class/block/%s/size", l->root, disk);
	l->c->bytes += number_of(path) * 512;
	look_at_mounts(l->root, disk, l->c);
	put_path(path, "%s/sys/class/block/%s/holders", l->root, disk);
	each(path, look_at_holder, l->c);
	put_path(path, "%s/sys/class/block/%s", l->root, disk);
	each(path, look_at_part, l->c);
}

/* The kernel's name of the controller, nvme0: its directory knows the model. */
static void look_at_nvme(const char *dir, const char *name, void *arg)
{
	struct look *l = arg;
	char path[PATH_MAX];

	line_of(l->c->model, sizeof(l->c->model), "%s/%s/model", dir, name);
	line_of(l->c->serial, sizeof(l->c->serial), "%s/%s/serial", dir, name);
	line_of(l->c->firmware, sizeof(l->c->firmware), "%s/%s/firmware_rev", dir, name);
	put_path(path, "%s/%s", dir, name);
	each(path, look_at_disk, l);
}

/* ---- controllers ---- */

/* A group can be given to a program only as a whole; bridges may keep their drivers. */
static void look_at_partner(const char *dir, const char *name, void *arg)
{
	char path[PATH_MAX], driver[32];
	struct controller *c = arg;

	if (!strcmp(name, c->address) || *c->partner)
		return;
	put_path(path, "%s/%s/class", dir, name);
	if (number_of(path) >> 16 == CLASS_BRIDGE)
		return;
	put_path(path, "%s/%s/driver", dir, name);
	link_of(path, driver, sizeof(driver));
	if (*driver && strcmp(driver, "vfio-pci") && strcmp(driver, "pci-stub"))
		snprintf(c->partner, sizeof(c->partner), "%.20s (%s)", name, driver);
}

static void look_at_group(const char *root, const char *device, struct controller *c)
{
	char path[PATH_MAX];

	put_path(path, "%s/iommu_group", device);
	link_of(path, c->group, sizeof(c->group));
	if (!*c->group)
		return;
	put_path(path, "%s/sys/kernel/iommu_groups/%s/devices", root, c->group);
	each(path, look_at_partner, c);
	put_path(path, "%s/dev/vfio/%s", root, c->group);
	c->no_access = !strcmp(c->driver, "vfio-pci") && access(path, R_OK | W_OK);
}

struct list {
	const char *root;
	struct controller *out;
	int n;
};

static void look_at_device(const char *dir, const char *name, void *arg)
{
	char device[PATH_MAX], path[PATH_MAX], text[16];
	struct list *list = arg;
	struct controller *c;
	struct look look;

	put_path(device, "%s/%s", dir, name);
	put_path(path, "%s/class", device);
	if (number_of(path) != CLASS_NVME || list->n == SYSFS_MAX_CONTROLLERS)
		return;
	c = &list->out[list->n++];
	memset(c, 0, sizeof(*c));
	snprintf(c->address, sizeof(c->address), "%.15s", name);
	put_path(path, "%s/driver", device);
	link_of(path, c->driver, sizeof(c->driver));
	put_path(path, "%s/vendor", device);
	c->vendor = (uint16_t)number_of(path);
	put_path(path, "%s/device", device);
	c->device = (uint16_t)number_of(path);
	c->node = line_of(text, sizeof(text), "%s/numa_node", device) ? atoi(text) : -1;
	look_at_group(list->root, device, c);
	look = (struct look){ list->root, c };
	put_path(path, "%s/nvme", device);
	each(path, look_at_nvme, &look);
}

int sysfs_controllers(const char *root, struct controller out[SYSFS_MAX_CONTROLLERS])
{
	struct list list = { root, out, 0 };
	char path[PATH_MAX];

	put_path(path, "%s/sys/bus/pci/devices", root);
	/* A machine without PCI has none. */
	if (each(path, look_at_device, &list) < 0 && errno != ENOENT)
		return -errno;
	return list.n;
}
