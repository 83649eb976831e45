/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of FUSE within one process; with a word as first argument, a helper of the shell's tests. */
#include "test/fuse/mnt.h"
#include "test/shim/test.h"

int main(int argc, char **argv)
{
	if (argc > 1 && argv[1][0] != '-')
		return helper(argc - 1, argv + 1);
	return test_main(argc, argv);
}
