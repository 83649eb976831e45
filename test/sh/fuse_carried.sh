#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Little files that were synced just before a crash: their bytes are in the log. They are read from there, and no copy of metadata has them.
# timeout: 60
suite=fuse_carried
. "$(dirname "$0")/../fuse/lib.sh"

# says NAME PATTERN OPTION…: what stat --fs prints.
says() {
	name=$1 pattern=$2
	shift 2
	blobfs stat --fs "$@" >"$tmp/out" 2>&1 && grep -q -e "$pattern" "$tmp/out" && good "$name" || bad "$name" "it does not say $pattern"
}

text='bytes-that-only-the-log-carries'
new_image 64M
mount_image
for i in 1 2 3 4 5; do echo "$text-$i" >"$mnt/little$i"; done
inode=$(stat -c %i "$mnt/little3")
sync "$mnt"/little*
says stat_of_the_mount '^carried in the log  *[1-9]' "$mnt"
kill -9 "$pid"
await_end "$pid"
umount "$mnt"
check_image crashed
says stat_has_what_is_not_home '^  blocks not home yet  *5$' "$img"
says stat_has_it_in_json '"carried_blocks":5,' "$img" --json
blobfs dump "$img" log -v | grep -q 'put carried' && good in_the_log || bad in_the_log 'nothing is carried'
[ "$(blobfs cat "$img" /little3)" = "$text-3" ] && good read_from_there || bad read_from_there "it reads: $(blobfs cat "$img" /little3)"
blobcli "$img" export "$inode" "$tmp/exported" && [ "$(cat "$tmp/exported")" = "$text-3" ] && good exported_from_there ||
	bad exported_from_there "what is exported: $(tr -d '\0' <"$tmp/exported")"

# What a person sees of it by blobcli, and changes there.
size=$((${#text} + 3))
blobcli "$img" list | grep -q "^ *$inode  *$size  *0 .*bytes in the log" && good listed || bad listed "$(blobcli "$img" list)"
blobcli "$img" show "$inode" | grep -q "^  *0  *in the log, bytes 0 to $((size - 1)) " && good shown || bad shown "$(blobcli "$img" show "$inode")"
blobcli "$img" show "$inode" --json >"$tmp/json" && python3 - "$tmp/json" "$size" <<'PY' && good shown_in_json || bad shown_in_json "$(cat "$tmp/json")"
import json, sys
d, size = json.load(open(sys.argv[1])), int(sys.argv[2])
sys.exit(not (d["carried"] == size and d["in_log"] == [{"block": 0, "from": 0, "bytes": size}] and d["map"] == []))
PY
cp "$img" "$tmp/changed.img"
c() { blobcli "$tmp/changed.img" --force "$@"; }
copy=$(c snapshot "$inode") && [ "$(c read "$copy")" = "$text-3" ] && good copied || bad copied "the copy reads: $(c read "$copy")"
other=$((inode + 1))
c resize "$other" 5 && c resize "$other" "$size"
printf bytes >"$tmp/short" && truncate -s "$size" "$tmp/short"
c read "$other" | cmp -s - "$tmp/short" && good cut_off_is_gone || bad cut_off_is_gone "it reads: $(c read "$other" | tr -d '\0')"
c read "$inode" | cmp -s - "$tmp/exported" && good neighbour_stays || bad neighbour_stays "it reads: $(c read "$inode")"

# A copy of metadata: all of it, checksums right, and none of the bytes.
blobfs metadump "$img" "$tmp/meta" && ! grep -aq "$text" "$tmp/meta" && good no_data || bad no_data 'the bytes are in it'
blobfs metarestore "$tmp/copy.img" "$tmp/meta" && fsck.blobfs -n "$tmp/copy.img" >"$tmp/out" 2>&1 && good copy_is_sound ||
	bad copy_is_sound 'fsck finds something'
blobfs ls -l "$img" / >"$tmp/a"; blobfs ls -l "$tmp/copy.img" / >"$tmp/b"
cmp -s "$tmp/a" "$tmp/b" && good copy_has_the_names || bad copy_has_the_names 'names or sizes differ'
blobfs metadump --scramble "$img" "$tmp/scrambled" && ! grep -aq -e "$text" -e little "$tmp/scrambled" && good scrambled ||
	bad scrambled 'something can be read'

# Nor if the frame is damaged.
cp "$img" "$tmp/damaged.img"
python3 - "$tmp/damaged.img" "$text" <<'PY'
import sys
d = bytearray(open(sys.argv[1], "rb").read())
at = 0
while (at := d.find(sys.argv[2].encode(), at)) >= 0:
    d[at] ^= 0x20
    at += 1
open(sys.argv[1], "wb").write(d)
PY
blobfs metadump "$tmp/damaged.img" "$tmp/damaged.meta" && ! grep -aq "${text#?}" "$tmp/damaged.meta" && good no_damaged_data ||
	bad no_damaged_data 'the bytes are in it'

# Mounted again they come home, and stay.
mount_image
[ "$(cat "$mnt/little5")" = "$text-5" ] && good mounted || bad mounted "it reads: $(cat "$mnt/little5")"
unmount_image
check_image closed
says stat_has_nothing_any_more '^  blocks not home yet  *0$' "$img"
[ "$(blobfs cat "$img" /little1)" = "$text-1" ] && good home || bad home "it reads: $(blobfs cat "$img" /little1)"
exit $status
