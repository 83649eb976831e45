/* SPDX-License-Identifier: BSD-2-Clause */
/* blobfs dump: the structures on a device as they are, damaged or not. What is printed is described once, as JSON; text follows from that. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <uuid/uuid.h>

#include "base/util.h"
#include "bdev/wrap.h"
#include "blob/format.h"
#include "tools/blobfs/verb.h"
#include "tools/common/common.h"

struct dump {
	const struct call *call;
	bool records;         /* all of them */
	uint64_t blob;        /* only this one's; 0: any */
	uint64_t blocks;      /* size of the store */
	bool any;
	struct json_object *list; /* of records, while a piece is looked at */
};

static void add_u64(struct json_object *o, const char *name, uint64_t v)
{
	json_object_object_add(o, name, json_object_new_uint64(v));
}

static void add_text(struct json_object *o, const char *name, const char *text)
{
	json_object_object_add(o, name, json_object_new_string(text));
}

static void add_uuid(struct json_object *o, const char *name, const uint8_t *uuid)
{
	char text[37];

	uuid_unparse(uuid, text);
	add_text(o, name, text);
}

/* Bytes that should be text, of a fixed length and perhaps without an end. */
static void add_chars(struct json_object *o, const char *name, const char *s, size_t len)
{
	char text[65];

	len = strnlen(s, MIN(len, sizeof(text) - 1));
	for (size_t i = 0; i < len; i++)
		text[i] = (unsigned char)s[i] < ' ' || (unsigned char)s[i] > '~' ? '?' : s[i];
	text[len] = '\0';
	add_text(o, name, text);
}

static void describe_super(struct json_object *o, const struct bs_sb_disk *sb)
{
	char version[16];

	snprintf(version, sizeof(version), "%u.%u", le16_get(sb->version_major), le16_get(sb->version_minor));
	add_text(o, "version", version);
	add_u64(o, "generation", le64_get(sb->generation));
	add_uuid(o, "uuid", sb->uuid);
	add_uuid(o, "mount_id", sb->mount_id);
	add_chars(o, "label", sb->label, sizeof(sb->label));
	add_chars(o, "owner", sb->owner, sizeof(sb->owner));
	add_u64(o, "compat", le64_get(sb->compat));
	add_u64(o, "ro_compat", le64_get(sb->ro_compat));
	add_u64(o, "incompat", le64_get(sb->incompat));
	add_u64(o, "created_ns", le64_get(sb->created_ns));
	add_u64(o, "blocks", le64_get(sb->blocks));
	add_u64(o, "cluster_blocks", le32_get(sb->cluster_blocks));
	add_u64(o, "segment_blocks", le32_get(sb->segment_blocks));
	add_u64(o, "ckpt_root", le64_get(sb->ckpt_root));
	add_u64(o, "ckpt_root_blocks", le32_get(sb->ckpt_root_blocks));
	add_u64(o, "ckpt_l0", le64_get(sb->ckpt_l0));
	add_u64(o, "ckpt_l1", le64_get(sb->ckpt_l1));
	add_u64(o, "ckpt_blocks", le64_get(sb->ckpt_blocks));
	add_u64(o, "ckpt_items", le64_get(sb->ckpt_items));
	add_u64(o, "next_id", le64_get(sb->next_id));
	add_u64(o, "log_segment", le64_get(sb->log_segment));
	add_u64(o, "log_offset", le32_get(sb->log_offset));
	add_u64(o, "log_seq", le64_get(sb->log_seq));
	add_u64(o, "clean", le32_get(sb->clean));
}

static void describe_segment(struct json_object *o, const struct bs_segment_disk *h)
{
	add_uuid(o, "uuid", h->uuid);
	add_u64(o, "address", le64_get(h->address));
	add_u64(o, "nonce", le64_get(h->nonce));
	add_u64(o, "first_seq", le64_get(h->first_seq));
	add_u64(o, "next_address", le64_get(h->next_address));
	add_u64(o, "next_nonce", le64_get(h->next_nonce));
	if (!le32_get(h->segment_blocks))
		return; /* of version 1.0: it tells nothing of the store */
	add_u64(o, "created_ns", le64_get(h->created_ns));
	add_u64(o, "store_blocks", le64_get(h->blocks));
	add_u64(o, "cluster_blocks", le32_get(h->cluster_blocks));
	add_u64(o, "segment_blocks", le32_get(h->segment_blocks));
	add_u64(o, "compat", le64_get(h->compat));
	add_u64(o, "ro_compat", le64_get(h->ro_compat));
	add_u64(o, "incompat", le64_get(h->incompat));
	add_chars(o, "owner", h->owner, sizeof(h->owner));
	add_chars(o, "label", h->label, sizeof(h->label));
}

static void describe_frame(struct json_object *o, const struct bs_frame_disk *f)
{
	add_u64(o, "seq", le64_get(f->seq));
	add_u64(o, "first_lsn", le64_get(f->first_lsn));
	add_u64(o, "bytes", le32_get(f->bytes));
	add_u64(o, "count", le32_get(f->records));
	add_u64(o, "flags", le32_get(f->flags));
	add_u64(o, "wall_ns", le64_get(f->wall_ns));
}

static void describe_page(struct json_object *o, const struct bs_page_disk *p, uint32_t blocks)
{
	unsigned kind = le16_get(p->kind);

	add_text(o, "type", kind == BS_PAGE_LEAF ? "leaf" : kind == BS_PAGE_INDEX ? "index" : kind == BS_PAGE_SUPER ? "superblock" : "unknown");
	add_u64(o, "level", le16_get(p->level));
	add_u64(o, "lsn", le64_get(p->lsn));
	add_u64(o, "bytes", le32_get(p->bytes));
	add_u64(o, "count", le32_get(p->count));
	add_u64(o, "first_blob", le64_get(p->first_blob));
	add_u64(o, "first_kind", le32_get(p->first_kind));
	add_u64(o, "first_key", le64_get(p->first_key));
	add_u64(o, "ckpt", le32_get(p->ckpt));
	if (kind == BS_PAGE_SUPER && blocks == 2)
		describe_super(o, (const struct bs_sb_disk *)(p + 1));
}

/* With the sums themselves as text, in hexadecimal, in the order of their blocks. */
static void describe_sums(struct json_object *o, const struct bs_sum_page_disk *s, bool all)
{
	char text[9 * BS_SUM_PAGE + 1];

	add_u64(o, "first", le64_get(s->first));
	add_u64(o, "lsn", le64_get(s->lsn));
	for (unsigned i = 0; all && i < BS_SUM_PAGE; i++)
		snprintf(text + 9 * (size_t)i, sizeof(text) - 9 * (size_t)i, "%08x ", le32_get(s->sum[i]));
	if (all)
		add_text(o, "sums", text);
}

static const char *const kind_names[] = { "superblock", "segment", "frame", "page", "checksums" };

static int add_record(const struct bs_record *rec, void *arg)
{
	struct dump *d = arg;
	struct json_object *o;

	if (d->blob && (rec->wrong || rec->blob != d->blob))
		return 0;
	o = json_object_new_object();
	add_u64(o, "lsn", rec->lsn);
	if (!rec->wrong)
		add_u64(o, "blob", rec->blob);
	add_text(o, "text", rec->wrong ? "malformed" : rec->text);
	if (rec->end)
		json_object_object_add(o, "end", json_object_new_boolean(true));
	json_object_array_add(d->list, o);
	return 0;
}

/* ---- printing ---- */

static void print_records(struct json_object *list)
{
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *o = json_object_array_get_idx(list, i), *lsn = NULL, *text = NULL;

		json_object_object_get_ex(o, "lsn", &lsn);
		json_object_object_get_ex(o, "text", &text);
		printf("    %s %s%s\n", json_object_get_string(lsn), json_object_get_string(text),
		       json_object_object_get_ex(o, "end", NULL) ? " end" : "");
	}
}

static void print_text(struct json_object *o)
{
	struct json_object *kind = NULL, *block = NULL, *state = NULL;

	json_object_object_get_ex(o, "kind", &kind);
	json_object_object_get_ex(o, "block", &block);
	json_object_object_get_ex(o, "state", &state);
	printf("%s at block %s: %s\n", json_object_get_string(kind), json_object_get_string(block), json_object_get_string(state));
	json_object_object_foreach(o, key, value) {
		if (!strcmp(key, "kind") || !strcmp(key, "block") || !strcmp(key, "state"))
			continue;
		if (json_object_is_type(value, json_type_array))
			print_records(value);
		else
			printf("  %s: %s\n", key, json_object_get_string(value));
	}
}

/* Prints and frees it. Pieces of a large store do not all have to be in memory. */
static void print_piece(struct dump *d, struct json_object *o)
{
	if (d->call->json)
		printf("%s%s", d->any ? ",\n" : "", json_object_to_json_string_ext(o, JSON_C_TO_STRING_NOSLASHESCAPE));
	else
		print_text(o);
	d->any = true;
	json_object_put(o);
}

static int on_piece(const struct bs_piece *p, void *arg)
{
	struct dump *d = arg;
	struct json_object *o = json_object_new_object();
	size_t n = 0;

	add_text(o, "kind", kind_names[p->kind]);
	add_u64(o, "block", p->block);
	add_text(o, "state", p->wrong ? p->wrong : "good");
	add_u64(o, "blocks", p->blocks);
	if (p->data && p->kind == BS_PIECE_SUPER) {
		describe_super(o, p->data);
		if (!p->wrong)
			d->blocks = le64_get(((const struct bs_sb_disk *)p->data)->blocks);
	} else if (p->data && p->kind == BS_PIECE_SEGMENT) {
		describe_segment(o, p->data);
	} else if (p->data && p->kind == BS_PIECE_FRAME) {
		describe_frame(o, p->data);
	} else if (p->data && p->kind == BS_PIECE_SUMS) {
		describe_sums(o, p->data, d->records);
	} else if (p->data) {
		describe_page(o, p->data, p->blocks);
	}
	if (d->records || d->blob) {
		d->list = json_object_new_array();
		bs_piece_records(p, d->blocks, add_record, d);
		n = json_object_array_length(d->list);
		if (n)
			json_object_object_add(o, "records", d->list);
		else
			json_object_put(d->list);
	}
	if (d->blob && !n)
		json_object_put(o);
	else
		print_piece(d, o);
	return 0;
}

/* Sizes of records are checked against that of the store, which a superblock tells. */
static int note_size(const struct bs_piece *p, void *arg)
{
	struct dump *d = arg;

	if (p->data && !p->wrong)
		d->blocks = le64_get(((const struct bs_sb_disk *)p->data)->blocks);
	return 0;
}

#define WALK_SUMS (1u << 31) /* not by bs_walk */

static int parse_what(const struct call *call, struct dump *d, uint32_t *what)
{
	const char *name = call->argc ? call->argv[0] : "all";
	char *end;

	if (!strcmp(name, "super"))
		*what = BS_WALK_SUPER;
	else if (!strcmp(name, "log"))
		*what = BS_WALK_LOG;
	else if (!strcmp(name, "checkpoint"))
		*what = BS_WALK_CKPT | BS_WALK_DESCRIBED;
	else if (!strcmp(name, "checksums"))
		*what = WALK_SUMS;
	else if (!strcmp(name, "all"))
		*what = BS_WALK_SUPER | BS_WALK_LOG | BS_WALK_CKPT | BS_WALK_DESCRIBED | WALK_SUMS;
	else if (!strcmp(name, "space"))
		*what = 0;
	else if (strcmp(name, "blob") != 0)
		goto wrong;
	if (!strcmp(name, "blob")) {
		*what = BS_WALK_LOG | BS_WALK_CKPT;
		d->blob = call->argc == 2 ? strtoull(call->argv[1], &end, 0) : 0;
		if (call->argc != 2 || *end || !d->blob) {
			tool_error("dump: blob wants a number");
			return EXIT_USAGE;
		}
	} else if (call->argc > 1) {
		goto wrong;
	}
	return -1;
wrong:
	tool_error("dump: what to dump is super, log, checkpoint, checksums, blob NUMBER, space or all, not '%s'", call->argv[call->argc - 1]);
	return EXIT_USAGE;
}

static void print_head(const char *device)
{
	struct json_object *name = json_object_new_string(device);

	printf("{ \"device\": %s, \"pieces\": [\n", json_object_to_json_string_ext(name, JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(name);
}

int verb_dump(const struct call *call)
{
	struct bdev_opts opts = { .size = sizeof(opts), .flags = BDEV_RDONLY };
	struct dump d = { .call = call, .records = call->opt['v'], .blocks = 1ull << BS_RUN_BITS };
	struct base_err err = { "" };
	struct bdev *dev;
	uint32_t what = 0;
	int rc = parse_what(call, &d, &what);

	if (rc >= 0)
		return rc;
	rc = bdev_open(call->device, &opts, &dev, &err);
	if (rc) {
		tool_error_of(call->device, base_err_text(&err, rc));
		return EXIT_FAILED;
	}
	if (call->json)
		print_head(call->device);
	rc = what ? bs_walk(dev, BS_WALK_SUPER, note_size, &d, &err) : dump_space(dev, call, &err);
	if (!rc && (what & ~WALK_SUMS))
		rc = bs_walk(dev, what & ~WALK_SUMS, on_piece, &d, &err);
	if (!rc && (what & WALK_SUMS))
		rc = view_walk_sums(dev, on_piece, &d, &err);
	if (call->json)
		printf("\n] }\n");
	bdev_close(dev);
	if (rc)
		tool_error_of(call->device, base_err_text(&err, rc));
	return rc ? EXIT_FAILED : EXIT_OK;
}
