/* SPDX-License-Identifier: BSD-2-Clause */
/* The allocator of every layer, with a fuse a test can set. */
#include <stdlib.h>
#include <string.h>

#include "base/internal.h"
#include "base/util.h"

/* Allocations of this thread until one fails; 0: none ever. */
static _Thread_local uint64_t fail_after;
static _Thread_local bool fail_on; /* and then all of them */

void base_fail_alloc_after(uint64_t nth)
{
	fail_after = nth;
	fail_on = false;
}

void base_fail_allocs_from(uint64_t nth)
{
	fail_after = nth;
	fail_on = true;
}

bool base_alloc_fails(void)
{
	if (!fail_after || --fail_after)
		return false;
	fail_after = fail_on;
	return true;
}

void *base_malloc(size_t size)
{
	return base_alloc_fails() ? NULL : malloc(size ? size : 1);
}

void *base_calloc(size_t n, size_t size)
{
	return base_alloc_fails() ? NULL : calloc(n ? n : 1, size ? size : 1);
}

void *base_realloc(void *p, size_t size)
{
	return base_alloc_fails() ? NULL : realloc(p, size ? size : 1);
}

char *base_strdup(const char *s)
{
	return base_alloc_fails() ? NULL : strdup(s);
}
