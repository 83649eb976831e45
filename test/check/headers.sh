#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Every public header compiles alone, as C11 and as C++17: headers.sh [ROOT].
cd "${1:-.}" || exit 2
tmp=$(mktemp -d) || exit 2
trap 'rm -rf "$tmp"' EXIT
status=0 seen=0
for header in base/*.h nvme/*.h bdev/*.h blob/*.h blobfs/*.h; do
	case $header in */internal.h | *'*'*) continue ;; esac
	# A header that shares its layer's internals is no public one.
	if grep -q '^#include "[a-z]*/internal.h"' "$header"; then continue; fi
	seen=$((seen + 1))
	# Twice: a header that lacks its guard fails.
	printf '#include "%s"\n#include "%s"\nextern int unit;\n' "$header" "$header" >"$tmp/t.c"
	cp "$tmp/t.c" "$tmp/t.cc"
	for how in "${CC:-gcc} -std=c11" "${CXX:-g++} -std=c++17"; do
		case $how in *c11) src=$tmp/t.c lang=C ;; *) src=$tmp/t.cc lang=C++ ;; esac
		if $how -I. -Wall -Wextra -Werror -fsyntax-only "$src" 2>"$tmp/log"; then
			echo "ok headers/$header as $lang"
		else
			head -5 "$tmp/log"
			echo "not ok headers/$header as $lang: does not compile alone"
			status=1
		fi
	done
done
if [ $seen = 0 ]; then
	echo "not ok headers: no public header found"
	status=1
fi
exit $status
