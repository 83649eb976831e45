/* SPDX-License-Identifier: BSD-2-Clause */
/* The verbs of blobfs-nvme(8), and what they share. */
#ifndef TOOLS_NVME_VERB_H
#define TOOLS_NVME_VERB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "nvme/nvme.h"

struct json_object;

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct verb {
	const char *name, *args, *summary;
	const char *options;               /* help for each option, or NULL */
	int (*run)(int argc, char **argv); /* argv[0] is the verb; an exit code */
};
extern const struct verb verb_list, verb_identify, verb_smart, verb_errors, verb_perf;

/* ---- main.c ---- */
/* Says "verb: text" and where the help is; EXIT_USAGE. */
int usage_error(const struct verb *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* --help was given: prints it; EXIT_OK. */
int verb_help(const struct verb *v);
/* The options of a verb that has only DEVICE and --json; -1: go on, else the exit code. */
int parse_device(const struct verb *v, int argc, char **argv, const char **device, bool *json);

/* ---- device.c ---- */
/* "nvme:ADDRESS[/NSID][,timeout=SECONDS]" taken apart, or what is wrong with it. */
int device_split(const char *name, struct nvme_name *out, struct base_err *err);
/* Attaches for administration, or says why not: 0 or an exit code. */
int device_attach(const char *name, struct nvme_ctrlr **c, uint32_t *nsid);
/* Says what went wrong; EXIT_FAILED. */
int device_failed(const char *name, const char *what, int rc);

/* ---- fields.c: pages of a controller as tables of what is in them ---- */
enum field_kind {
	FIELD_DEC, /* little-endian, up to 8 bytes */
	FIELD_HEX,
	FIELD_BIG,  /* the same of 16 bytes, decimal */
	FIELD_TEXT, /* padded with blanks */
	FIELD_RAW,  /* bytes as hexadecimal digits */
};
struct field {
	const char *key;
	uint16_t offset, size;
	enum field_kind kind;
};
void fields_print(const struct field *f, size_t n, const void *page);
struct json_object *fields_json(const struct field *f, size_t n, const void *page);
/* A little-endian number of 16 bytes, as decimal digits. */
const char *big_text(const void *le, char buf[40]);
/* Prints the object and frees it: an exit code. */
int print_json(struct json_object *o);

#endif
