/* SPDX-License-Identifier: BSD-2-Clause */
/* blobfs ls */
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "base/util.h"
#include "tools/blobfs/verb.h"
#include "tools/common/common.h"

struct lister {
	struct bfs *fs;
	const struct call *call;
	struct json_object *all; /* --json */
	bool headings;           /* several directories: name each */
	bool printed;
	int result;
};

static void print_long(struct lister *l, const struct bfs_attr *a)
{
	const struct passwd *pw = getpwuid(a->uid);
	const struct group *gr = getgrgid(a->gid);
	char mode[11], when[40], size[32], user[16], group[16];
	time_t t = (time_t)(a->mtime / 1000000000), now = time(NULL);
	struct tm tm;

	verb_mode_text(a->mode, mode);
	snprintf(user, sizeof(user), "%u", a->uid);
	snprintf(group, sizeof(group), "%u", a->gid);
	localtime_r(&t, &tm);
	strftime(when, sizeof(when), now - t > 180 * 86400 || t > now ? "%b %e  %Y" : "%b %e %H:%M", &tm);
	if (S_ISCHR(a->mode) || S_ISBLK(a->mode))
		snprintf(size, sizeof(size), "%u, %u", major(a->rdev), minor(a->rdev));
	else if (l->call->opt['h'])
		base_format_size(a->size, size, sizeof(size));
	else
		snprintf(size, sizeof(size), "%" PRIu64, a->size);
	printf("%s %3u %-8s %-8s %12s %s ", mode, a->nlink, pw ? pw->pw_name : user, gr ? gr->gr_name : group, size,
	       when);
}

static void emit_json(struct lister *l, const char *path, const struct bfs_attr *a, const char *target)
{
	struct json_object *o = json_object_new_object();
	char mode[8];

	snprintf(mode, sizeof(mode), "%04o", a->mode & 07777);
	json_object_object_add(o, "path", json_object_new_string(path));
	json_object_object_add(o, "type", json_object_new_string(verb_type_name(a->mode)));
	json_object_object_add(o, "inode", json_object_new_uint64(a->ino));
	json_object_object_add(o, "mode", json_object_new_string(mode));
	json_object_object_add(o, "links", json_object_new_uint64(a->nlink));
	json_object_object_add(o, "uid", json_object_new_uint64(a->uid));
	json_object_object_add(o, "gid", json_object_new_uint64(a->gid));
	json_object_object_add(o, "size", json_object_new_uint64(a->size));
	json_object_object_add(o, "mtime_ns", json_object_new_int64(a->mtime));
	if (target)
		json_object_object_add(o, "target", json_object_new_string(target));
	json_object_array_add(l->all, o);
}

static void emit(struct lister *l, const char *path, const char *name, const struct bfs_attr *a)
{
	char target[BFS_SYMLINK_MAX + 1];
	int n = -1;

	if (S_ISLNK(a->mode) && (l->all || l->call->opt['l'])) {
		n = bfs_readlink(l->fs, a->ino, target, BFS_SYMLINK_MAX);
		if (n < 0)
			l->result = verb_fail("ls", path, n);
		else
			target[n] = '\0';
	}
	if (l->all) {
		emit_json(l, path, a, n >= 0 ? target : NULL);
		return;
	}
	if (l->call->opt['i'])
		printf("%10" PRIu64 " ", a->ino);
	if (l->call->opt['l'])
		print_long(l, a);
	printf("%s%s%s\n", name, n >= 0 ? " -> " : "", n >= 0 ? target : "");
}

static void list_directory(struct lister *l, const struct trail *up, uint64_t ino, const char *path);

/* One name of a directory; then, with -R, remembered directories follow after the listing. */
static void list_names(struct lister *l, const struct trail *dir, const char *path, const struct name_list *names,
		       bool descend)
{
	for (size_t i = 0; i < names->n; i++) {
		struct bfs_attr a;
		char *full;
		int rc;

		if (names->name[i][0] == '.' && !l->call->opt['a'])
			continue;
		full = verb_join(path, names->name[i]);
		rc = full ? bfs_lookup(l->fs, NULL, dir->ino, names->name[i], &a) : -ENOMEM;
		if (rc)
			l->result = verb_fail("ls", full ? full : names->name[i], rc);
		else if (!descend)
			emit(l, full, names->name[i], &a);
		else if (S_ISDIR(a.mode))
			list_directory(l, dir, a.ino, full);
		free(full);
	}
}

static void list_directory(struct lister *l, const struct trail *up, uint64_t ino, const char *path)
{
	struct trail here = { .up = up, .ino = ino };
	struct name_list names;
	int rc = verb_goes_round(&here) ? -EUCLEAN : verb_list(l->fs, ino, &names);

	if (rc) {
		l->result = verb_fail("ls", path, rc);
		return;
	}
	if (l->headings && !l->all)
		printf("%s%s:\n", l->printed ? "\n" : "", path);
	l->printed = true;
	list_names(l, &here, path, &names, false);
	if (l->call->opt['R'])
		list_names(l, &here, path, &names, true);
	verb_list_free(&names);
}

int verb_ls(struct bfs *fs, const struct call *call)
{
	static char *root[] = { (char *)"/" };
	struct lister l = { .fs = fs, .call = call, .result = EXIT_OK };
	char **path = call->argc ? call->argv : root;
	int n = call->argc ? call->argc : 1;

	l.headings = n > 1 || call->opt['R'];
	l.all = call->json ? json_object_new_array() : NULL;
	for (int i = 0; i < n; i++) {
		struct bfs_attr a;
		int rc = bfs_resolve(fs, NULL, path[i], call->opt['l'] || call->opt['d'] ? BFS_NOFOLLOW : 0, &a);

		if (rc)
			l.result = verb_fail("ls", path[i], rc);
		else if (S_ISDIR(a.mode) && !call->opt['d'])
			list_directory(&l, NULL, a.ino, path[i]);
		else
			emit(&l, path[i], path[i], &a);
	}
	if (l.all && verb_print_json(l.all))
		l.result = EXIT_FAILED;
	return l.result;
}
