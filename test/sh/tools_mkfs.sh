#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# mkfs.blobfs: every option, and every careless use.
# timeout: 240
suite=tools_mkfs
. "$(dirname "$0")/../tools/lib.sh"

# ---- what it makes
is makes_an_image_file 0 'Made BlobFS on a.img: 64 MiB, 16384 blocks' mkfs.blobfs -s 64M a.img
[ "$(stat -c %s a.img)" = 67108864 ] && ok size || bad size "a.img has $(stat -c %s a.img) bytes"
[ "$(stat -c %b a.img)" -lt 20000 ] && ok sparse || bad sparse 'a.img is not sparse'
sound new_image_is_sound a.img
is label_uuid_cluster 0 'label a label' mkfs.blobfs -f -L 'a label' -U 01234567-89ab-cdef-0123-456789abcdef -c 64K a.img
blobfs info --json a.img >.out 2>.err
for want in '"label":"a label"' '"uuid":"01234567-89ab-cdef-0123-456789abcdef"' '"cluster_size":65536'; do
	grep -q "$want" .out && ok "info has $want" || bad "info has $want" 'it has not'
done
for c in 4096 8K 16K 32K; do is "cluster $c" 0 '' mkfs.blobfs -q -f -c $c a.img; done
[ -s .out ] && bad quiet 'it says something' || ok quiet
is fractions 0 '48 MiB' mkfs.blobfs -s 0.046875G b.img
is keeps_size 0 '48 MiB' mkfs.blobfs -f b.img
is grows 0 '80 MiB' mkfs.blobfs -f -s 80M b.img
is shrinks 0 '40 MiB' mkfs.blobfs -f -s 40M b.img
sound shrunk_image_is_sound b.img
is prewrite 0 '' mkfs.blobfs -q --prewrite -s 48M full.img
[ "$(stat -c %b full.img)" -ge 98000 ] && ok prewrite_is_not_sparse || bad prewrite_is_not_sparse "$(stat -c %b full.img) blocks"
is ram 0 'gone' mkfs.blobfs ram:64M
is label_of_63_bytes 0 '' mkfs.blobfs -f -L 123456789012345678901234567890123456789012345678901234567890123 a.img
is options_after_device 0 '' mkfs.blobfs b.img -f -q
is version 0 '^mkfs.blobfs [0-9]' mkfs.blobfs --version
is help 0 'prewrite' mkfs.blobfs --help

# ---- -n
unchanged dry_run_writes_nothing a.img mkfs.blobfs -n -f a.img
is dry_run_says_what 0 'Would make BlobFS on a.img: 64 MiB' mkfs.blobfs -n -f a.img
is dry_run_of_a_new_file 0 'Would make' mkfs.blobfs -n -s 64M no.img
[ -e no.img ] && bad dry_run_makes_no_file 'it made one' || ok dry_run_makes_no_file
is dry_run_ram 0 'Would make BlobFS on ram:64M: 64 MiB' mkfs.blobfs -n ram:64M
refused dry_run_refuses_too 8 'use -f' mkfs.blobfs -n a.img
refused dry_run_of_small_ram 8 'at least 40M' mkfs.blobfs -n ram:1M

# ---- what is there already
refused twice 8 "a.img holds a BlobFS file system labelled '1234" mkfs.blobfs a.img
unchanged refusal_writes_nothing a.img mkfs.blobfs a.img
refused twice_with_size 8 'use -f' mkfs.blobfs -s 128M a.img
[ "$(stat -c %s a.img)" = 67108864 ] && ok refusal_keeps_the_size || bad refusal_keeps_the_size 'it does not'
dd if=/dev/zero of=a.img bs=4096 count=1 conv=notrunc status=none
refused only_the_second_superblock 8 'BlobFS' mkfs.blobfs a.img
truncate -s 64M ext4.img && mkfs.ext4 -q -L old ext4.img 2>/dev/null
refused ext4 8 "ext4 signature, labelled 'old'" mkfs.blobfs ext4.img
unchanged ext4_stays ext4.img mkfs.blobfs ext4.img
is ext4_with_force 0 '' mkfs.blobfs -q -f ext4.img
[ -z "$(blkid -p -o value -s TYPE ext4.img)" ] && ok old_signature_is_gone || bad old_signature_is_gone "$(blkid -p ext4.img)"
sound overwritten_ext4_is_sound ext4.img
truncate -s 64M gpt.img && echo 'label: gpt' | sfdisk -q gpt.img 2>/dev/null
refused gpt 8 'partition table (gpt)' mkfs.blobfs gpt.img
is gpt_with_force 0 '' mkfs.blobfs -q -f gpt.img
[ -z "$(blkid -p -o value -s PTTYPE gpt.img)" ] && ok gpt_is_gone || bad gpt_is_gone "$(blkid -p gpt.img)"
truncate -s 64M dos.img && echo 'label: dos' | sfdisk -q dos.img 2>/dev/null
refused dos 8 'partition table (dos)' mkfs.blobfs dos.img
truncate -s 64M swap.img && mkswap -q swap.img >/dev/null 2>&1
refused swap 8 'swap signature' mkfs.blobfs swap.img

# ---- careless
refused no_device 16 'no device given' mkfs.blobfs
refused two_devices 16 "'b.img' is too much" mkfs.blobfs a.img b.img
run mkfs.blobfs --magic a.img
[ $code = 16 ] && grep -q magic .err && ok unknown_option || bad unknown_option "exit code $code"
refused missing_file 8 'give -s SIZE' mkfs.blobfs missing.img
refused missing_directory 8 'nowhere/x.img.*No such file' mkfs.blobfs -s 64M nowhere/x.img
refused directory 8 'is a directory' mkfs.blobfs .
refused directory_with_size 8 'is a directory' mkfs.blobfs -s 64M .
refused character_device 8 'neither a file nor a block device' mkfs.blobfs /dev/null
mkfifo pipe && refused fifo 8 'neither a file nor a block device' mkfs.blobfs pipe
for size in x 12Q 1..5G -5M '' 64MM; do refused "size '$size'" 16 'is not a size\|too' mkfs.blobfs -s "$size" new.img; done
refused size_beyond_counting 16 'too large' mkfs.blobfs -s 99999999999T new.img
refused size_too_small 16 'at least 40M' mkfs.blobfs -s 39M new.img
[ -e new.img ] && bad refused_sizes_make_no_file 'it made one' || ok refused_sizes_make_no_file
run mkfs.blobfs -s 9000000T new.img
[ $code -ge 8 ] && [ ! -e new.img ] && ok size_the_host_cannot_hold || bad size_the_host_cannot_hold "exit code $code"
truncate -s 20M small.img && refused file_too_small 8 'small.img has 20971520 bytes.*at least 40M' mkfs.blobfs small.img
: >empty.img && refused file_empty 8 'empty.img has 0 bytes' mkfs.blobfs empty.img
truncate -s 67108865 odd.img && refused odd_size 8 'not a multiple' mkfs.blobfs odd.img
for c in 3K 12K 2048 128K 0; do refused "cluster $c" 16 'not a power of two from 4K to 64K' mkfs.blobfs -c $c -s 64M new.img; done
refused cluster_of_nothing 16 'is not a size' mkfs.blobfs -c big -s 64M new.img
refused label_too_long 16 'longer than 63 bytes' mkfs.blobfs -L 1234567890123456789012345678901234567890123456789012345678901234 -s 64M new.img
refused label_of_lines 16 'control character' mkfs.blobfs -L 'a
b' -s 64M new.img
refused uuid 16 "'12-34' is not a UUID" mkfs.blobfs -U 12-34 -s 64M new.img
refused null_uuid 16 'not a UUID' mkfs.blobfs -U 00000000-0000-0000-0000-000000000000 -s 64M new.img
refused size_of_ram 16 'ram:64M is no file' mkfs.blobfs -s 64M ram:64M
refused small_ram 8 'ram:1M' mkfs.blobfs ram:1M
refused ram_of_nonsense 8 'ram:x' mkfs.blobfs ram:x
[ -e new.img ] && bad errors_make_no_file 'new.img is there' || ok errors_make_no_file
if [ "$(id -u)" = 0 ]; then
	for_nobody
	truncate -s 64M secret.img && chmod 600 secret.img
	refused no_permission 8 'secret.img: Permission denied' $as_nobody "$nobodys/bin/mkfs.blobfs" secret.img
	refused no_permission_to_make 8 'Permission denied' $as_nobody "$nobodys/bin/mkfs.blobfs" -s 64M "$tmp/mine.img"
else
	echo "skip $suite/no_permission: not root"
fi
run sh -c 'mkfs.blobfs -s 64M out.img >/dev/full'
[ $code = 8 ] && ok output_that_cannot_be_written || bad output_that_cannot_be_written "exit code $code"

# ---- in use: -f does not help
mkfs.blobfs -q -s 64M busy.img
mkfifo hold
blobfs put busy.img hold /held >/dev/null 2>&1 &
pids=$!
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	[ -n "$(cat /proc/$pids/fdinfo/* 2>/dev/null | grep OFDLCK)" ] && break
	sleep 0.1
done
refused in_use 8 "busy.img is in use: process $pids (blobfs) has it open" mkfs.blobfs -f busy.img
refused in_use_dry_run 8 'in use' mkfs.blobfs -n -f busy.img
kill -9 $pids; wait $pids 2>/dev/null; pids=
is free_again 0 '' mkfs.blobfs -q -f busy.img
if [ "$(id -u)" = 0 ] && loop=$(losetup --show -f ext4.img 2>/dev/null); then
	refused behind_a_loop_device 8 "attached to $loop" mkfs.blobfs -f ext4.img
	is block_device 0 '64 MiB' mkfs.blobfs -f "$loop"
	refused size_of_block_device 16 'is a block device' mkfs.blobfs -f -s 64M "$loop"
	is fsck_block_device 0 'clean' fsck.blobfs -n -f "$loop"
	mkfs.ext4 -q -F "$loop" 2>/dev/null && mkdir -p m && if mount "$loop" m 2>/dev/null; then
		refused mounted_block_device 8 "mounted on $tmp/m" mkfs.blobfs -f "$loop"
		umount m
	else
		echo "skip $suite/mounted_block_device: cannot mount ext4 here"
	fi
	losetup -d "$loop"
	loop=
else
	loop=
	echo "skip $suite/block_device: no loop device here"
fi
exit $status
