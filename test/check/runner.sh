#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# test/run notices every way a test can go wrong. Needs $BUILD with the test shim built.
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH= cd -- "$here/../.." && pwd)
BUILD=${BUILD:-$root/build}
tmp=$(mktemp -d) || exit 2
trap 'rm -rf "$tmp"' EXIT
status=0 san=
case $BUILD in
*/asan) san=-fsanitize=address,undefined ;;
*/tsan) san=-fsanitize=thread ;;
esac
mkdir -p "$tmp/test/sh" "$tmp/build/test"
cp "$here/../run" "$tmp/test/run"

script() { # NAME BODY
	printf '#!/bin/sh\n%s\n' "$2" >"$tmp/test/sh/$1.sh"
	chmod +x "$tmp/test/sh/$1.sh"
}

# Runs the driver on PART and expects its last line and exit code; further arguments must be in the output.
expect() { # NAME PART CODE LAST [TEXT...]
	name=$1 part=$2 code=$3 last=$4
	shift 4
	python3 "$tmp/test/run" --build "$tmp/build" "$part" >"$tmp/out" 2>&1
	got=$?
	why=
	[ $got = "$code" ] || why="exit code $got, not $code"
	[ "$(tail -n 1 "$tmp/out")" = "$last" ] || why="$why; last line: $(tail -n 1 "$tmp/out")"
	for text; do
		grep -q -e "$text" "$tmp/out" || why="$why; does not say $text"
	done
	if [ -z "$why" ]; then
		echo "ok runner/$name"
	else
		sed 's/^/    /' "$tmp/out"
		echo "not ok runner/$name: $why"
		status=1
	fi
	rm -f "$tmp"/test/sh/*
}

script good 'echo "ok one"; echo "ok two"; echo "skip three: no root"'
expect passes_and_skips_are_counted shell 0 '2 passed, 0 failed, 1 skipped' 'three: no root'
script bad 'echo "ok one"; echo "not ok two: it broke"; exit 1'
expect a_failure_fails shell 1 '1 passed, 1 failed' 'two: it broke'
script old 'echo because of this; echo "not ok one: see above"; for i in $(seq 60); do echo "then $i"; echo "ok t$i"; done; exit 1'
expect what_came_before_a_failure_is_shown shell 1 '60 passed, 1 failed' 'because of this'
script lies 'echo "not ok one: it broke"; exit 0'
expect a_failure_with_exit_code_0_fails shell 1 '0 passed, 2 failed'
script silent 'exit 0'
expect a_script_without_tests_fails shell 1 '0 passed, 1 failed' 'ran no test'
script late 'echo "ok one"; exit 3'
expect an_error_after_the_tests_fails shell 1 '1 passed, 1 failed' 'exit code 3'
script crash 'echo "ok one"; kill -SEGV $$'
expect a_crash_fails shell 1 '1 passed, 1 failed' 'killed by SIGSEGV'
script hang '# timeout: 1
echo "ok one"; sleep 100'
expect a_hang_fails shell 1 '1 passed, 1 failed' 'did not end within 1 s'
script daemon 'echo "ok one"; setsid sleep 20 & exit 0'
expect a_daemon_left_behind_does_not_hold_the_run shell 0 '1 passed, 0 failed'
script plain 'echo "ok one"'
chmod -x "$tmp/test/sh/plain.sh"
expect a_script_that_is_not_executable_fails shell 1 '0 passed, 1 failed' 'plain: is not executable'
expect nothing_at_all_fails shell 1 '0 passed, 0 failed'

cat >"$tmp/t.c" <<'EOF'
#include <pthread.h>
#include <stdlib.h>
#include "test/shim/test.h"
TEST(a, passes) { EXPECT_EQ_INT(1, 1); }
TEST(a, crashes) { abort(); }
TEST(b, fails_in_a_call) { ASSERT_EQ_INT(1, 2); abort(); }
TEST(b, goes_on_after_an_expectation) { EXPECT_STREQ("x", "y"); EXPECT_ERR(-5, 0); }
static void *thread(void *arg) { ASSERT_EQ_INT(1, 2); abort(); return arg; }
TEST(b, fails_in_a_thread) {
	pthread_t t; ASSERT_OK(pthread_create(&t, NULL, thread, NULL)); pthread_join(t, NULL); }
TEST(b, knows_it_failed) { EXPECT_TRUE(false); if (!test_has_failed()) abort(); FAIL("with %d", 7); abort(); }
TEST(b, tells_its_seed) { uint64_t a = test_seed(); test_note("noted"); EXPECT_EQ_INT(a, test_seed()); FAIL("seeded"); }
TEST(b, forgets_the_seed_of_another) { FAIL("%s", "unseeded"); }
TEST(c, begins_with_the_seed_it_is_given) { EXPECT_EQ_INT(119, test_seed()); EXPECT_EQ_INT(119, test_seed_or(5)); }
TEST(c, is_skipped) { SKIP("no reason"); }
TEST(c, runs_after_the_crash) { EXPECT_OK(0); EXPECT_EQ_MEM("ab", "ab", 2); }
EOF
cat >"$tmp/hang.c" <<'EOF'
#include <stdio.h>
#include <unistd.h>
#include "test/shim/test.h"
TEST(a, takes_a_while) { sleep(1); }
TEST(a, takes_another) { sleep(1); }
TEST(b, hangs) { for (;;) pause(); }
TEST(c, hangs_and_talks) { for (;; usleep(100000)) { puts("[ hm ]"); fflush(stdout); } }
TEST(d, runs_after_them) { sleep(1); }
TEST(e, hangs_too) { for (;;) pause(); }
TEST(f, is_given_up) { }
EOF
built() { # FILE
	"${CC:-gcc}" -I"$root" -c "$tmp/$1.c" -o "$tmp/$1.o" &&
		"${CXX:-g++}" "$tmp/$1.o" "$BUILD/lib/libtestshim.a" $san -lgtest -pthread -o "$tmp/build/test/unit"
}
if built t; then
	export BLOBFS_SEED=0x77
	expect a_crashing_test_is_named_and_the_others_run unit 1 '3 passed, 7 failed, 1 skipped' \
		'FAILED a.crashes: killed by SIGABRT' 'FAILED b.fails_in_a_call' \
		'FAILED b.goes_on_after' 't.c:6' '(Input/output error)' \
		'FAILED b.fails_in_a_thread' 'with 7' 'c.is_skipped: no reason' \
		'(noted)' '(BLOBFS_SEED=119)'
	unset BLOBFS_SEED
	if grep -A3 unseeded "$tmp/out" | grep -q BLOBFS_SEED; then
		echo "not ok runner/a_seed_is_told_of_its_own_test_alone: it is told of another"
		status=1
	else
		echo "ok runner/a_seed_is_told_of_its_own_test_alone"
	fi
	built hang
	export TEST_TIMEOUT=2
	expect hanging_tests_are_named_and_not_waited_for unit 1 '3 passed, 4 failed' \
		'FAILED b.hangs: did not end within 2 s' 'FAILED c.hangs_and_talks: did not' 'FAILED e.hangs_too: did not' \
		'FAILED unit: 1 tests did not run'
	unset TEST_TIMEOUT
else
	echo "not ok runner/gtest: could not build against $BUILD/lib/libtestshim.a"
	status=1
fi
rm "$tmp/build/test/unit"
expect a_program_that_was_not_built_fails unit 1 '0 passed, 1 failed' 'was not built'
exit $status
