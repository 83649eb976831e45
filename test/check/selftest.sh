#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The checkers find what they are for: each gets a small bad tree, and a good one.
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
tmp=$(mktemp -d) || exit 2
trap 'rm -rf "$tmp"' EXIT
status=0
licence='/* SPDX-License-Identifier: BSD-2-Clause */'

good_tree() {
	rm -rf "$tmp/t"
	mkdir -p "$tmp/t/base" "$tmp/t/bdev" "$tmp/t/blob" "$tmp/t/test/unit/blob" "$tmp/t/tools/mkfs"
	cp "$here/../../base/api.h" "$tmp/t/base/api.h"
	printf '%s\n' "$licence" '#ifndef A_H' '#define A_H' '#include "base/api.h"' 'BLOBFS_C_BEGIN' \
		'BLOBFS_API int base_a(int (*fn)(int x), int y);' 'BLOBFS_C_END' '#endif' >"$tmp/t/base/a.h"
	printf '%s\n' "$licence" '#include "base/a.h"' 'int base_a(int (*fn)(int x), int y)' '{' \
		'	return fn(y);' '}' >"$tmp/t/base/a.c"
	printf '%s\n' "$licence" '#ifndef B_H' '#define B_H' 'struct hidden { int x; };' '#endif' \
		>"$tmp/t/blob/internal.h"
	printf '%s\n' "$licence" '#include "base/a.h"' '#include "blob/internal.h"' >"$tmp/t/blob/b.c"
	printf '%s\n' "$licence" '#include "blob/internal.h"' >"$tmp/t/test/unit/blob/b.c"
	printf '%s\n' "$licence" '#include "base/a.h"' '#include <json-c/json.h>' >"$tmp/t/tools/mkfs/m.c"
}

# finds NAME PATTERN COMMAND...: the command must fail and say PATTERN
finds() {
	name=$1 pattern=$2
	shift 2
	if "$@" >"$tmp/out" 2>&1; then
		echo "not ok checkers/$name: it passed"
		status=1
	elif ! grep -q -e "$pattern" "$tmp/out"; then
		cat "$tmp/out"
		echo "not ok checkers/$name: it did not say $pattern"
		status=1
	else
		echo "ok checkers/$name"
	fi
}

passes() {
	name=$1
	shift
	if "$@" >"$tmp/out" 2>&1; then
		echo "ok checkers/$name"
	else
		cat "$tmp/out"
		echo "not ok checkers/$name: it failed"
		status=1
	fi
}

layers() { python3 "$here/layers.py" "$tmp/t"; }
text() { python3 "$here/text.py" "$tmp/t"; }
headers() { sh "$here/headers.sh" "$tmp/t"; }
exports() {
	"${CC:-gcc}" -shared -fPIC -fvisibility=hidden -I"$tmp/t" "$tmp/t/base/a.c" -o "$tmp/lib.so" &&
		python3 "$here/exports.py" "$tmp/t" "$tmp/lib.so"
}

good_tree
passes a_good_tree_has_good_layers layers
passes a_good_tree_has_good_headers headers
passes a_good_tree_exports_its_api exports
passes a_good_tree_has_good_text text

echo '#include "blob/b.h"' >>"$tmp/t/base/a.c"
echo "$licence" >"$tmp/t/blob/b.h"
finds an_include_that_points_up 'base may not include blob/b.h' layers

good_tree
echo '#include "tools/mkfs/m.h"' >>"$tmp/t/blob/b.c"
finds an_include_of_nothing 'does not exist' layers

good_tree
echo '#include "blob/internal.h"' >>"$tmp/t/tools/mkfs/m.c"
finds an_internal_header_outside_its_layer 'belongs to blob alone' layers

good_tree
printf '%s\n' "$licence" '#include "blob/internal.h"' >"$tmp/t/blob/private.h"
printf '%s\n' "$licence" '#include "blob/private.h"' >"$tmp/t/blob/too.h"
echo '#include "blob/too.h"' >>"$tmp/t/tools/mkfs/m.c"
finds a_private_header_outside_its_layer 'blob/too.h belongs to blob alone' layers

good_tree
echo '#include <liburing.h>' >>"$tmp/t/blob/b.c"
finds a_library_in_the_wrong_layer 'is for bdev alone' layers

good_tree
{ printf 'static int f(void)\n{\n'; yes '	g();' | head -71; echo '}'; } >>"$tmp/t/blob/b.c"
finds a_long_function 'a function of 71 lines' layers

good_tree
{ printf 'static int f(void)\n{\n'; yes '	g();' | head -70; echo '}'; } >>"$tmp/t/blob/b.c"
passes a_function_of_70_lines_is_allowed layers

good_tree
{
	printf '%s\nclass C {\n\tint f() const override\n\t{\n' "$licence"
	yes '		g();' | head -71
	printf '\t}\n};\n'
} >"$tmp/t/tools/mkfs/c.cc"
finds a_long_member_function 'a function of 71 lines' layers

good_tree
yes '/* */' | head -1000 >>"$tmp/t/blob/b.c"
finds a_long_file '1003 lines' layers

good_tree
echo 'int x;' >"$tmp/t/blob/b.c"
finds a_file_without_a_licence 'names no licence' layers

good_tree
rm -r "$tmp/t"/*
finds an_empty_tree 'no source files' layers

good_tree
echo 'static inline uint32_t x(void) { return 0; }' >>"$tmp/t/base/a.h"
finds a_header_that_does_not_compile_alone 'not ok headers/base/a.h as C11:' headers

good_tree
printf '%s\nint f(int class); /* BLOBFS_API */\n' "$licence" >"$tmp/t/bdev/bdev.h"
finds a_header_that_is_no_cpp 'not ok headers/bdev/bdev.h as C++' headers

good_tree
printf '%s\n' '#include "blob/more.h"' 'BLOBFS_API int x;' >"$tmp/t/blob/blob.h"
echo 'struct more { int x; };' >"$tmp/t/blob/more.h"
finds a_public_header_that_needs_a_private_one 'not ok headers/blob/blob.h as C11' headers

good_tree
echo 'struct more { size_t x; };' >"$tmp/t/blob/more.h"
finds a_private_header_that_does_not_compile 'not ok headers/blob/more.h as C:' headers

good_tree
printf 'int leaked(void);\n__attribute__((visibility("default"))) int leaked(void)\n{\n\treturn 0;\n}\n' \
	>>"$tmp/t/base/a.c"
finds a_leaked_symbol 'leaked: exported, but not' exports

good_tree
sed -i 's/^BLOBFS_C_END/BLOBFS_API extern int base_gone;\nBLOBFS_C_END/' "$tmp/t/base/a.h"
finds a_missing_symbol 'base_gone: declared BLOBFS_API' exports

good_tree
echo '/* see iss''ue #12 */' >>"$tmp/t/blob/b.c"
finds an_issue_number 'blob/b.c:4: mentions an issue' text

good_tree
echo '/* as in /ho''me/somebody/b.c */' >>"$tmp/t/blob/b.c"
finds a_path_of_a_machine 'mentions a path' text

good_tree
echo '/* TO''DO: later */' >>"$tmp/t/blob/b.c"
finds something_left_undone 'something left undone' text

good_tree
(cd "$tmp/t" && git init -q && git add -A && git -c user.name=x -c user.email=x@x commit -qm 'Fixes #7')
finds a_commit_message 'commit .*mentions an issue' text
exit $status
