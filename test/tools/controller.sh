# SPDX-License-Identifier: BSD-2-Clause
# An emulated controller in place of an image file, for the shell tests that run on either (TEST_DEVICE=nvme).

# new_controller SIZE: one at $tmp/sock, whose process is $target: no child of this shell, which may wait for all its children.
new_controller() {
	# The old one takes its socket away when it ends.
	[ -z "$target" ] || kill "$target"
	while [ -n "$target" ] && kill -0 "$target" 2>/dev/null; do sleep 0.1; done
	rm -f "$tmp/sock"
	target=$("$BUILD/test/nvmet" "$tmp/sock" --size "$1" --block 4096 2>"$tmp/nvmet.log" >/dev/null & echo $!)
	for _ in $(seq 100); do [ -S "$tmp/sock" ] && return; sleep 0.1; done
	echo "not ok $suite/controller: nvmet does not start"
	exit 1
}
