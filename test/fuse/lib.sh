# SPDX-License-Identifier: BSD-2-Clause
# For the shell tests of mounts: sourced after `suite=NAME`.
root=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
BUILD=${BUILD:-$root/build}
PATH=$BUILD/bin:/usr/sbin:/sbin:$PATH
helper=$BUILD/test/fuse
tmp=$(mktemp -d) || exit 2
chmod 755 "$tmp"
img=$tmp/img
mnt=$tmp/mnt
[ -z "$TEST_DEVICE" ] || img=nvme:vfio-user:$tmp/sock
mkdir "$mnt"
status=0
pids=

cleanup() {
	cd /
	for pid in $pids $target; do kill -9 "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; done
	for dir in $(awk -v t="$tmp/" 'index($2, t) == 1 && $3 == "fuse.blobfs" { print $2 }' /proc/mounts); do
		umount -f "$dir" 2>/dev/null || fusermount3 -u -z "$dir"
	done
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

if ! [ -r /dev/fuse ] || ! [ -w /dev/fuse ]; then
	echo "skip $suite: /dev/fuse cannot be opened here"
	exit 0
fi
for file in "$BUILD/bin/mount.blobfs" "$BUILD/bin/mkfs.blobfs" "$BUILD/bin/fsck.blobfs" "$helper"; do
	[ -x "$file" ] && continue
	echo "not ok $suite: $file was not built"
	exit 1
done

good() { echo "ok $suite/$1"; }
bad() {
	[ -s "$tmp/out" ] && tail -20 "$tmp/out" | sed 's/^/    /'
	echo "not ok $suite/$1: $2"
	status=1
	return 1
}
give_up() { bad "$@"; exit 1; }
# verdict NAME WHY COMMAND...: ok if the command succeeds.
verdict() {
	name=$1 why=$2
	shift 2
	if "$@" >"$tmp/out" 2>&1; then good "$name"; else bad "$name" "$why (exit code $?)"; fi
}

. "$root/test/tools/controller.sh"

# With TEST_DEVICE=nvme the image is an emulated controller's.
new_image() {
	rm -f "$img"
	if [ -n "$TEST_DEVICE" ]; then
		new_controller "${1:-1G}"
		mkfs.blobfs -q -f "$img" >"$tmp/out" 2>&1 || give_up mkfs "mkfs.blobfs failed"
		return
	fi
	mkfs.blobfs -q -s "${1:-1G}" "$img" >"$tmp/out" 2>&1 || give_up mkfs "mkfs.blobfs failed"
}
# The daemon that serves the image.
daemon() { pgrep -f "^mount.blobfs $img "; }
mount_image() {
	mount.blobfs "$img" "$mnt" "$@" >"$tmp/out" 2>&1 || give_up mount "mount.blobfs $*: exit code $?"
	pid=$(daemon)
}
# The end of a daemon: it still writes when umount has returned.
await_end() {
	for _ in $(seq 300); do
		case $(cut -d" " -f3 "/proc/$1/stat" 2>/dev/null) in Z | "") return 0 ;; esac
		sleep 0.1
	done
	give_up end "the daemon did not end within 30 s"
}
unmount_image() {
	pid=$(daemon)
	umount "$mnt" >"$tmp/out" 2>&1 || give_up umount "exit code $?"
	await_end "$pid"
}
remount() { unmount_image; mount_image "$@"; }
# The daemon dies as in a crash; the directory is free again.
kill_daemon() {
	pid=$(daemon)
	kill -9 "$pid"
	await_end "$pid"
	umount "$mnt" 2>/dev/null || fusermount3 -u -z "$mnt"
}
check_image() {
	[ ! -s "$tmp/nvmet.log" ] || bad nvmet "$(cat "$tmp/nvmet.log")"
	fsck.blobfs -n "$img" >"$tmp/out" 2>&1 || bad "$1" "fsck.blobfs: exit code $?"
}
sums() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum); }
