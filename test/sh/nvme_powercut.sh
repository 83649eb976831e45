#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The power goes under a mounted file system on a controller with a volatile cache: what fsync has acknowledged is there, and the rest is whole.
# Which of the unflushed writes survive is chosen by a seed; $NVME_SEED repeats one.
# timeout: 400
suite=nvme_powercut
. "$(dirname "$0")/../tools/lib.sh"
. "$root/test/tools/nvmet.sh"

mkdir m
cat >writer.py <<'E2'
# Files and directories, each told to standard output when its fsync has come back; until something fails.
import mmap, os, random, sys
page = mmap.mmap(-1, 65536)
r = random.Random(int(sys.argv[1]))
def synced(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
n = 0
try:
    while True:
        n += 1
        d = "m/d%d" % (n % 7)
        os.makedirs(d, exist_ok=True)
        size = r.choice([10, 100, 5000, 70000, 300000])
        body = (b"%08d " % n) * (size // 9 + 1)
        with open(d + "/tmp", "wb") as f:
            f.write(body)
            f.flush()
            os.fsync(f.fileno())
        os.rename(d + "/tmp", "%s/f%d" % (d, n % 50))
        synced(d)
        print(d[2:] + "/f%d" % (n % 50), n, len(body), flush=True)
        # Not acknowledged: it may be there or not. Direct, so that it is in the controller's cache soon.
        fd = os.open("m/loose%d" % (n % 3), os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
        os.pwrite(fd, page, r.randrange(64) * 65536)
        os.close(fd)
except OSError as e:
    print("stopped:", e, file=sys.stderr)
E2
cat >verify.py <<'E2'
# The last acknowledged version of each file, or one that was on its way when the power went.
import sys
acked = {}
for line in open(sys.argv[1]):
    if line.endswith("\n") and len(line.split()) == 3:
        path, n, size = line.split()
        acked[path] = int(n), int(size)
last = max((n for n, _ in acked.values()), default=0)
bad = 0
for path, (n, size) in acked.items():
    body = open("m/" + path, "rb").read()
    who = int(body[:8] or b"0")
    if body != (b"%08d " % who) * (len(body) // 9) or (who, len(body)) != (n, size) and who != last + 1:
        print(path, "has", who, len(body), "and not", n, size)
        bad = 1
print(len(acked), "files,", last, "written")
sys.exit(bad or len(acked) < int(sys.argv[2]))
E2

# once SEED BLOCK WHEN [FATE]: the seed says what is written, and what survives unless FATE does; 0: nothing that was not flushed, which may
# come before anything was acknowledged
once() {
	serve_scripted --size 512M --block "$2" --losing
	mkfs.blobfs -q "$dev" || { bad "mkfs_$1" "exit code $?"; return; }
	run mount.blobfs "$dev" m
	[ "$code" = 0 ] || { bad "mount_$1" "exit code $code"; return; }
	mounted=$tmp/m
	tell after "$3" powercut "${4:-$1}"
	timeout -k 5 60 python3 writer.py "$1" >acked 2>stopped
	[ -s stopped ] || bad "stopped_$1" 'the writer did not notice'
	fusermount3 -u m 2>/dev/null || fusermount3 -u -z m
	wait_unmounted
	mounted=
	run fsck.blobfs -n "$dev"
	[ "$code" = 0 ] || { bad "fsck_$1" "exit code $code: NVME_SEED=$1, blocks of $2, after $3"; return; }
	run mount.blobfs "$dev" m
	[ "$code" = 0 ] || { bad "mount_again_$1" "exit code $code"; return; }
	mounted=$tmp/m
	run python3 verify.py acked "${4:-1}"
	[ "$code" = 0 ] && ok "power_cut_$n" || bad "power_cut_$n" "NVME_SEED=$1, blocks of $2, after $3: something is not as it was acknowledged"
	fusermount3 -u m
	wait_unmounted
	mounted=
	lost=$((lost + $(sed -n 's/.* writes, \([0-9]*\) units.*/\1/p' nvmet.out)))
	[ -s nvmet.log ] && bad "specification_$1" "$(cat nvmet.log)"
	kill "$target"
	wait "$target"
}

seed=${NVME_SEED:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
echo "NVME_SEED=$seed"
lost=0 n=0
for when in '40 writes' '150 writes' '400 writes' '900 writes' '60 fua' '35 flushes' '250 writes' '1500 commands'; do
	n=$((n + 1))
	once $((seed + n - 1)) $((n % 2 ? 4096 : 512)) "$when"
done
# A test that loses nothing shows nothing: the last of these cuts comes with writes in the cache, and all of them are lost.
lost=0 n=$((n + 1))
once $((seed + n - 1)) 4096 '2 unflushed' 0
[ "$lost" -gt 0 ] && ok something_was_lost || bad something_was_lost "in a cut with unflushed writes nothing was lost"
exit $status
