/* SPDX-License-Identifier: BSD-2-Clause */
/* What the kernel tells of the machine's NVMe controllers, and of what user-space drivers need. */
#ifndef TOOLS_NVME_SYSFS_H
#define TOOLS_NVME_SYSFS_H

#include <stdbool.h>
#include <stdint.h>

#define SYSFS_MAX_PAGE_SIZES 8
#define SYSFS_MAX_CONTROLLERS 64

struct hugepages {
	uint64_t size, total, free; /* size in bytes; the others are pages */
};

struct machine {
	struct hugepages pages[SYSFS_MAX_PAGE_SIZES];
	unsigned npages;
	unsigned iommu_groups;
	bool vfio_pci; /* the driver is loaded */
};

struct controller {
	char address[16];
	char driver[32]; /* "": none */
	char model[64], serial[32], firmware[16];
	char group[16]; /* of the IOMMU, "": none */
	uint16_t vendor, device;
	uint64_t bytes; /* of all its block devices */
	int node;       /* NUMA, -1: none */
	char used[128]; /* what of it the kernel has in use: "mounted on /", "" */
	char partner
		[64]; /* another device of its group that has a kernel driver: "0000:00:1f.0 (ahci)" */
	bool no_access; /* to the group's device file */
};

/* root: where /sys, /proc and /dev are; "" for this machine's. */
void sysfs_machine(const char *root, struct machine *out);
/* Sorted by address; returns how many, or a negative errno. */
int sysfs_controllers(const char *root, struct controller out[SYSFS_MAX_CONTROLLERS]);

#endif
