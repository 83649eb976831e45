/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdint.h>

#include "base/util.h"
#include "fuse/pool.h"
#include "test/shim/test.h"

TEST(fuse_pool, keeps_only_a_few_idle_buffers)
{
	struct pool_buf *b[4];
	struct pool p;

	pool_init(&p, 8192, 2);
	for (int i = 0; i < 4; i++) {
		b[i] = pool_get(&p);
		ASSERT_TRUE(b[i]);
		EXPECT_EQ_INT(0, (uintptr_t)b[i]->mem % 4096);
	}
	for (int i = 0; i < 4; i++)
		pool_put(&p, b[i]);
	EXPECT_EQ_INT(2, p.n_idle);
	EXPECT_EQ_PTR(b[1], pool_get(&p));
	pool_put(&p, b[1]);
	pool_destroy(&p);
}

TEST(fuse_pool, says_when_memory_is_short)
{
	struct pool p;

	pool_init(&p, 8192, 2);
	base_fail_alloc_after(1);
	EXPECT_TRUE(!pool_get(&p));
	base_fail_alloc_after(0);
	pool_destroy(&p);
}
