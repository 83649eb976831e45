#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# blobfs scrub: of an image, and of a mount in use.
# timeout: 120
suite=scrub
. "$(dirname "$0")/../tools/lib.sh"
patch=$root/test/tools/patch.py

mkdir src && cp -r "$root/tools" src/ && head -c 20000000 /dev/urandom >src/big
mkfs.blobfs -q -s 96M good.img
blobfs put -r good.img src /tree || bad put 'cannot fill the image'

# ---- an image
is sound 0 'metadata read, 0 found' blobfs scrub good.img
run blobfs scrub good.img --json
[ $code = 0 ] && python3 -c 'import json; d=json.load(open(".out")); assert d["complete"] and not d["found"] and d["data_bytes"] > 20000000 and d["metadata_bytes"]' &&
	ok json || bad json "exit code $code, or not what it should be"
unchanged scrub_writes_nothing good.img blobfs scrub good.img
start=$(date +%s%N)
run blobfs scrub --rate 40M good.img
[ $code = 0 ] && [ $((($(date +%s%N) - start) / 1000000)) -gt 400 ] && ok rate || bad rate "exit code $code, or too fast"
refused rate_nonsense 2 'rate' blobfs scrub --rate much good.img
refused missing 1 'missing.img' blobfs scrub missing.img
cp --sparse=always good.img pages.img && "$patch" pages pages.img
is damaged_checkpoint 4 'checkpoint' blobfs scrub pages.img
cp --sparse=always good.img super.img && "$patch" break super.img first
is damaged_superblock 4 'superblock at block 0: its checksum is wrong' blobfs scrub super.img
run blobfs scrub super.img --json
[ $code = 4 ] && python3 -c 'import json; d=json.load(open(".out")); assert d["findings"] == 1 and d["found"][0]["what"] == "superblock" and d["found"][0]["block"] == 0' &&
	ok json_damage || bad json_damage "exit code $code, or not what it should be"
refused no_mount 1 'no BlobFS is mounted' blobfs scrub .

# ---- a mount
if ! [ -w /dev/fuse ]; then
	echo "skip $suite/mount: /dev/fuse cannot be opened here"
	exit $status
fi
mkdir mnt
mount.blobfs good.img mnt >.out 2>.err || { bad mount 'cannot mount'; exit 1; }
mounted=$PWD/mnt
is mounted 0 'metadata read, 0 found' blobfs scrub mnt
refused mounted_image 1 'in use' blobfs scrub good.img
(for i in 1 2 3 4 5 6 7 8; do cp mnt/tree/big mnt/copy$i && rm mnt/copy$i && sync mnt; done) &
writer=$!
is beside_a_writer 0 ' 0 found' blobfs scrub mnt
is beside_a_writer_again 0 ' 0 found' blobfs scrub mnt
wait $writer

# Its own thread goes on without us, one at a time; told to end, it ends.
blobfs scrub --rate 1M mnt >.first 2>&1 &
first=$!
pids=$first
sleep 0.5
refused one_at_a_time 1 'busy' blobfs scrub mnt
kill -INT $first
wait $first
code=$?
pids=
[ $code = 1 ] && grep -q 'not complete' .first && ok interrupted || bad interrupted "exit code $code"
is after_the_interrupted 0 ' 0 found' blobfs scrub mnt
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	for_nobody
	refused not_for_others 1 'ot permitted' $as_nobody "$nobodys/bin/blobfs" scrub mnt
fi

# In the background.
is stop_nothing 0 ' 0 found' blobfs scrub --stop mnt
is background 0 '' blobfs scrub --background --rate 1M mnt
is status 0 'of [0-9]* bytes of data [0-9]* bytes and .* still running' blobfs scrub --status mnt
run blobfs scrub --status --json mnt
[ $code = 0 ] && python3 -c 'import json; d=json.load(open(".out")); assert d["running"] and not d["complete"] and d["total_bytes"] > 20000000' &&
	ok status_json || bad status_json "exit code $code, or not what it should be"
refused background_busy 1 'busy' blobfs scrub --background mnt
is stop 0 'not complete' blobfs scrub --stop mnt
is background_again 0 '' blobfs scrub --background mnt
sleep 2
is status_at_the_end 0 'metadata read, 0 found$' blobfs scrub --status mnt
refused background_image 2 'not a mount point' blobfs scrub --background super.img

# The checkpoint is damaged under the mount.
sync mnt/tree/big
umount mnt && mounted= && mount.blobfs good.img mnt && mounted=$PWD/mnt || bad remount 'cannot mount again'
"$patch" pages good.img
is damaged_while_mounted 4 'page at block .*: its checksum is wrong' blobfs scrub mnt

# It goes on when who began it is gone; an unmount does not wait for it.
blobfs scrub --rate 1M mnt >/dev/null 2>&1 &
sleep 0.3
kill -9 $!
wait $!
refused goes_on_alone 1 'busy' blobfs scrub mnt
timeout 20 umount mnt && mounted= && ok unmount_ends_it || bad unmount_ends_it 'it took too long'
exit $status
