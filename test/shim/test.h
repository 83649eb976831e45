/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests in C, run by GoogleTest:
 *
 *	TEST(blob_map, punching_the_middle_splits_a_run)
 *	{
 *		ASSERT_OK(map_init(&m));
 *		EXPECT_EQ_INT(2, map_run_count(&m));
 *	}
 *
 * A failed EXPECT_ is noted and the test goes on; a failed ASSERT_ leaves the test at once by longjmp, from
 * any depth of calls (what the test holds then leaks; the process ends soon). In a thread the test has
 * made, a failed ASSERT_ ends that thread instead. The expected value comes first. _INT compares as int64_t.
 */
#ifndef TEST_SHIM_TEST_H
#define TEST_SHIM_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct test_case {
	const char *suite, *name, *file;
	int line;
	void (*fn)(void);
	struct test_case *next;
};

/* How a comparison failed: whether the test goes on, and where it stands. */
struct test_place {
	const char *file;
	int line;
	bool fatal;
};

void test_register(struct test_case *tc);
/* main of a test program; a program with a main of its own may call it. */
int test_main(int argc, char **argv);
/* Notes a failure; if place->fatal, does not return. */
void test_fail(const struct test_place *place, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void test_skip(const char *file, int line, const char *why) __attribute__((noreturn));
/* Shown with every failure from now on in this test (a seed, a step); "" for none. */
void test_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool test_has_failed(void);
/* What a random test begins with: another number in each run, the same within a test; $BLOBFS_SEED, if set. Shown with every failure. */
uint64_t test_seed(void);
/* The same of a test that begins with a number of its own, if there is no $BLOBFS_SEED. */
uint64_t test_seed_or(uint64_t usual);
/* Processor time of the process in ns: what something costs, on a machine that has others to serve. */
uint64_t test_cpu_ns(void);
/* n rounds of a long test, times $TEST_SCALE (1 when unset; less where a sanitizer slows it); at least 1. */
uint64_t test_scaled(uint64_t n);

void test_int(const struct test_place *p, const char *op, const char *ea, const char *eb, int64_t a,
	      int64_t b);
void test_bool(const struct test_place *p, const char *expr, bool want, bool is);
void test_str(const struct test_place *p, const char *ea, const char *eb, const char *a,
	      const char *b);
void test_mem(const struct test_place *p, const char *ea, const char *eb, const void *a,
	      const void *b, size_t len);
void test_ptr(const struct test_place *p, const char *ea, const char *eb, const void *a,
	      const void *b);
void test_ok(const struct test_place *p, const char *expr, int64_t rc);
void test_err(const struct test_place *p, const char *expr, int want, int64_t rc);

#ifdef __cplusplus
}
#endif

#ifndef TEST_SHIM_IMPLEMENTATION
#define TEST(suite_, name_)                                                             \
	static void test_##suite_##_##name_(void);                                      \
	static struct test_case test_case_##suite_##_##name_ = {                        \
		#suite_, #name_, __FILE__, __LINE__, test_##suite_##_##name_, NULL      \
	};                                                                              \
	__attribute__((constructor)) static void test_register_##suite_##_##name_(void) \
	{                                                                               \
		test_register(&test_case_##suite_##_##name_);                           \
	}                                                                               \
	static void test_##suite_##_##name_(void)

#define TEST_PLACE(fatal) (&(const struct test_place){ __FILE__, __LINE__, fatal })
#define TEST_INT(fatal, op, a, b) \
	test_int(TEST_PLACE(fatal), op, #a, #b, (int64_t)(a), (int64_t)(b))

#define EXPECT_EQ_INT(a, b) TEST_INT(false, "==", a, b)
#define EXPECT_NE_INT(a, b) TEST_INT(false, "!=", a, b)
#define EXPECT_GE_INT(a, b) TEST_INT(false, ">=", a, b)
#define EXPECT_GT_INT(a, b) TEST_INT(false, ">", a, b)
#define EXPECT_LE_INT(a, b) TEST_INT(false, "<=", a, b)
#define EXPECT_LT_INT(a, b) TEST_INT(false, "<", a, b)
#define EXPECT_TRUE(x) test_bool(TEST_PLACE(false), #x, true, (x))
#define EXPECT_FALSE(x) test_bool(TEST_PLACE(false), #x, false, (x))
#define EXPECT_STREQ(a, b) test_str(TEST_PLACE(false), #a, #b, a, b)
#define EXPECT_EQ_MEM(a, b, len) test_mem(TEST_PLACE(false), #a, #b, a, b, len)
#define EXPECT_EQ_PTR(a, b) test_ptr(TEST_PLACE(false), #a, #b, a, b)
#define EXPECT_OK(rc) test_ok(TEST_PLACE(false), #rc, rc)
#define EXPECT_ERR(want, rc) test_err(TEST_PLACE(false), #rc, want, rc)

#define ASSERT_EQ_INT(a, b) TEST_INT(true, "==", a, b)
#define ASSERT_NE_INT(a, b) TEST_INT(true, "!=", a, b)
#define ASSERT_GE_INT(a, b) TEST_INT(true, ">=", a, b)
#define ASSERT_GT_INT(a, b) TEST_INT(true, ">", a, b)
#define ASSERT_LE_INT(a, b) TEST_INT(true, "<=", a, b)
#define ASSERT_LT_INT(a, b) TEST_INT(true, "<", a, b)
#define ASSERT_TRUE(x) test_bool(TEST_PLACE(true), #x, true, (x))
#define ASSERT_FALSE(x) test_bool(TEST_PLACE(true), #x, false, (x))
#define ASSERT_STREQ(a, b) test_str(TEST_PLACE(true), #a, #b, a, b)
#define ASSERT_EQ_MEM(a, b, len) test_mem(TEST_PLACE(true), #a, #b, a, b, len)
#define ASSERT_EQ_PTR(a, b) test_ptr(TEST_PLACE(true), #a, #b, a, b)
#define ASSERT_OK(rc) test_ok(TEST_PLACE(true), #rc, rc)
#define ASSERT_ERR(want, rc) test_err(TEST_PLACE(true), #rc, want, rc)

/* Ends the test with a formatted failure. */
#define FAIL(...) test_fail(TEST_PLACE(true), __VA_ARGS__)
#define SKIP(why) test_skip(__FILE__, __LINE__, why)
#endif

#endif
