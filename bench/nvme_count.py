#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Instructions of a random 4 KiB read in the NVMe driver, submit to callback, by function.

  bench/nvme_count.py [--build DIR] [--layer driver|bdev|blob|op] [--runs N] [--limit DEPTH=N]... [DEPTH...]
  bench/nvme_count.py [--build DIR] --stack [--limit RUNS=N]... [DEPTH]

Runs bench/nvme_bench (or, for what stands on the driver, bench/stack_bench) under callgrind on the emulated controller in another
process, counts what is executed from its loop, everything but its own functions, and divides by the number of
reads. With --limit it fails when a depth costs more. For the driver it also fails when one of its two functions on this way holds a
division, or anything on it is a lock, takes memory or enters the system. Needs valgrind. --runs: of the blob.
--stack: the driver, the device port on it, and the blob store on that with a blob of one run and of a million; then what each adds to the
one before, with --limit for what the store may add.
"""
import argparse
import collections
import os
import re
import subprocess
import sys
import tempfile
import time

READS = 5000


def parse(path):
    """{(object, function): instructions of its own}; a function inlined elsewhere counts where it was."""
    names, cost = {}, collections.Counter()
    object_name = function = ""
    skip = False
    for line in open(path, encoding="utf-8", errors="replace"):
        named = re.match(r"(ob|fn)=\((\d+)\)(?: (.*))?", line)
        if named:
            kind, number, text = named.groups()
            if text is not None:
                names[kind, number] = text.strip()
            text = names[kind, number]
            if kind == "ob":
                object_name = os.path.basename(text)
            else:
                function = text
        elif re.match(r"c(ob|fn|fi|fl)=", line):
            called = re.match(r"c(ob|fn)=\((\d+)\)(?: (.*))?", line)
            if called and called.group(3) is not None:
                names[called.group(1), called.group(2)] = called.group(3).strip()
        elif line.startswith("calls="):
            skip = True
        elif re.match(r"[+\-*\d]", line):
            if not skip:
                cost[object_name, function] += int(line.split()[1])
            skip = False
    return cost


def one(options, layer, runs, address, depth, out):
    if layer == "driver":
        program = [f"{options.build}/bench/nvme_bench", address]
    else:
        program = [f"{options.build}/bench/stack_bench", "nvme:" + address, layer]
    if layer in ("blob", "op"):
        subprocess.run([program[0], program[1], "make", str(runs)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["valgrind", "--tool=callgrind", "--toggle-collect=loop", f"--callgrind-out-file={out}", "--quiet",
                    *program, "-q", str(depth), "-n", str(READS + depth), "-s", "1000"],
                   check=True, stdout=subprocess.DEVNULL)
    return parse(out)


def serve(options, layer, directory):
    path = os.path.join(directory, "sock")
    server = subprocess.Popen([f"{options.build}/test/nvmet", path, "--size", "16G",
                               *(["--null"] if layer not in ("blob", "op") else [])])
    for _ in range(100):
        if os.path.exists(path):
            break
        time.sleep(0.05)
    time.sleep(0.3)  # bound, and by now it listens
    return server, "vfio-user:" + path


def divisions(build):
    found = 0
    for name in "nvme_submit", "nvme_poll":
        code = subprocess.run(["objdump", "-d", f"--disassemble={name}", f"{build}/lib/libblobfs.so"],
                              check=True, capture_output=True, text=True).stdout
        divides = re.findall(r"\t(i?divq?l?) ", code)
        print(f"{name}: {len(divides)} divisions in {len(code.splitlines())} lines of machine code")
        found += len(divides)
    return found


# Every 64th poll looks at the clock, and now and then at the admin queue, with a lock that it only tries to take. What is done with
# each read, or only once in each poll, costs more than this.
EACH_POLL = 5.0
FORBIDDEN = re.compile(r"malloc|calloc|realloc|free|mutex|rwlock|futex|syscall|ioctl|^(read|write|send|recv)")


def report(title, depth, cost):
    total, forbidden = 0, 0
    print(f"{title}:")
    for key in sorted(cost, key=lambda k: -cost[k]):
        per = cost[key] / READS
        if key[0] == "stack_bench" or key[0] == "nvme_bench" or "usleep" in key[1] or "nanosleep" in key[1] or per < 0.05:
            continue
        total += per
        print(f"  {per:8.1f}  {key[1]}  ({key[0]})")
        forbidden += bool(FORBIDDEN.search(key[1])) and per >= EACH_POLL / depth
    print(f"  {total:8.1f}  instructions a read", flush=True)
    return total, forbidden


def measure(options, layer, runs, depth):
    with tempfile.TemporaryDirectory() as directory:
        server, address = serve(options, layer, directory)
        try:
            cost = one(options, layer, runs, address, depth, os.path.join(directory, "callgrind"))
        finally:
            server.terminate()
            server.wait()
    name = {"driver": "driver", "bdev": "device port", "blob": "blob store", "op": "blob store, as children of ops"}[layer]
    title = f"{name}{f', {runs} runs' if layer in ('blob', 'op') else ''}, depth {depth}"
    return report(title, depth, cost)


def stack(options, limits):
    depth, over, table = (options.depths or [32])[0], 0, []
    for layer, runs in ("driver", 0), ("bdev", 0), ("blob", 1), ("blob", 1000000):
        total, _ = measure(options, layer, runs, depth)
        below = table[1 if layer == "blob" else len(table) - 1][2] if table else 0
        table.append((layer, runs, total))
        print(f"  {total - below:8.1f}  of them added to what is below\n", flush=True)
        over += layer == "blob" and total - below > limits.get(runs, float("inf"))
    return over


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.environ.get("BUILD", "build"))
    parser.add_argument("--layer", default="driver", choices=["driver", "bdev", "blob", "op"])
    parser.add_argument("--runs", default=1, type=int)
    parser.add_argument("--stack", action="store_true")
    parser.add_argument("--limit", action="append", default=[])
    parser.add_argument("depths", nargs="*", type=int)
    options = parser.parse_args()
    limits = {int(d): float(n) for d, n in (text.split("=") for text in options.limit)}
    if options.stack:
        return 1 if stack(options, limits) else 0
    over = 0
    for depth in options.depths or sorted(limits) or [1, 32]:
        total, forbidden = measure(options, options.layer, options.runs, depth)
        if options.layer == "driver":
            print(f"            functions on its way that lock, take memory or enter the system: {forbidden or 'none'}")
        over += total > limits.get(depth, float("inf"))
        over += options.layer == "driver" and forbidden
    if options.layer == "driver":
        over += divisions(options.build)
    return 1 if over else 0


sys.exit(main())
