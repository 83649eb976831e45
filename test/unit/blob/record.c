/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "blob/internal.h"
#include "test/shim/test.h"

#define STORE 100000u

static uint8_t buf[BS_REC_MAX + 8] __attribute__((aligned(8)));

static struct bs_rec_disk *encode(uint8_t op, uint8_t kind, uint64_t blob, uint64_t key, const void *value, uint32_t len)
{
	struct bs_rec rec = { .op = op, .kind = kind, .blob = blob, .key = key, .value = value, .len = len };

	memset(buf, 0xee, sizeof(buf));
	EXPECT_EQ_INT(bs_rec_size(len), bs_rec_encode(&rec, buf));
	return (struct bs_rec_disk *)buf;
}

static int decode(struct bs_rec *rec)
{
	return bs_rec_decode(buf, bs_rec_size(le32_get(((struct bs_rec_disk *)buf)->len)), STORE, rec);
}

static void put_run(struct bs_run_disk *d, uint64_t logical, uint64_t phys, uint64_t count, unsigned flags)
{
	struct bs_run run;

	bs_run_set(&run, logical, phys, count, flags);
	bs_run_to_disk(&run, d);
}

TEST(blob_record, a_run_keeps_forty_bits_of_everything)
{
	uint64_t big = (1ull << 40) - 1;
	struct bs_run_disk d;
	struct bs_run a, b;

	bs_run_set(&a, big, big - 1, big - 2, 0xa5);
	bs_run_to_disk(&a, &d);
	bs_run_from_disk(&d, &b);
	EXPECT_EQ_INT(big, b.logical);
	EXPECT_EQ_INT(big - 1, bs_run_phys(&b));
	EXPECT_EQ_INT(big - 2, b.count);
	EXPECT_EQ_INT(0xa5, b.flags);
}

TEST(blob_record, carried_bytes_lie_in_one_block)
{
	static const struct { uint32_t from, len, zero; uint64_t key; bool ok; } cases[] = {
		{ 0, 1, 0, 0, true },	   { 0, 4096, 0, 9, true },  { 4095, 1, 0, (1ull << 40) - 1, true }, { 0, 0, 0, 0, false },
		{ 4096, 1, 0, 0, false },  { 1, 4096, 0, 0, false }, { 4000, 97, 0, 0, false },		    { 0, 4097, 0, 0, false },
		{ 0xffffffff, 1, 0, 0, false }, { 0, 1, 1, 0, false },	{ 0, 1, 0, 1ull << 40, false },
	};
	struct {
		struct bs_carried_disk head;
		uint8_t data[4100];
	} value;
	le64 count = le64_make(3);
	struct bs_rec rec;
	char text[100];

	memset(&value, 'c', sizeof(value));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		value.head = (struct bs_carried_disk){ .from = le32_make(cases[i].from), .zero = le32_make(cases[i].zero) };
		encode(BS_REC_PUT, BS_KIND_LOGDATA, 3, cases[i].key, &value, (uint32_t)sizeof(value.head) + cases[i].len);
		ASSERT_EQ_INT(cases[i].ok ? (int)bs_rec_size((uint32_t)sizeof(value.head) + cases[i].len) : -EUCLEAN, decode(&rec));
	}
	encode(BS_REC_PUT, BS_KIND_LOGDATA, 3, 0, &value, 7);
	ASSERT_EQ_INT(-EUCLEAN, decode(&rec));
	value.head.from = le32_make(5);
	value.head.zero = le32_make(0);
	encode(BS_REC_PUT, BS_KIND_LOGDATA, 3, 7, &value, (uint32_t)sizeof(value.head) + 2);
	ASSERT_TRUE(decode(&rec) > 0);
	bs_rec_text(&rec, text, sizeof(text));
	ASSERT_TRUE(strstr(text, "carried 3: block 7, bytes 5+2") != NULL);
	encode(BS_REC_DEL, BS_KIND_LOGDATA, 3, 7, &count, sizeof(count));
	ASSERT_TRUE(decode(&rec) > 0);
	bs_rec_text(&rec, text, sizeof(text));
	ASSERT_TRUE(strstr(text, "carried 3: 7+3") != NULL);
	encode(BS_REC_DEL, BS_KIND_LOGDATA, 3, 7, &count, 0);
	ASSERT_EQ_INT(-EUCLEAN, decode(&rec));
}

TEST(blob_record, every_kind_comes_back_as_it_went_in)
{
	struct { struct bs_header_disk h; char user[5]; } __attribute__((packed)) header = {
		{ le64_make(77), le32_make(0), le32_make(5) }, "abcd" };
	struct bs_run_disk runs[2];
	le64 count = le64_make(9);
	struct bs_rec rec;

	encode(BS_REC_PUT, BS_KIND_HEADER, 3, 0, &header, sizeof(header));
	ASSERT_EQ_INT(bs_rec_size(sizeof(header)), decode(&rec));
	EXPECT_EQ_MEM(&header, rec.value, sizeof(header));
	put_run(&runs[0], 10, 500, 5, 0);
	put_run(&runs[1], 15, 900, 1, BS_RUN_UNWRITTEN);
	encode(BS_REC_PUT, BS_KIND_RUN, 3, 10, runs, sizeof(runs));
	ASSERT_EQ_INT(bs_rec_size(sizeof(runs)), decode(&rec));
	EXPECT_EQ_INT(3, rec.blob);
	EXPECT_EQ_INT(10, rec.key);
	encode(BS_REC_DEL, BS_KIND_RUN, 3, 10, &count, sizeof(count));
	EXPECT_GT_INT(decode(&rec), 0);
	encode(BS_REC_PUT, BS_KIND_USER, 3, UINT64_MAX, "x", 1);
	EXPECT_EQ_INT(32, decode(&rec));
	encode(BS_REC_DEL, BS_KIND_MAX, 3, 5, NULL, 0);
	EXPECT_EQ_INT(24, decode(&rec));
	encode(BS_REC_DEL_BLOB, BS_KIND_HEADER, BS_ID_MAX, 0, NULL, 0);
	EXPECT_EQ_INT(24, decode(&rec));
}

TEST(blob_record, a_truncated_record_is_refused_at_every_length)
{
	struct bs_rec rec;

	encode(BS_REC_PUT, BS_KIND_USER, 3, 1, "0123456789", 10);
	for (uint32_t len = 0; len < bs_rec_size(10); len++)
		EXPECT_ERR(-EUCLEAN, bs_rec_decode(buf, len, STORE, &rec));
	EXPECT_EQ_INT(40, bs_rec_decode(buf, 40, STORE, &rec));
}

TEST(blob_record, malformed_fields_are_refused)
{
	struct bs_rec_disk *d;
	struct bs_rec rec;

	d = encode(BS_REC_PUT, BS_KIND_USER, 3, 1, "abc", 3);
	d->len = le32_make(BS_VALUE_MAX + 1);
	EXPECT_ERR(-EUCLEAN, bs_rec_decode(buf, sizeof(buf), STORE, &rec));
	d = encode(BS_REC_PUT, BS_KIND_USER, 3, 1, "abc", 3);
	d->zero = 1;
	EXPECT_ERR(-EUCLEAN, decode(&rec));
	d = encode(BS_REC_PUT, BS_KIND_USER, 3, 1, "abc", 3);
	d->flags = 2;
	EXPECT_ERR(-EUCLEAN, decode(&rec));
	encode(BS_REC_PUT, BS_KIND_USER, 3, 1, "abc", 3);
	buf[sizeof(*d) + 3] = 1; /* padding */
	EXPECT_ERR(-EUCLEAN, decode(&rec));
	encode(BS_REC_PUT, BS_KIND_USER, 0, 1, "abc", 3);
	EXPECT_ERR(-EUCLEAN, decode(&rec));
	encode(BS_REC_PUT, BS_KIND_USER, BS_ID_MAX + 1, 1, "abc", 3);
	EXPECT_ERR(-EUCLEAN, decode(&rec));
}

TEST(blob_record, unknown_operations_and_kinds_are_refused)
{
	struct bs_rec rec;

	for (unsigned op = 0; op < 256; op++) {
		for (unsigned kind = 0; kind < 256; kind++) {
			bool item = kind >= BS_KIND_USER && kind <= BS_KIND_MAX;
			bool ok = (item && (op == BS_REC_PUT || op == BS_REC_DEL)) || (op == BS_REC_DEL_BLOB && !kind);

			encode((uint8_t)op, (uint8_t)kind, 3, 0, NULL, 0);
			if ((decode(&rec) > 0) != ok)
				FAIL("op %u kind %u: %s", op, kind, ok ? "refused" : "taken");
		}
	}
}

TEST(blob_record, malformed_headers_are_refused)
{
	struct bs_header_disk h = { le64_make(0), le32_make(0), le32_make(0) };
	uint8_t longer[sizeof(h) + BS_USER_MAX + 1] = { 0 };
	struct bs_rec rec;

	encode(BS_REC_PUT, BS_KIND_HEADER, 3, 1, &h, sizeof(h));
	EXPECT_ERR(-EUCLEAN, decode(&rec)); /* a key */
	encode(BS_REC_PUT, BS_KIND_HEADER, 3, 0, &h, sizeof(h) - 1);
	EXPECT_ERR(-EUCLEAN, decode(&rec));
	encode(BS_REC_PUT, BS_KIND_HEADER, 3, 0, longer, sizeof(h) + 1);
	EXPECT_ERR(-EUCLEAN, decode(&rec)); /* a byte nobody names */
	h.user_len = le32_make(BS_USER_MAX + 1);
	memcpy(longer, &h, sizeof(h));
	encode(BS_REC_PUT, BS_KIND_HEADER, 3, 0, longer, sizeof(longer));
	EXPECT_ERR(-EUCLEAN, decode(&rec));
	h.user_len = le32_make(0);
	h.flags = le32_make(2);
	encode(BS_REC_PUT, BS_KIND_HEADER, 3, 0, &h, sizeof(h));
	EXPECT_ERR(-EUCLEAN, decode(&rec));
	h.flags = le32_make(0);
	h.size = le64_make((1ull << 52) + 1);
	encode(BS_REC_PUT, BS_KIND_HEADER, 3, 0, &h, sizeof(h));
	EXPECT_ERR(-EUCLEAN, decode(&rec));
}

TEST(blob_record, a_range_that_gets_shared_has_a_length_within_bounds)
{
	le64 count = le64_make(7);
	struct bs_rec rec;
	char text[64];

	encode(BS_REC_PUT, BS_KIND_SHARE, 3, 9, &count, sizeof(count));
	ASSERT_GT_INT(decode(&rec), 0);
	bs_rec_text(&rec, text, sizeof(text));
	EXPECT_STREQ("share 3: 9+7", text);
	encode(BS_REC_PUT, BS_KIND_SHARE, 3, (1ull << 40) - 6, &count, sizeof(count));
	EXPECT_ERR(-EUCLEAN, decode(&rec));
	count = le64_make(0);
	encode(BS_REC_PUT, BS_KIND_SHARE, 3, 9, &count, sizeof(count));
	EXPECT_ERR(-EUCLEAN, decode(&rec));
	encode(BS_REC_PUT, BS_KIND_SHARE, 3, 9, &count, 4);
	EXPECT_ERR(-EUCLEAN, decode(&rec));
	encode(BS_REC_DEL, BS_KIND_SHARE, 3, 9, NULL, 0);
	EXPECT_ERR(-EUCLEAN, decode(&rec));
}

TEST(blob_record, runs_outside_the_store_or_out_of_order_are_refused)
{
	static const struct { uint64_t key, logical, phys, count; unsigned flags; bool ok; } one[] = {
		{ 5, 5, 100, 1, 0, true },
		{ 4, 5, 100, 1, 0, false },                        /* not its key */
		{ 5, 5, 0, 1, 0, false },                          /* the superblock */
		{ 5, 5, 100, 0, 0, false },                        /* empty */
		{ 5, 5, STORE - 1, 1, 0, true },
		{ 5, 5, STORE - 1, 2, 0, false },                  /* over the end */
		{ 5, 5, STORE, 1, 0, false },
		{ 5, 5, (1ull << 40) - 1, (1ull << 40) - 1, 0, false },
		{ (1ull << 40) - 1, (1ull << 40) - 1, 100, 1, 0, true },
		{ (1ull << 40) - 1, (1ull << 40) - 1, 100, 2, 0, false },
		{ 5, 5, 100, 1, BS_RUN_SHARED, true },
		{ 5, 5, 100, 1, BS_RUN_SHARED | BS_RUN_UNWRITTEN, false },
		{ 5, 5, 100, 1, BS_RUN_SUM, true },
		{ 5, 5, 100, 1, BS_RUN_SUM | BS_RUN_SHARED, true },
		{ 5, 5, 100, 1, BS_RUN_SUM | BS_RUN_UNWRITTEN, false },
		{ 5, 5, 100, 1, 0x80, false },
	};
	struct bs_run_disk d[2];
	struct bs_rec rec;

	for (size_t i = 0; i < ARRAY_SIZE(one); i++) {
		test_note("case %zu", i);
		put_run(d, one[i].logical, one[i].phys, one[i].count, one[i].flags);
		encode(BS_REC_PUT, BS_KIND_RUN, 3, one[i].key, d, sizeof(d[0]));
		EXPECT_EQ_INT(one[i].ok, decode(&rec) > 0);
	}
	test_note("%s", "");
	put_run(&d[0], 5, 100, 4, 0);
	put_run(&d[1], 8, 200, 4, 0);
	encode(BS_REC_PUT, BS_KIND_RUN, 3, 5, d, sizeof(d));
	EXPECT_ERR(-EUCLEAN, decode(&rec)); /* overlap */
	encode(BS_REC_PUT, BS_KIND_RUN, 3, 5, d, sizeof(d) - 1);
	EXPECT_ERR(-EUCLEAN, decode(&rec));
	encode(BS_REC_PUT, BS_KIND_RUN, 3, 5, d, 0);
	EXPECT_ERR(-EUCLEAN, decode(&rec));
}

TEST(blob_record, malformed_deletions_are_refused)
{
	le64 count = le64_make(0);
	struct bs_rec rec;

	encode(BS_REC_DEL, BS_KIND_RUN, 3, 5, &count, sizeof(count));
	EXPECT_ERR(-EUCLEAN, decode(&rec));
	count = le64_make(1ull << 40);
	encode(BS_REC_DEL, BS_KIND_RUN, 3, 0, &count, sizeof(count));
	EXPECT_GT_INT(decode(&rec), 0);
	encode(BS_REC_DEL, BS_KIND_RUN, 3, 1, &count, sizeof(count));
	EXPECT_ERR(-EUCLEAN, decode(&rec));
	encode(BS_REC_DEL, BS_KIND_RUN, 3, 1ull << 40, &count, sizeof(count));
	EXPECT_ERR(-EUCLEAN, decode(&rec));
	encode(BS_REC_DEL, BS_KIND_USER, 3, 1, "x", 1);
	EXPECT_ERR(-EUCLEAN, decode(&rec));
	encode(BS_REC_DEL_BLOB, BS_KIND_HEADER, 3, 1, NULL, 0);
	EXPECT_ERR(-EUCLEAN, decode(&rec));
	encode(BS_REC_DEL_BLOB, BS_KIND_HEADER, 3, 0, "x", 1);
	EXPECT_ERR(-EUCLEAN, decode(&rec));
}

TEST(blob_record, random_bytes_never_decode_to_something_unsafe)
{
	unsigned seed = 20260711;

	test_note("seed %u", seed);
	srandom(seed);
	for (int round = 0; round < 200000; round++) {
		struct bs_rec_disk *d = (struct bs_rec_disk *)buf;
		uint32_t len = (uint32_t)random() % 128;
		struct bs_rec rec;
		int size;

		for (uint32_t i = 0; i < len; i++)
			buf[i] = (uint8_t)(random() % 4 ? 0 : random());
		d->op = (uint8_t)(random() % 4);
		d->kind = (uint8_t)(random() % 3 ? random() % 2 : random() % 70);
		size = bs_rec_decode(buf, len, STORE, &rec);
		if (size < 0)
			continue;
		ASSERT_LE_INT(size, len);
		ASSERT_LE_INT(sizeof(*d) + rec.len, size);
		ASSERT_GT_INT(rec.blob, 0);
	}
}

TEST(blob_record, text_fits_whatever_the_buffer)
{
	struct bs_run_disk d[64];
	struct bs_rec rec;
	char text[200];

	for (unsigned i = 0; i < 64; i++)
		put_run(&d[i], 2 * i, 100 + 2 * i, 1, i & 1);
	encode(BS_REC_PUT, BS_KIND_RUN, 17, 0, d, sizeof(d));
	ASSERT_GT_INT(decode(&rec), 0);
	for (size_t len = 1; len <= sizeof(text); len++) {
		memset(text, 'x', sizeof(text));
		bs_rec_text(&rec, text, len);
		ASSERT_TRUE(memchr(text, '\0', len) != NULL);
	}
	put_run(d, 0, 4096, 8, 0);
	encode(BS_REC_PUT, BS_KIND_RUN, 17, 0, d, sizeof(d[0]));
	ASSERT_GT_INT(decode(&rec), 0);
	bs_rec_text(&rec, text, sizeof(text));
	EXPECT_STREQ("put run 17: 0+8 → 4096", text);
}
