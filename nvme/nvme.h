/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * nvme: a polled NVMe driver in user space, usable without the rest of BlobFS (nvme/example.c).
 *
 * A controller is named by its address:
 *     pcie:0000:01:00.0        one in this machine, given to us by vfio-pci (or uio_pci_generic where no IOMMU translates);
 *                              0000:01:00.0 for short
 *     vfio-user:/path/to.sock  one that another process serves over the vfio-user protocol
 * Commands go through queue pairs. A queue pair belongs to one thread at a time
 * (there is no lock inside): the caller orders submit and poll. Callbacks run inside nvme_poll, and
 * inside nvme_qpair_free, only.
 */
#ifndef NVME_NVME_H
#define NVME_NVME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/api.h"
#include "base/err.h"

BLOBFS_C_BEGIN

struct nvme_ctrlr;
struct nvme_qpair;

/* ---- attaching ---- */

struct nvme_opts {
	uint32_t size; /* sizeof(struct nvme_opts) */
	uint32_t
		max_qpairs; /* I/O queue pairs to ask for; 0: 64, less if the controller has not so many */
	uint32_t
		timeout_ms; /* of a command before it is aborted, then the controller reset; 0: 30000. It ends after twice this at most */
	uint32_t retries; /* of a command that fails and may be repeated; 0: 4, UINT32_MAX: none */
	bool interrupts;  /* queue pairs can be slept on: nvme_qpair_fd */
};
/*
 * Resets, enables and identifies the controller. One that misreports (no queue entries, a page size other than
 * 4 KiB is the least, no namespace, a block size out of range …) is refused with a sentence in err.
 * opts may be NULL. -ENOENT, -EACCES, -EPERM, -EBUSY, -ENODEV, -ETIMEDOUT, -EPROTO, -ENOTSUP, -ENOMEM. Any thread.
 *
 * The first controller of this machine (pcie:) starts DPDK's environment, once for the process, which takes a fifth of
 * a second. Memory for DMA comes from huge pages of 2 MiB while there are any, and stays the process's.
 */
BLOBFS_API int nvme_attach(const char *address, const struct nvme_opts *opts,
			   struct nvme_ctrlr **out, struct base_err *err);
/* Makes opts.timeout_ms less, of all its queue pairs; a longer one changes nothing, nor does 0. Any thread. */
BLOBFS_API void nvme_shorten_timeout(struct nvme_ctrlr *c, uint32_t timeout_ms);
/* Shuts the controller down, lets go. Every queue pair must have been freed. */
BLOBFS_API void nvme_detach(struct nvme_ctrlr *c);
/* The one way to write an address: "01:00.0" becomes "pcie:0000:01:00.0". -EINVAL: it is none; -ENAMETOOLONG. */
BLOBFS_API int nvme_normal_address(const char *address, char *out, size_t len);
/*
 * Takes apart what people write: ADDRESS[/NSID][,timeout=SECONDS]. A number after the last slash is a namespace, and the timeout is
 * 0.1 to 3600 seconds, unless the whole is the name of a socket that is there. -EINVAL, -ENAMETOOLONG, with a sentence in err.
 */
struct nvme_name {
	char address[256]; /* as of nvme_normal_address */
	uint32_t nsid;     /* 0: none is named */
	uint32_t timeout_ms; /* for struct nvme_opts; 0: none is named */
};
BLOBFS_API int nvme_split_name(const char *text, struct nvme_name *out, struct base_err *err);
/* In the child of a fork, in place of detaching and of everything else: closes what both processes hold. */
BLOBFS_API void nvme_forked(struct nvme_ctrlr *c);

struct nvme_ctrlr_info {
	char address[256], model[41], serial[21], firmware[9];
	uint16_t vendor;
	uint32_t version;      /* as in the VS register: 0x10400 is 1.4 */
	uint32_t max_transfer; /* bytes of one command; longer ones are split */
	uint32_t max_qpairs, max_depth;
	uint32_t namespaces; /* active ones */
	bool volatile_cache, write_zeroes, deallocate, compare, verify, copy;
	bool format, download; /* can be formatted, can be given firmware */
	bool interrupts;
	bool sgl;              /* buffers of any form are named in one command */
	uint16_t streams;      /* writes may say which of so many streams they belong to; 0: none */
	bool shadow_doorbells; /* doorbells are in memory */
};
BLOBFS_API const struct nvme_ctrlr_info *nvme_info(const struct nvme_ctrlr *c);
/*
 * The controller is gone, or beyond reset (it does not come back, or completes nothing reset after reset): every command ends with -ENODEV. Any thread. From then on it changes no memory: bus mastering is
 * off, or its server has let go. Only a server that was given up for its silence and is still there may, when it goes on, still write
 * to the buffers of commands it had taken by then; what it had not taken is made void before the commands end, and the log says so.
 */
BLOBFS_API bool nvme_failed(const struct nvme_ctrlr *c);

struct nvme_ns_info {
	uint32_t nsid;
	uint32_t block_size; /* bytes of data: 512 … 4096 */
	uint64_t blocks;
	uint32_t optimal_boundary; /* in blocks, which commands better do not cross; 0: none */
	uint32_t atomic_write;     /* bytes that power loss leaves all old or all new */
	bool deallocated_zeroes;   /* what was deallocated reads as zeroes */
	uint8_t protection;        /* information type, added and checked by the controller; 0: none */
};
/* The usable namespaces in order: nsid > after (0: the first). -ENOENT at the end. */
BLOBFS_API int nvme_ns_next(const struct nvme_ctrlr *c, uint32_t after, struct nvme_ns_info *out);
/* -ENOENT, or -ENOTSUP for one that cannot be used: with metadata in the blocks, or protection information among others. Metadata beside
 * the blocks are zeroes when written and not looked at when read; such a namespace compares nothing (-EOPNOTSUPP). */
BLOBFS_API int nvme_ns_get(const struct nvme_ctrlr *c, uint32_t nsid, struct nvme_ns_info *out);

/* ---- memory ---- */

/* Memory every controller can reach; dma_alloc gives it too once a controller has been attached. Contents undefined.
 * align: power of two, pages at least are used. NULL when memory is short. Any thread. */
BLOBFS_API void *nvme_alloc(size_t size, size_t align);
BLOBFS_API void nvme_free(void *p); /* NULL is allowed */
BLOBFS_API bool nvme_memory_ok(const void *p, size_t len);
/* All of that memory lies in one window of addresses, which stays where it is while a controller is attached. */
BLOBFS_API void nvme_memory_window(const void **base, uint64_t *len);

/* ---- queue pairs and commands ---- */

/* depth: commands with the controller at once; 0: 128; no more than info->max_depth are. -ENOSPC: the
 * controller has no more. */
BLOBFS_API int nvme_qpair_create(struct nvme_ctrlr *c, uint32_t depth, struct nvme_qpair **out);
/* What is outstanding is completed with -ECANCELED first. */
BLOBFS_API void nvme_qpair_free(struct nvme_qpair *q);

enum nvme_op {
	NVME_READ,
	NVME_WRITE,
	NVME_FLUSH,
	NVME_WRITE_ZEROES,
	NVME_DEALLOCATE,
	NVME_COMPARE, /* rc -EILSEQ when it differs */
	NVME_VERIFY,
	NVME_COPY, /* blocks from `source` on to lba on; the two ranges lie apart */
	NVME_RAW,  /* any I/O command: `raw`, and the iovecs for its data */
};
enum nvme_cmd_flags {
	NVME_FUA = 1 << 0,
	NVME_MAY_DEALLOCATE = 1 << 1, /* write zeroes: the blocks need not stay allocated */
};

struct nvme_cmd;
typedef void (*nvme_cb)(struct nvme_cmd *cmd, int rc);

/*
 * A command; it is the driver's until its callback. The buffers come from nvme_alloc: each iovec's base is aligned to
 * 4 bytes, its length a multiple of the block size (or the iovecs between the first and the last are whole pages), their sum
 * blocks x block size. Anything larger than the controller takes is split. FLUSH: everything completed
 * before is durable. rc: 0 or a negative errno; of a split command, that of the first part that failed.
 * -EINVAL: out of range, misaligned; -EFAULT: memory the controller cannot reach; -EOPNOTSUPP; -ETIMEDOUT; -ENODEV: the
 * controller is gone.
 */
struct nvme_cmd {
	enum nvme_op op;
	uint32_t nsid;
	uint32_t flags;
	int iovcnt;
	uint64_t lba, blocks;
	const struct iovec *iov;
	nvme_cb cb;
	void *cb_arg;
	uint64_t source; /* COPY */
	uint16_t stream; /* WRITE: 1 … info->streams; 0, or more than there are: none */
	/* RAW: 64 bytes as on the wire but for command id and data pointer. It is sent once: not again after an error or a reset, which
	 * ends it with -ECANCELED. nsid and lba of this struct are not used; the buffers must be such that one list names them. */
	const void *raw;
	uint32_t result; /* out: dword 0 of the completion, of a command in one piece */
	uint16_t
		status; /* out: type << 8 | code, the controller's word [4.6.1]; 0: success, or it never said */

	/* the driver's from here */
	uint16_t pieces; /* with the controller */
	int rc;
	uint64_t issued; /* blocks that were given to the controller */
	uint64_t iov_offset;
	int iov_index;
	uint8_t shift; /* of the blocks it is counted in */
	bool waiting;  /* in the queue pair's list: not all of it is issued */
	struct nvme_cmd *next;
};
/* Takes the command: to the controller if there is room, else it waits in order. Errors are completed by nvme_poll. The
 * doorbell is written by nvme_kick or nvme_poll, once for all that was submitted. */
BLOBFS_API void nvme_submit(struct nvme_qpair *q, struct nvme_cmd *cmd);
BLOBFS_API void nvme_kick(struct nvme_qpair *q);
/*
 * Completes what is done, at most max (0: all) pieces; returns how many commands it called back. It also looks after timeouts and resets, so
 * something must poll a queue pair with commands outstanding, at least every nvme_poll_interval_ms, which changes and is asked before each wait.
 */
BLOBFS_API int nvme_poll(struct nvme_qpair *q, unsigned max);
BLOBFS_API int nvme_poll_interval_ms(struct nvme_qpair *q);
/* Commands submitted and not called back. */
BLOBFS_API unsigned nvme_outstanding(const struct nvme_qpair *q);
/* A completion is there to be polled for, or something else to be seen to. */
BLOBFS_API bool nvme_pending(const struct nvme_qpair *q);
/* The interrupt, an eventfd, or -1; it stays readable until nvme_qpair_arm, which returns true if there is something to
 * poll already. Who sleeps arms first. */
BLOBFS_API int nvme_qpair_fd(const struct nvme_qpair *q);
BLOBFS_API bool nvme_qpair_arm(struct nvme_qpair *q);
/* A descriptor of which poll says nvme_gone_events (and may say POLLHUP) when the controller is gone, or is asked for by
 * somebody who removes it; -1: there is none. Not to be read. */
BLOBFS_API int nvme_gone_fd(const struct nvme_ctrlr *c);
BLOBFS_API short nvme_gone_events(const struct nvme_ctrlr *c);

/* ---- administration, synchronous, any thread ---- */

/* An admin command: 64 bytes as on the wire but for command id and data pointer; data of len bytes goes both ways. *result (may
 * be NULL) gets dword 0 of the completion. rc by the status, as with commands. */
BLOBFS_API int nvme_admin(struct nvme_ctrlr *c, const void *sqe, void *data, uint32_t len,
			  uint32_t *result);
/* The same with all there is to it. -ECANCELED with status 0: a reset ended it, and whether it was done is not known (identify, logs and
 * features are asked for again by themselves). -ETIMEDOUT with status 0: it did not come back, the controller was reset. */
#define NVME_ADMIN_TO_CTRLR 1u
struct nvme_admin_cmd {
	const void *sqe;
	void *data;
	uint32_t len;
	uint32_t timeout_ms; /* 0: 5000 */
	uint32_t flags;      /* NVME_ADMIN_TO_CTRLR: data only goes there */
	uint32_t result;     /* out: dword 0 of the completion */
	uint16_t status;     /* out: as in struct nvme_cmd */
};
BLOBFS_API int nvme_admin_cmd(struct nvme_ctrlr *c, struct nvme_admin_cmd *cmd);
BLOBFS_API int nvme_identify(struct nvme_ctrlr *c, uint8_t cns, uint32_t nsid, void *page);
BLOBFS_API int nvme_get_log(struct nvme_ctrlr *c, uint8_t page, uint32_t nsid, void *buf,
			    uint32_t len);
BLOBFS_API int nvme_get_feature(struct nvme_ctrlr *c, uint8_t fid, uint32_t *value);
BLOBFS_API int nvme_set_feature(struct nvme_ctrlr *c, uint8_t fid, uint32_t value,
				uint32_t *result);
/* The active namespaces with nsid > after, in order, at most max; returns how many. allocated: those that exist, attached or not. */
BLOBFS_API int nvme_list_namespaces(struct nvme_ctrlr *c, uint32_t after, bool allocated,
				    uint32_t *ids, uint32_t max);
/* The namespaces that changed since this was last asked: at most 1024 into ids; returns how many, -EOVERFLOW: more. */
BLOBFS_API int nvme_changed_namespaces(struct nvme_ctrlr *c, uint32_t ids[1024]);
/* -EOPNOTSUPP: it has none that could be switched. A cache that is off loses nothing at a power cut. */
BLOBFS_API int nvme_get_write_cache(struct nvme_ctrlr *c, bool *on);
BLOBFS_API int nvme_set_write_cache(struct nvme_ctrlr *c, bool on);
/* The threshold in kelvin above (or below: under) which sensor (0: composite) gives a warning. */
BLOBFS_API int nvme_get_temperature_threshold(struct nvme_ctrlr *c, unsigned sensor, bool under,
					      unsigned *kelvin);
BLOBFS_API int nvme_set_temperature_threshold(struct nvme_ctrlr *c, unsigned sensor, bool under,
					      unsigned kelvin);
struct nvme_format_opts {
	uint32_t size;         /* sizeof(struct nvme_format_opts) */
	uint32_t nsid;         /* or 0xffffffff: all */
	uint8_t format;        /* index into the namespace's LBA formats */
	uint8_t erase;         /* 0: no, 1: user data, 2: cryptographic */
	uint8_t protection;    /* information type: 0 none, 1 … 3 */
	bool extended;         /* metadata goes at the end of each block, not beside it */
	bool protection_first; /* at the beginning of the metadata, else at its end */
};
/* Formats: what the namespace holds is lost. No I/O may be outstanding. Afterwards the namespace is identified anew: nvme_ns_get.
 * Takes up to ten minutes. */
BLOBFS_API int nvme_format(struct nvme_ctrlr *c, const struct nvme_format_opts *o);
/* Gives the controller an image in parts of what it takes at once; len: a multiple of 4. */
BLOBFS_API int nvme_firmware_download(struct nvme_ctrlr *c, const void *image, uint32_t len);
/* action: 0 replace, 1 replace and activate at the next reset, 2 activate at the next reset, 3 activate now.
 * *needs_reset (may be NULL): it is active only after a reset, of the kind the status says. */
BLOBFS_API int nvme_firmware_commit(struct nvme_ctrlr *c, unsigned slot, unsigned action,
				    bool *needs_reset);
struct nvme_sanitize_status {
	unsigned progress; /* of 65536 */
	unsigned
		state; /* 0 never, 1 completed, 2 in progress, 3 failed, 4 completed, deallocated without asking */
	bool erased; /* nothing has been written since */
};
BLOBFS_API int nvme_sanitize_status(struct nvme_ctrlr *c, struct nvme_sanitize_status *out);
/* Looks after the admin queue: what the controller tells by itself (namespaces that changed, its health) is taken note of. Polls of queue pairs
 * do so now and then; who has none outstanding may call this. Never waits. Any thread. */
BLOBFS_API void nvme_poll_events(struct nvme_ctrlr *c);
/* With opts.interrupts: a descriptor that is readable when the controller has told something, or an admin command has ended, until
 * nvme_poll_events: who sleeps beside an idle controller watches it. -1: there is none, and polling now and then has to do. */
BLOBFS_API int nvme_event_fd(const struct nvme_ctrlr *c);
/* How often it told of what, and the critical warnings of its SMART log when it last told of its health. */
struct nvme_events {
	uint64_t errors, health, notices, others;
	uint8_t critical_warning;
};
BLOBFS_API void nvme_get_events(struct nvme_ctrlr *c, struct nvme_events *out);
/* Resets the controller; what the queue pairs have outstanding is sent again. -ENODEV: it did not come back. */
BLOBFS_API int nvme_reset(struct nvme_ctrlr *c);

/* "Invalid Field in Command (0/02)"; the text is the thread's until the next call. */
BLOBFS_API const char *nvme_status_text(uint16_t status);
BLOBFS_API int nvme_status_errno(uint16_t status);

BLOBFS_C_END
#endif
