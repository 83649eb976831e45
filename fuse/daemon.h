/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Going into the background, the right way round: the process forks before anything is opened or any thread
 * exists; the child does the work and tells its parent through a pipe how it went; the parent exits with that.
 */
#ifndef FUSE_DAEMON_H
#define FUSE_DAEMON_H

#include <stdbool.h>

/* With `background`, only the child returns. Its log goes to standard error until daemon_ready, then to syslog. */
void daemon_begin(const char *name, bool background);
/* It works: the parent exits 0; standard input, output and error are let go. */
void daemon_ready(void);
/* It does not: one line to standard error; parent and child exit with code. */
void daemon_fail(int code, const char *text) __attribute__((noreturn));

#endif
