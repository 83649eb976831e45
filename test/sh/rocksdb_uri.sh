#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The URI: both ways in, every option, and what is refused, by name and in one line.
# timeout: 120
suite=rocksdb_uri
. "$(dirname "$0")/../rocksdb/lib.sh"

new_image 256M
cp --sparse=always "$img" "$tmp/other"
put="--create_if_missing put key value"

good fs_uri OK ldb --fs_uri="$uri" --db=/db $put
good env_uri OK ldb --env_uri="$uri" --db=/db $put
good read_back '^value$' ldb --fs_uri="$uri" --db=/db get key
good options OK ldb --fs_uri="$uri?cache=64M&dirty=8M&noatime&discard" --db=/db $put
good colon_in_env_uri OK ldb --env_uri="$uri?cache:64M,dirty:8M" --db=/db $put
good escapes OK ldb --fs_uri="blobfs://$(echo "$img" | sed 's/img$/%69%6dg/')" --db=/db $put
in_image files_are_in_the_image /db MANIFEST
sum=$(md5sum <"$img")
refused readonly_refuses_writes 'Read-only' ldb --fs_uri="$uri?readonly" --db=/db $put
good readonly_reads default ldb --fs_uri="$uri?readonly" --db=/db list_column_families
[ "$sum" = "$(md5sum <"$img")" ] || bad readonly_writes_nothing 'the image changed'

refused unknown_option "unknown option 'cahce'" ldb --fs_uri="$uri?cahce=64M" --db=/db $put
refused unknown_option_by_env "unknown option 'cahce'" ldb --env_uri="$uri?cahce:64M" --db=/db $put
refused unknown_option_db_bench "unknown option 'cahce'" db_bench --fs_uri="$uri?cahce=64M" --benchmarks=fillseq --num=1
refused bad_size "option 'cache' wants a size" ldb --fs_uri="$uri?cache=much" --db=/db $put
refused zero_size "option 'cache' wants a size" ldb --fs_uri="$uri?cache=0" --db=/db $put
refused no_value "option 'mount' needs a value" ldb --fs_uri="$uri?mount" --db=/db $put
refused flag_with_value "option 'readonly' takes no value" ldb --fs_uri="$uri?readonly=1" --db=/db $put
refused twice "option 'cache' is given twice" ldb --fs_uri="$uri?cache=1M&cache=2M" --db=/db $put
refused bad_escape "is not followed by" ldb --fs_uri="blobfs:///tmp/%zz" --db=/db $put
refused no_device 'names no device' ldb --fs_uri="blobfs://?cache=1M" --db=/db $put
refused missing_device "$tmp/missing" ldb --fs_uri="blobfs://$tmp/missing" --db=/db $put
dd if=/dev/urandom of="$tmp/garbage" bs=1M count=64 status=none
refused garbage "$tmp/garbage" ldb --fs_uri="blobfs://$tmp/garbage" --db=/db $put
refused missing_mount_point "$tmp/nowhere" ldb --fs_uri="$uri?mount=$tmp/nowhere" --db=/db $put

# Several file systems in one process; the same one again, asked for in another way.
good two_devices "blobfs://$tmp/other" "$driver" uris "$uri" "blobfs://$tmp/other" "$uri"
refused other_cache "another value of 'cache'" "$driver" uris "$uri?cache=64M" "$uri?cache=32M"
refused other_mode 'is open in this process' "$driver" uris "$uri" "$uri?readonly"

# A second process is kept out while the first has the image.
LD_PRELOAD=$plugin "$driver" acknowledge "$uri" /busy >"$tmp/acks" 2>&1 &
pids=$!
for i in 1 2 3 4 5 6 7 8 9 10; do [ -s "$tmp/acks" ] && break; sleep 0.5; done
refused second_process "$img.*\(busy\|in use\|lock\)" ldb --fs_uri="$uri" --db=/db $put
kill -9 $pids
wait $pids 2>/dev/null
pids=
good after_the_first_is_gone OK ldb --fs_uri="$uri" --db=/db $put
checked image_is_whole
exit $status
