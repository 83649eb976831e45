#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# make bench-store, and the last part of make bench: what the blob store is judged by, each against something that runs beside it in turns, and one table at the end.
#
#   bench/store.sh [PART …]     recover memory ram file commit stops age; default: all
#
# Environment: PAIRS (11; 3 for a quick look), BENCH_DIR (where images and files lie: /var/tmp; some 3 GiB, on ext4), FILES (1000000),
# ALLOCATIONS (10000000), SECONDS_EACH (of one side of a pair; each part has its own default).
# Others' load changes the figures of the disk by a multiple: the table says how loaded the machine was.
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
BUILD=${BUILD:-$root/build}
bench=$BUILD/bench PATH=$BUILD/bin:$PATH
pairs=${PAIRS:-11} files=${FILES:-1000000} allocations=${ALLOCATIONS:-10000000}
parts=${*:-recover memory ram file commit stops age}

tmp=$(mktemp -d "${BENCH_DIR:-/var/tmp}/blobfs-store.XXXXXX") || exit 1
pid=
cleanup() {
	[ -z "$pid" ] || kill "$pid" 2>/dev/null
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP
failed=

# part TITLE COMMAND…: its ROW lines go to the table, everything else is shown.
part() {
	echo "$1 (load $(cut -d' ' -f1 /proc/loadavg))"
	shift
	"$@" >"$tmp/out" 2>&1 &
	pid=$!
	wait $pid || { echo "FAILED: $*" >&2; failed=1; }
	pid=
	grep -v '^ROW' "$tmp/out"
	grep '^ROW' "$tmp/out" >>"$tmp/rows"
}

# The maker ends with SIGKILL; what it left is what is recovered.
make_image() {
	"$bench/store_recover" make "$1" "$2" "$files" 2>&1
	[ $? = 137 ]
}

prewritten() {
	mkfs.blobfs -q -s "$1" --prewrite "$tmp/image"
}

each=${SECONDS_EACH:+-t $SECONDS_EACH}
start=$(date +%s)
echo "the blob store, $pairs interleaved pairs, $(nproc) processors"
: >"$tmp/rows"
for p in $parts; do
	case $p in
	recover)
		make_image "$tmp/small" 100G && make_image "$tmp/large" 10T || failed=1
		part "recovery after SIGKILL, 100 GiB and 10 TiB" "$bench/store_recover" pairs "$tmp/small" "$tmp/large" "$pairs"
		rm -f "$tmp/small" "$tmp/large"
		;;
	memory) part "memory of files and runs" "$bench/store_recover" memory "$tmp/sparse" "$files"; rm -f "$tmp/sparse" ;;
	ram)
		part "random I/O on memory, processor time" "$bench/store_io" ram -p "$pairs" $each
		part "the same with checksums of data" "$bench/store_io" ram -c -p "$pairs" $each
		;;
	file)
		command -v fio >/dev/null || { echo "FAILED: $p: fio is not installed ('make deps BENCH=1')" >&2; failed=1; continue; }
		prewritten 2G && part "random I/O on a file, beside fio" "$bench/store_io" file "$tmp/image" -p "$pairs" $each
		;;
	commit) prewritten 1G && part "durable transactions, beside $(findmnt -n -o FSTYPE -T "$tmp")" "$bench/store_commit" "$tmp/image" "$tmp" -p "$pairs" $each ;;
	stops) prewritten 2G && part "writers of metadata beside checkpoints" "$bench/store_stops" "$tmp/image" $each ;;
	age) part "allocation on an aged store" "$bench/store_age" -p "$pairs" -a "$allocations" ;;
	*) echo "unknown part $p" >&2; exit 2 ;;
	esac
	rm -f "$tmp/image"
done

echo
awk -F'\t' 'BEGIN { printf "%-66s %12s %14s\n", "", "bar", "result" }
	{ printf "%-66s %12s %14s  %s\n", $2, $3, $4, $5; if ($5 != "ok") missed++ }
	END { printf "%d measured, %d missed\n", NR, missed }' "$tmp/rows"
echo "$(($(date +%s) - start)) s; load $(cut -d' ' -f1-3 /proc/loadavg)"
[ -z "$failed" ]
