/* SPDX-License-Identifier: BSD-2-Clause */
/* Repair: the store first, then its blobs as a file system, in rounds until a round finds nothing to do. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "blobfs/repair.h"

#define ROUNDS 12 /* each finds what the one before uncovered; three are usual */

void repair_say(struct repair *r, const char *pass, const char *code, uint64_t ino, const char *fmt, ...)
{
	struct bs_problem p = { .pass = pass, .code = code, .blob = ino, .block = UINT64_MAX };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p.text, sizeof(p.text), fmt, ap);
	va_end(ap);
	for (char *s = p.text; *s; s++) /* a name may hold anything */
		if ((unsigned char)*s < ' ' || *s == 0x7f)
			*s = '?';
	r->result->repairs++;
	if (r->opts->report)
		r->opts->report(&p, r->opts->arg);
}

/* ---- changes ---- */

int repair_txn(struct repair *r, uint64_t ino, int (*fn)(struct bs_txn *txn, struct bs_blob *blob, void *arg), void *arg)
{
	struct bs_blob *blob = bs_blob_get(r->bs, ino);
	struct bs_txn *txn;
	int rc;

	if (!blob)
		return 0;
	rc = bs_txn_begin(r->bs, BS_TXN_FREES, &txn);
	if (!rc) {
		rc = fn(txn, blob, arg);
		if (rc)
			bs_txn_cancel(txn);
		else
			bs_txn_end(txn);
	}
	bs_blob_put(blob);
	r->changes++;
	if (!rc && r->changes % 1024 == 0)
		rc = bs_service_step(r->bs);
	return rc;
}

struct item {
	unsigned kind;
	uint64_t key;
	const void *value;
	uint32_t len;
};

static int do_put(struct bs_txn *txn, struct bs_blob *blob, void *arg)
{
	const struct item *i = arg;

	return bs_txn_put(txn, blob, i->kind, i->key, i->value, i->len);
}

static int do_del(struct bs_txn *txn, struct bs_blob *blob, void *arg)
{
	const struct item *i = arg;

	return bs_txn_del(txn, blob, i->kind, i->key);
}

int repair_put_item(struct repair *r, uint64_t ino, unsigned kind, uint64_t key, const void *value, uint32_t len)
{
	struct item i = { kind, key, value, len };

	return repair_txn(r, ino, do_put, &i);
}

int repair_del_item(struct repair *r, uint64_t ino, unsigned kind, uint64_t key)
{
	struct item i = { kind, key, NULL, 0 };

	return repair_txn(r, ino, do_del, &i);
}

struct header {
	uint64_t size;
	const struct bfs_inode_disk *disk;
};

static int do_header(struct bs_txn *txn, struct bs_blob *blob, void *arg)
{
	const struct header *h = arg;

	return bs_txn_header(txn, blob, h->size, h->disk, sizeof(*h->disk));
}

int repair_header(struct repair *r, uint64_t ino, uint64_t size, const struct bfs_inode_disk *disk)
{
	struct header h = { size, disk };

	return repair_txn(r, ino, do_header, &h);
}

int repair_get_header(struct repair *r, uint64_t ino, uint64_t *size, struct bfs_inode_disk *disk)
{
	struct bs_blob *blob = bs_blob_get(r->bs, ino);
	struct bs_blob_info info;

	if (!blob)
		return -ENOENT;
	bs_blob_get_info(blob, &info);
	bs_blob_put(blob);
	if (info.user_len != sizeof(*disk))
		return -EUCLEAN;
	memcpy(disk, info.user, sizeof(*disk));
	*size = info.size;
	return 0;
}

/* ---- names ---- */

uint64_t repair_free_key(struct bs_blob *blob, unsigned kind, uint64_t key)
{
	key &= ~(uint64_t)(BFS_COLLISIONS - 1);
	for (unsigned i = 0; i < BFS_COLLISIONS; i++)
		if (bs_item_get(blob, kind, key + i, NULL, 0) == -ENOENT)
			return key + i;
	return 0;
}

/* Is the name there, whatever key of its group it has? */
static bool has_name(struct repair *r, struct bs_blob *dir, const char *name, size_t len)
{
	uint8_t value[sizeof(struct bfs_dirent_disk) + BFS_NAME_MAX];
	uint64_t key = bfs_name_key(r->c.hash_key, r->c.hash_bits, name, len);

	for (unsigned i = 0; i < BFS_COLLISIONS; i++) {
		int n = bs_item_get(dir, BFS_KIND_DIRENT, key + i, value, sizeof(value));

		if (n == (int)(sizeof(struct bfs_dirent_disk) + len) && !memcmp(value + sizeof(struct bfs_dirent_disk), name, len))
			return true;
	}
	return false;
}

static int add_entry(struct repair *r, struct bs_blob *dir, const char *name, uint64_t ino, uint32_t mode)
{
	size_t len = strlen(name);
	struct {
		struct bfs_dirent_disk d;
		char name[BFS_NAME_MAX];
	} __attribute__((packed)) value = { .d = { .ino = le64_make(ino), .type = (uint8_t)(mode >> 12) } };
	uint64_t key = repair_free_key(dir, BFS_KIND_DIRENT, bfs_name_key(r->c.hash_key, r->c.hash_bits, name, len));

	memcpy(value.name, name, len);
	return key ? repair_put_item(r, bs_blob_id(dir), BFS_KIND_DIRENT, key, &value, (uint32_t)(sizeof(value.d) + len)) : -ENOSPC;
}

int repair_add_name(struct repair *r, uint64_t dir, const char *name, uint64_t ino, uint32_t mode)
{
	struct bs_blob *blob = bs_blob_get(r->bs, dir);
	char other[BFS_NAME_MAX + 1];
	int rc;

	if (!blob)
		return -ENOENT;
	snprintf(other, sizeof(other), "%s", name);
	for (unsigned i = 1; has_name(r, blob, other, strlen(other)); i++)
		snprintf(other, sizeof(other), "%.200s.%u", name, i);
	rc = add_entry(r, blob, other, ino, mode);
	bs_blob_put(blob);
	return rc;
}

/* ---- the whole ---- */

static int look(struct repair *r)
{
	static const struct bfs_check_opts quiet = { .size = sizeof(quiet) };
	static struct bfs_check_result ignored;

	free(r->c.seen);
	r->c = (struct check){ .opts = &quiet, .result = &ignored, .bs = r->bs, .closed = true };
	return bfs_check_passes(&r->c);
}

/* How many problems the round left is what the next one finds. */
static int rounds(struct repair *r)
{
	int rc = 0;

	for (unsigned i = 0; i < ROUNDS && !rc; i++) {
		r->changes = 0;
		rc = repair_headers(r);
		if (!rc)
			rc = look(r);
		if (!rc)
			rc = repair_items(r);
		if (!rc && r->changes)
			rc = look(r);
		if (!rc)
			rc = repair_tree(r);
		if (!r->changes)
			break;
	}
	return rc;
}

struct counted {
	struct bfs_repair_result *result;
	const struct bfs_repair_opts *opts;
};

static void on_mended(const struct bs_problem *p, void *arg)
{
	struct counted *c = arg;

	c->result->repairs++;
	if (c->opts->report)
		c->opts->report(p, c->opts->arg);
}

static bool has_root(struct bs *bs)
{
	struct bs_blob *root = bs_blob_get(bs, BFS_ROOT_INO);

	bs_blob_put(root);
	return root != NULL;
}

static int open_store(struct bdev *dev, const struct bfs_repair_opts *opts, struct bfs_repair_result *result, struct bs **bs,
		      struct base_err *err)
{
	struct bs_open_opts open_opts = { .size = sizeof(open_opts), .flags = BS_NO_SERVICE | BS_BREAK_SEALS };
	struct counted counted = { result, opts };
	struct bs_mend_opts mend = { .size = sizeof(mend), .report = on_mended, .arg = &counted, .root = BFS_ROOT_INO,
				     .flags = opts->flags & BFS_REPAIR_REBUILD ? BS_MEND_REBUILD : 0 };
	int rc = bs_open(dev, &open_opts, bs, err);

	/* Ids are used once, so no transaction can make a root; mending can. Only it sees to checksums of data, too. */
	if (!rc && (opts->flags & BFS_REPAIR_ALL) && (!has_root(*bs) || bs_check_sums(*bs))) {
		bdev_ref(dev);
		bs_abandon(*bs);
		*bs = NULL;
		rc = -EUCLEAN;
	}
	if (!rc || !(opts->flags & BFS_REPAIR_ALL))
		return rc;
	if (rc != -EUCLEAN && rc != -EIO && !(rc == -EINVAL && (opts->flags & BFS_REPAIR_REBUILD)))
		return rc;
	result->mended = true;
	return bs_mend(dev, &mend, bs, err);
}

int bfs_repair(struct bdev *dev, const struct bfs_repair_opts *user_opts, struct bfs_repair_result *result, struct base_err *err)
{
	struct bfs_repair_opts opts = { 0 };
	struct repair r = { .opts = &opts, .result = result };
	struct bs_stat st;
	int rc, close_rc;

	if (user_opts)
		memcpy(&opts, user_opts, MIN(sizeof(opts), (size_t)user_opts->size));
	memset(result, 0, sizeof(*result));
	rc = open_store(dev, &opts, result, &r.bs, err);
	if (rc) {
		bdev_close(dev);
		return rc;
	}
	bs_get_stat(r.bs, &st);
	if (strncmp(st.owner, BFS_OWNER, sizeof(st.owner)))
		rc = base_err_set(err, -EINVAL, "a store of \"%.16s\", not a BlobFS", st.owner);
	else
		rc = rounds(&r);
	free(r.c.seen);
	close_rc = bs_close(r.bs);
	rc = rc ? rc : close_rc;
	if (rc && err && !err->text[0])
		base_err_set(err, rc, "repair stopped: %s", base_err_text(NULL, rc));
	return rc;
}
