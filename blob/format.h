/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The store's on-disk structures; FORMAT.md tells what they mean. All integers are little-endian. Addresses
 * are 4 KiB block numbers. Every structure that is read alone has a magic number, the store's uuid and a CRC-32C
 * whose field counts as zero.
 */
#ifndef BLOB_FORMAT_H
#define BLOB_FORMAT_H

#include <assert.h>

#include "base/util.h"
#include "blob/blob.h"

#define BS_MAGIC "BlobFS\r\n"          /* 8 bytes, no terminator */
#define BS_VERSION_MAJOR 1             /* another major: not readable */
#define BS_VERSION_MINOR 1
#define BS_SB_COPY_BLOCK (32u * 1024 * 1024 / BS_BLOCK)

#define BS_MAGIC_SEGMENT 0x47455342u   /* "BSEG" */
#define BS_MAGIC_FRAME 0x4d524642u     /* "BFRM" */
#define BS_MAGIC_PAGE 0x47415042u      /* "BPAG" */
#define BS_MAGIC_SUM 0x4d555342u       /* "BSUM" */

/* Feature bits: a reader that does not know an incompat bit refuses; a ro_compat bit: read-only; a compat bit: ignores it. */
#define BS_INCOMPAT_CARRIED ((uint64_t)1 << 0) /* records of bytes carried in the log may be there */
#define BS_INCOMPAT_SHARE ((uint64_t)1 << 1) /* runs may be shared, blobs sealed */
#define BS_INCOMPAT_SUM ((uint64_t)1 << 2)   /* runs may be checksummed; BS_SUM_ID is the store's own */
#define BS_INCOMPAT_BESIDE ((uint64_t)1 << 3) /* reserved: records of kind 5 may be there. Nothing sets it, and it is refused */
#define BS_INCOMPAT_KNOWN (BS_INCOMPAT_CARRIED | BS_INCOMPAT_SHARE | BS_INCOMPAT_SUM)

/* The superblock: block 0 and BS_SB_COPY_BLOCK; the valid copy with the higher generation counts. */
struct bs_sb_disk {
	char magic[8];
	le32 crc;              /* of the whole 4096 bytes with this field zero */
	le16 version_major, version_minor;
	le64 generation;       /* one more with each superblock written */
	uint8_t uuid[16];
	uint8_t mount_id[16];  /* random at each writable mount; durable before anything else is written */
	char label[64];
	char owner[16];
	le64 compat, ro_compat, incompat;
	le64 created_ns;       /* since 1970 */
	le64 blocks;           /* size of the store */
	le32 cluster_blocks;   /* 1 … 16, power of two */
	le32 segment_blocks;   /* size of a log segment */
	/* the checkpoint */
	le64 ckpt_root;        /* block of the root index page; 0: an empty checkpoint */
	le32 ckpt_root_blocks; /* length of that page */
	le32 ckpt_root_crc;    /* its CRC field */
	le64 ckpt_l0, ckpt_l1; /* LSN before the capture began, highest LSN captured */
	le64 ckpt_blocks;      /* blocks of all its pages */
	le64 ckpt_items;
	le64 next_id;          /* at capture; replay raises it */
	/* where replay begins: the first frame that may hold LSN ckpt_l0 + 1 */
	le64 log_segment;      /* block of its segment */
	le64 log_nonce;        /* of that segment */
	le64 log_seq;          /* sequence of the frame expected at log_offset */
	le32 log_offset;       /* in blocks from the segment's start */
	le32 clean;            /* 1: closed in order; nothing follows in the log */
	uint8_t reserved[3824];
} __attribute__((packed));
static_assert(sizeof(struct bs_sb_disk) == 4096, "superblock is one block");
static_assert(offsetof(struct bs_sb_disk, uuid) == 24, "superblock.uuid");
static_assert(offsetof(struct bs_sb_disk, created_ns) == 160, "superblock.created_ns");
static_assert(offsetof(struct bs_sb_disk, ckpt_root) == 184, "superblock.ckpt_root");
static_assert(offsetof(struct bs_sb_disk, log_segment) == 240, "superblock.log_segment");

/* First block of a log segment; durable before the segment's first frame is written. */
struct bs_segment_disk {
	le32 magic;
	le32 crc;          /* of 4096 bytes, seeded: see FORMAT.md */
	uint8_t uuid[16];
	le64 address;      /* its own block */
	le64 nonce;        /* random; what the predecessor (or superblock) announced */
	le64 first_seq;    /* sequence of its first frame */
	le64 next_address; /* the successor, already reserved */
	le64 next_nonce;
	/* What the store is, as the superblock has it, so that it can be made anew. segment_blocks 0: not given (1.0). */
	le64 created_ns, blocks;
	le32 cluster_blocks, segment_blocks;
	le64 compat, ro_compat, incompat;
	char owner[16];
	char label[64];
	le16 version_major, version_minor;
	uint8_t reserved[3900];
} __attribute__((packed));
static_assert(offsetof(struct bs_segment_disk, created_ns) == 64, "segment.created_ns");
static_assert(offsetof(struct bs_segment_disk, owner) == 112, "segment.owner");
static_assert(sizeof(struct bs_segment_disk) == 4096, "segment header is one block");

/* A frame: one write of the log. Whole blocks; never crosses its segment's end. */
enum bs_frame_flags { BS_FRAME_CONTINUES = 1 /* its first record goes on with the transaction the frame before left open */ };
#define BS_FRAME_MAX (256u * 1024)
struct bs_frame_disk {
	le32 magic;
	le32 crc;       /* of `blocks` blocks, seeded with the segment's nonce, seq and its address */
	uint8_t uuid[16];
	le64 seq;       /* one more than the frame before */
	le64 first_lsn; /* of its first record */
	le32 blocks;
	le32 bytes;     /* of records that follow this header */
	le32 records;
	le32 flags;
	le64 wall_ns;   /* when it was sealed */
} __attribute__((packed));
static_assert(sizeof(struct bs_frame_disk) == 64, "frame header");

/* A record: puts or deletes one item, or deletes a blob. Its LSN is its place in the stream of records. Padded to 8. */
enum bs_rec_op { BS_REC_PUT = 1, BS_REC_DEL = 2, BS_REC_DEL_BLOB = 3 };
enum bs_rec_flags { BS_REC_END = 1 /* last record of its transaction */ };
struct bs_rec_disk {
	le32 len;      /* of the value, bytes */
	uint8_t op;
	uint8_t kind;
	uint8_t flags;
	uint8_t zero;
	le64 blob;
	le64 key;      /* HEADER: 0. RUN, SHARE: first logical block; a DEL of RUN, a PUT of SHARE have the value {le64 count} */
	/* value, then zeroes to a multiple of 8 */
} __attribute__((packed));
static_assert(sizeof(struct bs_rec_disk) == 24, "record header");
/* Largest record: a value of BS_VALUE_MAX. */
#define BS_REC_MAX (sizeof(struct bs_rec_disk) + BS_VALUE_MAX)

enum bs_header_flags { BS_HEADER_SEALED = 1 /* data and size never change */ };
/* Value of HEADER: this, then user bytes. */
struct bs_header_disk {
	le64 size;
	le32 flags; /* enum bs_header_flags */
	le32 user_len;
} __attribute__((packed));
static_assert(sizeof(struct bs_header_disk) == 16, "blob header");

/* Value of RUN: one or more of these, ascending, not overlapping; the first's logical block is the key. PUT maps exactly these
 * blocks whatever they mapped to before. 40 bits logical, 40 bits physical, 40 bits length, 8 bits flags. */
struct bs_run_disk {
	uint8_t logical[5], phys[5], count[5];
	uint8_t flags; /* enum bs_run_flags below 0x100 */
} __attribute__((packed));
static_assert(sizeof(struct bs_run_disk) == 16, "run");
#define BS_RUN_BITS 40

/* Value of LOGDATA, whose key is the block: this, then bytes [from, …) of the block, one at least, none beyond its end. DEL as of RUN. */
struct bs_carried_disk {
	le32 from;
	le32 zero;
} __attribute__((packed));
static_assert(sizeof(struct bs_carried_disk) == 8, "bytes carried in the log");
/* Sums of blocks in a row: value of SUM, whose key is the first of these blocks on the device; a DEL has the value {le64 count}. */
#define BS_SUM_ID (UINT64_MAX >> 1) /* the store's own blob: all SUM records are its, and its runs map sum pages */
#define BS_SUM_PAGE 1008u           /* blocks in a row whose sums are in one page */
struct bs_sum_page_disk {
	le32 magic;
	le32 crc;      /* of the block, seeded with uuid and the page's number */
	uint8_t uuid[16];
	le64 first;    /* block of the device that the first sum is of */
	le64 lsn;      /* of the store when it was written */
	uint8_t reserved[24];
	le32 sum[BS_SUM_PAGE];
} __attribute__((packed));
static_assert(sizeof(struct bs_sum_page_disk) == 4096, "a page of sums is one block");
static_assert(offsetof(struct bs_sum_page_disk, sum) == 64, "sum_page.sum");

/* Value of BESIDE, which is reserved, and whose key is the first logical block: this, then a sum for each block (le32). */
struct bs_beside_disk {
	le64 block;    /* of the device: where the first one's data are */
	le32 count;    /* 1 … 16380 */
	le32 zero;
} __attribute__((packed));
static_assert(sizeof(struct bs_beside_disk) == 16, "sums of data beside a transaction");
static_assert(offsetof(struct bs_beside_disk, count) == 8, "beside.count");

/* A checkpoint page: header, then records (leaf: PUTs in order of blob, kind, key; LSN and END unused) or index entries. */
enum bs_page_kind { BS_PAGE_LEAF = 1, BS_PAGE_INDEX = 2, BS_PAGE_SUPER = 3 /* holds the superblock that names the checkpoint */ };
#define BS_PAGE_MAX (64u * 1024)
struct bs_page_disk {
	le32 magic;
	le32 crc;        /* of `blocks` blocks, seeded with uuid and address */
	uint8_t uuid[16];
	le64 address;
	le64 lsn;        /* highest LSN applied when it was captured */
	le16 kind, level; /* leaf: level 0 */
	le32 blocks;
	le32 bytes;      /* of content after this header */
	le32 count;      /* of records or entries */
	le64 first_blob, first_key;
	le32 first_kind;
	le32 ckpt;       /* which checkpoint's: the low 32 bits of its L0 */
} __attribute__((packed));
static_assert(sizeof(struct bs_page_disk) == 80, "page header");

/* A value over 60 KiB does not fit a leaf page with its header: such a page is longer than BS_PAGE_MAX by one block. */
struct bs_index_disk {
	le64 blob, key;
	le32 kind;
	le32 blocks;
	le64 address;
	le32 crc;        /* the page's CRC field */
	le32 reserved;
} __attribute__((packed));
static_assert(sizeof(struct bs_index_disk) == 40, "index entry");

#endif
