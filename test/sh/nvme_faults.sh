#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# A mounted file system whose controller misbehaves: what can be mended is not noticed, the rest ends in errors; never
# a hang, and what was synced stays.
# timeout: 400
suite=nvme_faults
. "$(dirname "$0")/../tools/lib.sh"
. "$root/test/tools/nvmet.sh"

mkdir m
head -c 3000000 /dev/urandom >data

up() { # NAME
	is "$1" 0 '' mount.blobfs "$dev" m
	mounted=$tmp/m
}
# The daemon must end by itself once it is unmounted, whatever has become of the device.
down() {
	run fusermount3 -u m
	[ "$code" = 0 ] || run fusermount3 -u -z m
	wait_unmounted
	mounted=
}
# used NAME: written, synced, read from the device: as if nothing were.
used() {
	for i in 1 2 3; do
		run dd if=data of="m/$1.$i" bs=64k oflag=direct conv=fsync
		[ "$code" = 0 ] || { bad "$1" "writing fails: $code"; return; }
		echo "$1 $i" >"m/small.$i" && sync "m/small.$i" || { bad "$1" 'a small file cannot be synced'; return; }
	done
	dd if="m/$1.2" bs=64k iflag=direct status=none 2>.err | cmp - data >.out 2>&1 && ok "$1" || bad "$1" 'it differs'
}
# Fails, and soon: neither success nor the timeout's 124 and 137.
fails() { # NAME COMMAND...
	name=$1
	shift
	run "$@"
	case $code in 0 | 124 | 137) bad "$name" "exit code $code" ;; *) ok "$name" ;; esac
}
whole() { # NAME
	run fsck.blobfs -p "$dev"
	[ "$code" -le 1 ] || bad "$1" "fsck.blobfs -p: $code"
	is "$1" 0 clean fsck.blobfs -n -f "$dev"
}

serve_scripted --size 256M --block 4096
is mkfs 0 '' mkfs.blobfs -q "$dev"

# ---- what the driver mends ----
up mount
tell duplicate 20 && used twice
tell wrong-cid 20 && used for_nothing
tell late 50 300 && used late
tell fail 4 6 && used internal_errors
tell ready 600
tell cfs && used fatal_status_and_a_slow_start
tell ready 0
tell cfs && used fatal_status
down
whole whole_after_that
is the_errors_are_in_its_log 0 'Internal Error (0/06)' blobfs-nvme errors "$dev"
run blobfs-nvme smart --json "$dev"
python3 -c "import json; j = json.load(open('.out')); assert j['num_err_log_entries'] == 4 and j['host_write_commands'] > 100 and j['data_units_written'] > 30" 2>.err &&
	ok health_counts || bad health_counts "$(cat .out)"

# ---- what is an error, once ----
up mount_for_errors
cp data m/before && sync m/before
tell fail 1 0x4280
fails a_write_fault_is_an_error dd if=data of=m/hit bs=64k oflag=direct count=1
used goes_on_after_it
tell fail 1 0x4281
fails a_read_error_is_an_error dd if=m/twice.1 of=/dev/null bs=64k iflag=direct count=1
used goes_on_after_that_too
down
whole whole_after_errors

# ---- a log that cannot be written freezes the store ----
up mount_to_freeze
echo kept >m/kept && sync m/kept
tell after 1 fua fail 1 0x4280
mkdir m/lost
fails the_log_cannot_be_written sync m/lost
fails frozen touch m/never
is kept_can_be_read 0 kept cat m/kept
down
whole whole_after_freezing
is kept_is_there 0 kept blobfs cat "$dev" /kept

# ---- a controller that goes ----
n=0
for how in 'all-ones' 'hang-up' 'never-ready; cfs' 'queues 1; cfs' 'no-entries; cfs; hang-up'; do
	n=$((n + 1))
	gone=gone_$n
	up "${gone}_mount"
	echo "$how" >m/precious && sync m/precious
	(sleep 0.5; echo "$how" | tr ';' '\n' | while read -r line; do tell $line; done) &
	teller=$!
	fails "$gone" sh -c 'while dd if=/dev/zero of=m/late bs=1M count=64 conv=notrunc,fsync oflag=direct 2>.dd; do :; done; exit 1'
	wait $teller
	run ls -l m
	[ "$code" -lt 124 ] && ok "${gone}_ls_ends" || bad "${gone}_ls_ends" "exit code $code"
	fails "${gone}_no_more_writes" sh -c 'echo no >m/no && sync m/no'
	down
	case $how in
	*never-ready*) refused "${gone}_not_ready" 1 'not ready after' blobfs info "$dev" ;;
	*no-entries*) refused "${gone}_one_entry" 1 'one entry' blobfs info "$dev" ;;
	all-ones) refused "${gone}_all_ones" 1 'gone' blobfs info "$dev" ;;
	esac
	for line in 'all-ones 0' 'never-ready 0' 'no-entries 0' 'cfs 0'; do tell $line; done
	echo 'queues 64' >ctl
	whole "${gone}_whole"
	is "${gone}_precious" 0 "${how%%;*}" blobfs cat "$dev" /precious
	run blobfs rm "$dev" -f /late
done
end_of_target the_driver_keeps_to_the_specification
exit $status
