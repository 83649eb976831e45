#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# blobcli: every verb, its shell, what a careless user does; and the example of the store's own API.
# timeout: 120
suite=tools_blobcli
. "$(dirname "$0")/../tools/lib.sh"
img=$tmp/a.img

same() { [ "$2" = "$3" ] && ok "$1" || bad "$1" "'$3' instead of '$2'"; }
b() { blobcli "$img" "$@"; }
json() { python3 -c "import json,sys; d=json.load(sys.stdin); print($1)"; }

# ---- making a store
refused no_store_yet 1 'a.img: No such file' blobcli "$img" list
refused init_wants_a_size 1 'is not there' blobcli "$img" init
refused init_too_small 2 'at least 40M' blobcli "$img" init 10M
refused init_nonsense 2 "'much' is not a size" blobcli "$img" init much
refused init_has_no_json 2 'init: has no --json' blobcli "$img" init 64M --json
[ -e "$img" ] && bad nothing_is_left_behind 'there is a file' || ok nothing_is_left_behind
is init 0 '' blobcli "$img" init 64M
refused init_again 1 'holds a BlobFS' blobcli "$img" init
refused init_over_another_size 2 'has its size' blobcli "$img" init 80M
refused init_readonly 1 'nothing is written with --readonly' blobcli "$img" -r init --force
is init_forced 0 '' blobcli "$img" init --force
raid old.img 64M
refused init_over_another 1 'holds a linux_raid_member' blobcli old.img init
is init_over_another_forced 0 '' blobcli old.img init --force
blkid -p old.img >.out 2>&1 && bad nothing_is_left_of_it "$(cat .out)" || ok nothing_is_left_of_it
same owner blobcli "$(b --json info | json 'd["owner"]')"

# ---- blobs and bytes
same create 1 "$(b create)"
same create_json 2 "$(b create 1M --json | json 'd["id"]')"
b write 1 0 hello
b write 1 5000 world
same size_grows 5005 "$(b show 1 --json | json 'd["size"]')"
same read_from world "$(b read 1 5000)"
same read_part ell "$(b read 1 1 3)"
same read_past_the_end '' "$(b read 1 1G)"
same gap_is_zeroes 0 "$(b read 1 5 4995 | tr -d '\0' | wc -c)"
b resize 1 3 && b resize 1 9000
same what_was_cut_off_is_gone 'hel' "$(b read 1 | tr -d '\0')"
head -c 3000123 /dev/urandom >big
b write 1 777 <big
b read 1 777 | cmp -s - big && ok stream_in_and_out || bad stream_in_and_out differs
same what_stood_before_stays hel "$(b read 1 0 3)"
truncate -s 20M sparse && printf x | dd of=sparse bs=1 seek=10000000 conv=notrunc status=none
same import 3 "$(b import sparse)"
same holes_stay_holes 4096 "$(b show 3 --json | json 'd["mapped"]')"
is export 0 '' blobcli "$img" export 3 out
cmp -s sparse out && [ "$(du -k out | cut -f1)" -lt 1000 ] && ok export_is_the_file || bad export_is_the_file "$(du -k out)"
b export 3 - | cmp -s - sparse && ok export_to_a_pipe || bad export_to_a_pipe differs
same import_from_a_pipe 4 "$(cat big | b import -)"
b read 4 | cmp -s - big && ok piped_import_is_whole || bad piped_import_is_whole differs
same list '1 2 3 4' "$(b list --json | json '" ".join(str(x["id"]) for x in d)')"
is list_for_people 0 '^ *3 *20971520' blobcli "$img" list
is show_for_people 0 'at device block' blobcli "$img" show 4

# ---- copies
same snapshot 5 "$(b snapshot 4)"
same group_clone '6 7' "$(b clone 1 5 --json | json '" ".join(str(x) for x in d["ids"])')"
b write 4 0 changed
b write 7 0 mine
b read 5 | cmp -s - big && ok snapshot_stays || bad snapshot_stays differs
same clone_changes mine "$(b read 7 0 4)"
refused snapshot_is_sealed 1 'blob 5: it is a snapshot' blobcli "$img" write 5 0 x
refused snapshot_keeps_its_size 1 'blob 5: it is a snapshot' blobcli "$img" resize 5 1
b show 5 --json | json 'd["sealed"] and d["shared"] > 2900000 and d["exclusive"] < 10000' | grep -q True &&
	ok show_tells_what_is_shared || bad show_tells_what_is_shared "$(b show 5)"
refused delete_all_or_none 1 'no blob 99' blobcli "$img" delete 5 99
is still_there 0 snapshot blobcli "$img" show 5
refused twice 1 'given twice' blobcli "$img" delete 5 5
is delete 0 '' blobcli "$img" delete 5 7
refused deleted 1 'no blob 5' blobcli "$img" read 5

# ---- attributes
b xattr set 1 colour red && b xattr set 1 colour blue && b xattr set 1 shape '' && b xattr set 1 'two words' x
same xattr blue "$(b xattr get 1 colour)"
same xattr_json blue "$(b xattr get 1 colour --json | json 'd["value"]')"
same xattr_list 'colour shape two words' "$(b xattr list 1 | sort | paste -sd ' ')"
same xattr_copied blue "$(b xattr get $(b clone 1) colour)"
is xattr_remove 0 '' blobcli "$img" xattr remove 1 colour
refused xattr_gone 1 "no attribute 'colour'" blobcli "$img" xattr get 1 colour
refused xattr_not_there 1 "no attribute 'nope'" blobcli "$img" xattr remove 1 nope
refused xattr_without_name 2 'name has 1 to 255' blobcli "$img" xattr set 1 '' x
refused xattr_long_name 2 'name has 1 to 255' blobcli "$img" xattr set 1 "$(printf '%0300d' 1)" x

# ---- what a careless user does
refused no_device 2 'no device' blobcli
refused no_verb 2 "no verb 'frobnicate'" blobcli "$img" frobnicate
refused half_a_verb 2 "no verb 'xattr'" blobcli "$img" xattr
refused too_few 2 'read: too few' blobcli "$img" read
refused too_many 2 'read: too many' blobcli "$img" read 1 2 3 4
refused no_option 2 "no option '--frob'" blobcli "$img" list --frob
refused no_json 2 'read: has no --json' blobcli "$img" read 1 --json
refused no_id 1 "'one' is not a blob's id" blobcli "$img" show one
refused negative 2 "no option '-1'" blobcli "$img" show -1
refused id_0 1 "'0' is not a blob's id" blobcli "$img" show 0
refused huge_id 1 "is not a blob's id" blobcli "$img" show 99999999999999999999
refused absent_id 1 'no blob 12345' blobcli "$img" show 12345
refused no_offset 2 "'here' is not a size" blobcli "$img" write 1 here x
refused too_large 2 'at most 4096T' blobcli "$img" create 5000T
refused past_the_limit 1 'File too large' blobcli "$img" write 1 4096T x
refused import_nothing 1 'nope: No such file' blobcli "$img" import nope
refused import_directory 1 'is a directory' blobcli "$img" import "$tmp"
unchanged device_is_no_target "$img" blobcli "$img" export 1 "$img"
ln -s a.img alias
refused nor_by_another_name 1 'is the device' blobcli "$img" export 1 alias
refused nor_a_source 1 'is the device' blobcli "$img" import "$img"
refused export_to_nowhere 1 'No such file' blobcli "$img" export 1 /nowhere/x
refused readonly 1 'nothing is written with --readonly' blobcli "$img" -r create
unchanged looking_writes_nothing "$img" blobcli "$img" list
head -c 70M /dev/zero | tr '\0' x >toobig
refused full 1 'no space left' blobcli "$img" import toobig
same what_did_not_fit_is_not_left '1 2 3 4 6 8' "$(b list --json | json '" ".join(str(x["id"]) for x in d)')"
printf dashed | b write 2 0 && b write 2 0 -- --json
same text_that_looks_like_an_option --json "$(b read 2 0 6)"
refused no_store 1 'not a BlobFS\|no BlobFS\|not a store\|superblock' blobcli toobig list
is help 0 'snapshot' blobcli --help
is help_verb 0 'LENGTH' blobcli help read
is help_init 0 'SIZE makes the image file' blobcli help init
is help_of_several 0 'xattr remove' blobcli help xattr
refused help_of_none 2 "no verb 'x'" blobcli help x
is version 0 '^blobcli ' blobcli --version
blobcli "$img" list >/dev/full 2>full && bad full_pipe 'exit code 0' || is full_pipe 0 'standard output' cat full

# ---- the shell
cat >script <<'END'
# a comment, and an empty line

create 4K   # makes blob 10
write 10 0 "two words"
write 10 9 ' and \more'
read 10 0 19
xattr set 10 'a b' c\ d
xattr get 10 "a b"
END
blobcli "$img" <script >.out 2>.err
same shell_code 0 $?
printf '10\ntwo words and \\morec d\n' | cmp -s - .out && ok shell || bad shell "$(cat .out)"
printf 'create\nfrob\nread 10 0 "x\nread 77\nwrite 10 0\nimport -\nlist --force\nresize 10 1\\\nread 10 0 3\nquit\ncreate\n' |
	blobcli "$img" >.out 2>.err
same shell_failures_show 1 $?
for want in "line 2: no verb 'frob'" 'line 3: a quote is not closed' 'line 4: there is no blob 77' 'line 5: write: standard input' \
	'line 6: standard input' 'line 7: --force' 'line 8: a backslash'; do
	grep -q -e "^blobcli: $want" .err || bad "shell_says" "not: $want"
done
same shell_goes_on_and_quits "$(printf '11\ntwo')" "$(cat .out)"
printf 'read \000 1\n' | blobcli "$img" 2>&1 | grep -q 'line 1: a zero byte' && ok zero_byte || bad zero_byte 'not said'
{ yes x | head -100 | tr '\n' ' '; echo; } | blobcli "$img" 2>&1 | grep -q 'too many words' && ok many_words || bad many_words 'not said'
printf 'create\nread 1\nhelp\n' | blobcli ram:64M | grep -q 'snapshot' && ok shell_on_memory || bad shell_on_memory 'no help'
# As a person sees it: script(1) gives it a terminal.
if command -v script >/dev/null; then
	printf 'sn\t 10\nlist\nquit\n' | timeout 20 script -qec "blobcli $img" /dev/null >.out 2>.err
	grep -q 'blobcli> ' .out && grep -q "'help' lists" .out && grep -q '^ *12 .*snapshot' .out && ok terminal || bad terminal 'no snapshot 12'
else
	echo "skip $suite/terminal: no script(1)"
fi
# Somebody else has it.
mkfifo fifo
blobcli "$img" <fifo >held & pids="$pids $!"
exec 3>fifo
echo 'info --json' >&3
for i in $(seq 200); do [ -s held ] && break; sleep 0.05; done
refused in_use 1 'is in use: process' blobcli "$img" create
exec 3>&-
wait $!

# ---- another's store
fs=$tmp/fs.img
mkfs.blobfs -q -s 64M "$fs"
echo text | blobfs put "$fs" - /file
is blobfs_list 0 '' blobcli "$fs" list
ino=$(blobfs stat --json "$fs" /file | json 'd[0]["inode"]')
same blobfs_read text "$(blobcli "$fs" read "$ino")"
refused blobfs_write 1 'belongs to "blobfs"' blobcli "$fs" write "$ino" 0 x
unchanged blobfs_is_left_alone "$fs" blobcli "$fs" delete 1
printf 'list\ndelete 1\n' | blobcli "$fs" 2>&1 | grep -q 'line 2: delete: this store belongs' && ok shell_leaves_it_alone || bad shell_leaves_it_alone 'not said'
is blobfs_forced 0 '' blobcli "$fs" --force write "$ino" 0 T
same blobfs_changed Text "$(blobfs cat "$fs" /file)"
refused blobfs_new_attribute 1 'changed here, not made' blobcli "$fs" -f xattr set "$ino" user.x y
sound blobfs_sound "$fs"

# ---- the example
is example_on_memory 0 'after the snapshot' "$BUILD/test/blob_example" ram:64M
truncate -s 64M ex.img
is example 0 'blob 2, with an item: before the snapshot' "$BUILD/test/blob_example" ex.img
same example_can_be_read 'after the snapshot' "$(blobcli ex.img read 1 | tr -d '\0')"
is example_without_device 1 'usage' "$BUILD/test/blob_example"
is example_on_nothing 1 'No such file' "$BUILD/test/blob_example" nothing.img
exit $status
