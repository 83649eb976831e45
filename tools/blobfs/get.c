/* SPDX-License-Identifier: BSD-2-Clause */
/* blobfs get: copies files and trees out. */
#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/util.h"
#include "tools/blobfs/verb.h"
#include "tools/common/common.h"

struct seen_link { /* an inode with several names, and the first copy of it */
	uint64_t ino;
	char *path;
};

struct getter {
	struct bfs *fs;
	const struct call *call;
	char *buf;
	void *links;
	const struct trail *trail; /* the directories above the one being copied */
	bool tree, salvage;
	int result;
};

static int by_inode(const void *a, const void *b)
{
	const struct seen_link *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static void free_link(void *p)
{
	struct seen_link *s = p;

	free(s->path);
	free(s);
}

static int write_all(int fd, const char *buf, size_t len, uint64_t at, bool seekable)
{
	while (len) {
		ssize_t n = seekable ? pwrite(fd, buf, len, (off_t)at) : write(fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		buf += n;
		at += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* What can be read of a range, block by block; the rest stays a hole. */
static uint64_t skip_bad(struct getter *g, struct bfs_file *file, int fd, uint64_t at, uint64_t len)
{
	uint64_t bad = 0;

	for (uint64_t off = 0; off < len; off += BS_BLOCK) {
		int64_t n = bfs_pread(file, g->buf, BS_BLOCK, at + off);

		if (n < 0)
			bad++;
		else if (write_all(fd, g->buf, (size_t)n, at + off, true))
			break;
	}
	tool_error("export: inode %llu: %llu blocks from byte %llu on cannot be read; they are holes now",
		   (unsigned long long)bfs_file_ino(file), (unsigned long long)bad, (unsigned long long)at);
	g->result = EXIT_FAILED;
	return len;
}

/* Data only: holes stay holes where the target can have them. */
static int copy_bytes(struct getter *g, uint64_t ino, int fd)
{
	bool seekable = lseek(fd, 0, SEEK_CUR) >= 0;
	struct bfs_file *file;
	uint64_t at = 0, size;
	int rc = bfs_open(g->fs, NULL, ino, O_RDONLY, BS_STREAM_UNKNOWN, &file);

	if (rc)
		return rc;
	size = bfs_file_size(file);
	while (at < size) {
		int64_t next = seekable ? bfs_seek(file, at, SEEK_DATA) : (int64_t)at, n;

		if (next < 0) {
			rc = next == -ENXIO ? 0 : (int)next;
			break;
		}
		at = (uint64_t)next;
		n = bfs_pread(file, g->buf, COPY_CHUNK, at);
		if (n < 0 && g->salvage) {
			at += skip_bad(g, file, fd, at, MIN(size - at, COPY_CHUNK));
			continue;
		}
		if (n <= 0) {
			rc = (int)n;
			break;
		}
		rc = write_all(fd, g->buf, (size_t)n, at, seekable);
		if (rc)
			break;
		at += (uint64_t)n;
	}
	bfs_close(file);
	if (rc == 0 && seekable && ftruncate(fd, (off_t)size) && errno != EINVAL)
		rc = -errno;
	return rc;
}

static int copy_xattrs(struct getter *g, uint64_t ino, const char *to)
{
	char names[65536], *name;
	int64_t n = bfs_listxattr(g->fs, ino, names, sizeof(names));

	if (n < 0)
		return (int)n;
	for (name = names; name < names + n; name += strlen(name) + 1) {
		int64_t len = bfs_getxattr(g->fs, ino, name, g->buf, COPY_CHUNK);

		if (len < 0)
			return (int)len;
		if (lsetxattr(to, name, g->buf, (size_t)len, 0)) {
			tool_error("get: %s: cannot set attribute %s: %s", to, name, strerror(errno));
			g->result = EXIT_FAILED;
		}
	}
	return 0;
}

static struct timespec ns_timespec(int64_t ns)
{
	struct timespec t = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };

	if (t.tv_nsec < 0) {
		t.tv_nsec += 1000000000;
		t.tv_sec--;
	}
	return t;
}

static int copy_attributes(struct getter *g, const struct bfs_attr *a, const char *to)
{
	struct timespec times[2] = { ns_timespec(a->atime), ns_timespec(a->mtime) };
	int rc;

	if (!g->tree)
		return 0;
	if (lchown(to, a->uid, a->gid) && geteuid() == 0)
		return -errno;
	rc = copy_xattrs(g, a->ino, to);
	if (rc)
		return rc;
	if (!S_ISLNK(a->mode) && chmod(to, a->mode & 07777))
		return -errno;
	return utimensat(AT_FDCWD, to, times, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

/* A tree never goes through symlinks that lie where it is put. */
static int open_target(struct getter *g, const struct bfs_attr *a, const char *to)
{
	bool tree = g->tree;
	int fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | (tree ? O_NOFOLLOW : 0), tree ? 0600 : a->mode & 0777);

	if (fd < 0 && errno == ELOOP && tree && unlink(to) == 0)
		fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

/* What could not be copied whole is not left half-done. */
static int get_file(struct getter *g, const struct bfs_attr *a, const char *to)
{
	int fd = open_target(g, a, to), rc;
	struct stat st;

	if (fd < 0)
		return fd;
	rc = copy_bytes(g, a->ino, fd);
	if (rc && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		unlink(to);
	if (close(fd) && rc == 0)
		rc = -errno;
	return rc;
}

static int get_any(struct getter *g, const char *from, const struct bfs_attr *a, const char *to);

static int get_tree(struct getter *g, const char *from, const struct bfs_attr *a, const char *to)
{
	struct trail here = { .up = g->trail, .ino = a->ino };
	struct name_list list;
	struct stat st;
	int rc;

	if (!g->tree)
		return -EISDIR;
	if (verb_goes_round(&here))
		return -EUCLEAN;
	if (mkdir(to, 0700) && (errno != EEXIST || lstat(to, &st) || !S_ISDIR(st.st_mode)))
		return -errno;
	rc = verb_list(g->fs, a->ino, &list);
	if (rc)
		return rc;
	g->trail = &here;
	for (size_t i = 0; i < list.n; i++) {
		char *child = verb_join(from, list.name[i]), *out = verb_join(to, list.name[i]);
		struct bfs_attr ca;

		rc = child && out ? bfs_lookup(g->fs, NULL, a->ino, list.name[i], &ca) : -ENOMEM;
		if (rc == 0)
			rc = get_any(g, child, &ca, out);
		if (rc)
			g->result = verb_fail("get", child ? child : from, rc);
		free(child);
		free(out);
	}
	g->trail = here.up;
	verb_list_free(&list);
	return 0;
}

static int get_symlink(struct getter *g, const struct bfs_attr *a, const char *to)
{
	char target[BFS_SYMLINK_MAX + 1];
	int n = bfs_readlink(g->fs, a->ino, target, BFS_SYMLINK_MAX);

	if (n < 0)
		return n;
	target[n] = '\0';
	if (symlink(target, to) == 0)
		return 0;
	return errno == EEXIST && unlink(to) == 0 && symlink(target, to) == 0 ? 0 : -errno;
}

static int get_special(const struct bfs_attr *a, const char *to)
{
	if (mknod(to, a->mode, (dev_t)a->rdev) == 0)
		return 0;
	return errno == EEXIST && unlink(to) == 0 && mknod(to, a->mode, (dev_t)a->rdev) == 0 ? 0 : -errno;
}

/* True when this inode was copied before: *rc of making the hard link. */
static bool get_known_link(struct getter *g, const struct bfs_attr *a, const char *to, int *rc)
{
	struct seen_link key = { .ino = a->ino };
	void *found = tfind(&key, &g->links, by_inode);

	if (!found)
		return false;
	unlink(to);
	*rc = link((*(struct seen_link **)found)->path, to) ? -errno : 0;
	return true;
}

static int remember_link(struct getter *g, const struct bfs_attr *a, const char *to)
{
	struct seen_link *s = malloc(sizeof(*s));

	if (!s)
		return -ENOMEM;
	*s = (struct seen_link){ a->ino, strdup(to) };
	if (s->path && tsearch(s, &g->links, by_inode))
		return 0;
	free_link(s);
	return -ENOMEM;
}

static int get_any(struct getter *g, const char *from, const struct bfs_attr *a, const char *to)
{
	bool several = g->tree && !S_ISDIR(a->mode) && a->nlink > 1;
	int rc;

	if (g->call->opt['v'])
		printf("%s\n", from);
	if (several && get_known_link(g, a, to, &rc))
		return rc;
	if (S_ISDIR(a->mode))
		rc = get_tree(g, from, a, to);
	else if (S_ISREG(a->mode))
		rc = get_file(g, a, to);
	else if (S_ISLNK(a->mode))
		rc = get_symlink(g, a, to);
	else
		rc = get_special(a, to);
	if (rc == 0)
		rc = copy_attributes(g, a, to);
	return rc || !several ? rc : remember_link(g, a, to);
}

static int get_one(struct getter *g, const char *from, const char *to)
{
	struct bfs_attr a;
	struct stat st;
	const char *base;
	char *name, *out;
	size_t len;
	int rc = bfs_resolve(g->fs, NULL, from, g->tree ? BFS_NOFOLLOW : 0, &a);

	if (rc)
		return rc;
	if (strcmp(to, "-") == 0)
		return S_ISREG(a.mode) ? copy_bytes(g, a.ino, STDOUT_FILENO) : -EISDIR;
	if (stat(to, &st) || !S_ISDIR(st.st_mode))
		return get_any(g, from, &a, to);
	base = verb_base(from, &len);
	if (len == 0)
		return get_any(g, from, &a, to); /* "/" itself, into that directory */
	name = strndup(base, len);
	out = name ? verb_join(to, name) : NULL;
	rc = out ? get_any(g, from, &a, out) : -ENOMEM;
	free(name);
	free(out);
	return rc;
}

int verb_get(struct bfs *fs, const struct call *call)
{
	const char *to = call->argv[call->argc - 1];
	struct getter g = { .fs = fs, .call = call, .buf = malloc(COPY_CHUNK), .result = EXIT_OK,
			    .tree = call->opt['r'] };
	struct stat st;

	if (!g.buf)
		return verb_fail("get", to, -ENOMEM);
	if (call->argc > 2 && strcmp(to, "-") != 0 && (stat(to, &st) || !S_ISDIR(st.st_mode))) {
		free(g.buf);
		return verb_fail("get", to, -ENOTDIR);
	}
	for (int i = 0; i < call->argc - 1; i++) {
		int rc = get_one(&g, call->argv[i], to);

		if (rc)
			g.result = verb_fail("get", call->argv[i], rc);
	}
	tdestroy(g.links, free_link);
	free(g.buf);
	return g.result;
}

int get_everything(struct bfs *fs, const struct call *call, const char *dir, bool salvage)
{
	struct getter g = { .fs = fs, .call = call, .buf = malloc(COPY_CHUNK), .result = EXIT_OK, .tree = true, .salvage = salvage };
	struct bfs_attr a;
	int rc = g.buf ? bfs_getattr(fs, BFS_ROOT_INO, &a) : -ENOMEM;

	if (!rc)
		rc = get_any(&g, "/", &a, dir);
	if (rc)
		g.result = verb_fail("export", dir, rc);
	tdestroy(g.links, free_link);
	free(g.buf);
	return g.result;
}
