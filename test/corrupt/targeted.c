/* SPDX-License-Identifier: BSD-2-Clause */
/* Single, deliberate damages with right checksums: checking finds each, by its code. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "blobfs/format.h"
#include "test/corrupt/corrupt.h"

struct target {
	struct scratch *s;
	int structure;              /* changed, to be sealed; -1: nothing suitable was found */
};

/* The nth record of the checkpoint that `fits`. */
typedef bool (*fits_fn)(const struct bs_rec_disk *d);

static struct bs_rec_disk *find(struct target *t, fits_fn fits, int nth)
{
	const struct map *m = t->s->map;

	for (int i = 0; i < m->n_rec; i++) {
		const struct record *r = &m->rec[i];
		const struct structure *st = &m->s[r->structure];
		struct bs_rec_disk *d = (void *)(t->s->mem + (uint64_t)st->block * BS_BLOCK + r->offset);

		if (st->kind != LEAF || !fits(d) || nth--)
			continue;
		t->structure = r->structure;
		return d;
	}
	t->structure = -1;
	return NULL;
}

static struct bs_run_disk *run_of(struct bs_rec_disk *d)
{
	return (struct bs_run_disk *)(d + 1);
}

static struct bfs_dirent_disk *dirent_of(struct bs_rec_disk *d)
{
	return (struct bfs_dirent_disk *)(d + 1);
}

static struct bfs_inode_disk *inode_of(const struct bs_rec_disk *d)
{
	return (struct bfs_inode_disk *)((uint8_t *)(uintptr_t)(d + 1) + sizeof(struct bs_header_disk));
}

static bool is_run(const struct bs_rec_disk *d)
{
	return d->kind == BS_KIND_RUN;
}

static bool is_dir_entry(const struct bs_rec_disk *d)
{
	return d->kind == BFS_KIND_DIRENT && ((const struct bfs_dirent_disk *)(d + 1))->type == S_IFDIR >> 12;
}

static bool is_file_entry(const struct bs_rec_disk *d)
{
	return d->kind == BFS_KIND_DIRENT && ((const struct bfs_dirent_disk *)(d + 1))->type == S_IFREG >> 12;
}

static bool is_xattr(const struct bs_rec_disk *d)
{
	return d->kind == BFS_KIND_XATTR;
}

static bool is_file(const struct bs_rec_disk *d)
{
	return d->kind == BS_KIND_HEADER && S_ISREG(le32_get(inode_of(d)->mode));
}

static bool is_dir(const struct bs_rec_disk *d)
{
	return d->kind == BS_KIND_HEADER && S_ISDIR(le32_get(inode_of(d)->mode));
}

static void overlap(struct target *t)
{
	const struct bs_rec_disk *a = find(t, is_run, 3);
	struct bs_rec_disk *b = find(t, is_run, 8);

	memcpy(run_of(b)->phys, ((const struct bs_run_disk *)(a + 1))->phys, 5);
}

static void out_of_device(struct target *t)
{
	uint64_t end = IMAGE_BLOCKS;

	memcpy(run_of(find(t, is_run, 2))->phys, &end, 5);
}

static void over_superblock(struct target *t)
{
	uint64_t copy = BS_SB_COPY_BLOCK;

	memcpy(run_of(find(t, is_run, 2))->phys, &copy, 5);
}

static void over_log(struct target *t)
{
	uint64_t log = le64_get(((const struct bs_sb_disk *)t->s->mem)->log_segment);

	memcpy(run_of(find(t, is_run, 2))->phys, &log, 5);
}

static void empty_run(struct target *t)
{
	memset(run_of(find(t, is_run, 1))->count, 0, 5);
}

static void missing_inode(struct target *t)
{
	dirent_of(find(t, is_file_entry, 5))->ino = le64_make(123456789);
}

static void directory_twice(struct target *t)
{
	le64 other = dirent_of(find(t, is_dir_entry, 0))->ino;

	dirent_of(find(t, is_dir_entry, 2))->ino = other;
}

static void type_of_entry(struct target *t)
{
	dirent_of(find(t, is_file_entry, 4))->type = S_IFIFO >> 12;
}

static void name_of_entry(struct target *t)
{
	((char *)(dirent_of(find(t, is_file_entry, 3)) + 1))[2] = '\n';
}

static void name_of_xattr(struct target *t)
{
	((char *)(find(t, is_xattr, 0) + 1))[3] = '\n';
}

static void links(struct target *t)
{
	inode_of(find(t, is_file, 6))->nlink = le32_make(9);
}

static void orphaned(struct target *t)
{
	inode_of(find(t, is_file, 6))->nlink = le32_make(0);
}

static void entries(struct target *t)
{
	((struct bs_header_disk *)(find(t, is_dir, 1) + 1))->size = le64_make(1000);
}

static void file_size(struct target *t)
{
	for (int i = 0; find(t, is_file, i); i++) {
		struct bs_header_disk *h = (struct bs_header_disk *)(find(t, is_file, i) + 1);

		if (le64_get(h->size) > 3 * BS_BLOCK) {
			h->size = le64_make(100);
			return;
		}
	}
}

static void no_root(struct target *t)
{
	inode_of(find(t, is_dir, 0))->mode = le32_make(S_IFREG | 0644);
}

/* The log goes on in a segment whose header is lost: what stands there must not be dropped in silence. */
static void lost_segment(struct target *t)
{
	int n = 0;

	t->structure = -1;
	for (int i = 0; i < t->s->map->n; i++)
		if (t->s->map->s[i].kind == SEGMENT && n++ == 1) {
			memset(t->s->mem + (uint64_t)t->s->map->s[i].block * BS_BLOCK, 0, BS_BLOCK);
			t->structure = 0; /* a superblock: that one is right as it is */
			return;
		}
}

static const struct {
	const char *name, *code;
	int image;
	void (*fn)(struct target *t);
} targets[] = {
	{ "overlapping_runs", "run-overlap", 0, overlap },
	{ "run_out_of_device", "page-record", 0, out_of_device },
	{ "run_over_superblock", "run-overlap", 0, over_superblock },
	{ "run_over_log", "run-overlap", 0, over_log },
	{ "empty_run", "page-record", 0, empty_run },
	{ "name_of_missing_inode", "dangling-name", 0, missing_inode },
	{ "two_names_of_a_directory", "directory-named-twice", 0, directory_twice },
	{ "wrong_type_of_name", "wrong-type", 0, type_of_entry },
	{ "changed_name", "bad-key", 0, name_of_entry },
	{ "changed_attribute_name", "bad-key", 0, name_of_xattr },
	{ "wrong_link_count", "wrong-links", 0, links },
	{ "named_orphan", "wrong-links", 0, orphaned },
	{ "wrong_size_of_directory", "wrong-size", 0, entries },
	{ "data_past_end_of_file", "data-past-end", 0, file_size },
	{ "root_is_a_file", "bad-inode", 0, no_root },
	{ "lost_segment_header", "log-segment", 2, lost_segment },
};

static bool one_target(struct scratch *scratch, size_t i)
{
	struct scratch *s = &scratch[targets[i].image];
	struct target t = { .s = s };
	struct rnd r = { i };
	struct verdict v;
	bool ok;

	targets[i].fn(&t);
	if (t.structure < 0) {
		printf("not ok corrupt/target_%s: the image holds nothing to do it to\n", targets[i].name);
		return false;
	}
	map_seal(s->map, s->mem, t.structure);
	use_device(image_device(s->image, s->mem, IMAGE_SIZE), &r, &v);
	damage_undo(s);
	ok = !v.check_rc && v.problems && strstr(v.codes, targets[i].code) && !v.fault[0];
	printf("%sok corrupt/target_%s: check %d, found %s%s\n", ok ? "" : "not ", targets[i].name, v.check_rc,
	       v.codes[0] ? v.codes : "nothing", v.fault);
	return ok;
}

bool targets_run(struct scratch *scratch)
{
	bool ok = true;

	for (size_t i = 0; i < ARRAY_SIZE(targets); i++)
		ok &= one_target(scratch, i);
	return ok;
}
