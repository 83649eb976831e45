#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# mount=DIR: the live file system of a RocksDB process, seen through the kernel.
# timeout: 200
suite=rocksdb_mount
. "$(dirname "$0")/../rocksdb/lib.sh"

if [ ! -w /dev/fuse ] || ! command -v fusermount3 >/dev/null; then
	echo "skip $suite: /dev/fuse cannot be opened here"
	exit 0
fi
new_image 1G
mkdir "$mnt"
LD_PRELOAD=$plugin "$driver" live "$uri?mount=$mnt" "$mnt" 2>"$tmp/out" || { show; status=1; }
if grep -q " $mnt " /proc/mounts; then bad unmounted_at_exit 'still mounted'; else echo "ok $suite/unmounted at exit"; fi

# db_bench while its files are listed, read and written through the kernel.
LD_PRELOAD=$plugin BLOBFS_LOG=rocksdb=info db_bench --fs_uri="$uri?mount=$mnt" --db=/bench --num=200000 --value_size=400 \
	--benchmarks=fillseq,readwhilewriting --threads=2 --reads=100000 >"$tmp/bench" 2>&1 &
pids=$!
for i in 1 2 3 4 5 6 7 8 9 10; do [ -e "$mnt/bench/CURRENT" ] && break; sleep 0.3; done
listed=0
while kill -0 $pids 2>/dev/null; do
	ls -l "$mnt/bench" >"$tmp/list" 2>/dev/null && grep -q MANIFEST "$tmp/list" && listed=$((listed + 1))
	cat "$mnt"/bench/CURRENT >"$tmp/current" 2>/dev/null
	echo "$listed" >"$mnt/note" 2>/dev/null
	sleep 0.2
done
wait $pids
code=$?
pids=
cp "$tmp/bench" "$tmp/out"
if [ $code = 0 ] && [ $listed -gt 0 ]; then
	plugin_ran db_bench && echo "ok $suite/listed $listed times beside db_bench"
else
	bad db_bench "exit code $code, listed $listed times"
fi
if grep -q " $mnt " /proc/mounts; then bad unmounted_after_db_bench 'still mounted'; else echo "ok $suite/unmounted after db_bench"; fi
in_image note_is_in_the_image / note
good verified_afterwards '' db_bench --fs_uri="$uri" --db=/bench --use_existing_db=1 --num=200000 --benchmarks=verifychecksum
refused mount_point_is_a_file "$tmp/out: not a directory" ldb --fs_uri="$uri?mount=$tmp/out" --db=/bench list_column_families
checked image_is_whole
exit $status
