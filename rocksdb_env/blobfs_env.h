/* SPDX-License-Identifier: BSD-2-Clause */
/* BlobFS as a RocksDB FileSystem, for programs that link it; others name it by URI. */
#ifndef ROCKSDB_ENV_BLOBFS_ENV_H
#define ROCKSDB_ENV_BLOBFS_ENV_H

#include <memory>
#include <string>

#include "base/api.h"
#include "rocksdb/file_system.h"

struct bfs;

namespace blobfs {

/* blobfs://DEVICE[?cache=SIZE&dirty=SIZE&mount=DIR&readonly&discard&noatime]. InvalidArgument with
 * one line that says why. */
BLOBFS_API rocksdb::Status NewBlobFileSystem(const std::string &uri,
					     std::shared_ptr<rocksdb::FileSystem> *result);
/* The same on a file system that the caller has mounted, for writing, with a call of blobfs/blobfs.h, and
 * unmounts when *result and all that was opened through it are gone. */
BLOBFS_API rocksdb::Status NewBlobFileSystem(struct bfs *fs, std::shared_ptr<rocksdb::FileSystem> *result);

} // namespace blobfs

#endif
