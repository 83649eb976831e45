#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# blobfs snapshot, clone, rollback: what the copies hold, what they cost, and every careless use.
# timeout: 120
suite=tools_snapshot
. "$(dirname "$0")/../tools/lib.sh"
img=$tmp/a.img
mkfs.blobfs -q -s 256M "$img"

same() { [ "$2" = "$3" ] && ok "$1" || bad "$1" "'$3' instead of '$2'"; }
b() { verb=$1; shift; blobfs "$verb" "$img" "$@"; }
used() { blobfs info --json "$img" | python3 -c 'import json,sys; d=json.load(sys.stdin); print(d["used"] // 1048576)'; }

mkdir -p tree/sub
head -c 3000000 /dev/urandom >tree/big
echo one >tree/sub/small
ln tree/big tree/sub/hard
ln -s sub/small tree/link
b put -r tree /
before=$(used)

# ---- snapshots
is snapshot 0 '' blobfs snapshot "$img" /tree monday
same it_costs_nothing "$before" "$(used)"
is snapshot_holds_all 0 '' blobfs get -r "$img" /.snapshots/monday out
diff -r tree out >/dev/null && ok snapshot_is_the_tree || bad snapshot_is_the_tree differs
[ out/big -ef out/sub/hard ] && ok links_stay_links || bad links_stay_links 'two files'
echo two >two
b put two /tree/sub/small
head -c 3000000 /dev/urandom >big2
b put big2 /tree/big
same snapshot_stays one "$(b cat /.snapshots/monday/sub/small)"
b cat /.snapshots/monday/big | cmp -s - tree/big && ok big_stays || bad big_stays differs
refused snapshot_twice 1 'snapshot: monday: File exists' blobfs snapshot "$img" /tree monday
refused snapshot_of_nothing 1 '/nope: No such file' blobfs snapshot "$img" /nope x
refused snapshot_to_nowhere 1 'No such file' blobfs snapshot "$img" /tree /x/y/z
refused too_few 2 'too few' blobfs snapshot "$img" /tree
is snapshot_of_everything 0 '' blobfs snapshot "$img" / all
same all_but_the_snapshots tree "$(b ls -a /.snapshots/all)"
sound sound_with_snapshots "$img"

# ---- clones
is clone 0 '' blobfs clone "$img" /.snapshots/monday /mine
b put two /mine/sub/small
same clone_changes two "$(b cat /mine/sub/small)"
same and_its_snapshot_does_not one "$(b cat /.snapshots/monday/sub/small)"
is clone_of_a_file 0 '' blobfs clone "$img" /tree/sub/small /copy
same file_copied two "$(b cat /copy)"
b stat --json /tree/big >stat && python3 -c 'import json; d=json.load(open("stat"))[0]; assert d["shared_bytes"] > 2900000 and not d["exclusive_bytes"]' &&
	ok stat_tells_what_is_shared || bad stat_tells_what_is_shared "$(cat stat)"

# ---- rollback
is rollback 0 '' blobfs rollback "$img" /tree monday
same rolled_back one "$(b cat /tree/sub/small)"
b cat /tree/big | cmp -s - tree/big && ok rolled_back_big || bad rolled_back_big differs
b put two /tree/sub/small
same rolled_back_can_change two "$(b cat /tree/sub/small)"
same snapshot_still_there one "$(b cat /.snapshots/monday/sub/small)"
is rollback_file 0 '' blobfs rollback "$img" /tree/sub/small /.snapshots/monday/sub/small
same file_rolled_back one "$(b cat /tree/sub/small)"
refused rollback_other_kind 1 'Not a directory' blobfs rollback "$img" /copy monday
refused rollback_of_root 1 'rollback: /' blobfs rollback "$img" / monday
b snapshot /tree /tree/sub/within
refused rollback_to_what_it_removes 1 'the copy lies in it' blobfs rollback "$img" /tree /tree/sub/within
b rm -r /tree/sub/within
refused rollback_to_nothing 1 'No such file' blobfs rollback "$img" /tree tuesday
b mkdir "/.rollback-$(b ls -di /tree | awk '{ print $1 }')"
refused rollback_in_the_way 1 'is in the way: another rollback is under way, or one was cut off' blobfs rollback "$img" /tree monday
b rm -r "/$(b ls -a / | grep rollback)"
same nothing_left_beside '' "$(b ls -a / | grep rollback)"
sound sound_after_rollback "$img"

# ---- removing, in any order
b rm -r /tree && b rm -r /.snapshots/monday
same copy_lives two "$(b cat /copy)"
b rm -r /mine /copy /.snapshots
same all_is_free 0 "$(used)"
sound sound_at_the_end "$img"
exit $status
