/* SPDX-License-Identifier: BSD-2-Clause */
/* Level 3: a RocksDB database on BlobFS; its own threads make its runs differ, so that a seed gives a like run, not the same. */
#ifndef TEST_POWERCUT_ROCKSDB_LOAD_H
#define TEST_POWERCUT_ROCKSDB_LOAD_H

#include "test/powercut/powercut.h"

BLOBFS_C_BEGIN
extern const struct workload rocksdb_workload;
BLOBFS_C_END

#endif
