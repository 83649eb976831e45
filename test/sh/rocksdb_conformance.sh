#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Every FileSystem call answers what RocksDB's own file system on the kernel's answers.
# timeout: 120
suite=rocksdb_conformance
. "$(dirname "$0")/../rocksdb/lib.sh"

new_image 1G
mkdir "$tmp/posix"
# The kernel's side needs direct I/O, which tmpfs may not have.
LD_PRELOAD=$plugin "$driver" conformance "$uri?cache=32M" "$tmp/posix" 2>"$tmp/out" || { show; status=1; }
checked image_is_whole
exit $status
