/* SPDX-License-Identifier: BSD-2-Clause */
/* Verbs that make, copy and remove whole blobs. Each is one transaction, durable when it says so. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "tools/blobcli/verb.h"
#include "tools/common/common.h"

static int say_ids(const struct cli *c, const uint64_t *id, int n, bool list)
{
	struct json_object *o, *array;

	if (!c->json) {
		for (int i = 0; i < n; i++)
			printf("%" PRIu64 "\n", id[i]);
		return EXIT_OK;
	}
	o = json_object_new_object();
	if (!list) {
		cli_add(o, "id", id[0]);
		return cli_print_json(o);
	}
	array = json_object_new_array();
	for (int i = 0; i < n; i++)
		json_object_array_add(array, json_object_new_uint64(id[i]));
	json_object_object_add(o, "ids", array);
	return cli_print_json(o);
}

static int make_blob(struct cli *c, uint64_t size, uint64_t *id)
{
	struct bs_blob *blob;
	struct bs_txn *txn;
	int rc = bs_txn_begin(c->bs, 0, &txn);

	if (rc)
		return rc;
	rc = bs_txn_create(txn, 0, NULL, 0, &blob);
	if (!rc)
		rc = bs_txn_header(txn, blob, size, NULL, 0);
	if (rc) {
		bs_txn_cancel(txn);
		return rc;
	}
	*id = bs_blob_id(blob);
	rc = cli_commit(c, txn);
	bs_blob_put(blob);
	return rc;
}

static int size_arg(const struct cli *c, const char *text, uint64_t *size)
{
	if (tool_size("size", text, size))
		return EXIT_USAGE;
	if (*size <= CLI_SIZE_MAX)
		return EXIT_OK;
	cli_error(c, "size %s is too large: a blob has at most 4096T", text);
	return EXIT_USAGE;
}

int verb_create(struct cli *c, int argc, char **argv)
{
	uint64_t size = 0, id;
	int rc = argc ? size_arg(c, argv[0], &size) : EXIT_OK;

	if (rc)
		return rc;
	rc = make_blob(c, size, &id);
	return rc ? cli_fail(c, 0, rc) : say_ids(c, &id, 1, false);
}

int verb_resize(struct cli *c, int argc, char **argv)
{
	struct bs_blob *blob;
	uint64_t size;
	int rc = size_arg(c, argv[1], &size);

	(void)argc;
	if (rc)
		return rc;
	blob = cli_blob(c, argv[0]);
	if (!blob)
		return EXIT_FAILED;
	rc = cli_resize(c, blob, size);
	if (rc)
		rc = cli_fail(c, bs_blob_id(blob), rc);
	bs_blob_put(blob);
	return rc;
}

/* ---- many at once ---- */

static void put_blobs(struct bs_blob **blob, int n)
{
	for (int i = 0; blob && i < n; i++)
		bs_blob_put(blob[i]);
	free(blob);
}

/* NULL: something was said. */
static struct bs_blob **get_blobs(struct cli *c, int n, char **name)
{
	struct bs_blob **blob = calloc((size_t)n, sizeof(*blob));

	if (!blob) {
		cli_error(c, "%s", strerror(ENOMEM));
		return NULL;
	}
	for (int i = 0; i < n; i++) {
		blob[i] = cli_blob(c, name[i]);
		for (int k = 0; k < i && blob[i]; k++) {
			if (blob[k] != blob[i])
				continue;
			cli_error(c, "blob %s is given twice", name[i]);
			bs_blob_put(blob[i]);
			blob[i] = NULL;
		}
		if (!blob[i]) {
			put_blobs(blob, i);
			return NULL;
		}
	}
	return blob;
}

static int copy(struct cli *c, int n, char **name, bool sealed)
{
	struct bs_blob **blob = get_blobs(c, n, name);
	uint64_t *id;
	int rc;

	if (!blob)
		return EXIT_FAILED;
	id = calloc((size_t)n, sizeof(*id));
	rc = id ? 0 : -ENOMEM;
	for (int i = 0; i < n && !rc; i++)
		rc = cli_write_home(c, blob[i]);
	if (!rc)
		rc = bs_snapshot(c->bs, blob, (uint64_t)n, sealed, id);
	if (!rc)
		rc = bs_commit(c->bs, 0);
	rc = rc ? cli_fail(c, n == 1 ? bs_blob_id(blob[0]) : 0, rc) : say_ids(c, id, n, true);
	put_blobs(blob, n);
	free(id);
	return rc;
}

int verb_snapshot(struct cli *c, int argc, char **argv)
{
	return copy(c, argc, argv, true);
}

int verb_clone(struct cli *c, int argc, char **argv)
{
	return copy(c, argc, argv, false);
}

static int delete(struct cli *c, struct bs_blob **blob, int n)
{
	struct bs_txn *txn;
	int rc = bs_txn_begin(c->bs, BS_TXN_FREES, &txn);

	for (int i = 0; i < n && !rc; i++) {
		rc = bs_txn_delete(txn, blob[i]);
		if (rc)
			bs_txn_cancel(txn);
	}
	if (!rc)
		rc = cli_commit(c, txn);
	return rc ? cli_fail(c, 0, rc) : EXIT_OK;
}

int verb_delete(struct cli *c, int argc, char **argv)
{
	struct bs_blob **blob = get_blobs(c, argc, argv);
	int rc;

	if (!blob)
		return EXIT_FAILED;
	rc = delete(c, blob, argc);
	put_blobs(blob, argc);
	return rc;
}

/* ---- import ---- */

int verb_import(struct cli *c, int argc, char **argv)
{
	struct bs_blob *blob;
	uint64_t id;
	int rc, fd;

	(void)argc;
	fd = cli_open_source(c, argv[0]);
	if (fd < 0)
		return EXIT_FAILED;
	rc = make_blob(c, 0, &id);
	if (rc) {
		cli_close_file(fd);
		return cli_fail(c, 0, rc);
	}
	blob = bs_blob_get(c->bs, id);
	rc = cli_copy_in(c, blob, fd, argv[0], 0, true);
	cli_close_file(fd);
	if (rc)
		delete(c, &blob, 1); /* what is not there whole is not left behind */
	bs_blob_put(blob);
	return rc ? rc : say_ids(c, &id, 1, false);
}
