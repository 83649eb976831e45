/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Messages of the vfio-user protocol, version 0.1. All of it is in the byte order of the host. A message is a header
 * and a payload; file descriptors come beside it.
 */
#ifndef NVME_VFIO_USER_H
#define NVME_VFIO_USER_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "base/api.h"

enum vu_command {
	VU_VERSION = 1,
	VU_DMA_MAP = 2,
	VU_DMA_UNMAP = 3,
	VU_DEVICE_INFO = 4,
	VU_REGION_INFO = 5,
	VU_REGION_IO_FDS = 6,
	VU_IRQ_INFO = 7,
	VU_SET_IRQS = 8,
	VU_REGION_READ = 9,
	VU_REGION_WRITE = 10,
	VU_DMA_READ = 11,
	VU_DMA_WRITE = 12,
	VU_DEVICE_RESET = 13,
};

#define VU_MAJOR 0u
#define VU_MINOR 1u
#define VU_TYPE_MASK 0xfu
#define VU_REPLY 0x1u
#define VU_NO_REPLY (1u << 4)
#define VU_ERROR (1u << 5)
#define VU_MAX_PAYLOAD 4096u /* of what we send and accept; registers and descriptions are small */
#define VU_MAX_FDS 8u

struct vu_header {
	uint16_t id, command;
	uint32_t size; /* with this header */
	uint32_t flags;
	uint32_t error;
};
_Static_assert(sizeof(struct vu_header) == 16, "header");

struct vu_version {
	uint16_t major, minor;
	char json[]; /* with its NUL; optional */
};

#define VU_DMA_READABLE 1u
#define VU_DMA_WRITABLE 2u
struct vu_dma_map {
	uint32_t argsz, flags;
	uint64_t offset, address, size;
};
_Static_assert(sizeof(struct vu_dma_map) == 32, "DMA map");

struct vu_dma_unmap {
	uint32_t argsz, flags;
	uint64_t address, size;
};
_Static_assert(sizeof(struct vu_dma_unmap) == 24, "DMA unmap");

#define VU_DEVICE_CAN_RESET 1u
#define VU_DEVICE_PCI 2u
struct vu_device_info {
	uint32_t argsz, flags, regions, irqs;
};
_Static_assert(sizeof(struct vu_device_info) == 16, "device info");

#define VU_REGION_READABLE 1u
#define VU_REGION_WRITABLE 2u
#define VU_REGION_MMAP 4u
#define VU_REGION_CAPS 8u
struct vu_region_info {
	uint32_t argsz, flags, index, cap_offset;
	uint64_t size, offset;
};
_Static_assert(sizeof(struct vu_region_info) == 32, "region info");

#define VU_CAP_SPARSE_MMAP 1u
struct vu_cap {
	uint16_t id, version;
	uint32_t next;
};
struct vu_area {
	uint64_t offset, size;
};
struct vu_cap_sparse {
	struct vu_cap head;
	uint32_t areas, reserved;
	struct vu_area area[];
};
_Static_assert(sizeof(struct vu_cap_sparse) == 16, "sparse areas");

#define VU_IRQ_EVENTFD 1u
#define VU_IRQ_NORESIZE 8u
struct vu_irq_info {
	uint32_t argsz, flags, index, count;
};
_Static_assert(sizeof(struct vu_irq_info) == 16, "interrupt info");

#define VU_IRQ_DATA_NONE (1u << 0)
#define VU_IRQ_DATA_EVENTFD (1u << 2)
#define VU_IRQ_ACTION_TRIGGER (1u << 5)
struct vu_set_irqs {
	uint32_t argsz, flags, index, start, count;
};
_Static_assert(sizeof(struct vu_set_irqs) == 20, "set interrupts");

struct vu_region_access {
	uint64_t offset;
	uint32_t region, count;
	uint8_t data[];
};
_Static_assert(sizeof(struct vu_region_access) == 16, "region access");

enum { VU_PCI_BAR0 = 0, VU_PCI_CONFIG = 7, VU_PCI_REGIONS = 9 };
enum { VU_PCI_MSIX = 2, VU_PCI_IRQS = 5 };

#endif
