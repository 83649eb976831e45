#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Instructions of a random 4 KiB read in the NVMe driver, submit to callback, by function.

  bench/nvme_count.py [--build DIR] [--limit DEPTH=N]... [DEPTH...]

Runs bench/nvme_bench under callgrind on the emulated controller with a null medium in another process, counts what is
executed from its loop, everything but its own functions, and divides by the number of reads. With
--limit it fails when a depth costs more. Needs valgrind.
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


def one(build, address, depth, out):
    subprocess.run(["valgrind", "--tool=callgrind", "--toggle-collect=loop", f"--callgrind-out-file={out}", "--quiet",
                    f"{build}/bench/nvme_bench", address, "-q", str(depth), "-n", str(READS + depth), "-s", "200"],
                   check=True, stdout=subprocess.DEVNULL)
    return parse(out)


def serve(build, directory):
    path = os.path.join(directory, "sock")
    server = subprocess.Popen([f"{build}/test/nvmet", path, "--size", "16G", "--null"])
    for _ in range(100):
        if os.path.exists(path):
            break
        time.sleep(0.05)
    return server, "vfio-user:" + path


def report(depth, cost):
    total = 0
    print(f"depth {depth}:")
    for key in sorted(cost, key=lambda k: -cost[k]):
        per = cost[key] / READS
        if key[0] == "nvme_bench" or "usleep" in key[1] or "nanosleep" in key[1] or per < 0.05:
            continue
        total += per
        print(f"  {per:8.1f}  {key[1]}  ({key[0]})")
    print(f"  {total:8.1f}  instructions a read")
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.environ.get("BUILD", "build"))
    parser.add_argument("--limit", action="append", default=[])
    parser.add_argument("depths", nargs="*", type=int)
    options = parser.parse_args()
    limits = {int(d): float(n) for d, n in (text.split("=") for text in options.limit)}
    over = 0
    for depth in options.depths or sorted(limits) or [1, 32]:
        with tempfile.TemporaryDirectory() as directory:
            server, address = serve(options.build, directory)
            try:
                cost = one(options.build, address, depth, os.path.join(directory, "callgrind"))
            finally:
                server.terminate()
                server.wait()
        total = report(depth, cost)
        over += total > limits.get(depth, float("inf"))
    return 1 if over else 0


sys.exit(main())
