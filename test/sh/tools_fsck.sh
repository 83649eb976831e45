#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# fsck.blobfs: every option, every exit code, damaged images, and every careless use.
# timeout: 240
suite=tools_fsck
. "$(dirname "$0")/../tools/lib.sh"
patch=$root/test/tools/patch.py

mkfs.blobfs -q -s 64M good.img
blobfs put -r good.img "$root/tools" /tree || bad put 'cannot fill the image'
ln -s target link && blobfs put -r good.img link /link

# ---- sound
for options in '' -n -p -y -f '-p -f' -a '-y -v'; do
	is "sound image: $options" 0 'good.img: clean' fsck.blobfs $options good.img
done
unchanged check_writes_nothing good.img fsck.blobfs -f good.img
is counts 0 ' 1 symlinks' fsck.blobfs good.img
is verbose_names_the_passes 0 'checking tree' fsck.blobfs -v good.img
is progress_of_fsck8 0 clean fsck.blobfs -C0 good.img
run fsck.blobfs --json good.img
[ $code = 0 ] && python3 -c 'import json,sys; d=json.load(open(".out")); sys.exit(not(d["problems"]==[] and d["exit"]==0
	and d["closed_in_order"] and d["symlinks"]==1 and d["device"]=="good.img" and len(d["uuid"])==36))' &&
	ok json || bad json 'it is not as it should be'
is version 0 '^fsck.blobfs [0-9]' fsck.blobfs --version
is help 0 'Exit:' fsck.blobfs -h

# ---- not closed in order: a program is killed while it waits for more, after its commit
cp --sparse=always good.img died.img
mkfifo hold
blobfs mkdir died.img /dir
blobfs put died.img "$root/README.md" "$root/LICENSE" hold /dir >/dev/null 2>&1 &
pids=$!
sleep 0.5
refused in_use 8 "died.img is in use: process $pids (blobfs) has it open; unmount it first" fsck.blobfs died.img
refused in_use_preen 8 'in use' fsck.blobfs -p died.img
sleep 2
kill -9 $pids; wait $pids 2>/dev/null; pids=
cp --sparse=always died.img died2.img
is replays_in_memory 0 'was not closed in order; the log .* was replayed in memory only' fsck.blobfs -n died.img
unchanged replay_in_memory_writes_nothing died.img fsck.blobfs -n died.img
is preen_replays 1 'was replayed$' fsck.blobfs -p died.img
is then_it_is_closed 0 'died.img: clean' fsck.blobfs -n died.img
blobfs cat died.img /dir/LICENSE >.got && cmp -s .got "$root/LICENSE" && ok what_was_committed_is_there || bad what_was_committed_is_there 'it is not'
is yes_replays 1 'was replayed$' fsck.blobfs -y died2.img
is yes_again 0 clean fsck.blobfs -y died2.img

# ---- damaged
damaged() { # NAME PATTERN IMAGE: -n and -p find it, and write nothing
	is "$1" 4 "$2" fsck.blobfs -n "$3"
	unchanged "$1: -n writes nothing" "$3" fsck.blobfs -n "$3"
	unchanged "$1: -p writes nothing" "$3" fsck.blobfs -p "$3"
	is "$1: -p finds it" 4 "$2" fsck.blobfs -p "$3"
	run fsck.blobfs --json "$3"
	[ $code = 4 ] && python3 -c 'import json,sys; d=json.load(open(".out")); sys.exit(not(d["problems"] and d["exit"]==4
		and all(p["code"] and p["text"] for p in d["problems"])))' && ok "$1: json" || bad "$1: json" "exit code $code"
	refused "$1: info refuses" 1 "$3" blobfs info "$3"
	refused "$1: put refuses" 1 "$3" blobfs put "$3" "$root/LICENSE" /new
}
cp --sparse=always good.img pages.img && "$patch" pages pages.img
damaged pages page-checksum pages.img
cp --sparse=always pages.img pages2.img
is "pages: repaired" 1 'none left' fsck.blobfs -y pages.img
sound "pages: sound then" pages.img
is "pages: the root is there" 0 '' blobfs ls pages.img
run fsck.blobfs -y --json pages2.img
[ $code = 1 ] && python3 -c 'import json,sys; d=json.load(open(".out")); sys.exit(not(d["problems"] and d["repairs"] and d["left"]==0
	and d["exit"]==1 and all(p["code"] and p["text"] for p in d["repairs"])))' && ok "pages: repaired, in json" ||
	bad "pages: repaired, in json" "exit code $code"
cp --sparse=always good.img super.img && "$patch" break super.img both
damaged superblocks superblock super.img
unchanged "superblocks: -y writes nothing" super.img fsck.blobfs -y super.img
is "superblocks: -y cannot" 4 'superblock' fsck.blobfs -y super.img
refused "superblocks: -n does not rebuild" 16 rebuild fsck.blobfs -n --rebuild super.img
is "superblocks: rebuilt" 1 'none left' fsck.blobfs --rebuild super.img
sound "superblocks: sound then" super.img
blobfs cat super.img /tree/common/common.c | cmp -s - "$root/tools/common/common.c" && ok "superblocks: nothing is lost" ||
	bad "superblocks: nothing is lost" 'a file is not what it was'
cp --sparse=always good.img wiped.img
dd if=/dev/zero of=wiped.img bs=4096 count=1 conv=notrunc status=none
dd if=/dev/zero of=wiped.img bs=4096 seek=8192 count=1 conv=notrunc status=none
refused "wiped superblocks: no store" 8 'not a BlobFS' fsck.blobfs -y wiped.img
is "wiped superblocks: rebuilt" 1 'none left' fsck.blobfs --rebuild wiped.img
sound "wiped superblocks: sound then" wiped.img
blobfs cat wiped.img /tree/common/common.c | cmp -s - "$root/tools/common/common.c" && ok "wiped superblocks: nothing is lost" ||
	bad "wiped superblocks: nothing is lost" 'a file is not what it was'
mkfs.blobfs -q -s 64M fresh.img
dd if=/dev/zero of=fresh.img bs=4096 count=1 conv=notrunc status=none
dd if=/dev/zero of=fresh.img bs=4096 seek=8192 count=1 conv=notrunc status=none
is "fresh and wiped: rebuilt" 1 'none left' fsck.blobfs --rebuild fresh.img
for copy in first second; do
	cp --sparse=always good.img $copy.img && "$patch" break $copy.img $copy
	is "one good superblock is enough: not the $copy" 0 '' blobfs cat $copy.img /tree/common/common.c
	cp --sparse=always $copy.img again.img
	is "the $copy superblock is found" 4 superblock-copy fsck.blobfs -n $copy.img
	is "the $copy superblock is mended" 1 'both were written anew' fsck.blobfs -y $copy.img
	sound "the $copy superblock is sound then" $copy.img
	is "the $copy superblock is mended at boot" 1 'both were written anew' fsck.blobfs -p -f again.img
	run blobfs mkdir $copy.img /new
	sound "a writer mends the $copy superblock" $copy.img
done

# ---- very many of a kind
mkdir many && for i in $(seq 60); do echo "$i" >many/$i; done
mkfs.blobfs -q -s 64M many.img && blobfs put -r many.img many /
blobcli many.img --force delete $(blobfs ls many.img -i /many | awk '{ print $1 }') || bad many 'cannot delete inodes'
is "many: counted" 4 ': and 40 more of this kind (-v shows all)$' fsck.blobfs -n many.img
[ "$(wc -l <.out)" -lt 60 ] && ok "many: few lines" || bad "many: few lines" "$(wc -l <.out)"
run fsck.blobfs -n -v many.img
[ "$(grep -c "^[a-z]*: [a-z-]*: " .out)" -ge 60 ] && ! grep -q 'more of this kind' .out && ok "many: all with -v" || bad "many: all with -v" 'they are not there'
run fsck.blobfs -n --json many.img
python3 -c 'import json; d=json.load(open(".out")); c={x["code"]: x["count"] for x in d["problem_counts"]}
of=lambda k: sum(p["code"]==k for p in d["problems"])
assert 60 in c.values() and all(of(k)==min(n,20) for k,n in c.items()) and d["left"]==sum(c.values()), d' &&
	ok "many: counted in json" || bad "many: counted in json" 'numbers are wrong'
is "many: repairs are counted" 1 '^repair: .*: and 40 more of this kind' fsck.blobfs -y many.img
sound "many: sound then" many.img

# ---- not for this program
cp --sparse=always good.img newer.img && "$patch" super newer.img 12 2 9
refused newer_version 8 'newer.img.*version 9' fsck.blobfs newer.img
refused newer_version_info 1 'newer.img.*version 9' blobfs info newer.img
unchanged newer_version_put newer.img blobfs put newer.img "$root/LICENSE" /x
unchanged newer_version_fsck newer.img fsck.blobfs -y newer.img
cp --sparse=always good.img feature.img && "$patch" super feature.img 152 8 0x8000
refused unknown_feature 8 'feature.img.*0x8000' fsck.blobfs feature.img
refused unknown_feature_ls 1 'feature.img.*0x8000' blobfs ls feature.img
cp --sparse=always good.img ro.img && "$patch" super ro.img 144 8 0x4
is unknown_ro_feature_reads 0 tree blobfs ls ro.img
refused unknown_ro_feature_writes 1 'read-only' blobfs mkdir ro.img /x
cp --sparse=always good.img short.img && truncate -s 50M short.img
refused truncated 8 'short.img.*16384 blocks.*12800' fsck.blobfs short.img
refused truncated_ls 1 'short.img.*16384 blocks' blobfs ls short.img
truncate -s 10M short.img
refused truncated_more 8 'short.img' fsck.blobfs short.img
dd if=/dev/urandom of=garbage.img bs=1M count=48 status=none
refused garbage 8 'garbage.img: not a BlobFS' fsck.blobfs garbage.img
unchanged garbage_yes garbage.img fsck.blobfs -y garbage.img
unchanged garbage_rebuild garbage.img fsck.blobfs --rebuild garbage.img
is garbage_rebuild_says 4 'nothing on the device tells of a store' fsck.blobfs --rebuild garbage.img
refused garbage_info 1 'garbage.img: not a BlobFS' blobfs info garbage.img
: >empty.img && refused empty 8 'empty.img' fsck.blobfs empty.img
refused ram 8 'ram:64M' fsck.blobfs ram:64M

# What cannot be checked is said in JSON, too: one object on standard output, the text on standard error.
no_json() { # NAME DEVICE TEXT
	run fsck.blobfs --json "$2"
	[ $code = 8 ] && grep -q "$3" .err && python3 -c 'import json,sys; d=json.load(open(".out")); sys.exit(not(
		sorted(d)==["device","error","exit"] and d["device"]==sys.argv[1] and sys.argv[2] in d["error"] and d["exit"]==8))' "$2" "$3" &&
		ok "$1" || bad "$1" "exit code $code, or not that object"
}
no_json json_missing missing.img 'No such file'
no_json json_garbage garbage.img 'not a BlobFS'
no_json json_newer newer.img 'version 9'
no_json json_empty empty.img empty.img

# ---- careless
refused no_device 16 'no device given' fsck.blobfs
refused two_devices 16 'only one device' fsck.blobfs good.img died.img
refused two_modes 16 'only one of -n, -p and -y' fsck.blobfs -n -y good.img
run fsck.blobfs --mend good.img
[ $code = 16 ] && grep -q mend .err && ok unknown_option || bad unknown_option "exit code $code"
refused missing 8 'missing.img: No such file' fsck.blobfs missing.img
refused directory 8 'is a directory' fsck.blobfs .
refused character_device 8 '/dev/null' fsck.blobfs /dev/null
if [ "$(id -u)" = 0 ]; then
	for_nobody
	chmod 600 good.img
	refused no_permission 8 'good.img: Permission denied' $as_nobody "$nobodys/bin/fsck.blobfs" good.img
	chmod 644 good.img
	is readable_is_enough 0 clean $as_nobody "$nobodys/bin/fsck.blobfs" -n good.img
else
	echo "skip $suite/no_permission: not root"
fi

# ---- cancelled: caught in the middle at least once
cancelled=0
for i in $(seq 40); do
	fsck.blobfs -f good.img >/dev/null 2>&1 &
	sleep 0.00$((i % 10))
	kill -INT $! 2>/dev/null
	wait $!
	case $? in
	0 | 130) ;;
	32) cancelled=$((cancelled + 1)) ;;
	*) bad cancelled "exit code is neither 0 nor 32" ;;
	esac
done
[ $cancelled -gt 0 ] && ok cancelled || echo "skip $suite/cancelled: it was always quicker"

# ---- mounted
if [ -x "$BUILD/bin/mount.blobfs" ] && [ -w /dev/fuse ] && mkdir mnt && mount.blobfs good.img mnt 2>.err; then
	mounted=$tmp/mnt
	refused mounted 8 "mounted on $tmp/mnt; unmount" fsck.blobfs good.img
	refused mounted_mkfs 8 "mounted on $tmp/mnt" mkfs.blobfs -f good.img
	refused mounted_put 1 "mounted on $tmp/mnt" blobfs put good.img "$root/LICENSE" /x
	refused mounted_ls 1 "mounted on $tmp/mnt" blobfs ls good.img
	cp "$root/LICENSE" mnt/by-mount
	umount mnt
	is just_unmounted 0 'good.img: clean' fsck.blobfs good.img
	mounted=
	is file_of_the_mount 0 BSD blobfs cat good.img /by-mount
	mount.blobfs -o ro good.img mnt && mounted=$tmp/mnt
	is ls_beside_a_readonly_mount 0 by-mount blobfs ls good.img
	refused mkdir_beside_a_readonly_mount 1 'in use' blobfs mkdir good.img /x
	umount mnt && mounted=
else
	echo "skip $suite/mounted: cannot mount here"
fi
exit $status
