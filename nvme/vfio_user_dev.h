/* SPDX-License-Identifier: BSD-2-Clause */
/* A controller behind vfio-user: what the server has told of it, and the accesses to its registers that are under way. */
#ifndef NVME_VFIO_USER_DEV_H
#define NVME_VFIO_USER_DEV_H

#include "nvme/internal.h"
#include "nvme/vfio_user_msg.h"

#define VU_LOOKS 16u                          /* registers of four bytes, from the first on */
#define VU_POSTED 16u                         /* writes under way at once */
#define VU_BELLS (2u * (NVME_MAX_QPAIRS + 1)) /* doorbells */

/* A register that is being read: its value comes with a later look. */
struct vu_look {
	struct vu_call call;
	bool asked;
	bool stale; /* something was written since it was asked for */
	uint8_t data[sizeof(struct vu_region_access) + 8];
};

/* A doorbell without a page: one message at a time, and the last value once that has been answered. */
struct vu_bell {
	struct vu_call call;
	uint32_t reg, value;
	bool again;
};

struct vu {
	struct vu_conn conn;
	uint64_t bar_size;
	unsigned vectors;
	const struct nvme_reach *reach; /* in use */
	bool words; /* registers of eight bytes are read and written by halves */
	/* The part of BAR 0 that is mapped; NULL: none. */
	char *map;
	uint64_t map_offset, map_size;
	/* The table of MSI-X; entries 0: it has none that can be written. */
	uint32_t table_region;
	atomic_uint table_entries;
	uint64_t table_offset;
	struct vu_look looks[VU_LOOKS];
	struct vu_call posted[VU_POSTED];
	struct vu_bell *bells;
	atomic_bool blocked; /* a doorbell could not be sent */
};

/* ---- vfio_user_find.c ---- */
/* Speaks the first words, and learns what is there. */
int vu_find(struct vu *v, const char *path, struct base_err *err);
int vu_region_read(struct vu *v, uint32_t region, uint64_t offset, void *buf, uint32_t size);
int vu_region_write(struct vu *v, uint32_t region, uint64_t offset, void *buf, uint32_t size);

#endif
