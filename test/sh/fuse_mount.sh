#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# mount.blobfs as a program: its ways to begin and to end, and what it says when it cannot.
# timeout: 120
suite=fuse_mount
. "$(dirname "$0")/../fuse/lib.sh"

# refused NAME CODE PATTERN COMMAND...: that exit code, one line that says PATTERN, and the image as before.
refused() {
	name=$1 want=$2 pattern=$3
	shift 3
	[ -f "$img" ] && before=$(sha256sum <"$img")
	timeout 20 "$@" >"$tmp/out" 2>&1 </dev/null
	code=$?
	[ $code = "$want" ] || { bad "$name" "exit code $code, not $want"; return; }
	[ "$(wc -l <"$tmp/out")" = 1 ] || { bad "$name" "not one line"; return; }
	grep -q -e "$pattern" "$tmp/out" || { bad "$name" "it does not say '$pattern'"; return; }
	[ ! -f "$img" ] || [ "$before" = "$(sha256sum <"$img")" ] || { bad "$name" "the image was changed"; return; }
	good "$name"
}

new_image 64M
refused unknown_option 1 "unknown option 'magic=1'" mount.blobfs "$img" "$mnt" -o ro,magic=1
refused wrong_size 1 "cache=lots" mount.blobfs "$img" "$mnt" -o cache=lots
refused no_directory_given 1 "DEVICE and DIR" mount.blobfs "$img"
refused missing_directory 32 "$tmp/none: No such file" mount.blobfs "$img" "$tmp/none"
: >"$tmp/file"
refused not_a_directory 32 "$tmp/file: not a directory" mount.blobfs "$img" "$tmp/file"
refused missing_image 32 "$tmp/nothing.*No such file" mount.blobfs "$tmp/nothing" "$mnt"
refused directory_as_image 32 "$tmp" mount.blobfs "$tmp" "$mnt"
head -c 67108864 /dev/urandom >"$tmp/garbage"
refused garbage 32 "$tmp/garbage" mount.blobfs "$tmp/garbage" "$mnt"
: >"$tmp/empty"
refused empty_file 32 "$tmp/empty" mount.blobfs "$tmp/empty" "$mnt"
cp "$img" "$tmp/good"
truncate -s 40M "$img"
refused truncated_image 32 "$img" mount.blobfs "$img" "$mnt"
cp "$tmp/good" "$img"
"$helper" newer "$img" || bad newer_version "the helper failed"
refused newer_version 32 "$img.*version" mount.blobfs "$img" "$mnt"
cp "$tmp/good" "$img"

# No FUSE device in a mount name space of one's own.
if unshare -m true 2>/dev/null; then
	refused no_dev_fuse 32 "/dev/fuse" unshare -m sh -c \
		'mount -t tmpfs none /dev && exec mount.blobfs "$@"' sh "$img" "$mnt"
else
	echo "skip $suite/no_dev_fuse: unshare is not allowed here"
fi

verdict help "mount.blobfs -h" sh -c 'mount.blobfs -h | grep -q "usage: mount.blobfs DEVICE DIR"'
verdict version "mount.blobfs -V" sh -c 'mount.blobfs -V | grep -q "^mount.blobfs [0-9]"'

# When it returns, the mount is usable.
mount_image
[ "$(stat -c %i "$mnt")" = 1 ] && echo x >"$mnt/f" && good usable_at_once || bad usable_at_once "no"
verdict type_and_source "not in /proc/mounts" grep -q "^$img $mnt fuse.blobfs rw,.*default_permissions" /proc/mounts
sync
sleep 2
refused same_directory 32 "$mnt: already mounted" mount.blobfs "$img" "$mnt"
mkdir "$tmp/other"
refused same_image 32 "$img.*\(in use\|busy\|mounted\)" mount.blobfs "$img" "$tmp/other"
kill -0 "$pid" && [ "$(cat "$mnt/f")" = x ] && good first_mount_goes_on || bad first_mount_goes_on "no"

# An idle mount asks for no time: at most one tick in five seconds.
sleep 1
ticks() { awk '{ print $14 + $15 }' "/proc/$pid/stat"; }
t0=$(ticks)
sleep 5
t1=$(ticks)
[ $((t1 - t0)) -le 1 ] && good idle_uses_no_cpu || bad idle_uses_no_cpu "$((t1 - t0)) ticks in 5 s"

umount "$mnt" && await_end "$pid" && [ ! -e "$mnt/f" ] && good umount_ends_the_daemon || bad umount_ends_the_daemon "no"
check_image after_umount

mount_image
[ "$(cat "$mnt/f")" = x ] || bad after_umount "the file is gone"
seq 100000 >"$mnt/numbers"
kill -TERM "$pid"
await_end "$pid"
grep -q " $mnt " /proc/mounts && bad sigterm "still mounted" || good sigterm_unmounts
check_image sigterm
mount_image
[ "$(seq 100000 | sha256sum)" = "$(sha256sum <"$mnt/numbers")" ] && good sigterm_loses_nothing ||
	bad sigterm_loses_nothing "the file differs"

# In use: detached, and what was written is there.
exec 7>"$mnt/held"
seq 200000 >&7
kill -TERM "$pid"
await_end "$pid"
grep -q " $mnt " /proc/mounts && bad sigterm_while_in_use "still mounted" || good sigterm_while_in_use
exec 7>&-
check_image sigterm_while_in_use
mount_image
[ "$(seq 200000 | sha256sum)" = "$(sha256sum <"$mnt/held")" ] && good sigterm_while_in_use_loses_nothing ||
	bad sigterm_while_in_use_loses_nothing "the file differs"
unmount_image

# In the foreground.
mount.blobfs "$img" "$mnt" -f >"$tmp/out" 2>&1 &
pid=$!
pids=$pid
for _ in $(seq 50); do [ -e "$mnt/f" ] && break; sleep 0.1; done
[ "$(cat "$mnt/f")" = x ] && good foreground || bad foreground "not mounted"
umount "$mnt"
wait $pid
[ $? = 0 ] && good foreground_ends_with_0 || bad foreground_ends_with_0 "exit code $?"
pids=

# At once again: the first daemon may still be closing the image.
mount_image
seq 300000 >"$mnt/numbers"
umount "$mnt"
mount.blobfs "$img" "$mnt" >"$tmp/out" 2>&1 && good mount_right_after_umount || bad mount_right_after_umount "exit code $?"
[ "$(seq 300000 | sha256sum)" = "$(sha256sum <"$mnt/numbers")" ] || bad mount_right_after_umount "the file differs"
unmount_image

# Read-only.
mount_image -o ro
touch "$mnt/new" 2>"$tmp/out" && bad read_only "a file was made" || good read_only
[ "$(cat "$mnt/f")" = x ] || bad read_only "cannot read"
sum=$(sha256sum <"$img")
unmount_image
[ "$sum" = "$(sha256sum <"$img")" ] && good read_only_writes_nothing || bad read_only_writes_nothing "the image was changed"

# Kernel options arrive.
mount_image -o nodev,nosuid,noexec,noatime,reactors=2,cache=16M
verdict kernel_options "not in /proc/mounts" grep -q "^$img $mnt fuse.blobfs rw,nosuid,nodev,noexec" /proc/mounts
unmount_image

# mount -t blobfs finds /sbin/mount.blobfs.
if [ "$(id -u)" = 0 ] && [ ! -e /sbin/mount.blobfs ] && ln -s "$BUILD/bin/mount.blobfs" /sbin/mount.blobfs; then
	mount -t blobfs "$img" "$mnt" -o noatime,_netdev,x-test=1 >"$tmp/out" 2>&1 && good mount_8 || bad mount_8 "exit code $?"
	[ "$(cat "$mnt/f")" = x ] || bad mount_8 "cannot read"
	pid=$(pgrep -f "mount.blobfs $img ")
	umount "$mnt"
	await_end "$pid"
	mount -t blobfs "$img" "$mnt" -o magic >"$tmp/out" 2>&1
	[ $? = 1 ] && grep -q "unknown option 'magic'" "$tmp/out" && good mount_8_wrong_option || bad mount_8_wrong_option "no"
	rm -f /sbin/mount.blobfs
else
	echo "skip $suite/mount_8: needs root and no mount.blobfs in /sbin"
fi
check_image at_the_end && good image_is_whole
exit $status
