#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# configure, make deps and make install: what they do, and what they say when something is missing.
# timeout: 600
root=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
BUILD=${BUILD:-$root/build}
cd "$root" || exit 2
tmp=$(mktemp -d) || exit 2
chmod 755 "$tmp"
trap 'rm -rf "$tmp"' EXIT
status=0
unset MAKEFLAGS MAKELEVEL MFLAGS

# check NAME WANTED-CODE COMMAND...: output goes to $tmp/out
check() {
	name=$1 want=$2
	shift 2
	"$@" >"$tmp/out" 2>&1
	got=$?
	[ "$got" = "$want" ] && return 0
	sed 's/^/    /' "$tmp/out"
	bad "$name" "exit code $got, not $want"
	return 1
}

bad() {
	echo "not ok setup/$1: $2"
	status=1
}

says() { # NAME PATTERN...
	name=$1
	shift
	for pattern; do
		if ! grep -q -e "$pattern" "$tmp/out"; then
			sed 's/^/    /' "$tmp/out"
			bad "$name" "it does not say $pattern"
			return 1
		fi
	done
	echo "ok setup/$name"
}

check unknown_option 2 ./configure --with-magic && says unknown_option 'unknown option --with-magic'
check both_sanitizers 2 ./configure --enable-asan --enable-tsan && says both_sanitizers 'exclude each other'

check no_compiler 1 env CC=/nonexistent/cc ./configure --build-dir="$tmp/b1" &&
	says no_compiler 'C compiler (Debian package build-essential)' 'make deps'
[ ! -e "$tmp/b1/config.mk" ] || bad no_compiler 'it wrote config.mk all the same'

cat >"$tmp/cc" <<'EOF'
#!/bin/sh
case " $* " in *" -luring "*) exit 1 ;; esac
exec gcc "$@"
EOF
chmod +x "$tmp/cc"
check no_library 1 env CC="$tmp/cc" ./configure --build-dir="$tmp/b2" &&
	says no_library 'liburing (Debian package liburing-dev)' 'Run `make deps`'
if [ "$(grep -c 'Debian package' "$tmp/out")" = 1 ]; then
	echo "ok setup/only_the_missing_library_is_named"
else
	bad only_the_missing_library_is_named "$(grep -c 'Debian package' "$tmp/out") are named"
fi

check options 0 ./configure --build-dir="$tmp/b3" --prefix=/opt/x --debug --enable-asan
if grep -q '^OPT := -O0' "$tmp/b3/config.mk" && grep -q '^PREFIX ?= /opt/x' "$tmp/b3/config.mk" &&
	grep -q '^CFG_SAN := asan' "$tmp/b3/config.mk"; then
	echo "ok setup/options_reach_the_configuration"
else
	bad options_reach_the_configuration "$(cat "$tmp/b3/config.mk")"
fi
check plain_make 0 make -n O="$tmp/b3" && says make_alone_builds_everything 'bin/mkfs.blobfs' 'librocksdb_blobfs.so'
touch -d '2001-01-01' "$tmp/b3/config.mk"
check again 0 make O="$tmp/b3" compdb
if grep -q '^PREFIX ?= /opt/x' "$tmp/b3/config.mk" && grep -q -- '--debug' "$tmp/b3/config.mk"; then
	echo "ok setup/a_new_configure_run_keeps_the_options"
else
	bad a_new_configure_run_keeps_the_options "$(cat "$tmp/b3/config.mk")"
fi
if python3 -m json.tool "$tmp/b3/compile_commands.json" >/dev/null; then
	echo "ok setup/compile_commands_are_json"
else
	bad compile_commands_are_json "python cannot read them"
fi

check deps_there 0 make deps DEPS='bash coreutils' && says deps_there 'all there'
if [ "$(id -u)" = 0 ] && su nobody -s /bin/sh -c "cd '$root' && test -r Makefile" 2>/dev/null; then
	check deps_not_root 2 su nobody -s /bin/sh -c \
		"cd '$root' && make deps DEPS='bash no-such-package'" &&
		says deps_not_root 'as root' 'apt-get install no-such-package$'
else
	echo "skip setup/deps_not_root: cannot become nobody here"
fi

inst=$tmp/usr
check install 0 make O="${BUILD%/asan}" install PREFIX="$inst" || exit 1
cat >"$tmp/t.c" <<'EOF'
#include "base/crc32c.h"
#include "blobfs/blobfs.h"
int main(void) { return base_crc32c(0, "123456789", 9) == 0xe3069283u ? 0 : 1; }
EOF
cp "$tmp/t.c" "$tmp/t.cc"
flags=$(PKG_CONFIG_PATH=$inst/lib/pkgconfig pkg-config --cflags --libs blobfs)
for how in "gcc -std=c11 $tmp/t.c" "g++ -std=c++17 $tmp/t.cc"; do
	name=installed_library_works_from_${how%% *}
	# shellcheck disable=SC2086
	check "$name" 0 $how $flags -o "$tmp/t" && check "$name" 0 "$tmp/t" && echo "ok setup/$name"
done
if python3 -c "import ctypes, sys; ctypes.CDLL(sys.argv[1]).op_start" "$inst/lib/libblobfs.so"; then
	echo "ok setup/the_library_can_be_loaded_by_a_running_program"
else
	bad the_library_can_be_loaded_by_a_running_program "dlopen failed"
fi
for program in sbin/mkfs.blobfs sbin/fsck.blobfs sbin/mount.blobfs bin/blobfs lib/librocksdb_blobfs.so; do
	if [ ! -e "$inst/$program" ]; then
		bad "installed_$program" "it is not there"
	elif ldd "$inst/$program" | grep -q 'not found\|/build/'; then
		bad "installed_$program" "it does not find its libraries: $(ldd "$inst/$program" | grep blobfs)"
	else
		echo "ok setup/installed_$program"
	fi
done
check uninstall 0 make O="${BUILD%/asan}" uninstall PREFIX="$inst"
if [ -z "$(find "$inst" ! -type d)" ]; then
	echo "ok setup/uninstall_leaves_nothing"
else
	bad uninstall_leaves_nothing "$(find "$inst" ! -type d)"
fi
exit $status
