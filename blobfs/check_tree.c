/* SPDX-License-Identifier: BSD-2-Clause */
/* Pass "tree": link counts, parents, and whether every directory hangs below the root. */
#include <sys/stat.h>

#include "blobfs/check.h"

#define PASS "tree"

static void check_directory(struct check *c, const struct seen *s)
{
	unsigned long long ino = s->ino;
	bool root = s->ino == BFS_ROOT_INO;

	if (s->size != s->entries)
		check_problem(c, PASS, "wrong-size", s->ino, "directory %llu has %llu entries, its header says %llu",
			      ino, (unsigned long long)s->entries, (unsigned long long)s->size);
	if (!s->nlink) {
		if (s->names || s->entries)
			check_problem(c, PASS, "wrong-links", s->ino,
				      "directory %llu is deleted and has a name or entries", ino);
		return;
	}
	if (s->nlink != s->subdirs + 2)
		check_problem(c, PASS, "wrong-links", s->ino, "directory %llu: link count %u, should be %u", ino,
			      s->nlink, s->subdirs + 2);
	if (root && s->names)
		check_problem(c, PASS, "directory-named-twice", s->ino, "the root has a name in directory %llu",
			      (unsigned long long)s->named_by);
	else if (!root && !s->names)
		check_problem(c, PASS, "no-name", s->ino, "directory %llu has no name", ino);
	else if (!root && s->parent != s->named_by)
		check_problem(c, PASS, "wrong-parent", s->ino,
			      "directory %llu: its parent is said to be %llu, and is %llu", ino,
			      (unsigned long long)s->parent, (unsigned long long)s->named_by);
}

static void check_links(struct check *c, const struct seen *s)
{
	if (S_ISDIR(s->mode))
		check_directory(c, s);
	else if (s->names != s->nlink)
		check_problem(c, PASS, "wrong-links", s->ino, "inode %llu: link count %u, has %u names",
			      (unsigned long long)s->ino, s->nlink, s->names);
}

/* Where a way up from s ends, going by the entries: the first directory whose state is known, or that was passed. */
static uint8_t way_up(struct check *c, struct seen *s)
{
	while (s && s->reach == CHECK_UNKNOWN) {
		s->reach = CHECK_UNDER_WAY;
		s = s->named_by ? check_find(c, s->named_by) : NULL;
	}
	return s && s->reach == CHECK_GOOD ? CHECK_GOOD : CHECK_BAD;
}

static void settle(struct check *c, struct seen *s, uint8_t reach)
{
	while (s && s->reach == CHECK_UNDER_WAY) {
		s->reach = reach;
		s = s->named_by ? check_find(c, s->named_by) : NULL;
	}
}

static void check_reach(struct check *c, struct seen *s)
{
	if (!S_ISDIR(s->mode) || !s->nlink || !s->names)
		return; /* without a name: reported already */
	if (s->reach == CHECK_UNKNOWN)
		settle(c, s, way_up(c, s));
	if (s->reach == CHECK_BAD)
		check_problem(c, PASS, "unreachable", s->ino, "directory %llu cannot be reached from the root",
			      (unsigned long long)s->ino);
}

int check_tree(struct check *c)
{
	struct seen *root = check_find(c, BFS_ROOT_INO);

	if (root)
		root->reach = CHECK_GOOD;
	for (size_t i = 0; i < c->n; i++) {
		struct seen *s = &c->seen[i];

		check_progress(c, PASS, i + 1);
		if (!s->mode)
			continue;
		check_links(c, s);
		check_reach(c, s);
	}
	return 0;
}
