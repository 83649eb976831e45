/* SPDX-License-Identifier: BSD-2-Clause */
/* bfs_check finds each kind of damage, and calls meet it with an error. Damage is done by transactions on the store. */
#include "blobfs/format.h"
#include "test/unit/blobfs/names.h"

struct found {
	char codes[512];
	unsigned n;
};

static void note(const struct bs_problem *p, void *arg)
{
	struct found *f = arg;

	f->n++;
	EXPECT_NE_INT(0, p->text[0]);
	if (strlen(f->codes) + strlen(p->code) + 2 < sizeof(f->codes)) {
		strcat(f->codes, p->code);
		strcat(f->codes, " ");
	}
}

static void look(struct world *w, struct found *f, struct bfs_check_result *result)
{
	struct bfs_check_opts opts = { .size = sizeof(opts), .report = note, .arg = f };

	memset(f, 0, sizeof(*f));
	bdev_ref(w->keep);
	ASSERT_OK(bfs_check(w->keep, &opts, result, &w->err));
	EXPECT_EQ_INT(f->n, result->problems);
}

/* ---- doing damage ---- */

struct damage {
	struct bs *bs;
	struct bs_txn *txn;
	uint64_t dir, file, sub, link; /* inodes of the tree */
};

static struct bs_blob *blob_of(const struct damage *d, uint64_t ino)
{
	struct bs_blob *blob = bs_blob_get(d->bs, ino);

	ASSERT_TRUE(blob != NULL);
	return blob;
}

static void put(const struct damage *d, uint64_t ino, unsigned kind, uint64_t key, const void *value, uint32_t len)
{
	struct bs_blob *blob = blob_of(d, ino);

	ASSERT_OK(bs_txn_put(d->txn, blob, kind, key, value, len));
	bs_blob_put(blob);
}

static void entry(const struct damage *d, uint64_t dir, uint64_t key, uint64_t ino, uint32_t mode, const char *name)
{
	char value[300];
	struct bfs_dirent_disk e = { .ino = le64_make(ino), .type = (uint8_t)(mode >> 12) };

	memcpy(value, &e, sizeof(e));
	memcpy(value + sizeof(e), name, strlen(name));
	put(d, dir, BFS_KIND_DIRENT, key, value, (uint32_t)(sizeof(e) + strlen(name)));
}

static int first_key(uint64_t key, const void *value, uint32_t len, void *arg)
{
	(void)value;
	(void)len;
	*(uint64_t *)arg = key;
	return 1;
}

/* The key of an entry, found by its name. */
static uint64_t key_of(const struct damage *d, uint64_t dir, unsigned kind)
{
	struct bs_blob *blob = blob_of(d, dir);
	uint64_t key = 0;

	ASSERT_EQ_INT(1, bs_item_scan(blob, kind, 0, first_key, &key));
	bs_blob_put(blob);
	return key;
}

static void header(const struct damage *d, uint64_t ino, void (*change)(struct bfs_inode_disk *disk, uint64_t *size))
{
	struct bs_blob *blob = blob_of(d, ino);
	struct bs_blob_info info;
	struct bfs_inode_disk disk;

	bs_blob_get_info(blob, &info);
	memcpy(&disk, info.user, sizeof(disk));
	change(&disk, &info.size);
	ASSERT_OK(bs_txn_header(d->txn, blob, info.size, &disk, sizeof(disk)));
	bs_blob_put(blob);
}

static void set_links(struct bfs_inode_disk *disk, uint64_t *size) { disk->nlink = le32_make(9); (void)size; }
static void set_mode(struct bfs_inode_disk *disk, uint64_t *size) { disk->mode = le32_make(0170644); (void)size; }
static void set_flags(struct bfs_inode_disk *disk, uint64_t *size) { disk->flags = le32_make(1); (void)size; }
static void set_size(struct bfs_inode_disk *disk, uint64_t *size) { *size += 5; (void)disk; }
static void set_parent(struct bfs_inode_disk *disk, uint64_t *size) { disk->parent = le64_make(77); (void)size; }

static void links(struct damage *d) { header(d, d->file, set_links); }
static void dir_links(struct damage *d) { header(d, d->dir, set_links); }
static void mode(struct damage *d) { header(d, d->file, set_mode); }
static void flags(struct damage *d) { header(d, d->file, set_flags); }
static void dir_size(struct damage *d) { header(d, d->dir, set_size); }
static void parent(struct damage *d) { header(d, d->sub, set_parent); }
static void link_size(struct damage *d) { header(d, d->link, set_size); }
static void dangling(struct damage *d)
{
	entry(d, d->dir, key_of(d, d->dir, BFS_KIND_DIRENT), 4711, S_IFREG, "file");
}
static void slash(struct damage *d) { entry(d, d->dir, key_of(d, d->dir, BFS_KIND_DIRENT), d->file, S_IFREG, "a/b"); }
static void wrong_type(struct damage *d)
{
	entry(d, d->dir, key_of(d, d->dir, BFS_KIND_DIRENT), d->file, S_IFDIR, "file");
}
static void wrong_key(struct damage *d) { entry(d, d->dir, 0x4200, d->file, S_IFREG, "elsewhere"); }
static void low_key(struct damage *d) { entry(d, d->dir, 7, d->file, S_IFREG, "low"); }
static void twice(struct damage *d)
{
	entry(d, d->dir, key_of(d, d->dir, BFS_KIND_DIRENT) + 1, d->file, S_IFREG, "file");
}
static void cycle(struct damage *d) /* sub hangs in itself, and nowhere else */
{
	struct bs_blob *root = blob_of(d, ROOT);

	ASSERT_OK(bs_txn_del(d->txn, root, BFS_KIND_DIRENT, key_of(d, ROOT, BFS_KIND_DIRENT)));
	bs_blob_put(root);
	entry(d, d->sub, 0x4200, d->sub, S_IFDIR, "self");
}
static void no_target(struct damage *d)
{
	struct bs_blob *blob = blob_of(d, d->link);

	ASSERT_OK(bs_txn_del(d->txn, blob, BFS_KIND_SYMLINK, 0));
	bs_blob_put(blob);
}
static void bad_xattr(struct damage *d) { put(d, d->file, BFS_KIND_XATTR, 0x4200, "\xffuser.x", 7); }
static void unknown_kind(struct damage *d) { put(d, d->file, BS_KIND_MAX, 1, "?", 1); }
static void file_entry(struct damage *d) { entry(d, d->file, 0x4200, d->file, S_IFREG, "x"); }
static void fs_item(struct damage *d) { put(d, ROOT, BFS_KIND_FS, 0, "short", 5); }
static void blocks(struct damage *d)
{
	struct bs_blob *blob = blob_of(d, d->link);

	ASSERT_OK(bs_txn_prealloc(d->txn, blob, 0, 1, BS_STREAM_UNKNOWN));
	bs_blob_put(blob);
}

/* A snapshot's: repair may change what nobody else may. */
static void seal(const struct damage *d, uint64_t ino, uint64_t more)
{
	struct bs_blob *blob = blob_of(d, ino);
	struct bs_blob_info info;

	bs_blob_get_info(blob, &info);
	ASSERT_OK(bs_txn_seal(d->txn, blob, info.size + more, info.user, info.user_len));
	bs_blob_put(blob);
}
static void sealed_size(struct damage *d) { seal(d, d->dir, 5); }
static void sealed_blocks(struct damage *d)
{
	blocks(d);
	seal(d, d->link, 0);
}

static const struct {
	const char *code;
	void (*fn)(struct damage *d);
} damages[] = {
	{ "wrong-links", links },
	{ "wrong-links", dir_links },
	{ "bad-inode", mode },
	{ "bad-inode", flags },
	{ "wrong-size", dir_size },
	{ "wrong-parent", parent },
	{ "bad-symlink", link_size },
	{ "dangling-name", dangling },
	{ "bad-entry", slash },
	{ "wrong-type", wrong_type },
	{ "bad-key", wrong_key },
	{ "bad-entry", low_key },
	{ "duplicate-name", twice },
	{ "unreachable", cycle },
	{ "bad-symlink", no_target },
	{ "bad-xattr", bad_xattr },
	{ "unknown-items", unknown_kind },
	{ "entries-of-no-directory", file_entry },
	{ "bad-fs-item", fs_item },
	{ "blocks-of-no-file", blocks },
	{ "wrong-size", sealed_size },
	{ "blocks-of-no-file", sealed_blocks },
};

/* Everything that can be asked of a damaged tree: errors are fine, crashes are not. */
static int touch_one(const struct bfs_dirent *e, void *arg)
{
	struct bfs *fs = arg;
	struct bfs_attr attr;
	char buf[64];

	bfs_getattr(fs, e->ino, &attr);
	bfs_readlink(fs, e->ino, buf, sizeof(buf));
	bfs_listxattr(fs, e->ino, buf, sizeof(buf));
	bfs_getxattr(fs, e->ino, "user.x", buf, sizeof(buf));
	bfs_lookup(fs, NULL, e->ino, "file", &attr);
	return 0;
}

static void touch_all(struct bfs *fs, const struct damage *d)
{
	bfs_readdir(fs, ROOT, 0, true, touch_one, fs);
	bfs_readdir(fs, d->dir, 0, true, touch_one, fs);
	bfs_readdir(fs, d->sub, 0, false, touch_one, fs);
	bfs_mknod(fs, NULL, d->dir, "new", S_IFREG | 0644, 0, 0, NULL);
	bfs_rename(fs, NULL, d->dir, "file", d->sub, "moved", 0);
	bfs_rename(fs, NULL, d->sub, "self", ROOT, "moved", 0);
	bfs_rename(fs, NULL, ROOT, "sub", d->dir, "sub", 0);
	bfs_unlink(fs, NULL, d->dir, "file");
	bfs_rmdir(fs, NULL, ROOT, "sub");
	bfs_rmdir(fs, NULL, d->dir, "sub");
}

static bool all_safe(const char *codes)
{
	char copy[512], *save, *code;

	strcpy(copy, codes);
	for (code = strtok_r(copy, " ", &save); code; code = strtok_r(NULL, " ", &save))
		if (strcmp(code, "wrong-links") && strcmp(code, "wrong-size") && strcmp(code, "wrong-parent") && strcmp(code, "data-past-end"))
			return false;
	return true;
}

/* What loses nothing is repaired by itself; the rest when everything may be. Then there is nothing left, and nothing to do. */
static void mend(struct world *w, const char *codes)
{
	struct bfs_repair_opts opts = { .size = sizeof(opts) };
	struct bfs_check_result result;
	struct bfs_repair_result done;
	struct found found;

	bdev_ref(w->keep);
	ASSERT_OK(bfs_repair(w->keep, &opts, &done, &w->err));
	look(w, &found, &result);
	if (all_safe(codes) != !found.n)
		FAIL("of %s the safe repair left %s", codes, found.codes);
	opts.flags = BFS_REPAIR_ALL;
	bdev_ref(w->keep);
	ASSERT_OK(bfs_repair(w->keep, &opts, &done, &w->err));
	look(w, &found, &result);
	if (found.n)
		FAIL("repair left %s", found.codes);
	bdev_ref(w->keep);
	ASSERT_OK(bfs_repair(w->keep, &opts, &done, &w->err));
	EXPECT_EQ_INT(0, done.repairs);
	ASSERT_OK(bfs_unmount(world_mount(w, BFS_NO_SERVICE)));
}

static void one_damage(size_t i, bool repair)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts), .flags = BFS_NO_SERVICE, .cache_size = 8 * MiB };
	struct bfs_check_result result;
	struct damage d;
	struct found found;
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	struct bfs_attr attr;

	test_note("damage %zu: %s", i, damages[i].code);
	d.sub = make_dir(fs, ROOT, "sub");
	d.dir = d.sub;
	if (damages[i].fn != cycle) { /* the root's only entry is "sub" there */
		d.dir = make_dir(fs, ROOT, "dir");
		d.file = make_file(fs, d.dir, "file");
		ASSERT_OK(bfs_symlink(fs, NULL, d.sub, "link", "dir/file", 0, &attr));
		d.link = attr.ino;
	}
	d.bs = bfs_store(fs);
	ASSERT_OK(bs_txn_begin(d.bs, 0, &d.txn));
	damages[i].fn(&d);
	bs_txn_end(d.txn);
	ASSERT_OK(bfs_unmount(fs));
	look(&w, &found, &result);
	if (!strstr(found.codes, damages[i].code))
		FAIL("found only: %s", found.codes);
	if (repair) {
		mend(&w, found.codes);
		bdev_close(w.keep);
		return;
	}
	bdev_ref(w.keep);
	if (bfs_mount_bdev(w.keep, &opts, &fs, &w.err)) {
		bdev_close(w.keep);
	} else {
		touch_all(fs, &d);
		bfs_abandon(fs);
	}
	bdev_close(w.keep);
}

TEST(bfs_check, every_damage_is_found_and_survived)
{
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++)
		one_damage(i, false);
}

TEST(bfs_check, every_damage_is_repaired)
{
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++)
		one_damage(i, true);
}

TEST(bfs_check, a_sound_file_system_is_counted_and_has_no_problems)
{
	struct bfs_check_result result;
	struct found found;
	struct world w;
	struct bfs *fs = world_make(&w, "64M", 0);
	uint64_t d = make_dir(fs, ROOT, "d");
	uint64_t f = make_file(fs, d, "f");

	ASSERT_OK(bfs_symlink(fs, NULL, d, "l", "x", 0, NULL));
	ASSERT_OK(bfs_link(fs, NULL, f, ROOT, "f2", 0, NULL));
	ASSERT_OK(bfs_mknod(fs, NULL, d, "p", S_IFIFO, 0, 0, NULL));
	ASSERT_OK(bfs_setxattr(fs, NULL, f, "user.x", "y", 1, 0));
	ASSERT_OK(bfs_unmount(fs));
	look(&w, &found, &result);
	EXPECT_EQ_INT(0, found.n);
	EXPECT_EQ_INT(1, result.files);
	EXPECT_EQ_INT(2, result.directories);
	EXPECT_EQ_INT(1, result.symlinks);
	EXPECT_EQ_INT(1, result.others);
	EXPECT_EQ_INT(0, result.orphans);
	EXPECT_TRUE(result.clean);
	EXPECT_STREQ("test", result.label);
	bdev_close(w.keep);
}
