/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looks a PCI device up in sysfs and says, before anything is opened, what keeps us from using it and what to type about it.
 * What fails later fails for reasons that only the kernel knows.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nvme/internal.h"

#define NVME_CLASS 0x010802u
#define BUSY_TRIES 50u
#define BUSY_US 20000u
#define BIND "dpdk-devbind.py -b vfio-pci"

const char *pcie_root = "";

/* ---- addresses ---- */

static bool hex_field(const char **at, unsigned digits, char after, unsigned *out)
{
	unsigned n = 0;

	for (*out = 0; isxdigit((unsigned char)**at) && n < digits; n++, (*at)++) {
		unsigned char ch = (unsigned char)tolower((unsigned char)**at);

		*out = *out << 4 | (unsigned)(ch <= '9' ? ch - '0' : ch - 'a' + 10);
	}
	return n && *(*at)++ == after;
}

bool pcie_normal(const char *text, char bdf[16])
{
	unsigned domain = 0, bus, device, function;
	const char *first = strchr(text, ':');

	if (first && strchr(first + 1, ':') && !hex_field(&text, 4, ':', &domain))
		return false;
	if (!hex_field(&text, 2, ':', &bus) || !hex_field(&text, 2, '.', &device) ||
	    !hex_field(&text, 1, '\0', &function) || device > 31 || function > 7)
		return false;
	snprintf(bdf, 16, "%04x:%02x:%02x.%x", domain & 0xffff, bus & 0xff, device & 0x1f,
		 function & 7);
	return true;
}

/* ---- sysfs ---- */

static void device_path(const char *bdf, const char *what, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/sys/bus/pci/devices/%s%s%s", pcie_root, bdf, *what ? "/" : "",
		 what);
}

static bool read_line(const char *bdf, const char *what, char *out, size_t len)
{
	char path[PATH_MAX];
	ssize_t n;
	int fd;

	device_path(bdf, what, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, out, len - 1) : -1;
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return false;
	out[n] = '\0';
	out[strcspn(out, "\n")] = '\0';
	return true;
}

/* The last part of what a link points at; "" for no link. */
static void link_name(const char *bdf, const char *what, char *out, size_t len)
{
	char path[PATH_MAX], target[PATH_MAX];
	const char *name;
	ssize_t n;

	device_path(bdf, what, path);
	n = readlink(path, target, sizeof(target) - 1);
	target[MAX(n, 0)] = '\0';
	name = strrchr(target, '/');
	name = name ? name + 1 : target;
	len = strnlen(name, len - 1);
	memcpy(out, name, len);
	out[len] = '\0';
}

static bool module_is_there(const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/sys/module/%s", pcie_root, name);
	return !access(path, F_OK);
}

/* ---- through VFIO ---- */

/* Whoever was killed a moment ago still has it while the kernel resets the device. */
static int try_open(const char *path)
{
	for (unsigned i = 0;; i++) {
		int fd = open(path, O_RDWR | O_CLOEXEC);

		if (fd >= 0) {
			close(fd);
			return 0;
		}
		if (errno != EBUSY || i == BUSY_TRIES)
			return -errno;
		usleep(BUSY_US);
	}
}

static int check_access(const char *bdf, const char *path, struct base_err *err)
{
	int rc = try_open(path);

	if (!rc)
		return 0;
	if (rc == -EACCES || rc == -EPERM)
		return base_err_set(
			err, -EACCES,
			"%s: no permission for %s: run as root, or chown it to this user", bdf,
			path);
	if (rc == -EBUSY)
		return base_err_set(err, rc, "%s: in use by another program, which has %s", bdf,
				    path);
	return base_err_set(err, rc, "%s: %s: %s", bdf, path, strerror(-rc));
}

static int find_vfio(struct pcie_place *p, bool (*held)(int group), struct base_err *err)
{
	char group[32], path[PATH_MAX], *end;

	link_name(p->bdf, "iommu_group", group, sizeof(group));
	p->group = (int)strtol(group, &end, 10);
	if (!*group || *end)
		return base_err_set(
			err, -ENODEV,
			"%s: there is no IOMMU before it; turn it on (intel_iommu=on), or dpdk-devbind.py -b uio_pci_generic %s",
			p->bdf, p->bdf);
	if (!module_is_there("vfio_iommu_type1"))
		return base_err_set(err, -ENODEV,
				    "%s: VFIO lacks its IOMMU driver: modprobe vfio_iommu_type1",
				    p->bdf);
	snprintf(path, sizeof(path), "%s/dev/vfio/vfio", pcie_root);
	if (access(path, F_OK))
		return base_err_set(err, -ENODEV, "%s: %s is not there: modprobe vfio-pci", p->bdf,
				    path);
	if (held(p->group))
		return 0;
	snprintf(path, sizeof(path), "%s/dev/vfio/%d", pcie_root, p->group);
	return check_access(p->bdf, path, err);
}

/* ---- through uio_pci_generic ---- */

static int find_uio_number(const char *bdf)
{
	char path[PATH_MAX];
	struct dirent *e;
	int n = -1;
	DIR *d;

	device_path(bdf, "uio", path);
	d = opendir(path);
	while (d && n < 0 && (e = readdir(d)))
		if (sscanf(e->d_name, "uio%d", &n) != 1)
			n = -1;
	if (d)
		closedir(d);
	return n;
}

static int find_uio(struct pcie_place *p, struct base_err *err)
{
	char type[32], path[PATH_MAX];

	if (read_line(p->bdf, "iommu_group/type", type, sizeof(type)) && strcmp(type, "identity"))
		return base_err_set(
			err, -ENOTSUP,
			"%s: an IOMMU translates its addresses, which uio_pci_generic cannot use: " BIND
			" %s",
			p->bdf, p->bdf);
	p->uio = find_uio_number(p->bdf);
	if (p->uio < 0)
		return base_err_set(err, -ENODEV,
				    "%s: has no uio device; bind it again: " BIND " %s", p->bdf,
				    p->bdf);
	snprintf(path, sizeof(path), "%s/dev/uio%d", pcie_root, p->uio);
	return check_access(p->bdf, path, err);
}

/* ---- both ---- */

static int check_class(const char *bdf, struct base_err *err)
{
	char path[PATH_MAX], text[32];
	unsigned long class;

	device_path(bdf, "", path);
	if (access(path, F_OK))
		return base_err_set(err, -ENOENT,
				    "%s: there is no such PCI device (lspci lists them)", bdf);
	if (!read_line(bdf, "class", text, sizeof(text)))
		return base_err_set(err, -ENODEV, "%s: its class cannot be read", bdf);
	class = strtoul(text, NULL, 16);
	return class == NVME_CLASS
		       ? 0
		       : base_err_set(err, -ENODEV,
				      "%s: a PCI device of class %06lx, not an NVMe controller",
				      bdf, class);
}

int pcie_find(const char *text, bool (*held)(int group), struct pcie_place *out,
	      struct base_err *err)
{
	char driver[64];
	int rc;

	*out = (struct pcie_place){ .group = -1, .uio = -1 };
	if (!pcie_normal(text, out->bdf))
		return base_err_set(err, -EINVAL,
				    "%s: not the address of a PCI device (0000:01:00.0)", text);
	rc = check_class(out->bdf, err);
	if (rc)
		return rc;
	link_name(out->bdf, "driver", driver, sizeof(driver));
	if (!strcmp(driver, "vfio-pci")) {
		out->driver = PCIE_VFIO;
		return find_vfio(out, held, err);
	}
	if (!strcmp(driver, "uio_pci_generic")) {
		out->driver = PCIE_UIO;
		return find_uio(out, err);
	}
	if (!*driver)
		return base_err_set(err, -ENODEV, "%s: not bound to vfio-pci: " BIND " %s",
				    out->bdf, out->bdf);
	return base_err_set(err, -EBUSY,
			    "%s: not bound to vfio-pci but to the kernel's driver %s: " BIND " %s",
			    out->bdf, driver, out->bdf);
}
