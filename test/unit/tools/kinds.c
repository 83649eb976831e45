/* SPDX-License-Identifier: BSD-2-Clause */
/* How many problems of a kind are shown, and what is said of the others. */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "test/shim/test.h"
#include "tools/common/kinds.h"

static struct kinds k;

static unsigned add(const char *pass, const char *code, unsigned n)
{
	const struct bs_problem p = { .pass = pass, .code = code };
	unsigned shown = 0;

	while (n--)
		shown += kinds_add(&k, &p);
	return shown;
}

static char *rest(void)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	kinds_print_rest(&k, f, "> ");
	fclose(f);
	return text;
}

TEST(tools_kinds, the_first_of_each_kind_are_shown_and_the_others_counted)
{
	char *text;

	memset(&k, 0, sizeof(k));
	EXPECT_EQ_INT(KINDS_SHOWN, add("names", "a", KINDS_SHOWN));
	EXPECT_EQ_INT(KINDS_SHOWN, add("space", "b", 5000));
	EXPECT_EQ_INT(3, add("names", "b", 3)); /* of another pass */
	EXPECT_EQ_INT(0, add("space", "b", 20));
	EXPECT_EQ_INT(3, k.n);
	text = rest();
	EXPECT_STREQ("> space: b: and 5000 more of this kind (-v shows all)\n", text);
	free(text);
}

TEST(tools_kinds, who_wants_all_gets_all)
{
	char *text;

	memset(&k, 0, sizeof(k));
	k.all = true;
	EXPECT_EQ_INT(5000, add("space", "b", 5000));
	EXPECT_EQ_INT(5000, k.kind[0].n);
	text = rest();
	EXPECT_STREQ("", text);
	free(text);
}

TEST(tools_kinds, more_kinds_than_there_is_room_for_are_one)
{
	uint64_t n = 0;
	char code[64];

	memset(&k, 0, sizeof(k));
	for (unsigned i = 0; i < 2 * KINDS_MAX; i++) {
		snprintf(code, sizeof(code), "a-name-that-is-longer-than-there-is-room-for-%u", i % 10 ? i : 0);
		add("p", i % 10 ? code + 30 : "short", 1);
	}
	EXPECT_EQ_INT(KINDS_MAX, k.n);
	for (unsigned i = 0; i < k.n; i++)
		n += k.kind[i].n;
	EXPECT_EQ_INT(2 * KINDS_MAX, n);
	EXPECT_STREQ("others", k.kind[KINDS_MAX - 1].code);
}
