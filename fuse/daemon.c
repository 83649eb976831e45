/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static const enum base_log_level level_err = LOG_ERR, level_warn = LOG_WARN, level_info = LOG_INFO;

/* Its LOG_ERR, LOG_INFO and LOG_DEBUG are macros of another meaning. */
#include <syslog.h>

#include "fuse/daemon.h"

static const char *program;
static int report = -1; /* to the parent; -1: in the foreground, or reported */
static _Atomic bool detached;

static void sink(enum base_log_level level, const char *component, const char *line, void *arg)
{
	int priority = level == level_err ? LOG_ERR :
		       level == level_warn ? LOG_WARNING :
		       level == level_info ? LOG_INFO : LOG_DEBUG;

	(void)component;
	(void)arg;
	if (atomic_load(&detached))
		syslog(priority, "%s", line);
	else
		fprintf(stderr, "%s\n", line);
}

/* The child's report: a byte, its exit code; it has said the rest itself. No byte: it died. */
static void await_child(int fd)
{
	unsigned char code;
	ssize_t n;

	do
		n = read(fd, &code, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		_exit(code);
	fprintf(stderr, "%s: the daemon ended without a word\n", program);
	_exit(32);
}

void daemon_begin(const char *name, bool background)
{
	int fds[2];
	pid_t pid;

	program = name;
	signal(SIGPIPE, SIG_IGN);
	if (!background)
		return;
	if (pipe2(fds, O_CLOEXEC))
		daemon_fail(32, strerror(errno));
	pid = fork();
	if (pid < 0)
		daemon_fail(32, strerror(errno));
	if (pid) {
		close(fds[1]);
		await_child(fds[0]);
	}
	close(fds[0]);
	report = fds[1];
	setsid();
	signal(SIGHUP, SIG_IGN);
	base_log_set_sink(sink, NULL);
	openlog(program, LOG_PID, LOG_DAEMON);
}

static void tell_parent(unsigned char code)
{
	if (report < 0)
		return;
	while (write(report, &code, 1) < 0 && errno == EINTR)
		;
	close(report);
	report = -1;
}

void daemon_ready(void)
{
	int null;

	if (report < 0)
		return;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	atomic_store(&detached, true);
	fflush(NULL);
	for (int fd = 0; fd <= 2; fd++)
		if (null < 0 || dup2(null, fd) < 0)
			close(fd);
	if (null > 2)
		close(null);
	tell_parent(0);
}

void daemon_fail(int code, const char *text)
{
	fprintf(stderr, "%s: %s\n", program, text);
	tell_parent((unsigned char)code);
	exit(code);
}
