/* SPDX-License-Identifier: BSD-2-Clause */
/* Directories and files of a test's own, in /tmp: the path of a socket must be short. Whoever makes one removes it. */
#ifndef TEST_COMMON_TEMP_H
#define TEST_COMMON_TEMP_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEMP_PATH 64 /* room for a path */

static inline void temp_template(char path[TEMP_PATH], const char *name)
{
	int n = snprintf(path, TEMP_PATH - 6, "/tmp/%s.", name);

	if (n > TEMP_PATH - 7)
		n = TEMP_PATH - 7; /* of a longer name the beginning */
	memset(path + n, 'X', 6); /* what mkdtemp(3) and mkstemp(3) replace */
	path[n + 6] = '\0';
}

/* The directory's path comes back; false: errno says why not. */
static inline bool temp_dir(char path[TEMP_PATH], const char *name)
{
	temp_template(path, name);
	return mkdtemp(path) != NULL;
}

/* An empty file, open; < 0: errno says why not. */
static inline int temp_file(char path[TEMP_PATH], const char *name)
{
	temp_template(path, name);
	return mkstemp(path);
}

#endif
