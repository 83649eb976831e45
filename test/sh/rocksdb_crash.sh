#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# SIGKILL in the middle of synced writes: every acknowledged key is there afterwards.
# timeout: 200
suite=rocksdb_crash
. "$(dirname "$0")/../rocksdb/lib.sh"

new_image 1G
acked=0
for round in 1 2 3 4 5 6; do
	: >"$tmp/acks"
	LD_PRELOAD=$plugin "$driver" acknowledge "$uri?cache=32M" /db$round >"$tmp/acks" 2>"$tmp/out" &
	pids=$!
	# Later each round: in logs, flushes, compactions.
	sleep $round.$((round * 13 % 10))
	kill -9 $pids 2>/dev/null
	wait $pids 2>/dev/null
	pids=
	acked=$(grep -c '^[0-9]*$' "$tmp/acks")
	if [ "$acked" -lt 10 ]; then
		cat "$tmp/acks" >>"$tmp/out"
		bad "round $round" "only $acked writes were acknowledged"
		continue
	fi
	with_plugin "$driver" verify "$uri" /db$round "$acked" || { bad "round $round" "of $acked acknowledged keys"; continue; }
	plugin_ran "round $round" && grep -q "verified $acked keys" "$tmp/out" && echo "ok $suite/round $round, $acked keys"
done
[ "$acked" -ge 10 ] || status=1
# db_bench itself, killed; what is there must be sound.
LD_PRELOAD=$plugin db_bench --fs_uri="$uri" --db=/bench --benchmarks=fillsync --num=10000000 --value_size=400 \
	>"$tmp/out" 2>&1 &
pids=$!
sleep 3
kill -9 $pids 2>/dev/null
wait $pids 2>/dev/null
pids=
good db_bench_killed 'readrandom' db_bench --fs_uri="$uri" --db=/bench --use_existing_db=1 --num=10000 --value_size=400 \
	--benchmarks=verifychecksum,readrandom
checked image_is_whole
exit $status
