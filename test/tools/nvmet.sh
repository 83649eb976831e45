# SPDX-License-Identifier: BSD-2-Clause
# An emulated controller in another process, for shell tests: sourced after tools/lib.sh.
dev=nvme:vfio-user:$tmp/sock

# serve ARGUMENTS...: a controller at $tmp/sock, whose process is $target
serve() {
	rm -f "$tmp/sock"
	"$BUILD/test/nvmet" "$tmp/sock" "$@" >"$tmp/nvmet.out" 2>"$tmp/nvmet.log" &
	target=$!
	pids="$pids $target"
	for _ in $(seq 50); do [ -S "$tmp/sock" ] && return; sleep 0.1; done
	bad serve 'the controller does not start'
	exit 1
}

# serve_scripted ARGUMENTS...: the same; `tell LINE` has it misbehave, which has happened when it returns.
serve_scripted() {
	rm -f "$tmp/ctl"
	mkfifo "$tmp/ctl"
	serve "$@" --script "$tmp/ctl"
}

tell() {
	before=$(wc -l <"$tmp/nvmet.out")
	echo "$*" >"$tmp/ctl"
	case $1 in after) sleep 0.1; return ;; esac
	for _ in $(seq 200); do [ "$(wc -l <"$tmp/nvmet.out")" -gt "$before" ] && return; sleep 0.05; done
	bad tell "it does not listen: $*"
}

# happened ACTION: what `tell after …` asked for has.
happened() {
	for _ in $(seq 400); do grep -q "^$1" "$tmp/nvmet.out" && return; sleep 0.05; done
	bad happened "$1 has not"
}

# end_of_target NAME: it ends, and has nothing to complain of.
end_of_target() {
	kill -TERM "$target"
	wait "$target"
	[ -s "$tmp/nvmet.log" ] && bad "$1" "$(cat "$tmp/nvmet.log")" || ok "$1"
	rm -f "$tmp/sock"
}

# The daemon ends after the unmount, and lets go of the controller.
wait_unmounted() {
	for _ in $(seq 300); do
		pgrep -f "^mount.blobfs $dev" >/dev/null || return 0
		sleep 0.1
	done
	bad unmount 'the daemon does not end'
}
