/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "test/common/testdev.h"
#include "test/model/real.h"

#define CHECK(expr)                                                                      \
	do {                                                                             \
		int64_t rc_ = (expr);                                                    \
		if (rc_ < 0)                                                             \
			fail("%s: %s (%s)", #expr, strerror((int)-rc_), r->err.text);    \
	} while (0)

/* ---- mounting ---- */

void real_make(struct real *r, const struct bfs_format_opts *format, const struct bfs_mount_opts *opts)
{
	char name[64];

	memset(r, 0, sizeof(*r));
	r->opts = *opts;
	CHECK(bdev_open(testdev_name("ram:96M", name, sizeof(name)), NULL, &r->dev, &r->err));
	CHECK(bfs_format(r->dev, format, &r->err));
	real_mount(r);
}

void real_mount(struct real *r)
{
	bdev_ref(r->dev);
	CHECK(bfs_mount_bdev(r->dev, &r->opts, &r->fs, &r->err));
}

static void print_problem(const struct bs_problem *p, void *arg)
{
	(void)arg;
	fprintf(stderr, "check: %s: %s\n", p->code, p->text);
}

static void check_image(struct real *r)
{
	struct bfs_check_opts opts = { .size = sizeof(opts), .report = print_problem };
	struct bfs_check_result result;

	bdev_ref(r->dev);
	CHECK(bfs_check(r->dev, &opts, &result, &r->err));
	if (result.problems)
		fail("the check found %llu problems", (unsigned long long)result.problems);
}

void real_remount(struct real *r)
{
	CHECK(bfs_unmount(r->fs));
	check_image(r);
	real_mount(r);
}

void real_crash(struct real *r)
{
	bfs_abandon(r->fs);
	check_image(r);
	real_mount(r);
}

void real_end(struct real *r)
{
	CHECK(bfs_unmount(r->fs));
	check_image(r);
	bdev_close(r->dev);
}

/* ---- operations ---- */

static const char *xattr_name(int which)
{
	static const char *const names[XATTRS] = { "user.one", "user.two", "user.three" };

	return names[which];
}

static uint64_t ino_at(const struct model *m, int node)
{
	return m->node[node].ino;
}

static int64_t do_symlink(struct real *r, uint64_t dir, const struct op_rec *op, struct bfs_attr *attr)
{
	char target[300];

	target_text(op->seed, target, sizeof(target));
	return bfs_symlink(r->fs, NULL, dir, name_text(op->name), target, 0, attr);
}

static int64_t do_xattr(struct real *r, uint64_t ino, const struct op_rec *op)
{
	uint8_t value[XATTR_MAX];

	if (op->kind == OP_RMXATTR)
		return bfs_removexattr(r->fs, NULL, ino, xattr_name(op->flags));
	fill(value, op->len, op->seed);
	return bfs_setxattr(r->fs, NULL, ino, xattr_name(op->flags), value, op->len, 0);
}

/* Buffers are misaligned now and then, for direct files. */
static uint8_t *io_buffer(const struct op_rec *op)
{
	static _Alignas(4096) uint8_t buf[FILE_MAX + 64];

	return buf + (op->seed & 1 ? 3 : 0);
}

static int64_t do_write(struct real *r, const struct op_rec *op)
{
	uint8_t *buf = io_buffer(op);

	fill(buf, op->len, op->seed);
	if (op->kind == OP_APPEND)
		return bfs_append(r->handle[op->handle], buf, op->len);
	return bfs_pwrite(r->handle[op->handle], buf, op->len, op->off);
}

static int64_t do_read(struct real *r, const struct model *m, const struct op_rec *op)
{
	const struct node *n = &m->node[m->handle[op->handle].node];
	uint64_t want = op->off < n->size ? MIN(op->len, n->size - op->off) : 0;
	uint8_t *buf = io_buffer(op);
	int64_t got = bfs_pread(r->handle[op->handle], buf, op->len, op->off);

	if (got != (int64_t)want)
		fail("read gave %lld bytes, %llu expected", (long long)got, (unsigned long long)want);
	for (uint64_t i = 0; i < want; i++) {
		if (buf[i] != n->data[op->off + i])
			fail("read: byte %llu is %02x, should be %02x", (unsigned long long)(op->off + i), buf[i],
			     n->data[op->off + i]);
	}
	return 0;
}

static bool all_zero(const struct node *n, uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to && i < n->size; i++) {
		if (n->data[i])
			return false;
	}
	return true;
}

/* Where data and holes begin is the file system's choice, but what it calls a hole reads as zeroes. */
static int64_t do_seek(struct real *r, const struct model *m, const struct op_rec *op)
{
	const struct node *n = &m->node[m->handle[op->handle].node];
	int64_t at = bfs_seek(r->handle[op->handle], op->off, op->flags);
	int64_t end;

	if (op->off >= n->size) {
		if (at != -ENXIO)
			fail("seek past the end gave %lld", (long long)at);
		return 0;
	}
	if (op->flags == SEEK_DATA) {
		if (at < 0 && at != -ENXIO)
			fail("SEEK_DATA gave %lld", (long long)at);
		if (!all_zero(n, op->off, at < 0 ? n->size : (uint64_t)at))
			fail("SEEK_DATA skipped data: %lld", (long long)at);
		return 0;
	}
	if (at < (int64_t)op->off || at > (int64_t)n->size)
		fail("SEEK_HOLE gave %lld", (long long)at);
	end = bfs_seek(r->handle[op->handle], (uint64_t)at, SEEK_DATA);
	if (!all_zero(n, (uint64_t)at, end < 0 ? n->size : (uint64_t)end))
		fail("there is data in the hole at %lld", (long long)at);
	return 0;
}

static int64_t do_lookup(struct real *r, const struct model *m, const struct op_rec *op)
{
	struct bfs_attr attr;
	int rc = bfs_lookup(r->fs, NULL, ino_at(m, op->dir), name_text(op->name), &attr);

	return rc ? rc : (int64_t)attr.ino;
}

static int64_t do_make(struct real *r, uint64_t dir, const struct op_rec *op, struct bfs_attr *attr)
{
	const char *name = name_text(op->name);

	switch (op->kind) {
	case OP_CREATE: return bfs_mknod(r->fs, NULL, dir, name, S_IFREG | 0644, 0, 0, attr);
	case OP_MKFIFO: return bfs_mknod(r->fs, NULL, dir, name, S_IFIFO | 0600, 0, 0, attr);
	case OP_MKDIR: return bfs_mkdir(r->fs, NULL, dir, name, 0755, 0, attr);
	default: return do_symlink(r, dir, op, attr);
	}
}

static int64_t apply_data(struct real *r, const struct model *m, const struct op_rec *op)
{
	struct bfs_file *file = op->handle < 0 ? NULL : r->handle[op->handle];

	switch (op->kind) {
	case OP_OPEN:
		return bfs_open(r->fs, NULL, ino_at(m, op->node), op->flags, BS_STREAM_UNKNOWN, &r->handle[op->handle]);
	case OP_CLOSE:
		bfs_close(file);
		r->handle[op->handle] = NULL;
		return 0;
	case OP_WRITE:
	case OP_APPEND: return do_write(r, op);
	case OP_READ: return do_read(r, m, op);
	case OP_TRUNCATE: return bfs_truncate(r->fs, NULL, ino_at(m, op->node), op->len);
	case OP_FALLOCATE: return bfs_fallocate(file, op->flags, op->off, op->len);
	case OP_COPY: return bfs_copy_range(file, op->off, r->handle[op->handle2], op->off2, op->len);
	case OP_SEEK: return do_seek(r, m, op);
	case OP_DROP: return bfs_advise(file, 0, 0, BFS_ADV_DONTNEED);
	case OP_FSYNC: return bfs_fsync(file, op->flags);
	case OP_SYNC: return bfs_sync(r->fs);
	default: return 0;
	}
}

/* What the copies of a node and of all below it are called. */
static void note_copies(struct real *r, const struct model *m, struct op_rec *op, int node, uint64_t ino)
{
	struct bfs_attr attr;

	op->copies[node] = ino;
	for (int i = 0; i < ENTRIES; i++) {
		const struct entry *e = &m->entry[i];

		if (!e->used || e->dir != node || e->node == op->dir)
			continue;
		CHECK(bfs_lookup(r->fs, NULL, ino, name_text(e->name), &attr));
		note_copies(r, m, op, e->node, attr.ino);
	}
}

static int64_t do_snapshot(struct real *r, const struct model *m, struct op_rec *op)
{
	struct bfs_attr attr;
	int rc = bfs_snapshot(r->fs, NULL, ino_at(m, op->node), ino_at(m, op->dir), name_text(op->name), 0, &attr);

	if (!rc)
		note_copies(r, m, op, op->node, attr.ino);
	return rc;
}

int64_t real_apply(struct real *r, const struct model *m, struct op_rec *op)
{
	const char *name = name_text(op->name);
	uint64_t dir = ino_at(m, op->dir);
	struct bfs_attr attr = { 0 };
	int64_t rc;

	switch (op->kind) {
	case OP_CREATE:
	case OP_MKFIFO:
	case OP_MKDIR:
	case OP_SYMLINK:
		rc = do_make(r, dir, op, &attr);
		op->ino = attr.ino;
		return rc;
	case OP_LINK: return bfs_link(r->fs, NULL, ino_at(m, op->node), dir, name, 0, NULL);
	case OP_UNLINK: return bfs_unlink(r->fs, NULL, dir, name);
	case OP_RMDIR: return bfs_rmdir(r->fs, NULL, dir, name);
	case OP_RENAME:
		return bfs_rename(r->fs, NULL, dir, name, ino_at(m, op->dir2), name_text(op->name2), (uint32_t)op->flags);
	case OP_SETXATTR:
	case OP_RMXATTR: return do_xattr(r, ino_at(m, op->node), op);
	case OP_CHMOD:
		attr.mode = (uint32_t)op->flags;
		return bfs_setattr(r->fs, NULL, ino_at(m, op->node), &attr, BFS_SET_MODE, NULL);
	case OP_LOOKUP: return do_lookup(r, m, op);
	case OP_SNAPSHOT: return do_snapshot(r, m, op);
	default: return apply_data(r, m, op);
	}
}
