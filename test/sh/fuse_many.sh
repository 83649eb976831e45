#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# 100,000 files in a directory, 200,000 in all.
# timeout: 300
# exclusive
suite=fuse_many
. "$(dirname "$0")/../fuse/lib.sh"

new_image 4G
mount_image
seconds() { # NAME LIMIT COMMAND...
	name=$1 limit=$2
	shift 2
	took=$("$@" 2>"$tmp/out") || { bad "$name" "exit code $?"; return; }
	awk "BEGIN { exit !($took < $limit) }" && good "$name in $took s" || bad "$name" "$took s"
}
daemon_ms() {
	awk '{ print ($14 + $15) * 10 }' "/proc/$pid/stat"
}
mkdir "$mnt/a" "$mnt/b"
# Quadratic cost would show: a tenth against the whole, in the daemon's own time; the clock also tells of processors that slept.
began=$(daemon_ms)
seconds create_10000 20 "$helper" many "$mnt/b" 10000 create
tenth=$(($(daemon_ms) - began))
seconds create_100000 120 "$helper" many "$mnt/a" 100000 create
whole=$(($(daemon_ms) - began - tenth))
[ $whole -lt $((10 * tenth * 2 + 500)) ] && good "create is not quadratic: $tenth ms for 10,000, $whole ms for 100,000" ||
	bad create_is_not_quadratic "10,000 files took $tenth ms, 100,000 took $whole ms"
seconds list_100000 20 "$helper" many "$mnt/a" 100000 list
seconds stat_100000 60 "$helper" many "$mnt/a" 100000 stat
remount
seconds cold_stat_100000 120 "$helper" many "$mnt/a" 100000 stat
seconds cold_list_100000 20 "$helper" many "$mnt/a" 100000 list

# 200,000 in all: time to mount, memory of the daemon.
"$helper" many "$mnt/b" 10000 remove >/dev/null
seconds create_100000_more 120 "$helper" many "$mnt/b" 100000 create
unmount_image
empty_rss() {
	mkfs.blobfs -q -s 64M "$tmp/empty" && mkdir -p "$tmp/e" && mount.blobfs "$tmp/empty" "$tmp/e" || return
	awk '/^VmRSS/ { print $2 }' "/proc/$(pgrep -f "^mount.blobfs $tmp/empty ")/status"
	umount "$tmp/e"
}
base=$(empty_rss)
start=$(date +%s%N)
mount_image
took=$((($(date +%s%N) - start) / 1000000))
cpu=$(daemon_ms)
# On a busy machine the clock tells of the others; then the daemon's own time counts.
busy=$(awk -v n="$(nproc)" '{ print ($1 > n) }' /proc/loadavg)
if [ $took -lt 1000 ] || { [ "$busy" = 1 ] && [ "$cpu" -lt 1000 ]; }; then
	good "mount of 200,000 files in $took ms, $cpu ms of CPU"
else
	bad mount_of_200000_files "$took ms, $cpu ms of CPU"
fi
rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status")
echo "    memory of the daemon: $((rss - base)) KiB more than an empty one's: $(((rss - base) * 1024 / 200000)) bytes a file"
[ $(((rss - base) * 1024 / 200000)) -lt 600 ] && good memory_of_a_file || bad memory_of_a_file "600 bytes or more"
seconds remove_100000 120 "$helper" many "$mnt/a" 100000 remove
[ "$(find "$mnt/a" | wc -l)" = 1 ] && rmdir "$mnt/a" && good directory_is_empty_then || bad directory_is_empty_then "it is not"
unmount_image
check_image many && good image_of_many_is_whole
exit $status
