/* SPDX-License-Identifier: BSD-2-Clause */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/common/kinds.h"

static struct kind *find(struct kinds *k, const char *pass, const char *code)
{
	struct kind *new;

	for (unsigned i = 0; i < k->n; i++)
		if (!strcmp(k->kind[i].pass, pass) && !strcmp(k->kind[i].code, code))
			return &k->kind[i];
	if (k->n == KINDS_MAX)
		return &k->kind[KINDS_MAX - 1];
	new = &k->kind[k->n++];
	if (k->n == KINDS_MAX)
		pass = "all", code = "others";
	snprintf(new->pass, sizeof(new->pass), "%s", pass);
	snprintf(new->code, sizeof(new->code), "%s", code);
	new->n = 0;
	return new;
}

bool kinds_add(struct kinds *k, const struct bs_problem *p)
{
	return find(k, p->pass, p->code)->n++ < KINDS_SHOWN || k->all;
}

void kinds_print_rest(const struct kinds *k, FILE *to, const char *before)
{
	for (unsigned i = 0; i < k->n && !k->all; i++)
		if (k->kind[i].n > KINDS_SHOWN)
			fprintf(to, "%s%s: %s: and %" PRIu64 " more of this kind (-v shows all)\n", before, k->kind[i].pass, k->kind[i].code,
				k->kind[i].n - KINDS_SHOWN);
}
