/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log. Levels are read on every log_debug, so reading takes no lock: components are only ever
 * appended, and the highest level in use anywhere is one atomic that answers nearly every question.
 */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

#define MAX_COMPONENTS 32
#define NAME_LEN 24
#define LINE_LEN 1024
#define LEVEL_DEFAULT (-1)

struct component {
	char name[NAME_LEN];
	_Atomic int level; /* LEVEL_DEFAULT: the default's */
};

static const char *const level_names[] = { "err", "warn", "info", "debug" };
static struct component components[MAX_COMPONENTS];
static _Atomic unsigned int component_count;
static _Atomic int default_level = LOG_WARN;
static _Atomic int highest_level = LOG_DEBUG; /* until the environment has been read */
static pthread_mutex_t config_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t env_once = PTHREAD_ONCE_INIT;
static base_log_sink log_sink;
static void *log_sink_arg;

static int parse_level(const char *s, size_t len)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(level_names); i++)
		if (strlen(level_names[i]) == len && !memcmp(level_names[i], s, len))
			return (int)i;
	return -EINVAL;
}

/* Under config_lock. */
static int set_component(const char *name, size_t len, int level)
{
	unsigned int i, n = atomic_load(&component_count);

	if (!len || len >= NAME_LEN)
		return -EINVAL;
	for (i = 0; i < n; i++)
		if (strlen(components[i].name) == len && !memcmp(components[i].name, name, len))
			break;
	if (i == MAX_COMPONENTS)
		return -ENOSPC;
	if (i == n) {
		memcpy(components[i].name, name, len);
		components[i].name[len] = '\0';
	}
	atomic_store(&components[i].level, level);
	if (i == n)
		atomic_store(&component_count, n + 1);
	return 0;
}

/* One part of a specification, "level" or "component=level". apply: else only checked. */
static int do_part(const char *s, size_t len, bool apply)
{
	const char *eq = memchr(s, '=', len);
	size_t name_len = eq ? (size_t)(eq - s) : 0;
	int level;

	if (!len)
		return 0;
	level = eq ? parse_level(eq + 1, len - name_len - 1) : parse_level(s, len);
	if (level < 0 || (eq && (!name_len || name_len >= NAME_LEN)))
		return -EINVAL;
	if (!apply)
		return 0;
	if (eq)
		return set_component(s, name_len, level);
	atomic_store(&default_level, level);
	return 0;
}

static int do_spec(const char *spec, bool apply)
{
	int rc = 0;

	while (!rc) {
		size_t len = strcspn(spec, ",");

		rc = do_part(spec, len, apply);
		if (!spec[len])
			break;
		spec += len + 1;
	}
	return rc;
}

static int configure(const char *spec)
{
	unsigned int i, n;
	int highest, rc;

	rc = do_spec(spec, false);
	if (rc)
		return rc;
	pthread_mutex_lock(&config_lock);
	atomic_store(&default_level, LOG_WARN);
	n = atomic_load(&component_count);
	for (i = 0; i < n; i++)
		atomic_store(&components[i].level, LEVEL_DEFAULT);
	rc = do_spec(spec, true);
	highest = atomic_load(&default_level);
	n = atomic_load(&component_count);
	for (i = 0; i < n; i++)
		highest = MAX(highest, atomic_load(&components[i].level));
	atomic_store(&highest_level, highest);
	pthread_mutex_unlock(&config_lock);
	return rc;
}

static void read_environment(void)
{
	const char *spec = getenv("BLOBFS_LOG");

	if (configure(spec ? spec : "")) {
		configure("");
		fprintf(stderr, "blobfs: BLOBFS_LOG: \"%s\" is no log level\n", spec);
	}
}

int base_log_configure(const char *spec)
{
	pthread_once(&env_once, read_environment);
	return configure(spec);
}

void base_log_set_sink(base_log_sink sink, void *arg)
{
	log_sink = sink;
	log_sink_arg = arg;
}

int base_log_enabled(enum base_log_level level, const char *component)
{
	unsigned int i, n;

	if ((int)level > atomic_load_explicit(&highest_level, memory_order_relaxed))
		return 0;
	pthread_once(&env_once, read_environment);
	n = atomic_load_explicit(&component_count, memory_order_acquire);
	for (i = 0; i < n; i++) {
		int own = atomic_load_explicit(&components[i].level, memory_order_relaxed);

		if (own != LEVEL_DEFAULT && !strcmp(components[i].name, component))
			return (int)level <= own;
	}
	return (int)level <= atomic_load_explicit(&default_level, memory_order_relaxed);
}

/* One write per line, so that lines of several threads and processes do not mix. */
static void write_stderr(enum base_log_level level, const char *component, const char *line)
{
	char out[LINE_LEN + 128], when[32];
	struct timespec ts;
	struct tm tm;
	int n;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
	n = snprintf(out, sizeof(out), "%s.%03ldZ %s %s: %s\n", when, ts.tv_nsec / 1000000,
		     level_names[level], component, line);
	n = MIN(n, (int)sizeof(out) - 1);
	if (write(STDERR_FILENO, out, (size_t)n) < 0)
		return; /* there is nowhere left to tell */
}

void base_log_write(enum base_log_level level, const char *component, const char *fmt, ...)
{
	char line[LINE_LEN];
	int saved = errno;
	va_list ap;
	char *p;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	for (p = line; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	if (log_sink)
		log_sink(level, component, line, log_sink_arg);
	else
		write_stderr(level, component, line);
	errno = saved;
}
