/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOG_COMPONENT "testlog"
#include "base/log.h"
#include "base/util.h"
#include "test/shim/test.h"

static char last[2048];
static int lines;
static enum base_log_level last_level;

static void sink(enum base_log_level level, const char *component, const char *line, void *arg)
{
	EXPECT_EQ_PTR(&lines, arg);
	last_level = level;
	snprintf(last, sizeof(last), "%s|%s", component, line);
	lines++;
}

static void capture(const char *spec)
{
	lines = 0;
	last[0] = '\0';
	ASSERT_OK(base_log_configure(spec));
	base_log_set_sink(sink, &lines);
}

static void release(void)
{
	base_log_set_sink(NULL, NULL);
	base_log_configure("");
}

TEST(log, says_warnings_and_errors_by_default)
{
	capture("");
	log_debug("no");
	log_info("no");
	EXPECT_EQ_INT(0, lines);
	log_warn("disk %d", 7);
	EXPECT_STREQ("testlog|disk 7", last);
	EXPECT_EQ_INT(LOG_WARN, last_level);
	log_err("bad");
	EXPECT_EQ_INT(2, lines);
	release();
}

TEST(log, a_component_has_its_own_level)
{
	capture("info,testlog=debug,other=err");
	log_debug("yes");
	EXPECT_EQ_INT(1, lines);
	EXPECT_TRUE(base_log_enabled(LOG_INFO, "third"));
	EXPECT_FALSE(base_log_enabled(LOG_DEBUG, "third"));
	EXPECT_FALSE(base_log_enabled(LOG_WARN, "other"));
	EXPECT_TRUE(base_log_enabled(LOG_ERR, "other"));
	ASSERT_OK(base_log_configure("err"));
	log_warn("no");
	EXPECT_EQ_INT(1, lines);
	EXPECT_TRUE(base_log_enabled(LOG_ERR, "other"));
	release();
}

TEST(log, a_specification_that_is_wrong_changes_nothing)
{
	static const char *const bad[] = { "loud",
					   "x=loud",
					   "=warn",
					   "info,x=",
					   "x==warn",
					   "info;warn",
					   "a_component_with_far_too_long_a_name=warn" };

	capture("testlog=debug");
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		test_note("%s", bad[i]);
		EXPECT_ERR(-EINVAL, base_log_configure(bad[i]));
		EXPECT_TRUE(base_log_enabled(LOG_DEBUG, "testlog"));
	}
	release();
}

TEST(log, more_components_than_fit_are_refused)
{
	int status, rc = 0;
	char spec[32];
	pid_t pid = fork();

	/* In a process of its own: the table keeps what it has seen. */
	ASSERT_GE_INT(pid, 0);
	if (!pid) {
		for (int i = 0; i < 50 && !rc; i++) {
			snprintf(spec, sizeof(spec), "many%d=info", i);
			rc = base_log_configure(spec);
		}
		_exit(rc == -ENOSPC ? 0 : 1);
	}
	ASSERT_EQ_INT(pid, waitpid(pid, &status, 0));
	EXPECT_EQ_INT(0, status);
}

TEST(log, a_line_stays_one_line_and_keeps_errno)
{
	char big[5000];

	capture("");
	errno = EXDEV;
	log_warn("a\nb\x1b[2J");
	EXPECT_EQ_INT(EXDEV, errno);
	EXPECT_STREQ("testlog|a?b?[2J", last);
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	log_warn("%s", big);
	EXPECT_LT_INT(strlen(last), 1100);
	release();
}

/* What a run of this test as a program of its own writes, with BLOBFS_LOG set to spec. */
static void run_child(const char *spec, char *out, size_t len)
{
	char self[512], command[1024];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	FILE *f;

	ASSERT_GT_INT(n, 0);
	self[n] = '\0';
	snprintf(command, sizeof(command),
		 "LOG_TEST_CHILD=1 BLOBFS_LOG='%s' '%s' --gtest_filter=log.reads_its_* 2>&1", spec,
		 self);
	f = popen(command, "r");
	ASSERT_TRUE(f != NULL);
	n = (ssize_t)fread(out, 1, len - 1, f);
	out[n] = '\0';
	EXPECT_EQ_INT(0, pclose(f));
}

TEST(log, reads_its_levels_from_the_environment_and_writes_to_standard_error)
{
	char out[4096];

	if (getenv("LOG_TEST_CHILD")) {
		log_info("from the child");
		return;
	}
	run_child("testlog=info", out, sizeof(out));
	EXPECT_TRUE(strstr(out, "Z info testlog: from the child\n") != NULL);
	run_child("warn", out, sizeof(out));
	EXPECT_EQ_PTR(NULL, strstr(out, "from the child"));
	run_child("loud", out, sizeof(out));
	EXPECT_TRUE(strstr(out, "BLOBFS_LOG: \"loud\" is no log level\n") != NULL);
}
