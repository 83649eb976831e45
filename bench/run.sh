#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# make bench: db_bench on the plugin and on the kernel's ext4, pair by pair, so that both see the same machine.
#
#   bench/run.sh [-n ROUNDS] [-m "buffered direct"] [-b "BENCHMARK …"] [-s "SIDE SIDE"] [-o FILE.json] [-q]
#
# Sides: blobfs, datasum (a store made with -O datasum), ext4. Default: "blobfs ext4".
# A benchmark is a comma-separated list for one db_bench, which readrandom needs: it reads what the same process wrote, so that both
# caches are warm. Default: "fillseq fillrandom,overwrite,readrandom fillsync".
#
# Environment: BENCH_DIR (where the image and the ext4 directory lie: /var/tmp), BENCH_ROUNDS (3), BENCH_KEYS (500000),
# BENCH_VALUE (400 bytes), BENCH_READS (200000; a tenth of it with direct I/O), BENCH_SYNCS (3000), BENCH_IMAGE (4G), BENCH_CACHE (1G),
# BENCH_SCALE (divides keys, reads and syncs; for a quick look).
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
BUILD=${BUILD:-$root/build}
PATH=$BUILD/bin:$PATH
plugin=$BUILD/lib/librocksdb_blobfs.so
dir=${BENCH_DIR:-/var/tmp}
rounds=${BENCH_ROUNDS:-3} scale=${BENCH_SCALE:-1}
keys=$((${BENCH_KEYS:-500000} / scale)) value=${BENCH_VALUE:-400} syncs=$((${BENCH_SYNCS:-3000} / scale))
reads=$((${BENCH_READS:-200000} / scale)) size=${BENCH_IMAGE:-4G} cache=${BENCH_CACHE:-1G}
modes="buffered direct" benches="fillseq fillrandom,overwrite,readrandom fillsync" sides="blobfs ext4" json=$BUILD/bench.json quiet=

die() {
	echo "bench: $*" >&2
	exit 1
}

while getopts n:m:b:s:o:qh option; do
	case $option in
	n) rounds=$OPTARG ;;
	m) modes=$OPTARG ;;
	b) benches=$OPTARG ;;
	s) sides=$OPTARG ;;
	o) json=$OPTARG ;;
	q) quiet=1 ;;
	*) sed -n '3,15s/^# \{0,1\}//p' "$0"; exit 2 ;;
	esac
done
command -v db_bench >/dev/null || die "db_bench is not installed (Debian package rocksdb-tools; run 'make deps')"
for file in "$plugin" "$BUILD/bin/mkfs.blobfs"; do [ -e "$file" ] || die "$file is missing; run 'make'"; done

tmp=$(mktemp -d "$dir/blobfs-bench.XXXXXX") || exit 1
mounted= pid=
cleanup() {
	[ -z "$pid" ] || kill "$pid" 2>/dev/null
	[ -z "$mounted" ] || umount "$mounted"
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

# ---- the two sides ----

first=${sides%% *} second=${sides##* }
make_side() {
	case $1 in
	blobfs) mkfs.blobfs -q -s "$size" --prewrite "$tmp/blobfs" ;;
	datasum) mkfs.blobfs -q -O datasum -s "$size" --prewrite "$tmp/datasum" ;;
	ext4) ;;
	*) die "there is no side '$1'" ;;
	esac || die "mkfs.blobfs failed"
}
[ "$first $second" = "$sides" ] && [ "$first" != "$second" ] || die "two different sides are wanted, not '$sides'"
make_side "$first"
make_side "$second"
native=$tmp/native
mkdir "$native"
fstype=$(findmnt -n -o FSTYPE -T "$native")
ext4="a directory on $(findmnt -n -o SOURCE -T "$native"), ext4"
if [ "$fstype" != ext4 ] && [ "$first" = ext4 -o "$second" = ext4 ]; then
	[ "$(id -u)" = 0 ] || die "$dir is $fstype, not ext4, and only root can mount an image of ext4 (set BENCH_DIR)"
	dd if=/dev/zero of="$tmp/ext4" bs=1M count=4096 status=none && mkfs.ext4 -q -E nodiscard "$tmp/ext4" &&
		mount -o loop "$tmp/ext4" "$native" || die "cannot make and mount an image of ext4"
	mounted=$native
	ext4="an image of ext4 on a loop device (slower than a plain directory), on $fstype"
fi

# ---- measuring ----

# one SIDE MODE BENCHMARKS ROUND: appends "mode bench side round ops p50 p99" to $tmp/rows for each.
one() {
	side=$1 mode=$2 benchmarks=$3 round=$4
	set -- --benchmarks="$benchmarks" --num="$keys" --reads="$mode_reads" --value_size="$value" --key_size=16 \
		--compression_type=none --histogram=1 --seed="$round"
	# It takes a thousandth of num for the range of keys.
	[ "$benchmarks" != fillsync ] || set -- "$@" --num=$((syncs * 1000)) --writes="$syncs"
	[ "$mode" = buffered ] || set -- "$@" --use_direct_reads=1 --use_direct_io_for_flush_and_compaction=1
	case $side in
	blobfs | datasum)
		img=$tmp/$side
		LD_PRELOAD=$plugin BLOBFS_LOG=rocksdb=info db_bench "$@" --db=/db \
			--fs_uri="blobfs://$img?cache=$cache" >"$tmp/out" 2>&1 &
		;;
	ext4) db_bench "$@" --db="$native/db" >"$tmp/out" 2>&1 & ;;
	esac
	pid=$!
	wait $pid || { tail -20 "$tmp/out" >&2; die "db_bench $benchmarks on $side failed"; }
	pid=
	if [ "$side" != ext4 ] && ! grep -q "$img opened" "$tmp/out"; then die "the plugin did not run"; fi
	awk -v benchmarks="$benchmarks" -v mode="$mode" -v rest="$side $round" '
		BEGIN { n = split(benchmarks, name, ",") }
		{ for (i = 1; i <= n; i++) if ($1 == name[i]) { bench = $1; for (k = 2; k < NF; k++) if ($(k + 1) == "ops/sec") ops = $k } }
		/^Percentiles:/ && bench != "" {
			for (k = 2; k < NF; k++) { if ($k == "P50:") p50 = $(k + 1); if ($k == "P99:") p99 = $(k + 1) }
			print mode, bench, rest, ops, p50, p99
			bench = ""; seen++
		}
		END { if (seen != n) exit 1 }' "$tmp/out" >>"$tmp/rows" ||
		{ tail -20 "$tmp/out" >&2; die "cannot read what db_bench $benchmarks on $side printed"; }
	[ -n "$quiet" ] || tail -"$(echo "$benchmarks" | tr ',' '\n' | wc -l)" "$tmp/rows" >&2
}

# The sides take turns in going first.
for round in $(seq 1 "$rounds"); do
	for mode in $modes; do
		mode_reads=$reads
		[ "$mode" = buffered ] || mode_reads=$((reads / 10))
		for bench in $benches; do
			if [ $((round % 2)) = 1 ]; then order="$first $second"; else order="$second $first"; fi
			for side in $order; do one $side "$mode" "$bench" "$round"; done
		done
	done
done

# ---- the table ----

cat >"$tmp/sum.awk" <<'END'
function median(list, n, values, i, j, v) {
	split(list, values, " ")
	for (n = 0; (n + 1) in values; n++);
	for (i = 2; i <= n; i++) {
		v = values[i] + 0
		for (j = i - 1; j >= 1 && values[j] + 0 > v; j--) values[j + 1] = values[j]
		values[j + 1] = v
	}
	return n % 2 ? values[(n + 1) / 2] + 0 : (values[n / 2] + values[n / 2 + 1]) / 2
}
{
	id = $1 " " $2
	if (!(id in seen)) { seen[id] = 1; order[++count] = id }
	k = id " " $3
	ops[k] = ops[k] " " $5; p50[k] = p50[k] " " $6; p99[k] = p99[k] " " $7
	each[id " " $3 " " $4] = $5
	if ($4 > rounds) rounds = $4
}
END {
	printf "%-9s %-11s %27s   %27s   %s\n", "", "", first, second, first "/" second
	printf "%-9s %-11s %9s %8s %8s   %9s %8s %8s   %s\n", "mode", "benchmark", "ops/s", "p50 us", "p99 us", "ops/s", \
		"p50 us", "p99 us", "ops/s (each pair)"
	print "[" > json
	for (c = 1; c <= count; c++) {
		id = order[c]; split(id, part, " "); b = id " " first; e = id " " second; pairs = ""
		for (r = 1; r <= rounds; r++)
			pairs = pairs sprintf(" %.2f", each[b " " r] / each[e " " r])
		printf "%-9s %-11s %9d %8.1f %8.1f   %9d %8.1f %8.1f   %.2f (%s)\n", part[1], part[2], median(ops[b]), \
			median(p50[b]), median(p99[b]), median(ops[e]), median(p50[e]), median(p99[e]), median(pairs), \
			substr(pairs, 2)
		printf "%s  {\"mode\": \"%s\", \"benchmark\": \"%s\", \"rounds\": %d,\n" \
			"   \"%s\": {\"ops\": %d, \"p50_us\": %.2f, \"p99_us\": %.2f},\n" \
			"   \"%s\": {\"ops\": %d, \"p50_us\": %.2f, \"p99_us\": %.2f}, \"ratio\": %.3f}", (c > 1 ? ",\n" : ""), \
			part[1], part[2], rounds, first, median(ops[b]), median(p50[b]), median(p99[b]), second, median(ops[e]), median(p50[e]), \
			median(p99[e]), median(pairs) > json
	}
	print "\n]" > json
}
END
mkdir -p "$(dirname "$json")"
echo "db_bench, $keys keys of 16 bytes with values of $value, one thread, uncompressed; medians of $rounds interleaved rounds."
echo "blobfs: a prewritten image of $size, cache $cache; datasum: the same with data checksums. ext4: $ext4; the kernel's page cache is not limited."
awk -v json="$json" -v first="$first" -v second="$second" -f "$tmp/sum.awk" "$tmp/rows" || die "cannot sum up"
echo "As JSON: $json"
