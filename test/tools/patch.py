#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Changes an image as FORMAT.md lays it out.

  patch.py super IMAGE OFFSET WIDTH VALUE   a field of both superblocks, with a right checksum
  patch.py break IMAGE first|second|both    a superblock's checksum
  patch.py pages IMAGE                      one byte of every checkpoint page
"""
import sys

COPIES = {"first": [0], "second": [32 << 20], "both": [0, 32 << 20]}
TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82f63b78 if n & 1 else 0)
    TABLE.append(n)


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xff]
    return crc ^ 0xffffffff


def change_super(image, offset, width, value):
    for at in COPIES["both"]:
        block = bytearray(image[at:at + 4096])
        block[offset:offset + width] = value.to_bytes(width, "little")
        block[8:12] = bytes(4)
        block[8:12] = crc32c(block).to_bytes(4, "little")
        image[at:at + 4096] = block


def main():
    command, path, *rest = sys.argv[1:]
    with open(path, "r+b") as f:
        image = bytearray(f.read())
        if command == "super":
            change_super(image, *(int(n, 0) for n in rest))
        elif command == "break":
            for at in COPIES[rest[0]]:
                image[at + 100] ^= 0xff
        elif command == "pages":
            at = image.find(b"BPAG")
            while at >= 0:
                if at % 4096 == 0:
                    image[at + 90] ^= 0xff
                at = image.find(b"BPAG", at + 4)
        else:
            sys.exit(2)
        f.seek(0)
        f.write(image)


main()
