/* SPDX-License-Identifier: BSD-2-Clause */
/* The whole of the model against the whole of the file system. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "test/model/real.h"

static char difference[600];

static const char *differs(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static const char *differs(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(difference, sizeof(difference), fmt, ap);
	va_end(ap);
	return difference;
}

/* ---- names ---- */

struct dir_look {
	const struct model *m;
	int dir;
	unsigned seen;       /* entries that the model has too */
	unsigned chunk, n;   /* stop after so many */
	uint64_t cookie;
	const char *why;
};

static int look_at_entry(const struct bfs_dirent *e, void *arg)
{
	struct dir_look *l = arg;

	if (l->n++ == l->chunk)
		return 1;
	l->cookie = e->cookie;
	if (!strcmp(e->name, ".") || !strcmp(e->name, ".."))
		return 0;
	for (int i = 0; i < ENTRIES; i++) {
		const struct entry *want = &l->m->entry[i];

		if (!want->used || want->dir != l->dir || strcmp(name_text(want->name), e->name))
			continue;
		if (l->m->node[want->node].ino == e->ino && e->mode == (l->m->node[want->node].mode & S_IFMT)) {
			l->seen++;
			return 0;
		}
		l->why = differs("directory node %d: \"%.20s\" names another inode", l->dir, e->name);
		return 1;
	}
	l->why = differs("directory node %d: \"%.20s\" should not be there", l->dir, e->name);
	return 1;
}

static const char *compare_dir(struct real *r, const struct model *m, int dir)
{
	struct dir_look l = { .m = m, .dir = dir, .chunk = 1 + (unsigned)rand() % 6 };
	unsigned want = 0;

	do {
		int rc;

		l.n = 0;
		rc = bfs_readdir(r->fs, m->node[dir].ino, l.cookie, false, look_at_entry, &l);
		if (rc)
			return differs("directory node %d cannot be read: %d", dir, rc);
		if (l.why)
			return l.why;
	} while (l.n > l.chunk);
	for (int i = 0; i < ENTRIES; i++)
		want += m->entry[i].used && m->entry[i].dir == dir;
	return want == l.seen ? NULL : differs("directory node %d has %u names, should have %u", dir, l.seen, want);
}

static const char *compare_xattrs(struct real *r, const struct node *n)
{
	static const char *const names[XATTRS] = { "user.one", "user.two", "user.three" };
	uint8_t want[XATTR_MAX], got[XATTR_MAX];
	int64_t list = 0;

	for (int i = 0; i < XATTRS; i++) {
		int64_t len = bfs_getxattr(r->fs, n->ino, names[i], got, sizeof(got));

		if (!n->xattr[i].there) {
			if (len != -ENODATA)
				return differs("inode %llu: %s should not be there", (unsigned long long)n->ino, names[i]);
			continue;
		}
		list += (int64_t)strlen(names[i]) + 1;
		fill(want, n->xattr[i].len, n->xattr[i].seed);
		if (len != n->xattr[i].len || memcmp(want, got, n->xattr[i].len))
			return differs("inode %llu: %s has another value", (unsigned long long)n->ino, names[i]);
	}
	return bfs_listxattr(r->fs, n->ino, NULL, 0) == list ? NULL : differs("the list of attributes has another length");
}

static const char *compare_node(struct real *r, const struct model *m, int node, bool skip_size)
{
	const struct node *n = &m->node[node];
	struct bfs_attr attr;
	int rc = bfs_getattr(r->fs, n->ino, &attr);

	if (rc)
		return differs("inode %llu (node %d): %s", (unsigned long long)n->ino, node, strerror(-rc));
	if (attr.mode != n->mode || attr.nlink != n->nlink)
		return differs("node %d: mode %o links %u, should be %o and %u", node, attr.mode, attr.nlink, n->mode,
			       n->nlink);
	if (!S_ISDIR(n->mode) && !skip_size && attr.size != n->size)
		return differs("node %d: size %llu, should be %llu", node, (unsigned long long)attr.size,
			       (unsigned long long)n->size);
	return compare_xattrs(r, n);
}

const char *real_compare_names(struct real *r, const struct model *m, const bool *skip_size)
{
	struct bfs_statfs st;

	for (int i = 0; i < NODES; i++) {
		const char *why;

		if (!m->node[i].ino)
			continue;
		why = compare_node(r, m, i, skip_size && skip_size[i]);
		if (!why && S_ISDIR(m->node[i].mode))
			why = compare_dir(r, m, i);
		if (why)
			return why;
	}
	bfs_get_statfs(r->fs, &st);
	if (st.files != model_nodes(m))
		return differs("there are %llu inodes, should be %u", (unsigned long long)st.files, model_nodes(m));
	return NULL;
}

/* ---- content ---- */

uint64_t real_content(struct real *r, uint64_t ino, uint8_t *buf, uint64_t room)
{
	struct bfs_file *file;
	struct bfs_attr attr;
	int64_t got;

	if (bfs_open(r->fs, NULL, ino, O_RDONLY | (rand() % 4 ? 0 : O_DIRECT), BS_STREAM_UNKNOWN, &file))
		fail("inode %llu cannot be opened", (unsigned long long)ino);
	got = bfs_pread(file, buf, room, 0);
	if (got < 0)
		fail("inode %llu cannot be read: %s", (unsigned long long)ino, strerror((int)-got));
	if (bfs_getattr(r->fs, ino, &attr) || attr.size != (uint64_t)got)
		fail("inode %llu: %lld bytes read, its size is %llu", (unsigned long long)ino, (long long)got,
		     (unsigned long long)attr.size);
	bfs_close(file);
	return (uint64_t)got;
}

static const char *compare_file(struct real *r, const struct node *n)
{
	static _Alignas(4096) uint8_t buf[2 * FILE_MAX];
	uint64_t got = real_content(r, n->ino, buf, sizeof(buf));

	if (got != n->size)
		return differs("inode %llu: %llu bytes, should be %llu", (unsigned long long)n->ino,
			       (unsigned long long)got, (unsigned long long)n->size);
	for (uint64_t i = 0; i < got; i++) {
		if (buf[i] != n->data[i])
			return differs("inode %llu: byte %llu of %llu is %02x, should be %02x",
				       (unsigned long long)n->ino, (unsigned long long)i, (unsigned long long)got,
				       buf[i], n->data[i]);
	}
	return NULL;
}

static const char *compare_link(struct real *r, const struct node *n)
{
	char want[300], got[300];
	size_t len = target_text(n->target, want, sizeof(want));

	if (bfs_readlink(r->fs, n->ino, got, sizeof(got)) != (int)len || memcmp(want, got, len))
		return differs("symlink %llu has another target", (unsigned long long)n->ino);
	return NULL;
}

const char *real_compare_data(struct real *r, const struct model *m, const bool *skip)
{
	for (int i = 0; i < NODES; i++) {
		const struct node *n = &m->node[i];
		const char *why = NULL;

		if (!n->ino || (skip && skip[i]))
			continue;
		if (S_ISREG(n->mode))
			why = compare_file(r, n);
		else if (S_ISLNK(n->mode))
			why = compare_link(r, n);
		if (why)
			return why;
	}
	return NULL;
}
