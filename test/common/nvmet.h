/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An emulated NVMe controller, served over vfio-user: the peer the driver is tested against. It is written to the specification and
 * takes nothing else: what a driver does wrong is refused and counted in host_errors. One client at a time, one
 * thread. It can be told to misbehave, also while it runs.
 */
#ifndef TEST_COMMON_NVMET_H
#define TEST_COMMON_NVMET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "nvme/spec.h"
#include "nvme/vfio_user.h"

#define NVMET_MAX_QUEUES 64u
#define NVMET_VECTORS (NVMET_MAX_QUEUES + 1)
#define NVMET_MAX_MAPS 16u
#define NVMET_MAX_STUCK 64u
#define NVMET_BAR_SIZE 0x4000u
#define NVMET_MAX_IOV 600

struct nvmet_opts {
	uint64_t size;
	const char *file;     /* NULL: memory */
	bool null;            /* data goes nowhere and comes from nowhere */
	bool messages;        /* doorbells are not mapped */
	bool write_through;   /* no volatile cache */
	uint32_t block;       /* 512 … 4096; 0: 512 */
	uint32_t mqes;        /* as in CAP; 0: 1023 */
	uint32_t queues;      /* 0: 64 */
	uint32_t vectors;     /* 0: 65 */
	uint8_t mdts;         /* 0: 5, which is 128 KiB */
	uint32_t namespaces;  /* each of `size`, one after another on the medium; 0: 1 */
	uint16_t crdt;        /* of 100 ms: delay of a retry, number 1 */
	uint16_t copy_blocks; /* of a copy; 0: 64 */
	uint16_t noiob;
};

/* Numbers of times to do it, unless said otherwise; any thread may set them. */
struct nvmet_faults {
	atomic_uint lose;      /* I/O completions */
	atomic_uint stick;     /* I/O commands that never end, but can be aborted */
	atomic_uint duplicate; /* I/O completions that come twice */
	atomic_uint
		wrong_cid; /* I/O completions with a command id of their own, before the right one */
	atomic_uint fail;  /* I/O commands, with fail_status */
	atomic_uint
		fail_status; /* as in the completion, shifted: SCT << 8 | SC, CRD 1 0x800, DNR 0x4000 */
	atomic_bool hold;        /* while set, I/O queues stand still */
	atomic_bool cfs;         /* fatal status, until the next reset */
	atomic_bool all_ones;    /* while set, registers read as all ones */
	atomic_bool never_ready; /* while set, the controller does not get ready */
	atomic_uint ready_ms;    /* how long the controller takes to get ready */
	atomic_bool hang_up;     /* closes the connection */
	/* What it says of itself. */
	atomic_bool no_entries, large_pages, no_blocks, no_namespace;
	atomic_uint lbads, mdts, metadata, sqes; /* unless 0 */
};

struct nvmet_counts {
	atomic_uint commands, aborts, enables, shutdowns, flushes, fua, deallocates, copies;
	atomic_uint host_errors, clients;
	atomic_uint largest; /* blocks of a read or write */
};

struct nvmet_map {
	uint64_t iova, size;
	char *p;
	bool writable;
};

struct nvmet_cq {
	bool exists, irq;
	uint16_t entries, tail, vector, users;
	uint8_t phase;
	struct nvme_cqe *at;
};

struct nvmet_sq {
	bool exists;
	uint16_t entries, head, cq;
	struct nvme_sqe *at;
};

struct nvmet {
	struct nvmet_opts o;
	struct nvmet_faults f;
	struct nvmet_counts n;
	atomic_bool stop, connected;

	int store; /* the medium, a file; -1: null */
	int bar_fd;
	char *bar;     /* only the doorbells in it are used */
	char *scratch; /* of the largest transfer */

	/* Of a client. */
	int client;
	struct nvmet_map maps[NVMET_MAX_MAPS];
	int irq[NVMET_VECTORS];
	uint8_t config[256];

	/* Registers. */
	uint32_t cc, csts, aqa;
	uint64_t ready_ns; /* when it gets ready; 0: it is not about to */
	uint64_t asq, acq;
	struct nvmet_cq cqs[NVMET_MAX_QUEUES + 1];
	struct nvmet_sq sqs[NVMET_MAX_QUEUES + 1];
	bool queues_asked;
	uint32_t write_cache, temperature;
	bool heeds_delays;       /* the host has said so */
	uint32_t block, formats; /* of the present format; how often it was formatted */
	uint32_t image;          /* bytes of firmware downloaded */
	char firmware[9], image_name[9];
	struct {
		uint16_t sq, cid;
	} stuck[NVMET_MAX_STUCK];
	unsigned nstuck;
};

int nvmet_create(const struct nvmet_opts *o, struct nvmet **out);
void nvmet_destroy(struct nvmet *t);
/* Serves clients of the listening socket, one after another, until t->stop. */
int nvmet_serve(struct nvmet *t, int listener);
int nvmet_listen(const char *path);

/* ---- among its files ---- */

/* What is less usual: nvmet_more.c. */
uint16_t nvmet_more_admin(struct nvmet *t, const struct nvme_sqe *sqe, uint32_t *dw0);
uint16_t nvmet_copy(struct nvmet *t, const struct nvme_sqe *sqe);
uint16_t nvmet_put_out(struct nvmet *t, const struct nvme_sqe *sqe, const void *data, uint64_t len);
bool nvmet_in_range(const struct nvmet *t, uint64_t lba, uint64_t blocks);
/* Where a namespace begins on the medium. */
uint64_t nvmet_base(const struct nvmet *t, uint32_t nsid);
/* Memory of the client; NULL: it gave us none there. */
void *nvmet_memory(struct nvmet *t, uint64_t iova, uint64_t len, bool write);
/* The buffers of a command; returns how many iovecs, or -status. */
int nvmet_buffers(struct nvmet *t, const struct nvme_sqe *sqe, uint64_t len, bool write,
		  struct iovec iov[NVMET_MAX_IOV]);
void nvmet_complete(struct nvmet *t, unsigned sq, uint16_t cid, uint16_t status, uint32_t dw0);
uint16_t nvmet_admin_command(struct nvmet *t, const struct nvme_sqe *sqe, uint32_t *dw0);
uint16_t nvmet_io_command(struct nvmet *t, const struct nvme_sqe *sqe);
uint64_t nvmet_register(struct nvmet *t, uint32_t reg, unsigned size);
/* False: not a register that can be written like this. */
bool nvmet_set_register(struct nvmet *t, uint32_t reg, unsigned size, uint64_t value);
/* Does what the doorbells ask for; returns the number of commands. */
unsigned nvmet_work(struct nvmet *t);
void nvmet_reset(struct nvmet *t);
uint32_t *nvmet_doorbell(struct nvmet *t, unsigned queue, bool cq);
/* True: it was set, and counts one less. */
bool nvmet_once(atomic_uint *n);
/* A mistake of the driver. */
void nvmet_host_error(struct nvmet *t, const char *what);

#endif
