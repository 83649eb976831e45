/* SPDX-License-Identifier: BSD-2-Clause */
/* Inodes: looking up, attributes, making and naming them. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/util.h"
#include "fuse/internal.h"

#define NS 1000000000ll

/* ---- replies ---- */

static struct timespec to_timespec(int64_t ns)
{
	int64_t rest = ns % NS;

	/* Before 1970 too, nanoseconds count forward. */
	if (rest < 0)
		rest += NS;
	return (struct timespec){ .tv_sec = (ns - rest) / NS, .tv_nsec = rest };
}

/* Seconds that 64-bit nanoseconds cannot hold are brought to what they can (1677 … 2262). */
static int64_t from_timespec(struct timespec ts)
{
	const int64_t last = INT64_MAX / NS - 1;

	if (ts.tv_sec > last)
		return last * NS;
	if (ts.tv_sec < -last)
		return -last * NS;
	return ts.tv_sec * NS + ts.tv_nsec;
}

static void to_stat(const struct bfs_attr *a, struct stat *st)
{
	*st = (struct stat){
		.st_ino = a->ino,
		.st_mode = a->mode,
		.st_nlink = a->nlink,
		.st_uid = a->uid,
		.st_gid = a->gid,
		.st_rdev = a->rdev,
		.st_size = (off_t)a->size,
		.st_blocks = (blkcnt_t)a->blocks,
		.st_blksize = (blksize_t)a->blksize,
		.st_atim = to_timespec(a->atime),
		.st_mtim = to_timespec(a->mtime),
		.st_ctim = to_timespec(a->ctime),
	};
}

void reply_attr(fuse_req_t req, const struct bfs_attr *attr)
{
	struct stat st;

	to_stat(attr, &st);
	fuse_reply_attr(req, &st, req_fuse(req)->timeout);
}

void fill_entry(const struct bfs_fuse *f, const struct bfs_attr *attr, struct fuse_entry_param *e)
{
	*e = (struct fuse_entry_param){
		.ino = attr->ino,
		.generation = attr->generation,
		.attr_timeout = f->timeout,
		.entry_timeout = f->timeout,
	};
	to_stat(attr, &e->attr);
}

void reply_entry(fuse_req_t req, const struct bfs_attr *attr)
{
	struct bfs_fuse *f = req_fuse(req);
	struct fuse_entry_param e;
	uint64_t ino = attr->ino;

	fill_entry(f, attr, &e);
	if (fuse_reply_entry(req, &e))
		bfs_unref(f->fs, ino, 1);
}

struct bfs_cred req_cred(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct bfs_cred){ .uid = ctx->uid, .gid = ctx->gid, .flags = BFS_CRED_CHECKED };
}

static void reply_made(fuse_req_t req, int rc, const struct bfs_attr *attr)
{
	if (rc)
		fuse_reply_err(req, -rc);
	else
		reply_entry(req, attr);
}

/* ---- looking ---- */

void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct bfs_fuse *f = req_fuse(req);
	struct bfs_attr attr;
	int rc;

	do {
		rc = bfs_lookup(f->fs, NULL, parent, name, &attr);
		if (rc)
			break;
		/* Unlinked in between: then perhaps the name is another's now. */
		rc = bfs_ref(f->fs, attr.ino);
	} while (rc == -ENOENT);
	if (rc == -ENOENT && f->sole) {
		struct fuse_entry_param none = { .entry_timeout = f->timeout };

		fuse_reply_entry(req, &none);
		return;
	}
	reply_made(req, rc, &attr);
}

void do_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	if (ino != BFS_ROOT_INO)
		bfs_unref(req_fuse(req)->fs, ino, n);
	fuse_reply_none(req);
}

void do_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct bfs_fuse *f = req_fuse(req);

	for (size_t i = 0; i < count; i++)
		if (forgets[i].ino != BFS_ROOT_INO)
			bfs_unref(f->fs, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct bfs_fuse *f = req_fuse(req);
	const struct handle *h = fi ? (const struct handle *)(uintptr_t)fi->fh : NULL;
	struct bfs_attr attr;
	int rc = h && h->writable ? full_check(f, ino) : 0;

	if (!rc)
		rc = bfs_getattr(f->fs, ino, &attr);
	if (rc)
		fuse_reply_err(req, -rc);
	else
		reply_attr(req, &attr);
}

void do_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[BFS_SYMLINK_MAX + 1];
	int n = bfs_readlink(req_fuse(req)->fs, ino, target, BFS_SYMLINK_MAX);

	if (n < 0) {
		fuse_reply_err(req, -n);
		return;
	}
	target[n] = '\0';
	fuse_reply_readlink(req, target);
}

void do_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct bfs_statfs s;
	struct statvfs st = { 0 };
	int rc = bfs_get_statfs(req_fuse(req)->fs, &s);

	(void)ino;
	if (rc) {
		fuse_reply_err(req, -rc);
		return;
	}
	st.f_bsize = st.f_frsize = s.block_size;
	st.f_blocks = s.blocks;
	st.f_bfree = s.free_blocks;
	st.f_bavail = s.avail_blocks;
	/* Inodes have no table: what is free is bounded by space alone. */
	st.f_files = s.files + s.avail_blocks;
	st.f_ffree = st.f_favail = s.avail_blocks;
	st.f_namemax = s.name_max;
	st.f_flag = s.readonly ? ST_RDONLY : 0;
	fuse_reply_statfs(req, &st);
}

/* ---- changing attributes ---- */

static bool has_capabilities(struct bfs *fs, uint64_t ino)
{
	return bfs_getxattr(fs, ino, "security.capability", NULL, 0) >= 0;
}

int kill_privileges(struct bfs_fuse *f, uint64_t ino, bool suid)
{
	struct bfs_attr a;
	uint32_t mode;
	int rc = 0;

	if (has_capabilities(f->fs, ino))
		rc = bfs_removexattr(f->fs, NULL, ino, "security.capability");
	if ((rc && rc != -ENODATA) || !suid)
		return rc == -ENODATA ? 0 : rc;
	rc = bfs_getattr(f->fs, ino, &a);
	if (rc)
		return rc;
	mode = a.mode & ~(uint32_t)S_ISUID;
	/* setgid without group execute is no privilege (it used to mean mandatory locking). */
	if (a.mode & S_IXGRP)
		mode &= ~(uint32_t)S_ISGID;
	if (mode == a.mode || !S_ISREG(a.mode))
		return 0;
	a.mode = mode;
	return bfs_setattr(f->fs, NULL, ino, &a, BFS_SET_MODE, NULL);
}

static uint32_t attr_mask(int to_set)
{
	static const struct {
		int theirs;
		uint32_t ours;
	} map[] = {
		{ FUSE_SET_ATTR_MODE, BFS_SET_MODE },           { FUSE_SET_ATTR_UID, BFS_SET_UID },
		{ FUSE_SET_ATTR_GID, BFS_SET_GID },             { FUSE_SET_ATTR_ATIME, BFS_SET_ATIME },
		{ FUSE_SET_ATTR_MTIME, BFS_SET_MTIME },         { FUSE_SET_ATTR_ATIME_NOW, BFS_SET_ATIME_NOW },
		{ FUSE_SET_ATTR_MTIME_NOW, BFS_SET_MTIME_NOW }, { FUSE_SET_ATTR_CTIME, BFS_SET_CTIME },
	};
	uint32_t mask = 0;

	for (size_t i = 0; i < ARRAY_SIZE(map); i++)
		if (to_set & map[i].theirs)
			mask |= map[i].ours;
	/* "Now" comes with the flag that a time is set at all. */
	if (mask & BFS_SET_ATIME_NOW)
		mask &= ~(uint32_t)BFS_SET_ATIME;
	if (mask & BFS_SET_MTIME_NOW)
		mask &= ~(uint32_t)BFS_SET_MTIME;
	return mask;
}

/* A SETATTR with a size: truncation is I/O, the rest follows it. */
struct resize {
	struct bfs_req req;
	fuse_req_t fr;
	struct bfs_fuse *f;
	struct bfs_attr attr;
	uint32_t mask;
	bool suid;
};

static void set_and_reply(fuse_req_t fr, uint64_t ino, struct bfs_attr *attr, uint32_t mask)
{
	struct bfs *fs = req_fuse(fr)->fs;
	int rc = mask ? bfs_setattr(fs, NULL, ino, attr, mask, attr) : bfs_getattr(fs, ino, attr);

	if (rc)
		fuse_reply_err(fr, -rc);
	else
		reply_attr(fr, attr);
}

static void resized(struct bfs_req *req, void *arg)
{
	struct resize *z = arg;
	int rc = req->result < 0 ? (int)req->result : 0;

	if (!rc && z->f->killpriv)
		rc = kill_privileges(z->f, req->ino, z->suid);
	if (rc)
		fuse_reply_err(z->fr, -rc);
	else
		set_and_reply(z->fr, req->ino, &z->attr, z->mask);
	free(z);
}

static void resize(fuse_req_t fr, uint64_t ino, uint64_t size, const struct bfs_attr *attr, uint32_t mask)
{
	struct worker *w = transport_user(fr);
	struct resize *z;

	if (size > BFS_SIZE_MAX) {
		fuse_reply_err(fr, EFBIG);
		return;
	}
	z = base_calloc(1, sizeof(*z));
	if (!z) {
		fuse_reply_err(fr, ENOMEM);
		return;
	}
	z->fr = fr;
	z->f = w->f;
	z->attr = *attr;
	z->mask = mask;
	z->suid = transport_kills_suid(fr);
	z->req = (struct bfs_req){ .op = BFS_REQ_TRUNCATE, .fs = w->f->fs, .ino = ino, .length = size };
	z->req.done = resized;
	z->req.arg = z;
	bfs_submit(w->q, &z->req);
}

void do_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	struct bfs_fuse *f = req_fuse(req);
	uint32_t mask = attr_mask(to_set);
	struct bfs_attr attr = {
		.mode = st->st_mode,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.atime = from_timespec(st->st_atim),
		.mtime = from_timespec(st->st_mtim),
		.ctime = from_timespec(st->st_ctim),
	};
	int rc = 0;

	(void)fi;
	if (to_set & FUSE_SET_ATTR_SIZE) {
		resize(req, ino, (uint64_t)st->st_size, &attr, mask);
		return;
	}
	if (f->killpriv && (mask & (BFS_SET_UID | BFS_SET_GID) || transport_kills_suid(req)))
		rc = kill_privileges(f, ino, transport_kills_suid(req));
	if (rc)
		fuse_reply_err(req, -rc);
	else
		set_and_reply(req, ino, &attr, mask);
}

/* ---- making and naming ---- */

void do_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct bfs_cred cred = req_cred(req);
	struct bfs_attr attr;
	int rc = bfs_mknod(req_fuse(req)->fs, &cred, parent, name, mode, rdev, BFS_REF, &attr);

	reply_made(req, rc, &attr);
}

void do_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct bfs_cred cred = req_cred(req);
	struct bfs_attr attr;
	int rc = bfs_mkdir(req_fuse(req)->fs, &cred, parent, name, mode, BFS_REF, &attr);

	reply_made(req, rc, &attr);
}

void do_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct bfs_cred cred = req_cred(req);
	struct bfs_attr attr;
	int rc = bfs_symlink(req_fuse(req)->fs, &cred, parent, name, target, BFS_REF, &attr);

	reply_made(req, rc, &attr);
}

void do_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct bfs_attr attr;
	int rc = bfs_link(req_fuse(req)->fs, NULL, ino, parent, name, BFS_REF, &attr);

	reply_made(req, rc, &attr);
}

void do_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(req, -bfs_unlink(req_fuse(req)->fs, NULL, parent, name));
}

void do_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(req, -bfs_rmdir(req_fuse(req)->fs, NULL, parent, name));
}

void do_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
	       const char *new_name, unsigned int flags)
{
	fuse_reply_err(req, -bfs_rename(req_fuse(req)->fs, NULL, parent, name, new_parent, new_name, flags));
}
