/* SPDX-License-Identifier: BSD-2-Clause */
/* Sharing in a line each, and a check of all counts. */
#ifndef TEST_UNIT_BLOB_SHARE_KIT_H
#define TEST_UNIT_BLOB_SHARE_KIT_H

#include "test/unit/blob/kit.h"

/* A copy of the whole blob; a failure ends the test. */
struct bs_blob *share_clone(struct bs_blob *blob, bool sealed);
int share_range(struct bs_blob *from, uint64_t block, struct bs_blob *to, uint64_t to_block, uint64_t count);
/* Every count is what the maps say, every run with company is flagged, and what is mapped is owned. Nothing may be pending: it is
 * reclaimed here. */
void share_check(struct bs *bs);

#endif
