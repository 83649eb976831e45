/* SPDX-License-Identifier: BSD-2-Clause */
/* main for test programs that have none of their own: the linker takes it from the archive only then. */
#include "test/shim/test.h"

int main(int argc, char **argv)
{
	return test_main(argc, argv);
}
