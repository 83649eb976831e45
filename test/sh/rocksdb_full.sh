#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# A device that fills up: RocksDB is told NoSpace, loses nothing acknowledged, and goes on when space was freed.
# timeout: 200
suite=rocksdb_full
. "$(dirname "$0")/../rocksdb/lib.sh"

new_image 128M
good recovers_after_space_is_freed 'recovered with' "$driver" fill "$uri?cache=32M" /db
grep -q 'after [0-9]* keys: IO error: No space' "$tmp/out" || bad no_space_reaches_rocksdb 'it was told something else'
checked image_is_whole
exit $status
