/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the NVM Express Base Specification (1.4) lays down: registers, commands, identify pages. Everything on the
 * wire is little-endian, and so are the machines this driver runs on. Numbers in [] name sections.
 */
#ifndef NVME_SPEC_H
#define NVME_SPEC_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "base/api.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	       "structures are used as they are on the wire");

#define NVME_PAGE 4096u /* the memory page size this driver chooses: CC.MPS 0 */

/* ---- registers [3.1] ---- */

enum {
	NVME_REG_CAP = 0x00,
	NVME_REG_VS = 0x08,
	NVME_REG_CC = 0x14,
	NVME_REG_CSTS = 0x1c,
	NVME_REG_AQA = 0x24,
	NVME_REG_ASQ = 0x28,
	NVME_REG_ACQ = 0x30,
	NVME_REG_DOORBELLS = 0x1000,
};

#define NVME_CAP_MQES(cap) ((uint32_t)((cap)&0xffff)) /* entries, less one */
#define NVME_CAP_CQR(cap) ((uint32_t)((cap) >> 16 & 1))
#define NVME_CAP_TO(cap) ((uint32_t)((cap) >> 24 & 0xff)) /* of 500 ms */
#define NVME_CAP_DSTRD(cap) ((uint32_t)((cap) >> 32 & 0xf))
#define NVME_CAP_CSS(cap) ((uint32_t)((cap) >> 37 & 0xff))
#define NVME_CAP_MPSMIN(cap) ((uint32_t)((cap) >> 48 & 0xf))
#define NVME_CAP_MPSMAX(cap) ((uint32_t)((cap) >> 52 & 0xf))
#define NVME_CSS_NVM 0x01u

#define NVME_CC_EN 0x1u
#define NVME_CC_SHN_MASK (3u << 14)
#define NVME_CC_SHN_NORMAL (1u << 14)
#define NVME_CC_IOSQES(log) ((uint32_t)(log) << 16)
#define NVME_CC_IOCQES(log) ((uint32_t)(log) << 20)

#define NVME_CSTS_RDY 0x1u
#define NVME_CSTS_CFS 0x2u
#define NVME_CSTS_SHST(csts) ((csts) >> 2 & 3)
#define NVME_SHST_COMPLETE 2u

/* ---- queue entries [4.2, 4.6] ---- */

struct nvme_sqe {
	uint8_t opcode;
	uint8_t flags; /* FUSE, PSDT */
	uint16_t cid;
	uint32_t nsid;
	uint32_t cdw2, cdw3;
	uint64_t mptr;
	uint64_t prp1, prp2;
	uint32_t cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};
_Static_assert(sizeof(struct nvme_sqe) == 64, "submission queue entry");
_Static_assert(offsetof(struct nvme_sqe, mptr) == 16, "MPTR");
_Static_assert(offsetof(struct nvme_sqe, prp1) == 24, "PRP1");
_Static_assert(offsetof(struct nvme_sqe, cdw10) == 40, "CDW10");

struct nvme_cqe {
	uint32_t dw0, dw1;
	uint16_t sq_head, sq_id;
	uint16_t cid;
	uint16_t status; /* phase in bit 0 */
};
_Static_assert(sizeof(struct nvme_cqe) == 16, "completion queue entry");
_Static_assert(offsetof(struct nvme_cqe, cid) == 12, "CID");

/* The status half word of a completion. */
#define NVME_CQE_PHASE 0x1u
#define NVME_CQE_CODE(status) ((uint16_t)((status) >> 1 & 0x7ff)) /* SCT << 8 | SC */
#define NVME_CQE_CRD(status) \
	((unsigned)((status) >> 12 & 3)) /* which of the controller's delays; 0: none */
#define NVME_CQE_DNR 0x8000u

enum nvme_admin_opcode {
	NVME_ADMIN_DELETE_SQ = 0x00,
	NVME_ADMIN_CREATE_SQ = 0x01,
	NVME_ADMIN_GET_LOG = 0x02,
	NVME_ADMIN_DELETE_CQ = 0x04,
	NVME_ADMIN_CREATE_CQ = 0x05,
	NVME_ADMIN_IDENTIFY = 0x06,
	NVME_ADMIN_ABORT = 0x08,
	NVME_ADMIN_SET_FEATURES = 0x09,
	NVME_ADMIN_GET_FEATURES = 0x0a,
	NVME_ADMIN_ASYNC_EVENT = 0x0c,
	NVME_ADMIN_FIRMWARE_COMMIT = 0x10,
	NVME_ADMIN_FIRMWARE_DOWNLOAD = 0x11,
	NVME_ADMIN_DIRECTIVE_SEND = 0x19,
	NVME_ADMIN_DIRECTIVE_RECEIVE = 0x1a,
	NVME_ADMIN_DOORBELL_BUFFERS = 0x7c,
	NVME_ADMIN_FORMAT = 0x80,
};

enum nvme_nvm_opcode {
	NVME_NVM_FLUSH = 0x00,
	NVME_NVM_WRITE = 0x01,
	NVME_NVM_READ = 0x02,
	NVME_NVM_COMPARE = 0x05,
	NVME_NVM_WRITE_ZEROES = 0x08,
	NVME_NVM_DSM = 0x09,
	NVME_NVM_VERIFY = 0x0c,
	NVME_NVM_COPY = 0x19,
	NVME_NVM_RESERVED = 0x78, /* no command, and without data */
};

#define NVME_RW_FUA (1u << 30)  /* CDW12 */
#define NVME_RW_PRACT (1u << 29)
#define NVME_RW_PRCHK (7u << 26)
#define NVME_RW_PRCHK_GUARD (1u << 28)
#define NVME_RW_PRCHK_REF (1u << 26)
#define NVME_SQE_SGL 0x40u /* flags: data by SGL */
#define NVME_WZ_DEAC (1u << 25) /* CDW12 */
#define NVME_DSM_AD (1u << 2)   /* CDW11 */
#define NVME_QUEUE_PC 0x1u      /* CDW11 of Create I/O Queue: physically contiguous */
#define NVME_CQ_IEN 0x2u

struct nvme_dsm_range {
	uint32_t attributes, blocks;
	uint64_t lba;
};
_Static_assert(sizeof(struct nvme_dsm_range) == 16, "dataset management range");

struct nvme_sgl {
	uint64_t address;
	uint32_t length;
	uint8_t rsvd12[3], type;
};
_Static_assert(sizeof(struct nvme_sgl) == 16, "SGL descriptor");
#define NVME_SGL_DATA 0x00u
#define NVME_SGL_LAST_SEGMENT 0x30u

/* A source of Copy, descriptor format 0. */
struct nvme_copy_range {
	uint64_t rsvd0, lba;
	uint16_t blocks, rsvd18; /* less one */
	uint32_t rsvd20, eilbrt, elbat;
};
_Static_assert(sizeof(struct nvme_copy_range) == 32, "copy range");

/* What the NVM command set says of a controller (NVM Command Set 1.0, 4.1.5.3): 2 to the power of so many pages; 0: no limit. */
struct nvme_id_nvm {
	uint8_t vsl, wzsl, wusl, dmrl; /* Verify, Write Zeroes, Write Uncorrectable; ranges of a deallocation */
	uint32_t dmrsl;                /* blocks of one of them */
	uint64_t dmsl;                 /* and of all */
	uint8_t rsvd16[4080];
};
_Static_assert(sizeof(struct nvme_id_nvm) == 4096, "identify controller of the NVM command set");

enum nvme_cns {
	NVME_CNS_NS = 0x00,
	NVME_CNS_CTRLR = 0x01,
	NVME_CNS_ACTIVE_NS = 0x02,
	NVME_CNS_NVM_CTRLR = 0x06, /* of the NVM command set, which is set 0 in CDW11 */
	NVME_CNS_ALLOCATED_NS = 0x10
};
#define NVME_IDS_OF_A_PAGE 1024u
enum nvme_feature {
	NVME_FEAT_TEMPERATURE = 0x04,
	NVME_FEAT_WRITE_CACHE = 0x06,
	NVME_FEAT_QUEUES = 0x07,
	NVME_FEAT_EVENTS = 0x0b,
	NVME_FEAT_HOST_BEHAVIOR = 0x16,
};
#define NVME_NSID_ALL 0xffffffffu

/* ---- identify pages [5.15.2] ---- */

struct nvme_id_ctrlr {
	uint16_t vid, ssvid;
	char sn[20], mn[40], fr[8];
	uint8_t rab, ieee[3], cmic, mdts;
	uint16_t cntlid;
	uint32_t ver, rtd3r, rtd3e, oaes, ctratt;
	uint8_t rsvd100[28];
	uint16_t crdt[3]; /* of 100 ms */
	uint8_t rsvd134[122];
	uint16_t oacs;
	uint8_t acl, aerl, frmw, lpa, elpe, npss, avscc, apsta;
	uint16_t wctemp, cctemp, mtfa;
	uint32_t hmpre, hmmin;
	uint64_t tnvmcap[2], unvmcap[2]; /* bytes, low half first */
	uint32_t rpmbs;
	uint16_t edstt;
	uint8_t dsto, fwug;
	uint16_t kas, hctma, mntmt, mxtmt;
	uint32_t sanicap;
	uint8_t rsvd332[180];
	uint8_t sqes, cqes;
	uint16_t maxcmd;
	uint32_t nn;
	uint16_t oncs, fuses;
	uint8_t fna, vwc;
	uint16_t awun, awupf;
	uint8_t nvscc, nwpc;
	uint16_t acwu, rsvd534;
	uint32_t sgls, mnan;
	uint8_t rsvd544[224];
	char subnqn[256];
	uint8_t rsvd1024[3072];
};
_Static_assert(sizeof(struct nvme_id_ctrlr) == 4096, "identify controller");
_Static_assert(offsetof(struct nvme_id_ctrlr, mdts) == 77, "MDTS");
_Static_assert(offsetof(struct nvme_id_ctrlr, ver) == 80, "VER");
_Static_assert(offsetof(struct nvme_id_ctrlr, crdt) == 128, "CRDT");
_Static_assert(offsetof(struct nvme_id_ctrlr, oacs) == 256, "OACS");
_Static_assert(offsetof(struct nvme_id_ctrlr, tnvmcap) == 280, "TNVMCAP");
_Static_assert(offsetof(struct nvme_id_ctrlr, sanicap) == 328, "SANICAP");
_Static_assert(offsetof(struct nvme_id_ctrlr, sqes) == 512, "SQES");
_Static_assert(offsetof(struct nvme_id_ctrlr, oncs) == 520, "ONCS");
_Static_assert(offsetof(struct nvme_id_ctrlr, vwc) == 525, "VWC");
_Static_assert(offsetof(struct nvme_id_ctrlr, sgls) == 536, "SGLS");
_Static_assert(offsetof(struct nvme_id_ctrlr, subnqn) == 768, "SUBNQN");

#define NVME_ONCS_COMPARE 0x01u
#define NVME_ONCS_DSM 0x04u
#define NVME_ONCS_WRITE_ZEROES 0x08u
#define NVME_ONCS_VERIFY 0x80u
#define NVME_ONCS_COPY 0x100u
#define NVME_OACS_FORMAT 0x02u
#define NVME_OACS_FIRMWARE 0x04u
#define NVME_OACS_DIRECTIVES 0x20u
#define NVME_OACS_DOORBELL_BUFFERS 0x100u

/* Directives: types, and their operations. */
#define NVME_DIRECTIVE_IDENTIFY 0u
#define NVME_DIRECTIVE_ENABLE 1u
#define NVME_DIRECTIVE_STREAMS 1u
#define NVME_STREAMS_PARAMS 1u
#define NVME_RW_STREAMS (NVME_DIRECTIVE_STREAMS << 20) /* CDW12 of a write; the stream is the upper half of CDW13 */
struct nvme_stream_params {
	uint16_t msl, nssa, nsso; /* most of the subsystem; of these available, open */
	uint8_t nssc, rsvd7[9];
	uint32_t sws;             /* write size, blocks; granularity of these */
	uint16_t sgs;
	uint16_t nsa, nso;
	uint8_t rsvd26[6];
};
_Static_assert(sizeof(struct nvme_stream_params) == 32 && offsetof(struct nvme_stream_params, sws) == 16, "stream parameters");
#define NVME_OAES_NAMESPACES 0x100u /* and the same bits in the feature that asks for events */
#define NVME_OAES_FIRMWARE 0x200u
#define NVME_EVENTS_HEALTH 0x1fu
#define NVME_SGLS_SUPPORTED(sgls) ((sgls)&3)

struct nvme_lbaf {
	uint16_t ms;
	uint8_t lbads, rp;
};

struct nvme_id_ns {
	uint64_t nsze, ncap, nuse;
	uint8_t nsfeat, nlbaf, flbas, mc, dpc, dps, nmic, rescap, fpi, dlfeat;
	uint16_t nawun, nawupf, nacwu, nabsn, nabo, nabspf, noiob;
	uint64_t nvmcap[2];
	uint16_t npwg, npwa, npdg, npda, nows;
	uint16_t mssrl;
	uint32_t mcl;
	uint8_t msrc, rsvd81[23];
	uint8_t nguid[16], eui64[8];
	struct nvme_lbaf lbaf[16];
	uint8_t rsvd192[3904];
};
_Static_assert(sizeof(struct nvme_id_ns) == 4096, "identify namespace");
_Static_assert(offsetof(struct nvme_id_ns, dlfeat) == 33, "DLFEAT");
_Static_assert(offsetof(struct nvme_id_ns, noiob) == 46, "NOIOB");
_Static_assert(offsetof(struct nvme_id_ns, nvmcap) == 48, "NVMCAP");
_Static_assert(offsetof(struct nvme_id_ns, nguid) == 104, "NGUID");
_Static_assert(offsetof(struct nvme_id_ns, mssrl) == 74, "MSSRL");
_Static_assert(offsetof(struct nvme_id_ns, mcl) == 76, "MCL");
_Static_assert(offsetof(struct nvme_id_ns, lbaf) == 128, "LBAF");

#define NVME_NSFEAT_NSABP 0x02u
#define NVME_DLFEAT_READ(dlfeat) ((dlfeat)&7)
#define NVME_DLFEAT_ZEROES 1u
#define NVME_DLFEAT_WZ_DEAC 0x08u
#define NVME_FLBAS_EXTENDED 0x10u
#define NVME_DPS_TYPE(dps) ((dps)&7)

/* ---- log pages [5.14.1] ---- */

enum nvme_log_page {
	NVME_LOG_ERROR = 0x01,
	NVME_LOG_SMART = 0x02,
	NVME_LOG_FIRMWARE = 0x03,
	NVME_LOG_CHANGED_NS = 0x04,
	NVME_LOG_SANITIZE = 0x81,
};

struct nvme_error_entry {
	uint64_t count; /* of errors since the controller was made; 0: the entry is unused */
	uint16_t sqid, cid;
	uint16_t status;   /* as in a completion: phase in bit 0 */
	uint16_t location; /* of the parameter at fault: byte, bit */
	uint64_t lba;
	uint32_t nsid;
	uint8_t vendor, trtype, rsvd30[2];
	uint64_t specific;
	uint16_t trtype_specific;
	uint8_t rsvd42[22];
};
_Static_assert(sizeof(struct nvme_error_entry) == 64, "error log entry");
_Static_assert(offsetof(struct nvme_error_entry, lba) == 16, "error log: LBA");
_Static_assert(offsetof(struct nvme_error_entry, specific) == 32, "error log: command specific");

/* Numbers of 16 bytes lie at odd places, so they are bytes here. */
struct nvme_smart {
	uint8_t critical_warning;
	uint8_t temperature[2]; /* Kelvin */
	uint8_t available_spare, spare_threshold, percentage_used, endurance_warning;
	uint8_t rsvd7[25];
	uint8_t units_read[16], units_written[16]; /* of 1000 x 512 bytes */
	uint8_t reads[16], writes[16];
	uint8_t busy_minutes[16];
	uint8_t power_cycles[16], power_on_hours[16], unsafe_shutdowns[16];
	uint8_t media_errors[16], error_entries[16];
	uint32_t warning_minutes, critical_minutes; /* of the composite temperature */
	uint16_t sensors[8];                        /* Kelvin, 0: none */
	uint32_t thermal_transitions[2], thermal_seconds[2];
	uint8_t rsvd232[280];
};
_Static_assert(sizeof(struct nvme_smart) == 512, "SMART log");
_Static_assert(offsetof(struct nvme_smart, units_read) == 32, "SMART: data units read");
_Static_assert(offsetof(struct nvme_smart, warning_minutes) == 192, "SMART: warning time");
_Static_assert(offsetof(struct nvme_smart, sensors) == 200, "SMART: temperature sensors");

/* ---- status codes [4.6.1], SCT << 8 | SC ---- */

enum nvme_status_code {
	NVME_SC_SUCCESS = 0x000,
	NVME_SC_INVALID_OPCODE = 0x001,
	NVME_SC_INVALID_FIELD = 0x002,
	NVME_SC_CID_CONFLICT = 0x003,
	NVME_SC_DATA_TRANSFER = 0x004,
	NVME_SC_POWER_LOSS = 0x005,
	NVME_SC_INTERNAL = 0x006,
	NVME_SC_ABORT_REQUESTED = 0x007,
	NVME_SC_ABORT_SQ_DELETED = 0x008,
	NVME_SC_INVALID_NS = 0x00b,
	NVME_SC_PRP_OFFSET = 0x013,
	NVME_SC_SANITIZE_FAILED = 0x01c,
	NVME_SC_SANITIZE_IN_PROGRESS = 0x01d,
	NVME_SC_NS_WRITE_PROTECTED = 0x020,
	NVME_SC_INTERRUPTED = 0x021,
	NVME_SC_TRANSIENT = 0x022,
	NVME_SC_LBA_RANGE = 0x080,
	NVME_SC_CAPACITY = 0x081,
	NVME_SC_NS_NOT_READY = 0x082,
	NVME_SC_RESERVATION = 0x083,
	NVME_SC_FORMAT_IN_PROGRESS = 0x084,
	NVME_SC_CQ_INVALID = 0x100,
	NVME_SC_QID_INVALID = 0x101,
	NVME_SC_QUEUE_SIZE = 0x102,
	NVME_SC_ABORT_LIMIT = 0x103,
	NVME_SC_VECTOR_INVALID = 0x108,
	NVME_SC_LOG_PAGE_INVALID = 0x109,
	NVME_SC_FIRMWARE_SLOT = 0x106,
	NVME_SC_FIRMWARE_IMAGE = 0x107,
	NVME_SC_FORMAT_INVALID = 0x10a,
	NVME_SC_FIRMWARE_CONVENTIONAL_RESET = 0x10b,
	NVME_SC_QUEUE_DELETION = 0x10c,
	NVME_SC_FIRMWARE_SUBSYSTEM_RESET = 0x110,
	NVME_SC_FIRMWARE_CONTROLLER_RESET = 0x111,
	NVME_SC_FIRMWARE_OVERLAP = 0x114,
	NVME_SC_ATTRIBUTES = 0x180,
	NVME_SC_PROTECTION = 0x181,
	NVME_SC_READ_ONLY = 0x182,
	NVME_SC_WRITE_FAULT = 0x280,
	NVME_SC_READ_ERROR = 0x281,
	NVME_SC_GUARD = 0x282,
	NVME_SC_APPLICATION_TAG = 0x283,
	NVME_SC_REFERENCE_TAG = 0x284,
	NVME_SC_COMPARE = 0x285,
	NVME_SC_ACCESS_DENIED = 0x286,
	NVME_SC_UNWRITTEN = 0x287,
};

#endif
