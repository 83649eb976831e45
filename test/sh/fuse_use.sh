#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# What people do with a file system, by the tools they do it with, compared after a clean remount.
# timeout: 240
suite=fuse_use
. "$(dirname "$0")/../fuse/lib.sh"

new_image 2G
mount_image

cp -a /usr/include "$mnt/include" >"$tmp/out" 2>&1 || bad cp "exit code $?"
verdict cp_and_diff "the copy differs" diff -r --no-dereference /usr/include "$mnt/include"
tar cf "$tmp/tree.tar" -C /usr/include . 2>"$tmp/out"
mkdir "$mnt/untar"
tar xpf "$tmp/tree.tar" -C "$mnt/untar" >"$tmp/out" 2>&1 || bad tar "exit code $?"
verdict tar_and_compare "tar --compare finds differences" tar df "$tmp/tree.tar" -C "$mnt/untar"

if command -v git >/dev/null; then
	mkdir "$mnt/repo"
	cd "$mnt/repo" || exit 1
	export HOME="$tmp" GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
	for d in $(seq 50); do
		mkdir "d$d"
		seq 100 | awk -v d="d$d" '{ print "file", d, $1 >(d "/" $1); close(d "/" $1) }'
	done
	git init -q . && git add . && git commit -q -m all >"$tmp/out" 2>&1 && [ "$(git ls-files | wc -l)" = 5000 ] &&
		git fsck --full >"$tmp/out" 2>&1 && good git_of_5000_files || bad git_of_5000_files "exit code $?"
	[ -z "$(git status --porcelain)" ] && good git_status || bad git_status "not clean"
	cd /
else
	echo "skip $suite/git: git is not installed"
fi

dd if=/dev/urandom of="$tmp/big" bs=1M count=64 status=none
verdict dd_fsync "dd failed" dd if="$tmp/big" of="$mnt/big" bs=1M conv=fsync
verdict dd_direct_write "dd failed" dd if="$tmp/big" of="$mnt/direct" bs=256k oflag=direct
dd if="$mnt/direct" bs=256k iflag=direct status=none 2>"$tmp/out" | cmp - "$tmp/big" >>"$tmp/out" 2>&1 && good dd_direct_read ||
	bad dd_direct_read "differs"
cp --sparse=always "$tmp/big" "$mnt/sparse"
truncate -s 300M "$mnt/sparse"
printf x | dd of="$mnt/sparse" bs=1 seek=200000000 conv=notrunc status=none
cp --sparse=auto "$mnt/sparse" "$tmp/sparse" && cmp "$tmp/sparse" "$mnt/sparse" >"$tmp/out" 2>&1 && good sparse_copy ||
	bad sparse_copy "differs"
[ "$(du -k "$mnt/sparse" | cut -f1)" -lt 100000 ] && good sparse_takes_little || bad sparse_takes_little "$(du -k "$mnt/sparse")"
rm "$tmp/sparse"
printf ',s/include/INCLUDE/g\nw\nq\n' >"$tmp/ed"
cp /usr/include/stdio.h "$mnt/edited.h"
sed -i 's/include/INCLUDE/g' "$mnt/edited.h"
[ "$(sed 's/include/INCLUDE/g' /usr/include/stdio.h | sha256sum)" = "$(sha256sum <"$mnt/edited.h")" ] && good sed_in_place ||
	bad sed_in_place "differs"
cp /bin/true "$mnt/true" && "$mnt/true" && good program_runs || bad program_runs "exit code $?"

# Many at once: writers, and readers of the same files.
mkdir "$mnt/many"
for w in 1 2 3 4 5 6 7 8; do
	(for i in $(seq 40); do seq $((w * 1000 + i)) >"$mnt/many/$w.$i"; done) &
done
wait
for w in 1 2 3 4 5 6 7 8; do
	(for i in $(seq 40); do [ "$(tail -n 1 "$mnt/many/$w.$i")" = $((w * 1000 + i)) ] || echo "$w.$i"; done >"$tmp/wrong.$w") &
done
wait
[ "$(find "$mnt/many" -type f | wc -l)" = 320 ] && [ -z "$(cat "$tmp"/wrong.*)" ] && good parallel_writers_and_readers ||
	bad parallel_writers_and_readers "$(cat "$tmp"/wrong.*)"
(cd "$mnt" && for w in 1 2 3 4; do (sha256sum big >"$tmp/r.$w") & done; wait)
[ "$(cat "$tmp"/r.* | sort -u | wc -l)" = 1 ] && good concurrent_readers || bad concurrent_readers "they differ"

# The second write falls into the clock's tick of the first: the kernel has no other time to send for it.
python3 - "$mnt/ticks" <<'PY'
import os, sys
os.mkdir(sys.argv[1])
for i in range(100):
    fd = os.open(f"{sys.argv[1]}/{i}", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"a" * 5000)
    os.fsync(fd)
    os.write(fd, b"b" * 5000)
    os.close(fd)
PY

sums "$mnt" >"$tmp/before"
(cd "$mnt" && find . -printf '%p %i %m %u %g %s %T@ %l %n\n' | sort) >"$tmp/stat1"
remount
sums "$mnt" >"$tmp/after"
(cd "$mnt" && find . -printf '%p %i %m %u %g %s %T@ %l %n\n' | sort) >"$tmp/stat2"
diff "$tmp/before" "$tmp/after" >"$tmp/out" 2>&1 && good all_is_there_after_a_remount || bad all_is_there_after_a_remount "files differ"
diff "$tmp/stat1" "$tmp/stat2" >"$tmp/out" 2>&1 && good attributes_too || bad attributes_too "they differ"
! command -v git >/dev/null || verdict git_fsck_after_a_remount "git fsck fails" git -C "$mnt/repo" fsck --full
verdict remove_all "rm -rf fails" rm -rf "$mnt/include" "$mnt/untar" "$mnt/repo" "$mnt/many"
unmount_image
check_image at_the_end && good image_is_whole
exit $status
