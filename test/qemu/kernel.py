#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Gets Debian's kernel for the virtual machines of the tests: kernel.py DIR

Leaves DIR/vmlinux (an ELF, which QEMU starts at once) and DIR/modules/*.ko, with DIR/modules/order naming them
in the order in which they can be loaded. The package is downloaded, not installed: no boot loader is to hear of it."""
import glob
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile

META = "linux-image-amd64"
WANTED = ["vfio_iommu_type1", "vfio-pci", "uio_pci_generic", "fuse", "nvme"]
XZ_MAGIC = b"\xfd7zXZ\x00"


def output(*command, cwd=None):
    run = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)}: {run.stderr.strip().splitlines()[-1:]}")
    return run.stdout


def package_name():
    found = re.search(r"Depends: (linux-image-\S+)", output("apt-cache", "depends", META))
    if not found:
        raise RuntimeError(f"apt-cache knows no {META}")
    return found.group(1)


def download(where):
    try:
        output("apt-get", "-q", "download", package_name(), cwd=where)
    except RuntimeError:
        # The lists may be old or not there at all.
        if os.geteuid():
            raise
        output("apt-get", "-q", "update")
        output("apt-get", "-q", "download", package_name(), cwd=where)
    return glob.glob(os.path.join(where, "*.deb"))[0]


def extract_elf(vmlinuz):
    """The ELF is the compressed payload of the image."""
    data = open(vmlinuz, "rb").read()
    at = data.find(XZ_MAGIC)
    while at >= 0:
        try:
            elf = lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(data[at:])
            if elf[:4] == b"\x7fELF":
                return elf
        except lzma.LZMAError:
            pass
        at = data.find(XZ_MAGIC, at + 1)
    raise RuntimeError(f"{vmlinuz}: no ELF in it")


def module_order(modules_dir):
    """Files of the wanted modules and of what they need, what is needed first."""
    needs = {}
    for line in open(os.path.join(modules_dir, "modules.dep"), encoding="ascii"):
        name, _, rest = line.partition(":")
        needs[name] = rest.split()
    order = []
    for wanted in WANTED:
        path = next((p for p in needs if os.path.basename(p).split(".")[0].replace("-", "_")
                     == wanted.replace("-", "_")), None)
        if not path:
            raise RuntimeError(f"the kernel has no module {wanted}")
        for p in needs[path][::-1] + [path]:
            if p not in order:
                order.append(p)
    return order


def unpack(deb, target):
    with tempfile.TemporaryDirectory(dir=os.path.dirname(target)) as top:
        output("dpkg-deb", "-x", deb, top)
        version = os.path.basename(glob.glob(os.path.join(top, "boot", "vmlinuz-*"))[0])[8:]
        modules = os.path.join(top, "lib", "modules", version)
        output("depmod", "-b", top, version)
        os.makedirs(os.path.join(target, "modules"))
        names = []
        for path in module_order(modules):
            names.append(os.path.basename(path))
            shutil.copy(os.path.join(modules, path), os.path.join(target, "modules"))
        with open(os.path.join(target, "modules", "order"), "w", encoding="ascii") as f:
            f.write("\n".join(names) + "\n")
        with open(os.path.join(target, "vmlinux"), "wb") as f:
            f.write(extract_elf(os.path.join(top, "boot", f"vmlinuz-{version}")))


def get(target):
    """Does nothing when it is there; appears whole or not at all."""
    target = os.path.abspath(target)
    if os.path.exists(os.path.join(target, "vmlinux")):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    with tempfile.TemporaryDirectory(dir=os.path.dirname(target)) as work:
        made = os.path.join(work, "kernel")
        os.makedirs(made)
        unpack(download(work), made)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(made, target)


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        get(sys.argv[1])
    except (RuntimeError, OSError, IndexError) as e:
        print(f"kernel: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
