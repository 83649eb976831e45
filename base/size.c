/* SPDX-License-Identifier: BSD-2-Clause */
/* Sizes as people write and read them. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <strings.h>

#include "base/util.h"

static const char units[] = "KMGTPE";

/* Reads the unit at s: its shift into *shift. Accepts "", "B", "K", "KB", "KiB" and so on. */
static int parse_unit(const char *s, unsigned int *shift)
{
	unsigned int i;

	*shift = 0;
	if (!*s || !strcasecmp(s, "b"))
		return 0;
	for (i = 0; units[i]; i++) {
		if (toupper((unsigned char)*s) != units[i])
			continue;
		*shift = 10 * (i + 1);
		s++;
		return !*s || !strcasecmp(s, "b") || !strcasecmp(s, "ib") ? 0 : -EINVAL;
	}
	return -EINVAL;
}

/* Digits after the point as parts of a million millionths; further digits do not count. */
static uint64_t parse_fraction(const char **s)
{
	uint64_t value = 0, unit = 100000000000ull;

	for (; isdigit((unsigned char)**s); (*s)++) {
		value += (uint64_t)(**s - '0') * unit;
		unit /= 10;
	}
	return value;
}

int base_parse_size(const char *text, uint64_t *bytes)
{
	const char *s = text;
	uint64_t whole = 0, fraction = 0;
	unsigned __int128 result;
	unsigned int shift;
	bool overflow = false;
	int rc;

	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	for (; isdigit((unsigned char)*s); s++)
		overflow |= __builtin_mul_overflow(whole, 10u, &whole) ||
			    __builtin_add_overflow(whole, (unsigned int)(*s - '0'), &whole);
	if (*s == '.') {
		s++;
		if (!isdigit((unsigned char)*s))
			return -EINVAL;
		fraction = parse_fraction(&s);
	}
	rc = parse_unit(s, &shift);
	if (rc)
		return rc;
	if (fraction && !shift)
		return -EINVAL;
	result = ((unsigned __int128)whole << shift) +
		 (((unsigned __int128)fraction << shift) / 1000000000000ull);
	if (overflow || result > UINT64_MAX)
		return -ERANGE;
	*bytes = (uint64_t)result;
	return 0;
}

const char *base_format_size(uint64_t bytes, char *buf, size_t len)
{
	unsigned int shift = 0;
	uint64_t tenths;

	while (shift < 60 && bytes >> shift >= 1024)
		shift += 10;
	if (!shift) {
		snprintf(buf, len, "%" PRIu64 " B", bytes);
		return buf;
	}
	tenths = (uint64_t)((unsigned __int128)bytes * 10 >> shift);
	if (tenths % 10 || bytes & ((1ull << shift) - 1))
		snprintf(buf, len, "%" PRIu64 ".%" PRIu64 " %ciB", tenths / 10, tenths % 10,
			 units[shift / 10 - 1]);
	else
		snprintf(buf, len, "%" PRIu64 " %ciB", tenths / 10, units[shift / 10 - 1]);
	return buf;
}
