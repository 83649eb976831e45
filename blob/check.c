/* SPDX-License-Identifier: BSD-2-Clause */
/* Checking: recovery, read-only, with every problem reported instead of only the first. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "blob/device.h"

static void report(struct bs_reporter *r, const struct bs_place *place, const char *text)
{
	struct bs_problem p = { .pass = place->pass, .code = place->code, .blob = place->blob, .block = place->block };

	snprintf(p.text, sizeof(p.text), "%s", text);
	r->count++;
	if (r->fn)
		r->fn(&p, r->arg);
}

int bs_complain(struct bs *bs, struct base_err *err, const struct bs_place *place, const char *fmt, ...)
{
	char text[sizeof(((struct bs_problem *)0)->text)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (bs->reporter)
		report(bs->reporter, place, text);
	if (place->block == UINT64_MAX)
		return base_err_set(err, -EUCLEAN, "%s: %s: %s", bdev_info(bs->dev)->name, place->pass, text);
	return base_err_set(err, -EUCLEAN, "%s: %s: block %llu: %s", bdev_info(bs->dev)->name, place->pass,
			    (unsigned long long)place->block, text);
}

int bs_check(struct bdev *dev, bs_problem_fn fn, void *arg, struct bs **out, struct base_err *err)
{
	struct bs_reporter r = { .fn = fn, .arg = arg };
	struct base_err why = { "" };
	struct bs *bs = NULL;
	int rc = bs_open_checked(dev, &r, &bs, &why);

	if (out)
		*out = NULL;
	if (!rc && out)
		*out = bs;
	else if (!rc)
		bs_release(bs);
	if (rc == -EUCLEAN) {
		struct bs_place place = { .pass = "superblock", .code = "superblock-field", .block = 0 };

		if (!r.count)
			report(&r, &place, base_err_text(&why, rc));
		rc = 0;
	}
	if (rc)
		return base_err_set(err, rc, "%s", base_err_text(&why, rc));
	return r.count;
}
