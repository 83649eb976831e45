#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# blobfs dump, metadump, metarestore, export: of sound and of damaged images.
# timeout: 240
suite=tools_dump
. "$(dirname "$0")/../tools/lib.sh"
patch=$root/test/tools/patch.py

mkdir src && cp -r "$root/tools" "$root/LICENSE" src/ && ln -s LICENSE src/link
mkfs.blobfs -q -s 64M -L secret-label good.img
blobfs put -r good.img src /tree || bad put 'cannot fill the image'

# ---- dump
is dump_super 0 'superblock at block 8192: good' blobfs dump good.img super
is dump_super_fields 0 'label: secret-label' blobfs dump good.img super
is dump_log 0 'segment at block' blobfs dump good.img log
is dump_log_tells_of_the_store 0 'label: secret-label' blobfs dump good.img log
is dump_checkpoint 0 'type: leaf' blobfs dump good.img checkpoint
is dump_checkpoint_superblock 0 'type: superblock' blobfs dump good.img checkpoint
is dump_checkpoint_superblock_label 0 'label: secret-label' blobfs dump good.img checkpoint
[ "$(blobfs dump good.img | grep -c 'type: superblock')" = 1 ] && ok dump_all_has_it_once || bad dump_all_has_it_once 'it has not'
is dump_records 0 'put header 1: size' blobfs dump good.img checkpoint -v
is dump_blob 0 'put header 1:' blobfs dump good.img blob 1
blobfs dump good.img blob 2 >.one && ! grep -q 'header 1:' .one && grep -q 'header 2:' .one && ok dump_one_blob || bad dump_one_blob 'others are there, or it is not'
is dump_space 0 ' free' blobfs dump good.img space
is dump_space_data 0 'data, blob' blobfs dump good.img space
for what in super log checkpoint all 'blob 1' space; do
	run blobfs dump good.img --json -v $what
	[ $code = 0 ] && python3 -c 'import json,sys; d=json.load(open(".out")); sys.exit(not(d["device"]=="good.img" and d["pieces"]))' &&
		ok "dump_json: $what" || bad "dump_json: $what" "exit code $code, or no JSON with pieces"
done
unchanged dump_writes_nothing good.img blobfs dump good.img -v
python3 - <<'PY' && ok space_is_covered_once || bad space_is_covered_once 'a gap, an overlap, or a wrong end'
import json, subprocess, sys
d = json.loads(subprocess.check_output(["blobfs", "dump", "good.img", "--json", "space"]))
at = 0
for e in d["pieces"]:
    if e["block"] != at: sys.exit(f"at {at}: {e}")
    at += e["blocks"]
sys.exit(at != 64 * 256)
PY
refused dump_nothing 2 'what to dump' blobfs dump good.img nonsense
refused dump_blob_nothing 2 'number' blobfs dump good.img blob
refused dump_missing 1 'missing.img' blobfs dump missing.img

# damaged: each structure by itself
cp --sparse=always good.img super.img && "$patch" break super.img first
is dump_broken_super 0 'superblock at block 0: its checksum is wrong' blobfs dump super.img super
is dump_other_super 0 'leaf' blobfs dump super.img checkpoint
cp --sparse=always good.img pages.img && "$patch" pages pages.img
is dump_broken_pages 0 'page at block .*: its checksum is wrong' blobfs dump pages.img
is dump_space_of_damaged 0 'free' blobfs dump pages.img space
cp --sparse=always good.img both.img && "$patch" break both.img both
refused dump_without_superblock 1 'not known where' blobfs dump both.img log
dd if=/dev/urandom of=garbage.img bs=1M count=48 status=none
is dump_garbage_super 0 'it is no superblock' blobfs dump garbage.img super

# ---- export
is export 0 '' blobfs export good.img out
diff -r --no-dereference src out/tree >/dev/null && ok export_is_the_same || bad export_is_the_same 'something differs'
cp --sparse=always both.img salvage.img
refused export_needs_salvage 1 'superblock' blobfs export salvage.img out2
unchanged salvage_writes_nothing salvage.img blobfs export --salvage salvage.img out3
diff -r --no-dereference src out3/tree >/dev/null && ok salvage_without_superblocks || bad salvage_without_superblocks 'something differs'
refused salvage_garbage 1 'nothing on the device' blobfs export --salvage garbage.img out4

# ---- metadump
is metadump 0 '' blobfs metadump good.img good.meta
[ "$(stat -c %s good.meta)" -lt 2000000 ] && ok metadump_is_small || bad metadump_is_small "$(stat -c %s good.meta) bytes"
! grep -q 'Redistribution and use' good.meta && ok metadump_has_no_data || bad metadump_has_no_data 'a file is in it'
refused metadump_never_overwrites 1 'exists' blobfs metadump good.img good.meta
is metarestore 0 '' blobfs metarestore copy.img good.meta
sound metarestored_is_sound copy.img
blobfs ls -lR good.img / >.a; blobfs ls -lR copy.img / >.b
cmp -s .a .b && ok metarestored_names || bad metarestored_names 'names, sizes or times differ'
refused metarestore_over_something 1 'is there' blobfs metarestore good.img good.meta
is metarestore_force 0 '' blobfs metarestore copy.img good.meta -f
is metadump_of_damaged 0 '' blobfs metadump pages.img pages.meta
is metarestore_of_damaged 0 '' blobfs metarestore pages2.img pages.meta
is damage_is_kept 4 'page-checksum' fsck.blobfs -n pages2.img
head -c $(($(stat -c %s good.meta) - 20)) good.meta >short.meta
refused metarestore_short 1 'damaged' blobfs metarestore none.img short.meta
[ ! -e none.img ] && ok metarestore_short_makes_nothing || bad metarestore_short_makes_nothing 'an image is there'
python3 -c 'd=bytearray(open("good.meta","rb").read()); d[len(d)//2]^=1; open("flip.meta","wb").write(d)'
refused metarestore_flipped 1 'damaged' blobfs metarestore none.img flip.meta
refused metarestore_other_file 1 'no file of metadump' blobfs metarestore none.img "$root/LICENSE"

# ---- scrambled
is scramble 0 '' blobfs metadump --scramble good.img secret.meta
! grep -aq -e secret-label -e LICENSE -e common.c secret.meta && ok scrambled_is_unreadable || bad scrambled_is_unreadable 'names can be read'
is scrambled_restore 0 '' blobfs metarestore secret.img secret.meta
sound scrambled_is_sound secret.img
refused scrambled_does_not_mount 1 'unreadable names' blobfs ls secret.img /
fsck.blobfs --json good.img >.a; fsck.blobfs --json secret.img >.b
python3 -c 'import json,sys; a,b=(json.load(open(f)) for f in (".a",".b")); sys.exit(any(a[k]!=b[k] for k in ("files","directories","symlinks","bytes")))' &&
	ok scrambled_counts || bad scrambled_counts 'it is not the same tree'
exit $status
