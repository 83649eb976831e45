/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What may come of a damaged image: checking says what is wrong or why it cannot; mounting refuses in one clear line
 * or works, and then nothing that is asked of it crashes, hangs or eats memory. And checking is to be trusted: what it finds
 * sound must mount, be read without an error, be changed, and be sound afterwards.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "test/corrupt/corrupt.h"

#define DIRS_MAX 64u    /* a damaged tree may be endless */
#define NAMES_MAX 1500u
#define READ_MAX (64 * KiB)

struct walk {
	struct bfs *fs;
	struct verdict *v;
	bool sound;          /* checking found nothing: every error is a fault */
	uint64_t dir[DIRS_MAX];
	unsigned n_dirs, done;
	struct entry {
		uint64_t dir, ino;
		uint32_t mode;
		char name[BFS_NAME_MAX + 1];
	} *entry;
	unsigned n;
	uint8_t *buf;
};

static void fault(struct verdict *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void fault(struct verdict *v, const char *fmt, ...)
{
	va_list ap;

	if (v->fault[0])
		return;
	va_start(ap, fmt);
	vsnprintf(v->fault, sizeof(v->fault), fmt, ap);
	va_end(ap);
}

/* Of a snapshot: its data cannot be changed. */
static bool is_sealed(struct bfs *fs, uint64_t ino)
{
	struct bs_blob *blob = bs_blob_get(bfs_store(fs), ino);
	struct bs_blob_info info = { .sealed = false };

	if (blob)
		bs_blob_get_info(blob, &info);
	bs_blob_put(blob);
	return info.sealed;
}

static bool wrong_sums(struct bfs *fs)
{
	struct bs_stat st;

	bs_get_stat(bfs_store(fs), &st);
	return st.sum_errors;
}

/* -ENOMEM means that a number on the device was taken for a length; -EUCLEAN and the like are what damage is for. */
static void expect(struct walk *w, int64_t rc, const char *what, uint64_t ino)
{
	if (rc >= 0 || (rc == -EROFS && is_sealed(w->fs, ino)))
		return;
	if (rc == -ENOMEM)
		fault(w->v, "%s of inode %llu: wants more memory than there is", what, (unsigned long long)ino);
	else if (rc == -EIO && wrong_sums(w->fs))
		return; /* checking does not read data */
	else if (w->sound)
		fault(w->v, "%s of inode %llu: %s, though checking found nothing", what, (unsigned long long)ino,
		      strerror((int)-rc));
}

static void one_line(struct verdict *v, const char *who, const struct base_err *err, int rc)
{
	if (!err->text[0])
		fault(v, "%s fails with %s and says nothing", who, strerror(-rc));
	else if (strchr(err->text, '\n'))
		fault(v, "%s says more than one line: %s", who, err->text);
	if (rc == -ENOMEM)
		fault(v, "%s wants more memory than there is", who);
}

/* ---- checking ---- */

struct counter {
	struct verdict *v;
	uint64_t n;
};

static void on_problem(const struct bs_problem *p, void *arg)
{
	struct counter *c = arg;

	if (p->code && strlen(c->v->codes) + strlen(p->code) + 2 < sizeof(c->v->codes) && !strstr(c->v->codes, p->code))
		snprintf(c->v->codes + strlen(c->v->codes), sizeof(c->v->codes) - strlen(c->v->codes), "%s ", p->code);
	if (c->n++ == 0)
		snprintf(c->v->first, sizeof(c->v->first), "%s: %s: %s", p->pass, p->code, p->text);
	if (!p->code || !p->code[0] || !p->text[0] || strchr(p->text, '\n'))
		fault(c->v, "problem '%s' says '%s'", p->code ? p->code : "", p->text);
}

static int look_at_record(const struct bs_record *rec, void *arg)
{
	struct verdict *v = arg;

	if (!rec->wrong && strnlen(rec->text, sizeof(rec->text)) >= sizeof(rec->text))
		fault(v, "a record's text has no end");
	return 0;
}

static int look_at_piece(const struct bs_piece *p, void *arg)
{
	struct verdict *v = arg;

	if (p->wrong && strchr(p->wrong, '\n'))
		fault(v, "a structure is said to be wrong in more than one line");
	if (!p->data && !p->wrong)
		fault(v, "a structure is neither there nor wrong");
	return bs_piece_records(p, IMAGE_BLOCKS, look_at_record, v);
}

/* What dump does: every structure by itself, whatever is wrong with it. */
static void walk_pieces(struct bdev *dev, struct verdict *v)
{
	struct base_err err = { "" };
	int rc = bs_walk(dev, BS_WALK_SUPER | BS_WALK_LOG | BS_WALK_CKPT, look_at_piece, v, &err);

	if (rc)
		one_line(v, "walk", &err, rc);
}

static int check(struct bdev *dev, struct verdict *v, uint64_t *problems)
{
	struct counter c = { .v = v };
	struct bfs_check_opts opts = { .size = sizeof(opts), .report = on_problem, .arg = &c };
	struct bfs_check_result result;
	struct base_err err = { "" };
	int rc;

	bdev_ref(dev);
	rc = bfs_check(dev, &opts, &result, &err);
	if (rc)
		one_line(v, "check", &err, rc);
	else if (c.n != result.problems)
		fault(v, "check reported %llu problems and counted %llu", (unsigned long long)c.n,
		      (unsigned long long)result.problems);
	*problems = c.n;
	return rc;
}

/* ---- walking ---- */

static int on_entry(const struct bfs_dirent *e, void *arg)
{
	struct walk *w = arg;
	struct entry *d;

	if (e->name_len > BFS_NAME_MAX || strnlen(e->name, BFS_NAME_MAX + 1) != e->name_len)
		fault(w->v, "a name has %u bytes and says %u", (unsigned)strnlen(e->name, BFS_NAME_MAX + 1), e->name_len);
	if (w->n == NAMES_MAX)
		return 1;
	if (strcmp(e->name, ".") == 0 || strcmp(e->name, "..") == 0)
		return 0;
	d = &w->entry[w->n++];
	d->dir = w->dir[w->done];
	d->ino = e->ino;
	d->mode = e->mode;
	snprintf(d->name, sizeof(d->name), "%s", e->name);
	return 0;
}

static void read_bytes(struct walk *w, uint64_t ino)
{
	struct bfs_file *f;
	uint64_t size;
	int64_t rc = bfs_open(w->fs, NULL, ino, O_RDONLY, BS_STREAM_UNKNOWN, &f);

	expect(w, rc, "open", ino);
	if (rc)
		return;
	size = bfs_file_size(f);
	rc = bfs_pread(f, w->buf, READ_MAX, 0);
	expect(w, rc, "read", ino);
	if (rc >= 0 && (uint64_t)rc != MIN(size, READ_MAX))
		fault(w->v, "inode %llu: %lld bytes read of %llu", (unsigned long long)ino, (long long)rc,
		      (unsigned long long)size);
	if (size > READ_MAX)
		expect(w, bfs_pread(f, w->buf, READ_MAX, size - 1), "read at the end", ino);
	rc = bfs_seek(f, 0, SEEK_HOLE);
	if (rc != -ENXIO)
		expect(w, rc, "seek", ino);
	bfs_close(f);
}

static void read_xattrs(struct walk *w, uint64_t ino)
{
	char *list = (char *)w->buf;
	int64_t n = bfs_listxattr(w->fs, ino, list, READ_MAX);
	char value[16];

	expect(w, n, "listxattr", ino);
	if (n > 0 && ((uint64_t)n > READ_MAX || list[n - 1]))
		fault(w->v, "inode %llu: a list of attributes of %lld bytes has no end", (unsigned long long)ino, (long long)n);
	for (char *p = list; n > 0 && p < list + n; p += strlen(p) + 1) {
		int64_t rc = bfs_getxattr(w->fs, ino, p, NULL, 0);

		expect(w, rc, "getxattr", ino);
		bfs_getxattr(w->fs, ino, p, value, sizeof(value));
	}
}

static void look_at(struct walk *w, const struct entry *e)
{
	char target[BFS_SYMLINK_MAX + 1];
	struct bfs_attr a;
	int rc = bfs_lookup(w->fs, NULL, e->dir, e->name, &a);

	expect(w, rc, "lookup", e->ino);
	rc = bfs_getattr(w->fs, e->ino, &a);
	expect(w, rc, "getattr", e->ino);
	if (rc)
		return;
	read_xattrs(w, e->ino);
	if (S_ISLNK(a.mode))
		expect(w, bfs_readlink(w->fs, e->ino, target, sizeof(target)), "readlink", e->ino);
	else if (S_ISREG(a.mode))
		read_bytes(w, e->ino);
	else if (S_ISDIR(a.mode) && w->n_dirs < DIRS_MAX)
		w->dir[w->n_dirs++] = e->ino;
}

static void walk(struct walk *w)
{
	struct bfs_statfs sf;

	expect(w, bfs_get_statfs(w->fs, &sf), "statfs", 0);
	w->dir[w->n_dirs++] = BFS_ROOT_INO;
	for (; w->done < w->n_dirs; w->done++) {
		unsigned first = w->n;

		expect(w, bfs_readdir(w->fs, w->dir[w->done], 0, w->done & 1, on_entry, w), "readdir", w->dir[w->done]);
		while (first < w->n)
			look_at(w, &w->entry[first++]);
	}
}

/* ---- changing ---- */

static void write_new(struct walk *w, const char *path)
{
	struct bfs_file *f;
	int rc = bfs_open_path(w->fs, NULL, path, O_RDWR | O_CREAT, 0644, BS_STREAM_UNKNOWN, &f);

	expect(w, rc, "create", 0);
	if (rc)
		return;
	memset(w->buf, 0x5a, READ_MAX);
	expect(w, bfs_pwrite(f, w->buf, READ_MAX, 1000), "write", bfs_file_ino(f));
	expect(w, bfs_fsync(f, false), "fsync", bfs_file_ino(f));
	bfs_close(f);
}

static void change_one(struct walk *w, const struct entry *e, struct rnd *r)
{
	struct bfs_file *f;
	int rc;

	switch (rnd_below(r, S_ISREG(e->mode) ? 6 : 3)) {
	case 0:
		rc = S_ISDIR(e->mode) ? 0 : bfs_unlink(w->fs, NULL, e->dir, e->name);
		expect(w, rc == -EROFS && is_sealed(w->fs, e->dir) ? 0 : rc, "unlink", e->ino);
		return;
	case 1:
		rc = bfs_rename(w->fs, NULL, e->dir, e->name, BFS_ROOT_INO, "renamed", 0);
		expect(w, rc == -EROFS && (is_sealed(w->fs, e->dir) || is_sealed(w->fs, BFS_ROOT_INO)) ? 0 : rc, "rename", e->ino);
		return;
	case 2:
		if (S_ISREG(e->mode) || S_ISDIR(e->mode)) /* others take none from users */
			expect(w, bfs_setxattr(w->fs, NULL, e->ino, "user.new", "value", 5, 0), "setxattr", e->ino);
		return;
	case 3: expect(w, bfs_truncate(w->fs, NULL, e->ino, rnd_below(r, 100000)), "truncate", e->ino); return;
	default: break;
	}
	if (bfs_open(w->fs, NULL, e->ino, O_RDWR, BS_STREAM_UNKNOWN, &f))
		return;
	expect(w, bfs_pwrite(f, w->buf, 5000, rnd_below(r, 200000)), "overwrite", e->ino);
	expect(w, bfs_fsync(f, true), "fdatasync", e->ino);
	bfs_close(f);
}

/* One change of what is there: two might well get in each other's way, and a sound image is to allow every one. */
static void change(struct walk *w, struct rnd *r)
{
	struct bfs_attr a;
	int rc;

	write_new(w, "/new-file");
	rc = bfs_mkdir(w->fs, NULL, BFS_ROOT_INO, "new-dir", 0755, 0, &a);
	expect(w, rc, "mkdir", 0);
	if (!rc) {
		write_new(w, "/new-dir/file");
		expect(w, bfs_unlink(w->fs, NULL, a.ino, "file"), "unlink", a.ino);
		expect(w, bfs_rmdir(w->fs, NULL, BFS_ROOT_INO, "new-dir"), "rmdir", a.ino);
	}
	if (w->n)
		change_one(w, &w->entry[rnd_below(r, w->n)], r);
	expect(w, bfs_service_step(w->fs), "background work", 0);
	expect(w, bfs_sync(w->fs), "sync", 0);
}

/* ---- the whole ---- */

static void use_mounted(struct bfs *fs, bool writable, struct verdict *v, bool sound, struct rnd *r)
{
	struct walk w = { .fs = fs, .v = v, .sound = sound };
	bool die = writable && rnd_below(r, 4) == 0, wrong;
	int rc;

	w.entry = malloc(NAMES_MAX * sizeof(*w.entry));
	w.buf = malloc(READ_MAX);
	if (!w.entry || !w.buf) {
		fault(v, "no memory left for the test itself");
	} else {
		walk(&w);
		if (writable)
			change(&w, r);
	}
	free(w.entry);
	free(w.buf);
	if (die) {
		bfs_abandon(fs);
		return;
	}
	wrong = wrong_sums(fs);
	rc = bfs_unmount(fs);
	if (rc && sound && !wrong)
		fault(v, "unmount: %s, though checking found nothing", strerror(-rc));
}

void use_device(struct bdev *dev, struct rnd *r, struct verdict *v)
{
	bool writable = rnd_below(r, 4) != 0, service = rnd_below(r, 8) == 0, sound;
	struct bfs_mount_opts opts = { .size = sizeof(opts), .cache_size = 4 * MiB,
				       .flags = (writable ? 0 : BFS_RDONLY) | (service ? 0 : BFS_NO_SERVICE) };
	struct base_err err = { "" };
	uint64_t after = 0;
	struct bfs *fs;
	int rc;

	memset(v, 0, sizeof(*v));
	walk_pieces(dev, v);
	v->check_rc = check(dev, v, &v->problems);
	sound = !v->check_rc && !v->problems;
	bdev_ref(dev);
	v->mount_rc = bfs_mount_bdev(dev, &opts, &fs, &err);
	if (v->mount_rc) {
		bdev_close(dev);
		one_line(v, "mount", &err, v->mount_rc);
		if (sound && v->mount_rc != -ENOTSUP) /* unknown features may allow reading only */
			fault(v, "mount refuses (%s), though checking found nothing", err.text);
	} else {
		v->mounted = true;
		use_mounted(fs, writable, v, sound, r);
		rc = sound || rnd_below(r, 2) ? check(dev, v, &after) : 0;
		if (sound && (rc || after))
			fault(v, "sound before it was used and damaged afterwards: %llu problems, %s", (unsigned long long)after, v->first);
	}
	bdev_close(dev);
}
