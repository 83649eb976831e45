/* SPDX-License-Identifier: BSD-2-Clause */
/* Verbs that look: info, list, show. */
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <uuid/uuid.h>

#include "base/util.h"
#include "tools/blobcli/verb.h"

#define RUNS_SHOWN 100u /* without --json */

static void add_text(struct json_object *o, const char *key, const char *v)
{
	json_object_object_add(o, key, json_object_new_string(v));
}

int verb_info(struct cli *c, int argc, char **argv)
{
	char uuid[37], owner[17], size[32], free_size[32];
	struct json_object *o;
	struct bs_stat st;

	(void)argc, (void)argv;
	bs_get_stat(c->bs, &st);
	uuid_unparse(st.uuid, uuid);
	snprintf(owner, sizeof(owner), "%.16s", st.owner);
	if (!c->json) {
		printf("device     %s\nUUID       %s\nlabel      %s\nowner      %s\nsize       %s\nfree       %s\ncluster    %u\nblobs      %" PRIu64
		       "\nruns       %" PRIu64 "\nitems      %" PRIu64 "\nLSN        %" PRIu64 "\n",
		       c->device, uuid, st.label[0] ? st.label : "-", owner[0] ? owner : "-",
		       base_format_size(st.blocks * BS_BLOCK, size, sizeof(size)),
		       base_format_size(st.free_blocks * BS_BLOCK, free_size, sizeof(free_size)), st.cluster_size, st.blobs, st.runs,
		       st.items, st.lsn);
		return EXIT_OK;
	}
	o = json_object_new_object();
	add_text(o, "device", c->device);
	add_text(o, "uuid", uuid);
	add_text(o, "label", st.label);
	add_text(o, "owner", owner);
	cli_add(o, "size", st.blocks * BS_BLOCK);
	cli_add(o, "free", st.free_blocks * BS_BLOCK);
	cli_add(o, "available", st.avail_blocks * BS_BLOCK);
	cli_add(o, "used", st.used_blocks * BS_BLOCK);
	cli_add(o, "saved", st.saved_blocks * BS_BLOCK);
	cli_add(o, "cluster_size", st.cluster_size);
	cli_add(o, "blobs", st.blobs);
	cli_add(o, "runs", st.runs);
	cli_add(o, "items", st.items);
	cli_add(o, "next_id", st.next_id);
	cli_add(o, "lsn", st.lsn);
	return cli_print_json(o);
}

/* ---- list ---- */

struct lister {
	struct json_object *array; /* NULL: lines */
};

/* Bytes that are in the log and not home yet; no run tells of them. */
static uint64_t carried_bytes(struct bs_blob *blob)
{
	struct bs_carried_range r;
	uint64_t bytes = 0;

	for (uint64_t at = 0; bs_carried_next(blob, at, UINT64_MAX, &r); at = r.block + 1)
		bytes += r.to - r.from;
	return bytes;
}

static struct json_object *blob_json(const struct bs_blob_info *info, uint64_t carried)
{
	struct json_object *o = json_object_new_object();

	cli_add(o, "id", info->id);
	cli_add(o, "size", info->size);
	cli_add(o, "mapped", info->mapped_blocks * BS_BLOCK);
	cli_add(o, "carried", carried);
	cli_add(o, "runs", info->runs);
	cli_add(o, "items", info->items);
	json_object_object_add(o, "sealed", json_object_new_boolean(info->sealed));
	return o;
}

static int list_blob(struct bs_blob *blob, void *arg)
{
	struct lister *l = arg;
	uint64_t carried = carried_bytes(blob);
	struct bs_blob_info info;

	bs_blob_get_info(blob, &info);
	if (l->array)
		json_object_array_add(l->array, blob_json(&info, carried));
	else
		printf("%10" PRIu64 " %16" PRIu64 " %16" PRIu64 " %8" PRIu64 " %8" PRIu64 "%s%s\n", info.id, info.size,
		       info.mapped_blocks * BS_BLOCK, info.runs, info.items, info.sealed ? "  snapshot" : "",
		       carried ? "  bytes in the log" : "");
	return 0;
}

int verb_list(struct cli *c, int argc, char **argv)
{
	struct lister l = { .array = c->json ? json_object_new_array() : NULL };

	(void)argc, (void)argv;
	if (!c->json)
		printf("%10s %16s %16s %8s %8s\n", "ID", "SIZE", "MAPPED", "RUNS", "ITEMS");
	bs_foreach_blob(c->bs, 0, list_blob, &l);
	return c->json ? cli_print_json(l.array) : EXIT_OK;
}

/* ---- show ---- */

static void flags_text(uint32_t flags, char *out, size_t len)
{
	snprintf(out, len, "%s%s%s", flags & BS_RUN_UNWRITTEN ? " unwritten" : "", flags & BS_RUN_SHARED ? " shared" : "",
		 flags & BS_RUN_SUM ? " checksummed" : "");
}

static struct json_object *run_json(const struct bs_extent *e)
{
	struct json_object *o = json_object_new_object();

	cli_add(o, "block", e->block);
	cli_add(o, "device_block", e->phys);
	cli_add(o, "blocks", e->count);
	json_object_object_add(o, "unwritten", json_object_new_boolean(e->flags & BS_RUN_UNWRITTEN));
	json_object_object_add(o, "shared", json_object_new_boolean(e->flags & BS_RUN_SHARED));
	return o;
}

/* To the array, or as lines. */
static void show_runs(struct bs_blob *blob, uint64_t runs, struct json_object *array)
{
	const uint64_t end = CLI_SIZE_MAX / BS_BLOCK;
	uint64_t shown = 0;
	struct bs_extent e;
	char flags[64];

	for (uint64_t at = 0; at < end; at += e.count) {
		bs_map_lookup(blob, at, end - at, &e);
		if (e.flags & BS_RUN_HOLE)
			continue;
		if (array) {
			json_object_array_add(array, run_json(&e));
			continue;
		}
		if (shown++ == RUNS_SHOWN) {
			printf("  … of %" PRIu64 " runs; --json shows all\n", runs);
			return;
		}
		flags_text(e.flags, flags, sizeof(flags));
		printf("  %10" PRIu64 " + %-8" PRIu64 " at device block %" PRIu64 "%s\n", e.block, e.count, e.phys, flags);
	}
}

/* The same for what the log carries. */
static void show_carried(struct bs_blob *blob, struct json_object *array)
{
	struct bs_carried_range r;

	for (uint64_t at = 0; bs_carried_next(blob, at, UINT64_MAX, &r); at = r.block + 1) {
		struct json_object *o;

		if (!array) {
			printf("  %10" PRIu64 "            in the log, bytes %u to %u of it\n", r.block, r.from, r.to - 1);
			continue;
		}
		o = json_object_new_object();
		cli_add(o, "block", r.block);
		cli_add(o, "from", r.from);
		cli_add(o, "bytes", r.to - r.from);
		json_object_array_add(array, o);
	}
}

static void user_text(const struct bs_blob_info *info, char *out)
{
	for (uint32_t i = 0; i < info->user_len; i++)
		sprintf(out + 2 * (size_t)i, "%02x", info->user[i]);
	out[2 * (size_t)info->user_len] = '\0';
}

static int show_json(struct bs_blob *blob, const struct bs_blob_info *info, const struct bs_usage *use, const char *user)
{
	struct json_object *o = blob_json(info, carried_bytes(blob)), *runs = json_object_new_array(), *carried = json_object_new_array();

	cli_add(o, "exclusive", use->exclusive * BS_BLOCK);
	cli_add(o, "shared", use->shared * BS_BLOCK);
	cli_add(o, "lsn", info->lsn);
	add_text(o, "user", user);
	show_runs(blob, info->runs, runs);
	json_object_object_add(o, "map", runs);
	show_carried(blob, carried);
	json_object_object_add(o, "in_log", carried);
	return cli_print_json(o);
}

int verb_show(struct cli *c, int argc, char **argv)
{
	struct bs_blob *blob = cli_blob(c, argv[0]);
	char user[2 * BS_USER_MAX + 1];
	struct bs_blob_info info;
	struct bs_usage use;
	int rc = EXIT_OK;

	(void)argc;
	if (!blob)
		return EXIT_FAILED;
	bs_blob_get_info(blob, &info);
	bs_blob_get_usage(blob, &use);
	user_text(&info, user);
	if (c->json) {
		rc = show_json(blob, &info, &use, user);
	} else {
		printf("blob       %" PRIu64 "%s\nsize       %" PRIu64 "\nexclusive  %" PRIu64 "\nshared     %" PRIu64 "\ncarried    %" PRIu64
		       "\nitems      %" PRIu64 "\nLSN        %" PRIu64 "\nuser       %s\nruns       %" PRIu64 "\n",
		       info.id, info.sealed ? " (snapshot)" : "", info.size, use.exclusive * BS_BLOCK, use.shared * BS_BLOCK,
		       carried_bytes(blob), info.items, info.lsn, user[0] ? user : "-", info.runs);
		show_runs(blob, info.runs, NULL);
		show_carried(blob, NULL);
	}
	bs_blob_put(blob);
	return rc;
}
