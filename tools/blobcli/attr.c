/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Attributes of blobs: items of a kind of their own, whose value is the length of the name (1 byte), the name, and the attribute's
 * bytes. It is also how a BlobFS keeps its extended attributes, so those can be read; the keys there are that file system's business.
 */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "tools/blobcli/verb.h"

#define KIND (BS_KIND_USER + 2)
#define NAME_MAX_LEN 255u
#define VALUE_MAX 65000u

struct attr {
	uint64_t key;
	uint32_t len; /* of the whole item */
	uint8_t *item;
};

struct search {
	const char *name;
	struct attr found;
	int rc;
};

static bool is_attr(const uint8_t *item, uint32_t len)
{
	return len >= 2 && item[0] && item[0] < len;
}

static int match(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct search *s = arg;
	const uint8_t *item = value;

	if (!is_attr(item, len) || item[0] != strlen(s->name) || memcmp(item + 1, s->name, item[0]))
		return 0;
	s->found = (struct attr){ .key = key, .len = len, .item = malloc(len) };
	if (s->found.item)
		memcpy(s->found.item, item, len);
	else
		s->rc = -ENOMEM;
	return 1;
}

/* found->item is to be freed. -ENODATA: there is none. */
static int find(struct bs_blob *blob, const char *name, struct attr *found)
{
	struct search s = { .name = name };

	if (!bs_item_scan(blob, KIND, 0, match, &s))
		return -ENODATA;
	*found = s.found;
	return s.rc;
}

static int fail(const struct cli *c, struct bs_blob *blob, const char *name, int rc)
{
	if (rc != -ENODATA)
		return cli_fail(c, bs_blob_id(blob), rc);
	cli_error(c, "blob %" PRIu64 " has no attribute '%s'", bs_blob_id(blob), name);
	return EXIT_FAILED;
}

int verb_xattr_get(struct cli *c, int argc, char **argv)
{
	struct bs_blob *blob = cli_blob(c, argv[0]);
	struct json_object *o;
	const char *value;
	struct attr a;
	int rc, len;

	(void)argc;
	if (!blob)
		return EXIT_FAILED;
	rc = find(blob, argv[1], &a);
	if (rc) {
		rc = fail(c, blob, argv[1], rc);
		bs_blob_put(blob);
		return rc;
	}
	value = (const char *)a.item + 1 + a.item[0];
	len = (int)(a.len - 1 - a.item[0]);
	if (c->json) {
		o = json_object_new_object();
		json_object_object_add(o, "name", json_object_new_string(argv[1]));
		json_object_object_add(o, "value", json_object_new_string_len(value, len));
		rc = cli_print_json(o);
	} else {
		fwrite(value, 1, (size_t)len, stdout);
		if (c->shell || isatty(STDOUT_FILENO))
			putchar('\n');
	}
	free(a.item);
	bs_blob_put(blob);
	return rc;
}

/* ---- list ---- */

static int list_one(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct json_object *array = arg, *o;
	const uint8_t *item = value;
	int name_len;

	(void)key;
	if (!is_attr(item, len))
		return 0;
	name_len = item[0];
	if (!array) {
		printf("%.*s\n", name_len, (const char *)item + 1);
		return 0;
	}
	o = json_object_new_object();
	json_object_object_add(o, "name", json_object_new_string_len((const char *)item + 1, name_len));
	cli_add(o, "size", len - 1u - item[0]);
	json_object_array_add(array, o);
	return 0;
}

int verb_xattr_list(struct cli *c, int argc, char **argv)
{
	struct bs_blob *blob = cli_blob(c, argv[0]);
	struct json_object *array = c->json ? json_object_new_array() : NULL;

	(void)argc;
	if (!blob) {
		json_object_put(array);
		return EXIT_FAILED;
	}
	bs_item_scan(blob, KIND, 0, list_one, array);
	bs_blob_put(blob);
	return array ? cli_print_json(array) : EXIT_OK;
}

/* ---- set, remove ---- */

/* A key that no other attribute of the blob has. */
static uint64_t new_key(struct bs_blob *blob, const char *name)
{
	uint64_t key = 0xcbf29ce484222325ull;

	for (; *name; name++)
		key = (key ^ (uint8_t)*name) * 0x100000001b3ull;
	while (bs_item_get(blob, KIND, key, NULL, 0) >= 0)
		key++;
	return key;
}

static int put(struct cli *c, struct bs_blob *blob, uint64_t key, const void *item, uint32_t len)
{
	struct bs_txn *txn;
	int rc = bs_txn_begin(c->bs, item ? 0 : BS_TXN_FREES, &txn);

	if (rc)
		return rc;
	rc = item ? bs_txn_put(txn, blob, KIND, key, item, len) : bs_txn_del(txn, blob, KIND, key);
	if (!rc)
		return cli_commit(c, txn);
	bs_txn_cancel(txn);
	return rc;
}

static int set(struct cli *c, struct bs_blob *blob, const char *name, const char *value)
{
	size_t name_len = strlen(name), value_len = strlen(value);
	uint8_t *item = malloc(1 + name_len + value_len);
	struct attr old = { .key = 0 };
	int rc = item ? find(blob, name, &old) : -ENOMEM;

	if (rc == -ENODATA) {
		old.key = new_key(blob, name);
		rc = 0;
	}
	if (!rc) {
		item[0] = (uint8_t)name_len;
		memcpy(item + 1, name, name_len);
		memcpy(item + 1 + name_len, value, value_len);
		rc = put(c, blob, old.key, item, (uint32_t)(1 + name_len + value_len));
	}
	free(old.item);
	free(item);
	return rc;
}

/* A file system finds a name by a key that only it can make. */
static bool may_name(const struct cli *c, struct bs_blob *blob, const char *name)
{
	struct attr old;
	struct bs_stat st;

	bs_get_stat(c->bs, &st);
	if (strncmp(st.owner, "blobfs", sizeof(st.owner)))
		return true;
	if (find(blob, name, &old))
		return false;
	free(old.item);
	return true;
}

int verb_xattr_set(struct cli *c, int argc, char **argv)
{
	struct bs_blob *blob;
	int rc;

	(void)argc;
	if (!argv[1][0] || strlen(argv[1]) > NAME_MAX_LEN || strlen(argv[2]) > VALUE_MAX) {
		cli_error(c, "a name has 1 to %u bytes, a value at most %u", NAME_MAX_LEN, VALUE_MAX);
		return EXIT_USAGE;
	}
	blob = cli_blob(c, argv[0]);
	if (!blob)
		return EXIT_FAILED;
	if (may_name(c, blob, argv[1])) {
		rc = set(c, blob, argv[1], argv[2]);
		rc = rc ? cli_fail(c, bs_blob_id(blob), rc) : EXIT_OK;
	} else {
		cli_error(c, "in a BlobFS an attribute can be changed here, not made: mount it");
		rc = EXIT_FAILED;
	}
	bs_blob_put(blob);
	return rc;
}

int verb_xattr_remove(struct cli *c, int argc, char **argv)
{
	struct bs_blob *blob = cli_blob(c, argv[0]);
	struct attr a;
	int rc;

	(void)argc;
	if (!blob)
		return EXIT_FAILED;
	rc = find(blob, argv[1], &a);
	if (!rc) {
		free(a.item);
		rc = put(c, blob, a.key, NULL, 0);
	}
	rc = rc ? fail(c, blob, argv[1], rc) : EXIT_OK;
	bs_blob_put(blob);
	return rc;
}
