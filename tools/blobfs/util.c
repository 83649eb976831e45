/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "tools/blobfs/verb.h"
#include "tools/common/common.h"

int verb_fail(const char *what, const char *path, int rc)
{
	tool_error("%s: %s: %s", what, path, strerror(-rc));
	return EXIT_FAILED;
}

int verb_print_json(struct json_object *o)
{
	int rc = printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE)) < 0;

	json_object_put(o);
	return rc ? EXIT_FAILED : EXIT_OK;
}

char *verb_join(const char *dir, const char *name)
{
	size_t n = strlen(dir);
	char *out = malloc(n + strlen(name) + 2);

	if (!out)
		return NULL;
	while (n > 0 && dir[n - 1] == '/')
		n--;
	memcpy(out, dir, n);
	out[n] = '/';
	strcpy(out + n + 1, name);
	return out;
}

const char *verb_base(const char *path, size_t *len)
{
	const char *end = path + strlen(path), *start;

	while (end > path && end[-1] == '/')
		end--;
	start = end;
	while (start > path && start[-1] != '/')
		start--;
	*len = (size_t)(end - start);
	return start;
}

const char *verb_type_name(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: return "file";
	case S_IFDIR: return "directory";
	case S_IFLNK: return "symlink";
	case S_IFIFO: return "fifo";
	case S_IFSOCK: return "socket";
	case S_IFCHR: return "character device";
	case S_IFBLK: return "block device";
	default: return "unknown";
	}
}

void verb_mode_text(uint32_t mode, char out[11])
{
	static const char rwx[] = "rwxrwxrwx";

	switch (mode & S_IFMT) {
	case S_IFREG: out[0] = '-'; break;
	case S_IFDIR: out[0] = 'd'; break;
	case S_IFLNK: out[0] = 'l'; break;
	case S_IFIFO: out[0] = 'p'; break;
	case S_IFSOCK: out[0] = 's'; break;
	case S_IFCHR: out[0] = 'c'; break;
	case S_IFBLK: out[0] = 'b'; break;
	default: out[0] = '?';
	}
	for (int i = 0; i < 9; i++)
		out[1 + i] = mode & (0400u >> i) ? rwx[i] : '-';
	if (mode & S_ISUID)
		out[3] = mode & S_IXUSR ? 's' : 'S';
	if (mode & S_ISGID)
		out[6] = mode & S_IXGRP ? 's' : 'S';
	if (mode & S_ISVTX)
		out[9] = mode & S_IXOTH ? 't' : 'T';
	out[10] = '\0';
}

static int add_name(const struct bfs_dirent *e, void *arg)
{
	struct name_list *list = arg;

	if (strcmp(e->name, ".") == 0 || strcmp(e->name, "..") == 0)
		return 0;
	if (list->n == list->cap) {
		size_t cap = list->cap ? 2 * list->cap : 64;
		char **name = realloc(list->name, cap * sizeof(*name));

		if (!name)
			return list->rc = -ENOMEM;
		list->name = name;
		list->cap = cap;
	}
	list->name[list->n] = strdup(e->name);
	if (!list->name[list->n])
		return list->rc = -ENOMEM;
	list->n++;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int verb_list(struct bfs *fs, uint64_t dir, struct name_list *out)
{
	int rc;

	memset(out, 0, sizeof(*out));
	rc = bfs_readdir(fs, dir, 0, false, add_name, out);
	if (out->rc)
		rc = out->rc;
	if (rc < 0) {
		verb_list_free(out);
		return rc;
	}
	if (out->n)
		qsort(out->name, out->n, sizeof(*out->name), by_name);
	return 0;
}

void verb_list_free(struct name_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->name[i]);
	free(list->name);
	memset(list, 0, sizeof(*list));
}

bool verb_goes_round(const struct trail *t)
{
	for (const struct trail *up = t->up; up; up = up->up)
		if (up->ino == t->ino)
			return true;
	return false;
}

/* Depth is the tree's; each level holds its names only. */
static int remove_tree(struct bfs *fs, const struct trail *up, uint64_t dir, const char *name)
{
	struct bfs_attr attr;
	struct trail here = { .up = up };
	struct name_list list;
	int rc = bfs_lookup(fs, NULL, dir, name, &attr);

	if (rc)
		return rc;
	if (!S_ISDIR(attr.mode))
		return bfs_unlink(fs, NULL, dir, name);
	here.ino = attr.ino;
	if (verb_goes_round(&here))
		return -EUCLEAN;
	rc = verb_list(fs, attr.ino, &list);
	if (rc)
		return rc;
	for (size_t i = 0; i < list.n && rc == 0; i++)
		rc = remove_tree(fs, &here, attr.ino, list.name[i]);
	verb_list_free(&list);
	return rc ? rc : bfs_rmdir(fs, NULL, dir, name);
}

int verb_remove_tree(struct bfs *fs, uint64_t dir, const char *name)
{
	return remove_tree(fs, NULL, dir, name);
}
