#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The PCIe transport, and what stands on it, on controllers of virtual machines (test/qemu).
# timeout: 600
# exclusive
cd "$(dirname "$0")/../.." || exit 2
exec python3 test/qemu/run.py --build "${BUILD:-build}"
