/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Records: the language of log frames and checkpoint pages. What a record of each kind may look like stands in one
 * table, which recovery, checking and dumping share. A decoded record is safe to apply: its runs lie in the
 * store, its lengths are those of its kind.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "blob/internal.h"

#define BLOCK_LIMIT (1ull << BS_RUN_BITS)
/* What is unwritten has nothing to share, and no checksum. */
static bool run_flags_ok(unsigned flags)
{
	return flags == BS_RUN_UNWRITTEN || !(flags & ~(unsigned)(BS_RUN_SHARED | BS_RUN_SUM));
}

static uint64_t get40(const uint8_t *p)
{
	return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 | (uint64_t)p[4] << 32;
}

static void put40(uint8_t *p, uint64_t v)
{
	for (unsigned i = 0; i < 5; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

void bs_run_set(struct bs_run *r, uint64_t logical, uint64_t phys, uint64_t count, unsigned flags)
{
	r->logical = logical & (BLOCK_LIMIT - 1);
	r->phys_lo = phys & 0xffffff;
	r->phys_hi = (phys >> 24) & 0xffff;
	r->count = count & (BLOCK_LIMIT - 1);
	r->flags = flags & 0xff;
}

void bs_run_to_disk(const struct bs_run *r, struct bs_run_disk *d)
{
	put40(d->logical, r->logical);
	put40(d->phys, bs_run_phys(r));
	put40(d->count, r->count);
	d->flags = (uint8_t)r->flags;
}

void bs_run_from_disk(const struct bs_run_disk *d, struct bs_run *r)
{
	bs_run_set(r, get40(d->logical), get40(d->phys), get40(d->count), d->flags);
}

uint32_t bs_rec_encode(const struct bs_rec *rec, void *buf)
{
	struct bs_rec_disk *d = buf;
	uint32_t size = bs_rec_size(rec->len);
	uint8_t *value = (uint8_t *)buf + sizeof(*d);

	d->len = le32_make(rec->len);
	d->op = rec->op;
	d->kind = rec->kind;
	d->flags = rec->flags;
	d->zero = 0;
	d->blob = le64_make(rec->blob);
	d->key = le64_make(rec->key);
	if (rec->len)
		memcpy(value, rec->value, rec->len);
	memset(value + rec->len, 0, size - sizeof(*d) - rec->len);
	return size;
}

/* ---- what a record of each kind looks like ---- */

static bool header_put_ok(const struct bs_rec *rec, uint64_t blocks)
{
	const struct bs_header_disk *h = rec->value;

	(void)blocks;
	if (rec->key || rec->len < sizeof(*h))
		return false;
	return le64_get(h->size) <= BLOCK_LIMIT * BS_BLOCK && !(le32_get(h->flags) & ~(uint32_t)BS_HEADER_SEALED) &&
	       le32_get(h->user_len) <= BS_USER_MAX && rec->len == sizeof(*h) + le32_get(h->user_len);
}

static bool run_put_ok(const struct bs_rec *rec, uint64_t blocks)
{
	const struct bs_run_disk *d = rec->value;
	uint64_t n = rec->len / sizeof(*d), next = rec->key;

	if (!n || rec->len % sizeof(*d) || get40(d->logical) != rec->key)
		return false;
	for (; n; n--, d++) {
		uint64_t logical = get40(d->logical), phys = get40(d->phys), count = get40(d->count);

		if (logical < next || !count || count > BLOCK_LIMIT - logical || !run_flags_ok(d->flags))
			return false;
		if (!phys || phys >= blocks || count > blocks - phys)
			return false;
		next = logical + count;
	}
	return true;
}

static bool run_range_ok(const struct bs_rec *rec, uint64_t blocks)
{
	uint64_t count;

	(void)blocks;
	if (rec->len != sizeof(le64) || rec->key >= BLOCK_LIMIT)
		return false;
	count = le64_get(*(const le64 *)rec->value);
	return count && count <= BLOCK_LIMIT - rec->key;
}

static bool carried_put_ok(const struct bs_rec *rec, uint64_t blocks)
{
	const struct bs_carried_disk *d = rec->value;
	uint32_t from;

	(void)blocks;
	if (rec->len <= sizeof(*d) || rec->len > sizeof(*d) + BS_BLOCK || rec->key >= BLOCK_LIMIT)
		return false;
	from = le32_get(d->from);
	return !le32_get(d->zero) && from < BS_BLOCK && rec->len - sizeof(*d) <= BS_BLOCK - from;
}

static bool sums_put_ok(const struct bs_rec *rec, uint64_t blocks)
{
	uint64_t n = rec->len / sizeof(le32);

	return n && rec->len % sizeof(le32) == 0 && n <= BS_SUM_PAGE && rec->key < blocks && n <= blocks - rec->key;
}

static bool item_put_ok(const struct bs_rec *rec, uint64_t blocks)
{
	(void)blocks;
	return rec->len <= BS_VALUE_MAX;
}

static bool empty_ok(const struct bs_rec *rec, uint64_t blocks)
{
	(void)blocks;
	return !rec->len;
}

static bool blob_del_ok(const struct bs_rec *rec, uint64_t blocks)
{
	(void)blocks;
	return !rec->len && !rec->key;
}

typedef bool (*shape_fn)(const struct bs_rec *rec, uint64_t blocks);

/* Every kind has its shape; the others are nobody's. */
static const struct {
	uint8_t op, kind_first, kind_last;
	shape_fn ok;
} shapes[] = {
	{ BS_REC_PUT, BS_KIND_HEADER, BS_KIND_HEADER, header_put_ok },
	{ BS_REC_PUT, BS_KIND_RUN, BS_KIND_RUN, run_put_ok },
	{ BS_REC_DEL, BS_KIND_RUN, BS_KIND_RUN, run_range_ok },
	{ BS_REC_PUT, BS_KIND_SHARE, BS_KIND_SHARE, run_range_ok },
	{ BS_REC_PUT, BS_KIND_LOGDATA, BS_KIND_LOGDATA, carried_put_ok },
	{ BS_REC_DEL, BS_KIND_LOGDATA, BS_KIND_LOGDATA, run_range_ok },
	{ BS_REC_PUT, BS_KIND_SUM, BS_KIND_SUM, sums_put_ok },
	{ BS_REC_DEL, BS_KIND_SUM, BS_KIND_SUM, run_range_ok },
	{ BS_REC_PUT, BS_KIND_USER, BS_KIND_MAX, item_put_ok },
	{ BS_REC_DEL, BS_KIND_USER, BS_KIND_MAX, empty_ok },
	{ BS_REC_DEL_BLOB, BS_KIND_HEADER, BS_KIND_HEADER, blob_del_ok },
};

static shape_fn shape_of(unsigned op, unsigned kind)
{
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		if (shapes[i].op == op && kind >= shapes[i].kind_first && kind <= shapes[i].kind_last)
			return shapes[i].ok;
	return NULL;
}

int bs_rec_decode(const void *buf, uint32_t len, uint64_t blocks, struct bs_rec *rec)
{
	const struct bs_rec_disk *d = buf;
	shape_fn ok;
	uint32_t size;

	if (len < sizeof(*d) || le32_get(d->len) > BS_VALUE_MAX)
		return -EUCLEAN;
	size = bs_rec_size(le32_get(d->len));
	if (size > len)
		return -EUCLEAN;
	rec->op = d->op;
	rec->kind = d->kind;
	rec->flags = d->flags;
	rec->len = le32_get(d->len);
	rec->blob = le64_get(d->blob);
	rec->key = le64_get(d->key);
	rec->value = d + 1;
	ok = shape_of(rec->op, rec->kind);
	if (!ok || d->zero || (rec->flags & ~(unsigned)BS_REC_END))
		return -EUCLEAN;
	if (!rec->blob || rec->blob > BS_ID_MAX || !ok(rec, blocks))
		return -EUCLEAN;
	for (const uint8_t *p = (const uint8_t *)rec->value + rec->len; p < (const uint8_t *)buf + size; p++)
		if (*p)
			return -EUCLEAN;
	return (int)size;
}

int bs_rec_skip(const void *buf, uint32_t len)
{
	const struct bs_rec_disk *d = buf;

	if (len < sizeof(*d) || le32_get(d->len) > BS_VALUE_MAX || bs_rec_size(le32_get(d->len)) > len)
		return -EUCLEAN;
	return (int)bs_rec_size(le32_get(d->len));
}

/* ---- text ---- */

static size_t run_text(const struct bs_rec *rec, char *buf, size_t len)
{
	const struct bs_run_disk *d = rec->value;
	uint32_t n = rec->len / (uint32_t)sizeof(*d);
	size_t used = 0;

	for (uint32_t i = 0; i < n && used < len; i++, d++)
		used += (size_t)snprintf(buf + used, len - used, "%s%" PRIu64 "+%" PRIu64 " → %" PRIu64 "%s%s", i ? ", " : "",
					 get40(d->logical), get40(d->count), get40(d->phys),
					 d->flags == BS_RUN_UNWRITTEN ? " unwritten" :
					 d->flags & BS_RUN_SHARED     ? " shared" : "",
					 d->flags & BS_RUN_SUM ? " summed" : "");
	return used;
}

static void carried_text(const struct bs_rec *rec, const char *verb, char *buf, size_t len)
{
	const struct bs_carried_disk *d = rec->value;

	if (rec->op == BS_REC_PUT && rec->len > sizeof(*d))
		snprintf(buf, len, "%s carried %" PRIu64 ": block %" PRIu64 ", bytes %u+%u", verb, rec->blob, rec->key,
			 le32_get(d->from), rec->len - (uint32_t)sizeof(*d));
	else if (rec->op == BS_REC_DEL && rec->len == sizeof(le64))
		snprintf(buf, len, "%s carried %" PRIu64 ": %" PRIu64 "+%" PRIu64, verb, rec->blob, rec->key,
			 le64_get(*(const le64 *)rec->value));
}

void bs_rec_text(const struct bs_rec *rec, char *buf, size_t len)
{
	const char *verb = rec->op == BS_REC_PUT ? "put" : rec->op == BS_REC_DEL ? "del" : "delete blob";
	int n;

	if (rec->op == BS_REC_DEL_BLOB) {
		snprintf(buf, len, "%s %" PRIu64, verb, rec->blob);
		return;
	}
	if (rec->kind == BS_KIND_HEADER && rec->len >= sizeof(struct bs_header_disk)) {
		const struct bs_header_disk *h = rec->value;

		snprintf(buf, len, "%s header %" PRIu64 ": size %" PRIu64 ", %u user bytes%s", verb, rec->blob,
			 le64_get(h->size), le32_get(h->user_len), le32_get(h->flags) & BS_HEADER_SEALED ? ", sealed" : "");
		return;
	}
	if (rec->kind == BS_KIND_SHARE && rec->len == sizeof(le64)) {
		snprintf(buf, len, "share %" PRIu64 ": %" PRIu64 "+%" PRIu64, rec->blob, rec->key,
			 le64_get(*(const le64 *)rec->value));
		return;
	}
	if (rec->kind == BS_KIND_LOGDATA) {
		carried_text(rec, verb, buf, len);
		return;
	}
	if (rec->kind == BS_KIND_SUM) {
		snprintf(buf, len, "%s sums: %" PRIu64 "+%" PRIu64, verb, rec->key,
			 rec->op == BS_REC_PUT ? rec->len / (uint64_t)sizeof(le32) : le64_get(*(const le64 *)rec->value));
		return;
	}
	if (rec->kind != BS_KIND_RUN) {
		snprintf(buf, len, "%s item %" PRIu64 " kind %u key %" PRIu64 ": %u bytes", verb, rec->blob, rec->kind,
			 rec->key, rec->len);
		return;
	}
	n = snprintf(buf, len, "%s run %" PRIu64 ": ", verb, rec->blob);
	if (n < 0 || (size_t)n >= len)
		return;
	if (rec->op == BS_REC_PUT)
		run_text(rec, buf + n, len - (size_t)n);
	else if (rec->len == sizeof(le64))
		snprintf(buf + n, len - (size_t)n, "%" PRIu64 "+%" PRIu64, rec->key, le64_get(*(const le64 *)rec->value));
}
