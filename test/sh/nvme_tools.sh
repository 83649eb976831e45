#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Every tool, the mount and RocksDB's own tools take the name of a controller, and of its namespaces.
# timeout: 240
suite=nvme_tools
. "$(dirname "$0")/../tools/lib.sh"
. "$root/test/tools/nvmet.sh"
plugin=$BUILD/lib/librocksdb_blobfs.so

serve --size 1G --block 4096
is mkfs 0 'Made BlobFS on nvme:' mkfs.blobfs -L paper "$dev"
is info 0 'paper' blobfs info "$dev"
is namespace 0 'paper' blobfs info "$dev/1"
refused no_namespace 1 'no such namespace' blobfs info "$dev/2"
mkdir -p tree/a/b
cp /usr/include/stdio.h tree/a/b
ln -s b tree/a/link
is put 0 '' blobfs put "$dev" -r tree /tree
is ls 0 'stdio.h' blobfs ls "$dev" -R /tree
is stat 0 'stdio.h' blobfs stat "$dev" /tree/a/b/stdio.h
blobfs cat "$dev" /tree/a/b/stdio.h | cmp - /usr/include/stdio.h && ok cat || bad cat 'it differs'
is mkdir 0 '' blobfs mkdir "$dev" -p /x/y
is mv 0 '' blobfs mv "$dev" /tree/a /x/y/z
is get 0 '' blobfs get "$dev" -r /x/y/z back
diff -r --no-dereference tree/a back >.out && ok the_tree_is_the_same || bad the_tree_is_the_same 'it differs'
is rm 0 '' blobfs rm "$dev" -r /x
is df 0 '' blobfs df "$dev"
is fsck 0 clean fsck.blobfs -n -f "$dev"
is identify 0 'BlobFS test controller' blobfs-nvme identify "$dev"

mkdir m
is mount 0 '' mount.blobfs "$dev/1" m
mounted=$tmp/m
is fsck_of_a_mounted_one 8 'in use' fsck.blobfs -n "$dev"
is mkfs_of_a_mounted_one 8 'in use' mkfs.blobfs -f "$dev"
is identify_of_a_mounted_one 1 'in use' blobfs-nvme identify "$dev"
grep -q "^$dev/1 $tmp/m fuse.blobfs" /proc/mounts && ok source_in_mounts || bad source_in_mounts 'not there'
echo hello >m/hello && sync m/hello
fusermount3 -u m
wait_unmounted
mounted=

if command -v db_bench >/dev/null; then
	uri=blobfs://$dev
	export LD_PRELOAD="$plugin" BLOBFS_LOG=rocksdb=info
	is db_bench 0 '50000 of 50000 found' db_bench --fs_uri="$uri" --db=/db --num=50000 --value_size=400 --compression_type=none \
		--write_buffer_size=4194304 --benchmarks=fillseq,overwrite,readrandom,verifychecksum
	grep -q "$dev opened" .both && ok the_plugin_ran || bad the_plugin_ran 'the store was not opened'
	is ldb_put 0 OK ldb --fs_uri="$uri" --db=/small --create_if_missing put key value
	is ldb_get 0 '^value$' ldb --fs_uri="$uri" --db=/small get key
	is ldb_env_uri 0 '^value$' ldb --env_uri="$uri" --db=/small get key
	is ldb_in_the_namespace 0 '^value$' ldb --fs_uri="$uri/1" --db=/small get key
	is ldb_checkconsistency 0 OK ldb --fs_uri="$uri" --db=/db checkconsistency
	is sst_dump 0 '' sst_dump --fs_uri="$uri" --file=/db --command=verify
	unset LD_PRELOAD BLOBFS_LOG
	is tables_are_there 0 'sst' blobfs ls "$dev" /db
else
	echo "skip $suite/db_bench: db_bench is not installed"
fi
is hello 0 hello blobfs cat "$dev" /hello
is fsck_at_the_end 0 clean fsck.blobfs -n -f "$dev"
end_of_target the_driver_keeps_to_the_specification
exit $status
