# SPDX-License-Identifier: BSD-2-Clause
# For the shell tests of the tools: sourced after `suite=NAME`.
root=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
BUILD=${BUILD:-$root/build}
PATH=$BUILD/bin:$PATH:/usr/sbin:/sbin
tmp=$(mktemp -d) || exit 2
status=0
mounted=
loop=
pids=

cleanup() {
	for dir in $mounted; do fusermount3 -u -z "$dir" 2>/dev/null; done
	for pid in $pids; do kill -9 "$pid" 2>/dev/null && wait "$pid" 2>/dev/null; done
	[ -z "$loop" ] || losetup -d "$loop" 2>/dev/null
	chmod -R u+rwX "$tmp" 2>/dev/null
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP
chmod 755 "$tmp"
cd "$tmp" || exit 2
export LC_ALL=C

for program in mkfs.blobfs fsck.blobfs blobfs blobfs-nvme blobcli; do
	[ -x "$BUILD/bin/$program" ] && continue
	echo "not ok $suite: $program was not built"
	exit 1
done

bad() {
	tail -20 "$tmp/.out" 2>/dev/null | sed 's/^/    /'
	tail -20 "$tmp/.err" 2>/dev/null | sed 's/^/    /'
	echo "not ok $suite/$1: $2"
	status=1
	return 1
}

ok() { echo "ok $suite/$1"; }

# run COMMAND...: output to .out and .err, exit code to $code. Nothing here takes a minute.
run() {
	timeout -k 5 60 "$@" >"$tmp/.out" 2>"$tmp/.err" </dev/null
	code=$?
}

# is NAME CODE PATTERN COMMAND...: this exit code, and PATTERN in what it says ('' for no matter what).
is() {
	name=$1 want=$2 pattern=$3
	shift 3
	run "$@"
	[ "$code" = "$want" ] || { bad "$name" "exit code $code, not $want: $*"; return 1; }
	cat "$tmp/.out" "$tmp/.err" >"$tmp/.both"
	if [ -n "$pattern" ] && ! grep -q -e "$pattern" "$tmp/.both"; then
		bad "$name" "it does not say '$pattern': $*"
		return 1
	fi
	ok "$name"
}

# refused NAME CODE PATTERN COMMAND...: the same for an error: nothing on standard output, and one line (or a usage hint after it)
# on standard error that begins with the program's name.
refused() {
	is "$@" || return 1
	shift 3
	while :; do
		case $1 in *blobfs | *blobfs-nvme | blobcli) break ;; esac
		shift
	done
	program=${1##*/}
	if [ -s "$tmp/.out" ]; then
		bad "$name" "an error writes to standard output"
	elif [ "$(grep -vc "^Try '" "$tmp/.err")" != 1 ] || ! grep -q "^$program[: ]" "$tmp/.err"; then
		bad "$name" "not one line that begins with $program"
	fi
}

# unchanged NAME FILE COMMAND...: whatever the command says, the file's bytes stay.
unchanged() {
	name=$1 file=$2
	shift 2
	before=$(sha256sum <"$file")
	run "$@"
	[ "$before" = "$(sha256sum <"$file")" ] && ok "$name" || bad "$name" "$file was written: $*"
}

sound() { # NAME IMAGE
	run fsck.blobfs -n -f "$2"
	[ "$code" = 0 ] && ok "$1" || bad "$1" "fsck says $code"
}

# raid FILE SIZE: the superblock of a RAID (version 1.0), which lies at the end, on a medium that is zero before.
raid() {
	truncate -s "$2" "$1"
	python3 - "$1" <<'PY'
import os, struct, sys
at = os.path.getsize(sys.argv[1]) // 512 - 16 & ~7
b = bytearray(4096)
struct.pack_into('<II', b, 0, 0xa92b4efc, 1)
b[16:32] = bytes(range(16))
struct.pack_into('<Q', b, 144, at)
with open(sys.argv[1], 'r+b') as f:
    f.seek(at * 512)
    f.write(b)
PY
}

. "$root/test/tools/nobody.sh"
