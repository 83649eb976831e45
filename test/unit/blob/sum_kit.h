/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of data checksums share: stores with them, and damage. */
#ifndef TEST_UNIT_BLOB_SUM_KIT_H
#define TEST_UNIT_BLOB_SUM_KIT_H

#include "test/unit/blob/kit.h"

void sum_kit_open(struct kit *kit, struct kit_opts opts);
struct bs_extent sum_look(struct bs_blob *blob, uint64_t block);
int sum_read_rc(struct bs_blob *blob, uint64_t block, uint64_t count);
struct bs_stat sum_stat(struct bs *bs);
/* Writes all over the device, so that many pages of sums are concerned; byte of block b: b % 251. */
struct bs_blob *sum_spread(struct kit *kit, uint64_t blocks);
void sum_expect_spread(struct bs_blob *a, uint64_t blocks);
void sum_page_out(struct kit *kit);

#endif
