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
#define NVMET_MAX_RULES 32u
#define NVMET_MAX_LATE 256u
#define NVMET_ERRORS 64u
#define NVMET_STREAMS 8u

/* How servers differ within the protocol, and where they stretch it. */
struct nvmet_style {
	const char *json;       /* with the version; NULL: the usual, "": none */
	bool older;             /* speaks a minor version less */
	bool whole_bar;         /* all of BAR 0 may be mapped, and no area is named */
	bool many_areas;        /* the doorbells' is not the first */
	bool no_area;           /* a list of none */
	bool odd_area;          /* not of pages */
	bool far_area;          /* goes beyond the region */
	bool endless_areas;     /* says it names 2^32 - 1 */
	bool other_caps;        /* a capability nobody knows comes first */
	bool caps_in_a_circle;  /* of the region, and of the configuration space */
	bool no_fd;             /* may be mapped, but nothing to map comes */
	uint64_t bar_offset;    /* of the region in what is mapped */
	uint32_t bar_size;      /* 0: 16 KiB */
	unsigned dstrd;         /* as in CAP */
	bool words;             /* registers of eight bytes by halves only */
	bool map_answers;       /* says again what was mapped */
	uint64_t map_most;      /* bytes at once; 0: any */
	unsigned maps;          /* how many; 0: as many as there is room for */
	bool short_answers;     /* to writes: a header alone */
	bool talkative;         /* wishes, and answers to nobody, between the answers */
	bool no_vectors;        /* INTx only */
	bool irqs_refused;      /* has no information about interrupts */
	bool noresize;          /* vectors only all at once */
	bool bind_refused;      /* takes no eventfd */
	bool mute;              /* takes them, and signals none */
	bool msix;              /* signals what is on in the configuration space and the table */
};

struct nvmet_opts {
	uint64_t size;
	const char *file;     /* NULL: memory */
	bool null;            /* data goes nowhere and comes from nowhere */
	bool messages;        /* doorbells are not mapped */
	bool write_through;   /* no volatile cache */
	bool losing;          /* the volatile cache is real: a power cut loses it */
	uint32_t block;       /* 512 … 4096; 0: 512 */
	uint32_t mqes;        /* as in CAP; 0: 1023 */
	uint32_t queues;      /* 0: 64 */
	uint32_t vectors;     /* 0: 65 */
	uint8_t mdts;         /* 0: 5, which is 128 KiB */
	uint32_t namespaces;  /* each of `size`, one after another on the medium; 0: 1 */
	uint16_t crdt;        /* of 100 ms: delay of a retry, number 1 */
	uint16_t copy_blocks; /* of a copy; 0: 64 */
	bool events;          /* tells of what happens, when asked for */
	bool shadow;          /* offers doorbells in memory, and sleeps between rings */
	bool sgl;
	uint8_t protection;   /* information type: 8 bytes of metadata a block */
	uint16_t noiob;
	uint16_t streams;     /* 0: no directives */
	struct nvmet_style style;
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
	atomic_uint late, late_ms; /* I/O completions that come so much later */
	atomic_uint queues;        /* unless 0: how many there are from the next reset on */
	atomic_bool no_queues;     /* while set, making a queue is never answered */
	atomic_bool no_streams;    /* while set, turning streams on is refused */
	atomic_bool silent;        /* while set, no message is read */
	atomic_bool mute;          /* while set, no interrupt is signalled */
	atomic_bool frozen;        /* while set, it does nothing, and then first what its queues hold */
	atomic_bool hold;          /* while set, I/O queues stand still */
	atomic_bool cfs;           /* fatal status, until the next reset */
	atomic_bool all_ones;      /* while set, registers read as all ones */
	atomic_bool never_ready;   /* while set, the controller does not get ready */
	atomic_uint ready_ms;      /* how long the controller takes to get ready */
	atomic_bool hang_up;       /* closes the connection */
	atomic_uint event;         /* tells of this: DW0 of the completion */
	atomic_bool ailing;        /* while set, events tell of its health again whenever its log has been read */
	atomic_uint blocks;        /* the namespaces have so many, unless 0 */
	/* What it says of itself. */
	atomic_bool no_entries, large_pages, no_blocks, no_namespace;
	atomic_bool same_ns; /* the list of namespaces begins anew, wherever it is asked to go on */
	atomic_uint bad_ns; /* cannot be identified, unless 0 */
	atomic_uint lbads, mdts, metadata, sqes; /* unless 0 */
	atomic_bool extended; /* the metadata are in the blocks, else beside them; there they are not kept, and read as ones */
	atomic_bool limits;                      /* it is of version 2.0 and has the following, unless 0 */
	atomic_uint wzsl, vsl, dmrsl;
};

struct nvmet_counts {
	atomic_uint commands, aborts, enables, shutdowns, flushes, fua, deallocates, copies, sgls, events, rings;
	atomic_uint host_errors, clients, refusals;
	atomic_uint stream_blocks[NVMET_STREAMS]; /* written, by stream; those above count as 0 */
	atomic_uint largest; /* blocks of a read or write */
};

/* A line of a script: nvmet_script.c. */
enum nvmet_when {
	NVMET_NOW,
	NVMET_COMMANDS,
	NVMET_READS,
	NVMET_WRITES,
	NVMET_FLUSHES,
	NVMET_FUA,
	NVMET_UNFLUSHED, /* after a command, as long as so many writes are only in the cache */
	NVMET_MS,
};
struct nvmet_rule {
	enum nvmet_when when;
	uint64_t left, due_ns; /* of what it waits for */
	const struct action *action;
	unsigned nargs;
	uint64_t args[2];
};

struct nvmet_late {
	uint64_t due_ns;
	uint16_t sq, cid, status;
};

struct nvmet_request {
	struct vu_header h;
	uint32_t len;
	int fd; /* -1: none came */
	uint8_t data[VU_MAX_PAYLOAD] __attribute__((aligned(8)));
};

struct nvmet_reply {
	uint32_t len;
	int fd; /* to pass, -1: none */
	uint8_t data[VU_MAX_PAYLOAD] __attribute__((aligned(8)));
};

struct nvmet_map {
	uint64_t iova, size;
	char *p;
	bool writable;
};

struct nvmet_cq {
	bool exists, irq;
	uint16_t entries, tail, vector, users;
	uint16_t freed; /* the doorbell as it was last seen */
	uint8_t phase;
	struct nvme_cqe *at;
};

struct nvmet_sq {
	bool exists, awake;
	uint16_t entries, head, cq;
	struct nvme_sqe *at;
};

struct nvmet {
	struct nvmet_opts o;
	struct nvmet_faults f;
	struct nvmet_counts n;
	atomic_bool stop, connected;

	bool streams_on;
	int store; /* the medium, a file; -1: null */
	int bar_fd;
	char *bar;     /* only the doorbells in it are used */
	char *scratch; /* of the largest transfer */

	/* Of a client. */
	int client;
	struct nvmet_map maps[NVMET_MAX_MAPS];
	int irq[NVMET_VECTORS];
	uint8_t config[256];
	struct {
		uint64_t address;
		uint32_t data, control;
	} table[NVMET_VECTORS]; /* of MSI-X */

	/* Registers. */
	uint32_t cc, csts, aqa;
	uint64_t ready_ns; /* when it gets ready; 0: it is not about to */
	uint64_t asq, acq;
	struct nvmet_cq cqs[NVMET_MAX_QUEUES + 1];
	struct nvmet_sq sqs[NVMET_MAX_QUEUES + 1];
	bool queues_asked;
	uint32_t write_cache, temperature;
	bool heeds_delays;       /* the host has said so */
	uint32_t block; /* of the present format */
	atomic_uint formats; /* how often it was formatted */
	uint16_t waiting[4]; /* requests for events */
	unsigned nwaiting;
	atomic_uint changed;
	bool health_told;        /* and its log not read since */
	uint32_t *shadow, *seen; /* doorbells in memory; NULL: none */
	atomic_uint image;       /* bytes of firmware downloaded */
	char firmware[9], image_name[9];
	struct {
		uint16_t sq, cid;
	} stuck[NVMET_MAX_STUCK];
	unsigned nstuck;
	struct nvmet_late late[NVMET_MAX_LATE];
	unsigned nlate;

	/* Health, and what went wrong, newest first. */
	uint64_t reads, writes, read_bytes, written_bytes, media_errors, nerrors;
	struct nvme_error_entry errors[NVMET_ERRORS];

	int script; /* -1: none */
	char script_text[4096];
	size_t script_len;
	struct nvmet_rule rules[NVMET_MAX_RULES];
	unsigned nrules;
	struct nvmet_cache *cache; /* NULL: nothing is ever lost */
	bool cut;                  /* the power goes when the command at hand has been executed */
	uint64_t cut_seed;
};

int nvmet_create(const struct nvmet_opts *o, struct nvmet **out);
void nvmet_destroy(struct nvmet *t);
/* Serves clients of the listening socket, one after another, until t->stop. */
int nvmet_serve(struct nvmet *t, int listener);
int nvmet_listen(const char *path);

/* Reads a script, or opens a pipe that one comes from. -EINVAL: a line is not understood. */
int nvmet_script_open(struct nvmet *t, const char *path);
int nvmet_script_line(struct nvmet *t, const char *line);
/* In the thread that serves: what is not durable is lost, as the seed has it; the client is cut off. */
void nvmet_power_cut(struct nvmet *t, uint64_t seed);

/* ---- among its files ---- */

uint64_t nvmet_now_ns(void);
/* Takes what has come of the script, and does what is due by time. */
void nvmet_script_poll(struct nvmet *t);
/* Before and after an I/O command is executed. */
void nvmet_script_command(struct nvmet *t, const struct nvme_sqe *sqe);
void nvmet_script_executed(struct nvmet *t);
uint64_t nvmet_cache_unflushed(const struct nvmet *t);
int nvmet_cache_create(struct nvmet *t);
void nvmet_cache_destroy(struct nvmet *t);
/* Around each change of the medium. */
void nvmet_cache_before(struct nvmet *t, uint64_t at, uint64_t len);
void nvmet_cache_after(struct nvmet *t, uint64_t at, uint64_t len, bool fua);
/* Everything is durable. */
void nvmet_cache_flush(struct nvmet *t);
void nvmet_log_command(struct nvmet *t, unsigned sq, const struct nvme_sqe *sqe, uint16_t status);
uint16_t nvmet_get_log(struct nvmet *t, const struct nvme_sqe *sqe);

/* nvmet_device.c; each answer is 0 or an errno for the client. */
int nvmet_say_version(struct nvmet *t, struct nvmet_request *q, struct nvmet_reply *r);
int nvmet_say_device(struct nvmet *t, struct nvmet_request *q, struct nvmet_reply *r);
int nvmet_say_region(struct nvmet *t, struct nvmet_request *q, struct nvmet_reply *r);
int nvmet_say_irqs(struct nvmet *t, struct nvmet_request *q, struct nvmet_reply *r);
int nvmet_set_irqs(struct nvmet *t, struct nvmet_request *q, struct nvmet_reply *r);
/* Of the configuration space or the table of MSI-X. */
int nvmet_access(struct nvmet *t, const struct vu_region_access *a, void *data, bool write);
void nvmet_config_reset(struct nvmet *t);
void nvmet_signal(struct nvmet *t, unsigned vector);

#define NVMET_NOWHERE 0x10u /* an address that no client gives us */
#define NVMET_LATER 0xffff /* for a status: the command stays with us */
#define NVMET_UNRUNG 0xffffffffu
/* What is less usual: nvmet_more.c. */
void nvmet_tell(struct nvmet *t);
/* The buffers of a command with an SGL. */
int nvmet_sgl(struct nvmet *t, const struct nvme_sqe *sqe, uint64_t len, bool write, struct iovec iov[NVMET_MAX_IOV]);
void nvmet_check_protection(struct nvmet *t, const struct nvme_sqe *sqe);
/* Whether there may be something in a submission queue, and how far it goes. */
bool nvmet_awake(struct nvmet *t, unsigned id, uint32_t *tail);
/* False: something came while it was about to sleep. */
bool nvmet_sleep(struct nvmet *t, unsigned id);
/* The head of a completion queue, as the host has it. */
uint32_t nvmet_cq_head(struct nvmet *t, unsigned id);
/* nvmet_streams.c */
uint16_t nvmet_directive(struct nvmet *t, const struct nvme_sqe *sqe);
uint16_t nvmet_check_stream(struct nvmet *t, const struct nvme_sqe *sqe, uint64_t blocks);
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
