#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# blobfs snapshot, clone and rollback of what is mounted and in use: each copy is of one instant, seen at once, and every careless use.
# timeout: 200
suite=fuse_snapshot
. "$(dirname "$0")/../fuse/lib.sh"

says() { # NAME CODE PATTERN COMMAND...
	name=$1 code=$2 pattern=$3
	shift 3
	"$@" >"$tmp/out" 2>&1
	got=$?
	[ "$got" = "$code" ] || { bad "$name" "exit code $got, not $code"; return; }
	grep -q -e "$pattern" "$tmp/out" && good "$name" || bad "$name" "it does not say $pattern"
}
silent() { # NAME COMMAND...
	name=$1
	shift
	"$@" >"$tmp/out" 2>&1
	got=$?
	[ "$got" = 0 ] && [ ! -s "$tmp/out" ] && good "$name" || bad "$name" "exit code $got, or it says something"
}
same() { [ "$2" = "$3" ] && good "$1" || bad "$1" "'$3' instead of '$2'"; }
# Ends what runs in the background: the last of $pids.
end_writer() {
	touch "$tmp/stop"
	wait "$1" || bad "$2" "the writer failed: $(cat "$tmp/writer")"
	rm -f "$tmp/stop"
}

new_image 1G
mount_image

# ---- what is written and not synced is in it; names are seen at once
mkdir -p "$mnt/db/sub"
echo one >"$mnt/db/sub/small"
ln "$mnt/db/sub/small" "$mnt/db/hard"
ln -s sub/small "$mnt/db/link"
ls "$mnt/.snapshots" 2>/dev/null # the kernel keeps in mind that there is none
[ -e "$mnt/early" ] # and that there is no such name
ls -a "$mnt" >/dev/null
silent clone blobfs clone "$mnt" /db /early
same clone_is_seen one "$(cat "$mnt/early/hard")"
ls "$mnt" | grep -q early && good clone_is_listed || bad clone_is_listed "$(ls "$mnt")"
exec 7>"$mnt/db/open"
dd if=/dev/urandom bs=1M count=40 2>/dev/null | tee "$tmp/data" >&7
silent snapshot blobfs snapshot "$mnt" /db monday
cmp "$tmp/data" "$mnt/.snapshots/monday/open" && good what_was_written_is_in_it || bad what_was_written_is_in_it "an open file differs"
exec 7>&-
diff -r "$mnt/db" "$mnt/.snapshots/monday" >"$tmp/out" && good snapshot_is_the_tree || bad snapshot_is_the_tree differs
[ "$mnt/early/hard" -ef "$mnt/early/sub/small" ] && good links_stay_links || bad links_stay_links "two files"
echo two >"$mnt/db/sub/small"
same snapshot_stays one "$(cat "$mnt/.snapshots/monday/sub/small")"
verdict nobody_writes_to_a_snapshot "it can be written" sh -c "! echo x >'$mnt/.snapshots/monday/hard'"
echo mine >"$mnt/early/hard" && good clones_can_be_written || bad clones_can_be_written "no"
same and_what_they_come_from_stays two "$(cat "$mnt/db/sub/small")"
silent by_the_image blobfs snapshot "$img" /db tuesday
silent by_a_directory_of_it blobfs snapshot "$mnt/db" sub ./within
same relative_paths_begin_there two "$(cat "$mnt/db/within/small")"
silent of_a_file blobfs clone "$mnt/db" sub/small /file
same file_copied two "$(cat "$mnt/file")"
silent all_but_the_snapshots blobfs snapshot "$mnt" / all
[ ! -e "$mnt/.snapshots/all/.snapshots" ] && [ -e "$mnt/.snapshots/all/db" ] && good all_is_all || bad all_is_all "$(ls -a "$mnt/.snapshots/all")"

# ---- careless use
says twice 1 '^blobfs: snapshot: monday: File exists$' blobfs snapshot "$mnt" /db monday
says of_nothing 1 '/nope: No such file' blobfs snapshot "$mnt" /nope x
says to_nowhere 1 '/x/y/z: No such file' blobfs snapshot "$mnt" /db /x/y/z
says paths_are_explained 1 "begin at the root of the file system: /db$" blobfs snapshot "$mnt" "$mnt/db" x
says of_another_directory 1 'not in a mounted BlobFS' blobfs snapshot "$tmp" / x
says of_no_directory 1 . blobfs snapshot "$tmp/nope" / x
says a_name_that_is_none 1 'File exists' blobfs snapshot "$mnt" /db /
says a_long_name 1 'too long' blobfs snapshot "$mnt" /db "$(printf '%0300d' 1)"
says rollback_of_the_root 1 'rollback: /: nothing can take' blobfs rollback "$mnt" / monday
says rollback_of_another_kind 1 'Not a directory' blobfs rollback "$mnt" /file monday
says rollback_to_what_it_removes 1 'the copy lies in it' blobfs rollback "$mnt" /db /db/within
says rollback_to_nothing 1 'wednesday: No such file' blobfs rollback "$mnt" /db wednesday
says numbers_are_checked 0 fine python3 - "$mnt" <<'END'
import errno, fcntl, os, struct, sys
SNAP = 0xc110b104
def ask(path, ino, flags, name):
    b = bytearray(struct.pack("QIi256s", ino, flags, 0, name))
    fcntl.ioctl(os.open(path, os.O_RDONLY), SNAP, b)
    return struct.unpack("QIi256s", b)[2]
root = sys.argv[1]
db = os.stat(root + "/db").st_ino
for flags, name in ((2, b"x"), (0, b"y" * 256)):
    try: ask(root, db, flags, name); sys.exit("accepted")
    except OSError as e: assert e.errno == errno.EINVAL, e
assert ask(root, 1 << 40, 0, b"x") == -errno.ENOENT
assert ask(root + "/file", db, 0, b"x") == -errno.ENOTDIR
for name in (b"", b".", b"..", b"a/b"): assert ask(root, db, 0, name) < 0, name
print("fine")
END
if [ "$(id -u)" = 0 ]; then
	. "$root/test/tools/nobody.sh"
	for_nobody
	chmod 777 "$mnt"
	says only_root_may 1 'only the superuser and the user who mounted it' $as_nobody "$nobodys/bin/blobfs" snapshot "$mnt" /db /x
fi

# ---- a writer goes on: the same number into three files and a new one, in this order, each synced before the next
mkdir "$mnt/live"
python3 - "$mnt/live" "$tmp/stop" >"$tmp/writer" 2>&1 <<'END' &
import os, sys
top, stop = sys.argv[1:]
fds = [os.open("%s/%d" % (top, i), os.O_RDWR | os.O_CREAT) for i in range(3)]
n = 0
while not os.path.exists(stop):
    n += 1
    for fd in fds:
        os.pwrite(fd, b"%08d" % n * 1000, 0)
        os.fdatasync(fd)
    new = os.open("%s/new" % top, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(new, b"%08d" % n * 10)
    os.fsync(new)
    os.close(new)
    os.rename("%s/new" % top, "%s/made.%d" % (top, n))
    if n > 20: os.unlink("%s/made.%d" % (top, n - 20))
END
writer=$!
pids=$writer
for _ in $(seq 100); do [ -e "$mnt/live/made.5" ] && break; sleep 0.1; done
verdict snapshots_beside_a_writer "one failed" sh -c "for i in \$(seq 40); do blobfs snapshot '$mnt' /live live\$i || exit 1; done"
end_writer "$writer" writer
says each_is_of_one_instant 0 fine python3 - "$mnt/.snapshots" <<'END'
import os, sys
last = 0
for i in range(1, 41):
    top = "%s/live%d" % (sys.argv[1], i)
    count = []
    for j in range(3):
        data = open("%s/%d" % (top, j), "rb").read()
        words = {data[k:k + 8] for k in range(0, len(data), 8)}
        assert len(data) == 8000 and len(words) <= 2, (i, j, len(data), words)
        low, high = min(words), max(words)
        assert int(high) - int(low) <= 1, (i, j, words)
        count.append((int(low), int(high)))
    made = max(int(n.split(".")[1]) for n in os.listdir(top) if n.startswith("made."))
    # What comes later is never further, nor more than one behind.
    first = count[0][1]
    assert count[0][0] >= last, (i, last, count)
    for (l, h), (l2, h2) in zip(count, count[1:]):
        assert h2 <= l and first - l2 <= 1, (i, count)
    assert made <= count[2][0] and first - made <= 1, (i, count, made)
    assert open("%s/made.%d" % (top, made), "rb").read() == b"%08d" % made * 10, i
    last = count[2][0]
print("fine", last)
END

# ---- rollback under those who have it open
echo later >"$mnt/db/sub/small"
exec 8<>"$mnt/db/sub/small"
(cd "$mnt/db/sub" && exec sleep 100) &
pids="$pids $!"
silent rollback blobfs rollback "$mnt" /db monday
same rolled_back one "$(cat "$mnt/db/sub/small")"
cmp "$tmp/data" "$mnt/db/open" && good rolled_back_open || bad rolled_back_open differs
same an_open_file_stays_the_old_one later "$(cat <&8)"
echo more >&8 && good which_can_be_written || bad which_can_be_written "no"
same but_nobody_sees_that one "$(cat "$mnt/db/sub/small")"
echo new >"$mnt/db/sub/small" && same rolled_back_can_change new "$(cat "$mnt/db/hard")"
same the_snapshot_stays one "$(cat "$mnt/.snapshots/monday/sub/small")"
same nothing_is_left_beside '' "$(ls -a "$mnt" | grep rollback)"
silent rollback_of_a_file blobfs rollback "$mnt" /file /.snapshots/monday/hard
same file_rolled_back one "$(cat "$mnt/file")"
exec 8>&-
kill $! 2>/dev/null
wait $! 2>/dev/null
remount
same there_after_a_mount 'one new' "$(echo $(cat "$mnt/.snapshots/monday/hard" "$mnt/db/hard"))"

# ---- rollback that cannot be, or not to the end
if [ "$(id -u)" = 0 ]; then
	mkdir "$tmp/ro"
	mount --bind "$mnt" "$tmp/ro" && mount -i -o remount,bind,ro "$tmp/ro" || bad bind "no read-only mount"
	says rollback_where_nothing_may_be_written 1 'rollback: /db: Read-only file system' blobfs rollback "$tmp/ro" /db monday
	says snapshot_where_nothing_may_be_written 1 'Read-only file system' blobfs snapshot "$tmp/ro" /db /.snapshots/friday
	same nothing_is_left_of_either '' "$(ls -a "$mnt" "$mnt/.snapshots" | grep -e rollback -e friday)"
	umount "$tmp/ro"
	mkdir "$mnt/db/within"
	blobfs snapshot "$mnt" /db with_within
	mount -t tmpfs none "$mnt/db/within"
	says rollback_with_a_mount_in_it 1 '^blobfs: db is rolled back, but what it was is left as .rollback-[0-9]*: ' blobfs rollback "$mnt" /db with_within
	same which_is_said_in_one_line 1 "$(wc -l <"$tmp/out")"
	same and_done new "$(cat "$mnt/db/hard")"
	umount "$mnt"/.rollback-*/within
	rm -r "$mnt"/.rollback-*
fi
mkdir "$mnt/.rollback-$(stat -c %i "$mnt/db")"
says rollback_in_the_way 1 'is in the way: another rollback is under way, or one was cut off' blobfs rollback "$mnt" /db monday
same which_is_said_in_one_line 1 "$(wc -l <"$tmp/out")"
rmdir "$mnt"/.rollback-*

# ---- as large as it may be, and larger
mkdir "$mnt/large"
python3 - "$mnt/large" 5500 <<'END'
import os, sys
for i in range(int(sys.argv[2])): open("%s/%05d" % (sys.argv[1], i), "w").write("x")
END
silent large blobfs snapshot "$mnt" /large large
python3 - "$mnt/large" <<'END'
import sys
for i in range(5500, 10000): open("%s/%05d" % (sys.argv[1], i), "w").write("x")
END
says too_large 1 'too large for one copy: a tree may have some 6,000 files' blobfs snapshot "$mnt" /large larger
[ ! -e "$mnt/.snapshots/larger" ] && good nothing_of_it_is_there || bad nothing_of_it_is_there "$(ls "$mnt/.snapshots")"

unmount_image
check_image snapshots && good image_is_whole
for verb in snapshot clone; do
	mount_image
	blobfs $verb "$mnt" /db "/lasting_$verb" || bad "$verb" failed
	kill_daemon
done
mount_image
blobfs rollback "$mnt" /db /lasting_clone || bad rollback failed
kill_daemon
same all_of_it_was_durable 'lasting_clone lasting_snapshot' "$(blobfs ls "$img" / | grep lasting_ | sort | xargs)"
same the_rollback_too '' "$(blobfs ls -a "$img" / 2>/dev/null | grep rollback-)"
check_image after_that && good image_is_whole_after_that
says too_large_of_a_device 1 'snapshot: /large: too large for one copy' blobfs snapshot "$img" /large larger
mount_image -o ro
says read_only 1 'Read-only file system' blobfs snapshot "$mnt" /db friday
unmount_image
exit $status
