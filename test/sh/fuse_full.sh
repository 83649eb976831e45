#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# A full image: the writer hears of it, nothing is lost, and removing frees the space again.
# timeout: 200
suite=fuse_full
. "$(dirname "$0")/../fuse/lib.sh"

new_image 256M
mount_image
mkdir "$mnt/keep"
cp -a /usr/include/linux "$mnt/keep/" && sync
sums "$mnt/keep" >"$tmp/before"
free() { df -k --output=avail "$mnt" | tail -1; }
was=$(free)
dd if=/dev/zero of="$mnt/fill" bs=1M conv=fsync >"$tmp/out" 2>&1 && bad full "no error" ||
	{ grep -q 'No space left' "$tmp/out" && good gives_ENOSPC || bad full "another error"; }
i=0
while [ $i -lt 50 ] && head -c 300000 /dev/zero >"$mnt/fill$i" 2>"$tmp/out"; do i=$((i + 1)); done
[ $i -lt 50 ] && good for_small_files_too || bad for_small_files_too "still room for 50 of them"
sums "$mnt/keep" >"$tmp/after"
diff "$tmp/before" "$tmp/after" >"$tmp/out" 2>&1 && good loses_nothing || bad loses_nothing "files differ"
remount
sums "$mnt/keep" >"$tmp/after"
diff "$tmp/before" "$tmp/after" >"$tmp/out" 2>&1 && good remounts || bad remounts "files differ"
verdict rm_on_a_full_image "rm fails" rm "$mnt"/fill*
sleep 2
now=$(free)
[ "$now" -gt $((was - 4096)) ] && good rm_frees_the_space || bad rm_frees_the_space "$now KiB free, were $was"
head -c 100000000 /dev/urandom >"$tmp/data"
cp "$tmp/data" "$mnt/again" && cmp "$tmp/data" "$mnt/again" >"$tmp/out" 2>&1 && good space_is_used_again || bad space_is_used_again "no"
unmount_image
check_image full && good image_that_was_full_is_whole
exit $status
