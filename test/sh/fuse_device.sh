#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# A file system and its device: growing into it, discarding and trimming, mounted and not, and every careless use.
# timeout: 200
suite=fuse_device
. "$(dirname "$0")/../fuse/lib.sh"

says() { # NAME CODE PATTERN COMMAND...
	name=$1 code=$2 pattern=$3
	shift 3
	"$@" >"$tmp/out" 2>&1
	got=$?
	[ "$got" = "$code" ] || { bad "$name" "exit code $got, not $code"; return; }
	grep -q -e "$pattern" "$tmp/out" && good "$name" || bad "$name" "it does not say $pattern"
}
size() { df --output=size -B1 "$mnt" | tail -1; }
disk() { sync; du -k "$img" | cut -f1; }
# Until the image takes at most so many KiB.
await_disk() {
	for _ in $(seq 100); do
		[ "$(du -k "$img" | cut -f1)" -le "$1" ] && return 0
		sleep 0.1
	done
	return 1
}

# ---- growing, mounted
new_image 64M
mount_image
echo before >"$mnt/before"
dd if=/dev/urandom of="$mnt/keep" bs=1M count=8 conv=fsync 2>/dev/null
sum=$(sha256sum <"$mnt/keep")
says grow_of_a_device_that_has_not_grown 0 'has 64.*(67108864 bytes)' blobfs grow "$mnt"
dd if=/dev/urandom of="$mnt/full" bs=1M count=200 conv=fsync >"$tmp/out" 2>&1 && bad fills "200 MiB in 64" || good fills
says full_before 1 'No space' dd if=/dev/zero of="$mnt/more" bs=1M count=20 conv=fsync
says grow_past_the_device 1 'the device has 67108864 bytes' blobfs grow --size 128M "$mnt"
truncate -s 256M "$img"
says grow_to_a_size 0 '134217728 bytes' blobfs grow --size 128M "$mnt"
verdict who_was_full_goes_on "no space" dd if=/dev/zero of="$mnt/more" bs=1M count=20 conv=fsync
says grow_by_the_device 0 '268435456 bytes' blobfs grow "$img"
[ "$(size)" = 268435456 ] && good df_shows_it || bad df_shows_it "$(size)"
verdict the_new_space_is_used "no space" dd if=/dev/urandom of="$mnt/more" bs=1M count=70 conv=fsync
says shrink_is_refused 1 'cannot be made smaller' blobfs grow --size 200M "$mnt"
says grow_in_json 0 '"size": *268435456' blobfs grow --json "$mnt"
says grow_needs_a_size 2 'is not a size' blobfs grow --size huge "$mnt"
says grow_to_nothing 2 'size 0' blobfs grow --size 0 "$mnt"
says grow_of_another_directory 1 'not in a mounted BlobFS' blobfs grow "$tmp"
says trim_of_another_directory 1 . blobfs trim "$tmp/img.none"
says numbers_of_ioctl_are_checked 0 ENOTTY python3 - "$mnt" <<'END'
import errno, fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
for cmd in (0xc001b101, 0xc00cb101, 0x5421 + 0x100, 0x8010b102, 0xc1085879):
    try:
        fcntl.ioctl(fd, cmd, bytearray((cmd >> 16) & 0x3fff))
        print("accepted", hex(cmd)); sys.exit(1)
    except OSError as e:
        print(errno.errorcode[e.errno])
        if e.errno not in (errno.ENOTTY, errno.EINVAL): sys.exit(1)
END
if [ "$(id -u)" = 0 ]; then
	. "$root/test/tools/nobody.sh"
	for_nobody
	says only_root_may 1 'Operation not permitted' $as_nobody "$nobodys/bin/blobfs" grow "$mnt"
fi
unmount_image
check_image grown && good grown_image_is_whole

# ---- growing, not mounted, and at mounting
truncate -s 300M "$img"
says grow_of_a_file 0 '314572800 bytes' blobfs grow "$img"
truncate -s 320M "$img"
mount_image
[ "$(size)" = 314572800 ] && good not_grown_unasked || bad not_grown_unasked "$(size)"
remount -o grow
[ "$(size)" = 335544320 ] && good grown_at_mounting || bad grown_at_mounting "$(size)"
[ "$(sha256sum <"$mnt/keep")" = "$sum" ] && [ "$(cat "$mnt/before")" = before ] && good nothing_is_lost || bad nothing_is_lost "files differ"
kill_daemon
check_image grown_and_killed && good grown_and_killed
[ -n "$TEST_DEVICE" ] && exit $status

# ---- discards
new_image 128M
mount_image -o discard
dd if=/dev/urandom of="$mnt/a" bs=1M count=40 conv=fsync 2>/dev/null
dd if=/dev/urandom of="$mnt/b" bs=1M count=5 conv=fsync 2>/dev/null
sum=$(sha256sum <"$mnt/b")
[ "$(disk)" -gt 40000 ] && good written || bad written "$(disk) KiB"
rm "$mnt/a"
await_disk 20000 && good discarded_by_itself || bad discarded_by_itself "$(disk) KiB"
remount
dd if=/dev/urandom of="$mnt/a" bs=1M count=40 conv=fsync 2>/dev/null
rm "$mnt/a"
sleep 2
[ "$(disk)" -gt 40000 ] && good nothing_without_the_option || bad nothing_without_the_option "$(disk) KiB"
if command -v fstrim >/dev/null; then
	says fstrim 0 trimmed fstrim -v "$mnt"
else
	says trim 0 trimmed blobfs trim -v "$mnt"
fi
await_disk 20000 && good trimmed || bad trimmed "$(disk) KiB"
says trim_of_a_part 0 '(1048576 bytes) trimmed\|(0 bytes) trimmed' blobfs trim -v --offset 48M --length 1M --minimum 1M "$mnt"
says trim_past_the_end 1 'Invalid argument' blobfs trim --offset 1G "$mnt"
[ "$(sha256sum <"$mnt/b")" = "$sum" ] && good trim_takes_what_is_free || bad trim_takes_what_is_free "a file differs"
dd if=/dev/urandom of="$mnt/a" bs=1M count=40 conv=fsync 2>/dev/null
rm "$mnt/a"
unmount_image
says trim_of_a_file 0 'bytes) trimmed' blobfs trim -v "$img"
[ "$(disk)" -lt 20000 ] && good trimmed_file || bad trimmed_file "$(disk) KiB"
mount_image -o discard=1M
[ "$(sha256sum <"$mnt/b")" = "$sum" ] && good still_there || bad still_there "a file differs"
unmount_image
check_image trimmed && good trimmed_image_is_whole
# ---- numbers
mount_image
dd if=/dev/urandom of="$mnt/a" bs=1M count=20 conv=fsync 2>/dev/null
says info_of_a_mount 0 'size of the device *128' blobfs info "$mnt"
says info_of_what_is_mounted 0 'size of the device *128' blobfs info "$img"
says stat_of_a_mount 0 'write amplification *1[.]' blobfs stat --fs "$mnt"
says stat_tells_of_streams 0 'data by stream.*unknown 2[0-9].* MiB, meta 0 B, short 0 B' blobfs stat --fs "$mnt"
blobfs stat --fs --json "$img" >"$tmp/json"
says stat_in_json 0 fine python3 - "$tmp/json" <<'END'
import json, sys
d = json.load(open(sys.argv[1]))
mib = 1 << 20
assert d["written"] >= 20 * mib and d["data_by_stream"]["unknown"] >= 20 * mib, d
assert d["device_writes"] == sum(d["device_writes_" + w] for w in ("data", "log", "checkpoint", "zeroing", "other")), d
assert d["device_writes_other"] == 0 and d["device_writes_zeroing"] == 0 and d["device_writes_checkpoint"] >= 8192, d
assert 1 <= d["write_amplification"] < 1.5, d
assert len(d["lock_held"]["below_us_power_of_two"]) == 28, d
print("fine")
END
says hint_takes_the_stream 0 fine python3 - "$mnt" <<'END'
import errno, fcntl, os, struct, sys
SET = 0x4008b103
fd = os.open(sys.argv[1] + "/hinted", os.O_WRONLY | os.O_CREAT)
fcntl.ioctl(fd, SET, struct.pack("Q", 2))  # short
os.write(fd, b"x" * (4 << 20)); os.fsync(fd)
for bad in (6, 2 ** 40):
    try: fcntl.ioctl(fd, SET, struct.pack("Q", bad)); sys.exit("accepted %d" % bad)
    except OSError as e: assert e.errno == errno.EINVAL
for path in (".", "a"):
    try: fcntl.ioctl(os.open(sys.argv[1] + "/" + path, os.O_RDONLY), SET, struct.pack("Q", 2)); sys.exit("accepted " + path)
    except OSError as e: assert e.errno == errno.EINVAL, e
print("fine")
END
says stat_shows_the_stream 0 'short 4[.0-9]* MiB' blobfs stat --fs "$mnt"
says stat_of_another_directory 1 'not in a mounted BlobFS' blobfs stat --fs "$tmp"
says stat_with_a_path_too 2 'too many' blobfs stat --fs "$mnt" /a
unmount_image
says stat_of_a_file 0 'write amplification *-' blobfs stat --fs "$img"
mount_image
mkdir "$mnt/only-a-name" && sync "$mnt/only-a-name"
says stat_after_names_only 0 'write amplification *-' blobfs stat --fs "$mnt"
blobfs stat --fs --json "$mnt" >"$tmp/json"
says stat_after_names_only_in_json 0 fine python3 - "$tmp/json" <<'END'
import json, sys
d = json.load(open(sys.argv[1]))
assert d["write_amplification"] is None and d["written"] == 0 and d["device_writes_log"] > 0 and d["device_writes_other"] == 0, d
print("fine")
END
unmount_image
says discard_of_no_size 1 'not a size' mount.blobfs -o discard=often "$img" "$mnt"
exit $status
