#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# make bench-nvme, and a part of make bench: 4 KiB random reads of the NVMe driver, alone and with what stands on it, on the emulated controller in another process.
# SECONDS_EACH (2) for each line of times; then the blob store and its device by turns, on memory and on a device of 100,000 I/Os a second;
# then instructions a read, by callgrind, if valgrind is there.
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
BUILD=${BUILD:-$root/build}
export BUILD
tmp=$(mktemp -d) || exit 1
pids=
cleanup() {
	# shellcheck disable=SC2086 # several
	[ -z "$pids" ] || kill $pids 2>/dev/null
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

# serve SOCKET OPTION…: a controller.
serve() {
	"$BUILD/test/nvmet" "$@" &
	pids="$pids $!"
	for _ in 1 2 3 4 5 6 7 8 9 10; do [ -S "$1" ] || sleep 0.2; done
}

serve "$tmp/sock" --size 16G --null
echo "The driver, one thread, null medium in another process:"
"$BUILD/bench/nvme_bench" "vfio-user:$tmp/sock" -t "${SECONDS_EACH:-2}" || exit 1
for depth in 1 32 128; do
	"$BUILD/bench/stack_bench" "nvme:vfio-user:$tmp/sock" bdev -q $depth -t "${SECONDS_EACH:-2}" || exit 1
done
echo "The blob store and its device by turns:"
pairs() {
	# shellcheck disable=SC2086 # options
	"$BUILD/bench/stack_bench" "$1" pairs -t "${SECONDS_PAIR:-0.3}" $2 || exit 1
}
for what in "-q 32" "-q 32 -w" "-q 1" "-q 1 -w" "-i 100000" "-i 100000 -w" "-i 100000 -l 10 -q 1"; do
	pairs ram:1G "$what"
done
serve "$tmp/memory" --size 2G
for what in "-q 32" "-i 100000" "-i 100000 -w" "-i 100000 -l 10 -q 1"; do
	pairs "nvme:vfio-user:$tmp/memory" "$what"
done
command -v valgrind >/dev/null || { echo "valgrind is not installed: no instructions (make deps BENCH=1)"; exit 0; }
"$root/bench/nvme_count.py" --limit 1=350 --limit 32=250 || exit 1
"$root/bench/nvme_count.py" --stack --limit 1=100 --limit 1000000=250 32
