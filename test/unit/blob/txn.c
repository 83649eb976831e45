/* SPDX-License-Identifier: BSD-2-Clause */
/* Items and transactions: all of one or nothing of it, whatever fails. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/unit/blob/kit.h"

/* ---- items ---- */

struct seen {
	uint64_t key[64];
	char value[64][16];
	int n, stop_after;
};

static int see(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct seen *s = arg;

	s->key[s->n] = key;
	memcpy(s->value[s->n], value, MIN(len, 15u));
	s->value[s->n][MIN(len, 15u)] = '\0';
	s->n++;
	return s->n == s->stop_after ? 77 : 0;
}

TEST(items, are_scanned_in_order_of_key_and_by_kind)
{
	static const uint64_t keys[] = { 9, 1, UINT64_MAX, 5, 3, 1ull << 40 };
	struct seen s = { .n = 0 };
	struct bs_blob *blob;
	struct bs_txn *txn;
	struct kit kit;

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		ASSERT_OK(bs_txn_put(txn, blob, 20, keys[i], "x", 1));
		ASSERT_OK(bs_txn_put(txn, blob, 21, keys[i], "y", 1));
	}
	bs_txn_end(txn);
	EXPECT_EQ_INT(0, bs_item_scan(blob, 20, 3, see, &s));
	ASSERT_EQ_INT(5, s.n);
	EXPECT_EQ_INT(3, s.key[0]);
	EXPECT_EQ_INT(5, s.key[1]);
	EXPECT_EQ_INT(9, s.key[2]);
	EXPECT_EQ_INT(1ll << 40, s.key[3]);
	EXPECT_TRUE(s.key[4] == UINT64_MAX);
	EXPECT_STREQ("x", s.value[4]);
	s = (struct seen){ .stop_after = 2 };
	EXPECT_EQ_INT(77, bs_item_scan(blob, 21, 0, see, &s));
	EXPECT_EQ_INT(2, s.n);
	s = (struct seen){ .n = 0 };
	EXPECT_EQ_INT(0, bs_item_scan(blob, 22, 0, see, &s));
	EXPECT_EQ_INT(0, s.n);
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(items, are_replaced_deleted_and_of_any_length_up_to_the_limit)
{
	char *big = malloc(BS_VALUE_MAX + 1), *back = malloc(BS_VALUE_MAX + 1);
	struct bs_blob *blob;
	struct bs_stat st;
	struct kit kit;
	uint64_t meta;

	memset(big, 'b', BS_VALUE_MAX + 1);
	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	bs_get_stat(kit.bs, &st);
	meta = st.meta_bytes;
	ASSERT_OK(kit_put(kit.bs, blob, 1, big, BS_VALUE_MAX));
	EXPECT_ERR(-EINVAL, kit_put(kit.bs, blob, 2, big, BS_VALUE_MAX + 1));
	EXPECT_EQ_INT(BS_VALUE_MAX, bs_item_get(blob, BS_KIND_USER, 1, back, BS_VALUE_MAX));
	EXPECT_EQ_MEM(big, back, BS_VALUE_MAX);
	ASSERT_OK(kit_put(kit.bs, blob, 1, "ab", 2));
	back[1] = '!';
	EXPECT_EQ_INT(2, bs_item_get(blob, BS_KIND_USER, 1, back, 1));
	EXPECT_EQ_MEM("a!", back, 2);
	ASSERT_OK(kit_put(kit.bs, blob, 3, NULL, 0));
	EXPECT_EQ_INT(0, bs_item_get(blob, BS_KIND_USER, 3, NULL, 0));
	bs_get_stat(kit.bs, &st);
	EXPECT_EQ_INT(2, st.items);
	EXPECT_EQ_INT(meta + 32 + 24, st.meta_bytes);
	{
		struct bs_txn *txn;

		ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
		ASSERT_OK(bs_txn_del(txn, blob, BS_KIND_USER, 1));
		ASSERT_OK(bs_txn_del(txn, blob, BS_KIND_USER, 999));
		EXPECT_ERR(-EINVAL, bs_txn_del(txn, blob, BS_KIND_RUN, 1));
		EXPECT_ERR(-EINVAL, bs_txn_put(txn, blob, BS_KIND_MAX + 1, 1, "x", 1));
		bs_txn_end(txn);
	}
	EXPECT_ERR(-ENOENT, bs_item_get(blob, BS_KIND_USER, 1, back, 1));
	bs_get_stat(kit.bs, &st);
	EXPECT_EQ_INT(meta + 24, st.meta_bytes);
	bs_blob_put(blob);
	kit_close(&kit);
	free(big);
	free(back);
}

/* ---- transactions ---- */

TEST(txn, of_two_changes_of_one_item_the_later_wins)
{
	struct bs_blob *blob;
	struct bs_txn *txn;
	struct kit kit;
	char c;

	kit_open(&kit, NULL);
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	ASSERT_OK(bs_txn_create(txn, 0, NULL, 0, &blob));
	ASSERT_OK(bs_txn_put(txn, blob, BS_KIND_USER, 1, "a", 1));
	ASSERT_OK(bs_txn_put(txn, blob, BS_KIND_USER, 1, "b", 1));
	ASSERT_OK(bs_txn_put(txn, blob, BS_KIND_USER, 2, "c", 1));
	ASSERT_OK(bs_txn_del(txn, blob, BS_KIND_USER, 2));
	ASSERT_OK(bs_txn_header(txn, blob, 123, "user", 4));
	/* Nothing is changed before the end. */
	EXPECT_ERR(-ENOENT, bs_item_get(blob, BS_KIND_USER, 1, &c, 1));
	EXPECT_TRUE(bs_blob_get(kit.bs, bs_blob_id(blob)) == NULL);
	bs_txn_end(txn);
	EXPECT_EQ_INT(1, bs_item_get(blob, BS_KIND_USER, 1, &c, 1));
	EXPECT_EQ_INT('b', c);
	EXPECT_ERR(-ENOENT, bs_item_get(blob, BS_KIND_USER, 2, &c, 1));
	bs_blob_put(blob);
	kit_close(&kit);
}

TEST(txn, an_empty_one_has_no_lsn)
{
	struct bs_txn *txn;
	struct kit kit;

	kit_open(&kit, NULL);
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	EXPECT_EQ_INT(0, bs_txn_end(txn));
	kit_close(&kit);
}

TEST(txn, ids_are_given_in_order_and_never_again)
{
	struct bs_blob *a, *b, *c;
	struct bs_txn *txn;
	struct kit kit;

	kit_open(&kit, NULL);
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	ASSERT_OK(bs_txn_create(txn, 0, NULL, 0, &a));
	ASSERT_OK(bs_txn_create(txn, 100, NULL, 0, &b));
	EXPECT_ERR(-EEXIST, bs_txn_create(txn, 100, NULL, 0, &c));
	EXPECT_ERR(-EEXIST, bs_txn_create(txn, 50, NULL, 0, &c));
	ASSERT_OK(bs_txn_create(txn, 0, NULL, 0, &c));
	bs_txn_end(txn);
	EXPECT_EQ_INT(1, bs_blob_id(a));
	EXPECT_EQ_INT(100, bs_blob_id(b));
	EXPECT_EQ_INT(101, bs_blob_id(c));
	bs_blob_put(a);
	bs_blob_put(b);
	ASSERT_OK(kit_delete(kit.bs, c));
	kit_reopen(&kit, false, 0);
	EXPECT_TRUE(bs_blob_get(kit.bs, 101) == NULL);
	c = kit_create(kit.bs);
	EXPECT_EQ_INT(102, bs_blob_id(c));
	bs_blob_put(c);
	kit_close(&kit);
}

TEST(txn, a_deleted_blob_takes_no_more_changes_and_lives_as_long_as_it_is_held)
{
	struct bs_blob_info info;
	struct bs_blob *blob;
	struct bs_txn *txn;
	struct bs_stat st;
	struct kit kit;

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	ASSERT_OK(kit_put(kit.bs, blob, 1, "x", 1));
	ASSERT_OK(kit_write(blob, 0, 10, 1, 0));
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	ASSERT_OK(bs_txn_delete(txn, blob));
	EXPECT_ERR(-ENOENT, bs_txn_put(txn, blob, BS_KIND_USER, 2, "y", 1));
	EXPECT_ERR(-ENOENT, bs_txn_delete(txn, blob));
	bs_txn_cancel(txn);
	ASSERT_OK(kit_put(kit.bs, blob, 2, "y", 1));
	bs_blob_ref(blob);
	ASSERT_OK(kit_delete(kit.bs, blob));
	EXPECT_ERR(-ENOENT, kit_put(kit.bs, blob, 3, "z", 1));
	EXPECT_ERR(-ENOENT, kit_write(blob, 0, 1, 1, 0));
	EXPECT_ERR(-ENOENT, bs_item_get(blob, BS_KIND_USER, 1, NULL, 0));
	bs_blob_get_info(blob, &info);
	EXPECT_TRUE(info.deleted);
	bs_get_stat(kit.bs, &st);
	EXPECT_EQ_INT(0, st.blobs);
	EXPECT_EQ_INT(0, st.items);
	EXPECT_EQ_INT(0, st.runs);
	EXPECT_EQ_INT(0, st.meta_bytes);
	EXPECT_EQ_INT(0, st.used_blocks);
	bs_blob_put(blob);
	kit_close(&kit);
}

/* A transaction of every kind of change; its end is the caller's. */
static int build(struct bs_txn *txn, struct bs_blob *a, struct bs_blob *b, struct bs_blob **made)
{
	char value[100] = "value";
	int rc = bs_txn_create(txn, 0, "new", 3, made);

	if (!rc)
		rc = bs_txn_put(txn, *made, BS_KIND_USER, 1, value, sizeof(value));
	if (!rc)
		rc = bs_txn_header(txn, *made, 7777, "changed", 7);
	if (!rc)
		rc = bs_txn_prealloc(txn, *made, 0, 30, BS_STREAM_LONG);
	if (!rc)
		rc = bs_txn_put(txn, a, BS_KIND_USER, 2, value, 50);
	if (!rc)
		rc = bs_txn_del(txn, a, BS_KIND_USER, 1);
	if (!rc)
		rc = bs_txn_header(txn, a, 99, "header", 6);
	if (!rc)
		rc = bs_txn_unmap(txn, a, 3, 10);
	if (!rc)
		rc = bs_txn_zero(txn, a, 20, 20);
	if (!rc)
		rc = bs_txn_prealloc(txn, a, 2, 50, BS_STREAM_SHORT);
	if (!rc)
		rc = bs_txn_delete(txn, b);
	return rc;
}

struct before {
	struct bs_stat st;
	uint8_t *dump;
	size_t len;
};

static void remember(struct kit *kit, struct before *b)
{
	bs_get_stat(kit->bs, &b->st);
	b->dump = kit_dump(kit->bs, &b->len);
}

static void expect_unchanged(struct kit *kit, struct before *b)
{
	struct before now;

	remember(kit, &now);
	ASSERT_EQ_INT(b->len, now.len);
	ASSERT_EQ_MEM(b->dump, now.dump, b->len);
	ASSERT_EQ_INT(b->st.lsn, now.st.lsn);
	ASSERT_EQ_INT(b->st.free_blocks, now.st.free_blocks);
	ASSERT_EQ_INT(b->st.pending_blocks, now.st.pending_blocks);
	ASSERT_EQ_INT(b->st.meta_bytes, now.st.meta_bytes);
	ASSERT_EQ_INT(b->st.next_id, now.st.next_id);
	free(now.dump);
}

static void two_blobs(struct kit *kit, struct bs_blob **a, struct bs_blob **b)
{
	*a = kit_create(kit->bs);
	*b = kit_create(kit->bs);
	ASSERT_OK(kit_put(kit->bs, *a, 1, "one", 3));
	ASSERT_OK(kit_write(*a, 0, 40, 1, 0));
	ASSERT_OK(kit_write(*b, 5, 9, 1, 0));
	bs_blob_trim_ahead(*a);
	ASSERT_OK(bs_reclaim(kit->bs));
}

TEST(txn, cancelled_it_changes_nothing)
{
	struct bs_blob *a, *b, *made;
	struct before before;
	struct bs_txn *txn;
	struct kit kit;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	two_blobs(&kit, &a, &b);
	remember(&kit, &before);
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	ASSERT_OK(build(txn, a, b, &made));
	bs_txn_cancel(txn);
	expect_unchanged(&kit, &before);
	/* And it can be done then. */
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	ASSERT_OK(build(txn, a, b, &made));
	EXPECT_GT_INT(bs_txn_end(txn), before.st.lsn);
	bs_blob_put(made);
	bs_blob_put(a);
	bs_blob_put(b);
	free(before.dump);
	kit_close(&kit);
}

TEST(txn, short_of_memory_at_any_allocation_it_fails_whole_or_succeeds)
{
	struct bs_blob *a, *b, *made;
	struct before before;
	struct bs_txn *txn;
	struct kit kit;
	int rc = -ENOMEM, n;

	kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
	two_blobs(&kit, &a, &b);
	remember(&kit, &before);
	for (n = 1; rc && n < 200; n++) {
		test_note("allocation %d fails", n);
		ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
		base_fail_alloc_after((uint64_t)n);
		rc = build(txn, a, b, &made);
		if (rc) {
			base_fail_alloc_after(0);
			ASSERT_ERR(-ENOMEM, rc);
			bs_txn_cancel(txn);
			expect_unchanged(&kit, &before);
			bs_spare_trim(&kit.bs->spare, 0);
		} else {
			/* The end may want memory, and does without. */
			bs_txn_end(txn);
			base_fail_alloc_after(0);
			bs_blob_put(made);
		}
	}
	ASSERT_OK(rc);
	EXPECT_GT_INT(n, 10);
	bs_blob_put(a);
	bs_blob_put(b);
	free(before.dump);
	kit_close(&kit);
}

TEST(txn, its_end_does_without_memory)
{
	struct bs_blob *a, *b, *made;
	struct bs_txn *txn;
	struct kit kit;

	for (uint64_t nth = 1; nth < 12; nth++) {
		uint8_t *dump, *dump2;
		size_t len, len2;

		kit_open(&kit, &(struct kit_opts){ .flags = BS_NO_SERVICE });
		two_blobs(&kit, &a, &b);
		ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
		ASSERT_OK(build(txn, a, b, &made));
		base_fail_alloc_after(nth);
		bs_txn_end(txn);
		base_fail_alloc_after(0);
		dump = kit_dump(kit.bs, &len);
		ASSERT_OK(bs_commit(kit.bs, 0));
		bs_blob_put(made);
		bs_blob_put(a);
		bs_blob_put(b);
		kit_reopen(&kit, true, BS_NO_SERVICE);
		dump2 = kit_dump(kit.bs, &len2);
		ASSERT_EQ_INT(len, len2);
		EXPECT_EQ_MEM(dump, dump2, len);
		free(dump);
		free(dump2);
		kit_close(&kit);
	}
}

TEST(txn, a_longer_one_than_the_log_takes_is_refused_and_can_be_cancelled)
{
	char *big = calloc(1, BS_VALUE_MAX);
	struct bs_blob *blob;
	struct bs_txn *txn;
	struct kit kit;
	int rc = 0;

	kit_open(&kit, NULL);
	blob = kit_create(kit.bs);
	ASSERT_OK(bs_txn_begin(kit.bs, 0, &txn));
	for (uint64_t i = 0; !rc && i < 1000; i++)
		rc = bs_txn_put(txn, blob, BS_KIND_USER, i, big, BS_VALUE_MAX);
	EXPECT_ERR(-E2BIG, rc);
	bs_txn_cancel(txn);
	ASSERT_OK(kit_put(kit.bs, blob, 1, "x", 1));
	bs_blob_put(blob);
	kit_close(&kit);
	free(big);
}

struct visit {
	uint64_t last, n, stop_at;
};

static int visit(struct bs_blob *blob, void *arg)
{
	struct visit *v = arg;

	EXPECT_GT_INT(bs_blob_id(blob), v->last);
	v->last = bs_blob_id(blob);
	return ++v->n == v->stop_at ? 5 : 0;
}

TEST(txn, blobs_are_visited_in_order_of_id)
{
	struct visit v = { .n = 0 };
	struct bs_blob *b;
	struct kit kit;

	kit_open(&kit, NULL);
	for (int i = 0; i < 300; i++) {
		b = kit_create(kit.bs);
		if (i % 3 == 0)
			ASSERT_OK(kit_delete(kit.bs, b));
		else
			bs_blob_put(b);
	}
	EXPECT_EQ_INT(0, bs_foreach_blob(kit.bs, 0, visit, &v));
	EXPECT_EQ_INT(200, v.n);
	v = (struct visit){ .stop_at = 3 };
	EXPECT_EQ_INT(5, bs_foreach_blob(kit.bs, 10, visit, &v));
	EXPECT_EQ_INT(3, v.n);
	EXPECT_EQ_INT(14, v.last);
	kit_close(&kit);
}

struct deleter {
	struct bs *bs;
	uint64_t last, n, deleted; /* visited; of these deleted before */
	bool gone;
};

/* The first visit deletes every blob behind it but the last. */
static int delete_the_rest(struct bs_blob *blob, void *arg)
{
	struct deleter *d = arg;
	struct bs_blob_info info;

	bs_blob_get_info(blob, &info);
	EXPECT_GT_INT(info.id, d->last);
	d->last = info.id;
	d->n++;
	d->deleted += info.deleted;
	for (uint64_t id = info.id + 1; !d->gone && id < 100; id++)
		ASSERT_OK(kit_delete(d->bs, bs_blob_get(d->bs, id)));
	d->gone = true;
	return 0;
}

TEST(txn, a_visit_may_change_the_store_and_is_told_of_at_most_31_blobs_that_were_deleted_meanwhile)
{
	struct deleter d = { .n = 0 };
	struct kit kit;

	kit_open(&kit, NULL);
	d.bs = kit.bs;
	for (int i = 0; i < 100; i++)
		bs_blob_put(kit_create(kit.bs));
	EXPECT_EQ_INT(0, bs_foreach_blob(kit.bs, 0, delete_the_rest, &d));
	EXPECT_EQ_INT(100, d.last);
	EXPECT_GT_INT(d.deleted, 0);
	EXPECT_LE_INT(d.deleted, 31);
	EXPECT_EQ_INT(2 + d.deleted, d.n); /* the first and the last, which were there all the time */
	kit_close(&kit);
}
