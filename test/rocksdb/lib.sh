# SPDX-License-Identifier: BSD-2-Clause
# For the shell tests of the RocksDB plugin: sourced after `suite=NAME`.
root=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
BUILD=${BUILD:-$root/build}
PATH=$BUILD/bin:$PATH
plugin=$BUILD/lib/librocksdb_blobfs.so
driver=$BUILD/test/rocksdb
tmp=$(mktemp -d) || exit 2
mnt=$tmp/mnt
status=0
pids=

cleanup() {
	for pid in $pids $target; do kill -9 "$pid" 2>/dev/null && wait "$pid" 2>/dev/null; done
	if [ -d "$mnt" ] && grep -q " $mnt " /proc/mounts; then fusermount3 -u -z "$mnt"; fi
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

for program in db_bench ldb sst_dump; do
	command -v $program >/dev/null && continue
	echo "skip $suite: $program is not installed"
	exit 0
done
for file in "$plugin" "$driver"; do
	[ -e "$file" ] && continue
	echo "not ok $suite: $file was not built"
	exit 1
done

# An image of SIZE (1G) at $img, named by $uri; with TEST_DEVICE=nvme it is an emulated controller's.
img=$tmp/img
[ -z "$TEST_DEVICE" ] || img=nvme:vfio-user:$tmp/sock
uri=blobfs://$img
. "$root/test/tools/controller.sh"

new_image() {
	rm -f "$img"
	size="-s ${1:-1G}"
	if [ -n "$TEST_DEVICE" ]; then
		new_controller "${1:-1G}"
		size=-f
	fi
	mkfs.blobfs -q $size "$img" >"$tmp/out" 2>&1 && return
	show
	echo "not ok $suite/mkfs: mkfs.blobfs failed"
	exit 1
}

show() { tail -30 "$tmp/out" | sed 's/^/    /'; }

# Runs with the plugin; all it says goes to $tmp/out.
with_plugin() { LD_PRELOAD=$plugin BLOBFS_LOG=rocksdb=info "$@" >"$tmp/out" 2>&1 </dev/null; }

bad() {
	show
	echo "not ok $suite/$1: $2"
	status=1
	return 1
}

# Without this a tool that does not know the scheme would run on the kernel's file system and succeed.
plugin_ran() { grep -q "$img opened" "$tmp/out" || bad "$1" 'the plugin did not run'; }

# good NAME PATTERN COMMAND...: exit code 0, the plugin ran, and the output has PATTERN.
good() {
	name=$1 pattern=$2
	shift 2
	with_plugin "$@" || { bad "$name" "exit code $?"; return 1; }
	plugin_ran "$name" || return 1
	grep -q -e "$pattern" "$tmp/out" || { bad "$name" "no \"$pattern\" in the output"; return 1; }
	echo "ok $suite/$name"
}

# refused NAME PATTERN COMMAND...: fails without dying of a signal, and says PATTERN in one line.
refused() {
	name=$1 pattern=$2
	shift 2
	with_plugin "$@"
	code=$?
	if [ $code = 0 ] || [ $code -ge 128 ]; then bad "$name" "exit code $code"; return 1; fi
	grep -q -e "$pattern" "$tmp/out" || { bad "$name" "no \"$pattern\" in the output"; return 1; }
	echo "ok $suite/$name"
}

# The image is whole. fsck.blobfs answers 0 for that.
checked() {
	[ ! -s "$tmp/nvmet.log" ] || bad nvmet "$(cat "$tmp/nvmet.log")"
	fsck.blobfs -n -f "$img" >"$tmp/out" 2>&1 || { bad "$1" "fsck.blobfs: exit code $?"; return 1; }
	echo "ok $suite/$1"
}

# There is a file or directory at this path of the image, by a tool that is not RocksDB's.
in_image() { # NAME DIRECTORY PATTERN
	blobfs ls "$img" "$2" >"$tmp/out" 2>&1 || { bad "$1" "blobfs ls $2: exit code $?"; return 1; }
	grep -q -e "$3" "$tmp/out" || { bad "$1" "no $3 in $2"; return 1; }
	echo "ok $suite/$1"
}
