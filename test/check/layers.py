#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Layers, sizes and licences: layers.py [ROOT]. Prints a line per check; exit 1 if one failed."""
import os
import re
import sys

# A layer includes itself and what it lists here. What is not listed points up or sideways.
BELOW = {
    "base": [],
    "nvme": ["base"],
    "bdev": ["nvme", "base"],
    "blob": ["bdev", "base"],
    "blobfs": ["blob", "bdev", "base"],
    "fuse": ["blobfs", "blob", "bdev", "base"],
    "rocksdb_env": ["fuse", "blobfs", "blob", "bdev", "base"],
    "tools": ["blobfs", "blob", "bdev", "nvme", "base"],
}
# Libraries that only some layers may know.
LIBRARIES = {
    r"rte_": ["base", "nvme"],
    r"liburing": ["bdev"],
    r"fuse": ["fuse"],
    r"rocksdb/": ["rocksdb_env"],
    r"blkid": ["tools"],
    r"json-c/": ["tools"],
    r"editline/": ["tools"],
}
MAX_FILE = 1000
MAX_FUNCTION = 70
SOURCE = (".c", ".h", ".cc")


def sources(root):
    for top, dirs, names in os.walk(root):
        dirs[:] = [d for d in dirs if not d.startswith((".", "build"))]
        for name in sorted(names):
            if name.endswith(SOURCE):
                path = os.path.join(top, name)
                yield os.path.relpath(path, root), open(path, encoding="utf-8").read().split("\n")


def layer_of(path):
    return path.split("/")[0]


def is_private(root, target, seen=()):
    """internal.h of a layer, and the headers that include it, directly or by others."""
    if target.endswith("/internal.h"):
        return True
    if not target.endswith(".h") or not os.path.exists(os.path.join(root, target)):
        return False
    text = open(os.path.join(root, target), encoding="utf-8").read()
    return any(is_private(root, t, (*seen, target))
               for t in re.findall(r'^#include "([^"]+)"', text, re.M)
               if layer_of(t) == layer_of(target) and t not in seen)


def check_quoted(root, path, target):
    layer, to = layer_of(path), layer_of(target)
    if target == "config.h":
        return None
    if re.match("rocksdb/", target):
        return check_angled(path, target)  # its own headers are included this way
    if not os.path.exists(os.path.join(root, target)):
        return f'"{target}" does not exist (includes are written from the root)'
    if to in BELOW and is_private(root, target):
        if path.startswith((f"{to}/", f"test/unit/{to}/", "test/fuzz/")):
            return None
        return f"{target} belongs to {to} alone"
    if layer in BELOW and to != layer and to not in BELOW[layer]:
        return f"{layer} may not include {target}"
    return None


def check_angled(path, target):
    layer = layer_of(path)
    for prefix, layers in LIBRARIES.items():
        if re.match(prefix, target) and layer in BELOW and layer not in layers:
            return f"<{target}> is for {', '.join(layers)} alone"
    return None


def includes(root, path, lines):
    for number, line in enumerate(lines, 1):
        m = re.match(r'\s*#\s*include\s+(["<])([^">]+)[">]', line)
        if not m:
            continue
        kind, target = m.groups()
        why = check_quoted(root, path, target) if kind == '"' else check_angled(path, target)
        if why:
            yield f"{path}:{number}: {why}"


def body_ends(lines, start, indent):
    for i in range(start + 1, len(lines)):
        if lines[i].startswith(indent + "}"):
            return i
    return len(lines)


def functions(lines):
    """(line number, number of lines in the body) of each function, by its braces' places."""
    i = 0
    while i < len(lines):
        line = lines[i]
        opens = None
        m = re.match(r"^(\t*)\{$", line)
        if m and i and re.search(r"\)\s*(const|override|noexcept|\s)*$", lines[i - 1]):
            if not re.match(r"\s*(if|else|for|while|switch|do)\b", lines[i - 1]) and \
                    (not m.group(1) or not re.match(r"\t\t", line)):
                opens = m.group(1)
        m = re.match(r"^(\t?)[A-Za-z_~][^;={}]*\)\s*(const|override|noexcept|\s)*\{$", line)
        if m and not re.match(r"\s*(if|else|for|while|switch|do|extern)\b", line):
            opens = m.group(1)
        if opens is not None and (not opens or is_class_member(lines, i)):
            end = body_ends(lines, i, opens)
            yield i + 1, end - i - 1
            i = end
        i += 1


def is_class_member(lines, i):
    """An indented brace opens a function only inside a class, not inside another function."""
    for j in range(i - 1, -1, -1):
        if re.match(r"(class|struct)\b", lines[j]):
            return True
        if lines[j].startswith(("{", "}")):
            return False
    return False


def sizes(path, lines):
    length = len(lines) - 1
    if length > MAX_FILE:
        yield f"{path}: {length} lines, more than {MAX_FILE}"
    for number, body in functions(lines):
        if body > MAX_FUNCTION:
            yield f"{path}:{number}: a function of {body} lines, more than {MAX_FUNCTION}"


def licences(path, lines):
    if "SPDX-License-Identifier: BSD-2-Clause" not in lines[0]:
        yield f"{path}:1: the first line names no licence"


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else "."
    found = {"includes": [], "sizes": [], "licences": []}
    count = 0
    for path, lines in sources(root):
        count += 1
        found["includes"] += includes(root, path, lines)
        found["sizes"] += sizes(path, lines)
        found["licences"] += licences(path, lines)
    if not count:
        found["includes"].append("no source files")
    for what, errors in found.items():
        for e in errors:
            print(e)
        print(f"ok layers/{what}" if not errors else f"not ok layers/{what}: {len(errors)} found")
    return 1 if any(found.values()) else 0


sys.exit(main())
