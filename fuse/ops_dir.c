/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Directories. Cookies are the file system's own and need no state here, so a directory is not opened at all where
 * the kernel can do without (sole writer): OPENDIR is answered ENOSYS once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/fuse.h>

#include "base/util.h"
#include "fuse/internal.h"

struct listing {
	fuse_req_t req;
	struct bfs_fuse *f;
	char *buf;
	size_t size, used;
	bool plus;
};

static bool is_dot(const struct bfs_dirent *d)
{
	return d->name[0] == '.' && (d->name_len == 1 || (d->name_len == 2 && d->name[1] == '.'));
}

static int add_plain(struct listing *l, const struct bfs_dirent *d, const char *name)
{
	struct stat st = { .st_ino = d->ino, .st_mode = d->mode };
	size_t room = l->size - l->used;
	size_t n = fuse_add_direntry(l->req, l->buf + l->used, room, name, &st, (off_t)d->cookie);

	if (n > room)
		return 1;
	l->used += n;
	return 0;
}

/* With the attributes goes a reference, as if the name had been looked up. An entry without inode number (".", "..",
 * or one that vanished meanwhile) is just a name. */
static int add_plus(struct listing *l, const struct bfs_dirent *d, const char *name)
{
	struct fuse_entry_param e = { .attr = { .st_ino = d->ino, .st_mode = d->mode } };
	size_t room = l->size - l->used, n;
	bool counted = d->attr && !is_dot(d) && !bfs_ref(l->f->fs, d->ino);

	if (counted)
		fill_entry(l->f, d->attr, &e);
	n = fuse_add_direntry_plus(l->req, l->buf + l->used, room, name, &e, (off_t)d->cookie);
	if (n > room) {
		if (counted)
			bfs_unref(l->f->fs, d->ino, 1);
		return 1;
	}
	l->used += n;
	return 0;
}

static int add_entry(const struct bfs_dirent *d, void *arg)
{
	struct listing *l = arg;
	char name[BFS_NAME_MAX + 1];

	if (d->name_len > BFS_NAME_MAX)
		return 1;
	memcpy(name, d->name, d->name_len);
	name[d->name_len] = '\0';
	return l->plus ? add_plus(l, d, name) : add_plain(l, d, name);
}

/* The asker is gone: the references of READDIRPLUS are taken back. */
static void unref_entries(struct listing *l)
{
	size_t at = 0;

	while (at + sizeof(struct fuse_direntplus) <= l->used) {
		const struct fuse_direntplus *e = (const void *)(l->buf + at);

		if (e->entry_out.nodeid)
			bfs_unref(l->f->fs, e->entry_out.nodeid, 1);
		at += FUSE_DIRENTPLUS_SIZE(e);
	}
}

static void list(fuse_req_t req, uint64_t ino, size_t size, uint64_t cookie, bool plus)
{
	struct listing l = { .req = req, .f = req_fuse(req), .size = size, .plus = plus };
	int rc;

	l.buf = base_malloc(size);
	if (!l.buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	rc = bfs_readdir(l.f->fs, ino, cookie, plus, add_entry, &l);
	/* What was listed before an error is answered; the error comes again with the next call. */
	if (rc && !l.used)
		fuse_reply_err(req, -rc);
	else if (fuse_reply_buf(req, l.buf, l.used) && plus)
		unref_entries(&l);
	free(l.buf);
}

void do_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, (uint64_t)off, false);
}

void do_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, (uint64_t)off, true);
}

void do_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	if (req_fuse(req)->sole)
		fuse_reply_err(req, ENOSYS);
	else
		fuse_reply_open(req, fi);
}
