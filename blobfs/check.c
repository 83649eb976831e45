/* SPDX-License-Identifier: BSD-2-Clause */
/* Checking: the store first, then its blobs as a file system, pass by pass, on a store opened read-only. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "blobfs/check.h"

void check_problem(struct check *c, const char *pass, const char *code, uint64_t ino, const char *fmt, ...)
{
	struct bs_problem p = { .pass = pass, .code = code, .blob = ino, .block = UINT64_MAX };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p.text, sizeof(p.text), fmt, ap);
	va_end(ap);
	for (char *s = p.text; *s; s++) /* a name may hold anything */
		if ((unsigned char)*s < ' ' || *s == 0x7f)
			*s = '?';
	c->result->problems++;
	if (c->opts->report)
		c->opts->report(&p, c->opts->arg);
}

void check_progress(struct check *c, const char *pass, uint64_t done)
{
	if (c->opts->progress && (done % 4096 == 0 || done == c->n))
		c->opts->progress(pass, done, c->n, c->opts->arg);
}

static int seen_cmp(const void *key, const void *elem)
{
	uint64_t a = *(const uint64_t *)key, b = ((const struct seen *)elem)->ino;

	return a < b ? -1 : a > b;
}

struct seen *check_find(struct check *c, uint64_t ino)
{
	return c->n ? bsearch(&ino, c->seen, c->n, sizeof(*c->seen), seen_cmp) : NULL;
}

/* ---- pass: inodes ---- */

static struct seen *seen_add(struct check *c)
{
	if (c->n == c->room) {
		size_t room = c->room ? 2 * c->room : 1024;
		struct seen *p = base_realloc(c->seen, room * sizeof(*p));

		if (!p)
			return NULL;
		c->seen = p;
		c->room = room;
	}
	memset(&c->seen[c->n], 0, sizeof(*c->seen));
	return &c->seen[c->n++];
}

static void count_inode(struct check *c, const struct seen *s)
{
	struct bfs_check_result *r = c->result;

	if (!s->nlink) {
		r->orphans++;
	} else if (S_ISDIR(s->mode)) {
		r->directories++;
	} else if (S_ISLNK(s->mode)) {
		r->symlinks++;
	} else if (S_ISREG(s->mode)) {
		r->files++;
		r->bytes += s->size;
	} else {
		r->others++;
	}
}

static int look_at_inode(struct bs_blob *blob, void *arg)
{
	struct check *c = arg;
	struct bfs_inode inode = { 0 };
	struct bs_blob_info info;
	struct seen *s = seen_add(c);

	if (!s)
		return -ENOMEM;
	bs_blob_get_info(blob, &info);
	s->ino = info.id;
	s->size = info.size;
	s->items = info.items;
	s->has_blocks = bfs_has_data(blob, &info);
	s->sealed = info.sealed;
	if (bfs_inode_from_info(&info, &inode)) {
		check_problem(c, "inodes", "bad-inode", s->ino, "inode %llu: its header is not one of an inode",
			      (unsigned long long)s->ino);
		return 0;
	}
	s->mode = inode.mode;
	s->nlink = inode.nlink;
	s->parent = inode.parent;
	count_inode(c, s);
	return 0;
}

int check_inodes(struct check *c)
{
	return bs_foreach_blob(c->bs, 0, look_at_inode, c);
}

/* ---- the whole ---- */

/* The file system's own item: without it names cannot be checked against their keys. */
static void check_fs_item(struct check *c)
{
	struct bs_blob *root = bs_blob_get(c->bs, BFS_ROOT_INO);
	struct seen *s = check_find(c, BFS_ROOT_INO);
	struct bfs_fs_disk disk;
	int rc;

	if (!root) {
		check_problem(c, "inodes", "no-root", BFS_ROOT_INO, "there is no root directory");
		return;
	}
	rc = bs_item_get(root, BFS_KIND_FS, 0, &disk, sizeof(disk));
	bs_blob_put(root);
	if (rc == sizeof(disk) && le32_get(disk.version) == BFS_FORMAT_VERSION && (le32_get(disk.hash_bits) & BFS_HASH_SCRAMBLED))
		; /* the keys are those of other names */
	else if (rc != sizeof(disk) || le32_get(disk.version) != BFS_FORMAT_VERSION || !le32_get(disk.hash_bits) ||
	    le32_get(disk.hash_bits) > BFS_HASH_BITS) {
		check_problem(c, "inodes", "bad-fs-item", BFS_ROOT_INO,
			      "the file system's item is missing or damaged");
	} else {
		memcpy(c->hash_key, disk.hash_key, sizeof(c->hash_key));
		c->hash_bits = le32_get(disk.hash_bits);
	}
	if (s && s->mode && (!S_ISDIR(s->mode) || s->parent != BFS_ROOT_INO))
		check_problem(c, "inodes", "bad-root", BFS_ROOT_INO, "the root is not a directory of its own");
}

int bfs_check_passes(struct check *c)
{
	int rc = check_inodes(c);

	if (rc)
		return rc;
	check_fs_item(c);
	rc = check_items(c);
	return rc ? rc : check_tree(c);
}

static int check_store(struct check *c, struct base_err *err)
{
	struct bs_stat st;
	int rc;

	bs_get_stat(c->bs, &st);
	memcpy(c->result->uuid, st.uuid, sizeof(st.uuid));
	memcpy(c->result->label, st.label, sizeof(st.label));
	c->result->used_blocks = st.used_blocks;
	c->result->total_blocks = st.blocks;
	c->result->replayed_records = st.replayed_records;
	c->result->clean = !st.replayed_records;
	c->closed = st.closed;
	if (strncmp(st.owner, BFS_OWNER, sizeof(st.owner)))
		return base_err_set(err, -EINVAL, "a store of \"%.16s\", not a BlobFS", st.owner);
	rc = bfs_check_passes(c);
	if (rc)
		base_err_set(err, rc, "checking stopped: %s", base_err_text(NULL, rc));
	return rc;
}

int bfs_check(struct bdev *dev, const struct bfs_check_opts *user_opts, struct bfs_check_result *result,
	      struct base_err *err)
{
	struct bfs_check_opts opts = { 0 };
	struct check c = { .opts = &opts, .result = result };
	int rc, close_rc;

	if (user_opts)
		memcpy(&opts, user_opts, MIN(sizeof(opts), (size_t)user_opts->size));
	memset(result, 0, sizeof(*result));
	rc = bs_check(dev, opts.report, opts.arg, &c.bs, err);
	if (rc > 0)
		result->problems = (uint64_t)rc;
	if (rc < 0 || !c.bs) {
		bdev_close(dev);
		return rc < 0 ? rc : 0;
	}
	rc = check_store(&c, err);
	close_rc = bs_close(c.bs);
	free(c.seen);
	return rc ? rc : close_rc;
}
