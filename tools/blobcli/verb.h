/* SPDX-License-Identifier: BSD-2-Clause */
/* blobcli: blobs of a store by hand. A verb is one function on an open store; the table in verbs.c names them. */
#ifndef TOOLS_BLOBCLI_VERB_H
#define TOOLS_BLOBCLI_VERB_H

#include <stdbool.h>
#include <stdint.h>

#include "blob/blob.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

#define CLI_OWNER "blobcli" /* of stores that init makes */
#define CLI_WORDS 64
#define CLI_SIZE_MAX (1ull << 52) /* of a blob, as the format has it */

/* An open store and how it was asked for. */
struct cli {
	const char *device;
	struct bs *bs;
	uint8_t *buf;       /* BS_IO_MAX bytes for I/O */
	bool readonly;      /* opened for reading only */
	const char *why;    /* readonly: why nothing can be written */
	bool shell;         /* standard input holds commands */
	unsigned line;      /* of the commands, when nobody types them; else 0 */
	bool json;          /* of the present call */
};

struct verb {
	const char *name;    /* one word or two */
	const char *args;
	const char *summary;
	int min_args, max_args; /* max -1: any */
	bool writes, json;
	int (*run)(struct cli *c, int argc, char **argv);
};

struct options {
	bool json, force, readonly, help, version;
};

/* ---- verbs.c ---- */

/* Takes options out of words, up to "--". Says what is wrong and returns EXIT_USAGE, or 0; *n is what is left. */
int cli_options(struct cli *c, char **word, int *n, struct options *opt);
/* Runs one command; the words are a verb and its arguments. */
int cli_run(struct cli *c, int n, char **word);
/* The verb these words begin with and of how many words its name is; NULL. */
const struct verb *cli_find(int n, char **word, int *used);
const struct verb *cli_verb(unsigned i); /* the ith; NULL past the last */
int cli_help(struct cli *c, int n, char **word);
/* "blobcli: [line N: ]text". */
void cli_error(const struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same for an error number of the store, in words that fit it; returns EXIT_FAILED. blob 0: none. */
int cli_fail(const struct cli *c, uint64_t blob, int rc);

/* ---- store.c ---- */

/* Opens c->device; force: may write to a store that is another program's. EXIT_OK, or says why not. */
int cli_open(struct cli *c, const struct options *opt, bool to_write);
int cli_close(struct cli *c);
/* Makes a store; argv[0]: size of a file to be made. */
int cli_init(struct cli *c, const struct options *opt, int argc, char **argv);

/* ---- shell.c ---- */

int cli_shell(struct cli *c);
/* Cuts a line into words as a shell would: blanks, quotes, backslash, # for the rest. The words lie in line. Number of words, or -1 with
 * what is wrong in *why. */
int cli_split(char *line, char **word, int max, const char **why);

/* ---- io.c: bytes of blobs, in blocks ---- */

/* The blob a person named, counted; NULL after having said what is wrong. */
struct bs_blob *cli_blob(const struct cli *c, const char *text);
/* Into c->buf + the result, which is at least 0: at most BS_IO_MAX - BS_BLOCK bytes. Negative errno. */
int cli_pread(struct cli *c, struct bs_blob *blob, uint64_t at, uint32_t len);
/* Within the blob's size; not durable. data is not in c->buf. */
int cli_pwrite(struct cli *c, struct bs_blob *blob, const uint8_t *data, uint64_t at, uint64_t len);
/* What the log carries for the blob gets places of its own: only those can be shared. */
int cli_write_home(struct cli *c, struct bs_blob *blob);
/* Durable. What a larger size brings to light is zeroes. */
int cli_resize(struct cli *c, struct bs_blob *blob, uint64_t size);
/* Ends the transaction and waits until it is durable. */
int cli_commit(struct cli *c, struct bs_txn *txn);

/* ---- data.c ---- */

/* A file to read from, "-" for standard input; -1 after having said what is wrong. */
int cli_open_source(const struct cli *c, const char *path);
void cli_close_file(int fd);
/* All that comes from fd, into the blob from `at` on, durable. fresh: the blob is empty, and a file's holes stay holes. EXIT_OK, or says what
 * is wrong. */
int cli_copy_in(struct cli *c, struct bs_blob *blob, int fd, const char *path, uint64_t at, bool fresh);

/* ---- the verbs ---- */

int verb_info(struct cli *c, int argc, char **argv);
int verb_list(struct cli *c, int argc, char **argv);
int verb_show(struct cli *c, int argc, char **argv);
int verb_create(struct cli *c, int argc, char **argv);
int verb_resize(struct cli *c, int argc, char **argv);
int verb_snapshot(struct cli *c, int argc, char **argv);
int verb_clone(struct cli *c, int argc, char **argv);
int verb_delete(struct cli *c, int argc, char **argv);
int verb_read(struct cli *c, int argc, char **argv);
int verb_write(struct cli *c, int argc, char **argv);
int verb_import(struct cli *c, int argc, char **argv);
int verb_export(struct cli *c, int argc, char **argv);
int verb_xattr_get(struct cli *c, int argc, char **argv);
int verb_xattr_set(struct cli *c, int argc, char **argv);
int verb_xattr_list(struct cli *c, int argc, char **argv);
int verb_xattr_remove(struct cli *c, int argc, char **argv);

struct json_object;
/* Prints a JSON value and frees it. EXIT_OK or EXIT_FAILED. */
int cli_print_json(struct json_object *o);
void cli_add(struct json_object *o, const char *key, uint64_t v);

#endif
