#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Checksums of data (mkfs.blobfs -O datasum): damage is found, named, never returned, and repaired as far as it can be; in an image and in a mount.
# timeout: 120
suite=datasum
. "$(dirname "$0")/../tools/lib.sh"

# flip IMAGE BLOCK: one bit of a block of the device.
flip() {
	python3 -c 'import sys; f=open(sys.argv[1],"r+b"); f.seek(int(sys.argv[2])*4096+1234); b=f.read(1)[0]; f.seek(-1,1); f.write(bytes([b^4]))' "$1" "$2"
}
# uses IMAGE USE: the blocks of the device that are used so.
uses() {
	blobfs dump "$1" --json space | python3 -c 'import json,sys; print(*(e["block"] for e in json.load(sys.stdin)["pieces"] if e["use"] == sys.argv[1]))' "$2"
}

mkdir src && cp -r "$root/tools" src/ && head -c 24000000 /dev/urandom >src/big
refused no_such_feature 16 "no feature 'crc'" mkfs.blobfs -O crc -s 96M none.img
is mkfs_without 0 '' mkfs.blobfs -q -O ^datasum -s 64M plain.img
is info_without 0 'data checksums *0' blobfs info plain.img
is mkfs 0 '' mkfs.blobfs -q -O datasum -s 96M good.img
is info 0 'data checksums *1' blobfs info good.img
blobfs put -r good.img src /tree || bad put 'cannot fill the image'
sound sound good.img
is scrub 0 ' 0 found' blobfs scrub good.img
is numbers 0 'pages of checksums' blobfs stat --fs good.img
blobfs get -r good.img /tree out && diff -r src out >/dev/null && ok content || bad content 'something differs'

# ---- what is in it
is dump_checksums 0 'checksums at block .*: good' blobfs dump good.img checksums
is dump_space 0 ' checksums' blobfs dump good.img space
run blobfs dump good.img --json -v checksums
[ $code = 0 ] && python3 -c 'import json; d=json.load(open(".out"))["pieces"]; assert d and all(p["first"] % 1008 == 0 and len(p["sums"].split()) == 1008 for p in d)' &&
	ok dump_json || bad dump_json "exit code $code, or not what it should be"
is metadump 0 '' blobfs metadump good.img meta
is metarestore 0 '' blobfs metarestore copy.img meta
sound metarestored_is_sound copy.img
[ "$(uses copy.img checksums)" = "$(uses good.img checksums)" ] && ok metarestored_checksums || bad metarestored_checksums 'they are elsewhere'
is scramble 0 '' blobfs metadump --scramble good.img secret && blobfs metarestore secret.img secret
sound scrambled_is_sound secret.img
run blobfs dump secret.img --json -v checksums
[ $code = 0 ] && python3 -c 'import json; assert not any(p["sums"].strip("0 ") for p in json.load(open(".out"))["pieces"])' &&
	ok scrambled_has_none || bad scrambled_has_none 'checksums of data tell what it is'

# ---- a block of data is damaged
ino=$(blobfs stat good.img /tree/big | sed -n 's/.*[Ii]node:* *\([0-9]*\).*/\1/p' | head -1)
block=$(blobfs dump good.img --json space | python3 -c 'import json,sys; e=[e for e in json.load(sys.stdin)["pieces"] if e.get("blob") == int(sys.argv[1])]; print(e[len(e)//2]["block"])' "$ino")
cp --sparse=always good.img data.img && flip data.img "$block"
sound checking_reads_no_data data.img
is read_fails 1 'Input/output error' blobfs cat data.img /tree/big
blobfs cat data.img /tree/big 2>.err | cmp - src/big 2>&1 | grep -q 'EOF on -' && ok nothing_wrong_is_returned || bad nothing_wrong_is_returned 'wrong bytes, or all of them'
grep -q "blob $ino, byte [0-9]*, device block $block: its checksum is wrong" .err && ok read_names_it || bad read_names_it "not blob $ino and block $block"
run blobfs scrub data.img --json
[ $code = 4 ] && python3 -c '
import json, sys
d = json.load(open(".out"))
f = d["found"]
assert d["complete"] and len(f) == 1 and f[0]["what"] == "data" and f[0]["block"] == int(sys.argv[1]) and f[0]["path"] == "/tree/big", f' "$block" &&
	ok scrub_names_it || bad scrub_names_it "exit code $code, or not what it should be"
rm -rf out
run blobfs export --salvage data.img out
[ $code = 1 ] && diff -r src out/tree 2>/dev/null | grep -q big && [ "$(diff -rq src out/tree | wc -l)" = 1 ] && ok salvage_has_the_rest ||
	bad salvage_has_the_rest "exit code $code, or more is missing"

# ---- a page of checksums is damaged
set -- $(uses good.img checksums)
cp --sparse=always good.img sums.img && flip sums.img "$2"
is fsck_finds_it 4 'sum-page' fsck.blobfs -n -v sums.img
is scrub_finds_it 4 "at block $2" blobfs scrub sums.img
is fsck_repairs_it 1 '' fsck.blobfs -y sums.img
sound repaired_is_sound sums.img
is repaired_scrub 0 ' 0 found' blobfs scrub sums.img
rm -rf out
blobfs get -r sums.img /tree out && diff -r src out >/dev/null && ok repaired_content || bad repaired_content 'something differs'

# ---- a mount
if ! [ -w /dev/fuse ]; then
	echo "skip $suite/mount: /dev/fuse cannot be opened here"
	exit $status
fi
mkdir mnt
cp --sparse=always good.img live.img
mount.blobfs live.img mnt >.out 2>.err && mounted=$PWD/mnt || { bad mount 'cannot mount'; exit 1; }
for i in 1 2 3; do
	dd if=/dev/urandom of=mnt/tree/big bs=4500 count=300 seek=$((i * 900)) conv=notrunc,fsync status=none
	cp mnt/tree/big "mnt/copy$i" && rm -f "mnt/copy$((i - 1))"
	printf 'line %d\n' "$i" >>mnt/log && sync mnt/log
done
cp mnt/tree/big now && is mounted_scrub 0 ' 0 found' blobfs scrub mnt
umount mnt && mounted= && mount.blobfs live.img mnt && mounted=$PWD/mnt || bad remount 'cannot mount again'
cmp now mnt/tree/big && cmp now mnt/copy3 && [ "$(wc -l <mnt/log)" = 3 ] && ok mounted_content || bad mounted_content 'something differs'
umount mnt && mounted=
sound mounted_is_sound live.img
block=$(blobfs dump live.img --json space | python3 -c 'import json,sys; e=[e for e in json.load(sys.stdin)["pieces"] if e.get("blob") == int(sys.argv[1])]; print(e[0]["block"])' "$ino")
flip live.img "$block"
mount.blobfs live.img mnt && mounted=$PWD/mnt || bad remount_damaged 'cannot mount'
is mounted_read_fails 1 'Input/output error' cat mnt/tree/big
is mounted_scrub_finds_it 4 "$block" blobfs scrub mnt
umount mnt && mounted=
exit $status
