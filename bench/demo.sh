#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# make demo: an image, a mount, a tree copied in and compared, RocksDB beside it, and checks; one screen at the end.
# Environment: DEMO_DIR (where the 4 GiB image lies, sparse: /var/tmp), DEMO_TREE (what is copied), DEMO_KEYS (300000).
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
BUILD=${BUILD:-$root/build}
PATH=$BUILD/bin:$PATH
plugin=$BUILD/lib/librocksdb_blobfs.so
keys=${DEMO_KEYS:-300000}
tmp=$(mktemp -d "${DEMO_DIR:-/var/tmp}/blobfs-demo.XXXXXX") || exit 1
img=$tmp/demo.img mnt=$tmp/mnt
bench_pid= started=$(date +%s)
mkdir "$mnt"

unmount() { # waits for what the daemon writes at the end
	fusermount3 -u "$mnt" || return 1
	for i in $(seq 1 300); do
		blobfs df "$img" >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	return 1
}

cleanup() {
	[ -z "$bench_pid" ] || { kill "$bench_pid" 2>/dev/null; wait "$bench_pid" 2>/dev/null; }
	if grep -q " $mnt " /proc/mounts; then fusermount3 -u -z "$mnt"; fi
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

die() {
	echo "demo: $*" >&2
	[ ! -s "$tmp/out" ] || tail -15 "$tmp/out" >&2
	exit 1
}

note() { printf '%s\n' "$*" >>"$tmp/summary"; }
step() { printf '  %-60s' "$*"; began=$(date +%s%N); }
done_() { # in seconds and hundredths; $took for the summary
	took=$(awk -v a="$began" -v b="$(date +%s%N)" 'BEGIN { printf "%.2f", (b - a) / 1e9 }')
	printf '%6s s\n' "$took"
}

fuse=1
if [ ! -w /dev/fuse ] || ! command -v fusermount3 >/dev/null; then fuse=; fi

# A tree of thousands of files: what every machine with a compiler has, or one made here.
tree=${DEMO_TREE:-/usr/include}
if [ "$(find "$tree" -type f 2>/dev/null | head -3000 | wc -l)" -lt 3000 ]; then
	tree=$tmp/tree
	for d in $(seq 1 60); do
		mkdir -p "$tree/dir$d/sub"
		for f in $(seq 1 60); do
			seq "$f" $((f * d)) >"$tree/dir$d/sub/file$f"
		done
	done
fi
files=$(find "$tree" -type f | wc -l)
tree_size=$(du -sh --apparent-size "$tree" | cut -f1)

echo "BlobFS: a demonstration in $tmp"
step "mkfs.blobfs: an image of 4 GiB"
mkfs.blobfs -q -s 4G "$img" >"$tmp/out" 2>&1 || die "mkfs.blobfs failed"
done_

if [ -n "$fuse" ]; then
	step "mount.blobfs"
	mount.blobfs "$img" "$mnt" >"$tmp/out" 2>&1 || die "mount.blobfs failed"
	done_
	step "cp -a $tree ($files files, $tree_size)"
	cp -a "$tree" "$mnt/tree" >"$tmp/out" 2>&1 || die "cp failed"
	done_
	note "copied in         $files files, $tree_size, in $took s: $(awk -v n="$files" -v t="$took" 'BEGIN { printf "%d", n / t }') files/s"
	step "sync; diff -r"
	sync -f "$mnt" && diff -r --no-dereference "$tree" "$mnt/tree" >"$tmp/out" 2>&1 || die "the copy differs"
	done_
	note "compared          diff -r finds no difference ($took s)"
	step "umount"
	unmount || die "cannot unmount"
	done_
	how="with mount=DIR, listed through the kernel meanwhile"
else
	echo "  /dev/fuse cannot be opened here: skipping the mount, the copy and its comparison"
	note "skipped           mount, copy, compare: /dev/fuse cannot be opened here"
	how="without a mount"
fi

step "fsck.blobfs"
fsck.blobfs -n -f "$img" >"$tmp/out" 2>&1 || die "fsck.blobfs found damage"
done_
note "checked           fsck.blobfs: $(tail -1 "$tmp/out")"

uri=blobfs://$img
[ -z "$fuse" ] || uri="$uri?mount=$mnt"
step "db_bench on the plugin, $how"
LD_PRELOAD=$plugin BLOBFS_LOG=rocksdb=info db_bench --fs_uri="$uri" --db=/db --num="$keys" --value_size=400 \
	--compression_type=none --benchmarks=fillseq,readrandom,overwrite,readwhilewriting --reads=$((keys / 2)) \
	>"$tmp/out" 2>&1 &
bench_pid=$!
listings=0
while [ -n "$fuse" ] && kill -0 $bench_pid 2>/dev/null; do
	# A file may go between readdir and stat: that is no error of the listing.
	ls -l "$mnt" "$mnt/db" >"$tmp/list" 2>/dev/null
	grep -q 'MANIFEST-' "$tmp/list" && listings=$((listings + 1)) && cp "$tmp/list" "$tmp/seen"
	sleep 0.5
done
wait $bench_pid || die "db_bench failed"
bench_pid=
grep -q "$img opened" "$tmp/out" || die "the plugin did not run"
done_
awk '/ops\/sec/ { for (i = 2; i < NF; i++) if ($(i + 1) == "ops/sec")
	printf "RocksDB           %-17s %9d ops/s, %s us each\n", $1, $i, $3 }' "$tmp/out" >>"$tmp/summary"
if [ -n "$fuse" ]; then
	[ "$listings" -gt 0 ] || die "the database was never seen through the mount"
	if grep -q " $mnt " /proc/mounts; then die "db_bench left its mount behind"; fi
	note "seen meanwhile    the database listed $listings times through the mount, $(grep -c '\.sst' "$tmp/seen") tables at last"
fi

step "fsck.blobfs"
fsck.blobfs -n -f "$img" >"$tmp/out" 2>&1 || die "fsck.blobfs found damage"
done_
note "checked again     fsck.blobfs: $(tail -1 "$tmp/out")"
if [ -n "$fuse" ]; then
	step "mount, diff -r once more, umount"
	mount.blobfs "$img" "$mnt" >"$tmp/out" 2>&1 || die "mount.blobfs failed"
	diff -r --no-dereference "$tree" "$mnt/tree" >"$tmp/out" 2>&1 || die "the copy differs after all that"
	note "mounted again     the tree is still the same; $(df -h --output=used,avail "$mnt" | tail -1 | awk '{ print $1 " used, " $2 " free" }')"
	unmount || die "cannot unmount"
	done_
fi
note "the image         4 GiB, of which $(du -h "$img" | cut -f1) are written; it is deleted now"

echo
echo "What was done"
sed 's/^/  /' "$tmp/summary"
cat <<END
  in all            $(($(date +%s) - started)) s

What to try next
  export PATH=$BUILD/bin:\$PATH
  mkfs.blobfs -s 4G my.img && mkdir -p mnt && mount.blobfs my.img mnt    # fusermount3 -u mnt
  LD_PRELOAD=$plugin \\
    db_bench --fs_uri='blobfs://$root/my.img' --db=/db --benchmarks=fillseq,readrandom
  blobfs ls -l my.img /db; blobfs df my.img; fsck.blobfs -n my.img
  make bench    # against ext4            make check    # all tests
END
