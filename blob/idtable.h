/* SPDX-License-Identifier: BSD-2-Clause */
/* Blobs by id: a hash table that grows by one bucket an insertion (linear hashing), so that none takes long. */
#ifndef BLOB_IDTABLE_H
#define BLOB_IDTABLE_H

#include <stdint.h>

struct bs_blob;

struct bs_idtable {
	struct bs_blob ***segment; /* buckets, BS_IDTABLE_SEGMENT of them each */
	uint64_t segments;         /* room for so many */
	uint64_t buckets, mask;    /* mask: for as many as there were when their number was last a power of two */
	uint64_t key;              /* of this table: ids on the medium cannot be chosen to fall into one bucket */
};

#define BS_IDTABLE_SEGMENT 4096u

int bs_idtable_init(struct bs_idtable *t); /* -ENOMEM */
void bs_idtable_destroy(struct bs_idtable *t);
/* blob->id must not be in it; n: how many are. Never fails: without memory the chains become longer. */
void bs_idtable_insert(struct bs_idtable *t, struct bs_blob *blob, uint64_t n);
void bs_idtable_remove(struct bs_idtable *t, struct bs_blob *blob);

/* Neighbours fall into neighbouring buckets: what was made together is looked up together. */
static inline struct bs_blob **bs_idtable_bucket(const struct bs_idtable *t, uint64_t id)
{
	uint64_t h = id + (id / BS_IDTABLE_SEGMENT * t->key >> 40), b = h & (2 * t->mask + 1);

	if (b >= t->buckets)
		b &= t->mask;
	return &t->segment[b / BS_IDTABLE_SEGMENT][b % BS_IDTABLE_SEGMENT];
}

#endif
