#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The whole stack on an emulated NVMe controller in another process: tools, a mount, and the controller's death.
# timeout: 240
suite=nvme
. "$(dirname "$0")/../tools/lib.sh"

. "$root/test/tools/nvmet.sh"

# Ticks, user and system, of the daemon so far.
cpu_of_daemon() {
	for p in $(pgrep -f "mount.blobfs $dev"); do cat "/proc/$p/stat"; done | awk '{ n += $14 + $15 } END { print n + 0 }'
}

mkdir m
for block in 512 4096; do
	serve --size 512M --file img --block $block
	is "example_$block" 0 "blocks of $block bytes" "$BUILD/test/nvme_example" "${dev#nvme:}" 7
	is "mkfs_$block" 0 'Made BlobFS' mkfs.blobfs -f "$dev"
	is "info_$block" 0 '(nvme)' blobfs info "$dev"
	is "no_such_namespace_$block" 1 'no such namespace' blobfs info "$dev/7"
	is "mount_$block" 0 '' mount.blobfs "$dev" m
	mounted=$tmp/m
	is "busy_$block" 1 'in use' blobfs ls "$dev"
	is "info_mounted_$block" 0 "(nvme)" blobfs info "$dev"
	cp -r "$root/base" m/ && sync m/base && diff -r "$root/base" m/base >.out && ok "copy_$block" || bad "copy_$block" 'it differs'
	dd if=/dev/urandom of=big bs=1M count=24 status=none
	dd if=big of=m/big bs=1M conv=fsync status=none && cmp big m/big && ok "big_$block" || bad "big_$block" 'it differs'
	# Nothing is asked of it: its processes use next to no time (a hundredth of a second is a tick).
	if [ "$block" = 4096 ]; then
		sync
		sleep 3
		before=$(cpu_of_daemon)
		sleep 3
		used=$(($(cpu_of_daemon) - before))
		[ -n "$before" ] && [ "$before" -gt 0 ] && [ "$used" -le 3 ] && ok idle_uses_no_cpu || bad idle_uses_no_cpu "$used ticks in 3 s"
	fi
	fusermount3 -u m
	wait_unmounted
	mounted=
	is "fsck_$block" 0 'clean' fsck.blobfs -n -f "$dev"
	end_of_target "the_driver_keeps_to_the_specification_$block"
	is "fsck_as_a_file_$block" 0 'clean' fsck.blobfs -n -f img
done

# The controller's process is killed under a writer: an error, no hang; afterwards what was synced is there.
serve --size 512M --file img --block 4096
is mount_again 0 '' mount.blobfs "$dev" m
mounted=$tmp/m
printf precious >m/precious && sync m/precious
kill -KILL "$target"
wait "$target" 2>/dev/null
run dd if=/dev/zero of=m/late bs=1M count=8 conv=fsync
[ "$code" != 0 ] && [ "$code" != 124 ] && ok a_dead_controller_gives_errors || bad a_dead_controller_gives_errors "dd: $code"
run fusermount3 -u m
wait_unmounted
mounted=
rm -f "$tmp/sock"
is gone 1 'No such file' blobfs info "$dev"
serve --size 512M --file img --block 4096
is sound_after_its_death 1 'replayed' fsck.blobfs -p "$dev"
is synced_is_there 0 'precious' blobfs cat "$dev" /precious
end_of_target keeps_to_the_specification_at_last
exit $status
