#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# A device that fills up: RocksDB is told NoSpace, loses nothing acknowledged, and goes on when space was freed.
# timeout: 200
suite=rocksdb_full
. "$(dirname "$0")/../rocksdb/lib.sh"

for how in unlogged logged; do
	new_image 160M
	good "$how: recovers after space is freed" 'recovered with' "$driver" fill "$uri?cache=32M" /db $how
	grep -q 'after [0-9]* keys: IO error: No space' "$tmp/out" || bad "$how: no space reaches rocksdb" 'it was told something else'
	checked "$how: image is whole"
done
exit $status
