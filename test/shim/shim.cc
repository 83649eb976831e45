/* SPDX-License-Identifier: BSD-2-Clause */
/* Registers C tests with GoogleTest and turns their failures into its. The only C++ of the tests. */
#include <gtest/gtest.h>

#include <cinttypes>
#include <csetjmp>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <pthread.h>
#include <sys/random.h>

#define TEST_SHIM_IMPLEMENTATION
#include "test/common/scale.h"
#include "test/shim/test.h"

namespace {

struct test_case *cases, **cases_end = &cases;
jmp_buf leave;
pthread_t runner; /* the thread the running test began in */
char note[512];
char seed_note[64];
uint64_t seed; /* shown where there is a seed_note */

[[noreturn]] void leave_test()
{
	if (pthread_equal(pthread_self(), runner))
		longjmp(leave, 1);
	pthread_exit(nullptr);
}

class CTest : public testing::Test {
public:
	explicit CTest(const struct test_case *tc) : tc_(tc) {}

	/* Nothing here may need a destructor: longjmp comes back into this frame. */
	void TestBody() override
	{
		runner = pthread_self();
		note[0] = seed_note[0] = '\0';
		if (setjmp(leave) == 0)
			tc_->fn();
	}

private:
	const struct test_case *tc_;
};

void report(const struct test_place *p, const char *text)
{
	ADD_FAILURE_AT(p->file, p->line) << text << (note[0] ? "\n(" : "") << note << (note[0] ? ")" : "") << seed_note;
}

} // namespace

extern "C" {

#ifdef __SANITIZE_THREAD__
/* base/msgring.c says why. */
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:__rte_ring\n";
}
#endif

void test_register(struct test_case *tc)
{
	*cases_end = tc;
	cases_end = &tc->next;
}

int test_main(int argc, char **argv)
{
	testing::InitGoogleTest(&argc, argv);
	if (argc > 1) {
		fprintf(stderr, "%s: unknown argument %s\n", argv[0], argv[1]);
		return 2;
	}
	for (const struct test_case *tc = cases; tc; tc = tc->next)
		testing::RegisterTest(tc->suite, tc->name, nullptr, nullptr, tc->file, tc->line,
				      [tc]() -> testing::Test * { return new CTest(tc); });
	return RUN_ALL_TESTS();
}

void test_fail(const struct test_place *place, const char *fmt, ...)
{
	char text[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	report(place, text);
	if (place->fatal)
		leave_test();
}

void test_skip(const char *file, int line, const char *why)
{
	GTEST_MESSAGE_AT_(file, line, why, testing::TestPartResult::kSkip);
	leave_test();
}

void test_note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(note, sizeof(note), fmt, ap);
	va_end(ap);
}

uint64_t test_seed_or(uint64_t usual)
{
	const char *given = getenv("BLOBFS_SEED");

	if (seed_note[0])
		return seed;
	seed = given ? strtoull(given, nullptr, 0) : usual;
	snprintf(seed_note, sizeof(seed_note), "\n(BLOBFS_SEED=%" PRIu64 ")", seed);
	return seed;
}

uint64_t test_seed(void)
{
	uint64_t random = 0;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		random = static_cast<uint64_t>(time(nullptr));
	return test_seed_or(random);
}

uint64_t test_scaled(uint64_t n)
{
	return scaled(n);
}

uint64_t test_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return static_cast<uint64_t>(ts.tv_sec) * 1000000000 + static_cast<uint64_t>(ts.tv_nsec);
}

bool test_has_failed(void)
{
	return testing::Test::HasFailure();
}

void test_int(const struct test_place *p, const char *op, const char *ea, const char *eb, int64_t a,
	      int64_t b)
{
	bool ok;

	if (!strcmp(op, "=="))
		ok = a == b;
	else if (!strcmp(op, "!="))
		ok = a != b;
	else if (!strcmp(op, ">="))
		ok = a >= b;
	else if (!strcmp(op, ">"))
		ok = a > b;
	else if (!strcmp(op, "<="))
		ok = a <= b;
	else
		ok = a < b;
	if (!ok)
		test_fail(p,
			  "expected %s %s %s\n  %s is %" PRId64 " (0x%" PRIx64 ")\n  %s is %" PRId64
			  " (0x%" PRIx64 ")",
			  ea, op, eb, ea, a, (uint64_t)a, eb, b, (uint64_t)b);
}

void test_bool(const struct test_place *p, const char *expr, bool want, bool is)
{
	if (want != is)
		test_fail(p, "expected %s to be %s", expr, want ? "true" : "false");
}

void test_str(const struct test_place *p, const char *ea, const char *eb, const char *a,
	      const char *b)
{
	if (a == b || (a && b && !strcmp(a, b)))
		return;
	test_fail(p, "expected %s to equal %s\n  %s is \"%s\"\n  %s is \"%s\"", ea, eb, ea,
		  a ? a : "(null)", eb, b ? b : "(null)");
}

void test_mem(const struct test_place *p, const char *ea, const char *eb, const void *a,
	      const void *b, size_t len)
{
	const unsigned char *x = static_cast<const unsigned char *>(a);
	const unsigned char *y = static_cast<const unsigned char *>(b);
	size_t i = 0;

	while (i < len && x[i] == y[i])
		i++;
	if (i < len)
		test_fail(
			p,
			"expected %zu bytes of %s and %s to be equal; byte %zu is 0x%02x and 0x%02x",
			len, ea, eb, i, x[i], y[i]);
}

void test_ptr(const struct test_place *p, const char *ea, const char *eb, const void *a,
	      const void *b)
{
	if (a != b)
		test_fail(p, "expected %s == %s\n  %s is %p\n  %s is %p", ea, eb, ea, a, eb, b);
}

void test_ok(const struct test_place *p, const char *expr, int64_t rc)
{
	if (rc)
		test_fail(p, "expected %s to succeed, it gave %" PRId64 " (%s)", expr, rc,
			  rc < 0 ? strerror(static_cast<int>(-rc)) : "positive");
}

void test_err(const struct test_place *p, const char *expr, int want, int64_t rc)
{
	if (rc != want)
		test_fail(p, "expected %s to fail with %d (%s), it gave %" PRId64 " (%s)", expr,
			  want, strerror(-want), rc,
			  rc < 0 ? strerror(static_cast<int>(-rc)) : "no error");
}

} /* extern "C" */
