#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# blobfs: every verb and option, trees there and back, a full image, and every careless use.
# timeout: 280
suite=tools_blobfs
. "$(dirname "$0")/../tools/lib.sh"
img=$tmp/a.img
mkfs.blobfs -q -s 256M -L tools "$img"

same() { [ "$2" = "$3" ] && ok "$1" || bad "$1" "'$3' instead of '$2'"; }
b() { verb=$1; shift; blobfs "$verb" "$img" "$@"; }
json() { run blobfs "$2" --json "$img" $3; python3 -c "import json,sys; d=json.load(open('.out')); sys.exit(not($4))" && ok "$1" || bad "$1" "not $4"; }

# ---- files in and out
echo hello | b put - /hello && same put_stdin hello "$(b cat /hello)"
echo again | b put - /hello && same put_replaces again "$(b cat /hello)"
same put_leaves_nothing_else hello "$(b ls -a)"
seq 100000 >numbers && chmod 640 numbers && b put numbers / && b cat /numbers | cmp -s - numbers && ok put_into_directory || bad put_into_directory differs
same put_keeps_the_mode -rw-r----- "$(b ls -l /numbers | cut -c1-10)"
same cat_several "again1" "$(b cat /hello /numbers | head -c 7 | tr -d '\n')"
b get /numbers - | cmp -s - numbers && ok get_to_stdout || bad get_to_stdout differs
b get /numbers copy && cmp -s copy numbers && ok get || bad get differs
mkdir out && b get /hello /numbers out && cmp -s out/numbers numbers && ok get_several || bad get_several differs
is get_to_dev_null 0 '' blobfs get "$img" /numbers /dev/null
[ "$(stat -c %a /dev/null)" = 666 ] && ok get_leaves_devices_alone || bad get_leaves_devices_alone "$(stat -c %a /dev/null)"
: >empty && b put empty /empty && b get /empty e2 && [ -f e2 ] && [ ! -s e2 ] && ok empty_file || bad empty_file 'it is not'
truncate -s 3G hole && echo x >>hole
is sparse_in 0 '' blobfs put "$img" hole /hole
is sparse_out 0 '' blobfs get "$img" /hole hole2
[ "$(stat -c %s hole2)" = "$(stat -c %s hole)" ] && [ "$(stat -c %b hole2)" -lt 100 ] && [ "$(tail -c 2 hole2)" = x ] && ok sparse || bad sparse "$(stat -c '%s %b' hole2)"
same du_of_sparse 8 "$(b stat /hole | sed -n 's/.*Blocks: *\([0-9]*\).*/\1/p')"
b rm /hole

# ---- directories and names
is mkdir 0 '' blobfs mkdir "$img" /d /d/e
refused mkdir_twice 1 'mkdir: /d: File exists' blobfs mkdir "$img" /d
refused mkdir_no_parent 1 '/x/y: No such file' blobfs mkdir "$img" /x/y
is mkdir_p 0 '' blobfs mkdir -p "$img" /x/y/z /d
refused mkdir_root 1 'File exists' blobfs mkdir "$img" /
refused mkdir_below_file 1 'Not a directory' blobfs mkdir "$img" /hello/d
refused mkdir_long 1 'too long' blobfs mkdir "$img" "/$(printf %0256d 0)"
is mkdir_longest 0 '' blobfs mkdir "$img" "/$(printf %0255d 0)"
is rm_longest 0 '' blobfs rm -r "$img" "/$(printf %0255d 0)"
refused rm_directory 1 'rm: /d: Is a directory' blobfs rm "$img" /d
refused rm_missing 1 '/nope: No such file' blobfs rm "$img" /nope
is rm_f 0 '' blobfs rm -f "$img" /nope
refused rm_root 1 'rm: /' blobfs rm -r "$img" /
is rm_r 0 '' blobfs rm -r "$img" /x
refused rm_goes_on 1 nope blobfs rm "$img" /nope /empty
b stat /empty >/dev/null 2>&1 && bad rm_goes_on_to_the_next 'it does not' || ok rm_goes_on_to_the_next
is mv 0 '' blobfs mv "$img" /hello /bye
is mv_into 0 '' blobfs mv "$img" /bye /numbers /d
same mv_moved 'bye e numbers' "$(b ls /d | tr '\n' ' ' | sed 's/ $//')"
echo other | b put - /other
refused mv_n 1 'File exists' blobfs mv -n "$img" /other /d/bye
is mv_over 0 '' blobfs mv "$img" /other /d/bye
same mv_replaced other "$(b cat /d/bye)"
refused mv_below_itself 1 'mv: /d: Invalid' blobfs mv "$img" /d /d/e
refused mv_missing 1 'mv: /nope: No such' blobfs mv "$img" /nope /d
refused mv_several_to_file 1 'Not a directory' blobfs mv "$img" /d/e /d/numbers /d/bye
refused mv_root 1 'mv: /' blobfs mv "$img" / /d

# ---- looking
echo dot | b put - /d/.hidden
same ls_hides 'bye e numbers ' "$(b ls /d | tr '\n' ' ')"
same ls_a '.hidden bye e numbers ' "$(b ls -a /d | tr '\n' ' ')"
same ls_R '/: d  /d: bye e numbers  /d/e:' "$(b ls -R / | tr '\n' ' ' | sed 's/ *$//')"
same ls_d /d "$(b ls -d /d)"
same ls_file /d/bye "$(b ls /d/bye)"
is ls_i 0 '^ *1 /$' blobfs ls -d -i "$img" /
is ls_h 0 '575.* KiB\|588895\|575 KiB' blobfs ls -lh "$img" /d/numbers
refused ls_missing 1 'ls: /nope: No such' blobfs ls "$img" /nope
is ls_options_after 0 '^drwxr-xr-x' blobfs ls "$img" / -l
json json_ls ls /d 'sorted(e["path"] for e in d) == ["/d/bye", "/d/e", "/d/numbers"] and d[0]["type"] in ("file", "directory")'
json json_stat stat /d/bye 'd[0]["size"] == 6 and d[0]["mode"] == "0644" and d[0]["links"] == 1'
json json_df df '' 'd["size"] == 268435456 and 0 < d["available"] < d["size"] and d["inodes"] == 6'
json json_info info '' 'd["label"] == "tools" and d["cluster_size"] == 16384 and d["blobs"] == 6 and d["format"] == "1.1"'
is df 0 'a.img  *262144' blobfs df "$img"
is df_h 0 '256 MiB' blobfs df -h "$img"
is info 0 'label *tools' blobfs info "$img"
is stat_root 0 'Inode: 1 ' blobfs stat "$img" /
refused cat_directory 1 'cat: /d: Is a directory' blobfs cat "$img" /d
refused cat_missing 1 'cat: /nope: No such' blobfs cat "$img" /nope
unchanged reading_writes_nothing "$img" blobfs ls -R "$img"
is cat_to_a_full_device 1 'standard output\|No space' sh -c "blobfs cat '$img' /d/numbers >/dev/full"

# ---- trees: modes, owners, times, links, attributes, kinds
mkdir -p tree/sub/deep && cd tree
echo one >one && ln one sub/one-too && ln -s ../one sub/link && ln -s nowhere dangling && mkfifo pipe
chmod 4755 one && chmod 1777 sub && chmod 0500 sub/deep && : >'name with  blanks' && : >"$(printf 'new\nline')"
touch -d '1999-12-31 23:59:59.123456789' one sub && touch -h -d '2001-01-01' sub/link && touch -d '1901-01-01' dangling pipe
setfattr -n user.colour -v blue one 2>/dev/null && setfattr -n user.empty sub
[ "$(id -u)" = 0 ] && { mknod null c 1 3; chown 12:34 sub/link -h; chown 65534 'name with  blanks'; chown 1:2 one; chmod 4755 one; }
touch -d '1999-12-31 23:59:59.123456789' one sub
cd ..
listing() { (cd "$1" && find . -printf '%P %y %m %U %G %s %n %l %T@\n' | grep -v '^ d' | sed 's/ d \(.*\) [0-9]* \([0-9]* *[0-9.-]*\)$/ d \1 \2/' | sort; getfattr -R -h -d . 2>/dev/null); }
is tree_in 0 '' blobfs put -r "$img" tree /
is tree_out 0 '' blobfs get -r "$img" /tree tree2
listing tree >l1; listing tree2 >l2
diff l1 l2 >.out && ok tree_keeps_everything || bad tree_keeps_everything 'see above'
[ tree2/one -ef tree2/sub/one-too ] && ok hard_links || bad hard_links 'two files'
is tree_in_again 0 '' blobfs put -r "$img" tree /
is tree_out_again 0 '' blobfs get -r "$img" /tree .
listing tree >l2; diff l1 l2 >.out && ok twice_is_the_same || bad twice_is_the_same 'see above'
sound sound_after_trees "$img"
refused put_directory_without_r 1 'put: tree: Is a directory' blobfs put "$img" tree /t
refused get_directory_without_r 1 'get: /tree: Is a directory' blobfs get "$img" /tree t
is verbose 0 'tree/sub/deep' blobfs put -r -v "$img" tree /again
mkdir trap && ln -s "$tmp/l1" trap/one && cp l1 l1.saved
is get_over_a_symlink 0 '' blobfs get -r "$img" /tree/one trap/one
cmp -s l1 l1.saved && [ ! -L trap/one ] && ok a_tree_does_not_follow_symlinks || bad a_tree_does_not_follow_symlinks 'it does'
is include_in 0 '' blobfs put -r "$img" /usr/include/linux /include
is include_out 0 '' blobfs get -r "$img" /include include
diff -r /usr/include/linux include >.out 2>&1 && ok include_is_the_same || bad include_is_the_same 'see above'
is include_gone 0 '' blobfs rm -r "$img" /include /again /tree
sound sound_after_removal "$img"

# ---- full
mkfs.blobfs -q -s 48M full.img
echo kept | blobfs put full.img - /kept
head -c 64M /dev/urandom >large
refused full 1 'put: large: No space left on device' blobfs put full.img large /large
same full_leaves_no_part kept "$(blobfs ls -a full.img)"
same full_loses_nothing kept "$(blobfs cat full.img /kept)"
sound full_is_sound full.img
mkdir many && for i in 1 2 3 4 5 6 7 8; do head -c 8M large >many/$i; done
is full_tree 1 'No space left' blobfs put -r full.img many /many
same full_tree_says_it_once 1 "$(grep -c 'No space' .err)"
for i in $(blobfs ls full.img /many); do blobfs cat full.img /many/$i | cmp -s - many/$i || bad full_tree_is_whole "$i differs"; done
sound full_tree_is_sound full.img
is full_rm 0 '' blobfs rm -r full.img /many
head -c 20M large >less
is space_is_back 0 '' blobfs put full.img less /less
blobfs cat full.img /less | cmp -s - less && ok space_is_good || bad space_is_good differs

# ---- careless
refused put_missing 1 'put: nope: No such file' blobfs put "$img" nope /x
refused put_nowhere 1 '/no/where\|put: numbers: No such' blobfs put "$img" numbers /no/where
refused put_over_directory 1 'Is a directory' blobfs put "$img" - /d
refused put_several_to_file 1 'Not a directory' blobfs put "$img" numbers l1 /file
refused get_missing 1 'get: /nope: No such' blobfs get "$img" /nope x
refused get_nowhere 1 'get: /d/bye: No such' blobfs get "$img" /d/bye no/where
[ -e x ] && bad get_makes_nothing 'x is there' || ok get_makes_nothing
for path in '' d ; do run blobfs cat "$img" "$path"; [ $code = 1 ] && ok "path '$path'" || bad "path '$path'" "exit code $code"; done
refused no_verb_of_that_name 2 "no verb 'look'" blobfs look "$img"
refused help_of_no_verb 2 "no verb 'look'" blobfs help look
for verb in info df ls stat cat put get mkdir rm mv; do
	refused "$verb without device" 2 'no device given' blobfs $verb
	is "help $verb" 0 "^Usage: blobfs $verb DEVICE" blobfs help $verb
	is "$verb --help" 0 "^Usage: blobfs $verb DEVICE" blobfs $verb --help
	run blobfs $verb -% "$img" /a /b
	[ $code = 2 ] && ok "$verb with an unknown option" || bad "$verb with an unknown option" "exit code $code"
	refused "$verb of a missing device" 1 'none.img: No such' blobfs $verb none.img $(case $verb in info | df) ;; put | get | mv) echo a b ;; *) echo /a ;; esac)
done
for verb in stat cat mkdir rm; do refused "$verb without path" 2 'too few arguments' blobfs $verb "$img"; done
for verb in put get mv; do refused "$verb with one path" 2 'too few arguments' blobfs $verb "$img" /a; done
refused info_with_path 2 'too many arguments' blobfs info "$img" /a
run blobfs cat --json "$img" /d/bye
[ $code = 2 ] && ok json_where_there_is_none || bad json_where_there_is_none "exit code $code"
run blobfs
[ $code = 2 ] && grep -q '^Usage' .err && ok nothing_at_all || bad nothing_at_all "exit code $code"
is help 0 'help VERB' blobfs help
is version 0 '^blobfs [0-9]' blobfs --version
refused directory_as_device 1 'is a directory' blobfs ls .
refused ram_is_no_store 1 'ram:64M: not a BlobFS' blobfs ls ram:64M
if [ "$(id -u)" = 0 ]; then
	for_nobody
	chmod 444 "$img"
	is readable_image 0 d $as_nobody "$nobodys/bin/blobfs" ls "$img"
	refused readonly_image 1 'Permission denied' $as_nobody "$nobodys/bin/blobfs" mkdir "$img" /x
	chmod 000 "$img"
	refused unreadable_image 1 'Permission denied' $as_nobody "$nobodys/bin/blobfs" ls "$img"
	chmod 644 "$img"
fi

# ---- two at once: readers beside readers, a writer alone
mkfifo hold
blobfs put "$img" hold /held >/dev/null 2>&1 &
pids=$!
sleep 0.5
refused reader_beside_writer 1 "in use: process $pids (blobfs)" blobfs ls "$img"
refused writer_beside_writer 1 "in use: process $pids (blobfs)" blobfs mkdir "$img" /x
kill -9 $pids; wait $pids 2>/dev/null; pids=
is after_it_died 0 d blobfs ls "$img"
sound sound_at_the_end "$img"
exit $status
