/* SPDX-License-Identifier: BSD-2-Clause */
/* libFuzzer's way in: the program's name ends with the target's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct fuzz_target *target;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *name = strrchr((*argv)[0], '_');

	(void)argc;
	target = name ? fuzz_find(name + 1) : NULL;
	if (!target) {
		fprintf(stderr, "%s: no target of this name\n", (*argv)[0]);
		exit(2);
	}
	fuzz_init();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	target->run(data, size);
	return 0;
}
