/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a program can ask of a mounted BlobFS, by ioctl(2) on any open file or directory of it. For the superuser and the user who
 * mounted it; others get EPERM, but anybody may ask for BFS_CONTROL_STAT. All fields are in the machine's own byte order; `size` is the struct's and must be right (EINVAL);
 * what has none is told from another version's by the size in the number (ENOTTY).
 */
#ifndef BLOBFS_CONTROL_H
#define BLOBFS_CONTROL_H

#include <stdint.h>
#include <sys/ioctl.h>

#include "blobfs/blobfs.h"

enum bfs_control_scrub_op {
	BFS_SCRUB_START = 1, /* EBUSY: one is under way */
	BFS_SCRUB_STATUS = 2,
	BFS_SCRUB_STOP = 3,  /* asks for its end; STATUS tells when it has come */
};
enum bfs_control_scrub_state { BFS_SCRUB_NONE, BFS_SCRUB_RUNNING, BFS_SCRUB_DONE };

struct bfs_control_finding {
	uint32_t what; /* enum bs_scrub_what */
	int32_t rc;
	uint64_t blob, offset, block;
	char text[96];
};

#define BFS_CONTROL_FINDINGS 32u
/* Scrubbing runs in the program that serves the mount, and goes on when who began it is gone. What the last one found is kept until the next. */
struct bfs_control_scrub {
	uint32_t size;
	uint32_t op;          /* enum bfs_control_scrub_op */
	uint64_t rate;        /* START: bytes a second; 0: as fast as it goes */
	uint64_t from;        /* STATUS: the first finding wanted, by number */
	/* the answer */
	uint32_t state;       /* enum bfs_control_scrub_state */
	int32_t rc;           /* DONE: 0, or why it ended early */
	uint64_t total_bytes, done_bytes, meta_bytes;
	uint64_t findings;    /* so far */
	uint64_t kept;        /* of these, how many can be asked for */
	uint32_t n, zero;     /* of finding[] */
	struct bfs_control_finding finding[BFS_CONTROL_FINDINGS];
};
#define BFS_CONTROL_SCRUB _IOWR(0xb1, 0x53, struct bfs_control_scrub)

/* ---- copies ---- */

/*
 * bfs_snapshot of a file or tree of the mount, into the directory that the ioctl is on. What the kernel has not sent yet is not in it: first
 * syncfs(2), and close(2) of any descriptor of each file. When it returns, the new name is seen by everybody.
 */
struct bfs_control_snapshot {
	uint64_t ino;   /* what is copied: st_ino of stat(2) */
	uint32_t flags; /* enum bfs_snap_flags */
	int32_t rc;     /* back: 0 or negative errno; the ioctl itself succeeds then */
	char name[256]; /* the copy's, ended by a zero */
};
#define BFS_CONTROL_SNAPSHOT _IOWR(0xb1, 4, struct bfs_control_snapshot)

/* ---- the device, and numbers ---- */

/* Trimming is FITRIM of linux/fs.h, as for every file system: range, minimum length, and back how many bytes were discarded. */

struct bfs_control_grow {
	uint64_t size;  /* bytes; 0: all of the device. Back: what it has now */
	int32_t rc;     /* back: 0 or negative errno; the ioctl itself succeeds then */
	char text[252]; /* back: why not, in one line */
};
#define BFS_CONTROL_GROW _IOWR(0xb1, 1, struct bfs_control_grow)

struct bfs_control_stat {
	struct bs_stat store;
	struct bfs_cache_stat cache;
	char device[256]; /* its name, cut off if it is longer */
	char module[16];
	uint64_t device_size;
};
#define BFS_CONTROL_STAT _IOR(0xb1, 2, struct bfs_control_stat)

/*
 * On a file open for writing: how long what is written to it will live (RWH_WRITE_LIFE_… of fcntl.h), for everybody who has it open
 * now. The kernel keeps F_SET_RW_HINT of fcntl(2) to itself, so programs say it so. -EINVAL: a directory, or no such hint.
 */
#define BFS_CONTROL_SET_RW_HINT _IOW(0xb1, 3, uint64_t)


#endif
