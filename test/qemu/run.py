#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Boots virtual machines with NVMe controllers and runs the PCIe transport, and what stands on it, inside.

  run.py [--build DIR] [--verbose] [MACHINE...]

Each machine is a script of test/qemu/machines/, which the first process sources; lines in its head that begin with
`#:` say what the machine is. Says `ok NAME`, `not ok NAME: why` or `skip NAME: why`."""
import argparse
import concurrent.futures
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

import kernel

HERE = os.path.dirname(os.path.abspath(__file__))
QEMU = "qemu-system-x86_64"
BUSYBOX = "/bin/busybox"
LINE = re.compile(r"^(ok|not ok|skip) (\S+?)(?:: ?(.*))?$")


class Bad(Exception):
    pass


# ---- what is inside ----

def cpio_entry(out, number, name, mode, data=b"", rdev=(0, 0)):
    name = name.encode() + b"\0"
    head = "070701" + "".join(f"{v:08X}" for v in (
        number, mode, 0, 0, 1, 0, len(data), 0, 0, rdev[0], rdev[1], len(name), 0))
    out.write(head.encode() + name)
    out.write(b"\0" * (-(len(head) + len(name)) % 4))
    out.write(data)
    out.write(b"\0" * (-len(data) % 4))


class Initramfs:
    """A cpio archive, and which libraries its programs need."""

    def __init__(self, work):
        self.work, self.files = work, {}

    def add(self, source, name, mode=0o755):
        self.files[name] = (source, mode)

    def program(self, source, name):
        stripped = os.path.join(self.work, os.path.basename(name))
        subprocess.run(["strip", "--strip-debug", "-o", stripped, source], check=True)
        self.add(stripped, name)
        self.libraries(source)

    def libraries(self, source):
        found = subprocess.run(["ldd", source], capture_output=True, text=True).stdout
        if "not found" in found:
            raise Bad(f"{source}: a library is missing")
        for path in re.findall(r"(?:=> )?(/\S+) \(0x", found):
            if "blobfs" not in os.path.basename(path):
                self.add(os.path.realpath(path), "lib/" + os.path.basename(path))
                if os.path.basename(path).startswith("ld-linux"):
                    self.add(os.path.realpath(path), "lib64/" + os.path.basename(path))

    def write(self, path):
        dirs = {"dev"}
        for name in self.files:
            while "/" in name:
                name = name.rsplit("/", 1)[0]
                dirs.add(name)
        with open(path, "wb") as out:
            number = 1
            for d in sorted(dirs):
                cpio_entry(out, number, d, 0o40755)
                number += 1
            cpio_entry(out, number, "dev/console", 0o20600, rdev=(5, 1))
            for name, (source, mode) in sorted(self.files.items()):
                number += 1
                with open(source, "rb") as f:
                    cpio_entry(out, number, name, 0o100000 | mode, f.read())
            cpio_entry(out, 0, "TRAILER!!!", 0)


def make_initramfs(build, work, script, rocksdb):
    fs = Initramfs(work)
    fs.add(BUSYBOX, "bin/busybox")
    fs.add(os.path.join(HERE, "init"), "init")
    fs.add(script, "test", 0o644)
    modules = os.path.join(build, "qemu", "kernel", "modules")
    for name in os.listdir(modules):
        fs.add(os.path.join(modules, name), "modules/" + name, 0o644)
    fs.program(os.path.join(build, "test", "qemu"), "blobfs/bin/qemu")
    for name in ("nvme_example", "nvmet"):
        fs.program(os.path.join(build, "test", name), "blobfs/bin/" + name)
    fs.program(os.path.join(build, "lib", "libblobfs.so"), "blobfs/lib/libblobfs.so")
    for name in os.listdir(os.path.join(build, "bin")):
        fs.program(os.path.join(build, "bin", name), "blobfs/bin/" + name)
    if os.path.exists("/usr/bin/fusermount3"):
        fs.program("/usr/bin/fusermount3", "bin/fusermount3")
    if rocksdb:
        fs.program(os.path.join(build, "lib", "librocksdb_blobfs.so"), "blobfs/lib/librocksdb_blobfs.so")
        fs.program(shutil.which("db_bench"), "blobfs/bin/db_bench")
    path = os.path.join(work, "initramfs")
    fs.write(path)
    return path


# ---- a machine ----

class Machine:
    def __init__(self, name, build, work, verbose):
        self.name, self.build, self.work, self.verbose = name, build, work, verbose
        self.script = os.path.join(HERE, "machines", name)
        self.said, self.console, self.failed = 0, [], False
        self.say = {"timeout": "300", "memory": "384", "append": "", "rocksdb": ""}
        self.devices, self.images, self.marks = [], {}, []
        for line in open(self.script, encoding="utf-8"):
            if line.startswith("#:"):
                self.setting(*line[2:].strip().partition(" ")[::2])

    def setting(self, key, value):
        """device and drive are QEMU's; image NAME MIB and file NAME TEXT make files, which drives name as @NAME;
        mark NAME NSID is looked for in the image at the end."""
        value = re.sub(r"@(\w+)", lambda m: os.path.join(self.work, m.group(1)), value)
        if key in ("device", "drive", "blockdev"):
            self.devices += ["-" + key, value]
        elif key == "image":
            image, size = value.split()
            self.images[image] = int(size)
        elif key == "file":
            path, text = value.split(" ", 1)
            with open(os.path.join(self.work, path), "w", encoding="ascii") as f:
                f.write(text.replace("\\n", "\n"))
        elif key == "mark":
            self.marks.append(value.split())
        elif key in self.say:
            self.say[key] = value
        else:
            raise Bad(f"{self.script}: unknown setting {key}")

    def command(self, initramfs):
        return ["nice", QEMU, "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
                "-m", self.say["memory"], "-nodefaults", "-no-user-config", "-display", "none",
                "-no-reboot", "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
                "-qmp", f"unix:{self.work}/qmp,server=on,wait=off",
                "-kernel", os.path.join(self.build, "qemu", "kernel", "vmlinux"), "-initrd", initramfs,
                "-append", "console=ttyS0 panic=-1 quiet tsc=nowatchdog no_timer_check random.trust_cpu=on "
                + self.say["append"], *self.devices]

    def verdict(self, line):
        """What the machine says goes on, under its name."""
        found = LINE.match(line)
        if not found:
            if self.verbose:
                print("    " + line)
            return
        verdict, name, why = found.groups()
        self.said += 1
        self.failed |= verdict == "not ok"
        print(f"{verdict} qemu/{self.name}/{name}" + (f": {why}" if verdict != "ok" else ""), flush=True)

    def fail(self, name, why):
        self.verdict(f"not ok {name}: {why}")
        for line in self.console[-30:]:
            print("    " + line)

    def take_away(self, device):
        """As when somebody presses the button beside the slot."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            s.connect(os.path.join(self.work, "qmp"))
            answers = s.makefile("r")
            answers.readline()
            for command in ({"execute": "qmp_capabilities"},
                            {"execute": "device_del", "arguments": {"id": device}}):
                s.sendall(json.dumps(command).encode() + b"\n")
                answer = answers.readline()
                if '"error"' in answer:
                    raise Bad(answer.strip())

    def listen(self, process):
        for line in process.stdout:
            line = line.replace("\r", "").rstrip("\n")
            self.console.append(line)
            self.verdict(line)
            if line.startswith("PULL "):
                try:
                    self.take_away(line.split()[1])
                except (Bad, OSError) as e:
                    self.fail("pull", e)

    def run(self):
        for name, size in self.images.items():
            with open(os.path.join(self.work, name), "wb") as f:
                f.truncate(size << 20)
        initramfs = make_initramfs(self.build, self.work, self.script, self.say["rocksdb"])
        process = subprocess.Popen(self.command(initramfs), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, errors="replace")
        late = threading.Event()
        timer = threading.Timer(int(self.say["timeout"]), lambda: (late.set(), process.kill()))
        timer.start()
        try:
            self.listen(process)
            process.wait()
        finally:
            timer.cancel()
            process.kill()
            process.wait()
        if "ALL DONE" not in self.console:
            self.fail("end", f"the machine did not end by itself within {self.say['timeout']} s"
                      if late.is_set() else f"QEMU ended with {process.returncode}")
        elif not self.said:
            self.fail("tests", "it tested nothing")
        for mark in self.marks:
            self.look_for_mark(*mark)

    def look_for_mark(self, image, nsid):
        """The first megabyte is as the machine says it wrote it: each word is its place and the namespace, mixed."""
        data = open(os.path.join(self.work, image), "rb").read(1 << 20)
        mix, mask = 0x9e3779b97f4a7c15, (1 << 64) - 1
        wrong = next((at for at in range(0, 1 << 20, 8) if int.from_bytes(data[at:at + 8], "little")
                      != (at + int(nsid)) * mix & mask), None)
        if len(data) < 1 << 20:
            wrong = len(data)
        self.verdict(f"ok mark_in_{image}" if wrong is None
                     else f"not ok mark_in_{image}: byte {wrong} of the image is not what was written")


def run_machine(name, build, verbose):
    start = time.time()
    with tempfile.TemporaryDirectory(prefix="blobfs-qemu-") as work:
        try:
            machine = Machine(name, build, work, verbose)
            machine.run()
            failed = machine.failed
        except (Bad, OSError, subprocess.CalledProcessError) as e:
            print(f"not ok qemu/{name}/start: {e}", flush=True)
            failed = True
    print(f"    {name}: {time.time() - start:.1f} s", flush=True)
    return failed


def lacking(build):
    if not shutil.which(QEMU):
        return f"{QEMU} is not installed (make deps)"
    if not os.path.exists(BUSYBOX):
        return "busybox-static is not installed (make deps)"
    if "san.so" in subprocess.run(["ldd", os.path.join(build, "test", "qemu")], capture_output=True, text=True).stdout:
        return "built with a sanitizer, which wants more memory than the machines have"
    try:
        kernel.get(os.path.join(build, "qemu", "kernel"))
    except (RuntimeError, OSError, IndexError) as e:
        return f"no kernel for the machines: {e}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.environ.get("BUILD", "build"))
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("machines", nargs="*")
    args = parser.parse_args()
    build = os.path.abspath(args.build)
    why = lacking(build)
    if why:
        print(f"skip qemu: {why}")
        return 0
    names = args.machines or sorted(os.listdir(os.path.join(HERE, "machines")))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        failed = list(pool.map(lambda n: run_machine(n, build, args.verbose), names))
    return 1 if any(failed) else 0


if __name__ == "__main__":
    sys.exit(main())
