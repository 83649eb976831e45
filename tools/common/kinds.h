/* SPDX-License-Identifier: BSD-2-Clause */
/* How often each kind of problem was met: thousands of one kind are not worth thousands of lines. */
#ifndef TOOLS_KINDS_H
#define TOOLS_KINDS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "blob/blob.h"

#define KINDS_MAX 64u    /* what is beyond counts as one */
#define KINDS_SHOWN 20u  /* of each */

struct kind {
	char pass[24], code[40];
	uint64_t n;
};
struct kinds {
	struct kind kind[KINDS_MAX];
	unsigned n;
	bool all; /* everything is shown */
};

/* Counts it; true: it is to be shown. */
bool kinds_add(struct kinds *k, const struct bs_problem *p);
/* A line for each kind of which some were not shown, when all are counted: before, then "pass: code: and N more …". */
void kinds_print_rest(const struct kinds *k, FILE *to, const char *before);

#endif
