#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The text of the project speaks of the project alone, and leaves nothing undone: text.py [ROOT].

Looks at every tracked file and at every commit message (or, without git, at every file)."""
import os
import re
import subprocess
import sys

FORBIDDEN = [
    (r"(?i)\bissue\s+#?\d", "an issue by number"),
    (r"(?<!\w)#\d+\b(?=\s*(is|was|asks|says|wants))", "an issue by number"),
    (r"(?i)\b(fixes|closes|resolves|refs)\s+#\d", "an issue by number"),
    (r"(?<![\w./$}-])/(?:w[o]rk|home)/", "a path of somebody's machine"),
    (r"(?i)\b(this|last|next|previous|earlier|later|another) session\b(?! of)", "a session of work"),
    (r"\b(TODO|FIXME|XXX)\b", "something left undone"),
]
SKIP_DIRS = ("test/check/",)


def git(root, *args):
    out = subprocess.run(["git", "-C", root, *args], capture_output=True, text=True)
    return out.stdout if out.returncode == 0 else None


def files(root):
    listed = git(root, "ls-files", "-z")
    if listed:
        return [p for p in listed.split("\0") if p]
    return [os.path.relpath(os.path.join(top, n), root)
            for top, _, names in os.walk(root) for n in names]


def search(where, text):
    for number, line in enumerate(text.split("\n"), 1):
        for pattern, what in FORBIDDEN:
            if re.search(pattern, line):
                yield f"{where}:{number}: mentions {what}: {line.strip()[:90]}"


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else "."
    found = []
    for path in files(root):
        full = os.path.join(root, path)
        if path.startswith(SKIP_DIRS) or not os.path.isfile(full):
            continue
        try:
            found += search(path, open(full, encoding="utf-8").read())
        except UnicodeDecodeError:
            continue
    log = git(root, "log", "--format=%h %B%x00") or ""
    for message in log.split("\0"):
        if message.strip():
            found += search("commit " + message.split()[0], message.strip())
    for f in found:
        print(f)
    print("ok text" if not found else f"not ok text: {len(found)} found")
    return 1 if found else 0


sys.exit(main())
