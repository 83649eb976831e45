#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Every public header compiles alone, as C11 and as C++17, beside nothing but the other public headers;
# every other header compiles alone as the C it is written in: headers.sh [ROOT].
# Public, and installed, are base/*.h and the other layers' headers that carry BLOBFS_API.
cd "${1:-.}" || exit 2
tmp=$(mktemp -d) || exit 2
trap 'rm -rf "$tmp"' EXIT
status=0 seen=0

public() {
	{ ls base/*.h; grep -l BLOBFS_API nvme/*.h bdev/*.h blob/*.h blobfs/*.h; } 2>/dev/null |
		grep -v '/internal\.h$'
}

# compiles HEADER AS COMPILER...: the header twice, so that one that lacks its guard fails
compiles() {
	header=$1 as=$2
	shift 2
	printf '#include "%s"\n#include "%s"\nextern int unit;\n' "$header" "$header" >"$tmp/t.c"
	cp "$tmp/t.c" "$tmp/t.cc"
	src=$tmp/t.c
	[ "$as" = C++ ] && src=$tmp/t.cc
	if "$@" -Wall -Wextra -Werror -fsyntax-only "$src" 2>"$tmp/log"; then
		echo "ok headers/$header as $as"
	else
		head -5 "$tmp/log"
		echo "not ok headers/$header as $as: does not compile alone"
		status=1
	fi
}

for header in $(public); do
	seen=$((seen + 1))
	mkdir -p "$tmp/include/${header%/*}"
	cp "$header" "$tmp/include/$header"
done
for header in $(public); do
	compiles "$header" C11 "${CC:-gcc}" -std=c11 -I"$tmp/include"
	compiles "$header" C++ "${CXX:-g++}" -std=c++17 -I"$tmp/include"
done
for header in nvme/*.h bdev/*.h blob/*.h blobfs/*.h tools/*/*.h base/internal.h; do
	[ -e "$header" ] || continue
	[ -e "$tmp/include/$header" ] ||
		compiles "$header" C "${CC:-gcc}" -std=gnu11 -D_GNU_SOURCE -I.
done
if [ $seen = 0 ]; then
	echo "not ok headers: no public header found"
	status=1
fi
exit $status
