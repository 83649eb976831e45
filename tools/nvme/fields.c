/* SPDX-License-Identifier: BSD-2-Clause */
#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "tools/nvme/verb.h"

static uint64_t number(const struct field *f, const void *page)
{
	uint64_t v = 0;

	memcpy(&v, (const char *)page + f->offset, MIN(f->size, sizeof(v)));
	return v;
}

const char *big_text(const void *le, char buf[40])
{
	unsigned __int128 v;
	char *p = buf + 39;

	memcpy(&v, le, sizeof(v));
	*p = '\0';
	do {
		*--p = (char)('0' + (int)(v % 10));
		v /= 10;
	} while (v);
	return p;
}

/* What a controller says is not to be trusted with a terminal. */
static void copy_text(char *to, const char *from, size_t len)
{
	size_t end = 0;

	for (size_t i = 0; i < len; i++) {
		to[i] = from[i] >= ' ' && from[i] < 127 ? from[i] : ' ';
		if (to[i] != ' ')
			end = i + 1;
	}
	to[end] = '\0';
}

static const char *as_text(const struct field *f, const void *page, char *buf, size_t len)
{
	const uint8_t *p = (const uint8_t *)page + f->offset;

	switch (f->kind) {
	case FIELD_DEC:
		snprintf(buf, len, "%" PRIu64, number(f, page));
		break;
	case FIELD_HEX:
		snprintf(buf, len, "%#" PRIx64, number(f, page));
		break;
	case FIELD_BIG:
		return big_text(p, buf);
	case FIELD_TEXT:
		copy_text(buf, (const char *)p, MIN(f->size, len - 1));
		break;
	case FIELD_RAW:
		for (size_t i = 0; i < f->size && 2 * i + 3 <= len; i++)
			snprintf(buf + 2 * i, 3, "%02x", p[i]);
		break;
	}
	return buf;
}

void fields_print(const struct field *f, size_t n, const void *page)
{
	char buf[300];

	for (size_t i = 0; i < n; i++)
		printf("%-24s: %s\n", f[i].key, as_text(&f[i], page, buf, sizeof(buf)));
}

struct json_object *fields_json(const struct field *f, size_t n, const void *page)
{
	struct json_object *o = json_object_new_object();
	char buf[300];

	for (size_t i = 0; i < n; i++) {
		const char *text = as_text(&f[i], page, buf, sizeof(buf));
		bool fits = f[i].kind == FIELD_BIG && strlen(text) < 20;

		if (f[i].kind == FIELD_DEC || f[i].kind == FIELD_HEX)
			json_object_object_add(o, f[i].key,
					       json_object_new_uint64(number(&f[i], page)));
		else if (fits)
			json_object_object_add(o, f[i].key,
					       json_object_new_uint64(strtoull(text, NULL, 10)));
		else
			json_object_object_add(o, f[i].key, json_object_new_string(text));
	}
	return o;
}

int print_json(struct json_object *o)
{
	const char *text = json_object_to_json_string_ext(
		o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE);
	int rc = text && puts(text) >= 0 ? EXIT_OK : EXIT_FAILED;

	json_object_put(o);
	return rc;
}
