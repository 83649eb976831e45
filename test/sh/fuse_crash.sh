#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# SIGKILL of the daemon: what was fsynced is there at once, everything two seconds after sync.
# timeout: 120
suite=fuse_crash
. "$(dirname "$0")/../fuse/lib.sh"

new_image 1G
mount_image

# The moment fsync returns.
for round in 1 2 3; do
	dd if=/dev/urandom of="$tmp/data" bs=100k count=37 status=none
	dd if="$tmp/data" of="$mnt/synced$round" bs=100k conv=fsync status=none; kill -9 "$pid"
	await_end "$pid"
	umount "$mnt"
	check_image "fsync $round"
	mount_image
	cmp "$tmp/data" "$mnt/synced$round" >"$tmp/out" 2>&1 && good "fsync $round" || bad "fsync $round" "the file differs"
done

# An editor's save: the name shows the old text or the new one, never less; after its fsync, the new one.
echo old >"$mnt/text"
sync
sleep 2
printf 'new text\n' >"$mnt/.text.tmp"
sync "$mnt/.text.tmp"
mv "$mnt/.text.tmp" "$mnt/text"
sync "$mnt" && kill_daemon
mount_image
[ "$(cat "$mnt/text")" = 'new text' ] && [ ! -e "$mnt/.text.tmp" ] && good save || bad save "it reads: $(cat "$mnt/text")"

# Everything, two seconds after sync: files, sizes, names, links, times, attributes.
mkdir "$mnt/tree"
cp -a /usr/include/linux "$mnt/tree/"
ln -s linux "$mnt/tree/link"
ln "$mnt/text" "$mnt/tree/hard"
setfattr -n user.color -v blue "$mnt/tree/hard" 2>/dev/null || echo "skip $suite/xattr: setfattr is not there"
mv "$mnt/synced1" "$mnt/tree/moved"
rm "$mnt/synced2"
sync
sleep 2
sums "$mnt" >"$tmp/before"
(cd "$mnt" && find . -printf '%p %m %u %g %s %T@ %l %n\n' | sort) >"$tmp/stat1"
kill_daemon
check_image two_seconds
mount_image
sums "$mnt" >"$tmp/after"
(cd "$mnt" && find . -printf '%p %m %u %g %s %T@ %l %n\n' | sort) >"$tmp/stat2"
diff "$tmp/before" "$tmp/after" >"$tmp/out" 2>&1 && good two_seconds_after_sync || bad two_seconds_after_sync "files differ"
diff "$tmp/stat1" "$tmp/stat2" >"$tmp/out" 2>&1 && good two_seconds_after_sync_attributes ||
	bad two_seconds_after_sync_attributes "attributes differ"
! command -v getfattr >/dev/null || [ "$(getfattr --only-values -n user.color "$mnt/tree/hard" 2>/dev/null)" = blue ] ||
	bad two_seconds_after_sync "the extended attribute is gone"

# SQLite with a write-ahead log: each transaction that was acknowledged.
if command -v sqlite3 >/dev/null; then
	cat >"$tmp/sql" <<'SQL'
PRAGMA journal_mode=WAL;
PRAGMA synchronous=FULL;
CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
SQL
	sqlite3 "$mnt/db" <"$tmp/sql" >"$tmp/out" 2>&1 || bad sqlite "cannot make the database"
	i=0
	(while :; do
		i=$((i + 1))
		echo "INSERT INTO t VALUES($i, randomblob(3000)); SELECT 'done', $i;"
	done) 2>/dev/null | sqlite3 -bail -cmd 'PRAGMA synchronous=FULL' "$mnt/db" >"$tmp/acks" 2>"$tmp/err" &
	writer=$!
	sleep 3
	kill -9 "$(daemon)"
	wait $writer
	umount "$mnt" 2>/dev/null || fusermount3 -u -z "$mnt"
	acked=$(grep -c done "$tmp/acks")
	last=$(grep done "$tmp/acks" | tail -1 | cut -d'|' -f2)
	check_image sqlite
	mount_image
	verdict sqlite_integrity "damaged" sh -c "[ \"\$(sqlite3 '$mnt/db' 'PRAGMA integrity_check')\" = ok ]"
	have=$(sqlite3 "$mnt/db" 'SELECT max(id) FROM t')
	[ "${acked:-0}" -gt 10 ] && [ "$have" -ge "$last" ] && good "sqlite, $acked acknowledged transactions" ||
		bad sqlite "acknowledged up to '$last', found up to '$have'"
else
	echo "skip $suite/sqlite: sqlite3 is not installed"
fi
unmount_image
check_image at_the_end && good image_is_whole
exit $status
