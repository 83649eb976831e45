/* SPDX-License-Identifier: BSD-2-Clause */
/* One line about what went wrong. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"

int base_err_set(struct base_err *err, int rc, const char *fmt, ...)
{
	va_list ap;
	char *p;

	if (!err)
		return rc;
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	/* Names and disk content may carry anything: it stays one line and harms no terminal. */
	for (p = err->text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	return rc;
}

const char *base_err_text(const struct base_err *err, int rc)
{
	static _Thread_local char text[128];

	if (err && err->text[0])
		return err->text;
	/* The GNU strerror_r may answer with a constant of its own instead of filling text. */
	return strerror_r(rc < 0 ? -rc : rc, text, sizeof(text));
}
