#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""libblobfs.so exports what the public headers mark BLOBFS_API, no more and no less: exports.py ROOT LIBRARY."""
import glob
import os
import re
import subprocess
import sys

LAYERS = ["base", "nvme", "bdev", "blob", "blobfs"]


def declared_in(text):
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    text = re.sub(r"//[^\n]*", " ", text)
    text = re.sub(r"^\s*#(?:[^\n\\]|\\\n|\\.)*", " ", text, flags=re.M)
    for statement in re.split(r"[;{}]", text):
        if "BLOBFS_API" not in statement:
            continue
        rest = statement.split("BLOBFS_API", 1)[1]
        rest = re.sub(r"__attribute__\s*\(\(.*?\)\)", " ", rest, flags=re.S)
        m = re.search(r"\b(\w+)\s*\(", rest) or re.search(r"\b(\w+)\s*(?:\[[^\]]*\])?\s*$", rest)
        yield m.group(1) if m else "?" + " ".join(rest.split())


def declared(root):
    names = set()
    for layer in LAYERS:
        for path in sorted(glob.glob(os.path.join(root, layer, "*.h"))):
            found = set(declared_in(open(path, encoding="utf-8").read()))
            if path.endswith("/internal.h") and found:
                print(f"{path}: an internal header marks {', '.join(sorted(found))} BLOBFS_API")
                names.add("?" + path)
            names |= found
    return names


def exported(library):
    out = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True,
                         check=True).stdout
    return {line.split()[-1].split("@")[0] for line in out.splitlines() if line.split()}


def main():
    want, have = declared(sys.argv[1]), exported(sys.argv[2])
    for name in sorted(want - have):
        print(f"{name}: declared BLOBFS_API, but not exported")
    for name in sorted(have - want):
        print(f"{name}: exported, but not BLOBFS_API in a public header")
    bad = want ^ have
    if not want:
        print("not ok exports: no BLOBFS_API function found")
        return 1
    print("ok exports" if not bad else f"not ok exports: {len(bad)} names differ")
    return 1 if bad else 0


sys.exit(main())
