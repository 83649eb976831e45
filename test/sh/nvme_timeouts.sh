#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Commands that never end under a mounted file system: one is aborted, one takes a reset; each is an error once.
# timeout: 200
suite=nvme_timeouts
. "$(dirname "$0")/../tools/lib.sh"
. "$root/test/tools/nvmet.sh"

mkdir m
head -c 1000000 /dev/urandom >data
serve_scripted --size 256M --block 512
is mkfs 0 '' mkfs.blobfs -q "$dev"
is mount 0 '' mount.blobfs "$dev" m
mounted=$tmp/m
: >m/stuck && : >m/lost && echo kept >m/kept && sync m/kept
tell after 1 writes stick 1
timeout -k 5 120 dd if=data of=m/stuck bs=64k count=1 oflag=direct conv=notrunc >stuck.err 2>&1 &
stuck=$!
happened stick
sleep 2 # what is committed by and by goes first
tell after 1 writes lose 1
timeout -k 5 120 dd if=data of=m/lost bs=64k count=1 oflag=direct conv=notrunc >lost.err 2>&1 &
lost=$!
happened lose
# Others go on meanwhile.
run dd if=data of=m/meanwhile bs=64k oflag=direct
[ "$code" = 0 ] && ok others_go_on || bad others_go_on "exit code $code"
wait $stuck
code=$?
case $code in 1) ok a_stuck_command_is_an_error ;; *) bad a_stuck_command_is_an_error "exit code $code" ;; esac
wait $lost
code=$?
case $code in 1) ok a_lost_completion_is_an_error ;; *) bad a_lost_completion_is_an_error "exit code $code" ;; esac
cat stuck.err lost.err >.out
grep -q 'timed out\|Input/output error' lost.err && ok the_error_says_so || bad the_error_says_so "$(cat lost.err)"
run dd if=data of=m/afterwards bs=64k oflag=direct conv=fsync
[ "$code" = 0 ] && cmp data m/afterwards >.out 2>&1 && ok works_afterwards || bad works_afterwards "exit code $code"
cmp data m/meanwhile >.out 2>&1 && ok what_went_on_is_there || bad what_went_on_is_there 'it differs'
run fusermount3 -u m
wait_unmounted
mounted=
is whole 0 clean fsck.blobfs -n -f "$dev"
is kept 0 kept blobfs cat "$dev" /kept
end_of_target the_driver_keeps_to_the_specification
exit $status
