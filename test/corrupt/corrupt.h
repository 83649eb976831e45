/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hostile images: whole file systems whose content is damaged, with and without putting the checksums right again, are
 * checked, mounted, walked and used. Each case is made from a seed and its number alone.
 */
#ifndef TEST_CORRUPT_H
#define TEST_CORRUPT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/util.h"
#include "blob/format.h"
#include "blobfs/blobfs.h"

#define IMAGE_SIZE (48 * MiB)
#define IMAGE_BLOCKS ((uint32_t)(IMAGE_SIZE / BS_BLOCK))

extern bool corrupt_verbose; /* -v: each repair is printed */

struct rnd {
	uint64_t state;
};
uint64_t rnd_next(struct rnd *r);
uint64_t rnd_below(struct rnd *r, uint64_t n); /* n > 0 */

/* ---- image.c: file systems to damage ---- */

struct image {
	const char *name;
	uint8_t *mem;      /* IMAGE_SIZE bytes */
	uint32_t *used;    /* blocks that are not zero or belong to a structure, ascending */
	uint32_t n_used;
};
/* Several, told apart by how they were left; exits with a message when one cannot be made. */
#define IMAGES 4
void images_make(struct image image[IMAGES]);
/* One of some dozen files, as it was closed, or with a log: for quick tests. */
void image_make_small(struct image *image, bool tail);
void images_free(struct image image[IMAGES]);
uint32_t images_digest(const struct image image[IMAGES]);
/* A new ram device of `size` bytes with the image's content as far as it fits; patched blocks come from `mem`. */
struct bdev *image_device(const struct image *image, const uint8_t *mem, uint64_t size);

/* ---- structures.c: what lies where ---- */

enum structure_kind { SUPER, SEGMENT, FRAME, LEAF, INDEX, STRUCTURE_KINDS };
struct structure {
	enum structure_kind kind;
	uint32_t block, blocks;
	uint64_t nonce;        /* SEGMENT, FRAME */
	int parent;            /* LEAF, INDEX: the index page above, or -1 */
	uint32_t parent_entry; /* which of its entries */
};
struct record {
	int structure;
	uint32_t offset, size; /* from the structure's start; header and value, padded */
};
struct map {
	struct structure *s;
	struct record *rec;
	int n, n_rec;
};
/* Of a sound image; exits with a message when something of it is not as FORMAT.md says. */
void map_make(struct image *image, struct map *m);
/* Makes the checksum of structure i right, and those that depend on it. */
void map_seal(const struct map *m, uint8_t *mem, int i);

/* ---- damage.c ---- */

struct scratch { /* a copy of the image that remembers what was changed */
	const struct image *image;
	const struct map *map;
	uint8_t *mem;
	uint64_t size;       /* of the device */
	char what[256];      /* what was done */
};
enum damage_kind {
	BIT_FLIPS, BLOCKS, TRUNCATION, SUPER_FIELDS, SEGMENT_FIELDS, FRAME_FIELDS, PAGE_FIELDS, INDEX_ENTRIES, LOG_RECORDS, PAGE_RECORDS,
	DAMAGE_KINDS
};
extern const char *const damage_names[DAMAGE_KINDS];
/* The nth damage of its kind. */
void damage_do(struct scratch *s, enum damage_kind kind, uint64_t nth, struct rnd *r);
void damage_undo(struct scratch *s);

/* ---- use.c ---- */

struct verdict {
	uint64_t problems;  /* found by checking */
	int check_rc, mount_rc;
	bool mounted;
	char first[320];    /* the first problem */
	char codes[256];    /* those of the first check, as far as they fit, each followed by a blank */
	char fault[512];    /* "" or what must not be */
	uint64_t intact, cuts, failures; /* repair: inodes that had to be as they were, power cuts and failures of the device tried */
	uint64_t caught;    /* files whose data was hit and could not be read */
};
/* Checks, mounts, walks, changes, unmounts, checks again. Takes the device over. */
void use_device(struct bdev *dev, struct rnd *r, struct verdict *v);

/* ---- repair.c ---- */

struct contents { /* of a sound image */
	struct known {
		uint64_t ino, size;
		uint32_t mode, digest;
		bool hit;      /* what stands of it in the metadata */
		bool data_hit;
	} *inode;
	size_t n;
	bool sums;             /* the image has checksums of data, and none of them was hit */
};
void contents_take(struct contents *c, const struct image *image);
/* Repairs the damaged image, with power cuts now and then. exact: every damage shows in a checksum, so what was not hit must be there. */
void repair_device(struct scratch *s, struct contents *c, bool exact, struct rnd *r, struct verdict *v);

/* ---- targeted.c ---- */

/* One after the other, with a line for each; false if one failed. */
bool targets_run(struct scratch *scratch);

#endif
